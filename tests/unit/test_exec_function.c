/* SPDX-License-Identifier: BSD-2-Clause */
/* Function calls in children: results, deaths, taking back, recycling, modules that are no good. */
#include "tests/unit/exec_fixture.h"

#include <sys/resource.h>

#include "common/base/endian.h"
#include "worker/exec/exec_priv.h"

static const char *const example[] = {HP_EXAMPLE_MODULE};

static struct fixture *start_with(uint32_t children, void (*change)(struct hp_exec_config *))
{
    struct fixture *f = fixture_new();
    struct hp_exec_config config = fixture_config(f, children);
    config.modules = example;
    config.module_count = 1;
    if (change != NULL) {
        change(&config);
    }
    return fixture_start(&config, f);
}

static int set_up(void **state)
{
    struct fixture *f = start_with(2, NULL);
    *state = f;
    WAIT_UNTIL(f, f->child_is_ready[0] && f->child_is_ready[1]);
    return 0;
}

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

static struct hp_exec_call make_call(uint64_t key, const char *function)
{
    return (struct hp_exec_call){.key = key,
                                 .function = hp_str_of(function),
                                 .payload_fd = -1,
                                 .task_id = key,
                                 .attempt = 1,
                                 .epoch = 7};
}

static enum hp_err try_call(struct fixture *f, uint32_t child, uint64_t key, const char *function,
                            const char *payload, size_t payload_bytes)
{
    struct hp_exec_call call = make_call(key, function);
    call.payload = hp_bin_make(payload, payload_bytes);
    return hp_exec_call(f->exec, child, &call);
}

/* Gives a call, serving until there is room. */
static void put(struct fixture *f, uint32_t child, uint64_t key, const char *function,
                const char *payload, size_t payload_bytes)
{
    enum hp_err err = HP_ERR_AGAIN;
    WAIT_UNTIL(f,
               (err = try_call(f, child, key, function, payload, payload_bytes)) != HP_ERR_AGAIN);
    assert_int_equal(err, HP_OK);
}

/* The same with one MessagePack integer. */
static void put_number(struct fixture *f, uint32_t child, uint64_t key, const char *function,
                       uint32_t number)
{
    uint8_t payload[6] = {0x91, 0xce};
    hp_put_be32(payload + 2, number);
    put(f, child, key, function, (const char *)payload, sizeof payload);
}

static void functions_are_listed(void **state)
{
    struct fixture *f = *state;
    assert_true(f->is_ready);
    assert_string_equal(f->error, "");
    assert_int_equal(f->function_count, 18);
    assert_int_equal(hp_exec_child_count(f->exec), 2);
    assert_true(f->child_pid[0] > 0 && f->child_pid[0] != f->child_pid[1]);
}

static void results_and_failures(void **state)
{
    struct fixture *f = *state;
    put(f, 0, 1, "echo", "hello", 5);
    put_number(f, 0, 2, "square", 1000);
    put(f, 0, 3, "square", "\x91\xa1x", 3);
    put(f, 0, 4, "fail", "\x91\xa4oops", 6);
    put_number(f, 0, 5, "retry_once", 250);
    put(f, 0, 6, "no_such_function", "", 0);
    put_number(f, 0, 7, "primes", 1000);
    put(f, 0, 8, "crc32", "123456789", 9);
    WAIT_UNTIL(f, f->call_count == 8);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(f->calls[i].key, i + 1); /* in order */
    }
    assert_string_equal(f->calls[0].data, "hello");
    assert_memory_equal(f->calls[1].data, "\xce\0\x0f\x42\x40", 5);
    assert_int_equal(f->calls[2].end.status, HP_EXEC_CALL_PERMANENT);
    assert_string_equal(f->calls[2].data, "square wants an integer");
    assert_int_equal(f->calls[3].end.status, HP_EXEC_CALL_ERROR);
    assert_string_equal(f->calls[3].data, "oops");
    assert_int_equal(f->calls[4].end.status, HP_EXEC_CALL_RETRY);
    assert_int_equal(f->calls[4].end.retry_ms, 250);
    assert_int_equal(f->calls[5].end.status, HP_EXEC_CALL_NO_FUNCTION);
    assert_memory_equal(f->calls[6].data, "\xcc\xa8", 2); /* 168 */
    assert_memory_equal(f->calls[7].data, "\xce\xcb\xf4\x39\x26", 5);
    assert_int_equal(hp_exec_child_load(f->exec, 0), 0);
}

