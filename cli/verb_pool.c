/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool pool ls|show|close|terminate. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/listing.h"
#include "common/base/str.h"

enum column {
    POOL,
    NAME,
    STATE,
    PROCESSES,
    CHILDREN,
    LIVE,
    RUNNING,
    CLIENT,
    ERROR,
    LANGUAGE,
    USER,
    CREATED,
    COLUMN_COUNT
};

static const struct hp_cli_column columns[COLUMN_COUNT] = {
    [POOL] = {"pool", true, true, false, "Id; it is a task, too: show, wait and cancel take it"},
    [NAME] = {"name", true, false, true, "Name"},
    [STATE] = {"state", true, false, false, "open, closing or ending"},
    [PROCESSES] = {"processes", true, true, false, "Children it is to have now, on all workers"},
    [CHILDREN] = {"children", true, true, false, "Children that are set up"},
    [LIVE] = {"live", true, true, false, "Calls that have not ended"},
    [RUNNING] = {"running", true, true, false, "Calls at workers"},
    [CLIENT] = {"client", true, false, false, "connected, gone or detached"},
    [ERROR] = {"error", true, false, true, "Why its children cannot be set up"},
    [LANGUAGE] = {"language", false, false, false, "What its children run"},
    [USER] = {"user", false, false, false, "Who made it"},
    [CREATED] = {"created", false, true, false, "When it was made"},
};

static void text_cell(const struct hp_pool_entry *pool, size_t column, struct hp_cli_cell *cell)
{
    cell->kind = HP_CLI_CELL_TEXT;
    if (column == STATE) {
        cell->text = hp_pool_phase_word(pool->phase);
        cell->color = pool->phase == HP_POOL_OPEN ? "green" : "yellow";
    } else if (column == CLIENT) {
        cell->text = pool->detached ? "detached" : pool->owned ? "connected" : "gone";
        cell->color = !pool->detached && !pool->owned ? "yellow" : NULL;
    } else {
        cell->text = column == NAME       ? pool->name
                     : column == ERROR    ? pool->error
                     : column == LANGUAGE ? pool->language
                                          : pool->user;
        cell->kind = cell->text == NULL ? HP_CLI_CELL_NONE : HP_CLI_CELL_TEXT;
    }
}

static void pool_cell(const struct hp_cli *cli, const void *row, size_t column,
                      struct hp_cli_cell *cell)
{
    const struct hp_pool_entry *pool = row;
    const uint64_t numbers[COLUMN_COUNT] = {[POOL] = pool->id,
                                            [PROCESSES] = pool->processes,
                                            [CHILDREN] = pool->children,
                                            [LIVE] = pool->live,
                                            [RUNNING] = pool->running};
    (void)cli;
    switch ((enum column)column) {
    case POOL:
    case PROCESSES:
    case CHILDREN:
    case LIVE:
    case RUNNING:
        cell->kind = HP_CLI_CELL_NUMBER;
        cell->number = numbers[column];
        break;
    case CREATED:
        cell->kind = HP_CLI_CELL_TIME;
        cell->signed_number = pool->created_at_ms;
        break;
    case NAME:
    case STATE:
    case CLIENT:
    case ERROR:
    case LANGUAGE:
    case USER:
    case COLUMN_COUNT:
    default:
        text_cell(pool, column, cell);
        break;
    }
}

static const struct hp_cli_listing_spec spec = {.list_name = "pools",
                                                .columns = columns,
                                                .column_count = COLUMN_COUNT,
                                                .id_column = POOL,
                                                .cell = pool_cell};

