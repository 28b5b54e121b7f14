/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the arena. */
#include "tests/lib/hp_test.h"

#include "common/base/arena.h"

static void test_alloc(void **state)
{
    (void)state;
    struct hp_arena arena;
    hp_arena_init(&arena, 128, 4096);
    uint8_t *blocks[40];
    for (size_t i = 0; i < 40; i++) {
        blocks[i] = hp_arena_alloc(&arena, i);
        assert_non_null(blocks[i]);
        assert_int_equal((uintptr_t)blocks[i] % 16, 0);
        memset(blocks[i], (int)i, i);
    }
    for (size_t i = 0; i < 40; i++) {
        for (size_t k = 0; k < i; k++) {
            assert_int_equal(blocks[i][k], i);
        }
    }
    assert_true(hp_arena_used(&arena) >= 780 && hp_arena_used(&arena) <= 4096);
    hp_arena_deinit(&arena);
}

static void test_limit_and_reset(void **state)
{
    (void)state;
    struct hp_arena arena;
    hp_arena_init(&arena, 64, 1024);
    assert_null(hp_arena_alloc(&arena, 1025));
    assert_null(hp_arena_alloc(&arena, SIZE_MAX));
    assert_null(hp_arena_calloc(&arena, SIZE_MAX / 2, 3));
    assert_non_null(hp_arena_alloc(&arena, 1024));
    assert_null(hp_arena_alloc(&arena, 1));
    hp_arena_reset(&arena);
    assert_int_equal(hp_arena_used(&arena), 0);
    void *first = hp_arena_alloc(&arena, 16);
    assert_non_null(hp_arena_alloc(&arena, 300));
    hp_arena_reset(&arena);
    hp_mem_fail_at(1, true); /* the first chunk was kept, so no memory is asked for */
    assert_ptr_equal(hp_arena_alloc(&arena, 16), first);
    assert_null(hp_arena_alloc(&arena, 100));
    hp_mem_fail_at(0, false);
    hp_arena_deinit(&arena);
    hp_arena_deinit(&arena);
}

static void test_copy(void **state)
{
    (void)state;
    struct hp_arena arena;
    hp_arena_init(&arena, 256, 1024);
    struct hp_str str = {0};
    assert_ok(hp_arena_copy_str(&arena, HP_STR("abc"), &str));
    assert_string_equal(str.data, "abc");
    struct hp_bin bin = {0};
    assert_ok(hp_arena_copy_bin(&arena, hp_bin_make("\0x", 2), &bin));
    assert_memory_equal(bin.data, "\0x", 3);
    assert_ok(hp_arena_copy_bin(&arena, (struct hp_bin){0}, &bin));
    assert_int_equal(bin.size, 0);
    uint64_t *numbers = HP_ARENA_NEW_ARRAY(&arena, uint64_t, 4);
    assert_true(numbers[0] == 0 && numbers[3] == 0);
    struct hp_str big = {.data = "x", .size = 2000};
    assert_err(hp_arena_copy_str(&arena, big, &str), HP_ERR_NOMEM);
    assert_string_equal(str.data, "abc");
    hp_arena_deinit(&arena);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_alloc),
    cmocka_unit_test(test_limit_and_reset),
    cmocka_unit_test(test_copy),
};

HP_TEST_MAIN(tests)
