/* SPDX-License-Identifier: BSD-2-Clause */
/* Random histories of tasks as batches of ops, as the core would make them. */
#ifndef HP_TESTS_STORE_HISTORY_H
#define HP_TESTS_STORE_HISTORY_H

#include "common/base/rand.h"
#include "tests/unit/store_fixture.h"

#define HISTORY_WALL_MS INT64_C(1700000000000)

enum life { LIFE_NONE, LIFE_WAITING, LIFE_LEASED, LIFE_SIDE, LIFE_ENDED };
#define TASKS_MAX 6000u
#define ID_BASE ((UINT64_C(1) << 20) - 2500) /* the bucket's border is inside */

struct history {
    struct hp_rand rand;
    uint32_t group_max; /* tasks of most submits */
    uint8_t life[TASKS_MAX];
    uint8_t attempt[TASKS_MAX];
    uint64_t group_of[TASKS_MAX];
    uint32_t used;
    uint64_t segment[4];
    uint64_t head[4];
    uint64_t ready[4]; /* as the lane's row has it */
    int64_t wall_ms;
};

static inline void history_init(struct history *h, uint64_t seed, uint32_t group_max)
{
    memset(h, 0, sizeof(*h));
    hp_rand_init(&h->rand, seed);
    h->group_max = group_max;
    h->wall_ms = HISTORY_WALL_MS;
}

static inline uint64_t pick(struct history *h, uint64_t n)
{
    return hp_rand_uniform(&h->rand, n);
}

static inline void random_submit(struct history *h, struct hp_batch *batch)
{
    uint32_t count = pick(h, 8) == 0 ? h->group_max * 15 : 1 + (uint32_t)pick(h, h->group_max);
    uint64_t first = ID_BASE + h->used;
    if (first >> 20 != (first + count - 1) >> 20) {
        uint32_t skip = (uint32_t)((((first >> 20) + 1) << 20) - first);
        h->used += skip;
        first += skip;
    }
    if (h->used + count > TASKS_MAX) {
        return;
    }
    uint32_t lane = (uint32_t)pick(h, 4);
    char pack[32];
    (void)snprintf(pack, sizeof(pack), "pack %" PRIu64, first);
    add_group(batch, first, count, lane, h->wall_ms, "options", pick(h, 3) == 0 ? "" : pack);
    bool delayed = pick(h, 4) == 0;
    for (uint32_t i = 0; i < count; i++) {
        h->life[h->used + i] = delayed ? LIFE_SIDE : LIFE_WAITING;
        h->group_of[h->used + i] = first;
    }
    if (delayed) {
        add_side(batch, HP_SIDE_DELAYED, first, count, h->wall_ms + (int64_t)pick(h, 5) * 1000);
    } else {
        add_segment(batch, lane, h->segment[lane]++, first, count, h->wall_ms);
        add_lane(batch, lane, pick(h, 2) == 0 ? "" : "key", h->head[lane], h->segment[lane], 5);
        h->ready[lane] = 5;
    }
    if (pick(h, 4) == 0) {
        add_side(batch, HP_SIDE_EXPIRY, first, count, h->wall_ms + (int64_t)pick(h, 5) * 1000);
    }
    h->used += count;
}

/* A batch of nothing but one submit, of which the store may leave rows for later. */
static inline void random_lone_submit(struct history *h, struct hp_batch *batch)
{
    uint32_t count = 1 + (uint32_t)pick(h, 3);
    uint32_t lane = (uint32_t)pick(h, 4);
    uint64_t first = ID_BASE + h->used;
    if (first >> 20 != (first + count - 1) >> 20 || h->used + count > TASKS_MAX) {
        return;
    }
    add_group(batch, first, count, lane, h->wall_ms, "options", "alone");
    add_segment(batch, lane, h->segment[lane]++, first, count, h->wall_ms);
    h->ready[lane] += count;
    add_lane(batch, lane, "", h->head[lane], h->segment[lane], h->ready[lane]);
    for (uint32_t i = 0; i < count; i++) {
        h->life[h->used + i] = LIFE_WAITING;
        h->group_of[h->used + i] = first;
    }
    h->used += count;
    if (pick(h, 2) == 0) {
        struct hp_op *op = hp_batch_add(batch, HP_OP_SESSION);
        op->session.id = hp_batch_copy(batch, "key-000000000000", 16);
        op->session.state = hp_batch_copy(batch, "alone", 5);
        op->session.seen_at_ms = h->wall_ms;
    }
}

static inline void random_lease(struct history *h, struct hp_batch *batch)
{
    if (h->used == 0) {
        return;
    }
    uint32_t from = (uint32_t)pick(h, h->used);
    uint32_t count = 1 + (uint32_t)pick(h, 200);
    for (uint32_t i = from; i < h->used && i < from + count; i++) {
        if (h->life[i] == LIFE_WAITING) {
            h->life[i] = LIFE_LEASED;
            add_lease(batch, ID_BASE + i, h->group_of[i], ++h->attempt[i]);
        }
    }
}

