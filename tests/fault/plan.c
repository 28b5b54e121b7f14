/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/fault/plan.h"

#define GROUP_MAX 7u

void plan_init(struct plan *plan, uint64_t seed)
{
    memset(plan, 0, sizeof(*plan));
    history_init(&plan->history, seed, GROUP_MAX);
}

uint8_t blob_byte(uint64_t blob, uint64_t at)
{
    return (uint8_t)(blob * 31 + at * 7 + (at >> 9));
}

static void add_blob(struct plan *plan, struct step *step)
{
    static const uint32_t sizes[] = {0, 1, 511, 4096, 65536, 70000, 140000};
    struct history *h = &plan->history;
    struct hp_batch *batch = step->batches[step->batch_count - 1];
    step->blob = plan->batch_number * 64 + pick(h, 3); /* three folders */
    step->blob_owner = h->group_of[h->used - 1];
    step->blob_size = sizes[pick(h, sizeof(sizes) / sizeof(sizes[0]))];
    struct hp_op *op = hp_batch_add(batch, HP_OP_BLOB);
    op->blob.blob = step->blob;
    op->blob.owner = step->blob_owner;
}

void plan_next(struct plan *plan, struct step *step)
{
    static const uint32_t pauses[] = {0, 0, 0, 3, 3, 50, 1500, 3000};
    struct history *h = &plan->history;
    uint32_t used = h->used;
    *step = (struct step){.batch_count = 1 + (uint32_t)pick(h, STEP_BATCHES)};
    for (uint32_t i = 0; i < step->batch_count; i++) {
        step->batches[i] = hp_batch_new();
        hp_batch_clear(step->batches[i], ++plan->batch_number);
        random_step(h, step->batches[i]);
    }
    if (h->used > used && pick(h, 3) == 0) {
        add_blob(plan, step);
    }
    if (pick(h, 6) == 0) {
        random_forget(h, step->batches[step->batch_count - 1]);
        step->forgets = true;
    }
    h->wall_ms += 10000 * (int64_t)pick(h, 2);
    step->reaps = pick(h, 10) == 0;
    step->restarts = pick(h, 25) == 0;
    step->advance_ms = pauses[pick(h, sizeof(pauses) / sizeof(pauses[0]))];
    for (uint32_t i = 0; i < step->batch_count; i++) {
        plan->op_count += step->batches[i]->op_count;
    }
}

void step_clear(struct step *step)
{
    for (uint32_t i = 0; i < step->batch_count; i++) {
        hp_batch_free(step->batches[i]);
    }
    *step = (struct step){0};
}

struct hp_batch *plan_reap(struct plan *plan)
{
    struct hp_batch *batch = hp_batch_new();
    hp_batch_clear(batch, ++plan->batch_number);
    hp_batch_add(batch, HP_OP_REAP)->reap.wall_ms = plan->history.wall_ms;
    return batch;
}
