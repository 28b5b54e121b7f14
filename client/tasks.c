/* SPDX-License-Identifier: BSD-2-Clause */
/* Blocking questions about tasks: get, wait, list, cancel. */
#include <string.h>

#include "client/shell.h"
#include "client/view.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"

#define GET_RANGES 1024u
#define GET_IDS 16384u
#define WAIT_IDS 1024u
/* A wait is asked for again after this time, so that a broker that forgot it does no harm. */
#define WAIT_MS 60000u
/* Calls of one "any" wait at the same time. */
#define ANY_CALLS 64u
/* Time for the last look after a wait's deadline. */
#define LAST_LOOK_MS 2000u
#define CANCEL_RANGES 4096u
#define CANCEL_IDS 1000000u

/* A list that is being filled from several answers. */
struct filler {
    struct hp_task_list *list;
    struct hp_arena *arena;
    size_t capacity;
};

static enum hp_err filler_init(struct filler *filler)
{
    filler->capacity = 16;
    filler->list = hp_view_task_list_new(&filler->arena, filler->capacity);
    return filler->list == NULL ? HP_ERR_NOMEM : HP_OK;
}

static enum hp_err filler_add(struct filler *filler, const struct hp_st_task_status *status)
{
    struct hp_task_list *list = filler->list;
    struct hp_end *end = NULL;

    if (list->count == filler->capacity) {
        struct hp_task *tasks =
            hp_realloc_array(list->tasks, filler->capacity * 2, sizeof(*list->tasks));

        if (tasks == NULL) {
            return HP_ERR_NOMEM;
        }
        list->tasks = tasks;
        filler->capacity *= 2;
    }
    if ((status->has & HP_HAS_ST_TASK_STATUS_END) != 0) {
        end = HP_ARENA_NEW(filler->arena, struct hp_end);
        if (end == NULL) {
            return HP_ERR_NOMEM;
        }
    }
    if (hp_view_task(status, filler->arena, true, &list->tasks[list->count], end) != HP_OK) {
        return HP_ERR_NOMEM;
    }
    list->count++;
    return HP_OK;
}

static enum hp_status add_all(struct filler *filler, const struct hp_list_task_status *tasks)
{
    for (uint32_t i = 0; i < tasks->count; i++) {
        if (filler_add(filler, &tasks->items[i]) != HP_OK) {
            return HP_STATUS_NO_MEMORY;
        }
    }
    return HP_STATUS_OK;
}

static void put_ranges(const struct hp_ids *ids, size_t count, struct hp_st_id_range *ranges,
                       struct hp_list_id_range *ret)
{
    for (size_t i = 0; i < count; i++) {
        hp_st_id_range_init(&ranges[i]);
        ranges[i].first = ids[i].first;
        ranges[i].count = ids[i].count;
        ranges[i].has = HP_HAS_ST_ID_RANGE_COUNT;
    }
    ret->items = ranges;
    ret->count = (uint32_t)count;
}

/* ---------------------------------------------------------------- get */

struct got {
    struct filler *filler;
    bool cut;
    uint64_t next;
};

static enum hp_status decode_get(void *context, const struct hp_reply *reply)
{
    HP_CLEANUP(hp_arena_deinit) struct hp_arena arena;
    struct got *got = context;
    struct hp_msg_task_get_reply message;
    enum hp_err err;

    hp_arena_init(&arena, 64u << 10, SIZE_MAX / 8);
    err = hp_msg_task_get_reply_decode(reply->result, &arena, &message, NULL);
    if (err != HP_OK) {
        return err == HP_ERR_NOMEM ? HP_STATUS_NO_MEMORY : HP_STATUS_PROTOCOL;
    }
    got->cut = (message.has & HP_HAS_TASK_GET_REPLY_NEXT) != 0;
    got->next = message.next;
    return add_all(got->filler, &message.tasks);
}

/* Drops the ids in front of `next` from ranges; how many ranges are left. Progress is certain: the
 * first id never stays, unless it is `next` itself and so refused. */
