/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which worker has how many children of a pool, and telling them.
 *
 * Without a number each worker has one for each of its slots. With a number they are spread in
 * proportion to the slots, and stay where they are; what a lost worker had is given to others.
 */
#include <stdio.h>
#include <stdlib.h>

#include "server/core/offer.h"
#include "server/core/state.h"

/* ATTEMPTS_MAX: a worker must be able to name all that it holds in a heartbeat. */
enum { CHILDREN_PER_SLOT = 16, LANGUAGES_SHOWN = 400, ATTEMPTS_MAX = 6000 };

struct hp_pool_node *hp_pool_node_find(const struct hp_pool *pool, const struct hp_node *node)
{
    return hp_idmap_find_ptr(&node->pools, pool->id);
}

struct hp_pool_node *hp_pool_node_of(struct hp_pool *pool, struct hp_node *node)
{
    struct hp_pool_node *entry = hp_pool_node_find(pool, node);
    if (entry == NULL) {
        entry = hp_must_calloc(sizeof(*entry));
        entry->pool = pool;
        entry->node = node;
        hp_list_init(&entry->link);
        hp_list_push_back(&pool->nodes, &entry->link);
        hp_must(hp_idmap_put_ptr(&node->pools, pool->id, entry));
    }
    return entry;
}

void hp_pool_node_free(struct hp_pool_node *entry)
{
    (void)hp_idmap_remove(&entry->node->pools, entry->pool->id, NULL);
    hp_list_remove(&entry->link);
    hp_free(entry->pids);
    hp_free(entry);
}

static bool speaks(const struct hp_node *node, const struct hp_st_task_options *options)
{
    bool is_native = hp_str_eq_c(options->language, "c");
    if (node->any_interpreter && options->interpreter.size > 0 && !is_native) {
        return true;
    }
    for (uint32_t i = 0; i < node->languages.count; i++) {
        if (hp_str_eq(node->languages.items[i], options->language)) {
            return !is_native || options->fn.size == 0 ||
                   hp_node_has_function(node, options->fn);
        }
    }
    return false;
}

