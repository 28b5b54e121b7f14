/* SPDX-License-Identifier: BSD-2-Clause */
/* Blocking calls about pools by their id, and forgetting tasks. */
#include <string.h>
#include <xxhash.h>

#include "client/engine_state.h"
#include "client/shell.h"
#include "client/view.h"
#include "common/base/mem.h"

#define PARAMS_BYTES (64u << 10)
#define DIGEST_BYTES_MIN 16u
#define DIGEST_BYTES_MAX 32u
#define WAIT_MS_MAX 3600000u
/* Ranges of one task.forget. */
#define FORGET_RANGES 4096u

static enum hp_status status_of(enum hp_err err)
{
    return err == HP_OK ? HP_STATUS_OK
                        : (err == HP_ERR_NOMEM ? HP_STATUS_NO_MEMORY : HP_STATUS_PROTOCOL);
}

/* ---------------------------------------------------------------- info */

struct owned_info {
    struct hp_arena arena;
    struct hp_pool_info info;
};

void hp_pool_info_free(struct hp_pool_info *info)
{
    if (info != NULL) {
        struct owned_info *owned = HP_CONTAINER_OF(info, struct owned_info, info);

        hp_arena_deinit(&owned->arena);
        hp_free(owned);
    }
}

static enum hp_err fill_info(const struct hp_msg_pool_info_reply *from, struct hp_arena *arena,
                             struct hp_pool_info *ret)
{
    enum hp_err err = hp_view_str(from->error, arena, &ret->error);

    ret->phase = (enum hp_pool_phase)from->state;
    ret->processes = from->processes;
    ret->live = from->live;
    ret->detached = from->detached;
    ret->child_count = from->children.count;
    ret->children = HP_ARENA_NEW_ARRAY(arena, struct hp_pool_child, ret->child_count);
    if (ret->children == NULL) {
        return HP_ERR_NOMEM;
    }
    for (size_t i = 0; err == HP_OK && i < ret->child_count; i++) {
        ret->children[i].pid = from->children.items[i].pid;
        err = hp_view_str(from->children.items[i].node, arena, &ret->children[i].node);
    }
    return err;
}

static enum hp_status decode_info(void *context, const struct hp_reply *reply)
{
    struct owned_info *owned = hp_calloc(1, sizeof(*owned));
    struct hp_msg_pool_info_reply message;
    enum hp_err err;

    if (owned == NULL) {
        return HP_STATUS_NO_MEMORY;
    }
    hp_arena_init(&owned->arena, 1024, SIZE_MAX / 8);
    err = hp_msg_pool_info_reply_decode(reply->result, &owned->arena, &message, NULL);
    err = err == HP_OK ? fill_info(&message, &owned->arena, &owned->info) : err;
    if (err != HP_OK) {
        hp_pool_info_free(&owned->info);
        return status_of(err);
    }
    *(struct hp_pool_info **)context = &owned->info;
    return HP_STATUS_OK;
}

enum hp_status hp_pool_query(struct hp_client *client, uint64_t id, uint64_t wait_ms,
                             int64_t timeout_ms, struct hp_pool_info **ret_info)
{
    struct hp_pool_info *info = NULL;
    struct hp_msg_pool_info message;
    struct hp_buf params;
    enum hp_status status;

    hp_msg_pool_info_init(&message);
    message.pool = id;
    message.wait_ms = HP_MIN(wait_ms, (uint64_t)WAIT_MS_MAX);
    message.has = HP_HAS_POOL_INFO_POOL | HP_HAS_POOL_INFO_WAIT_MS;
    hp_buf_init(&params, PARAMS_BYTES);
    status = hp_client_call(client, HP_METHOD_POOL_INFO, hp_msg_pool_info_encode(&params, &message),
                            &params, hp_client_deadline_ms(client, timeout_ms), decode_info, &info);
    if (status == HP_STATUS_OK) {
        info->id = id;
        *ret_info = info;
    }
    return status;
}

/* ---------------------------------------------------------------- end, detach */

static enum hp_status decode_end(void *context, const struct hp_reply *reply)
{
    HP_CLEANUP(hp_arena_deinit) struct hp_arena arena;
    struct hp_msg_pool_end_reply message; /* that of pool.detach is the same */
    enum hp_err err;

    hp_arena_init(&arena, 1024, SIZE_MAX / 8);
    err = hp_msg_pool_end_reply_decode(reply->result, &arena, &message, NULL);
    if (err == HP_OK) {
        *(enum hp_pool_phase *)context = (enum hp_pool_phase)message.state;
    }
    return status_of(err);
}

