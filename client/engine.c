/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The connection as the engine sees it: phases, hello, frames in, bytes out, deadlines. What the
 * frames are about is in submit.c, stage.c, call.c, check.c and event.c.
 *
 * I1: nothing but hello is composed before hello was answered.
 * I2: msgids are unique on a connection; a reply to an unknown one is ignored (its call was given
 *     up). I3: close_wanted stays until hp_engine_closed.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "client/engine_state.h"
#include "common/base/assert.h"
#include "common/base/mem.h"

/* Silence after which a ping is sent while something is expected, and again until giving up. */
#define SILENCE_MS 15000u
/* Pause between checks while tasks of a forgotten session are outstanding. */
#define POLL_MS 5000u

static void set_text(char *out, const char *text)
{
    (void)snprintf(out, HP_ENGINE_TEXT_BYTES, "%s", text);
}

enum hp_status hp_engine_error_set(struct hp_engine *engine, enum hp_status status,
                                   const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(engine->error_text, sizeof(engine->error_text), format, args);
    va_end(args);
    return status;
}

void hp_engine_fail(struct hp_engine *engine, enum hp_status status, const char *format, ...)
{
    va_list args;

    if (engine->close_wanted || engine->phase == HP_PHASE_IDLE) {
        return;
    }
    engine->close_wanted = true;
    engine->close_status = status;
    va_start(args, format);
    (void)vsnprintf(engine->close_text, sizeof(engine->close_text), format, args);
    va_end(args);
}

/* ---------------------------------------------------------------- life */

static void init_parts(struct hp_engine *engine)
{
    hp_buf_init(&engine->in, 2 * HP_LIMIT_FRAME_BYTES + (1u << 20));
    hp_buf_init(&engine->out, HP_ENGINE_OUT_BYTES_MAX);
    hp_tok_init(&engine->tok, &hp_tok_limits_open);
    hp_arena_init(&engine->arena, 64u << 10, SIZE_MAX / 8);
    hp_arena_init(&engine->shared_arena, 4096, SIZE_MAX / 8);
    hp_buf_init(&engine->shared_encoded, HP_LIMIT_FRAME_BYTES);
    hp_arena_init(&engine->scratch, 4096, SIZE_MAX / 8);
    hp_idmap_init(&engine->replies, 0);
    hp_list_init(&engine->submits);
    hp_list_init(&engine->stages);
    hp_list_init(&engine->fetches);
    hp_list_init(&engine->calls);
    hp_list_init(&engine->items);
    hp_track_init(&engine->track);
    engine->unsent = &engine->submits;
    engine->calls_unsent = &engine->calls;
}

static void reset_counters(struct hp_engine *engine, const uint8_t *session, uint64_t seed)
{
    hp_rand_init(&engine->rand, seed);
    memcpy(engine->session, session, HP_SESSION_BYTES);
    engine->next_number = 1;
    engine->applied_number = 0;
    engine->durable_number = 0;
    engine->has_volatile = false;
    engine->early_number = 0;
    engine->id_max = 0;
    engine->hold_until_ms = 0;
    engine->poll_at_ms = HP_ENGINE_NEVER;
    engine->check_full = false;
    engine->retry_count = 0;
    engine->retry_at_ms = engine->now_ms;
    engine->trouble = HP_STATUS_OK;
    engine->trouble_text[0] = '\0';
    engine->busy_text[0] = '\0';
}

struct hp_engine *hp_engine_new(const struct hp_engine_config *config, uint64_t now_ms)
{
    struct hp_engine *engine = hp_calloc(1, sizeof(*engine));

    HP_ASSERT(config->window_submits >= 1 && config->retry_base_ms >= 1);
    if (engine == NULL) {
        return NULL;
    }
    engine->config = *config;
    engine->now_ms = now_ms;
    engine->next_request = 1;
    init_parts(engine);
    reset_counters(engine, config->session, config->seed);
    engine->config.name = hp_strdup(config->name);
    engine->config.token = config->token == NULL ? NULL : hp_strdup(config->token);
    engine->wire = hp_wire_new();
    if (engine->config.name == NULL || engine->wire == NULL ||
        (config->token != NULL && engine->config.token == NULL)) {
        hp_engine_free(engine);
        return NULL;
    }
    return engine;
}

