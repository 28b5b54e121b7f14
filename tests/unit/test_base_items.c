/* SPDX-License-Identifier: BSD-2-Clause */
/* Arrays of byte strings: what is written is read again, and nothing else is taken for one. */
#include "tests/lib/hp_test.h"

#include <stdlib.h>

#include "common/base/items.h"

static void what_is_written_is_read(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 31, 32, 255, 256, 65535, 65536, 200000};
    static uint8_t bytes[200000];
    struct hp_buf buf;
    struct hp_items items;
    hp_buf_init(&buf, 1U << 20);
    assert_ok(hp_items_open(&buf));
    for (size_t i = 0; i < HP_COUNT_OF(sizes); i++) {
        memset(bytes, (int)('a' + i), sizes[i]);
        assert_ok(hp_items_append(&buf, bytes, sizes[i]));
    }
    hp_items_close(&buf, HP_COUNT_OF(sizes));
    assert_true(hp_items_begin(&items, buf.data, buf.size));
    assert_int_equal(items.count, HP_COUNT_OF(sizes));
    for (size_t i = 0; i < HP_COUNT_OF(sizes); i++) {
        const uint8_t *data = NULL;
        size_t size = 0;
        assert_false(hp_items_ended(&items));
        assert_true(hp_items_next(&items, &data, &size));
        assert_int_equal(size, sizes[i]);
        assert_true(size == 0 || (data[0] == 'a' + i && data[size - 1] == 'a' + i));
    }
    assert_true(hp_items_ended(&items));
    hp_buf_deinit(&buf);
}

static void texts_and_short_arrays_are_read(void **state)
{
    (void)state;
    static const char bytes[] = "\x93\xa2hi\xd9\x01x\xc4\x00";
    struct hp_items items;
    const uint8_t *data = NULL;
    size_t size = 9;
    assert_true(hp_items_begin(&items, bytes, sizeof(bytes) - 1) && items.count == 3);
    assert_true(hp_items_next(&items, &data, &size) && size == 2 && memcmp(data, "hi", 2) == 0);
    assert_true(hp_items_next(&items, &data, &size) && size == 1 && data[0] == 'x');
    assert_true(hp_items_next(&items, &data, &size) && size == 0);
    assert_true(hp_items_ended(&items));
    assert_true(hp_items_begin(&items, "\xdc\0\1\xa0", 4) && items.count == 1);
    assert_true(hp_items_begin(&items, "\x90z", 2) && !hp_items_ended(&items)); /* one too many */
}

/* Each cut of an array is found, at the head or at an item; other kinds are not read. */
static void cuts_are_found(void **state)
{
    (void)state;
    static const uint8_t whole[] = {0xdd, 0, 0, 0, 2, 0xc5, 0, 2, 'a', 'b', 0xdb, 0, 0, 0, 1, 'c'};
    for (size_t size = 0; size <= sizeof(whole); size++) {
        uint8_t *copy = malloc(size + 1); /* so that a sanitizer sees a read behind it */
        struct hp_items items;
        const uint8_t *data = NULL;
        size_t got = 0;
        assert_non_null(copy);
        memcpy(copy, whole, size);
        copy = realloc(copy, size > 0 ? size : 1);
        assert_non_null(copy);
        bool fits = hp_items_begin(&items, copy, size);
        assert_int_equal(fits, size >= 5);
        for (uint32_t i = 0; fits && i < items.count; i++) {
            fits = hp_items_next(&items, &data, &got);
        }
        assert_int_equal(fits, size == sizeof(whole));
        free(copy);
    }
    struct hp_items items;
    assert_false(hp_items_begin(&items, "\x81\xa1x\xa1y", 5));
    const uint8_t *data = NULL;
    size_t got = 0;
    assert_true(hp_items_begin(&items, "\x91\x05", 2));
    assert_false(hp_items_next(&items, &data, &got));
}

static void the_bound_of_the_buffer_holds(void **state)
{
    (void)state;
    struct hp_buf buf;
    uint8_t *room = NULL;
    hp_buf_init(&buf, 20);
    assert_ok(hp_items_open(&buf));
    assert_err(hp_items_append(&buf, "0123456789abcd", 14), HP_ERR_FULL);
    assert_ok(hp_items_append(&buf, "0123456789abc", 13));
    assert_err(hp_items_room(&buf, 0, &room), HP_ERR_FULL);
    assert_err(hp_items_room(&buf, (size_t)UINT32_MAX + 1, &room), HP_ERR_FULL);
    assert_int_equal(buf.size, 20);
    hp_buf_deinit(&buf);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(what_is_written_is_read),
    cmocka_unit_test(texts_and_short_arrays_are_read),
    cmocka_unit_test(cuts_are_found),
    cmocka_unit_test(the_bound_of_the_buffer_holds),
};

HP_TEST_MAIN(tests)
