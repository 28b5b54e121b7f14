/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The rules of a data folder. A broker that finds its database missing must never start as if all
 * were new: every acknowledged task would be gone without a word. So a new database is made only in
 * a folder that is missing or empty, and a folder that once held one is marked.
 */
#ifndef HP_SERVER_DATADIR_H
#define HP_SERVER_DATADIR_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

#define HP_DATADIR_DB "hostpool.db"
#define HP_DATADIR_LOCK "lock"
#define HP_DATADIR_MARK "hostpool.mark"
#define HP_DATADIR_PORT "hostpoold.port"
#define HP_DATADIR_RUNNING "hostpool.running"

struct hp_datadir {
    const char *path; /* borrowed */
    int lock_fd;      /* -1: not held */
    bool is_restored; /* the database is a copy that no broker has run on (server/store/store.h) */
    bool is_new;      /* no database yet: make one, then hp_datadir_mark */
};

/*
 * Makes the folder if it is missing (mode 0700), locks it and looks at it.
 *  HP_ERR_BUSY: another broker has it; the text names its process.
 *  HP_ERR_CORRUPT: the database is missing or empty, but other files say that there was one; or its
 *    log is missing after a stop without order; or the folder holds files that are not hostpool's.
 * The text says what is missing and what to do. Success must be paired with hp_datadir_close.
 */
enum hp_err hp_datadir_open(const char *path, struct hp_datadir *ret_dir,
                            struct hp_error *reterr) HP_MUST_CHECK;

/*
 * Records durably that the database exists and (is_running) that its write-ahead log does. Call
 * after making or opening the database; with is_running false right before closing it.
 */
enum hp_err hp_datadir_mark(struct hp_datadir *dir, bool is_running,
                            struct hp_error *reterr) HP_MUST_CHECK;

/* The copy has been taken into use: its mark goes, durably. */
enum hp_err hp_datadir_unmark_restored(struct hp_datadir *dir,
                                       struct hp_error *reterr) HP_MUST_CHECK;

/* Writes (0: removes) the file that tells the port. */
enum hp_err hp_datadir_put_port(const struct hp_datadir *dir, uint16_t port,
                                struct hp_error *reterr) HP_MUST_CHECK;

/* Releases the lock. An object that was never opened (lock_fd -1) is fine. */
void hp_datadir_close(struct hp_datadir *dir);

#endif