static size_t ranges_from(struct hp_ids *ranges, size_t count, uint64_t next)
{
    for (size_t i = 0; i < count; i++) {
        if (next >= ranges[i].first && next - ranges[i].first < ranges[i].count &&
            (i > 0 || next > ranges[i].first)) {
            uint32_t skip = (uint32_t)(next - ranges[i].first);

            ranges[i].first += skip;
            ranges[i].count -= skip;
            memmove(ranges, &ranges[i], (count - i) * sizeof(*ranges));
            return count - i;
        }
    }
    return 0;
}

static enum hp_status get_ranges(struct hp_client *client, struct hp_ids *ids, size_t count,
                                 unsigned detail, uint64_t deadline_ms, struct filler *filler)
{
    struct hp_st_id_range ranges[GET_RANGES];
    enum hp_status status = HP_STATUS_OK;

    while (status == HP_STATUS_OK && count > 0) {
        struct got got = {.filler = filler};
        struct hp_msg_task_get get;
        struct hp_buf params;

        hp_msg_task_get_init(&get);
        put_ranges(ids, count, ranges, &get.ranges);
        get.end = (detail & HP_DETAIL_END) != 0;
        get.options = (detail & HP_DETAIL_OPTIONS) != 0;
        get.ended_only = (detail & HP_DETAIL_ENDED_ONLY) != 0;
        get.has = HP_HAS_TASK_GET_RANGES | HP_HAS_TASK_GET_END | HP_HAS_TASK_GET_OPTIONS |
                  HP_HAS_TASK_GET_ENDED_ONLY;
        hp_buf_init(&params, HP_LIMIT_FRAME_BYTES);
        status = hp_client_call(client, HP_METHOD_TASK_GET, hp_msg_task_get_encode(&params, &get),
                                &params, deadline_ms, decode_get, &got);
        count = got.cut ? ranges_from(ids, count, got.next) : 0;
    }
    return status;
}

static enum hp_status get_all(struct hp_client *client, const struct hp_ids *ids, size_t id_count,
                              unsigned detail, uint64_t deadline_ms, struct hp_task_list **ret_list)
{
    struct hp_id_cursor cursor = {.ids = ids, .count = id_count};
    struct hp_ids part[GET_RANGES];
    struct filler filler;
    size_t count;
    enum hp_status status = HP_STATUS_OK;

    if (filler_init(&filler) != HP_OK) {
        return hp_client_fail(client, HP_STATUS_NO_MEMORY, "out of memory");
    }
    while (status == HP_STATUS_OK &&
           (count = hp_id_cursor_next(&cursor, part, GET_RANGES, GET_IDS)) > 0) {
        status = get_ranges(client, part, count, detail, deadline_ms, &filler);
    }
    if (status != HP_STATUS_OK) {
        hp_task_list_free(filler.list);
        return status;
    }
    *ret_list = filler.list;
    return HP_STATUS_OK;
}

enum hp_status hp_get(struct hp_client *client, const struct hp_ids *ids, size_t id_count,
                      unsigned detail, int64_t timeout_ms, struct hp_task_list **ret_list)
{
    return get_all(client, ids, id_count, detail, hp_client_deadline_ms(client, timeout_ms),
                   ret_list);
}

/* ---------------------------------------------------------------- wait */

/* The answer to one task.wait, reduced to what matters. */
struct waited {
    bool done;
    bool busy;
    uint64_t request;
    enum hp_status status;
    bool all_ended;
    bool any_ended;
};

static void take_wait(void *context, const struct hp_reply *reply)
{
    HP_CLEANUP(hp_arena_deinit) struct hp_arena arena;
    struct waited *waited = context;
    struct hp_msg_task_wait_reply message;

    hp_arena_init(&arena, 64u << 10, SIZE_MAX / 8);
    waited->done = true;
    waited->status = reply->status;
    if (reply->status != HP_STATUS_OK) {
        return;
    }
    if (hp_msg_task_wait_reply_decode(reply->result, &arena, &message, NULL) != HP_OK) {
        waited->status = HP_STATUS_PROTOCOL;
        return;
    }
    waited->all_ended = !message.timed_out;
    waited->any_ended = false;
    for (uint32_t i = 0; i < message.tasks.count; i++) {
        bool ended = message.tasks.items[i].state >= HP_TASK_STATE_DONE;

        waited->all_ended = waited->all_ended && ended;
        waited->any_ended = waited->any_ended || ended;
    }
}

