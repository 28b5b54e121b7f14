/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the seeded generator. */
#include "tests/lib/hp_test.h"

#include "common/base/rand.h"

static void test_reference(void **state)
{
    (void)state;
    /* First outputs of xoshiro256** from the state 1, 2, 3, 4. */
    struct hp_rand rand = {.state = {1, 2, 3, 4}};
    assert_int_equal(hp_rand_next(&rand), 11520);
    assert_int_equal(hp_rand_next(&rand), 0);
    assert_int_equal(hp_rand_next(&rand), 1509978240);
    assert_int_equal(hp_rand_next(&rand), 1215971899390074240);
}

static void test_seeded(void **state)
{
    (void)state;
    struct hp_rand a;
    struct hp_rand b;
    struct hp_rand c;
    hp_rand_init(&a, 42);
    hp_rand_init(&b, 42);
    hp_rand_init(&c, 43);
    bool differs = false;
    for (int i = 0; i < 100; i++) {
        uint64_t value = hp_rand_next(&a);
        assert_true(value == hp_rand_next(&b));
        differs = differs || value != hp_rand_next(&c);
    }
    assert_true(differs);
    uint8_t bytes_a[13];
    uint8_t bytes_b[13];
    hp_rand_fill(&a, bytes_a, sizeof(bytes_a));
    hp_rand_fill(&b, bytes_b, sizeof(bytes_b));
    assert_memory_equal(bytes_a, bytes_b, sizeof(bytes_a));
}

static void test_ranges(void **state)
{
    (void)state;
    struct hp_rand rand;
    unsigned counts[6] = {0};
    unsigned hits = 0;
    hp_rand_init(&rand, 0);
    for (int i = 0; i < 60000; i++) {
        counts[hp_rand_uniform(&rand, 6)]++;
        hits += hp_rand_chance(&rand, 1, 4) ? 1 : 0;
        uint64_t value = hp_rand_between(&rand, 10, 12);
        assert_in_range(value, 10, 12);
    }
    for (int i = 0; i < 6; i++) {
        assert_in_range(counts[i], 9500, 10500);
    }
    assert_in_range(hits, 14500, 15500);
    assert_int_equal(hp_rand_uniform(&rand, 1), 0);
    assert_int_equal(hp_rand_between(&rand, 5, 5), 5);
    (void)hp_rand_between(&rand, 0, UINT64_MAX);
    assert_true(hp_rand_chance(&rand, 1, 1));
    assert_false(hp_rand_chance(&rand, 0, 1));
    assert_aborts((void)hp_rand_uniform(&rand, 0));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_reference),
    cmocka_unit_test(test_seeded),
    cmocka_unit_test(test_ranges),
};

HP_TEST_MAIN(tests)
