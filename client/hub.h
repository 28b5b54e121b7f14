/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hub: one client that many threads use at once, with a thread of its own that brings ends in
 * while nobody waits. Pools (hostpool_pool.h) and language bindings stand on it; it is no part of
 * the public interface and comes with the static library only.
 *
 * Who does the work. The socket is served ("pumped") by one thread at a time, the leader. A thread
 * that waits (hp_hub_wait, hp_hub_call) is the leader itself, so a loop of submit and wait on one
 * thread is answered on that thread, without any hand-over. The hub's own thread leads while nobody
 * waits, and again some milliseconds after the last wait. It blocks all signals.
 *
 * Submits. hp_hub_submit only puts tasks in a queue, from which whoever pumps takes them: under
 * load thousands of single tasks share one message. If nothing is unacknowledged the submitting
 * thread sends at once, itself.
 *
 * Callbacks run on whatever thread pumps at that time, without any lock of the hub held; they may
 * call all functions of the hub except hp_hub_free. No two calls of `ended` run at once, except
 * that one which waits (hp_hub_wait) may see another come inside itself. Ends of tasks come in the
 * order in which they are known here. A callback keeps other ends waiting: it should be short.
 *
 * Ends. Each task that hp_hub_submit took (returned OK) ends with exactly one struct hp_hub_end,
 * unless the hub is freed before. A restart of the broker, or of the network, is not seen, only
 * waited for. What a broker that has restarted does not know any more comes with the status
 * HP_STATUS_BROKER_LOST (tasks with options.durable = false: nothing else can be lost).
 *
 * Fork. In a forked child the hub is harmless but of no use: submits and waits fail with
 * HP_STATUS_STOPPED, and nothing of the parent's is disturbed, until hp_hub_after_fork.
 */
#ifndef HP_CLIENT_HUB_H
#define HP_CLIENT_HUB_H

#include "client/include/hostpool.h"

struct hp_hub;

/* The end of a task. All of it is lent for the call of `ended`. */
struct hp_hub_end {
    void *user;          /* as given to hp_hub_submit */
    uint64_t id;         /* 0: it never became a task (status tells why) */
    enum hp_state state; /* final, or gone or unknown; 0 with id 0 */
    enum hp_end_reason reason;
    uint32_t attempt;
    const char *node;         /* worker of the last attempt, or NULL */
    const struct hp_end *end; /* its end record, or NULL if there is none */
    struct hp_bytes result;   /* whole: inline, or what was fetched */
    /*
     * Not NULL: the result was fetched into this buffer. To keep it without a copy take it over:
     * `keep = *end->owned; *end->owned = (struct hp_buffer){0};`, later hp_buffer_clear(&keep).
     */
    struct hp_buffer *owned;
    /*
     * HP_STATUS_OK: the task has ended, look at state and reason. Else text says what happened:
     * the submit was refused (id 0), the result could not be fetched (DAMAGED, NOT_FOUND: the state
     * and the end record are true), the broker has lost the task (BROKER_LOST), or its row is kept
     * no longer (NOT_FOUND with state gone).
     */
    enum hp_status status;
    const char *text; /* never NULL; "" with HP_STATUS_OK */
};

struct hp_hub_callbacks {
    /* Tasks have ended. Needed. */
    void (*ended)(void *context, const struct hp_hub_end *ends, size_t count);
    /*
     * Tasks are known to the broker (on its disk, if they are durable): users[i] has the id
     * first + i. Before their ends, unless an end was here before the answer to the submit: an end
     * has the id as well. NULL: not wanted.
     */
    void (*submitted)(void *context, void *const *users, uint64_t first, uint32_t count);
    /* The connection was made or lost; text is the broker's name and version, or the reason. The
     * hub reconnects by itself. NULL: not wanted. */
    void (*state)(void *context, bool connected, enum hp_status status, const char *text);
    /*
     * Not NULL: payloads of more than HP_PAYLOAD_INLINE_BYTES are borrowed, not copied, and must
     * live unchanged until this is called, once for each task with such a payload, always before
     * (or inside the same turn as) its end. NULL: payloads are copied.
     */
    void (*released)(void *context, void *user);
    /* Called by hp_hub_free, on its thread, for each task whose end was not delivered, so that what
     * `user` holds can be freed. Not in a forked child. NULL: not wanted. */
    void (*dropped)(void *context, void *user);
};

/*
 * Makes a hub; connects in the background. The thread is started at the first submit, wait or call.
 * options as in hp_client_new (NULL: defaults; events must be true, event_bytes etc. are used).
 * *ret_hub is set on errors too, unless memory was short (NULL): for hp_hub_error and hp_hub_free.
 */
enum hp_status hp_hub_new(const struct hp_client_options *options,
                          const struct hp_hub_callbacks *callbacks, void *context,
                          struct hp_hub **ret_hub);
