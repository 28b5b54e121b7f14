/* SPDX-License-Identifier: BSD-2-Clause */
/* The broker's stages: the core with its tokenizer, and the store. As server/turn.c, in line. */
#include <stdlib.h>
#include <string.h>

#include "common/base/mem.h"
#include "proto/tokenizer.h"
#include "server/core/core.h"
#include "server/core/event.h"
#include "server/store/store.h"
#include "tests/cost/cost.h"

enum { SENDS_MAX = 64 };

/* A frame that leaves when a batch is durable. */
struct waiting_send {
    uint64_t conn, after;
    struct hp_buf bytes;
};

struct cost_broker {
    struct hp_core *core;
    struct hp_store *store;
    struct hp_effects effects;
    struct hp_batch *batch; /* of the turn */
    uint64_t last_batch, durable;
    struct waiting_send sends[SENDS_MAX];
    uint32_t send_count;
    struct hp_tok tok[COST_CONNS];
    bool opened;
};

static void recover_one(void *context, const struct hp_record *record)
{
    struct cost *cost = context;
    if (record->kind == HP_RECORD_META) {
        cost->broker->durable = cost->broker->last_batch = record->meta.last_batch;
    }
    hp_core_recover(cost->broker->core, record, cost->now_ms, cost->wall_ms);
}

void broker_open(struct cost *cost, const char *folder)
{
    struct hp_store_options options = {.dir = folder, .create = true};
    struct hp_core_config config;
    struct hp_error error;
    cost->broker = hp_calloc(1, sizeof(*cost->broker));
    if (cost->broker == NULL) {
        cost_fail("no memory");
    }
    hp_core_config_init(&config);
    config.server = "cost";
    config.seed = 7;
    cost->broker->core = hp_core_new(&config);
    cost_must(hp_store_sqlite_open(&options, &cost->broker->store, &error), "open the database");
    cost_must(hp_store_recover(cost->broker->store, recover_one, cost, &error), "recover");
    hp_effects_init(&cost->broker->effects);
    for (uint32_t i = 0; i < COST_CONNS; i++) {
        hp_buf_init(&cost->to_broker[i], 64u << 20);
        hp_buf_init(&cost->from_broker[i], 64u << 20);
        hp_tok_init(&cost->broker->tok[i], &hp_tok_limits_open);
    }
    cost->broker->batch = hp_batch_new();
}

void broker_close(struct cost *cost)
{
    hp_store_close(cost->broker->store);
    hp_core_free(cost->broker->core);
    hp_effects_deinit(&cost->broker->effects);
    hp_batch_free(cost->broker->batch);
    hp_free(cost->broker);
    for (uint32_t i = 0; i < COST_CONNS; i++) {
        hp_buf_deinit(&cost->to_broker[i]);
        hp_buf_deinit(&cost->from_broker[i]);
    }
}

static void open_conns(struct cost *cost)
{
    for (uint64_t conn = 1; conn <= COST_CONNS && !cost->broker->opened; conn++) {
        struct hp_event event = {.kind = HP_EVENT_CONN_OPENED, .conn = conn};
        event.opened.peer = "127.0.0.1:1";
        event.opened.loopback = true;
        hp_core_step(cost->broker->core, &event);
    }
    cost->broker->opened = true;
}

/* All whole frames of a connection. */
static void feed_frames(struct cost *cost, uint64_t conn)
{
    struct hp_buf *in = &cost->to_broker[conn - 1];
    size_t used = 0;
    while (used < in->size && hp_core_wants_input(cost->broker->core, conn)) {
        size_t size = 0;
        const char *why = NULL;
        for (uint32_t i = 0; i <= cost->scan_more; i++) {
            hp_tok_reset(&cost->broker->tok[conn - 1]);
            if (hp_tok_scan(&cost->broker->tok[conn - 1], in->data + used, in->size - used, &size,
                            &why) != HP_TOK_DONE) {
                cost_fail("a frame is cut");
            }
        }
        struct hp_event event = {.kind = HP_EVENT_FRAME,
                                 .conn = conn,
                                 .frame = {.data = in->data + used, .size = (uint32_t)size}};
        hp_core_step(cost->broker->core, &event);
        used += size;
    }
    hp_buf_consume(in, used);
}

