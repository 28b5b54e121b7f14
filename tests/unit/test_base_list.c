/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the intrusive list. */
#include "tests/lib/hp_test.h"

#include "common/base/list.h"

struct item {
    int number;
    struct hp_list link;
};

/* The numbers in order, as digits of one decimal number. */
static int digits(const struct hp_list *head)
{
    int value = 0;
    HP_LIST_FOR_EACH (node, head) {
        value = value * 10 + HP_LIST_ENTRY(node, struct item, link)->number;
    }
    return value;
}

static void test_order(void **state)
{
    (void)state;
    struct hp_list head;
    struct item items[5];
    hp_list_init(&head);
    assert_null(hp_list_first(&head));
    assert_null(hp_list_last(&head));
    assert_null(hp_list_pop_front(&head));
    for (int i = 0; i < 5; i++) {
        items[i].number = i + 1;
        hp_list_init(&items[i].link);
    }
    hp_list_push_back(&head, &items[1].link);
    hp_list_push_back(&head, &items[3].link);
    hp_list_push_front(&head, &items[0].link);
    hp_list_insert_after(&items[1].link, &items[2].link);
    assert_false(hp_list_is_linked(&items[4].link));
    hp_list_insert_before(&head, &items[4].link);
    assert_int_equal(digits(&head), 12345);
    hp_list_remove(&items[2].link);
    hp_list_remove(&items[2].link);
    assert_int_equal(digits(&head), 1245);
    assert_ptr_equal(hp_list_last(&head), &items[4].link);
    assert_ptr_equal(hp_list_pop_front(&head), &items[0].link);
    HP_LIST_FOR_EACH_SAFE (node, &head) {
        hp_list_remove(node);
    }
    assert_true(hp_list_is_empty(&head));
}

static void test_append_all(void **state)
{
    (void)state;
    struct hp_list a;
    struct hp_list b;
    struct item items[4];
    hp_list_init(&a);
    hp_list_init(&b);
    hp_list_append_all(&a, &b);
    assert_true(hp_list_is_empty(&a));
    for (int i = 0; i < 4; i++) {
        items[i].number = i + 1;
        hp_list_push_back(i < 2 ? &a : &b, &items[i].link);
    }
    hp_list_append_all(&a, &b);
    assert_int_equal(digits(&a), 1234);
    assert_true(hp_list_is_empty(&b));
    assert_ptr_equal(hp_list_last(&a), &items[3].link);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_order),
    cmocka_unit_test(test_append_all),
};

HP_TEST_MAIN(tests)
