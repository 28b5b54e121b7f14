/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Schema, statements, buckets. Schema changes are numbered migrations; each runs in a transaction
 * of its own which also sets user_version, so a cut leaves the old or the new schema, never a
 * mixture.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/crash.h"
#include "server/store/sqlite.h"

/* migrations[n] leads from schema n to n + 1. Never change one that was released. */
static const char *const migrations[HP_SQLITE_SCHEMA] = {
    "CREATE TABLE meta(id INTEGER PRIMARY KEY, row BLOB NOT NULL);"
    "CREATE TABLE bucket(number INTEGER PRIMARY KEY, row BLOB NOT NULL);"
    "CREATE TABLE lane(lane INTEGER PRIMARY KEY, key BLOB, cursor BLOB NOT NULL);"
    "CREATE TABLE segment(lane INTEGER, number INTEGER, row BLOB NOT NULL,"
    " PRIMARY KEY(lane, number)) WITHOUT ROWID;"
    "CREATE TABLE lease(batch INTEGER PRIMARY KEY, row BLOB NOT NULL);"
    "CREATE TABLE side(first INTEGER PRIMARY KEY, kind INTEGER NOT NULL, count INTEGER NOT NULL,"
    " run_at INTEGER NOT NULL, row BLOB NOT NULL);"
    "CREATE INDEX side_run_at ON side(run_at, first) WHERE kind <= 2;"
    "CREATE INDEX side_parked ON side(first) WHERE kind > 2;"
    "CREATE TABLE expiry(first INTEGER PRIMARY KEY, run_at INTEGER NOT NULL, row BLOB NOT NULL);"
    "CREATE INDEX expiry_run_at ON expiry(run_at, first);"
    "CREATE TABLE ukey(key BLOB PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE session(id BLOB PRIMARY KEY, seen_at INTEGER NOT NULL, row BLOB NOT NULL)"
    " WITHOUT ROWID;"
    "CREATE INDEX session_seen_at ON session(seen_at);"
    "CREATE TABLE queue(name BLOB PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE node(number INTEGER PRIMARY KEY, row BLOB NOT NULL);"
    "CREATE TABLE blob(blob INTEGER PRIMARY KEY, owner INTEGER NOT NULL);"
    "CREATE INDEX blob_owner ON blob(owner);"
    "CREATE TABLE tomb(first INTEGER PRIMARY KEY, row BLOB NOT NULL);",
    /* The same tables; a bucket's row may tell of late groups, which programs of before lose. */
    "",
};

