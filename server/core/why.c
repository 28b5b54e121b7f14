/* SPDX-License-Identifier: BSD-2-Clause */
/* task.why: in words, what a task waits for. */
#include <stdarg.h>
#include <stdio.h>

#include "server/core/offer.h"
#include "server/core/state.h"

enum { WHY_LINES_MAX = 64 };

struct why {
    struct hp_core *core;
    struct hp_str lines[WHY_LINES_MAX];
    uint32_t count;
};

static void say(struct why *why, const char *format, ...) HP_PRINTF(2, 3);
static void say(struct why *why, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    char clean[1024];
    uint32_t size = hp_wire_str_clean(hp_str_of(text), clean, sizeof(clean));
    if (why->count < WHY_LINES_MAX) {
        hp_must(hp_arena_copy_str(&why->core->arena, hp_str_make(clean, size),
                                  &why->lines[why->count++]));
    }
}

/* What a worker has of the call's pool. */
static const char *pool_reason(const struct hp_core *core, const struct hp_class *class_,
                               const struct hp_node *node, char *text, size_t size)
{
    const struct hp_pool *pool = hp_pool_find(core, class_->pool);
    const struct hp_pool_node *entry = pool != NULL ? hp_pool_node_find(pool, node) : NULL;
    if (pool == NULL || !pool->loaded) {
        return "waits until the pool has been read from the database";
    }
    if (entry != NULL && entry->quarantined) {
        (void)snprintf(text, size, "could not set up a child: %.200s", entry->error);
    } else if (entry == NULL || entry->granted == 0) {
        (void)snprintf(text, size, "%s",
                       hp_pool_suits(pool, node)
                           ? "has no child of the pool: others have all of them"
                           : "cannot have children of the pool");
    } else {
        (void)snprintf(text, size, "has %u of %u children set up, %u calls", entry->pid_count,
                       entry->granted, entry->held);
    }
    return text;
}

static const char *node_reason(const struct hp_core *core, const struct hp_class *class_,
                               struct hp_node *node, char *text, size_t size)
{
    if (!hp_node_is_up(node) || !node->registered) {
        return "is not connected";
    }
    if (class_->kind == HP_TASK_KIND_CALL) {
        return pool_reason(core, class_, node, text, size);
    }
    if (class_->kind == HP_TASK_KIND_FUNCTION && !hp_node_has_function(node, class_->fn)) {
        (void)snprintf(text, size, "has no function %.*s", HP_STR_ARG(class_->fn));
        return text;
    }
    if (class_->kind == HP_TASK_KIND_COMMAND && !node->commands) {
        return "runs no commands";
    }
    if (class_->cpus > node->slots) {
        (void)snprintf(text, size, "has %u slots, it needs %u", node->slots, class_->cpus);
        return text;
    }
    if (class_->mem_bytes > node->mem_bytes) {
        (void)snprintf(text, size, "offers less memory than it needs");
        return text;
    }
    if (!hp_class_fits(core, class_, node)) {
        return "lacks a tag it needs";
    }
    if (node->draining) {
        (void)snprintf(text, size, "is drained%s%s", node->reason[0] != '\0' ? ": " : "",
                       node->reason);
        return text;
    }
    uint32_t used = node->used_cpus + node->light_count;
    (void)snprintf(text, size, "fits, %u of %u slots are in use",
                   used < node->slots ? used : node->slots, node->slots);
    return text;
}

static void say_ready(struct why *why, const struct hp_lane *lane)
{
    const struct hp_class *class_ = lane->class_;
    if (lane->queue->paused) {
        say(why, "Queue %.*s is paused. See: hostpool queue resume %.*s",
            HP_STR_ARG(lane->queue->name), HP_STR_ARG(lane->queue->name));
    }
    if (lane->ckey != NULL && lane->ckey->running >= lane->ckey->max) {
        say(why, "Concurrency key %.*s: %u of %u run now.", HP_STR_ARG(lane->ckey->name),
            lane->ckey->running, lane->ckey->max);
    }
    say(why, "%llu tasks with the same needs wait in queue %.*s at priority %u.",
        (unsigned long long)(lane->ready_count + lane->parked_count), HP_STR_ARG(lane->queue->name),
        lane->priority);
    uint32_t fits = 0;
    uint32_t nodes = 0;
    HP_LIST_FOR_EACH (link, &why->core->node_list) {
        struct hp_node *node = HP_CONTAINER_OF(link, struct hp_node, link);
        char text[320];
        const char *reason = node_reason(why->core, class_, node, text, sizeof(text));
        fits += hp_node_is_up(node) && node->registered && hp_class_fits(why->core, class_, node);
        nodes++;
        say(why, "  %.*s %s", HP_STR_ARG(node->name), reason);
    }
    if (nodes == 0) {
        say(why, "No worker has ever connected. Start one: hostpool-worker --broker HOST:PORT");
    } else if (fits == 0 && class_->kind == HP_TASK_KIND_CALL) {
        say(why, "No connected worker has children of pool %llu.",
            (unsigned long long)class_->pool);
    } else if (fits == 0) {
        say(why, "No connected worker can ever run it (%s%.*s).",
            class_->kind == HP_TASK_KIND_FUNCTION ? "function " : "command",
            HP_STR_ARG(class_->fn));
    }
}

