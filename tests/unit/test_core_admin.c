/* SPDX-License-Identifier: BSD-2-Clause */
/* What operators ask: queues, workers, the broker's figures, checks and backups. */
#include "tests/lib/hp_test.h"

#include <stdio.h>

#include "tests/lib/core_rig.h"
#include "tests/unit/core_ask.h"

static struct hp_st_assign_run runs[64];

static struct hp_st_task_options on_queue(struct hp_st_task_options options, const char *queue)
{
    options.has |= HP_HAS_ST_TASK_OPTIONS_QUEUE;
    options.queue = hp_str_of(queue);
    return options;
}

static struct hp_st_task_options delayed(struct hp_st_task_options options, bool durable)
{
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS | HP_HAS_ST_TASK_OPTIONS_DURABLE;
    options.delay_ms = 100000;
    options.durable = durable;
    return options;
}

static bool pause_queue(struct rig *rig, const char *name, bool paused, bool *ret_changed)
{
    struct hp_msg_queue_pause msg = {
        .has = HP_HAS_QUEUE_PAUSE_PAUSED, .name = hp_str_of(name), .paused = paused};
    struct hp_msg_queue_pause_reply reply = {0};
    bool ok = rig_ask(rig, 1, HP_METHOD_QUEUE_PAUSE, &msg, &reply);
    *ret_changed = reply.changed;
    return ok;
}

static void queues_are_listed_with_what_is_in_them(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_msg_queue_list msg = {0};
    struct hp_msg_queue_list_reply reply;
    struct hp_st_task_options options = on_queue(rig_command(), "b");
    bool changed = false;
    rig_hello(rig, 1, NULL, NULL);
    assert_true(rig_ask(rig, 1, HP_METHOD_QUEUE_LIST, &msg, &reply));
    assert_int_equal(reply.queues.count, 0);
    uint64_t first = rig_submitted(rig, 1, 0, &options, 5, NULL);
    options = on_queue(delayed(rig_command(), true), "b");
    assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 3, NULL), 0);
    options = on_queue(delayed(rig_command(), false), "a"); /* these are in memory only */
    assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 2, NULL), 0);
    rig_worker(rig, 2, "w", 2);
    assert_int_not_equal(rig_assigned(rig, 2, runs, 64), 0);
    rig_done(rig, 2, first, 1, 1, HP_REASON_NONE);
    assert_true(pause_queue(rig, "a", true, &changed) && changed);
    assert_true(pause_queue(rig, "a", true, &changed) && !changed); /* it was */
    assert_true(rig_ask(rig, 1, HP_METHOD_QUEUE_LIST, &msg, &reply));
    assert_int_equal(reply.queues.count, 2);
    const struct hp_st_queue_info *a = &reply.queues.items[0];
    const struct hp_st_queue_info *b = &reply.queues.items[1];
    assert_true(hp_str_eq_c(a->name, "a") && hp_str_eq_c(b->name, "b"));
    assert_true(a->paused && !b->paused);
    assert_true(a->ready == 0 && a->delayed == 2 && a->running == 0 && a->done == 0);
    assert_true(b->ready == 2 && b->delayed == 3 && b->running == 2 && b->done == 1);
    msg = (struct hp_msg_queue_list){.has = HP_HAS_QUEUE_LIST_NAME, .name = HP_STR("b")};
    assert_true(rig_ask(rig, 1, HP_METHOD_QUEUE_LIST, &msg, &reply));
    assert_int_equal(reply.queues.count, 1);
    assert_int_equal(reply.queues.items[0].delayed, 3);
    msg.name = HP_STR("c");
    assert_refused(rig_ask(rig, 1, HP_METHOD_QUEUE_LIST, &msg, &reply), NOT_FOUND);
    assert_non_null(strstr(refused.text, "no queue c"));
    rig_free(rig);
}

static void a_queue_may_be_paused_before_it_is_used(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = on_queue(rig_command(), "later");
    bool changed = false;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    assert_refused(pause_queue(rig, "later", false, &changed), NOT_FOUND);
    assert_refused(pause_queue(rig, "not\na name", true, &changed), NOT_FOUND);
    assert_true(pause_queue(rig, "later", true, &changed) && changed);
    assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 1, NULL), 0);
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 0);
    assert_true(pause_queue(rig, "later", false, &changed) && changed);
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 1);
    rig_free(rig);
}

