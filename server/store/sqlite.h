/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Inside of the SQLite store. Files: sqlite_open (connection, ballast, log), sqlite_stmt (errors,
 * statements), sqlite_schema (migrations, buckets), sqlite_facts (look-ups of ids), sqlite_apply,
 * sqlite_vtab (its groups as a table), sqlite_recover, sqlite_load, sqlite_lane, sqlite_late (rows
 * left for later), sqlite_reap, sqlite_forget, sqlite_sweep, sqlite_job (loads of many calls):
 * sqlite_check, sqlite_backup.
 *
 *  I1 One connection, ever: the WAL-reset bug of SQLite 3.7.0 to 3.51.2 needs two that write or
 *     checkpoint, and closing any second descriptor of the file would drop the first one's locks.
 *     Backups read through it; nothing else opens the file.
 *  I2 No statement is left unreset between calls of the contract: no read transaction outlives one.
 *  I3 What is in memory (meta, bucket figures) equals what is committed, except inside apply and
 *     reap; a rollback reloads it. A late group (sqlite_late.c) counts in memory before it does in
 *     its bucket's row.
 *  I4 Groups and results of ids with the same id >> 20 share a bucket: tables group_<b>, result_<b>
 *     and one bucket row. Group rows of a bucket do not overlap; nor do result rows.
 */
#ifndef HP_SERVER_STORE_SQLITE_H
#define HP_SERVER_STORE_SQLITE_H

#include <sqlite3.h>

#include "server/store/answer.h"
#include "server/store/row.h"
#include "server/store/store.h"

#define HP_SQLITE_SCHEMA 2
#define HP_SQLITE_APPLICATION_ID 0x68706f6c /* "hpol" */
#define HP_SQLITE_PAGE_BYTES 16384u
#define HP_SQLITE_BUCKET_SHIFT 20u
#define HP_SQLITE_CHECKPOINT_FRAMES 1000u /* 16 MiB of log */
#define HP_SQLITE_IDLE_FRAMES 128u        /* worth a checkpoint as soon as there is quiet */
#define HP_SQLITE_QUIET_MS 2u
#define HP_SQLITE_IDLE_MS 1000u /* any frame is, after this long without a commit */
#define HP_SQLITE_REAP_SLICE_US 4000u
#define HP_SQLITE_SWEEP_MS 2400u /* a folder; all 256 in ten minutes */

/* Statements on fixed tables; their SQL is in sqlite_schema.c. */
enum hp_sql {
    HP_SQL_BEGIN,
    HP_SQL_COMMIT,
    HP_SQL_ROLLBACK,
    HP_SQL_META_GET,
    HP_SQL_META_PUT,
    HP_SQL_LANE_PUT,
    HP_SQL_LANE_CURSOR,
    HP_SQL_LANE_GET,
    HP_SQL_LANE_DEL,
    HP_SQL_LANE_ALL,
    HP_SQL_SEGMENT_PUT,
    HP_SQL_SEGMENT_TRIM,
    HP_SQL_SEGMENT_DEL,
    HP_SQL_SEGMENT_FROM,
    HP_SQL_LEASE_PUT,
    HP_SQL_LEASE_DEL,
    HP_SQL_LEASE_ALL,
    HP_SQL_SIDE_PUT,
    HP_SQL_SIDE_DEL,
    HP_SQL_SIDE_FLOOR,
    HP_SQL_SIDE_FROM,
    HP_SQL_SIDE_AFTER,
    HP_SQL_SIDE_PARKED,
    HP_SQL_SIDE_COUNT,
    HP_SQL_SIDE_REAP,
    HP_SQL_EXPIRY_PUT,
    HP_SQL_EXPIRY_DEL,
    HP_SQL_EXPIRY_AFTER,
    HP_SQL_EXPIRY_COUNT,
    HP_SQL_EXPIRY_REAP,
    HP_SQL_UKEY_PUT,
    HP_SQL_UKEY_DEL,
    HP_SQL_UKEY_ALL,
    HP_SQL_SESSION_SET,
    HP_SQL_SESSION_PUT,
    HP_SQL_SESSION_GET,
    HP_SQL_SESSION_REAP,
    HP_SQL_QUEUE_PUT,
    HP_SQL_QUEUE_ALL,
    HP_SQL_NODE_PUT,
    HP_SQL_NODE_ALL,
    HP_SQL_BLOB_PUT,
    HP_SQL_BLOB_OWNED,
    HP_SQL_BLOB_OWNER_FROM,
    HP_SQL_BLOB_DEL,
    HP_SQL_BLOB_HAS,
    HP_SQL_BLOB_FROM,
    HP_SQL_TOMB_PUT,
    HP_SQL_TOMB_FLOOR,
    HP_SQL_TOMB_FROM,
    HP_SQL_TOMB_DEL,
    HP_SQL_TOMB_REAP,
    HP_SQL_BUCKET_PUT,
    HP_SQL_BUCKET_DEL,
    HP_SQL_BUCKET_ALL,
    HP_SQL_COUNT
};

