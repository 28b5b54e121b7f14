/* SPDX-License-Identifier: BSD-2-Clause */
/* Blocking submits: the engine's submits with a sink that gathers the acknowledgements. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/shell.h"
#include "common/base/mem.h"

/* Payloads handed to the engine at once by hp_submit_many. */
#define CHUNK_TASKS 4096u
#define CHUNK_BYTES (512u << 10)

/* An acknowledged part of a call, by the index of its first payload. */
struct part {
    uint64_t index;
    struct hp_ids ids;
};

struct gather {
    struct hp_sink sink;
    uint64_t task_count; /* acknowledged */
    enum hp_outcome outcome;
    enum hp_status status;
    char text[HP_CLIENT_TEXT_BYTES];
    struct part *parts;
    size_t part_count;
    size_t part_capacity;
};

static enum hp_err add_part(struct gather *gather, uint64_t index, struct hp_ids ids)
{
    if (gather->part_count == gather->part_capacity) {
        size_t capacity = gather->part_capacity == 0 ? 8 : gather->part_capacity * 2;
        struct part *parts = hp_realloc_array(gather->parts, capacity, sizeof(*parts));

        if (parts == NULL) {
            return HP_ERR_NOMEM;
        }
        gather->parts = parts;
        gather->part_capacity = capacity;
    }
    gather->parts[gather->part_count++] = (struct part){.index = index, .ids = ids};
    return HP_OK;
}

static void take(struct hp_sink *sink, const struct hp_event *event)
{
    struct gather *gather = HP_CONTAINER_OF(sink, struct gather, sink);
    uint64_t base = (uint64_t)(uintptr_t)event->user;

    if (event->kind == HP_EVENT_SUBMITTED) {
        gather->outcome = event->outcome;
        gather->task_count += event->ids.count;
        if (add_part(gather, base + event->index, event->ids) == HP_OK) {
            return;
        }
    }
    if (gather->status == HP_STATUS_OK) {
        gather->status = event->kind == HP_EVENT_SUBMITTED ? HP_STATUS_NO_MEMORY : event->status;
        (void)snprintf(gather->text, sizeof(gather->text), "%s",
                       event->text != NULL ? event->text : hp_strerror(gather->status));
    }
}

/*
 * A submit ran out of time. If all of it that was not acknowledged could be dropped, and the broker
 * refused it as busy all the while, that is the answer, with the broker's reason. busy: taken from
 * the engine before the submit was dropped.
 */
static enum hp_status late(struct hp_client *client, enum hp_status status, bool dropped,
                           const char *busy)
{
    if (status != HP_STATUS_TIMEOUT || !dropped) {
        return status;
    }
    return hp_client_fail(client, HP_STATUS_BUSY, "%s: busy until the timeout%s%s", client->display,
                          busy != NULL ? ": " : "", busy != NULL ? busy : "");
}

/* Waits until the window has room. */
static enum hp_status wait_room(struct hp_client *client, uint64_t deadline_ms)
{
    enum hp_status status = HP_STATUS_OK;

    while (status == HP_STATUS_OK && !hp_engine_has_room(client->engine)) {
        status = hp_client_pump(client, deadline_ms);
    }
    return status;
}

static enum hp_status wait_tasks(struct hp_client *client, struct gather *gather, uint64_t count,
                                 uint64_t deadline_ms)
{
    enum hp_status status = HP_STATUS_OK;

    while (status == HP_STATUS_OK && gather->status == HP_STATUS_OK && gather->task_count < count) {
        status = hp_client_pump(client, deadline_ms);
    }
    if (gather->status != HP_STATUS_OK) {
        return hp_client_fail(client, gather->status, "%s", gather->text);
    }
    return status;
}

/* One submit of the engine and its acknowledgement. */
static enum hp_status submit_one(struct hp_client *client, struct hp_engine_submit *submit,
                                 int64_t timeout_ms, struct gather *gather)
{
    uint64_t deadline_ms = hp_client_deadline_ms(client, timeout_ms);
    uint64_t request;
    bool dropped = false;
    const char *busy;
    enum hp_status status = hp_client_check(client);

    gather->sink.take = take;
    submit->sink = &gather->sink;
    submit->untracked = true;
    submit->borrow_payloads = true;
    status = status == HP_STATUS_OK ? wait_room(client, deadline_ms) : status;
    if (status != HP_STATUS_OK) {
        busy = client->engine == NULL ? NULL : hp_engine_busy(client->engine);
        return late(client, status, busy != NULL, busy);
    }
    status = hp_engine_submit(client->engine, submit, &request);
    if (status != HP_STATUS_OK) {
        return hp_client_fail_engine(client, status);
    }
    status = wait_tasks(client, gather, submit->count, deadline_ms);
    busy = hp_engine_busy(client->engine);
    hp_engine_forget(client->engine, request, &dropped);
    return late(client, status, dropped, busy);
}

