/* SPDX-License-Identifier: BSD-2-Clause */
/* What an agent keeps over a lost connection, a death and its limits: and what it must not. */
#include <sys/mman.h>
#include <unistd.h>
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
    struct hp_st_assign_run run = {.first = 10,
                                   .count = 1,
                                   .attempt = 7,
                                   .epoch = 6,
                                   .group = 10,
                                   .options = fx_function("noop")};
    struct hp_msg_worker_assign assign = {.runs = {.items = &run, .count = 1}};
    fx_notify(&fx, HP_METHOD_WORKER_ASSIGN, &hp_desc_msg_worker_assign, &assign);
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
    assert_int_equal(item.epoch, 6); /* of its dispatch */
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

/* The bytes end where nothing may be read any more. */
static void parts_larger_than_their_record_are_refused(void **state)
{
    (void)state;
    static uint8_t large[100000];
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED,
                                          .key = fx_key(&fx, 10),
                                          .out = hp_bin_make(large, sizeof(large))});
    fx_pass(&fx, 1000);
    struct hp_bin record = fx_last(&fx, HP_AGENT_SPOOL_APPEND, 0)->record;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (record.size + page - 1) / page * page;
    uint8_t *map =
        mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(map != MAP_FAILED);
    assert_int_equal(mprotect(map + room, page, PROT_NONE), 0);
    uint8_t *copy = map + room - record.size;
    for (int more = 0; more < 2; more++) {
        struct hp_agent *agent = NULL;
        struct hp_agent_stats stats;
        memcpy(copy, record.data, record.size);
        uint8_t *size_at = copy + record.size - sizeof(large) - 8; /* 8 bytes, the highest first */
        size_at[5] = (uint8_t)(size_at[5] + more);                 /* 64 KiB more */
        assert_int_equal(hp_agent_new(&fx.config, 0, &agent, NULL), HP_OK);
        hp_agent_spool_loaded(agent, 1, (struct hp_bin){.data = copy, .size = record.size});
        hp_agent_get_stats(agent, &stats);
        assert_int_equal(stats.held, more == 0 ? 1 : 0);
        hp_agent_free(agent);
    }
    (void)munmap(map, room + page);
    fx_deinit(&fx);
}

static void the_spool_forgets_what_was_answered(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    fx_pass(&fx, 1500); /* long enough to be spooled first */
    fx_exited(&fx, 10, 0, 0);
    struct hp_msg_worker_done done;
    uint32_t msgid = fx_expect_done(&fx, &done);
    assert_int_equal(fx_count(&fx, HP_AGENT_SPOOL_APPEND), 1);
    assert_int_equal(fx_count(&fx, HP_AGENT_SPOOL_ACK), 0); /* sent, not answered */
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    fx_drain(&fx);
    fx_connect(&fx);
    fx_answer_hello(&fx, 1);
    msgid = fx_expect_done(&fx, &done);
    assert_int_equal(fx_count(&fx, HP_AGENT_SPOOL_ACK), 0);
    struct hp_msg_worker_done_reply reply = {0};
    fx_reply(&fx, msgid, &hp_desc_msg_worker_done_reply, &reply);
    assert_int_equal(fx_count(&fx, HP_AGENT_SPOOL_ACK), 1);
    assert_int_equal(fx_count(&fx, HP_AGENT_SPOOL_APPEND), 1); /* once is enough */
    fx_deinit(&fx);
}

static void a_drain_ends_when_all_is_safe(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    fx_exited(&fx, 10, 0, 0);
    fx.hold_spool = true;
    hp_agent_disconnected(fx.agent, "gone", fx.now);
    fx_drain(&fx);
    assert_int_equal(fx_count(&fx, HP_AGENT_SPOOL_APPEND), 1);
    hp_agent_drain(fx.agent, 60000, fx.now);
    fx_drain(&fx);
    fx_pass(&fx, 1000);
    assert_null(fx_last(&fx, HP_AGENT_EXIT, 0)); /* it is neither answered nor durable */
    hp_agent_spooled(fx.agent, fx.spool_last, true, fx.now);
    fx_drain(&fx);
    fx_pass(&fx, 1);
    assert_non_null(fx_last(&fx, HP_AGENT_EXIT, 0));
    fx_deinit(&fx);
}

static void orders_before_the_answer_to_hello_are_refused(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_connect(&fx);
    (void)fx_expect(&fx, HP_METHOD_HELLO);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    assert_non_null(fx_last(&fx, HP_AGENT_CLOSE, 0));
    assert_int_equal(fx_stats(&fx).held, 0);
    fx_deinit(&fx);
}

/* After the n-th failure in a row: between half and all of 100 ms * 2^n, at most 5 s. */
static void reconnects_are_spread(void **state)
{
    (void)state;
    enum { AGENTS = 60 };
    static const uint64_t whole[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000};
    uint32_t late[8] = {0};
    for (uint64_t seed = 1; seed <= AGENTS; seed++) {
        struct fx fx;
        fx_init(&fx, 1);
        hp_agent_free(fx.agent);
        fx.config.seed = seed;
        fx_make_agent(&fx);
        fx_tick(&fx, 0);
        for (int n = 0; n < 8; n++) {
            uint64_t failed = fx.now;
            hp_agent_disconnected(fx.agent, "refused", fx.now);
            fx_drain(&fx);
            uint32_t connects = fx_count(&fx, HP_AGENT_CONNECT);
            uint64_t at = hp_agent_next_deadline_ms(fx.agent);
            fx_pass(&fx, at - fx.now);
            assert_int_equal(fx_count(&fx, HP_AGENT_CONNECT), connects + 1);
            assert_true(at - failed >= whole[n] / 2 && at - failed <= whole[n]);
            late[n] += at - failed > whole[n] * 3 / 4;
        }
        fx_deinit(&fx);
    }
    for (int n = 0; n < 8; n++) {
        assert_true(late[n] > AGENTS / 6 && late[n] < AGENTS * 5 / 6); /* about a half */
    }
}

