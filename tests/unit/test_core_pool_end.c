/* SPDX-License-Identifier: BSD-2-Clause */
/* Pools: how they end, what becomes of their calls, restarts of the broker, what clients ask. */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"

#include "tests/unit/core_pool_fixture.h"

/* A pool with `slots` children on worker connection 2, client on 1. */
static uint64_t pool_up(struct rig *rig, uint32_t slots)
{
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", slots);
    uint64_t pool = pool_open(rig, 1, 0);
    pool_report(rig, 2, pool, slots, 0, NULL);
    return pool;
}

static enum hp_rpc_error_code refused(struct rig *rig, uint64_t number,
                                      const struct hp_st_task_options *options, uint32_t count)
{
    enum hp_rpc_error_code code = 0;
    assert_int_equal(rig_submitted(rig, 1, number, options, count, &code), 0);
    return code;
}

static enum hp_reason reason_of(struct rig *rig, uint64_t id)
{
    return rig_get(rig, 1, id).reason;
}

static void a_closed_pool_runs_what_it_has(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    uint64_t pool = pool_up(rig, 1);
    uint64_t first = pool_calls(rig, 2, pool, 2);
    assert_int_equal(pool_end(rig, 1, pool, HP_POOL_END_CLOSE), HP_POOL_STATE_CLOSING);
    struct hp_st_task_options options = call_options(pool);
    assert_int_equal(refused(rig, 3, &options, 1), HP_RPC_ERROR_ILLEGAL_STATE);
    assert_int_equal(refused(rig, 3, &options, 1), HP_RPC_ERROR_ILLEGAL_STATE); /* said again */
    rig_done(rig, 2, first, 1, 1, HP_REASON_NONE);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_RUNNING);
    rig_done(rig, 2, first + 1, 1, 1, HP_REASON_ERROR);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_DONE);
    struct pool_seen seen = pool_look(rig, 2);
    assert_int_equal(seen.call_count, 2);
    assert_int_equal(pool_order_of(&seen, pool).children, 0);
    assert_false(pool_order_of(&seen, pool).kill);
    assert_int_equal(refused(rig, 4, &options, 1), HP_RPC_ERROR_ILLEGAL_STATE);
    assert_int_equal(pool_end(rig, 1, pool, HP_POOL_END_CLOSE), HP_POOL_STATE_ENDED);
    rig_free(rig);
}

static void a_pool_without_calls_ends_at_once(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    uint64_t pool = pool_up(rig, 1);
    (void)pool_end(rig, 1, pool, HP_POOL_END_CLOSE);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_DONE);
    assert_int_equal(pool_state(rig, 1, pool), HP_POOL_STATE_ENDED);
    rig_free(rig);
}

static void termination_ends_all_calls(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    uint64_t pool = pool_up(rig, 2);
    uint64_t first = pool_calls(rig, 2, pool, 5000);
    (void)pool_look(rig, 2);
    assert_int_equal(pool_end(rig, 1, pool, HP_POOL_END_TERMINATE), HP_POOL_STATE_ENDING);
    struct pool_seen seen = pool_look(rig, 2);
    assert_int_equal(pool_order_of(&seen, pool).children, 0);
    assert_true(pool_order_of(&seen, pool).kill);
    assert_int_equal(seen.call_count, 0);
    for (int i = 0; i < 5; i++) {
        rig_pass(rig, 1);
    }
    assert_int_equal(rig_state(rig, 1, first + 2), HP_TASK_STATE_FAILED);
    assert_int_equal(reason_of(rig, first + 4999), HP_REASON_POOL_ENDED);
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_LEASED);
    rig_done(rig, 2, first, 1, 1, HP_REASON_NONE); /* it was faster */
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_DONE);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_RUNNING);
    rig_done(rig, 2, first + 1, 1, 1, HP_REASON_POOL_ENDED);
    assert_int_equal(reason_of(rig, first + 1), HP_REASON_POOL_ENDED);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_CANCELLED);
    rig_free(rig);
}

