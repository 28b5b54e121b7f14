/* SPDX-License-Identifier: BSD-2-Clause */
/* The agent ending runs on order: kill list, cancel, timeouts, self-fence, drain, stop. */
#include "tests/unit/agent_fixture.h"

static void control(struct fx *fx, struct hp_msg_worker_control msg)
{
    fx_notify(fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &msg);
}

static void cancel(struct fx *fx, uint64_t id, enum hp_cancel_mode mode, uint64_t grace_ms)
{
    struct hp_st_cancel_item item = {.has = HP_HAS_ST_CANCEL_ITEM_MODE |
                                            HP_HAS_ST_CANCEL_ITEM_GRACE_MS,
                                     .id = id,
                                     .attempt = 1,
                                     .epoch = 1,
                                     .mode = mode,
                                     .grace_ms = grace_ms};
    control(fx, (struct hp_msg_worker_control){.has = HP_HAS_WORKER_CONTROL_CANCEL,
                                               .cancel = {.items = &item, .count = 1}});
}

static void start_command(struct fx *fx, uint64_t id, const struct hp_st_task_options *options)
{
    fx_assign(fx, id, 1, 1, options);
    fx_started(fx, id);
}

static void cancel_force_terms_then_kills(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    start_command(&fx, 10, &options);
    cancel(&fx, 10, HP_CANCEL_MODE_FORCE, 500);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGTERM);
    fx_pass(&fx, 499);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGTERM);
    fx_pass(&fx, 1);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGKILL);
    cancel(&fx, 10, HP_CANCEL_MODE_FORCE, 500); /* named again by every heartbeat */
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), 2);
    fx_exited(&fx, 10, 0, SIGKILL);
    fx_expect_end(&fx, 10, HP_REASON_CANCELLED);
    fx_deinit(&fx);
}

static void cancel_soft_never_kills(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    start_command(&fx, 10, &options);
    cancel(&fx, 10, HP_CANCEL_MODE_SOFT, 500);
    fx_pass(&fx, 4000);
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), 1);
    fx_exited(&fx, 10, 0, 0); /* it had a success after all: that is what is reported */
    fx_expect_end(&fx, 10, HP_REASON_NONE);
    fx_deinit(&fx);
}

/* Who asked softly, and then loses patience, is heard. */
static void a_soft_cancel_may_be_forced_later(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    start_command(&fx, 10, &options);
    cancel(&fx, 10, HP_CANCEL_MODE_SOFT, 500);
    fx_pass(&fx, 1000);
    cancel(&fx, 10, HP_CANCEL_MODE_FORCE, 500);
    fx_pass(&fx, 499);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGTERM);
    fx_pass(&fx, 1);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGKILL);
    fx_deinit(&fx);
}

/* A cancel that went lost with its connection comes with the answers to heartbeats. */
static void heartbeats_name_cancels(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    start_command(&fx, 10, &options);
    struct hp_st_cancel_item item = {.has = HP_HAS_ST_CANCEL_ITEM_MODE,
                                     .id = 10,
                                     .attempt = 1,
                                     .epoch = 1,
                                     .mode = HP_CANCEL_MODE_SOFT};
    struct hp_msg_worker_heartbeat_reply reply = {.has = HP_HAS_WORKER_HEARTBEAT_REPLY_CANCEL,
                                                  .cancel = {.items = &item, .count = 1}};
    fx_heartbeat(&fx, &reply);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGTERM);
    fx_exited(&fx, 10, 0, SIGTERM);
    fx_expect_end(&fx, 10, HP_REASON_CANCELLED);
    fx_deinit(&fx);
}

static void cancel_of_a_waiting_one(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    start_command(&fx, 10, &options);
    fx_assign(&fx, 11, 1, 1, &options);
    cancel(&fx, 11, HP_CANCEL_MODE_QUEUED, 500);
    fx_expect_end(&fx, 11, HP_REASON_CANCELLED);
    cancel(&fx, 10, HP_CANCEL_MODE_QUEUED, 500); /* runs: not touched */
    assert_null(fx_last(&fx, HP_AGENT_KILL, 0));
    fx_deinit(&fx);
}

