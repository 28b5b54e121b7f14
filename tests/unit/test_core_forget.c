/* SPDX-License-Identifier: BSD-2-Clause */
/* task.forget: what goes, when, and what stays. */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"

static void forget(struct rig *rig, uint64_t first, uint32_t count)
{
    struct hp_st_id_range range = {.has = HP_HAS_ST_ID_RANGE_COUNT, .first = first, .count = count};
    struct hp_msg_task_forget msg = {.ranges = {.items = &range, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, TASK_FORGET, task_forget, &msg);
    rig_end(rig);
}

static void idle(struct rig *rig)
{
    bool more = true;
    while (more) {
        struct hp_error error;
        assert_ok(hp_store_idle(rig->store, &more, &error));
    }
}

static void pass_all(struct rig *rig)
{
    for (int i = 0; i < 12; i++) {
        rig_pass(rig, 900);
    }
    idle(rig);
}

static struct rig *rig_ready(void)
{
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, "aaaaaaaaaaaaaaa", NULL);
    rig_worker(rig, 2, "w", 4);
    return rig;
}

static void end_all(struct rig *rig, uint64_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        rig_done(rig, 2, first + i, 1, rig->core->epoch, HP_REASON_NONE);
    }
}

static void durable_groups_go(void **state)
{
    (void)state;
    struct rig *rig = rig_ready();
    struct hp_st_task_options options = rig_command();
    uint64_t id = rig_submitted(rig, 1, 1, &options, 3, NULL);
    end_all(rig, id, 2);
    forget(rig, id, 3);                  /* one lives: as if it was not named */
    assert_int_equal(rig->job_count, 0); /* nobody writes anything for it */
    pass_all(rig);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_DONE);
    end_all(rig, id + 2, 1);
    pass_all(rig);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_DONE);
    forget(rig, id + 2, 1); /* the rest comes */
    pass_all(rig);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_GONE);
    assert_int_equal(rig_state(rig, 1, id + 2), HP_TASK_STATE_GONE);
    struct hp_store_figures figures;
    hp_store_figures(rig->store, &figures);
    assert_int_equal(figures.group_count, 0);
    rig_free(rig);
}

static void neighbours_are_one_range(void **state)
{
    (void)state;
    struct rig *rig = rig_ready();
    struct hp_st_task_options options = rig_command();
    uint64_t first = 0;
    for (uint32_t i = 0; i < 20; i++) {
        uint64_t id = rig_submitted(rig, 1, i + 1, &options, 1, NULL);
        first = first == 0 ? id : first;
        end_all(rig, id, 1);
        forget(rig, id, 1);
        if (i == 10) {
            assert_true(rig->core->forgets.count <= 1);
        }
    }
    /* They went with the batches of the others, or wait as one. */
    assert_true(rig->core->forgets.count <= 1);
    pass_all(rig);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(rig_state(rig, 1, first + i), HP_TASK_STATE_GONE);
    }
    rig_free(rig);
}

static void a_session_may_forget_what_it_likes(void **state)
{
    (void)state;
    struct rig *rig = rig_ready();
    forget(rig, 0, UINT32_MAX);
    forget(rig, UINT64_MAX - 5, UINT32_MAX);
    forget(rig, 1, 1);
    pass_all(rig);
    struct hp_st_task_options options = rig_command();
    uint64_t id = rig_submitted(rig, 1, 1, &options, 2, NULL);
    forget(rig, 1, UINT32_MAX);
    pass_all(rig);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_LEASED);
    end_all(rig, id, 2);
    assert_int_equal(rig_state(rig, 1, id), HP_TASK_STATE_DONE);
    rig_free(rig);
}

static void both_kinds_in_one_range(void **state)
{
    (void)state;
    struct rig *rig = rig_ready();
    struct hp_st_task_options durable = rig_command();
    struct hp_st_task_options memory = rig_command();
    memory.has |= HP_HAS_ST_TASK_OPTIONS_DURABLE;
    memory.durable = false;
    uint64_t a = rig_submitted(rig, 1, 1, &durable, 1, NULL);
    uint64_t b = rig_submitted(rig, 1, 2, &memory, 2, NULL);
    uint64_t c = rig_submitted(rig, 1, 3, &durable, 1, NULL);
    end_all(rig, a, 1);
    end_all(rig, b, 1);
    end_all(rig, c, 1);
    forget(rig, a, (uint32_t)(c - a) + 1);
    assert_int_equal(rig->core->vol.end_count, 0);
    assert_int_equal(rig_state(rig, 1, b), HP_TASK_STATE_GONE); /* its sibling lives */
    assert_int_equal(rig_state(rig, 1, b + 1), HP_TASK_STATE_LEASED);
    pass_all(rig);
    assert_int_equal(rig_state(rig, 1, a), HP_TASK_STATE_GONE);
    assert_int_equal(rig_state(rig, 1, c), HP_TASK_STATE_GONE);
    end_all(rig, b + 1, 1);
    forget(rig, b, 2);
    assert_int_equal(rig->core->vol.live_count, 0);
    assert_int_equal(rig->core->vol.bytes, 0);
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(durable_groups_go),
    cmocka_unit_test(neighbours_are_one_range),
    cmocka_unit_test(a_session_may_forget_what_it_likes),
    cmocka_unit_test(both_kinds_in_one_range),
};

HP_TEST_MAIN(tests)
