/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Crews: the children of functions, which are always there, and those of pools, which the broker
 * orders by numbers. A pool's children are started, set up, replaced and ended here; what they run
 * is placed by sched.c.
 */
#include <signal.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "worker/core/state.h"

#define RETRY_MS 100u /* after the first failed set-up; doubled for each further one */
#define RETRY_MS_MAX 10000u
#define REPORT_PIDS_MAX 4096u
#define QUICK_DEATHS 3u

void hp_agent_crews_init(struct hp_agent *agent)
{
    hp_list_init(&agent->crews);
    struct hp_agent_crew *crew = &agent->functions;
    hp_list_init(&crew->link);
    hp_list_init(&crew->children);
    hp_list_init(&crew->waiting);
    hp_list_push_back(&agent->crews, &crew->link);
    for (uint32_t i = 0; i < agent->child_capacity; i++) {
        struct hp_agent_child *child = &agent->children[i];
        hp_list_init(&child->runs);
        hp_list_init(&child->crew_link);
        child->recall_ms = HP_AGENT_NEVER;
        if (i < agent->child_count) {
            child->crew = crew;
            hp_list_push_back(&crew->children, &child->crew_link);
        }
    }
}

static void fetch_free(struct hp_agent *agent, struct hp_agent_crew *crew)
{
    if (crew->fetch != NULL) {
        hp_agent_fetch_clear(agent, crew->fetch);
        hp_free(crew->fetch);
        crew->fetch = NULL;
    }
}

static void crew_free(struct hp_agent *agent, struct hp_agent_crew *crew)
{
    fetch_free(agent, crew);
    hp_list_remove(&crew->link);
    hp_arena_deinit(&crew->arena);
    hp_free(crew);
}

void hp_agent_crews_deinit(struct hp_agent *agent)
{
    if (agent->crews.next == NULL) {
        return; /* never begun */
    }
    HP_LIST_FOR_EACH_SAFE (node, &agent->crews) {
        struct hp_agent_crew *crew = HP_LIST_ENTRY(node, struct hp_agent_crew, link);
        if (crew->pool != 0) {
            crew_free(agent, crew);
        }
    }
}

struct hp_agent_crew *hp_agent_crew_find(struct hp_agent *agent, uint64_t pool)
{
    HP_LIST_FOR_EACH (node, &agent->crews) {
        struct hp_agent_crew *crew = HP_LIST_ENTRY(node, struct hp_agent_crew, link);
        if (crew->pool == pool && pool != 0) {
            return crew;
        }
    }
    return NULL;
}

static void changed(struct hp_agent *agent, struct hp_agent_crew *crew)
{
    crew->changed = true;
    agent->reports_due = true;
}

/* ----------------------------------------------------------------------- orders by the broker */

static enum hp_err crew_fill(struct hp_agent_crew *crew, const struct hp_st_pool_order *order)
{
    const struct hp_st_task_options *options = &order->options;
    crew->calls_max = options->calls_per_child;
    crew->kill_grace_ms = options->kill_grace_ms;
    crew->fence = options->on_partition == HP_ON_PARTITION_KILL;
    enum hp_err err = hp_arena_copy_str(&crew->arena, options->language, &crew->language);
    err = err == HP_OK ? hp_arena_copy_str(&crew->arena, options->interpreter, &crew->interpreter)
                       : err;
    err = err == HP_OK ? hp_arena_copy_str(&crew->arena, options->fn, &crew->fn) : err;
    if (err == HP_OK && (order->has & HP_HAS_ST_POOL_ORDER_BLOB) != 0 && order->blob != 0) {
        crew->fetch = hp_calloc(1, sizeof(*crew->fetch));
        if (crew->fetch == NULL) {
            return HP_ERR_NOMEM;
        }
        crew->fetch->blob = order->blob;
        return HP_OK;
    }
    crew->ready = true;
    return err == HP_OK ? hp_arena_copy_bin(&crew->arena, order->payload, &crew->payload) : err;
}