static void a_lost_worker_does_not_keep_a_terminated_pool(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    uint64_t pool = pool_up(rig, 1);
    uint64_t id = pool_calls(rig, 2, pool, 1);
    (void)pool_end(rig, 1, pool, HP_POOL_END_TERMINATE);
    pool_disconnect(rig, 2);
    pool_pass(rig, rig->config.lease_ms + 2000, NULL, 0, NULL);
    assert_int_equal(reason_of(rig, id), HP_REASON_POOL_ENDED);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_CANCELLED);
    rig_free(rig);
}

static void cancel_of_the_pool_terminates_it(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    uint64_t pool = pool_up(rig, 1);
    uint64_t first = pool_calls(rig, 2, pool, 2);
    rig_cancel(rig, 1, pool, 1, HP_CANCEL_MODE_QUEUED);
    assert_int_equal(pool_state(rig, 1, pool), HP_POOL_STATE_OPEN);
    rig_cancel(rig, 1, pool, 1, HP_CANCEL_MODE_FORCE);
    assert_int_equal(pool_state(rig, 1, pool), HP_POOL_STATE_ENDING);
    assert_int_equal(reason_of(rig, first + 1), HP_REASON_POOL_ENDED);
    rig_done(rig, 2, first, 1, 1, HP_REASON_CHILD_SIGNAL);
    assert_int_equal(reason_of(rig, first), HP_REASON_CHILD_SIGNAL);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_CANCELLED);
    rig_free(rig);
}

/* Calls that wait for a retry, or were submitted for later, are not waited for. */
static void termination_finds_delayed_calls(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    uint64_t pool = pool_up(rig, 2);
    struct hp_st_task_options options = call_options(pool);
    options.delay_ms = 1000000;
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    uint64_t later = rig_submitted(rig, 1, 2, &options, 3, NULL);
    options.durable = false;
    options.has |= HP_HAS_ST_TASK_OPTIONS_DURABLE;
    uint64_t in_memory = rig_submitted(rig, 1, 3, &options, 2, NULL);
    options = call_options(pool);
    options.max_retries = 1;
    options.retry_base_ms = 1000000;
    options.retry_cap_ms = 1000000;
    options.has |= HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES | HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS |
                   HP_HAS_ST_TASK_OPTIONS_RETRY_CAP_MS;
    uint64_t again = rig_submitted(rig, 1, 4, &options, 1, NULL);
    rig_done(rig, 2, again, 1, 1, HP_REASON_ERROR);
    assert_int_equal(rig_state(rig, 1, again), HP_TASK_STATE_DELAYED);
    struct hp_st_task_options other = rig_function();
    other.delay_ms = 1000000;
    other.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    uint64_t not_its = rig_submitted(rig, 1, 5, &other, 1, NULL);
    (void)pool_end(rig, 1, pool, HP_POOL_END_TERMINATE);
    for (int i = 0; i < 5; i++) {
        rig_pass(rig, 1);
    }
    assert_int_equal(reason_of(rig, later + 1), HP_REASON_POOL_ENDED);
    assert_int_equal(reason_of(rig, in_memory + 1), HP_REASON_POOL_ENDED);
    assert_int_equal(reason_of(rig, again), HP_REASON_POOL_ENDED);
    assert_int_equal(rig_state(rig, 1, not_its), HP_TASK_STATE_DELAYED);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_CANCELLED);
    rig_free(rig);
}

