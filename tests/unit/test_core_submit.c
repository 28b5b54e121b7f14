/* SPDX-License-Identifier: BSD-2-Clause */
/* Submits: what is refused, request numbers, unique keys, packs, hostile frames. */
#include "tests/lib/hp_test.h"

#include "common/base/rand.h"
#include "tests/lib/core_rig.h"

static const char session_a[] = "aaaaaaaaaaaaaaa";

static void pack_round_trip(void **state)
{
    (void)state;
    struct hp_bin payloads[3] = {hp_bin_make("one", 3), hp_bin_make("", 0), hp_bin_make("3", 1)};
    uint64_t blobs[3] = {0, 77, 0};
    uint8_t bytes[128];
    for (int with_blobs = 0; with_blobs < 2; with_blobs++) {
        const uint64_t *ids = with_blobs ? blobs : NULL;
        size_t size = hp_pack_size(payloads, 3, ids);
        assert_true(size <= sizeof(bytes));
        hp_pack_write(bytes, payloads, 3, ids);
        struct hp_bin pack = hp_bin_make(bytes, size);
        assert_true(hp_pack_valid(pack, 3));
        assert_false(hp_pack_valid(pack, 2));
        for (size_t cut = 1; cut < size; cut++) {
            assert_false(hp_pack_valid(hp_bin_make(bytes, cut), 3));
        }
        for (uint32_t i = 0; i < 3; i++) {
            assert_true(hp_bin_eq(hp_pack_payload(pack, i), payloads[i]));
            assert_int_equal(hp_pack_blob(pack, i), with_blobs ? blobs[i] : 0);
        }
    }
    assert_true(hp_pack_valid((struct hp_bin){0}, 5));
    assert_int_equal(hp_pack_payload((struct hp_bin){0}, 4).size, 0);
}

static void senseless_options_are_refused(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    enum hp_rpc_error_code code = HP_RPC_ERROR_NONE;
    rig_hello(rig, 1, session_a, NULL);
    struct hp_st_task_options options = rig_function();
    options.fn = HP_STR("");
    assert_int_equal(rig_submitted(rig, 1, 1, &options, 1, &code), 0);
    assert_int_equal(code, HP_RPC_ERROR_BAD_REQUEST);
    options = rig_command();
    options.argv.count = 0;
    assert_int_equal(rig_submitted(rig, 1, 2, &options, 1, &code), 0);
    assert_int_equal(code, HP_RPC_ERROR_BAD_REQUEST);
    options = rig_function();
    options.has |= HP_HAS_ST_TASK_OPTIONS_UKEY;
    options.ukey = HP_STR("k");
    assert_int_equal(rig_submitted(rig, 1, 3, &options, 2, &code), 0);
    assert_int_equal(code, HP_RPC_ERROR_BAD_REQUEST);
    options = rig_function();
    assert_int_not_equal(rig_submitted(rig, 1, 4, &options, 1, &code), 0);
    rig_free(rig);
}

static void numbers_are_applied_once(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    enum hp_rpc_error_code code = HP_RPC_ERROR_NONE;
    struct hp_st_task_options options = rig_function();
    rig_hello(rig, 1, session_a, NULL);
    uint64_t first = rig_submitted(rig, 1, 1, &options, 3, NULL);
    uint64_t second = rig_submitted(rig, 1, 2, &options, 2, NULL);
    assert_true(first != 0 && second == first + 3);
    assert_int_equal(rig_submitted(rig, 1, 1, &options, 3, NULL), first);
    assert_int_equal(rig_submitted(rig, 1, 2, &options, 2, NULL), second);
    assert_int_equal(rig_submitted(rig, 1, 4, &options, 1, &code), 0); /* a gap */
    assert_int_equal(code, HP_RPC_ERROR_OUT_OF_ORDER);
    rig_crash(rig); /* the numbers are durable */
    rig_hello(rig, 1, session_a, NULL);
    assert_int_equal(rig_submitted(rig, 1, 2, &options, 2, NULL), second);
    assert_true(rig_submitted(rig, 1, 3, &options, 1, NULL) > second);
    rig_free(rig);
}

