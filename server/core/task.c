/* SPDX-License-Identifier: BSD-2-Clause */
/* The life of a task from dispatch to its end: attempts, retries, losses, results. */
#include "server/core/sched.h"
#include "server/core/state.h"

/* ------------------------------------------------ what changed while a load looks */
/* Checks and backups take minutes, are answered out of order, and look at no task: not counted. */
static uint64_t oldest_load(const struct hp_core *core)
{
    HP_LIST_FOR_EACH (link, &core->pending_list) {
        const struct hp_pending *pending = HP_CONTAINER_OF(link, struct hp_pending, link);
        if (pending->kind != HP_PENDING_CHECK && pending->kind != HP_PENDING_BACKUP) {
            return pending->cookie;
        }
    }
    return UINT64_MAX;
}

void hp_recent_add(struct hp_core *core, uint64_t first, uint32_t count, bool ended)
{
    if (core->recent_count == core->recent_capacity) {
        uint32_t capacity = core->recent_capacity == 0 ? 1024 : core->recent_capacity * 2;
        struct hp_recent *ring = hp_must_alloc((size_t)capacity * sizeof(*ring));
        for (uint32_t i = 0; i < core->recent_count; i++) {
            ring[i] = core->recents[(core->recent_head + i) & (core->recent_capacity - 1)];
        }
        hp_free(core->recents);
        core->recents = ring;
        core->recent_head = 0;
        core->recent_capacity = capacity;
    }
    uint32_t at = (core->recent_head + core->recent_count) & (core->recent_capacity - 1);
    core->recents[at] = (struct hp_recent){.id = first,
                                           .count = count,
                                           .batch = core->batch_number,
                                           .cookie = core->next_cookie,
                                           .ended = ended};
    core->recent_count++;
    if (count == 1) {
        hp_must(hp_idmap_put(&core->recent_map, first, ended ? 1 : 2));
    }
}

/* Forgets what every later load will see by itself: loads are answered in order, after the batches
 * handed over before them, so only loads older than the change can miss it. */
void hp_recent_purge(struct hp_core *core)
{
    uint64_t oldest = oldest_load(core);
    while (core->recent_count > 0) {
        const struct hp_recent *recent = &core->recents[core->recent_head];
        if (oldest < recent->cookie || recent->batch >= core->batch_number) {
            return;
        }
        if (recent->count == 1) {
            uint64_t kind = 0;
            (void)hp_idmap_remove(&core->recent_map, recent->id, &kind);
        }
        core->recent_head = (core->recent_head + 1) & (core->recent_capacity - 1);
        core->recent_count--;
    }
}

bool hp_recent_overlaps(const struct hp_core *core, uint64_t first, uint32_t count)
{
    if (count == 1) {
        return hp_recent_find(core, first) != 0;
    }
    for (uint32_t i = 0; i < core->recent_count; i++) {
        const struct hp_recent *recent =
            &core->recents[(core->recent_head + i) & (core->recent_capacity - 1)];
        if (recent->id < first + count && first < recent->id + recent->count) {
            return true;
        }
    }
    return false;
}

/* The latest change counts. */
int hp_recent_find(const struct hp_core *core, uint64_t id)
{
    uint64_t kind = 0;
    if (hp_idmap_find(&core->recent_map, id, &kind)) {
        return (int)kind;
    }
    if (core->recent_count == hp_idmap_count(&core->recent_map)) {
        return 0; /* no ranges */
    }
    for (uint32_t i = core->recent_count; i-- > 0;) {
        const struct hp_recent *recent =
            &core->recents[(core->recent_head + i) & (core->recent_capacity - 1)];
        if (id >= recent->id && id - recent->id < recent->count) {
            return recent->ended ? 1 : 2;
        }
    }
    return 0;
}

/* ------------------------------------------------ attempts */
struct hp_attempt *hp_attempt_find(struct hp_core *core, uint64_t id)
{
    return hp_idmap_find_ptr(&core->attempts, id);
}

static bool takes_a_slot(const struct hp_spec *spec)
{
    const struct hp_st_task_options *options = &spec->options;
    return hp_sched_takes_a_slot(options->kind, options->cpus, options->mem_bytes);
}

