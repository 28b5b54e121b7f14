/* SPDX-License-Identifier: BSD-2-Clause */
/* The agent with a broker on its host: results are given, payloads lent, and what fails goes by the
 * connection. */
#include <xxhash.h>

#include "tests/unit/agent_large_fixture.h"

/* The call `id` ends with a large result in a file. */
static void large_result(struct fx *fx, uint64_t id)
{
    struct fx_file *file = fx_file_new(fx, hp_bin_make(large, LARGE_BYTES));
    fx_event(fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_RESULT,
                                         .key = fx_key(fx, id),
                                         .out = {.data = file->bytes, .size = LARGE_BYTES},
                                         .file = &file->base});
}

static void run_large(struct fx *fx, uint64_t id)
{
    struct hp_st_task_options options = fx_function("noop");
    fx_assign(fx, id, 1, 1, &options);
    large_result(fx, id);
}

/* Expects blob.give next, sealed with the key of this offer. */
static uint32_t expect_give(struct fx *fx, uint8_t offer)
{
    uint32_t msgid = fx_find(fx, HP_METHOD_BLOB_GIVE);
    struct hp_msg_blob_give give;
    assert_int_equal(hp_msg_blob_give_decode(fx->rpc.params, &fx->arena, &give, NULL), HP_OK);
    assert_int_equal(give.size, LARGE_BYTES);
    assert_int_equal(give.pid, 42);
    assert_int_equal(give.fd, 7);
    assert_int_equal(give.inode, offer);
    assert_true(give.durable);
    return msgid;
}

static void given(struct fx *fx, uint32_t msgid, uint64_t blob)
{
    struct hp_msg_blob_give_reply reply = {.blob = blob};
    fx_reply(fx, msgid, &hp_desc_msg_blob_give_reply, &reply);
}

static struct hp_st_task_end end_of(struct fx *fx, const struct hp_st_done_item *item)
{
    const struct hp_wire_obj *root = NULL;
    struct hp_wire *wire = hp_wire_new();
    struct hp_st_task_end end;
    assert_int_equal(hp_wire_unpack_checked(wire, &hp_tok_limits_open, item->end, &root, NULL),
                     HP_OK);
    assert_int_equal(hp_st_task_end_decode(root, &fx->arena, &end, NULL), HP_OK);
    hp_wire_free(wire);
    return end;
}

/* Expects the end of one task with its result in this blob, and acknowledges it. */
static void expect_end(struct fx *fx, uint64_t id, uint64_t blob, bool has_digest)
{
    struct hp_msg_worker_done done;
    uint32_t msgid = fx_expect_done(fx, &done);
    assert_int_equal(done.items.count, 1);
    assert_int_equal(done.items.items[0].id, id);
    struct hp_st_task_end end = end_of(fx, &done.items.items[0]);
    assert_int_equal(end.result_blob, blob);
    assert_int_equal((end.has & HP_HAS_ST_TASK_END_DIGEST) != 0, has_digest);
    if (has_digest) {
        assert_true(end.digest == XXH3_64bits(large, LARGE_BYTES));
    }
    struct hp_msg_worker_done_reply reply = {0};
    fx_reply(fx, msgid, &hp_desc_msg_worker_done_reply, &reply);
}

/* Takes an upload by chunks. */
static void take_chunks(struct fx *fx, uint64_t blob)
{
    uint32_t msgid = fx_find(fx, HP_METHOD_BLOB_OPEN);
    struct hp_msg_blob_open_reply opened = {.blob = blob};
    fx_reply(fx, msgid, &hp_desc_msg_blob_open_reply, &opened);
    for (uint64_t at = 0; at < LARGE_BYTES;) {
        msgid = fx_find(fx, HP_METHOD_BLOB_PUT);
        struct hp_msg_blob_put put;
        assert_int_equal(hp_msg_blob_put_decode(fx->rpc.params, &fx->arena, &put, NULL), HP_OK);
        assert_memory_equal(put.data.data, large + at, put.data.size);
        at += put.data.size;
        struct hp_msg_blob_put_reply reply = {.size = at};
        fx_reply(fx, msgid, &hp_desc_msg_blob_put_reply, &reply);
    }
}

