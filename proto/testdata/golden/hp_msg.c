/* SPDX-License-Identifier: BSD-2-Clause */
/* Made by proto/gen.py from proto/small.toml. Do not edit. */
#include "proto/hp_msg.h"

#include "common/base/assert.h"

#include <stddef.h>
#include <string.h>

/* Index of a name in a table, or -1. */
static int find_name(const char *const *names, int count, struct hp_str name) {
    for (int i = 0; i < count; i++) {
        if (hp_str_eq_c(name, names[i])) {
            return i;
        }
    }
    return -1;
}

static const uint32_t hp_color_values[] = {1u, 4294967295u};
static const char *const hp_color_names[] = {"red", "blue"};
const struct hp_codec_enum hp_color_enum = {
    .name = "color",
    .values = hp_color_values,
    .names = hp_color_names,
    .count = 2,
};

const char *hp_color_name(enum hp_color value) {
    switch (value) {
    case HP_COLOR_RED:
        return "red";
    case HP_COLOR_BLUE:
        return "blue";
    }
    return "unknown";
}

bool hp_color_find(struct hp_str name, enum hp_color *ret) {
    int index = find_name(hp_color_names, 2, name);

    if (index < 0) {
        return false;
    }
    *ret = (enum hp_color)hp_color_values[index];
    return true;
}

static const char *const error_names[] = {"none", "bad_request", "busy"};

const char *hp_rpc_error_name(enum hp_rpc_error_code code) {
    return error_names[(size_t)code < HP_RPC_ERROR_COUNT ? code : HP_RPC_ERROR_NONE];
}

enum hp_rpc_error_code hp_rpc_error_find(struct hp_str name) {
    int index = find_name(error_names, 3, name);

    return index < 0 ? HP_RPC_ERROR_NONE : (enum hp_rpc_error_code)index;
}

static const struct hp_codec_field hp_st_inner_fields[] = {
    {
        .name = "id",
        .name_size = 2,
        .type = HP_CODEC_U64,
        .required = true,
        .offset = offsetof(struct hp_st_inner, id),
        .min = UINT64_C(0),
        .max = UINT64_C(18446744073709551615),
    },
    {
        .name = "errno",
        .name_size = 5,
        .type = HP_CODEC_U32,
        .has_default = true,
        .offset = offsetof(struct hp_st_inner, error_number),
        .min = UINT64_C(0),
        .max = UINT64_C(4095),
        .default_ = UINT64_C(7),
    },
};

const struct hp_codec_desc hp_desc_st_inner = {
    .name = "inner",
    .fields = hp_st_inner_fields,
    .count = 2,
    .size = sizeof(struct hp_st_inner),
    .required = UINT64_C(1),
    .filled = UINT64_C(2),
    .is_struct = true,
};
HP_STATIC_ASSERT(offsetof(struct hp_st_inner, has) == 0, "begins like hp_codec_head");
HP_STATIC_ASSERT(offsetof(struct hp_st_inner, raw) ==
    offsetof(struct hp_codec_head, raw), "begins like hp_codec_head");

void hp_st_inner_init(struct hp_st_inner *ret) {
    hp_codec_defaults(&hp_desc_st_inner, ret);
}

enum hp_err hp_st_inner_decode(const struct hp_wire_obj *map, struct hp_arena *arena,
    struct hp_st_inner *ret, struct hp_error *reterr) {
    return hp_codec_decode(&hp_desc_st_inner, map, arena, ret, reterr);
}

enum hp_err hp_st_inner_encode(struct hp_buf *buf, const struct hp_st_inner *msg) {
    return hp_codec_encode(&hp_desc_st_inner, buf, msg, NULL);
}

static const struct hp_codec_field hp_st_outer_fields[] = {
    {
        .name = "one",
        .name_size = 3,
        .type = HP_CODEC_STRUCT,
        .required = true,
        .offset = offsetof(struct hp_st_outer, one),
        .sub = &hp_desc_st_inner,
    },
    {
        .name = "many",
        .name_size = 4,
        .type = HP_CODEC_LIST,
        .item_type = HP_CODEC_STRUCT,
        .offset = offsetof(struct hp_st_outer, many),
        .max_items = 3u,
        .sub = &hp_desc_st_inner,
    },
};

