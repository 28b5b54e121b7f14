/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hp_map: inputs in, results out, with at most a window of tasks in between.
 *
 * I1: given - delivered <= window. I2: slots holds a result from its end until its delivery; in
 * order of inputs that of input i is at i % window, unordered the n-th to end is at n % window.
 * Ends come through a sink while the client is pumped; delivery, which may fetch blobs and run the
 * caller's code, happens outside of it.
 */
#include <stdio.h>
#include <string.h>

#include "client/engine_state.h"
#include "client/map.h"
#include "client/shell.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"

#define WINDOW_TASKS 20000u
#define CHUNK_TASKS 1024u
#define CHUNK_BYTES (256u << 10)
#define LENT SIZE_MAX
/* Time to tidy up after a stop. */
#define STOP_MS 2000u

struct map {
    struct hp_sink sink;
    struct hp_client *client;
    const struct hp_options *options;
    hp_map_input_fn input;
    hp_map_deliver_fn deliver;
    void *context;
    bool unordered;
    uint64_t window;
    uint64_t deadline_ms;

    struct hp_result **slots;
    uint64_t *order; /* unordered: the index of the input in each slot */
    uint64_t ended_count;
    uint64_t given;     /* inputs submitted */
    uint64_t delivered; /* results handed over */
    bool input_done;
    bool input_stopped;
    enum hp_status status;
    char text[HP_CLIENT_TEXT_BYTES];

    /* The chunk being gathered. A large payload is its last, and still the caller's. */
    struct hp_bytes payloads[CHUNK_TASKS];
    size_t offsets[CHUNK_TASKS]; /* in bytes; LENT: not there */
    uint32_t chunk_count;
    struct hp_buf bytes;
};

static void map_fail(struct map *map, enum hp_status status, const char *text)
{
    if (map->status == HP_STATUS_OK) {
        map->status = status;
        (void)snprintf(map->text, sizeof(map->text), "%s", text);
    }
}

static void take(struct hp_sink *sink, const struct hp_event *event)
{
    struct map *map = HP_CONTAINER_OF(sink, struct map, sink);
    uint64_t index = (uint64_t)(uintptr_t)event->user + event->index;

    if (event->kind == HP_EVENT_SUBMIT_FAILED) {
        map_fail(map, event->status, event->text != NULL ? event->text : "submit failed");
    } else if (event->kind == HP_EVENT_ENDED) {
        struct hp_result *result = hp_result_copy(event->task);

        if (result == NULL) {
            map_fail(map, HP_STATUS_NO_MEMORY, "out of memory");
            return;
        }
        uint64_t slot = map->unordered ? map->ended_count % map->window : index % map->window;

        map->slots[slot] = result; /* I2 */
        map->order[map->unordered ? slot : 0] = index;
        map->ended_count++;
    }
}

/* ---------------------------------------------------------------- inputs */

static enum hp_status chunk_add(struct map *map, const struct hp_bytes *payload)
{
    bool is_large = payload->size > HP_LIMIT_INLINE_BYTES;

    map->offsets[map->chunk_count] = is_large ? LENT : map->bytes.size;
    map->payloads[map->chunk_count] = *payload;
    if (!is_large && hp_buf_append(&map->bytes, payload->data, payload->size) != HP_OK) {
        return hp_client_fail(map->client, HP_STATUS_TOO_BIG, "an input is too big");
    }
    map->chunk_count++;
    return HP_STATUS_OK;
}

static enum hp_status chunk_submit(struct map *map)
{
    struct hp_engine_submit submit = {.options = map->options,
                                      .payloads = map->payloads,
                                      .count = map->chunk_count,
                                      .sink = &map->sink,
                                      .user = (void *)(uintptr_t)map->given};
    enum hp_status status;

    for (uint32_t i = 0; i < map->chunk_count; i++) {
        if (map->offsets[i] != LENT) {
            map->payloads[i].data = map->bytes.data + map->offsets[i];
        }
    }
    status = hp_engine_submit(map->client->engine, &submit, NULL);
    if (status != HP_STATUS_OK) {
        return hp_client_fail_engine(map->client, status);
    }
    map->given += map->chunk_count;
    map->chunk_count = 0;
    hp_buf_clear(&map->bytes);
    return HP_STATUS_OK;
}

/* Takes inputs while there is room for them; one chunk at most. */
static enum hp_status feed(struct map *map, bool *ret_progress)
{
    uint64_t until_ms = hp_clock_mono_ms() + HP_MAP_CHUNK_MS;
    enum hp_status status = HP_STATUS_OK;

