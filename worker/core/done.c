/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Results on their way: worker.done in batches with few calls in flight, kept until the answer; the
 * spool; and the batched notices (started) and hand-backs (release).
 */
#include <string.h>

#include "common/base/assert.h"
#include "worker/core/state.h"

#define ITEM_OVERHEAD_BYTES 64u
#define BUSY_WAIT_MS 200u
#define ERROR_WAIT_MS 1000u
#define DONE_GATHER_MS 4u
#define DONE_GATHER_ENDS 16u
#define SPOOL_RETRY_MS 10000u
#define SPOOL_RETRY_ENDING_MS 500u /* of an agent that is about to go */

/* ------------------------------------------------------------------------------------- sending */

static struct hp_st_done_item item_of(const struct hp_agent_run *run)
{
    struct hp_st_done_item item = {
        .id = run->id,
        .attempt = run->attempt,
        .epoch = run->epoch,
        .end = {.data = run->end, .size = run->end_size},
    };
    if (run->reason != HP_REASON_NONE) {
        item.reason = (enum hp_reason)run->reason;
        item.has |= HP_HAS_ST_DONE_ITEM_REASON;
    }
    if (run->retry_ms != 0) {
        item.retry_ms = run->retry_ms;
        item.has |= HP_HAS_ST_DONE_ITEM_RETRY_MS;
    }
    return item;
}

/* One worker.done call of what is ready. False: nothing was sent. */
static bool send_done(struct hp_agent *agent)
{
    struct hp_agent_rpc *rpc = hp_agent_rpc_begin(agent, HP_METHOD_WORKER_DONE);
    if (rpc == NULL) {
        return false;
    }
    size_t bytes = 0;
    uint32_t count = 0;
    while (count < agent->done_items_max && !hp_list_is_empty(&agent->ready)) {
        struct hp_agent_run *run =
            HP_LIST_ENTRY(hp_list_first(&agent->ready), struct hp_agent_run, link);
        bytes += run->end_size + ITEM_OVERHEAD_BYTES;
        if (count > 0 && bytes > HP_AGENT_DONE_BYTES) {
            break;
        }
        agent->done_items[count++] = item_of(run);
        hp_agent_run_move(agent, run, HP_AGENT_SENT, &rpc->runs, false);
    }
    rpc->count = count;
    struct hp_msg_worker_done done = {.has = HP_HAS_WORKER_DONE_ITEMS,
                                      .items = {.items = agent->done_items, .count = count}};
    hp_agent_rpc_params(agent, &hp_desc_msg_worker_done, &done);
    agent->done_calls++;
    return true;
}

/* While more is held than runs nobody is kept idle by an end that is told a little later, together
 * with the next ones: a message and a commit for each cost as much as a short command. Pools are
 * left out: their children need no slots, so it is not known here whether one idles. */
uint64_t hp_agent_done_gather_ms(const struct hp_agent *agent)
{
    const struct hp_list *node = hp_list_first(&agent->ready);
    uint32_t held = agent->state_count[HP_AGENT_WAITING] + agent->state_count[HP_AGENT_RUNNING];
    if (node == NULL || held <= agent->config.slots || hp_agent_is_stopped(agent) ||
        agent->state_count[HP_AGENT_READY] >= DONE_GATHER_ENDS) {
        return 0;
    }
    const struct hp_agent_run *run = HP_LIST_ENTRY(node, const struct hp_agent_run, link);
    /* The crew of a pool may be gone by now: it is not looked into. */
    bool waits =
        run->parcel != NULL && (run->parcel->is_command || run->parcel->crew == &agent->functions);
    return waits ? run->ended_ms + DONE_GATHER_MS : 0;
}

