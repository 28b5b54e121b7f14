/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The daemon's end of a child's rings: the queue of calls the child holds, the claim word, and
 * reading results. Nothing read from shared memory is used before it is checked (I4 of ring.h).
 */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "worker/exec/exec_priv.h"

#define CALLS_FIRST 64u
#define TAIL_EVERY 64u /* results between two updates of the position that the child sees */

/* ---------------------------------------------------------------- the queue */

struct hp_kid_call *hp_kid_call_at(struct hp_kid *kid, uint32_t offset)
{
    HP_ASSERT(offset < kid->call_count);
    return &kid->calls[(kid->call_first + offset) & (kid->call_capacity - 1)];
}

enum hp_err hp_kid_grow(struct hp_kid *kid)
{
    if (kid->call_count < kid->call_capacity) {
        return HP_OK;
    }
    if (kid->call_capacity >= HP_EXEC_CHILD_CALLS_MAX) {
        return HP_ERR_AGAIN;
    }
    uint32_t capacity = kid->call_capacity == 0 ? CALLS_FIRST : kid->call_capacity * 2;
    struct hp_kid_call *calls = hp_alloc_array(capacity, sizeof *calls);
    if (calls == NULL) {
        return HP_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < kid->call_count; i++) {
        calls[i] = *hp_kid_call_at(kid, i);
    }
    hp_free(kid->calls);
    kid->calls = calls;
    kid->call_capacity = capacity;
    kid->call_first = 0;
    return HP_OK;
}

/* Takes a call that left the queue out of the sums. */
static void forget(struct hp_kid *kid, const struct hp_kid_call *call)
{
    kid->fd_count -= call->has_fd;
    kid->void_count -= call->is_void;
    kid->fence_count -= call->is_fenced;
    if (call->is_fenced && kid->fence_count == 0) {
        atomic_store_explicit(&kid->shared->page.kill_on_partition, 0, memory_order_relaxed);
    }
}

struct hp_kid_call hp_kid_pop_front(struct hp_kid *kid)
{
    struct hp_kid_call call = *hp_kid_call_at(kid, 0);
    kid->call_first = (kid->call_first + 1) & (kid->call_capacity - 1);
    kid->call_count--;
    kid->done++;
    forget(kid, &call);
    return call;
}

struct hp_kid_call hp_kid_pop_back(struct hp_kid *kid)
{
    HP_ASSERT(kid->unpublished > 0);
    struct hp_kid_call call = *hp_kid_call_at(kid, kid->call_count - 1);
    kid->call_count--;
    kid->unpublished--;
    kid->call_head = call.at;
    forget(kid, &call);
    return call;
}

/* ---------------------------------------------------------------- the claim word */

uint32_t hp_kid_claimed(const struct hp_kid *kid)
{
    uint64_t word = atomic_load(&kid->shared->page.claim);
    uint32_t claimed = hp_claim_claimed(word) - kid->done;
    uint32_t published = kid->call_count - kid->unpublished;
    return claimed <= published ? claimed : published;
}

void hp_kid_freeze(struct hp_kid *kid, uint32_t keep)
{
    _Atomic uint64_t *claim = &kid->shared->page.claim;
    uint64_t word = atomic_load(claim);
    uint32_t taken;
    do {
        uint32_t left = hp_claim_limit(word) - hp_claim_claimed(word);
        taken = left > keep ? left - keep : 0;
        if (taken > kid->call_count - kid->unpublished) {
            return; /* damaged: leave it; the child's end is near */
        }
    } while (taken > 0 && !atomic_compare_exchange_weak(
                              claim, &word,
                              hp_claim_make(hp_claim_claimed(word), hp_claim_limit(word) - taken)));
    kid->unpublished += taken;
}

/* ---------------------------------------------------------------- results */

/* False: it has not come. */
static bool take_result_fd(struct hp_kid *kid, uint64_t id, int *ret_fd)
{
    for (uint32_t i = 0; i < kid->result_fd_count; i++) {
        if (kid->results[i].id == id) {
            *ret_fd = kid->results[i].fd;
            kid->results[i] = kid->results[--kid->result_fd_count];
            return true;
        }
    }
    return false;
}

