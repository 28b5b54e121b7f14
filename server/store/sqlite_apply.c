/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Applies batches as one transaction. Groups and results are gathered first and written at the end:
 * groups by one statement (sqlite_vtab.c), results sorted, so that neighbours share a row. The
 * leases of a batch become one row. All else is a prepared statement per op.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/crash.h"
#include "server/store/sqlite.h"

/* ------------------------------------------------------------------ groups */
static enum hp_err gather_group(struct hp_sqlite *s, const struct hp_op *op,
                                struct hp_error *reterr)
{
    uint64_t last = op->group.first + op->group.count - 1;
    HP_ASSERT(op->group.count > 0);
    HP_ASSERT(op->group.first >> HP_SQLITE_BUCKET_SHIFT == last >> HP_SQLITE_BUCKET_SHIFT); /* S8 */
    if (s->group_count == s->group_capacity) {
        uint32_t capacity = s->group_capacity == 0 ? 1024 : s->group_capacity * 2;
        const struct hp_op **groups = hp_realloc_array(s->groups, capacity, sizeof(*groups));
        if (groups == NULL) {
            return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
        }
        s->groups = groups;
        s->group_capacity = capacity;
    }
    s->groups[s->group_count++] = op;
    return HP_OK;
}

/* Inserts groups [from, to), all of one bucket. */
static enum hp_err put_bucket_groups(struct hp_sqlite *s, uint32_t from, uint32_t to,
                                     struct hp_error *reterr)
{
    uint64_t first = s->groups[from]->group.first;
    struct hp_bucket *bucket = hp_sqlite_bucket(s, first);
    sqlite3_stmt *stmt = NULL;
    enum hp_err err = HP_OK;
    if (bucket == NULL) {
        err = hp_sqlite_bucket_make(s, first, &bucket, reterr);
    }
    if (err == HP_OK) {
        err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_GROUP_PUT, &stmt, reterr);
    }
    if (err != HP_OK) {
        return err;
    }
    bucket->group_count += to - from;
    for (uint32_t i = from; i < to; i++) {
        const struct hp_op *op = s->groups[i];
        bucket->task_count += op->group.count;
        if (!s->late.on) {
            bucket->late_from = HP_MAX(bucket->late_from, op->group.first + op->group.count);
        }
    }
    bucket->dirty = bucket->dirty || !s->late.on;
    bucket->changes++;
    s->group_from = from;
    s->group_to = to;
    return hp_sqlite_run(s, stmt, "insert groups", reterr);
}

static enum hp_err put_groups(struct hp_sqlite *s, struct hp_error *reterr)
{
    for (uint32_t from = 0; from < s->group_count;) {
        uint64_t number = s->groups[from]->group.first >> HP_SQLITE_BUCKET_SHIFT;
        uint32_t to = from + 1;
        while (to < s->group_count &&
               s->groups[to]->group.first >> HP_SQLITE_BUCKET_SHIFT == number) {
            to++;
        }
        enum hp_err err = put_bucket_groups(s, from, to, reterr);
        if (err != HP_OK) {
            return err;
        }
        from = to;
    }
    return HP_OK;
}

/* ------------------------------------------------------------------ results */
static enum hp_err gather_result(struct hp_sqlite *s, const struct hp_result *result,
                                 struct hp_error *reterr)
{
    if (s->result_count == s->result_capacity) {
        uint32_t capacity = s->result_capacity == 0 ? 1024 : s->result_capacity * 2;
        const struct hp_result **results = hp_realloc_array(s->results, capacity, sizeof(*results));
        if (results == NULL) {
            return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
        }
        s->results = results;
        s->result_capacity = capacity;
    }
    s->results[s->result_count++] = result;
    return HP_OK;
}

static int compare_results(const void *a, const void *b)
{
    uint64_t x = (*(const struct hp_result *const *)a)->first;
    uint64_t y = (*(const struct hp_result *const *)b)->first;
    return (x > y) - (x < y);
}

static void sort_results(struct hp_sqlite *s)
{
    for (uint32_t i = 1; i < s->result_count; i++) {
        if (s->results[i - 1]->first > s->results[i]->first) {
            qsort(s->results, s->result_count, sizeof(*s->results), compare_results);
            return;
        }
    }
}

