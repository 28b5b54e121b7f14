/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of reading and writing MessagePack values, and of the text rules. */
#include "tests/lib/hp_test.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "proto/wire.h"

#include <inttypes.h>

struct fixture {
    struct hp_wire *wire;
    struct hp_buf buf;
    const struct hp_wire_obj *root;
};

static int setup(void **state)
{
    struct fixture *f = hp_calloc(1, sizeof(*f));

    hp_buf_init(&f->buf, 1u << 20);
    f->wire = hp_wire_new();
    *state = f;
    return f->wire == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    hp_buf_deinit(&f->buf);
    hp_wire_free(f->wire);
    hp_free(f);
    return 0;
}

static void unpack(struct fixture *f)
{
    struct hp_error error = {0};

    if (hp_wire_unpack_checked(f->wire, &hp_tok_limits_open, hp_buf_bin(&f->buf), &f->root,
                               &error) != HP_OK) {
        fail_msg("%s", error.text);
    }
}

static void test_integers(void **state)
{
    struct fixture *f = *state;
    static const uint64_t edges[] = {0,     1,     127,        128,         255,       256,
                                     65535, 65536, UINT32_MAX, 4294967296u, INT64_MAX, UINT64_MAX};
    static const int64_t signed_edges[] = {
        -1, -32, -33, -128, -129, -32768, -32769, INT32_MIN, INT32_MIN - INT64_C(1), INT64_MIN};

    for (size_t i = 0; i < HP_COUNT_OF(edges); i++) {
        hp_buf_clear(&f->buf);
        assert_ok(hp_wire_put_u64(&f->buf, edges[i]));
        unpack(f);
        assert_int_equal(hp_wire_type(f->root), HP_WIRE_U64);
        assert_true(hp_wire_u64(f->root) == edges[i]);
    }
    for (size_t i = 0; i < HP_COUNT_OF(signed_edges); i++) {
        hp_buf_clear(&f->buf);
        assert_ok(hp_wire_put_i64(&f->buf, signed_edges[i]));
        unpack(f);
        assert_int_equal(hp_wire_type(f->root), HP_WIRE_I64);
        assert_true(hp_wire_i64(f->root) == signed_edges[i]);
    }
    hp_buf_clear(&f->buf);
    assert_ok(hp_wire_put_i64(&f->buf, 5)); /* a signed value >= 0 reads as an unsigned one */
    unpack(f);
    assert_int_equal(hp_wire_type(f->root), HP_WIRE_U64);
}

static void test_containers(void **state)
{
    struct fixture *f = *state;

    assert_ok(hp_wire_put_array(&f->buf, 5));
    assert_ok(hp_wire_put_nil(&f->buf));
    assert_ok(hp_wire_put_bool(&f->buf, true));
    assert_ok(hp_wire_put_str(&f->buf, HP_STR("text")));
    assert_ok(
        hp_wire_put_bin(&f->buf, (struct hp_bin){.data = (const uint8_t *)"\0\1", .size = 2}));
    assert_ok(hp_wire_put_map(&f->buf, 2));
    assert_ok(hp_wire_put_cstr(&f->buf, "a"));
    assert_ok(hp_wire_put_u64(&f->buf, 1));
    assert_ok(hp_wire_put_cstr(&f->buf, ""));
    assert_ok(hp_wire_put_array(&f->buf, 0));
    unpack(f);
    assert_int_equal(hp_wire_count(f->root), 5);
    assert_int_equal(hp_wire_type(hp_wire_item(f->root, 0)), HP_WIRE_NIL);
    assert_true(hp_wire_bool(hp_wire_item(f->root, 1)));
    struct hp_str text = hp_wire_str(hp_wire_item(f->root, 2));
    assert_true(hp_str_eq_c(text, "text"));
    assert_true((const uint8_t *)text.data > f->buf.data &&
                (const uint8_t *)text.data < f->buf.data + f->buf.size); /* borrowed */
    assert_int_equal(hp_wire_bin(hp_wire_item(f->root, 3)).size, 2);
    const struct hp_wire_obj *map = hp_wire_item(f->root, 4);
    assert_int_equal(hp_wire_count(map), 2);
    assert_true(hp_str_eq_c(hp_wire_str(hp_wire_key(map, 0)), "a"));
    assert_int_equal(hp_wire_u64(hp_wire_value(map, 0)), 1);
    assert_int_equal(hp_wire_str(hp_wire_key(map, 1)).size, 0);
    assert_int_equal(hp_wire_count(hp_wire_value(map, 1)), 0);
}

static void test_array_with_late_count(void **state)
{
    struct fixture *f = *state;
    size_t outer;
    size_t inner;

    assert_ok(hp_wire_array_open(&f->buf, &outer));
    assert_ok(hp_wire_put_u64(&f->buf, 7));
    assert_ok(hp_wire_array_open(&f->buf, &inner));
    for (uint64_t i = 0; i < 300; i++) {
        assert_ok(hp_wire_put_u64(&f->buf, i));
    }
    hp_wire_array_close(&f->buf, inner, 300);
    hp_wire_array_close(&f->buf, outer, 2);
    unpack(f);
    assert_int_equal(hp_wire_count(f->root), 2);
    assert_int_equal(hp_wire_count(hp_wire_item(f->root, 1)), 300);
    assert_int_equal(hp_wire_u64(hp_wire_item(hp_wire_item(f->root, 1), 299)), 299);
}