void hp_agent_flush_done(struct hp_agent *agent)
{
    bool open =
        agent->link >= HP_AGENT_LINK_FLUSH && agent->now_ms >= hp_agent_done_gather_ms(agent);
    while (open && agent->done_calls < HP_AGENT_DONE_CALLS_MAX &&
           !hp_list_is_empty(&agent->ready) && agent->now_ms >= agent->done_hold_ms &&
           agent->tx.size < HP_AGENT_OUTPUT_BUSY_BYTES) {
        if (!send_done(agent)) {
            return;
        }
    }
}

static void send_release(struct hp_agent *agent, uint32_t first, uint32_t count)
{
    if (hp_agent_rpc_begin(agent, HP_METHOD_WORKER_RELEASE) == NULL) {
        return; /* the broker names them as missing */
    }
    struct hp_msg_worker_release release = {
        .has = HP_HAS_WORKER_RELEASE_RUNS,
        .runs = {.items = agent->releases.items + first, .count = count}};
    hp_agent_rpc_params(agent, &hp_desc_msg_worker_release, &release);
}

void hp_agent_flush_refs(struct hp_agent *agent)
{
    if (agent->link != HP_AGENT_LINK_UP) {
        agent->tells.count = 0; /* the registration says which have started */
        return;
    }
    for (uint32_t i = 0; i < agent->releases.count; i += HP_AGENT_REFS_PER_CALL) {
        send_release(agent, i, HP_MIN(agent->releases.count - i, HP_AGENT_REFS_PER_CALL));
    }
    agent->releases.count = 0;
    for (uint32_t i = 0; i < agent->tells.count; i += HP_AGENT_REFS_PER_CALL) {
        struct hp_msg_worker_started started = {
            .has = HP_HAS_WORKER_STARTED_RUNS,
            .runs = {.items = agent->tells.items + i,
                     .count = HP_MIN(agent->tells.count - i, HP_AGENT_REFS_PER_CALL)}};
        hp_agent_notify(agent, HP_METHOD_WORKER_STARTED, &hp_desc_msg_worker_started, &started);
    }
    agent->tells.count = 0;
}

/* ------------------------------------------------------------------------------------- answers */

/* Puts the runs of a call back in front of those that are ready, in their order. */
static void take_back(struct hp_agent *agent, struct hp_agent_rpc *rpc, bool blobs_are_gone)
{
    for (;;) {
        struct hp_list *node = hp_list_last(&rpc->runs);
        if (node == NULL) {
            return;
        }
        struct hp_agent_run *run = HP_LIST_ENTRY(node, struct hp_agent_run, link);
        if (run->parts != NULL && blobs_are_gone) {
            hp_agent_run_move(agent, run, HP_AGENT_UPLOADING, &agent->uploading, true);
        } else {
            hp_agent_run_move(agent, run, HP_AGENT_READY, &agent->ready, true);
        }
    }
}

void hp_agent_done_requeue(struct hp_agent *agent)
{
    for (;;) {
        struct hp_agent_rpc *newest = NULL;
        for (uint32_t i = 0; i < HP_AGENT_RPC_MAX; i++) {
            struct hp_agent_rpc *rpc = &agent->rpcs[i];
            if (rpc->used && rpc->method == HP_METHOD_WORKER_DONE &&
                (newest == NULL || rpc->msgid > newest->msgid)) {
                newest = rpc;
            }
        }
        if (newest == NULL) {
            return;
        }
        take_back(agent, newest, true);
        hp_agent_rpc_free(agent, newest);
    }
}

/* The broker refused the call as such: never for one run's fault more often than it takes to find
 * it. */