/* However many queues with long names: the answer is a legal frame, in order, cut at its end. */
static void many_queues_are_cut_to_a_frame(void **state)
{
    (void)state;
    enum { QUEUES = 2500 };
    struct rig *rig = rig_new(NULL);
    char name[256];
    bool changed = false;
    rig_hello(rig, 1, NULL, NULL);
    for (int i = 0; i < QUEUES; i++) {
        (void)snprintf(name, sizeof(name), "%04d%0248d", QUEUES - i, 0);
        assert_true(pause_queue(rig, name, true, &changed));
    }
    struct hp_msg_queue_list msg = {0};
    struct hp_msg_queue_list_reply reply;
    assert_true(rig_ask(rig, 1, HP_METHOD_QUEUE_LIST, &msg, &reply)); /* the tokenizer let it in */
    assert_true(reply.queues.count > 1000 && reply.queues.count < QUEUES);
    assert_int_equal(memcmp(reply.queues.items[0].name.data, "0001", 4), 0);
    (void)snprintf(name, sizeof(name), "%04d%0248d", QUEUES, 0); /* one that was left out */
    msg = (struct hp_msg_queue_list){.has = HP_HAS_QUEUE_LIST_NAME, .name = hp_str_of(name)};
    assert_true(rig_ask(rig, 1, HP_METHOD_QUEUE_LIST, &msg, &reply));
    rig_free(rig);
}

/* ------------------------------------------------ workers */
static void register_with(struct rig *rig, uint64_t conn, uint32_t functions, const char *tag)
{
    static char names[4096][256];
    static struct hp_str list[4096];
    struct hp_str tags[] = {hp_str_of(tag)};
    for (uint32_t i = 0; i < functions; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "%0250u", i);
        list[i] = hp_str_of(names[i]);
    }
    struct hp_msg_worker_register msg = {.has = HP_HAS_WORKER_REGISTER_FUNCTIONS |
                                                HP_HAS_WORKER_REGISTER_COMMANDS |
                                                HP_HAS_WORKER_REGISTER_TAGS,
                                         .host = HP_STR("somehost"),
                                         .pid = 77,
                                         .slots = 3,
                                         .commands = true,
                                         .tags = {.items = tags, .count = 1},
                                         .functions = {.items = list, .count = functions}};
    assert_true(rig_ask(rig, conn, HP_METHOD_WORKER_REGISTER, &msg, NULL));
}

static void workers_are_listed_with_what_they_do(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_msg_worker_list msg = {0};
    struct hp_msg_worker_list_reply reply;
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    assert_true(rig_ask(rig, 1, HP_METHOD_WORKER_LIST, &msg, &reply));
    assert_int_equal(reply.workers.count, 0);
    rig_hello(rig, 3, NULL, "z");
    register_with(rig, 3, 2, "gpu");
    rig_hello(rig, 2, NULL, "a");
    register_with(rig, 2, 0, "cpu");
    assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 1, NULL), 0);
    rig_begin(rig);
    rig_disconnect(rig, 2);
    rig_end(rig);
    struct hp_msg_worker_drain drain = {.has = HP_HAS_WORKER_DRAIN_ON | HP_HAS_WORKER_DRAIN_REASON,
                                        .node = HP_STR("z"),
                                        .on = true,
                                        .reason = HP_STR("new disk")};
    struct hp_msg_worker_drain_reply drained;
    assert_true(rig_ask(rig, 1, HP_METHOD_WORKER_DRAIN, &drain, &drained) && drained.changed);
    assert_true(rig_ask(rig, 1, HP_METHOD_WORKER_DRAIN, &drain, &drained) && !drained.changed);
    assert_true(rig_ask(rig, 1, HP_METHOD_WORKER_LIST, &msg, &reply));
    assert_int_equal(reply.workers.count, 2);
    const struct hp_st_worker_info *a = &reply.workers.items[0];
    const struct hp_st_worker_info *z = &reply.workers.items[1];
    assert_true(hp_str_eq_c(a->node, "a") && hp_str_eq_c(z->node, "z"));
    assert_int_equal(a->state, HP_NODE_STATE_AWAY);
    assert_int_equal(z->state, HP_NODE_STATE_ONLINE);
    assert_true(a->assigned + z->assigned == 1 && a->used + z->used == 1);
    assert_true(z->draining && hp_str_eq_c(z->drain_reason, "new disk"));
    assert_true(!a->draining && (a->has & HP_HAS_ST_WORKER_INFO_DRAIN_REASON) == 0);
    assert_true(z->slots == 3 && z->pid == 77 && hp_str_eq_c(z->host, "somehost"));
    assert_int_equal(z->functions.count, 2);
    assert_true(z->tags.count == 1 && hp_str_eq_c(z->tags.items[0], "gpu"));
    msg = (struct hp_msg_worker_list){.has = HP_HAS_WORKER_LIST_NODE, .node = HP_STR("z")};
    assert_true(rig_ask(rig, 1, HP_METHOD_WORKER_LIST, &msg, &reply));
    assert_int_equal(reply.workers.count, 1);
    msg.node = drain.node = HP_STR("q");
    assert_refused(rig_ask(rig, 1, HP_METHOD_WORKER_LIST, &msg, &reply), NOT_FOUND);
    assert_refused(rig_ask(rig, 1, HP_METHOD_WORKER_DRAIN, &drain, NULL), NOT_FOUND);
    /* Resumed: the reason goes, and one given with it counts for nothing. */
    drain.node = HP_STR("z");
    drain.on = false;
    assert_true(rig_ask(rig, 1, HP_METHOD_WORKER_DRAIN, &drain, &drained) && drained.changed);
    msg.node = HP_STR("z");
    assert_true(rig_ask(rig, 1, HP_METHOD_WORKER_LIST, &msg, &reply));
    assert_int_equal(reply.workers.items[0].has & HP_HAS_ST_WORKER_INFO_DRAIN_REASON, 0);
    rig_free(rig);
}

