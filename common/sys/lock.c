/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lock files. Open-file-description locks, because classic record locks vanish when any descriptor
 * of the file is closed. The pid in the file is only for the message: the lock alone decides.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/str.h"
#include "common/sys/file.h"

#define PID_TEXT_BYTES 32u

static enum hp_err fail(struct hp_error *reterr, const char *path, int errno_value)
{
    char text[128];
    return hp_error_set(reterr, hp_err_of_errno(errno_value), "can not lock %s: %s", path,
                        strerror_r(errno_value, text, sizeof(text)));
}

static enum hp_err fail_busy(struct hp_error *reterr, const char *path, int fd)
{
    char text[PID_TEXT_BYTES];
    ssize_t size = pread(fd, text, sizeof(text), 0);
    struct hp_str pid_text = {.data = text, .size = size > 0 ? (uint32_t)size : 0};
    while (pid_text.size > 0 && text[pid_text.size - 1] == '\n') {
        pid_text.size--;
    }
    uint64_t pid = 0;
    if (hp_parse_u64(pid_text, &pid, NULL) != HP_OK) {
        return hp_error_set(reterr, HP_ERR_BUSY, "%s is locked by another process", path);
    }
    return hp_error_set(reterr, HP_ERR_BUSY, "%s is locked by process %llu", path,
                        (unsigned long long)pid);
}

/* 0 or an errno. */
static int write_pid(int fd)
{
    char text[PID_TEXT_BYTES];
    int size = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)size, 0) != size) {
        return errno != 0 ? errno : EIO;
    }
    return 0;
}

enum hp_err hp_lock_acquire(const char *path, int *ret_fd, struct hp_error *reterr)
{
    HP_CLEANUP(hp_fd_close) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        return fail(reterr, path, errno);
    }
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
        if (errno == EAGAIN || errno == EACCES) {
            return fail_busy(reterr, path, fd);
        }
        return fail(reterr, path, errno);
    }
    int errno_value = write_pid(fd);
    if (errno_value != 0) {
        return fail(reterr, path, errno_value);
    }
    *ret_fd = fd;
    fd = -1; /* handed over */
    return HP_OK;
}

void hp_lock_release(int *fd)
{
    hp_fd_close(fd);
}
