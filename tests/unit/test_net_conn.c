/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of connections and listeners over loopback and socket pairs. */
#include "tests/lib/hp_test.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/net/listener.h"

#define TRIES 5000
#define TWO_ADDRESSES "two-addresses.test"

/* ---------------------------------------------------------------- the system, played */

static int user_timeout_ms; /* as it was set last */
static bool meets_itself;   /* the kernel picks the port that is connected to */

int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    if (level == IPPROTO_TCP && name == TCP_USER_TIMEOUT) {
        memcpy(&user_timeout_ms, value, sizeof(user_timeout_ms));
    }
    return (int)syscall(SYS_setsockopt, fd, level, name, value, size);
}

int connect(int fd, __CONST_SOCKADDR_ARG to, socklen_t size)
{
    const struct sockaddr *addr = to.__sockaddr__;
    if (meets_itself && addr->sa_family == AF_INET) {
        assert_int_equal(bind(fd, addr, size), 0);
    }
    return (int)syscall(SYS_connect, fd, addr, size);
}

/* One name has two addresses, of which nobody listens at the first. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **ret)
{
    typedef int resolve_fn(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    static resolve_fn *real;
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    }
    bool is_number = hints != NULL && (hints->ai_flags & AI_NUMERICHOST) != 0;
    if (name == NULL || strcmp(name, TWO_ADDRESSES) != 0 || is_number) {
        return real(name, service, hints, ret);
    }
    int failed = real("127.0.0.2", service, hints, ret);
    return failed != 0 ? failed : real("127.0.0.1", service, hints, &(*ret)->ai_next);
}

/* ---------------------------------------------------------------- ends */

/* What one end has seen. */
struct end {
    struct hp_conn *conn;
    int opened;
    int eof;
    int closed;
    int over;
    int under;
    size_t bytes;
    bool keep; /* leave the input where it is */
    bool free_on_close;
    bool free_on_bytes;
    char reason[256];
};

static void on_open(struct hp_conn *conn, void *context)
{
    struct end *end = context;
    (void)conn;
    end->opened++;
}

static void on_bytes(struct hp_conn *conn, void *context)
{
    struct end *end = context;
    if (end->free_on_bytes) {
        end->conn = NULL;
        end->bytes = 1;
        hp_conn_free(conn);
        return;
    }
    if (!end->keep) {
        struct hp_buf *in = hp_conn_input(conn);
        end->bytes += in->size;
        hp_buf_consume(in, in->size);
        hp_conn_input_done(conn);
    }
}

static void on_level(struct hp_conn *conn, bool over, void *context)
{
    struct end *end = context;
    (void)conn;
    end->over += over;
    end->under += !over;
}

static void on_closed(struct hp_conn *conn, const char *reason, void *context)
{
    struct end *end = context;
    end->closed++;
    (void)snprintf(end->reason, sizeof(end->reason), "%s", reason);
    if (end->free_on_close) {
        end->conn = NULL;
        hp_conn_free(conn);
    }
}

static const struct hp_conn_handlers handlers = {
    .on_open = on_open, .on_bytes = on_bytes, .on_level = on_level, .on_closed = on_closed};

static struct hp_loop *loop_of(void)
{
    struct hp_loop *loop = NULL;
    assert_ok(hp_loop_new(&loop, NULL));
    return loop;
}

static void turn(struct hp_loop *loop)
{
    hp_loop_flush(loop);
    assert_ok(hp_loop_turn(loop, 100));
    hp_loop_flush(loop);
}

#define TURN_UNTIL(loop, condition)                                                                \
    do {                                                                                           \
        for (int try_ = 0; try_ < TRIES && !(condition); try_++) {                                 \
            turn(loop);                                                                            \
        }                                                                                          \
        assert_true(condition);                                                                    \
    } while (0)

/* Two connected ends over a socket pair. */
static void make_pair(struct hp_loop *loop, struct end *a, struct end *b,
                      const struct hp_conn_options *options)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_ok(hp_conn_new_fd(loop, fds[0], options, &handlers, a, &a->conn, NULL));
    assert_ok(hp_conn_new_fd(loop, fds[1], options, &handlers, b, &b->conn, NULL));
}

