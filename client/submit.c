/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Submits: sharing of messages, the window, numbers, replies, replays. See engine_state.h for the
 * invariants (I1 to I3) of the list.
 *
 * Payloads are encoded straight into the body of a message when they are handed in; number and
 * acknowledgement are put in front of it when it is composed. So a body is encoded once, however
 * often it is sent.
 */
#include <string.h>

#include "client/engine_state.h"
#include "client/view.h"
#include "common/base/assert.h"
#include "common/base/mem.h"

/* Wait after `busy` without a time from the broker. */
#define BUSY_MS 100u
/* So often a message may be refused as out of order before it is given up. */
#define MISORDER_COUNT_MAX 3u

static struct hp_message *message_of(struct hp_list *link)
{
    return HP_LIST_ENTRY(link, struct hp_message, link);
}

static uint64_t tracked_tasks(const struct hp_message *message)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < message->piece_count; i++) {
        count += message->pieces[i].untracked ? 0 : message->pieces[i].count;
    }
    return count;
}

void hp_submit_message_free(struct hp_engine *engine, struct hp_message *message)
{
    if (engine->unsent == &message->link) {
        engine->unsent = message->link.next;
    }
    if (engine->open == message) {
        engine->open = NULL;
    }
    if (message->pending.msgid != 0) {
        (void)hp_idmap_remove(&engine->replies, message->pending.msgid, NULL);
    }
    hp_list_remove(&message->link);
    engine->submit_count--;
    engine->submit_bytes -= message->body.size;
    engine->submit_tasks -= tracked_tasks(message);
    hp_buf_deinit(&message->body);
    hp_free(message->pieces);
    hp_free(message);
}

void hp_submit_clear(struct hp_engine *engine)
{
    while (!hp_list_is_empty(&engine->submits)) {
        hp_submit_message_free(engine, message_of(hp_list_first(&engine->submits)));
    }
    engine->unsent = &engine->submits;
}

/* ---------------------------------------------------------------- making messages */

struct hp_message *hp_submit_message_new(struct hp_engine *engine, struct hp_bin options,
                                         bool lasting)
{
    struct hp_message *message = hp_calloc(1, sizeof(*message));

    if (message == NULL) {
        return NULL;
    }
    message->pending.kind = HP_PENDING_SUBMIT_REPLY;
    hp_buf_init(&message->body, HP_LIMIT_FRAME_BYTES - 1024);
    if (hp_wire_put_cstr(&message->body, "options") != HP_OK ||
        hp_wire_put_raw(&message->body, options) != HP_OK) {
        hp_buf_deinit(&message->body);
        hp_free(message);
        return NULL;
    }
    message->pair_count = 1;
    message->lasting = lasting;
    engine->has_volatile = engine->has_volatile || !lasting;
    hp_list_push_back(&engine->submits, &message->link);
    if (engine->unsent == &engine->submits) {
        engine->unsent = &message->link;
    }
    engine->submit_count++;
    engine->submit_bytes += message->body.size;
    return message;
}

/* Are the tasks of `piece` the next ones of the same call, or of the next single-task call? */
static bool piece_continues(const struct hp_piece *last, const struct hp_piece *piece)
{
    if (last->user != piece->user || last->sink != piece->sink ||
        last->untracked != piece->untracked || last->single != piece->single) {
        return false;
    }
    return piece->single
               ? last->request + last->count == piece->request
               : last->request == piece->request && last->index + last->count == piece->index;
}

enum hp_err hp_submit_piece_room(struct hp_message *message, uint32_t more)
{
    uint32_t capacity = message->piece_capacity;
    struct hp_piece *pieces;

    if (message->piece_count + more <= capacity) {
        return HP_OK;
    }
    capacity = HP_MAX(capacity * 2, message->piece_count + more);
    pieces = hp_realloc_array(message->pieces, capacity, sizeof(*pieces));
    if (pieces == NULL) {
        return HP_ERR_NOMEM;
    }
    message->pieces = pieces;
    message->piece_capacity = capacity;
    return HP_OK;
}

enum hp_err hp_submit_add_piece(struct hp_message *message, const struct hp_piece *piece)
{
    struct hp_piece *last =
        message->piece_count == 0 ? NULL : &message->pieces[message->piece_count - 1];

