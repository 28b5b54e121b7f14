/* SPDX-License-Identifier: BSD-2-Clause */
/* The turn: begin, step, end; and what the shell asks between turns. */
#include "server/core/sched.h"
#include "server/core/state.h"

void *hp_must_alloc(size_t size)
{
    void *ptr = hp_alloc(size);
    HP_ASSERT(ptr != NULL);
    return ptr;
}

void *hp_must_calloc(size_t size)
{
    void *ptr = hp_calloc(1, size);
    HP_ASSERT(ptr != NULL);
    return ptr;
}

void hp_must(enum hp_err err)
{
    HP_ASSERT(err == HP_OK);
}

void hp_core_config_init(struct hp_core_config *config)
{
    *config = (struct hp_core_config){
        .server = "hostpool",
        .seed = 1,
        .lease_ms = 30000,
        .heartbeat_ms = 5000,
        .age_step_ms = 60000,
        .prehello_ms = HP_LIMIT_PREHELLO_MS,
        .window_runs = 1024,
        .window_timers = 20000,
        .window_bytes = 32U << 20,
        .volatile_bytes_max = 256U << 20,
        .backlog_ops_max = 8000,
        .eager = true,
    };
}

static bool node_before(const struct hp_heap_node *a, const struct hp_heap_node *b)
{
    const struct hp_node *x = HP_CONTAINER_OF(a, struct hp_node, heap_node);
    const struct hp_node *y = HP_CONTAINER_OF(b, struct hp_node, heap_node);
    return x->lease_end_ms != y->lease_end_ms ? x->lease_end_ms < y->lease_end_ms
                                              : x->number < y->number;
}

static bool timer_before(const struct hp_heap_node *a, const struct hp_heap_node *b)
{
    const struct hp_timer *x = HP_CONTAINER_OF(a, struct hp_timer, heap_node);
    const struct hp_timer *y = HP_CONTAINER_OF(b, struct hp_timer, heap_node);
    return x->side.run_at_ms != y->side.run_at_ms ? x->side.run_at_ms < y->side.run_at_ms
                                                  : x->side.first < y->side.first;
}

static bool wait_before(const struct hp_heap_node *a, const struct hp_heap_node *b)
{
    const struct hp_wait *x = HP_CONTAINER_OF(a, struct hp_wait, heap_node);
    const struct hp_wait *y = HP_CONTAINER_OF(b, struct hp_wait, heap_node);
    return x->deadline_ms != y->deadline_ms ? x->deadline_ms < y->deadline_ms
                                            : x->cookie < y->cookie;
}

static void init_maps(struct hp_core *core)
{
    uint64_t seed = core->hash_seed;
    hp_idmap_init(&core->conns, seed);
    hp_strmap_init(&core->sessions, seed);
    hp_strmap_init(&core->queues, seed);
    hp_strmap_init(&core->ckeys, seed);
    hp_strmap_init(&core->classes, seed);
    hp_strmap_init(&core->lane_keys, seed);
    hp_strmap_init(&core->offers, seed);
    hp_strmap_init(&core->specs, seed);
    hp_strmap_init(&core->nodes_by_name, seed);
    struct hp_idmap *maps[] = {&core->lanes,    &core->attempts,      &core->nodes,
                               &core->ukeys,    &core->timers,        &core->expiries,
                               &core->parked,   &core->waiters,       &core->lease_batches,
                               &core->pendings, &core->recent_map,    &core->pools,
                               &core->contents};
    for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++) {
        hp_idmap_init(maps[i], seed);
    }
    struct hp_list *lists[] = {&core->pool_list,     &core->conn_list,
                               &core->conn_dirty,    &core->session_list,
                               &core->session_dirty, &core->queue_dirty, &core->lane_dirty,
                               &core->class_list,    &core->node_list,   &core->pending_list,
                               &core->follows,       &core->spec_idle};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        hp_list_init(lists[i]);
    }
    hp_heap_init(&core->node_heap, node_before);
    hp_heap_init(&core->timer_heap, timer_before);
    hp_heap_init(&core->wait_heap, wait_before);
    hp_volatile_init(core, seed);
}

