/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pool of objects of one size, in slabs which never move. An object is named by a handle: its index
 * in the low 32 bits and the generation of its place in the high 32; a handle of a freed object is
 * recognised as stale. 0 is never a handle. Slabs are kept until deinit.
 */
#ifndef HP_BASE_SLOTS_H
#define HP_BASE_SLOTS_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

struct hp_slots_slab;

struct hp_slots {
    struct hp_slots_slab **slabs;
    uint32_t slab_count;
    uint32_t slab_capacity;
    uint32_t object_size; /* bytes, rounded up to 16 */
    uint32_t max;         /* limit of live objects */
    uint32_t count;       /* live objects */
    uint32_t free_head;   /* index + 1 of the first free place; 0: none */
};

/* Makes an empty pool. `object_size` 1 .. 1 MiB; `max` 1 .. 2^31. Allocates nothing. */
void hp_slots_init(struct hp_slots *pool, size_t object_size, uint32_t max);

/* Frees all slabs, live objects included; the pool may be used again. */
void hp_slots_deinit(struct hp_slots *pool);

/*
 * Takes a zeroed object, aligned to 16. *ret_object and *ret_handle (may be NULL).
 * HP_ERR_FULL: `max` objects are live. HP_ERR_NOMEM. Places are reused last-freed first.
 */
enum hp_err hp_slots_alloc(struct hp_slots *pool, void **ret_object,
                          uint64_t *ret_handle) HP_MUST_CHECK;

/* The live object of a handle, or NULL if it is stale or was never given out. O(1). */
void *hp_slots_get(const struct hp_slots *pool, uint64_t handle);

/* The live object at an index, or NULL. */
void *hp_slots_at(const struct hp_slots *pool, uint32_t index);

/* The handle of the live object at an index, or 0. */
uint64_t hp_slots_handle_at(const struct hp_slots *pool, uint32_t index);

/* Gives an object back. HP_ERR_STALE if the handle is not live. */
enum hp_err hp_slots_free(struct hp_slots *pool, uint64_t handle);

/*
 * Steps through live objects by rising index: start with *index = 0; returns the next object and
 * moves *index behind it, or NULL at the end. Freeing the returned object is allowed.
 */
void *hp_slots_next(const struct hp_slots *pool, uint32_t *index, uint64_t *ret_handle);

static inline uint32_t hp_slots_count(const struct hp_slots *pool)
{
    return pool->count;
}

static inline uint32_t hp_pool_index_of(uint64_t handle)
{
    return (uint32_t)handle;
}

#endif