static void drop_everything(struct hp_engine *engine)
{
    hp_stage_clear(engine);
    hp_fetch_clear(engine);
    hp_call_clear(engine);
    hp_submit_clear(engine);
    hp_item_clear(engine);
    hp_track_deinit(&engine->track);
    hp_idmap_deinit(&engine->replies);
    hp_idmap_init(&engine->replies, 0);
    hp_buf_clear(&engine->in);
    hp_buf_clear(&engine->out);
    engine->check_active = false;
    engine->watch_count = 0;
    engine->followed_count = 0;
}

void hp_engine_free(struct hp_engine *engine)
{
    if (engine == NULL) {
        return;
    }
    drop_everything(engine);
    hp_buf_deinit(&engine->in);
    hp_buf_deinit(&engine->out);
    hp_buf_deinit(&engine->shared_encoded);
    hp_arena_deinit(&engine->arena);
    hp_arena_deinit(&engine->shared_arena);
    hp_arena_deinit(&engine->scratch);
    hp_idmap_deinit(&engine->replies);
    hp_wire_free(engine->wire);
    /* Owned copies; the config type has them const for those who fill it in. */
    hp_free((void *)(uintptr_t)engine->config.name);
    hp_free((void *)(uintptr_t)engine->config.token);
    hp_free(engine);
}

void hp_engine_fork(struct hp_engine *engine, const uint8_t session[HP_SESSION_BYTES],
                    uint64_t seed, uint64_t now_ms)
{
    drop_everything(engine);
    engine->phase = HP_PHASE_IDLE;
    engine->close_wanted = false;
    engine->now_ms = now_ms;
    reset_counters(engine, session, seed);
}

/* ---------------------------------------------------------------- phases */

bool hp_engine_wants_connect(const struct hp_engine *engine)
{
    return engine->phase == HP_PHASE_IDLE && engine->now_ms >= engine->retry_at_ms;
}

void hp_engine_connecting(struct hp_engine *engine, uint64_t now_ms)
{
    HP_ASSERT(engine->phase == HP_PHASE_IDLE);
    engine->now_ms = now_ms;
    engine->phase = HP_PHASE_CONNECTING;
    engine->phase_until_ms = now_ms + engine->config.connect_timeout_ms;
}

static enum hp_err put_hello(struct hp_engine *engine)
{
    struct hp_msg_hello hello;
    enum hp_err err;

    hp_msg_hello_init(&hello);
    hello.client = hp_str_of(engine->config.name);
    hello.version = HP_PROTOCOL_VERSION;
    hello.session = hp_bin_make(engine->session, HP_SESSION_BYTES);
    hello.events = engine->config.events;
    hello.error_maps = true;
    hello.near = engine->config.near != NULL;
    hello.has = HP_HAS_HELLO_SESSION | HP_HAS_HELLO_EVENTS | HP_HAS_HELLO_ERROR_MAPS;
    hello.has |= hello.near ? HP_HAS_HELLO_NEAR : 0;
    if (engine->config.token != NULL) {
        hello.token = hp_str_of(engine->config.token);
        hello.has |= HP_HAS_HELLO_TOKEN;
    }
    /* msgid 0 is hello's: it is the first on each connection. */
    err = hp_rpc_put_request(&engine->out, 0, HP_METHOD_HELLO);
    return err == HP_OK ? hp_msg_hello_encode(&engine->out, &hello) : err;
}

void hp_engine_opened(struct hp_engine *engine, uint64_t now_ms)
{
    HP_ASSERT(engine->phase == HP_PHASE_CONNECTING);
    engine->now_ms = now_ms;
    engine->phase = HP_PHASE_HELLO;
    engine->received_at_ms = now_ms;
    engine->ping_sent = false;
    engine->next_msgid = 1;
    hp_buf_clear(&engine->in);
    hp_buf_clear(&engine->out);
    hp_tok_init(&engine->tok, &hp_tok_limits_open);
    if (put_hello(engine) != HP_OK) {
        hp_engine_fail(engine, HP_STATUS_BAD_ARGUMENT, "the client's name or token cannot be sent");
    }
}

/* Will the same happen again, however often it is tried? Then wait the longest at once. */
static bool is_lasting(enum hp_status status)
{
    return status == HP_STATUS_DENIED || status == HP_STATUS_VERSION ||
           status == HP_STATUS_PROTOCOL || status == HP_STATUS_BAD_ARGUMENT;
}

