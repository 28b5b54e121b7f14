/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages of worker daemons: register, heartbeat, started, done, release. */
#include "server/core/offer.h"
#include "server/core/sched.h"
#include "server/core/state.h"

/* Most of one reply, which so is a legal frame: the next heartbeat's has what is left. */
enum { KILLS_MAX = 4096, CANCELS_MAX = 2048, MISSING_MAX = 1024 };

struct ref_list {
    struct hp_list_run_ref list;
    uint32_t capacity;
};

static void ref_add(struct hp_core *core, struct ref_list *refs, uint64_t id, uint32_t attempt,
                    uint64_t epoch)
{
    if (refs->list.count == refs->capacity) {
        uint32_t capacity = refs->capacity == 0 ? 64 : refs->capacity * 2;
        struct hp_st_run_ref *items =
            HP_ARENA_NEW_ARRAY(&core->arena, struct hp_st_run_ref, capacity);
        HP_ASSERT(items != NULL);
        if (refs->list.count > 0) {
            memcpy(items, refs->list.items, refs->list.count * sizeof(*items));
        }
        refs->list.items = items;
        refs->capacity = capacity;
    }
    refs->list.items[refs->list.count++] =
        (struct hp_st_run_ref){.id = id, .attempt = attempt, .epoch = epoch};
}

/* The live attempt that the token names, if it is the node's. */
static struct hp_attempt *current(struct hp_core *core, const struct hp_node *node, uint64_t id,
                                  uint32_t number, uint64_t epoch)
{
    struct hp_attempt *attempt = hp_attempt_find(core, id);
    if (attempt == NULL || attempt->attempt != number || attempt->epoch != epoch ||
        attempt->node != node) {
        return NULL;
    }
    return attempt;
}

static void seen(struct hp_core *core, struct hp_node *node)
{
    node->seen_ms = core->now_ms;
    if (node->registered) {
        hp_node_renew(core, node, core->config.lease_ms);
    }
}

/* Marks what the worker listed; fills `kill` with what is not its own. */
static void mark_runs(struct hp_core *core, struct hp_node *node,
                      const struct hp_list_run_ref *runs, struct ref_list *kill)
{
    HP_LIST_FOR_EACH (link, &node->attempts) {
        HP_CONTAINER_OF(link, struct hp_attempt, node_link)->seen = false;
    }
    for (uint32_t i = 0; i < runs->count; i++) {
        const struct hp_st_run_ref *ref = &runs->items[i];
        struct hp_attempt *attempt = current(core, node, ref->id, ref->attempt, ref->epoch);
        if (attempt == NULL) {
            core->figures.stale++;
            if (kill->list.count < KILLS_MAX) {
                ref_add(core, kill, ref->id, ref->attempt, ref->epoch);
            }
            continue;
        }
        attempt->seen = true;
        if (ref->started && attempt->state == HP_TASK_STATE_LEASED) {
            hp_attempt_move(core, attempt, HP_TASK_STATE_RUNNING);
        }
    }
}

/* ------------------------------------------------ register */
static void copy_offer(struct hp_core *core, struct hp_node *node,
                       const struct hp_msg_worker_register *msg)
{
    hp_offer_set(core, node, msg);
    hp_idmap_deinit(&node->fits);
    hp_node_set_text(&node->host, msg->host.data, msg->host.size);
    node->pid = msg->pid;
    node->slots = msg->slots;
    node->mem_bytes = msg->mem_bytes;
    node->commands = msg->commands;
    node->prefetch_max = msg->prefetch_max;
    node->leaving = msg->draining;
    node->stuck = false;
    node->any_interpreter = msg->any_interpreter;
    node->children_max = msg->children_max;
}

/* Attempts the returning worker does not name: of an old boot they are lost, of the same boot their
 * assignment never arrived. */
static void settle_missing(struct hp_core *core, struct hp_node *node, bool same_boot)
{
    HP_LIST_FOR_EACH_SAFE (link, &node->attempts) {
        struct hp_attempt *attempt = HP_CONTAINER_OF(link, struct hp_attempt, node_link);
        if (same_boot && attempt->seen) {
            continue;
        }
        if (same_boot) {
            hp_attempt_released(core, attempt);
        } else {
            hp_attempt_lost(core, attempt, HP_REASON_NODE_RESTART);
        }
    }
}

