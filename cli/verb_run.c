/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hostpool run: one command, as if it ran here. Output is written as it comes; the end record
 * brings what did not come; signals go to the command; its exit code is ours.
 */
#include "cli/output.h"
#include "cli/sel.h"
#include "cli/signals.h"
#include "cli/task_options.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>

/* How long a cancel by the second Ctrl-C may take before we go. */
#define CANCEL_MS 3000
/* When somebody at a terminal is told that the task has not started. */
#define QUIET_MS 3000
/* Kept by the worker, so that the end record can fill the gaps of a slow reader. */
#define OUTPUT_CAP_BYTES (UINT64_C(16) << 20)

struct run {
    struct hp_cli *cli;
    struct hp_cli_output output;
    uint64_t id; /* 0: not submitted yet */
    bool has_ended;
    int signal_first;    /* termination signal that came first; 0: none */
    unsigned interrupts; /* SIGINTs */
    bool is_cancelled;   /* by us */
    int64_t leave_ms;    /* monotonic: go by then; 0: no */
    uint64_t signal_request;
    uint64_t state_request;
    bool is_told; /* about the queue */
    bool is_told_busy;
    bool was_lost; /* the connection */
    int code;      /* of hostpool's own failure */
};

static int own_failure(int code)
{
    return code == HP_CLI_USAGE || code == 0 ? code : HP_CLI_RUN_FAILED;
}

static bool is_termination(int number)
{
    return number == SIGINT || number == SIGTERM || number == SIGHUP || number == SIGQUIT;
}

static void cancel_task(struct run *run)
{
    struct hp_ids ids = {.first = run->id, .count = 1};
    if (!run->is_cancelled && run->id != 0) {
        run->is_cancelled = true;
        (void)hp_cancel_async(run->cli->client, &ids, 1, HP_CANCEL_FORCE, 10000,
                              "hostpool run ended", NULL,
                              NULL); /* no answer is waited for but the end of the task */
    }
}

static void take_signal(struct run *run, int number)
{
    if (number == SIGINT) {
        run->interrupts++;
    }
    if (is_termination(number) && run->signal_first == 0) {
        run->signal_first = number;
    }
    if (run->interrupts >= 2) {
        cancel_task(run);
        run->leave_ms = run->interrupts == 2 ? hp_cli_mono_ms() + CANCEL_MS : hp_cli_mono_ms();
    } else if (run->id == 0) { /* nothing to send it to: the submit is given up soon */
        run->leave_ms = is_termination(number) && run->leave_ms == 0 ? hp_cli_mono_ms() + CANCEL_MS
                                                                     : run->leave_ms;
    } else {
        (void)hp_signal_async(run->cli->client, run->id, (uint32_t)number,
                              is_termination(number) ? run : NULL, &run->signal_request);
    }
}

static void take_submitted(struct run *run, const struct hp_event *event)
{
    run->id = event->ids.first;
    run->output.id = run->id;
    if (hp_cli_has(run->cli, HP_CLI_F_VERBOSE)) {
        hp_cli_error("task %" PRIu64 ".", run->id);
    }
    if (event->outcome == HP_OUTCOME_JOINED) {
        hp_cli_error("task %" PRIu64 " holds the key already; following it.", run->id);
        (void)hp_follow_async(run->cli->client, run->id, true, NULL, NULL);
    }
    if (run->signal_first != 0) { /* it came before there was a task */
        cancel_task(run);
        run->leave_ms = run->interrupts >= 2 ? run->leave_ms : 0;
    }
}

static void take_reply(struct run *run, const struct hp_event *event)
{
    if (event->request == run->signal_request && event->user == run &&
        event->status != HP_STATUS_OK) {
        cancel_task(run); /* it does not run: there is nothing to send a signal to */
    }
    if (event->request == run->state_request && event->list != NULL && event->list->count == 1) {
        enum hp_state state = event->list->tasks[0].state;
        if (state == HP_STATE_READY || state == HP_STATE_DELAYED || state == HP_STATE_BLOCKED) {
            hp_cli_error("task %" PRIu64 " is %s.", run->id, hp_cli_state_word(state));
            hp_cli_hint("Why: hostpool why %" PRIu64 "      Ctrl-C cancels it.", run->id);
        }
    }
}

