/* SPDX-License-Identifier: BSD-2-Clause */
/* The life of tasks: retries, losses, cancel, expiry, workers that return, waiting, listing. */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"

static struct hp_st_assign_run run;

static uint64_t one_running(struct rig *rig, const struct hp_st_task_options *options)
{
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = rig_submitted(rig, 1, 0, options, 1, NULL);
    assert_int_equal(rig_assigned(rig, 2, &run, 1), 1);
    assert_int_equal(run.first, id);
    return id;
}

static void a_failure_is_retried_after_its_backoff(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES | HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS |
                   HP_HAS_ST_TASK_OPTIONS_RETRY_CAP_MS;
    options.max_retries = 3;
    options.retry_base_ms = 1000;
    options.retry_cap_ms = 3000;
    uint64_t id = one_running(rig, &options);
    uint64_t most[3] = {1000, 2000, 3000};
    for (uint32_t attempt = 1; attempt <= 3; attempt++) {
        rig_done(rig, 2, id, attempt, 1, HP_REASON_EXIT);
        assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_DELAYED);
        rig_pass(rig, most[attempt - 1] / 2 - 1);
        assert_int_equal(rig_assigned(rig, 2, &run, 1), 0);
        rig_pass(rig, most[attempt - 1] / 2 + 1);
        assert_int_equal(rig_assigned(rig, 2, &run, 1), 1);
        assert_int_equal(run.attempt, attempt + 1);
    }
    rig_done(rig, 2, id, 4, 1, HP_REASON_EXIT);
    struct hp_st_task_status status = rig_get(rig, 1, id);
    assert_int_equal(status.state, HP_TASK_STATE_FAILED);
    assert_int_equal(status.failures, 4);
    rig_free(rig);
}

static void a_stale_result_is_refused(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    uint64_t id = one_running(rig, &options);
    rig_done(rig, 2, id, 2, 1, HP_REASON_NONE); /* another attempt */
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_LEASED);
    rig_done(rig, 2, id, 1, 9, HP_REASON_NONE); /* another epoch */
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_LEASED);
    rig_worker(rig, 3, "other", 1);
    rig_done(rig, 3, id, 1, 1, HP_REASON_NONE); /* another worker */
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_LEASED);
    rig_done(rig, 2, id, 1, 1, HP_REASON_NONE);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_DONE);
    rig_done(rig, 2, id, 1, 1, HP_REASON_EXIT); /* too late */
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_DONE);
    rig_free(rig);
}

static void a_lost_lease_gives_the_task_to_another(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    uint64_t id = one_running(rig, &options);
    rig_begin(rig);
    rig_disconnect(rig, 2);
    rig_end(rig);
    rig_worker(rig, 3, "other", 1);
    assert_int_equal(rig_assigned(rig, 3, &run, 1), 0);
    for (uint64_t ms = 0; ms < rig->config.lease_ms - 100; ms += 900) {
        rig_pass(rig, 900); /* in steps: one long gap would be a stall of the broker itself */
        struct hp_msg_worker_heartbeat beat = {0};
        rig_begin(rig);
        (void)RIG_CALL(rig, 3, WORKER_HEARTBEAT, worker_heartbeat, &beat);
        rig_end(rig);
    }
    rig_pass(rig, 900);
    rig_pass(rig, 10);
    assert_int_equal(rig_assigned(rig, 3, &run, 1), 1);
    assert_int_equal(run.attempt, 2);
    assert_int_equal(rig_get(rig, 1, id).losses, 1);
    rig_free(rig);
}

static void a_stall_of_the_broker_costs_no_lease(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    uint64_t id = one_running(rig, &options);
    rig_pass(rig, 5 * rig->config.lease_ms);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_LEASED);
    rig_free(rig);
}

static void a_returning_worker_is_asked_what_it_holds(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    struct hp_rpc rpc;
    struct hp_error error;
    struct hp_msg_worker_register_reply reply;
    uint64_t id = one_running(rig, &options);
    rig_crash(rig);
    rig_hello(rig, 1, NULL, NULL);
    rig_hello(rig, 2, NULL, "w");
    struct hp_st_run_ref held[2] = {{.id = id, .attempt = 1, .epoch = 1},
                                    {.id = id + 1, .attempt = 1, .epoch = 1}};
    struct hp_msg_worker_register msg = {.has = HP_HAS_WORKER_REGISTER_RUNS,
                                         .host = HP_STR("host"),
                                         .slots = 1,
                                         .runs = {.items = held, .count = 2}};
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_REGISTER, worker_register, &msg);
    rig_end(rig);
    rig_settle(rig);
    assert_true(rig_next(rig, 2, &rpc));
    assert_ok(hp_msg_worker_register_reply_decode(rpc.result, &rig->arena, &reply, &error));
    assert_int_equal(reply.kill.count, 1);
    assert_int_equal(reply.kill.items[0].id, id + 1);
    rig_done(rig, 2, id, 1, 1, HP_REASON_NONE); /* of the old epoch, and still its own */
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_DONE);
    rig_free(rig);
}

