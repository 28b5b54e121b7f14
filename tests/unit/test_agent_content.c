/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Results up and payloads down when the broker's answers make no sense, come late, or come for what
 * is not there any more; and when all calls that may be open are.
 */
#include "tests/unit/agent_large_fixture.h"

#include <xxhash.h>

static void come_again(struct fx *fx)
{
    assert_false(fx_stats(fx).connected);
    fx_connect(fx);
    fx_answer_hello(fx, 1);
}

static void kill_run(struct fx *fx, uint64_t id)
{
    struct hp_st_run_ref ref = fx_ref(id, 1);
    struct hp_msg_worker_control control = {.has = HP_HAS_WORKER_CONTROL_KILL,
                                            .kill = {.items = &ref, .count = 1}};
    fx_notify(fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &control);
}

static void large_command(struct fx *fx, uint64_t id, bool both)
{
    struct hp_st_task_options options = fx_command();
    struct hp_bin bytes = hp_bin_make(large, LARGE_BYTES);
    fx_assign(fx, id, 1, 1, &options);
    fx_event(fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED,
                                         .key = fx_key(fx, id),
                                         .out = bytes,
                                         .err = both ? bytes : (struct hp_bin){0}});
}

static void large_call(struct fx *fx, uint64_t id)
{
    struct hp_st_task_options options = fx_function("noop");
    fx_assign(fx, id, 1, 1, &options);
    struct fx_file *file = fx_file_new(fx, hp_bin_make(large, LARGE_BYTES));
    fx_event(fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_RESULT,
                                         .key = fx_key(fx, id),
                                         .out = {.data = file->bytes, .size = LARGE_BYTES},
                                         .file = &file->base});
}

static void opened(struct fx *fx, uint64_t blob)
{
    struct hp_msg_blob_open_reply reply = {.blob = blob};
    fx_reply(fx, fx_find(fx, HP_METHOD_BLOB_OPEN), &hp_desc_msg_blob_open_reply, &reply);
}

static void was_put(struct fx *fx, uint32_t msgid)
{
    struct hp_msg_blob_put_reply reply = {.size = 1};
    fx_reply(fx, msgid, &hp_desc_msg_blob_put_reply, &reply);
}

/* Two chunks. */
static void take_chunks(struct fx *fx, uint64_t blob)
{
    opened(fx, blob);
    was_put(fx, fx_find(fx, HP_METHOD_BLOB_PUT));
    was_put(fx, fx_find(fx, HP_METHOD_BLOB_PUT));
}

static struct hp_st_task_end expect_end(struct fx *fx, uint64_t id)
{
    struct hp_msg_worker_done done;
    struct hp_msg_worker_done_reply reply = {0};
    const struct hp_wire_obj *root = NULL;
    struct hp_st_task_end end;
    struct hp_wire *wire = hp_wire_new();
    uint32_t msgid = fx_expect_done(fx, &done);
    assert_int_equal(done.items.count, 1);
    assert_int_equal(done.items.items[0].id, id);
    assert_int_equal(
        hp_wire_unpack_checked(wire, &hp_tok_limits_open, done.items.items[0].end, &root, NULL),
        HP_OK);
    assert_int_equal(hp_st_task_end_decode(root, &fx->arena, &end, NULL), HP_OK);
    hp_wire_free(wire);
    fx_reply(fx, msgid, &hp_desc_msg_worker_done_reply, &reply);
    return end;
}

/* -------------------------------------------------------------------------------------- results */

static void both_outputs_of_a_command(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, FXP_SLOTS, 0 != 0, 0);
    large_command(&fx, 10, true);
    take_chunks(&fx, 71);
    take_chunks(&fx, 72);
    struct hp_st_task_end end = expect_end(&fx, 10);
    assert_int_equal(end.out_blob, 71);
    assert_int_equal(end.err_blob, 72);
    fx_large_deinit(&fx);
}

static void a_blob_without_a_name(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, FXP_SLOTS, 0 != 0, 0);
    large_command(&fx, 10, false);
    opened(&fx, 0);
    come_again(&fx);
    fx_reply_odd(&fx, fx_find(&fx, HP_METHOD_BLOB_OPEN), "blob");
    come_again(&fx);
    take_chunks(&fx, 71);
    assert_int_equal(expect_end(&fx, 10).out_blob, 71);
    fx_large_deinit(&fx);
}

