/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the core asks the store to keep (ops), what it asks the store for (loads), and what the
 * store gives back at start (records). Plain data: this header is all that core and store share.
 *
 * Shapes (docs/storage.md has the reasons):
 *  - A *group* is one task.submit: ids [first, first+count), one set of options, packed payloads.
 *  - A *lane* is a homogeneous FIFO: same queue, priority, tenant, needs and concurrency key.
 *    What waits in it is a list of *runs* (first,count), appended as *segments*.
 *  - An id found in a segment is waiting only if it has no result, no side row and no live lease:
 *    the lane's head segment is an optimisation, never the truth.
 *  - A *side* row is a rare fact about a task that is neither simply waiting nor leased nor ended:
 *    delayed, returned for a retry, buried, cancelling; or a pending expiry of a group.
 *  - A *result* ends a task; it is written once and never changed.
 *
 * All pointers in ops point into the batch's arena and live until the batch is committed.
 */
#ifndef HP_SERVER_CORE_OP_H
#define HP_SERVER_CORE_OP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/bin.h"
#include "common/base/err.h"

/* A run of consecutive ids in a lane. */
struct hp_id_run {
    uint64_t first;
    uint32_t count;
    int64_t since_ms; /* wall clock: when it began to wait; drives ageing */
};

struct hp_id_span {
    uint64_t first;
    uint32_t count;
};

enum hp_side_kind {
    HP_SIDE_DELAYED = 1,    /* range, waits for run_at_ms, was never dispatched */
    HP_SIDE_RETURNED = 2,   /* one task, dispatched before, waits for run_at_ms (maybe past) */
    HP_SIDE_BURIED = 3,     /* one task, parked; run_at_ms is 0 */
    HP_SIDE_CANCELLING = 4, /* one task, leased, its cancel is durable; run_at_ms is 0 */
    HP_SIDE_EXPIRY = 5,     /* range: what has not started at run_at_ms expires */
    HP_SIDE_POOL = 6,       /* one task, a pool that has not ended; mode is its state */
};

/* Key is (kind is EXPIRY or not, first): a group may have a DELAYED and an EXPIRY row. */
struct hp_side {
    uint64_t first;
    uint32_t count;
    enum hp_side_kind kind;
    uint32_t lane;     /* lane id */
    int64_t run_at_ms; /* wall clock */
    uint32_t attempt;  /* latest attempt number used */
    uint32_t failures;
    uint32_t losses;
    uint32_t releases;
    uint32_t reason;   /* enum hp_reason of the latest end */
    uint32_t mode;     /* CANCELLING: cancel mode */
    uint64_t grace_ms; /* CANCELLING */
};

/* One live lease. All leases of a batch become one row, keyed by the batch's number. */
struct hp_lease {
    uint64_t id;
    uint64_t epoch; /* of the dispatch */
    uint64_t group; /* first id of its group */
    uint32_t attempt;
    uint32_t node; /* node number, see HP_OP_NODE */
    uint32_t lane;
    uint32_t failures;
    uint32_t losses;
    uint32_t releases;
    int64_t started_at_ms; /* wall clock of the dispatch */
};

struct hp_result {
    uint64_t first;
    uint32_t count; /* > 1: the same facts for all, no end record */
    uint32_t state; /* enum hp_task_state of proto: done, failed, cancelled, expired */
    uint32_t reason;
    uint32_t attempt;
    uint32_t failures;
    uint32_t losses;
    uint32_t node; /* 0: none */
    int64_t started_at_ms;
    int64_t ended_at_ms;
    int64_t expires_at_ms;
    struct hp_bin end; /* encoded task_end, may be empty */
};

enum hp_op_kind {
    HP_OP_GROUP = 1, /* insert */
    HP_OP_LANE,      /* upsert: key, head segment, ready count; deletes segments before head */
    HP_OP_LANE_DEL,  /* delete lane and its segments */
    HP_OP_SEGMENT,   /* append runs to a lane */
    HP_OP_LEASE,     /* append to this batch's lease row */
    HP_OP_LEASE_DEL, /* delete the lease row of an earlier batch: all its leases ended */
    HP_OP_RESULT,    /* insert; the store coalesces neighbours */
    HP_OP_SIDE,      /* upsert */
    HP_OP_SIDE_DEL,  /* delete by (expiry?, first) */
    HP_OP_UKEY,      /* upsert (queue,key) -> id */
    HP_OP_UKEY_DEL,  /* delete (queue,key) */
    HP_OP_SESSION,   /* upsert session row */
    HP_OP_QUEUE,     /* upsert queue row */
    HP_OP_NODE,      /* upsert node row */
    HP_OP_BLOB,      /* a durable blob file is now referenced by a task */
    HP_OP_META,      /* next ids reserved; planned-stop grace */
    HP_OP_REAP,      /* retention: what expired before wall_ms may go, in small slices */
    HP_OP_FORGET,    /* a hint, not durable: what has ended of these ids may go, likewise */
};

