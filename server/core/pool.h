/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pools. Part of the core's state (state.h includes this).
 *
 * A pool is a task of kind pool: a group of one and a side row (HP_SIDE_POOL) from its submit to
 * its end. What is durable of it is in those two: the options, the payload that children are set up
 * with, and in the side row its state. Which workers have how many of its children is only here:
 * it is decided anew after a restart.
 *
 * Calls are tasks like others, in lanes whose class is the pool; they take no slots, only children.
 *
 * Invariants (hp_core_check):
 *  P1 held of a pool's node is the number of its attempts there; the pool's sums agree.
 *  P3 all lanes of its calls are in its list, once it is known.
 *  P4 memory_live is the number of its calls that live in vgroups; a session's `pools` of those
 *     whose owner it is.
 *  P2 a pool has nodes only if it is loaded; a node entry without children, calls or a report that
 *     matters is freed by the next pass.
 */
#ifndef HP_SERVER_CORE_POOL_H
#define HP_SERVER_CORE_POOL_H

#include "common/base/idmap.h"
#include "common/base/list.h"
#include "proto/hp_msg.h"
#include "server/core/op.h"

struct hp_core;
struct hp_spec;
struct hp_node;
struct hp_session;
struct hp_class;
struct hp_conn;
struct hp_request;
struct hp_pending;
struct hp_attempt;
struct hp_finish;
struct hp_lane;

/* What one worker is to have, and has, of a pool. */
struct hp_pool_node {
    struct hp_list link; /* hp_pool.nodes */
    struct hp_pool *pool;
    struct hp_node *node;
    uint32_t granted; /* children it is to have */
    uint32_t told;    /* what it was told last */
    bool is_told;     /* `told` holds: since it registered */
    bool kill_told;
    bool quarantined; /* its children can not be set up there */
    uint32_t held;    /* calls there */
    uint32_t waiting; /* children that wait for other tasks */
    bool stuck;       /* calls were asked back, and none has ended since: none ahead */
    uint32_t failures;
    uint32_t pid_count;
    uint64_t *pids; /* children that are set up */
    char error[1024];
};

/* Who waits in pool.info. */
struct hp_pool_wait {
    struct hp_list link;
    uint64_t conn;
    uint32_t msgid;
    uint64_t deadline_ms;
};

struct hp_pool {
    uint64_t id;
    struct hp_list link; /* core->pool_list, by id */
    uint8_t state;       /* HP_SM_POOL_* */
    bool detached;
    bool broken;
    bool cancelled; /* its task was cancelled, or it was terminated */
    bool loaded;    /* false: found at the start, its group is being loaded */
    bool loading;
    struct hp_spec *spec;       /* counted; NULL until loaded */
    struct hp_session *session; /* counted; its owner, or NULL */
    struct hp_session *maker;   /* counted; who submitted it and is told of its end, or NULL */
    struct hp_bin payload;      /* owned */
    uint64_t blob;              /* payload instead; 0: none */
    int64_t created_at_ms;
    uint64_t delayed;      /* durable calls in DELAYED and RETURNED rows: durable with the pool */
    uint64_t memory_live;  /* calls that are not durable and have not ended */
    bool row_dirty;        /* its side row is written at the end of the turn */
    bool scanning, scan_stale, scan_failed; /* ending: delayed calls are looked for */
    uint64_t scan_found;
    uint32_t held;         /* calls at workers */
    uint32_t up;           /* children that are set up */
    uint64_t settle_until_ms; /* found at the start: workers come back, all is shared out anew */
    uint8_t owner[16];        /* session that took it over */
    bool has_owner;           /* that is known, and durable */
    uint64_t orphan_at_ms; /* UINT64_MAX: its client is there, or it is detached */
    struct hp_list nodes, waits;
    struct hp_list lanes; /* of hp_lane.pool_link */
    struct hp_bin *contents; /* keys of its contents in `ukeys`; owned */
    uint32_t content_count, content_capacity;
    char error[1024];
};

/* ------------------------------------------------ pool.c */
struct hp_pool *hp_pool_find(const struct hp_core *core, uint64_t id);
/* Finds or makes it, not loaded: at the start. */
struct hp_pool *hp_pool_found(struct hp_core *core, uint64_t id);
/* A pool that was just submitted; takes a reference to spec and session. */
void hp_pool_open(struct hp_core *core, uint64_t id, struct hp_spec *spec,
                  struct hp_session *session, struct hp_bin payload, uint64_t blob);
void hp_pool_free(struct hp_core *core, struct hp_pool *pool); /* memory only */
void hp_pool_recover(struct hp_core *core, const struct hp_side *side);
void hp_pools_loaded(struct hp_core *core, struct hp_pending *pending,
                     const struct hp_loaded *loaded);
