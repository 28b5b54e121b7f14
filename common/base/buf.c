/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Growing buffer. The block may be twice the maximum: then room can be missing at its end only when
 * more bytes were consumed in front than are live, so each move to the front is paid for by bytes
 * already consumed, and both ends stay amortised O(1).
 */
#include "common/base/buf.h"

#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

#define BUF_CAPACITY_MIN 64u

void hp_buf_init(struct hp_buf *buf, size_t max)
{
    HP_ASSERT(max > 0 && max <= SIZE_MAX / 4);
    *buf = (struct hp_buf){.max = max};
}

static uint8_t *block_of(const struct hp_buf *buf)
{
    return buf->data == NULL ? NULL : buf->data - buf->offset;
}

void hp_buf_deinit(struct hp_buf *buf)
{
    hp_free(block_of(buf));
    *buf = (struct hp_buf){.max = buf->max};
}

static void move_to_front(struct hp_buf *buf)
{
    uint8_t *block = block_of(buf);
    memmove(block, buf->data, buf->size);
    buf->data = block;
    buf->offset = 0;
}

static enum hp_err grow(struct hp_buf *buf, size_t need)
{
    size_t capacity = HP_MAX(buf->capacity, BUF_CAPACITY_MIN / 2) * 2;
    capacity = HP_MIN(capacity, buf->max * 2);
    capacity = HP_MAX(capacity, need);
    uint8_t *block = hp_alloc(capacity);
    if (block == NULL) {
        return HP_ERR_NOMEM;
    }
    if (buf->size > 0) {
        memcpy(block, buf->data, buf->size);
    }
    hp_free(block_of(buf));
    buf->data = block;
    buf->offset = 0;
    buf->capacity = capacity;
    return HP_OK;
}

enum hp_err hp_buf_reserve(struct hp_buf *buf, size_t more, uint8_t **ret_at)
{
    HP_ASSERT(buf->max > 0);
    HP_ASSERT(buf->size <= buf->max);
    if (more > buf->max - buf->size) {
        return HP_ERR_FULL;
    }
    size_t need = buf->size + more;
    if (buf->data == NULL || need > buf->capacity - buf->offset) {
        if (buf->data != NULL && need <= buf->capacity && buf->offset >= buf->size) {
            move_to_front(buf);
        } else {
            enum hp_err err = grow(buf, need);
            if (err != HP_OK) {
                return err;
            }
        }
    }
    if (ret_at != NULL) {
        *ret_at = buf->data + buf->size;
    }
    return HP_OK;
}

void hp_buf_commit(struct hp_buf *buf, size_t size)
{
    HP_ASSERT(size <= buf->capacity - buf->offset - buf->size);
    HP_ASSERT(size <= buf->max - buf->size);
    buf->size += size;
}

enum hp_err hp_buf_append_slowly(struct hp_buf *buf, const void *data, size_t size)
{
    uint8_t *at = NULL;
    enum hp_err err = hp_buf_reserve(buf, size, &at);
    if (err != HP_OK) {
        return err;
    }
    if (size > 0) {
        memcpy(at, data, size);
        buf->size += size;
    }
    return HP_OK;
}

enum hp_err hp_buf_append_buf(struct hp_buf *buf, const struct hp_buf *from)
{
    HP_ASSERT(buf != from);
    return hp_buf_append(buf, from->data, from->size);
}

enum hp_err hp_buf_append_text(struct hp_buf *buf, const char *text)
{
    return hp_buf_append(buf, text, strlen(text));
}

enum hp_err hp_buf_append_vformat(struct hp_buf *buf, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int text_size = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (text_size < 0) {
        return HP_ERR_INVALID;
    }
    size_t size = (size_t)text_size;
    uint8_t *at = NULL;
    /* One more byte for the NUL of snprintf, unless the limit forbids it: then print aside. */
    if (size < buf->max - buf->size) {
        enum hp_err err = hp_buf_reserve(buf, size + 1, &at);
        if (err != HP_OK) {
            return err;
        }
        (void)vsnprintf((char *)at, size + 1, format, args); /* measured above */
        buf->size += size;
        return HP_OK;
    }
    if (size > buf->max - buf->size) {
        return HP_ERR_FULL;
    }
    HP_CLEANUP(hp_free_ptr) char *text = hp_alloc(size + 1);
    if (text == NULL) {
        return HP_ERR_NOMEM;
    }
    (void)vsnprintf(text, size + 1, format, args); /* measured above */
    return hp_buf_append(buf, text, size);
}

enum hp_err hp_buf_append_format(struct hp_buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    enum hp_err err = hp_buf_append_vformat(buf, format, args);
    va_end(args);
    return err;
}

void hp_buf_consume(struct hp_buf *buf, size_t size)
{
    HP_ASSERT(size <= buf->size);
    if (size == 0) {
        return;
    }
    buf->size -= size;
    if (buf->size == 0) {
        hp_buf_clear(buf);
        return;
    }
    buf->data += size;
    buf->offset += size;
}

void hp_buf_truncate(struct hp_buf *buf, size_t size)
{
    HP_ASSERT(size <= buf->size);
    buf->size = size;
}

void hp_buf_clear(struct hp_buf *buf)
{
    buf->data = block_of(buf);
    buf->offset = 0;
    buf->size = 0;
}

void hp_buf_shrink(struct hp_buf *buf)
{
    if (buf->size == 0) {
        hp_buf_deinit(buf);
        return;
    }
    if (buf->offset > 0) {
        move_to_front(buf);
    }
    if (buf->size < buf->capacity) {
        uint8_t *block = hp_realloc(buf->data, buf->size);
        if (block != NULL) {
            buf->data = block;
            buf->capacity = buf->size;
        }
    }
}

struct hp_bin hp_buf_bin(const struct hp_buf *buf)
{
    return hp_bin_make(buf->data, buf->size);
}
