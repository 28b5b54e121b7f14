/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool broker ping|wait|status|backup|check|recover. */
#include "cli/listing.h"

#include "common/base/str.h"
#include "common/sys/clock.h"
#include "server/store/offline.h"

#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#define WAIT_MS 60000u
#define WORK_MS 3600000 /* backup and check of a large database take their time */

static bool is_json(const struct hp_cli *cli)
{
    return hp_cli_has(cli, HP_CLI_F_JSON) || hp_cli_has(cli, HP_CLI_F_JSONL);
}

int hp_cli_broker_ping(struct hp_cli *cli)
{
    int code = hp_cli_connect(cli);
    if (code != 0) {
        return code;
    }
    int64_t now_ms = 0;
    uint64_t began_us = hp_clock_mono_us();
    enum hp_status status = hp_broker_ping(cli->client, HP_TIMEOUT_DEFAULT, &now_ms);
    double took_ms = (double)(hp_clock_mono_us() - began_us) / 1e3;
    if (status != HP_STATUS_OK) {
        return hp_cli_fail(cli, status, "no answer to the ping");
    }
    const char *server = hp_client_server(cli->client);
    if (is_json(cli)) {
        char at[40];
        return hp_cli_json_print(cli, json_pack("{s:s,s:s,s:s,s:f}", "host",
                                                hp_client_host(cli->client), "server",
                                                server != NULL ? HP_CLI_SAFE(server) : "", "now",
                                                hp_cli_time_utc(now_ms, at), "answer_ms", took_ms));
    }
    (void)printf("%s at %s answered in %.2f ms\n", server != NULL ? HP_CLI_SAFE(server) : "broker",
                 hp_client_host(cli->client), took_ms);
    return 0;
}

int hp_cli_broker_wait(struct hp_cli *cli)
{
    struct hp_client_options options;
    int64_t wait_ms = (int64_t)hp_cli_number(cli, HP_CLI_F_WAIT_TIMEOUT, WAIT_MS);
    hp_cli_client_options(cli, &options);
    options.retry_cap_ms = 500;
    options.retry_base_ms = 20;
    enum hp_status status = hp_client_new(&options, &cli->client);
    if (status == HP_STATUS_OK) {
        status = hp_broker_ping(cli->client, wait_ms, NULL); /* tries until the time is over */
    }
    if (status == HP_STATUS_OK) {
        return 0;
    }
    if (status != HP_STATUS_UNREACHABLE && status != HP_STATUS_TIMEOUT) {
        return hp_cli_fail(cli, status, "cannot connect to the broker");
    }
    char text[HP_FORMAT_BYTES];
    hp_cli_error("no broker at %s within %s: %s", hp_client_host(cli->client),
                 hp_format_duration(text, sizeof(text), (uint64_t)wait_ms),
                 hp_client_error(cli->client));
    hp_cli_hint(
        "Is it running?  systemctl status hostpoold      Other address?  --host or HOSTPOOL_HOST");
    return HP_CLI_TIMEOUT;
}

static int print_status_json(struct hp_cli *cli, const struct hp_broker_info *info)
{
    json_t *figures = json_object();
    json_t *warnings = json_array();
    for (size_t i = 0; i < info->figure_count; i++) {
        (void)json_object_set_new(figures, info->figures[i].name,
                                  json_integer((json_int_t)info->figures[i].value));
    }
    for (size_t i = 0; i < info->warning_count; i++) {
        (void)json_array_append_new(warnings,
                                    hp_cli_json_text(info->warnings[i], strlen(info->warnings[i])));
    }
    return hp_cli_json_print(
        cli, json_pack("{s:s,s:s,s:I,s:f,s:b,s:o,s:o}", "host", hp_client_host(cli->client),
                       "server", HP_CLI_SAFE(info->server), "epoch", (json_int_t)info->epoch,
                       "uptime", (double)info->uptime_ms / 1000.0, "draining", info->draining,
                       "figures", figures, "warnings", warnings));
}