/* Its side row is written when the turn ends. */
void hp_pool_store(struct hp_core *core, struct hp_pool *pool);
void hp_pools_flush(struct hp_core *core);
/* Calls that have not ended. */
uint64_t hp_pool_live(const struct hp_pool *pool);
/* Tasks of the lane began (or ceased) to wait in rows of their own: queue and pool count them. */
void hp_lane_delayed(struct hp_core *core, struct hp_lane *lane, uint32_t count);
void hp_lane_undelayed(struct hp_core *core, struct hp_lane *lane, uint32_t count);
/* Something changed that orders, ends or waits may depend on. */
void hp_pools_touch(struct hp_core *core);
/* The same, and grants, too. */
void hp_pools_dirty(struct hp_core *core);
/* The pass over all pools, if something changed or is due. */
void hp_pools_run(struct hp_core *core);
uint64_t hp_pools_deadline_ms(const struct hp_core *core);
void hp_pools_free_all(struct hp_core *core);
/* Remembers a key of contents. */
void hp_pool_content(struct hp_pool *pool, struct hp_bin key);
/* True: the key is one of a pool (no user's unique key begins so), and that is taken note of. */
bool hp_pool_recover_key(struct hp_core *core, struct hp_bin key, uint64_t id);
/* Keys of a pool in the table of unique keys: NUL, what it is, the pool's id, more bytes. */
enum { HP_POOL_KEY_CONTENT = 'p', HP_POOL_KEY_OWNER = 'o' };
struct hp_bin hp_pool_key(struct hp_core *core, uint8_t what, uint64_t pool, struct hp_bin more);
/* Makes the session its owner; NULL: nobody. */
void hp_pool_own(struct hp_core *core, struct hp_pool *pool, struct hp_session *session);
/* Keeps a text, cut at a character if it is too long. */
void hp_pool_set_text(char *out, size_t size, struct hp_str text);
/* Its session, another than that of its submit, becomes durable. */
void hp_pool_set_owner(struct hp_core *core, struct hp_pool *pool);
/* Its keys go. */
void hp_pool_drop_keys(struct hp_core *core, struct hp_pool *pool);

/* ------------------------------------------------ pool_grant.c: who has how many children */
/* Finds or makes it. */
struct hp_pool_node *hp_pool_node_of(struct hp_pool *pool, struct hp_node *node);
void hp_pool_node_free(struct hp_pool_node *entry);
struct hp_pool_node *hp_pool_node_find(const struct hp_pool *pool, const struct hp_node *node);
void hp_pool_regrant(struct hp_core *core, struct hp_pool *pool);
void hp_pool_send_orders(struct hp_core *core, struct hp_pool *pool);
/* The worker has registered: it is told all that concerns it. */
void hp_pools_node_registered(struct hp_core *core, struct hp_node *node);
/* All pools are loaded and named: workers are told so. */
void hp_pools_complete(struct hp_core *core);
/* Its lease ran out, or it began anew. */
void hp_pools_node_lost(struct hp_core *core, struct hp_node *node);
uint32_t hp_pool_processes(const struct hp_pool *pool);
/* Calls of the class that the node may take now; depth: calls for each child that it is to have;
 * 0: one for each that is there. */
uint32_t hp_pool_room(const struct hp_core *core, const struct hp_class *class_,
                      const struct hp_node *node, uint32_t depth);
/* Can the worker have children of it at all? */
bool hp_pool_suits(const struct hp_pool *pool, const struct hp_node *node);
/* Sentences on options of a new pool, NULL: fine. `text` is for the sentence. *ret_code: what kind
 * of trouble it is. */
const char *hp_pool_check(struct hp_core *core, const struct hp_spec *spec,
                          enum hp_rpc_error_code *ret_code, char *text, size_t size);

/* An attempt of a call begins or ends at a worker. */
void hp_pool_attempt(struct hp_core *core, struct hp_attempt *attempt, bool begins);
/* Are calls of the class given to this worker? */
bool hp_pool_is_granted(const struct hp_core *core, const struct hp_class *class_,
                        const struct hp_node *node);

/* ------------------------------------------------ pool_end.c */
/* Why calls fail that did not end before their pool. */
enum hp_reason hp_pool_reason(const struct hp_pool *pool);
/* The same in an end that fails because of the pool of its spec. */
void hp_pool_fill_finish(struct hp_core *core, struct hp_finish *finish);
/* Part of the live tasks were looked at for its delayed calls. */
void hp_pool_scanned(struct hp_core *core, struct hp_pending *pending,
                     const struct hp_loaded *loaded);
/* The store answered for the lane. */
void hp_pool_lane_loaded(struct hp_core *core, const struct hp_lane *lane);
/* Tasks of `spec` have ended. */
void hp_pool_calls_ended(struct hp_core *core, const struct hp_spec *spec, uint32_t count);
void hp_pool_close(struct hp_core *core, struct hp_pool *pool);
void hp_pool_terminate(struct hp_core *core, struct hp_pool *pool);
void hp_pool_break(struct hp_core *core, struct hp_pool *pool);
/* Ends what waits, a slice of it; true: the pool has ended and is freed. */
bool hp_pool_end_step(struct hp_core *core, struct hp_pool *pool);

/* ------------------------------------------------ on_pool.c */
void hp_pool_answer_waits(struct hp_core *core, struct hp_pool *pool);
/* The pool of the request is not in memory: whether it has ended, and how, is in the store. */
void hp_pool_ask_ended(struct hp_request *request, uint64_t id);
void hp_pool_ended_loaded(struct hp_core *core, struct hp_pending *pending,
                          const struct hp_loaded *loaded);
/* on_submit.c: calls of a pool that has ended (of none: `text` is NULL) are refused. */
void hp_submit_pool_ended(struct hp_request *request, const char *text);
void hp_on_pool_info(struct hp_request *request);
void hp_on_pool_list(struct hp_request *request);
void hp_on_pool_end(struct hp_request *request);
void hp_on_pool_detach(struct hp_request *request);
void hp_on_pool_put(struct hp_request *request);
void hp_on_pool_get(struct hp_request *request);
void hp_on_worker_pool_report(struct hp_request *request);

#endif
