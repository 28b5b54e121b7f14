/* SPDX-License-Identifier: BSD-2-Clause */
/* Tasks that are not durable: what a store row is for others is kept here, see volatile.h. */
#include "server/core/state.h"

enum {
    KEEP_MS = 10000, /* a result is not dropped for others before, if it can be helped */
    SWEEP_EVERY_MS = 10000,
    SWEEP_SLOTS = 20000,
    DUE_SLICE = 4096,
    COMPACT_MIN = 64,
};

static struct hp_vend gone; /* stands in ends[] for what is not kept any more */

bool hp_vend_is_gone(const struct hp_vend *end)
{
    return end == &gone;
}

size_t hp_vgroup_bytes(const struct hp_vgroup *group)
{
    return sizeof(*group) + (size_t)group->count * sizeof(group->ends[0]);
}

size_t hp_vend_bytes(const struct hp_vend *end)
{
    return sizeof(*end) + end->end_size;
}

static bool vtimer_before(const struct hp_heap_node *a, const struct hp_heap_node *b)
{
    const struct hp_vtimer *x = HP_CONTAINER_OF(a, struct hp_vtimer, heap_node);
    const struct hp_vtimer *y = HP_CONTAINER_OF(b, struct hp_vtimer, heap_node);
    if (x->run_at_ms != y->run_at_ms) {
        return x->run_at_ms < y->run_at_ms;
    }
    return x->id != y->id ? x->id < y->id : x->kind < y->kind;
}

void hp_volatile_init(struct hp_core *core, uint64_t seed)
{
    struct hp_volatile *vol = &core->vol;
    hp_list_init(&vol->ends);
    hp_list_init(&vol->blob_idle);
    hp_heap_init(&vol->timers, vtimer_before);
    hp_idmap_init(&vol->returned, seed);
    hp_idmap_init(&vol->blobs, seed);
    hp_idmap_init(&vol->owned, seed);
    vol->next_blob = 1;
}

/* ------------------------------------------------ groups by id */
uint32_t hp_volatile_slot(const struct hp_core *core, uint64_t id)
{
    const struct hp_volatile *vol = &core->vol;
    uint32_t low = 0;
    uint32_t high = vol->slot_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (vol->slots[middle].first <= id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low > 0 ? low - 1 : 0;
}

struct hp_vgroup *hp_volatile_group(const struct hp_core *core, uint64_t id)
{
    if (core->vol.live_count == 0) {
        return NULL;
    }
    struct hp_vgroup *group = core->vol.slots[hp_volatile_slot(core, id)].group;
    return group != NULL && id >= group->first && id - group->first < group->count ? group : NULL;
}

static void compact(struct hp_volatile *vol)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < vol->slot_count; i++) {
        if (vol->slots[i].group != NULL) {
            vol->slots[kept++] = vol->slots[i];
        }
    }
    vol->slot_count = kept;
}

static void add_slot(struct hp_volatile *vol, struct hp_vgroup *group)
{
    HP_ASSERT(vol->slot_count == 0 || vol->slots[vol->slot_count - 1].first < group->first);
    if (vol->slot_count == vol->slot_capacity) {
        vol->slot_capacity = vol->slot_capacity == 0 ? 64 : vol->slot_capacity * 2;
        vol->slots = hp_realloc_array(vol->slots, vol->slot_capacity, sizeof(*vol->slots));
        HP_ASSERT(vol->slots != NULL);
    }
    vol->slots[vol->slot_count++] = (struct hp_vslot){.first = group->first, .group = group};
    vol->live_count++;
    vol->task_count += group->count;
}

static void remove_slot(struct hp_core *core, struct hp_vgroup *group)
{
    struct hp_volatile *vol = &core->vol;
    struct hp_vslot *slot = &vol->slots[hp_volatile_slot(core, group->first)];
    HP_ASSERT(slot->group == group);
    slot->group = NULL;
    vol->live_count--;
    vol->task_count -= group->count;
}

/* Not within a walk over the slots. */
static void compact_if_hollow(struct hp_volatile *vol)
{
    if (vol->slot_count >= COMPACT_MIN && vol->live_count < vol->slot_count / 2) {
        compact(vol);
    }
}

