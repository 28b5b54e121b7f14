/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Questions at odd times: of pools that were just recovered, have failed or never were; of a core
 * that has no such connection; sessions that are too many; and waits, lists and timers that are
 * more than one answer of the store.
 */
#include "tests/lib/hp_test.h"

#include <stdio.h>

#include "server/core/pool.h"
#include "tests/lib/core_rig.h"
#include "tests/unit/core_ask.h"
#include "tests/unit/core_pool_fixture.h"

static struct hp_st_assign_run runs[64];

/* ------------------------------------------------ pools */
static struct hp_msg_pool_list_reply list_pools(struct rig *rig, uint32_t limit, uint64_t after)
{
    struct hp_msg_pool_list msg = {
        .has = HP_HAS_POOL_LIST_LIMIT | HP_HAS_POOL_LIST_AFTER, .limit = limit, .after = after};
    struct hp_msg_pool_list_reply reply;
    assert_true(rig_ask(rig, 1, HP_METHOD_POOL_LIST, &msg, &reply));
    return reply;
}

static void pools_are_listed_whoever_has_them(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    struct hp_st_task_options options = pool_options(1);
    uint64_t plain = pool_open(rig, 1, 1);
    options.name = HP_STR("its name");
    options.user = HP_STR("someone");
    options.has |= HP_HAS_ST_TASK_OPTIONS_NAME | HP_HAS_ST_TASK_OPTIONS_USER;
    uint64_t named = rig_submitted(rig, 1, 2, &options, 1, NULL);
    struct hp_msg_pool_list_reply reply = list_pools(rig, 1, 0);
    assert_int_equal(reply.pools.count, 1);
    assert_int_equal(reply.next, plain);
    assert_int_equal(reply.pools.items[0].name.size, 0);
    assert_int_equal(reply.pools.items[0].user.size, 0);
    reply = list_pools(rig, 10, plain);
    assert_int_equal(reply.pools.count, 1);
    assert_int_equal(reply.pools.items[0].pool, named);
    assert_true(hp_str_eq(reply.pools.items[0].name, HP_STR("its name")));
    assert_true(hp_str_eq(reply.pools.items[0].user, HP_STR("someone")));
    assert_true(reply.pools.items[0].owned);
    rig_crash(rig);
    rig_begin(rig); /* while its row is read nothing is known but its number and state */
    rig_end(rig);
    struct hp_load *loads[64];
    uint32_t kept = 0;
    for (uint32_t i = 0; i < rig->job_count;) {
        struct hp_load *load = rig->jobs[i].load;
        if (load == NULL || load->kind != HP_LOAD_GROUPS) {
            i++;
            continue;
        }
        loads[kept++] = load;
        rig->job_count--;
        memmove(rig->jobs + i, rig->jobs + i + 1, (rig->job_count - i) * sizeof(rig->jobs[0]));
    }
    assert_int_equal(kept, 2);
    rig_hello(rig, 1, NULL, NULL);
    reply = list_pools(rig, 10, 0);
    assert_int_equal(reply.pools.count, 2);
    assert_false(reply.pools.items[1].owned);
    assert_int_equal(reply.pools.items[1].name.size, 0);
    assert_int_equal(pool_state(rig, 1, named), HP_POOL_STATE_OPEN);
    struct hp_msg_task_why why = {.id = named};
    assert_true(rig_ask(rig, 1, HP_METHOD_TASK_WHY, &why, NULL));
    for (uint32_t i = 0; i < kept; i++) {
        rig->jobs[rig->job_count].batch = NULL;
        rig->jobs[rig->job_count++].load = loads[i];
    }
    rig_settle(rig);
    reply = list_pools(rig, 10, 0);
    assert_true(hp_str_eq(reply.pools.items[1].name, HP_STR("its name")));
    assert_false(reply.pools.items[1].owned); /* its session has no connection now */
    rig_free(rig);
}

