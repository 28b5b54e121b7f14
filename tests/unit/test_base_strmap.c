/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the string map and of the hash. */
#include "tests/lib/hp_test.h"

#include <stdio.h>

#include "common/base/hash.h"
#include "common/base/idmap.h"
#include "common/base/strmap.h"

static struct hp_str numbered(char text[32], unsigned i)
{
    int size = snprintf(text, 32, "key-%u", i);
    return hp_str_make(text, (size_t)size);
}

static void test_many(void **state)
{
    (void)state;
    struct hp_strmap map;
    char text[32];
    uint64_t value = 0;
    hp_strmap_init(&map, 1);
    for (unsigned i = 0; i < 5000; i++) {
        struct hp_str own = {0};
        assert_ok(hp_strmap_put(&map, numbered(text, i), i, &own));
        assert_ptr_not_equal(own.data, text);
        assert_true(hp_str_eq_c(own, text));
    }
    assert_int_equal(hp_strmap_count(&map), 5000);
    for (unsigned i = 0; i < 5000; i += 2) {
        assert_true(hp_strmap_remove(&map, numbered(text, i), &value));
        assert_int_equal(value, i);
    }
    for (unsigned i = 0; i < 5000; i++) {
        assert_int_equal(hp_strmap_find(&map, numbered(text, i), &value), i % 2);
        assert_true(i % 2 == 0 || value == i);
    }
    struct hp_strmap_iter iter = {0};
    struct hp_str key;
    uint32_t count = 0;
    while (hp_strmap_next(&map, &iter, &key, &value)) {
        assert_true(hp_str_eq(key, numbered(text, (unsigned)value)));
        count++;
    }
    assert_int_equal(count, 2500);
    hp_strmap_deinit(&map);
}

static void test_edges(void **state)
{
    (void)state;
    struct hp_strmap map;
    int object = 0;
    hp_strmap_init(&map, 1);
    assert_ok(hp_strmap_put_ptr(&map, (struct hp_str){0}, &object));
    assert_ptr_equal(hp_strmap_find_ptr(&map, HP_STR("")), &object);
    assert_ok(hp_strmap_put(&map, HP_STR("a\0b"), 1, NULL));
    assert_ok(hp_strmap_put(&map, HP_STR("a"), 2, NULL));
    assert_ok(hp_strmap_put(&map, HP_STR("a"), 3, NULL));
    uint64_t value = 0;
    assert_true(hp_strmap_find(&map, HP_STR("a"), &value));
    assert_int_equal(value, 3);
    assert_int_equal(hp_strmap_count(&map), 3);
    assert_false(hp_strmap_remove(&map, HP_STR("b"), NULL));
    hp_mem_fail_at(1, false);
    assert_err(hp_strmap_put(&map, HP_STR("new"), 1, NULL), HP_ERR_NOMEM);
    hp_mem_fail_at(0, false);
    assert_int_equal(hp_strmap_count(&map), 3);
    hp_strmap_deinit(&map);
}

/* Chains: put two entries under one hash by hand-made collision of the chain table. */
static void test_collisions(void **state)
{
    (void)state;
    struct hp_strmap map;
    uint64_t value = 0;
    hp_strmap_init(&map, 1);
    assert_ok(hp_strmap_put(&map, HP_STR("one"), 1, NULL));
    /* Hangs the chain of "one" under the hash of "two" as well, as if both had that hash. */
    void *chain = hp_idmap_find_ptr(&map.chains, hp_hash("one", 3, 1));
    assert_true(hp_idmap_remove(&map.chains, hp_hash("one", 3, 1), NULL));
    assert_ok(hp_idmap_put_ptr(&map.chains, hp_hash("two", 3, 1), chain));
    assert_ok(hp_strmap_put(&map, HP_STR("two"), 2, NULL));
    assert_int_equal(hp_strmap_count(&map), 2);
    assert_true(hp_strmap_find(&map, HP_STR("two"), &value));
    assert_int_equal(value, 2);
    assert_true(hp_strmap_remove(&map, HP_STR("two"), &value));
    assert_false(hp_strmap_find(&map, HP_STR("two"), NULL));
    struct hp_strmap_iter iter = {0};
    assert_true(hp_strmap_next(&map, &iter, NULL, &value));
    assert_int_equal(value, 1);
    assert_false(hp_strmap_next(&map, &iter, NULL, NULL));
    hp_strmap_deinit(&map);
}

static void test_hash(void **state)
{
    (void)state;
    uint8_t data[64] = {0};
    /* Zeros of different sizes, and any one bit, make a difference. */
    for (size_t size = 0; size < sizeof(data); size++) {
        uint64_t base = hp_hash(data, size, 1);
        assert_true(base != hp_hash(data, size + 1, 1));
        assert_true(base != hp_hash(data, size, 2));
        for (size_t bit = 0; bit < size * 8; bit++) {
            data[bit / 8] = (uint8_t)(1u << (bit % 8));
            assert_true(base != hp_hash(data, size, 1));
            data[bit / 8] = 0;
        }
    }
    assert_true(hp_hash(NULL, 0, 7) == hp_hash(data, 0, 7));
    assert_true(hp_hash_u64(1, 0) != hp_hash_u64(2, 0));
    /* The low 10 bits of the hashes of small texts fill their table about evenly. */
    static unsigned bucket_counts[1024];
    char text[32];
    for (unsigned i = 0; i < 102400; i++) {
        struct hp_str key = numbered(text, i);
        bucket_counts[hp_hash(key.data, key.size, 0) % 1024]++;
    }
    for (size_t i = 0; i < 1024; i++) {
        assert_in_range(bucket_counts[i], 50, 150);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_many),
    cmocka_unit_test(test_edges),
    cmocka_unit_test(test_collisions),
    cmocka_unit_test(test_hash),
};

HP_TEST_MAIN(tests)
