/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the turn over a store thread and a blob thread that the test plays itself: it decides
 * when something is durable, and looks at what a peer has got by then.
 */
#include "tests/lib/hp_test.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/rpc.h"
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

static void answer_loads(struct hp_store_thread *thread)
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
static void commit_one(void)
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

static void on_record(void *context, const struct hp_record *record)
{
    hp_core_recover(context, record, 0, 1000);
}

static bool on_text(void *context, struct hp_str line, struct hp_buf *out)
{
    (void)context;
    assert_ok(hp_buf_append_text(out, "heard\n"));
    return hp_str_eq_c(line, "hear");
}

static struct fixture make_with(uint32_t hold_us)
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

static struct fixture make(void)
{
    return make_with(0);
}

static void add_peer(struct fixture *f)
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

static void turns(struct fixture *f, int count)
{
    for (int i = 0; i < count; i++) {
        assert_ok(hp_turn_run(f->turn, 0));
    }
}

/* Lets everything become durable. */
static void settle(struct fixture *f)
{
    while (played.waiting_count > 0) {
        commit_one();
        turns(f, 2);
    }
}

static void destroy(struct fixture *f)
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

static void peer_send(const struct fixture *f, const void *data, size_t size)
{
    assert_int_equal(write(f->fd, data, size), (ssize_t)size);
}

static void peer_send_buf(const struct fixture *f, struct hp_buf *bytes)
{
    peer_send(f, bytes->data, bytes->size);
    hp_buf_deinit(bytes);
}

/* What the peer has got so far: reads on, and returns the size. */
static size_t got(struct fixture *f)
{
    uint8_t text[4096];
    ssize_t n = 0;
    while ((n = read(f->fd, text, sizeof(text))) > 0) {
        assert_ok(hp_buf_append(&f->got, text, (size_t)n));
    }
    return f->got.size;
}

/* The next reply: its id; the result stays in *ret. 0: none is there. */
static uint32_t reply(struct fixture *f, struct hp_rpc *ret)
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

static struct hp_buf hello(uint32_t msgid)
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

static struct hp_buf submit(uint32_t msgid, bool durable)
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

static void greet(struct fixture *f)
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

/* The promise of the whole: no acknowledgement before the commit. */
static void test_acknowledged_after_commit(void **state)
{
    struct fixture f = make();
    struct hp_rpc rpc;
    (void)state;
    greet(&f);
    struct hp_buf first = submit(2, true);
    peer_send_buf(&f, &first);
    turns(&f, 3);
    assert_true(played.waiting_count >= 1);
    assert_int_equal(got(&f), 0);
    struct hp_buf second = submit(3, true);
    peer_send_buf(&f, &second);
    turns(&f, 3);
    assert_true(played.waiting_count >= 2);
    assert_int_equal(got(&f), 0);
    uint32_t older = played.waiting_count - 1;
    for (uint32_t i = 0; i < older; i++) {
        commit_one();
        turns(&f, 2);
    }
    assert_int_equal(reply(&f, &rpc), 2); /* only what is durable */
    assert_int_equal(got(&f), 0);
    commit_one();
    turns(&f, 2);
    assert_int_equal(reply(&f, &rpc), 3);
    struct hp_turn_figures figures;
    hp_turn_figures(f.turn, &figures);
    assert_int_equal(figures.frames_waiting, 0);
    assert_int_equal(figures.waiting_bytes, 0);
    destroy(&f);
}

