/* SPDX-License-Identifier: BSD-2-Clause */
/* The client's engine against a broker in memory: submits, events, reconnects, lost replies. */
#include <stdio.h>

#include "tests/unit/client_fake.h"

static void test_hello_and_submit(void **state)
{
    struct fake *fake = fake_new();
    struct tally tally;
    int mark;

    (void)state;
    fake_settle(fake);
    assert_true(hp_engine_is_open(fake->engine));
    assert_string_equal(hp_engine_server(fake->engine), "fake 1");
    (void)fake_submit_tasks(fake, 3, &mark);
    fake_settle(fake);
    tally = fake_events(fake);
    assert_int_equal(tally.connected, 1);
    assert_int_equal(tally.submitted, 1);
    assert_int_equal(tally.submitted_tasks, 3);
    assert_ptr_equal(tally.last.user, &mark);
    assert_int_equal(tally.last.ids.first, 1);
    assert_int_equal(hp_engine_outstanding(fake->engine), 3);
    fake_end(fake, 2, 1, HP_TASK_STATE_DONE, true);
    fake_settle(fake);
    tally = fake_events(fake);
    assert_int_equal(tally.ended, 1);
    assert_int_equal(tally.last.index, 1);
    assert_ptr_equal(tally.last.user, &mark);
    fake_end(fake, 1, 3, HP_TASK_STATE_DONE, true);
    fake_settle(fake);
    assert_int_equal(fake_events(fake).ended, 2); /* 2 is not told twice */
    assert_int_equal(hp_engine_outstanding(fake->engine), 0);
    fake_free(fake);
}

/* Single submits with equal options share messages; each keeps its request, user and index. */
static void test_sharing(void **state)
{
    struct fake *fake = fake_new();
    uint64_t first = 0;
    uint64_t request = 0;
    struct hp_event event;
    int users[2];
    uint32_t seen = 0;

    (void)state;
    fake_settle(fake);
    (void)fake_events(fake);
    for (uint32_t i = 0; i < 5000; i++) {
        request = fake_submit_tasks(fake, 1, &users[i % 3 == 0]);
        first = i == 0 ? request : first;
    }
    assert_int_equal(request, first + 4999);
    fake_settle(fake);
    assert_int_equal(fake->tasks_created, 5000);
    assert_int_equal(fake->submit_count, 2); /* 4096 and the rest */
    while (hp_engine_next_event(fake->engine, &event)) {
        assert_int_equal(event.kind, HP_EVENT_SUBMITTED);
        assert_int_equal(event.request, first + seen);
        assert_int_equal(event.ids.first, 1 + seen);
        assert_int_equal(event.ids.count, 1);
        assert_ptr_equal(event.user, &users[seen % 3 == 0]);
        seen++;
    }
    assert_int_equal(seen, 5000);
    fake_end(fake, 1, 5000, HP_TASK_STATE_DONE, true);
    fake_settle(fake);
    seen = 0;
    while (hp_engine_next_event(fake->engine, &event)) {
        char text[32];

        (void)snprintf(text, sizeof(text), "r%u", seen + 1);
        assert_int_equal(event.kind, HP_EVENT_ENDED);
        assert_int_equal(event.request, first + seen);
        assert_int_equal(event.index, 0);
        assert_memory_equal(event.task->end->result.data, text, event.task->end->result.size);
        assert_string_equal(event.task->node, "n1");
        seen++;
    }
    assert_int_equal(seen, 5000);
    fake_free(fake);
}

