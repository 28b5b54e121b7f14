/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections into events.
 *
 * I1: the core hears of a peer once when it came and once when it went, and nothing after that.
 * I2: a peer is in at most one of the lists `ready` and `stalled`; ended ones are in `ended`.
 * I3: before its hello was accepted a peer has at most PREHELLO_INPUT_BYTES in memory.
 */
#include "server/peers.h"

#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/bin.h"
#include "common/base/idmap.h"
#include "common/base/list.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/sys/log.h"
#include "common/sys/random.h"
#include "proto/tokenizer.h"

#define PREHELLO_INPUT_BYTES 8192u /* a hello of 4 KiB, and what was sent right behind it */
#define OPEN_INPUT_BYTES ((1u << 20) + (256u << 10))
#define FRAMES_PER_TURN 256u  /* of one peer; then the others have their turn */
#define SLOW_OUTPUT_FACTOR 4u /* a reader slower than this many levels is not listened to */
#define TEXT_LINE_BYTES 640u  /* "auth " and the longest token */
#define TEXT_IDLE_MS 300000u  /* a person at a terminal may think */

enum peer_mode {
    PEER_NEW, /* nothing has come */
    PEER_RPC,
    PEER_TEXT, /* the core has forgotten it */
};

struct hp_peer {
    struct hp_peers *peers;
    uint64_t id;
    struct hp_conn *conn;
    enum peer_mode mode;
    struct hp_tok tok;
    struct hp_list link;        /* opened, ready, stalled or ended: I2 */
    struct hp_list level_link;  /* in `levels` */
    struct hp_timer *text_idle; /* PEER_TEXT */
    bool is_announced;          /* it has left `opened` */
    bool is_core_told;          /* I1: it was announced, and its end was not told yet */
    bool is_greeted;
    bool is_authed; /* PEER_TEXT, not on this host */
    bool is_over;
    bool is_eof;
    bool is_ended;
};

struct hp_peers {
    struct hp_loop *loop;
    struct hp_peers_options options;
    struct hp_idmap by_id;
    uint64_t next_id;
    struct hp_list opened;  /* the core is to be told */
    struct hp_list ready;   /* have input the core may want */
    struct hp_list stalled; /* have input the core did not want */
    struct hp_list levels;  /* their output level changed */
    struct hp_list ended;   /* the core is to be told; then freed */
    char *token;            /* NULL: none */
};

struct hp_peers *hp_peers_new(struct hp_loop *loop, const struct hp_peers_options *options)
{
    struct hp_peers *peers = hp_calloc(1, sizeof(*peers));
    if (peers == NULL) {
        return NULL;
    }
    peers->loop = loop;
    peers->options = *options;
    peers->next_id = 1;
    hp_idmap_init(&peers->by_id, 0);
    struct hp_list *lists[] = {&peers->opened, &peers->ready, &peers->stalled, &peers->levels,
                               &peers->ended};
    for (size_t i = 0; i < HP_COUNT_OF(lists); i++) {
        hp_list_init(lists[i]);
    }
    return peers;
}

static void peer_free(struct hp_peer *peer)
{
    (void)hp_idmap_remove(&peer->peers->by_id, peer->id, NULL);
    hp_list_remove(&peer->link);
    hp_list_remove(&peer->level_link);
    hp_timer_free(peer->text_idle);
    hp_conn_free(peer->conn);
    hp_free(peer);
}

void hp_peers_free(struct hp_peers *peers)
{
    if (peers == NULL) {
        return;
    }
    while (hp_idmap_count(&peers->by_id) > 0) {
        struct hp_idmap_iter it = {0};
        uint64_t value = 0;
        (void)hp_idmap_next(&peers->by_id, &it, NULL, &value); /* there is one */
        peer_free((struct hp_peer *)(uintptr_t)value);
    }
    hp_idmap_deinit(&peers->by_id);
    if (peers->token != NULL) {
        explicit_bzero(peers->token, strlen(peers->token));
    }
    hp_free(peers->token);
    hp_free(peers);
}

enum hp_err hp_peers_set_token(struct hp_peers *peers, const char *token)
{
    char *copy = NULL;
    if (token != NULL) {
        copy = hp_strdup(token);
        if (copy == NULL) {
            return HP_ERR_NOMEM;
        }
    }
    if (peers->token != NULL) {
        explicit_bzero(peers->token, strlen(peers->token));
    }
    hp_free(peers->token);
    peers->token = copy;
    return HP_OK;
}

