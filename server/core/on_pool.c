/* SPDX-License-Identifier: BSD-2-Clause */
/* What clients ask of pools, and what workers report of them. */
#include <stdio.h>

#include "server/core/sched.h"
#include "server/core/state.h"

enum { FAILURES_MAX = 3, CHILDREN_SHOWN = 4096, LIST_BYTES = 512 * 1024, DIGEST_MIN = 16 };

static void no_pool(struct hp_request *request, uint64_t id)
{
    hp_out_error(request->core, request->conn, request->rpc->msgid, true, HP_RPC_ERROR_NOT_FOUND,
                 "there is no pool %llu, or it has ended", (unsigned long long)id);
}

/* ------------------------------------------------ pool.info */
static void list_children(struct hp_core *core, const struct hp_pool *pool,
                          struct hp_list_pool_child *ret)
{
    uint32_t most = pool->up < CHILDREN_SHOWN ? pool->up : CHILDREN_SHOWN;
    ret->items = HP_ARENA_NEW_ARRAY(&core->arena, struct hp_st_pool_child, most + 1U);
    HP_ASSERT(ret->items != NULL);
    HP_LIST_FOR_EACH (link, &pool->nodes) {
        const struct hp_pool_node *entry = HP_CONTAINER_OF(link, struct hp_pool_node, link);
        for (uint32_t i = 0; i < entry->pid_count && ret->count < most; i++) {
            ret->items[ret->count++] = (struct hp_st_pool_child){.node = entry->node->name,
                                                                 .pid = (uint32_t)entry->pids[i]};
        }
    }
}

/* Why its children cannot be set up, of a pool that is not broken yet. */
static const char *latest_error(const struct hp_pool *pool)
{
    if (pool->error[0] != '\0') {
        return pool->error;
    }
    HP_LIST_FOR_EACH (link, &pool->nodes) {
        const struct hp_pool_node *entry = HP_CONTAINER_OF(link, struct hp_pool_node, link);
        if (entry->error[0] != '\0') {
            return entry->error;
        }
    }
    return "";
}

/* Valid until the step ends. */
static struct hp_msg_pool_info_reply make_info(struct hp_core *core, const struct hp_pool *pool)
{
    struct hp_msg_pool_info_reply reply = {.state = (enum hp_pool_state)pool->state,
                                           .processes = hp_pool_processes(pool),
                                           .live = hp_pool_live(pool),
                                           .detached = pool->detached};
    const char *error = latest_error(pool);
    list_children(core, pool, &reply.children);
    if (error[0] != '\0') {
        reply.error = hp_str_of(error);
        reply.has |= HP_HAS_POOL_INFO_REPLY_ERROR;
    }
    return reply;
}

static void reply_info(struct hp_core *core, struct hp_conn *conn, uint32_t msgid,
                       const struct hp_msg_pool_info_reply *reply)
{
    struct hp_buf *out = hp_out_reply(core, conn, true);
    hp_must(hp_rpc_put_reply(out, msgid));
    hp_must(hp_msg_pool_info_reply_encode(out, reply));
}

static bool is_telling(const struct hp_pool *pool)
{
    return pool->loaded && (pool->up > 0 || pool->broken || pool->state >= HP_SM_POOL_ENDING);
}

void hp_pool_answer_waits(struct hp_core *core, struct hp_pool *pool)
{
    struct hp_msg_pool_info_reply reply = {0}; /* one for all of them */
    bool is_made = false;
    HP_LIST_FOR_EACH_SAFE (link, &pool->waits) {
        struct hp_pool_wait *wait = HP_CONTAINER_OF(link, struct hp_pool_wait, link);
        struct hp_conn *conn = hp_conn_find(core, wait->conn);
        if (conn != NULL && !is_telling(pool) && wait->deadline_ms > core->now_ms) {
            continue;
        }
        if (conn != NULL) {
            conn->wait_count--;
            if (!is_made) {
                reply = make_info(core, pool);
                is_made = true;
            }
            reply_info(core, conn, wait->msgid, &reply);
        }
        hp_list_remove(&wait->link);
        hp_free(wait);
    }
}

