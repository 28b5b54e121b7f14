/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The check of everything, in slices. Rows may come and go between slices: each row is judged by
 * itself, and sums of a bucket only if nothing changed in it meanwhile.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/macro.h"
#include "common/sys/clock.h"
#include "server/store/blob_file.h"
#include "server/store/sqlite_job.h"

#define LINES_BYTES_MAX ((size_t)64 << 10)
#define CLOCK_ROWS 32u
#define OUT_OF_ORDER "rows are out of order, the rest of the table is not looked at"

void hp_sqlite_check_init(struct hp_check *check)
{
    *check = (struct hp_check){.phase = HP_CHECK_PAGES};
    hp_buf_init(&check->lines, LINES_BYTES_MAX);
}

void hp_sqlite_check_deinit(struct hp_check *check)
{
    hp_buf_deinit(&check->lines);
    hp_row_out_deinit(&check->next_bytes);
}

static void add_problem(struct hp_check *check, const char *table, uint64_t key, const char *text)
{
    check->problem_count++;
    if (check->lines.size < LINES_BYTES_MAX - 512) { /* further ones are only counted */
        enum hp_err err = hp_buf_append_format(&check->lines, "%s%s %" PRIu64 ": %.200s",
                                               check->lines.size > 0 ? "\n" : "", table, key, text);
        (void)err; /* a line without memory is still counted */
    }
}

/* ------------------------------------------------------------------ SQLite's own check */
static enum hp_err quick_check(struct hp_check *check, struct hp_sqlite *s, const char *table,
                               struct hp_error *reterr)
{
    char sql[160];
    sqlite3_stmt *stmt = NULL;
    (void)snprintf(sql, sizeof(sql), "PRAGMA quick_check(\"%.100s\")", table); /* our own names */
    int code = sqlite3_prepare_v2(s->db, sql, -1, &stmt, NULL);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(stmt);
        if (code == SQLITE_ROW) {
            const char *text = (const char *)sqlite3_column_text(stmt, 0);
            if (text == NULL || sqlite3_stricmp(text, "ok") != 0) {
                add_problem(check, table, 0, text != NULL ? text : "quick_check failed");
            }
        }
    }
    (void)sqlite3_finalize(stmt); /* its error is in `code` */
    if (code != SQLITE_DONE) {
        enum hp_err err = hp_sqlite_error(s, code, "quick_check", reterr);
        if (err != HP_ERR_CORRUPT) {
            return err;
        }
        add_problem(check, table, 0, "pages are damaged");
    }
    return HP_OK;
}

static enum hp_err check_pages(struct hp_check *check, struct hp_sqlite *s, struct hp_error *reterr)
{
    sqlite3_stmt *stmt = NULL;
    char table[101] = "";
    int code = sqlite3_prepare_v2(
        s->db,
        "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name LIMIT 1 OFFSET ?1", -1,
        &stmt, NULL);
    if (code == SQLITE_OK) {
        hp_sqlite_bind_u64(stmt, 1, check->table_index);
        code = sqlite3_step(stmt);
        if (code == SQLITE_ROW) {
            (void)snprintf(table, sizeof(table), "%s", (const char *)sqlite3_column_text(stmt, 0));
        }
    }
    (void)sqlite3_finalize(stmt); /* its error is in `code` */
    if (code == SQLITE_DONE) {
        check->phase = HP_CHECK_BUCKETS;
        check->bucket = 0;
        return HP_OK;
    }
    if (code != SQLITE_ROW) {
        return hp_sqlite_error(s, code, "list tables", reterr);
    }
    check->table_index++;
    return quick_check(check, s, table, reterr);
}

/* ------------------------------------------------------------------ buckets */
static enum hp_err check_group(struct hp_check *check, struct hp_sqlite *s,
                               struct hp_bucket *bucket, sqlite3_stmt *stmt,
                               struct hp_error *reterr)
{
    struct hp_group_head head;
    sqlite3_stmt *pack_stmt HP_CLEANUP(hp_sqlite_reset_ptr) = NULL;
    uint64_t first = hp_sqlite_u64(stmt, 0);
    check->row_count++;
    check->next = first + 1;
    if (!hp_row_get_group(hp_sqlite_bin(stmt, 1), first, &head)) {
        add_problem(check, "group", first, "digest");
        return HP_OK;
    }
    check->group_count++;
    check->task_count += head.count;
    enum hp_err err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_GROUP_PACK, &pack_stmt, reterr);
    if (err != HP_OK) {
        return err;
    }
    hp_sqlite_bind_u64(pack_stmt, 1, first);
    err = hp_sqlite_step(s, pack_stmt, "read payloads", reterr);
    if (err != HP_OK) {
        return err;
    }
    struct hp_bin pack = hp_sqlite_bin(pack_stmt, 0);
    if (pack.size != head.pack_size ||
        hp_row_digest(pack.data, pack.size, HP_ROW_GROUP, first) != head.pack_digest) {
        add_problem(check, "group", first, "digest of its payloads");
    }
    return HP_OK;
}

