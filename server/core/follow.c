/* SPDX-License-Identifier: BSD-2-Clause */
/* task.follow, task.signal and the relay of output: from the worker to who follows. */
#include "server/core/state.h"

bool hp_follow_any(const struct hp_core *core, uint64_t id)
{
    HP_LIST_FOR_EACH (link, &core->follows) {
        if (HP_CONTAINER_OF(link, struct hp_follow, link)->id == id) {
            return true;
        }
    }
    return false;
}

void hp_follow_add(struct hp_core *core, uint64_t id, uint64_t conn)
{
    HP_LIST_FOR_EACH (link, &core->follows) {
        struct hp_follow *follow = HP_CONTAINER_OF(link, struct hp_follow, link);
        if (follow->id == id && follow->conn == conn) {
            return;
        }
    }
    struct hp_follow *follow = hp_must_calloc(sizeof(*follow));
    follow->id = id;
    follow->conn = conn;
    hp_list_init(&follow->link);
    hp_list_push_back(&core->follows, &follow->link);
}

void hp_follow_drop(struct hp_core *core, uint64_t id, uint64_t conn)
{
    HP_LIST_FOR_EACH_SAFE (link, &core->follows) {
        struct hp_follow *follow = HP_CONTAINER_OF(link, struct hp_follow, link);
        if ((id == 0 || follow->id == id) && (conn == 0 || follow->conn == conn)) {
            hp_list_remove(&follow->link);
            hp_free(follow);
        }
    }
}

static void load_one(struct hp_core *core, struct hp_pending *pending)
{
    struct hp_load *load = hp_out_load(core, HP_LOAD_TASKS, pending);
    load->spans = hp_must_alloc(sizeof(*load->spans));
    load->spans[0] = (struct hp_id_span){pending->id, 1};
    load->span_count = 1;
    load->bytes_max = 65536;
}

void hp_on_task_follow(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_task_follow msg;
    struct hp_error error;
    if (hp_msg_task_follow_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    struct hp_pending *pending =
        hp_pending_new(core, HP_PENDING_FOLLOW, request->conn, request->rpc->msgid);
    pending->id = msg.id;
    pending->counts[0] = msg.on;
    load_one(core, pending);
}

static void tell_worker(struct hp_core *core, struct hp_attempt *attempt, bool on)
{
    struct hp_st_run_ref ref = {
        .id = attempt->id, .attempt = attempt->attempt, .epoch = attempt->epoch};
    struct hp_msg_worker_control control = {0};
    if (on) {
        control.has = HP_HAS_WORKER_CONTROL_FOLLOW;
        control.follow.items = &ref;
        control.follow.count = 1;
    } else {
        control.has = HP_HAS_WORKER_CONTROL_UNFOLLOW;
        control.unfollow.items = &ref;
        control.unfollow.count = 1;
    }
    hp_node_control_attempt(core, attempt, &control);
}

void hp_follow_loaded(struct hp_core *core, struct hp_pending *pending,
                      const struct hp_loaded *loaded)
{
    struct hp_conn *conn = hp_conn_find(core, pending->conn);
    if (conn == NULL || loaded->task_count != 1) {
        return;
    }
    enum hp_task_state now = hp_task_now(core, &loaded->tasks[0]);
    if (now == 0) {
        struct hp_pending *again = hp_pending_new(core, HP_PENDING_FOLLOW, conn, pending->msgid);
        again->id = pending->id;
        again->counts[0] = pending->counts[0];
        load_one(core, again);
        return;
    }
    if (now == HP_TASK_STATE_UNKNOWN) {
        hp_out_error(core, conn, pending->msgid, true, HP_RPC_ERROR_NOT_FOUND, "no task %llu",
                     (unsigned long long)pending->id);
        return;
    }
    struct hp_attempt *attempt = hp_attempt_find(core, pending->id);
    if (pending->counts[0] == 0) {
        hp_follow_drop(core, pending->id, conn->id);
        if (attempt != NULL && !hp_follow_any(core, pending->id)) {
            tell_worker(core, attempt, false);
        }
    } else if (now < HP_TASK_STATE_DONE) {
        hp_follow_add(core, pending->id, conn->id);
        if (attempt != NULL) {
            tell_worker(core, attempt, true);
        }
    }
    struct hp_msg_task_follow_reply reply = {.state = now};
    struct hp_buf *out = hp_out_reply(core, conn, !loaded->in_memory);
    hp_must(hp_rpc_put_reply(out, pending->msgid));
    hp_must(hp_msg_task_follow_reply_encode(out, &reply));
}

void hp_on_task_signal(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_task_signal msg;
    struct hp_error error;
    if (hp_msg_task_signal_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    struct hp_attempt *attempt = hp_attempt_find(core, msg.id);
    if (attempt == NULL) {
        hp_out_error(core, request->conn, request->rpc->msgid, false, HP_RPC_ERROR_ILLEGAL_STATE,
                     "task %llu does not run", (unsigned long long)msg.id);
        return;
    }
    struct hp_st_run_ref ref = {
        .id = attempt->id, .attempt = attempt->attempt, .epoch = attempt->epoch};
    struct hp_msg_worker_control control = {.has = HP_HAS_WORKER_CONTROL_SIGNAL |
                                                   HP_HAS_WORKER_CONTROL_SIGNAL_RUNS,
                                            .signal = msg.signal,
                                            .signal_runs = {.items = &ref, .count = 1}};
    hp_node_control_attempt(core, attempt, &control);
    struct hp_msg_task_signal_reply reply = {.state = (enum hp_task_state)attempt->state};
    struct hp_buf *out = hp_out_reply(core, request->conn, false);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_task_signal_reply_encode(out, &reply));
}

void hp_on_worker_output(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_worker_output msg;
    struct hp_error error;
    if (hp_msg_worker_output_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    struct hp_attempt *attempt = hp_attempt_find(core, msg.id);
    if (attempt == NULL || attempt->attempt != msg.attempt ||
        attempt->node != request->conn->node) {
        return; /* late */
    }
    struct hp_msg_task_output output = {.id = msg.id,
                                        .attempt = msg.attempt,
                                        .stream = msg.stream,
                                        .offset = msg.offset,
                                        .data = msg.data};
    HP_LIST_FOR_EACH (link, &core->follows) {
        struct hp_follow *follow = HP_CONTAINER_OF(link, struct hp_follow, link);
        struct hp_conn *conn = follow->id == msg.id ? hp_conn_find(core, follow->conn) : NULL;
        if (conn == NULL || conn->blocked || conn->closing) {
            continue; /* a slow reader sees a gap in the offsets */
        }
        struct hp_buf *out = hp_out_reply(core, conn, false);
        hp_must(hp_rpc_put_notify(out, HP_METHOD_TASK_OUTPUT));
        hp_must(hp_msg_task_output_encode(out, &output));
    }
}