/* ------------------------------------------------ children that cannot be set up */
static void a_pool_that_cannot_be_set_up_is_broken(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_msg_pool_info_reply info;
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", 2);
    uint64_t pool = pool_open(rig, 1, 0);
    uint64_t first = pool_calls(rig, 2, pool, 3);
    pool_report(rig, 2, pool, 0, 1, "ValueError: no");
    pool_report(rig, 2, pool, 0, 2, "ValueError: no");
    assert_true(pool_info_of(rig, 1, pool, &info, NULL));
    assert_true(hp_str_eq(info.error, HP_STR("ValueError: no")));
    pool_report(rig, 2, pool, 0, 3, "ValueError: no");
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(rig_state(rig, 1, first + i), HP_TASK_STATE_FAILED);
        assert_int_equal(reason_of(rig, first + i), HP_REASON_INIT_FAILED);
    }
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_FAILED);
    assert_int_equal(reason_of(rig, pool), HP_REASON_INIT_FAILED);
    struct hp_st_task_options options = call_options(pool);
    assert_int_equal(refused(rig, 3, &options, 1), HP_RPC_ERROR_ILLEGAL_STATE);
    assert_true(pool_info_of(rig, 1, pool, &info, NULL)); /* also when it has ended */
    assert_int_equal(info.state, HP_POOL_STATE_ENDED);
    char text[1200];
    (void)snprintf(text, sizeof(text), "%.*s", HP_STR_ARG(info.error));
    assert_non_null(strstr(text, "somehost"));
    assert_non_null(strstr(text, "ValueError: no"));
    rig_free(rig);
}

static void a_worker_that_cannot_set_up_is_left_out(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "a", 2);
    pool_worker(rig, 3, "b", 2);
    uint64_t pool = pool_open(rig, 1, 4);
    assert_int_equal(pool_told(rig, 2, pool), 2);
    assert_int_equal(pool_told(rig, 3, pool), 2);
    pool_report(rig, 2, pool, 1, 0, NULL);
    (void)pool_calls(rig, 2, pool, 1);
    struct pool_seen seen = pool_look(rig, 2);
    assert_int_equal(seen.call_count, 1);
    uint64_t id = seen.runs[0].first;
    pool_report(rig, 2, pool, 1, 3, "no memory"); /* one is up: it goes on */
    assert_int_equal(pool_look(rig, 2).order_count, 0);
    pool_report(rig, 2, pool, 0, 4, "no memory");
    seen = pool_look(rig, 2);
    assert_int_equal(pool_order_of(&seen, pool).children, 0);
    assert_true(pool_order_of(&seen, pool).kill);
    assert_int_equal(pool_told(rig, 3, pool), 4);
    pool_report(rig, 3, pool, 1, 0, NULL);
    rig_done(rig, 2, id, 1, 1, HP_REASON_POOL_ENDED); /* it goes elsewhere */
    rig_pass(rig, 1);
    seen = pool_look(rig, 3);
    assert_int_equal(seen.call_count, 1);
    assert_int_equal(rig_get(rig, 1, id).losses, 0);
    rig_free(rig);
}

/* ------------------------------------------------ owners */
static void pool_detach(struct rig *rig, uint64_t conn, uint64_t pool, bool on)
{
    struct hp_msg_pool_detach msg = {.has = HP_HAS_POOL_DETACH_ON, .pool = pool, .on = on};
    struct hp_rpc rpc;
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, conn, POOL_DETACH, pool_detach, &msg);
    rig_end(rig);
    assert_true(pool_reply(rig, conn, msgid, &rpc, NULL));
}

static void an_orphan_is_closed_or_terminated(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    uint64_t workers[] = {2};
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", 1);
    struct hp_st_task_options options = pool_options(1);
    options.orphan_ms = 20000;
    options.has |= HP_HAS_ST_TASK_OPTIONS_ORPHAN_MS | HP_HAS_ST_TASK_OPTIONS_DURABLE;
    uint64_t durable = rig_submitted(rig, 1, 1, &options, 1, NULL);
    options.durable = false;
    uint64_t volatile_one = rig_submitted(rig, 1, 2, &options, 1, NULL);
    uint64_t detached = rig_submitted(rig, 1, 3, &options, 1, NULL);
    pool_detach(rig, 1, detached, true);
    (void)pool_calls(rig, 4, durable, 1);
    (void)pool_calls(rig, 5, volatile_one, 1);
    pool_disconnect(rig, 1);
    pool_pass(rig, 15000, workers, 1, NULL);
    rig_hello(rig, 1, SESSION, NULL); /* back in time */
    pool_pass(rig, 15000, workers, 1, NULL);
    assert_int_equal(pool_state(rig, 1, durable), HP_POOL_STATE_OPEN);
    pool_disconnect(rig, 1);
    pool_pass(rig, 21000, workers, 1, NULL);
    rig_hello(rig, 1, OTHER_SESSION, NULL);
    assert_int_equal(pool_state(rig, 1, durable), HP_POOL_STATE_CLOSING);
    assert_int_equal(rig_state(rig, 1, volatile_one), HP_TASK_STATE_CANCELLED);
    assert_int_equal(pool_state(rig, 1, detached), HP_POOL_STATE_OPEN);
    rig_free(rig);
}

