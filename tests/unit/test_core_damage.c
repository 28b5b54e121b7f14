/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store finds damage, or fails: the test changes its answers on their way to the core. What is
 * damaged is said to be; nothing else suffers, and nobody waits for ever.
 */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"
#include "tests/unit/core_ask.h"
#include "tests/unit/core_pool_fixture.h"

static struct hp_st_assign_run runs[64];

/* Goes on until the store is asked for `kind`; its answer, not yet told to the core. */
static struct hp_loaded *catch_load(struct rig *rig, enum hp_load_kind kind)
{
    for (int i = 0; i < 1000; i++) {
        if (rig->job_count == 0) {
            rig_begin(rig);
            rig_end(rig);
        } else if (rig->jobs[0].load != NULL && rig->jobs[0].load->kind == kind) {
            struct hp_loaded *loaded = hp_loaded_new(rig->jobs[0].load);
            rig->job_count--;
            memmove(rig->jobs, rig->jobs + 1, rig->job_count * sizeof(rig->jobs[0]));
            while (!hp_store_load(rig->store, loaded)) {
            }
            return loaded;
        } else {
            (void)rig_job(rig);
        }
    }
    fail_msg("no load of kind %d", (int)kind);
    return NULL;
}

static void tell(struct rig *rig, struct hp_loaded *loaded)
{
    struct hp_event event = {.kind = HP_EVENT_LOADED, .loaded = loaded};
    rig_begin(rig);
    hp_core_step(rig->core, &event);
    rig_end(rig);
    hp_loaded_free(loaded);
}

/* All that the store knows of the task is that its rows are damaged. */
static void spoil_task(struct hp_loaded *loaded, uint32_t index, bool with_group)
{
    struct hp_loaded_task *task = &loaded->tasks[index];
    *task = (struct hp_loaded_task){
        .id = task->id, .damaged = true, .exists = !with_group, .group = task->group};
}

static uint32_t call(struct rig *rig, uint64_t conn, enum hp_method method, const void *msg)
{
    rig_begin(rig);
    uint32_t msgid = rig_call(rig, conn, method, hp_method_info(method)->params, msg);
    rig_end(rig);
    return msgid;
}

/* task.get of one task, with its row spoiled on the way; ended_only: nothing may come. */
static struct hp_st_task_status get_spoiled(struct rig *rig, uint64_t id, bool with_group,
                                            bool ended_only)
{
    struct hp_msg_task_get msg = {.has = HP_HAS_TASK_GET_IDS | HP_HAS_TASK_GET_ENDED_ONLY,
                                  .ids = {.items = &id, .count = 1},
                                  .ended_only = ended_only};
    struct hp_msg_task_get_reply reply;
    uint32_t msgid = call(rig, 1, HP_METHOD_TASK_GET, &msg);
    struct hp_loaded *loaded = catch_load(rig, HP_LOAD_TASKS);
    spoil_task(loaded, 0, with_group);
    tell(rig, loaded);
    assert_true(rig_answer(rig, 1, msgid, &hp_desc_msg_task_get_reply, &reply));
    return reply.tasks.count == 1 ? reply.tasks.items[0] : (struct hp_st_task_status){.id = 0};
}

