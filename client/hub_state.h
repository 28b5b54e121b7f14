/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the hub share. See hub.h for what it does.
 *
 * Two locks. `lock` guards the client and all below it; it is held while the client works and given
 * up while anybody polls, sleeps or runs callbacks. `queue_lock` guards the queue of submits; it is
 * held for moments only, and taken after `lock`, never before.
 *
 * I1: `busy` is true while somebody holds `lock` who will look at the queue before giving it up
 *     (hp_hub_leave), so that a submit that finds it true has nothing more to do.
 * I2: `leader` is the thread that polls or delivers; only that thread sets it to NULL, except that
 * a waiting thread takes it from the hub's own thread while that polls. I3: callbacks run on
 * `deliverer`, which is the leader then. I4: a block lives until all its tasks have ended, what
 * became of their submit was taken, and nobody pins it: `left`, `unknown`.
 */
#ifndef HP_CLIENT_HUB_STATE_H
#define HP_CLIENT_HUB_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "client/engine_state.h"
#include "client/fetch.h"
#include "client/hub.h"
#include "client/shell.h"
#include "common/base/list.h"

/* Tasks of one block, and bytes: they share a message. */
#define HP_HUB_BLOCK_TASKS 4096u
#define HP_HUB_BLOCK_BYTES (512u << 10)
/* The window of hp_hub_submit: what waits in the queue. */
#define HP_HUB_QUEUE_TASKS 65536u
#define HP_HUB_QUEUE_BYTES (16u << 20)
/* Longest sleep of a leader with nothing to do. */
#define HP_HUB_POLL_MS 10000u
/* So long after the last wait the hub's thread takes over. */
#define HP_HUB_STANDBY_MS 3u

/* Options that tasks share. */
struct hp_hub_options {
    atomic_uint ref_count;
    struct hp_arena arena;
    struct hp_options options;
};

/* Tasks on their way: in the queue, then in the engine, which has the block as their user. */
struct hp_hub_block {
    struct hp_list link; /* of the queue, then of hub->blocks */
    struct hp_list release_link;
    struct hp_hub_options *options; /* NULL: attached tasks */
    uint64_t first;                 /* attached: first id */
    uint32_t count;
    uint32_t capacity; /* of users and sizes */
    uint32_t left;
    uint32_t unknown; /* tasks of a submit of which neither an id nor a refusal was taken: their
                         item may lie behind their ends, which came first */
    bool is_large;    /* one payload over the inline limit: parts */
    bool is_alone;    /* takes no other tasks */
    bool is_volatile;
    struct hp_bytes *parts;
    uint32_t part_count;
    struct hp_buf bytes; /* payloads in a row, or the copy of a large one */
    size_t size;         /* what it counts for in the queue */
    uint32_t *sizes;
    void **users;
    uint64_t *ended; /* bits, if the hub has a callback `dropped`; NULL: none has */
};

/* A large result on its way. */
struct hp_hub_fetch {
    struct hp_list link; /* of hub->fetches, then of hub->fetched */
    struct hp_hub *hub;
    struct hp_fetch *fetch;
    struct hp_result *result; /* copy of state and end record */
    void *user;
    struct hp_buffer buffer;
    enum hp_status status;
    char text[256];
};

struct hp_hub {
    struct hp_hub_callbacks callbacks;
    void *context;
    struct hp_client_options client_options; /* strings owned */
    uint32_t fork_count;                     /* at birth */

    pthread_mutex_t lock;
    pthread_cond_t turned;  /* followers */
    pthread_cond_t standby; /* the hub's thread */
    struct hp_client *client;
    int wake_fds[2]; /* 0: polled by the hub's thread, 1: by other leaders */
    pthread_t thread;
    atomic_bool started;
    atomic_bool stop;
    void *leader;
    bool leader_is_thread;
    void *_Atomic deliverer;
    bool polling; /* the leader does; and what for: */
    int poll_fd;
    unsigned poll_wants;
    uint64_t poll_until_ms;
    uint32_t waiters; /* threads in hp_hub_wait or hp_hub_call */
    uint32_t followers;
    bool deep;  /* the hub's thread sleeps until it is told */
    bool dirty; /* something was queued in the client */
    uint64_t last_wait_ms;
    uint64_t turns;
    struct hp_list blocks;  /* in the engine */
    struct hp_list failed;  /* blocks the engine refused */
    struct hp_list fetches; /* struct hp_hub_fetch */
    struct hp_list fetched;
    struct hp_release release;
    struct hp_list released; /* blocks, by release_link, pinned */
    atomic_uint_fast64_t outstanding;
    atomic_bool connected;
    atomic_uint_fast64_t socket_inode; /* so that a forked child closes nothing else */
    atomic_int socket_fd;

    pthread_mutex_t queue_lock;
    pthread_cond_t room;
    struct hp_list queue;
    size_t queue_tasks;
    size_t queue_bytes;
    uint32_t room_waiters;
    bool busy;
    uint64_t unacknowledged; /* as of the last leave */
    struct hp_hub_options *last_options;
};

/* An address that no other thread has. */
void *hp_hub_self(void);
uint64_t hp_hub_until_ms(const struct hp_hub *hub, int64_t timeout_ms);
/* Keeps the text for hp_hub_error and returns the status. */
enum hp_status hp_hub_fail(enum hp_status status, const char *text);
/* OK, or STOPPED in a forked child. Starts the thread. */
enum hp_status hp_hub_check(struct hp_hub *hub);

/* hub_queue.c */
void hp_hub_block_free(struct hp_hub_block *block);
void hp_hub_options_unref(struct hp_hub_options *options);
/* Gives the engine what it has room for; `lock` held. True if there was anything. */
bool hp_hub_drain(struct hp_hub *hub);

/* hub_pump.c */
void hp_hub_enter(struct hp_hub *hub);
void hp_hub_leave(struct hp_hub *hub);
/* One turn as leader, or one sleep as follower; `lock` is held before and after. False: a signal
 * handler ran. */
bool hp_hub_turn(struct hp_hub *hub, uint64_t until_ms, bool is_thread);
void hp_hub_kick(struct hp_hub *hub);
void *hp_hub_main(void *hub);
int hp_hub_cond_init(pthread_cond_t *cond);

/* hub_ends.c */
bool hp_hub_has_ends(const struct hp_hub *hub);
/* Runs callbacks; `lock` is held before and after, not meanwhile. */
void hp_hub_deliver(struct hp_hub *hub);
/* Tells `dropped` of all that was not delivered, and frees it; the thread has ended. */
void hp_hub_ends_clear(struct hp_hub *hub);

#endif
