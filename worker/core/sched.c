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

/* Nothing begins without a lease: there would be no time by which it must have ended. */
bool hp_agent_is_stopped(const struct hp_agent *agent)
{
    return agent->lease_from_ms == HP_AGENT_NEVER || agent->fenced || agent->draining_self ||
           agent->draining_broker || agent->stopping;
}

void hp_agent_measure(struct hp_agent *agent, const struct hp_agent_parcel *parcel, uint64_t run_us)
{
    uint32_t sample = (uint32_t)HP_MIN(run_us, (uint64_t)HP_AGENT_BUDGET_US * 100) + 1;
    uint32_t *est_us = NULL;
    if (parcel->crew->pool != 0) {
        est_us = &parcel->crew->est_us;
    } else if (parcel->function_index < agent->config.function_count) {
        est_us = &agent->function_est_us[parcel->function_index];
    } else {
        return;
    }
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
    const struct hp_agent_crew *crew = run->parcel->crew;
    uint32_t est_us =
        crew->pool != 0 ? crew->est_us : agent->function_est_us[run->parcel->function_index];
    return est_us == 0 || run->parcel->cpus > 1 ? HP_AGENT_BUDGET_US : est_us;
}

uint64_t hp_agent_child_calls_left(const struct hp_agent_child *child)
{
    uint64_t most = child->crew->calls_max;
    return most == 0 ? UINT64_MAX : most - HP_MIN(most, child->given);
}

