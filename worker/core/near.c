/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Large bytes by descriptor, where the broker is on this host: results are sealed and given,
 * payloads are lent and opened. The shell opens and seals (NEAR_* effects); what it answers, and
 * what the broker does, decides here which way the bytes go. The other way, by chunks, is always
 * there: whatever fails leads to it, for that blob; what fails again and again, for the rest of
 * the connection.
 */
#include <string.h>

#include "common/base/assert.h"
#include "worker/core/state.h"

#define FAILURES_MAX 4u /* in a row: as with a volume that is full, others may still go through */

/* --------------------------------------------------------------------------------------- files */

void hp_agent_file_free(struct hp_agent *agent, struct hp_agent_file *file)
{
    if (file == NULL) {
        return;
    }
    if (agent->effect_count == 0) {
        file->free(file);
        return;
    }
    file->next = agent->freed_files;
    agent->freed_files = file;
}

void hp_agent_files_sweep(struct hp_agent *agent)
{
    while (agent->freed_files != NULL) {
        struct hp_agent_file *file = agent->freed_files;
        agent->freed_files = file->next;
        file->free(file);
    }
}

/* ---------------------------------------------------------------------------------- connection */

/* The broker offers it: is it the process that it says it is, and in our reach? */
void hp_agent_near_hello(struct hp_agent *agent, const struct hp_msg_hello_reply *hello)
{
    bool offered = hello->near_key.size == HP_AGENT_NEAR_KEY_BYTES &&
                   hello->near_proof.size == HP_AGENT_NEAR_KEY_BYTES && hello->near_pid != 0;
    if (!offered || !agent->config.near) {
        return;
    }
    struct hp_agent_near *near = &agent->near;
    memcpy(near->key, hello->near_key.data, HP_AGENT_NEAR_KEY_BYTES);
    near->state = HP_AGENT_NEAR_PROVING;
    struct hp_agent_effect *effect = hp_agent_effect_add(agent, HP_AGENT_NEAR_PROVE);
    effect->ticket = near->ticket;
    effect->place = (struct hp_agent_place){.pid = hello->near_pid, .fd = hello->near_fd};
    memcpy(effect->near_key, hello->near_proof.data, HP_AGENT_NEAR_KEY_BYTES);
}

void hp_agent_near_link_down(struct hp_agent *agent)
{
    agent->near = (struct hp_agent_near){.ticket = agent->near.ticket + 1};
}

/* --------------------------------------------------------------------------------------- giving */

bool hp_agent_may_give(const struct hp_agent *agent, const struct hp_agent_part *part)
{
    return agent->near.state != HP_AGENT_NEAR_OFF && part->file != NULL && !part->by_put &&
           agent->near.give_refusals < FAILURES_MAX;
}

bool hp_agent_give(struct hp_agent *agent, struct hp_agent_run *run, uint32_t index)
{
    if (agent->near.state != HP_AGENT_NEAR_ON) {
        return false;
    }
    struct hp_agent_part *part = &run->parts->item[index];
    struct hp_agent_effect *effect = hp_agent_effect_add(agent, HP_AGENT_NEAR_SEAL);
    effect->key = run->key;
    effect->ticket = agent->near.ticket;
    effect->file = part->file;
    effect->size = part->size;
    memcpy(effect->near_key, agent->near.key, HP_AGENT_NEAR_KEY_BYTES);
    part->asked = true;
    agent->near.give_calls++;
    return true;
}

/* The run whose part is being given, and that part; NULL: it is wanted no more. */
static struct hp_agent_run *giving_run(struct hp_agent *agent, uint64_t key,
                                       struct hp_agent_part **ret_part)
{
    struct hp_agent_run *run = hp_agent_run_get(agent, key);
    if (run == NULL || run->state != HP_AGENT_UPLOADING) {
        return NULL;
    }
    for (uint32_t i = 0; i < run->parts->count; i++) {
        struct hp_agent_part *part = &run->parts->item[i];
        if (part->file != NULL && part->asked && !part->stored && !part->by_put) {
            *ret_part = part;
            return run;
        }
    }
    return NULL;
}

/* It goes by chunks instead. */
static void give_up(struct hp_agent_part *part)
{
    part->asked = false;
    part->by_put = true;
}

