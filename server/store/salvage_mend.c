/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Makes a whole of the rows that were taken over. What waited in lanes is put back as tasks whose
 * time has come (DELAYED rows), so that no segment, lane or cursor is needed. A result whose submit
 * is lost gets one in its place, so that it can be read. What cannot be put back ends as failed,
 * reason damaged: whoever waits for it is told.
 *
 * All queues are left paused: a task may have ended behind what is lost here, and only a person
 * knows whether it may run again.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/idmap.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "proto/hp_msg.h"
#include "server/core/pack.h"
#include "server/store/salvage.h"

#define RESULT_TTL_MS ((int64_t)7 * 24 * 3600 * 1000)
#define OPTIONS_BYTES_MAX ((size_t)1 << 16)

struct mend {
    struct hp_salvage *v;
    struct hp_facts facts;
    struct hp_facts pools;  /* look-ups of pools, so that those of `facts` stay in order */
    struct hp_idmap leases; /* id -> 1 */
};

typedef enum hp_err row_fn(struct mend *m, sqlite3_stmt *stmt, struct hp_error *reterr);

static struct hp_salvage_value number(uint64_t value)
{
    return (struct hp_salvage_value){.number = value};
}

static struct hp_bin row_bin(const struct hp_row_out *out)
{
    return hp_bin_make(out->data, out->size);
}

static enum hp_err each(struct mend *m, const char *sql, row_fn *fn, struct hp_error *reterr)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(m->v->to->db, sql, -1, &stmt, NULL);
    enum hp_err err = code == SQLITE_OK ? HP_OK : hp_sqlite_error(m->v->to, code, sql, reterr);
    while (err == HP_OK && (code = sqlite3_step(stmt)) == SQLITE_ROW) {
        err = fn(m, stmt, reterr);
    }
    if (err == HP_OK && code != SQLITE_DONE) {
        err = hp_sqlite_error(m->v->to, code, sql, reterr);
    }
    (void)sqlite3_finalize(stmt); /* its error is in `code` */
    return err;
}

/* ------------------------------------------------------------------ options */
/* Decodes options into m->v->arena; false: they are no options. */
static bool decode_options(struct mend *m, struct hp_bin raw, struct hp_st_task_options *ret)
{
    const struct hp_wire_obj *map = NULL;
    struct hp_error error;
    hp_arena_reset(&m->v->arena);
    hp_st_task_options_init(ret);
    return hp_wire_unpack_checked(m->v->wire, &hp_tok_limits_open, raw, &map, &error) == HP_OK &&
           hp_st_task_options_decode(map, &m->v->arena, ret, &error) == HP_OK;
}

/* ------------------------------------------------------------------ groups that were deleted */
static enum hp_err drop_buried(struct mend *m, struct hp_error *reterr)
{
    struct hp_salvage *v = m->v;
    enum hp_err err = HP_OK;
    for (uint32_t i = 0; err == HP_OK && i < v->unsure.count; i++) {
        uint32_t state = 0;
        uint64_t first = v->unsure.items[i].first;
        if (hp_sqlite_tomb(v->to, first, &state, reterr) != HP_OK) {
            continue;
        }
        char sql[80];
        struct hp_bucket *bucket = hp_sqlite_bucket(v->to, first);
        (void)snprintf(sql, sizeof(sql), "DELETE FROM group_%" PRIu64 " WHERE first = ?1",
                       bucket->number);
        err = hp_salvage_run(v, sql, (struct hp_salvage_value[]){number(first)}, 1, reterr);
        bucket->group_count--;
        bucket->task_count -= v->unsure.items[i].end - first;
        bucket->dirty = true;
    }
    return err;
}