/* ------------------------------------------------ timers */
static struct hp_vtimer *timer_new(struct hp_core *core, enum hp_vtimer_kind kind,
                                   struct hp_vgroup *group, uint64_t id, int64_t run_at_ms)
{
    struct hp_vtimer *timer = hp_must_calloc(sizeof(*timer));
    timer->kind = kind;
    timer->group = group;
    timer->id = id;
    timer->run_at_ms = run_at_ms;
    hp_must(hp_heap_push(&core->vol.timers, &timer->heap_node));
    return timer;
}

static void timer_free(struct hp_core *core, struct hp_vtimer *timer)
{
    if (timer == NULL) {
        return;
    }
    hp_heap_remove(&core->vol.timers, &timer->heap_node);
    if (timer->kind == HP_VTIMER_RETURNED) {
        (void)hp_idmap_remove(&core->vol.returned, timer->id, NULL);
    } else if (timer->kind == HP_VTIMER_DELAY) {
        timer->group->delay = NULL;
    } else {
        timer->group->expiry = NULL;
    }
    hp_free(timer);
}

/* ------------------------------------------------ the end of it all */
static void drop_payloads(struct hp_core *core, struct hp_vgroup *group)
{
    timer_free(core, group->delay);
    timer_free(core, group->expiry);
    struct hp_group *payloads = group->payloads;
    struct hp_session *session = group->session;
    group->payloads = NULL;
    group->session = NULL;
    hp_group_unref(core, payloads);
    if (session != NULL) {
        hp_session_unref(core, session);
    }
}

static void free_end(struct hp_core *core, struct hp_vgroup *group, uint32_t index)
{
    struct hp_vend *end = group->ends[index];
    HP_ASSERT(end != NULL);
    if (end == &gone) {
        return;
    }
    group->ends[index] = &gone;
    group->gone++;
    core->vol.bytes -= hp_vend_bytes(end);
    core->vol.end_count--;
    hp_list_remove(&end->link);
    hp_free(end);
    hp_vblob_drop_owned(core, group->first + index);
    if (group->has_files) {
        hp_forget_add(core, group->first + index, group->first + index + 1);
    }
}

/* All its tasks have ended and are gone. */
static void group_free(struct hp_core *core, struct hp_vgroup *group)
{
    HP_ASSERT(group->gone == group->count && group->payloads == NULL);
    remove_slot(core, group);
    core->vol.bytes -= hp_vgroup_bytes(group);
    struct hp_spec *spec = group->spec;
    hp_free(group);
    hp_spec_unref(core, spec);
}

static void forget_part(struct hp_core *core, struct hp_vgroup *group, uint64_t first, uint64_t end)
{
    uint32_t from = first > group->first ? (uint32_t)(first - group->first) : 0;
    uint64_t to = end - group->first;
    for (uint32_t i = from; i < group->count && i < to; i++) {
        if (group->ends[i] != NULL) {
            free_end(core, group, i);
        }
    }
    if (group->gone == group->count) {
        group_free(core, group);
    }
}

void hp_volatile_forget(struct hp_core *core, uint64_t first, uint64_t end)
{
    struct hp_volatile *vol = &core->vol;
    uint64_t durable_from = first;
    for (uint32_t i = hp_volatile_slot(core, first); i < vol->slot_count; i++) {
        struct hp_vgroup *group = vol->slots[i].group;
        if (vol->slots[i].first >= end) {
            break;
        }
        if (group == NULL || group->first + group->count <= first) {
            continue;
        }
        uint64_t group_end = group->first + group->count;
        if (group->first > durable_from) {
            hp_forget_add(core, durable_from, group->first);
        }
        durable_from = group_end;
        forget_part(core, group, first, end);
    }
    if (durable_from < end) {
        hp_forget_add(core, durable_from, end);
    }
    compact_if_hollow(vol);
}

/* ------------------------------------------------ bounds */
static bool drop_oldest(struct hp_core *core, bool young)
{
    struct hp_list *link = hp_list_first(&core->vol.ends);
    if (link == NULL) {
        return false;
    }
    struct hp_vend *end = HP_CONTAINER_OF(link, struct hp_vend, link);
    if (!young && end->ended_ms + KEEP_MS > core->now_ms) {
        return false;
    }
    struct hp_vgroup *group = end->group;
    core->vol.dropped++;
    free_end(core, group, end->index);
    if (group->gone == group->count) {
        group_free(core, group);
    }
    return true;
}

/* Results are told when they come; kept ones over the bound go, oldest first. A young one may just
 * be being fetched: it goes only at twice the bound. */
