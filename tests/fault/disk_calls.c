/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The calls. A definition in the program comes before that of the C library, also for libsqlite3.
 * Both names of those with 64-bit offsets are one function here.
 */
#undef _FORTIFY_SOURCE
#undef _FILE_OFFSET_BITS /* else open is another name of open64 here */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/fault/clock.h"
#include "tests/fault/disk_inside.h"

#define ALIAS(name) __attribute__((alias(#name)))
#pragma GCC diagnostic ignored "-Wmissing-prototypes" /* the C library's other names for them */

/* The node of a descriptor of ours, or -1. */
static int32_t node_of(int fd)
{
    return disk_.journal != NULL && !disk_.is_busy && fd >= 0 && fd < DISK_FDS ? disk_.of_fd[fd]
                                                                               : -1;
}

static bool is_ours(const char *path, struct disk_path *ret)
{
    return disk_.journal != NULL && !disk_.is_busy && disk_resolve(path, ret);
}

/* ------------------------------------------------------------------ open and close */
static int open_real(int folder, const char *path, int flags, mode_t mode)
{
    return (int)syscall(SYS_openat, folder, path, flags, mode);
}

static int open_ours(const char *path, int flags, mode_t mode, const struct disk_path *at)
{
    if (disk_judge(DISK_OPEN) == DISK_FAIL) {
        return -1;
    }
    int fd = open_real(AT_FDCWD, path, flags, mode);
    if (fd < 0) {
        return fd;
    }
    if (fd >= DISK_FDS) {
        disk_die("too many descriptors", path);
    }
    uint32_t node = at->node;
    if (!at->exists) {
        node = disk_note_name(at->folder, at->name, false, NULL);
    } else if ((flags & O_TRUNC) != 0) {
        disk_add(DISK_DID_TRUNCATE, node)->size = 0;
    }
    disk_.of_fd[fd] = (int32_t)node;
    return fd;
}

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    struct disk_path at;
    if ((flags & O_CREAT) != 0) {
        va_list args;
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    }
    return is_ours(path, &at) ? open_ours(path, flags, mode, &at)
                              : open_real(AT_FDCWD, path, flags, mode);
}
ALIAS(open) int open64(const char *path, int flags, ...);

int __open_2(const char *path, int flags)
{
    return open(path, flags);
}
ALIAS(__open_2) int __open64_2(const char *path, int flags);

int mkostemp(char *path, int flags)
{
    static unsigned number;
    size_t size = strlen(path);
    (void)snprintf(path + size - 6, 7, "%06u", number++ % 1000000);
    return open(path, flags | O_RDWR | O_CREAT | O_EXCL, 0600);
}
ALIAS(mkostemp) int mkostemp64(char *path, int flags);

int close(int fd)
{
    if (fd >= 0 && fd < DISK_FDS) {
        disk_.of_fd[fd] = -1;
    }
    return (int)syscall(SYS_close, fd);
}

/* ------------------------------------------------------------------ reading and writing */
static size_t part_of(size_t size)
{
    return size > 1 ? size / 2 : size;
}

static ssize_t read_real(int fd, void *data, size_t size, off_t offset)
{
    return offset < 0 ? syscall(SYS_read, fd, data, size)
                      : syscall(SYS_pread64, fd, data, size, offset);
}

static ssize_t read_any(int fd, void *data, size_t size, off_t offset)
{
    if (node_of(fd) >= 0) {
        enum disk_verdict verdict = disk_judge(DISK_READ);
        if (verdict == DISK_FAIL) {
            return -1;
        }
        size = verdict == DISK_DO_IN_PART ? part_of(size) : size;
    }
    return read_real(fd, data, size, offset);
}

ssize_t read(int fd, void *data, size_t size)
{
    return read_any(fd, data, size, -1);
}

ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    return read_any(fd, data, size, offset);
}
ALIAS(pread) ssize_t pread64(int fd, void *data, size_t size, off_t offset);

#define SECTOR_BYTES 512u

/* A sector that is there is overwritten whole, or not at all; everything else may end in between.
 */
static size_t part_written(int fd, size_t size, off_t at)
{
    struct stat about;
    size_t in_sector = (size_t)at % SECTOR_BYTES;
    bool is_there = fstat(fd, &about) == 0 && at + (off_t)size <= about.st_size;
    return is_there && in_sector + size <= SECTOR_BYTES ? size : part_of(size);
}

static ssize_t write_any(int fd, const void *data, size_t size, off_t offset)
{
    int32_t node = node_of(fd);
    if (node < 0) {
        return offset < 0 ? syscall(SYS_write, fd, data, size)
                          : syscall(SYS_pwrite64, fd, data, size, offset);
    }
    enum disk_verdict verdict = disk_judge(DISK_WRITE);
    if (verdict == DISK_FAIL) {
        return -1;
    }
    off_t at = offset >= 0 ? offset : lseek(fd, 0, SEEK_CUR);
    size = verdict == DISK_DO_IN_PART ? part_written(fd, size, at) : size;
    ssize_t done = offset < 0 ? syscall(SYS_write, fd, data, size)
                              : syscall(SYS_pwrite64, fd, data, size, offset);
    if (done > 0) {
        disk_note_write((uint32_t)node, (uint64_t)at, data, (uint64_t)done);
    }
    return done;
}