    *ret_progress = false;
    if (map->input_done || !hp_engine_has_room(map->client->engine)) {
        return HP_STATUS_OK;
    }
    while (status == HP_STATUS_OK && map->chunk_count < CHUNK_TASKS &&
           map->bytes.size < CHUNK_BYTES &&
           map->given + map->chunk_count - map->delivered < map->window && /* I1 */
           (map->chunk_count == 0 || hp_clock_mono_ms() < until_ms)) {
        struct hp_bytes payload = {0};
        int got = map->input(map->context, &payload);

        if (got == HP_MAP_LATER) {
            *ret_progress = true;
            break;
        }
        if (got <= 0) {
            map->input_done = true;
            map->input_stopped = got < 0;
            break;
        }
        status = chunk_add(map, &payload);
        if (payload.size > HP_LIMIT_INLINE_BYTES) {
            break; /* lent until the next input is asked for: the engine takes its copy now */
        }
    }
    if (status == HP_STATUS_OK && map->chunk_count > 0 && !map->input_stopped) {
        *ret_progress = true;
        status = chunk_submit(map);
    }
    return map->input_stopped && status == HP_STATUS_OK
               ? hp_client_fail(map->client, HP_STATUS_STOPPED, "stopped by the input function")
               : status;
}

/* ---------------------------------------------------------------- outputs */

/* The slot to deliver from is the same in both orders: that of the next one. */
static bool next_index(const struct map *map, uint64_t *ret_index)
{
    uint64_t slot = map->delivered % map->window;

    *ret_index = map->unordered ? map->order[slot] : map->delivered;
    return map->slots[slot] != NULL;
}

static enum hp_status deliver_ready(struct map *map, bool *ret_progress)
{
    enum hp_status status = HP_STATUS_OK;
    uint64_t index;

    while (status == HP_STATUS_OK && next_index(map, &index)) {
        uint64_t slot = map->delivered % map->window;
        struct hp_result *result = map->slots[slot];

        status = hp_result_complete(map->client, result, map->deadline_ms);
        if (status != HP_STATUS_OK) {
            return status;
        }
        map->slots[slot] = NULL;
        map->delivered++;
        *ret_progress = true;
        if (!map->deliver(map->context, index, result)) {
            status =
                hp_client_fail(map->client, HP_STATUS_STOPPED, "stopped by the output function");
        }
    }
    return status;
}

/* ---------------------------------------------------------------- the loop */

static enum hp_status run(struct map *map)
{
    enum hp_status status = HP_STATUS_OK;

    while (status == HP_STATUS_OK) {
        bool progress = false;

        status = feed(map, &progress);
        if (status == HP_STATUS_OK && map->status == HP_STATUS_OK) {
            status = deliver_ready(map, &progress);
        }
        if (status == HP_STATUS_OK && map->status != HP_STATUS_OK) {
            status = hp_client_fail(map->client, map->status, "%s", map->text);
        }
        if (status != HP_STATUS_OK || (map->input_done && map->delivered == map->given)) {
            return status;
        }
        /* With more to feed only the socket is looked after; else there is only waiting. */
        status = progress ? hp_client_process(map->client, HP_IO_READ)
                          : hp_client_pump(map->client, map->deadline_ms);
        if (status == HP_STATUS_OK && hp_clock_mono_ms() >= map->deadline_ms) {
            status = hp_client_late(map->client);
        }
    }
    return status;
}

/* Cancels what is outstanding, as far as it goes. */
static void cancel_rest(struct map *map)
{
    struct hp_client *client = map->client;
    uint64_t deadline_ms = hp_clock_mono_ms() + STOP_MS;
    char text[HP_CLIENT_TEXT_BYTES];
    struct hp_ids ids;
    uint64_t from = 0;

    (void)snprintf(text, sizeof(text), "%s", client->error_text);
    while (hp_engine_is_open(client->engine) && hp_engine_unacknowledged(client->engine) > 0 &&
           hp_client_pump(client, deadline_ms) == HP_STATUS_OK) {
    }
    while (hp_engine_is_open(client->engine) && hp_clock_mono_ms() < deadline_ms &&
           hp_track_sink_next(&client->engine->track, &map->sink, from, &ids)) {
        from = ids.first + ids.count;
        if (hp_cancel(client, &ids, 1, HP_CANCEL_FORCE, 0, "map stopped", STOP_MS, NULL) !=
            HP_STATUS_OK) {
            break; /* best effort: the caller gets the first error */
        }
    }
    (void)hp_client_fail(client, HP_STATUS_OK, "%s", text);
}

