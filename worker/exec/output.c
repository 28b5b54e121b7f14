/* SPDX-License-Identifier: BSD-2-Clause */
/* The last bytes of a stream. I1: start < capacity or both are 0; size <= capacity <= cap. */
#include "worker/exec/output.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"

#define FIRST_BYTES 1024

void hp_tail_init(struct hp_tail *tail, size_t cap)
{
    *tail = (struct hp_tail){.cap = cap};
}

void hp_tail_deinit(struct hp_tail *tail)
{
    hp_free(tail->data);
    *tail = (struct hp_tail){0};
}

/* Grows to hold `want` bytes (or the cap). Without memory it stays as it is: older bytes give way.
 */
static void grow(struct hp_tail *tail, size_t want)
{
    size_t capacity = HP_MAX(tail->capacity, (size_t)FIRST_BYTES);
    while (capacity < want && capacity < tail->cap) {
        capacity *= 2;
    }
    capacity = HP_MIN(capacity, tail->cap);
    if (capacity <= tail->capacity) {
        return;
    }
    uint8_t *data = hp_alloc(capacity);
    if (data == NULL) {
        return;
    }
    struct hp_bin part[2];
    (void)hp_tail_view(tail, 0, part);
    if (part[0].size > 0) {
        memcpy(data, part[0].data, part[0].size);
    }
    if (part[1].size > 0) {
        memcpy(data + part[0].size, part[1].data, part[1].size);
    }
    hp_free(tail->data);
    tail->data = data;
    tail->capacity = capacity;
    tail->start = 0;
}

void hp_tail_append(struct hp_tail *tail, const uint8_t *data, size_t size)
{
    tail->total += size;
    if (tail->size + size > tail->capacity && tail->capacity < tail->cap) {
        grow(tail, tail->size + size);
    }
    if (tail->capacity == 0) {
        return;
    }
    if (size > tail->capacity) {
        data += size - tail->capacity;
        size = tail->capacity;
    }
    size_t drop = tail->size + size > tail->capacity ? tail->size + size - tail->capacity : 0;
    tail->start = (tail->start + drop) % tail->capacity;
    tail->size -= drop;
    size_t at = (tail->start + tail->size) % tail->capacity;
    size_t first = HP_MIN(size, tail->capacity - at);
    memcpy(tail->data + at, data, first);
    memcpy(tail->data, data + first, size - first);
    tail->size += size;
    HP_ASSERT(tail->size <= tail->capacity); /* I1 */
}

uint64_t hp_tail_view(const struct hp_tail *tail, uint64_t from, struct hp_bin ret_part[2])
{
    uint64_t oldest = tail->total - tail->size;
    size_t skip = from <= oldest ? 0 : (size_t)HP_MIN(from - oldest, (uint64_t)tail->size);
    size_t size = tail->size - skip;
    size_t start = tail->capacity == 0 ? 0 : (tail->start + skip) % tail->capacity;
    size_t first = HP_MIN(size, tail->capacity - start);
    ret_part[0] = (struct hp_bin){0};
    ret_part[1] = (struct hp_bin){0};
    if (first > 0) {
        ret_part[0] = hp_bin_make(tail->data + start, first);
    }
    if (size > first) {
        ret_part[1] = hp_bin_make(tail->data, size - first);
    }
    return oldest + skip;
}
