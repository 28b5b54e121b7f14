/* SPDX-License-Identifier: BSD-2-Clause */
/* What leaves the core: messages per connection and turn, loads, closes, trace lines. */
#include <stdarg.h>
#include <stdio.h>

#include "server/core/state.h"

enum { OUT_BYTES_MAX = 1 << 30, OPTIONS_ELEMENTS_MAX = 4096 + 64 + 16 + 128 };

static void conn_touch(struct hp_core *core, struct hp_conn *conn)
{
    if (!conn->in_dirty) {
        conn->in_dirty = true;
        hp_list_push_back(&core->conn_dirty, &conn->dirty_link);
    }
}

static void conn_dirty(struct hp_core *core, struct hp_conn *conn, bool held)
{
    conn_touch(core, conn);
    *(held ? &conn->held_is_urgent : &conn->now_is_urgent) = true;
}

struct hp_buf *hp_out_reply(struct hp_core *core, struct hp_conn *conn, bool held)
{
    conn_dirty(core, conn, held);
    return held ? &conn->held : &conn->now;
}

struct hp_buf *hp_out_receipt(struct hp_core *core, struct hp_conn *conn, bool held)
{
    conn_touch(core, conn);
    return held ? &conn->held : &conn->now;
}

static void put_error(struct hp_core *core, struct hp_conn *conn, uint32_t msgid, bool held,
                      enum hp_rpc_error_code code, const char *text, uint64_t retry_ms)
{
    hp_must(hp_rpc_put_error(hp_out_reply(core, conn, held), msgid, code, hp_str_of(text),
                             conn->error_maps, retry_ms));
}

