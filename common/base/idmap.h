/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Map from uint64 to uint64 or pointer: open addressing, linear probing, deletion by backward shift
 * (no tombstones, so it never degrades). It grows and shrinks by moving a bounded number of entries
 * per change, so no single call takes long however many entries there are. Lookups change nothing.
 * Any key and value is allowed.
 */
#ifndef HP_BASE_IDMAP_H
#define HP_BASE_IDMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

struct hp_idmap_slot {
    uint64_t key; /* 0: empty */
    uint64_t value;
};

struct hp_idmap_table {
    struct hp_idmap_slot *slots;
    uint32_t capacity; /* power of two, or 0 */
    uint32_t count;
};

struct hp_idmap {
    struct hp_idmap_table table; /* takes all new entries */
    struct hp_idmap_table old;   /* being emptied into `table`; capacity 0 when at rest */
    uint32_t move_index;         /* slots of `old` below this are empty */
    uint32_t change_count;       /* guards iterations */
    uint64_t seed;
    uint64_t zero_value; /* key 0 marks empty slots, so its entry lives here */
    bool has_zero;
};

/* Position of an iteration; all-zero before the first step. */
struct hp_idmap_iter {
    uint32_t index;
    uint32_t change_count;
    uint8_t phase;
};

/*
 * Makes an empty map; allocates nothing. `seed` mixes into the hash: give a random one where peers
 * choose the keys, a fixed one where runs must repeat exactly.
 */
void hp_idmap_init(struct hp_idmap *map, uint64_t seed);

/* Frees the tables; the map is empty and usable again with the same seed. */
void hp_idmap_deinit(struct hp_idmap *map);

/* Number of entries. */
uint32_t hp_idmap_count(const struct hp_idmap *map);

/* Finds a key; true and *ret_value (may be NULL), or false and *ret_value untouched. */
bool hp_idmap_find(const struct hp_idmap *map, uint64_t key, uint64_t *ret_value);

/* The pointer stored under a key, or NULL. */
void *hp_idmap_find_ptr(const struct hp_idmap *map, uint64_t key);

/* Sets the value of a key, new or not. HP_ERR_NOMEM leaves the map as it was. */
enum hp_err hp_idmap_put(struct hp_idmap *map, uint64_t key, uint64_t value) HP_MUST_CHECK;

/* As hp_idmap_put with a pointer, which the map does not own. */
enum hp_err hp_idmap_put_ptr(struct hp_idmap *map, uint64_t key, void *ptr) HP_MUST_CHECK;

/* Removes a key; true and its value in *ret_value (may be NULL), or false if it is not there. */
bool hp_idmap_remove(struct hp_idmap *map, uint64_t key, uint64_t *ret_value);

/*
 * Steps through all entries in the order of their slots: `struct hp_idmap_iter it = {0}; while
 * (hp_idmap_next(map, &it, &key, &value))`. The order is the same for the same seed and the same
 * history, but has no other meaning: sort where it shows. Changing the map while iterating is
 * asserted against. ret_key and ret_value may be NULL.
 */
bool hp_idmap_next(const struct hp_idmap *map, struct hp_idmap_iter *iter, uint64_t *ret_key,
                   uint64_t *ret_value);

#endif
