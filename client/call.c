/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests other than submits: sent when the connection is open, repeated on the next one if their
 * answer was lost (all of them may be asked twice), given up with hp_call_abandon. As with submits,
 * calls before `calls_unsent` were sent on this connection.
 */
#include <string.h>

#include "client/call.h"
#include "client/engine_state.h"
#include "client/view.h"
#include "common/base/mem.h"

static struct hp_call *call_of(struct hp_list *link)
{
    return HP_LIST_ENTRY(link, struct hp_call, link);
}

static void async_done(void *context, const struct hp_reply *reply);

static void call_free(struct hp_engine *engine, struct hp_call *call)
{
    if (engine->calls_unsent == &call->link) {
        engine->calls_unsent = call->link.next;
    }
    if (call->pending.msgid != 0) {
        (void)hp_idmap_remove(&engine->replies, call->pending.msgid, NULL);
    }
    hp_list_remove(&call->link);
    engine->call_count--;
    hp_buf_deinit(&call->params);
    hp_free(call);
}

/* The context of a call that is answered by an event belongs to it. */
static void call_drop(struct hp_engine *engine, struct hp_call *call)
{
    if (call->done == async_done) {
        hp_free(call->context);
    }
    call_free(engine, call);
}

void hp_call_clear(struct hp_engine *engine)
{
    while (!hp_list_is_empty(&engine->calls)) {
        call_drop(engine, call_of(hp_list_first(&engine->calls)));
    }
    engine->calls_unsent = &engine->calls;
}

enum hp_status hp_call_begin(struct hp_engine *engine, enum hp_method method, struct hp_buf *params,
                             hp_call_done done, void *context, bool internal, uint64_t *ret_request)
{
    struct hp_call *call = hp_calloc(1, sizeof(*call));

    if (call == NULL) {
        hp_buf_deinit(params);
        return hp_engine_error_set(engine, HP_STATUS_NO_MEMORY, "out of memory");
    }
    call->pending.kind = HP_PENDING_CALL_REPLY;
    call->request = engine->next_request++;
    call->method = method;
    call->params = *params;
    call->done = done;
    call->context = context;
    call->internal = internal;
    hp_list_push_back(&engine->calls, &call->link);
    if (engine->calls_unsent == &engine->calls) {
        engine->calls_unsent = &call->link;
    }
    engine->call_count++;
    if (ret_request != NULL) {
        *ret_request = call->request;
    }
    return HP_STATUS_OK;
}

enum hp_status hp_call_begin_late(struct hp_engine *engine, enum hp_method method, hp_call_put put,
                                  hp_call_done done, void *context, uint64_t *ret_request)
{
    struct hp_buf none;
    enum hp_status status;

    hp_buf_init(&none, 64);
    status = hp_call_begin(engine, method, &none, done, context, true, ret_request);
    if (status == HP_STATUS_OK) {
        call_of(hp_list_last(&engine->calls))->put = put;
    }
    return status;
}

enum hp_status hp_call_notify(struct hp_engine *engine, enum hp_method method,
                              struct hp_buf *params)
{
    enum hp_status status = hp_call_begin(engine, method, params, NULL, NULL, true, NULL);

    if (status == HP_STATUS_OK) {
        call_of(hp_list_last(&engine->calls))->notify = true;
    }
    return status;
}

void hp_call_abandon(struct hp_engine *engine, uint64_t request)
{
    struct hp_list *link = engine->calls.next;

    while (link != &engine->calls) {
        struct hp_call *call = call_of(link);

        link = link->next;
        if (call->request == request) {
            call_drop(engine, call);
            return;
        }
    }
}

void hp_call_reply(struct hp_engine *engine, struct hp_call *call, const struct hp_reply *reply)
{
    hp_call_done done = call->done;
    void *context = call->context;

    call_free(engine, call);
    if (done != NULL) {
        done(context, reply);
    }
}

static bool compose_notify(struct hp_engine *engine, struct hp_call *call)
{
    if (hp_rpc_put_notify(&engine->out, call->method) != HP_OK ||
        hp_wire_put_raw(&engine->out, hp_buf_bin(&call->params)) != HP_OK) {
        hp_engine_fail(engine, HP_STATUS_NO_MEMORY, "out of memory");
        return false;
    }
    call_free(engine, call);
    return true;
}

bool hp_call_compose(struct hp_engine *engine)
{
    struct hp_call *call;
    uint32_t msgid;

    if (engine->calls_unsent == &engine->calls) {
        return false;
    }
    call = call_of(engine->calls_unsent);
    if (call->notify) {
        return compose_notify(engine, call);
    }
    msgid = hp_engine_msgid(engine, &call->pending);
    if (msgid == 0 || hp_rpc_put_request(&engine->out, msgid, call->method) != HP_OK ||
        (call->put != NULL ? call->put(call->context, &engine->out)
                           : hp_wire_put_raw(&engine->out, hp_buf_bin(&call->params))) != HP_OK) {
        hp_engine_fail(engine, HP_STATUS_NO_MEMORY, "out of memory");
        return false;
    }
    engine->calls_unsent = call->link.next;
    return true;
}

void hp_call_lost(struct hp_engine *engine)
{
    struct hp_list *link = engine->calls.next;

    while (link != &engine->calls) {
        struct hp_call *call = call_of(link);

        link = link->next;
        call->pending.msgid = 0;
        if (call->internal) {
            call_free(engine, call);
        }
    }
    engine->calls_unsent = engine->calls.next;
}

