/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What must hold, whatever fails. It knows only what was asked and answered, what became durable,
 * and what ran; so it cannot share an error with the core. The rules, and who asserts each:
 *
 *  R1  what is acknowledged is durable, and one task for ever        audit_acked, bind
 *  R2  it keeps its payload, and work that is submitted again        bind (at the commit, the
 *      is the same task                                              acknowledgement, each start)
 *  R3  ids are never given out twice                                 audit_group
 *  R4  one recorded result, which never changes                      audit_result, audit_stored
 *  R5  it is of the latest attempt, which had a lease and succeeded  audit_result
 *  R6  attempts and epochs of a task only grow, by one lease each    audit_lease
 *  R7  nothing starts before its lease is durable (but eager ones)   audit_start
 *  R8  no attempt starts twice; attempts do not overlap              audit_start
 *  R9  at-most-once: one start, over all attempts and restarts       audit_start
 *  R10 no dispatch after a cancel, no start after the end            audit_lease, check_not_over
 *  R11 each attempt is explained: failures + losses + releases       audit_returned, audit_result
 *  R12 failures and losses stay in their budgets                     check_budget
 *  R13 nothing starts before its time; what expires was asked to     check_time, audit_result
 *  R14 concurrency keys keep their limit; unique keys have one task  audit_committed, audit_ukey
 *  R15 a worker runs no more than its slots                          audit_start
 *  R16 pools: calls of live pools, states go forward, ends last      audit_group, audit_pool,
 *                                                                    audit_result
 *  R17 users are told the durable truth, with the right bytes        audit_told
 *  R18 the store holds exactly what was committed: each task         audit_stored, with
 *      there, in its state; accepted = sum over states               sim_broker_final
 *  R19 after the last fault all ends, in bounded time                world.c wait_for_ends,
 *                                                                    audit_final
 *  R20 nothing runs at the end; all attempts, leases, timers,        audit_final, sim_node_final,
 *      spool records, outstanding calls are gone                     sim_broker_final,
 *                                                                    sim_user_final
 *  R21 no slot idles while something that fits waits                 broker.c check_idle
 *  R22 slots in use = live leases, and all indices agree             hp_core_check,
 *                                                                    hp_agent_check
 *  R23 peers speak the protocol, and the broker accepts it           feed_frame, sim_user_pump
 *
 *  R24 a task's blobs are whole on the disk before it names them,    broker_blob.c, audit_payloads,
 *      and have the bytes that were sent, wherever they are read     sim_node_add_run, read_result
 *
 * Not to be seen here: the audit trail.
 */
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/idmap.h"
#include "common/base/mem.h"
#include "tests/sim/sim.h"

enum { STATE_DONE = 9, STATE_FAILED = 10, STATE_CANCELLED = 11, STATE_EXPIRED = 12 };
enum { STARTS_MAX = 64 };

/* One attempt that ran. */
struct start {
    uint32_t attempt, node;
    uint64_t epoch;
    bool running, ok, slot;
};

struct task {
    uint64_t id, wid;
    const struct audit_spec *spec; /* NULL: not known yet */
    bool durable, acked, live, cancelling, forced, final;
    uint32_t attempt; /* highest with a durable lease */
    uint64_t epoch;   /* of it */
    uint32_t leases;
    uint32_t failures, losses, releases; /* as last written */
    uint32_t state, reason, result_attempt;
    struct start starts[STARTS_MAX];
    uint32_t start_count;
    bool is_pool, told, stored;
    uint64_t pool;       /* of a call; else 0 */
    uint32_t pool_state; /* as last written */
    uint32_t pool_live;  /* durable calls that have not ended */
};

struct want {
    struct audit_spec spec;
    uint64_t id; /* 0: not known */
};

struct sim_audit {
    struct hp_idmap tasks; /* id -> struct task */
    struct hp_idmap wants; /* wid -> struct want */
    uint64_t *acked;       /* ids, for those who want any */
    uint32_t acked_count, acked_capacity;
    uint32_t ckey_live[SIM_KEYS];
    uint64_t ukey_holder[SIM_KEYS];
    uint64_t told, durable_count, final_count;
    uint64_t *pools; /* ids that were acknowledged */
    uint32_t pool_count, pool_capacity;
    uint32_t running[SIM_NODES_MAX]; /* without calls of pools */
};

