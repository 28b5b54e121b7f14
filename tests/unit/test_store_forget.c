/* SPDX-License-Identifier: BSD-2-Clause */
/* Forgetting in the SQLite store: files of blobs, what is told of the forgotten without memory. */
#include "server/store/blob_file.h"
#include "tests/unit/store_fixture.h"

#include <sqlite3.h>

#define WALL INT64_C(1700000000000)

static void put_blob_file(const struct fixture *f, uint64_t blob)
{
    char blob_dir[300];
    struct hp_blob_writer *writer = NULL;
    (void)snprintf(blob_dir, sizeof(blob_dir), "%s/blobs", f->dir);
    assert_int_equal(hp_blob_writer_new(blob_dir, blob, 5, &writer, NULL), HP_OK);
    assert_int_equal(hp_blob_writer_append(writer, "12345", 5, NULL), HP_OK);
    assert_int_equal(hp_blob_writer_finish(writer, NULL), HP_OK);
    hp_blob_writer_free(writer);
}

static bool has_blob(const struct fixture *f, uint64_t blob)
{
    char blob_dir[300];
    uint64_t size = 0;
    uint64_t digest = 0;
    (void)snprintf(blob_dir, sizeof(blob_dir), "%s/blobs", f->dir);
    return hp_blob_stat(blob_dir, blob, &size, &digest, NULL) == HP_OK;
}

static void test_forgotten_blobs(void **state)
{
    (void)state;
    struct fixture fixture;
    struct fixture *f = &fixture;
    fixture_open(f, true);
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 1, 2, 1, WALL, "o", "p");
    for (uint64_t blob = 5; blob <= 204; blob++) { /* more than a slice removes */
        put_blob_file(f, blob);
        struct hp_op *op = hp_batch_add(batch, HP_OP_BLOB);
        op->blob.blob = blob;
        op->blob.owner = blob == 6 ? 2 : blob == 7 ? 900 : 1;
    }
    add_result(batch, 1, 1, 1, WALL + 100, "e");
    struct hp_id_span span = {1, 2};
    struct hp_op *op = hp_batch_add(batch, HP_OP_FORGET);
    op->forget.spans = hp_arena_copy(&batch->arena, &span, sizeof(span));
    op->forget.span_count = 1;
    op->forget.wall_ms = WALL;
    apply(f, batch);
    run_idle(f);
    assert_false(has_blob(f, 5)); /* its task has ended and is forgotten */
    assert_false(has_blob(f, 204));
    assert_true(has_blob(f, 6)); /* lives */
    assert_true(has_blob(f, 7)); /* of a task kept in memory */
    fixture_reopen(f);
    run_idle(f);
    assert_true(has_blob(f, 6));
    assert_false(has_blob(f, 7)); /* which the restart lost */
    fixture_close(f);
}

#define ENDED 120u

static uint32_t state_of(uint64_t id)
{
    return id % 3 == 0 ? 2 : 1;
}

/* A group whose tasks ended in turns, so that its tombstone takes more than one allocation. */
static void forget_group(struct fixture *f)
{
    struct hp_batch *batch = begin_batch(f);
    struct hp_id_span span = {1, ENDED};
    add_group(batch, 1, ENDED, 1, WALL, "o", "p");
    for (uint64_t id = 1; id <= ENDED; id++) {
        add_result(batch, id, 1, state_of(id), WALL + 100, "e");
    }
    struct hp_op *op = hp_batch_add(batch, HP_OP_FORGET);
    op->forget.spans = hp_arena_copy(&batch->arena, &span, sizeof(span));
    op->forget.span_count = 1;
    op->forget.wall_ms = WALL;
    apply(f, batch);
}

/* Each end is told as it was, whether the task is still there or only its tombstone; true: gone. */
static bool ends_are_right(struct hp_store *store)
{
    struct hp_load *load = hp_load_new(HP_LOAD_TASKS);
    load->spans = calloc(1, sizeof(*load->spans));
    load->spans[0] = (struct hp_id_span){1, ENDED};
    load->span_count = 1;
    struct hp_loaded *loaded = run_load(store, load);
    assert_int_equal(loaded->err, HP_OK);
    assert_int_equal(loaded->task_count, ENDED);
    uint32_t gone = 0;
    for (uint32_t i = 0; i < ENDED; i++) {
        const struct hp_loaded_task *task = &loaded->tasks[i];
        assert_true(task->ended || task->gone);
        assert_int_equal(task->result.state, state_of(task->id));
        gone += task->gone;
    }
    assert_true(gone == 0 || gone == ENDED);
    hp_loaded_free(loaded);
    return gone == ENDED;
}

/* The n-th allocation fails while the group is forgotten, for n = 1, 2, 3 ... until none does. */
static void test_forgetting_without_memory(void **state)
{
    (void)state;
    bool failed = true;
    uint32_t refused = 0;
    for (uint64_t n = 1; failed; n++) {
        struct fixture f;
        struct hp_error error = {0};
        bool more = true;
        enum hp_err err = HP_OK;
        fixture_open(&f, true);
        forget_group(&f);
        hp_mem_fail_at(n, false);
        while (more && err == HP_OK) {
            err = hp_store_idle(f.store, &more, &error);
        }
        failed = hp_mem_fail_count() > 0;
        hp_mem_fail_at(0, false);
        refused += err != HP_OK;
        assert_true(err == HP_OK || err == HP_ERR_NOMEM);
        fixture_reopen(&f);
        bool gone = ends_are_right(f.store);
        assert_true(gone || err != HP_OK);
        run_idle(&f); /* a request that the crash lost is left to retention */
        (void)ends_are_right(f.store);
        fixture_close(&f);
    }
    assert_true(refused > 0);
}

