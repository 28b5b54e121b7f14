/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the id map: against an array, growth, shrinking, iteration. */
#include "tests/lib/hp_test.h"

#include "common/base/idmap.h"
#include "common/base/rand.h"

#define KEY_COUNT 4096u

/* Checks that an iteration yields each entry of the model once. */
static void check_iteration(const struct hp_idmap *map, const uint64_t *model)
{
    static bool seen[KEY_COUNT];
    memset(seen, 0, sizeof(seen));
    struct hp_idmap_iter iter = {0};
    uint64_t key = 0;
    uint64_t value = 0;
    uint32_t count = 0;
    while (hp_idmap_next(map, &iter, &key, &value)) {
        assert_true(key < KEY_COUNT);
        assert_false(seen[key]);
        seen[key] = true;
        assert_int_equal(value, model[key]);
        count++;
    }
    assert_false(hp_idmap_next(map, &iter, &key, &value));
    assert_int_equal(count, hp_idmap_count(map));
}

static void test_against_model(void **state)
{
    (void)state;
    static uint64_t model[KEY_COUNT]; /* 0: absent */
    struct hp_rand rand;
    struct hp_idmap map;
    uint32_t count = 0;
    hp_rand_init(&rand, 3);
    hp_idmap_init(&map, 99);
    for (uint64_t step = 1; step < 400000; step++) {
        /* Phases of growing and of shrinking, so that both kinds of move happen half-way. */
        uint64_t put_share = (step / 20000) % 2 == 0 ? 70 : 25;
        uint64_t key = hp_rand_uniform(&rand, KEY_COUNT);
        uint64_t value = 0;
        if (hp_rand_chance(&rand, put_share, 100)) {
            assert_ok(hp_idmap_put(&map, key, step));
            count += model[key] == 0 ? 1 : 0;
            model[key] = step;
        } else {
            assert_int_equal(hp_idmap_remove(&map, key, &value), model[key] != 0);
            assert_int_equal(value, model[key]);
            count -= model[key] != 0 ? 1 : 0;
            model[key] = 0;
        }
        key = hp_rand_uniform(&rand, KEY_COUNT);
        value = 0;
        assert_int_equal(hp_idmap_find(&map, key, &value), model[key] != 0);
        assert_int_equal(value, model[key]);
        assert_int_equal(hp_idmap_count(&map), count);
        if (step % 5003 == 0) {
            check_iteration(&map, model);
        }
    }
    hp_idmap_deinit(&map);
}

static void test_grows_and_shrinks(void **state)
{
    (void)state;
    struct hp_idmap map;
    hp_idmap_init(&map, 0);
    for (uint64_t id = 1; id <= 200000; id++) {
        assert_ok(hp_idmap_put(&map, id, id * 2));
    }
    assert_true(map.table.capacity <= 1u << 19);
    for (uint64_t id = 1; id <= 200000; id++) {
        uint64_t value = 0;
        assert_true(hp_idmap_remove(&map, id, &value));
        assert_int_equal(value, id * 2);
        /* Shrinking keeps up: never emptier than a sixteenth, but for the start of it. */
        assert_true(id < 150000 || map.table.capacity <= HP_MAX(16 * (200000 - id), 64));
    }
    assert_int_equal(hp_idmap_count(&map), 0);
    assert_true(map.table.capacity <= 64);
    hp_idmap_deinit(&map);
}

static void test_edges(void **state)
{
    (void)state;
    struct hp_idmap map;
    int object = 0;
    hp_idmap_init(&map, 5);
    assert_false(hp_idmap_find(&map, 1, NULL));
    assert_false(hp_idmap_remove(&map, 0, NULL));
    assert_null(hp_idmap_find_ptr(&map, 0));
    assert_ok(hp_idmap_put_ptr(&map, 0, &object));
    assert_ok(hp_idmap_put_ptr(&map, UINT64_MAX, &object));
    assert_ptr_equal(hp_idmap_find_ptr(&map, 0), &object);
    assert_ptr_equal(hp_idmap_find_ptr(&map, UINT64_MAX), &object);
    struct hp_idmap_iter iter = {0};
    assert_true(hp_idmap_next(&map, &iter, NULL, NULL));
    assert_true(hp_idmap_remove(&map, 0, NULL));
    assert_aborts((void)hp_idmap_next(&map, &iter, NULL, NULL));
    hp_idmap_deinit(&map);
    assert_int_equal(hp_idmap_count(&map), 0);
    hp_mem_fail_at(1, false);
    assert_err(hp_idmap_put(&map, 1, 1), HP_ERR_NOMEM);
    assert_int_equal(hp_idmap_count(&map), 0);
    hp_mem_fail_at(0, false);
    assert_ok(hp_idmap_put(&map, 1, 1));
    hp_idmap_deinit(&map);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_against_model),
    cmocka_unit_test(test_grows_and_shrinks),
    cmocka_unit_test(test_edges),
};

HP_TEST_MAIN(tests)
