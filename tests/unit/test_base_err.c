/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of err, assert, mem and bin. */
#include "tests/lib/hp_test.h"

#include <stdio.h>

#include "common/base/bin.h"
#include "common/base/endian.h"

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(hp_err_name(HP_OK), "OK");
    assert_string_equal(hp_err_name(HP_ERR_NOT_FOUND), "NOT_FOUND");
    assert_string_equal(hp_err_text(HP_ERR_NOSPACE), "no space left on the disk");
    assert_string_equal(hp_err_name(HP_ERR_COUNT), "UNKNOWN");
    assert_string_equal(hp_err_text((enum hp_err) - 1), "unknown error");
    for (int i = 0; i < HP_ERR_COUNT; i++) {
        assert_string_not_equal(hp_err_name((enum hp_err)i), "UNKNOWN");
        assert_true(strlen(hp_err_text((enum hp_err)i)) > 0);
    }
}

static void test_error_set(void **state)
{
    (void)state;
    struct hp_error error = {0};
    assert_err(hp_error_set(&error, HP_ERR_RANGE, "x is %d", 7), HP_ERR_RANGE);
    assert_string_equal(error.text, "x is 7");
    assert_err(hp_error_set(&error, HP_ERR_IO, "outer: %s", error.text), HP_ERR_IO);
    assert_string_equal(error.text, "outer: x is 7");
    assert_err(hp_error_set(&error, HP_ERR_BUSY, NULL), HP_ERR_BUSY);
    assert_string_equal(error.text, "busy");
    assert_err(hp_error_set(NULL, HP_ERR_BUSY, "nowhere"), HP_ERR_BUSY);
    char text[400];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    assert_err(hp_error_set(&error, HP_ERR_IO, "%s", text), HP_ERR_IO);
    assert_int_equal(strlen(error.text), HP_ERROR_TEXT_BYTES - 1);
}

static void test_assert(void **state)
{
    (void)state;
    HP_ASSERT(1 + 1 == 2);
    assert_aborts(HP_ASSERT(1 + 1 == 3));
    assert_aborts(HP_UNREACHABLE());
}

static void test_mem(void **state)
{
    (void)state;
    void *block = hp_alloc(0);
    assert_non_null(block);
    hp_free(block);
    assert_null(hp_calloc(SIZE_MAX / 2, 3));
    assert_null(hp_alloc_array(SIZE_MAX / 2, 3));
    assert_null(hp_realloc_array(NULL, SIZE_MAX / 2, 3));
    char *copy = hp_strdup("abc");
    assert_string_equal(copy, "abc");
    copy = hp_realloc(copy, 100);
    assert_string_equal(copy, "abc");
    hp_free_ptr(&copy);
    uint8_t *zeroed = hp_calloc(3, 5);
    for (int i = 0; i < 15; i++) {
        assert_int_equal(zeroed[i], 0);
    }
    hp_free(zeroed);
}

/* Whether each of five allocations comes back, as a bit mask. */
static unsigned five_allocations(void)
{
    unsigned mask = 0;
    for (unsigned i = 0; i < 5; i++) {
        void *block = hp_alloc(8);
        mask |= block != NULL ? 1u << i : 0;
        hp_free(block);
    }
    return mask;
}

static void test_mem_fail(void **state)
{
    (void)state;
    hp_mem_fail_at(2, false);
    assert_int_equal(five_allocations(), 0x1d);
    assert_int_equal(hp_mem_fail_count(), 1);
    hp_mem_fail_at(3, true);
    assert_int_equal(five_allocations(), 0x03);
    assert_int_equal(hp_mem_fail_count(), 3);
    hp_mem_fail_at(0, false);
    assert_int_equal(five_allocations(), 0x1f);
}

static void test_bin(void **state)
{
    (void)state;
    struct hp_str abc = HP_STR("abc");
    static const struct hp_str as_static = HP_STR_INIT("abc");
    assert_int_equal(abc.size, 3);
    assert_true(hp_str_eq(abc, as_static));
    assert_true(hp_str_eq_c(abc, "abc"));
    assert_false(hp_str_eq_c(abc, "abd"));
    assert_false(hp_str_eq_c(abc, "ab"));
    assert_true(hp_str_eq((struct hp_str){0}, HP_STR("")));
    assert_true(hp_str_eq(hp_str_of(NULL), HP_STR("")));
    assert_true(hp_str_compare(HP_STR("ab"), abc) < 0);
    assert_true(hp_str_compare(HP_STR("b"), abc) > 0);
    assert_int_equal(hp_str_compare(abc, as_static), 0);
    assert_true(hp_str_starts_with(abc, HP_STR("ab")));
    assert_true(hp_str_starts_with(abc, HP_STR("")));
    assert_false(hp_str_starts_with(abc, HP_STR("abcd")));
    assert_true(hp_secret_eq(hp_str_as_bin(abc), hp_bin_make("abc", 3)));
    assert_false(hp_secret_eq(hp_str_as_bin(abc), hp_bin_make("abd", 3)));
    assert_false(hp_secret_eq(hp_str_as_bin(abc), hp_bin_make("abcd", 4)));
    char text[16];
    assert_int_equal(snprintf(text, sizeof(text), "[%" HP_STR_FMT "]", HP_STR_ARG(abc)), 5);
    assert_string_equal(text, "[abc]");
    assert_aborts((void)hp_str_make(NULL, 1));
}

static void test_endian(void **state)
{
    (void)state;
    uint8_t at[9] = {0};
    hp_put_be16(at + 1, 0x0102);
    assert_memory_equal(at + 1, "\x01\x02", 2);
    assert_int_equal(hp_get_be16(at + 1), 0x0102);
    hp_put_be32(at + 1, 0xf1020304);
    assert_memory_equal(at + 1, "\xf1\x02\x03\x04", 4);
    assert_int_equal(hp_get_be32(at + 1), 0xf1020304);
    hp_put_be64(at + 1, UINT64_C(0xf102030405060708));
    assert_memory_equal(at + 1, "\xf1\x02\x03\x04\x05\x06\x07\x08", 8);
    assert_true(hp_get_be64(at + 1) == UINT64_C(0xf102030405060708));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_names),  cmocka_unit_test(test_error_set), cmocka_unit_test(test_assert),
    cmocka_unit_test(test_mem),    cmocka_unit_test(test_mem_fail),  cmocka_unit_test(test_bin),
    cmocka_unit_test(test_endian),
};

HP_TEST_MAIN(tests)
