/* SPDX-License-Identifier: BSD-2-Clause */
/* String map. I1: no chain is empty; a chain without entries is removed from `chains`. */
#include "common/base/strmap.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

struct hp_strmap_entry {
    struct hp_strmap_entry *next; /* other keys of the same hash */
    uint64_t value;
    uint32_t key_size;
    char key[];
};

void hp_strmap_init(struct hp_strmap *map, uint64_t seed)
{
    *map = (struct hp_strmap){.seed = seed};
    hp_idmap_init(&map->chains, seed);
}

static struct hp_str key_of(const struct hp_strmap_entry *entry)
{
    return (struct hp_str){.data = entry->key, .size = entry->key_size};
}

void hp_strmap_deinit(struct hp_strmap *map)
{
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_idmap_next(&map->chains, &iter, NULL, &value)) {
        struct hp_strmap_entry *entry = (struct hp_strmap_entry *)(uintptr_t)value;
        while (entry != NULL) {
            struct hp_strmap_entry *next = entry->next;
            hp_free(entry);
            entry = next;
        }
    }
    hp_idmap_deinit(&map->chains);
    map->count = 0;
}

uint32_t hp_strmap_count(const struct hp_strmap *map)
{
    return map->count;
}

static uint64_t hash_of(const struct hp_strmap *map, struct hp_str key)
{
    return hp_hash(key.data, key.size, map->seed);
}

static struct hp_strmap_entry *find_in_chain(struct hp_strmap_entry *entry, struct hp_str key)
{
    while (entry != NULL && !hp_str_eq(key_of(entry), key)) {
        entry = entry->next;
    }
    return entry;
}

bool hp_strmap_find(const struct hp_strmap *map, struct hp_str key, uint64_t *ret_value)
{
    const struct hp_strmap_entry *entry =
        find_in_chain(hp_idmap_find_ptr(&map->chains, hash_of(map, key)), key);
    if (entry == NULL) {
        return false;
    }
    if (ret_value != NULL) {
        *ret_value = entry->value;
    }
    return true;
}

void *hp_strmap_find_ptr(const struct hp_strmap *map, struct hp_str key)
{
    uint64_t value = 0;
    return hp_strmap_find(map, key, &value) ? (void *)(uintptr_t)value : NULL;
}

enum hp_err hp_strmap_put(struct hp_strmap *map, struct hp_str key, uint64_t value,
                          struct hp_str *ret_key)
{
    uint64_t hash = hash_of(map, key);
    struct hp_strmap_entry *first = hp_idmap_find_ptr(&map->chains, hash);
    struct hp_strmap_entry *entry = find_in_chain(first, key);
    if (entry == NULL) {
        entry = hp_alloc(sizeof(*entry) + key.size);
        if (entry == NULL) {
            return HP_ERR_NOMEM;
        }
        *entry = (struct hp_strmap_entry){.next = first, .key_size = key.size};
        if (key.size > 0) {
            memcpy(entry->key, key.data, key.size);
        }
        enum hp_err err = hp_idmap_put_ptr(&map->chains, hash, entry);
        if (err != HP_OK) {
            hp_free(entry);
            return err;
        }
        map->count++;
    }
    entry->value = value;
    if (ret_key != NULL) {
        *ret_key = key_of(entry);
    }
    return HP_OK;
}

enum hp_err hp_strmap_put_ptr(struct hp_strmap *map, struct hp_str key, void *ptr)
{
    return hp_strmap_put(map, key, (uint64_t)(uintptr_t)ptr, NULL);
}

bool hp_strmap_remove(struct hp_strmap *map, struct hp_str key, uint64_t *ret_value)
{
    uint64_t hash = hash_of(map, key);
    struct hp_strmap_entry *first = hp_idmap_find_ptr(&map->chains, hash);
    struct hp_strmap_entry *entry = find_in_chain(first, key);
    if (entry == NULL) {
        return false;
    }
    if (ret_value != NULL) {
        *ret_value = entry->value;
    }
    if (entry != first) {
        struct hp_strmap_entry *prev = first;
        while (prev->next != entry) {
            prev = prev->next;
        }
        prev->next = entry->next;
    } else if (entry->next != NULL) {
        enum hp_err err = hp_idmap_put_ptr(&map->chains, hash, entry->next);
        HP_ASSERT(err == HP_OK); /* an existing key needs no memory */
    } else {
        (void)hp_idmap_remove(&map->chains, hash, NULL); /* known to be there (I1) */
    }
    hp_free(entry);
    map->count--;
    return true;
}

bool hp_strmap_next(const struct hp_strmap *map, struct hp_strmap_iter *iter,
                    struct hp_str *ret_key, uint64_t *ret_value)
{
    if (iter->entry != NULL) {
        iter->entry = iter->entry->next;
    }
    if (iter->entry == NULL) {
        uint64_t value = 0;
        if (!hp_idmap_next(&map->chains, &iter->chain, NULL, &value)) {
            return false;
        }
        iter->entry = (const struct hp_strmap_entry *)(uintptr_t)value;
    }
    if (ret_key != NULL) {
        *ret_key = key_of(iter->entry);
    }
    if (ret_value != NULL) {
        *ret_value = iter->entry->value;
    }
    return true;
}
