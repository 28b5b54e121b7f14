/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Settings of hostpool-worker. What a setting is called, may be and means stands in one table.
 */
#include "worker/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/str.h"
#include "common/sys/file.h"
#include "worker/core/agent.h"

#define TOKEN_BYTES_MAX 512u
#define PATH_BYTES 4096u
#define PREFETCH_DEFAULT 4000u
#define PYTHON_DEFAULT "/usr/bin/python3"

enum option_index {
    OPT_CONFIG,
    OPT_BROKER,
    OPT_NODE,
    OPT_SLOTS,
    OPT_MODULE,
    OPT_TAGS,
    OPT_MEM,
    OPT_COMMANDS,
    OPT_PREFETCH,
    OPT_TOKEN_FILE,
    OPT_STATE_DIR,
    OPT_DRAIN_TIMEOUT,
    OPT_RECYCLE_CALLS,
    OPT_RECYCLE_MEM,
    OPT_RESULT_MAX,
    OPT_PYTHON,
    OPT_ANY_INTERPRETER,
    OPT_PYTHON_PATH,
    OPT_INHERIT_ENV,
    OPT_CHILDREN_MAX,
    OPT_NEAR,
    OPT_LOG_LEVEL,
    OPT_CHECK_CONFIG,
    OPT_EXAMPLE_CONFIG,
    OPT_VERSION,
    OPT_HELP,
    OPT_COUNT,
};

static const struct hp_conf_option options[] = {
    [OPT_CONFIG] = {.name = "config",
                    .type = HP_CONF_STR,
                    .value_name = "FILE",
                    .text = "Config file. Default: /etc/hostpool/worker.conf if there is one.",
                    .is_flag_only = true},
    [OPT_BROKER] = {.name = "broker",
                    .type = HP_CONF_STR,
                    .default_text = "127.0.0.1:7741",
                    .min = 1,
                    .max = 300,
                    .value_name = "HOST:PORT",
                    .text = "The broker."},
    [OPT_NODE] = {.name = "node",
                  .type = HP_CONF_STR,
                  .min = 1,
                  .max = 255,
                  .value_name = "NAME",
                  .text = "Name of this worker; one broker has each name once. Default: the host "
                          "name."},
    [OPT_SLOTS] = {.name = "slots",
                   .type = HP_CONF_INT,
                   .min = 1,
                   .max = 4096,
                   .text = "Tasks that run at once. Default: the CPUs of this host."},
    [OPT_MODULE] = {.name = "module",
                    .type = HP_CONF_STR,
                    .value_name = "FILE[,FILE...]",
                    .text =
                        "Modules whose functions this worker offers. The flag may be repeated."},
    [OPT_TAGS] = {.name = "tags",
                  .type = HP_CONF_STR,
                  .value_name = "TAG[,TAG...]",
                  .text = "Tags that tasks can ask for."},
    [OPT_MEM] = {.name = "mem",
                 .type = HP_CONF_SIZE,
                 .text = "Memory offered to tasks. Default: the memory of this host."},
    [OPT_COMMANDS] = {.name = "commands",
                      .type = HP_CONF_BOOL,
                      .default_text = "yes",
                      .text = "Run commands, not only functions."},
    [OPT_PREFETCH] = {.name = "prefetch",
                      .type = HP_CONF_INT,
                      .max = 4096,
                      .text = "Tasks of one slot held beyond the slots, so that short ones never "
                              "wait for the network. Default: 4000."},
    [OPT_TOKEN_FILE] = {.name = "token_file",
                        .type = HP_CONF_STR,
                        .value_name = "FILE",
                        .text = "File with the token that the broker asks for."},
    [OPT_STATE_DIR] = {.name = "state_dir",
                       .type = HP_CONF_STR,
                       .value_name = "DIR",
                       .text = "Folder for results that the broker has not acknowledged. Default: "
                               "/var/lib/hostpool/worker/NODE for root, else "
                               "$XDG_STATE_HOME/hostpool/worker/NODE."},
    [OPT_DRAIN_TIMEOUT] = {.name = "drain_timeout",
                           .type = HP_CONF_DURATION,
                           .default_text = "60s",
                           .text = "After SIGTERM running tasks get this long to end. A second "
                                   "SIGTERM ends them at once."},
    [OPT_RECYCLE_CALLS] = {.name = "recycle_calls",
                           .type = HP_CONF_INT,
                           .default_text = "0",
                           .text = "A function child is replaced after so many calls; 0: never."},
    [OPT_RECYCLE_MEM] = {.name = "recycle_mem",
                         .type = HP_CONF_SIZE,
                         .default_text = "0",
                         .text =
                             "A function child is replaced when it has grown to this; 0: never."},
    [OPT_RESULT_MAX] = {.name = "result_max",
                        .type = HP_CONF_SIZE,
                        .default_text = "1G",
                        .min = 1,
                        .max = (uint64_t)1 << 30,
                        .text = "Largest result of a function."},
    [OPT_PYTHON] = {.name = "python",
                    .type = HP_CONF_STR,
                    .value_name = "FILE",
                    .text = "Interpreter for the children of Python pools, or none. Default: "
                            "/usr/bin/python3 if it is there."},
    [OPT_ANY_INTERPRETER] = {.name = "any_interpreter",
                             .type = HP_CONF_BOOL,
                             .default_text = "no",
                             .text = "Run the interpreter that a pool's client asks for, where it "
                                     "exists on this host."},
    [OPT_PYTHON_PATH] = {.name = "python_path",
                         .type = HP_CONF_STR,
                         .value_name = "DIR[:DIR...]",
                         .text = "PYTHONPATH of those children. Default: where the package "
                                 "hostpool is, if that is beside this program."},
    [OPT_INHERIT_ENV] = {.name = "inherit_env",
                         .type = HP_CONF_BOOL,
                         .default_text = "no",
                         .text = "Give children of pools this process's environment instead of a "
                                 "clean one."},
    [OPT_CHILDREN_MAX] = {.name = "children_max",
                          .type = HP_CONF_INT,
                          .max = 65536,
                          .text = "Children of pools at once. Default: 16 for each slot."},
    [OPT_NEAR] = {.name = "near",
                  .type = HP_CONF_BOOL,
                  .default_text = "yes",
                  .text = "Where the broker is on this host, pass payloads and results over 64 KiB "
                          "by descriptor instead of over the connection."},
    [OPT_LOG_LEVEL] = {.name = "log_level",
                       .type = HP_CONF_STR,
                       .default_text = "info",
                       .value_name = "LEVEL",
                       .text = "error, warn, info, debug or trace."},
    [OPT_CHECK_CONFIG] = {.name = "check_config",
                          .type = HP_CONF_BOOL,
                          .default_text = "no",
                          .text = "Check file and flags, and exit.",
                          .is_flag_only = true},
    [OPT_EXAMPLE_CONFIG] = {.name = "example_config",
                            .type = HP_CONF_BOOL,
                            .default_text = "no",
                            .text = "Print an example config file, and exit.",
                            .is_flag_only = true},
    [OPT_VERSION] = {.name = "version",
                     .type = HP_CONF_BOOL,
                     .default_text = "no",
                     .text = "Print the version, and exit.",
                     .is_flag_only = true},
    [OPT_HELP] = {.name = "help",
                  .type = HP_CONF_BOOL,
                  .default_text = "no",
                  .text = "Print this help, and exit.",
                  .is_flag_only = true},
};

