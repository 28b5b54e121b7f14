/* SPDX-License-Identifier: BSD-2-Clause */
/* queue.*, worker.list, worker.drain, broker.*: what operators ask. */
#include <stdlib.h>

#include "server/core/offer.h"
#include "server/core/state.h"

enum { LIST_MAX = 4096, COUNTERS_MAX = 40 };
/* Of one answer; what is over is left out (ask for it by its name), so that the frame is legal. */
enum { ANSWER_BYTES = 900 * 1024, ANSWER_ELEMENTS = 60000, INFO_BYTES = 256, INFO_ELEMENTS = 32 };

/* ------------------------------------------------ queues */
static void queue_figures(const struct hp_core *core, const struct hp_queue *queue,
                          struct hp_st_queue_info *ret)
{
    *ret = (struct hp_st_queue_info){.name = queue->name,
                                     .paused = queue->paused,
                                     .delayed = queue->delayed + hp_volatile_delayed(core, queue),
                                     .running = queue->running,
                                     .done = queue->done_count,
                                     .failed = queue->failed_count};
    HP_LIST_FOR_EACH (link, &queue->lanes) {
        ret->ready += HP_CONTAINER_OF(link, struct hp_lane, queue_link)->ready_count;
    }
}

static int by_name(const void *a, const void *b)
{
    return hp_str_compare(((const struct hp_st_queue_info *)a)->name,
                          ((const struct hp_st_queue_info *)b)->name);
}

/* All queues by name, in the step's arena. */
static uint32_t list_queues(const struct hp_core *core, struct hp_arena *arena,
                            struct hp_st_queue_info **ret)
{
    uint32_t count = 0;
    uint32_t most = hp_strmap_count(&core->queues);
    *ret = HP_ARENA_NEW_ARRAY(arena, struct hp_st_queue_info, most + 1U);
    HP_ASSERT(*ret != NULL);
    struct hp_strmap_iter iter = {0};
    uint64_t value = 0;
    while (count < most && hp_strmap_next(&core->queues, &iter, NULL, &value)) {
        queue_figures(core, (const struct hp_queue *)(uintptr_t)value, &(*ret)[count++]);
    }
    qsort(*ret, count, sizeof(**ret), by_name);
    return count;
}

/* How many of the queues fit in one frame. */
static uint32_t queues_that_fit(const struct hp_list_queue_info *queues)
{
    size_t bytes = 0;
    uint32_t most = queues->count < LIST_MAX ? queues->count : LIST_MAX;
    for (uint32_t i = 0; i < most; i++) {
        bytes += INFO_BYTES + queues->items[i].name.size;
        if (bytes > ANSWER_BYTES) {
            return i;
        }
    }
    return most;
}

void hp_on_queue_list(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_queue_list msg;
    struct hp_error error;
    if (hp_msg_queue_list_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    struct hp_msg_queue_list_reply reply = {0};
    reply.queues.count = list_queues(core, &core->arena, &reply.queues.items);
    reply.queues.count = queues_that_fit(&reply.queues);
    if ((msg.has & HP_HAS_QUEUE_LIST_NAME) != 0) {
        struct hp_queue *queue = hp_strmap_find_ptr(&core->queues, msg.name);
        if (queue == NULL) {
            hp_out_error(core, request->conn, request->rpc->msgid, false, HP_RPC_ERROR_NOT_FOUND,
                         "no queue %.*s", HP_STR_ARG(msg.name));
            return;
        }
        queue_figures(core, queue, &reply.queues.items[0]);
        reply.queues.count = 1;
    }
    struct hp_buf *out = hp_out_reply(core, request->conn, false);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_queue_list_reply_encode(out, &reply));
}