static char *copy_text(const char *text)
{
    if (text == NULL) {
        return NULL;
    }
    char *copy = hp_strdup(text);
    HP_ASSERT(copy != NULL);
    return copy;
}

struct hp_core *hp_core_new(const struct hp_core_config *config)
{
    struct hp_core *core = hp_must_calloc(sizeof(*core));
    core->config = *config;
    core->server = copy_text(config->server);
    core->token = copy_text(config->token);
    core->warning = copy_text(config->warning);
    hp_rand_init(&core->rand, config->seed);
    core->hash_seed = hp_rand_next(&core->rand);
    core->wire = hp_wire_new();
    HP_ASSERT(core->wire != NULL);
    core->spec_wire = hp_wire_new();
    HP_ASSERT(core->spec_wire != NULL);
    hp_arena_init(&core->arena, 256U << 10, 64U << 20);
    init_maps(core);
    core->next_lane = 1;
    core->next_class = 1;
    core->next_node = 1;
    core->next_cookie = 1;
    core->next_id = 1;
    core->next_blob = 1;
    core->rebalance_ms = UINT64_MAX;
    return core;
}

void hp_core_set_token(struct hp_core *core, const char *token)
{
    hp_free(core->token);
    core->token = copy_text(token);
}

/* A turn that comes later than asked for by more than this: the broker itself stood still. */
enum { STALL_MS = 1000 };
/* The wall clock has gone on by more than this than time did: it was set. */
enum { CLOCK_STEP_MS = 60000 };
/* After a start, or such a step, clients have this long to show that their sessions live. */
enum { SESSION_GRACE_MS = 120000 };

void hp_core_begin(struct hp_core *core, uint64_t now_ms, int64_t wall_ms, struct hp_batch *batch,
                   struct hp_effects *effects)
{
    HP_ASSERT(!core->in_turn && now_ms >= core->now_ms);
    bool late = core->started_ms != 0 && now_ms > core->turn_due_ms &&
                now_ms - core->turn_due_ms > STALL_MS;
    int64_t step_ms = wall_ms - core->wall_ms - (int64_t)(now_ms - core->now_ms);
    if (core->started_ms == 0 || step_ms > CLOCK_STEP_MS) {
        core->reap_sessions_ms = now_ms + SESSION_GRACE_MS;
    }
    if (core->started_ms == 0) {
        core->started_ms = now_ms + 1;
    }
    core->now_ms = now_ms;
    if (late) {
        hp_node_forgive(core);
    }
    core->wall_ms = wall_ms;
    core->batch_number++;
    hp_batch_clear(batch, core->batch_number);
    core->batch = batch;
    core->effects = effects;
    core->in_turn = true;
    core->turn_submitted = 0;
    core->turn_eager = 0;
    core->turn_volatile = 0;
    core->turn_results = 0;
    core->vol.effects_seen = effects->count;
    hp_arena_reset(&core->arena);
}

