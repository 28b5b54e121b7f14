/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a task needs of its worker: functions, tags, slots, memory, a language; and the words for
 * it when no worker has it. Lists, with their filters.
 */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"
#include "tests/unit/core_ask.h"
#include "tests/unit/core_pool_fixture.h"

enum { GIB = 1 << 30 };

static struct hp_st_assign_run runs[64];

/* A worker with up to 4 tags, functions and languages, each list ended by NULL. */
struct offer {
    uint32_t slots;
    uint64_t mem_bytes;
    bool no_commands, any_interpreter;
    const char *tags[4], *functions[4], *languages[4];
};

static struct hp_list_str words_of(const char *const *words, struct hp_str *list)
{
    uint32_t count = 0;
    for (; count < 4 && words[count] != NULL; count++) {
        list[count] = hp_str_of(words[count]);
    }
    return (struct hp_list_str){.items = list, .count = count};
}

static void offer(struct rig *rig, uint64_t conn, const char *node, const struct offer *what)
{
    struct hp_str tags[4];
    struct hp_str functions[4];
    struct hp_str languages[4];
    struct hp_msg_worker_register msg = {
        .has = HP_HAS_WORKER_REGISTER_FUNCTIONS | HP_HAS_WORKER_REGISTER_COMMANDS |
               HP_HAS_WORKER_REGISTER_TAGS | HP_HAS_WORKER_REGISTER_MEM_BYTES |
               HP_HAS_WORKER_REGISTER_LANGUAGES | HP_HAS_WORKER_REGISTER_ANY_INTERPRETER,
        .host = HP_STR("host"),
        .slots = what->slots,
        .mem_bytes = what->mem_bytes,
        .commands = !what->no_commands,
        .any_interpreter = what->any_interpreter,
        .tags = words_of(what->tags, tags),
        .functions = words_of(what->functions, functions),
        .languages = words_of(what->languages, languages)};
    rig_hello(rig, conn, NULL, node);
    assert_true(rig_ask(rig, conn, HP_METHOD_WORKER_REGISTER, &msg, NULL));
}

/* All lines of task.why in one. */
static const char *why(struct rig *rig, uint64_t id)
{
    static char text[8192];
    struct hp_msg_task_why msg = {.id = id};
    struct hp_msg_task_why_reply reply;
    size_t used = 0;
    assert_true(rig_ask(rig, 1, HP_METHOD_TASK_WHY, &msg, &reply));
    for (uint32_t i = 0; i < reply.lines.count; i++) {
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%.*s\n",
                                 HP_STR_ARG(reply.lines.items[i]));
    }
    return text;
}

#define assert_why(rig, id, words)                                                                 \
    do {                                                                                           \
        if (strstr(why((rig), (id)), (words)) == NULL) {                                           \
            fail_msg("'%s' is not in: %s", (words), why((rig), (id)));                             \
        }                                                                                          \
    } while (0)

/* The connection of the worker that has the task, 0: none. */
static uint64_t worker_of(const struct rig *rig, uint64_t id)
{
    const struct hp_attempt *attempt = hp_attempt_find(rig->core, id);
    return attempt == NULL ? 0 : attempt->node->conn->id;
}

static struct hp_st_task_options with_tags(struct hp_st_task_options options, struct hp_str *tags,
                                           uint32_t count)
{
    options.has |= HP_HAS_ST_TASK_OPTIONS_TAGS;
    options.tags.items = tags;
    options.tags.count = count;
    return options;
}

/* ------------------------------------------------ tags */
static void all_tags_must_be_there(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_str both[] = {HP_STR("gpu"), HP_STR("big")};
    rig_hello(rig, 1, NULL, NULL);
    offer(rig, 2, "none", &(struct offer){.slots = 4});
    offer(rig, 3, "gpu", &(struct offer){.slots = 4, .tags = {"gpu", "ssd"}});
    struct hp_st_task_options options = with_tags(rig_command(), both, 1);
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    assert_int_equal(worker_of(rig, id), 3);
    options = with_tags(rig_command(), both, 2);
    id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    assert_int_equal(worker_of(rig, id), 0);
    assert_why(rig, id, "gpu lacks a tag it needs");
    assert_why(rig, id, "No connected worker can ever run it (command).");
    offer(rig, 4, "all", &(struct offer){.slots = 4, .tags = {"x", "big", "gpu"}});
    assert_int_equal(worker_of(rig, id), 4);
    rig_free(rig);
}