/* A task whose result is lost is not "ready": whoever asks is told, and nobody waits. */
static void a_damaged_result_is_said_to_be(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 4);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    rig_done(rig, 2, id, 1, 1, HP_REASON_NONE);
    for (int i = 0; i < 4; i++) {
        struct hp_st_task_status status = get_spoiled(rig, id, i % 2 == 0, i < 2);
        assert_int_equal(status.id, id);
        assert_int_equal(status.state, HP_TASK_STATE_FAILED);
        assert_int_equal(status.reason, HP_REASON_DAMAGED);
    }
    struct hp_msg_task_wait wait = {.has = HP_HAS_TASK_WAIT_TIMEOUT_MS,
                                    .timeout_ms = 3600000,
                                    .ids = {.items = &id, .count = 1}};
    struct hp_msg_task_wait_reply waited;
    uint32_t msgid = call(rig, 1, HP_METHOD_TASK_WAIT, &wait);
    for (int i = 0; i < 2; i++) { /* first whether it has ended, then how */
        struct hp_loaded *loaded = catch_load(rig, HP_LOAD_TASKS);
        spoil_task(loaded, 0, false);
        tell(rig, loaded);
    }
    assert_true(rig_answer(rig, 1, msgid, &hp_desc_msg_task_wait_reply, &waited));
    assert_false(waited.timed_out);
    assert_int_equal(waited.tasks.items[0].reason, HP_REASON_DAMAGED);
    struct hp_msg_task_why why = {.id = id};
    struct hp_msg_task_why_reply words;
    msgid = call(rig, 1, HP_METHOD_TASK_WHY, &why);
    struct hp_loaded *loaded = catch_load(rig, HP_LOAD_TASKS);
    spoil_task(loaded, 0, false);
    tell(rig, loaded);
    assert_true(rig_answer(rig, 1, msgid, &hp_desc_msg_task_why_reply, &words));
    assert_true(words.lines.count == 2 && strstr(words.lines.items[1].data, "damaged") != NULL);
    /* An id that was never given out is none, whatever the damage seems to cover. */
    assert_int_equal(get_spoiled(rig, id + 1000000, true, false).state, HP_TASK_STATE_UNKNOWN);
    assert_int_equal(get_spoiled(rig, id + 1000000, true, true).id, 0);
    rig_free(rig);
}

/* What memory knows is right: damage on disk ends no task that still goes on. */
static void memory_knows_better_than_damaged_rows(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t first = rig_submitted(rig, 1, 0, &options, 3, NULL);
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    options.delay_ms = 5000;
    uint64_t delayed = rig_submitted(rig, 1, 0, &options, 4, NULL);
    assert_int_equal(get_spoiled(rig, first, true, false).state, HP_TASK_STATE_LEASED);
    assert_int_equal(get_spoiled(rig, first + 2, true, false).state, HP_TASK_STATE_READY);
    assert_int_equal(get_spoiled(rig, delayed + 2, true, false).state, HP_TASK_STATE_DELAYED);
    assert_int_equal(get_spoiled(rig, first, true, true).id, 0); /* they have not ended */
    assert_int_equal(get_spoiled(rig, first + 2, false, true).id, 0);
    rig_done(rig, 2, first, 1, 1, HP_REASON_NONE);
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_DONE);
    assert_int_equal(rig_state(rig, 1, first + 1), HP_TASK_STATE_LEASED);
    rig_free(rig);
}

/* A cancel of a damaged task changes nothing, and above all does not end the broker. */
static void a_cancel_leaves_damaged_tasks_alone(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t ended = rig_submitted(rig, 1, 0, &options, 1, NULL);
    rig_done(rig, 2, ended, 1, 1, HP_REASON_NONE);
    uint64_t first = rig_submitted(rig, 1, 0, &options, 5, NULL); /* the first has the slot */
    struct hp_st_id_range range = {.has = HP_HAS_ST_ID_RANGE_COUNT, .first = ended, .count = 6};
    struct hp_msg_task_cancel msg = {.has = HP_HAS_TASK_CANCEL_RANGES | HP_HAS_TASK_CANCEL_MODE,
                                     .ranges = {.items = &range, .count = 1},
                                     .mode = HP_CANCEL_MODE_QUEUED};
    struct hp_msg_task_cancel_reply reply;
    uint32_t msgid = call(rig, 1, HP_METHOD_TASK_CANCEL, &msg);
    struct hp_loaded *loaded = catch_load(rig, HP_LOAD_TASKS);
    spoil_task(loaded, 0, false);
    spoil_task(loaded, 3, true); /* it waits in memory, between sound ones */
    tell(rig, loaded);
    assert_true(rig_answer(rig, 1, msgid, &hp_desc_msg_task_cancel_reply, &reply));
    assert_int_equal(reply.cancelled, 3);
    assert_int_equal(reply.too_late, 3);
    assert_int_equal(rig_state(rig, 1, ended), HP_TASK_STATE_DONE);
    assert_int_equal(rig_state(rig, 1, first + 1), HP_TASK_STATE_CANCELLED);
    assert_int_equal(rig_state(rig, 1, first + 2), HP_TASK_STATE_READY);
    rig_done(rig, 2, first, 1, 1, HP_REASON_NONE);
    assert_int_equal(rig_state(rig, 1, first + 2), HP_TASK_STATE_LEASED);
    rig_free(rig);
}