static const char *const statements[HP_SQL_COUNT] = {
    [HP_SQL_BEGIN] = "BEGIN IMMEDIATE",
    [HP_SQL_COMMIT] = "COMMIT",
    [HP_SQL_ROLLBACK] = "ROLLBACK",
    [HP_SQL_META_GET] = "SELECT row FROM meta WHERE id = 1",
    [HP_SQL_META_PUT] = "INSERT OR REPLACE INTO meta VALUES(1, ?1)",
    [HP_SQL_LANE_PUT] = "INSERT OR REPLACE INTO lane VALUES(?1, ?2, ?3)",
    [HP_SQL_LANE_CURSOR] = "INSERT INTO lane VALUES(?1, NULL, ?3) ON CONFLICT(lane)"
                           " DO UPDATE SET cursor = excluded.cursor",
    [HP_SQL_LANE_GET] = "SELECT cursor FROM lane WHERE lane = ?1",
    [HP_SQL_LANE_DEL] = "DELETE FROM lane WHERE lane = ?1",
    [HP_SQL_LANE_ALL] = "SELECT lane, key, cursor FROM lane ORDER BY lane",
    [HP_SQL_SEGMENT_PUT] = "INSERT OR REPLACE INTO segment VALUES(?1, ?2, ?3)",
    [HP_SQL_SEGMENT_TRIM] = "DELETE FROM segment WHERE lane = ?1 AND number < ?2",
    [HP_SQL_SEGMENT_DEL] = "DELETE FROM segment WHERE lane = ?1",
    [HP_SQL_SEGMENT_FROM] =
        "SELECT number, row FROM segment WHERE lane = ?1 AND number >= ?2 ORDER BY number",
    [HP_SQL_LEASE_PUT] = "INSERT INTO lease VALUES(?1, ?2)",
    [HP_SQL_LEASE_DEL] = "DELETE FROM lease WHERE batch = ?1",
    [HP_SQL_LEASE_ALL] = "SELECT batch, row FROM lease ORDER BY batch",
    [HP_SQL_SIDE_PUT] = "INSERT OR REPLACE INTO side VALUES(?1, ?2, ?3, ?4, ?5)",
    [HP_SQL_SIDE_DEL] = "DELETE FROM side WHERE first = ?1",
    [HP_SQL_SIDE_FLOOR] =
        "SELECT first, row FROM side WHERE first <= ?1 ORDER BY first DESC LIMIT 1",
    [HP_SQL_SIDE_FROM] =
        "SELECT first, row FROM side WHERE first >= ?1 AND first < ?2 ORDER BY first",
    [HP_SQL_SIDE_AFTER] =
        "SELECT first, row FROM side WHERE kind <= 2 AND (run_at, first) > (?1, ?2)"
        " ORDER BY run_at, first",
    [HP_SQL_SIDE_PARKED] = "SELECT first, row FROM side WHERE kind > 2 ORDER BY first",
    [HP_SQL_SIDE_COUNT] = "SELECT count(*), total(count) FROM side WHERE kind <= 2",
    [HP_SQL_SIDE_REAP] = "DELETE FROM side WHERE first >= ?1 AND first < ?2",
    [HP_SQL_EXPIRY_PUT] = "INSERT OR REPLACE INTO expiry VALUES(?1, ?2, ?3)",
    [HP_SQL_EXPIRY_DEL] = "DELETE FROM expiry WHERE first = ?1",
    [HP_SQL_EXPIRY_AFTER] = "SELECT first, row FROM expiry WHERE (run_at, first) > (?1, ?2)"
                            " ORDER BY run_at, first",
    [HP_SQL_EXPIRY_COUNT] = "SELECT count(*) FROM expiry",
    [HP_SQL_EXPIRY_REAP] = "DELETE FROM expiry WHERE first >= ?1 AND first < ?2",
    [HP_SQL_UKEY_PUT] = "INSERT OR REPLACE INTO ukey VALUES(?1, ?2)",
    [HP_SQL_UKEY_DEL] = "DELETE FROM ukey WHERE key = ?1",
    [HP_SQL_UKEY_ALL] = "SELECT key, row FROM ukey ORDER BY key",
    [HP_SQL_SESSION_SET] = "UPDATE session SET row = ?3 WHERE id = ?1 AND seen_at = ?2",
    [HP_SQL_SESSION_PUT] = "INSERT INTO session VALUES(?1, ?2, ?3) ON CONFLICT(id)"
                           " DO UPDATE SET seen_at = excluded.seen_at, row = excluded.row",
    [HP_SQL_SESSION_GET] = "SELECT row, seen_at FROM session WHERE id = ?1",
    [HP_SQL_SESSION_REAP] =
        "DELETE FROM session WHERE id IN"
        " (SELECT id FROM session WHERE seen_at <= ?1 ORDER BY seen_at LIMIT 256)",
    [HP_SQL_QUEUE_PUT] = "INSERT OR REPLACE INTO queue VALUES(?1, ?2)",
    [HP_SQL_QUEUE_ALL] = "SELECT name, row FROM queue ORDER BY name",
    [HP_SQL_NODE_PUT] = "INSERT OR REPLACE INTO node VALUES(?1, ?2)",
    [HP_SQL_NODE_ALL] = "SELECT number, row FROM node ORDER BY number",
    [HP_SQL_BLOB_PUT] = "INSERT OR REPLACE INTO blob VALUES(?1, ?2)",
    [HP_SQL_BLOB_OWNED] = "SELECT blob FROM blob WHERE owner >= ?1 AND owner < ?2",
    [HP_SQL_BLOB_OWNER_FROM] = "SELECT owner FROM blob WHERE owner >= ?1 ORDER BY owner",
    [HP_SQL_BLOB_DEL] = "DELETE FROM blob WHERE blob = ?1",
    [HP_SQL_BLOB_HAS] = "SELECT 1 FROM blob WHERE blob = ?1",
    [HP_SQL_BLOB_FROM] = "SELECT blob FROM blob WHERE blob >= ?1 ORDER BY blob",
    [HP_SQL_TOMB_PUT] = "INSERT OR REPLACE INTO tomb VALUES(?1, ?2)",
    [HP_SQL_TOMB_FLOOR] =
        "SELECT first, row FROM tomb WHERE first <= ?1 ORDER BY first DESC LIMIT 1",
    [HP_SQL_TOMB_FROM] = "SELECT first, row FROM tomb WHERE first >= ?1 ORDER BY first",
    [HP_SQL_TOMB_DEL] = "DELETE FROM tomb WHERE first = ?1",
    [HP_SQL_TOMB_REAP] = "DELETE FROM tomb WHERE first >= ?1 AND first < ?2",
    [HP_SQL_BUCKET_PUT] = "INSERT OR REPLACE INTO bucket VALUES(?1, ?2)",
    [HP_SQL_BUCKET_DEL] = "DELETE FROM bucket WHERE number = ?1",
    [HP_SQL_BUCKET_ALL] = "SELECT number, row FROM bucket ORDER BY number",
};

