/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Children of pools in the simulator: their set-up takes time and may fail, by what their pool's
 * payload (its wid) says: some pools cannot be set up at all, some not on certain hosts, some now
 * and then. They end in order, by a signal, or after so many calls.
 */
#include "tests/sim/node_state.h"

enum { FAILS_ALWAYS = 0, FAILS_ON_ODD = 1, FAILS_OFTEN = 2, LASTS_FOR_EVER = 3, KINDS = 16 };

void sim_node_pool_gone(struct sim_node *node, uint32_t child, bool recycled, const char *error)
{
    struct pool_child *at = &node->pool_children[child];
    struct hp_agent_event event = {.kind = HP_AGENT_EXEC_CHILD_DOWN,
                                   .child = child,
                                   .gone = true,
                                   .recycled = recycled,
                                   .init_failed = error != NULL};
    if (error != NULL) {
        event.error = hp_str_of(error);
    }
    node->child_up[child] = false;
    *at = (struct pool_child){.serial = at->serial};
    sim_node_post(node, &event, NULL);
}

static bool fails(struct sim_node *node, uint64_t wid)
{
    struct sim *sim = node->sim;
    switch (wid % KINDS) {
    case FAILS_ALWAYS:
        return true;
    case FAILS_ON_ODD:
        return node->index % 2 == 1;
    case FAILS_OFTEN:
        return sim_percent(sim, sim->healed ? 0 : 40);
    default:
        return sim_percent(sim, sim->healed ? 0 : 3);
    }
}

static void set_up(struct sim *sim, void *context, uint64_t child, uint64_t serial)
{
    struct sim_node *node = context;
    struct pool_child *at = &node->pool_children[child];
    if (at->serial != serial || at->pool == 0 || at->up) {
        return;
    }
    if (at->never) {
        sim_node_pool_gone(node, (uint32_t)child, false, "no luck");
        return;
    }
    at->up = true;
    node->child_up[child] = true;
    struct hp_agent_event event = {
        .kind = HP_AGENT_EXEC_CHILD_UP, .child = (uint32_t)child, .pid = (uint32_t)serial};
    sim_note(sim, "child_up", node->index, at->pool, child, 0);
    sim_node_post(node, &event, NULL);
    sim_node_pool_idle(node, (uint32_t)child); /* it may have been told to stop meanwhile */
}

void sim_node_pool_start(struct sim_node *node, const struct hp_agent_effect *effect)
{
    struct sim *sim = node->sim;
    const struct hp_agent_pool_child *start = effect->start;
    SIM_RULE(sim, effect->child >= node->slots && effect->child < node->slots + POOL_CHILDREN,
             "child %u is none of a pool", effect->child);
    struct pool_child *at = &node->pool_children[effect->child];
    SIM_RULE(sim, at->pool == 0, "child %u of node %u was started twice", effect->child,
             node->index);
    uint64_t wid = 0;
    for (uint32_t i = 0; start->payload.size == 8 && i < 8; i++) {
        wid |= (uint64_t)start->payload.data[i] << (8 * i);
    }
    SIM_RULE(sim, wid != 0, "pool %llu is set up without its payload",
             (unsigned long long)start->pool);
    *at = (struct pool_child){.pool = start->pool,
                              .serial = node->next_serial++,
                              .calls_left = start->calls_max > 0 ? start->calls_max : UINT64_MAX,
                              .never = fails(node, wid)};
    sim_note(sim, "child_start", node->index, at->pool, effect->child, at->never);
    if (wid % KINDS == LASTS_FOR_EVER && !sim->healed && sim_percent(sim, 30)) {
        /* Nothing but a signal ends it, until all is well. */
        sim_at(sim, sim->plan.heal_ms * SIM_MS + sim_pick(sim, 0, 5000) * SIM_MS, set_up, node,
               effect->child, at->serial);
        return;
    }
    uint64_t took_ms = sim_percent(sim, 80) ? sim_pick(sim, 1, 100) : sim_pick(sim, 100, 4000);
    sim_after(sim, took_ms * SIM_MS, set_up, node, effect->child, at->serial);
}

static bool has_runs(const struct sim_node *node, uint32_t child)
{
    for (const struct run *run = node->runs; run != NULL; run = run->next) {
        if (run->child == child) {
            return true;
        }
    }
    return false;
}

void sim_node_pool_idle(struct sim_node *node, uint32_t child)
{
    struct pool_child *at = &node->pool_children[child];
    if (at->pool != 0 && at->up && at->stopping && !has_runs(node, child)) {
        sim_node_pool_gone(node, child, true, NULL);
    }
}

bool sim_node_pool_served(struct sim_node *node, uint32_t child)
{
    struct pool_child *at = &node->pool_children[child];
    SIM_RULE(node->sim, at->pool != 0, "a call ended in child %u of node %u, which is not there",
             child, node->index);
    if (at->calls_left != UINT64_MAX) {
        at->calls_left--;
    }
    return at->calls_left == 0;
}

static void killed(struct sim *sim, void *context, uint64_t child, uint64_t serial)
{
    struct sim_node *node = context;
    struct pool_child *at = &node->pool_children[child];
    (void)sim;
    if (at->serial == serial && at->pool != 0) {
        for (const struct run *run = node->runs; run != NULL; run = run->next) {
            if (run->child == child && run->began) {
                sim_node_do_kill(node, run->key, SIGKILL); /* it dies with its call */
                return;
            }
        }
        sim_node_recall(node, (uint32_t)child);
        sim_node_pool_gone(node, (uint32_t)child, false, at->up ? NULL : "killed");
    }
}

void sim_node_pool_stop(struct sim_node *node, const struct hp_agent_effect *effect)
{
    struct pool_child *at = &node->pool_children[effect->child];
    if (at->pool == 0) {
        return; /* it is gone, which the agent does not know yet */
    }
    sim_note(node->sim, "child_stop", node->index, at->pool, effect->child,
             (uint64_t)effect->signal);
    at->stopping = true;
    if (effect->signal != 0) {
        sim_after(node->sim, sim_pick(node->sim, 50, 3000), killed, node, effect->child,
                  at->serial);
    } else {
        sim_node_pool_idle(node, effect->child);
    }
}
