/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Retention, in slices of a few ms, each one transaction.
 *
 * A group goes when all its ids have results and all of them have expired (S6): its row, its side
 * rows, its blobs' references; a tombstone takes its place. Results go by gap: a result row whose
 * ids have no group left. So a cut between the two leaves results nobody sees, which the next scan
 * finds.
 *
 * A bucket of which everything has expired, and which ended in one state, is emptied by ranges
 * without looking at its groups; emptied buckets are dropped. A bucket is only looked at when
 * something in it may have expired, and rarely in proportion to what looking costs.
 */
#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/sys/clock.h"
#include "common/sys/crash.h"
#include "server/store/sqlite.h"

#define GAP_CHUNK_IDS 4096u
#define EMPTY_CHUNK_IDS 8192u
#define KEPT_STREAK_MAX                                                                            \
    1024u             /* expiry follows ids closely enough: what is behind waits for later */
#define SCAN_SHARE 10 /* a scan of 1 ms is not repeated within 10 ms */

static void begin_pass(struct hp_reap *reap)
{
    reap->active = true;
    reap->phase = HP_REAP_BUCKETS;
    reap->bucket = 0;
    reap->in_bucket = false;
    reap->in_group = false;
}

void hp_sqlite_reap_start(struct hp_sqlite *s, const struct hp_op *op)
{
    struct hp_reap *reap = &s->reap;
    reap->wall_ms = op->reap.wall_ms;
    reap->keep_sessions = op->reap.keep_sessions;
    if (!reap->active) {
        begin_pass(reap);
    }
}

void hp_sqlite_reap_deinit(struct hp_sqlite *s)
{
    hp_row_out_deinit(&s->reap.group_states);
    hp_row_out_deinit(&s->reap.tomb_states);
}

/* ------------------------------------------------------------------ tombstones */
static enum hp_err write_tomb(struct hp_sqlite *s, struct hp_error *reterr)
{
    struct hp_reap *reap = &s->reap;
    sqlite3_stmt *stmt = s->stmts[HP_SQL_TOMB_PUT];
    if (reap->tomb.count == 0) {
        return HP_OK;
    }
    reap->tomb.states =
        (struct hp_bin){.data = reap->tomb_states.data, .size = (uint32_t)reap->tomb_states.size};
    hp_tomb_put(&s->out, &reap->tomb);
    s->out.failed = s->out.failed || reap->tomb_states.failed;
    hp_sqlite_bind_u64(stmt, 1, reap->tomb.first);
    hp_sqlite_bind_row(stmt, 2, &s->out);
    reap->tomb.count = 0;
    hp_row_clear(&reap->tomb_states);
    return hp_sqlite_run(s, stmt, "write tombstone", reterr);
}

enum hp_err hp_sqlite_bury(struct hp_sqlite *s, uint64_t first, uint64_t end,
                           const struct hp_row_out *states, struct hp_error *reterr)
{
    struct hp_reap *reap = &s->reap;
    struct hp_tomb *tomb = &reap->tomb;
    enum hp_err err = HP_OK;
    if (states->failed) { /* half of them would tell wrong ends */
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    if (tomb->count > 0 && (tomb->first + tomb->count != first ||
                            reap->tomb_states.size + states->size > HP_SQLITE_STATES_BYTES_MAX)) {
        err = write_tomb(s, reterr);
    }
    if (tomb->count == 0) {
        *tomb = (struct hp_tomb){.first = first, .until_ms = reap->wall_ms + HP_STORE_TOMB_MS};
    }
    tomb->count += (uint32_t)(end - first);
    hp_row_put_raw(&reap->tomb_states, states->data, states->size);
    return err;
}

/* ------------------------------------------------------------------ what belongs to ids */
static enum hp_err delete_range(struct hp_sqlite *s, enum hp_sql sql, uint64_t first, uint64_t end,
                                struct hp_error *reterr)
{
    hp_sqlite_bind_u64(s->stmts[sql], 1, first);
    hp_sqlite_bind_u64(s->stmts[sql], 2, end);
    return hp_sqlite_run(s, s->stmts[sql], "reap", reterr);
}

enum hp_err hp_sqlite_reap_blobs(struct hp_sqlite *s, uint64_t first, uint64_t end, bool *ret_all,
                                 struct hp_error *reterr)
{
    struct hp_reap *reap = &s->reap;
    uint32_t from = reap->unlink_count;
    *ret_all = false;
    {
        sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_BLOB_OWNED];
        hp_sqlite_bind_u64(stmt, 1, first);
        hp_sqlite_bind_u64(stmt, 2, end);
        while (reap->unlink_count < HP_REAP_UNLINK_MAX) {
            enum hp_err err = hp_sqlite_step(s, stmt, "find blobs", reterr);
            if (err == HP_ERR_NOT_FOUND) {
                *ret_all = true;
                break;
            }
            if (err != HP_OK) {
                return err;
            }
            reap->unlink[reap->unlink_count++] = hp_sqlite_u64(stmt, 0);
        }
    }
    for (uint32_t i = from; i < reap->unlink_count; i++) {
        hp_sqlite_bind_u64(s->stmts[HP_SQL_BLOB_DEL], 1, reap->unlink[i]);
        enum hp_err err = hp_sqlite_run(s, s->stmts[HP_SQL_BLOB_DEL], "delete blob", reterr);
        if (err != HP_OK) {
            return err;
        }
    }
    return HP_OK;
}