static void tasks_that_are_no_pools(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    struct hp_msg_pool_info_reply info;
    enum hp_rpc_error_code code = 0;
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t id = rig_submitted(rig, 1, 1, &options, 2, NULL);
    rig_cancel(rig, 1, id, 1, HP_CANCEL_MODE_FORCE);
    const uint64_t ids[] = {id, id + 1, id + 100};
    for (size_t i = 0; i < HP_COUNT_OF(ids); i++) { /* ended, waiting, unknown */
        assert_false(pool_info_of(rig, 1, ids[i], &info, &code));
        assert_int_equal(code, HP_RPC_ERROR_NOT_FOUND);
        struct hp_st_task_options call = call_options(ids[i]);
        assert_int_equal(rig_submitted(rig, 1, 2 + i, &call, 1, &code), 0);
        assert_int_equal(code, HP_RPC_ERROR_NOT_FOUND);
        struct hp_msg_pool_put put = {
            .pool = ids[i], .digest = hp_bin_make("0123456789abcdef", 16), .blob = 5};
        assert_refused(rig_ask(rig, 1, HP_METHOD_POOL_PUT, &put, NULL), NOT_FOUND);
    }
    rig_free(rig);
}

static void contents_and_who_may_attach(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    char digest[17];
    rig_hello(rig, 1, SESSION, NULL);
    rig_hello(rig, 3, NULL, NULL);
    uint64_t pool = pool_open(rig, 1, 1);
    struct hp_msg_pool_detach detach = {.has = HP_HAS_POOL_DETACH_ON, .pool = pool, .on = false};
    assert_refused(rig_ask(rig, 3, HP_METHOD_POOL_DETACH, &detach, NULL), BAD_REQUEST);
    struct hp_msg_pool_get get = {.pool = pool, .digest = hp_bin_make("short", 5)};
    assert_refused(rig_ask(rig, 1, HP_METHOD_POOL_GET, &get, NULL), BAD_REQUEST);
    for (uint32_t i = 0; i < 20; i++) { /* more than there is room for at first */
        (void)snprintf(digest, sizeof(digest), "digest number %02u", i);
        struct hp_msg_pool_put put = {
            .has = HP_HAS_POOL_PUT_BLOB, .pool = pool, .digest = hp_bin_make(digest, 16)};
        put.blob = 100 + i;
        assert_true(rig_ask(rig, 1, HP_METHOD_POOL_PUT, &put, NULL));
    }
    rig_crash(rig);
    rig_hello(rig, 1, SESSION, NULL);
    for (uint32_t i = 0; i < 20; i++) {
        struct hp_msg_pool_get_reply reply;
        (void)snprintf(digest, sizeof(digest), "digest number %02u", i);
        get.digest = hp_bin_make(digest, 16);
        assert_true(rig_ask(rig, 1, HP_METHOD_POOL_GET, &get, &reply));
        assert_int_equal(reply.blob, 100 + i);
    }
    rig_free(rig);
}

/* Keys of pools in the store which belong to no pool, or to no kind of key. */
static void keys_without_a_pool(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t pool = pool_open(rig, 1, 1);
    const uint8_t keys[][26] = {
        {0, HP_POOL_KEY_CONTENT, 0, 0, 0, 0, 0, 0, 1, 99}, /* of no pool */
        {0, HP_POOL_KEY_OWNER, 0, 0, 0, 0, 0, 0, 1, 99},
        {0, 200, 0, 0, 0, 0, 0, 0, 0, (uint8_t)pool},
        {0, HP_POOL_KEY_OWNER, 0, 0, 0, 0, 0, 0, 0, (uint8_t)pool}, /* too short */
    };
    for (size_t i = 0; i < HP_COUNT_OF(keys); i++) {
        struct hp_record record = {.kind = HP_RECORD_UKEY,
                                   .ukey = {.key = hp_bin_make(keys[i], 20), .id = 7}};
        uint64_t contents = hp_idmap_count(&rig->core->contents);
        uint64_t ukeys = hp_idmap_count(&rig->core->ukeys);
        hp_core_recover(rig->core, &record, rig->now_ms, rig->wall_ms);
        assert_int_equal(hp_idmap_count(&rig->core->contents), contents);
        assert_int_equal(hp_idmap_count(&rig->core->ukeys), ukeys);
    }
    rig_free(rig);
}

