/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking at a data folder before anything is opened in it.
 *
 * The mark is written once the database is there, durably and before the first task is accepted. So
 * without a mark an empty database file is what an interrupted first start left, and nothing is
 * lost by making it anew; with a mark it is a loss that only a person may decide about.
 *
 * SQLite removes its log when it closes in order. Missing after a crash it would take the latest
 * commits with it, silently: so a second file says that the log must be there.
 */
#include "server/datadir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/macro.h"
#include "common/sys/file.h"
#include "server/store/store.h"

#define PATH_BYTES 4096
#define FOUND_BYTES 160
#define RUNNING_BYTES_MAX 256
#define LOG_BYTES "Its size: "
#define LOG_BYTES_MAX ((uint64_t)64 << 20) /* SQLite cuts it to this: journal_size_limit */

/* Where SQLite keeps what in the first page. */
enum { USER_VERSION_AT = 60, APPLICATION_AT = 68, CELL_COUNT_AT = 103, BLANK_BYTES = 108 };

struct look {
    bool has_db; /* and it is not empty, nor cut off to next to nothing */
    bool has_empty_db;
    bool is_cut;       /* to a few bytes, which no start leaves */
    bool has_blank_db; /* it has no table: a first start was cut off while it made them */
    bool has_mark;
    bool has_wal;
    bool has_running;
    bool has_restored;
    char left[FOUND_BYTES];    /* names of hostpool's files other than the database */
    char foreign[FOUND_BYTES]; /* names that are not hostpool's */
};

static void path_of(char out[PATH_BYTES], const char *dir, const char *name)
{
    (void)snprintf(out, PATH_BYTES, "%s/%s", dir, name); /* config bounds the length of dir */
}

static void note(char *list, const char *name)
{
    size_t used = strlen(list);
    if (used + strlen(name) + 2 < FOUND_BYTES) {
        (void)snprintf(list + used, FOUND_BYTES - used, "%s%s", used > 0 ? ", " : "", name);
    }
}

