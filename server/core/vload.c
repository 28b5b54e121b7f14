/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Questions about tasks that are not durable. Queries ask the store for facts about ids; what is
 * here is answered as the store would: at once if all ids of a load are, else by completing the
 * store's answer.
 */
#include "server/core/state.h"

enum { TASKS_MAX = 16384, LIST_MAX = 2000 };

struct view {
    struct hp_core *core;
    struct hp_loaded loaded;
    const struct hp_vgroup *last; /* whose group was added last */
    uint32_t group_capacity, task_capacity;
};

static uint32_t add_group(struct view *view, const struct hp_vgroup *group)
{
    struct hp_loaded *loaded = &view->loaded;
    if (view->last == group) {
        return loaded->group_count - 1;
    }
    if (loaded->group_count == view->group_capacity) {
        view->group_capacity = view->group_capacity < 32 ? 64 : view->group_capacity * 2;
        struct hp_loaded_group *groups =
            HP_ARENA_NEW_ARRAY(&view->core->arena, struct hp_loaded_group, view->group_capacity);
        HP_ASSERT(groups != NULL);
        if (loaded->group_count > 0) {
            memcpy(groups, loaded->groups, loaded->group_count * sizeof(*groups));
        }
        loaded->groups = groups;
    }
    view->last = group;
    loaded->groups[loaded->group_count] = (struct hp_loaded_group){
        .first = group->first,
        .count = group->count,
        .lane = group->spec->lane->id,
        .created_at_ms = group->created_at_ms,
        .session = group->session != NULL
                       ? hp_bin_make(group->session->id, sizeof(group->session->id))
                       : (struct hp_bin){0},
        .options = group->spec->raw,
    };
    return loaded->group_count++;
}

static void fill_end(const struct hp_vend *end, struct hp_loaded_task *ret)
{
    ret->ended = true;
    ret->result = (struct hp_result){.first = ret->id,
                                     .count = 1,
                                     .state = end->state,
                                     .reason = end->reason,
                                     .attempt = end->attempt,
                                     .failures = end->failures,
                                     .losses = end->losses,
                                     .node = end->node,
                                     .started_at_ms = end->started_at_ms,
                                     .ended_at_ms = end->ended_at_ms};
    if (end->end_size > 0) {
        ret->result.end = hp_bin_make(end->end, end->end_size);
    }
}

static void fill_side(const struct hp_core *core, const struct hp_vgroup *group,
                      struct hp_loaded_task *ret)
{
    const struct hp_vtimer *timer = hp_idmap_find_ptr(&core->vol.returned, ret->id);
    bool started = timer != NULL || hp_idmap_find(&core->attempts, ret->id, NULL) ||
                   hp_idmap_find(&core->parked, ret->id, NULL);
    timer = timer == NULL && !started ? group->delay : timer;
    if (timer == NULL) {
        return;
    }
    bool returned = timer->kind == HP_VTIMER_RETURNED;
    ret->has_side = true;
    ret->side = (struct hp_side){.first = timer->id,
                                 .count = returned ? 1 : group->count,
                                 .kind = returned ? HP_SIDE_RETURNED : HP_SIDE_DELAYED,
                                 .lane = group->spec->lane->id,
                                 .run_at_ms = timer->run_at_ms,
                                 .attempt = timer->attempt,
                                 .failures = timer->failures,
                                 .losses = timer->losses,
                                 .releases = timer->releases,
                                 .reason = timer->reason};
}

static void fill_task(struct view *view, const struct hp_vgroup *group, struct hp_loaded_task *ret)
{
    const struct hp_vend *end = group->ends[ret->id - group->first];
    if (end != NULL && hp_vend_is_gone(end)) {
        ret->gone = true;
        return;
    }
    ret->exists = true;
    ret->group = add_group(view, group);
    if (end != NULL) {
        fill_end(end, ret);
    } else {
        fill_side(view->core, group, ret);
    }
}

/* ------------------------------------------------ answers of the store */
static void complete_tasks(struct view *view, const struct hp_loaded *loaded)
{
    struct hp_loaded_task *tasks = NULL;
    const struct hp_vgroup *group = NULL;
    for (uint32_t i = 0; i < loaded->task_count; i++) {
        uint64_t id = loaded->tasks[i].id;
        if (loaded->tasks[i].exists) {
            continue;
        }
        if (group == NULL || id < group->first || id - group->first >= group->count) {
            group = hp_volatile_group(view->core, id);
        }
        if (group == NULL) {
            continue;
        }
        if (tasks == NULL) {
            size_t size = (size_t)loaded->task_count * sizeof(*tasks);
            tasks = hp_arena_copy(&view->core->arena, loaded->tasks, size);
            HP_ASSERT(tasks != NULL);
            view->loaded.tasks = tasks;
        }
        tasks[i] = (struct hp_loaded_task){.id = id};
        fill_task(view, group, &tasks[i]);
    }
}

/* Newest first: from the store's page and from here, as far as that page goes. */
struct merge {
    const struct hp_loaded *store;
    uint32_t at;    /* next of the store's tasks */
    uint64_t below; /* next id here is below this */
    uint64_t low;   /* the page goes down to here */
    struct hp_vgroup *group;
};

static bool is_listed(const struct hp_load *load, const struct hp_vgroup *group, uint64_t id)
{
    const struct hp_vend *end = group->ends[id - group->first];
    return (end == NULL || (!hp_vend_is_gone(end) && !load->live_only)) &&
           (load->since_ms == 0 || group->created_at_ms >= load->since_ms);
}

