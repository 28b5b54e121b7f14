/* SPDX-License-Identifier: BSD-2-Clause */
/* Processes that do all they can not to end with their task, and process ids that are used again.
 * Real processes. */
#include "tests/unit/exec_words.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

/* The number in line `line` of what the followed command said. */
static pid_t said_pid(struct fixture *f, uint32_t line)
{
    const char *at = (const char *)f->output.data;
    const char *end = at + f->output.size;
    for (; line > 0 && at < end; line--) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        at = stop == NULL ? end : stop + 1;
    }
    const char *stop = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;
    return stop == NULL ? 0 : (pid_t)strtol(at, NULL, 10);
}

/* How to leave one's task; each line says its process id and would stay for ever. */
static const char *const escapes[] = {
    /* a session of its own, no environment: neither group nor marker tell whose it is */
    "env -i setsid -f sh -c 'echo $$; exec sleep 1000'",
    /* the same, twice, so that its parents are gone as well */
    "env -i setsid -f sh -c 'env -i setsid -f sh -c \"echo \\$\\$; exec sleep 1000\"'",
    /* a textbook daemon: deaf, no files, in a session whose leader has gone */
    ("env -i setsid sh -c 'trap \"\" HUP TERM INT; cd /;"
     " sh -c \"echo \\$\\$; exec 0<&- 2>&-; exec sleep 1000\" & exit 0'"),
    /* stopped: it can not even be told */
    "env -i setsid -f sh -c 'echo $$; kill -STOP $$; sleep 1000'",
};

/* The task of an escaped process ends while another runs, which must not be a hiding place. */
static void what_hides_is_found(void **state)
{
    struct fixture *f = *state;
    struct words words;
    WORDS(&words, 1, "sleep", "1000");
    start(f, &words);
    for (uint32_t i = 0; i < HP_COUNT_OF(escapes); i++) {
        char line[512];
        (void)snprintf(line, sizeof line, "%s; read x", escapes[i]);
        int go[2];
        assert_int_equal(pipe2(go, O_CLOEXEC), 0);
        WORDS(&words, 2 + i, "sh", "-c", line);
        words.command.stdin_fd = go[0];
        words.command.follow = true;
        start(f, &words);
        (void)close(go[0]);
        WAIT_UNTIL(f, said_pid(f, i) > 0);
        pid_t hidden = said_pid(f, i);
        assert_true(hidden > 1 && pid_exists(hidden));
        assert_int_equal(f->end_count, i);
        f->output_next = 0;
        (void)close(go[1]);
        WAIT_UNTIL(f, f->end_count == i + 1);
        WAIT_UNTIL(f, !pid_exists(hidden));
    }
    assert_int_equal(hp_exec_command_count(f->exec), 1);
}

/* What escaped from a task that runs is none of the others' business. */
static void what_runs_keeps_its_own(void **state)
{
    struct fixture *f = *state;
    struct words words;
    WORDS(&words, 1, "sh", "-c", "env -i setsid -f sh -c 'echo $$; exec sleep 1000'; sleep 1000");
    words.command.follow = true;
    start(f, &words);
    WAIT_UNTIL(f, said_pid(f, 0) > 0);
    pid_t hidden = said_pid(f, 0);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(sh(f, "env -i setsid -f sleep 1000")->end.exit_code, 0);
    }
    assert_true(pid_exists(hidden));
    assert_int_equal(hp_exec_kill(f->exec, 1, SIGKILL), HP_OK);
    WAIT_UNTIL(f, !pid_exists(hidden));
}

/* Processes that have a word on their command line. */
static uint32_t count_named(const char *word)
{
    uint32_t count = 0;
    DIR *dir = opendir("/proc");
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[300];
        char text[4096];
        (void)snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text);
        count += size > 0 && memmem(text, (size_t)size, word, strlen(word)) != NULL;
        if (fd >= 0) {
            (void)close(fd);
        }
    }
    (void)closedir(dir);
    return count;
}

/* One that never stands still: each process of it starts the next one in a new session and ends.
 * Its file stays, so it ends only by being caught. */
static void a_walker_is_caught(void **state)
{
    struct fixture *f = *state;
    struct words words;
    char script[] = "/tmp/hp-walker-XXXXXX";
    static const char text[] = "#!/bin/sh\nexec env -i setsid -f \"$0\"\n";
    int fd = mkstemp(script);
    uint32_t quiet = 0;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    assert_int_equal(fchmod(fd, 0700), 0);
    (void)close(fd);
    WORDS(&words, 1, "sleep", "1000");
    start(f, &words);
    WORDS(&words, 2, script);
    start(f, &words);
    WAIT_UNTIL(f, f->end_count == 1);
    assert_int_equal(f->ends[0].end.cause, HP_EXEC_EXITED);
    WAIT_UNTIL(f, (quiet = count_named(script) == 0 ? quiet + 1 : 0) >= 20);
    assert_int_equal(unlink(script), 0);
}

