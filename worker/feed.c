/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the executor reports, gathered as events for the agent. Its views end with each callback, so
 * their bytes are copied here until the batch is given to the agent; large results are passed on
 * in their descriptors.
 */
#include <signal.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"
#include "common/sys/crash.h"
#include "common/sys/log.h"
#include "worker/daemon.h"

struct hp_agent_event *hp_worker_feed_add(struct hp_worker *worker, enum hp_agent_event_kind kind)
{
    if (worker->feed_count == worker->feed_capacity) {
        size_t capacity = worker->feed_capacity == 0 ? 256 : worker->feed_capacity * 2;
        struct hp_agent_event *feed = hp_realloc_array(worker->feed, capacity, sizeof(*feed));
        HP_ASSERT(feed != NULL); /* an event lost would be a task lost */
        worker->feed = feed;
        worker->feed_capacity = capacity;
    }
    struct hp_agent_event *event = &worker->feed[worker->feed_count++];
    *event = (struct hp_agent_event){.kind = kind};
    return event;
}

bool hp_worker_feed_flush(struct hp_worker *worker)
{
    if (worker->feed_count == 0) {
        return false;
    }
    size_t count = worker->feed_count;
    worker->feed_count = 0;
    hp_agent_exec(worker->agent, worker->feed, count, hp_clock_boot_ms());
    hp_arena_reset(&worker->feed_arena);
    return true;
}

void hp_worker_feed_deinit(struct hp_worker *worker)
{
    for (size_t i = 0; i < worker->feed_count; i++) {
        struct hp_agent_file *file = worker->feed[i].file;
        if (file != NULL) {
            file->free(file);
        }
    }
    hp_free(worker->feed);
    hp_arena_deinit(&worker->feed_arena);
}

static struct hp_bin keep(struct hp_worker *worker, struct hp_bin bytes)
{
    struct hp_bin copy = {0};
    enum hp_err err = hp_arena_copy_bin(&worker->feed_arena, bytes, &copy);
    HP_ASSERT(err == HP_OK);
    return copy;
}

static struct hp_bin keep_output(struct hp_worker *worker, const struct hp_exec_output *output)
{
    size_t size = (size_t)output->part[0].size + output->part[1].size;
    uint8_t *copy = hp_arena_alloc(&worker->feed_arena, size);
    HP_ASSERT(copy != NULL);
    for (size_t i = 0, at = 0; i < 2; at += output->part[i].size, i++) {
        if (output->part[i].size > 0) {
            memcpy(copy + at, output->part[i].data, output->part[i].size);
        }
    }
    return hp_bin_make(copy, size);
}

static void set_usage(struct hp_agent_event *event, const struct hp_exec_usage *usage)
{
    event->run_us = usage->run_us;
    event->utime_us = usage->utime_us;
    event->stime_us = usage->stime_us;
    event->maxrss_kb = usage->maxrss_kb;
}

/* -------------------------------------------------------------------------------------- commands
 */

static void on_started(void *context, uint64_t key, pid_t pid, uint64_t ran_us)
{
    struct hp_agent_event *event = hp_worker_feed_add(context, HP_AGENT_EXEC_STARTED);
    event->key = key;
    event->pid = (uint32_t)pid;
    event->ran_us = ran_us;
    HP_CRASH_POINT("started.seen");
}

static void on_output(void *context, uint64_t key, enum hp_exec_stream stream, uint64_t offset,
                      struct hp_bin data)
{
    struct hp_agent_event *event = hp_worker_feed_add(context, HP_AGENT_EXEC_OUTPUT);
    event->key = key;
    event->stream = (uint32_t)stream;
    event->offset = offset;
    event->out = keep(context, data);
}

