/* SPDX-License-Identifier: BSD-2-Clause */
/* Functions side by side on a worker that holds work ahead: none waits for ever. */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"

enum { AHEAD = 400, LONG_US = 60000000 };

/* Worker w on connection 2 with 2 slots has f and g; client on connection 1. */
static struct rig *scene_new(void)
{
    static struct hp_str functions[] = {HP_STR_INIT("f"), HP_STR_INIT("g")};
    struct rig *rig = rig_new(NULL);
    struct hp_msg_worker_register msg = {.has = HP_HAS_WORKER_REGISTER_FUNCTIONS |
                                                HP_HAS_WORKER_REGISTER_COMMANDS |
                                                HP_HAS_WORKER_REGISTER_PREFETCH_MAX,
                                         .host = HP_STR("host"),
                                         .slots = 2,
                                         .commands = true,
                                         .prefetch_max = AHEAD,
                                         .functions = {.items = functions, .count = 2}};
    rig_hello(rig, 1, NULL, NULL);
    rig_hello(rig, 2, NULL, "w");
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_REGISTER, worker_register, &msg);
    rig_end(rig);
    rig_settle(rig);
    return rig;
}

static uint64_t submit(struct rig *rig, struct hp_str fn, uint32_t priority, uint32_t count)
{
    struct hp_st_task_options options = rig_function();
    options.fn = fn;
    options.priority = priority;
    options.has |= HP_HAS_ST_TASK_OPTIONS_PRIORITY;
    return rig_submitted(rig, 1, 0, &options, count, NULL);
}

/* Ends in one message, with a run time, `failed` or not. */
static void end_all(struct rig *rig, const uint64_t *ids, uint32_t count, uint8_t run_us,
                    bool failed)
{
    uint8_t bytes[] = {0x81, 0xa6, 'r', 'u', 'n', '_', 'u', 's', run_us};
    struct hp_st_done_item items[3] = {0};
    assert_true(count <= HP_COUNT_OF(items));
    for (uint32_t i = 0; i < count; i++) {
        const struct hp_attempt *attempt = hp_attempt_find(rig->core, ids[i]);
        assert_non_null(attempt);
        items[i] = (struct hp_st_done_item){.id = ids[i],
                                            .attempt = attempt->attempt,
                                            .epoch = attempt->epoch,
                                            .end = {.data = bytes, .size = sizeof(bytes)}};
        items[i].reason = failed ? HP_REASON_ERROR : HP_REASON_NONE;
        items[i].has = failed ? HP_HAS_ST_DONE_ITEM_REASON : 0;
    }
    struct hp_msg_worker_done msg = {.items = {.items = items, .count = count}};
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_DONE, worker_done, &msg);
    rig_end(rig);
    rig_settle(rig);
}

static void end(struct rig *rig, uint64_t id, uint8_t run_us, bool failed)
{
    end_all(rig, &id, 1, run_us, failed);
}

static struct hp_class *class_of(struct rig *rig, uint64_t id)
{
    return hp_attempt_find(rig->core, id)->spec->lane->class_;
}

static bool is_out(struct rig *rig, uint64_t id)
{
    return hp_attempt_find(rig->core, id) != NULL;
}

/* Many of f wait, and as many as may be are on the worker. */
static uint64_t fill_with_f(struct rig *rig)
{
    uint64_t first = submit(rig, HP_STR("f"), 100, 10 * AHEAD);
    assert_true(is_out(rig, first + 1) && !is_out(rig, first + 2)); /* it was never measured */
    end(rig, first, 5, false);
    assert_true(is_out(rig, first + AHEAD) && !is_out(rig, first + AHEAD + 3));
    return first;
}

/* A function that was never measured, and one that only fails, are measured by one task ahead. */
static void what_only_fails_is_measured_too(void **state)
{
    (void)state;
    struct rig *rig = scene_new();
    (void)fill_with_f(rig);
    uint64_t g = submit(rig, HP_STR("g"), 101, 100);
    assert_true(is_out(rig, g) && !is_out(rig, g + 1));
    struct hp_class *class_ = class_of(rig, g);
    assert_int_equal(class_->run_us, 0);
    end(rig, g, 7, true);
    assert_int_equal(class_->run_us, 7);
    rig_free(rig);
}

/* Of many ends in a message one is measured, and the first of whatever has no time yet. */
static void what_is_rare_is_measured_too(void **state)
{
    (void)state;
    struct rig *rig = scene_new();
    uint64_t f = fill_with_f(rig);
    uint64_t g = submit(rig, HP_STR("g"), 101, 100);
    struct hp_class *class_ = class_of(rig, g);
    const uint64_t ids[] = {g, f + 1, f + 2};
    end_all(rig, ids, 3, 9, false);
    assert_int_equal(class_->run_us, 9);
    rig_free(rig);
}

