/* SPDX-License-Identifier: BSD-2-Clause */
/* Language zygotes and their children, with a small program in the interpreter's place. */
#include "tests/unit/exec_pool_fixture.h"

#include <sys/mman.h>

static const char *const environment[] = {"WORDS=few", "PATH=/usr/bin:/bin", NULL};

static int set_up(void **state)
{
    struct fixture *f = fixture_new();
    struct hp_exec_config config = fixture_config(f, 2);
    config.pool_children_max = POOL_CHILDREN; /* and no modules: there is no native zygote */
    *state = fixture_start(&config, f);
    return 0;
}

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

static enum hp_err try_zygote(struct fixture *f, const char *path, const char *how,
                              uint32_t *ret_zygote, struct hp_error *reterr)
{
    const char *const argv[] = {path, how, NULL};
    struct hp_exec_zygote zygote = {.argv = argv, .env = environment};
    return hp_exec_zygote_start(f->exec, &zygote, ret_zygote, reterr);
}

static uint32_t start_zygote(struct fixture *f)
{
    uint32_t zygote = 0;
    uint32_t before = f->zygote_ready_count;
    struct hp_error error = {0};
    assert_int_equal(try_zygote(f, HP_TEST_ZYGOTE, "", &zygote, &error), HP_OK);
    assert_true(zygote >= 1);
    WAIT_UNTIL(f, f->zygote_ready_count == before + 1);
    assert_int_equal(f->last_zygote, zygote);
    return zygote;
}

static void start_ready(struct fixture *f, uint32_t child, uint32_t zygote, const char *init)
{
    struct hp_exec_child_spec spec = make_spec(zygote, "", init);
    start_child(f, child, &spec);
    WAIT_UNTIL(f, f->child_is_ready[child]);
}

static void a_zygote_forks_children(void **state)
{
    struct fixture *f = *state;
    int leaked = open("/dev/null", O_RDONLY | O_CLOEXEC); /* as the daemon's others */
    uint32_t zygote = start_zygote(f);
    (void)close(leaked);
    assert_string_equal(f->zygote_text, "words1 few fds 0 1 2 3 4 ");
    start_ready(f, FIRST, zygote, "set up");
    start_ready(f, FIRST + 1, zygote, "set up");
    assert_true(f->child_pid[FIRST] != f->child_pid[FIRST + 1]);
    give(f, FIRST, 1, "", "word");
    give(f, FIRST + 1, 2, "", "about");
    assert_string_equal(wait_call(f, 1)->data, "word");
    /* before and after of the first child's fork, and of its own: the parent's hook is not run */
    const char *about = wait_call(f, 2)->data;
    assert_string_equal(about, "pool 77, sigpipe ignored, hooks 4, fds 0 1 2 3 900 ");
    assert_int_equal(f->died_count, 0);
}

static void commands_and_children_side_by_side(void **state)
{
    struct fixture *f = *state;
    uint32_t zygote = start_zygote(f);
    const struct hp_str argv[] = {hp_str_of("true")};
    struct hp_exec_command command = {.key = 5, .argv = argv, .argv_count = 1, .stdin_fd = -1};
    start_ready(f, FIRST, zygote, "");
    assert_int_equal(hp_exec_command(f->exec, &command, NULL), HP_OK);
    WAIT_UNTIL(f, f->end_count == 1);
    assert_int_equal(f->ends[0].end.cause, HP_EXEC_EXITED);
}

static void expect_init_failure(struct fixture *f, uint32_t zygote, const char *init,
                                const char *text)
{
    struct hp_exec_child_spec spec = make_spec(zygote, "", init);
    uint32_t before = f->died_count;
    start_child(f, FIRST, &spec);
    WAIT_UNTIL(f, f->died_count == before + 1);
    assert_true(f->last_death.init_failed);
    assert_string_equal(f->death_text, text);
    assert_false(f->child_is_ready[FIRST]);
}

static void failures_of_the_set_up_are_told(void **state)
{
    struct fixture *f = *state;
    uint32_t zygote = start_zygote(f);
    expect_init_failure(f, zygote, "fail", "ValueError: bad");
    expect_init_failure(f, zygote, "die",
                        "the child exited with code 9 while it was set up: dying\n");
    start_ready(f, FIRST, zygote, "");
}