    if (last != NULL && piece_continues(last, piece)) {
        last->count += piece->count;
        message->count += piece->count;
        return HP_OK;
    }
    if (hp_submit_piece_room(message, 1) != HP_OK) {
        return HP_ERR_NOMEM;
    }
    message->pieces[message->piece_count] = *piece;
    message->pieces[message->piece_count++].offset = message->count;
    message->count += piece->count;
    return HP_OK;
}

enum hp_err hp_submit_put_payload(struct hp_message *message, struct hp_bin payload)
{
    if (!message->payloads) {
        if (hp_wire_put_cstr(&message->body, "payloads") != HP_OK ||
            hp_wire_array_open(&message->body, &message->list_mark) != HP_OK) {
            return HP_ERR_NOMEM;
        }
        message->payloads = true;
        message->pair_count++;
    }
    return hp_wire_put_bin(&message->body, payload);
}

/* Without memory the message stays open, and is closed at the next step. */
static void message_close(struct hp_engine *engine, struct hp_message *message)
{
    size_t old_size = message->body.size;

    if (message->payloads) {
        hp_wire_array_close(&message->body, message->list_mark, message->count);
    } else if (message->count != 1) {
        if (hp_wire_put_cstr(&message->body, "count") != HP_OK ||
            hp_wire_put_u64(&message->body, message->count) != HP_OK) {
            hp_buf_truncate(&message->body, old_size);
            return;
        }
        message->pair_count++;
    }
    message->closed = true;
    engine->submit_bytes += message->body.size - old_size;
    engine->open = NULL;
}

void hp_submit_flush(struct hp_engine *engine)
{
    if (engine->open != NULL) {
        message_close(engine, engine->open);
    }
}

/* Makes `shared` and its encoding those of these options. */
static enum hp_status encode_options(struct hp_engine *engine,
                                     const struct hp_engine_submit *submit)
{
    struct hp_st_task_options wire;
    struct hp_error error = {0};
    enum hp_err err;

    engine->shared_valid = false;
    hp_submit_flush(engine);
    hp_arena_reset(&engine->shared_arena);
    hp_buf_clear(&engine->shared_encoded);
    err = hp_view_options_to_wire(submit->options, &engine->shared_arena, &wire);
    if (submit->array) {
        wire.has |= HP_HAS_ST_TASK_OPTIONS_ARRAY_BASE;
    }
    if (err == HP_OK) {
        err = hp_codec_encode(&hp_desc_st_task_options, &engine->shared_encoded, &wire, &error);
    }
    if (err == HP_OK) {
        err = hp_view_options_copy(submit->options, &engine->shared_arena, &engine->shared);
    }
    if (err != HP_OK) {
        return hp_engine_error_set(
            engine, err == HP_ERR_NOMEM ? HP_STATUS_NO_MEMORY : HP_STATUS_BAD_ARGUMENT, "%s",
            error.text[0] != '\0' ? error.text : hp_err_text(err));
    }
    engine->shared_valid = !submit->array;
    return HP_STATUS_OK;
}

bool hp_engine_has_room(const struct hp_engine *engine)
{
    /* An open message counts as one even though it takes more, hence `<=`. */
    uint32_t count = engine->submit_count + engine->stage_count;

    return (count < engine->config.window_submits ||
            (engine->open != NULL && count == engine->config.window_submits)) &&
           engine->submit_bytes + engine->stage_bytes < engine->config.window_bytes;
}

/* May the open message take `count` more tasks, with or without payloads? */
static bool open_fits(const struct hp_message *open, bool payloads, uint32_t count, bool single)
{
    return open->payloads == payloads && open->body.size < HP_SUBMIT_BODY_BYTES &&
           open->count + count <= (single ? HP_SUBMIT_SHARE_TASKS : HP_LIMIT_SUBMIT_TASKS);
}

bool hp_submit_is_lasting(const struct hp_options *options)
{
    return options->durable || options->kind == HP_KIND_POOL;
}

