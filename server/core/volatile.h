/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tasks that are not durable: submitted with durable=false, kept in memory only. Part of the core's
 * state (state.h includes this). docs/volatile.md has the rules as clients see them.
 *
 * They use lanes, attempts and parked tasks as others do, but lanes of their own (lane->in_memory),
 * no lease, and nothing of them is an op. What a store row is for others is here:
 *  - hp_vgroup: a submit, from its first to its last task's being forgotten;
 *  - hp_vend: how one of its tasks ended;
 *  - hp_vtimer: what waits for a time;
 *  - hp_vblob: a large payload or result.
 *
 * Invariants (hp_core_check):
 *  V1 a task of a vgroup has ended (ends[i] != NULL), or is in one of: attempts, parked,
 *     `returned`, its lane's runs, or its group is delayed.
 *  V2 bytes is the sum of what hp_vgroup_bytes, hp_vend_bytes, groups in memory and blobs take.
 */
#ifndef HP_SERVER_CORE_VOLATILE_H
#define HP_SERVER_CORE_VOLATILE_H

#include "common/base/heap.h"
#include "common/base/idmap.h"
#include "common/base/list.h"
#include "server/core/op.h"

struct hp_core;
struct hp_spec;
struct hp_session;
struct hp_finish;
struct hp_queue;
struct hp_attempt;
struct hp_request;
struct hp_conn;
struct hp_event;

/* Ids of blobs in memory: this bit, the epoch, a counter; so none is ever given out twice. */
#define HP_VBLOB_BIT ((uint64_t)1 << 62)

struct hp_vend {
    struct hp_list link; /* hp_volatile.ends: oldest first */
    struct hp_vgroup *group;
    uint32_t index;
    uint32_t state, reason, attempt, failures, losses, node;
    int64_t started_at_ms, ended_at_ms;
    uint64_t ended_ms; /* monotonic */
    uint32_t end_size;
    uint8_t end[];
};

enum hp_vtimer_kind { HP_VTIMER_RETURNED = 1, HP_VTIMER_DELAY, HP_VTIMER_EXPIRY };

struct hp_vtimer {
    struct hp_heap_node heap_node;
    enum hp_vtimer_kind kind;
    struct hp_vgroup *group;
    uint64_t id;       /* RETURNED: the task; else the first of the group */
    int64_t run_at_ms; /* wall clock */
    uint32_t attempt, failures, losses, releases, reason;
};

struct hp_vgroup {
    uint64_t first;
    uint32_t count, ended, gone; /* ended: with those gone */
    bool has_files;              /* a blob of it is a file */
    struct hp_group *payloads;   /* counted; NULL: all have ended */
    struct hp_spec *spec;        /* counted */
    struct hp_session *session;  /* counted; NULL: none, or all have ended */
    int64_t created_at_ms, last_end_ms;
    struct hp_vtimer *delay, *expiry; /* or NULL */
    struct hp_vend *ends[];           /* NULL: lives; hp_vend_gone: forgotten, or dropped */
};

struct hp_vblob {
    uint64_t id;
    uint64_t size, written;
    uint64_t owner;     /* task; 0: none yet */
    bool is_payload; /* of its owner */
    bool is_kept;    /* the blob thread has its bytes, in a descriptor */
    bool is_coming;  /* kept, and the blob thread has not said yet that it is */
    uint64_t used_ms;   /* monotonic, while it has no owner */
    void *digest_state; /* until it is whole */
    uint64_t digest;
    struct hp_vblob *next_owned;
    struct hp_list idle_link; /* hp_volatile.blob_idle: no owner, least recently used first */
    uint8_t data[];
};

struct hp_vslot {
    uint64_t first;
    struct hp_vgroup *group; /* NULL: it is gone */
};

struct hp_volatile {
    struct hp_vslot *slots; /* by first id, rising */
    uint32_t slot_count, slot_capacity, live_count;
    uint64_t task_count; /* of all vgroups */
    uint64_t bytes;
    struct hp_list ends;
    uint64_t end_count;
    struct hp_heap timers;
    struct hp_idmap returned; /* task id -> hp_vtimer */
    struct hp_idmap blobs;    /* id -> hp_vblob */
    struct hp_idmap owned;    /* task id -> chain of hp_vblob */
    struct hp_list blob_idle;
    uint64_t next_blob;
    uint32_t sweep_slot;
    uint64_t next_sweep_ms;
    uint32_t effects_seen; /* effects of this turn that were looked at for loads */
    uint64_t dropped;      /* results that made room for others, since start */
};

