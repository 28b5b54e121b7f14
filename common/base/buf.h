/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A growing byte buffer with a limit: append at the end, consume at the front, both amortised O(1).
 * The limit is given at init, because a buffer without one is how a peer takes all memory.
 *
 * I1: the live bytes are data[0 .. size), and `data` is `offset` bytes into the block.
 * I2: offset + size <= capacity <= 2 * max (plus rounding), size <= max.
 * Pointers into the buffer are valid until the next call that appends, reserves, consumes or
 * shrinks.
 */
#ifndef HP_BASE_BUF_H
#define HP_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/base/bin.h"
#include "common/base/err.h"

struct hp_buf {
    uint8_t *data;   /* first live byte; NULL while nothing is allocated */
    size_t size;     /* live bytes */
    size_t capacity; /* bytes of the whole block */
    size_t max;      /* limit of `size` */
    size_t offset;   /* consumed bytes in front of `data`, to be reused */
};

/* Makes an empty buffer which holds at most `max` bytes (1 .. SIZE_MAX/4). Allocates nothing. */
void hp_buf_init(struct hp_buf *buf, size_t max);

/* Frees the memory; the buffer is empty and usable again with the same max. */
void hp_buf_deinit(struct hp_buf *buf);

/*
 * Makes room for `more` bytes behind the live ones; *ret_at (may be NULL) points to it. The bytes
 * count only after hp_buf_commit. HP_ERR_FULL: size + more > max. HP_ERR_NOMEM. Neither changes
 * the live bytes.
 */
enum hp_err hp_buf_reserve(struct hp_buf *buf, size_t more, uint8_t **ret_at) HP_MUST_CHECK;

/* Counts `size` bytes, written into reserved room, as live. More than reserved is asserted. */
void hp_buf_commit(struct hp_buf *buf, size_t size);

/* The part of hp_buf_append that is not worth to be inlined. */
enum hp_err hp_buf_append_slowly(struct hp_buf *buf, const void *data, size_t size) HP_MUST_CHECK;

/* Appends a copy. `data` must not point into the buffer. Errors as hp_buf_reserve. Messages are
 * made of many small pieces: where there is room this is a copy, and no call. */
HP_MUST_CHECK static inline enum hp_err hp_buf_append(struct hp_buf *buf, const void *data,
                                                      size_t size)
{
    if (buf->data == NULL || size > buf->capacity - buf->offset - buf->size || size == 0 ||
        size > buf->max - buf->size) {
        return hp_buf_append_slowly(buf, data, size);
    }
    memcpy(buf->data + buf->size, data, size);
    buf->size += size;
    return HP_OK;
}

/* Appends one byte. */
HP_MUST_CHECK static inline enum hp_err hp_buf_append_byte(struct hp_buf *buf, uint8_t byte)
{
    return hp_buf_append(buf, &byte, 1);
}

/* Appends the live bytes of another buffer (not of itself). */
enum hp_err hp_buf_append_buf(struct hp_buf *buf, const struct hp_buf *from) HP_MUST_CHECK;

/* Appends a C string without its NUL. */
enum hp_err hp_buf_append_text(struct hp_buf *buf, const char *text) HP_MUST_CHECK;

/* Appends formatted text (no NUL). HP_ERR_INVALID if the format can not be printed. */
enum hp_err hp_buf_append_format(struct hp_buf *buf, const char *format, ...)
    HP_PRINTF(2, 3) HP_MUST_CHECK;
enum hp_err hp_buf_append_vformat(struct hp_buf *buf, const char *format, va_list args)
    HP_PRINTF(2, 0) HP_MUST_CHECK;

/* Drops `size` live bytes at the front (size <= buf->size). Never fails, never moves memory. */
void hp_buf_consume(struct hp_buf *buf, size_t size);

/* Cuts the live bytes to `size` (<= buf->size), dropping the end. */
void hp_buf_truncate(struct hp_buf *buf, size_t size);

/* Drops all live bytes, keeps the memory. */
void hp_buf_clear(struct hp_buf *buf);

/* Gives memory which is not needed for the live bytes back. Never fails. */
void hp_buf_shrink(struct hp_buf *buf);

/* View of the live bytes; asserts that they are fewer than 4 GiB. */
struct hp_bin hp_buf_bin(const struct hp_buf *buf);

#endif