/* NULL: no memory; the broker orders again when this worker registers again. */
static struct hp_agent_crew *crew_new(struct hp_agent *agent, const struct hp_st_pool_order *order)
{
    struct hp_agent_crew *crew = hp_calloc(1, sizeof(*crew));
    if (crew == NULL) {
        return NULL;
    }
    crew->pool = order->pool;
    hp_arena_init(&crew->arena, 1024, (size_t)1 << 20);
    hp_list_init(&crew->link);
    hp_list_init(&crew->children);
    hp_list_init(&crew->waiting);
    struct hp_list *before = &agent->crews; /* sorted: ties are broken by id */
    HP_LIST_FOR_EACH (node, &agent->crews) {
        if (HP_LIST_ENTRY(node, struct hp_agent_crew, link)->pool > crew->pool) {
            before = node;
            break;
        }
    }
    hp_list_push_back(before, &crew->link); /* in front of `before` */
    if (crew_fill(crew, order) != HP_OK) {
        crew_free(agent, crew);
        return NULL;
    }
    return crew;
}

static void end_waiting(struct hp_agent *agent, struct hp_agent_crew *crew)
{
    for (;;) {
        struct hp_list *node = hp_list_first(&crew->waiting);
        if (node == NULL) {
            break;
        }
        hp_agent_end_unstarted(agent, HP_LIST_ENTRY(node, struct hp_agent_run, link),
                               HP_REASON_POOL_ENDED, "the pool was terminated");
    }
    HP_LIST_FOR_EACH_SAFE (node, &agent->fetching) {
        struct hp_agent_run *run = HP_LIST_ENTRY(node, struct hp_agent_run, link);
        if (run->parcel->crew == crew) {
            hp_agent_end_unstarted(agent, run, HP_REASON_POOL_ENDED, "the pool was terminated");
        }
    }
}

/* Ends a child that runs no call. */
static void kill_child(struct hp_agent *agent, struct hp_agent_child *child)
{
    if (child->killed || child->gone) {
        return;
    }
    child->killed = true;
    struct hp_agent_effect *effect = hp_agent_effect_add(agent, HP_AGENT_CHILD_STOP);
    effect->child = (uint32_t)(child - agent->children);
    effect->signal = SIGKILL;
}

/* The pool is terminated: what runs is ended, what waits never begins. */
static void kill_crew(struct hp_agent *agent, struct hp_agent_crew *crew)
{
    crew->orphaned = true;
    crew->kill_at_ms = agent->now_ms + crew->kill_grace_ms;
    end_waiting(agent, crew);
    HP_LIST_FOR_EACH_SAFE (node, &crew->children) {
        struct hp_agent_child *child = HP_LIST_ENTRY(node, struct hp_agent_child, crew_link);
        uint32_t index = (uint32_t)(child - agent->children);
        if (child->count > 1) {
            hp_agent_recall_child(agent, index);
        }
        struct hp_list *head = hp_list_first(&child->runs);
        if (head != NULL) {
            hp_agent_run_end_pool(agent, HP_LIST_ENTRY(head, struct hp_agent_run, link),
                                  crew->kill_grace_ms);
        } else if (!child->is_set_up) { /* an initializer may run for ever */
            kill_child(agent, child);
        }
    }
}

static void on_order(struct hp_agent *agent, const struct hp_st_pool_order *order)
{
    struct hp_agent_crew *crew = hp_agent_crew_find(agent, order->pool);
    if (crew == NULL) {
        crew = order->children > 0 && order->pool != 0 ? crew_new(agent, order) : NULL;
        if (crew == NULL) {
            return;
        }
    }
    crew->named = true;
    crew->target = order->children;
    changed(agent, crew);
    if (order->children > 0) {
        crew->orphaned = false;
    } else if (order->kill && !crew->orphaned) {
        kill_crew(agent, crew);
    }
}

void hp_agent_on_pool(struct hp_agent *agent, const struct hp_msg_worker_pool *msg)
{
    for (uint32_t i = 0; i < msg->pools.count; i++) {
        on_order(agent, &msg->pools.items[i]);
    }
    if (!msg->complete) {
        return;
    }
    HP_LIST_FOR_EACH_SAFE (node, &agent->crews) {
        struct hp_agent_crew *crew = HP_LIST_ENTRY(node, struct hp_agent_crew, link);
        if (crew->pool != 0 && !crew->named) {
            crew->target = 0;
            kill_crew(agent, crew);
        }
    }
}