/* The message that takes the next tasks: the open one, or a new one. NULL: out of memory. */
static struct hp_message *message_for(struct hp_engine *engine,
                                      const struct hp_engine_submit *submit, uint32_t count)
{
    bool alone = submit->array || submit->options->ukey != NULL;

    if (engine->open != NULL &&
        (alone || !open_fits(engine->open, submit->payloads != NULL, count, submit->count == 1))) {
        hp_submit_flush(engine);
    }
    if (engine->open == NULL) {
        engine->open = hp_submit_message_new(engine, hp_buf_bin(&engine->shared_encoded),
                                             hp_submit_is_lasting(submit->options));
    }
    return engine->open;
}

static enum hp_status add_tasks(struct hp_engine *engine, const struct hp_engine_submit *submit,
                                struct hp_piece *piece, const struct hp_bytes *payload)
{
    struct hp_message *message = message_for(engine, submit, piece->count);
    size_t old_size;
    bool had_payloads;
    enum hp_err err = HP_OK;

    if (message == NULL) {
        return HP_STATUS_NO_MEMORY;
    }
    old_size = message->body.size;
    had_payloads = message->payloads;
    if (payload != NULL) {
        err = hp_submit_put_payload(message, hp_bin_make(payload->data, payload->size));
    }
    if (err == HP_OK) {
        err = hp_submit_add_piece(message, piece);
    }
    if (err != HP_OK) {
        hp_buf_truncate(&message->body, old_size);
        message->payloads = had_payloads;
        message->pair_count = 1 + (had_payloads ? 1 : 0);
        if (message->count == 0) {
            hp_submit_message_free(engine, message);
        }
        return HP_STATUS_NO_MEMORY;
    }
    message->follow = submit->options->follow;
    engine->submit_bytes += message->body.size - old_size;
    engine->submit_tasks += piece->untracked ? 0 : piece->count;
    if (submit->array || submit->options->ukey != NULL) {
        hp_submit_flush(engine);
    }
    return HP_STATUS_OK;
}

/* One call's payloads: inline ones go to messages, those over the limit to stages. */
static enum hp_status add_payloads(struct hp_engine *engine, const struct hp_engine_submit *submit,
                                   struct hp_piece piece)
{
    enum hp_status status = HP_STATUS_OK;

    if (submit->part_count > 0) {
        return hp_stage_add(engine, submit, submit->payloads, submit->part_count, &piece);
    }
    for (uint32_t i = 0; status == HP_STATUS_OK && i < submit->count; i++) {
        const struct hp_bytes *payload = &submit->payloads[i];

        piece.index = i;
        piece.count = 1;
        status = payload->size > HP_LIMIT_INLINE_BYTES
                     ? hp_stage_add(engine, submit, payload, 1, &piece)
                     : add_tasks(engine, submit, &piece, payload);
    }
    return status;
}

/* What to go back to when memory ends in the middle of a call. */
struct undo {
    struct hp_message *last; /* of the list; NULL: it was empty */
    struct hp_message before;
    uint32_t last_piece_count; /* tasks of its last piece */
};

static struct undo undo_begin(const struct hp_engine *engine)
{
    struct undo undo = {0};

    if (!hp_list_is_empty(&engine->submits)) {
        undo.last = message_of(hp_list_last(&engine->submits));
        undo.before = *undo.last;
        if (undo.last->piece_count > 0) {
            undo.last_piece_count = undo.last->pieces[undo.last->piece_count - 1].count;
        }
    }
    return undo;
}

static void undo_end(struct hp_engine *engine, const struct undo *undo)
{
    struct hp_message *last = undo->last;

    while (!hp_list_is_empty(&engine->submits) &&
           message_of(hp_list_last(&engine->submits)) != last) {
        hp_submit_message_free(engine, message_of(hp_list_last(&engine->submits)));
    }
    if (last == NULL || last->count == undo->before.count) {
        return;
    }
    engine->submit_tasks -= tracked_tasks(last);
    engine->submit_bytes -= last->body.size - undo->before.body.size;
    hp_buf_truncate(&last->body, undo->before.body.size);
    last->count = undo->before.count;
    last->pair_count = undo->before.pair_count;
    last->piece_count = undo->before.piece_count;
    last->pieces[last->piece_count - 1].count = undo->last_piece_count;
    engine->submit_tasks += tracked_tasks(last);
    if (last->closed && last->payloads) {
        hp_wire_array_close(&last->body, last->list_mark, last->count);
    }
}

