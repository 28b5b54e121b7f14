/* SPDX-License-Identifier: BSD-2-Clause */
/* Selectors become ids: the broker knows batches, arrays and what was submitted last. */
#include "cli/sel.h"

#include <string.h>

/* Ids of one get; the broker takes more, but pages of this size keep answers quick. */
#define PAGE_IDS 1000u
/* Ids that one command works on. */
#define IDS_MAX UINT64_C(10000000)

int hp_cli_each_listed(struct hp_cli *cli, const struct hp_filter *filter, hp_cli_task_fn take,
                       void *context)
{
    struct hp_filter page = *filter;
    do {
        struct hp_task_list *list = NULL;
        enum hp_status status = hp_list(cli->client, &page, HP_TIMEOUT_DEFAULT, &list);
        if (status != HP_STATUS_OK) {
            return hp_cli_fail(cli, status, "cannot list tasks");
        }
        bool is_on = true;
        for (size_t i = 0; is_on && i < list->count; i++) {
            is_on = take(context, &list->tasks[i]);
        }
        page.before = is_on ? list->next : 0;
        hp_task_list_free(list);
    } while (page.before != 0);
    return 0;
}

static int get_page(struct hp_cli *cli, struct hp_ids ids, unsigned detail, hp_cli_task_fn take,
                    void *context, bool *ret_is_on)
{
    struct hp_task_list *list = NULL;
    enum hp_status status = hp_get(cli->client, &ids, 1, detail, HP_TIMEOUT_DEFAULT, &list);
    if (status != HP_STATUS_OK) {
        return hp_cli_fail(cli, status, "cannot get tasks");
    }
    for (size_t i = 0; *ret_is_on && i < list->count; i++) {
        *ret_is_on = take(context, &list->tasks[i]);
    }
    hp_task_list_free(list);
    return 0;
}

int hp_cli_each_id(struct hp_cli *cli, const struct hp_cli_ids *ids, unsigned detail,
                   hp_cli_task_fn take, void *context)
{
    bool is_on = true;
    for (size_t i = 0; i < ids->count && is_on; i++) {
        struct hp_ids rest = ids->ranges[i];
        while (rest.count > 0 && is_on) {
            uint32_t part = rest.count < PAGE_IDS ? rest.count : PAGE_IDS;
            struct hp_ids page = {.first = rest.first, .count = part};
            int code = get_page(cli, page, detail, take, context, &is_on);
            if (code != 0) {
                return code;
            }
            rest.first += part;
            rest.count -= part;
        }
    }
    return 0;
}

bool hp_cli_is_missing(const struct hp_task *task, int *code)
{
    if (task->state != HP_STATE_UNKNOWN && task->state != HP_STATE_GONE) {
        return false;
    }
    unsigned long long id = task->id;
    if (task->state == HP_STATE_GONE) {
        hp_cli_error("task %llu is gone: it ended, and its time to be kept is over.", id);
    } else {
        hp_cli_error("no task %llu.", id);
        hp_cli_hint("See what there is: hostpool ls user=any state=any");
    }
    *code = HP_CLI_NOT_FOUND;
    return true;
}

/* ---------------------------------------------------------------- kinds of selectors */

static bool collect(void *context, const struct hp_task *task)
{
    struct hp_cli_ids *ids = context;
    hp_cli_ids_add(ids, task->id, 1);
    return ids->total < IDS_MAX;
}

/* Lists come newest first; ids are wanted in the order of their submit. */
static void add_reversed(struct hp_cli_ids *ids, struct hp_cli_ids *listed)
{
    for (size_t i = listed->count; i > 0; i--) {
        hp_cli_ids_add(ids, listed->ranges[i - 1].first, listed->ranges[i - 1].count);
    }
    hp_cli_ids_free(listed);
}