/* -------------------------------------------------------------------------------------- results */

static void results_are_given(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    run_large(&fx, 10);
    run_large(&fx, 11); /* does not wait for the first */
    uint32_t first = expect_give(&fx, 11);
    uint32_t second = expect_give(&fx, 11);
    assert_int_equal(fx.files_live, 2);
    given(&fx, second, 72);
    expect_end(&fx, 11, 72, false);
    assert_int_equal(fx.files_live, 1); /* until the broker has answered worker.done */
    given(&fx, first, 71);
    expect_end(&fx, 10, 71, false);
    fx_large_deinit(&fx);
}

static void what_the_broker_does_not_take_goes_by_chunks(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    for (uint64_t id = 10; id < 14; id++) {
        run_large(&fx, id);
        fx_refuse(&fx, expect_give(&fx, 11), HP_RPC_ERROR_UNSUPPORTED);
        take_chunks(&fx, id);
        expect_end(&fx, id, id, true);
    }
    run_large(&fx, 14); /* it is not asked again and again */
    take_chunks(&fx, 14);
    expect_end(&fx, 14, 14, true);
    assert_int_equal(fx_count(&fx, HP_AGENT_NEAR_SEAL), 4);
    fx_reconnect(&fx); /* but on the next connection */
    fx_answer_register(&fx);
    run_large(&fx, 15);
    given(&fx, expect_give(&fx, 11), 15);
    expect_end(&fx, 15, 15, false);
    fx_large_deinit(&fx);
}

static void one_that_is_taken_between_keeps_it_on(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    for (uint64_t id = 10; id < 22; id++) {
        run_large(&fx, id);
        uint32_t msgid = expect_give(&fx, 11);
        if (id % 3 == 0) {
            given(&fx, msgid, id);
        } else {
            fx_refuse(&fx, msgid, HP_RPC_ERROR_UNSUPPORTED);
            take_chunks(&fx, id);
        }
        expect_end(&fx, id, id, id % 3 != 0);
    }
    fx_large_deinit(&fx);
}

static void a_busy_broker_is_asked_again(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    run_large(&fx, 10);
    for (int i = 0; i < 6; i++) {
        fx_refuse(&fx, expect_give(&fx, 11), HP_RPC_ERROR_BUSY);
        assert_false(fx_next(&fx));
        fx_pass(&fx, 1000);
    }
    given(&fx, expect_give(&fx, 11), 5);
    expect_end(&fx, 10, 5, false);
    fx_large_deinit(&fx);
}

static void too_big_for_the_broker(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    run_large(&fx, 10);
    fx_refuse(&fx, expect_give(&fx, 11), HP_RPC_ERROR_TOO_BIG);
    fx_expect_end(&fx, 10, HP_REASON_RESULT_TOO_BIG);
    fx_large_deinit(&fx);
}

static void what_can_not_be_sealed_goes_by_chunks(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    fx.seal_fails = true;
    run_large(&fx, 10);
    take_chunks(&fx, 3);
    expect_end(&fx, 10, 3, true);
    fx_large_deinit(&fx);
}

static void given_again_after_a_lost_link(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    run_large(&fx, 10); /* given, not answered */
    (void)expect_give(&fx, 11);
    run_large(&fx, 11); /* stored, but worker.done was not answered */
    given(&fx, expect_give(&fx, 11), 9);
    struct hp_msg_worker_done done;
    (void)fx_expect_done(&fx, &done);
    fx.near_offer = 22; /* another key */
    fx_reconnect(&fx);
    fx_answer_register(&fx);
    uint32_t first = expect_give(&fx, 22); /* the one that was further */
    uint32_t second = expect_give(&fx, 22);
    given(&fx, first, 20);
    expect_end(&fx, 11, 20, false);
    given(&fx, second, 21);
    expect_end(&fx, 10, 21, false);
    fx_large_deinit(&fx);
}

