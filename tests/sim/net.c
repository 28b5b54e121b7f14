/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections. Bytes of one direction arrive in order, cut anywhere; a cut or a paused receiver
 * holds them back. Bytes of a connection that one side has given up still arrive at the other,
 * after those of its successor perhaps: that is how duplicates and reordering come about with TCP.
 * A host that is off answers nothing; an end that hears nothing for long gives its connection up,
 * and the other one may not know.
 */
#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "tests/sim/sim.h"

enum {
    PLACES = SIM_NODES_MAX + SIM_USERS_MAX,
    CONNECT_TIMEOUT_MS = 3000,
    SILENCE_MS = 25000, /* keepalive, as common/net/conn.c sets it: 10 s and 3 probes of 5 s */
    PROBE_MS = 10000
};

struct chunk {
    struct chunk *next;
    uint64_t due_us;
    size_t size; /* 0: the end */
    uint8_t data[];
};

/* One direction; `up` is towards the broker. */
struct pipe {
    struct chunk *first, *last;
    uint64_t last_due_us;
    size_t bytes;
    bool scheduled;
};

struct conn {
    uint64_t number;
    uint32_t place;
    const struct sim_end *end;
    void *context;
    struct pipe up, down;
    bool client_open, broker_open;   /* this side still listens */
    bool client_known, broker_known; /* was told that it is open */
    struct conn *next;
};

struct host {
    bool cut_up, cut_down, paused, gone;
    uint64_t silences; /* so many cuts so far: says which one a timeout is of */
    uint64_t delay_us, read_gap_us, read_at_us;
};

struct sim_net {
    struct sim *sim;
    const struct sim_end *server;
    void *server_context;
    struct conn *conns;
    uint64_t next_number;
    struct host hosts[PLACES];
    bool broker_paused, broker_up, broker_gone;
    uint64_t broker_silences;
};

void sim_net_new(struct sim *sim)
{
    sim->net = sim_alloc(sizeof(*sim->net));
    sim->net->sim = sim;
    sim->net->next_number = 1;
    for (uint32_t i = 0; i < PLACES; i++) {
        (void)sim_enter_fresh(sim, SIM_NET, 1, i);
        sim->net->hosts[i].delay_us = sim_pick(sim, 50, 2000);
    }
}

static enum sim_stream stream_of(uint32_t place)
{
    return place < SIM_NODES_MAX ? SIM_NODE_0 + place : SIM_USER_0 + place - SIM_NODES_MAX;
}

static void pipe_clear(struct pipe *pipe)
{
    while (pipe->first != NULL) {
        struct chunk *next = pipe->first->next;
        hp_free(pipe->first);
        pipe->first = next;
    }
    pipe->last = NULL;
    pipe->bytes = 0;
}

void sim_net_free(struct sim *sim)
{
    while (sim->net->conns != NULL) {
        struct conn *conn = sim->net->conns;
        sim->net->conns = conn->next;
        pipe_clear(&conn->up);
        pipe_clear(&conn->down);
        hp_free(conn);
    }
    hp_free(sim->net);
}

static struct conn *find(const struct sim_net *net, uint64_t number)
{
    for (struct conn *conn = net->conns; conn != NULL; conn = conn->next) {
        if (conn->number == number) {
            return conn;
        }
    }
    return NULL;
}

static void sweep(struct sim_net *net)
{
    struct conn **at = &net->conns;
    while (*at != NULL) {
        struct conn *conn = *at;
        if (!conn->client_open && !conn->broker_open && !conn->up.scheduled &&
            !conn->down.scheduled) {
            *at = conn->next;
            pipe_clear(&conn->up);
            pipe_clear(&conn->down);
            hp_free(conn);
        } else {
            at = &conn->next;
        }
    }
}

/* ------------------------------------------------ arrival */
static void arrive(struct sim *sim, void *context, uint64_t number, uint64_t up);

static bool is_held(const struct sim_net *net, const struct conn *conn, bool up)
{
    const struct host *host = &net->hosts[conn->place];
    return up ? host->cut_up || net->broker_paused || net->broker_gone
              : host->cut_down || host->paused || host->gone;
}

static void schedule(struct sim *sim, struct conn *conn, bool up)
{
    struct pipe *pipe = up ? &conn->up : &conn->down;
    if (!pipe->scheduled && pipe->first != NULL && !is_held(sim->net, conn, up)) {
        uint64_t read_at_us = up ? 0 : sim->net->hosts[conn->place].read_at_us;
        enum sim_stream before = sim_enter(sim, up ? SIM_BROKER : stream_of(conn->place));
        pipe->scheduled = true;
        sim_at(sim, HP_MAX(pipe->first->due_us, read_at_us), arrive, NULL, conn->number, up);
        sim_enter(sim, before);
    }
}

