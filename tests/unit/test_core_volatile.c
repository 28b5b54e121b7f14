/* SPDX-License-Identifier: BSD-2-Clause */
/* Tasks that are not durable: nothing waits for the disk, nothing is written or doubled. */
#include "tests/lib/hp_test.h"

#include <xxhash.h>

#include "tests/lib/core_rig.h"

static const char session_a[] = "aaaaaaaaaaaaaaa";
static struct hp_st_assign_run runs[64];

static struct hp_st_task_options in_memory(struct hp_st_task_options options)
{
    options.has |= HP_HAS_ST_TASK_OPTIONS_DURABLE;
    options.durable = false;
    return options;
}

/* A session on 1, a worker on 2, ids reserved. */
static struct rig *rig_ready(const struct hp_core_config *config, uint32_t slots)
{
    struct rig *rig = rig_new(config);
    struct hp_st_task_options options = in_memory(rig_function());
    rig_hello(rig, 1, session_a, NULL);
    uint64_t id = rig_submitted(rig, 1, 1, &options, 1, NULL);
    rig_cancel(rig, 1, id, 1, HP_CANCEL_MODE_FORCE);
    rig_worker(rig, 2, "w", slots);
    hp_buf_clear(&rig->out[0]);
    memset(rig->op_counts, 0, sizeof(rig->op_counts));
    return rig;
}

static uint32_t op_sum(const struct rig *rig)
{
    uint32_t sum = 0;
    for (int i = 0; i <= HP_OP_FORGET; i++) {
        sum += i == HP_OP_REAP ? 0 : rig->op_counts[i];
    }
    return sum;
}

/* The reply to `msgid` that is there now, before the store did anything. */
static bool replied(struct rig *rig, uint64_t conn, uint32_t msgid, struct hp_rpc *ret)
{
    while (rig_next(rig, conn, ret)) {
        if (ret->type == HP_RPC_RESPONSE && ret->msgid == msgid) {
            return true;
        }
    }
    return false;
}

static uint64_t submit_now(struct rig *rig, uint64_t number, struct hp_st_task_options *options,
                           uint32_t count)
{
    struct hp_rpc rpc;
    struct hp_error error;
    struct hp_msg_task_submit_reply reply;
    rig_begin(rig);
    uint32_t msgid = rig_submit(rig, 1, number, options, count);
    rig_end(rig);
    assert_true(replied(rig, 1, msgid, &rpc));
    assert_false(rpc.failed);
    assert_ok(hp_msg_task_submit_reply_decode(rpc.result, &rig->arena, &reply, &error));
    return reply.first;
}

static uint32_t done_call(struct rig *rig, const uint64_t *ids, uint32_t count,
                          enum hp_reason reason)
{
    static uint8_t end[] = {0x81, 0xa6, 'r', 'e', 's', 'u', 'l', 't', 0xc4, 1, 'x'};
    struct hp_st_done_item items[8];
    for (uint32_t i = 0; i < count; i++) {
        const struct hp_attempt *attempt = hp_attempt_find(rig->core, ids[i]);
        items[i] = (struct hp_st_done_item){
            .has = reason != HP_REASON_NONE ? HP_HAS_ST_DONE_ITEM_REASON : 0,
            .id = ids[i],
            .attempt = attempt != NULL ? attempt->attempt : 1,
            .epoch = rig->core->epoch,
            .reason = reason,
            .end = {.data = end, .size = sizeof(end)}};
    }
    struct hp_msg_worker_done msg = {.items = {.items = items, .count = count}};
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, 2, WORKER_DONE, worker_done, &msg);
    rig_end(rig);
    return msgid;
}

static bool event_of(struct rig *rig, uint64_t id, struct hp_st_task_status *ret)
{
    struct hp_rpc rpc;
    struct hp_error error;
    while (rig_next(rig, 1, &rpc)) {
        struct hp_msg_task_event event;
        if (rpc.type != HP_RPC_NOTIFY || rpc.method != HP_METHOD_TASK_EVENT) {
            continue;
        }
        assert_ok(hp_msg_task_event_decode(rpc.params, &rig->arena, &event, &error));
        for (uint32_t i = 0; i < event.events.count; i++) {
            if (event.events.items[i].id == id) {
                *ret = event.events.items[i];
                return true;
            }
        }
    }
    return false;
}

