/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many byte strings in one: a MessagePack array of them, as tasks of several items have it for
 * payload and result. Read in place, and written piece by piece; inlined, because an item may be a
 * number of which a core takes ten million in a second.
 */
#ifndef HP_BASE_ITEMS_H
#define HP_BASE_ITEMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/endian.h"

/* ---------------------------------------------------------------- reading */

struct hp_items {
    const uint8_t *at; /* of the next one */
    size_t left;       /* bytes from there on */
    uint32_t count;    /* items in the array */
    uint32_t next;     /* index of the next one */
};

/* The head of a value which has a length of its own: 1 + bytes of the length, 0: another kind. */
static inline size_t hp_items_length(const uint8_t *at, size_t left, size_t size_bytes,
                                     uint32_t *ret_value)
{
    if (left < 1 + size_bytes) {
        return 0;
    }
    *ret_value = size_bytes == 1   ? at[1]
                 : size_bytes == 2 ? hp_get_be16(at + 1)
                                   : hp_get_be32(at + 1);
    return 1 + size_bytes;
}

/* Goes to the array's first item. False: the bytes are no array. They are lent. */
static inline bool hp_items_begin(struct hp_items *items, const void *data, size_t size)
{
    const uint8_t *at = data;
    size_t head = 0;
    *items = (struct hp_items){0};
    if (size > 0 && at[0] >= 0x90 && at[0] <= 0x9f) {
        items->count = at[0] & 0x0fU;
        head = 1;
    } else if (size > 0 && (at[0] == 0xdc || at[0] == 0xdd)) {
        head = hp_items_length(at, size, at[0] == 0xdc ? 2 : 4, &items->count);
    }
    if (head == 0) {
        return false;
    }
    items->at = at + head;
    items->left = size - head;
    return true;
}

/* The head of a byte string or text; 0: it is none, or cut. */
static inline size_t hp_items_head(const uint8_t *at, size_t left, uint32_t *ret_size)
{
    if (left == 0) {
        return 0;
    }
    switch (at[0]) {
    case 0xc4:
    case 0xd9:
        return hp_items_length(at, left, 1, ret_size);
    case 0xc5:
    case 0xda:
        return hp_items_length(at, left, 2, ret_size);
    case 0xc6:
    case 0xdb:
        return hp_items_length(at, left, 4, ret_size);
    default:
        *ret_size = at[0] & 0x1fU;
        return at[0] >= 0xa0 && at[0] <= 0xbf;
    }
}

/* The next item, which must be one of the array's. False: it is no byte string, or cut. */
static inline bool hp_items_next(struct hp_items *items, const uint8_t **ret_data, size_t *ret_size)
{
    uint32_t size = 0;
    size_t head = hp_items_head(items->at, items->left, &size);
    if (head == 0 || size > items->left - head) {
        return false;
    }
    *ret_data = items->at + head;
    *ret_size = size;
    items->at += head + size;
    items->left -= head + size;
    items->next++;
    return true;
}

/* Were they all, and was nothing behind them? */
static inline bool hp_items_ended(const struct hp_items *items)
{
    return items->next == items->count && items->left == 0;
}

/* ---------------------------------------------------------------- writing */

enum { HP_ITEMS_HEAD_BYTES = 5 };

/* Begins an array in an empty buffer. Errors as hp_buf_reserve. */
HP_MUST_CHECK static inline enum hp_err hp_items_open(struct hp_buf *buf)
{
    static const uint8_t head[HP_ITEMS_HEAD_BYTES] = {0xdd};
    return hp_buf_append(buf, head, sizeof(head));
}

/* Room for an item of `size` bytes, valid until the buffer changes; it counts. */
HP_MUST_CHECK static inline enum hp_err hp_items_room(struct hp_buf *buf, size_t size,
                                                      uint8_t **ret_at)
{
    uint8_t *at;
    if (size > UINT32_MAX) {
        return HP_ERR_FULL;
    }
    size_t head = size <= UINT8_MAX ? 2 : size <= UINT16_MAX ? 3 : 5;
    if (buf->data != NULL && head + size <= buf->capacity - buf->offset - buf->size &&
        head + size <= buf->max - buf->size) {
        at = buf->data + buf->size;
    } else {
        enum hp_err err = hp_buf_reserve(buf, head + size, &at);
        if (err != HP_OK) {
            return err;
        }
    }
    if (head == 2) {
        at[0] = 0xc4;
        at[1] = (uint8_t)size;
    } else if (head == 3) {
        at[0] = 0xc5;
        hp_put_be16(at + 1, (uint16_t)size);
    } else {
        at[0] = 0xc6;
        hp_put_be32(at + 1, (uint32_t)size);
    }
    buf->size += head + size;
    *ret_at = at + head;
    return HP_OK;
}

/* Appends an item. `data` must not lie in the buffer. */
HP_MUST_CHECK static inline enum hp_err hp_items_append(struct hp_buf *buf, const void *data,
                                                        size_t size)
{
    uint8_t *at;
    enum hp_err err = hp_items_room(buf, size, &at);
    if (err == HP_OK && size > 0) {
        memcpy(at, data, size);
    }
    return err;
}

/* Says how many there are, once all are there. */
static inline void hp_items_close(struct hp_buf *buf, uint32_t count)
{
    hp_put_be32(buf->data + 1, count);
}

#endif
