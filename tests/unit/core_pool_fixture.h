/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pools on the core's bench: workers that offer a language, what they are ordered and given, their
 * reports. Include hp_test.h and core_rig.h first.
 */
#ifndef HP_TESTS_UNIT_CORE_POOL_FIXTURE_H
#define HP_TESTS_UNIT_CORE_POOL_FIXTURE_H

#include <stdio.h>

#define SESSION "client session 1"
#define OTHER_SESSION "client session 2"

enum { SEEN_MAX = 512, WAIT_STEP_MS = 900 };

struct pool_order {
    uint64_t pool;
    uint32_t children;
    bool kill, has_options;
    size_t payload_bytes;
};

/* What left for a worker since it was looked at last. */
struct pool_seen {
    struct pool_order orders[SEEN_MAX];
    uint32_t order_count;
    uint32_t complete_count;
    struct {
        uint64_t first, epoch;
        uint32_t count, attempt;
    } runs[SEEN_MAX];
    uint32_t run_count;
    uint32_t call_count; /* tasks of all runs */
};

static inline struct pool_seen pool_look(struct rig *rig, uint64_t conn)
{
    struct pool_seen seen = {0};
    struct hp_rpc rpc;
    struct hp_error error;
    while (rig_next(rig, conn, &rpc)) {
        if (rpc.type == HP_RPC_NOTIFY && rpc.method == HP_METHOD_WORKER_POOL) {
            struct hp_msg_worker_pool msg;
            assert_ok(hp_msg_worker_pool_decode(rpc.params, &rig->arena, &msg, &error));
            seen.complete_count += msg.complete;
            for (uint32_t i = 0; i < msg.pools.count; i++) {
                const struct hp_st_pool_order *order = &msg.pools.items[i];
                assert_true(seen.order_count < SEEN_MAX);
                seen.orders[seen.order_count++] = (struct pool_order){
                    .pool = order->pool,
                    .children = order->children,
                    .kill = order->kill,
                    .has_options = (order->has & HP_HAS_ST_POOL_ORDER_OPTIONS) != 0,
                    .payload_bytes = order->payload.size};
            }
        } else if (rpc.type == HP_RPC_NOTIFY && rpc.method == HP_METHOD_WORKER_ASSIGN) {
            struct hp_msg_worker_assign msg;
            assert_ok(hp_msg_worker_assign_decode(rpc.params, &rig->arena, &msg, &error));
            for (uint32_t i = 0; i < msg.runs.count; i++) {
                const struct hp_st_assign_run *run = &msg.runs.items[i];
                assert_true(seen.run_count < SEEN_MAX);
                seen.runs[seen.run_count].first = run->first;
                seen.runs[seen.run_count].count = run->count;
                seen.runs[seen.run_count].epoch = run->epoch;
                seen.runs[seen.run_count++].attempt = run->attempt;
                seen.call_count += run->count;
            }
        }
    }
    return seen;
}

/* The last order for the pool, which must be there. */
static inline struct pool_order pool_order_of(const struct pool_seen *seen, uint64_t pool)
{
    for (uint32_t i = seen->order_count; i-- > 0;) {
        if (seen->orders[i].pool == pool) {
            return seen->orders[i];
        }
    }
    fail_msg("no order for pool %llu", (unsigned long long)pool);
    return (struct pool_order){0};
}

/* Children of the pool the worker is told to have by what left for it just now. */
static inline uint32_t pool_told(struct rig *rig, uint64_t conn, uint64_t pool)
{
    struct pool_seen seen = pool_look(rig, conn);
    return pool_order_of(&seen, pool).children;
}

struct pool_offer {
    uint32_t slots, children_max;
    const char *language; /* NULL: none */
    bool any_interpreter, draining;
    struct hp_list_run_ref runs;
};

/* Registers on a connection whose hello was said. */
static inline void pool_register(struct rig *rig, uint64_t conn, const struct pool_offer *offer)
{
    struct hp_str language = hp_str_of(offer->language != NULL ? offer->language : "");
    struct hp_msg_worker_register msg = {
        .has = HP_HAS_WORKER_REGISTER_LANGUAGES | HP_HAS_WORKER_REGISTER_ANY_INTERPRETER |
               HP_HAS_WORKER_REGISTER_CHILDREN_MAX | HP_HAS_WORKER_REGISTER_RUNS |
               HP_HAS_WORKER_REGISTER_DRAINING | HP_HAS_WORKER_REGISTER_PREFETCH_MAX,
        .host = HP_STR("somehost"),
        .pid = 1,
        .slots = offer->slots,
        .prefetch_max = 1000,
        .draining = offer->draining,
        .languages = {.items = &language, .count = offer->language != NULL ? 1 : 0},
        .any_interpreter = offer->any_interpreter,
        .children_max = offer->children_max,
        .runs = offer->runs};
    rig_begin(rig);
    (void)RIG_CALL(rig, conn, WORKER_REGISTER, worker_register, &msg);
    rig_end(rig);
    rig_settle(rig);
}

static inline void pool_worker(struct rig *rig, uint64_t conn, const char *node, uint32_t slots)
{
    struct pool_offer offer = {.slots = slots, .language = "python3.11"};
    rig_hello(rig, conn, NULL, node);
    pool_register(rig, conn, &offer);
}

static inline struct hp_st_task_options pool_options(uint32_t processes)
{
    struct hp_st_task_options options;
    hp_st_task_options_init(&options);
    options.kind = HP_TASK_KIND_POOL;
    options.language = HP_STR("python3.11");
    options.processes = processes;
    options.has = HP_HAS_ST_TASK_OPTIONS_KIND | HP_HAS_ST_TASK_OPTIONS_LANGUAGE |
                  HP_HAS_ST_TASK_OPTIONS_PROCESSES;
    return options;
}

