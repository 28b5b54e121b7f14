/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is done later, in parts, or again: tasks that come back, groups that are cancelled in the
 * middle, looks that must be repeated, assignments and turns with a bound.
 */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"
#include "tests/unit/core_ask.h"
#include "tests/unit/core_pool_fixture.h"

static struct hp_st_assign_run runs[256];

static uint64_t submitted(struct rig *rig, const struct hp_st_task_options *options, uint32_t count)
{
    uint64_t id = rig_submitted(rig, 1, 0, options, count, NULL);
    assert_int_not_equal(id, 0);
    return id;
}

/* ------------------------------------------------ what comes back */
/* The first loss costs no time, the next ones do: a task that takes its workers down must not go
 * through all of them at once. */
static void losses_after_the_first_wait(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS;
    options.retry_base_ms = 1000;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = submitted(rig, &options, 1);
    assert_int_equal(rig_assigned(rig, 2, runs, 1), 1);
    rig_done(rig, 2, id, 1, 1, HP_REASON_NODE_LOST);
    rig_pass(rig, 1);
    assert_int_equal(rig_assigned(rig, 2, runs, 1), 1);
    assert_int_equal(runs[0].attempt, 2);
    rig_done(rig, 2, id, 2, 1, HP_REASON_NODE_LOST);
    rig_pass(rig, 499);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_DELAYED);
    assert_int_equal(rig_assigned(rig, 2, runs, 1), 0);
    rig_pass(rig, 501);
    assert_int_equal(rig_assigned(rig, 2, runs, 1), 1);
    assert_int_equal(runs[0].attempt, 3);
    rig_free(rig);
}

/* What came back keeps its age among the other queues: else new tasks would keep it waiting. */
static void what_comes_back_goes_before_younger_ones(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_QUEUE | HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES |
                   HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS;
    options.max_retries = 1;
    options.retry_base_ms = 2;
    options.queue = HP_STR("old");
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t old = submitted(rig, &options, 1);
    rig_pass(rig, 100);
    options.queue = HP_STR("young");
    uint64_t young = submitted(rig, &options, 2);
    assert_int_equal(rig_assigned(rig, 2, runs, 1), 1);
    rig_pass(rig, 100);
    rig_done(rig, 2, old, 1, 1, HP_REASON_EXIT);
    rig_pass(rig, 100);
    assert_int_equal(rig_assigned(rig, 2, runs, 1), 1); /* one of them, while it was away */
    assert_int_equal(runs[0].first, young);
    rig_done(rig, 2, young, 1, 1, HP_REASON_NONE);
    assert_int_equal(rig_assigned(rig, 2, runs, 1), 1);
    assert_int_equal(runs[0].first, old);
    rig_free(rig);
}

/* The deadline counts from the submit, however often the task has come back since. */
static void the_deadline_is_that_of_the_submit(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_DEADLINE_MS | HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES |
                   HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS | HP_HAS_ST_TASK_OPTIONS_RETRY_CAP_MS;
    options.deadline_ms = 5000;
    options.max_retries = 10;
    options.retry_base_ms = options.retry_cap_ms = 2000;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = submitted(rig, &options, 1);
    rig_done(rig, 2, id, 1, 1, HP_REASON_EXIT);
    rig_pass(rig, 2001);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_LEASED);
    rig_pass(rig, 2500);
    rig_done(rig, 2, id, 2, 1, HP_REASON_EXIT); /* again after a second at least: too late */
    struct hp_st_task_status status = rig_get(rig, 1, id);
    assert_int_equal(status.state, HP_TASK_STATE_FAILED);
    assert_int_equal(status.reason, HP_REASON_DEADLINE);
    rig_free(rig);
}

/* What has begun does not expire, also where only memory knows of it, and also while it is away. */
static void what_comes_back_does_not_expire(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_DURABLE | HP_HAS_ST_TASK_OPTIONS_EXPIRE_MS |
                   HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES | HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS;
    options.durable = false;
    options.expire_ms = 1000;
    options.max_retries = 1;
    options.retry_base_ms = 5000;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = submitted(rig, &options, 1);
    rig_done(rig, 2, id, 1, 1, HP_REASON_EXIT);
    rig_pass(rig, 1001);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_DELAYED);
    rig_pass(rig, 4000);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_LEASED);
    rig_free(rig);
}

