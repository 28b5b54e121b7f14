/* SPDX-License-Identifier: BSD-2-Clause */
/* Children of pools that run C functions: set-up, calls, limits, ends, and slots used again. */
#include "tests/unit/exec_pool_fixture.h"

static const char *const modules[] = {HP_TEST_MODULES "/hp_test_pool.so", HP_EXAMPLE_MODULE};

static int set_up(void **state)
{
    struct fixture *f = fixture_new();
    struct hp_exec_config config = fixture_config(f, 2);
    config.function_children = FUNCTION_CHILDREN;
    config.pool_children_max = POOL_CHILDREN;
    config.modules = modules;
    config.module_count = HP_COUNT_OF(modules);
    *state = fixture_start(&config, f);
    WAIT_UNTIL(f, f->child_is_ready[0] && f->child_is_ready[1]);
    return 0;
}

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

static void start_ready(struct fixture *f, uint32_t child, const char *function, const char *init)
{
    struct hp_exec_child_spec spec = make_spec(0, function, init);
    start_child(f, child, &spec);
    WAIT_UNTIL(f, f->child_is_ready[child]);
}

static void a_child_is_set_up_before_it_runs(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(hp_exec_child_count(f->exec), FUNCTION_CHILDREN + POOL_CHILDREN);
    assert_int_equal(hp_exec_pool_child_first(f->exec), FIRST);
    assert_int_equal(try_give(f, FIRST, 1, "noop", ""), HP_ERR_AGAIN); /* there is none */
    struct hp_exec_child_spec spec = make_spec(0, "pool.set_up", "my data");
    start_child(f, FIRST, &spec);
    assert_int_equal(try_give(f, FIRST, 1, "noop", ""), HP_ERR_AGAIN); /* not yet set up */
    assert_int_equal(hp_exec_child_load(f->exec, FIRST), 0);
    assert_int_equal(hp_exec_recall(f->exec, FIRST, 10), 0);
    WAIT_UNTIL(f, f->child_is_ready[FIRST]);
    assert_int_equal(f->call_count, 0); /* the set-up is no call */
    give(f, FIRST, 1, "pool.data", "");
    assert_string_equal(wait_call(f, 1)->data, "my data");
    assert_true(f->child_pid[FIRST] != f->child_pid[0]);
    /* Functions are served beside it. */
    give(f, 0, 2, "echo", "beside");
    assert_string_equal(wait_call(f, 2)->data, "beside");
}

static void no_initializer_is_fine(void **state)
{
    struct fixture *f = *state;
    start_ready(f, FIRST, "", "");
    give(f, FIRST, 1, "echo", "e");
    assert_string_equal(wait_call(f, 1)->data, "e");
}

static void large_data_for_the_set_up(void **state)
{
    struct fixture *f = *state;
    static char large[200000];
    memset(large, 'l', sizeof large);
    memcpy(large, "large: ", 7);
    struct hp_exec_child_spec spec = make_spec(0, "pool.set_up", "");
    spec.init = hp_bin_make(large, sizeof large);
    start_child(f, FIRST, &spec);
    char path[] = "/tmp/hp-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)unlink(path);
    assert_int_equal(write(fd, "in a file", 9), 9);
    spec.init = hp_bin_make(NULL, 0);
    spec.init_fd = fd;
    spec.init_bytes = 9;
    start_child(f, FIRST + 1, &spec);
    (void)close(fd);
    WAIT_UNTIL(f, f->child_is_ready[FIRST] && f->child_is_ready[FIRST + 1]);
    give(f, FIRST, 1, "pool.data", "");
    give(f, FIRST + 1, 2, "pool.data", "");
    assert_memory_equal(wait_call(f, 1)->data, large, 64);
    assert_string_equal(wait_call(f, 2)->data, "in a file");
}

static void expect_init_failure(struct fixture *f, const char *function, const char *init,
                                const char *text)
{
    struct hp_exec_child_spec spec = make_spec(0, function, init);
    uint32_t before = f->died_count;
    uint32_t ready_before = f->ready_children;
    start_child(f, FIRST, &spec);
    WAIT_UNTIL(f, f->died_count == before + 1);
    assert_true(f->last_death.init_failed);
    assert_false(f->last_death.recycled);
    assert_string_equal(f->death_text, text);
    assert_int_equal(f->ready_children, ready_before);
    assert_int_equal(f->call_count, 0);
}