static bool is_any(const char *name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* A database without a version, an owner and a table. */
static bool is_blank(const char *path)
{
    static const char magic[16] = "SQLite format 3"; /* with its NUL */
    static const uint8_t zero[4];
    uint8_t header[BLANK_BYTES];
    int fd HP_CLEANUP(hp_fd_close) = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && read(fd, header, sizeof(header)) == (ssize_t)sizeof(header) &&
           memcmp(header, magic, sizeof(magic)) == 0 &&
           memcmp(header + USER_VERSION_AT, zero, 4) == 0 &&
           memcmp(header + APPLICATION_AT, zero, 4) == 0 &&
           memcmp(header + CELL_COUNT_AT, zero, 2) == 0;
}

static void look_at(struct look *look, const char *path, const char *name)
{
    /* By default the state of a worker on this host lies in a folder of ours. */
    static const char *const ignored[] = {".", "..", HP_DATADIR_LOCK, "lost+found", "worker"};
    static const char *const ours[] = {
        HP_DATADIR_DB "-wal", HP_DATADIR_DB "-shm", HP_DATADIR_DB "-journal", "blobs", "ballast",
        HP_DATADIR_PORT,      HP_DATADIR_RUNNING,   HP_STORE_RESTORED_FILE};
    if (is_any(name, ignored, HP_COUNT_OF(ignored))) {
        return;
    }
    char full[PATH_BYTES];
    struct stat st;
    path_of(full, path, name);
    if (strcmp(name, HP_DATADIR_DB) == 0) {
        bool is_empty = stat(full, &st) == 0 && st.st_size < HP_STORE_DB_BYTES_MIN;
        look->has_db = !is_empty;
        look->has_empty_db = is_empty;
        look->is_cut = is_empty && st.st_size > 0;
        look->has_blank_db = !is_empty && is_blank(full);
    } else if (strcmp(name, HP_DATADIR_MARK) == 0) {
        look->has_mark = true;
        note(look->left, name);
    } else if (is_any(name, ours, HP_COUNT_OF(ours))) {
        look->has_wal = look->has_wal || strcmp(name, HP_DATADIR_DB "-wal") == 0;
        look->has_running = look->has_running || strcmp(name, HP_DATADIR_RUNNING) == 0;
        look->has_restored = look->has_restored || strcmp(name, HP_STORE_RESTORED_FILE) == 0;
        note(look->left, name);
    } else {
        note(look->foreign, name);
    }
}

static enum hp_err look_into(const char *path, struct look *look, struct hp_error *reterr)
{
    *look = (struct look){0};
    DIR *handle = opendir(path);
    if (handle == NULL) {
        return hp_error_set(reterr, hp_err_of_errno(errno), "cannot read %.120s: %s", path,
                            strerror(errno));
    }
    const struct dirent *entry = NULL;
    while ((entry = readdir(handle)) != NULL) {
        look_at(look, path, entry->d_name);
    }
    (void)closedir(handle); /* it was only read */
    return HP_OK;
}

/* Clears away what an interrupted first start left: files that never held anything. */
static enum hp_err clear_interrupted(const char *path, struct hp_error *reterr)
{
    static const char *const names[] = {HP_DATADIR_DB, HP_DATADIR_DB "-wal", HP_DATADIR_DB "-shm",
                                        HP_DATADIR_DB "-journal"};
    for (size_t i = 0; i < HP_COUNT_OF(names); i++) {
        char full[PATH_BYTES];
        path_of(full, path, names[i]);
        if (unlink(full) != 0 && errno != ENOENT) {
            return hp_error_set(reterr, HP_ERR_IO, "cannot remove %.120s: %s", full,
                                strerror(errno));
        }
    }
    return HP_OK;
}

static uint64_t size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* The log never gets shorter while a broker runs: then its end was cut off. */
static enum hp_err judge_log(const char *path, struct hp_error *reterr)
{
    char running[PATH_BYTES];
    char wal[PATH_BYTES];
    struct hp_buf text;
    path_of(running, path, HP_DATADIR_RUNNING);
    path_of(wal, path, HP_DATADIR_DB "-wal");
    if (hp_file_read(running, RUNNING_BYTES_MAX, &text, NULL) != HP_OK) {
        return HP_OK; /* it tells nothing then */
    }
    const char *found = memmem(text.data, text.size, LOG_BYTES, strlen(LOG_BYTES));
    uint64_t was = 0;
    for (const char *at = found != NULL ? found + strlen(LOG_BYTES) : NULL;
         at != NULL && at < (const char *)text.data + text.size && *at >= '0' && *at <= '9' &&
         was < UINT32_MAX;
         at++) {
        was = was * 10 + (uint64_t)(*at - '0');
    }
    hp_buf_deinit(&text);
    uint64_t is = size_of(wal);
    if (is >= was) {
        return HP_OK;
    }
    return hp_error_set(reterr, HP_ERR_CORRUPT,
                        "%.100s has %llu bytes and had %llu: the latest commits may be cut off. "
                        "Restore it, see 'hostpool broker recover', or remove %s to go on without "
                        "them",
                        wal, (unsigned long long)is, (unsigned long long)was, HP_DATADIR_RUNNING);
}

static enum hp_err judge(const char *path, struct look *look, bool *ret_is_new,
                         struct hp_error *reterr)
{
    if (look->has_blank_db && !look->has_mark && !look->has_running) {
        look->has_db = false; /* as good as empty: the tables are in a log that never counted */
        look->has_empty_db = true;
    }
    *ret_is_new = !look->has_db;
    if (look->has_db && look->has_running && !look->has_wal) {
        return hp_error_set(reterr, HP_ERR_CORRUPT,
                            "%.70s: %s is missing, though the broker did not stop in order: it "
                            "holds the latest commits. Restore it, or remove %s to go on without "
                            "them",
                            path, HP_DATADIR_DB "-wal", HP_DATADIR_RUNNING);
    }
    if (look->has_db) {
        return look->has_running ? judge_log(path, reterr) : HP_OK;
    }
    const char *what = look->has_empty_db ? "is empty or cut off" : "is missing";
    bool interrupted = look->has_empty_db && !look->is_cut && !look->has_mark;
    if (look->foreign[0] != '\0') {
        return hp_error_set(reterr, HP_ERR_CORRUPT,
                            "%.100s holds other files (%.60s) and no database: give an empty "
                            "folder",
                            path, look->foreign);
    }
    if (interrupted) {
        return clear_interrupted(path, reterr);
    }
    if (look->left[0] != '\0' || look->has_empty_db) {
        return hp_error_set(reterr, HP_ERR_CORRUPT,
                            "%.70s: %s %s, but %.60s %s there: restore a backup, see 'hostpool "
                            "broker recover', or move the folder away to start anew",
                            path, HP_DATADIR_DB, what,
                            look->left[0] != '\0' ? look->left : "an empty file",
                            strchr(look->left, ',') != NULL ? "are" : "is");
    }
    return HP_OK;
}

enum hp_err hp_datadir_open(const char *path, struct hp_datadir *ret_dir, struct hp_error *reterr)
{
    struct hp_datadir dir = {.path = path, .lock_fd = -1};
    enum hp_err err = hp_mkdir_p(path, 0700, reterr);
    if (err != HP_OK) {
        return err;
    }
    char lock[PATH_BYTES];
    path_of(lock, path, HP_DATADIR_LOCK);
    struct hp_error error = {0};
    err = hp_lock_acquire(lock, &dir.lock_fd, &error);
    if (err == HP_ERR_BUSY) {
        return hp_error_set(reterr, err, "another broker uses this data folder: %s", error.text);
    }
    if (err != HP_OK) {
        return hp_error_set(reterr, err, "%s", error.text);
    }
    struct look look;
    err = look_into(path, &look, reterr);
    if (err == HP_OK) {
        err = judge(path, &look, &dir.is_new, reterr);
        dir.is_restored = look.has_restored && !dir.is_new;
    }
    if (err == HP_OK) {
        err = hp_datadir_put_port(&dir, 0, reterr);
    }
    if (err != HP_OK) {
        hp_lock_release(&dir.lock_fd);
        return err;
    }
    *ret_dir = dir;
    return HP_OK;
}

static enum hp_err put_file(const struct hp_datadir *dir, const char *name, const char *text,
                            struct hp_error *reterr)
{
    char path[PATH_BYTES];
    path_of(path, dir->path, name);
    if (access(path, F_OK) == 0) {
        return HP_OK;
    }
    return hp_file_write_atomic(path, text, strlen(text), 0600, reterr);
}

static enum hp_err remove_file(const struct hp_datadir *dir, const char *name,
                               struct hp_error *reterr)
{
    char path[PATH_BYTES];
    path_of(path, dir->path, name);
    if (unlink(path) != 0 && errno != ENOENT) {
        return hp_error_set(reterr, HP_ERR_IO, "cannot remove %.120s: %s", path, strerror(errno));
    }
    return HP_OK;
}

enum hp_err hp_datadir_mark(struct hp_datadir *dir, bool is_running, struct hp_error *reterr)
{
    dir->is_new = false;
    enum hp_err err = put_file(dir, HP_DATADIR_MARK,
                               "This folder holds a hostpool database. If hostpool.db is missing, "
                               "it was lost: hostpoold will not start.\n",
                               reterr);
    if (err != HP_OK) {
        return err;
    }
    if (!is_running) {
        err = remove_file(dir, HP_DATADIR_RUNNING, reterr);
        return err != HP_OK ? err : hp_dir_fsync(dir->path, reterr);
    }
    char path[PATH_BYTES];
    char text[RUNNING_BYTES_MAX];
    path_of(path, dir->path, HP_DATADIR_DB "-wal");
    uint64_t bytes = HP_MIN(size_of(path), LOG_BYTES_MAX);
    int size = snprintf(text, sizeof(text),
                        "A broker runs, or was stopped without order: hostpool.db-wal belongs to "
                        "the database.\n" LOG_BYTES "%llu\n",
                        (unsigned long long)bytes);
    path_of(path, dir->path, HP_DATADIR_RUNNING);
    return hp_file_write_atomic(path, text, (size_t)size, 0600, reterr);
}

enum hp_err hp_datadir_unmark_restored(struct hp_datadir *dir, struct hp_error *reterr)
{
    enum hp_err err = remove_file(dir, HP_STORE_RESTORED_FILE, reterr);
    if (err == HP_OK) {
        err = hp_dir_fsync(dir->path, reterr);
    }
    dir->is_restored = dir->is_restored && err != HP_OK;
    return err;
}

enum hp_err hp_datadir_put_port(const struct hp_datadir *dir, uint16_t port,
                                struct hp_error *reterr)
{
    if (port == 0) {
        return remove_file(dir, HP_DATADIR_PORT, reterr);
    }
    char path[PATH_BYTES];
    char text[8];
    path_of(path, dir->path, HP_DATADIR_PORT);
    int size = snprintf(text, sizeof(text), "%u\n", port);
    return hp_file_write_atomic(path, text, (size_t)size, 0644, reterr);
}

void hp_datadir_close(struct hp_datadir *dir)
{
    hp_lock_release(&dir->lock_fd);
}
