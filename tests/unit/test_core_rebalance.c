/* SPDX-License-Identifier: BSD-2-Clause */
/* What was given ahead and waits behind long tasks comes back when another worker is idle. */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"

#include "tests/unit/core_pool_fixture.h"

enum { CALLS = 20, LOOKS_MS = 1000 };

/* Quick tasks have been seen of every class, so that many are given ahead. */
static void all_quick(struct rig *rig)
{
    HP_LIST_FOR_EACH (link, &rig->core->class_list) {
        HP_CONTAINER_OF(link, struct hp_class, link)->run_us = 10;
    }
}

/* What the worker was asked to give back since it was looked at last; those of other turns too. */
static uint32_t recalled(struct rig *rig, uint64_t conn, struct hp_st_run_ref *ret, uint32_t max)
{
    struct hp_rpc rpc;
    struct hp_error error;
    uint32_t count = 0;
    while (rig_next(rig, conn, &rpc)) {
        struct hp_msg_worker_control msg;
        if (rpc.type != HP_RPC_NOTIFY || rpc.method != HP_METHOD_WORKER_CONTROL) {
            continue;
        }
        assert_ok(hp_msg_worker_control_decode(rpc.params, &rig->arena, &msg, &error));
        for (uint32_t i = 0; i < msg.recall_runs.count; i++) {
            assert_true(count < max);
            ret[count++] = msg.recall_runs.items[i];
        }
    }
    return count;
}

static void give_back(struct rig *rig, uint64_t conn, struct hp_st_run_ref *refs, uint32_t count)
{
    struct hp_msg_worker_release msg = {.runs = {.items = refs, .count = count}};
    rig_begin(rig);
    (void)RIG_CALL(rig, conn, WORKER_RELEASE, worker_release, &msg);
    rig_end(rig);
    rig_settle(rig);
}

