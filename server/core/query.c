/* SPDX-License-Identifier: BSD-2-Clause */
/* What a task is now: the store's facts, corrected by memory; task.get, task.list, task.why. */
#include <stdio.h>

#include "server/core/damage.h"
#include "server/core/state.h"

enum { REPLY_BYTES = 512 * 1024, STATUS_ELEMENTS_MAX = 500, LIST_ROUNDS_MAX = 64 };

/* ------------------------------------------------ state */
enum hp_task_state hp_task_now(struct hp_core *core, const struct hp_loaded_task *task)
{
    if (task->ended) {
        return (enum hp_task_state)task->result.state;
    }
    if (!task->exists && !task->damaged) {
        return task->gone ? HP_TASK_STATE_GONE : HP_TASK_STATE_UNKNOWN;
    }
    const struct hp_vgroup *group = hp_volatile_group(core, task->id);
    const struct hp_vend *end = group != NULL ? group->ends[task->id - group->first] : NULL;
    if (end != NULL) { /* since it was looked at */
        return hp_vend_is_gone(end) ? HP_TASK_STATE_GONE : (enum hp_task_state)end->state;
    }
    const struct hp_attempt *attempt = hp_attempt_find(core, task->id);
    if (attempt != NULL) {
        return (enum hp_task_state)attempt->state;
    }
    if (hp_idmap_find(&core->parked, task->id, NULL)) {
        return HP_TASK_STATE_READY;
    }
    if (hp_pool_find(core, task->id) != NULL) {
        return HP_TASK_STATE_RUNNING;
    }
    if (hp_recent_find(core, task->id) != 0) {
        return 0; /* it moved after the store looked */
    }
    if (task->damaged) {
        return hp_damage_state(core, task->id);
    }
    if (task->has_side && task->side.kind == HP_SIDE_BURIED) {
        return HP_TASK_STATE_BURIED;
    }
    if (task->has_side &&
        (task->side.kind == HP_SIDE_DELAYED || task->side.kind == HP_SIDE_RETURNED)) {
        return HP_TASK_STATE_DELAYED;
    }
    return HP_TASK_STATE_READY;
}

static void fill_attempt(const struct hp_attempt *attempt, struct hp_st_task_status *ret)
{
    ret->attempt = attempt->attempt;
    ret->failures = attempt->failures;
    ret->losses = attempt->losses;
    ret->node = attempt->node->name;
    ret->started_at_ms = attempt->started_at_ms;
    ret->has |= HP_HAS_ST_TASK_STATUS_ATTEMPT | HP_HAS_ST_TASK_STATUS_FAILURES |
                HP_HAS_ST_TASK_STATUS_LOSSES | HP_HAS_ST_TASK_STATUS_NODE |
                HP_HAS_ST_TASK_STATUS_STARTED_AT_MS;
}

static void fill_result(struct hp_core *core, const struct hp_result *result, bool with_end,
                        struct hp_st_task_status *ret)
{
    ret->reason = (enum hp_reason)result->reason;
    ret->attempt = result->attempt;
    ret->failures = result->failures;
    ret->losses = result->losses;
    ret->ended_at_ms = result->ended_at_ms;
    ret->has |= HP_HAS_ST_TASK_STATUS_REASON | HP_HAS_ST_TASK_STATUS_ATTEMPT |
                HP_HAS_ST_TASK_STATUS_FAILURES | HP_HAS_ST_TASK_STATUS_LOSSES |
                HP_HAS_ST_TASK_STATUS_ENDED_AT_MS;
    if (result->started_at_ms != 0) {
        ret->started_at_ms = result->started_at_ms;
        ret->has |= HP_HAS_ST_TASK_STATUS_STARTED_AT_MS;
    }
    const struct hp_node *node = hp_idmap_find_ptr(&core->nodes, result->node);
    if (node != NULL) {
        ret->node = node->name;
        ret->has |= HP_HAS_ST_TASK_STATUS_NODE;
    }
    if (with_end && result->end.size > 0) {
        ret->end.raw = result->end;
        ret->has |= HP_HAS_ST_TASK_STATUS_END;
    }
}