/* All workers are named; of their functions as many as fit. */
static void many_functions_are_cut_to_a_frame(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_msg_worker_list msg = {0};
    struct hp_msg_worker_list_reply reply;
    rig_hello(rig, 1, NULL, NULL);
    for (uint64_t conn = 2; conn <= 3; conn++) {
        rig_hello(rig, conn, NULL, conn == 2 ? "a" : "b");
        register_with(rig, conn, 3000, "t");
    }
    assert_true(rig_ask(rig, 1, HP_METHOD_WORKER_LIST, &msg, &reply));
    assert_int_equal(reply.workers.count, 2);
    assert_int_equal(reply.workers.items[0].functions.count, 3000);
    assert_true(reply.workers.items[1].functions.count < 1000);
    rig_free(rig);
}

/* A worker's entry with all its tags takes 16 KiB; 60 of them do not fit. Workers that left stay
 * listed, so one connection can play all of them. */
static void many_workers_are_cut_to_a_frame(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    char names[64][256];
    struct hp_str tags[64];
    for (int i = 0; i < 64; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "%0250d", i);
        tags[i] = hp_str_of(names[i]);
    }
    rig_hello(rig, 1, NULL, NULL);
    for (int i = 0; i < 70; i++) {
        char node[16];
        (void)snprintf(node, sizeof(node), "w%02d", i);
        rig_hello(rig, 2, NULL, node);
        struct hp_msg_worker_register reg = {.has = HP_HAS_WORKER_REGISTER_TAGS,
                                             .host = HP_STR("somehost"),
                                             .slots = 1,
                                             .tags = {.items = tags, .count = 64}};
        assert_true(rig_ask(rig, 2, HP_METHOD_WORKER_REGISTER, &reg, NULL));
        rig_begin(rig);
        rig_disconnect(rig, 2);
        rig_end(rig);
    }
    struct hp_msg_worker_list msg = {0};
    struct hp_msg_worker_list_reply reply;
    assert_true(rig_ask(rig, 1, HP_METHOD_WORKER_LIST, &msg, &reply));
    assert_true(reply.workers.count > 40 && reply.workers.count < 70);
    assert_true(hp_str_eq_c(reply.workers.items[0].node, "w00"));
    rig_free(rig);
}

/* ------------------------------------------------ the broker */
static uint64_t counter(const struct hp_msg_broker_status_reply *reply, const char *name)
{
    for (uint32_t i = 0; i < reply->counters.count; i++) {
        if (hp_str_eq_c(reply->counters.items[i].name, name)) {
            return reply->counters.items[i].value;
        }
    }
    fail_msg("no counter %s", name);
    return 0;
}