static void schedule_retry(struct hp_engine *engine)
{
    uint64_t cap = engine->config.retry_cap_ms;
    uint64_t delay = engine->config.retry_base_ms;

    for (uint32_t i = 0; i < engine->retry_count && delay < cap; i++) {
        delay *= 2;
    }
    if (is_lasting(engine->trouble)) {
        delay = cap;
    }
    delay = HP_MAX(HP_MIN(delay, cap), 1u);
    engine->retry_count++;
    engine->retry_at_ms =
        engine->now_ms + delay / 2 + hp_rand_uniform(&engine->rand, delay / 2 + 1);
}

void hp_engine_closed(struct hp_engine *engine, enum hp_status status, const char *text,
                      uint64_t now_ms)
{
    bool was_open = engine->phase == HP_PHASE_OPEN;

    HP_ASSERT(engine->phase != HP_PHASE_IDLE);
    engine->now_ms = now_ms;
    engine->trouble = engine->close_wanted ? engine->close_status : status;
    set_text(engine->trouble_text, engine->close_wanted ? engine->close_text : text);
    engine->close_wanted = false;
    engine->phase = HP_PHASE_IDLE;
    hp_buf_clear(&engine->in);
    hp_buf_clear(&engine->out);
    hp_idmap_deinit(&engine->replies);
    hp_idmap_init(&engine->replies, 0);
    hp_check_lost(engine);
    hp_stage_lost(engine);
    hp_fetch_lost(engine);
    hp_call_lost(engine);
    hp_submit_lost(engine);
    schedule_retry(engine);
    if (was_open) {
        (void)hp_item_simple(engine, HP_EVENT_DISCONNECTED, engine->trouble,
                             engine->trouble_text); /* without memory the event is lost, no more */
    }
}

/* ---------------------------------------------------------------- frames in */

/* May large content go by descriptor? Only if the broker is seen to be on this host. */
static void take_near(struct hp_engine *engine, const struct hp_msg_hello_reply *hello)
{
    const struct hp_near_ops *ops = engine->config.near;
    uint64_t all = HP_HAS_HELLO_REPLY_NEAR_KEY | HP_HAS_HELLO_REPLY_NEAR_PID |
                   HP_HAS_HELLO_REPLY_NEAR_FD | HP_HAS_HELLO_REPLY_NEAR_PROOF;
    bool is_near = ops != NULL && (hello->has & all) == all &&
                   hello->near_key.size == HP_CLIENT_NEAR_KEY_BYTES &&
                   hello->near_proof.size == HP_CLIENT_NEAR_KEY_BYTES &&
                   ops->prove(hello->near_pid, hello->near_fd, hello->near_proof.data);

    engine->near_give = is_near;
    engine->give_refusals = 0;
    engine->near_take = is_near;
    if (is_near) {
        memcpy(engine->near_key, hello->near_key.data, sizeof(engine->near_key));
    }
}

static void take_hello(struct hp_engine *engine, const struct hp_rpc *rpc)
{
    struct hp_msg_hello_reply hello;
    struct hp_error error = {0};

    if (rpc->failed) {
        hp_engine_fail(engine, hp_status_of_rpc(rpc->failure.code), "%.*s",
                       HP_STR_ARG(rpc->failure.text));
        return;
    }
    if (hp_msg_hello_reply_decode(rpc->result, &engine->arena, &hello, &error) != HP_OK) {
        hp_engine_fail(engine, HP_STATUS_PROTOCOL, "%s", error.text);
        return;
    }
    (void)snprintf(engine->server, sizeof(engine->server), "%.*s", HP_STR_ARG(hello.server));
    take_near(engine, &hello);
    if (!hp_submit_resume(engine, hello.last_number)) {
        hp_submit_session_lost(engine);
        hp_engine_fail(engine, HP_STATUS_SESSION_LOST, "the broker has forgotten the session");
        engine->retry_count = 0;
        return;
    }
    engine->phase = HP_PHASE_OPEN;
    engine->retry_count = 0;
    engine->hold_until_ms = 0;
    engine->trouble = HP_STATUS_OK;
    engine->trouble_text[0] = '\0';
    engine->busy_text[0] = '\0';
    engine->expecting = false;
    hp_follow_resume(engine);
    hp_track_want_check(&engine->track);
    engine->check_full = engine->check_full || engine->has_volatile;
    if (hp_item_simple(engine, HP_EVENT_CONNECTED, HP_STATUS_OK, engine->server) != HP_OK) {
        hp_engine_fail(engine, HP_STATUS_NO_MEMORY, "out of memory");
    }
}