static void errors_hold_bytes(void **state)
{
    struct fixture *f = *state;
    start_ready(f, FIRST, start_zygote(f), "");
    give(f, FIRST, 1, "", "error");
    const struct seen_call *seen = wait_call(f, 1);
    assert_int_equal(seen->end.status, HP_EXEC_CALL_ERROR);
    assert_string_equal(seen->data, "ValueError: 7");
    assert_int_equal(seen->end.result_bytes, 7);
    assert_memory_equal(seen->bytes, "\0pickle", 7);
}

static void the_last_of_much_output(void **state)
{
    struct fixture *f = *state;
    start_ready(f, FIRST, start_zygote(f), "");
    give(f, FIRST, 1, "", "print");
    give(f, FIRST, 2, "", "x");
    const struct seen_call *seen = wait_call(f, 1);
    size_t size = strlen(seen->out);
    assert_int_equal(size, HP_EXEC_CALL_OUTPUT_BYTES);
    assert_string_equal(seen->out + size - 18, "line 1999 of many\n");
    assert_string_equal(wait_call(f, 2)->out, "");
    give(f, FIRST, 3, "", "last words");
    seen = wait_call(f, 3);
    assert_int_equal(seen->end.status, HP_EXEC_CALL_SIGNALED);
    assert_int_equal(seen->end.signal, SIGABRT);
    assert_string_equal(seen->out, "on stdout\n");
    assert_string_equal(seen->data, "on stderr\n");
}

/* 16 MiB there and back: the very pages that the caller wrote. */
static void large_payloads_are_not_copied(void **state)
{
    struct fixture *f = *state;
    const size_t bytes = 16u << 20;
    start_ready(f, FIRST, start_zygote(f), "");
    int fd = memfd_create("test", MFD_CLOEXEC);
    char *map = NULL;
    assert_true(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED);
    memset(map, 'm', bytes);
    struct hp_exec_call call = {.key = 1, .payload_fd = fd, .payload_bytes = bytes, .attempt = 1};
    assert_int_equal(hp_exec_call(f->exec, FIRST, &call), HP_OK);
    hp_exec_flush(f->exec);
    const struct seen_call *seen = wait_call(f, 1);
    assert_int_equal(seen->end.status, HP_EXEC_CALL_OK);
    assert_int_equal(seen->end.result_bytes, bytes);
    assert_memory_equal(seen->large, map, bytes);
    (void)munmap(map, bytes);
    (void)close(fd);
}

/* What the child makes of pieces can be sealed; its payload is in a longer file. */
static void large_results_can_be_sealed(void **state)
{
    struct fixture *f = *state;
    const size_t bytes = 1u << 20;
    static const uint8_t near_key[HP_NEAR_KEY_BYTES] = {7};
    start_ready(f, FIRST, start_zygote(f), "");
    f->seals = true;
    int fd = -1;
    assert_int_equal(hp_near_create(&fd), HP_OK);
    char *text = malloc(bytes);
    assert_non_null(text);
    memset(text, 'p', bytes);
    memcpy(text, "pieces", 6);
    assert_true(write(fd, text, bytes) == (ssize_t)bytes);
    assert_int_equal(hp_near_seal(fd, bytes, near_key), HP_OK);
    struct hp_exec_call call = {.key = 1, .payload_fd = fd, .payload_bytes = bytes, .attempt = 1};
    assert_int_equal(hp_exec_call(f->exec, FIRST, &call), HP_OK);
    hp_exec_flush(f->exec);
    const struct seen_call *seen = wait_call(f, 1);
    assert_int_equal(seen->end.result_bytes, bytes);
    assert_int_equal(seen->sealed, HP_OK);
    assert_memory_equal(seen->large, text, bytes);
    free(text);
    (void)close(fd);
}

static void waiting_is_told(void **state)
{
    struct fixture *f = *state;
    char dir[] = "/tmp/hp-test-XXXXXX";
    char path[64];
    char word[80];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/pipe", dir);
    (void)snprintf(word, sizeof word, "wait: %s", path);
    assert_int_equal(mkfifo(path, 0600), 0);
    start_ready(f, FIRST, start_zygote(f), "");
    give(f, FIRST, 1, "", word);
    WAIT_UNTIL(f, f->waits_count == 1);
    assert_true(f->is_waiting);
    assert_true(is_running(f, FIRST));
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_string_equal(wait_call(f, 1)->data, "waited");
    WAIT_UNTIL(f, f->waits_count == 2);
    assert_false(f->is_waiting);
    (void)close(fd);
    (void)unlink(path);
    (void)rmdir(dir);
}