static void count_results(struct hp_bucket *bucket, const struct hp_result *const *results,
                          uint32_t n, uint32_t count)
{
    for (uint32_t i = 0; i < n; i++) {
        if (bucket->state == 0) {
            bucket->state = results[i]->state;
        } else if (bucket->state != results[i]->state) {
            bucket->state = HP_BUCKET_STATE_MIXED;
        }
        bucket->expires_max_ms = HP_MAX(bucket->expires_max_ms, results[i]->expires_at_ms);
        bucket->reap_at_ms = HP_MIN(bucket->reap_at_ms, results[i]->expires_at_ms);
    }
    bucket->ended_count += count;
    bucket->dirty = true;
    bucket->changes++;
}

static enum hp_err put_results(struct hp_sqlite *s, struct hp_error *reterr)
{
    sort_results(s);
    for (uint32_t i = 0; i < s->result_count;) {
        const struct hp_result *const *results = (const struct hp_result *const *)&s->results[i];
        struct hp_bucket *bucket = hp_sqlite_bucket(s, results[0]->first);
        HP_ASSERT(bucket != NULL); /* a result is of a task that was submitted */
        sqlite3_stmt *stmt = NULL;
        enum hp_err err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_RESULT_PUT, &stmt, reterr);
        if (err != HP_OK) {
            return err;
        }
        uint32_t count = 0;
        uint32_t n = hp_row_put_results(&s->out, results, s->result_count - i, &count);
        hp_sqlite_bind_u64(stmt, 1, results[0]->first);
        hp_sqlite_bind_u64(stmt, 2, count);
        hp_sqlite_bind_row(stmt, 3, &s->out);
        err = hp_sqlite_run(s, stmt, "insert results", reterr);
        if (err != HP_OK) {
            return err;
        }
        count_results(bucket, results, n, count);
        i += n;
    }
    return HP_OK;
}

/* ------------------------------------------------------------------ lanes */
enum hp_err hp_sqlite_put_lane(struct hp_sqlite *s, const struct hp_op *op, struct hp_error *reterr)
{
    bool with_key = op->lane.key.size > 0;
    sqlite3_stmt *stmt = s->stmts[with_key ? HP_SQL_LANE_PUT : HP_SQL_LANE_CURSOR];
    struct hp_row_out key HP_CLEANUP(hp_row_out_deinit) = {0};
    if (with_key) {
        hp_row_put_raw(&key, op->lane.key.data, op->lane.key.size);
        hp_row_seal(&key, HP_ROW_LANE_KEY, op->lane.lane);
        if (key.failed) {
            return hp_error_set(reterr, HP_ERR_NOMEM, NULL); /* NULL would be a lane of its own */
        }
        hp_sqlite_bind_row(stmt, 2, &key);
    }
    hp_row_clear(&s->out);
    hp_row_put_u64(&s->out, op->lane.head_segment);
    hp_row_put_u64(&s->out, op->lane.next_segment);
    hp_row_put_u64(&s->out, op->lane.ready_count);
    hp_row_seal(&s->out, HP_ROW_LANE_CURSOR, op->lane.lane);
    hp_sqlite_bind_u64(stmt, 1, op->lane.lane);
    hp_sqlite_bind_row(stmt, 3, &s->out);
    enum hp_err err = hp_sqlite_run(s, stmt, "write lane", reterr);
    if (err != HP_OK) {
        return err;
    }
    stmt = s->stmts[HP_SQL_SEGMENT_TRIM];
    hp_sqlite_bind_u64(stmt, 1, op->lane.lane);
    hp_sqlite_bind_u64(stmt, 2, op->lane.head_segment);
    return hp_sqlite_run(s, stmt, "delete segments", reterr);
}

static enum hp_err delete_lane(struct hp_sqlite *s, uint32_t lane, struct hp_error *reterr)
{
    hp_sqlite_bind_u64(s->stmts[HP_SQL_LANE_DEL], 1, lane);
    enum hp_err err = hp_sqlite_run(s, s->stmts[HP_SQL_LANE_DEL], "delete lane", reterr);
    if (err == HP_OK) {
        hp_sqlite_bind_u64(s->stmts[HP_SQL_SEGMENT_DEL], 1, lane);
        err = hp_sqlite_run(s, s->stmts[HP_SQL_SEGMENT_DEL], "delete segments", reterr);
    }
    return err;
}

