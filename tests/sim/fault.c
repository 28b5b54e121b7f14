/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How each planned fault happens, and heals after its span. A fault that cannot happen at its time
 * (a broker that is down cannot crash) is tried again a little later; only what really happened is
 * counted. Some are armed, and strike at a certain point of the code: the counting is theirs.
 */
#include "common/base/assert.h"
#include "tests/sim/sim.h"

enum { TRIES_MAX = 40, HEAL_MARGIN_MS = 500, LINK_DELAY_US = 500 };
#define DAY_MS INT64_C(86400000)

static bool is_over(const struct sim *sim)
{
    return sim_ms(sim) + HEAL_MARGIN_MS >= sim->plan.heal_ms;
}

/* Never past the healing of all. */
static uint64_t span_us(const struct sim *sim, const struct sim_fault *fault)
{
    uint64_t left = is_over(sim) ? 1 : sim->plan.heal_ms - sim_ms(sim) - HEAL_MARGIN_MS / 2;
    return (fault->span_ms < left ? fault->span_ms : left) * SIM_MS;
}

static void count(struct sim *sim, const struct sim_fault *fault)
{
    sim->figures.faults++;
    sim->figures.kinds[fault->kind]++;
    sim_note(sim, "fault", (uint64_t)(fault - sim->plan.faults), (uint64_t)fault->kind,
             fault->place, fault->span_ms);
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

static void node_start(struct sim *sim, uint32_t index)
{
    if (!sim_node_is_up(sim, index)) {
        sim_node_start(sim, index);
    }
}

static void heal(struct sim *sim, void *context, uint64_t a, uint64_t b)
{
    const struct sim_fault *fault = context;
    (void)a;
    (void)b;
    switch (fault->kind) {
    case SIM_FAULT_BROKER_CRASH:
    case SIM_FAULT_BROKER_GONE:
    case SIM_FAULT_BROKER_SENT:
    case SIM_FAULT_COMMIT_LOST:
    case SIM_FAULT_COMMIT_THERE:
        broker_start(sim, NULL, 0, 0);
        break;
    case SIM_FAULT_BROKER_PAUSE:
        sim_broker_pause(sim, false);
        break;
    case SIM_FAULT_DISK_SLOW:
        sim_broker_slow_store(sim, false);
        break;
    case SIM_FAULT_DISK_FULL:
        sim_broker_fill_disk(sim, false);
        break;
    case SIM_FAULT_NODE_CRASH:
    case SIM_FAULT_NODE_GONE:
    case SIM_FAULT_NODE_STARTED:
    case SIM_FAULT_NODE_SPOOLING:
    case SIM_FAULT_NODE_SPOOLED:
    case SIM_FAULT_NODE_ACKED:
        node_start(sim, fault->place);
        break;
    case SIM_FAULT_NODE_PAUSE:
        sim_node_pause(sim, fault->place, false);
        break;
    case SIM_FAULT_LINK_CUT:
    case SIM_FAULT_LINK_CUT_UP:
    case SIM_FAULT_LINK_CUT_DOWN:
        sim_note(sim, "mend", fault->place, 0, 0, 0);
        sim_net_cut(sim, fault->place, false, false);
        break;
    case SIM_FAULT_LINK_SLOW:
        sim_net_slow(sim, fault->place, LINK_DELAY_US);
        break;
    case SIM_FAULT_SLOW_READER:
        sim_net_read_slowly(sim, fault->place, 0);
        break;
    case SIM_FAULT_USER_PAUSE:
        sim_user_pause(sim, fault->place - SIM_NODES_MAX, false);
        break;
    case SIM_FAULT_CLOCK_STEP:
    case SIM_FAULT_CLOCK_DAY:
        sim_set_wall(sim, 0);
        break;
    case SIM_FAULT_BROKER_DRAIN:
    case SIM_FAULT_DISK_STALL:
    case SIM_FAULT_NODE_DRAIN:
    case SIM_FAULT_CHILDREN:
    case SIM_FAULT_LINK_RESET:
    case SIM_FAULT_LINK_FLAPS:
    case SIM_FAULT_USER_CRASH:
    case SIM_FAULT_KINDS:
        break;
    }
}

void sim_fault_struck(struct sim *sim, const struct sim_fault *fault)
{
    count(sim, fault);
    sim_after(sim, span_us(sim, fault), heal, (void *)(uintptr_t)fault, 0, 0);
}

void sim_fault_heal_all(struct sim *sim)
{
    sim_broker_arm(sim, NULL);
    for (uint32_t i = 0; i < sim->plan.nodes; i++) {
        sim_node_arm(sim, i, NULL);
    }
}

/* ------------------------------------------------ the broker and its disk */
static bool do_broker(struct sim *sim, struct sim_fault *fault)
{
    if (!sim_broker_is_up(sim)) {
        return false;
    }
    switch ((unsigned)fault->kind) {
    case SIM_FAULT_BROKER_CRASH:
    case SIM_FAULT_BROKER_GONE:
        count(sim, fault);
        sim_broker_crash(sim, fault->kind == SIM_FAULT_BROKER_GONE);
        sim_after(sim, span_us(sim, fault), heal, fault, 0, 0);
        return true;
    case SIM_FAULT_BROKER_DRAIN:
        if (sim_broker_is_paused(sim)) {
            return false;
        }
        count(sim, fault);
        sim_broker_drain(sim);
        sim_after(sim, 100 * SIM_MS, broker_drained, NULL, 100, 0);
        return true;
    case SIM_FAULT_BROKER_PAUSE:
        if (sim_broker_is_paused(sim)) {
            return false;
        }
        sim_fault_struck(sim, fault);
        sim_broker_pause(sim, true);
        return true;
    case SIM_FAULT_DISK_STALL:
        count(sim, fault);
        sim_broker_stall_store(sim, span_us(sim, fault));
        return true;
    case SIM_FAULT_DISK_SLOW:
        sim_fault_struck(sim, fault);
        sim_broker_slow_store(sim, true);
        return true;
    case SIM_FAULT_DISK_FULL:
        if (sim_broker_is_disk_full(sim)) {
            return false;
        }
        sim_fault_struck(sim, fault);
        sim_broker_fill_disk(sim, true);
        return true;
    default: /* at a certain point */
        if (sim_broker_is_armed(sim)) {
            return false;
        }
        sim_broker_arm(sim, fault);
        return true;
    }
}

/* ------------------------------------------------ workers */
static bool do_node(struct sim *sim, struct sim_fault *fault)
{
    uint32_t index = fault->place;
    if (!sim_node_is_up(sim, index)) {
        return false;
    }
    switch ((unsigned)fault->kind) {
    case SIM_FAULT_NODE_CRASH:
    case SIM_FAULT_NODE_GONE:
        count(sim, fault);
        sim_node_crash(sim, index, fault->kind == SIM_FAULT_NODE_GONE);
        sim_after(sim, span_us(sim, fault), heal, fault, 0, 0);
        return true;
    case SIM_FAULT_NODE_PAUSE:
        if (sim_node_is_paused(sim, index)) {
            return false;
        }
        sim_fault_struck(sim, fault);
        sim_node_pause(sim, index, true);
        return true;
    case SIM_FAULT_NODE_DRAIN:
        if (sim_node_is_paused(sim, index)) {
            return false;
        }
        count(sim, fault);
        sim_node_drain(sim, index);
        return true;
    case SIM_FAULT_CHILDREN:
        if (sim_node_kill_children(sim, index) == 0) {
            return false;
        }
        count(sim, fault);
        return true;
    default:
        if (sim_node_is_armed(sim, index)) {
            return false;
        }
        sim_node_arm(sim, index, fault);
        return true;
    }
}

/* ------------------------------------------------ the net */
/* Up and down again, until `until_ms`. */
static void flap(struct sim *sim, void *context, uint64_t until_ms, uint64_t is_cut)
{
    const struct sim_fault *fault = context;
    bool over = sim_ms(sim) >= until_ms || is_over(sim);
    sim_note(sim, is_cut != 0 || over ? "mend" : "cut", fault->place, 3, 0, 0);
    sim_net_cut(sim, fault->place, is_cut == 0 && !over, is_cut == 0 && !over);
    if (is_cut == 0 && !over && sim_percent(sim, 30)) {
        (void)sim_net_reset(sim, fault->place);
    }
    if (!over) {
        uint64_t gap_ms = sim_pick(sim, 20, 1500);
        uint64_t left_ms = sim->plan.heal_ms - HEAL_MARGIN_MS / 2 - sim_ms(sim);
        sim_after(sim, (gap_ms < left_ms ? gap_ms : left_ms) * SIM_MS, flap, context, until_ms,
                  is_cut == 0);
    }
}

static bool do_link(struct sim *sim, struct sim_fault *fault)
{
    uint32_t place = fault->place;
    bool up = fault->kind == SIM_FAULT_LINK_CUT || fault->kind == SIM_FAULT_LINK_CUT_UP;
    bool down = fault->kind == SIM_FAULT_LINK_CUT || fault->kind == SIM_FAULT_LINK_CUT_DOWN;
    if ((up || down || fault->kind == SIM_FAULT_LINK_FLAPS) && sim_net_is_cut(sim, place)) {
        return false;
    }
    if (up || down) {
        sim_fault_struck(sim, fault);
        sim_net_cut(sim, place, up, down);
    } else if (fault->kind == SIM_FAULT_LINK_RESET) {
        if (sim_net_reset(sim, place) == 0) {
            return false;
        }
        count(sim, fault);
    } else if (fault->kind == SIM_FAULT_LINK_FLAPS) {
        count(sim, fault);
        flap(sim, fault, sim_ms(sim) + 1000 + span_us(sim, fault) / SIM_MS, 0);
    } else if (fault->kind == SIM_FAULT_LINK_SLOW) {
        sim_fault_struck(sim, fault);
        sim_net_slow(sim, place, (1 + fault->arg % 400) * SIM_MS);
    } else {
        sim_fault_struck(sim, fault);
        sim_net_read_slowly(sim, place, (20 + fault->arg % 600) * SIM_MS);
    }
    return true;
}

/* ------------------------------------------------ clients and the clock */
static bool do_user(struct sim *sim, struct sim_fault *fault)
{
    uint32_t index = fault->place - SIM_NODES_MAX;
    if (fault->kind == SIM_FAULT_USER_CRASH) {
        count(sim, fault);
        sim_user_crash(sim, index);
        return true;
    }
    if (sim_user_is_paused(sim, index)) {
        return false;
    }
    sim_fault_struck(sim, fault);
    sim_user_pause(sim, index, true);
    return true;
}

static bool do_clock(struct sim *sim, struct sim_fault *fault)
{
    int64_t by = (int64_t)(fault->arg % 6000) - 3000;
    if (fault->kind == SIM_FAULT_CLOCK_DAY) {
        by = fault->arg % 2 == 0 ? DAY_MS : -DAY_MS;
    }
    if (sim->wall_offset_ms != 0) {
        return false; /* one at a time: +-1 day is the most */
    }
    sim_fault_struck(sim, fault);
    sim_set_wall(sim, by);
    return true;
}

static void happen(struct sim *sim, void *context, uint64_t a, uint64_t b)
{
    struct sim_fault *fault = context;
    bool done = false;
    (void)a;
    (void)b;
    if (is_over(sim)) {
        return;
    }
    if (fault->kind < SIM_FAULT_NODE_CRASH) {
        sim_enter(sim, SIM_BROKER);
        done = do_broker(sim, fault);
    } else if (fault->kind < SIM_FAULT_LINK_RESET) {
        sim_enter(sim, SIM_NODE_0 + fault->place);
        done = do_node(sim, fault);
    } else if (fault->kind < SIM_FAULT_USER_CRASH) {
        sim_enter(sim, SIM_NET);
        done = do_link(sim, fault);
    } else if (fault->kind < SIM_FAULT_CLOCK_STEP) {
        sim_enter(sim, SIM_USER_0 + fault->place - SIM_NODES_MAX);
        done = do_user(sim, fault);
    } else {
        done = do_clock(sim, fault);
    }
    if (!done && fault->tries++ < TRIES_MAX) {
        sim_enter(sim, SIM_FAULTS);
        sim_after(sim, (100 + fault->arg % 1900) * SIM_MS, happen, fault, 0, 0);
    }
}

void sim_fault_start(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->plan.fault_count; i++) {
        struct sim_fault *fault = &sim->plan.faults[i];
        if (fault->is_on) {
            sim_at(sim, fault->at_ms * SIM_MS, happen, fault, 0, 0);
        }
    }
}
