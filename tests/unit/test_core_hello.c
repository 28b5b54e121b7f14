/* SPDX-License-Identifier: BSD-2-Clause */
/* Who comes in, under which name, and what he may ask for. */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"

/* The code of the refusal; NONE: he is in. */
static enum hp_rpc_error_code say_hello(struct rig *rig, uint64_t conn, const char *token,
                                        const char *node, uint8_t boot)
{
    uint8_t bytes[16];
    struct hp_msg_hello msg = {.client = HP_STR("test"), .version = 1};
    struct hp_rpc rpc;
    memset(bytes, boot, sizeof(bytes));
    if (token != NULL) {
        msg.has |= HP_HAS_HELLO_TOKEN;
        msg.token = hp_str_of(token);
    }
    if (node != NULL) {
        msg.has |= HP_HAS_HELLO_NODE | HP_HAS_HELLO_BOOT;
        msg.node = hp_str_of(node);
        msg.boot = hp_bin_make(bytes, sizeof(bytes));
    }
    rig_begin(rig);
    rig_connect(rig, conn);
    (void)RIG_CALL(rig, conn, HELLO, hello, &msg);
    rig_end(rig);
    rig_settle(rig);
    assert_true(rig_next(rig, conn, &rpc));
    assert_int_equal(rig->closed[conn - 1], rpc.failed);
    return rpc.failed ? rpc.failure.code : HP_RPC_ERROR_NONE;
}

static void only_the_token_opens(void **state)
{
    (void)state;
    static const char *const wrong[] = {NULL, "", "s", "secre", "secret2", "Secret", "secreT"};
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.token = "secret";
    struct rig *rig = rig_new(&config);
    for (size_t i = 0; i < 7; i++) {
        assert_int_equal(say_hello(rig, i + 1, wrong[i], NULL, 0), HP_RPC_ERROR_DENIED);
    }
    assert_int_equal(say_hello(rig, 8, "secret", NULL, 0), HP_RPC_ERROR_NONE);
    rig_free(rig);
}

static void hello_comes_first(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    struct hp_rpc rpc;
    rig_begin(rig);
    rig_connect(rig, 1);
    (void)rig_submit(rig, 1, 0, &options, 1);
    rig_end(rig);
    rig_settle(rig);
    assert_true(rig_next(rig, 1, &rpc));
    assert_int_equal(rpc.failure.code, HP_RPC_ERROR_HELLO_FIRST);
    assert_true(rig->closed[0]);
    assert_int_equal(rig->core->figures.submitted, 0);
    rig_free(rig);
}

static void clients_are_no_workers(void **state)
{
    (void)state;
    static const uint8_t empty_map[] = {0x80};
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    struct hp_st_done_item item = {
        .id = id, .attempt = 1, .epoch = 1, .end = {.data = empty_map, .size = 1}};
    struct hp_msg_worker_done done = {.items = {.items = &item, .count = 1}};
    struct hp_msg_worker_register reg = {.host = HP_STR("h"), .slots = 1};
    struct hp_msg_worker_heartbeat beat = {0};
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, WORKER_REGISTER, worker_register, &reg);
    (void)RIG_CALL(rig, 1, WORKER_HEARTBEAT, worker_heartbeat, &beat);
    (void)RIG_CALL(rig, 1, WORKER_DONE, worker_done, &done);
    rig_end(rig);
    rig_settle(rig);
    struct hp_rpc rpc;
    for (int i = 0; i < 3; i++) {
        assert_true(rig_next(rig, 1, &rpc));
        assert_int_equal(rpc.failure.code, HP_RPC_ERROR_DENIED);
    }
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_LEASED);
    rig_free(rig);
}

static void a_worker_registers_before_its_heartbeats(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_msg_worker_heartbeat beat = {0};
    struct hp_rpc rpc;
    rig_hello(rig, 2, NULL, "w");
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_HEARTBEAT, worker_heartbeat, &beat);
    rig_end(rig);
    assert_true(rig_next(rig, 2, &rpc));
    assert_int_equal(rpc.failure.code, HP_RPC_ERROR_ILLEGAL_STATE);
    rig_free(rig);
}

static void a_name_has_one_daemon(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    assert_int_equal(say_hello(rig, 1, NULL, "w", 7), HP_RPC_ERROR_NONE);
    rig_register(rig, 1, 1, (struct hp_list_run_ref){0});
    assert_int_equal(say_hello(rig, 2, NULL, "w", 8), HP_RPC_ERROR_CONFLICT);
    assert_false(rig->closed[0]);
    rig_pass(rig, 2 * rig->config.heartbeat_ms - 1);
    assert_int_equal(say_hello(rig, 3, NULL, "w", 8), HP_RPC_ERROR_CONFLICT);
    rig_pass(rig, 1); /* not a word for so long: it may be dead */
    assert_int_equal(say_hello(rig, 4, NULL, "w", 8), HP_RPC_ERROR_NONE);
    assert_true(rig->closed[0]);
    assert_int_equal(say_hello(rig, 5, NULL, "w", 8), HP_RPC_ERROR_NONE); /* itself, again */
    assert_true(rig->closed[3]);
    assert_int_equal(say_hello(rig, 6, NULL, "w2", 8), HP_RPC_ERROR_NONE);
    rig_free(rig);
}

static void one_session_is_on_one_connection(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, "0123456789abcdef", NULL);
    rig_hello(rig, 2, "0123456789abcdef", NULL);
    assert_true(rig->closed[0]);
    assert_false(rig->closed[1]);
    rig_free(rig);
}

/* An id that a crash could give out again is not sent anywhere before it is durable. */
static void ids_that_are_not_reserved_are_not_sent(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_function();
    struct hp_st_assign_run run;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 4);
    rig_begin(rig);
    (void)rig_submit(rig, 1, 0, &options, 1);
    rig_end(rig);
    assert_int_equal(rig_assigned(rig, 2, &run, 1), 0);
    rig_settle(rig);
    assert_int_equal(rig_assigned(rig, 2, &run, 1), 1);
    rig_crash(rig); /* reserved before: at once */
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 4);
    rig_pass(rig, 10);
    (void)rig_assigned(rig, 2, &run, 1);
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(only_the_token_opens),
    cmocka_unit_test(hello_comes_first),
    cmocka_unit_test(clients_are_no_workers),
    cmocka_unit_test(a_worker_registers_before_its_heartbeats),
    cmocka_unit_test(a_name_has_one_daemon),
    cmocka_unit_test(one_session_is_on_one_connection),
    cmocka_unit_test(ids_that_are_not_reserved_are_not_sent),
};

HP_TEST_MAIN(tests)