static inline void random_end(struct history *h, struct hp_batch *batch)
{
    if (h->used == 0) {
        return;
    }
    uint32_t from = (uint32_t)pick(h, h->used);
    uint32_t count = 1 + (uint32_t)pick(h, 700);
    uint32_t keep = (uint32_t)pick(h, 4);
    int64_t expires = h->wall_ms + (int64_t)pick(h, 3) * 20000;
    for (uint32_t i = from; i < h->used && i < from + count; i++) {
        uint64_t id = ID_BASE + i;
        if (h->life[i] != LIFE_LEASED || (keep > 0 && pick(h, 4) < keep)) {
            continue;
        }
        uint64_t what = pick(h, 40);
        if (what == 0) {
            add_side(batch, HP_SIDE_RETURNED, id, 1, h->wall_ms + (int64_t)pick(h, 9) * 100);
            h->life[i] = LIFE_SIDE;
        } else if (what == 1) {
            add_side(batch, HP_SIDE_BURIED, id, 1, 0);
            h->life[i] = LIFE_SIDE;
        } else if (what == 2) {
            add_side(batch, HP_SIDE_CANCELLING, id, 1, 0);
        } else {
            char end[32];
            (void)snprintf(end, sizeof(end), "end %" PRIu64, id);
            add_result(batch, id, 1, 1 + (uint32_t)(pick(h, 20) == 0), expires,
                       pick(h, 2) == 0 ? end : "");
            if (pick(h, 2) == 0) {
                add_side_del(batch, id, false);
            }
            h->life[i] = LIFE_ENDED;
        }
    }
}

/* Cancels a stretch of waiting tasks by one uniform result. */
static inline void random_cancel(struct history *h, struct hp_batch *batch)
{
    if (h->used == 0) {
        return;
    }
    uint32_t from = (uint32_t)pick(h, h->used);
    uint32_t i = from;
    while (i < h->used && h->life[i] == LIFE_WAITING && h->group_of[i] == h->group_of[from]) {
        h->life[i++] = LIFE_ENDED;
    }
    if (i > from) {
        add_result(batch, ID_BASE + from, i - from, 3, h->wall_ms + 20000, "");
    }
}

/* Delayed and returned tasks become due: leased directly, or a whole delayed range waits. */
static inline void random_due(struct history *h, struct hp_batch *batch)
{
    if (h->used == 0) {
        return;
    }
    uint32_t i = (uint32_t)pick(h, h->used);
    if (h->life[i] != LIFE_SIDE) {
        return;
    }
    if (h->attempt[i] > 0) {
        add_side_del(batch, ID_BASE + i, false);
        add_lease(batch, ID_BASE + i, h->group_of[i], ++h->attempt[i]);
        h->life[i] = LIFE_LEASED;
        return;
    }
    uint64_t first = h->group_of[i];
    add_side_del(batch, first, false);
    for (uint32_t k = (uint32_t)(first - ID_BASE); k < h->used && h->group_of[k] == first; k++) {
        h->life[k] = LIFE_WAITING;
    }
}

static inline void random_other(struct history *h, struct hp_batch *batch)
{
    char text[20];
    (void)snprintf(text, sizeof(text), "key-%012u", (unsigned)pick(h, 6));
    struct hp_op *op = NULL;
    switch (pick(h, 6)) {
    case 0:
        op = hp_batch_add(batch, HP_OP_UKEY);
        op->ukey.key = hp_batch_copy(batch, text, 16);
        op->ukey.id = pick(h, 1000);
        break;
    case 1:
        hp_batch_add(batch, HP_OP_UKEY_DEL)->ukey.key = hp_batch_copy(batch, text, 16);
        break;
    case 2:
        op = hp_batch_add(batch, HP_OP_SESSION);
        op->session.id = hp_batch_copy(batch, text, 16);
        op->session.state = hp_batch_copy(batch, text, pick(h, 17));
        op->session.seen_at_ms = h->wall_ms;
        break;
    case 3: {
        uint32_t lane = (uint32_t)pick(h, 4);
        h->head[lane] += h->head[lane] < h->segment[lane] ? pick(h, 2) : 0;
        h->ready[lane] = pick(h, 100);
        add_lane(batch, lane, "", h->head[lane], h->segment[lane], h->ready[lane]);
        break;
    }
    case 4:
        op = hp_batch_add(batch, HP_OP_NODE);
        op->node.number = (uint32_t)pick(h, 5);
        op->node.name = hp_batch_copy(batch, text, 16);
        break;
    default:
        op = hp_batch_add(batch, HP_OP_META);
        op->meta.next_id = ID_BASE + h->used + pick(h, 1000);
        op->meta.next_blob = pick(h, 100);
        break;
    }
}

/* Clients forget ranges, ended or not, in any order. */
static inline void random_forget(struct history *h, struct hp_batch *batch)
{
    uint32_t count = 1 + (uint32_t)pick(h, 3);
    struct hp_id_span spans[3];
    for (uint32_t i = 0; i < count; i++) {
        spans[i].first = pick(h, 10) == 0 ? 1 : ID_BASE + pick(h, h->used + 1U);
        spans[i].count = pick(h, 4) == 0 ? UINT32_MAX : 1 + (uint32_t)pick(h, 300);
    }
    struct hp_op *op = hp_batch_add(batch, HP_OP_FORGET);
    op->forget.spans = hp_arena_copy(&batch->arena, spans, count * sizeof(spans[0]));
    op->forget.span_count = count;
    op->forget.wall_ms = h->wall_ms;
}

static inline void random_step(struct history *h, struct hp_batch *batch)
{
    if (pick(h, 3) == 0) {
        random_lone_submit(h, batch);
        return;
    }
    for (uint64_t n = pick(h, 8); n > 0; n--) {
        switch (pick(h, 8)) {
        case 0:
            random_submit(h, batch);
            break;
        case 1:
        case 2:
            random_lease(h, batch);
            break;
        case 3:
        case 4:
            random_end(h, batch);
            break;
        case 5:
            random_cancel(h, batch);
            break;
        case 6:
            random_due(h, batch);
            break;
        default:
            random_other(h, batch);
            break;
        }
    }
}

#endif
