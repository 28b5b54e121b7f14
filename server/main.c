/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpoold: reads the command line and does what it says. */
#include <stdio.h>

#include "common/base/buf.h"
#include "common/sys/log.h"
#include "common/sys/proc.h"
#include "server/config.h"
#include "server/server.h"

enum {
    EXIT_FINE = 0,
    EXIT_NO_START = 1, /* lock, data folder, port, store */
    EXIT_USAGE = 2,    /* flags or configuration */
};

static int fail(int code, const struct hp_error *error)
{
    (void)fprintf(stderr, "hostpoold: %s\n", error->text);
    return code;
}

static int print(enum hp_err (*make)(struct hp_buf *))
{
    struct hp_buf text;
    hp_buf_init(&text, 1u << 20);
    int code = EXIT_NO_START;
    if (make(&text) == HP_OK && fwrite(text.data, 1, text.size, stdout) == text.size &&
        fflush(stdout) == 0) {
        code = EXIT_FINE;
    }
    hp_buf_deinit(&text);
    return code;
}

static int init(struct hp_config *config)
{
    struct hp_error error = {0};
    enum hp_err err = hp_server_init(config, &error);
    if (err == HP_OK) {
        (void)printf("hostpoold: made %s\n", config->data_dir);
    }
    hp_config_deinit(config);
    return err == HP_OK ? EXIT_FINE : fail(EXIT_NO_START, &error);
}

static int run(struct hp_config *config, const struct hp_command_line *line)
{
    struct hp_error error = {0};
    hp_log_install_assert_handler();
    return hp_server_run(config, line, &error) == HP_OK ? EXIT_FINE : fail(EXIT_NO_START, &error);
}

int main(int argc, char **argv)
{
    const struct hp_command_line line = {.argc = argc, .argv = (const char *const *)argv};
    struct hp_config config;
    struct hp_error error = {0};
    if (hp_proc_keep_std_fds() != HP_OK) {
        return EXIT_NO_START;
    }
    hp_proc_keep_memory();
    if (hp_config_read(argc, line.argv, &config, &error) != HP_OK) {
        return fail(EXIT_USAGE, &error);
    }
    switch (config.verb) {
    case HP_VERB_RUN:
        return run(&config, &line);
    case HP_VERB_INIT:
        return init(&config);
    case HP_VERB_CHECK_CONFIG:
        (void)printf("hostpoold: the configuration is fine\n");
        break;
    case HP_VERB_HELP:
        hp_config_deinit(&config);
        return print(hp_config_help);
    case HP_VERB_VERSION:
        (void)printf("hostpoold %s\n", HP_VERSION);
        break;
    case HP_VERB_EXAMPLE_CONFIG:
        hp_config_deinit(&config);
        return print(hp_config_example);
    }
    hp_config_deinit(&config);
    return EXIT_FINE;
}
