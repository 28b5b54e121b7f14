/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Payloads over the inline limit: written to a blob first (blob.open, blob.put in chunks),
 * submitted when the blob is durable. Chunks are sent without waiting for the answers to those
 * before, several payloads at a time; the broker takes the chunks of a blob in their order. Bytes
 * go from the caller's memory straight into the output. A lost connection, or a busy broker, starts
 * the blob again: a half-written one is the broker's to remove.
 *
 * Where the broker is on this host the whole payload goes by one blob.give instead: see near.h.
 *
 * I1: chunks in flight are the places of `chunks` with request != 0; `chunk_count` of them, and
 * engine->stage_chunks over all stages.
 */
#include <string.h>
#include <xxhash.h>

#include "client/engine_state.h"
#include "client/near.h"
#include "common/base/assert.h"
#include "common/base/mem.h"

/* A refused blob is tried again so long after. */
#define BUSY_MS 200u
#define REFUSALS_MAX 4u /* of blob.give, in a row: then not again on this connection */
/* Chunks in flight of one payload, and of all: the broker reads no more than 64 at once. */
#define STAGE_CHUNKS 8u
#define ENGINE_CHUNKS 24u
/* Payloads worked on at once. */
#define STAGES_MAX 8u

struct chunk {
    struct hp_stage *stage;
    uint64_t request; /* 0: free */
    size_t offset;
    size_t size;
};

struct hp_stage {
    struct hp_list link;
    struct hp_engine *engine;
    struct hp_piece piece;
    struct hp_buf options;  /* encoded */
    struct hp_bytes one;    /* parts of a payload in one piece */
    struct hp_bytes *parts; /* &one, or owned */
    uint32_t part_count;
    uint8_t *owned;      /* or NULL */
    const uint8_t *view; /* of the file that they were put into at once, or NULL */
    struct hp_release *release;
    bool lasting;
    size_t size;
    uint64_t blob;                /* 0: not open yet */
    uint64_t request;             /* blob.open or blob.give under way; 0: none */
    int given_fd;                 /* the file of blob.give; -1: none */
    struct hp_client_place place; /* of the file */
    bool far;                     /* not by blob.give */
    size_t given;                 /* bytes in chunks given to blob.put */
    size_t put;                   /* bytes composed */
    uint32_t part_index;          /* where the composed bytes end */
    size_t part_offset;
    XXH3_state_t *digest; /* of the bytes composed */
    struct chunk chunks[STAGE_CHUNKS];
    uint32_t chunk_count;
    uint64_t hold_until_ms; /* the broker was busy */
};

static struct hp_stage *stage_of(struct hp_list *link)
{
    return HP_LIST_ENTRY(link, struct hp_stage, link);
}

static void drop_file(struct hp_stage *stage)
{
    if (stage->given_fd >= 0) {
        stage->engine->config.near->close(stage->given_fd);
        stage->given_fd = -1;
        stage->engine->stage_files--;
    }
}

/* The payload into a file that this connection's broker can take. */
static enum hp_err make_file(struct hp_stage *stage, const struct hp_bytes *parts,
                             uint32_t part_count)
{
    struct hp_engine *engine = stage->engine;
    enum hp_err err = engine->config.near->give(parts, part_count, stage->size, engine->near_key,
                                                &stage->place, &stage->given_fd);

    engine->stage_files += err == HP_OK ? 1 : 0;
    return err;
}

/* Back to the beginning. */
static void stage_restart(struct hp_stage *stage)
{
    if (stage->request != 0) {
        hp_call_abandon(stage->engine, stage->request);
    }
    for (uint32_t i = 0; i < STAGE_CHUNKS; i++) {
        if (stage->chunks[i].request != 0) {
            hp_call_abandon(stage->engine, stage->chunks[i].request);
            stage->chunks[i].request = 0;
        }
    }
    drop_file(stage);
    stage->engine->stage_chunks -= stage->chunk_count;
    stage->chunk_count = 0;
    stage->request = 0;
    stage->blob = 0;
    stage->given = 0;
    stage->put = 0;
    stage->part_index = 0;
    stage->part_offset = 0;
    if (stage->digest != NULL) {
        (void)XXH3_64bits_reset(stage->digest); /* fails only without a state */
    }
}

static void stage_destroy(struct hp_stage *stage)
{
    drop_file(stage);
    if (stage->parts != &stage->one) {
        hp_free(stage->parts);
    }
    (void)XXH3_freeState(stage->digest);
    hp_buf_deinit(&stage->options);
    if (stage->view != NULL) {
        stage->engine->config.near->unview(stage->view, stage->size);
    }
    hp_free(stage->owned);
    hp_free(stage);
}