/* How many of the first waiting calls (of seq below `seq_end`, at most `share`) fit a child. */
static uint32_t count_fitting(const struct hp_agent *agent, const struct hp_agent_child *child,
                              uint64_t seq_end, uint32_t share)
{
    uint64_t load_us = child->load_us;
    uint32_t count = 0;
    uint32_t room =
        child->count < HP_AGENT_CHILD_CALLS_MAX ? HP_AGENT_CHILD_CALLS_MAX - child->count : 0;
    room = (uint32_t)HP_MIN((uint64_t)room, hp_agent_child_calls_left(child));
    HP_LIST_FOR_EACH (node, &child->crew->waiting) {
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

static void give(struct hp_agent *agent, struct hp_agent_child *child, uint32_t count)
{
    uint32_t child_index = (uint32_t)(child - agent->children);
    bool holds_slots = child->crew->pool == 0;
    struct hp_agent_call *calls = hp_agent_fx_alloc(agent, count * sizeof(*calls));
    bool was_idle = child->count == 0;
    for (uint32_t i = 0; i < count; i++) {
        struct hp_agent_run *run = first_of(&child->crew->waiting);
        calls[i] = (struct hp_agent_call){
            .key = run->key,
            .id = run->id,
            .epoch = run->epoch,
            .array_index = array_index(run),
            .attempt = run->attempt,
            .function_index = run->parcel->function_index,
            .payload = {.data = run->payload, .size = run->payload_size},
            .payload_bytes = run->payload_size,
            .items = run->parcel->payload_is_items,
            .fence = run->parcel->fence,
        };
        if (run->fetch != NULL && run->fetch->file != NULL) {
            calls[i].payload_file = run->fetch->file;
            calls[i].payload_bytes = run->fetch->size;
        }
        run->est_us = estimate_us(agent, run);
        run->child = child_index;
        child->load_us += run->est_us;
        child->cpus_held = holds_slots ? HP_MAX(child->cpus_held, run->parcel->cpus) : 0;
        hp_agent_run_move(agent, run, HP_AGENT_RUNNING, &child->runs, false);
    }
    child->count += count;
    child->given += count;
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

static bool is_taking(const struct hp_agent_child *child)
{
    return child->up && !child->stopping && !child->waits && hp_agent_child_calls_left(child) > 0;
}

/* Idle children first, each an equal share; then what fits on top of busy ones. True: gave some. */
static bool give_round(struct hp_agent *agent, struct hp_agent_crew *crew, uint64_t seq_end)
{
    bool gave = false;
    bool holds_slots = crew->pool == 0;
    uint32_t idle = 0;
    HP_LIST_FOR_EACH (node, &crew->children) {
        const struct hp_agent_child *child = HP_LIST_ENTRY(node, struct hp_agent_child, crew_link);
        idle += is_taking(child) && child->count == 0;
    }
    idle = holds_slots ? HP_MIN(idle, slots_free(agent)) : idle;
    HP_LIST_FOR_EACH (node, &crew->children) {
        struct hp_agent_child *child = HP_LIST_ENTRY(node, struct hp_agent_child, crew_link);
        struct hp_agent_run *head = first_of(&crew->waiting);
        if (idle == 0 || head == NULL || head->seq >= seq_end ||
            (holds_slots && head->parcel->cpus > slots_free(agent))) {
            break;
        }
        if (!is_taking(child) || child->count > 0) {
            continue;
        }
        uint32_t share = (crew->waiting_count + idle - 1) / idle;
        give(agent, child, count_fitting(agent, child, seq_end, share));
        gave = true;
        idle--;
    }
    HP_LIST_FOR_EACH (node, &crew->children) {
        struct hp_agent_child *child = HP_LIST_ENTRY(node, struct hp_agent_child, crew_link);
        if (!is_taking(child) || child->count == 0 || child->slow ||
            child->load_us > HP_AGENT_BUDGET_US / 2 || child->cpus_held > 1) {
            continue;
        }
        uint32_t count = count_fitting(agent, child, seq_end, UINT32_MAX);
        if (count > 0) {
            give(agent, child, count);
            gave = true;
        }
    }
    return gave;
}

/* Pools: their children hold no slots, so nothing but their own children limits them. */
static void pump_pools(struct hp_agent *agent)
{
    HP_LIST_FOR_EACH (node, &agent->crews) {
        struct hp_agent_crew *crew = HP_LIST_ENTRY(node, struct hp_agent_crew, link);
        while (crew->pool != 0 && crew->waiting_count > 0 && give_round(agent, crew, UINT64_MAX)) {
        }
    }
}

void hp_agent_pump(struct hp_agent *agent)
{
    if (hp_agent_is_stopped(agent)) {
        return;
    }
    pump_pools(agent);
    for (;;) {
        struct hp_agent_run *command = first_of(&agent->commands);
        struct hp_agent_run *call = first_of(&agent->functions.waiting);
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
        if (give_round(agent, &agent->functions, command == NULL ? UINT64_MAX : command->seq)) {
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
        HP_ASSERT(agent->slots_used >= child->cpus_held); /* 0 for pools */
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
    struct hp_list *lists[] = {&agent->fetching, &agent->commands};
    struct hp_agent_run *run = NULL;
    for (size_t i = 0; i < HP_COUNT_OF(lists); i++) {
        while ((run = first_of(lists[i])) != NULL) {
            hp_agent_release(agent, run);
        }
    }
    HP_LIST_FOR_EACH (node, &agent->crews) {
        struct hp_agent_crew *crew = HP_LIST_ENTRY(node, struct hp_agent_crew, link);
        while ((run = first_of(&crew->waiting)) != NULL) {
            hp_agent_release(agent, run);
        }
    }
}

void hp_agent_recall_all(struct hp_agent *agent, uint32_t more_than)
{
    for (uint32_t i = 0; i < agent->child_capacity; i++) {
        if (agent->children[i].count > more_than) {
            hp_agent_recall_child(agent, i);
        }
    }
}

/* The executor never began it: its call came back unclaimed, or who starts commands is gone. The
 * latter's worker will end: a command does not wait for that here. */
void hp_agent_hand_back(struct hp_agent *agent, struct hp_agent_run *run)
{
    bool is_call = run->child != HP_AGENT_NO_CHILD;
    if (is_call) {
        agent->children[run->child].given--;
    }
    hp_agent_unplace(agent, run);
    run->started_ms = 0;
    run->told = false;
    run->termed = false;
    run->killed = false;
    run->kill_at_ms = HP_AGENT_NEVER;
    bool cancelled = run->why == HP_AGENT_WHY_CANCEL;
    run->why = HP_AGENT_WHY_NONE;
    struct hp_agent_crew *crew = run->parcel->crew;
    hp_agent_run_move(agent, run, HP_AGENT_WAITING, is_call ? &crew->waiting : &agent->commands,
                      true);
    agent->totals.started_total--;
    if (run->drop) {
        hp_agent_run_free(agent, run);
    } else if (is_call && crew->orphaned) {
        hp_agent_end_unstarted(agent, run, HP_REASON_POOL_ENDED, "the pool was terminated");
    } else if (cancelled) {
        hp_agent_end_unstarted(agent, run, HP_REASON_CANCELLED, "cancelled before it started");
    } else if (!is_call || agent->draining_self || agent->draining_broker || run->recalled) {
        hp_agent_release(agent, run);
    }
}

/* -------------------------------------------------------------------------------- rebalancing */

/* Takes calls back from the fullest child of a crew if another one has nothing to do. */
static void rebalance_crew(struct hp_agent *agent, struct hp_agent_crew *crew)
{
    bool idle = false;
    struct hp_agent_child *donor = NULL;
    uint64_t most_us = 1000; /* less than this is done before it could begin elsewhere */
    HP_LIST_FOR_EACH (node, &crew->children) {
        struct hp_agent_child *child = HP_LIST_ENTRY(node, struct hp_agent_child, crew_link);
        idle = idle || (is_taking(child) && child->count == 0);
        bool may = child->count > 1 && (child->recall_ms == HP_AGENT_NEVER ||
                                        child->recall_ms + HP_AGENT_SLOW_AFTER_MS <= agent->now_ms);
        if (may && child->load_us > most_us) {
            most_us = child->load_us;
            donor = child;
        }
    }
    if (idle && donor != NULL) {
        hp_agent_recall_child(agent, (uint32_t)(donor - agent->children));
    }
}

void hp_agent_rebalance(struct hp_agent *agent)
{
    if (hp_agent_is_stopped(agent)) {
        return;
    }
    HP_LIST_FOR_EACH (node, &agent->crews) {
        struct hp_agent_crew *crew = HP_LIST_ENTRY(node, struct hp_agent_crew, link);
        bool has_slots =
            crew->pool != 0 || (first_of(&agent->commands) == NULL && slots_free(agent) > 0);
        if (has_slots && crew->waiting_count == 0) {
            rebalance_crew(agent, crew);
        }
    }
}

static void child_tick(struct hp_agent *agent, struct hp_agent_child *child)
{
    if (child->count == 0) {
        return;
    }
    uint64_t age_ms = agent->now_ms - child->since_ms;
    if (!child->slow && age_ms >= HP_AGENT_SLOW_AFTER_MS) {
        child->slow = true;
        if (child->count > 1) {
            hp_agent_recall_child(agent, (uint32_t)(child - agent->children));
        }
    }
    struct hp_agent_run *head = first_of(&child->runs);
    if (!head->told && age_ms >= HP_AGENT_TELL_AFTER_MS) {
        head->told = true;
        hp_agent_refs_add(&agent->tells, head);
    }
}

void hp_agent_children_tick(struct hp_agent *agent)
{
    HP_LIST_FOR_EACH (node, &agent->crews) {
        struct hp_agent_crew *crew = HP_LIST_ENTRY(node, struct hp_agent_crew, link);
        HP_LIST_FOR_EACH (at, &crew->children) {
            child_tick(agent, HP_LIST_ENTRY(at, struct hp_agent_child, crew_link));
        }
    }
}

static uint64_t child_deadline_ms(const struct hp_agent_child *child)
{
    if (child->count == 0) {
        return HP_AGENT_NEVER;
    }
    const struct hp_agent_run *head = first_of(&child->runs);
    if (!child->slow) {
        return child->since_ms + HP_AGENT_SLOW_AFTER_MS;
    }
    return head->told ? HP_AGENT_NEVER : child->since_ms + HP_AGENT_TELL_AFTER_MS;
}

uint64_t hp_agent_children_deadline_ms(const struct hp_agent *agent)
{
    uint64_t deadline_ms = HP_AGENT_NEVER;
    HP_LIST_FOR_EACH (node, &agent->crews) {
        const struct hp_agent_crew *crew = HP_LIST_ENTRY(node, const struct hp_agent_crew, link);
        HP_LIST_FOR_EACH (at, &crew->children) {
            uint64_t at_ms =
                child_deadline_ms(HP_LIST_ENTRY(at, const struct hp_agent_child, crew_link));
            deadline_ms = HP_MIN(deadline_ms, at_ms);
        }
    }
    return deadline_ms;
}
