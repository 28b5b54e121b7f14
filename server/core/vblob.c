/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Large payloads and results of tasks that are not durable: whole in memory, within the bound of
 * all that is not durable, so that a chunk is answered in the turn it came in. What does not fit:
 * clients are told to try again; a worker's result becomes an ordinary blob, a file, which the
 * store drops when the task is forgotten.
 */
#include <xxhash.h>

#include "server/core/state.h"

enum { IDLE_MS = 600000 }; /* without an owner */

#define EPOCH_SHIFT 40
#define EPOCH_MASK ((uint64_t)0x3fffff)

bool hp_vblob_is_id(uint64_t blob)
{
    return (blob & HP_VBLOB_BIT) != 0;
}

bool hp_vblob_is_whole(const struct hp_core *core, uint64_t blob)
{
    const struct hp_vblob *vblob = hp_idmap_find_ptr(&core->vol.blobs, blob);
    return vblob != NULL && vblob->digest_state == NULL && !vblob->is_coming;
}

static size_t bytes_of(const struct hp_vblob *blob)
{
    return sizeof(*blob) + blob->size;
}

static void blob_free(struct hp_core *core, struct hp_vblob *blob)
{
    if (blob->is_kept) { /* also if it is still coming: the thread goes in order */
        struct hp_effect *effect = hp_effects_add(core->effects, HP_EFFECT_BLOB);
        effect->blob.verb = HP_BLOB_DROP;
        effect->blob.blob = blob->id;
    }
    core->vol.bytes -= bytes_of(blob);
    (void)hp_idmap_remove(&core->vol.blobs, blob->id, NULL);
    hp_list_remove(&blob->idle_link);
    (void)XXH3_freeState(blob->digest_state); /* NULL is fine; always XXH_OK */
    hp_free(blob);
}

static void finish(struct hp_vblob *blob)
{
    blob->digest = XXH3_64bits_digest(blob->digest_state);
    (void)XXH3_freeState(blob->digest_state); /* always XXH_OK */
    blob->digest_state = NULL;
}

static void touch(struct hp_core *core, struct hp_vblob *blob)
{
    blob->used_ms = core->now_ms;
    if (blob->owner == 0) {
        hp_list_remove(&blob->idle_link);
        hp_list_push_back(&core->vol.blob_idle, &blob->idle_link);
    }
}

/* ------------------------------------------------ requests */
static void refuse(struct hp_request *request, enum hp_rpc_error_code code, uint64_t blob,
                   const char *text)
{
    hp_out_error(request->core, request->conn, request->rpc->msgid, false, code, "blob %llu: %s",
                 (unsigned long long)blob, text);
}

/* False: not here; the peer was told to try again, or it is to be a file. */
static bool has_room(struct hp_request *request, uint64_t bytes, bool *ret_answered)
{
    struct hp_core *core = request->core;
    struct hp_conn *conn = request->conn;
    bool fits = hp_volatile_has_room(core, bytes);
    *ret_answered = !fits && conn->node == NULL && bytes <= core->config.volatile_bytes_max;
    if (*ret_answered) {
        hp_out_busy(core, conn, request->rpc->msgid, 50,
                    "the memory for what is not durable is full: take results and forget them");
    }
    return fits;
}

static void add(struct hp_core *core, struct hp_vblob *blob)
{
    blob->used_ms = core->now_ms;
    blob->id = HP_VBLOB_BIT | (core->epoch & EPOCH_MASK) << EPOCH_SHIFT | core->vol.next_blob++;
    hp_list_init(&blob->idle_link);
    hp_list_push_back(&core->vol.blob_idle, &blob->idle_link);
    hp_must(hp_idmap_put_ptr(&core->vol.blobs, blob->id, blob));
    core->vol.bytes += bytes_of(blob);
}

bool hp_vblob_open(struct hp_request *request, uint64_t size)
{
    struct hp_core *core = request->core;
    uint64_t bytes = sizeof(struct hp_vblob) + size;
    bool is_answered = false;
    if (!has_room(request, bytes, &is_answered)) {
        return is_answered;
    }
    struct hp_vblob *blob = hp_alloc(bytes);
    XXH3_state_t *state = blob != NULL ? XXH3_createState() : NULL;
    if (state == NULL) {
        hp_free(blob);
        return false;
    }
    (void)XXH3_64bits_reset(state); /* fails only for NULL */
    *blob = (struct hp_vblob){.size = size, .digest_state = state};
    add(core, blob);
    struct hp_msg_blob_open_reply reply = {.blob = blob->id};
    if (size == 0) {
        finish(blob);
    }
    struct hp_buf *out = hp_out_reply(core, request->conn, false);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_blob_open_reply_encode(out, &reply));
    return true;
}

