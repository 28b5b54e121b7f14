/* SPDX-License-Identifier: BSD-2-Clause */
/* What an agent keeps over a lost connection, a death and its limits: and what it must not. */
#include <xxhash.h>

#include "tests/unit/agent_fixture.h"

static void nothing_of_an_old_connection_goes_to_the_next(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    struct hp_agent_event end = {.kind = HP_AGENT_EXEC_ENDED, .key = fx_key(&fx, 10)};
    hp_agent_exec(fx.agent, &end, 1, fx.now);
    assert_true(hp_agent_output(fx.agent).size > 0); /* composed, and not sent yet */
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    assert_int_equal(hp_agent_output(fx.agent).size, 0);
    fx_drain(&fx);
    fx_connect(&fx);
    fx_answer_hello(&fx, 1); /* the first frame */
    uint32_t msgid = fx_expect(&fx, HP_METHOD_WORKER_DONE);
    struct hp_msg_worker_done done;
    assert_int_equal(hp_msg_worker_done_decode(fx.rpc.params, &fx.arena, &done, NULL), HP_OK);
    assert_int_equal(done.items.count, 1);
    fx_answer_register(&fx);
    struct hp_msg_worker_done_reply reply = {0};
    fx_reply(&fx, msgid, &hp_desc_msg_worker_done_reply, &reply);
    assert_int_equal(fx_stats(&fx).held, 0);
    fx_deinit(&fx);
}

static void half_a_frame_of_an_old_connection_is_forgotten(void **state)
{
    (void)state;
    struct fx fx;
    static const uint8_t part[] = {0x93, 0x02, 0xad, 'w', 'o'};
    fx_init(&fx, 1);
    fx_up(&fx);
    hp_agent_received(fx.agent, part, sizeof(part), fx.now);
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    fx_up(&fx);
    assert_int_equal(fx_stats(&fx).held, 0);
    fx_deinit(&fx);
}

/* The end of a run, told as a boot after its own tells it. */
static struct hp_st_done_item after_a_death(struct fx *fx)
{
    struct hp_bin record = fx_last(fx, HP_AGENT_SPOOL_APPEND, 0)->record;
    hp_agent_free(fx->agent);
    fx->seen_count = 0;
    fx->connect_from = 0;
    fx_make_agent(fx);
    hp_agent_spool_loaded(fx->agent, 5, record);
    fx_connect(fx);
    fx_answer_hello(fx, 9); /* the broker has started again as well */
    struct hp_msg_worker_done done;
    (void)fx_expect(fx, HP_METHOD_WORKER_DONE);
    assert_int_equal(hp_msg_worker_done_decode(fx->rpc.params, &fx->arena, &done, NULL), HP_OK);
    assert_int_equal(done.items.count, 1);
    return done.items.items[0];
}

static void the_spool_keeps_all_of_an_end(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    fx_child(&fx, 0, true);
    struct hp_st_task_options options = fx_function("noop");
    fx_assign(&fx, 10, 1, 7, &options);
    fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_RESULT,
                                          .key = fx_key(&fx, 10),
                                          .outcome = HP_AGENT_OUTCOME_RETRY,
                                          .retry_ms = 4321,
                                          .error = HP_STR("not yet"),
                                          .run_us = 5});
    fx_pass(&fx, 1000); /* no answer: spooled */
    struct hp_st_done_item item = after_a_death(&fx);
    assert_int_equal(item.id, 10);
    assert_int_equal(item.attempt, 7);
    assert_int_equal(item.epoch, 1); /* of its dispatch */
    assert_int_equal(item.reason, HP_REASON_ERROR);
    assert_true((item.has & HP_HAS_ST_DONE_ITEM_RETRY_MS) != 0);
    assert_int_equal(item.retry_ms, 4321);
    fx_deinit(&fx);
}

static void records_of_another_shape_are_refused(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 7, &options);
    fx_exited(&fx, 10, 0, 0);
    fx_pass(&fx, 1000);
    struct hp_bin record = fx_last(&fx, HP_AGENT_SPOOL_APPEND, 0)->record;
    /* version, count of parts, size of the item, the item's first byte */
    static const struct {
        uint32_t at;
        uint8_t value;
    } damages[] = {{0, 2}, {0, 0}, {1, 1}, {1, 200}, {2, 1}, {2, 0xff}, {5, 0}, {6, 0xc0}};
    for (size_t i = 0; i < HP_COUNT_OF(damages); i++) {
        struct hp_agent *agent = NULL;
        struct hp_agent_stats stats;
        uint8_t *copy = hp_memdup(record.data, record.size);
        copy[damages[i].at] = damages[i].value;
        assert_int_equal(hp_agent_new(&fx.config, 0, &agent, NULL), HP_OK);
        hp_agent_spool_loaded(agent, 1, (struct hp_bin){.data = copy, .size = record.size});
        hp_agent_get_stats(agent, &stats);
        assert_int_equal(stats.held, 0);
        hp_free(copy);
        hp_agent_free(agent);
    }
    fx_deinit(&fx);
}

