/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemons of `hostpool dev': found, started in a temporary directory, watched, ended. */
#ifndef HP_CLI_DAEMONS_H
#define HP_CLI_DAEMONS_H

#include "cli/cli.h"

#include <sys/types.h>

#define HP_CLI_DAEMONS_MAX 65 /* the broker and 64 workers */

struct hp_cli_daemons {
    const char *bin_dir;            /* of this program */
    char dir[128];                  /* "" before it is made */
    char host[64];                  /* 127.0.0.1:PORT */
    pid_t pids[HP_CLI_DAEMONS_MAX]; /* [0] is the broker; 0: has ended */
    const char *logs[HP_CLI_DAEMONS_MAX];
    size_t count;
    size_t slot_count;
};

/* Starts all and waits until the workers are there. 0, or an exit code with the error printed. */
int hp_cli_daemons_start(struct hp_cli *cli, struct hp_cli_daemons *daemons, int signal_fd);
/* Ends all and removes the directory. */
void hp_cli_daemons_stop(struct hp_cli_daemons *daemons, int signal_fd);
/* Reaps; an exit code with the error printed if a daemon has ended. */
int hp_cli_daemons_check(struct hp_cli_daemons *daemons);
/* Waits for a signal, at most timeout_ms (-1: no limit); 0: none came. */
int hp_cli_daemons_sleep(int signal_fd, int timeout_ms);

#endif