void audit_new(struct sim *sim)
{
    sim->audit = sim_alloc(sizeof(*sim->audit));
    hp_idmap_init(&sim->audit->tasks, 1);
    hp_idmap_init(&sim->audit->wants, 1);
}

static void free_all(struct hp_idmap *map)
{
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_idmap_next(map, &iter, NULL, &value)) {
        hp_free((void *)(uintptr_t)value);
    }
    hp_idmap_deinit(map);
}

void audit_free(struct sim *sim)
{
    free_all(&sim->audit->tasks);
    free_all(&sim->audit->wants);
    hp_free(sim->audit->acked);
    hp_free(sim->audit->pools);
    hp_free(sim->audit);
}

#define ID(task) ((unsigned long long)(task)->id)

static struct task *task_of(struct sim *sim, uint64_t id)
{
    struct task *task = hp_idmap_find_ptr(&sim->audit->tasks, id);
    if (task == NULL) {
        task = sim_alloc(sizeof(*task));
        task->id = id;
        HP_ASSERT(hp_idmap_put_ptr(&sim->audit->tasks, id, task) == HP_OK);
    }
    return task;
}

static struct want *want_of(struct sim *sim, uint64_t wid)
{
    struct want *want = hp_idmap_find_ptr(&sim->audit->wants, wid);
    SIM_RULE(sim, want != NULL, "work item %llu was never asked for", (unsigned long long)wid);
    return want;
}

void audit_asked(struct sim *sim, uint64_t wid, uint32_t count, const struct audit_spec *spec)
{
    for (uint32_t i = 0; i < count; i++) {
        struct want *want = sim_alloc(sizeof(*want));
        want->spec = *spec;
        HP_ASSERT(hp_idmap_put_ptr(&sim->audit->wants, wid + i, want) == HP_OK);
    }
}

/* The task of a piece of work: one, for ever. */
static void bind(struct sim *sim, struct task *task, uint64_t wid)
{
    struct want *want = want_of(sim, wid);
    SIM_RULE(sim, want->id == 0 || want->id == task->id,
             "work item %llu became two tasks, %llu and %llu", (unsigned long long)wid,
             (unsigned long long)want->id, ID(task));
    SIM_RULE(sim, task->wid == 0 || task->wid == wid, "task %llu has two payloads, %llu and %llu",
             ID(task), (unsigned long long)task->wid, (unsigned long long)wid);
    bool counted = task->spec != NULL;
    task->wid = wid;
    task->spec = &want->spec;
    want->id = task->id;
    if (!counted && task->live && task->spec->ckey > 0) {
        sim->audit->ckey_live[task->spec->ckey - 1]++;
    }
}

static void add_pool(struct sim_audit *audit, uint64_t id)
{
    if (audit->pool_count == audit->pool_capacity) {
        audit->pool_capacity = audit->pool_capacity == 0 ? 64 : audit->pool_capacity * 2;
        audit->pools = hp_realloc_array(audit->pools, audit->pool_capacity, sizeof(*audit->pools));
        HP_ASSERT(audit->pools != NULL);
    }
    audit->pools[audit->pool_count++] = id;
}

uint64_t audit_some_pool(struct sim *sim)
{
    uint32_t count = sim->audit->pool_count;
    if (count == 0) {
        return 0;
    }
    uint32_t back = (uint32_t)sim_pick(sim, 1, sim_percent(sim, 90) ? 4 : count);
    return sim->audit->pools[back > count ? 0 : count - back];
}

uint64_t audit_next_pool(struct sim *sim, uint64_t after)
{
    uint64_t best = 0;
    for (uint32_t i = 0; i < sim->audit->pool_count; i++) {
        uint64_t id = sim->audit->pools[i];
        if (id > after && (best == 0 || id < best) && !task_of(sim, id)->final) {
            best = id;
        }
    }
    return best;
}