/* The answer to the second chunk is one for a blob that was given up with the first. */
static void answers_for_a_blob_that_was_given_up(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, FXP_SLOTS, 0 != 0, 0);
    large_command(&fx, 10, false);
    opened(&fx, 71);
    uint32_t first = fx_find(&fx, HP_METHOD_BLOB_PUT);
    uint32_t second = fx_find(&fx, HP_METHOD_BLOB_PUT);
    fx_refuse(&fx, first, HP_RPC_ERROR_BUSY);
    was_put(&fx, second);
    assert_false(fx_next(&fx));
    fx_pass(&fx, 1000);
    take_chunks(&fx, 72);
    assert_int_equal(expect_end(&fx, 10).out_blob, 72);
    fx_large_deinit(&fx);
}

static void answers_for_a_result_that_nobody_wants(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, FXP_SLOTS, 0 != 0, 0);
    large_command(&fx, 10, false);
    kill_run(&fx, 10);
    opened(&fx, 71);
    assert_int_equal(fx_stats(&fx).held, 0);
    assert_true(fx_stats(&fx).registered);
    fx_large_deinit(&fx);
    fx_large_init(&fx, FXP_SLOTS, 11 != 0, 11);
    large_call(&fx, 10);
    large_call(&fx, 11);
    uint32_t first = fx_find(&fx, HP_METHOD_BLOB_GIVE);
    uint32_t second = fx_find(&fx, HP_METHOD_BLOB_GIVE);
    kill_run(&fx, 10);
    kill_run(&fx, 11);
    struct hp_msg_blob_give_reply given = {.blob = 71};
    fx_reply(&fx, first, &hp_desc_msg_blob_give_reply, &given);
    fx_refuse(&fx, second, HP_RPC_ERROR_BUSY);
    fx.hold_near = true;
    large_call(&fx, 12); /* killed while it is sealed */
    kill_run(&fx, 12);
    fx.hold_near = false;
    fx_near_answer(&fx);
    assert_true(fx_stats(&fx).registered);
    fx_large_deinit(&fx);
}

/* A result whose end was refused for now is uploaded again if the link is lost meanwhile. */
static void a_busy_broker_that_is_lost(void **state)
{
    (void)state;
    struct fx fx;
    struct hp_msg_worker_done done;
    fx_large_init(&fx, FXP_SLOTS, 0 != 0, 0);
    large_command(&fx, 10, false);
    take_chunks(&fx, 71);
    fx_refuse(&fx, fx_expect_done(&fx, &done), HP_RPC_ERROR_BUSY);
    fx_reconnect(&fx);
    take_chunks(&fx, 72);
    assert_int_equal(expect_end(&fx, 10).out_blob, 72);
    fx_large_deinit(&fx);
}

static void odd_answers_to_what_was_given(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, FXP_SLOTS, 11 != 0, 11);
    large_call(&fx, 10);
    struct hp_msg_blob_give_reply given = {.blob = 0};
    fx_reply(&fx, fx_find(&fx, HP_METHOD_BLOB_GIVE), &hp_desc_msg_blob_give_reply, &given);
    come_again(&fx);
    fx_reply_odd(&fx, fx_find(&fx, HP_METHOD_BLOB_GIVE), "blob");
    come_again(&fx);
    given.blob = 73;
    fx_reply(&fx, fx_find(&fx, HP_METHOD_BLOB_GIVE), &hp_desc_msg_blob_give_reply, &given);
    assert_int_equal(expect_end(&fx, 10).result_blob, 73);
    fx_large_deinit(&fx);
}

/* ------------------------------------------------------------------------------------- payloads */

static void chunk(struct fx *fx, uint64_t at, uint32_t bytes, uint64_t size)
{
    struct hp_msg_blob_get_reply reply = {.data = {.data = large + at, .size = bytes},
                                          .size = size,
                                          .digest = XXH3_64bits(large, size % (LARGE_BYTES + 1))};
    struct hp_msg_blob_get get;
    uint32_t msgid = fx_find(fx, HP_METHOD_BLOB_GET);
    assert_int_equal(hp_msg_blob_get_decode(fx->rpc.params, &fx->arena, &get, NULL), HP_OK);
    assert_int_equal(get.offset, at);
    fx_reply(fx, msgid, &hp_desc_msg_blob_get_reply, &reply);
}

