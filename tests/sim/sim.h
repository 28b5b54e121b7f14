/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The simulator: the production core, agents and client engines in one process, on a virtual clock
 * and a virtual network; every choice comes from one seed.
 *
 *   world.c   clock, agenda of events, trace, random numbers
 *   net.c     connections: delay, cuts, partitions, lost ends
 *   broker.c  core + store in memory, turns, commits, crash and restart
 *   node.c    agent + simulated executor and spool; node_pool.c: children of pools
 *   user.c    client engine + workload; user_pool.c: pools and their calls
 *   audit.c   what must hold; it sees submits, commits, starts and ends, and never the core
 *   fault.c   what goes wrong, and when
 *
 * client/ and server/core have types of the same names, so this header knows neither.
 */
#ifndef HP_TESTS_SIM_SIM_H
#define HP_TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/macro.h"
#include "common/base/rand.h"

#define SIM_NEVER UINT64_MAX
#define SIM_MS UINT64_C(1000) /* the agenda counts microseconds */
#define SIM_POOL_SEEDS UINT64_C(1000000) /* from here on there are pools, too */
enum { SIM_NODES_MAX = 4, SIM_USERS_MAX = 4, SIM_KEYS = 4, SIM_TAIL = 3000 };

struct sim;
typedef void sim_fn(struct sim *sim, void *context, uint64_t a, uint64_t b);

struct sim_event {
    uint64_t at_us, seq;
    sim_fn *fn;
    void *context;
    uint64_t a, b;
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
    uint32_t fault_level; /* 0: none */
    uint32_t task_goal;
    uint64_t long_run_ms; /* longest run of a task */
    bool pools; /* decided by the seed's range, so that older seeds keep their histories */
};

struct sim {
    uint64_t seed;
    uint64_t now_us;
    int64_t wall_offset_ms;
    struct hp_rand rand;
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
    uint64_t progress; /* starts and ends so far */
    uint64_t next_wid; /* names a task that was asked for */
    struct {
        uint64_t tasks, starts, crashes, faults, turns, commits;
    } figures;
};

/* ------------------------------------------------ world.c */
uint64_t sim_ms(const struct sim *sim);
int64_t sim_wall_ms(const struct sim *sim);
void sim_at(struct sim *sim, uint64_t at_us, sim_fn *fn, void *context, uint64_t a, uint64_t b);
void sim_after(struct sim *sim, uint64_t delay_us, sim_fn *fn, void *context, uint64_t a,
               uint64_t b);
/* Uniform in [low, high]. */
uint64_t sim_pick(struct sim *sim, uint64_t low, uint64_t high);
/* True in `percent` of cases. */
bool sim_percent(struct sim *sim, uint32_t percent);
/* A step of the history: into hash, tail and, with --trace, out. `what` is static. */
void sim_note(struct sim *sim, const char *what, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
/* A rule was broken: prints and ends the process. */
void sim_fail(struct sim *sim, const char *format, ...)
    __attribute__((noreturn, format(printf, 2, 3)));
#define SIM_RULE(sim, condition, ...)                                                              \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            sim_fail((sim), __VA_ARGS__);                                                          \
        }                                                                                          \
    } while (0)
void *sim_alloc(size_t size);
/* Runs one seed to its end; true. It does not return if a rule is broken. */
void sim_run(uint64_t seed, bool trace, bool check, struct sim *ret_sim);

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
/* Cut: nothing passes from (up) or to (down) a place. */
void sim_net_cut(struct sim *sim, uint32_t place, bool up, bool down);
void sim_net_slow(struct sim *sim, uint32_t place, uint64_t delay_us);
/* All connections of a place are reset; what is under way may be lost from any point on. */
void sim_net_reset(struct sim *sim, uint32_t place);

/* ------------------------------------------------ broker.c */
void sim_broker_new(struct sim *sim);
void sim_broker_free(struct sim *sim);
void sim_broker_start(struct sim *sim);
void sim_broker_crash(struct sim *sim, bool silent);
void sim_broker_pause(struct sim *sim, bool paused);
void sim_broker_drain(struct sim *sim); /* stops in order, then dies */
bool sim_broker_is_up(const struct sim *sim);
void sim_broker_stall_store(struct sim *sim, uint64_t us);
/* Nothing is left to do; at the end. */
void sim_broker_final(struct sim *sim);
void sim_broker_dump(struct sim *sim);

/* ------------------------------------------------ node.c */
void sim_node_new(struct sim *sim, uint32_t index);
void sim_node_free(struct sim *sim, uint32_t index);
void sim_node_start(struct sim *sim, uint32_t index);
void sim_node_crash(struct sim *sim, uint32_t index, bool silent);
void sim_node_pause(struct sim *sim, uint32_t index, bool paused);
void sim_node_drain(struct sim *sim, uint32_t index);
bool sim_node_is_up(const struct sim *sim, uint32_t index);
void sim_node_final(struct sim *sim, uint32_t index);
void sim_node_dump(struct sim *sim, uint32_t index);

/* Ends all pools that were told of; at the end. */
void sim_user_end_pools(struct sim *sim, uint32_t index);

/* ------------------------------------------------ user.c */
void sim_user_new(struct sim *sim, uint32_t index);
void sim_user_free(struct sim *sim, uint32_t index);
void sim_user_crash(struct sim *sim, uint32_t index); /* and a new one, with a new session */
void sim_user_pause(struct sim *sim, uint32_t index, bool paused);
void sim_user_settle(struct sim *sim, uint32_t index); /* resume queues and workers */
void sim_user_final(struct sim *sim, uint32_t index);

/* ------------------------------------------------ fault.c */
void sim_fault_plan(struct sim *sim);
void sim_fault_start(struct sim *sim);

/* ------------------------------------------------ audit.c */
struct audit_spec {
    bool at_most_once, kill_on_partition, function;
    uint32_t ckey; /* index + 1; 0: none */
    uint32_t ukey; /* index + 1; 0: none */
    uint32_t max_retries, max_losses, child_losses;
    bool in_memory; /* not durable: known by its payload only */
    bool pool;
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
void audit_pool(struct sim *sim, uint64_t id, uint32_t state);
void audit_ukey(struct sim *sim, uint32_t key, uint64_t id);
void audit_lease(struct sim *sim, uint64_t id, uint32_t attempt, uint64_t epoch, uint32_t node);
void audit_returned(struct sim *sim, uint64_t id, uint32_t attempt, uint32_t failures,
                    uint32_t losses, uint32_t releases);
void audit_cancelling(struct sim *sim, uint64_t id);
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
void audit_final(struct sim *sim);
uint64_t audit_some_id(struct sim *sim); /* of a task that was acknowledged; 0: none */
void audit_dump(struct sim *sim, uint64_t id);
bool audit_is_pool(struct sim *sim, uint64_t id);
/* Of a pool that was acknowledged, mostly one of the last; 0: none. */
uint64_t audit_some_pool(struct sim *sim);
uint64_t audit_next_pool(struct sim *sim, uint64_t after); /* that has not ended; 0: none */

#endif
