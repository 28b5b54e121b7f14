/* SPDX-License-Identifier: BSD-2-Clause */
/* Commands: ends, errors, environment, output. Real processes. */
#include "tests/unit/exec_words.h"

#include <sys/epoll.h>

#include "worker/exec/exec_priv.h"

static void exit_codes_and_output(void **state)
{
    struct fixture *f = *state;
    const struct seen_end *seen = sh(f, "echo hello; echo oops >&2; exit 7");
    assert_int_equal(seen->end.cause, HP_EXEC_EXITED);
    assert_int_equal(seen->end.exit_code, 7);
    assert_string_equal(seen->out, "hello\n");
    assert_string_equal(seen->err, "oops\n");
    assert_int_equal(seen->end.out.total_bytes, 6);
    assert_false(seen->end.out.truncated);
    assert_true(seen->end.usage.maxrss_kb > 0);
    assert_int_equal(f->started_count, 1);
    assert_int_equal(hp_exec_command_count(f->exec), 0);
    assert_int_equal(sh(f, "exit 0")->end.exit_code, 0);
}

static void death_by_signal(void **state)
{
    struct fixture *f = *state;
    const struct seen_end *seen = sh(f, "kill -ABRT $$");
    assert_int_equal(seen->end.cause, HP_EXEC_SIGNALED);
    assert_int_equal(seen->end.signal, SIGABRT);
    assert_false(seen->end.fenced);
}

static void expect_not_started(struct fixture *f, struct words *words, int error_number)
{
    uint32_t before = f->end_count;
    start(f, words);
    WAIT_UNTIL(f, f->end_count > before);
    const struct seen_end *seen = &f->ends[before % KEPT_MAX];
    assert_int_equal(seen->end.cause, HP_EXEC_NOT_STARTED);
    assert_int_equal(seen->end.error_number, error_number);
    assert_true(strlen(seen->text) > 0);
}

static void what_can_not_start(void **state)
{
    struct fixture *f = *state;
    struct words words;
    WORDS(&words, 1, "/no/such/program");
    expect_not_started(f, &words, ENOENT);
    WORDS(&words, 2, "no-such-program-in-path");
    expect_not_started(f, &words, ENOENT);
    assert_string_equal(f->ends[1].text, "exec no-such-program-in-path: No such file or directory");
    WORDS(&words, 3, "");
    expect_not_started(f, &words, ENOENT);
    WORDS(&words, 4, "/etc/passwd");
    expect_not_started(f, &words, EACCES);
    WORDS(&words, 5, "/bin/true");
    words.command.cwd = hp_str_of("/no/such/dir");
    expect_not_started(f, &words, ENOENT);
    assert_string_equal(f->ends[4].text, "chdir /no/such/dir: No such file or directory");
    assert_int_equal(f->started_count, 0);
}

static void too_many_arguments(void **state)
{
    struct fixture *f = *state;
    struct words words;
    size_t size = 8 * 1024 * 1024;
    char *more = malloc(size);
    assert_non_null(more);
    for (size_t i = 0; i < size; i++) {
        more[i] = i % 1024 == 1023 ? '\0' : 'x';
    }
    WORDS(&words, 1, "/bin/true");
    words.command.argv_more = hp_bin_make(more, size);
    expect_not_started(f, &words, E2BIG);
    free(more);
}

static void long_arguments_arrive(void **state)
{
    struct fixture *f = *state;
    struct words words;
    size_t size = 100 * 1024; /* more than a message holds */
    char *more = malloc(size);
    assert_non_null(more);
    memset(more, 'y', size);
    more[size / 2 - 1] = '\0';
    more[size - 1] = '\0';
    WORDS(&words, 1, "/bin/sh", "-c", "echo $# ${#1} ${#2}", "sh");
    words.command.argv_more = hp_bin_make(more, size);
    start(f, &words);
    WAIT_UNTIL(f, f->end_count == 1);
    assert_string_equal(f->ends[0].out, "2 51199 51199\n");
    free(more);
}

