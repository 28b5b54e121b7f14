/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads the rows of a SQLite database that SQLite itself may refuse to read: damaged, cut short,
 * without its log, or with a damaged one. Nothing is written, and nothing is believed: what a row
 * says must be proved by its own digest (row.h). Internal to sqlite_salvage*.c.
 *
 * Pages are taken from the log (its last committed frame of each page) and else from the file.
 * First come the rows of pages that are reached from the list of tables; then those of pages that
 * nothing reaches, and that are not free, because what leads to them is damaged; then those of
 * frames of the log behind a damaged frame. The later kinds may be out of date: rows that were
 * deleted since.
 */
#ifndef HP_SERVER_STORE_PAGES_H
#define HP_SERVER_STORE_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bin.h"
#include "common/base/err.h"

enum hp_pages_origin {
    HP_PAGES_LIVE,  /* reached from the list of tables */
    HP_PAGES_LOOSE, /* nothing leads there, though it is not free */
    HP_PAGES_FRAME, /* in the log, behind what can be verified */
};

#define HP_PAGES_COLUMNS_MAX 6u
#define HP_PAGES_NAME_BYTES 64u

enum hp_pages_type { HP_PAGES_NULL, HP_PAGES_INT, HP_PAGES_BYTES };

struct hp_pages_column {
    enum hp_pages_type type;
    int64_t number;
    struct hp_bin bytes;
};

struct hp_pages_row {
    enum hp_pages_origin origin;
    const char *table; /* its name if it is known, else "" */
    uint32_t page;
    bool has_rowid; /* a table with row ids; else one that is its own index, or an index */
    uint64_t rowid;
    bool is_whole; /* false: some of its overflow pages are unreadable; zeroes stand for them */
    uint32_t column_count;
    struct hp_pages_column columns[HP_PAGES_COLUMNS_MAX];
};

typedef enum hp_err hp_pages_fn(void *context, const struct hp_pages_row *row,
                                struct hp_error *reterr);

struct hp_pages_figures {
    uint32_t page_count;    /* that there should be */
    uint32_t missing_count; /* behind the end of the file, and not in the log */
    uint32_t damaged_count; /* reached, but no page of the kind that it should be */
    uint32_t loose_count;   /* pages with rows that nothing leads to */
    uint32_t frame_count;   /* frames of the log behind a damaged one */
    bool no_file;           /* the database file is missing, or too short to be one */
    bool no_header;         /* the first page is not that of a database */
    bool no_tables;         /* the list of tables is unreadable */
    bool has_log;
    bool log_damaged;
};

struct hp_pages;

/* Opens the files DIR/hostpool.db and, if it is there, DIR/hostpool.db-wal, only to read. */
enum hp_err hp_pages_open(const char *dir, struct hp_pages **ret_pages, struct hp_error *reterr);
/* Calls fn for every row that can be decoded; its bytes live until it returns. */
enum hp_err hp_pages_each(struct hp_pages *pages, hp_pages_fn *fn, void *context,
                          struct hp_error *reterr);
void hp_pages_figures(const struct hp_pages *pages, struct hp_pages_figures *ret_figures);
/* NULL is fine. */
void hp_pages_close(struct hp_pages *pages);

#endif
