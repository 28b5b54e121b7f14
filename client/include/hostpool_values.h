/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hostpool_values.h: limits, statuses and the values of the protocol. Included by hostpool.h, which
 * is the header to include; apart from it only so that each can be read at one sitting.
 */
#ifndef HOSTPOOL_VALUES_H
#define HOSTPOOL_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define HP_API __attribute__((visibility("default")))
#else
#define HP_API
#endif

/* Version of this header; hp_version() is that of the library in use. */
#define HP_VERSION_MAJOR 0
#define HP_VERSION_MINOR 1
#define HP_VERSION_PATCH 0

/* Limits that a caller meets. */
#define HP_PAYLOAD_INLINE_BYTES 65536   /* larger payloads and results travel as blobs, unasked */
#define HP_PAYLOAD_BYTES_MAX 1073741824 /* largest payload or result */
#define HP_ARRAY_TASKS_MAX 1000000      /* tasks of one hp_submit_array */
#define HP_SUBMIT_TASKS_MAX 16384       /* payloads of one hp_submit_async */

/* Timeouts of blocking calls are in ms, 0 meaning "try once, do not wait". Two special values: */
#define HP_TIMEOUT_DEFAULT (-1) /* the client's timeout_ms */
#define HP_TIMEOUT_NONE (-2)    /* no limit; for waits on tasks */

/* "major.minor.patch" of the library. Static. */
HP_API const char *hp_version(void);

/* ---------------------------------------------------------------- results of calls */

/* Result of a call. The words (hp_status_word) and numbers are stable. */
enum hp_status {
    HP_STATUS_OK = 0,
    /* From the broker; its text is in hp_client_error(). */
    HP_STATUS_BAD_REQUEST = 1,
    HP_STATUS_DENIED = 2,        /* token missing or wrong, or not allowed */
    HP_STATUS_VERSION = 3,       /* no common protocol version */
    HP_STATUS_UNKNOWN_METHOD = 4,
    HP_STATUS_NOT_FOUND = 5,     /* no such task, queue, worker or blob */
    HP_STATUS_BUSY = 6,          /* broker: a limit is reached, nothing was stored */
    HP_STATUS_DRAINING = 7,      /* broker is stopping */
    HP_STATUS_CONFLICT = 8,      /* the unique key is held */
    HP_STATUS_OUT_OF_ORDER = 9,
    HP_STATUS_TOO_BIG = 10,      /* payload, result or frame over its limit */
    HP_STATUS_STALE = 11,
    HP_STATUS_ILLEGAL_STATE = 12, /* the task's state does not allow this */
    HP_STATUS_UNSUPPORTED = 13,
    HP_STATUS_DAMAGED = 14,      /* bytes failed their digest, at the broker or here */
    HP_STATUS_INTERNAL = 15,     /* the broker failed */
    /* Made here. */
    HP_STATUS_AGAIN = 64,        /* window full: process events first */
    HP_STATUS_TIMEOUT = 65,      /* the call's timeout ran out; what it asked may still happen */
    HP_STATUS_UNREACHABLE = 66,  /* no connection within the timeout */
    HP_STATUS_PROTOCOL = 67,     /* the peer does not speak hostpool's protocol */
    HP_STATUS_NO_MEMORY = 68,
    HP_STATUS_BAD_ARGUMENT = 69, /* the caller's argument is outside its range */
    HP_STATUS_SESSION_LOST = 70, /* the broker has forgotten the session: whether the submit took
                                    effect is not known */
    HP_STATUS_STOPPED = 71,      /* a callback of the caller asked to stop */
    HP_STATUS_SYSTEM = 72,       /* a system call failed; text has the reason */
    HP_STATUS_BROKER_LOST = 73,  /* the task was not durable, and the broker has restarted: what
                                    became of it is not known */
};

/* The stable word of a status, for example "not_found"; "?" for other numbers. Static. */
HP_API const char *hp_status_word(enum hp_status status);
/* A sentence for people. Static. */
HP_API const char *hp_strerror(enum hp_status status);

/* Bytes lent by or to the library; not NUL-terminated. data may be NULL when size is 0. */
struct hp_bytes {
    const void *data;
    size_t size;
};

/* ---------------------------------------------------------------- values of the protocol */

enum hp_kind {
    HP_KIND_COMMAND = 1,  /* an argv in a process of its own */
    HP_KIND_FUNCTION = 2, /* a function of a module the worker has loaded */
    HP_KIND_CALL = 3,     /* a call in a child of a pool (hostpool_pool.h) */
    HP_KIND_POOL = 4,     /* a pool: children kept for its calls, until it is closed */
};

enum hp_state {
    HP_STATE_BLOCKED = 1,
    HP_STATE_DELAYED = 2,
    HP_STATE_READY = 3,
    HP_STATE_LEASED = 4,
    HP_STATE_RUNNING = 5,
    HP_STATE_WAITING = 6,
    HP_STATE_CANCELLING = 7,
    HP_STATE_BURIED = 8,
    /* Final: */
    HP_STATE_DONE = 9,
    HP_STATE_FAILED = 10,
    HP_STATE_CANCELLED = 11,
    HP_STATE_EXPIRED = 12,
    /* No row: */
    HP_STATE_GONE = 13,    /* was there; retention removed it */
    HP_STATE_UNKNOWN = 14, /* the broker never gave out the id */
};

