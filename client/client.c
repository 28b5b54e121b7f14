/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client object: making and ending it, fork, and the asynchronous functions of the public
 * header that only pass on to the engine.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "client/near.h"
#include "client/shell.h"
#include "client/socket.h"
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"
#include "common/sys/fork.h"
#include "common/sys/random.h"

#define CONNECT_TIMEOUT_MS 5000u
#define TIMEOUT_MS 30000u
#define RETRY_BASE_MS 100u
#define RETRY_CAP_MS 5000u
#define WINDOW_SUBMITS HP_LIMIT_SESSION_REPLIES
#define WINDOW_SUBMITS_MAX HP_LIMIT_SESSION_REPLIES
#define WINDOW_BYTES (8u << 20)
#define EVENT_BYTES (8u << 20)

enum hp_status hp_client_fail(struct hp_client *client, enum hp_status status, const char *format,
                              ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(client->error_text, sizeof(client->error_text), format, args);
    va_end(args);
    return status;
}

enum hp_status hp_client_fail_engine(struct hp_client *client, enum hp_status status)
{
    const char *text = hp_engine_error(client->engine);

    return hp_client_fail(client, status, "%s", text[0] != '\0' ? text : hp_strerror(status));
}

void hp_client_options_init(struct hp_client_options *options)
{
    *options = (struct hp_client_options){
        .connect_timeout_ms = CONNECT_TIMEOUT_MS,
        .timeout_ms = TIMEOUT_MS,
        .retry_base_ms = RETRY_BASE_MS,
        .retry_cap_ms = RETRY_CAP_MS,
        .window_submits = WINDOW_SUBMITS,
        .window_bytes = WINDOW_BYTES,
        .event_bytes = EVENT_BYTES,
        .events = true,
    };
}

/* For tests, and for whoever sees what this program does not. */
static bool near_wanted(void)
{
    const char *text = getenv("HOSTPOOL_NEAR");

    return text == NULL || strcmp(text, "0") != 0;
}

static enum hp_status make_engine(struct hp_client *client, const struct hp_client_options *options,
                                  const char *token)
{
    struct hp_engine_config config = {
        .name = options->name != NULL ? options->name : "libhostpool " HP_VERSION,
        .token = token,
        .connect_timeout_ms = options->connect_timeout_ms,
        .retry_base_ms = options->retry_base_ms,
        .retry_cap_ms = options->retry_cap_ms,
        .window_submits = options->window_submits,
        .window_bytes = options->window_bytes,
        .event_bytes = options->event_bytes,
        .events = options->events,
        .near = near_wanted() ? &hp_near_system : NULL,
    };

    if (options->connect_timeout_ms == 0 || options->retry_base_ms == 0 ||
        options->retry_cap_ms < options->retry_base_ms || options->window_submits == 0 ||
        options->window_submits > WINDOW_SUBMITS_MAX || options->window_bytes == 0 ||
        options->event_bytes == 0) {
        return hp_client_fail(client, HP_STATUS_BAD_ARGUMENT,
                              "client options: a time or window is out of range");
    }
    if (hp_random_id16(config.session) != HP_OK || hp_random_u64(&config.seed) != HP_OK) {
        return hp_client_fail(client, HP_STATUS_SYSTEM, "no random numbers from the system");
    }
    if (options->session != NULL) {
        memcpy(config.session, options->session, sizeof(config.session));
    }
    client->timeout_ms = options->timeout_ms;
    client->engine = hp_engine_new(&config, hp_clock_mono_ms());
    return client->engine == NULL ? HP_STATUS_NO_MEMORY : HP_STATUS_OK;
}

enum hp_status hp_client_new(const struct hp_client_options *options, struct hp_client **ret_client)
{
    struct hp_client *client = hp_calloc(1, sizeof(*client));
    struct hp_client_options defaults;
    HP_CLEANUP(hp_free_ptr) char *token = NULL;
    enum hp_status status;

