/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How attempts end when two things come together: a cancel and an error, a timeout and a cancel, a
 * helper that was lost; what the broker is told of it, and when the broker does not take it.
 */
#include "tests/unit/agent_pool_fixture.h"

static void cancel(struct fx *fx, uint64_t id, enum hp_cancel_mode mode)
{
    struct hp_st_cancel_item item = {
        .has = HP_HAS_ST_CANCEL_ITEM_MODE, .id = id, .attempt = 1, .epoch = 1, .mode = mode};
    struct hp_msg_worker_control control = {.has = HP_HAS_WORKER_CONTROL_CANCEL,
                                            .cancel = {.items = &item, .count = 1}};
    fx_notify(fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &control);
}

static void init(struct fx *fx)
{
    fx_init(fx, FXP_SLOTS);
    fx_up(fx);
    fx_child(fx, 0, true);
}

static void call_ends(struct fx *fx, uint64_t id, enum hp_agent_outcome outcome, bool fenced)
{
    fx_event(fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_RESULT,
                                         .key = fx_key(fx, id),
                                         .outcome = outcome,
                                         .fenced = fenced,
                                         .retry_ms = 5,
                                         .log_err = {.data = (const uint8_t *)"said", .size = 4},
                                         .error = HP_STR("why")});
    if (outcome == HP_AGENT_OUTCOME_DIED) { /* and the next one comes */
        fx_child(fx, 0, false);
        fx_child(fx, 0, true);
    }
}

static void errors_of_cancelled_calls(void **state)
{
    (void)state;
    struct fx fx;
    init(&fx);
    struct hp_st_task_options options = fx_function("noop");
    const struct {
        enum hp_agent_outcome outcome;
        enum hp_reason reason, cancelled;
    } cases[] = {
        {HP_AGENT_OUTCOME_ERROR, HP_REASON_ERROR, HP_REASON_CANCELLED},
        {HP_AGENT_OUTCOME_PERMANENT, HP_REASON_PERMANENT, HP_REASON_CANCELLED},
        {HP_AGENT_OUTCOME_RETRY, HP_REASON_ERROR, HP_REASON_CANCELLED},
        {HP_AGENT_OUTCOME_DIED, HP_REASON_CHILD_EXIT, HP_REASON_CANCELLED},
        /* These are so whether it was cancelled or not. */
        {HP_AGENT_OUTCOME_OK, HP_REASON_NONE, HP_REASON_NONE},
        {HP_AGENT_OUTCOME_TOO_BIG, HP_REASON_RESULT_TOO_BIG, HP_REASON_RESULT_TOO_BIG},
        {HP_AGENT_OUTCOME_NO_FUNCTION, HP_REASON_NO_FUNCTION, HP_REASON_NO_FUNCTION},
    };
    for (uint64_t i = 0; i < HP_COUNT_OF(cases); i++) {
        uint64_t id = 10 + 2 * i;
        fx_assign(&fx, id, 1, 1, &options);
        call_ends(&fx, id, cases[i].outcome, false);
        fx_expect_end(&fx, id, cases[i].reason);
        fx_assign(&fx, id + 1, 1, 1, &options);
        cancel(&fx, id + 1, HP_CANCEL_MODE_SOFT);
        call_ends(&fx, id + 1, cases[i].outcome, false);
        fx_expect_end(&fx, id + 1, cases[i].cancelled);
    }
    fx_deinit(&fx);
}

