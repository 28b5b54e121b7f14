/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the broker's configuration: verbs, checks over several rows, tokens. */
#include "tests/lib/hp_test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/config.h"
#include "server/notify.h"

static char dir[64];
static char path[128];

static int make_dir(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof(dir), "/tmp/hp-config-XXXXXX");
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/file", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(dir);
}

static void put_file(const char *text, mode_t mode)
{
    (void)unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

/* Reads a command line of up to six words behind the program's name. */
static enum hp_err read_line(struct hp_config *config, struct hp_error *error,
                             const char *const *words)
{
    const char *argv[8] = {"hostpoold"};
    int argc = 1;
    *error = (struct hp_error){0};
    while (words[argc - 1] != NULL) {
        argv[argc] = words[argc - 1];
        argc++;
    }
    return hp_config_read(argc, argv, config, error);
}

#define READ(config, error, ...) read_line(config, error, (const char *const[]){__VA_ARGS__, NULL})

static void test_defaults(void **state)
{
    struct hp_config config;
    struct hp_error error;
    (void)state;
    assert_ok(READ(&config, &error, "run", "--data-dir", "/x/y//"));
    assert_int_equal(config.verb, HP_VERB_RUN);
    assert_string_equal(config.data_dir, "/x/y");
    assert_int_equal(config.listen_count, 1);
    assert_string_equal(config.listen[0].host, "127.0.0.1");
    assert_int_equal(config.listen[0].port, 7741);
    assert_false(config.listens_beyond_loopback);
    assert_string_equal(config.token, "");
    assert_int_equal(hp_config_lease_ms(&config), 30000);
    assert_int_equal(hp_config_heartbeat_ms(&config), 5000);
    assert_int_equal(hp_config_hold_us(&config), 300);
    assert_true(hp_config_eager(&config));
    hp_config_deinit(&config);
}

static void test_verbs(void **state)
{
    static const struct {
        const char *word;
        enum hp_config_verb verb;
    } rows[] = {{"init", HP_VERB_INIT},
                {"help", HP_VERB_HELP},
                {"version", HP_VERB_VERSION},
                {"--help", HP_VERB_HELP},
                {"--version", HP_VERB_VERSION},
                {"--check-config", HP_VERB_CHECK_CONFIG},
                {"--example-config", HP_VERB_EXAMPLE_CONFIG}};
    struct hp_config config;
    struct hp_error error;
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_ok(READ(&config, &error, rows[i].word));
        assert_int_equal(config.verb, rows[i].verb);
        hp_config_deinit(&config);
    }
    assert_err(READ(&config, &error, "rnu"), HP_ERR_INVALID);
    assert_non_null(strstr(error.text, "Did you mean \"run\"?"));
    assert_int_not_equal(READ(&config, &error, "run", "more"), HP_OK);
    assert_non_null(strstr(error.text, "\"more\""));
    assert_int_not_equal(READ(&config, &error, "--no-such-flag"), HP_OK);
}

static void test_file_and_flags(void **state)
{
    struct hp_config config;
    struct hp_error error;
    (void)state;
    put_file("lease = 60s\nheartbeat = 2s\nlisten = \"127.0.0.1:1, [::1]:2\"\n", 0644);
    assert_ok(READ(&config, &error, "--config", path, "--heartbeat", "3s"));
    assert_int_equal(hp_config_lease_ms(&config), 60000);
    assert_int_equal(hp_config_heartbeat_ms(&config), 3000); /* a flag goes before the file */
    assert_int_equal(config.listen_count, 2);
    assert_string_equal(config.listen[1].host, "::1");
    struct hp_config next;
    char changed[128];
    assert_ok(READ(&next, &error, "--config", path, "--log-level", "debug"));
    hp_config_diff(&config, &next, changed, sizeof(changed));
    assert_string_equal(changed, "heartbeat"); /* the log level needs no restart */
    hp_config_deinit(&next);
    hp_config_deinit(&config);
    put_file("leese = 60s\n", 0644);
    assert_int_not_equal(READ(&config, &error, "--config", path), HP_OK);
    assert_non_null(strstr(error.text, "file:1"));
    assert_non_null(strstr(error.text, "lease")); /* what was perhaps meant */
}

static void test_checks(void **state)
{
    static const char *const rows[][3] = {
        {"--heartbeat", "20s", "third"},
        {"--log-level", "loud", "loud"},
        {"--listen", "127.0.0.1:70000", "port"},
        {"--listen", " , ", "missing"},
        {"--lease", "5", "lease"},
    };
    struct hp_config config;
    struct hp_error error;
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_not_equal(READ(&config, &error, rows[i][0], rows[i][1]), HP_OK);
        assert_non_null(strstr(error.text, rows[i][2]));
    }
}

