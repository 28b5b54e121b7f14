/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random operations on pools: workers that come, go and fail to set up children, calls that end in
 * all ways, pools that are closed, terminated and abandoned, restarts of the broker. All indices
 * are checked after each turn. In the end the workers are well and all pools are ended: then all
 * calls must have ended, too, and nothing of the pools may be left.
 */
#include "tests/lib/hp_test.h"

#include "common/base/rand.h"
#include "tests/lib/core_rig.h"
#include "tests/unit/core_pool_fixture.h"

enum {
    WORKERS = 3,
    POOLS_MAX = 64,
    CALLS_MAX = 4000,
    HELD_MAX = 512,
    STEPS = 150,
    SEEDS = 40,
    ROUNDS_MAX = 400
};

static const char client_session[] = "the only client!";

struct held {
    uint64_t id, epoch;
    uint32_t attempt;
};

struct worker {
    uint64_t conn;
    const char *name;
    bool online;
    struct held held[HELD_MAX];
    uint32_t held_count;
    uint32_t told[POOLS_MAX];
    uint32_t failures[POOLS_MAX];
};

struct world {
    struct rig *rig;
    struct hp_rand rand;
    uint64_t pools[POOLS_MAX];
    uint32_t pool_count;
    struct {
        uint64_t id;
        uint32_t pool;
        bool in_memory;
    } calls[CALLS_MAX];
    uint32_t call_count;
    struct worker workers[WORKERS];
    uint64_t number;
    bool healthy; /* the last part: all workers do well */
};

static uint32_t pool_index(const struct world *world, uint64_t id)
{
    for (uint32_t i = 0; i < world->pool_count; i++) {
        if (world->pools[i] == id) {
            return i;
        }
    }
    return UINT32_MAX;
}

static uint32_t pool_of_call(const struct world *world, uint64_t id)
{
    for (uint32_t i = 0; i < world->call_count; i++) {
        if (world->calls[i].id == id) {
            return world->calls[i].pool;
        }
    }
    fail_msg("%llu was given to a worker and is no call", (unsigned long long)id);
    return 0;
}

/* ------------------------------------------------ workers */
static void end_held(struct world *world, struct worker *worker, uint32_t index,
                     enum hp_reason reason)
{
    struct held held = worker->held[index];
    worker->held[index] = worker->held[--worker->held_count];
    rig_done(world->rig, worker->conn, held.id, held.attempt, held.epoch, reason);
}

static void kill_pool(struct world *world, struct worker *worker, uint32_t pool)
{
    for (uint32_t i = worker->held_count; i-- > 0;) {
        if (pool_of_call(world, worker->held[i].id) == pool) {
            end_held(world, worker, i, HP_REASON_POOL_ENDED);
        }
    }
}

/* Takes what was sent to the worker and does as it is told; true: there was something. */
static bool work(struct world *world, struct worker *worker)
{
    struct pool_seen seen = pool_look(world->rig, worker->conn);
    for (uint32_t i = 0; i < seen.run_count; i++) {
        for (uint32_t k = 0; k < seen.runs[i].count; k++) {
            assert_true(worker->held_count < HELD_MAX);
            worker->held[worker->held_count++] = (struct held){
                .id = seen.runs[i].first + k,
                .epoch = seen.runs[i].epoch,
                .attempt = seen.runs[i].attempt};
        }
    }
    for (uint32_t i = 0; i < seen.order_count; i++) {
        const struct pool_order *order = &seen.orders[i];
        uint32_t pool = pool_index(world, order->pool);
        assert_true(pool < POOLS_MAX);
        assert_true(order->children == 0 || order->has_options);
        worker->told[pool] = order->children;
        bool fails = !world->healthy && hp_rand_chance(&world->rand, 1, 4);
        worker->failures[pool] =
            fails ? worker->failures[pool] + (uint32_t)hp_rand_between(&world->rand, 1, 3) : 0;
        if (order->kill) {
            kill_pool(world, worker, pool);
        }
        pool_report(world->rig, worker->conn, order->pool, fails ? 0 : order->children,
                    worker->failures[pool], fails ? "it failed" : NULL);
    }
    return seen.run_count + seen.order_count > 0;
}

