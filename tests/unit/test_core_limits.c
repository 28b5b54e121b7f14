/* SPDX-License-Identifier: BSD-2-Clause */
/* What must not grow, stop or break: long loads, damaged rows, peers that use what limits allow. */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"

static struct hp_st_assign_run runs[64];

/* The load that was asked for last, taken off the store's work. */
static struct hp_load *take_load(struct rig *rig, enum hp_load_kind kind)
{
    assert_true(rig->job_count > 0);
    struct hp_load *load = rig->jobs[rig->job_count - 1].load;
    assert_non_null(load);
    assert_int_equal(load->kind, kind);
    rig->job_count--;
    return load;
}

static void answer(struct rig *rig, struct hp_load *load, enum hp_err err)
{
    struct hp_loaded *loaded = hp_loaded_new(load);
    loaded->err = err;
    loaded->next_segment = load->segment;
    struct hp_event event = {.kind = HP_EVENT_LOADED, .loaded = loaded};
    rig_begin(rig);
    hp_core_step(rig->core, &event);
    rig_end(rig);
    hp_loaded_free(loaded);
}

static void a_backup_under_way_costs_nothing(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES;
    options.max_retries = 3;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    struct hp_msg_broker_backup backup = {.path = HP_STR("/backup")};
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, BROKER_BACKUP, broker_backup, &backup);
    rig_end(rig);
    struct hp_load *load = take_load(rig, HP_LOAD_BACKUP);
    for (int i = 0; i < 10; i++) {
        uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
        assert_int_equal(rig_assigned(rig, 2, runs, 1), 1);
        rig_done(rig, 2, id, 1, 1, i < 9 ? HP_REASON_NONE : HP_REASON_EXIT);
    }
    assert_int_equal(rig->core->recent_count, 0);
    /* The last one waits for its retry, and moved since the backup began. */
    uint64_t id = rig->core->next_id - 1;
    struct hp_msg_task_cancel msg = {.has = HP_HAS_TASK_CANCEL_IDS,
                                     .ids = {.items = &id, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, TASK_CANCEL, task_cancel, &msg);
    rig_end(rig);
    for (int i = 0; i < 20; i++) {
        (void)rig_job(rig);
    }
    assert_int_equal(rig->job_count, 0);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_CANCELLED);
    answer(rig, load, HP_OK);
    rig_free(rig);
}

static void assignments_fit_in_frames(void **state)
{
    (void)state;
    enum { TASKS = 40 };
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    struct hp_str argv[4096];
    for (int i = 0; i < 4096; i++) {
        argv[i] = HP_STR("x");
    }
    options.argv.items = argv;
    options.argv.count = 4096;
    rig_hello(rig, 1, NULL, NULL);
    for (int i = 0; i < TASKS; i++) {
        assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 1, NULL), 0);
    }
    rig_worker(rig, 2, "w", TASKS);
    assert_int_equal(rig_assigned(rig, 2, runs, 64), TASKS); /* every frame is legal */
    rig_free(rig);
}

static void a_hello_tells_only_what_is_durable(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, "0123456789abcdef", NULL);
    rig_begin(rig);
    (void)rig_submit(rig, 1, 1, &options, 1);
    rig_end(rig);
    rig_begin(rig);
    rig_connect(rig, 2);
    struct hp_msg_hello msg = {.has = HP_HAS_HELLO_SESSION,
                               .client = HP_STR("test"),
                               .version = 1,
                               .session = hp_bin_make("0123456789abcdef", 16)};
    (void)RIG_CALL(rig, 2, HELLO, hello, &msg);
    rig_end(rig);
    assert_int_equal(rig->out[1].size, 0); /* it would say: number 1 was applied */
    rig_settle(rig);
    assert_int_not_equal(rig->out[1].size, 0);
    rig_free(rig);
}

static void blobs_of_one_turn_are_bounded(void **state)
{
    (void)state;
    static uint8_t chunk[262144];
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    struct hp_msg_blob_put put = {.blob = 1, .data = hp_bin_make(chunk, sizeof(chunk))};
    int count = 0;
    rig_begin(rig);
    for (; count < 1000 && hp_core_wants_input(rig->core, 2); count++) {
        (void)RIG_CALL(rig, 2, BLOB_PUT, blob_put, &put);
    }
    assert_true(count < 100);
    rig_end(rig);
    rig_free(rig);
}

static void chunks_asked_for_are_bounded(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, NULL, NULL);
    struct hp_msg_blob_get get = {.blob = 1};
    int count = 0;
    for (; count < 1000 && hp_core_wants_input(rig->core, 1); count++) {
        rig_begin(rig);
        (void)RIG_CALL(rig, 1, BLOB_GET, blob_get, &get);
        rig_end(rig);
    }
    assert_true(count < 100);
    struct hp_event event = {.kind = HP_EVENT_BLOB_GOT, .conn = 1};
    rig_begin(rig);
    hp_core_step(rig->core, &event);
    rig_end(rig);
    assert_true(hp_core_wants_input(rig->core, 1));
    rig_free(rig);
}

static void the_latest_submit_rules_a_concurrency_key(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_CKEY | HP_HAS_ST_TASK_OPTIONS_CKEY_MAX;
    options.ckey = HP_STR("key");
    rig_hello(rig, 1, NULL, NULL);
    uint32_t most[] = {1, 5, 1};
    for (int i = 0; i < 3; i++) {
        options.ckey_max = most[i];
        assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 4, NULL), 0);
    }
    rig_worker(rig, 2, "w", 10);
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 1);
    assert_int_equal(runs[0].count, 1);
    rig_free(rig);
}

