/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Carries out the agent's effects, in their order, and passes its output to the connection.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/sys/clock.h"
#include "common/sys/crash.h"
#include "common/sys/file.h"
#include "common/sys/log.h"
#include "worker/daemon.h"

#define OUTPUT_QUEUE_BYTES (1024u * 1024u)

/* -------------------------------------------------------------------------------------- commands
 */

static void run_command(struct hp_worker *worker, const struct hp_agent_command *from)
{
    struct hp_exec_command command = {
        .key = from->key,
        .argv = from->argv,
        .argv_count = from->argv_count,
        .argv_more = from->argv_more,
        .env = from->env,
        .env_count = from->env_count,
        .cwd = from->cwd,
        .stdin_data = from->stdin_data,
        .stdin_fd = -1,
        .output_cap_bytes = from->output_cap_bytes,
        .follow = from->follow,
        .kill_on_partition = from->fence,
        .task_id = from->id,
        .attempt = from->attempt,
        .epoch = from->epoch,
        .array_index = from->array_index,
    };
    struct hp_error error = {0};
    enum hp_err err = hp_exec_command(worker->exec, &command, &error);
    if (err == HP_OK) {
        return;
    }
    if (err == HP_ERR_CLOSED) { /* the helper died since the agent decided: not the task's fault */
        hp_worker_feed_add(worker, HP_AGENT_EXEC_HANDED_BACK)->key = from->key;
        return;
    }
    struct hp_agent_event *event = hp_worker_feed_add(worker, HP_AGENT_EXEC_ENDED);
    event->key = from->key;
    event->start_errno = err == HP_ERR_INVALID ? EINVAL : EAGAIN;
    char *text = hp_arena_copy(&worker->feed_arena, error.text, strlen(error.text));
    event->error = hp_str_of(text);
}

/* ----------------------------------------------------------------------------------------- calls
 */

/* A descriptor that holds a large payload, or -1. */
static int payload_fd(struct hp_bin payload)
{
    int fd = memfd_create("payload", MFD_CLOEXEC);
    if (fd >= 0 && hp_fd_write_all(fd, payload.data, payload.size) != HP_OK) {
        hp_fd_close(&fd);
    }
    return fd;
}

static enum hp_err give_call(struct hp_worker *worker, uint32_t child,
                             const struct hp_agent_call *from)
{
    struct hp_exec_call call = {
        .key = from->key,
        .function = from->function_index < worker->function_count
                        ? worker->functions[from->function_index]
                        : HP_STR(""), /* of a language: its payload says all */
        .payload_fd = -1,
        .kill_on_partition = from->fence,
        .is_items = from->items,
        .task_id = from->id,
        .attempt = from->attempt,
        .epoch = from->epoch,
        .array_index = from->array_index,
    };
    if (from->payload_bytes <= HP_EXEC_INLINE_BYTES_MAX && from->payload_file == NULL) {
        call.payload = from->payload;
        return hp_exec_call(worker->exec, child, &call);
    }
    if (from->payload_file != NULL) {
        call.payload_fd = hp_worker_file_fd(from->payload_file);
        call.payload_bytes = from->payload_bytes;
        return hp_exec_call(worker->exec, child, &call);
    }
    HP_CLEANUP(hp_fd_close) int fd = payload_fd(from->payload);
    if (fd < 0) {
        return HP_ERR_IO;
    }
    call.payload_fd = fd;
    call.payload_bytes = from->payload.size;
    return hp_exec_call(worker->exec, child, &call);
}

static void give_calls(struct hp_worker *worker, const struct hp_agent_effect *effect)
{
    uint32_t given = 0;
    enum hp_err err = HP_OK;
    while (given < effect->call_count) {
        err = give_call(worker, effect->child, &effect->calls[given]);
        if (err != HP_OK) {
            break;
        }
        given++;
    }
    if (given == effect->call_count) {
        return;
    }
    /* Until child_ready says otherwise it takes no more. Last one first, so that order is kept. */
    hp_log(HP_LOG_DEBUG, "child_refused", HP_KV_U64("child", effect->child),
           HP_KV_ERR("error", err));
    hp_worker_feed_add(worker, HP_AGENT_EXEC_CHILD_DOWN)->child = effect->child;
    for (uint32_t i = effect->call_count; i > given; i--) {
        hp_worker_feed_add(worker, HP_AGENT_EXEC_HANDED_BACK)->key = effect->calls[i - 1].key;
    }
    if (err != HP_ERR_AGAIN && err != HP_ERR_CLOSED) {
        hp_exec_child_recycle(worker->exec, effect->child);
    }
}

/* Signals the child that runs the call `key`, and never while it runs another one. */
static void kill_call(struct hp_worker *worker, const struct hp_agent_effect *effect)
{
    enum hp_err err = hp_exec_recall_one(worker->exec, effect->child, effect->key);
    if (err == HP_OK) {
        hp_worker_feed_add(worker, HP_AGENT_EXEC_HANDED_BACK)->key = effect->key;
        return;
    }
    if (err != HP_ERR_BUSY) {
        return; /* it has ended: its event is on the way */
    }
    (void)hp_exec_recall(worker->exec, effect->child, UINT32_MAX); /* reported by `recalled` */
    /* NOT_FOUND: it has ended meanwhile, and its event is on the way. */
    (void)hp_exec_call_kill(worker->exec, effect->child, effect->key, effect->signal);
}

/* -------------------------------------------------------------------------------------- the rest
 */

