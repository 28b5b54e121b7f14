/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the spool holds of an ended attempt:
 *
 *     u8 version = 1, u8 parts, u32 item_size, item: an encoded done_item whose end lacks the
 * blobs, and for each part: u8 kind, u64 size, bytes.
 *
 * Large parts are kept as bytes: a blob that was uploaded is swept if the broker never learnt of
 * the result that refers to it. Framing, digests and boot ids are the spool's own (worker/spool.h).
 */
#include <string.h>

#include "common/base/assert.h"
#include "common/base/endian.h"
#include "common/base/mem.h"
#include "worker/core/state.h"

#define RECORD_VERSION 1u
#define RECORD_HEAD_BYTES 6u
#define PART_HEAD_BYTES 9u

static size_t parts_bytes(const struct hp_agent_parts *parts)
{
    size_t bytes = 0;
    for (uint32_t i = 0; parts != NULL && i < parts->count; i++) {
        bytes += PART_HEAD_BYTES + parts->item[i].size;
    }
    return bytes;
}

static void copy_parts(const struct hp_agent_parts *parts, uint8_t *to)
{
    for (uint32_t i = 0; parts != NULL && i < parts->count; i++) {
        const struct hp_agent_part *part = &parts->item[i];
        to[0] = (uint8_t)part->kind;
        hp_put_be64(to + 1, part->size);
        memcpy(to + PART_HEAD_BYTES, part->data, part->size);
        to += PART_HEAD_BYTES + part->size;
    }
}

static enum hp_err encode_head(const struct hp_agent_run *run, struct hp_buf *buf)
{
    uint8_t head[RECORD_HEAD_BYTES] = {RECORD_VERSION};
    head[1] = run->parts == NULL ? 0 : (uint8_t)run->parts->count;
    enum hp_err err = hp_buf_append(buf, head, sizeof(head));
    if (err != HP_OK) {
        return err;
    }
    struct hp_st_done_item item = {
        .has = HP_HAS_ST_DONE_ITEM_REASON,
        .id = run->id,
        .attempt = run->attempt,
        .epoch = run->epoch,
        .reason = (enum hp_reason)run->reason,
        .end = {.data = run->end, .size = run->end_size},
    };
    if (run->retry_ms != 0) {
        item.retry_ms = run->retry_ms;
        item.has |= HP_HAS_ST_DONE_ITEM_RETRY_MS;
    }
    err = hp_st_done_item_encode(buf, &item);
    if (err == HP_OK) {
        hp_put_be32(buf->data + 2, (uint32_t)(buf->size - RECORD_HEAD_BYTES));
    }
    return err;
}

/* The large parts are copied once, into memory of the effects. */
enum hp_err hp_agent_record_encode(struct hp_agent *agent, const struct hp_agent_run *run,
                                   struct hp_bin *ret_record)
{
    struct hp_buf *buf = &agent->scratch;
    hp_buf_clear(buf);
    enum hp_err err = encode_head(run, buf);
    size_t size = buf->size + parts_bytes(run->parts);
    if (err != HP_OK || size > UINT32_MAX) {
        return err != HP_OK ? err : HP_ERR_TOO_BIG;
    }
    uint8_t *record = hp_agent_fx_alloc(agent, size);
    memcpy(record, buf->data, buf->size);
    copy_parts(run->parts, record + buf->size);
    *ret_record = hp_bin_make(record, size);
    return HP_OK;
}

static enum hp_err decode_parts(struct hp_agent_run *run, uint32_t count, const uint8_t *data,
                                size_t size)
{
    if (count == 0) {
        return size == 0 ? HP_OK : HP_ERR_CORRUPT;
    }
    run->parts = hp_calloc(1, sizeof(*run->parts));
    if (run->parts == NULL) {
        return HP_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (size < PART_HEAD_BYTES || hp_get_be64(data + 1) > size - PART_HEAD_BYTES ||
            data[0] < HP_AGENT_PART_RESULT || data[0] > HP_AGENT_PART_ERR) {
            return HP_ERR_CORRUPT;
        }
        uint64_t part_size = hp_get_be64(data + 1);
        uint8_t *copy = hp_memdup(data + PART_HEAD_BYTES, part_size);
        if (copy == NULL) {
            return HP_ERR_NOMEM;
        }
        run->parts->item[run->parts->count++] = (struct hp_agent_part){
            .data = copy,
            .size = part_size,
            .kind = (enum hp_agent_part_kind)data[0],
        };
        data += PART_HEAD_BYTES + part_size;
        size -= PART_HEAD_BYTES + part_size;
    }
    return size == 0 ? HP_OK : HP_ERR_CORRUPT;
}

static enum hp_err decode_item(struct hp_agent *agent, struct hp_bin bytes,
                               struct hp_st_done_item *ret_item, struct hp_error *reterr)
{
    const struct hp_wire_obj *root = NULL;
    enum hp_err err =
        hp_wire_unpack_checked(agent->wire, &hp_tok_limits_open, bytes, &root, reterr);
    if (err == HP_OK && hp_wire_type(root) != HP_WIRE_MAP) {
        err = HP_ERR_CORRUPT;
    }
    return err != HP_OK ? err : hp_st_done_item_decode(root, &agent->arena, ret_item, reterr);
}

/* Everything of the record that fits no rule is damage. */
enum hp_err hp_agent_record_decode(struct hp_agent *agent, struct hp_bin record,
                                   struct hp_agent_run **ret_run, struct hp_error *reterr)
{
    *ret_run = NULL;
    if (record.size < RECORD_HEAD_BYTES || record.data[0] != RECORD_VERSION ||
        record.data[1] > HP_AGENT_PARTS_MAX ||
        hp_get_be32(record.data + 2) > record.size - RECORD_HEAD_BYTES) {
        return hp_error_set(reterr, HP_ERR_CORRUPT, "the record has no valid head");
    }
    uint32_t item_size = hp_get_be32(record.data + 2);
    struct hp_bin bytes = {.data = record.data + RECORD_HEAD_BYTES, .size = item_size};
    struct hp_st_done_item item;
    hp_arena_reset(&agent->arena);
    enum hp_err err = decode_item(agent, bytes, &item, reterr);
    if (err != HP_OK) {
        return hp_error_set(reterr, err == HP_ERR_NOMEM ? err : HP_ERR_CORRUPT,
                            "the record has no valid end");
    }
    struct hp_agent_run *run = hp_agent_run_new(agent, item.id, item.attempt, item.epoch);
    if (run == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    run->reason = (uint8_t)item.reason;
    run->retry_ms = item.retry_ms;
    hp_agent_run_store_end(agent, run, item.end.data, item.end.size);
    err = decode_parts(run, record.data[1], bytes.data + item_size,
                       record.size - RECORD_HEAD_BYTES - item_size);
    if (err != HP_OK) {
        hp_agent_run_free(agent, run);
        return hp_error_set(reterr, err, "the record's parts do not fit its size");
    }
    *ret_run = run;
    return HP_OK;
}
