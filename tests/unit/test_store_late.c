/* SPDX-License-Identifier: BSD-2-Clause */
/* What a commit of a lone submit leaves for later: never written twice, never lost, never seen. */
#include "tests/unit/store_fixture.h"

#include "server/store/sqlite.h"

#define WALL INT64_C(1700000000000)

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    fixture_open(f, true);
    struct hp_batch *batch = begin_batch(f); /* makes the bucket and the lane */
    add_group(batch, 1, 10, 1, WALL, "options", "first");
    add_segment(batch, 1, 0, 1, 10, WALL);
    add_lane(batch, 1, "lane", 0, 1, 10);
    apply(f, batch);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture_close(*state);
    free(*state);
    return 0;
}

/* The first id is 11 + number, the segment 1 + number. */
static struct hp_batch *lone_submit(struct fixture *f, uint64_t number)
{
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 11 + number, 1, 1, WALL + 1, "options", "alone");
    add_segment(batch, 1, 1 + number, 11 + number, 1, WALL + 1);
    add_lane(batch, 1, "", 0, 2 + number, 11 + number);
    return batch;
}

static uint64_t segments_on_disk(struct fixture *f)
{
    uint64_t count = 0;
    assert_int_equal(
        hp_sqlite_query_u64(hp_sqlite_of(f->store), "SELECT count(*) FROM segment", &count, NULL),
        HP_OK);
    return count;
}

static uint64_t tasks_of(struct fixture *f)
{
    struct hp_store_figures figures;
    hp_store_figures(f->store, &figures);
    return figures.task_count;
}

static void expect_lane(struct fixture *f, unsigned run_count)
{
    char text[100];
    char *lane = TEXT_OF(print_lane(out, f->store, 1, 1, 0));
    for (unsigned i = 0; i < run_count; i++) {
        (void)snprintf(text, sizeof(text), "run %u+1 since=%" PRId64 " seg=%u\n", 11 + i, WALL + 1,
                       1 + i);
        assert_non_null(strstr(lane, text));
    }
    (void)snprintf(text, sizeof(text), "lane 1 next=%u\n", 1 + run_count);
    assert_non_null(strstr(lane, text));
    free(lane);
}

/* Seen by all who ask, and after a restart as if they had been written. */
static void test_seen(void **state)
{
    struct fixture *f = *state;
    for (uint64_t i = 0; i < 5; i++) {
        apply(f, lone_submit(f, i));
    }
    assert_int_equal(segments_on_disk(f), 1);
    assert_int_equal(tasks_of(f), 15);
    expect_lane(f, 5);
    char *lane = TEXT_OF(print_lane(out, f->store, 1, 3, 1)); /* from the middle, one at a time */
    assert_string_equal(lane, "run 13+1 since=1700000000001 seg=3\n"
                              "run 14+1 since=1700000000001 seg=4\n"
                              "run 15+1 since=1700000000001 seg=5\nlane 1 next=6\n");
    free(lane);
    for (int i = 0; i < 2; i++) { /* the second start finds nothing late */
        fixture_reopen(f);
        assert_int_equal(tasks_of(f), 15);
        char *text = TEXT_OF(print_recovery(out, f->store));
        assert_non_null(strstr(text, "lane 1 head=0 next=6 ready=15 key=lane"));
        free(text);
        assert_int_equal(segments_on_disk(f), 6);
        expect_lane(f, 5);
    }
}

/* The transaction of anything else writes them before it does anything. */
static void test_written(void **state)
{
    struct fixture *f = *state;
    apply(f, lone_submit(f, 0));
    apply(f, lone_submit(f, 1));
    struct hp_batch *batch = begin_batch(f);
    add_lane(batch, 1, "", 0, 3, 11); /* one of them is given out */
    add_lease(batch, 11, 11, 1);
    apply(f, batch);
    assert_int_equal(segments_on_disk(f), 3);
    fixture_reopen(f);
    char *text = TEXT_OF(print_recovery(out, f->store));
    assert_non_null(strstr(text, "lane 1 head=0 next=3 ready=11 key=lane"));
    assert_non_null(strstr(text, "lease 11 "));
    free(text);
    assert_int_equal(tasks_of(f), 12);
}

static void test_bounded(void **state)
{
    struct fixture *f = *state;
    /* No checkpoint between them: it would write them, too. */
    hp_sqlite_of(f->store)->frames_max = HP_SQLITE_CHECKPOINT_FRAMES;
    for (uint64_t i = 0; i < HP_LATE_MAX; i++) {
        apply(f, lone_submit(f, i));
    }
    assert_int_equal(segments_on_disk(f), 1);
    apply(f, lone_submit(f, HP_LATE_MAX));
    assert_int_equal(segments_on_disk(f), HP_LATE_MAX + 2);
    assert_int_equal(tasks_of(f), HP_LATE_MAX + 11);
    expect_lane(f, HP_LATE_MAX + 1);
}