/* The shell's answers for the connection that is gone come on the next one. */
static void answers_for_an_earlier_connection_are_void(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    struct hp_st_task_options options = fx_function("noop");
    fx_assign_blob(&fx, 12, 9, &options);
    fx.hold_near = true;
    struct hp_msg_blob_lend_reply lent = {.size = LARGE_BYTES, .pid = 1, .fd = 6};
    fx_reply(&fx, fx_find(&fx, HP_METHOD_BLOB_LEND), &hp_desc_msg_blob_lend_reply, &lent);
    run_large(&fx, 10); /* to be sealed; 12 to be opened */
    assert_int_equal(fx.near_answer_count, 2);
    fx.near_offer = 22;
    fx_reconnect(&fx);
    assert_int_equal(fx.near_answer_count, 3); /* and the new proof */
    fx_answer_register(&fx);
    fx.hold_near = false;
    fx_near_answer(&fx);
    uint32_t lend = fx_find(&fx, HP_METHOD_BLOB_LEND);
    given(&fx, expect_give(&fx, 22), 6);
    expect_end(&fx, 10, 6, false);
    fx_reply(&fx, lend, &hp_desc_msg_blob_lend_reply, &lent);
    assert_non_null(fx_last(&fx, HP_AGENT_CALL, 12)->file);
    fx_result(&fx, 12, 5);
    fx_expect_end(&fx, 12, HP_REASON_NONE);
    fx_large_deinit(&fx);
}

static void a_result_that_was_to_be_given_is_spooled(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    run_large(&fx, 10);
    (void)expect_give(&fx, 11);
    fx_pass(&fx, 1500); /* no answer for long */
    struct hp_bin record = fx_last(&fx, HP_AGENT_SPOOL_APPEND, 0)->record;
    hp_agent_free(fx.agent);
    assert_int_equal(fx.files_live, 0);
    fx.seen_count = 0;
    fx.connect_from = 0;
    fx_make_agent(&fx);
    hp_agent_spool_loaded(fx.agent, 1, record);
    fx_connect(&fx);
    fx_answer_hello(&fx, 1);
    take_chunks(&fx, 8); /* it is in memory only now */
    expect_end(&fx, 10, 8, true);
    fx_answer_register(&fx);
    fx_large_deinit(&fx);
}

static void at_most_once_is_durable_first(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    fx.hold_spool = true;
    struct hp_st_task_options options = fx_function("noop");
    options.at_most_once = true;
    options.has |= HP_HAS_ST_TASK_OPTIONS_AT_MOST_ONCE;
    fx_assign(&fx, 10, 1, 1, &options);
    large_result(&fx, 10);
    assert_int_equal(fx_count(&fx, HP_AGENT_NEAR_SEAL), 0);
    assert_true(fx_last(&fx, HP_AGENT_SPOOL_APPEND, 0)->record.size > LARGE_BYTES);
    hp_agent_spooled(fx.agent, fx.spool_last, true, fx.now);
    given(&fx, expect_give(&fx, 11), 4);
    expect_end(&fx, 10, 4, false);
    fx_large_deinit(&fx);
}

static void nobody_wants_the_result(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    struct hp_st_task_options options = fx_function("noop");
    fx_assign(&fx, 10, 1, 1, &options);
    struct hp_st_run_ref kill = fx_ref(10, 1);
    struct hp_msg_worker_heartbeat_reply reply = {.has = HP_HAS_WORKER_HEARTBEAT_REPLY_KILL,
                                                  .kill = {.items = &kill, .count = 1}};
    fx_heartbeat(&fx, &reply);
    large_result(&fx, 10);
    assert_int_equal(fx_count(&fx, HP_AGENT_NEAR_SEAL), 0);
    large_result(&fx, 10); /* of a run that is not there any more */
    fx_large_deinit(&fx);
}