static void cancel_of_an_unclaimed_call(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    fx_child(&fx, 0, true);
    struct hp_st_task_options options = fx_function("noop");
    fx_assign(&fx, 1, 1, 1, &options);
    fx_result(&fx, 1, 10); /* measured: the next ones are given together */
    fx_expect_end(&fx, 1, HP_REASON_NONE);
    fx_assign(&fx, 10, 3, 1, &options);
    assert_true(fx_key(&fx, 12) != 0);
    cancel(&fx, 12, HP_CANCEL_MODE_FORCE, 500);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->key, fx_key(&fx, 12));
    fx_handed_back(&fx, 12);
    fx_pass(&fx, 5); /* it gathers company while others wait */
    fx_expect_end(&fx, 12, HP_REASON_CANCELLED);
    fx_deinit(&fx);
}

static void timeouts(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 2);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    options.soft_timeout_ms = 1000;
    options.hard_timeout_ms = 3000;
    options.kill_grace_ms = 60000;
    options.has |= HP_HAS_ST_TASK_OPTIONS_SOFT_TIMEOUT_MS | HP_HAS_ST_TASK_OPTIONS_HARD_TIMEOUT_MS |
                   HP_HAS_ST_TASK_OPTIONS_KILL_GRACE_MS;
    start_command(&fx, 10, &options);
    uint64_t started = fx.now;
    fx_pass(&fx, 999);
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), 0);
    fx_pass(&fx, 1);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGTERM);
    fx_pass(&fx, 1999);
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), 1);
    fx_pass(&fx, 1);
    assert_int_equal(fx.now - started, 3000);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGKILL);
    fx_exited(&fx, 10, 0, SIGKILL);
    fx_expect_end(&fx, 10, HP_REASON_TIMEOUT);
    fx_deinit(&fx);
}

static void timeout_of_a_call(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    fx_child(&fx, 0, true);
    struct hp_st_task_options options = fx_function("slow");
    options.hard_timeout_ms = 200;
    options.has |= HP_HAS_ST_TASK_OPTIONS_HARD_TIMEOUT_MS;
    fx_assign(&fx, 10, 2, 1, &options);
    fx_pass(&fx, 200);
    struct fx_seen *kill = fx_last(&fx, HP_AGENT_KILL, 0);
    assert_int_equal(kill->signal, SIGKILL);
    assert_int_equal(kill->child, 0);
    fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_RESULT,
                                          .key = fx_key(&fx, 10),
                                          .outcome = HP_AGENT_OUTCOME_DIED,
                                          .signal = SIGKILL});
    fx_child(&fx, 0, false);
    fx_expect_end(&fx, 10, HP_REASON_TIMEOUT);
    assert_int_equal(fx_key(&fx, 11), 0); /* waits for a new child */
    fx_child(&fx, 0, true);
    assert_true(fx_key(&fx, 11) != 0);
    fx_deinit(&fx);
}

static void deaths_have_causes(void **state)
{
    (void)state;
    static const struct {
        uint32_t signal;
        bool oom;
        enum hp_reason reason;
    } cases[] = {{SIGSEGV, false, HP_REASON_CHILD_SIGNAL},
                 {0, false, HP_REASON_CHILD_EXIT},
                 {SIGKILL, true, HP_REASON_OOM}};
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_function("slow");
    for (size_t i = 0; i < HP_COUNT_OF(cases); i++) {
        fx_child(&fx, 0, true);
        fx_assign(&fx, 10 + i, 1, 1, &options);
        fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_RESULT,
                                              .key = fx_key(&fx, 10 + i),
                                              .outcome = HP_AGENT_OUTCOME_DIED,
                                              .signal = cases[i].signal,
                                              .oom = cases[i].oom,
                                              .exit_code = 3,
                                              .error = HP_STR("last words\xff")});
        struct hp_msg_worker_done done;
        uint32_t msgid = fx_expect_done(&fx, &done);
        assert_int_equal(done.items.items[0].reason, cases[i].reason);
        struct hp_msg_worker_done_reply reply = {0};
        fx_reply(&fx, msgid, &hp_desc_msg_worker_done_reply, &reply);
        fx_child(&fx, 0, false);
    }
    fx_deinit(&fx);
}