/* The greatest listed id here that is below merge->below; 0: none. */
static uint64_t next_here(const struct hp_core *core, struct merge *merge)
{
    const struct hp_volatile *vol = &core->vol;
    if (vol->slot_count == 0 || merge->below == 0) {
        return 0;
    }
    uint32_t slot = hp_volatile_slot(core, merge->below - 1);
    for (;; slot--) {
        struct hp_vgroup *group = vol->slots[slot].group;
        if (group != NULL && group->first < merge->below) {
            uint64_t end = group->first + group->count;
            uint64_t id = merge->below < end ? merge->below : end;
            while (id > group->first && id > merge->low) {
                id--;
                if (is_listed(merge->store->load, group, id)) {
                    merge->group = group;
                    return id;
                }
            }
        }
        if (slot == 0 || vol->slots[slot].first < merge->low) {
            merge->below = 0;
            return 0;
        }
    }
}

static void complete_list(struct view *view, const struct hp_loaded *loaded)
{
    struct hp_core *core = view->core;
    uint64_t before = loaded->load->before;
    struct merge merge = {.store = loaded,
                          .below = before == 0 || before > core->next_id ? core->next_id : before,
                          .low = loaded->more ? loaded->next : 0};
    uint64_t here = next_here(core, &merge);
    if (here == 0) {
        return;
    }
    uint32_t most = loaded->task_count + LIST_MAX;
    struct hp_loaded_task *tasks = HP_ARENA_NEW_ARRAY(&core->arena, struct hp_loaded_task, most);
    HP_ASSERT(tasks != NULL);
    uint32_t count = 0;
    uint32_t taken = 0;
    while ((here != 0 || merge.at < loaded->task_count) && taken < LIST_MAX) {
        if (merge.at < loaded->task_count && loaded->tasks[merge.at].id > here) {
            tasks[count++] = loaded->tasks[merge.at++];
            continue;
        }
        tasks[count] = (struct hp_loaded_task){.id = here};
        fill_task(view, merge.group, &tasks[count++]);
        taken++;
        merge.below = here;
        here = next_here(core, &merge);
    }
    view->loaded.tasks = tasks;
    view->loaded.task_count = count;
    if (here != 0 || merge.at < loaded->task_count) { /* cut: the rest is asked for again */
        view->loaded.more = true;
        view->loaded.next = tasks[count - 1].id;
    }
}

const struct hp_loaded *hp_volatile_complete(struct hp_core *core, const struct hp_loaded *loaded)
{
    enum hp_load_kind kind = loaded->load->kind;
    if (core->vol.live_count == 0 || loaded->in_memory || loaded->err != HP_OK ||
        (kind != HP_LOAD_TASKS && kind != HP_LOAD_LIST)) {
        return loaded;
    }
    struct view *view = HP_ARENA_NEW(&core->arena, struct view);
    HP_ASSERT(view != NULL);
    *view = (struct view){.core = core, .loaded = *loaded, .group_capacity = loaded->group_count};
    if (kind == HP_LOAD_TASKS) {
        complete_tasks(view, loaded);
    } else {
        complete_list(view, loaded);
    }
    return &view->loaded;
}

/* ------------------------------------------------ loads that need no store */
static bool all_here(const struct hp_core *core, const struct hp_load *load)
{
    for (uint32_t i = 0; i < load->span_count; i++) {
        uint64_t id = load->spans[i].first;
        uint64_t end = id + load->spans[i].count;
        while (id < end) {
            const struct hp_vgroup *group = hp_volatile_group(core, id);
            if (group == NULL) {
                return false;
            }
            id = group->first + group->count;
        }
    }
    return load->span_count > 0;
}

static void answer(struct hp_core *core, struct hp_load *load)
{
    struct view view = {.core = core, .loaded = {.load = load, .in_memory = true}};
    struct hp_loaded *loaded = &view.loaded;
    uint64_t total = 0;
    for (uint32_t i = 0; i < load->span_count; i++) {
        total += load->spans[i].count;
    }
    uint32_t most = (uint32_t)(total < TASKS_MAX ? total : TASKS_MAX);
    loaded->tasks = HP_ARENA_NEW_ARRAY(&core->arena, struct hp_loaded_task, most + 1U);
    HP_ASSERT(loaded->tasks != NULL);
    for (uint32_t i = 0; i < load->span_count && !loaded->more; i++) {
        for (uint32_t k = 0; k < load->spans[i].count; k++) {
            uint64_t id = load->spans[i].first + k;
            if (loaded->task_count == most) {
                loaded->more = true;
                loaded->next = id;
                break;
            }
            struct hp_loaded_task *task = &loaded->tasks[loaded->task_count++];
            *task = (struct hp_loaded_task){.id = id};
            fill_task(&view, hp_volatile_group(core, id), task);
        }
    }
    hp_loaded_take(core, loaded);
    hp_load_free(load);
    hp_arena_reset(&core->arena);
}

void hp_volatile_loads(struct hp_core *core)
{
    struct hp_effects *effects = core->effects;
    uint32_t *seen = &core->vol.effects_seen;
    if (core->vol.live_count == 0) {
        *seen = effects->count;
        return;
    }
    while (*seen < effects->count) {
        struct hp_effect *effect = &effects->items[*seen];
        if (effect->kind != HP_EFFECT_LOAD || effect->load->kind != HP_LOAD_TASKS ||
            !all_here(core, effect->load)) {
            (*seen)++;
            continue;
        }
        struct hp_load *load = effect->load;
        effects->count--;
        memmove(effect, effect + 1, (effects->count - *seen) * sizeof(*effect));
        answer(core, load);
    }
}
