/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool wait: until tasks have ended. */
#include "cli/listing.h"
#include "cli/sel.h"
#include "cli/task_options.h"

#include <inttypes.h>
#include <jansson.h>

/* Ids of one wait; more are waited for one after the other. */
#define PART_IDS 1000u
/* Failures named one by one. */
#define NAMED_MAX 10u

struct wait {
    struct hp_cli *cli;
    bool is_any;
    int64_t until_ms; /* monotonic; -1: no limit */
    json_t *list;
    uint64_t failed_count;
    bool is_over; /* the time */
    int code;
};

static int64_t left_ms(const struct wait *wait)
{
    if (wait->until_ms < 0) {
        return HP_TIMEOUT_NONE;
    }
    int64_t now_ms = hp_cli_mono_ms();
    return wait->until_ms > now_ms ? wait->until_ms - now_ms : 0;
}

static void take_failed(struct wait *wait, const struct hp_task *task)
{
    wait->failed_count++;
    if (wait->code == 0) {
        wait->code = HP_CLI_FAILED;
    }
    if (wait->failed_count <= NAMED_MAX) {
        const char *node = task->node != NULL ? HP_CLI_SAFE(task->node) : NULL;
        hp_cli_error("task %" PRIu64 " %s%s%s: %s.", task->id, hp_cli_state_word(task->state),
                     node != NULL ? " on " : "", node != NULL ? node : "", hp_cli_end_text(task));
    }
}

static void take_task(struct wait *wait, const struct hp_task *task)
{
    if (hp_cli_is_missing(task, &wait->code)) {
        return;
    }
    if (wait->list != NULL) {
        (void)json_array_append_new(
            wait->list, hp_cli_row_json(wait->cli, &hp_cli_task_listing, task, NULL, 0));
    }
    if (!hp_state_is_final(task->state)) {
        wait->is_over |= !wait->is_any;
        return;
    }
    if (wait->is_any && wait->list == NULL) {
        (void)printf("%" PRIu64 "\n", task->id);
    }
    if (task->state != HP_STATE_DONE) {
        take_failed(wait, task);
    }
}

static int wait_part(struct wait *wait, const struct hp_ids *ids, size_t count)
{
    struct hp_task_list *list = NULL;
    enum hp_status status =
        hp_wait(wait->cli->client, ids, count, wait->is_any ? HP_WAIT_ANY : HP_WAIT_ALL,
                HP_DETAIL_END, left_ms(wait), &list);
    if (status == HP_STATUS_TIMEOUT) {
        wait->is_over = true;
        return 0;
    }
    if (status != HP_STATUS_OK) {
        return hp_cli_fail(wait->cli, status, "cannot wait");
    }
    for (size_t i = 0; i < list->count; i++) {
        take_task(wait, &list->tasks[i]);
    }
    wait->is_over |= list->timed_out;
    hp_task_list_free(list);
    return 0;
}

/* All: range after range, in parts. The time is one for all of them. */
static int wait_all(struct wait *wait, const struct hp_cli_ids *ids)
{
    int code = 0;
    for (size_t i = 0; code == 0 && i < ids->count; i++) {
        struct hp_ids rest = ids->ranges[i];
        while (code == 0 && rest.count > 0) {
            uint32_t part = rest.count < PART_IDS ? rest.count : PART_IDS;
            struct hp_ids now = {.first = rest.first, .count = part};
            code = wait_part(wait, &now, 1);
            rest.first += part;
            rest.count -= part;
        }
    }
    return code;
}

static int wait_end(struct wait *wait, int code)
{
    struct hp_cli *cli = wait->cli;
    if (wait->list != NULL) {
        json_t *document = json_object();
        (void)json_object_set_new(document, "tasks", wait->list);
        (void)json_object_set_new(document, "timed_out", json_boolean(wait->is_over));
        (void)hp_cli_json_print(cli, document);
    }
    if (wait->failed_count > NAMED_MAX) {
        hp_cli_error("and %" PRIu64 " more did not succeed.", wait->failed_count - NAMED_MAX);
    }
    if (code == 0 && wait->is_over) {
        hp_cli_error("the time is over and not all have ended.");
        hp_cli_hint("They go on. See: hostpool ls; hostpool why ID");
        return HP_CLI_TIMEOUT;
    }
    return code != 0 ? code : wait->code;
}

int hp_cli_wait_ids(struct hp_cli *cli, const struct hp_cli_ids *ids, bool is_any,
                    int64_t timeout_ms)
{
    struct wait wait = {.cli = cli, .is_any = is_any, .until_ms = -1};
    if (timeout_ms >= 0) {
        wait.until_ms = hp_cli_mono_ms() + timeout_ms;
    }
    bool is_verb = cli->args.verb->run == hp_cli_wait;
    if (is_verb && (hp_cli_has(cli, HP_CLI_F_JSON) || hp_cli_has(cli, HP_CLI_F_JSONL))) {
        wait.list = json_array();
    }
    int code =
        is_any && ids->count > 0 ? wait_part(&wait, ids->ranges, ids->count) : wait_all(&wait, ids);
    return wait_end(&wait, code);
}

int hp_cli_wait(struct hp_cli *cli)
{
    if (hp_cli_has(cli, HP_CLI_F_ANY) && hp_cli_has(cli, HP_CLI_F_ALL)) {
        return hp_cli_usage(cli->args.verb, "--any and --all exclude each other.");
    }
    struct hp_cli_ids ids = {0};
    int code = hp_cli_resolve(cli, HP_CLI_SCOPE_UNFINISHED, &ids);
    if (code == 0) {
        int64_t timeout_ms = hp_cli_has(cli, HP_CLI_F_WAIT_TIMEOUT)
                                 ? (int64_t)hp_cli_number(cli, HP_CLI_F_WAIT_TIMEOUT, 0)
                                 : HP_TIMEOUT_NONE;
        code = hp_cli_wait_ids(cli, &ids, hp_cli_has(cli, HP_CLI_F_ANY), timeout_ms);
    }
    hp_cli_ids_free(&ids);
    return code;
}