/* Statements on the tables of a bucket. */
enum hp_bucket_sql {
    HP_BUCKET_GROUP_PUT,    /* those of hp_groups */
    HP_BUCKET_GROUP_FLOOR,  /* first, head */
    HP_BUCKET_GROUP_PACK,   /* pack of one group */
    HP_BUCKET_GROUP_FROM,   /* first, head, upwards */
    HP_BUCKET_GROUP_BEFORE, /* first, head, downwards */
    HP_BUCKET_GROUP_DEL,
    HP_BUCKET_GROUP_DEL_BELOW,
    HP_BUCKET_GROUP_DEL_RANGE,
    HP_BUCKET_RESULT_PUT,
    HP_BUCKET_RESULT_FLOOR, /* first, row, count */
    HP_BUCKET_RESULT_FROM,
    HP_BUCKET_RESULT_DEL,
    HP_BUCKET_SQL_COUNT
};

#define HP_BUCKET_STATE_MIXED 255u

/* Beyond these the lease rows are written and deleted again. */
#define HP_BRIEF_MAX 64u

struct hp_bucket {
    uint64_t number; /* id >> 20 of all its ids */
    /* stored */
    uint64_t group_count;
    uint64_t task_count;
    uint64_t ended_count;
    uint64_t emptied_below; /* a whole bucket being emptied: ids below this are gone; 0: no */
    int64_t expires_max_ms;
    uint32_t state;     /* of all results; 0: none yet; HP_BUCKET_STATE_MIXED */
    uint64_t late_from; /* groups from this id on are late: sqlite_late.c; 0: none is */
    /* in memory */
    bool dirty;
    uint32_t changes;   /* counts what was put in or taken out: lets a check notice */
    int64_t reap_at_ms; /* nothing to reap before; 0 at start: not known */
    sqlite3_stmt *stmts[HP_BUCKET_SQL_COUNT]; /* NULL: not prepared yet */
};

struct hp_sqlite_meta {
    uint64_t epoch;
    uint64_t next_id;
    uint64_t next_blob;
    uint64_t grace_ms;
    uint64_t last_batch;
};

/* Ids [first, end). */
struct hp_span {
    uint64_t first;
    uint64_t end;
};

/* A tombstone. Its states are (count, state) pairs, varints. */
struct hp_tomb {
    uint64_t first;
    uint32_t count;
    int64_t until_ms;
    struct hp_bin states;
};

#define HP_REAP_UNLINK_MAX 64u

/* A retention pass: through the buckets, then tombstones, then sessions; sqlite_reap.c. */
enum hp_reap_phase { HP_REAP_BUCKETS, HP_REAP_TOMBS, HP_REAP_SESSIONS };
struct hp_reap {
    bool active;
    bool keep_sessions;
    int64_t wall_ms;
    enum hp_reap_phase phase;
    /* the bucket being scanned */
    bool in_bucket;
    uint64_t bucket;      /* its number, or the next to look at */
    uint64_t next_first;  /* go on with the group at or after this (TOMBS: the tombstone) */
    uint64_t gap_first;   /* ids from here to the next kept group have no group: their results go */
    uint64_t gap_done;    /* flushing the gap: done up to here */
    uint64_t gap_end;     /* flushing the gap: to here; 0: not flushing */
    int64_t found_ms;     /* earliest time something may expire */
    uint32_t kept_streak; /* ended groups in a row that have not expired */
    uint64_t spent_us;
    /* the group being looked at */
    bool in_group;
    struct hp_span group;
    uint64_t group_at; /* ids below have ended and expired */
    struct hp_row_out group_states;
    /* of the open transaction */
    struct hp_tomb tomb; /* count 0: none; grows over neighbours, written at its end */
    struct hp_row_out tomb_states;
    uint64_t unlink[HP_REAP_UNLINK_MAX]; /* blob files to go once it is durable */
    uint32_t unlink_count;
    uint64_t task_count;
};

