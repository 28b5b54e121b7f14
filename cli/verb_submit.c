/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool submit: one task, or an array. */
#include "cli/listing.h"
#include "cli/sel.h"
#include "cli/task_options.h"

#include <inttypes.h>
#include <jansson.h>

static int print_ids(struct hp_cli *cli, struct hp_ids ids, enum hp_outcome outcome)
{
    if (hp_cli_has(cli, HP_CLI_F_JSON)) {
        json_t *document = json_pack("{s:I,s:I,s:s}", "id", (json_int_t)ids.first, "count",
                                     (json_int_t)ids.count, "outcome", hp_outcome_word(outcome));
        return hp_cli_json_print(cli, document);
    }
    if (outcome == HP_OUTCOME_JOINED) {
        hp_cli_error("task %" PRIu64 " holds the key already; this is its id.", ids.first);
    }
    if (ids.count == 1) {
        (void)printf("%" PRIu64 "\n", ids.first);
    } else {
        (void)printf("%" PRIu64 "-%" PRIu64 "\n", ids.first, ids.first + ids.count - 1);
    }
    return 0;
}

static int submit_array(struct hp_cli *cli, struct hp_options *options, struct hp_ids *ret_ids)
{
    const char *word = hp_cli_text(cli, HP_CLI_F_ARRAY, "");
    const char *error = "";
    uint64_t count = 0;
    if (!hp_cli_array_parse(word, &options->array_base, &options->array_step, &count, &error)) {
        return hp_cli_usage(cli->args.verb, "--array: \"%s\" %s.", word, error);
    }
    if (hp_cli_has(cli, HP_CLI_F_STDIN) || hp_cli_has(cli, HP_CLI_F_ARGS)) {
        return hp_cli_usage(cli->args.verb,
                            "--array goes without --stdin and --args; see hostpool map.");
    }
    if (hp_cli_has(cli, HP_CLI_F_KEY)) {
        return hp_cli_usage(cli->args.verb, "--key is for one task, not for an --array.");
    }
    int code = hp_cli_connect(cli);
    if (code != 0) {
        return code;
    }
    enum hp_status status =
        hp_submit_array(cli->client, options, (uint32_t)count, HP_TIMEOUT_DEFAULT, ret_ids);
    return status != HP_STATUS_OK ? hp_cli_submit_failed(cli, status) : 0;
}

static int submit_one(struct hp_cli *cli, const struct hp_options *options, struct hp_ids *ret_ids,
                      enum hp_outcome *ret_outcome)
{
    HP_CLEANUP(hp_buf_deinit) struct hp_buf buf = {0};
    int code = hp_cli_task_payload(cli, &buf);
    if (code == 0) {
        code = hp_cli_connect(cli);
    }
    if (code != 0) {
        return code;
    }
    struct hp_bytes payload = {.data = buf.data, .size = buf.size};
    enum hp_status status =
        hp_submit(cli->client, options, &payload, HP_TIMEOUT_DEFAULT, &ret_ids->first, ret_outcome);
    ret_ids->count = 1;
    return status != HP_STATUS_OK ? hp_cli_submit_failed(cli, status) : 0;
}

int hp_cli_submit(struct hp_cli *cli)
{
    struct hp_options options;
    struct hp_ids ids = {0};
    enum hp_outcome outcome = HP_OUTCOME_CREATED;
    int code = hp_cli_task_options(cli, cli->args.operands, cli->args.operand_count, &options);
    if (code == 0) {
        code = hp_cli_has(cli, HP_CLI_F_ARRAY) ? submit_array(cli, &options, &ids)
                                               : submit_one(cli, &options, &ids, &outcome);
    }
    if (code == 0) {
        code = print_ids(cli, ids, outcome);
    }
    if (code != 0 || !hp_cli_has(cli, HP_CLI_F_WAIT)) {
        return code;
    }
    (void)fflush(stdout);
    struct hp_cli_ids waited = {0};
    hp_cli_ids_add(&waited, ids.first, ids.count);
    code = hp_cli_wait_ids(cli, &waited, false, HP_TIMEOUT_NONE);
    hp_cli_ids_free(&waited);
    return code;
}
