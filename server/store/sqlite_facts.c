/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is known about an id. A look-up is a floor search in the id's bucket: the row with the
 * greatest first <= id either holds the id or nothing does (I4). Rows and gaps found are
 * remembered.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "server/store/sqlite.h"

void hp_facts_init(struct hp_facts *facts, struct hp_sqlite *s)
{
    *facts = (struct hp_facts){.s = s};
}

void hp_facts_deinit(struct hp_facts *facts)
{
    hp_row_out_deinit(&facts->group_bytes);
    hp_row_out_deinit(&facts->result_bytes);
    hp_free(facts->results);
    facts->results = NULL;
}

static bool in_range(const struct hp_facts_range *range, uint64_t id)
{
    return id >= range->first && id < range->end;
}

/* A page that SQLite finds damaged costs the id that led to it; the scan can go on behind it. */
static enum hp_err note_damage(struct hp_facts_range *range, uint64_t id, enum hp_err err)
{
    if (err == HP_ERR_CORRUPT) {
        *range = (struct hp_facts_range){.first = id, .end = id + 1, .err = err};
    }
    return err;
}

static uint64_t bucket_end(uint64_t id)
{
    return ((id >> HP_SQLITE_BUCKET_SHIFT) + 1) << HP_SQLITE_BUCKET_SHIFT;
}

/* Keeps a copy of a row, since the statement's own dies with its reset. */
static enum hp_err keep_row(struct hp_row_out *bytes, struct hp_bin row, struct hp_bin *ret_row,
                            struct hp_error *reterr)
{
    hp_row_clear(bytes);
    hp_row_put_raw(bytes, row.data, row.size);
    if (bytes->failed) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    *ret_row = (struct hp_bin){.data = bytes->data, .size = (uint32_t)bytes->size};
    return HP_OK;
}

/* First key >= `id` of a statement bound to (id, limit or nothing), or `limit`. */
static enum hp_err next_first(struct hp_sqlite *s, sqlite3_stmt *in_use, uint64_t id,
                              uint64_t limit, bool with_limit, uint64_t *ret_first,
                              struct hp_error *reterr)
{
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = in_use;
    hp_sqlite_bind_u64(stmt, 1, id);
    if (with_limit) {
        hp_sqlite_bind_u64(stmt, 2, limit);
    }
    enum hp_err err = hp_sqlite_step(s, stmt, "look ahead", reterr);
    if (err == HP_ERR_NOT_FOUND) {
        *ret_first = limit;
        return HP_OK;
    }
    if (err == HP_OK) {
        *ret_first = HP_MIN(hp_sqlite_u64(stmt, 0), limit);
    }
    return err;
}

/* Notes that [floor_end, next row) around `id` holds nothing (NOT_FOUND) or a damaged row. */
static enum hp_err note_until_next(struct hp_facts *facts, struct hp_facts_range *range,
                                   sqlite3_stmt *from, uint64_t low, uint64_t id, bool with_limit,
                                   enum hp_err what, struct hp_error *reterr)
{
    uint64_t next = 0;
    enum hp_err err = next_first(facts->s, from, id + 1, bucket_end(id), with_limit, &next, reterr);
    if (err != HP_OK) {
        return err;
    }
    *range = (struct hp_facts_range){.first = low, .end = next, .err = what};
    return HP_OK;
}

