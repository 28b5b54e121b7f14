/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Seeded random numbers (xoshiro256** by Blackman and Vigna, seeded by splitmix64): the same seed
 * gives the same run everywhere. For jitter and tests; never for secrets (common/sys/random.h).
 */
#ifndef HP_BASE_RAND_H
#define HP_BASE_RAND_H

#include <stdbool.h>
#include <stdint.h>

struct hp_rand {
    uint64_t state[4];
};

/* Any seed is fine, 0 too. */
void hp_rand_init(struct hp_rand *rand, uint64_t seed);

/* 64 uniform bits. */
uint64_t hp_rand_next(struct hp_rand *rand);

/* Uniform in [0, n), without bias; n >= 1. */
uint64_t hp_rand_uniform(struct hp_rand *rand, uint64_t n);

/* Uniform in [low, high], both included; low <= high. */
uint64_t hp_rand_between(struct hp_rand *rand, uint64_t low, uint64_t high);

/* True with probability numerator / denominator (denominator >= 1; numerator above it: always). */
bool hp_rand_chance(struct hp_rand *rand, uint64_t numerator, uint64_t denominator);

/* Fills `size` bytes. */
void hp_rand_fill(struct hp_rand *rand, void *data, uint64_t size);

#endif
