/* SPDX-License-Identifier: BSD-2-Clause */
/* Loads: facts about ids, listings, side rows, sessions. Each a slice of about 2 ms (S4). */
#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/sys/clock.h"
#include "server/store/sqlite.h"

static void add_group(struct hp_answer *answer, const struct hp_group_head *head,
                      struct hp_bin pack, bool damaged)
{
    struct hp_loaded_group group = {
        .first = head->first,
        .count = head->count,
        .lane = head->lane,
        .created_at_ms = head->created_at_ms,
        .session = head->session,
        .options = head->options,
        .pack = pack,
        .pack_size = head->pack_size,
        .damaged = damaged,
    };
    hp_answer_add_group(answer, &group);
}

/* ------------------------------------------------------------------ groups */
/* A group with its payloads; one that fails a digest is marked, and holds no bytes (S5). */
static enum hp_err add_whole_group(struct hp_sqlite *s, struct hp_answer *answer,
                                   const struct hp_group_head *head, struct hp_error *reterr)
{
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = NULL;
    enum hp_err err = hp_sqlite_bucket_stmt(s, hp_sqlite_bucket(s, head->first),
                                            HP_BUCKET_GROUP_PACK, &stmt, reterr);
    if (err != HP_OK) {
        return err;
    }
    hp_sqlite_bind_u64(stmt, 1, head->first);
    err = hp_sqlite_step(s, stmt, "read payloads", reterr);
    if (err != HP_OK && err != HP_ERR_NOT_FOUND && err != HP_ERR_CORRUPT) {
        return err;
    }
    /* A damaged page costs this group; the others of the answer are sound. */
    struct hp_bin pack = err == HP_OK ? hp_sqlite_bin(stmt, 0) : (struct hp_bin){0};
    if (err == HP_OK && pack.size == head->pack_size &&
        hp_row_digest(pack.data, pack.size, HP_ROW_GROUP, head->first) == head->pack_digest) {
        add_group(answer, head, pack, false);
        return HP_OK;
    }
    struct hp_group_head bare = {.first = head->first, .count = head->count, .lane = head->lane};
    add_group(answer, &bare, (struct hp_bin){0}, true);
    return HP_OK;
}

static enum hp_err load_groups(struct hp_sqlite *s, struct hp_answer *answer,
                               struct hp_facts *facts, struct hp_error *reterr)
{
    const struct hp_load *load = answer->load;
    for (uint32_t i = 0; i < load->span_count; i++) {
        uint64_t id = load->spans[i].first;
        uint64_t end = id + load->spans[i].count;
        while (id < end) {
            const struct hp_group_head *head = NULL;
            enum hp_err err = hp_facts_group(facts, id, &head, reterr);
            uint64_t next = facts->group_range.end;
            if (err == HP_ERR_NOT_FOUND) {
                id = next;
                continue;
            }
            if (err != HP_OK && err != HP_ERR_CORRUPT) {
                return err;
            }
            if (hp_answer_is_full(answer)) {
                answer->loaded->more = true;
                answer->loaded->next = id;
                return HP_OK;
            }
            if (hp_answer_has_group(answer, head->first)) {
                err = HP_OK;
            } else if (err == HP_ERR_CORRUPT) {
                struct hp_group_head bare = {.first = head->first,
                                             .count = (uint32_t)(next - head->first)};
                add_group(answer, &bare, (struct hp_bin){0}, true);
            } else {
                err = add_whole_group(s, answer, head, reterr);
                if (err != HP_OK) {
                    return err;
                }
            }
            id = next;
        }
    }
    return HP_OK;
}

/* ------------------------------------------------------------------ tasks */
static enum hp_err add_gone(struct hp_sqlite *s, struct hp_answer *answer,
                            struct hp_loaded_task *task, struct hp_error *reterr)
{
    uint32_t state = 0;
    enum hp_err err = hp_sqlite_tomb(s, task->id, &state, reterr);
    if (err == HP_OK) {
        task->gone = true;
        task->result.first = task->id;
        task->result.count = 1;
        task->result.state = state;
    } else if (err == HP_ERR_CORRUPT) {
        task->damaged = true;
    } else if (err != HP_ERR_NOT_FOUND) {
        return err;
    }
    hp_answer_add_task(answer, task);
    return HP_OK;
}

