/* SPDX-License-Identifier: BSD-2-Clause */
/* Recovery and loads of the memory store. */
#include <string.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "server/store/answer.h"
#include "server/store/mem.h"

/* ------------------------------------------------------------------ recovery */
static void recover_meta(struct hp_mem *mem, hp_record_fn *fn, void *context)
{
    struct hp_record record = {.kind = HP_RECORD_META};
    mem->epoch++;
    record.meta.epoch = mem->epoch;
    record.meta.next_id = mem->next_id;
    record.meta.next_blob = mem->next_blob;
    record.meta.grace_ms = mem->grace_ms;
    record.meta.last_batch = mem->last_batch;
    for (uint32_t i = 0; i < mem->sides.count; i++) {
        const struct hp_side *side = mem->sides.slots[i].item;
        if (side->kind == HP_SIDE_DELAYED || side->kind == HP_SIDE_RETURNED) {
            record.meta.side_count++;
            record.meta.delayed_count += side->count;
        }
    }
    record.meta.side_count += mem->expiries.count;
    fn(context, &record);
}

static void recover_names(const struct hp_mem *mem, hp_record_fn *fn, void *context)
{
    for (uint32_t i = 0; i < mem->queues.count; i++) {
        struct hp_record record = {.kind = HP_RECORD_QUEUE};
        record.queue.name = mem->queues.items[i]->key;
        record.queue.state = mem->queues.items[i]->state;
        fn(context, &record);
    }
    for (uint32_t i = 0; i < mem->nodes.count; i++) {
        const struct hp_mem_node *node = mem->nodes.slots[i].item;
        struct hp_record record = {.kind = HP_RECORD_NODE};
        record.node.number = (uint32_t)mem->nodes.slots[i].key;
        record.node.name = node->name;
        record.node.boot = node->boot;
        record.node.state = node->state;
        fn(context, &record);
    }
    for (uint32_t i = 0; i < mem->lanes.count; i++) {
        const struct hp_mem_lane *lane = mem->lanes.slots[i].item;
        struct hp_record record = {.kind = HP_RECORD_LANE};
        record.lane.lane = (uint32_t)mem->lanes.slots[i].key;
        record.lane.key = lane->key;
        record.lane.head_segment = lane->head_segment;
        record.lane.next_segment = lane->next_segment;
        record.lane.ready_count = lane->ready_count;
        fn(context, &record);
    }
}

static bool has_later_lease(const struct hp_mem *mem, uint32_t row_index, uint64_t id)
{
    for (uint32_t i = row_index + 1; i < mem->leases.count; i++) {
        const struct hp_mem_leases *row = mem->leases.slots[i].item;
        for (uint32_t k = 0; k < row->count; k++) {
            if (row->leases[k].id == id) {
                return true;
            }
        }
    }
    return false;
}

/* S7 */
static bool is_live_lease(const struct hp_mem *mem, uint32_t row_index, uint64_t id)
{
    const struct hp_side *side = hp_mem_side_of(mem, id);
    return hp_mem_group_of(mem, id) != NULL && hp_mem_result_of(mem, id) == NULL &&
           (side == NULL || side->kind == HP_SIDE_CANCELLING) &&
           !has_later_lease(mem, row_index, id);
}

static void recover_leases(struct hp_mem *mem, hp_record_fn *fn, void *context)
{
    for (uint32_t i = mem->leases.count; i-- > 0;) { /* rows of no live lease go */
        const struct hp_mem_leases *row = mem->leases.slots[i].item;
        uint32_t live_count = 0;
        for (uint32_t k = 0; k < row->count; k++) {
            live_count += is_live_lease(mem, i, row->leases[k].id) ? 1 : 0;
        }
        if (live_count == 0) {
            hp_mem_remove_at(&mem->leases, i);
        }
    }
    for (uint32_t i = 0; i < mem->leases.count; i++) {
        const struct hp_mem_leases *row = mem->leases.slots[i].item;
        for (uint32_t k = 0; k < row->count; k++) {
            if (!is_live_lease(mem, i, row->leases[k].id)) {
                continue;
            }
            const struct hp_mem_group *group = hp_mem_group_of(mem, row->leases[k].id);
            struct hp_record record = {.kind = HP_RECORD_LEASE};
            record.lease.batch = row->batch;
            record.lease.lease = row->leases[k];
            record.lease.created_at_ms = group->created_at_ms;
            record.lease.group_count = group->count;
            record.lease.session = group->session;
            record.lease.options = group->options;
            fn(context, &record);
        }
    }
}