/* What one call gave is not what the next one gives, if that gives nothing. */
static void no_result_after_one(void **state)
{
    struct fixture *f = *state;
    put(f, 0, 1, "echo", "hello", 5);
    put(f, 0, 2, "noop", "", 0);
    put_number(f, 0, 3, "big", 300000); /* in a file of its own */
    put(f, 0, 4, "noop", "", 0);
    WAIT_UNTIL(f, f->call_count == 4);
    assert_int_equal(f->ok_count, 4);
    assert_int_equal(f->kept_count, 2); /* the others were empty */
    assert_int_equal(f->calls[0].key, 1);
    assert_int_equal(f->calls[1].key, 3);
    assert_int_equal(f->calls[1].end.result_bytes, 300000);
}

static void many_calls(void **state)
{
    struct fixture *f = *state;
    uint32_t given = 0;
    while (given < 100000) {
        while (given < 100000 && try_call(f, given % 2, given, "noop", "", 0) == HP_OK) {
            given++;
        }
        hp_exec_flush(f->exec);
        serve(f, 10);
    }
    WAIT_UNTIL(f, f->call_count == 100000);
    assert_int_equal(f->ok_count, 100000);
    assert_int_equal(f->died_count, 0);
}

/* Payloads and results around the inline limit and the ring's size. */
static void payloads_of_all_sizes(void **state)
{
    struct fixture *f = *state;
    const size_t sizes[] = {1, 15, 16, 17, 4096, 65535, 65536, 65537, 1000000, 20000000};
    char *data = malloc(20000000);
    assert_non_null(data);
    for (size_t i = 0; i < 20000000; i++) {
        data[i] = (char)(i * 7 + i / 251);
    }
    for (size_t i = 0; i < HP_COUNT_OF(sizes); i++) {
        put(f, 0, i, "echo", data, sizes[i]);
    }
    WAIT_UNTIL(f, f->call_count == HP_COUNT_OF(sizes));
    for (size_t i = 0; i < HP_COUNT_OF(sizes); i++) {
        const struct seen_call *seen = &f->calls[i];
        assert_int_equal(seen->end.status, HP_EXEC_CALL_OK);
        assert_int_equal(seen->end.result_bytes, sizes[i]);
        if (seen->large != NULL) {
            assert_memory_equal(seen->large, data, sizes[i]);
        } else {
            assert_memory_equal(seen->data, data, HP_MIN(sizes[i], (size_t)4096));
        }
        assert_int_equal(seen->large != NULL, sizes[i] > 65536);
    }
    free(data);
}

/* Numbers for descriptors that this process has free: none from now on, or as many as before. */
static void limit_descriptors(bool limits)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    int first_free = fcntl(0, F_DUPFD_CLOEXEC, 0);
    assert_true(first_free >= 0 || !limits);
    if (first_free >= 0) {
        (void)close(first_free);
    }
    limit.rlim_cur = limits ? (rlim_t)first_free : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* That result is lost, and told as such; no other call gets what is not its own. */
static void no_descriptor_for_a_result(void **state)
{
    struct fixture *f = *state;
    for (uint32_t i = 0; i < 9; i++) {
        put_number(f, 0, i, "big", i % 3 == 1 ? 100000 : 1000 + i);
    }
    limit_descriptors(true);
    WAIT_UNTIL(f, f->call_count == 9);
    limit_descriptors(false);
    for (uint32_t i = 0; i < 9; i++) {
        assert_int_equal(f->calls[i].key, i);
        if (i % 3 == 1) {
            assert_int_equal(f->calls[i].end.status, HP_EXEC_CALL_ERROR);
            assert_non_null(strstr(f->calls[i].data, "no file descriptor free"));
        } else {
            assert_int_equal(f->calls[i].end.status, HP_EXEC_CALL_OK);
            assert_int_equal(f->calls[i].end.result_bytes, 1000 + i);
        }
    }
    put_number(f, 0, 10, "big", 100000);
    WAIT_UNTIL(f, f->call_count == 10);
    assert_int_equal(f->calls[9].large[99999], 99999 % 251);
    assert_int_equal(f->died_count, 0);
}

