/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Payloads over the inline limit: written to a blob first (blob.open, blob.put in chunks),
 * submitted when the blob is durable. One stage at a time is worked on, one chunk at a time, so
 * that a large payload does not keep other requests of the connection waiting. A lost connection
 * starts the blob again: a half-written one is the broker's to remove.
 */
#include <string.h>
#include <xxhash.h>

#include "client/engine_state.h"
#include "common/base/mem.h"

/* A refused blob is tried again so long after. */
#define BUSY_MS 200u

static struct hp_stage *stage_of(struct hp_list *link)
{
    return HP_LIST_ENTRY(link, struct hp_stage, link);
}

static void stage_free(struct hp_engine *engine, struct hp_stage *stage)
{
    if (stage->request != 0) {
        hp_call_abandon(engine, stage->request);
    }
    hp_list_remove(&stage->link);
    engine->stage_count--;
    engine->stage_bytes -= stage->size;
    engine->submit_tasks -= stage->piece.untracked ? 0 : 1;
    hp_buf_deinit(&stage->options);
    hp_free(stage->owned);
    hp_free(stage);
}

enum hp_status hp_stage_add(struct hp_engine *engine, const struct hp_engine_submit *submit,
                            const struct hp_bytes *payload, const struct hp_piece *piece)
{
    struct hp_stage *stage = hp_calloc(1, sizeof(*stage));

    if (stage == NULL) {
        return HP_STATUS_NO_MEMORY;
    }
    stage->engine = engine;
    stage->piece = *piece;
    stage->size = payload->size;
    stage->data = payload->data;
    hp_buf_init(&stage->options, HP_LIMIT_FRAME_BYTES);
    if (!submit->borrow_payloads) {
        stage->owned = hp_memdup(payload->data, payload->size);
        stage->data = stage->owned;
    }
    if (stage->data == NULL ||
        hp_buf_append_buf(&stage->options, &engine->shared_encoded) != HP_OK) {
        hp_buf_deinit(&stage->options);
        hp_free(stage->owned);
        hp_free(stage);
        return HP_STATUS_NO_MEMORY;
    }
    hp_list_push_back(&engine->stages, &stage->link);
    engine->stage_count++;
    engine->stage_bytes += stage->size;
    engine->submit_tasks += piece->untracked ? 0 : 1;
    return HP_STATUS_OK;
}

static void stage_fail(struct hp_engine *engine, struct hp_stage *stage, enum hp_status status,
                       const char *text)
{
    struct hp_piece piece = stage->piece;

    stage_free(engine, stage);
    hp_submit_fail_piece(engine, &piece, status, text);
}

/* The blob is durable: now it becomes a submit message. */
static void stage_submit(struct hp_engine *engine, struct hp_stage *stage)
{
    struct hp_message *message;
    enum hp_err err;

    hp_submit_flush(engine);
    message = hp_submit_message_new(engine, hp_buf_bin(&stage->options));
    if (message == NULL) {
        stage_fail(engine, stage, HP_STATUS_NO_MEMORY, "out of memory");
        return;
    }
    engine->submit_bytes -= message->body.size;
    err = hp_submit_put_payload(message, (struct hp_bin){0});
    err = err == HP_OK ? hp_submit_add_piece(message, &stage->piece) : err;
    if (err == HP_OK) {
        hp_wire_array_close(&message->body, message->list_mark, 1);
        err = hp_wire_put_cstr(&message->body, "blobs");
    }
    err = err == HP_OK ? hp_wire_put_array(&message->body, 1) : err;
    err = err == HP_OK ? hp_wire_put_u64(&message->body, stage->blob) : err;
    engine->submit_bytes += message->body.size;
    message->pair_count++;
    message->closed = true;
    if (err != HP_OK) {
        message->piece_count = 0;
        hp_submit_message_free(engine, message);
        stage_fail(engine, stage, HP_STATUS_NO_MEMORY, "out of memory");
        return;
    }
    engine->submit_tasks += stage->piece.untracked ? 0 : 1; /* stage_free takes one off */
    stage_free(engine, stage);
}

/* A reply with an error; true if the stage is gone or waits. */
static bool stage_refused(struct hp_stage *stage, const struct hp_reply *reply)
{
    struct hp_engine *engine = stage->engine;

    if (reply->status == HP_STATUS_OK) {
        return false;
    }
    if (reply->status == HP_STATUS_BUSY || reply->status == HP_STATUS_DRAINING) {
        stage->hold_until_ms =
            engine->now_ms + (reply->retry_after_ms > 0 ? reply->retry_after_ms : BUSY_MS);
        stage->blob = 0;
        stage->sent = 0;
        return true;
    }
    stage_fail(engine, stage, reply->status, reply->text);
    return true;
}