/* Ids are reserved in one batch, and the assignment waits for a later one: its worker does not miss
 * it, else another attempt would overtake it, and both would run. */
static void what_has_not_left_is_not_missed(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = in_memory(rig_function());
    struct hp_st_task_options durable = rig_command();
    struct hp_rpc rpc;
    struct hp_error error;
    struct hp_msg_worker_heartbeat_reply reply;
    struct hp_msg_worker_heartbeat beat = {0};
    options.has |= HP_HAS_ST_TASK_OPTIONS_AT_MOST_ONCE;
    options.at_most_once = true;
    durable.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    durable.delay_ms = 1000000;
    rig_hello(rig, 1, session_a, NULL);
    rig_worker(rig, 2, "w", 1);
    rig_begin(rig);
    (void)rig_submit(rig, 1, 1, &durable, 1); /* it reserves ids */
    rig_end(rig);
    rig_begin(rig);
    (void)rig_submit(rig, 1, 2, &options, 1);
    (void)rig_submit(rig, 1, 3, &durable, 1);
    rig_end(rig);
    assert_true(rig_job(rig)); /* the ids are reserved now; the second batch is under way */
    assert_int_equal(rig_assigned(rig, 2, runs, 1), 0);
    rig->now_ms += 3 * rig->config.heartbeat_ms;
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, 2, WORKER_HEARTBEAT, worker_heartbeat, &beat);
    rig_end(rig);
    assert_true(replied(rig, 2, msgid, &rpc));
    assert_ok(hp_msg_worker_heartbeat_reply_decode(rpc.result, &rig->arena, &reply, &error));
    assert_int_equal(reply.missing.count, 0);
    rig_settle(rig);
    assert_int_equal(rig_assigned(rig, 2, runs, 2), 1);
    assert_int_equal(runs[0].attempt, 1);
    rig->now_ms += 3 * rig->config.heartbeat_ms; /* and what has left, and is not there, is */
    rig_begin(rig);
    msgid = RIG_CALL(rig, 2, WORKER_HEARTBEAT, worker_heartbeat, &beat);
    rig_end(rig);
    assert_true(replied(rig, 2, msgid, &rpc));
    assert_ok(hp_msg_worker_heartbeat_reply_decode(rpc.result, &rig->arena, &reply, &error));
    assert_int_equal(reply.missing.count, 1);
    rig_settle(rig);
    rig_free(rig);
}

static void nothing_waits_for_the_disk(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(NULL, 2);
    struct hp_st_task_options options = in_memory(rig_function());
    struct hp_st_task_status status;
    struct hp_rpc rpc;
    uint64_t id = submit_now(rig, 2, &options, 3);
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 1);
    assert_int_equal(runs[0].first, id);
    assert_int_equal(runs[0].count, 2);
    uint32_t msgid = done_call(rig, &id, 1, HP_REASON_NONE);
    assert_true(replied(rig, 2, msgid, &rpc));
    assert_true(event_of(rig, id, &status));
    assert_int_equal(status.state, HP_TASK_STATE_DONE);
    assert_int_equal(op_sum(rig), 0);
    assert_int_equal(rig->job_count, 0);
    /* A durable one in the same message: the reply waits, the other's event does not. */
    struct hp_st_task_options durable = rig_command();
    uint64_t other = rig_submitted(rig, 1, 3, &durable, 1, NULL);
    uint64_t both[2] = {id + 1, other};
    assert_non_null(hp_attempt_find(rig->core, id + 1));
    rig_settle(rig);
    if (hp_attempt_find(rig->core, other) == NULL) { /* no slot was free */
        uint64_t third = id + 2;
        (void)done_call(rig, &third, 1, HP_REASON_NONE);
        rig_settle(rig);
    }
    hp_buf_clear(&rig->out[1]);
    msgid = done_call(rig, both, 2, HP_REASON_NONE);
    assert_false(replied(rig, 2, msgid, &rpc));
    assert_true(event_of(rig, id + 1, &status));
    rig_settle(rig);
    assert_true(replied(rig, 2, msgid, &rpc));
    rig_free(rig);
}

