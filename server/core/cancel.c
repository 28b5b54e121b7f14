/* SPDX-License-Identifier: BSD-2-Clause */
/* task.cancel, and taking waiting tasks out (also for expiry and for replaced unique keys). */
#include "server/core/state.h"

enum { CANCEL_BYTES = 1 << 20, RESULTS_MAX = 4096 };

/* Takes ids out of a side row; what is left of a range stays in rows of its own. */
static void drop_side_row(struct hp_core *core, const struct hp_side *side, uint64_t id,
                          uint32_t count, struct hp_lane *lane)
{
    hp_timer_remove(core, side->first, false);
    hp_batch_add(core->batch, HP_OP_SIDE_DEL)->side_del.first = side->first;
    struct hp_side part = *side;
    if (id > side->first) {
        part.count = (uint32_t)(id - side->first);
        hp_batch_add(core->batch, HP_OP_SIDE)->side = part;
        hp_timer_put(core, &part);
    }
    uint64_t end = side->first + side->count;
    if (id + count < end) {
        part.first = id + count;
        part.count = (uint32_t)(end - part.first);
        hp_batch_add(core->batch, HP_OP_SIDE)->side = part;
        hp_timer_put(core, &part);
    }
    hp_lane_undelayed(core, lane, count);
}

/* The row in memory that holds the task, or NULL; it may be a part of what the store saw. */
static struct hp_timer *timer_now(struct hp_core *core, const struct hp_loaded_task *task)
{
    for (uint64_t first = task->side.first; first <= task->id; first++) {
        struct hp_timer *timer = hp_timer_find(core, first);
        if (timer != NULL && task->id - first < timer->side.count) {
            return timer;
        }
    }
    return NULL;
}

bool hp_cancel_is_stale(struct hp_core *core, const struct hp_loaded_task *task)
{
    return task->has_side && task->side.kind == HP_SIDE_DELAYED &&
           hp_recent_overlaps(core, task->side.first, task->side.count) &&
           timer_now(core, task) == NULL;
}

/* Ends waiting tasks [task->id, +count) of one group: lane, parked or side row, then the result.
 * False: some of their rows are damaged, and nothing was done. */
bool hp_cancel_waiting(struct hp_core *core, const struct hp_loaded *loaded,
                       const struct hp_loaded_task *task, uint32_t count, enum hp_task_state state)
{
    if (task->damaged) {
        return false;
    }
    const struct hp_loaded_group *group = &loaded->groups[task->group];
    struct hp_error error;
    struct hp_spec *spec = hp_spec_get(core, group->options, &error);
    HP_ASSERT(spec != NULL); /* it was let in, and its digest is right */
    if (hp_spec_is_volatile(spec)) {
        hp_volatile_cancel(core, task->id, count, (uint32_t)state);
        hp_spec_unref(core, spec);
        return true;
    }
    struct hp_finish finish = {.first = task->id,
                               .count = count,
                               .state = state,
                               .reason = state == HP_TASK_STATE_CANCELLED ? HP_REASON_CANCELLED
                                                                          : HP_REASON_NONE,
                               .spec = spec,
                               .session = hp_session_find(core, group->session)};
    hp_pool_fill_finish(core, &finish);
    struct hp_parked *parked = hp_idmap_find_ptr(&core->parked, task->id);
    if (parked != NULL) {
        finish.attempt_number = parked->attempt;
        finish.failures = parked->failures;
        finish.losses = parked->losses;
        hp_batch_add(core->batch, HP_OP_SIDE_DEL)->side_del.first = task->id;
        hp_lane_undelayed(core, spec->lane, 1);
        hp_parked_free(core, parked);
    } else if (task->has_side) {
        const struct hp_timer *timer = timer_now(core, task);
        struct hp_side side = timer != NULL ? timer->side : task->side;
        finish.attempt_number = side.attempt;
        finish.failures = side.failures;
        finish.losses = side.losses;
        drop_side_row(core, &side, task->id, count, spec->lane);
    } else {
        hp_lane_remove(core, spec->lane, task->id, count);
    }
    hp_task_finish(core, &finish);
    hp_spec_unref(core, spec);
    return true;
}