/* Ranges of ids, gathered in any order. */
struct hp_spans {
    struct hp_span *items;
    uint32_t count;
    uint32_t capacity;
};

/* What clients forgot: sqlite_forget.c. In memory only. */
struct hp_forget {
    struct hp_spans todo;  /* as they came */
    uint32_t done;         /* of these, in commits; the next one's `first` is the cursor */
    struct hp_spans parts; /* ended and forgotten parts of groups that stay; sorted, apart */
};

#define HP_LATE_MAX 64u

/* A group whose segment, cursor and figures are not written yet. */
struct hp_late_run {
    uint64_t first;
    uint32_t count;
    uint32_t lane;
    int64_t since_ms;
    uint64_t segment; /* its number, and the lane's cursor behind it */
    uint64_t head;
    uint64_t ready;
};

struct hp_late {
    struct hp_late_run runs[HP_LATE_MAX]; /* rising */
    uint32_t count;
    uint32_t fresh; /* behind those: of the open transaction */
    bool on;        /* the open transaction leaves its own to a later one */
    bool written;   /* the open transaction writes them */
};

struct hp_sqlite_job; /* a check or a backup under way: sqlite_job.h */

struct hp_sqlite {
    struct hp_store base;
    sqlite3 *db;
    char *dir, *db_path, *wal_path, *ballast_path, *blob_dir;
    bool is_inside; /* a statement runs inside a transaction: it must not commit by itself */
    const atomic_bool *keep_log; /* see hp_store_options; may be NULL */
    uint64_t ballast_bytes;
    uint64_t reap_slice_us, answer_slice_us;
    bool reap_restless;
    uint64_t opened_next_id; /* ids below are not given out by this process */
    sqlite3_stmt *stmts[HP_SQL_COUNT];
    struct hp_bucket *buckets; /* by number, rising */
    uint32_t bucket_count;
    uint32_t bucket_capacity;
    struct hp_sqlite_meta meta;
    bool meta_dirty;
    uint32_t wal_frames;     /* since the last checkpoint */
    uint32_t frames_max;     /* a checkpoint is due, whatever else there is to do */
    uint64_t last_commit_ms; /* monotonic */
    uint64_t ballast_try_ms;
    uint64_t sweep_ms; /* monotonic: next sweep of a blob folder */
    uint32_t sweep_folder;
    uint64_t checkpoints;
    uint64_t reaped;
    bool pressure;
    bool restored;                /* a copy, started for the first time */
    struct hp_row_out out;        /* scratch of one row */
    struct hp_row_out lease_out;  /* the lease row of the batch being applied */
    uint64_t brief[HP_BRIEF_MAX]; /* batches whose leases begin and end in this transaction */
    uint32_t brief_count;
    const struct hp_op **groups; /* of the transaction being applied */
    uint32_t group_count;
    uint32_t group_capacity;
    uint32_t group_from, group_to; /* what the virtual table shows of them */
    const struct hp_result **results;
    uint32_t result_count;
    uint32_t result_capacity;
    struct hp_reap reap;
    struct hp_forget forget;
    struct hp_late late;
    struct hp_sqlite_job *job;
};

static inline struct hp_sqlite *hp_sqlite_of(struct hp_store *store)
{
    return (struct hp_sqlite *)(void *)store; /* base is first */
}

/* ------------------------------------------------------------------ errors, statements */
/* The hp_err of an SQLite code; text names file, action, SQLite's words and what to run. */
enum hp_err hp_sqlite_error(struct hp_sqlite *s, int code, const char *action,
                            struct hp_error *reterr);
