/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The connections of the broker, between common/net and the core: what arrived becomes events of
 * the core, one whole frame each, and what the core sends finds its socket. The loop's callbacks
 * only note what happened; hp_peers_feed() turns it into events inside a turn.
 *
 * Nothing of a peer reaches the core or the codec before the bounded scanner has passed it. A peer
 * that breaks a rule is closed with one logged reason.
 */
#ifndef HP_SERVER_PEERS_H
#define HP_SERVER_PEERS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/net/conn.h"
#include "common/net/loop.h"
#include "server/core/core.h"

struct hp_peers;

struct hp_peers_options {
    struct hp_core *core; /* borrowed */
    /* Answers one line of text admin into `out`; false: unknown, the peer is closed. */
    bool (*on_text)(void *context, struct hp_str line, struct hp_buf *out);
    void *context;
    uint32_t batch_ops_max;   /* a turn takes no more frames when its batch has this many ops */
    size_t batch_bytes_max;   /* or this many bytes */
    size_t output_bytes_high; /* above it a peer is a slow reader */
    bool is_near;             /* peers on this host may hand content over by descriptor */
};

/* NULL: out of memory. */
struct hp_peers *hp_peers_new(struct hp_loop *loop, const struct hp_peers_options *options);
/* Closes all connections at once. NULL is fine. */
void hp_peers_free(struct hp_peers *peers);

/* Takes an accepted connection. */
void hp_peers_add(struct hp_peers *peers, struct hp_conn *conn);

/* Asked of peers that are not on this host before text admin answers; NULL: they get none. */
enum hp_err hp_peers_set_token(struct hp_peers *peers, const char *token) HP_MUST_CHECK;

/*
 * Between hp_core_begin and hp_core_end: steps the core with all that happened. What does not fit
 * into the batch waits for the next turn. `may_take_all` false: frames only of who is urgent
 * (hp_core_is_urgent): a slow disk costs no worker its lease.
 */
void hp_peers_feed(struct hp_peers *peers, const struct hp_batch *batch, bool may_take_all);

/* True if the next turn should not wait: there is input the core might take at once. */
bool hp_peers_have_input(const struct hp_peers *peers, bool may_take_all);

/* Takes the memory of `bytes`. Unknown ids (the peer has gone) are fine. */
void hp_peers_send(struct hp_peers *peers, uint64_t id, struct hp_buf *bytes, bool may_wait);

/* Ends a connection after what was sent, and logs the reason. Unknown ids are fine. */
void hp_peers_close(struct hp_peers *peers, uint64_t id, const char *reason);

/* Ends all connections in order. */
void hp_peers_close_all(struct hp_peers *peers, const char *reason);

uint32_t hp_peers_count(const struct hp_peers *peers);

#endif
