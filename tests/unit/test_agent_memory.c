/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The agent without memory, at every allocation it makes in two scripts that use all of it: it
 * stops (what it has is in the spool, or is run again), or it goes on. Then every end that the
 * executor told it of comes to the broker, nothing is held for ever, and no file is lost.
 */
#include "tests/lib/hp_test.h"

#include "tests/lib/mem_sweep.h"
#include "worker/core/agent.h"

#define hp_agent_spool_loaded(...) SWEEP(hp_agent_spool_loaded(__VA_ARGS__))
#define hp_agent_connected(...) SWEEP(hp_agent_connected(__VA_ARGS__))
#define hp_agent_disconnected(...) SWEEP(hp_agent_disconnected(__VA_ARGS__))
#define hp_agent_received(...) SWEEP(hp_agent_received(__VA_ARGS__))
#define hp_agent_tick(...) SWEEP(hp_agent_tick(__VA_ARGS__))
#define hp_agent_exec(...) SWEEP(hp_agent_exec(__VA_ARGS__))
#define hp_agent_spooled(...) SWEEP(hp_agent_spooled(__VA_ARGS__))
#define hp_agent_drain(...) SWEEP(hp_agent_drain(__VA_ARGS__))

#include "tests/unit/agent_pool_fixture.h"

#include <xxhash.h>

#define LARGE_BYTES 300000u
#define IDS_MAX 128u

static uint8_t large[LARGE_BYTES];
static struct fx fx;
static size_t effects_from;
static uint64_t next_blob;
static bool ended[IDS_MAX];   /* by the executor */
static bool arrived[IDS_MAX]; /* at the broker */
static bool wants_pools;

/* ----------------------------------------------------------------------------------- the broker */

static void order_pools(void)
{
    struct hp_st_pool_order orders[2] = {
        {.has = HP_HAS_ST_POOL_ORDER_OPTIONS | HP_HAS_ST_POOL_ORDER_BLOB,
         .pool = 7,
         .children = 2,
         .options = fxp_options(),
         .blob = 55},
        {.has = HP_HAS_ST_POOL_ORDER_OPTIONS | HP_HAS_ST_POOL_ORDER_PAYLOAD,
         .pool = 8,
         .children = 1,
         .options = fxp_options(),
         .payload = {.data = large, .size = 2000}}};
    struct hp_msg_worker_pool msg = {.has = HP_HAS_WORKER_POOL_COMPLETE | HP_HAS_WORKER_POOL_POOLS,
                                     .complete = true,
                                     .pools = {.items = orders, .count = 2}};
    orders[1].options.fn = HP_STR("setup");
    orders[1].options.has |= HP_HAS_ST_TASK_OPTIONS_FN;
    fx_notify(&fx, HP_METHOD_WORKER_POOL, &hp_desc_msg_worker_pool, &msg);
}

static void take_ends(uint32_t msgid)
{
    struct hp_msg_worker_done done;
    struct hp_msg_worker_done_reply reply = {0};
    assert_ok(hp_msg_worker_done_decode(fx.rpc.params, &fx.arena, &done, NULL));
    for (uint32_t i = 0; i < done.items.count; i++) {
        assert_true(done.items.items[i].id < IDS_MAX);
        arrived[done.items.items[i].id] = true;
    }
    fx_reply(&fx, msgid, &hp_desc_msg_worker_done_reply, &reply);
}

static void give_chunk(uint32_t msgid)
{
    struct hp_msg_blob_get get;
    assert_ok(hp_msg_blob_get_decode(fx.rpc.params, &fx.arena, &get, NULL));
    assert_true(get.offset <= LARGE_BYTES);
    uint64_t size = HP_MIN((uint64_t)get.size, LARGE_BYTES - get.offset);
    struct hp_msg_blob_get_reply reply = {
        .data = {.data = large + get.offset, .size = (uint32_t)size},
        .size = LARGE_BYTES,
        .digest = XXH3_64bits(large, LARGE_BYTES)};
    fx_reply(&fx, msgid, &hp_desc_msg_blob_get_reply, &reply);
}

static void answer_blob(enum hp_method method, uint32_t msgid)
{
    if (method == HP_METHOD_BLOB_OPEN) {
        struct hp_msg_blob_open_reply reply = {.blob = ++next_blob};
        fx_reply(&fx, msgid, &hp_desc_msg_blob_open_reply, &reply);
    } else if (method == HP_METHOD_BLOB_PUT) {
        struct hp_msg_blob_put_reply reply = {.size = 1};
        fx_reply(&fx, msgid, &hp_desc_msg_blob_put_reply, &reply);
    } else if (method == HP_METHOD_BLOB_GET) {
        give_chunk(msgid);
    } else if (method == HP_METHOD_BLOB_GIVE) {
        struct hp_msg_blob_give_reply reply = {.blob = ++next_blob};
        fx_reply(&fx, msgid, &hp_desc_msg_blob_give_reply, &reply);
    } else if (method == HP_METHOD_BLOB_LEND) {
        struct hp_msg_blob_lend_reply reply = {
            .size = LARGE_BYTES, .pid = 1, .fd = 6, .device = 3, .inode = 4};
        fx_reply(&fx, msgid, &hp_desc_msg_blob_lend_reply, &reply);
    }
}

