/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Asking for ends that may have been missed: after a reconnect, when the broker dropped events, and
 * for tasks joined by their unique key. A pass walks all outstanding ids of marked runs, ascending,
 * one task.get at a time; the answers go the way of events.
 */
#include "client/engine_state.h"

/* Ids of one task.get, and ranges: an answer holds what fits, so more would only be asked again. */
#define CHECK_IDS 50000u
#define CHECK_RANGES 1024u
#define WATCH_MS 60000u
/* Tasks waited for at once: the broker has a limit for each connection. */
#define WATCHES_MAX 128u
/* The others are asked about as often. */
#define WATCH_POLL_MS 1000u

static void pass_end(struct hp_engine *engine)
{
    engine->check_active = false;
    engine->check_full = false;
    hp_track_check_end(&engine->track);
}

static void check_done(void *context, const struct hp_reply *reply)
{
    struct hp_engine *engine = context;
    struct hp_msg_task_get_reply got;
    enum hp_status status;

    if (reply->status != HP_STATUS_OK) {
        hp_engine_fail(engine, reply->status, "task.get: %s", reply->text);
        return;
    }
    if (hp_msg_task_get_reply_decode(reply->result, &engine->arena, &got, NULL) != HP_OK) {
        hp_engine_fail(engine, HP_STATUS_PROTOCOL, "the broker's answer to task.get is wrong");
        return;
    }
    /* Progress is certain: `next` is above what was asked from, or the request is behind us. */
    if ((got.has & HP_HAS_TASK_GET_REPLY_NEXT) != 0 && got.next > engine->check_from &&
        got.next < engine->check_until) {
        engine->check_from = got.next;
    } else {
        engine->check_from = engine->check_until;
    }
    engine->check_waits = false;
    status = got.tasks.count == 0 ? HP_STATUS_OK : hp_item_queue_tasks(engine, reply->frame);
    if (status != HP_STATUS_OK) {
        hp_engine_fail(engine, status, "%s", engine->error_text);
    }
}

/* Puts the next ids to ask about; false: no more. */
static bool next_ranges(struct hp_engine *engine, struct hp_msg_task_get *get,
                        struct hp_st_id_range *ranges)
{
    uint32_t left = CHECK_IDS;
    uint64_t from = engine->check_from;
    struct hp_ids ids;

    get->ranges.items = ranges;
    while (left > 0 && get->ranges.count < CHECK_RANGES &&
           hp_track_check_next(&engine->track, from, left, &ids)) {
        struct hp_st_id_range *range = &ranges[get->ranges.count];

        hp_st_id_range_init(range);
        range->first = ids.first;
        range->count = ids.count;
        range->has = HP_HAS_ST_ID_RANGE_COUNT;
        get->ranges.count++;
        left -= ids.count;
        from = ids.first + ids.count;
    }
    engine->check_until = from;
    return get->ranges.count > 0;
}

static void ask(struct hp_engine *engine)
{
    struct hp_st_id_range ranges[CHECK_RANGES];
    struct hp_msg_task_get get;
    struct hp_buf params;

    hp_msg_task_get_init(&get);
    if (!next_ranges(engine, &get, ranges)) {
        pass_end(engine);
        return;
    }
    get.ended_only = !engine->check_full;
    get.has = HP_HAS_TASK_GET_RANGES | HP_HAS_TASK_GET_ENDED_ONLY;
    hp_buf_init(&params, HP_LIMIT_FRAME_BYTES);
    if (hp_msg_task_get_encode(&params, &get) != HP_OK) {
        hp_buf_deinit(&params);
        hp_engine_fail(engine, HP_STATUS_NO_MEMORY, "out of memory");
        return;
    }
    engine->check_waits = hp_call_begin(engine, HP_METHOD_TASK_GET, &params, check_done, engine,
                                        true, NULL) == HP_STATUS_OK;
}

void hp_check_step(struct hp_engine *engine)
{
    if (!engine->check_active && hp_track_check_wanted(&engine->track)) {
        hp_track_check_begin(&engine->track);
        engine->check_active = true;
        engine->check_waits = false;
        engine->check_from = 0;
        engine->check_until = 0;
    }
    /* Answers are events: none are asked for while too many wait to be read. */
    if (engine->check_active && !engine->check_waits && hp_engine_wants_input(engine)) {
        ask(engine);
    }
}

void hp_check_lost(struct hp_engine *engine)
{
    if (engine->check_active) {
        pass_end(engine);
    }
    engine->check_waits = false;
}

/* ---------------------------------------------------------------- joined tasks */

/* A task joined by its key may be another session's: no event comes for it, so it is waited for. */
static void watch_done(void *context, const struct hp_reply *reply);

static enum hp_status watch_begin(struct hp_engine *engine, uint64_t id)
{
    struct hp_msg_task_wait wait;
    struct hp_buf params;

    hp_msg_task_wait_init(&wait);
    wait.ids.items = &id;
    wait.ids.count = 1;
    wait.timeout_ms = WATCH_MS;
    wait.has = HP_HAS_TASK_WAIT_IDS | HP_HAS_TASK_WAIT_TIMEOUT_MS;
    hp_buf_init(&params, 1024);
    if (hp_msg_task_wait_encode(&params, &wait) != HP_OK) {
        hp_buf_deinit(&params);
        return HP_STATUS_NO_MEMORY;
    }
    if (hp_call_begin(engine, HP_METHOD_TASK_WAIT, &params, watch_done, engine, false, NULL) !=
        HP_STATUS_OK) {
        return HP_STATUS_NO_MEMORY;
    }
    engine->watch_count++;
    return HP_STATUS_OK;
}

static void watch_done(void *context, const struct hp_reply *reply)
{
    struct hp_engine *engine = context;
    struct hp_msg_task_wait_reply got;
    struct hp_owner owner;
    enum hp_status status = reply->status;

    engine->watch_count--;
    if (status == HP_STATUS_OK &&
        hp_msg_task_wait_reply_decode(reply->result, &engine->arena, &got, NULL) != HP_OK) {
        status = HP_STATUS_PROTOCOL;
    }
    if (status != HP_STATUS_OK) {
        hp_engine_fail(engine, status, "task.wait: %s", reply->text);
        return;
    }
    status = hp_item_queue_tasks(engine, reply->frame);
    for (uint32_t i = 0; status == HP_STATUS_OK && i < got.tasks.count; i++) {
        if (got.tasks.items[i].state < HP_TASK_STATE_DONE &&
            hp_track_find(&engine->track, got.tasks.items[i].id, &owner)) {
            status = watch_begin(engine, got.tasks.items[i].id);
        }
    }
    if (status != HP_STATUS_OK) {
        hp_engine_fail(engine, status, "out of memory");
    }
}

enum hp_err hp_check_watch(struct hp_engine *engine, uint64_t id)
{
    if (engine->watch_count >= WATCHES_MAX) {
        engine->poll_at_ms = HP_MIN(engine->poll_at_ms, engine->now_ms + WATCH_POLL_MS);
        return HP_OK;
    }
    return watch_begin(engine, id) == HP_STATUS_OK ? HP_OK : HP_ERR_NOMEM;
}
