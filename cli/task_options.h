/* SPDX-License-Identifier: BSD-2-Clause */
/* The options of tasks from the flags; shared by submit, run and map. */
#ifndef HP_CLI_TASK_OPTIONS_H
#define HP_CLI_TASK_OPTIONS_H

#include "cli/cli.h"
#include "common/base/buf.h"

#include <jansson.h>

/*
 * Fills options from the flags; strings live as long as the program. The command (`words`) is not
 * looked at for functions. 0 or an exit code, the error printed.
 */
int hp_cli_task_options(struct hp_cli *cli, const char *const *words, size_t word_count,
                        struct hp_options *options);

/* The bytes of --stdin, or the arguments of a function; *ret_payload is the caller's to deinit. 0
 * or an exit code, the error printed. */
int hp_cli_task_payload(struct hp_cli *cli, struct hp_buf *ret_payload);

/* The JSON array of --args, or of `otherwise`. New reference. 0 or an exit code. */
int hp_cli_function_args(struct hp_cli *cli, const char *otherwise, json_t **ret_args);

/* Prints what a failed submit means. Returns the exit code. */
int hp_cli_submit_failed(struct hp_cli *cli, enum hp_status status);

/* ---------------------------------------------------------------- ends of tasks, for people */

/* "exit 1", "killed by SIGKILL", "the worker's lease ran out ..."; with the error text if there is
 * one. One line, escaped. From hp_cli_alloc. */
const char *hp_cli_end_text(const struct hp_task *task);
/* Exit code as of `run`: the command's, 124..127, 128+N; 0 for success. */
int hp_cli_end_code(const struct hp_task *task);
/* verb_wait.c: waits for ids as the flags of wait ask. */
struct hp_cli_ids;
int hp_cli_wait_ids(struct hp_cli *cli, const struct hp_cli_ids *ids, bool is_any,
                    int64_t timeout_ms);

#endif
