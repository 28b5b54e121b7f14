/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What clients forgot: groups of which all tasks have ended and been forgotten go before their
 * time, as retention would take them (sqlite_reap.c), in slices, each one transaction. Whole groups
 * side by side are one range. Parts of groups are remembered, in memory, until the rest comes;
 * their blobs go at once. Forgetting is a hint: what a crash loses goes with retention. A full disk
 * loses none: it is what makes room again, so it is tried again, from where it had committed.
 */
#include <string.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"
#include "server/store/sqlite.h"

#define TODO_MAX 65536u   /* spans that wait; more are left to retention */
#define PARTS_MAX 65536u  /* parts of groups that wait for the rest */
#define STRETCH_IDS 2048u /* one range of deletes */
#define SLICE_US 2000u

/* The open transaction. */
struct slice {
    struct hp_sqlite *s;
    struct hp_facts facts;
    struct hp_row_out states; /* of the group being looked at */
    uint64_t next_owner;      /* no blob has an owner from the cursor on and below this */
    bool owner_known;
    bool full;
    uint32_t next;   /* of the todo list */
    uint64_t at;     /* in that span: from here on it is still to do; 0: from its first */
    uint64_t cursor; /* ids below, from stretch.first on, were looked at */
    /* groups to be deleted as one range, of one bucket */
    struct hp_span stretch;
    uint64_t group_count, task_count;
    struct hp_spans deleted; /* groups: what is remembered of their parts goes with the commit */
};

static void slice_deinit(struct slice *slice)
{
    hp_spans_deinit(&slice->deleted);
    hp_facts_deinit(&slice->facts);
    hp_row_out_deinit(&slice->states);
}

void hp_sqlite_forget_deinit(struct hp_sqlite *s)
{
    hp_spans_deinit(&s->forget.todo);
    hp_spans_deinit(&s->forget.parts);
}

void hp_sqlite_forget_add(struct hp_sqlite *s, const struct hp_op *op)
{
    struct hp_forget *forget = &s->forget;
    s->reap.wall_ms = HP_MAX(s->reap.wall_ms, op->forget.wall_ms);
    for (uint32_t i = 0; i < op->forget.span_count; i++) {
        const struct hp_id_span *span = &op->forget.spans[i];
        if (forget->todo.count - forget->done >= TODO_MAX ||
            hp_spans_add(&forget->todo, span->first, span->first + span->count, NULL) != HP_OK) {
            return; /* a hint */
        }
    }
}

bool hp_sqlite_forget_wants(const struct hp_sqlite *s)
{
    return s->forget.done < s->forget.todo.count;
}

