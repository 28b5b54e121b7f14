/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Results of calls on their way. A handle is shared by the caller and the calls: it is freed when
 * all of them have let it go. What a call leaves is written on the pumping thread before `ready`
 * turns true, and read after that only.
 */
#include <stdio.h>
#include <string.h>

#include "client/hub_state.h"
#include "client/pool_state.h"
#include "common/base/assert.h"
#include "common/base/mem.h"

#define APPLY_TIMEOUT HP_TIMEOUT_DEFAULT

struct call {
    struct hp_pool_cell cell;
    struct hp_async *async;
    enum hp_status status;
};

struct hp_async {
    struct hp_pool *pool;
    atomic_uint ref_count;
    size_t count;
    atomic_size_t left;
    atomic_size_t first_failed;
    atomic_bool ready;
    struct hp_result_callbacks callbacks;
    struct hp_map_results results;
    void *_Atomic caller;  /* the thread that runs a callback */
    enum hp_status status; /* of the first call without a result */
    atomic_bool has_text;
    char text[256];
    struct call calls[];
};

static void unref(struct hp_async *async, unsigned count)
{
    if (atomic_fetch_sub(&async->ref_count, count) != count) {
        return;
    }
    for (size_t i = 0; i < async->count; i++) {
        hp_result_free(async->results.results[i]);
    }
    hp_free(async->results.results);
    hp_free(async);
}

static void all_ended(struct hp_async *async)
{
    bool failed = atomic_load(&async->first_failed) < async->count;
    hp_result_fn fn = failed ? async->callbacks.error : async->callbacks.success;

    for (size_t i = 0; i < async->count; i++) {
        const struct hp_result *result = async->results.results[i];

        async->results.failed += result == NULL || result->task.state != HP_STATE_DONE ? 1 : 0;
        if (result == NULL && async->status == HP_STATUS_OK) {
            async->status = async->calls[i].status;
        }
    }
    if (fn != NULL) {
        atomic_store(&async->caller, hp_hub_self());
        fn(async->callbacks.context, async);
        atomic_store(&async->caller, NULL);
    }
    atomic_store(&async->ready, true);
}

static void on_ended(struct hp_pool_cell *cell, const struct hp_hub_end *end)
{
    struct call *call = HP_CONTAINER_OF(cell, struct call, cell);
    struct hp_async *async = call->async;
    size_t index = (size_t)(call - async->calls);
    struct hp_result *result = hp_pool_take_result(end);

    call->status = end->status;
    async->results.results[index] = result;
    if (result == NULL) {
        if (call->status == HP_STATUS_OK) {
            call->status = HP_STATUS_NO_MEMORY;
        }
        if (!atomic_exchange(&async->has_text, true)) {
            (void)snprintf(async->text, sizeof(async->text), "%s",
                           end->text[0] != '\0' ? end->text : hp_strerror(call->status));
        }
    }
    if (result == NULL || result->task.state != HP_STATE_DONE) {
        size_t none = async->count;

        (void)atomic_compare_exchange_strong(&async->first_failed, &none, index);
    }
    if (atomic_fetch_sub(&async->left, 1) == 1) {
        all_ended(async);
    }
    unref(async, 1);
}

static struct hp_async *async_new(struct hp_pool *pool, size_t count,
                                  const struct hp_result_callbacks *callbacks)
{
    struct hp_async *async = hp_calloc(1, sizeof(*async) + count * sizeof(async->calls[0]));

    if (async == NULL) {
        return NULL;
    }
    async->results.results = hp_calloc(count + 1, sizeof(struct hp_result *));
    if (async->results.results == NULL) {
        hp_free(async);
        return NULL;
    }
    async->pool = pool;
    async->count = count;
    async->results.count = count;
    atomic_init(&async->ref_count, (unsigned)count + 1);
    atomic_init(&async->left, count);
    atomic_init(&async->first_failed, count);
    atomic_init(&async->ready, count == 0);
    if (callbacks != NULL) {
        async->callbacks = *callbacks;
    }
    for (size_t i = 0; i < count; i++) {
        async->calls[i].cell.ended = on_ended;
        async->calls[i].async = async;
    }
    return async;
}

/* ---------------------------------------------------------------- submitting */

/* Inputs of one message to the hub. */
#define GROUP 4096u

/*
 * All of them or, if it cannot be helped, the first ones: then the others end without a task, so
 * that the handle becomes ready with the error.
 */
static enum hp_status submit_all(struct hp_async *async, const char *fn,
                                 const struct hp_bytes *inputs, int64_t timeout_ms)
{
    enum hp_status status = HP_STATUS_OK;
    size_t done = 0;

    while (status == HP_STATUS_OK && done < async->count) {
        uint32_t count = (uint32_t)HP_MIN(async->count - done, (size_t)GROUP);
        void *users[GROUP];

        for (uint32_t i = 0; i < count; i++) {
            users[i] = &async->calls[done + i].cell;
        }
        status = hp_pool_submit(async->pool, fn, inputs + done, count, users, timeout_ms);
        done += status == HP_STATUS_OK ? count : 0;
    }
    if (status != HP_STATUS_OK && done > 0) {
        struct hp_hub_end end = {.status = status, .text = hp_pool_error(async->pool)};

        while (done < async->count) {
            on_ended(&async->calls[done++].cell, &end);
        }
        return HP_STATUS_OK;
    }
    return status;
}

