/* SPDX-License-Identifier: BSD-2-Clause */
#include "common/sys/near.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/macro.h"
#include "common/sys/file.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)
#define PATH_BYTES 64u

static enum hp_err failed(void)
{
    return hp_err_of_errno(errno);
}

enum hp_err hp_near_create(int *ret_fd)
{
    int fd = memfd_create("hp-near", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return failed();
    }
    *ret_fd = fd;
    return HP_OK;
}

enum hp_err hp_near_seal(int fd, uint64_t size, const uint8_t key[HP_NEAR_KEY_BYTES])
{
    struct stat facts;
    if (fstat(fd, &facts) != 0 || (uint64_t)facts.st_size != size) {
        return HP_ERR_INVALID;
    }
    ssize_t written = pwrite(fd, key, HP_NEAR_KEY_BYTES, (off_t)size);
    if (written != (ssize_t)HP_NEAR_KEY_BYTES) {
        return written < 0 ? failed() : HP_ERR_NOSPACE;
    }
    if (fcntl(fd, F_ADD_SEALS, SEALS) != 0) {
        return errno == EBUSY ? HP_ERR_BUSY : HP_ERR_INVALID;
    }
    return HP_OK;
}

enum hp_err hp_near_place_of(int fd, struct hp_near_place *ret_place)
{
    struct stat facts;
    if (fstat(fd, &facts) != 0) {
        return failed();
    }
    *ret_place = (struct hp_near_place){.pid = (uint32_t)getpid(),
                                        .fd = (uint32_t)fd,
                                        .device = (uint64_t)facts.st_dev,
                                        .inode = (uint64_t)facts.st_ino};
    return HP_OK;
}

/* A reference to whatever it is, which opens nothing yet: no device, no pipe notices. */
static enum hp_err refer(uint32_t pid, uint32_t fd, int *ret_fd, struct stat *ret_facts)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof(path), "/proc/%u/fd/%u", pid, fd); /* fits */
    int ref = open(path, O_PATH | O_CLOEXEC);
    if (ref < 0) {
        return failed();
    }
    if (fstat(ref, ret_facts) != 0 || !S_ISREG(ret_facts->st_mode)) {
        (void)close(ref); /* nothing was written */
        return HP_ERR_INVALID;
    }
    *ret_fd = ref;
    return HP_OK;
}

/* Opens what a reference refers to, which can not become another file meanwhile. */
static enum hp_err reopen(int ref, int *ret_fd)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", ref); /* fits */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        return failed();
    }
    *ret_fd = fd;
    return HP_OK;
}

enum hp_err hp_near_open(const struct hp_near_place *place, int *ret_fd)
{
    HP_CLEANUP(hp_fd_close) int ref = -1;
    struct stat facts;
    enum hp_err err = refer(place->pid, place->fd, &ref, &facts);
    if (err != HP_OK) {
        return err;
    }
    if ((uint64_t)facts.st_dev != place->device || (uint64_t)facts.st_ino != place->inode) {
        return HP_ERR_NOT_FOUND;
    }
    return reopen(ref, ret_fd);
}

enum hp_err hp_near_check(int fd, uint64_t size, const uint8_t key[HP_NEAR_KEY_BYTES])
{
    struct stat facts;
    uint8_t end[HP_NEAR_KEY_BYTES];
    int seals = fcntl(fd, F_GET_SEALS); /* fails for all but memory files */
    bool good = seals >= 0 && (seals & SEALS) == SEALS && fstat(fd, &facts) == 0 &&
                (uint64_t)facts.st_size == size + HP_NEAR_KEY_BYTES &&
                pread(fd, end, sizeof(end), (off_t)size) == (ssize_t)sizeof(end) &&
                memcmp(end, key, sizeof(end)) == 0;
    return good ? HP_OK : HP_ERR_INVALID;
}

enum hp_err hp_near_map(int fd, uint64_t size, const uint8_t **ret_data)
{
    void *data = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        return HP_ERR_NOMEM;
    }
    *ret_data = data;
    return HP_OK;
}

void hp_near_unmap(const uint8_t *data, uint64_t size)
{
    if (data != NULL) {
        (void)munmap((void *)(uintptr_t)data, (size_t)size); /* as it was mapped */
    }
}

enum hp_err hp_near_proof_new(const uint8_t key[HP_NEAR_KEY_BYTES], int *ret_fd)
{
    HP_CLEANUP(hp_fd_close) int fd = -1;
    enum hp_err err = hp_near_create(&fd);
    err = err == HP_OK ? hp_near_seal(fd, 0, key) : err;
    if (err == HP_OK) {
        *ret_fd = fd;
        fd = -1; /* the caller's */
    }
    return err;
}

enum hp_err hp_near_proof_check(uint32_t pid, uint32_t fd, const uint8_t key[HP_NEAR_KEY_BYTES])
{
    HP_CLEANUP(hp_fd_close) int ref = -1;
    HP_CLEANUP(hp_fd_close) int own = -1;
    struct stat facts;
    enum hp_err err = refer(pid, fd, &ref, &facts);
    err = err == HP_OK ? reopen(ref, &own) : err;
    return err == HP_OK ? hp_near_check(own, 0, key) : err;
}
