/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Slab pool. I1: a generation is odd while its place is live, so no handle is 0 and a freed place
 * never matches a handle. A handle could match again only after 2^31 reuses of one place.
 * I2: the free list holds exactly the places of existing slabs with an even generation.
 */
#include "common/base/slots.h"

#include <stdbool.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

#define SLAB_OBJECTS 256u
#define POOL_ALIGN 16u

struct hp_slots_slab {
    uint32_t generations[SLAB_OBJECTS];
    uint32_t next_free[SLAB_OBJECTS]; /* index + 1; valid while the place is free */
    uint8_t objects[];                /* aligned to 16: both arrays are multiples of it */
};

HP_STATIC_ASSERT(sizeof(struct hp_slots_slab) % POOL_ALIGN == 0, "objects are aligned");

void hp_slots_init(struct hp_slots *pool, size_t object_size, uint32_t max)
{
    HP_ASSERT(object_size > 0 && object_size <= (1u << 20));
    HP_ASSERT(max > 0 && max <= (UINT32_C(1) << 31));
    uint32_t rounded = ((uint32_t)object_size + POOL_ALIGN - 1) & ~(POOL_ALIGN - 1);
    *pool = (struct hp_slots){.object_size = rounded, .max = max};
}

void hp_slots_deinit(struct hp_slots *pool)
{
    for (uint32_t i = 0; i < pool->slab_count; i++) {
        hp_free(pool->slabs[i]);
    }
    hp_free(pool->slabs);
    *pool = (struct hp_slots){.object_size = pool->object_size, .max = pool->max};
}

static struct hp_slots_slab *slab_of(const struct hp_slots *pool, uint32_t index)
{
    return pool->slabs[index / SLAB_OBJECTS];
}

static uint8_t *object_of(const struct hp_slots *pool, uint32_t index)
{
    size_t place = index % SLAB_OBJECTS;
    return slab_of(pool, index)->objects + place * pool->object_size;
}

static enum hp_err add_slab(struct hp_slots *pool)
{
    if (pool->slab_count == pool->slab_capacity) {
        uint32_t capacity = HP_MAX(pool->slab_capacity * 2, 8);
        struct hp_slots_slab **slabs =
            hp_realloc_array(pool->slabs, capacity, sizeof(struct hp_slots_slab *));
        if (slabs == NULL) {
            return HP_ERR_NOMEM;
        }
        pool->slabs = slabs;
        pool->slab_capacity = capacity;
    }
    struct hp_slots_slab *slab = hp_alloc(sizeof(*slab) + (size_t)SLAB_OBJECTS * pool->object_size);
    if (slab == NULL) {
        return HP_ERR_NOMEM;
    }
    uint32_t first = pool->slab_count * SLAB_OBJECTS;
    for (uint32_t i = 0; i < SLAB_OBJECTS; i++) {
        slab->generations[i] = 0;
        slab->next_free[i] = i + 1 < SLAB_OBJECTS ? first + i + 2 : pool->free_head;
    }
    pool->free_head = first + 1;
    pool->slabs[pool->slab_count] = slab;
    pool->slab_count++;
    return HP_OK;
}

enum hp_err hp_slots_alloc(struct hp_slots *pool, void **ret_object, uint64_t *ret_handle)
{
    HP_ASSERT(pool->object_size > 0);
    if (pool->count >= pool->max) {
        return HP_ERR_FULL;
    }
    if (pool->free_head == 0) {
        enum hp_err err = add_slab(pool);
        if (err != HP_OK) {
            return err;
        }
    }
    uint32_t index = pool->free_head - 1;
    struct hp_slots_slab *slab = slab_of(pool, index);
    uint32_t place = index % SLAB_OBJECTS;
    HP_ASSERT((slab->generations[place] & 1) == 0); /* I2 */
    pool->free_head = slab->next_free[place];
    slab->generations[place]++;
    pool->count++;
    void *object = object_of(pool, index);
    memset(object, 0, pool->object_size);
    *ret_object = object;
    if (ret_handle != NULL) {
        *ret_handle = (uint64_t)slab->generations[place] << 32 | index;
    }
    return HP_OK;
}

uint64_t hp_slots_handle_at(const struct hp_slots *pool, uint32_t index)
{
    if (index / SLAB_OBJECTS >= pool->slab_count) {
        return 0;
    }
    uint32_t generation = slab_of(pool, index)->generations[index % SLAB_OBJECTS];
    return (generation & 1) != 0 ? (uint64_t)generation << 32 | index : 0;
}

void *hp_slots_at(const struct hp_slots *pool, uint32_t index)
{
    return hp_slots_handle_at(pool, index) != 0 ? object_of(pool, index) : NULL;
}

void *hp_slots_get(const struct hp_slots *pool, uint64_t handle)
{
    uint32_t index = hp_pool_index_of(handle);
    bool is_live = handle != 0 && hp_slots_handle_at(pool, index) == handle;
    return is_live ? object_of(pool, index) : NULL;
}

enum hp_err hp_slots_free(struct hp_slots *pool, uint64_t handle)
{
    if (hp_slots_get(pool, handle) == NULL) {
        return HP_ERR_STALE;
    }
    uint32_t index = hp_pool_index_of(handle);
    struct hp_slots_slab *slab = slab_of(pool, index);
    uint32_t place = index % SLAB_OBJECTS;
    slab->generations[place]++;
    slab->next_free[place] = pool->free_head;
    pool->free_head = index + 1;
    HP_ASSERT(pool->count > 0);
    pool->count--;
    return HP_OK;
}

void *hp_slots_next(const struct hp_slots *pool, uint32_t *index, uint64_t *ret_handle)
{
    while (*index / SLAB_OBJECTS < pool->slab_count) {
        uint32_t at = *index;
        *index = at + 1;
        uint64_t handle = hp_slots_handle_at(pool, at);
        if (handle != 0) {
            if (ret_handle != NULL) {
                *ret_handle = handle;
            }
            return object_of(pool, at);
        }
    }
    return NULL;
}
