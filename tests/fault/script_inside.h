/* SPDX-License-Identifier: BSD-2-Clause */
/* Between script.c and verify.c. */
#ifndef HP_TESTS_FAULT_SCRIPT_INSIDE_H
#define HP_TESTS_FAULT_SCRIPT_INSIDE_H

#include "server/datadir.h"
#include "tests/fault/plan.h"
#include "tests/fault/script.h"

/*
 * A moment is the state after a step's commit, by the store in memory, which does the same.
 * Retention runs behind it in slices of its own, so each fact may be as before or as after it.
 */
struct moment {
    struct lines before, after; /* its background work */
    uint32_t used;
    int64_t wall_ms;
};

struct blob_fact {
    uint64_t blob, owner;
    uint32_t size;
    uint32_t step;
    uint32_t forgotten; /* the step whose FORGET names its owner: then it may go (S9) */
};

struct script {
    uint64_t seed;
    uint32_t steps;
    uint64_t ops;
    struct moment *moments;
    struct blob_fact *blobs;
    uint32_t blob_count;
};

struct broker {
    struct hp_datadir dir;
    struct hp_store *store;
    atomic_bool keep_log;
};
/* As the broker starts; what recovery reports goes to `records`. After an error nothing is open. */
enum hp_err broker_start(struct broker *broker, const char *dir, FILE *records,
                         struct hp_error *reterr);
void broker_end(struct broker *broker, bool is_orderly);

/* The text of a line of a moment (before its background work). */
void script_find_line(const struct script *script, uint32_t number, uint64_t hash, char *ret,
                      size_t size);

bool script_verify(const void *subject, const char *dir, uint64_t mark, bool works_on,
                   char why[800]);
bool script_verify_damaged(const void *subject, const char *dir, uint64_t mark, const char *what,
                           bool *ret_noticed, char why[800]);

#endif
