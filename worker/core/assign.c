/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tasks that come in: one block of memory (a parcel) for each assign_run, one record for each task.
 */
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "worker/core/state.h"

#define PARCEL_SLACK_BYTES 256u

static size_t list_bytes(const struct hp_list_str *list)
{
    size_t bytes = list->count * (sizeof(struct hp_str) + 32);
    for (uint32_t i = 0; i < list->count; i++) {
        bytes += list->items[i].size;
    }
    return bytes;
}

static size_t parcel_bytes(const struct hp_st_assign_run *from)
{
    size_t bytes = PARCEL_SLACK_BYTES + from->options.cwd.size;
    if (from->options.kind == HP_TASK_KIND_COMMAND) {
        bytes += list_bytes(&from->options.argv) + list_bytes(&from->options.env);
    }
    for (uint32_t i = 0; i < from->payloads.count; i++) {
        bytes += ((size_t)from->payloads.items[i].size + 32) & ~(size_t)15;
    }
    return bytes;
}

static enum hp_err copy_list(struct hp_arena *arena, const struct hp_list_str *from,
                             struct hp_list_str *ret)
{
    if (from->count == 0) {
        return HP_OK;
    }
    ret->items = HP_ARENA_NEW_ARRAY(arena, struct hp_str, from->count);
    if (ret->items == NULL) {
        return HP_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < from->count; i++) {
        enum hp_err err = hp_arena_copy_str(arena, from->items[i], &ret->items[i]);
        if (err != HP_OK) {
            return err;
        }
    }
    ret->count = from->count;
    return HP_OK;
}

static void parcel_fill(struct hp_agent *agent, struct hp_agent_parcel *parcel,
                        const struct hp_st_assign_run *from)
{
    const struct hp_st_task_options *options = &from->options;
    parcel->is_command = options->kind == HP_TASK_KIND_COMMAND;
    parcel->payload_is_argv = options->payload_use == HP_PAYLOAD_USE_ARGV;
    parcel->payload_is_items = options->payload_use == HP_PAYLOAD_USE_ITEMS;
    parcel->fence = options->on_partition == HP_ON_PARTITION_KILL;
    parcel->at_most_once = options->at_most_once;
    parcel->follow = options->follow;
    parcel->durable = options->durable;
    parcel->cpus = HP_MIN(HP_MAX(options->cpus, 1u), agent->config.slots);
    if (options->kind == HP_TASK_KIND_CALL) {
        parcel->crew = hp_agent_crew_find(agent, options->pool);
        parcel->cpus = 1; /* pool children hold no slots */
    } else if (!parcel->is_command) {
        parcel->crew = &agent->functions;
    }
    parcel->group = from->group;
    parcel->array_base = options->array_base;
    parcel->array_step = options->array_step;
    parcel->soft_timeout_ms = options->soft_timeout_ms;
    parcel->hard_timeout_ms = options->hard_timeout_ms;
    parcel->kill_grace_ms = options->kill_grace_ms;
    parcel->output_cap_bytes = options->output_cap_bytes;
    parcel->mem_bytes = options->mem_bytes;
    uint64_t index = UINT32_MAX;
    if (!parcel->is_command && options->fn.size > 0) { /* absent: UINT32_MAX */
        (void)hp_strmap_find(&agent->function_names, options->fn, &index);
    }
    if (parcel->crew != NULL && parcel->crew->pool != 0 &&
        !hp_str_eq(parcel->crew->language, HP_STR("c"))) {
        index = 0; /* the payload says all */
    }
    parcel->function_index = (uint32_t)index;
}

/* NULL: no memory. It has one reference, the caller's. */
static struct hp_agent_parcel *parcel_new(struct hp_agent *agent,
                                          const struct hp_st_assign_run *from)
{
    struct hp_agent_parcel *parcel = hp_calloc(1, sizeof(*parcel));
    if (parcel == NULL) {
        return NULL;
    }
    size_t bytes = parcel_bytes(from);
    hp_arena_init(&parcel->arena, bytes, bytes * 2 + 65536);
    parcel->refs = 1;
    parcel_fill(agent, parcel, from);
    enum hp_err err = hp_arena_copy_str(&parcel->arena, from->options.cwd, &parcel->cwd);
    if (err == HP_OK && parcel->is_command) {
        err = copy_list(&parcel->arena, &from->options.argv, &parcel->argv);
    }
    if (err == HP_OK && parcel->is_command) {
        err = copy_list(&parcel->arena, &from->options.env, &parcel->env);
    }
    if (err != HP_OK) {
        hp_agent_parcel_unref(parcel);
        return NULL;
    }
    return parcel;
}