void hp_on_worker_register(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_node *node = request->conn->node;
    struct hp_msg_worker_register msg;
    struct hp_error error;
    if (hp_msg_worker_register_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    bool same_boot = memcmp(node->boot, node->hello_boot, sizeof(node->boot)) == 0;
    bool stored = node->stored && same_boot && strlen(node->host) == msg.host.size &&
                  memcmp(node->host, msg.host.data, msg.host.size) == 0;
    copy_offer(core, node, &msg);
    struct ref_list kill = {0};
    mark_runs(core, node, &msg.runs, &kill);
    settle_missing(core, node, same_boot);
    if (!same_boot) {
        hp_pools_node_lost(core, node);
    }
    memcpy(node->boot, node->hello_boot, sizeof(node->boot));
    node->registered = true;
    node->register_batch = core->batch_number;
    node->state = HP_SM_NODE_ONLINE;
    seen(core, node);
    if (!stored) {
        hp_node_store(core, node);
    }
    core->dispatch_wanted = true;
    hp_rebalance_want(core); /* it may have fewer slots than before */
    hp_trace(core, HP_TRACE_INFO, "worker_online",
             "node=%.*s host=%s slots=%u functions=%u attempts=%u killed=%u new_boot=%d",
             HP_STR_ARG(node->name), node->host, node->slots, node->functions.count,
             node->attempt_count, kill.list.count, !same_boot);
    struct hp_msg_worker_register_reply reply = {.has = HP_HAS_WORKER_REGISTER_REPLY_KILL |
                                                        HP_HAS_WORKER_REGISTER_REPLY_DRAINING,
                                                 .lease_ms = core->config.lease_ms,
                                                 .heartbeat_ms = core->config.heartbeat_ms,
                                                 .kill = kill.list,
                                                 .draining = node->draining};
    /* Held: a worker is taken on only with its boot durable, else a restart would lose its runs. */
    struct hp_buf *out = hp_out_reply(core, request->conn, true);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_worker_register_reply_encode(out, &reply));
    hp_pools_node_registered(core, node);
}

/* ------------------------------------------------ heartbeat */
static void list_cancels(struct hp_core *core, struct hp_node *node,
                         struct hp_list_cancel_item *ret)
{
    ret->items =
        HP_ARENA_NEW_ARRAY(&core->arena, struct hp_st_cancel_item, node->attempt_count + 1U);
    HP_ASSERT(ret->items != NULL);
    HP_LIST_FOR_EACH (link, &node->attempts) {
        struct hp_attempt *attempt = HP_CONTAINER_OF(link, struct hp_attempt, node_link);
        if (attempt->state == HP_TASK_STATE_CANCELLING && ret->count < CANCELS_MAX) {
            ret->items[ret->count++] = (struct hp_st_cancel_item){
                .has = HP_HAS_ST_CANCEL_ITEM_MODE | HP_HAS_ST_CANCEL_ITEM_GRACE_MS,
                .id = attempt->id,
                .attempt = attempt->attempt,
                .epoch = attempt->epoch,
                .mode = (enum hp_cancel_mode)attempt->cancel_mode,
                .grace_ms = attempt->cancel_grace_ms};
        }
    }
}

void hp_on_worker_heartbeat(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_node *node = request->conn->node;
    struct hp_msg_worker_heartbeat msg;
    struct hp_error error;
    if (hp_msg_worker_heartbeat_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    if (!node->registered) {
        hp_out_error(core, request->conn, request->rpc->msgid, false, HP_RPC_ERROR_ILLEGAL_STATE,
                     "worker.register comes before worker.heartbeat");
        return;
    }
    seen(core, node);
    struct ref_list kill = {0};
    struct ref_list missing = {0};
    mark_runs(core, node, &msg.runs, &kill);
    HP_LIST_FOR_EACH (link, &node->attempts) {
        struct hp_attempt *attempt = HP_CONTAINER_OF(link, struct hp_attempt, node_link);
        /* Before its commit the assignment is not on the way yet; after it, it is there first. */
        bool sent = attempt->sent_after <= core->durable_number &&
                    (attempt->lease == NULL || attempt->lease->number <= core->durable_number);
        if (sent && !attempt->seen && missing.list.count < MISSING_MAX &&
            attempt->assigned_ms + 2 * core->config.heartbeat_ms < core->now_ms) {
            ref_add(core, &missing, attempt->id, attempt->attempt, attempt->epoch);
        }
    }
    struct hp_msg_worker_heartbeat_reply reply = {
        .has = HP_HAS_WORKER_HEARTBEAT_REPLY_KILL | HP_HAS_WORKER_HEARTBEAT_REPLY_CANCEL |
               HP_HAS_WORKER_HEARTBEAT_REPLY_MISSING | HP_HAS_WORKER_HEARTBEAT_REPLY_DRAINING,
        .lease_ms = core->config.lease_ms,
        .kill = kill.list,
        .missing = missing.list,
        .draining = node->draining};
    list_cancels(core, node, &reply.cancel);
    /* Not held: a slow disk must not cost leases. Cancels named here may precede their commit by a
     * moment. If the broker dies just then, the attempt was ended by a cancel that nobody was told
     * of: the task runs again, or is failed(lost) where it may run only once. */
    struct hp_buf *out = hp_out_reply(core, request->conn, false);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_worker_heartbeat_reply_encode(out, &reply));
}