static enum hp_status start(struct hp_pool *pool, const char *fn, const struct hp_bytes *inputs,
                            size_t count, const struct hp_result_callbacks *callbacks,
                            int64_t timeout_ms, struct hp_async **ret_result)
{
    enum hp_status status = hp_pool_check(pool);
    struct hp_async *async;

    if (status != HP_STATUS_OK) {
        return status;
    }
    if (count > UINT32_MAX - 1) {
        return hp_hub_fail(HP_STATUS_TOO_BIG, "too many inputs");
    }
    async = async_new(pool, count, callbacks);
    if (async == NULL) {
        return hp_hub_fail(HP_STATUS_NO_MEMORY, "out of memory");
    }
    status = submit_all(async, fn, inputs, timeout_ms);
    if (status != HP_STATUS_OK) {
        unref(async, (unsigned)count + 1);
        return status;
    }
    if (ret_result != NULL) {
        *ret_result = async;
    } else {
        unref(async, 1);
    }
    return HP_STATUS_OK;
}

enum hp_status hp_pool_apply_async(struct hp_pool *pool, const char *fn,
                                   const struct hp_bytes *payload,
                                   const struct hp_result_callbacks *callbacks,
                                   struct hp_async **ret_result)
{
    static const struct hp_bytes empty;

    return start(pool, fn, payload != NULL ? payload : &empty, 1, callbacks, APPLY_TIMEOUT,
                 ret_result);
}

enum hp_status hp_pool_map_async(struct hp_pool *pool, const char *fn,
                                 const struct hp_bytes *inputs, size_t count,
                                 const struct hp_result_callbacks *callbacks,
                                 struct hp_async **ret_result)
{
    return start(pool, fn, inputs, count, callbacks, APPLY_TIMEOUT, ret_result);
}

enum hp_status hp_pool_starmap_async(struct hp_pool *pool, const char *fn,
                                     const struct hp_bytes *inputs, size_t count,
                                     const struct hp_result_callbacks *callbacks,
                                     struct hp_async **ret_result)
{
    return start(pool, fn, inputs, count, callbacks, APPLY_TIMEOUT, ret_result);
}

enum hp_status hp_pool_apply(struct hp_pool *pool, const char *fn, const struct hp_bytes *payload,
                             int64_t timeout_ms, struct hp_result **ret_result)
{
    struct hp_async *async;
    const struct hp_result *result;
    enum hp_status status = hp_pool_apply_async(pool, fn, payload, NULL, &async);

    if (status != HP_STATUS_OK) {
        return status;
    }
    status = hp_result_get(async, timeout_ms, &result);
    if (status == HP_STATUS_OK) {
        *ret_result = async->results.results[0]; /* taken out: nobody else has the handle */
        async->results.results[0] = NULL;
    }
    hp_result_release(async);
    return status;
}

enum hp_status hp_pool_map(struct hp_pool *pool, const char *fn, const struct hp_bytes *inputs,
                           size_t count, int64_t timeout_ms, struct hp_map_results **ret_results)
{
    struct hp_async *async;
    const struct hp_map_results *lent;
    struct hp_map_results *results = hp_calloc(1, sizeof(*results));
    enum hp_status status;

    *ret_results = NULL;
    if (results == NULL) {
        return hp_hub_fail(HP_STATUS_NO_MEMORY, "out of memory");
    }
    status = hp_pool_map_async(pool, fn, inputs, count, NULL, &async);
    if (status != HP_STATUS_OK) {
        hp_free(results);
        return status;
    }
    status = hp_result_get_all(async, timeout_ms, &lent);
    if (hp_result_ready(async)) {
        *results = async->results; /* all has ended, nobody else has the handle */
        async->results = (struct hp_map_results){.results = NULL};
        async->count = 0;
        *ret_results = results;
    } else {
        hp_free(results);
    }
    hp_result_release(async);
    return status;
}

enum hp_status hp_pool_starmap(struct hp_pool *pool, const char *fn, const struct hp_bytes *inputs,
                               size_t count, int64_t timeout_ms,
                               struct hp_map_results **ret_results)
{
    return hp_pool_map(pool, fn, inputs, count, timeout_ms, ret_results);
}

enum hp_status hp_result_attach(struct hp_pool *pool, uint64_t id,
                                const struct hp_result_callbacks *callbacks,
                                struct hp_async **ret_result)
{
    struct hp_async *async = async_new(pool, 1, callbacks);
    enum hp_status status;
    void *user;