static enum hp_status wait_begin(struct hp_client *client, const uint64_t *ids, uint32_t count,
                                 enum hp_wait_for wait_for, uint64_t deadline_ms,
                                 struct waited *waited)
{
    struct hp_msg_task_wait wait;
    struct hp_buf params;
    uint64_t now_ms = hp_clock_mono_ms();
    enum hp_err err;
    enum hp_status status;

    *waited = (struct waited){0};
    hp_msg_task_wait_init(&wait);
    /* The encoder only reads them. */
    wait.ids.items = (uint64_t *)(uintptr_t)ids;
    wait.ids.count = count;
    wait.mode = (enum hp_wait_mode)wait_for;
    wait.end = false;
    wait.timeout_ms = deadline_ms <= now_ms ? 0 : HP_MIN(deadline_ms - now_ms, WAIT_MS);
    wait.has = HP_HAS_TASK_WAIT_IDS | HP_HAS_TASK_WAIT_MODE | HP_HAS_TASK_WAIT_END |
               HP_HAS_TASK_WAIT_TIMEOUT_MS;
    hp_buf_init(&params, HP_LIMIT_FRAME_BYTES);
    err = hp_msg_task_wait_encode(&params, &wait);
    if (err != HP_OK) {
        hp_buf_deinit(&params);
        return hp_client_fail(client, HP_STATUS_NO_MEMORY, "out of memory");
    }
    status = hp_call_begin(client->engine, HP_METHOD_TASK_WAIT, &params, take_wait, waited, false,
                           &waited->request);
    waited->busy = status == HP_STATUS_OK;
    return status == HP_STATUS_OK ? status : hp_client_fail_engine(client, status);
}

/* All ids of the ranges, one by one, up to a limit. */
static size_t list_ids(struct hp_id_cursor *cursor, uint64_t *ids, size_t max)
{
    struct hp_ids range;
    size_t count = 0;

    while (count < max && hp_id_cursor_next(cursor, &range, 1, max - count) > 0) {
        for (uint32_t i = 0; i < range.count; i++) {
            ids[count++] = range.first + i;
        }
    }
    return count;
}

static bool is_broken(struct hp_client *client, const struct waited *waited,
                      enum hp_status *ret_status)
{
    if (!waited->done || waited->status == HP_STATUS_OK || waited->status == HP_STATUS_BUSY ||
        waited->status == HP_STATUS_DRAINING) {
        return false;
    }
    *ret_status =
        hp_client_fail(client, waited->status, "task.wait: %s", hp_strerror(waited->status));
    return true;
}

/* Waits for all ids of one chunk. */
static enum hp_status wait_chunk(struct hp_client *client, const uint64_t *ids, uint32_t count,
                                 uint64_t deadline_ms)
{
    enum hp_status status = HP_STATUS_OK;

    while (status == HP_STATUS_OK) {
        struct waited waited;

        status = wait_begin(client, ids, count, HP_WAIT_ALL, deadline_ms, &waited);
        while (status == HP_STATUS_OK && !waited.done) {
            /* The broker answers at the deadline: a little later is in time. */
            status = hp_client_pump(
                client, deadline_ms == HP_ENGINE_NEVER ? deadline_ms : deadline_ms + LAST_LOOK_MS);
        }
        if (!waited.done) {
            hp_call_abandon(client->engine, waited.request);
            return status;
        }
        if (is_broken(client, &waited, &status) || waited.all_ended) {
            return status;
        }
        if (hp_clock_mono_ms() >= deadline_ms) {
            return HP_STATUS_TIMEOUT;
        }
    }
    return status;
}

