/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Large bytes over the agent's own connection: results up, payloads down, in chunks, a few calls in
 * flight, so that heartbeats never wait behind more than a few chunks.
 */
#include <string.h>

#include <xxhash.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "worker/core/state.h"

#define PUT_CALLS_MAX 4u
#define GET_CALLS_MAX 4u
#define RETRY_WAIT_MS 1000u

void hp_agent_fetch_free(struct hp_agent *agent, struct hp_agent_run *run)
{
    struct hp_agent_fetch *fetch = run->fetch;
    if (fetch->data != NULL) {
        HP_ASSERT(agent->fetch_bytes >= fetch->size);
        agent->fetch_bytes -= fetch->size;
        hp_free(fetch->data);
    }
    hp_free(fetch);
    run->fetch = NULL;
    run->payload = NULL;
    run->payload_size = 0;
}

void hp_agent_parts_free(struct hp_agent_run *run)
{
    if (run->parts == NULL) {
        return;
    }
    for (uint32_t i = 0; i < run->parts->count; i++) {
        hp_free(run->parts->item[i].data);
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
        HP_LIST_ENTRY(node, struct hp_agent_run, link)->fetch->asked = false;
    }
    HP_LIST_FOR_EACH (node, &agent->crews) {
        struct hp_agent_crew *crew = HP_LIST_ENTRY(node, struct hp_agent_crew, link);
        if (crew->fetch != NULL) {
            crew->fetch->asked = false;
        }
    }
    agent->put_calls = 0;
    agent->get_calls = 0;
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

/* One run at a time, its parts in order. */
static void pump_uploads(struct hp_agent *agent)
{
    struct hp_list *node = hp_list_first(&agent->uploading);
    bool open = agent->link >= HP_AGENT_LINK_FLUSH;
    if (node == NULL || !open || agent->now_ms < agent->blob_hold_ms) {
        return;
    }
    struct hp_agent_run *run = HP_LIST_ENTRY(node, struct hp_agent_run, link);
    for (uint32_t i = 0; i < run->parts->count; i++) {
        struct hp_agent_part *part = &run->parts->item[i];
        if (part->stored) {
            continue;
        }
        if (!part->asked) {
            send_open(agent, run, i);
        }
        while (part->blob != 0 && part->sent < part->size && agent->put_calls < PUT_CALLS_MAX &&
               agent->tx.size < HP_AGENT_OUTPUT_BUSY_BYTES) {
            if (!send_put(agent, run, i)) {
                return;
            }
        }
        return;
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
    hp_agent_parts_free(run);
    run->reason = HP_REASON_RESULT_TOO_BIG;
    hp_agent_run_advance(agent, run);
}

static void upload_failed(struct hp_agent *agent, struct hp_agent_run *run,
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
        upload_failed(agent, run, part, &reply->failure);
    } else if (is_open) {
        on_open_reply(agent, part, reply);
    } else if (rpc->last) {
        part->stored = true;
        bool all = true;
        for (uint32_t i = 0; i < run->parts->count; i++) {
            all = all && run->parts->item[i].stored;
        }
        if (all) {
            name_blobs(agent, run);
            hp_agent_run_advance(agent, run);
        }
    }
}

/* ------------------------------------------------------------------------------------ download */

/* For a run's payload, or for that of a pool (key 0). */
static void send_get(struct hp_agent *agent, struct hp_agent_fetch *fetch, uint64_t key,
                     uint64_t pool)
{
    struct hp_agent_rpc *rpc = hp_agent_rpc_begin(agent, HP_METHOD_BLOB_GET);
    if (rpc == NULL) {
        return;
    }
    rpc->key = key;
    rpc->pool = pool;
    struct hp_msg_blob_get get = {.has = HP_HAS_BLOB_GET_BLOB | HP_HAS_BLOB_GET_OFFSET,
                                  .blob = fetch->blob,
                                  .offset = fetch->got};
    hp_agent_rpc_params(agent, &hp_desc_msg_blob_get, &get);
    fetch->asked = true;
    agent->get_calls++;
}

static void pump_fetches(struct hp_agent *agent)
{
    if (agent->link != HP_AGENT_LINK_UP || agent->now_ms < agent->blob_hold_ms) {
        return;
    }
    HP_LIST_FOR_EACH (node, &agent->crews) {
        struct hp_agent_crew *crew = HP_LIST_ENTRY(node, struct hp_agent_crew, link);
        bool wants = crew->fetch != NULL && !crew->ready && !crew->fetch->asked;
        if (wants && agent->now_ms >= crew->fetch->wait_until_ms) {
            send_get(agent, crew->fetch, 0, crew->pool);
        }
    }
    HP_LIST_FOR_EACH (node, &agent->fetching) {
        struct hp_agent_run *run = HP_LIST_ENTRY(node, struct hp_agent_run, link);
        if (agent->get_calls >= GET_CALLS_MAX) {
            return;
        }
        if (!run->fetch->asked && agent->now_ms >= run->fetch->wait_until_ms) {
            send_get(agent, run->fetch, run->key, 0);
        }
    }
}

void hp_agent_blobs_pump(struct hp_agent *agent)
{
    pump_uploads(agent);
    pump_fetches(agent);
}

static void fetched(struct hp_agent *agent, struct hp_agent_run *run)
{
    struct hp_agent_fetch *fetch = run->fetch;
    if (XXH3_64bits(fetch->data, fetch->size) != fetch->digest) {
        hp_agent_end_unstarted(agent, run, HP_REASON_DAMAGED, "the payload failed its digest");
        return;
    }
    run->payload = fetch->data;
    run->payload_size = (uint32_t)fetch->size;
    run->seq = agent->next_seq++;
    struct hp_agent_crew *crew = run->parcel->crew;
    hp_agent_run_move(agent, run, HP_AGENT_WAITING,
                      crew == NULL ? &agent->commands : &crew->waiting, false);
}

/* Room for the payload, once its size is known. False: not now. */
static bool make_room(struct hp_agent *agent, struct hp_agent_fetch *fetch)
{
    if (fetch->data != NULL) {
        return true;
    }
    bool fits =
        agent->fetch_bytes == 0 || agent->fetch_bytes + fetch->size <= agent->config.blob_bytes_max;
    fetch->data = fits ? hp_alloc(fetch->size) : NULL;
    if (fetch->data == NULL) {
        fetch->wait_until_ms = agent->now_ms + RETRY_WAIT_MS;
        agent->blob_hold_ms = HP_MAX(agent->blob_hold_ms, agent->now_ms + RETRY_WAIT_MS / 10);
        return false;
    }
    agent->fetch_bytes += fetch->size;
    return true;
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

/* What a pool's children are set up with. */
static void on_pool_chunk(struct hp_agent *agent, struct hp_agent_crew *crew,
                          const struct hp_msg_blob_get_reply *get, const char *why)
{
    struct hp_agent_fetch *fetch = crew->fetch;
    enum chunk chunk = why == NULL ? take_chunk(agent, fetch, get) : CHUNK_ODD;
    if (chunk == CHUNK_LAST && XXH3_64bits(fetch->data, fetch->size) != fetch->digest) {
        chunk = CHUNK_ODD;
    }
    if (chunk == CHUNK_ODD) {
        fetch->wait_until_ms = HP_AGENT_NEVER;
        hp_agent_crew_fetched(agent, crew, why != NULL ? why : "its payload is damaged");
    } else if (chunk == CHUNK_LAST) {
        hp_agent_crew_fetched(agent, crew, NULL);
    }
}

static void on_get_reply(struct hp_agent *agent, struct hp_agent_rpc *rpc,
                         const struct hp_rpc *reply)
{
    agent->get_calls--;
    struct hp_agent_crew *crew = rpc->pool != 0 ? hp_agent_crew_find(agent, rpc->pool) : NULL;
    struct hp_agent_run *run = rpc->pool != 0 ? NULL : hp_agent_run_get(agent, rpc->key);
    struct hp_agent_fetch *fetch = crew != NULL ? crew->fetch : NULL;
    if (run != NULL && run->state == HP_AGENT_FETCHING) {
        fetch = run->fetch;
    }
    if (fetch == NULL) {
        return;
    }
    fetch->asked = false;
    static const char missing[] = "the payload blob is missing or damaged at the broker";
    if (reply->failed) {
        enum hp_rpc_error_code code = reply->failure.code;
        bool is_final = code == HP_RPC_ERROR_NOT_FOUND || code == HP_RPC_ERROR_DAMAGED;
        if (is_final && crew != NULL) {
            on_pool_chunk(agent, crew, NULL, missing);
        } else if (is_final) {
            hp_agent_end_unstarted(agent, run, HP_REASON_DAMAGED, missing);
        } else {
            fetch->wait_until_ms = agent->now_ms + RETRY_WAIT_MS;
            agent->blob_hold_ms = agent->now_ms + RETRY_WAIT_MS;
        }
        return;
    }
    struct hp_msg_blob_get_reply get;
    struct hp_error error = {0};
    if (hp_msg_blob_get_reply_decode(reply->result, &agent->arena, &get, &error) != HP_OK) {
        hp_agent_link_close(agent, "%s", error.text);
        return;
    }
    if (crew != NULL) {
        on_pool_chunk(agent, crew, &get, NULL);
        return;
    }
    enum chunk chunk = take_chunk(agent, fetch, &get);
    if (chunk == CHUNK_ODD) {
        hp_agent_end_unstarted(agent, run, HP_REASON_DAMAGED, "the payload blob changed its size");
    } else if (chunk == CHUNK_LAST) {
        fetched(agent, run);
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
