/* SPDX-License-Identifier: BSD-2-Clause */
/* Made by proto/gen.py from proto/small.toml. Do not edit. */
/*
 * The messages of the protocol as C structs. For each group G (hp_st_<struct>, hp_msg_<method>,
 * hp_msg_<method>_reply):
 *
 *   G_init    zeroes it and fills in the defaults.
 *   G_decode  see hp_codec_decode(): strict; bytes are of the frame, lists of the arena.
 *   G_encode  see hp_codec_encode(): appends the map of the fields whose has bit is set.
 *   hp_desc_  the table behind both, for generic code (hp_codec_encode with an hp_error).
 */
#ifndef HP_PROTO_HP_MSG_H
#define HP_PROTO_HP_MSG_H

#include "common/base/bin.h"
#include "proto/codec.h"

#include <stdbool.h>
#include <stdint.h>

#define HP_PROTOCOL_VERSION 2u

/* Largest frame. [bytes] */
#define HP_LIMIT_FRAME_BYTES 4096u
/* Does not fit in 32 bits. [things] */
#define HP_LIMIT_HUGE UINT64_C(18446744073709551615)

/* Errors a reply may carry. */
enum hp_rpc_error_code {
    HP_RPC_ERROR_NONE = 0,
    /* Not understood. */
    HP_RPC_ERROR_BAD_REQUEST,
    /* Later. */
    HP_RPC_ERROR_BUSY,
};
#define HP_RPC_ERROR_COUNT 3u

/* The stable word ('not_found'); 'none' for NONE and for what is no code. */
const char *hp_rpc_error_name(enum hp_rpc_error_code code);

/* The code of a word; HP_RPC_ERROR_NONE: not known. */
enum hp_rpc_error_code hp_rpc_error_find(struct hp_str name);

/* A color. */
enum hp_color {
    /* like * / blood */
    HP_COLOR_RED = 1,
    /* like | the sky */
    HP_COLOR_BLUE = 4294967295,
};

extern const struct hp_codec_enum hp_color_enum;

/* Its name in docs/protocol.md ('red'), or 'unknown'. */
const char *hp_color_name(enum hp_color value);

/* The value of that name; false: there is none. */
bool hp_color_find(struct hp_str name, enum hp_color *ret);

/* Is held. */
#define HP_HAS_ST_INNER_ID (UINT64_C(1) << 0)
#define HP_HAS_ST_INNER_ERRNO (UINT64_C(1) << 1)
struct hp_st_inner {
    uint64_t has;
    struct hp_bin raw; /* if its data is set: encoded, see codec.h */
    /* id (required) */
    uint64_t id;
    /* a C word (0..4095, default 7) */
    uint32_t error_number;
};
extern const struct hp_codec_desc hp_desc_st_inner;
void hp_st_inner_init(struct hp_st_inner *ret);
enum hp_err hp_st_inner_decode(const struct hp_wire_obj *map, struct hp_arena *arena,
    struct hp_st_inner *ret, struct hp_error *reterr) HP_MUST_CHECK;
enum hp_err hp_st_inner_encode(struct hp_buf *buf,
    const struct hp_st_inner *msg) HP_MUST_CHECK;

struct hp_list_inner {
    struct hp_st_inner *items;
    uint32_t count;
};

/* Holds another. */
#define HP_HAS_ST_OUTER_ONE (UINT64_C(1) << 0)
#define HP_HAS_ST_OUTER_MANY (UINT64_C(1) << 1)
struct hp_st_outer {
    uint64_t has;
    struct hp_bin raw; /* if its data is set: encoded, see codec.h */
    /* one (required) */
    struct hp_st_inner one;
    /* many (<= 3 items) */
    struct hp_list_inner many;
};
extern const struct hp_codec_desc hp_desc_st_outer;
void hp_st_outer_init(struct hp_st_outer *ret);
enum hp_err hp_st_outer_decode(const struct hp_wire_obj *map, struct hp_arena *arena,
    struct hp_st_outer *ret, struct hp_error *reterr) HP_MUST_CHECK;
enum hp_err hp_st_outer_encode(struct hp_buf *buf,
    const struct hp_st_outer *msg) HP_MUST_CHECK;

struct hp_list_outer {
    struct hp_st_outer *items;
    uint32_t count;
};

/* Is it there? */
struct hp_msg_ping {
    uint64_t has;
};
extern const struct hp_codec_desc hp_desc_msg_ping;
void hp_msg_ping_init(struct hp_msg_ping *ret);
enum hp_err hp_msg_ping_decode(const struct hp_wire_obj *map, struct hp_arena *arena,
    struct hp_msg_ping *ret, struct hp_error *reterr) HP_MUST_CHECK;
enum hp_err hp_msg_ping_encode(struct hp_buf *buf,
    const struct hp_msg_ping *msg) HP_MUST_CHECK;

/* The reply to ping. */
struct hp_msg_ping_reply {
    uint64_t has;
};
extern const struct hp_codec_desc hp_desc_msg_ping_reply;
void hp_msg_ping_reply_init(struct hp_msg_ping_reply *ret);
enum hp_err hp_msg_ping_reply_decode(const struct hp_wire_obj *map, struct hp_arena *arena,
    struct hp_msg_ping_reply *ret, struct hp_error *reterr) HP_MUST_CHECK;
enum hp_err hp_msg_ping_reply_encode(struct hp_buf *buf,
    const struct hp_msg_ping_reply *msg) HP_MUST_CHECK;