/* ------------------------------------------------------------------ parts of groups */
/* Index of the first part that ends at or above `id`. */
static uint32_t part_index(const struct hp_spans *parts, uint64_t id)
{
    uint32_t low = 0;
    uint32_t high = parts->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (parts->items[middle].end < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void part_erase(struct hp_spans *parts, uint32_t index, uint32_t count)
{
    parts->count -= count;
    memmove(&parts->items[index], &parts->items[index + count],
            (parts->count - index) * sizeof(parts->items[0]));
}

/* Adds [first, end), joined with what it touches. */
static void part_add(struct hp_spans *parts, uint64_t first, uint64_t end)
{
    if (parts->count >= PARTS_MAX) {
        parts->count = 0; /* left to retention */
    }
    uint32_t index = part_index(parts, first);
    uint32_t last = index;
    while (last < parts->count && parts->items[last].first <= end) {
        first = HP_MIN(first, parts->items[last].first);
        end = HP_MAX(end, parts->items[last].end);
        last++;
    }
    if (last > index) {
        parts->items[index] = (struct hp_span){first, end};
        part_erase(parts, index + 1, last - index - 1);
        return;
    }
    if (hp_spans_add(parts, first, end, NULL) != HP_OK) { /* at the end; then to its place */
        return;
    }
    memmove(&parts->items[index + 1], &parts->items[index],
            (parts->count - 1 - index) * sizeof(parts->items[0]));
    parts->items[index] = (struct hp_span){first, end};
}

static bool parts_hold(const struct hp_spans *parts, struct hp_span group)
{
    uint32_t index = part_index(parts, group.first + 1);
    return index < parts->count && parts->items[index].first <= group.first &&
           parts->items[index].end >= group.end;
}

/* Removes [first, end) from all parts that hold some of it. */
static void part_remove(struct hp_spans *parts, struct hp_span ids)
{
    uint32_t index = part_index(parts, ids.first + 1);
    uint32_t last = index;
    struct hp_span before = {0};
    struct hp_span behind = {0};
    while (last < parts->count && parts->items[last].first < ids.end) {
        struct hp_span part = parts->items[last++];
        before = part.first < ids.first ? (struct hp_span){part.first, ids.first} : before;
        behind = part.end > ids.end ? (struct hp_span){ids.end, part.end} : behind;
    }
    if (last == index) {
        return;
    }
    part_erase(parts, index, last - index);
    if (before.end > 0) {
        part_add(parts, before.first, before.end);
    }
    if (behind.end > 0) {
        part_add(parts, behind.first, behind.end);
    }
}

/* ------------------------------------------------------------------ deleting */
static enum hp_err flush_stretch(struct slice *slice, struct hp_error *reterr)
{
    struct hp_sqlite *s = slice->s;
    struct hp_span ids = slice->stretch;
    if (slice->group_count == 0) {
        return HP_OK;
    }
    struct hp_bucket *bucket = hp_sqlite_bucket(s, ids.first);
    sqlite3_stmt *stmt = NULL;
    enum hp_err err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_GROUP_DEL_RANGE, &stmt, reterr);
    if (err == HP_OK) {
        hp_sqlite_bind_u64(stmt, 1, ids.first);
        hp_sqlite_bind_u64(stmt, 2, ids.end);
        err = hp_sqlite_run(s, stmt, "delete groups", reterr);
    }
    err = err == HP_OK ? hp_sqlite_reap_results(s, bucket, ids.first, ids.end, reterr) : err;
    err = err == HP_OK ? hp_sqlite_reap_sides(s, ids.first, ids.end, reterr) : err;
    bucket->group_count -= slice->group_count;
    bucket->task_count -= slice->task_count;
    bucket->ended_count -= slice->task_count;
    bucket->dirty = true;
    bucket->changes++;
    if (bucket->group_count == 0) {
        bucket->reap_at_ms = 0; /* retention drops it when it is closed */
    }
    hp_sqlite_reap_skip(s, ids);
    s->reap.task_count += slice->task_count;
    slice->group_count = 0;
    slice->task_count = 0;
    return err;
}

static enum hp_err add_to_stretch(struct slice *slice, struct hp_span group,
                                  struct hp_error *reterr)
{
    enum hp_err err = HP_OK;
    if (slice->group_count > 0 && group.end - slice->stretch.first > STRETCH_IDS) {
        err = flush_stretch(slice, reterr);
    }
    if (slice->group_count == 0) {
        slice->stretch.first = group.first;
    }
    slice->stretch.end = group.end;
    slice->group_count++;
    slice->task_count += group.end - group.first;
    if (hp_spans_add(&slice->deleted, group.first, group.end, NULL) != HP_OK) {
        part_remove(&slice->s->forget.parts, group); /* if this fails, retention has it */
    }
    return err == HP_OK ? hp_sqlite_bury(slice->s, group.first, group.end, &slice->states, reterr)
                        : err;
}

/* Releases blobs of [first, end). slice->full: go on from there in the next slice. */
static enum hp_err release_blobs(struct slice *slice, uint64_t first, uint64_t end,
                                 struct hp_error *reterr)
{
    struct hp_sqlite *s = slice->s;
    if (!slice->owner_known || slice->next_owner < first) {
        sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_BLOB_OWNER_FROM];
        hp_sqlite_bind_u64(stmt, 1, first);
        enum hp_err err = hp_sqlite_step(s, stmt, "find blobs", reterr);
        if (err != HP_OK && err != HP_ERR_NOT_FOUND) {
            return err;
        }
        slice->next_owner = err == HP_OK ? hp_sqlite_u64(stmt, 0) : UINT64_MAX;
        slice->owner_known = true;
    }
    if (slice->next_owner >= end) {
        return HP_OK;
    }
    bool all = false;
    enum hp_err err = hp_sqlite_reap_blobs(s, first, end, &all, reterr);
    slice->full = !all;
    slice->owner_known = false;
    return err;
}

/* ------------------------------------------------------------------ looking at groups */
static bool put_state(struct slice *slice, uint64_t count, uint32_t state)
{
    if (slice->states.size >= HP_SQLITE_STATES_BYTES_MAX) {
        return false;
    }
    hp_row_put_u64(&slice->states, count);
    hp_row_put_u64(&slice->states, state);
    return true;
}

