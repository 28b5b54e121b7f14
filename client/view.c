/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Wire structs to public ones and back. The lists of options are written once, as X-macros, because
 * copying, comparing and encoding must not disagree about what an option is.
 */
#include "client/view.h"

#include <string.h>

#include "common/base/mem.h"

/* X(public field, wire field, WIRE FIELD): numbers, bools and enums. */
#define OPTION_NUMBERS(X)                                                                          \
    X(payload_kind, payload_use, PAYLOAD_USE)                                                      \
    X(priority, priority, PRIORITY)                                                                \
    X(cpus, cpus, CPUS)                                                                            \
    X(mem_bytes, mem_bytes, MEM_BYTES)                                                             \
    X(delay_ms, delay_ms, DELAY_MS)                                                                \
    X(run_at_ms, run_at_ms, RUN_AT_MS)                                                             \
    X(expire_ms, expire_ms, EXPIRE_MS)                                                             \
    X(deadline_ms, deadline_ms, DEADLINE_MS)                                                       \
    X(soft_timeout_ms, soft_timeout_ms, SOFT_TIMEOUT_MS)                                           \
    X(hard_timeout_ms, hard_timeout_ms, HARD_TIMEOUT_MS)                                           \
    X(kill_grace_ms, kill_grace_ms, KILL_GRACE_MS)                                                 \
    X(max_retries, max_retries, MAX_RETRIES)                                                       \
    X(retry_base_ms, retry_base_ms, RETRY_BASE_MS)                                                 \
    X(retry_cap_ms, retry_cap_ms, RETRY_CAP_MS)                                                    \
    X(max_losses, max_losses, MAX_LOSSES)                                                          \
    X(child_losses, child_losses, CHILD_LOSSES)                                                    \
    X(at_most_once, at_most_once, AT_MOST_ONCE)                                                    \
    X(on_partition, on_partition, ON_PARTITION)                                                    \
    X(on_conflict, on_conflict, ON_CONFLICT)                                                       \
    X(ckey_max, ckey_max, CKEY_MAX)                                                                \
    X(result_ttl_ms, result_ttl_ms, RESULT_TTL_MS)                                                 \
    X(output_cap_bytes, output_cap_bytes, OUTPUT_CAP_BYTES)                                        \
    X(follow, follow, FOLLOW)                                                                      \
    X(array_base, array_base, ARRAY_BASE)                                                          \
    X(array_step, array_step, ARRAY_STEP)                                                          \
    X(durable, durable, DURABLE)                                                                   \
    X(pool, pool, POOL)                                                                            \
    X(processes, processes, PROCESSES)                                                             \
    X(calls_per_child, calls_per_child, CALLS_PER_CHILD)                                           \
    X(orphan_ms, orphan_ms, ORPHAN_MS)

/* X(field of both, FIELD): strings. */
#define OPTION_STRINGS(X)                                                                          \
    X(fn, FN)                                                                                      \
    X(cwd, CWD)                                                                                    \
    X(queue, QUEUE)                                                                                \
    X(name, NAME)                                                                                  \
    X(batch, BATCH)                                                                                \
    X(user, USER)                                                                                  \
    X(tenant, TENANT)                                                                              \
    X(ukey, UKEY)                                                                                  \
    X(ckey, CKEY)                                                                                  \
    X(language, LANGUAGE)                                                                          \
    X(interpreter, INTERPRETER)

/* X(field of both, count field, FIELD): lists of strings. */
#define OPTION_LISTS(X)                                                                            \
    X(argv, argv_count, ARGV)                                                                      \
    X(env, env_count, ENV)                                                                         \
    X(tags, tag_count, TAGS)

void hp_options_init(struct hp_options *options)
{
    struct hp_st_task_options wire;

    memset(options, 0, sizeof(*options));
    hp_st_task_options_init(&wire);
    options->kind = HP_KIND_FUNCTION;
#define X(field, wire_field, upper) options->field = (__typeof__(options->field))wire.wire_field;
    OPTION_NUMBERS(X)
#undef X
}

static enum hp_err list_to_wire(const char *const *from, size_t count, struct hp_arena *arena,
                                struct hp_list_str *ret)
{
    if (count > UINT32_MAX) {
        return HP_ERR_RANGE;
    }
    ret->items = HP_ARENA_NEW_ARRAY(arena, struct hp_str, count);
    if (ret->items == NULL) {
        return HP_ERR_NOMEM;
    }
    ret->count = (uint32_t)count;
    for (size_t i = 0; i < count; i++) {
        ret->items[i] = hp_str_of(from[i]);
    }
    return HP_OK;
}

enum hp_err hp_view_options_to_wire(const struct hp_options *options, struct hp_arena *arena,
                                    struct hp_st_task_options *ret)
{
    enum hp_err err = HP_OK;

