/* SPDX-License-Identifier: BSD-2-Clause */
/* Many at once, in one turn or one request, and what differs from the usual by one field. */
#include "tests/lib/hp_test.h"

#include "server/core/offer.h"
#include "tests/lib/core_rig.h"
#include "tests/unit/core_ask.h"
#include "tests/unit/core_pool_fixture.h"

static struct hp_st_assign_run runs[256];

/* More in one turn than the window of a lane holds. */
static void many_submits_in_one_turn(void **state)
{
    (void)state;
    enum { COUNT = 100 };
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.window_runs = 4;
    struct rig *rig = rig_new(&config);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    rig_begin(rig);
    for (uint32_t i = 0; i < COUNT; i++) {
        (void)rig_submit(rig, 1, 0, &options, 1);
    }
    rig_end(rig);
    rig_settle(rig);
    rig_worker(rig, 2, "w", COUNT);
    for (int i = 0; i < 50; i++) {
        rig_pass(rig, 10);
    }
    assert_int_equal(rig_assigned(rig, 2, runs, 256), COUNT);
    rig_free(rig);
}

static void many_timers_in_memory(void **state)
{
    (void)state;
    enum { COUNT = 700 };
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    uint64_t ids[COUNT];
    rig_hello(rig, 1, NULL, NULL);
    options.durable = false;
    options.delay_ms = options.expire_ms = 2000; /* both at one time: it expires */
    options.has |= HP_HAS_ST_TASK_OPTIONS_DURABLE | HP_HAS_ST_TASK_OPTIONS_DELAY_MS |
                   HP_HAS_ST_TASK_OPTIONS_EXPIRE_MS;
    for (uint32_t i = 0; i < COUNT; i++) {
        ids[i] = rig_submitted(rig, 1, 0, &options, 1, NULL);
    }
    for (int i = 0; i < 10; i++) {
        rig_pass(rig, 900);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(rig_state(rig, 1, ids[i]), HP_TASK_STATE_EXPIRED);
    }
    rig_free(rig);
}

/* A session that asked for no events gets none. */
static void a_session_without_events(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    struct hp_rpc rpc;
    struct hp_msg_hello hello = {.has = HP_HAS_HELLO_SESSION,
                                 .client = HP_STR("test"),
                                 .version = 1,
                                 .session = hp_bin_make(SESSION, 16)};
    rig_begin(rig);
    rig_connect(rig, 1);
    (void)RIG_CALL(rig, 1, HELLO, hello, &hello);
    rig_end(rig);
    rig_settle(rig);
    uint64_t id = rig_submitted(rig, 1, 1, &options, 1, NULL);
    rig_hello(rig, 3, NULL, NULL);
    rig_cancel(rig, 3, id, 1, HP_CANCEL_MODE_FORCE);
    while (rig_next(rig, 1, &rpc)) {
        assert_int_not_equal(rpc.type, HP_RPC_NOTIFY);
    }
    rig_free(rig);
}

/* A node that comes from another host is another one's, though its names are as long. */
static void a_node_on_another_host(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, NULL, NULL);
    for (int i = 0; i < 2; i++) {
        struct hp_msg_worker_register msg = {.has = HP_HAS_WORKER_REGISTER_COMMANDS,
                                             .host = i == 0 ? HP_STR("host") : HP_STR("tsoh"),
                                             .slots = 1,
                                             .commands = true};
        struct hp_msg_worker_list list = {0};
        struct hp_msg_worker_list_reply reply;
        rig_hello(rig, 2 + (uint64_t)i, NULL, "w");
        assert_true(rig_ask(rig, 2 + (uint64_t)i, HP_METHOD_WORKER_REGISTER, &msg, NULL));
        assert_true(rig_ask(rig, 1, HP_METHOD_WORKER_LIST, &list, &reply));
        assert_int_equal(reply.workers.count, 1);
        assert_true(hp_str_eq(reply.workers.items[0].host, msg.host));
    }
    rig_free(rig);
}

static void offer(struct rig *rig, uint64_t conn, const char *node, struct hp_str fn)
{
    struct hp_str tags[] = {HP_STR_INIT("gpu")};
    struct hp_str functions[] = {fn, HP_STR_INIT("a")};
    struct hp_msg_worker_register msg = {.has = HP_HAS_WORKER_REGISTER_FUNCTIONS |
                                                HP_HAS_WORKER_REGISTER_TAGS,
                                         .host = HP_STR("host"),
                                         .slots = 1,
                                         .tags = {.items = tags, .count = 1},
                                         .functions = {.items = functions, .count = 2}};
    rig_hello(rig, conn, NULL, node);
    assert_true(rig_ask(rig, conn, HP_METHOD_WORKER_REGISTER, &msg, NULL));
}

