/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The connection to the broker: frames in, calls out, reconnects with backoff.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "worker/core/state.h"

#define GREETING_MS 10000u /* for the answers to hello and worker.register */
#define BACKOFF_BASE_MS 100u
#define BACKOFF_CAP_MS 5000u
#define FAILURES_PER_LINE 16u /* of connects: a broker that is away must not fill the log */
#define INPUT_SLICE_BYTES (256u * 1024u)

/* --------------------------------------------------------------------------------------- calls */

struct hp_agent_rpc *hp_agent_rpc_begin(struct hp_agent *agent, enum hp_method method)
{
    /* Bulk calls leave room for the heartbeat and the registration. */
    bool vital = method == HP_METHOD_WORKER_HEARTBEAT || method == HP_METHOD_WORKER_REGISTER;
    if (agent->rpc_count + (vital ? 0u : 4u) >= HP_AGENT_RPC_MAX) {
        return NULL;
    }
    struct hp_agent_rpc *rpc = agent->rpcs;
    while (rpc->used) {
        rpc++;
        HP_ASSERT(rpc < agent->rpcs + HP_AGENT_RPC_MAX);
    }
    *rpc = (struct hp_agent_rpc){
        .used = true, .msgid = agent->next_msgid++, .method = method, .sent_ms = agent->now_ms};
    hp_list_init(&rpc->runs);
    agent->rpc_count++;
    enum hp_err err = hp_rpc_put_request(&agent->tx, rpc->msgid, method);
    HP_ASSERT(err == HP_OK); /* the flow control keeps the output far below its limit */
    return rpc;
}

void hp_agent_rpc_params(struct hp_agent *agent, const struct hp_codec_desc *desc,
                         const void *params)
{
    enum hp_err err = hp_codec_encode(desc, &agent->tx, params, NULL);
    HP_ASSERT(err == HP_OK);
}

void hp_agent_rpc_free(struct hp_agent *agent, struct hp_agent_rpc *rpc)
{
    HP_ASSERT(rpc->used && hp_list_is_empty(&rpc->runs));
    if (rpc->method == HP_METHOD_WORKER_DONE) {
        agent->done_calls--;
    }
    rpc->used = false;
    agent->rpc_count--;
}

void hp_agent_notify(struct hp_agent *agent, enum hp_method method,
                     const struct hp_codec_desc *desc, const void *params)
{
    enum hp_err err = hp_rpc_put_notify(&agent->tx, method);
    HP_ASSERT(err == HP_OK);
    hp_agent_rpc_params(agent, desc, params);
}

/* ------------------------------------------------------------------------------- up and down */

void hp_agent_link_close(struct hp_agent *agent, const char *format, ...)
{
    if (agent->closing || agent->link == HP_AGENT_LINK_OFF) {
        return;
    }
    agent->closing = true;
    char *text = hp_agent_fx_alloc(agent, HP_ERROR_TEXT_BYTES);
    va_list args;
    va_start(args, format);
    if (vsnprintf(text, HP_ERROR_TEXT_BYTES, format, args) < 0) {
        text[0] = '\0';
    }
    va_end(args);
    hp_agent_effect_add(agent, HP_AGENT_CLOSE)->text = text;
    hp_agent_log(agent, HP_AGENT_LOG_WARN, "connection closed: %s", text);
}

void hp_agent_link_down(struct hp_agent *agent)
{
    agent->closing = false;
    if (agent->link == HP_AGENT_LINK_OFF) {
        return;
    }
    agent->link = HP_AGENT_LINK_OFF;
    hp_buf_clear(&agent->rx);
    hp_buf_shrink(&agent->rx);
    hp_buf_clear(&agent->tx);
    hp_agent_done_requeue(agent);
    hp_agent_blobs_link_down(agent);
    for (uint32_t i = 0; i < HP_AGENT_RPC_MAX; i++) {
        if (agent->rpcs[i].used) {
            hp_agent_rpc_free(agent, &agent->rpcs[i]);
        }
    }
    agent->heartbeat_open = false;
    agent->register_open = false;
    agent->done_hold_ms = 0;
    agent->blob_hold_ms = 0;
    uint32_t shift = HP_MIN(agent->failures, 6u);
    uint64_t delay_ms = HP_MIN((uint64_t)BACKOFF_BASE_MS << shift, (uint64_t)BACKOFF_CAP_MS);
    agent->connect_at_ms =
        agent->now_ms + delay_ms / 2 + hp_rand_uniform(&agent->rand, delay_ms / 2);
    agent->failures++;
    hp_agent_spool_ended(agent);
}