    hp_st_task_options_init(ret);
    ret->kind = (enum hp_task_kind)options->kind;
    ret->has |= HP_HAS_ST_TASK_OPTIONS_KIND;
#define X(field, wire_field, upper)                                                                \
    if (ret->wire_field != (__typeof__(ret->wire_field))options->field) {                          \
        ret->wire_field = (__typeof__(ret->wire_field))options->field;                             \
        ret->has |= HP_HAS_ST_TASK_OPTIONS_##upper;                                                \
    }
    OPTION_NUMBERS(X)
#undef X
#define X(field, upper)                                                                            \
    if (options->field != NULL) {                                                                  \
        ret->field = hp_str_of(options->field);                                                    \
        ret->has |= HP_HAS_ST_TASK_OPTIONS_##upper;                                                \
    }
    OPTION_STRINGS(X)
#undef X
#define X(field, count_field, upper)                                                               \
    if (err == HP_OK && options->count_field > 0) {                                                \
        err = list_to_wire(options->field, options->count_field, arena, &ret->field);              \
        ret->has |= HP_HAS_ST_TASK_OPTIONS_##upper;                                                \
    }
    OPTION_LISTS(X)
#undef X
    return err;
}

enum hp_err hp_view_str(struct hp_str from, struct hp_arena *arena, const char **ret)
{
    *ret = NULL;
    if (from.data == NULL) {
        return HP_OK;
    }
    *ret = hp_arena_copy(arena, from.data, from.size);
    return *ret != NULL ? HP_OK : HP_ERR_NOMEM;
}

enum hp_err hp_view_strs(const struct hp_list_str *from, struct hp_arena *arena, const char ***ret,
                         size_t *ret_count)
{
    *ret = HP_ARENA_NEW_ARRAY(arena, const char *, (size_t)from->count + 1);
    *ret_count = from->count;
    if (*ret == NULL) {
        return HP_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < from->count; i++) {
        (*ret)[i] = hp_arena_copy(arena, from->items[i].data, from->items[i].size);
        if ((*ret)[i] == NULL) {
            return HP_ERR_NOMEM;
        }
    }
    return HP_OK;
}

enum hp_err hp_view_options(const struct hp_st_task_options *from, struct hp_arena *arena,
                            struct hp_options *ret)
{
    enum hp_err err = HP_OK;

    memset(ret, 0, sizeof(*ret));
    ret->kind = (enum hp_kind)from->kind;
#define X(field, wire_field, upper) ret->field = (__typeof__(ret->field))from->wire_field;
    OPTION_NUMBERS(X)
#undef X
#define X(field, upper) err = err == HP_OK ? hp_view_str(from->field, arena, &ret->field) : err;
    OPTION_STRINGS(X)
#undef X
#define X(field, count_field, upper)                                                               \
    if (err == HP_OK) {                                                                            \
        const char **strings = NULL;                                                               \
        err = hp_view_strs(&from->field, arena, &strings, &ret->count_field);                      \
        ret->field = strings;                                                                      \
    }
    OPTION_LISTS(X)
#undef X
    return err;
}

static const char *copy_string(const char *from, struct hp_arena *arena, enum hp_err *err)
{
    const char *copy = from == NULL ? NULL : hp_arena_copy(arena, from, strlen(from));

    if (from != NULL && copy == NULL) {
        *err = HP_ERR_NOMEM;
    }
    return copy;
}

static const char *const *copy_strings(const char *const *from, size_t count,
                                       struct hp_arena *arena, enum hp_err *err)
{
    const char **copy = HP_ARENA_NEW_ARRAY(arena, const char *, count + 1);

    if (copy == NULL) {
        *err = HP_ERR_NOMEM;
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        copy[i] = copy_string(from[i], arena, err);
    }
    return copy;
}

enum hp_err hp_view_options_copy(const struct hp_options *from, struct hp_arena *arena,
                                 struct hp_options *ret)
{
    enum hp_err err = HP_OK;

    *ret = *from;
#define X(field, upper) ret->field = copy_string(from->field, arena, &err);
    OPTION_STRINGS(X)
#undef X
#define X(field, count_field, upper)                                                               \
    ret->field = copy_strings(from->field, from->count_field, arena, &err);
    OPTION_LISTS(X)
#undef X
    return err;
}

