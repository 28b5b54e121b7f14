/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Large bytes: results up, payloads down. By descriptor (near.c), where the broker is on this host;
 * else over the agent's own connection, in chunks, a few calls in flight, so that heartbeats never
 * wait behind more than a few chunks.
 */
#include <string.h>

#include <xxhash.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "worker/core/state.h"

#define PUT_CALLS_MAX 4u
#define GET_CALLS_MAX 4u
#define NEAR_CALLS_MAX 16u /* of each kind: the broker's disk is to be busy, not its memory full   \
                            */
#define RETRY_WAIT_MS 1000u

void hp_agent_fetch_unreserve(struct hp_agent *agent, struct hp_agent_fetch *fetch)
{
    if (fetch->counted) {
        HP_ASSERT(agent->fetch_bytes >= fetch->size);
        agent->fetch_bytes -= fetch->size;
        fetch->counted = false;
    }
}

void hp_agent_fetch_clear(struct hp_agent *agent, struct hp_agent_fetch *fetch)
{
    hp_agent_fetch_unreserve(agent, fetch);
    hp_free(fetch->data);
    fetch->data = NULL;
    hp_agent_file_free(agent, fetch->file);
    fetch->file = NULL;
}

void hp_agent_fetch_free(struct hp_agent *agent, struct hp_agent_run *run)
{
    hp_agent_fetch_clear(agent, run->fetch);
    hp_free(run->fetch);
    run->fetch = NULL;
    run->payload = NULL;
    run->payload_size = 0;
}

void hp_agent_parts_free(struct hp_agent *agent, struct hp_agent_run *run)
{
    if (run->parts == NULL) {
        return;
    }
    for (uint32_t i = 0; i < run->parts->count; i++) {
        struct hp_agent_part *part = &run->parts->item[i];
        if (part->file != NULL) {
            hp_agent_file_free(agent, part->file);
        } else {
            hp_free((uint8_t *)(uintptr_t)part->data); /* owned */
        }
    }
    hp_free(run->parts);
    run->parts = NULL;
}

static void part_reset(struct hp_agent_part *part)
{
    part->blob = 0;
    part->sent = 0;
    part->asked = false;
    part->stored = false;
    part->by_put = false;
}

static void parts_reset(const struct hp_list *list)
{
    HP_LIST_FOR_EACH (node, list) {
        struct hp_agent_run *run = HP_LIST_ENTRY(node, struct hp_agent_run, link);
        for (uint32_t i = 0; run->parts != NULL && i < run->parts->count; i++) {
            part_reset(&run->parts->item[i]);
        }
    }
}

/* What was asked for is asked for anew. */
static void fetch_reset(struct hp_agent *agent, struct hp_agent_fetch *fetch)
{
    fetch->asked = false;
    fetch->by_get = false;
    if (fetch->data == NULL && fetch->file == NULL) {
        hp_agent_fetch_unreserve(agent, fetch); /* it was being opened */
    }
}

/* Blobs that no stored result refers to may be gone when the broker is back: all start anew. */
void hp_agent_blobs_link_down(struct hp_agent *agent)
{
    HP_LIST_FOR_EACH_SAFE (node, &agent->ready) {
        struct hp_agent_run *run = HP_LIST_ENTRY(node, struct hp_agent_run, link);
        if (run->parts != NULL) {
            hp_agent_run_move(agent, run, HP_AGENT_UPLOADING, &agent->uploading, false);
        }
    }
    parts_reset(&agent->uploading);
    HP_LIST_FOR_EACH (node, &agent->fetching) {
        fetch_reset(agent, HP_LIST_ENTRY(node, struct hp_agent_run, link)->fetch);
    }
    HP_LIST_FOR_EACH (node, &agent->crews) {
        struct hp_agent_crew *crew = HP_LIST_ENTRY(node, struct hp_agent_crew, link);
        if (crew->fetch != NULL && !crew->ready) {
            fetch_reset(agent, crew->fetch);
        }
    }
    agent->put_calls = 0;
    agent->get_calls = 0;
    hp_agent_near_link_down(agent);
}

/* -------------------------------------------------------------------------------------- upload */

