/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between two states: workers that said hello and did not register, pools that wait for their row
 * or their client, timers that are read while they change, attempts that their worker gave up.
 */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"
#include "tests/unit/core_ask.h"
#include "tests/unit/core_pool_fixture.h"

static struct hp_st_assign_run runs[64];

/* Takes the loads of this kind out of the store's way. */
static uint32_t keep_loads(struct rig *rig, enum hp_load_kind kind, struct hp_load **ret)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < rig->job_count;) {
        if (rig->jobs[i].load == NULL || rig->jobs[i].load->kind != kind) {
            i++;
            continue;
        }
        ret[kept++] = rig->jobs[i].load;
        rig->job_count--;
        memmove(rig->jobs + i, rig->jobs + i + 1, (rig->job_count - i) * sizeof(rig->jobs[0]));
    }
    return kept;
}

static void give_loads(struct rig *rig, struct hp_load **loads, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        rig->jobs[rig->job_count].batch = NULL;
        rig->jobs[rig->job_count++].load = loads[i];
    }
    rig_settle(rig);
}

/* All lines of the answer to task.why, one after another. */
static const char *why(struct rig *rig, uint64_t conn, uint64_t id)
{
    static char text[8192];
    struct hp_msg_task_why msg = {.id = id};
    struct hp_msg_task_why_reply reply;
    size_t size = 0;
    assert_true(rig_ask(rig, conn, HP_METHOD_TASK_WHY, &msg, &reply));
    text[0] = '\0';
    for (uint32_t i = 0; i < reply.lines.count; i++) {
        size += (size_t)snprintf(text + size, sizeof(text) - size, "%.*s\n",
                                 HP_STR_ARG(reply.lines.items[i]));
        assert_true(size < sizeof(text));
    }
    return text;
}

static void expect(const char *text, const char *words)
{
    if (strstr(text, words) == NULL) {
        fail_msg("'%s' is not in: %s", words, text);
    }
}

/* ------------------------------------------------ follow */
static struct hp_st_task_options followed(void)
{
    struct hp_st_task_options options = rig_command();
    options.follow = true;
    options.has |= HP_HAS_ST_TASK_OPTIONS_FOLLOW;
    return options;
}

static uint32_t outputs(struct rig *rig, uint64_t conn)
{
    struct hp_rpc rpc;
    uint32_t count = 0;
    while (rig_next(rig, conn, &rpc)) {
        count += rpc.type == HP_RPC_NOTIFY && rpc.method == HP_METHOD_TASK_OUTPUT;
    }
    return count;
}

static void print(struct rig *rig, uint64_t id)
{
    struct hp_msg_worker_output msg = {.id = id, .attempt = 1, .data = hp_bin_make("text", 4)};
    msg.stream = HP_STREAM_STDOUT;
    msg.has = HP_HAS_WORKER_OUTPUT_STREAM | HP_HAS_WORKER_OUTPUT_OFFSET;
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_OUTPUT, worker_output, &msg);
    rig_end(rig);
    rig_settle(rig);
}

static void each_follows_his_own(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = followed();
    rig_hello(rig, 1, SESSION, NULL);
    rig_hello(rig, 3, OTHER_SESSION, NULL);
    rig_hello(rig, 4, NULL, NULL);
    uint64_t first = rig_submitted(rig, 1, 1, &options, 1, NULL);
    uint64_t second = rig_submitted(rig, 3, 1, &options, 1, NULL);
    uint64_t third = rig_submitted(rig, 4, 0, &options, 1, NULL); /* of no session */
    rig_hello(rig, 5, "client session 3", NULL);
    uint64_t fourth = rig_submitted(rig, 5, 1, &options, 1, NULL); /* of one that has left */
    rig_begin(rig);
    rig_disconnect(rig, 5);
    rig_end(rig);
    rig_worker(rig, 2, "w", 4);
    print(rig, first);
    assert_int_equal(outputs(rig, 1), 1);
    assert_int_equal(outputs(rig, 3), 0);
    print(rig, second);
    print(rig, second);
    print(rig, third);
    print(rig, fourth);
    assert_int_equal(outputs(rig, 1), 0);
    assert_int_equal(outputs(rig, 3), 2);
    assert_int_equal(outputs(rig, 4), 0);
    struct hp_msg_task_follow msg = {.has = HP_HAS_TASK_FOLLOW_ON, .id = second, .on = true};
    assert_true(rig_ask(rig, 1, HP_METHOD_TASK_FOLLOW, &msg, NULL));
    msg.on = false;
    assert_true(rig_ask(rig, 1, HP_METHOD_TASK_FOLLOW, &msg, NULL));
    assert_true(rig_ask(rig, 3, HP_METHOD_TASK_FOLLOW, &msg, NULL));
    assert_true(hp_follow_any(rig->core, first));
    assert_false(hp_follow_any(rig->core, second));
    rig_free(rig);
}

