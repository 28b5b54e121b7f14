/* SPDX-License-Identifier: BSD-2-Clause */
/* Tasks whose rows in the store are damaged. */
#ifndef HP_SERVER_CORE_DAMAGE_H
#define HP_SERVER_CORE_DAMAGE_H

#include "server/core/state.h"

/*
 * The state of a task with a damaged row and no attempt: as memory has it, if it waits there; else
 * FAILED, because whether it ended, and how, can not be told any more. UNKNOWN: no such id was
 * given out (what is damaged may seem to reach so far).
 */
enum hp_task_state hp_damage_state(const struct hp_core *core, uint64_t id);

#endif
