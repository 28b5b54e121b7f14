/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hostpool dev: a broker and workers that live as long as this command. Everything is in one
 * temporary directory; the daemons are in a process group of their own, so that Ctrl-C reaches only
 * us, and end with us in any case (parent-death signal).
 */
#include "cli/daemons.h"
#include "cli/signals.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int spawn_command(struct hp_cli_daemons *daemons, const char *const *words, pid_t *ret_pid)
{
    (void)setenv("HOSTPOOL_HOST", daemons->host, 1);
    const char *path = getenv("PATH");
    if (daemons->bin_dir != NULL) { /* `hostpool' in the command is this one */
        (void)setenv(
            "PATH", hp_cli_printf("%s:%s", daemons->bin_dir, path != NULL ? path : "/usr/bin:/bin"),
            1);
    }
    pid_t pid = fork();
    if (pid < 0) {
        hp_cli_error("cannot start a process: %s.", strerror(errno));
        return HP_CLI_FAILED;
    }
    if (pid == 0) {
        hp_cli_signals_reset();
        (void)execvp(words[0], (char *const *)(uintptr_t)words);
        int code = errno == ENOENT ? HP_CLI_RUN_NOT_FOUND : HP_CLI_RUN_NO_EXEC;
        hp_cli_error("cannot run %s: %s.", words[0], strerror(errno));
        _exit(code);
    }
    *ret_pid = pid;
    return 0;
}

static int code_of(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Until the command ends; a daemon that ends by itself ends all. */
static int wait_command(struct hp_cli_daemons *daemons, int signal_fd, pid_t command)
{
    for (;;) {
        int number = hp_cli_daemons_sleep(signal_fd, -1);
        if (number == SIGCHLD) {
            int status = 0;
            if (waitpid(command, &status, WNOHANG) == command) {
                return code_of(status);
            }
            int code = hp_cli_daemons_check(daemons);
            if (code != 0) {
                (void)kill(command, SIGTERM);
                return code;
            }
        } else if (number == SIGTERM || number == SIGHUP) { /* Ctrl-C it gets from the terminal */
            (void)kill(command, number);
        }
    }
}

static int wait_interrupt(struct hp_cli_daemons *daemons, int signal_fd)
{
    (void)printf("export HOSTPOOL_HOST=%s\n", daemons->host);
    (void)fflush(stdout);
    hp_cli_error("broker and %zu worker%s with %zu slots run in %s. Ctrl-C ends and removes them.",
                 daemons->count - 1, daemons->count == 2 ? "" : "s", daemons->slot_count,
                 daemons->dir);
    for (;;) {
        int number = hp_cli_daemons_sleep(signal_fd, -1);
        if (number == SIGCHLD) {
            int code = hp_cli_daemons_check(daemons);
            if (code != 0) {
                return code;
            }
        } else if (number == SIGINT) {
            return HP_CLI_OK; /* the way it is meant to end */
        } else if (number != 0) {
            return 128 + number;
        }
    }
}

int hp_cli_dev(struct hp_cli *cli)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGCHLD, 0};
    struct hp_cli_daemons daemons = {0};
    int signal_fd = hp_cli_signals_open(signals);
    int code = hp_cli_daemons_start(cli, &daemons, signal_fd);
    if (code == 0 && cli->args.operand_count > 0) {
        pid_t command = 0;
        code = spawn_command(&daemons, cli->args.operands, &command);
        code = code == 0 ? wait_command(&daemons, signal_fd, command) : code;
    } else if (code == 0) {
        code = wait_interrupt(&daemons, signal_fd);
    }
    hp_cli_daemons_stop(&daemons, signal_fd);
    (void)close(signal_fd);
    return code;
}
