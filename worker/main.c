/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hostpool-worker: runs tasks of a broker on this host.
 *
 * Exit status: 0 ended as asked, 1 could not start or go on, 2 wrong usage.
 */
#include <stdio.h>

#include "common/sys/log.h"
#include "common/sys/proc.h"
#include "worker/config.h"
#include "worker/daemon.h"

enum exit_status {
    EXIT_ENDED = 0,
    EXIT_START = 1,
    EXIT_USAGE = 2,
};

static int run(const struct hp_worker_config *config)
{
    struct hp_worker worker;
    struct hp_error error = {0};
    hp_log_set_level(config->log_level);
    hp_log_install_assert_handler();
    if (hp_proc_raise_nofile(65536, NULL) != HP_OK) {
        hp_log(HP_LOG_WARN, "nofile_limit");
    }
    int status = EXIT_START;
    if (hp_worker_start(&worker, config, &error) == HP_OK) {
        status = hp_worker_run(&worker);
    } else {
        (void)fprintf(stderr, "hostpool-worker: %s\n", error.text);
    }
    hp_worker_deinit(&worker);
    return status;
}

static int act(const struct hp_worker_config *config)
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
        return run(config);
    }
}

int main(int argc, char **argv)
{
    if (hp_proc_keep_std_fds() != HP_OK) {
        return EXIT_START;
    }
    struct hp_worker_config config;
    struct hp_error error = {0};
    int status = EXIT_USAGE;
    if (hp_worker_config_read(&config, argc, (const char *const *)argv, &error) == HP_OK) {
        status = act(&config);
    } else {
        (void)fprintf(stderr, "hostpool-worker: %s\nTry 'hostpool-worker --help'.\n", error.text);
    }
    hp_worker_config_deinit(&config);
    return status;
}