/* Appends a chunk; NULL, or why not. */
static const char *append(struct hp_vblob *blob, const struct hp_msg_blob_put *msg,
                          enum hp_rpc_error_code *ret_code)
{
    *ret_code = HP_RPC_ERROR_BAD_REQUEST;
    bool known = msg->offset < blob->written || blob->digest_state == NULL;
    if (known && msg->data.size <= blob->written - msg->offset && msg->offset <= blob->written) {
        return NULL; /* repeated: it is here */
    }
    if (msg->offset != blob->written) {
        return "a chunk before this one is missing";
    }
    if (msg->data.size > blob->size - blob->written) {
        return "more bytes than were announced";
    }
    if (msg->data.size > 0) {
        memcpy(blob->data + blob->written, msg->data.data, msg->data.size);
        (void)XXH3_64bits_update(blob->digest_state, msg->data.data, msg->data.size);
    }
    blob->written += msg->data.size;
    if (blob->written < blob->size) {
        return NULL;
    }
    finish(blob);
    if ((msg->has & HP_HAS_BLOB_PUT_DIGEST) != 0 && msg->digest != blob->digest) {
        *ret_code = HP_RPC_ERROR_DAMAGED;
        return "the digest is not that of the bytes received";
    }
    return NULL;
}

bool hp_vblob_put(struct hp_request *request, const struct hp_msg_blob_put *msg)
{
    struct hp_core *core = request->core;
    if (!hp_vblob_is_id(msg->blob)) {
        return false;
    }
    struct hp_vblob *blob = hp_idmap_find_ptr(&core->vol.blobs, msg->blob);
    if (blob == NULL || blob->is_coming) {
        refuse(request, HP_RPC_ERROR_NOT_FOUND, msg->blob, "no such upload; open the blob anew");
        return true;
    }
    touch(core, blob);
    enum hp_rpc_error_code code;
    const char *wrong = append(blob, msg, &code);
    if (wrong != NULL) {
        refuse(request, code, msg->blob, wrong);
        if (code == HP_RPC_ERROR_DAMAGED && blob->owner == 0) {
            blob_free(core, blob);
        }
        return true;
    }
    struct hp_msg_blob_put_reply reply = {.size = blob->written};
    struct hp_buf *out = hp_out_reply(core, request->conn, false);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_blob_put_reply_encode(out, &reply));
    return true;
}

bool hp_vblob_get(struct hp_request *request, const struct hp_msg_blob_get *msg)
{
    struct hp_core *core = request->core;
    if (!hp_vblob_is_id(msg->blob)) {
        return false;
    }
    const struct hp_vblob *blob = hp_idmap_find_ptr(&core->vol.blobs, msg->blob);
    if (!hp_vblob_is_whole(core, msg->blob)) {
        refuse(request, HP_RPC_ERROR_NOT_FOUND, msg->blob, "there is no such blob");
        return true;
    }
    if (blob->is_kept) {
        return false;
    }
    uint64_t left = msg->offset < blob->size ? blob->size - msg->offset : 0;
    uint64_t size = msg->size < left ? msg->size : left;
    struct hp_msg_blob_get_reply reply = {.size = blob->size, .digest = blob->digest};
    if (size > 0) {
        reply.data = hp_bin_make(blob->data + msg->offset, size);
    }
    struct hp_buf *out = hp_out_reply(core, request->conn, false);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_blob_get_reply_encode(out, &reply));
    return true;
}

/* ------------------------------------------------ by descriptor */
bool hp_vblob_give(struct hp_request *request, const struct hp_msg_blob_give *msg)
{
    bool is_answered = false;
    if (!has_room(request, sizeof(struct hp_vblob) + msg->size, &is_answered)) {
        return is_answered;
    }
    struct hp_vblob *blob = hp_must_calloc(sizeof(*blob));
    blob->size = msg->size;
    blob->written = msg->size;
    blob->is_kept = true;
    blob->is_coming = true;
    add(request->core, blob);
    hp_blob_ask_gift(request, blob->id, msg, true);
    return true;
}

