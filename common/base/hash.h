/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Seeded 64-bit hashes for tables in memory. Same value on every host; not for storage formats (no
 * promise across versions) and not cryptographic. Where peers choose the keys, seed it randomly.
 */
#ifndef HP_BASE_HASH_H
#define HP_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* Hash of `size` bytes at `data` (may be NULL when size is 0). */
uint64_t hp_hash(const void *data, size_t size, uint64_t seed);

/* Hash of one number: a bijection for a given seed, so different numbers never collide. */
uint64_t hp_hash_u64(uint64_t value, uint64_t seed);

#endif
