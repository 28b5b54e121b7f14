/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Listening sockets: several addresses, caps on connections (in total and for each address;
 * loopback is exempt from the latter), and a defence against running out of descriptors: a reserve
 * descriptor is given up to accept and close the waiting peer, then accepting rests for a while,
 * because a listener that stays readable would spin.
 */
#ifndef HP_NET_LISTENER_H
#define HP_NET_LISTENER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/net/addr.h"
#include "common/net/conn.h"
#include "common/net/loop.h"

struct hp_listener;

struct hp_listener_options {
    uint32_t conn_count_max;          /* open connections in all; default 10000 */
    uint32_t conn_count_max_per_host; /* for each remote address, loopback exempt; default 64 */
    uint32_t accept_turn_max;         /* accepted in one turn; default 64 */
    uint32_t rest_ms;                 /* rest after EMFILE and the like; default 250 */
    struct hp_conn_options conn;      /* of accepted connections */
};

struct hp_listener_handlers {
    /* A new connection: call hp_conn_set_handlers() on it and own it. Required. */
    void (*on_conn)(struct hp_listener *listener, struct hp_conn *conn, void *context);
    /* A peer was turned away; `reason` is for the log. May be NULL. */
    void (*on_refused)(struct hp_listener *listener, const char *peer, const char *reason,
                       void *context);
};

void hp_listener_options_init(struct hp_listener_options *options);

/* Listens on nothing yet. NULL: out of memory or descriptors. `options` may be NULL. */
struct hp_listener *hp_listener_new(struct hp_loop *loop, const struct hp_listener_options *options,
                                    const struct hp_listener_handlers *handlers,
                                    void *context) HP_MUST_CHECK;

/* Closes the sockets. Connections that came from it live on and may be freed later. */
void hp_listener_free(struct hp_listener *listener);

/*
 * Binds and listens on one address (port 0: the kernel chooses one). At most 16. HP_ERR_BUSY: the
 * port is in use; HP_ERR_IO: bind failed otherwise. The error text names the address.
 */
enum hp_err hp_listener_add(struct hp_listener *listener, const struct hp_addr *addr,
                            struct hp_error *reterr) HP_MUST_CHECK;

/* Addresses listened on, with the ports in use. NULL when index is beyond the last. */
const struct hp_addr *hp_listener_addr(const struct hp_listener *listener, uint32_t index);

/* Stops and resumes accepting (the sockets stay bound; the kernel queues). */
void hp_listener_pause(struct hp_listener *listener, bool paused);

/* Closes the listening sockets for good: new connects are refused by the kernel. */
void hp_listener_shut(struct hp_listener *listener);

/* Open connections that came from it. */
uint32_t hp_listener_conn_count(const struct hp_listener *listener);

/* Peers turned away because of a cap or for want of descriptors. */
uint64_t hp_listener_refused_count(const struct hp_listener *listener);

#endif