enum hp_status hp_pool_end(struct hp_client *client, uint64_t id, enum hp_pool_how how,
                           int64_t timeout_ms, enum hp_pool_phase *ret_phase)
{
    enum hp_pool_phase phase = HP_POOL_ENDED;
    struct hp_msg_pool_end message;
    struct hp_buf params;
    enum hp_status status;

    hp_msg_pool_end_init(&message);
    message.pool = id;
    message.how = (enum hp_pool_end)how;
    message.has = HP_HAS_POOL_END_POOL | HP_HAS_POOL_END_HOW;
    hp_buf_init(&params, PARAMS_BYTES);
    status = hp_client_call(client, HP_METHOD_POOL_END, hp_msg_pool_end_encode(&params, &message),
                            &params, hp_client_deadline_ms(client, timeout_ms), decode_end, &phase);
    if (status == HP_STATUS_OK && ret_phase != NULL) {
        *ret_phase = phase;
    }
    return status;
}

enum hp_status hp_pool_set_detached(struct hp_client *client, uint64_t id, bool on,
                                    int64_t timeout_ms)
{
    enum hp_pool_phase phase;
    struct hp_msg_pool_detach message;
    struct hp_buf params;

    hp_msg_pool_detach_init(&message);
    message.pool = id;
    message.on = on;
    message.has = HP_HAS_POOL_DETACH_POOL | HP_HAS_POOL_DETACH_ON;
    hp_buf_init(&params, PARAMS_BYTES);
    return hp_client_call(client, HP_METHOD_POOL_DETACH,
                          hp_msg_pool_detach_encode(&params, &message), &params,
                          hp_client_deadline_ms(client, timeout_ms), decode_end, &phase);
}

/* ---------------------------------------------------------------- content */

static enum hp_status check_digest(struct hp_client *client, struct hp_bytes digest)
{
    enum hp_status status = hp_client_check(client);

    if (status == HP_STATUS_OK &&
        (digest.size < DIGEST_BYTES_MIN || digest.size > DIGEST_BYTES_MAX)) {
        return hp_client_fail(client, HP_STATUS_BAD_ARGUMENT, "a digest has 16 to 32 bytes");
    }
    return status;
}

static enum hp_status decode_known(void *context, const struct hp_reply *reply)
{
    HP_CLEANUP(hp_arena_deinit) struct hp_arena arena;
    struct hp_msg_pool_put_reply message;
    enum hp_err err;

    hp_arena_init(&arena, 1024, SIZE_MAX / 8);
    err = hp_msg_pool_put_reply_decode(reply->result, &arena, &message, NULL);
    if (err == HP_OK) {
        *(bool *)context = message.known;
    }
    return status_of(err);
}

static enum hp_status put_content(struct hp_client *client, uint64_t id, struct hp_bytes digest,
                                  uint64_t blob, uint64_t deadline_ms, bool *ret_known)
{
    struct hp_msg_pool_put message;
    struct hp_buf params;

    hp_msg_pool_put_init(&message);
    message.pool = id;
    message.digest = hp_bin_make(digest.data, digest.size);
    message.blob = blob;
    message.has =
        HP_HAS_POOL_PUT_POOL | HP_HAS_POOL_PUT_DIGEST | (blob != 0 ? HP_HAS_POOL_PUT_BLOB : 0);
    hp_buf_init(&params, PARAMS_BYTES);
    return hp_client_call(client, HP_METHOD_POOL_PUT, hp_msg_pool_put_encode(&params, &message),
                          &params, deadline_ms, decode_known, ret_known);
}

static enum hp_status decode_blob(void *context, const struct hp_reply *reply)
{
    HP_CLEANUP(hp_arena_deinit) struct hp_arena arena;
    struct hp_msg_blob_open_reply message; /* that of pool.get is the same */
    enum hp_err err;

    hp_arena_init(&arena, 1024, SIZE_MAX / 8);
    err = hp_msg_blob_open_reply_decode(reply->result, &arena, &message, NULL);
    if (err == HP_OK) {
        *(uint64_t *)context = message.blob;
    }
    return status_of(err);
}

/* Writes a blob; a connection that is lost meanwhile makes it NOT_FOUND: then it starts anew. */
static enum hp_status write_blob(struct hp_client *client, struct hp_bytes data,
                                 uint64_t deadline_ms, uint64_t *ret_blob)
{
    struct hp_msg_blob_open open;
    struct hp_buf params;
    uint64_t blob = 0;
    size_t sent = 0;
    enum hp_status status;

    hp_msg_blob_open_init(&open);
    open.size = data.size;
    open.has = HP_HAS_BLOB_OPEN_SIZE;
    hp_buf_init(&params, PARAMS_BYTES);
    status = hp_client_call(client, HP_METHOD_BLOB_OPEN, hp_msg_blob_open_encode(&params, &open),
                            &params, deadline_ms, decode_blob, &blob);
    do {
        struct hp_msg_blob_put put;
        size_t size = HP_MIN(data.size - sent, (size_t)HP_LIMIT_BLOB_CHUNK_BYTES);

        hp_msg_blob_put_init(&put);
        put.blob = blob;
        put.offset = sent;
        put.data = hp_bin_make(size == 0 ? NULL : (const uint8_t *)data.data + sent, size);
        sent += size;
        if (sent == data.size) {
            put.digest = XXH3_64bits(data.data, data.size);
            put.has |= HP_HAS_BLOB_PUT_DIGEST;
        }
        hp_buf_init(&params, HP_LIMIT_FRAME_BYTES);
        status = status == HP_STATUS_OK ? hp_client_call(client, HP_METHOD_BLOB_PUT,
                                                         hp_msg_blob_put_encode(&params, &put),
                                                         &params, deadline_ms, NULL, NULL)
                                        : status;
    } while (status == HP_STATUS_OK && sent < data.size);
    *ret_blob = blob;
    return status;
}

