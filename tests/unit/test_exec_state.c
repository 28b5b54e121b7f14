/* SPDX-License-Identifier: BSD-2-Clause */
/* What a child starts with, whatever its worker was started with; and how ends are told apart:
 * killed by the system for its memory, never started, cut in the middle of a result. */
#include "tests/unit/exec_words.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/base/rand.h"

#define LEAKED_FD 500

static const char *const example[] = {HP_EXAMPLE_MODULE};

/* ---------------------------------------------------------------- a worker in a bad state */

static int start_in_a_bad_state(void **state)
{
    sigset_t some;
    (void)sigemptyset(&some);
    (void)sigaddset(&some, SIGUSR1);
    (void)sigaddset(&some, SIGTERM);
    assert_int_equal(sigprocmask(SIG_BLOCK, &some, NULL), 0);
    assert_true(signal(SIGPIPE, SIG_IGN) != SIG_ERR && signal(SIGHUP, SIG_IGN) != SIG_ERR);
    (void)umask(0777);
    assert_int_equal(dup2(2, LEAKED_FD), LEAKED_FD);
    assert_int_equal(setenv("HP_TEST_SECRET", "1", 1), 0);
    struct fixture *f = fixture_new();
    struct hp_exec_config config = fixture_config(f, 2);
    config.modules = example;
    config.module_count = 1;
    *state = fixture_start(&config, f);
    return 0;
}

static int end_bad_state(void **state)
{
    sigset_t none;
    fixture_free(*state);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)signal(SIGHUP, SIG_DFL);
    (void)umask(022);
    (void)close(LEAKED_FD);
    (void)unsetenv("HP_TEST_SECRET");
    return 0;
}

/* Appends to a text of `size` bytes. */
__attribute__((format(printf, 3, 4))) static void add(char *text, size_t size, const char *format,
                                                      ...)
{
    va_list args;
    size_t used = strlen(text);
    va_start(args, format);
    (void)vsnprintf(text + used, size - used, format, args);
    va_end(args);
}

static size_t read_of(pid_t pid, const char *name, char *out, size_t size)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t got = read(fd, out, size - 1);
    (void)close(fd);
    assert_true(got >= 0);
    out[got] = '\0';
    return (size_t)got;
}

static void add_fds(pid_t pid, char *out, size_t size)
{
    for (int fd = 0; fd < 1024; fd++) {
        char path[64];
        char to[64] = "";
        (void)snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
        if (readlink(path, to, sizeof to - 1) > 0) {
            to[strcspn(to, ":")] = '\0'; /* pipe:[123] */
            const char *shown = strncmp(to, "/proc/", 6) == 0 ? strrchr(to, '/') + 1 : to;
            add(out, size, "%d %s\n", fd, shown);
        }
    }
}

static void add_status(pid_t pid, char *out, size_t size)
{
    static const char *const lines[] = {"Umask:", "Threads:", "SigBlk:", "SigIgn:", "SigCgt:"};
    char text[8192];
    (void)read_of(pid, "status", text, sizeof text);
    for (size_t i = 0; i < HP_COUNT_OF(lines); i++) {
        const char *at = strstr(text, lines[i]);
        assert_non_null(at);
        add(out, size, "%.*s\n", (int)strcspn(at, "\n"), at);
    }
}

/* All of a process's state that it has from others. */
static void describe(pid_t pid, char *out, size_t size)
{
    char text[8192];
    int group = 0;
    int session = 0;
    int tty = -1;
    int nice_value = -1;
    struct rlimit core = {.rlim_max = 1};
    out[0] = '\0';
    add_fds(pid, out, size);
    add_status(pid, out, size);
    (void)read_of(pid, "stat", text, sizeof text);
    assert_int_equal(sscanf(strrchr(text, ')'),
                            ") %*c %*d %d %d %d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %d",
                            &group, &session, &tty, &nice_value),
                     4);
    assert_int_equal(prlimit(pid, RLIMIT_CORE, NULL, &core), 0);
    nice_value -=
        getpriority(PRIO_PROCESS, 0); /* it is inherited, and the suite may run under nice */
    add(out, size, "group %d session %d terminal %d nice %d core %d\n", group == pid,
        session == pid, tty, nice_value, (int)core.rlim_max);
    (void)read_of(pid, "oom_score_adj", text, sizeof text);
    add(out, size, "oom %s", text);
}

