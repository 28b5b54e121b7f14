/* SPDX-License-Identifier: BSD-2-Clause */
/* Blocking calls about queues, workers and the broker, and the small ones about a single task. */
#include <string.h>

#include "client/shell.h"
#include "client/view.h"
#include "common/base/mem.h"

/* Each answer owns an arena, which all it points to is in; the answer is its last member. */
#define DEFINE_OWNED(type)                                                                         \
    struct owned_##type {                                                                          \
        struct hp_arena arena;                                                                     \
        struct hp_##type answer;                                                                   \
    };                                                                                             \
    static struct owned_##type *new_##type(void)                                                   \
    {                                                                                              \
        struct owned_##type *owned = hp_calloc(1, sizeof(*owned));                                 \
        if (owned != NULL) {                                                                       \
            hp_arena_init(&owned->arena, 1024, SIZE_MAX / 8);                                      \
        }                                                                                          \
        return owned;                                                                              \
    }                                                                                              \
    void hp_##type##_free(struct hp_##type *answer)                                                \
    {                                                                                              \
        if (answer != NULL) {                                                                      \
            struct owned_##type *owned = HP_CONTAINER_OF(answer, struct owned_##type, answer);     \
            hp_arena_deinit(&owned->arena);                                                        \
            hp_free(owned);                                                                        \
        }                                                                                          \
    }

DEFINE_OWNED(lines)
DEFINE_OWNED(queue_list)
DEFINE_OWNED(worker_list)
DEFINE_OWNED(broker_info)

#define PARAMS_BYTES (64u << 10)

static enum hp_status status_of(enum hp_err err)
{
    return err == HP_OK ? HP_STATUS_OK
                        : (err == HP_ERR_NOMEM ? HP_STATUS_NO_MEMORY : HP_STATUS_PROTOCOL);
}