static void fill_side(const struct hp_side *side, struct hp_st_task_status *ret)
{
    ret->attempt = side->attempt;
    ret->failures = side->failures;
    ret->losses = side->losses;
    ret->reason = (enum hp_reason)side->reason;
    ret->run_at_ms = side->run_at_ms;
    ret->has |= HP_HAS_ST_TASK_STATUS_ATTEMPT | HP_HAS_ST_TASK_STATUS_FAILURES |
                HP_HAS_ST_TASK_STATUS_LOSSES | HP_HAS_ST_TASK_STATUS_REASON |
                HP_HAS_ST_TASK_STATUS_RUN_AT_MS;
}

void hp_status_fill(struct hp_core *core, const struct hp_loaded *loaded,
                    const struct hp_loaded_task *task, bool with_end, bool with_options,
                    struct hp_st_task_status *ret)
{
    enum hp_task_state now = hp_task_now(core, task);
    *ret =
        (struct hp_st_task_status){.id = task->id, .state = now != 0 ? now : HP_TASK_STATE_RUNNING};
    if (task->exists) {
        const struct hp_loaded_group *group = &loaded->groups[task->group];
        ret->group = group->first;
        ret->group_count = group->count;
        ret->created_at_ms = group->created_at_ms;
        ret->has |= HP_HAS_ST_TASK_STATUS_GROUP | HP_HAS_ST_TASK_STATUS_GROUP_COUNT |
                    HP_HAS_ST_TASK_STATUS_CREATED_AT_MS;
        if (with_options && group->options.size > 0) {
            ret->options.raw = group->options;
            ret->has |= HP_HAS_ST_TASK_STATUS_OPTIONS;
        }
    }
    if (task->ended || task->gone) {
        fill_result(core, &task->result, with_end, ret);
        return;
    }
    const struct hp_attempt *attempt = hp_attempt_find(core, task->id);
    if (attempt != NULL) {
        fill_attempt(attempt, ret);
    } else if (now == HP_TASK_STATE_FAILED) {
        ret->reason = HP_REASON_DAMAGED;
        ret->has |= HP_HAS_ST_TASK_STATUS_REASON;
    } else if (task->has_side) {
        fill_side(&task->side, ret);
    }
}

/* ------------------------------------------------ task.get */
static void load_ids(struct hp_load *load, const struct hp_list_u64 *ids,
                     const struct hp_list_id_range *ranges)
{
    load->spans = hp_must_calloc((ids->count + ranges->count + 1U) * sizeof(*load->spans));
    for (uint32_t i = 0; i < ids->count; i++) {
        load->spans[load->span_count++] = (struct hp_id_span){ids->items[i], 1};
    }
    for (uint32_t i = 0; i < ranges->count; i++) {
        load->spans[load->span_count++] =
            (struct hp_id_span){ranges->items[i].first, ranges->items[i].count};
    }
}

static struct hp_bin copy_frame(const struct hp_request *request)
{
    struct hp_bin copy = {.data = hp_memdup(request->frame.data, request->frame.size),
                          .size = request->frame.size};
    HP_ASSERT(copy.data != NULL);
    return copy;
}

static const char *bad_ranges(const struct hp_list_id_range *ranges, uint64_t most)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < ranges->count; i++) {
        total += ranges->items[i].count;
        if (ranges->items[i].first > UINT64_MAX - ranges->items[i].count) {
            return "ranges: a range ends above the largest id";
        }
    }
    return total > most ? "ranges: too many ids in one request" : NULL;
}

