/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hp_core_check: derives every index and counter again from the objects and compares. For tests and
 * the simulator, between turns; a broker never calls it.
 */
#include <stdlib.h>

#include "server/core/sched.h"
#include "server/core/state.h"

/* Sums by object. */
struct tally {
    struct hp_idmap map;
};

static void bump(struct tally *tally, const void *object, uint64_t by)
{
    uint64_t sum = 0;
    uint64_t key = (uint64_t)(uintptr_t)object;
    (void)hp_idmap_find(&tally->map, key, &sum);
    hp_must(hp_idmap_put(&tally->map, key, sum + by));
}

static uint64_t sum_of(const struct tally *tally, const void *object)
{
    uint64_t sum = 0;
    (void)hp_idmap_find(&tally->map, (uint64_t)(uintptr_t)object, &sum);
    return sum;
}

/* Ids in one place: [first, end). */
struct place {
    uint64_t first, end;
};

struct check {
    const struct hp_core *core;
    struct tally lanes, queues, ckeys; /* attempts */
    struct tally pool_sessions; /* owners */
    struct tally pool_calls;    /* that are not durable and live, by pool id */
    struct tally sessions, specs, groups, leases, lane_specs, class_lanes, class_held, ckey_lanes;
    uint64_t payload_bytes, volatile_bytes;
    struct place *places;
    uint32_t place_count, place_capacity;
};

static void add_place(struct check *check, uint64_t first, uint64_t count)
{
    if (check->place_count == check->place_capacity) {
        check->place_capacity = check->place_capacity == 0 ? 256 : check->place_capacity * 2;
        check->places =
            hp_realloc_array(check->places, check->place_capacity, sizeof(*check->places));
        HP_ASSERT(check->places != NULL);
    }
    check->places[check->place_count++] = (struct place){first, first + count};
}