/* HP_ERR_CORRUPT for a row that failed its digest. */
enum hp_err hp_sqlite_damaged(struct hp_sqlite *s, const char *table, uint64_t key,
                              struct hp_error *reterr);
/* Runs SQL without rows. */
enum hp_err hp_sqlite_exec(struct hp_sqlite *s, const char *sql, struct hp_error *reterr);
/* First column of the first row of a query, as a number. */
enum hp_err hp_sqlite_query_u64(struct hp_sqlite *s, const char *sql, uint64_t *ret_value,
                                struct hp_error *reterr);

void hp_sqlite_bind_u64(sqlite3_stmt *stmt, int index, uint64_t value);
/* The bytes are not copied: they must live until the statement is reset. */
void hp_sqlite_bind_bin(sqlite3_stmt *stmt, int index, struct hp_bin bin);
void hp_sqlite_bind_row(sqlite3_stmt *stmt, int index, const struct hp_row_out *out);
/*
 * A hook of SQLite's. Out of memory while it undoes a statement that met a new schema, it drops the
 * whole transaction, runs the statement again as one of its own, and would commit that.
 */
int hp_sqlite_refuse_commit(void *context);
/* Steps a statement without rows and resets it. */
enum hp_err hp_sqlite_run(struct hp_sqlite *s, sqlite3_stmt *stmt, const char *action,
                          struct hp_error *reterr);
/* One row: HP_OK; none: HP_ERR_NOT_FOUND, without text. The caller resets (hp_sqlite_reset). */
enum hp_err hp_sqlite_step(struct hp_sqlite *s, sqlite3_stmt *stmt, const char *action,
                           struct hp_error *reterr);
void hp_sqlite_reset(sqlite3_stmt *stmt);
/* For HP_CLEANUP of a statement in use. */
void hp_sqlite_reset_ptr(sqlite3_stmt **stmt);
struct hp_bin hp_sqlite_bin(sqlite3_stmt *stmt, int column);
uint64_t hp_sqlite_u64(sqlite3_stmt *stmt, int column);

/* ------------------------------------------------------------------ schema, buckets */
enum hp_err hp_sqlite_migrate(struct hp_sqlite *s, bool create, struct hp_error *reterr);
enum hp_err hp_sqlite_prepare(struct hp_sqlite *s, struct hp_error *reterr);
void hp_sqlite_finalize(struct hp_sqlite *s);
/* Reads meta and bucket rows into memory, dropping what is there. */
enum hp_err hp_sqlite_reload(struct hp_sqlite *s, struct hp_error *reterr);
/* Writes meta and the changed bucket rows; inside a transaction. */
enum hp_err hp_sqlite_save(struct hp_sqlite *s, struct hp_error *reterr);
void hp_sqlite_saved(struct hp_sqlite *s);

/* NULL: there is none. Valid until the next hp_sqlite_bucket_make / _remove / _reload. */
struct hp_bucket *hp_sqlite_bucket(struct hp_sqlite *s, uint64_t id);
/* Index of the first bucket with number >= `number`. */
uint32_t hp_sqlite_bucket_index(const struct hp_sqlite *s, uint64_t number);
enum hp_err hp_sqlite_bucket_make(struct hp_sqlite *s, uint64_t id, struct hp_bucket **ret_bucket,
                                  struct hp_error *reterr);
/* Drops its (empty) tables and its row; inside a transaction. */
enum hp_err hp_sqlite_bucket_remove(struct hp_sqlite *s, struct hp_bucket *bucket,
                                    struct hp_error *reterr);
enum hp_err hp_sqlite_bucket_stmt(struct hp_sqlite *s, struct hp_bucket *bucket,
                                  enum hp_bucket_sql sql, sqlite3_stmt **ret_stmt,
                                  struct hp_error *reterr);

