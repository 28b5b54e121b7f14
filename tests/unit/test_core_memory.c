/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The broker's core without memory, at every allocation it makes in a script that uses all of it:
 * it stops, as after a failed sync, or it goes on; what it acknowledged is on the disk in both
 * cases, a new core starts from that, and no client was told that its request is bad.
 */
#include "tests/lib/hp_test.h"

#include "server/core/core.h"
#include "server/core/state.h"
#include "tests/lib/mem_sweep.h"

#define hp_core_begin(...) SWEEP(hp_core_begin(__VA_ARGS__))
#define hp_core_step(...) SWEEP(hp_core_step(__VA_ARGS__))
#define hp_core_end(...) SWEEP(hp_core_end(__VA_ARGS__))
#define hp_core_recover(...) SWEEP(hp_core_recover(__VA_ARGS__))

#include "tests/lib/core_rig.h"
#include "tests/unit/core_ask.h"

#define SESSION "client session 1"

static struct rig *rig;
static uint64_t acknowledged[64]; /* first ids of durable submits */
static uint32_t acknowledged_count;

static void open_conn(uint64_t conn, const char *node)
{
    static const uint8_t boot[16] = "boot of a worker";
    struct hp_msg_hello msg = {
        .has = HP_HAS_HELLO_EVENTS, .client = HP_STR("test"), .version = 1, .events = true};
    if (node != NULL) {
        msg.has |= HP_HAS_HELLO_NODE | HP_HAS_HELLO_BOOT;
        msg.node = hp_str_of(node);
        msg.boot = hp_bin_make(boot, sizeof(boot));
    } else {
        msg.has |= HP_HAS_HELLO_SESSION;
        msg.session = hp_bin_make(SESSION, 16);
    }
    rig_begin(rig);
    rig_connect(rig, conn);
    rig_end(rig);
    rig_begin(rig);
    (void)rig_call(rig, conn, HP_METHOD_HELLO, &hp_desc_msg_hello, &msg);
    rig_end(rig);
    rig_settle(rig);
}

/* Reads all that was answered; nobody may hear that his request is bad, for it is not. True: the
 * answer `msgid` is among it and no refusal. */
static bool read_all(uint64_t conn, uint32_t msgid, struct hp_msg_task_submit_reply *ret)
{
    struct hp_rpc rpc;
    struct hp_error error;
    bool found = false;
    rig_settle(rig);
    while (rig_next(rig, conn, &rpc)) {
        if (rpc.type != HP_RPC_RESPONSE) {
            continue;
        }
        assert_true(!rpc.failed || rpc.failure.code != HP_RPC_ERROR_BAD_REQUEST);
        if (rpc.msgid == msgid && !rpc.failed) {
            found = true;
            if (ret != NULL) {
                assert_ok(hp_msg_task_submit_reply_decode(rpc.result, &rig->arena, ret, &error));
            }
        }
    }
    return found;
}

static void ask(uint64_t conn, enum hp_method method, const void *msg)
{
    rig_begin(rig);
    uint32_t msgid = rig_call(rig, conn, method, hp_method_info(method)->params, msg);
    rig_end(rig);
    (void)read_all(conn, msgid, NULL);
}

static uint64_t submit(uint64_t number, const struct hp_st_task_options *options, uint32_t count)
{
    struct hp_bin payloads[4];
    for (uint32_t i = 0; i < 4; i++) {
        payloads[i] = hp_bin_make("payload", 7);
    }
    struct hp_msg_task_submit msg = {.has = HP_HAS_TASK_SUBMIT_PAYLOADS | HP_HAS_TASK_SUBMIT_NUMBER,
                                     .options = *options,
                                     .number = number,
                                     .payloads = {.items = payloads, .count = count}};
    struct hp_msg_task_submit_reply reply = {0};
    rig_begin(rig);
    uint32_t msgid = rig_call(rig, 1, HP_METHOD_TASK_SUBMIT, &hp_desc_msg_task_submit, &msg);
    rig_end(rig);
    if (!read_all(1, msgid, &reply)) {
        return 0;
    }
    if (options->durable) {
        acknowledged[acknowledged_count++] = reply.first;
    }
    return reply.first;
}