/* ------------------------------------------------ attempts */
static void cancel_attempt(struct hp_core *core, struct hp_attempt *attempt, uint32_t mode,
                           uint64_t grace_ms)
{
    if (attempt->state != HP_TASK_STATE_CANCELLING) {
        hp_attempt_move(core, attempt, HP_TASK_STATE_CANCELLING);
    } else if (attempt->cancel_mode == HP_CANCEL_MODE_FORCE) {
        mode = HP_CANCEL_MODE_FORCE; /* what was promised stands */
    }
    attempt->cancel_mode = mode;
    attempt->cancel_grace_ms = grace_ms;
    if (attempt->lease != NULL) {
        struct hp_op *op = hp_batch_add(core->batch, HP_OP_SIDE);
        op->side = (struct hp_side){.first = attempt->id,
                                    .count = 1,
                                    .kind = HP_SIDE_CANCELLING,
                                    .lane = attempt->spec->lane->id,
                                    .attempt = attempt->attempt,
                                    .failures = attempt->failures,
                                    .losses = attempt->losses,
                                    .releases = attempt->releases,
                                    .mode = mode,
                                    .grace_ms = grace_ms};
    }
    struct hp_st_cancel_item item = {.has = HP_HAS_ST_CANCEL_ITEM_MODE |
                                            HP_HAS_ST_CANCEL_ITEM_GRACE_MS,
                                     .id = attempt->id,
                                     .attempt = attempt->attempt,
                                     .epoch = attempt->epoch,
                                     .mode = (enum hp_cancel_mode)mode,
                                     .grace_ms = grace_ms};
    struct hp_msg_worker_control control = {.has = HP_HAS_WORKER_CONTROL_CANCEL,
                                            .cancel = {.items = &item, .count = 1}};
    hp_node_control_attempt(core, attempt, &control);
}

/* ------------------------------------------------ the request, in slices */
static void cancel_load(struct hp_core *core, struct hp_pending *pending,
                        const struct hp_msg_task_cancel *msg, uint64_t skip)
{
    struct hp_load *load = hp_out_load(core, HP_LOAD_TASKS, pending);
    load->bytes_max = CANCEL_BYTES;
    load->spans = hp_must_alloc((msg->ids.count + msg->ranges.count + 1U) * sizeof(*load->spans));
    for (uint32_t i = 0; i < msg->ids.count + msg->ranges.count; i++) {
        struct hp_id_span span =
            i < msg->ids.count ? (struct hp_id_span){msg->ids.items[i], 1}
                               : (struct hp_id_span){msg->ranges.items[i - msg->ids.count].first,
                                                     msg->ranges.items[i - msg->ids.count].count};
        if (skip >= span.count) {
            skip -= span.count;
            continue;
        }
        span.first += skip;
        span.count -= (uint32_t)skip;
        skip = 0;
        load->spans[load->span_count++] = span;
    }
}