/* A turn; `loaded` and a commit are part of it if there are any. */
__attribute__((noinline)) static void cost_core_turn(struct cost *cost, uint64_t committed,
                                                     const struct hp_loaded *loaded)
{
    hp_core_begin(cost->broker->core, cost->now_ms, cost->wall_ms, cost->broker->batch,
                  &cost->broker->effects);
    open_conns(cost);
    if (committed != 0) {
        struct hp_event event = {.kind = HP_EVENT_COMMITTED, .number = committed};
        hp_core_step(cost->broker->core, &event);
    }
    if (loaded != NULL) {
        struct hp_event event = {.kind = HP_EVENT_LOADED, .loaded = loaded};
        hp_core_step(cost->broker->core, &event);
    }
    for (uint64_t conn = 1; conn <= COST_CONNS; conn++) {
        feed_frames(cost, conn);
    }
    hp_core_end(cost->broker->core);
}

__attribute__((noinline)) static void cost_store_apply(struct cost *cost)
{
    struct hp_error error;
    cost_must(hp_store_apply(cost->broker->store, &cost->broker->batch, 1, &error), "apply");
}

/* Background work, as after the quiet of 2 ms: log copied, what was forgotten removed. */
__attribute__((noinline)) static void cost_store_idle(struct cost *cost)
{
    struct hp_error error;
    bool more = true;
    for (int i = 0; i < 8 && more; i++) {
        cost_must(hp_store_idle(cost->broker->store, &more, &error), "idle");
    }
}

static void deliver(struct cost *cost)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < cost->broker->send_count; i++) {
        struct waiting_send *send = &cost->broker->sends[i];
        if (send->after > cost->broker->durable) {
            cost->broker->sends[kept++] = *send;
            continue;
        }
        cost_must(hp_buf_append_buf(&cost->from_broker[send->conn - 1], &send->bytes), "append");
        hp_buf_deinit(&send->bytes);
    }
    cost->broker->send_count = kept;
}

/* What the turn wants: frames are kept until durable; returns a load, or NULL. */
static struct hp_loaded *take_effects(struct cost *cost)
{
    struct hp_loaded *loaded = NULL;
    for (uint32_t i = 0; i < cost->broker->effects.count; i++) {
        struct hp_effect *effect = &cost->broker->effects.items[i];
        if (effect->kind == HP_EFFECT_SEND) {
            if (cost->broker->send_count == SENDS_MAX) {
                cost_fail("too many frames at once");
            }
            uint64_t after = effect->send.after_commit;
            cost->broker->sends[cost->broker->send_count++] = (struct waiting_send){
                .conn = effect->conn,
                .after = after < cost->broker->last_batch ? after : cost->broker->last_batch,
                .bytes = effect->send.bytes};
            effect->send.bytes = (struct hp_buf){0};
        } else if (effect->kind == HP_EFFECT_LOAD && loaded == NULL) {
            loaded = hp_loaded_new(effect->load);
            effect->load = NULL;
        } else if (effect->kind == HP_EFFECT_CLOSE || effect->kind == HP_EFFECT_LOAD) {
            cost_fail(effect->kind == HP_EFFECT_CLOSE ? effect->close.reason : "two loads");
        }
    }
    hp_effects_clear(&cost->broker->effects);
    return loaded;
}

void broker_run(struct cost *cost)
{
    uint64_t committed = 0;
    struct hp_loaded *loaded = NULL;
    for (bool more = true; more;) {
        hp_batch_clear(cost->broker->batch, 0); /* the core numbers it */
        cost_core_turn(cost, committed, loaded);
        hp_loaded_free(loaded);
        committed = 0;
        if (cost->broker->batch->op_count > 0) {
            cost->broker->last_batch = cost->broker->batch->number;
        }
        loaded = take_effects(cost);
        if (cost->broker->batch->op_count > 0) {
            cost_store_apply(cost);
            committed = cost->broker->durable = cost->broker->last_batch;
        }
        if (loaded != NULL && !hp_store_load(cost->broker->store, loaded)) {
            cost_fail("a load has more");
        }
        deliver(cost);
        more = committed != 0 || loaded != NULL;
    }
    cost_store_idle(cost);
}