static void another_session_may_take_a_pool_over(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    uint64_t workers[] = {2};
    uint64_t pool = pool_up(rig, 1);
    rig_hello(rig, 3, OTHER_SESSION, NULL);
    pool_detach(rig, 3, pool, false);
    pool_disconnect(rig, 1);
    pool_pass(rig, 70000, workers, 1, NULL);
    assert_int_equal(pool_state(rig, 3, pool), HP_POOL_STATE_OPEN);
    rig_crash(rig); /* that is durable, too */
    rig_hello(rig, 3, OTHER_SESSION, NULL);
    pool_worker(rig, 2, "w", 1);
    pool_pass(rig, 70000, workers, 1, NULL);
    assert_int_equal(pool_state(rig, 3, pool), HP_POOL_STATE_OPEN);
    pool_disconnect(rig, 3);
    pool_pass(rig, 70000, workers, 1, NULL);
    rig_hello(rig, 1, SESSION, NULL);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_DONE);
    rig_free(rig);
}

/* ------------------------------------------------ restarts of the broker */
static void an_open_pool_goes_on_after_a_restart(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    uint64_t pool = pool_up(rig, 2);
    uint64_t first = pool_calls(rig, 2, pool, 5);
    (void)pool_look(rig, 2);
    rig_crash(rig);
    rig_hello(rig, 1, SESSION, NULL);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_RUNNING);
    struct hp_st_run_ref runs[2] = {{.id = first, .attempt = 1, .epoch = 1},
                                    {.id = first + 1, .attempt = 1, .epoch = 1}};
    struct pool_offer offer = {
        .slots = 2, .language = "python3.11", .runs = {.items = runs, .count = 2}};
    rig_hello(rig, 2, NULL, "w");
    pool_register(rig, 2, &offer);
    struct pool_seen seen = pool_look(rig, 2);
    assert_int_equal(pool_order_of(&seen, pool).children, 2);
    assert_true(pool_order_of(&seen, pool).has_options);
    assert_int_equal(seen.complete_count, 1);
    struct hp_msg_pool_info_reply info;
    assert_true(pool_info_of(rig, 1, pool, &info, NULL));
    assert_int_equal(info.live, 5);
    pool_report(rig, 2, pool, 2, 0, NULL);
    rig_done(rig, 2, first, 1, 1, HP_REASON_NONE);
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_DONE);
    assert_int_equal(pool_look(rig, 2).call_count, 1);
    rig_free(rig);
}

/* The worker may be there before the pool was read: it must not be told that it has ended. */
static void a_quick_worker_keeps_its_children(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    uint64_t pool = pool_up(rig, 1);
    rig_crash(rig);
    rig_begin(rig);
    rig_connect(rig, 2);
    struct hp_msg_hello hello = {.has = HP_HAS_HELLO_NODE | HP_HAS_HELLO_BOOT,
                                 .client = HP_STR("test"),
                                 .version = 1,
                                 .node = HP_STR("w"),
                                 .boot = hp_bin_make("abcdefghijklmnop", 16)};
    (void)RIG_CALL(rig, 2, HELLO, hello, &hello);
    struct hp_str language = HP_STR("python3.11");
    struct hp_msg_worker_register msg = {.has = HP_HAS_WORKER_REGISTER_LANGUAGES,
                                         .host = HP_STR("somehost"),
                                         .slots = 1,
                                         .languages = {.items = &language, .count = 1}};
    (void)RIG_CALL(rig, 2, WORKER_REGISTER, worker_register, &msg);
    rig_end(rig);
    while (rig->jobs[0].batch != NULL) {
        (void)rig_job(rig);
    }
    assert_int_equal(pool_look(rig, 2).complete_count, 0);
    rig_settle(rig);
    struct pool_seen seen = pool_look(rig, 2);
    assert_int_equal(pool_order_of(&seen, pool).children, 1);
    assert_int_equal(seen.complete_count, 1);
    rig_free(rig);
}