enum hp_err hp_sqlite_reap_sides(struct hp_sqlite *s, uint64_t first, uint64_t end,
                                 struct hp_error *reterr)
{
    enum hp_err err = delete_range(s, HP_SQL_SIDE_REAP, first, end, reterr);
    return err == HP_OK ? delete_range(s, HP_SQL_EXPIRY_REAP, first, end, reterr) : err;
}

enum hp_err hp_sqlite_reap_results(struct hp_sqlite *s, struct hp_bucket *bucket, uint64_t first,
                                   uint64_t end, struct hp_error *reterr)
{
    sqlite3_stmt *stmt = NULL;
    enum hp_err err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_RESULT_DEL, &stmt, reterr);
    if (err == HP_OK) {
        hp_sqlite_bind_u64(stmt, 1, first);
        hp_sqlite_bind_u64(stmt, 2, end);
        err = hp_sqlite_run(s, stmt, "delete results", reterr);
    }
    return err;
}

/* ------------------------------------------------------------------ whole buckets */
static uint64_t bucket_first(const struct hp_bucket *bucket)
{
    return bucket->number << HP_SQLITE_BUCKET_SHIFT;
}

static uint64_t bucket_end(const struct hp_bucket *bucket)
{
    return (bucket->number + 1) << HP_SQLITE_BUCKET_SHIFT;
}

/* True if no group will ever be added to it: ids only grow, and start behind those that were
 * reserved when it was opened. (meta.next_id is ahead of what is given out.) */
static bool is_closed(const struct hp_sqlite *s, const struct hp_bucket *bucket)
{
    return bucket->number < s->buckets[s->bucket_count - 1].number ||
           bucket->number < s->opened_next_id >> HP_SQLITE_BUCKET_SHIFT;
}

static bool is_wholly_expired(const struct hp_sqlite *s, const struct hp_bucket *bucket)
{
    return bucket->task_count > 0 && bucket->ended_count == bucket->task_count &&
           bucket->expires_max_ms <= s->reap.wall_ms && bucket->state != HP_BUCKET_STATE_MIXED &&
           is_closed(s, bucket);
}