static void worker(uint64_t conn, const char *node)
{
    static struct hp_str functions[] = {HP_STR_INIT("f")};
    static struct hp_str languages[] = {HP_STR_INIT("c")};
    static struct hp_str tags[] = {HP_STR_INIT("gpu")};
    struct hp_msg_worker_register msg = {
        .has = HP_HAS_WORKER_REGISTER_FUNCTIONS | HP_HAS_WORKER_REGISTER_LANGUAGES |
               HP_HAS_WORKER_REGISTER_TAGS | HP_HAS_WORKER_REGISTER_COMMANDS,
        .host = HP_STR("host"),
        .slots = 2,
        .commands = true,
        .functions = {.items = functions, .count = 1},
        .languages = {.items = languages, .count = 1},
        .tags = {.items = tags, .count = 1}};
    open_conn(conn, node);
    ask(conn, HP_METHOD_WORKER_REGISTER, &msg);
}

static void done(uint64_t conn, uint64_t id, uint32_t attempt, enum hp_reason reason)
{
    static const uint8_t empty_map[] = {0x80};
    struct hp_st_done_item item = {.has = reason != HP_REASON_NONE ? HP_HAS_ST_DONE_ITEM_REASON : 0,
                                   .id = id,
                                   .attempt = attempt,
                                   .epoch = 1,
                                   .reason = reason,
                                   .end = {.data = empty_map, .size = 1}};
    struct hp_msg_worker_done msg = {.items = {.items = &item, .count = 1}};
    ask(conn, HP_METHOD_WORKER_DONE, &msg);
}

static void look_at(uint64_t id)
{
    struct hp_msg_task_get get = {.has = HP_HAS_TASK_GET_IDS, .ids = {.items = &id, .count = 1}};
    struct hp_msg_task_list list = {.has = HP_HAS_TASK_LIST_LIMIT, .limit = 5};
    struct hp_msg_task_why why = {.id = id};
    struct hp_msg_task_follow follow = {.has = HP_HAS_TASK_FOLLOW_ON, .id = id, .on = true};
    struct hp_msg_queue_list queues = {0};
    struct hp_msg_worker_list workers = {0};
    struct hp_msg_broker_status status = {0};
    struct hp_msg_broker_check check = {0};
    struct hp_msg_broker_backup backup = {.path = HP_STR("/x")};
    ask(1, HP_METHOD_TASK_GET, &get);
    ask(1, HP_METHOD_TASK_LIST, &list);
    ask(1, HP_METHOD_TASK_WHY, &why);
    ask(1, HP_METHOD_TASK_FOLLOW, &follow);
    ask(1, HP_METHOD_QUEUE_LIST, &queues);
    ask(1, HP_METHOD_WORKER_LIST, &workers);
    ask(1, HP_METHOD_BROKER_STATUS, &status);
    ask(1, HP_METHOD_BROKER_CHECK, &check);
    ask(1, HP_METHOD_BROKER_BACKUP, &backup);
}

static void wait_for(uint64_t id, uint64_t timeout_ms)
{
    struct hp_msg_task_wait wait = {.has = HP_HAS_TASK_WAIT_TIMEOUT_MS,
                                    .timeout_ms = timeout_ms,
                                    .ids = {.items = &id, .count = 1}};
    ask(1, HP_METHOD_TASK_WAIT, &wait);
}

static void begin(void)
{
    struct hp_core_config config;
    hp_core_config_init(&config);
    config.token = NULL;
    rig = rig_new(&config);
    acknowledged_count = 0;
    open_conn(1, NULL);
    worker(2, "w2");
}

/* What was acknowledged is there: in the core, if it went on, and in the store. */
static void all_is_there(void)
{
    for (uint32_t i = 0; i < acknowledged_count; i++) {
        assert_int_not_equal(rig_state(rig, 8, acknowledged[i]), HP_TASK_STATE_UNKNOWN);
    }
    hp_core_check(rig->core);
}