int hp_cli_pool_ls(struct hp_cli *cli)
{
    struct hp_cli_listing *listing = NULL;
    uint64_t after = 0;
    int code = hp_cli_listing_begin(cli, &spec, &listing);
    if (code != 0 || listing == NULL) {
        return code;
    }
    code = hp_cli_connect(cli);
    if (code != 0) {
        return code;
    }
    do {
        struct hp_pool_list *list = NULL;
        enum hp_status status = hp_pool_list(cli->client, after, HP_TIMEOUT_DEFAULT, &list);
        if (status != HP_STATUS_OK) {
            return hp_cli_fail(cli, status, "cannot ask for pools");
        }
        for (size_t i = 0; i < list->count; i++) {
            hp_cli_listing_add(listing, &list->pools[i]);
        }
        after = list->next;
        hp_pool_list_free(list);
    } while (after != 0);
    return hp_cli_listing_end(listing);
}

static int no_pool(struct hp_cli *cli, enum hp_status status, const char *text)
{
    if (status == HP_STATUS_NOT_FOUND) {
        hp_cli_error("no pool %s.", text);
        hp_cli_hint("See: hostpool pool ls");
        return HP_CLI_NOT_FOUND;
    }
    return hp_cli_fail(cli, status, "cannot ask for the pool");
}

static int pool_id(const char *text, uint64_t *ret_id)
{
    if (hp_parse_u64(hp_str_of(text), ret_id, NULL) != HP_OK || *ret_id == 0) {
        hp_cli_error("\"%s\" is no id of a pool.", HP_CLI_SAFE(text));
        hp_cli_hint("See: hostpool pool ls");
        return HP_CLI_USAGE;
    }
    return 0;
}

int hp_cli_pool_show(struct hp_cli *cli)
{
    struct hp_pool_info *info = NULL;
    struct hp_pool_list *list = NULL;
    uint64_t id = 0;
    int code = pool_id(cli->args.operands[0], &id);
    code = code == 0 ? hp_cli_connect(cli) : code;
    if (code != 0) {
        return code;
    }
    enum hp_status status = hp_pool_query(cli->client, id, 0, HP_TIMEOUT_DEFAULT, &info);
    if (status != HP_STATUS_OK) {
        return no_pool(cli, status, cli->args.operands[0]);
    }
    status = hp_pool_list(cli->client, id - 1, HP_TIMEOUT_DEFAULT, &list);
    if (status != HP_STATUS_OK || list->count == 0 || list->pools[0].id != id) {
        hp_cli_error("pool %" PRIu64 " has ended.", id);
        hp_cli_hint("What is left of it: hostpool show %" PRIu64, id);
        code = HP_CLI_NOT_FOUND;
    } else {
        const void *rows[] = {&list->pools[0]};
        code = hp_cli_show_rows(cli, &spec, rows, 1);
        bool is_json = hp_cli_has(cli, HP_CLI_F_JSON) || hp_cli_has(cli, HP_CLI_F_JSONL);
        for (size_t i = 0; i < info->child_count && !is_json; i++) {
            (void)printf("child      process %" PRIu32 " on %s\n", info->children[i].pid,
                         HP_CLI_SAFE(info->children[i].node));
        }
    }
    hp_pool_list_free(list);
    hp_pool_info_free(info);
    return code;
}

static int end_pools(struct hp_cli *cli, enum hp_pool_how how)
{
    int code = hp_cli_connect(cli);
    for (size_t i = 0; code == 0 && i < cli->args.operand_count; i++) {
        uint64_t id = 0;
        code = pool_id(cli->args.operands[i], &id);
        if (code != 0) {
            return code;
        }
        enum hp_pool_phase phase = HP_POOL_ENDED;
        enum hp_status status = hp_pool_end(cli->client, id, how, HP_TIMEOUT_DEFAULT, &phase);
        if (status != HP_STATUS_OK) {
            return no_pool(cli, status, cli->args.operands[i]);
        }
        if (phase == HP_POOL_ENDED) {
            hp_cli_error("pool %" PRIu64 " has ended already.", id);
        }
    }
    return code;
}

int hp_cli_pool_close(struct hp_cli *cli)
{
    return end_pools(cli, HP_POOL_CLOSE);
}

int hp_cli_pool_terminate(struct hp_cli *cli)
{
    return end_pools(cli, HP_POOL_TERMINATE);
}