static void a_hard_timeout_alone_is_a_timeout(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    fx_child(&fx, 0, true);
    struct hp_st_task_options options = fx_command();
    options.hard_timeout_ms = 500;
    options.has |= HP_HAS_ST_TASK_OPTIONS_HARD_TIMEOUT_MS;
    fx_assign(&fx, 10, 1, 1, &options);
    fx_pass(&fx, 500);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGKILL);
    fx_exited(&fx, 10, 0, SIGKILL);
    fx_expect_end(&fx, 10, HP_REASON_TIMEOUT);
    options = fx_function("noop");
    options.hard_timeout_ms = 500;
    options.has |= HP_HAS_ST_TASK_OPTIONS_HARD_TIMEOUT_MS;
    fx_assign(&fx, 11, 1, 1, &options);
    fx_pass(&fx, 500);
    fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_RESULT,
                                          .key = fx_key(&fx, 11),
                                          .outcome = HP_AGENT_OUTCOME_DIED,
                                          .signal = SIGKILL});
    fx_expect_end(&fx, 11, HP_REASON_TIMEOUT);
    fx_deinit(&fx);
}

static void what_ignores_a_soft_timeout_is_killed(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    options.soft_timeout_ms = 1000;
    options.kill_grace_ms = 2000;
    options.has |= HP_HAS_ST_TASK_OPTIONS_SOFT_TIMEOUT_MS | HP_HAS_ST_TASK_OPTIONS_KILL_GRACE_MS;
    fx_assign(&fx, 10, 1, 1, &options);
    fx_pass(&fx, 1000);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGTERM);
    fx_pass(&fx, 1999);
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), 1);
    fx_pass(&fx, 1);
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), 2);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGKILL);
    fx_exited(&fx, 10, 0, SIGKILL);
    fx_expect_end(&fx, 10, HP_REASON_TIMEOUT);
    fx_deinit(&fx);
}

/* An assignment and the order to drain may cross. */
static void a_drained_agent_hands_back_what_still_comes(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 4);
    fx_up(&fx);
    struct hp_msg_worker_control control = {.has = HP_HAS_WORKER_CONTROL_DRAINING,
                                            .draining = true};
    fx_notify(&fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &control);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 2, 1, &options);
    assert_int_equal(fx_count(&fx, HP_AGENT_RUN), 0);
    (void)fx_find(&fx, HP_METHOD_WORKER_RELEASE);
    struct hp_msg_worker_release release;
    assert_int_equal(hp_msg_worker_release_decode(fx.rpc.params, &fx.arena, &release, NULL), HP_OK);
    assert_int_equal(release.runs.count, 2);
    assert_int_equal(release.runs.items[0].id, 10);
    control.draining = false;
    fx_notify(&fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &control);
    fx_assign(&fx, 10, 1, 2, &options);
    assert_int_equal(fx_count(&fx, HP_AGENT_RUN), 1);
    fx_deinit(&fx);
}

/* Else it would last longer here than at the broker, by the way of the answer. */
static void the_lease_runs_from_the_question(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    fx_pass(&fx, FX_HEARTBEAT_MS);
    uint32_t msgid = fx_find(&fx, HP_METHOD_WORKER_HEARTBEAT);
    uint64_t asked = fx.now;
    fx_pass(&fx, 4000);
    struct hp_msg_worker_heartbeat_reply reply = {.lease_ms = FX_LEASE_MS};
    fx_reply(&fx, msgid, &hp_desc_msg_worker_heartbeat_reply, &reply);
    assert_int_equal(fx_last(&fx, HP_AGENT_SET_DEADLINE, 0)->deadline_ms,
                     asked + FX_LEASE_MS * 9 / 10);
    struct hp_st_task_options options = fx_command();
    options.on_partition = HP_ON_PARTITION_KILL;
    options.has |= HP_HAS_ST_TASK_OPTIONS_ON_PARTITION;
    fx_assign(&fx, 10, 1, 1, &options);
    uint64_t fence = asked + FX_LEASE_MS * 3 / 4;
    fx_pass(&fx, fence - 1 - fx.now);
    assert_null(fx_last(&fx, HP_AGENT_KILL, 0));
    fx_pass(&fx, 1);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGTERM);
    fx_deinit(&fx);
}