bool audit_is_in_memory(struct sim *sim, uint64_t wid)
{
    return want_of(sim, wid)->spec.in_memory;
}

bool audit_is_task_in_memory(struct sim *sim, uint64_t id)
{
    const struct audit_spec *spec = task_of(sim, id)->spec;
    return spec != NULL && spec->in_memory;
}

bool audit_is_pool(struct sim *sim, uint64_t id)
{
    return task_of(sim, id)->is_pool;
}

void audit_acked(struct sim *sim, uint64_t wid, uint32_t count, uint64_t first, bool joined)
{
    struct sim_audit *audit = sim->audit;
    for (uint32_t i = 0; i < count; i++) {
        struct task *task = task_of(sim, first + i);
        bool in_memory = want_of(sim, wid + i)->spec.in_memory;
        SIM_RULE(sim, task->durable != in_memory,
                 "task %llu was acknowledged: is it durable? It should%s be", ID(task),
                 in_memory ? " not" : "");
        if (!joined) {
            bind(sim, task, wid + i);
        }
        task->acked = true;
        if (task->is_pool) {
            add_pool(audit, task->id);
        }
        if (audit->acked_count == audit->acked_capacity) {
            audit->acked_capacity = audit->acked_capacity == 0 ? 256 : audit->acked_capacity * 2;
            audit->acked =
                hp_realloc_array(audit->acked, audit->acked_capacity, sizeof(*audit->acked));
            HP_ASSERT(audit->acked != NULL);
        }
        audit->acked[audit->acked_count++] = task->id;
    }
}

uint64_t audit_some_id(struct sim *sim)
{
    uint32_t count = sim->audit->acked_count;
    if (count == 0) {
        return 0;
    }
    uint32_t back = (uint32_t)sim_pick(sim, 1, sim_percent(sim, 70) ? 20 : count);
    return sim->audit->acked[back > count ? 0 : count - back];
}

/* ------------------------------------------------ what became durable */
void audit_ukey(struct sim *sim, uint32_t key, uint64_t id)
{
    HP_ASSERT(key < SIM_KEYS);
    uint64_t holder = sim->audit->ukey_holder[key];
    SIM_RULE(sim, holder == 0 || task_of(sim, holder)->final,
             "unique key %u went to task %llu, and task %llu lives", key, (unsigned long long)id,
             (unsigned long long)holder);
    sim->audit->ukey_holder[key] = id;
}

void audit_pool(struct sim *sim, uint64_t id, uint32_t state)
{
    struct task *task = task_of(sim, id);
    SIM_RULE(sim, task->durable && !task->final, "pool %llu changes, and does not live", ID(task));
    SIM_RULE(sim, state >= task->pool_state, "pool %llu went back from state %u to %u", ID(task),
             task->pool_state, state);
    task->is_pool = true;
    task->pool_state = state;
}

void audit_group(struct sim *sim, uint64_t first, uint32_t count, uint64_t pool)
{
    if (pool != 0) {
        struct task *of = task_of(sim, pool);
        SIM_RULE(sim, of->is_pool && !of->final, "calls %llu.. are of %llu, which is no live pool",
                 (unsigned long long)first, ID(of));
        of->pool_live += count;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct task *task = task_of(sim, first + i);
        SIM_RULE(sim, !task->durable, "id %llu was given out twice", ID(task));
        task->pool = pool;
        task->durable = true;
        sim->audit->durable_count++;
    }
}

void audit_payload(struct sim *sim, uint64_t id, uint64_t wid)
{
    bind(sim, task_of(sim, id), wid);
}

static void set_live(struct sim *sim, struct task *task, bool live)
{
    if (task->live == live) {
        return;
    }
    task->live = live;
    if (task->spec != NULL && task->spec->ckey > 0) {
        uint32_t *count = &sim->audit->ckey_live[task->spec->ckey - 1];
        *count = live ? *count + 1 : *count - 1;
    }
}

