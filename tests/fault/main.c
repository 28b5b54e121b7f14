/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fault --images [--seed N] [--steps N] [--count N] [--minutes M] [--jobs N] [--every N]
 * fault --points ...    with --every only each N-th place
 * fault --damage ...
 * fault --one SPEC      repeats what was reported
 *
 * Exit status 0: nothing was lost, wrong, or without a name.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/fault/campaign.h"
#include "tests/fault/clock.h"
#include "tests/fault/crash.h"

static _Noreturn void usage(void)
{
    (void)fprintf(stderr, "usage: fault --images | --points | --damage [--seed N] [--steps N] "
                          "[--count N] [--minutes M] [--jobs N] [--every N]\n"
                          "       fault --one SPEC\n");
    exit(2);
}

static uint64_t number(const char *text)
{
    char *end = NULL;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0') {
        usage();
    }
    return value;
}

static const struct campaign_kind *const kinds[] = {&campaign_images, &campaign_points,
                                                    &campaign_damage};

static const struct campaign_kind *kind_of(const char *name)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(name, kinds[i]->name) == 0) {
            return kinds[i];
        }
    }
    usage();
}

static void parse(struct campaign *campaign, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--images") == 0 || strcmp(argv[i], "--points") == 0 ||
            strcmp(argv[i], "--damage") == 0) {
            campaign->kind = kind_of(argv[i] + 2);
            continue;
        }
        if (value == NULL) {
            usage();
        } else if (strcmp(argv[i], "--seed") == 0) {
            campaign->seed = number(value);
        } else if (strcmp(argv[i], "--steps") == 0) {
            campaign->steps = (uint32_t)number(value);
        } else if (strcmp(argv[i], "--every") == 0) {
            campaign->every = (uint32_t)number(value);
        } else if (strcmp(argv[i], "--count") == 0) {
            campaign->count = number(value);
        } else if (strcmp(argv[i], "--minutes") == 0) {
            campaign->end_s = fault_clock_real_s() + 60.0 * (double)number(value);
        } else if (strcmp(argv[i], "--jobs") == 0) {
            campaign->jobs = (uint32_t)number(value);
        } else if (strcmp(argv[i], "--one") == 0) {
            campaign->one = value;
        } else {
            usage();
        }
        i++;
    }
}

/* ------------------------------------------------------------------ what the kinds use */
bool campaign_is_over(const struct campaign *campaign, const struct tally *tally)
{
    return (campaign->count > 0 && tally->cases >= campaign->count / campaign->jobs) ||
           (campaign->end_s > 0 && fault_clock_real_s() > campaign->end_s);
}

void campaign_at(struct campaign *campaign, const char *spec)
{
    (void)snprintf(campaign->shared->at[campaign->share], sizeof(campaign->shared->at[0]), "%s",
                   spec);
}

void campaign_failed(struct campaign *campaign, const char *why)
{
    (void)printf("FAILED %s\n  again: fault --one %s\n", why,
                 campaign->shared->at[campaign->share]);
    (void)fflush(stdout);
    campaign->shared->tallies[campaign->share].failures++;
}

/* ------------------------------------------------------------------ shares */
static void make_folder(struct campaign *campaign)
{
    const char *base = getenv("TMPDIR");
    if (base == NULL) {
        base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    }
    (void)snprintf(campaign->dir, sizeof(campaign->dir), "%s/hp-fault-XXXXXX", base);
    if (mkdtemp(campaign->dir) == NULL) {
        perror(campaign->dir);
        exit(2);
    }
}

static int run_share(struct campaign *campaign, uint32_t share)
{
    campaign->share = share;
    make_folder(campaign);
    campaign->kind->run(campaign, &campaign->shared->tallies[share]);
    crash_clear_folder(campaign->dir);
    (void)rmdir(campaign->dir);
    return 0;
}

static void report(const struct campaign *campaign, double seconds, bool crashed)
{
    struct tally sum = {0};
    for (uint32_t i = 0; i < campaign->jobs; i++) {
        sum.cases += campaign->shared->tallies[i].cases;
        sum.places += campaign->shared->tallies[i].places;
        sum.noticed += campaign->shared->tallies[i].noticed;
        sum.failures += campaign->shared->tallies[i].failures;
    }
    (void)printf("%s: %llu cases at %llu places, %llu noticed, %llu failed%s, %.1f s\n",
                 campaign->kind->name, (unsigned long long)sum.cases,
                 (unsigned long long)sum.places, (unsigned long long)sum.noticed,
                 (unsigned long long)sum.failures, crashed ? ", and a crash" : "", seconds);
}

static int run_all(struct campaign *campaign)
{
    bool crashed = false;
    double begin_s = fault_clock_real_s();
    (void)fflush(stdout);
    for (uint32_t i = 0; i < campaign->jobs; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            exit(run_share(campaign, i));
        }
        campaign->shared->pids[i] = pid;
    }
    for (uint32_t i = 0; i < campaign->jobs; i++) {
        int status = 0;
        if (waitpid(campaign->shared->pids[i], &status, 0) < 0 || status != 0) {
            crashed = true;
            (void)printf("FAILED: it died (status %d)\n  again: fault --one %s\n", status,
                         campaign->shared->at[i]);
        }
    }
    report(campaign, fault_clock_real_s() - begin_s, crashed);
    uint64_t failures = 0;
    for (uint32_t i = 0; i < campaign->jobs; i++) {
        failures += campaign->shared->tallies[i].failures;
    }
    return crashed || failures > 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct campaign campaign = {.seed = 1, .jobs = 1, .every = 1};
    parse(&campaign, argc, argv);
    if (campaign.one != NULL) {
        char name[16];
        size_t size = strcspn(campaign.one, ":");
        (void)snprintf(name, sizeof(name), "%.*s", (int)size, campaign.one);
        campaign.kind = kind_of(name);
    }
    if (campaign.kind == NULL || campaign.jobs == 0 || campaign.every == 0 ||
        campaign.jobs > CAMPAIGN_JOBS_MAX) {
        usage();
    }
    campaign.shared = mmap(NULL, sizeof(*campaign.shared), PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (campaign.shared == MAP_FAILED) {
        perror("mmap");
        return 2;
    }
    return run_all(&campaign);
}