static void bad_commands_are_refused(void **state)
{
    struct fixture *f = *state;
    struct words words;
    struct hp_error error;
    WORDS(&words, 1, "/bin/true");
    words.command.argv_count = 0;
    assert_int_equal(hp_exec_command(f->exec, &words.command, &error), HP_ERR_INVALID);
    WORDS(&words, 1, "/bin/true");
    struct hp_str env = hp_str_of("NOEQUALS");
    words.command.env = &env;
    words.command.env_count = 1;
    assert_int_equal(hp_exec_command(f->exec, &words.command, &error), HP_ERR_INVALID);
    WORDS(&words, 1, "/bin/true");
    words.argv[0] = hp_str_make("a\0b", 3);
    assert_int_equal(hp_exec_command(f->exec, &words.command, &error), HP_ERR_INVALID);
    WORDS(&words, 1, "/bin/true");
    words.command.argv_more = hp_bin_make("x", 1);
    assert_int_equal(hp_exec_command(f->exec, &words.command, &error), HP_ERR_INVALID);
}

static int compare_lines(const void *left, const void *right)
{
    const char *const *a = left;
    const char *const *b = right;
    return strcmp(*a, *b);
}

static void clean_environment(void **state)
{
    struct fixture *f = *state;
    struct words words;
    WORDS(&words, 1, "/usr/bin/env");
    struct hp_str env[3] = {HP_STR_INIT("MINE=1"), HP_STR_INIT("LANG=xx"), HP_STR_INIT("MINE=2")};
    words.command.env = env;
    words.command.env_count = 3;
    start(f, &words);
    WAIT_UNTIL(f, f->end_count == 1);
    char *lines[32];
    size_t count = 0;
    for (char *at = f->ends[0].out; *at != '\0' && count < HP_COUNT_OF(lines);) {
        char *end = strchrnul(at, '\n');
        bool is_last = *end == '\0';
        *end = '\0';
        if (strncmp(at, "HOSTPOOL_RUN=", 13) != 0 && strncmp(at, "HOME=", 5) != 0) {
            lines[count++] = at;
        }
        at = is_last ? end : end + 1;
    }
    qsort(lines, count, sizeof lines[0], compare_lines);
    const char *const want[] = {
        "HOSTPOOL_ARRAY_INDEX=5",
        "HOSTPOOL_ATTEMPT=3",
        "HOSTPOOL_EPOCH=7",
        "HOSTPOOL_TASK_ID=42",
        "LANG=xx",
        "MINE=2",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TMPDIR=/tmp",
    };
    assert_int_equal(count, HP_COUNT_OF(want));
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(lines[i], want[i]);
    }
}

static void working_directory_and_path_search(void **state)
{
    struct fixture *f = *state;
    struct words words;
    WORDS(&words, 1, "pwd");
    words.command.cwd = hp_str_of("/usr/bin");
    start(f, &words);
    WAIT_UNTIL(f, f->end_count == 1);
    assert_string_equal(f->ends[0].out, "/usr/bin\n");
    assert_string_equal(sh(f, "pwd")->out, "/tmp\n");
}

static void input_of_any_size(void **state)
{
    struct fixture *f = *state;
    const size_t sizes[] = {0, 5, 65536, 65537, 3000000};
    for (size_t i = 0; i < HP_COUNT_OF(sizes); i++) {
        struct words words;
        char *data = calloc(sizes[i] + 1, 1);
        char want[32];
        assert_non_null(data);
        WORDS(&words, i, "wc", "-c");
        words.command.stdin_data = hp_bin_make(data, sizes[i]);
        start(f, &words);
        free(data);
        WAIT_UNTIL(f, f->end_count == i + 1);
        (void)snprintf(want, sizeof want, "%zu\n", sizes[i]);
        assert_string_equal(f->ends[i].out, want);
    }
    struct words unread;
    char data[4096] = {0};
    WORDS(&unread, 99, "/bin/true");
    unread.command.stdin_data = hp_bin_make(data, sizeof data);
    start(f, &unread);
    WAIT_UNTIL(f, f->end_count == HP_COUNT_OF(sizes) + 1);
    assert_int_equal(f->ends[HP_COUNT_OF(sizes)].end.exit_code, 0);
}

static void input_from_a_descriptor(void **state)
{
    struct fixture *f = *state;
    struct words words;
    int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    WORDS(&words, 1, "head", "-c", "4");
    words.command.stdin_fd = fd;
    start(f, &words);
    (void)close(fd);
    WAIT_UNTIL(f, f->end_count == 1);
    assert_string_equal(f->ends[0].out, "root");
}