void audit_lease(struct sim *sim, uint64_t id, uint32_t attempt, uint64_t epoch, uint32_t node)
{
    struct task *task = task_of(sim, id);
    sim_note(sim, "lease", id, attempt, epoch, node);
    SIM_RULE(sim, task->durable, "task %llu was leased before it was there", ID(task));
    SIM_RULE(sim, !task->final, "task %llu was dispatched after its end", ID(task));
    SIM_RULE(sim, !task->cancelling, "task %llu was dispatched after its cancel", ID(task));
    SIM_RULE(sim, !task->live, "task %llu was dispatched while attempt %u is live", ID(task),
             task->attempt);
    SIM_RULE(sim, attempt == task->attempt + 1, "task %llu: attempt %u follows %u", ID(task),
             attempt, task->attempt);
    SIM_RULE(sim, epoch >= task->epoch, "task %llu: epoch %llu follows %llu", ID(task),
             (unsigned long long)epoch, (unsigned long long)task->epoch);
    task->attempt = attempt;
    task->epoch = epoch;
    task->leases++;
    set_live(sim, task, true);
}

/* Its worker still runs that attempt, or has ended it with success, and it does not count. */
static bool is_taken(const struct task *task, uint32_t attempt, uint64_t epoch)
{
    for (uint32_t i = 0; i < task->start_count; i++) {
        const struct start *start = &task->starts[i];
        if (start->attempt == attempt && start->epoch == epoch) {
            return start->running || start->ok;
        }
    }
    return false;
}

void audit_returned(struct sim *sim, uint64_t id, uint32_t attempt, uint32_t failures,
                    uint32_t losses, uint32_t releases)
{
    struct task *task = task_of(sim, id);
    sim_note(sim, "returned", id, attempt, failures, losses);
    SIM_RULE(sim, !task->final && !task->cancelling, "task %llu came back after its end or cancel",
             ID(task));
    SIM_RULE(sim, attempt == task->attempt, "task %llu: attempt %u came back, the latest is %u",
             ID(task), attempt, task->attempt);
    SIM_RULE(sim,
             failures >= task->failures && losses >= task->losses && releases >= task->releases,
             "task %llu: its counts went back", ID(task));
    SIM_RULE(sim, attempt == failures + losses + releases,
             "task %llu: %u attempts are not explained by %u failures, %u losses, %u releases",
             ID(task), attempt, failures, losses, releases);
    sim->figures.taken += is_taken(task, attempt, task->epoch);
    task->failures = failures;
    task->losses = losses;
    task->releases = releases;
    set_live(sim, task, false);
}

void audit_cancelling(struct sim *sim, uint64_t id, bool is_forced)
{
    struct task *task = task_of(sim, id);
    sim_note(sim, "cancelling", id, task->attempt, 0, 0);
    SIM_RULE(sim, task->live && !task->final, "task %llu is cancelling, and does not run",
             ID(task));
    SIM_RULE(sim, is_forced || !task->forced, "the forced cancel of task %llu became a soft one",
             ID(task));
    task->cancelling = true;
    task->forced = is_forced;
}

static const struct start *start_of(const struct task *task, uint32_t attempt)
{
    for (uint32_t i = task->start_count; i > 0; i--) {
        if (task->starts[i - 1].attempt == attempt) {
            return &task->starts[i - 1];
        }
    }
    return NULL;
}

static void check_budget(struct sim *sim, const struct task *task, uint32_t failures,
                         uint32_t losses)
{
    const struct audit_spec *spec = task->spec;
    if (spec == NULL) {
        return;
    }
    /* One count for both kinds; the death of a child that ends the task is in it, too. */
    uint32_t most = 1 + HP_MAX(spec->max_losses, spec->child_losses);
    SIM_RULE(sim, failures <= spec->max_retries + 1 && losses <= most,
             "task %llu: %u failures and %u losses are over its budgets", ID(task), failures,
             losses);
}

