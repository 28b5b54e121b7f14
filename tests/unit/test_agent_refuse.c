/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the agent does not take: settings out of range, answers and orders of a broker that make no
 * sense, records that were cut. What it then does is always the same: it leaves that broker, keeps
 * what it has, and comes again.
 */
#include "tests/unit/agent_pool_fixture.h"

#include <stdio.h>

/* ----------------------------------------------------------------------------------- settings */

static enum hp_err make(const struct hp_agent_config *config)
{
    struct hp_agent *agent = NULL;
    struct hp_error error = {0};
    enum hp_err err = hp_agent_new(config, 0, &agent, &error);
    assert_true((err == HP_OK) == (agent != NULL));
    assert_true((err == HP_OK) == (error.text[0] == '\0'));
    hp_agent_free(agent);
    return err;
}

static void settings_have_ranges(void **state)
{
    (void)state;
    static struct hp_str names[4097];
    static char long_token[513];
    struct fx fx;
    fx_init(&fx, 1);
    const struct hp_agent_config good = fx.config;
    struct hp_agent_config config = good;
    for (size_t i = 0; i < HP_COUNT_OF(names); i++) {
        names[i] = HP_STR("name");
    }
    memset(long_token, 't', sizeof(long_token));
    config.node = HP_STR("");
    assert_int_equal(make(&config), HP_ERR_INVALID);
    config = good;
    config.host = HP_STR("a\nb");
    assert_int_equal(make(&config), HP_ERR_INVALID);
    const struct {
        uint32_t slots, prefetch;
        enum hp_err err;
    } sizes[] = {{0, 0, HP_ERR_RANGE},       {1, 0, HP_OK},           {4096, 1904, HP_OK},
                 {4096, 1905, HP_ERR_RANGE}, {4097, 0, HP_ERR_RANGE}, {1, 4097, HP_ERR_RANGE}};
    for (size_t i = 0; i < HP_COUNT_OF(sizes); i++) {
        config = good;
        config.slots = sizes[i].slots;
        config.prefetch_max = sizes[i].prefetch;
        assert_int_equal(make(&config), sizes[i].err);
    }
    for (uint32_t more = 0; more < 2; more++) {
        enum hp_err err = more == 0 ? HP_OK : HP_ERR_RANGE;
        config = good;
        config.tags = names;
        config.tag_count = 64 + more;
        assert_int_equal(make(&config), err);
        config = good;
        config.languages = names;
        config.language_count = 64 + more;
        assert_int_equal(make(&config), err);
        config = good;
        config.token = hp_str_make(long_token, 512 + more);
        assert_int_equal(make(&config), err);
        config = good;
        config.children_max = 65536 + more;
        assert_int_equal(make(&config), err);
        config = good;
        config.functions = names;
        config.function_count = 4096 + more;
        assert_int_equal(make(&config), err);
    }
    config = good;
    names[1] = HP_STR("not a\ttag");
    config.tags = names;
    config.tag_count = 2;
    assert_int_equal(make(&config), HP_ERR_INVALID);
    names[1] = HP_STR("name");
    config = good;
    config.function_count = 0; /* commands only */
    assert_int_equal(make(&config), HP_OK);
    fx_deinit(&fx);
    hp_agent_free(NULL);
}

/* Whatever allocation fails: an error, and nothing is left behind. */
static void no_memory_for_an_agent(void **state)
{
    (void)state;
    static struct hp_str names[300]; /* so many that each list has memory of its own */
    static char text[512];
    struct fx fx;
    fx_init(&fx, 2);
    memset(text, 'x', sizeof(text));
    for (size_t i = 0; i < HP_COUNT_OF(names); i++) {
        names[i] = hp_str_make(text, 250);
    }
    struct hp_agent_config config = fx.config;
    config.client = config.host = hp_str_make(text, 250);
    config.node = hp_str_make(text, 200);
    config.token = hp_str_make(text, 512);
    config.tags = config.functions = config.languages = names;
    config.tag_count = config.language_count = 60;
    config.function_count = HP_COUNT_OF(names);
    enum hp_err err = HP_ERR_NOMEM;
    uint64_t n = 0;
    while (err != HP_OK) {
        struct hp_agent *agent = NULL;
        struct hp_error error = {0};
        hp_mem_fail_at(++n, false);
        err = hp_agent_new(&config, 0, &agent, &error);
        hp_mem_fail_at(0, false);
        assert_true(err == HP_OK || err == HP_ERR_NOMEM);
        assert_true((err == HP_OK) == (agent != NULL));
        hp_agent_free(agent);
    }
    assert_true(n > 20);
    fx_deinit(&fx);
}

