/* SPDX-License-Identifier: BSD-2-Clause */
/* What a worker is promised and what it is not: registration, lost assignments, budgets, drains. */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"

static struct hp_st_assign_run runs[64];

static const char session_a[] = "aaaaaaaaaaaaaaa";

/* A worker's process whose boot id is sixteen times `boot`. */
static void worker_of_boot(struct rig *rig, uint64_t conn, const char *node, uint8_t boot)
{
    uint8_t bytes[16];
    memset(bytes, boot, sizeof(bytes));
    struct hp_msg_hello hello = {.has = HP_HAS_HELLO_NODE | HP_HAS_HELLO_BOOT,
                                 .client = HP_STR("test"),
                                 .version = 1,
                                 .node = hp_str_of(node),
                                 .boot = hp_bin_make(bytes, sizeof(bytes))};
    rig_begin(rig);
    rig_connect(rig, conn);
    (void)RIG_CALL(rig, conn, HELLO, hello, &hello);
    rig_end(rig);
    rig_settle(rig);
    struct hp_rpc rpc;
    assert_true(rig_next(rig, conn, &rpc));
    assert_false(rpc.failed);
    rig_register(rig, conn, 1, (struct hp_list_run_ref){0});
}

static void gone(struct rig *rig, uint64_t conn)
{
    rig_begin(rig);
    rig_disconnect(rig, conn);
    rig_end(rig);
    rig_settle(rig);
}

/* The answer to a call of conn, as soon as it has left. */
static struct hp_rpc reply_to(struct rig *rig, uint64_t conn, uint32_t msgid)
{
    struct hp_rpc rpc;
    while (rig_next(rig, conn, &rpc)) {
        if (rpc.type == HP_RPC_RESPONSE && rpc.msgid == msgid) {
            return rpc;
        }
    }
    fail_msg("%s", "no answer");
    return (struct hp_rpc){0};
}

static struct hp_msg_worker_heartbeat_reply beat(struct rig *rig, uint64_t conn,
                                                 struct hp_list_run_ref held)
{
    struct hp_msg_worker_heartbeat msg = {.has = HP_HAS_WORKER_HEARTBEAT_RUNS, .runs = held};
    struct hp_msg_worker_heartbeat_reply reply;
    struct hp_error error;
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, conn, WORKER_HEARTBEAT, worker_heartbeat, &msg);
    rig_end(rig);
    struct hp_rpc rpc = reply_to(rig, conn, msgid);
    assert_ok(hp_msg_worker_heartbeat_reply_decode(rpc.result, &rig->arena, &reply, &error));
    return reply;
}

/* ------------------------------------------------ registration */
static void a_worker_is_taken_on_when_its_boot_is_durable(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_rpc rpc;
    rig_hello(rig, 2, NULL, "w");
    struct hp_msg_worker_register msg = {.host = HP_STR("host"), .slots = 1};
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_REGISTER, worker_register, &msg);
    rig_end(rig);
    assert_false(rig_next(rig, 2, &rpc));
    rig_settle(rig);
    assert_true(rig_next(rig, 2, &rpc));
    rig_free(rig);
}

static void what_is_known_of_a_worker_outlives_the_broker(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_msg_worker_drain drain = {.has = HP_HAS_WORKER_DRAIN_REASON,
                                        .node = HP_STR("w"),
                                        .on = true,
                                        .reason = HP_STR("new disk")};
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, WORKER_DRAIN, worker_drain, &drain);
    rig_end(rig);
    rig_settle(rig);
    rig_crash(rig);
    const struct hp_node *node = hp_strmap_find_ptr(&rig->core->nodes_by_name, HP_STR("w"));
    assert_true(node->draining);
    assert_string_equal(node->reason, "new disk");
    assert_string_equal(node->host, "host");
    rig_hello(rig, 2, NULL, "w"); /* the same boot, moved to another host */
    struct hp_msg_worker_register msg = {.host = HP_STR("other"), .slots = 1};
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_REGISTER, worker_register, &msg);
    rig_end(rig);
    rig_settle(rig);
    rig_crash(rig);
    node = hp_strmap_find_ptr(&rig->core->nodes_by_name, HP_STR("w"));
    assert_string_equal(node->host, "other");
    assert_true(node->draining);
    rig_free(rig);
}