enum hp_status hp_engine_submit(struct hp_engine *engine, const struct hp_engine_submit *submit,
                                uint64_t *ret_request)
{
    struct undo undo;
    struct hp_piece piece = {.request = engine->next_request,
                             .user = submit->user,
                             .sink = submit->sink,
                             .count = submit->count,
                             .single = submit->count == 1,
                             .untracked = submit->untracked};
    const char *text;
    enum hp_status status = hp_submit_check(submit, &text);

    if (status != HP_STATUS_OK) {
        return hp_engine_error_set(engine, status, "%s", text);
    }
    if (!hp_engine_has_room(engine)) {
        return HP_STATUS_AGAIN;
    }
    if ((submit->array || !engine->shared_valid ||
         !hp_view_options_equal(submit->options, &engine->shared))) {
        status = encode_options(engine, submit);
    }
    if (status != HP_STATUS_OK) {
        return status;
    }
    undo = undo_begin(engine);
    status = submit->payloads != NULL ? add_payloads(engine, submit, piece)
                                      : add_tasks(engine, submit, &piece, NULL);
    if (status != HP_STATUS_OK) {
        (void)hp_stage_forget(engine, piece.request, NULL);
        undo_end(engine, &undo);
        return hp_engine_error_set(engine, status, "out of memory");
    }
    if (ret_request != NULL) {
        *ret_request = engine->next_request;
    }
    engine->next_request++;
    return HP_STATUS_OK;
}

/* ---------------------------------------------------------------- sending */

static enum hp_err put_message(struct hp_engine *engine, struct hp_message *message, uint64_t acked)
{
    struct hp_buf *out = &engine->out;
    uint32_t msgid = hp_engine_msgid(engine, &message->pending);
    enum hp_err err =
        msgid == 0 ? HP_ERR_NOMEM : hp_rpc_put_request(out, msgid, HP_METHOD_TASK_SUBMIT);

    err = err == HP_OK ? hp_wire_put_map(out, message->pair_count + 2) : err;
    err = err == HP_OK ? hp_wire_put_cstr(out, "number") : err;
    err = err == HP_OK ? hp_wire_put_u64(out, message->number) : err;
    err = err == HP_OK ? hp_wire_put_cstr(out, "acked_up_to") : err;
    err = err == HP_OK ? hp_wire_put_u64(out, acked) : err;
    return err == HP_OK ? hp_wire_put_raw(out, hp_buf_bin(&message->body)) : err;
}

/* One call may make more messages than the window has: the broker would refuse those as busy. */
static bool is_ahead(const struct hp_engine *engine)
{
    uint64_t first = message_of(hp_list_first(&engine->submits))->number;

    return first != 0 && message_of(engine->unsent)->number == 0 &&
           engine->next_number - first >= HP_LIMIT_SESSION_REPLIES;
}

bool hp_submit_is_ready(const struct hp_engine *engine)
{
    return engine->unsent != &engine->submits && !is_ahead(engine);
}

bool hp_submit_compose(struct hp_engine *engine)
{
    struct hp_message *message;
    uint64_t first;

    if (!hp_submit_is_ready(engine) || engine->now_ms < engine->hold_until_ms) {
        return false;
    }
    message = message_of(engine->unsent);
    if (!message->closed) {
        return false; /* it may take more until the next step */
    }
    if (message->number == 0) {
        message->number = engine->next_number++;
    }
    first = message_of(hp_list_first(&engine->submits))->number;
    if (put_message(engine, message, first - 1) != HP_OK) {
        hp_engine_fail(engine, HP_STATUS_NO_MEMORY, "out of memory");
        return false;
    }
    engine->unsent = message->link.next;
    return true;
}

/* ---------------------------------------------------------------- connections */

void hp_submit_lost(struct hp_engine *engine)
{
    struct hp_list *link;

    for (link = engine->submits.next; link != engine->unsent; link = link->next) {
        message_of(link)->pending.msgid = 0;
        message_of(link)->replayed = true;
    }
    for (link = engine->submits.next; link != &engine->submits; link = link->next) {
        message_of(link)->aged = message_of(link)->staged;
    }
    engine->unsent = engine->submits.next;
}

