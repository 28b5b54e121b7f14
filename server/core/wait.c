/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * task.wait. The ids are looked up once (some may have ended long ago); what lives is waited for in
 * memory; when the condition holds, or time is up, the records are loaded for the answer. That load
 * comes after the batch with the results, so what is told is durable.
 */
#include "server/core/state.h"

static void look_up(struct hp_core *core, struct hp_wait *wait, bool with_end)
{
    struct hp_pending *pending = hp_pending_new(core, HP_PENDING_WAIT, NULL, wait->msgid);
    pending->wait = wait;
    struct hp_load *load = hp_out_load(core, HP_LOAD_TASKS, pending);
    load->spans = hp_must_alloc((wait->count + 1U) * sizeof(*load->spans));
    for (uint32_t i = 0; i < wait->count; i++) {
        load->spans[i] = (struct hp_id_span){wait->ids[i], 1};
    }
    load->span_count = wait->count;
    load->with_end = with_end;
    load->bytes_max = 400 * 1024;
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
    hp_free(wait);
}

enum { WAITS_PER_CONN_MAX = 256, WAITS_RETRY_MS = 100 };

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
    if (request->conn->wait_count >= WAITS_PER_CONN_MAX) {
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
    wait->deadline_ms = core->now_ms + msg.timeout_ms;
    hp_list_init(&wait->conn_link);
    hp_list_push_back(&request->conn->waits, &wait->conn_link);
    look_up(core, wait, false);
}

static bool is_over(const struct hp_wait *wait)
{
    return wait->timed_out || wait->left == 0 ||
           (wait->mode == HP_WAIT_MODE_ANY && wait->left < wait->count);
}

static void answer_later(struct hp_core *core, struct hp_wait *wait)
{
    disarm(core, wait);
    wait->answering = true;
    look_up(core, wait, wait->with_end);
}

static bool is_final(enum hp_task_state state)
{
    return state >= HP_TASK_STATE_DONE;
}

/* First answer of the store: what has ended already; the rest is waited for. */
static void arm(struct hp_core *core, struct hp_wait *wait, const struct hp_loaded *loaded)
{
    uint32_t at = 0;
    wait->left = wait->count;
    for (uint32_t i = 0; i < wait->count; i++) {
        const struct hp_loaded_task *task = NULL;
        for (uint32_t k = 0; k < loaded->task_count && task == NULL; k++) {
            const struct hp_loaded_task *t = &loaded->tasks[(at + k) % loaded->task_count];
            if (t->id == wait->ids[i]) {
                task = t;
                at = (at + k + 1) % loaded->task_count;
            }
        }
        bool ended = task != NULL && is_final(hp_task_now(core, task));
        ended = ended || hp_recent_find(core, wait->ids[i]) == 1;
        wait->ended[i] = ended;
        wait->left -= ended;
        if (!ended) {
            struct hp_waiter *waiter = hp_must_calloc(sizeof(*waiter));
            waiter->wait = wait;
            waiter->index = i;
            waiter->next = hp_idmap_find_ptr(&core->waiters, wait->ids[i]);
            hp_must(hp_idmap_put_ptr(&core->waiters, wait->ids[i], waiter));
        }
    }
    wait->armed = true;
    if (wait->deadline_ms <= core->now_ms) {
        wait->timed_out = !is_over(wait);
        answer_later(core, wait);
    } else if (is_over(wait)) {
        answer_later(core, wait);
    } else {
        hp_must(hp_heap_push(&core->wait_heap, &wait->heap_node));
    }
}

static void answer(struct hp_core *core, struct hp_wait *wait, const struct hp_loaded *loaded)
{
    struct hp_conn *conn = hp_conn_find(core, wait->conn);
    struct hp_msg_task_wait_reply reply = {.timed_out = wait->timed_out};
    reply.tasks.items =
        HP_ARENA_NEW_ARRAY(&core->arena, struct hp_st_task_status, loaded->task_count + 1U);
    HP_ASSERT(reply.tasks.items != NULL && conn != NULL);
    size_t bytes = 0;
    for (uint32_t i = 0; i < loaded->task_count; i++) {
        struct hp_st_task_status *status = &reply.tasks.items[reply.tasks.count++];
        bool room = bytes < 500 * 1024;
        hp_status_fill(core, loaded, &loaded->tasks[i], wait->with_end && room, false, status);
        bytes += 100U + status->end.raw.size;
    }
    struct hp_buf *out = hp_out_reply(core, conn, true);
    hp_must(hp_rpc_put_reply(out, wait->msgid));
    hp_must(hp_msg_task_wait_reply_encode(out, &reply));
    hp_wait_free(core, wait);
}

void hp_wait_loaded(struct hp_core *core, struct hp_pending *pending,
                    const struct hp_loaded *loaded)
{
    struct hp_wait *wait = pending->wait;
    if (wait == NULL) {
        return; /* its connection went */
    }
    pending->wait = NULL;
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
        wait->timed_out = true;
        answer_later(core, wait);
    }
}