/* ------------------------------------------------ assignments and ends that did not arrive */
static void an_assignment_that_never_arrived_is_named(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    assert_int_equal(rig_assigned(rig, 2, runs, 1), 1);
    struct hp_st_run_ref ref = {.id = id, .attempt = 1, .epoch = 1};
    struct hp_list_run_ref none = {0};
    assert_int_equal(beat(rig, 2, none).missing.count, 0); /* it may be under way */
    rig_pass(rig, 2 * rig->config.heartbeat_ms + 1);
    assert_int_equal(beat(rig, 2, (struct hp_list_run_ref){&ref, 1}).missing.count, 0);
    struct hp_msg_worker_heartbeat_reply reply = beat(rig, 2, none);
    assert_int_equal(reply.missing.count, 1);
    assert_int_equal(reply.missing.items[0].id, id);
    assert_int_equal(reply.missing.items[0].attempt, 1);
    rig_free(rig);
}

static void an_assignment_that_waits_for_its_commit_is_not_missing(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    rig_begin(rig);
    (void)rig_submit(rig, 1, 0, &options, 1);
    rig_end(rig);
    rig->now_ms += 3 * rig->config.heartbeat_ms; /* the disk stands still */
    assert_int_equal(beat(rig, 2, (struct hp_list_run_ref){0}).missing.count, 0);
    rig_settle(rig);
    assert_int_equal(rig_assigned(rig, 2, runs, 1), 1);
    rig_free(rig);
}

static void an_end_that_no_client_could_read_is_refused(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    struct hp_msg_worker_done_reply reply;
    struct hp_error error;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    static const uint8_t bad[][2] = {{0xc1, 0}, {0x81, 0xa1}, {0x93, 0}};
    for (size_t i = 0; i < 3; i++) {
        struct hp_st_done_item item = {
            .id = id, .attempt = 1, .epoch = 1, .end = {.data = bad[i], .size = 2}};
        struct hp_msg_worker_done msg = {.items = {.items = &item, .count = 1}};
        rig_begin(rig);
        uint32_t msgid = RIG_CALL(rig, 2, WORKER_DONE, worker_done, &msg);
        rig_end(rig);
        rig_settle(rig);
        struct hp_rpc rpc = reply_to(rig, 2, msgid);
        assert_ok(hp_msg_worker_done_reply_decode(rpc.result, &rig->arena, &reply, &error));
        assert_int_equal(reply.stale.count, 1);
        assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_LEASED);
    }
    rig_done(rig, 2, id, 1, 1, HP_REASON_NONE);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_DONE);
    rig_free(rig);
}