/* In which order, and how often, tags are named makes no difference: tasks with the same needs
 * wait in one line, so that the first one goes first. */
static void tags_are_a_set(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_str orders[][3] = {{HP_STR("a"), HP_STR("b"), HP_STR("c")},
                                 {HP_STR("c"), HP_STR("b"), HP_STR("a")},
                                 {HP_STR("b"), HP_STR("c"), HP_STR("a")},
                                 {HP_STR("b"), HP_STR("a"), HP_STR("c")}};
    struct hp_str twice[] = {HP_STR("c"), HP_STR("a"), HP_STR("c"), HP_STR("b"), HP_STR("a")};
    rig_hello(rig, 1, NULL, NULL);
    for (size_t i = 0; i < HP_COUNT_OF(orders); i++) {
        struct hp_st_task_options options = with_tags(rig_command(), orders[i], 3);
        assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 1, NULL), 0);
    }
    struct hp_st_task_options options = with_tags(rig_command(), twice, 5);
    uint64_t last = rig_submitted(rig, 1, 0, &options, 1, NULL);
    assert_int_equal(hp_strmap_count(&rig->core->classes), 1);
    assert_why(rig, last, "5 tasks with the same needs wait in queue default");
    offer(rig, 2, "w", &(struct offer){.slots = 5, .tags = {"a", "b", "c"}});
    assert_int_equal(rig_assigned(rig, 2, runs, 64), 5);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(runs[i].first, last - 4 + i);
    }
    rig_free(rig);
}

/* ------------------------------------------------ room */
static void the_reason_of_each_worker_is_told(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_function();
    rig_hello(rig, 1, NULL, NULL);
    uint64_t f = rig_submitted(rig, 1, 0, &options, 1, NULL);
    assert_why(rig, f, "No worker has ever connected");
    options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_CPUS | HP_HAS_ST_TASK_OPTIONS_MEM_BYTES;
    options.cpus = 3;
    options.mem_bytes = GIB;
    uint64_t big = rig_submitted(rig, 1, 0, &options, 1, NULL);
    offer(rig, 2, "small", &(struct offer){.slots = 2, .mem_bytes = GIB, .functions = {"g"}});
    offer(rig, 3, "lean", &(struct offer){.slots = 4, .mem_bytes = GIB - 1});
    offer(rig, 4, "calls", &(struct offer){.slots = 4, .mem_bytes = GIB, .no_commands = true});
    assert_why(rig, f, "small has no function f");
    assert_why(rig, f, "No connected worker can ever run it (function f).");
    assert_why(rig, big, "small has 2 slots, it needs 3");
    assert_why(rig, big, "lean offers less memory than it needs");
    assert_why(rig, big, "calls runs no commands");
    assert_int_equal(worker_of(rig, big), 0);
    offer(rig, 5, "fits", &(struct offer){.slots = 4, .mem_bytes = GIB, .functions = {"f"}});
    assert_int_equal(worker_of(rig, f), 5);
    assert_int_equal(worker_of(rig, big), 5);
    assert_why(rig, big, "Attempt 1 on fits since 0 s (0 failures, 0 losses).");
    /* No room any more, then no worker. */
    uint64_t next = rig_submitted(rig, 1, 0, &options, 1, NULL);
    assert_why(rig, next, "fits fits, 4 of 4 slots are in use");
    struct hp_msg_worker_drain drain = {
        .has = HP_HAS_WORKER_DRAIN_ON, .node = HP_STR("fits"), .on = true};
    assert_true(rig_ask(rig, 1, HP_METHOD_WORKER_DRAIN, &drain, NULL));
    assert_why(rig, next, "fits is drained\n");
    drain.has |= HP_HAS_WORKER_DRAIN_REASON;
    drain.reason = HP_STR("new disk");
    assert_true(rig_ask(rig, 1, HP_METHOD_WORKER_DRAIN, &drain, NULL));
    assert_why(rig, next, "fits is drained: new disk");
    rig_begin(rig);
    rig_disconnect(rig, 5);
    rig_end(rig);
    assert_why(rig, next, "fits is not connected");
    rig_free(rig);
}

