/* SPDX-License-Identifier: BSD-2-Clause */
/* The pool object: a hub, and a pool at the broker that lives as long as this process wants it. */
#include <errno.h>
#include <string.h>

#include "client/hub_state.h"
#include "client/pool_state.h"
#include "client/view.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"

/* Time that releasing a pool takes at most to terminate it. */
#define RELEASE_MS 2000

struct hp_pool_arena {
    struct hp_arena arena;
};

void hp_pool_options_init(struct hp_pool_options *options)
{
    *options = (struct hp_pool_options){.durable = true};
    hp_options_init(&options->call);
    options->orphan_ms = options->call.orphan_ms;
}

/* ---------------------------------------------------------------- callbacks of the hub */

static void on_ended(void *context, const struct hp_hub_end *ends, size_t count)
{
    (void)context;
    for (size_t i = 0; i < count; i++) {
        struct hp_pool_cell *cell = ends[i].user;

        if (ends[i].id != 0) {
            atomic_store(&cell->id, ends[i].id);
        }
        cell->ended(cell, &ends[i]);
    }
}

static void on_submitted(void *context, void *const *users, uint64_t first, uint32_t count)
{
    (void)context;
    for (uint32_t i = 0; i < count; i++) {
        atomic_store(&((struct hp_pool_cell *)users[i])->id, first + i);
    }
}

/* The pool is released before the end of a call. */
static void on_dropped(void *context, void *user)
{
    struct hp_pool_cell *cell = user;
    struct hp_hub_end end = {
        .user = user, .status = HP_STATUS_STOPPED, .text = "the pool was released"};

    (void)context;
    cell->ended(cell, &end);
}

/* ---------------------------------------------------------------- making */

/* Copies options->call, for the life of the pool. */
static enum hp_status keep_options(struct hp_pool *pool, const struct hp_pool_options *options)
{
    pool->strings = hp_calloc(1, sizeof(*pool->strings));
    if (pool->strings == NULL) {
        return HP_STATUS_NO_MEMORY;
    }
    hp_arena_init(&pool->strings->arena, 256, SIZE_MAX / 8);
    if (hp_view_options_copy(&options->call, &pool->strings->arena, &pool->call) != HP_OK) {
        return HP_STATUS_NO_MEMORY;
    }
    pool->call.kind = HP_KIND_CALL;
    pool->call.durable = options->durable;
    return HP_STATUS_OK;
}

static enum hp_status pool_new(const struct hp_pool_options *options, struct hp_pool **ret_pool)
{
    static const struct hp_hub_callbacks callbacks = {
        .ended = on_ended, .submitted = on_submitted, .dropped = on_dropped};
    struct hp_pool *pool = hp_calloc(1, sizeof(*pool));
    enum hp_status status;

    *ret_pool = pool;
    if (pool == NULL) {
        return hp_hub_fail(HP_STATUS_NO_MEMORY, "out of memory");
    }
    status = keep_options(pool, options);
    if (status != HP_STATUS_OK) {
        return hp_hub_fail(status, "out of memory");
    }
    return hp_hub_new(options->client, &callbacks, pool, &pool->hub);
}

struct create {
    const struct hp_pool_options *options;
    int64_t timeout_ms;
    uint64_t id;
};

static enum hp_status create(struct hp_client *client, void *arg)
{
    struct create *what = arg;
    const struct hp_pool_options *from = what->options;
    struct hp_options options;

    hp_options_init(&options);
    options.kind = HP_KIND_POOL;
    options.fn = from->initializer;
    options.durable = from->durable;
    options.name = from->name;
    options.processes = from->processes;
    options.calls_per_child = from->max_tasks_per_child;
    options.language = from->language != NULL ? from->language : "c";
    options.orphan_ms = from->orphan_ms;
    options.queue = from->call.queue;
    options.kill_grace_ms = from->call.kill_grace_ms;
    return hp_submit(client, &options, &from->initargs, what->timeout_ms, &what->id, NULL);
}

enum hp_status hp_pool_create(const struct hp_pool_options *options, int64_t timeout_ms,
                              struct hp_pool **ret_pool)
{
    struct hp_pool_options defaults;
    struct create what = {.options = options, .timeout_ms = timeout_ms};
    struct hp_pool *pool;
    enum hp_status status;

