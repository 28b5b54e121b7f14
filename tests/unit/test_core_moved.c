/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store was read for a request, and what it saw has changed before the core hears of it; or who
 * asked has left meanwhile. The answer is that of the later state, and nothing is done twice.
 */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"
#include "tests/unit/core_ask.h"

#define SESSION "client session 1"

static struct hp_st_assign_run runs[64];

/* Reads for the oldest load that waits, which is not answered yet. */
static struct hp_loaded *read_store(struct rig *rig)
{
    for (uint32_t i = 0; i < rig->job_count; i++) {
        struct hp_load *load = rig->jobs[i].load;
        if (load == NULL) {
            continue;
        }
        rig->job_count--;
        memmove(rig->jobs + i, rig->jobs + i + 1, (rig->job_count - i) * sizeof(rig->jobs[0]));
        struct hp_loaded *loaded = hp_loaded_new(load);
        while (!hp_store_load(rig->store, loaded)) {
        }
        return loaded;
    }
    fail_msg("%s", "no load");
    return NULL;
}

static void hand_over(struct rig *rig, struct hp_loaded *loaded)
{
    struct hp_event event = {.kind = HP_EVENT_LOADED, .loaded = loaded};
    rig_begin(rig);
    hp_core_step(rig->core, &event);
    rig_end(rig);
    hp_loaded_free(loaded);
}

/* --------------------------------------------------------------------------- what is asked */

enum what { GET, LIST, WHY, FOLLOW, UNFOLLOW, WAIT, CANCEL };

static uint32_t ask(struct rig *rig, uint64_t conn, enum what what, uint64_t id)
{
    struct hp_msg_task_get get = {.has = HP_HAS_TASK_GET_IDS, .ids = {.items = &id, .count = 1}};
    struct hp_msg_task_list list = {.has = HP_HAS_TASK_LIST_LIMIT, .limit = 5};
    struct hp_msg_task_why why = {.id = id};
    struct hp_msg_task_follow follow = {
        .has = HP_HAS_TASK_FOLLOW_ON, .id = id, .on = what == FOLLOW};
    struct hp_msg_task_wait wait = {
        .has = HP_HAS_TASK_WAIT_TIMEOUT_MS, .timeout_ms = 1000, .ids = {.items = &id, .count = 1}};
    struct hp_msg_task_cancel cancel = {.has = HP_HAS_TASK_CANCEL_IDS | HP_HAS_TASK_CANCEL_MODE,
                                        .ids = {.items = &id, .count = 1},
                                        .mode = HP_CANCEL_MODE_FORCE};
    switch (what) {
    case GET:
        return RIG_CALL(rig, conn, TASK_GET, task_get, &get);
    case LIST:
        return RIG_CALL(rig, conn, TASK_LIST, task_list, &list);
    case WHY:
        return RIG_CALL(rig, conn, TASK_WHY, task_why, &why);
    case FOLLOW:
    case UNFOLLOW:
        return RIG_CALL(rig, conn, TASK_FOLLOW, task_follow, &follow);
    case WAIT:
        return RIG_CALL(rig, conn, TASK_WAIT, task_wait, &wait);
    case CANCEL:
    default:
        return RIG_CALL(rig, conn, TASK_CANCEL, task_cancel, &cancel);
    }
}

/* The answer must be that of a task in `state`, which it reached after it was asked for. */
static void expect_answer(struct rig *rig, enum what what, uint32_t msgid, enum hp_task_state state)
{
    struct hp_msg_task_get_reply get;
    struct hp_msg_task_list_reply list;
    struct hp_msg_task_why_reply why;
    struct hp_msg_task_follow_reply follow;
    struct hp_msg_task_wait_reply wait;
    struct hp_msg_task_cancel_reply cancel;
    switch (what) {
    case GET:
        assert_true(rig_answer(rig, 3, msgid, &hp_desc_msg_task_get_reply, &get));
        /* It is not asked again: what moves right now is said to run. */
        assert_true(get.tasks.items[0].state == state ||
                    get.tasks.items[0].state == HP_TASK_STATE_RUNNING);
        break;
    case LIST:
        assert_true(rig_answer(rig, 3, msgid, &hp_desc_msg_task_list_reply, &list));
        assert_true(list.tasks.count >= 1);
        break;
    case WHY:
        assert_true(rig_answer(rig, 3, msgid, &hp_desc_msg_task_why_reply, &why));
        assert_int_equal(why.state, state);
        break;
    case FOLLOW:
    case UNFOLLOW:
        assert_true(rig_answer(rig, 3, msgid, &hp_desc_msg_task_follow_reply, &follow));
        assert_int_equal(follow.state, state);
        break;
    case WAIT:
        rig_pass(rig, 1001);
        assert_true(rig_answer(rig, 3, msgid, &hp_desc_msg_task_wait_reply, &wait));
        assert_true(wait.tasks.items[0].state == state ||
                    wait.tasks.items[0].state == HP_TASK_STATE_RUNNING);
        assert_int_equal(wait.timed_out, state < HP_TASK_STATE_DONE);
        break;
    case CANCEL:
    default:
        assert_true(rig_answer(rig, 3, msgid, &hp_desc_msg_task_cancel_reply, &cancel));
        assert_int_equal(cancel.too_late, state >= HP_TASK_STATE_DONE);
        assert_int_equal(cancel.cancelled + cancel.cancelling, state < HP_TASK_STATE_DONE);
        break;
    }
}