/* ------------------------------------------------------------------------------------ answers */

static bool has_left(const struct fx *fx)
{
    struct hp_agent_stats stats = fx_stats(fx);
    return !stats.connected;
}

static void odd_answers_at_the_start(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    for (int step = 0; step < 4; step++) {
        fx_connect(&fx);
        uint32_t msgid = fx_expect(&fx, HP_METHOD_HELLO);
        struct hp_msg_hello_reply hello = {
            .server = HP_STR("broker"), .version = HP_PROTOCOL_VERSION, .epoch = 1, .now_ms = 1};
        if (step == 0) {
            fx_reply_odd(&fx, msgid, "server");
        } else if (step == 1) {
            hello.version = HP_PROTOCOL_VERSION + 1;
            fx_reply(&fx, msgid, &hp_desc_msg_hello_reply, &hello);
        } else {
            fx_reply(&fx, msgid, &hp_desc_msg_hello_reply, &hello);
            msgid = fx_expect(&fx, HP_METHOD_WORKER_REGISTER);
            if (step == 2) {
                fx_reply_odd(&fx, msgid, "lease_ms");
            } else {
                fx_refuse(&fx, msgid, HP_RPC_ERROR_BUSY);
            }
        }
        assert_true(has_left(&fx));
    }
    fx_up(&fx); /* and it still comes again */
    assert_true(fx_stats(&fx).registered);
    fx_deinit(&fx);
}

/* A broker of another version waits long before the next try; one that is busy says how long. */
static void refusals_say_when_to_come_again(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    static const enum hp_rpc_error_code codes[] = {HP_RPC_ERROR_VERSION, HP_RPC_ERROR_DENIED,
                                                   HP_RPC_ERROR_CONFLICT};
    for (size_t i = 0; i < HP_COUNT_OF(codes); i++) {
        fx_connect(&fx);
        fx_refuse(&fx, fx_expect(&fx, HP_METHOD_HELLO), codes[i]);
        assert_true(has_left(&fx));
        uint64_t wait_ms = hp_agent_next_deadline_ms(fx.agent) - fx.now;
        assert_true(codes[i] == HP_RPC_ERROR_CONFLICT ? wait_ms < 5000 : wait_ms >= 5000);
    }
    fx_connect(&fx);
    uint32_t msgid = fx_expect(&fx, HP_METHOD_HELLO);
    struct hp_buf frame;
    hp_buf_init(&frame, 4096);
    assert_int_equal(
        hp_rpc_put_error(&frame, msgid, HP_RPC_ERROR_BUSY, HP_STR("later"), true, 77000), HP_OK);
    fx_give(&fx, &frame);
    hp_buf_deinit(&frame);
    fx_drain(&fx);
    assert_true(hp_agent_next_deadline_ms(fx.agent) >= fx.now + 77000);
    fx_deinit(&fx);
}

