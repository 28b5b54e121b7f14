/* SPDX-License-Identifier: BSD-2-Clause */
/* Flags become the options of a task. */
#include "cli/task_options.h"

#include "cli/value.h"
#include "common/base/str.h"
#include "common/sys/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RETRY_CAP_MS 600000u

static void set_when(const struct hp_cli *cli, struct hp_options *options)
{
    options->delay_ms = hp_cli_number(cli, HP_CLI_F_DELAY, 0);
    options->run_at_ms = (int64_t)hp_cli_number(cli, HP_CLI_F_AT, 0);
    options->expire_ms = hp_cli_number(cli, HP_CLI_F_EXPIRE, 0);
    options->deadline_ms = hp_cli_number(cli, HP_CLI_F_DEADLINE, 0);
    options->hard_timeout_ms = hp_cli_number(cli, HP_CLI_F_TIMEOUT, 0);
    options->soft_timeout_ms = hp_cli_number(cli, HP_CLI_F_SOFT_TIMEOUT, 0);
    options->kill_grace_ms = hp_cli_number(cli, HP_CLI_F_KILL_GRACE, options->kill_grace_ms);
    options->max_retries = (uint32_t)hp_cli_number(cli, HP_CLI_F_RETRIES, 0);
    options->retry_base_ms = hp_cli_number(cli, HP_CLI_F_RETRY_DELAY, options->retry_base_ms);
    if (options->retry_cap_ms < options->retry_base_ms) {
        options->retry_cap_ms = options->retry_base_ms;
    }
    options->max_losses = (uint32_t)hp_cli_number(cli, HP_CLI_F_MAX_LOSSES, options->max_losses);
    options->at_most_once = hp_cli_has(cli, HP_CLI_F_AT_MOST_ONCE);
    options->on_partition = (enum hp_partition)hp_cli_number(cli, HP_CLI_F_ON_PARTITION, 0);
    options->result_ttl_ms = hp_cli_number(cli, HP_CLI_F_TTL, options->result_ttl_ms);
}

static void set_where(const struct hp_cli *cli, struct hp_options *options)
{
    options->queue = hp_cli_text(cli, HP_CLI_F_QUEUE, NULL);
    options->priority = (uint32_t)hp_cli_number(cli, HP_CLI_F_PRIORITY, options->priority);
    options->cpus = (uint32_t)hp_cli_number(cli, HP_CLI_F_CPUS, options->cpus);
    options->mem_bytes = hp_cli_number(cli, HP_CLI_F_MEM, 0);
    options->tags = hp_cli_get(cli, HP_CLI_F_NEED)->list;
    options->tag_count = hp_cli_get(cli, HP_CLI_F_NEED)->count;
    options->ukey = hp_cli_text(cli, HP_CLI_F_KEY, NULL);
    options->on_conflict = (enum hp_conflict)hp_cli_number(cli, HP_CLI_F_ON_CONFLICT, 0);
    options->ckey = hp_cli_text(cli, HP_CLI_F_CKEY, NULL);
    options->ckey_max = (uint32_t)hp_cli_number(cli, HP_CLI_F_CKEY_MAX, options->ckey_max);
    options->output_cap_bytes = hp_cli_number(cli, HP_CLI_F_OUTPUT_CAP, options->output_cap_bytes);
    options->user = cli->user;
}

static int set_env(const struct hp_cli *cli, struct hp_options *options)
{
    const struct hp_cli_value *env = hp_cli_get(cli, HP_CLI_F_ENV);
    const char **list = hp_cli_alloc_array(env->count + 1, sizeof(*list));
    for (size_t i = 0; i < env->count; i++) {
        const char *word = env->list[i];
        if (*word == '=' || *word == '\0') {
            return hp_cli_usage(cli->args.verb, "--env: \"%s\" is not KEY=VALUE.", word);
        }
        if (strchr(word, '=') != NULL) {
            list[options->env_count++] = word;
        } else if (getenv(word) != NULL) {
            list[options->env_count++] = hp_cli_printf("%s=%s", word, getenv(word));
        }
    }
    options->env = list;
    return 0;
}

static int set_cwd(const struct hp_cli *cli, struct hp_options *options)
{
    const char *cwd = hp_cli_text(cli, HP_CLI_F_CWD, NULL);
    if (cwd != NULL && strcmp(cwd, "-") == 0) {
        return 0;
    }
    char *here = getcwd(NULL, 0);
    if (here == NULL && (cwd == NULL || *cwd != '/')) {
        hp_cli_error("the current directory can not be found: %s.", strerror(errno));
        hp_cli_hint("Name one on the worker: --cwd DIR");
        return HP_CLI_FAILED;
    }
    if (cwd == NULL) {
        options->cwd = hp_cli_printf("%s", here);
    } else {
        options->cwd = *cwd == '/' ? cwd : hp_cli_printf("%s/%s", here, cwd);
    }
    free(here);
    return 0;
}

/* The last component of the program, where it may be a name. */
static const char *default_name(const char *program)
{
    const char *slash = strrchr(program, '/');
    const char *name = slash != NULL && slash[1] != '\0' ? slash + 1 : program;
    return hp_name_valid(hp_str_of(name)) ? name : NULL;
}