/* ------------------------------------------------ pools and workers */
static void a_call_whose_pool_was_not_read(void **state)
{
    (void)state;
    struct hp_load *loads[64];
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t pool = pool_open(rig, 1, 1);
    uint64_t call = pool_calls(rig, 2, pool, 1);
    rig_crash(rig);
    rig_begin(rig);
    rig_end(rig);
    uint32_t kept = keep_loads(rig, HP_LOAD_GROUPS, loads);
    assert_true(kept > 0);
    rig_hello(rig, 3, NULL, NULL);
    pool_worker(rig, 2, "w", 1);
    kept += keep_loads(rig, HP_LOAD_GROUPS, loads + kept);
    expect(why(rig, 3, call), "waits until the pool has been read");
    struct hp_msg_pool_info wait = {
        .has = HP_HAS_POOL_INFO_WAIT_MS, .pool = pool, .wait_ms = 60000};
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, 3, POOL_INFO, pool_info, &wait);
    rig_end(rig);
    give_loads(rig, loads, kept);
    pool_report(rig, 2, pool, 0, 3, "too early to say"); /* others may be on their way */
    assert_int_equal(pool_state(rig, 3, pool), HP_POOL_STATE_OPEN);
    expect(why(rig, 3, pool), "Its client is gone");
    rig_hello(rig, 4, NULL, "v"); /* not registered */
    expect(why(rig, 3, call), "v is not connected");
    pool_report(rig, 4, pool, 1, 0, NULL); /* has no pool yet: changes nothing */
    struct hp_msg_pool_info_reply info;
    assert_int_equal(pool_state(rig, 3, pool), HP_POOL_STATE_OPEN);
    pool_worker(rig, 5, "u", 1);
    pool_report(rig, 5, pool, 1, 0, NULL);
    assert_true(rig_answer(rig, 3, msgid, &hp_desc_msg_pool_info_reply, &info));
    assert_int_equal(info.children.count, 1);
    rig_free(rig);
}

/* A pool of a client without a session, whose payload is a blob: it is kept over a restart. */
static void a_pool_of_nobody(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = pool_options(1);
    uint64_t blob = 77;
    struct hp_bin empty = {0};
    struct hp_msg_task_submit msg = {.has = HP_HAS_TASK_SUBMIT_BLOBS | HP_HAS_TASK_SUBMIT_PAYLOADS,
                                     .payloads = {.items = &empty, .count = 1},
                                     .options = options,
                                     .blobs = {.items = &blob, .count = 1}};
    struct hp_msg_task_submit_reply reply;
    msg.options.orphan_ms = 600000;
    msg.options.has |= HP_HAS_ST_TASK_OPTIONS_ORPHAN_MS;
    rig_hello(rig, 1, NULL, NULL);
    assert_true(rig_ask(rig, 1, HP_METHOD_TASK_SUBMIT, &msg, &reply));
    rig_crash(rig);
    rig_hello(rig, 1, NULL, NULL);
    rig_pass(rig, 100);
    struct hp_pool *pool = hp_pool_find(rig->core, reply.first);
    assert_non_null(pool);
    assert_int_equal(pool->blob, blob);
    assert_null(pool->maker);
    /* What the store says of its state makes no sense: it is open. */
    struct hp_record record = {
        .kind = HP_RECORD_SIDE,
        .side = {.first = 999, .count = 1, .kind = HP_SIDE_POOL, .mode = 15}};
    hp_core_recover(rig->core, &record, rig->now_ms, rig->wall_ms);
    assert_int_equal(hp_pool_find(rig->core, 999)->state, HP_SM_POOL_OPEN);
    rig_free(rig);
}

/* Each absence of its client counts from its own beginning; a detached pool has none to miss, also
 * after a restart. */
