/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The core on a bench: the store in memory, commits when the test says so, frames in and out by
 * hand.
 * rig_begin .. rig_end is one turn; rig_settle carries out what the store has to do, turn by turn,
 * until nothing is left. Include hp_test.h first. One copy per test program.
 */
#ifndef HP_TESTS_LIB_CORE_RIG_H
#define HP_TESTS_LIB_CORE_RIG_H

#include <string.h>

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "proto/hp_msg.h"
#include "proto/rpc.h"
#include "proto/tokenizer.h"
#include "server/core/core.h"
#include "server/core/state.h"
#include "server/store/store.h"

enum { RIG_CONNS = 8, RIG_JOBS = 4096, RIG_SENDS = 4096, RIG_BLOBS = 64 };

struct rig_send {
    uint64_t conn, after;
    struct hp_buf bytes;
};

/* What the blob thread was asked; a test that wants to know answers by hand, see rig_blob. */
struct rig_blob {
    enum hp_blob_verb verb;
    uint64_t conn, blob, offset, size;
    uint32_t msgid;
    struct hp_blob_gift gift; /* GIVE */
};

struct rig {
    struct hp_core_config config;
    struct hp_core *core;
    struct hp_store *store;
    struct hp_effects effects;
    struct hp_batch *batch;
    struct {
        struct hp_batch *batch;
        struct hp_load *load;
    } jobs[RIG_JOBS];
    uint32_t job_count;
    struct rig_send sends[RIG_SENDS];
    uint32_t send_count;
    struct rig_blob blobs[RIG_BLOBS]; /* the first ones since blob_count was set to 0 */
    uint32_t blob_count;
    struct hp_buf out[RIG_CONNS]; /* of connection i + 1 */
    bool closed[RIG_CONNS];
    uint64_t now_ms, durable, last_number;
    int64_t wall_ms;
    struct hp_wire *wire;
    uint32_t next_msgid;
    struct hp_arena arena; /* of decoded messages, until the next rig_begin */
    uint32_t op_counts[HP_OP_FORGET + 1];
};

#define RIG_UNUSED __attribute__((unused)) static

RIG_UNUSED void rig_recover_one(void *context, const struct hp_record *record)
{
    struct rig *rig = context;
    if (record->kind == HP_RECORD_META) {
        rig->durable = rig->last_number = record->meta.last_batch;
    }
    hp_core_recover(rig->core, record, rig->now_ms, rig->wall_ms);
}

RIG_UNUSED void rig_open(struct rig *rig)
{
    struct hp_error error;
    rig->core = hp_core_new(&rig->config);
    assert_ok(hp_store_recover(rig->store, rig_recover_one, rig, &error));
}

RIG_UNUSED struct rig *rig_new(const struct hp_core_config *config)
{
    struct rig *rig = hp_calloc(1, sizeof(*rig));
    assert_non_null(rig);
    if (config != NULL) {
        rig->config = *config;
    } else {
        hp_core_config_init(&rig->config);
    }
    rig->now_ms = 1000;
    rig->wall_ms = 1700000000000;
    rig->next_msgid = 1;
    rig->store = hp_store_mem_new();
    rig->wire = hp_wire_new();
    hp_effects_init(&rig->effects);
    hp_arena_init(&rig->arena, 4096, 64U << 20);
    for (int i = 0; i < RIG_CONNS; i++) {
        hp_buf_init(&rig->out[i], 256U << 20);
    }
    rig_open(rig);
    return rig;
}

RIG_UNUSED void rig_drop_jobs(struct rig *rig)
{
    for (uint32_t i = 0; i < rig->job_count; i++) {
        hp_batch_free(rig->jobs[i].batch);
        hp_load_free(rig->jobs[i].load);
    }
    for (uint32_t i = 0; i < rig->send_count; i++) {
        hp_buf_deinit(&rig->sends[i].bytes);
    }
    rig->job_count = 0;
    rig->send_count = 0;
}

RIG_UNUSED void rig_free(struct rig *rig)
{
    rig_drop_jobs(rig);
    hp_core_free(rig->core);
    hp_effects_deinit(&rig->effects);
    hp_store_close(rig->store);
    hp_wire_free(rig->wire);
    hp_arena_deinit(&rig->arena);
    for (int i = 0; i < RIG_CONNS; i++) {
        hp_buf_deinit(&rig->out[i]);
    }
    hp_free(rig);
}

