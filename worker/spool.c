/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The spool's file: appending, reading back, cutting off a torn end, compaction. See spool.h for
 * the format and what it promises.
 */
#include "worker/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "common/base/assert.h"
#include "common/base/buf.h"
#include "common/base/endian.h"
#include "common/base/idmap.h"
#include "common/base/mem.h"
#include "common/sys/crash.h"
#include "common/sys/file.h"

#define FILE_HEAD "hpspool1"
#define FILE_HEAD_BYTES 8u
#define FRAME_MAGIC 0x68705372u
#define FRAME_HEAD_BYTES 40u
#define FRAME_TAIL_BYTES 8u
#define KIND_RECORD 1u
#define KIND_ACK 2u
#ifndef COMPACT_BYTES /* tests/fault has it small */
#define COMPACT_BYTES (64u * 1024u * 1024u)
#endif
#define PATH_BYTES 4096u

struct hp_spool {
    int fd;
    char dir[PATH_BYTES];
    char path[PATH_BYTES];
    uint8_t boot[HP_SPOOL_BOOT_BYTES];
    struct hp_buf queue;  /* frames not yet written */
    struct hp_idmap live; /* id -> offset of its frame in the file */
    uint64_t queued_from; /* first id in the queue, or 0: no record is in it */
    uint64_t last_id;
    uint64_t file_bytes; /* written and whole */
    uint64_t live_bytes;
    uint64_t cut_bytes;
    uint64_t sync_count;
    uint64_t compact_count;
    bool broken; /* an fsync failed */
};

/* A frame as read. */
struct frame {
    uint8_t kind;
    uint64_t id;
    uint64_t size; /* of the body */
    const uint8_t *boot;
    const uint8_t *body;
};

/* -------------------------------------------------------------------------------------- frames */

static enum hp_err put_frame(struct hp_buf *buf, uint8_t kind, uint64_t id, const uint8_t *boot,
                             struct hp_bin body)
{
    size_t total = FRAME_HEAD_BYTES + (size_t)body.size + FRAME_TAIL_BYTES;
    uint8_t *at = NULL;
    enum hp_err err = hp_buf_reserve(buf, total, &at);
    if (err != HP_OK) {
        return err;
    }
    memset(at, 0, FRAME_HEAD_BYTES);
    hp_put_be32(at, FRAME_MAGIC);
    at[4] = kind;
    hp_put_be64(at + 8, id);
    hp_put_be64(at + 16, body.size);
    memcpy(at + 24, boot, HP_SPOOL_BOOT_BYTES);
    if (body.size > 0) {
        memcpy(at + FRAME_HEAD_BYTES, body.data, body.size);
    }
    hp_put_be64(at + FRAME_HEAD_BYTES + body.size, XXH3_64bits(at, FRAME_HEAD_BYTES + body.size));
    hp_buf_commit(buf, total);
    return HP_OK;
}

/* The frame at the start of `size` bytes; returns its bytes, or 0 if there is no whole one. */
static size_t get_frame(const uint8_t *at, size_t size, struct frame *ret)
{
    if (size < FRAME_HEAD_BYTES + FRAME_TAIL_BYTES || hp_get_be32(at) != FRAME_MAGIC) {
        return 0;
    }
    uint64_t body = hp_get_be64(at + 16);
    if (body > size - FRAME_HEAD_BYTES - FRAME_TAIL_BYTES || body > UINT32_MAX) {
        return 0;
    }
    if (hp_get_be64(at + FRAME_HEAD_BYTES + body) != XXH3_64bits(at, FRAME_HEAD_BYTES + body)) {
        return 0;
    }
    *ret = (struct frame){.kind = at[4],
                          .id = hp_get_be64(at + 8),
                          .size = body,
                          .boot = at + 24,
                          .body = at + FRAME_HEAD_BYTES};
    return FRAME_HEAD_BYTES + body + FRAME_TAIL_BYTES;
}

