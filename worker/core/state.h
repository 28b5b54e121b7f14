/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The agent's records, private to worker/core.
 *
 * A run is one attempt. It is in exactly one list, that of its state:
 *
 *     FETCHING -> WAITING -> RUNNING -> [SPOOLING] -> [UPLOADING] -> READY -> SENT -> forgotten
 *        (payload blob)      |   ^        (durable     (large         |         |
 *                            v   |         first)       parts)        +<--------+ link lost
 *                          handed back
 *
 * Runs are named by pool handles everywhere outside their lists, so an event that comes late for a
 * run which is gone is recognised.
 */
#ifndef HP_WORKER_CORE_STATE_H
#define HP_WORKER_CORE_STATE_H

#include "common/base/arena.h"
#include "common/base/heap.h"
#include "common/base/idmap.h"
#include "common/base/list.h"
#include "common/base/slots.h"
#include "common/base/rand.h"
#include "common/base/strmap.h"
#include "proto/hp_msg.h"
#include "proto/rpc.h"
#include "proto/tokenizer.h"
#include "proto/wire.h"
#include "worker/core/agent.h"

#define HP_AGENT_RPC_MAX 64u
#define HP_AGENT_DONE_CALLS_MAX 4u
#define HP_AGENT_DONE_BYTES (512u * 1024u)
#define HP_AGENT_DONE_ITEMS 4000u
#define HP_AGENT_REFS_PER_CALL 4000u
#define HP_AGENT_OUTPUT_BUSY_BYTES (1024u * 1024u)
#define HP_AGENT_PARTS_MAX 3u
#define HP_AGENT_SPOOL_AFTER_MS 1000u /* an answer later than this, a run longer than this */
#define HP_AGENT_TELL_AFTER_MS 20u
#define HP_AGENT_SLOW_AFTER_MS 10u
#define HP_AGENT_BUDGET_US 20000u /* work given to a function child ahead */
#define HP_AGENT_CHILD_CALLS_MAX 1024u

enum hp_agent_run_state {
    HP_AGENT_FREE,
    HP_AGENT_FETCHING,
    HP_AGENT_WAITING,
    HP_AGENT_RUNNING,
    HP_AGENT_SPOOLING,
    HP_AGENT_UPLOADING,
    HP_AGENT_READY,
    HP_AGENT_SENT,
};

/* Why the agent ends a run, in rising precedence. */
enum hp_agent_why {
    HP_AGENT_WHY_NONE,
    HP_AGENT_WHY_STOP,
    HP_AGENT_WHY_POOL, /* its pool was terminated */
    HP_AGENT_WHY_FENCE,
    HP_AGENT_WHY_TIMEOUT,
    HP_AGENT_WHY_CANCEL,
};

/* What the tasks of one assign_run share; holds their payloads too. Counted by its runs. */
struct hp_agent_parcel {
    struct hp_arena arena;
    uint32_t refs;
    uint32_t cpus;
    uint32_t function_index;
    struct hp_agent_crew *crew; /* whose children run it; NULL: a command */
    bool is_command;
    bool durable;
    bool payload_is_argv;
    bool payload_is_items;
    bool fence;
    bool at_most_once;
    bool follow;
    uint64_t group;
    uint64_t array_base;
    uint64_t array_step;
    uint64_t soft_timeout_ms;
    uint64_t hard_timeout_ms;
    uint64_t kill_grace_ms;
    uint64_t output_cap_bytes;
    uint64_t mem_bytes;
    struct hp_str cwd;
    struct hp_list_str argv;
    struct hp_list_str env;
};

/* Block that small end records are appended to; freed when no run refers to it. */
struct hp_agent_chunk {
    uint32_t refs;
    uint32_t used;
    uint32_t size;
    uint8_t bytes[];
};

/* A result or captured output over the inline limit: travels as a blob. */
enum hp_agent_part_kind {
    HP_AGENT_PART_RESULT = 1,
    HP_AGENT_PART_OUT = 2,
    HP_AGENT_PART_ERR = 3,
};

