/* SPDX-License-Identifier: BSD-2-Clause */
/* task.submit: numbered requests, ids, unique keys, groups. */
#include <stdio.h>

#include "server/core/state.h"

enum { ID_BLOCK = 40000, ID_LOW = 20000, BUCKET_BITS = 20 };

struct submit {
    struct hp_request *request;
    struct hp_msg_task_submit msg;
    struct hp_spec *spec;
    uint32_t count;
    uint64_t first;
    enum hp_submit_outcome outcome;
    bool in_memory; /* not durable */
};

/* Ids [first, first+count), all in one bucket of the store; durable reservations run ahead. */
static uint64_t take_ids(struct hp_core *core, uint32_t count)
{
    uint64_t first = core->next_id;
    uint64_t last = first + count - 1;
    if (first >> BUCKET_BITS != last >> BUCKET_BITS) {
        first = (last >> BUCKET_BITS) << BUCKET_BITS;
    }
    core->next_id = first + count;
    if (core->next_id + ID_LOW > core->reserved_id) {
        core->reserved_id = core->next_id + ID_BLOCK;
        core->reserve_batch = core->batch_number;
        struct hp_op *op = hp_batch_add(core->batch, HP_OP_META);
        op->meta.next_id = core->reserved_id;
        op->meta.next_blob = core->reserved_blob;
        op->meta.grace_ms = core->drain_grace_ms;
    }
    return first;
}

static void reply_ok(struct hp_request *request, uint64_t first, uint32_t count, uint32_t outcome,
                     bool held)
{
    struct hp_msg_task_submit_reply reply = {.has = HP_HAS_TASK_SUBMIT_REPLY_OUTCOME,
                                             .first = first,
                                             .count = count,
                                             .outcome = (enum hp_submit_outcome)outcome};
    struct hp_buf *out = held ? hp_out_reply(request->core, request->conn, held)
                              : hp_out_receipt(request->core, request->conn, held);
    hp_must(hp_rpc_put_reply(out, request->rpc->msgid));
    hp_must(hp_msg_task_submit_reply_encode(out, &reply));
}

/* ------------------------------------------------ request numbers */
static void remember(struct submit *submit, const struct hp_reply_memo *memo)
{
    struct hp_session *session = submit->request->conn->session;
    if (session != NULL && memo->number != 0 && submit->in_memory) {
        hp_session_note(session, memo);
    } else if (session != NULL && memo->number != 0) {
        hp_session_remember(submit->request->core, session, memo);
    }
}

static void refuse(struct submit *submit, enum hp_rpc_error_code code, const char *text)
{
    struct hp_core *core = submit->request->core;
    struct hp_reply_memo memo = {.number = submit->msg.number, .error = (uint8_t)code};
    remember(submit, &memo);
    core->figures.bad_requests++;
    hp_out_error(core, submit->request->conn, submit->request->rpc->msgid, !submit->in_memory, code,
                 "%s", text);
}

/* True: the number was seen, or may not come now, and that was answered. */
static bool answered_before(struct submit *submit)
{
    struct hp_request *request = submit->request;
    struct hp_core *core = request->core;
    struct hp_session *session = request->conn->session;
    uint64_t number = submit->msg.number;
    if (session == NULL || number == 0) {
        return false;
    }
    hp_session_ack(session, submit->msg.acked_up_to);
    if (number == session->last_number + 1) {
        if (session->memo_count < HP_LIMIT_SESSION_REPLIES) {
            return false;
        }
        hp_out_busy(core, request->conn, request->rpc->msgid, 100,
                    "too many unacknowledged replies in this session: send acked_up_to");
        return true;
    }
    struct hp_reply_memo *memo = hp_session_memo(session, number);
    if (memo == NULL) {
        hp_out_error(core, request->conn, request->rpc->msgid, false, HP_RPC_ERROR_OUT_OF_ORDER,
                     "request number %llu: the last one applied is %llu",
                     (unsigned long long)number, (unsigned long long)session->last_number);
        return true;
    }
    core->figures.duplicate_submits++;
    if (memo->error != 0) {
        hp_out_error(core, request->conn, request->rpc->msgid, true,
                     (enum hp_rpc_error_code)memo->error, "refused when it came first");
    } else {
        reply_ok(request, memo->first, memo->count, memo->outcome, true);
    }
    return true;
}

