/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the seed decides beforehand: sizes, and the list of faults. A run with something left out
 * has the same plan, and does less of it.
 */
#include "common/base/macro.h"
#include "tests/sim/sim.h"

enum { HEAL_MARGIN_MS = 500, NODES_LEAST = 3, FAULTS_LEAST = 30 };

/* How often, in 1,000, each kind is drawn. */
static const uint32_t weights[SIM_FAULT_KINDS] = {
    [SIM_FAULT_BROKER_CRASH] = 80,  [SIM_FAULT_BROKER_GONE] = 25,   [SIM_FAULT_BROKER_DRAIN] = 25,
    [SIM_FAULT_BROKER_PAUSE] = 45,  [SIM_FAULT_BROKER_SENT] = 25,   [SIM_FAULT_COMMIT_LOST] = 25,
    [SIM_FAULT_COMMIT_THERE] = 25,  [SIM_FAULT_DISK_STALL] = 25,    [SIM_FAULT_DISK_SLOW] = 20,
    [SIM_FAULT_DISK_FULL] = 25,     [SIM_FAULT_NODE_CRASH] = 80,    [SIM_FAULT_NODE_GONE] = 35,
    [SIM_FAULT_NODE_PAUSE] = 95,    [SIM_FAULT_NODE_DRAIN] = 25,    [SIM_FAULT_NODE_STARTED] = 25,
    [SIM_FAULT_NODE_SPOOLING] = 15, [SIM_FAULT_NODE_SPOOLED] = 25,  [SIM_FAULT_NODE_ACKED] = 20,
    [SIM_FAULT_CHILDREN] = 30,      [SIM_FAULT_LINK_RESET] = 75,    [SIM_FAULT_LINK_CUT] = 45,
    [SIM_FAULT_LINK_CUT_UP] = 30,   [SIM_FAULT_LINK_CUT_DOWN] = 30, [SIM_FAULT_LINK_FLAPS] = 25,
    [SIM_FAULT_LINK_SLOW] = 30,     [SIM_FAULT_SLOW_READER] = 25,   [SIM_FAULT_USER_CRASH] = 30,
    [SIM_FAULT_USER_PAUSE] = 35,    [SIM_FAULT_CLOCK_STEP] = 15,    [SIM_FAULT_CLOCK_DAY] = 15,
};

static uint32_t weight(const struct sim *sim, uint32_t kind)
{
    const struct sim_scene *scene = sim->options->scene;
    return scene == NULL || (scene->kinds >> kind & 1U) != 0 ? weights[kind] : 0;
}

static enum sim_fault_kind some_kind(struct sim *sim)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < SIM_FAULT_KINDS; i++) {
        sum += weight(sim, i);
    }
    uint32_t at = (uint32_t)sim_pick(sim, 0, sum - 1);
    uint32_t kind = 0;
    while (at >= weight(sim, kind)) {
        at -= weight(sim, kind++);
    }
    return (enum sim_fault_kind)kind;
}

static uint32_t some_place(struct sim *sim, enum sim_fault_kind kind)
{
    bool of_user = kind == SIM_FAULT_USER_CRASH || kind == SIM_FAULT_USER_PAUSE;
    bool of_link = kind >= SIM_FAULT_LINK_RESET && kind <= SIM_FAULT_SLOW_READER;
    bool of_users = sim->options->scene != NULL && sim->options->scene->of_users;
    if (of_user || (of_link && (sim_percent(sim, 35) || of_users))) {
        return SIM_NODES_MAX + (uint32_t)sim_pick(sim, 0, sim->plan.users - 1);
    }
    return (uint32_t)sim_pick(sim, 0, sim->plan.nodes - 1);
}

/* How long: often short, at times longer than a lease; a disk may stall for 30 s. */
static uint64_t some_span(struct sim *sim, enum sim_fault_kind kind)
{
    bool matters = kind == SIM_FAULT_NODE_PAUSE || kind == SIM_FAULT_LINK_CUT ||
                   kind == SIM_FAULT_LINK_CUT_UP || kind == SIM_FAULT_LINK_CUT_DOWN;
    uint64_t most = sim_percent(sim, matters ? 40 : 70) ? 2000 : 2 * sim->plan.lease_ms;
    uint64_t span = sim_pick(sim, 1, most);
    bool is_long = kind == SIM_FAULT_DISK_STALL || kind == SIM_FAULT_CLOCK_DAY;
    return is_long && sim_percent(sim, 50) ? 30000 : span;
}

