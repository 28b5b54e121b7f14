/* SPDX-License-Identifier: BSD-2-Clause */
/* What is not allowed is refused by its name, and changes nothing. */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"
#include "tests/unit/core_ask.h"
#include "tests/unit/core_pool_fixture.h"

static struct hp_st_assign_run runs[64];

/* A bit of everything: tasks in each state, a pool with a call, two workers, delayed ones. */
static struct rig *rig_full(void)
{
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.window_timers = 2; /* the third stays in the store */
    struct rig *rig = rig_new(&config);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, SESSION, NULL);
    rig_worker(rig, 2, "w", 1);
    pool_worker(rig, 3, "v", 2);
    options.has |= HP_HAS_ST_TASK_OPTIONS_CKEY | HP_HAS_ST_TASK_OPTIONS_CKEY_MAX;
    options.ckey = HP_STR("key");
    options.ckey_max = 1;
    assert_int_not_equal(rig_submitted(rig, 1, 1, &options, 3, NULL), 0);
    options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS | HP_HAS_ST_TASK_OPTIONS_EXPIRE_MS;
    for (uint64_t i = 0; i < 3; i++) {
        options.delay_ms = 50000 + i;
        options.expire_ms = 3600000 + i;
        assert_int_not_equal(rig_submitted(rig, 1, 2 + i, &options, 2, NULL), 0);
    }
    uint64_t pool = pool_open(rig, 5, 2);
    pool_report(rig, 3, pool, 2, 0, NULL);
    (void)pool_calls(rig, 6, pool, 1);
    (void)rig_assigned(rig, 2, runs, 64);
    return rig;
}

/* The state as text, without its first line: time, and numbers of turns. */
static char *dump(const struct rig *rig)
{
    struct hp_buf buf;
    hp_buf_init(&buf, 16U << 20);
    hp_core_dump(rig->core, &buf);
    const uint8_t *end = memchr(buf.data, '\n', buf.size);
    assert_non_null(end);
    size_t head = (size_t)(end - buf.data) + 1;
    char *text = hp_memdup(buf.data + head, buf.size - head);
    assert_non_null(text);
    hp_buf_deinit(&buf);
    return text;
}

/* A call whose only field is `field`, with a value no field has: a float. */
static uint32_t call_with_float(struct rig *rig, uint64_t conn, enum hp_method method,
                                const char *field)
{
    static const uint8_t one_and_a_half[] = {0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0};
    bool notify = hp_method_info(method)->is_notify;
    uint32_t msgid = notify ? 0 : rig->next_msgid++;
    struct hp_buf buf;
    hp_buf_init(&buf, 4096);
    assert_ok(notify ? hp_rpc_put_notify(&buf, method) : hp_rpc_put_request(&buf, msgid, method));
    assert_ok(hp_wire_put_map(&buf, 1));
    assert_ok(hp_wire_put_cstr(&buf, field));
    assert_ok(hp_wire_put_raw(&buf, hp_bin_make(one_and_a_half, sizeof(one_and_a_half))));
    rig_begin(rig);
    rig_frame(rig, conn, buf.data, buf.size);
    rig_end(rig);
    hp_buf_deinit(&buf);
    return msgid;
}

static void refuse_each_field(struct rig *rig, uint64_t conn, enum hp_method method)
{
    const struct hp_method_info *info = hp_method_info(method);
    char wanted[128];
    for (uint32_t i = 0; i < info->params->count; i++) {
        const char *field = info->params->fields[i].name;
        uint32_t msgid = call_with_float(rig, conn, method, field);
        assert_false(rig_answer(rig, conn, msgid, info->reply, NULL));
        assert_int_equal(refused.code, HP_RPC_ERROR_BAD_REQUEST);
        (void)snprintf(wanted, sizeof(wanted), "%s.%s: ", info->name, field);
        if (strstr(refused.text, wanted) == NULL) {
            fail_msg("%s does not name %s", refused.text, wanted);
        }
        assert_false(rig->closed[conn - 1]); /* its other calls go on */
    }
}

