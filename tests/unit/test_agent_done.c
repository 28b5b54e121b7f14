/* SPDX-License-Identifier: BSD-2-Clause */
/* The agent's results: batches, answers, spool rules, records of an earlier boot, large bytes. */
#include <xxhash.h>

#include "tests/unit/agent_fixture.h"

static void acknowledge(struct fx *fx, uint32_t msgid)
{
    struct hp_msg_worker_done_reply reply = {0};
    fx_reply(fx, msgid, &hp_desc_msg_worker_done_reply, &reply);
}

static void kept_until_the_answer(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    fx_exited(&fx, 10, 3, 0);
    struct hp_msg_worker_done done;
    uint32_t msgid = fx_expect_done(&fx, &done);
    assert_int_equal(done.items.items[0].reason, HP_REASON_EXIT);
    assert_int_equal(fx_stats(&fx).unacked, 1);
    struct hp_st_run_ref stale = fx_ref(10, 1);
    struct hp_msg_worker_done_reply reply = {.has = HP_HAS_WORKER_DONE_REPLY_STALE,
                                             .stale = {.items = &stale, .count = 1}};
    fx_reply(&fx, msgid, &hp_desc_msg_worker_done_reply, &reply);
    assert_int_equal(fx_stats(&fx).held, 0);
    assert_int_equal(fx_stats(&fx).stale_total, 1);
    fx_deinit(&fx);
}

static void sent_again_before_the_registration(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 4);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 4, 1, &options);
    for (uint64_t id = 10; id < 13; id++) {
        fx_exited(&fx, id, 0, 0);
    }
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    fx_drain(&fx);
    assert_int_equal(fx_count(&fx, HP_AGENT_SPOOL_APPEND), 3); /* the link is down: spooled */
    fx_connect(&fx);
    fx_answer_hello(&fx, 1);
    struct hp_msg_worker_done done;
    uint32_t msgid = fx_expect(&fx, HP_METHOD_WORKER_DONE);
    assert_int_equal(hp_msg_worker_done_decode(fx.rpc.params, &fx.arena, &done, NULL), HP_OK);
    assert_int_equal(done.items.count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(done.items.items[i].id, 10 + i); /* in their order */
    }
    uint32_t register_id = fx_expect(&fx, HP_METHOD_WORKER_REGISTER);
    struct hp_msg_worker_register msg;
    assert_int_equal(hp_msg_worker_register_decode(fx.rpc.params, &fx.arena, &msg, NULL), HP_OK);
    assert_int_equal(msg.runs.count, 1); /* the three are spoken for by their done */
    struct hp_msg_worker_register_reply reply = {.lease_ms = FX_LEASE_MS,
                                                 .heartbeat_ms = FX_HEARTBEAT_MS};
    fx_reply(&fx, register_id, &hp_desc_msg_worker_register_reply, &reply);
    acknowledge(&fx, msgid);
    assert_int_equal(fx_stats(&fx).held, 1);
    assert_int_equal(fx_count(&fx, HP_AGENT_SPOOL_ACK), 3);
    fx_deinit(&fx);
}

static void late_answers_are_spooled(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    fx_exited(&fx, 10, 0, 0);
    fx_pass(&fx, 999);
    assert_int_equal(fx_count(&fx, HP_AGENT_SPOOL_APPEND), 0);
    fx_pass(&fx, 1);
    assert_int_equal(fx_count(&fx, HP_AGENT_SPOOL_APPEND), 1);
    uint32_t msgid = fx_find(&fx, HP_METHOD_WORKER_DONE);
    acknowledge(&fx, msgid);
    assert_int_equal(fx_last(&fx, HP_AGENT_SPOOL_ACK, 0)->spool_id, 1);
    fx_deinit(&fx);
}

