/* SPDX-License-Identifier: BSD-2-Clause */
/* Forgetting in the SQLite store: files of blobs. */
#include "server/store/blob_file.h"
#include "tests/unit/store_fixture.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forgotten_blobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