static void many_large_ones(void **state)
{
    struct fixture *f = *state;
    for (uint32_t i = 0; i < 200; i++) {
        put_number(f, i % 2, i, "big", i % 4 == 0 ? 100000 : 60000);
    }
    WAIT_UNTIL(f, f->call_count == 200);
    assert_int_equal(f->ok_count, 200);
    for (uint32_t i = 0; i < f->kept_count; i++) {
        if (f->calls[i].large != NULL) {
            assert_int_equal(f->calls[i].large[250], 250);
            assert_int_equal(f->calls[i].large[99999], 99999 % 251);
        }
    }
}

/* The child has unmapped what it wrote by then. */
static void results_can_be_sealed(void **state)
{
    struct fixture *f = *state;
    f->seals = true;
    for (uint32_t i = 0; i < KEPT_MAX; i++) {
        put_number(f, i % 2, i, "big", 100000);
    }
    WAIT_UNTIL(f, f->call_count == KEPT_MAX);
    for (uint32_t i = 0; i < KEPT_MAX; i++) {
        assert_int_equal(f->calls[i].sealed, HP_OK);
        assert_int_equal(f->calls[i].large[99999], 99999 % 251);
    }
}

/* A sealed file which is longer than the payload, opened for reading only. */
static void payload_in_a_longer_file(void **state)
{
    struct fixture *f = *state;
    static const uint8_t near_key[HP_NEAR_KEY_BYTES] = "crc is not of it";
    struct hp_exec_call call = make_call(1, "crc32");
    struct hp_near_place place;
    int fd = -1;
    assert_int_equal(hp_near_create(&fd), HP_OK);
    assert_int_equal(write(fd, "123456789", 9), 9);
    assert_int_equal(hp_near_seal(fd, 9, near_key), HP_OK);
    assert_int_equal(hp_near_place_of(fd, &place), HP_OK);
    assert_int_equal(hp_near_open(&place, &call.payload_fd), HP_OK);
    call.payload_bytes = 9;
    assert_int_equal(hp_exec_call(f->exec, 1, &call), HP_OK);
    hp_exec_flush(f->exec);
    (void)close(fd);
    (void)close(call.payload_fd);
    WAIT_UNTIL(f, f->call_count == 1);
    assert_memory_equal(f->calls[0].data, "\xce\xcb\xf4\x39\x26", 5);
}

static void payload_in_a_descriptor(void **state)
{
    struct fixture *f = *state;
    struct hp_exec_call call = make_call(1, "crc32");
    char path[] = "/tmp/hp-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)unlink(path);
    assert_int_equal(write(fd, "123456789", 9), 9);
    call.payload_fd = fd;
    call.payload_bytes = 9;
    assert_int_equal(hp_exec_call(f->exec, 1, &call), HP_OK);
    hp_exec_flush(f->exec);
    (void)close(fd);
    WAIT_UNTIL(f, f->call_count == 1);
    assert_memory_equal(f->calls[0].data, "\xce\xcb\xf4\x39\x26", 5);
}

/* Dies in the middle of a row: what came before stands, what ran fails, the rest comes back. */
static void die_in_a_row(struct fixture *f, const char *function)
{
    for (uint32_t i = 0; i < 20; i++) {
        put(f, 0, i, i == 10 ? function : "noop", "", 0);
    }
    WAIT_UNTIL(f, f->died_count == 1);
    assert_int_equal(f->call_count, 11);
    assert_int_equal(f->ok_count, 10);
    assert_int_equal(f->recall_count, 9);
    for (uint32_t i = 0; i < 9; i++) {
        assert_int_equal(f->recalled[i], 11 + i);
    }
    assert_int_equal(f->calls[0].key, 10);
    WAIT_UNTIL(f, f->child_is_ready[0]);
    put(f, 0, 99, "noop", "", 0);
    WAIT_UNTIL(f, f->call_count == 12);
    assert_int_equal(f->ok_count, 11);
}

static void a_crash_fails_one_call(void **state)
{
    struct fixture *f = *state;
    die_in_a_row(f, "crash");
    assert_int_equal(f->calls[0].end.status, HP_EXEC_CALL_SIGNALED);
    assert_int_equal(f->calls[0].end.signal, SIGSEGV);
    assert_false(f->calls[0].end.killed);
    assert_false(f->calls[0].end.oom);
    assert_string_equal(f->calls[0].data, "crash: about to touch what is not there\n");
    assert_int_equal(f->last_death.call_count, 11);
}

