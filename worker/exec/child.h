/* SPDX-License-Identifier: BSD-2-Clause */
/* The main loop of a function child; runs in a process just forked by the zygote. */
#ifndef HP_EXEC_CHILD_H
#define HP_EXEC_CHILD_H

#include <stdint.h>

#include "worker/exec/modules.h"
#include "worker/exec/ring.h"

struct hp_child_config {
    int socket_fd;
    struct hp_child_shared *shared;
    const struct hp_modules *modules;
    uint64_t result_cap_bytes;
};

/* Never returns: the process ends when the daemon says so or is gone. */
__attribute__((noreturn)) void hp_child_main(const struct hp_child_config *config);

#endif
