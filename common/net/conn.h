/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A nonblocking byte stream over TCP with an input and an output buffer of its own.
 *
 *  - TCP_NODELAY, keepalive and TCP_USER_TIMEOUT are always set.
 *  - Input: bytes are read into hp_conn_input() up to a limit; what the owner does not consume
 * stays and, at the limit, stops the reading, so a peer can never make us hold more.
 *  - Output: appended during a turn, written at its end with one write() by hp_conn_flush() (or
 *    hp_loop_flush() for all). What the kernel does not take is written when it can.
 *  - Ends once: on_closed with a reason, after which only hp_conn_free() and the plain getters may
 *    be called. Callbacks run only inside hp_loop_turn(), hp_loop_flush() and hp_conn_flush(),
 * never inside another call of the owner; hp_conn_free() may be called in any callback.
 *
 * One thread: that of the loop.
 */
#ifndef HP_NET_CONN_H
#define HP_NET_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/bin.h"
#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/net/addr.h"
#include "common/net/loop.h"

struct hp_conn;

struct hp_conn_handlers {
    /* A connect has succeeded (never called for accepted ones). May be NULL. */
    void (*on_open)(struct hp_conn *conn, void *context);
    /* New bytes are in hp_conn_input(). Required. */
    void (*on_bytes)(struct hp_conn *conn, void *context);
    /*
     * The peer has shut its end: no more input comes, what is queued can still be written. The
     * owner then calls hp_conn_shutdown(). NULL: the connection ends by itself, "closed by the
     * peer".
     */
    void (*on_eof)(struct hp_conn *conn, void *context);
    /* The output went over output_high_bytes, or back to half of it. May be NULL. */
    void (*on_level)(struct hp_conn *conn, bool over, void *context);
    /* The end, once. `reason` is a sentence part for logs, valid during the call. Required. */
    void (*on_closed)(struct hp_conn *conn, const char *reason, void *context);
};

struct hp_conn_options {
    size_t input_bytes_max;   /* input is not read beyond this */
    size_t read_turn_bytes;   /* at most this is read from one connection in a turn */
    size_t output_high_bytes; /* level for on_level */
    size_t output_bytes_max;  /* over this the connection is closed */
    uint32_t connect_ms;      /* for each address of a connect, handshake included */
    uint32_t user_timeout_ms; /* unacknowledged data or silence of the peer's kernel: closed */
    uint32_t linger_ms;       /* longest wait for the peer after hp_conn_shutdown */
};

/* Sets the defaults: 1 MiB + 64 KiB, 256 KiB, 4 MiB, 64 MiB, 5 s, 20 s, 2 s. */
void hp_conn_options_init(struct hp_conn_options *options);

/* Wraps a connected stream socket, which the connection owns from now on, also on failure. */
enum hp_err hp_conn_new_fd(struct hp_loop *loop, int fd, const struct hp_conn_options *options,
                           const struct hp_conn_handlers *handlers, void *context,
                           struct hp_conn **ret_conn, struct hp_error *reterr) HP_MUST_CHECK;

/*
 * Starts to connect. The name is resolved anew (in a thread of its own, unless it is a number), all
 * its addresses are tried in turn; then on_open, or on_closed with the reason of the last failure.
 * `options` may be NULL. Output may be queued at once.
 */
enum hp_err hp_conn_new_connect(struct hp_loop *loop, const struct hp_endpoint *endpoint,
                                const struct hp_conn_options *options,
                                const struct hp_conn_handlers *handlers, void *context,
                                struct hp_conn **ret_conn, struct hp_error *reterr) HP_MUST_CHECK;

/* Closes the socket at once if that was not done; no callback follows. NULL is fine. */
void hp_conn_free(struct hp_conn *conn);

/* Replaces the callbacks, e.g. of an accepted connection; at any time. */
void hp_conn_set_handlers(struct hp_conn *conn, const struct hp_conn_handlers *handlers,
                          void *context);

/* ---------------------------------------------------------------------------------------- input */