static void an_exit_fails_one_call(void **state)
{
    struct fixture *f = *state;
    die_in_a_row(f, "exit_now");
    assert_int_equal(f->calls[0].end.status, HP_EXEC_CALL_EXITED);
    assert_int_equal(f->calls[0].end.exit_code, 3);
}

/* Crashes among many thousands, on both children: none lost, none twice. */
static void crashes_under_load(void **state)
{
    struct fixture *f = *state;
    uint32_t given = 0;
    uint32_t crashes = 0;
    while (given < 40000) {
        const char *function = given % 4000 == 1999 ? "crash" : "noop";
        if (try_call(f, given / 7 % 2, given, function, "", 0) == HP_OK) {
            crashes += given % 4000 == 1999;
            given++;
        } else {
            hp_exec_flush(f->exec);
            serve(f, 10);
        }
    }
    WAIT_UNTIL(f, f->call_count + f->recall_count == 40000 && f->died_count > 0 &&
                      hp_exec_child_load(f->exec, 0) + hp_exec_child_load(f->exec, 1) == 0);
    assert_true(f->died_count <= crashes);
    assert_int_equal(f->call_count - f->ok_count, f->died_count);
}

static void calls_are_taken_back(void **state)
{
    struct fixture *f = *state;
    uint64_t key = 0;
    uint64_t start_us = 0;
    put_number(f, 0, 1, "sleep_ms", 1000000);
    for (uint32_t i = 2; i <= 100; i++) {
        put(f, 0, i, "noop", "", 0);
    }
    WAIT_UNTIL(f, hp_exec_child_running(f->exec, 0, &key, &start_us));
    assert_int_equal(key, 1);
    assert_true(start_us > 0 && start_us <= hp_clock_mono_us());
    assert_int_equal(hp_exec_recall(f->exec, 0, 10), 10);
    assert_int_equal(f->recall_count, 10);
    assert_int_equal(f->recalled[0], 100); /* the last ones first */
    assert_int_equal(hp_exec_recall_one(f->exec, 0, 50), HP_OK);
    assert_int_equal(hp_exec_recall_one(f->exec, 0, 50), HP_ERR_NOT_FOUND);
    assert_int_equal(hp_exec_recall_one(f->exec, 0, 1), HP_ERR_BUSY);
    assert_int_equal(hp_exec_child_load(f->exec, 0), 89);
    assert_int_equal(hp_exec_recall(f->exec, 0, 39), 39); /* down to 52, without 50 */
    put(f, 0, 200, "echo", "x", 1);                       /* goes where others were */
    assert_int_equal(hp_exec_recall(f->exec, 0, 1), 1);
    put(f, 0, 201, "echo", "y", 1);
    /* End the sleeper; what is behind it comes back unharmed. */
    assert_int_equal(hp_exec_call_kill(f->exec, 0, 2, SIGKILL), HP_ERR_BUSY);
    assert_int_equal(hp_exec_call_kill(f->exec, 0, 77, SIGKILL), HP_ERR_NOT_FOUND);
    uint32_t before = f->recall_count;
    assert_int_equal(hp_exec_call_kill(f->exec, 0, 1, SIGKILL), HP_OK);
    WAIT_UNTIL(f, f->died_count == 1);
    assert_int_equal(f->call_count, 1);
    assert_int_equal(f->calls[0].end.status, HP_EXEC_CALL_SIGNALED);
    assert_true(f->calls[0].end.killed);
    assert_int_equal(f->recall_count - before, 50); /* 2 .. 49, 51, 201 */
}

/* A result is told while the next call runs, and does not wait for its end. */
static void results_do_not_wait(void **state)
{
    struct fixture *f = *state;
    for (uint32_t i = 0; i < 100; i++) {
        put(f, 0, i, "noop", "", 0);
    }
    put_number(f, 0, 100, "sleep_ms", 1000000);
    WAIT_UNTIL(f, f->call_count == 100);
    assert_int_equal(hp_exec_child_load(f->exec, 0), 1);
}