static void log_line(const struct hp_agent_effect *effect)
{
    static const enum hp_log_level levels[] = {
        [HP_AGENT_LOG_ERROR] = HP_LOG_ERROR,
        [HP_AGENT_LOG_WARN] = HP_LOG_WARN,
        [HP_AGENT_LOG_INFO] = HP_LOG_INFO,
        [HP_AGENT_LOG_DEBUG] = HP_LOG_DEBUG,
    };
    hp_log(levels[effect->level], "agent", HP_KV_STR("text", effect->text));
}

static void do_connect(struct hp_worker *worker)
{
    struct hp_error error = {0};
    if (hp_worker_connect(worker, &error) != HP_OK) {
        hp_agent_disconnected(worker->agent, error.text, hp_clock_boot_ms());
    }
}

static void append(struct hp_worker *worker, const struct hp_agent_effect *effect)
{
    enum hp_err err = hp_spool_append(worker->spool, effect->spool_id, effect->record);
    if (err != HP_OK) {
        hp_log(HP_LOG_ERROR, "spool_append", HP_KV_ERR("error", err));
    }
}

static void carry_out(struct hp_worker *worker, const struct hp_agent_effect *effect)
{
    switch (effect->kind) {
    case HP_AGENT_CLOSE:
        hp_conn_free(worker->conn);
        worker->conn = NULL;
        break;
    case HP_AGENT_RUN:
        run_command(worker, effect->command);
        break;
    case HP_AGENT_CALL:
        give_calls(worker, effect);
        break;
    case HP_AGENT_KILL:
        if (effect->child == HP_AGENT_NO_CHILD) {
            (void)hp_exec_kill(worker->exec, effect->key, effect->signal); /* or it just ended */
        } else {
            kill_call(worker, effect);
        }
        break;
    case HP_AGENT_RECALL:
        (void)hp_exec_recall(worker->exec, effect->child, UINT32_MAX); /* reported by `recalled` */
        break;
    case HP_AGENT_FOLLOW:
        (void)hp_exec_follow(worker->exec, effect->key, effect->on); /* or it just ended */
        break;
    case HP_AGENT_SET_DEADLINE:
        hp_exec_set_deadline(worker->exec,
                             effect->deadline_ms == HP_AGENT_NEVER ? 0 : effect->deadline_ms);
        break;
    case HP_AGENT_NEAR_PROVE:
        hp_worker_near_prove(worker, effect);
        break;
    case HP_AGENT_NEAR_OPEN:
        hp_worker_near_open(worker, effect);
        break;
    case HP_AGENT_NEAR_SEAL:
        hp_worker_near_seal(worker, effect);
        break;
    case HP_AGENT_SPOOL_APPEND:
        append(worker, effect);
        break;
    case HP_AGENT_SPOOL_ACK:
        HP_CRASH_POINT("ack.seen");
        hp_spool_ack(worker->spool, effect->spool_id);
        break;
    case HP_AGENT_LOG:
        log_line(effect);
        break;
    case HP_AGENT_CHILD_START:
        hp_worker_child_start(worker, effect->child, effect->start);
        break;
    case HP_AGENT_CHILD_STOP:
        hp_worker_child_stop(worker, effect->child, effect->signal);
        break;
    case HP_AGENT_POOL_GONE:
        break; /* its children are gone, and nothing else is kept for it */
    case HP_AGENT_EXIT:
        worker->exiting = true;
        break;
    case HP_AGENT_CONNECT:
    default:
        break; /* by carry_out_all, as it may be an input of the agent */
    }
}

/* One pass over the effects that are there. False: there were none. */
static bool carry_out_all(struct hp_worker *worker)
{
    size_t count = hp_agent_effect_count(worker->agent);
    bool connect = false;
    uint64_t spooled = 0;
    for (size_t i = 0; i < count; i++) {
        const struct hp_agent_effect *effect = hp_agent_effect(worker->agent, i);
        connect = connect || effect->kind == HP_AGENT_CONNECT;
        spooled = effect->kind == HP_AGENT_SPOOL_APPEND ? effect->spool_id : spooled;
        carry_out(worker, effect);
    }
    hp_agent_effects_clear(worker->agent);
    if (spooled != 0) {
        struct hp_error error = {0};
        bool ok = hp_spool_sync(worker->spool, &error) == HP_OK;
        HP_CRASH_POINT("spool.sync.after");
        if (!ok) {
            hp_log(HP_LOG_ERROR, "spool_failed", HP_KV_STR("text", error.text));
        }
        hp_agent_spooled(worker->agent, spooled, ok, hp_clock_boot_ms());
    }
    if (connect) {
        do_connect(worker);
    }
    return count > 0;
}

static void send_output(struct hp_worker *worker)
{
    struct hp_bin bytes = hp_agent_output(worker->agent);
    if (worker->conn == NULL || bytes.size == 0 ||
        hp_conn_output_size(worker->conn) >= OUTPUT_QUEUE_BYTES) {
        return;
    }
    HP_CRASH_POINT("output.before");
    hp_conn_send(worker->conn, bytes.data, bytes.size);
    HP_CRASH_POINT("output.after");
    hp_agent_output_consume(worker->agent, bytes.size);
}

void hp_worker_settle(struct hp_worker *worker)
{
    while (hp_worker_feed_flush(worker) || carry_out_all(worker)) {
        /* each may give rise to the other */
    }
    hp_exec_flush(worker->exec);
    hp_spool_flush(worker->spool);
    send_output(worker);
}
