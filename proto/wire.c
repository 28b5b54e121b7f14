/* SPDX-License-Identifier: BSD-2-Clause */
/* See wire.h. The only file that includes msgpack.h. */
#include "proto/wire.h"

#include "common/base/mem.h"

#include <limits.h>
#include <string.h>

/* msgpack.h converts sizes without casts in its inline functions. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#include <msgpack.h>
#pragma GCC diagnostic pop

/* struct hp_wire_obj is msgpack_object under another name; these lines keep that true. */
HP_STATIC_ASSERT(sizeof(struct hp_wire_obj) == sizeof(msgpack_object), "same size");
HP_STATIC_ASSERT(sizeof(enum hp_wire_type) == sizeof(msgpack_object_type), "same tag");
HP_STATIC_ASSERT(offsetof(struct hp_wire_obj, via_) == offsetof(msgpack_object, via), "value");
HP_STATIC_ASSERT(offsetof(struct hp_wire_obj, via_.range.size) ==
                     offsetof(msgpack_object, via.array.size),
                 "count of an array");
HP_STATIC_ASSERT(offsetof(struct hp_wire_obj, via_.range.ptr) ==
                     offsetof(msgpack_object, via.array.ptr),
                 "elements of an array");
HP_STATIC_ASSERT(offsetof(msgpack_object, via.map.ptr) == offsetof(msgpack_object, via.array.ptr) &&
                     offsetof(msgpack_object, via.str.ptr) ==
                         offsetof(msgpack_object, via.array.ptr) &&
                     offsetof(msgpack_object, via.bin.ptr) ==
                         offsetof(msgpack_object, via.array.ptr),
                 "all ranges look alike");
HP_STATIC_ASSERT(sizeof(msgpack_object_kv) == 2 * sizeof(msgpack_object), "a pair is two objects");
HP_STATIC_ASSERT(
    (int)HP_WIRE_NIL == MSGPACK_OBJECT_NIL && (int)HP_WIRE_BOOL == MSGPACK_OBJECT_BOOLEAN &&
        (int)HP_WIRE_U64 == MSGPACK_OBJECT_POSITIVE_INTEGER &&
        (int)HP_WIRE_I64 == MSGPACK_OBJECT_NEGATIVE_INTEGER &&
        (int)HP_WIRE_F64 == MSGPACK_OBJECT_FLOAT64 && (int)HP_WIRE_STR == MSGPACK_OBJECT_STR &&
        (int)HP_WIRE_ARRAY == MSGPACK_OBJECT_ARRAY && (int)HP_WIRE_MAP == MSGPACK_OBJECT_MAP &&
        (int)HP_WIRE_BIN == MSGPACK_OBJECT_BIN && (int)HP_WIRE_EXT == MSGPACK_OBJECT_EXT &&
        (int)HP_WIRE_F32 == MSGPACK_OBJECT_FLOAT32,
    "same numbers");

const struct hp_wire_obj hp_wire_empty_map = {.type_ = HP_WIRE_MAP};
const struct hp_wire_obj hp_wire_nil = {.type_ = HP_WIRE_NIL};

/* Objects of a small frame fit in one chunk, which the zone keeps. */
#define ZONE_CHUNK_BYTES (32u * 1024u)

/* A frame of many elements makes the zone grow; above this its memory is given back after use. */
#define ZONE_FRAME_BYTES_KEPT (256u * 1024u)

struct hp_wire {
    msgpack_zone zone;
    bool large; /* the frame before may have left a large zone */
};

const char *hp_wire_type_name(enum hp_wire_type type)
{
    switch (type) {
    case HP_WIRE_NIL:
        return "nil";
    case HP_WIRE_BOOL:
        return "bool";
    case HP_WIRE_U64:
        return "unsigned integer";
    case HP_WIRE_I64:
        return "negative integer";
    case HP_WIRE_F32:
    case HP_WIRE_F64:
        return "float";
    case HP_WIRE_STR:
        return "string";
    case HP_WIRE_BIN:
        return "binary";
    case HP_WIRE_ARRAY:
        return "array";
    case HP_WIRE_MAP:
        return "map";
    case HP_WIRE_EXT:
        return "extension";
    }
    return "unknown type";
}

struct hp_wire *hp_wire_new(void)
{
    struct hp_wire *wire = hp_calloc(1, sizeof(*wire));

