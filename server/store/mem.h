/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside of the memory store: sorted arrays, searched as plainly as can be. Internal to mem*.c. */
#ifndef HP_SERVER_STORE_MEM_H
#define HP_SERVER_STORE_MEM_H

#include "server/store/store.h"

/* Items sorted by a number; owns them (one heap block each). */
struct hp_mem_slot {
    uint64_t key;
    void *item;
};
struct hp_mem_vec {
    struct hp_mem_slot *slots;
    uint32_t count;
    uint32_t capacity;
};

/* Index of the first slot with a key above `key`. */
uint32_t hp_mem_above(const struct hp_mem_vec *vec, uint64_t key);
void *hp_mem_find(const struct hp_mem_vec *vec, uint64_t key);
/* Item with the greatest key <= `key`, or NULL. */
void *hp_mem_floor(const struct hp_mem_vec *vec, uint64_t key);
/* Replaces (and frees) an item of the same key. */
void hp_mem_put(struct hp_mem_vec *vec, uint64_t key, void *item);
bool hp_mem_remove(struct hp_mem_vec *vec, uint64_t key);
void hp_mem_remove_at(struct hp_mem_vec *vec, uint32_t index);
void hp_mem_clear(struct hp_mem_vec *vec);

/* Rows keyed by bytes, sorted by them. */
struct hp_mem_named {
    struct hp_bin key;
    struct hp_bin state;
    int64_t number; /* ukey: id; session: seen_at_ms */
};
struct hp_mem_names {
    struct hp_mem_named **items;
    uint32_t count;
    uint32_t capacity;
};

struct hp_mem_group {
    uint64_t first;
    uint32_t count;
    uint32_t lane;
    int64_t created_at_ms;
    struct hp_bin session, options, pack; /* behind the struct */
};
struct hp_mem_segment {
    uint32_t run_count;
    struct hp_id_run runs[];
};
struct hp_mem_lane {
    uint64_t head_segment, next_segment, ready_count;
    struct hp_bin key; /* a block of its own */
    struct hp_mem_vec segments;
};
struct hp_mem_leases {
    uint64_t batch;
    uint32_t count;
    struct hp_lease leases[];
};
struct hp_mem_node {
    struct hp_bin name, boot, state; /* behind the struct */
};
struct hp_mem_tomb {
    uint64_t first;
    uint32_t count;
    int64_t until_ms;
    uint8_t states[]; /* one each */
};

struct hp_mem {
    struct hp_store base;
    struct hp_mem_vec groups;   /* hp_mem_group by first */
    struct hp_mem_vec results;  /* hp_result by first, end record behind the struct */
    struct hp_mem_vec lanes;    /* hp_mem_lane by lane */
    struct hp_mem_vec leases;   /* hp_mem_leases by batch */
    struct hp_mem_vec sides;    /* hp_side by first, all but EXPIRY */
    struct hp_mem_vec expiries; /* hp_side by first */
    struct hp_mem_vec nodes;    /* hp_mem_node by number */
    struct hp_mem_vec blobs;    /* uint64_t owner by blob */
    struct hp_mem_vec tombs;    /* hp_mem_tomb by first */
    struct hp_mem_vec forgotten; /* a byte by id: ended, forgotten, of a group that stays */
    struct hp_id_span *forgets;  /* to be done when idle */
    uint32_t forget_count, forget_capacity;
    int64_t forget_wall_ms;
    struct hp_mem_names ukeys, sessions, queues;
    uint64_t epoch, next_id, next_blob, grace_ms, last_batch;
    uint64_t reaped;
    int64_t reap_wall_ms;
    bool reap_due, keep_sessions;
};

struct hp_mem_named *hp_mem_names_find(const struct hp_mem_names *names, struct hp_bin key,
                                       uint32_t *ret_index);

/* The row that holds an id, or NULL. */
struct hp_mem_group *hp_mem_group_of(const struct hp_mem *mem, uint64_t id);
struct hp_result *hp_mem_result_of(const struct hp_mem *mem, uint64_t id);
struct hp_side *hp_mem_side_of(const struct hp_mem *mem, uint64_t id);
struct hp_mem_tomb *hp_mem_tomb_of(const struct hp_mem *mem, uint64_t id);

bool hp_mem_load(struct hp_store *store, struct hp_loaded *loaded);
enum hp_err hp_mem_recover(struct hp_store *store, hp_record_fn *fn, void *context,
                           struct hp_error *reterr);
enum hp_err hp_mem_idle(struct hp_store *store, bool *ret_more, struct hp_error *reterr);

#endif