/* ----------------------------------------------------------------------- callbacks of the loop */

static void make_ready(struct hp_peer *peer)
{
    if (!hp_list_is_linked(&peer->link)) {
        hp_list_push_back(&peer->peers->ready, &peer->link);
    }
}

static void on_bytes(struct hp_conn *conn, void *context)
{
    (void)conn;
    make_ready(context);
}

static void on_eof(struct hp_conn *conn, void *context)
{
    struct hp_peer *peer = context;
    (void)conn;
    peer->is_eof = true;
    make_ready(peer); /* its last requests come first */
}

static void on_level(struct hp_conn *conn, bool over, void *context)
{
    struct hp_peer *peer = context;
    (void)conn;
    peer->is_over = over;
    if (!hp_list_is_linked(&peer->level_link)) {
        hp_list_push_back(&peer->peers->levels, &peer->level_link);
    }
}

static void on_closed(struct hp_conn *conn, const char *reason, void *context)
{
    struct hp_peer *peer = context;
    hp_log(HP_LOG_DEBUG, "conn_ended", HP_KV_U64("conn", peer->id),
           HP_KV_STR("peer", hp_conn_peer(conn)), HP_KV_STR("reason", reason));
    peer->is_ended = true;
    if (peer->is_announced) {
        hp_list_remove(&peer->link);
        hp_list_push_back(&peer->peers->ready, &peer->link); /* what was read comes first */
    } /* else it is in `opened`: the core hears that first */
}

static const struct hp_conn_handlers conn_handlers = {
    .on_bytes = on_bytes, .on_eof = on_eof, .on_level = on_level, .on_closed = on_closed};

static void on_text_idle(struct hp_timer *timer, void *context)
{
    struct hp_peer *peer = context;
    (void)timer;
    hp_conn_shutdown(peer->conn, "idle");
}

void hp_peers_add(struct hp_peers *peers, struct hp_conn *conn)
{
    struct hp_peer *peer = hp_calloc(1, sizeof(*peer));
    if (peer == NULL) {
        hp_conn_free(conn);
        hp_log(HP_LOG_WARN, "conn_refused", HP_KV_STR("reason", "out of memory"));
        return;
    }
    peer->peers = peers;
    peer->id = peers->next_id++;
    peer->conn = conn;
    hp_list_init(&peer->link);
    hp_list_init(&peer->level_link);
    hp_tok_init(&peer->tok, &hp_tok_limits_prehello);
    if (hp_idmap_put_ptr(&peers->by_id, peer->id, peer) != HP_OK) {
        peer_free(peer);
        hp_log(HP_LOG_WARN, "conn_refused", HP_KV_STR("reason", "out of memory"));
        return;
    }
    hp_conn_set_handlers(conn, &conn_handlers, peer);
    hp_conn_set_input_max(conn, PREHELLO_INPUT_BYTES); /* I3 */
    hp_list_push_back(&peers->opened, &peer->link);
    hp_log(HP_LOG_DEBUG, "conn_opened", HP_KV_U64("conn", peer->id),
           HP_KV_STR("peer", hp_conn_peer(conn)));
}

/* ------------------------------------------------------------------------------------- closing */

static void tell_gone(struct hp_peer *peer)
{
    if (peer->is_core_told) {
        peer->is_core_told = false; /* I1 */
        struct hp_event event = {.kind = HP_EVENT_CONN_CLOSED, .conn = peer->id};
        hp_core_step(peer->peers->options.core, &event);
    }
}

static void close_logged(struct hp_peer *peer, const char *reason)
{
    if (!hp_conn_is_open(peer->conn)) {
        return; /* its end was logged */
    }
    hp_log(HP_LOG_INFO, "conn_closed", HP_KV_U64("conn", peer->id),
           HP_KV_STR("peer", hp_conn_peer(peer->conn)), HP_KV_STR("reason", reason));
    hp_conn_shutdown(peer->conn, reason);
}

static struct hp_peer *peer_of(const struct hp_peers *peers, uint64_t id)
{
    return hp_idmap_find_ptr(&peers->by_id, id);
}