static void a_client_that_comes_and_goes(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = pool_options(1);
    options.orphan_ms = 20000;
    options.has |= HP_HAS_ST_TASK_OPTIONS_ORPHAN_MS;
    rig_hello(rig, 1, SESSION, NULL);
    rig_hello(rig, 3, OTHER_SESSION, NULL);
    uint64_t pool = rig_submitted(rig, 1, 1, &options, 1, NULL);
    uint64_t detached = rig_submitted(rig, 1, 2, &options, 1, NULL);
    struct hp_msg_pool_detach detach = {.has = HP_HAS_POOL_DETACH_ON, .pool = detached, .on = true};
    assert_true(rig_ask(rig, 1, HP_METHOD_POOL_DETACH, &detach, NULL));
    for (int absence = 0; absence < 3; absence++) {
        pool_disconnect(rig, 1);
        pool_pass(rig, 15000, NULL, 0, NULL);
        assert_int_equal(pool_state(rig, 3, pool), HP_POOL_STATE_OPEN);
        rig_hello(rig, 1, SESSION, NULL);
        pool_pass(rig, 15000, NULL, 0, NULL);
    }
    rig_crash(rig);
    rig_hello(rig, 3, OTHER_SESSION, NULL);
    pool_pass(rig, 60000, NULL, 0, NULL);
    assert_int_equal(rig_state(rig, 3, pool), HP_TASK_STATE_DONE);
    assert_int_equal(pool_state(rig, 3, detached), HP_POOL_STATE_OPEN);
    rig_free(rig);
}

static void options_larger_than_any(void **state)
{
    (void)state;
    static struct hp_str argv[300];
    static char text[1000];
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    enum hp_rpc_error_code code = 0;
    memset(text, 'x', sizeof(text));
    for (size_t i = 0; i < HP_COUNT_OF(argv); i++) {
        argv[i] = hp_str_make(text, sizeof(text));
    }
    options.argv.items = argv;
    options.argv.count = HP_COUNT_OF(argv);
    rig_hello(rig, 1, SESSION, NULL);
    assert_int_equal(rig_submitted(rig, 1, 1, &options, 1, &code), 0);
    assert_int_equal(code, HP_RPC_ERROR_BAD_REQUEST);
    options.argv.count = 200;
    assert_int_not_equal(rig_submitted(rig, 1, 2, &options, 1, &code), 0);
    rig_free(rig);
}

/* ------------------------------------------------ attempts */
static void attempts_that_their_worker_gave_up(void **state)
{
    (void)state;
    static const enum hp_reason reasons[] = {HP_REASON_DRAINED, HP_REASON_NODE_LOST,
                                             HP_REASON_NODE_RESTART, HP_REASON_CANCELLED};
    for (size_t i = 0; i < HP_COUNT_OF(reasons); i++) {
        struct rig *rig = rig_new(NULL);
        struct hp_st_task_options options = rig_command();
        rig_hello(rig, 1, SESSION, NULL);
        rig_worker(rig, 2, "w", 1);
        uint64_t id = rig_submitted(rig, 1, 1, &options, 1, NULL);
        rig_done(rig, 2, id, 1, 1, reasons[i]);
        struct hp_st_task_status status = rig_get(rig, 1, id);
        assert_int_equal(status.state, HP_TASK_STATE_LEASED); /* anew */
        assert_int_equal(status.attempt, 2);
        assert_int_equal(status.failures, 0);
        assert_int_equal(status.losses, reasons[i] != HP_REASON_DRAINED);
        rig_free(rig);
    }
}

static void a_cancelled_attempt_that_is_handed_back(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, SESSION, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t id = rig_submitted(rig, 1, 1, &options, 1, NULL);
    rig_cancel(rig, 1, id, 1, HP_CANCEL_MODE_SOFT);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_CANCELLING);
    struct hp_st_run_ref ref = {.id = id, .attempt = 1, .epoch = 1};
    struct hp_msg_worker_release msg = {.has = HP_HAS_WORKER_RELEASE_RUNS,
                                        .runs = {.items = &ref, .count = 1}};
    assert_true(rig_ask(rig, 2, HP_METHOD_WORKER_RELEASE, &msg, NULL));
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_CANCELLED);
    rig_free(rig);
}

/* ------------------------------------------------ timers */
static uint64_t delayed(struct rig *rig, uint64_t delay_ms, uint64_t expire_ms)
{
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    options.delay_ms = delay_ms;
    if (expire_ms != 0) {
        options.has |= HP_HAS_ST_TASK_OPTIONS_EXPIRE_MS;
        options.expire_ms = expire_ms;
    }
    return rig_submitted(rig, 1, 0, &options, 1, NULL);
}

