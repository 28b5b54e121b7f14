/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Open addressing with incremental resizing.
 *
 * I1: every entry of a table is reachable from its home slot without crossing an empty slot;
 * removal keeps that by shifting later entries back, and so does the move to the new table, which
 * is a removal at `move_index` followed by an insertion. I2: while moving, slots of `old` below
 * move_index are empty and stay so, because shifting only fills holes and holes appear only at
 * entries. I3: a key is in one table at most. New keys go to `table`. I4: a move is over before the
 * next resize is due: MOVE_STEPS per change is several times what the distance between two resizes
 * needs.
 */
#include "common/base/idmap.h"

#include <stddef.h>

#include "common/base/assert.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

#define CAPACITY_MIN 16u
#define CAPACITY_MAX (UINT32_C(1) << 31)
#define MOVE_STEPS 32u

void hp_idmap_init(struct hp_idmap *map, uint64_t seed)
{
    *map = (struct hp_idmap){.seed = seed};
}

void hp_idmap_deinit(struct hp_idmap *map)
{
    hp_free(map->table.slots);
    hp_free(map->old.slots);
    hp_idmap_init(map, map->seed);
}

uint32_t hp_idmap_count(const struct hp_idmap *map)
{
    return map->table.count + map->old.count + (map->has_zero ? 1 : 0);
}

static uint32_t home_of(const struct hp_idmap *map, const struct hp_idmap_table *table,
                        uint64_t key)
{
    return (uint32_t)hp_hash_u64(key, map->seed) & (table->capacity - 1);
}

/* The slot of a key, or NULL. */
static struct hp_idmap_slot *find_slot(const struct hp_idmap *map,
                                       const struct hp_idmap_table *table, uint64_t key)
{
    if (table->count == 0) {
        return NULL;
    }
    uint32_t mask = table->capacity - 1;
    for (uint32_t i = home_of(map, table, key);; i = (i + 1) & mask) {
        struct hp_idmap_slot *slot = &table->slots[i];
        if (slot->key == key) {
            return slot;
        }
        if (slot->key == 0) {
            return NULL;
        }
    }
}

/* Adds a key known to be absent to a table known to have room. */
static void insert_new(const struct hp_idmap *map, struct hp_idmap_table *table, uint64_t key,
                       uint64_t value)
{
    HP_ASSERT(table->count < table->capacity - 1);
    uint32_t mask = table->capacity - 1;
    uint32_t i = home_of(map, table, key);
    while (table->slots[i].key != 0) {
        i = (i + 1) & mask;
    }
    table->slots[i] = (struct hp_idmap_slot){.key = key, .value = value};
    table->count++;
}

/* Empties slot i and closes the gap (I1). */
static void remove_at(const struct hp_idmap *map, struct hp_idmap_table *table, uint32_t hole)
{
    uint32_t mask = table->capacity - 1;
    for (uint32_t i = (hole + 1) & mask; table->slots[i].key != 0; i = (i + 1) & mask) {
        uint32_t home = home_of(map, table, table->slots[i].key);
        /* An entry may move back to the hole unless its home lies behind the hole. */
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            table->slots[hole] = table->slots[i];
            hole = i;
        }
    }
    table->slots[hole] = (struct hp_idmap_slot){0};
    table->count--;
}

static void move_some(struct hp_idmap *map, uint32_t steps)
{
    struct hp_idmap_table *old = &map->old;
    while (old->capacity > 0 && steps > 0) {
        if (old->count == 0) {
            hp_free(old->slots);
            *old = (struct hp_idmap_table){0};
            return;
        }
        HP_ASSERT(map->move_index < old->capacity); /* I2: entries left, so slots left */
        struct hp_idmap_slot slot = old->slots[map->move_index];
        if (slot.key == 0) {
            map->move_index++;
        } else {
            remove_at(map, old, map->move_index);
            insert_new(map, &map->table, slot.key, slot.value);
        }
        steps--;
    }
}

static enum hp_err start_resize(struct hp_idmap *map, uint32_t capacity)
{
    HP_ASSERT(map->old.capacity == 0);
    struct hp_idmap_slot *slots = hp_calloc(capacity, sizeof(*slots));
    if (slots == NULL) {
        return HP_ERR_NOMEM;
    }
    map->old = map->table;
    map->move_index = 0;
    map->table = (struct hp_idmap_table){.slots = slots, .capacity = capacity};
    if (map->old.count == 0) {
        hp_free(map->old.slots);
        map->old = (struct hp_idmap_table){0};
    }
    return HP_OK;
}

/* Makes room for one more entry in `table`, at most three quarters full. */
static enum hp_err make_room(struct hp_idmap *map)
{
    uint32_t capacity = map->table.capacity;
    uint32_t count = map->table.count + map->old.count;
    if (count + 1 <= capacity / 4 * 3) {
        return HP_OK;
    }
    if (map->old.capacity > 0) {
        move_some(map, UINT32_MAX); /* I4: does not happen; still right if it did */
    }
    if (capacity >= CAPACITY_MAX) {
        return HP_ERR_NOMEM;
    }
    return start_resize(map, HP_MAX(capacity * 2, CAPACITY_MIN));
}