/* Lost with the helper that ran it: the worker's fault, but not if it was to end anyway. */
static void what_is_lost_with_a_helper(void **state)
{
    (void)state;
    struct fx fx;
    init(&fx);
    struct hp_st_task_options options = fx_function("noop");
    fx_assign(&fx, 10, 1, 1, &options);
    call_ends(&fx, 10, HP_AGENT_OUTCOME_DIED, true);
    fx_expect_end(&fx, 10, HP_REASON_NODE_LOST);
    fx_assign(&fx, 11, 1, 1, &options);
    cancel(&fx, 11, HP_CANCEL_MODE_FORCE);
    call_ends(&fx, 11, HP_AGENT_OUTCOME_DIED, true);
    fx_expect_end(&fx, 11, HP_REASON_CANCELLED);
    for (uint64_t id = 12; id < 14; id++) {
        fx_assign(&fx, id, 1, 1, &options);
    }
    hp_agent_stop(fx.agent, fx.now);
    fx_drain(&fx);
    call_ends(&fx, 12, HP_AGENT_OUTCOME_DIED, true);
    fx_expect_end(&fx, 12, HP_REASON_NODE_LOST);
    fx_deinit(&fx);
}

static void what_was_used(void **state)
{
    (void)state;
    struct fx fx;
    init(&fx);
    struct hp_st_task_options options = fx_command();
    struct hp_wire *wire = hp_wire_new();
    for (uint64_t i = 0; i < 4; i++) {
        fx_assign(&fx, 10 + i, 1, 1, &options);
        fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED,
                                              .key = fx_key(&fx, 10 + i),
                                              .run_us = 10,
                                              .utime_us = i == 1,
                                              .stime_us = i == 2,
                                              .maxrss_kb = i == 3});
        struct hp_msg_worker_done done;
        struct hp_msg_worker_done_reply reply = {0};
        const struct hp_wire_obj *root = NULL;
        struct hp_st_task_end end;
        uint32_t msgid = fx_expect_done(&fx, &done);
        assert_int_equal(
            hp_wire_unpack_checked(wire, &hp_tok_limits_open, done.items.items[0].end, &root, NULL),
            HP_OK);
        assert_int_equal(hp_st_task_end_decode(root, &fx.arena, &end, NULL), HP_OK);
        assert_int_equal(end.run_us, 10);
        assert_int_equal((end.has & HP_HAS_ST_TASK_END_UTIME_US) != 0, i > 0);
        assert_int_equal(end.utime_us, i == 1);
        assert_int_equal(end.stime_us, i == 2);
        assert_int_equal(end.maxrss_kb, i == 3);
        fx_reply(&fx, msgid, &hp_desc_msg_worker_done_reply, &reply);
    }
    hp_wire_free(wire);
    fx_deinit(&fx);
}

static uint32_t kills(const struct fx *fx, int signal_number)
{
    uint32_t count = 0;
    for (size_t i = 0; i < fx->seen_count; i++) {
        count += fx->seen[i].kind == HP_AGENT_KILL && fx->seen[i].signal == signal_number;
    }
    return count;
}

static void signals_are_sent_once(void **state)
{
    (void)state;
    struct fx fx;
    init(&fx);
    struct hp_st_task_options options = fx_command();
    options.soft_timeout_ms = 100;
    options.kill_grace_ms = 10000;
    options.has |= HP_HAS_ST_TASK_OPTIONS_SOFT_TIMEOUT_MS | HP_HAS_ST_TASK_OPTIONS_KILL_GRACE_MS;
    fx_assign(&fx, 10, 1, 1, &options);
    fx_started(&fx, 10);
    fx_pass(&fx, 2500); /* the timer also says that it has started */
    assert_int_equal(kills(&fx, SIGTERM), 1);
    fx_pass(&fx, 9000);
    assert_int_equal(kills(&fx, SIGKILL), 1);
    cancel(&fx, 10, HP_CANCEL_MODE_SOFT); /* it was killed: no TERM any more */
    cancel(&fx, 10, HP_CANCEL_MODE_SOFT);
    assert_int_equal(kills(&fx, SIGTERM), 1);
    fx_exited(&fx, 10, 0, SIGKILL);
    fx_expect_end(&fx, 10, HP_REASON_CANCELLED);
    fx_deinit(&fx);
}

