/* SPDX-License-Identifier: BSD-2-Clause */
/* Checks and backups: what is under way between two of their slices. Internal to sqlite*.c. */
#ifndef HP_SERVER_STORE_SQLITE_JOB_H
#define HP_SERVER_STORE_SQLITE_JOB_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/base/buf.h"
#include "server/store/sqlite.h"

enum hp_check_phase {
    HP_CHECK_PAGES,
    HP_CHECK_BUCKETS,
    HP_CHECK_TABLES,
    HP_CHECK_BLOBS,
    HP_CHECK_DONE
};

/* The whole database, row by row: SQLite's own check, then every digest, then the blob files. */
struct hp_check {
    enum hp_check_phase phase;
    uint64_t table_index; /* PAGES, TABLES */
    uint64_t bucket;      /* BUCKETS: number */
    bool in_results;      /* BUCKETS: groups, then results */
    uint64_t next;        /* key to go on with; TABLES with two-part keys: the second part */
    uint64_t next_high;   /* the first part */
    struct hp_row_out next_bytes; /* TABLES keyed by bytes: the last key seen */
    bool has_next_bytes;
    uint64_t group_count, task_count, ended_count; /* of the bucket so far */
    uint32_t bucket_changes;                       /* when its scan began */
    uint64_t row_count;
    uint64_t blob_count;
    uint64_t problem_count;
    struct hp_buf lines;
};

void hp_sqlite_check_init(struct hp_check *check);
void hp_sqlite_check_deinit(struct hp_check *check);
/* Works for a slice. Problems found are lines, not errors; an error ends the check. */
enum hp_err hp_sqlite_check_step(struct hp_check *check, struct hp_sqlite *s, uint64_t deadline_us,
                                 struct hp_error *reterr);

struct hp_sqlite_job {
    struct hp_loaded *loaded; /* whose it is; the caller's */
    struct hp_check check;    /* of a backup: the thread's */
    /* BACKUP */
    struct hp_sqlite *copy; /* the new database: connection, statements, paths */
    char *target;           /* the name it gets when it is whole */
    sqlite3_backup *pages;
    const char *blob_dir; /* of the original */
    int fd;               /* the copy's file, for syncs */
    bool made_dir;        /* the target is ours to remove */
    bool has_thread;
    pthread_t thread;
    atomic_bool cancel;
    /* of the thread, to be read once `finished` */
    atomic_bool finished;
    enum hp_err err;
    struct hp_error error;
    uint64_t task_count;
    uint64_t byte_count;
};

/* Begins; then steps until *ret_done. */
enum hp_err hp_backup_start(struct hp_sqlite_job *job, struct hp_sqlite *s,
                            struct hp_error *reterr);
enum hp_err hp_backup_step(struct hp_sqlite_job *job, uint64_t deadline_us, bool *ret_done,
                           struct hp_error *reterr);
/* Ends the thread (a sync under way is waited for), closes the copy; removes it unless `keep`. */
void hp_backup_end(struct hp_sqlite_job *job, bool keep);

/* Removes a half-made copy: what may be in one, and the directory if nothing else is there. */
void hp_backup_remove(const char *dir);
/* Gives a finished copy the mark of a restored database and its name, durably. */
enum hp_err hp_backup_publish(const char *part, const char *target, struct hp_error *reterr);

#endif