/*
 * Ends the thread, closes the connection, frees. Nothing is called back any more but `dropped`,
 * also not for borrowed payloads. No other thread may be in a function of the hub. NULL is fine.
 * After a fork, in the child: drops it without a word to the broker.
 */
void hp_hub_free(struct hp_hub *hub);

/*
 * Takes count tasks (1 .. any number), one for each payload; users[i] (users may be NULL: all NULL)
 * comes back in the end of task i. Payloads and options are copied, except as said at `released`.
 * Waits while the window is full (queue over 16 MiB or 65,536 tasks), up to timeout_ms; the
 * values HP_TIMEOUT_DEFAULT and HP_TIMEOUT_NONE are allowed. Inside a callback it never waits.
 * All or nothing. OK means taken, not stored: see `submitted`. Errors: BAD_ARGUMENT, TOO_BIG,
 * NO_MEMORY, TIMEOUT (window full), STOPPED (freed, or forked).
 */
enum hp_status hp_hub_submit(struct hp_hub *hub, const struct hp_options *options,
                             const struct hp_bytes *payloads, uint32_t count, void *const *users,
                             int64_t timeout_ms);
/* One task whose payload is the concatenation of pieces (1 .. 65,536 of them). The array itself
 * need not live on; the pieces' bytes are borrowed as said at `released`. */
enum hp_status hp_hub_submit_pieces(struct hp_hub *hub, const struct hp_options *options,
                                    const struct hp_bytes *pieces, uint32_t piece_count, void *user,
                                    int64_t timeout_ms);

/*
 * Takes over tasks that others submitted (an id from elsewhere, or an earlier process): `ended` is
 * called for each, at once if it has ended. users as above.
 */
enum hp_status hp_hub_attach(struct hp_hub *hub, uint64_t first, uint32_t count,
                             void *const *users);

/*
 * Pumps, or sleeps while another thread pumps, until done(arg) is true: then true. done is called
 * without locks after each turn, often: it must be quick and may be called from this thread only.
 * False: timeout_ms is over (0: one look at the socket), a signal handler ran on this thread
 * (errno is EINTR: call again), the hub is stopped (errno is ECANCELED), or the broker refuses this
 * client (a wrong token, another version) and there never was a connection (errno is EACCES;
 * hp_hub_trouble says why) — else errno is ETIMEDOUT. HP_TIMEOUT_NONE: no limit.
 */
bool hp_hub_wait(struct hp_hub *hub, bool (*done)(void *arg), void *arg, int64_t timeout_ms);
/* Why there is no connection, with hp_hub_error; OK: there is one, or it is not known yet. */
enum hp_status hp_hub_trouble(struct hp_hub *hub);
/* Why a submit has no answer, with hp_hub_error: as hp_hub_trouble, or BUSY with the broker's words
 * while it takes none, else TIMEOUT. */
enum hp_status hp_hub_late(struct hp_hub *hub);
/* Makes all waiting threads look at their done(arg) again. Any thread; not from signal handlers. */
void hp_hub_wake(struct hp_hub *hub);

/*
 * Runs blocking calls of hostpool.h and hostpool_pool.h on the hub's client: call(client, arg) is
 * called with the hub's lock held, which is given up whenever the client waits, so that several
 * threads may be in a call at once, submits go on and ends are delivered meanwhile (also on this
 * thread). call must return what the blocking function returned, must not call the hub, nor keep
 * the client, nor use hp_client_next_event, hp_client_wait_event or hp_*_async. Other functions of
 * it may see time pass, but no lock of its own may be held that a callback takes.
 */
enum hp_status hp_hub_call(struct hp_hub *hub, enum hp_status (*call)(struct hp_client *, void *),
                           void *arg);
/* The sentence for the last error of a hub function on this thread; "" if none. */
const char *hp_hub_error(const struct hp_hub *hub);

/* The results of these tasks are not needed any more (task.forget): told to the broker some time,
 * with others. No error is told: it is a hint. */
void hp_hub_forget(struct hp_hub *hub, const struct hp_ids *ids, size_t id_count);

/* Waits until all that was submitted is acknowledged. False as hp_hub_wait. */
bool hp_hub_flush(struct hp_hub *hub, int64_t timeout_ms);

/* Tasks taken whose end was not delivered. */
uint64_t hp_hub_outstanding(const struct hp_hub *hub);
bool hp_hub_connected(const struct hp_hub *hub);
/* "HOST:PORT"; lives as long as the hub. */
const char *hp_hub_host(const struct hp_hub *hub);

/*
 * In a forked child: makes the hub usable again, with a connection and a session of its own;
 * nothing of what the parent submitted is known here. Its thread is started when it is needed. The
 * caller must be the child's only thread. Errors: NO_MEMORY, SYSTEM. In the parent: does nothing.
 */
enum hp_status hp_hub_after_fork(struct hp_hub *hub);

#endif