/* Payloads of one call are told apart by index, and end up in the order given. */
static void test_payloads(void **state)
{
    struct fake *fake = fake_new();
    struct hp_options options;
    struct hp_bytes payloads[3000];
    struct hp_engine_submit submit = {
        .options = &options, .payloads = payloads, .count = 3000, .user = fake};
    char big[1000];
    struct tally tally;

    (void)state;
    memset(big, 'x', sizeof(big));
    for (uint32_t i = 0; i < 3000; i++) {
        payloads[i] = (struct hp_bytes){.data = big, .size = i % 1000};
    }
    hp_options_init(&options);
    options.fn = "f";
    assert_int_equal(hp_engine_submit(fake->engine, &submit, NULL), HP_STATUS_OK);
    assert_int_equal(hp_engine_outstanding(fake->engine), 3000);
    fake_settle(fake);
    assert_int_equal(fake->tasks_created, 3000);
    assert_true(fake->submit_count > 1); /* over the size of one message */
    tally = fake_events(fake);
    assert_int_equal(tally.submitted, fake->submit_count);
    assert_int_equal(tally.submitted_tasks, 3000);
    fake_end(fake, 2999, 1, HP_TASK_STATE_FAILED, true);
    fake_settle(fake);
    tally = fake_events(fake);
    assert_int_equal(tally.last.index, 2998);
    fake_free(fake);
}

static void test_bad_arguments(void **state)
{
    struct fake *fake = fake_new();
    struct hp_options options;
    struct hp_engine_submit submit = {.options = &options, .count = 1};

    (void)state;
    hp_options_init(&options);
    assert_int_equal(hp_engine_submit(fake->engine, &submit, NULL), HP_STATUS_BAD_ARGUMENT);
    options.fn = "f";
    options.priority = 256;
    assert_int_equal(hp_engine_submit(fake->engine, &submit, NULL), HP_STATUS_BAD_ARGUMENT);
    assert_non_null(strstr(hp_engine_error(fake->engine), "priority"));
    options.priority = 5;
    options.ukey = "k";
    submit.count = 2;
    assert_int_equal(hp_engine_submit(fake->engine, &submit, NULL), HP_STATUS_BAD_ARGUMENT);
    submit.count = 0;
    assert_int_equal(hp_engine_submit(fake->engine, &submit, NULL), HP_STATUS_BAD_ARGUMENT);
    assert_int_equal(hp_engine_unacknowledged(fake->engine), 0);
    fake_free(fake);
}

/* The window is bounded, and opens again. */
static void test_window(void **state)
{
    struct fake *fake = fake_new_with(4, 8u << 20);
    struct hp_options options;
    struct hp_engine_submit submit = {.options = &options, .count = 1, .array = true};
    uint32_t taken = 0;

    (void)state;
    hp_options_init(&options);
    options.fn = "f";
    while (hp_engine_submit(fake->engine, &submit, NULL) == HP_STATUS_OK) {
        taken++;
    }
    assert_int_equal(taken, 4);
    fake_settle(fake);
    assert_int_equal(fake->tasks_created, 4);
    assert_int_equal(hp_engine_submit(fake->engine, &submit, NULL), HP_STATUS_OK);
    fake_free(fake);
}

/* A reply is lost with the line: the same number is asked again, no task is made twice, and ends
 * that were missed meanwhile are asked for. */
static void test_lost_reply(void **state)
{
    struct fake *fake = fake_new();
    struct tally tally;

    (void)state;
    fake_settle(fake);
    fake->lose_replies = 1;
    for (uint32_t i = 0; i < 10; i++) {
        (void)fake_submit_tasks(fake, 2, NULL);
        hp_submit_flush(fake->engine);
    }
    fake_settle(fake);
    fake_end(fake, 1, 1, HP_TASK_STATE_DONE, true); /* while nobody listens */
    fake_pass(fake, 1000);
    assert_int_equal(fake->hello_count, 2);
    assert_int_equal(fake->tasks_created, 20);
    tally = fake_events(fake);
    assert_int_equal(tally.disconnected, 1);
    assert_int_equal(tally.connected, 2);
    assert_int_equal(tally.submitted_tasks, 20);
    assert_int_equal(tally.ended, 1);
    assert_true(fake->get_count > 0);
    fake_end(fake, 2, 19, HP_TASK_STATE_DONE, true);
    fake_settle(fake);
    assert_int_equal(fake_events(fake).ended, 19);
    fake_free(fake);
}