/* ------------------------------------------------------------------ groups */
static enum hp_err find_group(struct hp_facts *facts, uint64_t id, struct hp_error *reterr)
{
    struct hp_sqlite *s = facts->s;
    struct hp_facts_range *range = &facts->group_range;
    uint64_t low = (id >> HP_SQLITE_BUCKET_SHIFT) << HP_SQLITE_BUCKET_SHIFT;
    struct hp_bucket *bucket = hp_sqlite_bucket(s, id);
    if (bucket == NULL) {
        *range = (struct hp_facts_range){low, bucket_end(id), HP_ERR_NOT_FOUND};
        return HP_OK;
    }
    sqlite3_stmt *from = NULL;
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = NULL;
    enum hp_err err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_GROUP_FROM, &from, reterr);
    if (err == HP_OK) {
        err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_GROUP_FLOOR, &stmt, reterr);
    }
    if (err != HP_OK) {
        return err;
    }
    hp_sqlite_bind_u64(stmt, 1, id);
    err = hp_sqlite_step(s, stmt, "find group", reterr);
    if (err != HP_OK && err != HP_ERR_NOT_FOUND) {
        return err;
    }
    if (err == HP_OK) {
        struct hp_bin row = {0};
        uint64_t first = hp_sqlite_u64(stmt, 0);
        err = keep_row(&facts->group_bytes, hp_sqlite_bin(stmt, 1), &row, reterr);
        if (err != HP_OK) {
            return err;
        }
        if (!hp_row_get_group(row, first, &facts->group)) {
            facts->group = (struct hp_group_head){.first = first};
            return note_until_next(facts, range, from, first, id, false, HP_ERR_CORRUPT, reterr);
        }
        if (id - first < facts->group.count) {
            *range = (struct hp_facts_range){first, first + facts->group.count, HP_OK};
            return HP_OK;
        }
        low = first + facts->group.count;
    }
    return note_until_next(facts, range, from, low, id, false, HP_ERR_NOT_FOUND, reterr);
}

enum hp_err hp_facts_group(struct hp_facts *facts, uint64_t id,
                           const struct hp_group_head **ret_head, struct hp_error *reterr)
{
    if (!in_range(&facts->group_range, id)) {
        facts->group_range = (struct hp_facts_range){0};
        enum hp_err err = find_group(facts, id, reterr);
        if (err != HP_OK) {
            /* Not even the row could be read: all that is known is its id. */
            facts->group = (struct hp_group_head){.first = id};
            *ret_head = &facts->group;
            return note_damage(&facts->group_range, id, err);
        }
    }
    *ret_head = &facts->group;
    return facts->group_range.err;
}

/* ------------------------------------------------------------------ results */
/* Decodes a whole run, so that its ids can be asked in any order. */
static enum hp_err keep_results(struct hp_facts *facts, struct hp_result_run *run, bool *ret_whole,
                                struct hp_error *reterr)
{
    *ret_whole = false;
    if (facts->results == NULL) {
        facts->results = hp_calloc(HP_RESULT_RUN_ITEMS_MAX, sizeof(*facts->results));
        if (facts->results == NULL) {
            return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
        }
    }
    uint32_t count = run->uniform ? 1 : run->count;
    if (count > HP_RESULT_RUN_ITEMS_MAX) {
        return HP_OK;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (!hp_result_run_get(run, run->first + i, &facts->results[i])) {
            return HP_OK;
        }
    }
    facts->result_uniform = run->uniform;
    facts->result_expires_ms = run->expires_at_ms;
    *ret_whole = true;
    return HP_OK;
}

static enum hp_err take_result_row(struct hp_facts *facts, sqlite3_stmt *stmt, sqlite3_stmt *from,
                                   uint64_t id, uint64_t *ret_low, bool *ret_found,
                                   struct hp_error *reterr)
{
    struct hp_facts_range *range = &facts->result_range;
    struct hp_bin row = {0};
    struct hp_result_run run;
    bool whole = false;
    uint64_t first = hp_sqlite_u64(stmt, 0);
    uint64_t count = hp_sqlite_u64(stmt, 2);
    *ret_found = true;
    if (first + count <= id) {
        /* The column may be wrong only if the row is damaged; its digest decides. */
        *ret_low = first + count;
        *ret_found = false;
    }
    enum hp_err err = keep_row(&facts->result_bytes, hp_sqlite_bin(stmt, 1), &row, reterr);
    if (err != HP_OK) {
        return err;
    }
    bool is_open = hp_result_run_open(&run, row, first) && run.count == count;
    if (is_open && !*ret_found) {
        return HP_OK;
    }
    if (is_open) {
        err = keep_results(facts, &run, &whole, reterr);
        if (err != HP_OK) {
            return err;
        }
    }
    if (whole) {
        *range = (struct hp_facts_range){first, first + count, HP_OK};
        return HP_OK;
    }
    *ret_found = true;
    return note_until_next(facts, range, from, first, id, true, HP_ERR_CORRUPT, reterr);
}

