/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Result runs: the results of neighbouring ids that arrived in one transaction, as one row.
 *
 * Row: count, expires_at, uniform (0 or 1), base_ms, items_size, items, end records one by one.
 * Item: a byte, 1 if state, reason, attempt, failures, losses, node follow, else they are those of
 * the item before; started - base; ended - started; size of its end record.
 * A uniform row has one item. A worker's burst so costs some six bytes a task besides its output.
 */
#include <string.h>

#include "common/base/assert.h"
#include "server/store/row.h"

static bool facts_equal(const struct hp_result *a, const struct hp_result *b)
{
    return a->state == b->state && a->reason == b->reason && a->attempt == b->attempt &&
           a->failures == b->failures && a->losses == b->losses && a->node == b->node;
}

static void put_item(struct hp_row_out *out, const struct hp_result *result,
                     const struct hp_result *last, int64_t base_ms)
{
    bool same = last != NULL && facts_equal(result, last);
    hp_row_put_u64(out, same ? 0 : 1);
    if (!same) {
        hp_row_put_u64(out, result->state);
        hp_row_put_u64(out, result->reason);
        hp_row_put_u64(out, result->attempt);
        hp_row_put_u64(out, result->failures);
        hp_row_put_u64(out, result->losses);
        hp_row_put_u64(out, result->node);
    }
    hp_row_put_delta(out, (uint64_t)result->started_at_ms, (uint64_t)base_ms);
    hp_row_put_delta(out, (uint64_t)result->ended_at_ms, (uint64_t)result->started_at_ms);
    hp_row_put_u64(out, result->end.size);
}

/* How many neighbours from results[0] on may share a row; the latest expiry in *ret_expires_at_ms.
 */
static uint32_t count_neighbours(const struct hp_result *const *results, uint32_t result_count,
                                 int64_t *ret_expires_at_ms)
{
    const struct hp_result *head = results[0];
    int64_t low = head->expires_at_ms;
    int64_t high = head->expires_at_ms;
    size_t bytes = head->end.size;
    uint32_t n = 1;
    for (; head->count == 1 && n < result_count && n < HP_RESULT_RUN_ITEMS_MAX; n++) {
        const struct hp_result *next = results[n];
        int64_t next_low = next->expires_at_ms < low ? next->expires_at_ms : low;
        int64_t next_high = next->expires_at_ms > high ? next->expires_at_ms : high;
        bytes += next->end.size;
        if (next->first != head->first + n || next->count != 1 ||
            next->first >> 20 != head->first >> 20 ||
            next_high - next_low > HP_RESULT_EXPIRES_SLACK_MS || bytes > HP_RESULT_RUN_BYTES_MAX) {
            break;
        }
        low = next_low;
        high = next_high;
    }
    *ret_expires_at_ms = high;
    return n;
}

uint32_t hp_row_put_results(struct hp_row_out *out, const struct hp_result *const *results,
                            uint32_t result_count, uint32_t *ret_count)
{
    HP_ASSERT(result_count > 0 && results[0]->count > 0);
    int64_t expires_at_ms = 0;
    uint32_t n = count_neighbours(results, result_count, &expires_at_ms);
    const struct hp_result *head = results[0];
    uint32_t count = n == 1 ? head->count : n;
    int64_t base_ms = head->started_at_ms;

    hp_row_clear(out);
    for (uint32_t i = 0; i < n; i++) { /* items first: their size stands before them */
        put_item(out, results[i], i > 0 ? results[i - 1] : NULL, base_ms);
    }
    size_t items_size = out->size;
    hp_row_put_u64(out, count);
    hp_row_put_i64(out, expires_at_ms);
    hp_row_put_u64(out, count > n ? 1 : 0);
    hp_row_put_i64(out, base_ms);
    hp_row_put_u64(out, items_size);
    size_t head_size = out->size - items_size;
    if (!out->failed) { /* rotate: head before items */
        uint8_t temp[5 * 10];
        HP_ASSERT(head_size <= sizeof(temp));
        memcpy(temp, out->data + items_size, head_size);
        memmove(out->data + head_size, out->data, items_size);
        memcpy(out->data, temp, head_size);
    }
    for (uint32_t i = 0; i < n; i++) {
        hp_row_put_raw(out, results[i]->end.data, results[i]->end.size);
    }
    hp_row_seal(out, HP_ROW_RESULT, head->first);
    *ret_count = count;
    return n;
}

bool hp_result_run_open(struct hp_result_run *run, struct hp_bin row, uint64_t first)
{
    struct hp_row_in in;
    if (!hp_row_open(&in, row, HP_ROW_RESULT, first)) {
        return false;
    }
    *run = (struct hp_result_run){.first = first};
    run->count = hp_row_get_u32(&in);
    run->expires_at_ms = hp_row_get_i64(&in);
    run->uniform = hp_row_get_u64(&in) != 0;
    run->base_ms = hp_row_get_i64(&in);
    struct hp_bin items = hp_row_get_bin(&in);
    if (in.failed || run->count == 0) {
        return false;
    }
    run->in = (struct hp_row_in){.at = items.data, .end = items.data + items.size};
    run->ends = in.at;
    run->ends_size = (size_t)(in.end - in.at);
    return true;
}

static bool next_item(struct hp_result_run *run)
{
    struct hp_row_in *in = &run->in;
    struct hp_result *result = &run->last;
    if (hp_row_get_u64(in) != 0) {
        result->state = hp_row_get_u32(in);
        result->reason = hp_row_get_u32(in);
        result->attempt = hp_row_get_u32(in);
        result->failures = hp_row_get_u32(in);
        result->losses = hp_row_get_u32(in);
        result->node = hp_row_get_u32(in);
    }
    result->started_at_ms = (int64_t)hp_row_get_delta(in, (uint64_t)run->base_ms);
    result->ended_at_ms = (int64_t)hp_row_get_delta(in, (uint64_t)result->started_at_ms);
    uint32_t size = hp_row_get_u32(in);
    if (in->failed || size > run->ends_size - run->end_offset) {
        return false;
    }
    result->end =
        (struct hp_bin){.data = size > 0 ? run->ends + run->end_offset : NULL, .size = size};
    run->end_offset += size;
    run->index++;
    return true;
}

bool hp_result_run_get(struct hp_result_run *run, uint64_t id, struct hp_result *ret_result)
{
    HP_ASSERT(id >= run->first && id - run->first < run->count);
    uint32_t index = run->uniform ? 0 : (uint32_t)(id - run->first);
    HP_ASSERT(run->index <= index + 1);
    while (run->index <= index) {
        if (!next_item(run)) {
            return false;
        }
    }
    *ret_result = run->last;
    ret_result->first = id;
    ret_result->count = 1;
    ret_result->expires_at_ms = run->expires_at_ms;
    return true;
}
