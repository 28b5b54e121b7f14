/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The connection: how it is opened, its transactions, its log, its ballast, its end.
 *
 * The log (WAL) is grown once at start and then overwritten: a commit that overwrites allocated
 * blocks syncs in less than half the time of one that appends. It is copied into the database by
 * hand, when there is quiet or when it is long, never inside a commit.
 *
 * The ballast is a file of a few MiB which is freed when the disk is full, so that results and
 * acknowledgements of what runs still find room; it comes back when there is space. On a small disk
 * both are a share of it: else an empty broker would be full of its own reserves.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"
#include "common/sys/crash.h"
#include "common/sys/file.h"
#include "server/store/page_sum.h"
#include "server/store/sqlite.h"
#include "server/store/wal.h"

#define WAL_BYTES_DEFAULT ((uint64_t)16 << 20)
#define BALLAST_BYTES_DEFAULT ((uint64_t)4 << 20)
#define BALLAST_RETRY_MS 1000u
#define BALLAST_BYTES_LEAST ((uint64_t)64 << 10)
#define BALLAST_SHARE 8u /* of what the disk has for us, at most one of so many parts */
#define WAL_SHARE 4u
#define FRAMES_LEAST 8u
#define MIN_SQLITE_VERSION 3035000 /* row values, upsert, strict checks */

/* ------------------------------------------------------------------ process-wide set-up */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void configure_once(void)
{
    /* Costs a mutex per allocation, gives nothing we read. Fails if something used SQLite before;
     * then it stays on, which only costs time. */
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

static enum hp_err check_library(struct hp_error *reterr)
{
    (void)pthread_once(&once, configure_once); /* fails only on an invalid argument */
    if (sqlite3_threadsafe() == 0) {
        return hp_error_set(reterr, HP_ERR_UNSUPPORTED, "SQLite was built without thread support");
    }
    if (sqlite3_libversion_number() < MIN_SQLITE_VERSION) {
        return hp_error_set(reterr, HP_ERR_UNSUPPORTED, "SQLite %s is too old",
                            sqlite3_libversion());
    }
    return HP_OK;
}

/* ------------------------------------------------------------------ paths */
static char *join(const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    char *path = hp_alloc(size);
    if (path != NULL) {
        (void)snprintf(path, size, "%s/%s", dir, name); /* sized for it */
    }
    return path;
}

static enum hp_err make_paths(struct hp_sqlite *s, const char *dir, struct hp_error *reterr)
{
    s->dir = hp_strdup(dir);
    s->db_path = join(dir, "hostpool.db");
    s->wal_path = join(dir, "hostpool.db-wal");
    s->ballast_path = join(dir, "ballast");
    s->blob_dir = join(dir, "blobs");
    if (s->dir == NULL || s->db_path == NULL || s->wal_path == NULL || s->ballast_path == NULL ||
        s->blob_dir == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    return HP_OK;
}

static bool file_size(const char *path, uint64_t *ret_size)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return false;
    }
    *ret_size = (uint64_t)st.st_size;
    return true;
}

/* A missing or empty database is never taken for a new queue: that would lose all tasks quietly. */
static enum hp_err check_files(const struct hp_sqlite *s, bool create, struct hp_error *reterr)
{
    uint64_t size = 0;
    uint64_t wal_size = 0;
    bool has_db = file_size(s->db_path, &size);
    bool has_wal = file_size(s->wal_path, &wal_size);
    if (create) {
        if (has_db || has_wal) {
            return hp_error_set(reterr, HP_ERR_EXISTS, "%s: exists; not made anew",
                                has_db ? s->db_path : s->wal_path);
        }
        return HP_OK;
    }
    if (!has_db) {
        return hp_error_set(reterr, HP_ERR_NOT_FOUND,
                            has_wal
                                ? "%s: missing, but its log is there: restore both from a backup"
                                : "%s: missing; restore a backup, or create a new database",
                            s->db_path);
    }
    if (size < HP_STORE_DB_BYTES_MIN) {
        return hp_error_set(reterr, HP_ERR_CORRUPT,
                            "%s: empty or cut off; restore a backup, or see 'hostpool broker "
                            "recover DIR NEW'",
                            s->db_path);
    }
    return HP_OK;
}

