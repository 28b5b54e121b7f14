/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An agent with a scripted broker and executor in memory, for the agent's unit tests. Time is a
 * number that the tests move. Effects are copied into a list that the tests search; what the agent
 * sends is read frame by frame.
 */
#ifndef HP_TESTS_AGENT_FIXTURE_H
#define HP_TESTS_AGENT_FIXTURE_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/rand.h"
#include "proto/hp_msg.h"
#include "proto/rpc.h"
#include "proto/tokenizer.h"
#include "proto/wire.h"
#include "worker/core/agent.h"

#define FX_LEASE_MS 30000u
#define FX_HEARTBEAT_MS 5000u
#define FX_SEEN_MAX 65536u
#define FX_CHILDREN_MAX 8u

/* An effect as remembered: one entry for each call of a CALL. */
struct fx_seen {
    enum hp_agent_effect_kind kind;
    uint64_t key;
    uint64_t id;
    uint32_t child;
    int signal;
    bool on;
    uint64_t deadline_ms;
    uint64_t spool_id;
    struct hp_bin record; /* in fx.keep */
    struct hp_bin payload;
    uint64_t array_index;
    uint64_t pool; /* CHILD_START, POOL_GONE */
    uint64_t calls_max;
    struct hp_agent_file *file; /* of the payload; NEAR_SEAL */
    uint64_t payload_bytes;
    struct hp_agent_place place; /* NEAR_OPEN */
};

#define FX_NEAR_ANSWERS_MAX 64u

/* A file of the fake shell. */
struct fx_file {
    struct hp_agent_file base; /* first */
    struct fx *fx;
    uint8_t *bytes; /* NULL: a payload */
    uint8_t key;    /* first byte of the key that it was sealed with; 0: not sealed */
};

struct fx {
    struct hp_agent *agent;
    struct hp_agent_config config;
    uint64_t now;
    struct fx_seen *seen;
    size_t seen_count;
    size_t connect_from; /* a CONNECT from here on is not answered */
    struct hp_arena keep;
    struct hp_buf out; /* sent by the agent, not yet read */
    struct hp_tok tok;
    struct hp_wire *wire;
    struct hp_arena arena;
    size_t frame_size; /* of the frame read last */
    bool hold_spool;   /* the test answers SPOOL_APPEND */
    bool spool_fails;
    uint64_t spool_last;
    uint8_t near_offer; /* first byte of the key in the answer to hello; 0: none offered */
    bool near_is_far;   /* the proof is not in reach */
    bool open_fails;
    bool open_is_busy;
    bool seal_fails;
    bool hold_near; /* the test hands the answers to NEAR_* effects on */
    struct hp_agent_event near_answers[FX_NEAR_ANSWERS_MAX];
    size_t near_answer_count;
    uint32_t files_live;
    struct hp_rpc rpc; /* the frame read last */
};

static inline void fx_note(struct fx *fx, const struct hp_agent_effect *effect)
{
    uint32_t entries = effect->kind == HP_AGENT_CALL ? effect->call_count : 1;
    for (uint32_t i = 0; i < entries; i++) {
        assert_true(fx->seen_count < FX_SEEN_MAX);
        struct fx_seen *seen = &fx->seen[fx->seen_count++];
        *seen = (struct fx_seen){.kind = effect->kind,
                                 .key = effect->key,
                                 .child = effect->child,
                                 .signal = effect->signal,
                                 .on = effect->on,
                                 .deadline_ms = effect->deadline_ms,
                                 .spool_id = effect->spool_id,
                                 .pool = effect->pool,
                                 .file = effect->file,
                                 .place = effect->place};
        if (effect->kind == HP_AGENT_CALL) {
            seen->key = effect->calls[i].key;
            seen->id = effect->calls[i].id;
            seen->payload = effect->calls[i].payload;
            seen->file = effect->calls[i].payload_file;
            seen->payload_bytes = effect->calls[i].payload_bytes;
            seen->array_index = effect->calls[i].array_index;
        } else if (effect->kind == HP_AGENT_RUN) {
            seen->id = effect->command->id;
            seen->payload = effect->command->stdin_data;
            seen->array_index = effect->command->array_index;
        } else if (effect->kind == HP_AGENT_CHILD_START) {
            seen->pool = effect->start->pool;
            seen->payload = effect->start->payload;
            seen->file = effect->start->payload_file;
            seen->payload_bytes = effect->start->payload_bytes;
            seen->calls_max = effect->start->calls_max;
        } else if (effect->kind == HP_AGENT_SPOOL_APPEND) {
            assert_int_equal(hp_arena_copy_bin(&fx->keep, effect->record, &seen->record), HP_OK);
        }
    }
}