static size_t frame_bytes(uint64_t body)
{
    return FRAME_HEAD_BYTES + body + FRAME_TAIL_BYTES;
}

/* -------------------------------------------------------------------------------------- opening */

static enum hp_err system_error(const struct hp_spool *spool, const char *what,
                                struct hp_error *reterr)
{
    int number = errno;
    return hp_error_set(reterr, hp_err_of_errno(number), "%s %s: %s", what, spool->path,
                        strerror(number));
}

static enum hp_err note_frame(struct hp_spool *spool, const struct frame *frame, uint64_t offset)
{
    if (frame->kind == KIND_ACK) {
        (void)hp_idmap_remove(&spool->live, frame->id, NULL); /* its record may be compacted away */
        return HP_OK;
    }
    return hp_idmap_put(&spool->live, frame->id, offset);
}

/* Reads all frames of the mapped file; *ret_end is where the whole ones end. */
static enum hp_err scan(struct hp_spool *spool, const uint8_t *data, size_t size, size_t *ret_end)
{
    size_t at = FILE_HEAD_BYTES;
    struct frame frame;
    for (;;) {
        size_t bytes = get_frame(data + at, size - at, &frame);
        if (bytes == 0) {
            *ret_end = at;
            return HP_OK;
        }
        enum hp_err err = note_frame(spool, &frame, at);
        if (err != HP_OK) {
            return err;
        }
        at += bytes;
    }
}

static void report(struct hp_spool *spool, const uint8_t *data, size_t end,
                   void (*found)(void *context, uint64_t id,
                                 const uint8_t boot[HP_SPOOL_BOOT_BYTES], struct hp_bin record),
                   void *context)
{
    struct frame frame;
    for (size_t at = FILE_HEAD_BYTES; at < end;) {
        size_t bytes = get_frame(data + at, end - at, &frame);
        HP_ASSERT(bytes > 0); /* the scan has read it */
        uint64_t offset = 0;
        if (frame.kind == KIND_RECORD && hp_idmap_find(&spool->live, frame.id, &offset) &&
            offset == at) {
            spool->live_bytes += bytes;
            spool->last_id = HP_MAX(spool->last_id, frame.id);
            if (found != NULL) {
                found(context, frame.id, frame.boot, hp_bin_make(frame.body, frame.size));
            }
        }
        at += bytes;
    }
}

/* Writes the head of a new file and makes its name durable. */
static enum hp_err start_file(struct hp_spool *spool, struct hp_error *reterr)
{
    errno = ENOSPC; /* of a write that is cut short, which sets none */
    if (ftruncate(spool->fd, 0) != 0 ||
        pwrite(spool->fd, FILE_HEAD, FILE_HEAD_BYTES, 0) != (ssize_t)FILE_HEAD_BYTES ||
        fsync(spool->fd) != 0) {
        return system_error(spool, "write", reterr);
    }
    spool->file_bytes = FILE_HEAD_BYTES;
    return hp_dir_fsync(spool->dir, reterr);
}

/* A crash while the file was made leaves a part of its head, or zeros in its place where the file
 * has grown but its bytes are lost: that is a new file too. */
static bool is_unborn(const uint8_t *data, size_t size)
{
    size_t same = 0;
    while (same < size && same < FILE_HEAD_BYTES && data[same] == (uint8_t)FILE_HEAD[same]) {
        same++;
    }
    size_t zeros = same;
    while (zeros < size && data[zeros] == 0) {
        zeros++;
    }
    return zeros == size && size <= FILE_HEAD_BYTES && same < FILE_HEAD_BYTES;
}

static enum hp_err cut_end(struct hp_spool *spool, size_t size, size_t end, struct hp_error *reterr)
{
    spool->file_bytes = end;
    spool->cut_bytes = size - end;
    if (end == size) {
        return HP_OK;
    }
    if (ftruncate(spool->fd, (off_t)end) != 0 || fsync(spool->fd) != 0) {
        return system_error(spool, "truncate", reterr);
    }
    return HP_OK;
}

