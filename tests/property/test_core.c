/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random operations on the core, and a naive model beside it: one worker, commands, some of them
 * not durable, no windows in the model's mind. After each step all indices are checked, after each
 * round the states agree.
 */
#include "tests/lib/hp_test.h"

#include "common/base/rand.h"
#include "tests/lib/core_rig.h"

enum { TASKS_MAX = 4000, STEPS = 250, SLOTS = 3, DELAY_MS = 700 };

/* What the model knows of a task. */
struct model {
    uint64_t id;
    enum hp_task_state state;
    uint32_t attempt, failures, max_retries;
    uint64_t ready_ms; /* delayed: when it may run */
    bool in_memory;    /* not durable: a restart loses it */
    bool forgotten;    /* its row may be gone */
};

struct world {
    struct rig *rig;
    struct hp_rand rand;
    struct model tasks[TASKS_MAX]; /* by id; a restart leaves ids out */
    uint32_t count;
    uint64_t number;
};

static struct model *find(struct world *world, uint64_t id)
{
    uint32_t low = 0;
    uint32_t high = world->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (world->tasks[middle].id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < world->count && world->tasks[low].id == id ? &world->tasks[low] : NULL;
}

static void take_assignments(struct world *world)
{
    struct hp_st_assign_run runs[64];
    uint32_t count = rig_assigned(world->rig, 2, runs, 64);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < runs[i].count; k++) {
            struct model *task = find(world, runs[i].first + k);
            assert_non_null(task);
            assert_true(task->state == HP_TASK_STATE_READY ||
                        (task->state == HP_TASK_STATE_DELAYED &&
                         task->ready_ms <= world->rig->now_ms));
            task->state = HP_TASK_STATE_LEASED;
            task->attempt++;
            assert_int_equal(runs[i].attempt, task->attempt);
        }
    }
    uint32_t leased = 0;
    uint32_t ready = 0;
    for (uint32_t i = 0; i < world->count; i++) {
        enum hp_task_state state = world->tasks[i].state;
        leased += state == HP_TASK_STATE_LEASED || state == HP_TASK_STATE_CANCELLING;
        ready += state == HP_TASK_STATE_READY;
    }
    assert_true(leased <= SLOTS);
    assert_true(ready == 0 || leased == SLOTS); /* no slot idles while one is ready */
}

static void submit(struct world *world)
{
    struct hp_st_task_options options = rig_command();
    uint32_t count = (uint32_t)hp_rand_between(&world->rand, 1, 12);
    bool delayed = hp_rand_chance(&world->rand, 1, 4);
    options.has |= HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES | HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS |
                   HP_HAS_ST_TASK_OPTIONS_PRIORITY | HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    options.max_retries = (uint32_t)hp_rand_uniform(&world->rand, 3);
    options.retry_base_ms = 0;
    options.priority = 99 + (uint32_t)hp_rand_uniform(&world->rand, 3);
    options.delay_ms = delayed ? DELAY_MS : 0;
    bool in_memory = hp_rand_chance(&world->rand, 1, 2);
    options.has |= in_memory ? HP_HAS_ST_TASK_OPTIONS_DURABLE : 0;
    options.durable = !in_memory;
    uint64_t id = rig_submitted(world->rig, 1, ++world->number, &options, count, NULL);
    assert_true(world->count + count <= TASKS_MAX);
    assert_true(id > (world->count > 0 ? world->tasks[world->count - 1].id : 0));
    for (uint32_t i = 0; i < count; i++) {
        world->tasks[world->count++] =
            (struct model){.id = id + i,
                           .state = delayed ? HP_TASK_STATE_DELAYED : HP_TASK_STATE_READY,
                           .max_retries = options.max_retries,
                           .in_memory = in_memory,
                           .ready_ms = world->rig->now_ms + options.delay_ms};
    }
}

static struct model *some(struct world *world, enum hp_task_state a, enum hp_task_state b)
{
    uint32_t from = (uint32_t)hp_rand_uniform(&world->rand, world->count + 1U);
    for (uint32_t i = 0; i < world->count; i++) {
        uint32_t at = (from + i) % world->count;
        if (world->tasks[at].state == a || world->tasks[at].state == b) {
            return &world->tasks[at];
        }
    }
    return NULL;
}

static void end_one(struct world *world)
{
    struct model *task = some(world, HP_TASK_STATE_LEASED, HP_TASK_STATE_CANCELLING);
    if (task == NULL) {
        return;
    }
    bool ok = hp_rand_chance(&world->rand, 2, 3);
    uint32_t attempt = task->attempt;
    if (task->state == HP_TASK_STATE_CANCELLING) { /* by force: whatever comes of it */
        task->state = HP_TASK_STATE_CANCELLED;
    } else if (ok) {
        task->state = HP_TASK_STATE_DONE;
    } else if (++task->failures > task->max_retries) {
        task->state = HP_TASK_STATE_FAILED;
    } else {
        task->state = HP_TASK_STATE_DELAYED;
        task->ready_ms = world->rig->now_ms;
    }
    struct hp_attempt *live = hp_attempt_find(world->rig->core, task->id);
    assert_non_null(live);
    rig_done(world->rig, 2, task->id, attempt, live->epoch, ok ? HP_REASON_NONE : HP_REASON_EXIT);
}

