/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lanes: the waiting tasks. In memory a ring of runs up to a window, the rest in segments.
 *
 * L1 Runs in the ring are older than all segments from load_segment on.
 * L2 A run with a segment number is in that segment's row; one with UINT64_MAX gets its row when
 *    the turn ends, and only if it still waits then.
 * L3 ready_count = tasks in the ring + waiting tasks of segments from load_segment on.
 */
#include "server/core/state.h"

enum { WARM_AHEAD = 512, LOAD_SPANS = 256 };
#define NO_SEGMENT UINT64_MAX

static struct hp_run *run_at(const struct hp_lane *lane, uint32_t index)
{
    HP_ASSERT(index < lane->run_count);
    return &lane->runs[(lane->run_head + index) & (lane->run_capacity - 1)];
}

struct hp_run *hp_lane_front(struct hp_lane *lane)
{
    return lane->run_count > 0 ? run_at(lane, 0) : NULL;
}

/* ------------------------------------------------ groups */
struct hp_group *hp_group_new(struct hp_core *core, uint64_t first, uint32_t count,
                              struct hp_spec *spec, struct hp_session *session,
                              int64_t created_at_ms, struct hp_bin pack)
{
    struct hp_group *group = hp_must_alloc(sizeof(*group) + pack.size);
    *group = (struct hp_group){.first = first,
                               .count = count,
                               .refs = 1,
                               .spec = hp_spec_ref(core, spec),
                               .session = session != NULL ? hp_session_ref(session) : NULL,
                               .created_at_ms = created_at_ms};
    if (pack.size > 0) {
        memcpy(group + 1, pack.data, pack.size);
        group->pack = (struct hp_bin){.data = (const uint8_t *)(group + 1), .size = pack.size};
    }
    group->in_memory = hp_spec_is_volatile(spec);
    *(group->in_memory ? &core->vol.bytes : &core->payload_bytes) += sizeof(*group) + pack.size;
    return group;
}

void hp_group_unref(struct hp_core *core, struct hp_group *group)
{
    if (group == NULL || --group->refs > 0) {
        return;
    }
    *(group->in_memory ? &core->vol.bytes : &core->payload_bytes) -=
        sizeof(*group) + group->pack.size;
    if (group->session != NULL) {
        hp_session_unref(core, group->session);
    }
    struct hp_spec *spec = group->spec;
    hp_free(group);
    hp_spec_unref(core, spec);
}

struct hp_group *hp_group_load(struct hp_core *core, const struct hp_loaded_group *loaded)
{
    struct hp_error error;
    if (!hp_pack_valid(loaded->pack, loaded->count)) {
        return NULL;
    }
    struct hp_spec *spec = hp_spec_get(core, loaded->options, &error);
    if (spec == NULL) {
        return NULL;
    }
    struct hp_session *session = hp_session_get(core, loaded->session);
    struct hp_group *group = hp_group_new(core, loaded->first, loaded->count, spec, session,
                                          loaded->created_at_ms, loaded->pack);
    hp_spec_unref(core, spec);
    return group;
}

/* ------------------------------------------------ the ring */
static void ring_grow(struct hp_lane *lane)
{
    uint32_t capacity = lane->run_capacity == 0 ? 8 : lane->run_capacity * 2;
    struct hp_run *runs = hp_must_alloc((size_t)capacity * sizeof(*runs));
    for (uint32_t i = 0; i < lane->run_count; i++) {
        runs[i] = *run_at(lane, i);
    }
    hp_free(lane->runs);
    lane->runs = runs;
    lane->run_head = 0;
    lane->run_capacity = capacity;
}

static void ring_push(struct hp_lane *lane, const struct hp_run *run)
{
    if (lane->run_count == lane->run_capacity) {
        ring_grow(lane);
    }
    lane->run_count++;
    *run_at(lane, lane->run_count - 1) = *run;
    lane->memory_count += run->count;
}

/* Moves what is on the shorter side. */
static void ring_erase(struct hp_lane *lane, uint32_t index)
{
    if (index > lane->run_count / 2) {
        for (uint32_t i = index; i + 1 < lane->run_count; i++) {
            *run_at(lane, i) = *run_at(lane, i + 1);
        }
        lane->run_count--;
        return;
    }
    for (uint32_t i = index; i > 0; i--) {
        *run_at(lane, i) = *run_at(lane, i - 1);
    }
    lane->run_head = (lane->run_head + 1) & (lane->run_capacity - 1);
    lane->run_count--;
}

