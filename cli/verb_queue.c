/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool queue ls|show|pause|resume. */
#include "cli/listing.h"

enum column { QUEUE, STATE, READY, DELAYED, RUNNING, DONE, FAILED, COLUMN_COUNT };

static const struct hp_cli_column columns[COLUMN_COUNT] = {
    [QUEUE] = {"queue", true, false, true, "Name"},
    [STATE] = {"state", true, false, false, "open or paused"},
    [READY] = {"queued", true, true, false, "Tasks that could start"},
    [DELAYED] = {"delayed", true, true, false, "Tasks that wait for their time"},
    [RUNNING] = {"running", true, true, false, "Tasks at workers"},
    [DONE] = {"done", true, true, false, "Succeeded since the broker started"},
    [FAILED] = {"failed", true, true, false,
                "Failed, cancelled or expired since the broker started"},
};

static void queue_cell(const struct hp_cli *cli, const void *row, size_t column,
                       struct hp_cli_cell *cell)
{
    const struct hp_queue *queue = row;
    const uint64_t numbers[COLUMN_COUNT] = {[READY] = queue->ready,
                                            [DELAYED] = queue->delayed,
                                            [RUNNING] = queue->running,
                                            [DONE] = queue->done,
                                            [FAILED] = queue->failed};
    (void)cli;
    if (column == QUEUE || column == STATE) {
        cell->kind = HP_CLI_CELL_TEXT;
        cell->text = column == QUEUE ? queue->name : queue->paused ? "paused" : "open";
        cell->color = column == STATE && queue->paused ? "yellow" : NULL;
        return;
    }
    cell->kind = HP_CLI_CELL_NUMBER;
    cell->number = numbers[column];
}

static const struct hp_cli_listing_spec spec = {.list_name = "queues",
                                                .columns = columns,
                                                .column_count = COLUMN_COUNT,
                                                .id_column = QUEUE,
                                                .cell = queue_cell};

static int no_queue(struct hp_cli *cli, enum hp_status status, const char *name)
{
    if (status == HP_STATUS_NOT_FOUND) {
        hp_cli_error("no queue \"%s\".", name);
        hp_cli_hint("See: hostpool queue ls");
        return HP_CLI_NOT_FOUND;
    }
    return hp_cli_fail(cli, status, "cannot ask for queues");
}

int hp_cli_queue_ls(struct hp_cli *cli)
{
    struct hp_cli_listing *listing = NULL;
    struct hp_queue_list *list = NULL;
    int code = hp_cli_listing_begin(cli, &spec, &listing);
    if (code != 0 || listing == NULL) {
        return code;
    }
    code = hp_cli_connect(cli);
    if (code != 0) {
        return code;
    }
    enum hp_status status = hp_queue_get(cli->client, NULL, HP_TIMEOUT_DEFAULT, &list);
    if (status != HP_STATUS_OK) {
        return no_queue(cli, status, "");
    }
    for (size_t i = 0; i < list->count; i++) {
        hp_cli_listing_add(listing, &list->queues[i]);
    }
    code = hp_cli_listing_end(listing);
    hp_queue_list_free(list);
    return code;
}

int hp_cli_queue_show(struct hp_cli *cli)
{
    struct hp_queue_list *list = NULL;
    const char *name = cli->args.operands[0];
    int code = hp_cli_connect(cli);
    if (code != 0) {
        return code;
    }
    enum hp_status status = hp_queue_get(cli->client, name, HP_TIMEOUT_DEFAULT, &list);
    if (status != HP_STATUS_OK || list->count == 0) {
        hp_queue_list_free(list);
        return no_queue(cli, status != HP_STATUS_OK ? status : HP_STATUS_NOT_FOUND, name);
    }
    const void *rows[] = {&list->queues[0]};
    code = hp_cli_show_rows(cli, &spec, rows, 1);
    hp_queue_list_free(list);
    return code;
}

static int set_paused(struct hp_cli *cli, bool is_paused)
{
    int code = hp_cli_connect(cli);
    for (size_t i = 0; code == 0 && i < cli->args.operand_count; i++) {
        const char *name = cli->args.operands[i];
        bool is_changed = false;
        enum hp_status status =
            hp_queue_pause(cli->client, name, is_paused, HP_TIMEOUT_DEFAULT, &is_changed);
        if (status != HP_STATUS_OK) {
            return no_queue(cli, status, name);
        }
        if (!is_changed) {
            hp_cli_error("queue \"%s\" %s already.", name, is_paused ? "was paused" : "was open");
        }
    }
    return code;
}

int hp_cli_queue_pause(struct hp_cli *cli)
{
    return set_paused(cli, true);
}

int hp_cli_queue_resume(struct hp_cli *cli)
{
    return set_paused(cli, false);
}