/* Workers that offer the same share one list, and none is kept that nobody offers. */
static void equal_offers_are_kept_once(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    offer(rig, 2, "x", HP_STR("z"));
    offer(rig, 3, "y", HP_STR("z"));
    assert_int_equal(hp_strmap_count(&rig->core->offers), 1);
    const struct hp_node *x = hp_strmap_find_ptr(&rig->core->nodes_by_name, HP_STR("x"));
    const struct hp_node *y = hp_strmap_find_ptr(&rig->core->nodes_by_name, HP_STR("y"));
    assert_ptr_equal(x->functions.items, y->functions.items);
    assert_true(hp_node_has_function(x, HP_STR("a")) && hp_node_has_function(x, HP_STR("z")));
    assert_false(hp_node_has_function(x, HP_STR("b")) || hp_node_has_function(x, HP_STR("gpu")));
    offer(rig, 4, "x", HP_STR("b"));
    assert_int_equal(hp_strmap_count(&rig->core->offers), 2);
    assert_true(hp_node_has_function(x, HP_STR("b")) && !hp_node_has_function(x, HP_STR("z")));
    assert_true(hp_node_has_function(y, HP_STR("z")));
    offer(rig, 5, "y", HP_STR("b"));
    assert_int_equal(hp_strmap_count(&rig->core->offers), 1);
    rig_free(rig);
}

/* An end that took no time at all is measured as a very short one. */
static void an_end_that_took_no_time(void **state)
{
    (void)state;
    static const uint8_t end[] = {0x81, 0xa6, 'r', 'u', 'n', '_', 'u', 's', 0x00};
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    struct hp_st_done_item item = {
        .id = id, .attempt = 1, .epoch = 1, .end = {.data = end, .size = sizeof(end)}};
    struct hp_msg_worker_done done = {.items = {.items = &item, .count = 1}};
    assert_true(rig_ask(rig, 2, HP_METHOD_WORKER_DONE, &done, NULL));
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_DONE);
    struct hp_list *first = hp_list_first(&rig->core->class_list);
    assert_int_equal(HP_CONTAINER_OF(first, struct hp_class, link)->run_us, 1);
    rig_free(rig);
}

/* The calls of a terminated pool fail though nothing of them can be read. */
static void calls_of_a_lane_that_is_damaged(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t pool = pool_open(rig, 1, 1);
    uint64_t call = pool_calls(rig, 2, pool, 3);
    rig_crash(rig);
    rig_begin(rig);
    rig_end(rig);
    bool spoilt = false;
    for (int i = 0; i < 100 && !spoilt; i++) {
        struct hp_load *load = rig->job_count > 0 ? rig->jobs[0].load : NULL;
        if (load == NULL || load->kind != HP_LOAD_GROUPS || load->spans[0].first != call) {
            (void)rig_job(rig);
            continue;
        }
        struct hp_loaded *loaded = hp_loaded_new(load);
        struct hp_event event = {.kind = HP_EVENT_LOADED, .loaded = loaded};
        rig->job_count--;
        memmove(rig->jobs, rig->jobs + 1, rig->job_count * sizeof(rig->jobs[0]));
        while (!hp_store_load(rig->store, loaded)) {
        }
        loaded->group_count = 0;
        loaded->err = HP_ERR_CORRUPT;
        rig_begin(rig);
        hp_core_step(rig->core, &event);
        rig_end(rig);
        hp_loaded_free(loaded);
        spoilt = true;
    }
    assert_true(spoilt);
    rig_hello(rig, 3, NULL, NULL);
    (void)pool_end(rig, 3, pool, HP_POOL_END_TERMINATE);
    for (int i = 0; i < 10; i++) {
        rig_pass(rig, 100);
    }
    for (uint64_t id = call; id < call + 3; id++) {
        assert_int_equal(rig_state(rig, 3, id), HP_TASK_STATE_FAILED);
    }
    assert_int_equal(rig_state(rig, 3, pool), HP_TASK_STATE_CANCELLED);
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(many_submits_in_one_turn),        cmocka_unit_test(many_timers_in_memory),
    cmocka_unit_test(a_session_without_events),        cmocka_unit_test(a_node_on_another_host),
    cmocka_unit_test(equal_offers_are_kept_once),      cmocka_unit_test(an_end_that_took_no_time),
    cmocka_unit_test(calls_of_a_lane_that_is_damaged),
};

HP_TEST_MAIN(tests)