static void at_most_once_means_no_second_start(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_AT_MOST_ONCE | HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES;
    options.at_most_once = true;
    options.max_retries = 5;
    uint64_t id = one_running(rig, &options);
    rig_done(rig, 2, id, 1, 1, HP_REASON_EXIT);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_FAILED);
    rig_free(rig);
}

static void cancel_in_every_state(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    uint64_t running = one_running(rig, &options);
    uint64_t ready = rig_submitted(rig, 1, 0, &options, 10, NULL);
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    options.delay_ms = 5000;
    uint64_t delayed = rig_submitted(rig, 1, 0, &options, 10, NULL);
    rig_cancel(rig, 1, ready + 3, 4, HP_CANCEL_MODE_QUEUED);
    rig_cancel(rig, 1, delayed + 3, 4, HP_CANCEL_MODE_QUEUED);
    rig_cancel(rig, 1, delayed + 8, 1, HP_CANCEL_MODE_QUEUED);
    rig_cancel(rig, 1, running, 1, HP_CANCEL_MODE_QUEUED);
    assert_int_equal(rig_state(rig, 1, running), HP_TASK_STATE_LEASED);
    rig_cancel(rig, 1, running, 1, HP_CANCEL_MODE_FORCE);
    assert_int_equal(rig_state(rig, 1, running), HP_TASK_STATE_CANCELLING);
    rig_crash(rig); /* both the cancel and the split rows are durable */
    rig_hello(rig, 1, NULL, NULL);
    assert_int_equal(rig_state(rig, 1, running), HP_TASK_STATE_CANCELLING);
    rig_hello(rig, 2, NULL, "w");
    struct hp_st_run_ref held = {.id = running, .attempt = 1, .epoch = 1};
    rig_register(rig, 2, 1, (struct hp_list_run_ref){.items = &held, .count = 1});
    rig_done(rig, 2, running, 1, 1, HP_REASON_SIGNAL);
    assert_int_equal(rig_state(rig, 1, running), HP_TASK_STATE_CANCELLED);
    for (uint32_t i = 0; i < 10; i++) {
        bool gone = i >= 3 && i < 7;
        assert_int_equal(rig_state(rig, 1, ready + i) == HP_TASK_STATE_CANCELLED, gone);
        gone = gone || i == 8;
        assert_int_equal(rig_state(rig, 1, delayed + i),
                         gone ? HP_TASK_STATE_CANCELLED : HP_TASK_STATE_DELAYED);
    }
    rig_pass(rig, 5001);
    assert_int_equal(rig_state(rig, 1, delayed), HP_TASK_STATE_READY);
    rig_free(rig);
}

/* Who was told "cancelling" for a forced cancel can rely on it, over a crash, too; a soft one asks.
 */
static void success_after_a_cancel(void **state)
{
    (void)state;
    static const struct {
        enum hp_cancel_mode modes[2];
        uint32_t count;
        enum hp_task_state end;
    } cases[] = {
        {{HP_CANCEL_MODE_FORCE}, 1, HP_TASK_STATE_CANCELLED},
        {{HP_CANCEL_MODE_SOFT}, 1, HP_TASK_STATE_DONE},
        {{HP_CANCEL_MODE_SOFT, HP_CANCEL_MODE_FORCE}, 2, HP_TASK_STATE_CANCELLED},
        {{HP_CANCEL_MODE_FORCE, HP_CANCEL_MODE_SOFT}, 2, HP_TASK_STATE_CANCELLED},
    };
    for (uint32_t i = 0; i < 2 * HP_COUNT_OF(cases); i++) {
        struct rig *rig = rig_new(NULL);
        struct hp_st_task_options options = rig_command();
        uint64_t id = one_running(rig, &options);
        for (uint32_t k = 0; k < cases[i / 2].count; k++) {
            rig_cancel(rig, 1, id, 1, cases[i / 2].modes[k]);
        }
        if (i % 2 == 1) {
            rig_crash(rig);
            rig_hello(rig, 1, NULL, NULL);
            rig_hello(rig, 2, NULL, "w");
            struct hp_st_run_ref held = {.id = id, .attempt = 1, .epoch = 1};
            rig_register(rig, 2, 1, (struct hp_list_run_ref){.items = &held, .count = 1});
        }
        assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_CANCELLING);
        rig_done(rig, 2, id, 1, 1, HP_REASON_NONE);
        assert_int_equal(rig_state(rig, 1, id), cases[i / 2].end);
        rig_free(rig);
    }
}

static void what_waits_too_long_expires(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_EXPIRE_MS;
    options.expire_ms = 1000;
    uint64_t running = one_running(rig, &options);
    uint64_t waiting = rig_submitted(rig, 1, 0, &options, 3, NULL);
    rig_pass(rig, 999);
    assert_int_equal(rig_state(rig, 1, waiting), HP_TASK_STATE_READY);
    rig_pass(rig, 2);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(rig_state(rig, 1, waiting + i), HP_TASK_STATE_EXPIRED);
    }
    assert_int_equal(rig_state(rig, 1, running), HP_TASK_STATE_LEASED);
    rig_free(rig);
}

