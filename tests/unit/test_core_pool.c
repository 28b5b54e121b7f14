/* SPDX-License-Identifier: BSD-2-Clause */
/* Pools: opening, who is granted how many children, what workers are told, where calls go. */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"

#include "tests/unit/core_pool_fixture.h"

static void a_pool_has_a_child_for_each_slot(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_msg_pool_info_reply info;
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", 4);
    assert_int_equal(pool_look(rig, 2).complete_count, 1);
    struct hp_st_task_options options = pool_options(0);
    struct hp_bin payload = hp_bin_make("setup", 5);
    struct hp_msg_task_submit msg = {.has = HP_HAS_TASK_SUBMIT_PAYLOADS,
                                     .options = options,
                                     .payloads = {.items = &payload, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, TASK_SUBMIT, task_submit, &msg);
    rig_end(rig);
    assert_int_equal(pool_look(rig, 2).order_count, 0); /* not before it is durable */
    rig_settle(rig);
    struct pool_seen seen = pool_look(rig, 2);
    assert_int_equal(seen.order_count, 1);
    uint64_t pool = seen.orders[0].pool;
    assert_int_equal(seen.orders[0].children, 4);
    assert_true(seen.orders[0].has_options);
    assert_int_equal(seen.orders[0].payload_bytes, 5);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_RUNNING);
    assert_true(pool_info_of(rig, 1, pool, &info, NULL));
    assert_int_equal(info.state, HP_POOL_STATE_OPEN);
    assert_int_equal(info.processes, 4);
    assert_int_equal(info.children.count, 0);
    pool_report(rig, 2, pool, 2, 0, NULL);
    assert_true(pool_info_of(rig, 1, pool, &info, NULL));
    assert_int_equal(info.children.count, 2);
    assert_int_equal(info.children.items[1].pid, 2001);
    rig_free(rig);
}

static void calls_wait_for_the_first_child(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", 2);
    uint64_t pool = pool_open(rig, 1, 0);
    uint64_t first = pool_calls(rig, 2, pool, 10);
    assert_int_equal(pool_look(rig, 2).call_count, 0);
    pool_report(rig, 2, pool, 1, 0, NULL);
    struct pool_seen seen = pool_look(rig, 2);
    assert_int_equal(seen.call_count, 2); /* as many as it is granted children */
    assert_int_equal(seen.runs[0].first, first);
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_LEASED);
    rig_done(rig, 2, first, 1, 1, HP_REASON_NONE);
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_DONE);
    assert_int_equal(pool_look(rig, 2).call_count, 1);
    struct hp_msg_pool_info_reply info;
    assert_true(pool_info_of(rig, 1, pool, &info, NULL));
    assert_int_equal(info.live, 9);
    rig_free(rig);
}

static void calls_take_no_slots(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    rig_hello(rig, 2, NULL, "w");
    struct pool_offer offer = {.slots = 1, .language = "python3.11"};
    pool_register(rig, 2, &offer);
    uint64_t pool = pool_open(rig, 1, 3);
    assert_int_equal(pool_told(rig, 2, pool), 3); /* more than it has slots */
    pool_report(rig, 2, pool, 3, 0, NULL);
    (void)pool_calls(rig, 2, pool, 5);
    assert_int_equal(pool_look(rig, 2).call_count, 3);
    struct hp_node *node = hp_node_get(rig->core, HP_STR("w"));
    assert_int_equal(node->used_cpus + node->light_count, 0);
    rig_free(rig);
}