/* Keeps the broker's words for why it takes no submits, nor the payloads they need. */
static void note_busy(struct hp_engine *engine, const struct hp_pending_reply *pending,
                      const struct hp_reply *reply)
{
    bool is_submit = pending->kind == HP_PENDING_SUBMIT_REPLY;
    const struct hp_call *call = HP_CONTAINER_OF(pending, const struct hp_call, pending);
    bool is_payload =
        !is_submit && (call->method == HP_METHOD_BLOB_OPEN || call->method == HP_METHOD_BLOB_PUT ||
                       call->method == HP_METHOD_BLOB_GIVE);

    if (reply->status == HP_STATUS_BUSY || reply->status == HP_STATUS_DRAINING) {
        if (is_submit || is_payload) {
            set_text(engine->busy_text,
                     reply->text[0] != '\0' ? reply->text : hp_strerror(reply->status));
        }
    } else if (is_submit) {
        engine->busy_text[0] = '\0';
    }
}

static void take_reply(struct hp_engine *engine, const struct hp_rpc *rpc, struct hp_bin frame)
{
    struct hp_pending_reply *pending = hp_idmap_find_ptr(&engine->replies, rpc->msgid);
    struct hp_reply reply = {.status = HP_STATUS_OK, .text = "", .frame = frame};
    char text[HP_RPC_ERROR_TEXT_BYTES + 1];

    if (pending == NULL) {
        return; /* I2 */
    }
    (void)hp_idmap_remove(&engine->replies, rpc->msgid, NULL);
    pending->msgid = 0;
    if (rpc->failed) {
        (void)snprintf(text, sizeof(text), "%.*s", HP_STR_ARG(rpc->failure.text));
        reply.status = hp_status_of_rpc(rpc->failure.code);
        reply.text = text;
        reply.retry_after_ms = rpc->failure.retry_after_ms;
    } else {
        reply.result = rpc->result;
    }
    note_busy(engine, pending, &reply);
    if (pending->kind == HP_PENDING_SUBMIT_REPLY) {
        hp_submit_reply(engine, HP_CONTAINER_OF(pending, struct hp_message, pending), &reply);
    } else {
        hp_call_reply(engine, HP_CONTAINER_OF(pending, struct hp_call, pending), &reply);
    }
}

/* True for the frame of a task.event: looked at before unpacking, because it is kept whole. */
static bool is_task_event(struct hp_bin frame)
{
    static const uint8_t start[] = "\x93\x02\xaatask.event";

    return frame.size >= sizeof(start) - 1 && memcmp(frame.data, start, sizeof(start) - 1) == 0;
}

static void take_frame(struct hp_engine *engine, struct hp_bin frame)
{
    struct hp_error error = {0};
    struct hp_rpc rpc;
    enum hp_status status;

    hp_arena_reset(&engine->arena);
    if (engine->phase == HP_PHASE_OPEN && is_task_event(frame)) {
        status = hp_item_queue_tasks(engine, frame);
        if (status != HP_STATUS_OK) {
            hp_engine_fail(engine, status, "%s", engine->error_text);
        }
        return;
    }
    if (hp_rpc_read(engine->wire, frame.data, frame.size, &rpc, &error) != HP_OK) {
        hp_engine_fail(engine, HP_STATUS_PROTOCOL, "%s", error.text);
    } else if (rpc.type == HP_RPC_REQUEST) {
        hp_engine_fail(engine, HP_STATUS_PROTOCOL, "the peer sent a request");
    } else if (engine->phase == HP_PHASE_HELLO) {
        if (rpc.type != HP_RPC_RESPONSE || rpc.msgid != 0) {
            hp_engine_fail(engine, HP_STATUS_PROTOCOL, "the peer's first message is no answer");
        } else {
            take_hello(engine, &rpc);
        }
    } else if (rpc.type == HP_RPC_RESPONSE) {
        take_reply(engine, &rpc, frame);
    } else if (rpc.method == HP_METHOD_TASK_OUTPUT) {
        hp_follow_output(engine, rpc.params);
    } /* other notifications are of a later version: skipped */
}

