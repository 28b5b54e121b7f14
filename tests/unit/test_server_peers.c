/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of peers in the turn: who is put off is heard again, and what was read is done. */
#include "tests/lib/hp_test.h"

#include "tests/unit/server_turn_fixture.h"

/* A client behind the bound of bytes that wait for the disk is heard again once they are durable.
 */
static void test_heard_again_when_the_disk_has_caught_up(void **state)
{
    struct fixture f = make();
    struct hp_rpc rpc;
    struct hp_buf out;
    (void)state;
    struct hp_msg_hello hello_msg = {.client = HP_STR("test"), .version = 1};
    hp_buf_init(&out, 1 << 16);
    assert_ok(hp_rpc_put_request(&out, 1, HP_METHOD_HELLO));
    assert_ok(hp_msg_hello_encode(&out, &hello_msg));
    add_peer(&f);
    peer_send_buf(&f, &out);
    turns(&f, 3);
    assert_int_equal(reply(&f, &rpc), 1);
    int other = f.fd;
    greet(&f);
    int client = f.fd;
    flood(&f);
    hp_buf_init(&out, 1 << 16);
    assert_ok(hp_rpc_put_request(&out, 2, HP_METHOD_BROKER_PING));
    assert_ok(hp_wire_put_map(&out, 0));
    f.fd = other;
    peer_send_buf(&f, &out);
    turns(&f, 3);
    assert_int_equal(got(&f), 0);
    settle(&f);
    turns(&f, 3);
    assert_int_equal(reply(&f, &rpc), 2);
    assert_int_equal(close(client), 0);
    destroy(&f);
}

/* More requests than two turns take, and then the peer is gone: what was read of them is done. */
static void test_last_requests_of_a_peer_that_is_gone(void **state)
{
    enum { COUNT = 600 };
    struct fixture f = make();
    struct hp_buf out = submit(2, true);
    struct hp_buf pings;
    (void)state;
    greet(&f);
    hp_buf_init(&pings, 1 << 20);
    assert_ok(hp_rpc_put_request(&pings, 2, HP_METHOD_BROKER_PING));
    assert_ok(hp_wire_put_map(&pings, 0));
    peer_send_buf(&f, &pings); /* after its first request a peer may send much at once */
    turns(&f, 2);
    hp_buf_init(&pings, 1 << 20);
    for (uint32_t i = 0; i < COUNT; i++) { /* answered at once, which meets nobody */
        assert_ok(hp_rpc_put_request(&pings, 3 + i, HP_METHOD_BROKER_PING));
        assert_ok(hp_wire_put_map(&pings, 0));
    }
    assert_ok(hp_buf_append_buf(&pings, &out));
    hp_buf_deinit(&out);
    peer_send_buf(&f, &pings);
    assert_int_equal(close(f.fd), 0);
    f.fd = -1;
    turns(&f, 4);
    assert_int_equal(hp_peers_count(f.peers), 0);
    assert_int_equal(f.core->figures.submitted, 1);
    destroy(&f);
}

/* A peer may be put off by what its own turn made of its requests; nothing else brings the next. */
static void test_put_off_by_its_own_turn(void **state)
{
    enum { QUEUES = 1000, LISTS = 8 };
    struct fixture f = make();
    struct hp_buf out;
    char name[201];
    (void)state;
    greet(&f);
    for (int i = 0; i < QUEUES; i++) {
        (void)snprintf(name, sizeof(name), "%0200d", i);
        struct hp_msg_queue_pause msg = {.name = hp_str_of(name), .paused = true};
        hp_buf_init(&out, 1 << 16);
        assert_ok(hp_rpc_put_request(&out, 2, HP_METHOD_QUEUE_PAUSE));
        assert_ok(hp_msg_queue_pause_encode(&out, &msg));
        peer_send_buf(&f, &out);
        turns(&f, i % 50 == 0 ? 2 : 0);
    }
    turns(&f, 4);
    settle(&f);
    assert_false(hp_peers_have_input(f.peers, true));
    hp_buf_init(&out, 1 << 16);
    for (int i = 0; i < LISTS; i++) { /* their answers are some megabytes */
        assert_ok(hp_rpc_put_request(&out, 3, HP_METHOD_QUEUE_LIST));
        assert_ok(hp_wire_put_map(&out, 0));
    }
    peer_send_buf(&f, &out);
    turns(&f, 1);
    assert_true(hp_peers_have_input(f.peers, true));
    turns(&f, 4);
    assert_false(hp_peers_have_input(f.peers, true));
    destroy(&f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_heard_again_when_the_disk_has_caught_up),
    cmocka_unit_test(test_last_requests_of_a_peer_that_is_gone),
    cmocka_unit_test(test_put_off_by_its_own_turn),
};

HP_TEST_MAIN(tests)