/* Why a task failed. */
enum hp_end_reason {
    HP_END_NONE = 0,
    HP_END_ERROR = 1,
    HP_END_EXIT = 2,
    HP_END_SIGNAL = 3,
    HP_END_CHILD_SIGNAL = 4,
    HP_END_CHILD_EXIT = 5,
    HP_END_OOM = 6,
    HP_END_TIMEOUT = 7,
    HP_END_NODE_LOST = 8,
    HP_END_NODE_RESTART = 9,
    HP_END_LOST = 10,
    HP_END_NOT_STARTED = 11,
    HP_END_RESULT_TOO_BIG = 12,
    HP_END_DEADLINE = 13,
    HP_END_PERMANENT = 14,
    HP_END_NO_FUNCTION = 15,
    HP_END_CANCELLED = 16,
    HP_END_DRAINED = 17,
    HP_END_DAMAGED = 18,
    HP_END_INIT_FAILED = 19, /* no child of the pool could be set up */
    HP_END_POOL_ENDED = 20,  /* its pool was terminated before it ended */
};

enum hp_payload_kind {
    HP_PAYLOAD_STDIN = 0, /* standard input of a command; of a function its argument */
    HP_PAYLOAD_ARGV = 1,  /* of a command: further arguments, each ended by a NUL byte */
    HP_PAYLOAD_ITEMS = 2, /* of a function in C: a MessagePack array of byte strings; it runs for
                             each, and the result is an array of their results. It fails with the
                             first that fails; a retry runs all of them again */
};

enum hp_conflict {
    HP_CONFLICT_JOIN = 0,
    HP_CONFLICT_REJECT = 1,
    HP_CONFLICT_REPLACE = 2,
};

enum hp_partition {
    HP_PARTITION_KILL = 0,
    HP_PARTITION_CONTINUE = 1,
};

enum hp_outcome {
    HP_OUTCOME_CREATED = 0,
    HP_OUTCOME_JOINED = 1,   /* the id is that of the live task which holds the unique key */
    HP_OUTCOME_REPLACED = 2,
};

enum hp_cancel_how {
    HP_CANCEL_FORCE = 0,  /* TERM, then KILL after the grace time */
    HP_CANCEL_SOFT = 1,   /* TERM only */
    HP_CANCEL_QUEUED = 2, /* only tasks that do not run */
};

enum hp_cancelled {
    HP_CANCELLED_QUEUED = 0,   /* was queued and is cancelled */
    HP_CANCELLED_RUNNING = 1,  /* runs and was told to end */
    HP_CANCELLED_TOO_LATE = 2, /* had ended already, or runs and only queued ones were meant */
    HP_CANCELLED_UNKNOWN = 3,
};

enum hp_wait_for {
    HP_WAIT_ALL = 0,
    HP_WAIT_ANY = 1,
};

enum hp_output {
    HP_OUTPUT_STDOUT = 1,
    HP_OUTPUT_STDERR = 2,
};

enum hp_worker_state {
    HP_WORKER_ONLINE = 1,
    HP_WORKER_AWAY = 2,    /* not connected, lease still running */
    HP_WORKER_OFFLINE = 3, /* lease ran out */
};

/* State of a pool. */
enum hp_pool_phase {
    HP_POOL_OPEN = 1,    /* takes calls */
    HP_POOL_CLOSING = 2, /* takes no new calls; those it has are run */
    HP_POOL_ENDING = 3,  /* terminated: its calls are being ended */
    HP_POOL_ENDED = 4,   /* has no calls and no children any more */
};

/* How a pool is ended. */
enum hp_pool_how {
    HP_POOL_CLOSE = 0,     /* what was submitted is run first */
    HP_POOL_TERMINATE = 1, /* waiting calls are dropped, running ones get TERM, then KILL */
};

/* Stable words of the values above ("running", "node_lost"...); "?" for other numbers. Static. */
HP_API const char *hp_kind_word(enum hp_kind kind);
HP_API const char *hp_state_word(enum hp_state state);
HP_API const char *hp_end_reason_word(enum hp_end_reason reason);
HP_API const char *hp_outcome_word(enum hp_outcome outcome);
HP_API const char *hp_cancelled_word(enum hp_cancelled cancelled);
HP_API const char *hp_worker_state_word(enum hp_worker_state state);
HP_API const char *hp_pool_phase_word(enum hp_pool_phase phase);
/* A sentence for people about a reason ("the lease ran out more often than ..."). Static. */
HP_API const char *hp_end_reason_text(enum hp_end_reason reason);
/* The state of this word into *ret_state; false if there is none. */
HP_API bool hp_state_parse(const char *word, enum hp_state *ret_state);
/* done, failed, cancelled and expired are final: the task changes no more. */
HP_API bool hp_state_is_final(enum hp_state state);

/* Consecutive task ids: [first, first + count). */
struct hp_ids {
    uint64_t first;
    uint32_t count;
};

#ifdef __cplusplus
}
#endif
#endif