enum hp_status hp_engine_feed(struct hp_engine *engine, const void *data, size_t size,
                              uint64_t now_ms)
{
    size_t frame_size = 0;
    const char *why = NULL;

    HP_ASSERT(engine->phase == HP_PHASE_HELLO || engine->phase == HP_PHASE_OPEN);
    engine->now_ms = now_ms;
    engine->received_at_ms = now_ms;
    engine->ping_sent = false;
    while (size > 0 && !engine->close_wanted) {
        /* In steps, so that the buffer stays within its limit whatever is fed at once. */
        size_t step = HP_MIN(size, (size_t)1 << 20);
        enum hp_tok_status status = HP_TOK_NEED_MORE;

        if (hp_buf_append(&engine->in, data, step) != HP_OK) {
            hp_engine_fail(engine, HP_STATUS_NO_MEMORY, "out of memory");
            break;
        }
        data = (const uint8_t *)data + step;
        size -= step;
        while (!engine->close_wanted && engine->in.size > 0) {
            status = hp_tok_scan(&engine->tok, engine->in.data, engine->in.size, &frame_size, &why);
            if (status != HP_TOK_DONE) {
                break;
            }
            take_frame(engine, hp_bin_make(engine->in.data, frame_size));
            hp_buf_consume(&engine->in, frame_size);
            hp_tok_reset(&engine->tok);
        }
        if (status == HP_TOK_BAD) {
            hp_engine_fail(engine, HP_STATUS_PROTOCOL, "%s", why);
        }
    }
    return engine->close_wanted ? engine->close_status : HP_STATUS_OK;
}

/* ---------------------------------------------------------------- bytes out */

uint32_t hp_engine_msgid(struct hp_engine *engine, struct hp_pending_reply *pending)
{
    uint32_t msgid = engine->next_msgid;

    if (hp_idmap_put_ptr(&engine->replies, msgid, pending) != HP_OK) {
        return 0;
    }
    engine->next_msgid = msgid == UINT32_MAX ? 1 : msgid + 1;
    pending->msgid = msgid;
    return msgid;
}

static void compose(struct hp_engine *engine)
{
    bool more = true;

    if (engine->phase != HP_PHASE_OPEN) {
        return; /* I1 */
    }
    while (more && !engine->close_wanted && engine->out.size < HP_ENGINE_OUT_BYTES) {
        bool call = hp_call_compose(engine);

        more = hp_submit_compose(engine) || call;
    }
}

struct hp_bytes hp_engine_output(struct hp_engine *engine)
{
    compose(engine);
    return (struct hp_bytes){.data = engine->out.data, .size = engine->out.size};
}

void hp_engine_sent(struct hp_engine *engine, size_t size)
{
    hp_buf_consume(&engine->out, size);
}

/* ---------------------------------------------------------------- time */

/* Something is expected from the broker, so its silence means something. */
static bool expects(const struct hp_engine *engine)
{
    return engine->call_count > 0 || engine->stage_count > 0 || engine->submit_count > 0 ||
           engine->track.left > 0;
}

/* A peer that is silent though something is expected may be gone without a word: ask it, then give
 * it up. Time in which nothing was expected, or nothing was read on purpose, does not count. */
static void step_silence(struct hp_engine *engine)
{
    struct hp_buf params;

    if (!engine->expecting || !hp_engine_wants_input(engine)) {
        engine->expecting = expects(engine);
        engine->received_at_ms = engine->now_ms;
        engine->ping_sent = false;
        return;
    }
    engine->expecting = expects(engine);
    if (engine->now_ms < engine->received_at_ms + SILENCE_MS) {
        return;
    }
    if (engine->ping_sent) {
        hp_engine_fail(engine, HP_STATUS_UNREACHABLE, "the broker is silent");
        return;
    }
    hp_buf_init(&params, 64);
    if (hp_wire_put_map(&params, 0) == HP_OK &&
        hp_call_begin(engine, HP_METHOD_BROKER_PING, &params, NULL, NULL, true, NULL) ==
            HP_STATUS_OK) {
        engine->ping_sent = true;
    }
    engine->received_at_ms = engine->now_ms;
}

