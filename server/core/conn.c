/* SPDX-License-Identifier: BSD-2-Clause */
/* Connections: opening, hello, the way of a frame to its handler, closing. */
#include "server/core/state.h"

struct hp_conn *hp_conn_find(const struct hp_core *core, uint64_t id)
{
    return hp_idmap_find_ptr(&core->conns, id);
}

void hp_conn_open(struct hp_core *core, const struct hp_event *event)
{
    struct hp_conn *conn = hp_must_calloc(sizeof(*conn));
    conn->id = event->conn;
    conn->state = HP_SM_CONN_NEW;
    conn->loopback = event->opened.loopback;
    conn->opened_ms = core->now_ms;
    conn->has_key = event->opened.key != NULL && core->config.near_pid != 0;
    if (conn->has_key) {
        memcpy(conn->key, event->opened.key, sizeof(conn->key));
    }
    (void)hp_strlcpy(conn->peer, event->opened.peer, sizeof(conn->peer));
    hp_buf_init(&conn->now, 1U << 30);
    hp_buf_init(&conn->held, 1U << 30);
    hp_list_init(&conn->dirty_link);
    hp_list_init(&conn->waits);
    hp_list_init(&conn->link);
    hp_list_push_back(&core->conn_list, &conn->link);
    hp_must(hp_idmap_put_ptr(&core->conns, conn->id, conn));
}

void hp_conn_close(struct hp_core *core, struct hp_conn *conn)
{
    if (conn->session != NULL) {
        if (conn->session->conn == conn) {
            conn->session->conn = NULL;
        }
        if (conn->session->ahead) {
            hp_session_dirty(core, conn->session); /* its client may come to another broker */
        }
        hp_session_unref(core, conn->session);
    }
    if ((conn->session != NULL && conn->session->pools > 0) || conn->wait_count > 0) {
        hp_pools_touch(core);
    }
    if (conn->node != NULL && conn->node->conn == conn) {
        hp_node_conn_closed(core, conn->node);
    }
    HP_LIST_FOR_EACH_SAFE (link, &conn->waits) {
        struct hp_wait *wait = HP_CONTAINER_OF(link, struct hp_wait, conn_link);
        hp_wait_free(core, wait);
    }
    hp_follow_drop(core, 0, conn->id);
    hp_list_remove(&conn->link);
    hp_list_remove(&conn->dirty_link);
    hp_buf_deinit(&conn->now);
    hp_buf_deinit(&conn->held);
    hp_buf_deinit(&conn->events_out.items);
    hp_buf_deinit(&conn->events_now.items);
    hp_buf_deinit(&conn->assign_now.items);
    hp_buf_deinit(&conn->assign_held.items);
    (void)hp_idmap_remove(&core->conns, conn->id, NULL);
    hp_free(conn);
}

/* A peer that does not say hello in time is closed. */
void hp_conn_prehello_due(struct hp_core *core)
{
    for (;;) {
        struct hp_list *first = hp_list_first(&core->conn_list);
        if (first == NULL) {
            return;
        }
        struct hp_conn *conn = HP_CONTAINER_OF(first, struct hp_conn, link);
        if (conn->opened_ms + core->config.prehello_ms > core->now_ms) {
            return;
        }
        hp_list_remove(&conn->link);
        hp_out_close(core, conn, "no hello within %llu ms",
                     (unsigned long long)core->config.prehello_ms);
    }
}

void hp_request_bad(struct hp_request *request, const struct hp_error *error)
{
    if (error->code == HP_ERR_NOMEM) { /* not his fault: he may send it again, to us or the next */
        hp_out_close(request->core, request->conn, "no memory for a request");
        return;
    }
    request->core->figures.bad_requests++;
    if (request->rpc->type == HP_RPC_REQUEST) {
        hp_out_error(request->core, request->conn, request->rpc->msgid, false,
                     HP_RPC_ERROR_BAD_REQUEST, "%s", error->text);
    } else {
        hp_out_close(request->core, request->conn, "%s", error->text);
    }
}

