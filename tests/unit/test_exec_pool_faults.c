/* SPDX-License-Identifier: BSD-2-Clause */
/* Pool children that do what they should not: linger, fork, boast, ignore signals; and zygotes that
 * lie. The daemon's view must stay right. */
#include "tests/unit/exec_pool_fixture.h"

#include <sys/mman.h>

static const char *const environment[] = {"WORDS=few", NULL};

static int set_up(void **state)
{
    struct fixture *f = fixture_new();
    struct hp_exec_config config = fixture_config(f, 2);
    config.pool_children_max = POOL_CHILDREN;
    config.quit_ms = 100;
    config.result_cap_bytes = 2u << 20;
    *state = fixture_start(&config, f);
    return 0;
}

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

static uint32_t start_zygote(struct fixture *f, const char *how)
{
    const char *const argv[] = {HP_TEST_ZYGOTE, how, NULL};
    struct hp_exec_zygote zygote = {.argv = argv, .env = environment};
    uint32_t number = 0;
    uint32_t before = f->zygote_ready_count;
    struct hp_error error = {0};
    assert_int_equal(hp_exec_zygote_start(f->exec, &zygote, &number, &error), HP_OK);
    WAIT_UNTIL(f, f->zygote_ready_count == before + 1);
    return number;
}

static void start_ready(struct fixture *f, uint32_t child, uint32_t zygote)
{
    struct hp_exec_child_spec spec = make_spec(zygote, "", "");
    start_child(f, child, &spec);
    WAIT_UNTIL(f, f->child_is_ready[child]);
}

/* A pipe in a folder of its own; a call that opens it waits until the test does, too. */
struct gate {
    char dir[32];
    char path[48];
    char word[64]; /* the call */
};

static void gate_open(struct gate *gate)
{
    int fd = open(gate->path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    (void)close(fd);
    (void)unlink(gate->path);
    (void)rmdir(gate->dir);
}

static void gate_make(struct gate *gate)
{
    (void)snprintf(gate->dir, sizeof gate->dir, "/tmp/hp-test-XXXXXX");
    assert_non_null(mkdtemp(gate->dir));
    (void)snprintf(gate->path, sizeof gate->path, "%s/pipe", gate->dir);
    (void)snprintf(gate->word, sizeof gate->word, "wait: %s", gate->path);
    assert_int_equal(mkfifo(gate->path, 0600), 0);
}

/* An orderly end is asked for once; after a while it is made. */
static void a_child_that_does_not_end(void **state)
{
    struct fixture *f = *state;
    start_ready(f, FIRST, start_zygote(f, ""));
    give(f, FIRST, 1, "", "linger");
    (void)wait_call(f, 1);
    hp_exec_child_stop(f->exec, FIRST);
    WAIT_UNTIL(f, f->died_count == 1);
    assert_true(f->last_death.killed);
    assert_false(f->last_death.init_failed);
    assert_false(pid_exists(f->child_pid[FIRST]));
}

static void a_failed_set_up_that_does_not_end(void **state)
{
    struct fixture *f = *state;
    struct hp_exec_child_spec spec = make_spec(start_zygote(f, ""), "", "fail and linger");
    start_child(f, FIRST, &spec);
    WAIT_UNTIL(f, f->died_count == 1);
    assert_true(f->last_death.init_failed);
    assert_string_equal(f->death_text, "ValueError: bad");
}

static void stopped_while_its_set_up_hangs(void **state)
{
    struct fixture *f = *state;
    uint32_t zygote = start_zygote(f, "");
    struct hp_exec_child_spec spec = make_spec(zygote, "", "hang");
    start_child(f, FIRST, &spec);
    start_child(f, FIRST + 1, &spec);
    hp_exec_child_stop(f->exec, FIRST); /* before it is forked */
    start_ready(f, FIRST + 2, zygote);  /* the other one was, by then */
    hp_exec_child_stop(f->exec, FIRST + 1);
    WAIT_UNTIL(f, f->died_count == 2);
    assert_false(f->last_death.init_failed);
}

/* A call that runs is never hurried, however long ago the child was told to end. */
static void a_call_has_its_time(void **state)
{
    struct fixture *f = *state;
    struct gate gate;
    gate_make(&gate);
    start_ready(f, FIRST, start_zygote(f, ""));
    give(f, FIRST, 1, "", gate.word);
    WAIT_UNTIL(f, f->is_waiting);
    hp_exec_child_stop(f->exec, FIRST);
    uint64_t until_ms = hp_clock_mono_ms() + 300; /* three times quit_ms */
    while (hp_clock_mono_ms() < until_ms) {
        serve(f, 10);
    }
    assert_int_equal(f->died_count, 0);
    gate_open(&gate);
    assert_string_equal(wait_call(f, 1)->data, "waited");
    WAIT_UNTIL(f, f->died_count == 1);
    assert_true(f->last_death.recycled);
}

/* A signal to a call reaches the child some time later: no other call may run there by then. */
static void a_signal_is_for_one_call(void **state)
{
    struct fixture *f = *state;
    struct gate gate;
    gate_make(&gate);
    start_ready(f, FIRST, start_zygote(f, ""));
    give(f, FIRST, 1, "", "deaf");
    (void)wait_call(f, 1);
    give(f, FIRST, 2, "", gate.word);
    WAIT_UNTIL(f, f->is_waiting);
    give(f, FIRST, 3, "", "word");
    assert_int_equal(hp_exec_recall(f->exec, FIRST, 10), 1);
    assert_int_equal(hp_exec_call_kill(f->exec, FIRST, 2, SIGTERM), HP_OK);
    assert_int_equal(try_give(f, FIRST, 3, "", "word"), HP_ERR_AGAIN);
    gate_open(&gate);
    assert_string_equal(wait_call(f, 2)->data, "waited");
    WAIT_UNTIL(f, f->died_count == 1);
    assert_true(f->last_death.recycled);
}

/* Descriptors of calls that were taken back do not keep those of others out. */
static void large_calls_taken_back(void **state)
{
    struct fixture *f = *state;
    struct gate gate;
    gate_make(&gate);
    start_ready(f, FIRST, start_zygote(f, ""));
    give(f, FIRST, 1, "", gate.word);
    WAIT_UNTIL(f, f->is_waiting);
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, 100000), 0);
    struct hp_exec_call call = {.key = 2, .payload_fd = fd, .payload_bytes = 100000};
    for (uint32_t i = 0; i < 100; i++) {
        assert_int_equal(hp_exec_call(f->exec, FIRST, &call), HP_OK);
        hp_exec_flush(f->exec);
        assert_int_equal(hp_exec_recall(f->exec, FIRST, 1), 1);
    }
    assert_int_equal(hp_exec_call(f->exec, FIRST, &call), HP_OK);
    hp_exec_flush(f->exec);
    (void)close(fd);
    gate_open(&gate);
    assert_int_equal(wait_call(f, 2)->end.result_bytes, 100000);
}