struct hp_agent_part {
    const uint8_t *data;        /* owned, or in the file */
    struct hp_agent_file *file; /* owned; NULL: in memory */
    uint64_t size;
    uint64_t digest;
    uint64_t blob;   /* 0: not open */
    uint64_t sent;   /* bytes put */
    bool has_digest; /* computed when it is needed: not if it is given */
    bool asked;      /* blob.open is under way; or it is sealed and given */
    bool stored;     /* the last put, or blob.give, was answered */
    bool by_put;     /* giving it was refused */
    enum hp_agent_part_kind kind;
};

struct hp_agent_parts {
    uint32_t count;
    struct hp_agent_part item[HP_AGENT_PARTS_MAX];
};

/* A payload blob on its way in. */
struct hp_agent_fetch {
    uint64_t blob;
    uint64_t size; /* known after the first chunk */
    uint64_t digest;
    uint64_t got;
    uint8_t *data;              /* owned */
    struct hp_agent_file *file; /* owned; the payload was lent */
    uint64_t wait_until_ms;
    bool asked;
    bool sized;
    bool counted; /* `size` is in agent->fetch_bytes */
    bool by_get;  /* lending it was refused, or it could not be opened */
};

/* Content by descriptor, with a broker on this host. */
enum hp_agent_near_state {
    HP_AGENT_NEAR_OFF,
    HP_AGENT_NEAR_PROVING, /* the shell looks whether it is the same host */
    HP_AGENT_NEAR_ON,
};

struct hp_agent_near {
    enum hp_agent_near_state state;
    uint64_t ticket; /* of this connection: the shell's answers for an earlier one are void */
    uint8_t key[HP_AGENT_NEAR_KEY_BYTES];
    uint32_t give_calls; /* being sealed, or under way */
    uint32_t lend_calls; /* under way, or being opened */
    uint32_t give_refusals; /* in a row */
    uint32_t open_failures; /* in a row */
};

struct hp_agent_run {
    struct hp_list link;
    struct hp_heap_node timer;
    uint32_t attempt;
    uint64_t key;
    uint64_t id;
    uint64_t epoch;
    uint64_t older;                 /* an older attempt of the same id that is still held, or 0 */
    uint64_t seq;                   /* order of arrival */
    struct hp_agent_parcel *parcel; /* NULL: from the spool */
    struct hp_agent_fetch *fetch;   /* payload blob, also after it came */
    struct hp_agent_parts *parts;
    const uint8_t *payload;
    uint32_t payload_size;
    uint32_t child;
    uint32_t est_us; /* counted in the child's load */
    uint32_t end_size;
    struct hp_agent_chunk *end_chunk;
    const uint8_t *end; /* encoded task_end, blob ids left out until the parts are stored */
    uint64_t started_ms;
    uint64_t ended_ms;
    uint64_t deadline_ms; /* key in the heap of timers */
    uint64_t kill_at_ms;
    uint64_t retry_ms;
    uint64_t spool_id; /* 0: not spooled */
    uint8_t state;     /* enum hp_agent_run_state */
    uint8_t why;       /* enum hp_agent_why */
    uint8_t reason;    /* enum hp_reason, once ended */
    bool drop;         /* killed on the broker's order: no result is wanted */
    bool recalled;     /* the broker has another use for it, if it has not begun */
    bool told;         /* worker.started was sent */
    bool termed;       /* soft timeout was acted on */
    bool killed;       /* KILL was sent */
    bool foreign;      /* of an earlier boot */
};

