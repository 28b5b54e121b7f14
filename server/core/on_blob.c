/* SPDX-License-Identifier: BSD-2-Clause */
/* blob.*: passed on to the blob thread; the core only gives out ids. */
#include "server/core/state.h"

enum { BLOB_BLOCK = 10000, BLOB_LOW = 1000 };

struct hp_effect *hp_blob_ask(struct hp_request *request, enum hp_blob_verb verb, uint64_t blob)
{
    struct hp_effect *effect = hp_effects_add(request->core->effects, HP_EFFECT_BLOB);
    request->conn->blob_count++;
    effect->conn = request->conn->id;
    effect->blob.verb = verb;
    effect->blob.msgid = request->rpc->msgid;
    effect->blob.blob = blob;
    return effect;
}

void hp_blob_ask_gift(struct hp_request *request, uint64_t blob, const struct hp_msg_blob_give *msg,
                      bool is_kept)
{
    struct hp_blob_gift *gift = hp_arena_alloc(&request->core->effects->arena, sizeof(*gift));
    HP_ASSERT(gift != NULL);
    *gift = (struct hp_blob_gift){
        .place = {.pid = msg->pid, .fd = msg->fd, .device = msg->device, .inode = msg->inode},
        .is_kept = is_kept};
    memcpy(gift->key, request->conn->key, sizeof(gift->key));
    struct hp_effect *effect = hp_blob_ask(request, HP_BLOB_GIVE, blob);
    effect->blob.size = msg->size;
    effect->blob.gift = gift;
}

/* An id for a file; 0: the disk is nearly full, and the peer was told. */
static uint64_t new_blob(struct hp_request *request)
{
    struct hp_core *core = request->core;
    if (core->disk_low && request->conn->node == NULL) {
        hp_out_busy(core, request->conn, request->rpc->msgid, 5000,
                    "the broker's disk is nearly full: free space, nothing was stored");
        return 0;
    }
    if (core->next_blob + BLOB_LOW > core->reserved_blob) {
        core->reserved_blob = core->next_blob + BLOB_BLOCK;
        struct hp_op *op = hp_batch_add(core->batch, HP_OP_META);
        op->meta.next_id = core->reserved_id;
        op->meta.next_blob = core->reserved_blob;
        op->meta.grace_ms = core->drain_grace_ms;
    }
    return core->next_blob++;
}

