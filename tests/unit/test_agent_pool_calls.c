/* SPDX-License-Identifier: BSD-2-Clause */
/* The agent's pools: calls, how they are spread over children, how they end, and what waits. */
#include "tests/unit/agent_pool_fixture.h"

static struct hp_st_task_end end_of(struct fx *fx, uint64_t id, enum hp_reason reason)
{
    struct hp_msg_worker_done done;
    uint32_t msgid = fx_expect_done(fx, &done);
    assert_int_equal(done.items.count, 1);
    assert_int_equal(done.items.items[0].id, id);
    assert_int_equal(done.items.items[0].reason, reason);
    const struct hp_wire_obj *root = NULL;
    static struct hp_arena arena; /* holds the end that is looked at */
    static struct hp_wire *wire;
    if (wire == NULL) {
        wire = hp_wire_new();
        hp_arena_init(&arena, 4096, 1 << 20);
    }
    hp_arena_reset(&arena);
    struct hp_bin bytes = {0};
    assert_int_equal(hp_arena_copy_bin(&arena, done.items.items[0].end, &bytes), HP_OK);
    assert_int_equal(hp_wire_unpack_checked(wire, &hp_tok_limits_open, bytes, &root, NULL), HP_OK);
    struct hp_st_task_end end;
    assert_int_equal(hp_st_task_end_decode(root, &arena, &end, NULL), HP_OK);
    struct hp_msg_worker_done_reply reply = {0};
    fx_reply(fx, msgid, &hp_desc_msg_worker_done_reply, &reply);
    return end;
}

/* Lets the agent know how long a call of the pool takes, as `id`. */
static void measure(struct fx *fx, uint64_t id, uint64_t run_us)
{
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(fx, id, 1, 1, &call);
    fx_result(fx, id, run_us);
    fx_expect_end(fx, id, HP_REASON_NONE);
}

/* Calls from `first` on that were given to a child, by their last CALL. */
static uint32_t given_to(struct fx *fx, uint32_t child, uint64_t first, uint32_t count)
{
    uint32_t found = 0;
    for (uint64_t id = first; id < first + count; id++) {
        found += fxp_child_of(fx, id) == child;
    }
    return found;
}

/* -------------------------------------------------------------------------------------- spreading
 */

static void a_call_waits_for_a_child_and_goes_at_once(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, FXP_SLOTS);
    fx_up(&fx);
    fxp_order(&fx, 7, 2);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 1, 1, 1, &call);
    assert_int_equal(fx_count(&fx, HP_AGENT_CALL), 0);
    fxp_up(&fx, FXP_SLOTS + 1);
    assert_int_equal(fxp_child_of(&fx, 1), FXP_SLOTS + 1);
    fx_assign(&fx, 2, 1, 1, &call);
    assert_int_equal(fxp_child_of(&fx, 2), FXP_NONE); /* not measured yet: one at a time */
    fxp_up(&fx, FXP_SLOTS);
    assert_int_equal(fxp_child_of(&fx, 2), FXP_SLOTS);
    fx_deinit(&fx);
}

static void short_calls_are_given_ahead_to_all_children(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 2);
    measure(&fx, 1, 100);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 10, 20, 1, &call);
    assert_int_equal(given_to(&fx, FXP_SLOTS, 10, 20), 10);
    assert_int_equal(given_to(&fx, FXP_SLOTS + 1, 10, 20), 10);
    fx_deinit(&fx);
}

static void pools_are_measured_and_filled_apart(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    fxp_order(&fx, 8, 1);
    fxp_up(&fx, FXP_SLOTS + 1);
    measure(&fx, 1, 100);
    struct hp_st_task_options other = fxp_call(8);
    fx_assign(&fx, 10, 4, 1, &other);
    assert_int_equal(given_to(&fx, FXP_SLOTS + 1, 10, 4), 1);
    assert_int_equal(given_to(&fx, FXP_SLOTS, 10, 4), 0);
    fx_deinit(&fx);
}

static void an_idle_child_gets_calls_from_a_busy_one(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 2);
    measure(&fx, 1, 2000);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 10, 4, 1, &call);
    uint32_t slow = fxp_child_of(&fx, 10);
    uint32_t quick = slow == FXP_SLOTS ? FXP_SLOTS + 1 : FXP_SLOTS;
    assert_int_equal(given_to(&fx, slow, 10, 4), 2);
    for (uint64_t id = 10; id < 14; id++) {
        if (fxp_child_of(&fx, id) == quick) {
            fx_result(&fx, id, 2000);
        }
    }
    assert_int_equal(fxp_count(&fx, HP_AGENT_RECALL, slow), 1);
    fx_handed_back(&fx, 11);
    assert_int_equal(fxp_child_of(&fx, 11), quick);
    fx_deinit(&fx);
}

