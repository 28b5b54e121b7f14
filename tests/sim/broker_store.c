/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The broker's store thread in the simulator: commits and loads in order, taking time. A full disk
 * keeps the same batches and is tried again, as server/store/thread.c does; any other error ends
 * the broker.
 */
#include "tests/sim/broker_state.h"

enum { FULL_RETRY_MS = 250, SLOW = 30 };

static void store_work(struct sim_broker *broker);

/* ------------------------------------------------ the store's thread */
void sim_broker_put_job(struct sim_broker *broker, struct hp_batch *batch, struct hp_load *load)
{
    struct job *job = sim_alloc(sizeof(*job));
    job->batch = batch;
    job->load = load;
    if (broker->jobs_last != NULL) {
        broker->jobs_last->next = job;
    } else {
        broker->jobs_first = job;
    }
    broker->jobs_last = job;
    store_work(broker);
}

static void put_news(struct sim_broker *broker, struct news from)
{
    struct news *news = sim_alloc(sizeof(*news));
    *news = from;
    if (broker->news_last != NULL) {
        broker->news_last->next = news;
    } else {
        broker->news_first = news;
    }
    broker->news_last = news;
    sim_broker_wake(broker);
}

void sim_broker_tell_blob(struct sim_broker *broker, const struct hp_event *answer)
{
    size_t size = answer->blob.data.size;
    struct hp_event *event = sim_alloc(sizeof(*event) + size);
    *event = *answer;
    if (size > 0) {
        memcpy(event + 1, answer->blob.data.data, size);
        event->blob.data = hp_bin_make((uint8_t *)(event + 1), size);
    }
    put_news(broker, (struct news){.blob = event});
}

/* The pool of calls; else 0. */
static uint64_t pool_of(const struct hp_op *op)
{
    struct hp_wire *wire = hp_wire_new();
    struct hp_arena arena;
    struct hp_error error;
    const struct hp_wire_obj *map = NULL;
    struct hp_st_task_options options;
    hp_arena_init(&arena, 1024, 4U << 20);
    HP_ASSERT(wire != NULL);
    HP_ASSERT(hp_wire_unpack_checked(wire, &hp_tok_limits_open, op->group.options, &map, &error) ==
                  HP_OK &&
              hp_st_task_options_decode(map, &arena, &options, &error) == HP_OK);
    uint64_t pool = options.kind == HP_TASK_KIND_CALL ? options.pool : 0;
    hp_arena_deinit(&arena);
    hp_wire_free(wire);
    return pool;
}

/* Each task of a group is bound to the work that its payload names. */
static void audit_payloads(struct sim_broker *broker, const struct hp_op *op)
{
    struct sim *sim = broker->sim;
    for (uint32_t i = 0; i < op->group.count; i++) {
        struct hp_bin payload = hp_pack_payload(op->group.pack, i);
        uint64_t blob = hp_pack_blob(op->group.pack, i);
        if (blob != 0) {
            payload = sim_blobs_bytes(broker, blob);
            SIM_RULE(sim, payload.size > 8, "the payload of task %llu, blob %llu, is not there",
                     (unsigned long long)(op->group.first + i), (unsigned long long)blob);
            sim_blobs_want(broker, blob, op->group.first + i);
        }
        uint64_t wid = sim_content_number(payload.data, payload.size);
        if (wid != 0) {
            audit_payload(sim, op->group.first + i, wid);
        }
    }
}

/* What a result says of blobs. */
static void audit_parts(struct sim_broker *broker, const struct hp_op *op)
{
    struct hp_wire *wire = hp_wire_new();
    struct hp_arena arena;
    struct hp_error error;
    const struct hp_wire_obj *map = NULL;
    struct hp_st_task_end end;
    hp_arena_init(&arena, 1024, 4U << 20);
    HP_ASSERT(wire != NULL &&
              hp_wire_unpack_checked(wire, &hp_tok_limits_open, op->result.end, &map, &error) ==
                  HP_OK &&
              hp_st_task_end_decode(map, &arena, &end, &error) == HP_OK);
    const uint64_t parts[] = {end.result_blob, end.out_blob, end.err_blob};
    for (size_t i = 0; i < HP_COUNT_OF(parts); i++) {
        if (parts[i] != 0) {
            sim_blobs_want(broker, parts[i], op->result.first);
        }
    }
    hp_arena_deinit(&arena);
    hp_wire_free(wire);
}