    *ret_client = NULL;
    if (client == NULL) {
        return HP_STATUS_NO_MEMORY;
    }
    hp_client_options_init(&defaults);
    options = options == NULL ? &defaults : options;
    client->fd = -1;
    client->process = hp_fork_mark();
    status = hp_host_parse(client, options->host);
    status = status == HP_STATUS_OK ? hp_client_token_read(client, options, &token) : status;
    status = status == HP_STATUS_OK ? make_engine(client, options, token) : status;
    if (status == HP_STATUS_NO_MEMORY) {
        hp_client_free(client);
        return status;
    }
    *ret_client = client;
    return status;
}

void hp_client_free(struct hp_client *client)
{
    if (client == NULL) {
        return;
    }
    hp_socket_drop(client);
    hp_engine_free(client->engine);
    hp_free(client->host);
    hp_free(client->port);
    hp_free(client->display);
    hp_free(client->read_buffer);
    hp_free(client);
}

enum hp_status hp_connect(const struct hp_client_options *options, int64_t timeout_ms,
                          struct hp_client **ret_client)
{
    enum hp_status status = hp_client_new(options, ret_client);
    struct hp_client *client = *ret_client;
    uint64_t deadline_ms;
    const char *text;

    if (status != HP_STATUS_OK) {
        return status;
    }
    deadline_ms = hp_client_deadline_ms(client, timeout_ms);
    while (!hp_engine_is_open(client->engine)) {
        status = hp_client_pump(client, deadline_ms);
        if (status != HP_STATUS_OK) {
            return status;
        }
        status = hp_engine_trouble(client->engine, &text);
        if (status != HP_STATUS_OK && status != HP_STATUS_SESSION_LOST) {
            return hp_client_fail(client, status, "%s", text);
        }
    }
    return HP_STATUS_OK;
}

void hp_close(struct hp_client *client)
{
    if (client != NULL && client->engine != NULL && client->process == hp_fork_mark()) {
        uint64_t deadline_ms = hp_client_deadline_ms(client, HP_TIMEOUT_DEFAULT);

        while (hp_engine_is_open(client->engine) && hp_engine_unacknowledged(client->engine) > 0 &&
               hp_client_pump(client, deadline_ms) == HP_STATUS_OK) {
        }
    }
    hp_client_free(client);
}

enum hp_status hp_client_check(struct hp_client *client)
{
    uint8_t session[HP_SESSION_BYTES];
    uint64_t seed;

    if (client->engine == NULL) {
        return HP_STATUS_BAD_ARGUMENT; /* the text is that of hp_client_new */
    }
    if (client->process == hp_fork_mark()) {
        return HP_STATUS_OK;
    }
    if (hp_random_id16(session) != HP_OK || hp_random_u64(&seed) != HP_OK) {
        return hp_client_fail(client, HP_STATUS_SYSTEM, "no random numbers from the system");
    }
    client->process = hp_fork_mark();
    hp_socket_drop(client);
    hp_engine_fork(client->engine, session, seed, hp_clock_mono_ms());
    return HP_STATUS_OK;
}

const char *hp_client_error(const struct hp_client *client)
{
    return client->error_text;
}

const char *hp_client_host(const struct hp_client *client)
{
    return client->display != NULL ? client->display : "?";
}

const uint8_t *hp_client_session(const struct hp_client *client)
{
    static const uint8_t none[HP_SESSION_BYTES];

    return client->engine == NULL ? none : hp_engine_session(client->engine);
}

const char *hp_client_server(const struct hp_client *client)
{
    return client->engine == NULL ? NULL : hp_engine_server(client->engine);
}

bool hp_client_connected(const struct hp_client *client)
{
    return client->engine != NULL && hp_engine_is_open(client->engine);
}

uint64_t hp_client_outstanding(const struct hp_client *client)
{
    return client->engine == NULL ? 0 : hp_engine_outstanding(client->engine);
}

uint64_t hp_client_unacknowledged(const struct hp_client *client)
{
    return client->engine == NULL ? 0 : hp_engine_unacknowledged(client->engine);
}

