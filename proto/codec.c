/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See codec.h. The decoder expects keys in the order of the definition, which is the order our own
 * encoders write, so that usually one comparison finds a field; other orders cost a search.
 *
 * Recursion follows the definition, not the frame: a struct can not contain itself (gen.py refuses
 * it), so the depth is fixed when the program is built.
 */
#include "proto/codec.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Where we are, for error texts only. Lives on the stack, innermost first. */
struct path {
    const struct path *up;
    const struct hp_codec_desc *desc; /* of the outermost */
    const char *name;
    int64_t index; /* -1: not in a list */
};

struct codec {
    struct hp_arena *arena;
    struct hp_error *reterr;
};

/* Longest path printed; longer ones are cut. */
#define PATH_BYTES 128

static void path_append(char *out, size_t *used, const char *text, size_t size)
{
    size_t left = PATH_BYTES - 1 - *used;

    size = size < left ? size : left;
    memcpy(out + *used, text, size);
    *used += size;
    out[*used] = '\0';
}

static void path_print(const struct path *path, char *out, size_t *used)
{
    if (path->up == NULL) {
        path_append(out, used, path->desc->name, strlen(path->desc->name));
        return;
    }
    path_print(path->up, out, used);
    path_append(out, used, ".", 1);
    path_append(out, used, path->name, strlen(path->name));
    if (path->index >= 0) {
        char digits[24];
        int size = snprintf(digits, sizeof(digits), "[%" PRId64 "]", path->index);

        path_append(out, used, digits, (size_t)size);
    }
}

static __attribute__((cold)) enum hp_err fail(struct hp_error *reterr, enum hp_err err,
                                              const struct path *path, const char *why)
{
    char where[PATH_BYTES] = "";
    size_t used = 0;

    path_print(path, where, &used);
    return hp_error_set(reterr, err, "%s: %s", where, why);
}

static __attribute__((cold)) enum hp_err fail_type(struct hp_error *reterr, const struct path *path,
                                                   const char *want, const struct hp_wire_obj *got)
{
    char why[64];

    (void)snprintf(why, sizeof(why), "must be %s, is %s", want,
                   hp_wire_type_name(hp_wire_type(got)));
    return fail(reterr, HP_ERR_PROTOCOL, path, why);
}

static __attribute__((cold)) enum hp_err fail_range(struct hp_error *reterr, enum hp_err err,
                                                    const struct path *path,
                                                    const struct hp_codec_field *field)
{
    char why[80];

    if (field->type == HP_CODEC_I64 || field->item_type == HP_CODEC_I64) {
        (void)snprintf(why, sizeof(why), "must be %" PRId64 "..%" PRId64, (int64_t)field->min,
                       (int64_t)field->max);
    } else {
        (void)snprintf(why, sizeof(why), "must be %" PRIu64 "..%" PRIu64, field->min, field->max);
    }
    return fail(reterr, err, path, why);
}

static __attribute__((cold)) enum hp_err fail_long(struct hp_error *reterr, enum hp_err err,
                                                   const struct path *path, uint32_t max,
                                                   const char *unit)
{
    char why[64];

    (void)snprintf(why, sizeof(why), "is too long, at most %" PRIu32 " %s", max, unit);
    return fail(reterr, err, path, why);
}

static __attribute__((cold)) enum hp_err fail_enum(struct hp_error *reterr, enum hp_err err,
                                                   const struct path *path,
                                                   const struct hp_codec_field *field)
{
    char why[96];

    (void)snprintf(why, sizeof(why), "is no value of %s", field->values->name);
    return fail(reterr, err, path, why);
}

int hp_codec_enum_index(const struct hp_codec_enum *values, uint32_t value)
{
    for (uint32_t i = 0; i < values->count; i++) {
        if (values->values[i] == value) {
            return (int)i;
        }
    }
    return -1;
}

/* True if a text may be the value of a str field. */
static enum hp_err check_str(const struct hp_codec_field *field, struct hp_str value,
                             enum hp_err err, struct hp_error *reterr, const struct path *path)
{
    if (value.size > field->max_len) {
        return fail_long(reterr, err, path, field->max_len, "bytes");
    }
    if (!hp_wire_str_ok(value)) {
        return fail(reterr, err, path, "must be UTF-8 without NUL bytes");
    }
    return HP_OK;
}

/* ------------------------------------------------------------------------------------ decoding */

