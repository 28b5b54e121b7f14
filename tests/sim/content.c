/* SPDX-License-Identifier: BSD-2-Clause */
/* Large payloads and results: bytes that follow from a number, so that none need be kept. */
#include <string.h>

#include "common/base/mem.h"
#include "tests/sim/sim.h"

void sim_content_fill(uint8_t *data, size_t size, uint64_t seed)
{
    struct hp_rand rand;
    hp_rand_init(&rand, seed);
    hp_rand_fill(&rand, data, size);
}

bool sim_content_is(const uint8_t *data, size_t size, uint64_t seed)
{
    uint8_t want[512];
    struct hp_rand rand;
    hp_rand_init(&rand, seed);
    for (size_t at = 0; at < size; at += sizeof(want)) {
        size_t part = HP_MIN(size - at, sizeof(want));
        hp_rand_fill(&rand, want, sizeof(want));
        if (memcmp(data + at, want, part) != 0) {
            return false;
        }
    }
    return true;
}

uint64_t sim_content_number(const uint8_t *payload, size_t size)
{
    uint64_t number = 0;
    for (uint32_t i = 0; size >= 8 && i < 8; i++) {
        number |= (uint64_t)payload[i] << (8 * i);
    }
    return number;
}
