/* SPDX-License-Identifier: BSD-2-Clause */
/* What waits though a worker is there, and what it waits for: queues, slots, memory, the disk. */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"

static struct hp_st_assign_run runs[256];

static uint32_t assigned(struct rig *rig, uint64_t conn)
{
    uint32_t count = rig_assigned(rig, conn, runs, 256);
    uint32_t tasks = 0;
    for (uint32_t i = 0; i < count; i++) {
        tasks += runs[i].count;
    }
    return tasks;
}

static void pause_queue(struct rig *rig, const char *queue, bool on)
{
    struct hp_msg_queue_pause msg = {.name = hp_str_of(queue), .paused = on};
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, QUEUE_PAUSE, queue_pause, &msg);
    rig_end(rig);
    rig_settle(rig);
}

static void a_paused_queue_gives_nothing(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_QUEUE;
    options.queue = HP_STR("blue");
    rig_hello(rig, 1, NULL, NULL);
    pause_queue(rig, "blue", true);
    assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 2, NULL), 0);
    rig_worker(rig, 2, "w", 4);
    assert_int_equal(assigned(rig, 2), 0);
    options.queue = HP_STR("red");
    assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 1, NULL), 0);
    assert_int_equal(assigned(rig, 2), 1);
    rig_crash(rig); /* it stays so */
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 4);
    rig_pass(rig, 10);
    assert_int_equal(assigned(rig, 2), 1); /* the red one, given back */
    pause_queue(rig, "blue", false);
    assert_int_equal(assigned(rig, 2), 2);
    rig_free(rig);
}

static void a_big_task_is_not_passed_by_for_ever(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 4);
    uint64_t first = rig_submitted(rig, 1, 0, &options, 4, NULL);
    assert_int_equal(assigned(rig, 2), 4);
    options.has |= HP_HAS_ST_TASK_OPTIONS_CPUS;
    options.cpus = 4;
    uint64_t big = rig_submitted(rig, 1, 0, &options, 1, NULL);
    options.cpus = 1;
    rig_pass(rig, 1);
    assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 20, NULL), 0);
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(assigned(rig, 2), 0); /* younger ones wait behind it */
        rig_done(rig, 2, first + i, 1, 1, HP_REASON_NONE);
    }
    assert_int_equal(assigned(rig, 2), 1);
    assert_int_equal(runs[0].first, big);
    rig_done(rig, 2, big, 1, 1, HP_REASON_NONE);
    assert_int_equal(assigned(rig, 2), 4);
    rig_free(rig);
}

static void memory_is_given_once(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_MEM_BYTES;
    options.mem_bytes = 400U << 20; /* of 1 GiB */
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 8);
    uint64_t first = rig_submitted(rig, 1, 0, &options, 4, NULL);
    assert_int_equal(assigned(rig, 2), 2);
    rig_done(rig, 2, first, 1, 1, HP_REASON_NONE);
    assert_int_equal(assigned(rig, 2), 1);
    rig_cancel(rig, 1, first + 1, 1, HP_CANCEL_MODE_FORCE);
    rig_done(rig, 2, first + 1, 1, 1, HP_REASON_SIGNAL);
    assert_int_equal(assigned(rig, 2), 1);
    rig_free(rig);
}

/* With the disk standing still, no more is promised than the backlog holds; then all goes on. */
static void a_slow_disk_slows_dispatch_and_submits(void **state)
{
    (void)state;
    enum { TASKS = 200 };
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.backlog_ops_max = 40;
    struct rig *rig = rig_new(&config);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", TASKS);
    for (int i = 0; i < TASKS; i++) {
        rig_begin(rig); /* no commit in between */
        (void)rig_submit(rig, 1, 0, &options, 1);
        rig_end(rig);
        if (!hp_core_wants_input(rig->core, 1)) {
            break;
        }
        assert_true(i < TASKS - 1);
    }
    assert_true(hp_core_wants_input(rig->core, 2)); /* what ends frees what the backlog holds */
    assert_true(hp_idmap_count(&rig->core->attempts) <= 41);
    assert_int_equal(assigned(rig, 2), 0);
    rig_settle(rig);
    assert_true(hp_core_wants_input(rig->core, 1));
    uint64_t submitted = rig->core->figures.submitted;
    assert_true(submitted > 5 && submitted < TASKS);
    assert_int_equal(assigned(rig, 2), submitted); /* woken by the commits alone */
    rig_free(rig);
}