enum hp_status hp_pool_put(struct hp_client *client, uint64_t id, struct hp_bytes digest,
                           struct hp_bytes data, int64_t timeout_ms, bool *ret_known)
{
    uint64_t deadline_ms = hp_client_deadline_ms(client, timeout_ms);
    bool known = false;
    enum hp_status status = check_digest(client, digest);

    if (status == HP_STATUS_OK && data.size > HP_LIMIT_BLOB_BYTES) {
        status = hp_client_fail(client, HP_STATUS_TOO_BIG, "content is over the limit of 1 GiB");
    }
    status =
        status == HP_STATUS_OK ? put_content(client, id, digest, 0, deadline_ms, &known) : status;
    while (status == HP_STATUS_OK && !known) {
        uint64_t blob = 0;
        bool ignored;

        status = write_blob(client, data, deadline_ms, &blob);
        status = status == HP_STATUS_OK
                     ? put_content(client, id, digest, blob, deadline_ms, &ignored)
                     : status;
        if (status != HP_STATUS_NOT_FOUND) {
            break;
        }
        /* The blob went with the connection it came by, or the pool is no more: ask again. */
        status = put_content(client, id, digest, 0, deadline_ms, &known);
    }
    if (status == HP_STATUS_OK && ret_known != NULL) {
        *ret_known = known;
    }
    return status;
}

enum hp_status hp_pool_content(struct hp_client *client, uint64_t id, struct hp_bytes digest,
                               int64_t timeout_ms, struct hp_buffer *ret_buffer)
{
    uint64_t deadline_ms = hp_client_deadline_ms(client, timeout_ms);
    struct hp_msg_pool_get message;
    struct hp_buf params;
    uint64_t blob = 0;
    enum hp_status status = check_digest(client, digest);

    if (status != HP_STATUS_OK) {
        return status;
    }
    hp_msg_pool_get_init(&message);
    message.pool = id;
    message.digest = hp_bin_make(digest.data, digest.size);
    message.has = HP_HAS_POOL_GET_POOL | HP_HAS_POOL_GET_DIGEST;
    hp_buf_init(&params, PARAMS_BYTES);
    status = hp_client_call(client, HP_METHOD_POOL_GET, hp_msg_pool_get_encode(&params, &message),
                            &params, deadline_ms, decode_blob, &blob);
    return status == HP_STATUS_OK ? hp_blob_fetch(client, blob, deadline_ms, ret_buffer) : status;
}

/* ---------------------------------------------------------------- forget */

enum hp_status hp_forget(struct hp_client *client, const struct hp_ids *ids, size_t id_count)
{
    enum hp_status status = hp_client_check(client);

    while (status == HP_STATUS_OK && id_count > 0) {
        struct hp_st_id_range ranges[FORGET_RANGES];
        struct hp_msg_task_forget message;
        size_t count = HP_MIN(id_count, (size_t)FORGET_RANGES);
        struct hp_buf params;
        enum hp_err err;

        for (size_t i = 0; i < count; i++) {
            hp_st_id_range_init(&ranges[i]);
            ranges[i].first = ids[i].first;
            ranges[i].count = ids[i].count;
            ranges[i].has = HP_HAS_ST_ID_RANGE_COUNT;
        }
        hp_msg_task_forget_init(&message);
        message.ranges.items = ranges;
        message.ranges.count = (uint32_t)count;
        message.has = HP_HAS_TASK_FORGET_RANGES;
        hp_buf_init(&params, HP_LIMIT_FRAME_BYTES);
        err = hp_msg_task_forget_encode(&params, &message);
        if (err != HP_OK) {
            hp_buf_deinit(&params);
            return hp_client_fail(client, hp_status_of_err(err), "ids are out of range");
        }
        status = hp_call_notify(client->engine, HP_METHOD_TASK_FORGET, &params);
        status = status == HP_STATUS_OK ? status : hp_client_fail_engine(client, status);
        ids += count;
        id_count -= count;
    }
    return status;
}
