/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Scenes that chance would seldom play: all orders of a cancel, a result, a lost link and a crash;
 * a task due in a year; thirty days without a broker; a thousand tasks that fail at once; a worker
 * that gets its own task again; ids and tokens over many restarts; a copy that was restored.
 */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"

#define DAY_MS UINT64_C(86400000)

static struct hp_st_assign_run runs[4096];

static void beat(struct rig *rig, uint64_t conn)
{
    struct hp_msg_worker_heartbeat msg = {0};
    rig_begin(rig);
    (void)RIG_CALL(rig, conn, WORKER_HEARTBEAT, worker_heartbeat, &msg);
    rig_end(rig);
    rig_settle(rig);
}

/* ------------------------------------------------ all orders */
enum step { CANCEL, RESULT, RELINK, CRASH, STEPS };

struct race {
    struct rig *rig;
    uint64_t id;
    enum hp_cancel_mode mode;
    enum hp_reason reason; /* of the result; NONE: success */
    bool settles[STEPS];   /* the disk is done after that step */
    bool cancelled, ended; /* durably asked for, durably reported */
    bool sent_cancel, sent_result;
    bool cancel_first, result_first; /* one was durable before the other was sent */
};

static void send_cancel(struct race *race)
{
    struct hp_st_id_range range = {.has = HP_HAS_ST_ID_RANGE_COUNT, .first = race->id, .count = 1};
    struct hp_msg_task_cancel msg = {.has = HP_HAS_TASK_CANCEL_RANGES | HP_HAS_TASK_CANCEL_MODE,
                                     .ranges = {.items = &range, .count = 1},
                                     .mode = race->mode};
    race->result_first = race->ended;
    rig_begin(race->rig);
    (void)RIG_CALL(race->rig, 1, TASK_CANCEL, task_cancel, &msg);
    rig_end(race->rig);
    race->sent_cancel = true;
}

static void send_result(struct race *race)
{
    static const uint8_t empty_map[] = {0x80};
    struct hp_st_done_item item = {.id = race->id,
                                   .attempt = 1,
                                   .epoch = 1,
                                   .reason = race->reason,
                                   .end = {.data = empty_map, .size = 1}};
    item.has = race->reason != HP_REASON_NONE ? HP_HAS_ST_DONE_ITEM_REASON : 0;
    struct hp_msg_worker_done msg = {.items = {.items = &item, .count = 1}};
    race->cancel_first = race->cancelled;
    rig_begin(race->rig);
    (void)RIG_CALL(race->rig, 2, WORKER_DONE, worker_done, &msg);
    rig_end(race->rig);
    race->sent_result = true;
}

/* The worker's link comes anew, and it names what it holds. */
static void link_again(struct race *race, bool is_linked)
{
    struct hp_st_run_ref held = {.id = race->id, .attempt = 1, .epoch = 1};
    if (is_linked) {
        rig_begin(race->rig);
        rig_disconnect(race->rig, 2);
        rig_end(race->rig);
    }
    rig_settle(race->rig);
    rig_hello(race->rig, 2, NULL, "w");
    rig_register(race->rig, 2, 1, (struct hp_list_run_ref){.items = &held, .count = 1});
}

static void play(struct race *race, enum step step)
{
    switch (step) {
    case CANCEL:
        send_cancel(race);
        break;
    case RESULT:
        send_result(race);
        break;
    case RELINK:
        link_again(race, true);
        break;
    case CRASH:
        rig_crash(race->rig);
        race->sent_cancel = race->sent_cancel && race->cancelled;
        race->sent_result = race->sent_result && race->ended;
        rig_hello(race->rig, 1, NULL, NULL);
        link_again(race, false);
        break;
    case STEPS:
        break;
    }
    if (race->settles[step]) {
        rig_settle(race->rig);
    }
    /* Nothing of the rig's store is under way: what was sent is durable. */
    race->cancelled = race->cancelled || (race->sent_cancel && race->rig->job_count == 0);
    race->ended = race->ended || (race->sent_result && race->rig->job_count == 0);
}

static bool is_final(enum hp_task_state state)
{
    return state >= HP_TASK_STATE_DONE;
}