const char *hp_client_busy(const struct hp_client *client)
{
    return client->engine == NULL ? NULL : hp_engine_busy(client->engine);
}

/* ---------------------------------------------------------------- asynchronous requests */

static enum hp_status submit(struct hp_client *client, const struct hp_engine_submit *what,
                             uint64_t *ret_request)
{
    enum hp_status status = hp_client_check(client);

    if (status != HP_STATUS_OK) {
        return status;
    }
    status = hp_engine_submit(client->engine, what, ret_request);
    if (status == HP_STATUS_AGAIN) {
        return hp_client_fail(client, status, "%s", hp_strerror(status));
    }
    return status == HP_STATUS_OK ? status : hp_client_fail_engine(client, status);
}

enum hp_status hp_submit_async(struct hp_client *client, const struct hp_options *options,
                               const struct hp_bytes *payloads, uint32_t count, void *user,
                               uint64_t *ret_request)
{
    struct hp_engine_submit what = {
        .options = options, .payloads = payloads, .count = count, .user = user};

    return submit(client, &what, ret_request);
}

enum hp_status hp_submit_array_async(struct hp_client *client, const struct hp_options *options,
                                     uint32_t count, void *user, uint64_t *ret_request)
{
    struct hp_engine_submit what = {
        .options = options, .count = count, .array = true, .user = user};

    return submit(client, &what, ret_request);
}

static enum hp_status begin(struct hp_client *client, enum hp_method method, enum hp_err err,
                            struct hp_buf *params, void *user, uint64_t *ret_request)
{
    enum hp_status status = hp_client_check(client);

    if (status == HP_STATUS_OK && err != HP_OK) {
        status = hp_client_fail(client,
                                err == HP_ERR_NOMEM ? HP_STATUS_NO_MEMORY : HP_STATUS_BAD_ARGUMENT,
                                "an argument is out of range");
    }
    if (status != HP_STATUS_OK) {
        hp_buf_deinit(params);
        return status;
    }
    status = hp_call_begin_async(client->engine, method, params, user, ret_request);
    return status == HP_STATUS_OK ? status : hp_client_fail_engine(client, status);
}

/* Most ranges of an asynchronous get or cancel. */
#define ASYNC_RANGES 1024u

static enum hp_err put_ranges(const struct hp_ids *ids, size_t id_count,
                              struct hp_st_id_range ranges[ASYNC_RANGES],
                              struct hp_list_id_range *ret)
{
    if (id_count == 0 || id_count > ASYNC_RANGES) {
        return HP_ERR_RANGE;
    }
    for (size_t i = 0; i < id_count; i++) {
        hp_st_id_range_init(&ranges[i]);
        ranges[i].first = ids[i].first;
        ranges[i].count = ids[i].count;
        ranges[i].has = HP_HAS_ST_ID_RANGE_COUNT;
    }
    ret->items = ranges;
    ret->count = (uint32_t)id_count;
    return HP_OK;
}

enum hp_status hp_get_async(struct hp_client *client, const struct hp_ids *ids, size_t id_count,
                            unsigned detail, void *user, uint64_t *ret_request)
{
    struct hp_st_id_range ranges[ASYNC_RANGES];
    struct hp_msg_task_get get;
    struct hp_buf params;
    enum hp_err err;

    hp_msg_task_get_init(&get);
    err = put_ranges(ids, id_count, ranges, &get.ranges);
    get.end = (detail & HP_DETAIL_END) != 0;
    get.options = (detail & HP_DETAIL_OPTIONS) != 0;
    get.ended_only = (detail & HP_DETAIL_ENDED_ONLY) != 0;
    get.has = HP_HAS_TASK_GET_RANGES | HP_HAS_TASK_GET_END | HP_HAS_TASK_GET_OPTIONS |
              HP_HAS_TASK_GET_ENDED_ONLY;
    hp_buf_init(&params, HP_LIMIT_FRAME_BYTES);
    err = err == HP_OK ? hp_msg_task_get_encode(&params, &get) : err;
    return begin(client, HP_METHOD_TASK_GET, err, &params, user, ret_request);
}