static void why_in_each_state(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t first = rig_submitted(rig, 1, 0, &options, 1, NULL);
    options.has |= HP_HAS_ST_TASK_OPTIONS_CKEY | HP_HAS_ST_TASK_OPTIONS_CKEY_MAX |
                   HP_HAS_ST_TASK_OPTIONS_PRIORITY;
    options.priority = 7;
    options.ckey = HP_STR("db");
    options.ckey_max = 1;
    uint64_t keyed = rig_submitted(rig, 1, 0, &options, 2, NULL);
    rig_done(rig, 2, first, 1, 1, HP_REASON_NONE);
    assert_why(rig, first, "is done.");
    assert_why(rig, first, "attempt 1, 0 failures, 0 losses");
    assert_why(rig, keyed + 1, "Concurrency key db: 1 of 1 run now.");
    assert_why(rig, keyed + 1, "in queue default at priority 7.");
    struct hp_msg_queue_pause pause = {.name = HP_STR("default"), .paused = true};
    assert_true(rig_ask(rig, 1, HP_METHOD_QUEUE_PAUSE, &pause, NULL));
    assert_why(rig, keyed + 1, "Queue default is paused. See: hostpool queue resume default");
    options = rig_command();
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    options.delay_ms = 5500;
    uint64_t delayed = rig_submitted(rig, 1, 0, &options, 1, NULL);
    assert_why(rig, delayed, "It waits 6 s more (attempt 0 so far");
    struct hp_msg_task_why msg = {.id = 999999};
    assert_refused(rig_ask(rig, 1, HP_METHOD_TASK_WHY, &msg, NULL), NOT_FOUND);
    /* Who asked is gone before the store answers. */
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, TASK_WHY, task_why, &msg);
    rig_disconnect(rig, 1);
    rig_end(rig);
    rig_settle(rig);
    assert_int_equal(rig->out[0].size, 0);
    rig_free(rig);
}

/* More workers than an answer has lines: it is an answer all the same. */
static void why_is_bounded(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_st_task_options options = rig_function();
    rig_hello(rig, 1, NULL, NULL);
    for (int i = 0; i < 100; i++) {
        char node[16];
        (void)snprintf(node, sizeof(node), "w%d", i);
        offer(rig, 2, node, &(struct offer){.slots = 1});
        rig_begin(rig);
        rig_disconnect(rig, 2);
        rig_end(rig);
    }
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    struct hp_msg_task_why msg = {.id = id};
    struct hp_msg_task_why_reply reply;
    assert_true(rig_ask(rig, 1, HP_METHOD_TASK_WHY, &msg, &reply));
    assert_int_equal(reply.lines.count, 64);
    rig_free(rig);
}

/* ------------------------------------------------ pools */
static uint64_t open_pool(struct rig *rig, const char *language, const char *fn, const char *path,
                          const char *tag)
{
    struct hp_str tags[] = {hp_str_of(tag)};
    struct hp_st_task_options options = pool_options(2);
    struct hp_msg_task_submit_reply reply;
    options.language = hp_str_of(language);
    if (fn != NULL) {
        options.has |= HP_HAS_ST_TASK_OPTIONS_FN;
        options.fn = hp_str_of(fn);
    }
    if (path != NULL) {
        options.has |= HP_HAS_ST_TASK_OPTIONS_INTERPRETER;
        options.interpreter = hp_str_of(path);
    }
    if (tag != NULL) {
        options = with_tags(options, tags, 1);
    }
    struct hp_msg_task_submit msg = {.options = options};
    return rig_ask(rig, 1, HP_METHOD_TASK_SUBMIT, &msg, &reply) ? reply.first : 0;
}

static uint32_t told_of(struct rig *rig, uint64_t conn, uint64_t pool)
{
    struct pool_seen seen = pool_look(rig, conn);
    uint32_t children = 0;
    for (uint32_t i = 0; i < seen.order_count; i++) {
        children = seen.orders[i].pool == pool ? seen.orders[i].children : children;
    }
    return children;
}