static void waiting_children_make_room(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", 1);
    uint64_t pool = pool_open(rig, 1, 0);
    pool_report(rig, 2, pool, 1, 0, NULL);
    (void)pool_calls(rig, 2, pool, 5);
    assert_int_equal(pool_look(rig, 2).call_count, 1);
    uint64_t pid = 1;
    struct hp_st_pool_report report = {.has = HP_HAS_ST_POOL_REPORT_PIDS |
                                              HP_HAS_ST_POOL_REPORT_WAITING,
                                       .pool = pool,
                                       .pids = {.items = &pid, .count = 1},
                                       .waiting = 1};
    struct hp_msg_worker_pool_report msg = {.has = HP_HAS_WORKER_POOL_REPORT_POOLS,
                                            .pools = {.items = &report, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_POOL_REPORT, worker_pool_report, &msg);
    rig_end(rig);
    rig_settle(rig);
    assert_int_equal(pool_look(rig, 2).call_count, 1);
    rig_free(rig);
}

static void short_calls_are_sent_ahead(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", 2);
    uint64_t pool = pool_open(rig, 1, 0);
    pool_report(rig, 2, pool, 2, 0, NULL);
    uint64_t first = pool_calls(rig, 2, pool, 1000);
    assert_int_equal(pool_look(rig, 2).call_count, 2);
    struct hp_class *class_ = hp_attempt_find(rig->core, first)->spec->lane->class_;
    class_->run_us = 99000; /* one is under way while another runs */
    rig_done(rig, 2, first, 1, 1, HP_REASON_NONE);
    assert_int_equal(pool_look(rig, 2).call_count, 3); /* 4 there */
    class_->run_us = 100000;
    rig_done(rig, 2, first + 1, 1, 1, HP_REASON_NONE);
    assert_int_equal(pool_look(rig, 2).call_count, 0);
    class_->run_us = 1000; /* 20 ms of work for each child */
    rig_done(rig, 2, first + 2, 1, 1, HP_REASON_NONE);
    assert_int_equal(pool_look(rig, 2).call_count, 40 - 2);
    rig_free(rig);
}

static void a_number_is_spread_in_proportion_to_slots(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "a", 4);
    pool_worker(rig, 3, "b", 2);
    uint64_t pool = pool_open(rig, 1, 6);
    assert_int_equal(pool_told(rig, 2, pool), 4);
    assert_int_equal(pool_told(rig, 3, pool), 2);
    pool_worker(rig, 4, "c", 4); /* they stay where they are */
    assert_int_equal(pool_look(rig, 4).order_count, 0);
    assert_int_equal(pool_look(rig, 2).order_count, 0);
    rig_free(rig);
}

static void pools_follow_workers_that_come_and_go(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_msg_pool_info_reply info;
    rig_hello(rig, 1, SESSION, NULL);
    uint64_t each = pool_open(rig, 1, 0); /* no worker yet: they wait */
    uint64_t four = pool_open(rig, 2, 4);
    (void)pool_calls(rig, 3, each, 1);
    pool_worker(rig, 2, "a", 2);
    struct pool_seen seen = pool_look(rig, 2);
    assert_int_equal(pool_order_of(&seen, each).children, 2);
    assert_int_equal(pool_order_of(&seen, four).children, 4);
    assert_int_equal(seen.complete_count, 1);
    pool_worker(rig, 3, "b", 3);
    seen = pool_look(rig, 3);
    assert_int_equal(pool_order_of(&seen, each).children, 3);
    assert_int_equal(seen.order_count, 1);
    pool_disconnect(rig, 2);
    uint64_t workers[] = {3};
    pool_pass(rig, rig->config.lease_ms - 2000, workers, 1, NULL); /* away: it keeps them */
    assert_int_equal(pool_look(rig, 3).order_count, 0);
    assert_true(pool_info_of(rig, 1, each, &info, NULL));
    assert_int_equal(info.processes, 5);
    pool_pass(rig, 3000, workers, 1, NULL);
    seen = pool_look(rig, 3);
    assert_int_equal(pool_order_of(&seen, four).children, 4);
    assert_true(pool_info_of(rig, 1, each, &info, NULL));
    assert_int_equal(info.processes, 3);
    rig_free(rig);
}