static void a_call_in_the_middle_is_skipped(void **state)
{
    struct fixture *f = *state;
    put_number(f, 1, 1, "sleep_ms", 30);
    put(f, 1, 2, "echo", "two", 3);
    put(f, 1, 3, "echo", "three", 5);
    put(f, 1, 4, "echo", "four", 4);
    assert_int_equal(hp_exec_recall_one(f->exec, 1, 3), HP_OK);
    WAIT_UNTIL(f, f->call_count == 3);
    assert_string_equal(f->calls[0].data, "two");
    assert_string_equal(f->calls[1].data, "four");
}

/* All that a full child has is taken back before it began: no result will say so. */
static void full_then_recalled(void **state)
{
    struct fixture *f = *state;
    static char payload[60000];
    uint64_t count = 0;
    f->child_is_ready[0] = false;
    while (try_call(f, 0, count + 1, "noop", payload, sizeof payload) == HP_OK) {
        count++;
    }
    assert_true(count > 1 && !f->child_is_ready[0]);
    assert_int_equal(hp_exec_recall(f->exec, 0, UINT32_MAX), count);
    WAIT_UNTIL(f, f->child_is_ready[0]);
    assert_int_equal(f->call_count, 0);
    put(f, 0, 1, "noop", "", 0);
    WAIT_UNTIL(f, f->call_count == 1);
}

/* Taking back while the child races through them: each call ends exactly once, either way. */
static void recall_races(void **state)
{
    struct fixture *f = *state;
    static uint8_t seen[100000];
    uint32_t given = 0;
    uint32_t checked = 0;
    memset(seen, 0, sizeof seen);
    while (given < 100000 || hp_exec_child_load(f->exec, 0) > 0) {
        for (uint32_t i = 0; i < 500 && given < 100000; i++) {
            given += try_call(f, 0, given, "noop", "", 0) == HP_OK;
        }
        hp_exec_flush(f->exec);
        (void)hp_exec_recall(f->exec, 0, 7);
        for (; checked < f->recall_count; checked++) {
            uint64_t key = f->recalled[checked % HP_COUNT_OF(f->recalled)];
            assert_int_equal(seen[key], 0);
            seen[key] = 1;
        }
        (void)hp_exec_process(f->exec);
    }
    assert_int_equal(f->call_count + f->recall_count, 100000);
    assert_int_equal(f->ok_count, f->call_count);
}

static void recycle_after_5(struct hp_exec_config *config)
{
    config->recycle_calls = 5;
}

static void recycling_by_count(void **state)
{
    (void)state;
    struct fixture *f = start_with(1, recycle_after_5);
    for (uint32_t i = 0; i < 12; i++) {
        put(f, 0, i, "pid", "", 0);
    }
    WAIT_UNTIL(f, f->call_count == 12 && f->died_count == 2);
    assert_memory_equal(f->calls[0].data, f->calls[4].data, 9);
    assert_memory_not_equal(f->calls[4].data, f->calls[5].data, 9);
    assert_memory_not_equal(f->calls[9].data, f->calls[10].data, 9);
    assert_true(f->last_death.recycled);
    assert_int_equal(f->last_death.call_count, 5);
    assert_int_equal(f->recall_count, 0);
    fixture_free(f);
}

static void recycle_over_40_mib(struct hp_exec_config *config)
{
    config->recycle_rss_kb = 40 * 1024;
}

static void recycling_by_memory(void **state)
{
    (void)state;
    struct fixture *f = start_with(1, recycle_over_40_mib);
    put_number(f, 0, 1, "leak", 64);
    WAIT_UNTIL(f, f->died_count == 1);
    assert_true(f->last_death.recycled);
    assert_int_equal(f->ok_count, 1);
    WAIT_UNTIL(f, f->child_is_ready[0]);
    hp_exec_child_recycle(f->exec, 0);
    WAIT_UNTIL(f, f->died_count == 2);
    assert_true(f->last_death.recycled);
    fixture_free(f);
}

static void cap_of_100000(struct hp_exec_config *config)
{
    config->result_cap_bytes = 100000;
}

static void results_over_the_cap(void **state)
{
    (void)state;
    struct fixture *f = start_with(1, cap_of_100000);
    put_number(f, 0, 1, "big", 99999);
    put_number(f, 0, 2, "big", 100000);
    put_number(f, 0, 3, "big", 100001);
    put_number(f, 0, 4, "big", 4000000000u);
    WAIT_UNTIL(f, f->call_count == 4);
    assert_int_equal(f->ok_count, 2);
    assert_int_equal(f->calls[2].end.status, HP_EXEC_CALL_TOO_BIG);
    assert_int_equal(f->calls[3].end.status, HP_EXEC_CALL_TOO_BIG);
    assert_string_equal(f->calls[3].data, "the result is larger than 100000 bytes");
    fixture_free(f);
}