static void done_refused(struct hp_agent *agent, struct hp_agent_rpc *rpc,
                         const struct hp_rpc_failure *failure)
{
    hp_agent_log(agent, HP_AGENT_LOG_WARN, "worker.done refused: %.*s: %.*s",
                 HP_STR_ARG(failure->word), HP_STR_ARG(failure->text));
    bool ours = failure->code == HP_RPC_ERROR_BAD_REQUEST || failure->code == HP_RPC_ERROR_TOO_BIG;
    if (ours && rpc->count == 1) {
        struct hp_agent_run *run =
            HP_LIST_ENTRY(hp_list_first(&rpc->runs), struct hp_agent_run, link);
        hp_agent_log(agent, HP_AGENT_LOG_ERROR, "the end of task %llu attempt %u is given up",
                     (unsigned long long)run->id, run->attempt);
        hp_agent_run_free(agent, run);
        return;
    }
    if (ours) {
        agent->done_items_max = HP_MAX(rpc->count / 2, 1u);
    } else {
        uint64_t wait_ms = failure->code == HP_RPC_ERROR_BUSY ? BUSY_WAIT_MS : ERROR_WAIT_MS;
        agent->done_hold_ms = agent->now_ms + HP_MAX(wait_ms, failure->retry_after_ms);
    }
    take_back(agent, rpc, false);
}

void hp_agent_on_done_reply(struct hp_agent *agent, struct hp_agent_rpc *rpc,
                            const struct hp_rpc *reply)
{
    struct hp_msg_worker_done_reply done;
    struct hp_error error = {0};
    if (reply->failed) {
        done_refused(agent, rpc, &reply->failure);
        return;
    }
    if (hp_msg_worker_done_reply_decode(reply->result, &agent->arena, &done, &error) != HP_OK) {
        hp_agent_link_close(agent, "%s", error.text);
        return;
    }
    if (done.stale.count > 0) {
        const struct hp_st_run_ref *ref = &done.stale.items[0];
        agent->totals.stale_total += done.stale.count;
        hp_agent_log(agent, HP_AGENT_LOG_WARN,
                     "the broker refused %u ends as stale, the first of task %llu attempt %u",
                     done.stale.count, (unsigned long long)ref->id, ref->attempt);
    }
    agent->totals.acked_total += rpc->count;
    agent->done_items_max = HP_AGENT_DONE_ITEMS;
    for (;;) {
        struct hp_list *node = hp_list_first(&rpc->runs);
        if (node == NULL) {
            return;
        }
        hp_agent_run_free(agent, HP_LIST_ENTRY(node, struct hp_agent_run, link));
    }
}

/* --------------------------------------------------------------------------------------- spool */

void hp_agent_spool_run(struct hp_agent *agent, struct hp_agent_run *run)
{
    bool is_volatile = run->parcel != NULL && !run->parcel->durable;
    if (run->spool_id != 0 || agent->spool_failed || is_volatile) {
        return;
    }
    struct hp_bin record;
    if (hp_agent_record_encode(agent, run, &record) != HP_OK) {
        return; /* too large for any spool: it goes without */
    }
    run->spool_id = agent->next_spool_id++;
    agent->totals.spooled_total++;
    struct hp_agent_effect *effect = hp_agent_effect_add(agent, HP_AGENT_SPOOL_APPEND);
    effect->spool_id = run->spool_id;
    effect->record = record;
}

static void spool_list(struct hp_agent *agent, const struct hp_list *list)
{
    HP_LIST_FOR_EACH (node, list) {
        hp_agent_spool_run(agent, HP_LIST_ENTRY(node, struct hp_agent_run, link));
    }
}

void hp_agent_spool_ended(struct hp_agent *agent)
{
    spool_list(agent, &agent->uploading);
    spool_list(agent, &agent->ready);
    for (uint32_t i = 0; i < HP_AGENT_RPC_MAX; i++) {
        struct hp_agent_rpc *rpc = &agent->rpcs[i];
        if (rpc->used && rpc->method == HP_METHOD_WORKER_DONE && !rpc->spooled) {
            rpc->spooled = true;
            spool_list(agent, &rpc->runs);
        }
    }
}