/* ------------------------------------------------ hello */
static void hello_reply(struct hp_core *core, struct hp_conn *conn, uint32_t msgid)
{
    struct hp_str warning = hp_str_of(core->warning);
    struct hp_msg_hello_reply reply = {.has = HP_HAS_HELLO_REPLY_LAST_NUMBER,
                                       .server = hp_str_of(core->server),
                                       .version = 1,
                                       .epoch = core->epoch,
                                       .now_ms = core->wall_ms};
    if (conn->session != NULL) {
        reply.last_number = conn->session->last_number;
    }
    if (core->warning != NULL) {
        reply.has |= HP_HAS_HELLO_REPLY_WARNINGS;
        reply.warnings.items = &warning;
        reply.warnings.count = 1;
    }
    if (conn->has_key) {
        reply.has |= HP_HAS_HELLO_REPLY_NEAR_KEY | HP_HAS_HELLO_REPLY_NEAR_PID |
                     HP_HAS_HELLO_REPLY_NEAR_FD | HP_HAS_HELLO_REPLY_NEAR_PROOF;
        reply.near_key = hp_bin_make(conn->key, sizeof(conn->key));
        reply.near_pid = core->config.near_pid;
        reply.near_fd = core->config.near_fd;
        reply.near_proof = hp_bin_make(core->config.near_proof, sizeof(core->config.near_proof));
    }
    conn->state = HP_SM_CONN_OPEN;
    hp_list_remove(&conn->link);
    /* A number that is told as applied must be durable. */
    bool ahead = conn->session != NULL && conn->session->batch > core->durable_number;
    conn->hello_batch = ahead ? core->batch_number : 0;
    struct hp_buf *out = hp_out_reply(core, conn, ahead);
    hp_must(hp_rpc_put_reply(out, msgid));
    hp_must(hp_msg_hello_reply_encode(out, &reply));
}

static void bind_session(struct hp_core *core, struct hp_conn *conn, struct hp_session *session)
{
    if (session->conn != NULL && session->conn != conn) {
        struct hp_conn *old = session->conn;
        session->conn = NULL;
        hp_out_close(core, old, "its session continues on another connection");
    }
    conn->session = hp_session_ref(session);
    session->conn = conn;
    session->seen_ms = core->now_ms;
    if (session->pools > 0) {
        hp_pools_touch(core); /* their client is back */
    }
    hp_list_remove(&session->link);
    hp_list_push_back(&core->session_list, &session->link);
}

/* True: the node name is free for this daemon. */
static bool bind_node(struct hp_core *core, struct hp_conn *conn, const struct hp_msg_hello *hello,
                      uint32_t msgid)
{
    if (hello->boot.size != 16 || !hp_name_valid(hello->node)) {
        hp_out_error(core, conn, msgid, false, HP_RPC_ERROR_BAD_REQUEST,
                     "hello: a worker needs node (a printable name) and boot (16 bytes)");
        hp_out_close(core, conn, "bad hello of a worker");
        return false;
    }
    struct hp_node *node = hp_node_get(core, hello->node);
    bool same = memcmp(node->boot, hello->boot.data, 16) == 0;
    /* Who is connected said its boot with its hello; it may not have registered yet. */
    bool is_stranger = node->conn != NULL && memcmp(node->hello_boot, hello->boot.data, 16) != 0;
    if (is_stranger && core->now_ms < node->seen_ms + 2 * core->config.heartbeat_ms) {
        hp_out_error(core, conn, msgid, false, HP_RPC_ERROR_CONFLICT,
                     "a worker named %.*s is connected; give this one another name with --node",
                     HP_STR_ARG(hello->node));
        hp_out_close(core, conn, "node name %.*s is in use", HP_STR_ARG(hello->node));
        return false;
    }
    if (node->conn != NULL) {
        node->conn->node = NULL;
        hp_out_close(core, node->conn, "the worker connected again");
    }
    node->conn = conn;
    node->registered = false;
    node->seen_ms = core->now_ms;
    conn->node = node;
    if (!same) {
        /* Known by register: until then what the old boot spooled may still be taken. */
        memcpy(node->hello_boot, hello->boot.data, 16);
    } else {
        memcpy(node->hello_boot, node->boot, 16);
    }
    return true;
}

static bool may_enter(struct hp_core *core, const struct hp_msg_hello *hello)
{
    if (core->token == NULL) {
        return true;
    }
    struct hp_str token = hp_str_of(core->token);
    return hp_secret_eq(hp_str_as_bin(hello->token), hp_str_as_bin(token));
}