static void long_runs_are_durable_first(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 2);
    fx_up(&fx);
    fx.hold_spool = true;
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    struct hp_st_task_options once = options;
    once.at_most_once = true;
    once.has |= HP_HAS_ST_TASK_OPTIONS_AT_MOST_ONCE;
    fx_assign(&fx, 11, 1, 1, &once);
    fx_exited(&fx, 11, 0, 0); /* short, but at most once */
    fx_pass(&fx, 1500);
    fx_exited(&fx, 10, 0, 0);
    while (fx_next(&fx)) {
        assert_int_not_equal(fx.rpc.method, HP_METHOD_WORKER_DONE);
    }
    assert_int_equal(fx_count(&fx, HP_AGENT_SPOOL_APPEND), 2);
    hp_agent_spooled(fx.agent, fx.spool_last, true, fx.now);
    struct hp_msg_worker_done done;
    (void)fx_expect_done(&fx, &done);
    assert_int_equal(done.items.count, 2);
    fx_deinit(&fx);
}

static void a_spool_that_fails_does_not_stop_work(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    fx.spool_fails = true;
    struct hp_st_task_options once = fx_command();
    once.at_most_once = true;
    once.has |= HP_HAS_ST_TASK_OPTIONS_AT_MOST_ONCE;
    fx_assign(&fx, 11, 1, 1, &once);
    fx_exited(&fx, 11, 0, 0);
    fx_expect_end(&fx, 11, HP_REASON_NONE);
    fx_deinit(&fx);
}

/* What could not be spooled while the disk was full is spooled once there is room: an agent that
 * ends while no broker is there would lose it, and think it safe. */
static void a_result_is_spooled_once_there_is_room(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options once = fx_command();
    once.at_most_once = true;
    once.has |= HP_HAS_ST_TASK_OPTIONS_AT_MOST_ONCE;
    fx_assign(&fx, 10, 1, 1, &once);
    fx_started(&fx, 10);
    hp_agent_disconnected(fx.agent, "gone", fx.now);
    fx_drain(&fx);
    fx.spool_fails = true;
    fx_exited(&fx, 10, 0, 0);
    assert_int_equal(fx_count(&fx, HP_AGENT_SPOOL_APPEND), 1);
    fx.spool_fails = false;
    fx_pass(&fx, 15000);
    hp_agent_drain(fx.agent, 60000, fx.now);
    fx_pass(&fx, 1000);
    assert_non_null(fx_last(&fx, HP_AGENT_EXIT, 0));
    assert_int_equal(fx_count(&fx, HP_AGENT_SPOOL_APPEND), 2);
    fx_deinit(&fx);
}

/* It does not go while the only copy is in its memory, but not for ever either. */
static void an_agent_that_ends_waits_for_its_spool(void **state)
{
    (void)state;
    for (int comes_back = 0; comes_back < 2; comes_back++) {
        struct fx fx;
        fx_init(&fx, 1);
        fx_up(&fx);
        struct hp_st_task_options options = fx_command();
        fx_assign(&fx, 10, 1, 1, &options);
        fx_started(&fx, 10);
        hp_agent_disconnected(fx.agent, "gone", fx.now);
        fx_drain(&fx);
        fx.spool_fails = true;
        fx_exited(&fx, 10, 0, 0);
        hp_agent_drain(fx.agent, 60000, fx.now);
        fx_pass(&fx, 700);
        assert_null(fx_last(&fx, HP_AGENT_EXIT, 0));
        fx.spool_fails = comes_back == 0;
        fx_pass(&fx, comes_back == 0 ? 5000 : 700);
        assert_non_null(fx_last(&fx, HP_AGENT_EXIT, 0));
        fx_deinit(&fx);
    }
}