static void on_ended(void *context, uint64_t key, const struct hp_exec_end *end)
{
    struct hp_worker *worker = context;
    HP_CRASH_POINT("exit.seen");
    struct hp_agent_event *event = hp_worker_feed_add(worker, HP_AGENT_EXEC_ENDED);
    event->key = key;
    event->oom = end->oom;
    event->fenced = end->fenced;
    if (end->cause == HP_EXEC_NOT_STARTED) {
        event->start_errno = end->error_number > 0 ? (uint32_t)end->error_number : 1;
        event->error = hp_bin_as_str(keep(worker, hp_str_as_bin(hp_str_of(end->text))));
    } else if (end->cause == HP_EXEC_SIGNALED) {
        event->signal = (uint32_t)end->signal;
    } else if (end->cause == HP_EXEC_LOST) {
        event->signal = SIGKILL;
        event->fenced = true;
    } else {
        event->exit_code = end->exit_code;
    }
    event->out = keep_output(worker, &end->out);
    event->err = keep_output(worker, &end->err);
    event->out_size = end->out.total_bytes;
    event->err_size = end->err.total_bytes;
    event->out_truncated = end->out.truncated;
    event->err_truncated = end->err.truncated;
    set_usage(event, &end->usage);
}

/* ------------------------------------------------------------------------------------- functions
 */

/* The result, or what goes along with an error. */
static void set_result(struct hp_worker *worker, struct hp_agent_event *event,
                       struct hp_exec_call_end *end)
{
    if (end->result_fd < 0) {
        event->out = keep(worker, end->result);
        return;
    }
    struct hp_worker_file *file =
        hp_worker_file_of_result(worker, end->result_fd, end->result_bytes);
    end->result_fd = -1; /* taken over */
    if (file == NULL) {
        event->outcome = HP_AGENT_OUTCOME_ERROR;
        event->error = hp_str_of("the worker had no memory for the result");
        return;
    }
    event->file = &file->base;
    event->out = hp_bin_make(file->data, file->size);
}

static enum hp_agent_outcome outcome_of(enum hp_exec_call_status status)
{
    switch (status) {
    case HP_EXEC_CALL_OK:
        return HP_AGENT_OUTCOME_OK;
    case HP_EXEC_CALL_PERMANENT:
        return HP_AGENT_OUTCOME_PERMANENT;
    case HP_EXEC_CALL_RETRY:
        return HP_AGENT_OUTCOME_RETRY;
    case HP_EXEC_CALL_NO_FUNCTION:
        return HP_AGENT_OUTCOME_NO_FUNCTION;
    case HP_EXEC_CALL_TOO_BIG:
        return HP_AGENT_OUTCOME_TOO_BIG;
    case HP_EXEC_CALL_SIGNALED:
    case HP_EXEC_CALL_EXITED:
        return HP_AGENT_OUTCOME_DIED;
    case HP_EXEC_CALL_ERROR:
    case HP_EXEC_CALL_STATUS_COUNT:
    default:
        return HP_AGENT_OUTCOME_ERROR;
    }
}

static void on_call_done(void *context, uint32_t child, uint64_t key, struct hp_exec_call_end *end)
{
    struct hp_worker *worker = context;
    (void)child; /* the agent knows where it was */
    HP_CRASH_POINT("call.seen");
    struct hp_agent_event *event = hp_worker_feed_add(worker, HP_AGENT_EXEC_RESULT);
    event->key = key;
    set_usage(event, &end->usage);
    event->outcome = outcome_of(end->status);
    event->log_out = keep(worker, end->out);
    event->log_err = keep(worker, end->err);
    if (end->status == HP_EXEC_CALL_OK) {
        set_result(worker, event, end);
        return;
    }
    if (end->result_bytes > 0) {
        set_result(worker, event, end);
    }
    event->error = hp_bin_as_str(keep(worker, hp_str_as_bin(end->text)));
    event->retry_ms = end->retry_ms;
    event->oom = end->oom;
    event->fenced = end->fenced;
    if (end->status == HP_EXEC_CALL_SIGNALED) {
        event->signal = (uint32_t)end->signal;
    } else if (end->status == HP_EXEC_CALL_EXITED) {
        event->exit_code = end->exit_code;
    }
}

static void on_recalled(void *context, uint32_t child, uint64_t key)
{
    (void)child; /* as above */
    hp_worker_feed_add(context, HP_AGENT_EXEC_HANDED_BACK)->key = key;
}