bool hp_submit_resume(struct hp_engine *engine, uint64_t last_number)
{
    struct hp_list *link;

    /* Numbers of submits that are not kept on disk are forgotten when the broker restarts. */
    if (last_number < engine->durable_number) {
        return false;
    }
    engine->applied_number = HP_MIN(engine->applied_number, last_number);
    /* It may also be higher than all given out here: the session is that of an earlier process. */
    engine->next_number = last_number + 1;
    for (link = engine->submits.next; link != &engine->submits; link = link->next) {
        struct hp_message *message = message_of(link);

        if (message->number > last_number) {
            message->number = 0; /* I3: the broker has not applied it */
            message->replayed = false;
        }
    }
    return true;
}

/* ---------------------------------------------------------------- outcomes */

/* Queues an item that gives one event for each call whose piece has no sink. */
static void emit(struct hp_engine *engine, const struct hp_piece *pieces, uint32_t piece_count,
                 const struct hp_event *base)
{
    struct hp_item *item;
    uint32_t kept = 0;
    size_t size = piece_count * sizeof(*pieces);

    for (uint32_t i = 0; i < piece_count; i++) {
        kept += pieces[i].sink == NULL ? 1 : 0;
    }
    if (kept == 0) {
        return;
    }
    item = hp_item_new(engine, base->kind);
    if (item != NULL) {
        item->pieces = HP_ARENA_NEW_ARRAY(&item->arena, struct hp_piece, kept);
    }
    if (item == NULL || item->pieces == NULL) {
        hp_item_free(engine, item);
        hp_engine_fail(engine, HP_STATUS_NO_MEMORY, "out of memory");
        return;
    }
    item->kind = HP_ITEM_SUBMITTED;
    item->event = *base;
    item->event.text =
        base->text == NULL ? NULL : hp_arena_copy(&item->arena, base->text, strlen(base->text));
    for (uint32_t i = 0; i < piece_count; i++) {
        if (pieces[i].sink == NULL) {
            item->pieces[item->piece_count++] = pieces[i];
        }
    }
    hp_item_queue(engine, item, size);
}

static void emit_to_sinks(const struct hp_piece *pieces, uint32_t piece_count,
                          const struct hp_event *base)
{
    for (uint32_t i = 0; i < piece_count; i++) {
        uint32_t calls = pieces[i].single ? pieces[i].count : 1;

        for (uint32_t j = 0; pieces[i].sink != NULL && j < calls; j++) {
            struct hp_event event = *base;

            event.request = pieces[i].request + j;
            event.user = pieces[i].user;
            event.index = pieces[i].index;
            event.ids.first = base->ids.first == 0 ? 0 : base->ids.first + pieces[i].offset + j;
            event.ids.count = pieces[i].single ? 1 : pieces[i].count;
            pieces[i].sink->take(pieces[i].sink, &event);
        }
    }
}

static void emit_all(struct hp_engine *engine, const struct hp_piece *pieces, uint32_t piece_count,
                     const struct hp_event *base)
{
    emit(engine, pieces, piece_count, base);
    emit_to_sinks(pieces, piece_count, base);
}

void hp_submit_fail_piece(struct hp_engine *engine, const struct hp_piece *piece,
                          enum hp_status status, const char *text)
{
    struct hp_event base = {.kind = HP_EVENT_SUBMIT_FAILED, .status = status, .text = text};

    emit_all(engine, piece, 1, &base);
}

static void message_fail(struct hp_engine *engine, struct hp_message *message,
                         enum hp_status status, const char *text)
{
    struct hp_event base = {.kind = HP_EVENT_SUBMIT_FAILED, .status = status, .text = text};

    emit_all(engine, message->pieces, message->piece_count, &base);
    hp_submit_message_free(engine, message);
}

void hp_submit_session_lost(struct hp_engine *engine)
{
    struct hp_list *link = engine->submits.next;

    while (link != &engine->submits) {
        struct hp_message *message = message_of(link);

        link = link->next;
        if (message->number != 0) {
            message_fail(engine, message, HP_STATUS_SESSION_LOST,
                         hp_strerror(HP_STATUS_SESSION_LOST));
        }
    }
    engine->next_number = 1;
    engine->applied_number = 0;
    engine->durable_number = 0;
    engine->early_number = 0;
    engine->id_max = 0;
    hp_rand_fill(&engine->rand, engine->session, HP_SESSION_BYTES);
    /* The broker will push nothing about the old session's tasks: ask from time to time. */
    engine->poll_at_ms = engine->track.left > 0 ? engine->now_ms : HP_ENGINE_NEVER;
}

