/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writes MessagePack maps for any group of the definition, straight from its table, without the
 * encoder under test: the smallest allowed value of each field, or the largest.
 */
#ifndef HP_TEST_MSG_SAMPLE_H
#define HP_TEST_MSG_SAMPLE_H

#include "tests/lib/hp_test.h"

#include "common/base/buf.h"
#include "proto/codec.h"
#include "proto/wire.h"

/* Which values a sample takes. */
enum sample_edge {
    SAMPLE_LOW,
    SAMPLE_HIGH,
};

/* Lists of a high sample have this many items at most, so that a frame stays small. */
#define SAMPLE_ITEMS_MAX 3u
#define SAMPLE_BYTES_MAX 300u

static void sample_map(struct hp_buf *buf, const struct hp_codec_desc *desc, enum sample_edge edge,
                       uint64_t fields);

static inline uint64_t sample_all(const struct hp_codec_desc *desc)
{
    return desc->count == 64 ? UINT64_MAX : (UINT64_C(1) << desc->count) - 1;
}

/* Text or bytes of `size` bytes. */
static inline void sample_bytes(struct hp_buf *buf, bool is_str, uint32_t size)
{
    char *text = hp_alloc(size);

    assert_non_null(text);
    memset(text, 'x', size);
    if (is_str) {
        assert_ok(hp_wire_put_str(buf, hp_str_make(text, size)));
    } else {
        assert_ok(hp_wire_put_bin(buf, hp_bin_make(text, size)));
    }
    hp_free(text);
}

static inline void sample_value(struct hp_buf *buf, const struct hp_codec_field *field,
                                uint8_t type, enum sample_edge edge)
{
    bool high = edge == SAMPLE_HIGH;

    switch ((enum hp_codec_type)type) {
    case HP_CODEC_BOOL:
        assert_ok(hp_wire_put_bool(buf, high));
        return;
    case HP_CODEC_U32:
    case HP_CODEC_U64:
        assert_ok(hp_wire_put_u64(buf, high ? field->max : field->min));
        return;
    case HP_CODEC_I64:
        assert_ok(hp_wire_put_i64(buf, (int64_t)(high ? field->max : field->min)));
        return;
    case HP_CODEC_ENUM:
        assert_ok(hp_wire_put_u64(buf, field->values->values[high ? field->values->count - 1 : 0]));
        return;
    case HP_CODEC_STR:
    case HP_CODEC_BIN:
        sample_bytes(buf, type == HP_CODEC_STR,
                     high ? HP_MIN(field->max_len, SAMPLE_BYTES_MAX) : 0);
        return;
    case HP_CODEC_STRUCT:
        sample_map(buf, field->sub, edge, high ? sample_all(field->sub) : field->sub->required);
        return;
    case HP_CODEC_LIST:
        break;
    }
    HP_UNREACHABLE();
}

/* The value of a field, lists included. */
static inline void sample_field(struct hp_buf *buf, const struct hp_codec_field *field,
                                enum sample_edge edge)
{
    uint32_t count = edge == SAMPLE_HIGH ? HP_MIN(field->max_items, SAMPLE_ITEMS_MAX) : 0;

    if (field->type != HP_CODEC_LIST) {
        sample_value(buf, field, field->type, edge);
        return;
    }
    assert_ok(hp_wire_put_array(buf, count));
    for (uint32_t i = 0; i < count; i++) {
        sample_value(buf, field, field->item_type, edge);
    }
}

/* A map with the fields of these has bits, in the order of the definition. */
static inline void sample_map(struct hp_buf *buf, const struct hp_codec_desc *desc,
                              enum sample_edge edge, uint64_t fields)
{
    assert_ok(hp_wire_put_map(buf, (uint32_t)__builtin_popcountll(fields)));
    for (uint32_t i = 0; i < desc->count; i++) {
        if ((fields >> i & 1u) != 0) {
            assert_ok(hp_wire_put_cstr(buf, desc->fields[i].name));
            sample_field(buf, &desc->fields[i], edge);
        }
    }
}

#endif
