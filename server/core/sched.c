/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Dispatch: which waiting task goes to which worker.
 *
 * Lanes are homogeneous, so only their heads compete: per class of needs a heap of open lanes, best
 * rank first (priority with ageing, then age, then id). A round gives each worker with room tasks
 * of the best lane it can serve; rounds repeat until nobody takes anything. First idle slots are
 * filled, on all workers, then tasks of one slot are prefetched, as many as a few milliseconds of
 * measured run time hold; of a function that was never measured one goes ahead, to measure it.
 *
 * Nobody is overtaken for ever: a lane whose turn it is, but which finds no room on a worker beside
 * what that holds ahead, has one worker at a time take no others until there is room.
 */
#include "server/core/sched.h"
#include "server/core/state.h"

/* Half of what is given ahead may still wait for the commit of its leases. */
enum { PREFETCH_TARGET_US = 20000, ROUND_MAX = 128, OVERLAP_BELOW_US = 100000 };

static struct hp_lane *top_lane(const struct hp_class *class_)
{
    struct hp_heap_node *node = hp_heap_peek(&class_->lanes);
    return node != NULL ? HP_CONTAINER_OF(node, struct hp_lane, heap_node) : NULL;
}

bool hp_sched_is_light(const struct hp_class *class_)
{
    return class_->kind == HP_TASK_KIND_CALL ||
           hp_sched_takes_a_slot(class_->kind, class_->cpus, class_->mem_bytes);
}

bool hp_sched_takes_a_slot(uint32_t kind, uint32_t cpus, uint64_t mem_bytes)
{
    return cpus == 1 &&
           (kind == HP_TASK_KIND_FUNCTION || (kind == HP_TASK_KIND_COMMAND && mem_bytes == 0));
}

bool hp_sched_is_taking(const struct hp_node *node)
{
    return node->conn != NULL && node->registered && !node->draining && !node->leaving &&
           node->state == HP_SM_NODE_ONLINE && !node->conn->blocked;
}

/* How many tasks of one slot the node may hold per slot. */
static uint32_t depth_of(const struct hp_class *class_, const struct hp_node *node, bool prefetch)
{
    bool is_stuck = node->stuck && class_->kind != HP_TASK_KIND_CALL;
    if (!prefetch || class_->run_us == 0 || is_stuck) {
        return 1;
    }
    uint64_t depth = PREFETCH_TARGET_US / class_->run_us;
    if (class_->kind == HP_TASK_KIND_CALL && depth < 2 && class_->run_us < OVERLAP_BELOW_US) {
        depth = 2; /* the next payload comes while this one runs */
    }
    uint64_t most = 1 + node->prefetch_max / (node->slots > 0 ? node->slots : 1);
    depth = depth < 1 ? 1 : depth;
    return (uint32_t)(depth > most ? most : depth);
}

/* So many tasks of the class fit beside what the node holds. Those given ahead count, too. */
static uint32_t room_in_memory(const struct hp_class *class_, const struct hp_node *node)
{
    if (class_->mem_bytes == 0) {
        return UINT32_MAX;
    }
    uint64_t open = node->mem_bytes > node->used_mem ? node->mem_bytes - node->used_mem : 0;
    uint64_t room = open / class_->mem_bytes;
    return room < UINT32_MAX ? (uint32_t)room : UINT32_MAX;
}

uint32_t hp_sched_room(const struct hp_core *core, const struct hp_class *class_,
                       const struct hp_node *node, bool ahead)
{
    if (class_->kind == HP_TASK_KIND_CALL) {
        return hp_pool_room(core, class_, node, ahead ? depth_of(class_, node, true) : 0);
    }
    uint32_t in_memory = room_in_memory(class_, node);
    if (in_memory == 0) {
        return 0;
    }
    uint32_t open = node->slots > node->used_cpus ? node->slots - node->used_cpus : 0;
    if (hp_sched_is_light(class_)) {
        uint64_t most = (uint64_t)open * depth_of(class_, node, ahead);
        bool probes = ahead && class_->run_us == 0 && class_->held == 0 && open > 0;
        uint32_t room = most > node->light_count ? (uint32_t)(most - node->light_count) : probes;
        return room < in_memory ? room : in_memory;
    }
    uint32_t held = node->light_count < open ? node->light_count : open;
    return open - held >= class_->cpus ? 1 : 0;
}