static enum hp_err decode_map(struct codec *codec, const struct hp_codec_desc *desc,
                              const struct hp_wire_obj *map, const struct path *path, void *ret);

/* uint64_t for the unsigned kinds; u32 and enum are narrowed by the caller, their max is 32 bits.
 */
static enum hp_err decode_unsigned(struct codec *codec, const struct hp_codec_field *field,
                                   const struct hp_wire_obj *obj, const struct path *path,
                                   uint64_t *ret)
{
    if (hp_wire_type(obj) == HP_WIRE_I64) {
        return fail_range(codec->reterr, HP_ERR_PROTOCOL, path, field);
    }
    if (hp_wire_type(obj) != HP_WIRE_U64) {
        return fail_type(codec->reterr, path, "an unsigned integer", obj);
    }
    *ret = hp_wire_u64(obj);
    if (*ret < field->min || *ret > field->max) {
        return fail_range(codec->reterr, HP_ERR_PROTOCOL, path, field);
    }
    return HP_OK;
}

static enum hp_err decode_signed(struct codec *codec, const struct hp_codec_field *field,
                                 const struct hp_wire_obj *obj, const struct path *path,
                                 int64_t *ret)
{
    int64_t value;

    if (hp_wire_type(obj) == HP_WIRE_I64) {
        value = hp_wire_i64(obj);
    } else if (hp_wire_type(obj) != HP_WIRE_U64) {
        return fail_type(codec->reterr, path, "an integer", obj);
    } else if (hp_wire_u64(obj) > INT64_MAX) {
        return fail_range(codec->reterr, HP_ERR_PROTOCOL, path, field);
    } else {
        value = (int64_t)hp_wire_u64(obj);
    }
    if (value < (int64_t)field->min || value > (int64_t)field->max) {
        return fail_range(codec->reterr, HP_ERR_PROTOCOL, path, field);
    }
    *ret = value;
    return HP_OK;
}

static enum hp_err decode_bytes(struct codec *codec, const struct hp_codec_field *field,
                                uint8_t type, const struct hp_wire_obj *obj,
                                const struct path *path, void *ret)
{
    bool is_str = hp_wire_type(obj) == HP_WIRE_STR;

    if (type == HP_CODEC_STR) {
        if (!is_str) {
            return fail_type(codec->reterr, path, "a string", obj);
        }
        *(struct hp_str *)ret = hp_wire_str(obj);
        return check_str(field, *(struct hp_str *)ret, HP_ERR_PROTOCOL, codec->reterr, path);
    }
    if (!is_str && hp_wire_type(obj) != HP_WIRE_BIN) {
        return fail_type(codec->reterr, path, "binary or a string", obj);
    }
    *(struct hp_bin *)ret = hp_wire_bin(obj);
    if (((struct hp_bin *)ret)->size > field->max_len) {
        return fail_long(codec->reterr, HP_ERR_PROTOCOL, path, field->max_len, "bytes");
    }
    return HP_OK;
}

static enum hp_err decode_enum(struct codec *codec, const struct hp_codec_field *field,
                               const struct hp_wire_obj *obj, const struct path *path, void *ret)
{
    uint64_t value = 0;
    enum hp_err err = decode_unsigned(codec, field, obj, path, &value);

    if (err != HP_OK) {
        return err;
    }
    if (!field->open && hp_codec_enum_index(field->values, (uint32_t)value) < 0) {
        return fail_enum(codec->reterr, HP_ERR_PROTOCOL, path, field);
    }
    uint32_t narrow = (uint32_t)value;

    memcpy(ret, &narrow, sizeof(narrow));
    return HP_OK;
}

/* One value of `type`, the field's own or that of a list's items. */
static enum hp_err decode_value(struct codec *codec, const struct hp_codec_field *field,
                                uint8_t type, const struct hp_wire_obj *obj,
                                const struct path *path, void *ret)
{
    enum hp_err err;
    uint64_t value = 0;

    switch ((enum hp_codec_type)type) {
    case HP_CODEC_BOOL:
        if (hp_wire_type(obj) != HP_WIRE_BOOL) {
            return fail_type(codec->reterr, path, "a bool", obj);
        }
        *(bool *)ret = hp_wire_bool(obj);
        return HP_OK;
    case HP_CODEC_U32:
        err = decode_unsigned(codec, field, obj, path, &value);
        *(uint32_t *)ret = (uint32_t)value;
        return err;
    case HP_CODEC_U64:
        return decode_unsigned(codec, field, obj, path, ret);
    case HP_CODEC_I64:
        return decode_signed(codec, field, obj, path, ret);
    case HP_CODEC_STR:
    case HP_CODEC_BIN:
        return decode_bytes(codec, field, type, obj, path, ret);
    case HP_CODEC_ENUM:
        return decode_enum(codec, field, obj, path, ret);
    case HP_CODEC_STRUCT:
        return decode_map(codec, field->sub, obj, path, ret);
    case HP_CODEC_LIST:
        break;
    }
    HP_UNREACHABLE();
}