/* ------------------------------------------------------------------------------ reading the flags
 */

/* Joins repeated --module flags to one list, as the table holds one value for each name. */
static enum hp_err join_modules(struct hp_arena *arena, int argc, const char *const *argv,
                                int *ret_argc, const char *const **ret_argv)
{
    size_t bytes = 1;
    for (int i = 0; i < argc; i++) {
        bytes += strlen(argv[i]) + 1;
    }
    const char **out = HP_ARENA_NEW_ARRAY(arena, const char *, (size_t)argc + 2);
    char *list = hp_arena_alloc(arena, bytes + sizeof("--module="));
    if (out == NULL || list == NULL) {
        return HP_ERR_NOMEM;
    }
    int count = 0;
    size_t size = hp_strlcpy(list, "--module=", bytes);
    bool found = false;
    for (int i = 0; i < argc; i++) {
        const char *value = NULL;
        if (strcmp(argv[i], "--module") == 0 && i + 1 < argc) {
            value = argv[++i];
        } else if (strncmp(argv[i], "--module=", 9) == 0) {
            value = argv[i] + 9;
        } else {
            out[count++] = argv[i];
            continue;
        }
        if (found) {
            list[size++] = ',';
        }
        size_t value_size = strlen(value);
        memcpy(list + size, value, value_size + 1);
        size += value_size;
        found = true;
    }
    if (found) {
        memmove(out + 2, out + 1, (size_t)(count - 1) * sizeof(*out));
        out[1] = list;
        count++;
    }
    *ret_argc = count;
    *ret_argv = out;
    return HP_OK;
}