void hp_on_queue_pause(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_queue_pause msg;
    struct hp_error error;
    if (hp_msg_queue_pause_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    struct hp_queue *queue = hp_strmap_find_ptr(&core->queues, msg.name);
    if (queue == NULL && (!msg.paused || !hp_name_valid(msg.name))) {
        hp_out_error(core, request->conn, request->rpc->msgid, false, HP_RPC_ERROR_NOT_FOUND,
                     "no queue %.*s", HP_STR_ARG(msg.name));
        return;
    }
    queue = queue != NULL ? queue : hp_queue_get(core, msg.name);
    struct hp_msg_queue_pause_reply reply = {.changed = queue->paused != msg.paused};
    if (reply.changed) {
        queue->paused = msg.paused;
        hp_queue_dirty(core, queue);
        HP_LIST_FOR_EACH (link, &queue->lanes) {
            hp_lane_update(core, HP_CONTAINER_OF(link, struct hp_lane, queue_link));
        }
        hp_trace(core, HP_TRACE_INFO, msg.paused ? "queue_paused" : "queue_resumed", "queue=%.*s",
                 HP_STR_ARG(queue->name));
    }
    struct hp_buf *out = hp_out_reply(core, request->conn, true);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_queue_pause_reply_encode(out, &reply));
}

/* ------------------------------------------------ workers */
static void node_figures(const struct hp_core *core, const struct hp_node *node,
                         struct hp_st_worker_info *ret)
{
    uint32_t used = node->used_cpus + node->light_count;
    *ret = (struct hp_st_worker_info){
        .has = HP_HAS_ST_WORKER_INFO_HOST | HP_HAS_ST_WORKER_INFO_PID |
               HP_HAS_ST_WORKER_INFO_MEM_BYTES | HP_HAS_ST_WORKER_INFO_TAGS |
               HP_HAS_ST_WORKER_INFO_FUNCTIONS | HP_HAS_ST_WORKER_INFO_SEEN_MS_AGO |
               HP_HAS_ST_WORKER_INFO_DONE,
        .node = node->name,
        .state = (enum hp_node_state)node->state,
        .draining = node->draining,
        .host = hp_str_of(node->host),
        .pid = node->pid,
        .slots = node->slots,
        .used = used < node->slots ? used : node->slots,
        .assigned = node->attempt_count,
        .mem_bytes = node->mem_bytes,
        .tags = node->tags,
        .functions = node->functions,
        .seen_ms_ago = core->now_ms - node->seen_ms,
        .done = node->done_count,
    };
    if (node->reason[0] != '\0') {
        ret->has |= HP_HAS_ST_WORKER_INFO_DRAIN_REASON;
        ret->drain_reason = hp_str_of(node->reason);
    }
}

static int by_node(const void *a, const void *b)
{
    return hp_str_compare(((const struct hp_st_worker_info *)a)->node,
                          ((const struct hp_st_worker_info *)b)->node);
}

static uint32_t list_nodes(const struct hp_core *core, struct hp_arena *arena, struct hp_str only,
                           struct hp_st_worker_info **ret)
{
    uint32_t count = 0;
    *ret = HP_ARENA_NEW_ARRAY(arena, struct hp_st_worker_info, LIST_MAX);
    HP_ASSERT(*ret != NULL);
    HP_LIST_FOR_EACH (link, &core->node_list) {
        const struct hp_node *node = HP_CONTAINER_OF(link, struct hp_node, link);
        if (count < LIST_MAX && node->state != HP_SM_NODE_NONE &&
            (only.size == 0 || hp_str_eq(only, node->name))) {
            node_figures(core, node, &(*ret)[count++]);
        }
    }
    qsort(*ret, count, sizeof(**ret), by_node);
    return count;
}

/* What a worker's entry takes without its functions. */
static size_t worker_bytes(const struct hp_st_worker_info *info)
{
    size_t bytes = INFO_BYTES + info->node.size + info->host.size + info->drain_reason.size;
    for (uint32_t i = 0; i < info->tags.count; i++) {
        bytes += info->tags.items[i].size + 3U;
    }
    return bytes;
}

/* Keeps the workers that fit in one frame, and of their functions what then has room. */
static void fit_workers(struct hp_list_worker_info *workers)
{
    size_t bytes = 0;
    size_t elements = 0;
    for (uint32_t i = 0; i < workers->count; i++) {
        bytes += worker_bytes(&workers->items[i]);
        elements += INFO_ELEMENTS + workers->items[i].tags.count;
        if (bytes > ANSWER_BYTES || elements > ANSWER_ELEMENTS) {
            workers->count = i;
        }
    }
    for (uint32_t i = 0; i < workers->count; i++) {
        struct hp_list_str *functions = &workers->items[i].functions;
        for (uint32_t k = 0; k < functions->count; k++) {
            bytes += functions->items[k].size + 3U;
            if (bytes > ANSWER_BYTES || ++elements > ANSWER_ELEMENTS) {
                functions->count = k;
            }
        }
    }
}

