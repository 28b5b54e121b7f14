/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The simulator: the production core, agents and client engines in one process, on a virtual clock
 * and a virtual network; every choice comes from one seed.
 *
 *   world.c   clock, agenda of events, random numbers, the course of one run
 *   words.c   the trace in words
 *   net.c     connections: delay, cuts, partitions, lost ends
 *   broker.c  core + store in memory, turns, commits, crash and restart; broker_store.c: its disk
 *             broker_blob.c: its large payloads and results; content.c: their bytes
 *   node.c    agent + simulated executor and spool; node_pool.c: children of pools
 *   user.c    client engine + workload; user_pool.c: pools and their calls
 *   audit.c   what must hold; it sees submits, commits, starts and ends, and never the core
 *   plan.c    what the seed decides beforehand: sizes, faults
 *   fault.c   how each fault happens and heals; scene.c: what certain faults must not cost
 *   minimise.c  a failing seed with less of everything; campaign.c: many seeds; main.c: the command
 *
 * client/ and server/core have types of the same names, so this header knows neither.
 */
#ifndef HP_TESTS_SIM_SIM_H
#define HP_TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/macro.h"
#include "common/base/rand.h"

#define SIM_NEVER UINT64_MAX
#define SIM_MS UINT64_C(1000)              /* the agenda counts microseconds */
#define SIM_POOL_SEEDS UINT64_C(1000000)   /* from here on there are pools, too */
#define SIM_BLOB_SEEDS UINT64_C(100000000) /* and from here on large payloads and results */
enum { SIM_NODES_MAX = 5, SIM_USERS_MAX = 4, SIM_KEYS = 4, SIM_TAIL = 3000 };
enum { SIM_FAULTS_MAX = 96, SIM_FAULTS_LEAST = 20 };

/*
 * Each part draws from a stream of its own, so that a fault left out, or a client less, changes as
 * little as can be of what the others do. An event draws from the stream of who asked for it.
 */
enum sim_stream {
    SIM_PLAN,
    SIM_FAULTS,
    SIM_NET,
    SIM_BROKER,
    SIM_TASK, /* seeded anew for each attempt of a task: what it does is its own */
    SIM_NODE_0,
    SIM_USER_0 = SIM_NODE_0 + SIM_NODES_MAX,
    SIM_WORK_0 = SIM_USER_0 + SIM_USERS_MAX, /* seeded anew for each act of a client */
    SIM_STREAMS = SIM_WORK_0 + SIM_USERS_MAX
};

enum sim_fault_kind {
    SIM_FAULT_BROKER_CRASH,
    SIM_FAULT_BROKER_GONE, /* its host, too: nobody answers */
    SIM_FAULT_BROKER_DRAIN,
    SIM_FAULT_BROKER_PAUSE,
    SIM_FAULT_BROKER_SENT,  /* dies right after it has sent what waited for a commit */
    SIM_FAULT_COMMIT_LOST,  /* a commit fails, and is not there after the restart */
    SIM_FAULT_COMMIT_THERE, /* a commit fails, and is there after the restart */
    SIM_FAULT_DISK_STALL,
    SIM_FAULT_DISK_SLOW,
    SIM_FAULT_DISK_FULL,
    SIM_FAULT_NODE_CRASH,
    SIM_FAULT_NODE_GONE,
    SIM_FAULT_NODE_PAUSE,
    SIM_FAULT_NODE_DRAIN,
    SIM_FAULT_NODE_STARTED,  /* dies right after a task has begun */
    SIM_FAULT_NODE_SPOOLING, /* dies before the spool's fsync */
    SIM_FAULT_NODE_SPOOLED,  /* dies after the spool's fsync, before anything is sent */
    SIM_FAULT_NODE_ACKED,    /* dies after an acknowledgement, before the record is gone */
    SIM_FAULT_CHILDREN,      /* kill -9 of what runs there */
    SIM_FAULT_LINK_RESET,
    SIM_FAULT_LINK_CUT, /* both ways */
    SIM_FAULT_LINK_CUT_UP,
    SIM_FAULT_LINK_CUT_DOWN,
    SIM_FAULT_LINK_FLAPS,
    SIM_FAULT_LINK_SLOW,
    SIM_FAULT_SLOW_READER,
    SIM_FAULT_USER_CRASH,
    SIM_FAULT_USER_PAUSE,
    SIM_FAULT_CLOCK_STEP,
    SIM_FAULT_CLOCK_DAY,
    SIM_FAULT_KINDS
};

