/* SPDX-License-Identifier: BSD-2-Clause */
/* Check and salvage of a data directory that no broker has open. */
#include "server/store/offline.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"
#include "common/sys/file.h"
#include "server/store/blob_file.h"
#include "server/store/page_sum.h"
#include "server/store/salvage.h"
#include "server/store/sqlite_job.h"
#include "server/store/wal.h"

#define PATH_BYTES 4096u
#define NEW_WAL_BYTES ((uint64_t)1 << 20)

/* Keeps a broker away while we read. Without a lock file there never was one; where it cannot be
 * written (a disk that is read-only by now) none can run either. */
static enum hp_err lock(const char *dir, int *ret_fd, struct hp_error *reterr)
{
    char path[PATH_BYTES];
    struct hp_error error = {0};
    *ret_fd = -1;
    (void)snprintf(path, sizeof(path), "%s/lock", dir);
    if (access(path, F_OK) != 0) {
        return HP_OK;
    }
    if (hp_lock_acquire(path, ret_fd, &error) == HP_ERR_BUSY) {
        return hp_error_set(reterr, HP_ERR_BUSY, "a broker runs there, stop it first: %s",
                            error.text);
    }
    return HP_OK;
}

static bool file_bytes(const char *dir, const char *name, uint64_t *ret_bytes)
{
    char path[PATH_BYTES];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (stat(path, &st) != 0) {
        return false;
    }
    *ret_bytes = (uint64_t)st.st_size;
    return true;
}

/* ------------------------------------------------------------------ check */
static char *join(const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    char *path = hp_alloc(size);
    if (path != NULL) {
        (void)snprintf(path, size, "%s/%s", dir, name); /* sized for it */
    }
    return path;
}

/* file:PATH?immutable=1, with what has a meaning in such names escaped. NULL: no memory. */
static char *immutable_uri(const char *path)
{
    size_t size = 3 * strlen(path) + 32;
    char *uri = hp_alloc(size);
    if (uri == NULL) {
        return NULL;
    }
    size_t used = (size_t)snprintf(uri, size, "file:");
    for (; *path != '\0'; path++) {
        bool plain = strchr("%?#", *path) == NULL;
        used += (size_t)snprintf(uri + used, size - used, plain ? "%c" : "%%%02x",
                                 (unsigned char)*path);
    }
    (void)snprintf(uri + used, size - used, "?immutable=1");
    return uri;
}

/* Opens it so that no byte changes: without a log as a file that nobody changes, else with it, and
 * without the checkpoint that closing would make. */
