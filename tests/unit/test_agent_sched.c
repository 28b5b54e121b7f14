/* SPDX-License-Identifier: BSD-2-Clause */
/* The agent's slots and function children: shares, prefetch, recall, order between kinds. */
#include "tests/unit/agent_fixture.h"

static void up_with_children(struct fx *fx, uint32_t slots)
{
    fx_init(fx, slots);
    fx_up(fx);
    for (uint32_t i = 0; i < slots; i++) {
        fx_child(fx, i, true);
    }
}

/* Teaches the agent that calls of `noop` are short. */
static void measure(struct fx *fx, const struct hp_st_task_options *options)
{
    fx_assign(fx, 1, 1, 1, options);
    fx_result(fx, 1, 50);
    fx_expect_end(fx, 1, HP_REASON_NONE);
    fx->seen_count = 0;
    fx->connect_from = 0;
}

static uint32_t given_to(const struct fx *fx, uint32_t child)
{
    uint32_t count = 0;
    for (size_t i = 0; i < fx->seen_count; i++) {
        count += fx->seen[i].kind == HP_AGENT_CALL && fx->seen[i].child == child;
    }
    return count;
}

static void unknown_functions_go_one_at_a_time(void **state)
{
    (void)state;
    struct fx fx;
    up_with_children(&fx, 2);
    struct hp_st_task_options options = fx_function("slow");
    fx_assign(&fx, 10, 5, 1, &options);
    assert_int_equal(given_to(&fx, 0), 1);
    assert_int_equal(given_to(&fx, 1), 1);
    assert_int_equal(fx_stats(&fx).slots_used, 2);
    fx_result(&fx, 10, 50000);
    assert_int_equal(given_to(&fx, 0), 2);
    fx_deinit(&fx);
}

static void short_ones_are_shared_out(void **state)
{
    (void)state;
    struct fx fx;
    up_with_children(&fx, 2);
    struct hp_st_task_options options = fx_function("noop");
    measure(&fx, &options);
    fx_assign(&fx, 10, 100, 1, &options);
    assert_int_equal(given_to(&fx, 0), 50);
    assert_int_equal(given_to(&fx, 1), 50);
    fx_deinit(&fx);
}

static void slow_call_gives_the_rest_back(void **state)
{
    (void)state;
    struct fx fx;
    up_with_children(&fx, 1);
    struct hp_st_task_options options = fx_function("noop");
    measure(&fx, &options);
    fx_assign(&fx, 10, 20, 1, &options);
    assert_int_equal(given_to(&fx, 0), 20);
    fx_pass(&fx, 9);
    assert_null(fx_last(&fx, HP_AGENT_RECALL, 0));
    fx_pass(&fx, 1);
    assert_non_null(fx_last(&fx, HP_AGENT_RECALL, 0));
    for (uint64_t id = 29; id > 10; id--) {
        fx_handed_back(&fx, id);
    }
    assert_int_equal(fx_stats(&fx).waiting, 19);
    assert_int_equal(given_to(&fx, 0), 20); /* none goes back behind the slow one */
    fx_pass(&fx, 10);
    (void)fx_find(&fx, HP_METHOD_WORKER_STARTED);
    struct hp_msg_worker_started started;
    assert_int_equal(hp_msg_worker_started_decode(fx.rpc.params, &fx.arena, &started, NULL), HP_OK);
    assert_int_equal(started.runs.count, 1);
    assert_int_equal(started.runs.items[0].id, 10);
    fx_result(&fx, 10, 30000);
    assert_true(given_to(&fx, 0) > 20);
    assert_int_equal(fx_last(&fx, HP_AGENT_CALL, 11)->id, 11); /* in the old order */
    fx_deinit(&fx);
}

static void idle_child_takes_from_a_busy_one(void **state)
{
    (void)state;
    struct fx fx;
    up_with_children(&fx, 2);
    struct hp_st_task_options options = fx_function("noop");
    fx_assign(&fx, 1, 1, 1, &options);
    fx_result(&fx, 1, 900);
    fx_assign(&fx, 10, 20, 1, &options);
    assert_int_equal(given_to(&fx, 1), 10);
    for (uint64_t id = 20; id < 30; id++) {
        fx_result(&fx, id, 900); /* child 1 is done; child 0 has not even begun */
    }
    struct fx_seen *recall = fx_last(&fx, HP_AGENT_RECALL, 0);
    assert_non_null(recall);
    assert_int_equal(recall->child, 0);
    for (uint64_t id = 19; id > 10; id--) {
        fx_handed_back(&fx, id);
    }
    assert_true(given_to(&fx, 1) > 10);
    fx_deinit(&fx);
}