static void on_sealed(struct hp_agent *agent, const struct hp_agent_event *event)
{
    struct hp_agent_part *part = NULL;
    const struct hp_agent_run *run = giving_run(agent, event->key, &part);
    struct hp_agent_rpc *rpc = NULL;
    if (run != NULL && event->on) {
        rpc = hp_agent_rpc_begin(agent, HP_METHOD_BLOB_GIVE);
    }
    if (rpc == NULL) {
        agent->near.give_calls--;
        if (run != NULL) {
            give_up(part);
        }
        return;
    }
    rpc->key = event->key;
    struct hp_msg_blob_give give = {
        .has = HP_HAS_BLOB_GIVE_SIZE | HP_HAS_BLOB_GIVE_DURABLE | HP_HAS_BLOB_GIVE_PID |
               HP_HAS_BLOB_GIVE_FD | HP_HAS_BLOB_GIVE_DEVICE | HP_HAS_BLOB_GIVE_INODE,
        .size = part->size,
        .durable = run->parcel == NULL || run->parcel->durable,
        .pid = event->place.pid,
        .fd = event->place.fd,
        .device = event->place.device,
        .inode = event->place.inode,
    };
    hp_agent_rpc_params(agent, &hp_desc_msg_blob_give, &give);
}

/* Whether the content may go another way; else it is as with blob.open and blob.get. */
static bool is_about_the_way(enum hp_rpc_error_code code)
{
    return code == HP_RPC_ERROR_UNSUPPORTED || code == HP_RPC_ERROR_NOT_FOUND ||
           code == HP_RPC_ERROR_DENIED || code == HP_RPC_ERROR_BAD_REQUEST ||
           code == HP_RPC_ERROR_UNKNOWN_METHOD || code == HP_RPC_ERROR_NONE;
}

static void on_give_reply(struct hp_agent *agent, struct hp_agent_rpc *rpc,
                          const struct hp_rpc *reply)
{
    struct hp_agent_part *part = NULL;
    agent->near.give_calls--;
    struct hp_agent_run *run = giving_run(agent, rpc->key, &part);
    if (reply->failed) {
        bool way = is_about_the_way(reply->failure.code);
        agent->near.give_refusals += way;
        if (run != NULL && way) {
            give_up(part);
        } else if (run != NULL) {
            hp_agent_part_refused(agent, run, part, &reply->failure);
        }
        return;
    }
    agent->near.give_refusals = 0;
    struct hp_msg_blob_give_reply given;
    struct hp_error error = {0};
    if (hp_msg_blob_give_reply_decode(reply->result, &agent->arena, &given, &error) != HP_OK ||
        given.blob == 0) {
        hp_agent_link_close(agent, "blob.give: %s", error.text);
        return;
    }
    if (run != NULL) {
        part->blob = given.blob;
        part->stored = true;
        hp_agent_part_stored(agent, run);
    }
}

/* -------------------------------------------------------------------------------------- lending */

bool hp_agent_may_lend(const struct hp_agent *agent, const struct hp_agent_fetch *fetch)
{
    /* Not in the middle: what has come by chunks is not fetched again. */
    return agent->near.state != HP_AGENT_NEAR_OFF && !fetch->by_get && fetch->data == NULL &&
           agent->near.open_failures < FAILURES_MAX;
}

bool hp_agent_lend(struct hp_agent *agent, struct hp_agent_fetch *fetch, uint64_t key,
                   uint64_t pool)
{
    if (agent->near.state != HP_AGENT_NEAR_ON) {
        return false;
    }
    struct hp_agent_rpc *rpc = hp_agent_rpc_begin(agent, HP_METHOD_BLOB_LEND);
    if (rpc == NULL) {
        return false;
    }
    rpc->key = key;
    rpc->pool = pool;
    struct hp_msg_blob_lend lend = {.has = HP_HAS_BLOB_LEND_BLOB, .blob = fetch->blob};
    hp_agent_rpc_params(agent, &hp_desc_msg_blob_lend, &lend);
    fetch->asked = true;
    agent->near.lend_calls++;
    return true;
}

