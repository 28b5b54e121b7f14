/* SPDX-License-Identifier: BSD-2-Clause */
/* The ends that commands do not choose: signals, leftovers, the daemon's death, the switch. */
#include "tests/unit/exec_words.h"

#include <sys/wait.h>

static bool is_stopped(pid_t pid)
{
    char path[64];
    char text[512] = "";
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    (void)close(fd);
    return strrchr(text, ')')[2] == 'T';
}

static void a_signal_reaches_the_whole_group(void **state)
{
    struct fixture *f = *state;
    struct words words;
    WORDS(&words, 1, "sh", "-c", "sleep 1000 & sleep 1000 & kill -STOP $$; wait");
    words.command.follow = true;
    start(f, &words);
    WAIT_UNTIL(f, f->started_count == 1 && is_stopped(f->last_pid));
    assert_int_equal(hp_exec_kill(f->exec, 1, SIGTERM), HP_OK); /* CONT follows */
    WAIT_UNTIL(f, f->end_count == 1);
    assert_int_equal(f->ends[0].end.signal, SIGTERM);
}

/* The number in a line of output. */
static pid_t pid_of(const char *line)
{
    int pid = 0;
    assert_int_equal(sscanf(line, "%d", &pid), 1);
    return pid;
}

/* The end is the process's end, whoever still holds its pipes; and nobody is left. */
static void leftovers_hold_no_end_back(void **state)
{
    struct fixture *f = *state;
    static const char *const shapes[] = {
        "sleep 1000 & echo $!",
        "(sleep 1000 &) ; echo 0",
        "sh -c 'sleep 1000 & echo $!'",
        "nohup sleep 1000 & echo $!",
        "{ sleep 1000; } & echo $!",
        "sleep 1000 | sleep 1000 & echo $!",
        "setsid sleep 1000 & echo $!",
        "setsid -f sleep 1000; echo 0",
        "(trap '' TERM HUP; sleep 1000) & echo $!",
        "setsid sh -c 'setsid sleep 1000 & sleep 1000' & echo $!",
    };
    for (size_t i = 0; i < HP_COUNT_OF(shapes); i++) {
        const struct seen_end *seen = sh(f, shapes[i]);
        assert_int_equal(seen->end.cause, HP_EXEC_EXITED);
        pid_t left = pid_of(seen->out);
        if (left > 0) {
            WAIT_UNTIL(f, !pid_exists(left));
        }
    }
}

/* Processes of this user that carry a variable in their environment. */
static uint32_t count_marked(const char *marker)
{
    uint32_t count = 0;
    DIR *dir = opendir("/proc");
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[300];
        static char env[65536];
        (void)snprintf(path, sizeof path, "/proc/%s/environ", entry->d_name);
        int fd = entry->d_name[0] >= '1' && entry->d_name[0] <= '9'
                     ? open(path, O_RDONLY | O_CLOEXEC)
                     : -1;
        ssize_t size = fd < 0 ? 0 : read(fd, env, sizeof env);
        if (size > 0 && memmem(env, (size_t)size, marker, strlen(marker)) != NULL) {
            count++;
        }
        if (fd >= 0) {
            (void)close(fd);
        }
    }
    (void)closedir(dir);
    return count;
}

/* A daemonised process of one task goes with its task, that of another which runs stays. */
static void escapes_belong_to_their_task(void **state)
{
    struct fixture *f = *state;
    struct words words;
    struct hp_str env = hp_str_of("HP_TEST_ESCAPE=first");
    WORDS(&words, 1, "sh", "-c", "setsid -f sh -c 'echo $$; exec sleep 1000'; exec sleep 1000");
    words.command.env = &env;
    words.command.env_count = 1;
    words.command.follow = true;
    start(f, &words);
    WAIT_UNTIL(f, f->output.size > 0);
    assert_int_equal(hp_buf_append_byte(&f->output, '\0'), HP_OK);
    pid_t escaped = pid_of((const char *)f->output.data);
    env = hp_str_of("HP_TEST_ESCAPE=second");
    for (uint32_t i = 0; i < 20; i++) { /* it is a race: the leader ends while the other execs */
        WORDS(&words, 2 + i, "sh", "-c", "setsid -f sleep 1000");
        words.command.env = &env;
        words.command.env_count = 1;
        start(f, &words);
        WAIT_UNTIL(f, f->end_count == i + 1);
        WAIT_UNTIL(f, count_marked("HP_TEST_ESCAPE=second") == 0);
    }
    assert_true(pid_exists(escaped));
    assert_int_equal(hp_exec_kill(f->exec, 1, SIGKILL), HP_OK);
    WAIT_UNTIL(f, count_marked("HP_TEST_ESCAPE=first") == 0);
    WAIT_UNTIL(f, !pid_exists(escaped));
}