static void check_results(struct hp_check *check, sqlite3_stmt *stmt)
{
    struct hp_result_run run;
    struct hp_result result;
    uint64_t first = hp_sqlite_u64(stmt, 0);
    check->row_count++;
    check->next = first + 1;
    if (!hp_result_run_open(&run, hp_sqlite_bin(stmt, 1), first) ||
        run.count != hp_sqlite_u64(stmt, 2)) {
        add_problem(check, "result", first, "digest");
        return;
    }
    check->ended_count += run.count;
    if (!hp_result_run_get(&run, first + run.count - 1, &result)) {
        add_problem(check, "result", first, "items");
    }
}

/* Compares what was counted with what the bucket's row says. */
static void end_bucket(struct hp_check *check, const struct hp_bucket *bucket)
{
    bool unchanged = check->bucket_changes == bucket->changes && bucket->emptied_below == 0;
    if (unchanged && check->problem_count == 0 &&
        (check->group_count != bucket->group_count || check->task_count != bucket->task_count)) {
        add_problem(check, "bucket", bucket->number, "its figures are not those of its rows");
    }
    check->bucket = bucket->number + 1;
    check->in_results = false;
    check->next = 0;
}

static enum hp_err check_buckets(struct hp_check *check, struct hp_sqlite *s,
                                 struct hp_error *reterr)
{
    uint32_t index = hp_sqlite_bucket_index(s, check->bucket);
    if (index == s->bucket_count) {
        check->phase = HP_CHECK_TABLES;
        check->table_index = 0;
        check->next = 0;
        return HP_OK;
    }
    struct hp_bucket *bucket = &s->buckets[index];
    if (check->bucket != bucket->number || (check->next == 0 && !check->in_results)) {
        check->bucket = bucket->number;
        check->in_results = false;
        check->next = bucket->number << HP_SQLITE_BUCKET_SHIFT;
        check->bucket_changes = bucket->changes;
        check->group_count = 0;
        check->task_count = 0;
        check->ended_count = 0;
    }
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = NULL;
    enum hp_err err = hp_sqlite_bucket_stmt(
        s, bucket, check->in_results ? HP_BUCKET_RESULT_FROM : HP_BUCKET_GROUP_FROM, &stmt, reterr);
    if (err != HP_OK) {
        return err;
    }
    hp_sqlite_bind_u64(stmt, 1, check->next);
    if (check->in_results) {
        hp_sqlite_bind_u64(stmt, 2, INT64_MAX);
    }
    for (uint32_t i = 0; i < CLOCK_ROWS; i++) {
        err = hp_sqlite_step(s, stmt, "check rows", reterr);
        if (err == HP_ERR_NOT_FOUND && check->in_results) {
            end_bucket(check, bucket);
            return HP_OK;
        }
        if (err == HP_ERR_NOT_FOUND) {
            check->in_results = true;
            check->next = bucket->number << HP_SQLITE_BUCKET_SHIFT;
            return HP_OK;
        }
        if (err != HP_OK) {
            return err;
        }
        if (hp_sqlite_u64(stmt, 0) < check->next) { /* or it would go round for ever */
            add_problem(check, check->in_results ? "result" : "group", hp_sqlite_u64(stmt, 0),
                        OUT_OF_ORDER);
            if (check->in_results) {
                end_bucket(check, bucket);
            } else {
                check->in_results = true;
                check->next = bucket->number << HP_SQLITE_BUCKET_SHIFT;
            }
            return HP_OK;
        }
        if (check->in_results) {
            check_results(check, stmt);
        } else {
            err = check_group(check, s, bucket, stmt, reterr);
            if (err != HP_OK) {
                return err;
            }
        }
    }
    return HP_OK;
}

