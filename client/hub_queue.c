/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The queue of the hub: tasks are gathered in blocks, which whoever pumps gives to the engine. A
 * block is one call of the engine, with the block as its user, so that a task costs one pointer
 * until it ends.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "client/hub_state.h"
#include "client/view.h"
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"

#define BLOCK_CAPACITY_MIN 8u
#define PARTS_MAX 65536u
/* So much in the queue is sent by the submitting thread, whatever is unacknowledged. */
#define SEND_TASKS 4096u
#define SEND_BYTES (512u << 10)

/* ---------------------------------------------------------------- blocks */

void hp_hub_options_unref(struct hp_hub_options *options)
{
    if (options != NULL && atomic_fetch_sub(&options->ref_count, 1) == 1) {
        hp_arena_deinit(&options->arena);
        hp_free(options);
    }
}

void hp_hub_block_free(struct hp_hub_block *block)
{
    if (block != NULL) {
        hp_hub_options_unref(block->options);
        hp_buf_deinit(&block->bytes);
        hp_free(block->parts);
        hp_free(block->sizes);
        hp_free(block->users);
        hp_free(block->ended);
        hp_free(block);
    }
}

static struct hp_hub_block *block_new(struct hp_hub_options *options, uint32_t capacity)
{
    struct hp_hub_block *block = hp_calloc(1, sizeof(*block));

    if (block == NULL) {
        return NULL;
    }
    hp_list_init(&block->link);
    hp_list_init(&block->release_link);
    hp_buf_init(&block->bytes, HP_LIMIT_BLOB_BYTES);
    block->users = hp_alloc_array(capacity, sizeof(*block->users));
    block->sizes = hp_alloc_array(capacity, sizeof(*block->sizes));
    block->capacity = capacity;
    if (block->users == NULL || block->sizes == NULL) {
        hp_hub_block_free(block);
        return NULL;
    }
    if (options != NULL) {
        (void)atomic_fetch_add(&options->ref_count, 1);
        block->options = options;
        block->is_volatile = !options->options.durable;
        block->is_alone = options->options.ukey != NULL;
    }
    return block;
}

static enum hp_err block_grow(struct hp_hub_block *block)
{
    uint32_t capacity = block->capacity * 2;
    void **users = hp_realloc_array(block->users, capacity, sizeof(*users));
    uint32_t *sizes;

    if (users == NULL) {
        return HP_ERR_NOMEM;
    }
    block->users = users;
    sizes = hp_realloc_array(block->sizes, capacity, sizeof(*sizes));
    if (sizes == NULL) {
        return HP_ERR_NOMEM;
    }
    block->sizes = sizes;
    block->capacity = capacity;
    return HP_OK;
}

static bool block_takes(const struct hp_hub_block *block, const struct hp_hub_options *options,
                        size_t size)
{
    return block->options == options && !block->is_large && !block->is_alone &&
           block->count < HP_HUB_BLOCK_TASKS && block->size + size <= HP_HUB_BLOCK_BYTES;
}

/* One small payload, which may be in parts. */
static enum hp_err block_add(struct hp_hub_block *block, const struct hp_bytes *parts,
                             uint32_t part_count, void *user)
{
    size_t old_size = block->bytes.size;

    if (block->count == block->capacity && block_grow(block) != HP_OK) {
        return HP_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < part_count; i++) {
        if (parts[i].size > 0 &&
            hp_buf_append(&block->bytes, parts[i].data, parts[i].size) != HP_OK) {
            hp_buf_truncate(&block->bytes, old_size);
            return HP_ERR_NOMEM;
        }
    }
    block->sizes[block->count] = (uint32_t)(block->bytes.size - old_size);
    block->users[block->count++] = user;
    block->size += block->bytes.size - old_size;
    return HP_OK;
}