/* ------------------------------------------------ checks */
static const char *check_payloads(struct submit *submit)
{
    const struct hp_msg_task_submit *msg = &submit->msg;
    if ((msg->has & HP_HAS_TASK_SUBMIT_PAYLOADS) != 0) {
        if (msg->payloads.count == 0) {
            return "task.submit.payloads: give at least one, or count";
        }
        if ((msg->has & HP_HAS_TASK_SUBMIT_COUNT) != 0 && msg->count != msg->payloads.count) {
            return "task.submit.count: differs from the number of payloads";
        }
        submit->count = msg->payloads.count;
    } else {
        submit->count = (msg->has & HP_HAS_TASK_SUBMIT_COUNT) != 0 ? msg->count : 1;
    }
    if ((msg->has & HP_HAS_TASK_SUBMIT_BLOBS) != 0 && msg->blobs.count != submit->count) {
        return "task.submit.blobs: must have one entry per payload";
    }
    if ((msg->has & HP_HAS_TASK_SUBMIT_BLOBS) != 0 && msg->payloads.count == 0) {
        return "task.submit.blobs: needs payloads (empty ones where a blob stands)";
    }
    if (submit->spec->options.ukey.size > 0 && submit->in_memory) {
        return "options.ukey: a unique key needs a durable task";
    }
    if (submit->spec->options.ukey.size > 0 && submit->count != 1) {
        return "options.ukey: a submit with a unique key has exactly one task";
    }
    return NULL;
}

static uint64_t ukey_hash(struct submit *submit, struct hp_bin *ret_key)
{
    struct hp_core *core = submit->request->core;
    const struct hp_st_task_options *options = &submit->spec->options;
    size_t size = (size_t)options->queue.size + 1 + options->ukey.size;
    uint8_t *key = hp_arena_alloc(&core->batch->arena, size);
    HP_ASSERT(key != NULL);
    memcpy(key, options->queue.data, options->queue.size);
    key[options->queue.size] = 0;
    memcpy(key + options->queue.size + 1, options->ukey.data, options->ukey.size);
    *ret_key = hp_bin_make(key, size);
    return hp_hash(key, size, core->hash_seed);
}

/* The live task of the key cannot be judged from memory: ask the store, then come back. */
static void defer_replace(struct submit *submit, uint64_t id)
{
    struct hp_request *request = submit->request;
    struct hp_core *core = request->core;
    struct hp_pending *pending =
        hp_pending_new(core, HP_PENDING_REPLACE, request->conn, request->rpc->msgid);
    pending->frame.data = hp_memdup(request->frame.data, request->frame.size);
    HP_ASSERT(pending->frame.data != NULL);
    pending->frame.size = request->frame.size;
    pending->id = id;
    struct hp_load *load = hp_out_load(core, HP_LOAD_TASKS, pending);
    load->spans = hp_must_alloc(sizeof(*load->spans));
    load->spans[0] = (struct hp_id_span){id, 1};
    load->span_count = 1;
    load->bytes_max = 65536;
    request->conn->paused = true;
}

/* True: answered (joined, rejected, or put off until the store said more). */
static bool key_is_held(struct submit *submit)
{
    struct hp_core *core = submit->request->core;
    if (submit->spec->options.ukey.size == 0) {
        return false;
    }
    struct hp_bin key;
    uint64_t holder = 0;
    if (!hp_idmap_find(&core->ukeys, ukey_hash(submit, &key), &holder)) {
        return false;
    }
    enum hp_on_conflict rule = submit->spec->options.on_conflict;
    if (rule == HP_ON_CONFLICT_JOIN) {
        struct hp_reply_memo memo = {.number = submit->msg.number,
                                     .first = holder,
                                     .count = 1,
                                     .outcome = HP_SUBMIT_OUTCOME_JOINED};
        remember(submit, &memo);
        reply_ok(submit->request, holder, 1, HP_SUBMIT_OUTCOME_JOINED, true);
    } else if (rule == HP_ON_CONFLICT_REJECT || hp_attempt_find(core, holder) != NULL) {
        char text[160];
        (void)snprintf(text, sizeof(text), "the unique key is held by task %llu",
                       (unsigned long long)holder);
        refuse(submit, HP_RPC_ERROR_CONFLICT, text);
    } else {
        defer_replace(submit, holder);
    }
    return true;
}

/* ------------------------------------------------ storing */
static void put_blobs(struct hp_core *core, const struct submit *submit)
{
    for (uint32_t i = 0; i < submit->msg.blobs.count; i++) {
        if (submit->msg.blobs.items[i] != 0) {
            struct hp_op *op = hp_batch_add(core->batch, HP_OP_BLOB);
            op->blob.blob = submit->msg.blobs.items[i];
            op->blob.owner = submit->first + i;
        }
    }
}

static const uint64_t *blobs_of(const struct submit *submit)
{
    return submit->msg.blobs.count > 0 ? submit->msg.blobs.items : NULL;
}

