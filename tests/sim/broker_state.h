/* SPDX-License-Identifier: BSD-2-Clause */
/* What broker.c, broker_store.c and broker_blob.c share. */
#ifndef HP_TESTS_SIM_BROKER_STATE_H
#define HP_TESTS_SIM_BROKER_STATE_H
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/buf.h"
#include "common/base/mem.h"
#include "proto/hp_msg.h"
#include "proto/tokenizer.h"
#include "proto/wire.h"
#include "server/core/core.h"
#include "server/core/pack.h"
#include "server/core/state.h"
#include "server/store/store.h"
#include "tests/sim/sim.h"

enum { FRAMES_PER_TURN = 24, HOLD_US = 300, LOOK_US = 5000 };

struct peer {
    uint64_t conn;
    struct hp_buf in;
    struct hp_tok tok;
    bool greeted, over, ended, told;
    struct peer *next;
};

struct waiting {
    struct waiting *next;
    uint64_t conn, after;
    struct hp_buf bytes;
};

/* What the store's thread has to do, in order. */
struct job {
    struct job *next;
    struct hp_batch *batch;
    struct hp_load *load;
};

/* What it has done, until the core hears of it. */
struct news {
    struct news *next;
    uint64_t durable;         /* or */
    struct hp_loaded *loaded; /* or */
    struct hp_event *blob;    /* or; its data behind it */
    bool pressure, disk_low;
};

struct sim_blobs;

struct sim_broker {
    struct sim *sim;
    struct hp_store *store;
    struct hp_core *core;
    struct hp_effects effects;
    uint64_t generation;
    bool up, paused, woken, draining;
    struct peer *peers;
    struct waiting *waiting_first, *waiting_last;
    struct job *jobs_first, *jobs_last;
    bool store_busy, store_slow, disk_full, told_full;
    uint64_t in_commit; /* batches of the commit under way */
    uint64_t stored;    /* number of the latest batch in the store */
    uint64_t stall_us, blob_stall_us;
    struct sim_blobs *blobs;
    struct sim_fault *armed;
    bool has_sent; /* something that waited for a commit, in this turn */
    struct news *news_first, *news_last;
    struct hp_batch *held_first, *held_last;
    uint64_t hold_until_us;
    uint64_t durable, last_number, last_put;
    uint64_t deadline_us;
};

void sim_broker_put_job(struct sim_broker *broker, struct hp_batch *batch, struct hp_load *load);
struct job *sim_broker_take_job(struct sim_broker *broker);
/* The commit under way is in the store, and the auditor knows. */
void sim_broker_apply(struct sim_broker *broker, uint64_t count);
/* It dies here, if that fault is armed; it is back after the fault's span. */
bool sim_broker_strikes(struct sim_broker *broker, enum sim_fault_kind kind);
void sim_broker_wake(struct sim_broker *broker);
/* An answer of the blob thread; its data is copied. */
void sim_broker_tell_blob(struct sim_broker *broker, const struct hp_event *answer);

/* broker_blob.c */
struct sim_blobs *sim_blobs_new(void);
void sim_blobs_free(struct sim_broker *broker);
void sim_blobs_ask(struct sim_broker *broker, const struct hp_effect *effect);
void sim_blobs_crash(struct sim_broker *broker);
/* Of a whole blob; empty: it is not there. */
struct hp_bin sim_blobs_bytes(const struct sim_broker *broker, uint64_t id);
/* A commit says that a task has it, and ties its file to a task: whole, and to the same one. */
void sim_blobs_want(struct sim_broker *broker, uint64_t id, uint64_t task);
void sim_blobs_tie(struct sim_broker *broker, uint64_t id, uint64_t owner);
/* The whole transaction is in; files whose task the store has forgotten go. */
void sim_blobs_committed(struct sim_broker *broker);

#endif