enum hp_err hp_sqlite_put_segment(struct hp_sqlite *s, const struct hp_op *op,
                                  struct hp_error *reterr)
{
    sqlite3_stmt *stmt = s->stmts[HP_SQL_SEGMENT_PUT];
    hp_row_put_segment(&s->out, op->segment.lane, op->segment.segment, op->segment.runs,
                       op->segment.run_count);
    hp_sqlite_bind_u64(stmt, 1, op->segment.lane);
    hp_sqlite_bind_u64(stmt, 2, op->segment.segment);
    hp_sqlite_bind_row(stmt, 3, &s->out);
    return hp_sqlite_run(s, stmt, "insert segment", reterr);
}

/* ------------------------------------------------------------------ sides */
static enum hp_err put_side(struct hp_sqlite *s, const struct hp_side *side,
                            struct hp_error *reterr)
{
    bool is_expiry = side->kind == HP_SIDE_EXPIRY;
    sqlite3_stmt *stmt = s->stmts[is_expiry ? HP_SQL_EXPIRY_PUT : HP_SQL_SIDE_PUT];
    hp_row_put_side(&s->out, side);
    hp_sqlite_bind_u64(stmt, 1, side->first);
    if (is_expiry) {
        hp_sqlite_bind_u64(stmt, 2, (uint64_t)side->run_at_ms);
        hp_sqlite_bind_row(stmt, 3, &s->out);
    } else {
        hp_sqlite_bind_u64(stmt, 2, (uint64_t)side->kind);
        hp_sqlite_bind_u64(stmt, 3, side->count);
        hp_sqlite_bind_u64(stmt, 4, (uint64_t)side->run_at_ms);
        hp_sqlite_bind_row(stmt, 5, &s->out);
    }
    return hp_sqlite_run(s, stmt, "write side", reterr);
}

static enum hp_err delete_by(struct hp_sqlite *s, enum hp_sql sql, uint64_t key,
                             struct hp_error *reterr)
{
    hp_sqlite_bind_u64(s->stmts[sql], 1, key);
    return hp_sqlite_run(s, s->stmts[sql], "delete", reterr);
}

/* ------------------------------------------------------------------ rows keyed by bytes */
static uint64_t key_digest(struct hp_bin key, enum hp_row_table table)
{
    return hp_row_digest(key.data, key.size, table, 0);
}

static enum hp_err put_ukey(struct hp_sqlite *s, const struct hp_op *op, struct hp_error *reterr)
{
    sqlite3_stmt *stmt = s->stmts[HP_SQL_UKEY_PUT];
    hp_row_clear(&s->out);
    hp_row_put_u64(&s->out, op->ukey.id);
    hp_row_seal(&s->out, HP_ROW_UKEY, key_digest(op->ukey.key, HP_ROW_UKEY));
    hp_sqlite_bind_bin(stmt, 1, op->ukey.key);
    hp_sqlite_bind_row(stmt, 2, &s->out);
    return hp_sqlite_run(s, stmt, "write unique key", reterr);
}

static enum hp_err delete_ukey(struct hp_sqlite *s, struct hp_bin key, struct hp_error *reterr)
{
    hp_sqlite_bind_bin(s->stmts[HP_SQL_UKEY_DEL], 1, key);
    return hp_sqlite_run(s, s->stmts[HP_SQL_UKEY_DEL], "delete unique key", reterr);
}

/* Where seen_at stays, the index over it is not touched: one page less for the disk. */
static enum hp_err put_session(struct hp_sqlite *s, const struct hp_op *op, struct hp_error *reterr)
{
    static const enum hp_sql ways[] = {HP_SQL_SESSION_SET, HP_SQL_SESSION_PUT};
    hp_row_clear(&s->out);
    hp_row_put_raw(&s->out, op->session.state.data, op->session.state.size);
    hp_row_seal(&s->out, HP_ROW_SESSION, key_digest(op->session.id, HP_ROW_SESSION));
    for (size_t i = 0; i < HP_COUNT_OF(ways); i++) {
        sqlite3_stmt *stmt = s->stmts[ways[i]];
        hp_sqlite_bind_bin(stmt, 1, op->session.id);
        hp_sqlite_bind_u64(stmt, 2, (uint64_t)op->session.seen_at_ms);
        hp_sqlite_bind_row(stmt, 3, &s->out);
        enum hp_err err = hp_sqlite_run(s, stmt, "write session", reterr);
        if (err != HP_OK || sqlite3_changes(s->db) > 0) {
            return err;
        }
    }
    return HP_OK;
}