static inline void fx_file_free(struct hp_agent_file *base)
{
    struct fx_file *file = HP_CONTAINER_OF(base, struct fx_file, base);
    assert_true(file->fx->files_live > 0);
    file->fx->files_live--;
    hp_free(file->bytes);
    hp_free(file);
}

/* With a copy of the bytes, if there are any. */
static inline struct fx_file *fx_file_new(struct fx *fx, struct hp_bin bytes)
{
    struct fx_file *file = hp_calloc(1, sizeof(*file));
    assert_non_null(file);
    *file = (struct fx_file){.base = {.free = fx_file_free}, .fx = fx};
    if (bytes.size > 0) {
        file->bytes = hp_memdup(bytes.data, bytes.size);
        assert_non_null(file->bytes);
    }
    fx->files_live++;
    return file;
}

/* Answers a NEAR_* effect as a shell does; given to the agent behind the other effects. */
static inline void fx_near(struct fx *fx, const struct hp_agent_effect *effect)
{
    struct hp_agent_event answer = {
        .key = effect->key, .pool = effect->pool, .ticket = effect->ticket};
    if (effect->kind == HP_AGENT_NEAR_PROVE) {
        answer.kind = HP_AGENT_NEAR_PROVED;
        answer.on = !fx->near_is_far;
    } else if (effect->kind == HP_AGENT_NEAR_OPEN) {
        answer.kind = HP_AGENT_NEAR_OPENED;
        answer.on = fx->open_is_busy;
        if (!fx->open_is_busy && !fx->open_fails) {
            answer.file = &fx_file_new(fx, (struct hp_bin){0})->base;
        }
    } else if (effect->kind == HP_AGENT_NEAR_SEAL) {
        struct fx_file *file = HP_CONTAINER_OF(effect->file, struct fx_file, base);
        file->key = effect->near_key[0];
        answer.kind = HP_AGENT_NEAR_SEALED;
        answer.on = !fx->seal_fails;
        answer.place = (struct hp_agent_place){.pid = 42, .fd = 7, .device = 1, .inode = file->key};
    } else {
        return;
    }
    assert_true(fx->near_answer_count < FX_NEAR_ANSWERS_MAX);
    fx->near_answers[fx->near_answer_count++] = answer;
}

static inline void fx_near_answer(struct fx *fx)
{
    size_t count = fx->near_answer_count;
    fx->near_answer_count = 0;
    if (count > 0) {
        hp_agent_exec(fx->agent, fx->near_answers, count, fx->now);
    }
}

/* Takes effects and output until there are none; answers the spool and what is near unless told
 * not to. */
static inline void fx_drain(struct fx *fx)
{
    while (hp_agent_effect_count(fx->agent) > 0) {
        uint64_t spooled = 0;
        size_t count = hp_agent_effect_count(fx->agent);
        for (size_t i = 0; i < count; i++) {
            const struct hp_agent_effect *effect = hp_agent_effect(fx->agent, i);
            fx_note(fx, effect);
            fx_near(fx, effect);
            spooled = effect->kind == HP_AGENT_SPOOL_APPEND ? effect->spool_id : spooled;
        }
        hp_agent_effects_clear(fx->agent);
        if (spooled != 0) {
            fx->spool_last = spooled;
            if (!fx->hold_spool) {
                hp_agent_spooled(fx->agent, spooled, !fx->spool_fails, fx->now);
            }
        }
        if (!fx->hold_near) {
            fx_near_answer(fx);
        }
    }
    struct hp_bin bytes = hp_agent_output(fx->agent);
    assert_int_equal(hp_buf_append(&fx->out, bytes.data, bytes.size), HP_OK);
    hp_agent_output_consume(fx->agent, bytes.size);
    hp_agent_check(fx->agent);
}

