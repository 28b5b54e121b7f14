/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What waits for a time: delayed submits, returned tasks, expiries. All are side rows in the store;
 * memory holds those that come first, up to a window, and a mark: rows after the mark are only in
 * the store. So a million delayed tasks cost no memory.
 */
#include <stdlib.h>

#include "server/core/state.h"

enum { DUE_SLICE = 512 };

static struct hp_idmap *map_of(struct hp_core *core, enum hp_side_kind kind)
{
    return kind == HP_SIDE_EXPIRY ? &core->expiries : &core->timers;
}

static bool is_after_mark(const struct hp_core *core, const struct hp_side *side)
{
    return side->run_at_ms != core->timer_mark_ms ? side->run_at_ms > core->timer_mark_ms
                                                  : side->first > core->timer_mark_first;
}

static void timer_free(struct hp_core *core, struct hp_timer *timer)
{
    hp_heap_remove(&core->timer_heap, &timer->heap_node);
    (void)hp_idmap_remove(map_of(core, timer->side.kind), timer->side.first, NULL);
    hp_free(timer);
}

static int timer_order(const void *a, const void *b)
{
    const struct hp_side *x = &(*(struct hp_timer *const *)a)->side;
    const struct hp_side *y = &(*(struct hp_timer *const *)b)->side;
    if (x->run_at_ms != y->run_at_ms) {
        return x->run_at_ms < y->run_at_ms ? -1 : 1;
    }
    return x->first < y->first ? -1 : x->first > y->first;
}

/* Keeps the window's worth of what comes first; the rest is in the store. */
static void trim(struct hp_core *core)
{
    uint32_t count = core->timer_heap.count;
    struct hp_timer **timers = hp_must_alloc(count * sizeof(struct hp_timer *));
    for (uint32_t i = 0; i < count; i++) {
        timers[i] = HP_CONTAINER_OF(core->timer_heap.items[i], struct hp_timer, heap_node);
    }
    qsort(timers, count, sizeof(struct hp_timer *), timer_order);
    uint32_t keep = core->config.window_timers > 0 ? core->config.window_timers : 1;
    while (keep < count && timer_order(&timers[keep - 1], &timers[keep]) == 0) {
        keep++; /* both rows of an id are on the same side of the mark */
    }
    for (uint32_t i = keep; i < count; i++) {
        timer_free(core, timers[i]);
    }
    if (keep < count) {
        core->timers_more = true;
        core->timer_mark_ms = timers[keep - 1]->side.run_at_ms;
        core->timer_mark_first = timers[keep - 1]->side.first;
    }
    hp_free(timers);
}

/* Takes note of a side row that was just written (or loaded). */
void hp_timer_put(struct hp_core *core, const struct hp_side *side)
{
    /* A load under way was asked before this row was written, and may go on behind it. */
    if (core->timers_more && !core->timers_loading && is_after_mark(core, side)) {
        return;
    }
    struct hp_timer *timer = hp_idmap_find_ptr(map_of(core, side->kind), side->first);
    if (timer == NULL) {
        timer = hp_must_calloc(sizeof(*timer));
        timer->side = *side;
        hp_must(hp_idmap_put_ptr(map_of(core, side->kind), side->first, timer));
        hp_must(hp_heap_push(&core->timer_heap, &timer->heap_node));
    }
    if (!core->timers_loading && core->timer_heap.count >= 2 * core->config.window_timers) {
        trim(core);
    }
}

struct hp_timer *hp_timer_find(struct hp_core *core, uint64_t first)
{
    return hp_idmap_find_ptr(&core->timers, first);
}

/* Forgets a row in memory, if it is there. */
void hp_timer_remove(struct hp_core *core, uint64_t first, bool expiry)
{
    struct hp_timer *timer = hp_idmap_find_ptr(expiry ? &core->expiries : &core->timers, first);
    if (timer != NULL) {
        timer_free(core, timer);
    }
}

void hp_timer_free_all(struct hp_core *core)
{
    while (hp_heap_peek(&core->timer_heap) != NULL) {
        timer_free(core,
                   HP_CONTAINER_OF(hp_heap_peek(&core->timer_heap), struct hp_timer, heap_node));
    }
    for (int i = 0; i < 2; i++) { /* those whose load is under way are in no heap */
        struct hp_idmap *map = i == 0 ? &core->timers : &core->expiries;
        struct hp_idmap_iter iter = {0};
        uint64_t value = 0;
        while (hp_idmap_next(map, &iter, NULL, &value)) {
            hp_free((void *)(uintptr_t)value);
        }
        hp_idmap_deinit(map);
    }
}

/* ------------------------------------------------ loading rows */
void hp_timer_want(struct hp_core *core)
{
    if (!core->timers_more || core->timers_loading) {
        return;
    }
    /* Those that were written during a load may all be later than what is in the store. */
    struct hp_heap_node *node = hp_heap_peek(&core->timer_heap);
    if (node != NULL && core->timer_heap.count > core->config.window_timers / 10 &&
        !is_after_mark(core, &HP_CONTAINER_OF(node, struct hp_timer, heap_node)->side)) {
        return;
    }
    struct hp_pending *pending = hp_pending_new(core, HP_PENDING_SIDES, NULL, 0);
    struct hp_load *load = hp_out_load(core, HP_LOAD_SIDES, pending);
    load->after_run_at_ms = core->timer_mark_ms;
    load->after_first = core->timer_mark_first;
    load->limit = core->config.window_timers / 4 + 1;
    core->timers_loading = true;
}