/* Expiries and unique keys meet damaged rows. */
static void others_go_on_beside_damaged_tasks(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    options.has |= HP_HAS_ST_TASK_OPTIONS_EXPIRE_MS;
    options.expire_ms = 1000;
    uint64_t id = rig_submitted(rig, 1, 0, &options, 3, NULL);
    rig->now_ms += 1500;
    rig->wall_ms += 1500;
    struct hp_loaded *loaded = catch_load(rig, HP_LOAD_TASKS);
    spoil_task(loaded, 1, false);
    tell(rig, loaded);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_EXPIRED);
    assert_int_equal(rig_state(rig, 1, id + 1), HP_TASK_STATE_READY); /* not proved, so not done */
    assert_int_equal(rig_state(rig, 1, id + 2), HP_TASK_STATE_EXPIRED);
    options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_UKEY | HP_HAS_ST_TASK_OPTIONS_ON_CONFLICT;
    options.ukey = HP_STR("key");
    options.on_conflict = HP_ON_CONFLICT_REPLACE;
    uint64_t old = rig_submitted(rig, 1, 0, &options, 1, NULL);
    struct hp_msg_task_submit submit = {.options = options};
    struct hp_msg_task_submit_reply reply;
    uint32_t msgid = call(rig, 1, HP_METHOD_TASK_SUBMIT, &submit);
    loaded = catch_load(rig, HP_LOAD_TASKS);
    spoil_task(loaded, 0, true);
    tell(rig, loaded);
    assert_true(rig_answer(rig, 1, msgid, &hp_desc_msg_task_submit_reply, &reply));
    assert_true(reply.first > old);
    rig_free(rig);
}

/* ------------------------------------------------ rows of other things */
static void a_damaged_session_begins_anew(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, SESSION, NULL);
    assert_int_not_equal(rig_submitted(rig, 1, 1, &options, 1, NULL), 0);
    static const uint8_t sizes[] = {3, 17};
    for (size_t i = 0; i < HP_COUNT_OF(sizes); i++) {
        rig_crash(rig);
        struct hp_msg_hello msg = {.has = HP_HAS_HELLO_SESSION,
                                   .client = HP_STR("test"),
                                   .version = 1,
                                   .session = hp_bin_make(SESSION, 16)};
        struct hp_msg_hello_reply reply;
        rig_begin(rig);
        rig_connect(rig, 1);
        rig_end(rig);
        uint32_t msgid = call(rig, 1, HP_METHOD_HELLO, &msg);
        struct hp_loaded *loaded = catch_load(rig, HP_LOAD_SESSION);
        assert_true(loaded->found);
        loaded->state.size = sizes[i];
        tell(rig, loaded);
        assert_true(rig_answer(rig, 1, msgid, &hp_desc_msg_hello_reply, &reply));
        assert_int_equal(reply.last_number, 0);
    }
    rig_free(rig);
}

static void damaged_payloads_fail_their_tasks_alone(void **state)
{
    (void)state;
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.window_bytes = 0; /* all payloads are in the store */
    struct rig *rig = rig_new(&config);
    struct hp_st_task_options options = rig_command();
    static const uint8_t no_pack[] = {1, 2, 3};
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t ids[4];
    rig_begin(rig);
    for (uint32_t i = 0; i < 4; i++) {
        (void)rig_submit(rig, 1, i + 1, &options, 1);
        ids[i] = rig->core->next_id - 1;
    }
    rig_end(rig);
    struct hp_loaded *loaded = catch_load(rig, HP_LOAD_GROUPS);
    assert_int_equal(loaded->group_count, 4);
    loaded->groups[0].options = (struct hp_bin){0};
    loaded->groups[1].pack = hp_bin_make(no_pack, sizeof(no_pack));
    loaded->groups[3] = (struct hp_loaded_group){.first = ids[3], .count = 1, .damaged = true};
    tell(rig, loaded);
    for (uint32_t i = 0; i < 4; i++) {
        struct hp_st_task_status status = rig_get(rig, 1, ids[i]);
        assert_int_equal(status.state, i == 2 ? HP_TASK_STATE_READY : HP_TASK_STATE_FAILED);
        assert_int_equal(status.reason, i == 2 ? HP_REASON_NONE : HP_REASON_DAMAGED);
    }
    rig_worker(rig, 2, "w", 4);
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 1);
    assert_int_equal(runs[0].first, ids[2]);
    rig_free(rig);
}