/* ------------------------------------------------ loads */
void hp_loaded_take(struct hp_core *core, const struct hp_loaded *loaded)
{
    struct hp_pending *pending = hp_idmap_find_ptr(&core->pendings, loaded->load->cookie);
    HP_ASSERT(pending != NULL);
    loaded = hp_volatile_complete(core, loaded);
    struct hp_lane *lane = hp_idmap_find_ptr(&core->lanes, pending->lane);
    switch (pending->kind) {
    case HP_PENDING_LANE:
        hp_lane_loaded(core, lane, loaded);
        break;
    case HP_PENDING_RUNS:
        if (lane != NULL) {
            hp_lane_runs_loaded(core, lane, loaded);
        }
        break;
    case HP_PENDING_TIMERS:
        hp_timer_groups_loaded(core, loaded);
        break;
    case HP_PENDING_EXPIRY:
        hp_timer_expiry_loaded(core, pending, loaded);
        break;
    case HP_PENDING_SIDES:
        hp_timer_sides_loaded(core, loaded);
        break;
    case HP_PENDING_SESSION:
        hp_on_hello_loaded(core, pending, loaded);
        break;
    case HP_PENDING_GET:
        hp_query_get_loaded(core, pending, loaded);
        break;
    case HP_PENDING_WAIT:
        hp_wait_loaded(core, pending, loaded);
        break;
    case HP_PENDING_CANCEL:
        hp_cancel_loaded(core, pending, loaded);
        break;
    case HP_PENDING_LIST:
        hp_query_list_loaded(core, pending, loaded);
        break;
    case HP_PENDING_WHY:
        hp_query_why_loaded(core, pending, loaded);
        break;
    case HP_PENDING_FOLLOW:
        hp_follow_loaded(core, pending, loaded);
        break;
    case HP_PENDING_CHECK:
    case HP_PENDING_BACKUP:
        hp_broker_report_loaded(core, pending, loaded);
        break;
    case HP_PENDING_POOL:
        hp_pools_loaded(core, pending, loaded);
        break;
    case HP_PENDING_POOL_ENDED:
        hp_pool_ended_loaded(core, pending, loaded);
        break;
    case HP_PENDING_POOL_SCAN:
        hp_pool_scanned(core, pending, loaded);
        break;
    case HP_PENDING_REPLACE:
        hp_submit_replace_loaded(core, pending, loaded);
        break;
    }
    hp_pending_free(core, pending);
    hp_recent_purge(core);
}

/* ------------------------------------------------ commits */
static void note_batch_ops(struct hp_core *core, uint64_t number, uint32_t ops)
{
    uint64_t span = number - core->durable_number;
    if (span >= core->batch_ops_capacity) {
        uint32_t capacity = core->batch_ops_capacity == 0 ? 256 : core->batch_ops_capacity * 2;
        while (capacity <= span) {
            capacity *= 2;
        }
        uint64_t *ring = hp_must_calloc((size_t)capacity * sizeof(*ring));
        for (uint64_t n = core->durable_number + 1; n < number; n++) {
            ring[n % capacity] = core->batch_ops[n % core->batch_ops_capacity];
        }
        hp_free(core->batch_ops);
        core->batch_ops = ring;
        core->batch_ops_capacity = capacity;
    }
    core->batch_ops[number % core->batch_ops_capacity] = ops;
    core->backlog_ops += ops;
}

static void on_committed(struct hp_core *core, uint64_t number)
{
    HP_ASSERT(number >= core->durable_number && number < core->batch_number);
    while (core->durable_number < number) {
        core->durable_number++;
        core->backlog_ops -= core->batch_ops[core->durable_number % core->batch_ops_capacity];
        struct hp_lease_batch *lease =
            hp_idmap_find_ptr(&core->lease_batches, core->durable_number);
        if (lease != NULL) {
            lease->durable_ms = core->now_ms;
        }
    }
    if (core->reserve_batch <= number) {
        core->durable_reserved_id = core->reserved_id;
    }
    core->dispatch_wanted = true;
    if (core->pools_blocked) {
        core->pools_blocked = false;
        hp_pools_touch(core);
    }
    hp_recent_purge(core);
}

static void on_conn_event(struct hp_core *core, const struct hp_event *event)
{
    struct hp_conn *conn = hp_conn_find(core, event->conn);
    if (conn == NULL) {
        return;
    }
    if (event->kind == HP_EVENT_CONN_CLOSED) {
        hp_conn_close(core, conn);
    } else if (event->kind == HP_EVENT_FRAME) {
        hp_conn_frame(core, conn, event->frame);
    } else {
        conn->blocked = event->level.over;
        core->dispatch_wanted = core->dispatch_wanted || (!conn->blocked && conn->node != NULL);
        if (!conn->blocked && conn->events_lost) {
            struct hp_msg_task_event lost = {.has = HP_HAS_TASK_EVENT_LOST, .lost = true};
            struct hp_buf *out = hp_out_reply(core, conn, true);
            hp_must(hp_rpc_put_notify(out, HP_METHOD_TASK_EVENT));
            hp_must(hp_msg_task_event_encode(out, &lost));
            conn->events_lost = false;
        }
    }
}