static uint32_t wait_for(struct rig *rig, uint64_t *ids, uint32_t count, enum hp_wait_mode mode,
                         uint64_t timeout_ms)
{
    struct hp_msg_task_wait msg = {.has = HP_HAS_TASK_WAIT_MODE | HP_HAS_TASK_WAIT_TIMEOUT_MS,
                                   .ids = {.items = ids, .count = count},
                                   .timeout_ms = timeout_ms,
                                   .mode = mode};
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, 1, TASK_WAIT, task_wait, &msg);
    rig_end(rig);
    rig_settle(rig);
    return msgid;
}

/* 0: no answer, 1: answered, 2: timed out */
static int answered(struct rig *rig, uint32_t msgid)
{
    struct hp_rpc rpc;
    struct hp_error error;
    struct hp_msg_task_wait_reply reply;
    while (rig_next(rig, 1, &rpc)) {
        if (rpc.type == HP_RPC_RESPONSE && rpc.msgid == msgid) {
            assert_ok(hp_msg_task_wait_reply_decode(rpc.result, &rig->arena, &reply, &error));
            return reply.timed_out ? 2 : 1;
        }
    }
    return 0;
}

static void waiting_for_one_and_for_all(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    uint64_t running = one_running(rig, &options);
    uint64_t other = rig_submitted(rig, 1, 0, &options, 1, NULL);
    uint64_t ids[3] = {running, other, running};
    uint32_t any = wait_for(rig, ids, 3, HP_WAIT_MODE_ANY, 10000);
    assert_int_equal(answered(rig, any), 0);
    rig_done(rig, 2, running, 1, 1, HP_REASON_NONE);
    assert_int_equal(answered(rig, any), 1);
    uint32_t all = wait_for(rig, ids, 3, HP_WAIT_MODE_ALL, 500);
    assert_int_equal(answered(rig, all), 0);
    rig_pass(rig, 501);
    assert_int_equal(answered(rig, all), 2);
    all = wait_for(rig, ids, 3, HP_WAIT_MODE_ALL, 10000);
    rig_done(rig, 2, other, 1, 1, HP_REASON_NONE);
    assert_int_equal(answered(rig, all), 1);
    rig_free(rig);
}

static uint32_t list(struct rig *rig, struct hp_msg_task_list *msg)
{
    struct hp_rpc rpc;
    struct hp_error error;
    struct hp_msg_task_list_reply reply;
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, 1, TASK_LIST, task_list, msg);
    rig_end(rig);
    rig_settle(rig);
    while (rig_next(rig, 1, &rpc)) {
        if (rpc.type == HP_RPC_RESPONSE && rpc.msgid == msgid) {
            assert_ok(hp_msg_task_list_reply_decode(rpc.result, &rig->arena, &reply, &error));
            return reply.tasks.count;
        }
    }
    fail_msg("%s", "no reply to task.list");
    return 0;
}

static void lists_are_filtered(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_NAME | HP_HAS_ST_TASK_OPTIONS_QUEUE;
    options.name = HP_STR("nightly");
    options.queue = HP_STR("blue");
    (void)one_running(rig, &options);
    options.name = HP_STR("other");
    options.queue = HP_STR("red");
    assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 4, NULL), 0);
    struct hp_msg_task_list msg = {.has = HP_HAS_TASK_LIST_LIMIT, .limit = 100};
    assert_int_equal(list(rig, &msg), 5);
    msg.has |= HP_HAS_TASK_LIST_QUEUE;
    msg.queue = HP_STR("red");
    assert_int_equal(list(rig, &msg), 4);
    msg.limit = 3;
    assert_int_equal(list(rig, &msg), 3);
    msg = (struct hp_msg_task_list){.has = HP_HAS_TASK_LIST_NAME | HP_HAS_TASK_LIST_LIMIT,
                                    .name = HP_STR("night"),
                                    .limit = 100};
    assert_int_equal(list(rig, &msg), 1);
    uint64_t states[1] = {HP_TASK_STATE_LEASED};
    msg = (struct hp_msg_task_list){.has = HP_HAS_TASK_LIST_STATES | HP_HAS_TASK_LIST_LIMIT,
                                    .states = {.items = states, .count = 1},
                                    .limit = 100};
    assert_int_equal(list(rig, &msg), 1);
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_failure_is_retried_after_its_backoff),
    cmocka_unit_test(a_stale_result_is_refused),
    cmocka_unit_test(a_lost_lease_gives_the_task_to_another),
    cmocka_unit_test(a_stall_of_the_broker_costs_no_lease),
    cmocka_unit_test(a_returning_worker_is_asked_what_it_holds),
    cmocka_unit_test(at_most_once_means_no_second_start),
    cmocka_unit_test(cancel_in_every_state),
    cmocka_unit_test(success_after_a_cancel),
    cmocka_unit_test(what_waits_too_long_expires),
    cmocka_unit_test(waiting_for_one_and_for_all),
    cmocka_unit_test(lists_are_filtered),
};

HP_TEST_MAIN(tests)