#define BUCKET_CREATE                                                                              \
    "CREATE TABLE group_%" PRIu64 "(first INTEGER PRIMARY KEY, head BLOB NOT NULL, pack BLOB);"    \
    "CREATE TABLE result_%" PRIu64                                                                 \
    "(first INTEGER PRIMARY KEY, count INTEGER NOT NULL, row BLOB NOT NULL);"
#define BUCKET_DROP "DROP TABLE group_%" PRIu64 "; DROP TABLE result_%" PRIu64 ";"

struct bucket_statement {
    const char *before; /* SQL before and after the table's number */
    const char *after;
};
static const struct bucket_statement bucket_statements[HP_BUCKET_SQL_COUNT] = {
    [HP_BUCKET_GROUP_PUT] = {"INSERT INTO group_", " SELECT first, head, pack FROM hp_groups"},
    [HP_BUCKET_GROUP_FLOOR] = {"SELECT first, head FROM group_",
                               " WHERE first <= ?1 ORDER BY first DESC LIMIT 1"},
    [HP_BUCKET_GROUP_PACK] = {"SELECT pack FROM group_", " WHERE first = ?1"},
    [HP_BUCKET_GROUP_FROM] = {"SELECT first, head FROM group_",
                              " WHERE first >= ?1 ORDER BY first"},
    [HP_BUCKET_GROUP_BEFORE] = {"SELECT first, head FROM group_",
                                " WHERE first < ?1 ORDER BY first DESC"},
    [HP_BUCKET_GROUP_DEL] = {"DELETE FROM group_", " WHERE first = ?1"},
    [HP_BUCKET_GROUP_DEL_BELOW] = {"DELETE FROM group_", " WHERE first < ?1"},
    [HP_BUCKET_GROUP_DEL_RANGE] = {"DELETE FROM group_", " WHERE first >= ?1 AND first < ?2"},
    [HP_BUCKET_RESULT_PUT] = {"INSERT INTO result_", " VALUES(?1, ?2, ?3)"},
    [HP_BUCKET_RESULT_FLOOR] = {"SELECT first, row, count FROM result_",
                                " WHERE first <= ?1 ORDER BY first DESC LIMIT 1"},
    [HP_BUCKET_RESULT_FROM] = {"SELECT first, row, count FROM result_",
                               " WHERE first >= ?1 AND first < ?2 ORDER BY first"},
    [HP_BUCKET_RESULT_DEL] = {"DELETE FROM result_",
                              " WHERE first >= ?1 AND first < ?2 AND first + count <= ?2"},
};

/* ------------------------------------------------------------------ migrations */
static enum hp_err run_migration(struct hp_sqlite *s, uint64_t from, struct hp_error *reterr)
{
    char version[48];
    (void)snprintf(version, sizeof(version), "PRAGMA user_version=%u", (unsigned)from + 1);
    enum hp_err err = hp_sqlite_exec(s, "BEGIN IMMEDIATE", reterr);
    if (err == HP_OK) {
        err = hp_sqlite_exec(s, migrations[from], reterr);
    }
    if (err == HP_OK) {
        HP_CRASH_POINT("migration.statements");
        err = hp_sqlite_exec(s, version, reterr);
    }
    if (err == HP_OK) {
        HP_CRASH_POINT("migration.commit");
        err = hp_sqlite_exec(s, "COMMIT", reterr);
        HP_CRASH_POINT("migration.after");
    }
    if (err != HP_OK && sqlite3_get_autocommit(s->db) == 0) {
        (void)hp_sqlite_exec(s, "ROLLBACK", NULL); /* the first error is the one to tell */
    }
    return err;
}