/* Empties the next range of it. */
static enum hp_err empty_some(struct hp_sqlite *s, struct hp_bucket *bucket, bool *ret_slice_full,
                              struct hp_error *reterr)
{
    uint64_t first = HP_MAX(bucket->emptied_below, bucket_first(bucket));
    uint64_t end = HP_MIN(first + EMPTY_CHUNK_IDS, bucket_end(bucket));
    bool all = false;
    sqlite3_stmt *stmt = NULL;
    enum hp_err err = hp_sqlite_reap_blobs(s, first, end, &all, reterr);
    *ret_slice_full = !all;
    if (err != HP_OK || !all) {
        return err;
    }
    err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_GROUP_DEL_BELOW, &stmt, reterr);
    if (err == HP_OK) {
        hp_sqlite_bind_u64(stmt, 1, end);
        err = hp_sqlite_run(s, stmt, "delete groups", reterr);
    }
    if (err == HP_OK) {
        err = hp_sqlite_reap_results(s, bucket, bucket_first(bucket), end, reterr);
    }
    if (err == HP_OK) {
        err = hp_sqlite_reap_sides(s, first, end, reterr);
    }
    if (err == HP_OK) { /* one of a group that went before would hide the one of all */
        err = delete_range(s, HP_SQL_TOMB_REAP, first, end, reterr);
    }
    if (err == HP_OK) {
        struct hp_row_out *states = &s->reap.group_states;
        hp_row_clear(states);
        hp_row_put_u64(states, end - first);
        hp_row_put_u64(states, bucket->state);
        err = hp_sqlite_bury(s, first, end, states, reterr);
    }
    bucket->emptied_below = end;
    bucket->dirty = true;
    if (err == HP_OK && end == bucket_end(bucket)) {
        s->reap.task_count += bucket->task_count;
        s->reap.bucket = bucket->number + 1;
        err = hp_sqlite_bucket_remove(s, bucket, reterr);
    }
    return err;
}

/* ------------------------------------------------------------------ groups */
static void note_found(struct hp_reap *reap, int64_t expires_ms)
{
    reap->found_ms = HP_MIN(reap->found_ms, expires_ms);
}

static void note_state(struct hp_reap *reap, uint32_t state, uint64_t count)
{
    if (reap->group_states.size < HP_SQLITE_STATES_BYTES_MAX) {
        hp_row_put_u64(&reap->group_states, count);
        hp_row_put_u64(&reap->group_states, state);
    }
}

enum verdict { GROUP_KEPT, GROUP_EXPIRED, GROUP_UNSURE };

/* Walks the group's results from where it stopped. UNSURE: the slice is used up. */
static enum hp_err judge_group(struct hp_sqlite *s, struct hp_facts *facts, uint64_t deadline_us,
                               enum verdict *ret_verdict, struct hp_error *reterr)
{
    struct hp_reap *reap = &s->reap;
    *ret_verdict = GROUP_KEPT;
    for (uint32_t step = 1; reap->group_at < reap->group.end; step++) {
        struct hp_result result;
        enum hp_err err = hp_facts_result(facts, reap->group_at, &result, reterr);
        if (err == HP_ERR_NOT_FOUND || err == HP_ERR_CORRUPT) {
            return HP_OK; /* lives, or is damaged: an operator's, not ours to delete */
        }
        if (err != HP_OK) {
            return err;
        }
        if (facts->result_expires_ms > reap->wall_ms) {
            note_found(reap, facts->result_expires_ms);
            reap->kept_streak++;
            return HP_OK;
        }
        uint64_t end = reap->group_at + 1;
        uint64_t run_end = HP_MIN(facts->result_range.end, reap->group.end);
        while (end < run_end &&
               (facts->result_uniform ||
                facts->results[end - facts->result_range.first].state == result.state)) {
            end = facts->result_uniform ? run_end : end + 1;
        }
        note_state(reap, result.state, end - reap->group_at);
        reap->group_at = end;
        if (step % 32 == 0 && hp_clock_mono_us() >= deadline_us) {
            *ret_verdict = GROUP_UNSURE;
            return HP_OK;
        }
    }
    *ret_verdict = GROUP_EXPIRED;
    return HP_OK;
}

static enum hp_err delete_group(struct hp_sqlite *s, struct hp_bucket *bucket, bool *ret_slice_full,
                                struct hp_error *reterr)
{
    struct hp_reap *reap = &s->reap;
    struct hp_span group = reap->group;
    struct hp_row_out *states = &reap->group_states;
    sqlite3_stmt *stmt = NULL;
    bool all = false;
    enum hp_err err = hp_sqlite_reap_blobs(s, group.first, group.end, &all, reterr);
    *ret_slice_full = !all;
    if (err != HP_OK || !all) {
        return err;
    }
    err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_GROUP_DEL, &stmt, reterr);
    if (err == HP_OK) {
        hp_sqlite_bind_u64(stmt, 1, group.first);
        err = hp_sqlite_run(s, stmt, "delete group", reterr);
    }
    if (err == HP_OK) {
        err = hp_sqlite_reap_sides(s, group.first, group.end, reterr);
    }
    if (states->size >= HP_SQLITE_STATES_BYTES_MAX) { /* too many: ended, how is not known */
        hp_row_clear(states);
        note_state(reap, 0, group.end - group.first);
    }
    if (err == HP_OK) {
        err = hp_sqlite_bury(s, group.first, group.end, states, reterr);
    }
    bucket->group_count--;
    bucket->task_count -= group.end - group.first;
    bucket->ended_count -= group.end - group.first;
    bucket->dirty = true;
    reap->task_count += group.end - group.first;
    reap->in_group = false;
    reap->next_first = group.end;
    reap->kept_streak = 0;
    return err;
}

