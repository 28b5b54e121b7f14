/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store thread: takes batches and loads in order, merges the batches that wait into one
 * transaction, and reports what is durable and what was loaded. The loop never blocks on the disk.
 *
 * Use: open a store, recover it in the caller's thread, then hand it over for good:
 *     hp_store_thread_new; each turn hp_store_thread_put / _load; on wake hp_store_thread_take;
 *     at the end hp_store_thread_stop.
 * All calls but the two callbacks are for one thread, the loop's.
 *
 * A full disk: the same transaction is tried again every 250 ms; nothing is dropped and nothing
 * acknowledged meanwhile, and `disk_low` is true until there is room again. It is true as well
 * while less than disk_low_percent and less than 1 GiB are free. Any other error is fatal: `fatal`
 * is called in the store thread and must end the process (it must not return).
 */
#ifndef HP_SERVER_STORE_THREAD_H
#define HP_SERVER_STORE_THREAD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "server/core/op.h"
#include "server/store/store.h"

struct hp_store_thread;

struct hp_store_thread_options {
    struct hp_store *store; /* recovered; owned by the thread from success on */
    const char *dir;        /* whose free space is watched; NULL: none; copied */
    /* There is something to take. Called in the store thread: must only signal (write an eventfd).
     * Not called again before the next hp_store_thread_take. */
    void (*wake)(void *context);
    /* The store failed; log and _exit(70). Called in the store thread. */
    void (*fatal)(void *context, const struct hp_error *error);
    void *context;
    uint32_t merge_ops_max;    /* ops in one transaction; 0: default 5000 */
    uint32_t disk_low_percent; /* below this submits are to be refused; 0: default 5 */
};

/* What has happened since the last take. The lists are the caller's then. */
struct hp_store_done {
    uint64_t durable;         /* every batch up to this number is durable; 0: none yet */
    struct hp_batch *batches; /* finished, linked by next: to be cleared and used again */
    struct hp_loaded *loaded; /* answers in order, linked by next_loaded: free each */
    bool disk_low;            /* the present state, not a change */
};

/* Figures for status and metrics. Counters count from the start of the thread. */
struct hp_store_thread_figures {
    struct hp_store_figures store; /* as of the last commit */
    uint64_t commits;
    uint64_t batches;
    uint64_t ops;
    uint64_t commit_us_max; /* longest commit, fsync included */
    uint64_t commit_us_last;
    uint64_t load_us_max;   /* longest slice of a load */
    uint64_t nospace_count; /* times a transaction met a full disk */
    uint64_t queued_ops;    /* handed over, not yet durable */
    uint32_t disk_free_percent;
    uint64_t disk_free_bytes;
};

/* Starts the thread. On error the store stays the caller's. Signals are blocked in the thread. */
enum hp_err hp_store_thread_new(const struct hp_store_thread_options *options,
                                struct hp_store_thread **ret_thread, struct hp_error *reterr);

/* Hands batches over, linked by next, in order of their numbers (asserted to grow). An empty one is
 * fine: it becomes durable with those before it, without a transaction of its own. What is handed
 * over in one call is never torn apart but by merge_ops_max: a submit that was held for its result
 * shares one fsync with it. */
void hp_store_thread_put(struct hp_store_thread *thread, struct hp_batch *batches);

/* Hands a load over: it sees every batch put before it. */
void hp_store_thread_load(struct hp_store_thread *thread, struct hp_load *load);

/* Fetches what is finished. True if there was anything new (or disk_low changed). */
bool hp_store_thread_take(struct hp_store_thread *thread, struct hp_store_done *ret_done);

void hp_store_thread_figures(struct hp_store_thread *thread,
                             struct hp_store_thread_figures *ret_figures);

/*
 * Applies all that was put, answers the loads (a CHECK or BACKUP under way ends with
 * HP_ERR_CANCELLED), closes the store, ends the thread. What is finished can still be taken.
 * On a full disk it gives up after `timeout_ms` with HP_ERR_NOSPACE (what was not reported durable
 * may be lost; nobody was told otherwise). Then hp_store_thread_free.
 */
enum hp_err hp_store_thread_stop(struct hp_store_thread *thread, uint64_t timeout_ms);

/* Frees a stopped thread with all that was not taken. NULL is fine. */
void hp_store_thread_free(struct hp_store_thread *thread);

#endif
