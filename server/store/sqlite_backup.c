/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The online backup. Pages go through SQLite's backup interface in the store's thread, a few
 * between commits (what is changed meanwhile is copied again by SQLite, since the one connection
 * makes all changes). The rest is a thread of its own, which touches nothing but the copy: blob
 * files, linked or copied; a check of all of it; syncs, which take long. Retention rests meanwhile,
 * so what the copy refers to stays.
 *
 * While it is made it is called DIR.part: no broker is ever started on half a copy. It carries the
 * mark of a restored database (store.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
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
#include "server/store/blob_file.h"
#include "server/store/page_sum.h"
#include "server/store/sqlite_job.h"

#define STEP_PAGES 32 /* half a MiB */
#define PART ".part"

static enum hp_err io_error(const char *path, const char *what, struct hp_error *reterr)
{
    int number = errno;
    return hp_error_set(reterr, hp_err_of_errno(number), "%.180s: %s: %s", path, what,
                        strerror(number));
}

/* ------------------------------------------------------------------ begin */
static char *join(const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    char *path = hp_alloc(size);
    if (path != NULL) {
        (void)snprintf(path, size, "%s/%s", dir, name); /* sized for it */
    }
    return path;
}

/* The directory is called `dir`.part until it is whole. */
static enum hp_err make_copy(struct hp_sqlite_job *job, struct hp_bin dir, struct hp_error *reterr)
{
    job->copy = hp_calloc(1, sizeof(*job->copy));
    if (job->copy == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    struct hp_sqlite *copy = job->copy;
    while (dir.size > 1 && dir.data[dir.size - 1] == '/') {
        dir.size--; /* so that DIR.part lies beside it */
    }
    job->target = hp_memdup(dir.data, dir.size);
    copy->dir = hp_alloc(dir.size + sizeof(PART));
    if (job->target != NULL && copy->dir != NULL) {
        (void)snprintf(copy->dir, dir.size + sizeof(PART), "%s" PART, job->target);
        copy->db_path = join(copy->dir, "hostpool.db");
        copy->blob_dir = join(copy->dir, "blobs");
    }
    if (job->target == NULL || copy->db_path == NULL || copy->blob_dir == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    if (job->target[0] != '/' || strlen(job->target) != dir.size) {
        return hp_error_set(reterr, HP_ERR_INVALID, "the path of a backup must be absolute");
    }
    return HP_OK;
}

/* Makes the target: it must be new, so that no older backup is spoilt by a failed one. */
static enum hp_err make_target(struct hp_sqlite_job *job, struct hp_error *reterr)
{
    struct hp_sqlite *copy = job->copy;
    struct stat st;
    if (lstat(job->target, &st) == 0) {
        return hp_error_set(reterr, HP_ERR_EXISTS, "%.180s: exists; a backup needs a new name",
                            job->target);
    }
    hp_backup_remove(copy->dir); /* left by a broker that was killed meanwhile */
    if (mkdir(copy->dir, 0700) != 0) {
        return io_error(copy->dir, "mkdir", reterr);
    }
    job->made_dir = true;
    if (mkdir(copy->blob_dir, 0700) != 0) {
        return io_error(copy->blob_dir, "mkdir", reterr);
    }
    job->fd = open(copy->db_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return job->fd >= 0 ? HP_OK : io_error(copy->db_path, "create", reterr);
}

enum hp_err hp_backup_start(struct hp_sqlite_job *job, struct hp_sqlite *s, struct hp_error *reterr)
{
    job->fd = -1;
    job->blob_dir = s->blob_dir;
    enum hp_err err = make_copy(job, job->loaded->load->text, reterr);
    if (err == HP_OK) {
        err = make_target(job, reterr);
    }
    if (err != HP_OK) {
        return err;
    }
    struct hp_sqlite *copy = job->copy;
    int code = sqlite3_open_v2(copy->db_path, &copy->db,
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                               hp_page_sum_vfs());
    if (code != SQLITE_OK) {
        return hp_sqlite_error(copy, code, "open", reterr);
    }
    /* Nobody reads it before it is whole and synced: no journal, no syncs on the way. */
    err = hp_sqlite_exec(copy,
                         "PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=OFF;"
                         " PRAGMA journal_mode=OFF",
                         reterr);
    if (err != HP_OK) {
        return err;
    }
    code = hp_page_sum_as(copy->db, s->db);
    if (code != SQLITE_OK) {
        return hp_sqlite_error(copy, code, "page checksums", reterr);
    }
    job->pages = sqlite3_backup_init(copy->db, "main", s->db, "main");
    return job->pages != NULL ? HP_OK
                              : hp_sqlite_error(copy, sqlite3_errcode(copy->db), "backup", reterr);
}

/* ------------------------------------------------------------------ blobs */
static enum hp_err copy_blobs(struct hp_sqlite_job *job, struct hp_error *reterr)
{
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = job->copy->stmts[HP_SQL_BLOB_FROM];
    hp_sqlite_bind_u64(stmt, 1, 0);
    for (;;) {
        enum hp_err err = hp_sqlite_step(job->copy, stmt, "read blobs", reterr);
        if (err != HP_OK) {
            return err == HP_ERR_NOT_FOUND ? HP_OK : err;
        }
        if (atomic_load(&job->cancel)) {
            return hp_error_set(reterr, HP_ERR_CANCELLED, NULL);
        }
        uint64_t size = 0;
        err =
            hp_blob_copy(job->blob_dir, job->copy->blob_dir, hp_sqlite_u64(stmt, 0), &size, reterr);
        if (err != HP_OK) {
            return err;
        }
        job->byte_count += size;
    }
}

/* ------------------------------------------------------------------ syncs, removal */
static enum hp_err unlink_listed(void *context, uint64_t blob, bool unfinished, int64_t modified_s,
                                 struct hp_error *reterr)
{
    const char *blob_dir = context;
    char path[HP_BLOB_PATH_BYTES];
    (void)modified_s;
    if (hp_blob_path(blob_dir, blob, unfinished, path, reterr) == HP_OK) {
        (void)unlink(path); /* what stays is seen by the operator */
    }
    return HP_OK;
}

void hp_backup_remove(const char *dir)
{
    static const char *const names[] = {"hostpool.db", "hostpool.db-wal", "hostpool.db-journal",
                                        "ballast", HP_STORE_RESTORED_FILE};
    char blob_dir[HP_BLOB_PATH_BYTES];
    char path[HP_BLOB_PATH_BYTES + 8];
    for (size_t i = 0; i < HP_COUNT_OF(names); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        (void)unlink(path); /* all best effort: the first error is the one to tell */
    }
    (void)snprintf(blob_dir, sizeof(blob_dir), "%s/blobs", dir);
    for (uint32_t folder = 0; folder < HP_BLOB_FOLDERS; folder++) {
        (void)hp_blob_list(blob_dir, folder, unlink_listed, blob_dir, NULL);
        (void)snprintf(path, sizeof(path), "%s/%02x", blob_dir, (unsigned)folder);
        (void)rmdir(path);
    }
    (void)rmdir(blob_dir);
    (void)rmdir(dir);
}

enum hp_err hp_backup_publish(const char *part, const char *target, struct hp_error *reterr)
{
    char path[HP_BLOB_PATH_BYTES];
    static const char text[] =
        "This database is a copy. When hostpoold starts on it, it pauses all queues that hold "
        "tasks: what ended after the copy was made would run again. See docs/operations.md.\n";
    (void)snprintf(path, sizeof(path), "%s/" HP_STORE_RESTORED_FILE, part);
    enum hp_err err = hp_file_write_atomic(path, text, sizeof(text) - 1, 0600, reterr);
    if (err != HP_OK) {
        return err;
    }
    HP_CRASH_POINT("backup.rename.before");
    if (renameat2(AT_FDCWD, part, AT_FDCWD, target, RENAME_NOREPLACE) != 0 &&
        (errno != EINVAL || rename(part, target) != 0)) {
        return io_error(target, "rename", reterr);
    }
    HP_CRASH_POINT("backup.rename.after");
    (void)snprintf(path, sizeof(path), "%s/..", target);
    return hp_dir_fsync(path, reterr);
}

static enum hp_err sync_target(const struct hp_sqlite_job *job, struct hp_error *reterr)
{
    const struct hp_sqlite *copy = job->copy;
    char path[HP_BLOB_PATH_BYTES];
    if (fsync(job->fd) != 0) {
        return io_error(copy->db_path, "fsync", reterr);
    }
    for (uint32_t folder = 0; folder < HP_BLOB_FOLDERS; folder++) {
        (void)snprintf(path, sizeof(path), "%s/%02x", copy->blob_dir, (unsigned)folder);
        if (access(path, F_OK) == 0) {
            enum hp_err err = hp_dir_fsync(path, reterr);
            if (err != HP_OK) {
                return err;
            }
        }
    }
    enum hp_err err = hp_dir_fsync(copy->blob_dir, reterr);
    if (err == HP_OK) {
        err = hp_dir_fsync(copy->dir, reterr);
    }
    return err == HP_OK ? hp_backup_publish(copy->dir, job->target, reterr) : err;
}

/* ------------------------------------------------------------------ thread */
static enum hp_err check_copy(struct hp_sqlite_job *job, struct hp_error *reterr)
{
    struct hp_check *check = &job->check;
    while (check->phase != HP_CHECK_DONE) {
        enum hp_err err = hp_sqlite_check_step(check, job->copy, 0, reterr);
        if (err != HP_OK) {
            return err;
        }
        if (atomic_load(&job->cancel)) {
            return hp_error_set(reterr, HP_ERR_CANCELLED, NULL);
        }
    }
    if (check->problem_count > 0) {
        return hp_error_set(reterr, HP_ERR_CORRUPT,
                            "the copy has %" PRIu64 " damaged rows, as first: %.*s",
                            check->problem_count, (int)HP_MIN(check->lines.size, (size_t)120),
                            (const char *)check->lines.data);
    }
    return HP_OK;
}

static void close_copy(struct hp_sqlite *copy)
{
    hp_sqlite_finalize(copy);
    if (copy->db != NULL) {
        int code = sqlite3_close(copy->db);
        HP_ASSERT(code == SQLITE_OK); /* no statement and no backup is left */
        copy->db = NULL;
    }
}

static void count_copy(struct hp_sqlite_job *job)
{
    struct stat st;
    for (uint32_t i = 0; i < job->copy->bucket_count; i++) {
        job->task_count += job->copy->buckets[i].task_count;
    }
    if (fstat(job->fd, &st) == 0) {
        job->byte_count += (uint64_t)st.st_size;
    }
}

static void *finish_copy(void *context)
{
    struct hp_sqlite_job *job = context;
    struct hp_sqlite *copy = job->copy;
    struct hp_error *reterr = &job->error;
    (void)pthread_setname_np(pthread_self(), "hp-backup"); /* for people only */
    enum hp_err err = hp_sqlite_prepare(copy, reterr);
    if (err == HP_OK) {
        err = hp_sqlite_reload(copy, reterr);
    }
    if (err == HP_OK) {
        err = copy_blobs(job, reterr);
    }
    if (err == HP_OK) {
        err = check_copy(job, reterr);
    }
    count_copy(job);
    close_copy(copy);
    if (err == HP_OK) {
        err = sync_target(job, reterr);
    }
    job->err = err;
    atomic_store(&job->finished, true);
    return NULL;
}

/* ------------------------------------------------------------------ steps */
static enum hp_err start_thread(struct hp_sqlite_job *job, struct hp_error *reterr)
{
    sigset_t all;
    sigset_t old;
    int code = sqlite3_backup_finish(job->pages);
    job->pages = NULL;
    if (code != SQLITE_OK) {
        return hp_sqlite_error(job->copy, code, "backup", reterr);
    }
    (void)sigfillset(&all);                         /* cannot fail */
    (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* arguments are valid */
    int error = pthread_create(&job->thread, NULL, finish_copy, job);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL); /* as before */
    job->has_thread = error == 0;
    return error == 0 ? HP_OK : hp_error_set(reterr, HP_ERR_NOMEM, "no thread for the backup");
}

enum hp_err hp_backup_step(struct hp_sqlite_job *job, uint64_t deadline_us, bool *ret_done,
                           struct hp_error *reterr)
{
    *ret_done = false;
    if (job->has_thread) {
        *ret_done = atomic_load(&job->finished);
        if (*ret_done && job->err != HP_OK) {
            *reterr = job->error;
            return job->err;
        }
        return HP_OK;
    }
    do {
        HP_CRASH_POINT("backup.pages");
        int code = sqlite3_backup_step(job->pages, STEP_PAGES);
        if (code == SQLITE_DONE) {
            return start_thread(job, reterr);
        }
        if (code != SQLITE_OK && code != SQLITE_BUSY && code != SQLITE_LOCKED) {
            return hp_sqlite_error(job->copy, code, "backup", reterr);
        }
    } while (hp_clock_mono_us() < deadline_us);
    /* Starts to write out what is there, so that the sync at the end has little left. */
    (void)sync_file_range(job->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    return HP_OK;
}

void hp_backup_end(struct hp_sqlite_job *job, bool keep)
{
    struct hp_sqlite *copy = HP_TAKE(job->copy);
    if (copy == NULL) {
        return;
    }
    if (job->has_thread) {
        atomic_store(&job->cancel, true);
        int error = pthread_join(job->thread, NULL);
        HP_ASSERT(error == 0);
    }
    if (job->pages != NULL) {
        (void)sqlite3_backup_finish(job->pages); /* given up */
        job->pages = NULL;
    }
    close_copy(copy);
    hp_fd_close(&job->fd);
    if (job->made_dir && !keep) {
        hp_backup_remove(copy->dir);
    }
    hp_row_out_deinit(&copy->out);
    hp_free(HP_TAKE(job->target));
    hp_free(copy->dir);
    hp_free(copy->db_path);
    hp_free(copy->blob_dir);
    hp_free(copy);
}