enum hp_err hp_mem_recover(struct hp_store *store, hp_record_fn *fn, void *context,
                           struct hp_error *reterr)
{
    struct hp_mem *mem = HP_CONTAINER_OF(store, struct hp_mem, base);
    (void)reterr; /* memory does not fail */
    recover_meta(mem, fn, context);
    recover_names(mem, fn, context);
    recover_leases(mem, fn, context);
    for (uint32_t i = 0; i < mem->sides.count; i++) {
        const struct hp_side *side = mem->sides.slots[i].item;
        if (side->kind == HP_SIDE_CANCELLING || side->kind == HP_SIDE_BURIED ||
            side->kind == HP_SIDE_POOL) {
            struct hp_record record = {.kind = HP_RECORD_SIDE, .side = *side};
            fn(context, &record);
        }
    }
    for (uint32_t i = 0; i < mem->ukeys.count; i++) {
        struct hp_record record = {.kind = HP_RECORD_UKEY};
        record.ukey.key = mem->ukeys.items[i]->key;
        record.ukey.id = (uint64_t)mem->ukeys.items[i]->number;
        fn(context, &record);
    }
    return HP_OK;
}

/* ------------------------------------------------------------------ loads */
static bool is_waiting(const struct hp_mem *mem, uint64_t id)
{
    const struct hp_side *side = hp_mem_side_of(mem, id);
    return hp_mem_group_of(mem, id) != NULL && hp_mem_result_of(mem, id) == NULL &&
           (side == NULL || side->kind == HP_SIDE_CANCELLING);
}

static void load_lane(struct hp_mem *mem, struct hp_answer *answer)
{
    const struct hp_load *load = answer->load;
    const struct hp_mem_lane *lane = hp_mem_find(&mem->lanes, load->lane);
    answer->loaded->next_segment = load->segment;
    if (lane == NULL) {
        return;
    }
    for (uint32_t i = 0; i < lane->segments.count; i++) {
        const struct hp_mem_segment *segment = lane->segments.slots[i].item;
        uint64_t number = lane->segments.slots[i].key;
        if (number < load->segment) {
            continue;
        }
        if (hp_answer_is_full(answer)) {
            answer->loaded->more = true;
            return;
        }
        for (uint32_t k = 0; k < segment->run_count; k++) {
            struct hp_id_run run = segment->runs[k];
            hp_answer_begin_run(answer);
            for (uint64_t id = run.first; id < run.first + run.count; id++) {
                if (is_waiting(mem, id)) {
                    hp_answer_add_ids(answer, number, id, 1, run.since_ms);
                }
            }
        }
        answer->loaded->next_segment = number + 1;
    }
}

static void add_group(struct hp_answer *answer, const struct hp_mem_group *group, bool with_pack)
{
    struct hp_loaded_group facts = {
        .first = group->first,
        .count = group->count,
        .lane = group->lane,
        .created_at_ms = group->created_at_ms,
        .session = group->session,
        .options = group->options,
        .pack = with_pack ? group->pack : (struct hp_bin){0},
        .pack_size = group->pack.size,
    };
    hp_answer_add_group(answer, &facts);
}

static void load_groups(struct hp_mem *mem, struct hp_answer *answer)
{
    const struct hp_load *load = answer->load;
    for (uint32_t i = 0; i < load->span_count; i++) {
        uint64_t id = load->spans[i].first;
        uint64_t end = id + load->spans[i].count;
        while (id < end) {
            const struct hp_mem_group *group = hp_mem_group_of(mem, id);
            if (group == NULL) {
                uint32_t above = hp_mem_above(&mem->groups, id);
                id = above < mem->groups.count ? mem->groups.slots[above].key : end;
                continue;
            }
            if (hp_answer_is_full(answer)) {
                answer->loaded->more = true;
                answer->loaded->next = id;
                return;
            }
            if (!hp_answer_has_group(answer, group->first)) {
                add_group(answer, group, true);
            }
            id = group->first + group->count;
        }
    }
}

static void add_task(struct hp_mem *mem, struct hp_answer *answer, uint64_t id)
{
    struct hp_loaded_task task = {.id = id};
    const struct hp_mem_group *group = hp_mem_group_of(mem, id);
    const struct hp_mem_tomb *tomb = hp_mem_tomb_of(mem, id);
    if (group != NULL) {
        const struct hp_result *result = hp_mem_result_of(mem, id);
        const struct hp_side *side = hp_mem_side_of(mem, id);
        task.exists = true;
        if (!hp_answer_has_group(answer, group->first)) {
            add_group(answer, group, false);
        }
        task.group = answer->loaded->group_count - 1;
        if (result != NULL) {
            task.ended = true;
            task.result = *result;
            task.result.first = id;
            task.result.count = 1;
        }
        if (side != NULL) {
            task.has_side = true;
            task.side = *side;
        }
    } else if (tomb != NULL) {
        task.gone = true;
        task.result.first = id;
        task.result.count = 1;
        task.result.state = tomb->states[id - tomb->first];
    }
    hp_answer_add_task(answer, &task);
}