/* Result and side of a task whose group is known. */
static enum hp_err add_facts(struct hp_answer *answer, struct hp_facts *facts,
                             struct hp_loaded_task *task, struct hp_error *reterr)
{
    enum hp_err err = hp_facts_result(facts, task->id, &task->result, reterr);
    task->ended = err == HP_OK;
    task->damaged = err == HP_ERR_CORRUPT;
    if (err != HP_OK && err != HP_ERR_NOT_FOUND && err != HP_ERR_CORRUPT) {
        return err;
    }
    err = hp_facts_side(facts, task->id, &task->side, reterr);
    task->has_side = err == HP_OK;
    task->damaged = task->damaged || err == HP_ERR_CORRUPT;
    if (err != HP_OK && err != HP_ERR_NOT_FOUND && err != HP_ERR_CORRUPT) {
        return err;
    }
    hp_answer_add_task(answer, task);
    return HP_OK;
}

static enum hp_err add_task(struct hp_sqlite *s, struct hp_answer *answer, struct hp_facts *facts,
                            uint64_t id, struct hp_error *reterr)
{
    struct hp_loaded_task task = {.id = id};
    const struct hp_group_head *head = NULL;
    enum hp_err err = hp_facts_group(facts, id, &head, reterr);
    if (err == HP_ERR_NOT_FOUND) {
        return add_gone(s, answer, &task, reterr);
    }
    if (err == HP_ERR_CORRUPT) {
        task.damaged = true;
        hp_answer_add_task(answer, &task);
        return HP_OK;
    }
    if (err != HP_OK) {
        return err;
    }
    if (!hp_answer_has_group(answer, head->first)) {
        add_group(answer, head, (struct hp_bin){0}, false);
    }
    task.exists = true;
    task.group = answer->loaded->group_count - 1;
    return add_facts(answer, facts, &task, reterr);
}

static enum hp_err load_tasks(struct hp_sqlite *s, struct hp_answer *answer, struct hp_facts *facts,
                              struct hp_error *reterr)
{
    const struct hp_load *load = answer->load;
    for (uint32_t i = 0; i < load->span_count; i++) {
        for (uint32_t k = 0; k < load->spans[i].count; k++) {
            uint64_t id = load->spans[i].first + k;
            if (hp_answer_is_full(answer)) {
                answer->loaded->more = true;
                answer->loaded->next = id;
                return HP_OK;
            }
            enum hp_err err = add_task(s, answer, facts, id, reterr);
            if (err != HP_OK) {
                return err;
            }
        }
    }
    return HP_OK;
}

/* ------------------------------------------------------------------ listing */
/* The group with the greatest first < `before`, looking into lower buckets, too. */
static enum hp_err find_group_before(struct hp_sqlite *s, uint64_t before, bool live_only,
                                     uint64_t *ret_first, struct hp_error *reterr)
{
    uint32_t index = hp_sqlite_bucket_index(s, before >> HP_SQLITE_BUCKET_SHIFT);
    index = index < s->bucket_count && s->buckets[index].number == before >> HP_SQLITE_BUCKET_SHIFT
                ? index + 1
                : index;
    while (index-- > 0) {
        struct hp_bucket *bucket = &s->buckets[index];
        if (bucket->task_count == 0 || (live_only && bucket->ended_count == bucket->task_count)) {
            continue; /* nothing to see: its figures say so */
        }
        sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = NULL;
        enum hp_err err = hp_sqlite_bucket_stmt(s, bucket, HP_BUCKET_GROUP_BEFORE, &stmt, reterr);
        if (err != HP_OK) {
            return err;
        }
        hp_sqlite_bind_u64(stmt, 1, HP_MIN(before, (uint64_t)INT64_MAX));
        err = hp_sqlite_step(s, stmt, "list groups", reterr);
        if (err == HP_OK) {
            *ret_first = hp_sqlite_u64(stmt, 0);
        }
        if (err != HP_ERR_NOT_FOUND) {
            return err;
        }
    }
    return HP_ERR_NOT_FOUND;
}

