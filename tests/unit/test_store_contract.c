/* SPDX-License-Identifier: BSD-2-Clause */
/* The store's contract: every case on both stores. Random histories: tests/property/test_store.c.
 */
#include "server/store/row.h"
#include "tests/unit/store_fixture.h"

#define WALL INT64_C(1700000000000)

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

/* ------------------------------------------------------------------ cases */
static void test_fresh(void **state)
{
    struct fixture *f = *state;
    expect_text(TEXT_OF(print_recovery(out, f->store)),
                "meta epoch=1 id=1 blob=1 grace=0 sides=0 delayed=0\n");
    fixture_reopen(f);
    expect_text(TEXT_OF(print_recovery(out, f->store)),
                "meta epoch=2 id=1 blob=1 grace=0 sides=0 delayed=0\n");
    expect_text(TEXT_OF(print_list(out, f->store, false, 0, 10)), "");
    expect_text(TEXT_OF(print_tasks(out, f->store, 5, 2)), "task 5\ntask 6\n");
    expect_text(TEXT_OF(print_lane(out, f->store, 3, 0, 0)), "lane 3 next=0\n");
}

static void test_groups(void **state)
{
    struct fixture *f = *state;
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 10, 5, 1, WALL, "opt-a", "pack-a");
    add_group(batch, 20, 1, 2, WALL + 1, "opt-b", "");
    apply(f, batch);
    expect_text(TEXT_OF(print_groups(out, f->store, 1, 100)),
                "group 10+5 lane=1 options=opt-a pack=pack-a\n"
                "group 20+1 lane=2 options=opt-b pack=\n");
    expect_text(TEXT_OF(print_groups(out, f->store, 12, 2)),
                "group 10+5 lane=1 options=opt-a pack=pack-a\n");
    expect_text(TEXT_OF(print_groups(out, f->store, 15, 5)), "");
    expect_text(TEXT_OF(print_tasks(out, f->store, 14, 2)),
                "task 14 in 10+5 lane=1 at=1700000000000 pack=6 session=0123456789abcdef"
                " options=opt-a\ntask 15\n");
    struct hp_store_figures figures;
    hp_store_figures(f->store, &figures);
    assert_int_equal(figures.group_count, 2);
    assert_int_equal(figures.task_count, 6);
}

/* What does not fit one answer is told as more, and where it goes on. */
static void test_groups_in_parts(void **state)
{
    struct fixture *f = *state;
    struct hp_batch *batch = begin_batch(f);
    char pack[4001];
    memset(pack, 'p', 4000);
    pack[4000] = '\0';
    for (uint64_t id = 1; id <= 10; id++) {
        add_group(batch, id, 1, 1, WALL, "o", pack);
    }
    apply(f, batch);
    uint64_t from = 1;
    uint32_t rounds = 0;
    while (from <= 10) {
        struct hp_load *load = hp_load_new(HP_LOAD_GROUPS);
        load->spans = calloc(1, sizeof(*load->spans));
        load->spans[0] = (struct hp_id_span){.first = from, .count = (uint32_t)(11 - from)};
        load->span_count = 1;
        load->bytes_max = 10000;
        struct hp_loaded *loaded = run_load(f->store, load);
        assert_true(loaded->group_count >= 1 && loaded->group_count <= 4);
        for (uint32_t i = 0; i < loaded->group_count; i++) {
            assert_int_equal(loaded->groups[i].first, from + i);
            assert_int_equal(loaded->groups[i].pack.size, 4000);
        }
        from += loaded->group_count;
        assert_int_equal(loaded->more, from <= 10);
        assert_true(!loaded->more || loaded->next == from);
        hp_loaded_free(loaded);
        rounds++;
    }
    assert_true(rounds >= 3);
}

