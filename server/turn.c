/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The turn.
 *
 * I1: batches go to the store thread in the order of their numbers, empty ones not at all.
 * I2: a send that waits for commit K leaves only when `durable` covers the last batch that has ops
 *     and a number of at most K.
 * I3: loads are handed over after every batch of their turn and before, held or not.
 */
#include "server/turn.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/list.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"
#include "common/sys/crash.h"
#include "common/sys/log.h"
#include "server/trace.h"

#define SPARE_BATCHES_MAX 16u
#define RECEIPT_WAIT_MS 2u /* a receipt leaves after so long if it has no company */
#define PENDING_BYTES_MAX                                                                          \
    (32u << 20) /* handed over and not durable: above it only workers are heard */

/* A send that waits for a commit. */
struct waiting_send {
    struct hp_list link;
    uint64_t conn;
    uint64_t after; /* number of a batch that has ops */
    struct hp_buf bytes;
    bool may_wait;
};

struct hp_turn {
    struct hp_turn_options options;
    struct hp_store_thread *store;
    struct hp_blobs *blobs;
    struct hp_peers *peers;
    struct hp_wake *store_wake;
    struct hp_wake *blob_wake;
    struct hp_alarm *hold_alarm;
    struct hp_effects effects;
    struct hp_batch *batch; /* of the turn that runs */
    struct hp_batch *spare; /* to be used again, linked by next */
    uint32_t spare_count;
    struct hp_batch *held_first; /* not yet handed over, in order */
    struct hp_batch *held_last;
    uint64_t hold_end_us;   /* when the hold ends at the latest; 0: nothing is held */
    uint64_t last_number;   /* of the last batch with ops */
    uint64_t last_put;      /* of the last one handed over */
    uint64_t durable;       /* every batch up to it is durable */
    uint64_t pending_bytes; /* of what was handed over and is not durable */
    struct hp_list waiting; /* struct waiting_send, by `after` */
    uint64_t now_ms;
    uint64_t later_ms; /* when receipts that wait are sent at the latest; 0: none wait */
    bool has_store_news;
    bool has_blob_news;
    bool is_disk_low;
    bool is_drain_asked;
    uint64_t drain_grace_ms;
    struct hp_turn_figures figures;
};

static void on_store_wake(struct hp_wake *wake, void *context)
{
    struct hp_turn *turn = context;
    (void)wake;
    turn->has_store_news = true;
}

static void on_blob_wake(struct hp_wake *wake, void *context)
{
    struct hp_turn *turn = context;
    (void)wake;
    turn->has_blob_news = true;
}

static void on_hold_over(struct hp_alarm *alarm, void *context)
{
    (void)alarm;
    (void)context; /* it ends the wait of the loop; the turn looks at the clock */
}

void hp_turn_wake_store(void *context)
{
    hp_wake_post(((struct hp_turn *)context)->store_wake);
}

void hp_turn_wake_blobs(void *context)
{
    hp_wake_post(((struct hp_turn *)context)->blob_wake);
}

struct hp_turn *hp_turn_new(const struct hp_turn_options *options)
{
    struct hp_turn *turn = hp_calloc(1, sizeof(*turn));
    if (turn == NULL) {
        return NULL;
    }
    turn->options = *options;
    turn->durable = options->last_batch;
    turn->last_number = options->last_batch;
    turn->last_put = options->last_batch;
    hp_list_init(&turn->waiting);
    hp_effects_init(&turn->effects);
    turn->store_wake = hp_wake_new(options->loop, on_store_wake, turn);
    turn->blob_wake = hp_wake_new(options->loop, on_blob_wake, turn);
    turn->hold_alarm = hp_alarm_new(options->loop, on_hold_over, turn);
    if (turn->store_wake == NULL || turn->blob_wake == NULL || turn->hold_alarm == NULL) {
        hp_turn_free(turn);
        return NULL;
    }
    return turn;
}

static void free_batches(struct hp_batch *batch)
{
    while (batch != NULL) {
        struct hp_batch *next = batch->next;
        hp_batch_free(batch);
        batch = next;
    }
}

void hp_turn_free(struct hp_turn *turn)
{
    if (turn == NULL) {
        return;
    }
    struct hp_list *node = NULL;
    while ((node = hp_list_pop_front(&turn->waiting)) != NULL) {
        struct waiting_send *send = HP_LIST_ENTRY(node, struct waiting_send, link);
        hp_buf_deinit(&send->bytes);
        hp_free(send);
    }
    free_batches(turn->held_first);
    free_batches(turn->spare);
    hp_effects_deinit(&turn->effects);
    hp_alarm_free(turn->hold_alarm);
    hp_wake_free(turn->blob_wake);
    hp_wake_free(turn->store_wake);
    hp_free(turn);
}

