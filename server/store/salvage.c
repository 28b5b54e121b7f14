/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows of a damaged database, one by one. Which table a row belongs to is told by its shape and
 * proved by its digest, which covers table and key: so a row counts wherever it was found. Only the
 * rows of the table `blob` have no digest; files prove them later (salvage_blob.c).
 */
#include "server/store/salvage.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/macro.h"
#include "common/base/mem.h"

#define SQL_BYTES 160
#define TRANSACTION_ROWS 5000u

void hp_salvage_say(struct hp_salvage *v, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    struct hp_buf *lines = &v->report->lines;
    if (lines->size < lines->max - sizeof(text) - 2) { /* further ones are only counted */
        enum hp_err err = hp_buf_append_format(lines, "%s%s", lines->size > 0 ? "\n" : "", text);
        (void)err; /* a line without memory is still counted */
    }
}

/* Opens a transaction, or closes one that is long enough and opens the next. */
static enum hp_err keep_open(struct hp_salvage *v, struct hp_error *reterr)
{
    enum hp_err err = HP_OK;
    if (v->open_rows >= TRANSACTION_ROWS) {
        err = hp_sqlite_commit(v->to, reterr);
        if (err == HP_OK) {
            err = hp_sqlite_checkpoint(v->to, HP_SQLITE_CHECKPOINT_FRAMES, reterr);
        }
        v->open_rows = 0;
    }
    if (err == HP_OK && v->open_rows == 0) {
        err = hp_sqlite_begin(v->to, reterr);
    }
    v->open_rows++;
    return err;
}

enum hp_err hp_salvage_run(struct hp_salvage *v, const char *sql,
                           const struct hp_salvage_value *values, int count,
                           struct hp_error *reterr)
{
    sqlite3_stmt *stmt = NULL;
    enum hp_err err = keep_open(v, reterr);
    if (err != HP_OK) {
        return err;
    }
    int code = sqlite3_prepare_v2(v->to->db, sql, -1, &stmt, NULL);
    if (code == SQLITE_OK) {
        for (int i = 0; i < count; i++) {
            if (values[i].bytes.data != NULL) {
                hp_sqlite_bind_bin(stmt, i + 1, values[i].bytes);
            } else {
                hp_sqlite_bind_u64(stmt, i + 1, values[i].number);
            }
        }
        code = sqlite3_step(stmt);
    }
    (void)sqlite3_finalize(stmt); /* its error is in `code` */
    return code == SQLITE_DONE ? HP_OK : hp_sqlite_error(v->to, code, sql, reterr);
}

static struct hp_salvage_value number(uint64_t value)
{
    return (struct hp_salvage_value){.number = value};
}

static struct hp_salvage_value bytes(struct hp_bin bin)
{
    static const uint8_t nothing[1];
    bin.data = bin.data != NULL ? bin.data : nothing;
    return (struct hp_salvage_value){.bytes = bin};
}

/* ------------------------------------------------------------------ overlaps (I4, S8) */
/* Whether a row of `table` holds any of [first, first + count): rows are (first, count at `column`
 * of the statement). */
static enum hp_err overlaps(struct hp_salvage *v, const char *table, uint64_t first, uint64_t count,
                            bool by_head, bool *ret_overlaps, struct hp_error *reterr)
{
    char sql[SQL_BYTES];
    sqlite3_stmt *stmt = NULL;
    (void)snprintf(sql, sizeof(sql),
                   "SELECT first, %s FROM %s WHERE first < ?1 ORDER BY first DESC LIMIT 1",
                   by_head ? "head" : "count", table);
    *ret_overlaps = false;
    int code = sqlite3_prepare_v2(v->to->db, sql, -1, &stmt, NULL);
    if (code == SQLITE_OK) {
        hp_sqlite_bind_u64(stmt, 1, first + count);
        code = sqlite3_step(stmt);
    }
    if (code == SQLITE_ROW) {
        struct hp_group_head head = {.count = 1};
        uint64_t found = hp_sqlite_u64(stmt, 0);
        bool good = !by_head || hp_row_get_group(hp_sqlite_bin(stmt, 1), found, &head);
        uint64_t held = by_head ? head.count : hp_sqlite_u64(stmt, 1);
        *ret_overlaps = !good || found + held > first;
        code = SQLITE_DONE;
    }
    enum hp_err err = code == SQLITE_DONE ? HP_OK : hp_sqlite_error(v->to, code, sql, reterr);
    (void)sqlite3_finalize(stmt); /* its error is in `code` */
    return err;
}

