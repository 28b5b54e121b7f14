/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the pool object share. Each call on its way has a cell, which is the user
 * pointer of its task in the hub.
 */
#ifndef HP_CLIENT_POOL_STATE_H
#define HP_CLIENT_POOL_STATE_H

#include <stdatomic.h>

#include "client/hub.h"

struct hp_pool_cell {
    /* The end of the call; on the pumping thread, once. The cell may be freed. */
    void (*ended)(struct hp_pool_cell *cell, const struct hp_hub_end *end);
    atomic_uint_fast64_t id; /* 0: not known yet */
};

enum hp_pool_run { HP_POOL_RUNNING, HP_POOL_CLOSED, HP_POOL_TERMINATED };

struct hp_pool {
    struct hp_hub *hub;
    struct hp_client_options client_options;
    uint64_t id;
    struct hp_options call; /* of each call but fn; strings owned */
    struct hp_pool_arena *strings;
    bool is_owned;
    atomic_int run; /* enum hp_pool_run */
    atomic_bool is_detached;
};

/* OK, or ILLEGAL_STATE: the pool is not running. */
enum hp_status hp_pool_check(struct hp_pool *pool);
/* Submits calls; users point to their cells. */
enum hp_status hp_pool_submit(struct hp_pool *pool, const char *fn, const struct hp_bytes *payloads,
                              uint32_t count, void *const *users, int64_t timeout_ms);
/* The result of an end, owned: hp_result_free; takes a fetched buffer over. NULL: out of memory, or
 * there is none (end->status). */
struct hp_result *hp_pool_take_result(const struct hp_hub_end *end);
/* hp_hub_wait, or TIMEOUT with a text. */
enum hp_status hp_pool_wait(struct hp_pool *pool, bool (*done)(void *), void *arg,
                            int64_t timeout_ms);

#endif