static void payloads_that_change(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, FXP_SLOTS, 0 != 0, 0);
    struct hp_st_task_options options = fx_command();
    const struct {
        uint32_t bytes;
        uint64_t size;
    } cases[] = {{10, 1ull + HP_LIMIT_BLOB_BYTES}, {1001, 1000}, {0, 1000}};
    for (size_t i = 0; i < HP_COUNT_OF(cases); i++) {
        fx_assign_blob(&fx, 10 + i, 9, &options);
        chunk(&fx, 0, cases[i].bytes, cases[i].size);
        fx_expect_end(&fx, 10 + i, HP_REASON_DAMAGED);
    }
    fx_assign_blob(&fx, 20, 9, &options);
    chunk(&fx, 0, 1000, LARGE_BYTES);
    chunk(&fx, 1000, 1000, LARGE_BYTES - 1); /* another size than before */
    fx_expect_end(&fx, 20, HP_REASON_DAMAGED);
    fx_assign_blob(&fx, 21, 9, &options);
    fx_refuse(&fx, fx_find(&fx, HP_METHOD_BLOB_GET), HP_RPC_ERROR_DAMAGED);
    fx_expect_end(&fx, 21, HP_REASON_DAMAGED);
    assert_int_equal(fx_count(&fx, HP_AGENT_RUN), 0);
    fx_large_deinit(&fx);
}

static void an_empty_payload(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, FXP_SLOTS, 0 != 0, 0);
    struct hp_st_task_options options = fx_command();
    fx_assign_blob(&fx, 10, 9, &options);
    chunk(&fx, 0, 0, 0);
    assert_int_equal(fx_last(&fx, HP_AGENT_RUN, 10)->payload.size, 0);
    fx_exited(&fx, 10, 0, 0);
    fx_expect_end(&fx, 10, HP_REASON_NONE);
    fx_large_deinit(&fx);
}

static void half_a_payload_is_kept(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, FXP_SLOTS, 0 != 0, 0);
    struct hp_st_task_options options = fx_command();
    fx_assign_blob(&fx, 10, 9, &options);
    chunk(&fx, 0, 200000, LARGE_BYTES);
    fx_reply_odd(&fx, fx_find(&fx, HP_METHOD_BLOB_GET), "data");
    come_again(&fx);
    fx_answer_register(&fx);
    chunk(&fx, 200000, 100000, LARGE_BYTES);
    assert_memory_equal(fx_last(&fx, HP_AGENT_RUN, 10)->payload.data, large, LARGE_BYTES);
    fx_exited(&fx, 10, 0, 0);
    fx_expect_end(&fx, 10, HP_REASON_NONE);
    fx_large_deinit(&fx);
}

static void odd_answers_about_what_is_lent(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, FXP_SLOTS, 11 != 0, 11);
    struct hp_st_task_options options = fx_function("noop");
    fx_assign_blob(&fx, 10, 9, &options);
    const uint64_t sizes[] = {0, 1ull + HP_LIMIT_BLOB_BYTES};
    for (size_t i = 0; i < HP_COUNT_OF(sizes); i++) {
        struct hp_msg_blob_lend_reply lent = {.size = sizes[i], .pid = 1, .fd = 6};
        fx_reply(&fx, fx_find(&fx, HP_METHOD_BLOB_LEND), &hp_desc_msg_blob_lend_reply, &lent);
        come_again(&fx);
        fx_answer_register(&fx);
    }
    fx_reply_odd(&fx, fx_find(&fx, HP_METHOD_BLOB_LEND), "size");
    come_again(&fx);
    fx_answer_register(&fx);
    assert_int_equal(fx_count(&fx, HP_AGENT_NEAR_OPEN), 0);
    struct hp_msg_blob_lend_reply lent = {.size = LARGE_BYTES, .pid = 1, .fd = 6};
    fx_reply(&fx, fx_find(&fx, HP_METHOD_BLOB_LEND), &hp_desc_msg_blob_lend_reply, &lent);
    fx_result(&fx, 10, 10);
    fx_expect_end(&fx, 10, HP_REASON_NONE);
    fx_large_deinit(&fx);
}

