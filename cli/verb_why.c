/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool why: the broker's words on a task. */
#include "cli/listing.h"
#include "cli/sel.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

struct why {
    json_t *list;
    uint64_t count;
};

static void print_lines(uint64_t id, const struct hp_lines *lines)
{
    if (lines->count == 0) {
        (void)printf("%" PRIu64 " is %s.\n", id, hp_cli_state_word(lines->state));
    }
    for (size_t i = 0; i < lines->count; i++) {
        (void)printf("%s\n", HP_CLI_SAFE(lines->lines[i]));
    }
}

static json_t *lines_json(uint64_t id, const struct hp_lines *lines)
{
    json_t *list = json_array();
    for (size_t i = 0; i < lines->count; i++) {
        (void)json_array_append_new(list,
                                    hp_cli_json_text(lines->lines[i], strlen(lines->lines[i])));
    }
    return json_pack("{s:I,s:s,s:o}", "id", (json_int_t)id, "state",
                     hp_cli_state_word(lines->state), "lines", list);
}

static int why_one(struct hp_cli *cli, struct why *why, uint64_t id)
{
    struct hp_lines *lines = NULL;
    enum hp_status status = hp_why(cli->client, id, HP_TIMEOUT_DEFAULT, &lines);
    if (status == HP_STATUS_NOT_FOUND) {
        struct hp_task task = {.id = id, .state = HP_STATE_UNKNOWN};
        int code = 0;
        (void)hp_cli_is_missing(&task, &code);
        return code;
    }
    if (status != HP_STATUS_OK) {
        return hp_cli_fail(cli, status, "cannot tell why");
    }
    if (why->list != NULL) {
        (void)json_array_append_new(why->list, lines_json(id, lines));
    } else if (hp_cli_has(cli, HP_CLI_F_JSONL)) {
        (void)hp_cli_json_print(cli, lines_json(id, lines));
    } else {
        (void)printf("%s", why->count++ > 0 ? "\n" : "");
        print_lines(id, lines);
    }
    hp_lines_free(lines);
    return 0;
}

int hp_cli_why(struct hp_cli *cli)
{
    struct hp_cli_ids ids = {0};
    struct why why = {0};
    int code = hp_cli_resolve(cli, HP_CLI_SCOPE_UNFINISHED, &ids);
    if (hp_cli_has(cli, HP_CLI_F_JSON) && !hp_cli_has(cli, HP_CLI_F_JSONL)) {
        why.list = json_array();
    }
    int worst = code;
    for (size_t i = 0; code == 0 && i < ids.count; i++) {
        for (uint32_t n = 0; n < ids.ranges[i].count; n++) {
            int one = why_one(cli, &why, ids.ranges[i].first + n);
            worst = worst != 0 ? worst : one;
            if (one == HP_CLI_UNREACHABLE) {
                n = ids.ranges[i].count - 1;
                i = ids.count - 1;
            }
        }
    }
    if (why.list != NULL) {
        json_t *document = json_object();
        (void)json_object_set_new(document, "tasks", why.list);
        (void)hp_cli_json_print(cli, document);
    }
    hp_cli_ids_free(&ids);
    return worst;
}