    if (options == NULL) {
        hp_pool_options_init(&defaults);
        what.options = &defaults;
    }
    status = pool_new(what.options, ret_pool);
    pool = *ret_pool;
    if (status == HP_STATUS_OK) {
        status = hp_hub_call(pool->hub, create, &what);
    }
    if (status == HP_STATUS_OK) {
        pool->id = what.id;
        pool->call.pool = what.id;
        pool->is_owned = true;
    }
    return status;
}

struct query {
    uint64_t id;
    int64_t timeout_ms;
    struct hp_pool_info *info;
};

static enum hp_status query(struct hp_client *client, void *arg)
{
    struct query *what = arg;

    return hp_pool_query(client, what->id, 0, what->timeout_ms, &what->info);
}

enum hp_status hp_pool_attach(const struct hp_pool_options *options, uint64_t id,
                              int64_t timeout_ms, struct hp_pool **ret_pool)
{
    struct hp_pool_options defaults;
    struct query what = {.id = id, .timeout_ms = timeout_ms};
    struct hp_pool *pool;
    enum hp_status status;

    if (options == NULL) {
        hp_pool_options_init(&defaults);
        options = &defaults;
    }
    status = pool_new(options, ret_pool);
    pool = *ret_pool;
    if (status != HP_STATUS_OK) {
        return status;
    }
    status = hp_hub_call(pool->hub, query, &what);
    if (status == HP_STATUS_OK) {
        pool->id = id;
        pool->call.pool = id;
        atomic_store(&pool->run,
                     what.info->phase == HP_POOL_OPEN ? HP_POOL_RUNNING : HP_POOL_CLOSED);
        hp_pool_info_free(what.info);
    }
    return status;
}

void hp_pool_release(struct hp_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    if (pool->hub != NULL && pool->is_owned && atomic_load(&pool->run) == HP_POOL_RUNNING &&
        !atomic_load(&pool->is_detached)) {
        (void)hp_pool_terminate(pool, RELEASE_MS); /* else the broker does when nobody returns */
    }
    hp_hub_free(pool->hub);
    if (pool->strings != NULL) {
        hp_arena_deinit(&pool->strings->arena);
    }
    hp_free(pool->strings);
    hp_free(pool);
}

/* ---------------------------------------------------------------- about it */

uint64_t hp_pool_id(const struct hp_pool *pool)
{
    return pool->id;
}

const char *hp_pool_error(const struct hp_pool *pool)
{
    return hp_hub_error(pool == NULL ? NULL : pool->hub);
}

enum hp_status hp_pool_info(struct hp_pool *pool, int64_t timeout_ms,
                            struct hp_pool_info **ret_info)
{
    struct query what = {.id = pool->id, .timeout_ms = timeout_ms};
    enum hp_status status = hp_hub_call(pool->hub, query, &what);

    if (status == HP_STATUS_OK) {
        *ret_info = what.info;
    }
    return status;
}

enum hp_status hp_pool_wait(struct hp_pool *pool, bool (*done)(void *), void *arg,
                            int64_t timeout_ms)
{
    uint64_t until_ms = hp_hub_until_ms(pool->hub, timeout_ms);

    while (!hp_hub_wait(pool->hub, done, arg, timeout_ms)) {
        if (errno == ECANCELED) {
            return hp_hub_fail(HP_STATUS_STOPPED, NULL);
        }
        if (errno == EACCES) {
            return hp_hub_trouble(pool->hub);
        }
        if (errno != EINTR) {
            return hp_hub_fail(HP_STATUS_TIMEOUT, "no result in time");
        }
        if (until_ms != HP_ENGINE_NEVER) {
            uint64_t now_ms = hp_clock_mono_ms();

            timeout_ms = until_ms > now_ms ? (int64_t)(until_ms - now_ms) : 0;
        }
    }
    return HP_STATUS_OK;
}

/* ---------------------------------------------------------------- ending */

struct end {
    uint64_t id;
    enum hp_pool_how how;
    int64_t timeout_ms;
};

static enum hp_status end(struct hp_client *client, void *arg)
{
    struct end *what = arg;

    return hp_pool_end(client, what->id, what->how, what->timeout_ms, NULL);
}

enum hp_status hp_pool_close(struct hp_pool *pool, int64_t timeout_ms)
{
    struct end what = {.id = pool->id, .how = HP_POOL_CLOSE, .timeout_ms = timeout_ms};
    int running = HP_POOL_RUNNING;