static void test_echo_and_close(void **state)
{
    struct hp_loop *loop = loop_of();
    struct end a = {0};
    struct end b = {0};
    (void)state;
    make_pair(loop, &a, &b, NULL);
    assert_true(hp_conn_is_open(a.conn));
    assert_true(hp_conn_is_loopback(a.conn));
    hp_conn_send(a.conn, "hello", 5);
    hp_conn_send(a.conn, " world", 6);
    TURN_UNTIL(loop, b.bytes == 11);
    hp_conn_send(b.conn, "last words", 10);
    hp_conn_shutdown(b.conn, "enough");
    hp_conn_shutdown(b.conn, "second reason");
    TURN_UNTIL(loop, a.closed == 1 && b.closed == 1);
    assert_int_equal(a.bytes, 10); /* came before the end */
    assert_string_equal(a.reason, "closed by the peer");
    assert_string_equal(b.reason, "enough");
    assert_int_equal(hp_conn_bytes_out(b.conn), 10);
    hp_conn_send(a.conn, "late", 4); /* dropped, no crash */
    assert_int_equal(hp_conn_output_size(a.conn), 0);
    hp_conn_free(a.conn);
    hp_conn_free(b.conn);
    hp_loop_free(loop);
}

/* What may wait goes with what comes next, in its order, or when it is time. */
static void test_send_later(void **state)
{
    struct hp_loop *loop = loop_of();
    struct end a = {0};
    struct end b = {.keep = true};
    struct hp_buf bytes;
    (void)state;
    make_pair(loop, &a, &b, NULL);
    hp_buf_init(&bytes, 64);
    assert_ok(hp_buf_append(&bytes, "one ", 4));
    hp_conn_send_later(a.conn, &bytes);
    assert_true(hp_loop_has_later(loop));
    turn(loop);
    assert_int_equal(hp_conn_input(b.conn)->size, 0);
    hp_conn_send(a.conn, "two ", 4);
    assert_ok(hp_buf_append(&bytes, "three ", 6));
    hp_conn_send_later(a.conn, &bytes); /* in company */
    TURN_UNTIL(loop, hp_conn_input(b.conn)->size == 14);
    assert_memory_equal(hp_conn_input(b.conn)->data, "one two three ", 14);
    assert_false(hp_loop_has_later(loop));
    assert_ok(hp_buf_append(&bytes, "four", 4));
    hp_conn_send_later(a.conn, &bytes);
    turn(loop);
    assert_int_equal(hp_conn_input(b.conn)->size, 14);
    hp_loop_touch_later(loop);
    TURN_UNTIL(loop, hp_conn_input(b.conn)->size == 18);
    assert_ok(hp_buf_append(&bytes, "last", 4));
    hp_conn_send_later(a.conn, &bytes);
    hp_conn_shutdown(a.conn, "over"); /* nothing is lost */
    TURN_UNTIL(loop, hp_conn_input(b.conn)->size == 22);
    hp_buf_deinit(&bytes);
    assert_ok(hp_buf_append(&bytes, "lost", 4));
    hp_conn_send_later(b.conn, &bytes);
    hp_conn_free(a.conn);
    hp_conn_free(b.conn);
    assert_false(hp_loop_has_later(loop));
    hp_loop_free(loop);
}