/* Deletes results of the gap up to gap_end, a chunk at a time. */
static enum hp_err flush_some(struct hp_sqlite *s, struct hp_bucket *bucket,
                              struct hp_error *reterr)
{
    struct hp_reap *reap = &s->reap;
    uint64_t end = HP_MIN(reap->gap_done + GAP_CHUNK_IDS, reap->gap_end);
    enum hp_err err = HP_OK;
    if (reap->gap_done < end) {
        err = hp_sqlite_reap_results(s, bucket, reap->gap_first, end, reterr);
    }
    reap->gap_done = end;
    return err;
}

/* What is left to do once its last group was looked at. */
static enum hp_err leave_bucket(struct hp_sqlite *s, struct hp_bucket *bucket,
                                struct hp_error *reterr)
{
    struct hp_reap *reap = &s->reap;
    uint64_t rest_ms = s->reap_restless ? 0 : reap->spent_us * SCAN_SHARE / 1000;
    int64_t soonest_ms = reap->wall_ms + (int64_t)rest_ms;
    bucket->reap_at_ms = HP_MAX(HP_MIN(bucket->reap_at_ms, reap->found_ms), soonest_ms);
    reap->in_bucket = false;
    reap->bucket = bucket->number + 1;
    if (bucket->group_count == 0 && is_closed(s, bucket)) {
        return hp_sqlite_bucket_remove(s, bucket, reterr);
    }
    return HP_OK;
}

/*
 * No group to judge is left. Results behind the last one that was looked at, which a crash left, go
 * now, in the transaction that saw that there is no group: before the next slice tasks may come
 * there, and end. What was deleted in this pass goes in chunks.
 */
static enum hp_err end_of_groups(struct hp_sqlite *s, struct hp_bucket *bucket,
                                 struct hp_error *reterr)
{
    struct hp_reap *reap = &s->reap;
    bool is_end = reap->kept_streak < KEPT_STREAK_MAX;
    enum hp_err err = HP_OK;
    if (is_end) {
        err = hp_sqlite_reap_results(s, bucket, reap->next_first, bucket_end(bucket), reterr);
    }
    uint64_t gap_end = is_end ? reap->next_first : reap->gap_first;
    reap->gap_end = HP_MAX(gap_end, UINT64_C(1)); /* 0 says that none is flushed; no id is 0 */
    reap->gap_done = reap->gap_first;
    reap->next_first = bucket_end(bucket);
    return err;
}

/* Finds the next group to judge; none: begins to flush the last gap. */
static enum hp_err next_group(struct hp_sqlite *s, struct hp_bucket *bucket,
                              struct hp_error *reterr)
{
    struct hp_reap *reap = &s->reap;
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = NULL;
    enum hp_err err = HP_ERR_NOT_FOUND;
    if (reap->kept_streak < KEPT_STREAK_MAX) {
        err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_GROUP_FROM, &stmt, reterr);
        if (err != HP_OK) {
            return err;
        }
        hp_sqlite_bind_u64(stmt, 1, reap->next_first);
        err = hp_sqlite_step(s, stmt, "scan groups", reterr);
    }
    if (err == HP_ERR_NOT_FOUND) {
        return end_of_groups(s, bucket, reterr);
    }
    if (err != HP_OK) {
        return err;
    }
    struct hp_group_head head;
    uint64_t first = hp_sqlite_u64(stmt, 0);
    if (!hp_row_get_group(hp_sqlite_bin(stmt, 1), first, &head)) {
        head.count = 1; /* damaged: kept; what follows tells where it ends */
    }
    reap->group = (struct hp_span){.first = first, .end = first + head.count};
    reap->group_at = first;
    reap->in_group = true;
    hp_row_clear(&reap->group_states);
    return HP_OK;
}