/* What the broker warns of is in the worker's log. */
static void warnings_and_the_token(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    hp_agent_free(fx.agent);
    fx.config.token = HP_STR("secret");
    fx_make_agent(&fx);
    fx_connect(&fx);
    uint32_t msgid = fx_expect(&fx, HP_METHOD_HELLO);
    struct hp_msg_hello hello;
    assert_int_equal(hp_msg_hello_decode(fx.rpc.params, &fx.arena, &hello, NULL), HP_OK);
    assert_true(hp_str_eq_c(hello.token, "secret"));
    uint32_t lines = fx_count(&fx, HP_AGENT_LOG);
    struct hp_str warnings[] = {HP_STR("not encrypted"), HP_STR("disk low")};
    struct hp_msg_hello_reply reply = {.has = HP_HAS_HELLO_REPLY_WARNINGS,
                                       .server = HP_STR("broker"),
                                       .version = HP_PROTOCOL_VERSION,
                                       .epoch = 1,
                                       .warnings = {.items = warnings, .count = 2}};
    fx_reply(&fx, msgid, &hp_desc_msg_hello_reply, &reply);
    assert_int_equal(fx_count(&fx, HP_AGENT_LOG), lines + 2);
    fx_answer_register(&fx);
    fx_deinit(&fx);
}

static void odd_answers_to_heartbeats_and_results(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 2);
    struct hp_st_task_options options = fx_command();
    for (int step = 0; step < 3; step++) {
        fx_up(&fx);
        if (step < 2) {
            fx_pass(&fx, FX_HEARTBEAT_MS);
            uint32_t msgid = fx_find(&fx, HP_METHOD_WORKER_HEARTBEAT);
            if (step == 0) {
                fx_reply_odd(&fx, msgid, "lease_ms");
            } else {
                fx_refuse(&fx, msgid, HP_RPC_ERROR_ILLEGAL_STATE);
            }
        } else {
            fx_assign(&fx, 10, 1, 1, &options);
            fx_exited(&fx, 10, 0, 0);
            struct hp_msg_worker_done done;
            fx_reply_odd(&fx, fx_expect_done(&fx, &done), "stale");
        }
        assert_true(has_left(&fx));
    }
    /* The result was not answered for: it is sent again. */
    fx_connect(&fx);
    fx_answer_hello(&fx, 1);
    fx_expect_end(&fx, 10, HP_REASON_NONE);
    assert_int_equal(fx_stats(&fx).held, 0);
    fx_deinit(&fx);
}

/* -------------------------------------------------------------------------------------- orders */

static void assign(struct fx *fx, struct hp_st_assign_run run)
{
    struct hp_msg_worker_assign msg = {.runs = {.items = &run, .count = 1}};
    run.has |= HP_HAS_ST_ASSIGN_RUN_COUNT;
    run.attempt = 1;
    run.epoch = 1;
    fx_notify(fx, HP_METHOD_WORKER_ASSIGN, &hp_desc_msg_worker_assign, &msg);
}

static void assignments_that_do_not_add_up(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 2);
    struct hp_bin payloads[3] = {{0}};
    uint64_t blobs[3] = {0};
    const struct hp_st_assign_run cases[] = {
        {.has = HP_HAS_ST_ASSIGN_RUN_PAYLOADS,
         .first = 1,
         .count = 2,
         .payloads = {.items = payloads, .count = 3}},
        {.has = HP_HAS_ST_ASSIGN_RUN_BLOBS,
         .first = 1,
         .count = 2,
         .blobs = {.items = blobs, .count = 1}},
        {.first = UINT64_MAX - 1, .count = 5},
    };
    for (size_t i = 0; i < HP_COUNT_OF(cases); i++) {
        struct hp_st_assign_run run = cases[i];
        run.options = fx_command();
        fx_up(&fx);
        assign(&fx, run);
        assert_true(has_left(&fx));
        assert_int_equal(fx_stats(&fx).held, 0);
        assert_int_equal(fx_count(&fx, HP_AGENT_RUN), 0);
    }
    fx_deinit(&fx);
}

