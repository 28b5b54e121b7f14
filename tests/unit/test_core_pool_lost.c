/* SPDX-License-Identifier: BSD-2-Clause */
/* Pools in bad times: lanes on disk, many workers and lanes, odd reports, hosts that come and go.
 */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"

#include "tests/unit/core_pool_fixture.h"

static void pass_often(struct rig *rig, int turns)
{
    for (int i = 0; i < turns; i++) {
        rig_begin(rig);
        rig_end(rig);
        rig_settle(rig);
    }
}

/* ------------------------------------------------ what waits on disk */
static struct rig *small_windows(void)
{
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.window_runs = 4;
    config.window_bytes = 0;
    return rig_new(&config);
}

/* Nothing but the store's answers may be needed to go on. */
static void termination_reaches_calls_on_disk(void **state)
{
    (void)state;
    struct rig *rig = small_windows();
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t pool = pool_open(rig, 1, 0);
    uint64_t ids[60];
    for (uint32_t i = 0; i < 60; i++) {
        ids[i] = pool_calls(rig, i + 2, pool, 2);
    }
    (void)pool_end(rig, 1, pool, HP_POOL_END_TERMINATE);
    for (uint32_t i = 0; i < 120 && hp_core_next_deadline_ms(rig->core) <= rig->now_ms; i++) {
        pass_often(rig, 1);
    }
    for (uint32_t i = 0; i < 60; i++) {
        assert_int_equal(rig_get(rig, 1, ids[i] + 1).reason, HP_REASON_POOL_ENDED);
    }
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_CANCELLED);
    rig_free(rig);
}

/* Their unique keys are free again, and who submitted them is told. */
static void calls_on_disk_end_as_others_do(void **state)
{
    (void)state;
    struct rig *rig = small_windows();
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t pool = pool_open(rig, 1, 0);
    rig_hello(rig, 3, OTHER_SESSION, NULL);
    struct hp_st_task_options options = call_options(pool);
    char key[16];
    for (uint32_t i = 0; i < 12; i++) {
        (void)snprintf(key, sizeof(key), "key%u", i);
        options.ukey = hp_str_of(key);
        options.has |= HP_HAS_ST_TASK_OPTIONS_UKEY;
        assert_int_not_equal(rig_submitted(rig, 3, i + 1, &options, 1, NULL), 0);
    }
    rig_crash(rig);
    rig_hello(rig, 1, SESSION, NULL);
    rig_hello(rig, 3, OTHER_SESSION, NULL);
    assert_int_equal(hp_idmap_count(&rig->core->ukeys), 12);
    (void)pool_end(rig, 1, pool, HP_POOL_END_TERMINATE);
    pass_often(rig, 30);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_CANCELLED);
    assert_int_equal(hp_idmap_count(&rig->core->ukeys), 0);
    struct hp_rpc rpc;
    struct hp_error error;
    uint32_t told = 0;
    while (rig_next(rig, 3, &rpc)) {
        struct hp_msg_task_event event;
        if (rpc.type == HP_RPC_NOTIFY && rpc.method == HP_METHOD_TASK_EVENT) {
            assert_ok(hp_msg_task_event_decode(rpc.params, &rig->arena, &event, &error));
            told += event.events.count;
        }
    }
    assert_int_equal(told, 12);
    rig_free(rig);
}