const struct hp_codec_desc hp_desc_st_outer = {
    .name = "outer",
    .fields = hp_st_outer_fields,
    .count = 2,
    .size = sizeof(struct hp_st_outer),
    .required = UINT64_C(1),
    .filled = UINT64_C(1),
    .is_struct = true,
};
HP_STATIC_ASSERT(offsetof(struct hp_st_outer, has) == 0, "begins like hp_codec_head");
HP_STATIC_ASSERT(offsetof(struct hp_st_outer, raw) ==
    offsetof(struct hp_codec_head, raw), "begins like hp_codec_head");

void hp_st_outer_init(struct hp_st_outer *ret) {
    hp_codec_defaults(&hp_desc_st_outer, ret);
}

enum hp_err hp_st_outer_decode(const struct hp_wire_obj *map, struct hp_arena *arena,
    struct hp_st_outer *ret, struct hp_error *reterr) {
    return hp_codec_decode(&hp_desc_st_outer, map, arena, ret, reterr);
}

enum hp_err hp_st_outer_encode(struct hp_buf *buf, const struct hp_st_outer *msg) {
    return hp_codec_encode(&hp_desc_st_outer, buf, msg, NULL);
}

const struct hp_codec_desc hp_desc_msg_ping = {
    .name = "ping",
    .fields = NULL,
    .count = 0,
    .size = sizeof(struct hp_msg_ping),
    .required = UINT64_C(0),
    .filled = UINT64_C(0),
    .is_struct = false,
};
HP_STATIC_ASSERT(offsetof(struct hp_msg_ping, has) == 0, "begins like hp_codec_head");

void hp_msg_ping_init(struct hp_msg_ping *ret) {
    hp_codec_defaults(&hp_desc_msg_ping, ret);
}

enum hp_err hp_msg_ping_decode(const struct hp_wire_obj *map, struct hp_arena *arena,
    struct hp_msg_ping *ret, struct hp_error *reterr) {
    return hp_codec_decode(&hp_desc_msg_ping, map, arena, ret, reterr);
}

enum hp_err hp_msg_ping_encode(struct hp_buf *buf, const struct hp_msg_ping *msg) {
    return hp_codec_encode(&hp_desc_msg_ping, buf, msg, NULL);
}

const struct hp_codec_desc hp_desc_msg_ping_reply = {
    .name = "ping reply",
    .fields = NULL,
    .count = 0,
    .size = sizeof(struct hp_msg_ping_reply),
    .required = UINT64_C(0),
    .filled = UINT64_C(0),
    .is_struct = false,
};
HP_STATIC_ASSERT(offsetof(struct hp_msg_ping_reply, has) == 0, "begins like hp_codec_head");

void hp_msg_ping_reply_init(struct hp_msg_ping_reply *ret) {
    hp_codec_defaults(&hp_desc_msg_ping_reply, ret);
}

enum hp_err hp_msg_ping_reply_decode(const struct hp_wire_obj *map, struct hp_arena *arena,
    struct hp_msg_ping_reply *ret, struct hp_error *reterr) {
    return hp_codec_decode(&hp_desc_msg_ping_reply, map, arena, ret, reterr);
}

enum hp_err hp_msg_ping_reply_encode(struct hp_buf *buf, const struct hp_msg_ping_reply *msg) {
    return hp_codec_encode(&hp_desc_msg_ping_reply, buf, msg, NULL);
}

