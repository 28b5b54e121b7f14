/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A broker in memory for tests of the client's engine: it keeps sessions, tasks and blobs as the
 * real one does, and can lose replies, drop the line, be busy, forget everything, or say nonsense.
 */
#ifndef HP_TESTS_CLIENT_FAKE_H
#define HP_TESTS_CLIENT_FAKE_H

#include "client/engine_state.h"
#include "tests/lib/hp_test.h"

#include <stdio.h>
#include <xxhash.h>

#define FAKE_TASKS 200000u
#define FAKE_MEMOS 4096u
#define FAKE_BLOB_BYTES (6u << 20)

struct fake_memo {
    uint64_t number;
    uint64_t first;
    uint32_t count;
    enum hp_submit_outcome outcome;
};

struct fake {
    struct hp_engine *engine;
    uint64_t now_ms;
    bool connected;

    /* What it is told to do. */
    bool refuse;              /* connections */
    bool byte_by_byte;        /* hand bytes to the engine one at a time */
    bool mute;                /* answer nothing but hello */
    uint32_t busy_count;      /* answer so many submits with busy */
    uint32_t lose_replies;    /* drop the line instead of answering so many submits */
    const char *submit_error; /* answer submits with this error, counting the number */
    const char *hello_error;
    uint64_t joined_id; /* answer submits with this live task */
    uint32_t page;      /* tasks of one task.get; 0: no limit */
    /* What a test adds to the answer to hello, and calls that it answers itself (true). */
    void (*on_hello)(struct fake *fake, struct hp_msg_hello_reply *reply);
    bool (*on_call)(struct fake *fake, const struct hp_rpc *rpc);
    void *context; /* theirs */

    /* What it holds. */
    uint8_t session[HP_SESSION_BYTES];
    uint64_t last_number;
    uint64_t acked;
    struct fake_memo memos[FAKE_MEMOS];
    uint32_t memo_count;
    uint64_t next_id;
    uint8_t *ended; /* by id: 0 no, else state */
    uint8_t blob[FAKE_BLOB_BYTES];
    size_t blob_size;
    size_t blob_written;
    uint64_t blob_id;

    /* What it saw. */
    uint32_t hello_count;
    uint32_t submit_count;
    uint32_t get_count;
    uint32_t ping_count;
    uint32_t follow_count;
    uint64_t tasks_created;
    uint32_t largest_submit;
    uint64_t last_blob;
    uint32_t wait_msgid; /* a task.wait not answered */
    uint64_t wait_id;

    struct hp_tok tok;
    struct hp_wire *wire;
    struct hp_buf in;
    struct hp_buf out;
    struct hp_arena arena;
};

static inline struct fake *fake_new_near(uint32_t window_submits, uint32_t event_bytes,
                                         const struct hp_near_ops *near)
{
    struct fake *fake = hp_calloc(1, sizeof(*fake));
    struct hp_engine_config config = {.name = "test",
                                      .seed = 7,
                                      .connect_timeout_ms = 5000,
                                      .retry_base_ms = 100,
                                      .retry_cap_ms = 5000,
                                      .window_submits = window_submits,
                                      .window_bytes = 8u << 20,
                                      .event_bytes = event_bytes,
                                      .events = true,
                                      .near = near};

    assert_non_null(fake);
    memset(config.session, 's', sizeof(config.session));
    fake->now_ms = 1000;
    fake->next_id = 1;
    fake->ended = hp_calloc(FAKE_TASKS + 1, 1);
    assert_non_null(fake->ended);
    fake->wire = hp_wire_new();
    hp_buf_init(&fake->in, 64u << 20);
    hp_buf_init(&fake->out, 64u << 20);
    hp_tok_init(&fake->tok, &hp_tok_limits_open);
    hp_arena_init(&fake->arena, 64u << 10, SIZE_MAX / 8);
    fake->engine = hp_engine_new(&config, fake->now_ms);
    assert_non_null(fake->engine);
    return fake;
}

static inline struct fake *fake_new_with(uint32_t window_submits, uint32_t event_bytes)
{
    return fake_new_near(window_submits, event_bytes, NULL);
}

static inline struct fake *fake_new(void)
{
    return fake_new_with(64, 8u << 20);
}

static inline void fake_free(struct fake *fake)
{
    hp_engine_free(fake->engine);
    hp_buf_deinit(&fake->in);
    hp_buf_deinit(&fake->out);
    hp_arena_deinit(&fake->arena);
    hp_wire_free(fake->wire);
    hp_free(fake->ended);
    hp_free(fake);
}