#define CLEAN                                                                                      \
    "Umask:\t0022\nThreads:\t1\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"            \
    "SigCgt:\t0000000000000000\ngroup 1 session 1 terminal 0 nice 0 core 0\noom 500\n"

static void a_command_starts_clean(void **state)
{
    struct fixture *f = *state;
    struct words words;
    char found[4096];
    char env[4096];
    char cwd[64] = "";
    char link[64];
    WORDS(&words, 1, "sleep", "1000");
    start(f, &words);
    WAIT_UNTIL(f, f->started_count == 1);
    /* Its loader opens and closes libraries first; what is left behind stays. */
    bool is_clean = false;
    uint64_t give_up_ms = hp_clock_mono_ms() + PATIENCE_MS;
    while (!is_clean && hp_clock_mono_ms() < give_up_ms) {
        serve(f, 10);
        describe(f->last_pid, found, sizeof found);
        is_clean = strcmp(found, "0 /dev/null\n1 pipe\n2 pipe\n" CLEAN) == 0;
    }
    assert_string_equal(found, "0 /dev/null\n1 pipe\n2 pipe\n" CLEAN);
    size_t size = read_of(f->last_pid, "environ", env, sizeof env);
    assert_null(memmem(env, size, "HP_TEST_SECRET", 14));
    (void)snprintf(link, sizeof link, "/proc/%d/cwd", (int)f->last_pid);
    assert_true(readlink(link, cwd, sizeof cwd - 1) > 0);
    assert_string_equal(cwd, "/tmp");
}

static void a_function_child_starts_clean(void **state)
{
    struct fixture *f = *state;
    char found[4096];
    WAIT_UNTIL(f, f->child_is_ready[0]);
    /* Its socket is moved, and a file opened: then it is what it will be. */
    WAIT_UNTIL(f, (describe(f->child_pid[0], found, sizeof found),
                   strstr(found, "3 statm\n900 socket") != NULL));
    assert_string_equal(found, "0 /dev/null\n1 pipe\n2 pipe\n3 statm\n900 socket\n" CLEAN);
}

/* Helpers that have their name; each has one thread. */
static uint32_t count_helpers(void)
{
    char children[4096];
    char name[64];
    uint32_t count = 0;
    (void)snprintf(name, sizeof name, "task/%d/children", (int)getpid());
    (void)read_of(getpid(), name, children, sizeof children);
    char *at = children;
    for (pid_t pid; (pid = (pid_t)strtol(at, &at, 10)) > 0;) {
        char status[8192];
        (void)read_of(pid, "status", status, sizeof status);
        assert_non_null(strstr(status, "\nThreads:\t1\n"));
        count += strstr(status, "Name:\thp-spawner") != NULL;
        count += strstr(status, "Name:\thp-zygote") != NULL;
    }
    return count;
}

/* What forks has one thread: a lock held by another one would be held for ever in the child. */
static void helpers_have_one_thread(void **state)
{
    struct fixture *f = *state;
    WAIT_UNTIL(f, f->child_is_ready[0] && f->child_is_ready[1] && count_helpers() == 2);
}

/* ---------------------------------------------------------------- programs that can not run */

static void expect_not_started(struct fixture *f, struct words *words, int error_number,
                               const char *text)
{
    uint32_t before = f->end_count;
    start(f, words);
    WAIT_UNTIL(f, f->end_count > before);
    const struct seen_end *seen = &f->ends[before % KEPT_MAX];
    assert_int_equal(seen->end.cause, HP_EXEC_NOT_STARTED);
    assert_int_equal(seen->end.error_number, error_number);
    assert_string_equal(seen->text, text);
}

/* Makes a file of mode 0700 with a content; its descriptor is open for writing. */
static int make_program(char path[], const char *text)
{
    int fd = mkostemp(path, O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0700), 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    return fd;
}