static void fence_comes_before_the_lease_ends(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 3);
    fx_up(&fx);
    uint64_t lease_from = fx.now; /* the registration was sent and answered at this time */
    struct hp_st_task_options options = fx_command();
    start_command(&fx, 10, &options);
    struct hp_st_task_options stays = options;
    stays.on_partition = HP_ON_PARTITION_CONTINUE;
    stays.has |= HP_HAS_ST_TASK_OPTIONS_ON_PARTITION;
    start_command(&fx, 11, &stays);
    assert_int_equal(fx_last(&fx, HP_AGENT_SET_DEADLINE, 0)->deadline_ms,
                     lease_from + FX_LEASE_MS * 9 / 10);
    hp_agent_disconnected(fx.agent, "cable", fx.now);
    uint64_t fence = lease_from + FX_LEASE_MS * 3 / 4;
    fx_pass(&fx, fence - fx.now - 1);
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), 0);
    fx_pass(&fx, 1);
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), 1);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGTERM);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->key, fx_key(&fx, 10));
    fx_pass(&fx, FX_LEASE_MS * 3 / 20);
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), 2);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGKILL);
    assert_true(fx.now < lease_from + FX_LEASE_MS);
    assert_true(fx_stats(&fx).fenced);
    fx_exited(&fx, 10, 0, SIGKILL);
    fx_connect(&fx); /* back in time: the broker learns what became of it */
    fx_answer_hello(&fx, 1);
    fx_expect_end(&fx, 10, HP_REASON_NODE_LOST);
    fx_answer_register(&fx);
    assert_false(fx_stats(&fx).fenced);
    fx_deinit(&fx);
}

static void nothing_starts_without_a_lease(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_connect(&fx);
    fx_answer_hello(&fx, 1);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    fx_pass(&fx, 1);
    assert_int_equal(fx_count(&fx, HP_AGENT_RUN), 0);
    fx_answer_register(&fx);
    assert_int_equal(fx_count(&fx, HP_AGENT_RUN), 1);
    fx_deinit(&fx);
}

static void nothing_starts_when_fenced(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    start_command(&fx, 10, &options);
    fx_assign(&fx, 11, 1, 1, &options);
    hp_agent_disconnected(fx.agent, "cable", fx.now);
    fx_pass(&fx, FX_LEASE_MS * 3 / 4 + 1);
    fx_exited(&fx, 10, 0, SIGTERM);
    assert_int_equal(fx_key(&fx, 11), 0);
    fx_connect(&fx);
    fx_answer_hello(&fx, 1);
    fx_expect_end(&fx, 10, HP_REASON_NODE_LOST);
    fx_answer_register(&fx);
    assert_true(fx_key(&fx, 11) != 0); /* still ours: it may start */
    fx_deinit(&fx);
}

static void heartbeats_push_the_fence(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    start_command(&fx, 10, &options);
    for (int i = 0; i < 20; i++) {
        struct hp_msg_worker_heartbeat_reply reply = {0};
        fx_heartbeat(&fx, &reply);
    }
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), 0);
    fx_deinit(&fx);
}

static void kill_drops_the_result(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    start_command(&fx, 10, &options);
    struct hp_st_run_ref refs[] = {fx_ref(10, 1), fx_ref(10, 2), fx_ref(99, 1)};
    struct hp_msg_worker_heartbeat_reply reply = {.has = HP_HAS_WORKER_HEARTBEAT_REPLY_KILL,
                                                  .kill = {.items = refs, .count = 3}};
    fx_heartbeat(&fx, &reply);
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), 1);
    fx_exited(&fx, 10, 0, SIGKILL);
    assert_int_equal(fx_stats(&fx).held, 0);
    assert_false(fx_next(&fx) && fx.rpc.method == HP_METHOD_WORKER_DONE);
    fx_deinit(&fx);
}