/* ---------------------------------------------------------------- ends that are looked at */

/* Children of a process, zombies among them. */
static uint32_t count_children(pid_t pid)
{
    char path[64];
    char text[65536];
    uint32_t count = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t size = read(fd, text, sizeof text);
    (void)close(fd);
    for (ssize_t i = 0; i < size; i++) {
        count += text[i] == ' ';
    }
    return count;
}

/* Each command leaves a child that ends after it and one that ended before: all are reaped. */
static void no_zombies(void **state)
{
    struct fixture *f = *state;
    static const uint32_t commands = 700;
    struct words words;
    uint32_t started = 0;
    pid_t spawner = (pid_t)strtol(sh(f, "echo $PPID")->out, NULL, 10);
    assert_true(spawner > 1);
    while (f->end_count < commands) {
        while (started + 1 < commands && hp_exec_command_count(f->exec) < 8) {
            WORDS(&words, ++started, "sh", "-c", "true & setsid -f true");
            start(f, &words);
        }
        serve(f, 10);
    }
    WAIT_UNTIL(f, count_children(spawner) == 0);
}

/* In the processes below an assertion of cmocka would go on in the wrong place. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                  \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

#define REUSED_PID 1001

/* The next process of this namespace gets REUSED_PID if that is free. */
static void set_next_pid(void)
{
    int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
    MUST(fd >= 0 && write(fd, "1000", 4) == 4);
    (void)close(fd);
}

static void wait_pid(bool is_there)
{
    uint64_t give_up_ms = hp_clock_mono_ms() + PATIENCE_MS;
    while ((kill(REUSED_PID, 0) == 0) != is_there) {
        MUST(hp_clock_mono_ms() < give_up_ms);
        (void)poll(NULL, 0, 1);
    }
}

/* A command has ended and been reaped, which the daemon does not know yet, and the next one has its
 * process id: the signal for the first must not reach it. */
static void reuse_in_namespace(void)
{
    struct fixture *f = fixture_new();
    struct hp_exec_config config = fixture_config(f, 8);
    MUST(hp_exec_start(&config, &f->exec, NULL) == HP_OK);
    for (uint64_t i = 0; i < 50; i++) {
        struct words words;
        int go[2];
        MUST(pipe2(go, O_CLOEXEC) == 0);
        WORDS(&words, 2 * i, "sh", "-c", "read x");
        words.command.stdin_fd = go[0];
        set_next_pid();
        MUST(hp_exec_command(f->exec, &words.command, NULL) == HP_OK);
        wait_pid(true);
        (void)close(go[1]);
        wait_pid(false);
        (void)close(go[0]);
        MUST(pipe2(go, O_CLOEXEC) == 0);
        WORDS(&words, 2 * i + 1, "sh", "-c", "read x; exit 5");
        words.command.stdin_fd = go[0];
        set_next_pid();
        MUST(hp_exec_command(f->exec, &words.command, NULL) == HP_OK);
        wait_pid(true);
        MUST(hp_exec_kill(f->exec, 2 * i, SIGKILL) == HP_OK); /* for the daemon it still runs */
        uint64_t give_up_ms = hp_clock_mono_ms() + PATIENCE_MS;
        for (; f->end_count < 2 * (uint32_t)i + 2; serve(f, 10)) {
            MUST(hp_clock_mono_ms() < give_up_ms);
            if (go[1] >= 0 && f->started_count == 2 * (uint32_t)i + 2) {
                MUST(f->last_pid == REUSED_PID);
                (void)close(go[1]);
                go[1] = -1;
            }
        }
        (void)close(go[0]);
        MUST(f->ends[(2 * i + 1) % KEPT_MAX].end.cause == HP_EXEC_EXITED);
        MUST(f->ends[(2 * i + 1) % KEPT_MAX].end.exit_code == 5);
    }
    _exit(0);
}

static void process_ids_are_used_again(void **state)
{
    int status = 0;
    (void)state;
    pid_t outer = fork();
    if (outer == 0) {
        MUST(unshare(CLONE_NEWPID | CLONE_NEWNS) == 0); /* this test needs root */
        pid_t inner = fork();
        if (inner == 0) {
            MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
            MUST(mount("proc", "/proc", "proc", 0, NULL) == 0);
            reuse_in_namespace();
        }
        MUST(inner > 0 && waitpid(inner, &status, 0) == inner);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    }
    assert_true(outer > 0);
    assert_int_equal(waitpid(outer, &status, 0), outer);
    assert_int_equal(status, 0);
}

int main(void)
{
#define EXEC_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        EXEC_TEST(what_hides_is_found),
        EXEC_TEST(what_runs_keeps_its_own),
        EXEC_TEST(a_walker_is_caught),
        EXEC_TEST(no_zombies),
        cmocka_unit_test(process_ids_are_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
