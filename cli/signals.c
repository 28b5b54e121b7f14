/* SPDX-License-Identifier: BSD-2-Clause */
/* Signals as a descriptor, and a poll over it and a client. */
#include "cli/signals.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

int hp_cli_signals_open(const int *signals)
{
    sigset_t set;
    (void)sigemptyset(&set);
    for (const int *at = signals; *at != 0; at++) {
        (void)sigaddset(&set, *at);
    }
    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int hp_cli_signals_next(int fd)
{
    struct signalfd_siginfo info;
    return read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info) ? (int)info.ssi_signo : 0;
}

void hp_cli_signals_reset(void)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigprocmask(SIG_SETMASK, &set, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
}

/* The shorter of two times, where -1 is for ever. */
static int shorter(int a, int b)
{
    if (a < 0 || b < 0) {
        return a < 0 ? b : a;
    }
    return a < b ? a : b;
}

enum hp_status hp_cli_poll(struct hp_client *client, int signal_fd, int timeout_ms)
{
    enum hp_status status = hp_client_process(client, 0);
    if (status != HP_STATUS_OK) {
        return status;
    }
    unsigned wants = hp_client_wants(client);
    short events = (short)((wants & HP_IO_READ ? POLLIN : 0) | (wants & HP_IO_WRITE ? POLLOUT : 0));
    struct pollfd polled[2] = {{.fd = signal_fd, .events = POLLIN},
                               {.fd = hp_client_fd(client), .events = events}};
    int count = poll(polled, 2, shorter(hp_client_timeout_ms(client), timeout_ms));
    unsigned ready = 0;
    if (count > 0) {
        ready |= polled[1].revents & (POLLIN | POLLERR | POLLHUP) ? HP_IO_READ : 0u;
        ready |= polled[1].revents & (POLLOUT | POLLERR) ? HP_IO_WRITE : 0u;
    }
    return hp_client_process(client, ready);
}