static void the_dead_mans_switch(void **state)
{
    struct fixture *f = *state;
    uint8_t forever[6] = {0x91, 0xce, 0x7f, 0, 0, 0};
    struct hp_exec_call call = make_call(1, "sleep_ms");
    call.payload = hp_bin_make(forever, sizeof forever);
    call.kill_on_partition = true;
    assert_int_equal(hp_exec_call(f->exec, 0, &call), HP_OK);
    call.key = 2;
    call.kill_on_partition = false;
    assert_int_equal(hp_exec_call(f->exec, 1, &call), HP_OK);
    hp_exec_flush(f->exec);
    uint64_t key = 0;
    uint64_t start_us = 0;
    WAIT_UNTIL(f, hp_exec_child_running(f->exec, 0, &key, &start_us) &&
                      hp_exec_child_running(f->exec, 1, &key, &start_us));
    hp_exec_set_deadline(f->exec, hp_clock_boot_ms() + 20);
    WAIT_UNTIL(f, f->call_count == 1);
    assert_int_equal(f->calls[0].key, 1);
    assert_true(f->calls[0].end.fenced);
    assert_int_equal(hp_exec_child_load(f->exec, 1), 1);
}

static void the_zygotes_death_is_told(void **state)
{
    struct fixture *f = *state;
    char path[64];
    char text[512] = "";
    int zygote = 0;
    put_number(f, 0, 1, "sleep_ms", 1000000);
    put(f, 0, 2, "noop", "", 0);
    uint64_t key = 0;
    uint64_t start_us = 0;
    WAIT_UNTIL(f, hp_exec_child_running(f->exec, 0, &key, &start_us));
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)f->child_pid[0]);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    (void)close(fd);
    assert_int_equal(sscanf(strrchr(text, ')') + 1, " %*c %d", &zygote), 1);
    assert_int_equal(kill(zygote, SIGKILL), 0);
    WAIT_UNTIL(f, f->helper_death_count == 1);
    assert_int_equal(f->call_count, 1);
    assert_int_equal(f->recall_count, 1);
    WAIT_UNTIL(f, !pid_exists(f->child_pid[0]) && !pid_exists(f->child_pid[1]));
    assert_int_equal(try_call(f, 0, 3, "noop", "", 0), HP_ERR_CLOSED);
}

/* ---------------------------------------------------------------- modules */

static struct fixture *start_modules(const char *const *modules, uint32_t count)
{
    struct fixture *f = fixture_new();
    struct hp_exec_config config = fixture_config(f, 1);
    config.modules = modules;
    config.module_count = count;
    (void)fixture_start(&config, f);
    WAIT_UNTIL(f, f->is_ready);
    return f;
}

static void expect_refusal(const char *path, const char *part)
{
    struct fixture *f = start_modules(&path, 1);
    assert_int_equal(f->function_count, 0);
    if (strstr(f->error, part) == NULL || strstr(f->error, path) == NULL) {
        fail_msg("for %s it says: %s", path, f->error);
    }
    assert_int_equal(f->ready_children, 0);
    fixture_free(f);
}

static void modules_that_are_no_good(void **state)
{
    (void)state;
    expect_refusal("/no/such/module.so", "there is no such file");
    expect_refusal("/etc", "there is no such file");
    expect_refusal("/etc/passwd", "can not be loaded: ");
    expect_refusal(HP_TEST_MODULES "/hp_test_no_module.so", "no symbol hostpool_module");
    expect_refusal(HP_TEST_MODULES "/hp_test_bad_abi.so", "module ABI 2, this worker has 1");
    expect_refusal(HP_TEST_MODULES "/hp_test_dies.so", "while loading ");
    const char *const twice[] = {HP_EXAMPLE_MODULE, HP_EXAMPLE_MODULE};
    struct fixture *f = start_modules(twice, 2);
    assert_non_null(strstr(f->error, "twice"));
    fixture_free(f);
}