void audit_result(struct sim *sim, uint64_t first, uint32_t count, uint32_t state, uint32_t reason,
                  uint32_t attempt, uint32_t failures, uint32_t losses)
{
    sim_note(sim, "result", first, count, state, (uint64_t)reason << 32 | attempt);
    for (uint32_t i = 0; i < count; i++) {
        struct task *task = task_of(sim, first + i);
        SIM_RULE(sim, task->durable, "task %llu ended and was never there", ID(task));
        SIM_RULE(sim, !task->final, "task %llu ended twice: state %u, then %u", ID(task),
                 task->state, state);
        SIM_RULE(sim, attempt == task->attempt || task->is_pool,
                 "task %llu: the result is of attempt %u, the latest is %u", ID(task), attempt,
                 task->attempt);
        SIM_RULE(sim, !task->is_pool || task->pool_live == 0,
                 "pool %llu ended before %u of its calls", ID(task), task->pool_live);
        if (task->pool != 0) {
            task_of(sim, task->pool)->pool_live--;
        }
        SIM_RULE(sim, failures >= task->failures && losses >= task->losses,
                 "task %llu: its counts went back at the end", ID(task));
        SIM_RULE(sim, attempt <= failures + losses + task->releases + 1 || task->is_pool,
                 "task %llu: %u attempts are not explained by %u failures, %u losses, %u releases",
                 ID(task), attempt, failures, losses, task->releases);
        SIM_RULE(sim, state != STATE_EXPIRED || task->spec == NULL || task->spec->may_expire,
                 "task %llu expired, and was not asked to", ID(task));
        SIM_RULE(sim,
                 !task->cancelling || state == STATE_CANCELLED ||
                     (state == STATE_DONE && !task->forced),
                 "task %llu was cancelled and ended in state %u", ID(task), state);
        const struct start *start = start_of(task, attempt);
        SIM_RULE(sim, state != STATE_DONE || (start != NULL && start->ok) || task->is_pool,
                 "task %llu is done, but attempt %u did not succeed", ID(task), attempt);
        SIM_RULE(sim, state != STATE_DONE || task->live || task->is_pool,
                 "task %llu is done without a lease", ID(task));
        check_budget(sim, task, failures, losses);
        sim->figures.taken += state == STATE_FAILED && is_taken(task, attempt, task->epoch);
        task->final = true;
        sim->audit->final_count++;
        sim->progress++;
        task->state = state;
        task->reason = reason;
        task->result_attempt = attempt;
        set_live(sim, task, false);
    }
}

void audit_committed(struct sim *sim)
{
    for (uint32_t i = 0; i < SIM_KEYS; i++) {
        SIM_RULE(sim, sim->audit->ckey_live[i] <= sim->plan.ckey_max[i],
                 "concurrency key %u: %u run, %u may", i, sim->audit->ckey_live[i],
                 sim->plan.ckey_max[i]);
    }
}

void audit_restarted(struct sim *sim)
{
    sim_note(sim, "forgotten", 0, 0, 0, 0);
}

/* ------------------------------------------------ what ran */
/* The time has come which it was to wait for; times are kept on the wall clock, so a clock that is
 * set ahead brings all of them nearer. */
static void check_time(struct sim *sim, const struct task *task, uint32_t attempt)
{
    const struct audit_spec *spec = task->spec;
    if (spec == NULL) {
        return;
    }
    uint64_t waited_ms = sim_ms(sim) - spec->asked_ms + sim->wall_ahead_ms - spec->asked_ahead_ms;
    SIM_RULE(sim, waited_ms >= spec->delay_ms,
             "task %llu: attempt %u started after %llu ms, not %llu", ID(task), attempt,
             (unsigned long long)waited_ms, (unsigned long long)spec->delay_ms);
    SIM_RULE(sim, HP_MAX(sim_wall_ms(sim), sim->wall_most_ms) >= spec->run_at_ms,
             "task %llu: attempt %u started before its time", ID(task), attempt);
}

/* An assignment may be on its way when its task is cancelled; but no later attempt follows. */
static void check_not_over(struct sim *sim, const struct task *task, uint32_t attempt,
                           uint64_t epoch)
{
    bool is_old = attempt <= task->result_attempt || (attempt == 1 && epoch != task->epoch);
    SIM_RULE(sim, !task->final || is_old || !task->durable,
             "task %llu: attempt %u started, and it had ended with attempt %u", ID(task), attempt,
             task->result_attempt);
}

