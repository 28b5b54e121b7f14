/* SPDX-License-Identifier: BSD-2-Clause */
/* Dispatch: eager and held, order and ageing, keys, windows of lanes, a million tasks. */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"

enum { RUNS = 512 };

static struct hp_st_assign_run runs[RUNS];

/* Tasks assigned by now, over all runs. */
static uint32_t assigned(struct rig *rig, uint64_t conn, uint64_t *ret_first)
{
    uint32_t tasks = 0;
    uint32_t count = rig_assigned(rig, conn, runs, RUNS);
    for (uint32_t i = 0; i < count; i++) {
        tasks += runs[i].count;
    }
    if (ret_first != NULL) {
        *ret_first = count > 0 ? runs[0].first : 0;
    }
    return tasks;
}

static void only_functions_go_before_their_commit(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_function();
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 4);
    assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 1, NULL), 0); /* reserves ids */
    assert_int_equal(assigned(rig, 2, NULL), 1);
    rig_begin(rig);
    (void)rig_submit(rig, 1, 0, &options, 1);
    rig_end(rig);
    assert_int_equal(assigned(rig, 2, NULL), 1); /* eager */
    rig_settle(rig);
    options = rig_command();
    rig_begin(rig);
    (void)rig_submit(rig, 1, 0, &options, 1);
    rig_end(rig);
    assert_int_equal(assigned(rig, 2, NULL), 0);
    rig_settle(rig);
    assert_int_equal(assigned(rig, 2, NULL), 1);
    options = rig_function();
    options.has |= HP_HAS_ST_TASK_OPTIONS_AT_MOST_ONCE;
    options.at_most_once = true;
    rig_begin(rig);
    (void)rig_submit(rig, 1, 0, &options, 1);
    rig_end(rig);
    assert_int_equal(assigned(rig, 2, NULL), 0);
    rig_settle(rig);
    assert_int_equal(assigned(rig, 2, NULL), 1);
    rig_free(rig);
}

/* The reply to its registration gives a worker its lease, and waits for a commit. */
static void nothing_goes_to_a_worker_before_its_lease(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_function();
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL); /* reserves ids */
    assert_int_equal(assigned(rig, 2, NULL), 1);
    rig_done(rig, 2, id, 1, 1, HP_REASON_NONE);
    rig_begin(rig);
    rig_disconnect(rig, 2);
    rig_end(rig);
    rig_hello(rig, 3, NULL, "v");
    rig_begin(rig);
    rig_ask_register(rig, 3, 1, (struct hp_list_run_ref){0});
    (void)rig_submit(rig, 1, 0, &options, 1);
    rig_end(rig);
    assert_int_equal(assigned(rig, 3, NULL), 0);
    rig_settle(rig);
    struct hp_rpc rpc;
    assert_true(rig_next(rig, 3, &rpc));
    assert_int_equal(rpc.type, HP_RPC_RESPONSE);
    assert_int_equal(assigned(rig, 3, NULL), 1);
    rig_free(rig);
}

static void priority_ages(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_PRIORITY;
    options.priority = 100;
    rig_hello(rig, 1, NULL, NULL);
    uint64_t old = rig_submitted(rig, 1, 0, &options, 1, NULL);
    rig_pass(rig, 3 * rig->config.age_step_ms);
    options.priority = 102; /* two levels above, three steps younger */
    uint64_t middle = rig_submitted(rig, 1, 0, &options, 1, NULL);
    options.priority = 110;
    uint64_t high = rig_submitted(rig, 1, 0, &options, 1, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t order[3] = {high, old, middle};
    for (int i = 0; i < 3; i++) {
        uint64_t id = 0;
        assert_int_equal(assigned(rig, 2, &id), 1);
        assert_int_equal(id, order[i]);
        rig_done(rig, 2, id, 1, 1, HP_REASON_NONE);
    }
    rig_free(rig);
}

static void a_concurrency_key_limits(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_CKEY | HP_HAS_ST_TASK_OPTIONS_CKEY_MAX |
                   HP_HAS_ST_TASK_OPTIONS_PRIORITY;
    options.ckey = HP_STR("key");
    options.ckey_max = 2;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 8);
    for (uint32_t i = 0; i < 4; i++) { /* two lanes with the same key */
        options.priority = 100 + i % 2;
        assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 2, NULL), 0);
    }
    uint32_t done = 0;
    while (done < 8) {
        uint32_t count = rig_assigned(rig, 2, runs, RUNS);
        assert_true(count > 0 && count <= 2);
        for (uint32_t i = 0; i < count; i++) {
            for (uint32_t k = 0; k < runs[i].count; k++, done++) {
                rig_done(rig, 2, runs[i].first + k, 1, 1, HP_REASON_NONE);
            }
        }
    }
    rig_free(rig);
}