    if (async == NULL) {
        return hp_hub_fail(HP_STATUS_NO_MEMORY, "out of memory");
    }
    user = &async->calls[0].cell;
    atomic_store(&async->calls[0].cell.id, id);
    status = hp_hub_attach(pool->hub, id, 1, &user);
    if (status != HP_STATUS_OK) {
        unref(async, 2);
        return status;
    }
    *ret_result = async;
    return HP_STATUS_OK;
}

void hp_result_release(struct hp_async *async)
{
    if (async != NULL) {
        unref(async, 1);
    }
}

/* ---------------------------------------------------------------- waiting */

/* In its callback a result can be had, though it is not ready for others. */
static bool is_ready(void *arg)
{
    struct hp_async *async = arg;

    return atomic_load(&async->ready) || atomic_load(&async->caller) == hp_hub_self();
}

bool hp_result_wait(struct hp_async *async, int64_t timeout_ms)
{
    return hp_pool_wait(async->pool, is_ready, async, timeout_ms) == HP_STATUS_OK;
}

bool hp_result_ready(const struct hp_async *async)
{
    return atomic_load(&async->ready);
}

enum hp_status hp_result_get_all(struct hp_async *async, int64_t timeout_ms,
                                 const struct hp_map_results **ret_results)
{
    enum hp_status status = hp_pool_wait(async->pool, is_ready, async, timeout_ms);

    if (status != HP_STATUS_OK) {
        return status;
    }
    *ret_results = &async->results;
    return async->status == HP_STATUS_OK ? HP_STATUS_OK : hp_hub_fail(async->status, async->text);
}

enum hp_status hp_result_get(struct hp_async *async, int64_t timeout_ms,
                             const struct hp_result **ret_result)
{
    enum hp_status status = hp_pool_wait(async->pool, is_ready, async, timeout_ms);

    if (status != HP_STATUS_OK) {
        return status;
    }
    if (async->count == 0) {
        return hp_hub_fail(HP_STATUS_NOT_FOUND, "the map was empty");
    }
    if (async->results.results[0] == NULL) {
        return hp_hub_fail(async->calls[0].status, async->text);
    }
    *ret_result = async->results.results[0];
    return HP_STATUS_OK;
}

enum hp_status hp_result_successful(const struct hp_async *async, bool *ret_successful)
{
    if (!atomic_load(&async->ready)) {
        return hp_hub_fail(HP_STATUS_ILLEGAL_STATE, "not ready");
    }
    *ret_successful = atomic_load(&async->first_failed) == async->count;
    return HP_STATUS_OK;
}

size_t hp_result_first_failed(const struct hp_async *async)
{
    return atomic_load(&async->first_failed);
}

size_t hp_result_count(const struct hp_async *async)
{
    return async->count;
}

uint64_t hp_result_id(const struct hp_async *async, size_t index)
{
    HP_ASSERT(index < async->count);
    return atomic_load(&async->calls[index].cell.id);
}

static bool is_accepted(void *arg)
{
    const struct hp_async *async = arg;

    for (size_t i = async->count; i > 0; i--) {
        if (atomic_load(&async->calls[i - 1].cell.id) == 0) {
            return atomic_load(&async->ready);
        }
    }
    return true;
}

bool hp_result_wait_accepted(struct hp_async *async, int64_t timeout_ms)
{
    return hp_pool_wait(async->pool, is_accepted, async, timeout_ms) == HP_STATUS_OK;
}

struct cancel {
    struct hp_ids *ids;
    size_t id_count;
    uint64_t grace_ms;
    int64_t timeout_ms;
};

static enum hp_status cancel(struct hp_client *client, void *arg)
{
    struct cancel *what = arg;

    return hp_cancel(client, what->ids, what->id_count, HP_CANCEL_FORCE, what->grace_ms, NULL,
                     what->timeout_ms, NULL);
}

enum hp_status hp_result_cancel(struct hp_async *async, uint64_t grace_ms, int64_t timeout_ms)
{
    struct cancel what = {.grace_ms = grace_ms, .timeout_ms = timeout_ms};
    enum hp_status status = HP_STATUS_OK;

    if (!hp_result_wait_accepted(async, timeout_ms)) {
        return HP_STATUS_TIMEOUT; /* the text is set */
    }
    if (hp_result_ready(async)) {
        return HP_STATUS_OK;
    }
    what.ids = hp_alloc_array(async->count, sizeof(*what.ids));
    if (what.ids == NULL) {
        return hp_hub_fail(HP_STATUS_NO_MEMORY, "out of memory");
    }
    for (size_t i = 0; i < async->count; i++) {
        struct hp_ids *last = what.id_count == 0 ? NULL : &what.ids[what.id_count - 1];
        uint64_t id = hp_result_id(async, i);

        if (last != NULL && last->first + last->count == id) {
            last->count++;
        } else if (id != 0) {
            what.ids[what.id_count++] = (struct hp_ids){.first = id, .count = 1};
        }
    }
    status = hp_hub_call(async->pool->hub, cancel, &what);
    hp_free(what.ids);
    return status;
}
