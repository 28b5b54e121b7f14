/* SPDX-License-Identifier: BSD-2-Clause */
/* The agent's pools: children by order, their set-up, replacement and end, and what is reported. */
#include "tests/unit/agent_pool_fixture.h"

/* The link is lost and comes back; the agent registers anew. */
static void again(struct fx *fx)
{
    hp_agent_disconnected(fx->agent, "reset", fx->now);
    fx_drain(fx);
    fx_connect(fx);
    fx_answer_hello(fx, 2);
    fx_answer_register(fx);
}

/* ------------------------------------------------------------------------------------- by order */

static void children_are_started_and_reported(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, FXP_SLOTS);
    fx_up(&fx);
    fxp_order(&fx, 7, 3);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(fxp_count(&fx, HP_AGENT_CHILD_START, FXP_SLOTS + i), 1);
    }
    const struct fx_seen *start = fx_last(&fx, HP_AGENT_CHILD_START, 0);
    assert_int_equal(start->pool, 7);
    assert_int_equal(start->payload.size, 4);
    assert_memory_equal(start->payload.data, "init", 4);
    struct fxp_report report = fxp_read_reports(&fx);
    assert_int_equal(report.pool, 7);
    assert_int_equal(report.pid_count, 0);
    fxp_up(&fx, FXP_SLOTS);
    fxp_up(&fx, FXP_SLOTS + 2);
    assert_int_equal(fxp_read_reports(&fx).pid_count, 2);
    assert_int_equal(fx_stats(&fx).pool_children, 2);
    assert_int_equal(fx_stats(&fx).slots_used, 0);
    fx_deinit(&fx);
}

static void the_same_order_again_changes_nothing(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 3);
    fxp_order(&fx, 7, 3);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 3);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_STOP), 0);
    fx_deinit(&fx);
}

static void surplus_children_stop_and_idle_ones_first(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 3);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 1, 1, 1, &call);
    uint32_t busy = fxp_child_of(&fx, 1);
    assert_int_not_equal(busy, FXP_NONE);
    fxp_order(&fx, 7, 1);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_STOP), 2);
    assert_int_equal(fxp_count(&fx, HP_AGENT_CHILD_STOP, busy), 0);
    assert_int_equal(fx_last(&fx, HP_AGENT_CHILD_STOP, 0)->signal, 0);
    assert_int_equal(fxp_read_reports(&fx).pid_count, 1);
    fxp_order(&fx, 7, 2); /* the slots that are still ending are not used again */
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 4);
    assert_int_equal(fx_last(&fx, HP_AGENT_CHILD_START, 0)->child, FXP_SLOTS + 3);
    fx_deinit(&fx);
}

static void no_more_than_children_max(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, FXP_SLOTS);
    fx_up(&fx);
    fxp_order(&fx, 7, 6);
    fxp_order(&fx, 8, 6);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 8);
    fxp_end(&fx, 7, false);
    for (uint32_t i = 0; i < 6; i++) {
        fxp_recycled(&fx, FXP_SLOTS + i);
    }
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 12);
    assert_int_equal(fx_last(&fx, HP_AGENT_POOL_GONE, 0)->pool, 7);
    fx_deinit(&fx);
}

/* -------------------------------------------------------------------------------------- the end */

static void close_runs_what_is_there(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 1, 2, 1, &call);
    fxp_end(&fx, 7, false);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_STOP), 0);
    fx_result(&fx, 1, 30000);
    fx_expect_end(&fx, 1, HP_REASON_NONE);
    assert_int_equal(fxp_child_of(&fx, 2), FXP_SLOTS);
    fx_result(&fx, 2, 30000);
    fx_expect_end(&fx, 2, HP_REASON_NONE);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_STOP), 1);
    assert_int_equal(fx_count(&fx, HP_AGENT_POOL_GONE), 0);
    fxp_recycled(&fx, FXP_SLOTS);
    assert_int_equal(fx_count(&fx, HP_AGENT_POOL_GONE), 1);
    assert_int_equal(fx_stats(&fx).pools, 0);
    fx_deinit(&fx);
}

static void terminate_is_term_then_kill(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 2);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 1, 3, 1, &call);
    fxp_end(&fx, 7, true);
    struct fx_seen *kill = fx_last(&fx, HP_AGENT_KILL, 0);
    assert_int_equal(kill->signal, SIGTERM);
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), 2);
    fx_expect_end(&fx, 3, HP_REASON_POOL_ENDED); /* it waited */
    fxp_died(&fx, 1, SIGTERM);
    fx_expect_end(&fx, 1, HP_REASON_POOL_ENDED);
    fxp_gone(&fx, fxp_child_of(&fx, 1));
    fx_pass(&fx, FXP_GRACE_MS);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGKILL);
    fxp_died(&fx, 2, SIGKILL);
    fx_expect_end(&fx, 2, HP_REASON_POOL_ENDED);
    fxp_gone(&fx, fxp_child_of(&fx, 2));
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 2);
    assert_int_equal(fx_count(&fx, HP_AGENT_POOL_GONE), 1);
    fx_deinit(&fx);
}

