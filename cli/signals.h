/* SPDX-License-Identifier: BSD-2-Clause */
/* Signals as a descriptor, and a poll over it and a client. */
#ifndef HP_CLI_SIGNALS_H
#define HP_CLI_SIGNALS_H

#include "cli/cli.h"

/* Takes these signals (0-terminated) through a descriptor from now on, and ignores SIGPIPE. -1:
 * errno. */
int hp_cli_signals_open(const int *signals);
/* The next signal that came, 0 if none. */
int hp_cli_signals_next(int fd);
/* Gives the signals back their default, for a child. */
void hp_cli_signals_reset(void);

/*
 * Waits until the client, the signals or the time (ms, -1: no limit) want something, and lets the
 * client work. Events of the client must have been taken before.
 */
enum hp_status hp_cli_poll(struct hp_client *client, int signal_fd, int timeout_ms);

#endif
