/* SPDX-License-Identifier: BSD-2-Clause */
/* What a starting core is told: all that lives, and nothing that waits in lanes or for its time. */
#include "common/base/idmap.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/crash.h"
#include "server/store/sqlite.h"

struct recovery {
    struct hp_sqlite *s;
    hp_record_fn *fn;
    void *context;
    struct hp_facts facts;
    struct hp_idmap latest; /* id -> batch of its latest lease */
    uint64_t *empty;        /* batches without a live lease */
    uint32_t empty_count;
    uint32_t empty_capacity;
    uint64_t last_batch;
};

static void recovery_deinit(struct recovery *r)
{
    hp_facts_deinit(&r->facts);
    hp_idmap_deinit(&r->latest);
    hp_free(r->empty);
}

typedef enum hp_err row_fn(struct recovery *r, sqlite3_stmt *stmt, struct hp_error *reterr);

/* Calls `each` for every row of a statement without parameters. */
static enum hp_err for_each_row(struct recovery *r, enum hp_sql sql, row_fn *each,
                                struct hp_error *reterr)
{
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = r->s->stmts[sql];
    for (;;) {
        enum hp_err err = hp_sqlite_step(r->s, stmt, "recover", reterr);
        if (err != HP_OK) {
            return err == HP_ERR_NOT_FOUND ? HP_OK : err;
        }
        err = each(r, stmt, reterr);
        if (err != HP_OK) {
            return err;
        }
    }
}

/* The bytes of a sealed row. */
static bool open_bytes(struct hp_bin row, enum hp_row_table table, uint64_t key,
                       struct hp_bin *ret_bytes)
{
    struct hp_row_in in;
    if (!hp_row_open(&in, row, table, key)) {
        return false;
    }
    *ret_bytes = (struct hp_bin){.data = in.at, .size = (uint32_t)(in.end - in.at)};
    return true;
}

/* ------------------------------------------------------------------ meta */
static enum hp_err raise_epoch(struct hp_sqlite *s, struct hp_error *reterr)
{
    enum hp_err err = hp_sqlite_begin(s, reterr);
    if (err != HP_OK) {
        return hp_sqlite_abort(s, err, reterr);
    }
    s->meta.epoch++;
    if (s->restored) {
        /* Workers keep to the highest epoch they know, and an id means one task, ever. */
        s->meta.epoch += HP_STORE_RESTORED_EPOCHS;
        s->meta.next_id = (s->meta.next_id / HP_STORE_RESTORED_IDS + 2) * HP_STORE_RESTORED_IDS;
        s->meta.next_blob += HP_STORE_RESTORED_IDS;
    }
    s->meta_dirty = true;
    HP_CRASH_POINT("epoch.before");
    err = hp_sqlite_commit(s, reterr);
    HP_CRASH_POINT("epoch.after");
    return err;
}

static enum hp_err count_sides(struct hp_sqlite *s, struct hp_record *record,
                               struct hp_error *reterr)
{
    sqlite3_stmt *sides HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_SIDE_COUNT];
    sqlite3_stmt *expiries HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_EXPIRY_COUNT];
    enum hp_err err = hp_sqlite_step(s, sides, "count sides", reterr);
    if (err == HP_OK) {
        err = hp_sqlite_step(s, expiries, "count expiries", reterr);
    }
    if (err == HP_OK) {
        record->meta.side_count = hp_sqlite_u64(sides, 0) + hp_sqlite_u64(expiries, 0);
        record->meta.delayed_count = hp_sqlite_u64(sides, 1);
    }
    return err;
}

static enum hp_err recover_meta(struct recovery *r, struct hp_error *reterr)
{
    struct hp_sqlite *s = r->s;
    enum hp_err err = raise_epoch(s, reterr);
    if (err == HP_ERR_NOSPACE) {
        err = raise_epoch(s, reterr); /* the ballast is free now */
    }
    struct hp_record record = {.kind = HP_RECORD_META};
    if (err == HP_OK) {
        err = count_sides(s, &record, reterr);
    }
    if (err != HP_OK) {
        return err;
    }
    record.meta.epoch = s->meta.epoch;
    record.meta.next_id = s->meta.next_id;
    record.meta.next_blob = s->meta.next_blob;
    record.meta.grace_ms = s->meta.grace_ms;
    record.meta.last_batch = HP_MAX(s->meta.last_batch, r->last_batch);
    r->fn(r->context, &record);
    return HP_OK;
}

/* ------------------------------------------------------------------ queues, nodes, lanes, keys */
static enum hp_err each_queue(struct recovery *r, sqlite3_stmt *stmt, struct hp_error *reterr)
{
    struct hp_record record = {.kind = HP_RECORD_QUEUE};
    struct hp_bin name = hp_sqlite_bin(stmt, 0);
    record.queue.name = name;
    if (!open_bytes(hp_sqlite_bin(stmt, 1), HP_ROW_QUEUE,
                    hp_row_digest(name.data, name.size, HP_ROW_QUEUE, 0), &record.queue.state)) {
        return hp_sqlite_damaged(r->s, "queue", 0, reterr);
    }
    r->fn(r->context, &record);
    return HP_OK;
}

