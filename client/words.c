/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Statuses and the words for the values of the protocol. The words come from the generated tables;
 * the assertions keep the public numbers equal to those of the wire.
 */
#include <string.h>

#include "client/engine_state.h"
#include "common/base/assert.h"

HP_STATIC_ASSERT((int)HP_KIND_FUNCTION == (int)HP_TASK_KIND_FUNCTION, "kind");
HP_STATIC_ASSERT((int)HP_KIND_POOL == (int)HP_TASK_KIND_POOL, "kind");
HP_STATIC_ASSERT((int)HP_STATE_BLOCKED == (int)HP_TASK_STATE_BLOCKED, "state");
HP_STATIC_ASSERT((int)HP_STATE_DONE == (int)HP_TASK_STATE_DONE, "state");
HP_STATIC_ASSERT((int)HP_STATE_UNKNOWN == (int)HP_TASK_STATE_UNKNOWN, "state");
HP_STATIC_ASSERT((int)HP_END_ERROR == (int)HP_REASON_ERROR, "reason");
HP_STATIC_ASSERT((int)HP_END_DAMAGED == (int)HP_REASON_DAMAGED, "reason");
HP_STATIC_ASSERT((int)HP_END_POOL_ENDED == (int)HP_REASON_POOL_ENDED, "reason");
HP_STATIC_ASSERT((int)HP_PAYLOAD_ARGV == (int)HP_PAYLOAD_USE_ARGV, "payload use");
HP_STATIC_ASSERT((int)HP_PAYLOAD_ITEMS == (int)HP_PAYLOAD_USE_ITEMS, "payload use");
HP_STATIC_ASSERT((int)HP_CONFLICT_REPLACE == (int)HP_ON_CONFLICT_REPLACE, "on conflict");
HP_STATIC_ASSERT((int)HP_PARTITION_CONTINUE == (int)HP_ON_PARTITION_CONTINUE, "on partition");
HP_STATIC_ASSERT((int)HP_OUTCOME_REPLACED == (int)HP_SUBMIT_OUTCOME_REPLACED, "outcome");
HP_STATIC_ASSERT((int)HP_CANCEL_QUEUED == (int)HP_CANCEL_MODE_QUEUED, "cancel mode");
HP_STATIC_ASSERT((int)HP_CANCELLED_UNKNOWN == (int)HP_CANCEL_OUTCOME_UNKNOWN, "cancel outcome");
HP_STATIC_ASSERT((int)HP_WAIT_ANY == (int)HP_WAIT_MODE_ANY, "wait mode");
HP_STATIC_ASSERT((int)HP_OUTPUT_STDERR == (int)HP_STREAM_STDERR, "stream");
HP_STATIC_ASSERT((int)HP_WORKER_OFFLINE == (int)HP_NODE_STATE_OFFLINE, "node state");
HP_STATIC_ASSERT((int)HP_POOL_ENDED == (int)HP_POOL_STATE_ENDED, "pool state");
HP_STATIC_ASSERT((int)HP_POOL_TERMINATE == (int)HP_POOL_END_TERMINATE, "pool end");

static const struct {
    enum hp_status status;
    const char *word;
    const char *text;
} statuses[] = {
    {HP_STATUS_OK, "ok", "success"},
    {HP_STATUS_BAD_REQUEST, "bad_request", "the broker refuses the request"},
    {HP_STATUS_DENIED, "denied", "the token is missing or wrong, or this is not allowed"},
    {HP_STATUS_VERSION, "version", "broker and library have no common protocol version"},
    {HP_STATUS_UNKNOWN_METHOD, "unknown_method", "the broker does not know this request"},
    {HP_STATUS_NOT_FOUND, "not_found", "no such task, queue, worker or blob"},
    {HP_STATUS_BUSY, "busy", "the broker is at a limit; nothing was stored"},
    {HP_STATUS_DRAINING, "draining", "the broker is stopping"},
    {HP_STATUS_CONFLICT, "conflict", "the unique key is held by another live task"},
    {HP_STATUS_OUT_OF_ORDER, "out_of_order", "the request number is not the next one"},
    {HP_STATUS_TOO_BIG, "too_big", "a payload, result or message is over its limit"},
    {HP_STATUS_STALE, "stale", "the attempt is not the current one"},
    {HP_STATUS_ILLEGAL_STATE, "illegal_state", "the task's state does not allow this"},
    {HP_STATUS_UNSUPPORTED, "unsupported", "the broker cannot do that"},
    {HP_STATUS_DAMAGED, "damaged", "bytes failed their digest"},
    {HP_STATUS_INTERNAL, "internal", "the broker failed; its log has the reason"},
    {HP_STATUS_AGAIN, "again", "the window is full: process events first"},
    {HP_STATUS_TIMEOUT, "timeout", "the time is over"},
    {HP_STATUS_UNREACHABLE, "unreachable", "the broker cannot be reached"},
    {HP_STATUS_PROTOCOL, "protocol", "the peer does not speak hostpool's protocol"},
    {HP_STATUS_NO_MEMORY, "no_memory", "out of memory"},
    {HP_STATUS_BAD_ARGUMENT, "bad_argument", "an argument is outside its range"},
    {HP_STATUS_SESSION_LOST, "session_lost",
     "the broker has forgotten the session; it is not known whether the submit took effect"},
    {HP_STATUS_STOPPED, "stopped", "stopped by the caller"},
    {HP_STATUS_SYSTEM, "system", "a system call failed"},
    {HP_STATUS_BROKER_LOST, "broker_lost",
     "the broker has restarted and the task was not durable: what became of it is not known"},
};