static int place_order(const void *a, const void *b)
{
    const struct place *x = a;
    const struct place *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

static void check_heap(const struct hp_heap *heap)
{
    for (uint32_t i = 0; i < heap->count; i++) {
        HP_ASSERT(heap->items[i]->index == i + 1);
        HP_ASSERT(i == 0 || !heap->before(heap->items[i], heap->items[(i - 1) / 2]));
    }
}

static uint32_t list_length(const struct hp_list *head)
{
    uint32_t length = 0;
    HP_LIST_FOR_EACH (link, head) {
        HP_ASSERT(link->next->prev == link);
        length++;
    }
    return length;
}

/* ------------------------------------------------ attempts and nodes: I2 */
static void check_attempt(struct check *check, const struct hp_attempt *attempt)
{
    const struct hp_core *core = check->core;
    HP_ASSERT(hp_idmap_find_ptr(&core->attempts, attempt->id) == attempt);
    HP_ASSERT(attempt->attempt > 0 && attempt->epoch <= core->epoch);
    HP_ASSERT(attempt->state == HP_TASK_STATE_LEASED || attempt->state == HP_TASK_STATE_RUNNING ||
              attempt->state == HP_TASK_STATE_CANCELLING);
    HP_ASSERT(attempt->id >= attempt->group_first &&
              attempt->id - attempt->group_first < attempt->group_count);
    const struct hp_lane *lane = attempt->spec->lane;
    bump(&check->lanes, lane, 1);
    bump(&check->queues, lane->queue, 1);
    bump(&check->class_held, lane->class_, 1);
    if (lane->ckey != NULL) {
        bump(&check->ckeys, lane->ckey, 1);
    }
    bump(&check->specs, attempt->spec, 1);
    HP_ASSERT((attempt->lease == NULL) == hp_spec_is_volatile(attempt->spec));
    if (attempt->lease != NULL) {
        bump(&check->leases, attempt->lease, 1);
    }
    if (attempt->session != NULL) {
        bump(&check->sessions, attempt->session, 1);
    }
    add_place(check, attempt->id, 1);
}

static uint32_t check_node(struct check *check, const struct hp_node *node)
{
    const struct hp_core *core = check->core;
    uint32_t count = 0;
    uint32_t cpus = 0;
    uint32_t light = 0;
    uint64_t mem = 0;
    HP_LIST_FOR_EACH (link, &node->attempts) {
        const struct hp_attempt *attempt = HP_CONTAINER_OF(link, struct hp_attempt, node_link);
        const struct hp_st_task_options *options = &attempt->spec->options;
        HP_ASSERT(attempt->node == node);
        check_attempt(check, attempt);
        count++;
        mem += options->mem_bytes;
        if (options->kind == HP_TASK_KIND_CALL) {
            HP_ASSERT(attempt->pool_node != NULL && attempt->pool_node->node == node);
        } else if (hp_sched_takes_a_slot(options->kind, options->cpus, options->mem_bytes)) {
            light++;
        } else {
            cpus += options->cpus;
        }
    }
    HP_ASSERT(count == node->attempt_count && cpus == node->used_cpus);
    HP_ASSERT(light == node->light_count && mem == node->used_mem);
    HP_ASSERT(hp_idmap_find_ptr(&core->nodes, node->number) == node);
    HP_ASSERT(node->conn == NULL || node->conn->node == node);
    HP_ASSERT(node->state != HP_SM_NODE_AWAY || node->conn == NULL || !node->registered);
    /* What nobody could take back would stay leased for ever. */
    HP_ASSERT(count == 0 || hp_heap_contains(&node->heap_node));
    return count;
}

static void check_nodes(struct check *check)
{
    const struct hp_core *core = check->core;
    uint32_t attempts = 0;
    uint32_t nodes = 0;
    HP_LIST_FOR_EACH (link, &core->node_list) {
        attempts += check_node(check, HP_CONTAINER_OF(link, struct hp_node, link));
        nodes++;
    }
    HP_ASSERT(attempts == hp_idmap_count(&core->attempts));
    HP_ASSERT(nodes == hp_idmap_count(&core->nodes));
    HP_ASSERT(nodes == hp_strmap_count(&core->nodes_by_name));
    check_heap(&core->node_heap);
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_idmap_next(&core->lease_batches, &iter, NULL, &value)) {
        const struct hp_lease_batch *lease = (const struct hp_lease_batch *)(uintptr_t)value;
        HP_ASSERT(lease->live > 0 && lease->live == sum_of(&check->leases, lease));
    }
    HP_ASSERT(hp_idmap_count(&core->lease_batches) == hp_idmap_count(&check->leases.map));
}

/* ------------------------------------------------ lanes: I3, I4, L1, L3 */
static void check_group(struct check *check, const struct hp_group *group)
{
    if (sum_of(&check->groups, group) == 0) {
        HP_ASSERT(group->in_memory == hp_spec_is_volatile(group->spec));
        *(group->in_memory ? &check->volatile_bytes : &check->payload_bytes) +=
            sizeof(*group) + group->pack.size;
        bump(&check->specs, group->spec, 1);
        if (group->session != NULL) {
            bump(&check->sessions, group->session, 1);
        }
        HP_ASSERT(hp_pack_valid(group->pack, group->count));
    }
    bump(&check->groups, group, 1);
}

static void check_runs(struct check *check, const struct hp_lane *lane)
{
    uint64_t tasks = 0;
    uint64_t segment = lane->head_segment;
    for (uint32_t i = 0; i < lane->run_count; i++) {
        const struct hp_run *run = &lane->runs[(lane->run_head + i) & (lane->run_capacity - 1)];
        HP_ASSERT(run->count > 0 && run->segment >= segment);
        HP_ASSERT(lane->in_memory ? run->segment == UINT64_MAX && run->group != NULL
                                  : run->segment < lane->load_segment);
        HP_ASSERT(!run->loading || (lane->runs_pending && run->group == NULL));
        segment = run->segment;
        tasks += run->count;
        add_place(check, run->first, run->count);
        if (run->group != NULL) {
            HP_ASSERT(run->group->spec->lane == lane);
            HP_ASSERT(run->first >= run->group->first &&
                      run->first + run->count <= run->group->first + run->group->count);
            check_group(check, run->group);
        }
    }
    HP_ASSERT(tasks == lane->memory_count);
    HP_ASSERT(lane->ready_count >= tasks);
    HP_ASSERT(lane->load_segment < lane->next_segment || lane->ready_count == tasks);
    HP_ASSERT(lane->head_segment <= lane->load_segment);
}