static const struct hp_codec_field hp_msg_thing_put_fields[] = {
    {
        .name = "flag",
        .name_size = 4,
        .type = HP_CODEC_BOOL,
        .has_default = true,
        .offset = offsetof(struct hp_msg_thing_put, flag),
        .default_ = UINT64_C(1),
    },
    {
        .name = "small",
        .name_size = 5,
        .type = HP_CODEC_U32,
        .has_default = true,
        .offset = offsetof(struct hp_msg_thing_put, small),
        .min = UINT64_C(1),
        .max = UINT64_C(10),
        .default_ = UINT64_C(5),
    },
    {
        .name = "big",
        .name_size = 3,
        .type = HP_CODEC_U64,
        .offset = offsetof(struct hp_msg_thing_put, big),
        .min = UINT64_C(0),
        .max = UINT64_C(18446744073709551615),
    },
    {
        .name = "delta",
        .name_size = 5,
        .type = HP_CODEC_I64,
        .has_default = true,
        .offset = offsetof(struct hp_msg_thing_put, delta),
        .min = UINT64_C(18446744073709551611),
        .max = UINT64_C(9223372036854775807),
        .default_ = UINT64_C(18446744073709551615),
    },
    {
        .name = "text",
        .name_size = 4,
        .type = HP_CODEC_STR,
        .has_default = true,
        .offset = offsetof(struct hp_msg_thing_put, text),
        .max_len = 8u,
        .default_str = "a\"b\\\303\274",
    },
    {
        .name = "data",
        .name_size = 4,
        .type = HP_CODEC_BIN,
        .required = true,
        .offset = offsetof(struct hp_msg_thing_put, data),
        .max_len = 16u,
    },
    {
        .name = "color",
        .name_size = 5,
        .type = HP_CODEC_ENUM,
        .has_default = true,
        .offset = offsetof(struct hp_msg_thing_put, color),
        .min = UINT64_C(0),
        .max = UINT64_C(4294967295),
        .default_ = UINT64_C(4294967295),
        .values = &hp_color_enum,
    },
    {
        .name = "any_color",
        .name_size = 9,
        .type = HP_CODEC_ENUM,
        .open = true,
        .offset = offsetof(struct hp_msg_thing_put, any_color),
        .min = UINT64_C(0),
        .max = UINT64_C(4294967295),
        .values = &hp_color_enum,
    },
    {
        .name = "numbers",
        .name_size = 7,
        .type = HP_CODEC_LIST,
        .item_type = HP_CODEC_U64,
        .offset = offsetof(struct hp_msg_thing_put, numbers),
        .max_items = 4u,
        .min = UINT64_C(0),
        .max = UINT64_C(100),
    },
    {
        .name = "moves",
        .name_size = 5,
        .type = HP_CODEC_LIST,
        .item_type = HP_CODEC_I64,
        .offset = offsetof(struct hp_msg_thing_put, moves),
        .max_items = 4u,
        .min = UINT64_C(18446744073709551614),
        .max = UINT64_C(2),
    },
    {
        .name = "names",
        .name_size = 5,
        .type = HP_CODEC_LIST,
        .item_type = HP_CODEC_STR,
        .offset = offsetof(struct hp_msg_thing_put, names),
        .max_len = 3u,
        .max_items = 2u,
    },
    {
        .name = "parts",
        .name_size = 5,
        .type = HP_CODEC_LIST,
        .item_type = HP_CODEC_BIN,
        .offset = offsetof(struct hp_msg_thing_put, parts),
        .max_len = 4u,
        .max_items = 2u,
    },
    {
        .name = "outer",
        .name_size = 5,
        .type = HP_CODEC_STRUCT,
        .offset = offsetof(struct hp_msg_thing_put, outer),
        .sub = &hp_desc_st_outer,
    },
    {
        .name = "late",
        .name_size = 4,
        .type = HP_CODEC_BOOL,
        .offset = offsetof(struct hp_msg_thing_put, late),
    },
};

const struct hp_codec_desc hp_desc_msg_thing_put = {
    .name = "thing.put",
    .fields = hp_msg_thing_put_fields,
    .count = 14,
    .size = sizeof(struct hp_msg_thing_put),
    .required = UINT64_C(32),
    .filled = UINT64_C(4187),
    .is_struct = false,
};
HP_STATIC_ASSERT(offsetof(struct hp_msg_thing_put, has) == 0, "begins like hp_codec_head");

void hp_msg_thing_put_init(struct hp_msg_thing_put *ret) {
    hp_codec_defaults(&hp_desc_msg_thing_put, ret);
}

enum hp_err hp_msg_thing_put_decode(const struct hp_wire_obj *map, struct hp_arena *arena,
    struct hp_msg_thing_put *ret, struct hp_error *reterr) {
    return hp_codec_decode(&hp_desc_msg_thing_put, map, arena, ret, reterr);
}

enum hp_err hp_msg_thing_put_encode(struct hp_buf *buf, const struct hp_msg_thing_put *msg) {
    return hp_codec_encode(&hp_desc_msg_thing_put, buf, msg, NULL);
}

static const struct hp_codec_field hp_msg_thing_put_reply_fields[] = {
    {
        .name = "ok",
        .name_size = 2,
        .type = HP_CODEC_BOOL,
        .required = true,
        .offset = offsetof(struct hp_msg_thing_put_reply, ok),
    },
};