/* Options that nobody uses any more are forgotten, and their lanes, while others are ended. */
static void lanes_may_go_while_calls_are_ended(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", 16);
    uint64_t pool = pool_open(rig, 1, 0);
    pool_report(rig, 2, pool, 16, 0, NULL);
    struct hp_st_task_options options = call_options(pool);
    options.has |= HP_HAS_ST_TASK_OPTIONS_PRIORITY;
    uint64_t number = 2;
    /* Old specs of lanes that are empty, in front and behind of what waits. */
    for (uint32_t i = 0; i < 8; i++) {
        options.priority = 100 + i;
        uint64_t id = rig_submitted(rig, 1, number++, &options, 1, NULL);
        rig_done(rig, 2, id, 1, 1, HP_REASON_NONE);
        (void)pool_look(rig, 2);
    }
    options.has |= HP_HAS_ST_TASK_OPTIONS_NAME;
    for (uint32_t i = 0; i < 1100; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "call%u", i);
        options.name = hp_str_of(name);
        options.priority = 100 + 2 * (i % 4);
        assert_int_not_equal(rig_submitted(rig, 1, number++, &options, 1, NULL), 0);
        (void)pool_look(rig, 2);
        hp_session_ack(hp_session_find(rig->core, hp_bin_make(SESSION, 16)), number - 1);
    }
    (void)pool_end(rig, 1, pool, HP_POOL_END_TERMINATE);
    pass_often(rig, 10);
    assert_int_equal(hp_pool_live(hp_pool_find(rig->core, pool)), 16);
    rig_free(rig);
}

/* However many wait: no turn may take long, or make more than the disk can follow. */
static void many_calls_end_in_slices(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t pool = pool_open(rig, 1, 0);
    uint64_t first = 0;
    for (uint64_t i = 0; i < 50; i++) {
        first = pool_calls(rig, 0, pool, 1000);
    }
    struct hp_msg_pool_end msg = {
        .has = HP_HAS_POOL_END_HOW, .pool = pool, .how = HP_POOL_END_TERMINATE};
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, POOL_END, pool_end, &msg);
    uint32_t seen = rig->op_counts[HP_OP_RESULT];
    uint32_t turns = 0;
    for (; hp_pool_find(rig->core, pool) != NULL; turns++) {
        rig_end(rig);
        uint32_t now = rig->op_counts[HP_OP_RESULT];
        assert_true(now - seen <= 2049 && turns < 1000);
        assert_true(rig->core->backlog_ops <= rig->config.backlog_ops_max + 3000);
        seen = now;
        if (hp_core_next_deadline_ms(rig->core) > rig->now_ms) {
            assert_true(rig_job(rig)); /* it waits for the disk */
        }
        rig_begin(rig);
    }
    rig_end(rig);
    rig_settle(rig);
    assert_true(turns > 20);
    assert_int_equal(rig_get(rig, 1, first + 999).reason, HP_REASON_POOL_ENDED);
    rig_free(rig);
}

/* ------------------------------------------------ ids before their time */
static void a_call_may_come_before_its_pool_is_made(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", 1);
    struct hp_st_task_options function = rig_function();
    uint64_t last = rig_submitted(rig, 1, 0, &function, 1, NULL);
    struct hp_st_task_options options = call_options(last + 1);
    enum hp_rpc_error_code code = 0;
    assert_int_equal(rig_submitted(rig, 1, 0, &options, 1, &code), 0);
    assert_int_equal(code, HP_RPC_ERROR_NOT_FOUND);
    assert_int_equal(pool_open(rig, 0, 0), last + 1);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    assert_int_not_equal(id, 0);
    (void)pool_end(rig, 1, last + 1, HP_POOL_END_CLOSE);
    assert_int_equal(pool_state(rig, 1, last + 1), HP_POOL_STATE_CLOSING);
    pool_report(rig, 2, last + 1, 1, 0, NULL);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_LEASED);
    rig_free(rig);
}

static void a_pool_may_be_taken_over_before_it_was_read(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t pool = pool_open(rig, 1, 0);
    rig_crash(rig);
    rig_begin(rig);
    rig_connect(rig, 3);
    struct hp_msg_hello hello = {.has = HP_HAS_HELLO_SESSION,
                                 .client = HP_STR("test"),
                                 .version = 1,
                                 .session = hp_bin_make(OTHER_SESSION, 16)};
    (void)RIG_CALL(rig, 3, HELLO, hello, &hello);
    rig_end(rig);
    /* The session is answered for, the pool's row is not. */
    uint32_t at = 0;
    while (rig->jobs[at].load == NULL || rig->jobs[at].load->kind != HP_LOAD_GROUPS) {
        at++;
    }
    struct hp_load *load = rig->jobs[at].load;
    rig->job_count--;
    memmove(rig->jobs + at, rig->jobs + at + 1, (rig->job_count - at) * sizeof(rig->jobs[0]));
    rig_settle(rig);
    struct hp_msg_pool_detach msg = {.has = HP_HAS_POOL_DETACH_ON, .pool = pool, .on = false};
    rig_begin(rig);
    (void)RIG_CALL(rig, 3, POOL_DETACH, pool_detach, &msg);
    rig_end(rig);
    rig->jobs[rig->job_count].batch = NULL;
    rig->jobs[rig->job_count++].load = load;
    rig_settle(rig);
    struct hp_pool *found = hp_pool_find(rig->core, pool);
    assert_true(found->loaded);
    assert_memory_equal(found->session->id, OTHER_SESSION, 16);
    rig_free(rig);
}

