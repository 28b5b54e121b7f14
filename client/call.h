/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Calls of the engine for the shell's layers: any method of the protocol, answered by a function or
 * by HP_EVENT_REPLY.
 */
#ifndef HP_CLIENT_CALL_H
#define HP_CLIENT_CALL_H

#include "client/engine.h"
#include "common/base/buf.h"
#include "proto/hp_msg.h"
#include "proto/wire.h"

/* The answer to a call. */
struct hp_reply {
    enum hp_status status;
    const char *text; /* NUL-terminated */
    uint64_t retry_after_ms;
    const struct hp_wire_obj *result; /* with HP_STATUS_OK */
    struct hp_bin frame;              /* whole, for keeping */
};

/* Takes the answer of a call, from inside feed. Never called after hp_call_abandon. */
typedef void (*hp_call_done)(void *context, const struct hp_reply *reply);

/*
 * Queues a request. params holds one encoded map; its memory is taken over, also on an error. done
 * may be NULL. internal: dropped without a word when the connection is lost, else repeated.
 */
enum hp_status hp_call_begin(struct hp_engine *engine, enum hp_method method, struct hp_buf *params,
                             hp_call_done done, void *context, bool internal,
                             uint64_t *ret_request);
/* Appends the encoded params when the request is sent, so that large ones are copied only once. */
typedef enum hp_err (*hp_call_put)(void *context, struct hp_buf *out);
/* The same with params made late; internal, and put's context is that of done. */
enum hp_status hp_call_begin_late(struct hp_engine *engine, enum hp_method method, hp_call_put put,
                                  hp_call_done done, void *context, uint64_t *ret_request);
/* As hp_call_begin, answered by HP_EVENT_REPLY; task.get, task.cancel, task.follow and task.signal.
 */
enum hp_status hp_call_begin_async(struct hp_engine *engine, enum hp_method method,
                                   struct hp_buf *params, void *user, uint64_t *ret_request);
/* Queues a notification; forgotten if the connection is lost before it was sent. params as above.
 */
enum hp_status hp_call_notify(struct hp_engine *engine, enum hp_method method,
                              struct hp_buf *params);
/* Its answer is not wanted any more. */
void hp_call_abandon(struct hp_engine *engine, uint64_t request);

#endif
