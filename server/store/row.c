/* SPDX-License-Identifier: BSD-2-Clause */
/* Encoding of rows, see row.h. */
#include "server/store/row.h"

#include <string.h>
#include <xxhash.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"

#define VARINT_BYTES_MAX 10u

/* ------------------------------------------------------------------ writing */
void hp_row_out_deinit(struct hp_row_out *out)
{
    hp_free(out->data);
    *out = (struct hp_row_out){0};
}

void hp_row_clear(struct hp_row_out *out)
{
    out->size = 0;
    out->failed = false;
}

static uint8_t *make_room(struct hp_row_out *out, size_t size)
{
    if (out->failed) {
        return NULL;
    }
    if (out->capacity - out->size < size) {
        size_t capacity = HP_MAX(out->capacity * 2, out->size + size);
        capacity = HP_MAX(capacity, (size_t)256);
        uint8_t *data = hp_realloc(out->data, capacity);
        if (data == NULL) {
            out->failed = true;
            return NULL;
        }
        out->data = data;
        out->capacity = capacity;
    }
    return out->data + out->size;
}

void hp_row_put_u64(struct hp_row_out *out, uint64_t value)
{
    uint8_t *start = make_room(out, VARINT_BYTES_MAX);
    if (start == NULL) {
        return;
    }
    uint8_t *at = start;
    while (value >= 0x80) {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *at++ = (uint8_t)value;
    out->size += (size_t)(at - start);
}

void hp_row_put_i64(struct hp_row_out *out, int64_t value)
{
    hp_row_put_u64(out, ((uint64_t)value << 1) ^ (uint64_t)(value >> 63));
}

void hp_row_put_delta(struct hp_row_out *out, uint64_t value, uint64_t base)
{
    hp_row_put_i64(out, (int64_t)(value - base));
}

void hp_row_put_raw(struct hp_row_out *out, const void *data, size_t size)
{
    uint8_t *at = make_room(out, size);
    if (at != NULL && size > 0) {
        memcpy(at, data, size);
        out->size += size;
    }
}

void hp_row_put_bin(struct hp_row_out *out, struct hp_bin bin)
{
    hp_row_put_u64(out, bin.size);
    hp_row_put_raw(out, bin.data, bin.size);
}

uint64_t hp_row_digest(const void *data, size_t size, enum hp_row_table table, uint64_t key)
{
    uint64_t seed = (key + (uint64_t)table) * UINT64_C(0x9e3779b97f4a7c15);
    return XXH3_64bits_withSeed(size > 0 ? data : "", size, seed ^ (uint64_t)table << 56);
}

void hp_row_seal(struct hp_row_out *out, enum hp_row_table table, uint64_t key)
{
    uint64_t digest = hp_row_digest(out->data, out->size, table, key);
    uint8_t bytes[HP_ROW_DIGEST_BYTES];
    for (unsigned i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(digest >> (8 * i));
    }
    hp_row_put_raw(out, bytes, sizeof(bytes));
}

/* ------------------------------------------------------------------ reading */
bool hp_row_open(struct hp_row_in *in, struct hp_bin row, enum hp_row_table table, uint64_t key)
{
    *in = (struct hp_row_in){.failed = true};
    if (row.size < HP_ROW_DIGEST_BYTES) {
        return false;
    }
    size_t size = row.size - HP_ROW_DIGEST_BYTES;
    uint64_t digest = 0;
    for (unsigned i = 0; i < HP_ROW_DIGEST_BYTES; i++) {
        digest |= (uint64_t)row.data[size + i] << (8 * i);
    }
    if (digest != hp_row_digest(row.data, size, table, key)) {
        return false;
    }
    *in = (struct hp_row_in){.at = row.data, .end = row.data + size};
    return true;
}

uint64_t hp_row_get_u64(struct hp_row_in *in)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (in->at == in->end) {
            break;
        }
        uint8_t byte = *in->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            return value;
        }
    }
    in->failed = true;
    in->at = in->end;
    return 0;
}

