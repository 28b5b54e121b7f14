/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the turn over a store thread and a blob thread that the test plays itself: it decides
 * when something is durable, and looks at what a peer has got by then.
 */
#include "tests/lib/hp_test.h"

#include "tests/unit/server_turn_fixture.h"

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

/* Also what is held for a moment goes to the store before a load that must see it. */
static void test_load_ends_a_hold(void **state)
{
    struct fixture f = make_with(60000000);
    (void)state;
    int client;
    int worker;
    run_first(&f, true, &client, &worker);
    turns(&f, 3);
    settle(&f);
    read_receipt(&f);
    f.fd = client;
    read_event(&f);
    uint32_t puts = played.put_count;
    uint64_t id = 1;
    struct hp_msg_task_get msg = {.has = HP_HAS_TASK_GET_IDS, .ids = {.items = &id, .count = 1}};
    struct hp_buf bytes = submit(4, true); /* would be held: it is out at an idle worker */
    assert_ok(hp_rpc_put_request(&bytes, 5, HP_METHOD_TASK_GET));
    assert_ok(hp_msg_task_get_encode(&bytes, &msg));
    peer_send_buf(&f, &bytes);
    for (int i = 0; i < 3 && played.loads == NULL; i++) {
        turns(&f, 1);
    }
    assert_non_null(played.loads);
    assert_int_equal(played.put_count, puts + 1);
    settle(&f);
    assert_int_equal(close(worker), 0);
    destroy(&f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_acknowledged_after_commit),
    cmocka_unit_test(test_submit_and_result_share_a_commit),
    cmocka_unit_test(test_receipts_have_company),
    cmocka_unit_test(test_load_comes_after_batches),
    cmocka_unit_test(test_load_ends_a_hold),
    cmocka_unit_test(test_heartbeats_pass_a_slow_disk),
    cmocka_unit_test(test_peer_gone_before_commit),
    cmocka_unit_test(test_drain),
    cmocka_unit_test(test_text_and_bad_bytes),
};

HP_TEST_MAIN(tests)