static void what_succeeds_in_time_has_succeeded(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 1, 1, 1, &call);
    fxp_end(&fx, 7, true);
    fx_result(&fx, 1, 30);
    fx_expect_end(&fx, 1, HP_REASON_NONE);
    fx_deinit(&fx);
}

static void an_idle_child_that_does_not_end_is_killed(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    fxp_order(&fx, 7, 2); /* the second one is in its initializer */
    fxp_end(&fx, 7, true);
    assert_int_equal(fxp_count(&fx, HP_AGENT_CHILD_STOP, FXP_SLOTS), 1);
    assert_int_equal(fx_last(&fx, HP_AGENT_CHILD_STOP, 0)->signal, 0);
    assert_int_equal(fxp_count(&fx, HP_AGENT_CHILD_STOP, FXP_SLOTS + 1), 2);
    fxp_init_failed(&fx, FXP_SLOTS + 1, "killed");
    assert_int_equal(fxp_read_reports(&fx).failures, 0);
    fx_pass(&fx, FXP_GRACE_MS);
    assert_int_equal(fx_last(&fx, HP_AGENT_CHILD_STOP, 0)->child, FXP_SLOTS);
    assert_int_equal(fx_last(&fx, HP_AGENT_CHILD_STOP, 0)->signal, SIGKILL);
    fxp_gone(&fx, FXP_SLOTS);
    assert_int_equal(fx_stats(&fx).pools, 0);
    fx_deinit(&fx);
}

static void the_last_report_is_sent(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 1, 1, 1, &call);
    fxp_waits(&fx, FXP_SLOTS, true);
    assert_int_equal(fxp_read_reports(&fx).waiting, 1);
    fxp_end(&fx, 7, true);
    assert_int_equal(fxp_read_reports(&fx).waiting, 1);
    fxp_died(&fx, 1, SIGTERM);
    fxp_gone(&fx, FXP_SLOTS);
    struct fxp_report last = fxp_read_reports(&fx);
    assert_int_equal(last.pool, 7);
    assert_int_equal(last.waiting, 0);
    assert_int_equal(fx_stats(&fx).pools, 0);
    fx_deinit(&fx);
}

/* --------------------------------------------------------------------------------------- set-up */

static void failed_set_ups_are_counted_and_paced(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, FXP_SLOTS);
    fx_up(&fx);
    fxp_order(&fx, 7, 1);
    uint64_t pause_ms = 100;
    for (uint32_t failures = 1; failures <= 7; failures++) {
        fxp_init_failed(&fx, FXP_SLOTS, "no such module");
        struct fxp_report report = fxp_read_reports(&fx);
        assert_int_equal(report.failures, failures);
        assert_string_equal(report.error, "no such module");
        fx_pass(&fx, pause_ms - 1);
        assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), failures);
        fx_pass(&fx, 1);
        assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), failures + 1);
        pause_ms *= 2;
    }
    again(&fx); /* for a new lease */
    fxp_init_failed(&fx, FXP_SLOTS, "no such module");
    fx_pass(&fx, 9999);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 8);
    fx_pass(&fx, 1); /* the longest pause */
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 9);
    assert_int_equal(fxp_read_reports(&fx).failures, 8);
    fxp_up(&fx, FXP_SLOTS);
    struct fxp_report report = fxp_read_reports(&fx);
    assert_int_equal(report.failures, 0);
    assert_string_equal(report.error, "");
    fx_deinit(&fx);
}

static void one_at_a_time_until_one_is_set_up(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, FXP_SLOTS);
    fx_up(&fx);
    fxp_order(&fx, 7, 4);
    for (uint32_t i = 0; i < 4; i++) {
        fxp_init_failed(&fx, FXP_SLOTS + i, "no");
    }
    fx_pass(&fx, 800);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 5);
    fxp_up(&fx, FXP_SLOTS);
    fx_pass(&fx, 10000);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 8);
    fx_deinit(&fx);
}

static void give_blob(struct fx *fx, size_t size)
{
    uint32_t msgid = fx_find(fx, HP_METHOD_BLOB_GET);
    static uint8_t bytes[100];
    struct hp_msg_blob_get_reply reply = {
        .size = size, .digest = 0, .data = {.data = bytes, .size = (uint32_t)size}};
    fx_reply(fx, msgid, &hp_desc_msg_blob_get_reply, &reply);
}

static void order_blob(struct fx *fx, uint32_t children)
{
    struct hp_st_pool_order order = {.has =
                                         HP_HAS_ST_POOL_ORDER_OPTIONS | HP_HAS_ST_POOL_ORDER_BLOB,
                                     .pool = 7,
                                     .children = children,
                                     .options = fxp_options(),
                                     .blob = 55};
    fxp_send(fx, &order, false);
}