static void on_child_ready(void *context, uint32_t child, pid_t pid)
{
    hp_log(HP_LOG_DEBUG, "child_ready", HP_KV_U64("child", child), HP_KV_I64("pid", pid));
    struct hp_agent_event *event = hp_worker_feed_add(context, HP_AGENT_EXEC_CHILD_UP);
    event->child = child;
    event->pid = (uint32_t)pid;
}

static void on_child_ended(void *context, uint32_t child, const struct hp_exec_child_end *end)
{
    struct hp_worker *worker = context;
    bool is_expected = end->recycled || end->killed;
    hp_log(is_expected ? HP_LOG_DEBUG : HP_LOG_WARN, "child_ended", HP_KV_U64("child", child),
           HP_KV_I64("pid", end->pid), HP_KV_I64("exit_code", end->exit_code),
           HP_KV_I64("signal", end->signal), HP_KV_BOOL("oom", end->oom),
           HP_KV_BOOL("killed", end->killed), HP_KV_U64("calls", end->call_count),
           HP_KV_U64("restart_ms", end->restart_ms));
    struct hp_agent_event *event = hp_worker_feed_add(worker, HP_AGENT_EXEC_CHILD_DOWN);
    event->child = child;
    if (child >= hp_exec_pool_child_first(worker->exec)) {
        event->gone = true;
        event->recycled = end->recycled || end->killed;
        event->init_failed = end->init_failed;
        event->error = hp_bin_as_str(keep(worker, hp_str_as_bin(end->error)));
        hp_worker_child_gone(worker, child);
    }
}

static void on_child_waits(void *context, uint32_t child, bool waits)
{
    struct hp_agent_event *event = hp_worker_feed_add(context, HP_AGENT_EXEC_CHILD_WAITS);
    event->child = child;
    event->on = waits;
}

static void on_child_output(void *context, uint32_t child, enum hp_exec_stream stream,
                            struct hp_bin data)
{
    const struct hp_worker *worker = context;
    if (child >= hp_exec_pool_child_first(worker->exec)) {
        return; /* it goes with the end of the call */
    }
    hp_log(HP_LOG_INFO, "child_output", HP_KV_U64("child", child),
           HP_KV_STR("stream", stream == HP_EXEC_STDERR ? "stderr" : "stdout"),
           HP_KV_STRN("text", hp_bin_as_str(data)));
}

/* ----------------------------------------------------------------------------------- the executor
 */

static void on_ready(void *context, const struct hp_exec_functions *functions)
{
    struct hp_worker *worker = context;
    worker->functions_known = true;
    if (functions->error != NULL) {
        (void)hp_error_set(&worker->functions_error, HP_ERR_INVALID, "%s", functions->error);
        return;
    }
    worker->functions =
        HP_ARENA_NEW_ARRAY(&worker->arena, struct hp_str, (size_t)functions->count + 1);
    HP_ASSERT(worker->functions != NULL);
    for (uint32_t i = 0; i < functions->count; i++) {
        enum hp_err err = hp_arena_copy_str(&worker->arena, hp_str_of(functions->names[i]),
                                            &worker->functions[i]);
        HP_ASSERT(err == HP_OK);
    }
    worker->function_count = functions->count;
}

static void on_helper_died(void *context, const char *text)
{
    struct hp_worker *worker = context;
    worker->helper_died = true;
    hp_log(HP_LOG_ERROR, "helper_died", HP_KV_STR("text", text));
}

const struct hp_exec_callbacks hp_worker_exec_callbacks = {
    .ready = on_ready,
    .started = on_started,
    .output = on_output,
    .ended = on_ended,
    .call_done = on_call_done,
    .recalled = on_recalled,
    .child_ready = on_child_ready,
    .child_ended = on_child_ended,
    .child_output = on_child_output,
    .child_waits = on_child_waits,
    .zygote_ready = hp_worker_zygote_ready,
    .zygote_failed = hp_worker_zygote_failed,
    .helper_died = on_helper_died,
};