/* The input limit stops the reading; consuming resumes it. */
static void test_input_limit(void **state)
{
    struct hp_loop *loop = loop_of();
    struct hp_conn_options options;
    struct end a = {0};
    struct end b = {.keep = true};
    static char block[1 << 20];
    (void)state;
    hp_conn_options_init(&options);
    options.input_bytes_max = 10000;
    make_pair(loop, &a, &b, &options);
    hp_conn_send(a.conn, block, sizeof(block));
    TURN_UNTIL(loop, hp_conn_input(b.conn)->size == 10000);
    for (int i = 0; i < 5; i++) {
        hp_loop_flush(loop);
        assert_ok(hp_loop_turn(loop, 0));
        assert_int_equal(hp_conn_input(b.conn)->size, 10000);
    }
    b.keep = false;
    hp_conn_set_input_max(b.conn, 100000);
    TURN_UNTIL(loop, b.bytes == sizeof(block));
    assert_int_equal(hp_conn_bytes_in(b.conn), sizeof(block));
    hp_conn_pause(b.conn, true);
    hp_conn_send(a.conn, "x", 1);
    hp_loop_flush(loop);
    assert_ok(hp_loop_turn(loop, 0));
    assert_int_equal(b.bytes, sizeof(block));
    hp_conn_pause(b.conn, false);
    TURN_UNTIL(loop, b.bytes == sizeof(block) + 1);
    hp_conn_free(a.conn);
    hp_conn_free(b.conn);
    hp_loop_free(loop);
}

static void test_output_levels(void **state)
{
    struct hp_loop *loop = loop_of();
    struct hp_conn_options options;
    struct end a = {0};
    struct end b = {0};
    static char block[1 << 20];
    (void)state;
    hp_conn_options_init(&options);
    options.output_high_bytes = 100000;
    options.output_bytes_max = 3 << 20;
    make_pair(loop, &a, &b, &options);
    hp_conn_pause(b.conn, true);
    struct hp_buf taken;
    hp_buf_init(&taken, 2 << 20);
    assert_ok(hp_buf_append(&taken, block, sizeof(block)));
    hp_conn_send_take(a.conn, &taken);
    assert_int_equal(taken.size, 0);
    assert_null(taken.data);
    TURN_UNTIL(loop, a.over == 1);
    assert_int_equal(a.under, 0);
    hp_conn_pause(b.conn, false);
    TURN_UNTIL(loop, a.under == 1 && b.bytes == sizeof(block));
    hp_conn_pause(b.conn, true);
    for (int i = 0; i < 5; i++) {
        hp_conn_send(a.conn, block, sizeof(block)); /* over the cap: ends at the next flush */
    }
    assert_int_equal(a.closed, 0);
    TURN_UNTIL(loop, a.closed == 1);
    assert_non_null(strstr(a.reason, "does not read"));
    hp_conn_free(a.conn);
    hp_conn_free(b.conn);
    hp_buf_deinit(&taken);
    hp_loop_free(loop);
}

static void test_free_in_callbacks(void **state)
{
    struct hp_loop *loop = loop_of();
    struct end a = {0};
    struct end b = {.free_on_bytes = true};
    (void)state;
    make_pair(loop, &a, &b, NULL);
    a.free_on_close = true;
    hp_conn_send(a.conn, "x", 1);
    TURN_UNTIL(loop, b.bytes == 1 && a.closed == 1);
    assert_null(a.conn);
    hp_loop_free(loop);
}

/* A half-closed peer still gets its answer, if the owner asked for that. */
static void on_eof(struct hp_conn *conn, void *context)
{
    struct end *end = context;
    end->eof++;
    hp_conn_send(conn, "answer", 6);
    hp_conn_shutdown(conn, "done");
}

static void test_half_close(void **state)
{
    struct hp_loop *loop = loop_of();
    struct hp_conn_handlers with_eof = handlers;
    struct end a = {0};
    int fds[2];
    char text[16] = "";
    (void)state;
    with_eof.on_eof = on_eof;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_ok(hp_conn_new_fd(loop, fds[0], NULL, &with_eof, &a, &a.conn, NULL));
    assert_int_equal(write(fds[1], "question", 8), 8);
    assert_int_equal(shutdown(fds[1], SHUT_WR), 0);
    TURN_UNTIL(loop, a.closed == 1);
    assert_int_equal(a.eof, 1);
    assert_int_equal(a.bytes, 8);
    assert_int_equal(read(fds[1], text, sizeof(text)), 6);
    assert_string_equal(text, "answer");
    assert_int_equal(close(fds[1]), 0);
    hp_conn_free(a.conn);
    hp_loop_free(loop);
}