struct hp_op {
    enum hp_op_kind kind;
    union {
        struct {
            uint64_t first;
            uint32_t count;
            uint32_t lane;
            int64_t created_at_ms;
            struct hp_bin session; /* 16 bytes or empty */
            struct hp_bin options; /* encoded task_options */
            struct hp_bin pack;    /* packed payloads (core/pack.h); opaque to the store */
        } group;
        struct {
            uint32_t lane;
            struct hp_bin key; /* opaque to the store; empty: unchanged */
            uint64_t head_segment;
            uint64_t next_segment;
            uint64_t ready_count;
        } lane;
        struct {
            uint32_t lane;
            uint64_t segment; /* number, grows by one for each of the lane */
            const struct hp_id_run *runs;
            uint32_t run_count;
        } segment;
        struct hp_lease lease;
        struct {
            uint64_t batch;
        } lease_del;
        struct hp_result result;
        struct hp_side side;
        struct {
            uint64_t first;
            bool expiry;
        } side_del;
        struct {
            struct hp_bin key; /* queue, NUL, key */
            uint64_t id;
        } ukey;
        struct {
            struct hp_bin id; /* 16 bytes */
            struct hp_bin state;
            int64_t seen_at_ms;
        } session;
        struct {
            struct hp_bin name;
            struct hp_bin state; /* opaque */
        } queue;
        struct {
            uint32_t number;
            struct hp_bin name;
            struct hp_bin boot;  /* 16 bytes */
            struct hp_bin state; /* opaque: drain flag and reason, host */
        } node;
        struct {
            uint64_t blob;
            uint64_t owner; /* task id; goes when the task's rows go */
        } blob;
        struct {
            uint64_t next_id; /* ids below are reserved; never go back */
            uint64_t next_blob;
            uint64_t grace_ms; /* planned stop: leases are given this long at the next start */
        } meta;
        struct {
            int64_t wall_ms;
            bool keep_sessions; /* their clients may be on their way back */
        } reap;
        struct {
            const struct hp_id_span *spans; /* any order; ids without a group are fine */
            uint32_t span_count;
            int64_t wall_ms;
        } forget;
    };
};

/* One turn's ops. Filled by the core, applied by the store in one transaction, in order. */
struct hp_batch {
    uint64_t number; /* grows by one each turn, also for empty turns */
    struct hp_op *ops;
    uint32_t op_count;
    uint32_t op_capacity;
    struct hp_arena arena;
    struct hp_batch *next; /* for whoever owns it */
};

/* The state of a queue as its row holds it: a byte, paused or not, and the count of delayed tasks.
 */
#define HP_QUEUE_STATE_BYTES 9u
void hp_queue_state_put(uint8_t state[HP_QUEUE_STATE_BYTES], bool paused, uint64_t delayed);

struct hp_batch *hp_batch_new(void);
void hp_batch_free(struct hp_batch *batch);
/* Empties it for reuse. */
void hp_batch_clear(struct hp_batch *batch, uint64_t number);
/* Appends a zeroed op of `kind`; never NULL (memory out of reach aborts: the core cannot go on). */
struct hp_op *hp_batch_add(struct hp_batch *batch, enum hp_op_kind kind);
/* Copies bytes into the batch's arena. */
struct hp_bin hp_batch_copy(struct hp_batch *batch, const void *data, size_t size);

/* ------------------------------------------------------------------ loads */
enum hp_load_kind {
    HP_LOAD_LANE = 1, /* the next waiting runs of a lane */
    HP_LOAD_GROUPS,   /* groups that hold these ids, with payloads, for dispatch */
    HP_LOAD_TASKS,    /* facts about ids: group, result, side */
    HP_LOAD_LIST,     /* ids before a cursor, newest first, with facts */
    HP_LOAD_SIDES,    /* DELAYED, RETURNED and EXPIRY rows by (run_at_ms, first), after a cursor */
    HP_LOAD_SESSION,  /* one session row */
    HP_LOAD_CHECK,    /* check of the whole database; text lines */
    HP_LOAD_BACKUP,   /* copy to a directory, verified */
};

/*
 * A request. The store answers it with the state after all batches handed over before it.
 * Slices: a load works for about 2 ms or up to bytes_max, then answers with `more` and a cursor.
 */
