/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files as the daemons need them: whole reads with a limit, writes that survive a power cut, locks
 * that name their holder. Errors carry the path and the system's text in reterr (may be NULL). All
 * calls may block on the disk. Descriptors are opened close-on-exec.
 */
#ifndef HP_SYS_FILE_H
#define HP_SYS_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/buf.h"
#include "common/base/err.h"

/* The hp_err of a system error number: ENOENT -> NOT_FOUND, ENOSPC -> NOSPACE, ... else IO. */
enum hp_err hp_err_of_errno(int errno_value);

/*
 * Reads a whole file. *ret_buf is made by this call (its max is `max_bytes`) and is the caller's to
 * deinit on success; on error it holds nothing. HP_ERR_TOO_BIG: more than max_bytes.
 */
enum hp_err hp_file_read(const char *path, size_t max_bytes, struct hp_buf *ret_buf,
                         struct hp_error *reterr) HP_MUST_CHECK;

/*
 * Replaces a file at once and durably: temporary file beside it, fsync, rename, fsync of the
 * folder. On error the old file is untouched and no temporary file stays.
 */
enum hp_err hp_file_write_atomic(const char *path, const void *data, size_t size, mode_t mode,
                                 struct hp_error *reterr) HP_MUST_CHECK;

/* Writes all bytes to a blocking descriptor, through short writes and EINTR. */
enum hp_err hp_fd_write_all(int fd, const void *data, size_t size) HP_MUST_CHECK;

/* Makes the entries of a folder durable. */
enum hp_err hp_dir_fsync(const char *path, struct hp_error *reterr) HP_MUST_CHECK;

/* Makes a folder and its parents (parents 0755, the last one `mode`); existing ones are fine. */
enum hp_err hp_mkdir_p(const char *path, mode_t mode, struct hp_error *reterr) HP_MUST_CHECK;

/*
 * Takes an exclusive lock on the file `path` (made if missing) and writes the process id into it.
 * The lock belongs to the open file (OFD), so it lasts until *ret_fd is closed or the process dies,
 * and children that inherit nothing do not hold it. HP_ERR_BUSY: another holds it; reterr names its
 * pid.
 */
enum hp_err hp_lock_acquire(const char *path, int *ret_fd, struct hp_error *reterr) HP_MUST_CHECK;

/* Releases a lock of hp_lock_acquire and sets *fd to -1; -1 is fine. The file stays. */
void hp_lock_release(int *fd);

/* Reserves disk space for [offset, offset+size) without changing the size. HP_ERR_NOSPACE. */
enum hp_err hp_fd_preallocate(int fd, uint64_t offset, uint64_t size) HP_MUST_CHECK;

/* Free space for this user where `path` is: percent 0 .. 100 and bytes (each may be NULL). */
enum hp_err hp_path_free_space(const char *path, unsigned *ret_percent, uint64_t *ret_bytes,
                               struct hp_error *reterr) HP_MUST_CHECK;

/* Closes *fd unless it is -1 and sets it to -1. For HP_CLEANUP. */
void hp_fd_close(int *fd);

#endif