/* A load sees the batches of its turn and before. */
static void test_load_comes_after_batches(void **state)
{
    struct fixture f = make();
    struct hp_rpc rpc;
    (void)state;
    greet(&f);
    struct hp_buf bytes = submit(2, true);
    struct hp_msg_task_get msg = {.has = HP_HAS_TASK_GET_IDS};
    uint64_t id = 1;
    msg.ids = (struct hp_list_u64){.items = &id, .count = 1};
    assert_ok(hp_rpc_put_request(&bytes, 3, HP_METHOD_TASK_GET));
    assert_ok(hp_msg_task_get_encode(&bytes, &msg));
    settle(&f);
    peer_send_buf(&f, &bytes); /* both in one turn */
    turns(&f, 3);
    assert_non_null(played.loads);
    assert_true(played.waiting_count > 0); /* it was handed over behind its batch */
    assert_int_equal(got(&f), 0);
    settle(&f);
    assert_int_equal(reply(&f, &rpc) + reply(&f, &rpc), 2 + 3);
    destroy(&f);
}

/* Sends a megabyte of payloads after the other until no more are taken. */
static void flood(struct fixture *f)
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

/* While the store is far behind clients wait, but workers keep their leases. */
static void test_heartbeats_pass_a_slow_disk(void **state)
{
    struct fixture f = make();
    struct hp_rpc rpc;
    struct hp_buf out;
    (void)state;
    struct hp_msg_hello hello_msg = {.has = HP_HAS_HELLO_NODE | HP_HAS_HELLO_BOOT,
                                     .client = HP_STR("test"),
                                     .version = 1,
                                     .node = HP_STR("w"),
                                     .boot = hp_bin_make("0123456789abcdef", 16)};
    struct hp_msg_worker_register reg = {.host = HP_STR("h"), .slots = 1};
    hp_buf_init(&out, 1 << 16);
    assert_ok(hp_rpc_put_request(&out, 1, HP_METHOD_HELLO));
    assert_ok(hp_msg_hello_encode(&out, &hello_msg));
    assert_ok(hp_rpc_put_request(&out, 2, HP_METHOD_WORKER_REGISTER));
    assert_ok(hp_msg_worker_register_encode(&out, &reg));
    add_peer(&f);
    peer_send_buf(&f, &out);
    turns(&f, 3);
    settle(&f);
    assert_int_equal(reply(&f, &rpc), 1);
    assert_int_equal(reply(&f, &rpc), 2);
    int worker = f.fd;
    greet(&f);
    int client = f.fd;
    flood(&f);
    struct hp_msg_worker_heartbeat beat = {0};
    hp_buf_init(&out, 1 << 16);
    assert_ok(hp_rpc_put_request(&out, 3, HP_METHOD_WORKER_HEARTBEAT));
    assert_ok(hp_msg_worker_heartbeat_encode(&out, &beat));
    f.fd = worker;
    peer_send_buf(&f, &out);
    turns(&f, 3);
    assert_int_equal(reply(&f, &rpc), 3);
    assert_int_equal(close(client), 0);
    destroy(&f);
}

/* A peer that goes while its acknowledgement waits is nobody's trouble. */
static void test_peer_gone_before_commit(void **state)
{
    struct fixture f = make();
    (void)state;
    greet(&f);
    struct hp_buf bytes = submit(2, true);
    peer_send_buf(&f, &bytes);
    turns(&f, 2);
    assert_int_equal(close(f.fd), 0);
    f.fd = -1;
    turns(&f, 3);
    assert_int_equal(hp_peers_count(f.peers), 0);
    commit_one();
    turns(&f, 2);
    destroy(&f);
}

static void test_drain(void **state)
{
    struct fixture f = make();
    struct hp_rpc rpc;
    (void)state;
    greet(&f);
    struct hp_buf bytes = submit(2, true);
    peer_send_buf(&f, &bytes);
    turns(&f, 2);
    hp_turn_drain(f.turn, 5000);
    assert_false(hp_turn_is_drained(f.turn));
    turns(&f, 2);
    while (played.waiting_count > 0) {
        assert_false(hp_turn_is_drained(f.turn));
        commit_one();
        turns(&f, 2);
    }
    assert_true(hp_turn_is_drained(f.turn));
    assert_int_equal(reply(&f, &rpc), 2); /* what was taken is acknowledged */
    destroy(&f);
}

