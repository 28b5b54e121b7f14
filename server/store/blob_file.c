/* SPDX-License-Identifier: BSD-2-Clause */
/* Blob files on disk: format, writing, checked reading, listing. See blob_file.h. */
#include "server/store/blob_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/crash.h"
#include "common/sys/file.h"

#define FOOTER_BYTES 32u
#define MAGIC "hpblob1\n"
#define MAGIC_BYTES 8u
#define NAME_DIGITS 16u
#define DIRECT_ALIGN 4096u /* no disk wants more; one that did would refuse */

struct hp_blob_writer {
    int fd;
    uint64_t blob;
    uint64_t size;
    uint64_t written;
    bool finished;
    bool is_direct; /* O_DIRECT */
    char *dir;
    XXH3_state_t *whole;
    XXH3_state_t *block;
    uint8_t *table; /* digests of blocks, as in the file */
};

static void put_le64(uint8_t *at, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t get_le64(const uint8_t *at)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++) {
        value |= (uint64_t)at[i] << (8 * i);
    }
    return value;
}

static enum hp_err io_error(const char *path, const char *what, struct hp_error *reterr)
{
    int number = errno;
    return hp_error_set(reterr, hp_err_of_errno(number), "%.180s: %s: %s", path, what,
                        strerror(number));
}

static enum hp_err damaged(const char *path, const char *what, struct hp_error *reterr)
{
    return hp_error_set(reterr, HP_ERR_CORRUPT, "%.180s: damaged: %s", path, what);
}

static uint64_t block_count_of(uint64_t size)
{
    return (size + HP_BLOB_BLOCK_BYTES - 1) / HP_BLOB_BLOCK_BYTES;
}

/* ------------------------------------------------------------------ paths */
static enum hp_err folder_path(const char *blob_dir, uint32_t folder, char path[HP_BLOB_PATH_BYTES],
                               struct hp_error *reterr)
{
    int size = snprintf(path, HP_BLOB_PATH_BYTES, "%s/%02x", blob_dir, (unsigned)folder);
    return size > 0 && (unsigned)size < HP_BLOB_PATH_BYTES
               ? HP_OK
               : hp_error_set(reterr, HP_ERR_TOO_BIG, "path of a blob is too long");
}

enum hp_err hp_blob_path(const char *blob_dir, uint64_t blob, bool unfinished,
                         char ret_path[HP_BLOB_PATH_BYTES], struct hp_error *reterr)
{
    int size = snprintf(ret_path, HP_BLOB_PATH_BYTES, "%s/%02x/%016" PRIx64 "%s", blob_dir,
                        (unsigned)(blob & 0xff), blob, unfinished ? ".part" : "");
    return size > 0 && (unsigned)size < HP_BLOB_PATH_BYTES
               ? HP_OK
               : hp_error_set(reterr, HP_ERR_TOO_BIG, "path of a blob is too long");
}

enum hp_err hp_blob_dir_sync(const char *blob_dir, uint64_t blob, struct hp_error *reterr)
{
    char path[HP_BLOB_PATH_BYTES];
    enum hp_err err = folder_path(blob_dir, (uint32_t)(blob & 0xff), path, reterr);
    HP_CRASH_POINT("blob.dirsync.before");
    err = err == HP_OK ? hp_dir_fsync(path, reterr) : err;
    HP_CRASH_POINT("blob.dirsync.after");
    return err;
}

/* ------------------------------------------------------------------ writing */
/* Two threads must not make a folder: who finds one could not know that its name lasts. */
static pthread_mutex_t folder_mutex = PTHREAD_MUTEX_INITIALIZER;

static enum hp_err make_folder(const char *blob_dir, uint64_t blob, struct hp_error *reterr)
{
    char path[HP_BLOB_PATH_BYTES];
    enum hp_err err = folder_path(blob_dir, (uint32_t)(blob & 0xff), path, reterr);
    if (err != HP_OK) {
        return err;
    }
    int error = pthread_mutex_lock(&folder_mutex);
    HP_ASSERT(error == 0);
    if (mkdir(path, 0700) == 0) {
        err = hp_dir_fsync(blob_dir, reterr); /* once per folder: its own name must last */
    } else if (errno != EEXIST) {
        err = io_error(path, "mkdir", reterr);
    }
    error = pthread_mutex_unlock(&folder_mutex);
    HP_ASSERT(error == 0);
    return err;
}

