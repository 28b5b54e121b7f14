/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Life of the agent, its inputs from the executor and the clock, and its outputs. Every input ends
 * in hp_agent_tick, which settles everything that follows from it.
 */
#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "worker/core/state.h"

#define RUN_RECORDS_MAX (1u << 20)
#define BLOB_BYTES_MAX_DEFAULT ((uint64_t)1 << 30)
#define OUTPUT_BYTES_MAX (64u * 1024u * 1024u)

/* ---------------------------------------------------------------------------------------- life */

static enum hp_err check_config(const struct hp_agent_config *config, struct hp_error *reterr)
{
    if (!hp_name_valid(config->node) || !hp_name_valid(config->host)) {
        return hp_error_set(reterr, HP_ERR_INVALID, "the node or host name is not a valid name");
    }
    if (config->slots < 1 || config->slots > 4096 || config->prefetch_max > 4096 ||
        config->slots + config->prefetch_max > HP_AGENT_RUNS_MAX) {
        return hp_error_set(reterr, HP_ERR_RANGE,
                            "slots must be 1..4096, and with prefetch at most %u",
                            HP_AGENT_RUNS_MAX);
    }
    if (config->tag_count > 64 || config->function_count > 4096 || config->token.size > 512) {
        return hp_error_set(reterr, HP_ERR_RANGE,
                            "more than 64 tags, 4096 functions, or a token "
                            "over 512 bytes");
    }
    if (config->language_count > 64 || config->children_max > 65536) {
        return hp_error_set(reterr, HP_ERR_RANGE,
                            "more than 64 languages, or 65536 children of pools");
    }
    for (uint32_t i = 0; i < config->tag_count; i++) {
        if (!hp_name_valid(config->tags[i])) {
            return hp_error_set(reterr, HP_ERR_INVALID, "tag %u is not a valid name", i + 1);
        }
    }
    return HP_OK;
}

static enum hp_err copy_strs(struct hp_arena *arena, const struct hp_str *from, uint32_t count,
                             const struct hp_str **ret)
{
    struct hp_str *copies = HP_ARENA_NEW_ARRAY(arena, struct hp_str, count + 1);
    if (copies == NULL) {
        return HP_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (hp_arena_copy_str(arena, from[i], &copies[i]) != HP_OK) {
            return HP_ERR_NOMEM;
        }
    }
    *ret = copies;
    return HP_OK;
}

static enum hp_err copy_config(struct hp_agent *agent, const struct hp_agent_config *from)
{
    struct hp_agent_config *config = &agent->config;
    *config = *from;
    if (config->blob_bytes_max == 0) {
        config->blob_bytes_max = BLOB_BYTES_MAX_DEFAULT;
    }
    struct hp_arena *arena = &agent->fixed;
    if (hp_arena_copy_str(arena, from->client, &config->client) != HP_OK ||
        hp_arena_copy_str(arena, from->node, &config->node) != HP_OK ||
        hp_arena_copy_str(arena, from->host, &config->host) != HP_OK ||
        hp_arena_copy_str(arena, from->token, &config->token) != HP_OK ||
        copy_strs(arena, from->tags, from->tag_count, &config->tags) != HP_OK ||
        copy_strs(arena, from->languages, from->language_count, &config->languages) != HP_OK ||
        copy_strs(arena, from->functions, from->function_count, &config->functions) != HP_OK) {
        return HP_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < config->function_count; i++) {
        if (hp_strmap_put(&agent->function_names, config->functions[i], i, NULL) != HP_OK) {
            return HP_ERR_NOMEM;
        }
    }
    return HP_OK;
}

static bool timer_before(const struct hp_heap_node *a, const struct hp_heap_node *b)
{
    const struct hp_agent_run *run_a = HP_CONTAINER_OF(a, const struct hp_agent_run, timer);
    const struct hp_agent_run *run_b = HP_CONTAINER_OF(b, const struct hp_agent_run, timer);
    return run_a->deadline_ms != run_b->deadline_ms ? run_a->deadline_ms < run_b->deadline_ms
                                                    : run_a->seq < run_b->seq;
}