static void orders_for_what_is_dropped(void **state)
{
    (void)state;
    struct fx fx;
    init(&fx);
    struct hp_st_task_options command = fx_command();
    struct hp_st_task_options function = fx_function("noop");
    fx_assign(&fx, 10, 1, 1, &command);
    fx_assign(&fx, 11, 1, 1, &function);
    struct hp_st_run_ref refs[] = {fx_ref(10, 1), fx_ref(11, 1)};
    const struct hp_list_run_ref both = {.items = refs, .count = 2};
    struct hp_msg_worker_control control = {.has = HP_HAS_WORKER_CONTROL_FOLLOW, .follow = both};
    fx_notify(&fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &control);
    assert_int_equal(fx_count(&fx, HP_AGENT_FOLLOW), 1); /* a function has no output to follow */
    control = (struct hp_msg_worker_control){.has = HP_HAS_WORKER_CONTROL_KILL, .kill = both};
    fx_notify(&fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &control);
    uint32_t signals = fx_count(&fx, HP_AGENT_KILL);
    assert_int_equal(signals, 2);
    cancel(&fx, 10, HP_CANCEL_MODE_SOFT);
    cancel(&fx, 11, HP_CANCEL_MODE_SOFT);
    control = (struct hp_msg_worker_control){.has = HP_HAS_WORKER_CONTROL_KILL |
                                                    HP_HAS_WORKER_CONTROL_RECALL_RUNS,
                                             .kill = both,
                                             .recall_runs = both};
    fx_notify(&fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &control);
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), signals);
    assert_int_equal(fx_count(&fx, HP_AGENT_RECALL), 0);
    fx_exited(&fx, 10, 0, 0);
    fx_result(&fx, 11, 10);
    assert_int_equal(fx_stats(&fx).held, 0);
    fx_deinit(&fx);
}

/* ----------------------------------------------------------------------------------- the broker */

static void many_large_ends_are_several_calls(void **state)
{
    (void)state;
    static uint8_t text[60000];
    struct fx fx;
    fx_init(&fx, 20);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 20, 1, &options);
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    for (uint64_t id = 10; id < 30; id++) {
        fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED,
                                              .key = fx_key(&fx, id),
                                              .out = {.data = text, .size = sizeof(text)}});
    }
    fx_connect(&fx);
    fx_answer_hello(&fx, 1);
    uint32_t calls = 0;
    for (uint32_t ends = 0; ends < 20; calls++) {
        struct hp_msg_worker_done done;
        struct hp_msg_worker_done_reply reply = {0};
        uint32_t msgid = fx_expect_done(&fx, &done);
        assert_true(fx.frame_size < 600000);
        ends += done.items.count;
        fx_reply(&fx, msgid, &hp_desc_msg_worker_done_reply, &reply);
    }
    assert_int_equal(calls, 3);
    assert_int_equal(fx_stats(&fx).held, 0);
    fx_deinit(&fx);
}

static void a_broker_that_refuses_ends(void **state)
{
    (void)state;
    struct fx fx;
    init(&fx);
    struct hp_st_task_options options = fx_command();
    struct hp_msg_worker_done done;
    fx_assign(&fx, 10, 1, 1, &options);
    fx_exited(&fx, 10, 0, 0);
    fx_refuse(&fx, fx_expect_done(&fx, &done), HP_RPC_ERROR_INTERNAL);
    fx_pass(&fx, 900);
    assert_false(fx_next(&fx));
    fx_pass(&fx, 200);
    fx_refuse(&fx, fx_expect_done(&fx, &done), HP_RPC_ERROR_TOO_BIG); /* alone, it never fits */
    assert_int_equal(fx_stats(&fx).held, 0);
    fx_deinit(&fx);
}