/* A count that says more tasks than there are would keep queue and lane for ever. */
static void a_wrong_count_of_a_lane_is_mended(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    uint64_t first = rig_submitted(rig, 1, 0, &options, 5, NULL);
    rig_crash(rig);
    rig_begin(rig);
    rig_end(rig);
    struct hp_loaded *loaded = catch_load(rig, HP_LOAD_LANE);
    assert_int_equal(loaded->run_count, 1);
    loaded->runs[0].count = 3; /* two of the five are not found */
    tell(rig, loaded);
    struct hp_msg_queue_list msg = {0};
    struct hp_msg_queue_list_reply reply;
    rig_hello(rig, 1, NULL, NULL);
    assert_true(rig_ask(rig, 1, HP_METHOD_QUEUE_LIST, &msg, &reply));
    assert_int_equal(reply.queues.items[0].ready, 3);
    rig_worker(rig, 2, "w", 8);
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 1);
    assert_int_equal(runs[0].first, first);
    assert_int_equal(runs[0].count, 3);
    rig_free(rig);
}

/* ------------------------------------------------ delayed tasks */
static uint64_t some_delayed(struct rig *rig, uint32_t count)
{
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    options.delay_ms = 5000;
    uint64_t first = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
        first = i == 0 ? id : first;
    }
    return first;
}

static void delayed_tasks_meet_damage_when_they_are_due(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, NULL, NULL);
    uint64_t first = some_delayed(rig, 3);
    rig->now_ms += 6000;
    rig->wall_ms += 6000;
    struct hp_loaded *loaded = catch_load(rig, HP_LOAD_GROUPS);
    assert_int_equal(loaded->group_count, 3);
    loaded->groups[1].pack = (struct hp_bin){0};
    loaded->groups[1].options = (struct hp_bin){0};
    loaded->group_count = 2; /* of the third there is nothing at all */
    tell(rig, loaded);
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_READY);
    assert_int_equal(rig_get(rig, 1, first + 1).reason, HP_REASON_DAMAGED);
    assert_int_equal(rig_get(rig, 1, first + 2).reason, HP_REASON_DAMAGED);
    rig_crash(rig); /* what has failed stays so: its row went with its end */
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 4);
    rig_pass(rig, 1);
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 1);
    assert_int_equal(runs[0].first, first);
    rig_free(rig);
}

static void an_answer_that_is_cut_or_fails_ends_no_delayed_task(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, NULL, NULL);
    uint64_t first = some_delayed(rig, 2);
    rig->now_ms += 6000;
    rig->wall_ms += 6000;
    struct hp_loaded *loaded = catch_load(rig, HP_LOAD_GROUPS);
    loaded->group_count = 1;
    loaded->more = true; /* the second comes with the next answer */
    tell(rig, loaded);
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_READY);
    rig_pass(rig, 1);
    assert_int_equal(rig_state(rig, 1, first + 1), HP_TASK_STATE_READY);
    first = some_delayed(rig, 2);
    rig->now_ms += 6000;
    rig->wall_ms += 6000;
    loaded = catch_load(rig, HP_LOAD_GROUPS);
    loaded->group_count = 0;
    loaded->err = HP_ERR_CORRUPT;
    tell(rig, loaded);
    rig_pass(rig, 60000);
    assert_int_equal(rig->core->figures.failed, 0); /* an operator's, and not asked again */
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_DELAYED);
    rig_cancel(rig, 1, first, 2, HP_CANCEL_MODE_QUEUED);
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_CANCELLED);
    rig_free(rig);
}

