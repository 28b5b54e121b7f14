/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the configuration: file, flags, ranks, messages, generated texts. */
#include "tests/lib/hp_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/sys/conf.h"
#include "common/sys/file.h"

enum { OPT_LISTEN, OPT_SLOTS, OPT_FSYNC, OPT_LEASE, OPT_LIMIT, OPT_CONFIG, OPT_COUNT };

static const struct hp_conf_option options[OPT_COUNT] = {
    [OPT_LISTEN] = {.name = "listen_address",
                    .type = HP_CONF_STR,
                    .default_text = "127.0.0.1:4750",
                    .min = 1,
                    .max = 100,
                    .text = "Address to listen on."},
    [OPT_SLOTS] = {.name = "slots",
                   .type = HP_CONF_INT,
                   .default_text = "2",
                   .min = 1,
                   .max = 4096,
                   .text = "Tasks at one time."},
    [OPT_FSYNC] = {.name = "fsync",
                   .type = HP_CONF_BOOL,
                   .default_text = "yes",
                   .text = "Wait for the disk."},
    [OPT_LEASE] = {.name = "lease_time",
                   .type = HP_CONF_DURATION,
                   .default_text = "30s",
                   .min = 1000,
                   .max = 3600000,
                   .text = "How long a worker may be silent."},
    [OPT_LIMIT] = {.name = "memory_limit",
                   .type = HP_CONF_SIZE,
                   .min = 1024,
                   .text =
                       "Memory for queued tasks; the words go on for so long here that the text "
                       "has to be wrapped."},
    [OPT_CONFIG] = {.name = "config",
                    .type = HP_CONF_STR,
                    .value_name = "PATH",
                    .text = "File to read.",
                    .is_flag_only = true},
};

static char path[64];

