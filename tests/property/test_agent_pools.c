/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The agent's pools against a random broker and random children: whatever the order of orders,
 * set-ups, deaths, waits, recalls, lost links and drains, the records agree after every step
 * (hp_agent_check); a child gets calls only while it is up and was not told to end, never more than
 * it may run, and a slot is used by one child at a time. Once the world is quiet each call was
 * answered for exactly once, each pool has the children it was ordered to have, and pools that have
 * ended leave none.
 */
#include <stdlib.h>

#include "tests/unit/agent_pool_fixture.h"

#define SEEDS 400
#define STEPS 400
#define CALLS_MAX 4096
#define POOLS 2u
#define CHILDREN 8u
#define CALLS_PER_CHILD 5u

enum child_state { NONE, STARTING, UP, STOPPING };

struct child {
    enum child_state state;
    uint64_t pool;
    uint32_t given;
    bool waits;
    bool was_set_up;
};

struct call {
    bool given;
    uint32_t child;
    uint64_t key;
    uint32_t order; /* in which calls were given out */
    uint32_t ends;
    uint32_t releases;
};

struct world {
    struct fx fx;
    struct hp_rand rand;
    struct child children[CHILDREN];
    struct call calls[CALLS_MAX]; /* by id */
    uint64_t next_id;
    uint32_t next_order;
    uint32_t targets[POOLS + 1]; /* by pool */
    size_t seen_from;
    bool linked;
    bool quiet;
};

static uint64_t roll(struct world *world, uint64_t n)
{
    return hp_rand_uniform(&world->rand, n);
}

/* --------------------------------------------------------------------------------- the children */

static void see_call(struct world *world, const struct fx_seen *seen)
{
    struct child *child = &world->children[seen->child - FXP_SLOTS];
    struct call *call = &world->calls[seen->id];
    assert_int_equal(child->state, UP);
    assert_false(child->waits);
    assert_false(call->given);
    child->given++;
    assert_true(child->pool != 1 || child->given <= CALLS_PER_CHILD);
    *call = (struct call){.given = true,
                          .child = seen->child - FXP_SLOTS,
                          .key = seen->key,
                          .order = world->next_order++,
                          .ends = call->ends,
                          .releases = call->releases};
}

static void see(struct world *world, const struct fx_seen *seen)
{
    if (seen->kind == HP_AGENT_CALL) {
        see_call(world, seen);
    } else if (seen->kind == HP_AGENT_CHILD_START) {
        assert_true(seen->child >= FXP_SLOTS && seen->child - FXP_SLOTS < CHILDREN);
        struct child *child = &world->children[seen->child - FXP_SLOTS];
        assert_int_equal(child->state, NONE);
        *child = (struct child){.state = STARTING, .pool = seen->pool};
    } else if (seen->kind == HP_AGENT_CHILD_STOP) {
        struct child *child = &world->children[seen->child - FXP_SLOTS];
        assert_int_not_equal(child->state, NONE);
        child->state = STOPPING;
    } else if (seen->kind == HP_AGENT_POOL_GONE) {
        for (uint32_t i = 0; i < CHILDREN; i++) {
            assert_true(world->children[i].state == NONE || world->children[i].pool != seen->pool);
        }
    }
}

static void look(struct world *world)
{
    fx_drain(&world->fx);
    for (; world->seen_from < world->fx.seen_count; world->seen_from++) {
        see(world, &world->fx.seen[world->seen_from]);
    }
    if (world->fx.seen_count > FX_SEEN_MAX / 2) {
        bool connecting = false;
        for (size_t i = world->fx.connect_from; i < world->fx.seen_count; i++) {
            connecting = connecting || world->fx.seen[i].kind == HP_AGENT_CONNECT;
        }
        world->fx.seen_count = 0;
        if (connecting) {
            world->fx.seen[world->fx.seen_count++] = (struct fx_seen){.kind = HP_AGENT_CONNECT};
        }
        world->seen_from = world->fx.seen_count;
        world->fx.connect_from = 0;
    }
}

