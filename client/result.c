/* SPDX-License-Identifier: BSD-2-Clause */
/* Whole results: blobs fetched, digests checked. */
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "client/shell.h"
#include "common/base/mem.h"

/* ---------------------------------------------------------------- blobs */

struct fetch {
    uint8_t *data;
    size_t size;     /* fetched so far */
    size_t capacity; /* size of the blob; 0: not known yet */
    uint64_t digest;
};

static enum hp_status decode_chunk(void *context, const struct hp_reply *reply)
{
    HP_CLEANUP(hp_arena_deinit) struct hp_arena arena;
    struct fetch *fetch = context;
    struct hp_msg_blob_get_reply message;

    hp_arena_init(&arena, 4096, SIZE_MAX / 8);
    if (hp_msg_blob_get_reply_decode(reply->result, &arena, &message, NULL) != HP_OK ||
        message.size > HP_LIMIT_BLOB_BYTES) {
        return HP_STATUS_PROTOCOL;
    }
    if (fetch->data == NULL) {
        fetch->capacity = (size_t)message.size;
        fetch->digest = message.digest;
        fetch->data = hp_alloc(fetch->capacity + 1);
        if (fetch->data == NULL) {
            return HP_STATUS_NO_MEMORY;
        }
    }
    if (message.size != fetch->capacity || message.data.size > fetch->capacity - fetch->size ||
        (message.data.size == 0 && fetch->size < fetch->capacity)) {
        return HP_STATUS_PROTOCOL;
    }
    if (message.data.size > 0) {
        memcpy(fetch->data + fetch->size, message.data.data, message.data.size);
    }
    fetch->size += message.data.size;
    return HP_STATUS_OK;
}

enum hp_status hp_blob_fetch(struct hp_client *client, uint64_t blob, uint64_t deadline_ms,
                             struct hp_buffer *ret_buffer)
{
    HP_CLEANUP(hp_free_ptr) uint8_t *owned = NULL;
    struct fetch fetch = {0};
    enum hp_status status = HP_STATUS_OK;

    do {
        struct hp_msg_blob_get get;
        struct hp_buf params;

        hp_msg_blob_get_init(&get);
        get.blob = blob;
        get.offset = fetch.size;
        hp_buf_init(&params, 1024);
        status = hp_client_call(client, HP_METHOD_BLOB_GET, hp_msg_blob_get_encode(&params, &get),
                                &params, deadline_ms, decode_chunk, &fetch);
        owned = fetch.data;
    } while (status == HP_STATUS_OK && fetch.size < fetch.capacity);
    if (status != HP_STATUS_OK) {
        return status;
    }
    if (XXH3_64bits(fetch.data, fetch.size) != fetch.digest) {
        return hp_client_fail(client, HP_STATUS_DAMAGED, "blob %llu arrived damaged",
                              (unsigned long long)blob);
    }
    fetch.data[fetch.size] = 0; /* so that text can be printed */
    *ret_buffer = (struct hp_buffer){.data = HP_TAKE(owned), .size = fetch.size};
    return HP_STATUS_OK;
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

/* The bytes of a blob into the result's arena. */
static enum hp_status fetch_into(struct hp_client *client, struct hp_owned_result *owned,
                                 uint64_t blob, uint64_t deadline_ms, struct hp_bytes *ret)
{
    struct hp_buffer buffer;
    enum hp_status status = hp_blob_fetch(client, blob, deadline_ms, &buffer);

    if (status != HP_STATUS_OK) {
        return status;
    }
    ret->data = hp_arena_copy(&owned->arena, buffer.data, buffer.size);
    ret->size = buffer.size;
    hp_buffer_clear(&buffer);
    return ret->data != NULL ? HP_STATUS_OK
                             : hp_client_fail(client, HP_STATUS_NO_MEMORY, "out of memory");
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
        status = fetch_into(client, owned, end->result_blob, deadline_ms, &result->value);
    }
    if (command && end->out_blob != 0) {
        status = fetch_into(client, owned, end->out_blob, deadline_ms, &result->value);
    }
    if (status == HP_STATUS_OK && end->err_blob != 0) {
        status = fetch_into(client, owned, end->err_blob, deadline_ms, &result->err);
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
        hp_free(owned);
    }
}
