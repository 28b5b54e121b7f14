/* SPDX-License-Identifier: BSD-2-Clause */
/* Packed payloads, see pack.h. */
#include "server/core/pack.h"

#include <string.h>

#include "common/base/assert.h"

enum { PACK_HEAD_BYTES = 8, PACK_FLAG_BLOBS = 1 };

static uint32_t get_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void put_u32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
    at[2] = (uint8_t)(value >> 16);
    at[3] = (uint8_t)(value >> 24);
}

static size_t index_bytes(uint32_t count, bool blobs)
{
    return PACK_HEAD_BYTES + (size_t)count * (blobs ? 12U : 4U);
}

size_t hp_pack_size(const struct hp_bin *payloads, uint32_t count, const uint64_t *blobs)
{
    size_t size = index_bytes(count, blobs != NULL);
    for (uint32_t i = 0; i < count; i++) {
        size += payloads[i].size;
    }
    return size;
}

void hp_pack_write(uint8_t *out, const struct hp_bin *payloads, uint32_t count,
                   const uint64_t *blobs)
{
    put_u32(out, count);
    put_u32(out + 4, blobs != NULL ? PACK_FLAG_BLOBS : 0);
    uint8_t *ends = out + PACK_HEAD_BYTES;
    uint8_t *bytes = out + index_bytes(count, blobs != NULL);
    uint32_t end = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (payloads[i].size > 0) {
            memcpy(bytes + end, payloads[i].data, payloads[i].size);
        }
        end += payloads[i].size;
        put_u32(ends + (size_t)i * 4, end);
    }
    if (blobs != NULL) {
        uint8_t *at = ends + (size_t)count * 4;
        for (uint32_t i = 0; i < count; i++) {
            put_u32(at + (size_t)i * 8, (uint32_t)blobs[i]);
            put_u32(at + (size_t)i * 8 + 4, (uint32_t)(blobs[i] >> 32));
        }
    }
}

bool hp_pack_has_blobs(struct hp_bin pack)
{
    return pack.size > 0 && (get_u32(pack.data + 4) & PACK_FLAG_BLOBS) != 0;
}

bool hp_pack_valid(struct hp_bin pack, uint32_t count)
{
    if (pack.size == 0) {
        return true;
    }
    if (pack.size < PACK_HEAD_BYTES || get_u32(pack.data) != count) {
        return false;
    }
    size_t head = index_bytes(count, hp_pack_has_blobs(pack));
    if (pack.size < head) {
        return false;
    }
    uint32_t before = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t end = get_u32(pack.data + PACK_HEAD_BYTES + (size_t)i * 4);
        if (end < before) {
            return false;
        }
        before = end;
    }
    return head + before == pack.size;
}

struct hp_bin hp_pack_payload(struct hp_bin pack, uint32_t index)
{
    if (pack.size == 0) {
        return (struct hp_bin){.data = NULL, .size = 0};
    }
    uint32_t count = get_u32(pack.data);
    HP_ASSERT(index < count);
    const uint8_t *ends = pack.data + PACK_HEAD_BYTES;
    uint32_t begin = index == 0 ? 0 : get_u32(ends + (size_t)(index - 1) * 4);
    uint32_t end = get_u32(ends + (size_t)index * 4);
    const uint8_t *bytes = pack.data + index_bytes(count, hp_pack_has_blobs(pack));
    return (struct hp_bin){.data = bytes + begin, .size = end - begin};
}

uint64_t hp_pack_blob(struct hp_bin pack, uint32_t index)
{
    if (!hp_pack_has_blobs(pack)) {
        return 0;
    }
    uint32_t count = get_u32(pack.data);
    HP_ASSERT(index < count);
    const uint8_t *at = pack.data + PACK_HEAD_BYTES + (size_t)count * 4 + (size_t)index * 8;
    return (uint64_t)get_u32(at) | (uint64_t)get_u32(at + 4) << 32;
}
