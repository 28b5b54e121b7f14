/* SPDX-License-Identifier: BSD-2-Clause */
/* Starts one program with a clean state, at vfork's price. Used by the spawner only. */
#ifndef HP_EXEC_SPAWN_H
#define HP_EXEC_SPAWN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * A spec is how the daemon hands a command to the spawner: a head, then NUL-terminated strings: the
 * working directory, argv_count arguments, env_count settings.
 */
struct hp_spawn_spec {
    uint32_t argv_count;
    uint32_t env_count;
};

struct hp_spawn_result {
    pid_t pid;        /* -1: not started */
    int error_number; /* errno */
    const char *step; /* what failed: "exec", "chdir", ... */
    const char *what; /* of which file; points into the spec */
};

/*
 * Starts the program of a spec (`spec` has `bytes` bytes and is only read) with these three
 * descriptors as 0, 1, 2 (null_fd stands in for a missing one, -1): own session and process group,
 * default signals, nothing else inherited. A damaged spec is EINVAL. `tag`: see
 * hp_spawn_clean_process.
 */
struct hp_spawn_result hp_spawn(const char *spec, size_t bytes, const int fds[3], int null_fd,
                                uint64_t tag);

/*
 * For a helper at its start: default dispositions, all signals but faults blocked. A helper takes
 * no signals, and a child then only needs an empty mask.
 */
void hp_spawn_block_signals(void);

/*
 * Makes a new child clean: session, death signal (of the helper), oom score, signal mask. Marks it
 * and all that will descend from it with `tag`. Async-signal-safe; used after fork, too.
 */
void hp_spawn_clean_process(uint64_t tag);

/*
 * The tag of run `id` of an executor. It is kept as the limit of the time that a realtime thread
 * may run (RLIMIT_RTTIME), some hundred thousand years: a limit that nobody needs, that every
 * descendant inherits whatever it does to its session, parents and environment, and that can be
 * lowered but not raised without privilege. Runs 2^32 apart share a tag.
 */
uint64_t hp_spawn_tag(uint64_t instance, uint64_t id);

/* The tag of a process; 0: it has none, or may not be asked. */
uint64_t hp_spawn_tag_of(pid_t pid);

#endif