void hp_agent_crews_registered(struct hp_agent *agent)
{
    HP_LIST_FOR_EACH (node, &agent->crews) {
        struct hp_agent_crew *crew = HP_LIST_ENTRY(node, struct hp_agent_crew, link);
        crew->named = false;
        if (crew->pool != 0) {
            changed(agent, crew);
        }
    }
}

void hp_agent_crew_fetched(struct hp_agent *agent, struct hp_agent_crew *crew, const char *why)
{
    if (why == NULL) {
        if (crew->fetch->file == NULL) {
            crew->payload = hp_bin_make(crew->fetch->data, crew->fetch->size);
        }
        crew->ready = true;
        return;
    }
    crew->failures = HP_MAX(crew->failures, 3u); /* trying again does not help */
    size_t size = HP_MIN(strlen(why), sizeof(crew->error) - 1);
    memcpy(crew->error, why, size);
    crew->error[size] = '\0';
    changed(agent, crew);
}

/* ------------------------------------------------------------------------------------ reports */

static struct hp_st_pool_report report(struct hp_agent *agent, const struct hp_agent_crew *crew)
{
    struct hp_st_pool_report made = {
        .has = HP_HAS_ST_POOL_REPORT_POOL | HP_HAS_ST_POOL_REPORT_PIDS |
               HP_HAS_ST_POOL_REPORT_WAITING | HP_HAS_ST_POOL_REPORT_FAILURES,
        .pool = crew->pool,
        .failures = crew->failures,
    };
    made.pids.items = hp_agent_fx_alloc(agent, (crew->up + 1) * sizeof(uint64_t));
    HP_LIST_FOR_EACH (node, &crew->children) {
        const struct hp_agent_child *child =
            HP_LIST_ENTRY(node, const struct hp_agent_child, crew_link);
        if (child->is_set_up && !child->stopping && made.pids.count < REPORT_PIDS_MAX) {
            made.pids.items[made.pids.count++] = child->pid;
        }
        made.waiting += child->waits && !child->gone; /* a stopping one holds its call, too */
    }
    if (crew->error[0] != '\0') {
        made.error = hp_str_of(crew->error);
        made.has |= HP_HAS_ST_POOL_REPORT_ERROR;
    }
    return made;
}

/* Tells the broker, if there is news. */
static void flush_report(struct hp_agent *agent, struct hp_agent_crew *crew)
{
    if (crew->pool == 0 || !crew->changed || agent->link != HP_AGENT_LINK_UP) {
        return;
    }
    crew->changed = false;
    struct hp_st_pool_report one = report(agent, crew);
    struct hp_msg_worker_pool_report msg = {.has = HP_HAS_WORKER_POOL_REPORT_POOLS,
                                            .pools = {.items = &one, .count = 1}};
    hp_agent_notify(agent, HP_METHOD_WORKER_POOL_REPORT, &hp_desc_msg_worker_pool_report, &msg);
}

void hp_agent_flush_reports(struct hp_agent *agent)
{
    if (!agent->reports_due || agent->link != HP_AGENT_LINK_UP) {
        return;
    }
    agent->reports_due = false;
    HP_LIST_FOR_EACH (node, &agent->crews) {
        flush_report(agent, HP_LIST_ENTRY(node, struct hp_agent_crew, link));
    }
}

/* ----------------------------------------------------------------------------- children's life */

static uint64_t backoff_ms(uint32_t count)
{
    uint32_t shift = HP_MIN(count > 0 ? count - 1 : 0u, 10u);
    return HP_MIN((uint64_t)RETRY_MS << shift, (uint64_t)RETRY_MS_MAX);
}

static void count_child(struct hp_agent_crew *crew, const struct hp_agent_child *child, int by)
{
    bool live = !child->stopping;
    bool up = live && child->is_set_up;
    crew->live = (uint32_t)((int64_t)crew->live + (live ? by : 0));
    crew->up = (uint32_t)((int64_t)crew->up + (up ? by : 0));
    crew->waits = (uint32_t)((int64_t)crew->waits + (live && child->waits ? by : 0));
}

