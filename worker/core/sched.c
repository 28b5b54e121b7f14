/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Slots and function children: who runs next, how many calls a child is given ahead, and when they
 * are taken back.
 *
 * A command takes its cpus while it runs; a function child takes its own while it holds calls.
 * Order of arrival decides between commands and functions. A child is given up to
 * HP_AGENT_BUDGET_US of work by the measured run time of each function; a function that was never
 * measured is given one at a time. What a child was given comes back when its current call turns
 * out slow, or when another child is idle.
 */
#include "common/base/assert.h"
#include "worker/core/state.h"

static uint32_t slots_free(const struct hp_agent *agent)
{
    uint32_t slots = agent->config.slots;
    return agent->slots_used >= slots ? 0 : slots - agent->slots_used;
}

static struct hp_agent_run *first_of(const struct hp_list *list)
{
    struct hp_list *node = hp_list_first(list);
    return node == NULL ? NULL : HP_LIST_ENTRY(node, struct hp_agent_run, link);
}

static bool stopped(const struct hp_agent *agent)
{
    return agent->fenced || agent->draining_self || agent->draining_broker || agent->stopping;
}

void hp_agent_measure(struct hp_agent *agent, uint32_t function_index, uint64_t run_us)
{
    if (function_index >= agent->config.function_count) {
        return;
    }
    uint32_t sample = (uint32_t)HP_MIN(run_us, (uint64_t)HP_AGENT_BUDGET_US * 100) + 1;
    uint32_t *est_us = &agent->function_est_us[function_index];
    if (*est_us == 0 || sample > HP_AGENT_SLOW_AFTER_MS * 1000) {
        *est_us = sample;
    } else {
        *est_us = (uint32_t)(((uint64_t)*est_us * 3 + sample + 2) / 4);
    }
}

/* ------------------------------------------------------------------------------------ placing */

static uint64_t array_index(const struct hp_agent_run *run)
{
    const struct hp_agent_parcel *parcel = run->parcel;
    return parcel->array_base + parcel->array_step * (run->id - parcel->group);
}

static void start_command(struct hp_agent *agent, struct hp_agent_run *run)
{
    const struct hp_agent_parcel *parcel = run->parcel;
    struct hp_agent_command *command = hp_agent_fx_alloc(agent, sizeof(*command));
    struct hp_bin payload = {.data = run->payload, .size = run->payload_size};
    *command = (struct hp_agent_command){
        .key = run->key,
        .id = run->id,
        .epoch = run->epoch,
        .array_index = array_index(run),
        .attempt = run->attempt,
        .cpus = parcel->cpus,
        .argv = parcel->argv.items,
        .argv_count = parcel->argv.count,
        .env = parcel->env.items,
        .env_count = parcel->env.count,
        .cwd = parcel->cwd,
        .output_cap_bytes = parcel->output_cap_bytes,
        .mem_bytes = parcel->mem_bytes,
        .follow = parcel->follow,
        .fence = parcel->fence,
    };
    if (parcel->payload_is_argv) {
        command->argv_more = payload;
    } else {
        command->stdin_data = payload;
    }
    agent->slots_used += parcel->cpus;
    agent->totals.started_total++;
    run->started_ms = agent->now_ms;
    hp_agent_run_move(agent, run, HP_AGENT_RUNNING, &agent->running, false);
    hp_agent_run_arm(agent, run);
    struct hp_agent_effect *effect = hp_agent_effect_add(agent, HP_AGENT_RUN);
    effect->key = run->key;
    effect->command = command;
}

/* The first call of a child has changed: it is taken to begin now. */
static void head_begins(struct hp_agent *agent, struct hp_agent_child *child)
{
    child->since_ms = agent->now_ms;
    child->slow = false;
    struct hp_agent_run *head = first_of(&child->runs);
    if (head != NULL) {
        head->started_ms = agent->now_ms;
        if (head->parcel->soft_timeout_ms != 0 || head->parcel->hard_timeout_ms != 0) {
            hp_agent_run_arm(agent, head);
        }
    }
}

static uint32_t estimate_us(const struct hp_agent *agent, const struct hp_agent_run *run)
{
    uint32_t est_us = agent->function_est_us[run->parcel->function_index];
    return est_us == 0 || run->parcel->cpus > 1 ? HP_AGENT_BUDGET_US : est_us;
}

/* How many of the first waiting calls (of seq below `seq_end`, at most `share`) fit a child. */
static uint32_t count_fitting(const struct hp_agent *agent, const struct hp_agent_child *child,
                              uint64_t seq_end, uint32_t share)
{
    uint64_t load_us = child->load_us;
    uint32_t count = 0;
    uint32_t room =
        child->count < HP_AGENT_CHILD_CALLS_MAX ? HP_AGENT_CHILD_CALLS_MAX - child->count : 0;
    HP_LIST_FOR_EACH (node, &agent->functions_waiting) {
        const struct hp_agent_run *run = HP_LIST_ENTRY(node, struct hp_agent_run, link);
        uint32_t est_us = estimate_us(agent, run);
        bool first = child->count + count == 0;
        if (count == room || count == share || run->seq >= seq_end ||
            (!first && (load_us + est_us > HP_AGENT_BUDGET_US || run->parcel->cpus > 1))) {
            break;
        }
        load_us += est_us;
        count++;
    }
    return count;
}