/* The state a program finds: only 0, 1, 2 open; nothing blocked, ignored; no core; own session. */
static void nothing_is_inherited(void **state)
{
    struct fixture *f = *state;
    const struct seen_end *seen = sh(f, "ls /proc/self/fd | tr '\\n' ' '; grep -E '^Sig(Blk|Ign)' "
                                        "/proc/self/status | tr '\\n\\t' '  ';"
                                        " ulimit -c; cut -d' ' -f5,6 /proc/$$/stat; echo $$ $$");
    char fds[64];
    char blocked[64];
    char ignored[64];
    unsigned core = 1;
    int group = 0;
    int session = -1;
    int pid = -2;
    /* ls holds one of its own: its directory, 3. */
    int got = sscanf(seen->out, "0 1 2 %63s SigBlk: %63s SigIgn: %63s %u %d %d %d", fds, blocked,
                     ignored, &core, &group, &session, &pid);
    assert_int_equal(got, 7);
    assert_string_equal(fds, "3");
    assert_string_equal(blocked, "0000000000000000");
    assert_string_equal(ignored, "0000000000000000");
    assert_int_equal(core, 0);
    assert_int_equal(group, pid);
    assert_int_equal(session, pid);
}

static void output_is_capped_and_keeps_the_tail(void **state)
{
    struct fixture *f = *state;
    struct words words;
    WORDS(&words, 1, "seq", "1", "100000");
    words.command.output_cap_bytes = 1000;
    start(f, &words);
    WAIT_UNTIL(f, f->end_count == 1);
    assert_int_equal(f->ends[0].end.out.total_bytes, 588895);
    assert_true(f->ends[0].end.out.truncated);
    assert_int_equal(f->ends[0].out_bytes, 1000);
    assert_string_equal(f->ends[0].out + 1000 - 14, "\n99999\n100000\n");
    WORDS(&words, 2, "seq", "1", "10");
    words.command.output_cap_bytes = 0;
    start(f, &words);
    WAIT_UNTIL(f, f->end_count == 2);
    assert_int_equal(f->ends[1].end.out.total_bytes, 21);
    assert_int_equal(f->ends[1].out_bytes, 0);
}