uint32_t hp_row_get_u32(struct hp_row_in *in)
{
    uint64_t value = hp_row_get_u64(in);
    if (value > UINT32_MAX) {
        in->failed = true;
        return 0;
    }
    return (uint32_t)value;
}

int64_t hp_row_get_i64(struct hp_row_in *in)
{
    uint64_t value = hp_row_get_u64(in);
    return (int64_t)((value >> 1) ^ (0 - (value & 1)));
}

uint64_t hp_row_get_delta(struct hp_row_in *in, uint64_t base)
{
    return base + (uint64_t)hp_row_get_i64(in);
}

struct hp_bin hp_row_get_bin(struct hp_row_in *in)
{
    uint32_t size = hp_row_get_u32(in);
    if (in->failed || size > (size_t)(in->end - in->at)) {
        in->failed = true;
        return (struct hp_bin){0};
    }
    struct hp_bin bin = {.data = in->at, .size = size};
    in->at += size;
    return bin;
}

bool hp_row_done(const struct hp_row_in *in)
{
    return !in->failed && in->at == in->end;
}

/* ------------------------------------------------------------------ groups */
void hp_row_put_group(struct hp_row_out *out, const struct hp_group_head *head)
{
    hp_row_clear(out);
    hp_row_put_u64(out, head->count);
    hp_row_put_u64(out, head->lane);
    hp_row_put_i64(out, head->created_at_ms);
    hp_row_put_u64(out, head->pack_size);
    hp_row_put_u64(out, head->pack_digest);
    hp_row_put_bin(out, head->session);
    hp_row_put_bin(out, head->options);
    hp_row_seal(out, HP_ROW_GROUP, head->first);
}

bool hp_row_get_group(struct hp_bin row, uint64_t first, struct hp_group_head *ret_head)
{
    struct hp_row_in in;
    struct hp_group_head head = {.first = first};
    if (!hp_row_open(&in, row, HP_ROW_GROUP, first)) {
        return false;
    }
    head.count = hp_row_get_u32(&in);
    head.lane = hp_row_get_u32(&in);
    head.created_at_ms = hp_row_get_i64(&in);
    head.pack_size = hp_row_get_u32(&in);
    head.pack_digest = hp_row_get_u64(&in);
    head.session = hp_row_get_bin(&in);
    head.options = hp_row_get_bin(&in);
    if (!hp_row_done(&in) || head.count == 0) {
        return false;
    }
    *ret_head = head;
    return true;
}

/* ------------------------------------------------------------------ segments */
static uint64_t segment_key(uint32_t lane, uint64_t segment)
{
    return ((uint64_t)lane << 40) ^ segment;
}

void hp_row_put_segment(struct hp_row_out *out, uint32_t lane, uint64_t segment,
                        const struct hp_id_run *runs, uint32_t run_count)
{
    uint64_t first = 0;
    int64_t since_ms = 0;
    hp_row_clear(out);
    hp_row_put_u64(out, run_count);
    for (uint32_t i = 0; i < run_count; i++) {
        hp_row_put_delta(out, runs[i].first, first);
        hp_row_put_u64(out, runs[i].count);
        hp_row_put_delta(out, (uint64_t)runs[i].since_ms, (uint64_t)since_ms);
        first = runs[i].first;
        since_ms = runs[i].since_ms;
    }
    hp_row_seal(out, HP_ROW_SEGMENT, segment_key(lane, segment));
}

bool hp_row_open_segment(struct hp_row_in *in, struct hp_bin row, uint32_t lane, uint64_t segment,
                         uint32_t *ret_run_count)
{
    if (!hp_row_open(in, row, HP_ROW_SEGMENT, segment_key(lane, segment))) {
        return false;
    }
    *ret_run_count = hp_row_get_u32(in);
    return !in->failed;
}