/* Ends while the line is down are found page by page. */
static void test_missed_events(void **state)
{
    struct fake *fake = fake_new();

    (void)state;
    fake_settle(fake);
    (void)fake_submit_tasks(fake, 10000, NULL);
    fake_settle(fake);
    fake->page = 700;
    fake_drop(fake);
    for (uint64_t id = 1; id <= 10000; id += 2) {
        fake_end(fake, id, 1, HP_TASK_STATE_DONE, false);
    }
    fake_pass(fake, 1000);
    assert_int_equal(fake_events(fake).ended, 5000);
    assert_int_equal(fake->get_count, 8);
    assert_int_equal(hp_engine_outstanding(fake->engine), 5000);
    /* The broker dropped events: asked again, only for what is open. */
    for (uint64_t id = 2; id <= 200; id += 2) {
        fake_end(fake, id, 1, HP_TASK_STATE_FAILED, false);
    }
    fake_lost(fake);
    fake_settle(fake);
    assert_int_equal(fake_events(fake).ended, 100);
    fake_free(fake);
}

/* Everything, byte by byte. */
static void test_byte_by_byte(void **state)
{
    struct fake *fake = fake_new();

    (void)state;
    fake->byte_by_byte = true;
    fake_settle(fake);
    (void)fake_submit_tasks(fake, 50, NULL);
    fake_settle(fake);
    fake_end(fake, 1, 50, HP_TASK_STATE_DONE, true);
    fake_settle(fake);
    assert_int_equal(fake_events(fake).ended, 50);
    fake_free(fake);
}

/* busy: nothing is lost, the order stays, and nothing is sent before the time named. */
static void test_busy(void **state)
{
    struct fake *fake = fake_new();
    struct tally tally;

    (void)state;
    fake_settle(fake);
    fake->busy_count = 2;
    for (uint32_t i = 0; i < 5; i++) {
        (void)fake_submit_tasks(fake, 10, NULL);
        hp_submit_flush(fake->engine);
    }
    assert_null(hp_engine_busy(fake->engine));
    fake_settle(fake);
    assert_int_equal(fake->tasks_created, 0);
    assert_non_null(hp_engine_busy(fake->engine)); /* the broker's words, for who waits */
    fake_pass(fake, 1000);
    assert_null(hp_engine_busy(fake->engine));
    tally = fake_events(fake);
    assert_int_equal(tally.submitted_tasks, 50);
    assert_int_equal(tally.failed, 0);
    assert_int_equal(fake->last_number, 5);
    assert_int_equal(fake->hello_count, 1);
    fake_free(fake);
}

static void test_refused_submit(void **state)
{
    struct fake *fake = fake_new();
    struct tally tally;

    (void)state;
    fake_settle(fake);
    fake->submit_error = "conflict";
    (void)fake_submit_tasks(fake, 4, NULL);
    fake_settle(fake);
    tally = fake_events(fake);
    assert_int_equal(tally.failed, 1);
    assert_int_equal(tally.last.status, HP_STATUS_CONFLICT);
    assert_int_equal(tally.last.ids.count, 4);
    assert_int_equal(hp_engine_outstanding(fake->engine), 0);
    fake->submit_error = NULL;
    (void)fake_submit_tasks(fake, 4, NULL);
    fake_settle(fake);
    assert_int_equal(fake_events(fake).submitted, 1);
    fake_free(fake);
}

/* A refused number that the broker did not count: the next hello sets the numbers right. */
static void test_out_of_order(void **state)
{
    struct fake *fake = fake_new();

    (void)state;
    fake_settle(fake);
    fake->submit_error = "bad_request";
    (void)fake_submit_tasks(fake, 1, NULL);
    fake_settle(fake);
    fake->last_number--;
    fake->submit_error = NULL;
    (void)fake_submit_tasks(fake, 1, NULL);
    fake_pass(fake, 1000);
    assert_int_equal(fake->hello_count, 2);
    assert_int_equal(fake_events(fake).submitted, 1);
    assert_int_equal(fake->tasks_created, 1);
    fake_free(fake);
}

