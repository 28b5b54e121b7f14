/* SPDX-License-Identifier: BSD-2-Clause */
#include "client/near.h"

#include <errno.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/file.h"
#include "common/sys/near.h"

static bool prove(uint32_t pid, uint32_t fd, const uint8_t proof[HP_CLIENT_NEAR_KEY_BYTES])
{
    return hp_near_proof_check(pid, fd, proof) == HP_OK;
}

static enum hp_err give(const struct hp_bytes *parts, uint32_t part_count, size_t size,
                        const uint8_t key[HP_CLIENT_NEAR_KEY_BYTES],
                        struct hp_client_place *ret_place, int *ret_fd)
{
    HP_CLEANUP(hp_fd_close) int fd = -1;
    struct hp_near_place place;
    enum hp_err err = hp_near_create(&fd);

    for (uint32_t i = 0; err == HP_OK && i < part_count; i++) {
        err = hp_fd_write_all(fd, parts[i].data, parts[i].size);
    }
    err = err == HP_OK ? hp_near_seal(fd, size, key) : err;
    err = err == HP_OK ? hp_near_place_of(fd, &place) : err;
    if (err == HP_OK) {
        *ret_place = (struct hp_client_place){
            .pid = place.pid, .fd = place.fd, .device = place.device, .inode = place.inode};
        *ret_fd = fd;
        fd = -1; /* the caller's */
    }
    return err;
}

static void close_given(int fd)
{
    hp_fd_close(&fd);
}

static enum hp_err view(int fd, size_t size, const uint8_t **ret_data)
{
    return hp_near_map(fd, size, ret_data);
}

static void unview(const uint8_t *data, size_t size)
{
    hp_near_unmap(data, size);
}

/* Memory is mapped: private, so that its owner may write to it, and what it holds is sealed. */
static enum hp_err take_memory(int fd, uint64_t size, struct hp_buffer *ret_buffer)
{
    /* Behind the content is the key it was sealed with: room for the NUL. */
    void *map = mmap(NULL, (size_t)size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);

    if (map == MAP_FAILED) {
        return HP_ERR_NOMEM;
    }
    ((uint8_t *)map)[size] = 0;
    *ret_buffer = (struct hp_buffer){.data = map, .size = (size_t)size, .mapped = (size_t)size + 1};
    return HP_OK;
}

/* A file of the disk is read: a mapping would end the program if the disk failed. */
static enum hp_err take_file(int fd, uint64_t size, uint64_t digest, struct hp_buffer *ret_buffer)
{
    HP_CLEANUP(hp_free_ptr) uint8_t *data = hp_alloc((size_t)size + 1);
    size_t got = 0;

    if (data == NULL) {
        return HP_ERR_NOMEM;
    }
    while (got < size) {
        ssize_t step = pread(fd, data + got, (size_t)size - got, (off_t)got);

        if (step < 0 && errno == EINTR) {
            continue;
        }
        if (step <= 0) {
            return HP_ERR_IO;
        }
        got += (size_t)step;
    }
    if (XXH3_64bits(data, (size_t)size) != digest) {
        return HP_ERR_CORRUPT;
    }
    data[size] = 0;
    *ret_buffer = (struct hp_buffer){.data = HP_TAKE(data), .size = (size_t)size};
    return HP_OK;
}

static enum hp_err take(const struct hp_client_place *from, uint64_t size, const uint64_t *digest,
                        struct hp_buffer *ret_buffer)
{
    HP_CLEANUP(hp_fd_close) int fd = -1;
    struct hp_near_place place = {
        .pid = from->pid, .fd = from->fd, .device = from->device, .inode = from->inode};
    enum hp_err err = hp_near_open(&place, &fd);

    if (err != HP_OK) {
        return err;
    }
    return digest == NULL ? take_memory(fd, size, ret_buffer)
                          : take_file(fd, size, *digest, ret_buffer);
}

const struct hp_near_ops hp_near_system = {
    .bytes_min = HP_NEAR_BYTES_MIN,
    .prove = prove,
    .give = give,
    .close = close_given,
    .view = view,
    .unview = unview,
    .take = take,
};