/* The line breaks: what was on it is gone. */
static inline void fake_drop(struct fake *fake)
{
    assert_true(fake->connected);
    fake->connected = false;
    hp_buf_clear(&fake->in);
    hp_buf_clear(&fake->out);
    hp_tok_reset(&fake->tok);
    fake->wait_msgid = 0;
    hp_engine_closed(fake->engine, HP_STATUS_UNREACHABLE, "line dropped", fake->now_ms);
}

static inline void fake_error(struct fake *fake, uint32_t msgid, const char *word)
{
    assert_ok(hp_rpc_put_error(&fake->out, msgid, hp_rpc_error_find(hp_str_of(word)),
                               HP_STR("told so"), true, 50));
}

static inline void fake_status(struct fake *fake, uint64_t id, struct hp_st_task_status *ret)
{
    hp_st_task_status_init(ret);
    ret->id = id;
    ret->state = fake->ended[id] != 0 ? fake->ended[id] : HP_TASK_STATE_READY;
    if (id >= fake->next_id) {
        ret->state = HP_TASK_STATE_UNKNOWN;
    }
    if (fake->ended[id] != 0) {
        char *text = hp_arena_alloc(&fake->arena, 32);

        assert_non_null(text);
        ret->has |= HP_HAS_ST_TASK_STATUS_END | HP_HAS_ST_TASK_STATUS_NODE;
        ret->node = HP_STR("n1");
        hp_st_task_end_init(&ret->end);
        ret->end.result =
            hp_bin_make(text, (size_t)snprintf(text, 32, "r%llu", (unsigned long long)id));
        ret->end.has |= HP_HAS_ST_TASK_END_RESULT;
    }
}

/* Ends tasks; `push` sends the event, as if the session listened. */
static inline void fake_end(struct fake *fake, uint64_t first, uint32_t count,
                            enum hp_task_state state, bool push)
{
    struct hp_msg_task_event event;

    hp_msg_task_event_init(&event);
    event.events.items = HP_ARENA_NEW_ARRAY(&fake->arena, struct hp_st_task_status, count);
    assert_non_null(event.events.items);
    event.events.count = count;
    event.has = HP_HAS_TASK_EVENT_EVENTS;
    for (uint32_t i = 0; i < count; i++) {
        fake->ended[first + i] = (uint8_t)state;
        fake_status(fake, first + i, &event.events.items[i]);
    }
    if (push && fake->connected) {
        assert_ok(hp_rpc_put_notify(&fake->out, HP_METHOD_TASK_EVENT));
        assert_ok(hp_msg_task_event_encode(&fake->out, &event));
    }
}

static inline void fake_lost(struct fake *fake)
{
    struct hp_msg_task_event event;

    hp_msg_task_event_init(&event);
    event.lost = true;
    event.has = HP_HAS_TASK_EVENT_LOST;
    assert_ok(hp_rpc_put_notify(&fake->out, HP_METHOD_TASK_EVENT));
    assert_ok(hp_msg_task_event_encode(&fake->out, &event));
}

static inline void fake_hello(struct fake *fake, const struct hp_rpc *rpc)
{
    struct hp_msg_hello hello;
    struct hp_msg_hello_reply reply;

    assert_ok(hp_msg_hello_decode(rpc->params, &fake->arena, &hello, NULL));
    fake->hello_count++;
    assert_true(hello.error_maps);
    assert_int_equal(hello.session.size, HP_SESSION_BYTES);
    if (fake->hello_error != NULL) {
        fake_error(fake, rpc->msgid, fake->hello_error);
        return;
    }
    if (memcmp(fake->session, hello.session.data, HP_SESSION_BYTES) != 0) {
        memcpy(fake->session, hello.session.data, HP_SESSION_BYTES);
        fake->last_number = 0;
        fake->memo_count = 0;
    }
    hp_msg_hello_reply_init(&reply);
    reply.server = HP_STR("fake 1");
    reply.version = 1;
    reply.epoch = 1;
    reply.last_number = fake->last_number;
    reply.has = HP_HAS_HELLO_REPLY_LAST_NUMBER;
    if (fake->on_hello != NULL) {
        fake->on_hello(fake, &reply);
    }
    assert_ok(hp_rpc_put_reply(&fake->out, rpc->msgid));
    assert_ok(hp_msg_hello_reply_encode(&fake->out, &reply));
}