bool hp_row_get_run(struct hp_row_in *in, struct hp_id_run *run)
{
    run->first = hp_row_get_delta(in, run->first);
    run->count = hp_row_get_u32(in);
    run->since_ms = (int64_t)hp_row_get_delta(in, (uint64_t)run->since_ms);
    return !in->failed;
}

/* ------------------------------------------------------------------ leases */
void hp_row_put_lease(struct hp_row_out *out, const struct hp_lease *lease, struct hp_lease *last)
{
    hp_row_put_delta(out, lease->id, last->id);
    hp_row_put_delta(out, lease->group, last->group);
    hp_row_put_delta(out, lease->epoch, last->epoch);
    hp_row_put_u64(out, lease->attempt);
    hp_row_put_u64(out, lease->node);
    hp_row_put_u64(out, lease->lane);
    hp_row_put_u64(out, lease->failures);
    hp_row_put_u64(out, lease->losses);
    hp_row_put_u64(out, lease->releases);
    hp_row_put_delta(out, (uint64_t)lease->started_at_ms, (uint64_t)last->started_at_ms);
    *last = *lease;
}

bool hp_row_get_lease(struct hp_row_in *in, struct hp_lease *lease)
{
    lease->id = hp_row_get_delta(in, lease->id);
    lease->group = hp_row_get_delta(in, lease->group);
    lease->epoch = hp_row_get_delta(in, lease->epoch);
    lease->attempt = hp_row_get_u32(in);
    lease->node = hp_row_get_u32(in);
    lease->lane = hp_row_get_u32(in);
    lease->failures = hp_row_get_u32(in);
    lease->losses = hp_row_get_u32(in);
    lease->releases = hp_row_get_u32(in);
    lease->started_at_ms = (int64_t)hp_row_get_delta(in, (uint64_t)lease->started_at_ms);
    return !in->failed;
}

/* ------------------------------------------------------------------ sides */
static enum hp_row_table side_table(enum hp_side_kind kind)
{
    return kind == HP_SIDE_EXPIRY ? HP_ROW_EXPIRY : HP_ROW_SIDE;
}

void hp_row_put_side(struct hp_row_out *out, const struct hp_side *side)
{
    hp_row_clear(out);
    hp_row_put_u64(out, side->count);
    hp_row_put_u64(out, (uint64_t)side->kind);
    hp_row_put_u64(out, side->lane);
    hp_row_put_i64(out, side->run_at_ms);
    hp_row_put_u64(out, side->attempt);
    hp_row_put_u64(out, side->failures);
    hp_row_put_u64(out, side->losses);
    hp_row_put_u64(out, side->releases);
    hp_row_put_u64(out, side->reason);
    hp_row_put_u64(out, side->mode);
    hp_row_put_u64(out, side->grace_ms);
    hp_row_seal(out, side_table(side->kind), side->first);
}

bool hp_row_get_side(struct hp_bin row, enum hp_row_table table, uint64_t first,
                     struct hp_side *ret_side)
{
    struct hp_row_in in;
    struct hp_side side = {.first = first};
    if (!hp_row_open(&in, row, table, first)) {
        return false;
    }
    side.count = hp_row_get_u32(&in);
    uint32_t kind = hp_row_get_u32(&in);
    side.lane = hp_row_get_u32(&in);
    side.run_at_ms = hp_row_get_i64(&in);
    side.attempt = hp_row_get_u32(&in);
    side.failures = hp_row_get_u32(&in);
    side.losses = hp_row_get_u32(&in);
    side.releases = hp_row_get_u32(&in);
    side.reason = hp_row_get_u32(&in);
    side.mode = hp_row_get_u32(&in);
    side.grace_ms = hp_row_get_u64(&in);
    if (!hp_row_done(&in) || kind < HP_SIDE_DELAYED || kind > HP_SIDE_POOL || side.count == 0) {
        return false;
    }
    side.kind = (enum hp_side_kind)kind;
    *ret_side = side;
    return true;
}