static bool is_known(struct hp_core *core, const struct hp_side *side)
{
    if (side->kind == HP_SIDE_EXPIRY) {
        return hp_idmap_find(&core->expiries, side->first, NULL);
    }
    return hp_idmap_find(&core->timers, side->first, NULL) ||
           hp_idmap_find(&core->parked, side->first, NULL) ||
           hp_idmap_find(&core->attempts, side->first, NULL);
}

void hp_timer_sides_loaded(struct hp_core *core, const struct hp_loaded *loaded)
{
    bool changed = false;
    for (uint32_t i = 0; i < loaded->side_count && !changed; i++) {
        const struct hp_side *side = &loaded->sides[i];
        bool known = is_known(core, side);
        changed = !known && hp_recent_overlaps(core, side->first, side->count);
        if (changed) {
            break;
        }
        if (!known) {
            hp_timer_put(core, side);
        }
        core->timer_mark_ms = side->run_at_ms;
        core->timer_mark_first = side->first;
    }
    core->timers_loading = loaded->err != HP_OK; /* a damaged row: asked for no more */
    core->timers_more = loaded->more || changed; /* changed: its row is written anew, ask again */
    if (loaded->err != HP_OK) {
        core->timers_more = true;
        hp_trace(core, HP_TRACE_ERROR, "timers_damaged", "reason=%.*s", (int)loaded->text.size,
                 (const char *)loaded->text.data);
    }
}

/* ------------------------------------------------ due */
uint64_t hp_timer_deadline_ms(const struct hp_core *core)
{
    struct hp_heap_node *node = hp_heap_peek(&core->timer_heap);
    if (node == NULL) {
        return UINT64_MAX;
    }
    const struct hp_timer *timer = HP_CONTAINER_OF(node, struct hp_timer, heap_node);
    int64_t left = timer->side.run_at_ms - core->wall_ms;
    left = left < 0 ? 0 : left > 60000 ? 60000 : left; /* the wall clock may jump: look again */
    return core->now_ms + (uint64_t)left;
}

static void load_expiry(struct hp_core *core, uint64_t first, uint64_t from, uint64_t end)
{
    struct hp_pending *pending = hp_pending_new(core, HP_PENDING_EXPIRY, NULL, 0);
    pending->id = first;
    struct hp_load *load = hp_out_load(core, HP_LOAD_TASKS, pending);
    load->spans = hp_must_alloc(sizeof(*load->spans));
    load->spans[0] = (struct hp_id_span){from, (uint32_t)(end - from)};
    load->span_count = 1;
    load->bytes_max = 1U << 20;
}

static void load_due(struct hp_core *core, const struct hp_id_span *spans, uint32_t count)
{
    struct hp_pending *pending = hp_pending_new(core, HP_PENDING_TIMERS, NULL, 0);
    struct hp_load *load = hp_out_load(core, HP_LOAD_GROUPS, pending);
    load->spans = hp_must_alloc(count * sizeof(*spans));
    memcpy(load->spans, spans, count * sizeof(*spans));
    load->span_count = count;
    load->bytes_max = 4U << 20;
}

/* Asks for what is due; a timer that is being loaded is in its map but in no heap. */
void hp_timer_due(struct hp_core *core)
{
    struct hp_id_span spans[DUE_SLICE];
    uint32_t count = 0;
    for (uint32_t i = 0; i < DUE_SLICE; i++) {
        struct hp_heap_node *node = hp_heap_peek(&core->timer_heap);
        if (node == NULL) {
            break;
        }
        struct hp_timer *timer = HP_CONTAINER_OF(node, struct hp_timer, heap_node);
        if (timer->side.run_at_ms > core->wall_ms) {
            break;
        }
        (void)hp_heap_pop(&core->timer_heap);
        timer->loading = true;
        if (timer->side.kind == HP_SIDE_EXPIRY) {
            load_expiry(core, timer->side.first, timer->side.first,
                        timer->side.first + timer->side.count);
        } else {
            spans[count++] = (struct hp_id_span){timer->side.first, 1};
        }
    }
    if (count > 0) {
        load_due(core, spans, count);
    }
}