/* Runs one task after the other; the ids must come in order. */
static void run_in_order(struct rig *rig, uint64_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t id = 0;
        assert_int_equal(assigned(rig, 2, &id), 1);
        assert_int_equal(id, first + i);
        rig_done(rig, 2, id, 1, rig->core->epoch, HP_REASON_NONE);
    }
}

static void a_lane_larger_than_its_window(void **state)
{
    (void)state;
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.window_runs = 4;
    config.window_bytes = 500;
    struct rig *rig = rig_new(&config);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    uint64_t first = rig_submitted(rig, 1, 0, &options, 1, NULL);
    for (int i = 1; i < 100; i++) {
        assert_int_equal(rig_submitted(rig, 1, 0, &options, 1, NULL), first + (uint64_t)i);
    }
    rig_cancel(rig, 1, first + 90, 5, HP_CANCEL_MODE_QUEUED); /* not in memory */
    rig_cancel(rig, 1, first + 1, 2, HP_CANCEL_MODE_QUEUED);  /* in memory */
    rig_worker(rig, 2, "w", 1);
    run_in_order(rig, first, 1);
    run_in_order(rig, first + 3, 40);
    rig_crash(rig);
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1); /* the attempt it does not name is released: it runs again */
    rig_pass(rig, 10);
    uint64_t id = 0;
    assert_int_equal(assigned(rig, 2, &id), 1);
    rig_done(rig, 2, id, id == first + 43 ? 2 : 1, rig->core->epoch, HP_REASON_NONE);
    while (assigned(rig, 2, &id) == 1) {
        uint32_t attempt = runs[0].attempt;
        rig_done(rig, 2, id, attempt, rig->core->epoch, HP_REASON_NONE);
    }
    uint32_t ended = 0;
    for (uint32_t i = 0; i < 100; i++) {
        enum hp_task_state now = rig_state(rig, 1, first + i);
        bool cancelled = (i >= 90 && i < 95) || i == 1 || i == 2;
        assert_int_equal(now, cancelled ? HP_TASK_STATE_CANCELLED : HP_TASK_STATE_DONE);
        ended++;
    }
    assert_int_equal(ended, 100);
    rig_free(rig);
}

static void a_million_tasks_wait_in_little_memory(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    struct hp_rpc rpc;
    rig_hello(rig, 1, NULL, NULL);
    for (int turn = 0; turn < 1000; turn++) {
        rig_begin(rig);
        for (int i = 0; i < 10; i++) {
            (void)rig_submit(rig, 1, 0, &options, 100);
        }
        hp_core_end(rig->core); /* without the check: this is about size */
        struct hp_error error;
        assert_ok(hp_store_apply(rig->store, &rig->batch, 1, &error));
        rig->durable = rig->last_number = rig->batch->number;
        hp_batch_free(rig->batch);
        rig_effects(rig);
        rig_release(rig);
        struct hp_event event = {.kind = HP_EVENT_COMMITTED, .number = rig->durable};
        rig_begin(rig);
        hp_core_step(rig->core, &event);
        rig_end(rig);
        while (rig_next(rig, 1, &rpc)) {
        }
    }
    uint64_t id = 0;
    struct hp_idmap_iter iter = {0};
    assert_true(hp_idmap_next(&rig->core->lanes, &iter, NULL, &id));
    const struct hp_lane *lane = (const struct hp_lane *)(uintptr_t)id;
    assert_int_equal(lane->ready_count, 1000000);
    assert_true(lane->run_count <= rig->config.window_runs);
    assert_true(rig->core->payload_bytes <= rig->config.window_bytes);
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(only_functions_go_before_their_commit),
    cmocka_unit_test(nothing_goes_to_a_worker_before_its_lease),
    cmocka_unit_test(priority_ages),
    cmocka_unit_test(a_concurrency_key_limits),
    cmocka_unit_test(a_lane_larger_than_its_window),
    cmocka_unit_test(a_million_tasks_wait_in_little_memory),
};

HP_TEST_MAIN(tests)