static void test_results(void **state)
{
    struct fixture *f = *state;
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 10, 10, 1, WALL, "o", "p");
    apply(f, batch);
    batch = begin_batch(f);
    add_result(batch, 14, 1, 2, WALL, "end-14"); /* out of order, with a gap */
    add_result(batch, 12, 1, 1, WALL, "end-12");
    add_result(batch, 13, 1, 1, WALL, "");
    add_result(batch, 17, 3, 3, WALL, "");
    apply(f, batch);
    char *text = TEXT_OF(print_tasks(out, f->store, 11, 10));
    assert_non_null(strstr(text, "task 11 in 10+10 lane=1 at=1700000000000 pack=1"
                                 " session=0123456789abcdef options=o\n"));
    assert_non_null(strstr(text, "ended 12+1 s=1 r=2 a=1 f=0 l=0 n=7 5012..6024 x=1700000000000"
                                 " end=end-12\n"));
    assert_non_null(strstr(text, "ended 13+1 s=1 r=2 a=2 f=0 l=0 n=7 5013..6026 x=1700000000000"
                                 " end=\n"));
    assert_non_null(strstr(text, "ended 14+1 s=2 r=3 a=3 f=0 l=0 n=7 5014..6028 x=1700000000000"
                                 " end=end-14\n"));
    assert_non_null(strstr(text, "ended 19+1 s=3 r=4 a=3 f=0 l=0 n=7 5017..6034 x=1700000000000"));
    assert_null(strstr(text, "ended 15"));
    free(text);
    text = TEXT_OF(print_list(out, f->store, true, 0, 3));
    assert_non_null(strstr(text, "task 16"));
    assert_non_null(strstr(text, "task 15"));
    assert_non_null(strstr(text, "task 11"));
    assert_non_null(strstr(text, "task 10"));
    assert_null(strstr(text, "ended"));
    free(text);
}

static void test_list(void **state)
{
    struct fixture *f = *state;
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 1, 2, 1, WALL, "old", "p");
    add_group(batch, 5, 2, 1, WALL + 10, "new", "p");
    add_group(batch, (UINT64_C(1) << 20) + 3, 1, 1, WALL + 20, "far", "p"); /* another bucket */
    apply(f, batch);
    char *all = TEXT_OF(print_list(out, f->store, false, 0, 2));
    const char *order[] = {"task 1048579", "task 6", "task 5", "task 2", "task 1"};
    const char *at = all;
    for (size_t i = 0; i < 5; i++) {
        at = strstr(at, order[i]);
        assert_non_null(at);
    }
    free(all);
    all = TEXT_OF(print_list(out, f->store, false, WALL + 10, 1));
    assert_non_null(strstr(all, "task 5"));
    assert_null(strstr(all, "task 2 "));
    free(all);
}

static void test_lanes(void **state)
{
    struct fixture *f = *state;
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 1, 100, 1, WALL, "o", "p");
    add_group(batch, 101, 50, 1, WALL, "o", "p");
    add_segment(batch, 1, 0, 1, 100, WALL);
    add_segment(batch, 1, 1, 101, 50, WALL + 1);
    add_segment(batch, 1, 2, 500, 5, WALL + 2); /* no group: gone */
    add_lane(batch, 1, "lane-key", 0, 3, 150);
    apply(f, batch);
    expect_text(TEXT_OF(print_lane(out, f->store, 1, 0, 0)),
                "run 1+100 since=1700000000000 seg=0\nrun 101+50 since=1700000000001 seg=1\n"
                "lane 1 next=3\n");
    expect_text(TEXT_OF(print_lane(out, f->store, 1, 1, 1)),
                "run 101+50 since=1700000000001 seg=1\nlane 1 next=3\n");
    batch = begin_batch(f);
    add_result(batch, 10, 1, 1, WALL, "x");
    add_side(batch, HP_SIDE_RETURNED, 20, 1, WALL);
    add_side(batch, HP_SIDE_BURIED, 30, 1, 0);
    add_side(batch, HP_SIDE_CANCELLING, 40, 1, 0);
    add_side(batch, HP_SIDE_EXPIRY, 1, 100, WALL + 99);
    add_side(batch, HP_SIDE_DELAYED, 101, 50, WALL + 50);
    apply(f, batch);
    expect_text(TEXT_OF(print_lane(out, f->store, 1, 0, 0)),
                "run 1+9 since=1700000000000 seg=0\nrun 11+9 since=1700000000000 seg=0\n"
                "run 21+9 since=1700000000000 seg=0\nrun 31+70 since=1700000000000 seg=0\n"
                "lane 1 next=3\n");
    batch = begin_batch(f);
    add_lane(batch, 1, "", 1, 3, 49); /* key unchanged, the first segment goes */
    add_side_del(batch, 101, false);
    apply(f, batch);
    expect_text(TEXT_OF(print_lane(out, f->store, 1, 0, 0)),
                "run 101+50 since=1700000000001 seg=1\nlane 1 next=3\n");
    fixture_reopen(f);
    char *text = TEXT_OF(print_recovery(out, f->store));
    assert_non_null(strstr(text, "lane 1 head=1 next=3 ready=49 key=lane-key\n"));
    free(text);
    batch = begin_batch(f);
    hp_batch_add(batch, HP_OP_LANE_DEL)->lane.lane = 1;
    apply(f, batch);
    expect_text(TEXT_OF(print_lane(out, f->store, 1, 0, 0)), "lane 1 next=0\n");
}

