/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hostpool_pool.h: pools, in two layers: blocking calls on a client about pools by id, and objects
 * after multiprocessing.Pool. Included by hostpool.h, which is the header to include.
 */
#ifndef HOSTPOOL_POOL_H
#define HOSTPOOL_POOL_H

#include <hostpool.h>

#ifdef __cplusplus
extern "C" {
#endif

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

/* ---------------------------------------------------------------- pools as objects */
/*
 * struct hp_pool follows Python's multiprocessing.Pool by name and rule, across hosts. It has a
 * connection and a thread of its own, so these rules differ from those of hostpool.h:
 *
 *  - Threads: all functions on one pool and its results may be called by several threads at once,
 *    except the _release functions, which must be the last call on their object.
 *  - Callbacks run on the pool's thread, or on a thread that waits in a function of the same pool.
 *    They may call all functions of the pool but must be short: other results wait meanwhile. They
 *    must not release the pool.
 *  - Fork: a pool is the parent's. In the child use only the _release functions.
 *  - Signals: the pool's thread blocks all of them.
 *
 * A call runs a function that the workers' modules export, by name, in a child of the pool; its
 * payload and result are bytes (MessagePack by custom; of hp_pool_starmap an array of arguments).
 * Differences from Python: an initializer is a function of the module as well; there is no
 * chunksize, because a chunk here is a message of many tasks, made unasked, and each item stays a
 * task with an end of its own (so max_tasks_per_child counts items, and an error does not stop the
 * items behind it); hp_pool_terminate ends outstanding results (HP_END_POOL_ENDED) instead of
 * leaving them for ever; a child that dies costs its call only; imap has a bounded window. A failed
 * call is not an error of the function that hands over its result: look at task.state, or ask
 * hp_result_successful.
 *
 * Timeouts are in ms (see HP_TIMEOUT_DEFAULT, HP_TIMEOUT_NONE). Errors are told as in hostpool.h,
 * the sentence by hp_pool_error. ILLEGAL_STATE: the pool is not running any more.
 */
struct hp_pool;

struct hp_pool_options {
    const struct hp_client_options *client; /* NULL: defaults; lent for the call */
    uint32_t processes;           /* children over all workers; 0: one for each slot of each worker,
                                     following them as they come and go */
    const char *initializer;      /* function that sets up each child; NULL: none */
    struct hp_bytes initargs;     /* its payload */
    uint64_t max_tasks_per_child; /* then a child is replaced; 0: never */
    const char *language;         /* NULL: "c" */
    bool durable;                 /* default true. false: calls are kept in memory, see options */
    const char *name;             /* for people */
    uint64_t orphan_ms;           /* so long without its client and it is ended; default 60,000 */
    struct hp_options call;       /* of each call: timeouts, retries, priority ... kind, pool, fn
                                     and durable are set by the pool */
    uint64_t reserved[8];         /* must be 0 */
};
HP_API void hp_pool_options_init(struct hp_pool_options *options);

/*
 * Makes a pool. options may be NULL. *ret_pool is set on errors too, unless memory was short: for
 * hp_pool_error and hp_pool_release. Errors: UNSUPPORTED (no worker offers the language),
 * BAD_REQUEST (more processes than the workers take), UNREACHABLE ...
 */
HP_API enum hp_status hp_pool_create(const struct hp_pool_options *options, int64_t timeout_ms,
                                     struct hp_pool **ret_pool);
/* Uses a pool that another process made, by its id; it is not owned, and not ended by _release. */
HP_API enum hp_status hp_pool_attach(const struct hp_pool_options *options, uint64_t id,
                                     int64_t timeout_ms, struct hp_pool **ret_pool);
/*
 * Frees it. One that is neither closed, terminated nor detached is terminated, as by Python's
 * `with`. Calls whose handle was released and that have not ended are called back with an error
 * (their callbacks must not use the pool any more). Results and iterators of the pool must have
 * been released before. NULL is fine.
 */
HP_API void hp_pool_release(struct hp_pool *pool);
HP_API uint64_t hp_pool_id(const struct hp_pool *pool);
/* The sentence for the last error of a function of a pool on this thread. */
HP_API const char *hp_pool_error(const struct hp_pool *pool);
/* hp_pool_query of it. */
HP_API enum hp_status hp_pool_info(struct hp_pool *pool, int64_t timeout_ms,
                                   struct hp_pool_info **ret_info);

/* No new calls; those submitted are run. Idempotent. */
HP_API enum hp_status hp_pool_close(struct hp_pool *pool, int64_t timeout_ms);
/* No new calls; waiting ones are dropped, running ones killed: their results fail. */
HP_API enum hp_status hp_pool_terminate(struct hp_pool *pool, int64_t timeout_ms);
/* Waits until it has ended, after close or terminate; before: ILLEGAL_STATE. TIMEOUT. */
HP_API enum hp_status hp_pool_join(struct hp_pool *pool, int64_t timeout_ms);
/* It lives on without this process, until somebody closes it. */
HP_API enum hp_status hp_pool_detach(struct hp_pool *pool, int64_t timeout_ms);

/* ---------------------------------------------------------------- results of calls */

/* A call, or the calls of a map, on their way: multiprocessing's AsyncResult. */
struct hp_async;

/* Called once, before hp_result_ready turns true; result is lent. */
typedef void (*hp_result_fn)(void *context, struct hp_async *result);
struct hp_result_callbacks {
    hp_result_fn success; /* all calls are done; or NULL */
    hp_result_fn error;   /* a call has failed; or NULL */
    void *context;
};

/*
 * apply: one call, and waits for it. *ret_result is owned: hp_result_free.
 * apply_async: *ret_result (may be NULL: only callbacks) is to be released. callbacks may be NULL.
 * payload may be NULL (empty). Bytes are copied. They wait while the window is full, up to the
 * client's timeout.
 */
HP_API enum hp_status hp_pool_apply(struct hp_pool *pool, const char *fn,
                                    const struct hp_bytes *payload, int64_t timeout_ms,
                                    struct hp_result **ret_result);
HP_API enum hp_status hp_pool_apply_async(struct hp_pool *pool, const char *fn,
                                          const struct hp_bytes *payload,
                                          const struct hp_result_callbacks *callbacks,
                                          struct hp_async **ret_result);
/* map: one call for each input; results in their order; owned: hp_map_results_free. starmap is the
 * same, for functions whose payload is an array of arguments. */
HP_API enum hp_status hp_pool_map(struct hp_pool *pool, const char *fn,
                                  const struct hp_bytes *inputs, size_t count, int64_t timeout_ms,
                                  struct hp_map_results **ret_results);
HP_API enum hp_status hp_pool_starmap(struct hp_pool *pool, const char *fn,
                                      const struct hp_bytes *inputs, size_t count,
                                      int64_t timeout_ms, struct hp_map_results **ret_results);
HP_API enum hp_status hp_pool_map_async(struct hp_pool *pool, const char *fn,
                                        const struct hp_bytes *inputs, size_t count,
                                        const struct hp_result_callbacks *callbacks,
                                        struct hp_async **ret_result);
HP_API enum hp_status hp_pool_starmap_async(struct hp_pool *pool, const char *fn,
                                            const struct hp_bytes *inputs, size_t count,
                                            const struct hp_result_callbacks *callbacks,
                                            struct hp_async **ret_result);

/* Takes up a call by its id, perhaps of another process. NOT_FOUND comes with the result. */
HP_API enum hp_status hp_result_attach(struct hp_pool *pool, uint64_t id,
                                       const struct hp_result_callbacks *callbacks,
                                       struct hp_async **ret_result);
/* Gives the handle back. What has not ended goes on, and is called back. NULL is fine. */
HP_API void hp_result_release(struct hp_async *result);

/*
 * Waits and lends the result of the call (of a map: of its first one), the same each time, until
 * the handle is released. Errors: TIMEOUT; what kept the call from having a result: BROKER_LOST,
 * NOT_FOUND, DAMAGED, and errors of the submit.
 */
HP_API enum hp_status hp_result_get(struct hp_async *result, int64_t timeout_ms,
                                    const struct hp_result **ret_result);
/* The same for all calls of a map; entries are NULL where there is no result, and the first error
 * is returned. */
HP_API enum hp_status hp_result_get_all(struct hp_async *result, int64_t timeout_ms,
                                        const struct hp_map_results **ret_results);
/* Waits until all calls have ended: true. */
HP_API bool hp_result_wait(struct hp_async *result, int64_t timeout_ms);
HP_API bool hp_result_ready(const struct hp_async *result);
/* Are all of them done without failure? ILLEGAL_STATE: not ready yet. */
HP_API enum hp_status hp_result_successful(const struct hp_async *result, bool *ret_successful);
/* Index of the failed call that ended first; count if there is none so far. */
HP_API size_t hp_result_first_failed(const struct hp_async *result);
HP_API size_t hp_result_count(const struct hp_async *result);
/* Task id of a call, once the broker has it (durably, if the pool is): 0 before. */
HP_API uint64_t hp_result_id(const struct hp_async *result, size_t index);
/* Waits until all ids are known: true. */
HP_API bool hp_result_wait_accepted(struct hp_async *result, int64_t timeout_ms);
/* Cancels what has not ended: TERM, and KILL after grace_ms. */
HP_API enum hp_status hp_result_cancel(struct hp_async *result, uint64_t grace_ms,
                                       int64_t timeout_ms);

/* ---------------------------------------------------------------- imap */

struct hp_imap; /* used by one thread at a time */

struct hp_imap_options {
    uint64_t window; /* calls submitted and not yet handed over; default 1024 */
    bool unordered;  /* hand over results as they come */
    uint64_t reserved[4];
};
HP_API void hp_imap_options_init(struct hp_imap_options *options);

/*
 * Calls fn for each input and hands the results over one by one. input (see hp_map_input_fn) is
 * called from hp_pool_imap and hp_imap_next only, when there is room in the window, so it is slowed
 * down to the pace at which results are taken. imap_unordered is imap with options.unordered.
 */
HP_API enum hp_status hp_pool_imap(struct hp_pool *pool, const char *fn, hp_map_input_fn input,
                                   void *context, const struct hp_imap_options *options,
                                   struct hp_imap **ret_imap);
HP_API enum hp_status hp_pool_imap_unordered(struct hp_pool *pool, const char *fn,
                                             hp_map_input_fn input, void *context,
                                             struct hp_imap **ret_imap);
/* An iterator over calls that exist, by what hp_imap_ids gave, perhaps in another process. */
HP_API enum hp_status hp_pool_imap_resume(struct hp_pool *pool, const struct hp_ids *ids,
                                          size_t id_count, const struct hp_imap_options *options,
                                          struct hp_imap **ret_imap);
/*
 * The next result: OK and *ret_result, lent until the next call, with the index of its input
 * (ret_index may be NULL); OK and NULL at the end. TIMEOUT: call again. STOPPED: input said so;
 * results of what was submitted still come with the next calls. Other errors are of this one
 * input: go on.
 */
HP_API enum hp_status hp_imap_next(struct hp_imap *imap, int64_t timeout_ms, uint64_t *ret_index,
                                   const struct hp_result **ret_result);
/* Ids of the calls that were not handed over yet, in the order of inputs; waits until the broker
 * has them. hp_id_list_clear. */
HP_API enum hp_status hp_imap_ids(struct hp_imap *imap, int64_t timeout_ms,
                                  struct hp_id_list *ret_ids);
/* Ends it; calls that are outstanding go on. NULL is fine. */
HP_API void hp_imap_release(struct hp_imap *imap);

#ifdef __cplusplus
}
#endif
#endif