void hp_agent_link_tick(struct hp_agent *agent)
{
    if (agent->link == HP_AGENT_LINK_OFF) {
        if (agent->now_ms >= agent->connect_at_ms && !agent->exited) {
            agent->link = HP_AGENT_LINK_CONNECTING;
            (void)hp_agent_effect_add(agent, HP_AGENT_CONNECT);
        }
        return;
    }
    uint64_t patience_ms = HP_MAX(agent->lease_ms / 2, (uint64_t)1);
    for (uint32_t i = 0; i < HP_AGENT_RPC_MAX && !agent->closing; i++) {
        const struct hp_agent_rpc *rpc = &agent->rpcs[i];
        if (!rpc->used) {
            continue;
        }
        uint64_t age_ms = agent->now_ms - rpc->sent_ms;
        bool greets = rpc->method == HP_METHOD_HELLO || rpc->method == HP_METHOD_WORKER_REGISTER;
        if ((greets && age_ms >= GREETING_MS) ||
            (rpc->method == HP_METHOD_WORKER_HEARTBEAT && age_ms >= patience_ms)) {
            hp_agent_link_close(agent, "the broker does not answer");
        }
    }
    if (agent->link == HP_AGENT_LINK_UP && !agent->closing && !agent->heartbeat_open &&
        agent->now_ms >= agent->next_heartbeat_ms) {
        hp_agent_send_heartbeat(agent);
    }
}

uint64_t hp_agent_link_deadline_ms(const struct hp_agent *agent)
{
    if (agent->link == HP_AGENT_LINK_OFF) {
        return agent->exited ? HP_AGENT_NEVER : agent->connect_at_ms;
    }
    uint64_t at_ms = HP_AGENT_NEVER;
    for (uint32_t i = 0; i < HP_AGENT_RPC_MAX; i++) {
        const struct hp_agent_rpc *rpc = &agent->rpcs[i];
        if (rpc->used && rpc->method == HP_METHOD_WORKER_HEARTBEAT) {
            at_ms = HP_MIN(at_ms, rpc->sent_ms + HP_MAX(agent->lease_ms / 2, (uint64_t)1));
        } else if (rpc->used &&
                   (rpc->method == HP_METHOD_HELLO || rpc->method == HP_METHOD_WORKER_REGISTER)) {
            at_ms = HP_MIN(at_ms, rpc->sent_ms + GREETING_MS);
        }
    }
    if (agent->link == HP_AGENT_LINK_UP && !agent->heartbeat_open) {
        at_ms = HP_MIN(at_ms, agent->next_heartbeat_ms);
    }
    if (agent->link >= HP_AGENT_LINK_FLUSH) {
        bool held = !hp_list_is_empty(&agent->ready) && agent->done_hold_ms > agent->now_ms;
        at_ms = held ? HP_MIN(at_ms, agent->done_hold_ms) : at_ms;
        bool blobs =
            agent->state_count[HP_AGENT_UPLOADING] + agent->state_count[HP_AGENT_FETCHING] > 0;
        at_ms = blobs && agent->blob_hold_ms > agent->now_ms ? HP_MIN(at_ms, agent->blob_hold_ms)
                                                             : at_ms;
    }
    return at_ms;
}

/* --------------------------------------------------------------------------------------- frames */

static void on_reply(struct hp_agent *agent, struct hp_agent_rpc *rpc, const struct hp_rpc *reply)
{
    switch ((int)rpc->method) { /* an int: the other methods are not called by an agent */
    case HP_METHOD_HELLO:
        hp_agent_on_hello_reply(agent, reply);
        break;
    case HP_METHOD_WORKER_REGISTER:
        agent->register_open = false;
        hp_agent_on_register_reply(agent, rpc->sent_ms, reply);
        break;
    case HP_METHOD_WORKER_HEARTBEAT:
        agent->heartbeat_open = false;
        hp_agent_on_heartbeat_reply(agent, rpc->sent_ms, reply);
        break;
    case HP_METHOD_WORKER_DONE:
        hp_agent_on_done_reply(agent, rpc, reply);
        break;
    case HP_METHOD_BLOB_OPEN:
    case HP_METHOD_BLOB_PUT:
    case HP_METHOD_BLOB_GET:
        hp_agent_on_blob_reply(agent, rpc, reply);
        break;
    case HP_METHOD_BLOB_GIVE:
    case HP_METHOD_BLOB_LEND:
        hp_agent_on_near_reply(agent, rpc, reply);
        break;
    default: /* worker.release: what it says changes nothing here */
        break;
    }
}

static enum hp_err on_response(struct hp_agent *agent, const struct hp_rpc *reply,
                               struct hp_error *reterr)
{
    for (uint32_t i = 0; i < HP_AGENT_RPC_MAX; i++) {
        struct hp_agent_rpc *rpc = &agent->rpcs[i];
        if (rpc->used && rpc->msgid == reply->msgid) {
            on_reply(agent, rpc, reply);
            if (!agent->closing) {
                hp_agent_rpc_free(agent, rpc);
            }
            return HP_OK;
        }
    }
    return hp_error_set(reterr, HP_ERR_PROTOCOL, "an answer to a call that was never made");
}

