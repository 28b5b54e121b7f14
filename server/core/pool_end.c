/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The end of pools. Closing: what was submitted is run, then the pool is done. Ending (terminated,
 * cancelled, broken): what waits is failed in slices, what runs is ended by its workers.
 */
#include "server/core/state.h"

enum { SLICE = 2048, SCAN_TASKS = 1000, SCAN_BYTES = 256 * 1024 };

static void move(struct hp_core *core, struct hp_pool *pool, uint8_t state)
{
    HP_ASSERT(hp_pool_may_move((enum hp_sm_pool)pool->state, (enum hp_sm_pool)state));
    pool->state = state;
    hp_pool_store(core, pool);
    hp_pools_dirty(core);
}

void hp_pool_close(struct hp_core *core, struct hp_pool *pool)
{
    if (pool->state == HP_SM_POOL_OPEN) {
        move(core, pool, HP_SM_POOL_CLOSING);
    }
}

void hp_pool_terminate(struct hp_core *core, struct hp_pool *pool)
{
    if (pool->state == HP_SM_POOL_OPEN || pool->state == HP_SM_POOL_CLOSING) {
        pool->cancelled = true;
        move(core, pool, HP_SM_POOL_ENDING);
    }
}

/* No worker could set up a child of it. */
void hp_pool_break(struct hp_core *core, struct hp_pool *pool)
{
    const struct hp_pool_node *worst = NULL;
    HP_LIST_FOR_EACH (link, &pool->nodes) {
        const struct hp_pool_node *entry = HP_CONTAINER_OF(link, struct hp_pool_node, link);
        if (entry->error[0] != '\0' && (worst == NULL || entry->failures > worst->failures)) {
            worst = entry;
        }
    }
    if (worst != NULL) {
        char host[256];
        (void)hp_strlcpy(host, worst->node->host, sizeof(host));
        struct hp_buf text;
        hp_buf_init(&text, 4096);
        hp_must(
            hp_buf_append_format(&text, "no child could be set up; on %s: %s", host, worst->error));
        hp_pool_set_text(pool->error, sizeof(pool->error), hp_bin_as_str(hp_buf_bin(&text)));
        hp_buf_deinit(&text);
    }
    hp_trace(core, HP_TRACE_WARN, "pool_broken", "pool=%llu", (unsigned long long)pool->id);
    pool->broken = true;
    move(core, pool, HP_SM_POOL_ENDING);
}

/* ------------------------------------------------ what waits */
static struct hp_bin end_record(struct hp_core *core, const struct hp_pool *pool)
{
    struct hp_str text = pool->broken ? hp_str_of(pool->error) : HP_STR("the pool was terminated");
    struct hp_st_task_end end = {.has = HP_HAS_ST_TASK_END_ERROR, .error = text};
    struct hp_buf buf;
    struct hp_bin copy = {0};
    hp_buf_init(&buf, 8192);
    hp_must(hp_st_task_end_encode(&buf, &end));
    hp_must(hp_arena_copy_bin(&core->arena, hp_buf_bin(&buf), &copy));
    hp_buf_deinit(&buf);
    return copy;
}

enum hp_reason hp_pool_reason(const struct hp_pool *pool)
{
    return pool->broken ? HP_REASON_INIT_FAILED : HP_REASON_POOL_ENDED;
}

static void fail_parked(struct hp_core *core, struct hp_pool *pool, struct hp_lane *lane,
                        struct hp_bin end)
{
    struct hp_parked *parked =
        HP_CONTAINER_OF(hp_list_first(&lane->parked), struct hp_parked, link);
    struct hp_group *group = parked->group;
    group->refs++;
    struct hp_finish finish = {.first = parked->id,
                               .count = 1,
                               .state = HP_TASK_STATE_FAILED,
                               .reason = hp_pool_reason(pool),
                               .attempt_number = parked->attempt,
                               .failures = parked->failures,
                               .losses = parked->losses,
                               .spec = group->spec,
                               .session = group->session,
                               .end = end};
    if (!lane->in_memory) {
        hp_batch_add(core->batch, HP_OP_SIDE_DEL)->side_del.first = parked->id;
        hp_lane_undelayed(core, lane, 1);
    }
    hp_parked_free(core, parked);
    hp_task_finish(core, &finish);
    hp_group_unref(core, group);
}

