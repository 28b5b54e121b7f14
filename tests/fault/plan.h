/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside of a script: what its steps are. plan_next gives the same steps for the same seed. */
#ifndef HP_TESTS_FAULT_PLAN_H
#define HP_TESTS_FAULT_PLAN_H

#include "tests/fault/dump.h"

#define STEP_BATCHES 3

struct step {
    struct hp_batch *batches[STEP_BATCHES];
    uint32_t batch_count;
    uint64_t blob; /* 0: none; written before the commit, owned by `owner` */
    uint64_t blob_owner;
    uint32_t blob_size;
    bool forgets;        /* then slices of background work, to the end */
    bool reaps;          /* a pass of retention behind it */
    bool restarts;       /* then an orderly stop and a start */
    uint32_t advance_ms; /* time that passes then */
};

struct plan {
    struct history history;
    uint64_t batch_number;
    uint64_t op_count;
};

void plan_init(struct plan *plan, uint64_t seed);
void plan_next(struct plan *plan, struct step *step);
void step_clear(struct step *step);
/* A batch with a REAP op. */
struct hp_batch *plan_reap(struct plan *plan);
/* Byte `at` of a blob. */
uint8_t blob_byte(uint64_t blob, uint64_t at);

#endif
