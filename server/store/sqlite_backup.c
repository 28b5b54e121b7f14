/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The online backup: pages through SQLite's backup interface, a few between commits (what is
 * changed meanwhile is copied again by SQLite, since the one connection makes all changes); then
 * the blob files it refers to, linked or copied; then a check of the copy. Retention rests
 * meanwhile, so what the copy refers to stays. And the steps of CHECK and BACKUP as loads.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"
#include "common/sys/file.h"
#include "server/store/blob_file.h"
#include "server/store/sqlite_job.h"

#define STEP_PAGES 32 /* half a MiB */

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

static enum hp_err make_copy(struct hp_sqlite_job *job, struct hp_bin dir, struct hp_error *reterr)
{
    job->copy = hp_calloc(1, sizeof(*job->copy));
    if (job->copy == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    struct hp_sqlite *copy = job->copy;
    copy->dir = hp_memdup(dir.data, dir.size);
    if (copy->dir != NULL) {
        copy->db_path = join(copy->dir, "hostpool.db");
        copy->blob_dir = join(copy->dir, "blobs");
    }
    if (copy->dir == NULL || copy->db_path == NULL || copy->blob_dir == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    if (copy->dir[0] != '/' || strlen(copy->dir) != dir.size) {
        return hp_error_set(reterr, HP_ERR_INVALID, "the path of a backup must be absolute");
    }
    return HP_OK;
}

/* Makes the target: it must be new, so that no older backup is spoilt by a failed one. */
static enum hp_err make_target(struct hp_sqlite_job *job, struct hp_error *reterr)
{
    struct hp_sqlite *copy = job->copy;
    if (mkdir(copy->dir, 0700) != 0) {
        return io_error(copy->dir, "mkdir", reterr);
    }
    job->made_dir = true;
    if (mkdir(copy->blob_dir, 0700) != 0) {
        return io_error(copy->blob_dir, "mkdir", reterr);
    }
    int fd HP_CLEANUP(hp_fd_close) =
        open(copy->db_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd >= 0 ? HP_OK : io_error(copy->db_path, "create", reterr);
}

enum hp_err hp_backup_start(struct hp_sqlite_job *job, struct hp_sqlite *s, struct hp_error *reterr)
{
    enum hp_err err = make_copy(job, job->loaded->load->text, reterr);
    if (err == HP_OK) {
        err = make_target(job, reterr);
    }
    if (err != HP_OK) {
        return err;
    }
    struct hp_sqlite *copy = job->copy;
    int code =
        sqlite3_open_v2(copy->db_path, &copy->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
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
    job->pages = sqlite3_backup_init(copy->db, "main", s->db, "main");
    return job->pages != NULL ? HP_OK
                              : hp_sqlite_error(copy, sqlite3_errcode(copy->db), "backup", reterr);
}

/* ------------------------------------------------------------------ pages */
static enum hp_err open_copy(struct hp_sqlite_job *job, struct hp_error *reterr)
{
    struct hp_sqlite *copy = job->copy;
    int code = sqlite3_backup_finish(job->pages);
    job->pages = NULL;
    if (code != SQLITE_OK) {
        return hp_sqlite_error(copy, code, "backup", reterr);
    }
    enum hp_err err = hp_sqlite_prepare(copy, reterr);
    if (err == HP_OK) {
        err = hp_sqlite_reload(copy, reterr);
    }
    job->phase = HP_BACKUP_BLOBS;
    return err;
}

static enum hp_err copy_pages(struct hp_sqlite_job *job, struct hp_error *reterr)
{
    int code = sqlite3_backup_step(job->pages, STEP_PAGES);
    if (code == SQLITE_DONE) {
        return open_copy(job, reterr);
    }
    if (code == SQLITE_OK || code == SQLITE_BUSY || code == SQLITE_LOCKED) {
        return HP_OK;
    }
    return hp_sqlite_error(job->copy, code, "backup", reterr);
}

/* ------------------------------------------------------------------ blobs */
static enum hp_err copy_file(const char *from, const char *to, struct hp_error *reterr)
{
    int in HP_CLEANUP(hp_fd_close) = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0) {
        return io_error(from, "open", reterr);
    }
    int out HP_CLEANUP(hp_fd_close) = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0) {
        return io_error(to, "create", reterr);
    }
    for (;;) {
        ssize_t n = sendfile(out, in, NULL, (size_t)1 << 20);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return io_error(to, "write", reterr);
        }
        if (n == 0) {
            break;
        }
    }
    return fsync(out) == 0 ? HP_OK : io_error(to, "fsync", reterr);
}

/* Blob files never change, so a link is as good as a copy where the file system allows it. */
static enum hp_err copy_blob(struct hp_sqlite_job *job, const struct hp_sqlite *s, uint64_t blob,
                             struct hp_error *reterr)
{
    char from[HP_BLOB_PATH_BYTES];
    char to[HP_BLOB_PATH_BYTES];
    char folder[HP_BLOB_PATH_BYTES];
    struct stat st;
    enum hp_err err = hp_blob_path(s->blob_dir, blob, false, from, reterr);
    if (err == HP_OK) {
        err = hp_blob_path(job->copy->blob_dir, blob, false, to, reterr);
    }
    if (err != HP_OK) {
        return err;
    }
    (void)snprintf(folder, sizeof(folder), "%s", to); /* the same size */
    *strrchr(folder, '/') = '\0';
    if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
        return io_error(folder, "mkdir", reterr);
    }
    if (link(from, to) != 0) {
        err = copy_file(from, to, reterr);
    }
    if (err == HP_OK && stat(to, &st) == 0) {
        job->blob_bytes += (uint64_t)st.st_size;
    }
    return err;
}