/* The broker forgot the session: what was under way is reported, the rest goes on in a new one. */
static void test_session_lost(void **state)
{
    struct fake *fake = fake_new();
    struct tally tally;
    uint8_t session[HP_SESSION_BYTES];

    (void)state;
    fake_settle(fake);
    memcpy(session, hp_engine_session(fake->engine), sizeof(session));
    (void)fake_submit_tasks(fake, 2, NULL);
    fake_settle(fake);
    fake->lose_replies = 1;
    (void)fake_submit_tasks(fake, 3, NULL);
    fake_settle(fake);
    (void)fake_submit_tasks(fake, 5, NULL);
    memset(fake->session, 0, sizeof(fake->session)); /* a broker with nothing in its memory */
    fake->tasks_created = 0;
    fake->next_id = 1;
    fake_pass(fake, 20000);
    tally = fake_events(fake);
    assert_memory_not_equal(session, hp_engine_session(fake->engine), sizeof(session));
    assert_int_equal(tally.failed, 1);
    assert_int_equal(tally.submitted_tasks, 2 + 5);
    assert_int_equal(fake->tasks_created, 5);
    fake_free(fake);
}

/* Garbage closes the connection with a reason, and the client comes back. */
static void test_garbage(void **state)
{
#define GARBAGE(text)                                                                              \
    {                                                                                              \
        .data = (const uint8_t *)(text), .size = sizeof(text) - 1                                  \
    }
    static const struct hp_bin garbage[] = {
        GARBAGE("\xc1"),
        GARBAGE("\xdd\xff\xff\xff\xff"),
        GARBAGE("\x93\x02\xaatask.event\x91\x81\xa6"
                "events\x91\x01"),
        GARBAGE("\x94\x00\x01\xa5"
                "hello\x91\x80"),
        GARBAGE("\x94\x01\x01\xc0\x01"),
        GARBAGE("\xa3"
                "abc"),
    };
#undef GARBAGE

    (void)state;
    for (size_t i = 0; i < HP_COUNT_OF(garbage); i++) {
        struct fake *fake = fake_new();
        struct tally tally;

        fake_settle(fake);
        (void)fake_submit_tasks(fake, 1, NULL);
        fake_settle(fake);
        (void)fake_events(fake);
        assert_ok(hp_buf_append(&fake->out, garbage[i].data, garbage[i].size));
        fake_settle(fake);
        (void)fake_events(fake); /* a bad task is noticed when it is read */
        fake_pass(fake, 20000);
        tally = fake_events(fake);
        assert_true(fake->hello_count >= 2);
        assert_true(hp_engine_is_open(fake->engine));
        fake_end(fake, 1, 1, HP_TASK_STATE_DONE, true);
        fake_settle(fake);
        tally = fake_events(fake);
        assert_int_equal(tally.ended, 1);
        fake_free(fake);
    }
}

/* Refused, silent before hello, silent after it. */
static void test_timeouts(void **state)
{
    struct fake *fake = fake_new();
    const char *text;

    (void)state;
    fake->refuse = true;
    fake_pass(fake, 10000);
    assert_int_equal(hp_engine_trouble(fake->engine, &text), HP_STATUS_UNREACHABLE);
    assert_string_equal(text, "refused");
    fake->refuse = false;
    fake_pass(fake, 10000);
    assert_int_equal(fake->hello_count, 1);
    fake_pass(fake, 100000); /* nothing is expected: silence is fine */
    assert_int_equal(fake->hello_count, 1);
    assert_int_equal(fake->ping_count, 0);
    (void)fake_submit_tasks(fake, 1, NULL);
    fake_pass(fake, 100000); /* a task is outstanding: pings are sent, and answered */
    assert_int_equal(fake->hello_count, 1);
    assert_true(fake->ping_count >= 5);
    fake->mute = true;
    fake_pass(fake, 40000);
    assert_int_equal(hp_engine_is_open(fake->engine), fake->connected);
    assert_true(fake->hello_count >= 2);
    fake_free(fake);
}