/* Returns true if the attempt takes a slot: calls of pools have their children. */
static bool takes_slot(const struct task *task)
{
    return task->pool == 0 && (task->spec == NULL || !task->spec->call);
}

void audit_start(struct sim *sim, uint32_t node, uint64_t id, uint32_t attempt, uint64_t epoch,
                 uint64_t wid)
{
    struct task *task = task_of(sim, id);
    sim_note(sim, "start", id, attempt, epoch, (uint64_t)node << 32 | (wid & UINT32_MAX));
    sim->figures.starts++;
    sim->progress++;
    if (wid != 0) {
        struct want *want = want_of(sim, wid);
        /* An eager dispatch, or one in memory, whose submit a crash lost: the work comes again
         * under another id. */
        if (task->durable) {
            bind(sim, task, wid);
        } else if (task->spec == NULL) {
            task->spec = &want->spec;
        }
    }
    bool eager = task->attempt < attempt || (task->attempt == attempt && task->epoch != epoch);
    eager = eager && (task->spec == NULL || !task->spec->in_memory);
    SIM_RULE(sim, !eager || (attempt == 1 && sim->plan.eager),
             "task %llu: attempt %u started before its lease was durable", ID(task), attempt);
    if (task->spec != NULL) {
        SIM_RULE(sim, !task->spec->at_most_once || task->start_count == 0,
                 "task %llu may start once, and started again (attempt %u)", ID(task), attempt);
        SIM_RULE(sim, !eager || (task->spec->function && !task->spec->at_most_once),
                 "task %llu must not start before its lease is durable", ID(task));
    }
    for (uint32_t i = 0; i < task->start_count; i++) {
        const struct start *other = &task->starts[i];
        SIM_RULE(sim, other->attempt != attempt || other->epoch != epoch,
                 "task %llu: attempt %u started twice", ID(task), attempt);
        SIM_RULE(sim, !other->running || (task->spec != NULL && !task->spec->kill_on_partition),
                 "task %llu: attempt %u on node %u overlaps attempt %u on node %u", ID(task),
                 attempt, node, other->attempt, other->node);
    }
    SIM_RULE(sim, task->start_count < STARTS_MAX, "task %llu started too often", ID(task));
    check_time(sim, task, attempt);
    check_not_over(sim, task, attempt, epoch);
    if (takes_slot(task)) {
        sim->audit->running[node]++;
        SIM_RULE(sim, sim->audit->running[node] <= sim_node_slots(sim, node),
                 "node %u runs more than its slots", node);
    }
    task->starts[task->start_count++] = (struct start){.attempt = attempt,
                                                       .node = node,
                                                       .epoch = epoch,
                                                       .running = true,
                                                       .slot = takes_slot(task)};
}

void audit_end(struct sim *sim, uint32_t node, uint64_t id, uint32_t attempt, uint64_t epoch,
               bool ok)
{
    struct task *task = task_of(sim, id);
    sim_note(sim, "end", id, attempt, epoch, (uint64_t)node << 32 | ok);
    for (uint32_t i = 0; i < task->start_count; i++) {
        struct start *start = &task->starts[i];
        if (start->attempt == attempt && start->epoch == epoch && start->running) {
            start->running = false;
            start->ok = ok;
            sim->audit->running[start->node] -= start->slot;
            return;
        }
    }
    sim_fail(sim, "task %llu: attempt %u ended and did not run", ID(task), attempt);
}