static void a_pool_that_failed_says_why(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_msg_pool_info_reply info;
    rig_hello(rig, 1, NULL, NULL);
    rig_hello(rig, 4, SESSION, NULL);
    pool_worker(rig, 2, "w", 1);
    struct hp_st_task_options options = pool_options(1);
    uint64_t pool = rig_submitted(rig, 4, 1, &options, 1, NULL);
    struct hp_msg_pool_info wait = {
        .has = HP_HAS_POOL_INFO_WAIT_MS, .pool = pool, .wait_ms = 60000};
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, 4, POOL_INFO, pool_info, &wait);
    rig_end(rig);
    pool_report(rig, 2, pool, 0, 1, "no module named x");
    struct hp_msg_task_why why = {.id = pool};
    assert_true(rig_ask(rig, 1, HP_METHOD_TASK_WHY, &why, NULL));
    assert_true(pool_info_of(rig, 1, pool, &info, NULL));
    assert_true(hp_str_eq(info.error, HP_STR("no module named x")));
    pool_report(rig, 2, pool, 0, 3, "no module named x");
    assert_true(rig_answer(rig, 4, msgid, &hp_desc_msg_pool_info_reply, &info));
    assert_true(info.error.size > 0);
    for (int i = 0; i < 5; i++) {
        rig_pass(rig, 100);
    }
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_FAILED);
    assert_true(pool_info_of(rig, 1, pool, &info, NULL));
    assert_int_equal(info.state, HP_POOL_STATE_ENDED);
    assert_true(info.error.size > 0);
    rig_free(rig);
}

/* ------------------------------------------------ connections and sessions */
static void connections_that_are_not_there(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_begin(rig);
    rig_frame(rig, 5, "\xc0", 1);
    rig_disconnect(rig, 5);
    rig_end(rig);
    assert_false(hp_core_wants_input(rig->core, 5));
    assert_false(hp_core_is_urgent(rig->core, 5));
    assert_false(hp_core_is_greeted(rig->core, 5));
    assert_false(hp_core_is_drained(rig->core));
    rig_begin(rig);
    rig_connect(rig, 5);
    rig_end(rig);
    assert_true(hp_core_wants_input(rig->core, 5));
    assert_true(hp_core_is_urgent(rig->core, 5)); /* it may be a worker's */
    assert_false(hp_core_is_greeted(rig->core, 5));
    assert_true(hp_core_next_deadline_ms(rig->core) <= rig->now_ms + rig->core->config.prehello_ms);
    rig_begin(rig);
    rig_frame(rig, 5, "\xc0", 1);
    rig_end(rig);
    assert_true(rig->closed[4]);
    assert_false(hp_core_wants_input(rig->core, 5));
    rig_hello(rig, 1, NULL, NULL);
    assert_false(hp_core_is_urgent(rig->core, 1));
    assert_true(hp_core_is_greeted(rig->core, 1));
    struct hp_event event = {.kind = HP_EVENT_DRAIN};
    rig_begin(rig);
    hp_core_step(rig->core, &event);
    assert_false(hp_core_is_drained(rig->core));
    rig_end(rig);
    rig_settle(rig);
    assert_true(hp_core_is_drained(rig->core));
    rig_free(rig);
}

/* Sessions that nobody uses go when there are too many; those that are in use stay. */
static void sessions_are_bounded(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 2, SESSION, NULL);
    for (uint32_t i = 0; i < 2200; i++) {
        char session[17];
        (void)snprintf(session, sizeof(session), "session no. %04u", i);
        rig_hello(rig, 1, session, NULL);
        rig_begin(rig);
        rig_disconnect(rig, 1);
        rig_end(rig);
    }
    rig_settle(rig);
    assert_true(rig->core->session_count <= 2048);
    assert_non_null(hp_session_find(rig->core, hp_bin_make(SESSION, 16)));
    assert_non_null(hp_session_find(rig->core, hp_bin_make("session no. 2199", 16)));
    assert_null(hp_session_find(rig->core, hp_bin_make("session no. 0000", 16)));
    rig_free(rig);
}