static void open_done(void *context, const struct hp_reply *reply)
{
    struct hp_stage *stage = context;
    struct hp_msg_blob_open_reply got;

    stage->request = 0;
    if (stage_refused(stage, reply)) {
        return;
    }
    if (hp_msg_blob_open_reply_decode(reply->result, &stage->engine->arena, &got, NULL) != HP_OK ||
        got.blob == 0) {
        hp_engine_fail(stage->engine, HP_STATUS_PROTOCOL,
                       "the broker's answer to blob.open is wrong");
        return;
    }
    stage->blob = got.blob;
}

static void put_done(void *context, const struct hp_reply *reply)
{
    struct hp_stage *stage = context;
    struct hp_msg_blob_put_reply got;

    stage->request = 0;
    if (stage_refused(stage, reply)) {
        return;
    }
    if (hp_msg_blob_put_reply_decode(reply->result, &stage->engine->arena, &got, NULL) != HP_OK) {
        hp_engine_fail(stage->engine, HP_STATUS_PROTOCOL,
                       "the broker's answer to blob.put is wrong");
        return;
    }
    if (stage->sent == stage->size) {
        stage_submit(stage->engine, stage);
    }
}

static void stage_call(struct hp_stage *stage, enum hp_method method, enum hp_err err,
                       struct hp_buf *params, hp_call_done done)
{
    if (err != HP_OK) {
        hp_buf_deinit(params);
    }
    if (err != HP_OK || hp_call_begin(stage->engine, method, params, done, stage, true,
                                      &stage->request) != HP_STATUS_OK) {
        stage_fail(stage->engine, stage, HP_STATUS_NO_MEMORY, "out of memory");
    }
}

static void stage_open(struct hp_stage *stage)
{
    struct hp_msg_blob_open open;
    struct hp_buf params;

    hp_msg_blob_open_init(&open);
    open.size = stage->size;
    hp_buf_init(&params, 1024);
    stage_call(stage, HP_METHOD_BLOB_OPEN, hp_msg_blob_open_encode(&params, &open), &params,
               open_done);
}

static void stage_put(struct hp_stage *stage)
{
    struct hp_msg_blob_put put;
    struct hp_buf params;
    size_t size = HP_MIN(stage->size - stage->sent, (size_t)HP_LIMIT_BLOB_CHUNK_BYTES);

    hp_msg_blob_put_init(&put);
    put.blob = stage->blob;
    put.offset = stage->sent;
    put.data = hp_bin_make(stage->data + stage->sent, size);
    stage->sent += size;
    if (stage->sent == stage->size) {
        put.digest = XXH3_64bits(stage->data, stage->size);
        put.has |= HP_HAS_BLOB_PUT_DIGEST;
    }
    hp_buf_init(&params, HP_LIMIT_FRAME_BYTES);
    stage_call(stage, HP_METHOD_BLOB_PUT, hp_msg_blob_put_encode(&params, &put), &params, put_done);
}

void hp_stage_step(struct hp_engine *engine)
{
    struct hp_stage *stage;

    if (hp_list_is_empty(&engine->stages)) {
        return;
    }
    stage = stage_of(hp_list_first(&engine->stages));
    if (stage->request != 0 || engine->now_ms < stage->hold_until_ms) {
        return;
    }
    if (stage->blob == 0) {
        stage_open(stage);
    } else {
        stage_put(stage);
    }
}

uint64_t hp_stage_deadline_ms(const struct hp_engine *engine)
{
    const struct hp_stage *stage;

    if (hp_list_is_empty(&engine->stages)) {
        return HP_ENGINE_NEVER;
    }
    stage = stage_of(hp_list_first(&engine->stages));
    return stage->request != 0 ? HP_ENGINE_NEVER : HP_MAX(stage->hold_until_ms, engine->now_ms);
}

void hp_stage_lost(struct hp_engine *engine)
{
    struct hp_list *link;

    for (link = engine->stages.next; link != &engine->stages; link = link->next) {
        struct hp_stage *stage = stage_of(link);

        if (stage->request != 0) {
            hp_call_abandon(engine, stage->request);
            stage->request = 0;
        }
        stage->blob = 0;
        stage->sent = 0;
    }
}

void hp_stage_clear(struct hp_engine *engine)
{
    while (!hp_list_is_empty(&engine->stages)) {
        stage_free(engine, stage_of(hp_list_first(&engine->stages)));
    }
}

bool hp_stage_forget(struct hp_engine *engine, uint64_t request, const struct hp_sink *sink)
{
    struct hp_list *link = engine->stages.next;

    while (link != &engine->stages) {
        struct hp_stage *stage = stage_of(link);

        link = link->next;
        if (sink != NULL ? stage->piece.sink == sink : stage->piece.request == request) {
            stage_free(engine, stage); /* no task of it exists: nothing can happen any more */
        }
    }
    return true;
}