/* The first submit of session_a again: the same ids, or it was forgotten. */
static uint64_t first_again(struct rig *rig)
{
    struct hp_st_task_options options = rig_function();
    enum hp_rpc_error_code code = HP_RPC_ERROR_NONE;
    return rig_submitted(rig, 1, 1, &options, 3, &code);
}

static void pass_and_reap(struct rig *rig, uint64_t ms)
{
    struct hp_error error;
    bool more = true;
    rig_pass(rig, ms);
    while (more) {
        assert_ok(hp_store_idle(rig->store, &more, &error));
    }
}

static void sessions_live_as_long_as_their_clients(void **state)
{
    enum { HOUR_MS = 3600 * 1000, REAP_MS = 11000 };
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_function();
    rig_hello(rig, 1, session_a, NULL);
    uint64_t first = rig_submitted(rig, 1, 1, &options, 3, NULL);
    for (int hour = 0; hour < 50; hour++) { /* connected, and silent */
        pass_and_reap(rig, HOUR_MS);
        if (hour == 30) { /* more than a day, and not on any other's beat */
            rig_crash(rig);
            rig_hello(rig, 1, session_a, NULL);
            assert_int_equal(first_again(rig), first);
        }
    }
    rig_crash(rig);
    rig_hello(rig, 1, session_a, NULL);
    assert_int_equal(first_again(rig), first);
    rig_crash(rig);
    rig->wall_ms += 25 * HOUR_MS; /* a clock that is set while the client is on its way back */
    pass_and_reap(rig, REAP_MS);
    rig_hello(rig, 1, session_a, NULL);
    assert_int_equal(first_again(rig), first);
    rig->wall_ms += 25 * HOUR_MS; /* and under a client that is there */
    pass_and_reap(rig, REAP_MS);
    rig_crash(rig);
    rig_hello(rig, 1, session_a, NULL);
    assert_int_equal(first_again(rig), first);
    rig_crash(rig);
    for (int hour = 0; hour < 26; hour++) { /* nobody comes back */
        pass_and_reap(rig, HOUR_MS);
    }
    rig_crash(rig);
    rig_hello(rig, 1, session_a, NULL);
    assert_int_not_equal(first_again(rig), first);
    rig_free(rig);
}

static void an_unacknowledged_session_is_held_up(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    enum hp_rpc_error_code code = HP_RPC_ERROR_NONE;
    struct hp_st_task_options options = rig_function();
    uint64_t number = 1;
    rig_hello(rig, 1, session_a, NULL);
    while (rig_submitted(rig, 1, number, &options, 1, &code) != 0) {
        number++;
        assert_true(number <= HP_LIMIT_SESSION_REPLIES + 1);
    }
    assert_int_equal(code, HP_RPC_ERROR_BUSY);
    assert_int_equal(number, HP_LIMIT_SESSION_REPLIES + 1);
    struct hp_msg_task_submit msg = {.has =
                                         HP_HAS_TASK_SUBMIT_NUMBER | HP_HAS_TASK_SUBMIT_ACKED_UP_TO,
                                     .options = options,
                                     .number = number,
                                     .acked_up_to = number - 1};
    struct hp_rpc rpc;
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, TASK_SUBMIT, task_submit, &msg);
    rig_end(rig);
    rig_settle(rig);
    assert_true(rig_next(rig, 1, &rpc));
    assert_false(rpc.failed);
    rig_free(rig);
}

static void a_reply_waits_for_its_commit(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_function();
    struct hp_rpc rpc;
    rig_hello(rig, 1, session_a, NULL);
    rig_begin(rig);
    (void)rig_submit(rig, 1, 1, &options, 1);
    rig_end(rig);
    assert_false(rig_next(rig, 1, &rpc));
    rig_settle(rig);
    assert_true(rig_next(rig, 1, &rpc));
    rig_free(rig);
}