static long resident_kb(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*d %ld", &pages), 1);
    (void)fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void a_flood_starves_nobody(void **state)
{
    struct fixture *f = *state;
    struct words words;
    long before_kb = resident_kb();
    WORDS(&words, 1, "sh", "-c", "yes | head -c 200000000");
    start(f, &words);
    for (int i = 0; i < 5; i++) {
        WORDS(&words, 10 + (uint64_t)i, "echo", "small");
        uint32_t before = f->end_count;
        start(f, &words);
        WAIT_UNTIL(f, f->end_count > before);
    }
    WAIT_UNTIL(f, f->end_count == 6);
    uint64_t total = 0;
    for (int i = 0; i < 6; i++) {
        total += f->ends[i].end.out.total_bytes;
    }
    assert_int_equal(total, 200000000 + 5 * 6);
    assert_true(resident_kb() - before_kb < 16 * 1024);
}

static void following(void **state)
{
    struct fixture *f = *state;
    struct words words;
    WORDS(&words, 1, "seq", "1", "100000");
    words.command.follow = true;
    words.command.output_cap_bytes = 10;
    start(f, &words);
    WAIT_UNTIL(f, f->end_count == 1);
    assert_int_equal(f->output.size, 588895);
    assert_int_equal(f->gap_count, 0);
    assert_int_equal(f->ends[0].out_bytes, 10);
}

static void following_later_replays(void **state)
{
    struct fixture *f = *state;
    struct words words;
    int go[2];
    char *line = NULL;
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    WORDS(&words, 1, "sh", "-c", "echo first; read x; echo second");
    words.command.stdin_fd = go[0];
    start(f, &words);
    (void)close(go[0]);
    WAIT_UNTIL(f, f->started_count == 1);
    assert_int_equal(hp_exec_follow(f->exec, 1, true), HP_OK);
    WAIT_UNTIL(f, f->output.size == 6);
    assert_int_equal(write(go[1], "\n", 1), 1);
    (void)close(go[1]);
    WAIT_UNTIL(f, f->end_count == 1);
    assert_int_equal(hp_buf_append_byte(&f->output, '\0'), HP_OK);
    line = (char *)f->output.data;
    assert_string_equal(line, "first\nsecond\n");
    assert_int_equal(f->gap_count, 0);
    assert_int_equal(hp_exec_follow(f->exec, 1, true), HP_ERR_NOT_FOUND);
}

/* More may have come by the time that what is kept is replayed: the follower gets it in order. */
static void what_comes_before_the_replay_is_in_order(void **state)
{
    struct fixture *f = *state;
    struct words words;
    int go[2];
    char folder[] = "/tmp/hp-exec-XXXXXX";
    char printed[64];
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    assert_non_null(mkdtemp(folder));
    (void)snprintf(printed, sizeof(printed), "%s/printed", folder);
    WORDS(&words, 1, "sh", "-c", "echo first; read x; echo second; : > \"$0\"; read x", printed);
    words.command.stdin_fd = go[0];
    start(f, &words);
    (void)close(go[0]);
    WAIT_UNTIL(f, f->exec->cmds[0].pipes[0].tail.total == 6);
    assert_int_equal(write(go[1], "\n", 1), 1);
    for (uint32_t i = 0; i < PATIENCE_MS && access(printed, F_OK) != 0; i++) {
        (void)poll(NULL, 0, 1); /* not served meanwhile: it is still to be read */
    }
    assert_int_equal(hp_exec_follow(f->exec, 1, true), HP_OK);
    WAIT_UNTIL(f, f->output.size >= 13);
    (void)close(go[1]);
    WAIT_UNTIL(f, f->end_count == 1);
    assert_int_equal(f->output.size, 13);
    assert_memory_equal(f->output.data, "first\nsecond\n", 13);
    assert_int_equal(f->gap_count, 0);
    assert_int_equal(unlink(printed) | rmdir(folder), 0);
}

/* Who holds a command's output open, here the test, may still print for as long as is set. */
static void output_is_read_on_after_the_end(void **state)
{
    struct fixture *f = *state;
    struct words words;
    char path[64];
    int go[2];
    uint64_t start_us = hp_clock_mono_us();
    f->exec->config.drain_ms = 600000;
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    WORDS(&words, 1, "sh", "-c", "read x");
    words.command.stdin_fd = go[0];
    start(f, &words);
    (void)close(go[0]);
    WAIT_UNTIL(f, f->started_count == 1);
    (void)snprintf(path, sizeof(path), "/proc/%d/fd/1", (int)f->last_pid);
    int held_fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(held_fd >= 0);
    (void)close(go[1]);
    WAIT_UNTIL(f, f->exec->cmds[0].state == HP_COMMAND_ENDED);
    assert_true(f->exec->cmds[0].drain_until_us >= start_us + UINT64_C(600000000));
    assert_int_equal(write(held_fd, "late", 4), 4);
    (void)close(held_fd);
    WAIT_UNTIL(f, f->end_count == 1);
    assert_int_equal(f->ends[0].out_bytes, 4);
}

/* A short command costs no wake-up but that of its end; one that runs on is told of in time. */
static void starts_are_told_late_and_pipes_watched_then(void **state)
{
    struct fixture *f = *state;
    struct words words;
    int go[2];
    struct hp_exec_cmd *cmd = &f->exec->cmds[0];
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    WORDS(&words, 1, "sh", "-c", "head -c 100000 /dev/zero; read x");
    words.command.stdin_fd = go[0];
    start(f, &words);
    (void)close(go[0]);
    assert_false(cmd->is_watched);
    WAIT_UNTIL(f, f->started_count == 1);
    assert_true(f->last_ran_us >= 3000);
    assert_true(cmd->is_watched);
    WAIT_UNTIL(f, cmd->pipes[0].tail.total == 100000); /* more than its pipe holds */
    (void)close(go[1]);
    WAIT_UNTIL(f, f->end_count == 1);
    assert_int_equal(f->started_count, 1);
    WORDS(&words, 2, "true");
    words.command.follow = true; /* who follows is shown everything at once */
    start(f, &words);
    assert_true(cmd->is_watched);
    WAIT_UNTIL(f, f->end_count == 2);
    assert_int_equal(f->started_count, 2);
}

/* Pipes that can not be watched for want of memory are read by a timer until they can. */
static void what_can_not_be_watched_is_polled(void **state)
{
    struct fixture *f = *state;
    struct words words;
    int go[2];
    struct hp_exec_cmd *cmd = &f->exec->cmds[0];
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    WORDS(&words, 1, "sh", "-c", "read x; echo said; read x");
    words.command.stdin_fd = go[0];
    start(f, &words);
    (void)close(go[0]);
    WAIT_UNTIL(f, f->started_count == 1);
    int epoll_fd = f->exec->epoll_fd;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(epoll_ctl(epoll_fd, EPOLL_CTL_DEL, cmd->pipes[i].fd, NULL), 0);
    }
    cmd->is_watched = false;
    assert_int_equal(write(go[1], "\n", 1), 1);
    f->exec->epoll_fd = -1;
    for (uint32_t i = 0; i < PATIENCE_MS && cmd->pipes[0].tail.total == 0; i++) {
        (void)poll(NULL, 0, 1);
        hp_commands_on_timer(f->exec, hp_clock_mono_us());
    }
    f->exec->epoll_fd = epoll_fd;
    assert_int_equal(cmd->pipes[0].tail.total, 5);
    assert_false(cmd->is_watched);
    WAIT_UNTIL(f, cmd->is_watched);
    (void)close(go[1]);
    WAIT_UNTIL(f, f->end_count == 1);
    assert_string_equal(f->ends[0].out, "said\n");
}