struct hp_agent_child {
    struct hp_list runs; /* in the order given; the first one runs */
    uint32_t count;
    uint32_t cpus_held;
    uint64_t load_us;
    uint64_t since_ms;  /* when the first one came first */
    uint64_t recall_ms; /* last RECALL; HP_AGENT_NEVER: none */
    bool recall_due;    /* within a step: some of its calls are recalled */
    bool up;
    bool slow; /* the first one runs longer than HP_AGENT_SLOW_AFTER_MS */
    struct hp_agent_crew *crew; /* NULL: a free slot of pools */
    struct hp_list crew_link;
    uint32_t pid; /* pools: once it is set up */
    uint64_t given; /* calls that it has had; bounded by the pool's calls_max */
    bool is_set_up;
    bool stopping;
    bool killed; /* KILL was sent to it as such, not to a call of it */
    bool served; /* a call has ended in it */
    bool waits;
    bool gone; /* its process; calls that it refused are still to come back */
};

/* The children that run calls of one kind: those of functions, or those of one pool. */
struct hp_agent_crew {
    uint64_t pool;       /* 0: functions */
    struct hp_list link; /* agent->crews, by pool id */
    struct hp_list children;
    struct hp_list waiting; /* calls, not yet given to a child */
    uint32_t waiting_count;
    uint32_t held; /* runs of it that are being fetched, wait, or run */

    /* of pools */
    uint32_t est_us; /* measured run time; 0: not known */
    uint32_t target; /* children it is to have */
    uint32_t live;   /* children not stopping */
    uint32_t up;     /* set up, not stopping */
    uint32_t waits;  /* that wait for other tasks */
    uint32_t failures;
    uint32_t quick_deaths; /* in a row, of children that were set up and ended no call */
    uint64_t retry_at_ms;  /* no start before */
    uint64_t kill_at_ms;   /* terminated: what is left of it is killed then */
    bool named;           /* by the broker, since this registration */
    bool changed;         /* a report is due */
    bool orphaned;        /* ended here: calls that still come are handed back */
    struct hp_arena arena;
    struct hp_str language, interpreter, fn;
    uint64_t calls_max, kill_grace_ms;
    bool fence;
    struct hp_bin payload;
    struct hp_agent_fetch *fetch; /* its payload, if that is a blob */
    bool ready;                   /* the payload is here */
    char error[1024];
};

enum hp_agent_link {
    HP_AGENT_LINK_OFF,
    HP_AGENT_LINK_CONNECTING,
    HP_AGENT_LINK_HELLO,
    HP_AGENT_LINK_FLUSH, /* hello answered; results go before the registration */
    HP_AGENT_LINK_REGISTERING,
    HP_AGENT_LINK_UP,
};

/* A call to the broker that waits for its answer. */
struct hp_agent_rpc {
    bool used;
    bool spooled; /* done: all of its runs were given to the spool */
    bool last;    /* blob.put: the last chunk */
    uint8_t part; /* blob.open, blob.put: index of the part */
    uint32_t msgid;
    enum hp_method method;
    uint64_t sent_ms;
    uint64_t key;        /* blob.*: the run */
    uint64_t pool;       /* blob.get: instead, the pool whose payload it is; 0: none */
    uint64_t size;       /* blob.get: bytes asked for */
    uint32_t count;      /* done: runs */
    struct hp_list runs; /* done */
};

struct hp_agent_refs {
    struct hp_st_run_ref *items;
    uint32_t count;
    uint32_t capacity;
};

struct hp_agent {
    struct hp_agent_config config; /* views into `fixed` */
    struct hp_arena fixed;
    struct hp_strmap function_names;
    uint32_t *function_est_us; /* measured run time of each function; 0: not known */
    struct hp_rand rand;

    /* effects */
    struct hp_agent_effect *effects;
    size_t effect_count;
    size_t effect_capacity;
    struct hp_arena fx;

    /* link */
    enum hp_agent_link link;
    bool closing; /* hp_agent_link_close was called; carried out at the end of the input */
    struct hp_buf rx;
    struct hp_buf tx;
    struct hp_tok tok;
    struct hp_wire *wire;
    struct hp_arena arena; /* of one frame */
    struct hp_buf scratch;
    struct hp_agent_rpc rpcs[HP_AGENT_RPC_MAX];
    uint32_t rpc_count;
    uint32_t done_calls;
    uint32_t done_items_max;
    uint32_t next_msgid;
    uint64_t connect_at_ms;
    uint64_t next_heartbeat_ms;
    uint64_t done_hold_ms; /* no done before this: the broker was busy */
    uint64_t blob_hold_ms;
    uint32_t failures; /* connects without a registration, in a row */
    bool register_wanted;
    bool heartbeat_open;
    bool register_open;