static inline void fx_make_agent(struct fx *fx)
{
    struct hp_error error = {0};
    assert_int_equal(hp_agent_new(&fx->config, fx->now, &fx->agent, &error), HP_OK);
}

static inline void fx_init(struct fx *fx, uint32_t slots)
{
    static const struct hp_str functions[] = {HP_STR_INIT("noop"), HP_STR_INIT("slow")};
    static const struct hp_str tags[] = {HP_STR_INIT("gpu")};
    static const struct hp_str languages[] = {HP_STR_INIT("c"), HP_STR_INIT("python3.11")};
    *fx = (struct fx){.now = 1000};
    fx->config = (struct hp_agent_config){
        .client = HP_STR("test"),
        .node = HP_STR("n1"),
        .host = HP_STR("host"),
        .boot = {1, 2, 3},
        .pid = 42,
        .slots = slots,
        .prefetch_max = 1000,
        .tags = tags,
        .tag_count = 1,
        .functions = functions,
        .function_count = 2,
        .commands = true,
        .seed = 7,
        .languages = languages,
        .language_count = 2,
        .children_max = FX_CHILDREN_MAX,
    };
    fx->seen = hp_calloc(FX_SEEN_MAX, sizeof(*fx->seen));
    fx->wire = hp_wire_new();
    hp_buf_init(&fx->out, 64 << 20);
    hp_arena_init(&fx->arena, 65536, 64 << 20);
    hp_arena_init(&fx->keep, 65536, 256 << 20);
    hp_tok_init(&fx->tok, &hp_tok_limits_open);
    fx_make_agent(fx);
}

static inline void fx_deinit(struct fx *fx)
{
    hp_agent_free(fx->agent);
    hp_free(fx->seen);
    hp_wire_free(fx->wire);
    hp_buf_deinit(&fx->out);
    hp_arena_deinit(&fx->arena);
    hp_arena_deinit(&fx->keep);
}

static inline void fx_tick(struct fx *fx, uint64_t ms)
{
    fx->now += ms;
    hp_agent_tick(fx->agent, fx->now);
    fx_drain(fx);
}

/* Moves time to the agent's own deadlines until `ms` are over, as a shell would. */
static inline void fx_pass(struct fx *fx, uint64_t ms)
{
    uint64_t end = fx->now + ms;
    while (hp_agent_next_deadline_ms(fx->agent) <= end) {
        uint64_t at = hp_agent_next_deadline_ms(fx->agent);
        fx_tick(fx, at > fx->now ? at - fx->now : 0);
        if (at <= fx->now && hp_agent_next_deadline_ms(fx->agent) <= fx->now) {
            fx->now++; /* a deadline that stays must not stop the test for ever */
        }
    }
    fx->now = end > fx->now ? end : fx->now;
    fx_tick(fx, 0);
}

/* ------------------------------------------------------------------------------------- the broker
 */

/* Reads the next frame the agent sent into fx->rpc. False: there is none. */
static inline bool fx_next(struct fx *fx)
{
    fx_drain(fx);
    hp_buf_consume(&fx->out, fx->frame_size);
    fx->frame_size = 0;
    size_t size = 0;
    const char *why = NULL;
    hp_tok_reset(&fx->tok);
    if (hp_tok_scan(&fx->tok, fx->out.data, fx->out.size, &size, &why) != HP_TOK_DONE) {
        assert_int_equal(fx->out.size, 0);
        return false;
    }
    struct hp_error error = {0};
    hp_arena_reset(&fx->arena);
    assert_int_equal(hp_rpc_read(fx->wire, fx->out.data, size, &fx->rpc, &error), HP_OK);
    fx->frame_size = size;
    return true;
}

/* The next frame must be of this method. Returns its msgid (0 for a notification). */
static inline uint32_t fx_expect(struct fx *fx, enum hp_method method)
{
    assert_true(fx_next(fx));
    assert_int_equal(fx->rpc.method, method);
    return fx->rpc.msgid;
}

