/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * imap: an iterator with a window. Items are as many as the window; an item is free, or on its way,
 * or ended and not handed over yet.
 *
 * I1: given - delivered = items not free, at most the window. I2: ordered: order[i % window] is the
 * item of input i; unordered: order[n % window] is the n-th item to end.
 * The iterator is shared by its user and the calls on their way: refs.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/hub_state.h"
#include "client/pool_state.h"
#include "common/base/assert.h"
#include "common/base/mem.h"

#define WINDOW 1024u
#define WINDOW_MAX (1u << 24)
/* Inputs taken in a call that has a result to give already. */
#define FEED_MORE 64u

struct item {
    struct hp_pool_cell cell;
    struct hp_imap *imap;
    struct item *next_free;
    uint64_t index;
    bool waits; /* to be handed over */
    bool ended;
    enum hp_status status;
    struct hp_result *result;
    char text[128];
};

struct hp_imap {
    struct hp_pool *pool;
    char *fn;
    hp_map_input_fn input; /* NULL: ids */
    void *context;
    struct hp_ids *ids;
    size_t id_count;
    size_t id_index;
    uint32_t id_offset;
    bool is_unordered;
    uint64_t window;
    uint64_t given;
    uint64_t delivered;
    struct hp_bytes pending; /* an input that could not be submitted yet */
    bool has_pending;
    bool input_done;
    bool is_stopped;
    struct item *lent;

    pthread_mutex_t lock; /* for what follows */
    uint64_t ref_count;
    uint64_t ended_count;
    struct item **order;
    struct item *items;
    struct item *free_items;
};

static void lock(struct hp_imap *imap)
{
    int error = pthread_mutex_lock(&imap->lock);

    HP_ASSERT(error == 0);
}

static void unlock(struct hp_imap *imap)
{
    int error = pthread_mutex_unlock(&imap->lock);

    HP_ASSERT(error == 0);
}

static void destroy(struct hp_imap *imap)
{
    for (uint64_t i = 0; imap->items != NULL && i < imap->window; i++) {
        hp_result_free(imap->items[i].result);
    }
    (void)pthread_mutex_destroy(&imap->lock);
    hp_free(imap->items);
    hp_free(imap->order);
    hp_free(imap->ids);
    hp_free(imap->fn);
    hp_free(imap);
}

static void unref(struct hp_imap *imap)
{
    bool last;

    lock(imap);
    last = --imap->ref_count == 0;
    unlock(imap);
    if (last) {
        destroy(imap);
    }
}

static void on_ended(struct hp_pool_cell *cell, const struct hp_hub_end *end)
{
    struct item *item = HP_CONTAINER_OF(cell, struct item, cell);
    struct hp_imap *imap = item->imap;
    struct hp_result *result = hp_pool_take_result(end);

    lock(imap);
    item->result = result;
    item->status = end->status;
    if (result == NULL && end->status == HP_STATUS_OK) {
        item->status = HP_STATUS_NO_MEMORY;
    }
    (void)snprintf(item->text, sizeof(item->text), "%s", end->text);
    item->ended = true;
    if (imap->is_unordered) {
        imap->order[imap->ended_count % imap->window] = item; /* I2 */
    }
    imap->ended_count++;
    unlock(imap);
    unref(imap);
}

/* ---------------------------------------------------------------- making */

void hp_imap_options_init(struct hp_imap_options *options)
{
    *options = (struct hp_imap_options){.window = WINDOW};
}

static enum hp_status imap_new(struct hp_pool *pool, const char *fn,
                               const struct hp_imap_options *options, struct hp_imap **ret_imap)
{
    struct hp_imap_options defaults;
    struct hp_imap *imap = hp_calloc(1, sizeof(*imap));

    hp_imap_options_init(&defaults);
    options = options != NULL ? options : &defaults;
    if (options->window == 0 || options->window > WINDOW_MAX) {
        hp_free(imap);
        return hp_hub_fail(HP_STATUS_BAD_ARGUMENT, "imap: the window is out of range");
    }
    if (imap == NULL || pthread_mutex_init(&imap->lock, NULL) != 0) {
        hp_free(imap);
        return hp_hub_fail(HP_STATUS_NO_MEMORY, "out of memory");
    }
    imap->pool = pool;
    imap->window = options->window;
    imap->is_unordered = options->unordered;
    imap->ref_count = 1;
    imap->fn = fn == NULL ? NULL : hp_strdup(fn);
    imap->items = hp_calloc(imap->window, sizeof(*imap->items));
    imap->order = hp_calloc(imap->window, sizeof(struct item *));
    if (imap->items == NULL || imap->order == NULL || (fn != NULL && imap->fn == NULL)) {
        destroy(imap);
        return hp_hub_fail(HP_STATUS_NO_MEMORY, "out of memory");
    }
    for (uint64_t i = imap->window; i > 0; i--) {
        imap->items[i - 1].imap = imap;
        imap->items[i - 1].cell.ended = on_ended;
        imap->items[i - 1].next_free = imap->free_items;
        imap->free_items = &imap->items[i - 1];
    }
    *ret_imap = imap;
    return HP_STATUS_OK;
}