static void trim(struct hp_core *core)
{
    uint64_t most = core->config.volatile_bytes_max;
    while (core->vol.bytes > most && drop_oldest(core, core->vol.bytes > 2 * most)) {
    }
}

bool hp_volatile_has_room(struct hp_core *core, uint64_t bytes)
{
    uint64_t most = core->config.volatile_bytes_max;
    while (core->vol.bytes + bytes > most && drop_oldest(core, false)) {
    }
    compact_if_hollow(&core->vol);
    return core->vol.bytes + bytes <= most;
}

/* ------------------------------------------------ in */
static void put_times(struct hp_core *core, struct hp_vgroup *group)
{
    const struct hp_st_task_options *options = &group->spec->options;
    uint64_t expire = options->expire_ms;
    if (options->deadline_ms > 0 && (expire == 0 || options->deadline_ms < expire)) {
        expire = options->deadline_ms;
    }
    int64_t now = core->wall_ms;
    if (expire > 0) {
        group->expiry =
            timer_new(core, HP_VTIMER_EXPIRY, group, group->first, now + (int64_t)expire);
    }
    int64_t due = now + (int64_t)options->delay_ms;
    bool timed = (options->has & HP_HAS_ST_TASK_OPTIONS_RUN_AT_MS) != 0;
    due = timed && options->run_at_ms > due ? options->run_at_ms : due;
    if (due > now) {
        group->delay = timer_new(core, HP_VTIMER_DELAY, group, group->first, due);
    }
}

void hp_volatile_submit(struct hp_core *core, struct hp_spec *spec, struct hp_session *session,
                        uint64_t first, uint32_t count, struct hp_bin pack, const uint64_t *blobs)
{
    struct hp_vgroup *group =
        hp_must_calloc(sizeof(*group) + (size_t)count * sizeof(group->ends[0]));
    group->first = first;
    group->count = count;
    group->spec = hp_spec_ref(core, spec);
    group->session = session != NULL ? hp_session_ref(session) : NULL;
    group->created_at_ms = core->wall_ms;
    group->payloads = hp_group_new(core, first, count, spec, session, core->wall_ms, pack);
    core->vol.bytes += hp_vgroup_bytes(group);
    add_slot(&core->vol, group);
    for (uint32_t i = 0; blobs != NULL && i < count; i++) {
        if (blobs[i] != 0) {
            hp_vblob_adopt(core, blobs[i], first + i, true);
        }
    }
    put_times(core, group);
    if (group->delay == NULL) {
        hp_lane_append(core, spec->lane, first, count, core->wall_ms, group->payloads);
    }
}

bool hp_volatile_is_now(const struct hp_core *core, const struct hp_spec *spec, uint64_t last_id)
{
    return hp_spec_is_volatile(spec) && last_id < core->durable_reserved_id;
}

/* ------------------------------------------------ out */
void hp_volatile_finish(struct hp_core *core, const struct hp_finish *finish)
{
    struct hp_vgroup *group = hp_volatile_group(core, finish->first);
    const struct hp_attempt *attempt = finish->attempt;
    HP_ASSERT(group != NULL && finish->first + finish->count <= group->first + group->count);
    for (uint32_t i = 0; i < finish->count; i++) {
        struct hp_vend *end = hp_must_alloc(sizeof(*end) + finish->end.size);
        *end = (struct hp_vend){
            .group = group,
            .index = (uint32_t)(finish->first - group->first) + i,
            .state = finish->state,
            .reason = finish->reason,
            .attempt = attempt != NULL ? attempt->attempt : finish->attempt_number,
            .failures = attempt != NULL ? attempt->failures : finish->failures,
            .losses = attempt != NULL ? attempt->losses : finish->losses,
            .node = attempt != NULL ? attempt->node->number : 0,
            .started_at_ms = attempt != NULL ? attempt->started_at_ms : 0,
            .ended_at_ms = core->wall_ms,
            .ended_ms = core->now_ms,
            .end_size = finish->end.size,
        };
        if (finish->end.size > 0) {
            memcpy(end->end, finish->end.data, finish->end.size);
        }
        hp_vblob_drop_payload(core, finish->first + i);
        HP_ASSERT(group->ends[end->index] == NULL);
        group->ends[end->index] = end;
        hp_list_init(&end->link);
        hp_list_push_back(&core->vol.ends, &end->link);
        core->vol.end_count++;
        core->vol.bytes += hp_vend_bytes(end);
    }
    group->ended += finish->count;
    group->last_end_ms = core->wall_ms;
}

