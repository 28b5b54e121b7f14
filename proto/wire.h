/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * MessagePack values: reading a scanned frame, and writing to a buffer. wire.c is the only file
 * that sees msgpack.h, so that the codec library can be replaced in one place.
 *
 * Reading borrows: str and bin values point into the frame, which must outlive the objects. A frame
 * from a peer must have passed hp_tok_scan() before hp_wire_unpack() sees it; bytes from elsewhere
 * go through hp_wire_unpack_checked().
 *
 * Pure. A struct hp_wire belongs to one thread.
 */
#ifndef HP_PROTO_WIRE_H
#define HP_PROTO_WIRE_H

#include "common/base/assert.h"
#include "common/base/bin.h"
#include "common/base/buf.h"
#include "common/base/err.h"
#include "proto/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The values are those of msgpack-c's object types; wire.c asserts that at compile time. */
enum hp_wire_type {
    HP_WIRE_NIL = 0x00,
    HP_WIRE_BOOL = 0x01,
    HP_WIRE_U64 = 0x02, /* an integer >= 0, whatever its encoding */
    HP_WIRE_I64 = 0x03, /* an integer < 0 */
    HP_WIRE_F64 = 0x04,
    HP_WIRE_STR = 0x05,
    HP_WIRE_ARRAY = 0x06,
    HP_WIRE_MAP = 0x07,
    HP_WIRE_BIN = 0x08,
    HP_WIRE_EXT = 0x09,
    HP_WIRE_F32 = 0x0a,
};

/*
 * One value. It has the layout of msgpack_object so that the readers below can be inline; treat it
 * as opaque and use them. may_alias, because msgpack-c wrote it under another type.
 */
struct __attribute__((may_alias)) hp_wire_obj {
    enum hp_wire_type type_;
    union {
        bool boolean;
        uint64_t u64;
        int64_t i64;
        double f64;
        struct {
            uint32_t size;
            const void *ptr;
        } range; /* array: objects; map: key, value, key, ...; str, bin: bytes */
    } via_;
};

static inline enum hp_wire_type hp_wire_type(const struct hp_wire_obj *obj)
{
    return obj->type_;
}

/* Readers assert the type (integers: the exact one), so check hp_wire_type() first. */
static inline bool hp_wire_bool(const struct hp_wire_obj *obj)
{
    HP_ASSERT(obj->type_ == HP_WIRE_BOOL);
    return obj->via_.boolean;
}

static inline uint64_t hp_wire_u64(const struct hp_wire_obj *obj)
{
    HP_ASSERT(obj->type_ == HP_WIRE_U64);
    return obj->via_.u64;
}

static inline int64_t hp_wire_i64(const struct hp_wire_obj *obj)
{
    HP_ASSERT(obj->type_ == HP_WIRE_I64);
    return obj->via_.i64;
}

static inline double hp_wire_f64(const struct hp_wire_obj *obj)
{
    HP_ASSERT(obj->type_ == HP_WIRE_F64 || obj->type_ == HP_WIRE_F32);
    return obj->via_.f64;
}

/* Text as it came: not yet known to be UTF-8 (hp_wire_str_ok). */
static inline struct hp_str hp_wire_str(const struct hp_wire_obj *obj)
{
    HP_ASSERT(obj->type_ == HP_WIRE_STR);
    return (struct hp_str){.data = (const char *)obj->via_.range.ptr, .size = obj->via_.range.size};
}

/* Bytes of a bin, or of a str: many clients can only send the latter. */
static inline struct hp_bin hp_wire_bin(const struct hp_wire_obj *obj)
{
    HP_ASSERT(obj->type_ == HP_WIRE_BIN || obj->type_ == HP_WIRE_STR);
    return (struct hp_bin){.data = (const uint8_t *)obj->via_.range.ptr,
                           .size = obj->via_.range.size};
}

/* Elements of an array, or pairs of a map. */
static inline uint32_t hp_wire_count(const struct hp_wire_obj *obj)
{
    HP_ASSERT(obj->type_ == HP_WIRE_ARRAY || obj->type_ == HP_WIRE_MAP);
    return obj->via_.range.size;
}

static inline const struct hp_wire_obj *hp_wire_item(const struct hp_wire_obj *array,
                                                     uint32_t index)
{
    HP_ASSERT(array->type_ == HP_WIRE_ARRAY && index < array->via_.range.size);
    return (const struct hp_wire_obj *)array->via_.range.ptr + index;
}