static void init_records(struct hp_agent *agent, const struct hp_agent_config *config,
                         uint64_t now_ms)
{
    hp_arena_init(&agent->fixed, 4096, (size_t)64 << 20);
    hp_strmap_init(&agent->function_names, config->seed);
    hp_rand_init(&agent->rand, config->seed);
    hp_arena_init(&agent->fx, 256 * 1024, (size_t)1 << 40);
    hp_arena_init(&agent->arena, 64 * 1024, (size_t)64 << 20);
    hp_buf_init(&agent->rx, 2 * HP_LIMIT_FRAME_BYTES);
    hp_buf_init(&agent->tx, OUTPUT_BYTES_MAX);
    hp_buf_init(&agent->scratch, UINT32_MAX - 1);
    hp_slots_init(&agent->runs, sizeof(struct hp_agent_run), RUN_RECORDS_MAX);
    hp_idmap_init(&agent->by_id, config->seed);
    hp_heap_init(&agent->timers, timer_before);
    struct hp_list *lists[] = {&agent->fetching, &agent->commands,  &agent->running,
                               &agent->spooling, &agent->uploading, &agent->ready};
    for (size_t i = 0; i < HP_COUNT_OF(lists); i++) {
        hp_list_init(lists[i]);
    }
    agent->now_ms = now_ms;
    agent->connect_at_ms = now_ms;
    agent->lease_from_ms = HP_AGENT_NEVER;
    agent->drain_at_ms = HP_AGENT_NEVER;
    agent->exit_at_ms = HP_AGENT_NEVER;
    agent->next_spool_id = 1;
    agent->next_seq = 1;
    agent->done_items_max = HP_AGENT_DONE_ITEMS;
}

static enum hp_err init_memory(struct hp_agent *agent)
{
    uint32_t functions = agent->config.function_count;
    agent->child_count = functions > 0 ? agent->config.slots : 0;
    agent->wire = hp_wire_new();
    agent->child_capacity = agent->config.slots + agent->config.children_max;
    agent->children = hp_calloc(agent->child_capacity, sizeof(*agent->children));
    agent->function_est_us = hp_calloc(functions + 1, sizeof(*agent->function_est_us));
    agent->done_items = hp_calloc(HP_AGENT_DONE_ITEMS, sizeof(*agent->done_items));
    if (agent->wire == NULL || agent->children == NULL || agent->function_est_us == NULL ||
        agent->done_items == NULL) {
        return HP_ERR_NOMEM;
    }
    hp_agent_crews_init(agent);
    return HP_OK;
}