/* The broker wants back what has not begun: some wait for a child, some are in one. */
static void unstarted_calls_are_recalled(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    measure(&fx, 1, 2000);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 10, 4, 1, &call);
    fx_pass(&fx, 20); /* 10 is slow: what is behind it comes back, and waits */
    fx_handed_back(&fx, 13);
    fx_handed_back(&fx, 12);
    struct hp_st_run_ref refs[] = {fx_ref(13, 1), fx_ref(11, 1), fx_ref(10, 1), fx_ref(12, 2)};
    struct hp_msg_worker_control msg = {.has = HP_HAS_WORKER_CONTROL_RECALL_RUNS,
                                        .recall_runs = {.items = refs,
                                                        .count = HP_COUNT_OF(refs)}};
    fx_notify(&fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &msg);
    assert_int_equal(fx_stats(&fx).released_total, 1);
    assert_int_equal(fxp_count(&fx, HP_AGENT_RECALL, fxp_child_of(&fx, 10)), 2);
    fx_handed_back(&fx, 11);
    assert_int_equal(fx_stats(&fx).released_total, 2);
    fx_result(&fx, 10, 40000); /* it had begun, and stays */
    assert_int_equal(fx_stats(&fx).released_total, 2);
    assert_int_not_equal(fxp_child_of(&fx, 12), FXP_NONE); /* another attempt was asked for */
    fx_deinit(&fx);
}

static void pools_hold_no_slots(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 4);
    struct hp_st_task_options command = fx_command();
    fx_assign(&fx, 1, 3, 1, &command);
    assert_int_equal(fx_stats(&fx).slots_used, FXP_SLOTS);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 10, 4, 1, &call);
    for (uint64_t id = 10; id < 14; id++) {
        assert_int_not_equal(fxp_child_of(&fx, id), FXP_NONE);
    }
    assert_int_equal(fx_stats(&fx).slots_used, FXP_SLOTS);
    fx_deinit(&fx);
}

static void calls_of_no_pool_here_are_handed_back(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    struct hp_st_task_options call = fxp_call(9);
    fx_assign(&fx, 1, 2, 1, &call);
    (void)fx_find(&fx, HP_METHOD_WORKER_RELEASE);
    assert_int_equal(fx_stats(&fx).released_total, 2);
    assert_int_equal(fx_stats(&fx).held, 0);
    fx_deinit(&fx);
}

/* --------------------------------------------------------------------------------------- recycling
 */

static void a_child_is_given_no_more_calls_than_it_may_run(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, FXP_SLOTS);
    fx_up(&fx);
    struct hp_st_task_options options = fxp_options();
    options.calls_per_child = 3;
    options.has |= HP_HAS_ST_TASK_OPTIONS_CALLS_PER_CHILD;
    fxp_order_with(&fx, 7, 1, &options);
    assert_int_equal(fx_last(&fx, HP_AGENT_CHILD_START, 0)->calls_max, 3);
    fxp_up(&fx, FXP_SLOTS);
    measure(&fx, 1, 100);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 10, 5, 1, &call);
    assert_int_equal(given_to(&fx, FXP_SLOTS, 10, 5), 2);
    fx_handed_back(&fx, 11); /* what comes back was no call: the child takes it again */
    assert_int_equal(given_to(&fx, FXP_SLOTS, 10, 5), 2);
    assert_int_equal(fx_count(&fx, HP_AGENT_CALL), 4);
    fx_result(&fx, 10, 100);
    fx_result(&fx, 11, 100);
    assert_int_equal(fxp_child_of(&fx, 12), FXP_NONE);
    /* The next one is set up while the last one ends. */
    assert_int_equal(fxp_count(&fx, HP_AGENT_CHILD_START, FXP_SLOTS + 1), 1);
    fxp_up(&fx, FXP_SLOTS + 1);
    assert_int_equal(given_to(&fx, FXP_SLOTS + 1, 12, 3), 3);
    fxp_recycled(&fx, FXP_SLOTS);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 2);
    fx_deinit(&fx);
}