/* Reads on to a frame of this method; others are dropped. */
static inline uint32_t fx_find(struct fx *fx, enum hp_method method)
{
    do {
        assert_true(fx_next(fx));
    } while (fx->rpc.method != method);
    return fx->rpc.msgid;
}

static inline void fx_give(struct fx *fx, const struct hp_buf *frame)
{
    hp_agent_received(fx->agent, frame->data, frame->size, fx->now);
}

static inline void fx_reply(struct fx *fx, uint32_t msgid, const struct hp_codec_desc *desc,
                            const void *msg)
{
    struct hp_buf frame;
    hp_buf_init(&frame, 1 << 20);
    assert_int_equal(hp_rpc_put_reply(&frame, msgid), HP_OK);
    assert_int_equal(hp_codec_encode(desc, &frame, msg, NULL), HP_OK);
    fx_give(fx, &frame);
    hp_buf_deinit(&frame);
    fx_drain(fx);
}

static inline void fx_refuse(struct fx *fx, uint32_t msgid, enum hp_rpc_error_code code)
{
    struct hp_buf frame;
    hp_buf_init(&frame, 1 << 20);
    assert_int_equal(hp_rpc_put_error(&frame, msgid, code, HP_STR("no"), true, 0), HP_OK);
    fx_give(fx, &frame);
    hp_buf_deinit(&frame);
    fx_drain(fx);
}

static inline void fx_notify(struct fx *fx, enum hp_method method, const struct hp_codec_desc *desc,
                             const void *msg)
{
    struct hp_buf frame;
    hp_buf_init(&frame, 1 << 20);
    assert_int_equal(hp_rpc_put_notify(&frame, method), HP_OK);
    assert_int_equal(hp_codec_encode(desc, &frame, msg, NULL), HP_OK);
    fx_give(fx, &frame);
    hp_buf_deinit(&frame);
    fx_drain(fx);
}

/* Lets time pass until the agent connects, and says that it stands. */
static inline void fx_connect(struct fx *fx)
{
    fx_drain(fx);
    for (int i = 0; i < 200; i++) {
        for (size_t k = fx->connect_from; k < fx->seen_count; k++) {
            if (fx->seen[k].kind == HP_AGENT_CONNECT) {
                hp_buf_clear(&fx->out);
                fx->frame_size = 0;
                fx->connect_from = fx->seen_count;
                hp_agent_connected(fx->agent, fx->now);
                fx_drain(fx);
                return;
            }
        }
        fx_pass(fx, 100);
    }
    fail_msg("the agent does not connect");
}

static inline void fx_answer_hello(struct fx *fx, uint64_t epoch)
{
    uint32_t msgid = fx_expect(fx, HP_METHOD_HELLO);
    struct hp_msg_hello_reply reply = {
        .server = HP_STR("broker"), .version = HP_PROTOCOL_VERSION, .epoch = epoch, .now_ms = 1};
    uint8_t near_key[HP_AGENT_NEAR_KEY_BYTES] = {fx->near_offer};
    if (fx->near_offer != 0) {
        reply.near_key = reply.near_proof = hp_bin_make(near_key, sizeof(near_key));
        reply.near_pid = 1;
        reply.near_fd = 5;
        reply.has = HP_HAS_HELLO_REPLY_NEAR_KEY | HP_HAS_HELLO_REPLY_NEAR_PROOF |
                    HP_HAS_HELLO_REPLY_NEAR_PID | HP_HAS_HELLO_REPLY_NEAR_FD;
    }
    fx_reply(fx, msgid, &hp_desc_msg_hello_reply, &reply);
}

/* Answers worker.register, which must be the next frame. */
static inline void fx_answer_register(struct fx *fx)
{
    uint32_t msgid = fx_expect(fx, HP_METHOD_WORKER_REGISTER);
    struct hp_msg_worker_register_reply reply = {.lease_ms = FX_LEASE_MS,
                                                 .heartbeat_ms = FX_HEARTBEAT_MS};
    fx_reply(fx, msgid, &hp_desc_msg_worker_register_reply, &reply);
}