static void give(struct hp_agent *agent, uint32_t child_index, uint32_t count)
{
    struct hp_agent_child *child = &agent->children[child_index];
    struct hp_agent_call *calls = hp_agent_fx_alloc(agent, count * sizeof(*calls));
    bool was_idle = child->count == 0;
    for (uint32_t i = 0; i < count; i++) {
        struct hp_agent_run *run = first_of(&agent->functions_waiting);
        calls[i] = (struct hp_agent_call){
            .key = run->key,
            .id = run->id,
            .epoch = run->epoch,
            .array_index = array_index(run),
            .attempt = run->attempt,
            .function_index = run->parcel->function_index,
            .payload = {.data = run->payload, .size = run->payload_size},
            .fence = run->parcel->fence,
        };
        run->est_us = estimate_us(agent, run);
        run->child = child_index;
        child->load_us += run->est_us;
        child->cpus_held = HP_MAX(child->cpus_held, run->parcel->cpus);
        hp_agent_run_move(agent, run, HP_AGENT_RUNNING, &child->runs, false);
    }
    child->count += count;
    agent->totals.started_total += count;
    if (was_idle) {
        agent->slots_used += child->cpus_held;
        head_begins(agent, child);
    }
    struct hp_agent_effect *effect = hp_agent_effect_add(agent, HP_AGENT_CALL);
    effect->child = child_index;
    effect->calls = calls;
    effect->call_count = count;
}

/* Idle children first, each an equal share; then what fits on top of busy ones. True: gave some. */
static bool give_round(struct hp_agent *agent, uint64_t seq_end)
{
    bool gave = false;
    uint32_t idle = 0;
    for (uint32_t i = 0; i < agent->child_count; i++) {
        idle += agent->children[i].up && agent->children[i].count == 0;
    }
    idle = HP_MIN(idle, slots_free(agent));
    for (uint32_t i = 0; i < agent->child_count && idle > 0; i++) {
        struct hp_agent_child *child = &agent->children[i];
        struct hp_agent_run *head = first_of(&agent->functions_waiting);
        if (head == NULL || head->seq >= seq_end || head->parcel->cpus > slots_free(agent)) {
            break;
        }
        if (!child->up || child->count > 0) {
            continue;
        }
        uint32_t share = (agent->functions_waiting_count + idle - 1) / idle;
        give(agent, i, count_fitting(agent, child, seq_end, share));
        gave = true;
        idle--;
    }
    for (uint32_t i = 0; i < agent->child_count; i++) {
        struct hp_agent_child *child = &agent->children[i];
        if (!child->up || child->count == 0 || child->slow ||
            child->load_us > HP_AGENT_BUDGET_US / 2 || child->cpus_held > 1) {
            continue;
        }
        uint32_t count = count_fitting(agent, child, seq_end, UINT32_MAX);
        if (count > 0) {
            give(agent, i, count);
            gave = true;
        }
    }
    return gave;
}

void hp_agent_pump(struct hp_agent *agent)
{
    if (stopped(agent)) {
        return;
    }
    for (;;) {
        struct hp_agent_run *command = first_of(&agent->commands);
        struct hp_agent_run *call = first_of(&agent->functions_waiting);
        bool command_fits = command != NULL && command->parcel->cpus <= slots_free(agent);
        if (command != NULL && (call == NULL || command->seq < call->seq)) {
            if (!command_fits) {
                return;
            }
            start_command(agent, command);
            continue;
        }
        if (call == NULL) {
            return;
        }
        if (give_round(agent, command == NULL ? UINT64_MAX : command->seq)) {
            continue;
        }
        /* No child takes the call. If slots are not what it lacks, it does not hold commands up. */
        if (!command_fits || call->parcel->cpus > slots_free(agent)) {
            return;
        }
        start_command(agent, command);
    }
}

/* ------------------------------------------------------------------------------- taking off */

void hp_agent_unplace(struct hp_agent *agent, struct hp_agent_run *run)
{
    HP_ASSERT(run->state == HP_AGENT_RUNNING);
    hp_heap_remove(&agent->timers, &run->timer);
    if (run->child == HP_AGENT_NO_CHILD) {
        HP_ASSERT(agent->slots_used >= run->parcel->cpus);
        agent->slots_used -= run->parcel->cpus;
        hp_list_remove(&run->link);
        return;
    }
    struct hp_agent_child *child = &agent->children[run->child];
    bool was_head = hp_list_first(&child->runs) == &run->link;
    hp_list_remove(&run->link);
    run->child = HP_AGENT_NO_CHILD;
    child->count--;
    child->load_us -= run->est_us;
    if (child->count == 0) {
        HP_ASSERT(agent->slots_used >= child->cpus_held);
        agent->slots_used -= child->cpus_held;
        child->cpus_held = 0;
    }
    if (was_head) {
        head_begins(agent, child);
    }
}