static void put(struct sim *sim, struct conn *conn, bool up, const void *data, size_t size)
{
    struct pipe *pipe = up ? &conn->up : &conn->down;
    struct chunk *chunk = sim_alloc(sizeof(*chunk) + size);
    uint64_t delay = sim->net->hosts[conn->place].delay_us;
    enum sim_stream before = sim_enter(sim, SIM_NET);
    uint64_t due = sim->now_us + sim_pick(sim, delay / 2, delay * 2);
    sim_enter(sim, before);
    chunk->due_us = due > pipe->last_due_us ? due : pipe->last_due_us + 1;
    pipe->last_due_us = chunk->due_us;
    chunk->size = size;
    if (size > 0) {
        memcpy(chunk->data, data, size);
    }
    if (pipe->last != NULL) {
        pipe->last->next = chunk;
    } else {
        pipe->first = chunk;
    }
    pipe->last = chunk;
    pipe->bytes += size;
    schedule(sim, conn, up);
}

static void deliver(struct sim *sim, struct conn *conn, bool up, const struct chunk *chunk)
{
    struct sim_net *net = sim->net;
    const struct sim_end *end = up ? net->server : conn->end;
    void *context = up ? net->server_context : conn->context;
    bool *open = up ? &conn->broker_open : &conn->client_open;
    uint64_t number = conn->number;
    if (!*open) {
        if (chunk->size > 0) {
            put(sim, conn, !up, NULL, 0); /* nobody is there any more: RST */
        }
        return;
    }
    if (chunk->size > 0) {
        end->received(context, number, chunk->data, chunk->size);
    } else {
        *open = false;
        end->closed(context, number);
    }
}

static void arrive(struct sim *sim, void *context, uint64_t number, uint64_t up)
{
    (void)context;
    struct conn *conn = find(sim->net, number);
    HP_ASSERT(conn != NULL);
    struct pipe *pipe = up ? &conn->up : &conn->down;
    pipe->scheduled = false;
    struct chunk *chunk = pipe->first;
    if (chunk == NULL || is_held(sim->net, conn, up)) {
        sweep(sim->net);
        return;
    }
    pipe->first = chunk->next;
    if (pipe->first == NULL) {
        pipe->last = NULL;
    }
    pipe->bytes -= chunk->size;
    if (!up && sim->net->hosts[conn->place].read_gap_us > 0) {
        sim->net->hosts[conn->place].read_at_us =
            sim->now_us + sim->net->hosts[conn->place].read_gap_us;
    }
    schedule(sim, conn, up);
    deliver(sim, conn, up, chunk);
    hp_free(chunk);
    sweep(sim->net);
}

static void release_held(struct sim *sim)
{
    for (struct conn *conn = sim->net->conns; conn != NULL; conn = conn->next) {
        schedule(sim, conn, true);
        schedule(sim, conn, false);
    }
}

/* ------------------------------------------------ connecting */
static void accepted(struct sim *sim, void *context, uint64_t number, uint64_t b)
{
    (void)context;
    (void)b;
    struct sim_net *net = sim->net;
    struct conn *conn = find(net, number);
    if (conn == NULL || !conn->client_open || conn->client_known) {
        sweep(net);
        return;
    }
    const struct host *host = &net->hosts[conn->place];
    bool is_silent = host->cut_up || host->cut_down || net->broker_gone;
    bool ok = net->broker_up && !is_silent;
    if (host->paused) { /* it hears of it later */
        sim_after(sim, 50 * SIM_MS, accepted, NULL, number, 0);
        return;
    }
    if (!ok && is_silent && b == 0) {
        sim_after(sim, CONNECT_TIMEOUT_MS * SIM_MS, accepted, NULL, number, 1);
        return;
    }
    if (!ok) {
        conn->client_open = false;
        conn->end->failed(conn->context, number);
        sweep(net);
        return;
    }
    conn->client_known = true;
    conn->broker_known = true;
    conn->broker_open = true;
    sim_enter(sim, SIM_BROKER);
    net->server->opened(net->server_context, number);
    sim_enter(sim, stream_of(conn->place));
    conn->end->opened(conn->context, number);
}

void sim_net_serve(struct sim *sim, const struct sim_end *end, void *context)
{
    sim->net->server = end;
    sim->net->server_context = context;
    sim->net->broker_up = true;
}