/* Faults like company: half of them come soon after another one. */
static uint64_t some_time(struct sim *sim, uint64_t last_ms)
{
    uint64_t most = sim->plan.heal_ms - 10 * HEAL_MARGIN_MS;
    uint64_t at = sim_percent(sim, 50) ? last_ms + sim_pick(sim, 0, 3000) : sim_pick(sim, 50, most);
    return HP_MIN(at, most);
}

static void plan_faults(struct sim *sim)
{
    struct sim_plan *plan = &sim->plan;
    plan->fault_count = (uint32_t)sim_pick(sim, FAULTS_LEAST, 44);
    if (sim_percent(sim, 15) && sim->options->scene == NULL) {
        plan->fault_count = SIM_FAULTS_MAX; /* a storm */
    }
    uint64_t last_ms = 0;
    for (uint32_t i = 0; i < plan->fault_count; i++) {
        struct sim_fault *fault = &plan->faults[i];
        fault->kind = some_kind(sim);
        fault->at_ms = some_time(sim, last_ms);
        fault->span_ms = some_span(sim, fault->kind);
        if (sim->options->scene != NULL) {
            fault->span_ms = sim_pick(sim, 1, sim->options->scene->span_ms);
        }
        fault->place = some_place(sim, fault->kind);
        fault->arg = sim_pick(sim, 0, UINT64_MAX - 1);
        last_ms = fault->at_ms;
    }
}

/* Less of everything, as the options say. */
static void leave_out(struct sim *sim)
{
    struct sim_plan *plan = &sim->plan;
    const struct sim_options *options = sim->options;
    plan->nodes = options->nodes > 0 ? HP_MIN(plan->nodes, options->nodes) : plan->nodes;
    plan->users = options->users > 0 ? HP_MIN(plan->users, options->users) : plan->users;
    if (options->until_ms > 0 && options->until_ms < plan->heal_ms) {
        plan->heal_ms = options->until_ms;
        plan->work_ms = HP_MIN(plan->work_ms, plan->heal_ms);
    }
    for (uint32_t i = 0; i < plan->fault_count; i++) {
        struct sim_fault *fault = &plan->faults[i];
        uint32_t place = fault->place;
        bool is_there =
            place < SIM_NODES_MAX ? place < plan->nodes : place - SIM_NODES_MAX < plan->users;
        fault->is_on =
            !options->without[i] && is_there && fault->at_ms + HEAL_MARGIN_MS < plan->heal_ms;
    }
}

void sim_plan(struct sim *sim)
{
    struct sim_plan *plan = &sim->plan;
    plan->nodes = (uint32_t)sim_pick(sim, NODES_LEAST, SIM_NODES_MAX);
    plan->users = (uint32_t)sim_pick(sim, 1, SIM_USERS_MAX);
    plan->lease_ms = sim_pick(sim, 4000, 30000);
    if (sim->options->scene != NULL) {
        plan->lease_ms = sim_pick(sim, 15000, 30000);
    }
    plan->heartbeat_ms = plan->lease_ms / sim_pick(sim, 5, 8);
    plan->window_runs = sim_percent(sim, 60) ? (uint32_t)sim_pick(sim, 4, 24) : 1024;
    plan->window_bytes = sim_percent(sim, 50) ? sim_pick(sim, 0, 8000) : 32U << 20;
    plan->window_timers = sim_percent(sim, 50) ? (uint32_t)sim_pick(sim, 4, 40) : 20000;
    plan->backlog_ops_max = sim_percent(sim, 40) ? (uint32_t)sim_pick(sim, 20, 300) : 8000;
    plan->eager = sim_percent(sim, 75);
    plan->check_each_turn = sim_percent(sim, 10);
    plan->work_ms = sim_pick(sim, 470, 600) * 1000;
    plan->heal_ms = plan->work_ms + 10000;
    plan->commit_us = sim_percent(sim, 50) ? sim_pick(sim, 200, 5000) : sim_pick(sim, 5000, 60000);
    plan->level_bytes = sim_percent(sim, 40) ? (uint32_t)sim_pick(sim, 200, 4000) : 96 * 1024;
    plan->task_goal = (uint32_t)sim_pick(sim, 100, 1000);
    plan->bursts = sim_percent(sim, 50);
    plan->long_run_ms = sim_pick(sim, 2000, 15000);
    if (sim_percent(sim, 40)) { /* some outlast a lease */
        plan->long_run_ms = plan->lease_ms * 2;
    }
    plan->pools = sim->seed >= SIM_POOL_SEEDS;
    plan->blobs = sim->seed >= SIM_BLOB_SEEDS;
    for (int i = 0; i < SIM_KEYS; i++) {
        plan->ckey_max[i] = (uint32_t)sim_pick(sim, 1, 4);
    }
    plan_faults(sim);
    leave_out(sim);
}
