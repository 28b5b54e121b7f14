/* SPDX-License-Identifier: BSD-2-Clause */
/* Start and end: what the store found becomes state; freeing it all. */
#include "server/core/state.h"

static void recover_meta(struct hp_core *core, const struct hp_record *record)
{
    core->epoch = record->meta.epoch;
    core->next_id = record->meta.next_id > 0 ? record->meta.next_id : 1;
    core->reserved_id = core->next_id;
    core->durable_reserved_id = core->next_id;
    core->next_blob = record->meta.next_blob > 0 ? record->meta.next_blob : 1;
    core->reserved_blob = core->next_blob;
    core->batch_number = record->meta.last_batch;
    core->durable_number = record->meta.last_batch;
    core->recover_grace_ms = record->meta.grace_ms;
    core->timers_more = record->meta.side_count > 0;
    core->timer_mark_ms = INT64_MIN;
    core->timer_mark_first = 0;
}

static void recover_lane(struct hp_core *core, const struct hp_record *record)
{
    struct hp_lane *lane = hp_lane_of_key(core, hp_bin_as_str(record->lane.key), record->lane.lane);
    HP_ASSERT(lane != NULL && lane->id == record->lane.lane);
    lane->key_stored = true;
    lane->head_segment = lane->load_segment = lane->stored_head = record->lane.head_segment;
    lane->next_segment = lane->stored_next = record->lane.next_segment;
    lane->ready_count = lane->stored_ready = record->lane.ready_count;
    hp_lane_dirty(core, lane); /* the first turn asks for its segments */
}

static struct hp_lease_batch *lease_batch(struct hp_core *core, uint64_t number)
{
    struct hp_lease_batch *lease = hp_idmap_find_ptr(&core->lease_batches, number);
    if (lease == NULL) {
        lease = hp_must_calloc(sizeof(*lease));
        lease->number = number;
        hp_must(hp_idmap_put_ptr(&core->lease_batches, number, lease));
    }
    return lease;
}

static void recover_lease(struct hp_core *core, const struct hp_record *record)
{
    const struct hp_lease *lease = &record->lease.lease;
    struct hp_node *node = hp_idmap_find_ptr(&core->nodes, lease->node);
    struct hp_error error;
    struct hp_spec *spec = hp_spec_get(core, record->lease.options, &error);
    HP_ASSERT(node != NULL && spec != NULL);
    HP_ASSERT(hp_attempt_find(core, lease->id) == NULL);
    struct hp_attempt *attempt =
        hp_attempt_new(core, lease->id, node, spec, hp_session_get(core, record->lease.session));
    hp_spec_unref(core, spec);
    attempt->epoch = lease->epoch;
    attempt->attempt = lease->attempt;
    attempt->group_first = lease->group;
    attempt->group_count = record->lease.group_count;
    attempt->failures = lease->failures;
    attempt->losses = lease->losses;
    attempt->releases = lease->releases;
    attempt->started_at_ms = lease->started_at_ms;
    attempt->created_at_ms = record->lease.created_at_ms;
    attempt->lease = lease_batch(core, record->lease.batch);
    attempt->lease->live++;
    node->state = HP_SM_NODE_AWAY;
    hp_node_renew(core, node, core->config.lease_ms + core->recover_grace_ms);
}

static void recover_side(struct hp_core *core, const struct hp_side *side)
{
    if (side->kind == HP_SIDE_POOL) {
        hp_pool_recover(core, side);
        return;
    }
    struct hp_attempt *attempt = hp_attempt_find(core, side->first);
    if (side->kind == HP_SIDE_CANCELLING && attempt != NULL) {
        attempt->cancel_mode = side->mode;
        attempt->cancel_grace_ms = side->grace_ms;
        hp_attempt_move(core, attempt, HP_TASK_STATE_CANCELLING);
    }
}

static void recover_key(struct hp_core *core, struct hp_bin key, uint64_t id)
{
    if (!hp_pool_recover_key(core, key, id)) {
        uint64_t hash = hp_hash(key.data, key.size, core->hash_seed);
        hp_must(hp_idmap_put(&core->ukeys, hash, id));
    }
}

void hp_core_recover(struct hp_core *core, const struct hp_record *record, uint64_t now_ms,
                     int64_t wall_ms)
{
    HP_ASSERT(!core->in_turn);
    core->now_ms = now_ms;
    core->wall_ms = wall_ms;
    switch (record->kind) {
    case HP_RECORD_META:
        recover_meta(core, record);
        break;
    case HP_RECORD_QUEUE:
        hp_queue_recover(core, hp_bin_as_str(record->queue.name), record->queue.state);
        break;
    case HP_RECORD_NODE:
        hp_node_recover(core, record);
        break;
    case HP_RECORD_LANE:
        recover_lane(core, record);
        break;
    case HP_RECORD_LEASE:
        recover_lease(core, record);
        break;
    case HP_RECORD_SIDE:
        recover_side(core, &record->side);
        break;
    case HP_RECORD_UKEY:
        recover_key(core, record->ukey.key, record->ukey.id);
        break;
    }
    hp_arena_reset(&core->arena);
}

