/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections: reading with limits, writing once a turn, ending once.
 *
 * I1: callbacks run only between hp_conn_enter_ and hp_conn_leave_; the object outlives them.
 * I2: after CONN_CLOSED there is no socket, no watch, no timer and no output.
 * I3: input.size <= options.input_bytes_max at all times.
 */
#include "common/net/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/net/conn_impl.h"
#include "common/net/loop_impl.h"

#define READ_CHUNK_FIRST 16384u
#define READ_CHUNK_NEXT 65536u
#define IDLE_BYTES_KEPT 1024u /* an idle connection keeps no larger buffer */
#define DISCARD_BYTES_MAX (4u << 20)

#define KEEPALIVE_IDLE_S 10
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_PROBES 3

/* ----------------------------------------------------------------------------- life of an object
 */

void hp_conn_options_init(struct hp_conn_options *options)
{
    *options = (struct hp_conn_options){
        .input_bytes_max = (1u << 20) + (64u << 10),
        .read_turn_bytes = 256u << 10,
        .output_high_bytes = 4u << 20,
        .output_bytes_max = 64u << 20,
        .connect_ms = 5000,
        .user_timeout_ms = 20000,
        .linger_ms = 2000,
    };
}

static void on_conn_event(struct hp_watch *watch, bool readable, bool writable, void *context);
static void on_conn_timer(struct hp_timer *timer, void *context);

enum hp_err hp_conn_alloc_(struct hp_loop *loop, const struct hp_conn_options *options,
                           const struct hp_conn_handlers *handlers, void *context,
                           struct hp_conn **ret_conn, struct hp_error *reterr)
{
    HP_ASSERT(handlers->on_bytes != NULL && handlers->on_closed != NULL);
    struct hp_conn *conn = hp_calloc(1, sizeof(*conn));
    if (conn == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    conn->loop = loop;
    conn->handlers = *handlers;
    conn->context = context;
    conn->fd = -1;
    conn->transport = &hp_transport_plain_;
    if (options != NULL) {
        conn->options = *options;
    } else {
        hp_conn_options_init(&conn->options);
    }
    hp_buf_init(&conn->input, conn->options.input_bytes_max);
    hp_buf_init(&conn->output, conn->options.output_bytes_max);
    hp_list_init(&conn->dirty);
    hp_list_init(&conn->later);
    conn->timer = hp_timer_new(loop, on_conn_timer, conn);
    if (conn->timer == NULL) {
        hp_free(conn);
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    *ret_conn = conn;
    return HP_OK;
}

static void set_int_option(int fd, int level, int name, int value)
{
    /* Fails on sockets which are not TCP (tests); such a peer is on this host anyway. */
    (void)setsockopt(fd, level, name, &value, sizeof(value));
}

static void set_socket_options(int fd, const struct hp_conn_options *options)
{
    set_int_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_int_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_int_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    set_int_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    set_int_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
    set_int_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)options->user_timeout_ms);
}

enum hp_err hp_conn_attach_(struct hp_conn *conn, int fd)
{
    HP_ASSERT(conn->fd == -1 && fd >= 0);
    conn->fd = fd;
    set_socket_options(fd, &conn->options);
    conn->watch = hp_watch_new(conn->loop, fd, on_conn_event, conn);
    return conn->watch == NULL ? HP_ERR_NOMEM : HP_OK;
}

void hp_conn_detach_(struct hp_conn *conn)
{
    hp_watch_free(conn->watch);
    conn->watch = NULL;
    if (conn->transport->free != NULL) {
        conn->transport->free(conn->transport_state);
    }
    conn->transport = &hp_transport_plain_;
    conn->transport_state = NULL;
    if (conn->fd >= 0) {
        (void)close(conn->fd); /* all that matters was written, or is lost with the peer */
        conn->fd = -1;
    }
}

static enum hp_err prepare_fd(struct hp_conn *conn, int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        return HP_ERR_IO;
    }
    conn->peer_addr.size = sizeof(conn->peer_addr.storage);
    struct sockaddr *addr = (struct sockaddr *)(void *)&conn->peer_addr.storage;
    if (getpeername(fd, addr, &conn->peer_addr.size) != 0) {
        return HP_ERR_IO;
    }
    (void)hp_addr_text(&conn->peer_addr, conn->peer, sizeof(conn->peer));
    return HP_OK;
}

static void update_watch(struct hp_conn *conn);