static void a_payload_that_cannot_be_had_is_a_failed_set_up(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, FXP_SLOTS);
    fx_up(&fx);
    order_blob(&fx, 2);
    give_blob(&fx, 100); /* its digest is another one */
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 0);
    struct fxp_report report = fxp_read_reports(&fx);
    assert_true(report.failures >= 3);
    assert_string_equal(report.error, "its payload is damaged");
    fx_deinit(&fx);
}

static void a_payload_is_asked_for_again_when_the_broker_was_busy(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, FXP_SLOTS);
    fx_up(&fx);
    order_blob(&fx, 2);
    fx_refuse(&fx, fx_find(&fx, HP_METHOD_BLOB_GET), HP_RPC_ERROR_BUSY);
    fx_pass(&fx, 1000);
    (void)fx_find(&fx, HP_METHOD_BLOB_GET);
    fx_refuse(&fx, fx.rpc.msgid, HP_RPC_ERROR_NOT_FOUND);
    assert_true(fxp_read_reports(&fx).failures >= 3);
    fx_deinit(&fx);
}

/* ------------------------------------------------------------------------------------- the link */

static void children_outlive_a_broker(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 2);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 1, 1, 1, &call);
    again(&fx);
    struct fxp_report report = fxp_read_reports(&fx);
    assert_int_equal(report.pool, 7);
    assert_int_equal(report.pid_count, 2);
    fxp_order(&fx, 7, 2);
    fxp_send(&fx, NULL, true);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 2);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_STOP), 0);
    fx_result(&fx, 1, 10);
    fx_expect_end(&fx, 1, HP_REASON_NONE);
    fx_deinit(&fx);
}

static void a_pool_that_is_not_named_has_ended(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 2);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 1, 1, 1, &call);
    again(&fx);
    fxp_order(&fx, 8, 1);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_STOP), 0);
    fxp_send(&fx, NULL, true);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGTERM);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_STOP), 2);
    fxp_died(&fx, 1, SIGTERM);
    fxp_gone(&fx, FXP_SLOTS);
    fxp_recycled(&fx, FXP_SLOTS + 1);
    assert_int_equal(fx_last(&fx, HP_AGENT_POOL_GONE, 0)->pool, 7);
    assert_int_equal(fx_stats(&fx).pools, 1);
    fx_deinit(&fx);
}

static void an_end_of_a_pool_unknown_here_is_nothing(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, FXP_SLOTS);
    fx_up(&fx);
    fxp_end(&fx, 9, true);
    assert_int_equal(fx_stats(&fx).pools, 0);
    fx_deinit(&fx);
}

/* --------------------------------------------------------------------------------------- a drain
 */

static void a_drain_ends_children_after_their_calls(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 2);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 1, 3, 1, &call);
    hp_agent_drain(fx.agent, 60000, fx.now);
    fx_drain(&fx);
    assert_int_equal(fx_stats(&fx).released_total, 1);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_STOP), 2); /* once they have run what they have */
    assert_int_equal(fx_last(&fx, HP_AGENT_CHILD_STOP, 0)->signal, 0);
    fx_answer_register(&fx);
    fx_result(&fx, 1, 10);
    fx_expect_end(&fx, 1, HP_REASON_NONE);
    fx_result(&fx, 2, 10);
    fx_expect_end(&fx, 2, HP_REASON_NONE);
    fxp_recycled(&fx, FXP_SLOTS);
    assert_int_equal(fx_count(&fx, HP_AGENT_EXIT), 0);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 2);
    fx_pass(&fx, 3000); /* the other one does not end; that is waited for, but not for ever */
    assert_int_equal(fx_count(&fx, HP_AGENT_EXIT), 1);
    fx_deinit(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(children_are_started_and_reported),
        cmocka_unit_test(the_same_order_again_changes_nothing),
        cmocka_unit_test(surplus_children_stop_and_idle_ones_first),
        cmocka_unit_test(no_more_than_children_max),
        cmocka_unit_test(close_runs_what_is_there),
        cmocka_unit_test(terminate_is_term_then_kill),
        cmocka_unit_test(what_succeeds_in_time_has_succeeded),
        cmocka_unit_test(an_idle_child_that_does_not_end_is_killed),
        cmocka_unit_test(the_last_report_is_sent),
        cmocka_unit_test(failed_set_ups_are_counted_and_paced),
        cmocka_unit_test(one_at_a_time_until_one_is_set_up),
        cmocka_unit_test(a_payload_that_cannot_be_had_is_a_failed_set_up),
        cmocka_unit_test(a_payload_is_asked_for_again_when_the_broker_was_busy),
        cmocka_unit_test(children_outlive_a_broker),
        cmocka_unit_test(a_pool_that_is_not_named_has_ended),
        cmocka_unit_test(an_end_of_a_pool_unknown_here_is_nothing),
        cmocka_unit_test(a_drain_ends_children_after_their_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
