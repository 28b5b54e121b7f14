/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The agent against a random broker and a random executor: whatever the order of assignments, ends,
 * lost links, cancels, kills, recalls, spool answers and drains, its records agree after every step
 * (hp_agent_check), and once the world is quiet each attempt was answered for exactly once: its end
 * was acknowledged, or it was released, or the broker had disowned it. Large payloads and results
 * go by descriptor or by chunks, as broker and shell like it, and no file is left open.
 */
#include "tests/unit/agent_fixture.h"

#include <stdlib.h>

#include <xxhash.h>

#define SEEDS 400
#define STEPS 300
#define TASKS_MAX 4096
#define SLOTS 3
#define LARGE_BYTES 70000u

static const uint8_t large[LARGE_BYTES];

struct task {
    bool is_call;
    bool given; /* the executor has it */
    uint32_t child;
    uint64_t key;
    uint32_t ends;     /* acknowledged */
    uint32_t releases; /* handed back */
    bool disowned;     /* named in a kill list */
};

struct world {
    struct fx fx;
    struct hp_rand rand;
    struct task tasks[TASKS_MAX]; /* by id */
    uint64_t next_id;
    size_t seen_from;
    bool up[SLOTS];
    bool linked;
    bool quiet; /* no more harm: the end of the run */
};

static uint64_t roll(struct world *world, uint64_t n)
{
    return hp_rand_uniform(&world->rand, n);
}

/* ---------------------------------------------------------------------------------- the executor
 */