static void check_parked(struct check *check, const struct hp_lane *lane)
{
    uint64_t last = 0;
    uint32_t count = 0;
    HP_LIST_FOR_EACH (link, &lane->parked) {
        const struct hp_parked *parked = HP_CONTAINER_OF(link, struct hp_parked, link);
        HP_ASSERT(parked->id > last);
        HP_ASSERT(hp_idmap_find_ptr(&check->core->parked, parked->id) == parked);
        HP_ASSERT(parked->group->refs == 1 && parked->group->spec->lane == lane);
        last = parked->id;
        count++;
        add_place(check, parked->id, 1);
        check_group(check, parked->group);
    }
    HP_ASSERT(count == lane->parked_count);
}

static void check_rank(const struct hp_core *core, const struct hp_lane *lane)
{
    if (!hp_lane_is_open(lane)) {
        HP_ASSERT(!hp_heap_contains(&lane->heap_node));
        return;
    }
    HP_ASSERT(hp_heap_contains(&lane->heap_node));
    int64_t since;
    uint64_t id;
    if (lane->parked_count > 0) {
        const struct hp_parked *parked =
            HP_CONTAINER_OF(lane->parked.next, struct hp_parked, link);
        since = parked->since_ms;
        id = parked->id;
    } else {
        since = lane->runs[lane->run_head].since_ms;
        id = lane->runs[lane->run_head].first;
    }
    HP_ASSERT(lane->rank_id == id);
    HP_ASSERT(lane->rank == (int64_t)lane->priority * (int64_t)core->config.age_step_ms - since);
}

static void check_lanes(struct check *check)
{
    const struct hp_core *core = check->core;
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    uint64_t id = 0;
    while (hp_idmap_next(&core->lanes, &iter, &id, &value)) {
        const struct hp_lane *lane = (const struct hp_lane *)(uintptr_t)value;
        HP_ASSERT(lane->id == id && lane->id < core->next_lane);
        HP_ASSERT(!lane->in_memory || (!lane->key_stored && lane->next_segment == 0));
        HP_ASSERT(hp_strmap_find_ptr(&core->lane_keys, lane->key) == lane);
        HP_ASSERT(lane->running == sum_of(&check->lanes, lane));
        check_runs(check, lane);
        check_parked(check, lane);
        check_rank(core, lane);
        bump(&check->class_lanes, lane->class_, 1);
        if (lane->ckey != NULL) {
            bump(&check->ckey_lanes, lane->ckey, 1);
        }
        HP_ASSERT(!lane->dirty || core->started_ms == 0);
    }
    HP_ASSERT(hp_idmap_count(&core->lanes) == hp_strmap_count(&core->lane_keys));
}

static void check_spec(struct check *check, const struct hp_spec *spec)
{
    bump(&check->lane_specs, spec->lane, 1);
    HP_ASSERT(spec->refs == sum_of(&check->specs, spec));
    HP_ASSERT((spec->refs == 0) == hp_list_is_linked(&spec->idle_link));
}

static void check_owners(struct check *check)
{
    const struct hp_core *core = check->core;
    struct hp_strmap_iter specs = {0};
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_strmap_next(&core->specs, &specs, NULL, &value)) {
        check_spec(check, (const struct hp_spec *)(uintptr_t)value);
    }
    HP_ASSERT(list_length(&core->spec_idle) == core->spec_idle_count);
    while (hp_idmap_next(&core->lanes, &iter, NULL, &value)) {
        const struct hp_lane *lane = (const struct hp_lane *)(uintptr_t)value;
        HP_ASSERT(lane->refs == sum_of(&check->lane_specs, lane));
    }
    iter = (struct hp_idmap_iter){0};
    uint64_t key = 0;
    while (hp_idmap_next(&check->groups.map, &iter, &key, &value)) {
        HP_ASSERT(((const struct hp_group *)(uintptr_t)key)->refs == value);
    }
    HP_ASSERT(check->payload_bytes == core->payload_bytes);
    HP_ASSERT(check->volatile_bytes == core->vol.bytes);
    uint32_t classes = 0;
    HP_LIST_FOR_EACH (link, &core->class_list) {
        const struct hp_class *class_ = HP_CONTAINER_OF(link, struct hp_class, link);
        HP_ASSERT(class_->refs == sum_of(&check->class_lanes, class_));
        HP_ASSERT(class_->held == sum_of(&check->class_held, class_));
        check_heap(&class_->lanes);
        classes++;
    }
    HP_ASSERT(classes == hp_strmap_count(&core->classes));
}