static enum hp_err open_unchanged(struct hp_sqlite *s, struct hp_error *reterr)
{
    uint64_t wal_bytes = 0;
    (void)file_bytes(s->dir, "hostpool.db-wal", &wal_bytes); /* 0 then */
    char *uri = wal_bytes == 0 ? immutable_uri(s->db_path) : hp_strdup(s->db_path);
    if (uri == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                (wal_bytes == 0 ? SQLITE_OPEN_READONLY | SQLITE_OPEN_URI : SQLITE_OPEN_READWRITE);
    int code = sqlite3_open_v2(uri, &s->db, flags, hp_page_sum_vfs());
    hp_free(uri);
    if (code != SQLITE_OK) {
        return hp_sqlite_error(s, code, "open", reterr);
    }
    (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL); /* known: 3.40 */
    (void)sqlite3_wal_hook(s->db, NULL, NULL); /* nothing is written: no automatic checkpoint */
    return hp_sqlite_exec(s,
                          "PRAGMA locking_mode=EXCLUSIVE; PRAGMA trusted_schema=OFF;"
                          " PRAGMA cell_size_check=ON; PRAGMA mmap_size=0;"
                          " PRAGMA temp_store=MEMORY",
                          reterr);
}

static enum hp_err check_version(struct hp_sqlite *s, struct hp_error *reterr)
{
    uint64_t version = 0;
    uint64_t application = 0;
    enum hp_err err = hp_sqlite_query_u64(s, "PRAGMA user_version", &version, reterr);
    if (err == HP_OK) {
        err = hp_sqlite_query_u64(s, "PRAGMA application_id", &application, reterr);
    }
    if (err == HP_OK && application != HP_SQLITE_APPLICATION_ID) {
        return hp_error_set(reterr, HP_ERR_CORRUPT,
                            "%s: damaged: not a hostpool database; restore a backup, or see "
                            "'hostpool broker recover DIR NEW'",
                            s->db_path);
    }
    if (err == HP_OK && version > HP_SQLITE_SCHEMA) {
        return hp_error_set(reterr, HP_ERR_UNSUPPORTED,
                            "%s: schema %" PRIu64 " is newer than this program's (%d); use a newer "
                            "hostpool",
                            s->db_path, version, HP_SQLITE_SCHEMA);
    }
    if (err == HP_OK) {
        err = hp_sqlite_prepare(s, reterr);
    }
    return err == HP_OK ? hp_sqlite_reload(s, reterr) : err;
}

static void free_handle(struct hp_sqlite *s)
{
    hp_sqlite_finalize(s);
    if (s->db != NULL) {
        (void)sqlite3_close(s->db); /* all statements are finalized */
    }
    hp_row_out_deinit(&s->out);
    hp_free(s->dir);
    hp_free(s->db_path);
    hp_free(s->wal_path);
    hp_free(s->blob_dir);
}

static void add_line(struct hp_offline_check *check, const char *text)
{
    check->problem_count++;
    enum hp_err err =
        hp_buf_append_format(&check->lines, "%s%s", check->lines.size > 0 ? "\n" : "", text);
    (void)err; /* a line without memory is still counted */
}

static bool is_our_trouble(enum hp_err err)
{
    return err == HP_ERR_NOMEM || err == HP_ERR_UNSUPPORTED || err == HP_ERR_BUSY ||
           err == HP_ERR_DENIED;
}

static enum hp_err check_all(struct hp_sqlite *s, struct hp_offline_check *ret,
                             struct hp_error *reterr)
{
    struct hp_error error = {0};
    struct hp_check check;
    enum hp_err err = hp_wal_check(s->wal_path, &error);
    if (err == HP_ERR_CORRUPT) { /* SQLite reads to the damage, and calls it the end */
        add_line(ret, error.text);
        err = HP_OK;
    }
    err = err == HP_OK ? open_unchanged(s, &error) : err;
    bool is_open = err == HP_OK;
    err = err == HP_OK ? check_version(s, &error) : err;
    if (is_our_trouble(err)) {
        *reterr = error;
        return err;
    }
    if (err != HP_OK) {
        add_line(ret, error.text);
    }
    hp_sqlite_check_init(&check);
    while (is_open && check.phase != HP_CHECK_DONE) {
        error = (struct hp_error){0};
        if (hp_sqlite_check_step(&check, s, UINT64_MAX, &error) != HP_OK) {
            add_line(ret, error.text);
            break;
        }
    }
    ret->row_count = check.row_count;
    ret->blob_count = check.blob_count;
    ret->problem_count += check.problem_count;
    if (check.lines.size > 0) {
        err = hp_buf_append_format(&ret->lines, "%s%.*s", ret->lines.size > 0 ? "\n" : "",
                                   (int)check.lines.size, (const char *)check.lines.data);
        (void)err; /* lines without memory are still counted */
    }
    hp_sqlite_check_deinit(&check);
    return HP_OK;
}

enum hp_err hp_offline_check(const char *dir, struct hp_offline_check *ret_check,
                             struct hp_error *reterr)
{
    uint64_t bytes = 0;
    uint64_t mark_bytes = 0;
    int lock_fd HP_CLEANUP(hp_lock_release) = -1;
    *ret_check = (struct hp_offline_check){0};
    hp_buf_init(&ret_check->lines, HP_OFFLINE_LINES_BYTES);
    struct hp_sqlite s = {0};
    enum hp_err err = lock(dir, &lock_fd, reterr);
    if (err != HP_OK) {
        return err;
    }
    if (!file_bytes(dir, "hostpool.db", &bytes) && !file_bytes(dir, "hostpool.mark", &mark_bytes)) {
        return hp_error_set(reterr, HP_ERR_NOT_FOUND, "%.180s: no hostpool database is there", dir);
    }
    if (bytes < HP_STORE_DB_BYTES_MIN) {
        add_line(ret_check, "hostpool.db: missing, empty or cut off");
        return HP_OK;
    }
    uint64_t running_bytes = 0;
    uint64_t wal_bytes = 0;
    if (file_bytes(dir, "hostpool.running", &running_bytes) &&
        !file_bytes(dir, "hostpool.db-wal", &wal_bytes)) {
        add_line(ret_check, "hostpool.db-wal: missing, though the broker did not stop in order: "
                            "it held the latest commits");
    }
    s.dir = hp_strdup(dir);
    s.db_path = join(dir, "hostpool.db");
    s.wal_path = join(dir, "hostpool.db-wal");
    s.blob_dir = join(dir, "blobs");
    err = s.dir != NULL && s.db_path != NULL && s.wal_path != NULL && s.blob_dir != NULL
              ? check_all(&s, ret_check, reterr)
              : hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    free_handle(&s);
    return err;
}

/* ------------------------------------------------------------------ salvage */
static void say_pages(struct hp_salvage *v, const struct hp_pages_figures *figures)
{
    if (figures->no_file) {
        v->report->lost_count++;
        hp_salvage_say(v, "hostpool.db is missing, empty or cut off: all that is not in its log is "
                          "lost, and it is not known how much that is");
    } else if (figures->no_header) {
        hp_salvage_say(v, "the first page is not that of a database: the rows of all pages that "
                          "look like ours were taken");
    } else if (figures->no_tables) {
        hp_salvage_say(v, "the list of tables is unreadable: the rows of all pages that look like "
                          "ours were taken");
    }
    if (figures->log_damaged) {
        v->report->lost_count++;
        hp_salvage_say(v,
                       "hostpool.db-wal is damaged: what was written last may be lost; from %u "
                       "frames that cannot be verified rows that prove themselves were taken",
                       figures->frame_count);
    }
    if (figures->missing_count + figures->damaged_count + figures->loose_count > 0) {
        hp_salvage_say(v,
                       "of %u pages %u are missing, %u damaged, and %u found that nothing "
                       "leads to any more",
                       figures->page_count, figures->missing_count, figures->damaged_count,
                       figures->loose_count);
    }
    v->report->lost_count += figures->missing_count + figures->damaged_count;
}

static enum hp_err verify(struct hp_sqlite *s, struct hp_error *reterr)
{
    struct hp_check check;
    hp_sqlite_check_init(&check);
    enum hp_err err = HP_OK;
    while (err == HP_OK && check.phase != HP_CHECK_DONE) {
        err = hp_sqlite_check_step(&check, s, UINT64_MAX, reterr);
    }
    /* Payloads that were damaged before still are: the broker fails their tasks, one by one. */
    uint64_t problems = 0;
    const char *at = check.lines.size > 0 ? (const char *)check.lines.data : "";
    const char *end = at + check.lines.size;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t size = (size_t)((newline != NULL ? newline : end) - at);
        problems += memmem(at, size, "digest of its payloads", 22) == NULL;
        at += size + 1;
    }
    if (err == HP_OK && problems > 0) {
        err = hp_error_set(reterr, HP_ERR_CORRUPT, "the new database fails its check: %.*s",
                           (int)HP_MIN(check.lines.size, (size_t)160),
                           (const char *)check.lines.data);
    }
    hp_sqlite_check_deinit(&check);
    return err;
}