/* Such tasks can not be run here: they end at once, each with its reason. */
static void tasks_that_can_not_be_run_here(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 2);
    hp_agent_free(fx.agent);
    fx.config.commands = false;
    fx_make_agent(&fx);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 1, 1, 1, &options);
    fx_expect_end(&fx, 1, HP_REASON_NOT_STARTED);
    options = fx_function("no such");
    fx_assign(&fx, 2, 1, 1, &options);
    fx_expect_end(&fx, 2, HP_REASON_NO_FUNCTION);
    options = fx_command();
    options.argv.count = 0;
    options.has &= ~HP_HAS_ST_TASK_OPTIONS_ARGV;
    fx_assign(&fx, 3, 1, 1, &options);
    fx_expect_end(&fx, 3, HP_REASON_NOT_STARTED);
    fx_deinit(&fx);
}

static void orders_for_what_is_not_there(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 2);
    fx_up(&fx);
    struct hp_st_run_ref strangers[] = {fx_ref(99, 1), fx_ref(10, 2)};
    const struct hp_list_run_ref refs = {.items = strangers, .count = 2};
    struct hp_st_cancel_item cancel = {.id = 99, .attempt = 1, .epoch = 1};
    struct hp_msg_worker_control control = {
        .has = HP_HAS_WORKER_CONTROL_KILL | HP_HAS_WORKER_CONTROL_CANCEL |
               HP_HAS_WORKER_CONTROL_FOLLOW | HP_HAS_WORKER_CONTROL_UNFOLLOW |
               HP_HAS_WORKER_CONTROL_SIGNAL | HP_HAS_WORKER_CONTROL_SIGNAL_RUNS |
               HP_HAS_WORKER_CONTROL_RECALL_RUNS,
        .kill = refs,
        .cancel = {.items = &cancel, .count = 1},
        .follow = refs,
        .unfollow = refs,
        .signal = 10,
        .signal_runs = refs,
        .recall_runs = refs};
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    uint32_t signals = fx_count(&fx, HP_AGENT_KILL);
    fx_notify(&fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &control);
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), signals);
    assert_int_equal(fx_count(&fx, HP_AGENT_FOLLOW), 0);
    /* Signal 0 asks for nothing; a task that has ended, or waits, gets none. */
    strangers[0] = fx_ref(10, 1);
    control = (struct hp_msg_worker_control){.has = HP_HAS_WORKER_CONTROL_SIGNAL |
                                                    HP_HAS_WORKER_CONTROL_SIGNAL_RUNS |
                                                    HP_HAS_WORKER_CONTROL_RECALL_RUNS,
                                             .signal_runs = refs,
                                             .recall_runs = refs};
    fx_notify(&fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &control);
    fx_exited(&fx, 10, 0, 0);
    control.signal = 10;
    fx_notify(&fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &control);
    assert_int_equal(fx_count(&fx, HP_AGENT_KILL), signals);
    fx_expect_end(&fx, 10, HP_REASON_NONE);
    assert_true(fx_stats(&fx).registered);
    fx_deinit(&fx);
}

/* Frames that are none of the protocol's: calls are answered, new notices are skipped. */
static void frames_of_other_versions(void **state)
{
    (void)state;
    static const uint8_t call[] = {0x94, 0x00, 0x07, 0xa3, 'x', '.', 'y', 0x91, 0x80};
    static const uint8_t notice[] = {0x93, 0x02, 0xa3, 'x', '.', 'y', 0x91, 0x80};
    static const uint8_t answer[] = {0x94, 0x01, 0xcd, 0x7f, 0xff, 0xc0, 0x80};
    struct fx fx;
    fx_init(&fx, 1);
    fx_up(&fx);
    while (fx_next(&fx)) {
    }
    hp_agent_received(fx.agent, notice, sizeof(notice), fx.now);
    hp_agent_received(fx.agent, call, sizeof(call), fx.now);
    assert_true(fx_next(&fx));
    assert_int_equal(fx.rpc.type, HP_RPC_RESPONSE);
    assert_int_equal(fx.rpc.failure.code, HP_RPC_ERROR_UNKNOWN_METHOD);
    assert_true(fx_stats(&fx).registered);
    hp_agent_received(fx.agent, answer, sizeof(answer), fx.now); /* to no question of ours */
    fx_drain(&fx);
    assert_true(has_left(&fx));
    hp_agent_received(fx.agent, call, sizeof(call), fx.now); /* of the connection that was left */
    fx_drain(&fx);
    assert_int_equal(hp_agent_output(fx.agent).size, 0);
    fx_deinit(&fx);
}

