/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hostpool_pool.h: pools. Included by hostpool.h, which is the header to include.
 */
#ifndef HOSTPOOL_POOL_H
#define HOSTPOOL_POOL_H

#include <hostpool_values.h>

#ifdef __cplusplus
extern "C" {
#endif

struct hp_client;
struct hp_buffer;

/* ---------------------------------------------------------------- pools by id */
/*
 * Blocking calls of a client (rules and errors as in hostpool.h, "blocking: tasks") about pools by
 * their id. A pool is made by hp_submit (kind HP_KIND_POOL), is waited for by hp_wait and cancelled
 * by hp_cancel; calls are submitted with kind HP_KIND_CALL and options.pool. NOT_FOUND: there is no
 * such pool.
 */

struct hp_pool_info {
    uint64_t id;
    enum hp_pool_phase phase;
    uint32_t processes; /* children it is to have now, over all workers */
    uint64_t live;      /* calls that have not ended */
    bool detached;      /* it lives on without its client */
    const char *error;  /* why its children cannot be set up, and where; or NULL */
    struct hp_pool_child {
        const char *node;
        uint32_t pid;
    } *children; /* that are set up; 4096 at most */
    size_t child_count;
};
HP_API void hp_pool_info_free(struct hp_pool_info *info); /* NULL is fine */
/* wait_ms (at most timeout_ms counts): wait for a child to be set up, the pool to be broken, or its
 * end. *ret_info: hp_pool_info_free. */
HP_API enum hp_status hp_pool_query(struct hp_client *client, uint64_t id, uint64_t wait_ms,
                                    int64_t timeout_ms, struct hp_pool_info **ret_info);

/* Pools that have not ended, by id; owned by the caller: hp_pool_list_free. */
struct hp_pool_list {
    struct hp_pool_entry {
        uint64_t id;
        enum hp_pool_phase phase;
        const char *name;     /* or NULL, as the next ones */
        const char *user;
        const char *language; /* what its children run */
        const char *error;    /* why its children cannot be set up */
        uint32_t processes;   /* children it is to have now, over all workers */
        uint32_t children;    /* that are set up */
        uint64_t live;        /* calls that have not ended */
        uint64_t running;     /* calls at workers */
        bool detached;        /* it lives on without a client */
        bool owned;           /* its client is connected */
        int64_t created_at_ms;
    } *pools;
    size_t count;
    uint64_t next; /* pass as after for the next page; 0: no more */
};
HP_API void hp_pool_list_free(struct hp_pool_list *list); /* NULL is fine */
/* A page of pools with ids above `after` (0: from the first). */
HP_API enum hp_status hp_pool_list(struct hp_client *client, uint64_t after, int64_t timeout_ms,
                                   struct hp_pool_list **ret_list);
/* Closes or terminates it; durable when it returns. ret_phase may be NULL. */
HP_API enum hp_status hp_pool_end(struct hp_client *client, uint64_t id, enum hp_pool_how how,
                                  int64_t timeout_ms, enum hp_pool_phase *ret_phase);
/* on: it lives on without this client. Off: it is this client's from now on. */
HP_API enum hp_status hp_pool_set_detached(struct hp_client *client, uint64_t id, bool on,
                                           int64_t timeout_ms);
/*
 * Content of a pool: bytes (code, constants) that its children get by a digest, 16 to 32 bytes of a
 * hash that the caller makes. put sends the bytes only if the broker does not have them; *ret_known
 * (may be NULL) says whether it had. get: *ret_buffer, hp_buffer_clear.
 */
HP_API enum hp_status hp_pool_put(struct hp_client *client, uint64_t id, struct hp_bytes digest,
                                  struct hp_bytes data, int64_t timeout_ms, bool *ret_known);
HP_API enum hp_status hp_pool_content(struct hp_client *client, uint64_t id, struct hp_bytes digest,
                                      int64_t timeout_ms, struct hp_buffer *ret_buffer);

/* The results of these tasks are not needed any more: the broker may drop their rows now. Sent with
 * what is sent next; a hint, without an answer. Errors: BAD_ARGUMENT, NO_MEMORY. */
HP_API enum hp_status hp_forget(struct hp_client *client, const struct hp_ids *ids,
                                size_t id_count);

#ifdef __cplusplus
}
#endif
#endif