static enum hp_status wait_all(struct hp_client *client, const struct hp_ids *ids, size_t id_count,
                               uint64_t deadline_ms)
{
    struct hp_id_cursor cursor = {.ids = ids, .count = id_count};
    uint64_t chunk[WAIT_IDS];
    size_t count;
    enum hp_status status = HP_STATUS_OK;

    while (status == HP_STATUS_OK && (count = list_ids(&cursor, chunk, WAIT_IDS)) > 0) {
        status = wait_chunk(client, chunk, (uint32_t)count, deadline_ms);
    }
    return status;
}

/* One round over all chunks at the same time; *ret_ended: one has ended. */
static enum hp_status any_round(struct hp_client *client, struct waited *calls, size_t call_count,
                                uint64_t deadline_ms, bool *ret_ended)
{
    enum hp_status status = HP_STATUS_OK;
    bool all_done = false;

    while (status == HP_STATUS_OK && !*ret_ended && !all_done) {
        status = hp_client_pump(
            client, deadline_ms == HP_ENGINE_NEVER ? deadline_ms : deadline_ms + LAST_LOOK_MS);
        all_done = true;
        for (size_t i = 0; i < call_count; i++) {
            if (is_broken(client, &calls[i], &status)) {
                break;
            }
            all_done = all_done && calls[i].done;
            *ret_ended = *ret_ended || (calls[i].done && calls[i].any_ended);
        }
    }
    for (size_t i = 0; i < call_count; i++) {
        if (calls[i].busy && !calls[i].done) {
            hp_call_abandon(client->engine, calls[i].request);
        }
    }
    return *ret_ended ? HP_STATUS_OK : status;
}

static enum hp_status wait_any(struct hp_client *client, const struct hp_ids *ids, size_t id_count,
                               uint64_t deadline_ms)
{
    bool ended = false;
    enum hp_status status = HP_STATUS_OK;

    while (status == HP_STATUS_OK && !ended) {
        struct hp_id_cursor cursor = {.ids = ids, .count = id_count};
        struct waited calls[ANY_CALLS];
        uint64_t chunk[WAIT_IDS];
        size_t call_count = 0;
        size_t count;

        while (status == HP_STATUS_OK && call_count < ANY_CALLS &&
               (count = list_ids(&cursor, chunk, WAIT_IDS)) > 0) {
            status = wait_begin(client, chunk, (uint32_t)count, HP_WAIT_ANY, deadline_ms,
                                &calls[call_count]);
            call_count += status == HP_STATUS_OK ? 1 : 0;
        }
        if (status == HP_STATUS_OK && cursor.index < cursor.count) {
            status = hp_client_fail(client, HP_STATUS_BAD_ARGUMENT,
                                    "a wait for any is for at most %u ids", ANY_CALLS * WAIT_IDS);
        }
        if (status != HP_STATUS_OK) {
            for (size_t i = 0; i < call_count; i++) {
                hp_call_abandon(client->engine, calls[i].request);
            }
            return status;
        }
        status = any_round(client, calls, call_count, deadline_ms, &ended);
        if (status == HP_STATUS_OK && !ended && hp_clock_mono_ms() >= deadline_ms) {
            status = HP_STATUS_TIMEOUT;
        }
    }
    return status;
}

enum hp_status hp_wait(struct hp_client *client, const struct hp_ids *ids, size_t id_count,
                       enum hp_wait_for wait_for, unsigned detail, int64_t timeout_ms,
                       struct hp_task_list **ret_list)
{
    uint64_t deadline_ms = hp_client_deadline_ms(client, timeout_ms);
    uint64_t look_ms;
    bool timed_out;
    enum hp_status status = hp_client_check(client);

    if (status == HP_STATUS_OK && id_count > 0) {
        status = wait_for == HP_WAIT_ANY ? wait_any(client, ids, id_count, deadline_ms)
                                         : wait_all(client, ids, id_count, deadline_ms);
    }
    timed_out = status == HP_STATUS_TIMEOUT;
    if (timed_out && ret_list == NULL) {
        return hp_client_fail(client, status, "the tasks had not ended in time");
    }
    if ((status != HP_STATUS_OK && !timed_out) || ret_list == NULL) {
        return status;
    }
    look_ms = deadline_ms == HP_ENGINE_NEVER
                  ? deadline_ms
                  : HP_MAX(deadline_ms, hp_clock_mono_ms() + LAST_LOOK_MS);
    status = get_all(client, ids, id_count, detail, look_ms, ret_list);
    if (status == HP_STATUS_OK) {
        (*ret_list)->timed_out = timed_out;
    }
    return status;
}