enum hp_err hp_sqlite_migrate(struct hp_sqlite *s, bool create, struct hp_error *reterr)
{
    uint64_t version = 0;
    uint64_t application = 0;
    enum hp_err err = hp_sqlite_query_u64(s, "PRAGMA user_version", &version, reterr);
    if (err == HP_OK) {
        err = hp_sqlite_query_u64(s, "PRAGMA application_id", &application, reterr);
    }
    if (err != HP_OK) {
        return err;
    }
    if (!create && application != HP_SQLITE_APPLICATION_ID) {
        return hp_error_set(reterr, HP_ERR_CORRUPT,
                            "%s: damaged: not a hostpool database; restore a backup, or see "
                            "'hostpool broker recover DIR NEW'",
                            s->db_path);
    }
    if (!create && version == 0) {
        return hp_error_set(reterr, HP_ERR_CORRUPT,
                            "%s: the database was never finished; create it anew", s->db_path);
    }
    if (version > HP_SQLITE_SCHEMA) {
        return hp_error_set(reterr, HP_ERR_UNSUPPORTED,
                            "%s: schema %" PRIu64 " is newer than this program's (%d); use a newer "
                            "hostpool or restore a backup",
                            s->db_path, version, HP_SQLITE_SCHEMA);
    }
    for (; err == HP_OK && version < HP_SQLITE_SCHEMA; version++) {
        err = run_migration(s, version, reterr);
    }
    return err;
}

/* ------------------------------------------------------------------ statements */
static enum hp_err prepare(struct hp_sqlite *s, const char *sql, sqlite3_stmt **ret_stmt,
                           struct hp_error *reterr)
{
    int code = sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, ret_stmt, NULL);
    return code == SQLITE_OK ? HP_OK : hp_sqlite_error(s, code, sql, reterr);
}

enum hp_err hp_sqlite_prepare(struct hp_sqlite *s, struct hp_error *reterr)
{
    for (int i = 0; i < HP_SQL_COUNT; i++) {
        enum hp_err err = prepare(s, statements[i], &s->stmts[i], reterr);
        if (err != HP_OK) {
            return err;
        }
    }
    return HP_OK;
}

static void finalize_bucket(struct hp_bucket *bucket)
{
    for (int i = 0; i < HP_BUCKET_SQL_COUNT; i++) {
        (void)sqlite3_finalize(bucket->stmts[i]); /* its error was seen at its step */
        bucket->stmts[i] = NULL;
    }
}

static void drop_buckets(struct hp_sqlite *s)
{
    for (uint32_t i = 0; i < s->bucket_count; i++) {
        finalize_bucket(&s->buckets[i]);
    }
    s->bucket_count = 0;
}

void hp_sqlite_finalize(struct hp_sqlite *s)
{
    drop_buckets(s);
    hp_free(s->buckets);
    s->buckets = NULL;
    for (int i = 0; i < HP_SQL_COUNT; i++) {
        (void)sqlite3_finalize(s->stmts[i]); /* its error was seen at its step */
        s->stmts[i] = NULL;
    }
}

enum hp_err hp_sqlite_bucket_stmt(struct hp_sqlite *s, struct hp_bucket *bucket,
                                  enum hp_bucket_sql sql, sqlite3_stmt **ret_stmt,
                                  struct hp_error *reterr)
{
    if (bucket->stmts[sql] == NULL) {
        char text[200];
        int size = snprintf(text, sizeof(text), "%s%" PRIu64 "%s", bucket_statements[sql].before,
                            bucket->number, bucket_statements[sql].after);
        HP_ASSERT(size > 0 && (size_t)size < sizeof(text));
        enum hp_err err = prepare(s, text, &bucket->stmts[sql], reterr);
        if (err != HP_OK) {
            return err;
        }
    }
    *ret_stmt = bucket->stmts[sql];
    return HP_OK;
}