static void answer_hello(uint32_t msgid)
{
    uint8_t near_key[HP_AGENT_NEAR_KEY_BYTES] = {11};
    struct hp_bin key = hp_bin_make(near_key, sizeof(near_key));
    struct hp_msg_hello_reply reply = {.has = HP_HAS_HELLO_REPLY_NEAR_KEY |
                                              HP_HAS_HELLO_REPLY_NEAR_PROOF |
                                              HP_HAS_HELLO_REPLY_NEAR_PID,
                                       .server = HP_STR("broker"),
                                       .version = HP_PROTOCOL_VERSION,
                                       .epoch = 1,
                                       .now_ms = 1,
                                       .near_key = key,
                                       .near_proof = key,
                                       .near_pid = 1};
    fx_reply(&fx, msgid, &hp_desc_msg_hello_reply, &reply);
}

static void answer(void)
{
    enum hp_method method = fx.rpc.method;
    uint32_t msgid = fx.rpc.msgid;
    if (fx.rpc.type != HP_RPC_REQUEST) {
        return;
    }
    if (method == HP_METHOD_HELLO) {
        answer_hello(msgid);
    } else if (method == HP_METHOD_WORKER_REGISTER) {
        struct hp_msg_worker_register_reply reply = {.lease_ms = FX_LEASE_MS,
                                                     .heartbeat_ms = FX_HEARTBEAT_MS};
        fx_reply(&fx, msgid, &hp_desc_msg_worker_register_reply, &reply);
        if (wants_pools) {
            order_pools();
        }
    } else if (method == HP_METHOD_WORKER_HEARTBEAT) {
        struct hp_msg_worker_heartbeat_reply reply = {.lease_ms = FX_LEASE_MS};
        fx_reply(&fx, msgid, &hp_desc_msg_worker_heartbeat_reply, &reply);
    } else if (method == HP_METHOD_WORKER_DONE) {
        take_ends(msgid);
    } else if (method == HP_METHOD_WORKER_RELEASE) {
        struct hp_msg_worker_release_reply reply = {0};
        fx_reply(&fx, msgid, &hp_desc_msg_worker_release_reply, &reply);
    } else {
        answer_blob(method, msgid);
    }
}

/* --------------------------------------------------------------------------------- the executor */

static void end_of(const struct fx_seen *seen)
{
    struct hp_bin out = {.data = large, .size = seen->id % 2 == 0 ? LARGE_BYTES : 10};
    assert_true(seen->id < IDS_MAX);
    ended[seen->id] = true;
    if (seen->kind == HP_AGENT_RUN) {
        fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_STARTED, .key = seen->key});
        fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_OUTPUT,
                                              .key = seen->key,
                                              .out = {.data = large, .size = 5}});
        fx_event(&fx, (struct hp_agent_event){
                          .kind = HP_AGENT_EXEC_ENDED, .key = seen->key, .out = out, .err = out});
        return;
    }
    struct hp_agent_event event = {.kind = HP_AGENT_EXEC_RESULT, .key = seen->key, .out = out};
    if (out.size == LARGE_BYTES && fx.config.near) {
        struct fx_file *file = fx_file_new(&fx, out);
        event.out.data = file->bytes;
        event.file = &file->base;
    }
    fx_event(&fx, event);
}

/* The children of the functions are always up; one of a pool is at once. */
static void child_event(const struct fx_seen *seen)
{
    if (seen->kind == HP_AGENT_CHILD_START) {
        fxp_up(&fx, seen->child);
    } else {
        fxp_recycled(&fx, seen->child);
    }
}

static bool carry_out(void)
{
    bool some = false;
    for (; effects_from < fx.seen_count; effects_from++) {
        struct fx_seen seen = fx.seen[effects_from];
        some = true;
        if (seen.kind == HP_AGENT_CONNECT) {
            hp_buf_clear(&fx.out);
            fx.frame_size = 0;
            hp_agent_connected(fx.agent, fx.now);
        } else if (seen.kind == HP_AGENT_CLOSE) {
            hp_buf_clear(&fx.out);
            fx.frame_size = 0;
        } else if (seen.kind == HP_AGENT_RUN || seen.kind == HP_AGENT_CALL) {
            end_of(&seen);
        } else if (seen.kind == HP_AGENT_CHILD_START || seen.kind == HP_AGENT_CHILD_STOP) {
            child_event(&seen);
        }
    }
    return some;
}

static void serve(uint64_t ms)
{
    for (uint64_t end = fx.now + ms; fx.now <= end; fx.now += 500) {
        hp_agent_tick(fx.agent, fx.now);
        fx_drain(&fx);
        for (bool some = true; some;) {
            some = carry_out();
            while (fx_next(&fx)) {
                answer();
                some = true;
            }
        }
    }
}