static void an_end_is_answered_when_it_is_durable(void **state)
{
    (void)state;
    static const uint8_t empty_map[] = {0x80};
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    struct hp_rpc rpc;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    assert_int_equal(rig_assigned(rig, 2, runs, 1), 1);
    struct hp_st_done_item item = {
        .id = id, .attempt = 1, .epoch = 1, .end = {.data = empty_map, .size = 1}};
    struct hp_msg_worker_done msg = {.items = {.items = &item, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_DONE, worker_done, &msg);
    rig_end(rig);
    assert_false(rig_next(rig, 2, &rpc));
    rig_settle(rig);
    assert_true(rig_next(rig, 2, &rpc));
    rig_free(rig);
}

/* ------------------------------------------------ budgets */
static void some_failures_are_final_at_once(void **state)
{
    (void)state;
    static const enum hp_reason final[] = {HP_REASON_PERMANENT, HP_REASON_NO_FUNCTION};
    for (size_t i = 0; i < 2; i++) {
        struct rig *rig = rig_new(NULL);
        struct hp_st_task_options options = rig_function();
        options.has |= HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES;
        options.max_retries = 5;
        rig_hello(rig, 1, NULL, NULL);
        rig_worker(rig, 2, "w", 1);
        uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
        rig_done(rig, 2, id, 1, 1, final[i]);
        struct hp_st_task_status status = rig_get(rig, 1, id);
        assert_int_equal(status.state, HP_TASK_STATE_FAILED);
        assert_int_equal(status.reason, final[i]);
        rig_free(rig);
    }
}

static void backoff_is_spread_between_half_and_all(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS | HP_HAS_ST_TASK_OPTIONS_RETRY_CAP_MS;
    options.retry_base_ms = 1000;
    options.retry_cap_ms = 5000;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    const struct hp_attempt *attempt = hp_attempt_find(rig->core, id);
    static const uint64_t whole[] = {1000, 2000, 4000, 5000, 5000};
    for (uint32_t n = 1; n <= 5; n++) {
        uint32_t quarters[4] = {0};
        for (int i = 0; i < 400; i++) {
            uint64_t ms = hp_backoff_ms(rig->core, attempt->spec, n);
            uint64_t half = whole[n - 1] / 2;
            assert_true(ms >= half && ms <= whole[n - 1]);
            uint64_t quarter = (ms - half) * 4 / half;
            quarters[quarter < 3 ? quarter : 3]++;
        }
        for (int i = 0; i < 4; i++) {
            assert_true(quarters[i] > 40); /* 100 on average: no herd comes back at once */
        }
    }
    rig_free(rig);
}

/* Each round the worker comes back as another boot, and the broker may have crashed meanwhile. */
static void lose_to_the_end(bool with_crashes)
{
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_MAX_LOSSES | HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS |
                   HP_HAS_ST_TASK_OPTIONS_RETRY_CAP_MS;
    options.max_losses = 2;
    options.retry_base_ms = 100;
    options.retry_cap_ms = 100;
    rig_hello(rig, 1, NULL, NULL);
    worker_of_boot(rig, 2, "w", 1);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    for (uint8_t lost = 0; lost < 3; lost++) {
        rig_pass(rig, 200);
        assert_int_equal(rig_assigned(rig, 2, runs, 1), 1);
        assert_int_equal(runs[0].attempt, lost + 1);
        if (with_crashes) {
            rig_crash(rig);
            rig_hello(rig, 1, NULL, NULL);
        } else {
            gone(rig, 2);
        }
        worker_of_boot(rig, 2, "w", (uint8_t)(lost + 2));
    }
    rig_pass(rig, 200);
    assert_int_equal(rig_assigned(rig, 2, runs, 1), 0);
    struct hp_st_task_status status = rig_get(rig, 1, id);
    assert_int_equal(status.state, HP_TASK_STATE_FAILED);
    assert_int_equal(status.reason, HP_REASON_NODE_RESTART);
    assert_int_equal(status.losses, 2);
    rig_free(rig);
}

static void what_takes_its_workers_along_is_given_up(void **state)
{
    (void)state;
    lose_to_the_end(false);
    lose_to_the_end(true);
}

/* ------------------------------------------------ times */
static void a_deadline_is_one_without_an_expiry(void **state)
{
    (void)state;
    static const uint64_t expiries[] = {0, 5000, 500};
    static const uint64_t ends[] = {1000, 1000, 500};
    for (size_t i = 0; i < 3; i++) {
        struct rig *rig = rig_new(NULL);
        struct hp_st_task_options options = rig_command();
        options.has |= HP_HAS_ST_TASK_OPTIONS_DEADLINE_MS | HP_HAS_ST_TASK_OPTIONS_EXPIRE_MS;
        options.deadline_ms = 1000;
        options.expire_ms = expiries[i];
        rig_hello(rig, 1, NULL, NULL);
        uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
        rig_pass(rig, ends[i] - 1);
        assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_READY);
        rig_pass(rig, 2);
        assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_EXPIRED);
        rig_free(rig);
    }
}

static void what_would_come_back_after_its_deadline_fails(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_DEADLINE_MS | HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES |
                   HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS | HP_HAS_ST_TASK_OPTIONS_RETRY_CAP_MS;
    options.deadline_ms = 5000;
    options.max_retries = 9;
    options.retry_base_ms = 20000;
    options.retry_cap_ms = 20000;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    rig_done(rig, 2, id, 1, 1, HP_REASON_EXIT);
    struct hp_st_task_status status = rig_get(rig, 1, id);
    assert_int_equal(status.state, HP_TASK_STATE_FAILED);
    assert_int_equal(status.reason, HP_REASON_DEADLINE);
    rig_free(rig);
}

