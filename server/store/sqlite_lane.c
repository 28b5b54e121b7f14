/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The next waiting ids of a lane: what its segments list, without what has ended, what is parked or
 * delayed, and what no group holds any more. Done by ranges, not by id: a run of a million ids with
 * nothing taken from it costs three look-ups.
 */
#include "common/base/macro.h"
#include "server/store/sqlite.h"

/* Adds the part of [first, end) inside [low, high). */
static enum hp_err add_inside(struct hp_spans *out, uint64_t first, uint64_t end, uint64_t low,
                              uint64_t high, struct hp_error *reterr)
{
    first = HP_MAX(first, low);
    end = HP_MIN(end, high);
    return first < end ? hp_spans_add(out, first, end, reterr) : HP_OK;
}

/* A row whose range is to be left out. */
typedef enum hp_err take_row_fn(struct hp_sqlite *s, sqlite3_stmt *stmt, uint64_t *ret_first,
                                uint64_t *ret_end, struct hp_error *reterr);

static enum hp_err take_result(struct hp_sqlite *s, sqlite3_stmt *stmt, uint64_t *ret_first,
                               uint64_t *ret_end, struct hp_error *reterr)
{
    struct hp_result_run run;
    *ret_first = hp_sqlite_u64(stmt, 0);
    if (!hp_result_run_open(&run, hp_sqlite_bin(stmt, 1), *ret_first)) {
        return hp_sqlite_damaged(s, "result", *ret_first, reterr);
    }
    *ret_end = *ret_first + run.count;
    return HP_OK;
}

static enum hp_err take_side(struct hp_sqlite *s, sqlite3_stmt *stmt, uint64_t *ret_first,
                             uint64_t *ret_end, struct hp_error *reterr)
{
    struct hp_side side;
    *ret_first = hp_sqlite_u64(stmt, 0);
    if (!hp_row_get_side(hp_sqlite_bin(stmt, 1), HP_ROW_SIDE, *ret_first, &side)) {
        return hp_sqlite_damaged(s, "side", *ret_first, reterr);
    }
    /* What is cancelling is leased, which the core knows. */
    *ret_end = *ret_first + (side.kind == HP_SIDE_CANCELLING ? 0 : side.count);
    return HP_OK;
}

static enum hp_err take_group(struct hp_sqlite *s, sqlite3_stmt *stmt, uint64_t *ret_first,
                              uint64_t *ret_end, struct hp_error *reterr)
{
    struct hp_group_head head;
    *ret_first = hp_sqlite_u64(stmt, 0);
    if (!hp_row_get_group(hp_sqlite_bin(stmt, 1), *ret_first, &head)) {
        return hp_sqlite_damaged(s, "group", *ret_first, reterr);
    }
    *ret_end = *ret_first + head.count;
    return HP_OK;
}

/* Gathers the ranges of rows that overlap [low, high): the floor of low, then upwards. */
static enum hp_err gather(struct hp_sqlite *s, sqlite3_stmt *floor, sqlite3_stmt *from,
                          bool from_has_limit, take_row_fn *take, uint64_t low, uint64_t high,
                          struct hp_spans *out, struct hp_error *reterr)
{
    uint64_t first = 0;
    uint64_t end = 0;
    {
        sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = floor;
        hp_sqlite_bind_u64(stmt, 1, low);
        enum hp_err err = hp_sqlite_step(s, stmt, "find floor", reterr);
        if (err == HP_OK) {
            err = take(s, stmt, &first, &end, reterr);
            if (err == HP_OK) {
                err = add_inside(out, first, end, low, high, reterr);
            }
        }
        if (err != HP_OK && err != HP_ERR_NOT_FOUND) {
            return err;
        }
    }
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = from;
    hp_sqlite_bind_u64(stmt, 1, low + 1);
    if (from_has_limit) {
        hp_sqlite_bind_u64(stmt, 2, high);
    }
    for (;;) {
        enum hp_err err = hp_sqlite_step(s, stmt, "scan", reterr);
        if (err == HP_ERR_NOT_FOUND) {
            return HP_OK;
        }
        if (err == HP_OK) {
            if (hp_sqlite_u64(stmt, 0) >= high) {
                return HP_OK;
            }
            err = take(s, stmt, &first, &end, reterr);
        }
        if (err == HP_OK) {
            err = add_inside(out, first, end, low, high, reterr);
        }
        if (err != HP_OK) {
            return err;
        }
    }
}

/* What is not to be dispatched of [low, high), all in one bucket: in `out`, sorted. */
static enum hp_err gather_taken(struct hp_sqlite *s, struct hp_bucket *bucket, uint64_t low,
                                uint64_t high, struct hp_spans *groups, struct hp_spans *out,
                                struct hp_error *reterr)
{
    sqlite3_stmt *floor = NULL;
    sqlite3_stmt *from = NULL;
    enum hp_err err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_GROUP_FLOOR, &floor, reterr);
    if (err == HP_OK) {
        err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_GROUP_FROM, &from, reterr);
    }
    if (err == HP_OK) {
        err = gather(s, floor, from, false, take_group, low, high, groups, reterr);
    }
    uint64_t at = low; /* what lies between groups is gone */
    for (uint32_t i = 0; err == HP_OK && i < groups->count; i++) {
        if (groups->items[i].first > at) {
            err = hp_spans_add(out, at, groups->items[i].first, reterr);
        }
        at = groups->items[i].end;
    }
    if (err == HP_OK && at < high) {
        err = hp_spans_add(out, at, high, reterr);
    }
    if (err == HP_OK && bucket->ended_count > 0) {
        err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_RESULT_FLOOR, &floor, reterr);
        if (err == HP_OK) {
            err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_RESULT_FROM, &from, reterr);
        }
        if (err == HP_OK) {
            err = gather(s, floor, from, true, take_result, low, high, out, reterr);
        }
    }
    if (err == HP_OK) {
        err = gather(s, s->stmts[HP_SQL_SIDE_FLOOR], s->stmts[HP_SQL_SIDE_FROM], true, take_side,
                     low, high, out, reterr);
    }
    hp_spans_sort(out);
    return err;
}