static void output_that_is_followed(void **state)
{
    (void)state;
    struct fx fx;
    init(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    struct hp_agent_event event = {
        .kind = HP_AGENT_EXEC_OUTPUT, .key = fx_key(&fx, 10), .stream = 2, .offset = 7};
    fx_event(&fx, event); /* nothing */
    assert_false(fx_next(&fx));
    event.out = hp_bin_make("text", 4);
    fx_event(&fx, event);
    (void)fx_expect(&fx, HP_METHOD_WORKER_OUTPUT);
    struct hp_msg_worker_output msg;
    assert_int_equal(hp_msg_worker_output_decode(fx.rpc.params, &fx.arena, &msg, NULL), HP_OK);
    assert_int_equal(msg.stream, HP_STREAM_STDERR);
    assert_int_equal(msg.offset, 7);
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    fx_event(&fx, event); /* to nobody: the offsets show the gap */
    assert_int_equal(hp_agent_output(fx.agent).size, 0);
    fx_exited(&fx, 10, 0, 0);
    fx_deinit(&fx);
}

/* ---------------------------------------------------------------------------------------- pools */

static void the_end_of_a_long_error(void **state)
{
    (void)state;
    static char text[3001];
    struct fx fx;
    fx_init(&fx, FXP_SLOTS);
    fx_up(&fx);
    fxp_order(&fx, 7, 1);
    memset(text, 'x', sizeof(text) - 1);
    memcpy(text + sizeof(text) - 9, "the end!", 8);
    fxp_init_failed(&fx, FXP_SLOTS, text);
    bool reported = false;
    while (fx_next(&fx)) {
        struct hp_msg_worker_pool_report msg;
        if (fx.rpc.method == HP_METHOD_WORKER_POOL_REPORT) {
            assert_int_equal(hp_msg_worker_pool_report_decode(fx.rpc.params, &fx.arena, &msg, NULL),
                             HP_OK);
            struct hp_str error = msg.pools.items[0].error;
            reported = error.size > 8;
            assert_true(!reported || memcmp(error.data + error.size - 8, "the end!", 8) == 0);
            assert_true(error.size < 1024);
        }
    }
    assert_true(reported);
    fxp_up(&fx, FXP_SLOTS + 5); /* news of a slot that is free change nothing */
    fxp_gone(&fx, FXP_SLOTS + 5);
    fxp_waits(&fx, FXP_SLOTS + 5, true);
    assert_int_equal(fxp_read_reports(&fx).pool, 0);
    fx_deinit(&fx);
}

static void a_child_that_waits_and_dies(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 10, 1, 1, &call);
    fxp_waits(&fx, FXP_SLOTS, true);
    assert_int_equal(fxp_read_reports(&fx).waiting, 1);
    fxp_gone(&fx, FXP_SLOTS); /* its call is not yet back */
    assert_int_equal(fxp_read_reports(&fx).waiting, 0);
    fxp_died(&fx, 10, 9);
    fx_expect_end(&fx, 10, HP_REASON_CHILD_SIGNAL);
    fx_deinit(&fx);
}

/* --------------------------------------------------------------------------------------- memory */

/* An agent is freed with whatever it has: address sanitizer looks for what is left. */
static void freed_at_any_time(void **state)
{
    (void)state;
    static uint8_t text[100000];
    struct fx fx;
    fx_init(&fx, 3);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign_blob(&fx, 10, 9, &options);
    fx_assign(&fx, 11, 5, 1, &options);
    fx_exited(&fx, 11, 0, 0);
    fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED,
                                          .key = fx_key(&fx, 12),
                                          .out = {.data = text, .size = sizeof(text)}});
    assert_int_equal(fx_stats(&fx).held, 6);
    fx_deinit(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_of_cancelled_calls),
        cmocka_unit_test(what_is_lost_with_a_helper),
        cmocka_unit_test(what_was_used),
        cmocka_unit_test(signals_are_sent_once),
        cmocka_unit_test(orders_for_what_is_dropped),
        cmocka_unit_test(many_large_ends_are_several_calls),
        cmocka_unit_test(a_broker_that_refuses_ends),
        cmocka_unit_test(output_that_is_followed),
        cmocka_unit_test(the_end_of_a_long_error),
        cmocka_unit_test(a_child_that_waits_and_dies),
        cmocka_unit_test(freed_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
