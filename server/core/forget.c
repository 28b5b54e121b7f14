/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * task.forget. What is not durable goes at once. Durable ids are gathered, neighbours as one range,
 * and told to the store with a batch that is written anyway, or after a while: nobody waits for it.
 */
#include "server/core/state.h"

enum {
    SPANS_MAX = 4096, /* then they go with this turn */
    GATHER_MS = 1000, /* each telling costs the store transactions of its own */
};

void hp_forget_add(struct hp_core *core, uint64_t first, uint64_t end)
{
    struct hp_forgets *forgets = &core->forgets;
    while (first < end) {
        struct hp_id_span *last = forgets->count > 0 ? &forgets->spans[forgets->count - 1] : NULL;
        uint64_t part = end - first;
        part = part < UINT32_MAX ? part : UINT32_MAX;
        if (last != NULL && last->first + last->count == first &&
            part <= UINT32_MAX - last->count) {
            last->count += (uint32_t)part;
            first += part;
            continue;
        }
        if (forgets->count == forgets->capacity) {
            forgets->capacity = forgets->capacity == 0 ? 64 : forgets->capacity * 2;
            forgets->spans =
                hp_realloc_array(forgets->spans, forgets->capacity, sizeof(*forgets->spans));
            HP_ASSERT(forgets->spans != NULL);
        }
        forgets->spans[forgets->count++] = (struct hp_id_span){first, (uint32_t)part};
        first += part;
    }
}

/* Into the turn's batch, if it has something else, or it is time. */
void hp_forget_flush(struct hp_core *core, bool now)
{
    struct hp_forgets *forgets = &core->forgets;
    bool rides = core->batch->op_count > 0 && core->now_ms >= forgets->next_ms;
    if (forgets->count == 0 || (!now && !rides && forgets->count < SPANS_MAX)) {
        return;
    }
    forgets->next_ms = core->now_ms + GATHER_MS;
    struct hp_id_span *spans =
        hp_arena_copy(&core->batch->arena, forgets->spans, forgets->count * sizeof(*spans));
    HP_ASSERT(spans != NULL);
    struct hp_op *op = hp_batch_add(core->batch, HP_OP_FORGET);
    op->forget.spans = spans;
    op->forget.span_count = forgets->count;
    op->forget.wall_ms = core->wall_ms;
    forgets->count = 0;
}

void hp_on_task_forget(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_task_forget msg;
    struct hp_error error;
    if (hp_msg_task_forget_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    for (uint32_t i = 0; i < msg.ranges.count; i++) {
        uint64_t first = msg.ranges.items[i].first;
        uint64_t end = core->next_id;
        if (first >= end) {
            continue;
        }
        uint64_t count = msg.ranges.items[i].count;
        end = count < end - first ? first + count : end;
        hp_volatile_forget(core, first, end);
    }
}
