/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The turn over a store thread and a blob thread that the test plays itself: it decides when
 * something is durable, and looks at what a peer has got by then. Include hp_test.h first.
 */
#ifndef HP_TESTS_UNIT_SERVER_TURN_FIXTURE_H
#define HP_TESTS_UNIT_SERVER_TURN_FIXTURE_H

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/rpc.h"
#include "server/core/state.h"
#include "server/turn.h"

/* ------------------------------------------------------------------------ the threads, played */

struct hp_store_thread {
    struct hp_store *store; /* in memory */
    struct hp_turn *turn;
    struct hp_batch *waiting[64]; /* handed over, not durable */
    uint32_t waiting_count;
    uint32_t put_count;
    uint32_t call_count;   /* of hp_store_thread_put */
    struct hp_load *loads; /* wait for the batches before them */
    struct hp_store_done done;
};

struct hp_blobs {
    int unused;
};

static struct hp_store_thread played;

void hp_store_thread_put(struct hp_store_thread *thread, struct hp_batch *batches)
{
    thread->call_count++;
    for (struct hp_batch *batch = batches; batch != NULL; batch = batch->next) {
        assert_true(batch->op_count > 0);
        assert_true(thread->waiting_count < 64);
        if (thread->waiting_count > 0) {
            assert_true(thread->waiting[thread->waiting_count - 1]->number < batch->number);
        }
        thread->waiting[thread->waiting_count++] = batch;
        thread->put_count++;
    }
}

static inline void answer_loads(struct hp_store_thread *thread)
{
    struct hp_loaded **at = &thread->done.loaded;
    while (thread->loads != NULL) {
        struct hp_load *load = thread->loads;
        thread->loads = load->next;
        struct hp_loaded *loaded = hp_loaded_new(load);
        assert_true(hp_store_load(thread->store, loaded));
        while (*at != NULL) {
            at = &(*at)->next_loaded;
        }
        *at = loaded;
        hp_turn_wake_store(thread->turn);
    }
}

void hp_store_thread_load(struct hp_store_thread *thread, struct hp_load *load)
{
    struct hp_load **at = &thread->loads;
    while (*at != NULL) {
        at = &(*at)->next;
    }
    load->next = NULL;
    *at = load;
    if (thread->waiting_count == 0) {
        answer_loads(thread);
    }
}

bool hp_store_thread_take(struct hp_store_thread *thread, struct hp_store_done *ret_done)
{
    *ret_done = thread->done;
    thread->done.batches = NULL;
    thread->done.loaded = NULL;
    return true;
}

void hp_blobs_submit(struct hp_blobs *blobs, const struct hp_effect *effect)
{
    (void)blobs;
    (void)effect;
}

struct hp_blob_answer *hp_blobs_take(struct hp_blobs *blobs)
{
    (void)blobs;
    return NULL;
}

void hp_blob_answer_free(struct hp_blob_answer *answer)
{
    (void)answer;
}

/* The oldest batch becomes durable. */
static inline void commit_one(void)
{
    assert_true(played.waiting_count > 0);
    struct hp_batch *batch = played.waiting[0];
    struct hp_error error = {0};
    assert_ok(hp_store_apply(played.store, &batch, 1, &error));
    played.waiting_count--;
    memmove(&played.waiting[0], &played.waiting[1],
            played.waiting_count * sizeof(played.waiting[0]));
    played.done.durable = batch->number;
    batch->next = played.done.batches;
    played.done.batches = batch;
    hp_turn_wake_store(played.turn);
    if (played.waiting_count == 0) {
        answer_loads(&played);
    }
}

/* ---------------------------------------------------------------------------- broker and peer */

struct fixture {
    struct hp_loop *loop;
    struct hp_core *core;
    struct hp_turn *turn;
    struct hp_peers *peers;
    int fd;            /* the peer's end */
    struct hp_buf got; /* what it has read */
    struct hp_wire *wire;
};

static inline void on_record(void *context, const struct hp_record *record)
{
    hp_core_recover(context, record, 0, 1000);
}

static inline bool on_text(void *context, struct hp_str line, struct hp_buf *out)
{
    (void)context;
    assert_ok(hp_buf_append_text(out, "heard\n"));
    return hp_str_eq_c(line, "hear");
}

static inline struct fixture make_with(uint32_t hold_us)
{
    struct fixture f = {0};
    struct hp_core_config config;
    struct hp_error error = {0};
    hp_core_config_init(&config);
    config.server = "test";
    assert_ok(hp_loop_new(&f.loop, NULL));
    f.core = hp_core_new(&config);
    played = (struct hp_store_thread){.store = hp_store_mem_new()};
    assert_ok(hp_store_recover(played.store, on_record, f.core, &error));
    struct hp_turn_options options = {.loop = f.loop, .core = f.core, .hold_us = hold_us};
    struct hp_peers_options peers_options = {.core = f.core,
                                             .on_text = on_text,
                                             .batch_ops_max = 5000,
                                             .batch_bytes_max = 4 << 20,
                                             .output_bytes_high = 4 << 20};
    f.turn = hp_turn_new(&options);
    f.peers = hp_peers_new(f.loop, &peers_options);
    assert_non_null(f.turn);
    assert_non_null(f.peers);
    played.turn = f.turn;
    hp_turn_attach(f.turn, &played, NULL, f.peers);
    f.wire = hp_wire_new();
    hp_buf_init(&f.got, 1 << 20);
    f.fd = -1;
    return f;
}

static inline struct fixture make(void)
{
    return make_with(0);
}