/* The group stays: the gap before it can go. */
static void keep_group(struct hp_reap *reap)
{
    reap->in_group = false;
    reap->next_first = reap->group.end;
    reap->gap_end = reap->group.first;
    reap->gap_done = reap->gap_first;
}

static void enter_bucket(struct hp_reap *reap, struct hp_bucket *bucket)
{
    reap->in_bucket = true;
    reap->in_group = false;
    reap->next_first = bucket_first(bucket);
    reap->gap_first = bucket_first(bucket);
    reap->gap_end = 0;
    reap->found_ms = INT64_MAX;
    reap->kept_streak = 0;
    reap->spent_us = 0;
    bucket->reap_at_ms = INT64_MAX; /* results that come during the scan lower it */
}

/* One step in a bucket: judge a group, flush part of a gap, or leave. */
static enum hp_err step_in_bucket(struct hp_sqlite *s, struct hp_bucket *bucket,
                                  struct hp_facts *facts, uint64_t deadline_us,
                                  bool *ret_slice_full, struct hp_error *reterr)
{
    struct hp_reap *reap = &s->reap;
    if (reap->gap_end != 0) {
        if (reap->gap_done < reap->gap_end) {
            return flush_some(s, bucket, reterr);
        }
        reap->gap_end = 0;
        if (reap->next_first == bucket_end(bucket)) {
            return leave_bucket(s, bucket, reterr);
        }
        reap->gap_first = reap->next_first; /* behind the group that stayed */
    }
    if (!reap->in_group) {
        if (reap->next_first == bucket_end(bucket)) {
            reap->gap_end = bucket_end(bucket);
            reap->gap_done = reap->gap_first;
            return HP_OK;
        }
        return next_group(s, bucket, reterr);
    }
    enum verdict verdict = GROUP_KEPT;
    enum hp_err err = judge_group(s, facts, deadline_us, &verdict, reterr);
    if (err != HP_OK || verdict == GROUP_UNSURE) {
        return err;
    }
    if (verdict == GROUP_EXPIRED) {
        return delete_group(s, bucket, ret_slice_full, reterr);
    }
    keep_group(reap);
    return HP_OK;
}

static enum hp_err step_buckets(struct hp_sqlite *s, struct hp_facts *facts, uint64_t deadline_us,
                                bool *ret_slice_full, struct hp_error *reterr)
{
    struct hp_reap *reap = &s->reap;
    uint32_t index = hp_sqlite_bucket_index(s, reap->bucket);
    if (index == s->bucket_count) {
        reap->phase = HP_REAP_TOMBS;
        reap->next_first = 0;
        return HP_OK;
    }
    struct hp_bucket *bucket = &s->buckets[index];
    if (bucket->number != reap->bucket) {
        reap->bucket = bucket->number;
        reap->in_bucket = false;
    }
    if (!reap->in_bucket) {
        if (is_wholly_expired(s, bucket)) {
            return empty_some(s, bucket, ret_slice_full, reterr);
        }
        if (bucket->reap_at_ms > reap->wall_ms) {
            reap->bucket = bucket->number + 1;
            return HP_OK;
        }
        enter_bucket(reap, bucket);
    }
    return step_in_bucket(s, bucket, facts, deadline_us, ret_slice_full, reterr);
}

/* ------------------------------------------------------------------ tombstones, sessions */
static enum hp_err step_tombs(struct hp_sqlite *s, struct hp_error *reterr)
{
    struct hp_reap *reap = &s->reap;
    struct hp_tomb tomb = {0};
    uint64_t first = 0;
    {
        sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_TOMB_FROM];
        hp_sqlite_bind_u64(stmt, 1, reap->next_first);
        enum hp_err err = hp_sqlite_step(s, stmt, "scan tombstones", reterr);
        if (err == HP_ERR_NOT_FOUND) {
            reap->phase = HP_REAP_SESSIONS;
            return HP_OK;
        }
        if (err != HP_OK) {
            return err;
        }
        first = hp_sqlite_u64(stmt, 0);
        reap->next_first = first + 1;
        if (hp_tomb_get(hp_sqlite_bin(stmt, 1), first, &tomb) && tomb.until_ms > reap->wall_ms) {
            return HP_OK;
        }
    }
    hp_sqlite_bind_u64(s->stmts[HP_SQL_TOMB_DEL], 1, first);
    return hp_sqlite_run(s, s->stmts[HP_SQL_TOMB_DEL], "delete tombstone", reterr);
}

