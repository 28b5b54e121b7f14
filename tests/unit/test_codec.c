/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine of all encoders and decoders with a table of its own, which has what the protocol's
 * messages do not: every type with its limits on both sides.
 */
#include "tests/lib/hp_test.h"

#include <stdio.h>

#include "proto/codec.h"
#include "proto/tokenizer.h"

struct small {
    uint64_t has;
    int64_t signed_;
    uint64_t wide;
    uint32_t narrow;
    uint32_t closed;
    uint32_t open;
    bool flag;
    struct hp_bin bytes;
    struct hp_list_i64 many;
};

enum {
    HAS_SIGNED = 1,
    HAS_WIDE = 2,
    HAS_NARROW = 4,
    HAS_CLOSED = 8,
    HAS_OPEN = 16,
    HAS_FLAG = 32,
    HAS_BYTES = 64,
    HAS_MANY = 128
};

static const uint32_t enum_values[] = {2, 5};
static const char *const enum_names[] = {"two", "five"};
static const struct hp_codec_enum values = {
    .name = "number", .values = enum_values, .names = enum_names, .count = 2};

#define FIELD(field_name, field_type, ...)                                                         \
    {                                                                                              \
        .name = #field_name, .name_size = sizeof(#field_name) - 1, .type = (field_type),           \
        .offset = offsetof(struct small, field_name), __VA_ARGS__                                  \
    }

static const struct hp_codec_field fields[] = {
    FIELD(signed_, HP_CODEC_I64, .min = (uint64_t)-5, .max = 5),
    FIELD(wide, HP_CODEC_U64, .min = 3, .max = UINT64_MAX),
    FIELD(narrow, HP_CODEC_U32, .min = 3, .max = 9),
    FIELD(closed, HP_CODEC_ENUM, .max = UINT32_MAX, .values = &values),
    FIELD(open, HP_CODEC_ENUM, .max = 100, .values = &values, .open = true),
    FIELD(flag, HP_CODEC_BOOL, .max = 1),
    FIELD(bytes, HP_CODEC_BIN, .max_len = 4),
    FIELD(many, HP_CODEC_LIST, .item_type = HP_CODEC_I64, .max_items = 3, .min = (uint64_t)-5,
          .max = 5),
};

static const struct hp_codec_desc small_desc = {
    .name = "small", .fields = fields, .count = 8, .size = sizeof(struct small)};

struct fixture {
    struct hp_wire *wire;
    struct hp_arena arena;
    struct hp_buf buf;
    struct hp_error error;
};

static int setup(void **state)
{
    static struct fixture f;
    hp_arena_init(&f.arena, 4096, 1 << 20);
    hp_buf_init(&f.buf, 1 << 16);
    f.wire = hp_wire_new();
    *state = &f;
    return f.wire == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    hp_arena_deinit(&f->arena);
    hp_buf_deinit(&f->buf);
    hp_wire_free(f->wire);
    return 0;
}

static enum hp_err decode(struct fixture *f, struct small *ret)
{
    const struct hp_wire_obj *map = NULL;
    f->error = (struct hp_error){0};
    assert_ok(
        hp_wire_unpack_checked(f->wire, &hp_tok_limits_open, hp_buf_bin(&f->buf), &map, &f->error));
    return hp_codec_decode(&small_desc, map, &f->arena, ret, &f->error);
}

static enum hp_err decode_i64(struct fixture *f, const char *field, bool in_list, int64_t value,
                              struct small *ret)
{
    hp_buf_clear(&f->buf);
    assert_ok(hp_wire_put_map(&f->buf, 1));
    assert_ok(hp_wire_put_cstr(&f->buf, field));
    if (in_list) {
        assert_ok(hp_wire_put_array(&f->buf, 1));
    }
    assert_ok(hp_wire_put_i64(&f->buf, value));
    return decode(f, ret);
}

static enum hp_err decode_u64(struct fixture *f, const char *field, uint64_t value,
                              struct small *ret)
{
    hp_buf_clear(&f->buf);
    assert_ok(hp_wire_put_map(&f->buf, 1));
    assert_ok(hp_wire_put_cstr(&f->buf, field));
    assert_ok(hp_wire_put_u64(&f->buf, value));
    return decode(f, ret);
}