static enum hp_err copy_blobs(struct hp_sqlite_job *job, const struct hp_sqlite *s,
                              struct hp_error *reterr)
{
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = job->copy->stmts[HP_SQL_BLOB_FROM];
    hp_sqlite_bind_u64(stmt, 1, job->next_blob);
    enum hp_err err = hp_sqlite_step(job->copy, stmt, "read blobs", reterr);
    if (err == HP_ERR_NOT_FOUND) {
        job->phase = HP_BACKUP_CHECK;
        return HP_OK;
    }
    if (err != HP_OK) {
        return err;
    }
    uint64_t blob = hp_sqlite_u64(stmt, 0);
    job->next_blob = blob + 1;
    return copy_blob(job, s, blob, reterr);
}

enum hp_err hp_backup_step(struct hp_sqlite_job *job, struct hp_sqlite *s, uint64_t deadline_us,
                           bool *ret_done, struct hp_error *reterr)
{
    enum hp_err err = HP_OK;
    *ret_done = false;
    do {
        switch (job->phase) {
        case HP_BACKUP_PAGES:
            err = copy_pages(job, reterr);
            break;
        case HP_BACKUP_BLOBS:
            err = copy_blobs(job, s, reterr);
            break;
        case HP_BACKUP_CHECK:
            err = hp_check_step(&job->check, job->copy, deadline_us, reterr);
            *ret_done = job->check.phase == HP_CHECK_DONE;
            break;
        }
    } while (err == HP_OK && !*ret_done && hp_clock_mono_us() < deadline_us);
    if (err == HP_OK && *ret_done && job->check.problem_count > 0) {
        err = hp_error_set(
            reterr, HP_ERR_CORRUPT, "the copy has %" PRIu64 " damaged rows, as first: %.*s",
            job->check.problem_count, (int)HP_MIN(job->check.lines.size, (size_t)120),
            (const char *)job->check.lines.data);
    }
    return err;
}

/* ------------------------------------------------------------------ end */
static enum hp_err unlink_listed(void *context, uint64_t blob, bool unfinished, int64_t modified_s,
                                 struct hp_error *reterr)
{
    const struct hp_sqlite *copy = context;
    char path[HP_BLOB_PATH_BYTES];
    (void)modified_s;
    if (hp_blob_path(copy->blob_dir, blob, unfinished, path, reterr) == HP_OK) {
        (void)unlink(path); /* what stays is seen by the operator */
    }
    return HP_OK;
}

static void remove_target(const struct hp_sqlite *copy)
{
    char path[HP_BLOB_PATH_BYTES];
    (void)unlink(copy->db_path); /* all best effort: the first error is the one to tell */
    for (uint32_t folder = 0; folder < HP_BLOB_FOLDERS; folder++) {
        (void)hp_blob_list(copy->blob_dir, folder, unlink_listed, (void *)(uintptr_t)copy, NULL);
        (void)snprintf(path, sizeof(path), "%s/%02x", copy->blob_dir, (unsigned)folder);
        (void)rmdir(path);
    }
    (void)rmdir(copy->blob_dir);
    (void)rmdir(copy->dir);
}