uint64_t sim_net_connect(struct sim *sim, uint32_t place, const struct sim_end *end, void *context)
{
    struct sim_net *net = sim->net;
    struct conn *conn = sim_alloc(sizeof(*conn));
    conn->number = net->next_number++;
    conn->place = place;
    conn->end = end;
    conn->context = context;
    conn->client_open = true;
    conn->next = net->conns;
    net->conns = conn;
    sim_after(sim, 2 * net->hosts[place].delay_us, accepted, NULL, conn->number, 0);
    return conn->number;
}

void sim_net_send(struct sim *sim, uint64_t number, bool from_broker, const void *data, size_t size)
{
    struct conn *conn = find(sim->net, number);
    const uint8_t *at = data;
    if (conn == NULL || size == 0 || !(from_broker ? conn->broker_open : conn->client_open)) {
        return; /* also if it gave up, and has not heard of it: what it sent before is lost */
    }
    enum sim_stream before = sim_enter(sim, SIM_NET);
    uint32_t pieces = (uint32_t)sim_pick(sim, 1, 3);
    while (size > 0) {
        size_t piece = pieces > 1 ? sim_pick(sim, 1, size) : size;
        put(sim, conn, !from_broker, at, piece);
        at += piece;
        size -= piece;
        pieces -= pieces > 1;
    }
    sim_enter(sim, before);
}

void sim_net_close(struct sim *sim, uint64_t number, bool from_broker)
{
    struct conn *conn = find(sim->net, number);
    if (conn == NULL) {
        return;
    }
    bool *open = from_broker ? &conn->broker_open : &conn->client_open;
    if (!*open) {
        return;
    }
    *open = false;
    if (conn->client_known) {
        put(sim, conn, !from_broker, NULL, 0);
    }
}

size_t sim_net_backlog(struct sim *sim, uint64_t number)
{
    const struct conn *conn = find(sim->net, number);
    return conn != NULL ? conn->down.bytes : 0;
}

/* ------------------------------------------------ what goes wrong */
void sim_net_pause(struct sim *sim, uint32_t place, bool is_broker, bool paused)
{
    if (is_broker) {
        sim->net->broker_paused = paused;
    } else {
        sim->net->hosts[place].paused = paused;
    }
    release_held(sim);
}

/* ------------------------------------------------ silence */
static bool is_silent(const struct sim_net *net, uint32_t place, bool is_broker)
{
    const struct host *host = &net->hosts[place];
    return is_broker ? net->broker_gone : host->cut_up || host->cut_down || host->gone;
}

/* One end is gone and the other was not told: its keepalive finds out, when something passes. */
static void probe(struct sim *sim, void *context, uint64_t number, uint64_t of_broker)
{
    struct conn *conn = find(sim->net, number);
    (void)context;
    if (conn == NULL || !(of_broker ? conn->broker_open : conn->client_open)) {
        return;
    }
    if (is_silent(sim->net, conn->place, false) || is_silent(sim->net, 0, true)) {
        sim_after(sim, PROBE_MS * SIM_MS, probe, NULL, number, of_broker);
    } else {
        put(sim, conn, of_broker, NULL, 0);
    }
}

static void probe_later(struct sim *sim, const struct conn *conn, bool of_broker)
{
    enum sim_stream before = sim_enter(sim, SIM_NET);
    sim_after(sim, sim_pick(sim, 1, PROBE_MS) * SIM_MS, probe, NULL, conn->number, of_broker);
    sim_enter(sim, before);
}

/* An end of this connection has heard nothing for long: it gives up. What it had sent is lost. */
static void give_up(struct sim *sim, void *context, uint64_t number, uint64_t by_broker)
{
    struct sim_net *net = sim->net;
    struct conn *conn = find(net, number);
    (void)context;
    if (conn == NULL || !conn->client_known ||
        !(by_broker ? conn->broker_open : conn->client_open)) {
        return;
    }
    if (by_broker ? net->broker_paused
                  : net->hosts[conn->place].paused) { /* it hears of it later */
        sim_after(sim, 50 * SIM_MS, give_up, NULL, number, by_broker);
        return;
    }
    const struct sim_end *end = by_broker ? net->server : conn->end;
    void *end_context = by_broker ? net->server_context : conn->context;
    *(by_broker ? &conn->broker_open : &conn->client_open) = false;
    pipe_clear(by_broker ? &conn->down : &conn->up);
    probe_later(sim, conn, !by_broker);
    sim_note(sim, "timeout", conn->place, number, by_broker, 0);
    sim_enter(sim, by_broker ? SIM_BROKER : stream_of(conn->place));
    end->closed(end_context, number);
    sweep(net);
}