/* ---------------------------------------------------------------- list */

void hp_filter_init(struct hp_filter *filter)
{
    *filter = (struct hp_filter){.limit = 100};
}

struct listed {
    struct filler filler;
    uint64_t next;
};

static enum hp_status decode_list(void *context, const struct hp_reply *reply)
{
    HP_CLEANUP(hp_arena_deinit) struct hp_arena arena;
    struct listed *listed = context;
    struct hp_msg_task_list_reply message;

    hp_arena_init(&arena, 64u << 10, SIZE_MAX / 8);
    if (hp_msg_task_list_reply_decode(reply->result, &arena, &message, NULL) != HP_OK) {
        return HP_STATUS_PROTOCOL;
    }
    listed->filler.list->next = message.next;
    return add_all(&listed->filler, &message.tasks);
}

static void put_filter(const struct hp_filter *filter, struct hp_msg_task_list *list,
                       uint64_t states[32])
{
    hp_msg_task_list_init(list);
    for (uint32_t i = 0; i < 32; i++) {
        if ((filter->states >> i & 1) != 0) {
            states[list->states.count++] = i;
        }
    }
    list->states.items = states;
    list->has |= list->states.count > 0 ? HP_HAS_TASK_LIST_STATES : 0;
#define PUT_STRING(field, upper)                                                                   \
    if (filter->field != NULL) {                                                                   \
        list->field = hp_str_of(filter->field);                                                    \
        list->has |= HP_HAS_TASK_LIST_##upper;                                                     \
    }
    PUT_STRING(queue, QUEUE)
    PUT_STRING(name, NAME)
    PUT_STRING(batch, BATCH)
    PUT_STRING(user, USER)
    PUT_STRING(node, NODE)
#undef PUT_STRING
    list->since_ms = filter->since_ms;
    list->has |= filter->since_ms != 0 ? HP_HAS_TASK_LIST_SINCE_MS : 0;
    list->before = filter->before;
    list->has |= filter->before != 0 ? HP_HAS_TASK_LIST_BEFORE : 0;
    list->limit = filter->limit;
    list->end = (filter->detail & HP_DETAIL_END) != 0;
    list->has |= HP_HAS_TASK_LIST_LIMIT | HP_HAS_TASK_LIST_END;
}

enum hp_status hp_list(struct hp_client *client, const struct hp_filter *filter, int64_t timeout_ms,
                       struct hp_task_list **ret_list)
{
    uint64_t states[32];
    struct listed listed = {0};
    struct hp_msg_task_list list;
    struct hp_buf params;
    enum hp_status status;

    if (filler_init(&listed.filler) != HP_OK) {
        return hp_client_fail(client, HP_STATUS_NO_MEMORY, "out of memory");
    }
    put_filter(filter, &list, states);
    hp_buf_init(&params, HP_LIMIT_FRAME_BYTES);
    status =
        hp_client_call(client, HP_METHOD_TASK_LIST, hp_msg_task_list_encode(&params, &list),
                       &params, hp_client_deadline_ms(client, timeout_ms), decode_list, &listed);
    if (status != HP_STATUS_OK) {
        hp_task_list_free(listed.filler.list);
        return status;
    }
    *ret_list = listed.filler.list;
    return HP_STATUS_OK;
}

/* ---------------------------------------------------------------- cancel */

struct cancelled {
    struct hp_cancel_report report;
    bool complete; /* every answer so far had its results */
};

static enum hp_status decode_cancel(void *context, const struct hp_reply *reply)
{
    HP_CLEANUP(hp_arena_deinit) struct hp_arena arena;
    struct cancelled *cancelled = context;
    struct hp_cancel_report *report = &cancelled->report;
    struct hp_msg_task_cancel_reply message;
    struct hp_cancel_entry *results;