static void check_names(struct check *check)
{
    const struct hp_core *core = check->core;
    struct hp_strmap_iter iter = {0};
    uint64_t value = 0;
    uint32_t lanes = 0;
    while (hp_strmap_next(&core->queues, &iter, NULL, &value)) {
        const struct hp_queue *queue = (const struct hp_queue *)(uintptr_t)value;
        HP_ASSERT(queue->running == sum_of(&check->queues, queue) && !queue->dirty);
        lanes += list_length(&queue->lanes);
    }
    HP_ASSERT(lanes == hp_idmap_count(&core->lanes));
    iter = (struct hp_strmap_iter){0};
    while (hp_strmap_next(&core->ckeys, &iter, NULL, &value)) {
        const struct hp_ckey *ckey = (const struct hp_ckey *)(uintptr_t)value;
        HP_ASSERT(ckey->running == sum_of(&check->ckeys, ckey));
        HP_ASSERT(ckey->refs == sum_of(&check->ckey_lanes, ckey));
        HP_ASSERT(ckey->refs == list_length(&ckey->lanes));
    }
}

/* ------------------------------------------------ connections and sessions */
static void check_conns(struct check *check)
{
    const struct hp_core *core = check->core;
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_idmap_next(&core->conns, &iter, NULL, &value)) {
        const struct hp_conn *conn = (const struct hp_conn *)(uintptr_t)value;
        HP_ASSERT(!conn->in_dirty && conn->now.size == 0 && conn->held.size == 0);
        HP_ASSERT(conn->events_out.count == 0 && conn->events_now.count == 0 &&
                  conn->assign_now.count == 0 &&
                  conn->assign_held.count == 0);
        HP_ASSERT(conn->node == NULL || conn->node->conn == conn);
        if (conn->session != NULL) {
            HP_ASSERT(conn->session->conn == conn || conn->closing);
            bump(&check->sessions, conn->session, 1);
        }
    }
    struct hp_strmap_iter names = {0};
    uint32_t count = 0;
    while (hp_strmap_next(&core->sessions, &names, NULL, &value)) {
        const struct hp_session *session = (const struct hp_session *)(uintptr_t)value;
        HP_ASSERT(session->refs == sum_of(&check->sessions, session) && !session->dirty);
        HP_ASSERT(session->pools == sum_of(&check->pool_sessions, session));
        HP_ASSERT(session->conn == NULL || session->conn->session == session);
        uint64_t last = session->acked;
        for (uint32_t i = 0; i < session->memo_count; i++) {
            HP_ASSERT(session->memos[i].number > last);
            last = session->memos[i].number;
        }
        HP_ASSERT(session->memo_count == 0 || last == session->last_number);
        count++;
    }
    HP_ASSERT(count == core->session_count && count == list_length(&core->session_list));
}

/* ------------------------------------------------ timers, waits, loads, recents */
static void check_timer_map(struct check *check, const struct hp_idmap *map, uint32_t *heaped)
{
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    uint64_t first = 0;
    while (hp_idmap_next(map, &iter, &first, &value)) {
        const struct hp_timer *timer = (const struct hp_timer *)(uintptr_t)value;
        bool expiry = timer->side.kind == HP_SIDE_EXPIRY;
        HP_ASSERT(timer->side.first == first && timer->side.count > 0);
        HP_ASSERT(expiry == (map == &check->core->expiries));
        HP_ASSERT(timer->loading != hp_heap_contains(&timer->heap_node));
        *heaped += !timer->loading;
        if (!expiry) {
            add_place(check, first, timer->side.count);
        }
    }
}