static enum hp_err load(struct hp_spool *spool,
                        void (*found)(void *context, uint64_t id,
                                      const uint8_t boot[HP_SPOOL_BOOT_BYTES],
                                      struct hp_bin record),
                        void *context, struct hp_error *reterr)
{
    struct stat status;
    if (fstat(spool->fd, &status) != 0) {
        return system_error(spool, "stat", reterr);
    }
    size_t size = (size_t)status.st_size;
    if (size == 0) {
        return start_file(spool, reterr);
    }
    const uint8_t *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, spool->fd, 0);
    if (data == MAP_FAILED) {
        return system_error(spool, "read", reterr);
    }
    enum hp_err err = HP_OK;
    if (is_unborn(data, size)) {
        err = start_file(spool, reterr);
    } else if (size < FILE_HEAD_BYTES || memcmp(data, FILE_HEAD, FILE_HEAD_BYTES) != 0) {
        err = hp_error_set(reterr, HP_ERR_CORRUPT, "%s is not a spool: move it away", spool->path);
    } else {
        size_t end = 0;
        err = scan(spool, data, size, &end);
        if (err == HP_OK) {
            report(spool, data, end, found, context);
            err = cut_end(spool, size, end, reterr);
        }
    }
    (void)munmap((void *)(uintptr_t)data, size); /* was mapped above */
    return err;
}

