/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What SQLite takes for the rows of W1, without anything around it: limit_sqlite DIR [TASKS]
 *
 * A task is a row when it comes and a row when it ends, each of 100 bytes and a few columns, both
 * at the right edge of their table; the ends of one batch share the commit of the next batch's
 * tasks. Pragmas are the broker's. Printed for several sizes of commit: tasks a second (pairs of
 * rows); and rows a second of inserts alone.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/programs/common.h"

#define BODY_BYTES 100
#define SECONDS_MAX 4.0 /* for each size of commit; one task a commit is steady much sooner */
#define SECONDS_MAX_SINGLE 1.0

struct base {
    sqlite3 *db;
    sqlite3_stmt *begin;
    sqlite3_stmt *commit;
    sqlite3_stmt *task;
    sqlite3_stmt *end;
    char path[4096];
};

static const char body[BODY_BYTES];

static void run(struct base *base, const char *sql)
{
    if (sqlite3_exec(base->db, sql, NULL, NULL, NULL) != SQLITE_OK) {
        bench_fail(sql, sqlite3_errmsg(base->db));
    }
}

static sqlite3_stmt *prepare(struct base *base, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(base->db, sql, -1, &statement, NULL) != SQLITE_OK) {
        bench_fail(sql, sqlite3_errmsg(base->db));
    }
    return statement;
}

static void step(struct base *base, sqlite3_stmt *statement)
{
    if (sqlite3_step(statement) != SQLITE_DONE) {
        bench_fail("step", sqlite3_errmsg(base->db));
    }
    (void)sqlite3_reset(statement); /* says again what step said */
}

static void remove_files(const struct base *base)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        char name[4200];
        (void)snprintf(name, sizeof(name), "%s%s", base->path, suffixes[i]);
        (void)unlink(name); /* may not be there */
    }
}

static void open_base(struct base *base, const char *dir)
{
    (void)snprintf(base->path, sizeof(base->path), "%s/limit-sqlite-%d", dir, (int)getpid());
    remove_files(base);
    if (sqlite3_open(base->path, &base->db) != SQLITE_OK) {
        bench_fail(base->path, "cannot be opened");
    }
    run(base, "PRAGMA page_size=16384");
    run(base, "PRAGMA locking_mode=EXCLUSIVE");
    run(base, "PRAGMA journal_mode=WAL");
    run(base, "PRAGMA synchronous=FULL");
    run(base, "CREATE TABLE task (id INTEGER PRIMARY KEY, lane INTEGER, state INTEGER,"
              " created_ms INTEGER, payload BLOB)");
    run(base, "CREATE TABLE ended (id INTEGER PRIMARY KEY, state INTEGER, attempt INTEGER,"
              " ended_ms INTEGER, result BLOB)");
    base->begin = prepare(base, "BEGIN IMMEDIATE");
    base->commit = prepare(base, "COMMIT");
    base->task = prepare(base, "INSERT INTO task VALUES (?, 1, 1, ?, ?)");
    base->end = prepare(base, "INSERT INTO ended VALUES (?, 9, 1, ?, ?)");
}

static void close_base(struct base *base)
{
    (void)sqlite3_finalize(base->begin);
    (void)sqlite3_finalize(base->commit);
    (void)sqlite3_finalize(base->task);
    (void)sqlite3_finalize(base->end);
    (void)sqlite3_close(base->db);
    remove_files(base);
}

static void insert(struct base *base, sqlite3_stmt *statement, uint64_t id)
{
    (void)sqlite3_bind_int64(statement, 1, (sqlite3_int64)id); /* these cannot fail */
    (void)sqlite3_bind_int64(statement, 2, 1700000000000 + (sqlite3_int64)(id / 1000));
    (void)sqlite3_bind_blob(statement, 3, body, BODY_BYTES, SQLITE_STATIC);
    step(base, statement);
}

static void measure(const char *dir, uint64_t tasks, uint64_t batch, bool with_ends)
{
    struct base base = {0};
    char name[64];
    uint64_t made = 0;
    uint64_t ended = 0;
    const double seconds_max = batch == 1 ? SECONDS_MAX_SINGLE : SECONDS_MAX;
    open_base(&base, dir);
    uint64_t begin_ns = bench_now_ns();
    while ((with_ends ? ended : made) < tasks &&
           (double)(bench_now_ns() - begin_ns) < seconds_max * 1e9) {
        uint64_t before = made;
        step(&base, base.begin);
        for (uint64_t i = 0; i < batch && made < tasks; i++) {
            insert(&base, base.task, ++made);
        }
        while (with_ends && ended < (made < tasks ? before : made)) {
            insert(&base, base.end, ++ended);
        }
        step(&base, base.commit);
    }
    (void)snprintf(name, sizeof(name), "sqlite_%s_%llu", with_ends ? "tasks" : "rows",
                   (unsigned long long)batch);
    bench_print_rate(name, (double)(with_ends ? ended : made),
                     (double)(bench_now_ns() - begin_ns) / 1e9);
    close_base(&base);
}

int main(int argc, char **argv)
{
    static const uint64_t batches[] = {1, 100, 1000, 5000};
    if (argc < 2 || argc > 3) {
        (void)fprintf(stderr, "usage: limit_sqlite DIR [TASKS]\n");
        return 2;
    }
    uint64_t tasks = argc > 2 ? bench_number(argv[2]) : 400000;
    bench_limit_time(120);
    for (size_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++) {
        measure(argv[1], tasks, batches[i], false);
        measure(argv[1], tasks, batches[i], true);
    }
    return 0;
}
