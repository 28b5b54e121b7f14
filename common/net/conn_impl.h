/* SPDX-License-Identifier: BSD-2-Clause */
/* The inside of a connection, shared by conn.c, conn_connect.c and listener.c. Not for others. */
#ifndef HP_NET_CONN_IMPL_H
#define HP_NET_CONN_IMPL_H

#include "common/base/list.h"
#include "common/net/conn.h"

#define CONN_REASON_BYTES 256
#define CONN_ADDR_COUNT_MAX 8

enum conn_state {
    CONN_RESOLVING,  /* a thread asks the resolver */
    CONN_CONNECTING, /* connect() is under way */
    CONN_HANDSHAKE,  /* the transport shakes hands */
    CONN_OPEN,
    CONN_FLUSHING,  /* hp_conn_shutdown: what is queued goes out, nothing is read */
    CONN_LINGERING, /* our end is shut; waits for the peer's, discarding what comes */
    CONN_CLOSED,    /* on_closed was called or is being called */
};

struct conn_resolve;

/* What only a connect needs; freed when it is over. */
struct conn_connect {
    struct hp_endpoint endpoint;
    struct conn_resolve *resolve; /* owned reference; NULL when done */
    struct hp_watch *resolve_watch;
    struct hp_addr addrs[CONN_ADDR_COUNT_MAX];
    size_t addr_count;
    size_t addr_index; /* next one to try */
};

struct hp_conn {
    struct hp_loop *loop;
    struct hp_conn_handlers handlers;
    void *context;
    struct hp_conn_options options;
    enum conn_state state;
    int fd;
    struct hp_watch *watch;
    struct hp_timer *timer; /* limit of a connect, of lingering; or 0 ms: finish with `reason` */
    const struct hp_transport *transport;
    void *transport_state;
    struct hp_buf input;
    struct hp_buf output;
    struct hp_list dirty; /* in loop->dirty: has output, or must be finished */
    struct hp_list later; /* in loop->later: has output that may wait */
    uint64_t bytes_in;
    uint64_t bytes_out;
    struct hp_addr peer_addr;
    struct conn_connect *connect;                         /* owned; NULL unless connecting */
    void (*on_gone)(struct hp_conn *conn, void *context); /* the listener's: the socket closed */
    void *gone_context;
    uint32_t depth; /* callbacks of this connection on the stack */
    bool freed;     /* free the memory when depth is 0 again */
    bool paused;
    bool eof;              /* the peer has shut its end; on_eof was told */
    bool blocked;          /* the kernel's send buffer is full: wait for writable */
    bool over;             /* on_level(true) was told */
    bool read_wants_write; /* TLS: reading needs the socket writable */
    bool write_wants_read; /* TLS: writing needs it readable */
    bool fatal;            /* `reason` says why it must be finished at the next flush */
    char peer[HP_ADDR_TEXT_BYTES + HP_HOST_BYTES];
    char reason[CONN_REASON_BYTES];
};

/* transport.c */
extern const struct hp_transport hp_transport_plain_;

/* conn.c */
enum hp_err hp_conn_alloc_(struct hp_loop *loop, const struct hp_conn_options *options,
                           const struct hp_conn_handlers *handlers, void *context,
                           struct hp_conn **ret_conn, struct hp_error *reterr) HP_MUST_CHECK;
enum hp_err hp_conn_attach_(struct hp_conn *conn, int fd) HP_MUST_CHECK;
void hp_conn_detach_(struct hp_conn *conn); /* closes the socket, keeps the object */
void hp_conn_established_(struct hp_conn *conn);
void hp_conn_finish_(struct hp_conn *conn, const char *reason);
void hp_conn_enter_(struct hp_conn *conn);
void hp_conn_leave_(struct hp_conn *conn);

/* conn_connect.c */
void hp_conn_connect_event_(struct hp_conn *conn);   /* CONNECTING: writable */
void hp_conn_connect_timeout_(struct hp_conn *conn); /* CONNECTING, HANDSHAKE: out of time */
void hp_conn_connect_next_(struct hp_conn *conn, const char *failure);
void hp_conn_connect_free_(struct hp_conn *conn);

#endif
