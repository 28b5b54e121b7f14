/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Listening. The counts live in an object of their own, which the connections share with the
 * listener, because a connection may outlive it.
 *
 * I1: shared->refs = open connections + 1 while the listener lives.
 */
#include "common/net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/strmap.h"
#include "common/net/conn_impl.h"

#define LISTEN_COUNT_MAX 16u
#define LISTEN_BACKLOG 1024

struct listener_shared {
    uint32_t refs;
    uint32_t conn_count;
    struct hp_strmap per_host; /* host text -> open connections; loopback is not in it */
};

struct listener_socket {
    struct hp_listener *listener;
    int fd;
    struct hp_watch *watch;
    struct hp_addr addr;
};

struct hp_listener {
    struct hp_loop *loop;
    struct hp_listener_options options;
    struct hp_listener_handlers handlers;
    void *context;
    struct listener_socket sockets[LISTEN_COUNT_MAX];
    uint32_t socket_count;
    struct listener_shared *shared;
    struct hp_timer *rest; /* set while accepting rests */
    int reserve_fd;        /* given up to turn a peer away when descriptors are out */
    bool paused;
    uint64_t refused_count;
};

void hp_listener_options_init(struct hp_listener_options *options)
{
    *options = (struct hp_listener_options){
        .conn_count_max = 10000,
        .conn_count_max_per_host = 64,
        .accept_turn_max = 64,
        .rest_ms = 250,
    };
    hp_conn_options_init(&options->conn);
}

static void shared_unref(struct listener_shared *shared)
{
    HP_ASSERT(shared->refs > 0);
    if (--shared->refs == 0) {
        hp_strmap_deinit(&shared->per_host);
        hp_free(shared);
    }
}

static void update_watches(struct hp_listener *listener)
{
    bool on = !listener->paused && !hp_timer_is_set(listener->rest);
    for (uint32_t i = 0; i < listener->socket_count; i++) {
        /* Failing to switch one on leaves the kernel to queue until the next switch. */
        (void)!hp_watch_set(listener->sockets[i].watch, on, false);
    }
}

