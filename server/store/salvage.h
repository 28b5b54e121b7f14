/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The salvage of a damaged database: salvage.c takes rows over, salvage_mend.c makes a whole of
 * them, salvage_blob.c sees to the files, offline.c leads. Internal to these.
 */
#ifndef HP_SERVER_STORE_SALVAGE_H
#define HP_SERVER_STORE_SALVAGE_H

#include "common/base/strmap.h"
#include "proto/wire.h"
#include "server/store/offline.h"
#include "server/store/pages.h"
#include "server/store/sqlite.h"

struct hp_salvage {
    struct hp_sqlite *to;
    const char *from_blobs;
    struct hp_offline_salvage *report;
    struct hp_wire *wire;
    struct hp_arena arena;   /* of one row */
    struct hp_spans unsure;  /* groups from pages that nothing leads to: maybe deleted since */
    struct hp_strmap queues; /* name -> waiting tasks, all as rows of delayed ones */
    uint64_t max_id;
    uint64_t max_blob;
    uint64_t max_epoch;
    uint64_t max_batch;
    uint64_t damaged_rows;
    uint64_t stubs;     /* results whose submit is lost */
    uint32_t open_rows; /* written in the open transaction */
    int64_t wall_ms;
};

/* A line of the report. */
void hp_salvage_say(struct hp_salvage *v, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Runs a statement without rows in the new database, in a transaction that is closed now and then.
 * A value is bytes if its data is set, else the number. */
struct hp_salvage_value {
    struct hp_bin bytes;
    uint64_t number;
};
enum hp_err hp_salvage_run(struct hp_salvage *v, const char *sql,
                           const struct hp_salvage_value *values, int count,
                           struct hp_error *reterr);

/* salvage.c: a row of the old database, as hp_pages_fn. */
enum hp_err hp_salvage_row(void *context, const struct hp_pages_row *row, struct hp_error *reterr);
/* Puts a group row; one that overlaps is passed over (*ret_put false). */
enum hp_err hp_salvage_put_group(struct hp_salvage *v, const struct hp_group_head *head,
                                 struct hp_bin row, struct hp_bin pack, bool *ret_put,
                                 struct hp_error *reterr);
enum hp_err hp_salvage_put_result(struct hp_salvage *v, uint64_t first, uint64_t count,
                                  struct hp_bin row, int64_t expires_at_ms, bool *ret_put,
                                  struct hp_error *reterr);
enum hp_err hp_salvage_put_blob(struct hp_salvage *v, uint64_t blob, uint64_t owner,
                                struct hp_error *reterr);

/* salvage_mend.c: what belongs together is made whole, what waits is put back. */
enum hp_err hp_salvage_mend(struct hp_salvage *v, struct hp_error *reterr);

/* salvage_blob.c: files are linked or copied, and read. */
enum hp_err hp_salvage_blobs(struct hp_salvage *v, struct hp_error *reterr);

#endif