static void ring_insert(struct hp_lane *lane, uint32_t index, const struct hp_run *run)
{
    if (lane->run_count == lane->run_capacity) {
        ring_grow(lane);
    }
    lane->run_count++;
    for (uint32_t i = lane->run_count - 1; i > index; i--) {
        *run_at(lane, i) = *run_at(lane, i - 1);
    }
    *run_at(lane, index) = *run;
}

static void move_head(struct hp_lane *lane)
{
    uint64_t head = lane->load_segment;
    for (uint32_t i = 0; i < lane->run_count; i++) {
        uint64_t segment = run_at(lane, i)->segment;
        if (segment != NO_SEGMENT) {
            head = segment < head ? segment : head;
            break; /* L1: segments rise along the ring */
        }
    }
    lane->head_segment = head;
}

void hp_lane_dirty(struct hp_core *core, struct hp_lane *lane)
{
    if (!lane->dirty) {
        lane->dirty = true;
        hp_list_push_back(&core->lane_dirty, &lane->dirty_link);
    }
}

/* ------------------------------------------------ order among lanes */
bool hp_lane_is_open(const struct hp_lane *lane)
{
    if (lane->queue->paused || (lane->ckey != NULL && lane->ckey->running >= lane->ckey->max)) {
        return false;
    }
    return lane->parked_count > 0 || (lane->run_count > 0 && run_at(lane, 0)->group != NULL);
}

/* Re-places the lane in its class's heap after anything about it changed. */
void hp_lane_update(struct hp_core *core, struct hp_lane *lane)
{
    struct hp_heap *heap = &lane->class_->lanes;
    if (!hp_lane_is_open(lane)) {
        if (hp_heap_contains(&lane->heap_node) &&
            (lane->class_->cpus > 1 || lane->class_->mem_bytes > 0)) {
            core->dispatch_wanted = true; /* a worker may have been kept free for it */
        }
        hp_heap_remove(heap, &lane->heap_node);
        return;
    }
    int64_t since;
    uint64_t id;
    if (lane->parked_count > 0) {
        const struct hp_parked *parked =
            HP_CONTAINER_OF(hp_list_first(&lane->parked), struct hp_parked, link);
        since = parked->since_ms;
        id = parked->id;
    } else {
        since = run_at(lane, 0)->since_ms;
        id = run_at(lane, 0)->first;
    }
    int64_t rank = (int64_t)lane->priority * (int64_t)core->config.age_step_ms - since;
    if (hp_heap_contains(&lane->heap_node)) {
        if (rank != lane->rank || id != lane->rank_id) {
            lane->rank = rank;
            lane->rank_id = id;
            hp_heap_update(heap, &lane->heap_node);
        }
        return;
    }
    lane->rank = rank;
    lane->rank_id = id;
    hp_must(hp_heap_push(heap, &lane->heap_node));
    core->dispatch_wanted = true;
}

/* ------------------------------------------------ in */
static void spill_push(struct hp_lane *lane, uint64_t first, uint32_t count, int64_t since_ms)
{
    if (lane->spill_count == lane->spill_capacity) {
        lane->spill_capacity = lane->spill_capacity == 0 ? 16 : lane->spill_capacity * 2;
        lane->spill = hp_realloc_array(lane->spill, lane->spill_capacity, sizeof(*lane->spill));
        HP_ASSERT(lane->spill != NULL);
    }
    lane->spill[lane->spill_count++] =
        (struct hp_id_run){.first = first, .count = count, .since_ms = since_ms};
}

void hp_lane_append(struct hp_core *core, struct hp_lane *lane, uint64_t first, uint32_t count,
                    int64_t since_ms, struct hp_group *group)
{
    lane->ready_count += count;
    bool all_here = lane->load_segment == lane->next_segment && lane->spill_count == 0;
    if (lane->in_memory || (all_here && lane->run_count < core->config.window_runs)) {
        bool keep = lane->in_memory || core->payload_bytes <= core->config.window_bytes;
        struct hp_run run = {.first = first,
                             .count = count,
                             .since_ms = since_ms,
                             .segment = NO_SEGMENT,
                             .group = keep ? group : NULL};
        if (run.group != NULL) {
            run.group->refs++;
        }
        ring_push(lane, &run);
    } else {
        spill_push(lane, first, count, since_ms);
    }
    hp_lane_dirty(core, lane);
    hp_lane_update(core, lane);
}

