/* SPDX-License-Identifier: BSD-2-Clause */
/* A worker's executor in the simulator: commands and calls that take time, fail and die. */
#include "tests/sim/node_state.h"

/* ------------------------------------------------ what the executor sees */
void sim_node_post(struct sim_node *node, const struct hp_agent_event *event, const struct run *run)
{
    HP_ASSERT(node->event_count < EVENTS_MAX);
    struct hp_agent_event *slot = &node->events[node->event_count];
    *slot = *event;
    node->larges[node->event_count] = 0;
    if (run != NULL) {
        memcpy(node->results[node->event_count], run->result, 12);
        node->larges[node->event_count] = run->large;
        slot->out = hp_bin_make(node->results[node->event_count], 12);
    }
    node->event_count++;
    sim_node_wake(node);
}

static struct run **find(struct sim_node *node, uint64_t key)
{
    struct run **at = &node->runs;
    while (*at != NULL && (*at)->key != key) {
        at = &(*at)->next;
    }
    return at;
}

static void finish(struct sim *sim, void *context, uint64_t key, uint64_t serial)
{
    struct sim_node *node = context;
    struct run **at = find(node, key);
    struct run *run = *at;
    if (run == NULL || run->serial != serial) {
        return; /* it was killed before */
    }
    *at = run->next;
    bool died = run->end.kind == HP_AGENT_EXEC_RESULT && run->end.outcome == HP_AGENT_OUTCOME_DIED;
    bool ok = !run->end.fenced && run->end.start_errno == 0 && run->end.signal == 0 &&
              run->end.exit_code == 0 &&
              (run->end.kind == HP_AGENT_EXEC_ENDED || run->end.outcome == HP_AGENT_OUTCOME_OK);
    if (run->end.start_errno == 0) {
        audit_end(sim, node->index, run->id, run->attempt, run->epoch, ok);
    }
    run->end.key = key;
    if (run->waits && !died) {
        struct hp_agent_event waits = {.kind = HP_AGENT_EXEC_CHILD_WAITS, .child = run->child};
        sim_node_post(node, &waits, NULL);
    }
    sim_node_post(node, &run->end, ok ? run : NULL);
    uint32_t child = run->child;
    hp_free(run);
    if (child == HP_AGENT_NO_CHILD) {
        return;
    }
    bool of_pool = child >= node->slots;
    bool recycled = of_pool && !died && sim_node_pool_served(node, child);
    if (died || recycled) {
        node->child_up[child] = false;
        for (;;) { /* what it had not begun comes back, the last first */
            struct run **last = NULL;
            for (struct run **each = &node->runs; *each != NULL; each = &(*each)->next) {
                last = (*each)->child == child ? each : last;
            }
            if (last == NULL) {
                break;
            }
            struct run *back = *last;
            struct hp_agent_event event = {.kind = HP_AGENT_EXEC_HANDED_BACK, .key = back->key};
            *last = back->next;
            hp_free(back);
            sim_node_post(node, &event, NULL);
        }
        struct hp_agent_event down = {.kind = HP_AGENT_EXEC_CHILD_DOWN, .child = child};
        if (of_pool) {
            sim_node_pool_gone(node, child, recycled, NULL);
        } else {
            sim_node_post(node, &down, NULL);
        }
    } else {
        sim_node_begin_child(node, child);
    }
}

void sim_node_child_up(struct sim *sim, void *context, uint64_t generation, uint64_t child)
{
    struct sim_node *node = context;
    (void)sim;
    if (generation == node->generation && !node->child_up[child]) {
        node->child_up[child] = true;
        struct hp_agent_event event = {.kind = HP_AGENT_EXEC_CHILD_UP, .child = (uint32_t)child};
        sim_node_post(node, &event, NULL);
    }
}

static void end_at(struct sim_node *node, struct run *run, uint64_t delay_us)
{
    run->serial = node->next_serial++;
    sim_after(node->sim, delay_us, finish, node, run->key, run->serial);
}

static uint64_t run_time_us(struct sim *sim, bool function)
{
    uint32_t kind = (uint32_t)sim_pick(sim, 0, 99);
    if (kind < 60) {
        return function ? sim_pick(sim, 20, 3000) : sim_pick(sim, 2, 200) * SIM_MS;
    }
    if (kind < 90) {
        return sim_pick(sim, 10, 3000) * SIM_MS;
    }
    return sim_pick(sim, sim->plan.long_run_ms / 8, sim->plan.long_run_ms) * SIM_MS;
}