struct sim_fault {
    uint64_t at_ms, span_ms, arg;
    enum sim_fault_kind kind;
    uint32_t place; /* a node's or a client's, as in the net */
    uint32_t tries;
    bool is_on; /* not left out */
};

/* Bugs of the simulation itself, to show that its checks and its minimiser work. */
enum sim_trap {
    SIM_TRAP_NONE,
    SIM_TRAP_EARLY_ACK, /* the broker answers before the commit */
    SIM_TRAP_NO_FENCE,  /* the helper never ends what a stopped daemon runs */
    SIM_TRAP_PAIR,      /* a worker starts within 3 s of a start of the broker: that "fails" */
    SIM_TRAPS
};

/* Only certain things go wrong: see scene.c. */
struct sim_scene {
    const char *name, *text;
    uint64_t kinds;   /* of faults, one bit each */
    uint64_t span_ms; /* they last at most so long */
    bool of_users;    /* faults of links are at clients */
    bool takes;       /* attempts may be taken from workers that run them, and some must */
};

/* One run, or what a minimised one leaves of it. */
struct sim_options {
    const struct sim_scene *scene; /* NULL: all faults */
    uint64_t seed;
    bool trace, check;
    bool is_cut;                  /* something is left out: fewer faults may be */
    bool without[SIM_FAULTS_MAX]; /* faults that are left out */
    uint32_t nodes, users;        /* only the first ones; 0: all */
    uint64_t acts_from, acts_to;  /* of each client: only these; acts_to 0: all */
    uint64_t until_ms;            /* no work and no fault later; 0: as planned */
    enum sim_trap trap;
};

struct sim;
typedef void sim_fn(struct sim *sim, void *context, uint64_t a, uint64_t b);

struct sim_event {
    uint64_t at_us, seq;
    sim_fn *fn;
    void *context;
    uint64_t a, b;
    enum sim_stream stream;
};

struct sim_note {
    uint64_t at_us;
    const char *what;
    uint64_t values[4];
};

struct sim_broker;
struct sim_node;
struct sim_user;
struct sim_net;
struct sim_audit;

/* What the seed decided once for the whole run. */
struct sim_plan {
    uint32_t nodes, users;
    uint64_t lease_ms, heartbeat_ms;
    uint32_t window_runs, window_timers, backlog_ops_max;
    uint64_t window_bytes;
    bool eager, check_each_turn;
    uint64_t work_ms;   /* submits come until then */
    uint64_t heal_ms;   /* the last fault has healed by then */
    uint64_t commit_us; /* typical time of a commit */
    uint32_t ckey_max[SIM_KEYS];
    uint32_t level_bytes; /* output of a connection above which the core is told */
    uint32_t task_goal;
    bool bursts;          /* of work */
    uint64_t long_run_ms; /* longest run of a task */
    bool pools, blobs;    /* decided by the seed's range */
    struct sim_fault faults[SIM_FAULTS_MAX];
    uint32_t fault_count;
};

struct sim {
    uint64_t seed;
    uint64_t now_us;
    int64_t wall_offset_ms;
    int64_t wall_most_ms;   /* the latest time that the wall clock showed by a fault */
    uint64_t wall_ahead_ms; /* by so much it was set ahead, all in all */
    const struct sim_options *options;
    struct hp_rand rands[SIM_STREAMS];
    enum sim_stream stream;   /* which one is drawn from now */
    struct sim_event *agenda; /* binary heap by (at_us, seq) */
    uint32_t agenda_count, agenda_capacity;
    uint64_t next_seq;
    uint64_t hash;
    bool trace;
    bool healed; /* no more faults */
    bool working;
    struct sim_note *tail; /* ring of SIM_TAIL */
    uint64_t note_count;
    struct sim_plan plan;
    struct sim_net *net;
    struct sim_broker *broker;
    struct sim_node *nodes[SIM_NODES_MAX];
    struct sim_user *users[SIM_USERS_MAX];
    struct sim_audit *audit;
    uint64_t progress;            /* starts and ends so far */
    uint64_t wids[SIM_USERS_MAX]; /* tasks a client has asked for; see sim_wid */
    uint64_t broker_started_ms;
    struct {
        uint64_t tasks, starts, crashes, turns, commits;
        uint64_t faults; /* that really happened */
        uint64_t blobs;  /* that became a task's payload or result */
        uint64_t taken;  /* attempts taken from workers that ran them, or had their success */
        uint32_t kinds[SIM_FAULT_KINDS];
    } figures;
};

