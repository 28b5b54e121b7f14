/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The worker's agent: slots, attempts, heartbeats, self-fence, reconnects, unacknowledged results.
 *
 * A pure state machine: no I/O, no clock, no thread. The shell (worker/, or the simulator) calls
 * one of the inputs below with the time, then carries out the effects and sends the output, before
 * it calls the next input:
 *
 *     hp_agent_received(agent, data, size, now_ms);
 *     for (size_t i = 0; i < hp_agent_effect_count(agent); i++) { do(hp_agent_effect(agent, i)); }
 *     hp_agent_effects_clear(agent);
 *     bytes = hp_agent_output(agent); n = send(bytes); hp_agent_output_consume(agent, n);
 *
 * Several inputs may be given before the effects are drained: that is how work gathers in batches.
 * Effects must be carried out in their order, and none may be dropped.
 *
 * now_ms counts from any origin, never goes back, and must count suspended time too
 * (CLOCK_BOOTTIME).
 *
 * Rules it keeps (SEMANTICS.md 4 and DESIGN.md 5):
 * I1 An attempt is forgotten only when the broker has answered for it (or disowned it).
 * I2 No attempt is started after the self-fence; the ones with on_partition=kill are ended by it.
 * I3 What ran more than 1 s, or is at-most-once, is spooled before it is sent; everything else when
 *    the answer takes more than 1 s, the link is down, or the agent stops.
 * I4 Results of an earlier boot are sent before worker.register.
 *
 * Not for threads.
 */
#ifndef HP_WORKER_CORE_AGENT_H
#define HP_WORKER_CORE_AGENT_H

#include "common/base/bin.h"
#include "common/base/buf.h"
#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HP_AGENT_BOOT_BYTES 16u
#define HP_AGENT_NEAR_KEY_BYTES 16u
#define HP_AGENT_NEVER UINT64_MAX

/* slots + prefetch_max may not be more: a heartbeat must name all of them in one frame. */
#define HP_AGENT_RUNS_MAX 6000u

struct hp_agent;

/* Everything is copied by hp_agent_new. */
struct hp_agent_config {
    struct hp_str client;              /* program and version, for people */
    struct hp_str node;                /* node name, 1..255 bytes */
    struct hp_str host;                /* host name */
    struct hp_str token;               /* empty: none */
    uint8_t boot[HP_AGENT_BOOT_BYTES]; /* random per start */
    uint32_t pid;
    uint32_t slots;        /* 1..4096 */
    uint32_t prefetch_max; /* function tasks held beyond the slots; 0..4096 */
    uint64_t mem_bytes;    /* memory offered; 0: not stated */
    const struct hp_str *tags;
    uint32_t tag_count;             /* <= 64 */
    const struct hp_str *functions; /* names; a call names one by its index here */
    uint32_t function_count;        /* <= 4096; 0: no function children at all */
    bool commands;                  /* runs commands */
    uint64_t seed;                  /* of the jitter */
    const struct hp_str *languages; /* what pools' children can run here */
    uint32_t language_count;        /* <= 64; 0: no pools */
    bool any_interpreter;           /* pools may name an interpreter by its path */
    uint32_t children_max;          /* children of pools, besides those of the slots; <= 65536 */
    uint64_t blob_bytes_max;        /* bytes of fetched payloads in memory at once; 0: 1 GiB */
    bool near; /* content goes by descriptor where the broker is on this host (NEAR_* effects) */
};

/* A descriptor of some process, as blob.give and blob.lend name it. */
struct hp_agent_place {
    uint32_t pid;
    uint32_t fd;
    uint64_t device;
    uint64_t inode;
};

/* An open file of the shell's, which puts it in front of what it keeps of it. Whoever holds it
 * frees it, once; the agent only while no effect that names it is still to be carried out. */
struct hp_agent_file {
    void (*free)(struct hp_agent_file *file);
    struct hp_agent_file *next; /* for its holder */
};

/* ------------------------------------------------------------------------------------- effects */