/* One payload over the inline limit, borrowed or copied. */
static struct hp_hub_block *block_large(struct hp_hub_options *options,
                                        const struct hp_bytes *parts, uint32_t part_count,
                                        size_t size, bool borrow, void *user)
{
    struct hp_hub_block *block = block_new(options, 1);

    if (block == NULL) {
        return NULL;
    }
    block->is_large = true;
    if (borrow) {
        block->parts = hp_memdup(parts, part_count * sizeof(*parts));
        block->part_count = part_count;
    } else if (block_add(block, parts, part_count, user) == HP_OK) {
        block->parts = hp_alloc(sizeof(*block->parts));
        block->part_count = 1;
    }
    if (block->parts == NULL) {
        hp_hub_block_free(block);
        return NULL;
    }
    if (!borrow) {
        *block->parts = (struct hp_bytes){.data = block->bytes.data, .size = size};
    }
    block->users[0] = user;
    block->count = 1;
    block->size = size;
    return block;
}

/* ---------------------------------------------------------------- options */

/* The shared copy of these options, with a reference; queue_lock held. NULL: out of memory. */
static struct hp_hub_options *options_ref(struct hp_hub *hub, const struct hp_options *options)
{
    struct hp_hub_options *copy = hub->last_options;

    if (copy == NULL || !hp_view_options_equal(&copy->options, options)) {
        copy = hp_calloc(1, sizeof(*copy));
        if (copy == NULL) {
            return NULL;
        }
        atomic_init(&copy->ref_count, 1);
        hp_arena_init(&copy->arena, 256, SIZE_MAX / 8);
        if (hp_view_options_copy(options, &copy->arena, &copy->options) != HP_OK) {
            hp_hub_options_unref(copy);
            return NULL;
        }
        hp_hub_options_unref(hub->last_options);
        hub->last_options = copy;
    }
    (void)atomic_fetch_add(&copy->ref_count, 1);
    return copy;
}

/* ---------------------------------------------------------------- putting in */

static void lock_queue(struct hp_hub *hub)
{
    int error = pthread_mutex_lock(&hub->queue_lock);

    HP_ASSERT(error == 0);
}

static void unlock_queue(struct hp_hub *hub)
{
    int error = pthread_mutex_unlock(&hub->queue_lock);

    HP_ASSERT(error == 0);
}

static bool is_full(const struct hp_hub *hub)
{
    return hub->queue_tasks >= HP_HUB_QUEUE_TASKS || hub->queue_bytes >= HP_HUB_QUEUE_BYTES;
}

/* Waits for room; queue_lock held. Callbacks do not wait: it is they who make room. */
static enum hp_status wait_room(struct hp_hub *hub, int64_t timeout_ms)
{
    uint64_t until_ms;
    struct timespec until;

    if (!is_full(hub)) {
        return HP_STATUS_OK;
    }
    until_ms = hp_hub_until_ms(hub, timeout_ms);
    until_ms = HP_MIN(until_ms, (uint64_t)INT64_MAX);
    until = (struct timespec){.tv_sec = (time_t)(until_ms / 1000),
                              .tv_nsec = (long)(until_ms % 1000) * 1000000};
    hub->room_waiters++;
    while (is_full(hub) && !atomic_load(&hub->stop)) {
        if (pthread_cond_timedwait(&hub->room, &hub->queue_lock, &until) == ETIMEDOUT) {
            break;
        }
    }
    hub->room_waiters--;
    if (atomic_load(&hub->stop)) {
        return hp_hub_fail(HP_STATUS_STOPPED, "the hub is stopped");
    }
    return is_full(hub) ? hp_hub_fail(HP_STATUS_TIMEOUT, "the window is full: the broker is slow "
                                                         "or cannot be reached")
                        : HP_STATUS_OK;
}

/* Does the submitting thread have to send what is in the queue? queue_lock held. */
static bool must_send(const struct hp_hub *hub)
{
    return !hub->busy && /* I1 */
           (hub->unacknowledged == 0 || hub->queue_tasks >= SEND_TASKS ||
            hub->queue_bytes >= SEND_BYTES);
}