static void ids_are_never_told_before_they_are_reserved(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = in_memory(rig_function());
    struct hp_rpc rpc;
    rig_hello(rig, 1, session_a, NULL);
    rig_begin(rig);
    uint32_t msgid = rig_submit(rig, 1, 1, &options, 1);
    rig_end(rig);
    assert_false(replied(rig, 1, msgid, &rpc));
    rig_settle(rig);
    assert_true(replied(rig, 1, msgid, &rpc));
    uint64_t next = rig->core->next_id;
    rig_crash(rig);
    rig_hello(rig, 1, session_a, NULL);
    assert_true(rig_submitted(rig, 1, 1, &options, 1, NULL) >= next);
    rig_free(rig);
}

static void retries_and_losses_are_in_memory(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(NULL, 1);
    struct hp_st_task_options options = in_memory(rig_command());
    options.has |= HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES;
    options.max_retries = 1;
    uint64_t id = submit_now(rig, 2, &options, 1);
    (void)done_call(rig, &id, 1, HP_REASON_EXIT);
    struct hp_st_task_status status = rig_get(rig, 1, id);
    assert_int_equal(status.state, HP_TASK_STATE_DELAYED);
    assert_int_equal(status.failures, 1);
    hp_buf_clear(&rig->out[1]);
    rig_pass(rig, 3000);
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 1);
    assert_int_equal(runs[0].attempt, 2);
    rig_begin(rig);
    rig_disconnect(rig, 2);
    rig_end(rig);
    rig_pass(rig, 900);
    for (int i = 0; i < 50; i++) {
        rig_pass(rig, 900);
    }
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_READY);
    rig_worker(rig, 3, "v", 1);
    rig_begin(rig);
    rig_end(rig);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_LEASED);
    assert_int_equal(rig->op_counts[HP_OP_SIDE] + rig->op_counts[HP_OP_LEASE] +
                         rig->op_counts[HP_OP_GROUP] + rig->op_counts[HP_OP_RESULT] +
                         rig->op_counts[HP_OP_SEGMENT] + rig->op_counts[HP_OP_LANE],
                     0);
    rig_free(rig);
}

static void delays_and_expiries_are_kept(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(NULL, 1);
    struct hp_st_task_options options = in_memory(rig_command());
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS | HP_HAS_ST_TASK_OPTIONS_EXPIRE_MS;
    options.delay_ms = 500;
    options.expire_ms = 900;
    uint64_t id = submit_now(rig, 2, &options, 4);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_DELAYED);
    rig_cancel(rig, 1, id + 1, 1, HP_CANCEL_MODE_FORCE);
    assert_int_equal(rig_state(rig, 1, id + 1), HP_TASK_STATE_CANCELLED);
    rig_pass(rig, 600);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_LEASED);
    assert_int_equal(rig_state(rig, 1, id + 2), HP_TASK_STATE_READY);
    rig_pass(rig, 600);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_LEASED);
    assert_int_equal(rig_state(rig, 1, id + 2), HP_TASK_STATE_EXPIRED);
    assert_int_equal(rig_state(rig, 1, id + 3), HP_TASK_STATE_EXPIRED);
    (void)done_call(rig, &id, 1, HP_REASON_NONE);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_DONE);
    rig_free(rig);
}