static size_t item_size(const struct hp_codec_field *field)
{
    switch ((enum hp_codec_type)field->item_type) {
    case HP_CODEC_U64:
    case HP_CODEC_I64:
        return sizeof(uint64_t);
    case HP_CODEC_STR:
    case HP_CODEC_BIN:
        return sizeof(struct hp_bin);
    case HP_CODEC_STRUCT:
        return field->sub->size;
    case HP_CODEC_BOOL:
    case HP_CODEC_U32:
    case HP_CODEC_ENUM:
    case HP_CODEC_LIST:
        break;
    }
    HP_UNREACHABLE();
}

/* All list types have one layout: see struct hp_list_u64. */
struct any_list {
    void *items;
    uint32_t count;
};

static enum hp_err decode_list(struct codec *codec, const struct hp_codec_field *field,
                               const struct hp_wire_obj *obj, struct path *path,
                               struct any_list *ret)
{
    size_t size = item_size(field);
    uint32_t count;
    uint8_t *items;

    if (hp_wire_type(obj) != HP_WIRE_ARRAY) {
        return fail_type(codec->reterr, path, "an array", obj);
    }
    count = hp_wire_count(obj);
    if (count > field->max_items) {
        return fail_long(codec->reterr, HP_ERR_PROTOCOL, path, field->max_items, "items");
    }
    if (count == 0) {
        return HP_OK;
    }
    items = hp_arena_calloc(codec->arena, count, size);
    if (items == NULL) {
        return fail(codec->reterr, HP_ERR_NOMEM, path, "no memory for the list");
    }
    for (uint32_t i = 0; i < count; i++) {
        path->index = i;
        enum hp_err err = decode_value(codec, field, field->item_type, hp_wire_item(obj, i), path,
                                       items + i * size);
        if (err != HP_OK) {
            return err;
        }
    }
    ret->items = items;
    ret->count = count;
    return HP_OK;
}

static inline bool name_is(const struct hp_codec_field *field, struct hp_str key)
{
    return field->name_size == key.size && memcmp(field->name, key.data, key.size) == 0;
}

/* The field named `key`, looking from `expect` on. count: there is none. */
static inline uint32_t find_field(const struct hp_codec_desc *desc, struct hp_str key,
                                  uint32_t expect)
{
    if (key.size == 0) {
        return desc->count;
    }
    for (uint32_t i = expect; i < desc->count; i++) {
        if (name_is(&desc->fields[i], key)) {
            return i;
        }
    }
    for (uint32_t i = 0; i < expect; i++) {
        if (name_is(&desc->fields[i], key)) {
            return i;
        }
    }
    return desc->count;
}

static enum hp_err decode_pair(struct codec *codec, const struct hp_codec_field *field,
                               const struct hp_wire_obj *obj, const struct path *up, uint8_t *base)
{
    struct path path = {.up = up, .name = field->name, .index = -1};
    void *at = base + field->offset;

    if (field->type == HP_CODEC_LIST) {
        return decode_list(codec, field, obj, &path, at);
    }
    return decode_value(codec, field, field->type, obj, &path, at);
}

static __attribute__((cold)) enum hp_err fail_missing(struct hp_error *reterr,
                                                      const struct hp_codec_desc *desc,
                                                      const struct path *up, uint64_t has)
{
    for (uint32_t i = 0; i < desc->count; i++) {
        if (desc->fields[i].required && (has & (UINT64_C(1) << i)) == 0) {
            struct path path = {.up = up, .name = desc->fields[i].name, .index = -1};

            return fail(reterr, HP_ERR_PROTOCOL, &path, "is missing");
        }
    }
    HP_UNREACHABLE();
}