/* ------------------------------------------------------------------ the other tables */
enum key_kind { KEY_NUMBER, KEY_PAIR, KEY_BYTES };

/* key columns first, then the row; a second row column for lanes. */
struct table_check {
    const char *name;
    const char *sql;
    enum key_kind kind;
    enum hp_row_table table;
};
static const struct table_check table_checks[] = {
    {"lane", "SELECT lane, cursor FROM lane WHERE lane >= ?1 ORDER BY lane", KEY_NUMBER,
     HP_ROW_LANE_CURSOR},
    {"lane", "SELECT lane, key FROM lane WHERE lane >= ?1 AND key IS NOT NULL ORDER BY lane",
     KEY_NUMBER, HP_ROW_LANE_KEY},
    {"segment",
     "SELECT lane, number, row FROM segment WHERE (lane, number) >= (?1, ?2) ORDER BY lane, number",
     KEY_PAIR, HP_ROW_SEGMENT},
    {"lease", "SELECT batch, row FROM lease WHERE batch >= ?1 ORDER BY batch", KEY_NUMBER,
     HP_ROW_LEASE},
    {"side", "SELECT first, row FROM side WHERE first >= ?1 ORDER BY first", KEY_NUMBER,
     HP_ROW_SIDE},
    {"expiry", "SELECT first, row FROM expiry WHERE first >= ?1 ORDER BY first", KEY_NUMBER,
     HP_ROW_EXPIRY},
    {"node", "SELECT number, row FROM node WHERE number >= ?1 ORDER BY number", KEY_NUMBER,
     HP_ROW_NODE},
    {"tomb", "SELECT first, row FROM tomb WHERE first >= ?1 ORDER BY first", KEY_NUMBER,
     HP_ROW_TOMB},
    {"ukey", "SELECT key, row FROM ukey WHERE key > ?1 ORDER BY key", KEY_BYTES, HP_ROW_UKEY},
    {"session", "SELECT id, row FROM session WHERE id > ?1 ORDER BY id", KEY_BYTES, HP_ROW_SESSION},
    {"queue", "SELECT name, row FROM queue WHERE name > ?1 ORDER BY name", KEY_BYTES, HP_ROW_QUEUE},
};

static void bind_cursor(const struct hp_check *check, const struct table_check *table,
                        sqlite3_stmt *stmt)
{
    if (table->kind == KEY_BYTES) {
        hp_sqlite_bind_row(stmt, 1, &check->next_bytes); /* empty at first: below all keys */
    } else if (table->kind == KEY_PAIR) {
        hp_sqlite_bind_u64(stmt, 1, check->next_high);
        hp_sqlite_bind_u64(stmt, 2, check->next);
    } else {
        hp_sqlite_bind_u64(stmt, 1, check->next);
    }
}

static void check_row(struct hp_check *check, const struct table_check *table, sqlite3_stmt *stmt)
{
    struct hp_row_in in;
    bool good = false;
    uint64_t key = 0;
    check->row_count++;
    if (table->kind == KEY_BYTES) {
        struct hp_bin bytes = hp_sqlite_bin(stmt, 0);
        hp_row_clear(&check->next_bytes);
        hp_row_put_raw(&check->next_bytes, bytes.data, bytes.size);
        key = hp_row_digest(bytes.data, bytes.size, table->table, 0);
        good = hp_row_open(&in, hp_sqlite_bin(stmt, 1), table->table, key);
    } else if (table->kind == KEY_PAIR) {
        uint32_t run_count = 0;
        check->next_high = hp_sqlite_u64(stmt, 0);
        key = hp_sqlite_u64(stmt, 1);
        check->next = key + 1;
        good = hp_row_open_segment(&in, hp_sqlite_bin(stmt, 2), (uint32_t)check->next_high, key,
                                   &run_count);
    } else {
        key = hp_sqlite_u64(stmt, 0);
        check->next = key + 1;
        good = hp_row_open(&in, hp_sqlite_bin(stmt, 1), table->table, key);
    }
    if (!good) {
        add_problem(check, table->name, key, "digest");
    }
}