static enum hp_err step_sessions(struct hp_sqlite *s, struct hp_error *reterr)
{
    if (s->reap.keep_sessions) {
        s->reap.active = false;
        return HP_OK;
    }
    sqlite3_stmt *stmt = s->stmts[HP_SQL_SESSION_REAP];
    hp_sqlite_bind_u64(stmt, 1, (uint64_t)(s->reap.wall_ms - HP_STORE_SESSION_MS));
    enum hp_err err = hp_sqlite_run(s, stmt, "delete sessions", reterr);
    if (err == HP_OK && sqlite3_changes(s->db) == 0) {
        s->reap.active = false;
    }
    return err;
}

/* ------------------------------------------------------------------ slice */
static enum hp_err run_slice(struct hp_sqlite *s, uint64_t deadline_us, struct hp_error *reterr)
{
    struct hp_reap *reap = &s->reap;
    struct hp_facts facts HP_CLEANUP(hp_facts_deinit);
    bool slice_full = false;
    enum hp_err err = HP_OK;
    hp_facts_init(&facts, s);
    while (err == HP_OK && reap->active && !slice_full && hp_clock_mono_us() < deadline_us) {
        HP_CRASH_POINT("retention.slice");
        switch (reap->phase) {
        case HP_REAP_BUCKETS:
            err = step_buckets(s, &facts, deadline_us, &slice_full, reterr);
            break;
        case HP_REAP_TOMBS:
            err = step_tombs(s, reterr);
            break;
        case HP_REAP_SESSIONS:
            err = step_sessions(s, reterr);
            break;
        }
    }
    return err == HP_OK ? write_tomb(s, reterr) : err;
}

void hp_sqlite_reap_begin(struct hp_sqlite *s)
{
    s->reap.unlink_count = 0;
    s->reap.task_count = 0;
    s->reap.tomb.count = 0;
    hp_row_clear(&s->reap.tomb_states);
}

enum hp_err hp_sqlite_reap_end(struct hp_sqlite *s, struct hp_error *reterr)
{
    return write_tomb(s, reterr);
}

void hp_sqlite_reap_committed(struct hp_sqlite *s)
{
    HP_CRASH_POINT("retention.committed");
    for (uint32_t i = 0; i < s->reap.unlink_count; i++) {
        hp_sqlite_unlink_blob(s, s->reap.unlink[i]);
    }
    s->reaped += s->reap.task_count;
}

void hp_sqlite_reap_skip(struct hp_sqlite *s, struct hp_span ids)
{
    struct hp_reap *reap = &s->reap;
    if (reap->in_group && reap->group.first >= ids.first && reap->group.first < ids.end) {
        reap->in_group = false;
        reap->next_first = reap->group.end;
    }
}

enum hp_err hp_sqlite_reap(struct hp_sqlite *s, bool *ret_more, struct hp_error *reterr)
{
    struct hp_reap *reap = &s->reap;
    uint64_t start_us = hp_clock_mono_us();
    hp_sqlite_reap_begin(s);
    enum hp_err err = hp_sqlite_begin(s, reterr);
    if (err == HP_OK) {
        err = run_slice(s, start_us + s->reap_slice_us, reterr);
    }
    err = err == HP_OK ? hp_sqlite_commit(s, reterr) : hp_sqlite_abort(s, err, reterr);
    if (err == HP_ERR_NOSPACE) {
        begin_pass(reap); /* what it had done is rolled back */
        *ret_more = true;
    }
    if (err != HP_OK) {
        return err;
    }
    hp_sqlite_reap_committed(s);
    reap->spent_us += hp_clock_mono_us() - start_us;
    *ret_more = reap->active;
    return HP_OK;
}
