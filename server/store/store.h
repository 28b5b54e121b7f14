/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store's contract: what every implementation (sqlite.c, mem.c) keeps. One caller at a time:
 * in the broker the store thread, in the simulator the simulation.
 *
 *  S1 hp_store_apply returns HP_OK only when all its batches are durable, as one transaction.
 *  S2 After HP_ERR_NOSPACE nothing was changed, and the same batches may be applied again.
 *     After any other error the store's content is unknown: the process must end and reload.
 *  S3 A load sees every batch applied before it.
 *  S4 Loads and reaping never take longer than about 2 ms (CHECK and BACKUP work in slices). What
 *     can not be cut stays whole: one segment of a lane, one group with its payloads.
 *  S5 Bytes that fail their digest are reported as HP_ERR_CORRUPT or `damaged`, never returned.
 *  S6 Retention is by group: a group goes, with its results, when all its ids have ended and all
 *     their results expired. For 24 h a tombstone answers `gone` for its ids.
 *  S9 A group of which all ids have ended and were named by FORGET ops goes likewise, before its
 *     time. FORGET is a hint and not durable: a crash may lose it. Named ids that have not ended
 *     are as if not named. Blobs of an ended and named id may go at once.
 *  S7 A lease found at recovery is reported if its id has no result, no DELAYED, RETURNED or BURIED
 *     side row, and no lease in a later batch. So a task that goes back to waiting while the lease
 *     row of its batch lives must get a RETURNED side row (which its next dispatch deletes).
 *  S8 Side rows other than EXPIRY never overlap, nor do EXPIRY rows among themselves. A group lies
 *     in one bucket: first and last id agree in all but their low 20 bits.
 */
#ifndef HP_SERVER_STORE_STORE_H
#define HP_SERVER_STORE_STORE_H

#include <stdatomic.h>

#include "common/base/err.h"
#include "server/core/op.h"

/* How long a tombstone answers for reaped tasks, and an unseen session is kept. */
#define HP_STORE_TOMB_MS ((int64_t)24 * 3600 * 1000)
#define HP_STORE_SESSION_MS ((int64_t)24 * 3600 * 1000)

/* A file in the data directory which says that the database is a copy: a backup, or salvaged. */
#define HP_STORE_RESTORED_FILE "hostpool.restored"
/* A shorter file is no database. SQLite takes one of a few bytes for a new one, and its log for a
 * leftover: it must never be given such a file. */
#define HP_STORE_DB_BYTES_MIN 512
/* What a first start on a copy leaves out, so that nothing is given out that the original may have
 * given out since: epochs (its starts), ids and blobs. */
#define HP_STORE_RESTORED_EPOCHS UINT64_C(1000000)
#define HP_STORE_RESTORED_IDS UINT64_C(1000000000)

struct hp_store;

struct hp_store_figures {
    uint64_t wal_bytes;   /* size of the write-ahead log file */
    uint64_t db_bytes;    /* size of the database */
    uint64_t group_count; /* groups kept */
    uint64_t task_count;  /* tasks kept */
    uint64_t ended_count; /* of these, with a result */
    uint64_t checkpoints;
    uint64_t
        reserve_bytes; /* free space below which no submit should be taken: the ballast's size */
    uint64_t reaped;   /* tasks that retention removed since start */
    bool pressure;     /* the ballast is spent: the disk was full and is not free again */
};

struct hp_store_ops {
    const char *name;
    /* Calls fn for META first, then all others. Raises the epoch durably before that. Once. */
    enum hp_err (*recover)(struct hp_store *store, hp_record_fn *fn, void *context,
                           struct hp_error *reterr);
    enum hp_err (*apply)(struct hp_store *store, struct hp_batch *const *batches, uint32_t count,
                         struct hp_error *reterr);
    /* Fills `loaded` (made by hp_loaded_new). Errors are in loaded->err. False: a CHECK or BACKUP
     * that is not through; call again with the same `loaded`, other calls may lie between. Only one
     * such may be under way; another one ends at once with HP_ERR_BUSY. */
    bool (*load)(struct hp_store *store, struct hp_loaded *loaded);
    /* Background work in one slice (checkpoint, forgetting, reaping, blob sweep). Sets *ret_more.
     * HP_ERR_NOSPACE: the disk is full, nothing is lost; call again in a while. */
    enum hp_err (*idle)(struct hp_store *store, bool *ret_more, struct hp_error *reterr);
    void (*figures)(struct hp_store *store, struct hp_store_figures *ret_figures);
    /* Ends it; a load that is under way stays the caller's. */
    void (*close)(struct hp_store *store);
};

struct hp_store {
    const struct hp_store_ops *ops;
};

static inline enum hp_err hp_store_recover(struct hp_store *store, hp_record_fn *fn, void *context,
                                           struct hp_error *reterr)
{
    return store->ops->recover(store, fn, context, reterr);
}

static inline enum hp_err hp_store_apply(struct hp_store *store, struct hp_batch *const *batches,
                                         uint32_t count, struct hp_error *reterr)
{
    return store->ops->apply(store, batches, count, reterr);
}

static inline bool hp_store_load(struct hp_store *store, struct hp_loaded *loaded)
{
    return store->ops->load(store, loaded);
}

static inline enum hp_err hp_store_idle(struct hp_store *store, bool *ret_more,
                                        struct hp_error *reterr)
{
    return store->ops->idle(store, ret_more, reterr);
}

static inline void hp_store_figures(struct hp_store *store, struct hp_store_figures *ret_figures)
{
    store->ops->figures(store, ret_figures);
}

/* NULL is fine. */
static inline void hp_store_close(struct hp_store *store)
{
    if (store != NULL) {
        store->ops->close(store);
    }
}

struct hp_store_options {
    const char *dir;        /* data directory; holds hostpool.db, blobs/, ballast */
    bool create;            /* make a new database; refused if one is there */
    bool restored;          /* the database is a copy: see HP_STORE_RESTORED_FILE */
    uint64_t wal_bytes;     /* size the WAL is grown to at start; 0: default, 16 MiB */
    uint64_t ballast_bytes; /* kept free for results on a full disk; 0: default, 4 MiB */
    uint64_t reap_slice_us; /* a slice of retention in idle(); 0: default, 4 ms */
    bool reap_restless;     /* passes of retention do not rest in proportion to what they cost */
    uint64_t
        answer_slice_us; /* an answer to load() that takes longer ends early; 0: default, 2 ms */
    /* Asked when it is closed, also by an open that fails: while it is true the log stays beside
     * the database, as in a crash. NULL: it is folded in and removed. */
    const atomic_bool *keep_log;
};

/*
 * SQLite: the one connection of the process; WAL, synchronous=FULL, exclusive. With `create` the
 * directory must exist. HP_ERR_NOT_FOUND: no database there; HP_ERR_EXISTS: create, but one is
 * there (or what is left of one); HP_ERR_BUSY: another process has it; HP_ERR_UNSUPPORTED: a newer
 * schema, or an unfit SQLite; HP_ERR_CORRUPT: damaged, the text names file, check and command.
 */
enum hp_err hp_store_sqlite_open(const struct hp_store_options *options,
                                 struct hp_store **ret_store, struct hp_error *reterr);

/* Memory, same contract, for tests and the simulator: deterministic, never fails of itself. What
 * was applied is durable; the caller delays or fails applies. BACKUP is HP_ERR_UNSUPPORTED. */
struct hp_store *hp_store_mem_new(void);
/* The process died: what was applied stays, all else is forgotten; recover it again. */
void hp_store_mem_crash(struct hp_store *store);

#endif