/* ------------------------------------------------ workers */
static void say_hello(struct rig *rig, uint64_t conn, const char *node)
{
    rig_hello(rig, conn, NULL, node);
}

/* Between its hello and its registration a worker that was away keeps what it has. */
static void a_returning_worker_keeps_its_share(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "a", 2);
    pool_worker(rig, 3, "b", 2);
    uint64_t pool = pool_open(rig, 1, 4);
    assert_int_equal(pool_told(rig, 2, pool), 2);
    assert_int_equal(pool_told(rig, 3, pool), 2);
    pool_disconnect(rig, 3);
    say_hello(rig, 3, "b");
    pool_worker(rig, 4, "c", 2);
    assert_int_equal(pool_look(rig, 2).order_count, 0);
    assert_int_equal(pool_look(rig, 4).order_count, 0);
    struct pool_offer offer = {.slots = 2, .language = "python3.11"};
    pool_register(rig, 3, &offer);
    assert_int_equal(pool_told(rig, 3, pool), 2);
    rig_free(rig);
}

static void a_worker_may_return_with_less_room(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "a", 2);
    pool_worker(rig, 3, "b", 2);
    uint64_t pool = pool_open(rig, 1, 12);
    assert_int_equal(pool_told(rig, 2, pool), 6);
    assert_int_equal(pool_told(rig, 3, pool), 6);
    pool_disconnect(rig, 3);
    say_hello(rig, 3, "b");
    struct pool_offer offer = {.slots = 2, .children_max = 3, .language = "python3.11"};
    pool_register(rig, 3, &offer);
    assert_int_equal(pool_told(rig, 3, pool), 3);
    assert_int_equal(pool_told(rig, 2, pool), 9);
    rig_free(rig);
}

/* A heartbeat must be able to name all that a worker holds. */
static void a_worker_gets_no_more_than_it_can_name(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    say_hello(rig, 2, "w");
    struct pool_offer offer = {.slots = 1, .children_max = 4000, .language = "python3.11"};
    pool_register(rig, 2, &offer);
    uint64_t pool = pool_open(rig, 1, 4000);
    pool_report(rig, 2, pool, 10, 0, NULL);
    uint64_t first = pool_calls(rig, 2, pool, 10000);
    struct hp_node *node = hp_node_get(rig->core, HP_STR("w"));
    assert_int_equal(node->attempt_count, 4000);
    hp_attempt_find(rig->core, first)->spec->lane->class_->run_us = 10; /* many for each child */
    rig_done(rig, 2, first, 1, 1, HP_REASON_NONE);
    assert_int_equal(node->attempt_count, 6000);
    rig_free(rig);
}

/* Children that another pool gives back are used at once. */
static void more_children_get_more_calls(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    say_hello(rig, 2, "w");
    struct pool_offer offer = {.slots = 4, .children_max = 6, .language = "python3.11"};
    pool_register(rig, 2, &offer);
    uint64_t one = pool_open(rig, 1, 0);
    uint64_t two = pool_open(rig, 2, 0);
    (void)pool_calls(rig, 3, two, 10);
    pool_report(rig, 2, two, 2, 0, NULL);
    assert_int_equal(pool_look(rig, 2).call_count, 2);
    struct hp_msg_pool_end msg = {.has = HP_HAS_POOL_END_HOW, .pool = one};
    msg.how = HP_POOL_END_CLOSE;
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, POOL_END, pool_end, &msg);
    rig_end(rig);
    assert_int_equal(hp_pool_find(rig->core, two)->held, 4);
    rig_free(rig);
}