/* What a restart forgot is shared out anew until the workers are back. */
static void a_number_of_children_is_shared_out_anew_after_a_restart(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "a", 2);
    pool_worker(rig, 3, "b", 2);
    uint64_t pool = pool_open(rig, 1, 4);
    rig_crash(rig);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "a", 2);
    assert_int_equal(pool_told(rig, 2, pool), 4);
    pool_worker(rig, 3, "b", 2);
    assert_int_equal(pool_told(rig, 2, pool), 2);
    assert_int_equal(pool_told(rig, 3, pool), 2);
    rig_free(rig);
}

static void a_closing_pool_waits_for_retries_over_a_restart(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    uint64_t pool = pool_up(rig, 1);
    struct hp_st_task_options options = call_options(pool);
    options.max_retries = 1;
    options.retry_base_ms = 10000;
    options.retry_cap_ms = 10000;
    options.has |= HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES | HP_HAS_ST_TASK_OPTIONS_RETRY_BASE_MS |
                   HP_HAS_ST_TASK_OPTIONS_RETRY_CAP_MS;
    uint64_t id = rig_submitted(rig, 1, 2, &options, 1, NULL);
    rig_done(rig, 2, id, 1, 1, HP_REASON_ERROR);
    assert_int_equal(pool_end(rig, 1, pool, HP_POOL_END_CLOSE), HP_POOL_STATE_CLOSING);
    rig_crash(rig);
    rig_hello(rig, 1, SESSION, NULL);
    rig_pass(rig, 1);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_RUNNING);
    pool_worker(rig, 2, "w", 1);
    pool_report(rig, 2, pool, 1, 0, NULL);
    uint64_t workers[] = {2};
    pool_pass(rig, 4000, workers, 1, NULL);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_RUNNING);
    (void)pool_look(rig, 2);
    for (int i = 0; i < 8; i++) {
        rig_pass(rig, 900);
    }
    struct pool_seen seen = pool_look(rig, 2);
    assert_int_equal(seen.call_count, 1);
    rig_done(rig, 2, id, 2, seen.runs[0].epoch, HP_REASON_NONE);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_DONE);
    rig_free(rig);
}

static void an_ending_pool_ends_after_a_restart(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    uint64_t pool = pool_up(rig, 1);
    struct hp_st_task_options options = call_options(pool);
    options.delay_ms = 1000000;
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    uint64_t later = rig_submitted(rig, 1, 2, &options, 2, NULL);
    uint64_t first = pool_calls(rig, 3, pool, 4);
    struct hp_msg_pool_end msg = {
        .has = HP_HAS_POOL_END_HOW, .pool = pool, .how = HP_POOL_END_TERMINATE};
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, POOL_END, pool_end, &msg);
    rig_end(rig);
    (void)rig_job(rig); /* that it ends is durable; its delayed calls were not looked for yet */
    rig_crash(rig);
    rig_hello(rig, 1, SESSION, NULL);
    for (int i = 0; i < 5; i++) {
        rig_pass(rig, 1);
    }
    assert_int_equal(reason_of(rig, later), HP_REASON_POOL_ENDED);
    assert_int_equal(reason_of(rig, first + 3), HP_REASON_POOL_ENDED);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_RUNNING);
    struct hp_st_run_ref runs[1] = {{.id = first, .attempt = 1, .epoch = 1}};
    struct pool_offer offer = {
        .slots = 1, .language = "python3.11", .runs = {.items = runs, .count = 1}};
    rig_hello(rig, 2, NULL, "w");
    pool_register(rig, 2, &offer);
    struct pool_seen seen = pool_look(rig, 2);
    assert_true(pool_order_of(&seen, pool).kill);
    rig_done(rig, 2, first, 1, 1, HP_REASON_POOL_ENDED);
    assert_int_equal(reason_of(rig, first), HP_REASON_POOL_ENDED);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_CANCELLED);
    rig_free(rig);
}