/* What clients forgot and the store has not been told yet. */
struct hp_forgets {
    struct hp_id_span *spans;
    uint32_t count, capacity;
    uint64_t next_ms; /* not with a batch of others before */
};

/* ------------------------------------------------ volatile.c */
void hp_volatile_init(struct hp_core *core, uint64_t seed);
void hp_volatile_free_all(struct hp_core *core);
struct hp_vgroup *hp_volatile_group(const struct hp_core *core, uint64_t id);
/* Index of the first slot whose group may end above `id`. */
uint32_t hp_volatile_slot(const struct hp_core *core, uint64_t id);
bool hp_vend_is_gone(const struct hp_vend *end);
size_t hp_vgroup_bytes(const struct hp_vgroup *group);
size_t hp_vend_bytes(const struct hp_vend *end);
/* Room for `bytes` more; results that are told may be dropped for it. */
bool hp_volatile_has_room(struct hp_core *core, uint64_t bytes);
/* Keeps a submit and puts its tasks in line. blobs: one each, or NULL. */
void hp_volatile_submit(struct hp_core *core, struct hp_spec *spec, struct hp_session *session,
                        uint64_t first, uint32_t count, struct hp_bin pack, const uint64_t *blobs);
/* True: what is told of the ids below last_id needs no commit. */
bool hp_volatile_is_now(const struct hp_core *core, const struct hp_spec *spec, uint64_t last_id);
void hp_volatile_finish(struct hp_core *core, const struct hp_finish *finish);
void hp_volatile_finished(struct hp_core *core, uint64_t first); /* after it was told */
void hp_volatile_return(struct hp_core *core, struct hp_attempt *attempt, int64_t run_at_ms,
                        uint32_t reason);
/* Ends waiting tasks of one group that wait in the same way. */
void hp_volatile_cancel(struct hp_core *core, uint64_t first, uint32_t count, uint32_t state);
/* Forgets what has ended of [first, end). */
void hp_volatile_forget(struct hp_core *core, uint64_t first, uint64_t end);
void hp_volatile_due(struct hp_core *core);
uint64_t hp_volatile_deadline_ms(const struct hp_core *core);
uint64_t hp_volatile_delayed(const struct hp_core *core, const struct hp_queue *queue);

/* ------------------------------------------------ vload.c: loads, answered or completed here */
/* Answers loads about ids that are all known here; the store is not asked. */
void hp_volatile_loads(struct hp_core *core);
/* Adds what the store does not know to an answer of it. The result is the step's. */
const struct hp_loaded *hp_volatile_complete(struct hp_core *core, const struct hp_loaded *loaded);
void hp_loaded_take(struct hp_core *core, const struct hp_loaded *loaded); /* core.c */

/* ------------------------------------------------ vblob.c */
/* Each is true if the request was answered here. */
bool hp_vblob_open(struct hp_request *request, uint64_t size);
bool hp_vblob_put(struct hp_request *request, const struct hp_msg_blob_put *msg);
bool hp_vblob_get(struct hp_request *request, const struct hp_msg_blob_get *msg);
bool hp_vblob_give(struct hp_request *request, const struct hp_msg_blob_give *msg);
bool hp_vblob_lend(struct hp_request *request, uint64_t blob);
/* The answer to hp_vblob_give's: HP_OK if the blob is here now. `conn` NULL: nobody wants it. */
enum hp_err hp_vblob_given(struct hp_core *core, const struct hp_conn *conn,
                           const struct hp_event *event);
bool hp_vblob_is_id(uint64_t blob);
/* True if it is here, and whole. */
bool hp_vblob_is_whole(const struct hp_core *core, uint64_t blob);
/* Makes the blob the task's: it goes with it. A file is noted for the store. */
void hp_vblob_adopt(struct hp_core *core, uint64_t blob, uint64_t task, bool is_payload);
/* The task has ended: nobody fetches its payload any more. */
void hp_vblob_drop_payload(struct hp_core *core, uint64_t task);
void hp_vblob_drop_owned(struct hp_core *core, uint64_t task);
void hp_vblob_expire(struct hp_core *core);
void hp_vblob_free_all(struct hp_core *core);

/* ------------------------------------------------ forget.c */
void hp_on_task_forget(struct hp_request *request);
void hp_forget_add(struct hp_core *core, uint64_t first, uint64_t end);
void hp_forget_flush(struct hp_core *core, bool now);

#endif
