/* SPDX-License-Identifier: BSD-2-Clause */
/* hp_core_dump: the state as text, sorted by id or name, so that two runs can be compared. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "server/core/state.h"

static void say(struct hp_buf *out, const char *format, ...) HP_PRINTF(2, 3);
static void say(struct hp_buf *out, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    hp_must(hp_buf_append(out, text, strlen(text)));
}

#define U(value) ((unsigned long long)(value))

/* ------------------------------------------------ what a map holds, by key */
struct entry {
    uint64_t key;
    void *item;
};

static int entry_order(const void *a, const void *b)
{
    const struct entry *x = a;
    const struct entry *y = b;
    return x->key < y->key ? -1 : x->key > y->key;
}

static struct entry *sorted(const struct hp_idmap *map, uint32_t *ret_count)
{
    struct entry *entries = hp_must_calloc((hp_idmap_count(map) + 1U) * sizeof(*entries));
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    uint32_t count = 0;
    while (hp_idmap_next(map, &iter, &entries[count].key, &value)) {
        entries[count++].item = (void *)(uintptr_t)value;
    }
    qsort(entries, count, sizeof(*entries), entry_order);
    *ret_count = count;
    return entries;
}

struct named {
    struct hp_str name;
    void *item;
};

static int named_order(const void *a, const void *b)
{
    return hp_str_compare(((const struct named *)a)->name, ((const struct named *)b)->name);
}

static struct named *sorted_names(const struct hp_strmap *map, uint32_t *ret_count)
{
    struct named *names = hp_must_calloc((hp_strmap_count(map) + 1U) * sizeof(*names));
    struct hp_strmap_iter iter = {0};
    uint64_t value = 0;
    uint32_t count = 0;
    while (hp_strmap_next(map, &iter, &names[count].name, &value)) {
        names[count++].item = (void *)(uintptr_t)value;
    }
    qsort(names, count, sizeof(*names), named_order);
    *ret_count = count;
    return names;
}

/* ------------------------------------------------ the parts */
static void dump_queues(const struct hp_core *core, struct hp_buf *out)
{
    uint32_t count = 0;
    struct named *names = sorted_names(&core->queues, &count);
    for (uint32_t i = 0; i < count; i++) {
        const struct hp_queue *queue = names[i].item;
        say(out, "queue %.*s paused=%d delayed=%llu running=%llu\n", HP_STR_ARG(queue->name),
            queue->paused, U(queue->delayed), U(queue->running));
    }
    hp_free(names);
    names = sorted_names(&core->ckeys, &count);
    for (uint32_t i = 0; i < count; i++) {
        const struct hp_ckey *ckey = names[i].item;
        say(out, "ckey %.*s max=%u running=%u\n", HP_STR_ARG(ckey->name), ckey->max,
            ckey->running);
    }
    hp_free(names);
}

static void dump_lane(const struct hp_lane *lane, struct hp_buf *out)
{
    say(out,
        "lane %u queue=%.*s priority=%u class=%u ready=%llu memory=%llu parked=%u running=%u "
        "head=%llu load=%llu next=%llu\n",
        lane->id, HP_STR_ARG(lane->queue->name), lane->priority, lane->class_->id,
        U(lane->ready_count), U(lane->memory_count), lane->parked_count, lane->running,
        U(lane->head_segment), U(lane->load_segment), U(lane->next_segment));
    for (uint32_t i = 0; i < lane->run_count; i++) {
        const struct hp_run *run = &lane->runs[(lane->run_head + i) & (lane->run_capacity - 1)];
        say(out, "  run %llu+%u since=%lld segment=%llu %s\n", U(run->first), run->count,
            (long long)run->since_ms, U(run->segment), run->group != NULL ? "warm" : "cold");
    }
    HP_LIST_FOR_EACH (link, &lane->parked) {
        const struct hp_parked *parked = HP_CONTAINER_OF(link, struct hp_parked, link);
        say(out, "  parked %llu attempt=%u failures=%u losses=%u releases=%u\n", U(parked->id),
            parked->attempt, parked->failures, parked->losses, parked->releases);
    }
}

static void dump_lanes(const struct hp_core *core, struct hp_buf *out)
{
    uint32_t count = 0;
    struct entry *entries = sorted(&core->lanes, &count);
    for (uint32_t i = 0; i < count; i++) {
        dump_lane(entries[i].item, out);
    }
    hp_free(entries);
}

static void dump_nodes(const struct hp_core *core, struct hp_buf *out)
{
    static const char *const states[] = {"none", "online", "away", "offline"};
    uint32_t count = 0;
    struct entry *entries = sorted(&core->nodes, &count);
    for (uint32_t i = 0; i < count; i++) {
        const struct hp_node *node = entries[i].item;
        say(out, "node %u %.*s state=%s conn=%llu draining=%d slots=%u cpus=%u light=%u "
                 "attempts=%u lease_end=%llu\n",
            node->number, HP_STR_ARG(node->name), node->state < 4 ? states[node->state] : "?",
            U(node->conn != NULL ? node->conn->id : 0), node->draining, node->slots,
            node->used_cpus, node->light_count, node->attempt_count, U(node->lease_end_ms));
    }
    hp_free(entries);
}