static void cancels_need_no_disk(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(NULL, 1);
    struct hp_st_task_options options = in_memory(rig_command());
    uint64_t id = submit_now(rig, 2, &options, 10);
    uint64_t ids[] = {id + 5, id + 5, id + 3};
    struct hp_st_id_range range = {.has = HP_HAS_ST_ID_RANGE_COUNT, .first = id, .count = 10};
    struct hp_msg_task_cancel msg = {.has = HP_HAS_TASK_CANCEL_IDS | HP_HAS_TASK_CANCEL_RANGES,
                                     .ids = {.items = ids, .count = 3},
                                     .ranges = {.items = &range, .count = 1}};
    struct hp_rpc rpc;
    struct hp_error error;
    struct hp_msg_task_cancel_reply reply;
    hp_buf_clear(&rig->out[1]);
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, 1, TASK_CANCEL, task_cancel, &msg);
    rig_end(rig);
    assert_int_equal(rig->job_count, 0);
    assert_true(replied(rig, 1, msgid, &rpc));
    assert_ok(hp_msg_task_cancel_reply_decode(rpc.result, &rig->arena, &reply, &error));
    assert_int_equal(reply.cancelled, 9);
    assert_int_equal(reply.cancelling, 1);
    assert_int_equal(reply.too_late, 3);
    assert_true(rig_next(rig, 2, &rpc)); /* the worker is told */
    assert_int_equal(rpc.method, HP_METHOD_WORKER_CONTROL);
    (void)done_call(rig, &id, 1, HP_REASON_SIGNAL);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_CANCELLED);
    assert_int_equal(op_sum(rig), 0);
    rig_free(rig);
}

/* Merged, newest first, in pages of any size. */
static void list_in_pages(struct rig *rig, const uint64_t expect[6])
{
    struct hp_rpc rpc;
    struct hp_error error;
    for (uint32_t limit = 1; limit <= 6; limit++) {
        uint32_t at = 0;
        uint64_t before = 0;
        do {
            struct hp_msg_task_list list = {.has = HP_HAS_TASK_LIST_LIMIT, .limit = limit};
            list.has |= before != 0 ? HP_HAS_TASK_LIST_BEFORE : 0;
            list.before = before;
            struct hp_msg_task_list_reply reply;
            rig_begin(rig);
            uint32_t msgid = RIG_CALL(rig, 1, TASK_LIST, task_list, &list);
            rig_end(rig);
            rig_settle(rig);
            assert_true(replied(rig, 1, msgid, &rpc));
            assert_ok(hp_msg_task_list_reply_decode(rpc.result, &rig->arena, &reply, &error));
            for (uint32_t i = 0; i < reply.tasks.count && at < 6; i++) {
                assert_int_equal(reply.tasks.items[i].id, expect[at++]);
            }
            before = (reply.has & HP_HAS_TASK_LIST_REPLY_NEXT) != 0 ? reply.next : 0;
        } while (before != 0 && at < 6);
        assert_int_equal(at, 6);
    }
}