static enum hp_err encode(struct fixture *f, const struct small *msg)
{
    hp_buf_clear(&f->buf);
    f->error = (struct hp_error){0};
    enum hp_err err = hp_codec_encode(&small_desc, &f->buf, msg, &f->error);
    assert_true(err == HP_OK || f->buf.size == 0);
    return err;
}

static void test_signed_limits(void **state)
{
    struct fixture *f = *state;
    static const struct {
        int64_t value;
        bool ok;
    } cases[] = {{-5, true}, {5, true},          {0, true},         {-6, false},
                 {6, false}, {INT64_MIN, false}, {INT64_MAX, false}};
    struct small got;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t value = cases[i].value;
        struct small msg = {.has = HAS_SIGNED, .signed_ = value};
        assert_err(encode(f, &msg), cases[i].ok ? HP_OK : HP_ERR_INVALID);
        assert_err(decode_i64(f, "signed_", false, value, &got),
                   cases[i].ok ? HP_OK : HP_ERR_PROTOCOL);
        assert_true(!cases[i].ok || got.signed_ == value);
        msg = (struct small){.has = HAS_MANY, .many = {.items = &value, .count = 1}};
        assert_err(encode(f, &msg), cases[i].ok ? HP_OK : HP_ERR_INVALID);
        assert_err(decode_i64(f, "many", true, value, &got), cases[i].ok ? HP_OK : HP_ERR_PROTOCOL);
        assert_true(!cases[i].ok || got.many.items[0] == value);
        if (!cases[i].ok) {
            assert_non_null(strstr(f->error.text, "small.many"));
            assert_non_null(strstr(f->error.text, "-5"));
        }
    }
    assert_err(decode_u64(f, "signed_", UINT64_MAX, &got), HP_ERR_PROTOCOL);
}

static void test_unsigned_limits(void **state)
{
    struct fixture *f = *state;
    struct small got;
    assert_err(decode_u64(f, "wide", 2, &got), HP_ERR_PROTOCOL);
    assert_ok(decode_u64(f, "wide", UINT64_MAX, &got));
    assert_true(got.wide == UINT64_MAX);
    assert_err(decode_u64(f, "narrow", 10, &got), HP_ERR_PROTOCOL);
    assert_err(decode_u64(f, "narrow", UINT64_C(1) << 32 | 4, &got), HP_ERR_PROTOCOL);
    assert_err(encode(f, &(struct small){.has = HAS_WIDE, .wide = 2}), HP_ERR_INVALID);
    assert_err(encode(f, &(struct small){.has = HAS_NARROW, .narrow = 2}), HP_ERR_INVALID);
    assert_err(encode(f, &(struct small){.has = HAS_NARROW, .narrow = 10}), HP_ERR_INVALID);
    assert_ok(encode(f, &(struct small){.has = HAS_NARROW, .narrow = 9}));
}

/* A newer peer may have values of an open enum that this one does not know. */
static void test_open_and_closed_enums(void **state)
{
    struct fixture *f = *state;
    struct small got;
    assert_ok(decode_u64(f, "closed", 5, &got));
    assert_err(decode_u64(f, "closed", 4, &got), HP_ERR_PROTOCOL);
    assert_err(decode_u64(f, "closed", UINT64_C(1) << 32 | 5, &got), HP_ERR_PROTOCOL);
    assert_ok(decode_u64(f, "open", 4, &got));
    assert_int_equal(got.open, 4);
    assert_err(decode_u64(f, "open", 101, &got), HP_ERR_PROTOCOL);
    assert_err(encode(f, &(struct small){.has = HAS_CLOSED, .closed = 4}), HP_ERR_INVALID);
    assert_ok(encode(f, &(struct small){.has = HAS_OPEN, .open = 4}));
    assert_err(encode(f, &(struct small){.has = HAS_OPEN, .open = 101}), HP_ERR_INVALID);
}