/* kill -9 and a new start: what was not applied never was. */
RIG_UNUSED void rig_crash(struct rig *rig)
{
    rig_drop_jobs(rig);
    hp_core_free(rig->core);
    hp_store_mem_crash(rig->store);
    for (int i = 0; i < RIG_CONNS; i++) {
        hp_buf_clear(&rig->out[i]);
        rig->closed[i] = false;
    }
    rig_open(rig);
}

/* ------------------------------------------------ turns */
RIG_UNUSED void rig_begin(struct rig *rig)
{
    rig->batch = hp_batch_new();
    hp_core_begin(rig->core, rig->now_ms, rig->wall_ms, rig->batch, &rig->effects);
}

RIG_UNUSED void rig_release(struct rig *rig)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < rig->send_count; i++) {
        struct rig_send *send = &rig->sends[i];
        if (send->after <= rig->durable) {
            assert_ok(hp_buf_append_buf(&rig->out[send->conn - 1], &send->bytes));
            hp_buf_deinit(&send->bytes);
        } else {
            rig->sends[kept++] = *send;
        }
    }
    rig->send_count = kept;
}

RIG_UNUSED void rig_note_blob(struct rig *rig, const struct hp_effect *effect)
{
    if (rig->blob_count < RIG_BLOBS) {
        struct rig_blob *blob = &rig->blobs[rig->blob_count++];
        *blob = (struct rig_blob){.verb = effect->blob.verb,
                                  .conn = effect->conn,
                                  .blob = effect->blob.blob,
                                  .offset = effect->blob.offset,
                                  .size = effect->blob.size,
                                  .msgid = effect->blob.msgid};
        if (effect->blob.gift != NULL) {
            blob->gift = *effect->blob.gift;
        }
    }
}

RIG_UNUSED void rig_effects(struct rig *rig)
{
    for (uint32_t i = 0; i < rig->effects.count; i++) {
        struct hp_effect *effect = &rig->effects.items[i];
        if (effect->kind == HP_EFFECT_SEND) {
            uint64_t after = effect->send.after_commit;
            after = after < rig->last_number ? after : rig->last_number;
            assert_true(rig->send_count < RIG_SENDS);
            rig->sends[rig->send_count++] =
                (struct rig_send){effect->conn, after, effect->send.bytes};
            effect->send.bytes = (struct hp_buf){0};
        } else if (effect->kind == HP_EFFECT_LOAD) {
            assert_true(rig->job_count < RIG_JOBS);
            rig->jobs[rig->job_count].batch = NULL;
            rig->jobs[rig->job_count++].load = effect->load;
            effect->load = NULL;
        } else if (effect->kind == HP_EFFECT_CLOSE) {
            rig->closed[effect->conn - 1] = true;
        } else if (effect->kind == HP_EFFECT_BLOB) {
            rig_note_blob(rig, effect);
        }
    }
    hp_effects_clear(&rig->effects);
}

RIG_UNUSED void rig_end(struct rig *rig)
{
    hp_core_end(rig->core);
    if (rig->batch->op_count > 0) {
        assert_true(rig->job_count < RIG_JOBS);
        rig->last_number = rig->batch->number;
        for (uint32_t i = 0; i < rig->batch->op_count; i++) {
            rig->op_counts[rig->batch->ops[i].kind]++;
        }
        rig->jobs[rig->job_count].load = NULL;
        rig->jobs[rig->job_count++].batch = rig->batch;
    } else {
        hp_batch_free(rig->batch);
    }
    rig->batch = NULL;
    rig_effects(rig);
    rig_release(rig);
    hp_core_check(rig->core);
}

/* The store does the oldest job it has, and the core hears of it, in a turn of its own. */
RIG_UNUSED bool rig_job(struct rig *rig)
{
    if (rig->job_count == 0) {
        return false;
    }
    struct hp_batch *batch = rig->jobs[0].batch;
    struct hp_load *load = rig->jobs[0].load;
    struct hp_error error;
    rig->job_count--;
    memmove(rig->jobs, rig->jobs + 1, rig->job_count * sizeof(rig->jobs[0]));
    struct hp_loaded *loaded = NULL;
    struct hp_event event = {.kind = HP_EVENT_COMMITTED};
    if (batch != NULL) {
        assert_ok(hp_store_apply(rig->store, &batch, 1, &error));
        rig->durable = event.number = batch->number;
        hp_batch_free(batch);
    } else {
        loaded = hp_loaded_new(load);
        while (!hp_store_load(rig->store, loaded)) {
        }
        event = (struct hp_event){.kind = HP_EVENT_LOADED, .loaded = loaded};
    }
    rig_begin(rig);
    hp_core_step(rig->core, &event);
    rig_end(rig);
    hp_loaded_free(loaded);
    return true;
}

