/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Late rows: a commit of nothing but lone submits writes their groups and the session, and leaves
 * for a later transaction what follows from the groups: figures of the bucket, the lane's segment
 * and cursor. So it changes two pages instead of five.
 *
 *  L1 A bucket's row tells from which id on groups may be late (late_from; 0: none is). All groups
 *     below are in its figures and, if they wait, in segments. All others are late: each is one run
 *     of its lane, waits whole, and was made in the order of ids.
 *  L2 There are at most HP_LATE_MAX, so a start finds them by one short scan.
 *  L3 Every transaction that is not of lone submits writes them first (hp_sqlite_begin): nothing
 *     that ends, moves, counts or deletes meets a late group. Who loads a lane reads them from
 *     memory.
 */
#include "common/base/assert.h"
#include "common/base/macro.h"
#include "server/store/sqlite.h"

/* ------------------------------------------------------------------ cursors of lanes */
struct cursor {
    uint64_t head;
    uint64_t next;
    uint64_t ready;
};

static enum hp_err read_cursor(struct hp_sqlite *s, uint32_t lane, struct cursor *ret_cursor,
                               struct hp_error *reterr)
{
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_LANE_GET];
    struct hp_row_in in;
    hp_sqlite_bind_u64(stmt, 1, lane);
    enum hp_err err = hp_sqlite_step(s, stmt, "read lane", reterr);
    if (err != HP_OK) { /* a lane with a group that waits has a row */
        return err == HP_ERR_NOT_FOUND ? hp_sqlite_damaged(s, "lane", lane, reterr) : err;
    }
    if (!hp_row_open(&in, hp_sqlite_bin(stmt, 0), HP_ROW_LANE_CURSOR, lane)) {
        return hp_sqlite_damaged(s, "lane", lane, reterr);
    }
    ret_cursor->head = hp_row_get_u64(&in);
    ret_cursor->next = hp_row_get_u64(&in);
    ret_cursor->ready = hp_row_get_u64(&in);
    return hp_row_done(&in) ? HP_OK : hp_sqlite_damaged(s, "lane", lane, reterr);
}

/* The lane's cursor behind the first `count` late runs. */
static enum hp_err cursor_behind(struct hp_sqlite *s, uint32_t count, uint32_t lane,
                                 struct cursor *ret_cursor, struct hp_error *reterr)
{
    for (uint32_t i = count; i > 0; i--) {
        const struct hp_late_run *run = &s->late.runs[i - 1];
        if (run->lane == lane) {
            *ret_cursor = (struct cursor){run->head, run->segment + 1, run->ready};
            return HP_OK;
        }
    }
    return read_cursor(s, lane, ret_cursor, reterr);
}

/* The run that a group is, behind the first `count`. */
static enum hp_err make_run(struct hp_sqlite *s, uint32_t count, struct hp_late_run *run,
                            struct hp_error *reterr)
{
    struct cursor cursor = {0};
    enum hp_err err = cursor_behind(s, count, run->lane, &cursor, reterr);
    run->head = cursor.head;
    run->segment = cursor.next;
    run->ready = cursor.ready + run->count;
    return err;
}

/* ------------------------------------------------------------------ which may be */
/* What one batch holds; all three or none. */
struct lone_submit {
    const struct hp_op *group;
    const struct hp_op *segment;
    const struct hp_op *lane;
};

static bool set_once(const struct hp_op **place, const struct hp_op *op)
{
    bool first = *place == NULL;
    *place = op;
    return first;
}

/* False: it has something else. */
static bool read_batch(const struct hp_batch *batch, struct lone_submit *ret_submit)
{
    bool good = true;
    *ret_submit = (struct lone_submit){0};
    for (uint32_t i = 0; good && i < batch->op_count; i++) {
        const struct hp_op *op = &batch->ops[i];
        switch ((int)op->kind) {
        case HP_OP_GROUP:
            good = set_once(&ret_submit->group, op);
            break;
        case HP_OP_SEGMENT:
            good = set_once(&ret_submit->segment, op);
            break;
        case HP_OP_LANE:
            good = set_once(&ret_submit->lane, op);
            break;
        default:
            good = op->kind == HP_OP_SESSION;
            break;
        }
    }
    bool has_group = ret_submit->group != NULL;
    return good && has_group == (ret_submit->segment != NULL) &&
           has_group == (ret_submit->lane != NULL);
}

/* Whether the ops say of the group's run just what is made of the group without them (L1). */
static bool follows(const struct hp_late_run *run, const struct lone_submit *submit)
{
    const struct hp_op *segment = submit->segment;
    const struct hp_op *lane = submit->lane;
    return segment->segment.lane == run->lane && segment->segment.segment == run->segment &&
           segment->segment.run_count == 1 && segment->segment.runs[0].first == run->first &&
           segment->segment.runs[0].count == run->count &&
           segment->segment.runs[0].since_ms == run->since_ms && lane->lane.lane == run->lane &&
           lane->lane.key.size == 0 && lane->lane.head_segment == run->head &&
           lane->lane.next_segment == run->segment + 1 && lane->lane.ready_count == run->ready;
}