enum hp_status hp_cancel_async(struct hp_client *client, const struct hp_ids *ids, size_t id_count,
                               enum hp_cancel_how how, uint64_t grace_ms, const char *reason,
                               void *user, uint64_t *ret_request)
{
    struct hp_st_id_range ranges[ASYNC_RANGES];
    struct hp_msg_task_cancel cancel;
    struct hp_buf params;
    enum hp_err err;

    hp_msg_task_cancel_init(&cancel);
    err = put_ranges(ids, id_count, ranges, &cancel.ranges);
    cancel.mode = (enum hp_cancel_mode)how;
    cancel.grace_ms = grace_ms;
    cancel.has = HP_HAS_TASK_CANCEL_RANGES | HP_HAS_TASK_CANCEL_MODE | HP_HAS_TASK_CANCEL_GRACE_MS;
    if (reason != NULL) {
        cancel.reason = hp_str_of(reason);
        cancel.has |= HP_HAS_TASK_CANCEL_REASON;
    }
    hp_buf_init(&params, HP_LIMIT_FRAME_BYTES);
    err = err == HP_OK ? hp_msg_task_cancel_encode(&params, &cancel) : err;
    return begin(client, HP_METHOD_TASK_CANCEL, err, &params, user, ret_request);
}

enum hp_status hp_follow_async(struct hp_client *client, uint64_t id, bool on, void *user,
                               uint64_t *ret_request)
{
    struct hp_msg_task_follow follow;
    struct hp_buf params;
    enum hp_status status;

    hp_msg_task_follow_init(&follow);
    follow.id = id;
    follow.on = on;
    follow.has = HP_HAS_TASK_FOLLOW_ON;
    hp_buf_init(&params, 1024);
    status = begin(client, HP_METHOD_TASK_FOLLOW, hp_msg_task_follow_encode(&params, &follow),
                   &params, user, ret_request);
    if (status == HP_STATUS_OK) {
        hp_engine_follow(client->engine, id, on);
    }
    return status;
}

enum hp_status hp_signal_async(struct hp_client *client, uint64_t id, uint32_t signal_number,
                               void *user, uint64_t *ret_request)
{
    struct hp_msg_task_signal message;
    struct hp_buf params;

    hp_msg_task_signal_init(&message);
    message.id = id;
    message.signal = signal_number;
    hp_buf_init(&params, 1024);
    return begin(client, HP_METHOD_TASK_SIGNAL, hp_msg_task_signal_encode(&params, &message),
                 &params, user, ret_request);
}

enum hp_status hp_track(struct hp_client *client, struct hp_ids ids, void *user,
                        uint64_t *ret_request)
{
    enum hp_status status = hp_client_check(client);

    if (status == HP_STATUS_OK) {
        status = hp_engine_track(client->engine, ids, user, ret_request);
        status = status == HP_STATUS_OK ? status : hp_client_fail_engine(client, status);
    }
    return status;
}

void hp_untrack(struct hp_client *client, uint64_t request)
{
    if (hp_client_check(client) == HP_STATUS_OK) {
        hp_engine_forget(client->engine, request, NULL);
    }
}

bool hp_client_next_event(struct hp_client *client, struct hp_event *ret_event)
{
    return hp_client_check(client) == HP_STATUS_OK &&
           hp_engine_next_event(client->engine, ret_event);
}

enum hp_status hp_client_wait_event(struct hp_client *client, int64_t timeout_ms,
                                    struct hp_event *ret_event)
{
    uint64_t deadline_ms = hp_client_deadline_ms(client, timeout_ms);
    enum hp_status status = hp_client_check(client);

    while (status == HP_STATUS_OK && !hp_engine_next_event(client->engine, ret_event)) {
        status = hp_client_pump(client, deadline_ms);
    }
    return status;
}