static bool ranks_before(const struct hp_lane *a, const struct hp_lane *b)
{
    if (b == NULL || a->rank != b->rank) {
        return b == NULL || a->rank > b->rank;
    }
    return a->rank_id < b->rank_id;
}

/* If a worker is lost, all at-most-once tasks it has are failed: commands of that kind, which may
 * run for days, are given when they can begin, and not before. */
static bool is_given_late(struct hp_lane *lane)
{
    const struct hp_spec *spec;
    if (lane->parked_count > 0) {
        spec = HP_CONTAINER_OF(hp_list_first(&lane->parked), struct hp_parked, link)->group->spec;
    } else {
        spec = hp_lane_front(lane)->group->spec;
    }
    return spec->options.at_most_once && spec->options.kind == HP_TASK_KIND_COMMAND;
}

/* Idle slots are alike to all that take one; what goes ahead of its need depends on run times. */
static bool may_block(const struct hp_class *class_, bool prefetch)
{
    return class_->kind != HP_TASK_KIND_CALL && (prefetch || !hp_sched_is_light(class_));
}

/* May this node stay free for the lane's task? One node at a time does that for a lane. */
static bool reserve(struct hp_core *core, struct hp_lane *lane, struct hp_node *node)
{
    struct hp_node *holder = hp_idmap_find_ptr(&core->nodes, lane->reserved_node);
    if (holder == NULL || !hp_node_is_up(holder) || holder->draining || holder->leaving ||
        !hp_class_fits(core, lane->class_, holder)) {
        lane->reserved_node = node->number;
        holder = node;
    }
    return holder == node;
}

/* The lane the node should be served from, or NULL. */
static struct hp_lane *best_lane(struct hp_core *core, struct hp_node *node, bool prefetch,
                                 uint32_t *ret_room)
{
    struct hp_lane *best = NULL;
    struct hp_lane *blocked = NULL;
    uint32_t best_room = 0;
    HP_LIST_FOR_EACH (link, &core->class_list) {
        struct hp_class *class_ = HP_CONTAINER_OF(link, struct hp_class, link);
        struct hp_lane *lane = top_lane(class_);
        if (lane == NULL || !hp_class_fits(core, class_, node)) {
            continue;
        }
        bool late = prefetch && is_given_late(lane);
        uint32_t room = late ? 0 : hp_sched_room(core, class_, node, prefetch);
        if (room == 0) {
            if (may_block(class_, prefetch) && ranks_before(lane, blocked) &&
                reserve(core, lane, node)) {
                blocked = lane;
            }
            continue;
        }
        if (ranks_before(lane, best)) {
            best = lane;
            best_room = room;
        }
    }
    if (blocked != NULL && (best == NULL || ranks_before(blocked, best))) {
        return NULL; /* what runs ends first, then this one gets its slots */
    }
    *ret_room = best_room;
    return best;
}

/* ------------------------------------------------ handing out */
static struct hp_lease_batch *open_lease(struct hp_core *core)
{
    if (core->open_lease == NULL) {
        core->open_lease = hp_must_calloc(sizeof(*core->open_lease));
        core->open_lease->number = core->batch_number;
        hp_must(hp_idmap_put_ptr(&core->lease_batches, core->batch_number, core->open_lease));
    }
    return core->open_lease;
}

static void put_lease(struct hp_core *core, struct hp_attempt *attempt)
{
    if (hp_spec_is_volatile(attempt->spec)) {
        return;
    }
    attempt->lease = open_lease(core);
    attempt->lease->live++;
    struct hp_op *op = hp_batch_add(core->batch, HP_OP_LEASE);
    op->lease = (struct hp_lease){.id = attempt->id,
                                  .epoch = attempt->epoch,
                                  .group = attempt->group_first,
                                  .attempt = attempt->attempt,
                                  .node = attempt->node->number,
                                  .lane = attempt->spec->lane->id,
                                  .failures = attempt->failures,
                                  .losses = attempt->losses,
                                  .releases = attempt->releases,
                                  .started_at_ms = attempt->started_at_ms};
}

