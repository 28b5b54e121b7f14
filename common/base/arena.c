/* SPDX-License-Identifier: BSD-2-Clause */
/* Chunked arena. An allocation larger than a chunk gets a chunk of its own size. */
#include "common/base/arena.h"

#include <stdint.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

#define ARENA_ALIGN 16u

struct hp_arena_chunk {
    struct hp_arena_chunk *next;
    size_t size; /* usable bytes */
    size_t used;
    size_t padding; /* keeps `bytes` aligned to 16 */
    uint8_t bytes[];
};

HP_STATIC_ASSERT(sizeof(struct hp_arena_chunk) % ARENA_ALIGN == 0, "chunk bytes are aligned");

void hp_arena_init(struct hp_arena *arena, size_t chunk_size, size_t max)
{
    HP_ASSERT(chunk_size >= 64 && chunk_size <= max);
    HP_ASSERT(max <= SIZE_MAX / 4);
    *arena = (struct hp_arena){.chunk_size = chunk_size & ~(size_t)(ARENA_ALIGN - 1), .max = max};
}

static void free_chunks(struct hp_arena_chunk *chunk)
{
    while (chunk != NULL) {
        struct hp_arena_chunk *next = chunk->next;
        hp_free(chunk);
        chunk = next;
    }
}

void hp_arena_deinit(struct hp_arena *arena)
{
    free_chunks(arena->first);
    arena->first = NULL;
    arena->current = NULL;
    arena->used = 0;
}

void hp_arena_reset(struct hp_arena *arena)
{
    arena->used = 0;
    if (arena->first == NULL) {
        return;
    }
    if (arena->first->size > arena->chunk_size) {
        hp_arena_deinit(arena); /* an oversized first chunk is not worth keeping */
        return;
    }
    free_chunks(arena->first->next);
    arena->first->next = NULL;
    arena->first->used = 0;
    arena->current = arena->first;
}

static struct hp_arena_chunk *add_chunk(struct hp_arena *arena, size_t size)
{
    size_t chunk_size = HP_MAX(size, arena->chunk_size);
    struct hp_arena_chunk *chunk = hp_alloc(sizeof(*chunk) + chunk_size);
    if (chunk == NULL) {
        return NULL;
    }
    chunk->next = NULL;
    chunk->size = chunk_size;
    chunk->used = 0;
    if (arena->current == NULL) {
        arena->first = chunk;
    } else {
        arena->current->next = chunk;
    }
    arena->current = chunk;
    return chunk;
}

void *hp_arena_alloc(struct hp_arena *arena, size_t size)
{
    HP_ASSERT(arena->chunk_size > 0);
    if (size > arena->max) {
        return NULL; /* also keeps the rounding below from overflowing */
    }
    size_t rounded = HP_MAX((size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1), ARENA_ALIGN);
    if (rounded > arena->max || arena->used > arena->max - rounded) {
        return NULL;
    }
    struct hp_arena_chunk *chunk = arena->current;
    if (chunk == NULL || chunk->size - chunk->used < rounded) {
        chunk = add_chunk(arena, rounded);
        if (chunk == NULL) {
            return NULL;
        }
    }
    void *at = chunk->bytes + chunk->used;
    chunk->used += rounded;
    arena->used += rounded;
    return at;
}

void *hp_arena_calloc(struct hp_arena *arena, size_t count, size_t size)
{
    size_t bytes = 0;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        return NULL;
    }
    void *at = hp_arena_alloc(arena, bytes);
    if (at != NULL) {
        memset(at, 0, bytes);
    }
    return at;
}

void *hp_arena_copy(struct hp_arena *arena, const void *data, size_t size)
{
    if (size == SIZE_MAX) {
        return NULL;
    }
    uint8_t *at = hp_arena_alloc(arena, size + 1);
    if (at == NULL) {
        return NULL;
    }
    if (size > 0) {
        memcpy(at, data, size);
    }
    at[size] = 0;
    return at;
}

enum hp_err hp_arena_copy_str(struct hp_arena *arena, struct hp_str from, struct hp_str *ret)
{
    const char *data = hp_arena_copy(arena, from.data, from.size);
    if (data == NULL) {
        return HP_ERR_NOMEM;
    }
    *ret = (struct hp_str){.data = data, .size = from.size};
    return HP_OK;
}

enum hp_err hp_arena_copy_bin(struct hp_arena *arena, struct hp_bin from, struct hp_bin *ret)
{
    const uint8_t *data = hp_arena_copy(arena, from.data, from.size);
    if (data == NULL) {
        return HP_ERR_NOMEM;
    }
    *ret = (struct hp_bin){.data = data, .size = from.size};
    return HP_OK;
}

size_t hp_arena_used(const struct hp_arena *arena)
{
    return arena->used;
}
