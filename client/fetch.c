/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The chunks of blobs in flight. The first chunk tells the size; then the others are asked for
 * without waiting. Memory is bounded by BYTES_MAX over all fetches, except that one is always
 * allowed. Where the broker is on this host, the blob is lent whole instead: see near.h.
 *
 * I1: a fetch with data == NULL has at most its first chunk in flight. I2: chunks with request != 0
 * are in flight: chunk_count of them, engine->fetch_chunks over all.
 */
#include "client/fetch.h"

#include <string.h>
#include <xxhash.h>

#include "client/engine_state.h"
#include "client/near.h"
#include "common/base/mem.h"

#define FETCH_CHUNKS 8u
#define ENGINE_CHUNKS 24u
#define FETCHES_MAX 16u
#define BYTES_MAX ((size_t)256 << 20)
#define BUSY_MS 200u

struct chunk {
    struct hp_fetch *fetch;
    uint64_t request; /* 0: free */
    size_t offset;
    size_t size; /* wanted */
};

struct hp_fetch {
    struct hp_list link;
    struct hp_engine *engine;
    uint64_t blob;
    hp_fetch_done done;
    void *context;
    uint8_t *data;
    size_t size;  /* of the blob */
    size_t asked; /* bytes asked for */
    size_t got;
    uint64_t digest;
    struct chunk chunks[FETCH_CHUNKS];
    uint32_t chunk_count;
    uint64_t lend_request; /* blob.lend under way; 0: none */
    bool far;              /* in chunks: it can not be lent */
    uint64_t hold_until_ms;
};

static struct hp_fetch *fetch_of(struct hp_list *link)
{
    return HP_LIST_ENTRY(link, struct hp_fetch, link);
}

struct hp_fetch *hp_fetch_begin(struct hp_engine *engine, uint64_t blob, hp_fetch_done done,
                                void *context)
{
    struct hp_fetch *fetch = hp_calloc(1, sizeof(*fetch));

    if (fetch != NULL) {
        fetch->engine = engine;
        fetch->blob = blob;
        fetch->done = done;
        fetch->context = context;
        for (uint32_t i = 0; i < FETCH_CHUNKS; i++) {
            fetch->chunks[i].fetch = fetch;
        }
        hp_list_push_back(&engine->fetches, &fetch->link);
    }
    return fetch;
}

/* Drops what is in flight and what was read. */
static void fetch_reset(struct hp_fetch *fetch)
{
    struct hp_engine *engine = fetch->engine;

    if (fetch->lend_request != 0) {
        hp_call_abandon(engine, fetch->lend_request);
        fetch->lend_request = 0;
    }
    for (uint32_t i = 0; i < FETCH_CHUNKS; i++) {
        if (fetch->chunks[i].request != 0) {
            hp_call_abandon(engine, fetch->chunks[i].request);
            fetch->chunks[i].request = 0;
        }
    }
    engine->fetch_chunks -= fetch->chunk_count;
    fetch->chunk_count = 0;
    if (fetch->data != NULL) {
        engine->fetch_bytes -= fetch->size;
        hp_free(fetch->data);
        fetch->data = NULL;
    }
    fetch->asked = 0;
    fetch->got = 0;
}

void hp_fetch_abandon(struct hp_fetch *fetch)
{
    fetch_reset(fetch);
    hp_list_remove(&fetch->link);
    hp_free(fetch);
}

/* blob.get is repeated on the next connection by itself; what was lent on this one is not. */
void hp_fetch_lost(struct hp_engine *engine)
{
    HP_LIST_FOR_EACH (link, &engine->fetches) {
        struct hp_fetch *fetch = fetch_of(link);

        if (fetch->lend_request != 0) {
            hp_call_abandon(engine, fetch->lend_request);
            fetch->lend_request = 0;
        }
    }
}

void hp_fetch_clear(struct hp_engine *engine)
{
    while (!hp_list_is_empty(&engine->fetches)) {
        hp_fetch_abandon(fetch_of(hp_list_first(&engine->fetches)));
    }
}

/* Lent blobs are not the engine's memory until they are whole: nothing is counted for them. */
static void fetch_end_with(struct hp_fetch *fetch, struct hp_buffer *buffer)
{
    hp_fetch_done done = fetch->done;
    void *context = fetch->context;

    hp_fetch_abandon(fetch);
    done(context, HP_STATUS_OK, "", buffer);
}