void hp_on_blob_open(struct hp_request *request)
{
    struct hp_msg_blob_open msg;
    struct hp_error error;
    if (hp_msg_blob_open_decode(request->rpc->params, &request->core->arena, &msg, &error) !=
        HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    if (!msg.durable && hp_vblob_open(request, msg.size)) {
        return;
    }
    uint64_t blob = new_blob(request);
    if (blob != 0) {
        hp_blob_ask(request, HP_BLOB_OPEN, blob)->blob.size = msg.size;
    }
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
    struct hp_effect *effect = hp_blob_ask(request, HP_BLOB_PUT, msg.blob);
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
    struct hp_effect *effect = hp_blob_ask(request, HP_BLOB_GET, msg.blob);
    effect->blob.offset = msg.offset;
    effect->blob.size = msg.size;
}

/* ------------------------------------------------ by descriptor */
static bool is_near(struct hp_request *request)
{
    if (!request->conn->has_key) {
        hp_out_error(request->core, request->conn, request->rpc->msgid, false,
                     HP_RPC_ERROR_UNSUPPORTED,
                     "content by descriptor is for peers on the broker's host, if at all");
    }
    return request->conn->has_key;
}

void hp_on_blob_give(struct hp_request *request)
{
    struct hp_msg_blob_give msg;
    struct hp_error error;
    if (hp_msg_blob_give_decode(request->rpc->params, &request->core->arena, &msg, &error) !=
        HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    if (!is_near(request) || (!msg.durable && hp_vblob_give(request, &msg))) {
        return;
    }
    uint64_t blob = new_blob(request);
    if (blob != 0) {
        hp_blob_ask_gift(request, blob, &msg, false);
    }
}

void hp_on_blob_lend(struct hp_request *request)
{
    struct hp_msg_blob_lend msg;
    struct hp_error error;
    if (hp_msg_blob_lend_decode(request->rpc->params, &request->core->arena, &msg, &error) !=
        HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    if (is_near(request) && !hp_vblob_lend(request, msg.blob)) {
        (void)hp_blob_ask(request, HP_BLOB_LEND, msg.blob);
    }
}

/* ------------------------------------------------ answers */

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
    case HP_ERR_UNSUPPORTED:
        return HP_RPC_ERROR_UNSUPPORTED;
    case HP_ERR_INVALID:
    case HP_ERR_RANGE:
        return HP_RPC_ERROR_BAD_REQUEST;
    default:
        return HP_RPC_ERROR_INTERNAL;
    }
}

static void put_lent(struct hp_buf *out, const struct hp_event *event)
{
    const struct hp_blob_place *place = &event->blob.place;
    struct hp_msg_blob_lend_reply reply = {.size = event->blob.size,
                                           .pid = place->pid,
                                           .fd = place->fd,
                                           .device = place->device,
                                           .inode = place->inode,
                                           .digest = event->blob.digest};
    reply.has = event->blob.has_digest ? HP_HAS_BLOB_LEND_REPLY_DIGEST : 0;
    hp_must(hp_msg_blob_lend_reply_encode(out, &reply));
}

static void put_answer(struct hp_buf *out, const struct hp_event *event)
{
    struct hp_msg_blob_open_reply opened = {.blob = event->blob.blob};
    struct hp_msg_blob_give_reply given = {.blob = event->blob.blob};
    struct hp_msg_blob_put_reply put = {.size = event->blob.size};
    struct hp_msg_blob_get_reply got = {
        .data = event->blob.data, .size = event->blob.size, .digest = event->blob.digest};
    switch ((int)event->kind) {
    case HP_EVENT_BLOB_OPENED:
        hp_must(hp_msg_blob_open_reply_encode(out, &opened));
        break;
    case HP_EVENT_BLOB_GIVEN:
        hp_must(hp_msg_blob_give_reply_encode(out, &given));
        break;
    case HP_EVENT_BLOB_PUT:
        hp_must(hp_msg_blob_put_reply_encode(out, &put));
        break;
    case HP_EVENT_BLOB_LENT:
        put_lent(out, event);
        break;
    default:
        hp_must(hp_msg_blob_get_reply_encode(out, &got));
        break;
    }
}

void hp_on_blob_event(struct hp_core *core, const struct hp_event *event)
{
    struct hp_conn *conn = hp_conn_find(core, event->conn);
    bool is_given = event->kind == HP_EVENT_BLOB_GIVEN;
    bool is_kept = is_given && hp_vblob_is_id(event->blob.blob);
    enum hp_err err = is_kept ? hp_vblob_given(core, conn, event) : event->blob.err;
    if (conn == NULL) {
        return;
    }
    uint32_t msgid = event->blob.msgid;
    HP_ASSERT(conn->blob_count > 0);
    conn->blob_count--;
    if (err != HP_OK) {
        hp_out_error(core, conn, msgid, false, code_of(err), "blob %llu: %s",
                     (unsigned long long)event->blob.blob,
                     event->blob.text != NULL ? event->blob.text : hp_err_text(err));
        return;
    }
    /* New files: held, so that an id that is known outside lies below the durable reservation. */
    bool is_new_file = event->kind == HP_EVENT_BLOB_OPENED || (is_given && !is_kept);
    struct hp_buf *out = hp_out_reply(core, conn, is_new_file);
    hp_must(hp_rpc_put_reply(out, msgid));
    put_answer(out, event);
}