void hp_on_worker_started(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_worker_started msg;
    struct hp_error error;
    if (hp_msg_worker_started_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    for (uint32_t i = 0; i < msg.runs.count; i++) {
        const struct hp_st_run_ref *ref = &msg.runs.items[i];
        struct hp_attempt *attempt =
            current(core, request->conn->node, ref->id, ref->attempt, ref->epoch);
        if (attempt != NULL && attempt->state == HP_TASK_STATE_LEASED) {
            hp_attempt_move(core, attempt, HP_TASK_STATE_RUNNING);
        }
    }
}

/* ------------------------------------------------ done */
/* Did it run as long as such tasks do? What failed by itself did, too. */
static bool tells_run_time(enum hp_reason reason)
{
    return reason == HP_REASON_NONE || reason == HP_REASON_ERROR ||
           reason == HP_REASON_PERMANENT || reason == HP_REASON_EXIT;
}

/* Keeps the moving average of run times that prefetching goes by; one sample a message, and one of
 * whatever has none yet. */
static void sample_run(struct hp_attempt *attempt, const struct hp_st_task_end *end, bool sample)
{
    struct hp_class *class_ = attempt->spec->lane->class_;
    if ((end->has & HP_HAS_ST_TASK_END_RUN_US) == 0 || (!sample && class_->run_us != 0)) {
        return;
    }
    uint64_t run_us = end->run_us > 0 ? end->run_us : 1;
    if (class_->run_us == 0 || run_us > 4 * class_->run_us) {
        class_->run_us = run_us; /* first sample, or suddenly slow: believe it at once */
    } else {
        class_->run_us = (7 * class_->run_us + run_us + 7) / 8;
    }
}

static void put_end_blobs(struct hp_core *core, const struct hp_attempt *attempt,
                          const struct hp_st_task_end *end)
{
    uint64_t blobs[3] = {end->result_blob, end->out_blob, end->err_blob};
    for (int i = 0; i < 3; i++) {
        if (blobs[i] != 0 && attempt->lease == NULL) {
            hp_vblob_adopt(core, blobs[i], attempt->id, false);
        } else if (blobs[i] != 0) {
            struct hp_op *op = hp_batch_add(core->batch, HP_OP_BLOB);
            op->blob.blob = blobs[i];
            op->blob.owner = attempt->id;
        }
    }
}

/* An end record is passed on as it is: one that no client could decode must not get in. */
static bool read_end(struct hp_core *core, struct hp_bin bytes, struct hp_st_task_end *ret)
{
    struct hp_tok_limits limits = hp_tok_limits_open;
    const struct hp_wire_obj *map = NULL;
    struct hp_error error;
    limits.depth_max = 4;
    limits.elements_max = 128;
    return hp_wire_unpack_checked(core->spec_wire, &limits, bytes, &map, &error) == HP_OK &&
           hp_st_task_end_decode(map, &core->arena, ret, &error) == HP_OK;
}

static void take_done(struct hp_core *core, struct hp_node *node,
                      const struct hp_st_done_item *item, bool sample, struct ref_list *stale)
{
    struct hp_attempt *attempt = current(core, node, item->id, item->attempt, item->epoch);
    struct hp_st_task_end end;
    if (attempt == NULL || !read_end(core, item->end, &end)) {
        core->figures.stale++;
        ref_add(core, stale, item->id, item->attempt, item->epoch);
        return;
    }
    if (tells_run_time(item->reason)) {
        sample_run(attempt, &end, sample);
    }
    put_end_blobs(core, attempt, &end);
    hp_attempt_ended(core, attempt, item->reason, item->retry_ms,
                     (item->has & HP_HAS_ST_DONE_ITEM_RETRY_MS) != 0, item->end);
}

/* What was said of a task that is not durable is not held; what is not known may be durable. */
static bool is_held(struct hp_core *core, uint64_t id)
{
    const struct hp_vgroup *group = hp_volatile_group(core, id);
    return group == NULL || !hp_volatile_is_now(core, group->spec, id);
}

static void reply_stale(struct hp_request *request, const struct hp_list_run_ref *stale, bool held)
{
    /* worker.done and worker.release have the same reply. */
    struct hp_msg_worker_done_reply reply = {
        .has = stale->count > 0 ? HP_HAS_WORKER_DONE_REPLY_STALE : 0, .stale = *stale};
    struct hp_buf *out = hp_out_receipt(request->core, request->conn, held);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_worker_done_reply_encode(out, &reply));
}

void hp_on_worker_done(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_node *node = request->conn->node;
    struct hp_msg_worker_done msg;
    struct hp_error error;
    if (hp_msg_worker_done_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    struct ref_list stale = {0};
    bool held = false;
    for (uint32_t i = 0; i < msg.items.count; i++) {
        held = held || is_held(core, msg.items.items[i].id);
        take_done(core, node, &msg.items.items[i], i == msg.items.count / 2, &stale);
    }
    reply_stale(request, &stale.list, held);
}

void hp_on_worker_release(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_worker_release msg;
    struct hp_error error;
    if (hp_msg_worker_release_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    struct ref_list stale = {0};
    bool held = false;
    for (uint32_t i = 0; i < msg.runs.count; i++) {
        const struct hp_st_run_ref *ref = &msg.runs.items[i];
        struct hp_attempt *attempt =
            current(core, request->conn->node, ref->id, ref->attempt, ref->epoch);
        held = held || is_held(core, ref->id);
        if (attempt == NULL) {
            ref_add(core, &stale, ref->id, ref->attempt, ref->epoch);
        } else {
            hp_attempt_released(core, attempt);
        }
    }
    reply_stale(request, &stale.list, held);
}