static void worker_on(struct world *world, struct worker *worker)
{
    struct hp_st_run_ref refs[HELD_MAX];
    struct pool_offer offer = {.slots = 2, .children_max = 9, .language = "python3.11"};
    offer.runs.items = refs;
    for (uint32_t i = 0; i < worker->held_count; i++) {
        refs[offer.runs.count++] = (struct hp_st_run_ref){.id = worker->held[i].id,
                                                          .attempt = worker->held[i].attempt,
                                                          .epoch = worker->held[i].epoch};
    }
    rig_hello(world->rig, worker->conn, NULL, worker->name);
    pool_register(world->rig, worker->conn, &offer);
    memset(worker->told, 0, sizeof(worker->told));
    memset(worker->failures, 0, sizeof(worker->failures));
    worker->online = true;
    /* What the broker took from it meanwhile is not its own any more. */
    for (uint32_t i = worker->held_count; i-- > 0;) {
        struct hp_attempt *attempt = hp_attempt_find(world->rig->core, worker->held[i].id);
        if (attempt == NULL || attempt->attempt != worker->held[i].attempt) {
            worker->held[i] = worker->held[--worker->held_count];
        }
    }
}

static void worker_off(struct world *world, struct worker *worker)
{
    if (worker->online) {
        (void)work(world, worker);
        pool_disconnect(world->rig, worker->conn);
        worker->online = false;
    }
}

static void end_some(struct world *world, struct worker *worker)
{
    static const enum hp_reason reasons[] = {HP_REASON_NONE, HP_REASON_NONE, HP_REASON_ERROR,
                                             HP_REASON_CHILD_SIGNAL};
    uint64_t count = hp_rand_between(&world->rand, 1, 6);
    while (worker->online && worker->held_count > 0 && count-- > 0) {
        uint32_t at = (uint32_t)hp_rand_uniform(&world->rand, worker->held_count);
        end_held(world, worker, at, reasons[hp_rand_uniform(&world->rand, 4)]);
    }
}

/* ------------------------------------------------ the client */
static void open_one(struct world *world)
{
    struct hp_st_task_options options = pool_options(0);
    if (world->pool_count == POOLS_MAX) {
        return;
    }
    options.processes = (uint32_t)hp_rand_uniform(&world->rand, 6);
    options.orphan_ms = 5000;
    options.durable = hp_rand_chance(&world->rand, 1, 2);
    options.has |= HP_HAS_ST_TASK_OPTIONS_ORPHAN_MS | HP_HAS_ST_TASK_OPTIONS_DURABLE;
    uint64_t id = rig_submitted(world->rig, 1, ++world->number, &options, 1, NULL);
    assert_int_not_equal(id, 0);
    world->pools[world->pool_count++] = id;
}

static void call_some(struct world *world)
{
    if (world->pool_count == 0) {
        return;
    }
    uint32_t pool = (uint32_t)hp_rand_uniform(&world->rand, world->pool_count);
    uint32_t count = (uint32_t)hp_rand_between(&world->rand, 1, 12);
    struct hp_st_task_options options = call_options(world->pools[pool]);
    options.durable = hp_rand_chance(&world->rand, 1, 2);
    options.max_retries = (uint32_t)hp_rand_uniform(&world->rand, 2);
    options.child_losses = (uint32_t)hp_rand_uniform(&world->rand, 2);
    options.retry_base_ms = hp_rand_uniform(&world->rand, 4000);
    options.delay_ms = hp_rand_chance(&world->rand, 1, 5) ? 3000 : 0;
    options.priority = 99 + (uint32_t)hp_rand_uniform(&world->rand, 3);
    options.has |= HP_HAS_ST_TASK_OPTIONS_DURABLE | HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES |
                   HP_HAS_ST_TASK_OPTIONS_CHILD_LOSSES | HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS |
                   HP_HAS_ST_TASK_OPTIONS_DELAY_MS | HP_HAS_ST_TASK_OPTIONS_PRIORITY;
    enum hp_rpc_error_code code = 0;
    uint64_t first =
        rig_submitted(world->rig, 1, ++world->number, &options, count, &code);
    if (first == 0) {
        assert_int_equal(code, HP_RPC_ERROR_ILLEGAL_STATE);
        return;
    }
    assert_true(world->call_count + count <= CALLS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        world->calls[world->call_count].id = first + i;
        world->calls[world->call_count].in_memory = !options.durable;
        world->calls[world->call_count++].pool = pool;
    }
}