static void test_exposed_without_token(void **state)
{
    static const char *const rows[] = {"0.0.0.0:1",
                                       "192.0.2.1",
                                       "[::]:1",
                                       "*:1",
                                       "127.0.0.1:1,0.0.0.0:1",
                                       "no-such-host.invalid:1"};
    struct hp_config config;
    struct hp_error error;
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_err(READ(&config, &error, "--listen", rows[i]), HP_ERR_DENIED);
        assert_non_null(strstr(error.text, "token_file"));
    }
    put_file("0123456789abcdef\n", 0600);
    assert_ok(READ(&config, &error, "--listen", "0.0.0.0:1", "--token-file", path));
    assert_true(config.listens_beyond_loopback);
    assert_string_equal(config.token, "0123456789abcdef");
    hp_config_deinit(&config);
    assert_string_equal(config.token, ""); /* wiped */
}

static void test_tokens(void **state)
{
    char token[HP_TOKEN_BYTES_MAX + 1] = "kept";
    struct hp_error error = {0};
    (void)state;
    put_file("long enough", 0640);
    assert_err(hp_token_read(path, token, &error), HP_ERR_DENIED);
    assert_non_null(strstr(error.text, "chmod 600"));
    put_file("short\n", 0600);
    assert_err(hp_token_read(path, token, &error), HP_ERR_RANGE);
    put_file("two lines\nof words\n", 0600);
    assert_err(hp_token_read(path, token, &error), HP_ERR_RANGE);
    assert_err(hp_token_read(dir, token, &error), HP_ERR_INVALID);
    assert_err(hp_token_read("/no/such/file", token, &error), HP_ERR_NOT_FOUND);
    char longer[HP_TOKEN_BYTES_MAX + 2];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    put_file(longer, 0600);
    assert_err(hp_token_read(path, token, &error), HP_ERR_RANGE);
    assert_string_equal(token, "kept"); /* untouched by failures */
    longer[HP_TOKEN_BYTES_MAX] = '\n';
    put_file(longer, 0400);
    assert_ok(hp_token_read(path, token, &error));
    assert_int_equal(strlen(token), HP_TOKEN_BYTES_MAX);
}

static void test_texts(void **state)
{
    struct hp_buf text;
    struct hp_config config;
    struct hp_error error;
    (void)state;
    hp_buf_init(&text, 1 << 20);
    assert_ok(hp_config_help(&text));
    assert_ok(hp_buf_append_byte(&text, 0));
    assert_non_null(strstr((const char *)text.data, "--token-file"));
    hp_buf_clear(&text);
    assert_ok(hp_config_example(&text));
    assert_ok(hp_buf_append_byte(&text, 0));
    put_file((const char *)text.data, 0644);
    assert_ok(READ(&config, &error, "--config", path)); /* the example is valid */
    hp_config_deinit(&config);
    hp_buf_deinit(&text);
}

/* The manager's time is in microseconds, and may be meant for another process. */
static void test_watchdog(void **state)
{
    char pid[24];
    (void)state;
    (void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
    assert_int_equal(unsetenv("WATCHDOG_USEC") | unsetenv("WATCHDOG_PID"), 0);
    assert_int_equal(hp_notify_watchdog_ms(), 0);
    assert_int_equal(setenv("WATCHDOG_USEC", "3000000", 1), 0);
    assert_int_equal(hp_notify_watchdog_ms(), 3000);
    assert_int_equal(setenv("WATCHDOG_PID", pid, 1), 0);
    assert_int_equal(hp_notify_watchdog_ms(), 3000);
    assert_int_equal(setenv("WATCHDOG_PID", "1", 1), 0);
    assert_int_equal(hp_notify_watchdog_ms(), 0);
    assert_int_equal(unsetenv("WATCHDOG_USEC") | unsetenv("WATCHDOG_PID"), 0);
}

#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)

static const struct CMUnitTest tests[] = {
    WITH_DIR(test_defaults),
    WITH_DIR(test_verbs),
    WITH_DIR(test_file_and_flags),
    WITH_DIR(test_checks),
    WITH_DIR(test_exposed_without_token),
    WITH_DIR(test_tokens),
    WITH_DIR(test_texts),
    cmocka_unit_test(test_watchdog),
};

HP_TEST_MAIN(tests)
