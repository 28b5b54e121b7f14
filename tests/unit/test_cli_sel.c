/* SPDX-License-Identifier: BSD-2-Clause */
/* Selectors, arrays, times, signals, --halt: what people type. */
#include "tests/lib/hp_test.h"

#include "cli/halt.h"
#include "cli/sel.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static size_t parse(const char *word, struct hp_cli_sels *sels)
{
    const char *error = NULL;
    sels->count = 0;
    return hp_cli_sel_parse(word, sels, &error) ? sels->count : 0;
}

static void refuse(const char *word)
{
    struct hp_cli_sels sels = {0};
    const char *error = NULL;
    assert_false(hp_cli_sel_parse(word, &sels, &error));
    assert_non_null(error);
}

static void test_one_id(void **state)
{
    struct hp_cli_sels sels = {0};
    (void)state;
    assert_int_equal(parse("1234", &sels), 1);
    assert_int_equal(sels.items[0].kind, HP_CLI_SEL_RANGE);
    assert_int_equal(sels.items[0].first, 1234);
    assert_int_equal(sels.items[0].last, 1234);
}

static void test_ranges(void **state)
{
    struct hp_cli_sels sels = {0};
    (void)state;
    assert_int_equal(parse("1,4,8-9,5-99:2", &sels), 4);
    assert_int_equal(sels.items[2].first, 8);
    assert_int_equal(sels.items[2].last, 9);
    assert_int_equal(sels.items[3].step, 2);
    assert_int_equal(sels.items[3].last, 99);
}

static void test_members(void **state)
{
    struct hp_cli_sels sels = {0};
    (void)state;
    assert_int_equal(parse("1234.7,1234.2-5", &sels), 2);
    assert_int_equal(sels.items[0].kind, HP_CLI_SEL_MEMBERS);
    assert_int_equal(sels.items[0].array, 1234);
    assert_int_equal(sels.items[0].first, 7);
    assert_int_equal(sels.items[1].first, 2);
    assert_int_equal(sels.items[1].last, 5);
}

static void test_words(void **state)
{
    struct hp_cli_sels sels = {0};
    (void)state;
    assert_int_equal(parse("last,all,@thumbs", &sels), 3);
    assert_int_equal(sels.items[0].kind, HP_CLI_SEL_LAST);
    assert_int_equal(sels.items[1].kind, HP_CLI_SEL_ALL);
    assert_int_equal(sels.items[2].kind, HP_CLI_SEL_BATCH);
    assert_string_equal(sels.items[2].batch, "thumbs");
}

static void test_refused(void **state)
{
    static const char *const wrong[] = {
        "",      "abc",  "1-",  "-1", "9-5", "1:2",    "1-5:0", "1,",   ",1",
        "1,,2",  "1.",   "1.x", "@",  "1 2", "lastly", "1-5:",  "0x10", "18446744073709551616",
        "1.2.3", "@a\nb"};
    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        refuse(wrong[i]);
    }
}

static void test_largest_id(void **state)
{
    struct hp_cli_sels sels = {0};
    (void)state;
    assert_int_equal(parse("18446744073709551615", &sels), 1);
    assert_true(sels.items[0].first == UINT64_MAX);
}

static void test_array(void **state)
{
    uint64_t first = 0;
    uint64_t step = 0;
    uint64_t count = 0;
    const char *error = NULL;
    (void)state;
    assert_true(hp_cli_array_parse("1-100", &first, &step, &count, &error));
    assert_int_equal(count, 100);
    assert_true(hp_cli_array_parse("0-98:2", &first, &step, &count, &error));
    assert_int_equal(count, 50);
    assert_true(hp_cli_array_parse("7", &first, &step, &count, &error));
    assert_int_equal(count, 1);
    assert_true(hp_cli_array_parse("1-1000000", &first, &step, &count, &error));
    assert_false(hp_cli_array_parse("0-1000000", &first, &step, &count, &error));
    assert_false(hp_cli_array_parse("1-5,7", &first, &step, &count, &error));
    assert_false(hp_cli_array_parse("0-18446744073709551615", &first, &step, &count, &error));
}