bool hp_kid_take_bells(struct hp_kid *kid)
{
    for (;;) {
        struct hp_bell bell;
        int fd = -1;
        if (kid->result_fd_count == HP_KID_FDS_MAX) {
            return true; /* results must be read first */
        }
        int got = hp_bell_receive(kid->socket_fd, &bell, &fd, false);
        if (got <= 0) {
            return got == 0;
        }
        if (bell.type == HP_BELL_FD) {
            kid->results[kid->result_fd_count++] = (struct hp_kid_fd){.id = bell.fd_id, .fd = fd};
        } else if (fd >= 0) {
            (void)close(fd);
        }
    }
}

void hp_kid_wake(struct hp_kid *kid, uint32_t reason)
{
    _Atomic uint32_t *sleeps = &kid->shared->page.child_sleeps;
    if (reason != 0 && atomic_load(sleeps) != reason) {
        return;
    }
    if (atomic_exchange(sleeps, 0) != 0) {
        struct hp_bell bell = {.type = HP_BELL_RING};
        /* A full socket holds other messages, which wake it as well. */
        (void)hp_bell_send(kid->socket_fd, &bell, -1, false);
    }
}

/* Skips the pad and checks the record at the tail. False: damaged. */
static bool next_record(struct hp_kid *kid, uint64_t head, struct hp_result_record *ret)
{
    const uint8_t *ring = kid->shared->results;
    for (int i = 0; i < 2; i++) {
        uint64_t index = kid->result_tail % HP_RING_BYTES;
        uint64_t room = HP_MIN(head - kid->result_tail, HP_RING_BYTES - index);
        uint32_t start[2];
        if (room < HP_RING_ALIGN) {
            return false;
        }
        memcpy(start, ring + index, sizeof start);
        if (start[0] == HP_RING_PAD) {
            if (start[1] != HP_RING_BYTES - index) {
                return false;
            }
            kid->result_tail += start[1];
            continue;
        }
        if (start[0] != HP_RING_ITEM || room < sizeof *ret) {
            return false;
        }
        memcpy(ret, ring + index, sizeof *ret);
        return ret->status < HP_EXEC_CALL_STATUS_COUNT &&
               ret->text_bytes <= HP_CHILD_TEXT_BYTES_MAX && ret->data_bytes >= ret->text_bytes &&
               ret->data_bytes - ret->text_bytes <= HP_EXEC_INLINE_BYTES_MAX &&
               ret->record_bytes == hp_ring_round(sizeof *ret + ret->data_bytes) &&
               ret->record_bytes <= room;
    }
    return false;
}

/* What the child printed during the call goes with its end. It waits until this is done; without
 * the mark it printed nothing, and what has been read meanwhile is of a later call. */
static void take_printed(struct hp_exec *exec, struct hp_kid *kid, struct hp_exec_call_end *end)
{
    struct hp_bin printed[2];
    hp_kid_drain(exec, kid);
    hp_kid_take_printed(exec, kid, printed);
    end->out = printed[0];
    end->err = printed[1];
}

/* Tells the end of the oldest call. */
static void tell_end(struct hp_exec *exec, struct hp_kid *kid,
                     const struct hp_result_record *record, struct hp_exec_call_end *end)
{
    struct hp_kid_call call = hp_kid_pop_front(kid);
    bool has_output = kid->is_pool && (record->flags & HP_RESULT_FLAG_PRINTED) != 0;
    if (has_output) {
        take_printed(exec, kid, end);
    }
    if (call.is_init) { /* its output is no call's */
        hp_kid_set_up(exec, kid, record->status == HP_EXEC_CALL_OK, end->text);
    } else {
        kid->ended_count++;
        if (!call.is_void && exec->config.callbacks.call_done != NULL) {
            exec->config.callbacks.call_done(exec->config.context, kid->index, call.key, end);
        }
    }
    if (has_output) {
        end->out = end->err = hp_bin_make(NULL, 0);
    }
}