static void test_denied(void **state)
{
    struct fake *fake = fake_new();
    const char *text;

    (void)state;
    fake->hello_error = "denied";
    fake_pass(fake, 100);
    assert_int_equal(hp_engine_trouble(fake->engine, &text), HP_STATUS_DENIED);
    assert_string_equal(text, "told so");
    fake_pass(fake, 60000);
    assert_true(fake->hello_count <= 30); /* only at the longest interval */
    fake->hello_error = NULL;
    fake_pass(fake, 6000);
    assert_true(hp_engine_is_open(fake->engine));
    fake_free(fake);
}

/* A payload over the inline limit becomes a blob first, also over a broken line. */
static void test_blob(void **state)
{
    struct fake *fake = fake_new();
    struct hp_options options;
    size_t size = 5000000; /* more than what is in flight at once */
    uint8_t *data = hp_alloc(size);
    struct hp_bytes payload = {.data = data, .size = size};
    struct hp_engine_submit submit = {.options = &options, .payloads = &payload, .count = 1};

    (void)state;
    assert_non_null(data);
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)(i * 31 >> 3);
    }
    hp_options_init(&options);
    options.fn = "f";
    fake_settle(fake);
    assert_int_equal(hp_engine_submit(fake->engine, &submit, NULL), HP_STATUS_OK);
    for (uint32_t i = 0; i < 3; i++) {
        (void)fake_turn(fake);
    }
    assert_true(fake->blob_written > 0 && fake->blob_written < size);
    fake_drop(fake);
    fake_pass(fake, 1000);
    assert_int_equal(fake->blob_written, size);
    assert_memory_equal(fake->blob, data, size);
    assert_int_equal(fake->last_blob, 2);
    assert_int_equal(fake->tasks_created, 1);
    assert_int_equal(fake_events(fake).submitted, 1);
    assert_int_equal(hp_engine_outstanding(fake->engine), 1);
    hp_free(data);
    fake_free(fake);
}

/* A task joined by its key is another session's perhaps: it is waited for. */
static void test_joined(void **state)
{
    struct fake *fake = fake_new();
    struct hp_options options;
    struct hp_engine_submit submit = {.options = &options, .count = 1};
    struct tally tally;

    (void)state;
    fake->next_id = 10;
    fake->joined_id = 5;
    hp_options_init(&options);
    options.fn = "f";
    options.ukey = "k";
    assert_int_equal(hp_engine_submit(fake->engine, &submit, NULL), HP_STATUS_OK);
    assert_int_equal(hp_engine_submit(fake->engine, &submit, NULL), HP_STATUS_OK);
    fake_settle(fake);
    tally = fake_events(fake);
    assert_int_equal(tally.submitted, 2);
    assert_int_equal(tally.last.outcome, HP_OUTCOME_JOINED);
    assert_int_equal(fake->wait_id, 5);
    fake_wait_reply(fake, true); /* not ended yet: asked again */
    fake_settle(fake);
    assert_true(fake->wait_msgid != 0);
    fake_end(fake, 5, 1, HP_TASK_STATE_DONE, false);
    fake_wait_reply(fake, false);
    fake_settle(fake);
    assert_int_equal(fake_events(fake).ended, 2); /* both calls are told */
    fake_free(fake);
}

/* An event may come before the reply to its submit: it is not lost. */
static void test_early_event(void **state)
{
    struct fake *fake = fake_new();

    (void)state;
    fake_settle(fake);
    (void)fake_submit_tasks(fake, 1, NULL);
    hp_engine_step(fake->engine, fake->now_ms);
    fake_end(fake, 1, 1, HP_TASK_STATE_DONE, true);
    (void)hp_engine_output(fake->engine); /* now it counts as sent */
    (void)fake_send(fake);
    assert_int_equal(fake_events(fake).ended, 0);
    fake_settle(fake);
    assert_int_equal(fake_events(fake).ended, 1);
    fake_free(fake);
}