static void check_timers(struct check *check)
{
    uint32_t heaped = 0;
    check_timer_map(check, &check->core->timers, &heaped);
    check_timer_map(check, &check->core->expiries, &heaped);
    HP_ASSERT(heaped == check->core->timer_heap.count);
    check_heap(&check->core->timer_heap);
}

static void check_wait(const struct hp_wait *wait)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < wait->count; i++) {
        left += wait->ended[i] == 0;
    }
    HP_ASSERT(wait->left == left && left > 0 && !wait->answering);
    HP_ASSERT(hp_heap_contains(&wait->heap_node));
}

static void check_waits(const struct hp_core *core)
{
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    uint64_t id = 0;
    while (hp_idmap_next(&core->waiters, &iter, &id, &value)) {
        const struct hp_waiter *waiter = (const struct hp_waiter *)(uintptr_t)value;
        HP_ASSERT(waiter != NULL);
        for (; waiter != NULL; waiter = waiter->next) {
            HP_ASSERT(waiter->index < waiter->wait->count && waiter->wait->armed);
            HP_ASSERT(waiter->wait->ids[waiter->index] == id);
            HP_ASSERT(waiter->wait->ended[waiter->index] == 0);
            check_wait(waiter->wait);
        }
    }
    check_heap(&core->wait_heap);
}

static void check_loads(const struct hp_core *core)
{
    uint64_t cookie = 0;
    uint32_t count = 0;
    HP_LIST_FOR_EACH (link, &core->pending_list) {
        const struct hp_pending *pending = HP_CONTAINER_OF(link, struct hp_pending, link);
        HP_ASSERT(pending->cookie > cookie && pending->cookie < core->next_cookie);
        HP_ASSERT(hp_idmap_find_ptr(&core->pendings, pending->cookie) == pending);
        cookie = pending->cookie;
        count++;
    }
    HP_ASSERT(count == hp_idmap_count(&core->pendings));
    uint32_t single = 0;
    for (uint32_t i = 0; i < core->recent_count; i++) {
        const struct hp_recent *recent =
            &core->recents[(core->recent_head + i) & (core->recent_capacity - 1)];
        HP_ASSERT(recent->count > 0 && hp_recent_find(core, recent->id) != 0);
        single += recent->count == 1;
    }
    HP_ASSERT(hp_idmap_count(&core->recent_map) <= single);
    uint64_t ops = 0;
    for (uint64_t n = core->durable_number + 1; n <= core->batch_number; n++) {
        ops += core->batch_ops[n % core->batch_ops_capacity];
    }
    HP_ASSERT(ops == core->backlog_ops);
}

/* ------------------------------------------------ pools: P1, P3 */
static void check_pool_node(const struct hp_pool *pool, const struct hp_pool_node *entry)
{
    uint32_t held = 0;
    HP_ASSERT(entry->pool == pool && hp_pool_node_find(pool, entry->node) == entry);
    HP_LIST_FOR_EACH (link, &entry->node->attempts) {
        held += HP_CONTAINER_OF(link, struct hp_attempt, node_link)->pool_node == entry;
    }
    HP_ASSERT(held == entry->held);
    HP_ASSERT(entry->granted == 0 || (!entry->quarantined && pool->loaded));
    HP_ASSERT((entry->pids != NULL) == (entry->pid_count > 0));
}