/* Orders and news at the wrong time change nothing. */
static void the_shell_may_say_things_twice(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    hp_agent_disconnected(fx.agent, "never was", fx.now);
    hp_agent_connected(fx.agent, fx.now); /* it did not ask yet */
    fx_drain(&fx);
    fx_up(&fx);
    hp_agent_connected(fx.agent, fx.now);
    fx_drain(&fx);
    assert_true(fx_stats(&fx).registered);
    fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED, .key = 12345});
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 10, 1, 1, &options);
    uint64_t key = fx_key(&fx, 10);
    fx_exited(&fx, 10, 0, 0);
    fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED, .key = key}); /* again */
    fx_expect_end(&fx, 10, HP_REASON_NONE);
    hp_agent_drain(fx.agent, UINT64_MAX, fx.now); /* no limit, and no overflow */
    hp_agent_drain(fx.agent, 1, fx.now);
    fx_drain(&fx);
    hp_agent_stop(fx.agent, fx.now);
    hp_agent_stop(fx.agent, fx.now);
    fx_pass(&fx, 60000);
    assert_int_equal(fx_count(&fx, HP_AGENT_EXIT), 1);
    fx_deinit(&fx);
}

/* ---------------------------------------------------------------------------------------- spool */

static struct hp_bin large_record(struct fx *fx)
{
    static uint8_t large[100000];
    struct hp_st_task_options options = fx_command();
    memset(large, 'x', sizeof(large));
    fx_up(fx);
    fx_assign(fx, 10, 1, 1, &options);
    fx_event(fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED,
                                         .key = fx_key(fx, 10),
                                         .out = hp_bin_make(large, sizeof(large)),
                                         .err = hp_bin_make(large, sizeof(large))});
    fx_pass(fx, 1000);
    return fx_last(fx, HP_AGENT_SPOOL_APPEND, 0)->record;
}

/* How many results an agent takes from this record. */
static uint32_t load(struct fx *fx, struct hp_bin record)
{
    struct hp_agent *agent = NULL;
    struct hp_agent_stats stats;
    assert_int_equal(hp_agent_new(&fx->config, 0, &agent, NULL), HP_OK);
    hp_agent_spool_loaded(agent, 1, record);
    hp_agent_get_stats(agent, &stats);
    hp_agent_check(agent);
    hp_agent_free(agent);
    return stats.held;
}

static void records_that_are_cut_or_odd_are_dropped(void **state)
{
    (void)state;
    struct fx fx;
    fx_init(&fx, 1);
    struct hp_bin record = large_record(&fx);
    uint32_t item_size = (uint32_t)record.data[2] << 24 | (uint32_t)record.data[3] << 16 |
                         (uint32_t)record.data[4] << 8 | record.data[5];
    uint8_t *copy = hp_alloc(record.size + 1);
    assert_non_null(copy);
    memcpy(copy, record.data, record.size);
    copy[record.size] = 0;
    assert_int_equal(record.data[1], 2);
    assert_int_equal(load(&fx, record), 1);
    for (uint32_t size = 0; size < record.size; size += size < 300 ? 1 : 7919) {
        assert_int_equal(load(&fx, hp_bin_make(copy, size)), 0);
    }
    assert_int_equal(load(&fx, hp_bin_make(copy, record.size + 1)), 0);
    uint32_t kind_at = 6 + item_size; /* of the first part */
    static const uint8_t kinds[] = {0, 99};
    for (size_t i = 0; i < HP_COUNT_OF(kinds); i++) {
        copy[kind_at] = kinds[i];
        assert_int_equal(load(&fx, hp_bin_make(copy, record.size)), 0);
    }
    copy[kind_at] = record.data[kind_at];
    copy[1] = 0; /* no parts, but bytes behind the end */
    assert_int_equal(load(&fx, hp_bin_make(copy, record.size)), 0);
    copy[1] = 2;
    hp_free(copy);
    fx_deinit(&fx);
}