static void starts_again(void)
{
    for (int i = 0; i < RIG_CONNS; i++) {
        hp_buf_deinit(&rig->out[i]);
        hp_buf_init(&rig->out[i], 256U << 20);
        rig->closed[i] = false;
    }
    hp_store_mem_crash(rig->store);
    hp_effects_clear(&rig->effects); /* what was on its way is lost, as with the process */
    rig->job_count = 0;
    rig->send_count = 0;
    rig_open(rig);
    rig_hello(rig, 8, NULL, NULL);
    all_is_there();
}

static void end(void)
{
    sweep.left = 0; /* what is asked from here on is the check */
    rig_hello(rig, 8, NULL, NULL);
    all_is_there();
    rig_crash(rig);
    rig_hello(rig, 8, NULL, NULL);
    all_is_there();
    rig_free(rig);
}

/* ------------------------------------------------ scripts */
/* Over a lease; in one step, it would be taken as the broker's own sleep. */
static void pass_lease(void)
{
    for (int i = 0; i < 31; i++) {
        rig_pass(rig, 1000);
    }
}

static void tasks(void)
{
    struct hp_st_task_options options = rig_command();
    begin();
    uint64_t id = submit(1, &options, 3);
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS | HP_HAS_ST_TASK_OPTIONS_EXPIRE_MS;
    options.delay_ms = 2000;
    options.expire_ms = 5000;
    (void)submit(2, &options, 2);
    options = rig_function();
    options.has |= HP_HAS_ST_TASK_OPTIONS_UKEY | HP_HAS_ST_TASK_OPTIONS_CKEY |
                   HP_HAS_ST_TASK_OPTIONS_CKEY_MAX | HP_HAS_ST_TASK_OPTIONS_ON_CONFLICT;
    options.ukey = HP_STR("unique");
    options.ckey = HP_STR("limit");
    options.ckey_max = 1;
    options.on_conflict = HP_ON_CONFLICT_REPLACE;
    (void)submit(3, &options, 1);
    (void)submit(4, &options, 1);
    look_at(id);
    wait_for(id, 100);
    done(2, id, 1, HP_REASON_NONE);
    done(2, id + 1, 1, HP_REASON_EXIT);
    rig_pass(rig, 3000);
    rig_pass(rig, 3000);
    struct hp_st_id_range range = {.has = HP_HAS_ST_ID_RANGE_COUNT, .first = id, .count = 6};
    struct hp_msg_task_cancel cancel = {.has = HP_HAS_TASK_CANCEL_RANGES | HP_HAS_TASK_CANCEL_MODE,
                                        .ranges = {.items = &range, .count = 1},
                                        .mode = HP_CANCEL_MODE_FORCE};
    ask(1, HP_METHOD_TASK_CANCEL, &cancel);
    look_at(id);
    end();
}