struct hp_load {
    enum hp_load_kind kind;
    uint64_t cookie;          /* the core's; comes back */
    uint32_t lane;            /* LANE */
    uint64_t segment;         /* LANE: from this segment on */
    uint32_t limit;           /* LANE: runs; LIST: tasks; SIDES: rows */
    uint64_t before;          /* LIST: ids below this one; 0: from the newest */
    bool live_only;           /* LIST: leave out ended tasks */
    bool with_end;            /* TASKS, LIST: results come with end records */
    int64_t since_ms;         /* LIST: stop at groups created before; 0: none */
    int64_t after_run_at_ms;  /* SIDES cursor */
    uint64_t after_first;     /* SIDES cursor */
    struct hp_bin text;       /* SESSION: id; BACKUP: path; owned (hp_load_set_text) */
    struct hp_id_span *spans; /* GROUPS, TASKS; owned by the load (heap) */
    uint32_t span_count;
    uint32_t bytes_max; /* about this much in the answer */
    struct hp_load *next;
};

struct hp_loaded_group {
    uint64_t first;
    uint32_t count;
    uint32_t lane;
    int64_t created_at_ms;
    struct hp_bin session;
    struct hp_bin options;
    struct hp_bin pack; /* only for HP_LOAD_GROUPS; else empty */
    uint32_t pack_size;
    bool damaged; /* its stored bytes failed their digest: session, options and pack are empty */
};

struct hp_loaded_task {
    uint64_t id;
    bool exists;  /* a group holds it */
    bool gone;    /* no group, but a tombstone; result.state says how it ended */
    bool damaged; /* its stored bytes failed their digest */
    bool ended;
    bool has_side;           /* a DELAYED, RETURNED, BURIED or CANCELLING row */
    uint32_t group;          /* index into groups, if exists */
    struct hp_result result; /* if ended (count is 1), or gone */
    struct hp_side side;     /* if has_side */
};

/* The answer. All memory is in its arena; free with hp_loaded_free. */
struct hp_loaded {
    struct hp_load *load; /* the request, owned by the answer now */
    bool in_memory;       /* not of the store: the core answered itself */
    enum hp_err err;      /* HP_OK, or HP_ERR_CORRUPT / HP_ERR_IO / ... for checks and backups */
    struct hp_bin text;   /* error text, or CHECK lines separated by \n */
    struct hp_id_run
        *runs; /* LANE: waiting runs: no result, no side row (leases: the core knows) */
    uint64_t *run_segments; /* LANE: segment of each run */
    uint32_t run_count;
    uint64_t next_segment; /* LANE: go on from here */
    struct hp_loaded_group *groups;
    uint32_t group_count;
    struct hp_loaded_task *tasks;
    uint32_t task_count;
    struct hp_side *sides;
    uint32_t side_count;
    bool found;          /* SESSION */
    struct hp_bin state; /* SESSION */
    bool more;     /* cut: LANE go on at next_segment; TASKS: ids from `next` on are missing; */
    uint64_t next; /* TASKS, GROUPS: first id that was not answered; LIST: pass as before */
    uint64_t figures[4]; /* BACKUP: tasks, bytes; CHECK: rows checked, problems */
    struct hp_arena arena;
    struct hp_loaded *next_loaded;
};

struct hp_loaded *hp_loaded_new(struct hp_load *load);
void hp_loaded_free(struct hp_loaded *loaded); /* frees the load, too; NULL is fine */
struct hp_load *hp_load_new(enum hp_load_kind kind);
/* Sets `text` to a copy on the heap, which the load owns and frees. */
void hp_load_set_text(struct hp_load *load, const void *data, size_t size);
void hp_load_free(struct hp_load *load);

/* ------------------------------------------------------------------ records: recovery at start */
enum hp_record_kind {
    HP_RECORD_META = 1, /* first */
    HP_RECORD_QUEUE,
    HP_RECORD_NODE,
    HP_RECORD_LANE,
    HP_RECORD_LEASE, /* with its group's options */
    HP_RECORD_SIDE,  /* only CANCELLING, BURIED, POOL ones; others come by HP_LOAD_SIDES */
    HP_RECORD_UKEY,
};

struct hp_record {
    enum hp_record_kind kind;
    union {
        struct {
            uint64_t epoch; /* of this start: already raised and durable */
            uint64_t next_id;
            uint64_t next_blob;
            uint64_t grace_ms;
            uint64_t side_count;    /* DELAYED, RETURNED and EXPIRY rows */
            uint64_t delayed_count; /* tasks in DELAYED and RETURNED rows */
            uint64_t last_batch;    /* batch numbers go on above it */
        } meta;
        struct {
            struct hp_bin name, state;
        } queue;
        struct {
            uint32_t number;
            struct hp_bin name, boot, state;
        } node;
        struct {
            uint32_t lane;
            struct hp_bin key;
            uint64_t head_segment, next_segment, ready_count;
        } lane;
        struct {
            uint64_t batch;
            struct hp_lease lease;
            int64_t created_at_ms;
            uint32_t group_count;
            struct hp_bin session;
            struct hp_bin options;
        } lease;
        struct hp_side side;
        struct {
            struct hp_bin key;
            uint64_t id;
        } ukey;
    };
};
typedef void hp_record_fn(void *context, const struct hp_record *record);

#endif