static void test_leases(void **state)
{
    struct fixture *f = *state;
    struct hp_batch *batch = begin_batch(f); /* 1 */
    add_group(batch, 1, 20, 1, WALL, "opt", "p");
    apply(f, batch);
    batch = begin_batch(f); /* 2 */
    for (uint64_t id = 1; id <= 6; id++) {
        add_lease(batch, id, 1, 1);
    }
    apply(f, batch);
    batch = begin_batch(f); /* 3: 1 ends, 2 returns, 3 is buried, 4 is being cancelled */
    add_result(batch, 1, 1, 1, WALL, "x");
    add_side(batch, HP_SIDE_RETURNED, 2, 1, WALL);
    add_side(batch, HP_SIDE_BURIED, 3, 1, 0);
    add_side(batch, HP_SIDE_CANCELLING, 4, 1, 0);
    add_side(batch, HP_SIDE_RETURNED, 5, 1, WALL);
    apply(f, batch);
    batch = begin_batch(f); /* 4: 5 is leased again */
    add_side_del(batch, 5, false);
    add_lease(batch, 5, 1, 2);
    apply(f, batch);
    fixture_reopen(f);
    char *text = TEXT_OF(print_recovery(out, f->store));
    assert_null(strstr(text, "lease 1 "));
    assert_null(strstr(text, "lease 2 "));
    assert_null(strstr(text, "lease 3 "));
    assert_non_null(strstr(text,
                           "lease 4 batch=2 epoch=3 group=1+20 a=1 n=7 lane=1 f=0 l=0 r=0"
                           " at=1004 made=1700000000000 session=0123456789abcdef options=opt\n"));
    assert_non_null(strstr(text, "lease 5 batch=4 "));
    assert_null(strstr(text, "lease 5 batch=2 "));
    assert_non_null(strstr(text, "lease 6 batch=2 "));
    assert_non_null(strstr(text, "side 3+1 kind=3"));
    assert_non_null(strstr(text, "side 4+1 kind=4"));
    assert_null(strstr(text, "kind=2"));
    assert_non_null(strstr(text, "sides=1 delayed=1\n"));
    free(text);
    batch = begin_batch(f);
    hp_batch_add(batch, HP_OP_LEASE_DEL)->lease_del.batch = 4;
    add_result(batch, 5, 1, 1, WALL, "");
    apply(f, batch);
    fixture_reopen(f);
    text = TEXT_OF(print_recovery(out, f->store));
    assert_null(strstr(text, "lease 5 "));
    free(text);
}