/* ------------------------------------------------------------------ buckets */
uint32_t hp_sqlite_bucket_index(const struct hp_sqlite *s, uint64_t number)
{
    uint32_t low = 0;
    uint32_t high = s->bucket_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s->buckets[middle].number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct hp_bucket *hp_sqlite_bucket(struct hp_sqlite *s, uint64_t id)
{
    uint64_t number = id >> HP_SQLITE_BUCKET_SHIFT;
    if (s->bucket_count > 0 && s->buckets[s->bucket_count - 1].number == number) {
        return &s->buckets[s->bucket_count - 1];
    }
    uint32_t index = hp_sqlite_bucket_index(s, number);
    return index < s->bucket_count && s->buckets[index].number == number ? &s->buckets[index]
                                                                         : NULL;
}

static enum hp_err insert_bucket(struct hp_sqlite *s, uint64_t number,
                                 struct hp_bucket **ret_bucket, struct hp_error *reterr)
{
    if (s->bucket_count == s->bucket_capacity || s->buckets == NULL) {
        uint32_t capacity = s->buckets == NULL ? 16 : s->bucket_capacity * 2;
        struct hp_bucket *buckets = hp_realloc_array(s->buckets, capacity, sizeof(*buckets));
        if (buckets == NULL) {
            return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
        }
        s->buckets = buckets;
        s->bucket_capacity = capacity;
    }
    uint32_t index = hp_sqlite_bucket_index(s, number);
    memmove(&s->buckets[index + 1], &s->buckets[index],
            (s->bucket_count - index) * sizeof(*s->buckets));
    s->bucket_count++;
    s->buckets[index] = (struct hp_bucket){.number = number};
    *ret_bucket = &s->buckets[index];
    return HP_OK;
}

enum hp_err hp_sqlite_bucket_make(struct hp_sqlite *s, uint64_t id, struct hp_bucket **ret_bucket,
                                  struct hp_error *reterr)
{
    uint64_t number = id >> HP_SQLITE_BUCKET_SHIFT;
    char sql[256];
    (void)snprintf(sql, sizeof(sql), BUCKET_CREATE, number, number);
    enum hp_err err = hp_sqlite_exec(s, sql, reterr);
    if (err != HP_OK) {
        return err;
    }
    err = insert_bucket(s, number, ret_bucket, reterr);
    if (err == HP_OK) {
        (*ret_bucket)->dirty = true;
    }
    return err;
}

enum hp_err hp_sqlite_bucket_remove(struct hp_sqlite *s, struct hp_bucket *bucket,
                                    struct hp_error *reterr)
{
    char sql[160];
    uint64_t number = bucket->number;
    uint32_t index = (uint32_t)(bucket - s->buckets);
    (void)snprintf(sql, sizeof(sql), BUCKET_DROP, number, number);
    finalize_bucket(bucket);
    s->bucket_count--;
    memmove(bucket, bucket + 1, (s->bucket_count - index) * sizeof(*bucket));
    enum hp_err err = hp_sqlite_exec(s, sql, reterr);
    if (err != HP_OK) {
        return err;
    }
    hp_sqlite_bind_u64(s->stmts[HP_SQL_BUCKET_DEL], 1, number);
    return hp_sqlite_run(s, s->stmts[HP_SQL_BUCKET_DEL], "delete bucket", reterr);
}

/* ------------------------------------------------------------------ memory and disk */
static enum hp_err load_meta(struct hp_sqlite *s, struct hp_error *reterr)
{
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_META_GET];
    struct hp_row_in in;
    enum hp_err err = hp_sqlite_step(s, stmt, "read meta", reterr);
    if (err == HP_ERR_NOT_FOUND) { /* never fresh: ids would begin anew */
        return hp_sqlite_damaged(s, "meta", 1, reterr);
    }
    if (err != HP_OK) {
        return err;
    }
    if (!hp_row_open(&in, hp_sqlite_bin(stmt, 0), HP_ROW_META, 1)) {
        return hp_sqlite_damaged(s, "meta", 1, reterr);
    }
    s->meta.epoch = hp_row_get_u64(&in);
    s->meta.next_id = hp_row_get_u64(&in);
    s->meta.next_blob = hp_row_get_u64(&in);
    s->meta.grace_ms = hp_row_get_u64(&in);
    s->meta.last_batch = hp_row_get_u64(&in);
    return hp_row_done(&in) ? HP_OK : hp_sqlite_damaged(s, "meta", 1, reterr);
}