/* What may come of it: the result was sent in the end, whatever happened before. */
static void check_end(const struct race *race, enum hp_task_state state)
{
    bool success = race->reason == HP_REASON_NONE;
    enum hp_task_state by_result = success ? HP_TASK_STATE_DONE : HP_TASK_STATE_FAILED;
    assert_true(state == by_result || state == HP_TASK_STATE_CANCELLED);
    if (race->mode == HP_CANCEL_MODE_QUEUED || !race->sent_cancel || race->result_first) {
        assert_int_equal(state, by_result); /* it ran: nothing was to be cancelled */
    } else if (success && race->mode == HP_CANCEL_MODE_SOFT) {
        assert_int_equal(state, HP_TASK_STATE_DONE); /* it had succeeded before it was told */
    } else if (race->cancel_first) {
        assert_int_equal(state, HP_TASK_STATE_CANCELLED);
    }
}

static void run_race(const enum step *order, uint32_t settles, enum hp_cancel_mode mode,
                     enum hp_reason reason)
{
    struct race race = {.rig = rig_new(NULL), .mode = mode, .reason = reason};
    struct hp_st_task_options options = rig_command();
    for (int i = 0; i < STEPS; i++) {
        race.settles[i] = (settles >> i & 1U) != 0;
    }
    rig_hello(race.rig, 1, NULL, NULL);
    rig_worker(race.rig, 2, "w", 1);
    race.id = rig_submitted(race.rig, 1, 0, &options, 1, NULL);
    assert_int_equal(rig_assigned(race.rig, 2, runs, 1), 1);
    for (int i = 0; i < STEPS; i++) {
        play(&race, order[i]);
    }
    rig_settle(race.rig);
    enum hp_task_state state = rig_state(race.rig, 1, race.id);
    if (!is_final(state)) { /* the worker sends what was not acknowledged again */
        send_result(&race);
        rig_settle(race.rig);
        state = rig_state(race.rig, 1, race.id);
    }
    check_end(&race, state);
    send_result(&race); /* and too late, and the cancel again: nothing changes */
    send_cancel(&race);
    rig_settle(race.rig);
    assert_int_equal(rig_state(race.rig, 1, race.id), state);
    rig_crash(race.rig);
    rig_hello(race.rig, 1, NULL, NULL);
    assert_int_equal(rig_state(race.rig, 1, race.id), state);
    rig_worker(race.rig, 2, "w", 1);
    assert_int_equal(rig_assigned(race.rig, 2, runs, 1), 0); /* no second attempt */
    rig_free(race.rig);
}

/* All orders of the steps from `at` on. */
static void permute(enum step *order, int at, uint32_t *count)
{
    if (at == STEPS) {
        for (uint32_t settles = 0; settles < 1U << STEPS; settles++) {
            for (int mode = HP_CANCEL_MODE_FORCE; mode <= HP_CANCEL_MODE_QUEUED; mode++) {
                run_race(order, settles, (enum hp_cancel_mode)mode, HP_REASON_NONE);
                run_race(order, settles, (enum hp_cancel_mode)mode, HP_REASON_SIGNAL);
                *count += 2;
            }
        }
        return;
    }
    for (int i = at; i < STEPS; i++) {
        enum step first = order[at];
        order[at] = order[i];
        order[i] = first;
        permute(order, at + 1, count);
        order[i] = order[at];
        order[at] = first;
    }
}

static void cancels_and_results_in_all_orders(void **state)
{
    enum step order[STEPS] = {CANCEL, RESULT, RELINK, CRASH};
    uint32_t count = 0;
    (void)state;
    permute(order, 0, &count);
    assert_int_equal(count, 24 * 16 * 3 * 2);
}

/* ------------------------------------------------ long times */
static void a_year_is_waited_out(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    options.delay_ms = 365 * DAY_MS;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 4);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 3, NULL);
    for (int day = 1; day < 365; day++) {
        rig_pass(rig, DAY_MS);
        beat(rig, 2);
        assert_int_equal(rig_assigned(rig, 2, runs, 1), 0);
        if (day % 100 == 0) {
            rig_crash(rig);
            rig_hello(rig, 1, NULL, NULL);
            rig_worker(rig, 2, "w", 4);
        }
    }
    rig_pass(rig, DAY_MS - 1000);
    assert_int_equal(rig_assigned(rig, 2, runs, 1), 0);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_DELAYED);
    rig_pass(rig, 2000);
    uint32_t count = rig_assigned(rig, 2, runs, 4);
    uint32_t tasks = 0;
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(runs[i].attempt, 1);
        tasks += runs[i].count;
    }
    assert_int_equal(tasks, 3);
    rig_free(rig);
}

static void reap(struct rig *rig)
{
    struct hp_error error;
    bool more = true;
    rig_pass(rig, 11000);
    while (more) {
        assert_ok(hp_store_idle(rig->store, &more, &error));
    }
}