/* ------------------------------------------------------------------ results without a submit */
/* A submit in the place of a lost one, for ids that have ended. */
static enum hp_err put_stub(struct mend *m, uint64_t first, uint64_t count, int64_t created_at_ms,
                            struct hp_error *reterr)
{
    struct hp_salvage *v = m->v;
    struct hp_buf options;
    struct hp_row_out row HP_CLEANUP(hp_row_out_deinit) = {0};
    struct hp_st_task_options stub;
    bool put = false;
    hp_buf_init(&options, OPTIONS_BYTES_MAX);
    hp_st_task_options_init(&stub);
    stub.kind = HP_TASK_KIND_FUNCTION;
    stub.fn = hp_str_of("lost");
    stub.name = hp_str_of("recovered: its submit is lost");
    stub.has |=
        HP_HAS_ST_TASK_OPTIONS_KIND | HP_HAS_ST_TASK_OPTIONS_FN | HP_HAS_ST_TASK_OPTIONS_NAME;
    enum hp_err err = hp_st_task_options_encode(&options, &stub);
    struct hp_group_head head = {
        .first = first,
        .count = (uint32_t)count,
        .created_at_ms = created_at_ms,
        .options = hp_buf_bin(&options),
        .pack_digest = hp_row_digest("", 0, HP_ROW_GROUP, first),
    };
    if (err == HP_OK) {
        hp_row_put_group(&row, &head);
        err = row.failed ? HP_ERR_NOMEM : HP_OK;
    }
    err = err == HP_OK
              ? hp_salvage_put_group(v, &head, row_bin(&row), (struct hp_bin){0}, &put, reterr)
              : hp_error_set(reterr, err, NULL);
    hp_buf_deinit(&options);
    v->stubs += put ? count : 0;
    return err;
}

/* The blobs of an end record. */
static enum hp_err take_end_blobs(struct mend *m, uint64_t id, struct hp_bin end,
                                  struct hp_error *reterr)
{
    const struct hp_wire_obj *map = NULL;
    struct hp_st_task_end record;
    struct hp_error error;
    hp_arena_reset(&m->v->arena);
    if (end.size == 0 ||
        hp_wire_unpack_checked(m->v->wire, &hp_tok_limits_open, end, &map, &error) != HP_OK ||
        hp_st_task_end_decode(map, &m->v->arena, &record, &error) != HP_OK) {
        return HP_OK;
    }
    const uint64_t blobs[] = {record.result_blob, record.out_blob, record.err_blob};
    enum hp_err err = HP_OK;
    for (size_t i = 0; err == HP_OK && i < HP_COUNT_OF(blobs); i++) {
        if (blobs[i] != 0) {
            err = hp_salvage_put_blob(m->v, blobs[i], id, reterr);
        }
    }
    return err;
}

static enum hp_err each_result(struct mend *m, sqlite3_stmt *stmt, struct hp_error *reterr)
{
    struct hp_result_run run;
    uint64_t first = hp_sqlite_u64(stmt, 0);
    if (!hp_result_run_open(&run, hp_sqlite_bin(stmt, 1), first)) {
        return hp_sqlite_damaged(m->v->to, "result", first, reterr); /* it was proved before */
    }
    uint64_t end = first + run.count;
    int64_t created_at_ms = run.base_ms;
    enum hp_err err = HP_OK;
    for (uint64_t id = first; err == HP_OK && id < end;) {
        const struct hp_group_head *head = NULL;
        err = hp_facts_group(&m->facts, id, &head, reterr);
        uint64_t next = HP_MIN(end, m->facts.group_range.end);
        if (err == HP_ERR_NOT_FOUND) {
            err = put_stub(m, id, next - id, created_at_ms, reterr);
        }
        id = next;
    }
    for (uint64_t id = first; err == HP_OK && id < end && !run.uniform; id++) {
        struct hp_result result;
        if (hp_result_run_get(&run, id, &result)) {
            err = take_end_blobs(m, id, result.end, reterr);
        }
    }
    return err;
}

/* ------------------------------------------------------------------ leases */
/* A worker whose row is lost is known by its number, so that its leases run out as they should. */
static enum hp_err want_node(struct mend *m, uint32_t node, struct hp_error *reterr)
{
    char name[32];
    static const uint8_t boot[16];
    struct hp_row_out row HP_CLEANUP(hp_row_out_deinit) = {0};
    int size = snprintf(name, sizeof(name), "lost-%u", node);
    hp_row_put_bin(&row, hp_bin_make(name, (size_t)size));
    hp_row_put_bin(&row, hp_bin_make(boot, sizeof(boot)));
    hp_row_put_bin(&row, (struct hp_bin){0});
    hp_row_seal(&row, HP_ROW_NODE, node);
    return hp_salvage_run(m->v, "INSERT OR IGNORE INTO node VALUES(?1, ?2)",
                          (struct hp_salvage_value[]){number(node), {.bytes = row_bin(&row)}}, 2,
                          reterr);
}

