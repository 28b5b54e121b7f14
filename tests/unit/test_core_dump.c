/* SPDX-License-Identifier: BSD-2-Clause */
/* The text of the core's state, in which one looks for what a simulation did wrong. */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"
#include "tests/unit/core_ask.h"
#include "tests/unit/core_pool_fixture.h"

static struct hp_st_assign_run runs[64];

static bool says(const struct rig *rig, const char *word)
{
    struct hp_buf text;
    hp_buf_init(&text, 16U << 20);
    hp_core_dump(rig->core, &text);
    assert_ok(hp_buf_append_byte(&text, 0));
    bool there = strstr((const char *)text.data, word) != NULL;
    hp_buf_deinit(&text);
    return there;
}

static void expect_words(const struct rig *rig, const char *const *words, size_t count, bool there)
{
    struct hp_buf text;
    hp_buf_init(&text, 16U << 20);
    hp_core_dump(rig->core, &text);
    assert_ok(hp_buf_append_byte(&text, 0));
    for (size_t i = 0; i < count; i++) {
        if ((strstr((const char *)text.data, words[i]) != NULL) != there) {
            fail_msg("'%s' is %sin:\n%s", words[i], there ? "not " : "", (const char *)text.data);
        }
    }
    hp_buf_deinit(&text);
}

#define EXPECT(...)                                                                                \
    do {                                                                                           \
        static const char *const words[] = {__VA_ARGS__};                                          \
        expect_words(rig, words, HP_COUNT_OF(words), true);                                        \
    } while (0)

#define EXPECT_NOT(...)                                                                            \
    do {                                                                                           \
        static const char *const words[] = {__VA_ARGS__};                                          \
        expect_words(rig, words, HP_COUNT_OF(words), false);                                       \
    } while (0)

static void of_a_broker_without_work(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    EXPECT("core now=", "draining=0");
    EXPECT_NOT("queue ", "lane ", "node ", "pool ", "attempt ", "timer", "conn ", "session ",
               "pending ", "recent ");
    rig_free(rig);
}

static void of_workers_that_are_away(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_DURABLE;
    options.durable = false;
    rig_hello(rig, 1, SESSION, NULL);
    rig_worker(rig, 2, "w", 3);
    (void)rig_submitted(rig, 1, 1, &options, 1, NULL);
    (void)rig_submitted(rig, 1, 2, &options, 1, NULL); /* the first one reserved the ids */
    options.durable = true;
    (void)rig_submitted(rig, 1, 3, &options, 2, NULL);
    (void)rig_assigned(rig, 2, runs, 64);
    EXPECT("state=online conn=2", "conn=1 last=3", "lease=0", " warm\n");
    rig_begin(rig);
    rig_disconnect(rig, 2);
    rig_disconnect(rig, 1);
    rig_end(rig);
    EXPECT("state=away conn=0", "conn=0 last=3");
    for (int i = 0; i < 40; i++) { /* a jump would be taken as the broker's own sleep */
        rig_pass(rig, 1000);
    }
    EXPECT("state=offline", "  parked ", " attempt=1", "losses=1");
    rig_free(rig);
}

static void of_what_is_in_the_store(void **state)
{
    (void)state;
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.window_timers = 2;
    struct rig *rig = rig_new(&config);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, SESSION, NULL);
    (void)rig_submitted(rig, 1, 1, &options, 3, NULL);
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    for (uint64_t i = 0; i < 8; i++) {
        options.delay_ms = 5000 + i;
        (void)rig_submitted(rig, 1, 2 + i, &options, 1, NULL);
    }
    EXPECT("timers more after", "timer ");
    EXPECT_NOT(" loading", "pending ");
    rig_crash(rig);
    rig_begin(rig);
    rig_end(rig);
    EXPECT("pending ", "timers more after", " loading");
    while (!says(rig, " cold\n")) { /* the segments of the lane, without what the tasks carry */
        assert_true(rig_job(rig));
    }
    rig_settle(rig);
    EXPECT(" warm\n");
    EXPECT_NOT("pending ", " cold\n");
    rig->now_ms += 5000;
    rig->wall_ms += 5000;
    rig_begin(rig);
    rig_end(rig);
    EXPECT("attempt=0 loading\n", "pending ");
    while (!says(rig, " moved batch=")) {
        assert_true(rig_job(rig));
    }
    rig_settle(rig);
    rig_hello(rig, 1, SESSION, NULL);
    rig_worker(rig, 2, "w", 3);
    rig_begin(rig);
    struct hp_msg_task_list list = {0}; /* while it is read, what ends is remembered */
    (void)RIG_CALL(rig, 1, TASK_LIST, task_list, &list);
    static const uint8_t empty_map[] = {0x80};
    (void)rig_assigned(rig, 2, runs, 64);
    struct hp_st_done_item item = {
        .id = runs[0].first, .attempt = 1, .epoch = 2, .end = {.data = empty_map, .size = 1}};
    struct hp_msg_worker_done done = {.items = {.items = &item, .count = 1}};
    (void)RIG_CALL(rig, 2, WORKER_DONE, worker_done, &done);
    rig_end(rig);
    EXPECT(" ended batch=");
    rig_free(rig);
}

static void of_pools(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    pool_worker(rig, 2, "w", 2);
    pool_worker(rig, 3, "v", 2);
    uint64_t pool = pool_open(rig, 1, 4);
    pool_report(rig, 2, pool, 2, 0, NULL);
    EXPECT(" told=2 up=2 ", "pool ");
    EXPECT_NOT(" quarantined");
    pool_report(rig, 3, pool, 0, 3, "no module");
    EXPECT(" quarantined");
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(of_a_broker_without_work),
    cmocka_unit_test(of_workers_that_are_away),
    cmocka_unit_test(of_what_is_in_the_store),
    cmocka_unit_test(of_pools),
};

HP_TEST_MAIN(tests)