static void test_full_buffer(void **state)
{
    (void)state;
    struct hp_buf buf;

    hp_buf_init(&buf, 8);
    assert_err(hp_wire_put_str(&buf, HP_STR("123456789")), HP_ERR_FULL);
    hp_buf_clear(&buf);
    assert_ok(hp_wire_put_str(&buf, HP_STR("1234567")));
    assert_err(hp_wire_put_nil(&buf), HP_ERR_FULL);
    hp_buf_deinit(&buf);
}

static void expect_refused(struct fixture *f, const char *bytes, size_t size)
{
    struct hp_error error = {0};
    enum hp_err err = hp_wire_unpack_checked(f->wire, &hp_tok_limits_open, hp_bin_make(bytes, size),
                                             &f->root, &error);

    assert_int_equal(err, HP_ERR_PROTOCOL);
    assert_true(error.text[0] != '\0');
}

static void test_refused(void **state)
{
    struct fixture *f = *state;

    expect_refused(f, "", 0);
    expect_refused(f, "\x92\x01", 2);
    expect_refused(f, "\x91\x01\x02", 3);
    expect_refused(f, "\xdd\x20\x00\x00\x00", 5);
    expect_refused(f, "\xc1", 1);
    struct hp_error error = {0};
    /* Without a scan in front, msgpack-c itself must refuse what is not one whole value. */
    assert_err(hp_wire_unpack(f->wire, (const uint8_t *)"\x92\x01", 2, &f->root, &error),
               HP_ERR_PROTOCOL);
    assert_err(hp_wire_unpack(f->wire, (const uint8_t *)"\x01\x02", 2, &f->root, &error),
               HP_ERR_PROTOCOL);
    assert_err(hp_wire_unpack(f->wire, (const uint8_t *)"\xc1", 1, &f->root, &error),
               HP_ERR_PROTOCOL);
}

/* A refused or a large frame must not spoil the next. */
static void test_reuse(void **state)
{
    struct fixture *f = *state;
    struct hp_error error = {0};

    for (int round = 0; round < 20; round++) {
        hp_buf_clear(&f->buf);
        assert_ok(hp_wire_put_array(&f->buf, 20000));
        for (int i = 0; i < 20000; i++) {
            assert_ok(hp_wire_put_u64(&f->buf, (uint64_t)i));
        }
        unpack(f);
        assert_int_equal(hp_wire_u64(hp_wire_item(f->root, 19999)), 19999);
        assert_err(hp_wire_unpack(f->wire, f->buf.data, 10, &f->root, &error), HP_ERR_PROTOCOL);
        hp_buf_clear(&f->buf);
        assert_ok(hp_wire_put_u64(&f->buf, 3));
        unpack(f);
        assert_int_equal(hp_wire_u64(f->root), 3);
    }
}

static bool ok(const char *text)
{
    return hp_wire_str_ok(hp_str_of(text));
}

static void test_text(void **state)
{
    (void)state;
    assert_true(ok(""));
    assert_true(ok("plain"));
    assert_true(ok("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"));
    assert_true(ok("\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf"));
    assert_false(ok("\x80"));
    assert_false(ok("\xc0\xaf"));         /* overlong */
    assert_false(ok("\xe0\x80\xaf"));     /* overlong */
    assert_false(ok("\xf0\x80\x80\xaf")); /* overlong */
    assert_false(ok("\xed\xa0\x80"));     /* surrogate */
    assert_false(ok("\xf4\x90\x80\x80")); /* beyond the last character */
    assert_false(ok("\xc3"));             /* cut */
    assert_false(ok("\xe2\x82"));         /* cut */
    assert_false(ok("\xe2\x82\x41"));
    assert_false(hp_wire_str_ok((struct hp_str){.data = "a\0b", .size = 3}));
}

static void test_clean(void **state)
{
    (void)state;
    char out[8];
    struct hp_str dirty = {.data = "a\0\xff\xc3\xa4\xe2\x82", .size = 7};

    assert_int_equal(hp_wire_str_clean(dirty, out, sizeof(out)), 7);
    assert_memory_equal(out, "a??\xc3\xa4??", 7);
    assert_int_equal(hp_wire_str_clean(HP_STR("abc\xc3\xa4"), out, 4), 3); /* no half character */
    assert_int_equal(hp_wire_str_clean(HP_STR("abc\xc3\xa4"), out, 5), 5);
    assert_int_equal(hp_wire_str_clean(HP_STR("abc"), out, 0), 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(test_integers, setup, teardown),
    cmocka_unit_test_setup_teardown(test_containers, setup, teardown),
    cmocka_unit_test_setup_teardown(test_array_with_late_count, setup, teardown),
    cmocka_unit_test_setup_teardown(test_full_buffer, setup, teardown),
    cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
    cmocka_unit_test_setup_teardown(test_reuse, setup, teardown),
    cmocka_unit_test(test_text),
    cmocka_unit_test(test_clean),
};

HP_TEST_MAIN(tests)
