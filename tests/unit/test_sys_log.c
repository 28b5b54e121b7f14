/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the log: format, levels, cutting, and that a full pipe drops lines instead of blocking.
 */
#include "tests/lib/hp_test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "common/sys/log.h"

static char captured[8192];
static size_t captured_size;

static void capture(const char *line, size_t size, void *context)
{
    (void)context;
    assert_true(size < sizeof(captured) - captured_size);
    memcpy(captured + captured_size, line, size);
    captured_size += size;
    captured[captured_size] = '\0';
}

static int start_capture(void **state)
{
    (void)state;
    captured_size = 0;
    captured[0] = '\0';
    hp_log_set_sink(capture, NULL);
    return 0;
}

static int stop_capture(void **state)
{
    (void)state;
    hp_log_set_sink(NULL, NULL);
    hp_log_set_level(HP_LOG_INFO);
    return 0;
}

/* The line behind its time. */
static const char *formatted(const struct hp_log_kv *pairs)
{
    static char line[HP_LOG_LINE_BYTES + 1];
    size_t size = hp_log_format(line, 1767225600000, HP_LOG_INFO, "event", pairs);
    line[size] = '\0';
    assert_memory_equal(line, "2026-01-01T00:00:00.000Z ", 25);
    return line + 25;
}

static void test_format(void **state)
{
    (void)state;
    const struct hp_log_kv none[] = {HP_KV_END};
    assert_string_equal(formatted(none), "info event\n");
    const struct hp_log_kv kinds[] = {
        HP_KV_STR("a", "plain"),
        HP_KV_STR("b", NULL),
        HP_KV_STRN("c", HP_STR("x y")),
        HP_KV_U64("d", UINT64_MAX),
        HP_KV_I64("e", -5),
        HP_KV_HEX("f", 255),
        HP_KV_BOOL("g", true),
        HP_KV_BIN("h", hp_bin_make("\x01\xff", 2)),
        HP_KV_ERR("i", HP_ERR_NOT_FOUND),
        HP_KV_ERRNO("j", ENOENT),
        HP_KV_END,
    };
    assert_string_equal(formatted(kinds),
                        "info event a=plain b=- c=\"x y\" d=18446744073709551615 e=-5 f=0xff g=yes "
                        "h=01ff i=NOT_FOUND j=\"No such file or directory\"\n");
    const struct hp_log_kv escapes[] = {
        HP_KV_STR("a", "x=\"y\"\\\n\t\x01"),
        HP_KV_STR("b", ""),
        HP_KV_STR("c", "gr\xc3\xb6"),
        HP_KV_STR("d", "gr\xc3"),
        HP_KV_END,
    };
    assert_string_equal(formatted(escapes), "info event a=\"x=\\\"y\\\"\\\\\\n\\t\\x01\" b=\"\" "
                                            "c=gr\xc3\xb6 d=\"gr\\xc3\"\n");
}

static void test_cut(void **state)
{
    (void)state;
    static char big[10000];
    memset(big, 'x', sizeof(big) - 1);
    const struct hp_log_kv pairs[] = {HP_KV_STR("small", "s"), HP_KV_STR("big", big), HP_KV_END};
    char line[HP_LOG_LINE_BYTES];
    size_t size = hp_log_format(line, 0, HP_LOG_INFO, "event", pairs);
    assert_true(size <= HP_LOG_LINE_BYTES);
    assert_memory_equal(line + size - 5, " ...\n", 5);
    line[size - 1] = '\0';
    assert_non_null(strstr(line, "small=s"));
}

static void test_levels(void **state)
{
    (void)state;
    enum hp_log_level level = HP_LOG_INFO;
    errno = EBADF;
    hp_log(HP_LOG_INFO, "one");
    hp_log(HP_LOG_DEBUG, "hidden", HP_KV_U64("n", 1));
    hp_log_set_level(HP_LOG_DEBUG);
    hp_log(HP_LOG_DEBUG, "two", HP_KV_U64("n", 2), HP_KV_STR("s", "t"));
    assert_int_equal(errno, EBADF);
    assert_non_null(strstr(captured, " info one\n"));
    assert_null(strstr(captured, "hidden"));
    assert_non_null(strstr(captured, " debug two n=2 s=t\n"));
    assert_ok(hp_log_level_parse(HP_STR("trace"), &level));
    assert_int_equal(level, HP_LOG_TRACE);
    assert_err(hp_log_level_parse(HP_STR("loud"), &level), HP_ERR_INVALID);
    assert_string_equal(hp_log_level_name(HP_LOG_WARN), "warn");
}

/* Reads what is in a pipe now; returns the bytes. */
static size_t drain(int fd, char *out, size_t out_size)
{
    size_t total = 0;
    ssize_t got = read(fd, out, out_size - 1);
    while (got > 0) {
        total += (size_t)got;
        got = read(fd, out + total, out_size - 1 - total);
    }
    out[total] = '\0';
    return total;
}

static void test_never_blocks(void **state)
{
    (void)state;
    static char text[1 << 20];
    int fds[2];
    assert_int_equal(pipe(fds), 0); /* the write end blocks, as a real stderr may */
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    hp_log_set_fd(fds[1]);
    uint64_t dropped_before = hp_log_drop_count();
    for (int i = 0; i < 5000; i++) {
        hp_log(HP_LOG_INFO, "filling",
               HP_KV_STR("text", "some hundred bytes or so of text, no more"));
    }
    uint64_t dropped = hp_log_drop_count() - dropped_before;
    assert_true(dropped > 0 && dropped < 5000);
    assert_true(drain(fds[0], text, sizeof(text)) > 0);
    hp_log(HP_LOG_INFO, "after");
    assert_true(drain(fds[0], text, sizeof(text)) > 0);
    char expected[64];
    (void)snprintf(expected, sizeof(expected), " warn log_dropped count=%llu\n",
                   (unsigned long long)dropped);
    assert_non_null(strstr(text, expected));
    assert_non_null(strstr(text, " info after\n"));
    hp_log_set_fd(2);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_format),
    cmocka_unit_test(test_cut),
    cmocka_unit_test_setup_teardown(test_levels, start_capture, stop_capture),
    cmocka_unit_test(test_never_blocks),
};

HP_TEST_MAIN(tests)
