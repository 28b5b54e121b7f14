/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tasks whose rows in the store are damaged: the store says so, and nothing else of them. They are
 * rare, so all that waits in memory is looked through.
 */
#include "server/core/damage.h"

static bool holds(uint64_t first, uint32_t count, uint64_t id)
{
    return id >= first && id - first < count;
}

static bool is_in_lane(const struct hp_lane *lane, uint64_t id)
{
    bool found = false;
    for (uint32_t i = 0; i < lane->run_count && !found; i++) {
        const struct hp_run *run = &lane->runs[(lane->run_head + i) & (lane->run_capacity - 1)];
        found = holds(run->first, run->count, id);
    }
    return found;
}

static bool is_in_a_lane(const struct hp_core *core, uint64_t id)
{
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    bool found = false;
    while (!found && hp_idmap_next(&core->lanes, &iter, NULL, &value)) {
        found = is_in_lane((const struct hp_lane *)(uintptr_t)value, id);
    }
    return found;
}

static bool is_delayed(const struct hp_core *core, uint64_t id)
{
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    bool found = false;
    while (!found && hp_idmap_next(&core->timers, &iter, NULL, &value)) {
        const struct hp_side *side = &((const struct hp_timer *)(uintptr_t)value)->side;
        found = holds(side->first, side->count, id);
    }
    return found;
}

enum hp_task_state hp_damage_state(const struct hp_core *core, uint64_t id)
{
    if (id >= core->next_id) {
        return HP_TASK_STATE_UNKNOWN;
    }
    if (is_in_a_lane(core, id)) {
        return HP_TASK_STATE_READY;
    }
    return is_delayed(core, id) ? HP_TASK_STATE_DELAYED : HP_TASK_STATE_FAILED;
}