static void take_event(struct run *run, const struct hp_event *event)
{
    struct hp_cli *cli = run->cli;
    switch (event->kind) {
    case HP_EVENT_CONNECTED:
        if (run->was_lost && run->id != 0) {
            hp_cli_error("connected again.");
            (void)hp_follow_async(cli->client, run->id, true, NULL, NULL);
        }
        break;
    case HP_EVENT_DISCONNECTED:
        hp_cli_error("lost the broker (%s); trying again. The task goes on.",
                     event->text != NULL ? event->text : hp_strerror(event->status));
        run->was_lost = true;
        break;
    case HP_EVENT_SUBMITTED:
        take_submitted(run, event);
        break;
    case HP_EVENT_SUBMIT_FAILED:
        hp_cli_error("cannot submit: %s",
                     event->text != NULL ? event->text : hp_strerror(event->status));
        run->code = HP_CLI_RUN_FAILED;
        break;
    case HP_EVENT_OUTPUT:
        hp_cli_output_event(&run->output, event);
        if (hp_cli_output_code(&run->output) != 0 && run->leave_ms == 0) {
            cancel_task(run);
            run->leave_ms = hp_cli_mono_ms() + CANCEL_MS;
        }
        break;
    case HP_EVENT_ENDED:
        run->has_ended = true;
        break;
    case HP_EVENT_REPLY:
        take_reply(run, event);
        break;
    }
}

/* Says why there is no task yet, if the broker takes none. */
static void tell_busy(struct run *run)
{
    const char *why = hp_client_busy(run->cli->client);
    if (run->id != 0 || run->is_told_busy || why == NULL) {
        return;
    }
    run->is_told_busy = true;
    hp_cli_error("the broker takes no tasks now: %s; trying again.", HP_CLI_SAFE(why));
}

/* Tells a person at a terminal why nothing happens. */
static void tell_quiet(struct run *run, int64_t began_ms)
{
    struct hp_ids ids = {.first = run->id, .count = 1};
    bool is_quiet = run->output.attempt == 0 && run->id != 0;
    if (run->is_told || !is_quiet || hp_cli_mono_ms() - began_ms < QUIET_MS) {
        return;
    }
    run->is_told = true;
    (void)hp_get_async(run->cli->client, &ids, 1, 0, NULL, &run->state_request);
}

static void loop(struct run *run, int signal_fd)
{
    int64_t began_ms = hp_cli_mono_ms();
    bool is_watched = run->cli->is_err_terminal || hp_cli_has(run->cli, HP_CLI_F_VERBOSE);
    while (!run->has_ended && run->code == 0) {
        struct hp_event event;
        for (int number; (number = hp_cli_signals_next(signal_fd)) != 0;) {
            take_signal(run, number);
        }
        while (!run->has_ended && hp_client_next_event(run->cli->client, &event)) {
            take_event(run, &event);
        }
        if (run->has_ended || run->code != 0) {
            return;
        }
        if (run->leave_ms != 0 && hp_cli_mono_ms() >= run->leave_ms) {
            return;
        }
        tell_busy(run);
        if (is_watched) {
            tell_quiet(run, began_ms);
        }
        int wait_ms = run->leave_ms != 0 ? 100 : is_watched && !run->is_told ? 500 : -1;
        enum hp_status status = hp_cli_poll(run->cli->client, signal_fd, wait_ms);
        if (status != HP_STATUS_OK) {
            run->code = own_failure(hp_cli_fail(run->cli, status, "lost the broker"));
        }
    }
}