static void test_ids_join(void **state)
{
    struct hp_cli_ids ids = {0};
    (void)state;
    hp_cli_ids_add(&ids, 5, 2);
    hp_cli_ids_add(&ids, 7, 1);
    hp_cli_ids_add(&ids, 9, 1);
    assert_int_equal(ids.count, 2);
    assert_int_equal(ids.total, 4);
    assert_int_equal(ids.ranges[0].count, 3);
    hp_cli_ids_add(&ids, 100, UINT64_C(5000000000));
    assert_int_equal(ids.count, 4);
    assert_true(ids.total == UINT64_C(5000000004));
    hp_cli_ids_free(&ids);
}

static void test_times(void **state)
{
    int64_t at_ms = 0;
    (void)state;
    assert_true(hp_cli_time_parse("+2h", 1000, &at_ms));
    assert_int_equal(at_ms, 7201000);
    assert_true(hp_cli_time_parse("2026-01-31T18:00:00Z", 0, &at_ms));
    assert_true(at_ms == INT64_C(1769882400000));
    assert_true(hp_cli_time_parse("2026-01-31T18:00:00.250Z", 0, &at_ms));
    assert_true(at_ms == INT64_C(1769882400000));
    assert_true(hp_cli_time_parse("2026-01-31T20:00+02:00", 0, &at_ms));
    assert_true(at_ms == INT64_C(1769882400000));
    assert_int_equal(setenv("TZ", "UTC", 1), 0);
    tzset();
    assert_true(hp_cli_time_parse("2026-01-31 18:00", 0, &at_ms));
    assert_true(at_ms == INT64_C(1769882400000));
    assert_false(hp_cli_time_parse("+2", 0, &at_ms));
    assert_false(hp_cli_time_parse("tomorrow", 0, &at_ms));
    assert_false(hp_cli_time_parse("2026-01-31T18:00:00X", 0, &at_ms));
    assert_false(hp_cli_time_parse("2026-01-31T18:00:00+2:00", 0, &at_ms));
    assert_false(hp_cli_time_parse("2026-13-31", 0, &at_ms));
}

static void test_signals(void **state)
{
    unsigned number = 0;
    char name[32];
    (void)state;
    assert_true(hp_cli_signal_parse("TERM", &number));
    assert_int_equal(number, 15);
    assert_true(hp_cli_signal_parse("sigusr1", &number));
    assert_int_equal(number, 10);
    assert_true(hp_cli_signal_parse("64", &number));
    assert_false(hp_cli_signal_parse("65", &number));
    assert_false(hp_cli_signal_parse("0", &number));
    assert_false(hp_cli_signal_parse("NOPE", &number));
    assert_string_equal(hp_cli_signal_name(9, name), "SIGKILL");
    assert_string_equal(hp_cli_signal_name(50, name), "signal 50");
}

static void test_halt(void **state)
{
    struct hp_cli_halt halt;
    (void)state;
    assert_true(hp_cli_halt_parse("never", &halt));
    assert_false(hp_cli_halt_reached(&halt, 100, 100, 100));
    assert_true(hp_cli_halt_parse("now,fail=2", &halt));
    assert_int_equal(halt.when, HP_CLI_HALT_NOW);
    assert_false(hp_cli_halt_reached(&halt, 10, 1, 0));
    assert_true(hp_cli_halt_reached(&halt, 10, 2, 0));
    assert_true(hp_cli_halt_parse("soon,success=3", &halt));
    assert_int_equal(halt.when, HP_CLI_HALT_SOON);
    assert_true(hp_cli_halt_reached(&halt, 5, 2, 0));
    assert_true(hp_cli_halt_parse("now,fail=10%", &halt));
    assert_false(hp_cli_halt_reached(&halt, 20, 2, 20)); /* at least three */
    assert_true(hp_cli_halt_reached(&halt, 20, 3, 30));
    assert_false(hp_cli_halt_reached(&halt, 20, 3, 31));
    assert_true(hp_cli_halt_reached(&halt, 30, 3, 0));
    static const char *const wrong[] = {
        "",       "now",          "now,fail",   "now,fail=0",      "now,fail=101%",
        "fail=1", "later,fail=1", "now,fail=%", "soon,now,fail=1x"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_false(hp_cli_halt_parse(wrong[i], &halt));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_id),  cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_members), cmocka_unit_test(test_words),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_largest_id),
        cmocka_unit_test(test_array),   cmocka_unit_test(test_ids_join),
        cmocka_unit_test(test_times),   cmocka_unit_test(test_signals),
        cmocka_unit_test(test_halt),
    };
    int result = cmocka_run_group_tests(tests, NULL, NULL);
    hp_cli_free_all();
    return result;
}
