/* SPDX-License-Identifier: BSD-2-Clause */
/* What the seed plans, and what goes wrong on the way. Each fault brings its own healing. */
#include "tests/sim/sim.h"

enum { HEAL_MARGIN_MS = 500 };

void sim_fault_plan(struct sim *sim)
{
    struct sim_plan *plan = &sim->plan;
    plan->nodes = (uint32_t)sim_pick(sim, 1, SIM_NODES_MAX);
    plan->users = (uint32_t)sim_pick(sim, 1, SIM_USERS_MAX);
    plan->lease_ms = sim_pick(sim, 4000, 30000);
    plan->heartbeat_ms = plan->lease_ms / sim_pick(sim, 5, 8);
    plan->window_runs =
        sim_percent(sim, 60) ? (uint32_t)sim_pick(sim, 4, 24) : 1024;
    plan->window_bytes = sim_percent(sim, 50) ? sim_pick(sim, 0, 8000) : 32U << 20;
    plan->window_timers =
        sim_percent(sim, 50) ? (uint32_t)sim_pick(sim, 4, 40) : 20000;
    plan->backlog_ops_max =
        sim_percent(sim, 40) ? (uint32_t)sim_pick(sim, 20, 300) : 8000;
    plan->eager = sim_percent(sim, 75);
    plan->check_each_turn = sim_percent(sim, 20);
    plan->work_ms = sim_pick(sim, 20, 150) * 1000;
    plan->heal_ms = plan->work_ms + 10000;
    plan->commit_us = sim_percent(sim, 50) ? sim_pick(sim, 200, 5000) : sim_pick(sim, 5000, 60000);
    plan->level_bytes = sim_percent(sim, 40) ? (uint32_t)sim_pick(sim, 200, 4000) : 96 * 1024;
    plan->fault_level = (uint32_t)sim_pick(sim, 0, 6);
    plan->task_goal = (uint32_t)sim_pick(sim, 50, 600);
    plan->long_run_ms = sim_pick(sim, 2000, 15000);
    plan->pools = sim->seed >= SIM_POOL_SEEDS;
    for (int i = 0; i < SIM_KEYS; i++) {
        plan->ckey_max[i] = (uint32_t)sim_pick(sim, 1, 4);
    }
}

/* ------------------------------------------------ healing */
static void broker_start(struct sim *sim, void *context, uint64_t a, uint64_t b)
{
    (void)context;
    (void)a;
    (void)b;
    if (!sim_broker_is_up(sim)) {
        sim_broker_start(sim);
    }
}

static void broker_drained(struct sim *sim, void *context, uint64_t tries, uint64_t b)
{
    (void)context;
    (void)b;
    if (sim_broker_is_up(sim) && tries > 0) {
        sim_after(sim, 50 * SIM_MS, broker_drained, NULL, tries - 1, 0);
    } else {
        broker_start(sim, NULL, 0, 0);
    }
}

static void broker_resume(struct sim *sim, void *context, uint64_t a, uint64_t b)
{
    (void)context;
    (void)a;
    (void)b;
    sim_broker_pause(sim, false);
}

static void node_start(struct sim *sim, void *context, uint64_t index, uint64_t b)
{
    (void)context;
    (void)b;
    if (!sim_node_is_up(sim, (uint32_t)index)) {
        sim_node_start(sim, (uint32_t)index);
    }
}

static void node_resume(struct sim *sim, void *context, uint64_t index, uint64_t b)
{
    (void)context;
    (void)b;
    sim_node_pause(sim, (uint32_t)index, false);
}

static void user_resume(struct sim *sim, void *context, uint64_t index, uint64_t b)
{
    (void)context;
    (void)b;
    sim_user_pause(sim, (uint32_t)index, false);
}

static void mend(struct sim *sim, void *context, uint64_t place, uint64_t b)
{
    (void)context;
    (void)b;
    sim_note(sim, "mend", place, 0, 0, 0);
    sim_net_cut(sim, (uint32_t)place, false, false);
}

static void speed_up(struct sim *sim, void *context, uint64_t place, uint64_t b)
{
    (void)context;
    (void)b;
    sim_net_slow(sim, (uint32_t)place, 500);
}

/* ------------------------------------------------ faults */
/* How long a fault lasts: often short, at times longer than a lease, never past the healing. */
static uint64_t span_us(struct sim *sim)
{
    uint64_t most = sim_percent(sim, 70) ? 2000 : 2 * sim->plan.lease_ms;
    uint64_t span = sim_pick(sim, 1, most);
    uint64_t left = sim->plan.heal_ms - HEAL_MARGIN_MS - sim_ms(sim);
    return (span < left ? span : left) * SIM_MS;
}