/* ------------------------------------------------ contents */
static uint64_t content_get(struct rig *rig, uint64_t pool, const char *digest)
{
    struct hp_msg_pool_get msg = {.pool = pool, .digest = hp_bin_make(digest, strlen(digest))};
    struct hp_msg_pool_get_reply reply;
    struct hp_rpc rpc;
    struct hp_error error;
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, 1, POOL_GET, pool_get, &msg);
    rig_end(rig);
    if (!pool_reply(rig, 1, msgid, &rpc, NULL)) {
        return 0;
    }
    assert_ok(hp_msg_pool_get_reply_decode(rpc.result, &rig->arena, &reply, &error));
    return reply.blob;
}

/* 1: it was known; 0: not; -1: refused. */
static int content_put(struct rig *rig, uint64_t pool, const char *digest, uint64_t blob)
{
    struct hp_msg_pool_put msg = {.has = blob != 0 ? HP_HAS_POOL_PUT_BLOB : 0,
                                  .pool = pool,
                                  .digest = hp_bin_make(digest, strlen(digest)),
                                  .blob = blob};
    struct hp_msg_pool_put_reply reply;
    struct hp_rpc rpc;
    struct hp_error error;
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, 1, POOL_PUT, pool_put, &msg);
    rig_end(rig);
    if (!pool_reply(rig, 1, msgid, &rpc, NULL)) {
        return -1;
    }
    assert_ok(hp_msg_pool_put_reply_decode(rpc.result, &rig->arena, &reply, &error));
    return reply.known;
}

static void contents_live_as_long_as_the_pool(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    uint64_t pool = pool_up(rig, 1);
    const char *digest = "digest of 16 byt";
    assert_int_equal(content_put(rig, pool, digest, 0), 0); /* only asked */
    assert_int_equal(content_get(rig, pool, digest), 0);
    assert_int_equal(content_put(rig, pool, digest, 77), 0);
    assert_int_equal(content_put(rig, pool, digest, 78), 1);
    assert_int_equal(content_get(rig, pool, digest), 77);
    assert_int_equal(content_get(rig, pool + 1, digest), 0);
    assert_int_equal(content_put(rig, pool, "short", 5), -1);
    assert_int_equal(content_put(rig, pool, "one not durable.", HP_VBLOB_BIT | 1), -1);
    rig_crash(rig);
    rig_hello(rig, 1, SESSION, NULL);
    assert_int_equal(content_get(rig, pool, digest), 77);
    (void)pool_end(rig, 1, pool, HP_POOL_END_CLOSE);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_DONE);
    assert_int_equal(content_get(rig, pool, digest), 0);
    rig_crash(rig);
    rig_hello(rig, 1, SESSION, NULL);
    assert_int_equal(content_get(rig, pool, digest), 0);
    rig_free(rig);
}