static inline void fake_submit_reply(struct fake *fake, uint32_t msgid,
                                     const struct fake_memo *memo)
{
    struct hp_msg_task_submit_reply reply;

    hp_msg_task_submit_reply_init(&reply);
    reply.first = memo->first;
    reply.count = memo->count;
    reply.outcome = memo->outcome;
    reply.has = HP_HAS_TASK_SUBMIT_REPLY_OUTCOME;
    assert_ok(hp_rpc_put_reply(&fake->out, msgid));
    assert_ok(hp_msg_task_submit_reply_encode(&fake->out, &reply));
}

static inline const struct fake_memo *fake_memo(const struct fake *fake, uint64_t number)
{
    for (uint32_t i = 0; i < fake->memo_count; i++) {
        if (fake->memos[i].number == number) {
            return &fake->memos[i];
        }
    }
    return NULL;
}

/* False: the line was dropped instead of an answer. */
static inline bool fake_submit(struct fake *fake, const struct hp_rpc *rpc)
{
    struct hp_msg_task_submit submit;
    struct hp_error error = {0};
    const struct fake_memo *seen;
    struct fake_memo memo;

    if (hp_msg_task_submit_decode(rpc->params, &fake->arena, &submit, &error) != HP_OK) {
        fail_msg("%s", error.text);
    }
    fake->submit_count++;
    memo.number = submit.number;
    memo.count = submit.payloads.count > 0 ? submit.payloads.count : submit.count;
    memo.count = memo.count == 0 ? 1 : memo.count;
    memo.outcome = HP_SUBMIT_OUTCOME_CREATED;
    fake->acked = submit.acked_up_to;
    assert_true(submit.acked_up_to < submit.number);
    assert_true(submit.number - submit.acked_up_to <= HP_LIMIT_SESSION_REPLIES);
    seen = fake_memo(fake, submit.number);
    if (seen != NULL) {
        fake_submit_reply(fake, rpc->msgid, seen);
        return true;
    }
    if (submit.number != fake->last_number + 1) {
        fake_error(fake, rpc->msgid, "out_of_order");
        return true;
    }
    if (fake->busy_count > 0) {
        fake->busy_count--;
        fake_error(fake, rpc->msgid, "busy");
        return true;
    }
    fake->last_number = submit.number;
    if (fake->submit_error != NULL) {
        fake_error(fake, rpc->msgid, fake->submit_error);
        return true;
    }
    memo.first = fake->joined_id != 0 ? fake->joined_id : fake->next_id;
    if (fake->joined_id != 0) {
        memo.outcome = HP_SUBMIT_OUTCOME_JOINED;
    } else {
        fake->next_id += memo.count;
        fake->tasks_created += memo.count;
    }
    assert_true(fake->next_id <= FAKE_TASKS && fake->memo_count < FAKE_MEMOS);
    fake->largest_submit = HP_MAX(fake->largest_submit, memo.count);
    fake->last_blob = submit.blobs.count > 0 ? submit.blobs.items[0] : 0;
    fake->memos[fake->memo_count++] = memo;
    if (fake->lose_replies > 0) {
        fake->lose_replies--;
        fake_drop(fake);
        return false;
    }
    fake_submit_reply(fake, rpc->msgid, &memo);
    return true;
}

static inline void fake_get(struct fake *fake, const struct hp_rpc *rpc)
{
    struct hp_msg_task_get get;
    struct hp_msg_task_get_reply reply;

    assert_ok(hp_msg_task_get_decode(rpc->params, &fake->arena, &get, NULL));
    fake->get_count++;
    hp_msg_task_get_reply_init(&reply);
    reply.tasks.items = HP_ARENA_NEW_ARRAY(&fake->arena, struct hp_st_task_status, 50000);
    assert_non_null(reply.tasks.items);
    for (uint32_t i = 0; i < get.ranges.count && reply.next == 0; i++) {
        for (uint32_t j = 0; j < get.ranges.items[i].count; j++) {
            uint64_t id = get.ranges.items[i].first + j;

            if (get.ended_only && fake->ended[id] == 0 && id < fake->next_id) {
                continue;
            }
            if (fake->page != 0 && reply.tasks.count == fake->page) {
                reply.next = id;
                reply.has = HP_HAS_TASK_GET_REPLY_NEXT;
                break;
            }
            fake_status(fake, id, &reply.tasks.items[reply.tasks.count++]);
        }
    }
    assert_ok(hp_rpc_put_reply(&fake->out, rpc->msgid));
    assert_ok(hp_msg_task_get_reply_encode(&fake->out, &reply));
}

