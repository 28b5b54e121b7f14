/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Builds the answer to a load: arrays that grow in the answer's arena, bytes copied into it, and
 * the one place which knows when an answer is full. Internal to server/store.
 */
#ifndef HP_SERVER_STORE_ANSWER_H
#define HP_SERVER_STORE_ANSWER_H

#include "server/core/op.h"

#define HP_ANSWER_BYTES_DEFAULT ((uint32_t)256 << 10)
#define HP_ANSWER_SLICE_US ((uint64_t)2000) /* S4 */

struct hp_answer {
    struct hp_loaded *loaded;
    const struct hp_load *load;
    size_t bytes; /* so far, about */
    size_t bytes_max;
    uint64_t deadline_us; /* 0: none; else hp_clock_mono_us of the end of the slice */
    uint32_t step;        /* the clock is read every few steps only */
    bool run_open;        /* the last run may grow */
    uint32_t run_capacity, group_capacity, task_capacity, side_capacity;
};

void hp_answer_init(struct hp_answer *answer, struct hp_loaded *loaded);
/* To be called once all is added: nothing may be added behind. */
void hp_answer_finish(struct hp_answer *answer);

/* True if the limit, the bytes or the time is used up; never while it holds nothing. */
bool hp_answer_is_full(struct hp_answer *answer);
/* True if the time is used up, whatever was found: a scan that finds nothing must end, too. */
bool hp_answer_is_late(struct hp_answer *answer);

struct hp_bin hp_answer_copy(struct hp_answer *answer, struct hp_bin bin);
/* Sets loaded->text. */
void hp_answer_text(struct hp_answer *answer, const char *text);
/* Sets loaded->err and text. */
void hp_answer_fail(struct hp_answer *answer, enum hp_err err, const char *text);

/* What is added next does not continue the run before. */
void hp_answer_begin_run(struct hp_answer *answer);
/* Adds ids; they join the last run if they follow it. */
void hp_answer_add_ids(struct hp_answer *answer, uint64_t segment, uint64_t first, uint32_t count,
                       int64_t since_ms);

/* True if the group added last is this one. */
bool hp_answer_has_group(const struct hp_answer *answer, uint64_t first);
/* Bytes are copied. */
void hp_answer_add_group(struct hp_answer *answer, const struct hp_loaded_group *group);
/* Copies the end record if the load wants it, else empties it. */
void hp_answer_add_task(struct hp_answer *answer, const struct hp_loaded_task *task);
void hp_answer_add_side(struct hp_answer *answer, const struct hp_side *side);

/* Order by (run_at_ms, first); NULL is last. 0 also for two NULLs. */
int hp_answer_side_order(const struct hp_side *a, const struct hp_side *b);

#endif