static struct hp_bin make_pack(struct hp_arena *arena, const struct submit *submit)
{
    const struct hp_msg_task_submit *msg = &submit->msg;
    if (msg->payloads.count == 0) {
        return (struct hp_bin){0};
    }
    size_t size = hp_pack_size(msg->payloads.items, submit->count, blobs_of(submit));
    uint8_t *bytes = hp_arena_alloc(arena, size);
    HP_ASSERT(bytes != NULL);
    hp_pack_write(bytes, msg->payloads.items, submit->count, blobs_of(submit));
    return hp_bin_make(bytes, size);
}

static struct hp_bin put_group(struct hp_core *core, const struct submit *submit)
{
    struct hp_bin pack = make_pack(&core->batch->arena, submit);
    struct hp_op *op = hp_batch_add(core->batch, HP_OP_GROUP);
    op->group.first = submit->first;
    op->group.count = submit->count;
    op->group.lane = submit->spec->lane->id;
    op->group.created_at_ms = core->wall_ms;
    op->group.options = hp_batch_copy(core->batch, submit->spec->raw.data, submit->spec->raw.size);
    op->group.pack = pack;
    struct hp_session *session = submit->request->conn->session;
    if (session != NULL) {
        op->group.session = hp_batch_copy(core->batch, session->id, sizeof(session->id));
    }
    return pack;
}

static int64_t due_at(const struct hp_core *core, const struct hp_st_task_options *options)
{
    int64_t at = core->wall_ms + (int64_t)options->delay_ms;
    bool timed = (options->has & HP_HAS_ST_TASK_OPTIONS_RUN_AT_MS) != 0;
    return timed && options->run_at_ms > at ? options->run_at_ms : at;
}

static void put_times(struct hp_core *core, const struct submit *submit)
{
    const struct hp_st_task_options *options = &submit->spec->options;
    uint64_t expire = options->expire_ms;
    if (options->deadline_ms > 0 && (expire == 0 || options->deadline_ms < expire)) {
        expire = options->deadline_ms;
    }
    struct hp_side side = {
        .first = submit->first, .count = submit->count, .lane = submit->spec->lane->id};
    if (expire > 0) {
        side.kind = HP_SIDE_EXPIRY;
        side.run_at_ms = core->wall_ms + (int64_t)expire;
        hp_batch_add(core->batch, HP_OP_SIDE)->side = side;
        hp_timer_put(core, &side);
    }
    int64_t due = due_at(core, options);
    if (due > core->wall_ms) {
        side.kind = HP_SIDE_DELAYED;
        side.run_at_ms = due;
        hp_batch_add(core->batch, HP_OP_SIDE)->side = side;
        hp_timer_put(core, &side);
        hp_lane_delayed(core, submit->spec->lane, submit->count);
    }
}

/* A pool is a group of one that no lane has: its children are what is given out. */
static void create_pool(struct submit *submit)
{
    struct hp_core *core = submit->request->core;
    bool has_payload = submit->msg.payloads.count > 0;
    (void)put_group(core, submit);
    put_blobs(core, submit);
    hp_pool_open(core, submit->first, submit->spec, submit->request->conn->session,
                 has_payload ? submit->msg.payloads.items[0] : (struct hp_bin){0},
                 submit->msg.blobs.count > 0 ? submit->msg.blobs.items[0] : 0);
}

static void create_durable(struct submit *submit)
{
    struct hp_core *core = submit->request->core;
    struct hp_session *session = submit->request->conn->session;
    const struct hp_st_task_options *options = &submit->spec->options;
    struct hp_bin pack = put_group(core, submit);
    put_blobs(core, submit);
    put_times(core, submit);
    if (options->ukey.size > 0) {
        struct hp_bin key;
        uint64_t hash = ukey_hash(submit, &key);
        hp_must(hp_idmap_put(&core->ukeys, hash, submit->first));
        struct hp_op *op = hp_batch_add(core->batch, HP_OP_UKEY);
        op->ukey.key = key;
        op->ukey.id = submit->first;
    }
    if (due_at(core, options) <= core->wall_ms) {
        struct hp_group *group = hp_group_new(core, submit->first, submit->count, submit->spec,
                                              session, core->wall_ms, pack);
        group->batch = core->batch_number;
        hp_lane_append(core, submit->spec->lane, submit->first, submit->count, core->wall_ms,
                       group);
        hp_group_unref(core, group);
    }
    core->turn_submitted += submit->count;
}