enum hp_err hp_agent_new(const struct hp_agent_config *config, uint64_t now_ms,
                         struct hp_agent **ret_agent, struct hp_error *reterr)
{
    enum hp_err err = check_config(config, reterr);
    if (err != HP_OK) {
        return err;
    }
    struct hp_agent *agent = hp_calloc(1, sizeof(*agent));
    if (agent == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    init_records(agent, config, now_ms);
    err = copy_config(agent, config);
    if (err == HP_OK) {
        err = init_memory(agent);
    }
    if (err != HP_OK) {
        hp_agent_free(agent);
        return hp_error_set(reterr, err, NULL);
    }
    *ret_agent = agent;
    return HP_OK;
}

/* Frees what the runs own; the pool's memory goes as a whole. */
static void free_runs(struct hp_agent *agent)
{
    uint32_t index = 0;
    for (;;) {
        struct hp_agent_run *run = hp_slots_next(&agent->runs, &index, NULL);
        if (run == NULL) {
            return;
        }
        if (run->fetch != NULL) {
            hp_agent_fetch_free(agent, run);
        }
        hp_agent_parts_free(agent, run);
        if (run->parcel != NULL) {
            hp_agent_parcel_unref(run->parcel);
        }
        if (run->end_chunk != NULL && --run->end_chunk->refs == 0) {
            hp_free(run->end_chunk);
        }
    }
}

void hp_agent_free(struct hp_agent *agent)
{
    if (agent == NULL) {
        return;
    }
    free_runs(agent);
    hp_agent_crews_deinit(agent);
    hp_agent_files_sweep(agent);
    if (agent->chunk != NULL && --agent->chunk->refs == 0) {
        hp_free(agent->chunk);
    }
    hp_slots_deinit(&agent->runs);
    hp_idmap_deinit(&agent->by_id);
    hp_heap_deinit(&agent->timers);
    hp_buf_deinit(&agent->rx);
    hp_buf_deinit(&agent->tx);
    hp_buf_deinit(&agent->scratch);
    hp_strmap_deinit(&agent->function_names);
    hp_arena_deinit(&agent->fixed);
    hp_arena_deinit(&agent->fx);
    hp_arena_deinit(&agent->arena);
    hp_wire_free(agent->wire);
    hp_free(agent->children);
    hp_free(agent->function_est_us);
    hp_free(agent->done_items);
    hp_free(agent->effects);
    hp_free(agent->releases.items);
    hp_free(agent->tells.items);
    hp_free(agent);
}

void hp_agent_spool_loaded(struct hp_agent *agent, uint64_t spool_id, struct hp_bin record)
{
    HP_ASSERT(spool_id >= agent->next_spool_id);
    agent->next_spool_id = spool_id + 1;
    agent->spool_durable_id = spool_id;
    struct hp_agent_run *run = NULL;
    struct hp_error error = {0};
    enum hp_err err = hp_agent_record_decode(agent, record, &run, &error);
    HP_ASSERT(err != HP_ERR_NOMEM); /* the record is good: restarting reads it again */
    if (err != HP_OK) {
        hp_agent_log(agent, HP_AGENT_LOG_ERROR, "spool record %llu is dropped: %s",
                     (unsigned long long)spool_id, error.text);
        hp_agent_effect_add(agent, HP_AGENT_SPOOL_ACK)->spool_id = spool_id;
        return;
    }
    run->spool_id = spool_id;
    run->ended_ms = agent->now_ms;
    agent->state_count[HP_AGENT_FREE]--; /* its figures change with `foreign`: count it in anew */
    run->foreign = true;
    agent->state_count[HP_AGENT_FREE]++;
    agent->foreign_unsent++;
    hp_agent_run_advance(agent, run);
}

/* -------------------------------------------------------------------------------------- inputs */

static void on_output(struct hp_agent *agent, const struct hp_agent_run *run,
                      const struct hp_agent_event *event)
{
    if (agent->link != HP_AGENT_LINK_UP || agent->tx.size > HP_AGENT_OUTPUT_BUSY_BYTES ||
        event->out.size == 0) {
        return; /* a gap that the offsets show */
    }
    struct hp_msg_worker_output msg = {
        .has = HP_HAS_WORKER_OUTPUT_ID | HP_HAS_WORKER_OUTPUT_ATTEMPT |
               HP_HAS_WORKER_OUTPUT_STREAM | HP_HAS_WORKER_OUTPUT_OFFSET |
               HP_HAS_WORKER_OUTPUT_DATA,
        .id = run->id,
        .attempt = run->attempt,
        .stream = event->stream == 2 ? HP_STREAM_STDERR : HP_STREAM_STDOUT,
    };
    for (uint32_t at = 0; at < event->out.size; at += HP_LIMIT_BLOB_CHUNK_BYTES) {
        msg.offset = event->offset + at;
        msg.data = (struct hp_bin){
            .data = event->out.data + at,
            .size = HP_MIN(event->out.size - at, (uint32_t)HP_LIMIT_BLOB_CHUNK_BYTES)};
        hp_agent_notify(agent, HP_METHOD_WORKER_OUTPUT, &hp_desc_msg_worker_output, &msg);
    }
}

static void on_run_event(struct hp_agent *agent, struct hp_agent_run *run,
                         const struct hp_agent_event *event)
{
    bool is_call = run->child != HP_AGENT_NO_CHILD;
    switch (event->kind) {
    case HP_AGENT_EXEC_STARTED:
        /* Not before it was given to the executor, whatever the clocks say. */
        run->started_ms =
            HP_MAX(run->started_ms, agent->now_ms - HP_MIN(agent->now_ms, event->ran_us / 1000));
        hp_agent_run_arm(agent, run);
        break;
    case HP_AGENT_EXEC_OUTPUT:
        on_output(agent, run, event);
        break;
    case HP_AGENT_EXEC_ENDED:
        HP_ASSERT(!is_call);
        hp_agent_end_command(agent, run, event);
        break;
    case HP_AGENT_EXEC_RESULT:
        HP_ASSERT(is_call);
        hp_agent_end_call(agent, run, event);
        break;
    case HP_AGENT_EXEC_HANDED_BACK:
        hp_agent_hand_back(agent, run);
        break;
    case HP_AGENT_EXEC_CHILD_UP:
    case HP_AGENT_EXEC_CHILD_DOWN:
    case HP_AGENT_EXEC_CHILD_WAITS:
    case HP_AGENT_NEAR_PROVED:
    case HP_AGENT_NEAR_OPENED:
    case HP_AGENT_NEAR_SEALED:
    default:
        HP_UNREACHABLE();
    }
}

static void on_event(struct hp_agent *agent, const struct hp_agent_event *event)
{
    if (event->kind >= HP_AGENT_NEAR_PROVED) {
        hp_agent_on_near(agent, event);
        return;
    }
    if (event->kind >= HP_AGENT_EXEC_CHILD_UP) {
        hp_agent_on_child(agent, event);
        return;
    }
    struct hp_agent_run *run = hp_agent_run_get(agent, event->key);
    if (run != NULL && run->state == HP_AGENT_RUNNING) {
        on_run_event(agent, run, event);
    }
}

void hp_agent_exec(struct hp_agent *agent, const struct hp_agent_event *events, size_t count,
                   uint64_t now_ms)
{
    agent->now_ms = HP_MAX(agent->now_ms, now_ms);
    for (size_t i = 0; i < count; i++) {
        agent->event_file = events[i].file;
        on_event(agent, &events[i]);
        hp_agent_file_free(agent, agent->event_file); /* unless it was taken */
        agent->event_file = NULL;
    }
    hp_agent_tick(agent, agent->now_ms);
}

/* Everything that an input may have made possible or due. */
void hp_agent_tick(struct hp_agent *agent, uint64_t now_ms)
{
    agent->now_ms = HP_MAX(agent->now_ms, now_ms);
    hp_agent_link_tick(agent);
    if (agent->closing) {
        hp_agent_link_down(agent);
    }
    hp_agent_fence_tick(agent);
    hp_agent_timers_tick(agent);
    hp_agent_children_tick(agent);
    if (agent->draining_self || agent->draining_broker) {
        hp_agent_release_waiting(agent);
    }
    hp_agent_crews_tick(agent);
    hp_agent_pump(agent);
    hp_agent_rebalance(agent);
    hp_agent_blobs_pump(agent);
    hp_agent_flush_done(agent);
    hp_agent_register_if_due(agent);
    hp_agent_flush_refs(agent);
    hp_agent_flush_reports(agent);
    hp_agent_spool_tick(agent);
    hp_agent_ending_tick(agent);
}

/* ------------------------------------------------------------------------------------- outputs */

uint64_t hp_agent_next_deadline_ms(const struct hp_agent *agent)
{
    uint64_t at_ms = hp_agent_link_deadline_ms(agent);
    at_ms = HP_MIN(at_ms, hp_agent_children_deadline_ms(agent));
    at_ms = HP_MIN(at_ms, hp_agent_crews_deadline_ms(agent));
    at_ms = HP_MIN(at_ms, hp_agent_spool_deadline_ms(agent));
    uint64_t gather_ms = hp_agent_done_gather_ms(agent);
    at_ms = gather_ms > agent->now_ms ? HP_MIN(at_ms, gather_ms) : at_ms;
    if (!agent->fenced) {
        at_ms = HP_MIN(at_ms, hp_agent_fence_at_ms(agent));
    }
    const struct hp_heap_node *node = hp_heap_peek(&agent->timers);
    if (node != NULL) {
        at_ms = HP_MIN(at_ms, HP_CONTAINER_OF(node, const struct hp_agent_run, timer)->deadline_ms);
    }
    if (agent->draining_self && !agent->exited) {
        at_ms = HP_MIN(at_ms, agent->stopping ? HP_AGENT_NEVER : agent->drain_at_ms);
        uint64_t exit_at_ms = agent->exit_at_ms;
        if (exit_at_ms != HP_AGENT_NEVER && exit_at_ms <= agent->now_ms) {
            exit_at_ms += 1000; /* the last resort of hp_agent_ending_tick */
        }
        at_ms = HP_MIN(at_ms, exit_at_ms);
    }
    return at_ms;
}

struct hp_bin hp_agent_output(struct hp_agent *agent)
{
    return hp_buf_bin(&agent->tx);
}

void hp_agent_output_consume(struct hp_agent *agent, size_t size)
{
    hp_buf_consume(&agent->tx, size);
}