static void the_figures_add_up(void **state)
{
    (void)state;
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.warning = "traffic is not encrypted";
    struct rig *rig = rig_new(&config);
    struct hp_st_task_options options = rig_command();
    struct hp_msg_broker_status msg = {0};
    struct hp_msg_broker_status_reply reply;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 3);
    rig_worker(rig, 3, "gone", 5);
    rig_begin(rig);
    rig_disconnect(rig, 3);
    rig_end(rig);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 10, NULL);
    assert_int_not_equal(rig_assigned(rig, 2, runs, 64), 0);
    rig_done(rig, 2, id, 1, 1, HP_REASON_NONE);
    rig_done(rig, 2, id + 1, 1, 1, HP_REASON_EXIT);
    rig_cancel(rig, 1, id + 9, 1, HP_CANCEL_MODE_QUEUED);
    options = delayed(options, true);
    assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 4, NULL), 0);
    assert_true(rig_ask(rig, 1, HP_METHOD_BROKER_STATUS, &msg, &reply));
    assert_int_equal(counter(&reply, "submitted_total"), 14);
    uint64_t now = counter(&reply, "tasks_ready") + counter(&reply, "tasks_delayed") +
                   counter(&reply, "tasks_assigned");
    uint64_t ended = counter(&reply, "done_total") + counter(&reply, "failed_total") +
                     counter(&reply, "cancelled_total");
    assert_int_equal(now + ended, 14);
    assert_int_equal(ended, 3);
    assert_int_equal(counter(&reply, "tasks_delayed"), 4);
    assert_int_equal(counter(&reply, "workers_online"), 1);
    assert_int_equal(counter(&reply, "slots_online"), 3);
    assert_int_equal(reply.warnings.count, 1);
    assert_true(hp_str_eq_c(reply.warnings.items[0], config.warning));
    assert_false(reply.draining);
    rig_free(rig);
}

/* As a C string, until the next one; empties the buffer. */
static const char *text_of(struct hp_buf *buf)
{
    static char text[4096];
    assert_true(buf->size < sizeof(text));
    memcpy(text, buf->data, buf->size);
    text[buf->size] = '\0';
    hp_buf_clear(buf);
    return text;
}

static void text_for_people(void **state)
{
    (void)state;
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.warning = "no token";
    struct rig *rig = rig_new(&config);
    struct hp_st_task_options options = on_queue(rig_command(), "q1");
    struct hp_msg_worker_drain drain = {
        .has = HP_HAS_WORKER_DRAIN_ON, .node = HP_STR("w"), .on = true};
    struct hp_buf text;
    bool changed = false;
    hp_buf_init(&text, 1 << 20);
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 4);
    assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 3, NULL), 0);
    rig_worker(rig, 3, "v", 1);
    assert_true(rig_ask(rig, 1, HP_METHOD_WORKER_DRAIN, &drain, NULL));
    assert_true(pause_queue(rig, "q2", true, &changed));
    hp_core_text_workers(rig->core, &text);
    assert_string_equal(text_of(&text), "2 workers; v online slots=1 used=0 assigned=0; "
                                        "w online draining slots=4 used=3 assigned=3\n");
    hp_core_text_queues(rig->core, &text);
    assert_string_equal(text_of(&text), "2 queues; q1 ready=0 delayed=0 running=3; "
                                        "q2 paused ready=0 delayed=0 running=0\n");
    hp_core_text_status(rig->core, &text);
    const char *status = text_of(&text);
    assert_non_null(strstr(status, " submitted_total=3 "));
    assert_non_null(strstr(status, " warning=\"no token\"\n"));
    rig_free(rig);
    rig = rig_new(NULL);
    hp_core_text_status(rig->core, &text);
    assert_null(strstr(text_of(&text), "warning"));
    hp_buf_deinit(&text);
    rig_free(rig);
}

/* The store's answer to what was asked last, made by hand. */
static void store_says(struct rig *rig, enum hp_err err, const char *text, uint64_t problems)
{
    assert_true(rig->job_count > 0 && rig->jobs[rig->job_count - 1].load != NULL);
    struct hp_loaded *loaded = hp_loaded_new(rig->jobs[--rig->job_count].load);
    loaded->err = err;
    loaded->text = hp_bin_make(text, strlen(text));
    loaded->figures[0] = 12;
    loaded->figures[1] = problems;
    struct hp_event event = {.kind = HP_EVENT_LOADED, .loaded = loaded};
    rig_begin(rig);
    hp_core_step(rig->core, &event);
    rig_end(rig);
    hp_loaded_free(loaded);
}