void hp_lane_park(struct hp_core *core, struct hp_lane *lane, struct hp_parked *parked)
{
    struct hp_list *at = &lane->parked;
    HP_LIST_FOR_EACH (link, &lane->parked) {
        if (HP_CONTAINER_OF(link, struct hp_parked, link)->id > parked->id) {
            at = link;
            break;
        }
    }
    hp_list_insert_before(at, &parked->link);
    lane->parked_count++;
    hp_must(hp_idmap_put_ptr(&core->parked, parked->id, parked));
    hp_lane_update(core, lane);
}

/* ------------------------------------------------ out */
void hp_parked_free(struct hp_core *core, struct hp_parked *parked)
{
    struct hp_lane *lane = parked->group->spec->lane;
    hp_list_remove(&parked->link);
    lane->parked_count--;
    (void)hp_idmap_remove(&core->parked, parked->id, NULL);
    hp_lane_update(core, lane);
    hp_group_unref(core, parked->group);
    hp_free(parked);
}

void hp_lane_take(struct hp_core *core, struct hp_lane *lane, uint32_t count)
{
    struct hp_run *run = run_at(lane, 0);
    HP_ASSERT(count <= run->count && count <= lane->ready_count);
    run->first += count;
    run->count -= count;
    lane->memory_count -= count;
    lane->ready_count -= count;
    hp_lane_dirty(core, lane);
    if (run->count == 0) {
        struct hp_group *group = run->group;
        ring_erase(lane, 0);
        hp_group_unref(core, group);
    }
    hp_lane_want(core, lane);
    hp_lane_update(core, lane);
}

/* Takes [first, first+count) out of the run at `index`; true: the run is gone. */
static bool cut_run(struct hp_core *core, struct hp_lane *lane, uint32_t index, uint64_t first,
                    uint64_t end)
{
    struct hp_run *run = run_at(lane, index);
    uint64_t run_end = run->first + run->count;
    lane->memory_count -= end - first;
    if (first == run->first && end == run_end) {
        struct hp_group *group = run->group;
        ring_erase(lane, index);
        hp_group_unref(core, group);
        return true;
    }
    if (first == run->first) {
        run->first = end;
        run->count = (uint32_t)(run_end - end);
        return false;
    }
    struct hp_run tail = *run;
    run->count = (uint32_t)(first - run->first);
    if (end < run_end) {
        tail.first = end;
        tail.count = (uint32_t)(run_end - end);
        if (tail.group != NULL) {
            tail.group->refs++;
        }
        ring_insert(lane, index + 1, &tail);
    }
    return false;
}

static uint32_t spill_remove(struct hp_lane *lane, uint64_t first, uint64_t last_end)
{
    uint32_t removed = 0;
    for (uint32_t i = 0; i < lane->spill_count; i++) {
        struct hp_id_run *run = &lane->spill[i];
        uint64_t run_end = run->first + run->count;
        uint64_t from = run->first > first ? run->first : first;
        uint64_t to = run_end < last_end ? run_end : last_end;
        if (from >= to) {
            continue;
        }
        removed += (uint32_t)(to - from);
        int64_t since = run->since_ms;
        uint64_t head = run->first;
        run->count = (uint32_t)(from - head);
        if (to < run_end) {
            spill_push(lane, to, (uint32_t)(run_end - to), since);
        }
    }
    return removed;
}