static enum hp_err create_file(struct hp_sqlite *s, struct hp_error *reterr)
{
    int fd HP_CLEANUP(hp_fd_close) = open(s->db_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return hp_error_set(reterr, hp_err_of_errno(errno), "%s: %s", s->db_path, strerror(errno));
    }
    return HP_OK;
}

/* ------------------------------------------------------------------ connection */
static int on_wal(void *context, sqlite3 *db, const char *name, int frames)
{
    struct hp_sqlite *s = context;
    (void)db;
    (void)name;
    s->wal_frames = frames > 0 ? (uint32_t)frames : 0;
    return SQLITE_OK;
}

static enum hp_err set_pragmas(struct hp_sqlite *s, bool create, struct hp_error *reterr)
{
    char page_size[48];
    (void)snprintf(page_size, sizeof(page_size), "PRAGMA page_size=%u", HP_SQLITE_PAGE_BYTES);
    char application[64];
    (void)snprintf(application, sizeof(application), "PRAGMA application_id=%d",
                   HP_SQLITE_APPLICATION_ID);
    const char *const before[] = {
        "PRAGMA locking_mode=EXCLUSIVE", /* before the first access: no shared memory, one owner */
        "PRAGMA trusted_schema=OFF",
        "PRAGMA cell_size_check=ON",
        "PRAGMA mmap_size=0", /* mapped pages turn a read error into SIGBUS */
        "PRAGMA temp_store=MEMORY",
    };
    const char *const after[] = {
        "PRAGMA synchronous=FULL",
        "PRAGMA cache_size=-8192", /* what is changed among 20,000 tasks under way */
        "PRAGMA journal_size_limit=67108864",
    };
    enum hp_err err = HP_OK;
    for (size_t i = 0; err == HP_OK && i < HP_COUNT_OF(before); i++) {
        err = hp_sqlite_exec(s, before[i], reterr);
    }
    if (err == HP_OK && create) {
        err = hp_sqlite_exec(s, page_size, reterr);
    }
    if (err == HP_OK && create && hp_page_sum_reserve(s->db) != SQLITE_OK) {
        err = hp_error_set(reterr, HP_ERR_UNSUPPORTED, "this SQLite reserves no bytes of pages");
    }
    if (err == HP_OK && create) {
        err = hp_sqlite_exec(s, "PRAGMA auto_vacuum=NONE", reterr);
    }
    if (err == HP_OK) {
        err = hp_sqlite_exec(s, "PRAGMA journal_mode=WAL", reterr);
    }
    if (err == HP_OK && create) {
        err = hp_sqlite_exec(s, application, reterr);
    }
    for (size_t i = 0; err == HP_OK && i < HP_COUNT_OF(after); i++) {
        err = hp_sqlite_exec(s, after[i], reterr);
    }
    return err;
}

static enum hp_err connect(struct hp_sqlite *s, bool create, struct hp_error *reterr)
{
    /* I1: the one connection. Opened by main before any thread, used by the store thread only
     * afterwards; nothing else in this process may open this file, not even to read it. */
    int code = sqlite3_open_v2(s->db_path, &s->db,
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                               hp_page_sum_vfs());
    if (code != SQLITE_OK) {
        return hp_sqlite_error(s, code, "open", reterr);
    }
    (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL); /* a guard, no more */
    (void)sqlite3_commit_hook(s->db, hp_sqlite_refuse_commit, s);
    (void)sqlite3_wal_hook(s->db, on_wal, s); /* also switches automatic checkpoints off */
    enum hp_err err = hp_sqlite_register_groups(s, reterr);
    return err == HP_OK ? set_pragmas(s, create, reterr) : err;
}

/* What the promises rest on is asked back, since a pragma that is not understood is no error. */
static enum hp_err verify_settings(struct hp_sqlite *s, struct hp_error *reterr)
{
    uint64_t synchronous = 0;
    uint64_t wal = 0;
    enum hp_err err = hp_sqlite_query_u64(s, "PRAGMA synchronous", &synchronous, reterr);
    if (err == HP_OK) {
        err = hp_sqlite_query_u64(s, "SELECT journal_mode = 'wal' FROM pragma_journal_mode", &wal,
                                  reterr);
    }
    if (err == HP_OK && (synchronous != 2 || wal != 1)) {
        err = hp_error_set(reterr, HP_ERR_UNSUPPORTED,
                           "%s: this SQLite does not do WAL with synchronous=FULL", s->db_path);
    }
    return err;
}