/* Where all slots are in use, the next child waits for the last one's. */
static void the_next_child_takes_the_slot_of_the_last(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, FXP_SLOTS);
    fx_up(&fx);
    struct hp_st_task_options options = fxp_options();
    options.calls_per_child = 1;
    options.has |= HP_HAS_ST_TASK_OPTIONS_CALLS_PER_CHILD;
    fxp_order_with(&fx, 7, FX_CHILDREN_MAX, &options);
    struct hp_st_task_options call = fxp_call(7);
    for (uint32_t i = 0; i < FX_CHILDREN_MAX; i++) {
        fxp_up(&fx, FXP_SLOTS + i);
    }
    fx_assign(&fx, 1, FX_CHILDREN_MAX, 1, &call);
    for (uint64_t id = 1; id <= FX_CHILDREN_MAX; id++) {
        fx_result(&fx, id, 100);
    }
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), FX_CHILDREN_MAX);
    for (uint32_t i = 0; i < FX_CHILDREN_MAX; i++) {
        fxp_recycled(&fx, FXP_SLOTS + i);
        assert_int_equal(fxp_count(&fx, HP_AGENT_CHILD_START, FXP_SLOTS + i), 2);
    }
    fx_deinit(&fx);
}

/* ------------------------------------------------------------------------------------------ deaths
 */

static void a_death_ends_one_call(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    measure(&fx, 1, 100);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 10, 3, 1, &call);
    fxp_died(&fx, 10, SIGSEGV);
    struct hp_st_task_end end = end_of(&fx, 10, HP_REASON_CHILD_SIGNAL);
    assert_int_equal(end.signal, SIGSEGV);
    assert_int_equal(end.maxrss_kb, 77);
    assert_int_equal(end.err.size, 10);
    assert_memory_equal(end.err.data, "last words", 10);
    fx_handed_back(&fx, 12);
    fx_handed_back(&fx, 11);
    fxp_gone(&fx, FXP_SLOTS);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 2);
    fxp_up(&fx, FXP_SLOTS);
    assert_int_equal(fx_count(&fx, HP_AGENT_CALL), 1 + 3 + 2);
    fx_result(&fx, 11, 100);
    fx_expect_end(&fx, 11, HP_REASON_NONE);
    fx_result(&fx, 12, 100);
    fx_expect_end(&fx, 12, HP_REASON_NONE);
    fx_deinit(&fx);
}

static void calls_that_kill_their_child_do_not_slow_the_pool(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    struct hp_st_task_options call = fxp_call(7);
    for (uint64_t id = 1; id <= 20; id++) {
        fx_assign(&fx, id, 1, 1, &call);
        fxp_died(&fx, id, SIGSEGV);
        fx_expect_end(&fx, id, HP_REASON_CHILD_SIGNAL);
        fxp_gone(&fx, FXP_SLOTS);
        assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 1 + id);
        fxp_up(&fx, FXP_SLOTS);
    }
    fx_deinit(&fx);
}

static void children_that_die_by_themselves_are_started_with_pauses(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 1 + i);
        fxp_up(&fx, FXP_SLOTS);
        fxp_gone(&fx, FXP_SLOTS);
    }
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 4);
    fx_pass(&fx, 100);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 5);
    fxp_up(&fx, FXP_SLOTS);
    measure(&fx, 1, 100); /* one that works ends the row */
    fxp_gone(&fx, FXP_SLOTS);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 6);
    fx_deinit(&fx);
}

/* The end of a child was on its way when calls were given to it: they are refused after it. */
static void calls_refused_by_a_child_that_has_gone_go_elsewhere(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 1, 1, 1, &call);
    struct hp_agent_event events[] = {
        {.kind = HP_AGENT_EXEC_CHILD_DOWN, .child = FXP_SLOTS, .gone = true, .recycled = true},
        {.kind = HP_AGENT_EXEC_CHILD_DOWN, .child = FXP_SLOTS},
        {.kind = HP_AGENT_EXEC_HANDED_BACK, .key = fx_key(&fx, 1)},
    };
    fx_event(&fx, events[0]);
    hp_agent_exec(fx.agent, &events[1], 2, fx.now);
    fx_drain(&fx);
    uint32_t next = fx_last(&fx, HP_AGENT_CHILD_START, 0)->child;
    fxp_up(&fx, next);
    assert_int_equal(fxp_child_of(&fx, 1), next);
    fx_result(&fx, 1, 100);
    fx_expect_end(&fx, 1, HP_REASON_NONE);
    fx_deinit(&fx);
}