static void drain(struct rig *rig, const char *node, bool on)
{
    struct hp_msg_worker_drain msg = {.node = hp_str_of(node), .on = on};
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, WORKER_DRAIN, worker_drain, &msg);
    rig_end(rig);
    rig_settle(rig);
}

static void a_draining_worker_ends_its_children_in_order(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "a", 2);
    uint64_t pool = pool_open(rig, 1, 0);
    pool_report(rig, 2, pool, 2, 0, NULL);
    uint64_t first = pool_calls(rig, 2, pool, 4);
    assert_int_equal(pool_look(rig, 2).call_count, 2);
    drain(rig, "a", true);
    struct pool_seen seen = pool_look(rig, 2);
    assert_int_equal(pool_order_of(&seen, pool).children, 0);
    assert_false(pool_order_of(&seen, pool).kill);
    rig_done(rig, 2, first, 1, 1, HP_REASON_NONE);
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_DONE);
    assert_int_equal(pool_look(rig, 2).call_count, 0);
    drain(rig, "a", false);
    assert_int_equal(pool_told(rig, 2, pool), 2);
    rig_free(rig);
}

static void children_max_bounds_all_pools(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    rig_hello(rig, 2, NULL, "w");
    struct pool_offer offer = {.slots = 4, .children_max = 6, .language = "python3.11"};
    pool_register(rig, 2, &offer);
    uint64_t one = pool_open(rig, 1, 0);
    assert_int_equal(pool_told(rig, 2, one), 4);
    uint64_t two = pool_open(rig, 2, 0);
    assert_int_equal(pool_told(rig, 2, two), 2);
    assert_int_equal(pool_end(rig, 1, one, HP_POOL_END_CLOSE), HP_POOL_STATE_CLOSING);
    struct pool_seen seen = pool_look(rig, 2);
    assert_int_equal(pool_order_of(&seen, one).children, 0);
    assert_int_equal(pool_order_of(&seen, two).children, 4);
    rig_free(rig);
}

static void a_worker_that_registers_again_is_told_all(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", 2);
    uint64_t pool = pool_open(rig, 1, 0);
    uint64_t other = pool_open(rig, 2, 0);
    pool_report(rig, 2, pool, 2, 0, NULL);
    uint64_t first = pool_calls(rig, 3, pool, 5);
    struct pool_seen seen = pool_look(rig, 2);
    assert_int_equal(seen.call_count, 2);
    pool_disconnect(rig, 2);
    rig_hello(rig, 2, NULL, "w");
    struct hp_st_run_ref runs[2] = {{.id = first, .attempt = 1, .epoch = 1},
                                    {.id = first + 1, .attempt = 1, .epoch = 1}};
    struct pool_offer offer = {
        .slots = 2, .language = "python3.11", .runs = {.items = runs, .count = 2}};
    pool_register(rig, 2, &offer);
    seen = pool_look(rig, 2);
    assert_int_equal(pool_order_of(&seen, pool).children, 2);
    assert_int_equal(pool_order_of(&seen, other).children, 2);
    assert_int_equal(seen.complete_count, 1);
    assert_int_equal(seen.call_count, 0);
    rig_done(rig, 2, first, 1, 1, HP_REASON_NONE);
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_DONE);
    assert_int_equal(pool_look(rig, 2).call_count, 0); /* it has not reported yet */
    pool_report(rig, 2, pool, 2, 0, NULL);
    assert_int_equal(pool_look(rig, 2).call_count, 1);
    rig_free(rig);
}

