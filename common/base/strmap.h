/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Map from byte strings to uint64 (or pointers). Keys are copied. Built on idmap: the hash of the
 * key leads to a chain of entries, nearly always of one; so it grows in the same bounded steps.
 */
#ifndef HP_BASE_STRMAP_H
#define HP_BASE_STRMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bin.h"
#include "common/base/err.h"
#include "common/base/idmap.h"

struct hp_strmap_entry;

struct hp_strmap {
    struct hp_idmap chains; /* hash -> struct hp_strmap_entry * */
    uint64_t seed;
    uint32_t count;
};

struct hp_strmap_iter {
    struct hp_idmap_iter chain;
    const struct hp_strmap_entry *entry;
};

/* Makes an empty map; allocates nothing. `seed`: as hp_idmap_init. */
void hp_strmap_init(struct hp_strmap *map, uint64_t seed);

/* Frees keys and tables; the map is empty and usable again. */
void hp_strmap_deinit(struct hp_strmap *map);

uint32_t hp_strmap_count(const struct hp_strmap *map);

/* Finds a key; true and *ret_value (may be NULL), or false and *ret_value untouched. */
bool hp_strmap_find(const struct hp_strmap *map, struct hp_str key, uint64_t *ret_value);

/* The pointer stored under a key, or NULL. */
void *hp_strmap_find_ptr(const struct hp_strmap *map, struct hp_str key);

/*
 * Sets the value of a key, new or not. *ret_key (may be NULL) is the map's own copy of the key,
 * valid until the key is removed. HP_ERR_NOMEM leaves the map as it was.
 */
enum hp_err hp_strmap_put(struct hp_strmap *map, struct hp_str key, uint64_t value,
                          struct hp_str *ret_key) HP_MUST_CHECK;

/* As hp_strmap_put with a pointer, which the map does not own. */
enum hp_err hp_strmap_put_ptr(struct hp_strmap *map, struct hp_str key, void *ptr) HP_MUST_CHECK;

/* Removes a key; true and its value in *ret_value (may be NULL), or false. */
bool hp_strmap_remove(struct hp_strmap *map, struct hp_str key, uint64_t *ret_value);

/* Steps through all entries; order and rules as hp_idmap_next. ret_x may be NULL. */
bool hp_strmap_next(const struct hp_strmap *map, struct hp_strmap_iter *iter,
                    struct hp_str *ret_key, uint64_t *ret_value);

#endif
