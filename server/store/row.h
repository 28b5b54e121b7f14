/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How rows look in the database: varints, with a digest over content *and* key at the end, so that
 * a damaged or misplaced row is noticed at each read (S5). Internal to server/store.
 *
 * Varint: 7 bits a byte, lowest first, high bit = more. Signed numbers are zigzag. Bytes are a
 * varint size and the bytes. The digest is XXH3-64, little-endian, seeded by table and key.
 */
#ifndef HP_SERVER_STORE_ROW_H
#define HP_SERVER_STORE_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bin.h"
#include "server/core/op.h"

#define HP_ROW_DIGEST_BYTES 8u

/* Part of the format: never renumber. */
enum hp_row_table {
    HP_ROW_META = 1,
    HP_ROW_GROUP,
    HP_ROW_RESULT,
    HP_ROW_LANE_KEY,
    HP_ROW_LANE_CURSOR,
    HP_ROW_SEGMENT,
    HP_ROW_LEASE,
    HP_ROW_SIDE,
    HP_ROW_EXPIRY,
    HP_ROW_UKEY,
    HP_ROW_SESSION,
    HP_ROW_QUEUE,
    HP_ROW_NODE,
    HP_ROW_BLOB,
    HP_ROW_BUCKET,
    HP_ROW_TOMB,
};

/* ------------------------------------------------------------------ writing */
/* A growing buffer; an error (memory) sticks in `failed`, so only the end need be looked at. */
struct hp_row_out {
    uint8_t *data;
    size_t size;
    size_t capacity;
    bool failed;
};

void hp_row_out_deinit(struct hp_row_out *out);
void hp_row_clear(struct hp_row_out *out);
void hp_row_put_u64(struct hp_row_out *out, uint64_t value);
void hp_row_put_i64(struct hp_row_out *out, int64_t value);
/* The difference to a base, wrapping: any two values will do. */
void hp_row_put_delta(struct hp_row_out *out, uint64_t value, uint64_t base);
void hp_row_put_raw(struct hp_row_out *out, const void *data, size_t size);
void hp_row_put_bin(struct hp_row_out *out, struct hp_bin bin);
/* Appends the digest: the last call for a row. */
void hp_row_seal(struct hp_row_out *out, enum hp_row_table table, uint64_t key);

/* Digest of bytes beside a row (packs), and of keys that are bytes. */
uint64_t hp_row_digest(const void *data, size_t size, enum hp_row_table table, uint64_t key);

/* ------------------------------------------------------------------ reading */
/* Reading past the end gives zeroes and sets `failed`. Bytes point into the row. */
struct hp_row_in {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
};

/* Checks the digest and starts reading; false: damaged. */
bool hp_row_open(struct hp_row_in *in, struct hp_bin row, enum hp_row_table table, uint64_t key);
uint64_t hp_row_get_u64(struct hp_row_in *in);
uint32_t hp_row_get_u32(struct hp_row_in *in);
int64_t hp_row_get_i64(struct hp_row_in *in);
uint64_t hp_row_get_delta(struct hp_row_in *in, uint64_t base);
struct hp_bin hp_row_get_bin(struct hp_row_in *in);
/* True if all was read and nothing failed. */
bool hp_row_done(const struct hp_row_in *in);

/* ------------------------------------------------------------------ whole rows */
/* What a group row holds beside its pack. */
struct hp_group_head {
    uint64_t first;
    uint32_t count;
    uint32_t lane;
    int64_t created_at_ms;
    struct hp_bin session;
    struct hp_bin options;
    uint32_t pack_size;
    uint64_t pack_digest;
};

void hp_row_put_group(struct hp_row_out *out, const struct hp_group_head *head);
bool hp_row_get_group(struct hp_bin row, uint64_t first, struct hp_group_head *ret_head);

void hp_row_put_segment(struct hp_row_out *out, uint32_t lane, uint64_t segment,
                        const struct hp_id_run *runs, uint32_t run_count);
/* Reads the head of a segment; then hp_row_get_run run_count times. */
bool hp_row_open_segment(struct hp_row_in *in, struct hp_bin row, uint32_t lane, uint64_t segment,
                         uint32_t *ret_run_count);
/* `run` holds the one before (zeroed at first) and becomes the next. False: damaged. */
bool hp_row_get_run(struct hp_row_in *in, struct hp_id_run *run);

/* Appends one lease to an unsealed row; `last` holds the one before (zeroed at first). */
void hp_row_put_lease(struct hp_row_out *out, const struct hp_lease *lease, struct hp_lease *last);
/* Reads the next lease; `lease` holds the one before (zeroed at first). */
bool hp_row_get_lease(struct hp_row_in *in, struct hp_lease *lease);

/* first and kind are columns of their own, covered by the digest's key. */
void hp_row_put_side(struct hp_row_out *out, const struct hp_side *side);
/* Reads all but `first`. */
bool hp_row_get_side(struct hp_bin row, enum hp_row_table table, uint64_t first,
                     struct hp_side *ret_side);

/* ------------------------------------------------------------------ result runs */
#define HP_RESULT_RUN_ITEMS_MAX 512u
#define HP_RESULT_RUN_BYTES_MAX ((size_t)256 << 10)
#define HP_RESULT_EXPIRES_SLACK_MS 1000 /* neighbours this close share a row: the later counts */

/*
 * Encodes results[0 .. n) into one row, n >= 1 the number that fitted: as many neighbours as may
 * share a row. `results` are sorted by first. Returns n; ids covered in *ret_count.
 */
uint32_t hp_row_put_results(struct hp_row_out *out, const struct hp_result *const *results,
                            uint32_t result_count, uint32_t *ret_count);

/* A result row being read. */
struct hp_result_run {
    uint64_t first;
    uint32_t count; /* ids covered */
    int64_t expires_at_ms;
    bool uniform; /* one set of facts for all, no end records */
    /* private: position of the next item */
    struct hp_row_in in;
    const uint8_t *ends;
    size_t ends_size;
    size_t end_offset;
    uint32_t index;
    int64_t base_ms;
    struct hp_result last;
};

/* Opens a row; false: damaged. Bytes stay those of `row`. */
bool hp_result_run_open(struct hp_result_run *run, struct hp_bin row, uint64_t first);
/* The result of an id in the run; ids must be asked in rising order, else open it anew. The result
 * has count 1 and its end record points into the row. False: damaged. */
bool hp_result_run_get(struct hp_result_run *run, uint64_t id, struct hp_result *ret_result);

#endif