void hp_timer_park(struct hp_core *core, const struct hp_side *side, struct hp_group *whole)
{
    uint64_t id = side->first;
    uint32_t index = (uint32_t)(id - whole->first);
    struct hp_bin payload = hp_pack_payload(whole->pack, index);
    uint64_t blob = hp_pack_blob(whole->pack, index);
    size_t size = hp_pack_size(&payload, 1, blob != 0 ? &blob : NULL);
    uint8_t *pack = hp_must_alloc(size);
    hp_pack_write(pack, &payload, 1, blob != 0 ? &blob : NULL);
    struct hp_parked *parked = hp_must_calloc(sizeof(*parked));
    *parked = (struct hp_parked){
        .id = id,
        .group = hp_group_new(core, id, 1, whole->spec, whole->session, whole->created_at_ms,
                              hp_bin_make(pack, size)),
        .attempt = side->attempt,
        .failures = side->failures,
        .losses = side->losses,
        .releases = side->releases,
        .group_first = whole->first,
        .group_count = whole->count,
        .since_ms = whole->created_at_ms,
    };
    hp_free(pack);
    hp_list_init(&parked->link);
    hp_lane_park(core, whole->spec->lane, parked);
}

static void delayed_ready(struct hp_core *core, const struct hp_side *side, struct hp_group *group)
{
    hp_lane_undelayed(core, group->spec->lane, side->count);
    hp_batch_add(core->batch, HP_OP_SIDE_DEL)->side_del.first = side->first;
    hp_recent_add(core, side->first, side->count, false);
    hp_lane_append(core, group->spec->lane, side->first, side->count, side->run_at_ms, group);
}

static void timer_loaded(struct hp_core *core, struct hp_timer *timer, struct hp_group *group)
{
    struct hp_side side = timer->side;
    timer_free(core, timer);
    if (group == NULL) {
        hp_trace(core, HP_TRACE_ERROR, "payload_damaged", "task=%llu",
                 (unsigned long long)side.first);
        hp_batch_add(core->batch, HP_OP_SIDE_DEL)->side_del.first = side.first;
        struct hp_finish finish = {.first = side.first,
                                   .count = side.count,
                                   .state = HP_TASK_STATE_FAILED,
                                   .reason = HP_REASON_DAMAGED,
                                   .attempt_number = side.attempt,
                                   .failures = side.failures,
                                   .losses = side.losses};
        hp_task_finish(core, &finish);
    } else if (side.kind == HP_SIDE_RETURNED) {
        hp_timer_park(core, &side, group);
    } else {
        delayed_ready(core, &side, group);
    }
}

void hp_timer_groups_loaded(struct hp_core *core, const struct hp_loaded *loaded)
{
    uint32_t at = 0;
    struct hp_group *group = NULL;
    uint32_t group_at = UINT32_MAX;
    for (uint32_t i = 0; i < loaded->load->span_count; i++) {
        uint64_t id = loaded->load->spans[i].first;
        struct hp_timer *timer = hp_timer_find(core, id);
        if (timer == NULL || !timer->loading) {
            continue; /* cancelled meanwhile */
        }
        bool found = false;
        for (uint32_t k = 0; k < loaded->group_count && !found; k++) {
            const struct hp_loaded_group *g = &loaded->groups[(at + k) % loaded->group_count];
            if (id >= g->first && id - g->first < g->count) {
                found = true;
                at = (at + k) % loaded->group_count;
            }
        }
        if (!found && loaded->err != HP_OK) {
            continue; /* stays in its map, in no heap: an operator's */
        }
        if (!found && loaded->more) { /* cut: due again at once */
            timer->loading = false;
            hp_must(hp_heap_push(&core->timer_heap, &timer->heap_node));
            continue;
        }
        if (found && group_at != at) {
            hp_group_unref(core, group);
            group = hp_group_load(core, &loaded->groups[at]);
            group_at = at;
        }
        timer_loaded(core, timer, found ? group : NULL);
    }
    hp_group_unref(core, group);
}

/* ------------------------------------------------ expiry */
void hp_timer_expiry_loaded(struct hp_core *core, struct hp_pending *pending,
                            const struct hp_loaded *loaded)
{
    struct hp_timer *timer = hp_idmap_find_ptr(&core->expiries, pending->id);
    if (timer == NULL) {
        return;
    }
    struct hp_side side = timer->side;
    bool again = false;
    for (uint32_t i = 0; i < loaded->task_count; i++) {
        const struct hp_loaded_task *task = &loaded->tasks[i];
        enum hp_task_state now = hp_task_now(core, task);
        bool started = hp_idmap_find(&core->parked, task->id, NULL) ||
                       (task->has_side && task->side.kind == HP_SIDE_RETURNED);
        if (now == 0 || hp_cancel_is_stale(core, task)) {
            again = true; /* moved while it was looked at: look again */
        } else if (!started && (now == HP_TASK_STATE_READY || now == HP_TASK_STATE_DELAYED)) {
            uint32_t count = hp_cancel_plain_run(core, loaded, i);
            /* Damaged ones stay. */
            (void)hp_cancel_waiting(core, loaded, task, count, HP_TASK_STATE_EXPIRED);
            i += count - 1;
        }
    }
    if (loaded->more || again) {
        load_expiry(core, side.first, again ? side.first : loaded->next, side.first + side.count);
        return;
    }
    struct hp_op *op = hp_batch_add(core->batch, HP_OP_SIDE_DEL);
    op->side_del.first = side.first;
    op->side_del.expiry = true;
    timer_free(core, timer);
}