/* More than one answer of the store holds: what was cut off is asked for again. */
static void large_delayed_tasks_all_come(void **state)
{
    (void)state;
    enum { TASKS = 100, BYTES = 60000 };
    static uint8_t bytes[BYTES];
    struct rig *rig = rig_new(NULL);
    struct hp_bin payload = hp_bin_make(bytes, sizeof(bytes));
    struct hp_msg_task_submit msg = {.has = HP_HAS_TASK_SUBMIT_PAYLOADS,
                                     .options = rig_function(),
                                     .payloads = {.items = &payload, .count = 1}};
    msg.options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    msg.options.delay_ms = 1000;
    rig_hello(rig, 1, NULL, NULL);
    for (int i = 0; i < TASKS; i++) {
        bytes[0] = (uint8_t)i;
        rig_begin(rig);
        (void)RIG_CALL(rig, 1, TASK_SUBMIT, task_submit, &msg);
        rig_end(rig);
        rig_settle(rig);
    }
    rig_pass(rig, 1001);
    rig_worker(rig, 2, "w", TASKS);
    static struct hp_st_assign_run many[TASKS];
    uint32_t count = rig_assigned(rig, 2, many, TASKS);
    uint32_t tasks = 0;
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(many[i].payloads.count, many[i].count);
        tasks += many[i].count;
    }
    assert_int_equal(tasks, TASKS);
    assert_int_equal(rig->core->figures.failed, 0);
    rig_free(rig);
}

/* ------------------------------------------------ whose turn it is */
static void equal_workers_take_turns(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "a", 8);
    rig_worker(rig, 3, "b", 8);
    for (int i = 0; i < 8; i++) {
        assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 1, NULL), 0);
    }
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 4);
    assert_int_equal(rig_assigned(rig, 3, runs, 64), 4);
    rig_free(rig);
}

static void a_worker_that_leaves_or_is_drained_gets_nothing(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    struct hp_msg_worker_drain drain = {.node = HP_STR("w"), .on = true};
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 4);
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, WORKER_DRAIN, worker_drain, &drain);
    rig_end(rig);
    rig_settle(rig);
    assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 1, NULL), 0);
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 0);
    drain.on = false;
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, WORKER_DRAIN, worker_drain, &drain);
    rig_end(rig);
    rig_settle(rig);
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 1);
    struct hp_st_run_ref ref = {.id = runs[0].first, .attempt = 1, .epoch = 1};
    struct hp_msg_worker_register msg = {.has = HP_HAS_WORKER_REGISTER_COMMANDS |
                                                HP_HAS_WORKER_REGISTER_DRAINING |
                                                HP_HAS_WORKER_REGISTER_RUNS,
                                         .host = HP_STR("host"),
                                         .slots = 4,
                                         .commands = true,
                                         .draining = true, /* it is stopping */
                                         .runs = {.items = &ref, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_REGISTER, worker_register, &msg);
    rig_end(rig);
    rig_settle(rig);
    assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 1, NULL), 0);
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 0);
    rig_free(rig);
}

static void a_worker_that_does_not_read_gets_nothing(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 4);
    for (int over = 1; over >= 0; over--) {
        struct hp_event event = {.kind = HP_EVENT_CONN_LEVEL, .conn = 2};
        event.level.over = over == 1;
        rig_begin(rig);
        hp_core_step(rig->core, &event);
        rig_end(rig);
        rig_settle(rig);
        if (over == 1) {
            assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 1, NULL), 0);
        }
        assert_int_equal(rig_assigned(rig, 2, runs, 64), over == 1 ? 0 : 1);
    }
    rig_free(rig);
}