static void on_up(struct hp_agent *agent, struct hp_agent_child *child,
                  const struct hp_agent_event *event)
{
    struct hp_agent_crew *crew = child->crew;
    child->up = true;
    if (crew == NULL || crew->pool == 0 || child->is_set_up) {
        return;
    }
    count_child(crew, child, -1);
    child->is_set_up = true;
    child->pid = event->pid;
    count_child(crew, child, 1);
    crew->failures = 0;
    crew->retry_at_ms = 0;
    crew->error[0] = '\0';
    changed(agent, crew);
}

static void note_failure(struct hp_agent *agent, struct hp_agent_crew *crew,
                         const struct hp_agent_event *event)
{
    crew->failures++;
    crew->retry_at_ms = agent->now_ms + backoff_ms(crew->failures);
    struct hp_str text = event->error;
    if (text.size >= sizeof(crew->error)) { /* the end of it says most */
        text.data += text.size - (sizeof(crew->error) - 1);
        text.size = sizeof(crew->error) - 1;
    }
    uint32_t size = hp_wire_str_clean(text, crew->error, sizeof(crew->error) - 1);
    crew->error[size] = '\0';
    hp_agent_log(agent, HP_AGENT_LOG_WARN, "pool %llu: a child could not be set up: %s",
                 (unsigned long long)crew->pool, crew->error);
}

static void free_child(struct hp_agent_child *child)
{
    hp_list_remove(&child->crew_link);
    *child = (struct hp_agent_child){.recall_ms = HP_AGENT_NEVER};
    hp_list_init(&child->runs);
    hp_list_init(&child->crew_link);
}

/* Frees children that were gone when their last calls were given to them, once these are back. */
static void free_gone(struct hp_agent_crew *crew)
{
    HP_LIST_FOR_EACH_SAFE (node, &crew->children) {
        struct hp_agent_child *child = HP_LIST_ENTRY(node, struct hp_agent_child, crew_link);
        if (child->gone && child->count == 0) {
            free_child(child);
        }
    }
}

/* The process of a pool's child is gone. The calls it took were reported before; those that were
 * given to it meanwhile are refused, and come back. */
static void on_gone(struct hp_agent *agent, struct hp_agent_child *child,
                    const struct hp_agent_event *event)
{
    struct hp_agent_crew *crew = child->crew;
    HP_ASSERT(crew != NULL && crew->pool != 0 && !child->gone);
    count_child(crew, child, -1);
    bool by_itself = !event->recycled && !child->stopping;
    if (event->init_failed && !child->stopping) {
        note_failure(agent, crew, event);
    } else if (by_itself && !child->served && ++crew->quick_deaths > QUICK_DEATHS) {
        /* Set up, and dead before any call has ended, again and again: not without a pause. */
        crew->retry_at_ms = agent->now_ms + backoff_ms(crew->quick_deaths - QUICK_DEATHS);
    }
    child->gone = child->stopping = true; /* it counts no more */
    child->up = false;
    changed(agent, crew);
}

void hp_agent_on_child(struct hp_agent *agent, const struct hp_agent_event *event)
{
    HP_ASSERT(event->child < agent->child_capacity);
    struct hp_agent_child *child = &agent->children[event->child];
    if (child->crew == NULL) {
        return; /* of a slot that is free again */
    }
    if (event->kind == HP_AGENT_EXEC_CHILD_UP) {
        on_up(agent, child, event);
    } else if (event->kind == HP_AGENT_EXEC_CHILD_WAITS) {
        count_child(child->crew, child, -1);
        child->waits = event->on;
        count_child(child->crew, child, 1);
        changed(agent, child->crew);
        if (event->on && child->count > 1) {
            hp_agent_recall_child(agent, event->child);
        }
    } else if (event->gone) {
        on_gone(agent, child, event);
    } else {
        child->up = false;
    }
}

