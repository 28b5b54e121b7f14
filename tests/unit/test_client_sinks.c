/* SPDX-License-Identifier: BSD-2-Clause */
/* Submits whose events go to a sink instead of the queue: all of them, once, with the right names.
 */
#include <stdio.h>

#include "tests/unit/client_fake.h"

enum { TASKS = 3000 };

struct gatherer {
    struct hp_sink sink;
    uint32_t submitted; /* tasks */
    uint32_t ended;
    uint32_t failed;
    enum hp_status status;
    uint64_t ids[TASKS]; /* by base + index */
    uint8_t ends[TASKS];
    bool is_wrong;
};

static void take(struct hp_sink *sink, const struct hp_event *event)
{
    struct gatherer *gatherer = HP_CONTAINER_OF(sink, struct gatherer, sink);
    uint64_t at = (uint64_t)(uintptr_t)event->user + event->index;
    char text[32];

    if (event->kind == HP_EVENT_SUBMIT_FAILED) {
        gatherer->failed++;
        gatherer->status = event->status;
        return;
    }
    gatherer->is_wrong = gatherer->is_wrong || at + event->ids.count > TASKS;
    if (gatherer->is_wrong) {
        return;
    }
    if (event->kind == HP_EVENT_SUBMITTED) {
        for (uint32_t i = 0; i < event->ids.count; i++) {
            gatherer->is_wrong = gatherer->is_wrong || gatherer->ids[at + i] != 0;
            gatherer->ids[at + i] = event->ids.first + i;
        }
        gatherer->submitted += event->ids.count;
    } else if (event->kind == HP_EVENT_ENDED) {
        (void)snprintf(text, sizeof(text), "r%llu", (unsigned long long)event->task->id);
        gatherer->is_wrong = gatherer->is_wrong || event->task->id != gatherer->ids[at] ||
                             event->task->end->result.size != strlen(text) ||
                             memcmp(event->task->end->result.data, text, strlen(text)) != 0;
        gatherer->ends[at]++;
        gatherer->ended++;
    }
}

/* TASKS tasks in calls of `chunk`, whose user is the place of the first. */
static void submit_all(struct fake *fake, struct gatherer *gatherer, uint32_t chunk)
{
    struct hp_options options;
    struct hp_bytes payload = {.data = "x", .size = 1};
    struct hp_bytes *payloads = hp_alloc_array(chunk, sizeof(*payloads));

    hp_options_init(&options);
    options.fn = "f";
    for (uint32_t i = 0; i < chunk; i++) {
        payloads[i] = payload;
    }
    for (uint32_t i = 0; i < TASKS; i += chunk) {
        struct hp_engine_submit submit = {.options = &options,
                                          .payloads = payloads,
                                          .count = chunk,
                                          .sink = &gatherer->sink,
                                          .user = (void *)(uintptr_t)i};

        assert_int_equal(hp_engine_submit(fake->engine, &submit, NULL), HP_STATUS_OK);
    }
    hp_free(payloads);
}

static void expect_all_submitted(const struct gatherer *gatherer)
{
    assert_false(gatherer->is_wrong);
    assert_int_equal(gatherer->submitted, TASKS);
    for (uint32_t i = 0; i < TASKS; i++) {
        assert_int_equal(gatherer->ids[i], i + 1); /* in the order given */
    }
}

static void expect_all_ended(const struct gatherer *gatherer)
{
    assert_false(gatherer->is_wrong);
    assert_int_equal(gatherer->ended, TASKS);
    for (uint32_t i = 0; i < TASKS; i++) {
        assert_int_equal(gatherer->ends[i], 1);
    }
}