static pid_t parent_of(pid_t pid)
{
    char path[64];
    char text[512] = "";
    int parent = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
    (void)close(fd);
    assert_int_equal(sscanf(strrchr(text, ')') + 1, " %*c %d", &parent), 1);
    return parent;
}

/* Nothing that a zygote's children have begun outlives it; other zygotes and commands do. */
static void a_zygote_dies(void **state)
{
    struct fixture *f = *state;
    uint32_t doomed = start_zygote(f);
    uint32_t other = start_zygote(f);
    assert_true(doomed != other);
    start_ready(f, FIRST, doomed, "");
    start_ready(f, FIRST + 1, other, "");
    give(f, FIRST, 1, "", "orphan");
    give(f, FIRST + 1, 2, "", "orphan");
    pid_t orphan = (pid_t)strtol(wait_call(f, 1)->data, NULL, 10);
    pid_t others_orphan = (pid_t)strtol(wait_call(f, 2)->data, NULL, 10);
    assert_int_equal(kill(parent_of(f->child_pid[FIRST]), SIGKILL), 0);
    WAIT_UNTIL(f, f->zygote_failed_count == 1);
    assert_int_equal(f->last_zygote, doomed);
    assert_non_null(strstr(f->zygote_text, "was killed by signal 9 (Killed)"));
    assert_int_equal(f->died_count, 1); /* told before */
    assert_false(f->last_death.init_failed);
    assert_false(pid_exists(f->child_pid[FIRST]) || pid_exists(orphan));
    assert_true(pid_exists(f->child_pid[FIRST + 1]) && pid_exists(others_orphan));
    assert_int_equal(f->helper_death_count, 0);
    give(f, FIRST + 1, 4, "", "alive");
    assert_string_equal(wait_call(f, 4)->data, "alive");
    struct hp_exec_child_spec spec = make_spec(doomed, "", "");
    struct hp_error error = {0};
    assert_int_equal(hp_exec_child_start(f->exec, FIRST, &spec, &error), HP_ERR_CLOSED);
    start_ready(f, FIRST, start_zygote(f), ""); /* a new one takes its place */
    give(f, FIRST, 5, "", "again");
    assert_string_equal(wait_call(f, 5)->data, "again");
}

static void a_call_dies_with_the_zygote(void **state)
{
    struct fixture *f = *state;
    char dir[] = "/tmp/hp-test-XXXXXX";
    char word[80];
    uint32_t zygote = start_zygote(f);
    assert_non_null(mkdtemp(dir));
    (void)snprintf(word, sizeof word, "%s/pipe", dir);
    assert_int_equal(mkfifo(word, 0600), 0);
    (void)snprintf(word, sizeof word, "wait: %s/pipe", dir);
    start_ready(f, FIRST, zygote, "");
    give(f, FIRST, 1, "", word);
    give(f, FIRST, 2, "", "never");
    WAIT_UNTIL(f, f->is_waiting);
    hp_exec_zygote_stop(f->exec, zygote);
    assert_int_equal(f->call_count, 1);
    assert_int_equal(f->calls[0].end.status, HP_EXEC_CALL_SIGNALED);
    assert_int_equal(f->recall_count, 1);
    assert_int_equal(f->died_count, 1);
    assert_int_equal(f->zygote_failed_count, 0); /* it was asked for */
    assert_false(pid_exists(f->child_pid[FIRST]));
    (void)unlink(word + 6);
    (void)rmdir(dir);
}

static void expect_failure(struct fixture *f, const char *path, const char *how, const char *text)
{
    uint32_t zygote = 0;
    uint32_t before = f->zygote_failed_count;
    struct hp_error error = {0};
    assert_int_equal(try_zygote(f, path, how, &zygote, &error), HP_OK);
    struct hp_exec_child_spec spec = make_spec(zygote, "", "");
    /* May be asked for at once, unless the end is seen already. */
    enum hp_err err = hp_exec_child_start(f->exec, FIRST, &spec, &error);
    assert_true(err == HP_OK || err == HP_ERR_CLOSED);
    WAIT_UNTIL(f, f->zygote_failed_count == before + 1);
    assert_int_equal(f->last_zygote, zygote);
    if (strstr(f->zygote_text, text) == NULL || strstr(f->zygote_text, path) == NULL) {
        fail_msg("for %s it says: %s", how, f->zygote_text);
    }
    if (err == HP_OK) {
        assert_true(f->last_death.init_failed);
        assert_string_equal(f->death_text, f->zygote_text);
    }
}

