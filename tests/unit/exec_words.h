/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of commands share: an executor without modules, commands from words. */
#ifndef HP_TESTS_EXEC_WORDS_H
#define HP_TESTS_EXEC_WORDS_H

#include "tests/unit/exec_fixture.h"

static inline int set_up(void **state)
{
    struct fixture *f = fixture_new();
    struct hp_exec_config config = fixture_config(f, 8);
    *state = fixture_start(&config, f);
    return 0;
}

static inline int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

/* A command from NULL-terminated words. */
struct words {
    struct hp_str argv[16];
    struct hp_exec_command command;
};

static inline void words_init(struct words *words, uint64_t key, const char *const *argv)
{
    memset(words, 0, sizeof *words);
    while (argv[words->command.argv_count] != NULL) {
        words->argv[words->command.argv_count] = hp_str_of(argv[words->command.argv_count]);
        words->command.argv_count++;
    }
    words->command.argv = words->argv;
    words->command.key = key;
    words->command.stdin_fd = -1;
    words->command.output_cap_bytes = 65536;
    words->command.task_id = 42;
    words->command.attempt = 3;
    words->command.epoch = 7;
    words->command.array_index = 5;
}

#define WORDS(words, key, ...) words_init(words, key, (const char *const[]){__VA_ARGS__, NULL})

static inline void start(struct fixture *f, const struct words *words)
{
    struct hp_error error = {0};
    enum hp_err err = hp_exec_command(f->exec, &words->command, &error);
    assert_string_equal(error.text, "");
    assert_int_equal(err, HP_OK);
}

/* Runs a shell line to its end and returns it. */
static inline const struct seen_end *sh(struct fixture *f, const char *line)
{
    struct words words;
    uint32_t before = f->end_count;
    WORDS(&words, 1000 + before, "/bin/sh", "-c", line);
    start(f, &words);
    WAIT_UNTIL(f, f->end_count > before);
    return &f->ends[before % KEPT_MAX];
}

#endif