/* Whether the file holds what the child says: it is mapped, and behind its end that is deadly. */
static bool is_whole(const struct hp_exec *exec, const struct hp_exec_call_end *end)
{
    struct stat about;
    return end->result_bytes > 0 && end->result_bytes <= exec->config.result_cap_bytes &&
           fstat(end->result_fd, &about) == 0 && (uint64_t)about.st_size >= end->result_bytes;
}

/* The descriptor of the result. False: shared memory is damaged. */
static bool find_result(struct hp_exec *exec, struct hp_kid *kid,
                        const struct hp_result_record *record, struct hp_exec_call_end *end)
{
    static const char no_number[] = "the worker had no file descriptor free for the result: its "
                                    "limit (ulimit -n, LimitNOFILE=) is too low";
    if (!take_result_fd(kid, record->fd_id, &end->result_fd)) {
        (void)hp_kid_take_bells(kid); /* it may have died, but what it sent is there */
        if (!take_result_fd(kid, record->fd_id, &end->result_fd)) {
            return false;
        }
    }
    end->result_bytes = record->result_bytes;
    if (end->result_fd < 0) {
        end->status = HP_EXEC_CALL_ERROR;
        end->text = hp_str_of(no_number);
        end->result_bytes = 0;
        return true;
    }
    if (!is_whole(exec, end)) {
        (void)close(end->result_fd);
        return false;
    }
    return true;
}

/* Reports one result. False: shared memory is damaged. */
static bool report(struct hp_exec *exec, struct hp_kid *kid, const struct hp_result_record *record,
                   const uint8_t *data)
{
    /* It lives on, as zeroing it for each call would be the dearest part: all that a result may
     * set is set here. */
    struct hp_exec_call_end *end = &exec->call_end;
    end->status = (enum hp_exec_call_status)record->status;
    end->result_fd = -1;
    end->retry_ms = record->retry_ms;
    end->start_us = record->start_us;
    end->usage.run_us = record->run_us;
    end->text = hp_str_make((const char *)data, record->text_bytes);
    end->result = hp_bin_make(data + record->text_bytes, record->data_bytes - record->text_bytes);
    end->result_bytes = end->result.size;
    if (record->fd_id != 0 && !find_result(exec, kid, record, end)) {
        return false;
    }
    tell_end(exec, kid, record, end);
    if (end->result_fd >= 0) {
        (void)close(end->result_fd);
    }
    return true;
}

uint32_t hp_kid_take_results(struct hp_exec *exec, struct hp_kid *kid, uint32_t budget)
{
    struct hp_child_page *page = &kid->shared->page;
    uint32_t count = 0;
    bool is_damaged = kid->is_damaged;
    kid->is_pending = false;
    while (!is_damaged) {
        uint64_t head = atomic_load(&page->result_head);
        uint64_t left = head - kid->result_tail;
        if (left == 0) {
            break;
        }
        if (count == budget) {
            kid->is_pending = true;
            hp_exec_wake(exec);
            break;
        }
        struct hp_result_record record;
        is_damaged =
            left > HP_RING_BYTES || hp_kid_claimed(kid) == 0 || !next_record(kid, head, &record);
        if (is_damaged) {
            break;
        }
        const uint8_t *at = kid->shared->results + kid->result_tail % HP_RING_BYTES;
        kid->result_tail += record.record_bytes;
        is_damaged = !report(exec, kid, &record, at + sizeof record);
        if (is_damaged) {
            break;
        }
        count++;
        if (count % TAIL_EVERY == 0) {
            atomic_store(&page->result_tail, kid->result_tail);
        }
    }
    kid->is_damaged = is_damaged; /* what follows could be taken for another call's */
    atomic_store(&page->result_tail, kid->result_tail);
    hp_kid_wake(kid, 2); /* it may wait for room */
    return is_damaged ? UINT32_MAX : count;
}
