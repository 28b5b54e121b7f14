/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the text helpers: numbers, durations, sizes, names, near misses. */
#include "tests/lib/hp_test.h"

#include "common/base/rand.h"
#include "common/base/str.h"

struct row {
    const char *text;
    enum hp_err err;
    uint64_t value;
};

static void test_u64(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"0", HP_OK, 0},
        {"42", HP_OK, 42},
        {"18446744073709551615", HP_OK, UINT64_MAX},
        {"18446744073709551616", HP_ERR_RANGE, 0},
        {"", HP_ERR_INVALID, 0},
        {"-1", HP_ERR_INVALID, 0},
        {"1 ", HP_ERR_INVALID, 0},
        {"0x10", HP_ERR_INVALID, 0},
    };
    for (size_t i = 0; i < HP_COUNT_OF(rows); i++) {
        uint64_t value = 0;
        assert_err(hp_parse_u64(hp_str_of(rows[i].text), &value, NULL), rows[i].err);
        assert_true(value == rows[i].value);
    }
    struct hp_error error = {0};
    uint64_t untouched = 9;
    assert_err(hp_parse_u64(HP_STR("9x"), &untouched, &error), HP_ERR_INVALID);
    assert_int_equal(untouched, 9);
    assert_string_equal(error.text, "'9x' is not a number (digits only)");
}

static void test_i64(void **state)
{
    (void)state;
    int64_t value = 0;
    assert_ok(hp_parse_i64(HP_STR("-9223372036854775808"), &value, NULL));
    assert_true(value == INT64_MIN);
    assert_ok(hp_parse_i64(HP_STR("+9223372036854775807"), &value, NULL));
    assert_true(value == INT64_MAX);
    assert_err(hp_parse_i64(HP_STR("9223372036854775808"), &value, NULL), HP_ERR_RANGE);
    assert_err(hp_parse_i64(HP_STR("-9223372036854775809"), &value, NULL), HP_ERR_RANGE);
    assert_err(hp_parse_i64(HP_STR("-"), &value, NULL), HP_ERR_INVALID);
    assert_err(hp_parse_i64(HP_STR(""), &value, NULL), HP_ERR_INVALID);
}

static void test_bool(void **state)
{
    (void)state;
    bool value = false;
    assert_ok(hp_parse_bool(HP_STR("Yes"), &value, NULL));
    assert_true(value);
    assert_ok(hp_parse_bool(HP_STR("off"), &value, NULL));
    assert_false(value);
    assert_err(hp_parse_bool(HP_STR("maybe"), &value, NULL), HP_ERR_INVALID);
    assert_err(hp_parse_bool(HP_STR(""), &value, NULL), HP_ERR_INVALID);
}

static void test_duration(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"0", HP_OK, 0},
        {"250ms", HP_OK, 250},
        {"90s", HP_OK, 90000},
        {"15m", HP_OK, 900000},
        {"2h", HP_OK, 7200000},
        {"1d", HP_OK, 86400000},
        {"1.5s", HP_OK, 1500},
        {"1h30m", HP_OK, 5400000},
        {"1m250ms", HP_OK, 60250},
        {"30m1h", HP_ERR_INVALID, 0},
        {"1s1s", HP_ERR_INVALID, 0},
        {"5", HP_ERR_INVALID, 0},
        {"s", HP_ERR_INVALID, 0},
        {"1.s", HP_ERR_INVALID, 0},
        {"-1s", HP_ERR_INVALID, 0},
        {"1 s", HP_ERR_INVALID, 0},
        {"1y", HP_ERR_INVALID, 0},
        {"", HP_ERR_INVALID, 0},
        {"0.12345678999s", HP_OK, 123}, /* nine digits count */
        {"999999999999d", HP_ERR_RANGE, 0},
        {"18446744073709551615ms", HP_OK, UINT64_MAX},
        {"18446744073709551616ms", HP_ERR_RANGE, 0},
        {"99999999999999999999ms", HP_ERR_RANGE, 0},
        {"213503982334.7d", HP_ERR_RANGE, 0},
        {"213503982334d15h", HP_ERR_RANGE, 0},
        {"213503982334d14h25m51s615ms", HP_OK, UINT64_MAX},
    };
    for (size_t i = 0; i < HP_COUNT_OF(rows); i++) {
        uint64_t value = 0;
        assert_err(hp_parse_duration_ms(hp_str_of(rows[i].text), &value, NULL), rows[i].err);
        assert_true(value == rows[i].value);
    }
    struct hp_error error = {0};
    uint64_t value = 0;
    assert_err(hp_parse_duration_ms(HP_STR("10"), &value, &error), HP_ERR_INVALID);
    assert_string_equal(error.text, "'10' is not a duration (a number with ms, s, m, h or d)");
}

static void test_size(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"0", HP_OK, 0},
        {"4096", HP_OK, 4096},
        {"512K", HP_OK, 512 * 1024},
        {"512M", HP_OK, UINT64_C(512) << 20},
        {"4G", HP_OK, UINT64_C(4) << 30},
        {"1T", HP_OK, UINT64_C(1) << 40},
        {"1.5k", HP_OK, 1536},
        {"3MiB", HP_OK, UINT64_C(3) << 20},
        {"3MB", HP_OK, UINT64_C(3) << 20},
        {"7B", HP_OK, 7},
        {"1.5", HP_ERR_INVALID, 0},
        {"M", HP_ERR_INVALID, 0},
        {"1M1K", HP_ERR_INVALID, 0},
        {"1P", HP_ERR_INVALID, 0},
        {"1iB", HP_ERR_INVALID, 0},
        {"1KxB", HP_ERR_INVALID, 0},
        {"2kib", HP_OK, 2048},
        {"7b", HP_OK, 7},
        {"16777216T", HP_ERR_RANGE, 0},
        {"", HP_ERR_INVALID, 0},
        {"99999999999T", HP_ERR_RANGE, 0},
    };
    for (size_t i = 0; i < HP_COUNT_OF(rows); i++) {
        uint64_t value = 0;
        assert_err(hp_parse_size_bytes(hp_str_of(rows[i].text), &value, NULL), rows[i].err);
        assert_true(value == rows[i].value);
    }
}