static void earlier_boot_comes_first(void **state)
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
    hp_agent_free(fx.agent); /* killed, and started again */
    fx.seen_count = 0;
    fx.connect_from = 0;
    fx_make_agent(&fx);
    hp_agent_spool_loaded(fx.agent, 5, record);
    hp_agent_spool_loaded(fx.agent, 6, (struct hp_bin){.data = (const uint8_t *)"junk", .size = 4});
    fx_drain(&fx);
    assert_int_equal(fx_last(&fx, HP_AGENT_SPOOL_ACK, 0)->spool_id, 6);
    fx_connect(&fx);
    fx_answer_hello(&fx, 1);
    uint32_t msgid = fx_expect(&fx, HP_METHOD_WORKER_DONE);
    struct hp_msg_worker_done done;
    assert_int_equal(hp_msg_worker_done_decode(fx.rpc.params, &fx.arena, &done, NULL), HP_OK);
    assert_int_equal(done.items.items[0].id, 10);
    assert_int_equal(done.items.items[0].attempt, 7);
    fx_answer_register(&fx);
    acknowledge(&fx, msgid);
    assert_int_equal(fx_last(&fx, HP_AGENT_SPOOL_ACK, 0)->spool_id, 5);
    fx_deinit(&fx);
}

/* A record cut at any byte is refused, never read beyond its end. */
static void cut_records_are_refused(void **state)
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
    for (uint32_t size = 0; size < record.size; size++) {
        struct hp_agent *agent = NULL;
        assert_int_equal(hp_agent_new(&fx.config, 0, &agent, NULL), HP_OK);
        uint8_t *copy = hp_memdup(record.data, size); /* of its own, so that ASan sees its end */
        hp_agent_spool_loaded(agent, 1, (struct hp_bin){.data = copy, .size = size});
        struct hp_agent_stats stats;
        hp_agent_get_stats(agent, &stats);
        assert_int_equal(stats.held, 0);
        hp_free(copy);
        hp_agent_free(agent);
    }
    fx_deinit(&fx);
}

static void few_calls_are_in_flight(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 16);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 16, 1, &options);
    for (uint64_t id = 10; id < 20; id++) {
        fx_exited(&fx, id, 0, 0);
    }
    uint32_t msgids[4];
    uint32_t calls = 0;
    struct hp_msg_worker_done done;
    while (fx_next(&fx)) {
        assert_int_equal(fx.rpc.method, HP_METHOD_WORKER_DONE);
        assert_true(calls < 4);
        msgids[calls++] = fx.rpc.msgid;
    }
    assert_int_equal(calls, 4);
    acknowledge(&fx, msgids[0]);
    (void)fx_expect_done(&fx, &done);
    assert_int_equal(done.items.count, 6); /* what gathered meanwhile goes together */
    fx_deinit(&fx);
}

static void refused_calls_find_the_bad_item(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 8);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 4, 1, &options);
    struct hp_agent_event events[4];
    for (uint64_t i = 0; i < 4; i++) {
        events[i] =
            (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED, .key = fx_key(&fx, 10 + i)};
    }
    hp_agent_exec(fx.agent, events, 4, fx.now);
    uint32_t accepted = 0;
    for (int i = 0; i < 20 && fx_stats(&fx).held > 0; i++) {
        struct hp_msg_worker_done done;
        uint32_t msgid = fx_expect_done(&fx, &done);
        bool bad = false;
        for (uint32_t k = 0; k < done.items.count; k++) {
            bad = bad || done.items.items[k].id == 12; /* the broker does not like this one */
        }
        if (bad) {
            fx_refuse(&fx, msgid, HP_RPC_ERROR_BAD_REQUEST);
        } else {
            accepted += done.items.count;
            acknowledge(&fx, msgid);
        }
    }
    assert_int_equal(accepted, 3);
    assert_int_equal(fx_stats(&fx).held, 0);
    fx_deinit(&fx);
}

static void busy_brokers_are_asked_again(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    fx_exited(&fx, 10, 0, 0);
    uint32_t msgid = fx_find(&fx, HP_METHOD_WORKER_DONE);
    fx_refuse(&fx, msgid, HP_RPC_ERROR_BUSY);
    assert_false(fx_next(&fx));
    fx_pass(&fx, 300);
    fx_expect_end(&fx, 10, HP_REASON_NONE);
    fx_deinit(&fx);
}

/* ---------------------------------------------------------------------------------- large bytes */

#define LARGE_BYTES 600000u

static uint8_t *large_bytes(void)
{
    uint8_t *bytes = hp_alloc(LARGE_BYTES);
    for (uint32_t i = 0; i < LARGE_BYTES; i++) {
        bytes[i] = (uint8_t)(i * 7 + i / 251);
    }
    return bytes;
}