void hp_on_task_cancel(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_task_cancel msg;
    struct hp_error error;
    if (hp_msg_task_cancel_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    uint64_t total = msg.ids.count;
    for (uint32_t i = 0; i < msg.ranges.count; i++) {
        total += msg.ranges.items[i].count;
        if (msg.ranges.items[i].first > UINT64_MAX - msg.ranges.items[i].count) {
            total = UINT64_MAX / 2;
        }
    }
    if (total == 0 || total > 1000000) {
        (void)hp_error_set(&error, HP_ERR_INVALID,
                           "task.cancel: give 1 to 1,000,000 ids in ids and ranges");
        hp_request_bad(request, &error);
        return;
    }
    struct hp_pending *pending =
        hp_pending_new(core, HP_PENDING_CANCEL, request->conn, request->rpc->msgid);
    pending->frame.data = hp_memdup(request->frame.data, request->frame.size);
    pending->frame.size = request->frame.size;
    HP_ASSERT(pending->frame.data != NULL);
    cancel_load(core, pending, &msg, 0);
}

static void note(struct hp_pending *pending, uint64_t id, enum hp_cancel_outcome outcome)
{
    pending->counts[outcome]++;
    if (pending->result_count < RESULTS_MAX) {
        struct hp_st_cancel_result result = {.id = id, .outcome = outcome};
        hp_must(hp_st_cancel_result_encode(&pending->results, &result));
    }
    pending->result_count++;
}

uint32_t hp_cancel_plain_run(struct hp_core *core, const struct hp_loaded *loaded, uint32_t at)
{
    const struct hp_loaded_task *first = &loaded->tasks[at];
    uint32_t count = 1;
    if (hp_idmap_find(&core->parked, first->id, NULL) ||
        (first->has_side && first->side.kind != HP_SIDE_DELAYED)) {
        return 1;
    }
    while (at + count < loaded->task_count) {
        const struct hp_loaded_task *task = &loaded->tasks[at + count];
        bool alike = task->has_side == first->has_side && task->damaged == first->damaged &&
                     (!task->has_side || task->side.first == first->side.first);
        if (task->id != first->id + count || task->group != first->group || !alike ||
            hp_idmap_find(&core->parked, task->id, NULL) ||
            hp_task_now(core, task) != hp_task_now(core, first)) {
            break;
        }
        count++;
    }
    return count;
}

/* Cancels what starts at tasks[at]; how many it dealt with; 0: it moved, ask again. */
static uint32_t cancel_some(struct hp_core *core, struct hp_pending *pending,
                            const struct hp_msg_task_cancel *msg, const struct hp_loaded *loaded,
                            uint32_t at)
{
    const struct hp_loaded_task *task = &loaded->tasks[at];
    enum hp_task_state now = hp_task_now(core, task);
    uint32_t count = 1;
    enum hp_cancel_outcome outcome = HP_CANCEL_OUTCOME_TOO_LATE;
    struct hp_pool *pool = hp_pool_find(core, task->id);
    if (pool != NULL) {
        if (msg->mode != HP_CANCEL_MODE_QUEUED) {
            hp_pool_terminate(core, pool);
            outcome = HP_CANCEL_OUTCOME_CANCELLING;
        }
    } else if (now == 0) {
        if (hp_recent_find(core, task->id) != 1) {
            return 0;
        }
    } else if (now < HP_TASK_STATE_DONE && hp_cancel_is_stale(core, task)) {
        return 0;
    } else if (now == HP_TASK_STATE_UNKNOWN) {
        outcome = HP_CANCEL_OUTCOME_UNKNOWN;
    } else if (now == HP_TASK_STATE_READY || now == HP_TASK_STATE_DELAYED ||
               now == HP_TASK_STATE_BURIED) {
        count = hp_cancel_plain_run(core, loaded, at);
        if (hp_cancel_waiting(core, loaded, task, count, HP_TASK_STATE_CANCELLED)) {
            outcome = HP_CANCEL_OUTCOME_CANCELLED;
        }
    } else if (now < HP_TASK_STATE_DONE && msg->mode != HP_CANCEL_MODE_QUEUED) {
        cancel_attempt(core, hp_attempt_find(core, task->id), msg->mode, msg->grace_ms);
        outcome = HP_CANCEL_OUTCOME_CANCELLING;
    }
    for (uint32_t i = 0; i < count; i++) {
        note(pending, task->id + i, outcome);
    }
    return count;
}

static void cancel_reply(struct hp_core *core, struct hp_pending *pending, struct hp_conn *conn)
{
    struct hp_buf *out = hp_out_reply(core, conn, pending->held);
    static const char *const names[] = {"cancelled", "cancelling", "too_late", "unknown"};
    bool with_results = pending->result_count <= RESULTS_MAX;
    hp_must(hp_rpc_put_reply(out, pending->msgid));
    hp_must(hp_wire_put_map(out, with_results ? 5 : 4));
    for (int i = 0; i < 4; i++) {
        hp_must(hp_wire_put_cstr(out, names[i]));
        hp_must(hp_wire_put_u64(out, pending->counts[i]));
    }
    if (with_results) {
        hp_must(hp_wire_put_cstr(out, "results"));
        hp_must(hp_wire_put_array(out, pending->result_count));
        hp_must(hp_buf_append_buf(out, &pending->results));
    }
}

void hp_cancel_loaded(struct hp_core *core, struct hp_pending *pending,
                      const struct hp_loaded *loaded)
{
    struct hp_conn *conn = hp_conn_find(core, pending->conn);
    struct hp_rpc rpc;
    struct hp_msg_task_cancel msg;
    struct hp_error error;
    hp_must(hp_rpc_read(core->wire, pending->frame.data, pending->frame.size, &rpc, &error));
    hp_must(hp_msg_task_cancel_decode(rpc.params, &core->arena, &msg, &error));
    uint32_t at = 0;
    pending->held = pending->held || !loaded->in_memory;
    while (at < loaded->task_count) {
        uint32_t count = cancel_some(core, pending, &msg, loaded, at);
        if (count == 0) {
            break;
        }
        at += count;
    }
    if (at < loaded->task_count || loaded->more) {
        struct hp_pending *more = hp_pending_new(core, HP_PENDING_CANCEL, conn, pending->msgid);
        more->conn = pending->conn; /* goes on, even if who asked has left */
        more->frame = pending->frame;
        pending->frame = (struct hp_bin){0};
        more->held = pending->held;
        memcpy(more->counts, pending->counts, sizeof(more->counts));
        more->results = pending->results;
        hp_buf_init(&pending->results, 1U << 20);
        more->result_count = pending->result_count;
        cancel_load(core, more, &msg, more->result_count);
    } else if (conn != NULL) {
        cancel_reply(core, pending, conn);
    }
}
