/* SPDX-License-Identifier: BSD-2-Clause */
/* Where the broker is and what opens it; words; clients that cannot be made. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/engine_state.h"
#include "client/shell.h"
#include "tests/lib/hp_test.h"

static struct hp_client *make(const char *host, enum hp_status expected)
{
    struct hp_client_options options;
    struct hp_client *client;

    hp_client_options_init(&options);
    options.host = host;
    assert_int_equal(hp_client_new(&options, &client), expected);
    assert_non_null(client);
    return client;
}

static void test_hosts(void **state)
{
    static const struct {
        const char *text;
        const char *display; /* NULL: refused */
    } cases[] = {
        {NULL, "127.0.0.1:7741"},
        {"", "127.0.0.1:7741"},
        {"n0", "n0:7741"},
        {"n0:99", "n0:99"},
        {"hostpool://n0:99", "n0:99"},
        {"10.0.0.1:65535", "10.0.0.1:65535"},
        {"[::1]", "[::1]:7741"},
        {"[::1]:80", "[::1]:80"},
        {"::1", "[::1]:7741"},
        {"n0:", NULL},
        {":80", NULL},
        {"n0:0", NULL},
        {"n0:65536", NULL},
        {"n0:80x", NULL},
        {"[::1", NULL},
        {"[::1]x", NULL},
    };

    (void)state;
    (void)unsetenv("HOSTPOOL_HOST");
    for (size_t i = 0; i < HP_COUNT_OF(cases); i++) {
        bool good = cases[i].display != NULL;
        struct hp_client *client =
            make(cases[i].text, good ? HP_STATUS_OK : HP_STATUS_BAD_ARGUMENT);

        if (good) {
            assert_string_equal(hp_client_host(client), cases[i].display);
        } else {
            assert_non_null(strstr(hp_client_error(client), "HOST:PORT"));
        }
        hp_close(client);
    }
    assert_int_equal(setenv("HOSTPOOL_HOST", "env:1", 1), 0);
    struct hp_client *client = make(NULL, HP_STATUS_OK);

    assert_string_equal(hp_client_host(client), "env:1");
    hp_client_free(client);
    (void)unsetenv("HOSTPOOL_HOST");
}

static void test_tokens(void **state)
{
    char path[] = "/tmp/hp_test_token_XXXXXX";
    struct hp_client_options options;
    struct hp_client *client;
    char *token;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "secret\nsecond\n", 14), 14);
    (void)close(fd);
    client = make(NULL, HP_STATUS_OK);
    hp_client_options_init(&options);
    assert_int_equal(hp_client_token_read(client, &options, &token), HP_STATUS_OK);
    assert_null(token);
    options.token_file = path;
    assert_int_equal(hp_client_token_read(client, &options, &token), HP_STATUS_OK);
    assert_string_equal(token, "secret");
    hp_free(token);
    options.token = "given";
    assert_int_equal(hp_client_token_read(client, &options, &token), HP_STATUS_OK);
    assert_string_equal(token, "given");
    hp_free(token);
    options.token = NULL;
    assert_int_equal(unlink(path), 0);
    assert_int_equal(hp_client_token_read(client, &options, &token), HP_STATUS_BAD_ARGUMENT);
    assert_non_null(strstr(hp_client_error(client), path));
    hp_close(client);
}

/* A client that could not be made still says why, and every call on it fails in peace. */
static void test_bad_client(void **state)
{
    struct hp_client *client = make("n0:0", HP_STATUS_BAD_ARGUMENT);
    struct hp_options options;
    struct hp_event event;
    uint64_t id;

    (void)state;
    hp_options_init(&options);
    options.fn = "f";
    assert_int_equal(hp_submit(client, &options, NULL, 10, &id, NULL), HP_STATUS_BAD_ARGUMENT);
    assert_int_equal(hp_broker_ping(client, 10, NULL), HP_STATUS_BAD_ARGUMENT);
    assert_int_equal(hp_client_process(client, 0), HP_STATUS_BAD_ARGUMENT);
    assert_false(hp_client_next_event(client, &event));
    assert_int_equal(hp_client_fd(client), -1);
    assert_null(hp_client_server(client));
    hp_close(client);
    hp_close(NULL);
}

static void test_words(void **state)
{
    enum hp_state found;

    (void)state;
    assert_string_equal(hp_status_word(HP_STATUS_NOT_FOUND), "not_found");
    assert_string_equal(hp_status_word((enum hp_status)999), "?");
    assert_string_equal(hp_state_word(HP_STATE_RUNNING), "running");
    assert_string_equal(hp_state_word((enum hp_state)77), "?");
    assert_string_equal(hp_end_reason_word(HP_END_NODE_LOST), "node_lost");
    assert_true(hp_state_parse("expired", &found));
    assert_int_equal(found, HP_STATE_EXPIRED);
    assert_false(hp_state_parse("nonsense", &found));
    assert_true(hp_state_is_final(HP_STATE_DONE) && !hp_state_is_final(HP_STATE_GONE));
    for (unsigned i = 0; i < HP_RPC_ERROR_COUNT; i++) {
        assert_true(i == 0 || hp_status_of_rpc((enum hp_rpc_error_code)i) != HP_STATUS_OK);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_hosts),
    cmocka_unit_test(test_tokens),
    cmocka_unit_test(test_bad_client),
    cmocka_unit_test(test_words),
};

HP_TEST_MAIN(tests)