void hp_agent_recall_child(struct hp_agent *agent, uint32_t child_index)
{
    agent->children[child_index].recall_ms = agent->now_ms;
    hp_agent_effect_add(agent, HP_AGENT_RECALL)->child = child_index;
}

void hp_agent_release(struct hp_agent *agent, struct hp_agent_run *run)
{
    hp_agent_refs_add(&agent->releases, run);
    agent->totals.released_total++;
    hp_agent_run_free(agent, run);
}

void hp_agent_release_waiting(struct hp_agent *agent)
{
    struct hp_list *lists[] = {&agent->fetching, &agent->commands, &agent->functions_waiting};
    for (size_t i = 0; i < HP_COUNT_OF(lists); i++) {
        struct hp_agent_run *run = NULL;
        while ((run = first_of(lists[i])) != NULL) {
            hp_agent_release(agent, run);
        }
    }
}

void hp_agent_hand_back(struct hp_agent *agent, struct hp_agent_run *run)
{
    hp_agent_unplace(agent, run);
    run->started_ms = 0;
    run->told = false;
    run->termed = false;
    run->killed = false;
    run->kill_at_ms = HP_AGENT_NEVER;
    bool cancelled = run->why == HP_AGENT_WHY_CANCEL;
    run->why = HP_AGENT_WHY_NONE;
    hp_agent_run_move(agent, run, HP_AGENT_WAITING, &agent->functions_waiting, true);
    agent->totals.started_total--;
    if (run->drop) {
        hp_agent_run_free(agent, run);
    } else if (cancelled) {
        hp_agent_end_unstarted(agent, run, HP_REASON_CANCELLED, "cancelled before it started");
    } else if (agent->draining_self || agent->draining_broker) {
        hp_agent_release(agent, run);
    } else if (agent->recall_owed > 0) {
        agent->recall_owed--;
        hp_agent_release(agent, run);
    }
}

/* -------------------------------------------------------------------------------- rebalancing */

void hp_agent_rebalance(struct hp_agent *agent)
{
    if (stopped(agent) || first_of(&agent->functions_waiting) != NULL ||
        first_of(&agent->commands) != NULL || slots_free(agent) == 0) {
        return;
    }
    bool idle = false;
    uint32_t donor = HP_AGENT_NO_CHILD;
    uint64_t most_us = 1000; /* less than this is done before it could begin elsewhere */
    for (uint32_t i = 0; i < agent->child_count; i++) {
        const struct hp_agent_child *child = &agent->children[i];
        idle = idle || (child->up && child->count == 0);
        bool may = child->count > 1 && (child->recall_ms == HP_AGENT_NEVER ||
                                        child->recall_ms + HP_AGENT_SLOW_AFTER_MS <= agent->now_ms);
        if (may && child->load_us > most_us) {
            most_us = child->load_us;
            donor = i;
        }
    }
    if (idle && donor != HP_AGENT_NO_CHILD) {
        hp_agent_recall_child(agent, donor);
    }
}

void hp_agent_children_tick(struct hp_agent *agent)
{
    for (uint32_t i = 0; i < agent->child_count; i++) {
        struct hp_agent_child *child = &agent->children[i];
        if (child->count == 0) {
            continue;
        }
        uint64_t age_ms = agent->now_ms - child->since_ms;
        if (!child->slow && age_ms >= HP_AGENT_SLOW_AFTER_MS) {
            child->slow = true;
            if (child->count > 1) {
                hp_agent_recall_child(agent, i);
            }
        }
        struct hp_agent_run *head = first_of(&child->runs);
        if (!head->told && age_ms >= HP_AGENT_TELL_AFTER_MS) {
            head->told = true;
            hp_agent_refs_add(&agent->tells, head);
        }
    }
}

uint64_t hp_agent_children_deadline_ms(const struct hp_agent *agent)
{
    uint64_t deadline_ms = HP_AGENT_NEVER;
    for (uint32_t i = 0; i < agent->child_count; i++) {
        const struct hp_agent_child *child = &agent->children[i];
        if (child->count == 0) {
            continue;
        }
        const struct hp_agent_run *head = first_of(&child->runs);
        if (!child->slow) {
            deadline_ms = HP_MIN(deadline_ms, child->since_ms + HP_AGENT_SLOW_AFTER_MS);
        } else if (!head->told) {
            deadline_ms = HP_MIN(deadline_ms, child->since_ms + HP_AGENT_TELL_AFTER_MS);
        }
    }
    return deadline_ms;
}
