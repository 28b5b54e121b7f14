/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Big-endian numbers at any address. Written byte by byte, which compilers turn into one load and a
 * swap, so there is no question of alignment or host order. `at` must have the room.
 */
#ifndef HP_BASE_ENDIAN_H
#define HP_BASE_ENDIAN_H

#include <stdint.h>

static inline void hp_put_be16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void hp_put_be32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

static inline void hp_put_be64(uint8_t *at, uint64_t value)
{
    hp_put_be32(at, (uint32_t)(value >> 32));
    hp_put_be32(at + 4, (uint32_t)value);
}

static inline uint16_t hp_get_be16(const uint8_t *at)
{
    return (uint16_t)((uint16_t)(at[0] << 8) | at[1]);
}

static inline uint32_t hp_get_be32(const uint8_t *at)
{
    return ((uint32_t)at[0] << 24) | ((uint32_t)at[1] << 16) | ((uint32_t)at[2] << 8) | at[3];
}

static inline uint64_t hp_get_be64(const uint8_t *at)
{
    return ((uint64_t)hp_get_be32(at) << 32) | hp_get_be32(at + 4);
}

#endif
