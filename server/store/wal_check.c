/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/file.h"
#include "server/store/sqlite.h"
#include "server/store/wal.h"

#define PAGE_BYTES_MAX 65536u

struct log {
    int fd;
    uint8_t *frame; /* header and page */
    size_t page_bytes;
    uint8_t salt[HP_WAL_SALT_BYTES];
    bool big;
    uint32_t sum[2];
    uint64_t number; /* of the frame read latest, from 1 */
};

static bool read_whole(int fd, void *out, size_t size, uint64_t offset)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = pread(fd, (uint8_t *)out + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false; /* SQLite meets it, too, and says so */
        }
        done += (size_t)n;
    }
    return true;
}

static bool next_frame(struct log *log)
{
    size_t size = HP_WAL_FRAME_BYTES + log->page_bytes;
    return read_whole(log->fd, log->frame, size, HP_WAL_HEADER_BYTES + log->number++ * size);
}

/* Transactions' ends with the log's salt, from the frame at hand on; counts to two. */
static uint32_t count_ends(struct log *log)
{
    uint32_t count = 0;
    do {
        if (memcmp(log->frame + 8, log->salt, sizeof(log->salt)) == 0 &&
            hp_get_be32(log->frame) != 0 && hp_get_be32(log->frame + 4) != 0) {
            count++;
        }
    } while (count < 2 && next_frame(log));
    return count;
}

static enum hp_err check_frames(struct log *log, const char *path, struct hp_error *reterr)
{
    while (next_frame(log)) {
        if (hp_wal_frame_is_good(log->frame, log->big, log->salt, log->frame + HP_WAL_FRAME_BYTES,
                                 log->page_bytes, log->sum)) {
            continue;
        }
        uint64_t number = log->number;
        return count_ends(log) < 2
                   ? HP_OK
                   : hp_error_set(reterr, HP_ERR_CORRUPT,
                                  "%s: damaged: frame %" PRIu64 " fails its checksum, and commits "
                                  "follow; restore a backup, or see 'hostpool broker recover DIR "
                                  "NEW'",
                                  path, number);
    }
    return HP_OK;
}

/* SQLite writes and syncs the header before any frame, and the file is grown by zeros: without a
 * header there is no frame. */
static enum hp_err check_blank(struct log *log, const char *path, struct hp_error *reterr)
{
    static const uint8_t zeros[HP_WAL_FRAME_BYTES];
    for (uint64_t number = 1; next_frame(log); number++) {
        if (memcmp(log->frame, zeros, sizeof(zeros)) != 0) {
            return hp_error_set(reterr, HP_ERR_CORRUPT,
                                "%s: damaged: its header is gone, and frame %" PRIu64 " is there; "
                                "restore a backup, or see 'hostpool broker recover DIR NEW'",
                                path, number);
        }
    }
    return HP_OK;
}

enum hp_err hp_wal_check_fd(int fd, const char *path, struct hp_error *reterr)
{
    uint8_t header[HP_WAL_HEADER_BYTES];
    struct log log = {.fd = fd};
    if (!read_whole(fd, header, sizeof(header), 0)) {
        return HP_OK;
    }
    /* It is one sector: a power cut leaves the old one or the new one. */
    bool blank = hp_wal_is_blank(header);
    uint32_t page_bytes = blank ? HP_SQLITE_PAGE_BYTES : hp_get_be32(header + 8);
    if (!blank && (!hp_wal_header_is_good(header, &log.big, log.sum) || page_bytes == 0 ||
                   page_bytes > PAGE_BYTES_MAX)) {
        return hp_error_set(reterr, HP_ERR_CORRUPT,
                            "%s: damaged: its header fails its checksum; restore a backup, or see "
                            "'hostpool broker recover DIR NEW'",
                            path);
    }
    log.page_bytes = page_bytes;
    memcpy(log.salt, header + 16, sizeof(log.salt));
    log.frame = hp_alloc(HP_WAL_FRAME_BYTES + log.page_bytes);
    if (log.frame == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    enum hp_err err = blank ? check_blank(&log, path, reterr) : check_frames(&log, path, reterr);
    hp_free(log.frame);
    return err;
}

enum hp_err hp_wal_check(const char *path, struct hp_error *reterr)
{
    int fd HP_CLEANUP(hp_fd_close) = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? HP_OK : hp_wal_check_fd(fd, path, reterr);
}