    /* lease */
    uint64_t lease_ms;
    uint64_t heartbeat_ms;
    uint64_t lease_from_ms; /* HP_AGENT_NEVER: none */
    uint64_t broker_epoch;
    bool fenced;

    /* runs */
    struct hp_slots runs;
    struct hp_idmap by_id;
    struct hp_heap timers;
    struct hp_list fetching;
    struct hp_list commands; /* waiting */
    struct hp_list running; /* commands; calls are in their child's list */
    struct hp_list spooling;
    struct hp_list uploading;
    struct hp_list ready;
    struct hp_agent_crew functions;
    struct hp_list crews; /* functions first, then pools by id */
    struct hp_agent_child *children;
    uint32_t child_count;    /* of functions */
    uint32_t child_capacity; /* and of pools */
    bool reports_due;
    uint32_t state_count[HP_AGENT_SENT + 1];
    uint32_t foreign_unsent;
    uint32_t slots_used;
    uint64_t next_seq;
    uint64_t fetch_bytes; /* held for payload blobs */
    struct hp_agent_refs releases;
    struct hp_agent_refs tells;
    struct hp_agent_chunk *chunk;

    /* spool */
    uint64_t next_spool_id;
    uint64_t spool_durable_id;
    bool spool_failed;
    uint64_t spool_retry_ms;            /* after a failure: not before */
    struct hp_st_done_item *done_items; /* HP_AGENT_DONE_ITEMS, to encode from */
    uint32_t put_calls;
    uint32_t get_calls;
    struct hp_agent_near near;
    struct hp_agent_file *event_file;   /* of the event that is being handled, if nobody took it */
    struct hp_agent_file *freed_files;  /* effects may still name them */

    /* ending */
    bool draining_self;
    bool draining_broker;
    bool stopping;
    bool exited;
    uint64_t drain_at_ms; /* kill what runs then; HP_AGENT_NEVER */
    uint64_t exit_at_ms;  /* leave then in any case; HP_AGENT_NEVER */

    struct hp_agent_stats totals; /* the *_total fields */
    uint64_t now_ms;
};

/* --------------------------------------------------------------- effects.c: what the shell is to
 * do */
struct hp_agent_effect *hp_agent_effect_add(struct hp_agent *agent, enum hp_agent_effect_kind kind);
void *hp_agent_fx_alloc(struct hp_agent *agent, size_t size);
void hp_agent_log(struct hp_agent *agent, enum hp_agent_log_level level, const char *format, ...)
    HP_PRINTF(3, 4);
void hp_agent_refs_add(struct hp_agent_refs *refs, const struct hp_agent_run *run);
void hp_agent_refs_add_raw(struct hp_agent_refs *refs, uint64_t id, uint32_t attempt,
                           uint64_t epoch);

/* ----------------------------------------------------------------------- runs.c: records of
 * attempts */
/* NULL: no memory, or too many. The run is in no list; its state is FREE. */
struct hp_agent_run *hp_agent_run_new(struct hp_agent *agent, uint64_t id, uint32_t attempt,
                                      uint64_t epoch);
void hp_agent_run_free(struct hp_agent *agent, struct hp_agent_run *run);
struct hp_agent_run *hp_agent_run_get(struct hp_agent *agent, uint64_t key);
struct hp_agent_run *hp_agent_run_find(struct hp_agent *agent, uint64_t id, uint32_t attempt,
                                       uint64_t epoch);
/* Moves a run to a state and to the end of `list` (front: to its start). */
void hp_agent_run_move(struct hp_agent *agent, struct hp_agent_run *run,
                       enum hp_agent_run_state state, struct hp_list *list, bool front);
