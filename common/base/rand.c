/* SPDX-License-Identifier: BSD-2-Clause */
/* xoshiro256**: Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021. */
#include "common/base/rand.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/hash.h"

static uint64_t rotate_left(uint64_t x, unsigned bits)
{
    return (x << bits) | (x >> (64 - bits));
}

void hp_rand_init(struct hp_rand *rand, uint64_t seed)
{
    for (uint64_t i = 0; i < 4; i++) {
        rand->state[i] = hp_hash_u64(seed + i * UINT64_C(0x9e3779b97f4a7c15), 0);
    }
    if ((rand->state[0] | rand->state[1] | rand->state[2] | rand->state[3]) == 0) {
        rand->state[0] = 1; /* the one state it could not leave */
    }
}

uint64_t hp_rand_next(struct hp_rand *rand)
{
    uint64_t *s = rand->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t hp_rand_uniform(struct hp_rand *rand, uint64_t n)
{
    HP_ASSERT(n > 0);
    uint64_t refused = (0 - n) % n; /* 2^64 mod n: values below it would be one too frequent */
    uint64_t value = hp_rand_next(rand);
    while (value < refused) {
        value = hp_rand_next(rand);
    }
    return value % n;
}

uint64_t hp_rand_between(struct hp_rand *rand, uint64_t low, uint64_t high)
{
    HP_ASSERT(low <= high);
    if (high - low == UINT64_MAX) {
        return hp_rand_next(rand);
    }
    return low + hp_rand_uniform(rand, high - low + 1);
}

bool hp_rand_chance(struct hp_rand *rand, uint64_t numerator, uint64_t denominator)
{
    return hp_rand_uniform(rand, denominator) < numerator;
}

void hp_rand_fill(struct hp_rand *rand, void *data, uint64_t size)
{
    uint8_t *at = data;
    while (size > 0) {
        uint64_t bits = hp_rand_next(rand);
        uint64_t part = size < sizeof(bits) ? size : sizeof(bits);
        memcpy(at, &bits, part);
        at += part;
        size -= part;
    }
}
