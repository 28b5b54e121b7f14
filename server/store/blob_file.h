/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Blob files: blobs/ab/<id>, ab = the lowest byte of the id in hex, <id> 16 hex digits.
 *
 * Layout: the bytes; a table with the XXH3-64 of each 64 KiB block, little-endian; a footer: magic
 * "hpblob1\n", size u64, digest u64 (XXH3-64 of all bytes), digest u64 of table and the footer
 * before. So any chunk is checked when it is read, without reading the rest. While being written a
 * file is named <id>.part; the rename makes it a blob.
 */
#ifndef HP_SERVER_STORE_BLOB_FILE_H
#define HP_SERVER_STORE_BLOB_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

#define HP_BLOB_BLOCK_BYTES ((uint32_t)64 << 10)
#define HP_BLOB_PATH_BYTES 4096u

/* Path of a blob, or of its unfinished file. HP_ERR_TOO_BIG: does not fit. */
enum hp_err hp_blob_path(const char *blob_dir, uint64_t blob, bool unfinished,
                         char ret_path[HP_BLOB_PATH_BYTES], struct hp_error *reterr);

/* Makes all folders, durably: the first blobs need not wait for theirs. */
enum hp_err hp_blob_make_folders(const char *blob_dir, struct hp_error *reterr);

/* A blob being written. */
struct hp_blob_writer;

/* Makes the folder and the unfinished file (one of the same id is replaced). */
enum hp_err hp_blob_writer_new(const char *blob_dir, uint64_t blob, uint64_t size,
                               struct hp_blob_writer **ret_writer, struct hp_error *reterr);
/* Past the page cache, as far as file system and alignment allow: for bytes that stay in memory
 * elsewhere. Writes of whole MiB from a page boundary pay best. */
void hp_blob_writer_direct(struct hp_blob_writer *writer);
uint64_t hp_blob_writer_size(const struct hp_blob_writer *writer); /* announced */
uint64_t hp_blob_writer_written(const struct hp_blob_writer *writer);
uint64_t hp_blob_writer_digest(const struct hp_blob_writer *writer); /* of what was written */
/* Appends; more than announced is HP_ERR_RANGE. After an error drop the writer. */
enum hp_err hp_blob_writer_append(struct hp_blob_writer *writer, const void *data, uint32_t size,
                                  struct hp_error *reterr);
/* Writes table and footer, syncs the file, renames it. The name is durable only after
 * hp_blob_dir_sync of the same blob: callers batch those. */
enum hp_err hp_blob_writer_finish(struct hp_blob_writer *writer, struct hp_error *reterr);
/* Frees; removes the unfinished file unless finished. NULL is fine. */
void hp_blob_writer_free(struct hp_blob_writer *writer);

/* Links or, on another file system, copies a blob into another directory of blobs; a copy is
 * synced, its name is not. *ret_bytes is the size of the file. HP_ERR_NOT_FOUND: there is none. */
enum hp_err hp_blob_copy(const char *from_dir, const char *to_dir, uint64_t blob,
                         uint64_t *ret_bytes, struct hp_error *reterr);

/* Syncs the folder that holds a blob's name. */
enum hp_err hp_blob_dir_sync(const char *blob_dir, uint64_t blob, struct hp_error *reterr);

/* Reads up to `size` bytes at `offset` into `out` (room for `size`), checking them against their
 * digests. Reading at or past the end gives 0 bytes. HP_ERR_NOT_FOUND, HP_ERR_CORRUPT, HP_ERR_IO.
 */
enum hp_err hp_blob_read(const char *blob_dir, uint64_t blob, uint64_t offset, uint32_t size,
                         void *out, uint32_t *ret_size, uint64_t *ret_blob_size,
                         uint64_t *ret_digest, struct hp_error *reterr);

/* Opens a blob's file, whose first `size` bytes are the blob. Errors as hp_blob_read. */
enum hp_err hp_blob_open(const char *blob_dir, uint64_t blob, int *ret_fd, uint64_t *ret_size,
                         uint64_t *ret_digest, struct hp_error *reterr);

/* Reads size and digest from the footer, which is checked. Errors as hp_blob_read. */
enum hp_err hp_blob_stat(const char *blob_dir, uint64_t blob, uint64_t *ret_size,
                         uint64_t *ret_digest, struct hp_error *reterr);

/* Calls fn for each file of a folder (0 .. 255), unfinished ones too. A missing folder is empty. */
#define HP_BLOB_FOLDERS 256u
typedef enum hp_err hp_blob_list_fn(void *context, uint64_t blob, bool unfinished,
                                    int64_t modified_s, struct hp_error *reterr);
enum hp_err hp_blob_list(const char *blob_dir, uint32_t folder, hp_blob_list_fn *fn, void *context,
                         struct hp_error *reterr);

#endif