static void map_deinit(struct map *map)
{
    hp_engine_forget_sink(map->client->engine, &map->sink, NULL);
    for (uint64_t i = 0; map->slots != NULL && i < map->window; i++) {
        hp_result_free(map->slots[i]);
    }
    hp_free(map->slots);
    hp_free(map->order);
    hp_buf_deinit(&map->bytes);
    hp_free(map);
}

enum hp_status hp_map_run(struct hp_client *client, const struct hp_options *options,
                          const struct hp_map_options *map_options, hp_map_input_fn input,
                          hp_map_deliver_fn deliver, void *context, int64_t timeout_ms)
{
    enum hp_status status = hp_client_check(client);
    struct map *map;

    if (status != HP_STATUS_OK) {
        return status;
    }
    if (!client->engine->config.events || map_options->window_tasks == 0 ||
        map_options->window_tasks > UINT32_MAX || options->ukey != NULL) {
        return hp_client_fail(client, HP_STATUS_BAD_ARGUMENT,
                              "map needs a client with events, a window and no unique key");
    }
    map = hp_calloc(1, sizeof(*map));
    if (map == NULL) {
        return hp_client_fail(client, HP_STATUS_NO_MEMORY, "out of memory");
    }
    map->sink.take = take;
    map->client = client;
    map->options = options;
    map->input = input;
    map->deliver = deliver;
    map->context = context;
    map->unordered = map_options->unordered;
    map->window = map_options->window_tasks;
    map->deadline_ms = hp_client_deadline_ms(client, timeout_ms);
    hp_buf_init(&map->bytes, HP_LIMIT_BLOB_BYTES + (size_t)CHUNK_BYTES);
    map->slots = hp_calloc(map->window, sizeof(struct hp_result *));
    map->order = hp_calloc(map->unordered ? map->window : 1, sizeof(*map->order));
    if (map->slots == NULL || map->order == NULL) {
        status = hp_client_fail(client, HP_STATUS_NO_MEMORY, "out of memory");
    } else {
        status = run(map);
    }
    if (status != HP_STATUS_OK && !map_options->keep_on_stop) {
        cancel_rest(map);
    }
    map_deinit(map);
    return status;
}

/* ---------------------------------------------------------------- public forms */

void hp_map_options_init(struct hp_map_options *options)
{
    *options = (struct hp_map_options){.window_tasks = WINDOW_TASKS};
}

struct over_array {
    const struct hp_bytes *inputs;
    size_t count;
    size_t next;
    struct hp_map_results *results;
};

static int array_input(void *context, struct hp_bytes *ret_payload)
{
    struct over_array *array = context;

    if (array->next == array->count) {
        return 0;
    }
    *ret_payload = array->inputs[array->next++];
    return 1;
}

static bool array_deliver(void *context, uint64_t index, struct hp_result *result)
{
    struct over_array *array = context;

    array->results->results[index] = result;
    array->results->failed += result->task.state == HP_STATE_DONE ? 0 : 1;
    return true;
}

enum hp_status hp_map(struct hp_client *client, const struct hp_options *options,
                      const struct hp_bytes *inputs, size_t count, int64_t timeout_ms,
                      struct hp_map_results **ret_results)
{
    struct hp_map_options map_options;
    struct over_array array = {.inputs = inputs, .count = count};

    array.results = hp_calloc(1, sizeof(*array.results));
    if (array.results != NULL) {
        array.results->results = hp_calloc(count + 1, sizeof(struct hp_result *));
    }
    *ret_results = array.results;
    if (array.results == NULL || array.results->results == NULL) {
        hp_free(array.results);
        *ret_results = NULL;
        return hp_client_fail(client, HP_STATUS_NO_MEMORY, "out of memory");
    }
    array.results->count = count;
    hp_map_options_init(&map_options);
    return hp_map_run(client, options, &map_options, array_input, array_deliver, &array,
                      timeout_ms);
}

void hp_map_results_free(struct hp_map_results *results)
{
    if (results != NULL) {
        for (size_t i = 0; i < results->count; i++) {
            hp_result_free(results->results[i]);
        }
        hp_free(results->results);
        hp_free(results);
    }
}
