/* SPDX-License-Identifier: BSD-2-Clause */
/* Modes on the blocking layer of libhostpool. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/programs/common.h"
#include "bench/programs/drive.h"

/* One durable submit after the other: the time until each is acknowledged. */
void drive_sync(struct drive *drive)
{
    enum { WARM_UP = 100 };
    uint64_t *times_ns = bench_room(drive->count, sizeof(*times_ns));
    for (uint64_t i = 0; i < drive->count + WARM_UP; i++) {
        struct hp_bytes payload = drive_make(drive, i);
        uint64_t id = 0;
        uint64_t begin_ns = bench_now_ns();
        if (hp_submit(drive->client, &drive->options, &payload, HP_TIMEOUT_DEFAULT, &id, NULL) !=
            HP_STATUS_OK) {
            drive_die(drive, "submit");
        }
        if (i >= WARM_UP) {
            times_ns[i - WARM_UP] = bench_now_ns() - begin_ns;
        }
    }
    bench_print_times("sync", times_ns, drive->count);
    free(times_ns);
}

/* All inputs of a map of x * x, and room for their bytes. */
static struct hp_bytes *make_inputs(struct drive *drive)
{
    struct hp_bytes *inputs = bench_room(drive->count, sizeof(*inputs));
    for (uint64_t i = 0; i < drive->count; i++) {
        struct hp_bytes one = drive_make(drive, i);
        void *copy = bench_room(1, one.size);
        memcpy(copy, one.data, one.size);
        inputs[i] = (struct hp_bytes){.data = copy, .size = one.size};
    }
    return inputs;
}

static void check_results(struct drive *drive, struct hp_map_results *results)
{
    for (uint64_t i = 0; i < drive->count; i++) {
        const struct hp_result *one = results->results[i];
        if (one == NULL || !drive_is_right(drive, i, &one->task, one->value)) {
            drive->wrong++;
        }
    }
    drive->ended = results->count;
}

static void free_inputs(struct drive *drive, struct hp_bytes *inputs)
{
    for (uint64_t i = 0; i < drive->count; i++) {
        free((void *)(uintptr_t)inputs[i].data); /* ours, see make_inputs */
    }
    free(inputs);
}

void drive_map(struct drive *drive)
{
    struct hp_map_results *results = NULL;
    struct hp_bytes *inputs = make_inputs(drive);
    uint64_t begin_ns = bench_now_ns();
    if (hp_map(drive->client, &drive->options, inputs, drive->count, HP_TIMEOUT_NONE, &results) !=
        HP_STATUS_OK) {
        drive_die(drive, "map");
    }
    bench_print_rate("map", (double)drive->count, (double)(bench_now_ns() - begin_ns) / 1e9);
    check_results(drive, results);
    hp_map_results_free(results);
    free_inputs(drive, inputs);
}

/* The same in a pool of two children, made before. */
void drive_pool_map(struct drive *drive)
{
    struct hp_pool_options options;
    struct hp_pool *pool = NULL;
    struct hp_map_results *results = NULL;
    struct hp_bytes *inputs = make_inputs(drive);
    hp_pool_options_init(&options);
    options.client = &drive->client_options;
    options.processes = 2;
    options.durable = drive->options.durable;
    if (hp_pool_create(&options, HP_TIMEOUT_DEFAULT, &pool) != HP_STATUS_OK ||
        hp_pool_map(pool, "square", inputs, 2, HP_TIMEOUT_DEFAULT, &results) != HP_STATUS_OK) {
        bench_fail("pool", pool != NULL ? hp_pool_error(pool) : "");
    }
    hp_map_results_free(results); /* the children are up */
    uint64_t begin_ns = bench_now_ns();
    if (hp_pool_map(pool, "square", inputs, drive->count, HP_TIMEOUT_NONE, &results) !=
        HP_STATUS_OK) {
        bench_fail("pool", hp_pool_error(pool));
    }
    bench_print_rate("pool_map", (double)drive->count, (double)(bench_now_ns() - begin_ns) / 1e9);
    check_results(drive, results);
    hp_map_results_free(results);
    hp_pool_release(pool);
    free_inputs(drive, inputs);
}

static int next_input(void *context, struct hp_bytes *ret_payload)
{
    struct drive *drive = context;
    if (drive->submitted == drive->count) {
        return 0;
    }
    *ret_payload = drive_make(drive, drive->submitted++);
    return 1;
}

static int take_output(void *context, uint64_t index, const struct hp_result *result)
{
    struct drive *drive = context;
    drive->ended++;
    if (!drive_is_right(drive, index, &result->task, result->value)) {
        drive->wrong++;
    }
    struct hp_ids id = {.first = result->task.id, .count = 1};
    if (drive->forgets && hp_forget(drive->client, &id, 1) != HP_STATUS_OK) {
        drive_die(drive, "forget");
    }
    return 0;
}

/* A map of any length with `window` tasks under way: large payloads and results. */
void drive_stream(struct drive *drive)
{
    struct hp_map_options options;
    hp_map_options_init(&options);
    options.window_tasks = drive->window;
    options.chunk_items = drive->chunk;
    options.unordered = true;
    (void)drive_make(drive, 0); /* sets the options */
    uint64_t begin_ns = bench_now_ns();
    if (hp_map_stream(drive->client, &drive->options, &options, next_input, take_output, drive,
                      HP_TIMEOUT_NONE) != HP_STATUS_OK) {
        drive_die(drive, "map");
    }
    bench_print_rate("stream", (double)drive->count, (double)(bench_now_ns() - begin_ns) / 1e9);
}