static void test_format(void **state)
{
    (void)state;
    char out[HP_FORMAT_BYTES];
    assert_string_equal(hp_format_duration(out, sizeof(out), 0), "0s");
    assert_string_equal(hp_format_duration(out, sizeof(out), 250), "250ms");
    assert_string_equal(hp_format_duration(out, sizeof(out), 90000), "1m30s");
    assert_string_equal(hp_format_duration(out, sizeof(out), 93784005), "1d2h3m4s5ms");
    assert_string_equal(hp_format_size(out, sizeof(out), 0), "0");
    assert_string_equal(hp_format_size(out, sizeof(out), 4096), "4K");
    assert_string_equal(hp_format_size(out, sizeof(out), 4097), "4097");
    assert_string_equal(hp_format_size_human(out, sizeof(out), 100), "100 B");
    assert_string_equal(hp_format_size_human(out, sizeof(out), 3565158), "3.4 MiB");
    assert_string_equal(hp_format_duration(out, 5, 93784005), "1d2h"); /* cut, not overrun */
    assert_string_equal(hp_format_duration(out, 2, 93784005), "1");
    struct hp_rand rand;
    hp_rand_init(&rand, 5);
    for (int i = 0; i < 10000; i++) {
        uint64_t value = hp_rand_next(&rand) >> hp_rand_uniform(&rand, 64);
        uint64_t again = 0;
        hp_format_duration(out, sizeof(out), value);
        assert_ok(hp_parse_duration_ms(hp_str_of(out), &again, NULL));
        assert_true(again == value);
        hp_format_size(out, sizeof(out), value);
        assert_ok(hp_parse_size_bytes(hp_str_of(out), &again, NULL));
        assert_true(again == value);
        hp_format_size_human(out, sizeof(out), value);
    }
}

static void test_near(void **state)
{
    (void)state;
    static const char *const words[] = {"submit", "status", "stats", "wait", "ls"};
    assert_int_equal(hp_edit_distance(HP_STR("abc"), HP_STR("abc"), 9), 0);
    assert_int_equal(hp_edit_distance(HP_STR("abc"), HP_STR("ABD"), 9), 1);
    assert_int_equal(hp_edit_distance(HP_STR("abcd"), HP_STR("bacd"), 9), 1);
    assert_int_equal(hp_edit_distance(HP_STR(""), HP_STR("abc"), 9), 3);
    assert_int_equal(hp_edit_distance(HP_STR("kitten"), HP_STR("sitting"), 9), 3);
    assert_int_equal(hp_edit_distance(HP_STR("kitten"), HP_STR("sitting"), 1), 2);
    assert_string_equal(hp_suggest(HP_STR("sumbit"), words, HP_COUNT_OF(words)), "submit");
    assert_string_equal(hp_suggest(HP_STR("statu"), words, HP_COUNT_OF(words)), "status");
    assert_string_equal(hp_suggest(HP_STR("WAIT"), words, HP_COUNT_OF(words)), "wait");
    assert_null(hp_suggest(HP_STR("frobnicate"), words, HP_COUNT_OF(words)));
    assert_null(hp_suggest(HP_STR(""), words, HP_COUNT_OF(words)));
}

static void test_names(void **state)
{
    (void)state;
    char text[300];
    memset(text, 'a', sizeof(text));
    assert_true(hp_name_valid(HP_STR("queue one/2")));
    assert_true(hp_name_valid(HP_STR("gr\xc3\xb6\xc3\x9f"
                                     "e \xe2\x82\xac \xf0\x9f\x98\x80")));
    assert_true(hp_name_valid(hp_str_make(text, 255)));
    assert_false(hp_name_valid(hp_str_make(text, 256)));
    static const char *const bad[] = {
        "",         "a\nb",         "\x7f",         "\xc2\x80",
        "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
        "\xff",     "\xc3",         "\xe2\x82",     "\x80",
    };
    for (size_t i = 0; i < HP_COUNT_OF(bad); i++) {
        assert_false(hp_name_valid(hp_str_of(bad[i])));
    }
    assert_true(hp_utf8_valid(HP_STR("a\nb")));
    assert_false(hp_utf8_valid(HP_STR("a\xc3")));
}

static void test_copy(void **state)
{
    (void)state;
    char out[4];
    assert_int_equal(hp_strlcpy(out, "abcdef", sizeof(out)), 6);
    assert_string_equal(out, "abc");
    assert_int_equal(hp_strlcpy(out, "x", sizeof(out)), 1);
    assert_string_equal(out, "x");
    char hex[7];
    assert_string_equal(hp_hex(hex, "\x01\xab\xff", 3), "01abff");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_u64),      cmocka_unit_test(test_i64),   cmocka_unit_test(test_bool),
    cmocka_unit_test(test_duration), cmocka_unit_test(test_size),  cmocka_unit_test(test_format),
    cmocka_unit_test(test_near),     cmocka_unit_test(test_names), cmocka_unit_test(test_copy),
};

HP_TEST_MAIN(tests)