static void two_attempts_of_one_task(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 2);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    start_command(&fx, 10, &options);
    uint64_t first_key = fx_key(&fx, 10);
    fx_assign(&fx, 10, 1, 2, &options);
    assert_true(fx_key(&fx, 10) != first_key);
    struct hp_st_run_ref ref = fx_ref(10, 1);
    control(&fx, (struct hp_msg_worker_control){.has = HP_HAS_WORKER_CONTROL_KILL,
                                                .kill = {.items = &ref, .count = 1}});
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->key, first_key);
    fx_exited(&fx, 10, 0, 0); /* the second attempt */
    fx_expect_end(&fx, 10, HP_REASON_NONE);
    fx_event(&fx, (struct hp_agent_event){
                      .kind = HP_AGENT_EXEC_ENDED, .key = first_key, .signal = SIGKILL});
    assert_int_equal(fx_stats(&fx).held, 0);
    fx_deinit(&fx);
}

static void follow_and_signal(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    start_command(&fx, 10, &options);
    struct hp_st_run_ref ref = fx_ref(10, 1);
    control(&fx, (struct hp_msg_worker_control){.has = HP_HAS_WORKER_CONTROL_FOLLOW |
                                                       HP_HAS_WORKER_CONTROL_SIGNAL |
                                                       HP_HAS_WORKER_CONTROL_SIGNAL_RUNS,
                                                .follow = {.items = &ref, .count = 1},
                                                .signal = SIGUSR1,
                                                .signal_runs = {.items = &ref, .count = 1}});
    assert_true(fx_last(&fx, HP_AGENT_FOLLOW, 0)->on);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGUSR1);
    fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_OUTPUT,
                                          .key = fx_key(&fx, 10),
                                          .stream = 2,
                                          .offset = 5,
                                          .out = {.data = (const uint8_t *)"hi", .size = 2}});
    (void)fx_find(&fx, HP_METHOD_WORKER_OUTPUT);
    struct hp_msg_worker_output msg;
    assert_int_equal(hp_msg_worker_output_decode(fx.rpc.params, &fx.arena, &msg, NULL), HP_OK);
    assert_int_equal(msg.stream, HP_STREAM_STDERR);
    assert_int_equal(msg.offset, 5);
    fx_exited(&fx, 10, 0, SIGUSR1);
    fx_expect_end(&fx, 10, HP_REASON_SIGNAL);
    fx_deinit(&fx);
}

static void drain_hands_back_and_ends(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    start_command(&fx, 10, &options);
    fx_assign(&fx, 11, 5, 1, &options);
    hp_agent_drain(fx.agent, 60000, fx.now);
    uint32_t msgid = fx_expect(&fx, HP_METHOD_WORKER_REGISTER);
    struct hp_msg_worker_register msg;
    assert_int_equal(hp_msg_worker_register_decode(fx.rpc.params, &fx.arena, &msg, NULL), HP_OK);
    assert_true(msg.draining);
    struct hp_msg_worker_register_reply again = {.lease_ms = FX_LEASE_MS,
                                                 .heartbeat_ms = FX_HEARTBEAT_MS};
    uint32_t release_id = fx_expect(&fx, HP_METHOD_WORKER_RELEASE);
    struct hp_msg_worker_release release;
    assert_int_equal(hp_msg_worker_release_decode(fx.rpc.params, &fx.arena, &release, NULL), HP_OK);
    assert_int_equal(release.runs.count, 5);
    fx_reply(&fx, msgid, &hp_desc_msg_worker_register_reply, &again);
    struct hp_msg_worker_release_reply released = {0};
    fx_reply(&fx, release_id, &hp_desc_msg_worker_release_reply, &released);
    fx_assign(&fx, 20, 1, 1, &options); /* crossed the drain on the wire */
    release_id = fx_find(&fx, HP_METHOD_WORKER_RELEASE);
    fx_reply(&fx, release_id, &hp_desc_msg_worker_release_reply, &released);
    assert_null(fx_last(&fx, HP_AGENT_EXIT, 0));
    fx_exited(&fx, 10, 0, 0);
    fx_expect_end(&fx, 10, HP_REASON_NONE);
    fx_tick(&fx, 0);
    assert_non_null(fx_last(&fx, HP_AGENT_EXIT, 0));
    fx_deinit(&fx);
}