/* ------------------------------------------------ reports */
static void long_errors_are_cut_at_characters(void **state)
{
    (void)state;
    char text[2049];
    for (size_t shift = 0; shift < 3; shift++) {
        struct rig *rig = rig_new(NULL);
        struct hp_msg_pool_info_reply info;
        rig_hello(rig, 1, SESSION, NULL);
        pool_worker(rig, 2, "w", 1);
        uint64_t pool = pool_open(rig, 1, 0);
        uint64_t id = pool_calls(rig, 2, pool, 1);
        memset(text, 'x', sizeof(text));
        for (size_t i = 0; i < 680; i++) {
            memcpy(text + shift + 3 * i, "\xe2\x82\xac", 3);
        }
        text[shift + 3 * 680] = '\0';
        pool_report(rig, 2, pool, 0, 1, text);
        assert_true(pool_info_of(rig, 1, pool, &info, NULL));
        assert_true(info.error.size > 1000);
        pool_report(rig, 2, pool, 0, 3, text);
        assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_FAILED);
        assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_FAILED);
        rig_free(rig);
    }
}

static void reports_of_strangers_change_nothing(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", 1);
    rig_worker(rig, 3, "plain", 1);
    uint64_t pool = pool_open(rig, 1, 0);
    (void)pool_calls(rig, 2, pool, 3);
    pool_report(rig, 3, pool, 3, 0, NULL); /* it was not asked to have any */
    struct pool_seen seen = pool_look(rig, 3);
    assert_int_equal(seen.call_count, 0);
    assert_int_equal(pool_order_of(&seen, pool).children, 0);
    pool_report(rig, 3, pool + 1000, 3, 0, NULL);
    seen = pool_look(rig, 3);
    assert_true(pool_order_of(&seen, pool + 1000).kill);
    pool_report(rig, 3, pool, 0, 3, "it cannot"); /* nor does its failure break the pool */
    assert_int_equal(pool_state(rig, 1, pool), HP_POOL_STATE_OPEN);
    rig_free(rig);
}