/* ---------------------------------------------------------------------------------- the scripts */

static void begin(bool near)
{
    for (uint32_t i = 0; i < LARGE_BYTES; i++) {
        large[i] = (uint8_t)(i * 7 + i / 251);
    }
    effects_from = next_blob = 0;
    wants_pools = false;
    memset(ended, 0, sizeof(ended));
    memset(arrived, 0, sizeof(arrived));
    fx_init(&fx, FXP_SLOTS);
    hp_agent_free(fx.agent);
    fx.config.near = near;
    fx_make_agent(&fx);
}

static void assign(uint64_t first, uint32_t count, const struct hp_st_task_options *options)
{
    struct hp_bin payloads[4];
    for (uint32_t i = 0; i < 4; i++) {
        payloads[i] = hp_bin_make(large, 40000);
    }
    struct hp_st_assign_run run = {.has =
                                       HP_HAS_ST_ASSIGN_RUN_COUNT | HP_HAS_ST_ASSIGN_RUN_PAYLOADS,
                                   .first = first,
                                   .count = count,
                                   .attempt = 1,
                                   .epoch = 1,
                                   .group = first,
                                   .options = *options,
                                   .payloads = {.items = payloads, .count = count}};
    struct hp_msg_worker_assign msg = {.runs = {.items = &run, .count = 1}};
    fx_notify(&fx, HP_METHOD_WORKER_ASSIGN, &hp_desc_msg_worker_assign, &msg);
}

static void script(void)
{
    static struct hp_str env[] = {HP_STR_INIT("A=B")};
    struct hp_st_task_options command = fx_command();
    command.env = (struct hp_list_str){.items = env, .count = 1};
    command.cwd = HP_STR("/tmp");
    command.follow = true;
    command.has |=
        HP_HAS_ST_TASK_OPTIONS_ENV | HP_HAS_ST_TASK_OPTIONS_CWD | HP_HAS_ST_TASK_OPTIONS_FOLLOW;
    struct hp_st_task_options function = fx_function("noop");
    struct hp_st_task_options call = fxp_call(7);
    serve(1000);
    fx_child(&fx, 0, true);
    assign(10, 4, &command);
    assign(20, 3, &function);
    fx_assign_blob(&fx, 30, 900, &function);
    fx_assign_blob(&fx, 31, 901, &command);
    serve(1000);
    wants_pools = true;
    order_pools();
    serve(2000);
    assign(40, 3, &call);
    fx_assign_blob(&fx, 50, 902, &call);
    serve(1000);
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    serve(6000);
    assign(60, 2, &command);
    assign(64, 2, &call);
}

static void finish(void)
{
    sweep.left = 0;
    serve(90000);
    for (uint32_t id = 0; id < IDS_MAX; id++) {
        assert_true(arrived[id] || !ended[id]);
    }
    assert_int_equal(fx_stats(&fx).held, 0);
    hp_agent_drain(fx.agent, 1000, fx.now);
    serve(60000);
    assert_int_equal(fx_count(&fx, HP_AGENT_EXIT), 1);
    fx_deinit(&fx);
    assert_int_equal(fx.files_live, 0);
}

static void by_chunks(void)
{
    begin(false);
    script();
    finish();
}

static void by_descriptor(void)
{
    begin(true);
    script();
    finish();
}

/* A record that an earlier boot left: its end has two large parts. */
static void from_the_spool(void)
{
    uint64_t left = sweep.left;
    struct hp_st_task_options command = fx_command();
    sweep.left = 0;
    begin(false);
    fx_up(&fx);
    fx_assign(&fx, 9, 1, 1, &command);
    hp_agent_disconnected(fx.agent, "reset", fx.now);
    fx_event(&fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED,
                                          .key = fx_key(&fx, 9),
                                          .out = {.data = large, .size = LARGE_BYTES},
                                          .err = {.data = large, .size = LARGE_BYTES}});
    struct hp_bin record = fx_last(&fx, HP_AGENT_SPOOL_APPEND, 0)->record;
    hp_agent_free(fx.agent);
    fx.agent = NULL;
    fx.seen_count = 0;
    fx_make_agent(&fx);
    ended[9] = true;
    sweep.left = left;
    hp_agent_spool_loaded(fx.agent, 1, record);
    serve(1000);
    finish();
}

/* ------------------------------------------------------------------------------------ the tests */

static void without_memory_by_chunks(void **state)
{
    (void)state;
    assert_true(mem_sweep(by_chunks, NULL) > 50);
}

static void without_memory_by_descriptor(void **state)
{
    (void)state;
    assert_true(mem_sweep(by_descriptor, NULL) > 50);
}

static void without_memory_for_the_spool(void **state)
{
    (void)state;
    assert_true(mem_sweep(from_the_spool, NULL) > 10);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(without_memory_by_chunks),
    cmocka_unit_test(without_memory_by_descriptor),
    cmocka_unit_test(without_memory_for_the_spool),
};

HP_TEST_MAIN(tests)