/* ------------------------------------------------ world.c */
uint64_t sim_ms(const struct sim *sim);
int64_t sim_wall_ms(const struct sim *sim);
/* Sets the wall clock off by so much, from 0 on. */
void sim_set_wall(struct sim *sim, int64_t offset_ms);
void sim_at(struct sim *sim, uint64_t at_us, sim_fn *fn, void *context, uint64_t a, uint64_t b);
void sim_after(struct sim *sim, uint64_t delay_us, sim_fn *fn, void *context, uint64_t a,
               uint64_t b);
/* Draws from this stream from now on; returns the one before. */
enum sim_stream sim_enter(struct sim *sim, enum sim_stream stream);
/* Seeds a stream anew by two numbers, and enters it. */
enum sim_stream sim_enter_fresh(struct sim *sim, enum sim_stream stream, uint64_t a, uint64_t b);
/* Uniform in [low, high]. */
uint64_t sim_pick(struct sim *sim, uint64_t low, uint64_t high);
/* True in `percent` of cases. */
bool sim_percent(struct sim *sim, uint32_t percent);
/* A step of the history: into hash, tail and, with --trace, out. `what` is static, and has its
 * words in words.c. */
void sim_note(struct sim *sim, const char *what, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
/* For the reader of a trace only. */
void sim_say(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A rule was broken: prints and ends the process. */
void sim_fail(struct sim *sim, const char *format, ...)
    __attribute__((noreturn, format(printf, 2, 3)));
/* Told before sim_fail ends the process: the rule, not yet filled in. */
void sim_on_failure(void (*tell)(const struct sim *sim, const char *rule));
/* No tail of the history at a failure. */
void sim_be_brief(void);
#define SIM_RULE(sim, condition, ...)                                                              \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            sim_fail((sim), __VA_ARGS__);                                                          \
        }                                                                                          \
    } while (0)
void *sim_alloc(size_t size);
/* Runs one seed to its end. It does not return if a rule is broken. */
void sim_run(const struct sim_options *options, struct sim *ret_sim);

/* ------------------------------------------------ content.c */
enum { SIM_LARGE_LEAST = 65537, SIM_LARGE_MOST = 300000 };
/* Bytes that the number decides. */
void sim_content_fill(uint8_t *data, size_t size, uint64_t number);
bool sim_content_is(const uint8_t *data, size_t size, uint64_t number);
/* The number of a payload, its first eight bytes; 0: it has none. */
uint64_t sim_content_number(const uint8_t *payload, size_t size);

/* ------------------------------------------------ words.c */
void sim_words_head(const struct sim *sim, FILE *out);
void sim_words_note(const struct sim_note *note, FILE *out);
const char *sim_words_fault(enum sim_fault_kind kind);

/* ------------------------------------------------ plan.c */
void sim_plan(struct sim *sim);

/* ------------------------------------------------ net.c */
/* One end of a connection. All calls come from the agenda, never from inside a call of the net. */
struct sim_end {
    void (*opened)(void *context, uint64_t conn);
    void (*failed)(void *context, uint64_t conn);
    void (*received)(void *context, uint64_t conn, const uint8_t *data, size_t size);
    void (*closed)(void *context, uint64_t conn);
};