static void each_error_of_exec_has_its_text(void **state)
{
    struct fixture *f = *state;
    struct words words;
    char path[] = "/tmp/hp-program-XXXXXX";
    char want[512];
    int fd = make_program(path, "no magic here\n");
    WORDS(&words, 1, path);
    (void)snprintf(want, sizeof want, "exec %s: Text file busy", path);
    expect_not_started(f, &words, ETXTBSY, want);
    (void)close(fd);
    (void)snprintf(want, sizeof want, "exec %s: Exec format error", path);
    expect_not_started(f, &words, ENOEXEC, want);
    words.command.cwd = hp_str_of(path);
    (void)snprintf(want, sizeof want, "chdir %s: Not a directory", path);
    expect_not_started(f, &words, ENOTDIR, want);
    assert_int_equal(unlink(path), 0);
    char script[] = "/tmp/hp-program-XXXXXX";
    (void)close(make_program(script, "#!/no/such/interpreter\n"));
    WORDS(&words, 2, script);
    (void)snprintf(want, sizeof want, "exec %s: No such file or directory", script);
    expect_not_started(f, &words, ENOENT, want);
    assert_int_equal(unlink(script), 0);
    assert_int_equal(symlink(script, script), 0);
    (void)snprintf(want, sizeof want, "exec %s: Too many levels of symbolic links", script);
    expect_not_started(f, &words, ELOOP, want);
    assert_int_equal(unlink(script), 0);
    char name[5000];
    memset(name, 'n', sizeof name - 1);
    name[0] = '/';
    name[sizeof name - 1] = '\0';
    WORDS(&words, 3, name);
    (void)snprintf(want, sizeof want, "exec %.400s: File name too long", name);
    expect_not_started(f, &words, ENAMETOOLONG, want);
    assert_int_equal(f->started_count, 0);
    assert_int_equal(sh(f, "exit 3")->end.exit_code, 3);
}

/* ---------------------------------------------------------------- killed for its memory */

/* In the processes below an assertion of cmocka would go on in the wrong place. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                  \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

#define MUST_COME(f, condition)                                                                    \
    do {                                                                                           \
        uint64_t give_up_ms_ = hp_clock_mono_ms() + PATIENCE_MS;                                   \
        for (; !(condition); serve((f), 10)) {                                                     \
            MUST(hp_clock_mono_ms() < give_up_ms_);                                                \
        }                                                                                          \
    } while (0)

/* What the kernel counts, as this test says it. */
static void set_oom_count(const char *path, unsigned count)
{
    char text[64];
    int size = snprintf(text, sizeof text, "nr_free_pages 1\noom_kill %u\nswap_ra 0\n", count);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    MUST(fd >= 0 && write(fd, text, (size_t)size) == size);
    (void)close(fd);
}

static void oom_in_namespace(const char *path)
{
    struct fixture *f = fixture_new();
    struct hp_exec_config config = fixture_config(f, 2);
    config.modules = example;
    config.module_count = 1;
    MUST(hp_exec_start(&config, &f->exec, NULL) == HP_OK);
    unsigned count = 7;
    for (unsigned i = 0; i < 4; i++) {
        bool is_oom = i % 2 == 1;
        struct words words;
        WORDS(&words, i, "sleep", "1000");
        MUST(hp_exec_command(f->exec, &words.command, NULL) == HP_OK);
        MUST_COME(f, f->started_count == i + 1);
        set_oom_count(path, count += is_oom);
        MUST(kill(f->last_pid, SIGKILL) == 0); /* as the kernel, or as anybody else */
        MUST_COME(f, f->end_count == i + 1);
        MUST(f->ends[i].end.signal == SIGKILL && f->ends[i].end.oom == is_oom);
        struct hp_exec_call call = {.key = i, .payload_fd = -1, .attempt = 1};
        uint8_t payload[6] = {0x91, 0xce, 0xff};
        uint64_t key = 0;
        uint64_t start_us = 0;
        call.function = hp_str_of("sleep_ms");
        call.payload = hp_bin_make(payload, sizeof payload);
        MUST_COME(f, f->child_is_ready[0]);
        MUST_COME(f, hp_exec_call(f->exec, 0, &call) == HP_OK);
        MUST_COME(f, hp_exec_child_running(f->exec, 0, &key, &start_us));
        set_oom_count(path, count += is_oom);
        MUST(kill(f->child_pid[0], SIGKILL) == 0);
        MUST_COME(f, f->call_count == i + 1 && f->died_count == i + 1);
        MUST(f->calls[i].end.signal == SIGKILL && f->calls[i].end.oom == is_oom);
        MUST(f->last_death.oom == is_oom);
    }
    struct words words; /* what was asked for is no accident, whatever dies meanwhile */
    WORDS(&words, 9, "sleep", "1000");
    MUST(hp_exec_command(f->exec, &words.command, NULL) == HP_OK);
    set_oom_count(path, count + 1);
    MUST(hp_exec_kill(f->exec, 9, SIGKILL) == HP_OK);
    MUST_COME(f, f->end_count == 5);
    MUST(f->ends[4].end.signal == SIGKILL && !f->ends[4].end.oom);
    _exit(0);
}