static void order_blob(struct fx *fx, uint64_t pool, uint32_t children)
{
    struct hp_st_pool_order order = {.has =
                                         HP_HAS_ST_POOL_ORDER_OPTIONS | HP_HAS_ST_POOL_ORDER_BLOB,
                                     .pool = pool,
                                     .children = children,
                                     .options = fxp_options(),
                                     .blob = 55};
    fxp_send(fx, &order, false);
}

static void payloads_of_pools_and_the_link(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, FXP_SLOTS, 0 != 0, 0);
    order_blob(&fx, 7, 1);
    chunk(&fx, 0, 1000, 1000);
    fxp_up(&fx, FXP_SLOTS);
    order_blob(&fx, 8, 1);
    uint32_t get = fx_find(&fx, HP_METHOD_BLOB_GET);
    fxp_end(&fx, 8, true);
    assert_int_equal(fx_last(&fx, HP_AGENT_POOL_GONE, 0)->pool, 8);
    struct hp_msg_blob_get_reply late = {.data = {.data = large, .size = 10}, .size = 10};
    fx_reply(&fx, get, &hp_desc_msg_blob_get_reply, &late); /* to nobody */
    order_blob(&fx, 9, 1);
    fx_refuse(&fx, fx_find(&fx, HP_METHOD_BLOB_GET), HP_RPC_ERROR_BUSY);
    fx_reconnect(&fx); /* what pool 7 has, it keeps; pool 9 asks again */
    fx_answer_register(&fx);
    fx_pass(&fx, 1000);
    chunk(&fx, 0, 1000, 1000);
    assert_int_equal(fx_last(&fx, HP_AGENT_CHILD_START, 0)->pool, 9);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 2);
    order_blob(&fx, 0, 1); /* no pool has this number */
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 2);
    fx_large_deinit(&fx);
}

/* ---------------------------------------------------------------------------------- many calls */

/* Leaves no room for a call that is not vital: hand-backs that are never answered. */
static uint32_t fill_calls(struct fx *fx, uint32_t *msgids)
{
    struct hp_st_task_options options = fxp_call(99); /* no such pool here */
    uint32_t count = 0;
    for (uint64_t id = 1000; id < 1100; id++) {
        fx_assign(fx, id, 1, 1, &options);
        while (fx_next(fx)) {
            assert_int_equal(fx->rpc.method, HP_METHOD_WORKER_RELEASE);
            msgids[count++] = fx->rpc.msgid;
        }
    }
    assert_true(count > 30 && count < 64);
    return count;
}

static void answer_calls(struct fx *fx, const uint32_t *msgids, uint32_t count)
{
    struct hp_msg_worker_release_reply reply = {0};
    for (uint32_t i = 0; i < count; i++) {
        fx_reply(fx, msgids[i], &hp_desc_msg_worker_release_reply, &reply);
    }
}

/* Answers whatever comes. Returns how many ends came. */
static uint32_t serve(struct fx *fx)
{
    uint32_t ends = 0;
    while (fx_next(fx)) {
        uint32_t msgid = fx->rpc.msgid;
        if (fx->rpc.method == HP_METHOD_BLOB_GET) {
            struct hp_msg_blob_get_reply reply = {
                .data = {.data = large, .size = 9}, .size = 9, .digest = XXH3_64bits(large, 9)};
            fx_reply(fx, msgid, &hp_desc_msg_blob_get_reply, &reply);
        } else if (fx->rpc.method == HP_METHOD_BLOB_LEND) {
            struct hp_msg_blob_lend_reply reply = {.size = LARGE_BYTES, .pid = 1, .fd = 6};
            fx_reply(fx, msgid, &hp_desc_msg_blob_lend_reply, &reply);
        } else if (fx->rpc.method == HP_METHOD_BLOB_OPEN) {
            struct hp_msg_blob_open_reply reply = {.blob = 71};
            fx_reply(fx, msgid, &hp_desc_msg_blob_open_reply, &reply);
        } else if (fx->rpc.method == HP_METHOD_BLOB_PUT) {
            was_put(fx, msgid);
        } else if (fx->rpc.method == HP_METHOD_WORKER_DONE) {
            struct hp_msg_worker_done done;
            struct hp_msg_worker_done_reply reply = {0};
            assert_int_equal(hp_msg_worker_done_decode(fx->rpc.params, &fx->arena, &done, NULL),
                             HP_OK);
            ends += done.items.count;
            fx_reply(fx, msgid, &hp_desc_msg_worker_done_reply, &reply);
        }
    }
    return ends;
}