bool hp_agent_run_has_ended(const struct hp_agent_run *run);
bool hp_agent_run_is_started(const struct hp_agent *agent, const struct hp_agent_run *run);
void hp_agent_parcel_unref(struct hp_agent_parcel *parcel);
enum hp_err hp_agent_run_set_end(struct hp_agent *agent, struct hp_agent_run *run,
                                 const struct hp_st_task_end *end);
void hp_agent_run_store_end(struct hp_agent *agent, struct hp_agent_run *run, const uint8_t *data,
                            uint32_t size);

/* ------------------------------------------------------------------- assign.c: tasks that come in
 */
enum hp_err hp_agent_on_assign(struct hp_agent *agent, const struct hp_msg_worker_assign *assign,
                               struct hp_error *reterr);

/* ------------------------------------------------------------------------- sched.c: slots,
 * children */
void hp_agent_pump(struct hp_agent *agent);
/* Nothing begins. */
bool hp_agent_is_stopped(const struct hp_agent *agent);
void hp_agent_rebalance(struct hp_agent *agent);
void hp_agent_children_tick(struct hp_agent *agent);
uint64_t hp_agent_children_deadline_ms(const struct hp_agent *agent);
/* Takes a running run off its slot or child. */
void hp_agent_unplace(struct hp_agent *agent, struct hp_agent_run *run);
/* Calls that a child may still be given before it is replaced. */
uint64_t hp_agent_child_calls_left(const struct hp_agent_child *child);
void hp_agent_recall_child(struct hp_agent *agent, uint32_t child_index);
void hp_agent_hand_back(struct hp_agent *agent, struct hp_agent_run *run);
/* Hands a run that never started back to the broker and forgets it. */
void hp_agent_release(struct hp_agent *agent, struct hp_agent_run *run);
void hp_agent_release_waiting(struct hp_agent *agent);
void hp_agent_measure(struct hp_agent *agent, const struct hp_agent_parcel *parcel,
                      uint64_t run_us);
/* Makes a child's unstarted calls come back; all children, or those of one crew. */
void hp_agent_recall_all(struct hp_agent *agent, uint32_t more_than);

/* ------------------------------------------------------------------------------- crew.c: pools */
void hp_agent_crews_init(struct hp_agent *agent);
void hp_agent_crews_deinit(struct hp_agent *agent);
struct hp_agent_crew *hp_agent_crew_find(struct hp_agent *agent, uint64_t pool);
void hp_agent_on_pool(struct hp_agent *agent, const struct hp_msg_worker_pool *msg);
void hp_agent_on_child(struct hp_agent *agent, const struct hp_agent_event *event);
/* Starts and stops children as needed; ends pools that have ended. */
void hp_agent_crews_tick(struct hp_agent *agent);
uint64_t hp_agent_crews_deadline_ms(const struct hp_agent *agent);
bool hp_agent_crews_have_children(const struct hp_agent *agent);
/* After a registration: the broker names them anew, and is told anew. */
void hp_agent_crews_registered(struct hp_agent *agent);
void hp_agent_flush_reports(struct hp_agent *agent);
/* The payload of a pool has come (or can not come: why). */
void hp_agent_crew_fetched(struct hp_agent *agent, struct hp_agent_crew *crew, const char *why);
/* A call has ended in a child: one that has had all its calls is replaced. */
void hp_agent_child_served(struct hp_agent *agent, struct hp_agent_child *child);
void hp_agent_crew_check(const struct hp_agent *agent);
/* Ends a running call because its pool was terminated. */
void hp_agent_run_end_pool(struct hp_agent *agent, struct hp_agent_run *run, uint64_t grace_ms);

/* ------------------------------------------------------------------- order.c: kill, cancel,
 * timeouts */
