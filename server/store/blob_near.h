/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Blobs handed over by descriptor: taking what peers give, the blobs that are kept in memory as
 * peers gave them, and the descriptors that are lent to peers. See common/sys/near.h.
 *
 * Nothing of a peer is opened but memory: no other file system is asked, so none can make a thread
 * wait. A table is for one thread, the blob thread; what else is for any says so.
 */
#ifndef HP_SERVER_STORE_BLOB_NEAR_H
#define HP_SERVER_STORE_BLOB_NEAR_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "server/core/effect.h"

/* The device of the system's memory files. HP_ERR_NOMEM, HP_ERR_FULL, HP_ERR_UNSUPPORTED. */
enum hp_err hp_blob_gift_device(uint64_t *ret_device) HP_MUST_CHECK;

/* Opens and checks what a peer gives. HP_ERR_UNSUPPORTED, whatever the reason. */
enum hp_err hp_blob_gift_open(const struct hp_blob_gift *gift, uint64_t size, uint64_t device,
                              int *ret_fd, struct hp_error *reterr) HP_MUST_CHECK;

struct hp_blob_near;

/* file_count_max: descriptors it may hold; 0: it refuses all. NULL: out of memory. */
struct hp_blob_near *hp_blob_near_new(const char *blob_dir, uint32_t file_count_max);
void hp_blob_near_free(struct hp_blob_near *near); /* NULL is fine */

/* Keeps a gift as the blob `id`. HP_ERR_UNSUPPORTED, also when there are too many. */
enum hp_err hp_blob_near_keep(struct hp_blob_near *near, uint64_t id, uint64_t size,
                              const struct hp_blob_gift *gift, struct hp_error *reterr);
/* What is not kept is fine. */
void hp_blob_near_drop(struct hp_blob_near *near, uint64_t id);

/*
 * What is a file now, and still in the memory that it was given in, is lent from there: for 60 s,
 * or 10 s from the last loan, or until others need the room. May a gift of that size be remembered?
 * Then it has to be: `remember`, or `unreserve`. From any thread.
 */
bool hp_blob_near_reserve(struct hp_blob_near *near, uint64_t size);
void hp_blob_near_unreserve(struct hp_blob_near *near, uint64_t size);
/* Takes the descriptor of a reserved gift over; its id is that of a whole file. */
void hp_blob_near_remember(struct hp_blob_near *near, uint64_t id, uint64_t size, uint64_t digest,
                           int fd, uint64_t now_ms);

/* As hp_blob_read, for what is kept or remembered; HP_ERR_NOT_FOUND for what is not. */
enum hp_err hp_blob_near_read(struct hp_blob_near *near, uint64_t id, uint64_t offset,
                              uint32_t size, void *out, uint32_t *ret_size, uint64_t *ret_blob_size,
                              uint64_t *ret_digest, struct hp_error *reterr);

struct hp_blob_loan {
    struct hp_blob_place place;
    uint64_t size;
    uint64_t digest;
    bool has_digest; /* a file's */
};

/*
 * A descriptor for a blob, kept, remembered or file, which stays open for 10 s after the last loan,
 * or less if there are too many.
 * HP_ERR_NOT_FOUND, HP_ERR_CORRUPT; HP_ERR_UNSUPPORTED for all that blob.get might get over.
 */
enum hp_err hp_blob_near_lend(struct hp_blob_near *near, uint64_t id, uint64_t now_ms,
                              struct hp_blob_loan *ret_loan, struct hp_error *reterr);

/* Closes what was lent long ago. Returns when it wants to be called again; UINT64_MAX: never. */
uint64_t hp_blob_near_expire(struct hp_blob_near *near, uint64_t now_ms);

#endif