void hp_volatile_finished(struct hp_core *core, uint64_t first)
{
    struct hp_vgroup *group = hp_volatile_group(core, first);
    if (group->ended == group->count) {
        drop_payloads(core, group);
    }
    trim(core);
}

void hp_volatile_return(struct hp_core *core, struct hp_attempt *attempt, int64_t run_at_ms,
                        uint32_t reason)
{
    struct hp_vgroup *group = hp_volatile_group(core, attempt->id);
    HP_ASSERT(group != NULL);
    struct hp_vtimer *timer = timer_new(core, HP_VTIMER_RETURNED, group, attempt->id, run_at_ms);
    timer->attempt = attempt->attempt;
    timer->failures = attempt->failures;
    timer->losses = attempt->losses;
    timer->releases = attempt->releases;
    timer->reason = reason;
    hp_must(hp_idmap_put_ptr(&core->vol.returned, timer->id, timer));
    hp_attempt_drop(core, attempt);
}

void hp_volatile_cancel(struct hp_core *core, uint64_t first, uint32_t count, uint32_t state)
{
    struct hp_vgroup *group = hp_volatile_group(core, first);
    struct hp_parked *parked = hp_idmap_find_ptr(&core->parked, first);
    struct hp_vtimer *timer = hp_idmap_find_ptr(&core->vol.returned, first);
    HP_ASSERT(group != NULL);
    struct hp_finish finish = {.first = first,
                               .count = count,
                               .state = (enum hp_task_state)state,
                               .reason = state == HP_TASK_STATE_CANCELLED ? HP_REASON_CANCELLED
                                                                          : HP_REASON_NONE,
                               .spec = group->spec,
                               .session = group->session};
    hp_pool_fill_finish(core, &finish);
    if (parked != NULL) {
        HP_ASSERT(count == 1);
        finish.attempt_number = parked->attempt;
        finish.failures = parked->failures;
        finish.losses = parked->losses;
        hp_parked_free(core, parked);
    } else if (timer != NULL) {
        HP_ASSERT(count == 1);
        finish.attempt_number = timer->attempt;
        finish.failures = timer->failures;
        finish.losses = timer->losses;
        timer_free(core, timer);
    } else if (group->delay == NULL) {
        hp_lane_remove(core, group->spec->lane, first, count);
    }
    hp_task_finish(core, &finish);
}

/* ------------------------------------------------ due */
static void delay_over(struct hp_core *core, struct hp_vgroup *group)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i <= group->count; i++) {
        if (i < group->count && group->ends[i] == NULL) {
            count++;
        } else if (count > 0) {
            hp_lane_append(core, group->spec->lane, group->first + i - count, count, core->wall_ms,
                           group->payloads);
            count = 0;
        }
    }
}

static bool never_started(const struct hp_core *core, const struct hp_vgroup *group, uint32_t index)
{
    uint64_t id = group->first + index;
    return group->ends[index] == NULL && !hp_idmap_find(&core->attempts, id, NULL) &&
           !hp_idmap_find(&core->parked, id, NULL) && !hp_idmap_find(&core->vol.returned, id, NULL);
}

static void expire(struct hp_core *core, struct hp_vgroup *group)
{
    uint32_t count = 0;
    uint32_t total = group->count;
    uint64_t first = group->first;
    for (uint32_t i = 0; i <= total; i++) {
        if (i < total && never_started(core, group, i)) {
            count++;
        } else if (count > 0) {
            hp_volatile_cancel(core, first + i - count, count, HP_TASK_STATE_EXPIRED);
            count = 0;
            if (hp_volatile_group(core, first) != group) {
                return; /* all have ended, and made room for others */
            }
        }
    }
}

static void return_over(struct hp_core *core, const struct hp_vtimer *timer)
{
    struct hp_side side = {.first = timer->id,
                           .count = 1,
                           .kind = HP_SIDE_RETURNED,
                           .attempt = timer->attempt,
                           .failures = timer->failures,
                           .losses = timer->losses,
                           .releases = timer->releases,
                           .reason = timer->reason};
    hp_timer_park(core, &side, timer->group->payloads);
}