struct hp_attempt *hp_attempt_new(struct hp_core *core, uint64_t id, struct hp_node *node,
                                  struct hp_spec *spec, struct hp_session *session)
{
    struct hp_attempt *attempt = hp_must_calloc(sizeof(*attempt));
    attempt->id = id;
    attempt->node = node;
    attempt->spec = hp_spec_ref(core, spec);
    attempt->session = session != NULL ? hp_session_ref(session) : NULL;
    attempt->state = HP_TASK_STATE_LEASED;
    attempt->epoch = core->epoch;
    attempt->started_at_ms = core->wall_ms;
    attempt->assigned_ms = core->now_ms;
    hp_list_init(&attempt->node_link);
    hp_list_push_back(&node->attempts, &attempt->node_link);
    node->attempt_count++;
    if (spec->options.kind == HP_TASK_KIND_CALL) {
        hp_pool_attempt(core, attempt, true);
    } else if (takes_a_slot(spec)) {
        node->light_count++;
    } else {
        node->used_cpus += spec->options.cpus;
    }
    node->used_mem += spec->options.mem_bytes;
    struct hp_lane *lane = spec->lane;
    lane->class_->held++;
    hp_rebalance_want(core);
    lane->running++;
    lane->queue->running++;
    if (lane->ckey != NULL) {
        lane->ckey->running++;
    }
    hp_must(hp_idmap_put_ptr(&core->attempts, id, attempt));
    return attempt;
}

static void ckey_freed(struct hp_core *core, struct hp_ckey *ckey)
{
    if (ckey->running-- == ckey->max) {
        HP_LIST_FOR_EACH (link, &ckey->lanes) {
            hp_lane_update(core, HP_CONTAINER_OF(link, struct hp_lane, ckey_link));
        }
    }
}

static void lease_ended(struct hp_core *core, struct hp_lease_batch *lease)
{
    if (lease == NULL) {
        return;
    }
    HP_ASSERT(lease->live > 0);
    if (--lease->live == 0 && lease != core->open_lease) {
        hp_batch_add(core->batch, HP_OP_LEASE_DEL)->lease_del.batch = lease->number;
        (void)hp_idmap_remove(&core->lease_batches, lease->number, NULL);
        hp_free(lease);
    }
}

/* Takes an attempt out of every index; what becomes of the task is the caller's to say. */
void hp_attempt_drop(struct hp_core *core, struct hp_attempt *attempt)
{
    struct hp_node *node = attempt->node;
    struct hp_spec *spec = attempt->spec;
    struct hp_lane *lane = spec->lane;
    hp_list_remove(&attempt->node_link);
    node->attempt_count--;
    if (spec->options.kind == HP_TASK_KIND_CALL) {
        hp_pool_attempt(core, attempt, false);
    } else if (takes_a_slot(spec)) {
        node->light_count--;
    } else {
        node->used_cpus -= spec->options.cpus;
    }
    node->used_mem -= spec->options.mem_bytes;
    lane->class_->held--;
    lane->running--;
    lane->queue->running--;
    if (lane->ckey != NULL) {
        ckey_freed(core, lane->ckey);
    }
    (void)hp_idmap_remove(&core->attempts, attempt->id, NULL);
    lease_ended(core, attempt->lease);
    if (attempt->session != NULL) {
        hp_session_unref(core, attempt->session);
    }
    hp_free(attempt);
    hp_spec_unref(core, spec);
    core->dispatch_wanted = true;
}

void hp_attempt_move(struct hp_core *core, struct hp_attempt *attempt, uint8_t state)
{
    (void)core;
    HP_ASSERT(hp_task_may_move((enum hp_sm_task)attempt->state, (enum hp_sm_task)state));
    attempt->state = state;
}