static inline void add_peer(struct fixture *f)
{
    static const struct hp_conn_handlers none = {
        .on_bytes = (void (*)(struct hp_conn *, void *))1,
        .on_closed = (void (*)(struct hp_conn *, const char *, void *))1};
    int fds[2];
    struct hp_conn *conn = NULL;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_ok(hp_conn_new_fd(f->loop, fds[0], NULL, &none, NULL, &conn, NULL));
    hp_peers_add(f->peers, conn); /* sets its own handlers */
    f->fd = fds[1];
}

static inline void turns(struct fixture *f, int count)
{
    for (int i = 0; i < count; i++) {
        assert_ok(hp_turn_run(f->turn, 0));
    }
}

/* Lets everything become durable. */
static inline void settle(struct fixture *f)
{
    while (played.waiting_count > 0) {
        commit_one();
        turns(f, 2);
    }
}

static inline void destroy(struct fixture *f)
{
    if (f->fd >= 0) {
        assert_int_equal(close(f->fd), 0);
    }
    turns(f, 3);
    settle(f);
    hp_peers_free(f->peers);
    hp_turn_free(f->turn);
    hp_core_free(f->core);
    hp_store_close(played.store);
    hp_wire_free(f->wire);
    hp_buf_deinit(&f->got);
    hp_loop_free(f->loop);
}

static inline void peer_send(const struct fixture *f, const void *data, size_t size)
{
    assert_int_equal(write(f->fd, data, size), (ssize_t)size);
}

static inline void peer_send_buf(const struct fixture *f, struct hp_buf *bytes)
{
    peer_send(f, bytes->data, bytes->size);
    hp_buf_deinit(bytes);
}

/* What the peer has got so far: reads on, and returns the size. */
static inline size_t got(struct fixture *f)
{
    uint8_t text[4096];
    ssize_t n = 0;
    while ((n = read(f->fd, text, sizeof(text))) > 0) {
        assert_ok(hp_buf_append(&f->got, text, (size_t)n));
    }
    return f->got.size;
}

/* The next reply: its id; the result stays in *ret. 0: none is there. */
static inline uint32_t reply(struct fixture *f, struct hp_rpc *ret)
{
    struct hp_tok tok;
    size_t size = 0;
    const char *why = NULL;
    if (got(f) == 0) {
        return 0;
    }
    hp_tok_init(&tok, &hp_tok_limits_open);
    assert_int_equal(hp_tok_scan(&tok, f->got.data, f->got.size, &size, &why), HP_TOK_DONE);
    assert_ok(hp_rpc_read(f->wire, f->got.data, size, ret, NULL));
    uint32_t msgid = ret->msgid;
    assert_false(ret->failed);
    hp_buf_consume(&f->got, size);
    return msgid;
}

static inline struct hp_buf hello(uint32_t msgid)
{
    struct hp_buf out;
    struct hp_msg_hello msg = {.has = HP_HAS_HELLO_EVENTS | HP_HAS_HELLO_SESSION,
                               .client = HP_STR("test"),
                               .version = 1,
                               .session = hp_bin_make("client session 1", 16),
                               .events = true};
    hp_buf_init(&out, 1 << 16);
    assert_ok(hp_rpc_put_request(&out, msgid, HP_METHOD_HELLO));
    assert_ok(hp_msg_hello_encode(&out, &msg));
    return out;
}

static inline struct hp_buf submit(uint32_t msgid, bool durable)
{
    struct hp_buf out;
    struct hp_msg_task_submit msg = {0};
    msg.options.has = HP_HAS_ST_TASK_OPTIONS_FN;
    msg.options.kind = HP_TASK_KIND_FUNCTION;
    msg.options.fn = HP_STR("f");
    msg.options.durable = durable;
    msg.options.has |= durable ? 0 : HP_HAS_ST_TASK_OPTIONS_DURABLE;
    hp_buf_init(&out, 1 << 16);
    assert_ok(hp_rpc_put_request(&out, msgid, HP_METHOD_TASK_SUBMIT));
    assert_ok(hp_msg_task_submit_encode(&out, &msg));
    return out;
}

static inline void greet(struct fixture *f)
{
    struct hp_rpc rpc;
    struct hp_buf bytes = hello(1);
    add_peer(f);
    peer_send_buf(f, &bytes);
    turns(f, 2);
    settle(f); /* its session is looked for on the disk */
    turns(f, 2);
    assert_int_equal(reply(f, &rpc), 1); /* waits for nothing */
}

/* Sends a megabyte of payloads after the other until no more are taken. */
static inline void flood(struct fixture *f)
{
    static uint8_t payload[60000];
    struct hp_bin payloads[16];
    struct hp_buf out;
    struct hp_msg_task_submit msg = {.has = HP_HAS_TASK_SUBMIT_PAYLOADS};
    msg.payloads = (struct hp_list_bin){.items = payloads, .count = 16};
    msg.options.has = HP_HAS_ST_TASK_OPTIONS_FN;
    msg.options.kind = HP_TASK_KIND_FUNCTION;
    msg.options.fn = HP_STR("nobody's");
    for (int i = 0; i < 16; i++) {
        payloads[i] = hp_bin_make(payload, sizeof(payload));
    }
    hp_buf_init(&out, 2 << 20);
    assert_ok(hp_rpc_put_request(&out, 9, HP_METHOD_TASK_SUBMIT));
    assert_ok(hp_msg_task_submit_encode(&out, &msg));
    size_t at = 0;
    for (int idle = 0; idle < 8;) {
        ssize_t n = write(f->fd, out.data + at, out.size - at);
        idle = n > 0 ? 0 : idle + 1;
        at = n > 0 ? (at + (size_t)n) % out.size : at;
        turns(f, 1);
    }
    hp_buf_deinit(&out);
}

#endif