static void event(struct world *world, struct hp_agent_event event)
{
    hp_agent_exec(world->fx.agent, &event, 1, world->fx.now);
    look(world);
}

/* The call of a child that runs (last: the one given last), or NULL. */
static struct call *call_of(struct world *world, uint32_t index, bool last)
{
    struct call *found = NULL;
    for (uint64_t id = 0; id < world->next_id; id++) {
        struct call *call = &world->calls[id];
        bool better = found == NULL || (call->order < found->order) != last;
        if (call->given && call->child == index && better) {
            found = call;
        }
    }
    return found;
}

static void hand_back(struct world *world, struct call *call)
{
    call->given = false;
    world->children[call->child].given--;
    event(world, (struct hp_agent_event){.kind = HP_AGENT_EXEC_HANDED_BACK, .key = call->key});
}

static void end_call(struct world *world, struct call *call, bool died)
{
    enum hp_agent_outcome outcome = roll(world, 5) == 0 ? HP_AGENT_OUTCOME_ERROR
                                                        : HP_AGENT_OUTCOME_OK;
    call->given = false;
    event(world, (struct hp_agent_event){
                     .kind = HP_AGENT_EXEC_RESULT,
                     .key = call->key,
                     .outcome = died ? HP_AGENT_OUTCOME_DIED : outcome,
                     .signal = died ? SIGKILL : 0,
                     .out = {.data = (const uint8_t *)"r", .size = 1},
                     .run_us = roll(world, 3000)});
}

static void child_goes(struct world *world, uint32_t index)
{
    struct child *child = &world->children[index];
    struct call *running = call_of(world, index, false);
    if (running != NULL) {
        end_call(world, running, true);
    }
    for (struct call *call; (call = call_of(world, index, true)) != NULL;) {
        hand_back(world, call);
    }
    bool init_failed = child->state == STARTING;
    bool recycled = child->state == STOPPING && running == NULL;
    *child = (struct child){0};
    event(world, (struct hp_agent_event){.kind = HP_AGENT_EXEC_CHILD_DOWN,
                                         .child = index + FXP_SLOTS,
                                         .gone = true,
                                         .init_failed = init_failed,
                                         .recycled = recycled,
                                         .error = HP_STR("no")});
}

/* Something happens to a child. `quiet`: only what is good. */
static void child_step(struct world *world, uint32_t index)
{
    struct child *child = &world->children[index];
    struct call *running = call_of(world, index, false);
    bool is_full = child->pool == 1 && child->given == CALLS_PER_CHILD;
    if (child->state == NONE) {
        return;
    }
    if (!world->quiet && roll(world, 8) == 0) {
        child_goes(world, index);
    } else if (child->state == STARTING) {
        child->state = UP;
        child->was_set_up = true;
        event(world, (struct hp_agent_event){.kind = HP_AGENT_EXEC_CHILD_UP,
                                             .child = index + FXP_SLOTS,
                                             .pid = 100 + index});
    } else if (running == NULL && (child->state == STOPPING || is_full)) {
        child_goes(world, index);
    } else if (child->waits || (running != NULL && !world->quiet && roll(world, 5) == 0)) {
        child->waits = !child->waits;
        event(world, (struct hp_agent_event){.kind = HP_AGENT_EXEC_CHILD_WAITS,
                                             .child = index + FXP_SLOTS,
                                             .on = child->waits});
    } else if (running != NULL && running != call_of(world, index, true) && !world->quiet &&
               roll(world, 4) == 0) {
        hand_back(world, call_of(world, index, true));
    } else if (running != NULL) {
        end_call(world, running, false);
    }
}

/* ----------------------------------------------------------------------------------- the broker */

static bool is_registered(struct world *world)
{
    return world->linked && fx_stats(&world->fx).registered;
}

static void order(struct world *world, uint64_t pool, uint32_t children, bool kill)
{
    world->targets[pool] = children;
    if (children == 0) {
        fxp_end(&world->fx, pool, kill);
    } else {
        struct hp_st_task_options options = fxp_options();
        options.calls_per_child = pool == 1 ? CALLS_PER_CHILD : 0;
        options.has |= HP_HAS_ST_TASK_OPTIONS_CALLS_PER_CHILD;
        fxp_order_with(&world->fx, pool, children, &options);
    }
    look(world);
}