/* The `silence`th cut of a place (PLACES: of the broker's host) has lasted for long. */
static void silence(struct sim *sim, void *context, uint64_t place, uint64_t silence_number)
{
    struct sim_net *net = sim->net;
    bool is_broker = place == PLACES;
    bool is_same =
        (is_broker ? net->broker_silences : net->hosts[place].silences) == silence_number;
    (void)context;
    if (!is_same || !is_silent(net, (uint32_t)(is_broker ? 0 : place), is_broker)) {
        return;
    }
    for (const struct conn *conn = net->conns; conn != NULL; conn = conn->next) {
        if (is_broker || conn->place == place) {
            sim_after(sim, sim_pick(sim, 0, 5000) * SIM_MS, give_up, NULL, conn->number, false);
            sim_after(sim, sim_pick(sim, 0, 5000) * SIM_MS, give_up, NULL, conn->number, true);
        }
    }
}

/* It has become silent, or it has not. */
static void note_silence(struct sim *sim, uint32_t place, bool is_broker)
{
    struct sim_net *net = sim->net;
    uint64_t number = is_broker ? ++net->broker_silences : ++net->hosts[place].silences;
    if (is_silent(net, place, is_broker)) {
        enum sim_stream before = sim_enter(sim, SIM_NET);
        sim_after(sim, SILENCE_MS * SIM_MS, silence, NULL, is_broker ? PLACES : place, number);
        sim_enter(sim, before);
    }
    release_held(sim);
}

void sim_net_gone(struct sim *sim, uint32_t place, bool is_broker, bool gone)
{
    bool *at = is_broker ? &sim->net->broker_gone : &sim->net->hosts[place].gone;
    if (*at != gone) {
        *at = gone;
        note_silence(sim, place, is_broker);
    }
}

void sim_net_cut(struct sim *sim, uint32_t place, bool up, bool down)
{
    sim->net->hosts[place].cut_up = up;
    sim->net->hosts[place].cut_down = down;
    note_silence(sim, place, false);
}

bool sim_net_is_cut(const struct sim *sim, uint32_t place)
{
    const struct host *host = &sim->net->hosts[place];
    return host->cut_up || host->cut_down;
}

void sim_net_died(struct sim *sim, uint32_t place, bool is_broker, bool silent)
{
    struct sim_net *net = sim->net;
    if (is_broker) {
        net->broker_up = false;
    }
    for (struct conn *conn = net->conns; conn != NULL; conn = conn->next) {
        if (!is_broker && conn->place != place) {
            continue;
        }
        bool *open = is_broker ? &conn->broker_open : &conn->client_open;
        if (*open && conn->client_known && !silent) {
            put(sim, conn, !is_broker, NULL, 0);
        } else if (*open && conn->client_known) {
            probe_later(sim, conn, !is_broker);
        }
        *open = false;
    }
    if (silent) {
        sim_net_gone(sim, place, is_broker, true);
    }
}

void sim_net_slow(struct sim *sim, uint32_t place, uint64_t delay_us)
{
    sim->net->hosts[place].delay_us = delay_us;
}

void sim_net_read_slowly(struct sim *sim, uint32_t place, uint64_t gap_us)
{
    sim->net->hosts[place].read_gap_us = gap_us;
    sim->net->hosts[place].read_at_us = 0;
}

static void lose_tail(struct sim *sim, struct pipe *pipe)
{
    struct chunk **at = &pipe->first;
    pipe->last = NULL;
    while (*at != NULL && !sim_percent(sim, 30)) {
        pipe->last = *at;
        at = &(*at)->next;
    }
    while (*at != NULL) {
        struct chunk *next = (*at)->next;
        pipe->bytes -= (*at)->size;
        hp_free(*at);
        *at = next;
    }
}

uint32_t sim_net_reset(struct sim *sim, uint32_t place)
{
    uint32_t count = 0;
    enum sim_stream before = sim_enter(sim, SIM_NET);
    for (struct conn *conn = sim->net->conns; conn != NULL; conn = conn->next) {
        if (conn->place != place || !conn->client_known) {
            continue;
        }
        lose_tail(sim, &conn->up);
        lose_tail(sim, &conn->down);
        put(sim, conn, true, NULL, 0);
        put(sim, conn, false, NULL, 0);
        count++;
    }
    sim_enter(sim, before);
    return count;
}