static void test_each_task_is_named_as_given(void **state)
{
    static const uint32_t chunks[] = {1, 7 * 3, 1000};
    struct hp_event event;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        static struct gatherer gatherer;
        struct fake *fake = fake_new();
        uint32_t chunk = TASKS % chunks[i] == 0 ? chunks[i] : 20;

        gatherer = (struct gatherer){.sink = {.take = take}};
        fake_settle(fake);
        (void)fake_events(fake);
        submit_all(fake, &gatherer, chunk);
        fake_settle(fake);
        expect_all_submitted(&gatherer);
        fake_end(fake, 1, TASKS, HP_TASK_STATE_DONE, true);
        fake_end(fake, 5, 10, HP_TASK_STATE_DONE, true); /* told twice */
        fake_settle(fake);
        expect_all_ended(&gatherer);
        assert_false(hp_engine_next_event(fake->engine, &event)); /* none for the queue */
        assert_int_equal(hp_engine_outstanding(fake->engine), 0);
        fake_free(fake);
    }
}

static void test_lost_replies_double_nothing(void **state)
{
    static struct gatherer gatherer;
    struct fake *fake = fake_new();

    (void)state;
    gatherer = (struct gatherer){.sink = {.take = take}};
    fake->lose_replies = 3;
    submit_all(fake, &gatherer, 1000);
    for (int i = 0; i < 5; i++) {
        fake_settle(fake);
        fake_pass(fake, 6000);
    }
    fake_settle(fake);
    assert_int_equal(fake->tasks_created, TASKS);
    expect_all_submitted(&gatherer);
    fake_end(fake, 1, TASKS, HP_TASK_STATE_DONE, false); /* while nobody listened */
    fake_drop(fake);
    fake_pass(fake, 6000);
    fake_settle(fake);
    expect_all_ended(&gatherer);
    fake_free(fake);
}

static void test_refusals_reach_the_sink(void **state)
{
    static struct gatherer gatherer;
    struct fake *fake = fake_new();
    bool dropped = false;

    (void)state;
    gatherer = (struct gatherer){.sink = {.take = take}};
    fake->submit_error = "too_big";
    submit_all(fake, &gatherer, 1000);
    fake_settle(fake);
    assert_int_equal(gatherer.failed, 3);
    assert_int_equal(gatherer.status, HP_STATUS_TOO_BIG);
    assert_int_equal(hp_engine_outstanding(fake->engine), 0);
    fake->submit_error = NULL;
    fake->busy_count = 1000;
    submit_all(fake, &gatherer, 1000);
    fake_settle(fake);
    assert_non_null(hp_engine_busy(fake->engine));
    hp_engine_forget_sink(fake->engine, &gatherer.sink, &dropped); /* it may be freed now */
    assert_true(dropped); /* refused: surely nothing of it happens */
    assert_null(hp_engine_busy(fake->engine));
    fake->busy_count = 0;
    fake_settle(fake);
    assert_int_equal(gatherer.submitted, 0);
    hp_engine_forget(fake->engine, 1, &dropped);
    fake_free(fake);
}

/* Refused in the middle of a window: each number is used once, also by what comes later. */
static void test_busy_wastes_no_number(void **state)
{
    static struct gatherer gatherer;
    struct fake *fake = fake_new();
    struct hp_options options;
    struct hp_engine_submit submit = {.options = &options, .count = 7, .array = true};

    (void)state;
    gatherer = (struct gatherer){.sink = {.take = take}};
    fake_settle(fake);
    (void)fake_events(fake);
    fake->busy_count = 1;
    submit_all(fake, &gatherer, 1000);
    fake_settle(fake);
    assert_int_equal(fake->tasks_created, 0);
    hp_options_init(&options);
    options.fn = "g";
    assert_int_equal(hp_engine_submit(fake->engine, &submit, NULL), HP_STATUS_OK);
    fake_pass(fake, 1000);
    expect_all_submitted(&gatherer);
    assert_int_equal(hp_engine_submit(fake->engine, &submit, NULL), HP_STATUS_OK);
    fake_settle(fake);
    assert_int_equal(fake->tasks_created, TASKS + 14);
    assert_int_equal(fake_events(fake).submitted_tasks, 14);
    assert_int_equal(fake->last_number + 1, fake->engine->next_number);
    fake_free(fake);
}