static void runs_of_two_epochs_are_two(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 2);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    uint64_t first = fx_key(&fx, 10);
    struct hp_st_run_ref other = {.id = 10, .attempt = 1, .epoch = 2};
    struct hp_msg_worker_control control = {.has = HP_HAS_WORKER_CONTROL_KILL,
                                            .kill = {.items = &other, .count = 1}};
    fx_notify(&fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &control);
    assert_null(fx_last(&fx, HP_AGENT_KILL, 0));
    struct hp_st_assign_run run = {.has = HP_HAS_ST_ASSIGN_RUN_COUNT,
                                   .first = 10,
                                   .count = 1,
                                   .attempt = 1,
                                   .epoch = 2,
                                   .group = 10,
                                   .options = options};
    struct hp_msg_worker_assign msg = {.runs = {.items = &run, .count = 1}};
    fx_notify(&fx, HP_METHOD_WORKER_ASSIGN, &hp_desc_msg_worker_assign, &msg);
    uint64_t second = fx_key(&fx, 10);
    assert_int_not_equal(second, first);
    fx_notify(&fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &control);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->key, second);
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), 1);
    fx_deinit(&fx);
}

static void an_assignment_that_comes_twice_is_one(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 4);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    fx_assign(&fx, 10, 1, 1, &options);
    assert_int_equal(fx_count(&fx, HP_AGENT_RUN), 1);
    assert_int_equal(fx_stats(&fx).held, 1);
    fx_assign(&fx, 10, 1, 2, &options); /* another attempt is another run */
    assert_int_equal(fx_count(&fx, HP_AGENT_RUN), 2);
    fx_deinit(&fx);
}

/* Else the broker takes them for lost, and runs their tasks again. */
static void results_that_wait_are_named_at_the_registration(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    fx_exited(&fx, 10, 0, 0);
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    fx_drain(&fx);
    fx_connect(&fx);
    fx_answer_hello(&fx, 1);
    struct hp_msg_worker_done done;
    fx_refuse(&fx, fx_expect_done(&fx, &done), HP_RPC_ERROR_BUSY); /* it is to come later */
    (void)fx_find(&fx, HP_METHOD_WORKER_REGISTER);
    struct hp_msg_worker_register msg;
    assert_int_equal(hp_msg_worker_register_decode(fx.rpc.params, &fx.arena, &msg, NULL), HP_OK);
    uint32_t named = msg.runs.count;
    if (named == 0) { /* asked before the refusal came: the done spoke for it */
        struct hp_msg_worker_register_reply reply = {.lease_ms = FX_LEASE_MS,
                                                     .heartbeat_ms = FX_HEARTBEAT_MS};
        fx_reply(&fx, fx.rpc.msgid, &hp_desc_msg_worker_register_reply, &reply);
        hp_agent_drain(fx.agent, 60000, fx.now); /* which registers anew */
        (void)fx_find(&fx, HP_METHOD_WORKER_REGISTER);
        assert_int_equal(hp_msg_worker_register_decode(fx.rpc.params, &fx.arena, &msg, NULL),
                         HP_OK);
        named = msg.runs.count;
    }
    assert_int_equal(named, 1);
    assert_int_equal(msg.runs.items[0].id, 10);
    fx_deinit(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_of_an_old_connection_goes_to_the_next),
        cmocka_unit_test(half_a_frame_of_an_old_connection_is_forgotten),
        cmocka_unit_test(the_spool_keeps_all_of_an_end),
        cmocka_unit_test(records_of_another_shape_are_refused),
        cmocka_unit_test(a_hard_timeout_alone_is_a_timeout),
        cmocka_unit_test(what_ignores_a_soft_timeout_is_killed),
        cmocka_unit_test(a_drained_agent_hands_back_what_still_comes),
        cmocka_unit_test(the_lease_runs_from_the_question),
        cmocka_unit_test(runs_of_two_epochs_are_two),
        cmocka_unit_test(an_assignment_that_comes_twice_is_one),
        cmocka_unit_test(results_that_wait_are_named_at_the_registration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
