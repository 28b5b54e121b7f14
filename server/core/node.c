/* SPDX-License-Identifier: BSD-2-Clause */
/* Workers: their session, lease and attempts. */
#include "server/core/offer.h"
#include "server/core/state.h"

bool hp_node_is_up(const struct hp_node *node)
{
    return node->state == HP_SM_NODE_ONLINE && node->conn != NULL;
}

static struct hp_node *node_new(struct hp_core *core, struct hp_str name, uint32_t number)
{
    struct hp_node *node = hp_must_calloc(sizeof(*node));
    node->number = number != 0 ? number : core->next_node;
    core->next_node = node->number >= core->next_node ? node->number + 1 : core->next_node;
    hp_node_set_text(&node->host, NULL, 0);
    hp_node_set_text(&node->reason, NULL, 0);
    hp_idmap_init(&node->fits, core->hash_seed);
    hp_idmap_init(&node->pools, core->hash_seed);
    hp_list_init(&node->attempts);
    hp_list_init(&node->link);
    hp_list_push_back(&core->node_list, &node->link);
    hp_must(hp_strmap_put(&core->nodes_by_name, name, (uint64_t)(uintptr_t)node, &node->name));
    hp_must(hp_idmap_put_ptr(&core->nodes, node->number, node));
    return node;
}

struct hp_node *hp_node_get(struct hp_core *core, struct hp_str name)
{
    struct hp_node *node = hp_strmap_find_ptr(&core->nodes_by_name, name);
    return node != NULL ? node : node_new(core, name, 0);
}

void hp_node_free(struct hp_core *core, struct hp_node *node)
{
    hp_heap_remove(&core->node_heap, &node->heap_node);
    hp_list_remove(&node->link);
    hp_offer_drop(core, node);
    hp_free(node->host);
    hp_free(node->reason);
    hp_idmap_deinit(&node->fits);
    hp_idmap_deinit(&node->pools);
    hp_free(node);
}

/* State: 1 byte draining, 1 byte length of host, host, the reason. */
void hp_node_store(struct hp_core *core, struct hp_node *node)
{
    uint8_t state[2 + 2 * HP_NODE_TEXT_MAX];
    size_t host = strlen(node->host);
    size_t reason = strlen(node->reason);
    state[0] = node->draining;
    state[1] = (uint8_t)host;
    memcpy(state + 2, node->host, host);
    memcpy(state + 2 + host, node->reason, reason);
    struct hp_op *op = hp_batch_add(core->batch, HP_OP_NODE);
    node->stored = true;
    op->node.number = node->number;
    op->node.name = hp_batch_copy(core->batch, node->name.data, node->name.size);
    op->node.boot = hp_batch_copy(core->batch, node->boot, sizeof(node->boot));
    op->node.state = hp_batch_copy(core->batch, state, 2 + host + reason);
}

void hp_node_set_text(char **text, const void *data, size_t size)
{
    size = size < HP_NODE_TEXT_MAX ? size : HP_NODE_TEXT_MAX;
    char *copy = hp_must_alloc(size + 1);
    if (size > 0) {
        memcpy(copy, data, size);
    }
    copy[size] = '\0';
    hp_free(*text);
    *text = copy;
}

void hp_node_recover(struct hp_core *core, const struct hp_record *record)
{
    struct hp_node *node = node_new(core, hp_bin_as_str(record->node.name), record->node.number);
    if (record->node.boot.size == sizeof(node->boot)) {
        memcpy(node->boot, record->node.boot.data, sizeof(node->boot));
    }
    struct hp_bin state = record->node.state;
    if (state.size >= 2 && state.size >= 2U + state.data[1]) {
        node->draining = state.data[0] != 0;
        hp_node_set_text(&node->host, state.data + 2, state.data[1]);
        hp_node_set_text(&node->reason, state.data + 2 + state.data[1],
                         state.size - 2U - state.data[1]);
    }
    node->state = HP_SM_NODE_OFFLINE;
    node->stored = true;
}

/* The lease runs from now on. */
void hp_node_renew(struct hp_core *core, struct hp_node *node, uint64_t lease_ms)
{
    node->lease_end_ms = core->now_ms + lease_ms;
    if (hp_heap_contains(&node->heap_node)) {
        hp_heap_update(&core->node_heap, &node->heap_node);
    } else {
        hp_must(hp_heap_push(&core->node_heap, &node->heap_node));
    }
}

void hp_node_conn_closed(struct hp_core *core, struct hp_node *node)
{
    node->conn = NULL;
    if (node->state == HP_SM_NODE_ONLINE) {
        node->state = HP_SM_NODE_AWAY;
        hp_trace(core, HP_TRACE_WARN, "worker_away", "node=%.*s attempts=%u",
                 HP_STR_ARG(node->name), node->attempt_count);
    }
}

static void lose_all(struct hp_core *core, struct hp_node *node, enum hp_reason reason)
{
    HP_LIST_FOR_EACH_SAFE (link, &node->attempts) {
        hp_attempt_lost(core, HP_CONTAINER_OF(link, struct hp_attempt, node_link), reason);
    }
}

void hp_node_forgive(struct hp_core *core)
{
    HP_LIST_FOR_EACH (link, &core->node_list) {
        struct hp_node *node = HP_CONTAINER_OF(link, struct hp_node, link);
        if (hp_heap_contains(&node->heap_node) &&
            node->lease_end_ms < core->now_ms + core->config.lease_ms) {
            hp_node_renew(core, node, core->config.lease_ms);
        }
    }
}

/* Workers whose lease ran out lose what they held. */
void hp_node_expire(struct hp_core *core)
{
    for (;;) {
        struct hp_heap_node *top = hp_heap_peek(&core->node_heap);
        if (top == NULL) {
            return;
        }
        struct hp_node *node = HP_CONTAINER_OF(top, struct hp_node, heap_node);
        if (node->lease_end_ms > core->now_ms) {
            return;
        }
        hp_heap_remove(&core->node_heap, &node->heap_node);
        hp_trace(core, HP_TRACE_WARN, "worker_offline", "node=%.*s attempts=%u",
                 HP_STR_ARG(node->name), node->attempt_count);
        node->state = HP_SM_NODE_OFFLINE;
        if (node->conn != NULL) {
            struct hp_conn *conn = node->conn;
            node->conn = NULL;
            conn->node = NULL;
            hp_out_close(core, conn, "its lease ran out without a heartbeat");
        }
        lose_all(core, node, HP_REASON_NODE_LOST);
        hp_pools_node_lost(core, node);
    }
}

static void control_node(struct hp_core *core, struct hp_node *node,
                         const struct hp_msg_worker_control *control, bool held)
{
    if (node->conn == NULL) {
        return; /* heartbeats repeat what matters */
    }
    hp_out_flush_assigns(core, node->conn);
    struct hp_buf *out = hp_out_reply(core, node->conn, held);
    hp_must(hp_rpc_put_notify(out, HP_METHOD_WORKER_CONTROL));
    hp_must(hp_msg_worker_control_encode(out, control));
}

void hp_node_control(struct hp_core *core, struct hp_node *node,
                     const struct hp_msg_worker_control *control)
{
    control_node(core, node, control, true);
}

void hp_node_control_attempt(struct hp_core *core, const struct hp_attempt *attempt,
                             const struct hp_msg_worker_control *control)
{
    control_node(core, attempt->node, control,
                 attempt->lease != NULL || !attempt->eager);
}