/* ------------------------------------------------ parts of delayed groups */
/* A cancel in the middle leaves two parts, of which both come when it is time. */
static void the_rest_of_a_delayed_group_comes(void **state)
{
    (void)state;
    for (int restart = 0; restart < 2; restart++) {
        struct rig *rig = rig_new(NULL);
        struct hp_st_task_options options = rig_command();
        options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
        options.delay_ms = 2000;
        rig_hello(rig, 1, NULL, NULL);
        uint64_t first = submitted(rig, &options, 5);
        rig_cancel(rig, 1, first + 2, 1, HP_CANCEL_MODE_QUEUED);
        if (restart == 1) {
            rig_crash(rig);
            rig_hello(rig, 1, NULL, NULL);
        }
        rig_worker(rig, 2, "w", 5);
        rig_pass(rig, 1999);
        assert_int_equal(rig_assigned(rig, 2, runs, 8), 0);
        rig_pass(rig, 2);
        rig_pass(rig, 1);
        for (uint32_t i = 0; i < 5; i++) {
            assert_int_equal(rig_state(rig, 1, first + i),
                             i == 2 ? HP_TASK_STATE_CANCELLED : HP_TASK_STATE_LEASED);
        }
        rig_free(rig);
    }
}

/* Its time comes while it is being looked at for its expiry, whose answer so is an old one. */
static void expiry_looks_again_at_what_moved(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS | HP_HAS_ST_TASK_OPTIONS_EXPIRE_MS;
    options.delay_ms = 1000;
    options.expire_ms = 1001;
    rig_hello(rig, 1, NULL, NULL);
    uint64_t id = submitted(rig, &options, 1);
    for (int turn = 0; turn < 2; turn++) { /* the store has not answered when the second is due */
        rig->now_ms += turn == 0 ? 1000 : 1;
        rig->wall_ms += turn == 0 ? 1000 : 1;
        rig_begin(rig);
        rig_end(rig);
    }
    assert_int_equal(rig->job_count, 2);
    rig_settle(rig);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_EXPIRED);
    rig_free(rig);
}

/* ------------------------------------------------ who hears of it */
/* The worker that has the next attempt is told, too: output does not end with the first. */
static void followers_follow_the_next_attempt(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    struct hp_rpc rpc;
    struct hp_error error;
    struct hp_msg_worker_control control;
    uint32_t attempt = 0;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = submitted(rig, &options, 1);
    struct hp_msg_task_follow msg = {.has = HP_HAS_TASK_FOLLOW_ON, .id = id, .on = true};
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, TASK_FOLLOW, task_follow, &msg);
    rig_end(rig);
    rig_settle(rig);
    rig_done(rig, 2, id, 1, 1, HP_REASON_NODE_LOST);
    rig_pass(rig, 1);
    while (rig_next(rig, 2, &rpc)) {
        if (rpc.type == HP_RPC_NOTIFY && rpc.method == HP_METHOD_WORKER_CONTROL) {
            assert_ok(hp_msg_worker_control_decode(rpc.params, &rig->arena, &control, &error));
            assert_int_equal(control.follow.count, 1);
            attempt = control.follow.items[0].attempt;
        }
    }
    assert_int_equal(attempt, 2);
    rig_free(rig);
}

static uint32_t events(struct rig *rig, uint64_t conn)
{
    struct hp_rpc rpc;
    uint32_t count = 0;
    while (rig_next(rig, conn, &rpc)) {
        count += rpc.type == HP_RPC_NOTIFY && rpc.method == HP_METHOD_TASK_EVENT;
    }
    return count;
}

/* The end of a connection that its session has left long ago is no end of the session's events. */
static void an_old_connection_takes_nothing_with_it(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, SESSION, NULL);
    rig_hello(rig, 3, SESSION, NULL); /* its client came again before that was noticed */
    assert_true(rig->closed[0]);
    rig_begin(rig);
    rig_disconnect(rig, 1);
    rig_end(rig);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = rig_submitted(rig, 3, 1, &options, 1, NULL);
    rig_done(rig, 2, id, 1, 1, HP_REASON_NONE);
    assert_int_equal(events(rig, 3), 1);
    rig_free(rig);
}

/* Who is told that a queue is paused, or that a pool has a content, can rely on it whatever happens
 * to the broker then. */
static void changes_are_answered_when_they_are_durable(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, NULL, NULL);
    struct hp_msg_queue_pause pause = {.name = HP_STR("blue"), .paused = true};
    struct hp_msg_pool_put put = {.has = HP_HAS_POOL_PUT_BLOB,
                                  .pool = pool_open(rig, 0, 1),
                                  .digest = hp_bin_make("sixteen bytes of", 16),
                                  .blob = 5};
    for (int i = 0; i < 2; i++) {
        rig_begin(rig);
        if (i == 0) {
            (void)RIG_CALL(rig, 1, QUEUE_PAUSE, queue_pause, &pause);
        } else {
            (void)RIG_CALL(rig, 1, POOL_PUT, pool_put, &put);
        }
        rig_end(rig);
        assert_int_equal(rig->out[0].size, 0);
        rig_settle(rig);
        assert_true(rig->out[0].size > 0);
        hp_buf_clear(&rig->out[0]);
    }
    rig_free(rig);
}

/* What does not fit an answer is asked for from `next` on: nothing is left out, nothing comes
 * twice. */