static void a_call_is_killed_by_its_timeout_and_by_a_cancel(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    struct hp_st_task_options call = fxp_call(7);
    call.hard_timeout_ms = 50;
    call.has |= HP_HAS_ST_TASK_OPTIONS_HARD_TIMEOUT_MS;
    fx_assign(&fx, 1, 1, 1, &call);
    fx_pass(&fx, 50);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGKILL);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->child, FXP_SLOTS);
    fxp_died(&fx, 1, SIGKILL);
    fx_expect_end(&fx, 1, HP_REASON_TIMEOUT);
    fxp_recycled(&fx, FXP_SLOTS); /* it was killed on order */
    fxp_up(&fx, FXP_SLOTS);
    fx_assign(&fx, 2, 1, 1, &call);
    struct hp_st_cancel_item item = {.has = HP_HAS_ST_CANCEL_ITEM_MODE,
                                     .id = 2,
                                     .attempt = 1,
                                     .epoch = 1,
                                     .mode = HP_CANCEL_MODE_FORCE};
    struct hp_msg_worker_control msg = {.has = HP_HAS_WORKER_CONTROL_CANCEL,
                                        .cancel = {.items = &item, .count = 1}};
    fx_notify(&fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &msg);
    fx_pass(&fx, 1);
    fxp_died(&fx, 2, SIGTERM);
    fx_expect_end(&fx, 2, HP_REASON_CANCELLED);
    fx_deinit(&fx);
}

static void the_fence_ends_calls(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    struct hp_st_task_options call = fxp_call(7);
    call.on_partition = HP_ON_PARTITION_KILL;
    call.has |= HP_HAS_ST_TASK_OPTIONS_ON_PARTITION;
    fx_assign(&fx, 1, 1, 1, &call);
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    fx_pass(&fx, FX_LEASE_MS);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGKILL);
    fxp_died(&fx, 1, SIGKILL);
    fxp_recycled(&fx, FXP_SLOTS);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 1); /* none while it is fenced */
    fx_deinit(&fx);
}

/* ------------------------------------------------------------------------------------------
 * results
 */

static void an_error_carries_bytes_and_what_was_printed(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 1, 1, 1, &call);
    fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_RESULT,
                                          .key = fx_key(&fx, 1),
                                          .outcome = HP_AGENT_OUTCOME_ERROR,
                                          .out = {.data = (const uint8_t *)"pickle", .size = 6},
                                          .log_out = {.data = (const uint8_t *)"hm", .size = 2},
                                          .log_err = {.data = (const uint8_t *)"oh!", .size = 3},
                                          .error = HP_STR("ValueError: bad")});
    struct hp_st_task_end end = end_of(&fx, 1, HP_REASON_ERROR);
    assert_memory_equal(end.result.data, "pickle", 6);
    assert_memory_equal(end.out.data, "hm", 2);
    assert_memory_equal(end.err.data, "oh!", 3);
    assert_memory_equal(end.error.data, "ValueError: bad", 15);
    fx_deinit(&fx);
}

static void results_that_are_not_durable_are_never_spooled(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    struct hp_st_task_options call = fxp_call(7);
    call.durable = false;
    call.has |= HP_HAS_ST_TASK_OPTIONS_DURABLE;
    fx_assign(&fx, 1, 1, 1, &call);
    static uint8_t large[100000];
    fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_RESULT,
                                          .key = fx_key(&fx, 1),
                                          .outcome = HP_AGENT_OUTCOME_OK,
                                          .out = {.data = large, .size = sizeof(large)}});
    (void)fx_find(&fx, HP_METHOD_BLOB_OPEN);
    struct hp_msg_blob_open open;
    assert_int_equal(hp_msg_blob_open_decode(fx.rpc.params, &fx.arena, &open, NULL), HP_OK);
    assert_false(open.durable);
    fx_assign(&fx, 2, 1, 1, &call);
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    fx_drain(&fx);
    fx_result(&fx, 2, 100);
    fx_pass(&fx, 5000);
    assert_int_equal(fx_count(&fx, HP_AGENT_SPOOL_APPEND), 0);
    fx_deinit(&fx);
}

/* ------------------------------------------------------------------------------------------
 * waiting
 */