/* --------------------------------------------------------------------------- what happens */

/* Sends the end of an attempt in a turn of its own; the store is not told yet. */
static void ends(struct rig *rig, uint64_t id, enum hp_reason reason)
{
    static const uint8_t empty_map[] = {0x80};
    struct hp_st_done_item item = {.has = reason != HP_REASON_NONE ? HP_HAS_ST_DONE_ITEM_REASON : 0,
                                   .id = id,
                                   .attempt = 1,
                                   .epoch = 1,
                                   .reason = reason,
                                   .end = {.data = empty_map, .size = 1}};
    struct hp_msg_worker_done done = {.items = {.items = &item, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_DONE, worker_done, &done);
    rig_end(rig);
}

static struct rig *rig_ready(void)
{
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    rig_hello(rig, 3, NULL, NULL);
    return rig;
}

/* Connection 3 asks, and the store looks: what it found is not handed over yet. */
static struct hp_loaded *asked(struct rig *rig, enum what what, uint64_t id, uint32_t *ret_msgid)
{
    rig_begin(rig);
    *ret_msgid = ask(rig, 3, what, id);
    rig_end(rig);
    return read_store(rig);
}

static void a_task_that_ends_meanwhile(void **state)
{
    (void)state;
    for (enum what what = 0; what <= CANCEL; what++) {
        struct rig *rig = rig_ready();
        struct hp_st_task_options options = rig_command();
        rig_worker(rig, 2, "w", 1);
        uint64_t id = rig_submitted(rig, 1, 1, &options, 1, NULL);
        uint32_t msgid = 0;
        struct hp_loaded *loaded = asked(rig, what, id, &msgid);
        ends(rig, id, HP_REASON_NONE);
        rig_settle(rig);
        hand_over(rig, loaded);
        expect_answer(rig, what, msgid, HP_TASK_STATE_DONE);
        rig_free(rig);
    }
}

static void a_task_that_is_taken_meanwhile(void **state)
{
    (void)state;
    for (enum what what = 0; what <= CANCEL; what++) {
        struct rig *rig = rig_ready();
        struct hp_st_task_options options = rig_command();
        uint64_t id = rig_submitted(rig, 1, 1, &options, 1, NULL);
        uint32_t msgid = 0;
        struct hp_loaded *loaded = asked(rig, what, id, &msgid);
        rig_worker(rig, 2, "w", 1);
        assert_int_equal(rig_assigned(rig, 2, runs, 64), 1);
        hand_over(rig, loaded);
        expect_answer(rig, what, msgid, HP_TASK_STATE_LEASED);
        rig_free(rig);
    }
}

static void a_delay_that_ends_meanwhile(void **state)
{
    (void)state;
    for (enum what what = 0; what <= CANCEL; what++) {
        struct rig *rig = rig_ready();
        struct hp_st_task_options options = rig_command();
        options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
        options.delay_ms = 2000;
        uint64_t id = rig_submitted(rig, 1, 1, &options, 3, NULL) + 1; /* one of a row */
        uint32_t msgid = 0;
        struct hp_loaded *loaded = asked(rig, what, id, &msgid);
        rig_pass(rig, 2000);
        hand_over(rig, loaded);
        expect_answer(rig, what, msgid, HP_TASK_STATE_READY);
        rig_free(rig);
    }
}

static void a_task_that_fails_meanwhile_and_waits_again(void **state)
{
    (void)state;
    for (enum what what = 0; what <= CANCEL; what++) {
        struct rig *rig = rig_ready();
        struct hp_st_task_options options = rig_command();
        rig_worker(rig, 2, "w", 1);
        options.has |= HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES | HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS;
        options.max_retries = 1;
        options.retry_base_ms = 100000;
        uint64_t id = rig_submitted(rig, 1, 1, &options, 1, NULL);
        uint32_t msgid = 0;
        struct hp_loaded *loaded = asked(rig, what, id, &msgid);
        ends(rig, id, HP_REASON_EXIT);
        hand_over(rig, loaded); /* before it is in the store */
        expect_answer(rig, what, msgid, HP_TASK_STATE_DELAYED);
        rig_free(rig);
    }
}

/* Nobody is answered; a cancel is carried out all the same. */
static void who_asked_has_left(void **state)
{
    (void)state;
    for (enum what what = 0; what <= CANCEL; what++) {
        struct rig *rig = rig_ready();
        struct hp_st_task_options options = rig_command();
        uint64_t id = rig_submitted(rig, 1, 1, &options, 1, NULL);
        rig_begin(rig);
        (void)ask(rig, 3, what, id);
        rig_end(rig);
        struct hp_loaded *loaded = read_store(rig);
        rig_begin(rig);
        rig_disconnect(rig, 3);
        rig_end(rig);
        hand_over(rig, loaded);
        rig_settle(rig);
        assert_int_equal(rig->out[2].size, 0);
        assert_true(hp_list_is_empty(&rig->core->follows));
        assert_int_equal(rig_state(rig, 1, id),
                         what == CANCEL ? HP_TASK_STATE_CANCELLED : HP_TASK_STATE_READY);
        rig_free(rig);
    }
}

/* --------------------------------------------------------------------------- timers */

/* Both times of a task are the same, and the window ends between its two rows. */
static void two_rows_of_a_task_at_one_time(void **state)
{
    (void)state;
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.window_timers = 3;
    struct rig *rig = rig_new(&config);
    struct hp_st_task_options options = rig_command();
    uint64_t ids[8];
    rig_hello(rig, 1, SESSION, NULL);
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS | HP_HAS_ST_TASK_OPTIONS_EXPIRE_MS;
    options.delay_ms = 5000;
    options.expire_ms = 5000;
    for (uint64_t i = 0; i < 8; i++) {
        ids[i] = rig_submitted(rig, 1, 1 + i, &options, 1, NULL);
    }
    for (int i = 0; i < 20; i++) {
        rig_pass(rig, 1000);
    }
    for (uint64_t i = 0; i < 8; i++) {
        enum hp_task_state now = rig_state(rig, 1, ids[i]);
        assert_true(now == HP_TASK_STATE_EXPIRED);
    }
    rig_free(rig);
}

/* What is due is cancelled while its payload is read; what expires starts while it is looked at. */
static void timers_whose_tasks_moved(void **state)
{
    (void)state;
    struct rig *rig = rig_ready();
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    options.delay_ms = 1000;
    uint64_t id = rig_submitted(rig, 1, 1, &options, 1, NULL);
    rig->now_ms += 1000;
    rig->wall_ms += 1000;
    rig_begin(rig);
    rig_end(rig);
    struct hp_loaded *due = read_store(rig);
    rig_cancel(rig, 3, id, 1, HP_CANCEL_MODE_FORCE);
    hand_over(rig, due);
    rig_settle(rig);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_CANCELLED);
    options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_EXPIRE_MS;
    options.expire_ms = 1000;
    id = rig_submitted(rig, 1, 2, &options, 2, NULL);
    rig->now_ms += 1000;
    rig->wall_ms += 1000;
    rig_begin(rig);
    rig_end(rig);
    due = read_store(rig);
    rig_worker(rig, 2, "w", 1);
    hand_over(rig, due);
    rig_settle(rig);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_LEASED);
    assert_int_equal(rig_state(rig, 1, id + 1), HP_TASK_STATE_EXPIRED);
    rig_free(rig);
}