/* ------------------------------------------------------------------------------- listener, connect
 */

struct server {
    struct hp_listener *listener;
    struct end ends[8];
    int count;
    int refused;
};

static void on_conn(struct hp_listener *listener, struct hp_conn *conn, void *context)
{
    struct server *server = context;
    (void)listener;
    assert_true(server->count < 8);
    struct end *end = &server->ends[server->count++];
    end->conn = conn;
    hp_conn_set_handlers(conn, &handlers, end);
}

static void on_refused(struct hp_listener *listener, const char *peer, const char *reason,
                       void *context)
{
    struct server *server = context;
    (void)listener;
    assert_non_null(peer);
    assert_non_null(reason);
    server->refused++;
}

static const struct hp_listener_handlers listener_handlers = {.on_conn = on_conn,
                                                              .on_refused = on_refused};

static struct hp_endpoint listen_on(struct hp_loop *loop, struct server *server, const char *text,
                                    const struct hp_listener_options *options)
{
    struct hp_endpoint endpoint;
    struct hp_addr addr;
    size_t count = 0;
    *server = (struct server){0};
    server->listener = hp_listener_new(loop, options, &listener_handlers, server);
    assert_non_null(server->listener);
    assert_ok(hp_endpoint_parse(text, 0, &endpoint, NULL));
    assert_ok(hp_endpoint_resolve(&endpoint, true, &addr, 1, &count, NULL));
    assert_ok(hp_listener_add(server->listener, &addr, NULL));
    endpoint.port = hp_addr_port(hp_listener_addr(server->listener, 0));
    assert_int_not_equal(endpoint.port, 0);
    assert_null(hp_listener_addr(server->listener, 1));
    return endpoint;
}

static void free_server(struct server *server)
{
    for (int i = 0; i < server->count; i++) {
        hp_conn_free(server->ends[i].conn);
    }
    hp_listener_free(server->listener);
}

static void connect_to(struct hp_loop *loop, const struct hp_endpoint *endpoint, struct end *end)
{
    *end = (struct end){0};
    assert_ok(hp_conn_new_connect(loop, endpoint, NULL, &handlers, end, &end->conn, NULL));
}

static void test_connect(void **state)
{
    static const char *const hosts[] = {"127.0.0.1", "localhost"}; /* by number, by resolver */
    struct hp_loop *loop = loop_of();
    struct server server;
    struct hp_endpoint endpoint = listen_on(loop, &server, "127.0.0.1:0", NULL);
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct end end;
        (void)snprintf(endpoint.host, sizeof(endpoint.host), "%s", hosts[i]);
        connect_to(loop, &endpoint, &end);
        hp_conn_send(end.conn, "early", 5); /* may be queued before it is open */
        TURN_UNTIL(loop, end.opened == 1 && server.count == i + 1);
        TURN_UNTIL(loop, server.ends[i].bytes == 5);
        assert_true(hp_conn_is_open(end.conn));
        assert_non_null(strstr(hp_conn_peer(end.conn), "127.0.0.1:"));
        assert_int_equal(hp_listener_conn_count(server.listener), 1);
        hp_conn_free(end.conn);
        TURN_UNTIL(loop, server.ends[i].closed == 1);
        assert_int_equal(hp_listener_conn_count(server.listener), 0);
    }
    free_server(&server);
    hp_loop_free(loop);
}

