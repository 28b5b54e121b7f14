/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store's contract: what every implementation (sqlite.c, mem.c) keeps. One caller at a time:
 * in the broker the store thread, in the simulator the simulation.
 *
 *  S1 hp_store_apply returns HP_OK only when all its batches are durable, as one transaction.
 *  S2 After HP_ERR_NOSPACE nothing was changed, and the same batches may be applied again.
 *     After any other error the store's content is unknown: the process must end and reload.
 *  S3 A load sees every batch applied before it.
 *  S4 Loads and reaping never take longer than about 2 ms (CHECK and BACKUP work in slices).
 *  S5 Bytes that fail their digest are reported as HP_ERR_CORRUPT or `damaged`, never returned.
 */
#ifndef HP_SERVER_STORE_STORE_H
#define HP_SERVER_STORE_STORE_H

#include "common/base/err.h"
#include "server/core/op.h"

struct hp_store;

struct hp_store_ops {
    const char *name;
    /* Calls fn for META first, then all others. Raises the epoch durably before that. */
    enum hp_err (*recover)(struct hp_store *store, hp_record_fn *fn, void *context,
                           struct hp_error *reterr);
    enum hp_err (*apply)(struct hp_store *store, struct hp_batch *const *batches, uint32_t count,
                         struct hp_error *reterr);
    /* Fills `loaded` (made by hp_loaded_new). Errors are in loaded->err. */
    void (*load)(struct hp_store *store, struct hp_loaded *loaded);
    /* Background work in one slice (checkpoint, reaping, blob sweep). Sets *ret_more. */
    enum hp_err (*idle)(struct hp_store *store, bool *ret_more, struct hp_error *reterr);
    void (*close)(struct hp_store *store);
};

struct hp_store {
    const struct hp_store_ops *ops;
};

static inline enum hp_err hp_store_apply(struct hp_store *store, struct hp_batch *const *batches,
                                         uint32_t count, struct hp_error *reterr)
{
    return store->ops->apply(store, batches, count, reterr);
}

struct hp_store_options {
    const char *dir;      /* data directory; holds hostpool.db, blobs/, ballast */
    bool create;          /* make a new database; refused if one is there */
    uint64_t wal_bytes;   /* size the WAL is grown to at start; 0: default */
};

/* SQLite: the one connection of the process; WAL, synchronous=FULL, exclusive. */
enum hp_err hp_store_sqlite_open(const struct hp_store_options *options, struct hp_store **ret_store,
                                 struct hp_error *reterr);
/* Memory, same contract, for tests and the simulator. A `hp_store_mem_crash` loses what was not
 * applied and reopens; hooks fail or delay applies. */
struct hp_store *hp_store_mem_new(void);

#endif