static enum hp_err bucket_of(struct hp_salvage *v, uint64_t id, struct hp_bucket **ret_bucket,
                             struct hp_error *reterr)
{
    *ret_bucket = hp_sqlite_bucket(v->to, id);
    if (*ret_bucket != NULL) {
        return HP_OK;
    }
    enum hp_err err = keep_open(v, reterr);
    return err == HP_OK ? hp_sqlite_bucket_make(v->to, id, ret_bucket, reterr) : err;
}

static bool ids_fit(uint64_t first, uint64_t count)
{
    return first > 0 && count > 0 && first < (UINT64_C(1) << 62) && count <= UINT32_MAX &&
           first >> HP_SQLITE_BUCKET_SHIFT == (first + count - 1) >> HP_SQLITE_BUCKET_SHIFT;
}

enum hp_err hp_salvage_put_group(struct hp_salvage *v, const struct hp_group_head *head,
                                 struct hp_bin row, struct hp_bin pack, bool *ret_put,
                                 struct hp_error *reterr)
{
    char table[40];
    char sql[SQL_BYTES];
    struct hp_bucket *bucket = NULL;
    bool taken = !ids_fit(head->first, head->count);
    *ret_put = false;
    enum hp_err err = taken ? HP_OK : bucket_of(v, head->first, &bucket, reterr);
    (void)snprintf(table, sizeof(table), "group_%" PRIu64, head->first >> HP_SQLITE_BUCKET_SHIFT);
    if (err == HP_OK && !taken) {
        err = overlaps(v, table, head->first, head->count, true, &taken, reterr);
    }
    if (err != HP_OK || taken) {
        return err;
    }
    (void)snprintf(sql, sizeof(sql), "INSERT INTO %s VALUES(?1, ?2, ?3)", table);
    err = hp_salvage_run(v, sql,
                         (struct hp_salvage_value[]){number(head->first), bytes(row), bytes(pack)},
                         3, reterr);
    if (err == HP_OK) {
        bucket->group_count++;
        bucket->task_count += head->count;
        bucket->dirty = true;
        v->max_id = HP_MAX(v->max_id, head->first + head->count - 1);
        *ret_put = true;
    }
    return err;
}

enum hp_err hp_salvage_put_result(struct hp_salvage *v, uint64_t first, uint64_t count,
                                  struct hp_bin row, int64_t expires_at_ms, bool *ret_put,
                                  struct hp_error *reterr)
{
    char table[40];
    char sql[SQL_BYTES];
    struct hp_bucket *bucket = NULL;
    bool taken = !ids_fit(first, count);
    *ret_put = false;
    enum hp_err err = taken ? HP_OK : bucket_of(v, first, &bucket, reterr);
    (void)snprintf(table, sizeof(table), "result_%" PRIu64, first >> HP_SQLITE_BUCKET_SHIFT);
    if (err == HP_OK && !taken) {
        err = overlaps(v, table, first, count, false, &taken, reterr);
    }
    if (err != HP_OK || taken) {
        return err;
    }
    (void)snprintf(sql, sizeof(sql), "INSERT INTO %s VALUES(?1, ?2, ?3)", table);
    err = hp_salvage_run(
        v, sql, (struct hp_salvage_value[]){number(first), number(count), bytes(row)}, 3, reterr);
    if (err == HP_OK) {
        bucket->ended_count += count;
        bucket->expires_max_ms = HP_MAX(bucket->expires_max_ms, expires_at_ms);
        bucket->state = HP_BUCKET_STATE_MIXED;
        bucket->dirty = true;
        v->max_id = HP_MAX(v->max_id, first + count - 1);
        *ret_put = true;
    }
    return err;
}

enum hp_err hp_salvage_put_blob(struct hp_salvage *v, uint64_t blob, uint64_t owner,
                                struct hp_error *reterr)
{
    v->max_blob = HP_MAX(v->max_blob, blob);
    return hp_salvage_run(v, "INSERT OR IGNORE INTO blob VALUES(?1, ?2)",
                          (struct hp_salvage_value[]){number(blob), number(owner)}, 2, reterr);
}

