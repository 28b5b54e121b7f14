/* SPDX-License-Identifier: BSD-2-Clause */
/* How tasks ended: in words, and as an exit code. */
#include "cli/sel.h"
#include "cli/task_options.h"

#include <errno.h>
#include <string.h>

static const char *first_line(const char *text)
{
    return hp_cli_escape(text, strcspn(text, "\n"), false);
}

static const char *short_text(const struct hp_task *task)
{
    const struct hp_end *end = task->end;
    char name[32];
    if (task->reason == HP_END_EXIT && end != NULL && end->has_exit_code) {
        return hp_cli_printf("exit %lld", (long long)end->exit_code);
    }
    if (task->reason == HP_END_SIGNAL && end != NULL && end->signal != 0) {
        return hp_cli_printf("killed by %s", hp_cli_signal_name(end->signal, name));
    }
    if (task->reason == HP_END_CHILD_SIGNAL && end != NULL && end->signal != 0) {
        return hp_cli_printf("its process was killed by %s", hp_cli_signal_name(end->signal, name));
    }
    if (task->reason == HP_END_NOT_STARTED && end != NULL && end->start_errno != 0 &&
        end->error == NULL) {
        return hp_cli_printf("could not be started: %s", strerror((int)end->start_errno));
    }
    if (task->reason == HP_END_ERROR && end != NULL && end->error != NULL) {
        return "error";
    }
    if (task->reason != HP_END_NONE) {
        return hp_end_reason_text(task->reason);
    }
    return hp_cli_state_word(task->state);
}

/* The last line a command wrote to standard error, if it is at hand. */
static const char *last_words(const struct hp_end *end)
{
    const char *data = end->err.data;
    size_t size = end->err.size;
    while (size > 0 && (data[size - 1] == '\n' || data[size - 1] == '\r')) {
        size--;
    }
    size_t start = size;
    while (start > 0 && data[start - 1] != '\n' && size - start < 200) {
        start--;
    }
    return size > start ? hp_cli_escape(data + start, size - start, false) : NULL;
}

const char *hp_cli_end_text(const struct hp_task *task)
{
    const char *text = short_text(task);
    const struct hp_end *end = task->end;
    if (end != NULL && end->error != NULL && end->error[0] != '\0') {
        return hp_cli_printf("%s: %s", text, first_line(end->error));
    }
    if (end != NULL && task->reason == HP_END_EXIT && last_words(end) != NULL) {
        return hp_cli_printf("%s: \"%s\"", text, last_words(end));
    }
    return text;
}

static int not_started_code(const struct hp_end *end)
{
    int number = end != NULL ? (int)end->start_errno : 0;
    bool is_directory = end != NULL && end->error != NULL && strncmp(end->error, "chdir", 5) == 0;
    if (number == ENOENT && !is_directory) {
        return HP_CLI_RUN_NOT_FOUND;
    }
    return HP_CLI_RUN_NO_EXEC;
}

int hp_cli_end_code(const struct hp_task *task)
{
    const struct hp_end *end = task->end;
    if (task->state == HP_STATE_DONE) {
        return HP_CLI_OK;
    }
    if (task->reason == HP_END_TIMEOUT) {
        return HP_CLI_TIMEOUT;
    }
    if (task->reason == HP_END_NOT_STARTED) {
        return not_started_code(end);
    }
    if (end != NULL && end->signal != 0) {
        return 128 + (int)(end->signal & 0x7f);
    }
    if (end != NULL && end->has_exit_code && end->exit_code != 0) {
        return (int)(end->exit_code & 0xff);
    }
    if (task->reason == HP_END_ERROR || task->reason == HP_END_PERMANENT) {
        return HP_CLI_FAILED;
    }
    return HP_CLI_RUN_FAILED;
}