/* What is not in `has` is all zeroes. */
static void fill_defaults(const struct hp_codec_desc *desc, uint8_t *base, uint64_t has)
{
    for (uint64_t left = desc->filled & ~has; left != 0; left &= left - 1) {
        const struct hp_codec_field *field = &desc->fields[__builtin_ctzll(left)];

        if (field->type == HP_CODEC_STRUCT) {
            fill_defaults(field->sub, base + field->offset, 0);
        } else if (field->default_str != NULL) {
            struct hp_bin value = {.data = (const uint8_t *)field->default_str,
                                   .size = (uint32_t)strlen(field->default_str)};

            memcpy(base + field->offset, &value, sizeof(value));
        } else if (field->type == HP_CODEC_BOOL) {
            *(bool *)(base + field->offset) = field->default_ != 0;
        } else if (field->type == HP_CODEC_U32 || field->type == HP_CODEC_ENUM) {
            uint32_t narrow = (uint32_t)field->default_;

            memcpy(base + field->offset, &narrow, sizeof(narrow));
        } else {
            memcpy(base + field->offset, &field->default_, sizeof(field->default_));
        }
    }
}

void hp_codec_defaults(const struct hp_codec_desc *desc, void *ret)
{
    memset(ret, 0, desc->size);
    fill_defaults(desc, ret, 0);
}

static enum hp_err decode_map(struct codec *codec, const struct hp_codec_desc *desc,
                              const struct hp_wire_obj *map, const struct path *path, void *ret)
{
    uint64_t seen = 0; /* keys, also those whose value is nil */
    uint64_t has = 0;
    uint32_t expect = 0;
    enum hp_err err;

    if (hp_wire_type(map) != HP_WIRE_MAP) {
        return fail_type(codec->reterr, path, "a map", map);
    }
    memset(ret, 0, desc->size);
    for (uint32_t i = 0; i < hp_wire_count(map); i++) {
        const struct hp_wire_obj *key = hp_wire_key(map, i);
        const struct hp_wire_obj *value = hp_wire_value(map, i);

        if (hp_wire_type(key) != HP_WIRE_STR) {
            return fail(codec->reterr, HP_ERR_PROTOCOL, path,
                        "must be a map whose keys are strings");
        }
        uint32_t index = find_field(desc, hp_wire_str(key), expect);

        if (index == desc->count) {
            continue;
        }
        if ((seen & (UINT64_C(1) << index)) != 0) {
            struct path at = {.up = path, .name = desc->fields[index].name, .index = -1};

            return fail(codec->reterr, HP_ERR_PROTOCOL, &at, "is given twice");
        }
        seen |= UINT64_C(1) << index;
        expect = index + 1;
        if (hp_wire_type(value) == HP_WIRE_NIL) {
            continue;
        }
        has |= UINT64_C(1) << index;
        err = decode_pair(codec, &desc->fields[index], value, path, ret);
        if (err != HP_OK) {
            return err;
        }
    }
    if ((desc->required & ~has) != 0) {
        return fail_missing(codec->reterr, desc, path, has);
    }
    fill_defaults(desc, ret, has);
    ((struct hp_codec_head *)ret)->has = has;
    return HP_OK;
}

enum hp_err hp_codec_decode(const struct hp_codec_desc *desc, const struct hp_wire_obj *map,
                            struct hp_arena *arena, void *ret, struct hp_error *reterr)
{
    struct codec codec = {.arena = arena, .reterr = reterr};
    struct path path = {.desc = desc, .index = -1};

    return decode_map(&codec, desc, map, &path, ret);
}

/* ------------------------------------------------------------------------------------ encoding */

static enum hp_err encode_map(const struct hp_codec_desc *desc, struct hp_buf *buf, const void *msg,
                              const struct path *path, struct hp_error *reterr);

static enum hp_err encode_unsigned(const struct hp_codec_field *field, struct hp_buf *buf,
                                   uint64_t value, const struct path *path, struct hp_error *reterr)
{
    if (value < field->min || value > field->max) {
        return fail_range(reterr, HP_ERR_INVALID, path, field);
    }
    return hp_wire_put_u64(buf, value);
}

static enum hp_err encode_narrow(const struct hp_codec_field *field, struct hp_buf *buf,
                                 const void *at, const struct path *path, struct hp_error *reterr)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    if (field->type == HP_CODEC_ENUM && !field->open &&
        hp_codec_enum_index(field->values, value) < 0) {
        return fail_enum(reterr, HP_ERR_INVALID, path, field);
    }
    return encode_unsigned(field, buf, value, path, reterr);
}