/* Events of calls in memory wait for no commit, but for the answer to a hello that does. */
static void events_come_behind_the_hello(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_rpc rpc;
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", 1);
    uint64_t pool = pool_open(rig, 1, 0);
    pool_report(rig, 2, pool, 1, 0, NULL);
    struct hp_st_task_options options = call_options(pool);
    options.durable = false;
    options.has |= HP_HAS_ST_TASK_OPTIONS_DURABLE;
    uint64_t id = rig_submitted(rig, 1, 2, &options, 1, NULL);
    struct hp_msg_hello hello = {.has = HP_HAS_HELLO_SESSION | HP_HAS_HELLO_EVENTS,
                                 .client = HP_STR("test"),
                                 .version = 1,
                                 .session = hp_bin_make(SESSION, 16),
                                 .events = true};
    rig_begin(rig);
    rig_disconnect(rig, 1);
    rig_connect(rig, 1);
    (void)RIG_CALL(rig, 1, HELLO, hello, &hello);
    rig_end(rig);
    static const uint8_t empty_map[] = {0x80};
    struct hp_st_done_item item = {
        .id = id, .attempt = 1, .epoch = 1, .end = {.data = empty_map, .size = 1}};
    struct hp_msg_worker_done done = {.items = {.items = &item, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_DONE, worker_done, &done);
    rig_end(rig);
    assert_false(rig_next(rig, 1, &rpc));
    rig_settle(rig);
    assert_true(rig_next(rig, 1, &rpc));
    assert_int_equal(rpc.type, HP_RPC_RESPONSE);
    assert_true(rig_next(rig, 1, &rpc));
    assert_int_equal(rpc.type, HP_RPC_NOTIFY);
    rig_free(rig);
}

/* Also after another session took it over. */
static void who_made_a_pool_is_told_of_its_end(void **state)
{
    (void)state;
    for (int restart = 0; restart < 2; restart++) {
        struct rig *rig = rig_new(NULL);
        struct hp_rpc rpc;
        struct hp_error error;
        rig_hello(rig, 1, SESSION, NULL);
        rig_hello(rig, 3, OTHER_SESSION, NULL);
        uint64_t pool = pool_open(rig, 1, 0);
        struct hp_msg_pool_detach msg = {.has = HP_HAS_POOL_DETACH_ON, .pool = pool, .on = false};
        rig_begin(rig);
        (void)RIG_CALL(rig, 3, POOL_DETACH, pool_detach, &msg);
        rig_end(rig);
        rig_settle(rig);
        if (restart == 1) {
            rig_crash(rig);
            rig_hello(rig, 1, SESSION, NULL);
            rig_hello(rig, 3, OTHER_SESSION, NULL);
        }
        (void)pool_end(rig, 3, pool, HP_POOL_END_CLOSE);
        struct hp_msg_task_event event;
        assert_true(rig_next(rig, 1, &rpc));
        assert_int_equal(rpc.method, HP_METHOD_TASK_EVENT);
        assert_ok(hp_msg_task_event_decode(rpc.params, &rig->arena, &event, &error));
        assert_int_equal(event.events.items[0].id, pool);
        rig_free(rig);
    }
}

/* Answers to all who wait are made in one turn. */
static void many_wait_for_the_first_child(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    rig_hello(rig, 3, NULL, NULL);
    say_hello(rig, 2, "w");
    struct pool_offer offer = {.slots = 1, .children_max = 4096, .language = "python3.11"};
    pool_register(rig, 2, &offer);
    uint64_t pool = pool_open(rig, 1, 4096);
    struct hp_msg_pool_info msg = {
        .has = HP_HAS_POOL_INFO_WAIT_MS, .pool = pool, .wait_ms = 3600000};
    rig_begin(rig);
    for (uint32_t i = 0; i < 200; i++) {
        (void)RIG_CALL(rig, 1, POOL_INFO, pool_info, &msg);
        (void)RIG_CALL(rig, 3, POOL_INFO, pool_info, &msg);
    }
    rig_end(rig);
    static uint64_t pids[4096];
    struct hp_st_pool_report report = {
        .has = HP_HAS_ST_POOL_REPORT_PIDS, .pool = pool, .pids = {.items = pids, .count = 4096}};
    struct hp_msg_worker_pool_report all = {.has = HP_HAS_WORKER_POOL_REPORT_POOLS,
                                            .pools = {.items = &report, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_POOL_REPORT, worker_pool_report, &all);
    rig_end(rig);
    rig_settle(rig);
    assert_true(hp_list_is_empty(&hp_pool_find(rig->core, pool)->waits));
    rig_free(rig);
}

/* An argument: the one test to run. */
int main(int argc, char **argv)
{
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(termination_reaches_calls_on_disk),
        cmocka_unit_test(calls_on_disk_end_as_others_do),
        cmocka_unit_test(lanes_may_go_while_calls_are_ended),
        cmocka_unit_test(many_calls_end_in_slices),
        cmocka_unit_test(a_call_may_come_before_its_pool_is_made),
        cmocka_unit_test(a_pool_may_be_taken_over_before_it_was_read),
        cmocka_unit_test(a_returning_worker_keeps_its_share),
        cmocka_unit_test(a_worker_may_return_with_less_room),
        cmocka_unit_test(a_worker_gets_no_more_than_it_can_name),
        cmocka_unit_test(more_children_get_more_calls),
        cmocka_unit_test(long_errors_are_cut_at_characters),
        cmocka_unit_test(reports_of_strangers_change_nothing),
        cmocka_unit_test(many_wait_for_the_first_child),
        cmocka_unit_test(events_come_behind_the_hello),
        cmocka_unit_test(who_made_a_pool_is_told_of_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