static void check_pool(struct check *check, const struct hp_pool *pool)
{
    const struct hp_core *core = check->core;
    uint32_t held = 0;
    uint32_t up = 0;
    HP_ASSERT(hp_pool_find(core, pool->id) == pool && pool->state != HP_SM_POOL_ENDED);
    HP_ASSERT(!pool->row_dirty && (pool->spec != NULL || !pool->loaded || pool->broken));
    if (pool->spec != NULL) {
        bump(&check->specs, pool->spec, 1);
    }
    if (pool->session != NULL) {
        bump(&check->sessions, pool->session, 1);
        bump(&check->pool_sessions, pool->session, 1);
    }
    if (pool->maker != NULL) {
        bump(&check->sessions, pool->maker, 1);
    }
    HP_LIST_FOR_EACH (link, &pool->nodes) {
        const struct hp_pool_node *entry = HP_CONTAINER_OF(link, struct hp_pool_node, link);
        check_pool_node(pool, entry);
        held += entry->held;
        up += entry->pid_count;
    }
    HP_ASSERT(held == pool->held && up == pool->up);
    HP_ASSERT(pool->memory_live ==
              sum_of(&check->pool_calls, (const void *)(uintptr_t)pool->id));
    HP_LIST_FOR_EACH (link, &pool->lanes) {
        HP_ASSERT(HP_CONTAINER_OF(link, struct hp_lane, pool_link)->class_->pool == pool->id);
    }
    HP_LIST_FOR_EACH (link, &pool->waits) {
        HP_ASSERT(HP_CONTAINER_OF(link, struct hp_pool_wait, link)->deadline_ms >= core->now_ms);
    }
}

static void check_pools(struct check *check)
{
    const struct hp_core *core = check->core;
    uint64_t last = 0;
    uint32_t count = 0;
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    HP_LIST_FOR_EACH (link, &core->pool_list) {
        const struct hp_pool *pool = HP_CONTAINER_OF(link, struct hp_pool, link);
        HP_ASSERT(pool->id > last);
        last = pool->id;
        count++;
        check_pool(check, pool);
    }
    HP_ASSERT(count == hp_idmap_count(&core->pools));
    while (hp_idmap_next(&core->lanes, &iter, NULL, &value)) {
        const struct hp_lane *lane = (const struct hp_lane *)(uintptr_t)value;
        bool is_known = hp_pool_find(core, lane->class_->pool) != NULL;
        HP_ASSERT(hp_list_is_linked(&lane->pool_link) == is_known);
    }
    HP_LIST_FOR_EACH (link, &core->node_list) {
        const struct hp_node *node = HP_CONTAINER_OF(link, struct hp_node, link);
        uint32_t granted = 0;
        HP_LIST_FOR_EACH (at, &core->pool_list) {
            const struct hp_pool_node *entry =
                hp_pool_node_find(HP_CONTAINER_OF(at, struct hp_pool, link), node);
            granted += entry != NULL ? entry->granted : 0;
        }
        HP_ASSERT(granted == node->pool_granted);
    }
}

/* ------------------------------------------------ what is not durable: V1, V2 */
static void check_vgroup(struct check *check, const struct hp_vgroup *group, uint64_t *waiting)
{
    const struct hp_core *core = check->core;
    uint32_t ended = 0;
    uint32_t gone = 0;
    for (uint32_t i = 0; i < group->count; i++) {
        uint64_t id = group->first + i;
        const struct hp_vend *end = group->ends[i];
        int places = hp_idmap_find(&core->attempts, id, NULL) +
                     hp_idmap_find(&core->parked, id, NULL) +
                     hp_idmap_find(&core->vol.returned, id, NULL);
        HP_ASSERT(places <= (end == NULL ? 1 : 0));
        ended += end != NULL;
        gone += end != NULL && hp_vend_is_gone(end);
        *waiting += end == NULL && places == 0 && group->delay == NULL;
        if (end != NULL && !hp_vend_is_gone(end)) {
            HP_ASSERT(end->group == group && end->index == i);
            check->volatile_bytes += hp_vend_bytes(end);
        }
    }
    HP_ASSERT(ended == group->ended && gone == group->gone && gone < group->count);
    HP_ASSERT((group->payloads == NULL) == (ended == group->count));
    HP_ASSERT(hp_spec_is_volatile(group->spec));
    check->volatile_bytes += hp_vgroup_bytes(group);
    bump(&check->specs, group->spec, 1);
    if (group->session != NULL) {
        HP_ASSERT(ended < group->count);
        bump(&check->sessions, group->session, 1);
    }
    if (group->payloads != NULL) {
        check_group(check, group->payloads);
    }
}