static void dump_pools(const struct hp_core *core, struct hp_buf *out)
{
    HP_LIST_FOR_EACH (link, &core->pool_list) {
        const struct hp_pool *pool = HP_CONTAINER_OF(link, struct hp_pool, link);
        say(out,
            "pool %llu state=%s loaded=%d detached=%d broken=%d cancelled=%d live=%llu "
            "delayed=%llu memory=%llu held=%u up=%u contents=%u orphan_at=%llu\n",
            U(pool->id), hp_pool_state_name((enum hp_pool_state)pool->state), pool->loaded,
            pool->detached, pool->broken, pool->cancelled, U(hp_pool_live(pool)), U(pool->delayed),
            U(pool->memory_live), pool->held, pool->up, pool->content_count,
            U(pool->orphan_at_ms));
        HP_LIST_FOR_EACH (at, &pool->nodes) {
            const struct hp_pool_node *entry = HP_CONTAINER_OF(at, struct hp_pool_node, link);
            say(out, "  on %u granted=%u told=%u%s up=%u waiting=%u held=%u failures=%u%s\n",
                entry->node->number, entry->granted, entry->told,
                entry->is_told ? "" : " (not since it registered)", entry->pid_count,
                entry->waiting, entry->held, entry->failures,
                entry->quarantined ? " quarantined" : "");
        }
    }
}

static void dump_attempts(const struct hp_core *core, struct hp_buf *out)
{
    uint32_t count = 0;
    struct entry *entries = sorted(&core->attempts, &count);
    for (uint32_t i = 0; i < count; i++) {
        const struct hp_attempt *attempt = entries[i].item;
        say(out, "attempt %llu.%u epoch=%llu state=%s node=%u lease=%llu failures=%u losses=%u "
                 "releases=%u\n",
            U(attempt->id), attempt->attempt, U(attempt->epoch),
            hp_task_state_name((enum hp_task_state)attempt->state), attempt->node->number,
            U(attempt->lease != NULL ? attempt->lease->number : 0), attempt->failures,
            attempt->losses, attempt->releases);
    }
    hp_free(entries);
}

static void dump_timers(const struct hp_core *core, struct hp_buf *out)
{
    const struct hp_idmap *maps[] = {&core->timers, &core->expiries};
    for (int k = 0; k < 2; k++) {
        uint32_t count = 0;
        struct entry *entries = sorted(maps[k], &count);
        for (uint32_t i = 0; i < count; i++) {
            const struct hp_timer *timer = entries[i].item;
            say(out, "timer %llu+%u kind=%d at=%lld attempt=%u%s\n", U(timer->side.first),
                timer->side.count, (int)timer->side.kind, (long long)timer->side.run_at_ms,
                timer->side.attempt, timer->loading ? " loading" : "");
        }
        hp_free(entries);
    }
    if (core->timers_more) {
        say(out, "timers more after %lld %llu%s\n", (long long)core->timer_mark_ms,
            U(core->timer_mark_first), core->timers_loading ? " loading" : "");
    }
}

static void dump_conns(const struct hp_core *core, struct hp_buf *out)
{
    uint32_t count = 0;
    struct entry *entries = sorted(&core->conns, &count);
    for (uint32_t i = 0; i < count; i++) {
        const struct hp_conn *conn = entries[i].item;
        say(out, "conn %llu state=%d node=%u closing=%d paused=%d blocked=%d\n", U(conn->id),
            conn->state, conn->node != NULL ? conn->node->number : 0, conn->closing, conn->paused,
            conn->blocked);
    }
    hp_free(entries);
    struct named *names = sorted_names(&core->sessions, &count);
    for (uint32_t i = 0; i < count; i++) {
        const struct hp_session *session = names[i].item;
        say(out, "session ");
        for (size_t k = 0; k < sizeof(session->id); k++) {
            say(out, "%02x", session->id[k]);
        }
        say(out, " conn=%llu last=%llu acked=%llu memos=%u\n",
            U(session->conn != NULL ? session->conn->id : 0), U(session->last_number),
            U(session->acked), session->memo_count);
    }
    hp_free(names);
}

static void dump_loads(const struct hp_core *core, struct hp_buf *out)
{
    HP_LIST_FOR_EACH (link, &core->pending_list) {
        const struct hp_pending *pending = HP_CONTAINER_OF(link, struct hp_pending, link);
        say(out, "pending %llu kind=%d conn=%llu lane=%u id=%llu\n", U(pending->cookie),
            (int)pending->kind, U(pending->conn), pending->lane, U(pending->id));
    }
    for (uint32_t i = 0; i < core->recent_count; i++) {
        const struct hp_recent *recent =
            &core->recents[(core->recent_head + i) & (core->recent_capacity - 1)];
        say(out, "recent %llu+%u %s batch=%llu\n", U(recent->id), recent->count,
            recent->ended ? "ended" : "moved", U(recent->batch));
    }
}

void hp_core_dump(const struct hp_core *core, struct hp_buf *out)
{
    say(out, "core now=%llu wall=%lld epoch=%llu batch=%llu durable=%llu next_id=%llu "
             "reserved=%llu backlog=%llu payload_bytes=%llu draining=%d\n",
        U(core->now_ms), (long long)core->wall_ms, U(core->epoch), U(core->batch_number),
        U(core->durable_number), U(core->next_id), U(core->reserved_id), U(core->backlog_ops),
        U(core->payload_bytes), core->draining);
    dump_queues(core, out);
    dump_lanes(core, out);
    dump_nodes(core, out);
    dump_pools(core, out);
    dump_attempts(core, out);
    dump_timers(core, out);
    dump_conns(core, out);
    dump_loads(core, out);
}