static void rows_of_delayed_tasks_may_be_damaged(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, NULL, NULL);
    uint64_t first = some_delayed(rig, 3);
    rig_crash(rig);
    struct hp_loaded *loaded = catch_load(rig, HP_LOAD_SIDES);
    assert_int_equal(loaded->side_count, 3);
    loaded->side_count = 1;
    loaded->err = HP_ERR_CORRUPT;
    tell(rig, loaded);
    rig_hello(rig, 1, NULL, NULL);
    rig_pass(rig, 6000);
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_READY); /* it came before the damage */
    assert_int_equal(rig_state(rig, 1, first + 1), HP_TASK_STATE_DELAYED);
    for (int i = 0; i < 20; i++) {
        rig_pass(rig, 1000);
        assert_int_equal(rig->job_count, 0); /* nor is it read again and again */
    }
    rig_free(rig);
}

/* ------------------------------------------------ pools */
static void a_damaged_pool_fails_and_its_calls_too(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        struct rig *rig = rig_new(NULL);
        rig_hello(rig, 1, SESSION, NULL);
        uint64_t pool = pool_open(rig, 1, 1);
        uint64_t first = pool_calls(rig, 2, pool, 3);
        rig_crash(rig);
        rig_begin(rig);
        rig_end(rig);
        struct hp_loaded *loaded = catch_load(rig, HP_LOAD_GROUPS);
        assert_int_equal(loaded->groups[0].first, pool);
        loaded->group_count = how == 0 ? 0 : 1;
        loaded->groups[0].damaged = how == 1;
        loaded->groups[0].options = how == 2 ? hp_bin_make("\xc1", 1) : (struct hp_bin){0};
        tell(rig, loaded);
        rig_hello(rig, 1, SESSION, NULL);
        for (int i = 0; i < 5; i++) {
            rig_pass(rig, 100);
        }
        struct hp_st_task_status status = rig_get(rig, 1, first + 2);
        assert_int_equal(status.state, HP_TASK_STATE_FAILED);
        assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_FAILED);
        struct hp_msg_pool_info_reply info;
        (void)pool_info_of(rig, 1, pool, &info, NULL);
        rig_free(rig);
    }
}

/* Calls that wait for their time are looked for when their pool is terminated. */
static void a_pool_ends_though_its_count_is_wrong(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t pool = pool_open(rig, 1, 1);
    struct hp_st_task_options options = call_options(pool);
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    options.delay_ms = 3600000;
    uint64_t first = rig_submitted(rig, 1, 2, &options, 2, NULL);
    hp_pool_find(rig->core, pool)->delayed += 3; /* as after rows that were lost */
    struct hp_msg_pool_end end = {
        .has = HP_HAS_POOL_END_HOW, .pool = pool, .how = HP_POOL_END_TERMINATE};
    (void)call(rig, 1, HP_METHOD_POOL_END, &end);
    for (int i = 0; i < 10; i++) {
        rig_pass(rig, 100);
    }
    assert_int_equal(rig_get(rig, 1, first).reason, HP_REASON_POOL_ENDED);
    assert_int_equal(rig_get(rig, 1, first + 1).reason, HP_REASON_POOL_ENDED);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_CANCELLED);
    rig_free(rig);
}

static void a_search_for_calls_may_fail_or_be_cut(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t pool = pool_open(rig, 1, 1);
    struct hp_st_task_options options = call_options(pool);
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    options.delay_ms = 100000;
    uint64_t first = rig_submitted(rig, 1, 2, &options, 2, NULL);
    struct hp_msg_pool_end end = {
        .has = HP_HAS_POOL_END_HOW, .pool = pool, .how = HP_POOL_END_TERMINATE};
    (void)call(rig, 1, HP_METHOD_POOL_END, &end);
    struct hp_loaded *loaded = catch_load(rig, HP_LOAD_LIST);
    assert_int_equal(loaded->tasks[0].id, first + 1);
    loaded->more = true; /* the rest with another answer */
    loaded->next = first + 1;
    loaded->task_count = 1;
    tell(rig, loaded);
    assert_int_equal(rig_state(rig, 1, first + 1), HP_TASK_STATE_FAILED);
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_FAILED);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_CANCELLED);
    /* A damaged row on the way: the calls fail when they are due, and the pool ends with them. */
    pool = pool_open(rig, 3, 1);
    options.pool = pool;
    first = rig_submitted(rig, 1, 4, &options, 2, NULL);
    end.pool = pool;
    (void)call(rig, 1, HP_METHOD_POOL_END, &end);
    loaded = catch_load(rig, HP_LOAD_LIST);
    loaded->task_count = 0;
    loaded->err = HP_ERR_CORRUPT;
    tell(rig, loaded);
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_DELAYED);
    for (int i = 0; i < 120; i++) {
        rig_pass(rig, 1000);
    }
    assert_int_equal(rig_get(rig, 1, first).reason, HP_REASON_POOL_ENDED);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_CANCELLED);
    rig_free(rig);
}