static void step_open(struct hp_engine *engine)
{
    step_silence(engine);
    if (engine->close_wanted) {
        return;
    }
    if (engine->now_ms >= engine->poll_at_ms) {
        engine->poll_at_ms = engine->track.left > 0 ? engine->now_ms + POLL_MS : HP_ENGINE_NEVER;
        engine->check_full = true;
        hp_track_want_check(&engine->track);
    }
    hp_submit_flush(engine);
    hp_stage_step(engine);
    hp_fetch_step(engine);
    hp_check_step(engine);
    compose(engine);
}

void hp_engine_step(struct hp_engine *engine, uint64_t now_ms)
{
    HP_ASSERT(now_ms >= engine->now_ms);
    engine->now_ms = now_ms;
    switch (engine->phase) {
    case HP_PHASE_IDLE:
        break;
    case HP_PHASE_CONNECTING:
    case HP_PHASE_HELLO:
        if (now_ms >= engine->phase_until_ms) {
            hp_engine_fail(engine, HP_STATUS_UNREACHABLE, "%s",
                           engine->phase == HP_PHASE_CONNECTING
                               ? "the broker's host does not answer"
                               : "connected, but the broker does not answer");
        }
        break;
    case HP_PHASE_OPEN:
        step_open(engine);
        break;
    }
}

static uint64_t open_deadline(const struct hp_engine *engine)
{
    uint64_t deadline = HP_MIN(engine->poll_at_ms, hp_stage_deadline_ms(engine));

    deadline = HP_MIN(deadline, hp_fetch_deadline_ms(engine));
    if (expects(engine)) {
        deadline = HP_MIN(deadline, engine->received_at_ms + SILENCE_MS);
    }
    /* With much output waiting it is the transport that decides when submits go on. */
    if (hp_submit_is_ready(engine) && engine->out.size < HP_ENGINE_OUT_BYTES) {
        deadline = HP_MIN(deadline, HP_MAX(engine->hold_until_ms, engine->now_ms));
    }
    return deadline;
}

uint64_t hp_engine_deadline_ms(const struct hp_engine *engine)
{
    if (engine->close_wanted) {
        return engine->now_ms;
    }
    switch (engine->phase) {
    case HP_PHASE_IDLE:
        return engine->retry_at_ms;
    case HP_PHASE_CONNECTING:
    case HP_PHASE_HELLO:
        return engine->phase_until_ms;
    case HP_PHASE_OPEN:
        return open_deadline(engine);
    }
    return HP_ENGINE_NEVER;
}

/* ---------------------------------------------------------------- looking at it */

bool hp_engine_wants_close(const struct hp_engine *engine, enum hp_status *ret_status,
                           const char **ret_text)
{
    if (engine->close_wanted) {
        *ret_status = engine->close_status;
        *ret_text = engine->close_text;
    }
    return engine->close_wanted;
}

bool hp_engine_wants_input(const struct hp_engine *engine)
{
    return engine->item_bytes < engine->config.event_bytes;
}

bool hp_engine_is_open(const struct hp_engine *engine)
{
    return engine->phase == HP_PHASE_OPEN && !engine->close_wanted;
}

enum hp_status hp_engine_trouble(const struct hp_engine *engine, const char **ret_text)
{
    *ret_text = engine->trouble_text;
    return engine->trouble;
}

const char *hp_engine_busy(const struct hp_engine *engine)
{
    bool is_waiting = hp_engine_is_open(engine) && hp_engine_unacknowledged(engine) > 0;

    return is_waiting && engine->busy_text[0] != '\0' ? engine->busy_text : NULL;
}

const char *hp_engine_server(const struct hp_engine *engine)
{
    return engine->server[0] == '\0' ? NULL : engine->server;
}

const uint8_t *hp_engine_session(const struct hp_engine *engine)
{
    return engine->session;
}

uint64_t hp_engine_outstanding(const struct hp_engine *engine)
{
    return engine->track.left + engine->submit_tasks;
}

uint64_t hp_engine_unacknowledged(const struct hp_engine *engine)
{
    return (uint64_t)engine->submit_count + engine->stage_count;
}

const char *hp_engine_error(const struct hp_engine *engine)
{
    return engine->error_text;
}