static inline void fake_wait_reply(struct fake *fake, bool timed_out)
{
    struct hp_msg_task_wait_reply reply;
    struct hp_st_task_status status;

    hp_msg_task_wait_reply_init(&reply);
    fake_status(fake, fake->wait_id, &status);
    reply.tasks.items = &status;
    reply.tasks.count = 1;
    reply.timed_out = timed_out;
    assert_ok(hp_rpc_put_reply(&fake->out, fake->wait_msgid));
    assert_ok(hp_msg_task_wait_reply_encode(&fake->out, &reply));
    fake->wait_msgid = 0;
}

static inline void fake_blob(struct fake *fake, const struct hp_rpc *rpc)
{
    struct hp_msg_blob_open open;
    struct hp_msg_blob_put put;

    if (rpc->method == HP_METHOD_BLOB_OPEN) {
        struct hp_msg_blob_open_reply reply;

        assert_ok(hp_msg_blob_open_decode(rpc->params, &fake->arena, &open, NULL));
        assert_true(open.size <= FAKE_BLOB_BYTES);
        fake->blob_size = open.size;
        fake->blob_written = 0;
        hp_msg_blob_open_reply_init(&reply);
        reply.blob = ++fake->blob_id;
        assert_ok(hp_rpc_put_reply(&fake->out, rpc->msgid));
        assert_ok(hp_msg_blob_open_reply_encode(&fake->out, &reply));
    } else {
        struct hp_msg_blob_put_reply reply;

        assert_ok(hp_msg_blob_put_decode(rpc->params, &fake->arena, &put, NULL));
        assert_int_equal(put.blob, fake->blob_id);
        assert_int_equal(put.offset, fake->blob_written);
        memcpy(fake->blob + put.offset, put.data.data, put.data.size);
        fake->blob_written += put.data.size;
        if (fake->blob_written == fake->blob_size) {
            assert_true(put.digest == XXH3_64bits(fake->blob, fake->blob_size));
        }
        hp_msg_blob_put_reply_init(&reply);
        reply.size = fake->blob_written;
        assert_ok(hp_rpc_put_reply(&fake->out, rpc->msgid));
        assert_ok(hp_msg_blob_put_reply_encode(&fake->out, &reply));
    }
}

static inline void fake_other(struct fake *fake, const struct hp_rpc *rpc)
{
    struct hp_msg_broker_ping_reply reply;
    struct hp_msg_task_wait wait;

    if (rpc->method == HP_METHOD_TASK_WAIT) {
        assert_ok(hp_msg_task_wait_decode(rpc->params, &fake->arena, &wait, NULL));
        fake->wait_msgid = rpc->msgid;
        fake->wait_id = wait.ids.items[0];
        return;
    }
    if (rpc->method == HP_METHOD_TASK_FOLLOW) {
        struct hp_msg_task_follow_reply followed;

        fake->follow_count++;
        hp_msg_task_follow_reply_init(&followed);
        followed.state = HP_TASK_STATE_RUNNING;
        assert_ok(hp_rpc_put_reply(&fake->out, rpc->msgid));
        assert_ok(hp_msg_task_follow_reply_encode(&fake->out, &followed));
        return;
    }
    assert_int_equal(rpc->method, HP_METHOD_BROKER_PING);
    fake->ping_count++;
    hp_msg_broker_ping_reply_init(&reply);
    reply.now_ms = 1;
    assert_ok(hp_rpc_put_reply(&fake->out, rpc->msgid));
    assert_ok(hp_msg_broker_ping_reply_encode(&fake->out, &reply));
}

/* Handles one frame; false: the line was dropped. */
static inline bool fake_frame(struct fake *fake, size_t size)
{
    struct hp_rpc rpc;

    hp_arena_reset(&fake->arena);
    assert_ok(hp_rpc_read(fake->wire, fake->in.data, size, &rpc, NULL));
    assert_int_equal(rpc.type, HP_RPC_REQUEST);
    if (fake->on_call != NULL && fake->on_call(fake, &rpc)) {
        return true;
    }
    if (rpc.method == HP_METHOD_HELLO) {
        fake_hello(fake, &rpc);
    } else if (fake->mute) {
        return true;
    } else if (rpc.method == HP_METHOD_TASK_SUBMIT) {
        return fake_submit(fake, &rpc);
    } else if (rpc.method == HP_METHOD_TASK_GET) {
        fake_get(fake, &rpc);
    } else if (rpc.method == HP_METHOD_BLOB_OPEN || rpc.method == HP_METHOD_BLOB_PUT) {
        fake_blob(fake, &rpc);
    } else {
        fake_other(fake, &rpc);
    }
    return true;
}

