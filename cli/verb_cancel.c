/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool cancel: cancels tasks, or sends them a signal. */
#include "cli/listing.h"
#include "cli/sel.h"

#include <inttypes.h>
#include <jansson.h>

#define RANGES_MAX 4096u
#define GRACE_MS 10000u

static int send_one(struct hp_cli *cli, uint64_t id, unsigned number, uint64_t *sent)
{
    char name[32];
    enum hp_status status = hp_signal(cli->client, id, number, HP_TIMEOUT_DEFAULT, NULL);
    if (status == HP_STATUS_OK) {
        (*sent)++;
        return 0;
    }
    return hp_cli_fail(
        cli, status,
        hp_cli_printf("task %" PRIu64 ": cannot send %s", id, hp_cli_signal_name(number, name)));
}

static int signal_all(struct hp_cli *cli, const struct hp_cli_ids *ids)
{
    unsigned number = (unsigned)hp_cli_number(cli, HP_CLI_F_SIGNAL, 0);
    uint64_t sent = 0;
    int code = 0;
    for (size_t i = 0; i < ids->count; i++) {
        for (uint32_t n = 0; n < ids->ranges[i].count; n++) {
            int one = send_one(cli, ids->ranges[i].first + n, number, &sent);
            code = code != 0 ? code : one;
        }
    }
    if (code == 0 && cli->is_out_terminal) {
        (void)printf("sent to %" PRIu64 "\n", sent);
    }
    return code;
}

static void add_report(struct hp_cancel_report *sum, const struct hp_cancel_report *part)
{
    sum->cancelled += part->cancelled;
    sum->cancelling += part->cancelling;
    sum->too_late += part->too_late;
    sum->unknown += part->unknown;
}

static int print_report(struct hp_cli *cli, const struct hp_cancel_report *report)
{
    if (hp_cli_has(cli, HP_CLI_F_JSON) || hp_cli_has(cli, HP_CLI_F_JSONL)) {
        return hp_cli_json_print(
            cli, json_pack("{s:I,s:I,s:I,s:I}", "cancelled", (json_int_t)report->cancelled,
                           "cancelling", (json_int_t)report->cancelling, "too_late",
                           (json_int_t)report->too_late, "unknown", (json_int_t)report->unknown));
    }
    const char *gap = "";
    if (report->cancelled > 0) {
        (void)printf("%" PRIu64 " cancelled", report->cancelled);
        gap = ", ";
    }
    if (report->cancelling > 0) {
        (void)printf("%s%" PRIu64 " told to end", gap, report->cancelling);
        gap = ", ";
    }
    if (report->too_late > 0) {
        bool is_queued = hp_cli_number(cli, HP_CLI_F_MODE, 0) == HP_CANCEL_QUEUED;
        (void)printf("%s%" PRIu64 " %s", gap, report->too_late,
                     is_queued ? "left alone (running or ended)" : "had ended already");
        gap = ", ";
    }
    (void)printf("%s", *gap != '\0' ? "\n" : "");
    return 0;
}

static int cancel_all(struct hp_cli *cli, const struct hp_cli_ids *ids)
{
    struct hp_cancel_report sum = {0};
    enum hp_cancel_how how = (enum hp_cancel_how)hp_cli_number(cli, HP_CLI_F_MODE, HP_CANCEL_FORCE);
    for (size_t i = 0; i < ids->count; i += RANGES_MAX) {
        size_t count = ids->count - i < RANGES_MAX ? ids->count - i : RANGES_MAX;
        struct hp_cancel_report part = {0};
        enum hp_status status = hp_cancel(
            cli->client, ids->ranges + i, count, how, hp_cli_number(cli, HP_CLI_F_GRACE, GRACE_MS),
            hp_cli_text(cli, HP_CLI_F_REASON, NULL), HP_TIMEOUT_DEFAULT, &part);
        if (status != HP_STATUS_OK) {
            return hp_cli_fail(cli, status, "cannot cancel");
        }
        add_report(&sum, &part);
        hp_cancel_report_clear(&part);
    }
    int code = print_report(cli, &sum);
    if (sum.unknown > 0) {
        (void)fflush(stdout);
        if (ids->total == 1) {
            hp_cli_error("no task %" PRIu64 ".", ids->ranges[0].first);
        } else {
            hp_cli_error("no such task: %" PRIu64 " of %" PRIu64 ".", sum.unknown, ids->total);
        }
        hp_cli_hint("See what there is: hostpool ls user=any");
        return HP_CLI_NOT_FOUND;
    }
    return code;
}

int hp_cli_cancel(struct hp_cli *cli)
{
    struct hp_cli_ids ids = {0};
    int code = hp_cli_resolve(cli, HP_CLI_SCOPE_UNFINISHED, &ids);
    if (code == 0 && hp_cli_has(cli, HP_CLI_F_SIGNAL)) {
        code = signal_all(cli, &ids);
    } else if (code == 0 && ids.total > 0) {
        code = cancel_all(cli, &ids);
    } else if (code == 0) {
        hp_cli_error("nothing to cancel.");
    }
    hp_cli_ids_free(&ids);
    return code;
}