/* Somebody else holds the pipe for good: the end comes all the same. */
static void a_held_pipe_holds_no_end_back(void **state)
{
    struct fixture *f = *state;
    char path[64];
    struct words words;
    WORDS(&words, 1, "sh", "-c", "echo said; exec sleep 1000");
    words.command.follow = true;
    start(f, &words);
    WAIT_UNTIL(f, f->output.size > 0 && f->started_count == 1);
    (void)snprintf(path, sizeof path, "/proc/%d/fd/1", (int)f->last_pid);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(hp_exec_kill(f->exec, 1, SIGTERM), HP_OK);
    WAIT_UNTIL(f, f->end_count == 1);
    assert_int_equal(f->ends[0].end.signal, SIGTERM);
    assert_string_equal(f->ends[0].out, "said\n");
    assert_int_equal(write(fd, "x", 1), -1); /* our end is closed */
    (void)close(fd);
}

/* In a process of its own: an executor with running commands dies without a word. */
static void the_daemons_death_kills_all(void **state)
{
    struct fixture *f = *state;
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    pid_t daemon = fork();
    if (daemon == 0) {
        struct fixture *own = fixture_new();
        struct hp_exec_config config = fixture_config(own, 4);
        (void)fixture_start(&config, own);
        struct hp_str env = hp_str_of("HP_TEST_DAEMON=1");
        struct words words;
        for (uint64_t key = 0; key < 4; key++) {
            WORDS(&words, key, "sh", "-c", "trap '' TERM; sleep 1000 & setsid -f sleep 1000; wait");
            words.command.env = &env;
            words.command.env_count = 1;
            start(own, &words);
        }
        WAIT_UNTIL(own, own->started_count == 4 && count_marked("HP_TEST_DAEMON=1") >= 12);
        (void)!write(pipe_fds[1], "x", 1);
        (void)kill(getpid(), SIGKILL);
    }
    char byte;
    assert_int_equal(read(pipe_fds[0], &byte, 1), 1);
    assert_int_equal(waitpid(daemon, NULL, 0), daemon);
    WAIT_UNTIL(f, count_marked("HP_TEST_DAEMON=1") == 0);
    (void)close(pipe_fds[0]);
    (void)close(pipe_fds[1]);
}

static void the_dead_mans_switch(void **state)
{
    struct fixture *f = *state;
    struct words words;
    hp_exec_set_deadline(f->exec, hp_clock_boot_ms() + 100000);
    WORDS(&words, 1, "sleep", "1000");
    words.command.kill_on_partition = true;
    start(f, &words);
    WORDS(&words, 2, "sleep", "1000");
    start(f, &words);
    WAIT_UNTIL(f, f->started_count == 2);
    hp_exec_set_deadline(f->exec, hp_clock_boot_ms() + 50);
    WAIT_UNTIL(f, f->end_count == 1);
    assert_int_equal(f->ends[0].key, 1);
    assert_int_equal(f->ends[0].end.signal, SIGKILL);
    assert_true(f->ends[0].end.fenced);
    assert_false(f->ends[0].end.oom);
    assert_int_equal(hp_exec_command_count(f->exec), 1);
    hp_exec_set_deadline(f->exec, 0);
    WORDS(&words, 3, "true");
    words.command.kill_on_partition = true;
    start(f, &words);
    WAIT_UNTIL(f, f->end_count == 2);
    assert_int_equal(f->ends[1].end.exit_code, 0);
}