void hp_on_hello(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_conn *conn = request->conn;
    uint32_t msgid = request->rpc->msgid;
    struct hp_msg_hello hello;
    struct hp_error error;
    if (hp_msg_hello_decode(request->rpc->params, &core->arena, &hello, &error) != HP_OK) {
        hp_request_bad(request, &error);
        hp_out_close(core, conn, "bad hello: %s", error.text);
        return;
    }
    if (conn->state != HP_SM_CONN_NEW) {
        hp_out_error(core, conn, msgid, false, HP_RPC_ERROR_BAD_REQUEST, "hello was said already");
        return;
    }
    if (hello.version < 1) {
        hp_out_error(core, conn, msgid, false, HP_RPC_ERROR_VERSION,
                     "this broker speaks version 1");
        hp_out_close(core, conn, "protocol version %u", hello.version);
        return;
    }
    if (!may_enter(core, &hello)) {
        hp_out_error(core, conn, msgid, false, HP_RPC_ERROR_DENIED,
                     "the token is missing or wrong");
        hp_out_close(core, conn, "token missing or wrong");
        return;
    }
    conn->events = hello.events;
    conn->error_maps = hello.error_maps;
    conn->has_key = conn->has_key && hello.near;
    if (hello.node.size > 0 && !bind_node(core, conn, &hello, msgid)) {
        return;
    }
    if (hello.session.size != 0 && hello.session.size != 16) {
        hp_out_error(core, conn, msgid, false, HP_RPC_ERROR_BAD_REQUEST,
                     "hello.session: 16 bytes or none");
        hp_out_close(core, conn, "bad hello: session of %u bytes", hello.session.size);
        return;
    }
    struct hp_session *session = hp_session_find(core, hello.session);
    if (hello.session.size == 16 && (session == NULL || !session->known)) {
        struct hp_pending *pending = hp_pending_new(core, HP_PENDING_SESSION, conn, msgid);
        pending->frame.data = hp_memdup(hello.session.data, 16);
        HP_ASSERT(pending->frame.data != NULL);
        pending->frame.size = 16;
        hp_load_set_text(hp_out_load(core, HP_LOAD_SESSION, pending), pending->frame.data,
                         pending->frame.size);
        conn->state = HP_SM_CONN_GREETING;
        hp_list_remove(&conn->link); /* its part is done: a slow disk is not its fault */
        return;
    }
    if (session != NULL) {
        bind_session(core, conn, session);
    }
    hello_reply(core, conn, msgid);
}

void hp_on_hello_loaded(struct hp_core *core, struct hp_pending *pending,
                        const struct hp_loaded *loaded)
{
    struct hp_conn *conn = hp_conn_find(core, pending->conn);
    if (conn == NULL || conn->closing) {
        return;
    }
    struct hp_session *session = hp_session_get(core, pending->frame);
    if (!session->known) {
        session->known = true;
        if (loaded->found && !hp_session_restore(session, loaded->state)) {
            hp_trace(core, HP_TRACE_ERROR, "session_damaged", "peer=%s", conn->peer);
        }
    }
    bind_session(core, conn, session);
    hello_reply(core, conn, pending->msgid);
}

/* ------------------------------------------------ frames */
typedef void handler_fn(struct hp_request *request);