static void load_tasks(struct hp_mem *mem, struct hp_answer *answer)
{
    const struct hp_load *load = answer->load;
    for (uint32_t i = 0; i < load->span_count; i++) {
        for (uint32_t k = 0; k < load->spans[i].count; k++) {
            if (hp_answer_is_full(answer)) {
                answer->loaded->more = true;
                answer->loaded->next = load->spans[i].first + k;
                return;
            }
            add_task(mem, answer, load->spans[i].first + k);
        }
    }
}

static void load_list(struct hp_mem *mem, struct hp_answer *answer)
{
    const struct hp_load *load = answer->load;
    uint64_t before = load->before > 0 ? load->before : UINT64_MAX;
    for (;;) {
        const struct hp_mem_group *group =
            before > 0 ? hp_mem_floor(&mem->groups, before - 1) : NULL;
        if (group == NULL || (load->since_ms > 0 && group->created_at_ms < load->since_ms)) {
            return;
        }
        uint64_t id = HP_MIN(before, group->first + group->count);
        while (id-- > group->first) {
            if (load->live_only && hp_mem_result_of(mem, id) != NULL) {
                continue;
            }
            if (hp_answer_is_full(answer)) {
                answer->loaded->more = true;
                answer->loaded->next = id + 1;
                return;
            }
            add_task(mem, answer, id);
        }
        before = group->first;
    }
}

/* The next row of `vec` by (run_at_ms, first) after the cursor, or NULL. */
static const struct hp_side *next_side(const struct hp_mem_vec *vec, int64_t run_at_ms,
                                       uint64_t first)
{
    const struct hp_side *best = NULL;
    for (uint32_t i = 0; i < vec->count; i++) {
        const struct hp_side *side = vec->slots[i].item;
        bool after =
            side->run_at_ms > run_at_ms || (side->run_at_ms == run_at_ms && side->first > first);
        bool timed = side->kind == HP_SIDE_DELAYED || side->kind == HP_SIDE_RETURNED ||
                     side->kind == HP_SIDE_EXPIRY;
        if (after && timed &&
            (best == NULL || side->run_at_ms < best->run_at_ms ||
             (side->run_at_ms == best->run_at_ms && side->first < best->first))) {
            best = side;
        }
    }
    return best;
}

static void load_sides(struct hp_mem *mem, struct hp_answer *answer)
{
    int64_t run_at_ms = answer->load->after_run_at_ms;
    uint64_t first = answer->load->after_first;
    for (;;) {
        const struct hp_side *side = next_side(&mem->sides, run_at_ms, first);
        const struct hp_side *expiry = next_side(&mem->expiries, run_at_ms, first);
        int order = hp_answer_side_order(side, expiry);
        const struct hp_side *next = order <= 0 ? side : expiry;
        if (next == NULL) {
            return;
        }
        if (hp_answer_is_full(answer)) {
            answer->loaded->more = true;
            return;
        }
        hp_answer_add_side(answer, next);
        if (order == 0) {
            hp_answer_add_side(answer, expiry); /* the same cursor: never cut between the two */
        }
        run_at_ms = next->run_at_ms;
        first = next->first;
    }
}

static void load_session(struct hp_mem *mem, struct hp_answer *answer)
{
    uint32_t index = 0;
    const struct hp_mem_named *row = hp_mem_names_find(&mem->sessions, answer->load->text, &index);
    if (row != NULL) {
        answer->loaded->found = true;
        answer->loaded->state = hp_answer_copy(answer, row->state);
    }
}

bool hp_mem_load(struct hp_store *store, struct hp_loaded *loaded)
{
    struct hp_mem *mem = HP_CONTAINER_OF(store, struct hp_mem, base);
    struct hp_answer answer;
    hp_answer_init(&answer, loaded);
    switch (loaded->load->kind) {
    case HP_LOAD_LANE:
        load_lane(mem, &answer);
        break;
    case HP_LOAD_GROUPS:
        load_groups(mem, &answer);
        break;
    case HP_LOAD_TASKS:
        load_tasks(mem, &answer);
        break;
    case HP_LOAD_LIST:
        load_list(mem, &answer);
        break;
    case HP_LOAD_SIDES:
        load_sides(mem, &answer);
        break;
    case HP_LOAD_SESSION:
        load_session(mem, &answer);
        break;
    case HP_LOAD_CHECK:
        loaded->figures[0] = mem->groups.count + mem->results.count;
        hp_answer_text(&answer, "ok: store in memory");
        break;
    case HP_LOAD_BACKUP:
        loaded->err = HP_ERR_UNSUPPORTED;
        hp_answer_text(&answer, "a store in memory has no backup");
        break;
    }
    hp_answer_finish(&answer);
    return true;
}