void hp_on_pool_info(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_pool_info msg;
    struct hp_error error;
    if (hp_msg_pool_info_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    struct hp_pool *pool = hp_pool_find(core, msg.pool);
    if (pool == NULL) {
        hp_pool_ask_ended(request, msg.pool);
        return;
    }
    if (pool->loaded) {
        hp_pool_regrant(core, pool); /* so that one just submitted says what it will have */
    }
    if (msg.wait_ms == 0 || is_telling(pool)) {
        struct hp_msg_pool_info_reply reply = make_info(core, pool);
        reply_info(core, request->conn, request->rpc->msgid, &reply);
        return;
    }
    if (request->conn->wait_count >= HP_WAITS_PER_CONN_MAX) {
        hp_out_busy(core, request->conn, request->rpc->msgid, 100,
                    "this connection has too many waits open");
        return;
    }
    request->conn->wait_count++;
    struct hp_pool_wait *wait = hp_must_calloc(sizeof(*wait));
    wait->conn = request->conn->id;
    wait->msgid = request->rpc->msgid;
    wait->deadline_ms = core->now_ms + msg.wait_ms;
    hp_list_init(&wait->link);
    hp_list_push_back(&pool->waits, &wait->link);
    hp_pools_touch(core);
}

/* ------------------------------------------------ pool.list */
static void fill_entry(const struct hp_pool *pool, struct hp_st_pool_entry *ret)
{
    const struct hp_st_task_options *options = pool->spec != NULL ? &pool->spec->options : NULL;
    const char *error = latest_error(pool);
    *ret = (struct hp_st_pool_entry){
        .has = HP_HAS_ST_POOL_ENTRY_CREATED_AT_MS,
        .pool = pool->id,
        .state = (enum hp_pool_state)pool->state,
        .processes = hp_pool_processes(pool),
        .children = pool->up,
        .live = hp_pool_live(pool),
        .running = pool->held,
        .detached = pool->detached,
        .owned = pool->session != NULL && pool->session->conn != NULL,
        .created_at_ms = pool->created_at_ms,
    };
    if (options != NULL) {
        ret->name = options->name;
        ret->has |= options->name.size > 0 ? HP_HAS_ST_POOL_ENTRY_NAME : 0;
        ret->user = options->user;
        ret->has |= options->user.size > 0 ? HP_HAS_ST_POOL_ENTRY_USER : 0;
        ret->language = options->language;
        ret->has |= HP_HAS_ST_POOL_ENTRY_LANGUAGE;
    }
    if (error[0] != '\0') {
        ret->error = hp_str_of(error);
        ret->has |= HP_HAS_ST_POOL_ENTRY_ERROR;
    }
}

void hp_on_pool_list(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_pool_list msg;
    struct hp_error error;
    if (hp_msg_pool_list_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    struct hp_msg_pool_list_reply reply = {0};
    size_t bytes = 0;
    reply.pools.items = HP_ARENA_NEW_ARRAY(&core->arena, struct hp_st_pool_entry, msg.limit + 1U);
    HP_ASSERT(reply.pools.items != NULL);
    HP_LIST_FOR_EACH (link, &core->pool_list) {
        const struct hp_pool *pool = HP_CONTAINER_OF(link, struct hp_pool, link);
        if (pool->id <= msg.after) {
            continue;
        }
        if (reply.pools.count == msg.limit || bytes > LIST_BYTES) {
            reply.next = reply.pools.items[reply.pools.count - 1].pool;
            reply.has |= HP_HAS_POOL_LIST_REPLY_NEXT;
            break;
        }
        struct hp_st_pool_entry *entry = &reply.pools.items[reply.pools.count++];
        fill_entry(pool, entry);
        bytes += 512U + entry->error.size;
    }
    struct hp_buf *out = hp_out_reply(core, request->conn, true);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_pool_list_reply_encode(out, &reply));
}

/* ------------------------------------------------ pool.end, pool.detach */
static void reply_state(struct hp_request *request, uint8_t state)
{
    /* pool.end and pool.detach have the same reply. */
    struct hp_msg_pool_end_reply reply = {.state = (enum hp_pool_state)state};
    struct hp_buf *out = hp_out_reply(request->core, request->conn, true);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_pool_end_reply_encode(out, &reply));
}