/* A call that is taken out of the middle has not been run: the child has one more to run. */
static void calls_taken_out_do_not_count(void **state)
{
    struct fixture *f = *state;
    struct gate gate;
    gate_make(&gate);
    struct hp_exec_child_spec spec = make_spec(start_zygote(f, ""), "", "");
    spec.calls_max = 3;
    start_child(f, FIRST, &spec);
    WAIT_UNTIL(f, f->child_is_ready[FIRST]);
    give(f, FIRST, 1, "", gate.word);
    give(f, FIRST, 2, "", "taken");
    give(f, FIRST, 3, "", "left");
    WAIT_UNTIL(f, f->is_waiting);
    assert_int_equal(hp_exec_recall_one(f->exec, FIRST, 2), HP_OK);
    give(f, FIRST, 4, "", "last");
    assert_int_equal(try_give(f, FIRST, 5, "", "none"), HP_ERR_AGAIN);
    gate_open(&gate);
    WAIT_UNTIL(f, f->died_count == 1);
    assert_int_equal(f->ok_count, 3);
    assert_non_null(ended_call(f, 4));
    assert_true(f->last_death.recycled);
}

/* The copy of a child that a task forks and lets go on is no child: it says nothing here. */
static void a_task_that_forks(void **state)
{
    struct fixture *f = *state;
    start_ready(f, FIRST, start_zygote(f, ""));
    for (uint64_t key = 1; key <= KEPT_MAX; key++) {
        give(f, FIRST, key, "", key % 2 == 1 ? "fork" : "word");
    }
    WAIT_UNTIL(f, f->ok_count == KEPT_MAX);
    for (uint64_t key = 1; key <= KEPT_MAX; key++) {
        assert_string_equal(ended_call(f, key)->data, key % 2 == 1 ? "forked" : "word");
    }
    assert_int_equal(f->died_count, 0);
    WAIT_UNTIL(f, !f->is_waiting);
}

static void a_result_that_is_not_there(void **state)
{
    struct fixture *f = *state;
    start_ready(f, FIRST, start_zygote(f, ""));
    give(f, FIRST, 1, "", "boast");
    WAIT_UNTIL(f, f->call_count == 1);
    assert_int_not_equal(f->calls[0].end.status, HP_EXEC_CALL_OK);
    WAIT_UNTIL(f, f->died_count == 1);
    start_ready(f, FIRST, 1);
}

/* A child whose port does not hold to the limit: the daemon does. */
static void a_result_over_the_cap(void **state)
{
    struct fixture *f = *state;
    start_ready(f, FIRST, start_zygote(f, "greedy"));
    give(f, FIRST, 1, "", "much");
    WAIT_UNTIL(f, f->call_count == 1);
    assert_int_equal(f->ok_count, 0);
    WAIT_UNTIL(f, f->died_count == 1);
    start_ready(f, FIRST, start_zygote(f, ""));
    give(f, FIRST, 2, "", "much"); /* one that does says what was wrong */
    assert_int_equal(wait_call(f, 2)->end.status, HP_EXEC_CALL_TOO_BIG);
    assert_int_equal(f->died_count, 1);
}

/* What a zygote says is about its own children, and it is ready once. */
static void a_zygote_that_lies(void **state)
{
    struct fixture *f = *state;
    start_ready(f, FIRST, start_zygote(f, ""));
    uint32_t liar = start_zygote(f, "lie");
    start_ready(f, FIRST + 1, liar);
    assert_false(f->is_ready); /* no modules were asked for */
    assert_int_equal(f->zygote_ready_count, 2);
    assert_int_equal(f->died_count, 0);
    give(f, FIRST, 1, "", "word");
    assert_string_equal(wait_call(f, 1)->data, "word");
}

int main(void)
{
#define EXEC_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        EXEC_TEST(a_child_that_does_not_end),
        EXEC_TEST(a_failed_set_up_that_does_not_end),
        EXEC_TEST(stopped_while_its_set_up_hangs),
        EXEC_TEST(a_call_has_its_time),
        EXEC_TEST(a_signal_is_for_one_call),
        EXEC_TEST(large_calls_taken_back),
        EXEC_TEST(calls_taken_out_do_not_count),
        EXEC_TEST(a_task_that_forks),
        EXEC_TEST(a_result_that_is_not_there),
        EXEC_TEST(a_result_over_the_cap),
        EXEC_TEST(a_zygote_that_lies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
