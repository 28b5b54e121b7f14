/* SPDX-License-Identifier: BSD-2-Clause */
/* Whole results: blobs fetched, digests checked. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "client/fetch.h"
#include "client/shell.h"
#include "common/base/mem.h"

/* ---------------------------------------------------------------- blobs */

struct fetch {
    bool done;
    enum hp_status status;
    struct hp_buffer buffer;
    char text[HP_CLIENT_TEXT_BYTES];
};

static void fetch_done(void *context, enum hp_status status, const char *text,
                       struct hp_buffer *buffer)
{
    struct fetch *fetch = context;

    fetch->done = true;
    fetch->status = status;
    fetch->buffer = *buffer;
    (void)snprintf(fetch->text, sizeof(fetch->text), "%s",
                   text[0] != '\0' ? text : hp_strerror(status));
}

/* By the engine, as it knows the quick ways: lent whole, or several chunks in flight. */
enum hp_status hp_blob_fetch(struct hp_client *client, uint64_t blob, uint64_t deadline_ms,
                             struct hp_buffer *ret_buffer)
{
    struct fetch fetch = {0};
    struct hp_fetch *under_way;
    enum hp_status status = hp_client_check(client);

    if (status != HP_STATUS_OK) {
        return status;
    }
    under_way = hp_fetch_begin(client->engine, blob, fetch_done, &fetch);
    if (under_way == NULL) {
        return hp_client_fail(client, HP_STATUS_NO_MEMORY, "out of memory");
    }
    while (status == HP_STATUS_OK && !fetch.done) {
        status = hp_client_pump(client, deadline_ms);
    }
    if (!fetch.done) {
        hp_fetch_abandon(under_way);
        return status;
    }
    *ret_buffer = fetch.buffer;
    return fetch.status == HP_STATUS_OK ? HP_STATUS_OK
                                        : hp_client_fail(client, fetch.status, "%s", fetch.text);
}

enum hp_status hp_fetch_blob(struct hp_client *client, uint64_t blob, int64_t timeout_ms,
                             struct hp_buffer *ret_buffer)
{
    return hp_blob_fetch(client, blob, hp_client_deadline_ms(client, timeout_ms), ret_buffer);
}

void hp_buffer_clear(struct hp_buffer *buffer)
{
    if (buffer->mapped > 0) {
        (void)munmap(buffer->data, buffer->mapped); /* as it was mapped */
    } else {
        hp_free(buffer->data);
    }
    *buffer = (struct hp_buffer){0};
}

/* ---------------------------------------------------------------- results */

static const char *copy_text(struct hp_arena *arena, const char *text, bool *ok)
{
    const char *copy = text == NULL ? NULL : hp_arena_copy(arena, text, strlen(text));

    *ok = *ok && (text == NULL || copy != NULL);
    return copy;
}

static struct hp_bytes copy_bytes(struct hp_arena *arena, struct hp_bytes bytes, bool *ok)
{
    if (bytes.size > 0) {
        bytes.data = hp_arena_copy(arena, bytes.data, bytes.size);
        *ok = *ok && bytes.data != NULL;
    }
    return bytes;
}

struct hp_result *hp_result_copy(const struct hp_task *task)
{
    struct hp_owned_result *owned = hp_calloc(1, sizeof(*owned));
    bool ok = true;

    if (owned == NULL) {
        return NULL;
    }
    hp_arena_init(&owned->arena, 128, SIZE_MAX / 8);
    owned->result.task = *task;
    owned->result.task.options = NULL;
    owned->result.task.node = copy_text(&owned->arena, task->node, &ok);
    if (task->end != NULL) {
        owned->end = *task->end;
        owned->end.error = copy_text(&owned->arena, task->end->error, &ok);
        owned->end.result = copy_bytes(&owned->arena, task->end->result, &ok);
        owned->end.out = copy_bytes(&owned->arena, task->end->out, &ok);
        owned->end.err = copy_bytes(&owned->arena, task->end->err, &ok);
        owned->result.task.end = &owned->end;
    }
    if (!ok) {
        hp_result_free(&owned->result);
        return NULL;
    }
    return &owned->result;
}

