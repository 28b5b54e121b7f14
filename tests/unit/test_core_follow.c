/* SPDX-License-Identifier: BSD-2-Clause */
/* Following output: who gets what, from when on and until when; signals to a running task. */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"

static struct hp_st_assign_run run;

static const uint8_t text[] = "some output";

static struct rig *scene(uint64_t *ret_id)
{
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    rig_hello(rig, 3, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    *ret_id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    assert_int_equal(rig_assigned(rig, 2, &run, 1), 1);
    return rig;
}

/* The answer's state; an error: its code, negative. */
static int follow(struct rig *rig, uint64_t conn, uint64_t id, bool on)
{
    struct hp_msg_task_follow msg = {.has = HP_HAS_TASK_FOLLOW_ON, .id = id, .on = on};
    struct hp_msg_task_follow_reply reply;
    struct hp_error error;
    struct hp_rpc rpc;
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, conn, TASK_FOLLOW, task_follow, &msg);
    rig_end(rig);
    rig_settle(rig);
    while (rig_next(rig, conn, &rpc)) {
        if (rpc.type == HP_RPC_RESPONSE && rpc.msgid == msgid) {
            if (rpc.failed) {
                return -(int)rpc.failure.code;
            }
            assert_ok(hp_msg_task_follow_reply_decode(rpc.result, &rig->arena, &reply, &error));
            return (int)reply.state;
        }
    }
    fail_msg("%s", "no answer to task.follow");
    return 0;
}

/* What the worker was told last: follow 1, unfollow 2, signal 3, nothing 0. */
static int told(struct rig *rig, uint64_t id)
{
    struct hp_msg_worker_control msg;
    struct hp_error error;
    struct hp_rpc rpc;
    int last = 0;
    while (rig_next(rig, 2, &rpc)) {
        if (rpc.type != HP_RPC_NOTIFY || rpc.method != HP_METHOD_WORKER_CONTROL) {
            continue;
        }
        assert_ok(hp_msg_worker_control_decode(rpc.params, &rig->arena, &msg, &error));
        const struct hp_list_run_ref *refs = msg.follow.count > 0     ? &msg.follow
                                             : msg.unfollow.count > 0 ? &msg.unfollow
                                                                      : &msg.signal_runs;
        last = msg.follow.count > 0 ? 1 : msg.unfollow.count > 0 ? 2 : 3;
        assert_int_equal(refs->count, 1);
        assert_int_equal(refs->items[0].id, id);
        assert_int_equal(refs->items[0].attempt, 1);
        assert_true(last != 3 || msg.signal == 10);
    }
    return last;
}

static void print(struct rig *rig, uint64_t conn, uint64_t id, uint32_t attempt)
{
    struct hp_msg_worker_output msg = {
        .id = id, .attempt = attempt, .offset = 5, .data = hp_bin_make(text, sizeof(text))};
    msg.stream = HP_STREAM_STDERR;
    msg.has = HP_HAS_WORKER_OUTPUT_STREAM | HP_HAS_WORKER_OUTPUT_OFFSET;
    rig_begin(rig);
    (void)RIG_CALL(rig, conn, WORKER_OUTPUT, worker_output, &msg);
    rig_end(rig);
    rig_settle(rig);
}

/* How many pieces of output came. */
static int seen(struct rig *rig, uint64_t conn, uint64_t id)
{
    struct hp_msg_task_output msg;
    struct hp_error error;
    struct hp_rpc rpc;
    int count = 0;
    while (rig_next(rig, conn, &rpc)) {
        if (rpc.type != HP_RPC_NOTIFY || rpc.method != HP_METHOD_TASK_OUTPUT) {
            continue;
        }
        assert_ok(hp_msg_task_output_decode(rpc.params, &rig->arena, &msg, &error));
        assert_int_equal(msg.id, id);
        assert_int_equal(msg.offset, 5);
        assert_int_equal(msg.stream, HP_STREAM_STDERR);
        assert_true(hp_bin_eq(msg.data, hp_bin_make(text, sizeof(text))));
        count++;
    }
    return count;
}

static void output_goes_to_those_who_follow(void **state)
{
    (void)state;
    uint64_t id = 0;
    struct rig *rig = scene(&id);
    print(rig, 2, id, 1);
    assert_int_equal(seen(rig, 1, id) + seen(rig, 3, id), 0);
    assert_int_equal(follow(rig, 1, id, true), HP_TASK_STATE_LEASED);
    assert_int_equal(told(rig, id), 1);
    print(rig, 2, id, 1);
    assert_int_equal(seen(rig, 1, id), 1);
    assert_int_equal(seen(rig, 3, id), 0);
    assert_int_equal(follow(rig, 3, id, true), HP_TASK_STATE_LEASED);
    assert_int_equal(follow(rig, 3, id, true), HP_TASK_STATE_LEASED); /* twice is once */
    print(rig, 2, id, 1);
    assert_int_equal(seen(rig, 1, id), 1);
    assert_int_equal(seen(rig, 3, id), 1);
    (void)told(rig, id);
    (void)follow(rig, 1, id, false);
    assert_int_equal(told(rig, id), 0); /* the other one still follows */
    print(rig, 2, id, 1);
    assert_int_equal(seen(rig, 1, id), 0);
    assert_int_equal(seen(rig, 3, id), 1);
    (void)follow(rig, 3, id, false);
    assert_int_equal(told(rig, id), 2);
    rig_free(rig);
}