/* ------------------------------------------------ the end of a task */
static void drop_ukey(struct hp_core *core, const struct hp_spec *spec)
{
    if (spec == NULL || spec->options.ukey.size == 0) {
        return;
    }
    struct hp_buf key;
    hp_buf_init(&key, 1024);
    hp_must(hp_buf_append(&key, spec->options.queue.data, spec->options.queue.size));
    hp_must(hp_buf_append_byte(&key, 0));
    hp_must(hp_buf_append(&key, spec->options.ukey.data, spec->options.ukey.size));
    uint64_t hash = hp_hash(key.data, key.size, core->hash_seed);
    (void)hp_idmap_remove(&core->ukeys, hash, NULL);
    hp_batch_add(core->batch, HP_OP_UKEY_DEL)->ukey.key =
        hp_batch_copy(core->batch, key.data, key.size);
    hp_buf_deinit(&key);
}

static void count_end(struct hp_core *core, const struct hp_finish *finish)
{
    struct hp_queue *queue = finish->spec != NULL ? finish->spec->lane->queue : NULL;
    uint64_t *figure = finish->state == HP_TASK_STATE_DONE        ? &core->figures.done
                       : finish->state == HP_TASK_STATE_FAILED    ? &core->figures.failed
                       : finish->state == HP_TASK_STATE_CANCELLED ? &core->figures.cancelled
                                                                  : &core->figures.expired;
    *figure += finish->count;
    if (queue != NULL && finish->state == HP_TASK_STATE_DONE) {
        queue->done_count += finish->count;
    } else if (queue != NULL) {
        queue->failed_count += finish->count;
    }
}

static void tell_session(struct hp_core *core, const struct hp_finish *finish)
{
    struct hp_conn *conn = finish->session != NULL ? finish->session->conn : NULL;
    if (conn == NULL || !conn->events) {
        return;
    }
    bool held = finish->spec == NULL ||
                !hp_volatile_is_now(core, finish->spec, finish->first + finish->count - 1);
    for (uint32_t i = 0; i < finish->count; i++) {
        struct hp_st_task_status status = {.id = finish->first + i, .state = finish->state};
        if (finish->reason != HP_REASON_NONE) {
            status.reason = finish->reason;
            status.has |= HP_HAS_ST_TASK_STATUS_REASON;
        }
        if (finish->attempt != NULL) {
            status.attempt = finish->attempt->attempt;
            status.has |= HP_HAS_ST_TASK_STATUS_ATTEMPT;
            if (finish->reason != HP_REASON_NONE) {
                status.node = finish->attempt->node->name;
                status.has |= HP_HAS_ST_TASK_STATUS_NODE;
            }
        }
        if (finish->end.size > 0) {
            status.end.raw = finish->end;
            status.has |= HP_HAS_ST_TASK_STATUS_END;
        }
        hp_out_event(core, conn, &status, held);
    }
}

static void put_result(struct hp_core *core, const struct hp_finish *finish)
{
    const struct hp_attempt *attempt = finish->attempt;
    uint64_t ttl = finish->spec != NULL ? finish->spec->options.result_ttl_ms : 604800000U;
    struct hp_op *op = hp_batch_add(core->batch, HP_OP_RESULT);
    struct hp_result *result = &op->result;
    result->first = finish->first;
    result->count = finish->count;
    result->state = finish->state;
    result->reason = finish->reason;
    result->attempt = attempt != NULL ? attempt->attempt : finish->attempt_number;
    result->failures = attempt != NULL ? attempt->failures : finish->failures;
    result->losses = attempt != NULL ? attempt->losses : finish->losses;
    result->node = attempt != NULL ? attempt->node->number : 0;
    result->started_at_ms = attempt != NULL ? attempt->started_at_ms : 0;
    result->ended_at_ms = core->wall_ms;
    result->expires_at_ms = core->wall_ms + (int64_t)ttl;
    result->end = hp_batch_copy(core->batch, finish->end.data, finish->end.size);
    core->turn_results += finish->count;
    drop_ukey(core, finish->spec);
    hp_recent_add(core, finish->first, finish->count, true);
}

void hp_task_finish(struct hp_core *core, const struct hp_finish *finish)
{
    bool in_memory = finish->spec != NULL && hp_spec_is_volatile(finish->spec);
    if (in_memory) {
        hp_volatile_finish(core, finish);
    } else {
        put_result(core, finish);
    }
    count_end(core, finish);
    tell_session(core, finish);
    hp_wait_ended(core, finish->first, finish->count);
    if (finish->spec != NULL && finish->spec->options.kind == HP_TASK_KIND_CALL) {
        hp_pool_calls_ended(core, finish->spec, finish->count);
    }
    for (uint32_t i = 0; !hp_list_is_empty(&core->follows) && i < finish->count; i++) {
        hp_follow_drop(core, finish->first + i, 0);
    }
    if (in_memory) {
        hp_volatile_finished(core, finish->first);
    }
}