/* ----------------------------------------------------------------------------------------- dump */

static void the_text_of_the_state(void **state)
{
    (void)state;
    struct fx fx;
    struct hp_buf text;
    fx_init(&fx, 2);
    fx_up(&fx);
    struct hp_st_task_options options = fx_command();
    fx_assign(&fx, 20, 1, 2, &options);
    fx_assign(&fx, 10, 1, 1, &options);
    fx_assign(&fx, 20, 1, 1, &options);
    fx_assign(&fx, 30, 1, 1, &options);
    struct hp_st_run_ref ref = fx_ref(10, 1);
    struct hp_msg_worker_control control = {.has = HP_HAS_WORKER_CONTROL_KILL,
                                            .kill = {.items = &ref, .count = 1}};
    fx_notify(&fx, HP_METHOD_WORKER_CONTROL, &hp_desc_msg_worker_control, &control);
    fx_pass(&fx, 1500);
    fx_exited(&fx, 20, 0, 0); /* ran for over a second: durable first */
    hp_buf_init(&text, 4096);
    assert_int_equal(hp_agent_dump(fx.agent, &text), HP_OK);
    assert_int_equal(hp_buf_append_byte(&text, 0), HP_OK);
    assert_non_null(strstr((const char *)text.data, "link up epoch 1 slots 2/2\n"));
    const char *first =
        strstr((const char *)text.data, "task 10 attempt 1 epoch 1 running dropped");
    const char *second = strstr((const char *)text.data, "task 20 attempt 1 epoch 1 ");
    const char *third = strstr((const char *)text.data, "task 20 attempt 2 epoch 1 ");
    const char *last = strstr((const char *)text.data, "task 30 attempt 1 epoch 1 ");
    assert_true(first != NULL && second > first && third > second && last > third);
    assert_non_null(strstr((const char *)text.data, " spooled\n"));
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    fx_pass(&fx, FX_LEASE_MS);
    hp_agent_drain(fx.agent, 100000, fx.now);
    fx_drain(&fx);
    hp_buf_clear(&text);
    assert_int_equal(hp_agent_dump(fx.agent, &text), HP_OK);
    assert_int_equal(hp_buf_append_byte(&text, 0), HP_OK);
    assert_non_null(strstr((const char *)text.data, " fenced draining\n"));
    size_t full = text.size - 1;
    hp_buf_deinit(&text);
    for (size_t max = full; max > 0; max--) {
        hp_buf_init(&text, max);
        assert_int_equal(hp_agent_dump(fx.agent, &text), max >= full ? HP_OK : HP_ERR_FULL);
        hp_buf_deinit(&text);
    }
    hp_buf_init(&text, 4096);
    hp_mem_fail_at(2, false); /* the text has its memory, the order of the runs has none */
    assert_int_equal(hp_agent_dump(fx.agent, &text), HP_ERR_NOMEM);
    hp_mem_fail_at(0, false);
    hp_buf_deinit(&text);
    fx_deinit(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_have_ranges),
        cmocka_unit_test(no_memory_for_an_agent),
        cmocka_unit_test(odd_answers_at_the_start),
        cmocka_unit_test(refusals_say_when_to_come_again),
        cmocka_unit_test(warnings_and_the_token),
        cmocka_unit_test(odd_answers_to_heartbeats_and_results),
        cmocka_unit_test(assignments_that_do_not_add_up),
        cmocka_unit_test(tasks_that_can_not_be_run_here),
        cmocka_unit_test(orders_for_what_is_not_there),
        cmocka_unit_test(frames_of_other_versions),
        cmocka_unit_test(the_shell_may_say_things_twice),
        cmocka_unit_test(records_that_are_cut_or_odd_are_dropped),
        cmocka_unit_test(the_text_of_the_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