static void unique(struct hp_st_task_options *options, enum hp_on_conflict rule)
{
    options->has |= HP_HAS_ST_TASK_OPTIONS_UKEY | HP_HAS_ST_TASK_OPTIONS_ON_CONFLICT;
    options->ukey = HP_STR("unique");
    options->on_conflict = rule;
}

/* on_conflict=replace: the holder ends, starts, or its replacement's client leaves. */
static void a_holder_that_moved(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        struct rig *rig = rig_ready();
        struct hp_st_task_options options = rig_command();
        struct hp_msg_task_submit_reply reply;
        unique(&options, HP_ON_CONFLICT_REPLACE);
        uint64_t id = rig_submitted(rig, 1, 1, &options, 1, NULL);
        rig_begin(rig);
        uint32_t msgid = rig_submit(rig, 1, 2, &options, 1);
        rig_end(rig);
        struct hp_loaded *loaded = read_store(rig);
        if (how == 0) {
            rig_cancel(rig, 3, id, 1, HP_CANCEL_MODE_FORCE);
        } else if (how == 1) {
            rig_worker(rig, 2, "w", 1);
        } else {
            rig_begin(rig);
            rig_disconnect(rig, 1);
            rig_end(rig);
        }
        hand_over(rig, loaded);
        if (how == 0) {
            assert_true(rig_answer(rig, 1, msgid, &hp_desc_msg_task_submit_reply, &reply));
            assert_int_not_equal(reply.first, id);
            assert_int_equal(rig_state(rig, 3, reply.first), HP_TASK_STATE_READY);
        } else if (how == 1) {
            assert_refused(rig_answer(rig, 1, msgid, &hp_desc_msg_task_submit_reply, &reply),
                           CONFLICT);
            assert_int_equal(rig_state(rig, 3, id), HP_TASK_STATE_LEASED);
        } else {
            rig_settle(rig);
            assert_int_equal(rig_state(rig, 3, id), HP_TASK_STATE_READY);
        }
        rig_free(rig);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_task_that_ends_meanwhile),
    cmocka_unit_test(a_task_that_is_taken_meanwhile),
    cmocka_unit_test(a_delay_that_ends_meanwhile),
    cmocka_unit_test(a_task_that_fails_meanwhile_and_waits_again),
    cmocka_unit_test(who_asked_has_left),
    cmocka_unit_test(two_rows_of_a_task_at_one_time),
    cmocka_unit_test(timers_whose_tasks_moved),
    cmocka_unit_test(a_holder_that_moved),
};

HP_TEST_MAIN(tests)