static void calls_in_memory_need_no_commit(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_msg_pool_info_reply info;
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", 2);
    uint64_t pool = pool_open(rig, 1, 0);
    pool_report(rig, 2, pool, 2, 0, NULL);
    (void)pool_look(rig, 2);
    struct hp_st_task_options options = call_options(pool);
    options.durable = false;
    options.has |= HP_HAS_ST_TASK_OPTIONS_DURABLE;
    uint32_t groups = rig->op_counts[HP_OP_GROUP];
    rig_begin(rig);
    (void)rig_submit(rig, 1, 2, &options, 3);
    rig_end(rig);
    struct pool_seen seen = pool_look(rig, 2);
    assert_int_equal(seen.call_count, 2);
    assert_int_equal(rig->op_counts[HP_OP_GROUP], groups);
    uint64_t first = seen.runs[0].first;
    assert_true(pool_info_of(rig, 1, pool, &info, NULL));
    assert_int_equal(info.live, 3);
    rig_done(rig, 2, first, 1, 1, HP_REASON_NONE);
    rig_done(rig, 2, first + 1, 1, 1, HP_REASON_NONE);
    rig_done(rig, 2, first + 2, 1, 1, HP_REASON_NONE);
    assert_int_equal(pool_end(rig, 1, pool, HP_POOL_END_CLOSE), HP_POOL_STATE_CLOSING);
    assert_int_equal(rig_state(rig, 1, pool), HP_TASK_STATE_DONE);
    rig_free(rig);
}

/* A child that dies costs a call one of its losses, as with functions. */
static void deaths_of_children_are_losses(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", 1);
    uint64_t pool = pool_open(rig, 1, 0);
    pool_report(rig, 2, pool, 1, 0, NULL);
    struct hp_st_task_options options = call_options(pool);
    options.child_losses = 1;
    options.has |= HP_HAS_ST_TASK_OPTIONS_CHILD_LOSSES;
    uint64_t id = rig_submitted(rig, 1, 2, &options, 1, NULL);
    rig_done(rig, 2, id, 1, 1, HP_REASON_CHILD_SIGNAL);
    assert_int_equal(rig_get(rig, 1, id).losses, 1);
    rig_pass(rig, 2000);
    struct pool_seen seen = pool_look(rig, 2);
    assert_int_equal(seen.run_count, 2);
    assert_int_equal(seen.runs[1].attempt, 2);
    rig_done(rig, 2, id, 2, 1, HP_REASON_CHILD_SIGNAL);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_FAILED);
    assert_int_equal(rig_get(rig, 1, id).reason, HP_REASON_CHILD_SIGNAL);
    rig_free(rig);
}

static void a_cancelled_call_is_no_end_of_its_pool(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", 1);
    uint64_t pool = pool_open(rig, 1, 0);
    pool_report(rig, 2, pool, 1, 0, NULL);
    uint64_t first = pool_calls(rig, 2, pool, 3);
    rig_cancel(rig, 1, first, 2, HP_CANCEL_MODE_FORCE);
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_CANCELLING);
    assert_int_equal(rig_state(rig, 1, first + 1), HP_TASK_STATE_CANCELLED);
    rig_done(rig, 2, first, 1, 1, HP_REASON_CHILD_SIGNAL);
    assert_int_equal(rig_state(rig, 1, first), HP_TASK_STATE_CANCELLED);
    assert_int_equal(pool_look(rig, 2).call_count, 2);
    assert_int_equal(pool_state(rig, 1, pool), HP_POOL_STATE_OPEN);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pool_has_a_child_for_each_slot),
        cmocka_unit_test(calls_wait_for_the_first_child),
        cmocka_unit_test(calls_take_no_slots),
        cmocka_unit_test(waiting_children_make_room),
        cmocka_unit_test(short_calls_are_sent_ahead),
        cmocka_unit_test(a_number_is_spread_in_proportion_to_slots),
        cmocka_unit_test(pools_follow_workers_that_come_and_go),
        cmocka_unit_test(a_draining_worker_ends_its_children_in_order),
        cmocka_unit_test(children_max_bounds_all_pools),
        cmocka_unit_test(a_worker_that_registers_again_is_told_all),
        cmocka_unit_test(calls_in_memory_need_no_commit),
        cmocka_unit_test(deaths_of_children_are_losses),
        cmocka_unit_test(a_cancelled_call_is_no_end_of_its_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