static void limits_and_keys(void **state)
{
    struct fixture *f = *state;
    struct words words;
    for (uint64_t key = 1; key <= 8; key++) {
        WORDS(&words, key, "sleep", "1000");
        start(f, &words);
    }
    WORDS(&words, 9, "true");
    assert_int_equal(hp_exec_command(f->exec, &words.command, NULL), HP_ERR_FULL);
    for (uint64_t key = 1; key <= 8; key++) {
        assert_int_equal(hp_exec_kill(f->exec, key, SIGKILL),
                         HP_OK); /* perhaps before it started */
    }
    WAIT_UNTIL(f, f->end_count == 8);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(f->ends[i].end.signal, SIGKILL);
        assert_false(f->ends[i].end.oom);
    }
    WORDS(&words, 9, "sleep", "1000");
    start(f, &words);
    assert_int_equal(hp_exec_command(f->exec, &words.command, NULL), HP_ERR_EXISTS);
    assert_int_equal(hp_exec_kill(f->exec, 1, SIGTERM), HP_ERR_NOT_FOUND);
    assert_int_equal(hp_exec_kill(f->exec, 9, SIGTERM), HP_OK);
    WAIT_UNTIL(f, f->end_count == 9);
    assert_int_equal(f->ends[8].end.signal, SIGTERM);
}

static uint32_t open_fd_count(void)
{
    uint32_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    return count;
}

/* Start upon end, from within the callback: a slot is free there. */
static void on_ended_start_next(void *context, uint64_t key, const struct hp_exec_end *end)
{
    struct fixture *f = context;
    assert_int_equal(end->exit_code, 0);
    f->end_count++;
    struct words words;
    WORDS(&words, key + 1000, "true");
    if (f->end_count <= 200) {
        start(f, &words);
    }
}

static void a_thousand_starts(void **state)
{
    struct fixture *f = *state;
    hp_exec_free(f->exec);
    struct hp_exec_config config = fixture_config(f, 64);
    config.callbacks.ended = on_ended_start_next;
    (void)fixture_start(&config, f);
    struct words words;
    uint32_t fds = open_fd_count();
    for (uint64_t key = 0; key < 64; key++) {
        WORDS(&words, key, "true");
        words.command.stdin_data = hp_bin_make("x", 1);
        start(f, &words);
    }
    WAIT_UNTIL(f, f->end_count == 264);
    assert_int_equal(open_fd_count(), fds);
}

int main(void)
{
#define EXEC_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        EXEC_TEST(exit_codes_and_output),
        EXEC_TEST(death_by_signal),
        EXEC_TEST(what_can_not_start),
        EXEC_TEST(too_many_arguments),
        EXEC_TEST(long_arguments_arrive),
        EXEC_TEST(bad_commands_are_refused),
        EXEC_TEST(clean_environment),
        EXEC_TEST(working_directory_and_path_search),
        EXEC_TEST(input_of_any_size),
        EXEC_TEST(input_from_a_descriptor),
        EXEC_TEST(nothing_is_inherited),
        EXEC_TEST(output_is_capped_and_keeps_the_tail),
        EXEC_TEST(a_flood_starves_nobody),
        EXEC_TEST(following),
        EXEC_TEST(following_later_replays),
        EXEC_TEST(what_comes_before_the_replay_is_in_order),
        EXEC_TEST(output_is_read_on_after_the_end),
        EXEC_TEST(starts_are_told_late_and_pipes_watched_then),
        EXEC_TEST(what_can_not_be_watched_is_polled),
        EXEC_TEST(limits_and_keys),
        EXEC_TEST(a_thousand_starts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