static void thirty_days_without_a_broker_drop_no_work(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options plain = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 2);
    uint64_t running = rig_submitted(rig, 1, 0, &plain, 1, NULL);
    uint64_t done = rig_submitted(rig, 1, 0, &plain, 1, NULL);
    rig_done(rig, 2, done, 1, 1, HP_REASON_NONE);
    uint64_t refill = rig_submitted(rig, 1, 0, &plain, 1, NULL); /* no slot is left */
    uint64_t waiting = rig_submitted(rig, 1, 0, &plain, 50, NULL);
    struct hp_st_task_options other = plain;
    other.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    other.delay_ms = DAY_MS;
    uint64_t delayed = rig_submitted(rig, 1, 0, &other, 20, NULL);
    other = plain;
    other.has |= HP_HAS_ST_TASK_OPTIONS_EXPIRE_MS;
    other.expire_ms = 3600000;
    uint64_t expiring = rig_submitted(rig, 1, 0, &other, 10, NULL);
    rig_crash(rig);
    rig->wall_ms += (int64_t)(30 * DAY_MS);
    rig_hello(rig, 1, NULL, NULL);
    reap(rig);
    for (int i = 0; i < 60; i++) { /* in steps: a long gap would be a stall of the broker itself */
        rig_pass(rig, 900);
    }
    reap(rig);
    assert_int_equal(rig_state(rig, 1, running), HP_TASK_STATE_READY); /* its lease ran out */
    assert_int_equal(rig_state(rig, 1, refill), HP_TASK_STATE_READY);
    for (uint32_t i = 0; i < 50; i++) {
        assert_int_equal(rig_state(rig, 1, waiting + i), HP_TASK_STATE_READY);
    }
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(rig_state(rig, 1, delayed + i), HP_TASK_STATE_READY);
    }
    for (uint32_t i = 0; i < 10; i++) { /* asked for by the submitter */
        assert_int_equal(rig_state(rig, 1, expiring + i), HP_TASK_STATE_EXPIRED);
    }
    rig_worker(rig, 2, "w", 100);
    uint32_t count = rig_assigned(rig, 2, runs, 100);
    uint32_t tasks = 0;
    for (uint32_t i = 0; i < count; i++) {
        tasks += runs[i].count;
    }
    assert_int_equal(tasks, 72);
    rig_free(rig);
}

/* ------------------------------------------------ a storm of retries */
static void a_storm_of_retries_is_spread(void **state)
{
    enum { TASKS = 400, RETRIES = 3, BASE_MS = 2000, WINDOW_MS = 50 };
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES | HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS;
    options.max_retries = RETRIES;
    options.retry_base_ms = BASE_MS;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", TASKS);
    uint64_t first = rig_submitted(rig, 1, 0, &options, TASKS, NULL);
    uint32_t starts = 0;
    uint32_t attempts[TASKS] = {0};
    uint32_t peak = 0;
    for (int window = 0; window < 16000 * RETRIES / WINDOW_MS; window++) {
        uint32_t count = rig_assigned(rig, 2, runs, 4096);
        uint32_t now = 0;
        for (uint32_t i = 0; i < count; i++) {
            for (uint32_t k = 0; k < runs[i].count; k++) {
                uint64_t id = runs[i].first + k;
                attempts[id - first] = runs[i].attempt;
                rig_done(rig, 2, id, runs[i].attempt, 1, HP_REASON_EXIT);
                now++;
            }
        }
        starts += now;
        peak = window > 0 && now > peak ? now : peak;
        rig_pass(rig, WINDOW_MS);
        if (window % 20 == 0) {
            beat(rig, 2);
        }
    }
    assert_int_equal(starts, TASKS * (RETRIES + 1)); /* bounded in number */
    for (uint32_t i = 0; i < TASKS; i++) {
        assert_int_equal(attempts[i], RETRIES + 1);
    }
    /* And in rate: 400 first retries fall into the second half of 2 s, 20 a window on average. */
    assert_in_range(peak, 1, 60);
    rig_free(rig);
}

/* ------------------------------------------------ tokens */
static void a_worker_gets_its_own_task_again(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES | HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS;
    options.max_retries = 5;
    options.retry_base_ms = 1;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    for (uint32_t attempt = 1; attempt <= 3; attempt++) {
        assert_int_equal(rig_assigned(rig, 2, runs, 1), 1);
        assert_int_equal(runs[0].attempt, attempt);
        for (uint32_t old = 1; old < attempt; old++) { /* late, and of the same worker */
            rig_done(rig, 2, id, old, 1, HP_REASON_NONE);
            assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_LEASED);
        }
        rig_done(rig, 2, id, attempt, 1, HP_REASON_EXIT);
        rig_pass(rig, 5);
    }
    rig_free(rig);
}