static enum hp_err each_lease_row(struct mend *m, sqlite3_stmt *stmt, struct hp_error *reterr)
{
    struct hp_row_in in;
    struct hp_lease lease = {0};
    uint64_t batch = hp_sqlite_u64(stmt, 0);
    bool good = hp_row_open(&in, hp_sqlite_bin(stmt, 1), HP_ROW_LEASE, batch);
    enum hp_err err = HP_OK;
    while (err == HP_OK && good && !hp_row_done(&in)) {
        good = hp_row_get_lease(&in, &lease);
        if (good) {
            m->v->max_epoch = HP_MAX(m->v->max_epoch, lease.epoch);
            err = hp_idmap_put(&m->leases, lease.id, 1);
            err = err == HP_OK ? want_node(m, lease.node, reterr) : hp_error_set(reterr, err, NULL);
        }
    }
    return err;
}

/* ------------------------------------------------------------------ what has not ended */
static enum hp_err count_waiting(struct mend *m, struct hp_str queue, uint64_t count)
{
    uint64_t known = 0;
    (void)hp_strmap_find(&m->v->queues, queue, &known); /* 0 then */
    m->v->report->held_count += count;
    return hp_strmap_put(&m->v->queues, queue, known + count, NULL);
}

static enum hp_err put_end(struct mend *m, uint64_t first, uint64_t count, uint32_t state,
                           uint32_t reason, struct hp_error *reterr)
{
    struct hp_row_out row HP_CLEANUP(hp_row_out_deinit) = {0};
    const struct hp_result result = {.first = first,
                                     .count = (uint32_t)count,
                                     .state = state,
                                     .reason = reason,
                                     .started_at_ms = m->v->wall_ms,
                                     .ended_at_ms = m->v->wall_ms,
                                     .expires_at_ms = m->v->wall_ms + RESULT_TTL_MS};
    const struct hp_result *results[] = {&result};
    uint32_t covered = 0;
    bool put = false;
    (void)hp_row_put_results(&row, results, 1, &covered);
    return hp_salvage_put_result(m->v, first, count, row_bin(&row), result.expires_at_ms, &put,
                                 reterr);
}

static enum hp_err fail(struct mend *m, uint64_t first, uint64_t count, const char *why,
                        struct hp_error *reterr)
{
    m->v->report->lost_count += count;
    hp_salvage_say(m->v, "tasks %" PRIu64 "-%" PRIu64 ": %s; they end as failed, reason damaged",
                   first, first + count - 1, why);
    return put_end(m, first, count, HP_TASK_STATE_FAILED, HP_REASON_DAMAGED, reterr);
}

static bool pool_is_live(struct mend *m, struct hp_str text)
{
    struct hp_side side;
    struct hp_result result;
    struct hp_error error;
    uint64_t pool = 0;
    return hp_parse_u64(text, &pool, NULL) == HP_OK &&
           hp_facts_side(&m->pools, pool, &side, &error) == HP_OK && side.kind == HP_SIDE_POOL &&
           hp_facts_result(&m->pools, pool, &result, &error) == HP_ERR_NOT_FOUND;
}