uint32_t hp_core_hold(struct hp_core *core)
{
    HP_ASSERT(!core->in_turn);
    struct hp_strmap_iter iter = {0};
    uint64_t value = 0;
    uint32_t count = 0;
    while (hp_strmap_next(&core->queues, &iter, NULL, &value)) {
        struct hp_queue *queue = (struct hp_queue *)(uintptr_t)value;
        if (queue->paused) {
            continue;
        }
        queue->paused = true;
        hp_queue_dirty(core, queue);
        HP_LIST_FOR_EACH (link, &queue->lanes) {
            hp_lane_update(core, HP_CONTAINER_OF(link, struct hp_lane, queue_link));
        }
        count++;
    }
    core->hold_batch = count > 0 ? core->batch_number + 1 : 0;
    return count;
}

bool hp_core_is_held(const struct hp_core *core)
{
    return core->durable_number >= core->hold_batch;
}

/* ------------------------------------------------ freeing: no ops, no effects, just memory */
static void free_conns(struct hp_core *core)
{
    for (;;) {
        struct hp_idmap_iter iter = {0};
        uint64_t value = 0;
        if (!hp_idmap_next(&core->conns, &iter, NULL, &value)) {
            return;
        }
        struct hp_conn *conn = (struct hp_conn *)(uintptr_t)value;
        hp_conn_close(core, conn);
    }
}

static void free_map(struct hp_idmap *map)
{
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_idmap_next(map, &iter, NULL, &value)) {
        hp_free((void *)(uintptr_t)value);
    }
    hp_idmap_deinit(map);
}

static void free_strmap(struct hp_strmap *map)
{
    struct hp_strmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_strmap_next(map, &iter, NULL, &value)) {
        hp_free((void *)(uintptr_t)value);
    }
    hp_strmap_deinit(map);
}

static void free_lanes(struct hp_core *core)
{
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_idmap_next(&core->lanes, &iter, NULL, &value)) {
        struct hp_lane *lane = (struct hp_lane *)(uintptr_t)value;
        for (uint32_t i = 0; i < lane->run_count; i++) {
            struct hp_group *group =
                lane->runs[(lane->run_head + i) & (lane->run_capacity - 1)].group;
            if (group != NULL && --group->refs == 0) {
                hp_free(group);
            }
        }
        HP_LIST_FOR_EACH_SAFE (link, &lane->parked) {
            struct hp_parked *parked = HP_CONTAINER_OF(link, struct hp_parked, link);
            hp_free(parked->group);
            hp_free(parked);
        }
        hp_free(lane->runs);
        hp_free(lane->spill);
    }
    free_map(&core->lanes);
}

static void free_specs(struct hp_core *core)
{
    struct hp_strmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_strmap_next(&core->specs, &iter, NULL, &value)) {
        struct hp_spec *spec = (struct hp_spec *)(uintptr_t)value;
        hp_arena_deinit(&spec->arena);
        hp_free(spec);
    }
    hp_strmap_deinit(&core->specs);
}

static void free_objects(struct hp_core *core)
{
    hp_pools_free_all(core);
    free_lanes(core);
    hp_volatile_free_all(core);
    free_specs(core);
    free_map(&core->attempts);
    free_map(&core->lease_batches);
    hp_timer_free_all(core);
    HP_LIST_FOR_EACH_SAFE (link, &core->class_list) {
        struct hp_class *class_ = HP_CONTAINER_OF(link, struct hp_class, link);
        hp_heap_deinit(&class_->lanes);
        hp_free(class_->tags.items);
    }
    free_strmap(&core->classes);
    free_strmap(&core->queues);
    free_strmap(&core->ckeys);
    struct hp_strmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_strmap_next(&core->sessions, &iter, NULL, &value)) {
        hp_free(((struct hp_session *)(uintptr_t)value)->memos);
    }
    free_strmap(&core->sessions);
    HP_LIST_FOR_EACH_SAFE (link, &core->node_list) {
        hp_node_free(core, HP_CONTAINER_OF(link, struct hp_node, link));
    }
    hp_strmap_deinit(&core->nodes_by_name);
    hp_strmap_deinit(&core->offers);
    hp_strmap_deinit(&core->lane_keys);
}

void hp_core_free(struct hp_core *core)
{
    if (core == NULL) {
        return;
    }
    free_conns(core);
    while (!hp_list_is_empty(&core->pending_list)) {
        struct hp_list *link = hp_list_first(&core->pending_list);
        hp_pending_free(core, HP_CONTAINER_OF(link, struct hp_pending, link));
    }
    free_objects(core);
    struct hp_idmap *maps[] = {&core->conns,   &core->nodes,    &core->ukeys,      &core->parked,
                               &core->waiters, &core->pendings, &core->recent_map, &core->contents};
    for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++) {
        hp_idmap_deinit(maps[i]);
    }
    hp_heap_deinit(&core->node_heap);
    hp_heap_deinit(&core->timer_heap);
    hp_heap_deinit(&core->wait_heap);
    hp_free(core->recents);
    hp_free(core->batch_ops);
    hp_free(core->server);
    hp_free(core->token);
    hp_free(core->warning);
    hp_wire_free(core->wire);
    hp_wire_free(core->spec_wire);
    hp_arena_deinit(&core->arena);
    hp_free(core);
}
