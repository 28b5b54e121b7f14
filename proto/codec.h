/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine behind the generated encoders and decoders. gen.py turns each struct, params and
 * result of hostpool.toml into a table of fields; the two functions here walk such a table. So
 * there is one decoder to review and to fuzz, and a message costs a table instead of code.
 *
 * Normal code uses the typed wrappers of proto/hp_msg.h and never sees this header's structs.
 *
 * Pure; the tables are constant, so any thread may use them.
 */
#ifndef HP_PROTO_CODEC_H
#define HP_PROTO_CODEC_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/err.h"
#include "proto/wire.h"

#include <stdbool.h>
#include <stdint.h>

struct hp_list_u64 {
    uint64_t *items;
    uint32_t count;
};

struct hp_list_i64 {
    int64_t *items;
    uint32_t count;
};

struct hp_list_str {
    struct hp_str *items;
    uint32_t count;
};

struct hp_list_bin {
    struct hp_bin *items;
    uint32_t count;
};

enum hp_codec_type {
    HP_CODEC_BOOL,
    HP_CODEC_U32,
    HP_CODEC_U64,
    HP_CODEC_I64,
    HP_CODEC_STR,
    HP_CODEC_BIN,
    HP_CODEC_ENUM, /* an unsigned integer out of a list; 4 bytes in C */
    HP_CODEC_STRUCT,
    HP_CODEC_LIST, /* of item_type */
};

/* The values an enum has, ascending. */
struct hp_codec_enum {
    const char *name;
    const uint32_t *values;
    const char *const *names;
    uint32_t count;
};

struct hp_codec_desc;

struct hp_codec_field {
    const char *name;
    uint8_t name_size;
    uint8_t type;      /* enum hp_codec_type */
    uint8_t item_type; /* of a list */
    bool required;
    bool open;          /* enum: unknown values pass */
    bool has_default;   /* default_ is filled in when the field is absent */
    uint32_t offset;    /* of the C field in its struct */
    uint32_t max_len;   /* bytes of a str or bin, or of each one in a list */
    uint32_t max_items; /* of a list */
    uint64_t min;       /* integers; the bits of an int64_t for i64 */
    uint64_t max;
    uint64_t default_; /* bool, integers, enum */
    const char *default_str;
    const struct hp_codec_enum *values;
    const struct hp_codec_desc *sub; /* struct, list of struct */
};

struct hp_codec_desc {
    const char *name; /* "task.submit", "task.submit reply", "struct task_options": for errors */
    const struct hp_codec_field *fields;
    uint32_t count;    /* fields, <= 64 */
    uint32_t size;     /* sizeof the C struct */
    uint64_t required; /* has bits of the required fields */
    uint64_t filled;   /* of structs, and of those whose default is not all zeroes */
    bool is_struct;    /* the C struct has a `raw` member behind `has` */
};

/*
 * What every generated C struct begins with. In a struct (not a message) `raw` follows: when its
 * data is set, the encoder writes those bytes, which must be one encoded map of this struct,
 * instead of the fields. So what was stored encoded is spliced into a message without decoding it.
 */
struct hp_codec_head {
    uint64_t has;
    struct hp_bin raw;
};

/*
 * Decode `map` into the C struct at `ret`, which is zeroed first. Strict: HP_ERR_PROTOCOL with a
 * sentence that names message and field for a wrong type, a duplicate key, a key that is no string,
 * a missing required field, a value out of range, a str or bin or list that is too long, text that
 * is not UTF-8 or holds a NUL. Unknown keys are skipped, nil counts as absent, defaults are filled
 * in (without their has bit), a str is accepted for a bin. Bytes are borrowed from the frame, lists
 * live in the arena (HP_ERR_NOMEM: it is full).
 */
enum hp_err hp_codec_decode(const struct hp_codec_desc *desc, const struct hp_wire_obj *map,
                            struct hp_arena *arena, void *ret,
                            struct hp_error *reterr) HP_MUST_CHECK;

/*
 * Append the map of the fields whose has bit is set; required ones always. HP_ERR_INVALID: a field
 * breaks its own limit (reterr, which may be NULL, names it), so a decoder would refuse the
 * message; HP_ERR_FULL, HP_ERR_NOMEM from the buffer. On an error the buffer is as it was before.
 */
enum hp_err hp_codec_encode(const struct hp_codec_desc *desc, struct hp_buf *buf, const void *msg,
                            struct hp_error *reterr) HP_MUST_CHECK;

/* Set a C struct to "nothing present": zeroed, defaults filled in, as a decode of {} would. */
void hp_codec_defaults(const struct hp_codec_desc *desc, void *ret);

/* Position of `value` in the enum, or -1. */
int hp_codec_enum_index(const struct hp_codec_enum *values, uint32_t value);

#endif