/* The one end record of a done, decoded. */
static struct hp_st_task_end end_of(struct fx *fx, enum hp_reason reason)
{
    struct hp_msg_worker_done done;
    struct hp_st_task_end end;
    struct hp_error error = {0};
    const struct hp_wire_obj *root = NULL;
    (void)fx_expect_done(fx, &done);
    assert_int_equal(done.items.count, 1);
    assert_int_equal(done.items.items[0].reason, reason);
    static uint8_t bytes[200000];
    assert_true(done.items.items[0].end.size <= sizeof(bytes));
    memcpy(bytes, done.items.items[0].end.data, done.items.items[0].end.size);
    assert_int_equal(
        hp_wire_unpack_checked(fx->wire, &hp_tok_limits_open,
                               (struct hp_bin){.data = bytes, .size = done.items.items[0].end.size},
                               &root, &error),
        HP_OK);
    assert_int_equal(hp_st_task_end_decode(root, &fx->arena, &end, &error), HP_OK);
    return end;
}

static void ends_say_what_happened(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 4);
    fx_up(&fx);
    fx_child(&fx, 0, true);
    struct hp_st_task_options options = fx_command();
    struct hp_bin out = hp_bin_make("the tail", 8);
    fx_assign(&fx, 10, 3, 1, &options);
    fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED,
                                          .key = fx_key(&fx, 10),
                                          .signal = SIGKILL,
                                          .oom = true,
                                          .out = out,
                                          .out_size = 1000,
                                          .out_truncated = true});
    struct hp_st_task_end end = end_of(&fx, HP_REASON_OOM);
    assert_true(end.out_truncated && !end.err_truncated);
    assert_int_equal(end.out_size, 1000);
    assert_true(hp_bin_eq(end.out, out));
    assert_int_equal(end.digest, XXH3_64bits(out.data, out.size));
    assert_int_equal(end.signal, SIGKILL);
    fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED,
                                          .key = fx_key(&fx, 11),
                                          .exit_code = 3,
                                          .err = out,
                                          .err_size = 9,
                                          .err_truncated = true});
    end = end_of(&fx, HP_REASON_EXIT);
    assert_true(!end.out_truncated && end.err_truncated);
    assert_int_equal(end.exit_code, 3);
    assert_int_equal(end.err_size, 9);
    fx_event(&fx, (struct hp_agent_event){
                      .kind = HP_AGENT_EXEC_ENDED, .key = fx_key(&fx, 12), .start_errno = 2});
    end = end_of(&fx, HP_REASON_NOT_STARTED);
    assert_int_equal(end.start_errno, 2);
    options = fx_function("noop");
    fx_assign(&fx, 20, 1, 1, &options);
    fx_result(&fx, 20, 77);
    end = end_of(&fx, HP_REASON_NONE);
    assert_int_equal(end.digest, XXH3_64bits(end.result.data, end.result.size));
    assert_int_equal(end.result.size, 2);
    assert_int_equal(end.run_us, 77);
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

/* Starts are told late: the time counts from when the command began, not from the telling, and
 * never from before it was handed on. */
static void a_timeout_counts_from_the_true_start(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 2);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    options.hard_timeout_ms = 500;
    options.has |= HP_HAS_ST_TASK_OPTIONS_HARD_TIMEOUT_MS;
    const uint64_t ran_us[] = {60000, 9000000};
    const uint64_t left_ms[] = {440, 400};
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t id = 10 + i;
        fx_assign(&fx, id, 1, 1, &options);
        fx_pass(&fx, 100);
        fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_STARTED,
                                              .key = fx_key(&fx, id),
                                              .pid = 99,
                                              .ran_us = ran_us[i]});
        fx_pass(&fx, left_ms[i] - 1);
        assert_int_equal(fx_count(&fx, HP_AGENT_KILL), i);
        fx_pass(&fx, 1);
        assert_int_equal(fx_count(&fx, HP_AGENT_KILL), i + 1);
        fx_exited(&fx, id, 0, SIGKILL);
        fx_expect_end(&fx, id, HP_REASON_TIMEOUT);
    }
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
        cmocka_unit_test(parts_larger_than_their_record_are_refused),
        cmocka_unit_test(the_spool_forgets_what_was_answered),
        cmocka_unit_test(a_drain_ends_when_all_is_safe),
        cmocka_unit_test(orders_before_the_answer_to_hello_are_refused),
        cmocka_unit_test(reconnects_are_spread),
        cmocka_unit_test(ends_say_what_happened),
        cmocka_unit_test(a_hard_timeout_alone_is_a_timeout),
        cmocka_unit_test(a_timeout_counts_from_the_true_start),
        cmocka_unit_test(what_ignores_a_soft_timeout_is_killed),
        cmocka_unit_test(a_drained_agent_hands_back_what_still_comes),
        cmocka_unit_test(the_lease_runs_from_the_question),
        cmocka_unit_test(runs_of_two_epochs_are_two),
        cmocka_unit_test(an_assignment_that_comes_twice_is_one),
        cmocka_unit_test(results_that_wait_are_named_at_the_registration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
