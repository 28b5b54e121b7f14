/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Function calls, seen from the daemon: fills the queues of children, takes calls back, kills. The
 * children's life is in kid.c, the reading of results in results.c.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/sys/file.h"
#include "worker/exec/exec_priv.h"

/* ---------------------------------------------------------------- calls */

bool hp_kid_is_accepting(const struct hp_exec *exec, const struct hp_kid *kid)
{
    uint64_t calls_max = kid->is_pool ? kid->calls_max : exec->config.recycle_calls;
    return kid->state == HP_KID_RUNNING && !kid->wants_recycle && !kid->is_doomed &&
           (!kid->is_pool || kid->is_set_up) && (calls_max == 0 || kid->assigned_count < calls_max);
}

/* Index of a function's name, or HP_CALL_UNKNOWN. Calls of one function come in rows: the last is
 * tried first. */
uint32_t hp_kid_function(struct hp_exec *exec, struct hp_str name)
{
    if (exec->last_function < exec->name_count &&
        hp_str_eq_c(name, exec->names[exec->last_function])) {
        return exec->last_function;
    }
    uint32_t low = 0;
    uint32_t high = exec->name_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = hp_str_compare(hp_str_of(exec->names[middle]), name);
        if (order == 0) {
            exec->last_function = middle;
            return middle;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return HP_CALL_UNKNOWN;
}

/* Passes the payload's descriptor on, if there is one, and notes it in the record. */
static enum hp_err send_payload_fd(struct hp_kid *kid, const struct hp_exec_call *call,
                                   struct hp_call_record *record)
{
    bool is_large = call->payload.size > HP_EXEC_INLINE_BYTES_MAX;
    if (call->payload_fd < 0 && !is_large) {
        return HP_OK;
    }
    if (kid->fd_count >= HP_KID_FDS_MAX) {
        return HP_ERR_AGAIN;
    }
    HP_CLEANUP(hp_fd_close) int made = -1;
    if (is_large) {
        made = hp_exec_memfd("hp-payload", call->payload.data, call->payload.size);
        if (made < 0) {
            return HP_ERR_IO;
        }
    }
    struct hp_bell bell = {.type = HP_BELL_FD, .fd_id = kid->next_fd_id + 1};
    int error = hp_bell_send(kid->socket_fd, &bell, is_large ? made : call->payload_fd, false);
    if (error != 0) {
        return error == EAGAIN ? HP_ERR_AGAIN : HP_ERR_IO;
    }
    record->fd_id = ++kid->next_fd_id;
    record->fd_bytes = is_large ? call->payload.size : call->payload_bytes;
    record->payload_bytes = 0;
    return HP_OK;
}

static enum hp_err check_call(const struct hp_exec_call *call)
{
    bool has_fd = call->payload_fd >= 0;
    bool is_bad = call->function.size > 255 || (has_fd && call->payload.size > 0) ||
                  (has_fd && call->payload_bytes == 0);
    return is_bad ? HP_ERR_INVALID : HP_OK;
}

/* Writes the record behind the others and enters it in the queue, unpublished. */
static inline enum hp_err push(struct hp_kid *kid, const struct hp_exec_call *call,
                               uint32_t function, uint32_t flags)
{
    struct hp_child_page *page = &kid->shared->page;
    struct hp_call_record record = {.kind = HP_RING_ITEM,
                                    .function = function,
                                    .flags = flags | (call->is_items ? HP_CALL_FLAG_ITEMS : 0),
                                    .payload_bytes = call->payload.size,
                                    .task_id = call->task_id,
                                    .epoch = call->epoch,
                                    .array_index = call->array_index,
                                    .attempt = call->attempt};
    bool is_inline = call->payload_fd < 0 && call->payload.size <= HP_EXEC_INLINE_BYTES_MAX;
    record.record_bytes = hp_ring_round(sizeof record + (is_inline ? call->payload.size : 0));
    uint64_t tail = atomic_load_explicit(&page->call_tail, memory_order_acquire);
    uint64_t at = 0;
    if (kid->call_head - tail > HP_RING_BYTES ||
        !hp_ring_place(kid->call_head, tail, record.record_bytes, &at)) {
        return HP_ERR_AGAIN;
    }
    enum hp_err err = hp_kid_grow(kid);
    err = err == HP_OK ? send_payload_fd(kid, call, &record) : err;
    if (err != HP_OK) {
        return err;
    }
    uint8_t *ring = kid->shared->calls;
    hp_ring_pad(ring, kid->call_head, at);
    memcpy(ring + at % HP_RING_BYTES, &record, sizeof record);
    if (is_inline && call->payload.size > 0) {
        memcpy(ring + at % HP_RING_BYTES + sizeof record, call->payload.data, call->payload.size);
    }
    kid->call_count++;
    *hp_kid_call_at(kid, kid->call_count - 1) = (struct hp_kid_call){
        .key = call->key,
        .at = kid->call_head,
        .place = at,
        .is_fenced = call->kill_on_partition,
        .has_fd = record.fd_id != 0,
        .is_init = (flags & HP_CALL_FLAG_INIT) != 0,
    };
    kid->call_head = at + record.record_bytes;
    kid->fd_count += record.fd_id != 0;
    kid->unpublished++;
    kid->assigned_count++;
    return HP_OK;
}

enum hp_err hp_kid_push(struct hp_kid *kid, const struct hp_exec_call *call, uint32_t function,
                        uint32_t flags)
{
    return push(kid, call, function, flags);
}

static void mark_dirty(struct hp_exec *exec, struct hp_kid *kid)
{
    if (!hp_list_is_linked(&kid->dirty)) {
        hp_list_push_back(&exec->dirty, &kid->dirty);
    }
}

/* child_ready is owed, and no result will come to be taken: looks for itself at the next turn. */
static void owe_ready(struct hp_exec *exec, struct hp_kid *kid)
{
    if (kid->needs_ready && kid->call_count == 0 && kid->state == HP_KID_RUNNING) {
        kid->is_pending = true;
        hp_exec_wake(exec);
    }
}

enum hp_err hp_exec_call(struct hp_exec *exec, uint32_t child, const struct hp_exec_call *call)
{
    if (child >= exec->kid_count) {
        return HP_ERR_INVALID;
    }
    struct hp_kid *kid = &exec->kids[child];
    if (hp_kid_link(exec, kid)->is_dead) {
        return HP_ERR_CLOSED;
    }
    enum hp_err err = check_call(call);
    if (err == HP_OK && !hp_kid_is_accepting(exec, kid)) {
        err = HP_ERR_AGAIN;
    }
    if (err == HP_OK) {
        uint32_t function = kid->zygote == 0 ? hp_kid_function(exec, call->function) : 0;
        err = push(kid, call, function, 0);
    }
    if (err == HP_ERR_AGAIN) {
        kid->needs_ready = true;
        owe_ready(exec, kid);
    }
    if (err != HP_OK) {
        return err;
    }
    if (call->kill_on_partition && kid->fence_count++ == 0) {
        atomic_store(&kid->shared->page.kill_on_partition, 1);
    }
    mark_dirty(exec, kid);
    return HP_OK;
}

void hp_kid_publish(struct hp_kid *kid)
{
    if (kid->unpublished == 0 || kid->is_doomed || kid->state != HP_KID_RUNNING) {
        return;
    }
    _Atomic uint64_t *claim = &kid->shared->page.claim;
    uint64_t word = atomic_load(claim);
    while (!atomic_compare_exchange_weak(
        claim, &word,
        hp_claim_make(hp_claim_claimed(word), hp_claim_limit(word) + kid->unpublished))) {
    }
    kid->unpublished = 0;
    hp_kid_wake(kid, 0);
}

void hp_exec_flush(struct hp_exec *exec)
{
    struct hp_list *node;
    while ((node = hp_list_pop_front(&exec->dirty)) != NULL) {
        hp_kid_publish(HP_LIST_ENTRY(node, struct hp_kid, dirty));
    }
}

/* ---------------------------------------------------------------- taking back, killing */

uint32_t hp_exec_recall(struct hp_exec *exec, uint32_t child, uint32_t count_max)
{
    if (child >= exec->kid_count || exec->kids[child].state != HP_KID_RUNNING || count_max == 0) {
        return 0;
    }
    struct hp_kid *kid = &exec->kids[child];
    if (kid->is_pool && !kid->is_set_up) {
        return 0; /* it holds nothing but its set-up */
    }
    uint64_t *keys = hp_alloc_array(HP_MIN(count_max, kid->call_count) + 1, sizeof *keys);
    if (keys == NULL) {
        return 0;
    }
    hp_kid_freeze(kid, 0); /* what is not taken is published again below */
    uint32_t count = 0;
    while (kid->unpublished > 0 && count < count_max) {
        struct hp_kid_call call = hp_kid_pop_back(kid);
        HP_ASSERT(!call.is_init);
        if (!call.is_void) {
            keys[count++] = call.key;
            kid->assigned_count--;
        }
    }
    hp_kid_publish(kid);
    owe_ready(exec, kid);
    for (uint32_t i = 0; i < count && exec->config.callbacks.recalled != NULL; i++) {
        exec->config.callbacks.recalled(exec->config.context, child, keys[i]);
    }
    hp_free(keys);
    return count;
}

/* Position of a call in the child's queue; call_count if it is not there. */
static uint32_t find_call(struct hp_kid *kid, uint64_t key)
{
    uint32_t offset = 0;
    while (offset < kid->call_count) {
        struct hp_kid_call *call = hp_kid_call_at(kid, offset);
        if (call->key == key && !call->is_void && !call->is_init) {
            break;
        }
        offset++;
    }
    return offset;
}

enum hp_err hp_exec_recall_one(struct hp_exec *exec, uint32_t child, uint64_t key)
{
    if (child >= exec->kid_count || exec->kids[child].state != HP_KID_RUNNING) {
        return HP_ERR_NOT_FOUND;
    }
    struct hp_kid *kid = &exec->kids[child];
    uint32_t offset = find_call(kid, key);
    if (offset == kid->call_count) {
        return HP_ERR_NOT_FOUND;
    }
    hp_kid_freeze(kid, 0);
    enum hp_err err = HP_ERR_BUSY;
    if (offset >= hp_kid_claimed(kid)) {
        struct hp_kid_call *call = hp_kid_call_at(kid, offset);
        uint32_t function = HP_CALL_VOID; /* it keeps its place, and runs nothing */
        memcpy(kid->shared->calls + call->place % HP_RING_BYTES +
                   offsetof(struct hp_call_record, function),
               &function, sizeof function);
        call->is_void = true;
        kid->void_count++;
        kid->assigned_count--; /* not one of those that the child may run */
        err = HP_OK;
    }
    hp_kid_publish(kid);
    return err;
}

void hp_kid_signal(struct hp_exec *exec, const struct hp_kid *kid, int number)
{
    struct hp_control_msg msg = {.type = HP_CONTROL_KILL, .id = kid->id, .value = number};
    /* A dead zygote needs no word: its children's end is near anyway. */
    (void)hp_exec_link_send(exec, hp_kid_link(exec, kid), &msg, NULL, NULL, 0);
}

enum hp_err hp_exec_child_kill(struct hp_exec *exec, uint32_t child, int signal)
{
    if (child >= exec->kid_count) {
        return HP_ERR_INVALID;
    }
    struct hp_kid *kid = &exec->kids[child];
    if (kid->state == HP_KID_NONE || kid->state == HP_KID_ENDED) {
        return HP_ERR_NOT_FOUND;
    }
    if (kid->state == HP_KID_RUNNING && signal == SIGKILL) {
        hp_kid_freeze(kid, 0);
        kid->is_doomed = true;
    }
    hp_kid_signal(exec, kid, signal);
    return HP_OK;
}

/* Ends a process, or the call that runs in it, unless it has a handler. */
static bool is_deadly(int signal)
{
    return signal == SIGTERM || signal == SIGINT || signal == SIGHUP || signal == SIGQUIT;
}

enum hp_err hp_exec_call_kill(struct hp_exec *exec, uint32_t child, uint64_t key, int signal)
{
    if (child >= exec->kid_count || exec->kids[child].state != HP_KID_RUNNING) {
        return HP_ERR_NOT_FOUND;
    }
    struct hp_kid *kid = &exec->kids[child];
    uint32_t offset = find_call(kid, key);
    if (offset == kid->call_count) {
        return HP_ERR_NOT_FOUND;
    }
    hp_kid_freeze(kid, 0); /* from here on it can not go on to another call */
    uint32_t claimed = hp_kid_claimed(kid);
    if (offset + 1 == claimed) {
        enum hp_err err = hp_exec_child_kill(exec, child, signal);
        /* The signal takes a while, and must not end a call that comes then: there is none. */
        kid->wants_recycle = kid->wants_recycle || is_deadly(signal);
        hp_kid_publish(kid);
        return err;
    }
    hp_kid_publish(kid);
    return offset < claimed ? HP_ERR_NOT_FOUND : HP_ERR_BUSY;
}

/* ---------------------------------------------------------------- asking */

uint32_t hp_exec_child_count(const struct hp_exec *exec)
{
    return exec->kid_count;
}

uint32_t hp_exec_pool_child_first(const struct hp_exec *exec)
{
    return exec->config.function_children;
}

uint32_t hp_exec_child_load(const struct hp_exec *exec, uint32_t child)
{
    HP_ASSERT(child < exec->kid_count);
    const struct hp_kid *kid = &exec->kids[child];
    bool is_setting_up = kid->is_pool && !kid->is_set_up;
    return is_setting_up ? 0 : kid->call_count - kid->void_count;
}

bool hp_exec_child_running(const struct hp_exec *exec, uint32_t child, uint64_t *ret_key,
                           uint64_t *ret_start_us)
{
    HP_ASSERT(child < exec->kid_count);
    struct hp_kid *kid = &exec->kids[child];
    uint32_t claimed = kid->state == HP_KID_RUNNING ? hp_kid_claimed(kid) : 0;
    if (claimed == 0) {
        return false;
    }
    const struct hp_kid_call *call = hp_kid_call_at(kid, claimed - 1);
    *ret_key = call->key;
    *ret_start_us = atomic_load(&kid->shared->page.start_us);
    return !call->is_void && !call->is_init;
}
