/* SPDX-License-Identifier: BSD-2-Clause */
/* What node.c and node_exec.c share. */
#ifndef HP_TESTS_SIM_NODE_STATE_H
#define HP_TESTS_SIM_NODE_STATE_H
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/buf.h"
#include "common/base/mem.h"
#include "tests/sim/sim.h"
#include "worker/core/agent.h"

enum { SLOTS_MAX = 4, EVENTS_MAX = 2048, CHILD_UP_MS = 8, POOL_CHILDREN = 12 };
enum { CHILDREN_MAX = SLOTS_MAX + POOL_CHILDREN };

/* A command that runs, or a call that a child holds. */
struct run {
    struct run *next;
    uint64_t key, id, epoch, wid;
    uint32_t attempt, child;
    bool fence, began, ending, waits;
    uint64_t serial;
    struct hp_agent_event end; /* how it will end */
    uint8_t result[12];
    uint32_t large; /* bytes of content behind it; 0: none */
};

struct record {
    struct record *next;
    uint64_t id;
    bool durable, acked;
    struct hp_bin bytes;
};

/* A child of a pool, in a slot behind those of functions. */
struct pool_child {
    uint64_t pool;            /* 0: the slot is free */
    uint64_t serial;          /* of this child: what was planned for an earlier one is void */
    uint64_t calls_left;      /* UINT64_MAX: no limit */
    bool up, stopping, never; /* never: its initializer runs for ever */
};

struct sim_node {
    struct sim *sim;
    uint32_t index;
    char name[16];
    struct hp_agent *agent;
    bool up, paused, woken, connected;
    uint64_t generation, conn;
    uint32_t slots;
    struct run *runs; /* in the order they were given */
    bool child_up[CHILDREN_MAX];
    struct pool_child pool_children[CHILDREN_MAX];
    struct record *spool;
    struct hp_agent_event events[EVENTS_MAX]; /* for the agent, when it listens */
    uint8_t results[EVENTS_MAX][12];
    uint32_t larges[EVENTS_MAX];
    uint32_t event_count;
    uint64_t deadline_us, fence_ms, next_serial;
    uint64_t spooled_up_to; /* told when it listens; 0: nothing */
    struct sim_fault *armed;
};

void sim_node_child_up(struct sim *sim, void *context, uint64_t generation, uint64_t child);
void sim_node_begin_child(struct sim_node *node, uint32_t child);
struct run *sim_node_add_run(struct sim_node *node, uint64_t key, uint64_t id, uint32_t attempt,
                             uint64_t epoch, struct hp_bin payload, bool fence, uint32_t child);
void sim_node_do_run(struct sim_node *node, const struct hp_agent_command *command);
void sim_node_recall(struct sim_node *node, uint32_t child);
void sim_node_do_kill(struct sim_node *node, uint64_t key, int signal);
void sim_node_fence(struct sim *sim, void *context, uint64_t generation, uint64_t deadline_ms);
void sim_node_wake(struct sim_node *node);
/* run: whose result it is; NULL: none. */
void sim_node_post(struct sim_node *node, const struct hp_agent_event *event,
                   const struct run *run);
/* It dies before anything else happens, if that fault is armed. */
void sim_node_strikes(struct sim_node *node, enum sim_fault_kind kind);
/* node_pool.c */
void sim_node_pool_start(struct sim_node *node, const struct hp_agent_effect *effect);
void sim_node_pool_stop(struct sim_node *node, const struct hp_agent_effect *effect);
/* The child's process is gone; what it held was reported. */
void sim_node_pool_gone(struct sim_node *node, uint32_t child, bool recycled, const char *error);
/* A call of it has ended: true if the child ends with it. */
bool sim_node_pool_served(struct sim_node *node, uint32_t child);
/* It has nothing to do: it ends, if it is to. */
void sim_node_pool_idle(struct sim_node *node, uint32_t child);

#endif