static void test_text_and_bad_bytes(void **state)
{
    static const char *const bad[] = {"\x16\x03", "\xff", "\xdd\x20", "\x94\xc1"};
    struct fixture f = make();
    (void)state;
    add_peer(&f);
    peer_send(&f, "hear\nhear\nwhat\nhear\n", 20);
    turns(&f, 3);
    assert_true(got(&f) > 12);
    assert_memory_equal(f.got.data, "heard\nheard\nheard\nunknown", 25);
    hp_buf_clear(&f.got);
    assert_int_equal(close(f.fd), 0);
    turns(&f, 3);
    assert_int_equal(hp_peers_count(f.peers), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        add_peer(&f);
        peer_send(&f, bad[i], strlen(bad[i]));
        turns(&f, 3);
        assert_int_equal(got(&f), 0);
        assert_int_equal(read(f.fd, f.got.data, 0), 0);
        assert_int_equal(close(f.fd), 0);
        turns(&f, 3);
        assert_int_equal(hp_peers_count(f.peers), 0);
    }
    f.fd = -1;
    destroy(&f);
}

/* A worker of one slot on the fixture's descriptor. */
static void add_worker(struct fixture *f)
{
    static struct hp_str functions[] = {HP_STR_INIT("f")};
    struct hp_msg_hello hello = {.has = HP_HAS_HELLO_NODE | HP_HAS_HELLO_BOOT,
                                 .client = HP_STR("test"),
                                 .version = 1,
                                 .node = HP_STR("w"),
                                 .boot = hp_bin_make("0123456789abcdef", 16)};
    struct hp_msg_worker_register reg = {.has = HP_HAS_WORKER_REGISTER_FUNCTIONS,
                                         .host = HP_STR("host"),
                                         .pid = 1,
                                         .slots = 1,
                                         .functions = {.items = functions, .count = 1}};
    struct hp_buf out;
    struct hp_rpc rpc;
    hp_buf_init(&out, 1 << 16);
    assert_ok(hp_rpc_put_request(&out, 1, HP_METHOD_HELLO));
    assert_ok(hp_msg_hello_encode(&out, &hello));
    assert_ok(hp_rpc_put_request(&out, 2, HP_METHOD_WORKER_REGISTER));
    assert_ok(hp_msg_worker_register_encode(&out, &reg));
    add_peer(f);
    peer_send_buf(f, &out);
    turns(f, 3);
    settle(f);
    assert_int_equal(reply(f, &rpc), 1);
    assert_int_equal(reply(f, &rpc), 2);
}

/* Takes the one task that was assigned to the fixture's descriptor, and ends it. */
static void work_one(struct fixture *f)
{
    HP_CLEANUP(hp_arena_deinit) struct hp_arena arena;
    struct hp_msg_worker_assign assign;
    struct hp_rpc rpc;
    struct hp_buf out;
    hp_arena_init(&arena, 4096, 1 << 20);
    (void)reply(f, &rpc);
    assert_int_equal(rpc.method, HP_METHOD_WORKER_ASSIGN);
    assert_ok(hp_msg_worker_assign_decode(rpc.params, &arena, &assign, NULL));
    assert_int_equal(assign.runs.count, 1);
    const struct hp_st_assign_run *run = &assign.runs.items[0];
    struct hp_st_done_item item = {.id = run->first,
                                   .attempt = run->attempt,
                                   .epoch = run->epoch,
                                   .end = hp_bin_make("\x80", 1)};
    struct hp_msg_worker_done done = {.items = {.items = &item, .count = 1}};
    hp_buf_init(&out, 1 << 16);
    assert_ok(hp_rpc_put_request(&out, 3, HP_METHOD_WORKER_DONE));
    assert_ok(hp_msg_worker_done_encode(&out, &done));
    peer_send_buf(f, &out);
}