static void create(struct submit *submit)
{
    struct hp_core *core = submit->request->core;
    struct hp_spec *spec = submit->spec;
    bool held = true;
    submit->first = take_ids(core, submit->count);
    if (spec->lane->ckey != NULL) {
        hp_ckey_limit(core, spec->lane->ckey, spec->options.ckey_max); /* the latest rules */
    }
    if (submit->in_memory) {
        core->turn_volatile += submit->count;
        held = !hp_volatile_is_now(core, spec, submit->first + submit->count - 1);
        hp_volatile_submit(core, spec, submit->request->conn->session, submit->first, submit->count,
                           make_pack(&core->arena, submit), blobs_of(submit));
    } else if (spec->options.kind == HP_TASK_KIND_POOL) {
        create_pool(submit);
    } else {
        create_durable(submit);
    }
    if (spec->options.kind == HP_TASK_KIND_CALL) {
        struct hp_pool *pool = hp_pool_find(core, spec->options.pool);
        pool->memory_live += submit->in_memory ? submit->count : 0;
    }
    core->figures.submitted += submit->count;
    core->dispatch_wanted = true;
    struct hp_reply_memo memo = {.number = submit->msg.number,
                                 .first = submit->first,
                                 .count = submit->count,
                                 .outcome = (uint8_t)submit->outcome};
    remember(submit, &memo);
    reply_ok(submit->request, submit->first, submit->count, submit->outcome, held);
}

/* True: there is no room for what is not durable, and that was answered. */
static bool memory_is_full(struct submit *submit)
{
    struct hp_core *core = submit->request->core;
    const struct hp_list_bin *payloads = &submit->msg.payloads;
    uint64_t bytes = sizeof(struct hp_vgroup) + sizeof(struct hp_group) +
                     (uint64_t)submit->count * (sizeof(struct hp_vend *) + 12U);
    for (uint32_t i = 0; i < payloads->count; i++) {
        bytes += payloads->items[i].size;
    }
    if (bytes > core->config.volatile_bytes_max) {
        refuse(submit, HP_RPC_ERROR_TOO_BIG,
               "options.durable: more than the broker keeps in memory; submit fewer at once");
        return true;
    }
    if (hp_volatile_has_room(core, bytes)) {
        return false;
    }
    hp_out_busy(core, submit->request->conn, submit->request->rpc->msgid, 50,
                "the memory for tasks that are not durable is full: take results and forget them");
    return true;
}

/* What a blob is kept for must be what it was made for. */
static const char *check_blobs(const struct submit *submit)
{
    const struct hp_list_u64 *blobs = &submit->msg.blobs;
    for (uint32_t i = 0; i < blobs->count; i++) {
        if (!hp_vblob_is_id(blobs->items[i])) {
            continue;
        }
        if (!submit->in_memory) {
            return "task.submit.blobs: a durable task needs durable blobs";
        }
        if (!hp_vblob_is_whole(submit->request->core, blobs->items[i])) {
            return "task.submit.blobs: there is no such blob any more, or not yet";
        }
    }
    return NULL;
}

/* True: it is a call of no open pool, or a pool that can not be; that was answered. */
static bool pool_refused(struct submit *submit)
{
    struct hp_core *core = submit->request->core;
    const struct hp_st_task_options *options = &submit->spec->options;
    char text[1400];
    if (options->kind == HP_TASK_KIND_POOL) {
        enum hp_rpc_error_code code = HP_RPC_ERROR_BAD_REQUEST;
        const char *wrong =
            submit->count != 1 || options->ukey.size > 0 || due_at(core, options) > core->wall_ms
                ? "a pool is one task, without unique key and delay"
                : hp_pool_check(core, submit->spec, &code, text, sizeof(text));
        if (wrong != NULL) {
            refuse(submit, code, wrong);
        }
        return wrong != NULL;
    }
    if (options->kind != HP_TASK_KIND_CALL) {
        return false;
    }
    const struct hp_pool *pool = hp_pool_find(core, options->pool);
    unsigned long long id = options->pool;
    if (pool->state != HP_SM_POOL_OPEN) {
        (void)snprintf(text, sizeof(text), "pool %llu: %s", id,
                       pool->broken                        ? pool->error
                       : pool->state == HP_SM_POOL_CLOSING ? "it is closed"
                                                           : "it was terminated");
        refuse(submit, HP_RPC_ERROR_ILLEGAL_STATE, text);
    }
    return pool->state != HP_SM_POOL_OPEN;
}