static void hooks_run_where_they_should(void **state)
{
    (void)state;
    const char *const both[] = {HP_TEST_MODULES "/hp_test_hooks.so", HP_EXAMPLE_MODULE};
    struct fixture *f = start_modules(both, 2);
    assert_string_equal(f->error, "");
    assert_int_equal(f->function_count, 21);
    put(f, 0, 1, "hooks", "", 0);
    put(f, 0, 2, "hooks.dotted", "", 0);
    put(f, 0, 3, "mute", "", 0);
    put(f, 0, 4, "echo", "e", 1);
    WAIT_UNTIL(f, f->call_count == 4);
    assert_memory_equal(f->calls[0].data, "\xdb\0\0\0\x05right", 10);
    assert_memory_equal(f->calls[1].data, "\xc0", 1);
    assert_int_equal(f->calls[2].end.status, HP_EXEC_CALL_ERROR);
    assert_string_equal(f->calls[2].data, "the function returned -7");
    hp_exec_child_recycle(f->exec, 0);
    WAIT_UNTIL(f, f->died_count == 1);
    fixture_free(f);
}

/* Its place is tried again, and filled once there is what it takes. */
static void a_child_that_can_not_be_forked(void **state)
{
    struct fixture *f = *state;
    struct rlimit none = {.rlim_cur = 3};
    struct rlimit before;
    assert_int_equal(prlimit(f->exec->zygote.pid, RLIMIT_NOFILE, NULL, &before), 0);
    none.rlim_max = before.rlim_max;
    assert_int_equal(prlimit(f->exec->zygote.pid, RLIMIT_NOFILE, &none, NULL), 0);
    assert_int_equal(hp_exec_child_kill(f->exec, 0, SIGKILL), HP_OK);
    WAIT_UNTIL(f, f->died_count == 1 && f->exec->kids[0].state == HP_KID_NONE);
    assert_int_equal(prlimit(f->exec->zygote.pid, RLIMIT_NOFILE, &before, NULL), 0);
    WAIT_UNTIL(f, f->child_is_ready[0]);
    put(f, 0, 1, "noop", "", 0);
    WAIT_UNTIL(f, f->ok_count == 1);
}

static void hooks_that_fail(void **state)
{
    (void)state;
    const char *const path = HP_TEST_MODULES "/hp_test_hooks.so";
    assert_int_equal(setenv("HP_TEST_LOAD_FAILS", "1", 1), 0);
    expect_refusal(path, "its load hook returned 5");
    assert_int_equal(unsetenv("HP_TEST_LOAD_FAILS"), 0);
    assert_int_equal(setenv("HP_TEST_INIT_FAILS", "1", 1), 0);
    struct fixture *f = start_modules(&path, 1);
    /* Each new child fails at once: they come later and later. */
    WAIT_UNTIL(f, f->died_count == 2);
    assert_int_equal(f->last_death.exit_code, 70);
    assert_int_equal(f->last_death.restart_ms, 200);
    fixture_free(f);
    assert_int_equal(unsetenv("HP_TEST_INIT_FAILS"), 0);
}

int main(void)
{
#define EXEC_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        EXEC_TEST(functions_are_listed),
        EXEC_TEST(results_and_failures),
        EXEC_TEST(no_result_after_one),
        EXEC_TEST(many_calls),
        EXEC_TEST(payloads_of_all_sizes),
        EXEC_TEST(many_large_ones),
        EXEC_TEST(no_descriptor_for_a_result),
        EXEC_TEST(results_can_be_sealed),
        EXEC_TEST(payload_in_a_descriptor),
        EXEC_TEST(payload_in_a_longer_file),
        EXEC_TEST(a_crash_fails_one_call),
        EXEC_TEST(an_exit_fails_one_call),
        EXEC_TEST(crashes_under_load),
        EXEC_TEST(calls_are_taken_back),
        EXEC_TEST(results_do_not_wait),
        EXEC_TEST(a_call_in_the_middle_is_skipped),
        EXEC_TEST(full_then_recalled),
        EXEC_TEST(recall_races),
        cmocka_unit_test(recycling_by_count),
        cmocka_unit_test(recycling_by_memory),
        cmocka_unit_test(results_over_the_cap),
        EXEC_TEST(a_child_that_can_not_be_forked),
        EXEC_TEST(the_dead_mans_switch),
        EXEC_TEST(the_zygotes_death_is_told),
        cmocka_unit_test(modules_that_are_no_good),
        cmocka_unit_test(hooks_run_where_they_should),
        cmocka_unit_test(hooks_that_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