/* Reads all rows into the open new store. */
static enum hp_err fill(struct hp_salvage *v, struct hp_pages *pages, struct hp_error *reterr)
{
    struct hp_pages_figures figures;
    enum hp_err err = hp_sqlite_exec(v->to, "PRAGMA synchronous=OFF", reterr);
    if (err == HP_OK) {
        err = hp_pages_each(pages, hp_salvage_row, v, reterr);
    }
    hp_pages_figures(pages, &figures);
    say_pages(v, &figures);
    if (err == HP_OK) {
        err = hp_salvage_mend(v, reterr);
    }
    if (err == HP_OK) {
        err = hp_salvage_blobs(v, reterr);
    }
    if (v->stubs > 0) {
        v->report->lost_count += v->stubs;
        hp_salvage_say(v, "of %" PRIu64 " tasks only the results are left, not what was submitted",
                       v->stubs);
    }
    if (err == HP_OK) {
        err = hp_sqlite_exec(v->to, "PRAGMA synchronous=FULL", reterr);
    }
    if (err == HP_OK) { /* with syncs now, so that all of it is on the disk */
        v->to->meta_dirty = true;
        err = hp_sqlite_begin(v->to, reterr);
        err = err == HP_OK ? hp_sqlite_commit(v->to, reterr) : err;
    }
    if (err == HP_OK) {
        err = hp_sqlite_checkpoint(v->to, 1, reterr);
    }
    return err == HP_OK ? verify(v->to, reterr) : err;
}