static void queries_know_them(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(NULL, 1);
    struct hp_st_task_options options = in_memory(rig_command());
    struct hp_st_task_options durable = rig_command();
    uint64_t id = submit_now(rig, 2, &options, 2);
    uint64_t other = rig_submitted(rig, 1, 3, &durable, 2, NULL);
    uint64_t last = submit_now(rig, 4, &options, 2);
    struct hp_rpc rpc;
    struct hp_error error;
    /* wait: armed and answered without the store */
    struct hp_msg_task_wait wait = {.has = HP_HAS_TASK_WAIT_TIMEOUT_MS,
                                    .ids = {.items = &id, .count = 1},
                                    .timeout_ms = 1000,
                                    .end = true};
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, 1, TASK_WAIT, task_wait, &wait);
    rig_end(rig);
    assert_false(replied(rig, 1, msgid, &rpc));
    (void)done_call(rig, &id, 1, HP_REASON_NONE);
    struct hp_msg_task_wait_reply waited;
    assert_true(replied(rig, 1, msgid, &rpc));
    assert_ok(hp_msg_task_wait_reply_decode(rpc.result, &rig->arena, &waited, &error));
    assert_false(waited.timed_out);
    assert_int_equal(waited.tasks.items[0].state, HP_TASK_STATE_DONE);
    assert_true((waited.tasks.items[0].has & HP_HAS_ST_TASK_STATUS_END) != 0);
    list_in_pages(rig, (const uint64_t[]){last + 1, last, other + 1, other, id + 1, id});
    /* why, and get of both kinds in one request */
    struct hp_msg_task_why why = {.id = last};
    rig_begin(rig);
    msgid = RIG_CALL(rig, 1, TASK_WHY, task_why, &why);
    rig_end(rig);
    struct hp_msg_task_why_reply reasons;
    assert_true(replied(rig, 1, msgid, &rpc));
    assert_ok(hp_msg_task_why_reply_decode(rpc.result, &rig->arena, &reasons, &error));
    assert_int_equal(reasons.state, HP_TASK_STATE_READY);
    assert_true(reasons.lines.count > 1);
    uint64_t ids[] = {id, other, last};
    struct hp_msg_task_get get = {.has = HP_HAS_TASK_GET_IDS, .ids = {.items = ids, .count = 3}};
    struct hp_msg_task_get_reply got;
    rig_begin(rig);
    msgid = RIG_CALL(rig, 1, TASK_GET, task_get, &get);
    rig_end(rig);
    rig_settle(rig);
    assert_true(replied(rig, 1, msgid, &rpc));
    assert_ok(hp_msg_task_get_reply_decode(rpc.result, &rig->arena, &got, &error));
    assert_int_equal(got.tasks.count, 3);
    assert_int_equal(got.tasks.items[0].state, HP_TASK_STATE_DONE);
    assert_int_equal(got.tasks.items[2].state, HP_TASK_STATE_READY);
    rig_free(rig);
}

static uint64_t last_number(struct rig *rig)
{
    return hp_session_find(rig->core, hp_bin_make(session_a, 16))->last_number;
}

/* A session mixes both kinds and meets a restart at any point: the client goes on behind the last
 * number that hello tells; nothing durable is stored twice, nothing is refused for ever. */
static void a_mixed_session_survives_a_restart(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options durable = rig_command();
    struct hp_st_task_options memory = in_memory(rig_command());
    enum hp_rpc_error_code code = HP_RPC_ERROR_NONE;
    rig_hello(rig, 1, session_a, NULL);
    uint64_t one = rig_submitted(rig, 1, 1, &durable, 1, NULL);
    uint64_t two = rig_submitted(rig, 1, 2, &memory, 1, NULL);
    uint64_t three = rig_submitted(rig, 1, 3, &durable, 1, NULL);
    uint64_t four = rig_submitted(rig, 1, 4, &memory, 1, NULL);
    assert_true(one < two && two < three && three < four);
    assert_int_equal(rig_submitted(rig, 1, 4, &memory, 1, NULL), four); /* repeated */
    rig_crash(rig);
    rig_hello(rig, 1, session_a, NULL);
    assert_int_equal(last_number(rig), 3); /* 4 was in memory only */
    /* Replies that were lost on the way are asked for again: the durable one is not doubled, the
     * other's id is told, and is not known any more. */
    assert_int_equal(rig_submitted(rig, 1, 3, &durable, 1, NULL), three);
    assert_int_equal(rig_submitted(rig, 1, 2, &memory, 1, NULL), two);
    assert_int_equal(rig_state(rig, 1, two), HP_TASK_STATE_UNKNOWN);
    assert_int_equal(rig_state(rig, 1, three), HP_TASK_STATE_READY);
    /* What is above it is out of order until the client takes the next number. */
    assert_int_equal(rig_submitted(rig, 1, 5, &memory, 1, &code), 0);
    assert_int_equal(code, HP_RPC_ERROR_OUT_OF_ORDER);
    uint64_t again = rig_submitted(rig, 1, 4, &durable, 1, NULL);
    assert_true(again > four);
    assert_int_equal(rig_submitted(rig, 1, 4, &durable, 1, NULL), again);
    /* The durable one's commit is lost: it was never told, and its number is free again. */
    rig_begin(rig);
    (void)rig_submit(rig, 1, 5, &memory, 1);
    (void)rig_submit(rig, 1, 6, &durable, 1);
    rig_end(rig);
    rig_crash(rig);
    rig_hello(rig, 1, session_a, NULL);
    assert_int_equal(last_number(rig), 4);
    assert_int_not_equal(rig_submitted(rig, 1, 5, &durable, 1, NULL), 0);
    rig_free(rig);
}

