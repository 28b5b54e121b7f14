/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hash by 64x64 -> 128 bit multiplication, folding both halves: 16 bytes per multiplication, the
 * tail padded with zeros and told apart by the size, which is mixed in first.
 */
#include "common/base/hash.h"

#include <string.h>

#define HASH_ODD_1 UINT64_C(0x9e3779b97f4a7c15) /* golden ratio */
#define HASH_ODD_2 UINT64_C(0xc2b2ae3d27d4eb4f) /* odd, half of its bits set */

__extension__ typedef unsigned __int128 hp_u128;

static uint64_t fold(uint64_t a, uint64_t b)
{
    hp_u128 product = (hp_u128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Little-endian load of 0 .. 8 bytes, so that the value is the same on every host. */
static uint64_t load(const uint8_t *at, size_t size)
{
    if (size == 8) {
        uint64_t value = 0;
        memcpy(&value, at, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        value = __builtin_bswap64(value);
#endif
        return value;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++) {
        value |= (uint64_t)at[i] << (8 * i);
    }
    return value;
}

uint64_t hp_hash_u64(uint64_t value, uint64_t seed)
{
    /* Only invertible steps (xor-shift, odd multiplication), hence a bijection. */
    uint64_t x = value ^ seed;
    x += HASH_ODD_1;
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t hp_hash(const void *data, size_t size, uint64_t seed)
{
    const uint8_t *at = data;
    uint64_t state = hp_hash_u64((uint64_t)size, seed ^ HASH_ODD_2);
    size_t left = size;
    while (left >= 16) {
        state = fold(load(at, 8) ^ state, load(at + 8, 8) ^ HASH_ODD_1) + HASH_ODD_2;
        at += 16;
        left -= 16;
    }
    if (left > 0) {
        size_t low_size = left < 8 ? left : 8;
        uint64_t low = load(at, low_size);
        uint64_t high = left > 8 ? load(at + 8, left - 8) : 0;
        state = fold(low ^ state, high ^ HASH_ODD_1) + HASH_ODD_2;
    }
    return hp_hash_u64(state, seed);
}