static void only_its_worker_speaks_for_an_attempt(void **state)
{
    (void)state;
    uint64_t id = 0;
    struct rig *rig = scene(&id);
    rig_worker(rig, 4, "other", 1);
    (void)follow(rig, 1, id, true);
    print(rig, 2, id, 2);     /* another attempt */
    print(rig, 4, id, 1);     /* another worker */
    print(rig, 2, id + 1, 1); /* another task */
    assert_int_equal(seen(rig, 1, id), 0);
    rig_done(rig, 2, id, 1, 1, HP_REASON_NONE);
    print(rig, 2, id, 1); /* late */
    assert_int_equal(seen(rig, 1, id), 0);
    rig_free(rig);
}

static void a_reader_that_is_slow_or_gone_gets_no_output(void **state)
{
    (void)state;
    uint64_t id = 0;
    struct rig *rig = scene(&id);
    (void)follow(rig, 1, id, true);
    (void)follow(rig, 3, id, true);
    struct hp_event event = {.kind = HP_EVENT_CONN_LEVEL, .conn = 1};
    event.level.over = true;
    rig_begin(rig);
    hp_core_step(rig->core, &event);
    rig_end(rig);
    print(rig, 2, id, 1);
    assert_int_equal(seen(rig, 1, id), 0);
    assert_int_equal(seen(rig, 3, id), 1);
    rig_begin(rig);
    rig_disconnect(rig, 3);
    rig_end(rig);
    print(rig, 2, id, 1);
    assert_false(hp_list_is_empty(&rig->core->follows)); /* of the slow one */
    rig_free(rig);
}

static void what_has_not_started_is_followed_from_its_start(void **state)
{
    (void)state;
    uint64_t first = 0;
    struct rig *rig = scene(&first);
    struct hp_st_task_options options = rig_command();
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    assert_int_equal(follow(rig, 3, id, true), HP_TASK_STATE_READY);
    assert_int_equal(told(rig, id), 0);
    rig_done(rig, 2, first, 1, 1, HP_REASON_NONE);
    assert_int_equal(told(rig, id), 1);
    print(rig, 2, id, 1);
    assert_int_equal(seen(rig, 3, id), 1);
    rig_done(rig, 2, id, 1, 1, HP_REASON_NONE);
    assert_true(hp_list_is_empty(&rig->core->follows));
    assert_int_equal(follow(rig, 3, id, true), HP_TASK_STATE_DONE);
    assert_true(hp_list_is_empty(&rig->core->follows));
    assert_int_equal(follow(rig, 3, id + 1000, true), -(int)HP_RPC_ERROR_NOT_FOUND);
    rig_free(rig);
}

static void a_follow_whose_task_moved_meanwhile_asks_again(void **state)
{
    (void)state;
    uint64_t id = 0;
    struct rig *rig = scene(&id);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES;
    options.max_retries = 1;
    rig_done(rig, 2, id, 1, 1, HP_REASON_NONE);
    id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    struct hp_msg_task_follow msg = {.has = HP_HAS_TASK_FOLLOW_ON, .id = id, .on = true};
    static const uint8_t empty_map[] = {0x80};
    struct hp_st_done_item item = {.has = HP_HAS_ST_DONE_ITEM_REASON,
                                   .id = id,
                                   .attempt = 1,
                                   .epoch = 1,
                                   .reason = HP_REASON_EXIT,
                                   .end = {.data = empty_map, .size = 1}};
    struct hp_msg_worker_done done = {.items = {.items = &item, .count = 1}};
    rig_begin(rig); /* the store is asked first, and then the attempt ends */
    (void)RIG_CALL(rig, 3, TASK_FOLLOW, task_follow, &msg);
    (void)RIG_CALL(rig, 2, WORKER_DONE, worker_done, &done);
    rig_end(rig);
    rig_settle(rig);
    assert_false(hp_list_is_empty(&rig->core->follows));
    rig_free(rig);
}

static void a_signal_goes_to_what_runs(void **state)
{
    (void)state;
    uint64_t id = 0;
    struct rig *rig = scene(&id);
    struct hp_rpc rpc;
    struct hp_msg_task_signal msg = {.id = id, .signal = 10};
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, TASK_SIGNAL, task_signal, &msg);
    rig_end(rig);
    rig_settle(rig);
    assert_int_equal(told(rig, id), 3);
    assert_true(rig_next(rig, 1, &rpc));
    assert_false(rpc.failed);
    rig_done(rig, 2, id, 1, 1, HP_REASON_NONE);
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, TASK_SIGNAL, task_signal, &msg);
    rig_end(rig);
    rig_settle(rig);
    assert_int_equal(told(rig, id), 0);
    assert_true(rig_next(rig, 1, &rpc));
    assert_int_equal(rpc.failure.code, HP_RPC_ERROR_ILLEGAL_STATE);
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(output_goes_to_those_who_follow),
    cmocka_unit_test(only_its_worker_speaks_for_an_attempt),
    cmocka_unit_test(a_reader_that_is_slow_or_gone_gets_no_output),
    cmocka_unit_test(what_has_not_started_is_followed_from_its_start),
    cmocka_unit_test(a_follow_whose_task_moved_meanwhile_asks_again),
    cmocka_unit_test(a_signal_goes_to_what_runs),
};

HP_TEST_MAIN(tests)