void hp_turn_attach(struct hp_turn *turn, struct hp_store_thread *store, struct hp_blobs *blobs,
                    struct hp_peers *peers)
{
    turn->store = store;
    turn->blobs = blobs;
    turn->peers = peers;
}

void hp_turn_drain(struct hp_turn *turn, uint64_t grace_ms)
{
    turn->is_drain_asked = true;
    turn->drain_grace_ms = grace_ms;
}

/* ------------------------------------------------------------------------------------- batches */

static struct hp_batch *take_spare(struct hp_turn *turn)
{
    struct hp_batch *batch = turn->spare;
    if (batch == NULL) {
        return hp_batch_new();
    }
    turn->spare = batch->next;
    turn->spare_count--;
    batch->next = NULL;
    return batch;
}

static void give_spare(struct hp_turn *turn, struct hp_batch *batch)
{
    if (turn->spare_count >= SPARE_BATCHES_MAX) {
        hp_batch_free(batch);
        return;
    }
    hp_batch_clear(batch, 0);
    batch->next = turn->spare;
    turn->spare = batch;
    turn->spare_count++;
}

static void put_held(struct hp_turn *turn)
{
    for (const struct hp_batch *batch = turn->held_first; batch != NULL; batch = batch->next) {
        HP_ASSERT(batch->number > turn->last_put); /* I1 */
        turn->last_put = batch->number;
        turn->pending_bytes += hp_arena_used(&batch->arena);
    }
    if (turn->held_first != NULL) {
        HP_CRASH_POINT("batch.put");
        hp_store_thread_put(turn->store, HP_TAKE(turn->held_first)); /* all at once: one commit */
    }
    turn->held_last = NULL;
    if (turn->hold_end_us != 0) {
        turn->hold_end_us = 0;
        hp_alarm_clear(turn->hold_alarm);
    }
}

static bool is_store_idle(const struct hp_turn *turn)
{
    return turn->durable >= turn->last_put;
}

/*
 * Takes the turn's batch off it: handed over at once, or held for a moment while all that is held
 * is out at idle workers, because the results may then share the commit. While the store is busy a
 * hold gains nothing: it gathers what comes meanwhile.
 */
static void finish_batch(struct hp_turn *turn, bool may_hold)
{
    struct hp_batch *batch = HP_TAKE(turn->batch);
    bool is_empty = batch->op_count == 0;
    if (is_empty) {
        give_spare(turn, batch);
    } else {
        batch->next = NULL;
        if (turn->held_last != NULL) {
            turn->held_last->next = batch;
        } else {
            turn->held_first = batch;
        }
        turn->held_last = batch;
        turn->last_number = batch->number;
    }
    if (turn->held_first == NULL) {
        return;
    }
    uint64_t now_us = hp_clock_mono_us();
    if (turn->hold_end_us == 0 && may_hold && turn->options.hold_us > 0 && is_store_idle(turn)) {
        turn->hold_end_us = now_us + turn->options.hold_us;
        turn->figures.held++;
        hp_alarm_set_us(turn->hold_alarm, turn->options.hold_us);
        return;
    }
    bool goes_on = turn->hold_end_us != 0 && now_us < turn->hold_end_us && (is_empty || may_hold);
    if (!goes_on) {
        put_held(turn);
    }
}

/* --------------------------------------------------------------------------------------- sends */

static void release_sends(struct hp_turn *turn)
{
    struct hp_list *node = NULL;
    while ((node = hp_list_first(&turn->waiting)) != NULL) {
        struct waiting_send *send = HP_LIST_ENTRY(node, struct waiting_send, link);
        if (send->after > turn->durable) {
            break; /* I2 */
        }
        hp_list_remove(node);
        turn->figures.frames_waiting--;
        turn->figures.waiting_bytes -= send->bytes.size;
        HP_CRASH_POINT("send.held.before");
        hp_peers_send(turn->peers, send->conn, &send->bytes, send->may_wait);
        HP_CRASH_POINT("send.held.after");
        hp_free(send);
    }
}