/* Puts ids [first, end) of a group, which waited in a lane, back: their time has come. */
static enum hp_err put_back(struct mend *m, const struct hp_group_head *head, uint64_t first,
                            uint64_t end, struct hp_error *reterr)
{
    struct hp_st_task_options options;
    if (first == end) {
        return HP_OK;
    }
    if (!decode_options(m, head->options, &options)) {
        return fail(m, first, end - first, "their options cannot be read", reterr);
    }
    if (options.kind == HP_TASK_KIND_POOL) {
        return fail(m, first, end - first, "the pool's state is lost", reterr);
    }
    if (options.kind == HP_TASK_KIND_CALL && !pool_is_live(m, options.fn)) {
        return fail(m, first, end - first, "their pool is lost", reterr);
    }
    struct hp_row_out row HP_CLEANUP(hp_row_out_deinit) = {0};
    const struct hp_side side = {.first = first,
                                 .count = (uint32_t)(end - first),
                                 .kind = HP_SIDE_DELAYED,
                                 .lane = head->lane,
                                 .run_at_ms = head->created_at_ms};
    hp_row_put_side(&row, &side);
    enum hp_err err = count_waiting(m, options.queue, end - first);
    if (err != HP_OK || row.failed) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    return hp_salvage_run(m->v, "INSERT OR IGNORE INTO side VALUES(?1, ?2, ?3, ?4, ?5)",
                          (struct hp_salvage_value[]){number(first),
                                                      number(HP_SIDE_DELAYED),
                                                      number(side.count),
                                                      number((uint64_t)side.run_at_ms),
                                                      {.bytes = row_bin(&row)}},
                          5, reterr);
}

/* A task with a side row: it waits for its time, or for a person, or is a pool. */
static enum hp_err keep_side(struct mend *m, const struct hp_group_head *head,
                             const struct hp_side *side, uint64_t id, uint64_t end,
                             struct hp_error *reterr)
{
    struct hp_st_task_options options;
    if (side->kind == HP_SIDE_CANCELLING && !hp_idmap_find(&m->leases, id, NULL)) {
        return put_end(m, id, end - id, HP_TASK_STATE_CANCELLED, HP_REASON_CANCELLED, reterr);
    }
    if (side->kind <= HP_SIDE_RETURNED && decode_options(m, head->options, &options)) {
        enum hp_err err = count_waiting(m, options.queue, end - id);
        return err == HP_OK ? HP_OK : hp_error_set(reterr, err, NULL);
    }
    m->v->report->held_count += end - id;
    return HP_OK;
}

static enum hp_err keep_lease(struct mend *m, const struct hp_group_head *head,
                              struct hp_error *reterr)
{
    struct hp_st_task_options options;
    if (!decode_options(m, head->options, &options)) {
        return HP_OK; /* they are checked when the broker starts */
    }
    enum hp_err err = count_waiting(m, options.queue, 0);
    m->v->report->held_count++;
    return err == HP_OK ? HP_OK : hp_error_set(reterr, err, NULL);
}

/* Looks at ids from `id` on that share their facts: *ret_next is behind them, *ret_waits says that
 * they wait in a lane. */
static enum hp_err look_at(struct mend *m, const struct hp_group_head *head, uint64_t id,
                           uint64_t *ret_next, bool *ret_waits, struct hp_error *reterr)
{
    struct hp_result result;
    struct hp_side side;
    uint64_t end = head->first + head->count;
    *ret_waits = false;
    enum hp_err err = hp_facts_result(&m->facts, id, &result, reterr);
    uint64_t next = HP_MIN(end, m->facts.result_range.end);
    if (err == HP_OK) {
        *ret_next = next;
        return HP_OK;
    }
    if (err == HP_ERR_NOT_FOUND) {
        err = hp_facts_side(&m->facts, id, &side, reterr);
        next = HP_MIN(next, m->facts.side_range.end);
    }
    if (err == HP_OK) {
        *ret_next = next;
        return keep_side(m, head, &side, id, next, reterr);
    }
    if (err != HP_ERR_NOT_FOUND) {
        return err;
    }
    bool leased = hp_idmap_find(&m->leases, id, NULL);
    *ret_waits = !leased;
    *ret_next = hp_idmap_count(&m->leases) == 0 ? next : id + 1;
    return leased ? keep_lease(m, head, reterr) : HP_OK;
}