enum hp_err hp_conn_new_fd(struct hp_loop *loop, int fd, const struct hp_conn_options *options,
                           const struct hp_conn_handlers *handlers, void *context,
                           struct hp_conn **ret_conn, struct hp_error *reterr)
{
    struct hp_conn *conn = NULL;
    enum hp_err err = hp_conn_alloc_(loop, options, handlers, context, &conn, reterr);
    if (err != HP_OK) {
        (void)close(fd);
        return err;
    }
    err = hp_conn_attach_(conn, fd);
    if (err == HP_OK) {
        err = prepare_fd(conn, fd);
    }
    if (err != HP_OK) {
        int error = errno;
        hp_conn_free(conn);
        return hp_error_set(reterr, err, "cannot use the socket: %s", strerror(error));
    }
    conn->state = CONN_OPEN;
    update_watch(conn);
    *ret_conn = conn;
    return HP_OK;
}

/* Everything but the memory. */
static void release(struct hp_conn *conn)
{
    hp_list_remove(&conn->dirty);
    hp_list_remove(&conn->later);
    hp_conn_connect_free_(conn);
    hp_conn_detach_(conn);
    hp_timer_free(conn->timer);
    conn->timer = NULL;
    hp_buf_deinit(&conn->output);
    conn->state = CONN_CLOSED; /* I2 */
    if (conn->on_gone != NULL) {
        void (*on_gone)(struct hp_conn *, void *) = conn->on_gone;
        conn->on_gone = NULL;
        on_gone(conn, conn->gone_context);
    }
}

void hp_conn_free(struct hp_conn *conn)
{
    if (conn == NULL) {
        return;
    }
    HP_ASSERT(!conn->freed);
    release(conn);
    hp_buf_deinit(&conn->input);
    if (conn->depth > 0) {
        conn->freed = true; /* I1: hp_conn_leave_ frees it */
    } else {
        hp_free(conn);
    }
}

void hp_conn_enter_(struct hp_conn *conn)
{
    conn->depth++;
}

void hp_conn_leave_(struct hp_conn *conn)
{
    HP_ASSERT(conn->depth > 0);
    conn->depth--;
    if (conn->depth == 0 && conn->freed) {
        hp_free(conn);
    }
}

void hp_conn_set_handlers(struct hp_conn *conn, const struct hp_conn_handlers *handlers,
                          void *context)
{
    HP_ASSERT(handlers->on_bytes != NULL && handlers->on_closed != NULL);
    conn->handlers = *handlers;
    conn->context = context;
}

/* The one end: releases all, then tells the owner. Call between enter and leave. */
void hp_conn_finish_(struct hp_conn *conn, const char *reason)
{
    HP_ASSERT(conn->depth > 0);
    if (conn->state == CONN_CLOSED) {
        return;
    }
    if (reason != conn->reason) {
        (void)hp_strlcpy(conn->reason, reason, sizeof(conn->reason)); /* cut is fine for a log */
    }
    release(conn);
    conn->handlers.on_closed(conn, conn->reason, conn->context);
}

/* -------------------------------------------------------------------------------------- events */

static bool wants_bytes(const struct hp_conn *conn)
{
    return conn->state == CONN_OPEN && !conn->paused && !conn->eof &&
           conn->input.size < conn->options.input_bytes_max;
}

static void set_fatal(struct hp_conn *conn, const char *reason);

static void update_watch(struct hp_conn *conn)
{
    bool read = false;
    bool write = false;
    switch (conn->state) {
    case CONN_CONNECTING:
        write = true;
        break;
    case CONN_HANDSHAKE:
        read = !conn->read_wants_write;
        write = conn->read_wants_write;
        break;
    case CONN_OPEN:
    case CONN_FLUSHING:
        read = wants_bytes(conn) || conn->write_wants_read;
        write = (conn->blocked && !conn->write_wants_read) ||
                (conn->read_wants_write && wants_bytes(conn));
        break;
    case CONN_LINGERING:
        read = true;
        break;
    case CONN_RESOLVING:
    case CONN_CLOSED:
        return;
    }
    /* Between two addresses of a connect there is no socket. */
    if (conn->watch != NULL && hp_watch_set(conn->watch, read, write) != HP_OK) {
        set_fatal(conn, "out of memory");
    }
}

static const char *failure_text(const struct hp_conn *conn, int error)
{
    const char *text = NULL;
    if (conn->transport->failure != NULL) {
        text = conn->transport->failure(conn->transport_state);
    }
    return text != NULL ? text : strerror(error);
}