enum hp_agent_effect_kind {
    HP_AGENT_CONNECT, /* connect; answer with hp_agent_connected or hp_agent_disconnected */
    HP_AGENT_CLOSE,   /* close the connection (text: why); no answer is expected */
    HP_AGENT_RUN,     /* start a command: answered by EXEC_STARTED/ENDED */
    HP_AGENT_CALL,    /* give calls to a function child */
    HP_AGENT_KILL,    /* signal the run `key`: see below */
    HP_AGENT_CHILD_START, /* start a child of a pool: CHILD_UP when it is set up, or CHILD_DOWN */
    HP_AGENT_CHILD_STOP,  /* end a child of a pool: in order (signal 0), or by a signal */
    HP_AGENT_POOL_GONE,   /* no child of `pool` is left, nor will one come */
    HP_AGENT_RECALL,  /* take unclaimed calls back from a function child: EXEC_HANDED_BACK */
    HP_AGENT_FOLLOW,  /* pass on the output of `key` (on): kept output first, then as it comes */
    HP_AGENT_SET_DEADLINE, /* dead-man's switch: at `deadline_ms` kill all runs with `fence` */
    HP_AGENT_NEAR_PROVE, /* does pid, fd of `place` hold `near_key`?: NEAR_PROVED */
    HP_AGENT_NEAR_OPEN,  /* open `place`, check size and digest: NEAR_OPENED. At once: the broker
                            keeps it for some seconds */
    HP_AGENT_NEAR_SEAL,  /* end `file`, of `size`, with `near_key`, and seal it: NEAR_SEALED */
    HP_AGENT_SPOOL_APPEND, /* write `record` under `spool_id`, fsync: hp_agent_spooled */
    HP_AGENT_SPOOL_ACK,    /* the record `spool_id` is not needed any more */
    HP_AGENT_LOG,          /* a line for people: `level`, `text` */
    HP_AGENT_EXIT,         /* drained or stopped: nothing is left to do */
};

enum hp_agent_log_level {
    HP_AGENT_LOG_ERROR,
    HP_AGENT_LOG_WARN,
    HP_AGENT_LOG_INFO,
    HP_AGENT_LOG_DEBUG,
};

#define HP_AGENT_NO_CHILD UINT32_MAX

/*
 * A command to start. The views are valid until the run has ended (EXEC_ENDED), the struct itself
 * until hp_agent_effects_clear.
 */
struct hp_agent_command {
    uint64_t key; /* names the run in all later effects and events; never 0, never reused */
    uint64_t id;
    uint64_t epoch;
    uint64_t array_index;
    uint32_t attempt;
    uint32_t cpus; /* slots it takes */
    const struct hp_str *argv;
    uint32_t argv_count;      /* at least one */
    struct hp_bin argv_more;  /* further arguments, each ended by a NUL byte */
    const struct hp_str *env; /* KEY=VALUE */
    uint32_t env_count;
    struct hp_str cwd; /* empty: the worker's default */
    struct hp_bin stdin_data;
    uint64_t output_cap_bytes; /* of stdout, and of stderr */
    uint64_t mem_bytes;        /* 0: no limit asked */
    bool follow;               /* pass output on from the first byte */
    bool fence;                /* on_partition=kill: the dead-man's switch ends it */
};

/* A function call. The payload is valid until the call has ended or was handed back. */
struct hp_agent_call {
    uint64_t key;
    uint64_t id;
    uint64_t epoch;
    uint64_t array_index;
    uint32_t attempt;
    uint32_t function_index; /* into hp_agent_config.functions */
    struct hp_bin payload;   /* of any size up to the blob limit */
    struct hp_agent_file *payload_file; /* not NULL: the first payload_bytes of it, instead */
    uint64_t payload_bytes;             /* of either */
    bool items;                         /* the payload is an array of items' payloads */
    bool fence;                         /* as in hp_agent_command */
};

/* A child of a pool. The views are valid until the child is gone, the struct itself until
 * hp_agent_effects_clear. */