static void begin_run(struct rig *rig, uint64_t conn, uint64_t id, uint64_t epoch)
{
    struct hp_st_run_ref ref = {.id = id, .attempt = 1, .epoch = epoch};
    struct hp_msg_worker_started msg = {.runs = {.items = &ref, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, conn, WORKER_STARTED, worker_started, &msg);
    rig_end(rig);
    rig_settle(rig);
}

/* Time passes in small steps; connections 2 and 3 are alive. */
static void pass(struct rig *rig, uint64_t ms)
{
    for (uint64_t at = 0; at < ms; at += 50) {
        rig_pass(rig, 50);
    }
}

struct scene {
    struct rig *rig;
    uint64_t pool, first, epoch;
};

/* A worker has two children and all calls, two of which it runs; another has joined. */
static struct scene scene_new(uint32_t quick)
{
    struct scene scene = {.rig = rig_new(NULL)};
    rig_hello(scene.rig, 1, SESSION, NULL);
    pool_worker(scene.rig, 2, "old", 2);
    scene.pool = pool_open(scene.rig, 1, 0);
    pool_report(scene.rig, 2, scene.pool, 2, 0, NULL);
    scene.first = pool_calls(scene.rig, 2, scene.pool, 1);
    all_quick(scene.rig);
    (void)pool_calls(scene.rig, 3, scene.pool, CALLS - 1);
    struct pool_seen seen = pool_look(scene.rig, 2);
    assert_int_equal(seen.call_count, CALLS);
    scene.epoch = seen.runs[0].epoch;
    begin_run(scene.rig, 2, scene.first, scene.epoch);
    begin_run(scene.rig, 2, scene.first + 1, seen.runs[seen.run_count - 1].epoch);
    pool_worker(scene.rig, 3, "new", quick);
    (void)pool_look(scene.rig, 3);
    return scene;
}

static void idle_children_get_what_waits_elsewhere(void **state)
{
    (void)state;
    struct scene scene = scene_new(2);
    struct rig *rig = scene.rig;
    struct hp_st_run_ref refs[64];
    pass(rig, LOOKS_MS);
    assert_int_equal(recalled(rig, 2, refs, 64), 0); /* its children are not there yet */
    pool_report(rig, 3, scene.pool, 2, 0, NULL);
    pass(rig, LOOKS_MS);
    assert_int_equal(recalled(rig, 2, refs, 64), CALLS - 2); /* asked once, not in each look */
    assert_int_equal(refs[0].id, scene.first + CALLS - 1);
    assert_int_equal(refs[CALLS - 3].id, scene.first + 2);
    (void)pool_look(rig, 3);
    give_back(rig, 2, refs, CALLS - 2);
    struct pool_seen seen = pool_look(rig, 3);
    assert_int_equal(seen.call_count, 2); /* no more than can begin */
    assert_int_equal(seen.runs[0].first, scene.first + 2);
    assert_int_equal(pool_look(rig, 2).call_count, 0); /* nothing ahead while its calls run */
    rig_done(rig, 3, scene.first + 2, seen.runs[0].attempt, seen.runs[0].epoch, HP_REASON_NONE);
    assert_int_equal(pool_look(rig, 3).call_count, 1);
    rig_done(rig, 2, scene.first, 1, scene.epoch, HP_REASON_NONE);
    assert_int_not_equal(pool_look(rig, 2).call_count, 0);
    struct hp_st_task_status status = rig_get(rig, 1, scene.first + CALLS - 1);
    assert_int_equal(status.losses + status.failures, 0); /* it was nobody's fault */
    rig_free(rig);
}

static void what_has_begun_stays(void **state)
{
    (void)state;
    struct scene scene = scene_new(2);
    struct rig *rig = scene.rig;
    struct hp_st_run_ref refs[64];
    for (uint64_t id = scene.first + 2; id < scene.first + CALLS; id++) {
        struct hp_attempt *attempt = hp_attempt_find(rig->core, id);
        begin_run(rig, 2, id, attempt->epoch);
    }
    pool_report(rig, 3, scene.pool, 2, 0, NULL);
    pass(rig, LOOKS_MS);
    assert_int_equal(recalled(rig, 2, refs, 64), 0);
    rig_free(rig);
}

/* A worker that does not answer is asked again, but not in each look. */
static void asks_again_after_a_while(void **state)
{
    (void)state;
    struct scene scene = scene_new(2);
    struct rig *rig = scene.rig;
    struct hp_st_run_ref refs[256];
    pool_report(rig, 3, scene.pool, 2, 0, NULL);
    pass(rig, 400);
    assert_int_equal(recalled(rig, 2, refs, 256), CALLS - 2);
    pass(rig, 600);
    assert_int_equal(recalled(rig, 2, refs, 256), 0);
    pass(rig, 1000);
    assert_int_equal(recalled(rig, 2, refs, 256), CALLS - 2);
    rig_free(rig);
}

/* As long as calls wait at the broker, the idle worker is given those. */
static void nothing_is_asked_for_without_need(void **state)
{
    (void)state;
    struct scene scene = scene_new(2);
    struct rig *rig = scene.rig;
    struct hp_st_run_ref refs[64];
    pool_report(rig, 3, scene.pool, 2, 0, NULL);
    (void)pool_calls(rig, 4, scene.pool, 400);
    pass(rig, LOOKS_MS);
    assert_int_equal(recalled(rig, 2, refs, 64), 0);
    assert_true(pool_look(rig, 3).call_count > 0);
    rig_free(rig);
}

static void functions_come_back_too(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_run_ref refs[64];
    struct hp_st_assign_run runs[64];
    rig_hello(rig, 1, SESSION, NULL);
    rig_worker(rig, 2, "old", 2);
    struct hp_st_task_options options = rig_function();
    uint64_t first = rig_submitted(rig, 1, 1, &options, 1, NULL);
    all_quick(rig);
    (void)rig_submitted(rig, 1, 2, &options, CALLS - 1, NULL);
    uint32_t count = rig_assigned(rig, 2, runs, 64);
    begin_run(rig, 2, first, runs[0].epoch);
    begin_run(rig, 2, first + 1, runs[count - 1].epoch);
    pass(rig, LOOKS_MS);
    assert_int_equal(recalled(rig, 2, refs, 64), 0);
    rig_worker(rig, 3, "new", 3);
    pass(rig, LOOKS_MS);
    count = recalled(rig, 2, refs, 64);
    assert_int_equal(count, CALLS - 2);
    give_back(rig, 2, refs, count);
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 0);
    count = rig_assigned(rig, 3, runs, 64);
    uint32_t given = 0;
    for (uint32_t i = 0; i < count; i++) {
        given += runs[i].count;
    }
    assert_int_equal(given, 3);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle_children_get_what_waits_elsewhere),
        cmocka_unit_test(what_has_begun_stays),
        cmocka_unit_test(asks_again_after_a_while),
        cmocka_unit_test(nothing_is_asked_for_without_need),
        cmocka_unit_test(functions_come_back_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