static inline void fx_up(struct fx *fx)
{
    fx_connect(fx);
    fx_answer_hello(fx, 1);
    fx_answer_register(fx);
}

/* Moves to the next heartbeat and answers it with `reply`, whose lease is filled in. */
static inline void fx_heartbeat(struct fx *fx, struct hp_msg_worker_heartbeat_reply *reply)
{
    fx_pass(fx, FX_HEARTBEAT_MS);
    uint32_t msgid = fx_find(fx, HP_METHOD_WORKER_HEARTBEAT);
    reply->lease_ms = FX_LEASE_MS;
    fx_reply(fx, msgid, &hp_desc_msg_worker_heartbeat_reply, reply);
}

/* Options of tasks for fx_assign. */
static inline struct hp_st_task_options fx_function(const char *name)
{
    struct hp_st_task_options options;
    hp_st_task_options_init(&options);
    options.kind = HP_TASK_KIND_FUNCTION;
    options.fn = hp_str_of(name);
    options.has = HP_HAS_ST_TASK_OPTIONS_KIND | HP_HAS_ST_TASK_OPTIONS_FN;
    return options;
}

static inline struct hp_st_task_options fx_command(void)
{
    static struct hp_str argv[] = {HP_STR_INIT("true")};
    struct hp_st_task_options options;
    hp_st_task_options_init(&options);
    options.kind = HP_TASK_KIND_COMMAND;
    options.argv = (struct hp_list_str){.items = argv, .count = 1};
    options.has = HP_HAS_ST_TASK_OPTIONS_KIND | HP_HAS_ST_TASK_OPTIONS_ARGV;
    return options;
}

static inline void fx_assign(struct fx *fx, uint64_t first, uint32_t count, uint32_t attempt,
                             const struct hp_st_task_options *options)
{
    struct hp_st_assign_run run = {.has = HP_HAS_ST_ASSIGN_RUN_COUNT,
                                   .first = first,
                                   .count = count,
                                   .attempt = attempt,
                                   .epoch = 1,
                                   .group = first,
                                   .options = *options};
    struct hp_msg_worker_assign msg = {.runs = {.items = &run, .count = 1}};
    fx_notify(fx, HP_METHOD_WORKER_ASSIGN, &hp_desc_msg_worker_assign, &msg);
}

static inline void fx_assign_blob(struct fx *fx, uint64_t id, uint64_t blob,
                                  const struct hp_st_task_options *options)
{
    struct hp_st_assign_run run = {.has = HP_HAS_ST_ASSIGN_RUN_BLOBS,
                                   .first = id,
                                   .count = 1,
                                   .attempt = 1,
                                   .epoch = 1,
                                   .group = id,
                                   .options = *options,
                                   .blobs = {.items = &blob, .count = 1}};
    struct hp_msg_worker_assign msg = {.runs = {.items = &run, .count = 1}};
    fx_notify(fx, HP_METHOD_WORKER_ASSIGN, &hp_desc_msg_worker_assign, &msg);
}

static inline struct hp_st_run_ref fx_ref(uint64_t id, uint32_t attempt)
{
    return (struct hp_st_run_ref){.id = id, .attempt = attempt, .epoch = 1};
}

/* ------------------------------------------------------------------------------------ the executor
 */

/* The newest effect of a kind (for a task, if id is not 0), or NULL. */
static inline struct fx_seen *fx_last(struct fx *fx, enum hp_agent_effect_kind kind, uint64_t id)
{
    for (size_t i = fx->seen_count; i > 0; i--) {
        struct fx_seen *seen = &fx->seen[i - 1];
        if (seen->kind == kind && (id == 0 || seen->id == id)) {
            return seen;
        }
    }
    return NULL;
}

static inline uint32_t fx_count(const struct fx *fx, enum hp_agent_effect_kind kind)
{
    uint32_t count = 0;
    for (size_t i = 0; i < fx->seen_count; i++) {
        count += fx->seen[i].kind == kind;
    }
    return count;
}