/* Lists ids of one group from `id` downwards. False in *ret_go_on: full. */
static enum hp_err list_group(struct hp_sqlite *s, struct hp_answer *answer, struct hp_facts *facts,
                              uint64_t first, uint64_t end, bool *ret_go_on,
                              struct hp_error *reterr)
{
    *ret_go_on = true;
    for (uint64_t id = end; id-- > first;) {
        if (hp_answer_is_full(answer) || hp_answer_is_late(answer)) {
            answer->loaded->more = true;
            answer->loaded->next = id + 1;
            *ret_go_on = false;
            return HP_OK;
        }
        if (answer->load->live_only) {
            struct hp_result result;
            enum hp_err err = hp_facts_result(facts, id, &result, reterr);
            if (err == HP_OK) {
                id = HP_MAX(facts->result_range.first, first); /* the run's lowest */
                continue;
            }
            if (err != HP_ERR_NOT_FOUND && err != HP_ERR_CORRUPT) {
                return err;
            }
        }
        enum hp_err err = add_task(s, answer, facts, id, reterr);
        if (err != HP_OK) {
            return err;
        }
    }
    return HP_OK;
}

static enum hp_err load_list(struct hp_sqlite *s, struct hp_answer *answer, struct hp_facts *facts,
                             struct hp_error *reterr)
{
    const struct hp_load *load = answer->load;
    uint64_t before = load->before > 0 ? load->before : (uint64_t)INT64_MAX;
    bool go_on = true;
    while (go_on) {
        uint64_t first = 0;
        enum hp_err err = find_group_before(s, before, load->live_only, &first, reterr);
        if (err != HP_OK) {
            return err == HP_ERR_NOT_FOUND ? HP_OK : err;
        }
        const struct hp_group_head *head = NULL;
        err = hp_facts_group(facts, first, &head, reterr);
        if (err != HP_OK && err != HP_ERR_CORRUPT) {
            return err;
        }
        if (err == HP_OK && load->since_ms > 0 && head->created_at_ms < load->since_ms) {
            return HP_OK;
        }
        uint64_t end = err == HP_OK ? HP_MIN(before, facts->group_range.end) : first + 1;
        err = list_group(s, answer, facts, first, end, &go_on, reterr);
        if (err != HP_OK) {
            return err;
        }
        before = first;
    }
    return HP_OK;
}

/* ------------------------------------------------------------------ sides */
/* Steps to the next row and reads it; *ret_has: false at the end. */
static enum hp_err next_side(struct hp_sqlite *s, sqlite3_stmt *stmt, enum hp_row_table table,
                             struct hp_side *ret_side, bool *ret_has, struct hp_error *reterr)
{
    enum hp_err err = hp_sqlite_step(s, stmt, "read sides", reterr);
    *ret_has = err == HP_OK;
    if (err == HP_OK) {
        uint64_t first = hp_sqlite_u64(stmt, 0);
        if (!hp_row_get_side(hp_sqlite_bin(stmt, 1), table, first, ret_side)) {
            return hp_sqlite_damaged(s, table == HP_ROW_SIDE ? "side" : "expiry", first, reterr);
        }
    }
    return err == HP_ERR_NOT_FOUND ? HP_OK : err;
}