static void zygotes_that_are_none(void **state)
{
    struct fixture *f = *state;
    uint32_t zygote = 0;
    struct hp_error error = {0};
    uint32_t fds = count_fds();
    assert_int_equal(try_zygote(f, "/no/such/python3", "", &zygote, &error), HP_ERR_IO);
    assert_string_equal(error.text, "/no/such/python3: No such file or directory");
    assert_int_equal(try_zygote(f, "/etc/passwd", "", &zygote, &error), HP_ERR_IO);
    assert_string_equal(error.text, "/etc/passwd: Permission denied");
    expect_failure(f, HP_TEST_ZYGOTE, "exit",
                   "ended with exit code 1: Traceback\n"
                   "ModuleNotFoundError: No module named 'hostpool'");
    expect_failure(f, HP_TEST_ZYGOTE, "garbage", "what is this?");
    expect_failure(f, "/bin/echo", "hello there", "ended with exit code 0: hello there");
    assert_int_equal(f->zygote_ready_count, 0);
    assert_int_equal(f->helper_death_count, 0);
    assert_int_equal(count_fds(), fds);
}

/* One that never gets ready keeps nobody: not its stop, and not the end of the executor. */
static void a_zygote_that_hangs(void **state)
{
    struct fixture *f = *state;
    uint32_t zygote = 0;
    struct hp_error error = {0};
    assert_int_equal(try_zygote(f, HP_TEST_ZYGOTE, "hang", &zygote, &error), HP_OK);
    hp_exec_zygote_stop(f->exec, zygote);
    for (uint32_t i = 0; i < HP_EXEC_ZYGOTES_MAX; i++) {
        assert_int_equal(try_zygote(f, HP_TEST_ZYGOTE, "hang", &zygote, &error), HP_OK);
        assert_int_equal(zygote, i + 1);
    }
    assert_int_equal(try_zygote(f, HP_TEST_ZYGOTE, "hang", &zygote, &error), HP_ERR_FULL);
}

static struct fixture *start_with_beats(uint32_t beat_ms)
{
    struct fixture *f = fixture_new();
    struct hp_exec_config config = fixture_config(f, 2);
    config.pool_children_max = POOL_CHILDREN;
    config.beat_ms = beat_ms;
    return fixture_start(&config, f);
}

/* One that got ready and is stuck since then is ended, and so are its children, through which
 * nobody could be signalled or seen to end any more. Others are not. */
static void a_zygote_that_gets_stuck(void **state)
{
    (void)state;
    struct fixture *f = start_with_beats(50);
    uint32_t other = start_zygote(f);
    start_ready(f, FIRST, other, "");
    uint32_t stuck = 0;
    struct hp_error error = {0};
    assert_int_equal(try_zygote(f, HP_TEST_ZYGOTE, "stuck", &stuck, &error), HP_OK);
    WAIT_UNTIL(f, f->zygote_ready_count == 2);
    start_ready(f, FIRST + 1, stuck, "");
    struct hp_exec_child_spec spec = make_spec(stuck, "", "");
    pid_t pid = f->child_pid[FIRST + 1];
    start_child(f, FIRST + 2, &spec);
    WAIT_UNTIL(f, f->died_count == 2 && f->zygote_failed_count == 1);
    assert_int_equal(f->last_zygote, stuck);
    assert_non_null(strstr(f->zygote_text, "gave no sign of life"));
    assert_false(pid_exists(pid));
    give(f, FIRST, 2, "", "unharmed");
    assert_string_equal(wait_call(f, 2)->data, "unharmed");
    fixture_free(f);
}

