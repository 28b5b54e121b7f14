/* SPDX-License-Identifier: BSD-2-Clause */
/* The agent and its connection: greeting, registration, heartbeats, reconnects, hostile bytes. */
#include "tests/unit/agent_fixture.h"

static void registers_in_order(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 2);
    fx_connect(&fx);
    uint32_t msgid = fx_expect(&fx, HP_METHOD_HELLO);
    struct hp_msg_hello hello;
    assert_int_equal(hp_msg_hello_decode(fx.rpc.params, &fx.arena, &hello, NULL), HP_OK);
    assert_true(hp_str_eq_c(hello.node, "n1"));
    assert_int_equal(hello.boot.size, HP_AGENT_BOOT_BYTES);
    assert_false(fx_next(&fx)); /* nothing before the answer */
    struct hp_msg_hello_reply reply = {
        .server = HP_STR("broker"), .version = 1, .epoch = 3, .now_ms = 1};
    fx_reply(&fx, msgid, &hp_desc_msg_hello_reply, &reply);
    struct hp_msg_worker_register msg;
    (void)fx_expect(&fx, HP_METHOD_WORKER_REGISTER);
    assert_int_equal(hp_msg_worker_register_decode(fx.rpc.params, &fx.arena, &msg, NULL), HP_OK);
    assert_int_equal(msg.slots, 2);
    assert_int_equal(msg.functions.count, 2);
    assert_int_equal(msg.tags.count, 1);
    assert_int_equal(msg.runs.count, 0);
    assert_false(fx_stats(&fx).registered);
    fx_deinit(&fx);
}

static void heartbeats_name_all_runs(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 3, 1, &options);
    fx_started(&fx, 10);
    fx_pass(&fx, FX_HEARTBEAT_MS);
    (void)fx_find(&fx, HP_METHOD_WORKER_HEARTBEAT);
    struct hp_msg_worker_heartbeat msg;
    assert_int_equal(hp_msg_worker_heartbeat_decode(fx.rpc.params, &fx.arena, &msg, NULL), HP_OK);
    assert_int_equal(msg.runs.count, 3);
    uint32_t started = 0;
    for (uint32_t i = 0; i < 3; i++) {
        started += msg.runs.items[i].started;
    }
    assert_int_equal(started, 1);
    fx_deinit(&fx);
}

static void missing_is_released_only_if_unknown(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    struct hp_st_run_ref refs[] = {fx_ref(10, 1), fx_ref(11, 1)};
    struct hp_msg_worker_heartbeat_reply reply = {.has = HP_HAS_WORKER_HEARTBEAT_REPLY_MISSING,
                                                  .missing = {.items = refs, .count = 2}};
    fx_heartbeat(&fx, &reply);
    (void)fx_find(&fx, HP_METHOD_WORKER_RELEASE);
    struct hp_msg_worker_release release;
    assert_int_equal(hp_msg_worker_release_decode(fx.rpc.params, &fx.arena, &release, NULL), HP_OK);
    assert_int_equal(release.runs.count, 1);
    assert_int_equal(release.runs.items[0].id, 11);
    fx_deinit(&fx);
}

static void reconnects_and_lists_again(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 2, 1, &options);
    fx_started(&fx, 10);
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    fx_drain(&fx);
    assert_null(fx_last(&fx, HP_AGENT_KILL, 0)); /* loss of the link is not loss of the lease */
    fx_connect(&fx);
    fx_answer_hello(&fx, 2);
    uint32_t msgid = fx_expect(&fx, HP_METHOD_WORKER_REGISTER);
    struct hp_msg_worker_register msg;
    assert_int_equal(hp_msg_worker_register_decode(fx.rpc.params, &fx.arena, &msg, NULL), HP_OK);
    assert_int_equal(msg.runs.count, 2);
    struct hp_st_run_ref kill[] = {fx_ref(10, 1), fx_ref(11, 1)};
    struct hp_msg_worker_register_reply reply = {.has = HP_HAS_WORKER_REGISTER_REPLY_KILL,
                                                 .lease_ms = FX_LEASE_MS,
                                                 .heartbeat_ms = FX_HEARTBEAT_MS,
                                                 .kill = {.items = kill, .count = 2}};
    fx_reply(&fx, msgid, &hp_desc_msg_worker_register_reply, &reply);
    assert_int_equal(fx_last(&fx, HP_AGENT_KILL, 0)->signal, SIGKILL);
    assert_int_equal(fx_stats(&fx).held, 1); /* the one that waited is gone, the other still dies */
    fx_exited(&fx, 10, 0, SIGKILL);
    assert_int_equal(fx_stats(&fx).held, 0);
    while (fx_next(&fx)) {
        assert_int_not_equal(fx.rpc.method, HP_METHOD_WORKER_DONE); /* no result is wanted */
    }
    fx_deinit(&fx);
}

static void silent_broker_is_left(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    fx_pass(&fx, FX_HEARTBEAT_MS + FX_LEASE_MS / 2);
    assert_non_null(fx_last(&fx, HP_AGENT_CLOSE, 0));
    fx_connect(&fx);
    fx_answer_hello(&fx, 1);
    fx_answer_register(&fx);
    assert_true(fx_stats(&fx).registered);
    fx_deinit(&fx);
}

static void older_broker_is_refused(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_connect(&fx);
    fx_answer_hello(&fx, 5);
    fx_answer_register(&fx);
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    fx_connect(&fx);
    fx_answer_hello(&fx, 4);
    assert_non_null(fx_last(&fx, HP_AGENT_CLOSE, 0));
    assert_false(fx_next(&fx));
    fx_deinit(&fx);
}

