/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the byte buffer: limits, both ends, against a plain model. */
#include "tests/lib/hp_test.h"

#include <wchar.h>

#include "common/base/buf.h"
#include "common/base/rand.h"

static void test_append_and_limit(void **state)
{
    (void)state;
    struct hp_buf buf;
    hp_buf_init(&buf, 10);
    assert_ok(hp_buf_append(&buf, "", 0));
    assert_ok(hp_buf_append(&buf, "hello", 5));
    assert_ok(hp_buf_append_text(&buf, "wor"));
    assert_err(hp_buf_append(&buf, "abc", 3), HP_ERR_FULL);
    assert_int_equal(buf.size, 8);
    assert_ok(hp_buf_append_byte(&buf, 'l'));
    assert_ok(hp_buf_append_byte(&buf, 'd'));
    assert_err(hp_buf_append_byte(&buf, '!'), HP_ERR_FULL);
    assert_memory_equal(buf.data, "helloworld", 10);
    hp_buf_consume(&buf, 5);
    assert_memory_equal(buf.data, "world", 5);
    assert_ok(hp_buf_append_text(&buf, "12345"));
    assert_memory_equal(buf.data, "world12345", 10);
    hp_buf_truncate(&buf, 6);
    assert_true(hp_bin_eq(hp_buf_bin(&buf), hp_bin_make("world1", 6)));
    assert_aborts(hp_buf_consume(&buf, 7));
    hp_buf_deinit(&buf);
    assert_int_equal(buf.size, 0);
    assert_ok(hp_buf_append_text(&buf, "again"));
    hp_buf_deinit(&buf);
}

static void test_reserve(void **state)
{
    (void)state;
    struct hp_buf buf;
    uint8_t *at = NULL;
    hp_buf_init(&buf, 1000);
    assert_ok(hp_buf_reserve(&buf, 4, &at));
    memcpy(at, "abcd", 4);
    assert_int_equal(buf.size, 0);
    hp_buf_commit(&buf, 3);
    assert_true(hp_bin_eq(hp_buf_bin(&buf), hp_bin_make("abc", 3)));
    assert_err(hp_buf_reserve(&buf, 998, &at), HP_ERR_FULL);
    assert_aborts(hp_buf_commit(&buf, 998));
    struct hp_buf other;
    hp_buf_init(&other, 100);
    assert_ok(hp_buf_append_text(&other, "xyz"));
    assert_ok(hp_buf_append_buf(&buf, &other));
    assert_true(hp_bin_eq(hp_buf_bin(&buf), hp_bin_make("abcxyz", 6)));
    hp_buf_deinit(&other);
    hp_buf_deinit(&buf);
}

static void test_format(void **state)
{
    (void)state;
    struct hp_buf buf;
    hp_buf_init(&buf, 8);
    assert_ok(hp_buf_append_format(&buf, "%d-%s", 12, "ab"));
    assert_ok(hp_buf_append_format(&buf, "%s", "xyz")); /* fills it to the last byte */
    assert_err(hp_buf_append_format(&buf, "%s", "z"), HP_ERR_FULL);
    assert_true(hp_bin_eq(hp_buf_bin(&buf), hp_bin_make("12-abxyz", 8)));
    hp_buf_clear(&buf);
    assert_err(hp_buf_append_format(&buf, "%lc", (wint_t)0x110000), HP_ERR_INVALID); /* no such */
    assert_int_equal(buf.size, 0);
    hp_buf_deinit(&buf);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    struct hp_buf buf;
    hp_buf_init(&buf, 1000);
    assert_ok(hp_buf_append_text(&buf, "keep"));
    hp_mem_fail_at(1, true);
    assert_err(hp_buf_reserve(&buf, 500, NULL), HP_ERR_NOMEM);
    hp_buf_shrink(&buf); /* can not, does not matter */
    assert_err(hp_buf_append_format(&buf, "%0500d", 1), HP_ERR_NOMEM);
    assert_err(hp_buf_append_format(&buf, "%0996d", 1), HP_ERR_NOMEM); /* printed aside */
    hp_mem_fail_at(3, false);
    assert_ok(hp_buf_append_format(&buf, "%s", ""));
    hp_mem_fail_at(2, false);
    assert_err(hp_buf_append_format(&buf, "%0996d", 1), HP_ERR_NOMEM);
    hp_mem_fail_at(0, false);
    assert_true(hp_bin_eq(hp_buf_bin(&buf), hp_bin_make("keep", 4)));
    hp_buf_shrink(&buf);
    assert_int_equal(buf.capacity, 4);
    hp_buf_shrink(&buf); /* there is nothing left to give back */
    assert_int_equal(buf.capacity, 4);
    hp_buf_deinit(&buf);
}

/* Random operations against bytes numbered in order: byte i of the stream is i mod 251. */
static void test_stream(void **state)
{
    (void)state;
    struct hp_rand rand;
    struct hp_buf buf;
    uint64_t written = 0;
    uint64_t taken = 0;
    hp_rand_init(&rand, 1);
    hp_buf_init(&buf, 5000);
    for (int step = 0; step < 20000; step++) {
        uint8_t part[700];
        size_t size = hp_rand_uniform(&rand, sizeof(part));
        for (size_t i = 0; i < size; i++) {
            part[i] = (uint8_t)((written + i) % 251);
        }
        enum hp_err err = hp_buf_append(&buf, part, size);
        assert_err(err, written - taken + size > 5000 ? HP_ERR_FULL : HP_OK);
        written += err == HP_OK ? size : 0;
        assert_int_equal(buf.size, written - taken);
        assert_true(buf.capacity <= 10000);
        size_t drop = hp_rand_uniform(&rand, HP_MIN(buf.size, 690) + 1);
        for (size_t i = 0; i < drop; i++) {
            assert_int_equal(buf.data[i], (taken + i) % 251);
        }
        hp_buf_consume(&buf, drop);
        taken += drop;
        if (hp_rand_chance(&rand, 1, 100)) {
            hp_buf_shrink(&buf);
        }
    }
    hp_buf_deinit(&buf);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_append_and_limit), cmocka_unit_test(test_reserve),
    cmocka_unit_test(test_format),           cmocka_unit_test(test_out_of_memory),
    cmocka_unit_test(test_stream),
};

HP_TEST_MAIN(tests)
