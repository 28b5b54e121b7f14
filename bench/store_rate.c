/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the store alone can do: task lives a second (submit, lease, result) for submits of many and
 * of one, beside SQLite writing the same tasks one row each. Usage: store_rate DIR [tasks]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "server/store/store.h"

#define PAYLOAD_BYTES 100u
#define RESULT_BYTES 40u

static double seconds(clockid_t clock)
{
    struct timespec ts;
    (void)clock_gettime(clock, &ts); /* cannot fail with these clocks */
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void die(const char *what, const char *text)
{
    fprintf(stderr, "%s: %s\n", what, text);
    exit(1);
}

static void add_groups(struct hp_batch *batch, uint64_t first, uint32_t count, uint32_t group_size,
                       uint64_t *segment)
{
    static uint8_t payload[PAYLOAD_BYTES * 1000];
    static const uint8_t options[60] = "options of the group";
    for (uint32_t i = 0; i < count; i += group_size) {
        struct hp_op *op = hp_batch_add(batch, HP_OP_GROUP);
        op->group.first = first + i;
        op->group.count = group_size;
        op->group.lane = 1;
        op->group.created_at_ms = 1700000000000;
        op->group.session = hp_batch_copy(batch, "0123456789abcdef", 16);
        op->group.options = hp_batch_copy(batch, options, sizeof(options));
        op->group.pack = hp_batch_copy(batch, payload, (size_t)group_size * PAYLOAD_BYTES);
    }
    struct hp_id_run run = {.first = first, .count = count, .since_ms = 1700000000000};
    struct hp_op *op = hp_batch_add(batch, HP_OP_SEGMENT);
    op->segment.lane = 1;
    op->segment.segment = (*segment)++;
    op->segment.runs = (const void *)hp_batch_copy(batch, &run, sizeof(run)).data;
    op->segment.run_count = 1;
}

static void add_ends(struct hp_batch *batch, uint64_t first, uint32_t count)
{
    static const uint8_t end[RESULT_BYTES] = "result";
    for (uint32_t i = 0; i < count; i++) {
        struct hp_op *op = hp_batch_add(batch, HP_OP_RESULT);
        uint64_t id = first + (i * 7919u) % count; /* not in order */
        op->result =
            (struct hp_result){.first = id, .count = 1, .state = 1, .attempt = 1, .node = 1};
        op->result.started_at_ms = 1700000000000 + i / 10;
        op->result.ended_at_ms = op->result.started_at_ms + 2;
        op->result.expires_at_ms = 1700000600000 + i / 100;
        op->result.end = hp_batch_copy(batch, end, sizeof(end));
    }
}

static void add_leases(struct hp_batch *batch, uint64_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct hp_op *op = hp_batch_add(batch, HP_OP_LEASE);
        op->lease = (struct hp_lease){.id = first + i,
                                      .epoch = 1,
                                      .group = first,
                                      .attempt = 1,
                                      .node = 1,
                                      .lane = 1,
                                      .started_at_ms = 1700000000000};
    }
}

/* Each commit: one block is submitted and leased, the one before ends. */
static void run_store(const char *dir, uint32_t tasks, uint32_t block, uint32_t group_size)
{
    char path[500];
    struct hp_error error = {0};
    struct hp_store *store = NULL;
    (void)snprintf(path, sizeof(path), "%s/store-%u-%u", dir, group_size, block);
    (void)mkdir(path, 0700);
    struct hp_store_options options = {.dir = path, .create = true};
    if (hp_store_sqlite_open(&options, &store, &error) != HP_OK) {
        die("open", error.text);
    }
    struct hp_batch *batch = hp_batch_new();
    uint64_t segment = 0;
    uint64_t number = 0;
    double commit_max = 0;
    double build = 0;
    double wall = seconds(CLOCK_MONOTONIC);
    double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (uint32_t done = 0; done < tasks; done += block) {
        double t0 = seconds(CLOCK_MONOTONIC);
        uint64_t first = ((uint64_t)1 << 20) + done;
        hp_batch_clear(batch, ++number);
        add_groups(batch, first, block, group_size, &segment);
        add_leases(batch, first, block);
        if (done > 0) {
            add_ends(batch, first - block, block);
            hp_batch_add(batch, HP_OP_LEASE_DEL)->lease_del.batch = number - 1;
        }
        struct hp_op *op = hp_batch_add(batch, HP_OP_LANE);
        op->lane.lane = 1;
        op->lane.head_segment = segment;
        op->lane.next_segment = segment;
        double t1 = seconds(CLOCK_MONOTONIC);
        build += t1 - t0;
        if (hp_store_apply(store, &batch, 1, &error) != HP_OK) {
            die("apply", error.text);
        }
        double t2 = seconds(CLOCK_MONOTONIC) - t1;
        commit_max = t2 > commit_max ? t2 : commit_max;
    }
    wall = seconds(CLOCK_MONOTONIC) - wall;
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    struct hp_store_figures figures;
    hp_store_figures(store, &figures);
    printf(
        "store, %4u a submit, %5u a commit: %8.0f tasks/s, %.2f us cpu a task, building %.2f us, "
        "commit %.2f ms, max %.1f ms, db %.0f B a task\n",
        group_size, block, tasks / wall, cpu * 1e6 / tasks, build * 1e6 / tasks,
        wall * 1e3 / (tasks / block), commit_max * 1e3, (double)figures.db_bytes / tasks);
    hp_batch_free(batch);
    hp_store_close(store);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        die("usage", "store_rate DIR [tasks]");
    }
    uint32_t tasks = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 400000;
    (void)mkdir(argv[1], 0700); /* may be there */
    for (uint32_t block = 1000; block <= 4000; block *= 4) {
        uint32_t whole = tasks / block * block;
        run_store(argv[1], whole, block, 250);
        run_store(argv[1], whole, block, 1);
    }
    return 0;
}