static void fetch_end(struct hp_fetch *fetch, enum hp_status status, const char *text)
{
    hp_fetch_done done = fetch->done;
    void *context = fetch->context;
    struct hp_buffer buffer = {0};

    if (status == HP_STATUS_OK) {
        buffer = (struct hp_buffer){.data = fetch->data, .size = fetch->size};
        fetch->engine->fetch_bytes -= fetch->size;
        fetch->data = NULL;
    }
    hp_fetch_abandon(fetch);
    done(context, status, text, &buffer);
}

static bool take_data(struct hp_fetch *fetch, const struct chunk *chunk,
                      const struct hp_msg_blob_get_reply *got)
{
    if (fetch->data == NULL) {
        if (got->size > HP_LIMIT_BLOB_BYTES || chunk->offset != 0) {
            return false;
        }
        fetch->data = hp_alloc((size_t)got->size + 1);
        if (fetch->data == NULL) {
            fetch_end(fetch, HP_STATUS_NO_MEMORY, "out of memory");
            return true;
        }
        fetch->size = (size_t)got->size;
        fetch->digest = got->digest;
        fetch->engine->fetch_bytes += fetch->size;
        fetch->data[fetch->size] = 0;
    }
    /* A chunk that is neither as long as asked for nor the end would leave a hole. */
    if (got->size != fetch->size || chunk->offset > fetch->size ||
        got->data.size != HP_MIN(chunk->size, fetch->size - chunk->offset)) {
        return false;
    }
    if (got->data.size > 0) {
        memcpy(fetch->data + chunk->offset, got->data.data, got->data.size);
    }
    fetch->got += got->data.size;
    fetch->asked = HP_MAX(fetch->asked, chunk->offset + got->data.size);
    if (fetch->got == fetch->size) {
        bool good = XXH3_64bits(fetch->data, fetch->size) == fetch->digest;

        fetch_end(fetch, good ? HP_STATUS_OK : HP_STATUS_DAMAGED,
                  good ? "" : "a blob arrived damaged");
    }
    return true;
}

static void get_done(void *context, const struct hp_reply *reply)
{
    struct chunk *chunk = context;
    struct hp_fetch *fetch = chunk->fetch;
    struct hp_engine *engine = fetch->engine;
    struct hp_msg_blob_get_reply got;

    chunk->request = 0; /* I2 */
    fetch->chunk_count--;
    engine->fetch_chunks--;
    if (reply->status == HP_STATUS_BUSY || reply->status == HP_STATUS_DRAINING) {
        fetch_reset(fetch);
        fetch->hold_until_ms =
            engine->now_ms + (reply->retry_after_ms > 0 ? reply->retry_after_ms : BUSY_MS);
        return;
    }
    if (reply->status != HP_STATUS_OK) {
        fetch_end(fetch, reply->status, reply->text);
        return;
    }
    if (hp_msg_blob_get_reply_decode(reply->result, &engine->arena, &got, NULL) != HP_OK ||
        !take_data(fetch, chunk, &got)) {
        hp_engine_fail(engine, HP_STATUS_PROTOCOL, "the broker's answer to blob.get is wrong");
        fetch_end(fetch, HP_STATUS_PROTOCOL, "the broker's answer to blob.get is wrong");
    }
}

static void lend_done(void *context, const struct hp_reply *reply)
{
    struct hp_fetch *fetch = context;
    struct hp_engine *engine = fetch->engine;
    struct hp_msg_blob_lend_reply got;
    struct hp_buffer buffer = {0};
    enum hp_err err;

    fetch->lend_request = 0;
    if (reply->status == HP_STATUS_BUSY || reply->status == HP_STATUS_DRAINING) {
        fetch->hold_until_ms =
            engine->now_ms + (reply->retry_after_ms > 0 ? reply->retry_after_ms : BUSY_MS);
        return;
    }
    fetch->far = true; /* whatever else is wrong with it, blob.get will say it */
    if (reply->status != HP_STATUS_OK ||
        hp_msg_blob_lend_reply_decode(reply->result, &engine->arena, &got, NULL) != HP_OK ||
        got.size > HP_LIMIT_BLOB_BYTES) {
        return;
    }
    struct hp_client_place place = {
        .pid = got.pid, .fd = got.fd, .device = got.device, .inode = got.inode};
    bool has_digest = (got.has & HP_HAS_BLOB_LEND_REPLY_DIGEST) != 0;
    err = engine->config.near->take(&place, got.size, has_digest ? &got.digest : NULL, &buffer);
    if (err == HP_OK) {
        fetch_end_with(fetch, &buffer);
    } else if (err == HP_ERR_DENIED) {
        engine->near_take = false; /* the broker's files are not for this user */
    }
}

