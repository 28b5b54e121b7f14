/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * task.wait. The ids are looked up once (some may have ended long ago); what lives is waited for in
 * memory; when the condition holds, or time is up, the records are loaded for the answer. That load
 * comes after the batch with the results, so what is told is durable.
 */
#include "server/core/state.h"

/* Of end records in an answer; statuses without them fit besides. */
enum { WAIT_BYTES = 400 * 1024, WAIT_END_ELEMENTS = 30000 };

static bool has_room(const struct hp_wait *wait)
{
    return wait->with_end && wait->results.size < WAIT_BYTES &&
           wait->end_elements < WAIT_END_ELEMENTS;
}

/* Asks for the ids from `from` on; the store may answer fewer. */
static void look_up(struct hp_core *core, struct hp_wait *wait, uint32_t from)
{
    struct hp_pending *pending = hp_pending_new(core, HP_PENDING_WAIT, NULL, wait->msgid);
    pending->wait = wait;
    pending->counts[0] = wait->answering;
    struct hp_load *load = hp_out_load(core, HP_LOAD_TASKS, pending);
    load->spans = hp_must_alloc((wait->count - from) * sizeof(*load->spans));
    for (uint32_t i = from; i < wait->count; i++) {
        load->spans[i - from] = (struct hp_id_span){wait->ids[i], 1};
    }
    load->span_count = wait->count - from;
    load->with_end = wait->answering && has_room(wait);
    load->bytes_max = WAIT_BYTES;
    wait->looked_up = from;
}

static void unlink_waiter(struct hp_core *core, struct hp_wait *wait, uint64_t id)
{
    struct hp_waiter *head = hp_idmap_find_ptr(&core->waiters, id);
    struct hp_waiter **at = &head;
    while (*at != NULL) {
        struct hp_waiter *waiter = *at;
        if (waiter->wait == wait) {
            *at = waiter->next;
            hp_free(waiter);
        } else {
            at = &waiter->next;
        }
    }
    if (head == NULL) {
        (void)hp_idmap_remove(&core->waiters, id, NULL);
    } else {
        hp_must(hp_idmap_put_ptr(&core->waiters, id, head));
    }
}

static void disarm(struct hp_core *core, struct hp_wait *wait)
{
    for (uint32_t i = 0; wait->armed && i < wait->count; i++) {
        unlink_waiter(core, wait, wait->ids[i]);
    }
    wait->armed = false;
    hp_heap_remove(&core->wait_heap, &wait->heap_node);
}

void hp_wait_free(struct hp_core *core, struct hp_wait *wait)
{
    disarm(core, wait);
    HP_LIST_FOR_EACH (link, &core->pending_list) {
        struct hp_pending *pending = HP_CONTAINER_OF(link, struct hp_pending, link);
        if (pending->wait == wait) {
            pending->wait = NULL;
        }
    }
    struct hp_conn *conn = hp_conn_find(core, wait->conn);
    if (conn != NULL) {
        conn->wait_count--;
    }
    hp_list_remove(&wait->conn_link);
    hp_free(wait->ids);
    hp_free(wait->ended);
    hp_buf_deinit(&wait->results);
    hp_free(wait);
}

enum { WAITS_RETRY_MS = 100 };