static void failures_of_the_set_up_are_told(void **state)
{
    struct fixture *f = *state;
    expect_init_failure(f, "pool.set_up", "fail", "there is no such data");
    expect_init_failure(f, "pool.set_up", "die",
                        "the child exited with code 9 while it was set up: the data are damaged\n");
    expect_init_failure(f, "no.such", "", "no module has the initializer no.such");
    expect_init_failure(f, "crash", "",
                        "the child was killed by signal 11 while it was set up: "
                        "crash: about to touch what is not there\n");
    start_ready(f, FIRST, "pool.set_up", "fine"); /* the slot is none the worse */
}

static void bad_orders(void **state)
{
    struct fixture *f = *state;
    struct hp_exec_child_spec spec = make_spec(0, "", "");
    struct hp_error error = {0};
    assert_int_equal(hp_exec_child_start(f->exec, 0, &spec, &error), HP_ERR_INVALID);
    assert_int_equal(hp_exec_child_start(f->exec, FIRST + POOL_CHILDREN, &spec, &error),
                     HP_ERR_INVALID);
    start_child(f, FIRST, &spec);
    assert_int_equal(hp_exec_child_start(f->exec, FIRST, &spec, &error), HP_ERR_EXISTS);
    spec.zygote = 3;
    assert_int_equal(hp_exec_child_start(f->exec, FIRST + 1, &spec, &error), HP_ERR_CLOSED);
    WAIT_UNTIL(f, f->child_is_ready[FIRST]);
}

/* Never more calls than the child may still run; it ends by itself after them. */
static void calls_max(void **state)
{
    struct fixture *f = *state;
    struct hp_exec_child_spec spec = make_spec(0, "pool.set_up", "x");
    spec.calls_max = 3;
    start_child(f, FIRST, &spec);
    WAIT_UNTIL(f, f->child_is_ready[FIRST]);
    for (uint64_t key = 1; key <= 3; key++) {
        give(f, FIRST, key, "noop", "");
    }
    assert_int_equal(try_give(f, FIRST, 4, "noop", ""), HP_ERR_AGAIN);
    WAIT_UNTIL(f, f->died_count == 1);
    assert_int_equal(f->ok_count, 3);
    assert_true(f->last_death.recycled);
    assert_false(f->last_death.init_failed);
    assert_int_equal(f->last_death.call_count, 3);
    assert_int_equal(f->last_death.restart_ms, 0);
    assert_int_equal(f->ready_children, 3); /* it is not started again by itself */
}

static void an_orderly_stop(void **state)
{
    struct fixture *f = *state;
    start_ready(f, FIRST, "", "");
    for (uint64_t key = 1; key <= 100; key++) {
        give(f, FIRST, key, "echo", "x");
    }
    hp_exec_child_stop(f->exec, FIRST);
    assert_int_equal(try_give(f, FIRST, 101, "noop", ""), HP_ERR_AGAIN);
    WAIT_UNTIL(f, f->died_count == 1);
    assert_int_equal(f->ok_count, 100);
    assert_true(f->last_death.recycled);
    /* While it starts, and while it is set up: no failure. */
    struct hp_exec_child_spec spec = make_spec(0, "pool.set_up", "x");
    start_child(f, FIRST, &spec);
    hp_exec_child_stop(f->exec, FIRST);
    WAIT_UNTIL(f, f->died_count == 2);
    assert_true(f->last_death.recycled);
    assert_false(f->last_death.init_failed);
    hp_exec_child_stop(f->exec, FIRST); /* nobody there: nothing happens */
}

static void killing(void **state)
{
    struct fixture *f = *state;
    struct hp_exec_child_spec spec = make_spec(0, "pool.set_up", "hang");
    start_child(f, FIRST, &spec);
    assert_int_equal(hp_exec_child_kill(f->exec, FIRST, SIGKILL), HP_OK);
    WAIT_UNTIL(f, f->died_count == 1);
    assert_true(f->last_death.killed);
    assert_false(f->last_death.init_failed); /* it was told to */
    start_ready(f, FIRST, "", "");
    give(f, FIRST, 1, "pool.hang", "");
    give(f, FIRST, 2, "noop", "");
    WAIT_UNTIL(f, is_running(f, FIRST));
    assert_int_equal(hp_exec_call_kill(f->exec, FIRST, 2, SIGKILL), HP_ERR_BUSY);
    assert_int_equal(hp_exec_call_kill(f->exec, FIRST, 1, SIGKILL), HP_OK);
    WAIT_UNTIL(f, f->died_count == 2);
    assert_int_equal(wait_call(f, 1)->end.status, HP_EXEC_CALL_SIGNALED);
    assert_true(ended_call(f, 1)->end.killed);
    assert_int_equal(f->recall_count, 1);
    assert_int_equal(f->recalled[0], 2);
    assert_false(f->last_death.init_failed);
}

