/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool worker ls|show|drain|resume. */
#include "cli/listing.h"

enum column {
    WORKER,
    STATE,
    SLOTS,
    USED,
    HELD,
    DONE,
    SEEN,
    REASON,
    HOST,
    PID,
    MEM,
    TAGS,
    FUNCTIONS,
    COLUMN_COUNT
};

static const struct hp_cli_column columns[COLUMN_COUNT] = {
    [WORKER] = {"worker", true, false, true, "Name"},
    [STATE] = {"state", true, false, false, "online, draining, away or offline"},
    [SLOTS] = {"slots", true, true, false, "Slots"},
    [USED] = {"used", true, true, false, "Slots in use"},
    [HELD] = {"held", true, true, false, "Tasks it holds, running or not"},
    [DONE] = {"done", true, true, false, "Attempts it ended since the broker started"},
    [SEEN] = {"seen", true, true, false, "Time since its last message"},
    [REASON] = {"reason", true, false, true, "Why it is drained"},
    [HOST] = {"host", false, false, true, "Host name"},
    [PID] = {"pid", false, true, false, "Process id"},
    [MEM] = {"mem", false, true, false, "Memory it offers"},
    [TAGS] = {"tags", false, false, true, "Tags"},
    [FUNCTIONS] = {"functions", false, false, true, "Functions"},
};

static const char *state_text(const struct hp_worker *worker)
{
    if (worker->draining && worker->state == HP_WORKER_ONLINE) {
        return "draining";
    }
    return hp_worker_state_word(worker->state);
}

static void text_cell(const struct hp_worker *worker, size_t column, struct hp_cli_cell *cell)
{
    cell->kind = HP_CLI_CELL_TEXT;
    if (column == WORKER) {
        cell->text = worker->node;
    } else if (column == STATE) {
        cell->text = state_text(worker);
        cell->color = worker->state == HP_WORKER_OFFLINE                    ? "red"
                      : worker->draining || worker->state == HP_WORKER_AWAY ? "yellow"
                                                                            : "green";
    } else if (column == REASON) {
        cell->text = worker->drain_reason;
    } else {
        cell->text = worker->host;
    }
    cell->kind = cell->text != NULL ? HP_CLI_CELL_TEXT : HP_CLI_CELL_NONE;
}

static void worker_cell(const struct hp_cli *cli, const void *row, size_t column,
                        struct hp_cli_cell *cell)
{
    const struct hp_worker *worker = row;
    (void)cli;
    cell->kind = HP_CLI_CELL_NUMBER;
    switch (column) {
    case SLOTS:
        cell->number = worker->slots;
        break;
    case USED:
        cell->number = worker->used;
        break;
    case HELD:
        cell->number = worker->assigned;
        break;
    case DONE:
        cell->number = worker->done;
        break;
    case PID:
        cell->number = worker->pid;
        break;
    case SEEN:
        cell->kind = HP_CLI_CELL_DURATION;
        cell->number = worker->seen_ms_ago;
        break;
    case MEM:
        cell->kind = HP_CLI_CELL_SIZE;
        cell->number = worker->mem_bytes;
        break;
    case TAGS:
    case FUNCTIONS:
        cell->kind = HP_CLI_CELL_WORDS;
        cell->words = column == TAGS ? worker->tags : worker->functions;
        cell->word_count = column == TAGS ? worker->tag_count : worker->function_count;
        break;
    default:
        text_cell(worker, column, cell);
        break;
    }
}

static const struct hp_cli_listing_spec spec = {.list_name = "workers",
                                                .columns = columns,
                                                .column_count = COLUMN_COUNT,
                                                .id_column = WORKER,
                                                .cell = worker_cell};

static int no_worker(struct hp_cli *cli, enum hp_status status, const char *name)
{
    if (status == HP_STATUS_NOT_FOUND) {
        hp_cli_error("no worker \"%s\".", name);
        hp_cli_hint("See: hostpool worker ls");
        return HP_CLI_NOT_FOUND;
    }
    return hp_cli_fail(cli, status, "cannot ask for workers");
}

int hp_cli_worker_ls(struct hp_cli *cli)
{
    struct hp_cli_listing *listing = NULL;
    struct hp_worker_list *list = NULL;
    int code = hp_cli_listing_begin(cli, &spec, &listing);
    if (code != 0 || listing == NULL) {
        return code;
    }
    code = hp_cli_connect(cli);
    if (code != 0) {
        return code;
    }
    enum hp_status status = hp_worker_get(cli->client, NULL, HP_TIMEOUT_DEFAULT, &list);
    if (status != HP_STATUS_OK) {
        return no_worker(cli, status, "");
    }
    for (size_t i = 0; i < list->count; i++) {
        hp_cli_listing_add(listing, &list->workers[i]);
    }
    if (list->count == 0 && cli->is_out_terminal) {
        hp_cli_error("the broker knows no worker.");
        hp_cli_hint("Start one: hostpool-worker --help");
    }
    code = hp_cli_listing_end(listing);
    hp_worker_list_free(list);
    return code;
}

int hp_cli_worker_show(struct hp_cli *cli)
{
    struct hp_worker_list *list = NULL;
    const char *name = cli->args.operands[0];
    int code = hp_cli_connect(cli);
    if (code != 0) {
        return code;
    }
    enum hp_status status = hp_worker_get(cli->client, name, HP_TIMEOUT_DEFAULT, &list);
    if (status != HP_STATUS_OK || list->count == 0) {
        hp_worker_list_free(list);
        return no_worker(cli, status != HP_STATUS_OK ? status : HP_STATUS_NOT_FOUND, name);
    }
    const void *rows[] = {&list->workers[0]};
    code = hp_cli_show_rows(cli, &spec, rows, 1);
    hp_worker_list_free(list);
    return code;
}

static int set_drained(struct hp_cli *cli, bool is_on, const char *reason)
{
    int code = hp_cli_connect(cli);
    for (size_t i = 0; code == 0 && i < cli->args.operand_count; i++) {
        const char *name = cli->args.operands[i];
        bool is_changed = false;
        enum hp_status status =
            hp_worker_drain(cli->client, name, is_on, reason, HP_TIMEOUT_DEFAULT, &is_changed);
        if (status != HP_STATUS_OK) {
            return no_worker(cli, status, name);
        }
        if (!is_changed) {
            hp_cli_error("worker \"%s\" was %s already.", name,
                         is_on ? "draining" : "taking tasks");
        }
    }
    return code;
}

int hp_cli_worker_drain(struct hp_cli *cli)
{
    return set_drained(cli, true, hp_cli_text(cli, HP_CLI_F_REASON, NULL));
}

int hp_cli_worker_resume(struct hp_cli *cli)
{
    return set_drained(cli, false, NULL);
}