static void open_reserve(struct hp_listener *listener)
{
    if (listener->reserve_fd < 0) {
        listener->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
}

static void on_rest_over(struct hp_timer *timer, void *context)
{
    struct hp_listener *listener = context;
    (void)timer;
    open_reserve(listener);
    update_watches(listener);
}

struct hp_listener *hp_listener_new(struct hp_loop *loop, const struct hp_listener_options *options,
                                    const struct hp_listener_handlers *handlers, void *context)
{
    struct hp_listener *listener = hp_calloc(1, sizeof(*listener));
    if (listener == NULL) {
        return NULL;
    }
    *listener = (struct hp_listener){
        .loop = loop, .handlers = *handlers, .context = context, .reserve_fd = -1};
    if (options != NULL) {
        listener->options = *options;
    } else {
        hp_listener_options_init(&listener->options);
    }
    listener->shared = hp_calloc(1, sizeof(*listener->shared));
    listener->rest = hp_timer_new(loop, on_rest_over, listener);
    if (listener->shared != NULL) {
        listener->shared->refs = 1;
        hp_strmap_init(&listener->shared->per_host, 0);
    }
    open_reserve(listener);
    if (listener->shared == NULL || listener->rest == NULL || listener->reserve_fd < 0) {
        hp_listener_free(listener);
        return NULL;
    }
    return listener;
}

void hp_listener_shut(struct hp_listener *listener)
{
    for (uint32_t i = 0; i < listener->socket_count; i++) {
        hp_watch_free(listener->sockets[i].watch);
        (void)close(listener->sockets[i].fd); /* nothing is buffered in a listening socket */
    }
    listener->socket_count = 0;
}

void hp_listener_free(struct hp_listener *listener)
{
    if (listener == NULL) {
        return;
    }
    hp_listener_shut(listener);
    hp_timer_free(listener->rest);
    if (listener->reserve_fd >= 0) {
        (void)close(listener->reserve_fd);
    }
    if (listener->shared != NULL) {
        shared_unref(listener->shared);
    }
    hp_free(listener);
}

/* ------------------------------------------------------------------------------------ accepting */

static void refuse(struct hp_listener *listener, const char *peer, const char *reason)
{
    listener->refused_count++;
    if (listener->handlers.on_refused != NULL) {
        listener->handlers.on_refused(listener, peer, reason, listener->context);
    }
}

static uint64_t host_count(const struct listener_shared *shared, const char *host)
{
    uint64_t count = 0;
    (void)hp_strmap_find(&shared->per_host, hp_str_of(host), &count); /* none: 0 */
    return count;
}

static void on_conn_gone(struct hp_conn *conn, void *context)
{
    struct listener_shared *shared = context;
    HP_ASSERT(shared->conn_count > 0);
    shared->conn_count--;
    if (!hp_addr_is_loopback(&conn->peer_addr)) {
        char host[HP_ADDR_TEXT_BYTES];
        (void)hp_addr_host_text(&conn->peer_addr, host, sizeof(host));
        uint64_t count = host_count(shared, host);
        HP_ASSERT(count > 0);
        if (count == 1) {
            (void)hp_strmap_remove(&shared->per_host, hp_str_of(host), NULL);
        } else {
            enum hp_err err = hp_strmap_put(&shared->per_host, hp_str_of(host), count - 1, NULL);
            HP_ASSERT(err == HP_OK); /* the key is there: no memory is needed */
        }
    }
    shared_unref(shared);
}

/* NULL, or why this peer is turned away. */
static const char *check_caps(const struct hp_listener *listener, const struct hp_addr *addr,
                              const char *host)
{
    if (listener->shared->conn_count >= listener->options.conn_count_max) {
        return "too many connections";
    }
    if (!hp_addr_is_loopback(addr) &&
        host_count(listener->shared, host) >= listener->options.conn_count_max_per_host) {
        return "too many connections from this address";
    }
    return NULL;
}

static void ignore_bytes(struct hp_conn *conn, void *context)
{
    (void)conn;
    (void)context;
}

static void ignore_closed(struct hp_conn *conn, const char *reason, void *context)
{
    (void)conn;
    (void)reason;
    (void)context;
}

static void take_peer(struct hp_listener *listener, int fd, const struct hp_addr *addr)
{
    static const struct hp_conn_handlers none = {.on_bytes = ignore_bytes,
                                                 .on_closed = ignore_closed};
    char peer[HP_ADDR_TEXT_BYTES];
    char host[HP_ADDR_TEXT_BYTES];
    (void)hp_addr_text(addr, peer, sizeof(peer));
    (void)hp_addr_host_text(addr, host, sizeof(host));
    const char *why_not = check_caps(listener, addr, host);
    if (why_not != NULL) {
        (void)close(fd); /* the peer sees the end, and may come back */
        refuse(listener, peer, why_not);
        return;
    }
    struct hp_error error = {0};
    struct hp_conn *conn = NULL;
    if (hp_conn_new_fd(listener->loop, fd, &listener->options.conn, &none, NULL, &conn, &error) !=
        HP_OK) {
        refuse(listener, peer, error.text); /* it has closed the fd */
        return;
    }
    struct listener_shared *shared = listener->shared;
    if (!hp_addr_is_loopback(&conn->peer_addr) &&
        hp_strmap_put(&shared->per_host, hp_str_of(host), host_count(shared, host) + 1, NULL) !=
            HP_OK) {
        hp_conn_free(conn);
        refuse(listener, peer, "out of memory");
        return;
    }
    shared->refs++;
    shared->conn_count++;
    conn->on_gone = on_conn_gone;
    conn->gone_context = shared;
    listener->handlers.on_conn(listener, conn, listener->context);
}

static void rest(struct hp_listener *listener)
{
    hp_timer_set(listener->rest, listener->options.rest_ms);
    update_watches(listener);
}

/* Out of descriptors: one peer is taken with the reserve and closed, then accepting rests. */
static void turn_away(struct hp_listener *listener, int listen_fd, const char *reason)
{
    if (listener->reserve_fd >= 0) {
        (void)close(listener->reserve_fd); /* /dev/null */
        listener->reserve_fd = -1;
        int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            (void)close(fd); /* that is what the reserve is for */
        }
        open_reserve(listener);
    }
    refuse(listener, "-", reason);
    rest(listener);
}

