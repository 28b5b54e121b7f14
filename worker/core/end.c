/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ends of attempts: what the executor saw becomes a reason and an encoded task_end, and the run
 * starts on its way back to the broker.
 */
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "worker/core/state.h"

#include <string.h>
#include <xxhash.h>

#define ERROR_TEXT_BYTES 4096u

/* Text of an end record, cleaned into memory of the caller. */
static void set_error(struct hp_st_task_end *end, struct hp_str text, char *room)
{
    if (text.size == 0) {
        return;
    }
    uint32_t size = hp_wire_str_clean(text, room, ERROR_TEXT_BYTES);
    end->error = (struct hp_str){.data = room, .size = size};
    end->has |= HP_HAS_ST_TASK_END_ERROR;
}

/* True: `bytes` became a part of the run, to travel as a blob. They are copied, unless the file of
 * the event holds them. */
static bool take_part(struct hp_agent_run *run, enum hp_agent_part_kind kind, struct hp_bin bytes,
                      struct hp_agent_file **file)
{
    if (bytes.size <= HP_LIMIT_INLINE_BYTES) {
        return false;
    }
    if (run->parts == NULL) {
        run->parts = hp_calloc(1, sizeof(*run->parts));
        HP_ASSERT(run->parts != NULL);
    }
    HP_ASSERT(run->parts->count < HP_AGENT_PARTS_MAX);
    struct hp_agent_part *part = &run->parts->item[run->parts->count++];
    *part = (struct hp_agent_part){.size = bytes.size, .kind = kind};
    if (file != NULL && *file != NULL) {
        part->data = bytes.data;
        part->file = *file;
        *file = NULL; /* taken over */
        return true;
    }
    part->data = hp_memdup(bytes.data, bytes.size);
    HP_ASSERT(part->data != NULL); /* a result that can not be kept: restarting repeats it */
    return true;
}

static uint64_t digest_of(struct hp_bin bytes)
{
    return XXH3_64bits(bytes.size == 0 ? "" : (const void *)bytes.data, bytes.size);
}

/* ------------------------------------------------------------------------------- the way back */

void hp_agent_run_advance(struct hp_agent *agent, struct hp_agent_run *run)
{
    bool to_store = false;
    if (run->parts != NULL) {
        for (uint32_t i = 0; i < run->parts->count; i++) {
            to_store = to_store || !run->parts->item[i].stored;
        }
    }
    if (to_store) {
        hp_agent_run_move(agent, run, HP_AGENT_UPLOADING, &agent->uploading, false);
    } else {
        hp_agent_run_move(agent, run, HP_AGENT_READY, &agent->ready, false);
    }
}

/* The end is encoded: spool it first where the rules say so. */
static void finish(struct hp_agent *agent, struct hp_agent_run *run, enum hp_reason reason,
                   const struct hp_st_task_end *end)
{
    enum hp_err err = hp_agent_run_set_end(agent, run, end);
    HP_ASSERT(err == HP_OK); /* every field was cut to its limit */
    run->reason = (uint8_t)reason;
    run->ended_ms = agent->now_ms;
    agent->totals.ended_total++;
    hp_heap_remove(&agent->timers, &run->timer);
    if (run->fetch != NULL) {
        hp_agent_fetch_free(agent, run);
    }
    bool long_run =
        run->started_ms != 0 && agent->now_ms - run->started_ms > HP_AGENT_SPOOL_AFTER_MS;
    bool first = long_run || run->parcel->at_most_once || agent->link != HP_AGENT_LINK_UP;
    if (first && run->parcel->durable && !agent->spool_failed) {
        hp_agent_run_move(agent, run, HP_AGENT_SPOOLING, &agent->spooling, false);
        hp_agent_spool_run(agent, run);
    } else {
        hp_agent_run_advance(agent, run);
    }
}

void hp_agent_end_unstarted(struct hp_agent *agent, struct hp_agent_run *run, enum hp_reason reason,
                            const char *text)
{
    struct hp_st_task_end end = {0};
    char room[ERROR_TEXT_BYTES];
    set_error(&end, hp_str_of(text), room);
    finish(agent, run, reason, &end);
}

/* --------------------------------------------------------------------------------------- commands
 */