static void commands_and_calls_keep_their_order(void **state)
{
    (void)state;
    struct fx fx;
    up_with_children(&fx, 2);
    struct hp_st_task_options command = fx_command();
    struct hp_st_task_options wide = command;
    wide.cpus = 2;
    wide.has |= HP_HAS_ST_TASK_OPTIONS_CPUS;
    struct hp_st_task_options call = fx_function("slow");
    fx_assign(&fx, 10, 1, 1, &command);
    fx_assign(&fx, 11, 1, 1, &wide); /* does not fit yet, and is not passed by */
    fx_assign(&fx, 12, 1, 1, &call);
    assert_true(fx_key(&fx, 10) != 0);
    assert_int_equal(fx_key(&fx, 11), 0);
    assert_int_equal(fx_key(&fx, 12), 0);
    fx_exited(&fx, 10, 0, 0);
    assert_true(fx_key(&fx, 11) != 0);
    assert_int_equal(fx_key(&fx, 12), 0);
    assert_int_equal(fx_stats(&fx).slots_used, 2);
    fx_exited(&fx, 11, 0, 0);
    assert_true(fx_key(&fx, 12) != 0);
    fx_deinit(&fx);
}

static void calls_without_children_hold_nothing_up(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options call = fx_function("slow");
    struct hp_st_task_options command = fx_command();
    fx_assign(&fx, 10, 1, 1, &call);
    fx_assign(&fx, 11, 1, 1, &command);
    assert_true(fx_key(&fx, 11) != 0);
    fx_child(&fx, 0, true);
    assert_int_equal(fx_key(&fx, 10), 0); /* its slot is taken */
    fx_exited(&fx, 11, 0, 0);
    assert_true(fx_key(&fx, 10) != 0);
    fx_deinit(&fx);
}

static void unfit_tasks_end_at_once(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options call = fx_function("nowhere");
    fx_assign(&fx, 10, 1, 1, &call);
    fx_expect_end(&fx, 10, HP_REASON_NO_FUNCTION);
    struct hp_st_task_options empty = fx_command();
    empty.argv.count = 0;
    fx_assign(&fx, 11, 1, 1, &empty);
    fx_expect_end(&fx, 11, HP_REASON_NOT_STARTED);
    fx_deinit(&fx);
}

static void array_indices(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 2);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    options.array_base = 100;
    options.array_step = 5;
    options.has |= HP_HAS_ST_TASK_OPTIONS_ARRAY_BASE | HP_HAS_ST_TASK_OPTIONS_ARRAY_STEP;
    fx_assign(&fx, 10, 2, 1, &options);
    assert_int_equal(fx_last(&fx, HP_AGENT_RUN, 11)->array_index, 105);
    fx_deinit(&fx);
}

static void recall_by_the_broker(void **state)
{
    (void)state;
    struct fx fx;
    up_with_children(&fx, 1);
    struct hp_st_task_options options = fx_function("noop");
    measure(&fx, &options);
    fx_assign(&fx, 10, 10, 1, &options);
    struct hp_st_run_ref refs[5];
    uint64_t ids[5] = {19, 18, 17, 10, 16}; /* 10 has begun */
    for (int i = 0; i < 5; i++) {
        refs[i] = fx_ref(ids[i], 1);
    }
    struct hp_msg_worker_control msg = {.has = HP_HAS_WORKER_CONTROL_RECALL_RUNS,
                                        .recall_runs = {.items = refs, .count = 5}};
    fx_notify(&fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &msg);
    assert_non_null(fx_last(&fx, HP_AGENT_RECALL, 0));
    struct hp_agent_event events[9];
    for (uint64_t i = 0; i < 9; i++) {
        events[i] =
            (struct hp_agent_event){.kind = HP_AGENT_EXEC_HANDED_BACK, .key = fx_key(&fx, 19 - i)};
    }
    hp_agent_exec(fx.agent, events, 9, fx.now);
    (void)fx_find(&fx, HP_METHOD_WORKER_RELEASE);
    struct hp_msg_worker_release release;
    assert_int_equal(hp_msg_worker_release_decode(fx.rpc.params, &fx.arena, &release, NULL), HP_OK);
    assert_int_equal(release.runs.count, 4);
    assert_int_equal(release.runs.items[0].id, 19);
    assert_int_equal(fx_stats(&fx).held, 6);
    fx_deinit(&fx);
}