static enum hp_err on_notify(struct hp_agent *agent, const struct hp_rpc *notify,
                             struct hp_error *reterr)
{
    if (agent->link < HP_AGENT_LINK_REGISTERING) {
        return hp_error_set(reterr, HP_ERR_PROTOCOL, "orders before the registration");
    }
    if (notify->method == HP_METHOD_WORKER_ASSIGN) {
        struct hp_msg_worker_assign assign;
        enum hp_err err =
            hp_msg_worker_assign_decode(notify->params, &agent->arena, &assign, reterr);
        return err != HP_OK ? err : hp_agent_on_assign(agent, &assign, reterr);
    }
    if (notify->method == HP_METHOD_WORKER_CONTROL) {
        struct hp_msg_worker_control control;
        enum hp_err err =
            hp_msg_worker_control_decode(notify->params, &agent->arena, &control, reterr);
        if (err == HP_OK) {
            hp_agent_on_control(agent, &control);
        }
        return err;
    }
    if (notify->method == HP_METHOD_WORKER_POOL) {
        struct hp_msg_worker_pool pool;
        enum hp_err err = hp_msg_worker_pool_decode(notify->params, &agent->arena, &pool, reterr);
        if (err == HP_OK) {
            hp_agent_on_pool(agent, &pool);
        }
        return err;
    }
    return HP_OK; /* of a later version */
}

enum hp_err hp_agent_on_frame(struct hp_agent *agent, const uint8_t *data, size_t size,
                              struct hp_error *reterr)
{
    struct hp_rpc rpc;
    hp_arena_reset(&agent->arena);
    enum hp_err err = hp_rpc_read(agent->wire, data, size, &rpc, reterr);
    if (err != HP_OK) {
        return err;
    }
    switch (rpc.type) {
    case HP_RPC_RESPONSE:
        return on_response(agent, &rpc, reterr);
    case HP_RPC_NOTIFY:
        return on_notify(agent, &rpc, reterr);
    case HP_RPC_REQUEST:
    default:
        return hp_rpc_put_error(&agent->tx, rpc.msgid, HP_RPC_ERROR_UNKNOWN_METHOD,
                                HP_STR("a worker answers no calls"), false, 0);
    }
}

/* Handles the whole frames in the buffer. */
static void eat_frames(struct hp_agent *agent)
{
    while (!agent->closing && agent->rx.size > 0) {
        size_t frame_size = 0;
        const char *why = NULL;
        enum hp_tok_status status =
            hp_tok_scan(&agent->tok, agent->rx.data, agent->rx.size, &frame_size, &why);
        if (status == HP_TOK_NEED_MORE) {
            return;
        }
        struct hp_error error = {0};
        if (status == HP_TOK_BAD) {
            hp_agent_link_close(agent, "bad frame: %s", why);
            return;
        }
        if (hp_agent_on_frame(agent, agent->rx.data, frame_size, &error) != HP_OK) {
            hp_agent_link_close(agent, "bad message: %s", error.text);
            return;
        }
        if (agent->closing) {
            return; /* the buffer may be gone */
        }
        hp_buf_consume(&agent->rx, frame_size);
        hp_tok_reset(&agent->tok);
    }
}

void hp_agent_received(struct hp_agent *agent, const uint8_t *data, size_t size, uint64_t now_ms)
{
    agent->now_ms = HP_MAX(agent->now_ms, now_ms);
    if (agent->link < HP_AGENT_LINK_HELLO) {
        return; /* bytes of a connection that was closed meanwhile */
    }
    while (size > 0 && !agent->closing) {
        size_t slice = HP_MIN(size, (size_t)INPUT_SLICE_BYTES);
        if (hp_buf_append(&agent->rx, data, slice) != HP_OK) {
            hp_agent_link_close(agent, "no memory for a frame");
            break;
        }
        data += slice;
        size -= slice;
        eat_frames(agent);
    }
    hp_agent_tick(agent, agent->now_ms);
}

void hp_agent_connected(struct hp_agent *agent, uint64_t now_ms)
{
    agent->now_ms = HP_MAX(agent->now_ms, now_ms);
    if (agent->link != HP_AGENT_LINK_CONNECTING) {
        return;
    }
    agent->link = HP_AGENT_LINK_HELLO;
    hp_tok_init(&agent->tok, &hp_tok_limits_open);
    hp_agent_send_hello(agent);
    hp_agent_tick(agent, agent->now_ms);
}

void hp_agent_disconnected(struct hp_agent *agent, const char *why, uint64_t now_ms)
{
    agent->now_ms = HP_MAX(agent->now_ms, now_ms);
    if (agent->link == HP_AGENT_LINK_OFF) {
        return;
    }
    if (agent->link != HP_AGENT_LINK_CONNECTING) {
        hp_agent_log(agent, HP_AGENT_LOG_WARN, "connection to the broker lost: %s", why);
    } else if (agent->failures % FAILURES_PER_LINE == 0) {
        hp_agent_log(agent, HP_AGENT_LOG_WARN, "no connection to the broker: %s", why);
    }
    hp_agent_link_down(agent);
    hp_agent_tick(agent, agent->now_ms);
}
