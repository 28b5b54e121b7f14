/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The worker daemon's shell around the pure agent, private to worker/: it owns the loop, the
 * connection, the executor and the spool, feeds the agent and carries out its effects.
 *
 * A turn: wait for events; callbacks gather (bytes and signals go to the agent at once, the
 * executor's reports into `feed`); then settle: feed the agent, carry out its effects until there
 * are none, and write what it has for the broker.
 */
#ifndef HP_WORKER_DAEMON_H
#define HP_WORKER_DAEMON_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/net/conn.h"
#include "common/net/loop.h"
#include "worker/config.h"
#include "worker/core/agent.h"
#include "worker/exec/exec.h"
#include "worker/spool.h"

/* SIGTERM, SIGINT and SIGHUP (a closed terminal): all of them drain. */
#define HP_WORKER_SIGNALS 3u

/* A large result, mapped, or a payload that the broker lends; the agent's, until it frees it. */
struct hp_worker_file {
    struct hp_agent_file base; /* first */
    struct hp_worker *worker;
    int fd;              /* -1: there were too many; the mapping is left */
    const uint8_t *data; /* NULL: not mapped */
    size_t size;
};

/* An interpreter from which children of pools are forked. */
struct hp_worker_python {
    char path[4096];
    uint32_t zygote;    /* of the executor; 0: does not run */
    bool is_ready;      /* it has said its language */
    bool is_own;        /* the configured one */
    char language[64];  /* "python3.11" */
    uint64_t idle_ms;   /* CLOCK_BOOTTIME when its last child went; 0: has some */
    uint32_t child_count;
};

#define HP_WORKER_PYTHONS_MAX HP_EXEC_ZYGOTES_MAX

/* A child that waits until its interpreter is warm, or that runs. */
struct hp_worker_pool_child {
    struct hp_agent_pool_child spec; /* views as long as its pool is here */
    uint32_t python;                 /* index, + 1; 0: native, or not in use */
    bool is_pending;
};

struct hp_worker {
    const struct hp_worker_config *config;
    struct hp_worker_python pythons[HP_WORKER_PYTHONS_MAX];
    struct hp_worker_pool_child *pool_children; /* config->children_max */
    char **python_env;                          /* of interpreters; owned */
    struct hp_str languages[2];
    uint32_t language_count;
    bool python_probed; /* the configured interpreter has spoken, or failed */
    struct hp_exec *exec;
    struct hp_loop *loop;
    struct hp_watch *exec_watch;
    struct hp_signal *signals[HP_WORKER_SIGNALS];
    struct hp_conn *conn;
    struct hp_agent *agent;
    struct hp_spool *spool;
    int lock_fd;
    uint8_t boot[HP_AGENT_BOOT_BYTES];

    /* what the modules offer; views into memory of the arena */
    struct hp_arena arena;
    struct hp_str *functions;
    uint32_t function_count;
    bool functions_known;
    struct hp_error functions_error;

    /* events for the agent, and the memory of their bytes */
    struct hp_agent_event *feed;
    size_t feed_count;
    size_t feed_capacity;
    struct hp_arena feed_arena;

    uint32_t fd_count; /* of files */
    uint32_t fd_max;

    uint32_t term_count; /* signals that asked to end */
    uint32_t term_done;  /* of those acted on */
    bool exec_ready;
    bool helper_died;
    bool exiting;
    int exit_code;
};

/* feed.c: the executor's callbacks, gathered as events. */
extern const struct hp_exec_callbacks hp_worker_exec_callbacks;
struct hp_agent_event *hp_worker_feed_add(struct hp_worker *worker, enum hp_agent_event_kind kind);
/* Gives the gathered events to the agent. False: there were none. */
bool hp_worker_feed_flush(struct hp_worker *worker);
void hp_worker_feed_deinit(struct hp_worker *worker);

/* near.c: content in descriptors. */
void hp_worker_near_init(struct hp_worker *worker);
/* A child's result; takes the descriptor over. NULL: no memory. */
struct hp_worker_file *hp_worker_file_of_result(struct hp_worker *worker, int fd, uint64_t size);
/* The descriptor of a payload that the agent passes on. */
int hp_worker_file_fd(const struct hp_agent_file *file);
/* Carry out NEAR_* effects; their answers are fed. */
void hp_worker_near_prove(struct hp_worker *worker, const struct hp_agent_effect *effect);
void hp_worker_near_open(struct hp_worker *worker, const struct hp_agent_effect *effect);
void hp_worker_near_seal(struct hp_worker *worker, const struct hp_agent_effect *effect);

/* pools.c: children of pools, and the interpreters they are forked from. */
/* Starts the configured interpreter and waits until it has said what it is; a broken one is logged
 * and done without. */
enum hp_err hp_worker_pools_start(struct hp_worker *worker, struct hp_error *reterr) HP_MUST_CHECK;
void hp_worker_pools_deinit(struct hp_worker *worker);
void hp_worker_child_start(struct hp_worker *worker, uint32_t child,
                           const struct hp_agent_pool_child *spec);
void hp_worker_child_stop(struct hp_worker *worker, uint32_t child, int signal);
void hp_worker_child_gone(struct hp_worker *worker, uint32_t child);
void hp_worker_zygote_ready(void *context, uint32_t zygote, const char *text);
void hp_worker_zygote_failed(void *context, uint32_t zygote, const char *text);
/* Ends interpreters that nobody needs any more. */
void hp_worker_pools_tick(struct hp_worker *worker);

/* carry.c: carries out all effects, and sends. */
void hp_worker_settle(struct hp_worker *worker);

/* daemon.c */
enum hp_err hp_worker_start(struct hp_worker *worker, const struct hp_worker_config *config,
                            struct hp_error *reterr) HP_MUST_CHECK;
/* Runs until the agent is done; the exit code of the process. */
int hp_worker_run(struct hp_worker *worker);
void hp_worker_deinit(struct hp_worker *worker);
enum hp_err hp_worker_connect(struct hp_worker *worker, struct hp_error *reterr) HP_MUST_CHECK;

#endif