static inline struct hp_st_task_options call_options(uint64_t pool)
{
    struct hp_st_task_options options;
    hp_st_task_options_init(&options);
    options.kind = HP_TASK_KIND_CALL;
    options.pool = pool;
    options.has = HP_HAS_ST_TASK_OPTIONS_KIND | HP_HAS_ST_TASK_OPTIONS_POOL;
    return options;
}

/* An open pool of client connection 1; number 0: none. */
static inline uint64_t pool_open(struct rig *rig, uint64_t number, uint32_t processes)
{
    struct hp_st_task_options options = pool_options(processes);
    uint64_t id = rig_submitted(rig, 1, number, &options, 1, NULL);
    assert_int_not_equal(id, 0);
    return id;
}

static inline uint64_t pool_calls(struct rig *rig, uint64_t number, uint64_t pool, uint32_t count)
{
    struct hp_st_task_options options = call_options(pool);
    uint64_t first = rig_submitted(rig, 1, number, &options, count, NULL);
    assert_int_not_equal(first, 0);
    return first;
}

static inline void pool_report(struct rig *rig, uint64_t conn, uint64_t pool, uint32_t up,
                               uint32_t failures, const char *error)
{
    uint64_t pids[SEEN_MAX];
    for (uint32_t i = 0; i < up; i++) {
        pids[i] = conn * 1000 + i;
    }
    struct hp_st_pool_report report = {.has = HP_HAS_ST_POOL_REPORT_PIDS |
                                              HP_HAS_ST_POOL_REPORT_FAILURES,
                                       .pool = pool,
                                       .pids = {.items = pids, .count = up},
                                       .failures = failures};
    if (error != NULL) {
        report.error = hp_str_of(error);
        report.has |= HP_HAS_ST_POOL_REPORT_ERROR;
    }
    struct hp_msg_worker_pool_report msg = {.has = HP_HAS_WORKER_POOL_REPORT_POOLS,
                                            .pools = {.items = &report, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, conn, WORKER_POOL_REPORT, worker_pool_report, &msg);
    rig_end(rig);
    rig_settle(rig);
}

/* The reply to a call, whose error code is in *ret_code if it failed (then false). */
static inline bool pool_reply(struct rig *rig, uint64_t conn, uint32_t msgid, struct hp_rpc *ret,
                              enum hp_rpc_error_code *ret_code)
{
    rig_settle(rig);
    while (rig_next(rig, conn, ret)) {
        if (ret->type == HP_RPC_RESPONSE && ret->msgid == msgid) {
            if (ret->failed && ret_code != NULL) {
                *ret_code = ret->failure.code;
            }
            return !ret->failed;
        }
    }
    fail_msg("%s", "no reply");
    return false;
}

/* False: refused, with *ret_code. */
static inline bool pool_info_of(struct rig *rig, uint64_t conn, uint64_t pool,
                                struct hp_msg_pool_info_reply *ret,
                                enum hp_rpc_error_code *ret_code)
{
    struct hp_msg_pool_info msg = {.pool = pool};
    struct hp_rpc rpc;
    struct hp_error error;
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, conn, POOL_INFO, pool_info, &msg);
    rig_end(rig);
    if (!pool_reply(rig, conn, msgid, &rpc, ret_code)) {
        return false;
    }
    assert_ok(hp_msg_pool_info_reply_decode(rpc.result, &rig->arena, ret, &error));
    return true;
}

static inline enum hp_pool_state pool_state(struct rig *rig, uint64_t conn, uint64_t pool)
{
    struct hp_msg_pool_info_reply info;
    assert_true(pool_info_of(rig, conn, pool, &info, NULL));
    return info.state;
}

static inline enum hp_pool_state pool_end(struct rig *rig, uint64_t conn, uint64_t pool,
                                          enum hp_pool_end how)
{
    struct hp_msg_pool_end msg = {.has = HP_HAS_POOL_END_HOW, .pool = pool, .how = how};
    struct hp_msg_pool_end_reply reply;
    struct hp_rpc rpc;
    struct hp_error error;
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, conn, POOL_END, pool_end, &msg);
    rig_end(rig);
    assert_true(pool_reply(rig, conn, msgid, &rpc, NULL));
    assert_ok(hp_msg_pool_end_reply_decode(rpc.result, &rig->arena, &reply, &error));
    return reply.state;
}

/* Lets time pass in steps, so that workers' leases are kept by heartbeats of `workers`. */
static inline void pool_pass(struct rig *rig, uint64_t ms, const uint64_t *workers, uint32_t count,
                             const struct hp_list_run_ref *runs)
{
    for (uint64_t at = 0; at < ms; at += WAIT_STEP_MS) {
        rig_pass(rig, WAIT_STEP_MS);
        for (uint32_t i = 0; i < count; i++) {
            struct hp_msg_worker_heartbeat beat = {0};
            if (runs != NULL) {
                beat.has = HP_HAS_WORKER_HEARTBEAT_RUNS;
                beat.runs = runs[i];
            }
            rig_begin(rig);
            (void)RIG_CALL(rig, workers[i], WORKER_HEARTBEAT, worker_heartbeat, &beat);
            rig_end(rig);
            rig_settle(rig);
        }
    }
}

static inline void pool_disconnect(struct rig *rig, uint64_t conn)
{
    rig_begin(rig);
    rig_disconnect(rig, conn);
    rig_end(rig);
    rig_settle(rig);
}

#endif