static int resolve_list(struct hp_cli *cli, const struct hp_cli_sel *sel, enum hp_cli_scope scope,
                        struct hp_cli_ids *ids)
{
    struct hp_filter filter;
    hp_filter_init(&filter);
    filter.limit = 1000;
    filter.batch = sel->kind == HP_CLI_SEL_BATCH ? sel->batch : NULL;
    filter.user = sel->kind == HP_CLI_SEL_ALL ? cli->user : NULL;
    bool is_unfinished = scope == HP_CLI_SCOPE_UNFINISHED && sel->kind == HP_CLI_SEL_ALL;
    filter.states = is_unfinished ? HP_CLI_STATES_UNFINISHED : 0;
    struct hp_cli_ids listed = {0};
    int code = hp_cli_each_listed(cli, &filter, collect, &listed);
    if (code == 0 && listed.total == 0 && sel->kind == HP_CLI_SEL_BATCH) {
        hp_cli_error("no batch \"%s\".", sel->batch);
        hp_cli_hint("See what there is: hostpool ls user=any state=any -o batch,id,name");
        code = HP_CLI_NOT_FOUND;
    }
    add_reversed(ids, &listed);
    return code;
}

static bool take_last(void *context, const struct hp_task *task)
{
    struct hp_ids *ids = context;
    bool is_grouped = task->group != 0 && task->group_count > 0;
    ids->first = is_grouped ? task->group : task->id;
    ids->count = is_grouped ? task->group_count : 1;
    return false;
}

static int resolve_last(struct hp_cli *cli, struct hp_cli_ids *ids)
{
    struct hp_filter filter;
    hp_filter_init(&filter);
    filter.limit = 1;
    filter.user = cli->user;
    struct hp_ids found = {0};
    int code = hp_cli_each_listed(cli, &filter, take_last, &found);
    if (code == 0 && found.count == 0) {
        hp_cli_error("\"last\": you (%s) have submitted no task yet.", cli->user);
        code = HP_CLI_NOT_FOUND;
    }
    hp_cli_ids_add(ids, found.first, found.count);
    return code;
}

struct array {
    const struct hp_cli_sel *sel;
    struct hp_cli_ids *ids;
    int code;
};

static bool take_members(void *context, const struct hp_task *task)
{
    struct array *array = context;
    const struct hp_cli_sel *sel = array->sel;
    if (hp_cli_is_missing(task, &array->code)) {
        return false;
    }
    uint64_t base = task->options != NULL ? task->options->array_base : 0;
    uint64_t step =
        task->options != NULL && task->options->array_step > 0 ? task->options->array_step : 1;
    uint64_t first = task->group != 0 ? task->group : task->id;
    uint64_t count = task->group_count > 0 ? task->group_count : 1;
    for (uint64_t n = sel->first; n <= sel->last; n += sel->step) {
        if (n < base || (n - base) % step != 0 || (n - base) / step >= count) {
            hp_cli_error("no task %llu.%llu: the array has members %llu to %llu.",
                         (unsigned long long)sel->array, (unsigned long long)n,
                         (unsigned long long)base, (unsigned long long)(base + step * (count - 1)));
            array->code = HP_CLI_NOT_FOUND;
            return false;
        }
        hp_cli_ids_add(array->ids, first + (n - base) / step, 1);
        if (sel->last - n < sel->step) {
            break;
        }
    }
    return false;
}

static int resolve_members(struct hp_cli *cli, const struct hp_cli_sel *sel, struct hp_cli_ids *ids)
{
    struct array array = {.sel = sel, .ids = ids};
    bool is_on = true;
    struct hp_ids one = {.first = sel->array, .count = 1};
    int code = get_page(cli, one, HP_DETAIL_OPTIONS, take_members, &array, &is_on);
    return code != 0 ? code : array.code;
}