/* One read; returns the bytes, 0 for "no more now", -1 when the connection was finished or shut. */
static ssize_t read_some(struct hp_conn *conn, size_t chunk)
{
    uint8_t *at = NULL;
    if (hp_buf_reserve(&conn->input, chunk, &at) != HP_OK) {
        hp_conn_finish_(conn, "out of memory");
        return -1;
    }
    enum hp_transport_want want = HP_TRANSPORT_WANT_READ;
    ssize_t n = conn->transport->read(conn->transport_state, conn->fd, at, chunk, &want);
    conn->read_wants_write = false;
    if (n > 0) {
        hp_buf_commit(&conn->input, (size_t)n);
        conn->bytes_in += (uint64_t)n;
        return n;
    }
    if (n == 0) {
        conn->eof = true;
        return -1;
    }
    if (errno == EAGAIN || errno == EINTR) {
        conn->read_wants_write = want == HP_TRANSPORT_WANT_WRITE;
        return 0;
    }
    hp_conn_finish_(conn, failure_text(conn, errno));
    return -1;
}

static void read_input(struct hp_conn *conn)
{
    size_t total = 0;
    size_t chunk_max = READ_CHUNK_FIRST;
    bool plain = conn->transport == &hp_transport_plain_;
    while (wants_bytes(conn) && total < conn->options.read_turn_bytes) {
        size_t chunk = HP_MIN(chunk_max, conn->options.input_bytes_max - conn->input.size); /* I3 */
        ssize_t n = read_some(conn, chunk);
        if (n <= 0) {
            break;
        }
        total += (size_t)n;
        if (plain && (size_t)n < chunk) {
            break; /* the socket is drained; another read would only say so */
        }
        chunk_max = READ_CHUNK_NEXT;
    }
    if (conn->state != CONN_OPEN) {
        return;
    }
    if (total > 0) {
        conn->handlers.on_bytes(conn, conn->context);
    }
    if (conn->eof && conn->state == CONN_OPEN) {
        if (conn->handlers.on_eof != NULL) {
            conn->handlers.on_eof(conn, conn->context);
        } else {
            hp_conn_finish_(conn, "closed by the peer");
        }
    }
}

/* LINGERING: throws away what the peer still sends, until it closes. */
static void discard_input(struct hp_conn *conn)
{
    uint8_t sink[4096];
    enum hp_transport_want want = HP_TRANSPORT_WANT_READ;
    size_t total = 0;
    while (total < DISCARD_BYTES_MAX) {
        ssize_t n =
            conn->transport->read(conn->transport_state, conn->fd, sink, sizeof(sink), &want);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n <= 0) {
            break;
        }
        total += (size_t)n;
    }
    hp_conn_finish_(conn, conn->reason);
}

static void handshake(struct hp_conn *conn)
{
    enum hp_transport_want want = HP_TRANSPORT_WANT_READ;
    if (conn->transport->handshake(conn->transport_state, conn->fd, &want) == 0) {
        conn->read_wants_write = false;
        conn->state = CONN_OPEN;
        hp_timer_clear(conn->timer);
        hp_conn_connect_free_(conn);
        if (conn->handlers.on_open != NULL) {
            conn->handlers.on_open(conn, conn->context);
        }
        hp_conn_output_touch(conn); /* what was queued before */
    } else if (errno == EAGAIN || errno == EINTR) {
        conn->read_wants_write = want == HP_TRANSPORT_WANT_WRITE;
    } else {
        hp_conn_finish_(conn, failure_text(conn, errno));
    }
}

/* The socket is connected: shake hands, or open at once when there is nothing to shake. */
void hp_conn_established_(struct hp_conn *conn)
{
    conn->state = CONN_HANDSHAKE;
    handshake(conn);
}

static void write_output(struct hp_conn *conn);

static void on_conn_event(struct hp_watch *watch, bool readable, bool writable, void *context)
{
    struct hp_conn *conn = context;
    (void)watch;
    hp_conn_enter_(conn);
    switch (conn->state) {
    case CONN_CONNECTING:
        hp_conn_connect_event_(conn);
        break;
    case CONN_HANDSHAKE:
        handshake(conn);
        break;
    case CONN_OPEN:
    case CONN_FLUSHING:
        if ((writable && conn->blocked) || (readable && conn->write_wants_read)) {
            conn->blocked = false;
            write_output(conn);
        }
        if (conn->state == CONN_OPEN && (readable || conn->read_wants_write)) {
            read_input(conn);
        }
        break;
    case CONN_LINGERING:
        discard_input(conn);
        break;
    case CONN_RESOLVING:
    case CONN_CLOSED:
        break;
    }
    if (conn->state != CONN_CLOSED) {
        update_watch(conn);
    }
    hp_conn_leave_(conn);
}