/* Where to begin to look for an id: lanes in memory may be long, and are mostly in order. */
static uint32_t search_from(const struct hp_lane *lane, uint64_t id)
{
    uint32_t low = 0;
    uint32_t high = lane->in_memory ? lane->run_count : 0;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct hp_run *run = run_at(lane, middle);
        if (run->first + run->count <= id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < lane->run_count && run_at(lane, low)->first <= id;
    return found ? low : 0; /* 0: out of order, or it was delayed: look at all */
}

void hp_lane_remove(struct hp_core *core, struct hp_lane *lane, uint64_t first, uint32_t count)
{
    uint64_t last_end = first + count;
    HP_ASSERT(count <= lane->ready_count);
    uint64_t left = lane->in_memory ? lane->memory_count - count : 0;
    for (uint32_t i = search_from(lane, first); i < lane->run_count;) {
        if (lane->in_memory && lane->memory_count == left) {
            break; /* all found */
        }
        struct hp_run *run = run_at(lane, i);
        uint64_t run_end = run->first + run->count;
        uint64_t from = run->first > first ? run->first : first;
        uint64_t to = run_end < last_end ? run_end : last_end;
        if (from < to && cut_run(core, lane, i, from, to)) {
            continue;
        }
        i++;
    }
    (void)spill_remove(lane, first, last_end);
    lane->ready_count -= count;
    hp_lane_dirty(core, lane);
    hp_lane_want(core, lane);
    hp_lane_update(core, lane);
}

void hp_lane_clear(struct hp_core *core, struct hp_lane *lane)
{
    for (uint32_t i = 0; i < lane->run_count; i++) {
        hp_group_unref(core, run_at(lane, i)->group);
    }
    lane->run_count = 0;
    lane->memory_count = 0;
    hp_free(lane->spill);
    lane->spill = NULL;
    lane->spill_count = 0;
    lane->spill_capacity = 0;
}

/* ------------------------------------------------ loading */
static void want_segments(struct hp_core *core, struct hp_lane *lane)
{
    if (lane->load_pending || lane->load_failed || lane->load_segment >= lane->next_segment ||
        lane->run_count > core->config.window_runs / 4) {
        return;
    }
    struct hp_pending *pending = hp_pending_new(core, HP_PENDING_LANE, NULL, 0);
    pending->lane = lane->id;
    struct hp_load *load = hp_out_load(core, HP_LOAD_LANE, pending);
    load->lane = lane->id;
    load->segment = lane->load_segment;
    load->limit = core->config.window_runs;
    load->bytes_max = 1U << 20;
    lane->load_pending = true;
}

static void want_payloads(struct hp_core *core, struct hp_lane *lane)
{
    uint64_t warm = 0;
    uint32_t cold = 0;
    uint32_t index = 0;
    for (; index < lane->run_count && run_at(lane, index)->group != NULL; index++) {
        warm += run_at(lane, index)->count;
        if (warm >= WARM_AHEAD) {
            return;
        }
    }
    for (uint32_t i = index; i < lane->run_count && cold < LOAD_SPANS; i++) {
        cold += run_at(lane, i)->group == NULL;
    }
    if (cold == 0 || lane->runs_pending || lane->runs_failed) {
        return;
    }
    struct hp_pending *pending = hp_pending_new(core, HP_PENDING_RUNS, NULL, 0);
    pending->lane = lane->id;
    struct hp_load *load = hp_out_load(core, HP_LOAD_GROUPS, pending);
    load->spans = hp_must_alloc(cold * sizeof(*load->spans));
    for (uint32_t i = index; i < lane->run_count && load->span_count < cold; i++) {
        struct hp_run *run = run_at(lane, i);
        if (run->group == NULL) {
            load->spans[load->span_count++] = (struct hp_id_span){run->first, 1};
            run->loading = true;
        }
    }
    uint32_t lanes = hp_idmap_count(&core->lanes);
    uint64_t share = core->config.window_bytes / (lanes + 1U);
    load->bytes_max = (uint32_t)(share < 65536 ? 65536 : share > 1048576 ? 1048576 : share);
    lane->runs_pending = true;
}

/* Asks the store for what dispatch will need soon. */
void hp_lane_want(struct hp_core *core, struct hp_lane *lane)
{
    if (lane->in_memory) {
        return;
    }
    want_segments(core, lane);
    want_payloads(core, lane);
}

static bool is_elsewhere(struct hp_core *core, uint64_t id)
{
    return hp_idmap_find(&core->attempts, id, NULL) || hp_idmap_find(&core->parked, id, NULL) ||
           hp_recent_find(core, id) != 0;
}

/* Pushes what of a loaded run still waits, as far as memory knows better than the store did. */
static void push_loaded(struct hp_core *core, struct hp_lane *lane, const struct hp_id_run *loaded,
                        uint64_t segment)
{
    struct hp_run run = {.since_ms = loaded->since_ms, .segment = segment};
    bool any =
        hp_idmap_count(&core->attempts) + hp_idmap_count(&core->parked) + core->recent_count > 0;
    if (!any) {
        run.first = loaded->first;
        run.count = loaded->count;
        ring_push(lane, &run);
        return;
    }
    for (uint32_t i = 0; i <= loaded->count; i++) {
        bool out = i == loaded->count || is_elsewhere(core, loaded->first + i);
        if (!out) {
            run.first = run.count == 0 ? loaded->first + i : run.first;
            run.count++;
        } else if (run.count > 0) {
            ring_push(lane, &run);
            run.count = 0;
        }
    }
}

/* A damaged row: what lies behind it waits for an operator. Asking again would find it again. */
static void note_damage(struct hp_core *core, struct hp_lane *lane, const struct hp_loaded *loaded)
{
    lane->damaged = true;
    hp_trace(core, HP_TRACE_ERROR, "lane_damaged", "lane=%u queue=%.*s reason=%.*s", lane->id,
             HP_STR_ARG(lane->queue->name), (int)loaded->text.size,
             (const char *)loaded->text.data);
}

void hp_lane_loaded(struct hp_core *core, struct hp_lane *lane, const struct hp_loaded *loaded)
{
    HP_ASSERT(lane != NULL && lane->load_pending);
    lane->load_pending = false;
    lane->load_failed = loaded->err != HP_OK;
    if (loaded->err != HP_OK) {
        note_damage(core, lane, loaded);
    }
    for (uint32_t i = 0; i < loaded->run_count; i++) {
        push_loaded(core, lane, &loaded->runs[i], loaded->run_segments[i]);
    }
    HP_ASSERT(loaded->next_segment >= lane->load_segment &&
              loaded->next_segment <= lane->next_segment);
    lane->load_segment = loaded->next_segment;
    if (lane->load_segment == lane->next_segment && lane->spill_count == 0 &&
        lane->ready_count != lane->memory_count) {
        hp_trace(core, HP_TRACE_WARN, "lane_count_mended", "lane=%u counted=%llu found=%llu",
                 lane->id, (unsigned long long)lane->ready_count,
                 (unsigned long long)lane->memory_count);
        lane->ready_count = lane->memory_count;
    }
    hp_lane_dirty(core, lane);
    hp_lane_want(core, lane);
    hp_lane_update(core, lane);
    hp_pool_lane_loaded(core, lane);
}

/* The store has no sound payload for this run: its tasks end as damaged. */
static void lose_run(struct hp_core *core, struct hp_lane *lane, const struct hp_run *run)
{
    uint64_t first = run->first;
    uint32_t count = run->count;
    hp_trace(core, HP_TRACE_ERROR, "payload_damaged", "first=%llu count=%u",
             (unsigned long long)first, count);
    hp_lane_remove(core, lane, first, count);
    struct hp_finish finish = {
        .first = first, .count = count, .state = HP_TASK_STATE_FAILED, .reason = HP_REASON_DAMAGED};
    hp_task_finish(core, &finish);
}

static struct hp_group *find_group(struct hp_group **groups, uint32_t count, uint64_t id)
{
    for (uint32_t i = 0; i < count; i++) {
        if (groups[i] != NULL && id >= groups[i]->first &&
            id - groups[i]->first < groups[i]->count) {
            return groups[i];
        }
    }
    return NULL;
}

/* Gives a cold run its group, cut to what the group holds. */
static void warm_run(struct hp_lane *lane, uint32_t index, struct hp_group *group)
{
    struct hp_run *run = run_at(lane, index);
    uint64_t have = group->first + group->count - run->first;
    if (have < run->count) {
        struct hp_run tail = *run;
        tail.first += have;
        tail.count -= (uint32_t)have;
        tail.loading = false;
        run->count = (uint32_t)have;
        ring_insert(lane, index + 1, &tail);
        run = run_at(lane, index);
    }
    run->group = group;
    group->refs++;
}

void hp_lane_runs_loaded(struct hp_core *core, struct hp_lane *lane, const struct hp_loaded *loaded)
{
    if (loaded->err != HP_OK) {
        note_damage(core, lane, loaded);
    }
    struct hp_group **groups = hp_must_calloc((loaded->group_count + 1U) * sizeof(*groups));
    for (uint32_t i = 0; i < loaded->group_count; i++) {
        groups[i] = hp_group_load(core, &loaded->groups[i]);
    }
    uint32_t at = 0; /* answers come in the order of the ring: search from the last match on */
    for (uint32_t i = 0; i < lane->run_count; i++) {
        struct hp_run *run = run_at(lane, i);
        if (!run->loading) {
            continue;
        }
        run->loading = false;
        struct hp_group *group = find_group(groups + at, loaded->group_count - at, run->first);
        if (group == NULL) {
            group = find_group(groups, at, run->first);
        }
        if (group != NULL) {
            while (at < loaded->group_count && groups[at] != group) {
                at++;
            }
            warm_run(lane, i, group);
        } else if (!loaded->more && loaded->err == HP_OK) {
            struct hp_run lost = *run;
            lose_run(core, lane, &lost);
            i--;
        }
    }
    for (uint32_t i = 0; i < loaded->group_count; i++) {
        hp_group_unref(core, groups[i]);
    }
    hp_free(groups);
    /* Not before: a lost run must not ask in the middle of this. */
    lane->runs_pending = false;
    lane->runs_failed = loaded->err != HP_OK;
    hp_lane_want(core, lane);
    hp_lane_update(core, lane);
    hp_pool_lane_loaded(core, lane);
}

/* ------------------------------------------------ what the turn leaves for the store */
static void put_segment(struct hp_core *core, struct hp_lane *lane, const struct hp_id_run *runs,
                        uint32_t count)
{
    struct hp_op *op = hp_batch_add(core->batch, HP_OP_SEGMENT);
    op->segment.lane = lane->id;
    op->segment.segment = lane->next_segment++;
    op->segment.runs = runs;
    op->segment.run_count = count;
}

static void flush_ring(struct hp_core *core, struct hp_lane *lane)
{
    uint32_t fresh = 0;
    while (fresh < lane->run_count &&
           run_at(lane, lane->run_count - 1 - fresh)->segment == NO_SEGMENT) {
        fresh++;
    }
    if (fresh == 0) {
        return;
    }
    bool all_here = lane->load_segment == lane->next_segment;
    struct hp_id_run *runs = hp_arena_alloc(&core->batch->arena, fresh * sizeof(*runs));
    HP_ASSERT(runs != NULL);
    for (uint32_t i = 0; i < fresh; i++) {
        struct hp_run *run = run_at(lane, lane->run_count - fresh + i);
        runs[i] = (struct hp_id_run){run->first, run->count, run->since_ms};
        run->segment = lane->next_segment;
    }
    put_segment(core, lane, runs, fresh);
    if (all_here) {
        lane->load_segment = lane->next_segment;
    }
}

static void flush_spill(struct hp_core *core, struct hp_lane *lane)
{
    struct hp_id_run *runs =
        hp_arena_alloc(&core->batch->arena, (lane->spill_count + 1U) * sizeof(*runs));
    HP_ASSERT(runs != NULL);
    uint32_t count = 0;
    for (uint32_t i = 0; i < lane->spill_count; i++) {
        if (lane->spill[i].count > 0) {
            runs[count++] = lane->spill[i];
        }
    }
    lane->spill_count = 0;
    if (count > 0) {
        put_segment(core, lane, runs, count);
    }
}

static void flush_lane(struct hp_core *core, struct hp_lane *lane)
{
    lane->dirty = false;
    if (lane->in_memory) {
        hp_lane_release(core, lane);
        return;
    }
    flush_ring(core, lane);
    flush_spill(core, lane);
    move_head(lane);
    bool same = lane->stored_ready == lane->ready_count &&
                lane->stored_head == lane->head_segment && lane->stored_next == lane->next_segment;
    if (!same) {
        struct hp_op *op = hp_batch_add(core->batch, HP_OP_LANE);
        op->lane.lane = lane->id;
        if (!lane->key_stored) {
            op->lane.key = hp_batch_copy(core->batch, lane->key.data, lane->key.size);
            lane->key_stored = true;
        }
        op->lane.head_segment = lane->stored_head = lane->head_segment;
        op->lane.next_segment = lane->stored_next = lane->next_segment;
        op->lane.ready_count = lane->stored_ready = lane->ready_count;
    }
    hp_lane_want(core, lane); /* segments written now may be wanted at once */
    hp_lane_release(core, lane);
}

void hp_lane_flush(struct hp_core *core)
{
    while (!hp_list_is_empty(&core->lane_dirty)) {
        struct hp_list *link = hp_list_pop_front(&core->lane_dirty);
        flush_lane(core, HP_CONTAINER_OF(link, struct hp_lane, dirty_link));
    }
}