/* Every type. */
#define HP_HAS_THING_PUT_FLAG (UINT64_C(1) << 0)
#define HP_HAS_THING_PUT_SMALL (UINT64_C(1) << 1)
#define HP_HAS_THING_PUT_BIG (UINT64_C(1) << 2)
#define HP_HAS_THING_PUT_DELTA (UINT64_C(1) << 3)
#define HP_HAS_THING_PUT_TEXT (UINT64_C(1) << 4)
#define HP_HAS_THING_PUT_DATA (UINT64_C(1) << 5)
#define HP_HAS_THING_PUT_COLOR (UINT64_C(1) << 6)
#define HP_HAS_THING_PUT_ANY_COLOR (UINT64_C(1) << 7)
#define HP_HAS_THING_PUT_NUMBERS (UINT64_C(1) << 8)
#define HP_HAS_THING_PUT_MOVES (UINT64_C(1) << 9)
#define HP_HAS_THING_PUT_NAMES (UINT64_C(1) << 10)
#define HP_HAS_THING_PUT_PARTS (UINT64_C(1) << 11)
#define HP_HAS_THING_PUT_OUTER (UINT64_C(1) << 12)
#define HP_HAS_THING_PUT_LATE (UINT64_C(1) << 13)
struct hp_msg_thing_put {
    uint64_t has;
    /* bool (default true) */
    bool flag;
    /* u32 (ms, 1..10, default 5) */
    uint32_t small;
    /* u64 */
    uint64_t big;
    /* i64 (-5..max, default -1) */
    int64_t delta;
    /* str (<= 8 bytes, default a"b\ü) */
    struct hp_str text;
    /* bin (<= 16 bytes, required) */
    struct hp_bin data;
    /* enum (default 4294967295) */
    enum hp_color color;
    /* open enum */
    enum hp_color any_color;
    /* list of u64 (0..100, <= 4 items) */
    struct hp_list_u64 numbers;
    /* list of i64 (-2..2, <= 4 items) */
    struct hp_list_i64 moves;
    /* list of str (<= 2 items, <= 3 bytes each) */
    struct hp_list_str names;
    /* list of bin (<= 2 items, <= 4 bytes each) */
    struct hp_list_bin parts;
    /* struct */
    struct hp_st_outer outer;
    /* came later */
    bool late;
};
extern const struct hp_codec_desc hp_desc_msg_thing_put;
void hp_msg_thing_put_init(struct hp_msg_thing_put *ret);
enum hp_err hp_msg_thing_put_decode(const struct hp_wire_obj *map, struct hp_arena *arena,
    struct hp_msg_thing_put *ret, struct hp_error *reterr) HP_MUST_CHECK;
enum hp_err hp_msg_thing_put_encode(struct hp_buf *buf,
    const struct hp_msg_thing_put *msg) HP_MUST_CHECK;

/* The reply to thing.put. */
#define HP_HAS_THING_PUT_REPLY_OK (UINT64_C(1) << 0)
struct hp_msg_thing_put_reply {
    uint64_t has;
    /* it was stored (required) */
    bool ok;
};
extern const struct hp_codec_desc hp_desc_msg_thing_put_reply;
void hp_msg_thing_put_reply_init(struct hp_msg_thing_put_reply *ret);
enum hp_err hp_msg_thing_put_reply_decode(const struct hp_wire_obj *map, struct hp_arena *arena,
    struct hp_msg_thing_put_reply *ret, struct hp_error *reterr) HP_MUST_CHECK;
enum hp_err hp_msg_thing_put_reply_encode(struct hp_buf *buf,
    const struct hp_msg_thing_put_reply *msg) HP_MUST_CHECK;

/* It went. */
#define HP_HAS_THING_GONE_IDS (UINT64_C(1) << 0)
struct hp_msg_thing_gone {
    uint64_t has;
    /* which (<= 8 items, required) */
    struct hp_list_u64 ids;
};
extern const struct hp_codec_desc hp_desc_msg_thing_gone;
void hp_msg_thing_gone_init(struct hp_msg_thing_gone *ret);
enum hp_err hp_msg_thing_gone_decode(const struct hp_wire_obj *map, struct hp_arena *arena,
    struct hp_msg_thing_gone *ret, struct hp_error *reterr) HP_MUST_CHECK;
enum hp_err hp_msg_thing_gone_encode(struct hp_buf *buf,
    const struct hp_msg_thing_gone *msg) HP_MUST_CHECK;

/* The methods. */
enum hp_method {
    HP_METHOD_NONE = 0,
    HP_METHOD_PING,
    HP_METHOD_THING_PUT,
    HP_METHOD_THING_GONE,
};
#define HP_METHOD_COUNT 4u

/* Who may send a method. */
#define HP_FROM_CLIENT 1u
#define HP_FROM_WORKER 2u
#define HP_FROM_BROKER 4u

struct hp_method_info {
    const char *name;
    bool is_notify;    /* no reply */
    bool before_hello; /* allowed as the first message */
    uint8_t from;      /* HP_FROM_* bits */
    const struct hp_codec_desc *params;
    const struct hp_codec_desc *reply; /* NULL: is_notify */
};

/* Facts of a method; NONE and what is no method give the entry of NONE (name "", from 0). */
const struct hp_method_info *hp_method_info(enum hp_method method);

/* The method of that name, or HP_METHOD_NONE. */
enum hp_method hp_method_find(struct hp_str name);

#endif