static void finish_attempt(struct hp_core *core, struct hp_attempt *attempt,
                           enum hp_task_state state, enum hp_reason reason, struct hp_bin end)
{
    struct hp_finish finish = {.first = attempt->id,
                               .count = 1,
                               .state = state,
                               .reason = reason,
                               .attempt = attempt,
                               .spec = attempt->spec,
                               .session = attempt->session,
                               .end = end};
    if (reason == HP_REASON_POOL_ENDED || reason == HP_REASON_INIT_FAILED) {
        hp_pool_fill_finish(core, &finish); /* in the pool's words */
    }
    if (attempt->state == HP_TASK_STATE_CANCELLING && attempt->lease != NULL) {
        struct hp_op *op = hp_batch_add(core->batch, HP_OP_SIDE_DEL);
        op->side_del.first = attempt->id;
    }
    hp_task_finish(core, &finish);
    hp_attempt_drop(core, attempt);
}

/* ------------------------------------------------ coming back */
/* Equal jitter: between half and all of min(cap, base * 2^(n-1)); n counts from 1. */
uint64_t hp_backoff_ms(struct hp_core *core, const struct hp_spec *spec, uint32_t n)
{
    uint64_t base = spec->options.retry_base_ms;
    uint64_t cap = spec->options.retry_cap_ms;
    uint64_t delay = base;
    for (uint32_t i = 1; i < n && delay < cap; i++) {
        delay *= 2;
    }
    delay = delay > cap ? cap : delay;
    return delay / 2 + (delay > 1 ? hp_rand_uniform(&core->rand, delay - delay / 2 + 1) : 0);
}

/* Puts the task back to wait until now + delay. The attempt is gone afterwards. */
static void return_task(struct hp_core *core, struct hp_attempt *attempt, uint64_t delay_ms,
                        enum hp_reason reason)
{
    if (attempt->pool_node != NULL && attempt->pool_node->pool->state == HP_SM_POOL_ENDING) {
        finish_attempt(core, attempt, HP_TASK_STATE_FAILED,
                       hp_pool_reason(attempt->pool_node->pool), (struct hp_bin){0});
        return;
    }
    uint64_t deadline = attempt->spec->options.deadline_ms;
    int64_t run_at = core->wall_ms + (int64_t)delay_ms;
    if (deadline > 0 && run_at > attempt->created_at_ms + (int64_t)deadline) {
        finish_attempt(core, attempt, HP_TASK_STATE_FAILED, HP_REASON_DEADLINE, (struct hp_bin){0});
        return;
    }
    if (attempt->lease == NULL) {
        hp_volatile_return(core, attempt, run_at, (uint32_t)reason);
        return;
    }
    struct hp_side side = {.first = attempt->id,
                           .count = 1,
                           .kind = HP_SIDE_RETURNED,
                           .lane = attempt->spec->lane->id,
                           .run_at_ms = run_at,
                           .attempt = attempt->attempt,
                           .failures = attempt->failures,
                           .losses = attempt->losses,
                           .releases = attempt->releases,
                           .reason = (uint32_t)reason};
    hp_batch_add(core->batch, HP_OP_SIDE)->side = side;
    hp_lane_delayed(core, attempt->spec->lane, 1);
    hp_recent_add(core, attempt->id, 1, false);
    hp_attempt_drop(core, attempt);
    hp_timer_put(core, &side);
}

static bool is_child_death(enum hp_reason reason)
{
    return reason == HP_REASON_CHILD_SIGNAL || reason == HP_REASON_CHILD_EXIT ||
           reason == HP_REASON_OOM;
}