enum hp_err hp_blob_make_folders(const char *blob_dir, struct hp_error *reterr)
{
    for (uint32_t folder = 0; folder < HP_BLOB_FOLDERS; folder++) {
        char path[HP_BLOB_PATH_BYTES];
        enum hp_err err = folder_path(blob_dir, folder, path, reterr);
        if (err != HP_OK) {
            return err;
        }
        if (mkdir(path, 0700) != 0 && errno != EEXIST) {
            if (hp_err_of_errno(errno) == HP_ERR_NOSPACE) {
                break; /* those that a blob needs are made for it */
            }
            return io_error(path, "mkdir", reterr);
        }
    }
    return hp_dir_fsync(blob_dir, reterr); /* also what a killed broker made */
}

static enum hp_err open_writer(struct hp_blob_writer *writer, struct hp_error *reterr)
{
    char path[HP_BLOB_PATH_BYTES];
    enum hp_err err = make_folder(writer->dir, writer->blob, reterr);
    if (err == HP_OK) {
        err = hp_blob_path(writer->dir, writer->blob, true, path, reterr);
    }
    if (err != HP_OK) {
        return err;
    }
    writer->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    return writer->fd >= 0 ? HP_OK : io_error(path, "open", reterr);
}

enum hp_err hp_blob_writer_new(const char *blob_dir, uint64_t blob, uint64_t size,
                               struct hp_blob_writer **ret_writer, struct hp_error *reterr)
{
    struct hp_blob_writer *writer = hp_calloc(1, sizeof(*writer));
    if (writer == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    writer->fd = -1;
    writer->blob = blob;
    writer->size = size;
    writer->dir = hp_strdup(blob_dir);
    writer->whole = XXH3_createState();
    writer->block = XXH3_createState();
    writer->table = hp_alloc_array(block_count_of(size), 8);
    enum hp_err err = HP_OK;
    if (writer->dir == NULL || writer->whole == NULL || writer->block == NULL ||
        writer->table == NULL) {
        err = hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    } else {
        (void)XXH3_64bits_reset(writer->whole); /* fails only on NULL */
        (void)XXH3_64bits_reset(writer->block);
        err = open_writer(writer, reterr);
    }
    if (err != HP_OK) {
        hp_blob_writer_free(writer);
        return err;
    }
    *ret_writer = writer;
    return HP_OK;
}

uint64_t hp_blob_writer_size(const struct hp_blob_writer *writer)
{
    return writer->size;
}

uint64_t hp_blob_writer_written(const struct hp_blob_writer *writer)
{
    return writer->written;
}

uint64_t hp_blob_writer_digest(const struct hp_blob_writer *writer)
{
    return XXH3_64bits_digest(writer->whole);
}

void hp_blob_writer_direct(struct hp_blob_writer *writer)
{
    writer->is_direct = fcntl(writer->fd, F_SETFL, O_DIRECT) == 0; /* some file systems can not */
}

static enum hp_err end_direct(struct hp_blob_writer *writer)
{
    writer->is_direct = false;
    /* A direct write that failed may have come some way: it is done again from its beginning. */
    bool good = fcntl(writer->fd, F_SETFL, 0) == 0 &&
                lseek(writer->fd, (off_t)writer->written, SEEK_SET) == (off_t)writer->written;
    return good ? HP_OK : HP_ERR_IO;
}

static enum hp_err write_bytes(struct hp_blob_writer *writer, const void *data, uint32_t size)
{
    if (writer->is_direct) {
        bool is_aligned = ((uintptr_t)data | size | writer->written) % DIRECT_ALIGN == 0;
        enum hp_err err = is_aligned ? hp_fd_write_all(writer->fd, data, size) : HP_ERR_INVALID;
        if (err != HP_ERR_INVALID) {
            return err;
        }
        err = end_direct(writer);
        if (err != HP_OK) {
            return err;
        }
    }
    return hp_fd_write_all(writer->fd, data, size);
}

static void close_block(struct hp_blob_writer *writer, uint64_t index)
{
    put_le64(writer->table + index * 8, XXH3_64bits_digest(writer->block));
    (void)XXH3_64bits_reset(writer->block); /* fails only on NULL */
}

static void digest_more(struct hp_blob_writer *writer, const uint8_t *data, uint32_t size)
{
    while (size > 0) {
        uint32_t filled = (uint32_t)(writer->written % HP_BLOB_BLOCK_BYTES);
        uint32_t part = HP_MIN(size, HP_BLOB_BLOCK_BYTES - filled);
        (void)XXH3_64bits_update(writer->whole, data, part); /* fails only on NULL */
        (void)XXH3_64bits_update(writer->block, data, part); /* from the cache, this time */
        writer->written += part;
        data += part;
        size -= part;
        if (writer->written % HP_BLOB_BLOCK_BYTES == 0) {
            close_block(writer, writer->written / HP_BLOB_BLOCK_BYTES - 1);
        }
    }
}

enum hp_err hp_blob_writer_append(struct hp_blob_writer *writer, const void *data, uint32_t size,
                                  struct hp_error *reterr)
{
    if (size > writer->size - writer->written) {
        return hp_error_set(reterr, HP_ERR_RANGE, "more bytes than the blob was opened for");
    }
    if (size == 0) {
        return HP_OK;
    }
    enum hp_err err = write_bytes(writer, data, size);
    if (err != HP_OK) {
        return hp_error_set(reterr, err, "blob %" PRIu64 ": write: %s", writer->blob,
                            hp_err_text(err));
    }
    digest_more(writer, data, size);
    return HP_OK;
}

static enum hp_err write_footer(struct hp_blob_writer *writer, struct hp_error *reterr)
{
    uint64_t table_bytes = block_count_of(writer->size) * 8;
    uint8_t footer[FOOTER_BYTES];
    XXH3_state_t *state = writer->block;
    if (writer->size % HP_BLOB_BLOCK_BYTES != 0) {
        close_block(writer, writer->size / HP_BLOB_BLOCK_BYTES);
    }
    memcpy(footer, MAGIC, MAGIC_BYTES);
    put_le64(footer + 8, writer->size);
    put_le64(footer + 16, hp_blob_writer_digest(writer));
    (void)XXH3_64bits_reset(state); /* fails only on NULL */
    (void)XXH3_64bits_update(state, writer->table, table_bytes);
    (void)XXH3_64bits_update(state, footer, FOOTER_BYTES - 8);
    put_le64(footer + 24, XXH3_64bits_digest(state));
    enum hp_err err = writer->is_direct ? end_direct(writer) : HP_OK;
    if (err == HP_OK) {
        err = hp_fd_write_all(writer->fd, writer->table, table_bytes);
    }
    if (err == HP_OK) {
        err = hp_fd_write_all(writer->fd, footer, sizeof(footer));
    }
    return err == HP_OK ? HP_OK
                        : hp_error_set(reterr, err, "blob %" PRIu64 ": write: %s", writer->blob,
                                       hp_err_text(err));
}

enum hp_err hp_blob_writer_finish(struct hp_blob_writer *writer, struct hp_error *reterr)
{
    char from[HP_BLOB_PATH_BYTES];
    char to[HP_BLOB_PATH_BYTES];
    HP_ASSERT(writer->written == writer->size);
    enum hp_err err = write_footer(writer, reterr);
    if (err == HP_OK) {
        err = hp_blob_path(writer->dir, writer->blob, true, from, reterr);
    }
    if (err == HP_OK) {
        err = hp_blob_path(writer->dir, writer->blob, false, to, reterr);
    }
    if (err != HP_OK) {
        return err;
    }
    if (fsync(writer->fd) != 0) {
        return io_error(from, "fsync", reterr);
    }
    HP_CRASH_POINT("blob.rename.before");
    if (rename(from, to) != 0) {
        return io_error(from, "rename", reterr);
    }
    HP_CRASH_POINT("blob.rename.after");
    writer->finished = true;
    return HP_OK;
}

void hp_blob_writer_free(struct hp_blob_writer *writer)
{
    char path[HP_BLOB_PATH_BYTES];
    if (writer == NULL) {
        return;
    }
    if (writer->fd >= 0) {
        if (!writer->finished &&
            hp_blob_path(writer->dir, writer->blob, true, path, NULL) == HP_OK) {
            (void)unlink(path); /* else the sweep does it */
        }
        hp_fd_close(&writer->fd);
    }
    (void)XXH3_freeState(writer->whole);
    (void)XXH3_freeState(writer->block);
    hp_free(writer->table);
    hp_free(writer->dir);
    hp_free(writer);
}

/* ------------------------------------------------------------------ reading */
static enum hp_err read_at(int fd, const char *path, void *out, size_t size, uint64_t offset,
                           struct hp_error *reterr)
{
    uint8_t *at = out;
    while (size > 0) {
        ssize_t n = pread(fd, at, size, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return io_error(path, "read", reterr);
        }
        if (n == 0) {
            return damaged(path, "too short", reterr);
        }
        at += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return HP_OK;
}

/* An open blob with its checked table. */
struct reader {
    int fd;
    char path[HP_BLOB_PATH_BYTES];
    uint64_t size;
    uint64_t digest;
    uint8_t *table;
};

static void reader_deinit(struct reader *reader)
{
    hp_fd_close(&reader->fd);
    hp_free(reader->table);
    reader->table = NULL;
}

static enum hp_err read_table(struct reader *reader, uint64_t file_size, struct hp_error *reterr)
{
    uint8_t footer[FOOTER_BYTES];
    if (file_size < FOOTER_BYTES) {
        return damaged(reader->path, "too short", reterr);
    }
    enum hp_err err =
        read_at(reader->fd, reader->path, footer, sizeof(footer), file_size - FOOTER_BYTES, reterr);
    if (err != HP_OK) {
        return err;
    }
    uint64_t size = get_le64(footer + 8);
    if (memcmp(footer, MAGIC, MAGIC_BYTES) != 0 || size > file_size ||
        size + block_count_of(size) * 8 + FOOTER_BYTES != file_size) {
        return damaged(reader->path, "footer", reterr);
    }
    uint64_t table_bytes = block_count_of(size) * 8;
    reader->table = hp_alloc(table_bytes + FOOTER_BYTES);
    if (reader->table == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    err = read_at(reader->fd, reader->path, reader->table, table_bytes, size, reterr);
    if (err != HP_OK) {
        return err;
    }
    memcpy(reader->table + table_bytes, footer, FOOTER_BYTES - 8);
    if (XXH3_64bits(reader->table, table_bytes + FOOTER_BYTES - 8) != get_le64(footer + 24)) {
        return damaged(reader->path, "digest of its footer", reterr);
    }
    reader->size = size;
    reader->digest = get_le64(footer + 16);
    return HP_OK;
}

static enum hp_err open_reader(struct reader *reader, const char *blob_dir, uint64_t blob,
                               struct hp_error *reterr)
{
    struct stat st;
    enum hp_err err = hp_blob_path(blob_dir, blob, false, reader->path, reterr);
    if (err != HP_OK) {
        return err;
    }
    reader->fd = open(reader->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (reader->fd < 0) {
        return io_error(reader->path, "open", reterr);
    }
    if (fstat(reader->fd, &st) != 0) {
        return io_error(reader->path, "stat", reterr);
    }
    return read_table(reader, (uint64_t)st.st_size, reterr);
}

/* Copies what is wanted of one block, once the block's digest is right. */
static enum hp_err read_block(struct reader *reader, uint64_t index, uint8_t *block,
                              uint64_t offset, uint32_t size, uint8_t *out, struct hp_error *reterr)
{
    uint64_t start = index * HP_BLOB_BLOCK_BYTES;
    uint64_t block_size = HP_MIN((uint64_t)HP_BLOB_BLOCK_BYTES, reader->size - start);
    enum hp_err err = read_at(reader->fd, reader->path, block, block_size, start, reterr);
    if (err != HP_OK) {
        return err;
    }
    if (XXH3_64bits(block, block_size) != get_le64(reader->table + index * 8)) {
        return damaged(reader->path, "digest of a block", reterr);
    }
    uint64_t low = HP_MAX(start, offset);
    uint64_t high = HP_MIN(start + block_size, offset + size);
    memcpy(out + (low - offset), block + (low - start), high - low);
    return HP_OK;
}

enum hp_err hp_blob_read(const char *blob_dir, uint64_t blob, uint64_t offset, uint32_t size,
                         void *out, uint32_t *ret_size, uint64_t *ret_blob_size,
                         uint64_t *ret_digest, struct hp_error *reterr)
{
    struct reader reader HP_CLEANUP(reader_deinit) = {.fd = -1};
    uint8_t *block HP_CLEANUP(hp_free_ptr) = hp_alloc(HP_BLOB_BLOCK_BYTES);
    if (block == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    enum hp_err err = open_reader(&reader, blob_dir, blob, reterr);
    if (err != HP_OK) {
        return err;
    }
    uint32_t part =
        offset >= reader.size ? 0 : (uint32_t)HP_MIN((uint64_t)size, reader.size - offset);
    if (part > 0) {
        uint64_t last = (offset + part - 1) / HP_BLOB_BLOCK_BYTES;
        for (uint64_t i = offset / HP_BLOB_BLOCK_BYTES; i <= last; i++) {
            err = read_block(&reader, i, block, offset, part, out, reterr);
            if (err != HP_OK) {
                return err;
            }
        }
    }
    *ret_size = part;
    *ret_blob_size = reader.size;
    *ret_digest = reader.digest;
    return HP_OK;
}

enum hp_err hp_blob_open(const char *blob_dir, uint64_t blob, int *ret_fd, uint64_t *ret_size,
                         uint64_t *ret_digest, struct hp_error *reterr)
{
    struct reader reader HP_CLEANUP(reader_deinit) = {.fd = -1};
    enum hp_err err = open_reader(&reader, blob_dir, blob, reterr);
    if (err == HP_OK) {
        *ret_fd = reader.fd;
        reader.fd = -1; /* the caller's */
        *ret_size = reader.size;
        *ret_digest = reader.digest;
    }
    return err;
}

enum hp_err hp_blob_stat(const char *blob_dir, uint64_t blob, uint64_t *ret_size,
                         uint64_t *ret_digest, struct hp_error *reterr)
{
    struct reader reader HP_CLEANUP(reader_deinit) = {.fd = -1};
    enum hp_err err = open_reader(&reader, blob_dir, blob, reterr);
    if (err == HP_OK) {
        *ret_size = reader.size;
        *ret_digest = reader.digest;
    }
    return err;
}

/* ------------------------------------------------------------------ listing */
static bool parse_name(const char *name, uint64_t *ret_blob, bool *ret_unfinished)
{
    uint64_t blob = 0;
    for (unsigned i = 0; i < NAME_DIGITS; i++) {
        char c = name[i];
        if (c >= '0' && c <= '9') {
            blob = blob << 4 | (uint64_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            blob = blob << 4 | (uint64_t)(c - 'a' + 10);
        } else {
            return false;
        }
    }
    *ret_blob = blob;
    *ret_unfinished = strcmp(name + NAME_DIGITS, ".part") == 0;
    return *ret_unfinished || name[NAME_DIGITS] == '\0';
}

static void close_dir(DIR **dir)
{
    if (*dir != NULL) {
        (void)closedir(*dir); /* only read from */
    }
}

enum hp_err hp_blob_list(const char *blob_dir, uint32_t folder, hp_blob_list_fn *fn, void *context,
                         struct hp_error *reterr)
{
    char path[HP_BLOB_PATH_BYTES];
    enum hp_err err = folder_path(blob_dir, folder, path, reterr);
    if (err != HP_OK) {
        return err;
    }
    DIR *dir HP_CLEANUP(close_dir) = opendir(path);
    if (dir == NULL) {
        return errno == ENOENT ? HP_OK : io_error(path, "open", reterr);
    }
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            return errno == 0 ? HP_OK : io_error(path, "list", reterr);
        }
        uint64_t blob = 0;
        bool unfinished = false;
        struct stat st;
        if (!parse_name(entry->d_name, &blob, &unfinished) ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            continue; /* not ours, or gone meanwhile */
        }
        err = fn(context, blob, unfinished, (int64_t)st.st_mtime, reterr);
        if (err != HP_OK) {
            return err;
        }
    }
}

/* ------------------------------------------------------------------ copying */
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
enum hp_err hp_blob_copy(const char *from_dir, const char *to_dir, uint64_t blob,
                         uint64_t *ret_bytes, struct hp_error *reterr)
{
    char from[HP_BLOB_PATH_BYTES];
    char to[HP_BLOB_PATH_BYTES];
    char folder[HP_BLOB_PATH_BYTES];
    struct stat st;
    enum hp_err err = hp_blob_path(from_dir, blob, false, from, reterr);
    if (err == HP_OK) {
        err = hp_blob_path(to_dir, blob, false, to, reterr);
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
        *ret_bytes = (uint64_t)st.st_size;
    }
    return err;
}