RIG_UNUSED void rig_settle(struct rig *rig)
{
    while (rig_job(rig)) {
    }
}

RIG_UNUSED void rig_pass(struct rig *rig, uint64_t ms)
{
    rig->now_ms += ms;
    rig->wall_ms += (int64_t)ms;
    rig_begin(rig);
    rig_end(rig);
    rig_settle(rig);
}

/* ------------------------------------------------ frames */
RIG_UNUSED void rig_connect(struct rig *rig, uint64_t conn)
{
    struct hp_event event = {.kind = HP_EVENT_CONN_OPENED, .conn = conn};
    event.opened.peer = "test";
    event.opened.loopback = true;
    hp_core_step(rig->core, &event);
}

RIG_UNUSED void rig_disconnect(struct rig *rig, uint64_t conn)
{
    struct hp_event event = {.kind = HP_EVENT_CONN_CLOSED, .conn = conn};
    hp_core_step(rig->core, &event);
    hp_buf_clear(&rig->out[conn - 1]);
}

RIG_UNUSED void rig_frame(struct rig *rig, uint64_t conn, const void *data, size_t size)
{
    struct hp_event event = {
        .kind = HP_EVENT_FRAME, .conn = conn, .frame = hp_bin_make(data, size)};
    hp_core_step(rig->core, &event);
}

/* A call; its message id. Notifications have none, 0. */
RIG_UNUSED uint32_t rig_call(struct rig *rig, uint64_t conn, enum hp_method method,
                             const struct hp_codec_desc *desc, const void *msg)
{
    struct hp_buf buf;
    bool notify = hp_method_info(method)->is_notify;
    uint32_t msgid = notify ? 0 : rig->next_msgid++;
    hp_buf_init(&buf, 64U << 20);
    assert_ok(notify ? hp_rpc_put_notify(&buf, method) : hp_rpc_put_request(&buf, msgid, method));
    assert_ok(hp_codec_encode(desc, &buf, msg, NULL));
    rig_frame(rig, conn, buf.data, buf.size);
    hp_buf_deinit(&buf);
    return msgid;
}