void hp_on_pool_end(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_pool_end msg;
    struct hp_error error;
    if (hp_msg_pool_end_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    struct hp_pool *pool = hp_pool_find(core, msg.pool);
    if (pool == NULL) {
        hp_pool_ask_ended(request, msg.pool); /* maybe said again after its end */
        return;
    }
    if (msg.how == HP_POOL_END_TERMINATE) {
        hp_pool_terminate(core, pool);
    } else {
        hp_pool_close(core, pool);
    }
    reply_state(request, pool->state);
}

void hp_on_pool_detach(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_session *session = request->conn->session;
    struct hp_msg_pool_detach msg;
    struct hp_error error;
    if (hp_msg_pool_detach_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    struct hp_pool *pool = hp_pool_find(core, msg.pool);
    if (pool == NULL) {
        hp_pool_ask_ended(request, msg.pool);
        return;
    }
    if (!msg.on && session == NULL) {
        (void)hp_error_set(&error, HP_ERR_INVALID,
                           "pool.detach.on: false needs a session that owns the pool");
        hp_request_bad(request, &error);
        return;
    }
    pool->detached = msg.on;
    if (!msg.on && pool->session != session) {
        hp_pool_own(core, pool, session);
        hp_pool_set_owner(core, pool);
    }
    hp_pool_store(core, pool);
    hp_pools_touch(core);
    reply_state(request, pool->state);
}

/* ------------------------------------------------ pools that have ended */
void hp_pool_ask_ended(struct hp_request *request, uint64_t id)
{
    struct hp_core *core = request->core;
    struct hp_pending *pending =
        hp_pending_new(core, HP_PENDING_POOL_ENDED, request->conn, request->rpc->msgid);
    pending->frame.data = hp_memdup(request->frame.data, request->frame.size);
    HP_ASSERT(pending->frame.data != NULL);
    pending->frame.size = request->frame.size;
    pending->id = id;
    struct hp_load *load = hp_out_load(core, HP_LOAD_TASKS, pending);
    load->spans = hp_must_alloc(sizeof(*load->spans));
    load->spans[0] = (struct hp_id_span){id, 1};
    load->span_count = 1;
    load->with_end = true;
    load->bytes_max = 65536;
}

/* Why it failed, or how it ended, for people; NULL: it is no pool. */
static const char *text_of_end(struct hp_core *core, const struct hp_loaded *loaded,
                               struct hp_str *ret_error)
{
    const struct hp_loaded_task *task = loaded->task_count == 1 ? &loaded->tasks[0] : NULL;
    struct hp_error error;
    if (task == NULL || !task->exists || !task->ended) {
        return NULL;
    }
    struct hp_spec *spec = hp_spec_get(core, loaded->groups[task->group].options, &error);
    bool is_pool = spec != NULL && spec->options.kind == HP_TASK_KIND_POOL;
    if (spec != NULL) {
        hp_spec_unref(core, spec);
    }
    if (!is_pool) {
        return NULL;
    }
    struct hp_tok_limits limits = hp_tok_limits_open;
    const struct hp_wire_obj *map = NULL;
    struct hp_st_task_end end = {0};
    if (task->result.end.size > 0 &&
        hp_wire_unpack_checked(core->spec_wire, &limits, task->result.end, &map, &error) == HP_OK &&
        hp_st_task_end_decode(map, &core->arena, &end, &error) == HP_OK &&
        (end.has & HP_HAS_ST_TASK_END_ERROR) != 0) {
        hp_must(hp_arena_copy_str(&core->arena, end.error, ret_error));
    }
    return task->result.state == HP_TASK_STATE_DONE        ? "it was closed and has ended"
           : task->result.state == HP_TASK_STATE_CANCELLED ? "it was terminated"
                                                           : "it failed";
}

static void answer_ended(struct hp_request *request, struct hp_str error)
{
    struct hp_msg_pool_info_reply reply = {.state = HP_POOL_STATE_ENDED, .error = error};
    if (request->rpc->method != HP_METHOD_POOL_INFO) {
        reply_state(request, HP_POOL_STATE_ENDED);
        return;
    }
    reply.has = error.size > 0 ? HP_HAS_POOL_INFO_REPLY_ERROR : 0;
    struct hp_buf *out = hp_out_reply(request->core, request->conn, true);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_pool_info_reply_encode(out, &reply));
}

void hp_pool_ended_loaded(struct hp_core *core, struct hp_pending *pending,
                          const struct hp_loaded *loaded)
{
    struct hp_conn *conn = hp_conn_find(core, pending->conn);
    struct hp_rpc rpc;
    struct hp_error error;
    if (conn == NULL) {
        return;
    }
    hp_must(hp_rpc_read(core->wire, pending->frame.data, pending->frame.size, &rpc, &error));
    struct hp_request request = {.core = core, .conn = conn, .rpc = &rpc, .frame = pending->frame};
    struct hp_str reason = {0};
    const char *text = text_of_end(core, loaded, &reason);
    if (rpc.method == HP_METHOD_TASK_SUBMIT) {
        char words[1400];
        (void)snprintf(words, sizeof(words), "pool %llu: %s%s%.*s", (unsigned long long)pending->id,
                       text != NULL ? text : "", reason.size > 0 ? ": " : "", HP_STR_ARG(reason));
        hp_submit_pool_ended(&request, text != NULL ? words : NULL);
    } else if (text != NULL) {
        answer_ended(&request, reason);
    } else {
        no_pool(&request, pending->id);
    }
}

/* ------------------------------------------------ contents */
/* False: the digest is not one, which was answered. */
static bool content_key(struct hp_request *request, uint64_t pool, struct hp_bin digest,
                        struct hp_bin *ret)
{
    struct hp_core *core = request->core;
    if (digest.size < DIGEST_MIN) {
        struct hp_error error;
        (void)hp_error_set(&error, HP_ERR_INVALID, "digest: 16 to 32 bytes of a hash");
        hp_request_bad(request, &error);
        return false;
    }
    *ret = hp_pool_key(core, HP_POOL_KEY_CONTENT, pool, digest);
    return true;
}

void hp_on_pool_put(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_pool_put msg;
    struct hp_error error;
    struct hp_bin key;
    if (hp_msg_pool_put_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    struct hp_pool *pool = hp_pool_find(core, msg.pool);
    if (pool == NULL) {
        no_pool(request, msg.pool);
        return;
    }
    if (!content_key(request, msg.pool, msg.digest, &key)) {
        return;
    }
    uint64_t hash = hp_hash(key.data, key.size, core->hash_seed);
    bool known = hp_idmap_find(&core->contents, hash, NULL);
    if (!known && hp_vblob_is_id(msg.blob)) {
        (void)hp_error_set(&error, HP_ERR_INVALID, "pool.put.blob: it must be durable");
        hp_request_bad(request, &error);
        return;
    }
    if (!known && msg.blob != 0) {
        hp_must(hp_idmap_put(&core->contents, hash, msg.blob));
        struct hp_op *op = hp_batch_add(core->batch, HP_OP_UKEY);
        op->ukey.key = hp_batch_copy(core->batch, key.data, key.size);
        op->ukey.id = msg.blob;
        op = hp_batch_add(core->batch, HP_OP_BLOB);
        op->blob.blob = msg.blob;
        op->blob.owner = pool->id;
        hp_pool_content(pool, key);
    }
    struct hp_msg_pool_put_reply reply = {.known = known};
    struct hp_buf *out = hp_out_reply(core, request->conn, true);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_pool_put_reply_encode(out, &reply));
}

void hp_on_pool_get(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_pool_get msg;
    struct hp_error error;
    struct hp_bin key;
    uint64_t blob = 0;
    if (hp_msg_pool_get_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    if (!content_key(request, msg.pool, msg.digest, &key)) {
        return;
    }
    if (!hp_idmap_find(&core->contents, hp_hash(key.data, key.size, core->hash_seed), &blob)) {
        hp_out_error(core, request->conn, request->rpc->msgid, true, HP_RPC_ERROR_NOT_FOUND,
                     "pool %llu has no such content, or has ended", (unsigned long long)msg.pool);
        return;
    }
    struct hp_msg_pool_get_reply reply = {.blob = blob};
    struct hp_buf *out = hp_out_reply(core, request->conn, true);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_pool_get_reply_encode(out, &reply));
}

/* ------------------------------------------------ worker.pool_report */
static void take_report(struct hp_core *core, struct hp_pool *pool, struct hp_pool_node *entry,
                        const struct hp_st_pool_report *report)
{
    pool->up = pool->up - entry->pid_count + report->pids.count;
    hp_free(entry->pids);
    entry->pids = NULL;
    entry->pid_count = report->pids.count;
    if (entry->pid_count > 0) {
        size_t size = entry->pid_count * sizeof(*entry->pids);
        entry->pids = hp_must_alloc(size);
        memcpy(entry->pids, report->pids.items, size);
    }
    entry->waiting = report->waiting;
    entry->failures = report->failures;
    hp_pool_set_text(entry->error, sizeof(entry->error), report->error);
    if (entry->failures >= FAILURES_MAX && entry->pid_count == 0 && !entry->quarantined) {
        entry->quarantined = true;
        hp_trace(core, HP_TRACE_WARN, "pool_quarantine", "pool=%llu node=%.*s",
                 (unsigned long long)pool->id, HP_STR_ARG(entry->node->name));
    }
    if (entry->quarantined || pool->up == 0) {
        hp_pools_dirty(core); /* who has how many, or whether it can be set up at all */
    } else if (pool->state != HP_SM_POOL_OPEN || entry->granted == 0 ||
               !hp_list_is_empty(&pool->waits)) {
        hp_pools_touch(core);
    }
    hp_rebalance_want(core); /* it may have fewer children than calls now */
    core->dispatch_wanted = true;
}

/* Tells a worker that a pool it has children of is no more. */
static void disown(struct hp_core *core, struct hp_node *node, uint64_t pool)
{
    struct hp_st_pool_order order = {
        .has = HP_HAS_ST_POOL_ORDER_KILL, .pool = pool, .children = 0, .kill = true};
    struct hp_msg_worker_pool msg = {.has = HP_HAS_WORKER_POOL_POOLS,
                                     .pools = {.items = &order, .count = 1}};
    struct hp_buf *out = hp_out_reply(core, node->conn, true);
    hp_must(hp_rpc_put_notify(out, HP_METHOD_WORKER_POOL));
    hp_must(hp_msg_worker_pool_encode(out, &msg));
}

void hp_on_worker_pool_report(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_node *node = request->conn->node;
    struct hp_msg_worker_pool_report msg;
    struct hp_error error;
    if (hp_msg_worker_pool_report_decode(request->rpc->params, &core->arena, &msg, &error) !=
        HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    for (uint32_t i = 0; i < msg.pools.count && node->registered; i++) {
        const struct hp_st_pool_report *report = &msg.pools.items[i];
        struct hp_pool *pool = hp_pool_find(core, report->pool);
        if (pool == NULL) {
            if (report->pids.count > 0) {
                disown(core, node, report->pool);
            }
            continue;
        }
        struct hp_pool_node *entry = hp_pool_node_of(pool, node);
        take_report(core, pool, entry, report);
    }
}