void sim_net_new(struct sim *sim);
void sim_net_free(struct sim *sim);
/* The broker's end: `opened` is an accept. */
void sim_net_serve(struct sim *sim, const struct sim_end *end, void *context);
/* A place is one host: nodes are 0.., users SIM_NODES_MAX... Returns the connection's number. */
uint64_t sim_net_connect(struct sim *sim, uint32_t place, const struct sim_end *end, void *context);
void sim_net_send(struct sim *sim, uint64_t conn, bool from_broker, const void *data, size_t size);
/* This side closes: it hears no more of it; what it sent still arrives, then the end. */
void sim_net_close(struct sim *sim, uint64_t conn, bool from_broker);
/* Its process died: all its connections end; `silent`: the others are not told. */
void sim_net_died(struct sim *sim, uint32_t place, bool is_broker, bool silent);
/* Bytes on their way to the client side. */
size_t sim_net_backlog(struct sim *sim, uint64_t conn);
/* What it hears waits while `paused`. */
void sim_net_pause(struct sim *sim, uint32_t place, bool is_broker, bool paused);
/* Its host is off: nobody answers what is sent there, until it is back. */
void sim_net_gone(struct sim *sim, uint32_t place, bool is_broker, bool gone);
/* Cut: nothing passes from (up) or to (down) a place. */
void sim_net_cut(struct sim *sim, uint32_t place, bool up, bool down);
bool sim_net_is_cut(const struct sim *sim, uint32_t place);
void sim_net_slow(struct sim *sim, uint32_t place, uint64_t delay_us);
/* What it hears comes in pieces, this far apart; 0: at once. */
void sim_net_read_slowly(struct sim *sim, uint32_t place, uint64_t gap_us);
/* All connections of a place are reset; what is under way may be lost from any point on. Returns
 * how many. */
uint32_t sim_net_reset(struct sim *sim, uint32_t place);

/* ------------------------------------------------ broker.c */
void sim_broker_new(struct sim *sim);
void sim_broker_free(struct sim *sim);
void sim_broker_start(struct sim *sim);
void sim_broker_crash(struct sim *sim, bool gone); /* gone: and its host */
void sim_broker_pause(struct sim *sim, bool paused);
void sim_broker_drain(struct sim *sim); /* stops in order, then dies */
bool sim_broker_is_up(const struct sim *sim);
bool sim_broker_is_paused(const struct sim *sim);
/* The next thing that the store does takes so much longer. */
void sim_broker_stall_store(struct sim *sim, uint64_t us);
void sim_broker_slow_store(struct sim *sim, bool slow);
void sim_broker_fill_disk(struct sim *sim, bool full);
bool sim_broker_is_disk_full(const struct sim *sim);
/* It dies at a certain point, and starts again after the fault's span; NULL: not any more. */
void sim_broker_arm(struct sim *sim, struct sim_fault *fault);
bool sim_broker_is_armed(const struct sim *sim);
/* Nothing is left to do; at the end. */
void sim_broker_final(struct sim *sim);
void sim_broker_dump(struct sim *sim);

/* ------------------------------------------------ node.c */
void sim_node_new(struct sim *sim, uint32_t index);
void sim_node_free(struct sim *sim, uint32_t index);
void sim_node_start(struct sim *sim, uint32_t index);
void sim_node_crash(struct sim *sim, uint32_t index, bool gone);
void sim_node_pause(struct sim *sim, uint32_t index, bool paused);
bool sim_node_is_paused(const struct sim *sim, uint32_t index);
/* Returns how many children died. */
uint32_t sim_node_kill_children(struct sim *sim, uint32_t index);
void sim_node_arm(struct sim *sim, uint32_t index, struct sim_fault *fault);
bool sim_node_is_armed(const struct sim *sim, uint32_t index);
void sim_node_drain(struct sim *sim, uint32_t index);
bool sim_node_is_up(const struct sim *sim, uint32_t index);
uint32_t sim_node_slots(const struct sim *sim, uint32_t index);
void sim_node_final(struct sim *sim, uint32_t index);
void sim_node_dump(struct sim *sim, uint32_t index);

/* Cancels what waits for a far time; at the end. */
void sim_user_cancel_far(struct sim *sim, uint32_t index);
/* Ends all pools that were told of; at the end. */
void sim_user_end_pools(struct sim *sim, uint32_t index);

/* ------------------------------------------------ user.c */
void sim_user_new(struct sim *sim, uint32_t index);
void sim_user_free(struct sim *sim, uint32_t index);
void sim_user_crash(struct sim *sim, uint32_t index); /* and a new one, with a new session */
void sim_user_pause(struct sim *sim, uint32_t index, bool paused);
bool sim_user_is_paused(const struct sim *sim, uint32_t index);
/* The name of the nth task that a client asks for, from 1 on: its payload. */
uint64_t sim_wid(uint32_t user, uint64_t n);
void sim_user_settle(struct sim *sim, uint32_t index); /* resume queues and workers */
/* Is the end of a task, or an answer, still to come? */
bool sim_user_waits(struct sim *sim, uint32_t index);
void sim_user_final(struct sim *sim, uint32_t index);