static enum hp_err load_buckets(struct hp_sqlite *s, struct hp_error *reterr)
{
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_BUCKET_ALL];
    enum hp_err err = HP_OK;
    while ((err = hp_sqlite_step(s, stmt, "read buckets", reterr)) == HP_OK) {
        uint64_t number = hp_sqlite_u64(stmt, 0);
        struct hp_row_in in;
        struct hp_bucket *bucket = NULL;
        if (!hp_row_open(&in, hp_sqlite_bin(stmt, 1), HP_ROW_BUCKET, number)) {
            return hp_sqlite_damaged(s, "bucket", number, reterr);
        }
        err = insert_bucket(s, number, &bucket, reterr);
        if (err != HP_OK) {
            return err;
        }
        bucket->group_count = hp_row_get_u64(&in);
        bucket->task_count = hp_row_get_u64(&in);
        bucket->ended_count = hp_row_get_u64(&in);
        bucket->emptied_below = hp_row_get_u64(&in);
        bucket->expires_max_ms = hp_row_get_i64(&in);
        bucket->state = hp_row_get_u32(&in);
        bool is_old = hp_row_done(&in); /* written with schema 1: there was nothing late */
        bucket->late_from = is_old ? 0 : hp_row_get_u64(&in);
        if (!hp_row_done(&in)) {
            return hp_sqlite_damaged(s, "bucket", number, reterr);
        }
    }
    return err == HP_ERR_NOT_FOUND ? HP_OK : err;
}

enum hp_err hp_sqlite_reload(struct hp_sqlite *s, struct hp_error *reterr)
{
    drop_buckets(s);
    s->meta_dirty = false;
    enum hp_err err = load_meta(s, reterr);
    err = err == HP_OK ? load_buckets(s, reterr) : err;
    return err == HP_OK ? hp_late_find(s, reterr) : err;
}

static enum hp_err save_meta(struct hp_sqlite *s, struct hp_error *reterr)
{
    sqlite3_stmt *stmt = s->stmts[HP_SQL_META_PUT];
    struct hp_row_out *out = &s->out;
    hp_row_clear(out);
    hp_row_put_u64(out, s->meta.epoch);
    hp_row_put_u64(out, s->meta.next_id);
    hp_row_put_u64(out, s->meta.next_blob);
    hp_row_put_u64(out, s->meta.grace_ms);
    hp_row_put_u64(out, s->meta.last_batch);
    hp_row_seal(out, HP_ROW_META, 1);
    hp_sqlite_bind_row(stmt, 1, out);
    return hp_sqlite_run(s, stmt, "write meta", reterr);
}

static enum hp_err save_bucket(struct hp_sqlite *s, const struct hp_bucket *bucket,
                               struct hp_error *reterr)
{
    sqlite3_stmt *stmt = s->stmts[HP_SQL_BUCKET_PUT];
    struct hp_row_out *out = &s->out;
    hp_row_clear(out);
    hp_row_put_u64(out, bucket->group_count);
    hp_row_put_u64(out, bucket->task_count);
    hp_row_put_u64(out, bucket->ended_count);
    hp_row_put_u64(out, bucket->emptied_below);
    hp_row_put_i64(out, bucket->expires_max_ms);
    hp_row_put_u64(out, bucket->state);
    hp_row_put_u64(out, bucket->late_from);
    hp_row_seal(out, HP_ROW_BUCKET, bucket->number);
    hp_sqlite_bind_u64(stmt, 1, bucket->number);
    hp_sqlite_bind_row(stmt, 2, out);
    return hp_sqlite_run(s, stmt, "write bucket", reterr);
}

enum hp_err hp_sqlite_save(struct hp_sqlite *s, struct hp_error *reterr)
{
    enum hp_err err = s->meta_dirty ? save_meta(s, reterr) : HP_OK;
    for (uint32_t i = 0; err == HP_OK && i < s->bucket_count; i++) {
        if (s->buckets[i].dirty) {
            err = save_bucket(s, &s->buckets[i], reterr);
        }
    }
    return err;
}

void hp_sqlite_saved(struct hp_sqlite *s)
{
    s->meta_dirty = false;
    hp_late_saved(s);
    for (uint32_t i = 0; i < s->bucket_count; i++) {
        s->buckets[i].dirty = false;
    }
}