/* Pages in the log: one of groups, one of sessions. */
static void test_pages(void **state)
{
    struct fixture *f = *state;
    struct hp_sqlite *s = hp_sqlite_of(f->store);
    s->frames_max = HP_SQLITE_CHECKPOINT_FRAMES;
    for (uint64_t i = 0; i < 10; i++) {
        uint32_t before = s->wal_frames;
        char state_text[20];
        struct hp_batch *batch = lone_submit(f, i);
        struct hp_op *op = hp_batch_add(batch, HP_OP_SESSION);
        (void)snprintf(state_text, sizeof(state_text), "reply %" PRIu64, i);
        op->session.id = hp_batch_copy(batch, "0123456789abcdef", 16);
        op->session.state = hp_batch_copy(batch, state_text, strlen(state_text));
        op->session.seen_at_ms = WALL;
        apply(f, batch);
        assert_true(i == 0 || s->wal_frames - before == 2); /* the first makes the session */
    }
    fixture_reopen(f);
    char *text = TEXT_OF(print_session(out, f->store, "0123456789abcdef"));
    assert_non_null(strstr(text, "state=reply 9"));
    free(text);
}

/* What does not follow from the group is written with it. */
static void test_refused(void **state)
{
    struct fixture *f = *state;
    struct hp_batch *batch = NULL;
    for (int what = 0; what < 7; what++) {
        uint64_t number = (uint64_t)what;
        batch = lone_submit(f, number);
        struct hp_op *group = &batch->ops[0];
        struct hp_op *segment = &batch->ops[1];
        struct hp_op *lane = &batch->ops[2];
        struct hp_id_run run = segment->segment.runs[0];
        segment->segment.runs = &run;
        switch (what) {
        case 0:
            run.since_ms++;
            break;
        case 1:
            lane->lane.key = bin_of("lane");
            break;
        case 2:
            lane->lane.ready_count--;
            break;
        case 3:
            add_side(batch, HP_SIDE_EXPIRY, 11 + number, 1, WALL);
            break;
        case 4:
            group->group.lane = 2;
            break;
        case 5:
            group->group.count = 2;
            break;
        default:
            lane->lane.head_segment = 1;
            break;
        }
        apply(f, batch);
        uint64_t written = what < 6 ? number + 2 : number + 1; /* the last one moves the head */
        assert_int_equal(segments_on_disk(f), written);
    }
}

/* A bucket row of schema 1 ends before `late_from`. */
static void test_old_row(void **state)
{
    struct fixture *f = *state;
    struct hp_sqlite *s = hp_sqlite_of(f->store);
    struct hp_row_out out = {0};
    const uint64_t figures[] = {1, 10, 0, 0, 0, 0};
    for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++) {
        if (i == 4) {
            hp_row_put_i64(&out, 0);
        } else {
            hp_row_put_u64(&out, figures[i]);
        }
    }
    hp_row_seal(&out, HP_ROW_BUCKET, 0);
    hp_sqlite_bind_u64(s->stmts[HP_SQL_BUCKET_PUT], 1, 0);
    hp_sqlite_bind_row(s->stmts[HP_SQL_BUCKET_PUT], 2, &out);
    assert_int_equal(hp_sqlite_run(s, s->stmts[HP_SQL_BUCKET_PUT], "write", NULL), HP_OK);
    assert_int_equal(hp_sqlite_exec(s, "PRAGMA user_version=1", NULL), HP_OK);
    hp_row_out_deinit(&out);
    fixture_reopen(f);
    uint64_t version = 0;
    s = hp_sqlite_of(f->store);
    assert_int_equal(hp_sqlite_query_u64(s, "PRAGMA user_version", &version, NULL), HP_OK);
    assert_int_equal(version, HP_SQLITE_SCHEMA);
    assert_int_equal(tasks_of(f), 10);
    apply(f, lone_submit(f, 0)); /* whole: the row does not tell yet from where on */
    assert_int_equal(segments_on_disk(f), 2);
    apply(f, lone_submit(f, 1));
    assert_int_equal(segments_on_disk(f), 2);
    fixture_reopen(f);
    assert_int_equal(tasks_of(f), 12);
    expect_lane(f, 2);
}

/* A late group that is damaged is told, never left out: its tasks would be forgotten. */
static void test_damaged(void **state)
{
    struct fixture *f = *state;
    apply(f, lone_submit(f, 0));
    assert_int_equal(hp_sqlite_exec(hp_sqlite_of(f->store),
                                    "UPDATE group_0 SET head = zeroblob(40) WHERE first = 11",
                                    NULL),
                     HP_OK);
    hp_store_close(f->store);
    struct hp_error error = {0};
    assert_int_equal(fixture_open_dir(f->dir, false, &f->store, &error), HP_ERR_CORRUPT);
    assert_non_null(strstr(error.text, "row 11 of group"));
    f->store = hp_store_mem_new(); /* for the teardown */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_written, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_row, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