static void test_connect_fails(void **state)
{
    struct hp_loop *loop = loop_of();
    struct server server;
    struct hp_endpoint endpoint = listen_on(loop, &server, "127.0.0.1:0", NULL);
    struct end end;
    (void)state;
    hp_listener_shut(server.listener); /* the port is free now: nobody answers */
    connect_to(loop, &endpoint, &end);
    TURN_UNTIL(loop, end.closed == 1);
    assert_int_equal(end.opened, 0);
    assert_non_null(strstr(end.reason, "refused"));
    hp_conn_free(end.conn);
    struct hp_endpoint nowhere = {.host = "no-such-host.invalid", .port = 1};
    connect_to(loop, &nowhere, &end);
    TURN_UNTIL(loop, end.closed == 1);
    assert_non_null(strstr(end.reason, "no-such-host.invalid"));
    hp_conn_free(end.conn);
    connect_to(loop, &nowhere, &end); /* freed while the resolver works */
    hp_conn_free(end.conn);
    connect_to(loop, &nowhere, &end);
    hp_conn_shutdown(end.conn, "no more wanted");
    TURN_UNTIL(loop, end.closed == 1);
    assert_string_equal(end.reason, "no more wanted");
    hp_conn_free(end.conn);
    free_server(&server);
    hp_loop_free(loop);
}

static void test_all_addresses_are_tried(void **state)
{
    struct hp_loop *loop = loop_of();
    struct server server;
    struct hp_endpoint endpoint = listen_on(loop, &server, "127.0.0.1:0", NULL);
    struct end end;
    (void)state;
    (void)snprintf(endpoint.host, sizeof(endpoint.host), "%s", TWO_ADDRESSES);
    connect_to(loop, &endpoint, &end);
    TURN_UNTIL(loop, end.opened + end.closed == 1);
    assert_int_equal(end.opened, 1);
    assert_non_null(strstr(hp_conn_peer(end.conn), "127.0.0.1:"));
    hp_conn_free(end.conn);
    free_server(&server);
    hp_loop_free(loop);
}

/* It would talk to itself, and keep the port from the broker that is to come. */
static void test_nobody_meets_himself(void **state)
{
    struct hp_loop *loop = loop_of();
    struct server server;
    struct hp_endpoint endpoint = listen_on(loop, &server, "127.0.0.1:0", NULL);
    struct end end;
    (void)state;
    free_server(&server); /* the port is free */
    meets_itself = true;
    connect_to(loop, &endpoint, &end);
    meets_itself = false;
    TURN_UNTIL(loop, end.opened + end.closed == 1);
    assert_int_equal(end.closed, 1);
    hp_conn_free(end.conn);
    hp_loop_free(loop);
}

/* The kernel ends a connection whose peer is gone, in the time that was asked for: too soon would
 * cut slow links, too late would keep a worker's place. */
static void test_silence_is_told_to_the_kernel(void **state)
{
    struct hp_loop *loop = loop_of();
    struct server server;
    struct hp_endpoint endpoint = listen_on(loop, &server, "127.0.0.1:0", NULL);
    struct hp_conn_options options;
    struct end end;
    (void)state;
    hp_conn_options_init(&options);
    connect_to(loop, &endpoint, &end);
    TURN_UNTIL(loop, end.opened == 1);
    assert_int_equal(user_timeout_ms, options.user_timeout_ms);
    hp_conn_free(end.conn);
    free_server(&server);
    hp_loop_free(loop);
}

static void test_port_in_use(void **state)
{
    struct hp_loop *loop = loop_of();
    struct server server;
    (void)listen_on(loop, &server, "127.0.0.1:0", NULL);
    struct hp_error error = {0};
    (void)state;
    assert_err(hp_listener_add(server.listener, hp_listener_addr(server.listener, 0), &error),
               HP_ERR_BUSY);
    assert_non_null(strstr(error.text, "127.0.0.1:"));
    free_server(&server);
    hp_loop_free(loop);
}