/* ------------------------------------------------ fault.c */
void sim_fault_start(struct sim *sim);
void sim_fault_heal_all(struct sim *sim);
/* An armed fault has come to pass: it is counted, and heals after its span. */
void sim_fault_struck(struct sim *sim, const struct sim_fault *fault);

/* ------------------------------------------------ audit.c */
struct audit_spec {
    bool at_most_once, kill_on_partition, function;
    uint32_t ckey; /* index + 1; 0: none */
    uint32_t ukey; /* index + 1; 0: none */
    uint32_t max_retries, max_losses, child_losses;
    bool in_memory; /* not durable: known by its payload only */
    bool pool, call;
    bool may_expire;
    bool far;          /* its time comes long after the end: it is cancelled then */
    int64_t run_at_ms; /* wall clock: not before */
    uint64_t delay_ms; /* not before so long after what follows */
    uint64_t asked_ms, asked_ahead_ms;
};
void audit_new(struct sim *sim);
void audit_free(struct sim *sim);
/* A user asks for tasks wid .. wid + count - 1. */
void audit_asked(struct sim *sim, uint64_t wid, uint32_t count, const struct audit_spec *spec);
/* It was told their ids. joined: the id is another one's. */
void audit_acked(struct sim *sim, uint64_t wid, uint32_t count, uint64_t first, bool joined);
/* What became durable. */
/* pool: of calls; else 0. */
void audit_group(struct sim *sim, uint64_t first, uint32_t count, uint64_t pool);
/* The payload of a durable task names this work. */
void audit_payload(struct sim *sim, uint64_t id, uint64_t wid);
void audit_pool(struct sim *sim, uint64_t id, uint32_t state);
void audit_ukey(struct sim *sim, uint32_t key, uint64_t id);
void audit_lease(struct sim *sim, uint64_t id, uint32_t attempt, uint64_t epoch, uint32_t node);
void audit_returned(struct sim *sim, uint64_t id, uint32_t attempt, uint32_t failures,
                    uint32_t losses, uint32_t releases);
void audit_cancelling(struct sim *sim, uint64_t id, bool is_forced);
void audit_result(struct sim *sim, uint64_t first, uint32_t count, uint32_t state, uint32_t reason,
                  uint32_t attempt, uint32_t failures, uint32_t losses);
void audit_committed(struct sim *sim); /* the whole transaction is in */
void audit_restarted(struct sim *sim); /* the broker: what was not durable never was */
/* What the nodes did. wid 0: not told (no payload). */
void audit_start(struct sim *sim, uint32_t node, uint64_t id, uint32_t attempt, uint64_t epoch,
                 uint64_t wid);
void audit_end(struct sim *sim, uint32_t node, uint64_t id, uint32_t attempt, uint64_t epoch,
               bool ok);
/* What the users were told. */
void audit_told(struct sim *sim, uint64_t id, uint32_t state, uint64_t result_id,
                uint32_t result_attempt, bool has_result);
bool audit_is_over(const struct sim *sim); /* all that is durable has ended */
/* Durable ids that were not asked for yet, at most so many. */
uint32_t audit_ids(struct sim *sim, uint64_t *ret_ids, uint32_t max);
void audit_stored(struct sim *sim, uint64_t id, bool exists, uint32_t state, uint32_t attempt);
uint64_t audit_next_far(struct sim *sim, uint64_t after); /* that has not ended; 0: none */
void audit_final(struct sim *sim);
uint64_t audit_some_id(struct sim *sim); /* of a task that was acknowledged; 0: none */
void audit_dump(struct sim *sim, uint64_t id);
/* It was asked for without durability: it may be lost with the broker. */
bool audit_is_in_memory(struct sim *sim, uint64_t wid);
bool audit_is_task_in_memory(struct sim *sim, uint64_t id);
bool audit_is_pool(struct sim *sim, uint64_t id);
/* Of a pool that was acknowledged, mostly one of the last; 0: none. */
uint64_t audit_some_pool(struct sim *sim);
uint64_t audit_next_pool(struct sim *sim, uint64_t after); /* that has not ended; 0: none */

#endif