static void put_block(struct hp_hub *hub, struct hp_hub_block *block)
{
    block->left = block->count;
    block->unknown = block->options != NULL ? block->count : 0;
    hp_list_push_back(&hub->queue, &block->link);
    hub->queue_tasks += block->count;
    hub->queue_bytes += block->size;
    (void)atomic_fetch_add(&hub->outstanding, block->count);
}

/* After queue_lock was given up. */
static void send_now(struct hp_hub *hub, bool must)
{
    if (must) {
        hp_hub_enter(hub);
        hp_hub_leave(hub);
    }
}

/* A single small task, the most frequent: into the last block of the queue if that takes it. */
static enum hp_err put_single(struct hp_hub *hub, struct hp_hub_options *options,
                              const struct hp_bytes *parts, uint32_t part_count, size_t size,
                              void *user)
{
    struct hp_hub_block *block = NULL;

    if (!hp_list_is_empty(&hub->queue)) {
        block = HP_LIST_ENTRY(hp_list_last(&hub->queue), struct hp_hub_block, link);
    }
    if (block != NULL && block_takes(block, options, size)) {
        if (block_add(block, parts, part_count, user) != HP_OK) {
            return HP_ERR_NOMEM;
        }
        block->left++;
        block->unknown++;
        hub->queue_tasks++;
        hub->queue_bytes += size;
        (void)atomic_fetch_add(&hub->outstanding, 1);
        return HP_OK;
    }
    block = block_new(options, BLOCK_CAPACITY_MIN);
    if (block == NULL || block_add(block, parts, part_count, user) != HP_OK) {
        hp_hub_block_free(block);
        return HP_ERR_NOMEM;
    }
    put_block(hub, block);
    return HP_OK;
}

static size_t parts_size(const struct hp_bytes *parts, uint32_t part_count)
{
    size_t size = 0;

    for (uint32_t i = 0; i < part_count; i++) {
        size += parts[i].size;
    }
    return size;
}

static enum hp_status check(struct hp_hub *hub, const struct hp_options *options,
                            const struct hp_bytes *payloads, uint32_t count, uint32_t part_count)
{
    enum hp_status status = hp_hub_check(hub);
    uint32_t done = 0;

    while (status == HP_STATUS_OK && done < count) {
        struct hp_engine_submit submit = {.options = options,
                                          .payloads = payloads + done,
                                          .count = HP_MIN(count - done, 16384u),
                                          .part_count = part_count};
        const char *text;

        if (options != NULL && options->ukey != NULL) {
            submit.count = 1; /* each one alone: see block_new */
        }
        status = hp_submit_check(&submit, &text);
        if (status != HP_STATUS_OK) {
            return hp_hub_fail(status, text);
        }
        done += submit.count;
    }
    return status;
}

enum hp_status hp_hub_submit_pieces(struct hp_hub *hub, const struct hp_options *options,
                                    const struct hp_bytes *pieces, uint32_t piece_count, void *user,
                                    int64_t timeout_ms)
{
    enum hp_status status = piece_count == 0 || piece_count > PARTS_MAX
                                ? hp_hub_fail(HP_STATUS_BAD_ARGUMENT, "0 or too many pieces")
                                : check(hub, options, pieces, 1, piece_count);
    struct hp_hub_options *shared;
    struct hp_hub_block *large = NULL;
    size_t size;
    bool is_large;
    bool must;
    enum hp_err err = HP_ERR_NOMEM;

    if (status != HP_STATUS_OK) {
        return status;
    }
    size = parts_size(pieces, piece_count);
    is_large = size > HP_PAYLOAD_INLINE_BYTES;
    lock_queue(hub);
    status = hub->deliverer == hp_hub_self() ? HP_STATUS_OK : wait_room(hub, timeout_ms);
    shared = status == HP_STATUS_OK ? options_ref(hub, options) : NULL;
    if (shared != NULL && is_large) {
        /* Copying takes its time: not under the lock. */
        unlock_queue(hub);
        large =
            block_large(shared, pieces, piece_count, size, hub->callbacks.released != NULL, user);
        lock_queue(hub);
    }
    if (large != NULL) {
        put_block(hub, large);
        err = HP_OK;
    } else if (shared != NULL && !is_large) {
        err = put_single(hub, shared, pieces, piece_count, size, user);
    }
    must = must_send(hub);
    unlock_queue(hub);
    hp_hub_options_unref(shared);
    if (status != HP_STATUS_OK) {
        return status;
    }
    if (err != HP_OK) {
        return hp_hub_fail(HP_STATUS_NO_MEMORY, "out of memory");
    }
    send_now(hub, must);
    return HP_STATUS_OK;
}