/* The ended run that begins at `at`, within `end`. NOT_FOUND: it lives, or is damaged. */
static enum hp_err ended_run(struct slice *slice, uint64_t at, uint64_t end, uint64_t *ret_end,
                             uint32_t *ret_state, struct hp_error *reterr)
{
    struct hp_facts *facts = &slice->facts;
    struct hp_result result;
    enum hp_err err = hp_facts_result(facts, at, &result, reterr);
    if (err != HP_OK) {
        *ret_end = at + 1;
        return err == HP_ERR_CORRUPT ? HP_ERR_NOT_FOUND : err;
    }
    uint64_t run_end = HP_MIN(facts->result_range.end, end);
    uint64_t to = facts->result_uniform ? run_end : at + 1;
    while (to < run_end && facts->results[to - facts->result_range.first].state == result.state) {
        to++;
    }
    *ret_end = to;
    *ret_state = result.state;
    return HP_OK;
}

/* Walks the ids of `part`: true if all have ended, with their states; notes what has if `keep`. */
static enum hp_err walk(struct slice *slice, struct hp_span part, bool keep, bool *ret_all,
                        struct hp_error *reterr)
{
    bool too_many = false;
    hp_row_clear(&slice->states);
    *ret_all = true;
    for (uint64_t at = part.first; at < part.end;) {
        uint64_t end = 0;
        uint32_t state = 0;
        enum hp_err err = ended_run(slice, at, part.end, &end, &state, reterr);
        if (err == HP_ERR_NOT_FOUND) {
            *ret_all = false;
            if (!keep) {
                return HP_OK;
            }
        } else if (err != HP_OK) {
            return err;
        } else if (keep) {
            part_add(&slice->s->forget.parts, at, end);
            err = release_blobs(slice, at, end, reterr);
            if (err != HP_OK || slice->full) {
                return err;
            }
        } else {
            too_many = !put_state(slice, end - at, state) || too_many;
        }
        at = end;
    }
    if (too_many) { /* ended, how is not known */
        hp_row_clear(&slice->states);
        (void)put_state(slice, part.end - part.first, 0);
    }
    return HP_OK;
}

/* A group of which [part.first, part.end) is forgotten. */
static enum hp_err take_group(struct slice *slice, struct hp_span group, struct hp_span part,
                              struct hp_error *reterr)
{
    struct hp_spans *parts = &slice->s->forget.parts;
    bool all = false;
    bool whole = part.first == group.first && part.end == group.end;
    enum hp_err err = HP_OK;
    if (whole) {
        err = walk(slice, group, false, &all, reterr);
        if (err == HP_OK && all) {
            err = release_blobs(slice, group.first, group.end, reterr);
            return err == HP_OK && !slice->full ? add_to_stretch(slice, group, reterr) : err;
        }
    }
    if (err == HP_OK) {
        err = walk(slice, part, true, &all, reterr);
    }
    if (err == HP_OK && !slice->full && parts_hold(parts, group)) {
        err = walk(slice, group, false, &all, reterr);
        return err == HP_OK && all ? add_to_stretch(slice, group, reterr) : err;
    }
    return err == HP_OK ? flush_stretch(slice, reterr) : err; /* a range must not hold it */
}

/* From the cursor to the next bucket, or the end of the span. */
static uint64_t next_bucket(const struct hp_sqlite *s, uint64_t id, uint64_t end)
{
    uint32_t index = hp_sqlite_bucket_index(s, id >> HP_SQLITE_BUCKET_SHIFT);
    return index < s->bucket_count ? HP_MIN(end, s->buckets[index].number << HP_SQLITE_BUCKET_SHIFT)
                                   : end;
}

/* One group, or one gap, from span->first on. */
static enum hp_err step(struct slice *slice, struct hp_span *span, struct hp_error *reterr)
{
    struct hp_sqlite *s = slice->s;
    uint64_t at = span->first;
    struct hp_bucket *bucket = hp_sqlite_bucket(s, at);
    uint64_t limit = ((at >> HP_SQLITE_BUCKET_SHIFT) + 1) << HP_SQLITE_BUCKET_SHIFT;
    limit = bucket != NULL ? HP_MIN(limit, span->end) : next_bucket(s, at, span->end);
    uint64_t end = limit;
    enum hp_err err = HP_OK;
    if (bucket != NULL && bucket->emptied_below > 0) {
        span->first = limit; /* retention is at it */
        return HP_OK;
    }
    if (bucket != NULL) {
        const struct hp_group_head *head = NULL;
        err = hp_facts_group(&slice->facts, at, &head, reterr);
        struct hp_span found = {slice->facts.group_range.first, slice->facts.group_range.end};
        end = HP_MIN(found.end, limit);
        if (err == HP_OK) {
            err = take_group(slice, found, (struct hp_span){at, end}, reterr);
            span->first = err == HP_OK && !slice->full ? end : at;
            return err;
        }
        if (err == HP_ERR_CORRUPT) {
            span->first = end; /* an operator's */
            return flush_stretch(slice, reterr);
        }
        if (err != HP_ERR_NOT_FOUND) {
            return err;
        }
    }
    err = release_blobs(slice, at, end, reterr); /* of tasks that were never stored */
    span->first = err == HP_OK && !slice->full ? end : at;
    return err;
}