/* ------------------------------------------------------------------ log */
static enum hp_err write_zeros(int fd, uint64_t from, uint64_t to)
{
    static const uint8_t zeros[1 << 16];
    enum hp_err err = HP_OK;
    for (uint64_t at = from; err == HP_OK && at < to;) {
        uint64_t size = HP_MIN(to - at, sizeof(zeros));
        err = lseek(fd, (off_t)at, SEEK_SET) < 0 ? HP_ERR_IO
                                                 : hp_fd_write_all(fd, zeros, (size_t)size);
        at += size;
    }
    return err;
}

/* Zeros behind what is there, which SQLite takes for the log's end. Never frames without a sync:
 * wal_check.c would take them for lost commits after a power cut. (The log's descriptors carry no
 * locks: closing one loses nothing.) */
static enum hp_err grow_wal(struct hp_sqlite *s, uint64_t bytes, struct hp_error *reterr)
{
    uint64_t size = 0;
    if (!file_size(s->wal_path, &size) || size >= bytes) {
        return HP_OK;
    }
    int fd HP_CLEANUP(hp_fd_close) = open(s->wal_path, O_WRONLY | O_CLOEXEC);
    enum hp_err err = fd >= 0 ? write_zeros(fd, size, bytes) : hp_err_of_errno(errno);
    if (err == HP_ERR_NOSPACE && (fd < 0 || ftruncate(fd, (off_t)size) == 0)) {
        return HP_OK; /* then it stays short */
    }
    if (err == HP_ERR_NOSPACE || (err == HP_OK && fdatasync(fd) != 0)) {
        err = HP_ERR_IO;
    }
    return err == HP_OK ? HP_OK : hp_error_set(reterr, err, "%s: grow the log", s->wal_path);
}

/* All of the log is in the database. Were the log read again, up to a damaged frame, its pages
 * would hide newer ones; so a commit that changes nothing begins it anew at once, with another
 * salt. */
static enum hp_err begin_log(struct hp_sqlite *s, struct hp_error *reterr)
{
    enum hp_err err = HP_OK;
    if (!s->pressure) {
        s->meta_dirty = true;
        err = hp_sqlite_begin(s, reterr);
        err = err == HP_OK ? hp_sqlite_commit(s, reterr) : hp_sqlite_abort(s, err, reterr);
    }
    s->wal_frames = 0;                          /* there is nothing to copy */
    return err == HP_ERR_NOSPACE ? HP_OK : err; /* then the next commit does it */
}

enum hp_err hp_sqlite_checkpoint(struct hp_sqlite *s, uint32_t frames, struct hp_error *reterr)
{
    if (s->wal_frames < frames || s->wal_frames == 0) {
        return HP_OK;
    }
    int log_frames = 0;
    int done_frames = 0;
    HP_CRASH_POINT("checkpoint.before");
    int code = sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &log_frames,
                                         &done_frames);
    HP_CRASH_POINT("checkpoint.after");
    if (code == SQLITE_BUSY || code == SQLITE_LOCKED) {
        return HP_OK; /* a backup reads; later */
    }
    if (code != SQLITE_OK) {
        enum hp_err err = hp_sqlite_error(s, code, "checkpoint", reterr);
        if (err != HP_ERR_NOSPACE) {
            return err;
        }
        s->pressure = true; /* the log keeps what could not be copied */
        return HP_OK;
    }
    s->checkpoints++;
    return done_frames == log_frames ? begin_log(s, reterr) : HP_OK;
}

/* ------------------------------------------------------------------ ballast */
static enum hp_err make_ballast(struct hp_sqlite *s)
{
    int fd HP_CLEANUP(hp_fd_close) = open(s->ballast_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return hp_err_of_errno(errno);
    }
    enum hp_err err = hp_fd_preallocate(fd, 0, s->ballast_bytes);
    if (err != HP_OK) {
        (void)unlink(s->ballast_path); /* half a ballast would only take the space */
    }
    return err;
}