static void follow_started(struct hp_core *core, struct hp_attempt *attempt)
{
    bool asked = hp_follow_any(core, attempt->id);
    if (attempt->spec->options.follow && attempt->session != NULL &&
        attempt->session->conn != NULL) {
        hp_follow_add(core, attempt->id, attempt->session->conn->id);
    } else if (asked) {
        struct hp_st_run_ref ref = {
            .id = attempt->id, .attempt = attempt->attempt, .epoch = attempt->epoch};
        struct hp_msg_worker_control control = {.has = HP_HAS_WORKER_CONTROL_FOLLOW,
                                                .follow = {.items = &ref, .count = 1}};
        hp_node_control_attempt(core, attempt, &control);
    }
}

static void send_assign(struct hp_core *core, struct hp_node *node, const struct hp_group *group,
                        const struct hp_attempt *first, uint32_t count, bool eager)
{
    struct hp_st_assign_run run = {.has = HP_HAS_ST_ASSIGN_RUN_COUNT,
                                   .first = first->id,
                                   .count = count,
                                   .attempt = first->attempt,
                                   .epoch = first->epoch,
                                   .group = first->group_first};
    run.options.raw = group->spec->raw;
    if (group->pack.size > 0) {
        run.has |= HP_HAS_ST_ASSIGN_RUN_PAYLOADS;
        run.payloads.count = count;
        run.payloads.items = hp_arena_alloc(&core->arena, count * sizeof(struct hp_bin));
        HP_ASSERT(run.payloads.items != NULL);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t index = (uint32_t)(first->id - group->first) + i;
            run.payloads.items[i] = hp_pack_payload(group->pack, index);
        }
        if (hp_pack_has_blobs(group->pack)) {
            run.has |= HP_HAS_ST_ASSIGN_RUN_BLOBS;
            run.blobs.count = count;
            run.blobs.items = hp_arena_alloc(&core->arena, count * sizeof(uint64_t));
            HP_ASSERT(run.blobs.items != NULL);
            for (uint32_t i = 0; i < count; i++) {
                uint32_t index = (uint32_t)(first->id - group->first) + i;
                run.blobs.items[i] = hp_pack_blob(group->pack, index);
            }
        }
    }
    hp_out_assign(core, node->conn, &run, eager);
}

static bool is_eager(const struct hp_core *core, const struct hp_node *node,
                     const struct hp_group *group, uint64_t last_id)
{
    const struct hp_st_task_options *options = &group->spec->options;
    /* Behind the reply to its registration: a worker that has no lease yet fences nothing. */
    if (node->register_batch > core->durable_number) {
        return false;
    }
    if (group->in_memory) {
        return hp_volatile_is_now(core, group->spec, last_id);
    }
    return core->config.eager && options->kind != HP_TASK_KIND_COMMAND && !options->at_most_once &&
           group->batch == core->batch_number && last_id < core->durable_reserved_id;
}

/* How many of the run's next tasks fit one frame with their payloads; at least one. */
static uint32_t fit_frame(const struct hp_run *run, uint32_t count)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = (uint32_t)(run->first - run->group->first) + i;
        bytes += hp_pack_payload(run->group->pack, index).size;
        if (bytes > HP_OUT_FRAME_BYTES && i > 0) {
            return i;
        }
    }
    return count;
}

/* Gives `count` tasks of the lane's front run to the node. */
static void give_run(struct hp_core *core, struct hp_lane *lane, struct hp_node *node,
                     uint32_t count)
{
    struct hp_run *run = hp_lane_front(lane);
    struct hp_group *group = run->group;
    group->refs++; /* the run may end below */
    uint64_t id = run->first;
    bool eager = is_eager(core, node, group, id + count - 1);
    struct hp_attempt *first = NULL;
    for (uint32_t i = 0; i < count; i++) {
        struct hp_attempt *attempt =
            hp_attempt_new(core, id + i, node, group->spec, group->session);
        attempt->attempt = 1;
        attempt->group_first = group->first;
        attempt->group_count = group->count;
        attempt->created_at_ms = group->created_at_ms;
        attempt->eager = eager;
        attempt->sent_after = eager ? 0 : core->batch_number;
        put_lease(core, attempt);
        first = first == NULL ? attempt : first;
    }
    core->turn_eager += eager && !group->in_memory ? count : 0;
    hp_lane_take(core, lane, count);
    send_assign(core, node, group, first, count, eager);
    for (uint32_t i = 0;
         i < count && (group->spec->options.follow || !hp_list_is_empty(&core->follows)); i++) {
        follow_started(core, hp_attempt_find(core, id + i));
    }
    hp_group_unref(core, group);
}