/* Blocks of many tasks, before they are put in: all or nothing. */
static enum hp_err make_blocks(struct hp_hub *hub, struct hp_hub_options *options,
                               const struct hp_bytes *payloads, uint32_t count, void *const *users,
                               struct hp_list *blocks)
{
    struct hp_hub_block *block = NULL;

    for (uint32_t i = 0; i < count; i++) {
        void *user = users == NULL ? NULL : users[i];

        if (payloads[i].size > HP_PAYLOAD_INLINE_BYTES) {
            block = block_large(options, &payloads[i], 1, payloads[i].size,
                                hub->callbacks.released != NULL, user);
            if (block == NULL) {
                return HP_ERR_NOMEM;
            }
            hp_list_push_back(blocks, &block->link);
            continue;
        }
        if (block == NULL || !block_takes(block, options, payloads[i].size)) {
            block = block_new(options, HP_MIN(HP_MAX(count - i, 1u), HP_HUB_BLOCK_TASKS));
            if (block == NULL) {
                return HP_ERR_NOMEM;
            }
            hp_list_push_back(blocks, &block->link);
        }
        if (block_add(block, &payloads[i], 1, user) != HP_OK) {
            return HP_ERR_NOMEM;
        }
    }
    return HP_OK;
}

enum hp_status hp_hub_submit(struct hp_hub *hub, const struct hp_options *options,
                             const struct hp_bytes *payloads, uint32_t count, void *const *users,
                             int64_t timeout_ms)
{
    struct hp_hub_options *shared;
    struct hp_list blocks;
    enum hp_status status;
    enum hp_err err;
    bool must = false;

    if (count == 1) {
        return hp_hub_submit_pieces(hub, options, payloads, 1, users == NULL ? NULL : users[0],
                                    timeout_ms);
    }
    status = count == 0 ? hp_hub_fail(HP_STATUS_BAD_ARGUMENT, "no tasks")
                        : check(hub, options, payloads, count, 0);
    if (status != HP_STATUS_OK) {
        return status;
    }
    lock_queue(hub);
    shared = options_ref(hub, options);
    unlock_queue(hub);
    hp_list_init(&blocks);
    err = shared == NULL ? HP_ERR_NOMEM : make_blocks(hub, shared, payloads, count, users, &blocks);
    hp_hub_options_unref(shared);
    if (err != HP_OK) {
        status = hp_hub_fail(HP_STATUS_NO_MEMORY, "out of memory");
    }
    lock_queue(hub);
    if (status == HP_STATUS_OK && hub->deliverer != hp_hub_self()) {
        status = wait_room(hub, timeout_ms);
    }
    while (!hp_list_is_empty(&blocks)) {
        struct hp_hub_block *block =
            HP_LIST_ENTRY(hp_list_first(&blocks), struct hp_hub_block, link);

        hp_list_remove(&block->link);
        if (status == HP_STATUS_OK) {
            put_block(hub, block);
        } else {
            hp_hub_block_free(block);
        }
    }
    must = status == HP_STATUS_OK && must_send(hub);
    unlock_queue(hub);
    send_now(hub, must);
    return status;
}