    if (wire == NULL) {
        return NULL;
    }
    if (!msgpack_zone_init(&wire->zone, ZONE_CHUNK_BYTES)) {
        hp_free(wire);
        return NULL;
    }
    return wire;
}

void hp_wire_free(struct hp_wire *wire)
{
    if (wire == NULL) {
        return;
    }
    msgpack_zone_destroy(&wire->zone);
    hp_free(wire);
}

/* Forget the objects of the frame before; keep the memory if it is of ordinary size. */
static enum hp_err renew_zone(struct hp_wire *wire)
{
    if (!wire->large) {
        msgpack_zone_clear(&wire->zone);
        return HP_OK;
    }
    msgpack_zone fresh;

    if (!msgpack_zone_init(&fresh, ZONE_CHUNK_BYTES)) {
        return HP_ERR_NOMEM;
    }
    msgpack_zone_destroy(&wire->zone);
    wire->zone = fresh;
    wire->large = false;
    return HP_OK;
}

enum hp_err hp_wire_unpack(struct hp_wire *wire, const uint8_t *data, size_t size,
                           const struct hp_wire_obj **ret_root, struct hp_error *reterr)
{
    size_t offset = 0;
    msgpack_object root;
    msgpack_object *kept;
    msgpack_unpack_return code;

    if (renew_zone(wire) != HP_OK) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    /*
     * Not msgpack_unpack_next(), which frees and allocates a zone for each frame. Strings are not
     * copied by either: they point into `data`. Any code but success is fatal, the positive ones
     * (bytes left over, bytes missing) as well as the negative.
     */
    wire->large = size > ZONE_FRAME_BYTES_KEPT / sizeof(msgpack_object);
    code = msgpack_unpack((const char *)data, size, &offset, &wire->zone, &root);
    if (code != MSGPACK_UNPACK_SUCCESS || offset != size) {
        return hp_error_set(reterr, HP_ERR_PROTOCOL,
                            "The bytes are not exactly one MessagePack value (code %d).",
                            (int)code);
    }
    kept = msgpack_zone_malloc(&wire->zone, sizeof(*kept));
    if (kept == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    *kept = root;
    *ret_root = (const struct hp_wire_obj *)kept;
    return HP_OK;
}

enum hp_err hp_wire_unpack_checked(struct hp_wire *wire, const struct hp_tok_limits *limits,
                                   struct hp_bin bytes, const struct hp_wire_obj **ret_root,
                                   struct hp_error *reterr)
{
    struct hp_tok tok;
    size_t frame_size = 0;
    const char *why = "The bytes end in the middle of a value.";
    enum hp_tok_status status;

    hp_tok_init(&tok, limits);
    status = hp_tok_scan(&tok, bytes.data, bytes.size, &frame_size, &why);
    if (status == HP_TOK_DONE && frame_size == bytes.size) {
        return hp_wire_unpack(wire, bytes.data, bytes.size, ret_root, reterr);
    }
    if (status == HP_TOK_DONE) {
        why = "Bytes follow the value.";
    }
    return hp_error_set(reterr, HP_ERR_PROTOCOL, "%s", why);
}

/* ---------------------------------------------------------------------------------------- text */

/* Bytes of the valid UTF-8 character at `at`, of which `left` >= 1 are there; 0: not valid. */
static uint32_t character_size(const uint8_t *at, uint32_t left)
{
    uint8_t first = at[0];
    uint8_t low = 0x80;
    uint8_t high = 0xbf;
    uint32_t size;

    if (first < 0x80) {
        return first != 0 ? 1 : 0;
    }
    if (first >= 0xc2 && first <= 0xdf) {
        size = 2;
    } else if (first >= 0xe0 && first <= 0xef) {
        size = 3;
        low = first == 0xe0 ? 0xa0 : low;
        high = first == 0xed ? 0x9f : high;
    } else if (first >= 0xf0 && first <= 0xf4) {
        size = 4;
        low = first == 0xf0 ? 0x90 : low;
        high = first == 0xf4 ? 0x8f : high;
    } else {
        return 0;
    }
    if (left < size || at[1] < low || at[1] > high) {
        return 0;
    }
    for (uint32_t i = 2; i < size; i++) {
        if ((at[i] & 0xc0u) != 0x80) {
            return 0;
        }
    }
    return size;
}

bool hp_wire_str_ok(struct hp_str text)
{
    const uint8_t *data = (const uint8_t *)text.data;
    uint32_t at = 0;

    while (at < text.size) {
        uint32_t size = character_size(data + at, text.size - at);

        if (size == 0) {
            return false;
        }
        at += size;
    }
    return true;
}

uint32_t hp_wire_str_clean(struct hp_str text, char *out, uint32_t out_size)
{
    const uint8_t *data = (const uint8_t *)text.data;
    uint32_t at = 0;
    uint32_t used = 0;

    while (at < text.size) {
        uint32_t size = character_size(data + at, text.size - at);
        uint32_t step = size == 0 ? 1 : size;

        if (step > out_size - used) {
            break;
        }
        if (size == 0) {
            out[used] = '?';
        } else {
            memcpy(out + used, data + at, size);
        }
        at += step;
        used += step;
    }
    return used;
}

/* ------------------------------------------------------------------------------------- writing */

/* What the packer writes through; the first error of the buffer is kept and reported. */
struct sink {
    struct hp_buf *buf;
    enum hp_err err;
};

static int sink_write(void *data, const char *bytes, size_t size)
{
    struct sink *sink = data;

    sink->err = hp_buf_append(sink->buf, bytes, size);
    return sink->err == HP_OK ? 0 : -1;
}

#define PUT(buf_, call)                                                                            \
    do {                                                                                           \
        struct sink sink = {.buf = (buf_), .err = HP_OK};                                          \
        msgpack_packer packer = {.data = &sink, .callback = sink_write};                           \
        (void)(call); /* its -1 says no more than sink.err */                                      \
        return sink.err;                                                                           \
    } while (0)

enum hp_err hp_wire_put_nil(struct hp_buf *buf)
{
    PUT(buf, msgpack_pack_nil(&packer));
}

enum hp_err hp_wire_put_bool(struct hp_buf *buf, bool value)
{
    PUT(buf, value ? msgpack_pack_true(&packer) : msgpack_pack_false(&packer));
}

enum hp_err hp_wire_put_u64(struct hp_buf *buf, uint64_t value)
{
    PUT(buf, msgpack_pack_uint64(&packer, value));
}

enum hp_err hp_wire_put_i64(struct hp_buf *buf, int64_t value)
{
    PUT(buf, msgpack_pack_int64(&packer, value));
}

enum hp_err hp_wire_put_str(struct hp_buf *buf, struct hp_str value)
{
    if (value.size == 0) {
        PUT(buf, msgpack_pack_str(&packer, 0));
    }
    PUT(buf, msgpack_pack_str_with_body(&packer, value.data, value.size));
}

enum hp_err hp_wire_put_cstr(struct hp_buf *buf, const char *value)
{
    return hp_wire_put_str(buf, hp_str_of(value));
}

enum hp_err hp_wire_put_bin(struct hp_buf *buf, struct hp_bin value)
{
    if (value.size == 0) {
        PUT(buf, msgpack_pack_bin(&packer, 0));
    }
    PUT(buf, msgpack_pack_bin_with_body(&packer, value.data, value.size));
}

enum hp_err hp_wire_put_array(struct hp_buf *buf, uint32_t count)
{
    PUT(buf, msgpack_pack_array(&packer, count));
}

enum hp_err hp_wire_put_map(struct hp_buf *buf, uint32_t pairs)
{
    PUT(buf, msgpack_pack_map(&packer, pairs));
}

enum hp_err hp_wire_put_raw(struct hp_buf *buf, struct hp_bin encoded)
{
    return hp_buf_append(buf, encoded.data, encoded.size);
}

/* The long form of an array header: five bytes whatever the count, so it can be filled in later. */
#define ARRAY32 0xddu
#define ARRAY32_HEAD_BYTES 5u

enum hp_err hp_wire_array_open(struct hp_buf *buf, size_t *ret_mark)
{
    static const uint8_t head[ARRAY32_HEAD_BYTES] = {ARRAY32};

    *ret_mark = buf->size;
    return hp_buf_append(buf, head, sizeof(head));
}

void hp_wire_array_close(struct hp_buf *buf, size_t mark, uint32_t count)
{
    HP_ASSERT(mark + ARRAY32_HEAD_BYTES <= buf->size && buf->data[mark] == ARRAY32);
    for (uint32_t i = 0; i < 4; i++) {
        buf->data[mark + 1 + i] = (uint8_t)(count >> (24 - 8 * i));
    }
}