/* The answer to work_one's worker.done leaves by itself after a moment, if nothing else does. */
static void read_receipt(struct fixture *f)
{
    struct hp_rpc rpc;
    uint32_t msgid = 0;
    for (int i = 0; i < 1000 && msgid == 0; i++) {
        assert_ok(hp_turn_run(f->turn, 1000));
        msgid = reply(f, &rpc);
    }
    assert_int_equal(msgid, 3);
}

static void read_event(struct fixture *f)
{
    struct hp_rpc rpc;
    (void)reply(f, &rpc);
    assert_int_equal(rpc.method, HP_METHOD_TASK_EVENT);
}

/* A client, a worker, and a first task of its kind that was run: what it needs is looked for on the
 * disk. The fixture's descriptor is the worker's then. */
static void run_first(struct fixture *f, bool durable, int *ret_client, int *ret_worker)
{
    struct hp_rpc rpc;
    greet(f);
    *ret_client = f->fd;
    add_worker(f);
    *ret_worker = f->fd;
    struct hp_buf first = submit(2, durable);
    f->fd = *ret_client;
    peer_send_buf(f, &first);
    turns(f, 3);
    settle(f);
    assert_int_equal(reply(f, &rpc), 2);
    f->fd = *ret_worker;
    work_one(f);
}

/* What nobody waits for leaves together with what comes next. */
static void test_receipts_have_company(void **state)
{
    struct fixture f = make();
    struct hp_rpc rpc;
    (void)state;
    int client;
    int worker;
    run_first(&f, false, &client, &worker);
    turns(&f, 1);
    assert_int_equal(got(&f), 0); /* it has nothing: the next task will come */
    f.fd = client;
    turns(&f, 1);
    read_event(&f);

    struct hp_buf second = submit(4, false);
    peer_send_buf(&f, &second);
    turns(&f, 1);
    assert_int_equal(got(&f), 0); /* all there is runs: its end will come */
    f.fd = worker;
    assert_int_equal(reply(&f, &rpc), 3); /* to the worker.done before */
    work_one(&f);
    turns(&f, 1);
    f.fd = client;
    turns(&f, 1);
    assert_int_equal(reply(&f, &rpc), 4);
    read_event(&f);
    f.fd = worker;
    read_receipt(&f);
    assert_int_equal(close(client), 0);
    destroy(&f);
}

/* A lone task: submit and result go to the store in one call, or they would not share a commit. */
static void test_submit_and_result_share_a_commit(void **state)
{
    struct fixture f = make_with(60000000);
    struct hp_rpc rpc;
    (void)state;
    int client;
    int worker;
    run_first(&f, true, &client, &worker);
    turns(&f, 3);
    settle(&f);
    read_receipt(&f);
    f.fd = client;
    read_event(&f);

    uint32_t calls = played.call_count;
    uint32_t puts = played.put_count;
    struct hp_buf second = submit(4, true);
    peer_send_buf(&f, &second);
    turns(&f, 3);
    assert_int_equal(played.put_count, puts); /* held, but it is out: */
    f.fd = worker;
    work_one(&f);
    turns(&f, 3);
    assert_int_equal(played.put_count, puts + 2);
    assert_int_equal(played.call_count, calls + 1);
    f.fd = client;
    assert_int_equal(got(&f), 0); /* neither is durable */
    settle(&f);
    assert_int_equal(reply(&f, &rpc), 4);
    assert_int_equal(close(worker), 0);
    destroy(&f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_acknowledged_after_commit),
    cmocka_unit_test(test_submit_and_result_share_a_commit),
    cmocka_unit_test(test_receipts_have_company),
    cmocka_unit_test(test_load_comes_after_batches),
    cmocka_unit_test(test_heartbeats_pass_a_slow_disk),
    cmocka_unit_test(test_peer_gone_before_commit),
    cmocka_unit_test(test_drain),
    cmocka_unit_test(test_text_and_bad_bytes),
};

HP_TEST_MAIN(tests)