/* ---------------------------------------------------------------- calls answered by an event */

/* What an asynchronous call needs when its answer comes. */
struct async_call {
    struct hp_engine *engine;
    enum hp_method method;
    uint64_t request;
    void *user;
};

static enum hp_err fill_list(struct hp_engine *engine, const struct hp_reply *reply,
                             struct hp_item *item)
{
    struct hp_msg_task_get_reply got;
    struct hp_task_list *list = HP_ARENA_NEW(&item->arena, struct hp_task_list);
    struct hp_end *ends;
    enum hp_err err = hp_msg_task_get_reply_decode(reply->result, &engine->arena, &got, NULL);

    if (err != HP_OK || list == NULL) {
        return list == NULL ? HP_ERR_NOMEM : err;
    }
    list->tasks = HP_ARENA_NEW_ARRAY(&item->arena, struct hp_task, got.tasks.count);
    ends = HP_ARENA_NEW_ARRAY(&item->arena, struct hp_end, got.tasks.count);
    if (list->tasks == NULL || ends == NULL) {
        return HP_ERR_NOMEM;
    }
    list->count = got.tasks.count;
    list->next = got.next;
    for (uint32_t i = 0; i < got.tasks.count; i++) {
        err = hp_view_task(&got.tasks.items[i], &item->arena, true, &list->tasks[i], &ends[i]);
        if (err != HP_OK) {
            return err;
        }
    }
    item->event.list = list;
    return HP_OK;
}

static enum hp_err fill_cancel(struct hp_engine *engine, const struct hp_reply *reply,
                               struct hp_item *item)
{
    struct hp_msg_task_cancel_reply got;
    struct hp_cancel_report *report = HP_ARENA_NEW(&item->arena, struct hp_cancel_report);
    enum hp_err err = hp_msg_task_cancel_reply_decode(reply->result, &engine->arena, &got, NULL);

    if (err != HP_OK || report == NULL) {
        return report == NULL ? HP_ERR_NOMEM : err;
    }
    *report = (struct hp_cancel_report){.cancelled = got.cancelled,
                                        .cancelling = got.cancelling,
                                        .too_late = got.too_late,
                                        .unknown = got.unknown};
    report->results = HP_ARENA_NEW_ARRAY(&item->arena, struct hp_cancel_entry, got.results.count);
    if (report->results == NULL) {
        return HP_ERR_NOMEM;
    }
    report->result_count = got.results.count;
    for (uint32_t i = 0; i < got.results.count; i++) {
        report->results[i].id = got.results.items[i].id;
        report->results[i].outcome = (enum hp_cancelled)got.results.items[i].outcome;
    }
    item->event.cancel = report;
    return HP_OK;
}

/* follow and signal: both replies are one state. */
static enum hp_err fill_state(struct hp_engine *engine, const struct hp_reply *reply,
                              struct hp_item *item)
{
    struct hp_msg_task_follow_reply got;
    enum hp_err err = hp_msg_task_follow_reply_decode(reply->result, &engine->arena, &got, NULL);

    item->event.state = err == HP_OK ? (enum hp_state)got.state : 0;
    return err;
}

static enum hp_err fill(const struct async_call *async, const struct hp_reply *reply,
                        struct hp_item *item)
{
    if (reply->status != HP_STATUS_OK) {
        item->event.text = hp_arena_copy(&item->arena, reply->text, strlen(reply->text));
        return item->event.text == NULL ? HP_ERR_NOMEM : HP_OK;
    }
    if (async->method == HP_METHOD_TASK_GET) {
        return fill_list(async->engine, reply, item);
    }
    return async->method == HP_METHOD_TASK_CANCEL ? fill_cancel(async->engine, reply, item)
                                                  : fill_state(async->engine, reply, item);
}

static void async_done(void *context, const struct hp_reply *reply)
{
    struct async_call *async = context;
    struct hp_engine *engine = async->engine;
    struct hp_item *item = hp_item_new(engine, HP_EVENT_REPLY);
    enum hp_err err = HP_ERR_NOMEM;

    if (item != NULL) {
        item->event.status = reply->status;
        item->event.request = async->request;
        item->event.user = async->user;
        err = fill(async, reply, item);
    }
    if (err == HP_OK) {
        hp_item_queue(engine, item, reply->frame.size);
    } else {
        hp_item_free(engine, item);
        hp_engine_fail(engine, hp_status_of_err(err), "a reply cannot be used: %s",
                       hp_err_text(err));
    }
    hp_free(async);
}

enum hp_status hp_call_begin_async(struct hp_engine *engine, enum hp_method method,
                                   struct hp_buf *params, void *user, uint64_t *ret_request)
{
    struct async_call *async = hp_calloc(1, sizeof(*async));
    enum hp_status status;

    if (async == NULL) {
        hp_buf_deinit(params);
        return hp_engine_error_set(engine, HP_STATUS_NO_MEMORY, "out of memory");
    }
    *async = (struct async_call){
        .engine = engine, .method = method, .request = engine->next_request, .user = user};
    status = hp_call_begin(engine, method, params, async_done, async, false, ret_request);
    if (status != HP_STATUS_OK) {
        hp_free(async);
    }
    return status;
}