/* Fails calls at the front of the lane, up to `most`; how many. */
static uint32_t fail_front(struct hp_core *core, struct hp_pool *pool, struct hp_lane *lane,
                           uint32_t most, struct hp_bin end)
{
    struct hp_run *run = hp_lane_front(lane);
    uint32_t count = run->count < most ? run->count : most;
    struct hp_group *group = run->group;
    if (group != NULL) {
        group->refs++;
    }
    uint64_t first = run->first;
    hp_lane_take(core, lane, count);
    for (uint32_t i = 0; i < count; i++) { /* results with an end record are one each */
        struct hp_finish finish = {.first = first + i,
                                   .count = 1,
                                   .state = HP_TASK_STATE_FAILED,
                                   .reason = hp_pool_reason(pool),
                                   .spec = group != NULL ? group->spec : NULL,
                                   .session = group != NULL ? group->session : NULL,
                                   .end = end};
        hp_task_finish(core, &finish);
    }
    hp_group_unref(core, group);
    return count;
}

/* Fails what of the lane is in memory with all that is to be told of it; how many. */
static uint32_t fail_lane(struct hp_core *core, struct hp_pool *pool, struct hp_lane *lane,
                          uint32_t most, struct hp_bin end)
{
    uint32_t left = most;
    while (left > 0 && lane->parked_count > 0) {
        fail_parked(core, pool, lane, end);
        left--;
    }
    for (;;) { /* cold runs are loaded first: for their keys, and who is told */
        const struct hp_run *run = hp_lane_front(lane);
        if (left == 0 || run == NULL || (run->group == NULL && !lane->damaged)) {
            return most - left;
        }
        left -= fail_front(core, pool, lane, left, end);
    }
}

/* The ids of its lanes: while calls end, lanes that nothing needs any more go. */
static uint32_t list_lanes(struct hp_core *core, const struct hp_pool *pool, uint32_t **ret_ids)
{
    uint32_t count = 0;
    HP_LIST_FOR_EACH (link, &pool->lanes) {
        count++;
    }
    *ret_ids = HP_ARENA_NEW_ARRAY(&core->arena, uint32_t, count + 1U);
    HP_ASSERT(*ret_ids != NULL);
    count = 0;
    HP_LIST_FOR_EACH (link, &pool->lanes) {
        (*ret_ids)[count++] = HP_CONTAINER_OF(link, struct hp_lane, pool_link)->id;
    }
    return count;
}

/* True: nothing of it waits any more, as far as memory knows. */
static bool fail_waiting(struct hp_core *core, struct hp_pool *pool)
{
    uint32_t left = SLICE;
    if (core->backlog_ops + core->batch->op_count > core->config.backlog_ops_max) {
        core->pools_blocked = true;
        return false;
    }
    struct hp_bin end = end_record(core, pool);
    bool is_done = true;
    uint32_t *ids = NULL;
    uint32_t count = list_lanes(core, pool, &ids);
    for (uint32_t i = 0; i < count; i++) {
        struct hp_lane *lane = hp_idmap_find_ptr(&core->lanes, ids[i]);
        if (lane == NULL) {
            continue;
        }
        left -= fail_lane(core, pool, lane, left, end);
        bool has_more = lane->ready_count > 0 || lane->parked_count > 0;
        is_done = is_done && !has_more;
        if (has_more) {
            hp_lane_want(core, lane);
            hp_lane_update(core, lane);
        }
    }
    if (left == 0) {
        hp_pools_touch(core); /* the next turn goes on */
    }
    return is_done;
}

/* ------------------------------------------------ calls that wait for their time */
void hp_pool_fill_finish(struct hp_core *core, struct hp_finish *finish)
{
    const struct hp_pool *pool = finish->state == HP_TASK_STATE_FAILED
                                     ? hp_pool_find(core, finish->spec->options.pool)
                                     : NULL;
    if (pool != NULL && pool->state == HP_SM_POOL_ENDING) {
        finish->reason = hp_pool_reason(pool);
        finish->end = end_record(core, pool);
    }
}