/* ------------------------------------------------ what is refused, what is told */
static void options_are_checked(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    struct hp_st_task_options options = pool_options(0);
    options.language = HP_STR("");
    assert_int_equal(refused(rig, 0, &options, 1), HP_RPC_ERROR_BAD_REQUEST);
    options = pool_options(0);
    assert_int_equal(refused(rig, 0, &options, 2), HP_RPC_ERROR_BAD_REQUEST);
    options.delay_ms = 5;
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    assert_int_equal(refused(rig, 0, &options, 1), HP_RPC_ERROR_BAD_REQUEST);
    options = call_options(0);
    assert_int_equal(refused(rig, 0, &options, 1), HP_RPC_ERROR_BAD_REQUEST);
    options = call_options(99999);
    assert_int_equal(refused(rig, 0, &options, 1), HP_RPC_ERROR_NOT_FOUND);
    options = rig_function();
    options = call_options(rig_submitted(rig, 1, 0, &options, 1, NULL));
    assert_int_equal(refused(rig, 0, &options, 1), HP_RPC_ERROR_NOT_FOUND);
    pool_worker(rig, 2, "w", 2);
    options = pool_options(33); /* 16 for each slot */
    assert_int_equal(refused(rig, 0, &options, 1), HP_RPC_ERROR_TOO_BIG);
    options = pool_options(1);
    options.language = HP_STR("python3.99");
    assert_int_equal(refused(rig, 0, &options, 1), HP_RPC_ERROR_UNSUPPORTED);
    options.interpreter = HP_STR("/opt/python");
    options.has |= HP_HAS_ST_TASK_OPTIONS_INTERPRETER;
    assert_int_equal(refused(rig, 0, &options, 1), HP_RPC_ERROR_UNSUPPORTED);
    rig_hello(rig, 3, NULL, "any");
    struct pool_offer offer = {.slots = 1, .any_interpreter = true};
    pool_register(rig, 3, &offer);
    uint64_t pool = rig_submitted(rig, 1, 0, &options, 1, NULL);
    assert_int_equal(pool_told(rig, 3, pool), 1);
    rig_free(rig);
}

static void a_submit_that_comes_again_is_answered_again(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_msg_pool_info_reply info;
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t pool = pool_open(rig, 1, 0);
    assert_int_equal(pool_open(rig, 1, 0), pool);
    uint64_t first = pool_calls(rig, 2, pool, 3);
    assert_int_equal(pool_calls(rig, 2, pool, 3), first);
    assert_true(pool_info_of(rig, 1, pool, &info, NULL));
    assert_int_equal(info.live, 3);
    rig_free(rig);
}

static void info_waits_for_a_child(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_rpc rpc;
    struct hp_error error;
    struct hp_msg_pool_info_reply info;
    uint64_t workers[] = {2};
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", 1);
    uint64_t pool = pool_open(rig, 1, 0);
    struct hp_msg_pool_info msg = {
        .has = HP_HAS_POOL_INFO_WAIT_MS, .pool = pool, .wait_ms = 5000};
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, POOL_INFO, pool_info, &msg);
    rig_end(rig);
    rig_settle(rig);
    assert_false(rig_next(rig, 1, &rpc));
    pool_pass(rig, 5400, workers, 1, NULL);
    assert_true(rig_next(rig, 1, &rpc)); /* time is up */
    assert_ok(hp_msg_pool_info_reply_decode(rpc.result, &rig->arena, &info, &error));
    assert_int_equal(info.children.count, 0);
    msg.wait_ms = 3600000;
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, POOL_INFO, pool_info, &msg);
    rig_end(rig);
    rig_settle(rig);
    pool_report(rig, 2, pool, 1, 0, NULL);
    assert_true(rig_next(rig, 1, &rpc));
    assert_ok(hp_msg_pool_info_reply_decode(rpc.result, &rig->arena, &info, &error));
    assert_int_equal(info.children.count, 1);
    pool_report(rig, 2, pool, 0, 0, NULL);
    rig_begin(rig); /* one who leaves is not waited for */
    (void)RIG_CALL(rig, 1, POOL_INFO, pool_info, &msg);
    rig_end(rig);
    pool_disconnect(rig, 1);
    assert_true(hp_list_is_empty(&hp_pool_find(rig->core, pool)->waits));
    rig_free(rig);
}

static bool why_says(struct rig *rig, uint64_t id, const char *text)
{
    struct hp_msg_task_why msg = {.id = id};
    struct hp_msg_task_why_reply reply;
    struct hp_rpc rpc;
    struct hp_error error;
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, 1, TASK_WHY, task_why, &msg);
    rig_end(rig);
    assert_true(pool_reply(rig, 1, msgid, &rpc, NULL));
    assert_ok(hp_msg_task_why_reply_decode(rpc.result, &rig->arena, &reply, &error));
    bool found = false;
    for (uint32_t i = 0; i < reply.lines.count; i++) {
        char line[1100];
        (void)snprintf(line, sizeof(line), "%.*s", HP_STR_ARG(reply.lines.items[i]));
        found = found || strstr(line, text) != NULL;
    }
    return found;
}