static void tasks_in_memory(void)
{
    struct hp_st_task_options options = rig_command();
    begin();
    options.has |= HP_HAS_ST_TASK_OPTIONS_DURABLE | HP_HAS_ST_TASK_OPTIONS_MAX_RETRIES;
    options.durable = false;
    options.max_retries = 1;
    (void)submit(1, &options, 1);
    uint64_t id = submit(2, &options, 4);
    options.has |= HP_HAS_ST_TASK_OPTIONS_DELAY_MS;
    options.delay_ms = 1000;
    (void)submit(3, &options, 2);
    struct hp_msg_blob_open open = {.has = HP_HAS_BLOB_OPEN_DURABLE, .size = 100};
    ask(1, HP_METHOD_BLOB_OPEN, &open);
    look_at(id);
    done(2, id, 1, HP_REASON_NONE);
    done(2, id + 1, 1, HP_REASON_EXIT);
    rig_pass(rig, 2000);
    wait_for(id, 0);
    struct hp_st_id_range range = {.has = HP_HAS_ST_ID_RANGE_COUNT, .first = id, .count = 2};
    struct hp_msg_task_forget forget = {.ranges = {.items = &range, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, 1, TASK_FORGET, task_forget, &forget);
    rig_end(rig);
    end();
}

static void pools(void)
{
    struct hp_st_task_options options = rig_command();
    begin();
    options.kind = HP_TASK_KIND_POOL;
    options.language = HP_STR("c");
    options.processes = 2;
    options.has = HP_HAS_ST_TASK_OPTIONS_KIND | HP_HAS_ST_TASK_OPTIONS_LANGUAGE |
                  HP_HAS_ST_TASK_OPTIONS_PROCESSES;
    uint64_t pool = submit(1, &options, 1);
    struct hp_st_task_options call = rig_command();
    call.kind = HP_TASK_KIND_CALL;
    call.pool = pool;
    call.has = HP_HAS_ST_TASK_OPTIONS_KIND | HP_HAS_ST_TASK_OPTIONS_POOL;
    uint64_t id = pool != 0 ? submit(2, &call, 4) : 0;
    uint64_t pids[] = {100, 101};
    struct hp_st_pool_report report = {
        .has = HP_HAS_ST_POOL_REPORT_PIDS, .pool = pool, .pids = {.items = pids, .count = 2}};
    struct hp_msg_worker_pool_report msg = {.has = HP_HAS_WORKER_POOL_REPORT_POOLS,
                                            .pools = {.items = &report, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, 2, WORKER_POOL_REPORT, worker_pool_report, &msg);
    rig_end(rig);
    struct hp_msg_pool_info info = {.has = HP_HAS_POOL_INFO_WAIT_MS, .pool = pool, .wait_ms = 10};
    struct hp_msg_pool_list list = {0};
    struct hp_msg_pool_end how = {
        .has = HP_HAS_POOL_END_HOW, .pool = pool, .how = HP_POOL_END_TERMINATE};
    ask(1, HP_METHOD_POOL_INFO, &info);
    ask(1, HP_METHOD_POOL_LIST, &list);
    done(2, id, 1, HP_REASON_NONE);
    rig_crash(rig);
    open_conn(1, NULL);
    worker(2, "w2");
    rig_pass(rig, 100);
    ask(1, HP_METHOD_POOL_END, &how);
    rig_pass(rig, 100);
    look_at(pool);
    end();
}

static void losses(void)
{
    struct hp_st_task_options options = rig_command();
    begin();
    uint64_t id = submit(1, &options, 4);
    worker(3, "w3");
    rig_begin(rig);
    rig_disconnect(rig, 2);
    rig_end(rig);
    pass_lease();
    struct hp_msg_worker_drain drain = {
        .has = HP_HAS_WORKER_DRAIN_ON, .node = HP_STR("w3"), .on = true};
    struct hp_msg_queue_pause pause = {
        .has = HP_HAS_QUEUE_PAUSE_PAUSED, .name = HP_STR("default"), .paused = true};
    ask(1, HP_METHOD_WORKER_DRAIN, &drain);
    ask(1, HP_METHOD_QUEUE_PAUSE, &pause);
    rig_crash(rig);
    open_conn(1, NULL);
    worker(2, "w2");
    pause.paused = false;
    ask(1, HP_METHOD_QUEUE_PAUSE, &pause);
    pass_lease();
    pass_lease();
    look_at(id);
    struct hp_event event = {.kind = HP_EVENT_DRAIN};
    rig_begin(rig);
    hp_core_step(rig->core, &event);
    rig_end(rig);
    end();
}

/* ------------------------------------------------ tests */
static void without_memory_for_tasks(void **state)
{
    (void)state;
    assert_true(mem_sweep(tasks, starts_again) > 100);
}

static void without_memory_for_tasks_in_memory(void **state)
{
    (void)state;
    assert_true(mem_sweep(tasks_in_memory, starts_again) > 50);
}

static void without_memory_for_pools(void **state)
{
    (void)state;
    assert_true(mem_sweep(pools, starts_again) > 50);
}

static void without_memory_after_losses(void **state)
{
    (void)state;
    assert_true(mem_sweep(losses, starts_again) > 50);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(without_memory_for_tasks),
    cmocka_unit_test(without_memory_for_tasks_in_memory),
    cmocka_unit_test(without_memory_for_pools),
    cmocka_unit_test(without_memory_after_losses),
};

HP_TEST_MAIN(tests)