static void send_open(struct hp_agent *agent, struct hp_agent_run *run, uint32_t index)
{
    struct hp_agent_rpc *rpc = hp_agent_rpc_begin(agent, HP_METHOD_BLOB_OPEN);
    if (rpc == NULL) {
        return;
    }
    struct hp_agent_part *part = &run->parts->item[index];
    rpc->key = run->key;
    rpc->part = (uint8_t)index;
    struct hp_msg_blob_open open = {.has = HP_HAS_BLOB_OPEN_SIZE | HP_HAS_BLOB_OPEN_DURABLE,
                                    .size = part->size,
                                    .durable = run->parcel == NULL || run->parcel->durable};
    hp_agent_rpc_params(agent, &hp_desc_msg_blob_open, &open);
    part->asked = true;
    agent->put_calls++;
}

static bool send_put(struct hp_agent *agent, struct hp_agent_run *run, uint32_t index)
{
    struct hp_agent_part *part = &run->parts->item[index];
    struct hp_agent_rpc *rpc = hp_agent_rpc_begin(agent, HP_METHOD_BLOB_PUT);
    if (rpc == NULL) {
        return false;
    }
    uint64_t size = HP_MIN(part->size - part->sent, (uint64_t)HP_LIMIT_BLOB_CHUNK_BYTES);
    struct hp_msg_blob_put put = {
        .has = HP_HAS_BLOB_PUT_BLOB | HP_HAS_BLOB_PUT_OFFSET | HP_HAS_BLOB_PUT_DATA,
        .blob = part->blob,
        .offset = part->sent,
        .data = hp_bin_make(part->data + part->sent, size),
    };
    part->sent += size;
    if (part->sent == part->size) {
        part->digest = XXH3_64bits(part->data, part->size);
        part->has_digest = true;
        put.digest = part->digest;
        put.has |= HP_HAS_BLOB_PUT_DIGEST;
        rpc->last = true;
    }
    rpc->key = run->key;
    rpc->part = (uint8_t)index;
    rpc->size = part->blob;
    hp_agent_rpc_params(agent, &hp_desc_msg_blob_put, &put);
    agent->put_calls++;
    return true;
}

static void put_part(struct hp_agent *agent, struct hp_agent_run *run, uint32_t index)
{
    struct hp_agent_part *part = &run->parts->item[index];
    if (!part->asked) {
        send_open(agent, run, index);
    }
    while (part->blob != 0 && part->sent < part->size && agent->put_calls < PUT_CALLS_MAX &&
           agent->tx.size < HP_AGENT_OUTPUT_BUSY_BYTES) {
        if (!send_put(agent, run, index)) {
            return;
        }
    }
}

/* Index of the run's first part that is not stored. */
static uint32_t part_to_store(const struct hp_agent_run *run)
{
    uint32_t index = 0;
    while (run->parts->item[index].stored) {
        index++;
        HP_ASSERT(index < run->parts->count);
    }
    return index;
}

/* In order, and a run's parts in order: several that are given at once, or one by chunks. */
static void pump_uploads(struct hp_agent *agent)
{
    bool open = agent->link >= HP_AGENT_LINK_FLUSH;
    if (!open || agent->now_ms < agent->blob_hold_ms) {
        return;
    }
    HP_LIST_FOR_EACH (node, &agent->uploading) {
        struct hp_agent_run *run = HP_LIST_ENTRY(node, struct hp_agent_run, link);
        uint32_t index = part_to_store(run);
        struct hp_agent_part *part = &run->parts->item[index];
        if (!hp_agent_may_give(agent, part)) {
            put_part(agent, run, index);
            return;
        }
        if (part->asked) {
            continue;
        }
        if (agent->near.give_calls >= NEAR_CALLS_MAX || !hp_agent_give(agent, run, index)) {
            return;
        }
    }
}