/* Many wait, the backlog is soon full: each commit lets some more go, without another cause. */
static void each_commit_wakes_the_dispatch(void **state)
{
    (void)state;
    enum { TASKS = 200 };
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.backlog_ops_max = 20;
    struct rig *rig = rig_new(&config);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    for (int i = 0; i < TASKS; i++) {
        assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 1, NULL), 0);
    }
    rig_worker(rig, 2, "w", TASKS);
    assert_int_equal(assigned(rig, 2), TASKS);
    rig_free(rig);
}

static void what_has_started_does_not_expire(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_EXPIRE_MS | HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES |
                   HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS | HP_HAS_ST_TASK_OPTIONS_RETRY_CAP_MS;
    options.expire_ms = 1000;
    options.max_retries = 5;
    options.retry_base_ms = options.retry_cap_ms = 5000;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    rig_done(rig, 2, id, 1, 1, HP_REASON_EXIT); /* it waits for its second try */
    rig_pass(rig, 1500);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_DELAYED);
    rig_begin(rig);
    rig_disconnect(rig, 2);
    rig_end(rig);
    rig_pass(rig, 5000);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_READY); /* nobody is there for it */
    rig_pass(rig, 5000);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_READY);
    rig_free(rig);
}

/* A cancel whose message was lost comes with the heartbeats until the end comes. */
static void heartbeats_repeat_a_cancel(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    struct hp_msg_worker_heartbeat_reply reply;
    struct hp_error error;
    struct hp_rpc rpc;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 2);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 2, NULL);
    rig_cancel(rig, 1, id, 1, HP_CANCEL_MODE_FORCE);
    struct hp_st_run_ref held[2] = {{.id = id, .attempt = 1, .epoch = 1},
                                    {.id = id + 1, .attempt = 1, .epoch = 1}};
    struct hp_msg_worker_heartbeat msg = {.has = HP_HAS_WORKER_HEARTBEAT_RUNS,
                                          .runs = {.items = held, .count = 2}};
    for (int i = 0; i < 3; i++) {
        hp_buf_clear(&rig->out[1]);
        rig_begin(rig);
        (void)RIG_CALL(rig, 2, WORKER_HEARTBEAT, worker_heartbeat, &msg);
        rig_end(rig);
        assert_true(rig_next(rig, 2, &rpc));
        assert_ok(hp_msg_worker_heartbeat_reply_decode(rpc.result, &rig->arena, &reply, &error));
        assert_int_equal(reply.cancel.count, i < 2 ? 1 : 0);
        if (i < 2) {
            assert_int_equal(reply.cancel.items[0].id, id);
            assert_int_equal(reply.cancel.items[0].attempt, 1);
            assert_int_equal(reply.cancel.items[0].mode, HP_CANCEL_MODE_FORCE);
        }
        if (i == 1) {
            rig_done(rig, 2, id, 1, 1, HP_REASON_SIGNAL);
        }
    }
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_CANCELLED);
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(what_has_started_does_not_expire),
    cmocka_unit_test(heartbeats_repeat_a_cancel),
    cmocka_unit_test(a_paused_queue_gives_nothing),
    cmocka_unit_test(a_big_task_is_not_passed_by_for_ever),
    cmocka_unit_test(memory_is_given_once),
    cmocka_unit_test(a_slow_disk_slows_dispatch_and_submits),
    cmocka_unit_test(each_commit_wakes_the_dispatch),
};

HP_TEST_MAIN(tests)
