/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The worker's spool: results that the broker has not acknowledged, on disk, so that they outlive
 * the daemon and the host's power.
 *
 * One file, `spool` in the state directory: a head, then frames that are only appended:
 *
 *     u32 magic, u8 kind (1 record, 2 acknowledgement), 3 zero bytes, u64 id, u64 size,
 *     16 bytes boot id, `size` bytes, u64 XXH3-64 of all before it in the frame
 *
 * S1 After hp_spool_sync has returned HP_OK all records appended before are read again by any later
 *    hp_spool_open, in their order, until their acknowledgement is.
 * S2 A torn or damaged frame ends the file: it and what follows is cut off at the next open. Only
 * what was never synced can be torn. S3 An acknowledgement may be lost with the power: its record
 * then comes again, and the broker refuses it as stale. S4 After a failed fsync nothing is written
 * any more (the kernel may have dropped the pages): every later sync fails.
 *
 * One thread. The owner holds the lock of the directory.
 */
#ifndef HP_WORKER_SPOOL_H
#define HP_WORKER_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bin.h"
#include "common/base/err.h"

#define HP_SPOOL_BOOT_BYTES 16u

struct hp_spool;

struct hp_spool_stats {
    uint64_t live_count; /* records not acknowledged */
    uint64_t file_bytes; /* size of the file */
    uint64_t cut_bytes;  /* cut off a torn end when it was opened */
    uint64_t sync_count;
    uint64_t compact_count; /* times the file was made anew or emptied */
};

/*
 * Opens or makes the spool in the existing directory `dir` and reports its unacknowledged records
 * (`found` may be NULL; `record` is valid during the call). `boot` goes into all records appended.
 * HP_ERR_CORRUPT: the file is no spool (it is left as it is); HP_ERR_IO, HP_ERR_NOSPACE,
 * HP_ERR_DENIED, HP_ERR_NOMEM.
 */
enum hp_err
hp_spool_open(const char *dir, const uint8_t boot[HP_SPOOL_BOOT_BYTES],
              void (*found)(void *context, uint64_t id, const uint8_t boot[HP_SPOOL_BOOT_BYTES],
                            struct hp_bin record),
              void *context, struct hp_spool **ret_spool, struct hp_error *reterr) HP_MUST_CHECK;

/* Closes without a sync; NULL is fine. */
void hp_spool_close(struct hp_spool *spool);

/*
 * Queues a record; ids must rise, from above those that were found at the open. It is durable after
 * the next hp_spool_sync. HP_ERR_NOMEM, HP_ERR_TOO_BIG (4 GiB): nothing was queued.
 */
enum hp_err hp_spool_append(struct hp_spool *spool, uint64_t id,
                            struct hp_bin record) HP_MUST_CHECK;

/* Queues an acknowledgement; unknown ids are fine. Written with the next sync or flush. */
void hp_spool_ack(struct hp_spool *spool, uint64_t id);

/*
 * Writes what is queued and makes it durable. On an error the queue is dropped: its records are not
 * in the spool (HP_ERR_NOSPACE: the next ones may be; HP_ERR_IO: nothing will be, S4).
 */
enum hp_err hp_spool_sync(struct hp_spool *spool, struct hp_error *reterr) HP_MUST_CHECK;

/* Writes queued acknowledgements without waiting for the disk; empties or compacts the file if due.
 */
void hp_spool_flush(struct hp_spool *spool);

void hp_spool_get_stats(const struct hp_spool *spool, struct hp_spool_stats *ret_stats);

#endif