/* All parts are stored: name their blobs in the end record. */
static void name_blobs(struct hp_agent *agent, struct hp_agent_run *run)
{
    const struct hp_wire_obj *root = NULL;
    struct hp_st_task_end end;
    enum hp_err err = hp_wire_unpack_checked(agent->wire, &hp_tok_limits_open,
                                             hp_bin_make(run->end, run->end_size), &root, NULL);
    if (err == HP_OK) {
        err = hp_st_task_end_decode(root, &agent->arena, &end, NULL);
    }
    HP_ASSERT(err == HP_OK); /* we encoded it, and the spool checks its digest */
    for (uint32_t i = 0; i < run->parts->count; i++) {
        const struct hp_agent_part *part = &run->parts->item[i];
        if (part->kind == HP_AGENT_PART_RESULT) {
            end.result_blob = part->blob;
            end.has |= HP_HAS_ST_TASK_END_RESULT_BLOB;
            if (part->has_digest) {
                end.digest = part->digest;
                end.has |= HP_HAS_ST_TASK_END_DIGEST;
            }
        } else if (part->kind == HP_AGENT_PART_OUT) {
            end.out_blob = part->blob;
            end.has |= HP_HAS_ST_TASK_END_OUT_BLOB;
        } else {
            end.err_blob = part->blob;
            end.has |= HP_HAS_ST_TASK_END_ERR_BLOB;
        }
    }
    err = hp_agent_run_set_end(agent, run, &end);
    HP_ASSERT(err == HP_OK);
}

/* The result is larger than the broker takes: that is how the attempt ended. */
static void too_big(struct hp_agent *agent, struct hp_agent_run *run)
{
    struct hp_st_task_end end = {.has = HP_HAS_ST_TASK_END_ERROR,
                                 .error =
                                     HP_STR_INIT("the result is larger than the broker takes")};
    enum hp_err err = hp_agent_run_set_end(agent, run, &end);
    HP_ASSERT(err == HP_OK);
    hp_agent_parts_free(agent, run);
    run->reason = HP_REASON_RESULT_TOO_BIG;
    hp_agent_run_advance(agent, run);
}

void hp_agent_part_refused(struct hp_agent *agent, struct hp_agent_run *run,
                           struct hp_agent_part *part, const struct hp_rpc_failure *failure)
{
    hp_agent_log(agent, HP_AGENT_LOG_WARN, "upload for task %llu refused: %.*s: %.*s",
                 (unsigned long long)run->id, HP_STR_ARG(failure->word), HP_STR_ARG(failure->text));
    if (failure->code == HP_RPC_ERROR_TOO_BIG) {
        too_big(agent, run);
        return;
    }
    part_reset(part);
    agent->blob_hold_ms = agent->now_ms + HP_MAX((uint64_t)RETRY_WAIT_MS, failure->retry_after_ms);
}

void hp_agent_part_stored(struct hp_agent *agent, struct hp_agent_run *run)
{
    for (uint32_t i = 0; i < run->parts->count; i++) {
        if (!run->parts->item[i].stored) {
            return;
        }
    }
    name_blobs(agent, run);
    hp_agent_run_advance(agent, run);
}

static void on_open_reply(struct hp_agent *agent, struct hp_agent_part *part,
                          const struct hp_rpc *reply)
{
    struct hp_msg_blob_open_reply open;
    struct hp_error error = {0};
    if (hp_msg_blob_open_reply_decode(reply->result, &agent->arena, &open, &error) != HP_OK ||
        open.blob == 0) {
        hp_agent_link_close(agent, "blob.open: %s", error.text);
        return;
    }
    part->blob = open.blob;
}

static void on_upload_reply(struct hp_agent *agent, struct hp_agent_rpc *rpc,
                            const struct hp_rpc *reply)
{
    agent->put_calls--;
    struct hp_agent_run *run = hp_agent_run_get(agent, rpc->key);
    if (run == NULL || run->state != HP_AGENT_UPLOADING || rpc->part >= run->parts->count) {
        return;
    }
    struct hp_agent_part *part = &run->parts->item[rpc->part];
    bool is_open = rpc->method == HP_METHOD_BLOB_OPEN;
    if (!is_open && part->blob != rpc->size) {
        return; /* of a blob that was given up */
    }
    if (reply->failed) {
        hp_agent_part_refused(agent, run, part, &reply->failure);
    } else if (is_open) {
        on_open_reply(agent, part, reply);
    } else if (rpc->last) {
        part->stored = true;
        hp_agent_part_stored(agent, run);
    }
}

/* ------------------------------------------------------------------------------------ download */

