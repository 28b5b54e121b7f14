/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a language's extension links to be a zygote: a warmed, single-threaded process that forks
 * children on the daemon's word.
 *
 * The daemon starts the interpreter with descriptor 3 (the control socket), descriptor 4 (the
 * shared memory of all child slots), stdin from /dev/null, its errors on descriptor 2, and the
 * variable HOSTPOOL_ZYGOTE. When it is warm it calls hp_language_zygote, which runs the same loop
 * as the other helpers: it forks, signals and reaps the children, and ends when the daemon does.
 */
#ifndef HP_EXEC_LANGUAGE_H
#define HP_EXEC_LANGUAGE_H

#include "worker/exec/port.h"

#define HP_LANGUAGE_CONTROL_FD 3
#define HP_LANGUAGE_SHARED_FD 4
#define HP_LANGUAGE_VARIABLE "HOSTPOOL_ZYGOTE" /* "instance:slots:result_cap" */

/* Called around each fork; each may be NULL. */
struct hp_language_hooks {
    void (*before_fork)(void);
    void (*after_fork_parent)(void);
    void (*after_fork_child)(void);
};

/*
 * Runs the zygote. Returns only in a forked child: 0 with its port (owned by the caller), stdin,
 * stdout and stderr in place, no signal blocked and their handlers as they were at the call.
 * Returns -1 (with errno) if this process was not started by hostpool-worker. `ready_text` is what
 * the zygote says of itself: language with version, then anything for people.
 */
int hp_language_zygote(const char *ready_text, const struct hp_language_hooks *hooks,
                       struct hp_port **ret_port);

#endif
