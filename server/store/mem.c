/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store in memory: same contract as sqlite.c, for the simulator and as the model that sqlite.c
 * is tested against. It keeps every result by itself and looks ids up one by one, on purpose: where
 * the two stores agree, neither shares the other's shortcut.
 */
#include "server/store/mem.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"

static void *must(void *ptr)
{
    HP_ASSERT(ptr != NULL);
    return ptr;
}

/* ------------------------------------------------------------------ sorted arrays */
uint32_t hp_mem_above(const struct hp_mem_vec *vec, uint64_t key)
{
    uint32_t low = 0;
    uint32_t high = vec->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (vec->slots[middle].key <= key) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

void *hp_mem_floor(const struct hp_mem_vec *vec, uint64_t key)
{
    uint32_t above = hp_mem_above(vec, key);
    return above > 0 ? vec->slots[above - 1].item : NULL;
}

void *hp_mem_find(const struct hp_mem_vec *vec, uint64_t key)
{
    uint32_t above = hp_mem_above(vec, key);
    return above > 0 && vec->slots[above - 1].key == key ? vec->slots[above - 1].item : NULL;
}

void hp_mem_put(struct hp_mem_vec *vec, uint64_t key, void *item)
{
    uint32_t above = hp_mem_above(vec, key);
    if (above > 0 && vec->slots[above - 1].key == key) {
        hp_free(vec->slots[above - 1].item);
        vec->slots[above - 1].item = item;
        return;
    }
    if (vec->count == vec->capacity) {
        vec->capacity = vec->capacity == 0 ? 16 : vec->capacity * 2;
        vec->slots = must(hp_realloc_array(vec->slots, vec->capacity, sizeof(*vec->slots)));
    }
    memmove(&vec->slots[above + 1], &vec->slots[above], (vec->count - above) * sizeof(*vec->slots));
    vec->slots[above] = (struct hp_mem_slot){.key = key, .item = item};
    vec->count++;
}

void hp_mem_remove_at(struct hp_mem_vec *vec, uint32_t index)
{
    HP_ASSERT(index < vec->count);
    hp_free(vec->slots[index].item);
    vec->count--;
    memmove(&vec->slots[index], &vec->slots[index + 1], (vec->count - index) * sizeof(*vec->slots));
}

bool hp_mem_remove(struct hp_mem_vec *vec, uint64_t key)
{
    if (hp_mem_find(vec, key) == NULL) {
        return false;
    }
    hp_mem_remove_at(vec, hp_mem_above(vec, key) - 1);
    return true;
}

void hp_mem_clear(struct hp_mem_vec *vec)
{
    for (uint32_t i = 0; i < vec->count; i++) {
        hp_free(vec->slots[i].item);
    }
    hp_free(vec->slots);
    *vec = (struct hp_mem_vec){0};
}

/* ------------------------------------------------------------------ rows keyed by bytes */
static struct hp_str as_str(struct hp_bin bin)
{
    return (struct hp_str){.data = (const char *)bin.data, .size = bin.size};
}

struct hp_mem_named *hp_mem_names_find(const struct hp_mem_names *names, struct hp_bin key,
                                       uint32_t *ret_index)
{
    uint32_t low = 0;
    uint32_t high = names->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = hp_str_compare(as_str(names->items[middle]->key), as_str(key));
        if (order == 0) {
            *ret_index = middle;
            return names->items[middle];
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *ret_index = low;
    return NULL;
}

/* A block of `size` bytes followed by copies of the parts, which are made to point to them. */
static void *new_with(size_t size, struct hp_bin *const *parts, uint32_t part_count)
{
    size_t total = size;
    for (uint32_t i = 0; i < part_count; i++) {
        total += parts[i]->size;
    }
    uint8_t *block = must(hp_calloc(1, total));
    uint8_t *at = block + size;
    for (uint32_t i = 0; i < part_count; i++) {
        if (parts[i]->size > 0) {
            memcpy(at, parts[i]->data, parts[i]->size);
            parts[i]->data = at;
            at += parts[i]->size;
        }
    }
    return block;
}

static void names_put(struct hp_mem_names *names, struct hp_bin key, struct hp_bin state,
                      int64_t number)
{
    struct hp_mem_named row = {.key = key, .state = state, .number = number};
    struct hp_mem_named *item = new_with(sizeof(row), (struct hp_bin *[]){&row.key, &row.state}, 2);
    *item = row;
    uint32_t index = 0;
    if (hp_mem_names_find(names, key, &index) != NULL) {
        hp_free(names->items[index]);
        names->items[index] = item;
        return;
    }
    if (names->count == names->capacity) {
        names->capacity = names->capacity == 0 ? 16 : names->capacity * 2;
        names->items = must(hp_realloc_array(names->items, names->capacity, sizeof(item)));
    }
    memmove(&names->items[index + 1], &names->items[index], (names->count - index) * sizeof(item));
    names->items[index] = item;
    names->count++;
}

static void names_remove_at(struct hp_mem_names *names, uint32_t index)
{
    hp_free(names->items[index]);
    names->count--;
    memmove(&names->items[index], &names->items[index + 1],
            (names->count - index) * sizeof(names->items[0]));
}

static void names_clear(struct hp_mem_names *names)
{
    while (names->count > 0) {
        names_remove_at(names, names->count - 1);
    }
    hp_free(names->items);
    *names = (struct hp_mem_names){0};
}

/* ------------------------------------------------------------------ lookups */
struct hp_mem_group *hp_mem_group_of(const struct hp_mem *mem, uint64_t id)
{
    struct hp_mem_group *group = hp_mem_floor(&mem->groups, id);
    return group != NULL && id - group->first < group->count ? group : NULL;
}

struct hp_result *hp_mem_result_of(const struct hp_mem *mem, uint64_t id)
{
    struct hp_result *result = hp_mem_floor(&mem->results, id);
    return result != NULL && id - result->first < result->count ? result : NULL;
}

struct hp_side *hp_mem_side_of(const struct hp_mem *mem, uint64_t id)
{
    struct hp_side *side = hp_mem_floor(&mem->sides, id);
    return side != NULL && id - side->first < side->count ? side : NULL;
}

struct hp_mem_tomb *hp_mem_tomb_of(const struct hp_mem *mem, uint64_t id)
{
    struct hp_mem_tomb *tomb = hp_mem_floor(&mem->tombs, id);
    return tomb != NULL && id - tomb->first < tomb->count ? tomb : NULL;
}

/* ------------------------------------------------------------------ ops */
static void put_group(struct hp_mem *mem, const struct hp_op *op)
{
    HP_ASSERT(op->group.count > 0);
    HP_ASSERT(op->group.first >> 20 == (op->group.first + op->group.count - 1) >> 20); /* S8 */
    HP_ASSERT(hp_mem_group_of(mem, op->group.first) == NULL);
    struct hp_mem_group row = {
        .first = op->group.first,
        .count = op->group.count,
        .lane = op->group.lane,
        .created_at_ms = op->group.created_at_ms,
        .session = op->group.session,
        .options = op->group.options,
        .pack = op->group.pack,
    };
    struct hp_mem_group *group =
        new_with(sizeof(row), (struct hp_bin *[]){&row.session, &row.options, &row.pack}, 3);
    *group = row;
    hp_mem_put(&mem->groups, row.first, group);
}

static struct hp_mem_lane *lane_of(struct hp_mem *mem, uint32_t number)
{
    struct hp_mem_lane *lane = hp_mem_find(&mem->lanes, number);
    if (lane == NULL) {
        lane = must(hp_calloc(1, sizeof(*lane)));
        hp_mem_put(&mem->lanes, number, lane);
    }
    return lane;
}

static void put_lane(struct hp_mem *mem, const struct hp_op *op)
{
    struct hp_mem_lane *lane = lane_of(mem, op->lane.lane);
    if (op->lane.key.size > 0) {
        hp_free((void *)(uintptr_t)lane->key.data);
        lane->key.data = must(hp_memdup(op->lane.key.data, op->lane.key.size));
        lane->key.size = op->lane.key.size;
    }
    lane->head_segment = op->lane.head_segment;
    lane->next_segment = op->lane.next_segment;
    lane->ready_count = op->lane.ready_count;
    while (lane->segments.count > 0 && lane->segments.slots[0].key < lane->head_segment) {
        hp_mem_remove_at(&lane->segments, 0);
    }
}

static void remove_lane(struct hp_mem *mem, uint32_t number)
{
    struct hp_mem_lane *lane = hp_mem_find(&mem->lanes, number);
    if (lane != NULL) {
        hp_mem_clear(&lane->segments);
        hp_free((void *)(uintptr_t)lane->key.data);
        (void)hp_mem_remove(&mem->lanes, number); /* it is there */
    }
}

static void put_segment(struct hp_mem *mem, const struct hp_op *op)
{
    struct hp_mem_lane *lane = lane_of(mem, op->segment.lane);
    size_t size = op->segment.run_count * sizeof(op->segment.runs[0]);
    struct hp_mem_segment *segment = must(hp_calloc(1, sizeof(*segment) + size));
    segment->run_count = op->segment.run_count;
    if (size > 0) {
        memcpy(segment->runs, op->segment.runs, size);
    }
    hp_mem_put(&lane->segments, op->segment.segment, segment);
}

static void put_lease(struct hp_mem *mem, uint64_t batch, const struct hp_lease *lease)
{
    struct hp_mem_leases *old = hp_mem_find(&mem->leases, batch);
    uint32_t count = old != NULL ? old->count : 0;
    struct hp_mem_leases *row =
        must(hp_calloc(1, sizeof(*row) + (count + 1) * sizeof(row->leases[0])));
    row->batch = batch;
    row->count = count + 1;
    if (old != NULL) {
        memcpy(row->leases, old->leases, count * sizeof(row->leases[0]));
    }
    row->leases[count] = *lease;
    hp_mem_put(&mem->leases, batch, row);
}

static void put_result(struct hp_mem *mem, const struct hp_result *from)
{
    HP_ASSERT(from->count > 0);
    HP_ASSERT(hp_mem_result_of(mem, from->first) == NULL); /* written once */
    struct hp_result row = *from;
    struct hp_result *result = new_with(sizeof(row), (struct hp_bin *[]){&row.end}, 1);
    *result = row;
    hp_mem_put(&mem->results, row.first, result);
}

static void put_side(struct hp_mem *mem, const struct hp_side *side)
{
    struct hp_side *row = must(hp_memdup(side, sizeof(*side)));
    hp_mem_put(side->kind == HP_SIDE_EXPIRY ? &mem->expiries : &mem->sides, side->first, row);
}

static void put_node(struct hp_mem *mem, const struct hp_op *op)
{
    struct hp_mem_node row = {
        .name = op->node.name, .boot = op->node.boot, .state = op->node.state};
    struct hp_mem_node *node =
        new_with(sizeof(row), (struct hp_bin *[]){&row.name, &row.boot, &row.state}, 3);
    *node = row;
    hp_mem_put(&mem->nodes, op->node.number, node);
}

static void put_meta(struct hp_mem *mem, const struct hp_op *op)
{
    mem->next_id = HP_MAX(mem->next_id, op->meta.next_id);
    mem->next_blob = HP_MAX(mem->next_blob, op->meta.next_blob);
    mem->grace_ms = op->meta.grace_ms;
}

static void remove_ukey(struct hp_mem *mem, struct hp_bin key)
{
    uint32_t index = 0;
    if (hp_mem_names_find(&mem->ukeys, key, &index) != NULL) {
        names_remove_at(&mem->ukeys, index);
    }
}

/* Done when idle, with the results of the same batch. */
static void forget(struct hp_mem *mem, const struct hp_op *op)
{
    mem->forget_wall_ms = op->forget.wall_ms;
    for (uint32_t i = 0; i < op->forget.span_count; i++) {
        if (mem->forget_count == mem->forget_capacity) {
            mem->forget_capacity = mem->forget_capacity == 0 ? 16 : mem->forget_capacity * 2;
            mem->forgets =
                must(hp_realloc_array(mem->forgets, mem->forget_capacity, sizeof(*mem->forgets)));
        }
        mem->forgets[mem->forget_count++] = op->forget.spans[i];
    }
}

static void apply_op(struct hp_mem *mem, uint64_t batch, const struct hp_op *op)
{
    switch (op->kind) {
    case HP_OP_GROUP:
        put_group(mem, op);
        break;
    case HP_OP_LANE:
        put_lane(mem, op);
        break;
    case HP_OP_LANE_DEL:
        remove_lane(mem, op->lane.lane);
        break;
    case HP_OP_SEGMENT:
        put_segment(mem, op);
        break;
    case HP_OP_LEASE:
        put_lease(mem, batch, &op->lease);
        break;
    case HP_OP_LEASE_DEL:
        (void)hp_mem_remove(&mem->leases, op->lease_del.batch);
        break;
    case HP_OP_RESULT:
        put_result(mem, &op->result);
        break;
    case HP_OP_SIDE:
        put_side(mem, &op->side);
        break;
    case HP_OP_SIDE_DEL:
        (void)hp_mem_remove(op->side_del.expiry ? &mem->expiries : &mem->sides,
                            op->side_del.first); /* may be gone */
        break;
    case HP_OP_UKEY:
        names_put(&mem->ukeys, op->ukey.key, (struct hp_bin){0}, (int64_t)op->ukey.id);
        break;
    case HP_OP_UKEY_DEL:
        remove_ukey(mem, op->ukey.key);
        break;
    case HP_OP_SESSION:
        names_put(&mem->sessions, op->session.id, op->session.state, op->session.seen_at_ms);
        break;
    case HP_OP_QUEUE:
        names_put(&mem->queues, op->queue.name, op->queue.state, 0);
        break;
    case HP_OP_NODE:
        put_node(mem, op);
        break;
    case HP_OP_BLOB:
        hp_mem_put(&mem->blobs, op->blob.blob,
                   must(hp_memdup(&op->blob.owner, sizeof(op->blob.owner))));
        break;
    case HP_OP_META:
        put_meta(mem, op);
        break;
    case HP_OP_REAP:
        mem->reap_wall_ms = op->reap.wall_ms;
        mem->reap_due = true;
        mem->keep_sessions = op->reap.keep_sessions;
        break;
    case HP_OP_FORGET:
        forget(mem, op);
        break;
    }
}

static enum hp_err mem_apply(struct hp_store *store, struct hp_batch *const *batches,
                             uint32_t count, struct hp_error *reterr)
{
    struct hp_mem *mem = HP_CONTAINER_OF(store, struct hp_mem, base);
    (void)reterr; /* memory does not fail */
    for (uint32_t i = 0; i < count; i++) {
        HP_ASSERT(batches[i]->number > mem->last_batch);
        mem->last_batch = batches[i]->number;
        for (uint32_t k = 0; k < batches[i]->op_count; k++) {
            apply_op(mem, batches[i]->number, &batches[i]->ops[k]);
        }
    }
    return HP_OK;
}

/* ------------------------------------------------------------------ retention */
static bool group_is_expired(const struct hp_mem *mem, const struct hp_mem_group *group,
                             int64_t wall_ms)
{
    for (uint64_t id = group->first; id < group->first + group->count;) {
        const struct hp_result *result = hp_mem_result_of(mem, id);
        if (result == NULL || result->expires_at_ms > wall_ms) {
            return false;
        }
        id = result->first + result->count;
    }
    return true;
}

static void remove_range(struct hp_mem_vec *vec, uint64_t first, uint64_t end)
{
    uint32_t index = first > 0 ? hp_mem_above(vec, first - 1) : 0;
    while (index < vec->count && vec->slots[index].key < end) {
        hp_mem_remove_at(vec, index);
    }
}

static void remove_blobs(struct hp_mem *mem, uint64_t first, uint64_t end)
{
    for (uint32_t i = mem->blobs.count; i-- > 0;) {
        uint64_t owner = *(const uint64_t *)mem->blobs.slots[i].item;
        if (owner >= first && owner < end) {
            hp_mem_remove_at(&mem->blobs, i);
        }
    }
}

static void reap_group(struct hp_mem *mem, const struct hp_mem_group *group)
{
    uint64_t end = group->first + group->count;
    struct hp_mem_tomb *tomb = must(hp_calloc(1, sizeof(*tomb) + group->count));
    tomb->first = group->first;
    tomb->count = group->count;
    tomb->until_ms = mem->reap_wall_ms + HP_STORE_TOMB_MS;
    for (uint32_t i = 0; i < group->count; i++) {
        tomb->states[i] = (uint8_t)hp_mem_result_of(mem, group->first + i)->state;
    }
    hp_mem_put(&mem->tombs, tomb->first, tomb);
    mem->reaped += group->count;
    remove_range(&mem->results, group->first, end);
    remove_range(&mem->sides, group->first, end);
    remove_range(&mem->expiries, group->first, end);
    remove_blobs(mem, group->first, end);
    remove_range(&mem->forgotten, group->first, end);
    (void)hp_mem_remove(&mem->groups, tomb->first); /* it is there; `group` is gone now */
}

static bool group_is_forgotten(const struct hp_mem *mem, const struct hp_mem_group *group)
{
    for (uint64_t id = group->first; id < group->first + group->count; id++) {
        if (hp_mem_find(&mem->forgotten, id) == NULL) {
            return false;
        }
    }
    return true;
}

static void forget_ids(struct hp_mem *mem, uint64_t first, uint64_t end)
{
    for (uint32_t i = mem->groups.count; i-- > 0;) {
        const struct hp_mem_group *group = mem->groups.slots[i].item;
        uint64_t from = HP_MAX(first, group->first);
        uint64_t to = HP_MIN(end, group->first + group->count);
        for (uint64_t id = from; id < to; id++) {
            if (hp_mem_result_of(mem, id) != NULL) {
                hp_mem_put(&mem->forgotten, id, must(hp_calloc(1, 1)));
                remove_blobs(mem, id, id + 1);
            }
        }
        if (from < to && group_is_forgotten(mem, group)) {
            reap_group(mem, group);
        }
    }
    for (uint32_t i = mem->blobs.count; i-- > 0;) { /* of tasks that were never stored */
        uint64_t owner = *(const uint64_t *)mem->blobs.slots[i].item;
        if (owner >= first && owner < end && hp_mem_group_of(mem, owner) == NULL) {
            hp_mem_remove_at(&mem->blobs, i);
        }
    }
}

enum hp_err hp_mem_idle(struct hp_store *store, bool *ret_more, struct hp_error *reterr)
{
    struct hp_mem *mem = HP_CONTAINER_OF(store, struct hp_mem, base);
    (void)reterr; /* memory does not fail */
    *ret_more = false;
    mem->reap_wall_ms = HP_MAX(mem->reap_wall_ms, mem->forget_wall_ms);
    for (uint32_t i = 0; i < mem->forget_count; i++) {
        forget_ids(mem, mem->forgets[i].first, mem->forgets[i].first + mem->forgets[i].count);
    }
    mem->forget_count = 0;
    if (!mem->reap_due) {
        return HP_OK;
    }
    mem->reap_due = false;
    for (uint32_t i = mem->groups.count; i-- > 0;) {
        if (group_is_expired(mem, mem->groups.slots[i].item, mem->reap_wall_ms)) {
            reap_group(mem, mem->groups.slots[i].item);
        }
    }
    for (uint32_t i = mem->tombs.count; i-- > 0;) {
        if (((const struct hp_mem_tomb *)mem->tombs.slots[i].item)->until_ms <= mem->reap_wall_ms) {
            hp_mem_remove_at(&mem->tombs, i);
        }
    }
    for (uint32_t i = mem->sessions.count; i-- > 0 && !mem->keep_sessions;) {
        if (mem->sessions.items[i]->number + HP_STORE_SESSION_MS <= mem->reap_wall_ms) {
            names_remove_at(&mem->sessions, i);
        }
    }
    return HP_OK;
}

/* ------------------------------------------------------------------ life */
static void mem_figures(struct hp_store *store, struct hp_store_figures *ret_figures)
{
    struct hp_mem *mem = HP_CONTAINER_OF(store, struct hp_mem, base);
    *ret_figures =
        (struct hp_store_figures){.group_count = mem->groups.count, .reaped = mem->reaped};
    for (uint32_t i = 0; i < mem->groups.count; i++) {
        ret_figures->task_count += ((struct hp_mem_group *)mem->groups.slots[i].item)->count;
    }
    for (uint32_t i = 0; i < mem->results.count; i++) {
        ret_figures->ended_count += ((struct hp_result *)mem->results.slots[i].item)->count;
    }
}

static void mem_close(struct hp_store *store)
{
    struct hp_mem *mem = HP_CONTAINER_OF(store, struct hp_mem, base);
    while (mem->lanes.count > 0) {
        remove_lane(mem, (uint32_t)mem->lanes.slots[0].key);
    }
    struct hp_mem_vec *vecs[] = {&mem->groups, &mem->results, &mem->lanes,
                                 &mem->leases, &mem->sides,   &mem->expiries,
                                 &mem->nodes,  &mem->blobs,   &mem->tombs,
                                 &mem->forgotten};
    for (size_t i = 0; i < HP_COUNT_OF(vecs); i++) {
        hp_mem_clear(vecs[i]);
    }
    names_clear(&mem->ukeys);
    names_clear(&mem->sessions);
    names_clear(&mem->queues);
    hp_free(mem->forgets);
    hp_free(mem);
}

static const struct hp_store_ops mem_ops = {
    .name = "mem",
    .recover = hp_mem_recover,
    .apply = mem_apply,
    .load = hp_mem_load,
    .idle = hp_mem_idle,
    .figures = mem_figures,
    .close = mem_close,
};

struct hp_store *hp_store_mem_new(void)
{
    struct hp_mem *mem = must(hp_calloc(1, sizeof(*mem)));
    mem->base.ops = &mem_ops;
    mem->next_id = 1;
    mem->next_blob = 1;
    return &mem->base;
}

void hp_store_mem_crash(struct hp_store *store)
{
    HP_ASSERT(store->ops == &mem_ops);
    struct hp_mem *mem = HP_CONTAINER_OF(store, struct hp_mem, base);
    mem->reap_due = false; /* all else was durable with its apply */
    mem->forget_count = 0;
    hp_mem_clear(&mem->forgotten);
}
