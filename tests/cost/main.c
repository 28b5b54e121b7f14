/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cost FOLDER ROUNDS [MORE]: rounds of 400 tasks there and back; prints how many. FOLDER must be
 * empty. MORE: each frame is scanned so many times more than need be.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cost/cost.h"

void cost_fail(const char *what)
{
    (void)fprintf(stderr, "cost: %s\n", what);
    exit(1);
}

void cost_must(enum hp_err err, const char *what)
{
    if (err != HP_OK) {
        cost_fail(what);
    }
}

static void step(struct cost *cost)
{
    cost->now_ms += 1;
    cost->wall_ms += 1;
    broker_run(cost);
    cost_client_take(cost);
    worker_run(cost);
}

static void run_round(struct cost *cost)
{
    static uint8_t bytes[COST_ROUND_TASKS][COST_BYTES];
    const void *payloads[COST_ROUND_TASKS];
    for (uint32_t i = 0; i < COST_ROUND_TASKS; i++) {
        uint64_t number = cost->submitted + i;
        memcpy(bytes[i], &number, sizeof(number));
        payloads[i] = bytes[i];
    }
    cost_client_submit(cost, payloads);
    for (int i = 0; i < 50 && cost->ended < cost->submitted; i++) {
        step(cost);
    }
    if (cost->ended != cost->submitted || cost->wrong > 0) {
        cost_fail("tasks are missing, or wrong");
    }
}

int main(int argc, char **argv)
{
    static struct cost cost = {.now_ms = 1000, .wall_ms = 1700000000000};
    if (argc < 3) {
        (void)fprintf(stderr, "usage: cost FOLDER ROUNDS [MORE]\n");
        return 2;
    }
    unsigned long rounds = strtoul(argv[2], NULL, 10);
    cost.scan_more = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 0;
    broker_open(&cost, argv[1]);
    client_open(&cost);
    worker_open(&cost);
    for (int i = 0; i < 5; i++) {
        step(&cost); /* hello, registration */
    }
    for (unsigned long i = 0; i < rounds; i++) {
        run_round(&cost);
    }
    (void)printf("%llu\n", (unsigned long long)cost.ended);
    worker_close(&cost);
    client_close(&cost);
    broker_close(&cost);
    return 0;
}