/* The helper does it alone: nobody serves the executor meanwhile. */
static void the_switch_needs_no_daemon(void **state)
{
    struct fixture *f = *state;
    struct words words;
    WORDS(&words, 1, "sleep", "1000");
    words.command.kill_on_partition = true;
    start(f, &words);
    WAIT_UNTIL(f, f->started_count == 1);
    pid_t pid = f->last_pid;
    hp_exec_set_deadline(f->exec, hp_clock_boot_ms() + 20);
    uint64_t give_up_ms = hp_clock_mono_ms() + PATIENCE_MS;
    while (pid_exists(pid)) {
        assert_true(hp_clock_mono_ms() < give_up_ms);
        (void)poll(NULL, 0, 1);
    }
    assert_int_equal(f->end_count, 0);
}

static void the_spawners_death_is_told(void **state)
{
    struct fixture *f = *state;
    struct words words;
    WORDS(&words, 1, "sh", "-c", "echo $PPID; exec sleep 1000");
    words.command.follow = true;
    start(f, &words);
    WAIT_UNTIL(f, f->output.size > 0 && f->started_count == 1);
    pid_t child = f->last_pid;
    assert_int_equal(hp_buf_append_byte(&f->output, '\0'), HP_OK);
    pid_t spawner = pid_of((const char *)f->output.data);
    assert_true(spawner > 1);
    assert_int_equal(kill(spawner, SIGKILL), 0);
    WAIT_UNTIL(f, f->helper_death_count == 1);
    assert_int_equal(f->end_count, 1);
    assert_int_equal(f->ends[0].end.cause, HP_EXEC_LOST);
    assert_non_null(strstr(f->helper_text, "signal 9"));
    WAIT_UNTIL(f, !pid_exists(child));
    WORDS(&words, 2, "true");
    assert_int_equal(hp_exec_command(f->exec, &words.command, NULL), HP_ERR_CLOSED);
}

static size_t count_lines(const struct fixture *f)
{
    size_t count = 0;
    for (size_t i = 0; i < f->output.size; i++) {
        count += f->output.data[i] == '\n';
    }
    return count;
}

/* Nobody is told of the end of a task whose processes are still there: not below the command, and
 * not beside it in a session of its own. */
static void the_spawners_death_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct words words;
    WORDS(&words, 1, "sh", "-c", "setsid sleep 1000 & echo $PPID $!; sleep 1000 & echo $!; wait");
    words.command.follow = true;
    start(f, &words);
    WAIT_UNTIL(f, count_lines(f) == 2 && f->started_count == 1);
    assert_int_equal(hp_buf_append_byte(&f->output, '\0'), HP_OK);
    char *rest = NULL;
    pid_t spawner = (pid_t)strtol((const char *)f->output.data, &rest, 10);
    pid_t beside = (pid_t)strtol(rest, &rest, 10);
    pid_t below = (pid_t)strtol(rest, &rest, 10);
    assert_true(spawner > 1 && below > 1 && beside > 1);
    assert_true(pid_exists(below) && pid_exists(beside));
    assert_int_equal(kill(spawner, SIGKILL), 0);
    WAIT_UNTIL(f, f->helper_death_count == 1);
    assert_false(pid_exists(below));
    assert_false(pid_exists(beside));
}

int main(void)
{
#define EXEC_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        EXEC_TEST(a_signal_reaches_the_whole_group),  EXEC_TEST(leftovers_hold_no_end_back),
        EXEC_TEST(a_held_pipe_holds_no_end_back),     EXEC_TEST(escapes_belong_to_their_task),
        EXEC_TEST(the_daemons_death_kills_all),       EXEC_TEST(the_dead_mans_switch),
        EXEC_TEST(the_switch_needs_no_daemon),        EXEC_TEST(the_spawners_death_is_told),
        EXEC_TEST(the_spawners_death_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