static void free_ballast(struct hp_sqlite *s)
{
    s->pressure = true;
    s->ballast_try_ms = hp_clock_mono_ms() + BALLAST_RETRY_MS;
    (void)unlink(s->ballast_path); /* may be gone already */
}

void hp_sqlite_ballast_restore(struct hp_sqlite *s)
{
    uint64_t now_ms = hp_clock_mono_ms();
    uint64_t free_bytes = 0;
    if (!s->pressure || now_ms < s->ballast_try_ms) {
        return;
    }
    s->ballast_try_ms = now_ms + BALLAST_RETRY_MS;
    if (hp_path_free_space(s->dir, NULL, &free_bytes, NULL) == HP_OK &&
        free_bytes >= s->ballast_bytes * 2 && make_ballast(s) == HP_OK) {
        s->pressure = false;
    }
}

/* ------------------------------------------------------------------ transactions */
enum hp_err hp_sqlite_begin(struct hp_sqlite *s, struct hp_error *reterr)
{
    HP_CRASH_POINT("begin.before");
    enum hp_err err = hp_sqlite_run(s, s->stmts[HP_SQL_BEGIN], "begin", reterr);
    HP_CRASH_POINT("begin.after");
    return err == HP_OK && !s->late.on ? hp_late_write(s, reterr) : err;
}

enum hp_err hp_sqlite_commit(struct hp_sqlite *s, struct hp_error *reterr)
{
    enum hp_err err = hp_sqlite_save(s, reterr);
    if (err == HP_OK) {
        HP_CRASH_POINT("commit.before");
        err = hp_sqlite_run(s, s->stmts[HP_SQL_COMMIT], "commit", reterr);
        HP_CRASH_POINT("commit.after");
    }
    if (err != HP_OK) {
        return hp_sqlite_abort(s, err, reterr);
    }
    hp_sqlite_saved(s);
    s->last_commit_ms = hp_clock_mono_ms();
    return HP_OK;
}

enum hp_err hp_sqlite_abort(struct hp_sqlite *s, enum hp_err err, struct hp_error *reterr)
{
    if (sqlite3_get_autocommit(s->db) == 0) {
        (void)hp_sqlite_run(s, s->stmts[HP_SQL_ROLLBACK], "rollback", NULL); /* asked below */
    }
    if (err != HP_ERR_NOSPACE) {
        return err;
    }
    bool was_pressed = s->pressure;
    free_ballast(s);
    if (sqlite3_get_autocommit(s->db) == 0) {
        return hp_error_set(reterr, HP_ERR_IO, "%s: the rollback after a full disk failed",
                            s->db_path);
    }
    /* Where the ballast did not help: a log that is copied is written from its front again. Not
     * before, for what could not be copied whole would have used the ballast up. */
    enum hp_err copied = was_pressed ? hp_sqlite_checkpoint(s, 1, reterr) : HP_OK;
    if (copied != HP_OK) {
        return copied;
    }
    struct hp_error error = {0};
    if (hp_sqlite_reload(s, &error) != HP_OK) {
        return hp_error_set(reterr, HP_ERR_IO, "reload after a full disk: %.200s", error.text);
    }
    return HP_ERR_NOSPACE;
}