static void a_wrong_type_is_named_and_changes_nothing(void **state)
{
    (void)state;
    struct rig *rig = rig_full();
    char *before = dump(rig);
    uint64_t count = 0;
    for (enum hp_method method = HP_METHOD_TASK_SUBMIT; method <= HP_METHOD_WORKER_CONTROL;
         method++) {
        const struct hp_method_info *info = hp_method_info(method);
        bool is_worker = (info->from & HP_FROM_CLIENT) == 0;
        if (info->is_notify || (info->from & (HP_FROM_CLIENT | HP_FROM_WORKER)) == 0) {
            continue;
        }
        refuse_each_field(rig, is_worker ? 2 : 1, method);
        count += info->params->count;
    }
    assert_int_equal(rig->core->figures.bad_requests, count);
    assert_true(count > 60);
    char *after = dump(rig);
    assert_string_equal(before, after);
    hp_free(before);
    hp_free(after);
    rig_free(rig);
}

/* Nobody can be told what is wrong with a notification, and what it said is lost: so it ends. */
static void a_wrong_notification_ends_its_connection(void **state)
{
    (void)state;
    static const struct {
        enum hp_method method;
        uint64_t conn;
    } cases[] = {{HP_METHOD_TASK_FORGET, 1},
                 {HP_METHOD_WORKER_STARTED, 2},
                 {HP_METHOD_WORKER_OUTPUT, 2},
                 {HP_METHOD_WORKER_POOL_REPORT, 3}};
    for (size_t i = 0; i < HP_COUNT_OF(cases); i++) {
        const struct hp_method_info *info = hp_method_info(cases[i].method);
        struct rig *rig = rig_full();
        assert_true(info->is_notify);
        (void)call_with_float(rig, cases[i].conn, cases[i].method, info->params->fields[0].name);
        for (uint64_t conn = 1; conn <= 3; conn++) {
            assert_int_equal(rig->closed[conn - 1], conn == cases[i].conn);
        }
        rig_free(rig);
    }
}

/* ------------------------------------------------ hello */
static bool greet(struct rig *rig, uint64_t conn, const struct hp_msg_hello *msg)
{
    const struct hp_method_info *info = hp_method_info(HP_METHOD_HELLO);
    rig_begin(rig);
    rig_connect(rig, conn);
    uint32_t msgid = rig_call(rig, conn, HP_METHOD_HELLO, info->params, msg);
    rig_end(rig);
    return rig_answer(rig, conn, msgid, info->reply, NULL);
}

static void a_hello_must_make_sense(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    const struct hp_msg_hello good = {.client = HP_STR("test"), .version = 1};
    struct hp_msg_hello msg = good;
    msg.version = 0;
    assert_refused(greet(rig, 1, &msg), VERSION);
    assert_true(rig->closed[0]);
    msg = good;
    msg.has |= HP_HAS_HELLO_SESSION;
    msg.session = hp_bin_make("short", 5);
    assert_refused(greet(rig, 2, &msg), BAD_REQUEST);
    assert_true(rig->closed[1]);
    msg = good;
    msg.has |= HP_HAS_HELLO_NODE | HP_HAS_HELLO_BOOT;
    msg.node = HP_STR("w");
    msg.boot = hp_bin_make("too short", 9);
    assert_refused(greet(rig, 3, &msg), BAD_REQUEST);
    assert_true(rig->closed[2]);
    msg.node = HP_STR("new\nline");
    msg.boot = hp_bin_make("sixteen bytes ok", 16);
    assert_refused(greet(rig, 4, &msg), BAD_REQUEST);
    assert_true(rig->closed[3]);
    assert_null(hp_strmap_find_ptr(&rig->core->nodes_by_name, msg.node));
    rig_begin(rig);
    rig_connect(rig, 5);
    rig_end(rig);
    uint32_t msgid = call_with_float(rig, 5, HP_METHOD_HELLO, "version");
    assert_refused(rig_answer(rig, 5, msgid, NULL, NULL), BAD_REQUEST);
    assert_true(rig->closed[4]);
    /* Twice is once too often, and harms nobody. */
    assert_true(greet(rig, 6, &good));
    assert_refused(rig_ask(rig, 6, HP_METHOD_HELLO, &good, NULL), BAD_REQUEST);
    assert_false(rig->closed[5]);
    rig_free(rig);
}

