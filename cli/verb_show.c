/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool show: one page for each task. */
#include "cli/listing.h"
#include "cli/sel.h"

#include <jansson.h>

struct show {
    struct hp_cli *cli;
    json_t *list;
    uint64_t count;
    int code;
};

static bool show_task(void *context, const struct hp_task *task)
{
    struct show *show = context;
    struct hp_cli *cli = show->cli;
    if (hp_cli_is_missing(task, &show->code)) {
        return true;
    }
    if (show->list != NULL) {
        (void)json_array_append_new(show->list,
                                    hp_cli_row_json(cli, &hp_cli_task_page, task, NULL, 0));
        return true;
    }
    if (show->count++ > 0 && !hp_cli_has(cli, HP_CLI_F_JSONL)) {
        (void)putchar('\n');
    }
    const void *rows[] = {task};
    (void)hp_cli_show_rows(cli, &hp_cli_task_page, rows, 1);
    return true;
}

int hp_cli_show(struct hp_cli *cli)
{
    struct show show = {.cli = cli};
    struct hp_cli_ids ids = {0};
    int code = hp_cli_resolve(cli, HP_CLI_SCOPE_ANY, &ids);
    if (code == 0 && hp_cli_has(cli, HP_CLI_F_JSON) && !hp_cli_has(cli, HP_CLI_F_JSONL)) {
        show.list = json_array();
    }
    if (code == 0) {
        code = hp_cli_each_id(cli, &ids, HP_DETAIL_OPTIONS | HP_DETAIL_END, show_task, &show);
    }
    if (show.list != NULL) {
        json_t *document = json_object();
        (void)json_object_set_new(document, "tasks", show.list);
        code |= hp_cli_json_print(cli, document);
    }
    hp_cli_ids_free(&ids);
    return code != 0 ? code : show.code;
}