static void assign(struct world *world)
{
    uint32_t count = 1 + (uint32_t)roll(world, 12);
    if (world->next_id + count >= CALLS_MAX) {
        return;
    }
    struct hp_st_task_options options = fxp_call(1 + roll(world, POOLS));
    options.hard_timeout_ms = roll(world, 4) == 0 ? 50 : 0;
    options.has |= HP_HAS_ST_TASK_OPTIONS_HARD_TIMEOUT_MS;
    uint64_t first = world->next_id;
    world->next_id += count;
    fx_assign(&world->fx, first, count, 1, &options);
    look(world);
}

/* The broker asks for some of the latest calls, wherever they are by now. */
static void recall(struct world *world)
{
    struct hp_st_run_ref refs[10];
    uint32_t count = 0;
    for (; count < HP_COUNT_OF(refs) && count + 1 < world->next_id; count++) {
        refs[count] = fx_ref(world->next_id - 1 - count, 1);
    }
    struct hp_msg_worker_control msg = {.has = HP_HAS_WORKER_CONTROL_RECALL_RUNS,
                                        .recall_runs = {.items = refs, .count = count}};
    fx_notify(&world->fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &msg);
    look(world);
}

/* After a registration all pools are named, and some are not, which ends them. */
static void name_all(struct world *world)
{
    for (uint64_t pool = 1; pool <= POOLS; pool++) {
        if (world->targets[pool] > 0 && roll(world, 4) > 0) {
            order(world, pool, world->targets[pool], false);
        } else {
            world->targets[pool] = 0;
        }
    }
    fxp_send(&world->fx, NULL, true);
    look(world);
}

static void take_done(struct world *world, uint32_t msgid)
{
    struct hp_msg_worker_done done;
    assert_int_equal(hp_msg_worker_done_decode(world->fx.rpc.params, &world->fx.arena, &done, NULL),
                     HP_OK);
    for (uint32_t i = 0; i < done.items.count; i++) {
        world->calls[done.items.items[i].id].ends++;
    }
    struct hp_msg_worker_done_reply reply = {0};
    fx_reply(&world->fx, msgid, &hp_desc_msg_worker_done_reply, &reply);
}

static void take_release(struct world *world, uint32_t msgid)
{
    struct hp_msg_worker_release release;
    assert_int_equal(
        hp_msg_worker_release_decode(world->fx.rpc.params, &world->fx.arena, &release, NULL),
        HP_OK);
    for (uint32_t i = 0; i < release.runs.count; i++) {
        world->calls[release.runs.items[i].id].releases++;
    }
    struct hp_msg_worker_release_reply reply = {0};
    fx_reply(&world->fx, msgid, &hp_desc_msg_worker_release_reply, &reply);
}

static void answer(struct world *world)
{
    while (world->linked && fx_next(&world->fx)) {
        uint32_t msgid = world->fx.rpc.msgid;
        if (world->fx.rpc.type != HP_RPC_REQUEST) {
            continue;
        }
        if (world->fx.rpc.method == HP_METHOD_WORKER_DONE) {
            take_done(world, msgid);
        } else if (world->fx.rpc.method == HP_METHOD_WORKER_RELEASE) {
            take_release(world, msgid);
        } else if (world->fx.rpc.method == HP_METHOD_WORKER_HEARTBEAT) {
            struct hp_msg_worker_heartbeat_reply reply = {.lease_ms = FX_LEASE_MS};
            fx_reply(&world->fx, msgid, &hp_desc_msg_worker_heartbeat_reply, &reply);
        } else {
            assert_int_equal(world->fx.rpc.method, HP_METHOD_WORKER_REGISTER);
            struct hp_msg_worker_register_reply reply = {.lease_ms = FX_LEASE_MS,
                                                         .heartbeat_ms = FX_HEARTBEAT_MS};
            fx_reply(&world->fx, msgid, &hp_desc_msg_worker_register_reply, &reply);
            name_all(world);
        }
        look(world);
    }
}

