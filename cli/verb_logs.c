/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool logs: what tasks wrote, of ended and of running ones. */
#include "cli/output.h"
#include "cli/sel.h"

#include <inttypes.h>
#include <signal.h>

/* Without --follow: a running task's kept output has come when nothing came for this long. */
#define QUIET_MS 300
/* With --follow: how often the state is looked at while nothing comes. */
#define LOOK_MS 400

struct logs {
    struct hp_cli *cli;
    struct hp_cli_output output;
    uint64_t task_count;
    int code;
};

static int get_task(struct hp_cli *cli, uint64_t id, struct hp_task_list **ret_list)
{
    struct hp_ids ids = {.first = id, .count = 1};
    enum hp_status status = hp_get(cli->client, &ids, 1, HP_DETAIL_END | HP_DETAIL_OPTIONS,
                                   HP_TIMEOUT_DEFAULT, ret_list);
    return status != HP_STATUS_OK ? hp_cli_fail(cli, status, "cannot get the task") : 0;
}

/* Writes what comes until nothing has come for quiet_ms. */
static int take_output(struct logs *logs, int quiet_ms)
{
    struct hp_event event;
    for (;;) {
        enum hp_status status = hp_client_wait_event(logs->cli->client, quiet_ms, &event);
        if (status == HP_STATUS_TIMEOUT) {
            return 0;
        }
        if (status != HP_STATUS_OK) {
            return hp_cli_fail(logs->cli, status, "lost the broker");
        }
        hp_cli_output_event(&logs->output, &event);
        int code = hp_cli_output_code(&logs->output);
        if (code != 0) {
            return code;
        }
    }
}

static bool is_running(enum hp_state state)
{
    return state == HP_STATE_LEASED || state == HP_STATE_RUNNING || state == HP_STATE_CANCELLING ||
           state == HP_STATE_WAITING;
}

/* Follows a task that has not ended. *ret_has_ended: its end record is to be printed. */
static int follow(struct logs *logs, uint64_t id, bool to_end, bool *ret_has_ended)
{
    struct hp_cli *cli = logs->cli;
    uint32_t followed = 0; /* attempt */
    int code = 0;
    while (code == 0) {
        struct hp_task_list *list = NULL;
        enum hp_state state = HP_STATE_UNKNOWN;
        code = get_task(cli, id, &list);
        if (code != 0) {
            return code;
        }
        state = list->tasks[0].state;
        uint32_t attempt = list->tasks[0].attempt;
        if (to_end && list->tasks[0].options != NULL) {
            logs->output.cap_bytes = list->tasks[0].options->output_cap_bytes;
        }
        hp_task_list_free(list);
        if (!is_running(state) && (hp_state_is_final(state) || state >= HP_STATE_GONE || !to_end)) {
            *ret_has_ended = hp_state_is_final(state);
            return 0;
        }
        if (is_running(state) && attempt != followed) {
            enum hp_status status = hp_follow(cli->client, id, true, HP_TIMEOUT_DEFAULT, NULL);
            if (status != HP_STATUS_OK) {
                return hp_cli_fail(cli, status, "cannot follow the task");
            }
            followed = attempt;
        }
        code = take_output(logs, to_end ? LOOK_MS : QUIET_MS);
        if (!to_end) {
            (void)hp_follow(cli->client, id, false, HP_TIMEOUT_DEFAULT, NULL); /* we are going */
            return code;
        }
    }
    return code;
}

static int print_end(struct logs *logs, uint64_t id)
{
    struct hp_task_list *list = NULL;
    int code = get_task(logs->cli, id, &list);
    if (code != 0) {
        return code;
    }
    const struct hp_task *task = &list->tasks[0];
    if (!hp_cli_is_missing(task, &code)) {
        code = hp_cli_output_end(&logs->output, logs->cli, task);
        if (task->end != NULL && task->end->error != NULL && logs->output.is_wanted[1] &&
            code == 0) {
            hp_cli_error("task %" PRIu64 ": %s", id, task->end->error);
        }
    }
    hp_task_list_free(list);
    return code != 0 ? code : hp_cli_output_code(&logs->output);
}

static int logs_one(struct logs *logs, uint64_t id)
{
    struct hp_cli *cli = logs->cli;
    bool has_ended = false;
    hp_cli_output_init(&logs->output, id, 0);
    logs->output.is_wanted[0] = !hp_cli_has(cli, HP_CLI_F_STDERR);
    int code = follow(logs, id, hp_cli_has(cli, HP_CLI_F_FOLLOW), &has_ended);
    if (code == 0) {
        code = hp_cli_output_code(&logs->output);
    }
    if (code != 0) {
        return code;
    }
    struct hp_task_list *list = NULL;
    code = has_ended ? print_end(logs, id) : get_task(cli, id, &list);
    if (list != NULL) {
        const struct hp_task *task = &list->tasks[0];
        if (!hp_cli_is_missing(task, &code) && !is_running(task->state) && cli->is_err_terminal) {
            hp_cli_error("task %" PRIu64 " is %s: no output yet.", id,
                         hp_cli_state_word(task->state));
        }
        hp_task_list_free(list);
    }
    return code;
}

int hp_cli_logs(struct hp_cli *cli)
{
    struct hp_cli_ids ids = {0};
    struct logs logs = {.cli = cli};
    (void)signal(SIGPIPE, SIG_IGN);
    int code = hp_cli_resolve(cli, HP_CLI_SCOPE_ANY, &ids);
    int worst = code;
    for (size_t i = 0; code == 0 && i < ids.count; i++) {
        for (uint32_t n = 0; code == 0 && n < ids.ranges[i].count; n++) {
            code = logs_one(&logs, ids.ranges[i].first + n);
            worst = worst != 0 ? worst : code;
            code = code == HP_CLI_NOT_FOUND ? 0 : code; /* the others may be there */
        }
    }
    hp_cli_ids_free(&ids);
    return worst;
}