static bool has_tags(const struct hp_node *node, const struct hp_list_str *tags)
{
    for (uint32_t i = 0; i < tags->count; i++) {
        bool found = false;
        for (uint32_t k = 0; k < node->tags.count; k++) {
            found = found || hp_str_eq(tags->items[i], node->tags.items[k]);
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

static bool suits(const struct hp_st_task_options *options, const struct hp_node *node)
{
    /* One that was away and said hello keeps what it has until it registers. */
    return node->state != HP_SM_NODE_OFFLINE && !node->draining && !node->leaving &&
           speaks(node, options) && has_tags(node, &options->tags);
}

bool hp_pool_suits(const struct hp_pool *pool, const struct hp_node *node)
{
    return pool->spec != NULL && suits(&pool->spec->options, node);
}

static uint32_t children_max(const struct hp_node *node)
{
    return node->children_max != 0 ? node->children_max : node->slots * CHILDREN_PER_SLOT;
}

/* ------------------------------------------------ options of a new pool */
/* "python3.11 (n1, n2)" for people. */
static void list_languages(const struct hp_core *core, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    HP_LIST_FOR_EACH (link, &core->node_list) {
        const struct hp_node *node = HP_CONTAINER_OF(link, struct hp_node, link);
        for (uint32_t i = 0; hp_node_is_up(node) && i < node->languages.count; i++) {
            int more = snprintf(out + used, size - used, "%s%.*s on %.*s", used > 0 ? ", " : "",
                                HP_STR_ARG(node->languages.items[i]), HP_STR_ARG(node->name));
            if (more < 0 || (size_t)more >= size - used) {
                out[used] = '\0';
                return;
            }
            used += (size_t)more;
        }
    }
}

const char *hp_pool_check(struct hp_core *core, const struct hp_spec *spec,
                          enum hp_rpc_error_code *ret_code, char *text, size_t size)
{
    const struct hp_st_task_options *options = &spec->options;
    uint64_t room = 0;
    uint32_t online = 0;
    uint32_t fitting = 0;
    if (!hp_name_valid(options->language)) {
        *ret_code = HP_RPC_ERROR_BAD_REQUEST;
        return "options.language: a pool names what its children run: c, python3.11";
    }
    HP_LIST_FOR_EACH (link, &core->node_list) {
        const struct hp_node *node = HP_CONTAINER_OF(link, struct hp_node, link);
        if (!hp_node_is_up(node) || !node->registered) {
            continue;
        }
        online++;
        if (speaks(node, options) && has_tags(node, &options->tags)) {
            fitting++;
            room += children_max(node);
        }
    }
    if (online > 0 && fitting == 0) {
        char offers[LANGUAGES_SHOWN];
        list_languages(core, offers, sizeof(offers));
        *ret_code = HP_RPC_ERROR_UNSUPPORTED;
        (void)snprintf(text, size, "no worker offers %.*s%s%.*s%s%s", HP_STR_ARG(options->language),
                       options->fn.size > 0 ? " with function " : "", HP_STR_ARG(options->fn),
                       offers[0] != '\0' ? "; workers offer " : "", offers);
        return text;
    }
    if (fitting > 0 && options->processes > room) {
        *ret_code = HP_RPC_ERROR_TOO_BIG;
        (void)snprintf(text, size,
                       "options.processes: %u, but the workers that are online can have %llu in "
                       "all (children_max of each, by default 16 for each slot)",
                       options->processes, (unsigned long long)room);
        return text;
    }
    return NULL;
}

/* ------------------------------------------------ grants */
/* Children the node may still be given, beside those of other pools. */
static uint32_t room_of(const struct hp_node *node, uint32_t own)
{
    uint32_t others = node->pool_granted - own;
    uint32_t most = children_max(node);
    return most > others ? most - others : 0;
}

static void grant(struct hp_core *core, struct hp_pool_node *entry, uint32_t count)
{
    core->dispatch_wanted = core->dispatch_wanted || count > entry->granted; /* room for calls */
    entry->node->pool_granted = entry->node->pool_granted - entry->granted + count;
    entry->granted = count;
}

static bool may_have(const struct hp_pool *pool, const struct hp_pool_node *entry)
{
    return pool->state != HP_SM_POOL_ENDING && !entry->quarantined &&
           hp_pool_suits(pool, entry->node);
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = (*(struct hp_pool_node *const *)a)->node->number;
    uint32_t y = (*(struct hp_pool_node *const *)b)->node->number;
    return x < y ? -1 : x > y;
}

/* One more child for the worker that has the fewest for its slots. False: none can have more. */
static bool grant_one(struct hp_core *core, struct hp_pool_node *const *entries, uint32_t count)
{
    struct hp_pool_node *best = NULL;
    for (uint32_t i = 0; i < count; i++) {
        struct hp_pool_node *entry = entries[i];
        if (entry->granted >= room_of(entry->node, entry->granted)) {
            continue;
        }
        if (best == NULL || (uint64_t)entry->granted * best->node->slots <
                                (uint64_t)best->granted * entry->node->slots) {
            best = entry;
        }
    }
    if (best != NULL) {
        grant(core, best, best->granted + 1);
    }
    return best != NULL;
}

/* Entries for all workers that may have children of it, by number. */
static uint32_t gather(struct hp_core *core, struct hp_pool *pool, struct hp_pool_node **entries)
{
    uint32_t count = 0;
    HP_LIST_FOR_EACH (link, &core->node_list) {
        struct hp_node *node = HP_CONTAINER_OF(link, struct hp_node, link);
        if (pool->state != HP_SM_POOL_ENDING && hp_node_is_up(node) && hp_pool_suits(pool, node)) {
            struct hp_pool_node *entry = hp_pool_node_of(pool, node);
            if (!entry->quarantined) {
                entries[count++] = entry;
            }
        }
    }
    qsort(entries, count, sizeof(struct hp_pool_node *), by_number);
    return count;
}

void hp_pool_regrant(struct hp_core *core, struct hp_pool *pool)
{
    uint32_t wanted = pool->spec != NULL ? pool->spec->options.processes : 0;
    uint32_t nodes = hp_idmap_count(&core->nodes);
    struct hp_pool_node **entries = hp_must_alloc((nodes + 1U) * sizeof(struct hp_pool_node *));
    uint32_t count = gather(core, pool, entries);
    uint64_t sum = 0;
    HP_LIST_FOR_EACH_SAFE (link, &pool->nodes) {
        struct hp_pool_node *entry = HP_CONTAINER_OF(link, struct hp_pool_node, link);
        if (!may_have(pool, entry) ||
            (core->now_ms < pool->settle_until_ms && hp_node_is_up(entry->node))) {
            grant(core, entry, 0);
        }
        uint32_t room = room_of(entry->node, entry->granted);
        if (entry->granted > room) { /* it came back with less */
            grant(core, entry, room);
        }
        sum += entry->granted;
    }
    for (uint32_t i = 0; wanted == 0 && i < count; i++) {
        uint32_t room = room_of(entries[i]->node, entries[i]->granted);
        uint32_t slots = entries[i]->node->slots;
        grant(core, entries[i], slots < room ? slots : room);
    }
    while (sum < wanted && grant_one(core, entries, count)) {
        sum++;
    }
    hp_free(entries);
}

uint32_t hp_pool_processes(const struct hp_pool *pool)
{
    uint32_t sum = 0;
    HP_LIST_FOR_EACH (link, &pool->nodes) {
        sum += HP_CONTAINER_OF(link, struct hp_pool_node, link)->granted;
    }
    return sum;
}

/* ------------------------------------------------ orders */
static void put_orders(struct hp_core *core, struct hp_node *node, struct hp_st_pool_order *orders,
                       uint32_t count, bool complete)
{
    struct hp_msg_worker_pool msg = {.has = HP_HAS_WORKER_POOL_POOLS,
                                     .pools = {.items = orders, .count = count}};
    if (complete) {
        msg.complete = true;
        msg.has |= HP_HAS_WORKER_POOL_COMPLETE;
    }
    hp_out_flush_assigns(core, node->conn);
    struct hp_buf *out = hp_out_reply(core, node->conn, true);
    hp_must(hp_rpc_put_notify(out, HP_METHOD_WORKER_POOL));
    hp_must(hp_msg_worker_pool_encode(out, &msg));
}

/* Calls there do not run to their end: of a quarantined worker they go elsewhere. */
static bool is_killed(const struct hp_pool_node *entry)
{
    return entry->pool->state == HP_SM_POOL_ENDING || entry->quarantined;
}

static void send_order(struct hp_core *core, struct hp_pool_node *entry)
{
    const struct hp_pool *pool = entry->pool;
    bool kill = is_killed(entry);
    struct hp_st_pool_order order = {.pool = pool->id, .children = entry->granted};
    if (entry->granted == 0) {
        order.kill = kill;
        order.has |= kill ? HP_HAS_ST_POOL_ORDER_KILL : 0;
    } else {
        order.options.raw = pool->spec->raw;
        order.has |= HP_HAS_ST_POOL_ORDER_OPTIONS;
        order.payload = pool->payload;
        order.has |= pool->payload.size > 0 ? HP_HAS_ST_POOL_ORDER_PAYLOAD : 0;
        order.blob = pool->blob;
        order.has |= pool->blob != 0 ? HP_HAS_ST_POOL_ORDER_BLOB : 0;
    }
    put_orders(core, entry->node, &order, 1, false);
    entry->told = entry->granted;
    entry->kill_told = kill;
    entry->is_told = true;
}

static bool is_empty(const struct hp_pool_node *entry)
{
    return entry->granted == 0 && entry->held == 0 && entry->pid_count == 0 &&
           !entry->quarantined && (!entry->is_told || entry->told == 0);
}

void hp_pool_send_orders(struct hp_core *core, struct hp_pool *pool)
{
    HP_LIST_FOR_EACH_SAFE (link, &pool->nodes) {
        struct hp_pool_node *entry = HP_CONTAINER_OF(link, struct hp_pool_node, link);
        struct hp_node *node = entry->node;
        bool must_kill = is_killed(entry) && !entry->kill_told;
        bool is_there = entry->granted > 0 || entry->held > 0 || entry->pid_count > 0;
        bool is_news = must_kill || (entry->is_told ? entry->told != entry->granted : is_there);
        if (is_news && hp_node_is_up(node) && node->registered) {
            send_order(core, entry);
        } else if (is_empty(entry)) {
            hp_pool_node_free(entry);
        }
    }
}

static void forget_children(struct hp_pool_node *entry)
{
    entry->pool->up -= entry->pid_count;
    hp_free(entry->pids);
    entry->pids = NULL;
    entry->pid_count = 0;
    entry->error[0] = '\0';
    entry->waiting = 0;
    entry->failures = 0;
    entry->stuck = false;
    entry->quarantined = false;
    entry->is_told = false;
    entry->kill_told = false;
}

static void forget_all(struct hp_node *node)
{
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_idmap_next(&node->pools, &iter, NULL, &value)) {
        forget_children((struct hp_pool_node *)(uintptr_t)value);
    }
}

void hp_pools_node_registered(struct hp_core *core, struct hp_node *node)
{
    hp_pools_dirty(core);
    node->wants_complete = node->languages.count > 0 || node->any_interpreter;
    forget_all(node); /* the pass tells it anew what it is to have */
}

void hp_pools_complete(struct hp_core *core)
{
    HP_LIST_FOR_EACH (link, &core->node_list) {
        struct hp_node *node = HP_CONTAINER_OF(link, struct hp_node, link);
        if (node->wants_complete && hp_node_is_up(node)) {
            put_orders(core, node, NULL, 0, true);
            node->wants_complete = false;
        }
    }
}

void hp_pools_node_lost(struct hp_core *core, struct hp_node *node)
{
    forget_all(node);
    hp_pools_dirty(core);
}

uint32_t hp_pool_room(const struct hp_core *core, const struct hp_class *class_,
                      const struct hp_node *node, uint32_t depth)
{
    const struct hp_pool_node *entry = hp_idmap_find_ptr(&node->pools, class_->pool);
    (void)core;
    if (entry == NULL || entry->pid_count == 0 || entry->granted == 0 ||
        entry->pool->state == HP_SM_POOL_ENDING) {
        return 0;
    }
    uint64_t most = (uint64_t)entry->granted + entry->waiting;
    most = depth == 0 ? HP_MIN(most, (uint64_t)entry->pid_count)
                      : most * (entry->stuck ? 1 : depth);
    uint64_t room = most > entry->held ? most - entry->held : 0;
    uint64_t left = node->attempt_count < ATTEMPTS_MAX ? ATTEMPTS_MAX - node->attempt_count : 0;
    return (uint32_t)(room < left ? room : left);
}

bool hp_pool_is_granted(const struct hp_core *core, const struct hp_class *class_,
                        const struct hp_node *node)
{
    const struct hp_pool_node *entry = hp_idmap_find_ptr(&node->pools, class_->pool);
    (void)core;
    return entry != NULL && entry->granted > 0;
}

void hp_pool_attempt(struct hp_core *core, struct hp_attempt *attempt, bool begins)
{
    if (begins) {
        struct hp_pool *pool = hp_pool_found(core, attempt->spec->options.pool);
        attempt->pool_node = hp_pool_node_of(pool, attempt->node);
        attempt->pool_node->held++;
        pool->held++;
        return;
    }
    struct hp_pool *pool = attempt->pool_node->pool;
    HP_ASSERT(attempt->pool_node->held > 0 && pool->held > 0);
    attempt->pool_node->held--;
    pool->held--;
    if (pool->state != HP_SM_POOL_OPEN || !hp_node_is_up(attempt->node)) {
        hp_pools_touch(core);
    }
}