static enum hp_err sync_target(const struct hp_sqlite *copy, struct hp_error *reterr)
{
    char path[HP_BLOB_PATH_BYTES];
    int fd HP_CLEANUP(hp_fd_close) = open(copy->db_path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
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
    if (err == HP_OK) { /* the name of the directory itself */
        (void)snprintf(path, sizeof(path), "%s/..", copy->dir);
        err = hp_dir_fsync(path, reterr);
    }
    return err;
}

enum hp_err hp_backup_end(struct hp_sqlite_job *job, bool keep, struct hp_error *reterr)
{
    struct hp_sqlite *copy = HP_TAKE(job->copy);
    enum hp_err err = HP_OK;
    if (copy == NULL) {
        return HP_OK;
    }
    if (job->pages != NULL) {
        (void)sqlite3_backup_finish(job->pages); /* given up */
        job->pages = NULL;
    }
    hp_sqlite_finalize(copy);
    if (copy->db != NULL) {
        int code = sqlite3_close(copy->db);
        HP_ASSERT(code == SQLITE_OK); /* no statement and no backup is left */
        copy->db = NULL;
    }
    if (keep) {
        err = sync_target(copy, reterr);
    }
    if (job->made_dir && (!keep || err != HP_OK)) {
        remove_target(copy);
    }
    hp_row_out_deinit(&copy->out);
    hp_free(copy->dir);
    hp_free(copy->db_path);
    hp_free(copy->blob_dir);
    hp_free(copy);
    return err;
}

/* ------------------------------------------------------------------ loads */
void hp_sqlite_job_free(struct hp_sqlite *s)
{
    struct hp_sqlite_job *job = HP_TAKE(s->job);
    if (job != NULL) {
        (void)hp_backup_end(job, false, NULL); /* removed, not kept: nothing to fail */
        hp_check_deinit(&job->check);
        hp_free(job);
    }
}

static enum hp_err begin_job(struct hp_sqlite *s, struct hp_loaded *loaded, struct hp_error *reterr)
{
    s->job = hp_calloc(1, sizeof(*s->job));
    if (s->job == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    s->job->loaded = loaded;
    hp_check_init(&s->job->check);
    return loaded->load->kind == HP_LOAD_BACKUP ? hp_backup_start(s->job, s, reterr) : HP_OK;
}

static enum hp_err finish_check(struct hp_sqlite_job *job, struct hp_answer *answer)
{
    struct hp_check *check = &job->check;
    char text[120];
    (void)snprintf(text, sizeof(text),
                   "%s%s: %" PRIu64 " rows, %" PRIu64 " blobs, %" PRIu64 " problems",
                   check->lines.size > 0 ? "\n" : "", check->problem_count > 0 ? "damaged" : "ok",
                   check->row_count, check->blob_count, check->problem_count);
    enum hp_err err = hp_buf_append(&check->lines, text, strlen(text) + 1);
    answer->loaded->err = check->problem_count > 0 ? HP_ERR_CORRUPT : HP_OK;
    hp_answer_text(answer, err == HP_OK ? (const char *)check->lines.data : text);
    answer->loaded->figures[0] = check->row_count;
    answer->loaded->figures[1] = check->problem_count;
    return HP_OK;
}

static enum hp_err finish_backup(struct hp_sqlite_job *job, struct hp_answer *answer,
                                 struct hp_error *reterr)
{
    struct hp_sqlite *copy = job->copy;
    uint64_t tasks = 0;
    struct stat st;
    char text[160];
    for (uint32_t i = 0; i < copy->bucket_count; i++) {
        tasks += copy->buckets[i].task_count;
    }
    uint64_t bytes = job->blob_bytes;
    if (stat(copy->db_path, &st) == 0) {
        bytes += (uint64_t)st.st_size;
    }
    enum hp_err err = hp_backup_end(job, true, reterr);
    if (err == HP_OK) {
        (void)snprintf(text, sizeof(text),
                       "ok: %" PRIu64 " tasks, %" PRIu64 " bytes, %" PRIu64 " rows verified", tasks,
                       bytes, job->check.row_count);
        hp_answer_text(answer, text);
        answer->loaded->figures[0] = tasks;
        answer->loaded->figures[1] = bytes;
    }
    return err;
}

bool hp_sqlite_job_step(struct hp_sqlite *s, struct hp_answer *answer)
{
    struct hp_loaded *loaded = answer->loaded;
    bool is_backup = loaded->load->kind == HP_LOAD_BACKUP;
    struct hp_error error = {0};
    enum hp_err err = HP_OK;
    bool done = false;
    if (s->job != NULL && s->job->loaded != loaded) {
        hp_answer_fail(answer, HP_ERR_BUSY, "another check or backup is under way");
        return true;
    }
    if (s->job == NULL) {
        err = begin_job(s, loaded, &error);
    } else if (is_backup) {
        err = hp_backup_step(s->job, s, answer->deadline_us, &done, &error);
    } else {
        err = hp_check_step(&s->job->check, s, answer->deadline_us, &error);
        done = s->job->check.phase == HP_CHECK_DONE;
    }
    if (err == HP_OK && done) {
        err = is_backup ? finish_backup(s->job, answer, &error) : finish_check(s->job, answer);
    }
    if (err != HP_OK) {
        hp_answer_fail(answer, err, error.text);
    }
    if (err != HP_OK || done) {
        hp_sqlite_job_free(s);
        return true;
    }
    return false;
}