/* A task may stop what it came from: that goes on, with all the ends that it owes. */
static void helpers_that_are_stopped(void **state)
{
    (void)state;
    struct fixture *f = start_with_beats(50);
    uint32_t zygote = start_zygote(f);
    start_ready(f, FIRST, zygote, "");
    char children[4096];
    char path[64];
    uint32_t stopped_count = 0;
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    assert_non_null(fgets(children, sizeof children, file));
    (void)fclose(file);
    char *at = children;
    for (pid_t pid; (pid = (pid_t)strtol(at, &at, 10)) > 0; stopped_count++) {
        assert_int_equal(kill(pid, SIGSTOP), 0);
    }
    assert_int_equal(stopped_count, 2);
    struct hp_str argv[1] = {HP_STR_INIT("true")};
    struct hp_exec_command command = {.key = 1, .argv = argv, .argv_count = 1, .stdin_fd = -1};
    assert_int_equal(hp_exec_command(f->exec, &command, NULL), HP_OK);
    start_ready(f, FIRST + 1, zygote, "");
    WAIT_UNTIL(f, f->end_count == 1);
    assert_int_equal(f->ends[0].end.cause, HP_EXEC_EXITED);
    assert_int_equal(f->helper_death_count + f->zygote_failed_count + f->died_count, 0);
    fixture_free(f);
}

/* The switch was set before the zygote was started, and holds for its children, too. */
static void the_dead_mans_switch(void **state)
{
    struct fixture *f = *state;
    hp_exec_set_deadline(f->exec, hp_clock_boot_ms() + 400);
    uint32_t zygote = start_zygote(f);
    struct hp_exec_child_spec spec = make_spec(zygote, "", "");
    start_child(f, FIRST, &spec);
    start_child(f, FIRST + 1, &spec);
    WAIT_UNTIL(f, f->child_is_ready[FIRST] && f->child_is_ready[FIRST + 1]);
    char dir[] = "/tmp/hp-test-XXXXXX";
    char word[80];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(word, sizeof word, "%s/pipe", dir);
    assert_int_equal(mkfifo(word, 0600), 0);
    (void)snprintf(word, sizeof word, "wait: %s/pipe", dir);
    struct hp_exec_call call = {.key = 1,
                                .payload = hp_bin_make(word, strlen(word)),
                                .payload_fd = -1,
                                .kill_on_partition = true};
    assert_int_equal(hp_exec_call(f->exec, FIRST, &call), HP_OK);
    hp_exec_flush(f->exec);
    WAIT_UNTIL(f, f->call_count == 1);
    assert_true(f->calls[0].end.fenced);
    give(f, FIRST + 1, 2, "", "unharmed");
    assert_string_equal(wait_call(f, 2)->data, "unharmed");
    (void)unlink(word + 6);
    (void)rmdir(dir);
}

static void slots_are_used_again(void **state)
{
    struct fixture *f = *state;
    uint32_t zygote = start_zygote(f);
    struct hp_exec_child_spec spec = make_spec(zygote, "", "");
    uint32_t fds = 0;
    uint64_t kb = 0;
    spec.calls_max = 2;
    for (uint32_t round = 0; round < 200; round++) {
        uint32_t child = FIRST + round % POOL_CHILDREN;
        start_child(f, child, &spec);
        WAIT_UNTIL(f, f->child_is_ready[child]);
        give(f, child, 1, "", "a");
        give(f, child, 2, "", "b");
        WAIT_UNTIL(f, f->died_count == round + 1);
        assert_true(f->last_death.recycled);
        assert_int_equal(f->ok_count, 2);
        forget_calls(f);
        if (round == 20) {
            fds = count_fds();
            kb = shared_kb();
        }
    }
    assert_int_equal(count_fds(), fds);
    assert_true(shared_kb() <= kb);
}

int main(void)
{
#define EXEC_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        EXEC_TEST(a_zygote_forks_children),
        EXEC_TEST(commands_and_children_side_by_side),
        EXEC_TEST(failures_of_the_set_up_are_told),
        EXEC_TEST(errors_hold_bytes),
        EXEC_TEST(the_last_of_much_output),
        EXEC_TEST(large_payloads_are_not_copied),
        EXEC_TEST(large_results_can_be_sealed),
        EXEC_TEST(waiting_is_told),
        EXEC_TEST(a_zygote_dies),
        EXEC_TEST(a_call_dies_with_the_zygote),
        EXEC_TEST(zygotes_that_are_none),
        EXEC_TEST(a_zygote_that_hangs),
        cmocka_unit_test(a_zygote_that_gets_stuck),
        cmocka_unit_test(helpers_that_are_stopped),
        EXEC_TEST(the_dead_mans_switch),
        EXEC_TEST(slots_are_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