enum hp_status hp_hub_attach(struct hp_hub *hub, uint64_t first, uint32_t count, void *const *users)
{
    enum hp_status status = hp_hub_check(hub);
    struct hp_hub_block *block;

    if (status != HP_STATUS_OK) {
        return status;
    }
    if (first == 0 || count == 0 || first > UINT64_MAX - count) {
        return hp_hub_fail(HP_STATUS_BAD_ARGUMENT, "no ids to attach to");
    }
    block = block_new(NULL, count);
    if (block == NULL) {
        return hp_hub_fail(HP_STATUS_NO_MEMORY, "out of memory");
    }
    block->first = first;
    block->count = count;
    block->is_alone = true;
    for (uint32_t i = 0; i < count; i++) {
        block->users[i] = users == NULL ? NULL : users[i];
    }
    lock_queue(hub);
    put_block(hub, block);
    unlock_queue(hub);
    send_now(hub, true);
    return HP_STATUS_OK;
}

/* ---------------------------------------------------------------- taking out */

static enum hp_status attach_block(struct hp_engine *engine, struct hp_hub_block *block)
{
    struct hp_ids ids = {.first = block->first, .count = block->count};
    enum hp_status status = hp_engine_track(engine, ids, block, NULL);

    /* Nobody sends ends of others' tasks. */
    for (uint32_t i = 0; status == HP_STATUS_OK && i < block->count; i++) {
        status =
            hp_check_watch(engine, block->first + i) == HP_OK ? HP_STATUS_OK : HP_STATUS_NO_MEMORY;
    }
    return status;
}

static enum hp_status submit_block(struct hp_hub *hub, struct hp_hub_block *block)
{
    struct hp_engine *engine = hub->client->engine;
    struct hp_engine_submit submit = {.count = block->count, .user = block};
    struct hp_bytes payloads[HP_HUB_BLOCK_TASKS];
    const uint8_t *data = block->bytes.data;
    enum hp_status status;

    if (block->options == NULL) {
        return attach_block(engine, block);
    }
    submit.options = &block->options->options;
    if (block->is_large) {
        submit.payloads = block->parts;
        submit.part_count = block->part_count;
        submit.borrow_payloads = true;
        submit.release = &hub->release;
        return hp_engine_submit(engine, &submit, NULL);
    }
    submit.payloads = payloads;
    for (uint32_t i = 0; i < block->count; i++) {
        payloads[i] = (struct hp_bytes){.data = data, .size = block->sizes[i]};
        data = data == NULL ? NULL : data + block->sizes[i];
    }
    status = hp_engine_submit(engine, &submit, NULL);
    hp_buf_deinit(&block->bytes);
    hp_free(block->sizes);
    block->sizes = NULL;
    return status;
}

static struct hp_hub_block *take_block(struct hp_hub *hub)
{
    struct hp_hub_block *block = NULL;

    lock_queue(hub);
    if (!hp_list_is_empty(&hub->queue) && hp_engine_has_room(hub->client->engine)) {
        block = HP_LIST_ENTRY(hp_list_first(&hub->queue), struct hp_hub_block, link);
        hp_list_remove(&block->link);
        hub->queue_tasks -= block->count;
        hub->queue_bytes -= block->size;
        if (hub->room_waiters > 0 && hub->queue_tasks <= HP_HUB_QUEUE_TASKS / 2 &&
            hub->queue_bytes <= HP_HUB_QUEUE_BYTES / 2) {
            (void)pthread_cond_broadcast(&hub->room);
        }
    }
    unlock_queue(hub);
    return block;
}

bool hp_hub_drain(struct hp_hub *hub)
{
    struct hp_hub_block *block = take_block(hub);
    bool any = block != NULL;

    while (block != NULL) {
        enum hp_status status = submit_block(hub, block);

        hp_list_push_back(status == HP_STATUS_OK ? &hub->blocks : &hub->failed, &block->link);
        if (status != HP_STATUS_OK) {
            block->first = status; /* told with its end */
        }
        block = take_block(hub);
    }
    return any;
}