static enum hp_err find_result(struct hp_facts *facts, uint64_t id, struct hp_error *reterr)
{
    struct hp_sqlite *s = facts->s;
    struct hp_facts_range *range = &facts->result_range;
    uint64_t low = (id >> HP_SQLITE_BUCKET_SHIFT) << HP_SQLITE_BUCKET_SHIFT;
    struct hp_bucket *bucket = hp_sqlite_bucket(s, id);
    if (bucket == NULL) {
        *range = (struct hp_facts_range){low, bucket_end(id), HP_ERR_NOT_FOUND};
        return HP_OK;
    }
    sqlite3_stmt *from = NULL;
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = NULL;
    enum hp_err err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_RESULT_FROM, &from, reterr);
    if (err == HP_OK) {
        err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_RESULT_FLOOR, &stmt, reterr);
    }
    if (err != HP_OK) {
        return err;
    }
    hp_sqlite_bind_u64(stmt, 1, id);
    err = hp_sqlite_step(s, stmt, "find result", reterr);
    if (err != HP_OK && err != HP_ERR_NOT_FOUND) {
        return err;
    }
    if (err == HP_OK) {
        bool found = false;
        err = take_result_row(facts, stmt, from, id, &low, &found, reterr);
        if (err != HP_OK || found) {
            return err;
        }
    }
    return note_until_next(facts, range, from, low, id, true, HP_ERR_NOT_FOUND, reterr);
}

enum hp_err hp_facts_result(struct hp_facts *facts, uint64_t id, struct hp_result *ret_result,
                            struct hp_error *reterr)
{
    if (!in_range(&facts->result_range, id)) {
        facts->result_range = (struct hp_facts_range){0};
        enum hp_err err = find_result(facts, id, reterr);
        if (err != HP_OK) {
            return note_damage(&facts->result_range, id, err);
        }
    }
    if (facts->result_range.err == HP_OK) {
        uint64_t index = facts->result_uniform ? 0 : id - facts->result_range.first;
        *ret_result = facts->results[index];
        ret_result->first = id;
    }
    return facts->result_range.err;
}

/* ------------------------------------------------------------------ sides */
static enum hp_err find_side(struct hp_facts *facts, uint64_t id, struct hp_error *reterr)
{
    struct hp_sqlite *s = facts->s;
    struct hp_facts_range *range = &facts->side_range;
    sqlite3_stmt *from = s->stmts[HP_SQL_SIDE_FROM];
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_SIDE_FLOOR];
    uint64_t low = 0;
    hp_sqlite_bind_u64(stmt, 1, id);
    enum hp_err err = hp_sqlite_step(s, stmt, "find side", reterr);
    if (err != HP_OK && err != HP_ERR_NOT_FOUND) {
        return err;
    }
    if (err == HP_OK) {
        uint64_t first = hp_sqlite_u64(stmt, 0);
        if (!hp_row_get_side(hp_sqlite_bin(stmt, 1), HP_ROW_SIDE, first, &facts->side)) {
            return note_until_next(facts, range, from, first, id, true, HP_ERR_CORRUPT, reterr);
        }
        if (id - first < facts->side.count) {
            *range = (struct hp_facts_range){first, first + facts->side.count, HP_OK};
            return HP_OK;
        }
        low = first + facts->side.count;
    }
    return note_until_next(facts, range, from, low, id, true, HP_ERR_NOT_FOUND, reterr);
}