void hp_submit_pool_ended(struct hp_request *request, const char *text)
{
    struct hp_core *core = request->core;
    struct submit submit = {.request = request};
    struct hp_error error;
    request->conn->paused = false;
    hp_must(hp_msg_task_submit_decode(request->rpc->params, &core->arena, &submit.msg, &error));
    submit.in_memory = !submit.msg.options.durable;
    if (answered_before(&submit)) {
        return; /* by another connection of the session, meanwhile */
    }
    if (text != NULL) {
        refuse(&submit, HP_RPC_ERROR_ILLEGAL_STATE, text);
        return;
    }
    char none[80];
    (void)snprintf(none, sizeof(none), "there is no pool %llu",
                   (unsigned long long)submit.msg.options.pool);
    refuse(&submit, HP_RPC_ERROR_NOT_FOUND, none);
}

static void carry_out(struct hp_request *request, enum hp_submit_outcome outcome)
{
    struct hp_core *core = request->core;
    struct submit submit = {.request = request, .outcome = outcome};
    struct hp_error error;
    if (hp_msg_task_submit_decode(request->rpc->params, &core->arena, &submit.msg, &error) !=
        HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    if (answered_before(&submit)) {
        return;
    }
    if (core->draining) {
        hp_out_error(core, request->conn, request->rpc->msgid, false, HP_RPC_ERROR_DRAINING,
                     "the broker is stopping");
        return;
    }
    submit.in_memory = !submit.msg.options.durable && submit.msg.options.kind != HP_TASK_KIND_POOL;
    if (core->disk_low && !submit.in_memory) {
        hp_out_busy(core, request->conn, request->rpc->msgid, 5000,
                    "the broker's disk is nearly full: free space, nothing was stored");
        return;
    }
    uint64_t pool = submit.msg.options.kind == HP_TASK_KIND_CALL ? submit.msg.options.pool : 0;
    if (pool != 0 && hp_pool_find(core, pool) == NULL) { /* nor is there to be a lane for it */
        request->conn->paused = true;                    /* numbers go on in order */
        hp_pool_ask_ended(request, pool);
        return;
    }
    submit.spec = hp_spec_of(core, &submit.msg.options, &error);
    if (submit.spec == NULL) {
        refuse(&submit, HP_RPC_ERROR_BAD_REQUEST, error.text);
        return;
    }
    const char *wrong = check_payloads(&submit);
    wrong = wrong != NULL ? wrong : check_blobs(&submit);
    if (wrong != NULL) {
        refuse(&submit, HP_RPC_ERROR_BAD_REQUEST, wrong);
    } else if (pool_refused(&submit)) {
        /* answered */
    } else if (submit.in_memory ? !memory_is_full(&submit) : !key_is_held(&submit)) {
        create(&submit);
    }
    hp_spec_unref(core, submit.spec);
}

void hp_on_task_submit(struct hp_request *request)
{
    carry_out(request, HP_SUBMIT_OUTCOME_CREATED);
}

static void forget_holder(struct hp_core *core, uint64_t id)
{
    struct hp_idmap_iter iter = {0};
    uint64_t hash = 0;
    uint64_t holder = 0;
    while (hp_idmap_next(&core->ukeys, &iter, &hash, &holder)) {
        if (holder == id) {
            (void)hp_idmap_remove(&core->ukeys, hash, NULL);
            return;
        }
    }
}

/* on_conflict=replace: the store said what the holder of the key is. */
void hp_submit_replace_loaded(struct hp_core *core, struct hp_pending *pending,
                              const struct hp_loaded *loaded)
{
    struct hp_conn *conn = hp_conn_find(core, pending->conn);
    if (conn == NULL) {
        return;
    }
    conn->paused = false;
    enum hp_submit_outcome outcome = HP_SUBMIT_OUTCOME_CREATED;
    bool refused = core->draining || core->disk_low; /* then the old one stays, too */
    for (uint32_t i = 0; i < loaded->task_count && !refused; i++) {
        enum hp_task_state now = hp_task_now(core, &loaded->tasks[i]);
        if (now == HP_TASK_STATE_READY || now == HP_TASK_STATE_DELAYED) {
            if (!hp_cancel_waiting(core, loaded, &loaded->tasks[i], 1, HP_TASK_STATE_CANCELLED)) {
                forget_holder(core, pending->id); /* damaged: it can not be taken out */
            }
            outcome = HP_SUBMIT_OUTCOME_REPLACED;
        } else if (now >= HP_TASK_STATE_DONE) {
            forget_holder(core, pending->id); /* it ended without giving the key back */
        }
    }
    struct hp_rpc rpc;
    struct hp_error error;
    hp_must(hp_rpc_read(core->wire, pending->frame.data, pending->frame.size, &rpc, &error));
    struct hp_request request = {.core = core, .conn = conn, .rpc = &rpc, .frame = pending->frame};
    carry_out(&request, outcome);
}