static void audit_op(struct sim_broker *broker, const struct hp_op *op)
{
    struct sim *sim = broker->sim;
    switch (op->kind) {
    case HP_OP_GROUP:
        audit_group(sim, op->group.first, op->group.count, sim->plan.pools ? pool_of(op) : 0);
        audit_payloads(broker, op);
        break;
    case HP_OP_LEASE:
        audit_lease(sim, op->lease.id, op->lease.attempt, op->lease.epoch, op->lease.node);
        break;
    case HP_OP_SIDE:
        if (op->side.kind == HP_SIDE_RETURNED) {
            audit_returned(sim, op->side.first, op->side.attempt, op->side.failures,
                           op->side.losses, op->side.releases);
        } else if (op->side.kind == HP_SIDE_CANCELLING) {
            audit_cancelling(sim, op->side.first, op->side.mode == HP_CANCEL_MODE_FORCE);
        } else if (op->side.kind == HP_SIDE_POOL) {
            audit_pool(sim, op->side.first, op->side.mode & 0xffU);
        }
        break;
    case HP_OP_RESULT:
        audit_result(sim, op->result.first, op->result.count, op->result.state, op->result.reason,
                     op->result.attempt, op->result.failures, op->result.losses);
        if (sim->plan.blobs && op->result.end.size > 0) {
            audit_parts(broker, op);
        }
        break;
    case HP_OP_UKEY:
        if (op->ukey.key.data[0] == 0) {
            break; /* a pool's */
        }
        audit_ukey(sim, (uint32_t)(op->ukey.key.data[op->ukey.key.size - 1] - '0'), op->ukey.id);
        break;
    case HP_OP_BLOB:
        sim_blobs_tie(broker, op->blob.blob, op->blob.owner);
        break;
    case HP_OP_LANE:
    case HP_OP_LANE_DEL:
    case HP_OP_SEGMENT:
    case HP_OP_LEASE_DEL:
    case HP_OP_SIDE_DEL:
    case HP_OP_UKEY_DEL:
    case HP_OP_SESSION:
    case HP_OP_QUEUE:
    case HP_OP_NODE:
    case HP_OP_META:
    case HP_OP_REAP:
    case HP_OP_FORGET:
        break;
    }
}

struct job *sim_broker_take_job(struct sim_broker *broker)
{
    struct job *job = broker->jobs_first;
    broker->jobs_first = job->next;
    if (broker->jobs_first == NULL) {
        broker->jobs_last = NULL;
    }
    return job;
}

void sim_broker_apply(struct sim_broker *broker, uint64_t count)
{
    struct sim *sim = broker->sim;
    struct hp_error error;
    uint64_t durable = 0;
    for (uint64_t i = 0; i < count; i++) {
        struct job *job = sim_broker_take_job(broker);
        HP_ASSERT(hp_store_apply(broker->store, &job->batch, 1, &error) == HP_OK);
        for (uint32_t k = 0; k < job->batch->op_count; k++) {
            audit_op(broker, &job->batch->ops[k]);
        }
        durable = job->batch->number;
        hp_batch_free(job->batch);
        hp_free(job);
    }
    bool more = false;
    HP_ASSERT(hp_store_idle(broker->store, &more, &error) == HP_OK);
    if (sim->plan.blobs) {
        sim_blobs_committed(broker);
    }
    audit_committed(sim);
    sim->figures.commits++;
    sim_note(sim, "commit", durable, count, 0, 0);
    broker->in_commit = 0;
    broker->stored = durable;
}

/* The disk has no space: what is to be told of it, and the same commit again later. */
static void wait_for_space(struct sim_broker *broker, sim_fn *again, uint64_t count)
{
    if (!broker->told_full) {
        broker->told_full = true;
        sim_note(broker->sim, "disk_full", count, 0, 0, 0);
        put_news(broker, (struct news){.pressure = true, .disk_low = true});
    }
    sim_after(broker->sim, FULL_RETRY_MS * SIM_MS, again, broker, broker->generation, count);
}

static void commit_ends(struct sim *sim, void *context, uint64_t generation, uint64_t count)
{
    struct sim_broker *broker = context;
    if (generation != broker->generation) {
        return;
    }
    if (broker->disk_full) {
        wait_for_space(broker, commit_ends, count);
        return;
    }
    if (sim_broker_strikes(broker, SIM_FAULT_COMMIT_LOST)) {
        return;
    }
    sim_broker_apply(broker, count);
    if (sim_broker_strikes(broker, SIM_FAULT_COMMIT_THERE)) {
        return;
    }
    if (broker->told_full) {
        broker->told_full = false;
        sim_note(sim, "disk_free", 0, 0, 0, 0);
        put_news(broker, (struct news){.pressure = true});
    }
    broker->store_busy = false;
    put_news(broker, (struct news){.durable = broker->stored});
    store_work(broker);
}

static void load_ends(struct sim *sim, void *context, uint64_t generation, uint64_t b)
{
    struct sim_broker *broker = context;
    (void)sim;
    (void)b;
    if (generation != broker->generation) {
        return;
    }
    struct job *job = sim_broker_take_job(broker);
    struct hp_loaded *loaded = hp_loaded_new(job->load);
    while (!hp_store_load(broker->store, loaded)) {
    }
    hp_free(job);
    broker->store_busy = false;
    put_news(broker, (struct news){.loaded = loaded});
    store_work(broker);
}

static void store_work(struct sim_broker *broker)
{
    struct sim *sim = broker->sim;
    sim_enter(sim, SIM_BROKER);
    if (broker->store_busy || broker->jobs_first == NULL) {
        return;
    }
    broker->store_busy = true;
    uint64_t stall = broker->stall_us;
    broker->stall_us = 0;
    if (broker->jobs_first->load != NULL) {
        uint64_t took = sim_pick(sim, 20, 2000) * (broker->store_slow ? SLOW : 1);
        sim_after(sim, stall + took, load_ends, broker, broker->generation, 0);
        return;
    }
    uint64_t count = 0;
    for (struct job *job = broker->jobs_first; job != NULL && job->batch != NULL; job = job->next) {
        count++;
    }
    uint64_t most = sim->plan.commit_us;
    uint64_t took = sim_percent(sim, 3) ? most * 20 : sim_pick(sim, most / 4, most);
    took *= broker->store_slow ? SLOW : 1;
    broker->in_commit = count;
    sim_after(sim, stall + took, commit_ends, broker, broker->generation, count);
}
