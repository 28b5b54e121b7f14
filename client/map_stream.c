/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hp_map_stream: a task for each input, or one for chunk_items of them.
 *
 * I1: all chunks but the last hold chunk_items inputs, so chunk i begins with input
 * i * chunk_items. It is the input function that knows where the last one ends.
 */
#include <stdio.h>

#include "client/engine_state.h"
#include "client/map.h"
#include "client/shell.h"
#include "common/base/items.h"
#include "common/sys/clock.h"

/* The clock is asked once for so many inputs. */
#define INPUTS_PER_LOOK 64u

struct stream {
    struct hp_client *client;
    hp_map_input_fn input;
    hp_map_output_fn output;
    void *context;

    /* chunks */
    uint32_t chunk_items;
    uint32_t gathered; /* inputs in `chunk` */
    uint64_t given;    /* inputs so far, with those */
    bool ended;
    struct hp_buf chunk;
    enum hp_status status; /* why it was stopped, if neither function did it; and the words */
    char text[256];
};

/* ---------------------------------------------------------------- one task for each */

static int give_one(void *context, struct hp_bytes *ret_payload)
{
    struct stream *stream = context;
    return stream->input(stream->context, ret_payload);
}

static bool take_one(void *context, uint64_t index, struct hp_result *result)
{
    struct stream *stream = context;
    int stop = stream->output(stream->context, index, result);

    hp_result_free(result);
    return stop == 0;
}

/* ---------------------------------------------------------------- chunks */

/* 1: the chunk is full. 0: that was all. HP_MAP_LATER: inputs come slowly. -1: stop. */
static int gather(struct stream *stream)
{
    uint64_t until_ms = hp_clock_mono_ms() + HP_MAP_CHUNK_MS;
    uint32_t until = stream->gathered + INPUTS_PER_LOOK;

    while (stream->gathered < stream->chunk_items) {
        struct hp_bytes payload = {0};
        int got = stream->input(stream->context, &payload);

        if (got <= 0) {
            stream->ended = true;
            return got;
        }
        if (hp_items_append(&stream->chunk, payload.data, payload.size) != HP_OK) {
            stream->status = HP_STATUS_TOO_BIG;
            (void)snprintf(stream->text, sizeof(stream->text), "input %llu makes its chunk too big",
                           (unsigned long long)stream->given);
            return -1;
        }
        stream->gathered++;
        stream->given++;
        if (stream->gathered == until) {
            if (hp_clock_mono_ms() >= until_ms) {
                return stream->gathered < stream->chunk_items ? HP_MAP_LATER : 1;
            }
            until += INPUTS_PER_LOOK;
        }
    }
    return 1;
}

static int give_chunk(void *context, struct hp_bytes *ret_payload)
{
    struct stream *stream = context;

    if (stream->ended) {
        return 0;
    }
    if (stream->gathered == 0) {
        hp_buf_clear(&stream->chunk);
        if (hp_items_open(&stream->chunk) != HP_OK) {
            stream->status = HP_STATUS_NO_MEMORY;
            (void)snprintf(stream->text, sizeof(stream->text), "out of memory");
            return -1;
        }
    }
    int got = gather(stream);
    if (got == HP_MAP_LATER || got < 0 || stream->gathered == 0) {
        return got;
    }
    hp_items_close(&stream->chunk, stream->gathered);
    stream->gathered = 0;
    *ret_payload = (struct hp_bytes){.data = stream->chunk.data, .size = stream->chunk.size};
    return 1;
}

static bool is_damaged(struct stream *stream, const struct hp_result *result, uint32_t count)
{
    stream->status = HP_STATUS_DAMAGED;
    (void)snprintf(stream->text, sizeof(stream->text),
                   "the result of task %llu is not one of %u items: does its worker know of items?",
                   (unsigned long long)result->task.id, count);
    return false;
}

/* Hands over the result of each item; if the task has failed, that of the task, for each. */
static bool take_items(struct stream *stream, uint64_t first, uint32_t count,
                       struct hp_result *result)
{
    bool done = result->task.state == HP_STATE_DONE;
    const struct hp_bytes whole = result->value;
    struct hp_items items = {0};

    if (done && (!hp_items_begin(&items, whole.data, whole.size) || items.count != count)) {
        return is_damaged(stream, result, count);
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *data = NULL;
        size_t size = 0;

        if (done && !hp_items_next(&items, &data, &size)) {
            return is_damaged(stream, result, count);
        }
        result->value = (struct hp_bytes){.data = data, .size = size};
        if (stream->output(stream->context, first + i, result) != 0) {
            return false;
        }
    }
    return !done || hp_items_ended(&items) || is_damaged(stream, result, count);
}

static bool take_chunk(void *context, uint64_t index, struct hp_result *result)
{
    struct stream *stream = context;
    uint64_t first = index * stream->chunk_items; /* I1 */
    uint64_t left = stream->given - stream->gathered - first;
    uint32_t count = left < stream->chunk_items ? (uint32_t)left : stream->chunk_items;
    bool goes_on = take_items(stream, first, count, result);

    hp_result_free(result);
    return goes_on;
}

static enum hp_status run_chunks(struct stream *stream, const struct hp_options *options,
                                 const struct hp_map_options *map_options, int64_t timeout_ms)
{
    struct hp_options of_chunks = *options;

    if ((options->kind != HP_KIND_FUNCTION && options->kind != HP_KIND_CALL) ||
        options->payload_kind != HP_PAYLOAD_STDIN) {
        return hp_client_fail(stream->client, HP_STATUS_BAD_ARGUMENT,
                              "chunk_items is for functions that take one input at a time");
    }
    of_chunks.payload_kind = HP_PAYLOAD_ITEMS;
    stream->chunk_items = map_options->chunk_items;
    hp_buf_init(&stream->chunk, HP_LIMIT_BLOB_BYTES);
    enum hp_status status = hp_map_run(stream->client, &of_chunks, map_options, give_chunk,
                                       take_chunk, stream, timeout_ms);
    hp_buf_deinit(&stream->chunk);
    return stream->status == HP_STATUS_OK
               ? status
               : hp_client_fail(stream->client, stream->status, "%s", stream->text);
}

enum hp_status hp_map_stream(struct hp_client *client, const struct hp_options *options,
                             const struct hp_map_options *map_options, hp_map_input_fn input,
                             hp_map_output_fn output, void *context, int64_t timeout_ms)
{
    struct stream stream = {.client = client, .input = input, .output = output, .context = context};
    struct hp_map_options defaults;
    enum hp_status status = hp_client_check(client);

    if (status != HP_STATUS_OK) {
        return status;
    }
    hp_map_options_init(&defaults);
    map_options = map_options != NULL ? map_options : &defaults;
    if (map_options->chunk_items > 1) {
        return run_chunks(&stream, options, map_options, timeout_ms);
    }
    return hp_map_run(client, options, map_options, give_one, take_one, &stream, timeout_ms);
}