static void stage_free(struct hp_engine *engine, struct hp_stage *stage)
{
    stage_restart(stage);
    hp_list_remove(&stage->link);
    engine->stage_count--;
    engine->stage_bytes -= stage->size;
    engine->submit_tasks -= stage->piece.untracked ? 0 : 1;
    if (stage->release != NULL) {
        stage->release->release(stage->release, stage->piece.user);
    }
    stage_destroy(stage);
}

static void stage_is_one(struct hp_stage *stage, const uint8_t *data)
{
    stage->one = (struct hp_bytes){.data = data, .size = stage->size};
    stage->parts = &stage->one;
    stage->part_count = 1;
}

static bool may_give(const struct hp_stage *stage)
{
    const struct hp_engine *engine = stage->engine;

    return engine->near_give && !stage->far && stage->size >= engine->config.near->bytes_min;
}

/* The only copy is the file that will be given: not for more at once than are worked on. */
static bool stage_own_file(struct hp_stage *stage, const struct hp_bytes *parts,
                           uint32_t part_count)
{
    if (!may_give(stage) || stage->engine->stage_files >= STAGES_MAX ||
        make_file(stage, parts, part_count) != HP_OK) {
        return false;
    }
    if (stage->engine->config.near->view(stage->given_fd, stage->size, &stage->view) != HP_OK) {
        drop_file(stage);
        return false;
    }
    stage_is_one(stage, stage->view);
    return true;
}

/* The bytes into one owned block. */
static enum hp_err stage_own(struct hp_stage *stage, const struct hp_bytes *parts,
                             uint32_t part_count)
{
    size_t at = 0;

    if (stage_own_file(stage, parts, part_count)) {
        return HP_OK;
    }
    stage->owned = hp_alloc(stage->size);
    if (stage->owned == NULL) {
        return HP_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < part_count; i++) {
        if (parts[i].size > 0) {
            memcpy(stage->owned + at, parts[i].data, parts[i].size);
            at += parts[i].size;
        }
    }
    stage_is_one(stage, stage->owned);
    return HP_OK;
}

static enum hp_err stage_borrow(struct hp_stage *stage, const struct hp_bytes *parts,
                                uint32_t part_count)
{
    stage->part_count = part_count;
    stage->parts = &stage->one;
    stage->one = parts[0];
    if (part_count > 1) {
        stage->parts = hp_memdup(parts, part_count * sizeof(*parts));
    }
    return stage->parts != NULL ? HP_OK : HP_ERR_NOMEM;
}

enum hp_status hp_stage_add(struct hp_engine *engine, const struct hp_engine_submit *submit,
                            const struct hp_bytes *parts, uint32_t part_count,
                            const struct hp_piece *piece)
{
    struct hp_stage *stage = hp_calloc(1, sizeof(*stage));
    enum hp_err err;

    if (stage == NULL) {
        return HP_STATUS_NO_MEMORY;
    }
    stage->engine = engine;
    stage->given_fd = -1;
    stage->piece = *piece;
    stage->release = submit->release;
    stage->lasting = hp_submit_is_lasting(submit->options);
    for (uint32_t i = 0; i < part_count; i++) {
        stage->size += parts[i].size;
    }
    for (uint32_t i = 0; i < STAGE_CHUNKS; i++) {
        stage->chunks[i].stage = stage;
    }
    hp_buf_init(&stage->options, HP_LIMIT_FRAME_BYTES);
    err = submit->borrow_payloads ? stage_borrow(stage, parts, part_count)
                                  : stage_own(stage, parts, part_count);
    err = err == HP_OK ? hp_buf_append_buf(&stage->options, &engine->shared_encoded) : err;
    stage->digest = err == HP_OK ? XXH3_createState() : NULL;
    if (stage->digest == NULL) {
        stage_destroy(stage);
        return HP_STATUS_NO_MEMORY;
    }
    (void)XXH3_64bits_reset(stage->digest);
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
    message = hp_submit_message_new(engine, hp_buf_bin(&stage->options), stage->lasting);
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
    message->staged = true;
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
        stage_restart(stage);
        stage->hold_until_ms =
            engine->now_ms + (reply->retry_after_ms > 0 ? reply->retry_after_ms : BUSY_MS);
        return true;
    }
    stage_fail(engine, stage, reply->status, reply->text);
    return true;
}

/* ---------------------------------------------------------------- requests */

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