static enum hp_err take_pack_blobs(struct mend *m, const struct hp_group_head *head,
                                   struct hp_bin pack, struct hp_error *reterr)
{
    enum hp_err err = HP_OK;
    if (pack.size != head->pack_size ||
        hp_row_digest(pack.data, pack.size, HP_ROW_GROUP, head->first) != head->pack_digest ||
        !hp_pack_valid(pack, head->count) || !hp_pack_has_blobs(pack)) {
        return HP_OK;
    }
    for (uint32_t i = 0; err == HP_OK && i < head->count; i++) {
        uint64_t blob = hp_pack_blob(pack, i);
        err = blob != 0 ? hp_salvage_put_blob(m->v, blob, head->first + i, reterr) : HP_OK;
    }
    return err;
}

static enum hp_err each_group(struct mend *m, sqlite3_stmt *stmt, struct hp_error *reterr)
{
    struct hp_group_head head;
    uint64_t first = hp_sqlite_u64(stmt, 0);
    if (!hp_row_get_group(hp_sqlite_bin(stmt, 1), first, &head)) {
        return hp_sqlite_damaged(m->v->to, "group", first, reterr); /* it was proved before */
    }
    enum hp_err err = take_pack_blobs(m, &head, hp_sqlite_bin(stmt, 2), reterr);
    uint64_t waiting_from = first;
    uint64_t end = first + head.count;
    for (uint64_t id = first; err == HP_OK && id < end;) {
        uint64_t next = 0;
        bool waits = false;
        err = look_at(m, &head, id, &next, &waits, reterr);
        if (err == HP_OK && !waits) {
            err = put_back(m, &head, waiting_from, id, reterr);
            waiting_from = next;
        }
        id = next;
    }
    return err == HP_OK ? put_back(m, &head, waiting_from, end, reterr) : err;
}

static enum hp_err each_bucket(struct mend *m, const char *columns, const char *table, row_fn *fn,
                               struct hp_error *reterr)
{
    struct hp_sqlite *to = m->v->to;
    enum hp_err err = HP_OK;
    for (uint32_t i = 0; err == HP_OK && i < to->bucket_count; i++) {
        char sql[120];
        (void)snprintf(sql, sizeof(sql), "SELECT %s FROM %s_%" PRIu64 " ORDER BY first", columns,
                       table, to->buckets[i].number);
        err = each(m, sql, fn, reterr);
    }
    return err;
}

/* ------------------------------------------------------------------ side rows, keys, queues */
/* A row about a task that has ended, or that is not there, would be in the way. */
static enum hp_err each_side(struct mend *m, sqlite3_stmt *stmt, struct hp_error *reterr)
{
    const struct hp_group_head *head = NULL;
    struct hp_result result;
    uint64_t first = hp_sqlite_u64(stmt, 0);
    enum hp_err err = hp_facts_group(&m->facts, first, &head, reterr);
    if (err == HP_OK) {
        err = hp_facts_result(&m->facts, first, &result, reterr);
        if (err == HP_ERR_NOT_FOUND) {
            return HP_OK;
        }
    } else if (err == HP_ERR_NOT_FOUND) {
        m->v->report->lost_count++;
        hp_salvage_say(m->v, "task %" PRIu64 ": its submit is lost, though it had not ended",
                       first);
        err = HP_OK;
    }
    return err == HP_OK ? hp_salvage_run(m->v, "DELETE FROM side WHERE first = ?1",
                                         (struct hp_salvage_value[]){number(first)}, 1, reterr)
                        : err;
}

static enum hp_err each_key(struct mend *m, sqlite3_stmt *stmt, struct hp_error *reterr)
{
    const struct hp_group_head *head = NULL;
    struct hp_result result;
    struct hp_row_in in;
    struct hp_bin key = hp_sqlite_bin(stmt, 0);
    if (!hp_row_open(&in, hp_sqlite_bin(stmt, 1), HP_ROW_UKEY,
                     hp_row_digest(key.data, key.size, HP_ROW_UKEY, 0)) ||
        (key.size > 0 && key.data[0] == 0)) {
        return HP_OK; /* of a pool: unknown pools are passed over when the broker starts */
    }
    uint64_t id = hp_row_get_u64(&in);
    enum hp_err err = hp_facts_group(&m->facts, id, &head, reterr);
    if (err == HP_OK) {
        err = hp_facts_result(&m->facts, id, &result, reterr);
        if (err == HP_ERR_NOT_FOUND) {
            return HP_OK;
        }
    }
    return err == HP_OK || err == HP_ERR_NOT_FOUND
               ? hp_salvage_run(m->v, "DELETE FROM ukey WHERE key = ?1",
                                (struct hp_salvage_value[]){{.bytes = key}}, 1, reterr)
               : err;
}