/* ------------------------------------------------------------------------------------- payloads */

static void lent(struct fx *fx, uint64_t blob)
{
    uint32_t msgid = fx_find(fx, HP_METHOD_BLOB_LEND);
    struct hp_msg_blob_lend lend;
    assert_int_equal(hp_msg_blob_lend_decode(fx->rpc.params, &fx->arena, &lend, NULL), HP_OK);
    assert_int_equal(lend.blob, blob);
    struct hp_msg_blob_lend_reply reply = {
        .size = LARGE_BYTES, .pid = 1, .fd = 6, .device = 3, .inode = 4};
    fx_reply(fx, msgid, &hp_desc_msg_blob_lend_reply, &reply);
}

static void give_chunks(struct fx *fx)
{
    for (uint64_t at = 0; at < LARGE_BYTES;) {
        uint32_t msgid = fx_find(fx, HP_METHOD_BLOB_GET);
        struct hp_msg_blob_get get;
        assert_int_equal(hp_msg_blob_get_decode(fx->rpc.params, &fx->arena, &get, NULL), HP_OK);
        assert_int_equal(get.offset, at);
        uint32_t size = (uint32_t)HP_MIN((uint64_t)get.size, LARGE_BYTES - at);
        struct hp_msg_blob_get_reply reply = {.data = {.data = large + at, .size = size},
                                              .size = LARGE_BYTES,
                                              .digest = XXH3_64bits(large, LARGE_BYTES)};
        fx_reply(fx, msgid, &hp_desc_msg_blob_get_reply, &reply);
        at += size;
    }
}

/* The call has begun, with its payload in a file or in memory; ends it. */
static void end_call(struct fx *fx, uint64_t id, bool in_file)
{
    const struct fx_seen *call = fx_last(fx, HP_AGENT_CALL, id);
    assert_non_null(call);
    assert_int_equal(call->file != NULL, in_file);
    assert_int_equal(call->payload_bytes, LARGE_BYTES);
    assert_int_equal(call->payload.size, in_file ? 0 : LARGE_BYTES);
    fx_result(fx, id, 10);
    fx_expect_end(fx, id, HP_REASON_NONE);
}

static void payloads_are_lent(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    struct hp_st_task_options options = fx_function("noop");
    fx_assign_blob(&fx, 10, 9, &options);
    lent(&fx, 9);
    struct fx_seen *open = fx_last(&fx, HP_AGENT_NEAR_OPEN, 0);
    assert_int_equal(open->place.fd, 6);
    assert_int_equal(open->place.inode, 4);
    assert_int_equal(fx.files_live, 1);
    end_call(&fx, 10, true);
    fx_large_deinit(&fx);
}

static void refused_for_one_blob_only(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    struct hp_st_task_options options = fx_function("noop");
    for (uint64_t id = 10; id < 16; id++) { /* in the broker's memory */
        fx_assign_blob(&fx, id, id, &options);
        fx_refuse(&fx, fx_find(&fx, HP_METHOD_BLOB_LEND), HP_RPC_ERROR_UNSUPPORTED);
        give_chunks(&fx);
        end_call(&fx, id, false);
    }
    fx_assign_blob(&fx, 16, 90, &options);
    lent(&fx, 90);
    end_call(&fx, 16, true);
    fx_large_deinit(&fx);
}