static int check_command(const struct hp_cli *cli, const char *const *words, size_t word_count)
{
    size_t size = 0;
    for (size_t i = 0; i < word_count; i++) {
        size += strlen(words[i]) + 1;
        if (!hp_utf8_valid(hp_str_of(words[i]))) {
            return hp_cli_usage(cli->args.verb, "argument %zu of the command is not UTF-8.", i);
        }
    }
    if (word_count > 4096 || size > 131072) {
        hp_cli_error("the command is too long: %zu words, %zu bytes (at most 4096 and 131072).",
                     word_count, size);
        hp_cli_hint("Pass data with --stdin, or many inputs with hostpool map.");
        return HP_CLI_REFUSED;
    }
    return 0;
}

int hp_cli_task_options(struct hp_cli *cli, const char *const *words, size_t word_count,
                        struct hp_options *options)
{
    const char *function = hp_cli_text(cli, HP_CLI_F_FUNCTION, NULL);
    hp_options_init(options);
    options->kind = function != NULL ? HP_KIND_FUNCTION : HP_KIND_COMMAND;
    set_when(cli, options);
    set_where(cli, options);
    options->batch = hp_cli_text(cli, HP_CLI_F_BATCH, NULL);
    if (function != NULL) {
        if (word_count > 0) {
            return hp_cli_usage(cli->args.verb, "--function takes no command (\"%s\").", words[0]);
        }
        options->fn = function;
        options->name = hp_cli_text(cli, HP_CLI_F_NAME, function);
        return 0;
    }
    if (hp_cli_has(cli, HP_CLI_F_ARGS)) {
        return hp_cli_usage(cli->args.verb, "--args goes with --function.");
    }
    if (word_count == 0) {
        return hp_cli_usage(cli->args.verb, "%s needs a command, or --function.",
                            cli->args.verb->name);
    }
    options->argv = words;
    options->argv_count = word_count;
    options->name = hp_cli_text(cli, HP_CLI_F_NAME, default_name(words[0]));
    int code = check_command(cli, words, word_count);
    code = code != 0 ? code : set_env(cli, options);
    return code != 0 ? code : set_cwd(cli, options);
}

/* ---------------------------------------------------------------- payloads */

static int read_all(int fd, const char *path, struct hp_buf *buf)
{
    for (;;) {
        uint8_t *at = NULL;
        enum hp_err err = hp_buf_reserve(buf, 65536, &at);
        if (err == HP_ERR_FULL) {
            hp_cli_error("%s: more than 1 GiB.", path);
            return HP_CLI_REFUSED;
        }
        if (err != HP_OK) {
            hp_cli_no_memory();
        }
        ssize_t count = read(fd, at, 65536);
        if (count < 0 && errno != EINTR) {
            hp_cli_error("cannot read %s: %s.", path, strerror(errno));
            return HP_CLI_FAILED;
        }
        if (count == 0) {
            return 0;
        }
        hp_buf_commit(buf, count > 0 ? (size_t)count : 0);
    }
}

static int read_input(struct hp_cli *cli, const char *path, struct hp_buf *buf)
{
    HP_CLEANUP(hp_fd_close) int fd = -1;
    if (strcmp(path, "-") != 0) {
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            hp_cli_error("cannot open %s: %s.", path, strerror(errno));
            return HP_CLI_FAILED;
        }
        return read_all(fd, path, buf);
    }
    if (isatty(STDIN_FILENO) == 1 && hp_cli_has(cli, HP_CLI_F_NO_INPUT)) {
        hp_cli_error("--stdin -: standard input is a terminal, and --no-input was given.");
        return HP_CLI_USAGE;
    }
    return read_all(STDIN_FILENO, "standard input", buf);
}

int hp_cli_function_args(struct hp_cli *cli, const char *otherwise, json_t **ret_args)
{
    const char *text = hp_cli_text(cli, HP_CLI_F_ARGS, otherwise);
    json_error_t error;
    json_t *value = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (value == NULL) {
        return hp_cli_usage(cli->args.verb, "--args is no JSON: %s.", error.text);
    }
    if (!json_is_array(value)) {
        json_decref(value);
        return hp_cli_usage(cli->args.verb,
                            "--args must be a JSON array, for example '[1, \"a\"]'.");
    }
    *ret_args = value;
    return 0;
}

int hp_cli_task_payload(struct hp_cli *cli, struct hp_buf *payload)
{
    hp_buf_init(payload, HP_PAYLOAD_BYTES_MAX);
    const char *path = hp_cli_text(cli, HP_CLI_F_STDIN, NULL);
    if (!hp_cli_has(cli, HP_CLI_F_FUNCTION)) {
        return path != NULL ? read_input(cli, path, payload) : 0;
    }
    if (path != NULL) {
        return hp_cli_usage(cli->args.verb, "--stdin goes with commands; functions have --args.");
    }
    json_t *args = NULL;
    int code = hp_cli_function_args(cli, "[]", &args);
    if (code == 0) {
        hp_cli_value_put(payload, args, NULL);
        json_decref(args);
    }
    return code;
}

int hp_cli_submit_failed(struct hp_cli *cli, enum hp_status status)
{
    return hp_cli_fail(cli, status, "cannot submit");
}