static enum hp_err read_sources(struct hp_worker_config *config, int argc, const char *const *argv,
                                struct hp_error *reterr)
{
    const char *const *flags = NULL;
    int flag_count = 0;
    enum hp_err err = join_modules(&config->arena, argc, argv, &flag_count, &flags);
    if (err != HP_OK) {
        return hp_error_set(reterr, err, NULL);
    }
    int rest = 0;
    err = hp_conf_parse_flags(&config->conf, flag_count, flags, &rest, reterr);
    if (err != HP_OK) {
        return err;
    }
    if (rest < flag_count) {
        return hp_error_set(reterr, HP_ERR_INVALID, "unexpected argument '%s'", flags[rest]);
    }
    const char *path = hp_conf_str(&config->conf, OPT_CONFIG);
    if (path[0] != '\0') {
        return hp_conf_load_file(&config->conf, path, reterr);
    }
    err = hp_conf_load_file(&config->conf, "/etc/hostpool/worker.conf", reterr);
    return err == HP_ERR_NOT_FOUND ? HP_OK : err;
}

/* ----------------------------------------------------------------------------------- the values */

/* Splits "a,b,c" into views of `text`; empty items are left out. */
static enum hp_err split(struct hp_arena *arena, const char *text, struct hp_str **ret_items,
                         uint32_t *ret_count)
{
    size_t items_max = 1;
    for (const char *at = text; *at != '\0'; at++) {
        items_max += *at == ',';
    }
    struct hp_str *items = HP_ARENA_NEW_ARRAY(arena, struct hp_str, items_max);
    if (items == NULL) {
        return HP_ERR_NOMEM;
    }
    uint32_t count = 0;
    while (*text != '\0') {
        size_t size = strcspn(text, ",");
        if (size > 0) {
            items[count++] = hp_str_make(text, size);
        }
        text += size + (text[size] == ',');
    }
    *ret_items = items;
    *ret_count = count;
    return HP_OK;
}

static enum hp_err read_lists(struct hp_worker_config *config, struct hp_error *reterr)
{
    struct hp_str *tags = NULL;
    struct hp_str *files = NULL;
    if (split(&config->arena, hp_conf_str(&config->conf, OPT_TAGS), &tags, &config->tag_count) !=
            HP_OK ||
        split(&config->arena, hp_conf_str(&config->conf, OPT_MODULE), &files,
              &config->module_count) != HP_OK) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    config->tags = tags;
    const char **paths =
        HP_ARENA_NEW_ARRAY(&config->arena, const char *, (size_t)config->module_count + 1);
    if (paths == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    for (uint32_t i = 0; i < config->module_count; i++) {
        paths[i] = hp_arena_copy(&config->arena, files[i].data, files[i].size);
        if (paths[i] == NULL) {
            return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
        }
    }
    config->modules = paths;
    return HP_OK;
}

static enum hp_err read_token(struct hp_worker_config *config, struct hp_error *reterr)
{
    const char *path = hp_conf_str(&config->conf, OPT_TOKEN_FILE);
    if (path[0] == '\0') {
        return HP_OK;
    }
    struct hp_buf bytes;
    enum hp_err err = hp_file_read(path, TOKEN_BYTES_MAX + 2, &bytes, reterr);
    if (err != HP_OK) {
        return err;
    }
    size_t size = bytes.size;
    while (size > 0 && (bytes.data[size - 1] == '\n' || bytes.data[size - 1] == '\r')) {
        size--;
    }
    struct hp_str token = hp_str_make((const char *)bytes.data, size);
    if (size == 0 || size > TOKEN_BYTES_MAX || !hp_utf8_valid(token)) {
        err = hp_error_set(reterr, HP_ERR_INVALID, "%s: a token has 1 to %u bytes of text", path,
                           TOKEN_BYTES_MAX);
    } else {
        err = hp_arena_copy_str(&config->arena, token, &config->token);
    }
    hp_buf_deinit(&bytes);
    return err;
}

static enum hp_err read_names(struct hp_worker_config *config, struct hp_error *reterr)
{
    (void)hp_proc_hostname(config->host); /* returns its argument */
    bool named = hp_conf_is_set(&config->conf, OPT_NODE);
    config->node = named ? hp_conf_str(&config->conf, OPT_NODE) : config->host;
    if (!hp_name_valid(hp_str_of(config->node))) {
        return hp_error_set(reterr, HP_ERR_INVALID, "node: not a valid name");
    }
    config->broker_text = hp_conf_str(&config->conf, OPT_BROKER);
    return hp_endpoint_parse(config->broker_text, HP_PORT_DEFAULT, &config->broker, reterr);
}

/* The node's name as the name of a folder. */
static void folder_name(const char *node, char *out, size_t out_size)
{
    (void)hp_strlcpy(out, node, out_size); /* a name has at most 255 bytes */
    for (char *at = out; *at != '\0'; at++) {
        if (*at == '/' || (*at == '.' && at == out)) {
            *at = '_';
        }
    }
}

static enum hp_err read_dirs(struct hp_worker_config *config, struct hp_error *reterr)
{
    char folder[HP_NAME_BYTES_MAX + 1];
    char path[PATH_BYTES];
    folder_name(config->node, folder, sizeof(folder));
    const char *given = hp_conf_str(&config->conf, OPT_STATE_DIR);
    const char *state_home = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    int size = 0;
    if (given[0] != '\0') {
        size = snprintf(path, sizeof(path), "%s", given);
    } else if (geteuid() == 0) {
        size = snprintf(path, sizeof(path), "/var/lib/hostpool/worker/%s", folder);
    } else if (state_home != NULL && state_home[0] == '/') {
        size = snprintf(path, sizeof(path), "%s/hostpool/worker/%s", state_home, folder);
    } else if (home != NULL && home[0] == '/') {
        size = snprintf(path, sizeof(path), "%s/.local/state/hostpool/worker/%s", home, folder);
    } else {
        return hp_error_set(reterr, HP_ERR_INVALID, "state-dir: give one, HOME is not set");
    }
    if (size < 0 || (size_t)size >= sizeof(path) - sizeof("/scratch")) {
        return hp_error_set(reterr, HP_ERR_INVALID, "state-dir: the path is too long");
    }
    config->state_dir = hp_arena_copy(&config->arena, path, (size_t)size);
    memcpy(path + size, "/scratch", sizeof("/scratch"));
    config->scratch_dir =
        hp_arena_copy(&config->arena, path, (size_t)size + sizeof("/scratch") - 1);
    return config->state_dir == NULL || config->scratch_dir == NULL
               ? hp_error_set(reterr, HP_ERR_NOMEM, NULL)
               : HP_OK;
}

static uint64_t or_default(const struct hp_worker_config *config, size_t index, uint64_t value)
{
    return hp_conf_is_set(&config->conf, index) ? hp_conf_u64(&config->conf, index) : value;
}

static uint64_t host_mem_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long page_bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 0;
}