static void start_child(struct hp_agent *agent, struct hp_agent_crew *crew, uint32_t index)
{
    struct hp_agent_child *child = &agent->children[index];
    struct hp_agent_pool_child *start = hp_agent_fx_alloc(agent, sizeof(*start));
    *start = (struct hp_agent_pool_child){.pool = crew->pool,
                                          .language = crew->language,
                                          .interpreter = crew->interpreter,
                                          .fn = crew->fn,
                                          .payload = crew->payload,
                                          .payload_bytes = crew->payload.size,
                                          .calls_max = crew->calls_max,
                                          .fence = crew->fence};
    if (crew->fetch != NULL && crew->fetch->file != NULL) {
        start->payload_file = crew->fetch->file;
        start->payload_bytes = crew->fetch->size;
    }
    child->crew = crew;
    hp_list_push_back(&crew->children, &child->crew_link);
    count_child(crew, child, 1);
    struct hp_agent_effect *effect = hp_agent_effect_add(agent, HP_AGENT_CHILD_START);
    effect->child = index;
    effect->start = start;
}

static void stop_child(struct hp_agent *agent, struct hp_agent_child *child)
{
    count_child(child->crew, child, -1);
    child->stopping = true;
    uint32_t index = (uint32_t)(child - agent->children);
    if (child->count > 1) {
        hp_agent_recall_child(agent, index);
    }
    hp_agent_effect_add(agent, HP_AGENT_CHILD_STOP)->child = index;
    changed(agent, child->crew);
}

void hp_agent_child_served(struct hp_agent *agent, struct hp_agent_child *child)
{
    child->served = true;
    child->crew->quick_deaths = 0;
    bool has_had_all = child->count == 0 && hp_agent_child_calls_left(child) == 0;
    if (has_had_all && child->crew->pool != 0 && !child->stopping) {
        stop_child(agent, child); /* the next one is started while it ends */
    }
}

/* Ends up to `count` children: those that have nothing to do first, those that wait last. */
static void stop_surplus(struct hp_agent *agent, struct hp_agent_crew *crew, uint32_t count)
{
    for (int round = 0; round < 3; round++) {
        HP_LIST_FOR_EACH_SAFE (node, &crew->children) {
            struct hp_agent_child *child = HP_LIST_ENTRY(node, struct hp_agent_child, crew_link);
            bool may = child->count == 0 || (round == 1 && !child->waits) || round == 2;
            if (count > 0 && !child->stopping && may) {
                stop_child(agent, child);
                count--;
            }
        }
    }
}

/* Children that have nothing to do, or are to be set up yet. */
static uint32_t count_spare(const struct hp_agent_crew *crew)
{
    uint32_t spare = 0;
    HP_LIST_FOR_EACH (node, &crew->children) {
        const struct hp_agent_child *child =
            HP_LIST_ENTRY(node, const struct hp_agent_child, crew_link);
        spare += !child->stopping && !child->waits && child->count == 0;
    }
    return spare;
}

/* Children that the crew is to have now: more while some wait for others, if there is work. */
static uint32_t wanted(const struct hp_agent *agent, const struct hp_agent_crew *crew)
{
    if (crew->orphaned || agent->draining_self) {
        return 0;
    }
    if (crew->target == 0) { /* it ends in order: what it has is run */
        return crew->held > 0 && crew->waiting_count > 0 ? HP_MAX(crew->live, 1u) : 0;
    }
    uint32_t running = crew->live - crew->waits;
    if (crew->waits == 0 || crew->waiting_count == 0 || running >= crew->target) {
        return crew->target;
    }
    uint32_t spare = count_spare(crew);
    uint32_t short_of = crew->waiting_count > spare ? crew->waiting_count - spare : 0;
    return HP_MAX(crew->target, crew->live + HP_MIN(short_of, crew->target - running));
}

static void adjust(struct hp_agent *agent, struct hp_agent_crew *crew, uint32_t *free_slot)
{
    uint32_t want = wanted(agent, crew);
    bool lasts = crew->target > 0 && !crew->orphaned && !agent->draining_self;
    uint32_t keep = lasts ? crew->target + crew->waits : want;
    if (crew->live > keep) {
        stop_surplus(agent, crew, crew->live - keep);
    }
    bool may_start = crew->ready && agent->now_ms >= crew->retry_at_ms && !agent->fenced &&
                     !agent->draining_self && !agent->stopping;
    while (may_start && crew->live < want) {
        while (*free_slot < agent->child_capacity && agent->children[*free_slot].crew != NULL) {
            (*free_slot)++;
        }
        if (*free_slot == agent->child_capacity) {
            return; /* the broker asks for no more than children_max; these are still ending */
        }
        start_child(agent, crew, *free_slot);
        if (crew->failures > 0 || crew->quick_deaths > QUICK_DEATHS) {
            crew->retry_at_ms = agent->now_ms + backoff_ms(crew->failures + 1);
            return; /* one at a time until one is set up */
        }
    }
}