static void plan_result(struct sim_node *node, struct run *run)
{
    for (uint32_t i = 0; i < 8; i++) {
        run->result[i] = (uint8_t)(run->id >> (8 * i));
    }
    for (uint32_t i = 0; i < 4; i++) {
        run->result[8 + i] = (uint8_t)(run->attempt >> (8 * i));
    }
    uint32_t luck = (uint32_t)sim_pick(node->sim, 0, 99); /* of the task's own stream */
    bool function = run->child != HP_AGENT_NO_CHILD;
    run->end.kind = function ? HP_AGENT_EXEC_RESULT : HP_AGENT_EXEC_ENDED;
    run->end.run_us = 1;
    if (luck < 80) {
        run->end.outcome = HP_AGENT_OUTCOME_OK;
    } else if (luck < 88) {
        run->end.outcome = HP_AGENT_OUTCOME_ERROR;
        run->end.exit_code = function ? 0 : 3;
        run->end.error = HP_STR("no luck");
    } else if (luck < 92) {
        run->end.outcome = HP_AGENT_OUTCOME_RETRY;
        run->end.retry_ms = sim_pick(node->sim, 0, 2000);
        run->end.exit_code = function ? 0 : 75;
    } else if (luck < 94) {
        run->end.outcome = HP_AGENT_OUTCOME_PERMANENT;
        run->end.exit_code = function ? 0 : 1;
    } else if (luck < 97) {
        run->end.outcome = HP_AGENT_OUTCOME_DIED;
        run->end.signal = SIGSEGV;
    } else {
        run->end.outcome = HP_AGENT_OUTCOME_DIED;
        run->end.signal = SIGKILL;
        run->end.oom = true;
    }
}

static void begin(struct sim_node *node, struct run *run)
{
    struct sim *sim = node->sim;
    enum sim_stream before =
        sim_enter_fresh(sim, SIM_TASK, run->wid != 0 ? run->wid : run->id, run->attempt);
    run->began = true;
    plan_result(node, run);
    audit_start(node->sim, node->index, run->id, run->attempt, run->epoch, run->wid);
    uint64_t took_us = run_time_us(node->sim, run->child != HP_AGENT_NO_CHILD);
    run->end.run_us = took_us;
    bool waits_too = sim_percent(sim, 10);
    if (sim->plan.blobs && sim_percent(sim, 15)) {
        run->large = (uint32_t)sim_pick(sim, SIM_LARGE_LEAST, SIM_LARGE_MOST);
    }
    sim_enter(sim, before);
    if (run->child != HP_AGENT_NO_CHILD && run->child >= node->slots && waits_too) {
        struct hp_agent_event waits = {
            .kind = HP_AGENT_EXEC_CHILD_WAITS, .child = run->child, .on = true};
        run->waits = true;
        sim_node_post(node, &waits, NULL);
    }
    end_at(node, run, took_us);
    sim_node_strikes(node, SIM_FAULT_NODE_STARTED);
}

/* The child takes its next call, if it has one. */
void sim_node_begin_child(struct sim_node *node, uint32_t child)
{
    for (struct run *run = node->runs; run != NULL; run = run->next) {
        if (run->child == child) {
            if (!run->began) {
                begin(node, run);
            }
            return;
        }
    }
    if (child >= node->slots) {
        sim_node_pool_idle(node, child);
    }
}

struct run *sim_node_add_run(struct sim_node *node, uint64_t key, uint64_t id, uint32_t attempt,
                             uint64_t epoch, struct hp_bin payload, bool sim_node_fence,
                             uint32_t child)
{
    struct run *run = sim_alloc(sizeof(*run));
    *run = (struct run){.key = key,
                        .id = id,
                        .epoch = epoch,
                        .attempt = attempt,
                        .fence = sim_node_fence,
                        .child = child};
    run->wid = sim_content_number(payload.data, payload.size);
    SIM_RULE(node->sim,
             payload.size <= 8 || sim_content_is(payload.data + 8, payload.size - 8, run->wid),
             "task %llu: attempt %u has not the bytes that were sent", (unsigned long long)id,
             attempt);
    struct run **at = &node->runs;
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = run;
    return run;
}