/* Leases that begin and end in one transaction leave nothing; others of the same batches stay. */
static void test_brief_leases(void **state)
{
    struct fixture *f = *state;
    struct hp_error error = {0};
    struct hp_batch *batches[3];
    for (uint32_t i = 0; i < HP_COUNT_OF(batches); i++) {
        batches[i] = begin_batch(f); /* 1, 2, 3 */
    }
    add_group(batches[0], 1, 20, 1, WALL, "opt", "p");
    add_lease(batches[0], 1, 1, 1);
    add_result(batches[1], 1, 1, 1, WALL, "x");
    hp_batch_add(batches[1], HP_OP_LEASE_DEL)->lease_del.batch = 1;
    add_lease(batches[1], 2, 1, 1);
    add_lease(batches[2], 3, 1, 1);
    assert_int_equal(hp_store_apply(f->store, batches, 3, &error), HP_OK);
    for (uint32_t i = 0; i < HP_COUNT_OF(batches); i++) {
        hp_batch_free(batches[i]);
    }
    struct hp_batch *batch = begin_batch(f); /* 4: an earlier transaction's lease is not brief */
    add_result(batch, 3, 1, 1, WALL, "x");
    hp_batch_add(batch, HP_OP_LEASE_DEL)->lease_del.batch = 3;
    apply(f, batch);
    fixture_reopen(f);
    char *text = TEXT_OF(print_recovery(out, f->store));
    assert_null(strstr(text, "lease 1 "));
    assert_non_null(strstr(text, "lease 2 batch=2 "));
    assert_null(strstr(text, "lease 3 "));
    free(text);
}

static void test_sides(void **state)
{
    struct fixture *f = *state;
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 1, 100, 1, WALL, "o", "p");
    add_side(batch, HP_SIDE_DELAYED, 1, 10, WALL + 5);
    add_side(batch, HP_SIDE_EXPIRY, 1, 10, WALL + 5); /* the same cursor */
    add_side(batch, HP_SIDE_RETURNED, 30, 1, WALL + 1);
    add_side(batch, HP_SIDE_BURIED, 31, 1, 0);
    add_side(batch, HP_SIDE_POOL, 40, 1, 0);
    add_side(batch, HP_SIDE_EXPIRY, 50, 10, WALL + 9);
    apply(f, batch);
    for (uint32_t limit = 0; limit < 4; limit++) {
        char *text = TEXT_OF(print_sides(out, f->store, limit));
        const char *order[] = {"side 30+1 kind=2", "side 1+10 kind=1", "side 1+10 kind=5",
                               "side 50+10 kind=5"};
        const char *at = text;
        for (size_t i = 0; i < 4; i++) {
            at = strstr(at, order[i]);
            assert_non_null(at);
        }
        assert_null(strstr(text, "kind=3"));
        assert_null(strstr(text, "kind=6"));
        free(text);
    }
    char *text = TEXT_OF(print_tasks(out, f->store, 31, 1));
    assert_non_null(strstr(text, "side 31+1 kind=3 lane=1 at=0 a=2 f=1 l=0 r=0 why=4 g=123\n"));
    free(text);
    text = TEXT_OF(print_tasks(out, f->store, 55, 1));
    assert_null(strstr(text, "side")); /* an expiry is no state of a task */
    free(text);
    fixture_reopen(f); /* a starting core is told of pools at once */
    text = TEXT_OF(print_recovery(out, f->store));
    assert_non_null(strstr(text, "sides=4 delayed=11\n"));
    assert_non_null(strstr(text, "side 31+1 kind=3"));
    assert_non_null(strstr(text, "side 40+1 kind=6"));
    free(text);
    batch = begin_batch(f);
    hp_batch_add(batch, HP_OP_SIDE_DEL)->side_del.first = 40;
    apply(f, batch);
    text = TEXT_OF(print_tasks(out, f->store, 40, 1));
    assert_null(strstr(text, "side"));
    free(text);
}