#define RIG_CALL(rig, conn, METHOD, name, msg)                                                     \
    rig_call((rig), (conn), HP_METHOD_##METHOD, &hp_desc_msg_##name, (msg))

/* The next frame that left for a connection; false: none. Valid until the next call. */
RIG_UNUSED bool rig_next(struct rig *rig, uint64_t conn, struct hp_rpc *ret_rpc)
{
    static struct hp_buf frame;
    struct hp_buf *out = &rig->out[conn - 1];
    struct hp_tok tok;
    struct hp_error error;
    size_t size = 0;
    const char *why = NULL;
    if (out->size == 0) {
        return false;
    }
    hp_tok_init(&tok, &hp_tok_limits_open);
    assert_int_equal(hp_tok_scan(&tok, out->data, out->size, &size, &why), HP_TOK_DONE);
    hp_buf_deinit(&frame);
    hp_buf_init(&frame, 64U << 20);
    assert_ok(hp_buf_append(&frame, out->data, size));
    hp_buf_consume(out, size);
    assert_ok(hp_rpc_read(rig->wire, frame.data, frame.size, ret_rpc, &error));
    return true;
}

RIG_UNUSED void rig_hello(struct rig *rig, uint64_t conn, const char *session, const char *node)
{
    struct hp_msg_hello msg = {.client = HP_STR("test"), .version = 1};
    uint8_t boot[16];
    memset(boot, 7, sizeof(boot));
    rig_begin(rig);
    rig_connect(rig, conn);
    if (session != NULL) {
        msg.has |= HP_HAS_HELLO_SESSION | HP_HAS_HELLO_EVENTS;
        msg.session = hp_bin_make(session, 16);
        msg.events = true;
    }
    if (node != NULL) {
        msg.has |= HP_HAS_HELLO_NODE | HP_HAS_HELLO_BOOT;
        msg.node = hp_str_of(node);
        msg.boot = hp_bin_make(boot, 16);
    }
    (void)RIG_CALL(rig, conn, HELLO, hello, &msg);
    rig_end(rig);
    rig_settle(rig);
    struct hp_rpc rpc;
    assert_true(rig_next(rig, conn, &rpc));
    assert_false(rpc.failed);
}

/* Within a turn: a worker with functions f, commands and `slots`, that names `runs` as its own. */
RIG_UNUSED void rig_ask_register(struct rig *rig, uint64_t conn, uint32_t slots,
                                 struct hp_list_run_ref runs)
{
    static struct hp_str functions[] = {HP_STR_INIT("f")};
    struct hp_msg_worker_register msg = {
        .has = HP_HAS_WORKER_REGISTER_FUNCTIONS | HP_HAS_WORKER_REGISTER_COMMANDS |
               HP_HAS_WORKER_REGISTER_RUNS | HP_HAS_WORKER_REGISTER_MEM_BYTES,
        .host = HP_STR("host"),
        .pid = 1,
        .slots = slots,
        .mem_bytes = 1U << 30,
        .functions = {.items = functions, .count = 1},
        .commands = true,
        .runs = runs};
    (void)RIG_CALL(rig, conn, WORKER_REGISTER, worker_register, &msg);
}

RIG_UNUSED void rig_register(struct rig *rig, uint64_t conn, uint32_t slots,
                             struct hp_list_run_ref runs)
{
    rig_begin(rig);
    rig_ask_register(rig, conn, slots, runs);
    rig_end(rig);
    rig_settle(rig);
    struct hp_rpc rpc;
    assert_true(rig_next(rig, conn, &rpc));
    assert_int_equal(rpc.type, HP_RPC_RESPONSE);
    assert_false(rpc.failed);
}

RIG_UNUSED void rig_worker(struct rig *rig, uint64_t conn, const char *node, uint32_t slots)
{
    rig_hello(rig, conn, NULL, node);
    rig_register(rig, conn, slots, (struct hp_list_run_ref){0});
}

RIG_UNUSED struct hp_st_task_options rig_function(void)
{
    struct hp_st_task_options options;
    hp_st_task_options_init(&options);
    options.kind = HP_TASK_KIND_FUNCTION;
    options.fn = HP_STR("f");
    options.has = HP_HAS_ST_TASK_OPTIONS_KIND | HP_HAS_ST_TASK_OPTIONS_FN;
    return options;
}

RIG_UNUSED struct hp_st_task_options rig_command(void)
{
    static struct hp_str argv[] = {HP_STR_INIT("true")};
    struct hp_st_task_options options;
    hp_st_task_options_init(&options);
    options.kind = HP_TASK_KIND_COMMAND;
    options.argv.items = argv;
    options.argv.count = 1;
    options.has = HP_HAS_ST_TASK_OPTIONS_KIND | HP_HAS_ST_TASK_OPTIONS_ARGV;
    return options;
}

/* Within a turn. number 0: none. */
RIG_UNUSED uint32_t rig_submit(struct rig *rig, uint64_t conn, uint64_t number,
                               const struct hp_st_task_options *options, uint32_t count)
{
    struct hp_msg_task_submit msg = {
        .has = HP_HAS_TASK_SUBMIT_COUNT, .options = *options, .count = count};
    if (number != 0) {
        msg.has |= HP_HAS_TASK_SUBMIT_NUMBER;
        msg.number = number;
    }
    return RIG_CALL(rig, conn, TASK_SUBMIT, task_submit, &msg);
}

/* A whole submit; the first id, or 0 if it was refused: *ret_code. */
RIG_UNUSED uint64_t rig_submitted(struct rig *rig, uint64_t conn, uint64_t number,
                                  const struct hp_st_task_options *options, uint32_t count,
                                  enum hp_rpc_error_code *ret_code)
{
    struct hp_rpc rpc;
    struct hp_error error;
    struct hp_msg_task_submit_reply reply;
    rig_begin(rig);
    uint32_t msgid = rig_submit(rig, conn, number, options, count);
    rig_end(rig);
    rig_settle(rig);
    while (rig_next(rig, conn, &rpc)) {
        if (rpc.type != HP_RPC_RESPONSE || rpc.msgid != msgid) {
            continue;
        }
        if (rpc.failed) {
            if (ret_code != NULL) {
                *ret_code = rpc.failure.code;
            }
            return 0;
        }
        assert_ok(hp_msg_task_submit_reply_decode(rpc.result, &rig->arena, &reply, &error));
        assert_int_equal(reply.count, count);
        return reply.first;
    }
    fail_msg("%s", "no reply to a submit");
    return 0;
}

/* The runs of all assignments that left for a worker. */
RIG_UNUSED uint32_t rig_assigned(struct rig *rig, uint64_t conn, struct hp_st_assign_run *ret,
                                 uint32_t max)
{
    struct hp_rpc rpc;
    struct hp_error error;
    uint32_t count = 0;
    while (rig_next(rig, conn, &rpc)) {
        struct hp_msg_worker_assign msg;
        if (rpc.type != HP_RPC_NOTIFY || rpc.method != HP_METHOD_WORKER_ASSIGN) {
            continue;
        }
        assert_ok(hp_msg_worker_assign_decode(rpc.params, &rig->arena, &msg, &error));
        for (uint32_t i = 0; i < msg.runs.count; i++) {
            assert_true(count < max);
            ret[count++] = msg.runs.items[i];
        }
    }
    return count;
}

RIG_UNUSED void rig_done(struct rig *rig, uint64_t conn, uint64_t id, uint32_t attempt,
                         uint64_t epoch, enum hp_reason reason)
{
    static const uint8_t empty_map[] = {0x80};
    struct hp_st_done_item item = {.id = id,
                                   .attempt = attempt,
                                   .epoch = epoch,
                                   .reason = reason,
                                   .end = {.data = empty_map, .size = 1}};
    item.has = reason != HP_REASON_NONE ? HP_HAS_ST_DONE_ITEM_REASON : 0;
    struct hp_msg_worker_done msg = {.items = {.items = &item, .count = 1}};
    rig_begin(rig);
    (void)RIG_CALL(rig, conn, WORKER_DONE, worker_done, &msg);
    rig_end(rig);
    rig_settle(rig);
}

/* The task as the store and the core see it. */
RIG_UNUSED struct hp_st_task_status rig_get(struct rig *rig, uint64_t conn, uint64_t id)
{
    struct hp_rpc rpc;
    struct hp_error error;
    struct hp_msg_task_get_reply reply;
    struct hp_msg_task_get msg = {.has = HP_HAS_TASK_GET_IDS, .ids = {.items = &id, .count = 1}};
    rig_begin(rig);
    uint32_t msgid = RIG_CALL(rig, conn, TASK_GET, task_get, &msg);
    rig_end(rig);
    rig_settle(rig);
    while (rig_next(rig, conn, &rpc)) {
        if (rpc.type == HP_RPC_RESPONSE && rpc.msgid == msgid) {
            assert_false(rpc.failed);
            assert_ok(hp_msg_task_get_reply_decode(rpc.result, &rig->arena, &reply, &error));
            assert_int_equal(reply.tasks.count, 1);
            return reply.tasks.items[0];
        }
    }
    fail_msg("%s", "no reply to task.get");
    return (struct hp_st_task_status){0};
}

RIG_UNUSED enum hp_task_state rig_state(struct rig *rig, uint64_t conn, uint64_t id)
{
    return rig_get(rig, conn, id).state;
}

RIG_UNUSED void rig_cancel(struct rig *rig, uint64_t conn, uint64_t first, uint32_t count,
                           enum hp_cancel_mode mode)
{
    struct hp_st_id_range range = {.has = HP_HAS_ST_ID_RANGE_COUNT, .first = first, .count = count};
    struct hp_msg_task_cancel msg = {.has = HP_HAS_TASK_CANCEL_RANGES | HP_HAS_TASK_CANCEL_MODE,
                                     .ranges = {.items = &range, .count = 1},
                                     .mode = mode};
    rig_begin(rig);
    (void)RIG_CALL(rig, conn, TASK_CANCEL, task_cancel, &msg);
    rig_end(rig);
    rig_settle(rig);
}

#endif