/* ------------------------------------------------ more than one answer */
static void many_results_in_one_wait(void **state)
{
    (void)state;
    enum { COUNT = 40 };
    static uint8_t end[11 + 60000] = {0x81, 0xa6, 'r',  'e',        's',         'u',
                                      'l',  't',  0xc5, 60000 >> 8, 60000 & 0xff};
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    uint64_t ids[COUNT];
    rig_hello(rig, 1, SESSION, NULL);
    rig_worker(rig, 2, "w", COUNT);
    uint64_t first = rig_submitted(rig, 1, 1, &options, COUNT, NULL);
    for (uint32_t i = 0; i < COUNT; i++) {
        ids[i] = first + i;
    }
    struct hp_msg_task_wait wait = {.has = HP_HAS_TASK_WAIT_TIMEOUT_MS | HP_HAS_TASK_WAIT_END,
                                    .timeout_ms = 1000,
                                    .end = true,
                                    .ids = {.items = ids, .count = COUNT}};
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, 1, TASK_WAIT, task_wait, &wait);
    rig_end(rig);
    for (uint32_t i = 0; i < COUNT; i++) {
        struct hp_st_done_item item = {
            .id = ids[i], .attempt = 1, .epoch = 1, .end = {.data = end, .size = 60000 + 11}};
        struct hp_msg_worker_done done = {.items = {.items = &item, .count = 1}};
        assert_true(rig_ask(rig, 2, HP_METHOD_WORKER_DONE, &done, NULL));
    }
    struct hp_msg_task_wait_reply reply;
    assert_true(rig_answer(rig, 1, msgid, &hp_desc_msg_task_wait_reply, &reply));
    assert_int_equal(reply.tasks.count, COUNT);
    assert_false(reply.timed_out);
    uint32_t ends = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(reply.tasks.items[i].state, HP_TASK_STATE_DONE);
        ends += (reply.tasks.items[i].has & HP_HAS_ST_TASK_STATUS_END) != 0;
    }
    assert_true(ends >= 6 && ends < COUNT); /* the rest is asked for by its own */
    rig_free(rig);
}

static void more_timers_than_a_slice(void **state)
{
    (void)state;
    enum { COUNT = 700 };
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, SESSION, NULL);
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    options.delay_ms = 1000;
    uint64_t ids[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        ids[i] = rig_submitted(rig, 1, 0, &options, 1, NULL);
        assert_int_not_equal(ids[i], 0);
    }
    rig->now_ms += 2000;
    rig->wall_ms += 2000;
    rig_begin(rig);
    rig_end(rig);
    rig_settle(rig);
    rig_pass(rig, 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(rig_state(rig, 1, ids[i]), HP_TASK_STATE_READY);
    }
    rig_free(rig);
}