static enum hp_err sync_new(const char *dir, struct hp_error *reterr)
{
    char path[PATH_BYTES + 16];
    (void)snprintf(path, sizeof(path), "%s/hostpool.db", dir);
    int fd HP_CLEANUP(hp_fd_close) = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
        return hp_error_set(reterr, hp_err_of_errno(errno), "%.180s: %s", path, strerror(errno));
    }
    (void)snprintf(path, sizeof(path), "%s/ballast", dir);
    (void)unlink(path); /* the broker makes its own */
    (void)snprintf(path, sizeof(path), "%s/blobs", dir);
    for (uint32_t folder = 0; folder < HP_BLOB_FOLDERS; folder++) {
        char name[PATH_BYTES + 32];
        (void)snprintf(name, sizeof(name), "%s/%02x", path, (unsigned)folder);
        enum hp_err err = access(name, F_OK) == 0 ? hp_dir_fsync(name, reterr) : HP_OK;
        if (err != HP_OK) {
            return err;
        }
    }
    enum hp_err err = hp_dir_fsync(path, reterr);
    return err == HP_OK ? hp_dir_fsync(dir, reterr) : err;
}

static enum hp_err salvage_into(struct hp_pages *pages, const char *from_blobs, const char *part,
                                struct hp_offline_salvage *report, struct hp_error *reterr)
{
    struct hp_store *store = NULL;
    struct hp_store_options options = {
        .dir = part, .create = true, .wal_bytes = NEW_WAL_BYTES, .ballast_bytes = 1};
    enum hp_err err = hp_store_sqlite_open(&options, &store, reterr);
    if (err != HP_OK) {
        return err;
    }
    struct hp_salvage v = {.to = hp_sqlite_of(store),
                           .from_blobs = from_blobs,
                           .report = report,
                           .wire = hp_wire_new(),
                           .wall_ms = (int64_t)hp_clock_wall_ms()};
    hp_arena_init(&v.arena, 1u << 16, (size_t)64 << 20);
    hp_strmap_init(&v.queues, 0);
    err = v.wire != NULL ? fill(&v, pages, reterr) : hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    hp_wire_free(v.wire);
    hp_arena_deinit(&v.arena);
    hp_strmap_deinit(&v.queues);
    hp_spans_deinit(&v.unsure);
    hp_store_close(store);
    return err == HP_OK ? sync_new(part, reterr) : err;
}

static enum hp_err make_new(const char *to, char part[PATH_BYTES], struct hp_error *reterr)
{
    struct stat st;
    int size = snprintf(part, PATH_BYTES, "%s.part", to);
    if (size < 0 || (size_t)size >= PATH_BYTES - 64) {
        return hp_error_set(reterr, HP_ERR_TOO_BIG, "the path of the new directory is too long");
    }
    if (lstat(to, &st) == 0) {
        return hp_error_set(reterr, HP_ERR_EXISTS, "%.180s: exists; give a new name", to);
    }
    if (mkdir(part, 0700) != 0) {
        return errno == EEXIST
                   ? hp_error_set(reterr, HP_ERR_EXISTS,
                                  "%.180s: left by a recovery that was cut short, or one that "
                                  "still runs: remove it",
                                  part)
                   : hp_error_set(reterr, hp_err_of_errno(errno), "%.180s: mkdir: %s", part,
                                  strerror(errno));
    }
    return HP_OK;
}

enum hp_err hp_offline_salvage(const char *from, const char *to,
                               struct hp_offline_salvage *ret_salvage, struct hp_error *reterr)
{
    char part[PATH_BYTES];
    char from_blobs[PATH_BYTES];
    int lock_fd HP_CLEANUP(hp_lock_release) = -1;
    struct hp_pages *pages = NULL;
    *ret_salvage = (struct hp_offline_salvage){0};
    hp_buf_init(&ret_salvage->lines, HP_OFFLINE_LINES_BYTES);
    (void)snprintf(from_blobs, sizeof(from_blobs), "%s/blobs", from);
    enum hp_err err = lock(from, &lock_fd, reterr);
    if (err == HP_OK) {
        err = hp_pages_open(from, &pages, reterr);
    }
    if (err == HP_OK) {
        err = make_new(to, part, reterr);
    }
    if (err == HP_OK) {
        err = salvage_into(pages, from_blobs, part, ret_salvage, reterr);
        if (err == HP_OK) {
            err = hp_backup_publish(part, to, reterr);
        }
        if (err != HP_OK) {
            hp_backup_remove(part);
        }
    }
    hp_pages_close(pages);
    return err;
}