/* The reason for which the agent itself ended the run, or NONE. */
static enum hp_reason own_reason(const struct hp_agent_run *run, bool fenced)
{
    switch ((enum hp_agent_why)run->why) {
    case HP_AGENT_WHY_CANCEL:
        return HP_REASON_CANCELLED;
    case HP_AGENT_WHY_TIMEOUT:
        return HP_REASON_TIMEOUT;
    case HP_AGENT_WHY_FENCE:
        return HP_REASON_NODE_LOST;
    case HP_AGENT_WHY_POOL:
        return HP_REASON_POOL_ENDED;
    case HP_AGENT_WHY_STOP: /* lost with a helper, which it may have killed: that counts */
        return fenced ? HP_REASON_NODE_LOST : HP_REASON_DRAINED;
    case HP_AGENT_WHY_NONE:
    default:
        return fenced ? HP_REASON_NODE_LOST : HP_REASON_NONE;
    }
}

static enum hp_reason command_reason(const struct hp_agent_run *run,
                                     const struct hp_agent_event *event)
{
    if (event->start_errno != 0) {
        return HP_REASON_NOT_STARTED;
    }
    if (event->signal == 0 && event->exit_code == 0) {
        return HP_REASON_NONE;
    }
    enum hp_reason own = own_reason(run, event->fenced);
    if (own != HP_REASON_NONE) {
        return own;
    }
    if (event->oom) {
        return HP_REASON_OOM;
    }
    return event->signal != 0 ? HP_REASON_SIGNAL : HP_REASON_EXIT;
}

static void set_usage(struct hp_st_task_end *end, const struct hp_agent_event *event)
{
    end->run_us = event->run_us;
    end->has |= HP_HAS_ST_TASK_END_RUN_US;
    if (event->utime_us != 0 || event->stime_us != 0 || event->maxrss_kb != 0) {
        end->utime_us = event->utime_us;
        end->stime_us = event->stime_us;
        end->maxrss_kb = event->maxrss_kb;
        end->has |= HP_HAS_ST_TASK_END_UTIME_US | HP_HAS_ST_TASK_END_STIME_US |
                    HP_HAS_ST_TASK_END_MAXRSS_KB;
    }
}

static void set_how(struct hp_st_task_end *end, const struct hp_agent_event *event)
{
    if (event->start_errno != 0) {
        end->start_errno = HP_MIN(event->start_errno, 4095u);
        end->has |= HP_HAS_ST_TASK_END_ERRNO;
    } else if (event->signal != 0) {
        end->signal = HP_MIN(event->signal, 64u);
        end->has |= HP_HAS_ST_TASK_END_SIGNAL;
    } else {
        end->exit_code = event->exit_code;
        end->has |= HP_HAS_ST_TASK_END_EXIT_CODE;
    }
}

static void set_output(struct hp_agent_run *run, struct hp_st_task_end *end,
                       const struct hp_agent_event *event)
{
    if (event->out.size > 0 && !take_part(run, HP_AGENT_PART_OUT, event->out, NULL)) {
        end->out = event->out;
        end->has |= HP_HAS_ST_TASK_END_OUT;
    }
    if (event->err.size > 0 && !take_part(run, HP_AGENT_PART_ERR, event->err, NULL)) {
        end->err = event->err;
        end->has |= HP_HAS_ST_TASK_END_ERR;
    }
    end->digest = digest_of(event->out);
    end->out_size = event->out_size;
    end->err_size = event->err_size;
    end->has |=
        HP_HAS_ST_TASK_END_DIGEST | HP_HAS_ST_TASK_END_OUT_SIZE | HP_HAS_ST_TASK_END_ERR_SIZE;
    if (event->out_truncated) {
        end->out_truncated = true;
        end->has |= HP_HAS_ST_TASK_END_OUT_TRUNCATED;
    }
    if (event->err_truncated) {
        end->err_truncated = true;
        end->has |= HP_HAS_ST_TASK_END_ERR_TRUNCATED;
    }
}

void hp_agent_end_command(struct hp_agent *agent, struct hp_agent_run *run,
                          const struct hp_agent_event *event)
{
    hp_agent_unplace(agent, run);
    hp_agent_run_move(agent, run, HP_AGENT_FREE, NULL, false);
    if (run->drop) {
        hp_agent_run_free(agent, run);
        return;
    }
    struct hp_st_task_end end = {0};
    char room[ERROR_TEXT_BYTES];
    set_how(&end, event);
    set_error(&end, event->error, room);
    if (event->start_errno == 0) {
        set_output(run, &end, event);
        set_usage(&end, event);
    }
    finish(agent, run, command_reason(run, event), &end);
}

/* ------------------------------------------------------------------------------------------ calls
 */

static enum hp_reason death_reason(const struct hp_agent_run *run,
                                   const struct hp_agent_event *event)
{
    enum hp_reason own = own_reason(run, event->fenced);
    if (own != HP_REASON_NONE) {
        return own;
    }
    if (event->oom) {
        return HP_REASON_OOM;
    }
    return event->signal != 0 ? HP_REASON_CHILD_SIGNAL : HP_REASON_CHILD_EXIT;
}