static void drain_timeout_kills(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    start_command(&fx, 10, &options);
    hp_agent_drain(fx.agent, 1000, fx.now);
    fx_drain(&fx);
    fx_pass(&fx, 999);
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), 0);
    fx_pass(&fx, 1);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGKILL);
    fx_exited(&fx, 10, 0, SIGKILL);
    struct hp_msg_worker_done done;
    (void)fx_expect_done(&fx, &done);
    assert_int_equal(done.items.items[0].reason, HP_REASON_DRAINED);
    fx_pass(&fx, 5000); /* no answer comes */
    assert_non_null(fx_last(&fx, HP_AGENT_EXIT, 0));
    assert_non_null(fx_last(&fx, HP_AGENT_SPOOL_APPEND, 0));
    fx_deinit(&fx);
}

static void stop_without_a_broker_spools(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    start_command(&fx, 10, &options);
    hp_agent_disconnected(fx.agent, "gone", fx.now);
    hp_agent_drain(fx.agent, 60000, fx.now);
    hp_agent_stop(fx.agent, fx.now);
    fx_drain(&fx);
    fx_exited(&fx, 10, 0, SIGKILL);
    fx_tick(&fx, 0);
    assert_non_null(fx_last(&fx, HP_AGENT_SPOOL_APPEND, 0));
    assert_non_null(fx_last(&fx, HP_AGENT_EXIT, 0));
    fx_deinit(&fx);
}

/* Who starts commands has died; the agent learned of it when some were on the way there. */
static void commands_that_nobody_starts_are_handed_back(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 2);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 2, 1, &options);
    assert_int_equal(fx_count(&fx, HP_AGENT_RUN), 2);
    cancel(&fx, 11, HP_CANCEL_MODE_FORCE, 500);
    fx_handed_back(&fx, 10);
    (void)fx_find(&fx, HP_METHOD_WORKER_RELEASE);
    struct hp_msg_worker_release release;
    assert_int_equal(hp_msg_worker_release_decode(fx.rpc.params, &fx.arena, &release, NULL), HP_OK);
    assert_int_equal(release.runs.count, 1);
    assert_int_equal(release.runs.items[0].id, 10);
    fx_handed_back(&fx, 11);
    fx_expect_end(&fx, 11, HP_REASON_CANCELLED);
    assert_int_equal(fx_count(&fx, HP_AGENT_RUN), 2);
    assert_int_equal(fx_stats(&fx).started_total, 0);
    fx_deinit(&fx);
}

static void broker_drains_and_resumes(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    control(&fx, (struct hp_msg_worker_control){.has = HP_HAS_WORKER_CONTROL_DRAINING,
                                                .draining = true});
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    (void)fx_find(&fx, HP_METHOD_WORKER_RELEASE);
    assert_int_equal(fx_key(&fx, 10), 0);
    control(&fx, (struct hp_msg_worker_control){.has = HP_HAS_WORKER_CONTROL_DRAINING});
    fx_assign(&fx, 11, 1, 1, &options);
    assert_true(fx_key(&fx, 11) != 0);
    assert_null(fx_last(&fx, HP_AGENT_EXIT, 0));
    fx_deinit(&fx);
}

/* Nothing begins while the broker drains, so what waits is of more use elsewhere, also what a child
 * was given ahead. */
