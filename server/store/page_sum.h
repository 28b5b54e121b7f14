/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Checksums of database pages, between SQLite and the file: rows have digests of their own, but a
 * damaged page may hide rows, and what is missing proves nothing.
 *
 * Each page of a database made by hostpool ends with HP_PAGE_SUM_BYTES reserved bytes; the last
 * eight are the XXH3-64 of the page before them, seeded with the page's offset (so a page in the
 * place of another is noticed). It is put in when a page is written to the file, which is at
 * checkpoints, and compared when it is read: a mismatch is SQLITE_IOERR_DATA. Pages in the log have
 * SQLite's own checksums. A database whose header reserves no bytes (made before) is not checked.
 *
 * Other programs can read such a database; one that writes it (or only checkpoints the log of a
 * broker that was killed) leaves pages which this refuses.
 */
#ifndef HP_SERVER_STORE_PAGE_SUM_H
#define HP_SERVER_STORE_PAGE_SUM_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

/* Two bits: no flip of one makes it 0. */
#define HP_PAGE_SUM_BYTES 24

/* Name of the VFS to open databases with; registers it at the first call. NULL: out of memory, or
 * SQLite has no VFS. */
const char *hp_page_sum_vfs(void);
/* For a new database, before its first page: reserves the bytes. An SQLite code. */
int hp_page_sum_reserve(sqlite3 *db);
/* For the target of a backup of `from`: its pages come in any order, the first one with the header
 * last. An SQLite code. */
int hp_page_sum_as(sqlite3 *db, sqlite3 *from);
/* Number (1 is the first) of the page that failed latest in this process; 0: none has. */
uint64_t hp_page_sum_bad_page(void);
/* Compares the checksum of page `number`, `size` bytes of it. */
bool hp_page_sum_is_good(const uint8_t *page, uint32_t size, uint64_t number);

#endif