/* ------------------------------------------------------------------ rows by shape */
/* What a row was, if it was one: HP_ERR_NOT_FOUND says that no digest fits. */
static enum hp_err take_group(struct hp_salvage *v, const struct hp_pages_row *row,
                              struct hp_error *reterr)
{
    struct hp_group_head head;
    struct hp_bin pack = row->columns[2].bytes;
    bool put = false;
    if (!hp_row_get_group(row->columns[1].bytes, row->rowid, &head)) {
        struct hp_row_in in; /* a lane: they are made anew */
        return hp_row_open(&in, row->columns[1].bytes, HP_ROW_LANE_KEY, row->rowid)
                   ? HP_OK
                   : HP_ERR_NOT_FOUND;
    }
    enum hp_err err = hp_salvage_put_group(v, &head, row->columns[1].bytes, pack, &put, reterr);
    if (err != HP_OK || !put) {
        return err;
    }
    if (row->origin != HP_PAGES_LIVE) {
        err = hp_spans_add(&v->unsure, head.first, head.first + head.count, reterr);
    }
    if (!row->is_whole || pack.size != head.pack_size ||
        hp_row_digest(pack.data, pack.size, HP_ROW_GROUP, head.first) != head.pack_digest) {
        v->report->lost_count += head.count;
        hp_salvage_say(v,
                       "tasks %" PRIu64 "-%" PRIu64 ": their payloads fail their digest; those "
                       "that have not ended will fail as damaged",
                       head.first, head.first + head.count - 1);
    }
    return err;
}

static enum hp_err take_side(struct hp_salvage *v, const struct hp_side *side, struct hp_bin row,
                             struct hp_error *reterr)
{
    bool is_expiry = side->kind == HP_SIDE_EXPIRY;
    if (is_expiry) {
        return hp_salvage_run(v, "INSERT OR IGNORE INTO expiry VALUES(?1, ?2, ?3)",
                              (struct hp_salvage_value[]){number(side->first),
                                                          number((uint64_t)side->run_at_ms),
                                                          bytes(row)},
                              3, reterr);
    }
    bool taken = false;
    enum hp_err err = overlaps(v, "side", side->first, side->count, false, &taken, reterr);
    if (err != HP_OK || taken) {
        return err;
    }
    return hp_salvage_run(v, "INSERT OR IGNORE INTO side VALUES(?1, ?2, ?3, ?4, ?5)",
                          (struct hp_salvage_value[]){
                              number(side->first), number((uint64_t)side->kind),
                              number(side->count), number((uint64_t)side->run_at_ms), bytes(row)},
                          5, reterr);
}

static enum hp_err take_result(struct hp_salvage *v, const struct hp_pages_row *row,
                               struct hp_error *reterr)
{
    struct hp_bin data = row->columns[2].bytes;
    struct hp_result_run run;
    struct hp_side side;
    bool put = false;
    if (hp_result_run_open(&run, data, row->rowid) &&
        (int64_t)run.count == row->columns[1].number) {
        return hp_salvage_put_result(v, row->rowid, run.count, data, run.expires_at_ms, &put,
                                     reterr);
    }
    if (hp_row_get_side(data, HP_ROW_EXPIRY, row->rowid, &side)) {
        return take_side(v, &side, data, reterr);
    }
    return HP_ERR_NOT_FOUND;
}

static void take_meta(struct hp_salvage *v, struct hp_row_in *in)
{
    struct hp_sqlite_meta *meta = &v->to->meta;
    meta->epoch = HP_MAX(meta->epoch, hp_row_get_u64(in));
    meta->next_id = HP_MAX(meta->next_id, hp_row_get_u64(in));
    meta->next_blob = HP_MAX(meta->next_blob, hp_row_get_u64(in));
    (void)hp_row_get_u64(in); /* the grace of a planned stop */
    meta->last_batch = HP_MAX(meta->last_batch, hp_row_get_u64(in));
    v->to->meta_dirty = true;
}

/* Rows of (key, row): leases, nodes, tombstones, meta; those of buckets are made anew. */
static enum hp_err take_pair(struct hp_salvage *v, const struct hp_pages_row *row,
                             struct hp_error *reterr)
{
    static const struct {
        enum hp_row_table table;
        const char *sql;
    } kinds[] = {
        {HP_ROW_LEASE, "INSERT OR IGNORE INTO lease VALUES(?1, ?2)"},
        {HP_ROW_NODE, "INSERT OR IGNORE INTO node VALUES(?1, ?2)"},
        {HP_ROW_TOMB, "INSERT OR IGNORE INTO tomb VALUES(?1, ?2)"},
        {HP_ROW_META, NULL},
        {HP_ROW_BUCKET, NULL},
    };
    struct hp_bin data = row->columns[1].bytes;
    for (size_t i = 0; i < HP_COUNT_OF(kinds); i++) {
        struct hp_row_in in;
        if (!hp_row_open(&in, data, kinds[i].table, row->rowid)) {
            continue;
        }
        if (kinds[i].table == HP_ROW_META) {
            take_meta(v, &in);
        }
        if (kinds[i].table == HP_ROW_LEASE) {
            v->max_batch = HP_MAX(v->max_batch, row->rowid);
        }
        return kinds[i].sql == NULL
                   ? HP_OK
                   : hp_salvage_run(v, kinds[i].sql,
                                    (struct hp_salvage_value[]){number(row->rowid), bytes(data)}, 2,
                                    reterr);
    }
    return HP_ERR_NOT_FOUND;
}