/* Pages over tasks in memory and in the store, of which there are more than one page may have. */
static void long_lists_of_tasks_in_memory(void **state)
{
    (void)state;
    enum { COUNT = 5000, OLD = 2500 };
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options durable = rig_command();
    struct hp_st_task_options memory = rig_command();
    memory.has |= HP_HAS_ST_TASK_OPTIONS_DURABLE;
    memory.durable = false;
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t first = rig_submitted(rig, 1, 1, &durable, OLD, NULL);
    rig_pass(rig, 1000);
    int64_t since = rig->wall_ms;
    rig_pass(rig, 1000);
    (void)rig_submitted(rig, 1, 2, &memory, COUNT, NULL);
    uint64_t ended = rig_submitted(rig, 1, 3, &memory, 2, NULL);
    rig_cancel(rig, 1, ended, 2, HP_CANCEL_MODE_FORCE);
    uint64_t last = rig_submitted(rig, 1, 4, &durable, 2, NULL) + 1;
    uint64_t states[] = {HP_TASK_STATE_READY};
    for (int how = 0; how < 4; how++) {
        struct hp_msg_task_list list = {.has = HP_HAS_TASK_LIST_LIMIT, .limit = 1000};
        if (how == 1) {
            list.states.items = states;
            list.states.count = 1;
            list.has |= HP_HAS_TASK_LIST_STATES;
        } else if (how == 2) {
            list.since_ms = since;
            list.has |= HP_HAS_TASK_LIST_SINCE_MS;
        } else if (how == 3) {
            list.before = last + 1000000; /* no such task yet */
            list.has |= HP_HAS_TASK_LIST_BEFORE;
        }
        uint32_t count = 0;
        uint64_t below = UINT64_MAX;
        for (bool more = true; more;) {
            struct hp_msg_task_list_reply reply;
            assert_true(rig_ask(rig, 1, HP_METHOD_TASK_LIST, &list, &reply));
            for (uint32_t i = 0; i < reply.tasks.count; i++) {
                assert_true(reply.tasks.items[i].id < below); /* newest first, each once */
                below = reply.tasks.items[i].id;
                count++;
            }
            more = (reply.has & HP_HAS_TASK_LIST_REPLY_NEXT) != 0;
            list.before = reply.next;
            list.has |= HP_HAS_TASK_LIST_BEFORE;
        }
        uint32_t all = OLD + COUNT + 2 + 2;
        assert_int_equal(count, how == 1 ? all - 2 : how == 2 ? all - OLD : all);
        assert_int_equal(below, how == 2 ? first + OLD : first);
    }
    rig_free(rig);
}

/* More tasks than one answer holds, all of them in memory. */
static void a_long_cancel_of_tasks_in_memory(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_DURABLE;
    options.durable = false;
    rig_hello(rig, 1, SESSION, NULL);
    rig_hello(rig, 3, NULL, NULL);
    uint64_t first = rig_submitted(rig, 1, 1, &options, COUNT, NULL);
    struct hp_st_id_range range = {.has = HP_HAS_ST_ID_RANGE_COUNT, .first = first, .count = COUNT};
    struct hp_msg_task_cancel msg = {.has = HP_HAS_TASK_CANCEL_RANGES | HP_HAS_TASK_CANCEL_MODE,
                                     .ranges = {.items = &range, .count = 1},
                                     .mode = HP_CANCEL_MODE_FORCE};
    struct hp_msg_task_cancel_reply reply;
    assert_true(rig_ask(rig, 3, HP_METHOD_TASK_CANCEL, &msg, &reply));
    assert_int_equal(reply.cancelled, COUNT);
    assert_int_equal(rig_state(rig, 3, first + COUNT - 1), HP_TASK_STATE_CANCELLED);
    rig_free(rig);
}

/* An array that expires is more than one answer of the store. */
static void a_long_array_expires(void **state)
{
    (void)state;
    enum { COUNT = 60000 };
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_EXPIRE_MS;
    options.expire_ms = 1000;
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t first = rig_submitted(rig, 1, 1, &options, COUNT, NULL);
    rig_worker(rig, 2, "w", 1);
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 1);
    for (int i = 0; i < 40; i++) {
        rig_pass(rig, 500);
    }
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_LEASED);
    assert_int_equal(rig_state(rig, 1, first + 1), HP_TASK_STATE_EXPIRED);
    assert_int_equal(rig_state(rig, 1, first + COUNT - 1), HP_TASK_STATE_EXPIRED);
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(pools_are_listed_whoever_has_them),
    cmocka_unit_test(tasks_that_are_no_pools),
    cmocka_unit_test(contents_and_who_may_attach),
    cmocka_unit_test(keys_without_a_pool),
    cmocka_unit_test(a_pool_that_failed_says_why),
    cmocka_unit_test(connections_that_are_not_there),
    cmocka_unit_test(sessions_are_bounded),
    cmocka_unit_test(many_results_in_one_wait),
    cmocka_unit_test(more_timers_than_a_slice),
    cmocka_unit_test(long_lists_of_tasks_in_memory),
    cmocka_unit_test(a_long_cancel_of_tasks_in_memory),
    cmocka_unit_test(a_long_array_expires),
};

HP_TEST_MAIN(tests)