/* Takes note of what the agent gave out and ordered since the last look. */
static void look(struct world *world)
{
    fx_drain(&world->fx);
    for (; world->seen_from < world->fx.seen_count; world->seen_from++) {
        const struct fx_seen *seen = &world->fx.seen[world->seen_from];
        if (seen->kind == HP_AGENT_RUN || seen->kind == HP_AGENT_CALL) {
            struct task *task = &world->tasks[seen->id];
            assert_false(task->given);
            task->given = true;
            task->key = seen->key;
            task->child = seen->child;
            task->is_call = seen->kind == HP_AGENT_CALL;
        }
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

/* A random one of those that the executor has. */
static struct task *some_given(struct world *world, bool is_call)
{
    uint64_t start = world->next_id == 0 ? 0 : roll(world, world->next_id);
    for (uint64_t i = 0; i < world->next_id; i++) {
        struct task *task = &world->tasks[(start + i) % world->next_id];
        if (task->given && task->is_call == is_call) {
            return task;
        }
    }
    return NULL;
}

static void end_some(struct world *world)
{
    struct task *task = some_given(world, roll(world, 2) == 0);
    if (task == NULL) {
        return;
    }
    task->given = false;
    bool comes_back = roll(world, 8) == 0 && !world->quiet; /* a command, too: its helper died */
    if (comes_back) {
        event(world, (struct hp_agent_event){.kind = HP_AGENT_EXEC_HANDED_BACK, .key = task->key});
    } else if (!task->is_call) {
        event(world, (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED,
                                             .key = task->key,
                                             .exit_code = (int32_t)roll(world, 2),
                                             .run_us = 100});
    } else if (roll(world, 4) == 0) {
        struct fx_file *file = fx_file_new(&world->fx, hp_bin_make(large, LARGE_BYTES));
        event(world, (struct hp_agent_event){.kind = HP_AGENT_EXEC_RESULT,
                                             .key = task->key,
                                             .out = {.data = file->bytes, .size = LARGE_BYTES},
                                             .file = &file->base,
                                             .run_us = roll(world, 3000)});
    } else {
        event(world, (struct hp_agent_event){.kind = HP_AGENT_EXEC_RESULT,
                                             .key = task->key,
                                             .out = {.data = (const uint8_t *)"r", .size = 1},
                                             .run_us = roll(world, 3000)});
    }
}

/* A child dies: the call it runs ends with it, the others come back. */
static void kill_child(struct world *world)
{
    uint32_t child = (uint32_t)roll(world, SLOTS);
    bool first = true;
    for (uint64_t id = 0; id < world->next_id; id++) {
        struct task *task = &world->tasks[id];
        if (!task->given || !task->is_call || task->child != child) {
            continue;
        }
        task->given = false;
        event(world, (struct hp_agent_event){.kind = first ? HP_AGENT_EXEC_RESULT
                                                           : HP_AGENT_EXEC_HANDED_BACK,
                                             .key = task->key,
                                             .outcome = HP_AGENT_OUTCOME_DIED,
                                             .signal = SIGSEGV});
        first = false;
    }
    world->up[child] = false;
    event(world, (struct hp_agent_event){.kind = HP_AGENT_EXEC_CHILD_DOWN, .child = child});
}

static void raise_child(struct world *world)
{
    uint32_t child = (uint32_t)roll(world, SLOTS);
    world->up[child] = true;
    event(world, (struct hp_agent_event){.kind = HP_AGENT_EXEC_CHILD_UP, .child = child});
}

/* ------------------------------------------------------------------------------------- the broker
 */

static void assign(struct world *world)
{
    uint32_t count = 1 + (uint32_t)roll(world, 12);
    if (!world->linked || world->next_id + count >= TASKS_MAX) {
        return;
    }
    struct hp_st_task_options options =
        roll(world, 3) == 0 ? fx_command() : fx_function(roll(world, 2) == 0 ? "noop" : "slow");
    options.at_most_once = roll(world, 4) == 0;
    options.hard_timeout_ms = roll(world, 4) == 0 ? 50 : 0;
    options.cpus = 1 + (uint32_t)roll(world, SLOTS);
    options.has |= HP_HAS_ST_TASK_OPTIONS_AT_MOST_ONCE | HP_HAS_ST_TASK_OPTIONS_HARD_TIMEOUT_MS |
                   HP_HAS_ST_TASK_OPTIONS_CPUS;
    uint64_t first = world->next_id;
    if (roll(world, 3) == 0) {
        world->next_id++;
        fx_assign_blob(&world->fx, first, 1 + roll(world, 100), &options);
        look(world);
        return;
    }
    world->next_id += count;
    fx_assign(&world->fx, first, count, 1, &options);
    look(world);
}

static void take_done(struct world *world, bool answer)
{
    struct hp_msg_worker_done done;
    uint32_t msgid = world->fx.rpc.msgid;
    assert_int_equal(hp_msg_worker_done_decode(world->fx.rpc.params, &world->fx.arena, &done, NULL),
                     HP_OK);
    if (!answer) {
        return;
    }
    for (uint32_t i = 0; i < done.items.count; i++) {
        world->tasks[done.items.items[i].id].ends++;
    }
    struct hp_msg_worker_done_reply reply = {0};
    fx_reply(&world->fx, msgid, &hp_desc_msg_worker_done_reply, &reply);
}

static void take_release(struct world *world)
{
    struct hp_msg_worker_release release;
    assert_int_equal(
        hp_msg_worker_release_decode(world->fx.rpc.params, &world->fx.arena, &release, NULL),
        HP_OK);
    for (uint32_t i = 0; i < release.runs.count; i++) {
        world->tasks[release.runs.items[i].id].releases++;
    }
    struct hp_msg_worker_release_reply reply = {0};
    fx_reply(&world->fx, world->fx.rpc.msgid, &hp_desc_msg_worker_release_reply, &reply);
}

/* A refusal now and then. True: it was one. */
static bool refuse(struct world *world, uint32_t msgid)
{
    static const enum hp_rpc_error_code codes[] = {
        HP_RPC_ERROR_UNSUPPORTED, HP_RPC_ERROR_UNSUPPORTED, HP_RPC_ERROR_UNSUPPORTED,
        HP_RPC_ERROR_BUSY,        HP_RPC_ERROR_TOO_BIG,     HP_RPC_ERROR_NOT_FOUND};
    if (world->quiet || roll(world, 4) != 0) {
        return false;
    }
    fx_refuse(&world->fx, msgid, codes[roll(world, HP_COUNT_OF(codes))]);
    return true;
}

/* The calls about large bytes; false: it is another one. */
static bool answer_blob(struct world *world)
{
    struct fx *fx = &world->fx;
    uint32_t msgid = fx->rpc.msgid;
    switch ((int)fx->rpc.method) { /* an int: the other methods are not for here */
    case HP_METHOD_BLOB_GIVE: {
        struct hp_msg_blob_give_reply reply = {.blob = msgid + 1};
        if (!refuse(world, msgid)) {
            fx_reply(fx, msgid, &hp_desc_msg_blob_give_reply, &reply);
        }
        return true;
    }
    case HP_METHOD_BLOB_LEND: {
        struct hp_msg_blob_lend_reply reply = {.size = LARGE_BYTES, .pid = 1, .fd = 6};
        if (!refuse(world, msgid)) {
            fx_reply(fx, msgid, &hp_desc_msg_blob_lend_reply, &reply);
        }
        return true;
    }
    case HP_METHOD_BLOB_OPEN: {
        struct hp_msg_blob_open_reply reply = {.blob = msgid + 1};
        if (!refuse(world, msgid)) {
            fx_reply(fx, msgid, &hp_desc_msg_blob_open_reply, &reply);
        }
        return true;
    }
    case HP_METHOD_BLOB_PUT: {
        struct hp_msg_blob_put_reply reply = {.size = LARGE_BYTES};
        fx_reply(fx, msgid, &hp_desc_msg_blob_put_reply, &reply);
        return true;
    }
    case HP_METHOD_BLOB_GET: {
        struct hp_msg_blob_get_reply reply = {.data = {.data = large, .size = LARGE_BYTES},
                                              .size = LARGE_BYTES,
                                              .digest = XXH3_64bits(large, LARGE_BYTES)};
        if (!refuse(world, msgid)) {
            fx_reply(fx, msgid, &hp_desc_msg_blob_get_reply, &reply);
        }
        return true;
    }
    default:
        return false;
    }
}

/* The shell has good and bad days. */
static void change_shell(struct world *world)
{
    struct fx *fx = &world->fx;
    fx->near_offer = (uint8_t)roll(world, 4); /* 0: the next broker offers nothing */
    fx->near_is_far = roll(world, 4) == 0;
    fx->open_fails = roll(world, 3) == 0;
    fx->open_is_busy = roll(world, 4) == 0;
    fx->seal_fails = roll(world, 3) == 0;
    fx->hold_near = roll(world, 3) == 0;
}

static void shell_answers(struct world *world)
{
    fx_near_answer(&world->fx);
    look(world);
}

/* Answers what the agent has sent; now and then it leaves a result without an answer. */
static void answer(struct world *world)
{
    while (world->linked && fx_next(&world->fx)) {
        if (world->fx.rpc.type != HP_RPC_REQUEST) {
            continue;
        }
        uint32_t msgid = world->fx.rpc.msgid;
        if (answer_blob(world)) {
            look(world);
            continue;
        }
        if (world->fx.rpc.method == HP_METHOD_WORKER_DONE) {
            take_done(world, true);
        } else if (world->fx.rpc.method == HP_METHOD_WORKER_RELEASE) {
            take_release(world);
        } else if (world->fx.rpc.method == HP_METHOD_WORKER_HEARTBEAT) {
            struct hp_msg_worker_heartbeat_reply reply = {.lease_ms = FX_LEASE_MS};
            fx_reply(&world->fx, msgid, &hp_desc_msg_worker_heartbeat_reply, &reply);
        } else {
            assert_int_equal(world->fx.rpc.method, HP_METHOD_WORKER_REGISTER);
            struct hp_msg_worker_register_reply reply = {.lease_ms = FX_LEASE_MS,
                                                         .heartbeat_ms = FX_HEARTBEAT_MS};
            fx_reply(&world->fx, msgid, &hp_desc_msg_worker_register_reply, &reply);
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

static void link_down(struct world *world)
{
    if (world->linked) {
        hp_agent_disconnected(world->fx.agent, "reset", world->fx.now);
        world->linked = false;
        look(world);
    }
}

static void order(struct world *world)
{
    if (!world->linked || world->next_id == 0 || !fx_stats(&world->fx).registered) {
        return;
    }
    uint64_t id = roll(world, world->next_id);
    struct hp_st_run_ref ref = fx_ref(id, 1);
    struct hp_st_run_ref recall_refs[6];
    struct hp_st_cancel_item item = {.id = id, .attempt = 1, .epoch = 1};
    struct hp_msg_worker_control msg = {.has = HP_HAS_WORKER_CONTROL_CANCEL,
                                        .cancel = {.items = &item, .count = 1}};
    uint64_t what = roll(world, 6);
    if (what == 0) {
        world->tasks[id].disowned = true;
        msg = (struct hp_msg_worker_control){.has = HP_HAS_WORKER_CONTROL_KILL,
                                             .kill = {.items = &ref, .count = 1}};
    } else if (what == 1) {
        uint32_t count = 0;
        for (; count < HP_COUNT_OF(recall_refs) && count < id; count++) {
            recall_refs[count] = fx_ref(id - count, 1);
        }
        msg = (struct hp_msg_worker_control){.has = HP_HAS_WORKER_CONTROL_RECALL_RUNS,
                                             .recall_runs = {.items = recall_refs, .count = count}};
    } else if (what == 2) {
        msg = (struct hp_msg_worker_control){.has = HP_HAS_WORKER_CONTROL_DRAINING,
                                             .draining = roll(world, 2) == 0};
    }
    fx_notify(&world->fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &msg);
    look(world);
}

/* -------------------------------------------------------------------------------------- the runs
 */

static void step(struct world *world)
{
    switch (roll(world, 16)) {
    case 0:
    case 1:
        link_up(world);
        break;
    case 2:
        if (roll(world, 3) == 0) {
            link_down(world);
        }
        break;
    case 3:
    case 4:
        if (fx_stats(&world->fx).registered) {
            assign(world);
        }
        break;
    case 5:
        order(world);
        break;
    case 6:
        kill_child(world);
        break;
    case 7:
        raise_child(world);
        break;
    case 8:
        fx_tick(&world->fx, roll(world, 3000));
        look(world);
        break;
    case 9:
        fx_tick(&world->fx, roll(world, 30));
        look(world);
        break;
    case 10:
    case 11:
        answer(world);
        break;
    default:
        end_some(world);
        break;
    }
    if (roll(world, 8) == 0) {
        change_shell(world);
    }
    if (roll(world, 4) == 0 || world->fx.near_answer_count > FX_NEAR_ANSWERS_MAX / 4) {
        shell_answers(world);
    }
    /* A link that the agent gave up itself is down. */
    world->linked = world->linked && fx_stats(&world->fx).connected;
}

/* All links up, all children up, everything ends and is answered. */
static void calm(struct world *world)
{
    world->quiet = true;
    world->fx.hold_near = false;
    shell_answers(world);
    for (int i = 0; i < 30000 && fx_stats(&world->fx).held > 0; i++) {
        link_up(world);
        answer(world);
        struct hp_msg_worker_control resume = {.has = HP_HAS_WORKER_CONTROL_DRAINING};
        if (world->linked && fx_stats(&world->fx).registered) {
            fx_notify(&world->fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &resume);
        }
        for (uint32_t child = 0; child < SLOTS; child++) {
            event(world, (struct hp_agent_event){.kind = HP_AGENT_EXEC_CHILD_UP, .child = child});
        }
        end_some(world);
        fx_tick(&world->fx, 1);
        look(world);
        world->linked = world->linked && fx_stats(&world->fx).connected;
    }
    answer(world);
}

static void every_attempt_is_answered_for(void **state)
{
    (void)state;
    struct world *world = calloc(1, sizeof(*world));
    const char *only = getenv("HP_SEED");
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        seed = only != NULL ? strtoull(only, NULL, 10) : seed;
        memset(world, 0, sizeof(*world));
        hp_rand_init(&world->rand, seed);
        fx_init(&world->fx, SLOTS);
        hp_agent_free(world->fx.agent);
        world->fx.config.near = true;
        world->fx.config.blob_bytes_max = LARGE_BYTES * 3;
        fx_make_agent(&world->fx);
        for (int i = 0; i < STEPS; i++) {
            step(world);
        }
        calm(world);
        for (uint64_t id = 0; id < world->next_id; id++) {
            const struct task *task = &world->tasks[id];
            if (task->disowned) {
                continue;
            }
            /* A release whose message was lost with the link is made good by `missing` later. */
            if (task->ends > 1 || (task->ends == 1 && task->releases > 0)) {
                fail_msg("seed %llu: task %llu ended %u times, released %u times",
                         (unsigned long long)seed, (unsigned long long)id, task->ends,
                         task->releases);
            }
        }
        if (fx_stats(&world->fx).held != 0 || fx_stats(&world->fx).slots_used != 0) {
            struct hp_buf text;
            hp_buf_init(&text, 1 << 20);
            assert_int_equal(hp_agent_dump(world->fx.agent, &text), HP_OK);
            fail_msg("seed %llu: not all ended:\n%.*s", (unsigned long long)seed, (int)text.size,
                     (const char *)text.data);
        }
        assert_int_equal(world->fx.files_live, 0);
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
        cmocka_unit_test(every_attempt_is_answered_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