static void attempt_failed(struct hp_core *core, struct hp_attempt *attempt, enum hp_reason reason,
                           uint64_t retry_ms, bool has_retry, struct hp_bin end)
{
    const struct hp_st_task_options *options = &attempt->spec->options;
    bool again;
    uint32_t n;
    if (is_child_death(reason) && options->kind != HP_TASK_KIND_COMMAND) {
        attempt->losses++;
        again = attempt->losses <= options->child_losses;
        n = attempt->losses;
    } else {
        attempt->failures++;
        again = attempt->failures <= options->max_retries && reason != HP_REASON_PERMANENT &&
                reason != HP_REASON_NO_FUNCTION && reason != HP_REASON_POOL_ENDED;
        n = attempt->failures;
    }
    if (options->at_most_once || !again) {
        finish_attempt(core, attempt, HP_TASK_STATE_FAILED, reason, end);
        return;
    }
    core->figures.retried++;
    return_task(core, attempt, has_retry ? retry_ms : hp_backoff_ms(core, attempt->spec, n),
                reason);
}

void hp_attempt_ended(struct hp_core *core, struct hp_attempt *attempt, enum hp_reason reason,
                      uint64_t retry_ms, bool has_retry, struct hp_bin end)
{
    attempt->node->done_count++;
    hp_rebalance_ended(attempt);
    bool is_forced = attempt->state == HP_TASK_STATE_CANCELLING &&
                     attempt->cancel_mode == HP_CANCEL_MODE_FORCE; /* its asker was told so */
    if (reason == HP_REASON_NONE && !is_forced) {
        finish_attempt(core, attempt, HP_TASK_STATE_DONE, reason, end);
    } else if (attempt->state == HP_TASK_STATE_CANCELLING) {
        finish_attempt(core, attempt, HP_TASK_STATE_CANCELLED, HP_REASON_CANCELLED, end);
    } else if (reason == HP_REASON_DRAINED || reason == HP_REASON_NODE_LOST ||
               reason == HP_REASON_NODE_RESTART || reason == HP_REASON_CANCELLED) {
        hp_attempt_lost(core, attempt, reason); /* its worker gave it up, not the task */
    } else if (reason == HP_REASON_POOL_ENDED && attempt->pool_node != NULL &&
               attempt->pool_node->pool->state != HP_SM_POOL_ENDING) {
        hp_attempt_lost(core, attempt, HP_REASON_DRAINED); /* it ended there, but not here */
    } else {
        attempt_failed(core, attempt, reason, retry_ms, has_retry, end);
    }
}

void hp_attempt_lost(struct hp_core *core, struct hp_attempt *attempt, enum hp_reason reason)
{
    core->figures.lost++;
    hp_trace(core, HP_TRACE_WARN, "attempt_lost", "task=%llu attempt=%u node=%.*s reason=%s",
             (unsigned long long)attempt->id, attempt->attempt, HP_STR_ARG(attempt->node->name),
             hp_reason_name(reason));
    const struct hp_st_task_options *options = &attempt->spec->options;
    struct hp_bin none = {0};
    if (attempt->state == HP_TASK_STATE_CANCELLING) {
        finish_attempt(core, attempt, HP_TASK_STATE_CANCELLED, HP_REASON_CANCELLED, none);
    } else if (options->at_most_once) {
        finish_attempt(core, attempt, HP_TASK_STATE_FAILED, HP_REASON_LOST, none);
    } else if (reason == HP_REASON_DRAINED) {
        attempt->releases++;
        return_task(core, attempt, 0, reason);
    } else if (attempt->losses >= options->max_losses) {
        finish_attempt(core, attempt, HP_TASK_STATE_FAILED, reason, none);
    } else {
        uint32_t n = attempt->losses++;
        return_task(core, attempt, n == 0 ? 0 : hp_backoff_ms(core, attempt->spec, n), reason);
    }
}

void hp_attempt_released(struct hp_core *core, struct hp_attempt *attempt)
{
    core->figures.released++;
    if (attempt->state == HP_TASK_STATE_CANCELLING) {
        finish_attempt(core, attempt, HP_TASK_STATE_CANCELLED, HP_REASON_CANCELLED,
                       (struct hp_bin){0});
        return;
    }
    attempt->releases++;
    return_task(core, attempt, 0, HP_REASON_NONE);
}