int hp_cli_broker_status(struct hp_cli *cli)
{
    struct hp_broker_info *info = NULL;
    int code = hp_cli_connect(cli);
    if (code != 0) {
        return code;
    }
    enum hp_status status = hp_broker_status(cli->client, HP_TIMEOUT_DEFAULT, &info);
    if (status != HP_STATUS_OK) {
        return hp_cli_fail(cli, status, "cannot get the status");
    }
    if (is_json(cli)) {
        code = print_status_json(cli, info);
        hp_broker_info_free(info);
        return code;
    }
    char uptime[HP_FORMAT_BYTES];
    (void)printf("%s at %s\n", HP_CLI_SAFE(info->server), hp_client_host(cli->client));
    (void)printf("up %s, start number %" PRIu64 "%s\n",
                 hp_format_duration(uptime, sizeof(uptime), info->uptime_ms / 1000 * 1000),
                 info->epoch, info->draining ? ", STOPPING" : "");
    for (size_t i = 0; i < info->warning_count; i++) {
        (void)printf("warning: %s\n", HP_CLI_SAFE(info->warnings[i]));
    }
    for (size_t i = 0; i < info->figure_count; i++) {
        char number[32];
        (void)printf("  %-28s %16s\n", HP_CLI_SAFE(info->figures[i].name),
                     hp_cli_thousands(info->figures[i].value, number));
    }
    hp_broker_info_free(info);
    return 0;
}

int hp_cli_broker_backup(struct hp_cli *cli)
{
    const char *path = cli->args.operands[0];
    char here[PATH_MAX];
    if (*path != '/') {
        if (getcwd(here, sizeof(here)) == NULL) {
            return hp_cli_usage(cli->args.verb, "\"%s\" is no absolute path.", path);
        }
        path = hp_cli_printf("%s/%s", here, path);
    }
    int code = hp_cli_connect(cli);
    if (code != 0) {
        return code;
    }
    uint64_t task_count = 0;
    uint64_t size = 0;
    enum hp_status status = hp_broker_backup(cli->client, path, WORK_MS, &task_count, &size);
    if (status != HP_STATUS_OK) {
        return hp_cli_fail(cli, status, "cannot back up");
    }
    if (is_json(cli)) {
        return hp_cli_json_print(cli, json_pack("{s:s,s:I,s:I}", "path", path, "tasks",
                                                (json_int_t)task_count, "size", (json_int_t)size));
    }
    char text[HP_FORMAT_BYTES];
    char number[32];
    (void)printf("%s: %s tasks, %s, verified\n", HP_CLI_SAFE(path),
                 hp_cli_thousands(task_count, number),
                 hp_format_size_human(text, sizeof(text), size));
    return 0;
}

static int print_damage(void)
{
    hp_cli_error("the database is damaged.");
    hp_cli_hint("Stop the broker, keep its directory, and restore the last backup; or save what is "
                "left:\n  hostpool broker recover DIR NEW_DIR");
    return HP_CLI_UNREACHABLE;
}

/* Adds the lines of a text to an array. */
static json_t *json_lines(const struct hp_buf *text)
{
    json_t *list = json_array();
    const char *at = (const char *)text->data;
    size_t left = text->size;
    while (left > 0) {
        const char *newline = memchr(at, '\n', left);
        size_t size = newline != NULL ? (size_t)(newline - at) : left;
        (void)json_array_append_new(list, hp_cli_json_text(at, size));
        size_t step = size + (newline != NULL ? 1 : 0);
        at += step;
        left -= step;
    }
    return list;
}

static void print_text(const struct hp_buf *text)
{
    if (text->size > 0) {
        (void)printf("%s\n", hp_cli_escape((const char *)text->data, text->size, true));
    }
}