/* Takes the payload: a copy of the inline bytes, or a blob to fetch. */
static enum hp_err take_payload(struct hp_agent *agent, struct hp_agent_run *run,
                                const struct hp_st_assign_run *from, uint32_t index)
{
    uint64_t blob = index < from->blobs.count ? from->blobs.items[index] : 0;
    if (blob != 0) {
        run->fetch = hp_calloc(1, sizeof(*run->fetch));
        if (run->fetch == NULL) {
            return HP_ERR_NOMEM;
        }
        run->fetch->blob = blob;
        return HP_OK;
    }
    if (index >= from->payloads.count) {
        return HP_OK;
    }
    struct hp_bin copy = {0};
    enum hp_err err = hp_arena_copy_bin(&run->parcel->arena, from->payloads.items[index], &copy);
    run->payload = copy.data;
    run->payload_size = copy.size;
    (void)agent;
    return err;
}

/* The text why a task can not be run here at all, and its reason; NULL: it can. */
static const char *unfit(const struct hp_agent *agent, const struct hp_agent_parcel *parcel,
                         enum hp_reason *ret_reason)
{
    if (!parcel->is_command && parcel->function_index == UINT32_MAX) {
        *ret_reason = HP_REASON_NO_FUNCTION;
        return "this worker has no such function";
    }
    if (parcel->is_command && (!agent->config.commands || parcel->argv.count == 0)) {
        *ret_reason = HP_REASON_NOT_STARTED;
        return parcel->argv.count == 0 ? "no program is named" : "this worker runs no commands";
    }
    return NULL;
}

static void add_run(struct hp_agent *agent, struct hp_agent_parcel *parcel,
                    const struct hp_st_assign_run *from, uint32_t index)
{
    uint64_t id = from->first + index;
    if (hp_agent_run_find(agent, id, from->attempt, from->epoch) != NULL) {
        return; /* sent twice */
    }
    uint32_t held = agent->state_count[HP_AGENT_FETCHING] + agent->state_count[HP_AGENT_WAITING] +
                    agent->state_count[HP_AGENT_RUNNING];
    struct hp_agent_run *run = NULL;
    bool is_wanted = !agent->draining_self && !agent->draining_broker;
    if (!parcel->is_command && (parcel->crew == NULL || parcel->crew->orphaned)) {
        is_wanted = false; /* of a pool that has ended here */
    }
    if (held < HP_AGENT_RUNS_MAX && is_wanted) {
        run = hp_agent_run_new(agent, id, from->attempt, from->epoch);
    }
    if (run == NULL) {
        hp_agent_refs_add_raw(&agent->releases, id, from->attempt, from->epoch);
        agent->totals.released_total++;
        return;
    }
    run->parcel = parcel;
    parcel->refs++;
    if (take_payload(agent, run, from, index) != HP_OK) {
        hp_agent_release(agent, run);
        return;
    }
    enum hp_reason reason = HP_REASON_NONE;
    const char *text = unfit(agent, parcel, &reason);
    if (text != NULL) {
        hp_agent_end_unstarted(agent, run, reason, text);
    } else if (run->fetch != NULL) {
        hp_agent_run_move(agent, run, HP_AGENT_FETCHING, &agent->fetching, false);
    } else {
        hp_agent_run_move(agent, run, HP_AGENT_WAITING,
                          parcel->is_command ? &agent->commands : &parcel->crew->waiting, false);
    }
}

enum hp_err hp_agent_on_assign(struct hp_agent *agent, const struct hp_msg_worker_assign *assign,
                               struct hp_error *reterr)
{
    for (uint32_t i = 0; i < assign->runs.count; i++) {
        const struct hp_st_assign_run *from = &assign->runs.items[i];
        bool payloads_fit = from->payloads.count == 0 || from->payloads.count == from->count;
        bool blobs_fit = from->blobs.count == 0 || from->blobs.count == from->count;
        if (!payloads_fit || !blobs_fit || from->count > HP_LIMIT_SUBMIT_TASKS ||
            from->first > UINT64_MAX - from->count) {
            return hp_error_set(reterr, HP_ERR_PROTOCOL, "worker.assign: counts do not agree");
        }
        struct hp_agent_parcel *parcel = parcel_new(agent, from);
        if (parcel == NULL) {
            return hp_error_set(reterr, HP_ERR_NOMEM, "worker.assign: out of memory");
        }
        for (uint32_t k = 0; k < from->count; k++) {
            add_run(agent, parcel, from, k);
        }
        hp_agent_parcel_unref(parcel);
    }
    return HP_OK;
}
