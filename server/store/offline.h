/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is done with a data directory that no broker has open: a check of all of it, and the salvage
 * of what a damaged one still holds. Both take its lock first (HP_ERR_BUSY: a broker runs there).
 */
#ifndef HP_SERVER_STORE_OFFLINE_H
#define HP_SERVER_STORE_OFFLINE_H

#include "common/base/buf.h"
#include "common/base/err.h"

#define HP_OFFLINE_LINES_BYTES ((size_t)1 << 20)

struct hp_offline_check {
    uint64_t row_count;
    uint64_t blob_count;
    uint64_t problem_count;
    struct hp_buf lines; /* text, a line for each problem; further ones are only counted */
};

/*
 * Reads everything and compares digests; changes nothing. HP_OK whatever it found, if it could
 * look; lines are the caller's to deinit in any case.
 */
enum hp_err hp_offline_check(const char *dir, struct hp_offline_check *ret_check,
                             struct hp_error *reterr);

struct hp_offline_salvage {
    uint64_t task_count;  /* in the new database */
    uint64_t ended_count; /* of these, with their result */
    uint64_t held_count;  /* of these, that wait or may still run: held until queues are resumed */
    uint64_t blob_count;
    uint64_t lost_count; /* tasks and other rows that were there and are lost, as far as known */
    struct hp_buf lines; /* what is lost and why, and what else a person should know */
};

/*
 * Reads what the directory `from` still holds, row by row, whatever its state, and puts what its
 * digests prove into a new database in `to`, which must not exist. `from` is never written to.
 * While it is made it is called `to`.part; it is checked before it gets its name. lines are the
 * caller's to deinit in any case.
 */
enum hp_err hp_offline_salvage(const char *from, const char *to,
                               struct hp_offline_salvage *ret_salvage, struct hp_error *reterr);

#endif