static enum hp_err put_queue(struct hp_sqlite *s, const struct hp_op *op, struct hp_error *reterr)
{
    sqlite3_stmt *stmt = s->stmts[HP_SQL_QUEUE_PUT];
    hp_row_clear(&s->out);
    hp_row_put_raw(&s->out, op->queue.state.data, op->queue.state.size);
    hp_row_seal(&s->out, HP_ROW_QUEUE, key_digest(op->queue.name, HP_ROW_QUEUE));
    hp_sqlite_bind_bin(stmt, 1, op->queue.name);
    hp_sqlite_bind_row(stmt, 2, &s->out);
    return hp_sqlite_run(s, stmt, "write queue", reterr);
}

static enum hp_err put_node(struct hp_sqlite *s, const struct hp_op *op, struct hp_error *reterr)
{
    sqlite3_stmt *stmt = s->stmts[HP_SQL_NODE_PUT];
    hp_row_clear(&s->out);
    hp_row_put_bin(&s->out, op->node.name);
    hp_row_put_bin(&s->out, op->node.boot);
    hp_row_put_bin(&s->out, op->node.state);
    hp_row_seal(&s->out, HP_ROW_NODE, op->node.number);
    hp_sqlite_bind_u64(stmt, 1, op->node.number);
    hp_sqlite_bind_row(stmt, 2, &s->out);
    return hp_sqlite_run(s, stmt, "write node", reterr);
}

static enum hp_err put_blob(struct hp_sqlite *s, const struct hp_op *op, struct hp_error *reterr)
{
    sqlite3_stmt *stmt = s->stmts[HP_SQL_BLOB_PUT];
    hp_sqlite_bind_u64(stmt, 1, op->blob.blob);
    hp_sqlite_bind_u64(stmt, 2, op->blob.owner);
    return hp_sqlite_run(s, stmt, "write blob", reterr);
}

static void set_meta(struct hp_sqlite *s, const struct hp_op *op)
{
    s->meta.next_id = HP_MAX(s->meta.next_id, op->meta.next_id);
    s->meta.next_blob = HP_MAX(s->meta.next_blob, op->meta.next_blob);
    s->meta.grace_ms = op->meta.grace_ms;
    s->meta_dirty = true;
}

/* ------------------------------------------------------------------ batches */
static bool is_brief(const struct hp_sqlite *s, uint64_t batch)
{
    for (uint32_t i = 0; i < s->brief_count; i++) {
        if (s->brief[i] == batch) {
            return true;
        }
    }
    return false;
}

static enum hp_err apply_op(struct hp_sqlite *s, const struct hp_op *op,
                            struct hp_lease *last_lease, struct hp_error *reterr)
{
    HP_CRASH_POINT("statement.before");
    switch (op->kind) {
    case HP_OP_GROUP:
        return gather_group(s, op, reterr);
    case HP_OP_LANE:
        return s->late.on ? HP_OK : hp_sqlite_put_lane(s, op, reterr);
    case HP_OP_LANE_DEL:
        return delete_lane(s, op->lane.lane, reterr);
    case HP_OP_SEGMENT:
        return s->late.on ? HP_OK : hp_sqlite_put_segment(s, op, reterr);
    case HP_OP_LEASE:
        if (is_brief(s, s->meta.last_batch)) {
            return HP_OK;
        }
        hp_row_put_lease(&s->lease_out, &op->lease, last_lease);
        return HP_OK;
    case HP_OP_LEASE_DEL:
        if (is_brief(s, op->lease_del.batch)) {
            return HP_OK;
        }
        return delete_by(s, HP_SQL_LEASE_DEL, op->lease_del.batch, reterr);
    case HP_OP_RESULT:
        return gather_result(s, &op->result, reterr);
    case HP_OP_SIDE:
        return put_side(s, &op->side, reterr);
    case HP_OP_SIDE_DEL:
        return delete_by(s, op->side_del.expiry ? HP_SQL_EXPIRY_DEL : HP_SQL_SIDE_DEL,
                         op->side_del.first, reterr);
    case HP_OP_UKEY:
        return put_ukey(s, op, reterr);
    case HP_OP_UKEY_DEL:
        return delete_ukey(s, op->ukey.key, reterr);
    case HP_OP_SESSION:
        return put_session(s, op, reterr);
    case HP_OP_QUEUE:
        return put_queue(s, op, reterr);
    case HP_OP_NODE:
        return put_node(s, op, reterr);
    case HP_OP_BLOB:
        return put_blob(s, op, reterr);
    case HP_OP_META:
        set_meta(s, op);
        return HP_OK;
    case HP_OP_REAP:
    case HP_OP_FORGET:
        return HP_OK; /* after the commit */
    }
    HP_UNREACHABLE();
}