void hp_peers_close(struct hp_peers *peers, uint64_t id, const char *reason)
{
    struct hp_peer *peer = peer_of(peers, id);
    if (peer != NULL) {
        close_logged(peer, reason);
    }
}

void hp_peers_close_all(struct hp_peers *peers, const char *reason)
{
    struct hp_idmap_iter it = {0};
    uint64_t value = 0;
    while (hp_idmap_next(&peers->by_id, &it, NULL, &value)) {
        hp_conn_shutdown(((struct hp_peer *)(uintptr_t)value)->conn, reason);
    }
}

void hp_peers_send(struct hp_peers *peers, uint64_t id, struct hp_buf *bytes, bool may_wait)
{
    struct hp_peer *peer = peer_of(peers, id);
    if (peer == NULL) {
        hp_buf_deinit(bytes);
    } else if (may_wait) {
        hp_conn_send_later(peer->conn, bytes);
    } else {
        hp_conn_send_take(peer->conn, bytes);
    }
}

uint32_t hp_peers_count(const struct hp_peers *peers)
{
    return hp_idmap_count(&peers->by_id);
}

/* -------------------------------------------------------------------------------- text admin */

static bool is_secret(const struct hp_peers *peers, struct hp_str word)
{
    return peers->token != NULL &&
           hp_secret_eq(hp_str_as_bin(word), hp_str_as_bin(hp_str_of(peers->token)));
}

/* One line. False: the peer was closed. */
static bool take_text_line(struct hp_peer *peer, struct hp_str line)
{
    static const struct hp_str auth = HP_STR_INIT("auth ");
    bool is_known = false;
    struct hp_buf *out = hp_conn_output(peer->conn);
    while (line.size > 0 && (line.data[line.size - 1] == '\r' || line.data[line.size - 1] == ' ')) {
        line.size--;
    }
    if (hp_str_starts_with(line, auth)) {
        struct hp_str word = {.data = line.data + auth.size, .size = line.size - auth.size};
        is_known = is_secret(peer->peers, word);
        peer->is_authed = peer->is_authed || is_known;
        hp_conn_send(peer->conn, is_known ? "ok\n" : "denied\n", is_known ? 3 : 7);
        if (!is_known) {
            close_logged(peer, "text admin: wrong token");
            return false;
        }
    } else if (!hp_conn_is_loopback(peer->conn) && !peer->is_authed) {
        hp_conn_send(peer->conn, "denied: auth TOKEN first\n", 25);
        close_logged(peer, "text admin from another host without a token");
        return false;
    } else if (hp_str_eq_c(line, "quit")) {
        hp_conn_shutdown(peer->conn, "quit");
        return false;
    } else {
        is_known = peer->peers->options.on_text(peer->peers->options.context, line, out);
    }
    hp_conn_output_touch(peer->conn);
    if (!is_known) {
        hp_conn_send(peer->conn, "unknown command; try help\n", 26);
        close_logged(peer, "text admin: unknown command");
    }
    return is_known;
}

static void take_text(struct hp_peer *peer)
{
    struct hp_buf *in = hp_conn_input(peer->conn);
    for (uint32_t i = 0; i < FRAMES_PER_TURN && in->size > 0; i++) {
        const uint8_t *end = memchr(in->data, '\n', HP_MIN(in->size, TEXT_LINE_BYTES));
        if (end == NULL && in->size < TEXT_LINE_BYTES && !peer->is_eof) {
            break;
        }
        if (end == NULL && in->size >= TEXT_LINE_BYTES) {
            close_logged(peer, "text admin: line too long");
            return;
        }
        size_t size = end != NULL ? (size_t)(end - in->data) : in->size;
        struct hp_str line = hp_str_make((const char *)in->data, size);
        bool goes_on = take_text_line(peer, line);
        hp_buf_consume(in, end != NULL ? size + 1 : size);
        if (!goes_on) {
            return;
        }
    }
    hp_timer_set(peer->text_idle, TEXT_IDLE_MS);
}

static void become_text(struct hp_peer *peer)
{
    tell_gone(peer); /* hello's deadline is not for people */
    peer->mode = PEER_TEXT;
    peer->text_idle = hp_timer_new(peer->peers->loop, on_text_idle, peer);
    if (peer->text_idle == NULL) {
        close_logged(peer, "out of memory");
    }
}