static void one_more_child_while_one_waits(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    measure(&fx, 1, 100);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 10, 2, 1, &call);
    fxp_waits(&fx, FXP_SLOTS, true);
    assert_int_equal(fxp_read_reports(&fx).waiting, 1);
    assert_int_equal(fxp_count(&fx, HP_AGENT_RECALL, FXP_SLOTS), 1);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 1); /* nothing waits yet */
    fx_handed_back(&fx, 11);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 2);
    fxp_up(&fx, FXP_SLOTS + 1);
    assert_int_equal(fxp_child_of(&fx, 11), FXP_SLOTS + 1);
    fx_result(&fx, 11, 100);
    fx_expect_end(&fx, 11, HP_REASON_NONE);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_STOP), 0); /* the next one may come */
    fxp_waits(&fx, FXP_SLOTS, false);
    assert_int_equal(fx_last(&fx, HP_AGENT_CHILD_STOP, 0)->child, FXP_SLOTS + 1);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_STOP), 1);
    fxp_recycled(&fx, FXP_SLOTS + 1);
    fx_result(&fx, 10, 100);
    assert_int_equal(fxp_read_reports(&fx).waiting, 0);
    fx_deinit(&fx);
}

static void a_child_that_waits_is_given_nothing(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 2);
    measure(&fx, 1, 100);
    struct hp_st_task_options call = fxp_call(7);
    fx_assign(&fx, 10, 1, 1, &call);
    uint32_t waiter = fxp_child_of(&fx, 10);
    fxp_waits(&fx, waiter, true);
    fx_assign(&fx, 20, 1, 1, &call);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 2); /* the other one takes it */
    fx_result(&fx, 20, 100);
    fx_assign(&fx, 21, 10, 1, &call);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 3); /* two are to run at once */
    assert_int_equal(given_to(&fx, waiter, 20, 11), 0);
    fx_deinit(&fx);
}

/* Calls inside calls: each level waits for the next, which needs a child of its own. */
static void nested_calls_get_a_child_each(void **state)
{
    (void)state;
    struct fx fx;
    fxp_init(&fx, 1);
    struct hp_st_task_options call = fxp_call(7);
    for (uint32_t level = 0; level < 8; level++) {
        fx_assign(&fx, 10 + level, 1, 1, &call);
        if (level > 0) {
            fxp_up(&fx, FXP_SLOTS + level);
        }
        assert_int_equal(fxp_child_of(&fx, 10 + level), FXP_SLOTS + level);
        fxp_waits(&fx, FXP_SLOTS + level, true);
    }
    fx_assign(&fx, 18, 1, 1, &call); /* children_max is reached: it has to wait */
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 8);
    fxp_waits(&fx, FXP_SLOTS + 7, false);
    fx_result(&fx, 17, 100);
    assert_int_equal(fxp_child_of(&fx, 18), FXP_SLOTS + 7);
    fx_deinit(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_waits_for_a_child_and_goes_at_once),
        cmocka_unit_test(short_calls_are_given_ahead_to_all_children),
        cmocka_unit_test(pools_are_measured_and_filled_apart),
        cmocka_unit_test(an_idle_child_gets_calls_from_a_busy_one),
        cmocka_unit_test(unstarted_calls_are_recalled),
        cmocka_unit_test(pools_hold_no_slots),
        cmocka_unit_test(calls_of_no_pool_here_are_handed_back),
        cmocka_unit_test(a_child_is_given_no_more_calls_than_it_may_run),
        cmocka_unit_test(the_next_child_takes_the_slot_of_the_last),
        cmocka_unit_test(a_death_ends_one_call),
        cmocka_unit_test(calls_that_kill_their_child_do_not_slow_the_pool),
        cmocka_unit_test(children_that_die_by_themselves_are_started_with_pauses),
        cmocka_unit_test(calls_refused_by_a_child_that_has_gone_go_elsewhere),
        cmocka_unit_test(a_call_is_killed_by_its_timeout_and_by_a_cancel),
        cmocka_unit_test(the_fence_ends_calls),
        cmocka_unit_test(an_error_carries_bytes_and_what_was_printed),
        cmocka_unit_test(results_that_are_not_durable_are_never_spooled),
        cmocka_unit_test(one_more_child_while_one_waits),
        cmocka_unit_test(a_child_that_waits_is_given_nothing),
        cmocka_unit_test(nested_calls_get_a_child_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