/* ------------------------------------------------------------------ late rows */
/* Whether a transaction of these may leave what follows from their groups for later. */
bool hp_late_fits(struct hp_sqlite *s, struct hp_batch *const *batches, uint32_t count);
/* Writes all, inside a transaction; bucket rows with the others (hp_sqlite_save). */
enum hp_err hp_late_write(struct hp_sqlite *s, struct hp_error *reterr);
/* After the commit: they are written, or some more are late. */
void hp_late_saved(struct hp_sqlite *s);
/* Finds what is late on the disk; the figures of buckets then count it. */
enum hp_err hp_late_find(struct hp_sqlite *s, struct hp_error *reterr);
/* Of sqlite_apply.c: the rows of these ops. */
enum hp_err hp_sqlite_put_lane(struct hp_sqlite *s, const struct hp_op *op,
                               struct hp_error *reterr);
enum hp_err hp_sqlite_put_segment(struct hp_sqlite *s, const struct hp_op *op,
                                  struct hp_error *reterr);

/* ------------------------------------------------------------------ transactions */
/* Also writes what is late, unless late.on. */
enum hp_err hp_sqlite_begin(struct hp_sqlite *s, struct hp_error *reterr);
/* Saves meta and buckets, commits. After an error the transaction is rolled back (see below). */
enum hp_err hp_sqlite_commit(struct hp_sqlite *s, struct hp_error *reterr);
/* Rolls back after `err` and reloads. HP_ERR_NOSPACE if `err` is that and all is well again (the
 * ballast is freed then); else an error that must end the process. */
enum hp_err hp_sqlite_abort(struct hp_sqlite *s, enum hp_err err, struct hp_error *reterr);
/* Copies the log into the database if it holds at least `frames`. A full disk is not an error. */
enum hp_err hp_sqlite_checkpoint(struct hp_sqlite *s, uint32_t frames, struct hp_error *reterr);
/* Makes the ballast file again if there is room for it. */
void hp_sqlite_ballast_restore(struct hp_sqlite *s);

/* Makes the virtual table hp_groups. */
enum hp_err hp_sqlite_register_groups(struct hp_sqlite *s, struct hp_error *reterr);

/* ------------------------------------------------------------------ facts about ids */
/*
 * Looks ids up, remembering the rows found and the gaps between them, so that neighbours cost
 * nothing. Lives within one call of the contract: what it remembers grows old with the next commit.
 */
struct hp_facts_range {
    uint64_t first;
    uint64_t end;    /* ids in [first, end) share the answer; empty: nothing remembered */
    enum hp_err err; /* HP_OK: a row; HP_ERR_NOT_FOUND: a gap; HP_ERR_CORRUPT: a damaged row */
};
struct hp_facts {
    struct hp_sqlite *s;
    struct hp_facts_range group_range, result_range, side_range;
    struct hp_group_head group;
    struct hp_row_out group_bytes;
    struct hp_result *results; /* items of the run in result_range; one if it is uniform */
    bool result_uniform;
    int64_t result_expires_ms;
    struct hp_row_out result_bytes;
    struct hp_side side;
};
void hp_facts_init(struct hp_facts *facts, struct hp_sqlite *s);
void hp_facts_deinit(struct hp_facts *facts);
/* HP_OK, HP_ERR_NOT_FOUND, HP_ERR_CORRUPT (this row; the range says which ids), else it is over.
 * What they point to is valid until the next call of the same function. */
enum hp_err hp_facts_group(struct hp_facts *facts, uint64_t id,
                           const struct hp_group_head **ret_head, struct hp_error *reterr);
enum hp_err hp_facts_result(struct hp_facts *facts, uint64_t id, struct hp_result *ret_result,
                            struct hp_error *reterr);
enum hp_err hp_facts_side(struct hp_facts *facts, uint64_t id, struct hp_side *ret_side,
                          struct hp_error *reterr);

void hp_tomb_put(struct hp_row_out *out, const struct hp_tomb *tomb);
bool hp_tomb_get(struct hp_bin row, uint64_t first, struct hp_tomb *ret_tomb);
/* The state a reaped task ended in. HP_ERR_NOT_FOUND. */
enum hp_err hp_sqlite_tomb(struct hp_sqlite *s, uint64_t id, uint32_t *ret_state,
                           struct hp_error *reterr);

