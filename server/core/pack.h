/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pack: the payloads of a group in one block, with an index, so that payload i is found without
 * walking the others. Layout, little-endian:
 *   u32 count, u32 flags (1: blob ids present), u32 end_offset[count], u64 blob[count] if flagged,
 * bytes The empty pack (size 0) stands for `count` empty payloads.
 */
#ifndef HP_SERVER_CORE_PACK_H
#define HP_SERVER_CORE_PACK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bin.h"
#include "common/base/err.h"

/* Bytes hp_pack_write will need. `blobs` may be NULL. */
size_t hp_pack_size(const struct hp_bin *payloads, uint32_t count, const uint64_t *blobs);
/* Writes the pack to `out` of hp_pack_size bytes. */
void hp_pack_write(uint8_t *out, const struct hp_bin *payloads, uint32_t count,
                   const uint64_t *blobs);
/* True if `pack` is well-formed for `count` payloads (or empty). Packs from the store are checked
 * once when loaded. */
bool hp_pack_valid(struct hp_bin pack, uint32_t count);
/* Payload and blob id (0: inline) at `index`. */
struct hp_bin hp_pack_payload(struct hp_bin pack, uint32_t index);
uint64_t hp_pack_blob(struct hp_bin pack, uint32_t index);
bool hp_pack_has_blobs(struct hp_bin pack);

#endif
