/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the indexed heap, against a linear search. */
#include "tests/lib/hp_test.h"

#include "common/base/heap.h"
#include "common/base/rand.h"

#define ITEM_COUNT 300u

struct item {
    uint64_t key;
    struct hp_heap_node node;
};

static const struct item *item_of(const struct hp_heap_node *node)
{
    return HP_CONTAINER_OF(node, const struct item, node);
}

static bool before(const struct hp_heap_node *a, const struct hp_heap_node *b)
{
    return item_of(a)->key < item_of(b)->key;
}

static uint64_t smallest(const struct item *items)
{
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < ITEM_COUNT; i++) {
        if (hp_heap_contains(&items[i].node) && items[i].key < least) {
            least = items[i].key;
        }
    }
    return least;
}

static void test_against_model(void **state)
{
    (void)state;
    static struct item items[ITEM_COUNT];
    struct hp_rand rand;
    struct hp_heap heap;
    uint32_t count = 0;
    hp_rand_init(&rand, 7);
    hp_heap_init(&heap, before);
    for (int step = 0; step < 30000; step++) {
        struct item *item = &items[hp_rand_uniform(&rand, ITEM_COUNT)];
        bool is_in = hp_heap_contains(&item->node);
        uint64_t key = hp_rand_uniform(&rand, 1000);
        switch (hp_rand_uniform(&rand, 4)) {
        case 0:
        case 1:
            item->key = key;
            if (is_in) {
                hp_heap_update(&heap, &item->node);
            } else {
                assert_ok(hp_heap_push(&heap, &item->node));
                count++;
            }
            break;
        case 2:
            hp_heap_remove(&heap, &item->node);
            count -= is_in ? 1 : 0;
            break;
        default:
            if (count > 0) {
                uint64_t least = smallest(items);
                assert_int_equal(item_of(hp_heap_pop(&heap))->key, least);
                count--;
            }
        }
        assert_int_equal(heap.count, count);
        if (count > 0) {
            assert_int_equal(item_of(hp_heap_peek(&heap))->key, smallest(items));
        }
    }
    hp_heap_deinit(&heap);
}

static void test_edges(void **state)
{
    (void)state;
    struct hp_heap heap;
    struct item a = {.key = 1};
    hp_heap_init(&heap, before);
    assert_null(hp_heap_peek(&heap));
    assert_null(hp_heap_pop(&heap));
    hp_mem_fail_at(1, false);
    assert_err(hp_heap_push(&heap, &a.node), HP_ERR_NOMEM);
    assert_false(hp_heap_contains(&a.node));
    assert_ok(hp_heap_reserve(&heap, 100));
    hp_mem_fail_at(1, true);
    assert_ok(hp_heap_push(&heap, &a.node)); /* reserved: needs no memory */
    hp_mem_fail_at(0, false);
    assert_aborts(HP_IGNORE(hp_heap_push(&heap, &a.node)));
    assert_ptr_equal(hp_heap_pop(&heap), &a.node);
    assert_aborts(hp_heap_update(&heap, &a.node));
    hp_heap_deinit(&heap);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_against_model),
    cmocka_unit_test(test_edges),
};

HP_TEST_MAIN(tests)