/* The bytes of a blob, which the result owns from then on. */
static enum hp_status fetch_into(struct hp_client *client, uint64_t blob, uint64_t deadline_ms,
                                 struct hp_buffer *owned, struct hp_bytes *ret)
{
    enum hp_status status = hp_blob_fetch(client, blob, deadline_ms, owned);

    if (status == HP_STATUS_OK) {
        *ret = (struct hp_bytes){.data = owned->data, .size = owned->size};
    }
    return status;
}

enum hp_status hp_result_complete(struct hp_client *client, struct hp_result *result,
                                  uint64_t deadline_ms)
{
    struct hp_owned_result *owned = HP_CONTAINER_OF(result, struct hp_owned_result, result);
    const struct hp_end *end = result->task.end;
    enum hp_status status = HP_STATUS_OK;
    bool command;

    if (end == NULL) {
        return HP_STATUS_OK;
    }
    command = end->has_exit_code || end->out.size > 0 || end->out_blob != 0 || end->out_size > 0;
    result->value = command ? end->out : end->result;
    result->err = end->err;
    if (!command && end->result_blob != 0) {
        status = fetch_into(client, end->result_blob, deadline_ms, &owned->buffer, &result->value);
    }
    if (command && end->out_blob != 0) {
        status = fetch_into(client, end->out_blob, deadline_ms, &owned->buffer, &result->value);
    }
    if (status == HP_STATUS_OK && end->err_blob != 0) {
        status = fetch_into(client, end->err_blob, deadline_ms, &owned->err_buffer, &result->err);
    }
    /* A command's digest is that of all it wrote, of which only the tail may be kept. */
    if (status == HP_STATUS_OK && !command && end->has_digest &&
        result->task.state == HP_STATE_DONE &&
        XXH3_64bits(result->value.data, result->value.size) != end->digest) {
        return hp_client_fail(client, HP_STATUS_DAMAGED, "the result of task %llu is damaged",
                              (unsigned long long)result->task.id);
    }
    return status;
}

enum hp_status hp_result(struct hp_client *client, uint64_t id, int64_t timeout_ms,
                         struct hp_result **ret_result)
{
    uint64_t deadline_ms = hp_client_deadline_ms(client, timeout_ms);
    struct hp_ids ids = {.first = id, .count = 1};
    struct hp_task_list *list = NULL;
    struct hp_result *result;
    enum hp_status status = hp_wait(client, &ids, 1, HP_WAIT_ALL, HP_DETAIL_END, timeout_ms, &list);

    if (status != HP_STATUS_OK) {
        return status;
    }
    if (list->count != 1 || list->timed_out || !hp_state_is_final(list->tasks[0].state)) {
        status = list->timed_out
                     ? hp_client_fail(client, HP_STATUS_TIMEOUT, "task %llu had not ended in time",
                                      (unsigned long long)id)
                     : hp_client_fail(client, HP_STATUS_NOT_FOUND, "there is no task %llu",
                                      (unsigned long long)id);
        hp_task_list_free(list);
        return status;
    }
    result = hp_result_copy(&list->tasks[0]);
    hp_task_list_free(list);
    if (result == NULL) {
        return hp_client_fail(client, HP_STATUS_NO_MEMORY, "out of memory");
    }
    status = hp_result_complete(client, result, deadline_ms);
    if (status != HP_STATUS_OK) {
        hp_result_free(result);
        return status;
    }
    *ret_result = result;
    return HP_STATUS_OK;
}

void hp_result_free(struct hp_result *result)
{
    if (result != NULL) {
        struct hp_owned_result *owned = HP_CONTAINER_OF(result, struct hp_owned_result, result);

        hp_arena_deinit(&owned->arena);
        hp_buffer_clear(&owned->buffer);
        hp_buffer_clear(&owned->err_buffer);
        hp_free(owned);
    }
}
