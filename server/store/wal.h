/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The form of SQLite's write-ahead log: a header of 32 bytes, then frames, each a header of 24
 * bytes and a page. Numbers are big-endian. A frame counts if it carries the header's salt and its
 * checksum, which goes on from the frame before it, is right; a transaction if its last frame, with
 * the size of the database in it, does. Internal to server/store.
 */
#ifndef HP_SERVER_STORE_WAL_H
#define HP_SERVER_STORE_WAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/base/endian.h"
#include "common/base/err.h"

#define HP_WAL_HEADER_BYTES 32u
#define HP_WAL_FRAME_BYTES 24u /* without its page */
#define HP_WAL_SALT_BYTES 8u

/* Pairs of words, each in the order of bytes that the log's magic tells. */
static inline void hp_wal_sum(bool big, const uint8_t *data, size_t size, uint32_t sum[2])
{
    for (size_t i = 0; i + 8 <= size; i += 8) {
        uint32_t a = hp_get_be32(data + i);
        uint32_t b = hp_get_be32(data + i + 4);
        sum[0] += (big ? a : __builtin_bswap32(a)) + sum[1];
        sum[1] += (big ? b : __builtin_bswap32(b)) + sum[0];
    }
}

/* A log that was made longer, and nothing was written yet. */
static inline bool hp_wal_is_blank(const uint8_t header[HP_WAL_HEADER_BYTES])
{
    static const uint8_t zeros[HP_WAL_HEADER_BYTES];
    return memcmp(header, zeros, sizeof(zeros)) == 0;
}

/* Is the header's own checksum right? Begins the sum of the frames. */
static inline bool hp_wal_header_is_good(const uint8_t header[HP_WAL_HEADER_BYTES], bool *ret_big,
                                         uint32_t ret_sum[2])
{
    *ret_big = (hp_get_be32(header) & 1) != 0;
    ret_sum[0] = ret_sum[1] = 0;
    hp_wal_sum(*ret_big, header, 24, ret_sum);
    return hp_get_be32(header) >> 1 == 0x377f0682U >> 1 && hp_get_be32(header + 24) == ret_sum[0] &&
           hp_get_be32(header + 28) == ret_sum[1];
}

/* Takes a frame into the sum: true if it counts. */
static inline bool hp_wal_frame_is_good(const uint8_t header[HP_WAL_FRAME_BYTES], bool big,
                                        const uint8_t salt[HP_WAL_SALT_BYTES], const uint8_t *page,
                                        size_t page_bytes, uint32_t sum[2])
{
    if (memcmp(header + 8, salt, HP_WAL_SALT_BYTES) != 0 || hp_get_be32(header) == 0) {
        return false;
    }
    hp_wal_sum(big, header, 8, sum);
    hp_wal_sum(big, page, page_bytes, sum);
    return hp_get_be32(header + 16) == sum[0] && hp_get_be32(header + 20) == sum[1];
}

/*
 * Looks for damage that SQLite takes for the end of the log: a frame that does not count, and
 * behind it two transactions' ends with the log's salt. The first of these was synced before the
 * second was written, so what does not count was acknowledged. HP_ERR_CORRUPT then; HP_OK also if
 * there is no log. (Damage in the last transactions looks like a write that a power cut ended.) To
 * be asked before SQLite has the file; after each recovery the log must be checkpointed, so that it
 * begins anew with another salt and no frame of an earlier crash is mistaken.
 */
enum hp_err hp_wal_check(const char *path, struct hp_error *reterr);
/* The same of an open file; its path is for the text. */
enum hp_err hp_wal_check_fd(int fd, const char *path, struct hp_error *reterr);

#endif