static void classes_that_went_are_forgotten_by_workers(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_MEM_BYTES;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    for (uint32_t i = 1; i <= 1200; i++) {
        options.mem_bytes = i;
        uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
        assert_int_equal(rig_assigned(rig, 2, runs, 1), 1);
        rig_done(rig, 2, id, 1, 1, HP_REASON_NONE);
    }
    struct hp_node *node = hp_strmap_find_ptr(&rig->core->nodes_by_name, HP_STR("w"));
    assert_true(hp_idmap_count(&node->fits) <= hp_strmap_count(&rig->core->classes));
    rig_free(rig);
}

static void a_read_that_fails_ends_no_task(void **state)
{
    (void)state;
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.window_bytes = 0; /* all payloads are in the store */
    struct rig *rig = rig_new(&config);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    rig_begin(rig);
    (void)rig_submit(rig, 1, 0, &options, 1);
    rig_end(rig);
    struct hp_load *load = take_load(rig, HP_LOAD_GROUPS);
    rig_settle(rig);
    answer(rig, load, HP_ERR_CORRUPT);
    assert_int_equal(rig->core->figures.failed, 0);
    assert_int_equal(rig->job_count, 0); /* nor is it asked again and again */
    rig_free(rig);
}

static void a_damaged_lane_is_not_read_again_and_again(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 1, NULL), 0);
    rig_crash(rig);
    rig_begin(rig);
    rig_end(rig);
    for (uint32_t i = 0; i + 1 < rig->job_count;) {
        (void)rig_job(rig);
    }
    struct hp_load *load = take_load(rig, HP_LOAD_LANE);
    answer(rig, load, HP_ERR_CORRUPT);
    assert_int_equal(rig->job_count, 0);
    rig_free(rig);
}

static void heartbeats_are_answered_however_much_is_cancelled(void **state)
{
    (void)state;
    enum { TASKS = 8000 };
    static struct hp_str functions[] = {HP_STR_INIT("f")};
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_function();
    rig_hello(rig, 1, NULL, NULL);
    rig_hello(rig, 2, NULL, "w");
    uint64_t id = rig_submitted(rig, 1, 0, &options, TASKS, NULL);
    struct hp_list *link = hp_list_first(&rig->core->class_list);
    HP_CONTAINER_OF(link, struct hp_class, link)->run_us = 1; /* so that it is given many */
    struct hp_msg_worker_register msg = {.has = HP_HAS_WORKER_REGISTER_FUNCTIONS |
                                                HP_HAS_WORKER_REGISTER_PREFETCH_MAX,
                                         .host = HP_STR("host"),
                                         .slots = 4096,
                                         .prefetch_max = 4096,
                                         .functions = {.items = functions, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_REGISTER, worker_register, &msg);
    rig_end(rig);
    rig_settle(rig);
    struct hp_node *node = hp_strmap_find_ptr(&rig->core->nodes_by_name, HP_STR("w"));
    assert_int_equal(node->attempt_count, TASKS);
    rig_cancel(rig, 1, id, TASKS, HP_CANCEL_MODE_SOFT);
    rig->now_ms += 3 * rig->config.heartbeat_ms; /* and none of them has arrived */
    hp_buf_clear(&rig->out[1]);
    struct hp_msg_worker_heartbeat beat = {0};
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_HEARTBEAT, worker_heartbeat, &beat);
    rig_end(rig);
    struct hp_rpc rpc;
    assert_true(rig_next(rig, 2, &rpc)); /* a legal frame */
    assert_int_equal(rpc.type, HP_RPC_RESPONSE);
    rig_free(rig);
}

static void the_grace_of_a_stop_outlives_what_is_reserved_in_it(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, NULL, NULL);
    struct hp_event event = {.kind = HP_EVENT_DRAIN};
    event.drain.grace_ms = 7000;
    rig_begin(rig);
    hp_core_step(rig->core, &event);
    rig_end(rig);
    struct hp_msg_blob_open open = {.size = 1};
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, BLOB_OPEN, blob_open, &open);
    rig_end(rig);
    rig_settle(rig);
    rig_crash(rig);
    assert_int_equal(rig->core->recover_grace_ms, 7000);
    rig_free(rig);
}

static void a_replacement_that_is_refused_leaves_the_old_task(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_UKEY | HP_HAS_ST_TASK_OPTIONS_ON_CONFLICT;
    options.ukey = HP_STR("key");
    options.on_conflict = HP_ON_CONFLICT_REPLACE;
    rig_hello(rig, 1, NULL, NULL);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    rig_begin(rig);
    (void)rig_submit(rig, 1, 0, &options, 1);
    rig_end(rig); /* the store is asked what the old one is */
    struct hp_event event = {.kind = HP_EVENT_PRESSURE};
    event.pressure.disk_low = true;
    rig_begin(rig);
    hp_core_step(rig->core, &event);
    rig_end(rig);
    rig_settle(rig);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_READY);
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_backup_under_way_costs_nothing),
    cmocka_unit_test(assignments_fit_in_frames),
    cmocka_unit_test(a_hello_tells_only_what_is_durable),
    cmocka_unit_test(blobs_of_one_turn_are_bounded),
    cmocka_unit_test(chunks_asked_for_are_bounded),
    cmocka_unit_test(the_latest_submit_rules_a_concurrency_key),
    cmocka_unit_test(classes_that_went_are_forgotten_by_workers),
    cmocka_unit_test(a_read_that_fails_ends_no_task),
    cmocka_unit_test(a_damaged_lane_is_not_read_again_and_again),
    cmocka_unit_test(heartbeats_are_answered_however_much_is_cancelled),
    cmocka_unit_test(a_replacement_that_is_refused_leaves_the_old_task),
    cmocka_unit_test(the_grace_of_a_stop_outlives_what_is_reserved_in_it),
};

HP_TEST_MAIN(tests)