ssize_t write(int fd, const void *data, size_t size)
{
    return write_any(fd, data, size, -1);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return write_any(fd, data, size, offset);
}
ALIAS(pwrite) ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset);

ssize_t sendfile(int out, int in, off_t *offset, size_t size)
{
    static uint8_t buffer[1 << 16];
    if (node_of(out) < 0 || offset != NULL) {
        return syscall(SYS_sendfile, out, in, offset, size);
    }
    ssize_t n = read(in, buffer, size < sizeof(buffer) ? size : sizeof(buffer));
    return n <= 0 ? n : write(out, buffer, (size_t)n);
}
ALIAS(sendfile) ssize_t sendfile64(int out, int in, off_t *offset, size_t size);

/* ------------------------------------------------------------------ syncs and sizes */
static int sync_any(int fd, long number)
{
    int32_t node = node_of(fd);
    if (node >= 0 && disk_judge(DISK_SYNC) == DISK_FAIL) {
        (void)disk_add(DISK_DID_FAIL_SYNC, (uint32_t)node);
        return -1;
    }
    if (node >= 0) {
        (void)disk_add(DISK_DID_SYNC, (uint32_t)node);
        return 0; /* nobody cuts the power of this machine */
    }
    return (int)syscall(number, fd);
}

int fsync(int fd)
{
    return sync_any(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return sync_any(fd, SYS_fdatasync);
}

int ftruncate(int fd, off_t size)
{
    int32_t node = node_of(fd);
    if (node >= 0 && disk_judge(DISK_TRUNCATE) == DISK_FAIL) {
        return -1;
    }
    int result = (int)syscall(SYS_ftruncate, fd, size);
    if (node >= 0 && result == 0) {
        disk_add(DISK_DID_TRUNCATE, (uint32_t)node)->size = (uint64_t)size;
    }
    return result;
}
ALIAS(ftruncate) int ftruncate64(int fd, off_t size);

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    if (node_of(fd) >= 0 && disk_judge(DISK_ALLOCATE) == DISK_FAIL) {
        return -1;
    }
    /* Only ever asked to reserve space (KEEP_SIZE): nothing of it can be read. */
    return (int)syscall(SYS_fallocate, fd, mode, offset, size);
}
ALIAS(fallocate) int fallocate64(int fd, int mode, off_t offset, off_t size);

/* ------------------------------------------------------------------ names */
int rename(const char *from, const char *to)
{
    struct disk_path source;
    struct disk_path target;
    bool ours = is_ours(from, &source) && is_ours(to, &target);
    if (ours && disk_judge(DISK_RENAME) == DISK_FAIL) {
        return -1;
    }
    int result = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (ours && result == 0) {
        if (source.folder != target.folder) {
            disk_die("renamed to another folder", to);
        }
        disk_note_move(source.folder, source.name, target.name);
    }
    return result;
}

static int remove_any(const char *path, int flags)
{
    struct disk_path at;
    bool ours = is_ours(path, &at);
    if (ours && disk_judge(DISK_UNLINK) == DISK_FAIL) {
        return -1;
    }
    int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, flags);
    if (ours && result == 0) {
        disk_note_remove(at.folder, at.name);
    }
    return result;
}

int unlink(const char *path)
{
    return remove_any(path, 0);
}

int rmdir(const char *path)
{
    return remove_any(path, AT_REMOVEDIR);
}

int mkdir(const char *path, mode_t mode)
{
    struct disk_path at;
    bool ours = is_ours(path, &at);
    if (ours && disk_judge(DISK_MKDIR) == DISK_FAIL) {
        return -1;
    }
    int result = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (ours && result == 0) {
        (void)disk_note_name(at.folder, at.name, true, NULL);
    }
    return result;
}

int link(const char *from, const char *to)
{
    struct disk_path source;
    struct disk_path target;
    bool ours = is_ours(from, &source) && is_ours(to, &target);
    if (ours && disk_judge(DISK_LINK) == DISK_FAIL) {
        return -1;
    }
    int result = (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (ours && result == 0) {
        (void)disk_note_name(target.folder, target.name, false, &source.node);
    }
    return result;
}

/* ------------------------------------------------------------------ time */
static uint64_t clock_us = 1000000;

void fault_clock_set(uint64_t us)
{
    clock_us = us;
}

void fault_clock_advance(uint64_t ms)
{
    clock_us += ms * 1000;
}

double fault_clock_real_s(void)
{
    struct timespec now;
    (void)syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int clock_gettime(clockid_t id, struct timespec *ret)
{
    (void)id;
    clock_us++;
    *ret = (struct timespec){.tv_sec = (time_t)(clock_us / 1000000),
                             .tv_nsec = (long)(clock_us % 1000000) * 1000};
    return 0;
}