static void end_pool(struct world *world)
{
    if (world->pool_count == 0) {
        return;
    }
    uint64_t pool = world->pools[hp_rand_uniform(&world->rand, world->pool_count)];
    uint64_t how = hp_rand_uniform(&world->rand, 3);
    if (how == 2) {
        rig_cancel(world->rig, 1, pool, 1, HP_CANCEL_MODE_FORCE);
    } else {
        (void)pool_end(world->rig, 1, pool,
                       how == 0 ? HP_POOL_END_CLOSE : HP_POOL_END_TERMINATE);
    }
}

static void cancel_some(struct world *world)
{
    if (world->call_count > 0) {
        uint64_t first = world->calls[hp_rand_uniform(&world->rand, world->call_count)].id;
        rig_cancel(world->rig, 1, first, (uint32_t)hp_rand_between(&world->rand, 1, 9),
                   hp_rand_chance(&world->rand, 1, 2) ? HP_CANCEL_MODE_FORCE
                                                      : HP_CANCEL_MODE_QUEUED);
    }
}

static void client_on(struct world *world)
{
    rig_hello(world->rig, 1, client_session, NULL);
    world->number =
        hp_session_find(world->rig->core, hp_bin_make(client_session, 16))->last_number;
}

static void crash(struct world *world)
{
    for (uint32_t i = 0; i < WORKERS; i++) {
        if (world->workers[i].online) {
            (void)work(world, &world->workers[i]);
        }
        world->workers[i].online = false;
    }
    rig_crash(world->rig);
    client_on(world);
    for (uint32_t i = 0; i < WORKERS; i++) {
        if (hp_rand_chance(&world->rand, 2, 3)) {
            worker_on(world, &world->workers[i]);
        }
    }
}

/* ------------------------------------------------ time */
static void beat(struct world *world)
{
    for (uint32_t i = 0; i < WORKERS; i++) {
        struct worker *worker = &world->workers[i];
        struct hp_st_run_ref refs[HELD_MAX];
        struct hp_msg_worker_heartbeat msg = {.has = HP_HAS_WORKER_HEARTBEAT_RUNS,
                                              .runs = {.items = refs}};
        if (!worker->online) {
            continue;
        }
        (void)work(world, worker);
        for (uint32_t k = 0; k < worker->held_count; k++) {
            refs[msg.runs.count++] = (struct hp_st_run_ref){.id = worker->held[k].id,
                                                            .attempt = worker->held[k].attempt,
                                                            .epoch = worker->held[k].epoch};
        }
        rig_begin(world->rig);
        (void)RIG_CALL(world->rig, worker->conn, WORKER_HEARTBEAT, worker_heartbeat, &msg);
        rig_end(world->rig);
        rig_settle(world->rig);
    }
}

static void step(struct world *world)
{
    struct worker *worker = &world->workers[hp_rand_uniform(&world->rand, WORKERS)];
    uint64_t kind = hp_rand_uniform(&world->rand, 100);
    if (kind < 6) {
        open_one(world);
    } else if (kind < 26) {
        call_some(world);
    } else if (kind < 60) {
        end_some(world, worker);
    } else if (kind < 64) {
        end_pool(world);
    } else if (kind < 72) {
        worker->online ? worker_off(world, worker) : worker_on(world, worker);
    } else if (kind < 74) {
        pool_disconnect(world->rig, 1);
        rig_pass(world->rig, hp_rand_between(&world->rand, 1, 900));
        client_on(world);
    } else if (kind < 77) {
        crash(world);
    } else if (kind < 80) {
        cancel_some(world);
    } else {
        rig_pass(world->rig, hp_rand_between(&world->rand, 1, 900));
    }
    beat(world);
}