static void too_many_are_handed_back(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 1, HP_AGENT_RUNS_MAX + 10, 1, &options);
    assert_int_equal(fx_stats(&fx).held, HP_AGENT_RUNS_MAX);
    (void)fx_find(&fx, HP_METHOD_WORKER_RELEASE);
    fx_deinit(&fx);
}

/* worker.done calls that left since this was asked last. */
static uint32_t count_dones(struct fx *fx)
{
    uint32_t count = 0;
    while (fx_next(fx)) {
        count += fx->rpc.method == HP_METHOD_WORKER_DONE;
    }
    return count;
}

/* Ends of commands are told together, while others wait for the slot; not for ever, and at once
 * when nothing waits. */
static void ends_gather_while_commands_wait(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 4, 1, &options);
    fx_exited(&fx, 10, 0, 0);
    fx_exited(&fx, 11, 0, 0);
    assert_int_equal(count_dones(&fx), 0);
    assert_true(hp_agent_next_deadline_ms(fx.agent) <= fx.now + 4);
    fx_pass(&fx, 4);
    assert_int_equal(count_dones(&fx), 1); /* both in one */
    fx_exited(&fx, 12, 0, 0);              /* the last one begins */
    assert_int_equal(count_dones(&fx), 1);
    fx_deinit(&fx);
}

/* So are those of functions; 16 are company enough. */
static void ends_of_functions_gather(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    fx_child(&fx, 0, true);
    struct hp_st_task_options options = fx_function("noop");
    fx_assign(&fx, 1, 1, 1, &options);
    fx_result(&fx, 1, 10);
    assert_int_equal(count_dones(&fx), 1); /* nothing waits */
    fx_assign(&fx, 10, 20, 1, &options);
    for (uint64_t id = 10; id < 25; id++) {
        fx_result(&fx, id, 10);
    }
    assert_int_equal(count_dones(&fx), 0);
    fx_result(&fx, 25, 10);
    assert_int_equal(count_dones(&fx), 1);
    fx_result(&fx, 26, 10);
    fx_pass(&fx, 4);
    assert_int_equal(count_dones(&fx), 1);
    fx_deinit(&fx);
}

/* A command that waits for a slot goes back when the broker asks for it; one that runs stays. */
static void waiting_commands_are_recalled(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 3, 1, &options);
    struct hp_st_run_ref refs[] = {fx_ref(10, 1), fx_ref(12, 1)};
    struct hp_msg_worker_control control = {.has = HP_HAS_WORKER_CONTROL_RECALL_RUNS,
                                            .recall_runs = {.items = refs, .count = 2}};
    fx_notify(&fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &control);
    assert_int_equal(fx_stats(&fx).released_total, 1);
    assert_int_equal(fx_stats(&fx).held, 2);
    fx_exited(&fx, 10, 0, 0);
    assert_int_equal(fx_count(&fx, HP_AGENT_RUN), 2);
    fx_deinit(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends_gather_while_commands_wait),
        cmocka_unit_test(ends_of_functions_gather),
        cmocka_unit_test(waiting_commands_are_recalled),
        cmocka_unit_test(unknown_functions_go_one_at_a_time),
        cmocka_unit_test(short_ones_are_shared_out),
        cmocka_unit_test(slow_call_gives_the_rest_back),
        cmocka_unit_test(idle_child_takes_from_a_busy_one),
        cmocka_unit_test(commands_and_calls_keep_their_order),
        cmocka_unit_test(calls_without_children_hold_nothing_up),
        cmocka_unit_test(unfit_tasks_end_at_once),
        cmocka_unit_test(array_indices),
        cmocka_unit_test(recall_by_the_broker),
        cmocka_unit_test(too_many_are_handed_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