const struct hp_codec_desc hp_desc_msg_thing_put_reply = {
    .name = "thing.put reply",
    .fields = hp_msg_thing_put_reply_fields,
    .count = 1,
    .size = sizeof(struct hp_msg_thing_put_reply),
    .required = UINT64_C(1),
    .filled = UINT64_C(0),
    .is_struct = false,
};
HP_STATIC_ASSERT(offsetof(struct hp_msg_thing_put_reply, has) == 0, "begins like hp_codec_head");

void hp_msg_thing_put_reply_init(struct hp_msg_thing_put_reply *ret) {
    hp_codec_defaults(&hp_desc_msg_thing_put_reply, ret);
}

enum hp_err hp_msg_thing_put_reply_decode(const struct hp_wire_obj *map, struct hp_arena *arena,
    struct hp_msg_thing_put_reply *ret, struct hp_error *reterr) {
    return hp_codec_decode(&hp_desc_msg_thing_put_reply, map, arena, ret, reterr);
}

enum hp_err hp_msg_thing_put_reply_encode(struct hp_buf *buf, const struct hp_msg_thing_put_reply *msg) {
    return hp_codec_encode(&hp_desc_msg_thing_put_reply, buf, msg, NULL);
}

static const struct hp_codec_field hp_msg_thing_gone_fields[] = {
    {
        .name = "ids",
        .name_size = 3,
        .type = HP_CODEC_LIST,
        .item_type = HP_CODEC_U64,
        .required = true,
        .offset = offsetof(struct hp_msg_thing_gone, ids),
        .max_items = 8u,
        .min = UINT64_C(0),
        .max = UINT64_C(18446744073709551615),
    },
};

const struct hp_codec_desc hp_desc_msg_thing_gone = {
    .name = "thing.gone",
    .fields = hp_msg_thing_gone_fields,
    .count = 1,
    .size = sizeof(struct hp_msg_thing_gone),
    .required = UINT64_C(1),
    .filled = UINT64_C(0),
    .is_struct = false,
};
HP_STATIC_ASSERT(offsetof(struct hp_msg_thing_gone, has) == 0, "begins like hp_codec_head");

void hp_msg_thing_gone_init(struct hp_msg_thing_gone *ret) {
    hp_codec_defaults(&hp_desc_msg_thing_gone, ret);
}

enum hp_err hp_msg_thing_gone_decode(const struct hp_wire_obj *map, struct hp_arena *arena,
    struct hp_msg_thing_gone *ret, struct hp_error *reterr) {
    return hp_codec_decode(&hp_desc_msg_thing_gone, map, arena, ret, reterr);
}

enum hp_err hp_msg_thing_gone_encode(struct hp_buf *buf, const struct hp_msg_thing_gone *msg) {
    return hp_codec_encode(&hp_desc_msg_thing_gone, buf, msg, NULL);
}

static const struct hp_method_info methods[] = {
    [HP_METHOD_NONE] = {.name = "", .params = NULL, .reply = NULL},
    [HP_METHOD_PING] = {
        .name = "ping",
        .is_notify = false,
        .before_hello = true,
        .from = HP_FROM_CLIENT | HP_FROM_WORKER,
        .params = &hp_desc_msg_ping,
        .reply = &hp_desc_msg_ping_reply,
    },
    [HP_METHOD_THING_PUT] = {
        .name = "thing.put",
        .is_notify = false,
        .before_hello = false,
        .from = HP_FROM_CLIENT,
        .params = &hp_desc_msg_thing_put,
        .reply = &hp_desc_msg_thing_put_reply,
    },
    [HP_METHOD_THING_GONE] = {
        .name = "thing.gone",
        .is_notify = true,
        .before_hello = false,
        .from = HP_FROM_BROKER,
        .params = &hp_desc_msg_thing_gone,
        .reply = NULL,
    },
};

const struct hp_method_info *hp_method_info(enum hp_method method) {
    return &methods[(size_t)method < HP_METHOD_COUNT ? method : HP_METHOD_NONE];
}

enum hp_method hp_method_find(struct hp_str name) {
    switch (name.size) {
    case 4:
        if (memcmp(name.data, "ping", 4) == 0) {
            return HP_METHOD_PING;
        }
        break;
    case 9:
        if (memcmp(name.data, "thing.put", 9) == 0) {
            return HP_METHOD_THING_PUT;
        }
        break;
    case 10:
        if (memcmp(name.data, "thing.gone", 10) == 0) {
            return HP_METHOD_THING_GONE;
        }
        break;
    default:
        break;
    }
    return HP_METHOD_NONE;
}