static void on_acceptable(struct hp_watch *watch, bool readable, bool writable, void *context)
{
    struct listener_socket *sock = context;
    struct hp_listener *listener = sock->listener;
    (void)watch;
    (void)readable;
    (void)writable;
    for (uint32_t i = 0; i < listener->options.accept_turn_max; i++) {
        struct hp_addr addr = {.size = sizeof(addr.storage)};
        struct sockaddr *sa = (struct sockaddr *)(void *)&addr.storage;
        int fd = accept4(sock->fd, sa, &addr.size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take_peer(listener, fd, &addr);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            turn_away(listener, sock->fd, strerror(errno));
            return;
        } else if (errno != EINTR && errno != ECONNABORTED && errno != EPROTO) {
            refuse(listener, "-", strerror(errno));
            rest(listener); /* unknown trouble must not spin */
            return;
        }
    }
}

/* ------------------------------------------------------------------------------------ addresses */

static enum hp_err bind_socket(int fd, const struct hp_addr *addr, const char *text,
                               struct hp_error *reterr)
{
    int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)); /* bind tells if it matters */
    if (addr->storage.ss_family == AF_INET6) {
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)); /* as above */
    }
    const struct sockaddr *sa = (const struct sockaddr *)(const void *)&addr->storage;
    if (bind(fd, sa, addr->size) != 0 || listen(fd, LISTEN_BACKLOG) != 0) {
        if (errno == EADDRINUSE) {
            return hp_error_set(reterr, HP_ERR_BUSY,
                                "cannot listen on %s: another process uses this port", text);
        }
        return hp_error_set(reterr, HP_ERR_IO, "cannot listen on %s: %s", text, strerror(errno));
    }
    return HP_OK;
}

enum hp_err hp_listener_add(struct hp_listener *listener, const struct hp_addr *addr,
                            struct hp_error *reterr)
{
    char text[HP_ADDR_TEXT_BYTES];
    (void)hp_addr_text(addr, text, sizeof(text));
    if (listener->socket_count == LISTEN_COUNT_MAX) {
        return hp_error_set(reterr, HP_ERR_FULL, "more than %u addresses to listen on",
                            LISTEN_COUNT_MAX);
    }
    int fd = socket(addr->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return hp_error_set(reterr, HP_ERR_IO, "cannot listen on %s: %s", text, strerror(errno));
    }
    struct listener_socket *sock = &listener->sockets[listener->socket_count];
    *sock = (struct listener_socket){
        .listener = listener, .fd = fd, .addr = {.size = sizeof(sock->addr.storage)}};
    enum hp_err err = bind_socket(fd, addr, text, reterr);
    if (err == HP_OK) {
        struct sockaddr *sa = (struct sockaddr *)(void *)&sock->addr.storage;
        int rc = getsockname(fd, sa, &sock->addr.size);
        HP_ASSERT(rc == 0); /* a bound socket has a name */
        sock->watch = hp_watch_new(listener->loop, fd, on_acceptable, sock);
        err = sock->watch != NULL ? HP_OK : hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    if (err != HP_OK) {
        (void)close(fd);
        return err;
    }
    listener->socket_count++;
    update_watches(listener);
    return HP_OK;
}

const struct hp_addr *hp_listener_addr(const struct hp_listener *listener, uint32_t index)
{
    return index < listener->socket_count ? &listener->sockets[index].addr : NULL;
}

void hp_listener_pause(struct hp_listener *listener, bool paused)
{
    listener->paused = paused;
    update_watches(listener);
}

uint32_t hp_listener_conn_count(const struct hp_listener *listener)
{
    return listener->shared->conn_count;
}

uint64_t hp_listener_refused_count(const struct hp_listener *listener)
{
    return listener->refused_count;
}
