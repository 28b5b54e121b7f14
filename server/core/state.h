/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The core's state: one struct, no globals. Private to server/core.
 *
 * Who owns what:
 *  - core owns everything; objects are freed when their count of references is 0.
 *  - spec (interned options): referenced by groups, attempts and parked tasks.
 *  - lane: referenced by specs; freed when nothing waits in it and no spec names it.
 *  - group (a submit's payloads in memory): referenced by runs of its lane.
 *  - attempt: one for each live lease; in `attempts` by task id and in its node's list.
 *
 * Invariants (hp_core_check):
 *  I1 a task id is in at most one of: attempts, a lane's runs, parked, timers.
 *  I2 node->used_cpus, light_count are the sums over node->attempts.
 *  I3 lane->running, ckey->running, queue->running are the counts of attempts.
 *  I4 a lane is in its class's heap exactly if it may be dispatched from (hp_lane_is_open).
 */
#ifndef HP_SERVER_CORE_STATE_H
#define HP_SERVER_CORE_STATE_H

#include "common/base/arena.h"
#include "common/base/assert.h"
#include "common/base/buf.h"
#include "common/base/hash.h"
#include "common/base/heap.h"
#include "common/base/idmap.h"
#include "common/base/list.h"
#include "common/base/mem.h"
#include "common/base/rand.h"
#include "common/base/str.h"
#include "common/base/strmap.h"
#include "proto/hp_msg.h"
#include "proto/hp_states.h"
#include "proto/rpc.h"
#include "proto/wire.h"
#include "server/core/core.h"
#include "server/core/pack.h"
#include "server/core/pool.h"
#include "server/core/volatile.h"

/* Bytes of queued events or assignments after which a frame is closed. */
enum { HP_OUT_FRAME_BYTES = 384 * 1024, HP_OUT_FRAME_ELEMENTS = 48000 };
/* Of task.wait and pool.info. */
enum { HP_WAITS_PER_CONN_MAX = 256 };

struct hp_queue {
    struct hp_str name; /* key of core->queues */
    bool paused;
    bool dirty;
    uint64_t delayed; /* tasks in DELAYED and RETURNED rows; durable with the queue */
    uint64_t running;
    uint64_t done_count, failed_count; /* since start */
    struct hp_list lanes;              /* of hp_lane.queue_link */
    struct hp_list dirty_link;
};

/* A concurrency key: at most `max` attempts over all lanes that name it. */
struct hp_ckey {
    struct hp_str name; /* key of core->ckeys */
    uint32_t max;
    uint32_t running;
    uint32_t refs;        /* lanes */
    struct hp_list lanes; /* of hp_lane.ckey_link */
};

/* A class of needs: tasks of one class can run on the same workers. */
struct hp_class {
    uint32_t id;
    uint32_t kind; /* enum hp_task_kind */
    struct hp_str fn;
    struct hp_list_str tags;
    uint32_t cpus;
    uint64_t mem_bytes;
    struct hp_str key;    /* key of core->classes; fn and tags point into it */
    uint32_t refs;        /* lanes */
    struct hp_heap lanes; /* open lanes, best first */
    struct hp_list link;  /* core->class_list: all classes */
    uint64_t run_us;      /* moving average of measured run times; 0: unknown */
    uint32_t held;        /* attempts */
    uint64_t pool;        /* kind call: whose calls; else 0 */
};

/* Options of tasks, decoded once and shared by all submits that send the same bytes. */
struct hp_spec {
    uint32_t refs;
    struct hp_bin raw;                 /* encoded task_options */
    struct hp_st_task_options options; /* views into raw and spec memory */
    struct hp_arena arena;
    struct hp_lane *lane;
    struct hp_list idle_link; /* core->spec_idle while refs is 0 */
};

struct hp_group {
    uint64_t first;
    uint32_t count;
    uint32_t refs; /* runs */
    struct hp_spec *spec;
    struct hp_session *session; /* counted; or NULL */
    int64_t created_at_ms;
    uint64_t batch;     /* of its submit in this process; 0: it came from the store */
    bool in_memory;     /* not durable: counted in vol.bytes */
    struct hp_bin pack; /* behind the struct, one block */
};

/* Waiting tasks of a lane, in order. */
struct hp_run {
    uint64_t first;
    uint32_t count;
    int64_t since_ms;
    uint64_t segment;       /* UINT64_MAX: appended this turn, not yet in a segment */
    struct hp_group *group; /* NULL: cold, payloads are in the store */
    bool loading;
};

/* A task that came back (retry, loss, release) and is due: waits in front of its lane. */
struct hp_parked {
    uint64_t id;
    struct hp_group *group; /* of one task: made for it */
    struct hp_list link;    /* lane->parked, ordered by id */
    uint32_t attempt, failures, losses, releases;
    uint64_t group_first;
    uint32_t group_count;
    int64_t since_ms;
};

struct hp_lane {
    uint32_t id;
    struct hp_str key; /* key of core->lane_keys */
    struct hp_queue *queue;
    struct hp_class *class_;
    struct hp_ckey *ckey; /* or NULL */
    uint32_t priority;
    uint32_t refs; /* specs */
    uint32_t running;
    uint32_t reserved_node; /* number of the node that makes room for its big tasks; 0: none */
    uint64_t ready_count;   /* tasks in runs and in segments not loaded; not the parked ones */
    struct hp_run *runs;    /* ring */
    uint32_t run_head, run_count, run_capacity;
    uint64_t memory_count; /* tasks in the ring */
    uint64_t head_segment; /* segments below are consumed */
    uint64_t next_segment; /* number of the next one to append */
    uint64_t load_segment; /* first that is not in memory; == next_segment: all are */
    bool load_pending;
    bool load_failed, runs_failed; /* what is damaged is not asked for again */
    bool damaged; /* a load of it failed: what is only in the store waits for an operator */
    bool key_stored, dirty;
    bool in_memory; /* of tasks that are not durable: no row, no segments */
    struct hp_list parked;
    uint32_t parked_count;
    int64_t rank; /* heap key: greater goes first */
    uint64_t rank_id;
    struct hp_heap_node heap_node;
    struct hp_list queue_link, ckey_link, dirty_link;
    struct hp_list pool_link; /* hp_pool.lanes */
    struct hp_id_run *spill;  /* appended this turn, only for the store */
    uint32_t spill_count, spill_capacity;
    bool runs_pending;                               /* payloads are being loaded */
    uint64_t stored_ready, stored_head, stored_next; /* as in its row */
};

struct hp_lease_batch {
    uint64_t number;
    uint64_t durable_ms; /* when its assignments left, in this process; 0: not yet */
    uint32_t live;
};

struct hp_attempt {
    uint64_t id;
    uint64_t epoch;
    uint64_t group_first;
    uint32_t group_count;
    uint32_t attempt;
    uint32_t failures, losses, releases;
    uint8_t state; /* HP_TASK_LEASED, RUNNING, WAITING, CANCELLING */
    bool seen;     /* named by the latest list of its worker */
    bool eager;
    uint32_t cancel_mode;
    uint64_t cancel_grace_ms;
    struct hp_node *node;
    struct hp_spec *spec;
    struct hp_session *session;     /* counted; or NULL */
    struct hp_pool_node *pool_node; /* calls; else NULL */
    struct hp_lease_batch *lease;   /* NULL: not durable */
    int64_t started_at_ms, created_at_ms;
    uint64_t assigned_ms, sent_after; /* monotonic; a batch: before, it is held; 0: sent at once */
    uint64_t recalled_ms;             /* asked back; 0: not */
    struct hp_list node_link;
};

struct hp_node {
    uint32_t number;
    struct hp_str name;
    uint8_t boot[16];       /* whose attempts these are */
    uint8_t hello_boot[16]; /* of the connection, until it registers */
    uint8_t state;          /* HP_NODE_* */
    bool registered;        /* has said what it offers since the broker started */
    bool draining;          /* an operator drains it: durable */
    bool leaving;           /* it is stopping: it said so when it registered */
    bool stored;            /* has a row */
    bool commands;
    char *host, *reason; /* each at most HP_NODE_TEXT_MAX bytes, never NULL */
    uint32_t pid, slots, prefetch_max;
    uint64_t mem_bytes;
    struct hp_offer *offer;                        /* NULL: it has not registered */
    struct hp_list_str tags, functions, languages; /* the offer's */
    bool any_interpreter;
    bool wants_complete;   /* it has not been told yet that all its pools were named */
    uint32_t children_max; /* of pools; 0: by its slots */
    uint32_t pool_granted; /* of them, over all pools */
    struct hp_idmap pools; /* pool id -> hp_pool_node */
    struct hp_idmap fits; /* class id -> 1 no, 2 yes */
    struct hp_conn *conn;
    struct hp_list attempts;
    uint32_t attempt_count, used_cpus, light_count; /* the last: of those that take one slot */
    bool stuck; /* tasks of one slot were asked back, and none has ended since: none ahead */
    uint64_t used_mem;
    uint64_t seen_ms, lease_end_ms;
    struct hp_heap_node heap_node; /* core->node_heap by lease_end_ms, while it may expire */
    struct hp_list link;
    uint64_t done_count;
    uint64_t register_batch; /* with its registration, in this process */
};

struct hp_reply_memo {
    uint64_t number;
    uint64_t first;
    uint32_t count;
    uint8_t outcome;
    uint8_t error; /* enum hp_rpc_error_code; 0: it was carried out */
};

struct hp_session {
    uint8_t id[16];
    uint32_t refs;  /* connection, groups, attempts, pools */
    uint32_t pools; /* that it owns */
    struct hp_conn *conn;
    bool known;        /* its numbers are; else it only stands for who is to be told */
    bool dirty, ahead; /* ahead: of its row, by submits that are not durable */
    uint64_t last_number, acked, batch; /* batch: with its latest change, in this process */
    struct hp_reply_memo *memos;        /* ascending by number */
    uint32_t memo_count, memo_capacity;
    uint64_t seen_ms;
    int64_t stored_ms; /* wall clock of its row as last written by this process; 0: not yet */
    struct hp_list link, dirty_link; /* core->session_list: least recently seen first */
};

/* A task.wait. First its ids are looked up, then it waits, then their records are loaded. */
struct hp_wait {
    uint64_t cookie;
    uint64_t conn;
    uint32_t msgid;
    uint32_t mode;
    bool with_end, armed, answering;
    bool held; /* part of the answer came from the store */
    uint64_t *ids;
    uint8_t *ended;
    uint32_t count, left;
    uint32_t looked_up;    /* index of the first id the store was asked for last */
    struct hp_buf results; /* encoded answers */
    uint32_t result_count;
    uint64_t end_elements; /* of the end records in them */
    uint64_t deadline_ms;
    struct hp_heap_node heap_node;
    struct hp_list conn_link;
};

/* Who waits for one id: chain in core->waiters. */
struct hp_waiter {
    struct hp_wait *wait;
    uint32_t index;
    struct hp_waiter *next;
};

/* A connection that follows the output of a task. */
struct hp_follow {
    uint64_t id;
    uint64_t conn;
    struct hp_list link;
};

/* Encoded items that become one message at the end of the turn. */
struct hp_out_list {
    struct hp_buf items;
    uint32_t count, elements;
};

struct hp_conn {
    uint64_t id;
    uint8_t state; /* HP_CONN_* */
    bool loopback, events, error_maps, blocked, events_lost, closing, in_dirty;
    bool has_key; /* content may be handed over by descriptor */
    uint8_t key[HP_CONN_KEY_BYTES];
    bool paused; /* a request of this connection waits for a load before the next may be read */
    uint32_t load_count; /* requests of it that wait for the store */
    uint32_t blob_count; /* and for the blob thread */
    uint32_t wait_count; /* of `waits`, and in pools */
    uint64_t opened_ms;
    uint64_t hello_batch; /* the answer to its hello waits for this one */
    struct hp_session *session;
    struct hp_node *node;
    struct hp_buf now, held;
    bool now_is_urgent, held_is_urgent; /* of this turn; else they may wait for what comes next */
    struct hp_out_list events_out, events_now, assign_now, assign_held;
    struct hp_list dirty_link, waits;
    struct hp_list link; /* core->conn_list, until hello */
    char peer[64];
};

/* What waits for the answer of a load. */
enum hp_pending_kind {
    HP_PENDING_LANE = 1,
    HP_PENDING_RUNS,   /* payloads of cold runs */
    HP_PENDING_TIMERS, /* groups of due DELAYED and RETURNED rows */
    HP_PENDING_EXPIRY,
    HP_PENDING_SIDES,
    HP_PENDING_SESSION, /* hello */
    HP_PENDING_GET,
    HP_PENDING_WAIT,
    HP_PENDING_CANCEL,
    HP_PENDING_LIST,
    HP_PENDING_WHY,
    HP_PENDING_FOLLOW,
    HP_PENDING_CHECK,
    HP_PENDING_BACKUP,
    HP_PENDING_POOL,       /* the group of a pool found at the start */
    HP_PENDING_POOL_ENDED, /* a request about a pool that is not in memory */
    HP_PENDING_POOL_SCAN,  /* live tasks: delayed calls of a pool that is ending */
    HP_PENDING_REPLACE,    /* a submit with on_conflict=replace */
};

struct hp_pending {
    uint64_t cookie;
    enum hp_pending_kind kind;
    uint64_t conn;
    uint32_t msgid;
    uint32_t lane;
    uint64_t id;
    struct hp_bin frame; /* owned copy of the request, where it goes on in slices */
    struct hp_wait *wait;
    bool held; /* cancel: something durable was looked at */
    uint64_t counts[4];
    struct hp_buf results; /* cancel: encoded results */
    uint32_t result_count;
    struct hp_list link; /* in order of issue */
};

/* A DELAYED, RETURNED or EXPIRY row in memory. */
struct hp_timer {
    struct hp_side side;
    bool loading;
    struct hp_heap_node heap_node;
};

/* A task that left the attempts or the queue while a load may be looking at it. */
struct hp_recent {
    uint64_t id;
    uint32_t count;
    uint64_t batch;  /* its batch */
    uint64_t cookie; /* last load issued before it */
    bool ended;
};

struct hp_core {
    struct hp_core_config config;
    char *server, *token, *warning;
    struct hp_rand rand;
    uint64_t hash_seed;
    uint64_t now_ms;
    int64_t wall_ms;
    uint64_t started_ms;
    uint64_t turn_due_ms; /* when the next turn was asked for */
    struct hp_batch *batch;
    struct hp_effects *effects;
    bool in_turn;
    uint64_t batch_number, durable_number, hold_batch; /* the pauses of hp_core_hold; 0: none */
    uint64_t epoch, next_id, reserved_id, durable_reserved_id, next_blob, reserved_blob;
    uint64_t reserve_batch;    /* batch that raised reserved_id */
    uint64_t recover_grace_ms; /* of the stop before this start */
    uint64_t drain_grace_ms;   /* of this one: in every META op */
    bool draining, disk_low;
    uint64_t backlog_ops;
    struct hp_arena arena;     /* of one step */
    struct hp_wire *wire;      /* of the frame of this step */
    struct hp_wire *spec_wire; /* of options and lane keys */

    struct hp_idmap conns;
    struct hp_list conn_list; /* those before hello, oldest first */
    struct hp_list conn_dirty;
    struct hp_strmap sessions; /* by the 16 bytes */
    struct hp_list session_list, session_dirty;
    uint32_t session_count;
    struct hp_strmap queues, ckeys, classes, lane_keys;
    struct hp_strmap offers; /* key -> hp_offer */
    struct hp_list queue_dirty;
    struct hp_idmap lanes;
    struct hp_strmap specs; /* by their bytes */
    struct hp_list lane_dirty, class_list, spec_idle;
    uint32_t spec_idle_count;
    uint32_t next_lane, next_class;
    struct hp_idmap attempts;
    struct hp_strmap nodes_by_name;
    struct hp_idmap nodes;
    struct hp_list node_list;
    struct hp_heap node_heap;
    uint32_t next_node;
    struct hp_lease_batch *open_lease;
    struct hp_idmap lease_batches;
    struct hp_idmap ukeys;    /* hash of (queue, key) -> id */
    struct hp_idmap pools;    /* id -> hp_pool */
    struct hp_list pool_list; /* by id */
    uint64_t pools_due_ms;    /* when the pass over them is due; 0: now */
    bool pool_rows_dirty, grants_wanted;
    bool pools_blocked;       /* by the backlog of ops: they go on when a commit ends */
    struct hp_idmap contents; /* hash of key -> blob */
    struct hp_idmap timers, expiries, parked; /* by first id */
    struct hp_heap timer_heap;
    bool timers_more, timers_loading; /* rows after the mark are only in the store */
    int64_t timer_mark_ms;
    uint64_t timer_mark_first;
    struct hp_idmap waiters; /* id -> chain */
    struct hp_heap wait_heap;
    struct hp_idmap pendings;
    struct hp_list pending_list;
    uint64_t next_cookie;
    struct hp_recent *recents; /* ring */
    uint32_t recent_head, recent_count, recent_capacity;
    struct hp_idmap recent_map; /* id -> 1 ended, 2 moved; single ids only */
    struct hp_list follows;
    uint64_t payload_bytes; /* of groups in memory */
    uint64_t *batch_ops;    /* ring: ops of each uncommitted batch, from durable_number + 1 */
    uint32_t batch_ops_capacity;
    uint64_t next_reap_ms, reap_sessions_ms; /* sessions: clients may be on their way till then */
    uint64_t rebalance_ms; /* when hp_rebalance_due looks; UINT64_MAX: nothing is held ahead */
    struct hp_volatile vol;
    struct hp_forgets forgets;
    bool dispatch_wanted;

    /* holding (hp_core_may_hold) */
    uint32_t turn_submitted, turn_eager, turn_results; /* of durable tasks */
    uint32_t turn_volatile;                            /* submitted */
    /* figures */
    struct {
        uint64_t submitted, started, done, failed, cancelled, expired, lost, released, retried;
        uint64_t recalled, stale, bad_requests, busy, events_dropped, duplicate_submits;
    } figures;
};

/* A pool has rows even if its calls have none. */
static inline bool hp_spec_is_volatile(const struct hp_spec *spec)
{
    return !spec->options.durable && spec->options.kind != HP_TASK_KIND_POOL;
}

/* ------------------------------------------------ memory that cannot be refused */
/* The core cannot go on without these small objects: out of memory ends the broker (fail-stop). */
void *hp_must_alloc(size_t size);
void *hp_must_calloc(size_t size);
void hp_must(enum hp_err err);

/* ------------------------------------------------ out.c */
struct hp_buf *hp_out_reply(struct hp_core *core, struct hp_conn *conn, bool held);
/* The same for one that the peer does not wait for while it has, or runs, nothing else. */
struct hp_buf *hp_out_receipt(struct hp_core *core, struct hp_conn *conn, bool held);
void hp_out_error(struct hp_core *core, struct hp_conn *conn, uint32_t msgid, bool held,
                  enum hp_rpc_error_code code, const char *format, ...) HP_PRINTF(6, 7);
void hp_out_busy(struct hp_core *core, struct hp_conn *conn, uint32_t msgid, uint64_t retry_ms,
                 const char *text);
void hp_out_event(struct hp_core *core, struct hp_conn *conn,
                  const struct hp_st_task_status *status, bool held);
void hp_out_assign(struct hp_core *core, struct hp_conn *conn, const struct hp_st_assign_run *run,
                   bool eager);
void hp_out_flush_assigns(struct hp_core *core, struct hp_conn *conn);
void hp_out_flush_all(struct hp_core *core);
void hp_out_close(struct hp_core *core, struct hp_conn *conn, const char *format, ...)
    HP_PRINTF(3, 4);
void hp_trace(struct hp_core *core, enum hp_trace_level level, const char *event,
              const char *format, ...) HP_PRINTF(4, 5);
struct hp_load *hp_out_load(struct hp_core *core, enum hp_load_kind kind,
                            struct hp_pending *pending);
struct hp_pending *hp_pending_new(struct hp_core *core, enum hp_pending_kind kind,
                                  struct hp_conn *conn, uint32_t msgid);
void hp_pending_free(struct hp_core *core, struct hp_pending *pending);

/* ------------------------------------------------ spec.c: specs, lanes, classes, queues */
/* NULL with *reterr: the options make no sense (a text for bad_request). Adds a reference. */
struct hp_spec *hp_spec_get(struct hp_core *core, struct hp_bin raw, struct hp_error *reterr);
struct hp_spec *hp_spec_of(struct hp_core *core, const struct hp_st_task_options *options,
                           struct hp_error *reterr);
struct hp_spec *hp_spec_ref(struct hp_core *core, struct hp_spec *spec);
void hp_spec_unref(struct hp_core *core, struct hp_spec *spec);
struct hp_queue *hp_queue_get(struct hp_core *core, struct hp_str name);
void hp_queue_dirty(struct hp_core *core, struct hp_queue *queue);
void hp_queue_store(struct hp_core *core, struct hp_queue *queue);
void hp_queue_recover(struct hp_core *core, struct hp_str name, struct hp_bin state);
bool hp_class_fits(const struct hp_core *core, const struct hp_class *class_, struct hp_node *node);
void hp_ckey_limit(struct hp_core *core, struct hp_ckey *ckey, uint32_t max);
struct hp_lane *hp_lane_of_key(struct hp_core *core, struct hp_str key, uint32_t id);
struct hp_str hp_lane_key(struct hp_core *core, const struct hp_st_task_options *options);
void hp_lane_release(struct hp_core *core, struct hp_lane *lane);

/* ------------------------------------------------ lane.c */
bool hp_lane_is_open(const struct hp_lane *lane);
void hp_lane_update(struct hp_core *core, struct hp_lane *lane);
void hp_lane_dirty(struct hp_core *core, struct hp_lane *lane);
void hp_lane_append(struct hp_core *core, struct hp_lane *lane, uint64_t first, uint32_t count,
                    int64_t since_ms, struct hp_group *group);
void hp_lane_park(struct hp_core *core, struct hp_lane *lane, struct hp_parked *parked);
void hp_parked_free(struct hp_core *core, struct hp_parked *parked);
struct hp_run *hp_lane_front(struct hp_lane *lane);
void hp_lane_take(struct hp_core *core, struct hp_lane *lane, uint32_t count);
/* Takes waiting ids out; those not in memory are trusted to be in a segment. */
void hp_lane_remove(struct hp_core *core, struct hp_lane *lane, uint64_t first, uint32_t count);
void hp_lane_want(struct hp_core *core, struct hp_lane *lane);
void hp_lane_loaded(struct hp_core *core, struct hp_lane *lane, const struct hp_loaded *loaded);
void hp_lane_runs_loaded(struct hp_core *core, struct hp_lane *lane,
                         const struct hp_loaded *loaded);
void hp_lane_flush(struct hp_core *core); /* segments and lane rows of this turn */
void hp_lane_clear(struct hp_core *core, struct hp_lane *lane);
struct hp_group *hp_group_new(struct hp_core *core, uint64_t first, uint32_t count,
                              struct hp_spec *spec, struct hp_session *session,
                              int64_t created_at_ms, struct hp_bin pack);
void hp_group_unref(struct hp_core *core, struct hp_group *group);
/* A group from the store, or NULL if its bytes are damaged. */
struct hp_group *hp_group_load(struct hp_core *core, const struct hp_loaded_group *loaded);

/* ------------------------------------------------ task.c: the life of a task */
struct hp_attempt *hp_attempt_find(struct hp_core *core, uint64_t id);
struct hp_attempt *hp_attempt_new(struct hp_core *core, uint64_t id, struct hp_node *node,
                                  struct hp_spec *spec, struct hp_session *session);
void hp_attempt_drop(struct hp_core *core, struct hp_attempt *attempt);
void hp_attempt_move(struct hp_core *core, struct hp_attempt *attempt, uint8_t state);
/* The attempt ended at its worker. */
void hp_attempt_ended(struct hp_core *core, struct hp_attempt *attempt, enum hp_reason reason,
                      uint64_t retry_ms, bool has_retry, struct hp_bin end);
/* The attempt was lost with its worker. */
void hp_attempt_lost(struct hp_core *core, struct hp_attempt *attempt, enum hp_reason reason);
/* The attempt never started and comes back without cost. */
void hp_attempt_released(struct hp_core *core, struct hp_attempt *attempt);
struct hp_finish {
    uint64_t first;
    uint32_t count;
    enum hp_task_state state;
    enum hp_reason reason;
    const struct hp_attempt *attempt;          /* or NULL */
    uint32_t attempt_number, failures, losses; /* where attempt is NULL */
    struct hp_spec *spec;
    struct hp_session *session;
    struct hp_bin end;
};
/* Writes the result and tells who waits. The caller has taken the task out of everything else. */
void hp_task_finish(struct hp_core *core, const struct hp_finish *finish);
void hp_recent_add(struct hp_core *core, uint64_t first, uint32_t count, bool ended);
void hp_recent_purge(struct hp_core *core);
int hp_recent_find(const struct hp_core *core, uint64_t id); /* 0 no, 1 ended, 2 moved */
bool hp_recent_overlaps(const struct hp_core *core, uint64_t first, uint32_t count);
uint64_t hp_backoff_ms(struct hp_core *core, const struct hp_spec *spec, uint32_t n);

/* ------------------------------------------------ timer.c: delayed, returned, expiring */
void hp_timer_put(struct hp_core *core, const struct hp_side *side);
void hp_timer_remove(struct hp_core *core, uint64_t first, bool expiry);
struct hp_timer *hp_timer_find(struct hp_core *core, uint64_t first);
void hp_timer_due(struct hp_core *core);
/* A returned task is due: parks it, with its payload from `whole`. */
void hp_timer_park(struct hp_core *core, const struct hp_side *side, struct hp_group *whole);
void hp_timer_want(struct hp_core *core);
void hp_timer_sides_loaded(struct hp_core *core, const struct hp_loaded *loaded);
void hp_timer_groups_loaded(struct hp_core *core, const struct hp_loaded *loaded);
void hp_timer_expiry_loaded(struct hp_core *core, struct hp_pending *pending,
                            const struct hp_loaded *loaded);
uint64_t hp_timer_deadline_ms(const struct hp_core *core);
void hp_timer_free_all(struct hp_core *core);

/* ------------------------------------------------ node.c */
struct hp_node *hp_node_get(struct hp_core *core, struct hp_str name);
void hp_node_store(struct hp_core *core, struct hp_node *node);
void hp_node_recover(struct hp_core *core, const struct hp_record *record);
void hp_node_conn_closed(struct hp_core *core, struct hp_node *node);
void hp_node_renew(struct hp_core *core, struct hp_node *node, uint64_t lease_ms);
void hp_node_expire(struct hp_core *core);
void hp_node_forgive(struct hp_core *core); /* the broker stood still: all leases begin anew */
void hp_node_free(struct hp_core *core, struct hp_node *node);
void hp_node_control(struct hp_core *core, struct hp_node *node,
                     const struct hp_msg_worker_control *control);
/* To the attempt's worker, behind its assignment. */
void hp_node_control_attempt(struct hp_core *core, const struct hp_attempt *attempt,
                             const struct hp_msg_worker_control *control);
bool hp_node_is_up(const struct hp_node *node);

/* ------------------------------------------------ session.c */
struct hp_session *hp_session_find(struct hp_core *core, struct hp_bin id);
struct hp_session *hp_session_new(struct hp_core *core, struct hp_bin id);
/* Finds or makes it; NULL only if the id is not 16 bytes. Its numbers may not be known. */
struct hp_session *hp_session_get(struct hp_core *core, struct hp_bin id);
bool hp_session_restore(struct hp_session *session, struct hp_bin state);
struct hp_session *hp_session_ref(struct hp_session *session);
void hp_session_unref(struct hp_core *core, struct hp_session *session);
void hp_session_flush(struct hp_core *core);
void hp_session_touch_all(struct hp_core *core);
void hp_session_dirty(struct hp_core *core, struct hp_session *session);
struct hp_reply_memo *hp_session_memo(struct hp_session *session, uint64_t number);
void hp_session_remember(struct hp_core *core, struct hp_session *session,
                         const struct hp_reply_memo *memo);
/* The same in memory only: of what is not durable. */
void hp_session_note(struct hp_session *session, const struct hp_reply_memo *memo);
void hp_session_ack(struct hp_session *session, uint64_t acked);
void hp_session_free(struct hp_core *core, struct hp_session *session);

/* ------------------------------------------------ wait.c, query.c */
void hp_wait_ended(struct hp_core *core, uint64_t first, uint32_t count);
void hp_wait_due(struct hp_core *core);
void hp_wait_free(struct hp_core *core, struct hp_wait *wait);
void hp_wait_loaded(struct hp_core *core, struct hp_pending *pending,
                    const struct hp_loaded *loaded);
/* What a loaded task is now, memory first. HP_TASK_STATE... or 0: ask the store again. */
enum hp_task_state hp_task_now(struct hp_core *core, const struct hp_loaded_task *task);
/* Elements of a frame that an encoded value takes; 0 for an empty one. */
uint64_t hp_elements_of(struct hp_bin value);
/* Fills a status from what the store said and what is in memory. */
void hp_status_fill(struct hp_core *core, const struct hp_loaded *loaded,
                    const struct hp_loaded_task *task, bool with_end, bool with_options,
                    struct hp_st_task_status *ret);
void hp_query_get_loaded(struct hp_core *core, struct hp_pending *pending,
                         const struct hp_loaded *loaded);
void hp_query_list_loaded(struct hp_core *core, struct hp_pending *pending,
                          const struct hp_loaded *loaded);
void hp_query_why_loaded(struct hp_core *core, struct hp_pending *pending,
                         const struct hp_loaded *loaded);
void hp_cancel_loaded(struct hp_core *core, struct hp_pending *pending,
                      const struct hp_loaded *loaded);
void hp_follow_loaded(struct hp_core *core, struct hp_pending *pending,
                      const struct hp_loaded *loaded);
void hp_follow_add(struct hp_core *core, uint64_t id, uint64_t conn);
void hp_follow_drop(struct hp_core *core, uint64_t id, uint64_t conn); /* 0: any */
bool hp_follow_any(const struct hp_core *core, uint64_t id);
void hp_broker_report_loaded(struct hp_core *core, struct hp_pending *pending,
                             const struct hp_loaded *loaded);
/* How many tasks from `at` on wait in the same way, ids one after the other, in one group. */
uint32_t hp_cancel_plain_run(struct hp_core *core, const struct hp_loaded *loaded, uint32_t at);
/* True: its row is not in memory, and part of it changed since the store looked: ask again. */
bool hp_cancel_is_stale(struct hp_core *core, const struct hp_loaded_task *task);
/* Ends `count` tasks from `task` on that wait alike (hp_cancel_plain_run); false: damaged rows. */
bool hp_cancel_waiting(struct hp_core *core, const struct hp_loaded *loaded,
                       const struct hp_loaded_task *task, uint32_t count, enum hp_task_state state);

/* ------------------------------------------------ handlers: on_*.c */
struct hp_request {
    struct hp_core *core;
    struct hp_conn *conn;
    const struct hp_rpc *rpc;
    struct hp_bin frame;
};
void hp_on_hello(struct hp_request *request);
void hp_on_hello_loaded(struct hp_core *core, struct hp_pending *pending,
                        const struct hp_loaded *loaded);
void hp_on_task_submit(struct hp_request *request);
void hp_submit_replace_loaded(struct hp_core *core, struct hp_pending *pending,
                              const struct hp_loaded *loaded);
void hp_on_task_get(struct hp_request *request);
void hp_on_task_wait(struct hp_request *request);
void hp_on_task_cancel(struct hp_request *request);
void hp_on_task_list(struct hp_request *request);
void hp_on_task_why(struct hp_request *request);
void hp_on_task_follow(struct hp_request *request);
void hp_on_task_signal(struct hp_request *request);
void hp_on_blob_open(struct hp_request *request);
void hp_on_blob_put(struct hp_request *request);
void hp_on_blob_get(struct hp_request *request);
void hp_on_blob_give(struct hp_request *request);
void hp_on_blob_lend(struct hp_request *request);
/* Asks the blob thread; the answer comes as an event. */
struct hp_effect *hp_blob_ask(struct hp_request *request, enum hp_blob_verb verb, uint64_t blob);
void hp_blob_ask_gift(struct hp_request *request, uint64_t blob, const struct hp_msg_blob_give *msg,
                      bool is_kept);
void hp_on_blob_event(struct hp_core *core, const struct hp_event *event);
void hp_on_queue_list(struct hp_request *request);
void hp_on_queue_pause(struct hp_request *request);
void hp_on_worker_list(struct hp_request *request);
void hp_on_worker_drain(struct hp_request *request);
void hp_on_broker_ping(struct hp_request *request);
void hp_on_broker_status(struct hp_request *request);
void hp_on_broker_backup(struct hp_request *request);
void hp_on_broker_check(struct hp_request *request);
void hp_on_worker_register(struct hp_request *request);
void hp_on_worker_heartbeat(struct hp_request *request);
void hp_on_worker_started(struct hp_request *request);
void hp_on_worker_done(struct hp_request *request);
void hp_on_worker_release(struct hp_request *request);
void hp_on_worker_output(struct hp_request *request);
/* Answers bad_request with the decoder's text. */
void hp_request_bad(struct hp_request *request, const struct hp_error *error);

/* ------------------------------------------------ conn.c */
struct hp_conn *hp_conn_find(const struct hp_core *core, uint64_t id);
void hp_conn_open(struct hp_core *core, const struct hp_event *event);
void hp_conn_close(struct hp_core *core, struct hp_conn *conn);
void hp_conn_frame(struct hp_core *core, struct hp_conn *conn, struct hp_bin frame);
void hp_conn_prehello_due(struct hp_core *core);

#endif