static void say_pool(struct why *why, const struct hp_pool *pool)
{
    say(why, "It is a pool, %s; %u of %u children are set up; %llu calls have not ended.",
        hp_pool_state_name((enum hp_pool_state)pool->state), pool->up, hp_pool_processes(pool),
        (unsigned long long)hp_pool_live(pool));
    if (pool->error[0] != '\0') {
        say(why, "%.900s", pool->error);
    }
    HP_LIST_FOR_EACH (link, &pool->nodes) {
        const struct hp_pool_node *entry = HP_CONTAINER_OF(link, struct hp_pool_node, link);
        say(why, "  %.*s: %u of %u children, %u calls%s%.200s", HP_STR_ARG(entry->node->name),
            entry->pid_count, entry->granted, entry->held, entry->error[0] != '\0' ? "; " : "",
            entry->error);
    }
    if (pool->orphan_at_ms != UINT64_MAX) {
        say(why, "Its client is gone: it ends in %llu s.",
            (unsigned long long)((pool->orphan_at_ms -
                                  HP_MIN(pool->orphan_at_ms, why->core->now_ms)) /
                                 1000));
    }
}

static void say_state(struct why *why, const struct hp_loaded *loaded,
                      const struct hp_loaded_task *task, enum hp_task_state now)
{
    struct hp_core *core = why->core;
    say(why, "%llu is %s.", (unsigned long long)task->id, hp_task_state_name(now));
    const struct hp_attempt *attempt = hp_attempt_find(core, task->id);
    const struct hp_pool *pool = hp_pool_find(core, task->id);
    if (pool != NULL) {
        say_pool(why, pool);
    } else if (attempt != NULL) {
        say(why, "Attempt %u on %.*s since %lld s (%u failures, %u losses).", attempt->attempt,
            HP_STR_ARG(attempt->node->name),
            (long long)((core->wall_ms - attempt->started_at_ms) / 1000), attempt->failures,
            attempt->losses);
    } else if (task->ended) {
        say(why, "Reason: %s; attempt %u, %u failures, %u losses.",
            hp_reason_name((enum hp_reason)task->result.reason), task->result.attempt,
            task->result.failures, task->result.losses);
    } else if (now == HP_TASK_STATE_FAILED) {
        say(why, "Its rows in the database are damaged. See: hostpool broker check");
    } else if (now == HP_TASK_STATE_DELAYED) {
        say(why,
            "It waits %lld s more (attempt %u so far, %u failures, %u losses, last reason %s).",
            (long long)((task->side.run_at_ms - core->wall_ms + 999) / 1000), task->side.attempt,
            task->side.failures, task->side.losses,
            hp_reason_name((enum hp_reason)task->side.reason));
    } else if (now == HP_TASK_STATE_READY && task->exists) {
        struct hp_error error;
        struct hp_spec *spec = hp_spec_get(core, loaded->groups[task->group].options, &error);
        if (spec != NULL) {
            say_ready(why, spec->lane);
            hp_spec_unref(core, spec);
        }
    }
}

static void why_load(struct hp_core *core, struct hp_conn *conn, uint32_t msgid, uint64_t id)
{
    struct hp_pending *pending = hp_pending_new(core, HP_PENDING_WHY, conn, msgid);
    pending->id = id;
    struct hp_load *load = hp_out_load(core, HP_LOAD_TASKS, pending);
    load->spans = hp_must_alloc(sizeof(*load->spans));
    load->spans[0] = (struct hp_id_span){id, 1};
    load->span_count = 1;
    load->bytes_max = 65536;
}

void hp_on_task_why(struct hp_request *request)
{
    struct hp_msg_task_why msg;
    struct hp_error error;
    if (hp_msg_task_why_decode(request->rpc->params, &request->core->arena, &msg, &error) !=
        HP_OK) {
        hp_request_bad(request, &error);
        return;
    }
    why_load(request->core, request->conn, request->rpc->msgid, msg.id);
}

void hp_query_why_loaded(struct hp_core *core, struct hp_pending *pending,
                         const struct hp_loaded *loaded)
{
    struct hp_conn *conn = hp_conn_find(core, pending->conn);
    if (conn == NULL || loaded->task_count != 1) {
        return;
    }
    enum hp_task_state now = hp_task_now(core, &loaded->tasks[0]);
    if (now == 0) {
        why_load(core, conn, pending->msgid, pending->id);
        return;
    }
    if (now == HP_TASK_STATE_UNKNOWN) {
        hp_out_error(core, conn, pending->msgid, true, HP_RPC_ERROR_NOT_FOUND, "no task %llu",
                     (unsigned long long)pending->id);
        return;
    }
    struct why why = {.core = core};
    say_state(&why, loaded, &loaded->tasks[0], now);
    struct hp_msg_task_why_reply reply = {.state = now,
                                          .lines = {.items = why.lines, .count = why.count}};
    struct hp_buf *out = hp_out_reply(core, conn, !loaded->in_memory);
    hp_must(hp_rpc_put_reply(out, pending->msgid));
    hp_must(hp_msg_task_why_reply_encode(out, &reply));
}