/* Long tasks whose turn it is get a slot, though f would always fill the worker. */
static void long_tasks_are_not_overtaken_for_ever(void **state)
{
    (void)state;
    struct rig *rig = scene_new();
    uint64_t f = fill_with_f(rig);
    uint64_t g = submit(rig, HP_STR("g"), 101, 3);
    class_of(rig, g)->run_us = LONG_US;
    uint32_t ended = 1;
    for (; ended < 10 * AHEAD && !is_out(rig, g + 1); ended++) {
        assert_true(is_out(rig, f + ended));
        end(rig, f + ended, 5, false);
    }
    assert_true(is_out(rig, g + 1));
    assert_true(ended <= AHEAD + 3); /* no f was given meanwhile */
    assert_false(is_out(rig, g + 2));
    rig_free(rig);
}

static struct hp_st_task_options command(bool at_most_once)
{
    struct hp_st_task_options options = rig_command();
    options.at_most_once = at_most_once;
    options.has |= HP_HAS_ST_TASK_OPTIONS_AT_MOST_ONCE;
    return options;
}

/* Short commands go ahead of their need, too; those that may run but once do not. */
static void short_commands_go_ahead(void **state)
{
    (void)state;
    for (int once = 0; once < 2; once++) {
        struct rig *rig = scene_new();
        struct hp_st_task_options options = command(once != 0);
        uint64_t first = rig_submitted(rig, 1, 0, &options, 100, NULL);
        assert_true(is_out(rig, first + 1) && !is_out(rig, first + 2));
        end(rig, first, 100, false);
        assert_int_equal(is_out(rig, first + 99), once == 0);
        assert_true(is_out(rig, first + 2) && class_of(rig, first + 2)->run_us == 100);
        if (once != 0) {
            assert_false(is_out(rig, first + 3));
        }
        rig_free(rig);
    }
}

/* What needs memory beside its slot is not given ahead: memory is counted while it is held. */
static void what_needs_memory_waits(void **state)
{
    (void)state;
    struct rig *rig = scene_new();
    struct hp_st_task_options options = command(false);
    options.mem_bytes = 1;
    options.has |= HP_HAS_ST_TASK_OPTIONS_MEM_BYTES;
    struct hp_node *node = hp_strmap_find_ptr(&rig->core->nodes_by_name, HP_STR("w"));
    node->mem_bytes = 1000;
    uint64_t first = rig_submitted(rig, 1, 0, &options, 100, NULL);
    end(rig, first, 100, false);
    assert_true(is_out(rig, first + 2) && !is_out(rig, first + 3));
    rig_free(rig);
}

/* Functions do go ahead, but never more at once than fit into the memory beside each other. */
static void functions_share_the_memory(void **state)
{
    (void)state;
    static const struct {
        uint64_t each;
        uint32_t most;
    } cases[] = {{600, 1}, {500, 2}, {300, 3}, {1000, 1}, {1, 100}};
    for (size_t i = 0; i < HP_COUNT_OF(cases); i++) {
        struct rig *rig = scene_new();
        struct hp_st_task_options options = rig_function();
        options.fn = HP_STR("f");
        options.mem_bytes = cases[i].each;
        options.has |= HP_HAS_ST_TASK_OPTIONS_MEM_BYTES;
        struct hp_node *node = hp_strmap_find_ptr(&rig->core->nodes_by_name, HP_STR("w"));
        node->mem_bytes = 1000;
        uint64_t first = rig_submitted(rig, 1, 0, &options, 1000, NULL);
        assert_true(node->used_mem <= 1000);
        end(rig, first, 100, false); /* 200 a slot would go ahead now */
        assert_true(is_out(rig, first + cases[i].most));
        assert_int_equal(is_out(rig, first + cases[i].most + 1), cases[i].each == 1);
        assert_true(node->used_mem <= 1000);
        rig_free(rig);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(functions_share_the_memory),
    cmocka_unit_test(short_commands_go_ahead),
    cmocka_unit_test(what_needs_memory_waits),
    cmocka_unit_test(what_only_fails_is_measured_too),
    cmocka_unit_test(what_is_rare_is_measured_too),
    cmocka_unit_test(long_tasks_are_not_overtaken_for_ever),
};

HP_TEST_MAIN(tests)