/* Live calls that are neither in a lane nor at a worker. */
static uint64_t count_delayed(const struct hp_pool *pool)
{
    uint64_t others = 0;
    HP_LIST_FOR_EACH (link, &pool->lanes) {
        const struct hp_lane *lane = HP_CONTAINER_OF(link, struct hp_lane, pool_link);
        others += lane->in_memory ? lane->ready_count + lane->parked_count + lane->running : 0;
    }
    return pool->delayed + (pool->memory_live > others ? pool->memory_live - others : 0);
}

/* Looks through the live tasks that are younger than the pool: rows say nothing of pools, and those
 * of delayed calls are rare, so they are in no index. */
static void scan(struct hp_core *core, struct hp_pool *pool, uint64_t before)
{
    struct hp_pending *pending = hp_pending_new(core, HP_PENDING_POOL_SCAN, NULL, 0);
    pending->id = pool->id;
    struct hp_load *load = hp_out_load(core, HP_LOAD_LIST, pending);
    load->before = before;
    load->limit = SCAN_TASKS;
    load->bytes_max = SCAN_BYTES;
    load->live_only = true;
    pool->scanning = true;
}

static bool is_call_of(struct hp_core *core, const struct hp_pool *pool,
                       const struct hp_loaded_group *group)
{
    struct hp_error error;
    struct hp_spec *spec = group->damaged ? NULL : hp_spec_get(core, group->options, &error);
    bool is_its =
        spec != NULL && spec->options.kind == HP_TASK_KIND_CALL && spec->options.pool == pool->id;
    if (spec != NULL) {
        hp_spec_unref(core, spec);
    }
    return is_its;
}

static void scan_task(struct hp_core *core, struct hp_pool *pool, const struct hp_loaded *loaded,
                      const struct hp_loaded_task *task)
{
    enum hp_task_state now = hp_task_now(core, task);
    if (now == 0 || (now < HP_TASK_STATE_DONE && hp_cancel_is_stale(core, task))) {
        pool->scan_stale = true; /* it moved while it was looked at */
    } else if (now == HP_TASK_STATE_READY || now == HP_TASK_STATE_DELAYED ||
               now == HP_TASK_STATE_BURIED) {
        pool->scan_found += hp_cancel_waiting(core, loaded, task, 1, HP_TASK_STATE_FAILED);
    }
}

static void scan_done(struct hp_core *core, struct hp_pool *pool)
{
    pool->scanning = false;
    hp_pools_touch(core);
    if (pool->scan_found == 0 && !pool->scan_stale && pool->delayed > 0) {
        hp_trace(core, HP_TRACE_WARN, "pool_count_mended", "pool=%llu counted=%llu",
                 (unsigned long long)pool->id, (unsigned long long)pool->delayed);
        pool->delayed = 0; /* rows that were damaged */
        hp_pool_store(core, pool);
    }
}

void hp_pool_scanned(struct hp_core *core, struct hp_pending *pending,
                     const struct hp_loaded *loaded)
{
    struct hp_pool *pool = hp_pool_find(core, pending->id);
    if (pool == NULL) {
        return;
    }
    uint32_t group_at = UINT32_MAX;
    bool is_its = false;
    bool more = loaded->more && loaded->err == HP_OK;
    for (uint32_t i = 0; i < loaded->task_count; i++) {
        const struct hp_loaded_task *task = &loaded->tasks[i];
        if (task->id <= pool->id) {
            more = false;
            break;
        }
        if (!task->exists || task->ended) {
            continue;
        }
        if (task->group != group_at) {
            group_at = task->group;
            is_its = is_call_of(core, pool, &loaded->groups[group_at]);
        }
        if (is_its) {
            scan_task(core, pool, loaded, task);
        }
    }
    pool->scan_failed = loaded->err != HP_OK; /* a damaged row: they fail when they are due */
    if (more) {
        scan(core, pool, loaded->next);
    } else if (!pool->scan_failed) {
        scan_done(core, pool);
    } else {
        pool->scanning = false;
    }
}