/* ------------------------------------------------ frames that are no calls */
static void frames_that_are_no_calls(void **state)
{
    (void)state;
    static const uint8_t response[] = {0x94, 0x01, 0x07, 0xc0, 0x80};
    static const uint8_t stranger[] = {0x93, 0x02, 0xa3, 'x', '.', 'y', 0x91, 0x80};
    static const uint8_t no_map[] = {0x94, 0x00, 0x07, 0xa5, 'h', 'e', 'l', 'l', 'o', 0x90};
    static const uint8_t unknown[] = {0x94, 0x00, 0x09, 0xa3, 'x', '.', 'y', 0x91, 0x80};
    static const uint8_t event[] = {0x94, 0x00, 0x0a, 0xaa, 't', 'a', 's',  'k',
                                    '.',  'e',  'v',  'e',  'n', 't', 0x91, 0x80};
    static const uint8_t ping[] = {0x93, 0x02, 0xab, 'b', 'r', 'o', 'k',  'e',
                                   'r',  '.',  'p',  'i', 'n', 'g', 0x91, 0x80};
    struct rig *rig = rig_full();
    rig_hello(rig, 4, NULL, NULL);
    rig_hello(rig, 5, NULL, NULL);
    char *before = dump(rig);
    rig_begin(rig);
    rig_frame(rig, 1, stranger, sizeof(stranger)); /* unknown notifications are skipped */
    rig_frame(rig, 1, ping, sizeof(ping));         /* and calls that want no answer */
    rig_frame(rig, 1, unknown, sizeof(unknown));
    rig_end(rig);
    assert_refused(rig_answer(rig, 1, 9, NULL, NULL), UNKNOWN_METHOD);
    assert_non_null(strstr(refused.text, "x.y"));
    rig_begin(rig);
    rig_frame(rig, 1, event, sizeof(event)); /* what only the broker says */
    rig_end(rig);
    assert_refused(rig_answer(rig, 1, 10, NULL, NULL), UNKNOWN_METHOD);
    assert_false(rig->closed[0]);
    char *after = dump(rig);
    assert_string_equal(before, after);
    hp_free(before);
    hp_free(after);
    rig_begin(rig);
    rig_frame(rig, 4, response, sizeof(response));
    rig_frame(rig, 5, no_map, sizeof(no_map));
    rig_frame(rig, 5, unknown, sizeof(unknown)); /* behind its end: not looked at */
    rig_end(rig);
    assert_true(rig->closed[3] && rig->closed[4]);
    assert_refused(rig_answer(rig, 5, 7, NULL, NULL), BAD_REQUEST);
    assert_int_equal(rig->out[4].size, 0);
    rig_free(rig);
}

/* ------------------------------------------------ numbers that are too large */
static void ranges_have_bounds(void **state)
{
    (void)state;
    struct rig *rig = rig_full();
    struct hp_st_id_range range = {
        .has = HP_HAS_ST_ID_RANGE_COUNT, .count = 2, .first = UINT64_MAX - 1};
    struct hp_msg_task_get get = {.has = HP_HAS_TASK_GET_RANGES,
                                  .ranges = {.items = &range, .count = 1}};
    struct hp_msg_task_get_reply got;
    struct hp_msg_task_cancel cancel = {.has = HP_HAS_TASK_CANCEL_RANGES,
                                        .ranges = {.items = &range, .count = 1}};
    assert_refused(rig_ask(rig, 1, HP_METHOD_TASK_GET, &get, NULL), BAD_REQUEST);
    assert_refused(rig_ask(rig, 1, HP_METHOD_TASK_CANCEL, &cancel, NULL), BAD_REQUEST);
    range.first = 1;
    range.count = 100001;
    assert_refused(rig_ask(rig, 1, HP_METHOD_TASK_GET, &get, NULL), BAD_REQUEST);
    range.count = 1000001;
    assert_refused(rig_ask(rig, 1, HP_METHOD_TASK_CANCEL, &cancel, NULL), BAD_REQUEST);
    struct hp_msg_task_cancel nothing = {0};
    assert_refused(rig_ask(rig, 1, HP_METHOD_TASK_CANCEL, &nothing, NULL), BAD_REQUEST);
    struct hp_msg_task_wait wait = {0};
    assert_refused(rig_ask(rig, 1, HP_METHOD_TASK_WAIT, &wait, NULL), BAD_REQUEST);
    range.first = UINT64_MAX - 2; /* the last ids there can be: none was ever given out */
    range.count = 2;
    assert_true(rig_ask(rig, 1, HP_METHOD_TASK_GET, &get, &got));
    assert_int_equal(got.tasks.count, 2);
    assert_int_equal(got.tasks.items[1].id, UINT64_MAX - 1);
    assert_int_equal(got.tasks.items[1].state, HP_TASK_STATE_UNKNOWN);
    struct hp_msg_task_forget forget = {.ranges = {.items = &range, .count = 1}};
    char *before = dump(rig);
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, TASK_FORGET, task_forget, &forget);
    rig_end(rig);
    rig_settle(rig);
    char *after = dump(rig);
    assert_string_equal(before, after);
    hp_free(before);
    hp_free(after);
    rig_free(rig);
}