static void test_names(void **state)
{
    struct fixture *f = *state;
    struct hp_batch *batch = begin_batch(f);
    struct hp_op *op = hp_batch_add(batch, HP_OP_UKEY);
    op->ukey.key = bin_of("q1/key");
    op->ukey.id = 77;
    op = hp_batch_add(batch, HP_OP_SESSION);
    op->session.id = bin_of("session-00000001");
    op->session.state = bin_of("state-1");
    op->session.seen_at_ms = WALL;
    op = hp_batch_add(batch, HP_OP_QUEUE);
    op->queue.name = bin_of("default");
    op->queue.state = bin_of("paused");
    op = hp_batch_add(batch, HP_OP_NODE);
    op->node.number = 4;
    op->node.name = bin_of("host");
    op->node.boot = bin_of("boot");
    op = hp_batch_add(batch, HP_OP_META);
    op->meta.next_id = 1000;
    op->meta.next_blob = 50;
    op->meta.grace_ms = 30000;
    apply(f, batch);
    batch = begin_batch(f);
    op = hp_batch_add(batch, HP_OP_SESSION);
    op->session.id = bin_of("session-00000001");
    op->session.state = bin_of("state-2");
    op->session.seen_at_ms = WALL + 1;
    op = hp_batch_add(batch, HP_OP_META);
    op->meta.next_id = 900; /* never back */
    op->meta.grace_ms = 20000;
    apply(f, batch);
    expect_text(TEXT_OF(print_session(out, f->store, "session-00000001")),
                "session session-00000001 found=1 state=state-2\n");
    expect_text(TEXT_OF(print_session(out, f->store, "session-00000002")),
                "session session-00000002 found=0 state=\n");
    fixture_reopen(f);
    expect_text(TEXT_OF(print_recovery(out, f->store)),
                "meta epoch=1 id=1000 blob=50 grace=20000 sides=0 delayed=0\n"
                "queue name=default state=paused\nnode 4 name=host boot=boot state=\n"
                "ukey key=q1/key id=77\n");
    batch = begin_batch(f);
    hp_batch_add(batch, HP_OP_UKEY_DEL)->ukey.key = bin_of("q1/key");
    op = hp_batch_add(batch, HP_OP_REAP);
    op->reap.wall_ms = WALL + HP_STORE_SESSION_MS + 10;
    op->reap.keep_sessions = true;
    apply(f, batch);
    run_idle(f);
    expect_text(TEXT_OF(print_session(out, f->store, "session-00000001")),
                "session session-00000001 found=1 state=state-2\n");
    reap(f, WALL + HP_STORE_SESSION_MS + 10);
    expect_text(TEXT_OF(print_session(out, f->store, "session-00000001")),
                "session session-00000001 found=0 state=\n");
}

static void test_retention(void **state)
{
    struct fixture *f = *state;
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 1, 4, 1, WALL, "o", "p"); /* all ends, all expires */
    add_group(batch, 5, 4, 1, WALL, "o", "p"); /* one lives */
    add_group(batch, 9, 2, 1, WALL, "o", "p"); /* expires later */
    add_side(batch, HP_SIDE_EXPIRY, 1, 4, WALL + 5);
    apply(f, batch);
    batch = begin_batch(f);
    for (uint64_t id = 1; id <= 7; id++) {
        add_result(batch, id, 1, id == 2 ? 2 : 1, WALL + 100, "e"); /* one run over both groups */
    }
    add_result(batch, 9, 2, 3, WALL + 100000, "");
    apply(f, batch);
    reap(f, WALL + 99);
    char *text = TEXT_OF(print_tasks(out, f->store, 1, 10));
    assert_null(strstr(text, "gone"));
    free(text);
    reap(f, WALL + 100);
    text = TEXT_OF(print_tasks(out, f->store, 1, 10));
    assert_non_null(strstr(text, "task 1 gone ended 1+1 s=1 "));
    assert_non_null(strstr(text, "task 2 gone ended 2+1 s=2 "));
    assert_non_null(strstr(text, "task 4 gone ended 4+1 s=1 "));
    assert_non_null(strstr(text, "task 5 in 5+4"));
    assert_non_null(strstr(text, "ended 7+1 s=1 r=2"));
    assert_non_null(strstr(text, "ended 9+1 s=3"));
    free(text);
    expect_text(TEXT_OF(print_sides(out, f->store, 0)), "");
    struct hp_store_figures figures;
    hp_store_figures(f->store, &figures);
    assert_int_equal(figures.task_count, 6);
    assert_int_equal(figures.reaped, 4);
    batch = begin_batch(f);
    add_result(batch, 8, 1, 1, WALL + 200, "");
    apply(f, batch);
    reap(f, WALL + 200000);
    fixture_reopen(f);
    text = TEXT_OF(print_tasks(out, f->store, 5, 6));
    assert_null(strstr(text, "in 5+4"));
    assert_non_null(strstr(text, "task 10 gone"));
    free(text);
    reap(f, WALL + 200000 + HP_STORE_TOMB_MS);
    expect_text(TEXT_OF(print_tasks(out, f->store, 1, 2)), "task 1\ntask 2\n");
    hp_store_figures(f->store, &figures);
    assert_int_equal(figures.task_count, 0);
}