static enum hp_err each_node(struct recovery *r, sqlite3_stmt *stmt, struct hp_error *reterr)
{
    struct hp_record record = {.kind = HP_RECORD_NODE};
    struct hp_row_in in;
    uint64_t number = hp_sqlite_u64(stmt, 0);
    if (!hp_row_open(&in, hp_sqlite_bin(stmt, 1), HP_ROW_NODE, number)) {
        return hp_sqlite_damaged(r->s, "node", number, reterr);
    }
    record.node.number = (uint32_t)number;
    record.node.name = hp_row_get_bin(&in);
    record.node.boot = hp_row_get_bin(&in);
    record.node.state = hp_row_get_bin(&in);
    if (!hp_row_done(&in)) {
        return hp_sqlite_damaged(r->s, "node", number, reterr);
    }
    r->fn(r->context, &record);
    return HP_OK;
}

static enum hp_err each_lane(struct recovery *r, sqlite3_stmt *stmt, struct hp_error *reterr)
{
    struct hp_record record = {.kind = HP_RECORD_LANE};
    struct hp_row_in in;
    uint64_t lane = hp_sqlite_u64(stmt, 0);
    struct hp_bin key = hp_sqlite_bin(stmt, 1);
    if ((key.size > 0 && !open_bytes(key, HP_ROW_LANE_KEY, lane, &record.lane.key)) ||
        !hp_row_open(&in, hp_sqlite_bin(stmt, 2), HP_ROW_LANE_CURSOR, lane)) {
        return hp_sqlite_damaged(r->s, "lane", lane, reterr);
    }
    record.lane.lane = (uint32_t)lane;
    record.lane.head_segment = hp_row_get_u64(&in);
    record.lane.next_segment = hp_row_get_u64(&in);
    record.lane.ready_count = hp_row_get_u64(&in);
    r->fn(r->context, &record);
    return HP_OK;
}

static enum hp_err each_ukey(struct recovery *r, sqlite3_stmt *stmt, struct hp_error *reterr)
{
    struct hp_record record = {.kind = HP_RECORD_UKEY};
    struct hp_row_in in;
    struct hp_bin key = hp_sqlite_bin(stmt, 0);
    record.ukey.key = key;
    if (!hp_row_open(&in, hp_sqlite_bin(stmt, 1), HP_ROW_UKEY,
                     hp_row_digest(key.data, key.size, HP_ROW_UKEY, 0))) {
        return hp_sqlite_damaged(r->s, "ukey", 0, reterr);
    }
    record.ukey.id = hp_row_get_u64(&in);
    r->fn(r->context, &record);
    return HP_OK;
}

static enum hp_err each_parked(struct recovery *r, sqlite3_stmt *stmt, struct hp_error *reterr)
{
    struct hp_record record = {.kind = HP_RECORD_SIDE};
    uint64_t first = hp_sqlite_u64(stmt, 0);
    if (!hp_row_get_side(hp_sqlite_bin(stmt, 1), HP_ROW_SIDE, first, &record.side)) {
        return hp_sqlite_damaged(r->s, "side", first, reterr);
    }
    r->fn(r->context, &record);
    return HP_OK;
}

/* ------------------------------------------------------------------ leases (S7) */
static enum hp_err open_leases(struct recovery *r, sqlite3_stmt *stmt, uint64_t *ret_batch,
                               struct hp_row_in *in, struct hp_error *reterr)
{
    *ret_batch = hp_sqlite_u64(stmt, 0);
    return hp_row_open(in, hp_sqlite_bin(stmt, 1), HP_ROW_LEASE, *ret_batch)
               ? HP_OK
               : hp_sqlite_damaged(r->s, "lease", *ret_batch, reterr);
}

/* First pass: which batch leased an id last. */
static enum hp_err each_lease_row(struct recovery *r, sqlite3_stmt *stmt, struct hp_error *reterr)
{
    struct hp_row_in in;
    struct hp_lease lease = {0};
    uint64_t batch = 0;
    enum hp_err err = open_leases(r, stmt, &batch, &in, reterr);
    while (err == HP_OK && !hp_row_done(&in)) {
        if (!hp_row_get_lease(&in, &lease)) {
            return hp_sqlite_damaged(r->s, "lease", batch, reterr);
        }
        err = hp_idmap_put(&r->latest, lease.id, batch);
    }
    r->last_batch = HP_MAX(r->last_batch, batch);
    return err;
}