static void numbers_outlive_a_connection_and_a_stop(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(NULL, 1);
    struct hp_st_task_options memory = in_memory(rig_command());
    (void)submit_now(rig, 2, &memory, 1);
    (void)submit_now(rig, 3, &memory, 1);
    assert_int_equal(op_sum(rig), 0);
    rig_begin(rig);
    rig_disconnect(rig, 1);
    rig_end(rig);
    rig_settle(rig);
    assert_int_equal(rig->op_counts[HP_OP_SESSION], 1);
    rig_crash(rig);
    rig_hello(rig, 1, session_a, NULL);
    assert_int_equal(last_number(rig), 3);
    rig_free(rig);
}

static void a_restart_kills_what_still_runs(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(NULL, 1);
    struct hp_st_task_options memory = in_memory(rig_command());
    uint64_t id = submit_now(rig, 2, &memory, 1);
    struct hp_st_run_ref run = {.id = id, .attempt = 1, .epoch = rig->core->epoch};
    rig_crash(rig);
    rig_hello(rig, 1, session_a, NULL);
    rig_hello(rig, 2, NULL, "w");
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_UNKNOWN);
    rig_register(rig, 2, 1, (struct hp_list_run_ref){.items = &run, .count = 1});
    assert_int_equal(rig->core->figures.stale, 1);
    uint32_t msgid = done_call(rig, &id, 1, HP_REASON_NONE);
    struct hp_rpc rpc;
    rig_settle(rig);
    assert_true(replied(rig, 2, msgid, &rpc)); /* it may forget it */
    rig_free(rig);
}

static void memory_is_bounded(void **state)
{
    (void)state;
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.volatile_bytes_max = 20000;
    struct rig *rig = rig_ready(&config, 1);
    struct hp_st_task_options memory = in_memory(rig_command());
    enum hp_rpc_error_code code = HP_RPC_ERROR_NONE;
    uint64_t number = 2;
    uint64_t ids[400];
    uint32_t count = 0;
    assert_int_equal(rig_submitted(rig, 1, number, &memory, 100000, &code), 0);
    assert_int_equal(code, HP_RPC_ERROR_TOO_BIG);
    number++;
    while ((ids[count] = rig_submitted(rig, 1, number, &memory, 1, &code)) != 0) {
        number++;
        count++;
        assert_true(count < 400);
    }
    assert_int_equal(code, HP_RPC_ERROR_BUSY);
    /* Ended ones that nobody forgets make room after a while, oldest first. */
    for (uint32_t i = 0; i < count; i++) {
        (void)done_call(rig, &ids[i], 1, HP_REASON_NONE);
    }
    assert_int_equal(rig_state(rig, 1, ids[0]), HP_TASK_STATE_DONE);
    for (int i = 0; i < 16; i++) {
        rig_pass(rig, 900);
    }
    uint64_t id = rig_submitted(rig, 1, number, &memory, 50, &code);
    assert_int_not_equal(id, 0);
    assert_int_equal(rig_state(rig, 1, ids[0]), HP_TASK_STATE_UNKNOWN);
    assert_true(rig->core->vol.bytes <= config.volatile_bytes_max);
    /* Results that come in numbers: at twice the bound the oldest goes at once. */
    uint64_t dropped = rig->core->vol.dropped;
    rig_cancel(rig, 1, id, 50, HP_CANCEL_MODE_FORCE);
    for (int i = 0; i < 60; i++) {
        number++;
        uint64_t next = rig_submitted(rig, 1, number, &memory, 1, &code);
        if (next == 0) {
            break;
        }
        rig_cancel(rig, 1, next, 1, HP_CANCEL_MODE_FORCE);
    }
    assert_true(rig->core->vol.bytes <= 2 * config.volatile_bytes_max);
    assert_true(rig->core->vol.dropped >= dropped);
    rig_free(rig);
}