enum hp_err hp_vblob_given(struct hp_core *core, const struct hp_conn *conn,
                           const struct hp_event *event)
{
    struct hp_vblob *blob = hp_idmap_find_ptr(&core->vol.blobs, event->blob.blob);
    if (blob == NULL) { /* it took so long that it expired */
        return event->blob.err != HP_OK ? event->blob.err : HP_ERR_NOT_FOUND;
    }
    blob->is_coming = false;
    if (event->blob.err != HP_OK || conn == NULL) {
        blob_free(core, blob); /* nobody knows its id */
    }
    return event->blob.err;
}

bool hp_vblob_lend(struct hp_request *request, uint64_t id)
{
    if (!hp_vblob_is_id(id)) {
        return false;
    }
    const struct hp_vblob *blob = hp_idmap_find_ptr(&request->core->vol.blobs, id);
    if (!hp_vblob_is_whole(request->core, id)) {
        refuse(request, HP_RPC_ERROR_NOT_FOUND, id, "there is no such blob");
        return true;
    }
    if (!blob->is_kept) {
        refuse(request, HP_RPC_ERROR_UNSUPPORTED, id, "it is in no descriptor");
        return true;
    }
    return false;
}

/* ------------------------------------------------ owners */
static void disown(struct hp_core *core, struct hp_vblob *blob)
{
    struct hp_vblob *head = hp_idmap_find_ptr(&core->vol.owned, blob->owner);
    struct hp_vblob **at = &head;
    while (*at != blob) {
        at = &(*at)->next_owned;
    }
    *at = blob->next_owned;
    if (head == NULL) {
        (void)hp_idmap_remove(&core->vol.owned, blob->owner, NULL);
    } else {
        hp_must(hp_idmap_put_ptr(&core->vol.owned, blob->owner, head));
    }
    blob->owner = 0;
}

void hp_vblob_adopt(struct hp_core *core, uint64_t id, uint64_t task, bool is_payload)
{
    struct hp_vblob *blob = hp_idmap_find_ptr(&core->vol.blobs, id);
    if (blob == NULL) {
        if (!hp_vblob_is_id(id)) { /* a file: its row keeps it from the sweep */
            struct hp_vgroup *group = hp_volatile_group(core, task);
            group->has_files = true;
            struct hp_op *op = hp_batch_add(core->batch, HP_OP_BLOB);
            op->blob.blob = id;
            op->blob.owner = task;
        }
        return;
    }
    if (blob->owner != 0) {
        disown(core, blob);
    }
    hp_list_remove(&blob->idle_link);
    blob->owner = task;
    blob->is_payload = is_payload;
    blob->next_owned = hp_idmap_find_ptr(&core->vol.owned, task);
    hp_must(hp_idmap_put_ptr(&core->vol.owned, task, blob));
}

void hp_vblob_drop_payload(struct hp_core *core, uint64_t task)
{
    if (hp_idmap_count(&core->vol.owned) == 0) {
        return;
    }
    struct hp_vblob *blob = hp_idmap_find_ptr(&core->vol.owned, task);
    while (blob != NULL) {
        struct hp_vblob *next = blob->next_owned;
        if (blob->is_payload) {
            disown(core, blob);
            blob_free(core, blob);
        }
        blob = next;
    }
}

void hp_vblob_drop_owned(struct hp_core *core, uint64_t task)
{
    if (hp_idmap_count(&core->vol.owned) == 0) {
        return;
    }
    struct hp_vblob *blob = hp_idmap_find_ptr(&core->vol.owned, task);
    if (blob != NULL) {
        (void)hp_idmap_remove(&core->vol.owned, task, NULL);
    }
    while (blob != NULL) {
        struct hp_vblob *next = blob->next_owned;
        blob_free(core, blob);
        blob = next;
    }
}

/* Uploads that nobody goes on with, or that no task was given. */
void hp_vblob_expire(struct hp_core *core)
{
    HP_LIST_FOR_EACH_SAFE (link, &core->vol.blob_idle) {
        struct hp_vblob *blob = HP_CONTAINER_OF(link, struct hp_vblob, idle_link);
        if (blob->used_ms + IDLE_MS > core->now_ms) {
            return;
        }
        blob_free(core, blob);
    }
}

void hp_vblob_free_all(struct hp_core *core)
{
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_idmap_next(&core->vol.blobs, &iter, NULL, &value)) {
        struct hp_vblob *blob = (struct hp_vblob *)(uintptr_t)value;
        (void)XXH3_freeState(blob->digest_state); /* NULL is fine */
        hp_free(blob);
    }
}