/* Adds what waits of [low, high), all in one bucket. */
static enum hp_err add_waiting(struct hp_sqlite *s, struct hp_answer *answer, uint64_t segment,
                               int64_t since_ms, uint64_t low, uint64_t high,
                               struct hp_error *reterr)
{
    struct hp_bucket *bucket = hp_sqlite_bucket(s, low);
    struct hp_spans groups HP_CLEANUP(hp_spans_deinit) = {0};
    struct hp_spans taken HP_CLEANUP(hp_spans_deinit) = {0};
    if (bucket == NULL || bucket->task_count == 0) {
        return HP_OK;
    }
    enum hp_err err = gather_taken(s, bucket, low, high, &groups, &taken, reterr);
    if (err != HP_OK) {
        return err;
    }
    uint64_t at = low;
    for (uint32_t i = 0; i <= taken.count; i++) {
        uint64_t stop = i < taken.count ? taken.items[i].first : high;
        if (stop > at) {
            hp_answer_add_ids(answer, segment, at, (uint32_t)(stop - at), since_ms);
        }
        if (i < taken.count) {
            at = HP_MAX(at, taken.items[i].end);
        }
    }
    return HP_OK;
}

static enum hp_err add_run(struct hp_sqlite *s, struct hp_answer *answer, uint64_t segment,
                           const struct hp_id_run *run, struct hp_error *reterr)
{
    uint64_t end = run->first + run->count;
    enum hp_err err = HP_OK;
    hp_answer_begin_run(answer);
    for (uint64_t low = run->first; err == HP_OK && low < end;) {
        uint64_t high = ((low >> HP_SQLITE_BUCKET_SHIFT) + 1) << HP_SQLITE_BUCKET_SHIFT;
        high = HP_MIN(high, end);
        err = add_waiting(s, answer, segment, run->since_ms, low, high, reterr);
        low = high;
    }
    return err;
}

static enum hp_err add_segment(struct hp_sqlite *s, struct hp_answer *answer, uint64_t number,
                               struct hp_bin row, struct hp_error *reterr)
{
    struct hp_row_in in;
    struct hp_id_run run = {0};
    uint32_t run_count = 0;
    if (!hp_row_open_segment(&in, row, answer->load->lane, number, &run_count)) {
        return hp_sqlite_damaged(s, "segment", number, reterr);
    }
    for (uint32_t i = 0; i < run_count; i++) {
        if (!hp_row_get_run(&in, &run)) {
            return hp_sqlite_damaged(s, "segment", number, reterr);
        }
        enum hp_err err = add_run(s, answer, number, &run, reterr);
        if (err != HP_OK) {
            return err;
        }
    }
    return HP_OK;
}

/* What comes behind the last segment that is written. */
static enum hp_err add_late(struct hp_sqlite *s, struct hp_answer *answer, struct hp_error *reterr)
{
    for (uint32_t i = 0; i < s->late.count; i++) {
        const struct hp_late_run *late = &s->late.runs[i];
        if (late->lane != answer->load->lane || late->segment < answer->loaded->next_segment) {
            continue;
        }
        if (hp_answer_is_full(answer)) {
            answer->loaded->more = true;
            return HP_OK;
        }
        struct hp_id_run run = {late->first, late->count, late->since_ms};
        enum hp_err err = add_run(s, answer, late->segment, &run, reterr);
        if (err != HP_OK) {
            return err;
        }
        answer->loaded->next_segment = late->segment + 1;
    }
    return HP_OK;
}

enum hp_err hp_sqlite_load_lane(struct hp_sqlite *s, struct hp_answer *answer,
                                struct hp_error *reterr)
{
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_SEGMENT_FROM];
    uint32_t segment_count = 0;
    answer->loaded->next_segment = answer->load->segment;
    hp_sqlite_bind_u64(stmt, 1, answer->load->lane);
    hp_sqlite_bind_u64(stmt, 2, answer->load->segment);
    for (;; segment_count++) {
        enum hp_err err = hp_sqlite_step(s, stmt, "read segments", reterr);
        if (err != HP_OK) {
            return err == HP_ERR_NOT_FOUND ? add_late(s, answer, reterr) : err;
        }
        if (hp_answer_is_full(answer) || (segment_count > 0 && hp_answer_is_late(answer))) {
            answer->loaded->more = true; /* a segment that holds nothing is progress, too */
            return HP_OK;
        }
        uint64_t number = hp_sqlite_u64(stmt, 0);
        err = add_segment(s, answer, number, hp_sqlite_bin(stmt, 1), reterr);
        if (err != HP_OK) {
            return err;
        }
        answer->loaded->next_segment = number + 1;
    }
}
