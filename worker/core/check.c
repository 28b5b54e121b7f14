/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Figures, the text of the state, and the check of everything that is kept twice.
 */
#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "worker/core/state.h"

void hp_agent_get_stats(const struct hp_agent *agent, struct hp_agent_stats *ret_stats)
{
    struct hp_agent_stats *stats = ret_stats;
    *stats = agent->totals;
    stats->connected = agent->link > HP_AGENT_LINK_CONNECTING;
    stats->registered = agent->link == HP_AGENT_LINK_UP;
    stats->draining = agent->draining_self || agent->draining_broker;
    stats->fenced = agent->fenced;
    stats->held = hp_slots_count(&agent->runs);
    stats->waiting = agent->state_count[HP_AGENT_FETCHING] + agent->state_count[HP_AGENT_WAITING];
    stats->running = agent->state_count[HP_AGENT_RUNNING];
    stats->unacked = agent->state_count[HP_AGENT_SPOOLING] +
                     agent->state_count[HP_AGENT_UPLOADING] + agent->state_count[HP_AGENT_READY] +
                     agent->state_count[HP_AGENT_SENT];
    stats->slots_used = agent->slots_used;
    for (uint32_t i = 0; i < agent->child_capacity; i++) {
        stats->children_busy += agent->children[i].count > 0;
    }
    HP_LIST_FOR_EACH (node, &agent->crews) {
        const struct hp_agent_crew *crew = HP_LIST_ENTRY(node, const struct hp_agent_crew, link);
        stats->pools += crew->pool != 0;
        stats->pool_children += crew->pool != 0 ? crew->up : 0;
    }
    stats->broker_epoch = agent->broker_epoch;
    stats->lease_ms = agent->lease_ms;
    stats->fence_at_ms = hp_agent_fence_at_ms(agent);
}

/* Counts the runs of a list, each of which must be in `state`. */
static uint32_t check_list(const struct hp_list *list, enum hp_agent_run_state state)
{
    uint32_t count = 0;
    HP_LIST_FOR_EACH (node, list) {
        const struct hp_agent_run *run = HP_LIST_ENTRY(node, const struct hp_agent_run, link);
        HP_ASSERT(run->state == (uint8_t)state);
        HP_ASSERT((run->parts == NULL || run->state >= HP_AGENT_SPOOLING));
        HP_ASSERT((run->state == HP_AGENT_FETCHING) <= (run->fetch != NULL));
        count++;
    }
    return count;
}

static uint32_t check_children(const struct hp_agent *agent, uint32_t *ret_slots)
{
    uint32_t running = 0;
    for (uint32_t i = 0; i < agent->child_capacity; i++) {
        const struct hp_agent_child *child = &agent->children[i];
        uint64_t load_us = 0;
        HP_LIST_FOR_EACH (node, &child->runs) {
            const struct hp_agent_run *run = HP_LIST_ENTRY(node, const struct hp_agent_run, link);
            HP_ASSERT(run->child == i);
            load_us += run->est_us;
        }
        HP_ASSERT(load_us == child->load_us);
        HP_ASSERT(check_list(&child->runs, HP_AGENT_RUNNING) == child->count);
        bool holds_slots = child->count > 0 && child->crew->pool == 0;
        HP_ASSERT(holds_slots == (child->cpus_held > 0));
        running += child->count;
        *ret_slots += child->cpus_held;
    }
    return running;
}

static void check_calls(const struct hp_agent *agent)
{
    uint32_t used = 0;
    uint32_t done = 0;
    uint32_t sent = 0;
    for (uint32_t i = 0; i < HP_AGENT_RPC_MAX; i++) {
        const struct hp_agent_rpc *rpc = &agent->rpcs[i];
        if (!rpc->used) {
            continue;
        }
        used++;
        done += rpc->method == HP_METHOD_WORKER_DONE;
        sent += check_list(&rpc->runs, HP_AGENT_SENT);
    }
    HP_ASSERT(used == agent->rpc_count);
    HP_ASSERT(done == agent->done_calls);
    HP_ASSERT(sent == agent->state_count[HP_AGENT_SENT]);
    HP_ASSERT(agent->link != HP_AGENT_LINK_OFF || used == 0);
}

/* What the payloads that were fetched, or are, take of the room for them. */
static void check_fetches(const struct hp_agent *agent)
{
    uint64_t bytes = 0;
    uint32_t index = 0;
    const struct hp_agent_run *run = NULL;
    while ((run = hp_slots_next(&agent->runs, &index, NULL)) != NULL) {
        bytes += run->fetch != NULL && run->fetch->counted ? run->fetch->size : 0;
    }
    HP_LIST_FOR_EACH (node, &agent->crews) {
        const struct hp_agent_crew *crew = HP_LIST_ENTRY(node, const struct hp_agent_crew, link);
        bytes += crew->fetch != NULL && crew->fetch->counted ? crew->fetch->size : 0;
    }
    HP_ASSERT(bytes == agent->fetch_bytes);
    HP_ASSERT(agent->event_file == NULL);
    HP_ASSERT(agent->freed_files == NULL || agent->effect_count > 0);
}