void sim_node_do_run(struct sim_node *node, const struct hp_agent_command *command)
{
    struct run *run =
        sim_node_add_run(node, command->key, command->id, command->attempt, command->epoch,
                         command->stdin_data, command->fence, HP_AGENT_NO_CHILD);
    if (sim_percent(node->sim, 2)) {
        run->end = (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED, .start_errno = 2};
        end_at(node, run, 500);
        return;
    }
    struct hp_agent_event event = {
        .kind = HP_AGENT_EXEC_STARTED, .key = run->key, .pid = (uint32_t)(1000 + run->id % 30000)};
    sim_node_post(node, &event, NULL);
    begin(node, run);
}

/* Takes back what the child has not begun, the last first. */
void sim_node_recall(struct sim_node *node, uint32_t child)
{
    for (;;) {
        struct run **last = NULL;
        for (struct run **at = &node->runs; *at != NULL; at = &(*at)->next) {
            last = (*at)->child == child && !(*at)->began ? at : last;
        }
        if (last == NULL) {
            return;
        }
        struct run *run = *last;
        struct hp_agent_event event = {.kind = HP_AGENT_EXEC_HANDED_BACK, .key = run->key};
        *last = run->next;
        hp_free(run);
        sim_node_post(node, &event, NULL);
    }
}

static void die(struct sim_node *node, struct run *run, int signal, bool fenced)
{
    run->end = (struct hp_agent_event){
        .kind = run->child == HP_AGENT_NO_CHILD ? HP_AGENT_EXEC_ENDED : HP_AGENT_EXEC_RESULT,
        .outcome = HP_AGENT_OUTCOME_DIED,
        .signal = (uint32_t)signal,
        .fenced = fenced};
    run->ending = true;
    end_at(node, run, sim_pick(node->sim, 100, 3000));
}

void sim_node_do_kill(struct sim_node *node, uint64_t key, int signal)
{
    struct run *run = *find(node, key);
    if (run == NULL) {
        return;
    }
    if (run->child != HP_AGENT_NO_CHILD) {
        if (!run->began) {
            struct hp_agent_event event = {.kind = HP_AGENT_EXEC_HANDED_BACK, .key = key};
            struct run **at = find(node, key);
            *at = run->next;
            hp_free(run);
            sim_node_post(node, &event, NULL);
            return;
        }
        sim_node_recall(node, run->child);
    }
    if (run->began && !run->ending && (signal == SIGKILL || sim_percent(node->sim, 60))) {
        die(node, run, signal, false);
    }
}

uint32_t sim_node_kill_children(struct sim *sim, uint32_t index)
{
    struct sim_node *node = sim->nodes[index];
    uint32_t count = 0;
    for (struct run *run = node->runs; run != NULL; run = run->next) {
        if (run->began && !run->ending && (count == 0 || sim_percent(sim, 50))) {
            sim_note(sim, "child_killed", index, run->id, 0, 0);
            die(node, run, SIGKILL, false);
            count++;
        }
    }
    return count;
}

/* The helper's switch: it works while the daemon is stopped, too. */
void sim_node_fence(struct sim *sim, void *context, uint64_t generation, uint64_t deadline_ms)
{
    struct sim_node *node = context;
    if (generation != node->generation || deadline_ms != node->fence_ms ||
        sim->options->trap == SIM_TRAP_NO_FENCE) {
        return;
    }
    sim_note(sim, "dead_man", node->index, deadline_ms, 0, 0);
    node->fence_ms = HP_AGENT_NEVER;
    struct run *run = node->runs;
    while (run != NULL) {
        struct run *next = run->next;
        if (run->fence && run->began) {
            run->end = (struct hp_agent_event){.kind = run->child == HP_AGENT_NO_CHILD
                                                           ? HP_AGENT_EXEC_ENDED
                                                           : HP_AGENT_EXEC_RESULT,
                                               .outcome = HP_AGENT_OUTCOME_DIED,
                                               .signal = SIGKILL,
                                               .fenced = true};
            run->serial = node->next_serial++;
            finish(sim, node, run->key, run->serial);
            run = node->runs; /* calls behind it may have come back */
        } else if (run->fence && run->child != HP_AGENT_NO_CHILD && !run->began) {
            struct hp_agent_event event = {.kind = HP_AGENT_EXEC_HANDED_BACK, .key = run->key};
            struct run **at = find(node, run->key);
            *at = run->next;
            hp_free(run);
            sim_node_post(node, &event, NULL);
            run = node->runs;
        } else {
            run = next;
        }
    }
    for (uint32_t i = 0; i < node->slots; i++) {
        sim_node_begin_child(node, i);
        if (!node->child_up[i]) {
            sim_after(sim, CHILD_UP_MS * SIM_MS, sim_node_child_up, node, node->generation, i);
        }
    }
}