static void answers_in_parts_are_whole(void **state)
{
    enum { COUNT = 5000 };
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    uint64_t first = submitted(rig, &options, COUNT);
    uint64_t next = first;
    uint32_t answer_count = 0;
    for (uint64_t expected = first; next != 0; answer_count++) {
        struct hp_st_id_range range = {.has = HP_HAS_ST_ID_RANGE_COUNT,
                                       .first = next,
                                       .count = (uint32_t)(first + COUNT - next)};
        struct hp_msg_task_get msg = {.has = HP_HAS_TASK_GET_RANGES,
                                      .ranges = {.items = &range, .count = 1}};
        struct hp_msg_task_get_reply reply;
        assert_true(rig_ask(rig, 1, HP_METHOD_TASK_GET, &msg, &reply));
        for (uint32_t i = 0; i < reply.tasks.count; i++) {
            assert_int_equal(reply.tasks.items[i].id, expected++);
        }
        next = (reply.has & HP_HAS_TASK_GET_REPLY_NEXT) != 0 ? reply.next : 0;
        assert_int_equal(next != 0 ? next : first + COUNT, expected);
    }
    assert_true(answer_count > 1);
    rig_free(rig);
}

/* ------------------------------------------------ bounds */
static size_t largest_frame(struct rig *rig, uint64_t conn, uint32_t *ret_tasks)
{
    struct hp_rpc rpc;
    size_t largest = 0;
    size_t before = rig->out[conn - 1].size;
    *ret_tasks = 0;
    while (rig_next(rig, conn, &rpc)) {
        size_t size = before - rig->out[conn - 1].size;
        struct hp_msg_worker_assign msg;
        struct hp_error error;
        before = rig->out[conn - 1].size;
        largest = size > largest ? size : largest;
        if (rpc.type == HP_RPC_NOTIFY && rpc.method == HP_METHOD_WORKER_ASSIGN) {
            assert_ok(hp_msg_worker_assign_decode(rpc.params, &rig->arena, &msg, &error));
            for (uint32_t i = 0; i < msg.runs.count; i++) {
                *ret_tasks += msg.runs.items[i].count;
            }
        }
    }
    return largest;
}

/* The payloads of one submit fill a frame; with what an assignment says besides they go in parts.
 */
static void assignments_fit_their_frames(void **state)
{
    enum { COUNT = 15, PAYLOAD_BYTES = 60 * 1024 };
    static const uint8_t bytes[PAYLOAD_BYTES];
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_bin payloads[COUNT];
    uint32_t tasks = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        payloads[i] = hp_bin_make(bytes, sizeof(bytes));
    }
    struct hp_msg_task_submit msg = {.has = HP_HAS_TASK_SUBMIT_PAYLOADS,
                                     .options = rig_function(),
                                     .payloads = {.items = payloads, .count = COUNT}};
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", COUNT);
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, TASK_SUBMIT, task_submit, &msg);
    rig_end(rig);
    rig_settle(rig);
    assert_true(largest_frame(rig, 2, &tasks) <= HP_OUT_FRAME_BYTES + PAYLOAD_BYTES);
    assert_int_equal(tasks, COUNT);
    rig_free(rig);
}

/* While the disk is slow a turn gives out no more than may wait for it; all come in the end. */
static void a_turn_gives_out_what_may_wait_for_the_disk(void **state)
{
    enum { COUNT = 100, OPS_MAX = 20 };
    (void)state;
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.backlog_ops_max = OPS_MAX;
    struct rig *rig = rig_new(&config);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    for (uint32_t i = 0; i < COUNT; i++) {
        (void)submitted(rig, &options, 1);
    }
    rig_hello(rig, 2, NULL, "w");
    rig_begin(rig);
    rig_ask_register(rig, 2, COUNT, (struct hp_list_run_ref){0});
    rig_end(rig);
    assert_in_range(rig->core->backlog_ops, OPS_MAX / 2, OPS_MAX + 5);
    while (rig->job_count > 0) {
        assert_true(rig->core->backlog_ops <= 2 * OPS_MAX);
        (void)rig_job(rig);
    }
    assert_int_equal(rig_assigned(rig, 2, runs, 256), COUNT);
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(losses_after_the_first_wait),
    cmocka_unit_test(what_comes_back_goes_before_younger_ones),
    cmocka_unit_test(what_comes_back_does_not_expire),
    cmocka_unit_test(the_deadline_is_that_of_the_submit),
    cmocka_unit_test(the_rest_of_a_delayed_group_comes),
    cmocka_unit_test(expiry_looks_again_at_what_moved),
    cmocka_unit_test(followers_follow_the_next_attempt),
    cmocka_unit_test(an_old_connection_takes_nothing_with_it),
    cmocka_unit_test(changes_are_answered_when_they_are_durable),
    cmocka_unit_test(answers_in_parts_are_whole),
    cmocka_unit_test(assignments_fit_their_frames),
    cmocka_unit_test(a_turn_gives_out_what_may_wait_for_the_disk),
};

HP_TEST_MAIN(tests)
