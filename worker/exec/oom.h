/* SPDX-License-Identifier: BSD-2-Clause */
/* Whether a SIGKILL came from the kernel for memory: a guess by the kernel's counters. */
#ifndef HP_EXEC_OOM_H
#define HP_EXEC_OOM_H

#include <stdbool.h>
#include <stdint.h>

struct hp_oom {
    uint64_t seen; /* kills counted so far */
};

void hp_oom_init(struct hp_oom *oom);

/* True if the kernel has killed anything for memory since the last look. */
bool hp_oom_look(struct hp_oom *oom);

#endif