/* ------------------------------------------------------------------ idle, figures, end */
enum hp_err hp_sqlite_idle(struct hp_store *store, bool *ret_more, struct hp_error *reterr)
{
    struct hp_sqlite *s = hp_sqlite_of(store);
    uint64_t now_ms = hp_clock_mono_ms();
    *ret_more = false;
    hp_sqlite_ballast_restore(s);
    uint64_t quiet_ms = now_ms - s->last_commit_ms;
    uint32_t frames = quiet_ms >= HP_SQLITE_IDLE_MS    ? 1
                      : quiet_ms >= HP_SQLITE_QUIET_MS ? HP_SQLITE_IDLE_FRAMES
                                                       : s->frames_max;
    enum hp_err err = hp_sqlite_checkpoint(s, frames, reterr);
    if (err != HP_OK) {
        *ret_more = hp_sqlite_forget_wants(s) || s->reap.active;
        return err;
    }
    if (hp_sqlite_forget_wants(s) && s->job == NULL) {
        err = hp_sqlite_forget(s, ret_more, reterr);
        *ret_more = *ret_more || s->reap.active;
        return err;
    }
    if (s->reap.active && s->job == NULL) { /* a backup still needs what it refers to */
        return hp_sqlite_reap(s, ret_more, reterr);
    }
    if (now_ms >= s->sweep_ms) {
        s->sweep_ms = now_ms + HP_SQLITE_SWEEP_MS;
        err = hp_sqlite_sweep_next(s, reterr);
        /* Housekeeping waits for a better time when descriptors or memory are out. */
        return err == HP_ERR_FULL || err == HP_ERR_NOMEM ? HP_OK : err;
    }
    return HP_OK;
}

static void sqlite_figures(struct hp_store *store, struct hp_store_figures *ret_figures)
{
    struct hp_sqlite *s = hp_sqlite_of(store);
    *ret_figures = (struct hp_store_figures){.checkpoints = s->checkpoints,
                                             .reserve_bytes = s->ballast_bytes,
                                             .reaped = s->reaped,
                                             .pressure = s->pressure};
    (void)file_size(s->wal_path, &ret_figures->wal_bytes); /* 0 then */
    (void)file_size(s->db_path, &ret_figures->db_bytes);
    for (uint32_t i = 0; i < s->bucket_count; i++) {
        ret_figures->group_count += s->buckets[i].group_count;
        ret_figures->task_count += s->buckets[i].task_count;
        ret_figures->ended_count += s->buckets[i].ended_count;
    }
}