/* ---------------------------------------------------------------- inputs */

/* The item of the next input; there is one (I1). */
static struct item *take_free(struct hp_imap *imap)
{
    struct item *item;

    lock(imap);
    item = imap->free_items;
    imap->free_items = item->next_free;
    item->index = imap->given;
    item->waits = true;
    item->ended = false;
    item->result = NULL;
    atomic_store(&item->cell.id, 0);
    if (!imap->is_unordered) {
        imap->order[item->index % imap->window] = item; /* I2 */
    }
    imap->ref_count++;
    unlock(imap);
    return item;
}

static void give_back(struct hp_imap *imap, struct item *item)
{
    lock(imap);
    hp_result_free(item->result);
    item->result = NULL;
    item->waits = false;
    item->next_free = imap->free_items;
    imap->free_items = item;
    unlock(imap);
}

/* The next input: a payload in imap->pending, or an id. False: there is none. */
static bool next_input(struct hp_imap *imap, uint64_t *ret_id)
{
    int got;

    *ret_id = 0;
    if (imap->input == NULL) {
        while (imap->id_index < imap->id_count &&
               imap->id_offset == imap->ids[imap->id_index].count) {
            imap->id_index++;
            imap->id_offset = 0;
        }
        if (imap->id_index < imap->id_count) {
            *ret_id = imap->ids[imap->id_index].first + imap->id_offset++;
        }
        imap->input_done = *ret_id == 0;
        return !imap->input_done;
    }
    if (imap->has_pending) {
        return true;
    }
    imap->pending = (struct hp_bytes){.data = NULL};
    got = imap->input(imap->context, &imap->pending);
    imap->has_pending = got > 0;
    imap->input_done = got <= 0;
    imap->is_stopped = got < 0;
    return got > 0;
}

static enum hp_status feed_one(struct hp_imap *imap, int64_t timeout_ms)
{
    struct item *item;
    void *user;
    uint64_t id;
    enum hp_status status;

    if (!next_input(imap, &id)) {
        return HP_STATUS_OK;
    }
    item = take_free(imap);
    user = &item->cell;
    if (id != 0) {
        atomic_store(&item->cell.id, id);
        status = hp_hub_attach(imap->pool->hub, id, 1, &user);
    } else {
        status = hp_pool_submit(imap->pool, imap->fn, &imap->pending, 1, &user, timeout_ms);
    }
    if (status != HP_STATUS_OK) {
        give_back(imap, item);
        unref(imap);
        return status;
    }
    imap->has_pending = false;
    imap->given++;
    return HP_STATUS_OK;
}

/* An ended item that is next to be handed over; lock held. */
static struct item *next_ended(const struct hp_imap *imap)
{
    struct item *item = imap->order[imap->delivered % imap->window];

    if (imap->delivered == imap->given ||
        (imap->is_unordered && imap->ended_count <= imap->delivered)) {
        return NULL;
    }
    return item->ended ? item : NULL;
}

static bool has_next(void *arg)
{
    struct hp_imap *imap = arg;
    bool has;

    lock(imap);
    has = next_ended(imap) != NULL;
    unlock(imap);
    return has;
}

/* Fills the window; less if there is something to hand over already. */
static enum hp_status feed(struct hp_imap *imap, int64_t timeout_ms)
{
    uint64_t fed = 0;
    enum hp_status status = HP_STATUS_OK;

    while (status == HP_STATUS_OK && !imap->input_done &&
           imap->given - imap->delivered < imap->window &&
           (fed % FEED_MORE != FEED_MORE - 1 || !has_next(imap))) {
        status = feed_one(imap, timeout_ms);
        fed++;
    }
    return status;
}

/* ---------------------------------------------------------------- public */

enum hp_status hp_pool_imap(struct hp_pool *pool, const char *fn, hp_map_input_fn input,
                            void *context, const struct hp_imap_options *options,
                            struct hp_imap **ret_imap)
{
    enum hp_status status = hp_pool_check(pool);

    if (status == HP_STATUS_OK && (fn == NULL || input == NULL)) {
        status = hp_hub_fail(HP_STATUS_BAD_ARGUMENT, "imap: no function, or no input");
    }
    status = status == HP_STATUS_OK ? imap_new(pool, fn, options, ret_imap) : status;
    if (status == HP_STATUS_OK) {
        (*ret_imap)->input = input;
        (*ret_imap)->context = context;
        status = feed(*ret_imap, HP_TIMEOUT_DEFAULT);
        if (status != HP_STATUS_OK) {
            hp_imap_release(*ret_imap);
        }
    }
    return status;
}

enum hp_status hp_pool_imap_unordered(struct hp_pool *pool, const char *fn, hp_map_input_fn input,
                                      void *context, struct hp_imap **ret_imap)
{
    struct hp_imap_options options;

    hp_imap_options_init(&options);
    options.unordered = true;
    return hp_pool_imap(pool, fn, input, context, &options, ret_imap);
}