/* --------------------------------------------------------------------------------------- input */

/* The first byte decides what a peer speaks. False: it was closed. */
static bool choose_mode(struct hp_peer *peer, uint8_t first)
{
    if (first == 0x93 || first == 0x94 || first == 0xdc || first == 0xdd) {
        peer->mode = PEER_RPC;
        return true;
    }
    if (first >= 0x20 && first < 0x7f) {
        become_text(peer);
        return true;
    }
    char reason[64];
    (void)snprintf(reason, sizeof(reason), "first byte 0x%02x is no MessagePack-RPC", first);
    close_logged(peer, first == 0x16 ? "TLS is not configured" : reason);
    tell_gone(peer);
    return false;
}

static void note_greeting(struct hp_peer *peer)
{
    if (!peer->is_greeted && hp_core_is_greeted(peer->peers->options.core, peer->id)) {
        peer->is_greeted =
            true; /* always between two frames: the core wants none before it decided */
        hp_tok_init(&peer->tok, &hp_tok_limits_open);
        hp_conn_set_input_max(peer->conn, OPEN_INPUT_BYTES);
    }
}

static bool core_wants(const struct hp_peer *peer)
{
    const struct hp_peers *peers = peer->peers;
    size_t slow = peers->options.output_bytes_high * SLOW_OUTPUT_FACTOR;
    return hp_conn_output_size(peer->conn) <= slow &&
           hp_core_wants_input(peers->options.core, peer->id);
}

enum feed_end { FEED_EMPTY, FEED_MORE, FEED_STALLED, FEED_CLOSED };

/* One frame of the input to the core. */
static enum feed_end take_frame(struct hp_peer *peer)
{
    struct hp_buf *in = hp_conn_input(peer->conn);
    size_t size = 0;
    const char *why = NULL;
    switch (hp_tok_scan(&peer->tok, in->data, in->size, &size, &why)) {
    case HP_TOK_NEED_MORE:
        return FEED_EMPTY;
    case HP_TOK_BAD:
        close_logged(peer, why);
        tell_gone(peer);
        return FEED_CLOSED;
    case HP_TOK_DONE:
        break;
    }
    struct hp_event event = {
        .kind = HP_EVENT_FRAME, .conn = peer->id, .frame = hp_bin_make(in->data, size)};
    hp_core_step(peer->peers->options.core, &event);
    hp_buf_consume(in, size);
    hp_tok_reset(&peer->tok);
    note_greeting(peer);
    return FEED_MORE;
}

static bool is_batch_full(const struct hp_peers *peers, const struct hp_batch *batch)
{
    return batch->op_count >= peers->options.batch_ops_max ||
           hp_arena_used(&batch->arena) >= peers->options.batch_bytes_max;
}

static enum feed_end take_frames(struct hp_peer *peer, const struct hp_batch *batch)
{
    const struct hp_buf *in = hp_conn_input(peer->conn);
    note_greeting(peer);
    for (uint32_t i = 0; i < FRAMES_PER_TURN; i++) {
        if (in->size == 0 || !peer->is_core_told) {
            return FEED_EMPTY;
        }
        if (is_batch_full(peer->peers, batch)) {
            return FEED_MORE;
        }
        if (!core_wants(peer)) {
            return FEED_STALLED;
        }
        enum feed_end end = take_frame(peer);
        if (end != FEED_MORE) {
            return end;
        }
    }
    return in->size > 0 ? FEED_MORE : FEED_EMPTY;
}

static enum feed_end take_input(struct hp_peer *peer, const struct hp_batch *batch)
{
    const struct hp_buf *in = hp_conn_input(peer->conn);
    if (peer->mode == PEER_NEW && in->size > 0 && !choose_mode(peer, in->data[0])) {
        return FEED_CLOSED;
    }
    if (peer->mode == PEER_TEXT) {
        if (!peer->is_ended && hp_conn_is_open(peer->conn)) {
            take_text(peer);
        }
        return FEED_EMPTY;
    }
    return take_frames(peer, batch);
}