static uint32_t some_place(struct sim *sim)
{
    if (sim_percent(sim, 65)) {
        return (uint32_t)sim_pick(sim, 0, sim->plan.nodes - 1);
    }
    return SIM_NODES_MAX + (uint32_t)sim_pick(sim, 0, sim->plan.users - 1);
}

static void fault_broker(struct sim *sim)
{
    uint64_t span = span_us(sim);
    uint32_t kind = (uint32_t)sim_pick(sim, 0, 9);
    if (kind < 5) {
        sim_broker_crash(sim, sim_percent(sim, 20));
        sim_after(sim, span, broker_start, NULL, 0, 0);
    } else if (kind < 6) {
        sim_broker_drain(sim);
        sim_after(sim, 100 * SIM_MS, broker_drained, NULL, 100, 0);
    } else if (kind < 8) {
        sim_broker_pause(sim, true);
        sim_after(sim, span, broker_resume, NULL, 0, 0);
    } else {
        sim_note(sim, "store_stall", span, 0, 0, 0);
        sim_broker_stall_store(sim, span);
    }
}

static void fault_node(struct sim *sim)
{
    uint32_t index = (uint32_t)sim_pick(sim, 0, sim->plan.nodes - 1);
    uint64_t span = span_us(sim);
    uint32_t kind = (uint32_t)sim_pick(sim, 0, 9);
    if (kind < 5) {
        sim_node_crash(sim, index, sim_percent(sim, 30));
        sim_after(sim, span, node_start, NULL, index, 0);
    } else if (kind < 9) {
        sim_node_pause(sim, index, true);
        sim_after(sim, span, node_resume, NULL, index, 0);
    } else {
        sim_node_drain(sim, index);
    }
}

static void fault_net(struct sim *sim)
{
    uint32_t place = some_place(sim);
    uint64_t span = span_us(sim);
    uint32_t kind = (uint32_t)sim_pick(sim, 0, 9);
    if (kind < 4) {
        sim_note(sim, "reset", place, 0, 0, 0);
        sim_net_reset(sim, place);
    } else if (kind < 8) {
        uint32_t ways = (uint32_t)sim_pick(sim, 1, 3);
        sim_note(sim, "cut", place, ways, span, 0);
        sim_net_cut(sim, place, (ways & 1) != 0, (ways & 2) != 0);
        sim_after(sim, span, mend, NULL, place, 0);
    } else {
        sim_note(sim, "slow", place, span, 0, 0);
        sim_net_slow(sim, place, sim_pick(sim, 1, 400) * SIM_MS);
        sim_after(sim, span, speed_up, NULL, place, 0);
    }
}

static void fault_user(struct sim *sim)
{
    uint32_t index = (uint32_t)sim_pick(sim, 0, sim->plan.users - 1);
    if (sim_percent(sim, 50)) {
        sim_user_crash(sim, index);
    } else {
        sim_user_pause(sim, index, true);
        sim_after(sim, span_us(sim), user_resume, NULL, index, 0);
    }
}

static void fault_clock(struct sim *sim)
{
    int64_t by = (int64_t)sim_pick(sim, 0, 6000) - 3000;
    sim->wall_offset_ms += by;
    sim_note(sim, "wall_jump", (uint64_t)sim->wall_offset_ms, 0, 0, 0);
}

static void fault(struct sim *sim, void *context, uint64_t a, uint64_t b)
{
    (void)context;
    (void)a;
    (void)b;
    if (sim_ms(sim) + 2 * HEAL_MARGIN_MS >= sim->plan.heal_ms) {
        return;
    }
    uint64_t gap_ms = 40000 / (sim->plan.fault_level * sim->plan.fault_level);
    sim_after(sim, sim_pick(sim, 1, 2 * gap_ms) * SIM_MS, fault, NULL, 0, 0);
    sim->figures.faults++;
    uint32_t kind = (uint32_t)sim_pick(sim, 0, 99);
    if (kind < 25) {
        fault_broker(sim);
    } else if (kind < 55) {
        fault_node(sim);
    } else if (kind < 85) {
        fault_net(sim);
    } else if (kind < 95) {
        fault_user(sim);
    } else {
        fault_clock(sim);
    }
}

void sim_fault_start(struct sim *sim)
{
    if (sim->plan.fault_level > 0) {
        sim_after(sim, sim_pick(sim, 1, 20000) * SIM_MS, fault, NULL, 0, 0);
    }
}