static enum hp_err encode_value(const struct hp_codec_field *field, uint8_t type,
                                struct hp_buf *buf, const void *at, const struct path *path,
                                struct hp_error *reterr)
{
    const struct hp_bin *bin = at;
    int64_t value;
    enum hp_err err;

    switch ((enum hp_codec_type)type) {
    case HP_CODEC_BOOL:
        return hp_wire_put_bool(buf, *(const bool *)at);
    case HP_CODEC_U32:
    case HP_CODEC_ENUM:
        return encode_narrow(field, buf, at, path, reterr);
    case HP_CODEC_U64:
        return encode_unsigned(field, buf, *(const uint64_t *)at, path, reterr);
    case HP_CODEC_I64:
        value = *(const int64_t *)at;
        if (value < (int64_t)field->min || value > (int64_t)field->max) {
            return fail_range(reterr, HP_ERR_INVALID, path, field);
        }
        return hp_wire_put_i64(buf, value);
    case HP_CODEC_STR:
        err = check_str(field, *(const struct hp_str *)at, HP_ERR_INVALID, reterr, path);
        return err != HP_OK ? err : hp_wire_put_str(buf, *(const struct hp_str *)at);
    case HP_CODEC_BIN:
        if (bin->size > field->max_len) {
            return fail_long(reterr, HP_ERR_INVALID, path, field->max_len, "bytes");
        }
        return hp_wire_put_bin(buf, *bin);
    case HP_CODEC_STRUCT:
        return encode_map(field->sub, buf, at, path, reterr);
    case HP_CODEC_LIST:
        break;
    }
    HP_UNREACHABLE();
}

static enum hp_err encode_list(const struct hp_codec_field *field, struct hp_buf *buf,
                               const struct any_list *list, struct path *path,
                               struct hp_error *reterr)
{
    const uint8_t *items = list->items;
    size_t size = item_size(field);
    enum hp_err err;

    if (list->count > field->max_items) {
        return fail_long(reterr, HP_ERR_INVALID, path, field->max_items, "items");
    }
    err = hp_wire_put_array(buf, list->count);
    for (uint32_t i = 0; i < list->count && err == HP_OK; i++) {
        path->index = i;
        err = encode_value(field, field->item_type, buf, items + i * size, path, reterr);
    }
    return err;
}

static enum hp_err encode_map(const struct hp_codec_desc *desc, struct hp_buf *buf, const void *msg,
                              const struct path *path, struct hp_error *reterr)
{
    const struct hp_codec_head *head = msg;
    const uint64_t known = desc->count == 64 ? UINT64_MAX : (UINT64_C(1) << desc->count) - 1;
    uint64_t has = (head->has & known) | desc->required;
    enum hp_err err;

    if (desc->is_struct && head->raw.data != NULL) {
        return hp_wire_put_raw(buf, head->raw);
    }
    err = hp_wire_put_map(buf, (uint32_t)__builtin_popcountll(has));
    for (; has != 0 && err == HP_OK; has &= has - 1) {
        const struct hp_codec_field *field = &desc->fields[__builtin_ctzll(has)];
        const uint8_t *at = (const uint8_t *)msg + field->offset;
        struct path here = {.up = path, .name = field->name, .index = -1};

        err = hp_wire_put_str(buf, (struct hp_str){.data = field->name, .size = field->name_size});
        if (err != HP_OK) {
            break;
        }
        if (field->type == HP_CODEC_LIST) {
            err = encode_list(field, buf, (const void *)at, &here, reterr);
        } else {
            err = encode_value(field, field->type, buf, at, &here, reterr);
        }
    }
    return err;
}

enum hp_err hp_codec_encode(const struct hp_codec_desc *desc, struct hp_buf *buf, const void *msg,
                            struct hp_error *reterr)
{
    struct path path = {.desc = desc, .index = -1};
    size_t before = buf->size;
    enum hp_err err = encode_map(desc, buf, msg, &path, reterr);

    if (err != HP_OK) {
        hp_buf_truncate(buf, before);
        if (err != HP_ERR_INVALID) {
            (void)hp_error_set(reterr, err, NULL); /* returned below */
        }
    }
    return err;
}