static void sqlite_close(struct hp_store *store)
{
    struct hp_sqlite *s = hp_sqlite_of(store);
    hp_sqlite_job_free(s);
    hp_sqlite_finalize(s);
    if (s->db != NULL) {
        if (s->keep_log != NULL && atomic_load(s->keep_log)) {
            (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        }
        int code = sqlite3_close(s->db);
        HP_ASSERT(code == SQLITE_OK); /* no statement and no backup is left */
    }
    hp_row_out_deinit(&s->out);
    hp_row_out_deinit(&s->lease_out);
    hp_sqlite_reap_deinit(s);
    hp_sqlite_forget_deinit(s);
    hp_free(s->groups);
    hp_free(s->results);
    hp_free(s->dir);
    hp_free(s->db_path);
    hp_free(s->wal_path);
    hp_free(s->ballast_path);
    hp_free(s->blob_dir);
    hp_free(s);
}

static const struct hp_store_ops sqlite_ops = {
    .name = "sqlite",
    .recover = hp_sqlite_recover,
    .apply = hp_sqlite_apply,
    .load = hp_sqlite_load,
    .idle = hp_sqlite_idle,
    .figures = sqlite_figures,
    .close = sqlite_close,
};

static enum hp_err write_first_meta(struct hp_sqlite *s, struct hp_error *reterr)
{
    s->meta = (struct hp_sqlite_meta){.next_id = 1, .next_blob = 1};
    s->meta_dirty = true;
    enum hp_err err = hp_sqlite_begin(s, reterr);
    return err == HP_OK ? hp_sqlite_commit(s, reterr) : err;
}

static enum hp_err open_database(struct hp_sqlite *s, const struct hp_store_options *options,
                                 struct hp_error *reterr)
{
    enum hp_err err = check_files(s, options->create, reterr);
    if (err == HP_OK && options->create) {
        err = create_file(s, reterr);
    }
    if (err == HP_OK && !options->create) {
        err = hp_wal_check(s->wal_path, reterr);
    }
    if (err == HP_OK) {
        err = connect(s, options->create, reterr);
    }
    if (err == HP_OK) {
        err = hp_sqlite_migrate(s, options->create, reterr);
    }
    if (err == HP_OK && options->create) {
        err = hp_dir_fsync(s->dir, reterr); /* the new file's name must last, too */
    }
    if (err == HP_OK) {
        err = hp_sqlite_prepare(s, reterr);
    }
    if (err == HP_OK && options->create) {
        err = write_first_meta(s, reterr);
    }
    return err == HP_OK ? hp_sqlite_reload(s, reterr) : err;
}

/* Fits the reserves to the disk; *wal_bytes is what was asked for and becomes what may be. */
static void fit_reserves(struct hp_sqlite *s, uint64_t *wal_bytes)
{
    uint64_t free_bytes = 0;
    uint64_t own = 0;
    if (hp_path_free_space(s->dir, NULL, &free_bytes, NULL) != HP_OK) {
        return; /* the writes will tell */
    }
    if (file_size(s->ballast_path, &own)) { /* as sparse as it may be, it is ours */
        free_bytes += own;
    }
    if (file_size(s->wal_path, &own)) {
        free_bytes += own;
    }
    uint64_t ballast = HP_MAX(free_bytes / BALLAST_SHARE, BALLAST_BYTES_LEAST);
    s->ballast_bytes = HP_MIN(s->ballast_bytes, ballast);
    *wal_bytes = HP_MIN(*wal_bytes, free_bytes / WAL_SHARE);
    /* The log goes round within what it has: growing is what a small disk has no room for. */
    uint64_t frames = HP_MAX(*wal_bytes / HP_SQLITE_PAGE_BYTES, (uint64_t)FRAMES_LEAST);
    s->frames_max = (uint32_t)HP_MIN(frames, (uint64_t)HP_SQLITE_CHECKPOINT_FRAMES);
}

static enum hp_err open_all(struct hp_sqlite *s, const struct hp_store_options *options,
                            struct hp_error *reterr)
{
    uint64_t wal_bytes = options->wal_bytes > 0 ? options->wal_bytes : WAL_BYTES_DEFAULT;
    enum hp_err err = make_paths(s, options->dir, reterr);
    if (err == HP_OK) {
        err = check_library(reterr);
    }
    if (err == HP_OK) {
        err = open_database(s, options, reterr);
    }
    if (err == HP_OK) {
        s->opened_next_id = s->meta.next_id;
        s->wal_frames = 1; /* what was recovered: the log begins anew behind it, see wal.h */
        err = hp_sqlite_checkpoint(s, 1, reterr);
    }
    if (err == HP_OK) {
        err = hp_mkdir_p(s->blob_dir, 0700, reterr);
    }
    if (err == HP_OK) {
        err = hp_sqlite_sweep_all(s, reterr);
    }
    if (err == HP_OK) {
        fit_reserves(s, &wal_bytes);
        s->pressure = make_ballast(s) != HP_OK;
        err = grow_wal(s, wal_bytes, reterr);
    }
    if (err == HP_OK) {
        /* The log's name must last. SQLite syncs the folder, too, but goes on if it cannot open it,
         * for want of a descriptor, say. */
        err = hp_dir_fsync(s->dir, reterr);
    }
    return err == HP_OK ? verify_settings(s, reterr) : err;
}

enum hp_err hp_store_sqlite_open(const struct hp_store_options *options,
                                 struct hp_store **ret_store, struct hp_error *reterr)
{
    struct hp_sqlite *s = hp_calloc(1, sizeof(*s));
    if (s == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    s->base.ops = &sqlite_ops;
    s->restored = options->restored;
    s->keep_log = options->keep_log;
    s->reap_slice_us =
        options->reap_slice_us > 0 ? options->reap_slice_us : HP_SQLITE_REAP_SLICE_US;
    s->reap_restless = options->reap_restless;
    s->answer_slice_us =
        options->answer_slice_us > 0 ? options->answer_slice_us : HP_ANSWER_SLICE_US;
    s->frames_max = HP_SQLITE_CHECKPOINT_FRAMES;
    s->ballast_bytes = options->ballast_bytes > 0 ? options->ballast_bytes : BALLAST_BYTES_DEFAULT;
    enum hp_err err = open_all(s, options, reterr);
    if (err != HP_OK) {
        sqlite_close(&s->base);
        return err;
    }
    s->last_commit_ms = hp_clock_mono_ms();
    s->sweep_ms = s->last_commit_ms + HP_SQLITE_SWEEP_MS;
    *ret_store = &s->base;
    return HP_OK;
}
