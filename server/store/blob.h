/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The blob thread: large payloads and results as files beside the database, written and read in
 * chunks. A blob is written once, in order, and is durable before its last PUT is answered; the
 * core's BLOB op then ties it to a task, and retention removes it with the task. What is never tied
 * is swept after an hour; what was not finished, at the next start.
 *
 * Answers of one blob come in the order of its requests. All calls but `wake` are for one thread.
 *
 * PUT: chunks come in order, offset 0 first; the last one ends at the size given to OPEN and should
 * carry the digest (XXH3 64 of the whole), which is compared: HP_ERR_CORRUPT drops the upload. A
 * chunk that was written before is answered again with `size` = written so far, so a chunk may be
 * repeated after a lost reply; a gap is HP_ERR_STALE, with `size` as well. HP_ERR_NOT_FOUND: no
 * such upload (broker restarted, or idle too long): open anew.
 * GET: at most `size` bytes from `offset`, checked against their digest (HP_ERR_CORRUPT).
 * GIVE: a whole blob out of a peer's memory file, made a file by threads of its own (blob_crew.h),
 * or kept until DROP (blob_near.h). LEND: a descriptor of a blob. HP_ERR_UNSUPPORTED of both: the
 * blob is to go by PUT and GET.
 */
#ifndef HP_SERVER_STORE_BLOB_H
#define HP_SERVER_STORE_BLOB_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "server/core/effect.h"

#define HP_BLOB_SIZE_MAX ((uint64_t)1 << 30)
#define HP_BLOB_CHUNK_MAX ((uint32_t)256 << 10)

struct hp_blobs;

/* An answer: the fields of the HP_EVENT_BLOB_* event to be made of it. */
struct hp_blob_answer {
    enum hp_blob_verb verb; /* OPEN -> BLOB_OPENED, PUT -> BLOB_PUT, ...; never DROP */
    uint64_t conn;
    uint32_t msgid;
    uint64_t blob;
    enum hp_err err;
    char text[HP_ERROR_TEXT_BYTES]; /* with err */
    uint64_t size;                  /* PUT: written so far; GET, LEND: of the whole blob */
    uint64_t digest;                /* GET, LEND, and the last PUT: of the whole */
    bool has_digest;                /* LEND */
    struct hp_blob_place place;     /* LEND */
    struct hp_bin data;             /* GET; freed with the answer */
    bool last;                      /* PUT, GIVE of a file: whole and durable */
    struct hp_blob_answer *next;
};

struct hp_blobs_options {
    const char *dir;             /* data directory; blobs/ is made in it; copied */
    void (*wake)(void *context); /* as of the store thread */
    void *context;
    uint64_t queue_bytes_max; /* data of waiting PUTs; above it PUTs get HP_ERR_BUSY; 0: 64 MiB */
    uint32_t near_files_max;  /* descriptors kept and lent; 0: GIVE and LEND are unsupported */
};

/* Starts the thread. */
enum hp_err hp_blobs_new(const struct hp_blobs_options *options, struct hp_blobs **ret_blobs,
                         struct hp_error *reterr);

/* Hands an HP_EFFECT_BLOB over. Copies what it needs; the effect stays the caller's. */
void hp_blobs_submit(struct hp_blobs *blobs, const struct hp_effect *effect);

/* The finished answers in order, linked by next, or NULL. The caller frees each. */
struct hp_blob_answer *hp_blobs_take(struct hp_blobs *blobs);
void hp_blob_answer_free(struct hp_blob_answer *answer);

/* Works off what was submitted, drops unfinished uploads, ends the thread, frees all. NULL is fine.
 */
void hp_blobs_free(struct hp_blobs *blobs);

#endif