enum hp_status hp_submit(struct hp_client *client, const struct hp_options *options,
                         const struct hp_bytes *payload, int64_t timeout_ms, uint64_t *ret_id,
                         enum hp_outcome *ret_outcome)
{
    struct gather gather = {.status = HP_STATUS_OK};
    struct hp_engine_submit submit = {.options = options, .payloads = payload, .count = 1};
    enum hp_status status = submit_one(client, &submit, timeout_ms, &gather);

    if (status == HP_STATUS_OK) {
        *ret_id = gather.parts[0].ids.first;
        if (ret_outcome != NULL) {
            *ret_outcome = gather.outcome;
        }
    }
    hp_free(gather.parts);
    return status;
}

enum hp_status hp_submit_array(struct hp_client *client, const struct hp_options *options,
                               uint32_t count, int64_t timeout_ms, struct hp_ids *ret_ids)
{
    struct gather gather = {.status = HP_STATUS_OK};
    struct hp_engine_submit submit = {.options = options, .count = count, .array = true};
    enum hp_status status = submit_one(client, &submit, timeout_ms, &gather);

    if (status == HP_STATUS_OK) {
        *ret_ids = gather.parts[0].ids;
    }
    hp_free(gather.parts);
    return status;
}

/* ---------------------------------------------------------------- many */

static int compare_parts(const void *a, const void *b)
{
    const struct part *x = a;
    const struct part *y = b;

    return x->index < y->index ? -1 : x->index > y->index;
}

static enum hp_err make_id_list(struct gather *gather, struct hp_id_list *ret_ids)
{
    size_t count = 0;

    *ret_ids = (struct hp_id_list){0};
    if (gather->part_count == 0) {
        return HP_OK;
    }
    ret_ids->ranges = hp_alloc_array(gather->part_count, sizeof(*ret_ids->ranges));
    if (ret_ids->ranges == NULL) {
        return HP_ERR_NOMEM;
    }
    qsort(gather->parts, gather->part_count, sizeof(*gather->parts), compare_parts);
    for (size_t i = 0; i < gather->part_count; i++) {
        struct hp_ids ids = gather->parts[i].ids;
        struct hp_ids *last = count == 0 ? NULL : &ret_ids->ranges[count - 1];

        if (last != NULL && last->first + last->count == ids.first &&
            ids.count <= UINT32_MAX - last->count) {
            last->count += ids.count;
        } else {
            ret_ids->ranges[count++] = ids;
        }
        ret_ids->total += ids.count;
    }
    ret_ids->count = count;
    return HP_OK;
}

/* Payloads from `from` on that go into one chunk. */
static uint32_t chunk_count(const struct hp_bytes *payloads, size_t from, size_t count)
{
    uint32_t taken = 0;
    size_t size = 0;

    while (from + taken < count && taken < CHUNK_TASKS && (taken == 0 || size < CHUNK_BYTES)) {
        size += payloads[from + taken].size;
        taken++;
    }
    return taken;
}

enum hp_status hp_submit_many(struct hp_client *client, const struct hp_options *options,
                              const struct hp_bytes *payloads, size_t count, int64_t timeout_ms,
                              struct hp_id_list *ret_ids)
{
    uint64_t deadline_ms = hp_client_deadline_ms(client, timeout_ms);
    struct gather gather = {.sink = {.take = take}, .status = HP_STATUS_OK};
    size_t given = 0;
    enum hp_status status = hp_client_check(client);

    *ret_ids = (struct hp_id_list){0};
    while (status == HP_STATUS_OK && gather.status == HP_STATUS_OK && given < count) {
        struct hp_engine_submit submit = {.options = options,
                                          .payloads = payloads + given,
                                          .count = chunk_count(payloads, given, count),
                                          .untracked = true,
                                          .borrow_payloads = true,
                                          .sink = &gather.sink,
                                          .user = (void *)(uintptr_t)given};

        status = wait_room(client, deadline_ms);
        if (status == HP_STATUS_OK) {
            status = hp_engine_submit(client->engine, &submit, NULL);
            status = status == HP_STATUS_OK ? status : hp_client_fail_engine(client, status);
        }
        given += status == HP_STATUS_OK ? submit.count : 0;
    }
    if (status == HP_STATUS_OK) {
        status = wait_tasks(client, &gather, count, deadline_ms);
    }
    if (client->engine != NULL) {
        const char *busy = hp_engine_busy(client->engine);
        bool dropped = false;

        hp_engine_forget_sink(client->engine, &gather.sink, &dropped);
        status = late(client, status, dropped && busy != NULL, busy);
    }
    if (make_id_list(&gather, ret_ids) != HP_OK) {
        status = hp_client_fail(client, HP_STATUS_NO_MEMORY, "out of memory");
    }
    hp_free(gather.parts);
    return status;
}

void hp_id_list_clear(struct hp_id_list *list)
{
    hp_free(list->ranges);
    *list = (struct hp_id_list){0};
}