static enum hp_reason call_reason(struct hp_agent_run *run, const struct hp_agent_event *event)
{
    bool cancelled = run->why == HP_AGENT_WHY_CANCEL;
    switch (event->outcome) {
    case HP_AGENT_OUTCOME_OK:
        return HP_REASON_NONE;
    case HP_AGENT_OUTCOME_DIED:
        return death_reason(run, event);
    case HP_AGENT_OUTCOME_TOO_BIG:
        return HP_REASON_RESULT_TOO_BIG;
    case HP_AGENT_OUTCOME_NO_FUNCTION:
        return HP_REASON_NO_FUNCTION;
    case HP_AGENT_OUTCOME_PERMANENT:
        return cancelled ? HP_REASON_CANCELLED : HP_REASON_PERMANENT;
    case HP_AGENT_OUTCOME_RETRY:
        run->retry_ms = HP_MIN(HP_MAX(event->retry_ms, (uint64_t)1), (uint64_t)86400000);
        return cancelled ? HP_REASON_CANCELLED : HP_REASON_ERROR;
    case HP_AGENT_OUTCOME_ERROR:
    default:
        if (cancelled) {
            return HP_REASON_CANCELLED;
        }
        if (run->why == HP_AGENT_WHY_POOL) {
            return HP_REASON_POOL_ENDED;
        }
        return run->why == HP_AGENT_WHY_TIMEOUT ? HP_REASON_TIMEOUT : HP_REASON_ERROR;
    }
}

/* A large one has its digest when it has gone by chunks (name_blobs): what is given has none. */
static void set_result(struct hp_agent *agent, struct hp_agent_run *run, struct hp_st_task_end *end,
                       const struct hp_agent_event *event)
{
    if (!take_part(run, HP_AGENT_PART_RESULT, event->out, &agent->event_file)) {
        end->result = event->out;
        end->digest = digest_of(event->out);
        end->has |= HP_HAS_ST_TASK_END_RESULT | HP_HAS_ST_TASK_END_DIGEST;
    }
}

/* What the child printed meanwhile. */
static void set_log(struct hp_st_task_end *end, const struct hp_agent_event *event)
{
    if (event->log_out.size > 0) {
        end->out = event->log_out;
        end->out_size = event->log_out.size;
        end->has |= HP_HAS_ST_TASK_END_OUT | HP_HAS_ST_TASK_END_OUT_SIZE;
    }
    if (event->log_err.size > 0) {
        end->err = event->log_err;
        end->err_size = event->log_err.size;
        end->has |= HP_HAS_ST_TASK_END_ERR | HP_HAS_ST_TASK_END_ERR_SIZE;
    }
}

/* Of a child that died: its last stderr is both the text for people and what it printed. */
static void set_last_words(struct hp_st_task_end *end, const struct hp_agent_event *event)
{
    if (event->error.size > 0 && event->log_err.size == 0) {
        end->err = hp_str_as_bin(event->error);
        end->err_size = event->error.size;
        end->has |= HP_HAS_ST_TASK_END_ERR | HP_HAS_ST_TASK_END_ERR_SIZE;
    }
}

void hp_agent_end_call(struct hp_agent *agent, struct hp_agent_run *run,
                       const struct hp_agent_event *event)
{
    struct hp_agent_child *child = &agent->children[run->child];
    if (event->outcome == HP_AGENT_OUTCOME_DIED) {
        child->up = false; /* until a new one is reported */
    }
    hp_agent_unplace(agent, run);
    hp_agent_child_served(agent, child);
    hp_agent_run_move(agent, run, HP_AGENT_FREE, NULL, false);
    if (event->outcome != HP_AGENT_OUTCOME_DIED) {
        hp_agent_measure(agent, run->parcel, event->run_us);
    }
    if (run->drop) {
        hp_agent_run_free(agent, run);
        return;
    }
    struct hp_st_task_end end = {0};
    enum hp_reason reason = call_reason(run, event);
    set_log(&end, event);
    if (event->outcome == HP_AGENT_OUTCOME_OK) {
        set_result(agent, run, &end, event);
        set_usage(&end, event);
        finish(agent, run, reason, &end);
        return;
    }
    if (event->out.size > 0) {
        set_result(agent, run, &end, event);
    }
    char room[ERROR_TEXT_BYTES];
    if (event->outcome == HP_AGENT_OUTCOME_DIED) {
        set_how(&end, event);
        set_last_words(&end, event);
    }
    set_error(&end, event->error, room);
    set_usage(&end, event);
    finish(agent, run, reason, &end);
}