static void say_end(const struct run *run, const struct hp_task *task)
{
    bool is_own = task->reason == HP_END_EXIT || task->reason == HP_END_SIGNAL;
    if (task->state == HP_STATE_DONE || (is_own && !hp_cli_has(run->cli, HP_CLI_F_VERBOSE))) {
        return;
    }
    if (run->signal_first != 0 && task->state == HP_STATE_CANCELLED) {
        return;
    }
    const char *node = task->node != NULL ? HP_CLI_SAFE(task->node) : NULL;
    hp_cli_error("task %" PRIu64 "%s%s: %s.", task->id, node != NULL ? " on " : "",
                 node != NULL ? node : "", hp_cli_end_text(task));
    if (task->reason == HP_END_NOT_STARTED) {
        hp_cli_hint("Programs and directories are those of the worker: see --cwd and --env.");
    }
}

/* The end: the rest of the output and the exit code. */
static int finish(struct run *run)
{
    struct hp_cli *cli = run->cli;
    struct hp_ids ids = {.first = run->id, .count = 1};
    struct hp_task_list *list = NULL;
    if (run->interrupts >= 2) {
        return HP_CLI_INTERRUPTED;
    }
    if (run->code != 0 || !run->has_ended) {
        int code = hp_cli_output_code(&run->output);
        if (run->code == 0 && run->id == 0 && run->signal_first != 0) {
            return 128 + run->signal_first;
        }
        return run->code != 0 ? run->code : code != 0 ? code : HP_CLI_RUN_FAILED;
    }
    enum hp_status status = hp_get(cli->client, &ids, 1, HP_DETAIL_END, HP_TIMEOUT_DEFAULT, &list);
    if (status != HP_STATUS_OK) {
        return own_failure(hp_cli_fail(cli, status, "cannot get the end of the task"));
    }
    const struct hp_task *task = &list->tasks[0];
    int code = own_failure(hp_cli_output_end(&run->output, cli, task));
    code = code != 0 ? code : hp_cli_output_code(&run->output);
    if (code == 0) {
        code = hp_cli_end_code(task);
        say_end(run, task);
        if (task->state == HP_STATE_CANCELLED && run->signal_first != 0) {
            code = 128 + run->signal_first;
        }
    }
    hp_task_list_free(list);
    return code;
}

static int submit(struct run *run, struct hp_options *options)
{
    HP_CLEANUP(hp_buf_deinit) struct hp_buf buf = {0};
    struct hp_cli *cli = run->cli;
    struct hp_client_options client_options;
    int code = hp_cli_task_payload(cli, &buf);
    if (code != 0) {
        return own_failure(code);
    }
    hp_cli_client_options(cli, &client_options);
    client_options.events = true;
    code = hp_cli_connect_with(cli, &client_options);
    if (code != 0) {
        return own_failure(code);
    }
    struct hp_bytes payload = {.data = buf.data, .size = buf.size};
    enum hp_status status = hp_submit_async(cli->client, options, &payload, 1, NULL, NULL);
    return status != HP_STATUS_OK ? own_failure(hp_cli_submit_failed(cli, status)) : 0;
}

int hp_cli_run(struct hp_cli *cli)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, 0};
    struct hp_options options;
    struct run run = {.cli = cli};
    int code = hp_cli_task_options(cli, cli->args.operands, cli->args.operand_count, &options);
    if (code != 0) {
        return own_failure(code);
    }
    options.follow = options.kind == HP_KIND_COMMAND;
    options.output_cap_bytes = hp_cli_number(cli, HP_CLI_F_OUTPUT_CAP, OUTPUT_CAP_BYTES);
    hp_cli_output_init(&run.output, 0, options.output_cap_bytes);
    code = submit(&run, &options);
    if (code != 0) {
        return code;
    }
    int signal_fd = hp_cli_signals_open(signals);
    loop(&run, signal_fd);
    return finish(&run);
}