static void a_backup_says_how_it_went(void **state)
{
    (void)state;
    static const struct {
        enum hp_err err;
        enum hp_rpc_error_code code;
    } cases[] = {{HP_ERR_EXISTS, HP_RPC_ERROR_BAD_REQUEST},
                 {HP_ERR_INVALID, HP_RPC_ERROR_BAD_REQUEST},
                 {HP_ERR_BUSY, HP_RPC_ERROR_BUSY},
                 {HP_ERR_IO, HP_RPC_ERROR_INTERNAL}};
    struct rig *rig = rig_new(NULL);
    const struct hp_method_info *info = hp_method_info(HP_METHOD_BROKER_BACKUP);
    struct hp_msg_broker_backup msg = {.path = HP_STR("/backup")};
    struct hp_msg_broker_backup_reply reply;
    rig_hello(rig, 1, NULL, NULL);
    for (size_t i = 0; i < HP_COUNT_OF(cases); i++) {
        rig_begin(rig);
        uint32_t msgid = rig_call(rig, 1, HP_METHOD_BROKER_BACKUP, info->params, &msg);
        rig_end(rig);
        store_says(rig, cases[i].err, "its words", 0);
        assert_false(rig_answer(rig, 1, msgid, info->reply, &reply));
        assert_int_equal(refused.code, cases[i].code);
        assert_non_null(strstr(refused.text, "backup: its words"));
    }
    rig_begin(rig);
    uint32_t msgid = rig_call(rig, 1, HP_METHOD_BROKER_BACKUP, info->params, &msg);
    rig_end(rig);
    store_says(rig, HP_OK, "", 4096);
    assert_true(rig_answer(rig, 1, msgid, info->reply, &reply));
    assert_true(reply.tasks == 12 && reply.size == 4096);
    /* Who asked may be gone by then. */
    rig_begin(rig);
    (void)rig_call(rig, 1, HP_METHOD_BROKER_BACKUP, info->params, &msg);
    rig_disconnect(rig, 1);
    rig_end(rig);
    store_says(rig, HP_OK, "", 4096);
    assert_int_equal(rig->out[0].size, 0);
    rig_hello(rig, 1, NULL, NULL);
    static const char *const odd[] = {"", "backup", "./backup"};
    for (size_t i = 0; i < HP_COUNT_OF(odd); i++) {
        msg.path = hp_str_of(odd[i]);
        assert_refused(rig_ask(rig, 1, HP_METHOD_BROKER_BACKUP, &msg, NULL), BAD_REQUEST);
        assert_non_null(strstr(refused.text, "absolute path"));
    }
    rig_free(rig);
}

static void a_check_tells_each_problem(void **state)
{
    (void)state;
    static char many[400 * 10 + 1];
    struct rig *rig = rig_new(NULL);
    const struct hp_method_info *info = hp_method_info(HP_METHOD_BROKER_CHECK);
    struct hp_msg_broker_check msg = {0};
    struct hp_msg_broker_check_reply reply;
    for (int i = 0; i < 400; i++) {
        memcpy(many + (ptrdiff_t)i * 10, "a problem\n", 10);
    }
    const struct {
        const char *text;
        enum hp_err err;
        uint64_t problems;
        bool ok;
        uint32_t lines;
    } cases[] = {{"ok: 12 rows", HP_OK, 0, true, 1},
                 {"ok: 12 rows\n", HP_OK, 0, true, 1},
                 {"page 7: damaged\n\nblob \xff\xfe: missing", HP_OK, 2, false, 2},
                 {"could not be read", HP_ERR_IO, 0, false, 1},
                 {many, HP_OK, 400, false, 256}};
    rig_hello(rig, 1, NULL, NULL);
    for (size_t i = 0; i < HP_COUNT_OF(cases); i++) {
        rig_begin(rig);
        uint32_t msgid = rig_call(rig, 1, HP_METHOD_BROKER_CHECK, info->params, &msg);
        rig_end(rig);
        store_says(rig, cases[i].err, cases[i].text, cases[i].problems);
        assert_true(rig_answer(rig, 1, msgid, info->reply, &reply)); /* its text is UTF-8 */
        assert_int_equal(reply.ok, cases[i].ok);
        assert_int_equal(reply.lines.count, cases[i].lines);
    }
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(queues_are_listed_with_what_is_in_them),
    cmocka_unit_test(a_queue_may_be_paused_before_it_is_used),
    cmocka_unit_test(many_queues_are_cut_to_a_frame),
    cmocka_unit_test(workers_are_listed_with_what_they_do),
    cmocka_unit_test(many_functions_are_cut_to_a_frame),
    cmocka_unit_test(many_workers_are_cut_to_a_frame),
    cmocka_unit_test(the_figures_add_up),
    cmocka_unit_test(text_for_people),
    cmocka_unit_test(a_backup_says_how_it_went),
    cmocka_unit_test(a_check_tells_each_problem),
};

HP_TEST_MAIN(tests)