static void check_vblobs(struct check *check)
{
    const struct hp_volatile *vol = &check->core->vol;
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    uint32_t owned = 0;
    while (hp_idmap_next(&vol->blobs, &iter, NULL, &value)) {
        const struct hp_vblob *blob = (const struct hp_vblob *)(uintptr_t)value;
        HP_ASSERT((blob->owner == 0) == hp_list_is_linked(&blob->idle_link));
        HP_ASSERT((blob->digest_state == NULL) == (blob->written == blob->size));
        check->volatile_bytes += sizeof(*blob) + blob->size;
        owned += blob->owner != 0;
    }
    iter = (struct hp_idmap_iter){0};
    uint64_t task = 0;
    while (hp_idmap_next(&vol->owned, &iter, &task, &value)) {
        const struct hp_vblob *blob = (const struct hp_vblob *)(uintptr_t)value;
        HP_ASSERT(hp_volatile_group(check->core, task) != NULL);
        for (; blob != NULL; blob = blob->next_owned) {
            HP_ASSERT(blob->owner == task);
            owned--;
        }
    }
    HP_ASSERT(owned == 0);
}

static void check_volatile(struct check *check)
{
    const struct hp_core *core = check->core;
    const struct hp_volatile *vol = &core->vol;
    uint32_t live = 0;
    uint64_t tasks = 0;
    uint64_t waiting = 0;
    for (uint32_t i = 0; i < vol->slot_count; i++) {
        const struct hp_vgroup *group = vol->slots[i].group;
        HP_ASSERT(i == 0 || vol->slots[i - 1].first < vol->slots[i].first);
        if (group != NULL) {
            HP_ASSERT(vol->slots[i].first == group->first);
            check_vgroup(check, group, &waiting);
            bump(&check->pool_calls, (const void *)(uintptr_t)group->spec->options.pool,
                 group->count - group->ended);
            live++;
            tasks += group->count;
        }
    }
    HP_ASSERT(live == vol->live_count && tasks == vol->task_count);
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_idmap_next(&core->lanes, &iter, NULL, &value)) {
        const struct hp_lane *lane = (const struct hp_lane *)(uintptr_t)value;
        waiting -= lane->in_memory ? lane->memory_count : 0;
    }
    HP_ASSERT(waiting == 0);
    HP_ASSERT(list_length(&vol->ends) == vol->end_count);
    check_vblobs(check);
    check_heap(&vol->timers);
}

/* I1 */
static void check_places(struct check *check)
{
    if (check->place_count == 0) {
        return;
    }
    qsort(check->places, check->place_count, sizeof(*check->places), place_order);
    for (uint32_t i = 1; i < check->place_count; i++) {
        HP_ASSERT(check->places[i - 1].end <= check->places[i].first);
    }
    HP_ASSERT(check->places[check->place_count - 1].end <= check->core->next_id);
}

void hp_core_check(const struct hp_core *core)
{
    HP_ASSERT(!core->in_turn && core->open_lease == NULL);
    struct check check = {.core = core};
    struct tally *tallies[] = {&check.lanes,  &check.queues,     &check.ckeys,
                               &check.specs,  &check.sessions,   &check.groups,
                               &check.leases, &check.lane_specs, &check.class_lanes,
                               &check.ckey_lanes, &check.pool_sessions,
                               &check.pool_calls, &check.class_held};
    for (size_t i = 0; i < sizeof(tallies) / sizeof(tallies[0]); i++) {
        hp_idmap_init(&tallies[i]->map, 1);
    }
    check_nodes(&check);
    check_lanes(&check);
    check_volatile(&check);
    check_pools(&check);
    check_owners(&check);
    check_names(&check);
    check_conns(&check);
    check_timers(&check);
    check_waits(core);
    check_loads(core);
    check_places(&check);
    HP_ASSERT(hp_list_is_empty(&core->conn_dirty) && hp_list_is_empty(&core->session_dirty));
    for (size_t i = 0; i < sizeof(tallies) / sizeof(tallies[0]); i++) {
        hp_idmap_deinit(&tallies[i]->map);
    }
    hp_free(check.places);
}
