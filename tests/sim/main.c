/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sim --seed N [--trace] [--check]  one run; --check: all indices after each turn
 * sim --seeds A..B [--jobs N]      many
 * sim --minutes M [--from A]       as many as the time allows
 * sim --file PATH                  the seeds of a file, one a line
 *
 * Exit status 0: all held. On a broken rule: the tail of the history, the rule and the seed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/sim.h"

struct args {
    uint64_t from, to;
    uint64_t seconds; /* 0: all of from..to */
    unsigned jobs;
    bool trace, check, quiet;
    const char *file;
};

static void usage(void)
{
    (void)fprintf(stderr, "usage: sim --seed N [--trace] | --seeds A..B [--jobs N] | --minutes M "
                          "[--from A] [--jobs N] | --file PATH\n");
    exit(2);
}

static uint64_t number(const char *text, char **ret_end)
{
    errno = 0;
    uint64_t value = strtoull(text, ret_end, 10);
    if (errno != 0 || *ret_end == text) {
        usage();
    }
    return value;
}

static void parse_seeds(struct args *args, const char *text)
{
    char *end = NULL;
    args->from = number(text, &end);
    if (strncmp(end, "..", 2) != 0) {
        usage();
    }
    args->to = number(end + 2, &end);
}

static void parse(struct args *args, int argc, char **argv)
{
    char *end = NULL;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--trace") == 0) {
            args->trace = true;
            continue;
        }
        if (strcmp(argv[i], "--check") == 0) {
            args->check = true;
            continue;
        }
        if (value == NULL) {
            usage();
        } else if (strcmp(argv[i], "--seed") == 0) {
            args->from = args->to = number(value, &end);
        } else if (strcmp(argv[i], "--seeds") == 0) {
            parse_seeds(args, value);
        } else if (strcmp(argv[i], "--jobs") == 0) {
            args->jobs = (unsigned)number(value, &end);
        } else if (strcmp(argv[i], "--from") == 0) {
            args->from = number(value, &end);
        } else if (strcmp(argv[i], "--minutes") == 0) {
            args->seconds = number(value, &end) * 60;
            args->to = UINT64_MAX;
        } else if (strcmp(argv[i], "--file") == 0) {
            args->file = value;
        } else {
            usage();
        }
        i++;
    }
}

static uint64_t seconds_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec;
}

static void one(uint64_t seed, const struct args *args)
{
    static struct sim sim;
    sim_run(seed, args->trace, args->check, &sim);
    if (!args->quiet) {
        (void)printf("seed %llu ok: hash %016llx, %llu s, %llu tasks, %llu starts, %llu faults, "
                     "%llu crashes, %llu turns\n",
                     (unsigned long long)seed, (unsigned long long)sim.hash,
                     (unsigned long long)(sim_ms(&sim) / 1000),
                     (unsigned long long)sim.figures.tasks, (unsigned long long)sim.figures.starts,
                     (unsigned long long)sim.figures.faults,
                     (unsigned long long)sim.figures.crashes,
                     (unsigned long long)sim.figures.turns);
    }
}

static void run_file(const struct args *args)
{
    FILE *file = fopen(args->file, "r");
    char line[256];
    if (file == NULL) {
        perror(args->file);
        exit(2);
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        if (line[0] >= '0' && line[0] <= '9') {
            one(strtoull(line, NULL, 10), args);
        }
    }
    (void)fclose(file);
}

/* Every jobs-th seed. */
static void run_share(const struct args *args, unsigned share)
{
    uint64_t begin = seconds_now();
    uint64_t count = 0;
    for (uint64_t seed = args->from + share; seed <= args->to && seed >= args->from;
         seed += args->jobs) {
        if (args->seconds > 0 && seconds_now() - begin >= args->seconds) {
            break;
        }
        one(seed, args);
        count++;
    }
    (void)printf("%llu seeds from %llu on held\n", (unsigned long long)count,
                 (unsigned long long)(args->from + share));
}

int main(int argc, char **argv)
{
    struct args args = {.from = 1, .to = 1, .jobs = 1};
    parse(&args, argc, argv);
    if (args.file != NULL) {
        run_file(&args);
        return 0;
    }
    args.quiet = args.from != args.to;
    if (args.jobs <= 1) {
        args.jobs = 1;
        if (args.quiet) {
            run_share(&args, 0);
        } else {
            one(args.from, &args);
        }
        return 0;
    }
    for (unsigned i = 0; i < args.jobs; i++) {
        pid_t pid = fork();
        if (pid < 0) {
            perror("fork");
            return 2;
        }
        if (pid == 0) {
            run_share(&args, i);
            return 0;
        }
    }
    int status = 0;
    int worst = 0;
    while (wait(&status) > 0) {
        worst = status != 0 ? 1 : worst;
    }
    return worst;
}