static void a_drain_by_the_broker_hands_back_what_waits(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_function("noop");
    fx_child(&fx, 0, true);
    fx_assign(&fx, 10, 1, 1, &options);
    fx_result(&fx, 10, 10); /* short: the next ones are given ahead */
    fx_expect_end(&fx, 10, HP_REASON_NONE);
    fx_assign(&fx, 20, 3, 1, &options);
    assert_true(fx_key(&fx, 22) != 0);
    options = fx_command();
    fx_assign(&fx, 30, 2, 1, &options);
    control(&fx, (struct hp_msg_worker_control){.has = HP_HAS_WORKER_CONTROL_DRAINING,
                                                .draining = true});
    assert_int_equal(fx_count(&fx, HP_AGENT_RECALL), 1);
    fx_handed_back(&fx, 22);
    uint32_t released = 0;
    while (fx_next(&fx)) {
        struct hp_msg_worker_release release;
        if (fx.rpc.method == HP_METHOD_WORKER_RELEASE) {
            assert_int_equal(hp_msg_worker_release_decode(fx.rpc.params, &fx.arena, &release, NULL),
                             HP_OK);
            released += release.runs.count;
        }
    }
    assert_int_equal(released, 3);
    fx_deinit(&fx);
}

/* Else the broker would learn of it only when the lease has ended. */
static void a_drained_agent_stays_until_it_has_handed_back(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    start_command(&fx, 10, &options);
    fx_assign(&fx, 11, 1, 1, &options);
    hp_agent_drain(fx.agent, 60000, fx.now);
    uint32_t msgid = fx_expect(&fx, HP_METHOD_WORKER_REGISTER);
    uint32_t release_id = fx_expect(&fx, HP_METHOD_WORKER_RELEASE);
    struct hp_msg_worker_register_reply again = {.lease_ms = FX_LEASE_MS,
                                                 .heartbeat_ms = FX_HEARTBEAT_MS};
    fx_reply(&fx, msgid, &hp_desc_msg_worker_register_reply, &again);
    fx_exited(&fx, 10, 0, 0);
    fx_expect_end(&fx, 10, HP_REASON_NONE);
    fx_tick(&fx, 0);
    assert_null(fx_last(&fx, HP_AGENT_EXIT, 0));
    struct hp_msg_worker_release_reply released = {0};
    fx_reply(&fx, release_id, &hp_desc_msg_worker_release_reply, &released);
    fx_tick(&fx, 0);
    assert_non_null(fx_last(&fx, HP_AGENT_EXIT, 0));
    fx_deinit(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancel_force_terms_then_kills),
        cmocka_unit_test(cancel_soft_never_kills),
        cmocka_unit_test(a_soft_cancel_may_be_forced_later),
        cmocka_unit_test(heartbeats_name_cancels),
        cmocka_unit_test(cancel_of_a_waiting_one),
        cmocka_unit_test(cancel_of_an_unclaimed_call),
        cmocka_unit_test(timeouts),
        cmocka_unit_test(timeout_of_a_call),
        cmocka_unit_test(deaths_have_causes),
        cmocka_unit_test(fence_comes_before_the_lease_ends),
        cmocka_unit_test(nothing_starts_without_a_lease),
        cmocka_unit_test(nothing_starts_when_fenced),
        cmocka_unit_test(heartbeats_push_the_fence),
        cmocka_unit_test(kill_drops_the_result),
        cmocka_unit_test(two_attempts_of_one_task),
        cmocka_unit_test(follow_and_signal),
        cmocka_unit_test(drain_hands_back_and_ends),
        cmocka_unit_test(drain_timeout_kills),
        cmocka_unit_test(stop_without_a_broker_spools),
        cmocka_unit_test(commands_that_nobody_starts_are_handed_back),
        cmocka_unit_test(broker_drains_and_resumes),
        cmocka_unit_test(a_drain_by_the_broker_hands_back_what_waits),
        cmocka_unit_test(a_drained_agent_stays_until_it_has_handed_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