enum hp_err hp_spool_open(const char *dir, const uint8_t boot[HP_SPOOL_BOOT_BYTES],
                          void (*found)(void *context, uint64_t id,
                                        const uint8_t boot[HP_SPOOL_BOOT_BYTES],
                                        struct hp_bin record),
                          void *context, struct hp_spool **ret_spool, struct hp_error *reterr)
{
    struct hp_spool *spool = hp_calloc(1, sizeof(*spool));
    if (spool == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    hp_buf_init(&spool->queue, (size_t)1 << 40);
    hp_idmap_init(&spool->live, 0);
    memcpy(spool->boot, boot, HP_SPOOL_BOOT_BYTES);
    int dir_size = snprintf(spool->dir, sizeof(spool->dir), "%s", dir);
    int path_size = snprintf(spool->path, sizeof(spool->path), "%s/spool", dir);
    spool->fd = -1;
    if (dir_size < 0 || path_size < 0 || (size_t)path_size >= sizeof(spool->path)) {
        hp_spool_close(spool);
        return hp_error_set(reterr, HP_ERR_INVALID, "the path of the state directory is too long");
    }
    spool->fd = open(spool->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    enum hp_err err =
        spool->fd < 0 ? system_error(spool, "open", reterr) : load(spool, found, context, reterr);
    if (err != HP_OK) {
        hp_spool_close(spool);
        return err;
    }
    *ret_spool = spool;
    return HP_OK;
}

void hp_spool_close(struct hp_spool *spool)
{
    if (spool == NULL) {
        return;
    }
    hp_fd_close(&spool->fd);
    hp_buf_deinit(&spool->queue);
    hp_idmap_deinit(&spool->live);
    hp_free(spool);
}

/* ------------------------------------------------------------------------------------- appending
 */

enum hp_err hp_spool_append(struct hp_spool *spool, uint64_t id, struct hp_bin record)
{
    HP_ASSERT(id > spool->last_id);
    uint64_t offset = spool->file_bytes + spool->queue.size;
    size_t before = spool->queue.size;
    enum hp_err err = put_frame(&spool->queue, KIND_RECORD, id, spool->boot, record);
    if (err != HP_OK) {
        return err;
    }
    err = hp_idmap_put(&spool->live, id, offset);
    if (err != HP_OK) {
        hp_buf_truncate(&spool->queue, before);
        return err;
    }
    spool->last_id = id;
    spool->live_bytes += frame_bytes(record.size);
    if (spool->queued_from == 0) {
        spool->queued_from = id;
    }
    return HP_OK;
}

/* The body size of the live frame at `offset`, in the file or still in the queue. */
static uint64_t body_size_at(const struct hp_spool *spool, uint64_t offset)
{
    uint8_t head[FRAME_HEAD_BYTES];
    if (offset >= spool->file_bytes) {
        return hp_get_be64(spool->queue.data + (offset - spool->file_bytes) + 16);
    }
    if (pread(spool->fd, head, sizeof(head), (off_t)offset) != (ssize_t)sizeof(head)) {
        return 0; /* only the decision when to compact depends on it */
    }
    return hp_get_be64(head + 16);
}

void hp_spool_ack(struct hp_spool *spool, uint64_t id)
{
    uint64_t offset = 0;
    if (!hp_idmap_find(&spool->live, id, &offset)) {
        return;
    }
    size_t bytes = frame_bytes(body_size_at(spool, offset));
    spool->live_bytes -= HP_MIN((uint64_t)bytes, spool->live_bytes);
    (void)hp_idmap_remove(&spool->live, id, NULL); /* it was found */
    /* Without memory the record stays in the file and comes again: S3. */
    (void)put_frame(&spool->queue, KIND_ACK, id, spool->boot, (struct hp_bin){0});
}

/* Forgets the queue after a failure and cuts what was written of it off the file. */
static void drop_queue(struct hp_spool *spool)
{
    for (uint64_t id = spool->queued_from; id != 0 && id <= spool->last_id; id++) {
        (void)hp_idmap_remove(&spool->live, id, NULL);
    }
    spool->queued_from = 0;
    hp_buf_clear(&spool->queue);
    if (ftruncate(spool->fd, (off_t)spool->file_bytes) != 0) {
        spool->broken = true; /* a torn frame in the middle would hide all behind it */
    }
}

static enum hp_err write_queue(struct hp_spool *spool, struct hp_error *reterr)
{
    if (spool->broken) {
        drop_queue(spool);
        return hp_error_set(reterr, HP_ERR_IO, "%s: an earlier write failed", spool->path);
    }
    size_t done = 0;
    while (done < spool->queue.size) {
        ssize_t n = pwrite(spool->fd, spool->queue.data + done, spool->queue.size - done,
                           (off_t)(spool->file_bytes + done));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            enum hp_err err = system_error(spool, "write", reterr);
            drop_queue(spool);
            return err;
        }
        done += (size_t)n;
    }
    HP_CRASH_POINT("spool.write.after");
    spool->file_bytes += done;
    hp_buf_clear(&spool->queue);
    return HP_OK;
}

enum hp_err hp_spool_sync(struct hp_spool *spool, struct hp_error *reterr)
{
    enum hp_err err = write_queue(spool, reterr);
    if (err != HP_OK) {
        return err;
    }
    HP_CRASH_POINT("spool.sync.before");
    if (fdatasync(spool->fd) != 0) {
        err = system_error(spool, "fdatasync", reterr);
        spool->broken = true;
        drop_queue(spool);
        return err == HP_ERR_NOSPACE ? HP_ERR_IO : err;
    }
    spool->queued_from = 0;
    spool->sync_count++;
    return HP_OK;
}

/* ------------------------------------------------------------------------------------ compaction
 */

/* Copies the live frames to `fd`; their new offsets go into `moved`. */
static enum hp_err copy_live(struct hp_spool *spool, int fd, const uint8_t *data,
                             struct hp_idmap *moved, uint64_t *ret_bytes)
{
    uint64_t to = FILE_HEAD_BYTES;
    if (hp_fd_write_all(fd, FILE_HEAD, FILE_HEAD_BYTES) != HP_OK) {
        return HP_ERR_IO;
    }
    struct frame frame;
    for (uint64_t at = FILE_HEAD_BYTES; at < spool->file_bytes;) {
        size_t bytes = get_frame(data + at, spool->file_bytes - at, &frame);
        if (bytes == 0) {
            return HP_ERR_CORRUPT;
        }
        uint64_t offset = 0;
        if (frame.kind == KIND_RECORD && hp_idmap_find(&spool->live, frame.id, &offset) &&
            offset == at) {
            if (hp_idmap_put(moved, frame.id, to) != HP_OK ||
                hp_fd_write_all(fd, data + at, bytes) != HP_OK) {
                return HP_ERR_IO;
            }
            to += bytes;
        }
        at += bytes;
    }
    *ret_bytes = to;
    return fsync(fd) == 0 ? HP_OK : HP_ERR_IO;
}

/* Writes the live records to a new file and puts it in the place of the old one. */
static void compact(struct hp_spool *spool)
{
    char path[PATH_BYTES + 8];
    int size = snprintf(path, sizeof(path), "%s.new", spool->path);
    HP_ASSERT(size > 0 && (size_t)size < sizeof(path));
    HP_CLEANUP(hp_fd_close) int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const uint8_t *data = mmap(NULL, spool->file_bytes, PROT_READ, MAP_PRIVATE, spool->fd, 0);
    if (data == MAP_FAILED) {
        return; /* later */
    }
    if (fd < 0) {
        (void)munmap((void *)(uintptr_t)data, spool->file_bytes); /* was mapped above */
        return;
    }
    struct hp_idmap moved;
    hp_idmap_init(&moved, 0);
    uint64_t bytes = 0;
    enum hp_err err = copy_live(spool, fd, data, &moved, &bytes);
    (void)munmap((void *)(uintptr_t)data, spool->file_bytes); /* was mapped above */
    if (err != HP_OK || rename(path, spool->path) != 0) {
        hp_idmap_deinit(&moved);
        (void)unlink(path); /* it may not be there */
        return;
    }
    if (hp_dir_fsync(spool->dir, NULL) != HP_OK) {
        spool->broken = true; /* which of the two files a crash leaves is not known */
    }
    hp_idmap_deinit(&spool->live);
    spool->live = moved;
    int old_fd = spool->fd;
    spool->fd = fd;
    fd = old_fd;
    spool->file_bytes = bytes;
    spool->live_bytes = bytes - FILE_HEAD_BYTES;
    spool->compact_count++;
}

void hp_spool_flush(struct hp_spool *spool)
{
    if (spool->broken || spool->queued_from != 0) {
        return; /* records wait for their sync */
    }
    if (hp_idmap_count(&spool->live) == 0 &&
        (spool->file_bytes > FILE_HEAD_BYTES || spool->queue.size > 0)) {
        hp_buf_clear(&spool->queue);
        HP_CRASH_POINT("spool.truncate");
        if (spool->file_bytes > FILE_HEAD_BYTES && ftruncate(spool->fd, FILE_HEAD_BYTES) == 0) {
            spool->file_bytes = FILE_HEAD_BYTES;
            spool->compact_count++;
        }
        spool->live_bytes = 0;
        return;
    }
    if (spool->queue.size > 0 && write_queue(spool, NULL) != HP_OK) {
        return; /* acknowledgements may be lost: S3 */
    }
    if (spool->file_bytes > COMPACT_BYTES && spool->live_bytes < spool->file_bytes / 4) {
        compact(spool);
    }
}

void hp_spool_get_stats(const struct hp_spool *spool, struct hp_spool_stats *ret_stats)
{
    *ret_stats = (struct hp_spool_stats){
        .live_count = hp_idmap_count(&spool->live),
        .file_bytes = spool->file_bytes,
        .cut_bytes = spool->cut_bytes,
        .sync_count = spool->sync_count,
        .compact_count = spool->compact_count,
    };
}