static void on_drain(struct hp_core *core, uint64_t grace_ms)
{
    core->draining = true;
    core->drain_grace_ms = grace_ms;
    struct hp_op *op = hp_batch_add(core->batch, HP_OP_META);
    op->meta.next_id = core->reserved_id;
    op->meta.next_blob = core->reserved_blob;
    op->meta.grace_ms = grace_ms;
    hp_trace(core, HP_TRACE_INFO, "broker_drain", "grace_ms=%llu", (unsigned long long)grace_ms);
}

void hp_core_step(struct hp_core *core, const struct hp_event *event)
{
    HP_ASSERT(core->in_turn);
    switch (event->kind) {
    case HP_EVENT_CONN_OPENED:
        hp_conn_open(core, event);
        break;
    case HP_EVENT_CONN_CLOSED:
    case HP_EVENT_CONN_LEVEL:
    case HP_EVENT_FRAME:
        on_conn_event(core, event);
        break;
    case HP_EVENT_COMMITTED:
        on_committed(core, event->number);
        break;
    case HP_EVENT_LOADED:
        hp_loaded_take(core, event->loaded);
        break;
    case HP_EVENT_BLOB_OPENED:
    case HP_EVENT_BLOB_PUT:
    case HP_EVENT_BLOB_GOT:
    case HP_EVENT_BLOB_GIVEN:
    case HP_EVENT_BLOB_LENT:
        hp_on_blob_event(core, event);
        break;
    case HP_EVENT_PRESSURE:
        core->disk_low = event->pressure.disk_low;
        break;
    case HP_EVENT_DRAIN:
        on_drain(core, event->drain.grace_ms);
        break;
    }
    /* Memory of a step is borrowed only within it. */
    hp_arena_reset(&core->arena);
    hp_volatile_loads(core);
}

enum { REAP_EVERY_MS = 10000 };

void hp_core_end(struct hp_core *core)
{
    HP_ASSERT(core->in_turn);
    hp_node_expire(core);
    hp_timer_due(core);
    hp_volatile_due(core);
    hp_wait_due(core);
    hp_volatile_loads(core);
    hp_conn_prehello_due(core);
    hp_pools_run(core);
    hp_volatile_loads(core);
    if (core->next_reap_ms <= core->now_ms) {
        struct hp_op *op = hp_batch_add(core->batch, HP_OP_REAP);
        op->reap.wall_ms = core->wall_ms;
        op->reap.keep_sessions = core->now_ms < core->reap_sessions_ms;
        hp_session_touch_all(core);
        core->next_reap_ms = core->now_ms + REAP_EVERY_MS;
        hp_forget_flush(core, true);
    }
    hp_sched_run(core);
    hp_rebalance_due(core);
    hp_pools_flush(core);
    hp_timer_want(core);
    hp_session_flush(core);
    hp_lane_flush(core);
    while (!hp_list_is_empty(&core->queue_dirty)) {
        struct hp_list *link = hp_list_pop_front(&core->queue_dirty);
        hp_queue_store(core, HP_CONTAINER_OF(link, struct hp_queue, dirty_link));
    }
    if (core->open_lease != NULL && core->open_lease->live == 0) {
        /* All leases of this turn ended in this turn: keep no handle, drop the row. */
        hp_batch_add(core->batch, HP_OP_LEASE_DEL)->lease_del.batch = core->open_lease->number;
        (void)hp_idmap_remove(&core->lease_batches, core->open_lease->number, NULL);
        hp_free(core->open_lease);
    }
    core->open_lease = NULL;
    hp_forget_flush(core, false);
    hp_out_flush_all(core);
    note_batch_ops(core, core->batch_number, core->batch->op_count);
    core->in_turn = false;
    core->turn_due_ms = hp_core_next_deadline_ms(core);
    core->batch = NULL;
    core->effects = NULL;
    hp_arena_reset(&core->arena);
}