/* Decoding into an owned answer frees it on an error, so that a repeated call starts anew. */
#define DECODE_OWNED(type, message_type)                                                           \
    static enum hp_status decode_##type(void *context, const struct hp_reply *reply)               \
    {                                                                                              \
        struct owned_##type *owned = new_##type();                                                 \
        struct message_type message;                                                               \
        enum hp_err err;                                                                           \
        if (owned == NULL) {                                                                       \
            return HP_STATUS_NO_MEMORY;                                                            \
        }                                                                                          \
        err = message_type##_decode(reply->result, &owned->arena, &message, NULL);                 \
        err = err == HP_OK ? fill_##type(&message, &owned->arena, &owned->answer) : err;           \
        if (err != HP_OK) {                                                                        \
            hp_##type##_free(&owned->answer);                                                      \
            return status_of(err);                                                                 \
        }                                                                                          \
        *(struct hp_##type **)context = &owned->answer;                                            \
        return HP_STATUS_OK;                                                                       \
    }

/* ---------------------------------------------------------------- one task */

static enum hp_err fill_lines(const struct hp_msg_task_why_reply *message, struct hp_arena *arena,
                              struct hp_lines *ret)
{
    ret->state = (enum hp_state)message->state;
    return hp_view_strs(&message->lines, arena, &ret->lines, &ret->count);
}

DECODE_OWNED(lines, hp_msg_task_why_reply)

enum hp_status hp_why(struct hp_client *client, uint64_t id, int64_t timeout_ms,
                      struct hp_lines **ret_lines)
{
    struct hp_msg_task_why why;
    struct hp_buf params;

    hp_msg_task_why_init(&why);
    why.id = id;
    hp_buf_init(&params, PARAMS_BYTES);
    return hp_client_call(client, HP_METHOD_TASK_WHY, hp_msg_task_why_encode(&params, &why),
                          &params, hp_client_deadline_ms(client, timeout_ms), decode_lines,
                          ret_lines);
}

/* The replies to follow and signal are the same: a state. */
static enum hp_status decode_state(void *context, const struct hp_reply *reply)
{
    HP_CLEANUP(hp_arena_deinit) struct hp_arena arena;
    struct hp_msg_task_follow_reply message;
    enum hp_state *ret_state = context;
    enum hp_err err;

    hp_arena_init(&arena, 1024, SIZE_MAX / 8);
    err = hp_msg_task_follow_reply_decode(reply->result, &arena, &message, NULL);
    if (err == HP_OK) {
        *ret_state = (enum hp_state)message.state;
    }
    return status_of(err);
}

enum hp_status hp_follow(struct hp_client *client, uint64_t id, bool on, int64_t timeout_ms,
                         enum hp_state *ret_state)
{
    struct hp_msg_task_follow follow;
    struct hp_buf params;
    enum hp_state state = HP_STATE_UNKNOWN;
    enum hp_status status;

    hp_msg_task_follow_init(&follow);
    follow.id = id;
    follow.on = on;
    follow.has = HP_HAS_TASK_FOLLOW_ON;
    hp_buf_init(&params, PARAMS_BYTES);
    status =
        hp_client_call(client, HP_METHOD_TASK_FOLLOW, hp_msg_task_follow_encode(&params, &follow),
                       &params, hp_client_deadline_ms(client, timeout_ms), decode_state, &state);
    if (status == HP_STATUS_OK) {
        hp_engine_follow(client->engine, id, on && !hp_state_is_final(state));
    }
    if (status == HP_STATUS_OK && ret_state != NULL) {
        *ret_state = state;
    }
    return status;
}

enum hp_status hp_signal(struct hp_client *client, uint64_t id, uint32_t signal_number,
                         int64_t timeout_ms, enum hp_state *ret_state)
{
    struct hp_msg_task_signal message;
    struct hp_buf params;
    enum hp_state state = HP_STATE_UNKNOWN;
    enum hp_status status;

    hp_msg_task_signal_init(&message);
    message.id = id;
    message.signal = signal_number;
    hp_buf_init(&params, PARAMS_BYTES);
    status =
        hp_client_call(client, HP_METHOD_TASK_SIGNAL, hp_msg_task_signal_encode(&params, &message),
                       &params, hp_client_deadline_ms(client, timeout_ms), decode_state, &state);
    if (status == HP_STATUS_OK && ret_state != NULL) {
        *ret_state = state;
    }
    return status;
}

/* ---------------------------------------------------------------- queues and workers */

static enum hp_err fill_queue_list(const struct hp_msg_queue_list_reply *message,
                                   struct hp_arena *arena, struct hp_queue_list *ret)
{
    enum hp_err err = HP_OK;

    ret->count = message->queues.count;
    ret->queues = HP_ARENA_NEW_ARRAY(arena, struct hp_queue, ret->count);
    if (ret->queues == NULL) {
        return HP_ERR_NOMEM;
    }
    for (size_t i = 0; err == HP_OK && i < ret->count; i++) {
        const struct hp_st_queue_info *from = &message->queues.items[i];

        ret->queues[i] = (struct hp_queue){.paused = from->paused,
                                           .ready = from->ready,
                                           .delayed = from->delayed,
                                           .running = from->running,
                                           .done = from->done,
                                           .failed = from->failed};
        err = hp_view_str(from->name, arena, &ret->queues[i].name);
    }
    return err;
}

DECODE_OWNED(queue_list, hp_msg_queue_list_reply)

enum hp_status hp_queue_get(struct hp_client *client, const char *name, int64_t timeout_ms,
                            struct hp_queue_list **ret_list)
{
    struct hp_msg_queue_list list;
    struct hp_queue_list *got = NULL;
    struct hp_buf params;
    enum hp_status status;

    hp_msg_queue_list_init(&list);
    if (name != NULL) {
        list.name = hp_str_of(name);
        list.has |= HP_HAS_QUEUE_LIST_NAME;
    }
    hp_buf_init(&params, PARAMS_BYTES);
    status =
        hp_client_call(client, HP_METHOD_QUEUE_LIST, hp_msg_queue_list_encode(&params, &list),
                       &params, hp_client_deadline_ms(client, timeout_ms), decode_queue_list, &got);
    if (status == HP_STATUS_OK && name != NULL && got->count == 0) {
        hp_queue_list_free(got);
        return hp_client_fail(client, HP_STATUS_NOT_FOUND, "there is no queue %s", name);
    }
    if (status == HP_STATUS_OK) {
        *ret_list = got;
    }
    return status;
}

static enum hp_status decode_changed(void *context, const struct hp_reply *reply)
{
    HP_CLEANUP(hp_arena_deinit) struct hp_arena arena;
    struct hp_msg_queue_pause_reply message; /* that of worker.drain is the same */
    enum hp_err err;

    hp_arena_init(&arena, 1024, SIZE_MAX / 8);
    err = hp_msg_queue_pause_reply_decode(reply->result, &arena, &message, NULL);
    if (err == HP_OK && context != NULL) {
        *(bool *)context = message.changed;
    }
    return status_of(err);
}

enum hp_status hp_queue_pause(struct hp_client *client, const char *name, bool paused,
                              int64_t timeout_ms, bool *ret_changed)
{
    struct hp_msg_queue_pause pause;
    struct hp_buf params;

    hp_msg_queue_pause_init(&pause);
    pause.name = hp_str_of(name);
    pause.paused = paused;
    hp_buf_init(&params, PARAMS_BYTES);
    return hp_client_call(client, HP_METHOD_QUEUE_PAUSE, hp_msg_queue_pause_encode(&params, &pause),
                          &params, hp_client_deadline_ms(client, timeout_ms), decode_changed,
                          ret_changed);
}

static enum hp_err fill_worker(const struct hp_st_worker_info *from, struct hp_arena *arena,
                               struct hp_worker *ret)
{
    enum hp_err err;

    *ret = (struct hp_worker){.state = (enum hp_worker_state)from->state,
                              .draining = from->draining,
                              .pid = from->pid,
                              .slots = from->slots,
                              .used = from->used,
                              .assigned = from->assigned,
                              .mem_bytes = from->mem_bytes,
                              .seen_ms_ago = from->seen_ms_ago,
                              .done = from->done};
    err = hp_view_str(from->node, arena, &ret->node);
    err = err == HP_OK ? hp_view_str(from->drain_reason, arena, &ret->drain_reason) : err;
    err = err == HP_OK ? hp_view_str(from->host, arena, &ret->host) : err;
    err = err == HP_OK ? hp_view_strs(&from->tags, arena, &ret->tags, &ret->tag_count) : err;
    return err == HP_OK
               ? hp_view_strs(&from->functions, arena, &ret->functions, &ret->function_count)
               : err;
}

static enum hp_err fill_worker_list(const struct hp_msg_worker_list_reply *message,
                                    struct hp_arena *arena, struct hp_worker_list *ret)
{
    enum hp_err err = HP_OK;

    ret->count = message->workers.count;
    ret->workers = HP_ARENA_NEW_ARRAY(arena, struct hp_worker, ret->count);
    if (ret->workers == NULL) {
        return HP_ERR_NOMEM;
    }
    for (size_t i = 0; err == HP_OK && i < ret->count; i++) {
        err = fill_worker(&message->workers.items[i], arena, &ret->workers[i]);
    }
    return err;
}

DECODE_OWNED(worker_list, hp_msg_worker_list_reply)

enum hp_status hp_worker_get(struct hp_client *client, const char *node, int64_t timeout_ms,
                             struct hp_worker_list **ret_list)
{
    struct hp_msg_worker_list list;
    struct hp_worker_list *got = NULL;
    struct hp_buf params;
    enum hp_status status;

    hp_msg_worker_list_init(&list);
    if (node != NULL) {
        list.node = hp_str_of(node);
        list.has |= HP_HAS_WORKER_LIST_NODE;
    }
    hp_buf_init(&params, PARAMS_BYTES);
    status = hp_client_call(client, HP_METHOD_WORKER_LIST,
                            hp_msg_worker_list_encode(&params, &list), &params,
                            hp_client_deadline_ms(client, timeout_ms), decode_worker_list, &got);
    if (status == HP_STATUS_OK && node != NULL && got->count == 0) {
        hp_worker_list_free(got);
        return hp_client_fail(client, HP_STATUS_NOT_FOUND, "there is no worker %s", node);
    }
    if (status == HP_STATUS_OK) {
        *ret_list = got;
    }
    return status;
}

enum hp_status hp_worker_drain(struct hp_client *client, const char *node, bool on,
                               const char *reason, int64_t timeout_ms, bool *ret_changed)
{
    struct hp_msg_worker_drain drain;
    struct hp_buf params;

    hp_msg_worker_drain_init(&drain);
    drain.node = hp_str_of(node);
    drain.on = on;
    if (reason != NULL) {
        drain.reason = hp_str_of(reason);
        drain.has |= HP_HAS_WORKER_DRAIN_REASON;
    }
    hp_buf_init(&params, PARAMS_BYTES);
    return hp_client_call(client, HP_METHOD_WORKER_DRAIN,
                          hp_msg_worker_drain_encode(&params, &drain), &params,
                          hp_client_deadline_ms(client, timeout_ms), decode_changed, ret_changed);
}

/* ---------------------------------------------------------------- the broker */

static enum hp_status decode_ping(void *context, const struct hp_reply *reply)
{
    HP_CLEANUP(hp_arena_deinit) struct hp_arena arena;
    struct hp_msg_broker_ping_reply message;
    enum hp_err err;

    hp_arena_init(&arena, 1024, SIZE_MAX / 8);
    err = hp_msg_broker_ping_reply_decode(reply->result, &arena, &message, NULL);
    if (err == HP_OK && context != NULL) {
        *(int64_t *)context = message.now_ms;
    }
    return status_of(err);
}

/* Params of the calls that have none. */
static enum hp_err put_nothing(struct hp_buf *params)
{
    hp_buf_init(params, PARAMS_BYTES);
    return hp_wire_put_map(params, 0);
}

enum hp_status hp_broker_ping(struct hp_client *client, int64_t timeout_ms, int64_t *ret_now_ms)
{
    struct hp_buf params;
    enum hp_err err = put_nothing(&params);

    return hp_client_call(client, HP_METHOD_BROKER_PING, err, &params,
                          hp_client_deadline_ms(client, timeout_ms), decode_ping, ret_now_ms);
}

static enum hp_err fill_broker_info(const struct hp_msg_broker_status_reply *message,
                                    struct hp_arena *arena, struct hp_broker_info *ret)
{
    enum hp_err err = hp_view_str(message->server, arena, &ret->server);

    ret->epoch = message->epoch;
    ret->uptime_ms = message->uptime_ms;
    ret->draining = message->draining;
    ret->figure_count = message->counters.count;
    ret->figures = HP_ARENA_NEW_ARRAY(arena, struct hp_figure, ret->figure_count);
    if (ret->figures == NULL) {
        return HP_ERR_NOMEM;
    }
    for (size_t i = 0; err == HP_OK && i < ret->figure_count; i++) {
        ret->figures[i].value = message->counters.items[i].value;
        err = hp_view_str(message->counters.items[i].name, arena, &ret->figures[i].name);
    }
    return err == HP_OK
               ? hp_view_strs(&message->warnings, arena, &ret->warnings, &ret->warning_count)
               : err;
}

DECODE_OWNED(broker_info, hp_msg_broker_status_reply)

enum hp_status hp_broker_status(struct hp_client *client, int64_t timeout_ms,
                                struct hp_broker_info **ret_info)
{
    struct hp_buf params;
    enum hp_err err = put_nothing(&params);

    return hp_client_call(client, HP_METHOD_BROKER_STATUS, err, &params,
                          hp_client_deadline_ms(client, timeout_ms), decode_broker_info, ret_info);
}

static enum hp_status decode_backup(void *context, const struct hp_reply *reply)
{
    HP_CLEANUP(hp_arena_deinit) struct hp_arena arena;
    struct hp_msg_broker_backup_reply *message = context;

    hp_arena_init(&arena, 1024, SIZE_MAX / 8);
    return status_of(hp_msg_broker_backup_reply_decode(reply->result, &arena, message, NULL));
}

enum hp_status hp_broker_backup(struct hp_client *client, const char *path, int64_t timeout_ms,
                                uint64_t *ret_tasks, uint64_t *ret_size_bytes)
{
    struct hp_msg_broker_backup backup;
    struct hp_msg_broker_backup_reply reply;
    struct hp_buf params;
    enum hp_status status;

    hp_msg_broker_backup_init(&backup);
    backup.path = hp_str_of(path);
    hp_buf_init(&params, PARAMS_BYTES);
    status = hp_client_call(client, HP_METHOD_BROKER_BACKUP,
                            hp_msg_broker_backup_encode(&params, &backup), &params,
                            hp_client_deadline_ms(client, timeout_ms), decode_backup, &reply);
    if (status == HP_STATUS_OK && ret_tasks != NULL) {
        *ret_tasks = reply.tasks;
    }
    if (status == HP_STATUS_OK && ret_size_bytes != NULL) {
        *ret_size_bytes = reply.size;
    }
    return status;
}

static enum hp_status decode_check(void *context, const struct hp_reply *reply)
{
    struct owned_lines *owned = new_lines();
    struct hp_msg_broker_check_reply message;
    enum hp_err err;

    if (owned == NULL) {
        return HP_STATUS_NO_MEMORY;
    }
    err = hp_msg_broker_check_reply_decode(reply->result, &owned->arena, &message, NULL);
    err = err == HP_OK ? hp_view_strs(&message.lines, &owned->arena, &owned->answer.lines,
                                      &owned->answer.count)
                       : err;
    if (err != HP_OK) {
        hp_lines_free(&owned->answer);
        return status_of(err);
    }
    owned->answer.ok = message.ok;
    *(struct hp_lines **)context = &owned->answer;
    return HP_STATUS_OK;
}

enum hp_status hp_broker_check(struct hp_client *client, int64_t timeout_ms,
                               struct hp_lines **ret_lines)
{
    struct hp_buf params;
    enum hp_err err = put_nothing(&params);

    return hp_client_call(client, HP_METHOD_BROKER_CHECK, err, &params,
                          hp_client_deadline_ms(client, timeout_ms), decode_check, ret_lines);
}