/* For a run's payload, or for that of a pool (key 0). False: not now. */
static bool send_get(struct hp_agent *agent, struct hp_agent_fetch *fetch, uint64_t key,
                     uint64_t pool)
{
    struct hp_agent_rpc *rpc = hp_agent_rpc_begin(agent, HP_METHOD_BLOB_GET);
    if (rpc == NULL) {
        return false;
    }
    rpc->key = key;
    rpc->pool = pool;
    struct hp_msg_blob_get get = {.has = HP_HAS_BLOB_GET_BLOB | HP_HAS_BLOB_GET_OFFSET,
                                  .blob = fetch->blob,
                                  .offset = fetch->got};
    hp_agent_rpc_params(agent, &hp_desc_msg_blob_get, &get);
    fetch->asked = true;
    agent->get_calls++;
    return true;
}

/* False: nothing more can be asked for now. */
static bool pump_fetch(struct hp_agent *agent, struct hp_agent_fetch *fetch, uint64_t key,
                       uint64_t pool, bool may_lend)
{
    if (fetch->asked || agent->now_ms < fetch->wait_until_ms) {
        return true;
    }
    if (may_lend && hp_agent_may_lend(agent, fetch)) {
        return agent->near.lend_calls < NEAR_CALLS_MAX && hp_agent_lend(agent, fetch, key, pool);
    }
    return (pool != 0 || agent->get_calls < GET_CALLS_MAX) && send_get(agent, fetch, key, pool);
}

static void pump_fetches(struct hp_agent *agent)
{
    if (agent->link != HP_AGENT_LINK_UP || agent->now_ms < agent->blob_hold_ms) {
        return;
    }
    HP_LIST_FOR_EACH (node, &agent->crews) {
        struct hp_agent_crew *crew = HP_LIST_ENTRY(node, struct hp_agent_crew, link);
        if (crew->fetch != NULL && !crew->ready) {
            (void)pump_fetch(agent, crew->fetch, 0, crew->pool, true); /* or at the next turn */
        }
    }
    HP_LIST_FOR_EACH (node, &agent->fetching) {
        struct hp_agent_run *run = HP_LIST_ENTRY(node, struct hp_agent_run, link);
        bool is_call = run->parcel->crew != NULL; /* a command has bytes, as argv or stdin */
        if (!pump_fetch(agent, run->fetch, run->key, 0, is_call)) {
            return;
        }
    }
}

void hp_agent_blobs_pump(struct hp_agent *agent)
{
    pump_uploads(agent);
    pump_fetches(agent);
}

struct hp_agent_fetch *hp_agent_fetch_find(struct hp_agent *agent, uint64_t key, uint64_t pool)
{
    if (pool != 0) {
        struct hp_agent_crew *crew = hp_agent_crew_find(agent, pool);
        return crew == NULL || crew->ready ? NULL : crew->fetch;
    }
    struct hp_agent_run *run = hp_agent_run_get(agent, key);
    return run == NULL || run->state != HP_AGENT_FETCHING ? NULL : run->fetch;
}

/* It can not be had: why. */
static void fetch_lost(struct hp_agent *agent, struct hp_agent_fetch *fetch, uint64_t key,
                       uint64_t pool, const char *why)
{
    if (pool == 0) {
        hp_agent_end_unstarted(agent, hp_agent_run_get(agent, key), HP_REASON_DAMAGED, why);
        return;
    }
    fetch->wait_until_ms = HP_AGENT_NEVER;
    hp_agent_crew_fetched(agent, hp_agent_crew_find(agent, pool), why);
}

void hp_agent_fetch_done(struct hp_agent *agent, uint64_t key, uint64_t pool)
{
    if (pool != 0) {
        hp_agent_crew_fetched(agent, hp_agent_crew_find(agent, pool), NULL);
        return;
    }
    struct hp_agent_run *run = hp_agent_run_get(agent, key);
    if (run->fetch->file == NULL) {
        run->payload = run->fetch->data;
        run->payload_size = (uint32_t)run->fetch->size;
    }
    run->seq = agent->next_seq++;
    struct hp_agent_crew *crew = run->parcel->crew;
    hp_agent_run_move(agent, run, HP_AGENT_WAITING,
                      crew == NULL ? &agent->commands : &crew->waiting, false);
}

void hp_agent_fetch_failed(struct hp_agent *agent, uint64_t key, uint64_t pool,
                           const struct hp_rpc_failure *failure)
{
    struct hp_agent_fetch *fetch = hp_agent_fetch_find(agent, key, pool);
    if (failure->code == HP_RPC_ERROR_NOT_FOUND || failure->code == HP_RPC_ERROR_DAMAGED) {
        fetch_lost(agent, fetch, key, pool, "the payload blob is missing or damaged at the broker");
        return;
    }
    fetch->wait_until_ms = agent->now_ms + RETRY_WAIT_MS;
    agent->blob_hold_ms = agent->now_ms + RETRY_WAIT_MS;
}