static void stage_open(struct hp_stage *stage)
{
    struct hp_msg_blob_open open;
    struct hp_buf params;

    hp_msg_blob_open_init(&open);
    open.size = stage->size;
    open.has = HP_HAS_BLOB_OPEN_SIZE;
#ifdef HP_HAS_BLOB_OPEN_DURABLE
    if (!stage->lasting) {
        open.durable = false;
        open.has |= HP_HAS_BLOB_OPEN_DURABLE;
    }
#endif
    hp_buf_init(&params, 1024);
    if (hp_msg_blob_open_encode(&params, &open) != HP_OK) {
        hp_buf_deinit(&params);
        stage_fail(stage->engine, stage, HP_STATUS_NO_MEMORY, "out of memory");
    } else if (hp_call_begin(stage->engine, HP_METHOD_BLOB_OPEN, &params, open_done, stage, true,
                             &stage->request) != HP_STATUS_OK) {
        stage_fail(stage->engine, stage, HP_STATUS_NO_MEMORY, "out of memory");
    }
}

static void give_done(void *context, const struct hp_reply *reply)
{
    struct hp_stage *stage = context;
    struct hp_engine *engine = stage->engine;
    struct hp_msg_blob_give_reply got;

    stage->request = 0;
    if (reply->status == HP_STATUS_UNSUPPORTED || reply->status == HP_STATUS_BAD_REQUEST) {
        /* The broker may be short of descriptors for a moment: others may still get through. */
        engine->give_refusals++;
        engine->near_give = engine->give_refusals < REFUSALS_MAX;
        stage->far = true;
        stage_restart(stage);
        return;
    }
    if (stage_refused(stage, reply)) {
        return;
    }
    if (hp_msg_blob_give_reply_decode(reply->result, &engine->arena, &got, NULL) != HP_OK ||
        got.blob == 0) {
        hp_engine_fail(engine, HP_STATUS_PROTOCOL, "the broker's answer to blob.give is wrong");
        return;
    }
    engine->give_refusals = 0;
    drop_file(stage);
    stage->blob = got.blob;
    stage->given = stage->size;
    stage_submit(engine, stage);
}

/* The whole payload by descriptor. Without memory for that it goes in chunks. */
static void stage_give(struct hp_stage *stage)
{
    struct hp_engine *engine = stage->engine;
    const struct hp_client_place *place = &stage->place;
    struct hp_buf params;

    if (stage->given_fd < 0 && make_file(stage, stage->parts, stage->part_count) != HP_OK) {
        stage->far = true;
        return;
    }
    struct hp_msg_blob_give give = {
        .has = HP_HAS_BLOB_GIVE_SIZE | HP_HAS_BLOB_GIVE_DURABLE | HP_HAS_BLOB_GIVE_PID |
               HP_HAS_BLOB_GIVE_FD | HP_HAS_BLOB_GIVE_DEVICE | HP_HAS_BLOB_GIVE_INODE,
        .size = stage->size,
        .durable = stage->lasting,
        .pid = place->pid,
        .fd = place->fd,
        .device = place->device,
        .inode = place->inode,
    };
    hp_buf_init(&params, 1024);
    if (hp_msg_blob_give_encode(&params, &give) != HP_OK) {
        hp_buf_deinit(&params);
        stage_fail(engine, stage, HP_STATUS_NO_MEMORY, "out of memory");
    } else if (hp_call_begin(engine, HP_METHOD_BLOB_GIVE, &params, give_done, stage, true,
                             &stage->request) != HP_STATUS_OK) {
        stage_fail(engine, stage, HP_STATUS_NO_MEMORY, "out of memory");
    }
}

static void put_done(void *context, const struct hp_reply *reply)
{
    struct chunk *chunk = context;
    struct hp_stage *stage = chunk->stage;
    struct hp_msg_blob_put_reply got;
    bool last = chunk->offset + chunk->size == stage->size;

    chunk->request = 0; /* I1 */
    stage->chunk_count--;
    stage->engine->stage_chunks--;
    if (stage_refused(stage, reply)) {
        return;
    }
    if (hp_msg_blob_put_reply_decode(reply->result, &stage->engine->arena, &got, NULL) != HP_OK) {
        hp_engine_fail(stage->engine, HP_STATUS_PROTOCOL,
                       "the broker's answer to blob.put is wrong");
        return;
    }
    if (last) {
        stage_submit(stage->engine, stage);
    }
}

/* The next `size` bytes of the payload, which may lie in several parts. */
static enum hp_err put_bytes(struct hp_stage *stage, struct hp_buf *out, size_t size)
{
    enum hp_err err = HP_OK;

    while (err == HP_OK && size > 0) {
        const struct hp_bytes *part = &stage->parts[stage->part_index];
        size_t step = HP_MIN(size, part->size - stage->part_offset);
        const uint8_t *data = part->data;

        if (step > 0) {
            data += stage->part_offset;
            (void)XXH3_64bits_update(stage->digest, data, step); /* fails only without bytes */
            err = hp_buf_append(out, data, step);
        }
        size -= step;
        stage->part_offset += step;
        stage->put += step;
        if (stage->part_offset == part->size) {
            stage->part_index++;
            stage->part_offset = 0;
        }
    }
    return err;
}