/* What has arrived and was not consumed. Use hp_buf_consume() on it, then hp_conn_input_done(). */
struct hp_buf *hp_conn_input(struct hp_conn *conn);

/* Call after consuming: gives idle memory back and reads on if the limit had stopped the reading.
 */
void hp_conn_input_done(struct hp_conn *conn);

/* Changes options.input_bytes_max. */
void hp_conn_set_input_max(struct hp_conn *conn, size_t bytes_max);

/* Stops and resumes the reading from the socket. A pause leaves what was read in the input. */
void hp_conn_pause(struct hp_conn *conn, bool paused);

/* --------------------------------------------------------------------------------------- output */

/*
 * The buffer to append to (or to encode into) directly; call hp_conn_output_touch() afterwards.
 * Never consume from it. After the end of the connection it takes bytes and drops them.
 */
struct hp_buf *hp_conn_output(struct hp_conn *conn);

/* Says that output was appended, so that hp_loop_flush() finds this connection. */
void hp_conn_output_touch(struct hp_conn *conn);

/* Appends a copy. Never fails towards the caller: over its limits the connection ends instead. */
void hp_conn_send(struct hp_conn *conn, const void *data, size_t size);

/* Appends the bytes of `bytes` and takes its memory: `bytes` is empty afterwards. */
void hp_conn_send_take(struct hp_conn *conn, struct hp_buf *bytes);

/*
 * The same for what nobody waits for: it is queued in its place, and leaves with what is sent after
 * it, or after hp_loop_touch_later().
 */
void hp_conn_send_later(struct hp_conn *conn, struct hp_buf *bytes);

/* Writes what is queued: one write(). Callbacks may run. */
void hp_conn_flush(struct hp_conn *conn);

/* Bytes queued and not taken by the kernel. */
size_t hp_conn_output_size(const struct hp_conn *conn);

/*
 * Ends the connection in an orderly way: reads no more, writes what is queued, waits up to
 * linger_ms for the peer to close (so that the last reply is not lost to a reset), then
 * on_closed(reason). A second call changes nothing. `reason` is copied (255 bytes).
 */
void hp_conn_shutdown(struct hp_conn *conn, const char *reason);

/* ------------------------------------------------------------------------------------ properties
 */

/* Peer address text, "127.0.0.1:51234"; before a connect succeeded the endpoint as written. */
const char *hp_conn_peer(const struct hp_conn *conn);
/* Address of the peer (size 0 while a connect is under way). */
const struct hp_addr *hp_conn_peer_addr(const struct hp_conn *conn);
bool hp_conn_is_loopback(const struct hp_conn *conn);
/* Established, and neither closing nor closed. */
bool hp_conn_is_open(const struct hp_conn *conn);
uint64_t hp_conn_bytes_in(const struct hp_conn *conn);
uint64_t hp_conn_bytes_out(const struct hp_conn *conn);

/* --------------------------------------------------------------------------------- the TLS seam */

/* What a transport is waiting for, when it returns EAGAIN. */
enum hp_transport_want { HP_TRANSPORT_WANT_READ = 1, HP_TRANSPORT_WANT_WRITE = 2 };

/*
 * How bytes get through the socket. The plain transport calls read() and write(); an encrypting one
 * keeps its session in `state`.
 */
struct hp_transport {
    const char *name;
    /* As read(2)/write(2); EAGAIN: *ret_want (preset to the natural one) says what to wait for. */
    ssize_t (*read)(void *state, int fd, void *data, size_t size, enum hp_transport_want *ret_want);
    ssize_t (*write)(void *state, int fd, const void *data, size_t size,
                     enum hp_transport_want *ret_want);
    /* 0: done; -1 with errno, EAGAIN as above. */
    int (*handshake)(void *state, int fd, enum hp_transport_want *ret_want);
    /* Text of the last failure, or NULL to use errno's. */
    const char *(*failure)(void *state);
    void (*free)(void *state);
};

/* Sets another transport before the first byte has passed; the connection owns `state`. */
void hp_conn_set_transport(struct hp_conn *conn, const struct hp_transport *transport, void *state);

#endif