static void denied_waits_long(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_connect(&fx);
    uint32_t msgid = fx_expect(&fx, HP_METHOD_HELLO);
    uint32_t connects = fx_count(&fx, HP_AGENT_CONNECT);
    fx_refuse(&fx, msgid, HP_RPC_ERROR_DENIED);
    assert_non_null(fx_last(&fx, HP_AGENT_CLOSE, 0));
    fx_pass(&fx, 4000);
    assert_int_equal(fx_count(&fx, HP_AGENT_CONNECT), connects);
    fx_pass(&fx, 7000);
    assert_int_equal(fx_count(&fx, HP_AGENT_CONNECT), connects + 1);
    fx_deinit(&fx);
}

static void backoff_grows(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_tick(&fx, 0);
    uint64_t last = fx.now;
    uint64_t longest = 0;
    for (int i = 0; i < 12; i++) {
        hp_agent_disconnected(fx.agent, "refused", fx.now);
        fx_drain(&fx);
        uint64_t at = hp_agent_next_deadline_ms(fx.agent);
        assert_in_range(at - fx.now, 1, 5000);
        longest = at - fx.now > longest ? at - fx.now : longest;
        fx_tick(&fx, at - fx.now);
        last = fx.now;
    }
    (void)last;
    assert_true(longest >= 2500);
    fx_deinit(&fx);
}

/* A broker that was away for long and is back is met at once when it is lost again. */
static void backoff_begins_anew_after_a_registration(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    for (int i = 0; i < 8; i++) {
        fx_connect(&fx);
        hp_agent_disconnected(fx.agent, "refused", fx.now);
        fx_drain(&fx);
    }
    fx_up(&fx);
    uint32_t connects = fx_count(&fx, HP_AGENT_CONNECT);
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    fx_pass(&fx, 100);
    assert_int_equal(fx_count(&fx, HP_AGENT_CONNECT), connects + 1);
    fx_deinit(&fx);
}

/* Every answer that does not belong to a call, and every frame that is no message, ends the link.
 */
static void hostile_bytes_close(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } cases[] = {
        {"\xdd\x20\x00\x00\x00", 5},                 /* an array of half a billion */
        {"\xc1", 1},                                 /* never used */
        {"\x93\x01\x05\xc0\xc0", 5},                 /* not four elements */
        {"\x94\x01\xce\x7f\xff\xff\xff\xc0\x80", 9}, /* an answer to no call */
        {"\x93\x02\xadworker.assign\x91\x80", 18},   /* an assign without runs */
        {"GET / HTTP/1.1\r\n\r\n", 18},
    };
    for (size_t i = 0; i < HP_COUNT_OF(cases); i++) {
        struct fx fx;
        fx_init(&fx, 1);
        fx_up(&fx);
        hp_agent_received(fx.agent, (const uint8_t *)cases[i].bytes, cases[i].size, fx.now);
        fx_drain(&fx);
        assert_non_null(fx_last(&fx, HP_AGENT_CLOSE, 0));
        assert_false(fx_stats(&fx).connected);
        fx_connect(&fx); /* and a new one works */
        fx_answer_hello(&fx, 1);
        fx_answer_register(&fx);
        assert_true(fx_stats(&fx).registered);
        fx_deinit(&fx);
    }
}

static void random_bytes_never_break_it(void **state)
{
    (void)state;
    struct hp_rand rand;
    hp_rand_init(&rand, 1);
    for (int round = 0; round < 300; round++) {
        struct fx fx;
        fx_init(&fx, 1);
        fx_up(&fx);
        uint8_t bytes[64];
        hp_rand_fill(&rand, bytes, sizeof(bytes));
        bytes[0] = round % 2 == 0 ? 0x93 : 0x94;
        bytes[1] = (uint8_t)hp_rand_uniform(&rand, 3);
        for (size_t i = 0; i < sizeof(bytes); i++) {
            hp_agent_received(fx.agent, &bytes[i], 1, fx.now);
        }
        fx_drain(&fx);
        fx_deinit(&fx);
    }
}

static void bytes_come_one_by_one(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    struct hp_st_assign_run run = {
        .first = 10, .count = 1, .attempt = 1, .epoch = 1, .group = 10, .options = options};
    struct hp_msg_worker_assign msg = {.runs = {.items = &run, .count = 1}};
    struct hp_buf frame;
    hp_buf_init(&frame, 65536);
    assert_int_equal(hp_rpc_put_notify(&frame, HP_METHOD_WORKER_ASSIGN), HP_OK);
    assert_int_equal(hp_msg_worker_assign_encode(&frame, &msg), HP_OK);
    for (size_t i = 0; i < frame.size; i++) {
        assert_null(fx_last(&fx, HP_AGENT_RUN, 10));
        hp_agent_received(fx.agent, frame.data + i, 1, fx.now);
        fx_drain(&fx);
    }
    assert_non_null(fx_last(&fx, HP_AGENT_RUN, 10));
    hp_buf_deinit(&frame);
    fx_deinit(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registers_in_order),
        cmocka_unit_test(heartbeats_name_all_runs),
        cmocka_unit_test(missing_is_released_only_if_unknown),
        cmocka_unit_test(reconnects_and_lists_again),
        cmocka_unit_test(silent_broker_is_left),
        cmocka_unit_test(older_broker_is_refused),
        cmocka_unit_test(denied_waits_long),
        cmocka_unit_test(backoff_grows),
        cmocka_unit_test(backoff_begins_anew_after_a_registration),
        cmocka_unit_test(hostile_bytes_close),
        cmocka_unit_test(random_bytes_never_break_it),
        cmocka_unit_test(bytes_come_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