static void test_cap(void **state)
{
    struct hp_loop *loop = loop_of();
    struct hp_listener_options options;
    struct server server;
    struct end ends[3];
    (void)state;
    hp_listener_options_init(&options);
    options.conn_count_max = 2;
    options.conn_count_max_per_host = 1; /* does not count for this host */
    struct hp_endpoint endpoint = listen_on(loop, &server, "127.0.0.1:0", &options);
    for (int i = 0; i < 3; i++) {
        connect_to(loop, &endpoint, &ends[i]);
    }
    TURN_UNTIL(loop, server.refused == 1 && server.count == 2);
    TURN_UNTIL(loop, ends[0].closed + ends[1].closed + ends[2].closed == 1);
    assert_int_equal(hp_listener_refused_count(server.listener), 1);
    hp_listener_pause(server.listener, true);
    for (int i = 0; i < 3; i++) {
        hp_conn_free(ends[i].conn);
    }
    TURN_UNTIL(loop, server.ends[0].closed == 1 && server.ends[1].closed == 1);
    connect_to(loop, &endpoint, &ends[0]);
    TURN_UNTIL(loop, ends[0].opened == 1); /* the kernel's doing; nobody accepts */
    assert_int_equal(server.count, 2);
    hp_listener_pause(server.listener, false);
    TURN_UNTIL(loop, server.count == 3);
    hp_listener_free(server.listener); /* connections outlive it */
    server.listener = NULL;
    hp_conn_free(ends[0].conn);
    TURN_UNTIL(loop, server.ends[2].closed == 1);
    free_server(&server);
    hp_loop_free(loop);
}

/* Out of descriptors: the peer is turned away, the loop does not spin, and accepting comes back. */
static void test_out_of_files(void **state)
{
    struct hp_loop *loop = loop_of();
    struct hp_listener_options options;
    struct server server;
    struct end end;
    struct rlimit before;
    (void)state;
    hp_listener_options_init(&options);
    options.rest_ms = 50;
    struct hp_endpoint endpoint = listen_on(loop, &server, "127.0.0.1:0", &options);
    connect_to(loop, &endpoint, &end);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int next = fcntl(0, F_DUPFD, 0); /* the lowest free one */
    assert_int_equal(close(next), 0);
    struct rlimit none = {.rlim_cur = (rlim_t)next, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    TURN_UNTIL(loop, server.refused == 1);
    assert_int_equal(server.count, 0);
    int turns = 0;
    for (; turns < 4; turns++) {
        assert_ok(hp_loop_turn(loop, 0));
    }
    assert_int_equal(server.refused, 1); /* rests instead of trying again and again */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    TURN_UNTIL(loop, end.closed == 1);
    hp_conn_free(end.conn);
    connect_to(loop, &endpoint, &end);
    TURN_UNTIL(loop, server.count == 1);
    hp_conn_free(end.conn);
    free_server(&server);
    hp_loop_free(loop);
}

static void test_out_of_memory(void **state)
{
    struct hp_loop *loop = loop_of();
    struct server server;
    struct hp_endpoint endpoint = listen_on(loop, &server, "127.0.0.1:0", NULL);
    (void)state;
    bool is_done = false;
    for (uint64_t n = 1; n < 50 && !is_done; n++) {
        struct end end = {0};
        hp_mem_fail_at(n, false);
        enum hp_err err =
            hp_conn_new_connect(loop, &endpoint, NULL, &handlers, &end, &end.conn, NULL);
        is_done = hp_mem_fail_count() == 0;
        hp_mem_fail_at(0, false);
        if (err == HP_OK) {
            TURN_UNTIL(loop, end.opened + end.closed == 1);
            hp_conn_free(end.conn);
        }
    }
    assert_true(is_done);
    free_server(&server);
    hp_loop_free(loop);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_echo_and_close),
    cmocka_unit_test(test_send_later),
    cmocka_unit_test(test_input_limit),
    cmocka_unit_test(test_output_levels),
    cmocka_unit_test(test_free_in_callbacks),
    cmocka_unit_test(test_half_close),
    cmocka_unit_test(test_connect),
    cmocka_unit_test(test_connect_fails),
    cmocka_unit_test(test_all_addresses_are_tried),
    cmocka_unit_test(test_nobody_meets_himself),
    cmocka_unit_test(test_silence_is_told_to_the_kernel),
    cmocka_unit_test(test_port_in_use),
    cmocka_unit_test(test_cap),
    cmocka_unit_test(test_out_of_files),
    cmocka_unit_test(test_out_of_memory),
};

HP_TEST_MAIN(tests)