void hp_agent_check(const struct hp_agent *agent)
{
    uint32_t slots = 0;
    const uint32_t *count = agent->state_count;
    HP_ASSERT(count[HP_AGENT_FREE] == 0);
    HP_ASSERT(check_list(&agent->fetching, HP_AGENT_FETCHING) == count[HP_AGENT_FETCHING]);
    uint32_t functions = 0;
    HP_LIST_FOR_EACH (node, &agent->crews) {
        const struct hp_agent_crew *crew = HP_LIST_ENTRY(node, const struct hp_agent_crew, link);
        uint32_t waiting = check_list(&crew->waiting, HP_AGENT_WAITING);
        HP_ASSERT(waiting == crew->waiting_count);
        functions += waiting;
    }
    hp_agent_crew_check(agent);
    HP_ASSERT(check_list(&agent->commands, HP_AGENT_WAITING) + functions ==
              count[HP_AGENT_WAITING]);
    HP_ASSERT(check_list(&agent->spooling, HP_AGENT_SPOOLING) == count[HP_AGENT_SPOOLING]);
    HP_ASSERT(check_list(&agent->uploading, HP_AGENT_UPLOADING) == count[HP_AGENT_UPLOADING]);
    HP_ASSERT(check_list(&agent->ready, HP_AGENT_READY) == count[HP_AGENT_READY]);
    HP_LIST_FOR_EACH (node, &agent->running) {
        slots += HP_LIST_ENTRY(node, const struct hp_agent_run, link)->parcel->cpus;
    }
    uint32_t running = check_list(&agent->running, HP_AGENT_RUNNING);
    HP_ASSERT(running + check_children(agent, &slots) == count[HP_AGENT_RUNNING]);
    HP_ASSERT(slots == agent->slots_used);
    HP_ASSERT(slots <= agent->config.slots);
    check_calls(agent);
    check_fetches(agent);
    uint32_t index = 0;
    uint32_t foreign = 0;
    const struct hp_agent_run *run = NULL;
    while ((run = hp_slots_next(&agent->runs, &index, NULL)) != NULL) {
        foreign += run->foreign && run->state != HP_AGENT_SENT;
        HP_ASSERT(hp_idmap_find(&agent->by_id, run->id, NULL));
        HP_ASSERT(hp_list_is_linked(&run->link));
    }
    HP_ASSERT(foreign == agent->foreign_unsent);
}

/* ---------------------------------------------------------------------------------------- dump */

static int compare_runs(const void *a, const void *b)
{
    const struct hp_agent_run *run_a = *(const struct hp_agent_run *const *)a;
    const struct hp_agent_run *run_b = *(const struct hp_agent_run *const *)b;
    if (run_a->id != run_b->id) {
        return run_a->id < run_b->id ? -1 : 1;
    }
    return run_a->attempt < run_b->attempt ? -1 : run_a->attempt > run_b->attempt;
}

static enum hp_err dump_run(const struct hp_agent_run *run, struct hp_buf *buf)
{
    static const char *const names[] = {"free",     "fetching",  "waiting", "running",
                                        "spooling", "uploading", "ready",   "sent"};
    return hp_buf_append_format(buf, "task %llu attempt %u epoch %llu %s%s%s%s\n",
                                (unsigned long long)run->id, run->attempt,
                                (unsigned long long)run->epoch, names[run->state],
                                run->drop ? " dropped" : "", run->foreign ? " foreign" : "",
                                run->spool_id != 0 ? " spooled" : "");
}

enum hp_err hp_agent_dump(const struct hp_agent *agent, struct hp_buf *buf)
{
    static const char *const links[] = {"off", "connecting", "hello", "flush", "registering", "up"};
    enum hp_err err = hp_buf_append_format(
        buf, "link %s epoch %llu slots %u/%u%s%s%s\n", links[agent->link],
        (unsigned long long)agent->broker_epoch, agent->slots_used, agent->config.slots,
        agent->fenced ? " fenced" : "", agent->draining_self ? " draining" : "",
        agent->draining_broker ? " drained" : "");
    uint32_t count = hp_slots_count(&agent->runs);
    HP_CLEANUP(hp_free_ptr)
    const struct hp_agent_run **runs = hp_alloc_array(count + 1, sizeof(struct hp_agent_run *));
    if (runs == NULL) {
        return HP_ERR_NOMEM;
    }
    uint32_t index = 0;
    for (uint32_t i = 0; i < count; i++) {
        runs[i] = hp_slots_next(&agent->runs, &index, NULL);
    }
    qsort(runs, count, sizeof(struct hp_agent_run *), compare_runs);
    for (uint32_t i = 0; i < count && err == HP_OK; i++) {
        err = dump_run(runs[i], buf);
    }
    return err;
}