static int resolve_range(const struct hp_cli_sel *sel, struct hp_cli_ids *ids)
{
    uint64_t count = (sel->last - sel->first) / sel->step + 1;
    if (count == 0 || count > IDS_MAX - (ids->total < IDS_MAX ? ids->total : IDS_MAX)) {
        hp_cli_error("%llu-%llu: more than 10,000,000 tasks at once.",
                     (unsigned long long)sel->first, (unsigned long long)sel->last);
        return HP_CLI_USAGE;
    }
    if (sel->step == 1) {
        hp_cli_ids_add(ids, sel->first, count);
        return 0;
    }
    for (uint64_t i = 0; i < count; i++) {
        hp_cli_ids_add(ids, sel->first + i * sel->step, 1);
    }
    return 0;
}

static int resolve_one(struct hp_cli *cli, const struct hp_cli_sel *sel, enum hp_cli_scope scope,
                       struct hp_cli_ids *ids)
{
    switch (sel->kind) {
    case HP_CLI_SEL_RANGE:
        return resolve_range(sel, ids);
    case HP_CLI_SEL_MEMBERS:
        return resolve_members(cli, sel, ids);
    case HP_CLI_SEL_BATCH:
    case HP_CLI_SEL_ALL:
        return resolve_list(cli, sel, scope, ids);
    case HP_CLI_SEL_LAST:
        return resolve_last(cli, ids);
    }
    return 0;
}

/* Filters instead of selectors: what `ls` would list with them. */
static int resolve_filters(struct hp_cli *cli, const struct hp_cli_sels *sels,
                           enum hp_cli_scope scope, struct hp_cli_ids *ids)
{
    struct hp_cli_filter filter = {0};
    struct hp_cli_ids listed = {0};
    hp_filter_init(&filter.base);
    int code = 0;
    for (size_t i = 0; code == 0 && i < cli->args.operand_count; i++) {
        const char *word = cli->args.operands[i];
        code = hp_cli_filter_is(word) ? hp_cli_filter_take(cli, &filter, word) : 0;
    }
    for (size_t i = 0; code == 0 && i < sels->count; i++) {
        if (sels->items[i].kind == HP_CLI_SEL_BATCH && filter.base.batch == NULL) {
            filter.base.batch = sels->items[i].batch;
        } else if (sels->items[i].kind != HP_CLI_SEL_ALL) {
            code = hp_cli_usage(cli->args.verb,
                                "filters go together with one @batch or all, not ids.");
        }
    }
    if (code != 0) {
        return code;
    }
    if (!filter.has_states && scope == HP_CLI_SCOPE_UNFINISHED) {
        filter.base.states = HP_CLI_STATES_UNFINISHED;
    }
    if (filter.base.user == NULL && !filter.is_user_any && filter.base.batch == NULL) {
        filter.base.user = cli->user;
    }
    filter.base.limit = 1000;
    code = cli->client == NULL ? hp_cli_connect(cli) : 0;
    if (code == 0) {
        code = hp_cli_each_listed(cli, &filter.base, collect, &listed);
    }
    add_reversed(ids, &listed);
    return code;
}

int hp_cli_resolve(struct hp_cli *cli, enum hp_cli_scope scope, struct hp_cli_ids *ids)
{
    struct hp_cli_sels sels = {0};
    bool has_filters = false;
    for (size_t i = 0; i < cli->args.operand_count; i++) {
        const char *word = cli->args.operands[i];
        const char *error = "";
        if (hp_cli_filter_is(word)) {
            has_filters = true;
        } else if (!hp_cli_sel_parse(word, &sels, &error)) {
            return hp_cli_usage(cli->args.verb, "\"%s\" %s.   (hostpool help selectors)", word,
                                error);
        }
    }
    if (has_filters && cli->args.verb->run != hp_cli_ls) {
        return resolve_filters(cli, &sels, scope, ids);
    }
    int code = cli->client == NULL ? hp_cli_connect(cli) : 0;
    for (size_t i = 0; code == 0 && i < sels.count; i++) {
        code = resolve_one(cli, &sels.items[i], scope, ids);
    }
    return code;
}