/* ------------------------------------------------ what was told */
void audit_told(struct sim *sim, uint64_t id, uint32_t state, uint64_t result_id,
                uint32_t result_attempt, bool has_result)
{
    struct task *task = task_of(sim, id);
    sim->audit->told++;
    bool in_memory = task->spec != NULL && task->spec->in_memory;
    if (in_memory) { /* what a restart forgot is told as not known */
        SIM_RULE(sim, state >= STATE_DONE, "task %llu: told state %u as its end", ID(task), state);
        SIM_RULE(sim, !task->told, "task %llu: its end was told twice", ID(task));
        task->told = true;
    }
    SIM_RULE(sim, task->final || in_memory,
             "a user was told the end of task %llu before it was durable", ID(task));
    SIM_RULE(sim, task->state == state || in_memory,
             "task %llu ended in state %u, a user was told %u", ID(task), task->state, state);
    SIM_RULE(sim, state != STATE_DONE || !has_result || result_id == id,
             "task %llu got the result of task %llu", ID(task), (unsigned long long)result_id);
    const struct start *start = start_of(task, result_attempt);
    SIM_RULE(sim, !in_memory || state != STATE_DONE || (start != NULL && start->ok),
             "task %llu is done, but attempt %u did not succeed", ID(task), result_attempt);
    SIM_RULE(sim,
             state != STATE_DONE || !has_result || result_attempt == task->result_attempt ||
                 in_memory,
             "task %llu: the bytes are of attempt %u, the result of %u", ID(task), result_attempt,
             task->result_attempt);
}

void audit_dump(struct sim *sim, uint64_t id)
{
    const struct task *task = task_of(sim, id);
    (void)fprintf(stderr,
                  "task %llu wid=%llu durable=%d acked=%d live=%d cancelling=%d final=%d state=%u "
                  "attempt=%u starts=%u\n",
                  ID(task), (unsigned long long)task->wid, task->durable, task->acked, task->live,
                  task->cancelling, task->final, task->state, task->attempt, task->start_count);
}

/* ------------------------------------------------ what is stored at the end */
uint32_t audit_ids(struct sim *sim, uint64_t *ret_ids, uint32_t max)
{
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    uint32_t count = 0;
    while (hp_idmap_next(&sim->audit->tasks, &iter, NULL, &value) && count < max) {
        struct task *task = (struct task *)(uintptr_t)value;
        if (task->durable && !task->stored) {
            ret_ids[count++] = task->id;
            task->stored = true;
        }
    }
    return count;
}

void audit_stored(struct sim *sim, uint64_t id, bool exists, uint32_t state, uint32_t attempt)
{
    const struct task *task = task_of(sim, id);
    SIM_RULE(sim, exists, "task %llu is durable, and not in the store", ID(task));
    SIM_RULE(sim, state == task->state && attempt == task->result_attempt,
             "task %llu ended in state %u with attempt %u, the store says %u, %u", ID(task),
             task->state, task->result_attempt, state, attempt);
}

uint64_t audit_next_far(struct sim *sim, uint64_t after)
{
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    uint64_t best = 0;
    while (hp_idmap_next(&sim->audit->tasks, &iter, NULL, &value)) {
        const struct task *task = (const struct task *)(uintptr_t)value;
        bool far = task->spec != NULL && task->spec->far;
        if (far && task->durable && !task->final && task->id > after &&
            (best == 0 || task->id < best)) {
            best = task->id;
        }
    }
    return best;
}

bool audit_is_over(const struct sim *sim)
{
    return sim->audit->durable_count == sim->audit->final_count;
}

void audit_final(struct sim *sim)
{
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    uint64_t waiting = 0;
    uint64_t first = 0;
    while (hp_idmap_next(&sim->audit->tasks, &iter, NULL, &value)) {
        const struct task *task = (const struct task *)(uintptr_t)value;
        if (task->durable && !task->final) {
            waiting++;
            first = first == 0 || task->id < first ? task->id : first;
        }
        for (uint32_t i = 0; i < task->start_count; i++) {
            SIM_RULE(sim, !task->starts[i].running, "task %llu: attempt %u still runs at the end",
                     ID(task), task->starts[i].attempt);
        }
    }
    if (waiting > 0) {
        audit_dump(sim, first);
        sim_broker_dump(sim);
    }
    SIM_RULE(sim, waiting == 0, "%llu tasks have not ended, the first is %llu",
             (unsigned long long)waiting, (unsigned long long)first);
    sim_note(sim, "final", hp_idmap_count(&sim->audit->tasks), sim->audit->told, 0, 0);
}