/* The parameters of blob.put. Chunks are composed in their order, which the digest relies upon. */
static enum hp_err put_chunk(void *context, struct hp_buf *out)
{
    struct chunk *chunk = context;
    struct hp_stage *stage = chunk->stage;
    bool last = chunk->offset + chunk->size == stage->size;
    uint8_t head[5] = {0xc6, (uint8_t)(chunk->size >> 24), (uint8_t)(chunk->size >> 16),
                       (uint8_t)(chunk->size >> 8), (uint8_t)chunk->size}; /* bin 32 */
    enum hp_err err = hp_wire_put_map(out, last ? 4 : 3);

    HP_ASSERT(chunk->offset == stage->put);
    err = err == HP_OK ? hp_wire_put_cstr(out, "blob") : err;
    err = err == HP_OK ? hp_wire_put_u64(out, stage->blob) : err;
    err = err == HP_OK ? hp_wire_put_cstr(out, "offset") : err;
    err = err == HP_OK ? hp_wire_put_u64(out, chunk->offset) : err;
    err = err == HP_OK ? hp_wire_put_cstr(out, "data") : err;
    err = err == HP_OK ? hp_buf_append(out, head, sizeof(head)) : err;
    err = err == HP_OK ? put_bytes(stage, out, chunk->size) : err;
    if (err == HP_OK && last) {
        err = hp_wire_put_cstr(out, "digest");
        err = err == HP_OK ? hp_wire_put_u64(out, XXH3_64bits_digest(stage->digest)) : err;
    }
    return err;
}

/* Gives one more chunk to blob.put; false: none for now, or the stage is gone. */
static bool stage_put(struct hp_stage *stage)
{
    struct hp_engine *engine = stage->engine;
    struct chunk *chunk = stage->chunks;

    if (stage->given == stage->size || stage->chunk_count == STAGE_CHUNKS ||
        engine->stage_chunks >= ENGINE_CHUNKS) {
        return false;
    }
    while (chunk->request != 0) {
        chunk++; /* I1: one is free */
    }
    chunk->offset = stage->given;
    chunk->size = HP_MIN(stage->size - stage->given, (size_t)HP_LIMIT_BLOB_CHUNK_BYTES);
    if (hp_call_begin_late(engine, HP_METHOD_BLOB_PUT, put_chunk, put_done, chunk,
                           &chunk->request) != HP_STATUS_OK) {
        chunk->request = 0;
        stage_fail(engine, stage, HP_STATUS_NO_MEMORY, "out of memory");
        return false;
    }
    stage->given += chunk->size;
    stage->chunk_count++;
    engine->stage_chunks++;
    return true;
}

void hp_stage_step(struct hp_engine *engine)
{
    struct hp_list *link = engine->stages.next;

    for (uint32_t i = 0; i < STAGES_MAX && link != &engine->stages; i++) {
        struct hp_stage *stage = stage_of(link);

        link = link->next;
        if (stage->request != 0 || engine->now_ms < stage->hold_until_ms) {
            continue;
        }
        if (stage->blob == 0 && may_give(stage)) {
            stage_give(stage);
            continue;
        }
        if (stage->blob == 0) {
            stage_open(stage);
            continue;
        }
        while (stage_put(stage)) {
        }
    }
}

uint64_t hp_stage_deadline_ms(const struct hp_engine *engine)
{
    uint64_t deadline_ms = HP_ENGINE_NEVER;
    struct hp_list *link = engine->stages.next;

    for (uint32_t i = 0; i < STAGES_MAX && link != &engine->stages; i++, link = link->next) {
        const struct hp_stage *stage = stage_of(link);
        bool waits = stage->request != 0 || stage->given == stage->size ||
                     stage->chunk_count == STAGE_CHUNKS;

        waits = waits || (stage->blob != 0 && engine->stage_chunks >= ENGINE_CHUNKS);
        if (!waits) {
            deadline_ms = HP_MIN(deadline_ms, HP_MAX(stage->hold_until_ms, engine->now_ms));
        }
    }
    return deadline_ms;
}

void hp_stage_lost(struct hp_engine *engine)
{
    struct hp_list *link;

    for (link = engine->stages.next; link != &engine->stages; link = link->next) {
        stage_restart(stage_of(link));
    }
}

void hp_stage_clear(struct hp_engine *engine)
{
    while (!hp_list_is_empty(&engine->stages)) {
        stage_of(hp_list_first(&engine->stages))->release = NULL;
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