/* A damaged tree may give rows before those that were asked for, again and again. */
static bool goes_back(const struct hp_check *check, const struct table_check *table,
                      sqlite3_stmt *stmt)
{
    if (table->kind == KEY_BYTES) {
        struct hp_bin key = hp_sqlite_bin(stmt, 0);
        size_t common = HP_MIN((size_t)key.size, check->next_bytes.size);
        int order = common > 0 ? memcmp(key.data, check->next_bytes.data, common) : 0;
        return order < 0 ||
               (order == 0 && key.size <= check->next_bytes.size && check->next_bytes.size > 0);
    }
    uint64_t first = hp_sqlite_u64(stmt, 0);
    if (table->kind == KEY_PAIR) {
        return first < check->next_high ||
               (first == check->next_high && hp_sqlite_u64(stmt, 1) < check->next);
    }
    return first < check->next;
}

static enum hp_err check_tables(struct hp_check *check, struct hp_sqlite *s,
                                struct hp_error *reterr)
{
    if (check->table_index == HP_COUNT_OF(table_checks)) {
        check->phase = HP_CHECK_BLOBS;
        check->next = 0;
        return HP_OK;
    }
    const struct table_check *table = &table_checks[check->table_index];
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(s->db, table->sql, -1, &stmt, NULL);
    if (code == SQLITE_OK) {
        bind_cursor(check, table, stmt);
        for (uint32_t i = 0; i < CLOCK_ROWS; i++) {
            code = sqlite3_step(stmt);
            if (code != SQLITE_ROW) {
                break;
            }
            if (goes_back(check, table, stmt)) {
                add_problem(check, table->name, 0, OUT_OF_ORDER);
                code = SQLITE_DONE;
                break;
            }
            check_row(check, table, stmt);
        }
    }
    (void)sqlite3_finalize(stmt); /* its error is in `code` */
    if (code == SQLITE_DONE) {
        check->table_index++;
        check->next = 0;
        check->next_high = 0;
        hp_row_clear(&check->next_bytes);
        return HP_OK;
    }
    return code == SQLITE_ROW ? HP_OK : hp_sqlite_error(s, code, "check rows", reterr);
}

/* ------------------------------------------------------------------ blobs */
static enum hp_err check_blobs(struct hp_check *check, struct hp_sqlite *s, struct hp_error *reterr)
{
    uint64_t blob = 0;
    uint64_t size = 0;
    uint64_t digest = 0;
    struct hp_error error = {0};
    if (s->stmts[HP_SQL_BLOB_FROM] == NULL) { /* offline, and no such table: that is told already */
        check->phase = HP_CHECK_DONE;
        return HP_OK;
    }
    {
        sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_BLOB_FROM];
        hp_sqlite_bind_u64(stmt, 1, check->next);
        enum hp_err err = hp_sqlite_step(s, stmt, "read blobs", reterr);
        if (err == HP_ERR_NOT_FOUND) {
            check->phase = HP_CHECK_DONE;
            return HP_OK;
        }
        if (err != HP_OK) {
            return err;
        }
        blob = hp_sqlite_u64(stmt, 0);
        if (blob < check->next) {
            add_problem(check, "blob", blob, OUT_OF_ORDER);
            check->phase = HP_CHECK_DONE;
            return HP_OK;
        }
    }
    check->next = blob + 1;
    check->blob_count++;
    if (hp_blob_stat(s->blob_dir, blob, &size, &digest, &error) != HP_OK) {
        add_problem(check, "blob", blob, error.text);
    }
    return HP_OK;
}

static enum hp_err check_some(struct hp_check *check, struct hp_sqlite *s, struct hp_error *reterr)
{
    switch (check->phase) {
    case HP_CHECK_PAGES:
        return check_pages(check, s, reterr);
    case HP_CHECK_BUCKETS:
        return check_buckets(check, s, reterr);
    case HP_CHECK_TABLES:
        return check_tables(check, s, reterr);
    case HP_CHECK_BLOBS:
        return check_blobs(check, s, reterr);
    case HP_CHECK_DONE:
        break;
    }
    return HP_OK;
}

enum hp_err hp_sqlite_check_step(struct hp_check *check, struct hp_sqlite *s, uint64_t deadline_us,
                                 struct hp_error *reterr)
{
    enum hp_err err = HP_OK;
    while (err == HP_OK && check->phase != HP_CHECK_DONE) {
        err = check_some(check, s, reterr);
        if (hp_clock_mono_us() >= deadline_us) {
            break;
        }
    }
    return err;
}