enum hp_status hp_pool_imap_resume(struct hp_pool *pool, const struct hp_ids *ids, size_t id_count,
                                   const struct hp_imap_options *options, struct hp_imap **ret_imap)
{
    enum hp_status status = imap_new(pool, NULL, options, ret_imap);

    if (status != HP_STATUS_OK) {
        return status;
    }
    (*ret_imap)->id_count = id_count;
    (*ret_imap)->ids = id_count == 0 ? NULL : hp_memdup(ids, id_count * sizeof(*ids));
    status = id_count > 0 && (*ret_imap)->ids == NULL
                 ? hp_hub_fail(HP_STATUS_NO_MEMORY, "out of memory")
                 : feed(*ret_imap, HP_TIMEOUT_DEFAULT);
    if (status != HP_STATUS_OK) {
        hp_imap_release(*ret_imap);
    }
    return status;
}

enum hp_status hp_imap_next(struct hp_imap *imap, int64_t timeout_ms, uint64_t *ret_index,
                            const struct hp_result **ret_result)
{
    enum hp_status status;
    struct item *item;

    *ret_result = NULL;
    if (imap->lent != NULL) {
        give_back(imap, HP_TAKE(imap->lent));
    }
    status = feed(imap, timeout_ms);
    if (imap->is_stopped) {
        imap->is_stopped = false;
        return hp_hub_fail(HP_STATUS_STOPPED, "stopped by the input function");
    }
    if (status != HP_STATUS_OK && !has_next(imap)) {
        return status;
    }
    if (imap->delivered == imap->given) {
        return HP_STATUS_OK; /* the end */
    }
    status = hp_pool_wait(imap->pool, has_next, imap, timeout_ms);
    if (status != HP_STATUS_OK) {
        return status;
    }
    lock(imap);
    item = next_ended(imap);
    item->waits = false;
    unlock(imap);
    imap->delivered++;
    imap->lent = item;
    if (ret_index != NULL) {
        *ret_index = item->index;
    }
    *ret_result = item->result;
    return item->status == HP_STATUS_OK ? HP_STATUS_OK : hp_hub_fail(item->status, item->text);
}

static bool all_known(void *arg)
{
    struct hp_imap *imap = arg;
    bool known = true;

    lock(imap);
    for (uint64_t i = 0; known && i < imap->window; i++) {
        const struct item *item = &imap->items[i];

        known = !item->waits || item->ended || atomic_load(&item->cell.id) != 0;
    }
    unlock(imap);
    return known;
}

static int compare_items(const void *a, const void *b)
{
    const struct item *x = *(const struct item *const *)a;
    const struct item *y = *(const struct item *const *)b;

    return x->index < y->index ? -1 : x->index > y->index;
}

/* Those that were not handed over, in the order of inputs; returns how many. lock held. */
static size_t waiting_items(struct hp_imap *imap, const struct item **items)
{
    size_t count = 0;

    for (uint64_t i = 0; i < imap->window; i++) {
        if (imap->items[i].waits && atomic_load(&imap->items[i].cell.id) != 0) {
            items[count++] = &imap->items[i];
        }
    }
    qsort(items, count, sizeof(*items), compare_items);
    return count;
}

enum hp_status hp_imap_ids(struct hp_imap *imap, int64_t timeout_ms, struct hp_id_list *ret_ids)
{
    HP_CLEANUP(hp_free_ptr) const struct item **items = NULL;
    enum hp_status status = hp_pool_wait(imap->pool, all_known, imap, timeout_ms);
    size_t count;

    *ret_ids = (struct hp_id_list){.count = 0};
    if (status != HP_STATUS_OK || imap->delivered == imap->given) {
        return status;
    }
    items = hp_alloc_array(imap->window, sizeof(*items));
    ret_ids->ranges = hp_alloc_array(imap->given - imap->delivered, sizeof(*ret_ids->ranges));
    if (items == NULL || ret_ids->ranges == NULL) {
        hp_id_list_clear(ret_ids);
        return hp_hub_fail(HP_STATUS_NO_MEMORY, "out of memory");
    }
    lock(imap);
    count = waiting_items(imap, items);
    unlock(imap);
    for (size_t i = 0; i < count; i++) {
        struct hp_ids *last = ret_ids->count == 0 ? NULL : &ret_ids->ranges[ret_ids->count - 1];
        uint64_t id = atomic_load(&items[i]->cell.id);

        if (last != NULL && last->first + last->count == id) {
            last->count++;
        } else {
            ret_ids->ranges[ret_ids->count++] = (struct hp_ids){.first = id, .count = 1};
        }
        ret_ids->total++;
    }
    return HP_STATUS_OK;
}

void hp_imap_release(struct hp_imap *imap)
{
    if (imap != NULL) {
        unref(imap);
    }
}
