/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory with one common end of life: everything of one turn is allocated here and dropped at once.
 * Not for threads. Memory is aligned to 16 bytes and never moves.
 */
#ifndef HP_BASE_ARENA_H
#define HP_BASE_ARENA_H

#include <stddef.h>

#include "common/base/bin.h"
#include "common/base/err.h"

struct hp_arena_chunk;

struct hp_arena {
    struct hp_arena_chunk *first;   /* kept by a reset */
    struct hp_arena_chunk *current; /* the one being filled: last of the list */
    size_t chunk_size;              /* usable bytes of an ordinary chunk */
    size_t max;                     /* limit of the bytes handed out, padding included */
    size_t used;                    /* bytes handed out since the last reset, padding included */
};

/* Makes an empty arena. `chunk_size` 64 .. max; allocates nothing yet. */
void hp_arena_init(struct hp_arena *arena, size_t chunk_size, size_t max);

/* Frees everything; the arena may be used again. */
void hp_arena_deinit(struct hp_arena *arena);

/* Forgets all allocations; keeps the first chunk so that a steady turn never calls malloc. */
void hp_arena_reset(struct hp_arena *arena);

/* `size` uninitialised bytes, valid until reset. NULL: over max, or out of memory. 0 is allowed. */
void *hp_arena_alloc(struct hp_arena *arena, size_t size) HP_MUST_CHECK;

/* `count` * `size` zeroed bytes. NULL: as hp_arena_alloc, or the product overflows. */
void *hp_arena_calloc(struct hp_arena *arena, size_t count, size_t size) HP_MUST_CHECK;

/* Copy of `size` bytes, followed by a NUL which `size` does not count. NULL as hp_arena_alloc. */
void *hp_arena_copy(struct hp_arena *arena, const void *data, size_t size) HP_MUST_CHECK;

/* Copies text or bytes; the view in *ret is valid until reset. HP_ERR_NOMEM, *ret untouched. */
enum hp_err hp_arena_copy_str(struct hp_arena *arena, struct hp_str from,
                              struct hp_str *ret) HP_MUST_CHECK;
enum hp_err hp_arena_copy_bin(struct hp_arena *arena, struct hp_bin from,
                              struct hp_bin *ret) HP_MUST_CHECK;

/* Bytes handed out since the last reset, padding included. */
size_t hp_arena_used(const struct hp_arena *arena);

/* One zeroed object / array of a type, or NULL. */
#define HP_ARENA_NEW(arena, type) ((type *)hp_arena_calloc((arena), 1, sizeof(type)))
#define HP_ARENA_NEW_ARRAY(arena, type, count)                                                     \
    ((type *)hp_arena_calloc((arena), (count), sizeof(type)))

#endif