void hp_on_worker_list(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_worker_list msg;
    struct hp_error error;
    if (hp_msg_worker_list_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    struct hp_msg_worker_list_reply reply = {0};
    reply.workers.count = list_nodes(core, &core->arena, msg.node, &reply.workers.items);
    if (msg.node.size > 0 && reply.workers.count == 0) {
        hp_out_error(core, request->conn, request->rpc->msgid, false, HP_RPC_ERROR_NOT_FOUND,
                     "no worker %.*s", HP_STR_ARG(msg.node));
        return;
    }
    fit_workers(&reply.workers);
    struct hp_buf *out = hp_out_reply(core, request->conn, false);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_worker_list_reply_encode(out, &reply));
}

void hp_on_worker_drain(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_worker_drain msg;
    struct hp_error error;
    if (hp_msg_worker_drain_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    struct hp_node *node = hp_strmap_find_ptr(&core->nodes_by_name, msg.node);
    if (node == NULL) {
        hp_out_error(core, request->conn, request->rpc->msgid, false, HP_RPC_ERROR_NOT_FOUND,
                     "no worker %.*s", HP_STR_ARG(msg.node));
        return;
    }
    struct hp_msg_worker_drain_reply reply = {.changed = node->draining != msg.on};
    node->draining = msg.on;
    hp_pools_dirty(core);
    hp_node_set_text(&node->reason, msg.reason.data, msg.on ? msg.reason.size : 0);
    hp_node_store(core, node);
    struct hp_msg_worker_control control = {.has = HP_HAS_WORKER_CONTROL_DRAINING,
                                            .draining = msg.on};
    hp_node_control(core, node, &control);
    core->dispatch_wanted = true;
    hp_trace(core, HP_TRACE_INFO, msg.on ? "worker_drain" : "worker_resume", "node=%.*s",
             HP_STR_ARG(node->name));
    struct hp_buf *out = hp_out_reply(core, request->conn, true);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_worker_drain_reply_encode(out, &reply));
}

/* ------------------------------------------------ broker */
void hp_on_broker_ping(struct hp_request *request)
{
    struct hp_msg_broker_ping_reply reply = {.now_ms = request->core->wall_ms};
    struct hp_buf *out = hp_out_reply(request->core, request->conn, false);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_broker_ping_reply_encode(out, &reply));
}

static uint32_t counters(const struct hp_core *core, struct hp_st_counter *out)
{
    uint64_t ready = 0;
    uint64_t delayed = 0;
    struct hp_strmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_strmap_next(&core->queues, &iter, NULL, &value)) {
        struct hp_st_queue_info info;
        queue_figures(core, (const struct hp_queue *)(uintptr_t)value, &info);
        ready += info.ready;
        delayed += info.delayed;
    }
    uint64_t workers = 0;
    uint64_t slots = 0;
    HP_LIST_FOR_EACH (link, &core->node_list) {
        const struct hp_node *node = HP_CONTAINER_OF(link, struct hp_node, link);
        workers += hp_node_is_up(node);
        slots += hp_node_is_up(node) ? node->slots : 0;
    }
    uint64_t children = 0;
    HP_LIST_FOR_EACH (link, &core->pool_list) {
        children += HP_CONTAINER_OF(link, struct hp_pool, link)->up;
    }
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"tasks_ready", ready},
        {"tasks_delayed", delayed},
        {"tasks_assigned", hp_idmap_count(&core->attempts)},
        {"submitted_total", core->figures.submitted},
        {"started_total", core->figures.started},
        {"done_total", core->figures.done},
        {"failed_total", core->figures.failed},
        {"cancelled_total", core->figures.cancelled},
        {"expired_total", core->figures.expired},
        {"retried_total", core->figures.retried},
        {"lost_total", core->figures.lost},
        {"released_total", core->figures.released},
        {"recalled_total", core->figures.recalled},
        {"stale_total", core->figures.stale},
        {"duplicate_submits_total", core->figures.duplicate_submits},
        {"bad_requests_total", core->figures.bad_requests},
        {"busy_total", core->figures.busy},
        {"events_dropped_total", core->figures.events_dropped},
        {"pools", hp_idmap_count(&core->pools)},
        {"pool_children", children},
        {"volatile_tasks", core->vol.task_count},
        {"volatile_bytes", core->vol.bytes},
        {"volatile_dropped_total", core->vol.dropped},
        {"workers_online", workers},
        {"slots_online", slots},
        {"connections", hp_idmap_count(&core->conns)},
        {"sessions_in_memory", core->session_count},
        {"lanes", hp_idmap_count(&core->lanes)},
        {"payload_bytes_in_memory", core->payload_bytes},
        {"commits_total", core->durable_number},
        {"uncommitted_ops", core->backlog_ops},
    };
    uint32_t count = sizeof(rows) / sizeof(rows[0]);
    HP_ASSERT(count <= COUNTERS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        out[i] = (struct hp_st_counter){.name = hp_str_of(rows[i].name), .value = rows[i].value};
    }
    return count;
}

