/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lists of things: the same columns as a table (libsmartcols), as JSON (jansson) or as identifiers.
 * A verb describes its columns once and hands over rows; the flags decide what is printed.
 */
#ifndef HP_CLI_LISTING_H
#define HP_CLI_LISTING_H

#include "cli/cli.h"

enum hp_cli_cell_kind {
    HP_CLI_CELL_NONE, /* not known: "-", null */
    HP_CLI_CELL_TEXT,
    HP_CLI_CELL_NUMBER,
    HP_CLI_CELL_SIGNED,
    HP_CLI_CELL_BOOL,
    HP_CLI_CELL_TIME,     /* wall-clock ms: relative on a terminal */
    HP_CLI_CELL_DURATION, /* ms: "12m" in tables, seconds in JSON */
    HP_CLI_CELL_SIZE,     /* bytes: "3.4 MiB" on a terminal */
    HP_CLI_CELL_WORDS,    /* list of texts */
};

struct hp_cli_cell {
    enum hp_cli_cell_kind kind;
    uint64_t number;
    int64_t signed_number;    /* SIGNED, TIME */
    const char *text;         /* TEXT; borrowed until the row has been added */
    const char *const *words; /* WORDS */
    size_t word_count;
    const char *color; /* of libsmartcols, for tables; NULL: none */
};

struct hp_cli_column {
    const char *name; /* for -o and JSON; the heading is its upper case */
    bool is_usual;    /* in the table without -o */
    bool is_right;    /* aligned to the right */
    bool is_cut;      /* may be cut on a narrow terminal */
    const char *text; /* for -o help */
};

struct hp_cli_listing;

/* Fills a cell of a row. `column` is the index in the columns. */
typedef void (*hp_cli_cell_fn)(const struct hp_cli *cli, const void *row, size_t column,
                               struct hp_cli_cell *ret_cell);

struct hp_cli_listing_spec {
    const char *list_name; /* "tasks": the key of the JSON document */
    const struct hp_cli_column *columns;
    size_t column_count;
    size_t id_column; /* for -q */
    hp_cli_cell_fn cell;
};

/*
 * Begins a listing as the flags ask. 0, or an exit code (a wrong column: error printed; -o help:
 * *ret_listing is NULL and the columns have been printed).
 */
int hp_cli_listing_begin(struct hp_cli *cli, const struct hp_cli_listing_spec *spec,
                         struct hp_cli_listing **ret_listing);
/* Adds a row; with --jsonl and -q it is printed at once. */
void hp_cli_listing_add(struct hp_cli_listing *listing, const void *row);
/* Prints what is to be printed. The listing is gone. Exit code 0 or 1. */
int hp_cli_listing_end(struct hp_cli_listing *listing);
/* Rows added so far. */
size_t hp_cli_listing_count(const struct hp_cli_listing *listing);

/* "-", "12m", "running" ... for pages that show one thing; from hp_cli_alloc. */
const char *hp_cli_cell_text(const struct hp_cli *cli, const struct hp_cli_cell *cell);

/* The JSON of a row with these columns (all if `chosen` is NULL). */
struct json_t;
struct json_t *hp_cli_row_json(const struct hp_cli *cli, const struct hp_cli_listing_spec *spec,
                               const void *row, const size_t *chosen, size_t chosen_count);
/* A JSON string of text which may be no UTF-8: then it is escaped. */
struct json_t *hp_cli_json_text(const char *text, size_t size);
/* Prints a document (or one line) to standard output and releases it. Exit code. */
int hp_cli_json_print(const struct hp_cli *cli, struct json_t *document);

/* One thing, "key  value" lines or JSON {list_name: [row]} as the flags ask. */
int hp_cli_show_rows(struct hp_cli *cli, const struct hp_cli_listing_spec *spec,
                     const void *const *rows, size_t row_count);

#endif