const char *hp_version(void)
{
    return HP_VERSION;
}

const char *hp_status_word(enum hp_status status)
{
    for (size_t i = 0; i < HP_COUNT_OF(statuses); i++) {
        if (statuses[i].status == status) {
            return statuses[i].word;
        }
    }
    return "?";
}

const char *hp_strerror(enum hp_status status)
{
    for (size_t i = 0; i < HP_COUNT_OF(statuses); i++) {
        if (statuses[i].status == status) {
            return statuses[i].text;
        }
    }
    return "unknown status";
}

enum hp_status hp_status_of_rpc(enum hp_rpc_error_code code)
{
    const char *word = hp_rpc_error_name(code);

    for (size_t i = 1; i < HP_COUNT_OF(statuses); i++) {
        if (strcmp(statuses[i].word, word) == 0) {
            return statuses[i].status;
        }
    }
    return code == HP_RPC_ERROR_HELLO_FIRST ? HP_STATUS_PROTOCOL : HP_STATUS_INTERNAL;
}

enum hp_status hp_status_of_err(enum hp_err err)
{
    if (err == HP_OK) {
        return HP_STATUS_OK;
    }
    if (err == HP_ERR_NOMEM) {
        return HP_STATUS_NO_MEMORY;
    }
    if (err == HP_ERR_FULL || err == HP_ERR_TOO_BIG) {
        return HP_STATUS_TOO_BIG;
    }
    return err == HP_ERR_PROTOCOL ? HP_STATUS_PROTOCOL : HP_STATUS_BAD_ARGUMENT;
}

/* "?" for what is no value: the generated functions say "unknown", which is also a state. */
static const char *word_of(const struct hp_codec_enum *values, unsigned value)
{
    int index = hp_codec_enum_index(values, value);

    return index < 0 ? "?" : values->names[index];
}

const char *hp_kind_word(enum hp_kind kind)
{
    return word_of(&hp_task_kind_enum, kind);
}

const char *hp_state_word(enum hp_state state)
{
    return word_of(&hp_task_state_enum, state);
}

const char *hp_end_reason_word(enum hp_end_reason reason)
{
    return word_of(&hp_reason_enum, reason);
}

const char *hp_outcome_word(enum hp_outcome outcome)
{
    return word_of(&hp_submit_outcome_enum, outcome);
}

const char *hp_cancelled_word(enum hp_cancelled cancelled)
{
    return word_of(&hp_cancel_outcome_enum, cancelled);
}

const char *hp_worker_state_word(enum hp_worker_state state)
{
    return word_of(&hp_node_state_enum, state);
}

const char *hp_pool_phase_word(enum hp_pool_phase phase)
{
    return word_of(&hp_pool_state_enum, phase);
}

const char *hp_end_reason_text(enum hp_end_reason reason)
{
    static const char *const texts[] = {
        [HP_END_NONE] = "no reason: success, or not ended",
        [HP_END_ERROR] = "the function returned an error",
        [HP_END_EXIT] = "the command exited with a code other than 0",
        [HP_END_SIGNAL] = "the command was killed by a signal",
        [HP_END_CHILD_SIGNAL] = "the function's child process died of a signal",
        [HP_END_CHILD_EXIT] = "the function's child process exited in the middle of the task",
        [HP_END_OOM] = "the child was killed for memory",
        [HP_END_TIMEOUT] = "the hard timeout ran out",
        [HP_END_NODE_LOST] = "the worker was lost more often than the loss budget allows",
        [HP_END_NODE_RESTART] = "the worker restarted",
        [HP_END_LOST] = "the attempt was lost, and the task runs at most once",
        [HP_END_NOT_STARTED] = "the command could not be started",
        [HP_END_RESULT_TOO_BIG] = "the result is over the limit",
        [HP_END_DEADLINE] = "the deadline leaves no time for another attempt",
        [HP_END_PERMANENT] = "the function said that a retry is pointless",
        [HP_END_NO_FUNCTION] = "the worker's module does not export this function",
        [HP_END_CANCELLED] = "cancelled",
        [HP_END_DRAINED] = "handed back by a draining worker",
        [HP_END_DAMAGED] = "the payload failed its digest at the worker",
        [HP_END_INIT_FAILED] = "no child of the pool could be set up",
        [HP_END_POOL_ENDED] = "its pool was terminated before it ended",
    };

    return (unsigned)reason < HP_COUNT_OF(texts) ? texts[reason] : "unknown reason";
}

bool hp_state_parse(const char *word, enum hp_state *ret_state)
{
    enum hp_task_state state;

    if (!hp_task_state_find(hp_str_of(word), &state)) {
        return false;
    }
    *ret_state = (enum hp_state)state;
    return true;
}

bool hp_state_is_final(enum hp_state state)
{
    return state >= HP_STATE_DONE && state <= HP_STATE_EXPIRED;
}
