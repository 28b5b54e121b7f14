/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Client sessions: which request numbers were applied, and with what answer, so that a repeated
 * submit gets its first reply. One row per session, written once a turn. Sessions that nobody uses
 * leave memory (the row stays 24 h); a hello brings them back.
 */
#include "server/core/state.h"

enum { SEEN_STEP_MS = 600000, TOUCH_MS = 6 * 3600 * 1000 };
enum { SESSIONS_MAX = 2048, MEMO_BYTES = 8 + 8 + 4 + 1 + 1 };

struct hp_session *hp_session_find(struct hp_core *core, struct hp_bin id)
{
    return id.size == 16 ? hp_strmap_find_ptr(&core->sessions, hp_bin_as_str(id)) : NULL;
}

void hp_session_free(struct hp_core *core, struct hp_session *session)
{
    HP_ASSERT(session->refs == 0 && !session->dirty);
    hp_list_remove(&session->link);
    core->session_count--;
    (void)hp_strmap_remove(&core->sessions,
                           hp_str_make((const char *)session->id, sizeof(session->id)), NULL);
    hp_free(session->memos);
    hp_free(session);
}

static void evict(struct hp_core *core)
{
    if (core->session_count < SESSIONS_MAX) {
        return;
    }
    HP_LIST_FOR_EACH_SAFE (link, &core->session_list) {
        struct hp_session *session = HP_CONTAINER_OF(link, struct hp_session, link);
        if (session->refs == 0 && !session->dirty) {
            hp_session_free(core, session);
            return;
        }
    }
}

struct hp_session *hp_session_new(struct hp_core *core, struct hp_bin id)
{
    evict(core);
    struct hp_session *session = hp_must_calloc(sizeof(*session));
    memcpy(session->id, id.data, sizeof(session->id));
    session->seen_ms = core->now_ms;
    hp_list_init(&session->link);
    hp_list_init(&session->dirty_link);
    hp_list_push_back(&core->session_list, &session->link);
    core->session_count++;
    hp_must(hp_strmap_put_ptr(&core->sessions, hp_bin_as_str(id), session));
    return session;
}

struct hp_session *hp_session_get(struct hp_core *core, struct hp_bin id)
{
    struct hp_session *session = hp_session_find(core, id);
    return session != NULL || id.size != 16 ? session : hp_session_new(core, id);
}

struct hp_session *hp_session_ref(struct hp_session *session)
{
    session->refs++;
    return session;
}

void hp_session_unref(struct hp_core *core, struct hp_session *session)
{
    (void)core;
    HP_ASSERT(session->refs > 0);
    session->refs--;
}

void hp_session_dirty(struct hp_core *core, struct hp_session *session)
{
    session->batch = core->batch_number;
    if (!session->dirty) {
        session->dirty = true;
        hp_list_push_back(&core->session_dirty, &session->dirty_link);
    }
}

struct hp_reply_memo *hp_session_memo(struct hp_session *session, uint64_t number)
{
    for (uint32_t i = session->memo_count; i > 0; i--) {
        if (session->memos[i - 1].number == number) {
            return &session->memos[i - 1];
        }
    }
    return NULL;
}

void hp_session_ack(struct hp_session *session, uint64_t acked)
{
    uint32_t drop = 0;
    while (drop < session->memo_count && session->memos[drop].number <= acked) {
        drop++;
    }
    if (drop > 0) {
        session->memo_count -= drop;
        memmove(session->memos, session->memos + drop,
                session->memo_count * sizeof(*session->memos));
    }
    session->acked = acked > session->acked ? acked : session->acked;
}

void hp_session_note(struct hp_session *session, const struct hp_reply_memo *memo)
{
    if (session->memo_count == session->memo_capacity) {
        session->memo_capacity = session->memo_capacity == 0 ? 8 : session->memo_capacity * 2;
        session->memos =
            hp_realloc_array(session->memos, session->memo_capacity, sizeof(*session->memos));
        HP_ASSERT(session->memos != NULL);
    }
    session->memos[session->memo_count++] = *memo;
    session->last_number = memo->number;
    session->ahead = true;
}

void hp_session_remember(struct hp_core *core, struct hp_session *session,
                         const struct hp_reply_memo *memo)
{
    hp_session_note(session, memo);
    hp_session_dirty(core, session);
}

static void put_le(uint8_t **at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        *(*at)++ = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t get_le(const uint8_t **at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) {
        value |= (uint64_t) * (*at)++ << (8 * i);
    }
    return value;
}

static void store_session(struct hp_core *core, struct hp_session *session)
{
    size_t size = 16 + (size_t)session->memo_count * MEMO_BYTES;
    uint8_t *bytes = hp_arena_alloc(&core->batch->arena, size);
    HP_ASSERT(bytes != NULL);
    uint8_t *at = bytes;
    put_le(&at, session->last_number, 8);
    put_le(&at, session->acked, 8);
    for (uint32_t i = 0; i < session->memo_count; i++) {
        const struct hp_reply_memo *memo = &session->memos[i];
        put_le(&at, memo->number, 8);
        put_le(&at, memo->first, 8);
        put_le(&at, memo->count, 4);
        put_le(&at, memo->outcome, 1);
        put_le(&at, memo->error, 1);
    }
    struct hp_op *op = hp_batch_add(core->batch, HP_OP_SESSION);
    op->session.id = hp_batch_copy(core->batch, session->id, sizeof(session->id));
    op->session.state = hp_bin_make(bytes, size);
    /* Rounded up: rows are kept long, and one that keeps its time costs the disk less. */
    op->session.seen_at_ms = (core->wall_ms / SEEN_STEP_MS + 1) * SEEN_STEP_MS;
    session->stored_ms = op->session.seen_at_ms;
    session->dirty = false;
    session->ahead = false;
}

/* Rows of connected sessions that were not written for long are written: they are seen. */
void hp_session_touch_all(struct hp_core *core)
{
    HP_LIST_FOR_EACH (link, &core->session_list) {
        struct hp_session *session = HP_CONTAINER_OF(link, struct hp_session, link);
        bool has_row = session->known && session->last_number > 0;
        int64_t age_ms = core->wall_ms - session->stored_ms;
        if (session->conn != NULL && has_row && (age_ms > TOUCH_MS || age_ms < -TOUCH_MS)) {
            hp_session_dirty(core, session);
        }
    }
}

bool hp_session_restore(struct hp_session *session, struct hp_bin state)
{
    if (state.size < 16 || (state.size - 16) % MEMO_BYTES != 0) {
        return false;
    }
    const uint8_t *at = state.data;
    session->last_number = get_le(&at, 8);
    session->acked = get_le(&at, 8);
    session->memo_count = (state.size - 16) / MEMO_BYTES;
    session->memo_capacity = session->memo_count;
    session->memos = hp_must_calloc((session->memo_count + 1U) * sizeof(*session->memos));
    for (uint32_t i = 0; i < session->memo_count; i++) {
        session->memos[i].number = get_le(&at, 8);
        session->memos[i].first = get_le(&at, 8);
        session->memos[i].count = (uint32_t)get_le(&at, 4);
        session->memos[i].outcome = (uint8_t)get_le(&at, 1);
        session->memos[i].error = (uint8_t)get_le(&at, 1);
    }
    return true;
}

void hp_session_flush(struct hp_core *core)
{
    while (!hp_list_is_empty(&core->session_dirty)) {
        struct hp_list *link = hp_list_pop_front(&core->session_dirty);
        store_session(core, HP_CONTAINER_OF(link, struct hp_session, dirty_link));
    }
}