static void on_conn_timer(struct hp_timer *timer, void *context)
{
    struct hp_conn *conn = context;
    (void)timer;
    hp_conn_enter_(conn);
    if (conn->fatal || conn->state == CONN_FLUSHING || conn->state == CONN_LINGERING) {
        hp_conn_finish_(conn, conn->reason);
    } else if (conn->state == CONN_CONNECTING || conn->state == CONN_HANDSHAKE) {
        hp_conn_connect_timeout_(conn);
        if (conn->state != CONN_CLOSED) {
            update_watch(conn);
        }
    }
    hp_conn_leave_(conn);
}

/* --------------------------------------------------------------------------------------- input */

struct hp_buf *hp_conn_input(struct hp_conn *conn)
{
    return &conn->input;
}

void hp_conn_input_done(struct hp_conn *conn)
{
    if (conn->input.size == 0 && conn->input.capacity > IDLE_BYTES_KEPT) {
        hp_buf_deinit(&conn->input);
    }
    update_watch(conn);
}

void hp_conn_set_input_max(struct hp_conn *conn, size_t bytes_max)
{
    conn->options.input_bytes_max = bytes_max;
    conn->input.max = HP_MAX(bytes_max, HP_MAX(conn->input.size, 1));
    update_watch(conn);
}

void hp_conn_pause(struct hp_conn *conn, bool paused)
{
    if (conn->paused != paused) {
        conn->paused = paused;
        update_watch(conn);
    }
}

/* -------------------------------------------------------------------------------------- output */

void hp_conn_output_touch(struct hp_conn *conn)
{
    if (conn->state == CONN_CLOSED) {
        hp_buf_clear(&conn->output);
    } else if (!hp_list_is_linked(&conn->dirty)) {
        hp_list_push_back(&conn->loop->dirty, &conn->dirty);
    }
}

struct hp_buf *hp_conn_output(struct hp_conn *conn)
{
    return &conn->output;
}

/* Ends the connection at the next flush, because callbacks must not run inside the owner's calls.
 */
static void set_fatal(struct hp_conn *conn, const char *reason)
{
    if (!conn->fatal && conn->state != CONN_CLOSED) {
        conn->fatal = true;
        (void)hp_strlcpy(conn->reason, reason, sizeof(conn->reason)); /* cut is fine for a log */
        hp_conn_output_touch(conn);
    }
}

static void set_fatal_output(struct hp_conn *conn, enum hp_err err)
{
    char reason[96];
    if (err == HP_ERR_FULL) {
        (void)snprintf(reason, sizeof(reason), "the peer does not read: over %zu bytes wait for it",
                       conn->options.output_bytes_max);
    } else {
        (void)hp_strlcpy(reason, "out of memory", sizeof(reason));
    }
    set_fatal(conn, reason);
}

void hp_conn_send(struct hp_conn *conn, const void *data, size_t size)
{
    if (conn->state == CONN_CLOSED || size == 0) {
        return;
    }
    enum hp_err err = hp_buf_append(&conn->output, data, size);
    if (err != HP_OK) {
        set_fatal_output(conn, err);
    }
    hp_conn_output_touch(conn);
}

void hp_conn_send_take(struct hp_conn *conn, struct hp_buf *bytes)
{
    if (conn->state != CONN_CLOSED && conn->output.size == 0 &&
        bytes->size <= conn->options.output_bytes_max) {
        hp_buf_deinit(&conn->output);
        conn->output = *bytes;
        conn->output.max = conn->options.output_bytes_max;
        hp_buf_init(bytes, bytes->max);
        hp_conn_output_touch(conn);
        return;
    }
    hp_conn_send(conn, bytes->data, bytes->size);
    hp_buf_deinit(bytes);
}

size_t hp_conn_output_size(const struct hp_conn *conn)
{
    return conn->output.size;
}

