/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs a program COUNT times, AT_ONCE at a time, and nothing else:
 *
 *   limit_spawn fork|vfork|spawn COUNT AT_ONCE PROGRAM [ARGUMENT...]
 */
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/programs/common.h"

extern char **environ;

static void start(const char *how, char **argv)
{
    pid_t child = -1;
    if (strcmp(how, "spawn") == 0) {
        if (posix_spawn(&child, argv[0], NULL, NULL, argv, environ) != 0) {
            bench_fail("posix_spawn", argv[0]);
        }
        return;
    }
    child = strcmp(how, "vfork") == 0 ? vfork() : fork();
    if (child == 0) {
        (void)execve(argv[0], argv, environ);
        _exit(127);
    }
    if (child < 0) {
        bench_die("fork");
    }
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        (void)fprintf(stderr, "usage: limit_spawn fork|vfork|spawn COUNT AT_ONCE PROGRAM ...\n");
        return 2;
    }
    const uint64_t count = bench_number(argv[2]);
    const uint64_t at_once = bench_number(argv[3]);
    uint64_t started = 0;
    char name[64];
    bench_limit_time(300);
    uint64_t begin_ns = bench_now_ns();
    for (uint64_t ended = 0; ended < count; ended++) {
        int status = 0;
        while (started < count && started - ended < at_once) {
            start(argv[1], argv + 4);
            started++;
        }
        if (wait(&status) < 0 || status != 0) {
            bench_fail(argv[4], "failed");
        }
    }
    (void)snprintf(name, sizeof(name), "spawn_%s", argv[1]);
    bench_print_rate(name, (double)count, (double)(bench_now_ns() - begin_ns) / 1e9);
    return 0;
}