void hp_on_broker_status(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_st_counter list[COUNTERS_MAX];
    struct hp_str warnings[2];
    struct hp_msg_broker_status_reply reply = {.server = hp_str_of(core->server),
                                               .epoch = core->epoch,
                                               .uptime_ms = core->now_ms - core->started_ms + 1,
                                               .draining = core->draining,
                                               .counters = {.items = list}};
    reply.counters.count = counters(core, list);
    reply.warnings.items = warnings;
    if (core->warning != NULL) {
        warnings[reply.warnings.count++] = hp_str_of(core->warning);
    }
    if (core->disk_low) {
        warnings[reply.warnings.count++] = HP_STR("the disk of the data directory is nearly full: "
                                                  "submits are refused until there is space");
    }
    reply.has |= reply.warnings.count > 0 ? HP_HAS_BROKER_STATUS_REPLY_WARNINGS : 0;
    struct hp_buf *out = hp_out_reply(core, request->conn, false);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_broker_status_reply_encode(out, &reply));
}

void hp_on_broker_backup(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_broker_backup msg;
    struct hp_error error;
    if (hp_msg_broker_backup_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    if (msg.path.size == 0 || msg.path.data[0] != '/') {
        (void)hp_error_set(&error, HP_ERR_INVALID, "broker.backup.path: give an absolute path");
        hp_request_bad(request, &error);
        return;
    }
    struct hp_pending *pending =
        hp_pending_new(core, HP_PENDING_BACKUP, request->conn, request->rpc->msgid);
    pending->frame.data = hp_memdup(msg.path.data, msg.path.size);
    HP_ASSERT(pending->frame.data != NULL);
    pending->frame.size = msg.path.size;
    hp_load_set_text(hp_out_load(core, HP_LOAD_BACKUP, pending), pending->frame.data,
                     pending->frame.size);
}

void hp_on_broker_check(struct hp_request *request)
{
    struct hp_pending *pending =
        hp_pending_new(request->core, HP_PENDING_CHECK, request->conn, request->rpc->msgid);
    (void)hp_out_load(request->core, HP_LOAD_CHECK, pending);
}

enum { CHECK_LINE_BYTES = 1024 };

static void check_reply(struct hp_core *core, struct hp_conn *conn,
                        const struct hp_pending *pending, const struct hp_loaded *loaded)
{
    struct hp_str lines[256];
    struct hp_msg_broker_check_reply reply = {.ok = loaded->err == HP_OK && loaded->figures[1] == 0,
                                              .lines = {.items = lines}};
    const char *at = (const char *)loaded->text.data;
    uint32_t left = loaded->text.size;
    while (left > 0 && reply.lines.count < 256) {
        const char *end = memchr(at, '\n', left);
        uint32_t size = end != NULL ? (uint32_t)(end - at) : left;
        if (size > 0) { /* with names of files, which may be any bytes, and cut anywhere */
            char *clean = hp_arena_alloc(&core->arena, CHECK_LINE_BYTES);
            HP_ASSERT(clean != NULL);
            lines[reply.lines.count++] = hp_str_make(
                clean, hp_wire_str_clean(hp_str_make(at, size), clean, CHECK_LINE_BYTES));
        }
        size += end != NULL;
        at += size;
        left -= size;
    }
    struct hp_buf *out = hp_out_reply(core, conn, false);
    hp_must(hp_rpc_put_reply(out, pending->msgid));
    hp_must(hp_msg_broker_check_reply_encode(out, &reply));
}

void hp_broker_report_loaded(struct hp_core *core, struct hp_pending *pending,
                             const struct hp_loaded *loaded)
{
    struct hp_conn *conn = hp_conn_find(core, pending->conn);
    if (conn == NULL) {
        return;
    }
    if (pending->kind == HP_PENDING_CHECK) {
        check_reply(core, conn, pending, loaded);
        return;
    }
    if (loaded->err != HP_OK) {
        enum hp_rpc_error_code code = loaded->err == HP_ERR_EXISTS || loaded->err == HP_ERR_INVALID
                                          ? HP_RPC_ERROR_BAD_REQUEST
                                      : loaded->err == HP_ERR_BUSY ? HP_RPC_ERROR_BUSY
                                                                   : HP_RPC_ERROR_INTERNAL;
        hp_out_error(core, conn, pending->msgid, false, code, "backup: %.*s",
                     (int)loaded->text.size, (const char *)loaded->text.data);
        return;
    }
    struct hp_msg_broker_backup_reply reply = {.tasks = loaded->figures[0],
                                               .size = loaded->figures[1]};
    struct hp_buf *out = hp_out_reply(core, conn, false);
    hp_must(hp_rpc_put_reply(out, pending->msgid));
    hp_must(hp_msg_broker_backup_reply_encode(out, &reply));
}

/* ------------------------------------------------ text admin */
void hp_core_text_status(const struct hp_core *core, struct hp_buf *out)
{
    struct hp_st_counter list[COUNTERS_MAX];
    uint32_t count = counters(core, list);
    hp_must(hp_buf_append_format(out, "%s epoch=%llu uptime_ms=%llu draining=%d", core->server,
                                 (unsigned long long)core->epoch,
                                 (unsigned long long)(core->now_ms - core->started_ms + 1),
                                 core->draining));
    for (uint32_t i = 0; i < count; i++) {
        hp_must(hp_buf_append_format(out, " %.*s=%llu", HP_STR_ARG(list[i].name),
                                     (unsigned long long)list[i].value));
    }
    if (core->warning != NULL) {
        hp_must(hp_buf_append_format(out, " warning=\"%s\"", core->warning));
    }
    hp_must(hp_buf_append_text(out, "\n"));
}

void hp_core_text_workers(const struct hp_core *core, struct hp_buf *out)
{
    struct hp_arena arena;
    hp_arena_init(&arena, 1U << 16, 64U << 20);
    struct hp_st_worker_info *list = NULL;
    uint32_t count = list_nodes(core, &arena, (struct hp_str){0}, &list);
    hp_must(hp_buf_append_format(out, "%u workers", count));
    for (uint32_t i = 0; i < count; i++) {
        hp_must(hp_buf_append_format(out, "; %.*s %s%s slots=%u used=%u assigned=%u",
                                     HP_STR_ARG(list[i].node), hp_node_state_name(list[i].state),
                                     list[i].draining ? " draining" : "", list[i].slots,
                                     list[i].used, list[i].assigned));
    }
    hp_must(hp_buf_append_text(out, "\n"));
    hp_arena_deinit(&arena);
}

void hp_core_text_queues(const struct hp_core *core, struct hp_buf *out)
{
    struct hp_arena arena;
    hp_arena_init(&arena, 1U << 16, 64U << 20);
    struct hp_st_queue_info *list = NULL;
    uint32_t count = list_queues(core, &arena, &list);
    hp_must(hp_buf_append_format(out, "%u queues", count));
    for (uint32_t i = 0; i < count; i++) {
        hp_must(hp_buf_append_format(
            out, "; %.*s%s ready=%llu delayed=%llu running=%llu", HP_STR_ARG(list[i].name),
            list[i].paused ? " paused" : "", (unsigned long long)list[i].ready,
            (unsigned long long)list[i].delayed, (unsigned long long)list[i].running));
    }
    hp_must(hp_buf_append_text(out, "\n"));
    hp_arena_deinit(&arena);
}