/* A task that was dispatched before: its side row goes, its lease comes. */
static void give_parked(struct hp_core *core, struct hp_lane *lane, struct hp_node *node)
{
    struct hp_parked *parked =
        HP_CONTAINER_OF(hp_list_first(&lane->parked), struct hp_parked, link);
    struct hp_group *group = parked->group;
    struct hp_attempt *attempt =
        hp_attempt_new(core, parked->id, node, group->spec, group->session);
    attempt->attempt = parked->attempt + 1;
    attempt->failures = parked->failures;
    attempt->losses = parked->losses;
    attempt->releases = parked->releases;
    attempt->group_first = parked->group_first;
    attempt->group_count = parked->group_count;
    attempt->created_at_ms = group->created_at_ms;
    put_lease(core, attempt);
    attempt->eager = group->in_memory && is_eager(core, node, group, parked->id);
    attempt->sent_after = attempt->eager ? 0 : core->batch_number;
    if (!group->in_memory) {
        hp_batch_add(core->batch, HP_OP_SIDE_DEL)->side_del.first = parked->id;
        hp_lane_undelayed(core, lane, 1);
    }
    send_assign(core, node, group, attempt, 1, attempt->eager);
    follow_started(core, attempt);
    hp_parked_free(core, parked);
}

static uint32_t give(struct hp_core *core, struct hp_lane *lane, struct hp_node *node,
                     uint32_t room)
{
    lane->reserved_node = 0;
    uint32_t count = 1;
    if (lane->parked_count > 0) {
        give_parked(core, lane, node);
    } else {
        count = hp_lane_front(lane)->count;
        count = count < room ? count : room;
        count = count < ROUND_MAX ? count : ROUND_MAX;
        if (lane->ckey != NULL) {
            uint32_t left = lane->ckey->max - lane->ckey->running;
            count = count < left ? count : left;
        }
        count = fit_frame(hp_lane_front(lane), count);
        give_run(core, lane, node, count);
    }
    core->figures.started += count;
    if (lane->ckey != NULL && lane->ckey->running >= lane->ckey->max) {
        HP_LIST_FOR_EACH (link, &lane->ckey->lanes) {
            hp_lane_update(core, HP_CONTAINER_OF(link, struct hp_lane, ckey_link));
        }
    }
    return count;
}

/* One round over all workers. */
static bool round_once(struct hp_core *core, bool prefetch)
{
    bool any = false;
    HP_LIST_FOR_EACH (link, &core->node_list) {
        struct hp_node *node = HP_CONTAINER_OF(link, struct hp_node, link);
        if (!hp_sched_is_taking(node)) {
            continue;
        }
        uint32_t room = 0;
        struct hp_lane *lane = best_lane(core, node, prefetch, &room);
        if (lane == NULL) {
            continue;
        }
        (void)give(core, lane, node, room);
        any = true;
        if (core->backlog_ops + core->batch->op_count > core->config.backlog_ops_max) {
            return false;
        }
    }
    /* The next round begins behind the first node: with equal room all get their turn. */
    if (any && core->node_list.next != core->node_list.prev) {
        struct hp_list *first = hp_list_pop_front(&core->node_list);
        hp_list_push_back(&core->node_list, first);
    }
    return any;
}

void hp_sched_run(struct hp_core *core)
{
    if (!core->dispatch_wanted || core->draining) {
        return;
    }
    if (core->backlog_ops + core->batch->op_count > core->config.backlog_ops_max) {
        return; /* wanted again when a commit ends */
    }
    core->dispatch_wanted = false;
    while (round_once(core, false)) {
    }
    while (round_once(core, true)) {
    }
    hp_arena_reset(&core->arena);
}