/* ------------------------------------------------ the end of the pool itself */
/* No call of it waits or runs. */
static bool is_idle(const struct hp_pool *pool)
{
    if (pool->held > 0 || hp_pool_live(pool) > 0) {
        return false;
    }
    HP_LIST_FOR_EACH (link, &pool->lanes) {
        const struct hp_lane *lane = HP_CONTAINER_OF(link, struct hp_lane, pool_link);
        if (lane->parked_count > 0 || lane->runs_pending || lane->load_pending) {
            return false;
        }
    }
    return true;
}

static void tell_nodes(struct hp_core *core, struct hp_pool *pool)
{
    HP_LIST_FOR_EACH (link, &pool->nodes) {
        struct hp_pool_node *entry = HP_CONTAINER_OF(link, struct hp_pool_node, link);
        entry->node->pool_granted -= entry->granted;
        entry->granted = 0;
    }
    hp_pool_send_orders(core, pool);
}

static void finish_pool(struct hp_core *core, struct hp_pool *pool)
{
    struct hp_finish finish = {.first = pool->id,
                               .count = 1,
                               .state = pool->broken      ? HP_TASK_STATE_FAILED
                                        : pool->cancelled ? HP_TASK_STATE_CANCELLED
                                                          : HP_TASK_STATE_DONE,
                               .reason = pool->broken      ? HP_REASON_INIT_FAILED
                                         : pool->cancelled ? HP_REASON_CANCELLED
                                                           : HP_REASON_NONE,
                               .attempt_number = 1,
                               .spec = pool->spec,
                               .session = pool->maker};
    if (pool->broken) {
        finish.end = end_record(core, pool);
    }
    hp_batch_add(core->batch, HP_OP_SIDE_DEL)->side_del.first = pool->id;
    hp_pool_drop_keys(core, pool);
    hp_task_finish(core, &finish);
    hp_trace(core, HP_TRACE_INFO, "pool_ended", "pool=%llu %s", (unsigned long long)pool->id,
             hp_task_state_name(finish.state));
    tell_nodes(core, pool);
    hp_pools_dirty(core); /* others may have its room */
    pool->state = HP_SM_POOL_ENDED;
    hp_pool_answer_waits(core, pool);
    hp_pool_own(core, pool, NULL);
    if (pool->maker != NULL) {
        hp_session_unref(core, pool->maker);
    }
    struct hp_spec *spec = pool->spec;
    hp_pool_free(core, pool);
    if (spec != NULL) {
        hp_spec_unref(core, spec);
    }
}

bool hp_pool_end_step(struct hp_core *core, struct hp_pool *pool)
{
    if (pool->state == HP_SM_POOL_ENDING && !fail_waiting(core, pool)) {
        return false;
    }
    if (!is_idle(pool)) {
        if (pool->state == HP_SM_POOL_ENDING && !pool->scanning && !pool->scan_failed &&
            count_delayed(pool) > 0) {
            pool->scan_stale = false;
            pool->scan_found = 0;
            scan(core, pool, 0);
        }
        return false;
    }
    finish_pool(core, pool);
    return true;
}

void hp_pool_lane_loaded(struct hp_core *core, const struct hp_lane *lane)
{
    const struct hp_pool *pool = hp_pool_find(core, lane->class_->pool);
    if (pool != NULL && pool->state != HP_SM_POOL_OPEN) {
        hp_pools_touch(core);
    }
}

void hp_pool_calls_ended(struct hp_core *core, const struct hp_spec *spec, uint32_t count)
{
    struct hp_pool *pool = hp_pool_find(core, spec->options.pool);
    if (pool == NULL) {
        return;
    }
    if (hp_spec_is_volatile(spec)) {
        HP_ASSERT(pool->memory_live >= count);
        pool->memory_live -= count;
    }
    if (pool->state != HP_SM_POOL_OPEN) {
        hp_pools_touch(core);
    }
}