static void a_unique_key_has_one_live_task(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    enum hp_rpc_error_code code = HP_RPC_ERROR_NONE;
    struct hp_st_task_options options = rig_function();
    options.has |= HP_HAS_ST_TASK_OPTIONS_UKEY | HP_HAS_ST_TASK_OPTIONS_ON_CONFLICT;
    options.ukey = HP_STR("key");
    rig_hello(rig, 1, session_a, NULL);
    uint64_t first = rig_submitted(rig, 1, 1, &options, 1, NULL);
    assert_int_equal(rig_submitted(rig, 1, 2, &options, 1, NULL), first); /* join */
    options.on_conflict = HP_ON_CONFLICT_REJECT;
    assert_int_equal(rig_submitted(rig, 1, 3, &options, 1, &code), 0);
    assert_int_equal(code, HP_RPC_ERROR_CONFLICT);
    options.on_conflict = HP_ON_CONFLICT_REPLACE;
    uint64_t next = rig_submitted(rig, 1, 4, &options, 1, NULL);
    assert_true(next > first);
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_CANCELLED);
    rig_crash(rig);
    rig_hello(rig, 1, session_a, NULL);
    options.on_conflict = HP_ON_CONFLICT_JOIN;
    assert_int_equal(rig_submitted(rig, 1, 5, &options, 1, NULL), next);
    rig_cancel(rig, 1, next, 1, HP_CANCEL_MODE_FORCE);
    assert_true(rig_submitted(rig, 1, 6, &options, 1, NULL) > next); /* the key was given back */
    rig_free(rig);
}

static void hostile_frames_harm_nobody(void **state)
{
    (void)state;
    struct hp_rand rand;
    hp_rand_init(&rand, 7);
    for (int round = 0; round < 300; round++) {
        struct rig *rig = rig_new(NULL);
        struct hp_st_task_options options = rig_function();
        struct hp_buf buf;
        rig_hello(rig, 1, session_a, NULL);
        hp_buf_init(&buf, 1U << 20);
        struct hp_msg_task_submit msg = {.options = options};
        assert_ok(hp_rpc_put_request(&buf, 9, HP_METHOD_TASK_SUBMIT));
        assert_ok(hp_msg_task_submit_encode(&buf, &msg));
        for (uint64_t flips = hp_rand_between(&rand, 1, 4); flips > 0; flips--) {
            buf.data[hp_rand_uniform(&rand, buf.size)] = (uint8_t)hp_rand_next(&rand);
        }
        struct hp_tok tok;
        size_t size = 0;
        const char *why = NULL;
        hp_tok_init(&tok, &hp_tok_limits_open);
        if (hp_tok_scan(&tok, buf.data, buf.size, &size, &why) == HP_TOK_DONE) {
            rig_begin(rig);
            rig_frame(rig, 1, buf.data, size);
            rig_end(rig);
            rig_settle(rig);
        }
        rig_hello(rig, 2, NULL, NULL); /* others go on */
        assert_int_not_equal(rig_submitted(rig, 2, 0, &options, 1, NULL), 0);
        hp_buf_deinit(&buf);
        rig_free(rig);
    }
}

static void a_hello_may_wait_for_a_slow_disk(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_msg_hello msg = {.has = HP_HAS_HELLO_SESSION,
                               .client = HP_STR("test"),
                               .version = 1,
                               .session = hp_bin_make("0123456789abcdef", 16)};
    rig_begin(rig);
    rig_connect(rig, 1);
    rig_connect(rig, 2);
    (void)RIG_CALL(rig, 1, HELLO, hello, &msg);
    rig_end(rig);
    rig->now_ms += rig->config.prehello_ms + 1;
    rig_begin(rig); /* the store has not answered yet */
    rig_end(rig);
    assert_false(rig->closed[0]);
    assert_true(rig->closed[1]); /* this one said nothing */
    rig_settle(rig);
    struct hp_rpc rpc;
    assert_true(rig_next(rig, 1, &rpc));
    assert_false(rpc.failed);
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(pack_round_trip),
    cmocka_unit_test(senseless_options_are_refused),
    cmocka_unit_test(numbers_are_applied_once),
    cmocka_unit_test(an_unacknowledged_session_is_held_up),
    cmocka_unit_test(sessions_live_as_long_as_their_clients),
    cmocka_unit_test(a_reply_waits_for_its_commit),
    cmocka_unit_test(a_unique_key_has_one_live_task),
    cmocka_unit_test(hostile_frames_harm_nobody),
    cmocka_unit_test(a_hello_may_wait_for_a_slow_disk),
};

HP_TEST_MAIN(tests)