/* A range of deletes holds nothing that was not looked at, and is of one bucket. */
static enum hp_err go_on_at(struct slice *slice, uint64_t id, struct hp_error *reterr)
{
    enum hp_err err = HP_OK;
    if (slice->group_count > 0 &&
        (id != slice->cursor ||
         id >> HP_SQLITE_BUCKET_SHIFT != slice->stretch.first >> HP_SQLITE_BUCKET_SHIFT)) {
        err = flush_stretch(slice, reterr);
    }
    if (id < slice->cursor) { /* what is remembered may be gone */
        hp_facts_deinit(&slice->facts);
        hp_facts_init(&slice->facts, slice->s);
        slice->owner_known = false;
    }
    slice->cursor = id;
    return err;
}

static enum hp_err run_slice(struct slice *slice, uint64_t deadline_us, struct hp_error *reterr)
{
    const struct hp_spans *todo = &slice->s->forget.todo;
    enum hp_err err = HP_OK;
    for (uint32_t i = 1; err == HP_OK && slice->next < todo->count && !slice->full; i++) {
        struct hp_span span = todo->items[slice->next];
        span.first = HP_MAX(span.first, slice->at);
        err = go_on_at(slice, span.first, reterr);
        if (err == HP_OK && span.first < span.end) {
            err = step(slice, &span, reterr);
            slice->cursor = span.first;
        }
        slice->next += span.first >= span.end;
        slice->at = span.first >= span.end ? 0 : span.first;
        if (i % 16 == 0 && hp_clock_mono_us() >= deadline_us) {
            break;
        }
    }
    err = err == HP_OK ? flush_stretch(slice, reterr) : err;
    return err == HP_OK ? hp_sqlite_reap_end(slice->s, reterr) : err;
}

static void committed(struct slice *slice)
{
    struct hp_forget *forget = &slice->s->forget;
    for (uint32_t i = 0; i < slice->deleted.count; i++) {
        part_remove(&forget->parts, slice->deleted.items[i]);
    }
    forget->done = slice->next;
    if (forget->done == forget->todo.count) {
        forget->todo.count = 0;
        forget->done = 0;
    } else {
        struct hp_span *span = &forget->todo.items[forget->done];
        span->first = HP_MAX(span->first, slice->at);
    }
    hp_sqlite_reap_committed(slice->s);
}

enum hp_err hp_sqlite_forget(struct hp_sqlite *s, bool *ret_more, struct hp_error *reterr)
{
    uint64_t start_us = hp_clock_mono_us();
    struct slice slice HP_CLEANUP(slice_deinit) = {.s = s, .next = s->forget.done};
    hp_facts_init(&slice.facts, s);
    hp_sqlite_reap_begin(s);
    enum hp_err err = hp_sqlite_begin(s, reterr);
    if (err == HP_OK) {
        err = run_slice(&slice, start_us + SLICE_US, reterr);
    }
    err = err == HP_OK ? hp_sqlite_commit(s, reterr) : hp_sqlite_abort(s, err, reterr);
    if (err == HP_OK) {
        committed(&slice);
    }
    *ret_more = hp_sqlite_forget_wants(s);
    return err;
}

/* ------------------------------------------------------------------ start */
/* Blobs whose task has no row were of tasks that were kept in memory only. */
enum hp_err hp_sqlite_forget_lost(struct hp_sqlite *s, struct hp_error *reterr)
{
    struct hp_spans lost = {0};
    struct hp_facts facts HP_CLEANUP(hp_facts_deinit);
    hp_facts_init(&facts, s);
    enum hp_err err = HP_OK;
    {
        sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_BLOB_OWNER_FROM];
        hp_sqlite_bind_u64(stmt, 1, 0);
        while (err == HP_OK) {
            const struct hp_group_head *head = NULL;
            err = hp_sqlite_step(s, stmt, "find blobs", reterr);
            uint64_t owner = err == HP_OK ? hp_sqlite_u64(stmt, 0) : 0;
            if (err == HP_OK && hp_facts_group(&facts, owner, &head, reterr) == HP_ERR_NOT_FOUND) {
                err = hp_spans_add(&lost, owner, owner + 1, reterr);
            }
        }
    }
    err = err == HP_ERR_NOT_FOUND ? HP_OK : err;
    for (uint32_t i = 0; err == HP_OK && i < lost.count; i++) {
        err = hp_spans_add(&s->forget.todo, lost.items[i].first, lost.items[i].end, reterr);
    }
    hp_spans_deinit(&lost);
    return err;
}