enum hp_err hp_facts_side(struct hp_facts *facts, uint64_t id, struct hp_side *ret_side,
                          struct hp_error *reterr)
{
    if (!in_range(&facts->side_range, id)) {
        facts->side_range = (struct hp_facts_range){0};
        enum hp_err err = find_side(facts, id, reterr);
        if (err != HP_OK) {
            return note_damage(&facts->side_range, id, err);
        }
    }
    if (facts->side_range.err == HP_OK) {
        *ret_side = facts->side;
    }
    return facts->side_range.err;
}

/* ------------------------------------------------------------------ tombstones */
void hp_tomb_put(struct hp_row_out *out, const struct hp_tomb *tomb)
{
    hp_row_clear(out);
    hp_row_put_u64(out, tomb->count);
    hp_row_put_i64(out, tomb->until_ms);
    hp_row_put_bin(out, tomb->states);
    hp_row_seal(out, HP_ROW_TOMB, tomb->first);
}

bool hp_tomb_get(struct hp_bin row, uint64_t first, struct hp_tomb *ret_tomb)
{
    struct hp_row_in in;
    if (!hp_row_open(&in, row, HP_ROW_TOMB, first)) {
        return false;
    }
    ret_tomb->first = first;
    ret_tomb->count = hp_row_get_u32(&in);
    ret_tomb->until_ms = hp_row_get_i64(&in);
    ret_tomb->states = hp_row_get_bin(&in);
    return hp_row_done(&in);
}

enum hp_err hp_sqlite_tomb(struct hp_sqlite *s, uint64_t id, uint32_t *ret_state,
                           struct hp_error *reterr)
{
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_TOMB_FLOOR];
    struct hp_tomb tomb;
    hp_sqlite_bind_u64(stmt, 1, id);
    enum hp_err err = hp_sqlite_step(s, stmt, "find tombstone", reterr);
    if (err != HP_OK) {
        return err;
    }
    uint64_t first = hp_sqlite_u64(stmt, 0);
    if (!hp_tomb_get(hp_sqlite_bin(stmt, 1), first, &tomb)) {
        return hp_sqlite_damaged(s, "tomb", first, reterr);
    }
    if (id - first >= tomb.count) {
        return HP_ERR_NOT_FOUND;
    }
    struct hp_row_in in = {.at = tomb.states.data, .end = tomb.states.data + tomb.states.size};
    uint64_t end = first;
    while (in.at < in.end) {
        end += hp_row_get_u64(&in);
        *ret_state = hp_row_get_u32(&in);
        if (id < end) {
            return HP_OK;
        }
    }
    *ret_state = 0; /* its states were too many to keep */
    return HP_OK;
}

/* ------------------------------------------------------------------ spans */
void hp_spans_deinit(struct hp_spans *spans)
{
    hp_free(spans->items);
    *spans = (struct hp_spans){0};
}

enum hp_err hp_spans_add(struct hp_spans *spans, uint64_t first, uint64_t end,
                         struct hp_error *reterr)
{
    if (spans->count > 0 && spans->items[spans->count - 1].end == first) {
        spans->items[spans->count - 1].end = end;
        return HP_OK;
    }
    if (spans->count == spans->capacity) {
        uint32_t capacity = spans->capacity == 0 ? 64 : spans->capacity * 2;
        struct hp_span *items = hp_realloc_array(spans->items, capacity, sizeof(*items));
        if (items == NULL) {
            return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
        }
        spans->items = items;
        spans->capacity = capacity;
    }
    spans->items[spans->count++] = (struct hp_span){.first = first, .end = end};
    return HP_OK;
}

static int compare_spans(const void *a, const void *b)
{
    const struct hp_span *x = a;
    const struct hp_span *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

void hp_spans_sort(struct hp_spans *spans)
{
    if (spans->count > 1) {
        qsort(spans->items, spans->count, sizeof(*spans->items), compare_spans);
    }
}