static void do_send(struct hp_turn *turn, struct hp_effect *effect)
{
    uint64_t after = HP_MIN(effect->send.after_commit, turn->last_number); /* I2 */
    if (after <= turn->durable) {
        HP_CRASH_POINT("send.now");
        hp_peers_send(turn->peers, effect->conn, &effect->send.bytes, effect->send.may_wait);
        return;
    }
    struct waiting_send *send = hp_calloc(1, sizeof(*send));
    HP_ASSERT(send != NULL); /* an acknowledgement cannot be dropped, nor sent too early */
    send->conn = effect->conn;
    send->after = after;
    send->may_wait = effect->send.may_wait;
    send->bytes = effect->send.bytes;
    effect->send.bytes = (struct hp_buf){0};
    turn->figures.frames_waiting++;
    turn->figures.waiting_bytes += send->bytes.size;
    struct hp_list *at = turn->waiting.prev; /* almost always the end */
    while (at != &turn->waiting && HP_LIST_ENTRY(at, struct waiting_send, link)->after > after) {
        at = at->prev;
    }
    hp_list_insert_after(at, &send->link);
}

static void do_load(struct hp_turn *turn, struct hp_effect *effect)
{
    put_held(turn); /* I3 */
    hp_store_thread_load(turn->store, HP_TAKE(effect->load));
}

static void do_effects(struct hp_turn *turn)
{
    for (uint32_t i = 0; i < turn->effects.count; i++) {
        struct hp_effect *effect = &turn->effects.items[i];
        switch (effect->kind) {
        case HP_EFFECT_SEND:
            do_send(turn, effect);
            break;
        case HP_EFFECT_CLOSE:
            hp_peers_close(turn->peers, effect->conn, effect->close.reason);
            break;
        case HP_EFFECT_LOAD:
            do_load(turn, effect);
            break;
        case HP_EFFECT_BLOB:
            hp_blobs_submit(turn->blobs, effect);
            break;
        case HP_EFFECT_TRACE:
            hp_trace_log(effect->trace.level, effect->trace.event, effect->trace.text);
            break;
        }
    }
    hp_effects_clear(&turn->effects);
}

/* -------------------------------------------------------------------------------------- events */

static void step(struct hp_turn *turn, const struct hp_event *event)
{
    hp_core_step(turn->options.core, event);
}

static void feed_loaded(struct hp_turn *turn, struct hp_loaded *loaded)
{
    while (loaded != NULL) {
        struct hp_loaded *next = loaded->next_loaded;
        struct hp_event event = {.kind = HP_EVENT_LOADED, .loaded = loaded};
        step(turn, &event);
        hp_loaded_free(loaded);
        loaded = next;
    }
}

static void recycle_batches(struct hp_turn *turn, struct hp_batch *batch)
{
    while (batch != NULL) {
        struct hp_batch *next = batch->next;
        uint64_t bytes = hp_arena_used(&batch->arena);
        turn->pending_bytes -= HP_MIN(bytes, turn->pending_bytes);
        give_spare(turn, batch);
        batch = next;
    }
}

static void feed_store(struct hp_turn *turn)
{
    struct hp_store_done done = {0};
    if (!turn->has_store_news) {
        return;
    }
    turn->has_store_news = false;
    if (!hp_store_thread_take(turn->store, &done)) {
        return;
    }
    recycle_batches(turn, done.batches);
    if (done.durable > turn->durable) {
        turn->durable = done.durable;
        struct hp_event event = {.kind = HP_EVENT_COMMITTED, .number = done.durable};
        step(turn, &event);
    }
    if (done.disk_low != turn->is_disk_low) {
        turn->is_disk_low = done.disk_low;
        struct hp_event event = {.kind = HP_EVENT_PRESSURE};
        event.pressure.disk_low = done.disk_low;
        step(turn, &event);
        hp_log(done.disk_low ? HP_LOG_WARN : HP_LOG_INFO, done.disk_low ? "disk_low" : "disk_ok",
               HP_KV_STR("submits", done.disk_low ? "refused as busy" : "taken"));
    }
    feed_loaded(turn, done.loaded);
}

static enum hp_event_kind blob_event_kind(enum hp_blob_verb verb)
{
    switch (verb) {
    case HP_BLOB_OPEN:
        return HP_EVENT_BLOB_OPENED;
    case HP_BLOB_PUT:
        return HP_EVENT_BLOB_PUT;
    case HP_BLOB_GET:
        return HP_EVENT_BLOB_GOT;
    case HP_BLOB_GIVE:
        return HP_EVENT_BLOB_GIVEN;
    case HP_BLOB_LEND:
        return HP_EVENT_BLOB_LENT;
    case HP_BLOB_DROP:
        break; /* is not answered */
    }
    HP_UNREACHABLE();
}

