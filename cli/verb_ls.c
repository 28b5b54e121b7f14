/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool ls: lists tasks. */
#include "cli/listing.h"
#include "cli/sel.h"

#include <string.h>

/* Tasks listed on a terminal without --limit. */
#define TERMINAL_LIMIT 100

struct ls {
    struct hp_cli_listing *listing;
    struct hp_cli_filter filter;
    uint64_t limit;
    bool is_cut;
    int code;
};

static bool add_task(void *context, const struct hp_task *task)
{
    struct ls *ls = context;
    if (hp_cli_listing_count(ls->listing) >= ls->limit) {
        ls->is_cut = true;
        return false;
    }
    hp_cli_listing_add(ls->listing, task);
    return true;
}

static bool add_named(void *context, const struct hp_task *task)
{
    struct ls *ls = context;
    if (hp_cli_is_missing(task, &ls->code)) {
        return true;
    }
    return !hp_cli_filter_passes(&ls->filter, task) || add_task(ls, task);
}

/* Takes filters, and the selectors which are filters, too: a lone @batch and all. */
static int take_words(struct hp_cli *cli, struct ls *ls, bool *ret_has_ids)
{
    for (size_t i = 0; i < cli->args.operand_count; i++) {
        const char *word = cli->args.operands[i];
        int code = 0;
        if (hp_cli_filter_is(word)) {
            code = hp_cli_filter_take(cli, &ls->filter, word);
        } else if (strcmp(word, "all") == 0) {
            ls->filter.base.states = ls->filter.has_states
                                         ? ls->filter.base.states
                                         : HP_CLI_STATES_UNFINISHED | HP_CLI_STATES_FINISHED;
            ls->filter.has_states = true;
        } else if (word[0] == '@' && strchr(word, ',') == NULL && ls->filter.base.batch == NULL) {
            ls->filter.base.batch = word + 1;
        } else {
            *ret_has_ids = true;
        }
        if (code != 0) {
            return code;
        }
    }
    return 0;
}

static int list_filtered(struct hp_cli *cli, struct ls *ls)
{
    struct hp_filter *base = &ls->filter.base;
    if (!ls->filter.has_states && base->batch == NULL) {
        base->states = HP_CLI_STATES_UNFINISHED;
    }
    if (base->user == NULL && !ls->filter.is_user_any && base->batch == NULL) {
        base->user = cli->user;
    }
    base->detail = HP_DETAIL_END;
    base->limit = ls->limit < 1000 ? (uint32_t)ls->limit + 1 : 1000;
    base->limit = base->limit > 1000 ? 1000 : base->limit;
    return hp_cli_each_listed(cli, base, add_task, ls);
}

static int list_named(struct hp_cli *cli, struct ls *ls)
{
    struct hp_cli_ids ids = {0};
    int code = hp_cli_resolve(cli, HP_CLI_SCOPE_ANY, &ids);
    if (code == 0) {
        code = hp_cli_each_id(cli, &ids, HP_DETAIL_OPTIONS | HP_DETAIL_END, add_named, ls);
    }
    hp_cli_ids_free(&ids);
    return code != 0 ? code : ls->code;
}

static void say_rest(const struct hp_cli *cli, const struct ls *ls)
{
    if (ls->is_cut && !hp_cli_has(cli, HP_CLI_F_LIMIT)) {
        hp_cli_error("only the newest %d are shown; for all: --limit 1000000.", TERMINAL_LIMIT);
    } else if (hp_cli_listing_count(ls->listing) == 0 && cli->is_out_terminal &&
               cli->args.operand_count == 0) {
        hp_cli_error("you have no unfinished tasks.");
        hp_cli_hint("Finished ones: hostpool ls all      Of everybody: hostpool ls user=any");
    }
}

int hp_cli_ls(struct hp_cli *cli)
{
    struct ls ls = {0};
    bool has_ids = false;
    hp_filter_init(&ls.filter.base);
    ls.limit = hp_cli_number(
        cli, HP_CLI_F_LIMIT,
        cli->is_out_terminal && !hp_cli_has(cli, HP_CLI_F_JSON) ? TERMINAL_LIMIT : UINT64_MAX);
    int code = take_words(cli, &ls, &has_ids);
    if (code == 0) {
        code = hp_cli_listing_begin(cli, &hp_cli_task_listing, &ls.listing);
    }
    if (code != 0 || ls.listing == NULL) {
        return code;
    }
    code = hp_cli_connect(cli);
    if (code == 0) {
        code = has_ids ? list_named(cli, &ls) : list_filtered(cli, &ls);
    }
    if (code != 0 && hp_cli_listing_count(ls.listing) == 0) {
        return code;
    }
    if (code == 0 && !hp_cli_has(cli, HP_CLI_F_JSON) && !hp_cli_has(cli, HP_CLI_F_JSONL) &&
        !hp_cli_has(cli, HP_CLI_F_QUIET)) {
        say_rest(cli, &ls);
    }
    int end_code = hp_cli_listing_end(ls.listing);
    return code != 0 ? code : end_code;
}