    hp_arena_init(&arena, 64u << 10, SIZE_MAX / 8);
    if (hp_msg_task_cancel_reply_decode(reply->result, &arena, &message, NULL) != HP_OK) {
        return HP_STATUS_PROTOCOL;
    }
    report->cancelled += message.cancelled;
    report->cancelling += message.cancelling;
    report->too_late += message.too_late;
    report->unknown += message.unknown;
    if ((message.has & HP_HAS_TASK_CANCEL_REPLY_RESULTS) == 0) {
        cancelled->complete = false;
        return HP_STATUS_OK;
    }
    results = hp_realloc_array(report->results, report->result_count + message.results.count + 1,
                               sizeof(*results));
    if (results == NULL) {
        return HP_STATUS_NO_MEMORY;
    }
    report->results = results;
    for (uint32_t i = 0; i < message.results.count; i++) {
        results[report->result_count].id = message.results.items[i].id;
        results[report->result_count++].outcome =
            (enum hp_cancelled)message.results.items[i].outcome;
    }
    return HP_STATUS_OK;
}

void hp_cancel_report_clear(struct hp_cancel_report *report)
{
    hp_free(report->results);
    *report = (struct hp_cancel_report){0};
}

static enum hp_status cancel_part(struct hp_client *client, const struct hp_ids *ids, size_t count,
                                  struct hp_msg_task_cancel *cancel, uint64_t deadline_ms,
                                  struct cancelled *cancelled)
{
    HP_CLEANUP(hp_free_ptr) struct hp_st_id_range *ranges = hp_alloc_array(count, sizeof(*ranges));
    struct hp_buf params;

    if (ranges == NULL) {
        return hp_client_fail(client, HP_STATUS_NO_MEMORY, "out of memory");
    }
    put_ranges(ids, count, ranges, &cancel->ranges);
    hp_buf_init(&params, HP_LIMIT_FRAME_BYTES);
    return hp_client_call(client, HP_METHOD_TASK_CANCEL, hp_msg_task_cancel_encode(&params, cancel),
                          &params, deadline_ms, decode_cancel, cancelled);
}

enum hp_status hp_cancel(struct hp_client *client, const struct hp_ids *ids, size_t id_count,
                         enum hp_cancel_how how, uint64_t grace_ms, const char *reason,
                         int64_t timeout_ms, struct hp_cancel_report *ret_report)
{
    uint64_t deadline_ms = hp_client_deadline_ms(client, timeout_ms);
    struct hp_id_cursor cursor = {.ids = ids, .count = id_count};
    struct cancelled cancelled = {.complete = true};
    struct hp_msg_task_cancel cancel;
    HP_CLEANUP(hp_free_ptr) struct hp_ids *part = hp_alloc_array(CANCEL_RANGES, sizeof(*part));
    size_t count;
    enum hp_status status = HP_STATUS_OK;

    if (part == NULL) {
        return hp_client_fail(client, HP_STATUS_NO_MEMORY, "out of memory");
    }
    hp_msg_task_cancel_init(&cancel);
    cancel.mode = (enum hp_cancel_mode)how;
    cancel.grace_ms = grace_ms;
    cancel.has = HP_HAS_TASK_CANCEL_RANGES | HP_HAS_TASK_CANCEL_MODE | HP_HAS_TASK_CANCEL_GRACE_MS;
    if (reason != NULL) {
        cancel.reason = hp_str_of(reason);
        cancel.has |= HP_HAS_TASK_CANCEL_REASON;
    }
    while (status == HP_STATUS_OK &&
           (count = hp_id_cursor_next(&cursor, part, CANCEL_RANGES, CANCEL_IDS)) > 0) {
        status = cancel_part(client, part, count, &cancel, deadline_ms, &cancelled);
    }
    if (status != HP_STATUS_OK || ret_report == NULL) {
        hp_cancel_report_clear(&cancelled.report);
        return status;
    }
    if (!cancelled.complete) {
        hp_free(cancelled.report.results);
        cancelled.report.results = NULL;
        cancelled.report.result_count = 0;
    }
    *ret_report = cancelled.report;
    return status;
}