/* Takes an upload as a broker would; checks that it is `bytes`. Returns when the blob is whole. */
static void take_blob(struct fx *fx, uint64_t blob, const uint8_t *bytes)
{
    uint32_t msgid = fx_find(fx, HP_METHOD_BLOB_OPEN);
    struct hp_msg_blob_open open;
    assert_int_equal(hp_msg_blob_open_decode(fx->rpc.params, &fx->arena, &open, NULL), HP_OK);
    assert_int_equal(open.size, LARGE_BYTES);
    struct hp_msg_blob_open_reply opened = {.blob = blob};
    fx_reply(fx, msgid, &hp_desc_msg_blob_open_reply, &opened);
    for (uint64_t at = 0; at < LARGE_BYTES;) {
        msgid = fx_find(fx, HP_METHOD_BLOB_PUT);
        struct hp_msg_blob_put put;
        assert_int_equal(hp_msg_blob_put_decode(fx->rpc.params, &fx->arena, &put, NULL), HP_OK);
        assert_int_equal(put.blob, blob);
        assert_int_equal(put.offset, at);
        assert_memory_equal(put.data.data, bytes + at, put.data.size);
        at += put.data.size;
        bool last = (put.has & HP_HAS_BLOB_PUT_DIGEST) != 0;
        assert_int_equal(last, at == LARGE_BYTES);
        if (last) {
            assert_true(put.digest == XXH3_64bits(bytes, LARGE_BYTES));
        }
        struct hp_msg_blob_put_reply reply = {.size = at};
        fx_reply(fx, msgid, &hp_desc_msg_blob_put_reply, &reply);
    }
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

static void large_results_travel_as_blobs(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    fx_child(&fx, 0, true);
    struct hp_st_task_options options = fx_function("noop");
    fx_assign(&fx, 10, 1, 1, &options);
    uint8_t *bytes = large_bytes();
    fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_RESULT,
                                          .key = fx_key(&fx, 10),
                                          .out = {.data = bytes, .size = LARGE_BYTES}});
    take_blob(&fx, 77, bytes);
    struct hp_msg_worker_done done;
    (void)fx_expect_done(&fx, &done);
    struct hp_st_task_end end = end_of(&fx, &done.items.items[0]);
    assert_int_equal(end.result_blob, 77);
    assert_true(end.digest == XXH3_64bits(bytes, LARGE_BYTES));
    assert_int_equal(end.has & HP_HAS_ST_TASK_END_RESULT, 0);
    /* The link goes before the answer: the blob may be swept, so it is sent again. */
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    fx_connect(&fx);
    fx_answer_hello(&fx,
                    1); /* the upload begins at once, and the registration waits for no upload */
    take_blob(&fx, 78, bytes);
    uint32_t msgid = fx_expect_done(&fx, &done);
    assert_int_equal(end_of(&fx, &done.items.items[0]).result_blob, 78);
    acknowledge(&fx, msgid);
    assert_int_equal(fx_stats(&fx).held, 0);
    hp_free(bytes);
    fx_deinit(&fx);
}

static void large_results_outlive_the_daemon(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    uint8_t *bytes = large_bytes();
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED,
                                          .key = fx_key(&fx, 10),
                                          .out = {.data = bytes, .size = LARGE_BYTES},
                                          .out_size = LARGE_BYTES});
    struct hp_bin record = fx_last(&fx, HP_AGENT_SPOOL_APPEND, 0)->record;
    hp_agent_free(fx.agent);
    fx.seen_count = 0;
    fx.connect_from = 0;
    fx_make_agent(&fx);
    hp_agent_spool_loaded(fx.agent, 1, record);
    fx_connect(&fx);
    fx_answer_hello(&fx, 1);
    take_blob(&fx, 5, bytes); /* also before the registration */
    struct hp_msg_worker_done done;
    uint32_t msgid = fx_expect_done(&fx, &done);
    assert_int_equal(end_of(&fx, &done.items.items[0]).out_blob, 5);
    fx_answer_register(&fx);
    acknowledge(&fx, msgid);
    assert_int_equal(fx_stats(&fx).held, 0);
    hp_free(bytes);
    fx_deinit(&fx);
}

