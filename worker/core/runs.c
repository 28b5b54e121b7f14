/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Records of attempts: made, found, moved between lists, freed; and the memory of their end
 * records.
 */
#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "worker/core/state.h"

#define CHUNK_BYTES (64u * 1024u)

struct hp_agent_run *hp_agent_run_get(struct hp_agent *agent, uint64_t key)
{
    return hp_slots_get(&agent->runs, key);
}

struct hp_agent_run *hp_agent_run_new(struct hp_agent *agent, uint64_t id, uint32_t attempt,
                                      uint64_t epoch)
{
    void *memory = NULL;
    uint64_t key = 0;
    if (hp_slots_alloc(&agent->runs, &memory, &key) != HP_OK) {
        return NULL;
    }
    struct hp_agent_run *run = memory;
    uint64_t older = 0;
    (void)hp_idmap_find(&agent->by_id, id, &older); /* absent: 0 */
    if (hp_idmap_put(&agent->by_id, id, key) != HP_OK) {
        (void)hp_slots_free(&agent->runs, key); /* just made, so not stale */
        return NULL;
    }
    hp_list_init(&run->link);
    run->key = key;
    run->id = id;
    run->attempt = attempt;
    run->epoch = epoch;
    run->older = older;
    run->child = HP_AGENT_NO_CHILD;
    run->kill_at_ms = HP_AGENT_NEVER;
    run->seq = agent->next_seq++;
    agent->state_count[HP_AGENT_FREE]++;
    return run;
}

struct hp_agent_run *hp_agent_run_find(struct hp_agent *agent, uint64_t id, uint32_t attempt,
                                       uint64_t epoch)
{
    uint64_t key = 0;
    if (!hp_idmap_find(&agent->by_id, id, &key)) {
        return NULL;
    }
    while (key != 0) {
        struct hp_agent_run *run = hp_agent_run_get(agent, key);
        HP_ASSERT(run != NULL);
        if (run->attempt == attempt && run->epoch == epoch) {
            return run;
        }
        key = run->older;
    }
    return NULL;
}

/* Takes a run out of the chain of its id. */
static void unchain(struct hp_agent *agent, const struct hp_agent_run *run)
{
    uint64_t key = 0;
    bool found = hp_idmap_find(&agent->by_id, run->id, &key);
    HP_ASSERT(found);
    if (key == run->key) {
        if (run->older == 0) {
            (void)hp_idmap_remove(&agent->by_id, run->id, NULL); /* it is there */
        } else {
            enum hp_err err = hp_idmap_put(&agent->by_id, run->id, run->older);
            HP_ASSERT(err == HP_OK); /* the entry exists */
        }
        return;
    }
    for (;;) {
        struct hp_agent_run *newer = hp_agent_run_get(agent, key);
        HP_ASSERT(newer != NULL);
        if (newer->older == run->key) {
            newer->older = run->older;
            return;
        }
        key = newer->older;
    }
}

void hp_agent_parcel_unref(struct hp_agent_parcel *parcel)
{
    HP_ASSERT(parcel->refs > 0);
    if (--parcel->refs == 0) {
        hp_arena_deinit(&parcel->arena);
        hp_free(parcel);
    }
}

static void chunk_unref(struct hp_agent_chunk *chunk)
{
    if (chunk != NULL && --chunk->refs == 0) {
        hp_free(chunk);
    }
}

/* Counts a run out of (-1) or into (+1) the figures of its state. */
static void count_state(struct hp_agent *agent, const struct hp_agent_run *run, bool in)
{
    struct hp_agent_crew *crew = run->parcel != NULL ? run->parcel->crew : NULL;
    bool waits = run->state == HP_AGENT_WAITING && crew != NULL;
    bool held = crew != NULL && run->state >= HP_AGENT_FETCHING && run->state <= HP_AGENT_RUNNING;
    bool foreign = run->foreign && run->state != HP_AGENT_SENT;
    if (in) {
        agent->state_count[run->state]++;
        if (held) {
            crew->waiting_count += waits;
            crew->held++;
        }
        agent->foreign_unsent += foreign;
    } else {
        HP_ASSERT(agent->state_count[run->state] > 0);
        agent->state_count[run->state]--;
        if (held) {
            crew->waiting_count -= waits;
            crew->held--;
        }
        agent->foreign_unsent -= foreign;
    }
}

void hp_agent_run_move(struct hp_agent *agent, struct hp_agent_run *run,
                       enum hp_agent_run_state state, struct hp_list *list, bool front)
{
    count_state(agent, run, false);
    hp_list_remove(&run->link);
    run->state = (uint8_t)state;
    count_state(agent, run, true);
    if (list == NULL) {
        return;
    }
    if (front) {
        hp_list_push_front(list, &run->link);
    } else {
        hp_list_push_back(list, &run->link);
    }
}

void hp_agent_run_free(struct hp_agent *agent, struct hp_agent_run *run)
{
    HP_ASSERT(run->state != HP_AGENT_RUNNING);
    count_state(agent, run, false);
    hp_list_remove(&run->link);
    hp_heap_remove(&agent->timers, &run->timer);
    unchain(agent, run);
    if (run->spool_id != 0) {
        hp_agent_effect_add(agent, HP_AGENT_SPOOL_ACK)->spool_id = run->spool_id;
    }
    if (run->fetch != NULL) {
        hp_agent_fetch_free(agent, run);
    }
    hp_agent_parts_free(agent, run);
    chunk_unref(run->end_chunk);
    if (run->parcel != NULL) {
        hp_agent_parcel_unref(run->parcel);
    }
    (void)hp_slots_free(&agent->runs, run->key); /* live until here */
}

bool hp_agent_run_has_ended(const struct hp_agent_run *run)
{
    return run->state >= HP_AGENT_SPOOLING;
}

bool hp_agent_run_is_started(const struct hp_agent *agent, const struct hp_agent_run *run)
{
    if (run->state < HP_AGENT_RUNNING) {
        return false;
    }
    if (run->state > HP_AGENT_RUNNING || run->child == HP_AGENT_NO_CHILD) {
        return true;
    }
    return hp_list_first(&agent->children[run->child].runs) == &run->link;
}

void hp_agent_run_store_end(struct hp_agent *agent, struct hp_agent_run *run, const uint8_t *data,
                            uint32_t size)
{
    struct hp_agent_chunk *chunk = agent->chunk;
    if (chunk == NULL || chunk->size - chunk->used < size) {
        uint32_t room = HP_MAX(CHUNK_BYTES, size);
        chunk = hp_alloc(sizeof(*chunk) + room);
        HP_ASSERT(chunk != NULL);
        *chunk = (struct hp_agent_chunk){.refs = 1, .size = room};
        chunk_unref(agent->chunk);
        agent->chunk = chunk;
    }
    uint8_t *at = chunk->bytes + chunk->used;
    if (size > 0) {
        memcpy(at, data, size);
    }
    chunk->used += size;
    chunk->refs++;
    chunk_unref(run->end_chunk);
    run->end_chunk = chunk;
    run->end = at;
    run->end_size = size;
}

enum hp_err hp_agent_run_set_end(struct hp_agent *agent, struct hp_agent_run *run,
                                 const struct hp_st_task_end *end)
{
    hp_buf_clear(&agent->scratch);
    enum hp_err err = hp_st_task_end_encode(&agent->scratch, end);
    if (err == HP_OK) {
        hp_agent_run_store_end(agent, run, agent->scratch.data, (uint32_t)agent->scratch.size);
    }
    return err;
}