/* Bytes from the engine to the broker; true if there were any. */
static inline bool fake_receive(struct fake *fake)
{
    struct hp_bytes out = hp_engine_output(fake->engine);
    size_t size = 0;
    const char *why = NULL;

    if (out.size == 0) {
        return false;
    }
    assert_ok(hp_buf_append(&fake->in, out.data, out.size));
    hp_engine_sent(fake->engine, out.size);
    while (fake->in.size > 0 &&
           hp_tok_scan(&fake->tok, fake->in.data, fake->in.size, &size, &why) == HP_TOK_DONE) {
        if (!fake_frame(fake, size)) {
            return true;
        }
        hp_buf_consume(&fake->in, size);
        hp_tok_reset(&fake->tok);
    }
    assert_null(why);
    return true;
}

static inline bool fake_send(struct fake *fake)
{
    size_t step = fake->byte_by_byte ? 1 : fake->out.size;

    if (fake->out.size == 0) {
        return false;
    }
    while (fake->connected && fake->out.size > 0) {
        (void)hp_engine_feed(fake->engine, fake->out.data, step, fake->now_ms);
        hp_buf_consume(&fake->out, step);
        if (hp_engine_deadline_ms(fake->engine) == fake->now_ms) {
            break; /* it may want to close */
        }
    }
    return true;
}

/* One turn; false when nothing moved. */
static inline bool fake_turn(struct fake *fake)
{
    enum hp_status status;
    const char *text;
    bool moved = false;

    hp_engine_step(fake->engine, fake->now_ms);
    if (hp_engine_wants_close(fake->engine, &status, &text)) {
        if (fake->connected) {
            fake_drop(fake);
        } else {
            hp_engine_closed(fake->engine, HP_STATUS_UNREACHABLE, "", fake->now_ms);
        }
        moved = true;
    }
    if (hp_engine_wants_connect(fake->engine)) {
        hp_engine_connecting(fake->engine, fake->now_ms);
        if (fake->refuse) {
            hp_engine_closed(fake->engine, HP_STATUS_UNREACHABLE, "refused", fake->now_ms);
        } else {
            fake->connected = true;
            hp_engine_opened(fake->engine, fake->now_ms);
        }
        moved = true;
    }
    moved = fake->connected && fake_receive(fake) ? true : moved;
    return fake_send(fake) || moved;
}

/* Turns until nothing moves; time stands still. */
static inline void fake_settle(struct fake *fake)
{
    for (uint32_t i = 0; fake_turn(fake); i++) {
        assert_true(i < 100000);
    }
}

/* Lets time pass, from deadline to deadline. */
static inline void fake_pass(struct fake *fake, uint64_t duration_ms)
{
    uint64_t until_ms = fake->now_ms + duration_ms;

    fake_settle(fake);
    while (fake->now_ms < until_ms) {
        uint64_t next_ms = hp_engine_deadline_ms(fake->engine);

        fake->now_ms = HP_MIN(until_ms, HP_MAX(next_ms, fake->now_ms + 1));
        fake_settle(fake);
    }
}

/* Submits one function task per payload count; payloads are empty. */
static inline uint64_t fake_submit_tasks(struct fake *fake, uint32_t count, void *user)
{
    struct hp_options options;
    struct hp_engine_submit submit = {.options = &options, .count = count, .user = user};
    uint64_t request = 0;

    hp_options_init(&options);
    options.fn = "noop";
    assert_int_equal(hp_engine_submit(fake->engine, &submit, &request), HP_STATUS_OK);
    return request;
}

/* Takes events; counts those of each kind. */
struct tally {
    uint32_t connected, disconnected, submitted, failed, ended, reply;
    uint64_t submitted_tasks;
    struct hp_event last; /* pointers in it are not to be used */
};

static inline struct tally fake_events(struct fake *fake)
{
    struct tally tally = {0};
    struct hp_event event;

    while (hp_engine_next_event(fake->engine, &event)) {
        tally.connected += event.kind == HP_EVENT_CONNECTED;
        tally.disconnected += event.kind == HP_EVENT_DISCONNECTED;
        tally.submitted += event.kind == HP_EVENT_SUBMITTED;
        tally.submitted_tasks += event.kind == HP_EVENT_SUBMITTED ? event.ids.count : 0;
        tally.failed += event.kind == HP_EVENT_SUBMIT_FAILED;
        tally.ended += event.kind == HP_EVENT_ENDED;
        tally.reply += event.kind == HP_EVENT_REPLY;
        tally.last = event;
    }
    return tally;
}

#endif