    if (!atomic_compare_exchange_strong(&pool->run, &running, HP_POOL_CLOSED) &&
        running == HP_POOL_TERMINATED) {
        return HP_STATUS_OK;
    }
    if (!hp_hub_flush(pool->hub, timeout_ms)) {
        return hp_hub_fail(HP_STATUS_TIMEOUT, "calls could not be submitted in time");
    }
    return hp_hub_call(pool->hub, end, &what);
}

enum hp_status hp_pool_terminate(struct hp_pool *pool, int64_t timeout_ms)
{
    struct end what = {.id = pool->id, .how = HP_POOL_TERMINATE, .timeout_ms = timeout_ms};

    atomic_store(&pool->run, HP_POOL_TERMINATED);
    return hp_hub_call(pool->hub, end, &what);
}

static enum hp_status wait_ended(struct hp_client *client, void *arg)
{
    struct end *what = arg;
    struct hp_ids ids = {.first = what->id, .count = 1};

    return hp_wait(client, &ids, 1, HP_WAIT_ALL, 0, what->timeout_ms, NULL);
}

static bool nothing_outstanding(void *arg)
{
    struct hp_pool *pool = arg;

    return hp_hub_outstanding(pool->hub) == 0;
}

enum hp_status hp_pool_join(struct hp_pool *pool, int64_t timeout_ms)
{
    struct end what = {.id = pool->id, .timeout_ms = timeout_ms};
    enum hp_status status;

    if (atomic_load(&pool->run) == HP_POOL_RUNNING) {
        return hp_hub_fail(HP_STATUS_ILLEGAL_STATE, "the pool is still running");
    }
    status = hp_hub_call(pool->hub, wait_ended, &what);
    if (status == HP_STATUS_OK) {
        status = hp_pool_wait(pool, nothing_outstanding, pool, timeout_ms);
    }
    return status;
}

static enum hp_status detach(struct hp_client *client, void *arg)
{
    struct end *what = arg;

    return hp_pool_set_detached(client, what->id, true, what->timeout_ms);
}

enum hp_status hp_pool_detach(struct hp_pool *pool, int64_t timeout_ms)
{
    struct end what = {.id = pool->id, .timeout_ms = timeout_ms};
    enum hp_status status = hp_hub_call(pool->hub, detach, &what);

    if (status == HP_STATUS_OK) {
        atomic_store(&pool->is_detached, true);
    }
    return status;
}

/* ---------------------------------------------------------------- calls */

enum hp_status hp_pool_check(struct hp_pool *pool)
{
    if (pool->hub == NULL || pool->id == 0) {
        return hp_hub_fail(HP_STATUS_BAD_ARGUMENT, "the pool could not be made");
    }
    return atomic_load(&pool->run) == HP_POOL_RUNNING
               ? HP_STATUS_OK
               : hp_hub_fail(HP_STATUS_ILLEGAL_STATE, "the pool is not running");
}

enum hp_status hp_pool_submit(struct hp_pool *pool, const char *fn, const struct hp_bytes *payloads,
                              uint32_t count, void *const *users, int64_t timeout_ms)
{
    struct hp_options options = pool->call;
    enum hp_status status = hp_pool_check(pool);

    if (status == HP_STATUS_OK && fn == NULL) {
        status = hp_hub_fail(HP_STATUS_BAD_ARGUMENT, "no function");
    }
    options.fn = fn;
    return status == HP_STATUS_OK
               ? hp_hub_submit(pool->hub, &options, payloads, count, users, timeout_ms)
               : status;
}

struct hp_result *hp_pool_take_result(const struct hp_hub_end *from)
{
    struct hp_task task = {.id = from->id,
                           .state = from->state,
                           .reason = from->reason,
                           .attempt = from->attempt,
                           .node = from->node,
                           .end = from->end};
    struct hp_result *result;

    if (from->status != HP_STATUS_OK) {
        return NULL;
    }
    result = hp_result_copy(&task);
    if (result == NULL) {
        return NULL;
    }
    if (result->task.end != NULL) {
        result->value = result->task.end->result;
        result->err = result->task.end->err;
    }
    if (from->owned != NULL) {
        struct hp_owned_result *owned = HP_CONTAINER_OF(result, struct hp_owned_result, result);

        result->value = (struct hp_bytes){.data = from->owned->data, .size = from->owned->size};
        owned->buffer = *from->owned;
        *from->owned = (struct hp_buffer){0};
    }
    return result;
}