static bool strings_equal(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool lists_equal(const char *const *a, size_t a_count, const char *const *b, size_t b_count)
{
    if (a_count != b_count) {
        return false;
    }
    for (size_t i = 0; i < a_count; i++) {
        if (!strings_equal(a[i], b[i])) {
            return false;
        }
    }
    return true;
}

bool hp_view_options_equal(const struct hp_options *a, const struct hp_options *b)
{
#define X(field, wire_field, upper) &&a->field == b->field
    bool equal = a->kind == b->kind OPTION_NUMBERS(X);
#undef X
#define X(field, upper) &&strings_equal(a->field, b->field)
    equal = equal OPTION_STRINGS(X);
#undef X
#define X(field, count_field, upper)                                                               \
    &&lists_equal(a->field, a->count_field, b->field, b->count_field)
    equal = equal OPTION_LISTS(X);
#undef X
    return equal;
}

static enum hp_err view_bytes(struct hp_bin from, struct hp_arena *arena, bool copy,
                              struct hp_bytes *ret)
{
    *ret = (struct hp_bytes){.data = from.data, .size = from.size};
    if (copy && from.size > 0) {
        ret->data = hp_arena_copy(arena, from.data, from.size);
        return ret->data != NULL ? HP_OK : HP_ERR_NOMEM;
    }
    return HP_OK;
}

static enum hp_err view_end(const struct hp_st_task_end *from, struct hp_arena *arena, bool copy,
                            struct hp_end *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->result_blob = from->result_blob;
    ret->has_digest = (from->has & HP_HAS_ST_TASK_END_DIGEST) != 0;
    ret->digest = from->digest;
    ret->has_exit_code = (from->has & HP_HAS_ST_TASK_END_EXIT_CODE) != 0;
    ret->exit_code = from->exit_code;
    ret->signal = from->signal;
    ret->start_errno = from->start_errno;
    ret->out_blob = from->out_blob;
    ret->err_blob = from->err_blob;
    ret->out_size = from->out_size;
    ret->err_size = from->err_size;
    ret->out_truncated = from->out_truncated;
    ret->err_truncated = from->err_truncated;
    ret->run_us = from->run_us;
    ret->utime_us = from->utime_us;
    ret->stime_us = from->stime_us;
    ret->maxrss_kb = from->maxrss_kb;
    if (hp_view_str(from->error, arena, &ret->error) != HP_OK ||
        view_bytes(from->result, arena, copy, &ret->result) != HP_OK ||
        view_bytes(from->out, arena, copy, &ret->out) != HP_OK ||
        view_bytes(from->err, arena, copy, &ret->err) != HP_OK) {
        return HP_ERR_NOMEM;
    }
    return HP_OK;
}

enum hp_err hp_view_task(const struct hp_st_task_status *from, struct hp_arena *arena, bool copy,
                         struct hp_task *ret, struct hp_end *ret_end)
{
    enum hp_err err;

    memset(ret, 0, sizeof(*ret));
    ret->id = from->id;
    ret->state = (enum hp_state)from->state;
    ret->reason = (enum hp_end_reason)from->reason;
    ret->attempt = from->attempt;
    ret->failures = from->failures;
    ret->losses = from->losses;
    ret->group = from->group;
    ret->group_count = from->group_count;
    ret->created_at_ms = from->created_at_ms;
    ret->run_at_ms = from->run_at_ms;
    ret->started_at_ms = from->started_at_ms;
    ret->ended_at_ms = from->ended_at_ms;
    ret->payload_size = from->payload_size;
    err = hp_view_str(from->node, arena, &ret->node);
    if (err == HP_OK && (from->has & HP_HAS_ST_TASK_STATUS_OPTIONS) != 0) {
        struct hp_options *options = HP_ARENA_NEW(arena, struct hp_options);

        err = options == NULL ? HP_ERR_NOMEM : hp_view_options(&from->options, arena, options);
        ret->options = options;
    }
    if (err == HP_OK && (from->has & HP_HAS_ST_TASK_STATUS_END) != 0) {
        err = view_end(&from->end, arena, copy, ret_end);
        ret->end = ret_end;
    }
    return err;
}

/* A task list and the memory it points into. */
struct owned_list {
    struct hp_arena arena;
    struct hp_task_list list;
};

struct hp_task_list *hp_view_task_list_new(struct hp_arena **ret_arena, size_t count)
{
    struct owned_list *owned = hp_calloc(1, sizeof(*owned));

    if (owned == NULL) {
        return NULL;
    }
    hp_arena_init(&owned->arena, 4096, SIZE_MAX / 8);
    owned->list.tasks = hp_calloc(count > 0 ? count : 1, sizeof(*owned->list.tasks));
    if (owned->list.tasks == NULL) {
        hp_free(owned);
        return NULL;
    }
    *ret_arena = &owned->arena;
    return &owned->list;
}

void hp_task_list_free(struct hp_task_list *list)
{
    if (list != NULL) {
        struct owned_list *owned = HP_CONTAINER_OF(list, struct owned_list, list);

        hp_arena_deinit(&owned->arena);
        hp_free(list->tasks);
        hp_free(owned);
    }
}