static int make_path(void **state)
{
    (void)state;
    (void)snprintf(path, sizeof(path), "/tmp/hp-conf-XXXXXX");
    int fd = mkstemp(path);
    return fd >= 0 ? close(fd) : -1;
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

/* Loads `text` as a file and compares the end of the message, the path left out. */
static void check_load(const char *text, enum hp_err expected, const char *message)
{
    struct hp_conf conf;
    struct hp_error error = {0};
    assert_ok(hp_conf_init(&conf, options, OPT_COUNT));
    assert_ok(hp_file_write_atomic(path, text, strlen(text), 0600, &error));
    assert_err(hp_conf_load_file(&conf, path, &error), expected);
    if (expected != HP_OK) {
        assert_memory_equal(error.text, path, strlen(path));
        assert_string_equal(error.text + strlen(path), message);
    }
    hp_conf_deinit(&conf);
}

static void test_defaults_and_file(void **state)
{
    (void)state;
    static const char text[] = "# a comment\n"
                               "listen_address = \"0.0.0.0:1\"\n"
                               "slots = 8\n"
                               "fsync = no\n"
                               "lease_time = 2m\n"
                               "memory_limit = 512M\n";
    struct hp_conf conf;
    struct hp_error error = {0};
    assert_ok(hp_conf_init(&conf, options, OPT_COUNT));
    assert_string_equal(hp_conf_str(&conf, OPT_LISTEN), "127.0.0.1:4750");
    assert_int_equal(hp_conf_u64(&conf, OPT_LEASE), 30000);
    assert_true(hp_conf_bool(&conf, OPT_FSYNC));
    assert_false(hp_conf_is_set(&conf, OPT_LIMIT));
    assert_string_equal(hp_conf_str(&conf, OPT_CONFIG), "");
    assert_ok(hp_file_write_atomic(path, text, strlen(text), 0600, &error));
    assert_ok(hp_conf_load_file(&conf, path, &error));
    assert_string_equal(hp_conf_str(&conf, OPT_LISTEN), "0.0.0.0:1");
    assert_int_equal(hp_conf_u64(&conf, OPT_SLOTS), 8);
    assert_false(hp_conf_bool(&conf, OPT_FSYNC));
    assert_int_equal(hp_conf_u64(&conf, OPT_LEASE), 120000);
    assert_int_equal(hp_conf_u64(&conf, OPT_LIMIT), 512u << 20);
    assert_aborts((void)hp_conf_u64(&conf, OPT_LISTEN));
    hp_conf_deinit(&conf);
    assert_ok(hp_conf_init(&conf, options, OPT_COUNT));
    assert_err(hp_conf_load_file(&conf, "/nonexistent", &error), HP_ERR_NOT_FOUND);
    hp_conf_deinit(&conf);
    check_load("", HP_OK, NULL);
}

static void test_file_errors(void **state)
{
    (void)state;
    check_load("slots = 1\n\nslot = 2\n", HP_ERR_INVALID,
               ":3: unknown option 'slot', did you mean 'slots'?");
    check_load("zzzzzzzzzz = 2\n", HP_ERR_INVALID, ":1: unknown option 'zzzzzzzzzz'");
    check_load("config = x\n", HP_ERR_INVALID, ":1: unknown option 'config'");
    check_load("\nslots = 0\n", HP_ERR_RANGE, ":2: slots must be from 1 to 4096");
    check_load("slots = many\n", HP_ERR_INVALID, ":1: slots: 'many' is not a number (digits only)");
    check_load("lease_time = 2h\n", HP_ERR_RANGE, ":1: lease_time must be from 1s to 1h");
    check_load("memory_limit = 1\n", HP_ERR_RANGE, ":1: memory_limit must be at least 1K");
    check_load("listen_address = \"\"\n", HP_ERR_RANGE,
               ":1: listen_address has a wrong length: must be from 1 to 100");
    check_load("fsync = perhaps\n", HP_ERR_INVALID, ":1: fsync: 'perhaps' is neither yes nor no");
    char long_value[4000];
    int size = snprintf(long_value, sizeof(long_value), "listen_address = \"%03000d\"\n", 1);
    assert_true(size > 3000);
    check_load(long_value, HP_ERR_RANGE,
               ":1: listen_address has a wrong length: must be from 1 to 100");
}

static void test_bad_syntax(void **state)
{
    (void)state;
    static const char *const texts[] = {"slots\n", "slots = = 3\n", "{", "slots = \"3\n"};
    for (size_t i = 0; i < HP_COUNT_OF(texts); i++) {
        struct hp_conf conf;
        struct hp_error error = {0};
        assert_ok(hp_conf_init(&conf, options, OPT_COUNT));
        assert_ok(hp_file_write_atomic(path, texts[i], strlen(texts[i]), 0600, &error));
        assert_err(hp_conf_load_file(&conf, path, &error), HP_ERR_INVALID);
        assert_memory_equal(error.text, path, strlen(path));
        hp_conf_deinit(&conf);
    }
}

static enum hp_err parse(struct hp_conf *conf, const char *const *argv, int *ret_rest,
                         struct hp_error *reterr)
{
    int argc = 0;
    while (argv[argc] != NULL) {
        argc++;
    }
    return hp_conf_parse_flags(conf, argc, argv, ret_rest, reterr);
}

static void test_flags(void **state)
{
    (void)state;
    const char *const argv[] = {"prog",
                                "--slots",
                                "3",
                                "--lease-time=5s",
                                "--listen_address",
                                "--",
                                "--no-fsync",
                                "--config=a=b",
                                "rest",
                                "--slots",
                                NULL};
    struct hp_conf conf;
    struct hp_error error = {0};
    int rest = 0;
    assert_ok(hp_conf_init(&conf, options, OPT_COUNT));
    assert_ok(parse(&conf, argv, &rest, &error));
    assert_int_equal(rest, 8);
    assert_int_equal(hp_conf_u64(&conf, OPT_SLOTS), 3);
    assert_int_equal(hp_conf_u64(&conf, OPT_LEASE), 5000);
    assert_string_equal(hp_conf_str(&conf, OPT_LISTEN), "--"); /* a value may look like anything */
    assert_false(hp_conf_bool(&conf, OPT_FSYNC));
    assert_string_equal(hp_conf_str(&conf, OPT_CONFIG), "a=b");
    /* A flag outranks the file, whichever comes first. */
    assert_ok(hp_file_write_atomic(path, "slots = 9\nfsync = yes\n", 22, 0600, &error));
    assert_ok(hp_conf_load_file(&conf, path, &error));
    assert_int_equal(hp_conf_u64(&conf, OPT_SLOTS), 3);
    assert_false(hp_conf_bool(&conf, OPT_FSYNC));
    const char *const bool_argv[] = {"prog", "--fsync", "--", "--x", NULL};
    assert_ok(parse(&conf, bool_argv, &rest, &error));
    assert_int_equal(rest, 3);
    assert_true(hp_conf_bool(&conf, OPT_FSYNC));
    hp_conf_deinit(&conf);
}

static void check_flag_error(const char *flag, enum hp_err expected, const char *message)
{
    const char *const argv[] = {"prog", flag, NULL};
    struct hp_conf conf;
    struct hp_error error = {0};
    int rest = -1;
    assert_ok(hp_conf_init(&conf, options, OPT_COUNT));
    assert_err(parse(&conf, argv, &rest, &error), expected);
    assert_string_equal(error.text, message);
    assert_int_equal(rest, -1);
    hp_conf_deinit(&conf);
}

static void test_flag_errors(void **state)
{
    (void)state;
    check_flag_error("--slts", HP_ERR_INVALID, "unknown flag '--slts', did you mean '--slots'?");
    check_flag_error("--lease-tme=3", HP_ERR_INVALID,
                     "unknown flag '--lease-tme', did you mean '--lease-time'?");
    check_flag_error("--xyzzy", HP_ERR_INVALID, "unknown flag '--xyzzy'");
    check_flag_error("-s", HP_ERR_INVALID, "unknown flag '-s' (flags begin with --)");
    check_flag_error("--slots", HP_ERR_INVALID, "flag '--slots' needs a value");
    check_flag_error("--slots=5000", HP_ERR_RANGE, "slots must be from 1 to 4096");
    check_flag_error("--lease-time=5", HP_ERR_INVALID,
                     "lease_time: '5' is not a duration (a number with ms, s, m, h or d)");
    check_flag_error("--no-slots", HP_ERR_INVALID, "unknown flag '--no-slots'");
}

/* The example, uncommented where it has values, loads and changes nothing. */
static void test_example(void **state)
{
    (void)state;
    struct hp_buf buf;
    struct hp_conf conf;
    struct hp_error error = {0};
    hp_buf_init(&buf, 10000);
    assert_ok(hp_conf_example(options, OPT_COUNT, &buf));
    assert_ok(hp_buf_append_byte(&buf, '\0'));
    char *text = (char *)buf.data;
    assert_non_null(strstr(text, "# Tasks at one time.\n# From 1 to 4096.\n#slots = 2\n\n"));
    assert_non_null(strstr(text, "# At least 1K.\n#memory_limit = \n"));
    assert_non_null(strstr(text, "#listen_address = \"127.0.0.1:4750\"\n"));
    assert_null(strstr(text, "config"));
    char *slots = strstr(text, "#slots = 2");
    *slots = ' ';
    assert_ok(hp_file_write_atomic(path, text, strlen(text), 0600, &error));
    assert_ok(hp_conf_init(&conf, options, OPT_COUNT));
    assert_ok(hp_conf_load_file(&conf, path, &error));
    assert_int_equal(hp_conf_u64(&conf, OPT_SLOTS), 2);
    hp_conf_deinit(&conf);
    hp_buf_deinit(&buf);
}

static void test_help(void **state)
{
    (void)state;
    struct hp_buf buf;
    hp_buf_init(&buf, 10000);
    assert_ok(hp_conf_help(options, OPT_COUNT, &buf));
    assert_ok(hp_buf_append_byte(&buf, '\0'));
    const char *text = (const char *)buf.data;
    assert_non_null(strstr(text, "  --lease-time DURATION (default 30s)\n        How long"));
    assert_non_null(strstr(text, "  --fsync (default yes)\n"));
    assert_non_null(strstr(text, "  --config PATH\n"));
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        assert_true(strcspn(line, "\n") <= 80);
    }
    hp_buf_deinit(&buf);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    static const char text[] = "listen_address = x\nslots = 3\n";
    struct hp_error error = {0};
    assert_ok(hp_file_write_atomic(path, text, strlen(text), 0600, &error));
    bool was_clean = false;
    for (uint64_t n = 1; n < 100 && !was_clean; n++) {
        struct hp_conf conf;
        hp_mem_fail_at(n, false);
        enum hp_err err = hp_conf_init(&conf, options, OPT_COUNT);
        if (err == HP_OK) {
            err = hp_conf_load_file(&conf, path, &error);
            hp_conf_deinit(&conf);
        }
        was_clean = hp_mem_fail_count() == 0;
        assert_err(err, was_clean ? HP_OK : HP_ERR_NOMEM);
    }
    hp_mem_fail_at(0, false);
    assert_true(was_clean);
}

#define WITH_PATH(test) cmocka_unit_test_setup_teardown(test, make_path, remove_path)

static const struct CMUnitTest tests[] = {
    WITH_PATH(test_defaults_and_file),
    WITH_PATH(test_file_errors),
    WITH_PATH(test_bad_syntax),
    WITH_PATH(test_flags),
    WITH_PATH(test_flag_errors),
    WITH_PATH(test_example),
    WITH_PATH(test_help),
    WITH_PATH(test_out_of_memory),
};

HP_TEST_MAIN(tests)