/* Key of the task as it was given to the executor last. */
static inline uint64_t fx_key(struct fx *fx, uint64_t id)
{
    for (size_t i = fx->seen_count; i > 0; i--) {
        const struct fx_seen *seen = &fx->seen[i - 1];
        if ((seen->kind == HP_AGENT_RUN || seen->kind == HP_AGENT_CALL) && seen->id == id) {
            return seen->key;
        }
    }
    return 0;
}

static inline void fx_event(struct fx *fx, struct hp_agent_event event)
{
    hp_agent_exec(fx->agent, &event, 1, fx->now);
    fx_drain(fx);
}

static inline void fx_child(struct fx *fx, uint32_t child, bool up)
{
    fx_event(fx,
             (struct hp_agent_event){.kind = up ? HP_AGENT_EXEC_CHILD_UP : HP_AGENT_EXEC_CHILD_DOWN,
                                     .child = child});
}

static inline void fx_started(struct fx *fx, uint64_t id)
{
    fx_event(fx, (struct hp_agent_event){
                     .kind = HP_AGENT_EXEC_STARTED, .key = fx_key(fx, id), .pid = 99});
}

static inline void fx_exited(struct fx *fx, uint64_t id, int code, uint32_t signal_number)
{
    fx_event(fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_ENDED,
                                         .key = fx_key(fx, id),
                                         .exit_code = code,
                                         .signal = signal_number,
                                         .run_us = 10});
}

static inline void fx_result(struct fx *fx, uint64_t id, uint64_t run_us)
{
    fx_event(fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_RESULT,
                                         .key = fx_key(fx, id),
                                         .outcome = HP_AGENT_OUTCOME_OK,
                                         .out = {.data = (const uint8_t *)"ok", .size = 2},
                                         .run_us = run_us});
}

static inline void fx_handed_back(struct fx *fx, uint64_t id)
{
    fx_event(fx, (struct hp_agent_event){.kind = HP_AGENT_EXEC_HANDED_BACK, .key = fx_key(fx, id)});
}

/* Expects worker.done next; *ret is valid until the next frame is read. Returns its msgid. */
static inline uint32_t fx_expect_done(struct fx *fx, struct hp_msg_worker_done *ret)
{
    uint32_t msgid = fx_find(fx, HP_METHOD_WORKER_DONE);
    struct hp_error error = {0};
    assert_int_equal(hp_msg_worker_done_decode(fx->rpc.params, &fx->arena, ret, &error), HP_OK);
    return msgid;
}

/* Expects the end of one task with this reason, and acknowledges it. */
static inline void fx_expect_end(struct fx *fx, uint64_t id, enum hp_reason reason)
{
    struct hp_msg_worker_done done;
    uint32_t msgid = fx_expect_done(fx, &done);
    assert_int_equal(done.items.count, 1);
    assert_int_equal(done.items.items[0].id, id);
    assert_int_equal(done.items.items[0].reason, reason);
    struct hp_msg_worker_done_reply reply = {0};
    fx_reply(fx, msgid, &hp_desc_msg_worker_done_reply, &reply);
}

static inline struct hp_agent_stats fx_stats(const struct fx *fx)
{
    struct hp_agent_stats stats;
    hp_agent_get_stats(fx->agent, &stats);
    return stats;
}

/* A reply whose only field is a float: no field is one. */
static inline void fx_reply_odd(struct fx *fx, uint32_t msgid, const char *field)
{
    static const uint8_t one_and_a_half[] = {0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0};
    struct hp_buf frame;
    hp_buf_init(&frame, 4096);
    assert_int_equal(hp_rpc_put_reply(&frame, msgid), HP_OK);
    assert_int_equal(hp_wire_put_map(&frame, 1), HP_OK);
    assert_int_equal(hp_wire_put_cstr(&frame, field), HP_OK);
    assert_int_equal(hp_wire_put_raw(&frame, hp_bin_make(one_and_a_half, sizeof(one_and_a_half))),
                     HP_OK);
    fx_give(fx, &frame);
    hp_buf_deinit(&frame);
    fx_drain(fx);
}

#endif