static void what_can_not_be_opened_is_fetched(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    fx.open_fails = true;
    struct hp_st_task_options options = fx_function("noop");
    for (uint64_t id = 10; id < 14; id++) {
        fx_assign_blob(&fx, id, 9, &options);
        lent(&fx, 9);
        give_chunks(&fx);
        end_call(&fx, id, false);
    }
    fx_assign_blob(&fx, 14, 9, &options); /* never again on this connection */
    give_chunks(&fx);
    end_call(&fx, 14, false);
    assert_int_equal(fx_count(&fx, HP_AGENT_NEAR_OPEN), 4);
    fx.open_fails = false;
    fx_reconnect(&fx);
    fx_answer_register(&fx);
    fx_assign_blob(&fx, 15, 9, &options);
    lent(&fx, 9);
    end_call(&fx, 15, true);
    fx_large_deinit(&fx);
}

static void a_busy_shell_does_not_count(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    fx.open_is_busy = true;
    struct hp_st_task_options options = fx_function("noop");
    for (uint64_t id = 10; id < 18; id++) {
        fx_assign_blob(&fx, id, 9, &options);
        lent(&fx, 9);
        give_chunks(&fx);
        end_call(&fx, id, false);
    }
    fx_large_deinit(&fx);
}

static void missing_and_busy_are_as_with_chunks(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    struct hp_st_task_options options = fx_function("noop");
    fx_assign_blob(&fx, 10, 9, &options);
    fx_refuse(&fx, fx_find(&fx, HP_METHOD_BLOB_LEND), HP_RPC_ERROR_NOT_FOUND);
    fx_expect_end(&fx, 10, HP_REASON_DAMAGED);
    fx_assign_blob(&fx, 11, 9, &options);
    fx_refuse(&fx, fx_find(&fx, HP_METHOD_BLOB_LEND), HP_RPC_ERROR_BUSY);
    assert_false(fx_next(&fx));
    fx_pass(&fx, 1000);
    lent(&fx, 9);
    end_call(&fx, 11, true);
    fx_large_deinit(&fx);
}

static void lent_payloads_count_as_fetched(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 2);
    hp_agent_free(fx.agent);
    fx.config.near = true;
    fx.config.blob_bytes_max = LARGE_BYTES + 1;
    fx_make_agent(&fx);
    fx.near_offer = 11;
    fx_up(&fx);
    fx_child(&fx, 0, true);
    fx_child(&fx, 1, true);
    struct hp_st_task_options options = fx_function("noop");
    fx_assign_blob(&fx, 10, 9, &options);
    fx_assign_blob(&fx, 11, 8, &options);
    lent(&fx, 9);
    lent(&fx, 8);
    assert_int_equal(fx.files_live, 1); /* no room for the second */
    assert_null(fx_last(&fx, HP_AGENT_CALL, 11));
    end_call(&fx, 10, true);
    fx_pass(&fx, 1000);
    lent(&fx, 8);
    end_call(&fx, 11, true);
    fx_large_deinit(&fx);
}

static void released_while_it_is_opened(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    fx.hold_near = true;
    struct hp_st_task_options options = fx_function("noop");
    fx_assign_blob(&fx, 10, 9, &options);
    lent(&fx, 9);
    hp_agent_drain(fx.agent, 1000, fx.now); /* hands back what has not started */
    fx_drain(&fx);
    assert_int_equal(fx_stats(&fx).held, 0);
    fx.hold_near = false;
    fx_near_answer(&fx);
    fx_large_deinit(&fx);
}

static void commands_have_bytes(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    struct hp_st_task_options options = fx_command();
    fx_assign_blob(&fx, 10, 9, &options);
    give_chunks(&fx);
    fx_exited(&fx, 10, 0, 0);
    fx_expect_end(&fx, 10, HP_REASON_NONE);
    fx_large_deinit(&fx);
}