static void too_big_for_the_broker(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    uint8_t *bytes = large_bytes();
    fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED,
                                          .key = fx_key(&fx, 10),
                                          .out = {.data = bytes, .size = LARGE_BYTES}});
    uint32_t msgid = fx_find(&fx, HP_METHOD_BLOB_OPEN);
    fx_refuse(&fx, msgid, HP_RPC_ERROR_TOO_BIG);
    fx_expect_end(&fx, 10, HP_REASON_RESULT_TOO_BIG);
    hp_free(bytes);
    fx_deinit(&fx);
}

/* Answers blob.get calls until there are none. */
static void give_blob(struct fx *fx, const uint8_t *bytes, uint64_t digest)
{
    for (uint64_t at = 0; at < LARGE_BYTES;) {
        uint32_t msgid = fx_find(fx, HP_METHOD_BLOB_GET);
        struct hp_msg_blob_get get;
        assert_int_equal(hp_msg_blob_get_decode(fx->rpc.params, &fx->arena, &get, NULL), HP_OK);
        assert_int_equal(get.blob, 9);
        assert_int_equal(get.offset, at);
        uint32_t size = (uint32_t)HP_MIN((uint64_t)get.size, LARGE_BYTES - at);
        struct hp_msg_blob_get_reply reply = {
            .data = {.data = bytes + at, .size = size}, .size = LARGE_BYTES, .digest = digest};
        fx_reply(fx, msgid, &hp_desc_msg_blob_get_reply, &reply);
        at += size;
    }
}

static void large_payloads_are_fetched(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    uint8_t *bytes = large_bytes();
    fx_assign_blob(&fx, 10, 9, &options);
    assert_null(fx_last(&fx, HP_AGENT_RUN, 10));
    give_blob(&fx, bytes, XXH3_64bits(bytes, LARGE_BYTES));
    struct fx_seen *run = fx_last(&fx, HP_AGENT_RUN, 10);
    assert_non_null(run);
    assert_int_equal(run->payload.size, LARGE_BYTES);
    assert_memory_equal(run->payload.data, bytes, LARGE_BYTES);
    fx_exited(&fx, 10, 0, 0);
    fx_expect_end(&fx, 10, HP_REASON_NONE);
    fx_assign_blob(&fx, 11, 9, &options);
    give_blob(&fx, bytes, 12345);
    fx_expect_end(&fx, 11, HP_REASON_DAMAGED);
    fx_assign_blob(&fx, 12, 9, &options);
    fx_refuse(&fx, fx_find(&fx, HP_METHOD_BLOB_GET), HP_RPC_ERROR_NOT_FOUND);
    fx_expect_end(&fx, 12, HP_REASON_DAMAGED);
    hp_free(bytes);
    fx_deinit(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_until_the_answer),
        cmocka_unit_test(sent_again_before_the_registration),
        cmocka_unit_test(late_answers_are_spooled),
        cmocka_unit_test(long_runs_are_durable_first),
        cmocka_unit_test(a_spool_that_fails_does_not_stop_work),
        cmocka_unit_test(a_result_is_spooled_once_there_is_room),
        cmocka_unit_test(an_agent_that_ends_waits_for_its_spool),
        cmocka_unit_test(earlier_boot_comes_first),
        cmocka_unit_test(cut_records_are_refused),
        cmocka_unit_test(few_calls_are_in_flight),
        cmocka_unit_test(refused_calls_find_the_bad_item),
        cmocka_unit_test(busy_brokers_are_asked_again),
        cmocka_unit_test(large_results_travel_as_blobs),
        cmocka_unit_test(large_results_outlive_the_daemon),
        cmocka_unit_test(too_big_for_the_broker),
        cmocka_unit_test(large_payloads_are_fetched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
