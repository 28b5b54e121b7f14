/* SPDX-License-Identifier: BSD-2-Clause */
/* Whole-file reads, durable writes, folders, free space. */
#include "common/sys/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/base/str.h"

#define READ_BYTES 65536u

enum hp_err hp_err_of_errno(int errno_value)
{
    switch (errno_value) {
    case 0:
        return HP_OK;
    case ENOENT:
    case ESRCH:
        return HP_ERR_NOT_FOUND;
    case EEXIST:
        return HP_ERR_EXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
        return HP_ERR_DENIED;
    case ENOSPC:
    case EDQUOT:
        return HP_ERR_NOSPACE;
    case ENOMEM:
        return HP_ERR_NOMEM;
    case EAGAIN:
        return HP_ERR_AGAIN;
    case EBUSY:
        return HP_ERR_BUSY;
    case EINVAL:
    case ENAMETOOLONG:
    case ENOTDIR:
    case EISDIR:
        return HP_ERR_INVALID;
    case ENOSYS:
    case EOPNOTSUPP:
        return HP_ERR_UNSUPPORTED;
    case EMFILE:
    case ENFILE:
        return HP_ERR_FULL;
    case ETIMEDOUT:
        return HP_ERR_TIMEOUT;
    case EPIPE:
    case ECONNRESET:
    case ECONNREFUSED:
        return HP_ERR_CLOSED;
    default:
        return HP_ERR_IO;
    }
}

/* "can not <verb> <path>: <system text>" */
static enum hp_err fail(struct hp_error *reterr, const char *verb, const char *path,
                        int errno_value)
{
    char text[128];
    return hp_error_set(reterr, hp_err_of_errno(errno_value), "can not %s %s: %s", verb, path,
                        strerror_r(errno_value, text, sizeof(text)));
}

void hp_fd_close(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd); /* after fsync there is nothing a close error could tell */
        *fd = -1;
    }
}

/* Reads to the end; errno_value is 0 when the error is not the system's. */
static enum hp_err read_all(int fd, struct hp_buf *buf, int *ret_errno)
{
    *ret_errno = 0;
    for (;;) {
        uint8_t *at = NULL;
        size_t room = HP_MIN(READ_BYTES, buf->max - buf->size);
        enum hp_err err = hp_buf_reserve(buf, room, &at);
        if (err != HP_OK) {
            return err;
        }
        uint8_t extra = 0; /* when full, one byte more shows whether the file is too big */
        ssize_t got = room > 0 ? read(fd, at, room) : read(fd, &extra, 1);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            *ret_errno = errno;
            return hp_err_of_errno(errno);
        }
        if (got == 0) {
            return HP_OK;
        }
        if (room == 0) {
            return HP_ERR_TOO_BIG;
        }
        hp_buf_commit(buf, (size_t)got);
    }
}

enum hp_err hp_file_read(const char *path, size_t max_bytes, struct hp_buf *ret_buf,
                         struct hp_error *reterr)
{
    hp_buf_init(ret_buf, max_bytes);
    HP_CLEANUP(hp_fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fail(reterr, "open", path, errno);
    }
    int errno_value = 0;
    enum hp_err err = read_all(fd, ret_buf, &errno_value);
    if (err == HP_OK) {
        return HP_OK;
    }
    hp_buf_deinit(ret_buf);
    if (errno_value != 0) {
        return fail(reterr, "read", path, errno_value);
    }
    return hp_error_set(reterr, err, "can not read %s: %s", path, hp_err_text(err));
}

enum hp_err hp_fd_write_all(int fd, const void *data, size_t size)
{
    const uint8_t *at = data;
    while (size > 0) {
        ssize_t done = write(fd, at, size);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return hp_err_of_errno(errno);
        }
        at += done;
        size -= (size_t)done;
    }
    return HP_OK;
}

/* The folder of a path: "." if it has none. False if it does not fit. */
static bool folder_of(const char *path, char out[PATH_MAX])
{
    if (hp_strlcpy(out, path, PATH_MAX) >= PATH_MAX) {
        return false;
    }
    char *slash = strrchr(out, '/');
    if (slash == NULL) {
        out[0] = '.';
        out[1] = '\0';
    } else {
        slash[slash == out ? 1 : 0] = '\0';
    }
    return true;
}