static bool submit_of(struct rig *rig, const struct hp_msg_task_submit *msg)
{
    return rig_ask(rig, 1, HP_METHOD_TASK_SUBMIT, msg, NULL);
}

static void payloads_blobs_and_counts_agree(void **state)
{
    (void)state;
    struct rig *rig = rig_full();
    struct hp_bin payloads[3] = {{0}};
    uint64_t blobs[3] = {0};
    uint64_t submitted = rig->core->figures.submitted;
    struct hp_msg_task_submit msg = {.options = rig_command()};
    msg.payloads.items = payloads;
    msg.blobs.items = blobs;
    msg.has = HP_HAS_TASK_SUBMIT_PAYLOADS; /* none in the list */
    assert_refused(submit_of(rig, &msg), BAD_REQUEST);
    msg.has |= HP_HAS_TASK_SUBMIT_COUNT;
    msg.payloads.count = 3;
    msg.count = 2;
    assert_refused(submit_of(rig, &msg), BAD_REQUEST);
    msg.has = HP_HAS_TASK_SUBMIT_PAYLOADS | HP_HAS_TASK_SUBMIT_BLOBS;
    msg.blobs.count = 2;
    assert_refused(submit_of(rig, &msg), BAD_REQUEST);
    msg.has = HP_HAS_TASK_SUBMIT_BLOBS | HP_HAS_TASK_SUBMIT_COUNT;
    assert_refused(submit_of(rig, &msg), BAD_REQUEST);
    assert_int_equal(rig->core->figures.submitted, submitted);
    /* A count beside payloads is fine if it is theirs; each blob is held by its task from now on.
     */
    blobs[1] = 7;
    msg.has = HP_HAS_TASK_SUBMIT_PAYLOADS | HP_HAS_TASK_SUBMIT_BLOBS | HP_HAS_TASK_SUBMIT_COUNT;
    msg.blobs.count = msg.count = 3;
    memset(rig->op_counts, 0, sizeof(rig->op_counts));
    assert_true(submit_of(rig, &msg));
    assert_int_equal(rig->op_counts[HP_OP_BLOB], 1);
    assert_int_equal(rig->core->figures.submitted, submitted + 3);
    rig_free(rig);
}

static bool options_pass(struct rig *rig, struct hp_st_task_options options)
{
    struct hp_msg_task_submit msg = {.options = options};
    return submit_of(rig, &msg);
}

static void options_are_checked_before_anything_is_stored(void **state)
{
    (void)state;
    struct rig *rig = rig_full();
    uint64_t submitted = rig->core->figures.submitted;
    struct hp_st_task_options options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_QUEUE;
    options.queue = HP_STR("a\tb");
    assert_refused(options_pass(rig, options), BAD_REQUEST);
    assert_non_null(strstr(refused.text, "options.queue"));
    options = rig_command();
    struct hp_str word = HP_STR("two\nlines");
    options.has |= HP_HAS_ST_TASK_OPTIONS_TAGS;
    options.tags.items = &word;
    options.tags.count = 1;
    assert_refused(options_pass(rig, options), BAD_REQUEST);
    assert_non_null(strstr(refused.text, "options.tags: item 0"));
    static const char *const odd[] = {"", "NAME", "=value"};
    for (size_t i = 0; i < HP_COUNT_OF(odd); i++) {
        struct hp_str env[] = {HP_STR("A="), hp_str_of(odd[i])};
        options = rig_command();
        options.has |= HP_HAS_ST_TASK_OPTIONS_ENV;
        options.env.items = env;
        options.env.count = 2;
        assert_refused(options_pass(rig, options), BAD_REQUEST);
        assert_non_null(strstr(refused.text, "options.env: item 1"));
    }
    options = rig_command();
    word = HP_STR("");
    options.argv.items = &word;
    assert_refused(options_pass(rig, options), BAD_REQUEST);
    assert_non_null(strstr(refused.text, "options.argv"));
    options.argv.count = 0;
    assert_refused(options_pass(rig, options), BAD_REQUEST);
    options.has |= HP_HAS_ST_TASK_OPTIONS_PAYLOAD_USE; /* the payload is the command line */
    options.payload_use = HP_PAYLOAD_USE_ARGV;
    assert_int_equal(rig->core->figures.submitted, submitted);
    assert_true(options_pass(rig, options));
    options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_PAYLOAD_USE;
    options.payload_use = HP_PAYLOAD_USE_ITEMS;
    assert_refused(options_pass(rig, options), BAD_REQUEST);
    assert_non_null(strstr(refused.text, "options.payload_use: items"));
    options = rig_function();
    options.has |= HP_HAS_ST_TASK_OPTIONS_PAYLOAD_USE;
    options.payload_use = HP_PAYLOAD_USE_ITEMS;
    assert_true(options_pass(rig, options));
    rig_free(rig);
}