/* What is dropped is told once there is room, and then events come again. */
static void events_of_a_slow_reader_are_dropped_and_that_is_told(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    struct hp_event event = {.kind = HP_EVENT_CONN_LEVEL, .conn = 1};
    struct hp_msg_task_event told;
    struct hp_error error;
    struct hp_rpc rpc;
    rig_hello(rig, 1, session_a, NULL);
    rig_worker(rig, 2, "w", 1);
    for (uint64_t i = 0; i < 3; i++) {
        uint64_t id = rig_submitted(rig, 1, i + 1, &options, 1, NULL);
        event.level.over = i < 2;
        rig_begin(rig);
        hp_core_step(rig->core, &event);
        rig_end(rig);
        if (i == 2) { /* room again: first that some were lost */
            assert_true(rig_next(rig, 1, &rpc));
            assert_int_equal(rpc.method, HP_METHOD_TASK_EVENT);
            assert_ok(hp_msg_task_event_decode(rpc.params, &rig->arena, &told, &error));
            assert_true(told.lost && told.events.count == 0);
        }
        rig_done(rig, 2, id, 1, 1, HP_REASON_NONE);
        assert_int_equal(rig_next(rig, 1, &rpc), i == 2);
    }
    assert_ok(hp_msg_task_event_decode(rpc.params, &rig->arena, &told, &error));
    assert_int_equal(told.events.count, 1);
    assert_int_equal(rig->core->figures.events_dropped, 2);
    rig_free(rig);
}

static void a_broker_that_stops_takes_and_gives_nothing(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    enum hp_rpc_error_code code = HP_RPC_ERROR_NONE;
    rig_hello(rig, 1, NULL, NULL);
    assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 2, NULL), 0);
    struct hp_event event = {.kind = HP_EVENT_DRAIN};
    rig_begin(rig);
    hp_core_step(rig->core, &event);
    rig_end(rig);
    rig_settle(rig);
    assert_true(hp_core_is_drained(rig->core));
    rig_worker(rig, 2, "w", 4);
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 0);
    assert_int_equal(rig_submitted(rig, 1, 0, &options, 1, &code), 0);
    assert_int_equal(code, HP_RPC_ERROR_DRAINING);
    rig_free(rig);
}

static void a_repeated_number_is_answered_when_the_first_is_durable(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    struct hp_rpc rpc;
    rig_hello(rig, 1, session_a, NULL);
    rig_begin(rig);
    (void)rig_submit(rig, 1, 1, &options, 1);
    (void)rig_submit(rig, 1, 1, &options, 1);
    rig_end(rig);
    assert_false(rig_next(rig, 1, &rpc));
    rig_settle(rig);
    assert_true(rig_next(rig, 1, &rpc));
    assert_true(rig_next(rig, 1, &rpc));
    assert_int_equal(rig->core->next_id, 2);
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_worker_is_taken_on_when_its_boot_is_durable),
    cmocka_unit_test(what_is_known_of_a_worker_outlives_the_broker),
    cmocka_unit_test(an_assignment_that_never_arrived_is_named),
    cmocka_unit_test(an_assignment_that_waits_for_its_commit_is_not_missing),
    cmocka_unit_test(an_end_that_no_client_could_read_is_refused),
    cmocka_unit_test(an_end_is_answered_when_it_is_durable),
    cmocka_unit_test(some_failures_are_final_at_once),
    cmocka_unit_test(backoff_is_spread_between_half_and_all),
    cmocka_unit_test(what_takes_its_workers_along_is_given_up),
    cmocka_unit_test(a_deadline_is_one_without_an_expiry),
    cmocka_unit_test(what_would_come_back_after_its_deadline_fails),
    cmocka_unit_test(large_delayed_tasks_all_come),
    cmocka_unit_test(equal_workers_take_turns),
    cmocka_unit_test(a_worker_that_leaves_or_is_drained_gets_nothing),
    cmocka_unit_test(a_worker_that_does_not_read_gets_nothing),
    cmocka_unit_test(events_of_a_slow_reader_are_dropped_and_that_is_told),
    cmocka_unit_test(a_broker_that_stops_takes_and_gives_nothing),
    cmocka_unit_test(a_repeated_number_is_answered_when_the_first_is_durable),
};

HP_TEST_MAIN(tests)
