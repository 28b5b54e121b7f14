/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Content handed over between processes of one host by descriptor instead of over a connection.
 * The giver names a descriptor of its own (pid, number); the taker opens it through /proc, which
 * the system allows only for the same user (or root) and the same process namespace. Where that
 * fails for any reason the bytes go over the connection, so every error here is "not this way".
 *
 * What a stranger gives is trusted this far: a regular file of memory (memfd) that is sealed, so
 * that it can not change any more, and that ends with a key which only this connection's peer was
 * told. So nobody can make a process with more rights open a file for him that he can not read.
 *
 * Blocking, but only on memory. Safe in any thread.
 */
#ifndef HP_SYS_NEAR_H
#define HP_SYS_NEAR_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define HP_NEAR_KEY_BYTES 16u

/* Content smaller than this is not worth the way. */
#define HP_NEAR_BYTES_MIN ((uint64_t)64 << 10)

/* A descriptor of some process, and the file that it must be: numbers are used again. */
struct hp_near_place {
    uint32_t pid;
    uint32_t fd;
    uint64_t device;
    uint64_t inode;
};

/* An empty memory file (close-on-exec) to write content to. HP_ERR_NOMEM, HP_ERR_FULL. */
enum hp_err hp_near_create(int *ret_fd) HP_MUST_CHECK;

/*
 * Ends a file of `size` content bytes with the key and seals it: it can not change any more.
 * HP_ERR_BUSY: somebody maps it for writing. HP_ERR_INVALID: it has another size, or can not be
 * sealed. After an error it may have the key at its end, but not be sealed.
 */
enum hp_err hp_near_seal(int fd, uint64_t size, const uint8_t key[HP_NEAR_KEY_BYTES]) HP_MUST_CHECK;

/* Where this process's descriptor is. HP_ERR_IO: `fd` is none. */
enum hp_err hp_near_place_of(int fd, struct hp_near_place *ret_place) HP_MUST_CHECK;

/*
 * Opens another process's file for reading (close-on-exec). Only regular files, and only the one
 * that is meant, are opened; nothing else is touched. HP_ERR_NOT_FOUND: not there any more, or in
 * another namespace. HP_ERR_DENIED: not allowed.
 */
enum hp_err hp_near_open(const struct hp_near_place *place, int *ret_fd) HP_MUST_CHECK;

/* Is it as hp_near_seal left it? HP_ERR_INVALID otherwise. */
enum hp_err hp_near_check(int fd, uint64_t size,
                          const uint8_t key[HP_NEAR_KEY_BYTES]) HP_MUST_CHECK;

/* Maps the first `size` bytes (not 0) for reading. HP_ERR_NOMEM. Undone by hp_near_unmap. */
enum hp_err hp_near_map(int fd, uint64_t size, const uint8_t **ret_data) HP_MUST_CHECK;
void hp_near_unmap(const uint8_t *data, uint64_t size); /* NULL is fine */

/*
 * Proof that a peer is on this host: a sealed file with nothing but `key`; the other side opens
 * /proc/<pid>/fd/<fd> and compares. HP_ERR_NOMEM, HP_ERR_FULL. check: HP_ERR_INVALID if it is not.
 */
enum hp_err hp_near_proof_new(const uint8_t key[HP_NEAR_KEY_BYTES], int *ret_fd) HP_MUST_CHECK;
enum hp_err hp_near_proof_check(uint32_t pid, uint32_t fd,
                                const uint8_t key[HP_NEAR_KEY_BYTES]) HP_MUST_CHECK;

#endif