static void timers_due(struct hp_core *core)
{
    for (uint32_t i = 0; i < DUE_SLICE; i++) {
        struct hp_heap_node *node = hp_heap_peek(&core->vol.timers);
        if (node == NULL) {
            return;
        }
        struct hp_vtimer *timer = HP_CONTAINER_OF(node, struct hp_vtimer, heap_node);
        if (timer->run_at_ms > core->wall_ms) {
            return;
        }
        struct hp_vtimer copy = *timer;
        timer_free(core, timer);
        if (copy.kind == HP_VTIMER_RETURNED) {
            return_over(core, &copy);
        } else if (copy.kind == HP_VTIMER_DELAY) {
            delay_over(core, copy.group);
        } else {
            expire(core, copy.group);
        }
    }
}

/* Whole submits go a while after their last task has ended. */
static void sweep(struct hp_core *core)
{
    struct hp_volatile *vol = &core->vol;
    if (vol->next_sweep_ms > core->now_ms) {
        return;
    }
    vol->next_sweep_ms = core->now_ms + SWEEP_EVERY_MS;
    hp_vblob_expire(core);
    if (vol->sweep_slot >= vol->slot_count) {
        vol->sweep_slot = 0;
    }
    for (uint32_t i = 0; i < SWEEP_SLOTS && vol->sweep_slot < vol->slot_count; i++) {
        struct hp_vgroup *group = vol->slots[vol->sweep_slot++].group;
        if (group != NULL && group->ended == group->count &&
            group->last_end_ms + (int64_t)group->spec->options.result_ttl_ms <= core->wall_ms) {
            forget_part(core, group, group->first, group->first + group->count);
        }
    }
    compact_if_hollow(vol);
}

void hp_volatile_due(struct hp_core *core)
{
    timers_due(core);
    sweep(core);
}

uint64_t hp_volatile_deadline_ms(const struct hp_core *core)
{
    const struct hp_volatile *vol = &core->vol;
    uint64_t at = UINT64_MAX;
    if (vol->live_count > 0 || !hp_list_is_empty(&vol->blob_idle)) {
        at = vol->next_sweep_ms;
    }
    struct hp_heap_node *node = hp_heap_peek(&vol->timers);
    if (node != NULL) {
        const struct hp_vtimer *timer = HP_CONTAINER_OF(node, struct hp_vtimer, heap_node);
        int64_t left = timer->run_at_ms - core->wall_ms;
        left = left < 0 ? 0 : left > 60000 ? 60000 : left; /* the wall clock may jump: look again */
        uint64_t due = core->now_ms + (uint64_t)left;
        at = due < at ? due : at;
    }
    return at;
}

uint64_t hp_volatile_delayed(const struct hp_core *core, const struct hp_queue *queue)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < core->vol.timers.count; i++) {
        const struct hp_vtimer *timer =
            HP_CONTAINER_OF(core->vol.timers.items[i], struct hp_vtimer, heap_node);
        if (timer->group->spec->lane->queue != queue) {
            continue;
        }
        sum += timer->kind == HP_VTIMER_RETURNED ? 1
               : timer->kind == HP_VTIMER_DELAY  ? timer->group->count - timer->group->ended
                                                 : 0;
    }
    return sum;
}

/* ------------------------------------------------ freeing: just memory */
void hp_volatile_free_all(struct hp_core *core)
{
    struct hp_volatile *vol = &core->vol;
    for (uint32_t i = 0; i < vol->timers.count; i++) {
        hp_free(HP_CONTAINER_OF(vol->timers.items[i], struct hp_vtimer, heap_node));
    }
    hp_heap_deinit(&vol->timers);
    HP_LIST_FOR_EACH_SAFE (link, &vol->ends) {
        hp_free(HP_CONTAINER_OF(link, struct hp_vend, link));
    }
    for (uint32_t i = 0; i < vol->slot_count; i++) {
        struct hp_vgroup *group = vol->slots[i].group;
        if (group != NULL && group->payloads != NULL && --group->payloads->refs == 0) {
            hp_free(group->payloads);
        }
        hp_free(group);
    }
    hp_free(vol->slots);
    hp_vblob_free_all(core);
    hp_idmap_deinit(&vol->returned);
    hp_idmap_deinit(&vol->blobs);
    hp_idmap_deinit(&vol->owned);
    hp_free(core->forgets.spans);
}