/* Of a terminated pool: those that should have ended by now, and run nothing, are killed. */
static void kill_rest(struct hp_agent *agent, struct hp_agent_crew *crew)
{
    if (!crew->orphaned || agent->now_ms < crew->kill_at_ms) {
        return;
    }
    HP_LIST_FOR_EACH (node, &crew->children) {
        struct hp_agent_child *child = HP_LIST_ENTRY(node, struct hp_agent_child, crew_link);
        if (child->count == 0) {
            kill_child(agent, child);
        }
    }
}

void hp_agent_crews_tick(struct hp_agent *agent)
{
    uint32_t free_slot = agent->config.slots;
    HP_LIST_FOR_EACH_SAFE (node, &agent->crews) {
        struct hp_agent_crew *crew = HP_LIST_ENTRY(node, struct hp_agent_crew, link);
        if (crew->pool == 0) {
            continue;
        }
        free_gone(crew);
        adjust(agent, crew, &free_slot);
        kill_rest(agent, crew);
        bool is_over = crew->target == 0 || crew->orphaned;
        if (is_over && hp_list_is_empty(&crew->children) && crew->held == 0) {
            flush_report(agent, crew);
            hp_agent_effect_add(agent, HP_AGENT_POOL_GONE)->pool = crew->pool;
            crew_free(agent, crew);
        }
    }
}

bool hp_agent_crews_have_children(const struct hp_agent *agent)
{
    bool some = false;
    HP_LIST_FOR_EACH (node, &agent->crews) {
        const struct hp_agent_crew *crew = HP_LIST_ENTRY(node, const struct hp_agent_crew, link);
        some = some || (crew->pool != 0 && !hp_list_is_empty(&crew->children));
    }
    return some;
}

uint64_t hp_agent_crews_deadline_ms(const struct hp_agent *agent)
{
    uint64_t at_ms = HP_AGENT_NEVER;
    HP_LIST_FOR_EACH (node, &agent->crews) {
        const struct hp_agent_crew *crew = HP_LIST_ENTRY(node, const struct hp_agent_crew, link);
        if (crew->pool == 0) {
            continue;
        }
        bool waits = crew->live < wanted(agent, crew) && crew->ready;
        if (waits && crew->retry_at_ms > agent->now_ms) {
            at_ms = HP_MIN(at_ms, crew->retry_at_ms);
        }
        if (crew->orphaned && crew->kill_at_ms > agent->now_ms) {
            at_ms = HP_MIN(at_ms, crew->kill_at_ms);
        }
        if (crew->fetch != NULL && !crew->ready && agent->link == HP_AGENT_LINK_UP) {
            uint64_t get_ms = HP_MAX(crew->fetch->wait_until_ms, agent->blob_hold_ms);
            at_ms = get_ms > agent->now_ms ? HP_MIN(at_ms, get_ms) : at_ms;
        }
    }
    return at_ms;
}

void hp_agent_crew_check(const struct hp_agent *agent)
{
    HP_LIST_FOR_EACH (node, &agent->crews) {
        const struct hp_agent_crew *crew = HP_LIST_ENTRY(node, const struct hp_agent_crew, link);
        uint32_t live = 0;
        uint32_t up = 0;
        uint32_t waits = 0;
        HP_LIST_FOR_EACH (at, &crew->children) {
            const struct hp_agent_child *child =
                HP_LIST_ENTRY(at, const struct hp_agent_child, crew_link);
            HP_ASSERT(child->crew == crew);
            live += !child->stopping;
            up += !child->stopping && child->is_set_up;
            waits += !child->stopping && child->waits;
        }
        HP_ASSERT(crew->pool == 0 ||
                  (live == crew->live && up == crew->up && waits == crew->waits));
    }
}