/* Merges two tables by (run_at_ms, first). */
static enum hp_err load_sides(struct hp_sqlite *s, struct hp_answer *answer,
                              struct hp_error *reterr)
{
    sqlite3_stmt *sides HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_SIDE_AFTER];
    sqlite3_stmt *expiries HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_EXPIRY_AFTER];
    struct hp_side side = {0};
    struct hp_side expiry = {0};
    bool has_side = false;
    bool has_expiry = false;
    hp_sqlite_bind_u64(sides, 1, (uint64_t)answer->load->after_run_at_ms);
    hp_sqlite_bind_u64(sides, 2, answer->load->after_first);
    hp_sqlite_bind_u64(expiries, 1, (uint64_t)answer->load->after_run_at_ms);
    hp_sqlite_bind_u64(expiries, 2, answer->load->after_first);
    enum hp_err err = next_side(s, sides, HP_ROW_SIDE, &side, &has_side, reterr);
    if (err == HP_OK) {
        err = next_side(s, expiries, HP_ROW_EXPIRY, &expiry, &has_expiry, reterr);
    }
    while (err == HP_OK && (has_side || has_expiry)) {
        int order = hp_answer_side_order(has_side ? &side : NULL, has_expiry ? &expiry : NULL);
        if (hp_answer_is_full(answer)) {
            answer->loaded->more = true;
            return HP_OK;
        }
        if (order <= 0) {
            hp_answer_add_side(answer, &side);
            err = next_side(s, sides, HP_ROW_SIDE, &side, &has_side, reterr);
        }
        if (err == HP_OK && order >= 0) { /* equal: one cursor stands for both, never cut there */
            hp_answer_add_side(answer, &expiry);
            err = next_side(s, expiries, HP_ROW_EXPIRY, &expiry, &has_expiry, reterr);
        }
    }
    return err;
}

/* ------------------------------------------------------------------ sessions */
static enum hp_err load_session(struct hp_sqlite *s, struct hp_answer *answer,
                                struct hp_error *reterr)
{
    sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_SESSION_GET];
    struct hp_bin id = answer->load->text;
    struct hp_row_in in;
    hp_sqlite_bind_bin(stmt, 1, id);
    enum hp_err err = hp_sqlite_step(s, stmt, "read session", reterr);
    if (err != HP_OK) {
        return err == HP_ERR_NOT_FOUND ? HP_OK : err;
    }
    if (!hp_row_open(&in, hp_sqlite_bin(stmt, 0), HP_ROW_SESSION,
                     hp_row_digest(id.data, id.size, HP_ROW_SESSION, 0))) {
        return hp_sqlite_damaged(s, "session", 0, reterr);
    }
    answer->loaded->found = true;
    answer->loaded->state =
        hp_answer_copy(answer, (struct hp_bin){.data = in.at, .size = (uint32_t)(in.end - in.at)});
    return HP_OK;
}

bool hp_sqlite_load(struct hp_store *store, struct hp_loaded *loaded)
{
    struct hp_sqlite *s = hp_sqlite_of(store);
    struct hp_facts facts HP_CLEANUP(hp_facts_deinit);
    struct hp_error error = {0};
    struct hp_answer answer;
    enum hp_err err = HP_OK;
    hp_answer_init(&answer, loaded);
    answer.deadline_us = hp_clock_mono_us() + s->answer_slice_us;
    hp_facts_init(&facts, s);
    switch (loaded->load->kind) {
    case HP_LOAD_LANE:
        err = hp_sqlite_load_lane(s, &answer, &error);
        break;
    case HP_LOAD_GROUPS:
        err = load_groups(s, &answer, &facts, &error);
        break;
    case HP_LOAD_TASKS:
        err = load_tasks(s, &answer, &facts, &error);
        break;
    case HP_LOAD_LIST:
        err = load_list(s, &answer, &facts, &error);
        break;
    case HP_LOAD_SIDES:
        err = load_sides(s, &answer, &error);
        break;
    case HP_LOAD_SESSION:
        err = load_session(s, &answer, &error);
        break;
    case HP_LOAD_CHECK:
    case HP_LOAD_BACKUP:
        return hp_sqlite_job_step(s, &answer);
    }
    if (err != HP_OK) {
        hp_answer_fail(&answer, err, error.text);
    }
    hp_answer_finish(&answer);
    return true;
}