void hp_agent_signal(struct hp_agent *agent, struct hp_agent_run *run, int signal);
void hp_agent_run_arm(struct hp_agent *agent, struct hp_agent_run *run);
void hp_agent_run_kill(struct hp_agent *agent, const struct hp_st_run_ref *ref);
void hp_agent_run_cancel(struct hp_agent *agent, const struct hp_st_cancel_item *item);
void hp_agent_on_control(struct hp_agent *agent, const struct hp_msg_worker_control *control);
void hp_agent_set_broker_drain(struct hp_agent *agent, bool draining);
void hp_agent_timers_tick(struct hp_agent *agent);
void hp_agent_fence_tick(struct hp_agent *agent);
void hp_agent_ending_tick(struct hp_agent *agent);
void hp_agent_kill_all(struct hp_agent *agent);
uint64_t hp_agent_fence_at_ms(const struct hp_agent *agent);

/* ------------------------------------------------------------------------ end.c: ends of attempts
 */
void hp_agent_end_command(struct hp_agent *agent, struct hp_agent_run *run,
                          const struct hp_agent_event *event);
void hp_agent_end_call(struct hp_agent *agent, struct hp_agent_run *run,
                       const struct hp_agent_event *event);
/* Ends a run that never ran. */
void hp_agent_end_unstarted(struct hp_agent *agent, struct hp_agent_run *run, enum hp_reason reason,
                            const char *text);
/* After the end is encoded, and again after each of spool and upload: on to the next state. */
void hp_agent_run_advance(struct hp_agent *agent, struct hp_agent_run *run);

/* ------------------------------------------------------------------------- done.c: results that go
 */
void hp_agent_flush_done(struct hp_agent *agent);
/* Not before this are ends sent that gather company; 0: at once. */
uint64_t hp_agent_done_gather_ms(const struct hp_agent *agent);
void hp_agent_flush_refs(struct hp_agent *agent);
void hp_agent_on_done_reply(struct hp_agent *agent, struct hp_agent_rpc *rpc,
                            const struct hp_rpc *reply);
void hp_agent_done_requeue(struct hp_agent *agent);
void hp_agent_spool_run(struct hp_agent *agent, struct hp_agent_run *run);
void hp_agent_spool_ended(struct hp_agent *agent);
void hp_agent_spool_tick(struct hp_agent *agent);
uint64_t hp_agent_spool_deadline_ms(const struct hp_agent *agent);

/* ---------------------------------------------------------------------------- blobs.c: large bytes
 */
void hp_agent_blobs_pump(struct hp_agent *agent);
void hp_agent_on_blob_reply(struct hp_agent *agent, struct hp_agent_rpc *rpc,
                            const struct hp_rpc *reply);
void hp_agent_blobs_link_down(struct hp_agent *agent);
void hp_agent_fetch_free(struct hp_agent *agent, struct hp_agent_run *run);
void hp_agent_parts_free(struct hp_agent *agent, struct hp_agent_run *run);
/* Frees what a fetch holds, but not the record itself. */
void hp_agent_fetch_clear(struct hp_agent *agent, struct hp_agent_fetch *fetch);
/* Counts the size of a fetch in; false: there is no room now, it was put off. */
bool hp_agent_fetch_reserve(struct hp_agent *agent, struct hp_agent_fetch *fetch);
void hp_agent_fetch_unreserve(struct hp_agent *agent, struct hp_agent_fetch *fetch);
/* The fetch that a call or an effect was for; NULL: it is wanted no more. */
struct hp_agent_fetch *hp_agent_fetch_find(struct hp_agent *agent, uint64_t key, uint64_t pool);
/* The payload is here, in the fetch's data or file. */
void hp_agent_fetch_done(struct hp_agent *agent, uint64_t key, uint64_t pool);
void hp_agent_fetch_failed(struct hp_agent *agent, uint64_t key, uint64_t pool,
                           const struct hp_rpc_failure *failure);