void hp_out_error(struct hp_core *core, struct hp_conn *conn, uint32_t msgid, bool held,
                  enum hp_rpc_error_code code, const char *format, ...)
{
    char text[HP_RPC_ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    put_error(core, conn, msgid, held, code, text, 0);
}

void hp_out_busy(struct hp_core *core, struct hp_conn *conn, uint32_t msgid, uint64_t retry_ms,
                 const char *text)
{
    core->figures.busy++;
    put_error(core, conn, msgid, false, HP_RPC_ERROR_BUSY, text, retry_ms);
}

/* Closes the message that the list's items make. */
static void flush_list(struct hp_out_list *list, struct hp_buf *out, enum hp_method method,
                       const char *field)
{
    if (list->count == 0) {
        return;
    }
    hp_must(hp_rpc_put_notify(out, method));
    hp_must(hp_wire_put_map(out, 1));
    hp_must(hp_wire_put_cstr(out, field));
    hp_must(hp_wire_put_array(out, list->count));
    hp_must(hp_buf_append_buf(out, &list->items));
    hp_buf_clear(&list->items);
    list->count = 0;
    list->elements = 0;
}

/* Room for an item of `elements`: closes a message that would grow over the frame limits. */
static void list_room(struct hp_out_list *list, struct hp_buf *out, enum hp_method method,
                      const char *field, size_t bytes, uint32_t elements)
{
    if (list->items.max == 0) {
        hp_buf_init(&list->items, OUT_BYTES_MAX);
    }
    if (list->items.size + bytes > HP_OUT_FRAME_BYTES ||
        list->elements + elements > HP_OUT_FRAME_ELEMENTS) {
        flush_list(list, out, method, field);
    }
    list->count++;
    list->elements += elements;
}

void hp_out_event(struct hp_core *core, struct hp_conn *conn,
                  const struct hp_st_task_status *status, bool held)
{
    if (conn->blocked || conn->events_lost || conn->closing) {
        conn->events_lost = true;
        core->figures.events_dropped++;
        return;
    }
    held = held || conn->hello_batch > core->durable_number; /* never before that answer */
    conn_dirty(core, conn, held);
    struct hp_out_list *list = held ? &conn->events_out : &conn->events_now;
    list_room(list, held ? &conn->held : &conn->now, HP_METHOD_TASK_EVENT, "events",
              status->end.raw.size + 512U,
              32U + (status->end.raw.size < 128 ? status->end.raw.size : 128));
    hp_must(hp_st_task_status_encode(&list->items, status));
}

void hp_out_assign(struct hp_core *core, struct hp_conn *conn, const struct hp_st_assign_run *run,
                   bool eager)
{
    conn_dirty(core, conn, !eager);
    struct hp_out_list *list = eager ? &conn->assign_now : &conn->assign_held;
    size_t bytes = 256U + run->options.raw.size;
    for (uint32_t i = 0; i < run->payloads.count; i++) {
        bytes += run->payloads.items[i].size + 5U;
    }
    /* Of the options: a key or item takes a byte at least; argv, env and tags have limits. */
    uint32_t options = run->options.raw.size;
    options = options < OPTIONS_ELEMENTS_MAX ? options : OPTIONS_ELEMENTS_MAX;
    uint32_t elements = 20U + options + run->payloads.count + run->blobs.count;
    list_room(list, eager ? &conn->now : &conn->held, HP_METHOD_WORKER_ASSIGN, "runs", bytes,
              elements);
    hp_must(hp_st_assign_run_encode(&list->items, run));
}

void hp_out_flush_assigns(struct hp_core *core, struct hp_conn *conn)
{
    (void)core;
    flush_list(&conn->assign_now, &conn->now, HP_METHOD_WORKER_ASSIGN, "runs");
    flush_list(&conn->assign_held, &conn->held, HP_METHOD_WORKER_ASSIGN, "runs");
}

static void flush_events(struct hp_conn *conn)
{
    flush_list(&conn->events_now, &conn->now, HP_METHOD_TASK_EVENT, "events");
    flush_list(&conn->events_out, &conn->held, HP_METHOD_TASK_EVENT, "events");
}

/* Will something else be sent there soon? To a worker with its next task, to a client the end of
 * the only task there is. */
static bool is_lone(const struct hp_core *core, const struct hp_conn *conn)
{
    if (conn->node != NULL) {
        return conn->node->attempt_count == 0;
    }
    return conn->events && core->turn_volatile == 1 && hp_idmap_count(&core->attempts) == 1;
}

static void emit(struct hp_core *core, struct hp_conn *conn, struct hp_buf *buf, uint64_t after,
                 bool *is_urgent)
{
    bool may_wait = !*is_urgent && is_lone(core, conn);
    *is_urgent = false;
    if (buf->size == 0) {
        return;
    }
    struct hp_effect *effect = hp_effects_add(core->effects, HP_EFFECT_SEND);
    effect->conn = conn->id;
    effect->send.bytes = *buf;
    effect->send.after_commit = after;
    effect->send.may_wait = may_wait;
    hp_buf_init(buf, OUT_BYTES_MAX);
}

void hp_out_flush_all(struct hp_core *core)
{
    while (!hp_list_is_empty(&core->conn_dirty)) {
        struct hp_conn *conn =
            HP_CONTAINER_OF(hp_list_pop_front(&core->conn_dirty), struct hp_conn, dirty_link);
        conn->in_dirty = false;
        flush_events(conn);
        hp_out_flush_assigns(core, conn);
        emit(core, conn, &conn->now, 0, &conn->now_is_urgent);
        emit(core, conn, &conn->held, core->batch_number, &conn->held_is_urgent);
    }
}

/* A copy for the turn; a turn that says more than its arena holds loses words, not the broker. */
static const char *keep_text(struct hp_core *core, const char *text)
{
    const char *copy = hp_arena_copy(&core->effects->arena, text, strlen(text));
    return copy != NULL ? copy : "text=\"too much was said in one turn\"";
}

void hp_out_close(struct hp_core *core, struct hp_conn *conn, const char *format, ...)
{
    if (conn->closing) {
        return;
    }
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    conn->closing = true;
    if (conn->in_dirty) { /* answers go out before the close; those held for a commit are dropped */
        flush_events(conn);
        hp_out_flush_assigns(core, conn);
        emit(core, conn, &conn->now, 0, &conn->now_is_urgent);
        emit(core, conn, &conn->held, core->batch_number, &conn->held_is_urgent);
    }
    struct hp_effect *effect = hp_effects_add(core->effects, HP_EFFECT_CLOSE);
    effect->conn = conn->id;
    effect->close.reason = keep_text(core, text);
}

void hp_trace(struct hp_core *core, enum hp_trace_level level, const char *event,
              const char *format, ...)
{
    if (core->effects == NULL) {
        return; /* recovery: the shell logs its summary */
    }
    char text[768];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    struct hp_effect *effect = hp_effects_add(core->effects, HP_EFFECT_TRACE);
    effect->trace.level = level;
    effect->trace.event = event;
    effect->trace.text = keep_text(core, text);
}

/* ------------------------------------------------ loads and what waits for them */
struct hp_pending *hp_pending_new(struct hp_core *core, enum hp_pending_kind kind,
                                  struct hp_conn *conn, uint32_t msgid)
{
    struct hp_pending *pending = hp_must_calloc(sizeof(*pending));
    pending->kind = kind;
    pending->conn = conn != NULL ? conn->id : 0;
    pending->msgid = msgid;
    pending->cookie = core->next_cookie++;
    hp_buf_init(&pending->results, OUT_BYTES_MAX);
    hp_must(hp_idmap_put_ptr(&core->pendings, pending->cookie, pending));
    hp_list_push_back(&core->pending_list, &pending->link);
    if (conn != NULL) {
        conn->load_count++;
    }
    return pending;
}

void hp_pending_free(struct hp_core *core, struct hp_pending *pending)
{
    struct hp_conn *conn = hp_conn_find(core, pending->conn); /* ids are never used again */
    if (conn != NULL) {
        conn->load_count--;
    }
    (void)hp_idmap_remove(&core->pendings, pending->cookie, NULL);
    hp_list_remove(&pending->link);
    hp_buf_deinit(&pending->results);
    hp_free((void *)(uintptr_t)pending->frame.data);
    hp_free(pending);
}

struct hp_load *hp_out_load(struct hp_core *core, enum hp_load_kind kind,
                            struct hp_pending *pending)
{
    struct hp_load *load = hp_load_new(kind);
    HP_ASSERT(load != NULL);
    load->cookie = pending->cookie;
    hp_effects_add(core->effects, HP_EFFECT_LOAD)->load = load;
    return load;
}

/* ------------------------------------------------ the list of effects */
void hp_effects_init(struct hp_effects *effects)
{
    *effects = (struct hp_effects){0};
    hp_arena_init(&effects->arena, 16U << 10, 64U << 20);
}

void hp_effects_clear(struct hp_effects *effects)
{
    for (uint32_t i = 0; i < effects->count; i++) {
        struct hp_effect *effect = &effects->items[i];
        if (effect->kind == HP_EFFECT_SEND) {
            hp_buf_deinit(&effect->send.bytes);
        } else if (effect->kind == HP_EFFECT_LOAD) {
            hp_load_free(effect->load);
        }
    }
    effects->count = 0;
    hp_arena_reset(&effects->arena);
}

void hp_effects_deinit(struct hp_effects *effects)
{
    hp_effects_clear(effects);
    hp_free(effects->items);
    hp_arena_deinit(&effects->arena);
    *effects = (struct hp_effects){0};
}

struct hp_effect *hp_effects_add(struct hp_effects *effects, enum hp_effect_kind kind)
{
    if (effects->count == effects->capacity) {
        uint32_t capacity = effects->capacity == 0 ? 64 : effects->capacity * 2;
        struct hp_effect *items =
            hp_realloc_array(effects->items, capacity, sizeof(*effects->items));
        HP_ASSERT(items != NULL);
        effects->items = items;
        effects->capacity = capacity;
    }
    struct hp_effect *effect = &effects->items[effects->count++];
    *effect = (struct hp_effect){.kind = kind};
    return effect;
}