static void feed_peer(struct hp_peer *peer, const struct hp_batch *batch)
{
    struct hp_peers *peers = peer->peers;
    enum feed_end end = take_input(peer, batch);
    if (peer->is_ended && end != FEED_MORE) {
        hp_list_push_back(&peers->ended, &peer->link); /* what is left came from a half frame */
        return;
    }
    if (!peer->is_ended) {
        hp_conn_input_done(peer->conn);
    }
    if (end == FEED_MORE) {
        hp_list_push_back(&peers->ready, &peer->link);
    } else if (end == FEED_STALLED) {
        hp_list_push_back(&peers->stalled, &peer->link);
    } else if (peer->is_eof) {
        hp_conn_shutdown(peer->conn, "closed by the peer");
    }
}

/* Only who is on this host can use a key: others get none, and need not try. */
static const uint8_t *make_key(const struct hp_peer *peer, uint8_t key[HP_CONN_KEY_BYTES])
{
    bool is_wanted = peer->peers->options.is_near && hp_conn_is_loopback(peer->conn);
    return is_wanted && hp_random_fill(key, HP_CONN_KEY_BYTES) == HP_OK ? key : NULL;
}

static void feed_opened(struct hp_peers *peers)
{
    struct hp_list *node = NULL;
    while ((node = hp_list_pop_front(&peers->opened)) != NULL) {
        struct hp_peer *peer = HP_LIST_ENTRY(node, struct hp_peer, link);
        uint8_t key[HP_CONN_KEY_BYTES];
        struct hp_event event = {.kind = HP_EVENT_CONN_OPENED, .conn = peer->id};
        event.opened.peer = hp_conn_peer(peer->conn);
        event.opened.loopback = hp_conn_is_loopback(peer->conn);
        event.opened.key = make_key(peer, key);
        hp_core_step(peers->options.core, &event);
        peer->is_announced = true;
        peer->is_core_told = true;
        hp_list_push_back(&peers->ready, &peer->link); /* it may have spoken or gone already */
    }
}

static void feed_levels(struct hp_peers *peers)
{
    struct hp_list *node = NULL;
    while ((node = hp_list_pop_front(&peers->levels)) != NULL) {
        struct hp_peer *peer = HP_LIST_ENTRY(node, struct hp_peer, level_link);
        if (peer->is_core_told) {
            struct hp_event event = {.kind = HP_EVENT_CONN_LEVEL, .conn = peer->id};
            event.level.over = peer->is_over;
            hp_core_step(peers->options.core, &event);
        }
    }
}

static void feed_ended(struct hp_peers *peers)
{
    struct hp_list *node = NULL;
    while ((node = hp_list_pop_front(&peers->ended)) != NULL) {
        struct hp_peer *peer = HP_LIST_ENTRY(node, struct hp_peer, link);
        tell_gone(peer);
        peer_free(peer);
    }
}

void hp_peers_feed(struct hp_peers *peers, const struct hp_batch *batch, bool may_take_all)
{
    feed_opened(peers);
    feed_levels(peers);
    struct hp_list round;
    hp_list_init(&round);
    hp_list_append_all(&round, &peers->ready);
    hp_list_append_all(&round, &peers->stalled); /* what stalled them may be over */
    struct hp_list *node = NULL;
    while ((node = hp_list_pop_front(&round)) != NULL) {
        struct hp_peer *peer = HP_LIST_ENTRY(node, struct hp_peer, link);
        if (may_take_all || peer->mode == PEER_TEXT ||
            hp_core_is_urgent(peers->options.core, peer->id)) {
            feed_peer(peer, batch);
        } else {
            hp_list_push_back(&peers->stalled, node);
        }
    }
    feed_ended(peers);
}

/* What stalled some peers may have been the turn itself: then nothing else brings the next one. */
static bool have_stalled(const struct hp_peers *peers, bool may_take_all)
{
    HP_LIST_FOR_EACH (node, &peers->stalled) {
        const struct hp_peer *peer = HP_LIST_ENTRY(node, const struct hp_peer, link);
        bool may_take = may_take_all || peer->mode == PEER_TEXT ||
                        hp_core_is_urgent(peers->options.core, peer->id);
        if (may_take && core_wants(peer)) {
            return true;
        }
    }
    return false;
}

bool hp_peers_have_input(const struct hp_peers *peers, bool may_take_all)
{
    return !hp_list_is_empty(&peers->ready) || !hp_list_is_empty(&peers->opened) ||
           !hp_list_is_empty(&peers->ended) || have_stalled(peers, may_take_all);
}