/* A part is a blob at the broker now: goes on with the run when all are. */
void hp_agent_part_stored(struct hp_agent *agent, struct hp_agent_run *run);
void hp_agent_part_refused(struct hp_agent *agent, struct hp_agent_run *run,
                           struct hp_agent_part *part, const struct hp_rpc_failure *failure);

/* ---------------------------------------------------------------------------- near.c: the same by
 * descriptor, on the broker's host */
void hp_agent_near_hello(struct hp_agent *agent, const struct hp_msg_hello_reply *hello);
void hp_agent_near_link_down(struct hp_agent *agent);
void hp_agent_on_near(struct hp_agent *agent, const struct hp_agent_event *event);
/* Whether it would go by descriptor (perhaps: as long as the shell has not answered). */
bool hp_agent_may_give(const struct hp_agent *agent, const struct hp_agent_part *part);
bool hp_agent_may_lend(const struct hp_agent *agent, const struct hp_agent_fetch *fetch);
/* Start it; false: not now. */
bool hp_agent_give(struct hp_agent *agent, struct hp_agent_run *run, uint32_t index);
bool hp_agent_lend(struct hp_agent *agent, struct hp_agent_fetch *fetch, uint64_t key,
                   uint64_t pool);
void hp_agent_on_near_reply(struct hp_agent *agent, struct hp_agent_rpc *rpc,
                            const struct hp_rpc *reply);
/* NULL is fine. Freed at once, or when the effects have been carried out. */
void hp_agent_file_free(struct hp_agent *agent, struct hp_agent_file *file);
void hp_agent_files_sweep(struct hp_agent *agent);

/* -------------------------------------------------------------------------- link.c: the connection
 */
/* NULL: no free call. Else the caller encodes the params with hp_agent_rpc_params. */
struct hp_agent_rpc *hp_agent_rpc_begin(struct hp_agent *agent, enum hp_method method);
void hp_agent_rpc_params(struct hp_agent *agent, const struct hp_codec_desc *desc,
                         const void *params);
void hp_agent_rpc_free(struct hp_agent *agent, struct hp_agent_rpc *rpc);
void hp_agent_notify(struct hp_agent *agent, enum hp_method method,
                     const struct hp_codec_desc *desc, const void *params);
/* Marks the connection for closing; the input which is being handled goes on to its end. */
void hp_agent_link_close(struct hp_agent *agent, const char *format, ...) HP_PRINTF(2, 3);
void hp_agent_link_down(struct hp_agent *agent);
void hp_agent_link_tick(struct hp_agent *agent);
uint64_t hp_agent_link_deadline_ms(const struct hp_agent *agent);
void hp_agent_send_hello(struct hp_agent *agent);
void hp_agent_register_if_due(struct hp_agent *agent);
enum hp_err hp_agent_on_frame(struct hp_agent *agent, const uint8_t *data, size_t size,
                              struct hp_error *reterr);
/* Replies to hello, worker.register, worker.heartbeat: register.c */
void hp_agent_on_hello_reply(struct hp_agent *agent, const struct hp_rpc *reply);
void hp_agent_on_register_reply(struct hp_agent *agent, uint64_t sent_ms,
                                const struct hp_rpc *reply);
void hp_agent_on_heartbeat_reply(struct hp_agent *agent, uint64_t sent_ms,
                                 const struct hp_rpc *reply);
void hp_agent_send_register(struct hp_agent *agent);
void hp_agent_send_heartbeat(struct hp_agent *agent);

/* ---------------------------------------------------------------------------- record.c: the spool
 */
/* Encodes an ended run; valid until hp_agent_effects_clear. */
enum hp_err hp_agent_record_encode(struct hp_agent *agent, const struct hp_agent_run *run,
                                   struct hp_bin *ret_record);
/* Fills a new run from a record; HP_ERR_CORRUPT, HP_ERR_NOMEM leave *ret_run NULL. */
enum hp_err hp_agent_record_decode(struct hp_agent *agent, struct hp_bin record,
                                   struct hp_agent_run **ret_run, struct hp_error *reterr);

#endif