static bool ask_to_lend(struct hp_fetch *fetch)
{
    struct hp_msg_blob_lend lend = {.has = HP_HAS_BLOB_LEND_BLOB, .blob = fetch->blob};
    struct hp_buf params;

    hp_buf_init(&params, 1024);
    if (hp_msg_blob_lend_encode(&params, &lend) != HP_OK) {
        hp_buf_deinit(&params);
        return false; /* no memory: tried again at the next step */
    }
    return hp_call_begin(fetch->engine, HP_METHOD_BLOB_LEND, &params, lend_done, fetch, true,
                         &fetch->lend_request) == HP_STATUS_OK;
}

static bool may_be_lent(const struct hp_fetch *fetch)
{
    return fetch->engine->near_take && !fetch->far && fetch->data == NULL &&
           fetch->chunk_count == 0;
}

/* Is there a chunk to ask for now? */
static bool has_next(const struct hp_fetch *fetch)
{
    const struct hp_engine *engine = fetch->engine;

    if (engine->now_ms < fetch->hold_until_ms || fetch->lend_request != 0) {
        return false;
    }
    if (may_be_lent(fetch)) {
        return true;
    }
    if (engine->fetch_chunks >= ENGINE_CHUNKS) {
        return false;
    }
    if (fetch->data == NULL) { /* I1 */
        return fetch->chunk_count == 0 &&
               (engine->fetch_bytes < BYTES_MAX || engine->fetch_bytes == 0);
    }
    return fetch->asked < fetch->size && fetch->chunk_count < FETCH_CHUNKS;
}

static bool fetch_next(struct hp_fetch *fetch)
{
    struct chunk *chunk = fetch->chunks;
    struct hp_msg_blob_get get;
    struct hp_buf params;

    if (!has_next(fetch)) {
        return false;
    }
    if (may_be_lent(fetch)) {
        (void)ask_to_lend(fetch); /* without memory: at the next step */
        return false;
    }
    while (chunk->request != 0) {
        chunk++;
    }
    chunk->offset = fetch->asked;
    chunk->size = HP_LIMIT_BLOB_CHUNK_BYTES;
    hp_msg_blob_get_init(&get);
    get.blob = fetch->blob;
    get.offset = chunk->offset;
    get.size = HP_LIMIT_BLOB_CHUNK_BYTES;
    get.has = HP_HAS_BLOB_GET_BLOB | HP_HAS_BLOB_GET_OFFSET | HP_HAS_BLOB_GET_SIZE;
    hp_buf_init(&params, 1024);
    if (hp_msg_blob_get_encode(&params, &get) != HP_OK) {
        hp_buf_deinit(&params);
        return false; /* no memory: tried again at the next step */
    }
    if (hp_call_begin(fetch->engine, HP_METHOD_BLOB_GET, &params, get_done, chunk, false,
                      &chunk->request) != HP_STATUS_OK) {
        chunk->request = 0;
        return false;
    }
    fetch->asked += fetch->data == NULL ? 0 : chunk->size;
    fetch->chunk_count++;
    fetch->engine->fetch_chunks++;
    return true;
}

void hp_fetch_step(struct hp_engine *engine)
{
    struct hp_list *link = engine->fetches.next;

    for (uint32_t i = 0; i < FETCHES_MAX && link != &engine->fetches; i++) {
        struct hp_fetch *fetch = fetch_of(link);

        link = link->next;
        while (fetch_next(fetch)) {
        }
    }
}

uint64_t hp_fetch_deadline_ms(const struct hp_engine *engine)
{
    uint64_t deadline_ms = HP_ENGINE_NEVER;
    struct hp_list *link = engine->fetches.next;

    for (uint32_t i = 0; i < FETCHES_MAX && link != &engine->fetches; i++, link = link->next) {
        const struct hp_fetch *fetch = fetch_of(link);

        if (has_next(fetch)) {
            return engine->now_ms;
        }
        if (engine->now_ms < fetch->hold_until_ms) {
            deadline_ms = HP_MIN(deadline_ms, fetch->hold_until_ms);
        }
    }
    return deadline_ms;
}