/* Rows that come while the next ones are asked for are in the answer, too; some go meanwhile. */
static void timers_that_are_read_while_they_change(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        struct hp_core_config config;
        hp_core_config_init(&config);
        config.window_timers = 4;
        struct rig *rig = rig_new(&config);
        struct hp_load *loads[64];
        uint64_t ids[16];
        rig_hello(rig, 1, NULL, NULL);
        for (uint32_t i = 0; i < 8; i++) {
            ids[i] = delayed(rig, 5000 + 100 * i, 20000);
        }
        rig_crash(rig);
        rig_hello(rig, 1, NULL, NULL);
        rig_pass(rig, 4000);
        rig->now_ms += 1150;
        rig->wall_ms += 1150;
        rig_begin(rig);
        rig_end(rig);
        uint32_t kept = keep_loads(rig, HP_LOAD_SIDES, loads);
        struct hp_loaded *loaded = NULL;
        if (late == 1 && kept == 1) { /* read now, answered later */
            loaded = hp_loaded_new(loads[0]);
            while (!hp_store_load(rig->store, loaded)) {
            }
        }
        for (uint32_t i = 8; i < 12; i++) {
            ids[i] = delayed(rig, 100 + i, 30000);
        }
        rig_cancel(rig, 1, ids[3], 1, HP_CANCEL_MODE_FORCE);
        rig_cancel(rig, 1, ids[11], 1, HP_CANCEL_MODE_FORCE);
        if (loaded != NULL) {
            struct hp_event event = {.kind = HP_EVENT_LOADED, .loaded = loaded};
            rig_begin(rig);
            hp_core_step(rig->core, &event);
            rig_end(rig);
            hp_loaded_free(loaded);
        } else {
            give_loads(rig, loads, kept);
        }
        for (int i = 0; i < 100; i++) {
            rig_pass(rig, 100);
        }
        for (uint32_t i = 0; i < 12; i++) {
            assert_int_equal(rig_state(rig, 1, ids[i]),
                             i == 3 || i == 11 ? HP_TASK_STATE_CANCELLED : HP_TASK_STATE_READY);
        }
        for (int i = 0; i < 300; i++) {
            rig_pass(rig, 100);
        }
        for (uint32_t i = 0; i < 12; i++) {
            assert_int_equal(rig_state(rig, 1, ids[i]),
                             i == 3 || i == 11 ? HP_TASK_STATE_CANCELLED : HP_TASK_STATE_EXPIRED);
        }
        rig_free(rig);
    }
}

/* A task whose payload is a blob fails, waits, and is given again with it. */
static void a_blob_waits_with_its_task(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    uint64_t blob = 77;
    struct hp_bin empty = {0};
    struct hp_msg_task_submit msg = {.has = HP_HAS_TASK_SUBMIT_BLOBS | HP_HAS_TASK_SUBMIT_PAYLOADS,
                                     .payloads = {.items = &empty, .count = 1},
                                     .options = rig_command(),
                                     .blobs = {.items = &blob, .count = 1}};
    struct hp_msg_task_submit_reply reply;
    msg.options.max_retries = 1;
    msg.options.retry_base_ms = 1000;
    msg.options.has |= HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES | HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    assert_true(rig_ask(rig, 1, HP_METHOD_TASK_SUBMIT, &msg, &reply));
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 1);
    assert_int_equal(runs[0].blobs.items[0], blob);
    rig_done(rig, 2, reply.first, 1, 1, HP_REASON_EXIT);
    assert_int_equal(rig_state(rig, 1, reply.first), HP_TASK_STATE_DELAYED);
    for (int i = 0; i < 5; i++) {
        rig_pass(rig, 900);
    }
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 1);
    assert_int_equal(runs[0].attempt, 2);
    assert_int_equal(runs[0].blobs.items[0], blob);
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(each_follows_his_own),
    cmocka_unit_test(a_call_whose_pool_was_not_read),
    cmocka_unit_test(a_pool_of_nobody),
    cmocka_unit_test(a_client_that_comes_and_goes),
    cmocka_unit_test(options_larger_than_any),
    cmocka_unit_test(attempts_that_their_worker_gave_up),
    cmocka_unit_test(a_cancelled_attempt_that_is_handed_back),
    cmocka_unit_test(timers_that_are_read_while_they_change),
    cmocka_unit_test(a_blob_waits_with_its_task),
};

HP_TEST_MAIN(tests)
