/* SPDX-License-Identifier: BSD-2-Clause */
/* Many seeds, in processes that share them; a failing one ends its process, and the next goes on.
 */
#include "tests/sim/campaign.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/assert.h"

enum { JOBS_MAX = 64, MINIMISED_MAX = 3 };

/* What one process has done; shared with it. */
struct share {
    uint64_t seed; /* under way */
    uint64_t next, count, faults, faults_least, virtual_ms, tasks, turns;
    uint64_t kinds[SIM_FAULT_KINDS];
    pid_t pid;
};

static uint64_t seconds_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec;
}

static void add(struct share *share, const struct sim *sim)
{
    uint64_t faults = sim->figures.faults;
    share->count++;
    share->faults += faults;
    share->faults_least = faults < share->faults_least ? faults : share->faults_least;
    share->virtual_ms += sim_ms(sim);
    share->tasks += sim->figures.tasks;
    share->turns += sim->figures.turns;
    for (uint32_t i = 0; i < SIM_FAULT_KINDS; i++) {
        share->kinds[i] += sim->figures.kinds[i];
    }
}

static void work(const struct campaign *campaign, struct share *share, uint64_t until)
{
    static struct sim sim;
    sim_be_brief();
    while (share->next <= campaign->to && (until == 0 || seconds_now() < until)) {
        struct sim_options options = {
            .seed = share->next, .check = campaign->check, .trap = campaign->trap};
        share->seed = share->next;
        share->next += campaign->jobs;
        sim_run(&options, &sim);
        add(share, &sim);
    }
    _Exit(0);
}

static void start(const struct campaign *campaign, struct share *share, uint64_t until)
{
    (void)fflush(NULL);
    pid_t pid = fork();
    HP_ASSERT(pid >= 0);
    if (pid == 0) {
        work(campaign, share, until);
    }
    share->pid = pid;
}

static void print_kinds(const struct share *sum)
{
    for (uint32_t i = 0; i < SIM_FAULT_KINDS; i++) {
        (void)printf("  %8llu  %s\n", (unsigned long long)sum->kinds[i],
                     sim_words_fault((enum sim_fault_kind)i));
    }
}

static void print_figures(const struct campaign *campaign, const struct share *shares,
                          unsigned failures)
{
    struct share sum = {.faults_least = UINT64_MAX};
    struct rusage usage;
    (void)getrusage(RUSAGE_CHILDREN, &usage);
    double user = (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6;
    for (unsigned i = 0; i < campaign->jobs; i++) {
        sum.count += shares[i].count;
        sum.faults += shares[i].faults;
        sum.virtual_ms += shares[i].virtual_ms;
        sum.tasks += shares[i].tasks;
        sum.turns += shares[i].turns;
        if (shares[i].faults_least < sum.faults_least) {
            sum.faults_least = shares[i].faults_least;
        }
        for (uint32_t k = 0; k < SIM_FAULT_KINDS; k++) {
            sum.kinds[k] += shares[i].kinds[k];
        }
    }
    double count = sum.count > 0 ? (double)sum.count : 1;
    if (sum.count > 1) {
        print_kinds(&sum);
    }
    (void)printf("%llu seeds from %llu on held, %u failed: %.1f faults each (least %llu), "
                 "%.1f virtual minutes, %.0f tasks, %.0f turns; %.0f seeds an hour of a core\n",
                 (unsigned long long)sum.count, (unsigned long long)campaign->from, failures,
                 (double)sum.faults / count,
                 (unsigned long long)(sum.count > 0 ? sum.faults_least : 0),
                 (double)sum.virtual_ms / count / 60000, (double)sum.tasks / count,
                 (double)sum.turns / count, user > 0 ? count / user * 3600 : 0);
}

static struct share *share_of(struct share *shares, unsigned jobs, pid_t pid)
{
    for (unsigned i = 0; i < jobs; i++) {
        if (shares[i].pid == pid) {
            return &shares[i];
        }
    }
    HP_UNREACHABLE();
}

bool sim_campaign(const struct campaign *campaign)
{
    HP_ASSERT(campaign->jobs >= 1 && campaign->jobs <= JOBS_MAX);
    struct share *shares = mmap(NULL, JOBS_MAX * sizeof(*shares), PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t until = campaign->seconds > 0 ? seconds_now() + campaign->seconds : 0;
    unsigned failures = 0;
    HP_ASSERT(shares != MAP_FAILED);
    for (unsigned i = 0; i < campaign->jobs; i++) {
        shares[i].next = campaign->from + i;
        shares[i].faults_least = UINT64_MAX;
        start(campaign, &shares[i], until);
    }
    for (unsigned running = campaign->jobs; running > 0;) {
        int status = 0;
        pid_t pid = wait(&status);
        HP_ASSERT(pid > 0);
        struct share *share = share_of(shares, campaign->jobs, pid);
        if (status == 0) {
            running--;
            continue;
        }
        failures++;
        struct sim_options options = {.seed = share->seed, .trap = campaign->trap};
        (void)printf("seed %llu failed\n", (unsigned long long)share->seed);
        if (failures <= MINIMISED_MAX) {
            (void)sim_minimise(&options);
        }
        if (failures < campaign->failures_max) {
            start(campaign, share, until);
        } else {
            running--;
        }
    }
    print_figures(campaign, shares, failures);
    return failures == 0;
}