static void results_expire(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(NULL, 1);
    struct hp_st_task_options memory = in_memory(rig_command());
    memory.has |= HP_HAS_ST_TASK_OPTIONS_RESULT_TTL_MS;
    memory.result_ttl_ms = 1000;
    uint64_t id = submit_now(rig, 2, &memory, 1);
    (void)done_call(rig, &id, 1, HP_REASON_NONE);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_DONE);
    for (int i = 0; i < 30; i++) {
        rig_pass(rig, 900);
    }
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_UNKNOWN);
    rig_free(rig);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(NULL, 1);
    struct hp_st_task_options memory = in_memory(rig_command());
    enum hp_rpc_error_code code = HP_RPC_ERROR_NONE;
    memory.has |= HP_HAS_ST_TASK_OPTIONS_UKEY;
    memory.ukey = HP_STR("k");
    assert_int_equal(rig_submitted(rig, 1, 2, &memory, 1, &code), 0);
    assert_int_equal(code, HP_RPC_ERROR_BAD_REQUEST);
    assert_int_equal(rig_submitted(rig, 1, 2, &memory, 1, &code), 0); /* the number is used */
    assert_int_equal(code, HP_RPC_ERROR_BAD_REQUEST);
    memory = in_memory(rig_command());
    assert_int_not_equal(submit_now(rig, 3, &memory, 1), 0);
    rig_free(rig);
}

static uint64_t open_blob(struct rig *rig, uint64_t conn, uint64_t size)
{
    struct hp_msg_blob_open msg = {.has = HP_HAS_BLOB_OPEN_DURABLE, .size = size};
    struct hp_rpc rpc;
    struct hp_error error;
    struct hp_msg_blob_open_reply reply;
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, conn, BLOB_OPEN, blob_open, &msg);
    rig_end(rig);
    if (!replied(rig, conn, msgid, &rpc) || rpc.failed) {
        return 0;
    }
    assert_ok(hp_msg_blob_open_reply_decode(rpc.result, &rig->arena, &reply, &error));
    return reply.blob;
}

static bool put_blob(struct rig *rig, uint64_t conn, uint64_t blob, uint64_t offset,
                     const uint8_t *data, uint32_t size, const uint64_t *digest)
{
    struct hp_msg_blob_put msg = {.blob = blob, .offset = offset, .data = hp_bin_make(data, size)};
    struct hp_rpc rpc;
    if (digest != NULL) {
        msg.has |= HP_HAS_BLOB_PUT_DIGEST;
        msg.digest = *digest;
    }
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, conn, BLOB_PUT, blob_put, &msg);
    rig_end(rig);
    return replied(rig, conn, msgid, &rpc) && !rpc.failed;
}