static handler_fn *const handlers[] = {
    [HP_METHOD_HELLO] = hp_on_hello,
    [HP_METHOD_TASK_SUBMIT] = hp_on_task_submit,
    [HP_METHOD_TASK_GET] = hp_on_task_get,
    [HP_METHOD_TASK_WAIT] = hp_on_task_wait,
    [HP_METHOD_TASK_CANCEL] = hp_on_task_cancel,
    [HP_METHOD_TASK_LIST] = hp_on_task_list,
    [HP_METHOD_TASK_WHY] = hp_on_task_why,
    [HP_METHOD_TASK_FOLLOW] = hp_on_task_follow,
    [HP_METHOD_TASK_SIGNAL] = hp_on_task_signal,
    [HP_METHOD_POOL_INFO] = hp_on_pool_info,
    [HP_METHOD_POOL_LIST] = hp_on_pool_list,
    [HP_METHOD_POOL_END] = hp_on_pool_end,
    [HP_METHOD_POOL_DETACH] = hp_on_pool_detach,
    [HP_METHOD_POOL_PUT] = hp_on_pool_put,
    [HP_METHOD_POOL_GET] = hp_on_pool_get,
    [HP_METHOD_WORKER_POOL_REPORT] = hp_on_worker_pool_report,
    [HP_METHOD_TASK_FORGET] = hp_on_task_forget,
    [HP_METHOD_BLOB_OPEN] = hp_on_blob_open,
    [HP_METHOD_BLOB_PUT] = hp_on_blob_put,
    [HP_METHOD_BLOB_GET] = hp_on_blob_get,
    [HP_METHOD_BLOB_GIVE] = hp_on_blob_give,
    [HP_METHOD_BLOB_LEND] = hp_on_blob_lend,
    [HP_METHOD_QUEUE_LIST] = hp_on_queue_list,
    [HP_METHOD_QUEUE_PAUSE] = hp_on_queue_pause,
    [HP_METHOD_WORKER_LIST] = hp_on_worker_list,
    [HP_METHOD_WORKER_DRAIN] = hp_on_worker_drain,
    [HP_METHOD_BROKER_PING] = hp_on_broker_ping,
    [HP_METHOD_BROKER_STATUS] = hp_on_broker_status,
    [HP_METHOD_BROKER_BACKUP] = hp_on_broker_backup,
    [HP_METHOD_BROKER_CHECK] = hp_on_broker_check,
    [HP_METHOD_WORKER_REGISTER] = hp_on_worker_register,
    [HP_METHOD_WORKER_HEARTBEAT] = hp_on_worker_heartbeat,
    [HP_METHOD_WORKER_STARTED] = hp_on_worker_started,
    [HP_METHOD_WORKER_DONE] = hp_on_worker_done,
    [HP_METHOD_WORKER_RELEASE] = hp_on_worker_release,
    [HP_METHOD_WORKER_OUTPUT] = hp_on_worker_output,
};

static bool is_worker_method(enum hp_method method)
{
    return method >= HP_METHOD_WORKER_REGISTER && method <= HP_METHOD_WORKER_CONTROL;
}

static handler_fn *find_handler(enum hp_method method)
{
    return method < sizeof(handlers) / sizeof(handlers[0]) ? handlers[method] : NULL;
}

static void dispatch(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_conn *conn = request->conn;
    const struct hp_rpc *rpc = request->rpc;
    handler_fn *handler = find_handler(rpc->method);
    const struct hp_method_info *info = hp_method_info(rpc->method);
    if (rpc->type == HP_RPC_NOTIFY && handler == NULL) {
        return; /* unknown notifications are skipped; general clients send one before all else */
    }
    if (conn->state == HP_SM_CONN_NEW && rpc->method != HP_METHOD_HELLO) {
        hp_out_error(core, conn, rpc->msgid, false, HP_RPC_ERROR_HELLO_FIRST,
                     "hello must be the first message");
        hp_out_close(core, conn, "first message is not hello");
    } else if (handler == NULL || info->is_notify != (rpc->type == HP_RPC_NOTIFY)) {
        if (rpc->type == HP_RPC_REQUEST) {
            hp_out_error(core, conn, rpc->msgid, false, HP_RPC_ERROR_UNKNOWN_METHOD,
                         "there is no call %.*s", HP_STR_ARG(rpc->method_name));
        } /* an unknown notification is skipped, as MessagePack-RPC says */
    } else if (is_worker_method(rpc->method) && conn->node == NULL) {
        hp_out_error(core, conn, rpc->msgid, false, HP_RPC_ERROR_DENIED,
                     "%s is for workers: hello must name node and boot", info->name);
    } else {
        handler(request);
    }
}

void hp_conn_frame(struct hp_core *core, struct hp_conn *conn, struct hp_bin frame)
{
    if (conn->closing) {
        return;
    }
    struct hp_rpc rpc;
    struct hp_error error;
    if (hp_rpc_read(core->wire, frame.data, frame.size, &rpc, &error) != HP_OK) {
        if (rpc.msgid_known && rpc.type == HP_RPC_REQUEST) {
            hp_out_error(core, conn, rpc.msgid, false, HP_RPC_ERROR_BAD_REQUEST, "%s", error.text);
        }
        hp_out_close(core, conn, "%s", error.text);
        return;
    }
    if (rpc.type == HP_RPC_RESPONSE) {
        hp_out_close(core, conn, "a response, but the broker asked nothing");
        return;
    }
    struct hp_request request = {.core = core, .conn = conn, .rpc = &rpc, .frame = frame};
    dispatch(&request);
}