void hp_on_task_get(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_task_get msg;
    struct hp_error error;
    if (hp_msg_task_get_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    const char *wrong = bad_ranges(&msg.ranges, 100000);
    if (wrong != NULL) {
        (void)hp_error_set(&error, HP_ERR_INVALID, "task.get.%s", wrong);
        hp_request_bad(request, &error);
        return;
    }
    struct hp_pending *pending =
        hp_pending_new(core, HP_PENDING_GET, request->conn, request->rpc->msgid);
    pending->frame = copy_frame(request);
    struct hp_load *load = hp_out_load(core, HP_LOAD_TASKS, pending);
    load_ids(load, &msg.ids, &msg.ranges);
    load->with_end = msg.end;
    load->bytes_max = REPLY_BYTES;
}

/* The params of a pending query, again: they were read before, so that only memory can fail. */
static const struct hp_wire_obj *read_params(struct hp_core *core, const struct hp_pending *pending)
{
    struct hp_rpc rpc;
    hp_must(hp_rpc_read(core->wire, pending->frame.data, pending->frame.size, &rpc, NULL));
    return rpc.params;
}

/* What the statuses of an answer take of a frame. */
struct load_of_frame {
    size_t bytes;
    uint64_t elements;
};

uint64_t hp_elements_of(struct hp_bin value)
{
    struct hp_tok tok;
    size_t size = 0;
    const char *why = NULL;
    hp_tok_init(&tok, &hp_tok_limits_open);
    (void)hp_tok_scan(&tok, value.data, value.size, &size, &why);
    return tok.elements;
}

/* True: one more fits (the first always does: options and end record fit in a frame together). */
static bool frame_has_room(struct load_of_frame *frame, const struct hp_st_task_status *status)
{
    bool first = frame->bytes == 0;
    frame->bytes += 300U + status->end.raw.size + status->options.raw.size;
    frame->elements += 32U + hp_elements_of(status->end.raw) + hp_elements_of(status->options.raw);
    return first || (frame->bytes <= REPLY_BYTES && frame->elements <= HP_OUT_FRAME_ELEMENTS);
}

/* For who asks only for what has ended: also what never was, as far as ids were given out. */
static bool is_over(const struct hp_core *core, const struct hp_loaded_task *task,
                    enum hp_task_state now)
{
    if (task->ended || task->gone) {
        return true;
    }
    if (task->exists || task->damaged) { /* that it ended meanwhile is told with its end, later */
        return task->damaged && now == HP_TASK_STATE_FAILED;
    }
    return task->id < core->next_id;
}

void hp_query_get_loaded(struct hp_core *core, struct hp_pending *pending,
                         const struct hp_loaded *loaded)
{
    struct hp_conn *conn = hp_conn_find(core, pending->conn);
    struct hp_msg_task_get msg;
    if (conn == NULL) {
        return;
    }
    hp_must(hp_msg_task_get_decode(read_params(core, pending), &core->arena, &msg, NULL));
    struct hp_msg_task_get_reply reply = {0};
    reply.tasks.items =
        HP_ARENA_NEW_ARRAY(&core->arena, struct hp_st_task_status, loaded->task_count + 1U);
    HP_ASSERT(reply.tasks.items != NULL);
    struct load_of_frame frame = {0};
    uint64_t next = loaded->more ? loaded->next : 0;
    for (uint32_t i = 0; i < loaded->task_count; i++) {
        const struct hp_loaded_task *task = &loaded->tasks[i];
        struct hp_st_task_status *status = &reply.tasks.items[reply.tasks.count];
        hp_status_fill(core, loaded, task, msg.end, msg.options, status);
        if (msg.ended_only && !is_over(core, task, status->state)) {
            continue;
        }
        if (!frame_has_room(&frame, status)) {
            next = task->id;
            break;
        }
        reply.tasks.count++;
    }
    if (next != 0) {
        reply.next = next;
        reply.has |= HP_HAS_TASK_GET_REPLY_NEXT;
    }
    struct hp_buf *out = hp_out_reply(core, conn, !loaded->in_memory);
    hp_must(hp_rpc_put_reply(out, pending->msgid));
    hp_must(hp_msg_task_get_reply_encode(out, &reply));
}

/* ------------------------------------------------ task.list */
static void list_load(struct hp_core *core, struct hp_pending *pending,
                      const struct hp_msg_task_list *msg, uint64_t before)
{
    struct hp_load *load = hp_out_load(core, HP_LOAD_LIST, pending);
    load->before = before;
    load->limit = 1000;
    load->with_end = msg->end;
    load->since_ms = (msg->has & HP_HAS_TASK_LIST_SINCE_MS) != 0 ? msg->since_ms : 0;
    load->bytes_max = REPLY_BYTES / 2;
    load->live_only = msg->states.count > 0;
    for (uint32_t i = 0; i < msg->states.count; i++) {
        if (msg->states.items[i] >= HP_TASK_STATE_DONE) {
            load->live_only = false;
        }
    }
}

void hp_on_task_list(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_task_list msg;
    struct hp_error error;
    if (hp_msg_task_list_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    struct hp_pending *pending =
        hp_pending_new(core, HP_PENDING_LIST, request->conn, request->rpc->msgid);
    pending->frame = copy_frame(request);
    list_load(core, pending, &msg, (msg.has & HP_HAS_TASK_LIST_BEFORE) != 0 ? msg.before : 0);
}

static bool contains(struct hp_str text, struct hp_str part)
{
    for (uint32_t i = 0; part.size <= text.size && i <= text.size - part.size; i++) {
        if (part.size == 0 || memcmp(text.data + i, part.data, part.size) == 0) {
            return true;
        }
    }
    return false;
}

static bool options_match(const struct hp_msg_task_list *msg,
                          const struct hp_st_task_options *options)
{
    return ((msg->has & HP_HAS_TASK_LIST_QUEUE) == 0 || hp_str_eq(msg->queue, options->queue)) &&
           ((msg->has & HP_HAS_TASK_LIST_NAME) == 0 || contains(options->name, msg->name)) &&
           ((msg->has & HP_HAS_TASK_LIST_BATCH) == 0 || hp_str_eq(msg->batch, options->batch)) &&
           ((msg->has & HP_HAS_TASK_LIST_USER) == 0 || hp_str_eq(msg->user, options->user));
}

static bool status_matches(const struct hp_msg_task_list *msg,
                           const struct hp_st_task_status *status)
{
    if ((msg->has & HP_HAS_TASK_LIST_NODE) != 0 && !hp_str_eq(msg->node, status->node)) {
        return false;
    }
    if (msg->states.count == 0) {
        return true;
    }
    for (uint32_t i = 0; i < msg->states.count; i++) {
        if (msg->states.items[i] == (uint64_t)status->state) {
            return true;
        }
    }
    return false;
}

struct list_page {
    struct hp_list_task_status tasks;
    struct load_of_frame frame;
    uint64_t next; /* 0: no more */
};

/* Takes what matches of a loaded slice; groups' options are decoded once each. */
static void list_filter(struct hp_core *core, const struct hp_msg_task_list *msg,
                        const struct hp_loaded *loaded, struct list_page *page)
{
    struct hp_error error;
    uint32_t group_at = UINT32_MAX;
    bool group_ok = false;
    uint32_t limit = msg->limit < STATUS_ELEMENTS_MAX ? msg->limit : STATUS_ELEMENTS_MAX;
    page->tasks.items = HP_ARENA_NEW_ARRAY(&core->arena, struct hp_st_task_status, limit + 1U);
    HP_ASSERT(page->tasks.items != NULL);
    page->next = loaded->more ? loaded->next : 0;
    for (uint32_t i = 0; i < loaded->task_count; i++) {
        const struct hp_loaded_task *task = &loaded->tasks[i];
        if (!task->exists) {
            continue;
        }
        if (task->group != group_at) {
            group_at = task->group;
            struct hp_spec *spec = hp_spec_get(core, loaded->groups[group_at].options, &error);
            group_ok = spec != NULL && options_match(msg, &spec->options);
            if (spec != NULL) {
                hp_spec_unref(core, spec);
            }
        }
        if (!group_ok) {
            continue;
        }
        struct hp_st_task_status *status = &page->tasks.items[page->tasks.count];
        hp_status_fill(core, loaded, task, msg->end, true, status);
        if (!status_matches(msg, status)) {
            continue;
        }
        if (page->tasks.count >= limit || !frame_has_room(&page->frame, status)) {
            page->next = task->id + 1;
            return;
        }
        page->tasks.count++;
    }
}

void hp_query_list_loaded(struct hp_core *core, struct hp_pending *pending,
                          const struct hp_loaded *loaded)
{
    struct hp_conn *conn = hp_conn_find(core, pending->conn);
    struct hp_msg_task_list msg;
    if (conn == NULL) {
        return;
    }
    hp_must(hp_msg_task_list_decode(read_params(core, pending), &core->arena, &msg, NULL));
    struct list_page page = {0};
    list_filter(core, &msg, loaded, &page);
    if (page.tasks.count == 0 && page.next != 0 && pending->counts[0] < LIST_ROUNDS_MAX) {
        /* Nothing yet: look further before answering, but not for ever. */
        struct hp_pending *more = hp_pending_new(core, HP_PENDING_LIST, conn, pending->msgid);
        more->frame = pending->frame;
        pending->frame = (struct hp_bin){0};
        more->counts[0] = pending->counts[0] + 1;
        list_load(core, more, &msg, page.next);
        return;
    }
    struct hp_msg_task_list_reply reply = {.tasks = page.tasks};
    if (page.next != 0) {
        reply.has = HP_HAS_TASK_LIST_REPLY_NEXT;
        reply.next = page.next;
    }
    struct hp_buf *out = hp_out_reply(core, conn, true);
    hp_must(hp_rpc_put_reply(out, pending->msgid));
    hp_must(hp_msg_task_list_reply_encode(out, &reply));
}