static void add_forget(struct hp_batch *batch, uint64_t first, uint32_t count)
{
    struct hp_id_span span = {first, count};
    struct hp_op *op = hp_batch_add(batch, HP_OP_FORGET);
    op->forget.spans = hp_arena_copy(&batch->arena, &span, sizeof(span));
    op->forget.span_count = 1;
    op->forget.wall_ms = WALL;
}

static void forget(struct fixture *f, uint64_t first, uint32_t count)
{
    struct hp_batch *batch = begin_batch(f);
    add_forget(batch, first, count);
    apply(f, batch);
    run_idle(f);
}

static void test_forget(void **state)
{
    struct fixture *f = *state;
    struct hp_store_figures figures;
    struct hp_batch *batch = begin_batch(f);
    for (uint64_t first = 1; first <= 31; first += 3) {
        add_group(batch, first, 3, 1, WALL, "o", "p");
    }
    add_side(batch, HP_SIDE_EXPIRY, 1, 3, WALL + 5);
    apply(f, batch);
    batch = begin_batch(f);
    for (uint64_t id = 1; id <= 32; id++) { /* one run over all; 33 lives */
        add_result(batch, id, 1, id == 2 ? 2 : 1, WALL + 100, "e");
    }
    apply(f, batch);
    forget(f, 1, 3);
    char *text = TEXT_OF(print_tasks(out, f->store, 1, 4));
    assert_non_null(strstr(text, "task 1 gone ended 1+1 s=1 "));
    assert_non_null(strstr(text, "task 2 gone ended 2+1 s=2 "));
    assert_non_null(strstr(text, "task 4 in 4+3"));
    free(text);
    expect_text(TEXT_OF(print_sides(out, f->store, 0)), "");
    forget(f, 8, 1); /* a part stays until the rest is forgotten */
    forget(f, 9, 1);
    text = TEXT_OF(print_tasks(out, f->store, 7, 3));
    assert_null(strstr(text, "gone"));
    free(text);
    forget(f, 7, 1);
    /* Two ranges around groups that nobody forgot. */
    batch = begin_batch(f);
    add_forget(batch, 13, 3);
    add_forget(batch, 22, 3);
    add_forget(batch, 13, 3);
    apply(f, batch);
    run_idle(f);
    text = TEXT_OF(print_tasks(out, f->store, 7, 18));
    assert_non_null(strstr(text, "task 7 gone"));
    assert_non_null(strstr(text, "task 10 in 10+3"));
    assert_non_null(strstr(text, "task 13 gone"));
    assert_non_null(strstr(text, "task 16 in 16+3"));
    assert_non_null(strstr(text, "task 19 in 19+3"));
    assert_non_null(strstr(text, "task 24 gone"));
    free(text);
    hp_store_figures(f->store, &figures);
    assert_int_equal(figures.task_count, 33 - 12);
    forget(f, 1, UINT32_MAX); /* all but the one that lives, and its group */
    hp_store_figures(f->store, &figures);
    assert_int_equal(figures.task_count, 3);
    assert_int_equal(figures.reaped, 30);
    fixture_reopen(f);
    batch = begin_batch(f);
    add_result(batch, 33, 1, 1, WALL + 100, "e");
    apply(f, batch);
    forget(f, 33, 1); /* the other parts were forgotten before the restart: not known any more */
    hp_store_figures(f->store, &figures);
    assert_int_equal(figures.task_count, 3);
    forget(f, 31, 2);
    hp_store_figures(f->store, &figures);
    assert_int_equal(figures.task_count, 0);
    reap(f, WALL + HP_STORE_TOMB_MS);
    text = TEXT_OF(print_tasks(out, f->store, 1, 33));
    assert_null(strstr(text, "gone"));
    free(text);
}

