/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Large content by descriptor, where client and broker are on one host: what the pure engine asks
 * its shell to do. The shell's functions are in near.c; the simulator has none.
 *
 * Both directions are tried only after the broker's proof was read (hello), and what fails goes
 * over the connection: a refusal of blob.give ends giving for the rest of the connection, one of
 * blob.lend only concerns that blob.
 */
#ifndef HP_CLIENT_NEAR_H
#define HP_CLIENT_NEAR_H

#include "client/include/hostpool.h"
#include "common/base/err.h"

#define HP_CLIENT_NEAR_KEY_BYTES 16

/* A descriptor of a process, and the file that it is. */
struct hp_client_place {
    uint32_t pid;
    uint32_t fd;
    uint64_t device;
    uint64_t inode;
};

/* All may block, but only on memory, or on reading a file of the broker. */
struct hp_near_ops {
    uint64_t bytes_min; /* smaller content goes over the connection */
    /* Is the broker's process on this host? */
    bool (*prove)(uint32_t pid, uint32_t fd, const uint8_t proof[HP_CLIENT_NEAR_KEY_BYTES]);
    /* Puts the parts, `size` bytes in all, into a sealed file; *ret_fd is open until `close`. */
    enum hp_err (*give)(const struct hp_bytes *parts, uint32_t part_count, size_t size,
                        const uint8_t key[HP_CLIENT_NEAR_KEY_BYTES],
                        struct hp_client_place *ret_place, int *ret_fd);
    void (*close)(int fd);
    /* What was given, to be read until `unview`, also when its descriptor is closed. */
    enum hp_err (*view)(int fd, size_t size, const uint8_t **ret_data);
    void (*unview)(const uint8_t *data, size_t size);
    /*
     * Takes what is lent: *ret_buffer is the caller's (hp_buffer_clear), with a NUL behind the
     * bytes. digest: NULL, or to be checked (HP_ERR_CORRUPT).
     */
    enum hp_err (*take)(const struct hp_client_place *place, uint64_t size, const uint64_t *digest,
                        struct hp_buffer *ret_buffer);
};

extern const struct hp_near_ops hp_near_system;

#endif