static void a_pool_goes_where_its_language_is(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    offer(rig, 2, "any", &(struct offer){.slots = 2, .any_interpreter = true});
    offer(rig, 3, "c", &(struct offer){.slots = 2, .functions = {"mul"}, .languages = {"c"}});
    offer(rig, 4, "py",
          &(struct offer){.slots = 2, .languages = {"c", "python3.11"}, .tags = {"gpu"}});
    const struct {
        const char *language, *fn, *path, *tag;
        uint64_t conn;
    } cases[] = {{"python3.11", NULL, NULL, NULL, 4},
                 {"python3.11", NULL, NULL, "gpu", 4},
                 {"python3.9", NULL, "/opt/python", NULL, 2},
                 {"c", "mul", NULL, NULL, 3},
                 {"c", NULL, NULL, "gpu", 4}};
    for (size_t i = 0; i < HP_COUNT_OF(cases); i++) {
        uint64_t pool = open_pool(rig, cases[i].language, cases[i].fn, cases[i].path, cases[i].tag);
        assert_int_not_equal(pool, 0);
        for (uint64_t conn = 2; conn <= 4; conn++) {
            assert_int_equal(told_of(rig, conn, pool), conn == cases[i].conn ? 2 : 0);
        }
    }
    rig_free(rig);
}

static void a_pool_nobody_can_have_is_refused(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    rig_hello(rig, 1, SESSION, NULL);
    offer(rig, 2, "w",
          &(struct offer){
              .slots = 1, .functions = {"f"}, .languages = {"c", "python3.11"}, .tags = {"ssd"}});
    offer(rig, 3, "v", &(struct offer){.slots = 1});
    assert_int_equal(open_pool(rig, "python2.7", NULL, NULL, NULL), 0);
    assert_int_equal(refused.code, HP_RPC_ERROR_UNSUPPORTED);
    assert_non_null(
        strstr(refused.text, "no worker offers python2.7; workers offer c on w, python3.11 on w"));
    assert_int_equal(open_pool(rig, "c", "g", NULL, NULL), 0);
    assert_non_null(strstr(refused.text, "no worker offers c with function g"));
    assert_int_equal(open_pool(rig, "c", "f", NULL, "gpu"), 0);
    assert_int_equal(refused.code, HP_RPC_ERROR_UNSUPPORTED);
    assert_int_equal(open_pool(rig, "a\nb", NULL, NULL, NULL), 0);
    assert_int_equal(refused.code, HP_RPC_ERROR_BAD_REQUEST);
    /* One that is not here now may come: only what is here counts. */
    rig_begin(rig);
    rig_disconnect(rig, 2);
    rig_disconnect(rig, 3);
    rig_end(rig);
    assert_int_not_equal(open_pool(rig, "python2.7", NULL, NULL, NULL), 0);
    rig_free(rig);
}

/* However many languages there are: the words are cut, the answer is not. */
static void long_offers_are_cut(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    char name[4][200];
    struct offer many = {.slots = 1};
    for (int i = 0; i < 4; i++) {
        (void)snprintf(name[i], sizeof(name[i]), "%d%0180d", i, 0);
        many.languages[i] = name[i];
    }
    rig_hello(rig, 1, SESSION, NULL);
    offer(rig, 2, "w", &many);
    assert_int_equal(open_pool(rig, "c", NULL, NULL, NULL), 0);
    assert_non_null(strstr(refused.text, name[1]));
    assert_null(strstr(refused.text, name[2]));
    rig_free(rig);
    rig = rig_new(NULL); /* none at all */
    rig_hello(rig, 1, SESSION, NULL);
    offer(rig, 2, "w", &(struct offer){.slots = 1});
    assert_int_equal(open_pool(rig, "c", NULL, NULL, NULL), 0);
    assert_null(strstr(refused.text, "workers offer"));
    rig_free(rig);
}

/* ------------------------------------------------ lists */
static uint32_t list(struct rig *rig, const struct hp_msg_task_list *msg,
                     struct hp_msg_task_list_reply *reply)
{
    assert_true(rig_ask(rig, 1, HP_METHOD_TASK_LIST, msg, reply));
    return reply->tasks.count;
}