/* The broker applied nothing from this message on: take the numbers back, send again later. */
static void back_off(struct hp_engine *engine, struct hp_message *message, uint64_t delay_ms)
{
    struct hp_list *link;

    engine->next_number = message->number;
    for (link = &message->link; link != engine->unsent; link = link->next) {
        struct hp_message *later = message_of(link);

        if (later->pending.msgid != 0) {
            (void)hp_idmap_remove(&engine->replies, later->pending.msgid, NULL);
            later->pending.msgid = 0;
        }
        later->number = 0;
        later->replayed = false;
    }
    engine->unsent = &message->link;
    engine->hold_until_ms =
        engine->now_ms + delay_ms + hp_rand_uniform(&engine->rand, delay_ms / 4 + 1);
}

static void message_done(struct hp_engine *engine, struct hp_message *message,
                         const struct hp_msg_task_submit_reply *reply)
{
    struct hp_event base = {.kind = HP_EVENT_SUBMITTED,
                            .ids = {.first = reply->first, .count = reply->count},
                            .outcome = (enum hp_outcome)reply->outcome};
    bool missed = message->replayed || message->number <= engine->early_number;
    bool tracked = tracked_tasks(message) > 0;

    if (tracked && hp_track_add(&engine->track, base.ids, message->pieces, message->piece_count,
                                missed ? HP_CHECK_WANTED : HP_CHECK_NONE) != HP_OK) {
        hp_engine_fail(engine, HP_STATUS_NO_MEMORY, "out of memory");
        return; /* not acknowledged: it is asked for again on the next connection */
    }
    if (tracked && base.outcome == HP_OUTCOME_JOINED &&
        hp_check_watch(engine, reply->first) != HP_OK) {
        hp_engine_fail(engine, HP_STATUS_NO_MEMORY, "out of memory");
    }
    engine->applied_number = HP_MAX(engine->applied_number, message->number);
    if (message->lasting) {
        engine->durable_number = HP_MAX(engine->durable_number, message->number);
    }
    engine->id_max = HP_MAX(engine->id_max, reply->first + reply->count - 1);
    for (uint32_t i = 0; message->follow && i < reply->count && i < HP_FOLLOWED_MAX; i++) {
        hp_engine_follow(engine, reply->first + i, true);
    }
    emit_all(engine, message->pieces, message->piece_count, &base);
    hp_submit_message_free(engine, message);
}

void hp_submit_reply(struct hp_engine *engine, struct hp_message *message,
                     const struct hp_reply *reply)
{
    struct hp_msg_task_submit_reply submitted;
    struct hp_error error = {0};

    if (reply->status == HP_STATUS_BUSY || reply->status == HP_STATUS_DRAINING) {
        back_off(engine, message, reply->retry_after_ms > 0 ? reply->retry_after_ms : BUSY_MS);
        return;
    }
    if (reply->status != HP_STATUS_OK && !message->lasting &&
        (message->replayed || message->aged)) { /* the broker has restarted since */
        message_fail(engine, message, HP_STATUS_BROKER_LOST, hp_strerror(HP_STATUS_BROKER_LOST));
        return;
    }
    if (reply->status == HP_STATUS_OUT_OF_ORDER && message->misorder_count < MISORDER_COUNT_MAX) {
        /* Numbers are out of step, as after a refused message that the broker did not count: the
         * next hello tells where it is. */
        message->misorder_count++;
        hp_engine_fail(engine, HP_STATUS_OUT_OF_ORDER, "%s", reply->text);
        return;
    }
    if (reply->status != HP_STATUS_OK) {
        message_fail(engine, message, reply->status, reply->text);
        return;
    }
    if (hp_msg_task_submit_reply_decode(reply->result, &engine->arena, &submitted, &error) !=
        HP_OK) {
        hp_engine_fail(engine, HP_STATUS_PROTOCOL, "%s", error.text);
        return;
    }
    if (submitted.first == 0 || submitted.count != message->count ||
        submitted.first > UINT64_MAX - submitted.count) {
        hp_engine_fail(engine, HP_STATUS_PROTOCOL,
                       "the broker's answer to a submit makes no sense");
        return;
    }
    message_done(engine, message, &submitted);
}
