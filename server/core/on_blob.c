/* SPDX-License-Identifier: BSD-2-Clause */
/* blob.open, blob.put, blob.get: passed on to the blob thread; the core only gives out ids. */
#include "server/core/state.h"

enum { BLOB_BLOCK = 10000, BLOB_LOW = 1000 };

static struct hp_effect *to_thread(struct hp_request *request, enum hp_blob_verb verb)
{
    struct hp_effect *effect = hp_effects_add(request->core->effects, HP_EFFECT_BLOB);
    request->conn->blob_count++;
    effect->conn = request->conn->id;
    effect->blob.verb = verb;
    effect->blob.msgid = request->rpc->msgid;
    return effect;
}

void hp_on_blob_open(struct hp_request *request)
{
    struct hp_core *core = request->core;
    struct hp_msg_blob_open msg;
    struct hp_error error;
    if (hp_msg_blob_open_decode(request->rpc->params, &core->arena, &msg, &error) != HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    if (!msg.durable && hp_vblob_open(request, msg.size)) {
        return;
    }
    if (core->disk_low && request->conn->node == NULL) {
        hp_out_busy(core, request->conn, request->rpc->msgid, 5000,
                    "the broker's disk is nearly full: free space, nothing was stored");
        return;
    }
    if (core->next_blob + BLOB_LOW > core->reserved_blob) {
        core->reserved_blob = core->next_blob + BLOB_BLOCK;
        struct hp_op *op = hp_batch_add(core->batch, HP_OP_META);
        op->meta.next_id = core->reserved_id;
        op->meta.next_blob = core->reserved_blob;
        op->meta.grace_ms = core->drain_grace_ms;
    }
    struct hp_effect *effect = to_thread(request, HP_BLOB_OPEN);
    effect->blob.blob = core->next_blob++;
    effect->blob.size = msg.size;
}

void hp_on_blob_put(struct hp_request *request)
{
    struct hp_msg_blob_put msg;
    struct hp_error error;
    if (hp_msg_blob_put_decode(request->rpc->params, &request->core->arena, &msg, &error) !=
        HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    if (hp_vblob_put(request, &msg)) {
        return;
    }
    struct hp_effect *effect = to_thread(request, HP_BLOB_PUT);
    effect->blob.blob = msg.blob;
    effect->blob.offset = msg.offset;
    struct hp_bin copy;
    hp_must(hp_arena_copy_bin(&request->core->effects->arena, msg.data, &copy));
    effect->blob.data = copy;
    effect->blob.has_digest = (msg.has & HP_HAS_BLOB_PUT_DIGEST) != 0;
    effect->blob.digest = msg.digest;
}

void hp_on_blob_get(struct hp_request *request)
{
    struct hp_msg_blob_get msg;
    struct hp_error error;
    if (hp_msg_blob_get_decode(request->rpc->params, &request->core->arena, &msg, &error) !=
        HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    if (hp_vblob_get(request, &msg)) {
        return;
    }
    struct hp_effect *effect = to_thread(request, HP_BLOB_GET);
    effect->blob.blob = msg.blob;
    effect->blob.offset = msg.offset;
    effect->blob.size = msg.size;
}

static enum hp_rpc_error_code code_of(enum hp_err err)
{
    switch ((int)err) {
    case HP_ERR_NOT_FOUND:
        return HP_RPC_ERROR_NOT_FOUND;
    case HP_ERR_CORRUPT:
        return HP_RPC_ERROR_DAMAGED;
    case HP_ERR_NOSPACE:
    case HP_ERR_BUSY:
    case HP_ERR_FULL:
        return HP_RPC_ERROR_BUSY;
    case HP_ERR_TOO_BIG:
        return HP_RPC_ERROR_TOO_BIG;
    case HP_ERR_INVALID:
    case HP_ERR_RANGE:
        return HP_RPC_ERROR_BAD_REQUEST;
    default:
        return HP_RPC_ERROR_INTERNAL;
    }
}

void hp_on_blob_event(struct hp_core *core, const struct hp_event *event)
{
    struct hp_conn *conn = hp_conn_find(core, event->conn);
    if (conn == NULL) {
        return;
    }
    uint32_t msgid = event->blob.msgid;
    HP_ASSERT(conn->blob_count > 0);
    conn->blob_count--;
    if (event->blob.err != HP_OK) {
        hp_out_error(core, conn, msgid, false, code_of(event->blob.err), "blob %llu: %s",
                     (unsigned long long)event->blob.blob,
                     event->blob.text != NULL ? event->blob.text : hp_err_text(event->blob.err));
        return;
    }
    /* Opened: held, so that an id that is known outside lies below the durable reservation. */
    struct hp_buf *out = hp_out_reply(core, conn, event->kind == HP_EVENT_BLOB_OPENED);
    hp_must(hp_rpc_put_reply(out, msgid));
    if (event->kind == HP_EVENT_BLOB_OPENED) {
        struct hp_msg_blob_open_reply reply = {.blob = event->blob.blob};
        hp_must(hp_msg_blob_open_reply_encode(out, &reply));
    } else if (event->kind == HP_EVENT_BLOB_PUT) {
        struct hp_msg_blob_put_reply reply = {.size = event->blob.size};
        hp_must(hp_msg_blob_put_reply_encode(out, &reply));
    } else {
        struct hp_msg_blob_get_reply reply = {
            .data = event->blob.data, .size = event->blob.size, .digest = event->blob.digest};
        hp_must(hp_msg_blob_get_reply_encode(out, &reply));
    }
}