static void fencing_while_it_is_set_up(void **state)
{
    struct fixture *f = *state;
    struct hp_exec_child_spec spec = make_spec(0, "pool.set_up", "hang");
    spec.kill_on_partition = true;
    start_child(f, FIRST, &spec);
    hp_exec_set_deadline(f->exec, hp_clock_boot_ms() + 20);
    WAIT_UNTIL(f, f->died_count == 1);
    assert_int_equal(f->last_death.signal, SIGKILL);
}

static void output_belongs_to_its_call(void **state)
{
    struct fixture *f = *state;
    start_ready(f, FIRST, "", "");
    give(f, FIRST, 1, "pool.say", "one");
    give(f, FIRST, 2, "echo", "silent");
    give(f, FIRST, 3, "pool.say", "three");
    assert_string_equal(wait_call(f, 1)->out, "out: one\n");
    assert_string_equal(wait_call(f, 1)->err, "err: one\n");
    assert_string_equal(wait_call(f, 2)->out, "");
    assert_string_equal(wait_call(f, 2)->err, "");
    assert_string_equal(wait_call(f, 3)->out, "out: three\n");
    assert_string_equal(wait_call(f, 3)->err, "err: three\n");
}

static void a_crash_hands_the_rest_back(void **state)
{
    struct fixture *f = *state;
    start_ready(f, FIRST, "", "");
    give(f, FIRST, 1, "echo", "a");
    give(f, FIRST, 2, "crash", "");
    give(f, FIRST, 3, "noop", "");
    WAIT_UNTIL(f, f->died_count == 1);
    assert_string_equal(wait_call(f, 1)->data, "a");
    assert_int_equal(wait_call(f, 2)->end.status, HP_EXEC_CALL_SIGNALED);
    assert_string_equal(ended_call(f, 2)->data, "crash: about to touch what is not there\n");
    assert_int_equal(f->recall_count, 1);
    assert_int_equal(f->last_death.restart_ms, 0);
    assert_true(f->child_is_ready[0] && f->child_is_ready[1]);
}

static void slots_are_used_a_thousand_times(void **state)
{
    struct fixture *f = *state;
    static char payload[60000];
    uint32_t fds = 0;
    uint64_t kb = 0;
    memset(payload, 'p', sizeof payload - 1);
    for (uint32_t round = 0; round < 1000; round++) {
        uint32_t child = FIRST + round % POOL_CHILDREN;
        uint32_t deaths = f->died_count;
        start_ready(f, child, "pool.set_up", "data");
        for (uint64_t key = 0; round % 10 == 0 && key < 20; key++) {
            WAIT_UNTIL(f, try_give(f, child, key, "echo", payload) == HP_OK);
        }
        if (round % 3 == 0) {
            assert_int_equal(hp_exec_child_kill(f->exec, child, SIGKILL), HP_OK);
        } else {
            hp_exec_child_stop(f->exec, child);
        }
        WAIT_UNTIL(f, f->died_count == deaths + 1);
        forget_calls(f);
        if (round == 50) {
            fds = count_fds();
            kb = shared_kb();
        }
    }
    assert_int_equal(count_fds(), fds);
    assert_true(kb > 0 && shared_kb() <= kb); /* all pages were given back */
    assert_true(shared_kb() < 1200);          /* those of the two function children are left */
}

int main(void)
{
#define EXEC_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        EXEC_TEST(a_child_is_set_up_before_it_runs),
        EXEC_TEST(no_initializer_is_fine),
        EXEC_TEST(large_data_for_the_set_up),
        EXEC_TEST(failures_of_the_set_up_are_told),
        EXEC_TEST(bad_orders),
        EXEC_TEST(calls_max),
        EXEC_TEST(an_orderly_stop),
        EXEC_TEST(killing),
        EXEC_TEST(fencing_while_it_is_set_up),
        EXEC_TEST(output_belongs_to_its_call),
        EXEC_TEST(a_crash_hands_the_rest_back),
        EXEC_TEST(slots_are_used_a_thousand_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