static void test_the_window_has_a_size(void **state)
{
    static char large[60000];
    struct fake *fake = fake_new_with(100000, 8u << 20);
    struct hp_options options;
    struct hp_bytes payload = {.data = large, .size = sizeof(large)};
    struct hp_engine_submit submit = {.options = &options, .payloads = &payload, .count = 1};
    uint64_t bytes = 0;

    (void)state;
    fake->refuse = true; /* nothing leaves */
    hp_options_init(&options);
    options.fn = "f";
    while (hp_engine_has_room(fake->engine)) {
        assert_int_equal(hp_engine_submit(fake->engine, &submit, NULL), HP_STATUS_OK);
        bytes += sizeof(large);
        assert_true(bytes < 20u << 20);
    }
    assert_true(bytes > 7u << 20); /* of 8 MiB */
    assert_int_equal(hp_engine_submit(fake->engine, &submit, NULL), HP_STATUS_AGAIN);
    fake_free(fake);
}

static void test_reconnects_are_spread(void **state)
{
    enum { CLIENTS = 60 };
    static const uint64_t whole[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000};
    struct hp_engine_config config = {.name = "test",
                                      .connect_timeout_ms = 5000,
                                      .retry_base_ms = 100,
                                      .retry_cap_ms = 5000,
                                      .window_submits = 1,
                                      .window_bytes = 1,
                                      .event_bytes = 1};
    uint32_t late[8] = {0};

    (void)state;
    for (config.seed = 1; config.seed <= CLIENTS; config.seed++) {
        uint64_t now_ms = 1000;
        struct hp_engine *engine = hp_engine_new(&config, now_ms);

        for (int n = 0; n < 8; n++) {
            uint64_t wait_ms;

            assert_true(hp_engine_wants_connect(engine));
            hp_engine_connecting(engine, now_ms);
            hp_engine_closed(engine, HP_STATUS_UNREACHABLE, "refused", now_ms);
            wait_ms = hp_engine_deadline_ms(engine) - now_ms;
            assert_true(wait_ms >= whole[n] / 2 && wait_ms <= whole[n]);
            late[n] += wait_ms > whole[n] * 3 / 4;
            now_ms += wait_ms;
            hp_engine_step(engine, now_ms);
        }
        hp_engine_free(engine);
    }
    for (int n = 0; n < 8; n++) {
        assert_true(late[n] > CLIENTS / 6 && late[n] < CLIENTS * 5 / 6); /* about a half */
    }
}

/* The answer to a submit: with a task more, with id 0, beyond all ids. */
static bool answer_wrongly(struct fake *fake, const struct hp_rpc *rpc)
{
    const uint32_t *which = fake->context;
    struct fake_memo memo = {.first = *which == 0   ? 5
                                      : *which == 1 ? 0
                                                    : UINT64_MAX,
                             .count = *which == 0 ? 8 : 7,
                             .outcome = HP_SUBMIT_OUTCOME_CREATED};

    if (rpc->method != HP_METHOD_TASK_SUBMIT) {
        return false;
    }
    fake_submit_reply(fake, rpc->msgid, &memo);
    return true;
}

static void test_answers_without_sense(void **state)
{
    (void)state;
    for (uint32_t which = 0; which < 3; which++) {
        struct fake *fake = fake_new();
        struct tally tally;
        int mark;

        fake->on_call = answer_wrongly;
        fake->context = &which;
        fake_settle(fake);
        (void)fake_events(fake);
        (void)fake_submit_tasks(fake, 7, &mark);
        fake_settle(fake);
        tally = fake_events(fake);
        assert_int_equal(tally.submitted, 0);
        assert_int_equal(tally.disconnected, 1);
        fake_free(fake);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_each_task_is_named_as_given),
    cmocka_unit_test(test_lost_replies_double_nothing),
    cmocka_unit_test(test_refusals_reach_the_sink),
    cmocka_unit_test(test_busy_wastes_no_number),
    cmocka_unit_test(test_the_window_has_a_size),
    cmocka_unit_test(test_reconnects_are_spread),
    cmocka_unit_test(test_answers_without_sense),
};

HP_TEST_MAIN(tests)