static void why_tells_what_is_missing(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t pool = pool_open(rig, 1, 0);
    uint64_t id = pool_calls(rig, 2, pool, 1);
    assert_true(why_says(rig, id, "No worker has ever connected"));
    rig_worker(rig, 3, "plain", 1);
    assert_true(why_says(rig, id, "plain cannot have children of the pool"));
    pool_worker(rig, 2, "w", 2);
    assert_true(why_says(rig, id, "w has 0 of 2 children set up"));
    assert_true(why_says(rig, pool, "0 of 2 children are set up"));
    pool_worker(rig, 4, "bad", 2);
    pool_report(rig, 4, pool, 0, 3, "ImportError: x");
    assert_true(why_says(rig, id, "bad could not set up a child: ImportError: x"));
    assert_true(why_says(rig, pool, "ImportError: x"));
    rig_free(rig);
}

static void pools_are_listed_in_pages(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_rpc rpc;
    struct hp_error error;
    struct hp_msg_pool_list_reply reply;
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t pools[3];
    for (uint64_t i = 0; i < 3; i++) {
        pools[i] = pool_open(rig, i + 1, 0);
    }
    struct hp_msg_pool_list msg = {.has = HP_HAS_POOL_LIST_LIMIT, .limit = 2};
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, 1, POOL_LIST, pool_list, &msg);
    rig_end(rig);
    assert_true(pool_reply(rig, 1, msgid, &rpc, NULL));
    assert_ok(hp_msg_pool_list_reply_decode(rpc.result, &rig->arena, &reply, &error));
    assert_int_equal(reply.pools.count, 2);
    assert_int_equal(reply.pools.items[1].pool, pools[1]);
    assert_true(reply.pools.items[0].owned);
    assert_int_equal(reply.next, pools[1]);
    msg.after = reply.next;
    msg.has |= HP_HAS_POOL_LIST_AFTER;
    rig_begin(rig);
    msgid = RIG_CALL(rig, 1, POOL_LIST, pool_list, &msg);
    rig_end(rig);
    assert_true(pool_reply(rig, 1, msgid, &rpc, NULL));
    assert_ok(hp_msg_pool_list_reply_decode(rpc.result, &rig->arena, &reply, &error));
    assert_int_equal(reply.pools.count, 1);
    assert_int_equal(reply.has & HP_HAS_POOL_LIST_REPLY_NEXT, 0);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_closed_pool_runs_what_it_has),
        cmocka_unit_test(a_pool_without_calls_ends_at_once),
        cmocka_unit_test(termination_ends_all_calls),
        cmocka_unit_test(a_lost_worker_does_not_keep_a_terminated_pool),
        cmocka_unit_test(cancel_of_the_pool_terminates_it),
        cmocka_unit_test(termination_finds_delayed_calls),
        cmocka_unit_test(a_pool_that_cannot_be_set_up_is_broken),
        cmocka_unit_test(a_worker_that_cannot_set_up_is_left_out),
        cmocka_unit_test(an_orphan_is_closed_or_terminated),
        cmocka_unit_test(another_session_may_take_a_pool_over),
        cmocka_unit_test(an_open_pool_goes_on_after_a_restart),
        cmocka_unit_test(a_quick_worker_keeps_its_children),
        cmocka_unit_test(a_number_of_children_is_shared_out_anew_after_a_restart),
        cmocka_unit_test(a_closing_pool_waits_for_retries_over_a_restart),
        cmocka_unit_test(an_ending_pool_ends_after_a_restart),
        cmocka_unit_test(contents_live_as_long_as_the_pool),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(a_submit_that_comes_again_is_answered_again),
        cmocka_unit_test(info_waits_for_a_child),
        cmocka_unit_test(why_tells_what_is_missing),
        cmocka_unit_test(pools_are_listed_in_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