/* One connection can not make the broker remember any number of waits. */
static void waits_of_a_connection_are_bounded(void **state)
{
    (void)state;
    struct rig *rig = rig_full();
    uint64_t id = 1;
    struct hp_msg_task_wait wait = {.has = HP_HAS_TASK_WAIT_TIMEOUT_MS,
                                    .timeout_ms = 3600000,
                                    .ids = {.items = &id, .count = 1}};
    const struct hp_method_info *info = hp_method_info(HP_METHOD_TASK_WAIT);
    rig_begin(rig);
    for (int i = 0; i < HP_WAITS_PER_CONN_MAX; i++) {
        (void)rig_call(rig, 1, HP_METHOD_TASK_WAIT, info->params, &wait);
    }
    rig_end(rig);
    rig_settle(rig);
    assert_refused(rig_ask(rig, 1, HP_METHOD_TASK_WAIT, &wait, NULL), BUSY);
    struct hp_msg_pool_info pool = {.has = HP_HAS_POOL_INFO_WAIT_MS, .wait_ms = 1000};
    pool.pool = pool_open(rig, 7, 1);
    assert_refused(rig_ask(rig, 1, HP_METHOD_POOL_INFO, &pool, NULL), BUSY);
    /* Another one may, and the ends of this one's make room. */
    rig_hello(rig, 4, NULL, NULL);
    rig_begin(rig);
    uint32_t msgid = rig_call(rig, 4, HP_METHOD_TASK_WAIT, info->params, &wait);
    rig_end(rig);
    rig_cancel(rig, 1, id, 1, HP_CANCEL_MODE_FORCE);
    rig_done(rig, 2, id, 1, 1, HP_REASON_CANCELLED);
    assert_true(rig_answer(rig, 4, msgid, info->reply, NULL));
    assert_true(rig_ask(rig, 1, HP_METHOD_TASK_WAIT, &wait, NULL));
    rig_free(rig);
}

/* ------------------------------------------------ the text of the state */
static void the_same_history_gives_the_same_dump(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "queue default paused=0 delayed=6",
        "ckey key max=1 running=1",
        "  run ",
        "w state=online conn=2",
        "pool ",
        "  on ",
        "attempt 1.1 epoch=1 state=leased",
        "timer ",
        "timers more after",
        "conn 3 state=",
        "session 636c69656e742073657373696f6e2031 conn=1 last=6",
    };
    struct rig *rig = rig_full();
    struct rig *twin = rig_full();
    char *text = dump(rig);
    char *twin_text = dump(twin);
    assert_string_equal(text, twin_text);
    for (size_t i = 0; i < HP_COUNT_OF(parts); i++) {
        if (strstr(text, parts[i]) == NULL) {
            fail_msg("'%s' is not in\n%s", parts[i], text);
        }
    }
    hp_free(twin_text);
    rig_cancel(twin, 1, 2, 1, HP_CANCEL_MODE_QUEUED);
    twin_text = dump(twin);
    assert_string_not_equal(text, twin_text);
    hp_free(twin_text);
    hp_free(text);
    rig_free(twin);
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_wrong_type_is_named_and_changes_nothing),
    cmocka_unit_test(a_wrong_notification_ends_its_connection),
    cmocka_unit_test(a_hello_must_make_sense),
    cmocka_unit_test(frames_that_are_no_calls),
    cmocka_unit_test(ranges_have_bounds),
    cmocka_unit_test(payloads_blobs_and_counts_agree),
    cmocka_unit_test(options_are_checked_before_anything_is_stored),
    cmocka_unit_test(waits_of_a_connection_are_bounded),
    cmocka_unit_test(the_same_history_gives_the_same_dump),
};

HP_TEST_MAIN(tests)