/* ------------------------------------------------ questions of the shell */
uint64_t hp_core_next_deadline_ms(const struct hp_core *core)
{
    uint64_t at = core->next_reap_ms;
    struct hp_heap_node *node = hp_heap_peek(&core->node_heap);
    if (node != NULL) {
        uint64_t lease = HP_CONTAINER_OF(node, struct hp_node, heap_node)->lease_end_ms;
        at = lease < at ? lease : at;
    }
    struct hp_heap_node *wait = hp_heap_peek(&core->wait_heap);
    if (wait != NULL) {
        uint64_t end = HP_CONTAINER_OF(wait, struct hp_wait, heap_node)->deadline_ms;
        at = end < at ? end : at;
    }
    uint64_t timer = hp_timer_deadline_ms(core);
    at = timer < at ? timer : at;
    timer = hp_pools_deadline_ms(core);
    at = timer < at ? timer : at;
    timer = hp_volatile_deadline_ms(core);
    at = timer < at ? timer : at;
    at = core->rebalance_ms < at ? core->rebalance_ms : at;
    struct hp_list *first = hp_list_first(&core->conn_list);
    if (first != NULL) {
        const struct hp_conn *conn = HP_CONTAINER_OF(first, struct hp_conn, link);
        if (conn->state == HP_SM_CONN_NEW) {
            uint64_t end = conn->opened_ms + core->config.prehello_ms;
            at = end < at ? end : at;
        }
    }
    return at;
}

enum { LOADS_PER_CONN_MAX = 16, OUT_PER_TURN_BYTES = 1 << 20, EFFECTS_PER_TURN_BYTES = 16 << 20 };
/* Each answer may be a chunk; a worker has more than one task, and heartbeats behind them. */
enum { BLOBS_PER_CONN_MAX = 64, BLOBS_PER_NODE_MAX = 1024 };

bool hp_core_wants_input(const struct hp_core *core, uint64_t id)
{
    const struct hp_conn *conn = hp_conn_find(core, id);
    if (conn == NULL || conn->closing) {
        return false;
    }
    if (conn->state == HP_SM_CONN_GREETING || conn->paused) {
        return false;
    }
    if (conn->load_count >= LOADS_PER_CONN_MAX || conn->now.size > OUT_PER_TURN_BYTES) {
        return false; /* small requests with large answers */
    }
    if (conn->blob_count >= (conn->node != NULL ? BLOBS_PER_NODE_MAX : BLOBS_PER_CONN_MAX)) {
        return false;
    }
    if (core->effects != NULL && hp_arena_used(&core->effects->arena) > EFFECTS_PER_TURN_BYTES) {
        return false; /* chunks of this turn: the blob thread is to have them first */
    }
    /* Workers' results are always taken: they free what the backlog holds. */
    return core->backlog_ops <= core->config.backlog_ops_max || conn->node != NULL;
}

bool hp_core_is_urgent(const struct hp_core *core, uint64_t id)
{
    const struct hp_conn *conn = hp_conn_find(core, id);
    return conn != NULL && (conn->node != NULL || conn->state == HP_SM_CONN_NEW);
}

bool hp_core_is_greeted(const struct hp_core *core, uint64_t id)
{
    const struct hp_conn *conn = hp_conn_find(core, id);
    return conn != NULL && conn->state == HP_SM_CONN_OPEN;
}

bool hp_core_may_hold(const struct hp_core *core)
{
    return core->turn_submitted > 0 && core->turn_submitted == core->turn_eager &&
           core->turn_results == 0;
}

bool hp_core_is_drained(const struct hp_core *core)
{
    return core->draining && core->backlog_ops == 0 && !core->in_turn;
}