static void link_up(struct world *world)
{
    if (!world->linked) {
        fx_connect(&world->fx);
        fx_answer_hello(&world->fx, 1);
        world->linked = true;
        look(world);
    }
}

/* ------------------------------------------------------------------------------------- the runs */

static void step(struct world *world)
{
    switch (roll(world, 14)) {
    case 0:
        link_up(world);
        break;
    case 1:
        if (world->linked && roll(world, 8) == 0) {
            hp_agent_disconnected(world->fx.agent, "reset", world->fx.now);
            world->linked = false;
            look(world);
        }
        break;
    case 2:
    case 3:
        if (is_registered(world)) {
            assign(world);
        }
        break;
    case 4:
        if (is_registered(world)) {
            order(world, 1 + roll(world, POOLS), (uint32_t)roll(world, 5), roll(world, 2) == 0);
            recall(world);
        }
        break;
    case 5:
        fx_tick(&world->fx, roll(world, 3000));
        look(world);
        break;
    case 6:
        fx_tick(&world->fx, roll(world, 30));
        look(world);
        break;
    case 7:
    case 8:
        answer(world);
        break;
    default:
        child_step(world, (uint32_t)roll(world, CHILDREN));
        break;
    }
    world->linked = world->linked && fx_stats(&world->fx).connected;
}

static uint32_t count_up(const struct world *world, uint64_t pool)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < CHILDREN; i++) {
        count += world->children[i].state == UP && world->children[i].pool == pool;
    }
    return count;
}

static bool is_settled(struct world *world)
{
    bool is = is_registered(world) && fx_stats(&world->fx).held == 0;
    for (uint64_t pool = 1; pool <= POOLS; pool++) {
        is = is && count_up(world, pool) == world->targets[pool];
    }
    return is;
}

/* All that was begun ends well; each pool has its children, then pools are ended. */
static void calm(struct world *world)
{
    world->quiet = true;
    for (int i = 0; i < 4000 && !is_settled(world); i++) {
        link_up(world);
        answer(world);
        child_step(world, (uint32_t)roll(world, CHILDREN));
        fx_tick(&world->fx, 5);
        look(world);
        world->linked = world->linked && fx_stats(&world->fx).connected;
    }
}

static void every_call_and_child_is_accounted_for(void **state)
{
    (void)state;
    struct world *world = calloc(1, sizeof(*world));
    const char *only = getenv("HP_SEED");
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        seed = only != NULL ? strtoull(only, NULL, 10) : seed;
        memset(world, 0, sizeof(*world));
        hp_rand_init(&world->rand, seed);
        fx_init(&world->fx, FXP_SLOTS);
        for (int i = 0; i < STEPS; i++) {
            step(world);
        }
        calm(world);
        if (!is_settled(world)) {
            fail_msg("seed %llu: it does not settle: held %u, children %u of %u, %u of %u",
                     (unsigned long long)seed, fx_stats(&world->fx).held, count_up(world, 1),
                     world->targets[1], count_up(world, 2), world->targets[2]);
        }
        for (uint64_t pool = 1; pool <= POOLS; pool++) {
            order(world, pool, 0, false);
        }
        calm(world);
        for (uint64_t id = 0; id < world->next_id; id++) {
            const struct call *call = &world->calls[id];
            if (call->ends > 1 || (call->ends == 1 && call->releases > 0)) {
                fail_msg("seed %llu: call %llu ended %u times, released %u times",
                         (unsigned long long)seed, (unsigned long long)id, call->ends,
                         call->releases);
            }
        }
        for (int i = 0; i < 4000 && fx_stats(&world->fx).pools > 0; i++) {
            child_step(world, (uint32_t)roll(world, CHILDREN));
        }
        if (fx_stats(&world->fx).pools > 0) {
            fail_msg("seed %llu: a pool has not ended", (unsigned long long)seed);
        }
        fx_deinit(&world->fx);
        if (only != NULL) {
            break;
        }
    }
    free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_and_child_is_accounted_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