static void nothing_is_lost_when_all_calls_are_open(void **state)
{
    (void)state;
    uint32_t msgids[100];
    struct fx fx;
    fx_large_init(&fx, FXP_SLOTS, 0 != 0, 0);
    struct hp_st_task_options options = fx_command();
    uint32_t count = fill_calls(&fx, msgids);
    fx_assign_blob(&fx, 10, 9, &options);
    fx_assign(&fx, 11, 1, 1, &options);
    fx_exited(&fx, 11, 0, 0);
    large_command(&fx, 12, false);
    assert_false(fx_next(&fx));
    struct hp_msg_worker_heartbeat_reply reply = {0};
    fx_heartbeat(&fx, &reply); /* there is room for these */
    answer_calls(&fx, msgids, count);
    fx_tick(&fx, 0);
    assert_int_equal(serve(&fx), 2);
    fx_exited(&fx, 10, 0, 0);
    assert_int_equal(serve(&fx), 1);
    fx_large_deinit(&fx);
}

/* In the middle of an upload there are no calls left; it goes on when there are. */
static void an_upload_waits_for_calls(void **state)
{
    (void)state;
    uint32_t msgids[100];
    struct fx fx;
    fx_large_init(&fx, FXP_SLOTS, 0 != 0, 0);
    large_command(&fx, 10, false);
    uint32_t open = fx_find(&fx, HP_METHOD_BLOB_OPEN);
    uint32_t count = fill_calls(&fx, msgids);
    struct hp_st_task_options options = fxp_call(99);
    struct hp_msg_blob_open_reply reply = {.blob = 71};
    fx_assign(&fx, 2000, 1, 1, &options);
    fx_reply(&fx, open, &hp_desc_msg_blob_open_reply, &reply);
    uint32_t first = fx_find(&fx, HP_METHOD_BLOB_PUT); /* in the place of the open */
    assert_false(fx_next(&fx));
    was_put(&fx, first);
    was_put(&fx, fx_find(&fx, HP_METHOD_BLOB_PUT));
    assert_int_equal(expect_end(&fx, 10).out_blob, 71);
    answer_calls(&fx, msgids, count);
    fx_large_deinit(&fx);
}

static void near_content_waits_for_calls(void **state)
{
    (void)state;
    uint32_t msgids[100];
    struct fx fx;
    fx_large_init(&fx, FXP_SLOTS, 11 != 0, 11);
    struct hp_st_task_options options = fx_function("noop");
    uint32_t count = fill_calls(&fx, msgids);
    fx_assign_blob(&fx, 10, 9, &options);
    large_call(&fx, 11);
    assert_false(fx_next(&fx));
    answer_calls(&fx, msgids, count);
    fx_tick(&fx, 0);
    assert_int_equal(serve(&fx), 1); /* what was sealed without a call goes by chunks */
    fx_result(&fx, 10, 10);
    fx_expect_end(&fx, 10, HP_REASON_NONE);
    fx_large_deinit(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_outputs_of_a_command),
        cmocka_unit_test(a_blob_without_a_name),
        cmocka_unit_test(answers_for_a_blob_that_was_given_up),
        cmocka_unit_test(answers_for_a_result_that_nobody_wants),
        cmocka_unit_test(a_busy_broker_that_is_lost),
        cmocka_unit_test(odd_answers_to_what_was_given),
        cmocka_unit_test(payloads_that_change),
        cmocka_unit_test(an_empty_payload),
        cmocka_unit_test(half_a_payload_is_kept),
        cmocka_unit_test(odd_answers_about_what_is_lent),
        cmocka_unit_test(payloads_of_pools_and_the_link),
        cmocka_unit_test(nothing_is_lost_when_all_calls_are_open),
        cmocka_unit_test(an_upload_waits_for_calls),
        cmocka_unit_test(near_content_waits_for_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