static void maybe_shrink(struct hp_idmap *map)
{
    if (map->table.count + map->old.count == 0 && map->table.capacity > CAPACITY_MIN * 4) {
        hp_free(map->table.slots);
        hp_free(map->old.slots);
        map->table = (struct hp_idmap_table){0};
        map->old = (struct hp_idmap_table){0};
        return;
    }
    if (map->old.capacity == 0 && map->table.capacity > CAPACITY_MIN &&
        map->table.count < map->table.capacity / 8) {
        (void)start_resize(map, map->table.capacity / 2); /* keeping the larger one is fine */
    }
}

bool hp_idmap_find(const struct hp_idmap *map, uint64_t key, uint64_t *ret_value)
{
    const uint64_t *value = NULL;
    if (key == 0) {
        value = map->has_zero ? &map->zero_value : NULL;
    } else {
        const struct hp_idmap_slot *slot = find_slot(map, &map->table, key);
        if (slot == NULL) {
            slot = find_slot(map, &map->old, key);
        }
        value = slot != NULL ? &slot->value : NULL;
    }
    if (value == NULL) {
        return false;
    }
    if (ret_value != NULL) {
        *ret_value = *value;
    }
    return true;
}

void *hp_idmap_find_ptr(const struct hp_idmap *map, uint64_t key)
{
    uint64_t value = 0;
    return hp_idmap_find(map, key, &value) ? (void *)(uintptr_t)value : NULL;
}

enum hp_err hp_idmap_put(struct hp_idmap *map, uint64_t key, uint64_t value)
{
    if (key == 0) {
        map->change_count++;
        map->has_zero = true;
        map->zero_value = value;
        return HP_OK;
    }
    struct hp_idmap_slot *slot = find_slot(map, &map->table, key);
    if (slot == NULL) {
        slot = find_slot(map, &map->old, key);
    }
    if (slot != NULL) {
        slot->value = value;
        return HP_OK;
    }
    enum hp_err err = make_room(map);
    if (err != HP_OK) {
        return err;
    }
    map->change_count++;
    insert_new(map, &map->table, key, value);
    move_some(map, MOVE_STEPS);
    return HP_OK;
}

enum hp_err hp_idmap_put_ptr(struct hp_idmap *map, uint64_t key, void *ptr)
{
    return hp_idmap_put(map, key, (uint64_t)(uintptr_t)ptr);
}

bool hp_idmap_remove(struct hp_idmap *map, uint64_t key, uint64_t *ret_value)
{
    uint64_t value = 0;
    if (!hp_idmap_find(map, key, &value)) {
        return false;
    }
    map->change_count++;
    if (key == 0) {
        map->has_zero = false;
    } else {
        struct hp_idmap_table *table = &map->table;
        struct hp_idmap_slot *slot = find_slot(map, table, key);
        if (slot == NULL) {
            table = &map->old;
            slot = find_slot(map, table, key);
        }
        remove_at(map, table, (uint32_t)(slot - table->slots));
        move_some(map, MOVE_STEPS);
        maybe_shrink(map);
    }
    if (ret_value != NULL) {
        *ret_value = value;
    }
    return true;
}

/* The next entry of one table from iter->index on, or NULL. */
static const struct hp_idmap_slot *next_in(const struct hp_idmap_table *table,
                                           struct hp_idmap_iter *iter)
{
    while (iter->index < table->capacity) {
        const struct hp_idmap_slot *slot = &table->slots[iter->index++];
        if (slot->key != 0) {
            return slot;
        }
    }
    return NULL;
}

static void give(const struct hp_idmap_slot *slot, uint64_t *ret_key, uint64_t *ret_value)
{
    if (ret_key != NULL) {
        *ret_key = slot->key;
    }
    if (ret_value != NULL) {
        *ret_value = slot->value;
    }
}

bool hp_idmap_next(const struct hp_idmap *map, struct hp_idmap_iter *iter, uint64_t *ret_key,
                   uint64_t *ret_value)
{
    if (iter->phase == 0) {
        *iter = (struct hp_idmap_iter){.change_count = map->change_count, .phase = 1};
        if (map->has_zero) {
            give(&(struct hp_idmap_slot){.key = 0, .value = map->zero_value}, ret_key, ret_value);
            return true;
        }
    }
    HP_ASSERT(iter->change_count == map->change_count);
    const struct hp_idmap_slot *slot = NULL;
    if (iter->phase == 1) {
        slot = next_in(&map->table, iter);
        if (slot == NULL) {
            iter->phase = 2;
            iter->index = 0;
        }
    }
    if (slot == NULL) {
        slot = next_in(&map->old, iter);
    }
    if (slot == NULL) {
        return false;
    }
    give(slot, ret_key, ret_value);
    return true;
}