static void each_filter_counts(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_msg_task_list_reply reply;
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w2", 1);
    rig_worker(rig, 3, "w3", 1);
    for (uint32_t i = 0; i < 8; i++) {
        struct hp_st_task_options options = rig_command();
        options.has |= HP_HAS_ST_TASK_OPTIONS_BATCH | HP_HAS_ST_TASK_OPTIONS_USER |
                       HP_HAS_ST_TASK_OPTIONS_NAME;
        options.batch = (i & 1) != 0 ? HP_STR("odd") : HP_STR("even");
        options.user = (i & 2) != 0 ? HP_STR("ann") : HP_STR("bob");
        options.name = (i & 4) != 0 ? HP_STR("nightly run") : HP_STR("");
        assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 1, NULL), 0);
        rig_pass(rig, 1000);
    }
    struct hp_msg_task_list msg = {.has = HP_HAS_TASK_LIST_LIMIT | HP_HAS_TASK_LIST_BATCH,
                                   .limit = 100,
                                   .batch = HP_STR("odd")};
    assert_int_equal(list(rig, &msg, &reply), 4);
    msg.has |= HP_HAS_TASK_LIST_USER;
    msg.user = HP_STR("ann");
    assert_int_equal(list(rig, &msg, &reply), 2);
    msg.has |= HP_HAS_TASK_LIST_NAME;
    msg.name = HP_STR("run");
    assert_int_equal(list(rig, &msg, &reply), 1);
    msg.name = HP_STR("running"); /* not in it */
    assert_int_equal(list(rig, &msg, &reply), 0);
    msg.name = HP_STR("a name that is longer than all of them");
    assert_int_equal(list(rig, &msg, &reply), 0);
    msg.name = HP_STR(""); /* is in all of them */
    assert_int_equal(list(rig, &msg, &reply), 2);
    msg = (struct hp_msg_task_list){
        .has = HP_HAS_TASK_LIST_LIMIT | HP_HAS_TASK_LIST_NODE, .limit = 100, .node = HP_STR("w3")};
    assert_int_equal(list(rig, &msg, &reply), 1);
    assert_true(hp_str_eq_c(reply.tasks.items[0].node, "w3"));
    msg = (struct hp_msg_task_list){.has = HP_HAS_TASK_LIST_LIMIT | HP_HAS_TASK_LIST_SINCE_MS,
                                    .limit = 100,
                                    .since_ms = rig->wall_ms - 3000};
    assert_int_equal(list(rig, &msg, &reply), 3);
    uint64_t states[] = {HP_TASK_STATE_DONE, HP_TASK_STATE_LEASED};
    msg = (struct hp_msg_task_list){.has = HP_HAS_TASK_LIST_LIMIT | HP_HAS_TASK_LIST_STATES,
                                    .limit = 100,
                                    .states = {.items = states, .count = 2}};
    assert_int_equal(list(rig, &msg, &reply), 2);
    rig_done(rig, 2, reply.tasks.items[1].id, 1, 1, HP_REASON_NONE);
    assert_int_equal(list(rig, &msg, &reply), 3); /* another one has its slot */
    rig_free(rig);
}

/* A page at a time, every task comes once, newest first, also those in memory only; what is asked
 * of a store far behind is answered when it has it. */
static void pages_hold_each_task_once(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_msg_task_list_reply reply;
    struct hp_msg_task_list msg = {.has = HP_HAS_TASK_LIST_LIMIT, .limit = 7};
    rig_hello(rig, 1, NULL, NULL);
    for (uint32_t i = 0; i < 10; i++) {
        struct hp_st_task_options options = rig_command();
        options.has |= HP_HAS_ST_TASK_OPTIONS_DURABLE;
        options.durable = i % 2 == 0;
        assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 6, NULL), 0);
    }
    uint64_t before = UINT64_MAX;
    uint32_t count = 0;
    do {
        uint32_t got = list(rig, &msg, &reply);
        for (uint32_t i = 0; i < got; i++) {
            assert_true(reply.tasks.items[i].id < before);
            before = reply.tasks.items[i].id;
        }
        count += got;
        msg.has |= HP_HAS_TASK_LIST_BEFORE;
        msg.before = reply.next;
    } while ((reply.has & HP_HAS_TASK_LIST_REPLY_NEXT) != 0);
    assert_int_equal(count, 60);
    rig_free(rig);
}