static int check_dir(struct hp_cli *cli, const char *dir)
{
    struct hp_offline_check check;
    struct hp_error error = {0};
    enum hp_err err = hp_offline_check(dir, &check, &error);
    if (err != HP_OK) {
        hp_buf_deinit(&check.lines);
        hp_cli_error("cannot check: %s.", error.text);
        return HP_CLI_FAILED;
    }
    bool is_ok = check.problem_count == 0;
    if (is_json(cli)) {
        (void)hp_cli_json_print(cli, json_pack("{s:b,s:I,s:I,s:I,s:o}", "ok", is_ok, "rows",
                                               (json_int_t)check.row_count, "blobs",
                                               (json_int_t)check.blob_count, "problems",
                                               (json_int_t)check.problem_count, "lines",
                                               json_lines(&check.lines)));
    } else {
        print_text(&check.lines);
        (void)printf("%" PRIu64 " rows, %" PRIu64 " blobs, %" PRIu64 " problems\n%s\n",
                     check.row_count, check.blob_count, check.problem_count,
                     is_ok ? "ok" : "DAMAGED");
    }
    hp_buf_deinit(&check.lines);
    return is_ok ? 0 : print_damage();
}

static void print_salvage(struct hp_cli *cli, const char *to,
                          const struct hp_offline_salvage *salvage)
{
    char number[32];
    if (is_json(cli)) {
        (void)hp_cli_json_print(cli, json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:o}", "path", to, "tasks",
                                               (json_int_t)salvage->task_count, "ended",
                                               (json_int_t)salvage->ended_count, "held",
                                               (json_int_t)salvage->held_count, "blobs",
                                               (json_int_t)salvage->blob_count, "lost",
                                               (json_int_t)salvage->lost_count, "lines",
                                               json_lines(&salvage->lines)));
        return;
    }
    print_text(&salvage->lines);
    (void)printf("%s: %s tasks", to, hp_cli_thousands(salvage->task_count, number));
    (void)printf(", %s ended", hp_cli_thousands(salvage->ended_count, number));
    (void)printf(", %s held in paused queues", hp_cli_thousands(salvage->held_count, number));
    (void)printf(", %s losses\n", hp_cli_thousands(salvage->lost_count, number));
}

int hp_cli_broker_recover(struct hp_cli *cli)
{
    struct hp_offline_salvage salvage;
    struct hp_error error = {0};
    const char *to = cli->args.operands[1];
    enum hp_err err = hp_offline_salvage(cli->args.operands[0], to, &salvage, &error);
    bool is_whole = salvage.lost_count == 0;
    if (err == HP_OK) {
        print_salvage(cli, to, &salvage);
    }
    hp_buf_deinit(&salvage.lines);
    if (err != HP_OK) {
        hp_cli_error("cannot recover: %s.", error.text);
        return HP_CLI_FAILED;
    }
    if (!is_whole) {
        hp_cli_error("not everything could be saved.");
        hp_cli_hint(
            "Keep the damaged directory. To go on with what is left:  hostpoold --data-dir %s", to);
    }
    return is_whole ? 0 : HP_CLI_UNREACHABLE;
}

int hp_cli_broker_check(struct hp_cli *cli)
{
    struct hp_lines *lines = NULL;
    if (cli->args.operand_count > 0) {
        return check_dir(cli, cli->args.operands[0]);
    }
    int code = hp_cli_connect(cli);
    if (code != 0) {
        return code;
    }
    enum hp_status status = hp_broker_check(cli->client, WORK_MS, &lines);
    if (status != HP_STATUS_OK) {
        return hp_cli_fail(cli, status, "cannot check");
    }
    bool is_ok = lines->ok;
    if (is_json(cli)) {
        json_t *list = json_array();
        for (size_t i = 0; i < lines->count; i++) {
            (void)json_array_append_new(list,
                                        hp_cli_json_text(lines->lines[i], strlen(lines->lines[i])));
        }
        (void)hp_cli_json_print(cli, json_pack("{s:b,s:o}", "ok", is_ok, "lines", list));
    } else {
        for (size_t i = 0; i < lines->count; i++) {
            (void)printf("%s\n", HP_CLI_SAFE(lines->lines[i]));
        }
        (void)printf("%s\n", is_ok ? "ok" : "DAMAGED");
    }
    hp_lines_free(lines);
    return is_ok ? 0 : print_damage();
}
