/* SPDX-License-Identifier: BSD-2-Clause */
/* The client's engine when things go wrong: followed output over a broken line, no memory. */
#include "tests/unit/client_fake.h"

static void send_output(struct fake *fake, uint64_t offset, const char *text)
{
    struct hp_msg_task_output output;

    hp_msg_task_output_init(&output);
    output.id = 1;
    output.attempt = 1;
    output.stream = HP_STREAM_STDOUT;
    output.offset = offset;
    output.data = hp_bin_make(text, strlen(text));
    assert_ok(hp_rpc_put_notify(&fake->out, HP_METHOD_TASK_OUTPUT));
    assert_ok(hp_msg_task_output_encode(&fake->out, &output));
}

static void expect_output(struct fake *fake, const char *text)
{
    char seen[64] = "";
    size_t size = 0;
    struct hp_event event;

    fake_settle(fake);
    while (hp_engine_next_event(fake->engine, &event)) {
        if (event.kind == HP_EVENT_OUTPUT) {
            assert_true(size + event.output_data.size < sizeof(seen));
            memcpy(seen + size, event.output_data.data, event.output_data.size);
            size += event.output_data.size;
        }
    }
    assert_string_equal(seen, text);
}

/* A followed command is followed again after a reconnect, and nothing is told twice. */
static void test_follow(void **state)
{
    struct fake *fake = fake_new();

    (void)state;
    fake_settle(fake);
    hp_engine_follow(fake->engine, 1, true);
    send_output(fake, 0, "one ");
    send_output(fake, 4, "two ");
    expect_output(fake, "one two ");
    fake_drop(fake);
    fake_pass(fake, 1000);
    assert_int_equal(fake->follow_count, 1);
    send_output(fake, 0, "one ");
    send_output(fake, 4, "two three ");
    send_output(fake, 20, "gap");
    expect_output(fake, "three gap");
    fake_free(fake);
}

/* Every allocation of a session fails once: no crash, and never a wrong event. */
static void test_no_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct fake *fake = fake_new();
        struct hp_options options;
        struct hp_engine_submit submit = {.options = &options, .count = 3};
        enum hp_status status;
        struct tally tally;
        bool failed;

        hp_options_init(&options);
        options.fn = "f";
        hp_engine_step(fake->engine, fake->now_ms);
        fake_settle(fake);
        (void)fake_events(fake);
        hp_mem_fail_at(n, false);
        status = hp_engine_submit(fake->engine, &submit, NULL);
        hp_engine_step(fake->engine, fake->now_ms);
        (void)hp_engine_output(fake->engine);
        failed = hp_mem_fail_count() > 0;
        hp_mem_fail_at(0, false);
        fake_pass(fake, 10000);
        tally = fake_events(fake);
        assert_int_equal(tally.submitted, status == HP_STATUS_OK ? 1 : 0);
        fake_free(fake);
        if (!failed) {
            assert_true(n > 3);
            return;
        }
    }
}

/* A full window of messages, and one more that the last call begins: the fake broker looks at the
 * numbers, as a broker refuses what is further ahead than it keeps replies. */
static void test_full_window(void **state)
{
    struct fake *fake = fake_new_with(HP_LIMIT_SESSION_REPLIES, 8u << 20);
    struct hp_options options;
    struct hp_engine_submit submit = {.options = &options, .count = 1};
    uint32_t count = 0;

    (void)state;
    hp_options_init(&options);
    options.fn = "f";
    fake_settle(fake);
    (void)fake_events(fake);
    do {
        options.priority = 1 + count % 2; /* each needs a message of its own */
    } while (hp_engine_submit(fake->engine, &submit, NULL) == HP_STATUS_OK && ++count < 1000);
    assert_true(count > HP_LIMIT_SESSION_REPLIES && count < 1000);
    fake_pass(fake, 100);
    assert_int_equal(fake->tasks_created, count);
    assert_int_equal(fake_events(fake).submitted, count);
    fake_free(fake);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_full_window),
    cmocka_unit_test(test_follow),
    cmocka_unit_test(test_no_memory),
};

HP_TEST_MAIN(tests)
