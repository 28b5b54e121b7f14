/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The helper processes: the spawner and the zygote run the same loop. A helper starts children on
 * the daemon's word, and it alone signals and reaps them.
 *
 * I1: a process group is signalled only while its leader is unreaped, so never a reused id.
 * I2: at the end of a leader the rest of its group is killed before the leader is reaped, and then
 *     what had left the group (helpers are subreapers, so it becomes their child).
 * I3: EOF from the daemon kills all and ends the helper. The deadline in shared memory kills what
 * is marked, whether the daemon runs or not.
 */
#ifndef HP_EXEC_HELPER_H
#define HP_EXEC_HELPER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "worker/exec/control.h"
#include "worker/exec/modules.h"
#include "worker/exec/ring.h"

enum hp_helper_role {
    HP_HELPER_SPAWNER,
    HP_HELPER_ZYGOTE,
    HP_HELPER_LANGUAGE /* a zygote that runs an interpreter (language.h) */
};

struct hp_port;
struct hp_language_hooks;

struct hp_helper_config {
    enum hp_helper_role role;
    int control_fd;
    uint32_t slots; /* children at once */
    struct hp_exec_shared *shared;
    struct hp_child_shared *children; /* zygotes */
    const char *const *modules;       /* zygote: paths */
    uint32_t module_count;
    uint64_t result_cap_bytes;             /* zygotes */
    const struct hp_language_hooks *hooks; /* language */
    const char *ready_text;                /* language */
    uint64_t instance; /* in the environment of all that commands start, to find it again */
};

/* A child of a helper. */
struct hp_proc {
    uint64_t id;
    pid_t pid; /* leader of its own session and group */
    uint32_t slot;
    bool kill_on_partition;
    bool is_fenced;
    bool is_killed;
    bool is_told; /* the daemon knows that it runs */
    uint64_t start_us;
};

struct hp_helper {
    const struct hp_helper_config *config;
    struct hp_control control;
    struct hp_modules modules; /* zygote */
    struct hp_port *port;      /* language: not NULL: this is a child just forked */
    struct hp_proc *procs;     /* proc_count of config->slots + 1 */
    uint32_t proc_count;
    int null_fd;
    int signal_fd;
    int timer_fd;
    uint32_t sweeps_left; /* looks at orphans still to be made, SWEEP_MS apart */
    uint64_t armed_ms;    /* deadline the timer is set to; 0: none */
    uint64_t tell_at_us;  /* the daemon hears of the oldest untold start then; UINT64_MAX: none */
};

/* Runs a helper in a process just forked for it. Never returns. */
__attribute__((noreturn)) void hp_helper_main(const struct hp_helper_config *config);

/* Runs a language zygote in this process. Returns only in a forked child: its port; NULL: this
 * process could not be set up as a helper. */
struct hp_port *hp_helper_language(const struct hp_helper_config *config);

/* parts of helper_fork.c, which forks for zygotes */
void hp_helper_on_fork(struct hp_helper *helper, struct hp_control_in *in);
/* Tells the daemon; a message that can not even be queued means the end of the helper: the daemon
 * then sees EOF, which it knows how to handle. */
void hp_helper_tell(struct hp_helper *helper, const struct hp_control_msg *msg, const void *text,
                    const int *fds, uint32_t fd_count);
void hp_helper_tell_failed(struct hp_helper *helper, uint64_t id, int error_number,
                           const char *text);
void hp_helper_add_proc(struct hp_helper *helper, const struct hp_control_msg *msg, pid_t pid);

/* Marker variable of everything that commands start: "HOSTPOOL_RUN=<instance>.<id>". */
#define HP_RUN_MARKER "HOSTPOOL_RUN="
#define HP_RUN_MARKER_BYTES 64

/* Writes the marker of one child. */
void hp_run_marker(char out[HP_RUN_MARKER_BYTES], uint64_t instance, uint64_t id);

/*
 * Kills children of this helper which belong to no live leader: they left the group of one that has
 * ended. With `all`, every child. Returns how many were left because nothing tells whose they are.
 */
uint32_t hp_orphans_kill(const struct hp_helper *helper, bool all);

/*
 * For the daemon, after a helper has died: kills and reaps all children of this process but the
 * helpers given, until none is left (true) or the time is over. What a helper ran becomes the
 * daemon's child when the helper dies, as the daemon is a subreaper, too.
 */
bool hp_orphans_end(const pid_t *helpers, size_t helper_count, uint64_t timeout_ms);

#endif