struct hp_agent_pool_child {
    uint64_t pool;
    struct hp_str language;    /* "c", "python3.11" */
    struct hp_str interpreter; /* path asked for; empty: the worker's own */
    struct hp_str fn;          /* language c: its initializer; empty: none */
    struct hp_bin payload;     /* what it is set up with */
    struct hp_agent_file *payload_file; /* as in hp_agent_call */
    uint64_t payload_bytes;
    uint64_t calls_max;        /* 0: no limit */
    bool fence;                /* as in hp_agent_command */
};

/*
 * KILL of a command: `signal` to its group. KILL of a call must never hit another one: if `key` has
 * not begun it is taken back (HANDED_BACK); if it runs, everything behind it is taken back first
 * and then the child is signalled; if it has ended, nothing is done.
 */
struct hp_agent_effect {
    enum hp_agent_effect_kind kind;
    uint64_t key;                  /* KILL, FOLLOW; NEAR_*: to be handed back with `ticket` */
    uint32_t child;                /* CALL, RECALL, CHILD_*: below slots: functions; behind: pools.
                                      KILL: NO_CHILD for a command */
    int signal;                    /* KILL, CHILD_STOP */
    uint64_t pool;                 /* POOL_GONE; NEAR_*: to be handed back, as `key` */
    const struct hp_agent_pool_child *start; /* CHILD_START */
    bool on;                       /* FOLLOW */
    enum hp_agent_log_level level; /* LOG */
    const struct hp_agent_command *command; /* RUN */
    const struct hp_agent_call *calls;      /* CALL */
    uint32_t call_count;                    /* CALL */
    uint64_t deadline_ms;                   /* SET_DEADLINE; HP_AGENT_NEVER: off */
    uint64_t spool_id;                      /* SPOOL_APPEND, SPOOL_ACK; counts up from 1 */
    struct hp_bin record;                   /* SPOOL_APPEND; until hp_agent_effects_clear */
    const char *text;                       /* CLOSE, LOG; until hp_agent_effects_clear */
    uint64_t ticket;                        /* NEAR_* */
    struct hp_agent_place place;            /* NEAR_PROVE (pid, fd), NEAR_OPEN */
    struct hp_agent_file *file;             /* NEAR_SEAL */
    uint64_t size;                          /* NEAR_OPEN, NEAR_SEAL: bytes of the content */
    bool has_digest;                        /* NEAR_OPEN */
    uint64_t digest;                        /* NEAR_OPEN: XXH3-64 of the content */
    uint8_t near_key[HP_AGENT_NEAR_KEY_BYTES]; /* NEAR_PROVE, NEAR_SEAL */
};

/* -------------------------------------------------------------------------------------- events */

enum hp_agent_event_kind {
    HP_AGENT_EXEC_STARTED,     /* a command has run for ran_us: key, pid */
    HP_AGENT_EXEC_OUTPUT,      /* output of a followed command: key, stream, offset, out */
    HP_AGENT_EXEC_ENDED,       /* a command ended, or could not be started */
    HP_AGENT_EXEC_RESULT,      /* a call ended: outcome */
    HP_AGENT_EXEC_HANDED_BACK, /* it never ran: a call that came back unclaimed, or a command and
                                  nobody is left to start it */
    HP_AGENT_EXEC_CHILD_UP,   /* a function child takes calls from now on (all are down at start) */
    HP_AGENT_EXEC_CHILD_DOWN, /* it takes no more; calls that it still has end as any other */
    HP_AGENT_EXEC_CHILD_WAITS, /* its call waits for other tasks (on), or no more */
    HP_AGENT_NEAR_PROVED, /* answers, with the effect's key, pool and ticket: it does (on) */
    HP_AGENT_NEAR_OPENED, /* `file`; NULL: it could not be (on: only this one, not now) */
    HP_AGENT_NEAR_SEALED, /* it is (on), and is to be found at `place` */
};

