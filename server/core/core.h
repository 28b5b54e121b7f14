/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The broker's core: a deterministic state machine. No I/O, clock, thread or randomness of its own.
 *
 * A turn:   hp_core_begin(core, now, wall, batch, effects)
 *           hp_core_step(core, event)           any number of times
 *           hp_core_end(core)                   dispatches, coalesces, fills batch and effects
 * then the shell hands the batch (if it has ops) to the store and carries out the effects.
 * Batches are numbered by hp_core_begin: batch->number is set there. A SEND with after_commit = K
 * is released when every non-empty batch up to K is durable.
 *
 * Start: hp_core_new, hp_core_recover for each record of the store, then turns.
 * Not thread-safe: one thread owns a core.
 */
#ifndef HP_SERVER_CORE_CORE_H
#define HP_SERVER_CORE_CORE_H

#include "common/base/buf.h"
#include "server/core/effect.h"
#include "server/core/event.h"
#include "server/core/op.h"

struct hp_core;

struct hp_core_config {
    const char *server;     /* "hostpool 0.1.0", copied */
    const char *token;      /* NULL: none asked; copied */
    const char *warning;    /* shown in hello and broker.status, or NULL; copied */
    uint64_t seed;          /* for jitter and hash seeds */
    uint64_t lease_ms;      /* default 30000 */
    uint64_t heartbeat_ms;  /* default 5000 */
    uint64_t age_step_ms;   /* default 60000: one priority level */
    uint64_t prehello_ms;   /* default 5000 */
    uint32_t window_runs;   /* runs kept in memory per lane, default 1024 */
    uint32_t window_timers; /* delayed, returned, expiring rows kept in memory, default 20000 */
    uint64_t window_bytes;  /* payload bytes kept in memory over all lanes, default 32 MiB */
    uint64_t volatile_bytes_max; /* of all that is not durable, default 256 MiB */
    uint32_t backlog_ops_max; /* uncommitted ops above which nothing is read or dispatched, 8000 */
    bool eager;               /* functions' first attempts may go out before their commit */
    uint32_t near_pid;        /* this process; 0: content is not handed over by descriptor */
    uint32_t near_fd;         /* its proof: sealed memory that holds near_proof */
    uint8_t near_proof[HP_CONN_KEY_BYTES];
};

/* Sets the defaults. */
void hp_core_config_init(struct hp_core_config *config);

/* Never NULL. */
struct hp_core *hp_core_new(const struct hp_core_config *config);
void hp_core_free(struct hp_core *core);

/* Feeds what the store found at start; META first. `wall_ms` is now. */
void hp_core_recover(struct hp_core *core, const struct hp_record *record, uint64_t now_ms,
                     int64_t wall_ms);

/* now_ms: monotonic, never goes back (asserted). wall_ms: the wall clock, only data. */
void hp_core_begin(struct hp_core *core, uint64_t now_ms, int64_t wall_ms, struct hp_batch *batch,
                   struct hp_effects *effects);
void hp_core_step(struct hp_core *core, const struct hp_event *event);
void hp_core_end(struct hp_core *core);

/* When the core wants a turn even if nothing happens; UINT64_MAX: never. */
uint64_t hp_core_next_deadline_ms(const struct hp_core *core);
/* False: keep this connection's bytes for later (its session is loading, or the store is behind).
 */
bool hp_core_wants_input(const struct hp_core *core, uint64_t conn);
/* True: to be heard also while the store is far behind: a worker, whose heartbeats keep its lease,
 * or a peer before its hello. */
bool hp_core_is_urgent(const struct hp_core *core, uint64_t conn);
/* False until hello was accepted: the tokenizer's pre-hello limits apply. */
bool hp_core_is_greeted(const struct hp_core *core, uint64_t conn);
/* True: all that this turn's batch holds is out at idle workers, so holding the commit for up to
 * 300 us may let the results share it. */
bool hp_core_may_hold(const struct hp_core *core);
/* True when a drain was asked and nothing waits for a commit any more. */
bool hp_core_is_drained(const struct hp_core *core);

/* After hp_core_recover, before the first turn: pauses all queues that hold tasks, because the
 * database is a copy. Returns how many were not paused before. */
uint32_t hp_core_hold(struct hp_core *core);
/* True once the pauses are durable; also if there was none to be made. */
bool hp_core_is_held(const struct hp_core *core);

/* Changes what SIGHUP may change: token (NULL: none). Connections that are in stay in. */
void hp_core_set_token(struct hp_core *core, const char *token);

/* Text admin: appends human-readable lines. */
void hp_core_text_status(const struct hp_core *core, struct hp_buf *out);
void hp_core_text_workers(const struct hp_core *core, struct hp_buf *out);
void hp_core_text_queues(const struct hp_core *core, struct hp_buf *out);

/* Re-derives every index and counter and asserts that they agree: O(all). For tests. */
void hp_core_check(const struct hp_core *core);
/* Prints the whole state, deterministically, for golden tests and traces. */
void hp_core_dump(const struct hp_core *core, struct hp_buf *out);

#endif
