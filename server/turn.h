/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The broker's turn: what the loop gathered becomes events of the core; what the core wants done is
 * handed to the store thread, the blob thread and the connections. The loop never waits for a disk.
 *
 * Order within a turn, and why:
 *  1. wait for events; read both clocks once
 *  2. step the core: what the store and blob threads finished, then connections and their frames
 *  3. hand the batch to the store thread (so that it works while we write), then the loads
 *  4. sends, closes, log lines; flush: one write() for each connection
 */
#ifndef HP_SERVER_TURN_H
#define HP_SERVER_TURN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/net/loop.h"
#include "server/core/core.h"
#include "server/peers.h"
#include "server/store/blob.h"
#include "server/store/thread.h"

struct hp_turn;

struct hp_turn_options {
    struct hp_loop *loop; /* borrowed, as all below */
    struct hp_core *core; /* recovered */
    uint32_t hold_us;     /* longest hold of a commit; 0: none */
    uint64_t last_batch;  /* number of the last batch of earlier runs */
};

/* NULL: out of memory or descriptors. */
struct hp_turn *hp_turn_new(const struct hp_turn_options *options);
void hp_turn_free(struct hp_turn *turn);

/* The threads and connections it works with; all before the first turn. */
void hp_turn_attach(struct hp_turn *turn, struct hp_store_thread *store, struct hp_blobs *blobs,
                    struct hp_peers *peers);

/* For the threads' wake callbacks: posts to the loop. Any thread. `context` is the turn. */
void hp_turn_wake_store(void *context);
void hp_turn_wake_blobs(void *context);

/* Asks for a drain in the next turn. */
void hp_turn_drain(struct hp_turn *turn, uint64_t grace_ms);

/*
 * One turn, waiting at most wait_ms_max. HP_ERR_IO: the loop is broken.
 */
enum hp_err hp_turn_run(struct hp_turn *turn, uint64_t wait_ms_max) HP_MUST_CHECK;

/* True when a drain is through and every batch handed over is durable. */
bool hp_turn_is_drained(const struct hp_turn *turn);

struct hp_turn_figures {
    uint64_t turns;
    uint64_t frames_waiting; /* sends that wait for a commit */
    uint64_t waiting_bytes;
    uint64_t turn_us_max; /* longest turn, the wait not counted */
    uint64_t held;        /* commits that were held */
};
void hp_turn_figures(const struct hp_turn *turn, struct hp_turn_figures *ret_figures);

#endif
