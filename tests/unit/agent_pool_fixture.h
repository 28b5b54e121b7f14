/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of the agent's pools add to its fixture: orders, children, reports. */
#ifndef HP_TESTS_AGENT_POOL_FIXTURE_H
#define HP_TESTS_AGENT_POOL_FIXTURE_H

#include "tests/unit/agent_fixture.h"

#define FXP_SLOTS 2u /* children of pools are at this index and behind */
#define FXP_GRACE_MS 500u
#define FXP_NONE UINT32_MAX

/* A report, as the broker got it. */
struct fxp_report {
    uint64_t pool;
    uint32_t pid_count;
    uint32_t waiting;
    uint32_t failures;
    char error[256];
};

static inline struct hp_st_task_options fxp_options(void)
{
    struct hp_st_task_options options;
    hp_st_task_options_init(&options);
    options.kind = HP_TASK_KIND_POOL;
    options.language = HP_STR("python3.11");
    options.kill_grace_ms = FXP_GRACE_MS;
    options.has = HP_HAS_ST_TASK_OPTIONS_KIND | HP_HAS_ST_TASK_OPTIONS_LANGUAGE |
                  HP_HAS_ST_TASK_OPTIONS_KILL_GRACE_MS;
    return options;
}

static inline struct hp_st_task_options fxp_call(uint64_t pool)
{
    struct hp_st_task_options options;
    hp_st_task_options_init(&options);
    options.kind = HP_TASK_KIND_CALL;
    options.pool = pool;
    options.has = HP_HAS_ST_TASK_OPTIONS_KIND | HP_HAS_ST_TASK_OPTIONS_POOL;
    return options;
}

static inline void fxp_send(struct fx *fx, struct hp_st_pool_order *order, bool complete)
{
    struct hp_msg_worker_pool msg = {.has = HP_HAS_WORKER_POOL_COMPLETE, .complete = complete};
    if (order != NULL) {
        msg.pools = (struct hp_list_pool_order){.items = order, .count = 1};
        msg.has |= HP_HAS_WORKER_POOL_POOLS;
    }
    fx_notify(fx, HP_METHOD_WORKER_POOL, &hp_desc_msg_worker_pool, &msg);
}

/* "Have so many children of the pool", set up with the text "init". */
static inline void fxp_order_with(struct fx *fx, uint64_t pool, uint32_t children,
                                  const struct hp_st_task_options *options)
{
    struct hp_st_pool_order order = {
        .has = HP_HAS_ST_POOL_ORDER_OPTIONS | HP_HAS_ST_POOL_ORDER_PAYLOAD,
        .pool = pool,
        .children = children,
        .options = *options,
        .payload = {.data = (const uint8_t *)"init", .size = 4}};
    fxp_send(fx, &order, false);
}

static inline void fxp_order(struct fx *fx, uint64_t pool, uint32_t children)
{
    struct hp_st_task_options options = fxp_options();
    fxp_order_with(fx, pool, children, &options);
}

static inline void fxp_end(struct fx *fx, uint64_t pool, bool kill)
{
    struct hp_st_pool_order order = {
        .has = HP_HAS_ST_POOL_ORDER_KILL, .pool = pool, .kill = kill};
    fxp_send(fx, &order, false);
}

static inline void fxp_up(struct fx *fx, uint32_t child)
{
    fx_event(fx, (struct hp_agent_event){
                     .kind = HP_AGENT_EXEC_CHILD_UP, .child = child, .pid = 1000 + child});
}

static inline void fxp_gone(struct fx *fx, uint32_t child)
{
    fx_event(fx, (struct hp_agent_event){
                     .kind = HP_AGENT_EXEC_CHILD_DOWN, .child = child, .gone = true});
}

static inline void fxp_recycled(struct fx *fx, uint32_t child)
{
    fx_event(fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_CHILD_DOWN,
                                         .child = child,
                                         .gone = true,
                                         .recycled = true});
}

static inline void fxp_init_failed(struct fx *fx, uint32_t child, const char *text)
{
    fx_event(fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_CHILD_DOWN,
                                         .child = child,
                                         .gone = true,
                                         .init_failed = true,
                                         .error = hp_str_of(text)});
}

static inline void fxp_waits(struct fx *fx, uint32_t child, bool on)
{
    fx_event(fx, (struct hp_agent_event){
                     .kind = HP_AGENT_EXEC_CHILD_WAITS, .child = child, .on = on});
}

/* The call `id` dies with its child, of a signal. */
static inline void fxp_died(struct fx *fx, uint64_t id, uint32_t signal_number)
{
    fx_event(fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_RESULT,
                                         .key = fx_key(fx, id),
                                         .outcome = HP_AGENT_OUTCOME_DIED,
                                         .signal = signal_number,
                                         .maxrss_kb = 77,
                                         .error = HP_STR("last words")});
}

/* Child that the task was given to last; FXP_NONE: none. */
static inline uint32_t fxp_child_of(struct fx *fx, uint64_t id)
{
    const struct fx_seen *seen = fx_last(fx, HP_AGENT_CALL, id);
    return seen == NULL ? FXP_NONE : seen->child;
}

/* The newest report among all that was sent and not yet read, which is dropped. */
static inline struct fxp_report fxp_read_reports(struct fx *fx)
{
    struct fxp_report got = {0};
    while (fx_next(fx)) {
        struct hp_msg_worker_pool_report msg;
        if (fx->rpc.method != HP_METHOD_WORKER_POOL_REPORT) {
            continue;
        }
        assert_int_equal(hp_msg_worker_pool_report_decode(fx->rpc.params, &fx->arena, &msg, NULL),
                         HP_OK);
        for (uint32_t i = 0; i < msg.pools.count; i++) {
            const struct hp_st_pool_report *one = &msg.pools.items[i];
            got = (struct fxp_report){.pool = one->pool,
                                      .pid_count = one->pids.count,
                                      .waiting = one->waiting,
                                      .failures = one->failures};
            size_t size = HP_MIN(one->error.size, sizeof(got.error) - 1);
            if (size > 0) {
                memcpy(got.error, one->error.data, size);
            }
        }
    }
    return got;
}

static inline uint32_t fxp_count(const struct fx *fx, enum hp_agent_effect_kind kind,
                                 uint32_t child)
{
    uint32_t count = 0;
    for (size_t i = 0; i < fx->seen_count; i++) {
        count += fx->seen[i].kind == kind && fx->seen[i].child == child;
    }
    return count;
}

/* A registered agent that was ordered to have `children` of pool 7, all of them set up. */
static inline void fxp_init(struct fx *fx, uint32_t children)
{
    fx_init(fx, FXP_SLOTS);
    fx_up(fx);
    fxp_order(fx, 7, children);
    for (uint32_t i = 0; i < children; i++) {
        fxp_up(fx, FXP_SLOTS + i);
    }
    (void)fxp_read_reports(fx);
}

#endif