/* Tables that are their own index: sessions, keys, queues (made anew), segments (made anew). */
static enum hp_err take_indexed(struct hp_salvage *v, const struct hp_pages_row *row,
                                struct hp_error *reterr)
{
    const struct hp_pages_column *columns = row->columns;
    struct hp_bin key = columns[0].bytes;
    struct hp_row_in in;
    if (row->column_count == 2 && columns[0].type == HP_PAGES_BYTES &&
        hp_row_open(&in, columns[1].bytes, HP_ROW_UKEY,
                    hp_row_digest(key.data, key.size, HP_ROW_UKEY, 0))) {
        return hp_salvage_run(v, "INSERT OR IGNORE INTO ukey VALUES(?1, ?2)",
                              (struct hp_salvage_value[]){bytes(key), bytes(columns[1].bytes)}, 2,
                              reterr);
    }
    if (row->column_count == 2 && columns[0].type == HP_PAGES_BYTES &&
        hp_row_open(&in, columns[1].bytes, HP_ROW_QUEUE,
                    hp_row_digest(key.data, key.size, HP_ROW_QUEUE, 0))) {
        return hp_salvage_run(v, "INSERT OR IGNORE INTO queue VALUES(?1, ?2)",
                              (struct hp_salvage_value[]){bytes(key), bytes(columns[1].bytes)}, 2,
                              reterr);
    }
    if (row->column_count == 3 && columns[0].type == HP_PAGES_BYTES &&
        columns[1].type == HP_PAGES_INT &&
        hp_row_open(&in, columns[2].bytes, HP_ROW_SESSION,
                    hp_row_digest(key.data, key.size, HP_ROW_SESSION, 0))) {
        return hp_salvage_run(v, "INSERT OR IGNORE INTO session VALUES(?1, ?2, ?3)",
                              (struct hp_salvage_value[]){bytes(key),
                                                          number((uint64_t)columns[1].number),
                                                          bytes(columns[2].bytes)},
                              3, reterr);
    }
    return HP_OK; /* segments, and the indexes of other tables */
}

static enum hp_err take(struct hp_salvage *v, const struct hp_pages_row *row,
                        struct hp_error *reterr)
{
    const struct hp_pages_column *columns = row->columns;
    struct hp_side side;
    if (!row->has_rowid) {
        return take_indexed(v, row, reterr);
    }
    if (row->column_count == 3 && columns[1].type == HP_PAGES_BYTES) {
        return take_group(v, row, reterr);
    }
    if (row->column_count == 3 && columns[2].type == HP_PAGES_BYTES) {
        return columns[1].type == HP_PAGES_INT ? take_result(v, row, reterr) : HP_OK;
    }
    if (row->column_count == 2 && columns[1].type == HP_PAGES_BYTES) {
        return take_pair(v, row, reterr);
    }
    if (row->column_count == 2 && columns[1].type == HP_PAGES_INT) {
        return hp_salvage_put_blob(v, row->rowid, (uint64_t)columns[1].number, reterr);
    }
    if (row->column_count == 5 && columns[4].type == HP_PAGES_BYTES &&
        hp_row_get_side(columns[4].bytes, HP_ROW_SIDE, row->rowid, &side)) {
        return take_side(v, &side, columns[4].bytes, reterr);
    }
    return HP_ERR_NOT_FOUND;
}

enum hp_err hp_salvage_row(void *context, const struct hp_pages_row *row, struct hp_error *reterr)
{
    struct hp_salvage *v = context;
    enum hp_err err = take(v, row, reterr);
    if (err != HP_ERR_NOT_FOUND) {
        return err;
    }
    v->damaged_rows++;
    if (row->origin == HP_PAGES_LIVE) {
        v->report->lost_count++;
        hp_salvage_say(v, "%s %" PRIu64 ": fails its digest (page %u)",
                       row->table[0] != '\0' ? row->table : "row", row->rowid, row->page);
    }
    return HP_OK;
}
