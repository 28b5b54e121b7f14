/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client's protocol engine: a pure state machine over bytes. The shell (socket.c) gives it what
 * the socket received and the time, and sends what it has to say; the simulator does the same with
 * a virtual network. No sockets, no clock, no random numbers but those seeded at the start.
 *
 * One turn of a shell:
 *
 *     hp_engine_step(engine, now_ms);
 *     if (hp_engine_wants_close(engine)) close the transport; hp_engine_closed(engine, ...);
 *     if (hp_engine_wants_connect(engine)) { hp_engine_connecting(); begin to connect; }
 *         when connected: hp_engine_opened(engine, now_ms)
 *         received bytes: hp_engine_feed(engine, data, size, now_ms)
 *         transport lost: hp_engine_closed(engine, status, text, now_ms)
 *     out = hp_engine_output(engine); send it; hp_engine_sent(engine, bytes);
 *     wait for input, or until hp_engine_deadline_ms(engine)
 *
 * Time never goes back. Everything is for one thread at a time.
 */
#ifndef HP_CLIENT_ENGINE_H
#define HP_CLIENT_ENGINE_H

#include "client/include/hostpool.h"

#define HP_SESSION_BYTES 16
#define HP_ENGINE_NEVER UINT64_MAX

struct hp_engine;
struct hp_near_ops;

struct hp_engine_config {
    const char *name;  /* of the program; copied */
    const char *token; /* or NULL; copied */
    uint8_t session[HP_SESSION_BYTES];
    uint64_t seed; /* for jitter, and for a new session's id if the broker forgot this one */
    uint32_t connect_timeout_ms;
    uint32_t retry_base_ms;
    uint32_t retry_cap_ms;
    uint32_t window_submits;
    uint32_t window_bytes;
    uint32_t event_bytes;
    bool events;
    const struct hp_near_ops *near; /* large content by descriptor; NULL: never. Not copied */
};

/* NULL: out of memory. Time begins at now_ms. */
struct hp_engine *hp_engine_new(const struct hp_engine_config *config, uint64_t now_ms);
void hp_engine_free(struct hp_engine *engine);

/* After a fork, in the child: forget connection, tasks, calls and events; a session of its own. */
void hp_engine_fork(struct hp_engine *engine, const uint8_t session[HP_SESSION_BYTES],
                    uint64_t seed, uint64_t now_ms);

/* ---------------------------------------------------------------- transport */

void hp_engine_step(struct hp_engine *engine, uint64_t now_ms);
bool hp_engine_wants_connect(const struct hp_engine *engine);
void hp_engine_connecting(struct hp_engine *engine, uint64_t now_ms);
void hp_engine_opened(struct hp_engine *engine, uint64_t now_ms);
/* Bytes received, in any pieces. Errors (PROTOCOL, NO_MEMORY, and what a refused hello says) mean
 * that the transport is to be closed; hp_engine_wants_close is then true as well. */
enum hp_status hp_engine_feed(struct hp_engine *engine, const void *data, size_t size,
                              uint64_t now_ms);
/* True when the engine gave the connection up: status and text say why. */
bool hp_engine_wants_close(const struct hp_engine *engine, enum hp_status *ret_status,
                           const char **ret_text);
/* The transport is gone (or could not be opened). If hp_engine_wants_close was true, its status and
 * text stand, else these do. */
void hp_engine_closed(struct hp_engine *engine, enum hp_status status, const char *text,
                      uint64_t now_ms);
/* What to send now; lent until the next call. */
struct hp_bytes hp_engine_output(struct hp_engine *engine);
void hp_engine_sent(struct hp_engine *engine, size_t size);
/* Latest time of the next hp_engine_step, or HP_ENGINE_NEVER. */
uint64_t hp_engine_deadline_ms(const struct hp_engine *engine);
/* False while too many events wait to be taken: the shell stops reading then. */
bool hp_engine_wants_input(const struct hp_engine *engine);

bool hp_engine_is_open(const struct hp_engine *engine); /* hello was answered */
/* Why the last connection ended, or could not be made; HP_STATUS_OK: nothing so far, or open. */
enum hp_status hp_engine_trouble(const struct hp_engine *engine, const char **ret_text);
/* The broker's words, while it refuses submits that wait here as busy; else NULL. */
const char *hp_engine_busy(const struct hp_engine *engine);
const char *hp_engine_server(const struct hp_engine *engine); /* or NULL */
const uint8_t *hp_engine_session(const struct hp_engine *engine);
uint64_t hp_engine_outstanding(const struct hp_engine *engine);
uint64_t hp_engine_unacknowledged(const struct hp_engine *engine);
/* Detail of the last error of a call below; "" if none. */
const char *hp_engine_error(const struct hp_engine *engine);

/* ---------------------------------------------------------------- submits */

/*
 * Takes the events of a submit instead of the queue, at the moment they come (from inside feed).
 * It may look at the engine, but must not submit, call or take events. The event is lent.
 */
struct hp_sink {
    void (*take)(struct hp_sink *sink, const struct hp_event *event);
};

/* Told when a borrowed payload is not needed any more; from inside any function of the engine but
 * hp_engine_free and hp_engine_fork, after which nothing is told. */
struct hp_release {
    void (*release)(struct hp_release *release, void *user);
};

struct hp_engine_submit {
    const struct hp_options *options;
    const struct hp_bytes *payloads; /* NULL: `count` tasks without payload */
    uint32_t count;
    uint32_t part_count; /* not 0: one task (count 1), whose payload is so many `payloads` in a row;
                            over the inline limit in all */
    struct hp_release *release; /* or NULL; for borrowed payloads over the inline limit */
    bool untracked;             /* no HP_EVENT_ENDED */
    bool array;                 /* the tasks know their index; payloads must be NULL */
    bool borrow_payloads; /* payloads over the inline limit live until acknowledged or forgotten */
    struct hp_sink *sink; /* or NULL: events are queued */
    void *user;
};
/* As hp_submit_async. */
enum hp_status hp_engine_submit(struct hp_engine *engine, const struct hp_engine_submit *submit,
                                uint64_t *ret_request);
/* True if the window has room for another submit. */
bool hp_engine_has_room(const struct hp_engine *engine);
/*
 * No more events for this request, and its sink is not called again. What was not sent yet is
 * dropped: *ret_dropped says whether all of what was not acknowledged was, so that surely nothing
 * of it happens any more.
 */
void hp_engine_forget(struct hp_engine *engine, uint64_t request, bool *ret_dropped);
/* The same for all that goes to a sink, which may be freed then. */
void hp_engine_forget_sink(struct hp_engine *engine, const struct hp_sink *sink, bool *ret_dropped);
enum hp_status hp_engine_track(struct hp_engine *engine, struct hp_ids ids, void *user,
                               uint64_t *ret_request);

/* Notes that the broker was asked to send (or not to send) the output of a task, so that it is
 * asked again after a reconnect, and nothing is delivered twice. */
void hp_engine_follow(struct hp_engine *engine, uint64_t id, bool on);

/* ---------------------------------------------------------------- events */

bool hp_engine_next_event(struct hp_engine *engine, struct hp_event *ret_event);
/* Is there anything hp_engine_next_event may give? (It may still find nothing new in it.) */
bool hp_engine_has_events(const struct hp_engine *engine);

#endif