static void cancel(struct world *world)
{
    uint64_t first = world->tasks[hp_rand_uniform(&world->rand, world->count)].id;
    uint32_t count = (uint32_t)hp_rand_between(&world->rand, 1, 15);
    bool force = hp_rand_chance(&world->rand, 1, 2);
    rig_cancel(world->rig, 1, first, count,
               force ? HP_CANCEL_MODE_FORCE : HP_CANCEL_MODE_QUEUED);
    for (uint64_t id = first; id < first + count; id++) {
        struct model *task = find(world, id);
        if (task == NULL) {
            continue;
        }
        if (task->state == HP_TASK_STATE_READY || task->state == HP_TASK_STATE_DELAYED) {
            task->state = HP_TASK_STATE_CANCELLED;
        } else if (force && task->state == HP_TASK_STATE_LEASED) {
            task->state = HP_TASK_STATE_CANCELLING;
        }
    }
}

static void crash(struct world *world)
{
    static struct hp_st_run_ref held[SLOTS];
    struct hp_list_run_ref runs = {.items = held};
    struct hp_idmap_iter iter = {0};
    uint64_t id = 0;
    uint64_t value = 0;
    while (hp_idmap_next(&world->rig->core->attempts, &iter, &id, &value)) {
        const struct hp_attempt *attempt = (const struct hp_attempt *)(uintptr_t)value;
        held[runs.count++] = (struct hp_st_run_ref){
            .id = id, .attempt = attempt->attempt, .epoch = attempt->epoch};
    }
    rig_crash(world->rig);
    rig_hello(world->rig, 1, "aaaaaaaaaaaaaaa", NULL);
    world->number = hp_session_find(world->rig->core, hp_bin_make("aaaaaaaaaaaaaaa", 16))
                        ->last_number; /* what hello tells */
    rig_hello(world->rig, 2, NULL, "w");
    rig_register(world->rig, 2, SLOTS, runs);
    for (uint32_t i = 0; i < world->count; i++) {
        if (world->tasks[i].in_memory) {
            world->tasks[i].state = HP_TASK_STATE_UNKNOWN;
        }
    }
}

/* Ended tasks may be forgotten; nobody else may notice. */
static void forget(struct world *world)
{
    struct hp_st_id_range range = {.has = HP_HAS_ST_ID_RANGE_COUNT};
    range.first = world->tasks[hp_rand_uniform(&world->rand, world->count)].id;
    range.count = (uint32_t)hp_rand_between(&world->rand, 1, 40);
    struct hp_msg_task_forget msg = {.ranges = {.items = &range, .count = 1}};
    for (uint64_t id = range.first; id < range.first + range.count; id++) {
        struct model *task = find(world, id);
        if (task != NULL && (!task->in_memory || task->state >= HP_TASK_STATE_DONE)) {
            task->forgotten = true; /* a durable one may end before the store is told */
        }
    }
    rig_begin(world->rig);
    (void)RIG_CALL(world->rig, 1, TASK_FORGET, task_forget, &msg);
    rig_end(world->rig);
    rig_settle(world->rig);
}

static void idle(struct world *world)
{
    bool more = true;
    while (more) {
        struct hp_error error;
        assert_ok(hp_store_idle(world->rig->store, &more, &error));
    }
}

static void agree(struct world *world)
{
    for (uint32_t i = 0; i < world->count; i++) {
        const struct model *task = &world->tasks[i];
        struct hp_st_task_status status = rig_get(world->rig, 1, task->id);
        bool gone = status.state == HP_TASK_STATE_GONE || status.state == HP_TASK_STATE_UNKNOWN;
        if (task->forgotten && gone) {
            assert_true(task->state >= HP_TASK_STATE_DONE);
            continue;
        }
        assert_false(task->forgotten && task->in_memory);
        bool due = task->state == HP_TASK_STATE_DELAYED && task->ready_ms <= world->rig->now_ms;
        if (status.state != task->state && !(due && status.state == HP_TASK_STATE_READY)) {
            fail_msg("task %llu: state %d, the model says %d",
                     (unsigned long long)task->id, (int)status.state, (int)task->state);
        }
    }
}

static void step(struct world *world)
{
    uint64_t kind = hp_rand_uniform(&world->rand, 100);
    if (kind < 25 || world->count == 0) {
        submit(world);
    } else if (kind < 75) {
        end_one(world);
    } else if (kind < 82) {
        cancel(world);
    } else if (kind < 85) {
        forget(world);
    } else if (kind < 97) {
        rig_pass(world->rig, hp_rand_between(&world->rand, 1, 400));
    } else {
        crash(world);
    }
    rig_pass(world->rig, 1);
    rig_pass(world->rig, 0);
    take_assignments(world);
    if (hp_rand_chance(&world->rand, 1, 10)) {
        idle(world);
    }
    if (world->count > 0 && hp_rand_chance(&world->rand, 1, 20)) {
        agree(world);
    }
}

static void the_core_agrees_with_the_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct world *world = hp_calloc(1, sizeof(*world));
        struct hp_core_config config;
        hp_core_config_init(&config);
        hp_rand_init(&world->rand, seed);
        config.window_runs = (uint32_t)hp_rand_between(&world->rand, 4, 40);
        config.window_timers = (uint32_t)hp_rand_between(&world->rand, 2, 40);
        config.window_bytes = hp_rand_uniform(&world->rand, 4000);
        config.lease_ms = 100000000; /* losses are the simulator's part */
        world->rig = rig_new(&config);
        rig_hello(world->rig, 1, "aaaaaaaaaaaaaaa", NULL);
        rig_worker(world->rig, 2, "w", SLOTS);
        for (int i = 0; i < STEPS; i++) {
            step(world);
        }
        agree(world);
        rig_free(world->rig);
        hp_free(world);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(the_core_agrees_with_the_model),
};

HP_TEST_MAIN(tests)
