/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the slab pool: handles, limits, stale handles. */
#include "tests/lib/hp_test.h"

#include "common/base/slots.h"

struct object {
    uint64_t number;
    char text[20];
};

static void test_handles(void **state)
{
    (void)state;
    static uint64_t handles[1000];
    static struct object *objects[1000];
    struct hp_slots pool;
    hp_slots_init(&pool, sizeof(struct object), 1000);
    for (uint64_t i = 0; i < 1000; i++) {
        void *object = NULL;
        assert_ok(hp_slots_alloc(&pool, &object, &handles[i]));
        assert_int_equal((uintptr_t)object % 16, 0);
        assert_true(handles[i] != 0);
        objects[i] = object;
        assert_int_equal(objects[i]->number, 0);
        objects[i]->number = i;
    }
    void *object = NULL;
    assert_err(hp_slots_alloc(&pool, &object, NULL), HP_ERR_FULL);
    for (uint64_t i = 0; i < 1000; i++) {
        assert_ptr_equal(hp_slots_get(&pool, handles[i]), objects[i]);
        assert_ptr_equal(hp_slots_at(&pool, hp_pool_index_of(handles[i])), objects[i]);
        assert_true(hp_slots_handle_at(&pool, hp_pool_index_of(handles[i])) == handles[i]);
        assert_int_equal(objects[i]->number, i);
    }
    uint32_t index = 0;
    uint32_t count = 0;
    uint64_t handle = 0;
    while (hp_slots_next(&pool, &index, &handle) != NULL) {
        assert_ok(hp_slots_free(&pool, handle));
        count++;
    }
    assert_int_equal(count, 1000);
    assert_int_equal(hp_slots_count(&pool), 0);
    hp_slots_deinit(&pool);
}

static void test_stale(void **state)
{
    (void)state;
    struct hp_slots pool;
    void *object = NULL;
    void *again = NULL;
    uint64_t handle = 0;
    uint64_t handle_2 = 0;
    hp_slots_init(&pool, 1, 10);
    assert_null(hp_slots_get(&pool, 0));
    assert_null(hp_slots_get(&pool, 12345));
    assert_ok(hp_slots_alloc(&pool, &object, &handle));
    *(uint8_t *)object = 7;
    assert_ok(hp_slots_free(&pool, handle));
    assert_null(hp_slots_get(&pool, handle));
    assert_null(hp_slots_at(&pool, hp_pool_index_of(handle)));
    assert_err(hp_slots_free(&pool, handle), HP_ERR_STALE);
    assert_ok(hp_slots_alloc(&pool, &again, &handle_2));
    assert_ptr_equal(again, object); /* the same place, a new name, zeroed */
    assert_int_equal(*(uint8_t *)again, 0);
    assert_true(handle != handle_2);
    assert_null(hp_slots_get(&pool, handle));
    assert_ptr_equal(hp_slots_get(&pool, handle_2), again);
    hp_slots_deinit(&pool);
    hp_mem_fail_at(2, false);
    assert_err(hp_slots_alloc(&pool, &object, NULL), HP_ERR_NOMEM);
    hp_mem_fail_at(0, false);
    assert_ok(hp_slots_alloc(&pool, &object, NULL));
    hp_slots_deinit(&pool);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_handles),
    cmocka_unit_test(test_stale),
};

HP_TEST_MAIN(tests)