static void open_lent(struct hp_agent *agent, const struct hp_agent_rpc *rpc,
                      struct hp_agent_fetch *fetch, const struct hp_msg_blob_lend_reply *lent)
{
    struct hp_agent_effect *effect = hp_agent_effect_add(agent, HP_AGENT_NEAR_OPEN);
    effect->key = rpc->key;
    effect->pool = rpc->pool;
    effect->ticket = agent->near.ticket;
    effect->place = (struct hp_agent_place){
        .pid = lent->pid, .fd = lent->fd, .device = lent->device, .inode = lent->inode};
    effect->size = lent->size;
    effect->has_digest = (lent->has & HP_HAS_BLOB_LEND_REPLY_DIGEST) != 0;
    effect->digest = lent->digest;
    fetch->asked = true;
    agent->near.lend_calls++;
}

static void on_lend_reply(struct hp_agent *agent, const struct hp_agent_rpc *rpc,
                          const struct hp_rpc *reply)
{
    agent->near.lend_calls--;
    struct hp_agent_fetch *fetch = hp_agent_fetch_find(agent, rpc->key, rpc->pool);
    if (fetch == NULL) {
        return;
    }
    fetch->asked = false;
    if (reply->failed) {
        enum hp_rpc_error_code code = reply->failure.code;
        if (is_about_the_way(code) && code != HP_RPC_ERROR_NOT_FOUND) {
            fetch->by_get = true; /* as the broker has this one in memory: others it can lend */
        } else {
            hp_agent_fetch_failed(agent, rpc->key, rpc->pool, &reply->failure);
        }
        return;
    }
    struct hp_msg_blob_lend_reply lent;
    struct hp_error error = {0};
    if (hp_msg_blob_lend_reply_decode(reply->result, &agent->arena, &lent, &error) != HP_OK ||
        lent.size == 0 || lent.size > HP_LIMIT_BLOB_BYTES) {
        hp_agent_link_close(agent, "blob.lend: %s", error.text);
        return;
    }
    fetch->sized = true;
    fetch->size = lent.size;
    if (hp_agent_fetch_reserve(agent, fetch)) {
        open_lent(agent, rpc, fetch, &lent);
    }
}

static void on_opened(struct hp_agent *agent, const struct hp_agent_event *event)
{
    agent->near.lend_calls--;
    struct hp_agent_fetch *fetch = hp_agent_fetch_find(agent, event->key, event->pool);
    bool opened = event->file != NULL;
    if (opened) {
        agent->near.open_failures = 0;
    } else if (!event->on && ++agent->near.open_failures == FAILURES_MAX) {
        hp_agent_log(agent, HP_AGENT_LOG_WARN,
                     "the broker's descriptors can not be opened: payloads go by the connection");
    }
    if (fetch == NULL) {
        return;
    }
    fetch->asked = false;
    if (!opened) {
        hp_agent_fetch_unreserve(agent, fetch);
        fetch->by_get = true;
        return;
    }
    fetch->file = event->file;
    agent->event_file = NULL; /* taken */
    hp_agent_fetch_done(agent, event->key, event->pool);
}

/* -------------------------------------------------------------------------------------- answers */

void hp_agent_on_near_reply(struct hp_agent *agent, struct hp_agent_rpc *rpc,
                            const struct hp_rpc *reply)
{
    if (rpc->method == HP_METHOD_BLOB_GIVE) {
        on_give_reply(agent, rpc, reply);
    } else {
        on_lend_reply(agent, rpc, reply);
    }
}

void hp_agent_on_near(struct hp_agent *agent, const struct hp_agent_event *event)
{
    if (event->ticket != agent->near.ticket || agent->near.state == HP_AGENT_NEAR_OFF) {
        return; /* of an earlier connection */
    }
    if (event->kind == HP_AGENT_NEAR_PROVED) {
        agent->near.state = event->on ? HP_AGENT_NEAR_ON : HP_AGENT_NEAR_OFF;
        hp_agent_log(agent, HP_AGENT_LOG_DEBUG, "content goes by %s",
                     event->on ? "descriptor" : "the connection: the broker is not in reach");
    } else if (event->kind == HP_AGENT_NEAR_OPENED) {
        on_opened(agent, event);
    } else {
        on_sealed(agent, event);
    }
}