static enum hp_err is_live(struct recovery *r, const struct hp_lease *lease, uint64_t batch,
                           bool *ret_live, struct hp_error *reterr)
{
    struct hp_result result;
    struct hp_side side;
    const struct hp_group_head *head = NULL;
    uint64_t latest = 0;
    *ret_live = false;
    if (hp_idmap_find(&r->latest, lease->id, &latest) && latest != batch) {
        return HP_OK;
    }
    enum hp_err err = hp_facts_result(&r->facts, lease->id, &result, reterr);
    if (err == HP_OK) {
        return HP_OK;
    }
    if (err == HP_ERR_NOT_FOUND) {
        err = hp_facts_side(&r->facts, lease->id, &side, reterr);
        if (err == HP_OK && side.kind != HP_SIDE_CANCELLING) {
            return HP_OK;
        }
    }
    if (err == HP_OK || err == HP_ERR_NOT_FOUND) {
        err = hp_facts_group(&r->facts, lease->id, &head, reterr);
        *ret_live = err == HP_OK;
    }
    if (err == HP_ERR_CORRUPT) {
        return hp_sqlite_damaged(r->s, "task", lease->id, reterr);
    }
    return err == HP_ERR_NOT_FOUND ? HP_OK : err;
}

static enum hp_err tell_lease(struct recovery *r, const struct hp_lease *lease, uint64_t batch,
                              struct hp_error *reterr)
{
    const struct hp_group_head *head = NULL;
    enum hp_err err = hp_facts_group(&r->facts, lease->id, &head, reterr);
    if (err != HP_OK) {
        return err;
    }
    struct hp_record record = {.kind = HP_RECORD_LEASE};
    record.lease.batch = batch;
    record.lease.lease = *lease;
    record.lease.created_at_ms = head->created_at_ms;
    record.lease.group_count = head->count;
    record.lease.session = head->session;
    record.lease.options = head->options;
    r->fn(r->context, &record);
    return HP_OK;
}

static enum hp_err note_empty(struct recovery *r, uint64_t batch, struct hp_error *reterr)
{
    if (r->empty_count == r->empty_capacity) {
        uint32_t capacity = r->empty_capacity == 0 ? 64 : r->empty_capacity * 2;
        uint64_t *empty = hp_realloc_array(r->empty, capacity, sizeof(*empty));
        if (empty == NULL) {
            return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
        }
        r->empty = empty;
        r->empty_capacity = capacity;
    }
    r->empty[r->empty_count++] = batch;
    return HP_OK;
}

/* Second pass: tells the live ones. */
static enum hp_err each_lease(struct recovery *r, sqlite3_stmt *stmt, struct hp_error *reterr)
{
    struct hp_row_in in;
    struct hp_lease lease = {0};
    uint64_t batch = 0;
    uint32_t live_count = 0;
    enum hp_err err = open_leases(r, stmt, &batch, &in, reterr);
    while (err == HP_OK && !hp_row_done(&in)) {
        bool live = false;
        if (!hp_row_get_lease(&in, &lease)) {
            return hp_sqlite_damaged(r->s, "lease", batch, reterr);
        }
        err = is_live(r, &lease, batch, &live, reterr);
        if (err == HP_OK && live) {
            live_count++;
            err = tell_lease(r, &lease, batch, reterr);
        }
    }
    if (err == HP_OK && live_count == 0) {
        err = note_empty(r, batch, reterr);
    }
    return err;
}

static enum hp_err delete_empty(struct recovery *r, struct hp_error *reterr)
{
    struct hp_sqlite *s = r->s;
    if (r->empty_count == 0) {
        return HP_OK;
    }
    enum hp_err err = hp_sqlite_begin(s, reterr);
    for (uint32_t i = 0; err == HP_OK && i < r->empty_count; i++) {
        hp_sqlite_bind_u64(s->stmts[HP_SQL_LEASE_DEL], 1, r->empty[i]);
        err = hp_sqlite_run(s, s->stmts[HP_SQL_LEASE_DEL], "delete leases", reterr);
    }
    err = err == HP_OK ? hp_sqlite_commit(s, reterr) : hp_sqlite_abort(s, err, reterr);
    return err == HP_ERR_NOSPACE ? HP_OK : err; /* they are skipped at the next start as well */
}

enum hp_err hp_sqlite_recover(struct hp_store *store, hp_record_fn *fn, void *context,
                              struct hp_error *reterr)
{
    struct recovery r HP_CLEANUP(recovery_deinit) = {
        .s = hp_sqlite_of(store), .fn = fn, .context = context};
    hp_facts_init(&r.facts, r.s);
    hp_idmap_init(&r.latest, 0);
    static const struct {
        enum hp_sql sql;
        row_fn *each;
    } passes[] = {
        {HP_SQL_QUEUE_ALL, each_queue},    {HP_SQL_NODE_ALL, each_node},
        {HP_SQL_LANE_ALL, each_lane},      {HP_SQL_LEASE_ALL, each_lease},
        {HP_SQL_SIDE_PARKED, each_parked}, {HP_SQL_UKEY_ALL, each_ukey},
    };
    enum hp_err err = for_each_row(&r, HP_SQL_LEASE_ALL, each_lease_row, reterr);
    if (err == HP_OK) {
        err = recover_meta(&r, reterr);
    }
    for (size_t i = 0; err == HP_OK && i < HP_COUNT_OF(passes); i++) {
        err = for_each_row(&r, passes[i].sql, passes[i].each, reterr);
    }
    return err == HP_OK ? delete_empty(&r, reterr) : err;
}