/* Writes, syncs and renames the open temporary file; 0 or an errno. */
static int finish_temporary(int fd, const char *temporary, const char *path, const void *data,
                            size_t size, mode_t mode)
{
    errno = 0;
    if (fchmod(fd, mode) != 0 || hp_fd_write_all(fd, data, size) != HP_OK || fsync(fd) != 0 ||
        rename(temporary, path) != 0) {
        return errno != 0 ? errno : EIO;
    }
    return 0;
}

enum hp_err hp_file_write_atomic(const char *path, const void *data, size_t size, mode_t mode,
                                 struct hp_error *reterr)
{
    char folder[PATH_MAX];
    char temporary[PATH_MAX];
    int length = snprintf(temporary, sizeof(temporary), "%s.tmp-XXXXXX", path);
    if (length < 0 || (size_t)length >= sizeof(temporary) || !folder_of(path, folder)) {
        return fail(reterr, "write", path, ENAMETOOLONG);
    }
    HP_CLEANUP(hp_fd_close) int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        return fail(reterr, "create a file beside", path, errno);
    }
    int errno_value = finish_temporary(fd, temporary, path, data, size, mode);
    if (errno_value != 0) {
        (void)unlink(temporary); /* best effort: the first error is the one to report */
        return fail(reterr, "write", path, errno_value);
    }
    return hp_dir_fsync(folder, reterr);
}

enum hp_err hp_dir_fsync(const char *path, struct hp_error *reterr)
{
    HP_CLEANUP(hp_fd_close) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return fail(reterr, "open", path, errno);
    }
    return fsync(fd) == 0 ? HP_OK : fail(reterr, "sync", path, errno);
}

/* Makes one folder unless it is there. 0 or an errno. */
static int make_one(const char *path, mode_t mode)
{
    if (mkdir(path, mode) == 0) {
        return 0;
    }
    int errno_value = errno;
    struct stat info;
    if (stat(path, &info) == 0) {
        return S_ISDIR(info.st_mode) ? 0 : ENOTDIR;
    }
    return errno_value;
}

enum hp_err hp_mkdir_p(const char *path, mode_t mode, struct hp_error *reterr)
{
    char part[PATH_MAX];
    size_t size = hp_strlcpy(part, path, sizeof(part));
    if (size == 0 || size >= sizeof(part)) {
        return fail(reterr, "make", path, size == 0 ? ENOENT : ENAMETOOLONG);
    }
    int errno_value = 0;
    for (char *at = part + 1; *at != '\0' && errno_value == 0; at++) {
        if (*at == '/') {
            *at = '\0';
            errno_value = make_one(part, 0755);
            *at = '/';
        }
    }
    if (errno_value == 0) {
        errno_value = make_one(part, mode);
    }
    return errno_value == 0 ? HP_OK : fail(reterr, "make folder", path, errno_value);
}

enum hp_err hp_fd_preallocate(int fd, uint64_t offset, uint64_t size)
{
    if (size == 0) {
        return HP_OK;
    }
    if (offset > INT64_MAX || size > INT64_MAX - offset) {
        return HP_ERR_RANGE;
    }
    while (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size) != 0) {
        if (errno != EINTR) {
            return hp_err_of_errno(errno);
        }
    }
    return HP_OK;
}

enum hp_err hp_path_free_space(const char *path, unsigned *ret_percent, uint64_t *ret_bytes,
                               struct hp_error *reterr)
{
    struct statvfs info;
    if (statvfs(path, &info) != 0) {
        return fail(reterr, "look at the file system of", path, errno);
    }
    /* As df counts: of what an ordinary user could use at all. */
    uint64_t used = (uint64_t)info.f_blocks - info.f_bfree;
    uint64_t total = used + info.f_bavail;
    if (ret_percent != NULL) {
        *ret_percent = total > 0 ? (unsigned)((uint64_t)info.f_bavail * 100 / total) : 100;
    }
    if (ret_bytes != NULL) {
        *ret_bytes = (uint64_t)info.f_bavail * info.f_frsize;
    }
    return HP_OK;
}