void hp_on_task_wait(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_task_wait msg;
    struct hp_error error;
    if (hp_msg_task_wait_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    if (msg.ids.count == 0) {
        (void)hp_error_set(&error, HP_ERR_INVALID, "task.wait.ids: give at least one id");
        hp_request_bad(request, &error);
        return;
    }
    if (request->conn->wait_count >= HP_WAITS_PER_CONN_MAX) {
        hp_out_busy(core, request->conn, request->rpc->msgid, WAITS_RETRY_MS,
                    "this connection has too many waits open");
        return;
    }
    request->conn->wait_count++;
    struct hp_wait *wait = hp_must_calloc(sizeof(*wait));
    wait->cookie = core->next_cookie++;
    wait->conn = request->conn->id;
    wait->msgid = request->rpc->msgid;
    wait->mode = msg.mode;
    wait->with_end = msg.end;
    wait->count = msg.ids.count;
    wait->ids = hp_must_alloc(msg.ids.count * sizeof(*wait->ids));
    memcpy(wait->ids, msg.ids.items, msg.ids.count * sizeof(*wait->ids));
    wait->ended = hp_must_calloc(msg.ids.count);
    wait->left = msg.ids.count;
    wait->deadline_ms = core->now_ms + msg.timeout_ms;
    hp_list_init(&wait->conn_link);
    hp_list_push_back(&request->conn->waits, &wait->conn_link);
    hp_must(hp_heap_push(&core->wait_heap, &wait->heap_node));
    hp_buf_init(&wait->results, 4U << 20);
    look_up(core, wait, 0);
}

static bool is_over(const struct hp_wait *wait)
{
    return wait->left == 0 || (wait->mode == HP_WAIT_MODE_ANY && wait->left < wait->count);
}

static void answer_later(struct hp_core *core, struct hp_wait *wait)
{
    disarm(core, wait);
    wait->answering = true;
    wait->left = wait->count; /* counted again from the records */
    look_up(core, wait, 0);
}

static bool is_final(enum hp_task_state state)
{
    return state >= HP_TASK_STATE_DONE;
}

static void watch(struct hp_core *core, struct hp_wait *wait, uint32_t index)
{
    struct hp_waiter *waiter = hp_must_calloc(sizeof(*waiter));
    waiter->wait = wait;
    waiter->index = index;
    waiter->next = hp_idmap_find_ptr(&core->waiters, wait->ids[index]);
    hp_must(hp_idmap_put_ptr(&core->waiters, wait->ids[index], waiter));
}

/* First answers of the store: what has ended already; the rest is waited for. Ids looked up first
 * are watched from then on, so that none can end unseen. */
static void arm(struct hp_core *core, struct hp_wait *wait, const struct hp_loaded *loaded)
{
    wait->armed = true;
    for (uint32_t i = 0; i < loaded->task_count; i++) {
        uint32_t index = wait->looked_up + i;
        HP_ASSERT(index < wait->count && loaded->tasks[i].id == wait->ids[index]);
        bool ended = is_final(hp_task_now(core, &loaded->tasks[i])) ||
                     hp_recent_find(core, wait->ids[index]) == 1;
        wait->ended[index] = ended;
        wait->left -= ended;
        if (!ended) {
            watch(core, wait, index);
        }
    }
    uint32_t next = wait->looked_up + loaded->task_count;
    if (is_over(wait)) {
        answer_later(core, wait);
    } else if (next < wait->count && loaded->task_count > 0) {
        look_up(core, wait, next);
    }
}

static void reply(struct hp_core *core, struct hp_wait *wait)
{
    struct hp_conn *conn = hp_conn_find(core, wait->conn);
    HP_ASSERT(conn != NULL);
    struct hp_buf *out = hp_out_reply(core, conn, wait->held);
    hp_must(hp_rpc_put_reply(out, wait->msgid));
    hp_must(hp_wire_put_map(out, 2));
    hp_must(hp_wire_put_cstr(out, "tasks"));
    hp_must(hp_wire_put_array(out, wait->result_count));
    hp_must(hp_buf_append_buf(out, &wait->results));
    hp_must(hp_wire_put_cstr(out, "timed_out"));
    hp_must(hp_wire_put_bool(out, !is_over(wait)));
    hp_wait_free(core, wait);
}

/* The records, in slices; those that come after WAIT_BYTES are told without their end. */
static void answer(struct hp_core *core, struct hp_wait *wait, const struct hp_loaded *loaded)
{
    for (uint32_t i = 0; i < loaded->task_count; i++) {
        struct hp_st_task_status status;
        hp_status_fill(core, loaded, &loaded->tasks[i], has_room(wait), false, &status);
        wait->end_elements += hp_elements_of(status.end.raw);
        hp_must(hp_st_task_status_encode(&wait->results, &status));
        wait->result_count++;
        wait->left -= is_final(status.state);
    }
    uint32_t next = wait->looked_up + loaded->task_count;
    if (next < wait->count && loaded->task_count > 0) {
        look_up(core, wait, next);
    } else {
        reply(core, wait);
    }
}

void hp_wait_loaded(struct hp_core *core, struct hp_pending *pending,
                    const struct hp_loaded *loaded)
{
    struct hp_wait *wait = pending->wait;
    if (wait == NULL) {
        return; /* its connection went */
    }
    pending->wait = NULL;
    wait->held = wait->held || !loaded->in_memory;
    if ((pending->counts[0] != 0) != wait->answering) {
        return; /* it was over before this part of the look-up came */
    }
    if (wait->answering) {
        answer(core, wait, loaded);
    } else {
        arm(core, wait, loaded);
    }
}

static void one_ended(struct hp_core *core, uint64_t id)
{
    struct hp_waiter *waiter = hp_idmap_find_ptr(&core->waiters, id);
    if (waiter == NULL) {
        return;
    }
    (void)hp_idmap_remove(&core->waiters, id, NULL);
    while (waiter != NULL) {
        struct hp_waiter *next = waiter->next;
        struct hp_wait *wait = waiter->wait;
        wait->left -= wait->ended[waiter->index] == 0;
        wait->ended[waiter->index] = 1;
        hp_free(waiter);
        waiter = next;
        if (!wait->answering && is_over(wait)) {
            /* Other waiters of this chain stay linked: put them back before the wait is disarmed.
             */
            if (waiter != NULL) {
                hp_must(hp_idmap_put_ptr(&core->waiters, id, waiter));
            }
            answer_later(core, wait);
            waiter = hp_idmap_find_ptr(&core->waiters, id);
            (void)hp_idmap_remove(&core->waiters, id, NULL);
        }
    }
}

void hp_wait_ended(struct hp_core *core, uint64_t first, uint32_t count)
{
    if (hp_idmap_count(&core->waiters) == 0) {
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        one_ended(core, first + i);
    }
}

void hp_wait_due(struct hp_core *core)
{
    for (;;) {
        struct hp_heap_node *node = hp_heap_peek(&core->wait_heap);
        if (node == NULL) {
            return;
        }
        struct hp_wait *wait = HP_CONTAINER_OF(node, struct hp_wait, heap_node);
        if (wait->deadline_ms > core->now_ms) {
            return;
        }
        answer_later(core, wait);
    }
}