static void ids_and_tokens_are_never_given_twice(void **state)
{
    enum { STARTS = 200 };
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    uint64_t last_id = 0;
    uint64_t last_epoch = 0;
    for (uint32_t i = 0; i < STARTS; i++) {
        rig_hello(rig, 1, NULL, NULL);
        rig_worker(rig, 2, "w", 1);
        uint64_t id = rig_submitted(rig, 1, 0, &options, 1 + i % 3, NULL);
        assert_true(id > last_id);
        last_id = id + i % 3;
        assert_int_equal(rig_assigned(rig, 2, runs, 4), 1);
        assert_true(runs[0].epoch > last_epoch);
        last_epoch = runs[0].epoch;
        rig_cancel(rig, 1, id, 1 + i % 3, HP_CANCEL_MODE_FORCE);
        rig_done(rig, 2, id, 1, runs[0].epoch, HP_REASON_SIGNAL);
        rig_begin(rig); /* what is not durable may not use ids up for ever, nor give them twice */
        (void)rig_submit(rig, 1, 0, &options, 2);
        rig_end(rig);
        rig_crash(rig);
    }
    rig_free(rig);
}

/* ------------------------------------------------ an older copy */
/* The broker starts on the database as it was; the store has left out epochs, as for a copy. */
static void start_on_copy(struct rig *rig)
{
    rig_crash(rig); /* what came after is not in it */
    (void)hp_core_hold(rig->core);
}

static void resume(struct rig *rig)
{
    struct hp_msg_queue_pause msg = {.name = HP_STR("default"), .paused = false};
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, QUEUE_PAUSE, queue_pause, &msg);
    rig_end(rig);
    rig_settle(rig);
}

static void a_restored_copy_holds_its_work(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    struct hp_rpc rpc;
    struct hp_error error;
    struct hp_msg_worker_register_reply reply;
    rig_hello(rig, 1, NULL, NULL);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 3, NULL); /* the copy was made now */
    start_on_copy(rig);
    rig_hello(rig, 1, NULL, NULL);
    rig_hello(rig, 2, NULL, "w");
    /* A worker still runs what was given out after the copy: nobody knows of it. */
    struct hp_st_run_ref held = {.id = id, .attempt = 1, .epoch = 1};
    struct hp_msg_worker_register msg = {.has = HP_HAS_WORKER_REGISTER_RUNS |
                                                HP_HAS_WORKER_REGISTER_COMMANDS,
                                         .host = HP_STR("host"),
                                         .slots = 3,
                                         .commands = true,
                                         .runs = {.items = &held, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_REGISTER, worker_register, &msg);
    rig_end(rig);
    rig_settle(rig);
    assert_true(rig_next(rig, 2, &rpc));
    assert_ok(hp_msg_worker_register_reply_decode(rpc.result, &rig->arena, &reply, &error));
    assert_int_equal(reply.kill.count, 1);
    rig_done(rig, 2, id, 1, 1, HP_REASON_NONE); /* nor is its result taken */
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_READY);
    for (int i = 0; i < 20; i++) {
        rig_pass(rig, 900);
        assert_int_equal(rig_assigned(rig, 2, runs, 8), 0); /* it waits for the operator */
    }
    rig_crash(rig); /* the pause is durable */
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 3);
    assert_int_equal(rig_assigned(rig, 2, runs, 8), 0);
    resume(rig);
    uint32_t count = rig_assigned(rig, 2, runs, 8);
    uint32_t tasks = 0;
    for (uint32_t i = 0; i < count; i++) {
        assert_true(runs[i].epoch > 1);
        tasks += runs[i].count;
    }
    assert_int_equal(tasks, 3);
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(cancels_and_results_in_all_orders),
    cmocka_unit_test(a_year_is_waited_out),
    cmocka_unit_test(thirty_days_without_a_broker_drop_no_work),
    cmocka_unit_test(a_storm_of_retries_is_spread),
    cmocka_unit_test(a_worker_gets_its_own_task_again),
    cmocka_unit_test(ids_and_tokens_are_never_given_twice),
    cmocka_unit_test(a_restored_copy_holds_its_work),
};

HP_TEST_MAIN(tests)
