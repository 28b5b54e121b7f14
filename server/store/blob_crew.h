/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The threads that make files of what peers give by descriptor (blob_near.h). There is more than
 * one, so that one copies while the disk syncs for another.
 */
#ifndef HP_SERVER_STORE_BLOB_CREW_H
#define HP_SERVER_STORE_BLOB_CREW_H

#include <stdint.h>

#include "common/base/err.h"
#include "server/core/effect.h"

struct hp_blob_crew;

struct hp_blob_job {
    uint64_t blob;
    uint64_t size;
    struct hp_blob_gift gift;
    int memory_fd; /* the gift, reserved in `near`: the owner's; -1: it is not remembered */
    uint64_t digest;
    void *context;         /* the owner's */
    struct hp_error error; /* HP_OK: the file, its name and what it holds are durable */
    struct hp_blob_job *next;
};

struct hp_blob_crew_options {
    const char *blob_dir;                                 /* copied; its folders exist */
    struct hp_blob_near *near;                            /* what may be remembered; or NULL */
    void (*done)(void *context, struct hp_blob_job *job); /* in a thread of the crew; takes it */
    void *context;
};

/* Starts the threads. HP_ERR_NOMEM. */
enum hp_err hp_blob_crew_new(const struct hp_blob_crew_options *options,
                             struct hp_blob_crew **ret_crew, struct hp_error *reterr);
/* Takes a job. */
void hp_blob_crew_put(struct hp_blob_crew *crew, struct hp_blob_job *job);
/* Works off what was put, ends the threads. NULL is fine. */
void hp_blob_crew_free(struct hp_blob_crew *crew);

#endif
