/* SPDX-License-Identifier: BSD-2-Clause */
/* What retention must leave: whole buckets that are not wholly expired, sessions in use. */
#include "tests/unit/store_fixture.h"

#define WALL INT64_C(1700000000000)
#define HOUR_MS INT64_C(3600000)
#define BUCKET (UINT64_C(1) << 20)

static int setup_sqlite(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    fixture_open(f, true);
    *state = f;
    return 0;
}

static int setup_mem(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    fixture_open(f, false);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture_close(*state);
    free(*state);
    return 0;
}

/* Two tasks of the first bucket ended alike; the third one as `last` says (0: it lives). */
static void fill(struct fixture *f, int64_t last_expires_ms)
{
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 10, 1, 1, WALL, "o", "p");
    add_group(batch, 11, 1, 1, WALL, "o", "p");
    add_group(batch, 12, 1, 1, WALL, "o", "p");
    add_group(batch, BUCKET + 1, 1, 1, WALL, "o", "p"); /* no more come to the first one */
    apply(f, batch);
    batch = begin_batch(f);
    add_result(batch, 10, 1, 1, WALL + 100, "e");
    add_result(batch, 11, 1, 1, WALL + 100, "e");
    if (last_expires_ms != 0) {
        add_result(batch, 12, 1, 1, last_expires_ms, "e");
    }
    apply(f, batch);
}

static void expect_last(struct fixture *f, const char *wanted, uint64_t task_count)
{
    struct hp_store_figures figures;
    char *text = TEXT_OF(print_tasks(out, f->store, 12, 1));
    if (strstr(text, wanted) == NULL) {
        fail_msg("%s is not in %s", wanted, text);
    }
    free(text);
    text = TEXT_OF(print_tasks(out, f->store, 10, 1));
    assert_non_null(strstr(text, "task 10 gone"));
    free(text);
    hp_store_figures(f->store, &figures);
    assert_int_equal(figures.task_count, task_count);
}

static void test_a_bucket_with_a_later_end(void **state)
{
    struct fixture *f = *state;
    fill(f, WALL + HOUR_MS);
    reap(f, WALL + 1000);
    expect_last(f, "ended 12+1", 2);
    fixture_reopen(f);
    expect_last(f, "ended 12+1", 2);
    reap(f, WALL + HOUR_MS);
    expect_last(f, "task 12 gone", 1);
}

static void test_a_bucket_with_a_task_that_lives(void **state)
{
    struct fixture *f = *state;
    fill(f, 0);
    reap(f, WALL + 1000);
    expect_last(f, "task 12 in 12+1", 2);
    fixture_reopen(f);
    reap(f, WALL + 1000 * HOUR_MS);
    char *text = TEXT_OF(print_tasks(out, f->store, 12, 1));
    assert_non_null(strstr(text, "task 12 in 12+1"));
    free(text);
}

static void test_sessions_are_kept_a_day(void **state)
{
    struct fixture *f = *state;
    static const char id[] = "0123456789abcdef";
    struct hp_batch *batch = begin_batch(f);
    struct hp_op *op = hp_batch_add(batch, HP_OP_SESSION);
    op->session.id = hp_batch_copy(batch, id, 16);
    op->session.state = hp_batch_copy(batch, "numbers", 7);
    op->session.seen_at_ms = WALL;
    apply(f, batch);
    reap(f, WALL + HP_STORE_SESSION_MS - 1);
    char *text = TEXT_OF(print_session(out, f->store, id));
    assert_non_null(strstr(text, "found=1"));
    free(text);
    reap(f, WALL + HP_STORE_SESSION_MS + 1);
    text = TEXT_OF(print_session(out, f->store, id));
    assert_non_null(strstr(text, "found=0"));
    free(text);
}

static void note_batch(void *context, const struct hp_record *record)
{
    if (record->kind == HP_RECORD_META) {
        *(uint64_t *)context = record->meta.last_batch;
    }
}

/* A number names the leases of one batch: it is not given out again. */
static void test_batch_numbers_go_on(void **state)
{
    struct fixture *f = *state;
    struct hp_error error = {0};
    uint64_t last = 0;
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 10, 2, 1, WALL, "o", "p");
    apply(f, batch);
    for (int i = 0; i < 5; i++) {
        batch = begin_batch(f);
        add_lease(batch, 10, 10, 1 + (uint32_t)i);
        apply(f, batch);
    }
    uint64_t given = f->batch;
    fixture_reopen(f);
    assert_int_equal(hp_store_recover(f->store, note_batch, &last, &error), HP_OK);
    assert_true(last >= given);
}

#define BOTH(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, setup_mem, teardown),                                    \
        cmocka_unit_test_setup_teardown(name, setup_sqlite, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_a_bucket_with_a_later_end),
        BOTH(test_a_bucket_with_a_task_that_lives),
        BOTH(test_sessions_are_kept_a_day),
        BOTH(test_batch_numbers_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