/* ------------------------------------------------ the end */
static bool all_over(struct world *world)
{
    bool busy = false;
    for (uint32_t i = 0; i < WORKERS; i++) {
        struct worker *worker = &world->workers[i];
        busy = work(world, worker) || busy;
        while (worker->held_count > 0) {
            busy = true;
            end_held(world, worker, worker->held_count - 1, HP_REASON_NONE);
        }
    }
    return !busy && hp_idmap_count(&world->rig->core->pools) == 0;
}

static void finish(struct world *world)
{
    world->healthy = true;
    for (uint32_t i = 0; i < WORKERS; i++) {
        worker_off(world, &world->workers[i]);
        worker_on(world, &world->workers[i]);
    }
    for (uint32_t i = 0; i < world->pool_count; i++) {
        (void)pool_end(world->rig, 1, world->pools[i],
                       i % 2 == 0 ? HP_POOL_END_CLOSE : HP_POOL_END_TERMINATE);
    }
    uint32_t rounds = 0;
    while (!all_over(world)) {
        rig_pass(world->rig, 500);
        beat(world);
        if (rounds++ == ROUNDS_MAX) {
            struct hp_buf text;
            hp_buf_init(&text, 1U << 20);
            hp_core_dump(world->rig->core, &text);
            print_error("%.*s", (int)text.size, (const char *)text.data);
            fail_msg("%s", "the pools do not end");
        }
    }
    for (uint32_t i = 0; i < world->call_count; i++) {
        enum hp_task_state state = rig_state(world->rig, 1, world->calls[i].id);
        if (state < HP_TASK_STATE_DONE ||
            (state == HP_TASK_STATE_UNKNOWN && !world->calls[i].in_memory)) {
            fail_msg("call %llu of a pool that has ended: state %d",
                     (unsigned long long)world->calls[i].id, (int)state);
        }
    }
    for (uint32_t i = 0; i < world->pool_count; i++) {
        enum hp_task_state state = rig_state(world->rig, 1, world->pools[i]);
        assert_true(state >= HP_TASK_STATE_DONE && state <= HP_TASK_STATE_CANCELLED);
    }
    HP_LIST_FOR_EACH (link, &world->rig->core->node_list) {
        struct hp_node *node = HP_CONTAINER_OF(link, struct hp_node, link);
        assert_int_equal(node->pool_granted, 0);
        assert_int_equal(hp_idmap_count(&node->pools), 0);
    }
}

static void pools_end_with_all_their_calls(void **state)
{
    (void)state;
    static const char *const names[WORKERS] = {"a", "b", "c"};
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct world *world = hp_calloc(1, sizeof(*world));
        struct hp_core_config config;
        hp_core_config_init(&config);
        hp_rand_init(&world->rand, seed);
        config.lease_ms = 4000;
        config.heartbeat_ms = 1000;
        config.window_runs = (uint32_t)hp_rand_between(&world->rand, 4, 40);
        config.window_timers = (uint32_t)hp_rand_between(&world->rand, 2, 40);
        config.window_bytes = hp_rand_uniform(&world->rand, 4000);
        world->rig = rig_new(&config);
        client_on(world);
        for (uint32_t i = 0; i < WORKERS; i++) {
            world->workers[i] = (struct worker){.conn = 2 + i, .name = names[i]};
            worker_on(world, &world->workers[i]);
        }
        for (int i = 0; i < STEPS; i++) {
            step(world);
        }
        finish(world);
        rig_free(world->rig);
        hp_free(world);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(pools_end_with_all_their_calls),
};

HP_TEST_MAIN(tests)