/* ------------------------------------------------ a start from odd records */
static void a_start_takes_what_makes_sense(void **state)
{
    (void)state;
    struct hp_core_config config;
    hp_core_config_init(&config);
    struct hp_core *core = hp_core_new(&config);
    static const uint8_t boot[16] = "sixteen bytes ok";
    const struct hp_record records[] = {
        {.kind = HP_RECORD_META, .meta = {.epoch = 7}}, /* a first start: ids begin at 1 */
        {.kind = HP_RECORD_QUEUE,
         .queue = {.name = hp_bin_make("q", 1), .state = hp_bin_make("\1", 1)}},
        {.kind = HP_RECORD_NODE,
         .node = {.number = 5,
                  .name = hp_bin_make("short", 5),
                  .boot = hp_bin_make(boot, 3),
                  .state = hp_bin_make("\1\377x", 3)}},
        {.kind = HP_RECORD_NODE,
         .node = {.number = 3,
                  .name = hp_bin_make("good", 4),
                  .boot = hp_bin_make(boot, 16),
                  .state = hp_bin_make("\1\4hostwhy", 9)}},
        {.kind = HP_RECORD_SIDE, .side = {.first = 9, .kind = HP_SIDE_CANCELLING}},
        {.kind = HP_RECORD_UKEY, .ukey = {.key = hp_bin_make("\0\1", 2), .id = 9}},
    };
    for (size_t i = 0; i < HP_COUNT_OF(records); i++) {
        hp_core_recover(core, &records[i], 1000, 1700000000000);
    }
    assert_true(core->next_id == 1 && core->next_blob == 1 && core->epoch == 7);
    struct hp_node *node = hp_strmap_find_ptr(&core->nodes_by_name, HP_STR("good"));
    assert_true(node->draining && strcmp(node->host, "host") == 0);
    assert_string_equal(node->reason, "why");
    node = hp_strmap_find_ptr(&core->nodes_by_name, HP_STR("short"));
    assert_true(!node->draining && node->host[0] == '\0');
    assert_int_equal(core->next_node, 6);
    struct hp_queue *queue = hp_strmap_find_ptr(&core->queues, HP_STR("q"));
    assert_false(queue->paused);
    hp_core_check(core);
    hp_core_free(core);
    hp_core_free(NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_damaged_result_is_said_to_be),
    cmocka_unit_test(memory_knows_better_than_damaged_rows),
    cmocka_unit_test(a_cancel_leaves_damaged_tasks_alone),
    cmocka_unit_test(others_go_on_beside_damaged_tasks),
    cmocka_unit_test(a_damaged_session_begins_anew),
    cmocka_unit_test(damaged_payloads_fail_their_tasks_alone),
    cmocka_unit_test(a_wrong_count_of_a_lane_is_mended),
    cmocka_unit_test(delayed_tasks_meet_damage_when_they_are_due),
    cmocka_unit_test(an_answer_that_is_cut_or_fails_ends_no_delayed_task),
    cmocka_unit_test(rows_of_delayed_tasks_may_be_damaged),
    cmocka_unit_test(a_damaged_pool_fails_and_its_calls_too),
    cmocka_unit_test(a_pool_ends_though_its_count_is_wrong),
    cmocka_unit_test(a_search_for_calls_may_fail_or_be_cut),
    cmocka_unit_test(a_start_takes_what_makes_sense),
};

HP_TEST_MAIN(tests)