static void tell_level(struct hp_conn *conn)
{
    size_t high = conn->options.output_high_bytes;
    bool over = conn->over ? conn->output.size > high / 2 : conn->output.size > high;
    if (over != conn->over) {
        conn->over = over;
        if (conn->handlers.on_level != NULL) {
            conn->handlers.on_level(conn, over, conn->context);
        }
    }
}

static void linger(struct hp_conn *conn)
{
    if (conn->eof || shutdown(conn->fd, SHUT_WR) != 0) {
        hp_conn_finish_(conn, conn->reason);
        return;
    }
    conn->state = CONN_LINGERING;
    hp_timer_set(conn->timer, conn->options.linger_ms);
}

/* One write of what is queued, then what follows from it. Call between enter and leave. */
static void write_output(struct hp_conn *conn)
{
    if (conn->output.size > 0 && !conn->blocked) {
        enum hp_transport_want want = HP_TRANSPORT_WANT_WRITE;
        ssize_t n = conn->transport->write(conn->transport_state, conn->fd, conn->output.data,
                                           conn->output.size, &want);
        conn->write_wants_read = false;
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            hp_conn_finish_(conn, failure_text(conn, errno));
            return;
        }
        if (n > 0) {
            conn->bytes_out += (uint64_t)n;
            hp_buf_consume(&conn->output, (size_t)n);
        }
        conn->blocked = conn->output.size > 0;
        conn->write_wants_read = n < 0 && want == HP_TRANSPORT_WANT_READ;
    }
    if (conn->output.size == 0 && conn->output.capacity > IDLE_BYTES_KEPT) {
        hp_buf_deinit(&conn->output);
    }
    if (conn->state == CONN_OPEN) {
        tell_level(conn);
    } else if (conn->state == CONN_FLUSHING && conn->output.size == 0) {
        linger(conn);
    }
}

void hp_conn_flush(struct hp_conn *conn)
{
    hp_conn_enter_(conn);
    hp_list_remove(&conn->dirty);
    hp_list_remove(&conn->later);
    if (conn->fatal) {
        hp_conn_finish_(conn, conn->reason);
    } else if (conn->state == CONN_OPEN || conn->state == CONN_FLUSHING) {
        write_output(conn);
        if (conn->state != CONN_CLOSED) {
            update_watch(conn);
        }
    }
    hp_conn_leave_(conn);
}

void hp_loop_flush(struct hp_loop *loop)
{
    struct hp_list *node = NULL;
    while ((node = hp_list_first(&loop->dirty)) != NULL) {
        hp_conn_flush(HP_LIST_ENTRY(node, struct hp_conn, dirty)); /* takes it off the list */
    }
}

void hp_conn_shutdown(struct hp_conn *conn, const char *reason)
{
    if (conn->state >= CONN_FLUSHING || conn->fatal) {
        return;
    }
    if (conn->state != CONN_OPEN) {
        set_fatal(conn, reason); /* not connected yet: there is nothing to flush */
        return;
    }
    (void)hp_strlcpy(conn->reason, reason, sizeof(conn->reason)); /* cut is fine for a log */
    conn->state = CONN_FLUSHING;
    hp_timer_set(conn->timer, conn->options.linger_ms);
    hp_conn_output_touch(conn);
    update_watch(conn);
}

/* ---------------------------------------------------------------------------------- properties */

const char *hp_conn_peer(const struct hp_conn *conn)
{
    return conn->peer;
}

const struct hp_addr *hp_conn_peer_addr(const struct hp_conn *conn)
{
    return &conn->peer_addr;
}

bool hp_conn_is_loopback(const struct hp_conn *conn)
{
    return conn->peer_addr.size > 0 && hp_addr_is_loopback(&conn->peer_addr);
}

bool hp_conn_is_open(const struct hp_conn *conn)
{
    return conn->state == CONN_OPEN && !conn->fatal;
}

uint64_t hp_conn_bytes_in(const struct hp_conn *conn)
{
    return conn->bytes_in;
}

uint64_t hp_conn_bytes_out(const struct hp_conn *conn)
{
    return conn->bytes_out;
}

void hp_conn_set_transport(struct hp_conn *conn, const struct hp_transport *transport, void *state)
{
    HP_ASSERT(conn->bytes_in == 0 && conn->bytes_out == 0);
    conn->transport = transport;
    conn->transport_state = state;
    if (conn->state == CONN_OPEN) {
        conn->state = CONN_HANDSHAKE;
        hp_timer_set(conn->timer, conn->options.connect_ms);
        update_watch(conn);
    }
}