static void wait_for_room(struct hp_agent *agent, struct hp_agent_fetch *fetch)
{
    fetch->wait_until_ms = agent->now_ms + RETRY_WAIT_MS;
    agent->blob_hold_ms = HP_MAX(agent->blob_hold_ms, agent->now_ms + RETRY_WAIT_MS / 10);
}

bool hp_agent_fetch_reserve(struct hp_agent *agent, struct hp_agent_fetch *fetch)
{
    HP_ASSERT(!fetch->counted);
    bool fits =
        agent->fetch_bytes == 0 || agent->fetch_bytes + fetch->size <= agent->config.blob_bytes_max;
    if (!fits) {
        wait_for_room(agent, fetch);
        return false;
    }
    agent->fetch_bytes += fetch->size;
    fetch->counted = true;
    return true;
}

/* Room for the payload, once its size is known. False: not now. */
static bool make_room(struct hp_agent *agent, struct hp_agent_fetch *fetch)
{
    if (fetch->data != NULL) {
        return true;
    }
    if (!hp_agent_fetch_reserve(agent, fetch)) {
        return false;
    }
    fetch->data = hp_alloc(fetch->size);
    if (fetch->data == NULL) {
        hp_agent_fetch_unreserve(agent, fetch);
        wait_for_room(agent, fetch);
    }
    return fetch->data != NULL;
}

enum chunk { CHUNK_MORE, CHUNK_LAST, CHUNK_ODD };

static enum chunk take_chunk(struct hp_agent *agent, struct hp_agent_fetch *fetch,
                             const struct hp_msg_blob_get_reply *get)
{
    bool odd = get->size > HP_LIMIT_BLOB_BYTES || fetch->got + get->data.size > get->size ||
               (get->data.size == 0 && fetch->got < get->size) ||
               (fetch->sized && fetch->size != get->size);
    if (odd) {
        return CHUNK_ODD;
    }
    fetch->sized = true;
    fetch->size = get->size;
    fetch->digest = get->digest;
    if (!make_room(agent, fetch)) {
        return CHUNK_MORE;
    }
    if (get->data.size > 0) {
        memcpy(fetch->data + fetch->got, get->data.data, get->data.size);
    }
    fetch->got += get->data.size;
    return fetch->got == fetch->size ? CHUNK_LAST : CHUNK_MORE;
}

static void on_get_reply(struct hp_agent *agent, struct hp_agent_rpc *rpc,
                         const struct hp_rpc *reply)
{
    agent->get_calls--;
    uint64_t key = rpc->key;
    uint64_t pool = rpc->pool;
    struct hp_agent_fetch *fetch = hp_agent_fetch_find(agent, key, pool);
    if (fetch == NULL) {
        return;
    }
    fetch->asked = false;
    if (reply->failed) {
        hp_agent_fetch_failed(agent, key, pool, &reply->failure);
        return;
    }
    struct hp_msg_blob_get_reply get;
    struct hp_error error = {0};
    if (hp_msg_blob_get_reply_decode(reply->result, &agent->arena, &get, &error) != HP_OK) {
        hp_agent_link_close(agent, "%s", error.text);
        return;
    }
    enum chunk chunk = take_chunk(agent, fetch, &get);
    if (chunk == CHUNK_ODD) {
        fetch_lost(agent, fetch, key, pool, "the payload blob changed its size");
    } else if (chunk == CHUNK_LAST && XXH3_64bits(fetch->data, fetch->size) != fetch->digest) {
        fetch_lost(agent, fetch, key, pool,
                   pool == 0 ? "the payload failed its digest" : "its payload is damaged");
    } else if (chunk == CHUNK_LAST) {
        hp_agent_fetch_done(agent, key, pool);
    }
}

void hp_agent_on_blob_reply(struct hp_agent *agent, struct hp_agent_rpc *rpc,
                            const struct hp_rpc *reply)
{
    if (rpc->method == HP_METHOD_BLOB_GET) {
        on_get_reply(agent, rpc, reply);
    } else {
        on_upload_reply(agent, rpc, reply);
    }
}