static void pools_are_set_up_with_lent_payloads(void **state)
{
    (void)state;
    struct fx fx;
    fx_large_init(&fx, 2, true, 11);
    struct hp_st_pool_order order = {.has =
                                         HP_HAS_ST_POOL_ORDER_OPTIONS | HP_HAS_ST_POOL_ORDER_BLOB,
                                     .pool = 7,
                                     .children = 2,
                                     .options = fxp_options(),
                                     .blob = 55};
    fxp_send(&fx, &order, false);
    lent(&fx, 55);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 2);
    struct fx_seen *start = fx_last(&fx, HP_AGENT_CHILD_START, 0);
    assert_non_null(start->file);
    assert_int_equal(start->payload_bytes, LARGE_BYTES);
    fxp_up(&fx, FXP_SLOTS);
    fxp_up(&fx, FXP_SLOTS + 1);
    fx_reconnect(&fx);
    fx_answer_register(&fx);
    assert_int_equal(fx.files_live, 1); /* for the next child */
    fxp_send(&fx, &order, false);
    fxp_gone(&fx, FXP_SLOTS);
    assert_int_equal(fx_count(&fx, HP_AGENT_CHILD_START), 3);
    assert_ptr_equal(fx_last(&fx, HP_AGENT_CHILD_START, 0)->file, start->file);
    fxp_end(&fx, 7, false);
    fxp_recycled(&fx, FXP_SLOTS);
    fxp_recycled(&fx, FXP_SLOTS + 1);
    fx_tick(&fx, 1);
    assert_int_equal(fx_count(&fx, HP_AGENT_POOL_GONE), 1);
    fx_large_deinit(&fx);
}

/* ---------------------------------------------------------------------------------- negotiation */

static void another_host_has_chunks(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 2);
    hp_agent_free(fx.agent);
    fx.config.near = true;
    fx_make_agent(&fx);
    fx.near_offer = 11;
    fx.near_is_far = true;
    fx_up(&fx);
    fx_child(&fx, 0, true);
    run_large(&fx, 10);
    take_chunks(&fx, 3);
    expect_end(&fx, 10, 3, true);
    struct hp_st_task_options options = fx_function("noop");
    fx_assign_blob(&fx, 11, 9, &options);
    give_chunks(&fx);
    end_call(&fx, 11, false);
    fx_large_deinit(&fx);
}

static void without_an_offer_or_the_will(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct fx fx;
        fx_init(&fx, 2);
        hp_agent_free(fx.agent);
        fx.config.near = i == 0;
        fx.near_offer = i == 0 ? 0 : 11;
        fx_make_agent(&fx);
        fx_up(&fx);
        fx_child(&fx, 0, true);
        run_large(&fx, 10);
        take_chunks(&fx, 3);
        expect_end(&fx, 10, 3, true);
        assert_int_equal(fx_count(&fx, HP_AGENT_NEAR_PROVE), 0);
        fx_large_deinit(&fx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_are_given),
        cmocka_unit_test(what_the_broker_does_not_take_goes_by_chunks),
        cmocka_unit_test(one_that_is_taken_between_keeps_it_on),
        cmocka_unit_test(a_busy_broker_is_asked_again),
        cmocka_unit_test(too_big_for_the_broker),
        cmocka_unit_test(what_can_not_be_sealed_goes_by_chunks),
        cmocka_unit_test(given_again_after_a_lost_link),
        cmocka_unit_test(answers_for_an_earlier_connection_are_void),
        cmocka_unit_test(a_result_that_was_to_be_given_is_spooled),
        cmocka_unit_test(at_most_once_is_durable_first),
        cmocka_unit_test(nobody_wants_the_result),
        cmocka_unit_test(payloads_are_lent),
        cmocka_unit_test(refused_for_one_blob_only),
        cmocka_unit_test(what_can_not_be_opened_is_fetched),
        cmocka_unit_test(a_busy_shell_does_not_count),
        cmocka_unit_test(missing_and_busy_are_as_with_chunks),
        cmocka_unit_test(lent_payloads_count_as_fetched),
        cmocka_unit_test(released_while_it_is_opened),
        cmocka_unit_test(commands_have_bytes),
        cmocka_unit_test(pools_are_set_up_with_lent_payloads),
        cmocka_unit_test(another_host_has_chunks),
        cmocka_unit_test(without_an_offer_or_the_will),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