static void test_many_results(void **state)
{
    struct fixture *f = *state;
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 1, 5000, 1, WALL, "o", "p");
    add_segment(batch, 1, 0, 1, 5000, WALL);
    apply(f, batch);
    batch = begin_batch(f);
    char end[64];
    for (uint64_t id = 5000; id >= 1; id--) {
        if (id % 7 != 0) {
            (void)snprintf(end, sizeof(end), "result of %" PRIu64, id);
            add_result(batch, id, 1, 1, WALL, end);
        }
    }
    apply(f, batch);
    char *text = TEXT_OF(print_tasks(out, f->store, 1, 5000));
    for (uint64_t id = 1; id <= 5000; id++) {
        if (id % 7 != 0) {
            (void)snprintf(end, sizeof(end), "end=result of %" PRIu64 "\n", id);
            assert_non_null(strstr(text, end));
            id += 97;
        }
    }
    free(text);
    text = TEXT_OF(print_lane(out, f->store, 1, 0, 0));
    assert_non_null(strstr(text, "run 7+1 "));
    assert_non_null(strstr(text, "run 4998+1 "));
    assert_null(strstr(text, "run 8+"));
    free(text);
}

static void test_check_load(void **state)
{
    struct fixture *f = *state;
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 1, 50, 1, WALL, "o", "p");
    add_result(batch, 1, 20, 1, WALL, "");
    apply(f, batch);
    struct hp_loaded *loaded = run_load(f->store, hp_load_new(HP_LOAD_CHECK));
    assert_int_equal(loaded->err, HP_OK);
    assert_int_equal(loaded->figures[1], 0);
    assert_memory_equal(loaded->text.data, "ok", 2);
    hp_loaded_free(loaded);
}

#define BOTH(name)                                                                                 \
    {"mem/" #name, name, setup_mem, teardown, NULL},                                               \
    {                                                                                              \
        "sqlite/" #name, name, setup_sqlite, teardown, NULL                                        \
    }

/* A row that a damage moved to another key or table is as damaged as one that lost a bit. */
static void test_rows_belong_to_their_place(void **state)
{
    struct hp_row_out out = {0};
    struct hp_row_in in;
    (void)state;
    hp_row_put_u64(&out, 5);
    hp_row_seal(&out, HP_ROW_GROUP, 7);
    struct hp_bin row = hp_bin_make(out.data, out.size);
    assert_true(hp_row_open(&in, row, HP_ROW_GROUP, 7));
    assert_int_equal(hp_row_get_u64(&in), 5);
    assert_false(hp_row_open(&in, row, HP_ROW_GROUP, 8));
    assert_false(hp_row_open(&in, row, HP_ROW_GROUP, 7 + (UINT64_C(1) << 32)));
    assert_false(hp_row_open(&in, row, HP_ROW_SEGMENT, 7));
    for (size_t i = 0; i < out.size * 8; i++) {
        out.data[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_false(hp_row_open(&in, row, HP_ROW_GROUP, 7));
        out.data[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    hp_row_out_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_fresh),
        BOTH(test_groups),
        BOTH(test_results),
        BOTH(test_list),
        BOTH(test_lanes),
        BOTH(test_leases),
        BOTH(test_brief_leases),
        BOTH(test_sides),
        BOTH(test_names),
        BOTH(test_retention),
        BOTH(test_forget),
        BOTH(test_many_results),
        BOTH(test_check_load),
        BOTH(test_groups_in_parts),
        cmocka_unit_test(test_rows_belong_to_their_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
