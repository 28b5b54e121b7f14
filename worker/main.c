/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hostpool-worker: runs tasks of a broker on this host.
 *
 * Exit status: 0 ended as asked, 1 could not start or go on, 2 wrong usage.
 *
 * If one of its helper processes dies, it ends in order and executes itself again: helpers are
 * forked before anything is open, so a new one needs a new start. The process id stays.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/sys/clock.h"
#include "common/sys/log.h"
#include "common/sys/proc.h"
#include "worker/config.h"
#include "worker/daemon.h"

enum exit_status {
    EXIT_ENDED = 0,
    EXIT_START = 1,
    EXIT_USAGE = 2,
};

/* Between two starts, so that a helper that always dies does not make a busy loop. */
enum { START_PAUSE_MS = 1000 };

/* In the environment of a start after the first, whose modules are known to load. */
#define AGAIN "HOSTPOOL_WORKER_STARTS_AGAIN"

static void start_again(char *const *argv, uint64_t started_ms)
{
    char path[4096];
    ssize_t size = readlink("/proc/self/exe", path, sizeof(path) - 1);
    uint64_t ran_ms = hp_clock_boot_ms() - started_ms;
    hp_log(HP_LOG_WARN, "starting_again", HP_KV_U64("after_ms", ran_ms));
    if (ran_ms < START_PAUSE_MS) {
        (void)poll(NULL, 0, (int)(START_PAUSE_MS - ran_ms));
    }
    hp_proc_close_from(3);
    (void)setenv(AGAIN, "1", 1);
    if (size > 0) { /* by its path, so that it keeps its name */
        path[size] = '\0';
        (void)execv(path, argv);
    }
    (void)execv("/proc/self/exe", argv); /* the file is gone or another since */
    hp_log(HP_LOG_ERROR, "start_failed", HP_KV_ERRNO("error", errno));
}

/* What it has open besides what its slots need, and what a slot needs at least. */
enum { FILES_OWN = 32, FILES_PER_SLOT = 3 };

/* Too few descriptors would show much later, and as something else. */
static bool has_files(const struct hp_worker_config *config)
{
    uint64_t limit = 0;
    uint64_t needed = FILES_OWN + FILES_PER_SLOT * (uint64_t)config->slots;
    if (hp_proc_raise_nofile(65536, &limit) != HP_OK) {
        hp_log(HP_LOG_WARN, "nofile_limit");
        return true;
    }
    if (limit < needed) {
        (void)fprintf(stderr,
                      "hostpool-worker: %llu file descriptors are too few for %u slots, which need "
                      "%llu: raise the limit (ulimit -n, LimitNOFILE=), or lower --slots\n",
                      (unsigned long long)limit, config->slots, (unsigned long long)needed);
        return false;
    }
    return true;
}

static int run(const struct hp_worker_config *config, char *const *argv)
{
    uint64_t started_ms = hp_clock_boot_ms();
    struct hp_worker worker;
    struct hp_error error = {0};
    hp_log_set_level(config->log_level);
    hp_log_install_assert_handler();
    int status = EXIT_START;
    if (!has_files(config)) {
        return status;
    }
    bool again = getenv(AGAIN) != NULL;
    (void)unsetenv(AGAIN); /* not for the children */
    if (hp_worker_start(&worker, config, &error) == HP_OK) {
        status = hp_worker_run(&worker);
        again = true;
    } else {
        (void)fprintf(stderr, "hostpool-worker: %s\n", error.text);
    }
    again = again && worker.helper_died && worker.term_count == 0;
    hp_worker_deinit(&worker);
    if (again) {
        start_again(argv, started_ms);
    }
    return status;
}

static int act(const struct hp_worker_config *config, char *const *argv)
{
    switch (config->action) {
    case HP_WORKER_HELP:
        return hp_worker_config_print_help() == HP_OK ? EXIT_ENDED : EXIT_START;
    case HP_WORKER_EXAMPLE:
        return hp_worker_config_print_example() == HP_OK ? EXIT_ENDED : EXIT_START;
    case HP_WORKER_VERSION:
        return printf("hostpool-worker %s\n", HP_VERSION) > 0 ? EXIT_ENDED : EXIT_START;
    case HP_WORKER_CHECK:
        return printf("the configuration is valid\n") > 0 ? EXIT_ENDED : EXIT_START;
    case HP_WORKER_RUN:
    default:
        return run(config, argv);
    }
}

int main(int argc, char **argv)
{
    if (hp_proc_keep_std_fds() != HP_OK) {
        return EXIT_START;
    }
    hp_proc_keep_memory();
    struct hp_worker_config config;
    struct hp_error error = {0};
    int status = EXIT_USAGE;
    if (hp_worker_config_read(&config, argc, (const char *const *)argv, &error) == HP_OK) {
        status = act(&config, argv);
    } else {
        (void)fprintf(stderr, "hostpool-worker: %s\nTry 'hostpool-worker --help'.\n", error.text);
    }
    hp_worker_config_deinit(&config);
    return status;
}