/* What a function's return means. */
enum hp_agent_outcome {
    HP_AGENT_OUTCOME_OK,
    HP_AGENT_OUTCOME_ERROR,       /* `error` says why */
    HP_AGENT_OUTCOME_PERMANENT,   /* an error, and a retry is pointless */
    HP_AGENT_OUTCOME_RETRY,       /* an error, and a retry is wanted after retry_ms */
    HP_AGENT_OUTCOME_TOO_BIG,     /* the result is over the cap */
    HP_AGENT_OUTCOME_NO_FUNCTION, /* the child does not know the function */
    HP_AGENT_OUTCOME_DIED, /* the child died in this call: signal or exit_code, oom, fenced */
};

/*
 * What the executor saw. All views are only read during the call. Of one child, results come in the
 * order of its calls; calls that come back together come last one first. Every key that was given
 * out ends in exactly one ENDED, RESULT or HANDED_BACK.
 */
struct hp_agent_event {
    enum hp_agent_event_kind kind;
    uint64_t key;
    uint32_t child; /* CHILD_UP, CHILD_DOWN, CHILD_WAITS */
    uint32_t pid;   /* STARTED, CHILD_UP */
    uint64_t ran_us;  /* STARTED */
    bool on;          /* CHILD_WAITS, NEAR_* */
    bool gone;        /* CHILD_DOWN of a pool: the process is gone, and its calls were reported */
    bool init_failed; /* gone: it could not be set up; `error` says why */
    bool recycled;    /* gone: it ended in order */

    /* ENDED, RESULT with DIED: how. At most one of start_errno, signal is not 0. */
    uint32_t start_errno; /* ENDED: could not be started */
    uint32_t signal;
    int32_t exit_code;
    bool oom;    /* killed for memory */
    bool fenced; /* killed by the dead-man's switch, or lost with the executor itself */
    bool out_truncated;
    bool err_truncated;
    struct hp_bin out; /* ENDED: kept stdout; OUTPUT: the bytes; RESULT: the result, or
                          with ERROR, PERMANENT what goes along with the text */
    struct hp_agent_file *file; /* RESULT: holds `out`, or NULL. NEAR_OPENED. The agent takes it
                                   over in any case: `out` stays valid until it is freed */
    struct hp_bin err; /* ENDED: kept stderr */
    uint64_t out_size; /* ENDED: bytes written in all */
    uint64_t err_size;

    /* RESULT */
    struct hp_bin log_out; /* what the child printed during the call */
    struct hp_bin log_err;
    enum hp_agent_outcome outcome;
    uint64_t retry_ms;
    struct hp_str error; /* for people; DIED: its last stderr. ENDED: why it was not started */

    /* NEAR_* */
    uint64_t pool;
    uint64_t ticket;
    struct hp_agent_place place; /* SEALED */

    /* OUTPUT */
    uint32_t stream; /* 1: stdout, 2: stderr */
    uint64_t offset;

    /* ENDED, RESULT: 0 where not known */
    uint64_t run_us;
    uint64_t utime_us;
    uint64_t stime_us;
    uint64_t maxrss_kb;
};

/* --------------------------------------------------------------------------------------- life */

/* HP_ERR_INVALID or HP_ERR_RANGE with a sentence for a bad config; HP_ERR_NOMEM. */
enum hp_err hp_agent_new(const struct hp_agent_config *config, uint64_t now_ms,
                         struct hp_agent **ret_agent, struct hp_error *reterr) HP_MUST_CHECK;
void hp_agent_free(struct hp_agent *agent);

/*
 * A record that an earlier start of the daemon left in the spool, under the id it was written with.
 * Call before the first tick, in the order of the ids; the agent's own ids go on behind them. A
 * record which can not be read is logged and acknowledged away: its attempt was lost with it.
 */
void hp_agent_spool_loaded(struct hp_agent *agent, uint64_t spool_id, struct hp_bin record);

/* -------------------------------------------------------------------------------------- inputs */