#define KEPT 60u

static bool result_is_there(struct hp_store *store, uint64_t id)
{
    struct hp_load *load = hp_load_new(HP_LOAD_TASKS);
    load->spans = calloc(1, sizeof(*load->spans));
    load->spans[0] = (struct hp_id_span){id, 1};
    load->span_count = 1;
    struct hp_loaded *loaded = run_load(store, load);
    assert_int_equal(loaded->task_count, 1);
    bool is_there = loaded->tasks[0].ended && !loaded->tasks[0].gone;
    hp_loaded_free(loaded);
    return is_there;
}

static void add_ended(struct fixture *f, uint64_t id, int64_t expires_ms)
{
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, id, 1, 1, WALL, "o", "p");
    add_result(batch, id, 1, 1, expires_ms, "e");
    apply(f, batch);
}

/* A store in which each step of retention is a slice. */
static void open_stepping(struct fixture *f)
{
    struct hp_error error = {0};
    fixture_open(f, true);
    hp_store_close(f->store);
    struct hp_store_options options = {.dir = f->dir,
                                       .reap_slice_us = 1,
                                       .reap_restless = true,
                                       .answer_slice_us = STORE_FIXTURE_ANSWER_US};
    assert_int_equal(hp_store_sqlite_open(&options, &f->store, &error), HP_OK);
}

/* Runs a pass of retention; tasks from `id` on come and end between its slices, the first one
 * behind so many; the id after the last. */
static uint64_t reap_while_they_come(struct fixture *f, uint64_t id, uint32_t after)
{
    struct hp_error error = {0};
    struct hp_batch *batch = begin_batch(f);
    bool more = true;
    hp_batch_add(batch, HP_OP_REAP)->reap.wall_ms = WALL + 10;
    apply(f, batch);
    for (uint32_t slices = 1; more; slices++) {
        assert_int_equal(hp_store_idle(f->store, &more, &error), HP_OK);
        if (slices % 16 == after) {
            add_ended(f, id++, WALL + 1000000);
        }
    }
    return id;
}

static void assert_there(struct fixture *f, uint64_t first, uint64_t end)
{
    for (uint64_t id = first; id < end; id++) {
        assert_true(result_is_there(f->store, id));
    }
}

/* Retention works in slices; tasks come and end between two of them, wherever it stands. */
static void test_results_that_come_during_retention(void **state)
{
    (void)state;
    struct fixture f;
    open_stepping(&f);
    add_ended(&f, 1, WALL + 5); /* so that there is something to do */
    for (uint64_t id = 2; id <= KEPT; id++) {
        add_ended(&f, id, WALL + 1000000);
    }
    uint64_t end = reap_while_they_come(&f, KEPT + 1, 0);
    assert_true(end > KEPT + 4);
    assert_false(result_is_there(f.store, 1));
    assert_there(&f, 2, end);
    fixture_close(&f);
}

/* The same where all that there was has been forgotten. */
static void test_results_that_come_to_an_empty_bucket(void **state)
{
    (void)state;
    struct fixture f;
    open_stepping(&f);
    add_ended(&f, 1, WALL + 1000000);
    struct hp_batch *batch = begin_batch(&f);
    struct hp_id_span span = {1, 1};
    struct hp_op *op = hp_batch_add(batch, HP_OP_FORGET);
    op->forget.spans = hp_arena_copy(&batch->arena, &span, sizeof(span));
    op->forget.span_count = 1;
    op->forget.wall_ms = WALL;
    apply(&f, batch);
    run_idle(&f);
    uint64_t end = reap_while_they_come(&f, 2, 3);
    assert_true(end > 2);
    assert_there(&f, 2, end);
    fixture_close(&f);
}

/* As the file has them; the store is opened again for it. */
static int result_rows(struct fixture *f)
{
    char path[300];
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    struct hp_error error = {0};
    hp_store_close(f->store);
    (void)snprintf(path, sizeof(path), "%s/hostpool.db", f->dir);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM result_0", -1, &stmt, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    int rows = sqlite3_column_int(stmt, 0);
    (void)sqlite3_finalize(stmt);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(fixture_open_dir(f->dir, false, &f->store, &error), HP_OK);
    return rows;
}

/* What a crash left of groups that retention had deleted goes with a later pass. */
static void test_results_without_a_group_go(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, true);
    struct hp_batch *batch = begin_batch(&f);
    add_group(batch, 1, 1, 1, WALL, "o", "p");
    add_result(batch, 1, 1, 1, WALL + 5, "e");
    add_result(batch, 7, 1, 1, WALL + 5, "e");
    apply(&f, batch);
    assert_int_equal(result_rows(&f), 2);
    reap(&f, WALL + 10);
    assert_int_equal(result_rows(&f), 0);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forgotten_blobs),
        cmocka_unit_test(test_forgetting_without_memory),
        cmocka_unit_test(test_results_that_come_during_retention),
        cmocka_unit_test(test_results_that_come_to_an_empty_bucket),
        cmocka_unit_test(test_results_without_a_group_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