static enum hp_err put_queues(struct mend *m, struct hp_error *reterr)
{
    struct hp_strmap_iter iter = {0};
    uint64_t count = 0;
    struct hp_str key;
    enum hp_err err = HP_OK;
    while (err == HP_OK && hp_strmap_next(&m->v->queues, &iter, &key, &count)) {
        struct hp_bin name = hp_str_as_bin(key);
        uint8_t state[HP_QUEUE_STATE_BYTES];
        struct hp_row_out row HP_CLEANUP(hp_row_out_deinit) = {0};
        hp_queue_state_put(state, true, count);
        hp_row_put_raw(&row, state, sizeof(state));
        hp_row_seal(&row, HP_ROW_QUEUE, hp_row_digest(name.data, name.size, HP_ROW_QUEUE, 0));
        err = hp_salvage_run(m->v, "INSERT OR REPLACE INTO queue VALUES(?1, ?2)",
                             (struct hp_salvage_value[]){{.bytes = name}, {.bytes = row_bin(&row)}},
                             2, reterr);
    }
    return err;
}

static enum hp_err put_meta(struct mend *m, struct hp_error *reterr)
{
    struct hp_salvage *v = m->v;
    struct hp_sqlite_meta *meta = &v->to->meta;
    meta->epoch = HP_MAX(meta->epoch, v->max_epoch);
    meta->next_id = HP_MAX(meta->next_id, v->max_id + 1);
    meta->next_blob = HP_MAX(meta->next_blob, v->max_blob + 1);
    meta->last_batch = HP_MAX(meta->last_batch, v->max_batch);
    meta->grace_ms = 0;
    v->to->meta_dirty = true;
    v->open_rows = 0;
    for (uint32_t i = 0; i < v->to->bucket_count; i++) {
        v->report->task_count += v->to->buckets[i].task_count;
        v->report->ended_count += v->to->buckets[i].ended_count;
    }
    return sqlite3_get_autocommit(v->to->db) != 0 ? HP_OK : hp_sqlite_commit(v->to, reterr);
}

enum hp_err hp_salvage_mend(struct hp_salvage *v, struct hp_error *reterr)
{
    struct mend m = {.v = v};
    hp_facts_init(&m.facts, v->to);
    hp_facts_init(&m.pools, v->to);
    hp_idmap_init(&m.leases, 0);
    enum hp_err err = drop_buried(&m, reterr);
    if (err == HP_OK) {
        err = each_bucket(&m, "first, row", "result", each_result, reterr);
    }
    if (err == HP_OK) {
        err = each(&m, "SELECT batch, row FROM lease ORDER BY batch", each_lease_row, reterr);
    }
    hp_facts_deinit(&m.facts);
    hp_facts_init(&m.facts, v->to); /* what it remembers is from before the stubs */
    if (err == HP_OK) {
        err = each(&m, "SELECT first FROM side ORDER BY first", each_side, reterr);
    }
    if (err == HP_OK) {
        err = each(&m, "SELECT key, row FROM ukey ORDER BY key", each_key, reterr);
    }
    hp_facts_deinit(&m.facts);
    hp_facts_init(&m.facts, v->to);
    if (err == HP_OK) {
        err = each_bucket(&m, "first, head, pack", "group", each_group, reterr);
    }
    if (err == HP_OK) {
        err = put_queues(&m, reterr);
    }
    if (err == HP_OK) {
        err = put_meta(&m, reterr);
    }
    hp_facts_deinit(&m.facts);
    hp_facts_deinit(&m.pools);
    hp_idmap_deinit(&m.leases);
    return err;
}