/* When the oldest call, or the oldest result that waits for one, becomes late. */
uint64_t hp_agent_spool_deadline_ms(const struct hp_agent *agent)
{
    uint64_t at_ms = HP_AGENT_NEVER;
    for (uint32_t i = 0; i < HP_AGENT_RPC_MAX && agent->done_calls > 0; i++) {
        const struct hp_agent_rpc *rpc = &agent->rpcs[i];
        if (rpc->used && rpc->method == HP_METHOD_WORKER_DONE && !rpc->spooled) {
            at_ms = HP_MIN(at_ms, rpc->sent_ms + HP_AGENT_SPOOL_AFTER_MS);
        }
    }
    const struct hp_list *lists[] = {&agent->ready, &agent->uploading};
    for (size_t i = 0; i < HP_COUNT_OF(lists); i++) {
        const struct hp_list *node = hp_list_first(lists[i]);
        const struct hp_agent_run *run =
            node == NULL ? NULL : HP_LIST_ENTRY(node, const struct hp_agent_run, link);
        bool is_volatile = run != NULL && run->parcel != NULL && !run->parcel->durable;
        if (run != NULL && run->spool_id == 0 && !is_volatile) {
            at_ms = HP_MIN(at_ms, run->ended_ms + HP_AGENT_SPOOL_AFTER_MS);
        }
    }
    return agent->spool_failed ? agent->spool_retry_ms : at_ms;
}

void hp_agent_spool_tick(struct hp_agent *agent)
{
    if (agent->draining_self) {
        agent->spool_retry_ms =
            HP_MIN(agent->spool_retry_ms, agent->now_ms + SPOOL_RETRY_ENDING_MS);
    }
    if (agent->spool_failed && agent->now_ms >= agent->spool_retry_ms) {
        agent->spool_failed = false;
    }
    if (hp_agent_spool_deadline_ms(agent) <= agent->now_ms) {
        hp_agent_spool_ended(agent);
    }
}

static void unspool(const struct hp_list *list, uint64_t durable_id)
{
    HP_LIST_FOR_EACH (node, list) {
        struct hp_agent_run *run = HP_LIST_ENTRY(node, struct hp_agent_run, link);
        run->spool_id = run->spool_id > durable_id ? 0 : run->spool_id;
    }
}

/* What was to be written since the last success is not there: it is written when it can be. */
static void spool_failed(struct hp_agent *agent)
{
    hp_agent_log(agent, HP_AGENT_LOG_ERROR,
                 "the spool can not be written: results are kept in memory only");
    unspool(&agent->spooling, agent->spool_durable_id);
    unspool(&agent->uploading, agent->spool_durable_id);
    unspool(&agent->ready, agent->spool_durable_id);
    for (uint32_t i = 0; i < HP_AGENT_RPC_MAX; i++) {
        struct hp_agent_rpc *rpc = &agent->rpcs[i];
        if (rpc->used && rpc->method == HP_METHOD_WORKER_DONE) {
            unspool(&rpc->runs, agent->spool_durable_id);
            rpc->spooled = false;
        }
    }
    agent->spool_failed = true;
    agent->spool_retry_ms =
        agent->now_ms + (agent->draining_self ? SPOOL_RETRY_ENDING_MS : SPOOL_RETRY_MS);
}

void hp_agent_spooled(struct hp_agent *agent, uint64_t spool_id, bool ok, uint64_t now_ms)
{
    agent->now_ms = HP_MAX(agent->now_ms, now_ms);
    HP_ASSERT(spool_id < agent->next_spool_id);
    if (!ok) {
        spool_failed(agent);
    }
    agent->spool_durable_id = HP_MAX(agent->spool_durable_id, spool_id);
    for (;;) {
        struct hp_list *node = hp_list_first(&agent->spooling);
        struct hp_agent_run *run =
            node == NULL ? NULL : HP_LIST_ENTRY(node, struct hp_agent_run, link);
        if (run == NULL || run->spool_id > spool_id) {
            break;
        }
        hp_agent_run_advance(agent, run);
    }
    hp_agent_tick(agent, agent->now_ms);
}