void hp_spans_deinit(struct hp_spans *spans);
enum hp_err hp_spans_add(struct hp_spans *spans, uint64_t first, uint64_t end,
                         struct hp_error *reterr);
void hp_spans_sort(struct hp_spans *spans);

/* ------------------------------------------------------------------ the rest of the contract */
enum hp_err hp_sqlite_recover(struct hp_store *store, hp_record_fn *fn, void *context,
                              struct hp_error *reterr);
enum hp_err hp_sqlite_apply(struct hp_store *store, struct hp_batch *const *batches, uint32_t count,
                            struct hp_error *reterr);
bool hp_sqlite_load(struct hp_store *store, struct hp_loaded *loaded);
enum hp_err hp_sqlite_idle(struct hp_store *store, bool *ret_more, struct hp_error *reterr);

enum hp_err hp_sqlite_load_lane(struct hp_sqlite *s, struct hp_answer *answer,
                                struct hp_error *reterr);

/* Retention: sets its clock and begins a pass unless one is under way; then slices. */
void hp_sqlite_reap_start(struct hp_sqlite *s, const struct hp_op *op);
void hp_sqlite_reap_deinit(struct hp_sqlite *s);
enum hp_err hp_sqlite_reap(struct hp_sqlite *s, bool *ret_more, struct hp_error *reterr);

/* Its parts, for sqlite_forget.c; all but _begin, _committed and _skip inside a transaction. */
#define HP_SQLITE_STATES_BYTES_MAX ((size_t)16 << 10)
void hp_sqlite_reap_begin(struct hp_sqlite *s);
enum hp_err hp_sqlite_reap_end(struct hp_sqlite *s, struct hp_error *reterr);
void hp_sqlite_reap_committed(struct hp_sqlite *s);
/* Groups in these ids are gone: a pass that is at one of them goes on behind it. */
void hp_sqlite_reap_skip(struct hp_sqlite *s, struct hp_span ids);
/* Adds ids and their (count, state) pairs to the growing tombstone, or begins another. */
enum hp_err hp_sqlite_bury(struct hp_sqlite *s, uint64_t first, uint64_t end,
                           const struct hp_row_out *states, struct hp_error *reterr);
/* Deletes references to blobs of [first, end); false in *ret_all: as many as a slice may, go on
 * in the next. */
enum hp_err hp_sqlite_reap_blobs(struct hp_sqlite *s, uint64_t first, uint64_t end, bool *ret_all,
                                 struct hp_error *reterr);
enum hp_err hp_sqlite_reap_sides(struct hp_sqlite *s, uint64_t first, uint64_t end,
                                 struct hp_error *reterr);
enum hp_err hp_sqlite_reap_results(struct hp_sqlite *s, struct hp_bucket *bucket, uint64_t first,
                                   uint64_t end, struct hp_error *reterr);

/* Takes note of a FORGET op; then slices. */
void hp_sqlite_forget_add(struct hp_sqlite *s, const struct hp_op *op);
bool hp_sqlite_forget_wants(const struct hp_sqlite *s);
enum hp_err hp_sqlite_forget(struct hp_sqlite *s, bool *ret_more, struct hp_error *reterr);
/* At start: forgets blobs of tasks that have no row. */
enum hp_err hp_sqlite_forget_lost(struct hp_sqlite *s, struct hp_error *reterr);
void hp_sqlite_forget_deinit(struct hp_sqlite *s);

/* One step of a CHECK or BACKUP; true: through. */
bool hp_sqlite_job_step(struct hp_sqlite *s, struct hp_answer *answer);
/* Gives up what is under way; a half-made backup is removed. */
void hp_sqlite_job_free(struct hp_sqlite *s);

/* Removes the file of a blob; a missing one is fine. Not synced: the sweep finds what stays. */
void hp_sqlite_unlink_blob(struct hp_sqlite *s, uint64_t blob);
/* Removes blob files without a reference: at start all; later, a folder at a time, those older than
 * an hour. */
enum hp_err hp_sqlite_sweep_all(struct hp_sqlite *s, struct hp_error *reterr);
enum hp_err hp_sqlite_sweep_next(struct hp_sqlite *s, struct hp_error *reterr);

#endif
