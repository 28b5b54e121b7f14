/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Grows messages out of the bytes of a fuzz input, by the tables of the definition: fields are
 * there or not, numbers are small, near each other or at their limits, now and then of a wrong
 * type. So the fuzzer gets behind the decoder, where ids, attempts and epochs must fit together.
 */
#ifndef HP_FUZZ_GROW_H
#define HP_FUZZ_GROW_H

#include "tests/lib/hp_test.h"

#include "common/base/buf.h"
#include "proto/codec.h"
#include "proto/rpc.h"
#include "proto/wire.h"

#define GROW_ITEMS_MAX 4u
#define GROW_DEPTH_MAX 4u

/* What is left of an input; zeros come behind its end. */
struct grow {
    const uint8_t *data;
    size_t size;
    size_t at;
};

static inline uint8_t grow_byte(struct grow *in)
{
    return in->at < in->size ? in->data[in->at++] : 0;
}

static inline bool grow_has_more(const struct grow *in)
{
    return in->at < in->size;
}

/* Numbers that mean something: ids and attempts are small here. */
static inline uint64_t grow_number(struct grow *in, uint64_t min, uint64_t max)
{
    uint8_t byte = grow_byte(in);
    if (byte < 200) {
        return byte % 40;
    }
    if (byte < 220) {
        return min;
    }
    if (byte < 235) {
        return max;
    }
    return (uint64_t)grow_byte(in) << (byte % 8 * 8);
}

static inline void grow_text(struct hp_buf *buf, struct grow *in, bool is_str, uint32_t max_len)
{
    static const char *const words[] = {"",      "f",    "default",          "true",
                                        "a",     "node", "0123456789abcdef", "abcdef0123456789",
                                        "key=b", "/tmp"};
    uint8_t byte = grow_byte(in);
    const char *word = words[byte % HP_COUNT_OF(words)];
    size_t size = HP_MIN(strlen(word), (size_t)max_len);
    if (byte >= 240) { /* of the input itself */
        size = HP_MIN((size_t)(byte - 239), HP_MIN((size_t)max_len, in->size - in->at));
        word = (const char *)in->data + in->at;
        in->at += size;
        is_str = false;
    }
    assert_ok(is_str ? hp_wire_put_str(buf, hp_str_make(word, size))
                     : hp_wire_put_bin(buf, hp_bin_make(word, size)));
}

static void grow_map(struct hp_buf *buf, struct grow *in, const struct hp_codec_desc *desc,
                     unsigned depth);

static inline void grow_value(struct hp_buf *buf, struct grow *in,
                              const struct hp_codec_field *field, uint8_t type, unsigned depth)
{
    switch ((enum hp_codec_type)type) {
    case HP_CODEC_BOOL:
        assert_ok(hp_wire_put_bool(buf, (grow_byte(in) & 1) != 0));
        return;
    case HP_CODEC_U32:
    case HP_CODEC_U64:
        assert_ok(hp_wire_put_u64(buf, grow_number(in, field->min, field->max)));
        return;
    case HP_CODEC_I64:
        assert_ok(hp_wire_put_i64(buf, (int64_t)grow_number(in, field->min, field->max)));
        return;
    case HP_CODEC_ENUM:
        assert_ok(
            hp_wire_put_u64(buf, field->values->values[grow_byte(in) % field->values->count]));
        return;
    case HP_CODEC_STR:
    case HP_CODEC_BIN:
        grow_text(buf, in, type == HP_CODEC_STR, field->max_len);
        return;
    case HP_CODEC_STRUCT:
        grow_map(buf, in, field->sub, depth + 1);
        return;
    case HP_CODEC_LIST:
        break;
    }
    HP_UNREACHABLE();
}

static inline void grow_field(struct hp_buf *buf, struct grow *in,
                              const struct hp_codec_field *field, unsigned depth)
{
    uint8_t how = grow_byte(in);
    if (how == 255) { /* a wrong type */
        assert_ok(how % 2 == 0 ? hp_wire_put_nil(buf) : hp_wire_put_array(buf, 0));
        return;
    }
    if (field->type != HP_CODEC_LIST) {
        grow_value(buf, in, field, field->type, depth);
        return;
    }
    uint32_t count = HP_MIN(how % (GROW_ITEMS_MAX + 1), field->max_items);
    assert_ok(hp_wire_put_array(buf, count));
    for (uint32_t i = 0; i < count; i++) {
        grow_value(buf, in, field, field->item_type, depth);
    }
}

/* A field that is not required is there in one of four. Nested too deep: only what is required. */
static void grow_map(struct hp_buf *buf, struct grow *in, const struct hp_codec_desc *desc,
                     unsigned depth)
{
    uint64_t fields = desc->required;
    uint8_t left_out = grow_byte(in);
    for (uint32_t i = 0; i < desc->count && depth < GROW_DEPTH_MAX; i++) {
        fields |= (grow_byte(in) & 3) == 1 ? UINT64_C(1) << i : 0;
    }
    if (left_out >= 250 && desc->count > 0) {
        fields &= ~(UINT64_C(1) << left_out % desc->count);
    }
    assert_ok(hp_wire_put_map(buf, (uint32_t)__builtin_popcountll(fields)));
    for (uint32_t i = 0; i < desc->count; i++) {
        if ((fields >> i & 1) != 0) {
            assert_ok(hp_wire_put_cstr(buf, desc->fields[i].name));
            grow_field(buf, in, &desc->fields[i], depth);
        }
    }
}

/* A call or notification of any method; `msgid` for calls. */
static inline void grow_call(struct hp_buf *buf, struct grow *in, uint32_t msgid)
{
    enum hp_method method = (enum hp_method)(1 + grow_byte(in) % (HP_METHOD_COUNT - 1));
    const struct hp_method_info *info = hp_method_info(method);
    assert_ok(info->is_notify ? hp_rpc_put_notify(buf, method)
                              : hp_rpc_put_request(buf, msgid, method));
    grow_map(buf, in, info->params, 0);
}

#endif