static enum hp_err read_numbers(struct hp_worker_config *config, struct hp_error *reterr)
{
    const struct hp_conf *conf = &config->conf;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    config->slots = (uint32_t)or_default(config, OPT_SLOTS, cpus < 1 ? 1 : (uint64_t)cpus);
    config->slots = HP_MIN(config->slots, 4096u);
    uint32_t room = HP_AGENT_RUNS_MAX - config->slots;
    config->prefetch = (uint32_t)or_default(config, OPT_PREFETCH, HP_MIN(PREFETCH_DEFAULT, room));
    if (config->prefetch > room) {
        return hp_error_set(reterr, HP_ERR_RANGE, "slots and prefetch together are at most %u",
                            HP_AGENT_RUNS_MAX);
    }
    config->mem_bytes = or_default(config, OPT_MEM, host_mem_bytes());
    config->commands = hp_conf_bool(conf, OPT_COMMANDS);
    config->drain_timeout_ms = hp_conf_u64(conf, OPT_DRAIN_TIMEOUT);
    config->recycle_calls = hp_conf_u64(conf, OPT_RECYCLE_CALLS);
    config->recycle_mem_bytes = hp_conf_u64(conf, OPT_RECYCLE_MEM);
    config->result_max_bytes = hp_conf_u64(conf, OPT_RESULT_MAX);
    config->any_interpreter = hp_conf_bool(conf, OPT_ANY_INTERPRETER);
    config->near = hp_conf_bool(conf, OPT_NEAR);
    config->inherit_env = hp_conf_bool(conf, OPT_INHERIT_ENV);
    config->children_max = (uint32_t)HP_MIN(
        or_default(config, OPT_CHILDREN_MAX, 16u * (uint64_t)config->slots), (uint64_t)65536);
    if (hp_conf_is_set(conf, OPT_PYTHON)) {
        config->python = hp_conf_str(conf, OPT_PYTHON);
        config->python = strcmp(config->python, "none") == 0 ? NULL : config->python;
        if (config->python != NULL && config->python[0] != '/') {
            return hp_error_set(reterr, HP_ERR_INVALID,
                                "python: give an absolute path, or none, not \"%s\"",
                                config->python);
        }
    } else if (access(PYTHON_DEFAULT, X_OK) == 0) {
        config->python = PYTHON_DEFAULT;
    }
    config->python_path =
        hp_conf_is_set(conf, OPT_PYTHON_PATH) ? hp_conf_str(conf, OPT_PYTHON_PATH) : NULL;
    config->token_file =
        hp_conf_is_set(conf, OPT_TOKEN_FILE) ? hp_conf_str(conf, OPT_TOKEN_FILE) : NULL;
    bool has_pools = config->python != NULL && config->children_max > 0;
    if (!config->commands && config->module_count == 0 && !has_pools) {
        return hp_error_set(reterr, HP_ERR_INVALID,
                            "nothing to run: commands are off, no module and no Python is given");
    }
    if (hp_log_level_parse(hp_str_of(hp_conf_str(conf, OPT_LOG_LEVEL)), &config->log_level) !=
        HP_OK) {
        return hp_error_set(reterr, HP_ERR_INVALID,
                            "log-level: one of error, warn, info, debug, trace");
    }
    return HP_OK;
}