/* Adds it behind the first `at`; false: it may not be late. */
static bool add_fresh(struct hp_sqlite *s, uint32_t at, const struct lone_submit *submit)
{
    uint64_t first = submit->group->group.first;
    const struct hp_bucket *bucket = hp_sqlite_bucket(s, first);
    if (at == HP_LATE_MAX || (at > 0 && first <= s->late.runs[at - 1].first) || bucket == NULL ||
        bucket->late_from == 0 || first < bucket->late_from || bucket->emptied_below != 0) {
        return false;
    }
    struct hp_late_run *run = &s->late.runs[at];
    *run = (struct hp_late_run){.first = first,
                                .count = submit->group->group.count,
                                .lane = submit->group->group.lane,
                                .since_ms = submit->group->group.created_at_ms};
    /* An error is met again, and told, by the one who writes the lane. */
    return make_run(s, at, run, NULL) == HP_OK && follows(run, submit);
}

bool hp_late_fits(struct hp_sqlite *s, struct hp_batch *const *batches, uint32_t count)
{
    s->late.fresh = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct lone_submit submit;
        if (!read_batch(batches[i], &submit) ||
            (submit.group != NULL && !add_fresh(s, s->late.count + s->late.fresh, &submit))) {
            return false;
        }
        s->late.fresh += submit.group != NULL ? 1 : 0;
    }
    return true;
}

/* ------------------------------------------------------------------ writing them */
static enum hp_err write_run(struct hp_sqlite *s, const struct hp_late_run *late,
                             struct hp_error *reterr)
{
    struct hp_id_run run = {.first = late->first, .count = late->count, .since_ms = late->since_ms};
    struct hp_op op = {.kind = HP_OP_SEGMENT};
    struct hp_bucket *bucket = hp_sqlite_bucket(s, late->first);
    HP_ASSERT(bucket != NULL); /* whoever removes one has written these before */
    bucket->late_from = HP_MAX(bucket->late_from, late->first + late->count);
    bucket->dirty = true;
    op.segment.lane = late->lane;
    op.segment.segment = late->segment;
    op.segment.runs = &run;
    op.segment.run_count = 1;
    return hp_sqlite_put_segment(s, &op, reterr);
}

static enum hp_err write_cursor(struct hp_sqlite *s, const struct hp_late_run *last,
                                struct hp_error *reterr)
{
    struct hp_op op = {.kind = HP_OP_LANE};
    op.lane.lane = last->lane;
    op.lane.head_segment = last->head;
    op.lane.next_segment = last->segment + 1;
    op.lane.ready_count = last->ready;
    return hp_sqlite_put_lane(s, &op, reterr);
}

enum hp_err hp_late_write(struct hp_sqlite *s, struct hp_error *reterr)
{
    enum hp_err err = HP_OK;
    for (uint32_t i = 0; err == HP_OK && i < s->late.count; i++) {
        const struct hp_late_run *late = &s->late.runs[i];
        err = write_run(s, late, reterr);
        if (err == HP_OK && (i + 1 == s->late.count || late[1].lane != late->lane)) {
            err = write_cursor(s, late, reterr);
        }
    }
    s->late.written = true;
    return err;
}

void hp_late_saved(struct hp_sqlite *s)
{
    if (s->late.on) {
        s->late.count += s->late.fresh;
        HP_ASSERT(s->late.count <= HP_LATE_MAX); /* L2 */
    } else if (s->late.written) {
        s->late.count = 0;
    }
    s->late.written = false;
}

/* ------------------------------------------------------------------ finding them */
static enum hp_err find_in_bucket(struct hp_sqlite *s, struct hp_bucket *bucket,
                                  struct hp_error *reterr)
{
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = NULL;
    enum hp_err err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_GROUP_FROM, &stmt, reterr);
    if (err != HP_OK) {
        return err;
    }
    hp_sqlite_bind_u64(stmt, 1, bucket->late_from);
    while ((err = hp_sqlite_step(s, stmt, "find late groups", reterr)) == HP_OK) {
        struct hp_group_head head;
        uint64_t first = hp_sqlite_u64(stmt, 0);
        if (!hp_row_get_group(hp_sqlite_bin(stmt, 1), first, &head)) {
            return hp_sqlite_damaged(s, "group", first, reterr);
        }
        if (s->late.count == HP_LATE_MAX) {
            return hp_sqlite_damaged(s, "bucket", bucket->number, reterr);
        }
        struct hp_late_run *run = &s->late.runs[s->late.count];
        *run = (struct hp_late_run){
            .first = first, .count = head.count, .lane = head.lane, .since_ms = head.created_at_ms};
        err = make_run(s, s->late.count, run, reterr);
        if (err != HP_OK) {
            return err;
        }
        s->late.count++;
        bucket->group_count++;
        bucket->task_count += head.count;
    }
    return err == HP_ERR_NOT_FOUND ? HP_OK : err;
}

enum hp_err hp_late_find(struct hp_sqlite *s, struct hp_error *reterr)
{
    enum hp_err err = HP_OK;
    s->late.count = 0;
    s->late.written = false;
    for (uint32_t i = 0; err == HP_OK && i < s->bucket_count; i++) {
        if (s->buckets[i].late_from != 0) {
            err = find_in_bucket(s, &s->buckets[i], reterr);
        }
    }
    return err;
}