static enum hp_err apply_batch(struct hp_sqlite *s, const struct hp_batch *batch,
                               struct hp_error *reterr)
{
    struct hp_lease last_lease = {0};
    hp_row_clear(&s->lease_out);
    s->meta.last_batch = batch->number; /* written with the next change of meta: leases tell, too */
    for (uint32_t i = 0; i < batch->op_count; i++) {
        enum hp_err err = apply_op(s, &batch->ops[i], &last_lease, reterr);
        if (err != HP_OK) {
            return err;
        }
    }
    if (s->lease_out.size == 0 && !s->lease_out.failed) {
        return HP_OK;
    }
    sqlite3_stmt *stmt = s->stmts[HP_SQL_LEASE_PUT];
    hp_row_seal(&s->lease_out, HP_ROW_LEASE, batch->number);
    hp_sqlite_bind_u64(stmt, 1, batch->number);
    hp_sqlite_bind_row(stmt, 2, &s->lease_out);
    return hp_sqlite_run(s, stmt, "insert leases", reterr);
}

/* A lone task's lease begins and ends in one transaction: its row need not be written at all. */
static void find_brief(struct hp_sqlite *s, struct hp_batch *const *batches, uint32_t count)
{
    s->brief_count = 0;
    for (uint32_t i = 1; i < count; i++) {
        for (uint32_t k = 0; k < batches[i]->op_count && s->brief_count < HP_BRIEF_MAX; k++) {
            const struct hp_op *op = &batches[i]->ops[k];
            if (op->kind == HP_OP_LEASE_DEL && op->lease_del.batch >= batches[0]->number) {
                s->brief[s->brief_count++] = op->lease_del.batch;
            }
        }
    }
}

static enum hp_err apply_all(struct hp_sqlite *s, struct hp_batch *const *batches, uint32_t count,
                             struct hp_error *reterr)
{
    s->result_count = 0;
    s->group_count = 0;
    find_brief(s, batches, count);
    for (uint32_t i = 0; i < count; i++) {
        enum hp_err err = apply_batch(s, batches[i], reterr);
        if (err != HP_OK) {
            return err;
        }
    }
    enum hp_err err = put_groups(s, reterr); /* first: results may be of the same transaction */
    return err == HP_OK ? put_results(s, reterr) : err;
}

static void start_reaping(struct hp_sqlite *s, struct hp_batch *const *batches, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < batches[i]->op_count; k++) {
            if (batches[i]->ops[k].kind == HP_OP_REAP) {
                hp_sqlite_reap_start(s, &batches[i]->ops[k]);
            } else if (batches[i]->ops[k].kind == HP_OP_FORGET) {
                hp_sqlite_forget_add(s, &batches[i]->ops[k]);
            }
        }
    }
}

enum hp_err hp_sqlite_apply(struct hp_store *store, struct hp_batch *const *batches, uint32_t count,
                            struct hp_error *reterr)
{
    struct hp_sqlite *s = hp_sqlite_of(store);
    s->late.on = hp_late_fits(s, batches, count);
    enum hp_err err = hp_sqlite_begin(s, reterr);
    err = err == HP_OK ? apply_all(s, batches, count, reterr) : err;
    err = err == HP_OK ? hp_sqlite_commit(s, reterr) : hp_sqlite_abort(s, err, reterr);
    s->late.on = false;
    if (err != HP_OK) {
        return err;
    }
    start_reaping(s, batches, count);
    hp_sqlite_ballast_restore(s);
    return hp_sqlite_checkpoint(s, s->frames_max, reterr);
}
