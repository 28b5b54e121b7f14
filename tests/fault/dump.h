/* SPDX-License-Identifier: BSD-2-Clause */
/* All that a store says about the tasks of a history, a fact a line. */
#ifndef HP_TESTS_FAULT_DUMP_H
#define HP_TESTS_FAULT_DUMP_H

#include "tests/lib/store_history.h"

/* Appends to `out`; returns the first error of a load (loads after it are done all the same). */
enum hp_err dump_facts(FILE *out, struct hp_store *store, const struct history *h);
/* Recovers the store and appends what it reports. */
enum hp_err dump_recovery(FILE *out, struct hp_store *store, struct hp_error *reterr);

/* The lines of a text as hashes, sorted. */
struct lines {
    uint64_t *items;
    uint32_t count;
};
void lines_take(struct lines *lines, const char *text);
void lines_free(struct lines *lines);
bool lines_have(const struct lines *lines, uint64_t item);
uint64_t line_hash(const char *line, size_t size);

#endif