/* The connection asked for by HP_AGENT_CONNECT stands. */
void hp_agent_connected(struct hp_agent *agent, uint64_t now_ms);

/* It could not be made, or was lost (why: for the log). Unsent output is dropped. */
void hp_agent_disconnected(struct hp_agent *agent, const char *why, uint64_t now_ms);

/* Bytes from the broker, in any pieces. Hostile bytes lead to HP_AGENT_CLOSE. */
void hp_agent_received(struct hp_agent *agent, const uint8_t *data, size_t size, uint64_t now_ms);

/* Time passed. Call at hp_agent_next_deadline_ms or later; earlier does no harm. The first starts
 * it. */
void hp_agent_tick(struct hp_agent *agent, uint64_t now_ms);

/* What the executor saw, in its order. */
void hp_agent_exec(struct hp_agent *agent, const struct hp_agent_event *events, size_t count,
                   uint64_t now_ms);

/*
 * All records up to `spool_id` are durable (ok), or what was given since the last success could
 * not be written (not ok: the agent goes on without, says so in the log, and gives it again later,
 * under new ids).
 */
void hp_agent_spooled(struct hp_agent *agent, uint64_t spool_id, bool ok, uint64_t now_ms);

/* SIGTERM: take nothing new, hand back what has not started, end what runs after `timeout_ms`. */
void hp_agent_drain(struct hp_agent *agent, uint64_t timeout_ms, uint64_t now_ms);

/* A second SIGTERM: kill all, spool what is not acknowledged, exit. */
void hp_agent_stop(struct hp_agent *agent, uint64_t now_ms);

/* ------------------------------------------------------------------------------------- outputs */

/* When the next tick is due, or HP_AGENT_NEVER. */
uint64_t hp_agent_next_deadline_ms(const struct hp_agent *agent);

/* Effects since the last clear. The pointer is valid until the next input or clear. */
size_t hp_agent_effect_count(const struct hp_agent *agent);
const struct hp_agent_effect *hp_agent_effect(const struct hp_agent *agent, size_t index);
void hp_agent_effects_clear(struct hp_agent *agent);

/*
 * Bytes for the broker, not yet taken by the shell. Views are valid until the next input. The shell
 * may leave some: what waits here holds back further results (flow control), so pass on only what
 * the socket takes, and call hp_agent_tick or another input after it took some.
 */
struct hp_bin hp_agent_output(struct hp_agent *agent);
void hp_agent_output_consume(struct hp_agent *agent, size_t size);

/* ------------------------------------------------------------------------- figures and checking */

struct hp_agent_stats {
    bool connected;  /* the connection stands */
    bool registered; /* worker.register was answered on it */
    bool draining;
    bool fenced;
    uint32_t held;    /* attempts, all */
    uint32_t waiting; /* not yet given to a child */
    uint32_t running; /* commands that run, calls given to children */
    uint32_t unacked; /* ended, not yet answered */
    uint32_t slots_used;
    uint32_t children_busy;
    uint32_t pools;         /* that it has children of, or is to have */
    uint32_t pool_children; /* that are set up */
    uint64_t started_total;
    uint64_t ended_total;
    uint64_t acked_total;
    uint64_t stale_total;    /* results refused */
    uint64_t dropped_total;  /* killed on the broker's order */
    uint64_t released_total; /* handed back */
    uint64_t spooled_total;
    uint64_t broker_epoch;
    uint64_t lease_ms;
    uint64_t fence_at_ms; /* HP_AGENT_NEVER: no lease yet */
};
void hp_agent_get_stats(const struct hp_agent *agent, struct hp_agent_stats *ret_stats);

/* Asserts all invariants between the agent's records. O(attempts); for tests and the simulator. */
void hp_agent_check(const struct hp_agent *agent);

/* Text of the whole state for people, sorted by task id. HP_ERR_FULL, HP_ERR_NOMEM from the buffer.
 */
enum hp_err hp_agent_dump(const struct hp_agent *agent, struct hp_buf *buf) HP_MUST_CHECK;

#endif