/* Too many events: input is not wanted until they are taken. */
static void test_backpressure(void **state)
{
    struct fake *fake = fake_new_with(64, 1000);

    (void)state;
    fake_settle(fake);
    (void)fake_submit_tasks(fake, 1000, NULL);
    fake_settle(fake);
    fake_end(fake, 1, 1000, HP_TASK_STATE_DONE, true);
    fake_settle(fake);
    assert_false(hp_engine_wants_input(fake->engine));
    assert_int_equal(fake_events(fake).ended, 1000);
    assert_true(hp_engine_wants_input(fake->engine));
    fake_free(fake);
}

static void test_forget(void **state)
{
    struct fake *fake = fake_new();
    uint64_t requests[4];
    bool dropped;

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        requests[i] = fake_submit_tasks(fake, 1, NULL);
    }
    hp_engine_forget(fake->engine, requests[1], &dropped);
    assert_false(dropped); /* it shares a message with the others */
    fake_settle(fake);
    assert_int_equal(fake_events(fake).submitted, 3);
    assert_int_equal(hp_engine_outstanding(fake->engine), 3);
    hp_engine_forget(fake->engine, requests[2], &dropped);
    fake_end(fake, 1, 4, HP_TASK_STATE_DONE, true);
    fake_settle(fake);
    assert_int_equal(fake_events(fake).ended, 2);
    fake->refuse = true;
    fake_drop(fake);
    requests[0] = fake_submit_tasks(fake, 7, NULL);
    hp_engine_forget(fake->engine, requests[0], &dropped);
    assert_true(dropped); /* never sent */
    assert_int_equal(hp_engine_outstanding(fake->engine), 0);
    assert_int_equal(hp_engine_unacknowledged(fake->engine), 0);
    fake_free(fake);
}

/* In a forked child: a new session, and nothing of the parent's. */
static void test_fork(void **state)
{
    struct fake *fake = fake_new();
    uint8_t session[HP_SESSION_BYTES] = "child";

    (void)state;
    fake_settle(fake);
    (void)fake_submit_tasks(fake, 10, NULL);
    fake_settle(fake);
    (void)fake_submit_tasks(fake, 10, NULL);
    fake->connected = false;
    hp_buf_clear(&fake->in);
    hp_buf_clear(&fake->out);
    hp_engine_fork(fake->engine, session, 9, fake->now_ms);
    assert_int_equal(hp_engine_outstanding(fake->engine), 0);
    fake_settle(fake);
    assert_memory_equal(fake->session, session, sizeof(session));
    assert_int_equal(fake->tasks_created, 10);
    assert_int_equal(fake_events(fake).connected, 1);
    fake_free(fake);
}

/* A session of an earlier process goes on where that one stopped. */
static void test_adopted_session(void **state)
{
    struct fake *fake = fake_new();

    (void)state;
    memset(fake->session, 's', sizeof(fake->session));
    fake->last_number = 57;
    (void)fake_submit_tasks(fake, 1, NULL);
    fake_settle(fake);
    assert_int_equal(fake->last_number, 58);
    assert_int_equal(fake_events(fake).submitted, 1);
    fake_free(fake);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_hello_and_submit),
    cmocka_unit_test(test_sharing),
    cmocka_unit_test(test_payloads),
    cmocka_unit_test(test_bad_arguments),
    cmocka_unit_test(test_window),
    cmocka_unit_test(test_lost_reply),
    cmocka_unit_test(test_missed_events),
    cmocka_unit_test(test_byte_by_byte),
    cmocka_unit_test(test_busy),
    cmocka_unit_test(test_refused_submit),
    cmocka_unit_test(test_out_of_order),
    cmocka_unit_test(test_session_lost),
    cmocka_unit_test(test_garbage),
    cmocka_unit_test(test_timeouts),
    cmocka_unit_test(test_denied),
    cmocka_unit_test(test_blob),
    cmocka_unit_test(test_joined),
    cmocka_unit_test(test_early_event),
    cmocka_unit_test(test_backpressure),
    cmocka_unit_test(test_forget),
    cmocka_unit_test(test_fork),
    cmocka_unit_test(test_adopted_session),
};

HP_TEST_MAIN(tests)
