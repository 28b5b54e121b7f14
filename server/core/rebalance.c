/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tasks given ahead that turn out to wait behind long ones, while another worker has nothing to do.
 *
 * Function tasks and calls of pools are given ahead by the run times measured so far. Where these
 * say too little (a map whose later items are long) a worker is left with what it cannot begin. So
 * now and then, while any worker holds more than it can run at once, the core looks for classes of
 * which nothing waits here, which one worker could begin at once and another has held unstarted for
 * a while, and asks that one to hand them back. What has begun stays. What comes back costs no
 * budget, waits here in its old order, and goes first to slots and children that are free; the
 * worker that was asked is given nothing ahead until one of its tasks ends, and the class counts as
 * slow until measured otherwise, so that little is given ahead anywhere else.
 *
 * A look takes steps by classes and workers, not by what waits; the attempts of a worker (bounded
 * by slots and prefetch) are walked only if there is somebody to take them.
 */
#include "server/core/sched.h"
#include "server/core/state.h"

enum { LOOK_EVERY_MS = 100, STUCK_MS = 200, ASK_AGAIN_MS = 1000, PER_FREE_MAX = 64 };
enum { RECALLS_MAX = 512 }; /* in a look, of one class */

void hp_rebalance_want(struct hp_core *core)
{
    if (core->rebalance_ms == UINT64_MAX) {
        core->rebalance_ms = core->now_ms + STUCK_MS;
    }
}

static struct hp_pool_node *entry_of(const struct hp_class *class_, const struct hp_node *node)
{
    return hp_idmap_find_ptr(&node->pools, class_->pool);
}

/* Does it hold more of the class than can run at once? */
static bool holds_ahead(const struct hp_class *class_, const struct hp_node *node)
{
    if (class_->kind == HP_TASK_KIND_CALL) {
        const struct hp_pool_node *entry = entry_of(class_, node);
        return entry != NULL && entry->held > entry->pid_count;
    }
    uint32_t open = node->slots > node->used_cpus ? node->slots - node->used_cpus : 0;
    return node->light_count > open;
}

/* Tasks of the class that could begin at once, over all workers. */
static uint64_t free_room(struct hp_core *core, const struct hp_class *class_)
{
    uint64_t room = 0;
    HP_LIST_FOR_EACH (link, &core->node_list) {
        struct hp_node *node = HP_CONTAINER_OF(link, struct hp_node, link);
        if (hp_sched_is_taking(node) && hp_class_fits(core, class_, node)) {
            room += hp_sched_room(core, class_, node, false);
        }
    }
    return room;
}

/* Has its worker had it for a while, and not begun it? A start is told within milliseconds. */
static bool is_stuck(const struct hp_core *core, const struct hp_attempt *attempt)
{
    uint64_t since_ms = attempt->assigned_ms;
    if (attempt->state != HP_TASK_STATE_LEASED ||
        (attempt->recalled_ms != 0 && attempt->recalled_ms + ASK_AGAIN_MS > core->now_ms)) {
        return false;
    }
    if (attempt->lease != NULL && !attempt->eager) {
        if (attempt->lease->number > core->durable_number) {
            return false; /* it has not left yet */
        }
        since_ms = HP_MAX(since_ms, attempt->lease->durable_ms);
    }
    return since_ms + STUCK_MS <= core->now_ms;
}

/* Asks the worker for up to `most` of the class, what was given last first. Returns how many. */
static uint32_t recall(struct hp_core *core, struct hp_class *class_, struct hp_node *node,
                       uint32_t most)
{
    struct hp_st_run_ref *refs = HP_ARENA_NEW_ARRAY(&core->arena, struct hp_st_run_ref, most);
    HP_ASSERT(refs != NULL);
    uint32_t count = 0;
    for (struct hp_list *link = node->attempts.prev; link != &node->attempts && count < most;
         link = link->prev) {
        struct hp_attempt *attempt = HP_CONTAINER_OF(link, struct hp_attempt, node_link);
        if (attempt->spec->lane->class_ == class_ && is_stuck(core, attempt)) {
            attempt->recalled_ms = core->now_ms;
            refs[count++] = (struct hp_st_run_ref){
                .id = attempt->id, .attempt = attempt->attempt, .epoch = attempt->epoch};
        }
    }
    if (count == 0) {
        return 0;
    }
    struct hp_msg_worker_control control = {.has = HP_HAS_WORKER_CONTROL_RECALL_RUNS,
                                            .recall_runs = {.items = refs, .count = count}};
    hp_node_control(core, node, &control);
    if (class_->kind == HP_TASK_KIND_CALL) {
        entry_of(class_, node)->stuck = true;
    } else {
        node->stuck = true;
    }
    core->figures.recalled += count;
    hp_trace(core, HP_TRACE_INFO, "recall", "node=%.*s tasks=%u", HP_STR_ARG(node->name), count);
    return count;
}

/* True: some worker holds more of the class than it can run at once. */
static bool look(struct hp_core *core, struct hp_class *class_)
{
    bool any_ahead = false;
    uint64_t room = UINT64_MAX; /* not known yet */
    HP_LIST_FOR_EACH (link, &core->node_list) {
        struct hp_node *node = HP_CONTAINER_OF(link, struct hp_node, link);
        if (!holds_ahead(class_, node)) {
            continue;
        }
        any_ahead = true;
        if (hp_heap_peek(&class_->lanes) != NULL) {
            break; /* who is free is given those that wait here */
        }
        if (room == UINT64_MAX) {
            room = HP_MIN(free_room(core, class_) * PER_FREE_MAX, (uint64_t)RECALLS_MAX);
        }
        if (room == 0) {
            break;
        }
        if (hp_node_is_up(node) && node->registered && !node->conn->blocked) {
            uint32_t count = recall(core, class_, node, (uint32_t)room);
            if (count > 0 && class_->run_us < STUCK_MS * 1000) {
                class_->run_us = STUCK_MS * 1000; /* something runs for that long there */
            }
            room -= count;
        }
    }
    return any_ahead;
}

void hp_rebalance_due(struct hp_core *core)
{
    if (core->rebalance_ms > core->now_ms) {
        return;
    }
    bool any_ahead = false;
    bool is_ready = !core->draining &&
                    core->backlog_ops + core->batch->op_count <= core->config.backlog_ops_max;
    HP_LIST_FOR_EACH (link, &core->class_list) {
        struct hp_class *class_ = HP_CONTAINER_OF(link, struct hp_class, link);
        if (is_ready && class_->held > 0 && hp_sched_is_light(class_)) {
            any_ahead = look(core, class_) || any_ahead;
            hp_arena_reset(&core->arena);
        }
    }
    core->rebalance_ms = any_ahead || !is_ready ? core->now_ms + LOOK_EVERY_MS : UINT64_MAX;
}

void hp_rebalance_ended(struct hp_attempt *attempt)
{
    if (attempt->pool_node != NULL) {
        attempt->pool_node->stuck = false;
    } else {
        attempt->node->stuck = false;
    }
}