static inline const struct hp_wire_obj *hp_wire_key(const struct hp_wire_obj *map, uint32_t index)
{
    HP_ASSERT(map->type_ == HP_WIRE_MAP && index < map->via_.range.size);
    return (const struct hp_wire_obj *)map->via_.range.ptr + 2 * (size_t)index;
}

static inline const struct hp_wire_obj *hp_wire_value(const struct hp_wire_obj *map, uint32_t index)
{
    return hp_wire_key(map, index) + 1;
}

/* A map without keys, and nil; static objects for "nothing was sent". */
extern const struct hp_wire_obj hp_wire_empty_map;
extern const struct hp_wire_obj hp_wire_nil;

/* For error texts: "map", "string", "unsigned integer" ... */
const char *hp_wire_type_name(enum hp_wire_type type);

/* The memory that unpacked objects live in, reused from frame to frame. */
struct hp_wire;

/* NULL: out of memory. Release with hp_wire_free (NULL is fine). */
struct hp_wire *hp_wire_new(void) HP_MUST_CHECK;
void hp_wire_free(struct hp_wire *wire);

/*
 * Unpack the one frame that `data` is, whole. *ret_root and all below it stay valid until the next
 * call with the same `wire`, and as long as the bytes do. HP_ERR_PROTOCOL: msgpack-c refuses it or
 * bytes are left over; HP_ERR_NOMEM is never told apart from that by msgpack-c 4: both are fatal to
 * the connection.
 */
enum hp_err hp_wire_unpack(struct hp_wire *wire, const uint8_t *data, size_t size,
                           const struct hp_wire_obj **ret_root,
                           struct hp_error *reterr) HP_MUST_CHECK;

/* The same for bytes that did not come through a scanner: scans them under `limits` first. */
enum hp_err hp_wire_unpack_checked(struct hp_wire *wire, const struct hp_tok_limits *limits,
                                   struct hp_bin bytes, const struct hp_wire_obj **ret_root,
                                   struct hp_error *reterr) HP_MUST_CHECK;

/* True if text may travel as a str field: valid UTF-8 (no surrogates, no overlong) and no NUL. */
bool hp_wire_str_ok(struct hp_str text);

/*
 * Copy free text (an error from a user's code, say) so that it may travel: bytes which are not
 * UTF-8, and NULs, become '?'; cut at a character to at most `out_size` bytes. Returns the bytes
 * written.
 */
uint32_t hp_wire_str_clean(struct hp_str text, char *out, uint32_t out_size);

/* ------------------------------------------------------------------------------------- writing */

/*
 * Each appends one value (array, map: only the header). HP_ERR_FULL or HP_ERR_NOMEM from the
 * buffer; the buffer may then hold a part of the value: truncate it to where the message began.
 */
enum hp_err hp_wire_put_nil(struct hp_buf *buf) HP_MUST_CHECK;
enum hp_err hp_wire_put_bool(struct hp_buf *buf, bool value) HP_MUST_CHECK;
enum hp_err hp_wire_put_u64(struct hp_buf *buf, uint64_t value) HP_MUST_CHECK;
enum hp_err hp_wire_put_i64(struct hp_buf *buf, int64_t value) HP_MUST_CHECK;
enum hp_err hp_wire_put_str(struct hp_buf *buf, struct hp_str value) HP_MUST_CHECK;
enum hp_err hp_wire_put_cstr(struct hp_buf *buf, const char *value) HP_MUST_CHECK;
enum hp_err hp_wire_put_bin(struct hp_buf *buf, struct hp_bin value) HP_MUST_CHECK;
enum hp_err hp_wire_put_array(struct hp_buf *buf, uint32_t count) HP_MUST_CHECK;
enum hp_err hp_wire_put_map(struct hp_buf *buf, uint32_t pairs) HP_MUST_CHECK;

/* Append bytes which are whole encoded values already. */
enum hp_err hp_wire_put_raw(struct hp_buf *buf, struct hp_bin encoded) HP_MUST_CHECK;

/*
 * An array whose count is not known yet: open it, put the elements, close it with their number. The
 * mark is a position relative to buf->data, so nothing may be consumed from the buffer in between.
 */
enum hp_err hp_wire_array_open(struct hp_buf *buf, size_t *ret_mark) HP_MUST_CHECK;
void hp_wire_array_close(struct hp_buf *buf, size_t mark, uint32_t count);

#endif