static enum hp_worker_action action_of(const struct hp_conf *conf)
{
    if (hp_conf_bool(conf, OPT_HELP)) {
        return HP_WORKER_HELP;
    }
    if (hp_conf_bool(conf, OPT_VERSION)) {
        return HP_WORKER_VERSION;
    }
    if (hp_conf_bool(conf, OPT_EXAMPLE_CONFIG)) {
        return HP_WORKER_EXAMPLE;
    }
    return hp_conf_bool(conf, OPT_CHECK_CONFIG) ? HP_WORKER_CHECK : HP_WORKER_RUN;
}

enum hp_err hp_worker_config_read(struct hp_worker_config *config, int argc,
                                  const char *const *argv, struct hp_error *reterr)
{
    HP_STATIC_ASSERT(HP_COUNT_OF(options) == OPT_COUNT, "one row for each option");
    *config = (struct hp_worker_config){0};
    hp_arena_init(&config->arena, 4096, (size_t)16 << 20);
    enum hp_err err = hp_conf_init(&config->conf, options, OPT_COUNT);
    if (err != HP_OK) {
        return hp_error_set(reterr, err, NULL);
    }
    err = read_sources(config, argc, argv, reterr);
    config->action = action_of(&config->conf);
    if (err != HP_OK || config->action == HP_WORKER_HELP || config->action == HP_WORKER_VERSION ||
        config->action == HP_WORKER_EXAMPLE) {
        return err;
    }
    enum hp_err (*const steps[])(struct hp_worker_config *, struct hp_error *) = {
        read_lists, read_names, read_dirs, read_numbers, read_token};
    for (size_t i = 0; i < HP_COUNT_OF(steps) && err == HP_OK; i++) {
        err = steps[i](config, reterr);
    }
    return err;
}

void hp_worker_config_deinit(struct hp_worker_config *config)
{
    hp_conf_deinit(&config->conf);
    hp_arena_deinit(&config->arena);
}

/* -------------------------------------------------------------------------------------- printing
 */

static enum hp_err print(const struct hp_buf *text)
{
    return hp_fd_write_all(STDOUT_FILENO, text->data, text->size);
}

enum hp_err hp_worker_config_print_help(void)
{
    struct hp_buf text;
    hp_buf_init(&text, 1 << 20);
    enum hp_err err = hp_buf_append_text(
        &text, "Usage: hostpool-worker [FLAG...]\n\n"
               "Runs tasks of a hostpool broker on this host, in the foreground.\n"
               "SIGTERM, SIGINT or SIGHUP drains: running tasks get --drain-timeout to end.\n\n"
               "Flags:\n");
    if (err == HP_OK) {
        err = hp_conf_help(options, OPT_COUNT, &text);
    }
    if (err == HP_OK) {
        err = hp_buf_append_text(
            &text, "\nExit status: 0 ended as asked, 1 could not start or go on, 2 wrong usage.\n");
    }
    if (err == HP_OK) {
        err = print(&text);
    }
    hp_buf_deinit(&text);
    return err;
}

enum hp_err hp_worker_config_print_example(void)
{
    struct hp_buf text;
    hp_buf_init(&text, 1 << 20);
    enum hp_err err = hp_conf_example(options, OPT_COUNT, &text);
    if (err == HP_OK) {
        err = print(&text);
    }
    hp_buf_deinit(&text);
    return err;
}