static void the_system_kills_for_memory(void **state)
{
    char path[] = "/tmp/hp-vmstat-XXXXXX";
    int status = 0;
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)close(fd);
    pid_t pid = fork();
    if (pid == 0) {
        MUST(unshare(CLONE_NEWNS) == 0); /* this test needs root */
        MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
        set_oom_count(path, 7);
        MUST(mount(path, "/proc/vmstat", NULL, MS_BIND, NULL) == 0);
        oom_in_namespace(path);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(unlink(path), 0);
}

/* ---------------------------------------------------------------- killed in a result */

static uint32_t damaged_count;

static void check_result(void *context, uint32_t child, uint64_t key, struct hp_exec_call_end *end)
{
    struct fixture *f = context;
    static uint8_t bytes[100000];
    (void)child;
    f->call_count++;
    if (end->status != HP_EXEC_CALL_OK) {
        return;
    }
    f->ok_count++;
    size_t want = key % 2 == 0 ? 60000 : 100000;
    const uint8_t *data = end->result.data;
    if (end->result_fd >= 0) {
        damaged_count += pread(end->result_fd, bytes, want, 0) != (ssize_t)want;
        data = bytes;
    }
    bool is_whole = end->result_bytes == want && data != NULL;
    for (size_t i = 0; i < want && is_whole; i++) {
        is_whole = data[i] == (key % 2 == 0 ? key % 251 : i % 251);
    }
    damaged_count += !is_whole;
}

/* Children are killed at any byte of what they write: what counts as a result is whole, and each
 * call has one end. */
static void a_cut_result_is_none(void **state)
{
    struct fixture *f = fixture_new();
    struct hp_exec_config config = fixture_config(f, 1);
    struct hp_rand rand;
    uint32_t given = 0;
    (void)state;
    config.modules = example;
    config.module_count = 1;
    config.callbacks.call_done = check_result;
    (void)fixture_start(&config, f);
    damaged_count = 0;
    hp_rand_init(&rand, 1);
    for (uint32_t round = 0; round < 250; round++) {
        WAIT_UNTIL(f, f->child_is_ready[0]);
        uint32_t before = f->call_count + f->recall_count;
        for (uint32_t i = 0; i < 12; i++) {
            static uint8_t payload[60000];
            bool is_large = given % 2 == 1;
            struct hp_exec_call call = {.key = given, .payload_fd = -1, .attempt = 1};
            memset(payload, (int)(given % 251), sizeof payload);
            memcpy(payload, "\x91\xce\x00\x01\x86\xa0", is_large ? 6 : 0); /* [100000] */
            call.function = is_large ? hp_str_of("big") : hp_str_of("echo");
            call.payload = hp_bin_make(payload, is_large ? 6 : sizeof payload);
            given += hp_exec_call(f->exec, 0, &call) == HP_OK;
        }
        hp_exec_flush(f->exec);
        uint32_t until = before + (uint32_t)hp_rand_uniform(&rand, 4);
        WAIT_UNTIL(f, f->call_count + f->recall_count >= until);
        for (uint64_t spin = hp_rand_uniform(&rand, 40000); spin > 0; spin--) {
            __asm__ volatile("" ::: "memory"); /* for the kill to come anywhere in the next one */
        }
        (void)kill(f->child_pid[0], SIGKILL);
        WAIT_UNTIL(f, f->died_count == round + 1);
        assert_int_equal(f->call_count + f->recall_count, given);
    }
    assert_int_equal(damaged_count, 0);
    assert_true(f->ok_count > 100 && f->call_count > f->ok_count);
    fixture_free(f);
}

int main(void)
{
#define BAD_STATE(name) cmocka_unit_test_setup_teardown(name, start_in_a_bad_state, end_bad_state)
    const struct CMUnitTest tests[] = {
        BAD_STATE(a_command_starts_clean),
        BAD_STATE(a_function_child_starts_clean),
        BAD_STATE(helpers_have_one_thread),
        cmocka_unit_test_setup_teardown(each_error_of_exec_has_its_text, set_up, tear_down),
        cmocka_unit_test(the_system_kills_for_memory),
        cmocka_unit_test(a_cut_result_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