/* Into a buffer of any size: all of it, or nothing and FULL. */
static void test_buffers_of_every_size(void **state)
{
    (void)state;
    int64_t items[] = {-1, 2, 3};
    struct small msg = {.has = 0xff,
                        .wide = 1 << 20,
                        .narrow = 4,
                        .closed = 2,
                        .open = 9,
                        .bytes = {.data = (const uint8_t *)"abcd", .size = 4},
                        .many = {.items = items, .count = 3}};
    size_t full = 0;
    for (size_t max = 200; max > 3; max--) {
        struct hp_buf buf;
        hp_buf_init(&buf, max);
        assert_ok(hp_buf_append_text(&buf, "abc"));
        enum hp_err err = hp_codec_encode(&small_desc, &buf, &msg, NULL);
        full = full == 0 ? buf.size : full;
        assert_err(err, max >= full ? HP_OK : HP_ERR_FULL);
        assert_int_equal(buf.size, max >= full ? full : 3);
        hp_buf_deinit(&buf);
    }
    assert_true(full > 60);
}

/* The largest table there may be: its has bits fill the word. */
static void test_sixty_four_fields(void **state)
{
    struct fixture *f = *state;
    static struct hp_codec_field many[64];
    static char names[64][4];
    struct {
        uint64_t has;
        uint32_t value[64];
    } msg = {.has = UINT64_MAX}, got;
    for (uint32_t i = 0; i < 64; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "f%u", i);
        many[i] = (struct hp_codec_field){.name = names[i],
                                          .name_size = (uint8_t)strlen(names[i]),
                                          .type = HP_CODEC_U32,
                                          .max = UINT32_MAX,
                                          .required = i == 63,
                                          .offset = (uint32_t)(8 + 4 * i)};
        msg.value[i] = i * 1000;
    }
    const struct hp_codec_desc desc = {.name = "many",
                                       .fields = many,
                                       .count = 64,
                                       .size = sizeof(msg),
                                       .required = UINT64_C(1) << 63};
    assert_ok(hp_codec_encode(&desc, &f->buf, &msg, &f->error));
    const struct hp_wire_obj *map = NULL;
    assert_ok(
        hp_wire_unpack_checked(f->wire, &hp_tok_limits_open, hp_buf_bin(&f->buf), &map, &f->error));
    assert_ok(hp_codec_decode(&desc, map, &f->arena, &got, &f->error));
    assert_true(got.has == UINT64_MAX);
    assert_memory_equal(got.value, msg.value, sizeof(msg.value));
    assert_err(hp_codec_decode(&desc, &hp_wire_empty_map, &f->arena, &got, &f->error),
               HP_ERR_PROTOCOL);
    assert_string_equal(f->error.text, "many.f63: is missing");
}

/* Without memory there is no list, and the message is not taken for a bad one. */
static void test_no_memory(void **state)
{
    struct fixture *f = *state;
    int64_t items[] = {1};
    struct small msg = {.has = HAS_MANY, .many = {.items = items, .count = 1}};
    struct small got;
    assert_ok(encode(f, &msg));
    struct hp_buf other;
    hp_buf_init(&other, 1000);
    hp_mem_fail_at(1, true);
    enum hp_err err = decode(f, &got);
    enum hp_err encoded = hp_codec_encode(&small_desc, &other, &msg, NULL);
    struct hp_wire *wire = hp_wire_new();
    hp_mem_fail_at(0, false);
    assert_err(err, HP_ERR_NOMEM);
    assert_err(encoded, HP_ERR_NOMEM);
    assert_null(wire);
    hp_wire_free(wire);
    hp_buf_deinit(&other);
    assert_ok(decode(f, &got));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(test_signed_limits, setup, teardown),
    cmocka_unit_test_setup_teardown(test_unsigned_limits, setup, teardown),
    cmocka_unit_test_setup_teardown(test_open_and_closed_enums, setup, teardown),
    cmocka_unit_test(test_buffers_of_every_size),
    cmocka_unit_test_setup_teardown(test_sixty_four_fields, setup, teardown),
    cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
};

HP_TEST_MAIN(tests)