/* The only match is far behind thousands of others: it is found without further questions. */
static void a_rare_match_is_looked_for(void **state)
{
    (void)state;
    struct rig *rig = rig_new(NULL);
    struct hp_msg_task_list_reply reply;
    struct hp_st_task_options options = rig_command();
    rig_hello(rig, 1, NULL, NULL);
    options.has |= HP_HAS_ST_TASK_OPTIONS_USER;
    options.user = HP_STR("ann");
    uint64_t id = rig_submitted(rig, 1, 0, &options, 1, NULL);
    options.user = HP_STR("bob");
    for (int i = 0; i < 5; i++) {
        assert_int_not_equal(rig_submitted(rig, 1, 0, &options, 1000, NULL), 0);
    }
    struct hp_msg_task_list msg = {
        .has = HP_HAS_TASK_LIST_LIMIT | HP_HAS_TASK_LIST_USER, .limit = 10, .user = HP_STR("ann")};
    assert_int_equal(list(rig, &msg, &reply), 1);
    assert_int_equal(reply.tasks.items[0].id, id);
    msg.user = HP_STR("eve");
    assert_int_equal(list(rig, &msg, &reply), 0);
    assert_int_equal(reply.has & HP_HAS_TASK_LIST_REPLY_NEXT, 0);
    /* Who asks for a list and leaves is not answered. */
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, TASK_LIST, task_list, &msg);
    rig_disconnect(rig, 1);
    rig_end(rig);
    rig_settle(rig);
    assert_int_equal(rig->out[0].size, 0);
    rig_free(rig);
}

/* task.get: with options and ends, in frames that are legal, and only what has ended if asked. */
static void gets_are_cut_to_frames(void **state)
{
    (void)state;
    enum { TASKS = 400 };
    struct rig *rig = rig_new(NULL);
    static char big[4000];
    struct hp_st_task_options options = rig_command();
    memset(big, 'n', sizeof(big));
    options.argv.items = (struct hp_str[]){hp_str_make(big, sizeof(big))};
    rig_hello(rig, 1, NULL, NULL);
    rig_worker(rig, 2, "w", 1);
    uint64_t first = rig_submitted(rig, 1, 0, &options, TASKS, NULL);
    rig_done(rig, 2, first, 1, 1, HP_REASON_NONE);
    struct hp_st_id_range range = {.has = HP_HAS_ST_ID_RANGE_COUNT, .first = first, .count = TASKS};
    struct hp_msg_task_get msg = {.has = HP_HAS_TASK_GET_RANGES | HP_HAS_TASK_GET_OPTIONS,
                                  .ranges = {.items = &range, .count = 1},
                                  .options = true};
    struct hp_msg_task_get_reply reply;
    uint32_t count = 0;
    uint32_t frames = 0;
    do {
        assert_true(rig_ask(rig, 1, HP_METHOD_TASK_GET, &msg, &reply));
        assert_true(reply.tasks.count > 0);
        assert_int_equal(reply.tasks.items[0].id, range.first);
        assert_true(reply.tasks.items[0].options.raw.size > 4000 ||
                    (reply.tasks.items[0].has & HP_HAS_ST_TASK_STATUS_OPTIONS) != 0);
        count += reply.tasks.count;
        range.count -= reply.tasks.count;
        range.first = reply.next;
        frames++;
    } while ((reply.has & HP_HAS_TASK_GET_REPLY_NEXT) != 0);
    assert_int_equal(count, TASKS);
    assert_true(frames > 1);
    range =
        (struct hp_st_id_range){.has = HP_HAS_ST_ID_RANGE_COUNT, .first = first, .count = 100000};
    msg = (struct hp_msg_task_get){.has = HP_HAS_TASK_GET_RANGES | HP_HAS_TASK_GET_ENDED_ONLY,
                                   .ranges = {.items = &range, .count = 1},
                                   .ended_only = true};
    assert_true(rig_ask(rig, 1, HP_METHOD_TASK_GET, &msg, &reply));
    assert_true(reply.tasks.count >= 1);
    assert_int_equal(reply.tasks.items[0].id, first);
    for (uint32_t i = 1; i < reply.tasks.count; i++) {
        assert_int_equal(reply.tasks.items[i].state, HP_TASK_STATE_UNKNOWN);
    }
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(all_tags_must_be_there),
    cmocka_unit_test(tags_are_a_set),
    cmocka_unit_test(the_reason_of_each_worker_is_told),
    cmocka_unit_test(why_in_each_state),
    cmocka_unit_test(why_is_bounded),
    cmocka_unit_test(a_pool_goes_where_its_language_is),
    cmocka_unit_test(a_pool_nobody_can_have_is_refused),
    cmocka_unit_test(long_offers_are_cut),
    cmocka_unit_test(each_filter_counts),
    cmocka_unit_test(pages_hold_each_task_once),
    cmocka_unit_test(a_rare_match_is_looked_for),
    cmocka_unit_test(gets_are_cut_to_frames),
};

HP_TEST_MAIN(tests)
