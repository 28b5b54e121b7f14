/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The way of tasks through the product in one process, without clock, network or threads: the
 * client's engine, the broker's core, the store on a real database, the worker's agent. Only the
 * functions that begin with cost_ call the product, each those of one stage: a profiler that counts
 * what happens inside of them counts that stage.
 */
#ifndef HP_TESTS_COST_COST_H
#define HP_TESTS_COST_COST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"

enum { COST_CLIENT = 1, COST_WORKER = 2, COST_CONNS = 2 }; /* connection ids */
enum { COST_ROUND_TASKS = 400, COST_BYTES = 100 }; /* tasks of a round; payload and result */

struct hp_engine;
struct hp_agent;
struct cost_broker;
struct cost_events;

struct cost {
    uint64_t now_ms;
    int64_t wall_ms;
    uint32_t scan_more; /* each frame, so often: a regression, for the test of the test */
    /* client */
    struct hp_engine *engine;
    uint64_t submitted, ended, wrong;
    /* broker: its types have the names of the client's, so they are in cost_broker.c */
    struct cost_broker *broker;
    struct hp_buf to_broker[COST_CONNS], from_broker[COST_CONNS];
    /* worker */
    struct hp_agent *agent;
    struct cost_events *events; /* ends of calls that "ran" */
};

/* Ends the program with a sentence. */
__attribute__((noreturn)) void cost_fail(const char *what);
void cost_must(enum hp_err err, const char *what);

/* cost_client.c */
void client_open(struct cost *cost);
void cost_client_submit(struct cost *cost, const void *payloads[COST_ROUND_TASKS]);
void cost_client_take(struct cost *cost);
void client_close(struct cost *cost);

/* cost_broker.c: a turn is core_turn, store_turn, core_turn with the commit. */
void broker_open(struct cost *cost, const char *folder);
void broker_run(struct cost *cost); /* turns until nothing is left to do */
void broker_close(struct cost *cost);

/* cost_worker.c */
void worker_open(struct cost *cost);
void worker_run(struct cost *cost); /* until it has nothing more to do */
void worker_close(struct cost *cost);

#endif