static void blobs_are_in_memory(void **state)
{
    (void)state;
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.volatile_bytes_max = 1 << 20;
    struct rig *rig = rig_ready(&config, 1);
    static uint8_t data[100000];
    struct hp_rpc rpc;
    struct hp_error error;
    memset(data, 'z', sizeof(data));
    uint64_t digest = XXH3_64bits(data, sizeof(data));
    uint64_t wrong = digest + 1;
    uint64_t blob = open_blob(rig, 1, sizeof(data));
    assert_true(hp_vblob_is_id(blob));
    assert_true(put_blob(rig, 1, blob, 0, data, 60000, NULL));
    assert_true(put_blob(rig, 1, blob, 0, data, 60000, NULL)); /* repeated */
    assert_false(put_blob(rig, 1, blob, 70000, data, 10, NULL));
    assert_true(put_blob(rig, 1, blob, 60000, data, 40000, &digest));
    assert_true(put_blob(rig, 1, blob, 60000, data, 40000, &digest));
    uint64_t bad = open_blob(rig, 1, 10);
    assert_false(put_blob(rig, 1, bad, 0, data, 10, &wrong));
    assert_false(put_blob(rig, 1, bad, 0, data, 10, NULL)); /* it is gone */
    struct hp_msg_blob_get get = {.blob = blob, .offset = 90000, .size = 65536};
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, 1, BLOB_GET, blob_get, &get);
    rig_end(rig);
    struct hp_msg_blob_get_reply got;
    assert_true(replied(rig, 1, msgid, &rpc));
    assert_ok(hp_msg_blob_get_reply_decode(rpc.result, &rig->arena, &got, &error));
    assert_int_equal(got.data.size, 10000);
    assert_int_equal(got.digest, digest);
    /* As a payload; a durable task may not have it. */
    struct hp_bin none = {0};
    struct hp_msg_task_submit msg = {.has = HP_HAS_TASK_SUBMIT_PAYLOADS | HP_HAS_TASK_SUBMIT_BLOBS |
                                            HP_HAS_TASK_SUBMIT_NUMBER,
                                     .number = 2,
                                     .options = rig_command(),
                                     .payloads = {.items = &none, .count = 1},
                                     .blobs = {.items = &blob, .count = 1}};
    rig_begin(rig);
    msgid = RIG_CALL(rig, 1, TASK_SUBMIT, task_submit, &msg);
    rig_end(rig);
    rig_settle(rig);
    assert_true(replied(rig, 1, msgid, &rpc) && rpc.failed);
    msg.options = in_memory(rig_command());
    msg.number = 3;
    rig_begin(rig);
    msgid = RIG_CALL(rig, 1, TASK_SUBMIT, task_submit, &msg);
    rig_end(rig);
    assert_true(replied(rig, 1, msgid, &rpc) && !rpc.failed);
    uint64_t id = rig->core->next_id - 1;
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 1);
    assert_int_equal(runs[0].blobs.items[0], blob);
    /* A client over the bound waits, a worker's result becomes a file. */
    assert_int_equal(open_blob(rig, 1, 1 << 20), 0);
    uint64_t next_blob = rig->core->next_blob;
    (void)open_blob(rig, 2, 1 << 20);
    assert_int_equal(rig->core->next_blob, next_blob + 1);
    assert_int_equal(hp_idmap_count(&rig->core->vol.blobs), 1);
    (void)done_call(rig, &id, 1, HP_REASON_NONE);
    assert_int_equal(hp_idmap_count(&rig->core->vol.blobs), 0); /* its payload makes room */
    struct hp_st_id_range range = {.has = HP_HAS_ST_ID_RANGE_COUNT, .first = id, .count = 1};
    struct hp_msg_task_forget forget = {.ranges = {.items = &range, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, TASK_FORGET, task_forget, &forget);
    rig_end(rig);
    assert_int_equal(hp_idmap_count(&rig->core->vol.blobs), 0);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_UNKNOWN);
    rig_free(rig);
}

static void uploads_nobody_uses_go(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(NULL, 1);
    uint64_t bytes = rig->core->vol.bytes;
    assert_int_not_equal(open_blob(rig, 1, 1000), 0);
    assert_true(rig->core->vol.bytes > bytes);
    for (int i = 0; i < 700; i++) {
        rig_pass(rig, 900);
    }
    assert_true(rig->core->vol.bytes <= bytes);
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(nothing_waits_for_the_disk),
    cmocka_unit_test(what_has_not_left_is_not_missed),
    cmocka_unit_test(ids_are_never_told_before_they_are_reserved),
    cmocka_unit_test(retries_and_losses_are_in_memory),
    cmocka_unit_test(delays_and_expiries_are_kept),
    cmocka_unit_test(cancels_need_no_disk),
    cmocka_unit_test(queries_know_them),
    cmocka_unit_test(a_mixed_session_survives_a_restart),
    cmocka_unit_test(numbers_outlive_a_connection_and_a_stop),
    cmocka_unit_test(a_restart_kills_what_still_runs),
    cmocka_unit_test(memory_is_bounded),
    cmocka_unit_test(results_expire),
    cmocka_unit_test(what_cannot_be_is_refused),
    cmocka_unit_test(blobs_are_in_memory),
    cmocka_unit_test(uploads_nobody_uses_go),
};

HP_TEST_MAIN(tests)