static void feed_blobs(struct hp_turn *turn)
{
    if (!turn->has_blob_news) {
        return;
    }
    turn->has_blob_news = false;
    struct hp_blob_answer *answer = hp_blobs_take(turn->blobs);
    while (answer != NULL) {
        struct hp_blob_answer *next = answer->next;
        struct hp_event event = {.kind = blob_event_kind(answer->verb), .conn = answer->conn};
        event.blob.msgid = answer->msgid;
        event.blob.blob = answer->blob;
        event.blob.err = answer->err;
        event.blob.text = answer->text;
        event.blob.size = answer->size;
        event.blob.digest = answer->digest;
        event.blob.has_digest = answer->has_digest;
        event.blob.place = answer->place;
        event.blob.data = answer->data;
        event.blob.last = answer->last;
        step(turn, &event);
        hp_blob_answer_free(answer);
        answer = next;
    }
}

static void feed_drain(struct hp_turn *turn)
{
    if (turn->is_drain_asked) {
        turn->is_drain_asked = false;
        struct hp_event event = {.kind = HP_EVENT_DRAIN};
        event.drain.grace_ms = turn->drain_grace_ms;
        step(turn, &event);
    }
}

/* ---------------------------------------------------------------------------------- the turn */

/* A full disk keeps batches pending for long; heartbeats must get through nevertheless. */
static bool may_take_all(const struct hp_turn *turn)
{
    return turn->pending_bytes < PENDING_BYTES_MAX || turn->is_disk_low;
}

static uint64_t wait_ms(const struct hp_turn *turn, uint64_t wait_ms_max)
{
    if (turn->is_drain_asked || hp_peers_have_input(turn->peers, may_take_all(turn))) {
        return 0;
    }
    uint64_t now_ms = hp_clock_boot_ms();
    uint64_t deadline_ms = hp_core_next_deadline_ms(turn->options.core);
    if (deadline_ms == UINT64_MAX && turn->later_ms == 0) {
        return wait_ms_max;
    }
    if (turn->later_ms != 0) {
        deadline_ms = HP_MIN(deadline_ms, turn->later_ms);
    }
    uint64_t until_ms = deadline_ms > now_ms ? deadline_ms - now_ms : 0;
    return HP_MIN(until_ms, wait_ms_max);
}

/* Receipts wait for company, but not for long. */
static void flush_output(struct hp_turn *turn)
{
    if (turn->later_ms != 0 && turn->now_ms >= turn->later_ms) {
        turn->later_ms = 0;
        hp_loop_touch_later(turn->options.loop);
    }
    hp_loop_flush(turn->options.loop);
    if (turn->later_ms == 0 && hp_loop_has_later(turn->options.loop)) {
        turn->later_ms = turn->now_ms + RECEIPT_WAIT_MS;
    }
}

enum hp_err hp_turn_run(struct hp_turn *turn, uint64_t wait_ms_max)
{
    enum hp_err err = hp_loop_turn(turn->options.loop, wait_ms(turn, wait_ms_max));
    if (err != HP_OK) {
        return err;
    }
    uint64_t begin_us = hp_clock_mono_us();
    struct hp_core *core = turn->options.core;
    turn->now_ms = HP_MAX(hp_clock_boot_ms(), turn->now_ms);
    turn->batch = take_spare(turn);
    HP_ASSERT(turn->batch != NULL); /* without memory for a batch the core cannot go on */
    hp_core_begin(core, turn->now_ms, (int64_t)hp_clock_wall_ms(), turn->batch, &turn->effects);
    feed_store(turn);
    feed_blobs(turn);
    feed_drain(turn);
    hp_peers_feed(turn->peers, turn->batch, may_take_all(turn));
    hp_core_end(core);
    finish_batch(turn, hp_core_may_hold(core));
    release_sends(turn); /* older replies first */
    do_effects(turn);
    flush_output(turn);
    turn->figures.turns++;
    turn->figures.turn_us_max = HP_MAX(turn->figures.turn_us_max, hp_clock_mono_us() - begin_us);
    return HP_OK;
}

bool hp_turn_is_drained(const struct hp_turn *turn)
{
    return !turn->is_drain_asked && turn->held_first == NULL && is_store_idle(turn) &&
           hp_list_is_empty(&turn->waiting) && hp_core_is_drained(turn->options.core);
}

void hp_turn_figures(const struct hp_turn *turn, struct hp_turn_figures *ret_figures)
{
    *ret_figures = turn->figures;
}
