/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of addresses as people write them. */
#include "tests/lib/hp_test.h"

#include <stdio.h>

#include "common/net/addr.h"

static void test_endpoints(void **state)
{
    static const struct {
        const char *text;
        const char *host;
        uint16_t port;
    } rows[] = {
        {"127.0.0.1:7741", "127.0.0.1", 7741},
        {"broker.example", "broker.example", 99},
        {"[::1]:80", "::1", 80},
        {"[::1]", "::1", 99},
        {"::1", "::1", 99},
        {"*:1", "", 1},
        {":0", "", 0},
        {"h:65535", "h", 65535},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct hp_endpoint endpoint;
        assert_ok(hp_endpoint_parse(rows[i].text, 99, &endpoint, NULL));
        assert_string_equal(endpoint.host, rows[i].host);
        assert_int_equal(endpoint.port, rows[i].port);
    }
}

static void test_bad_endpoints(void **state)
{
    static const char *const rows[] = {"",     "h:65536", "h:",    "h:x",       "h:-1",
                                       "[::1", "[::1]x",  "a b:1", "http://h:1"};
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct hp_endpoint endpoint = {.port = 5};
        struct hp_error error = {0};
        assert_int_not_equal(hp_endpoint_parse(rows[i], 1, &endpoint, &error), HP_OK);
        assert_int_not_equal(strlen(error.text), 0);
        assert_int_equal(endpoint.port, 5); /* untouched */
    }
    char longer[400];
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    struct hp_endpoint endpoint;
    assert_err(hp_endpoint_parse(longer, 1, &endpoint, NULL), HP_ERR_RANGE);
}

static struct hp_addr addr_of(const char *text)
{
    struct hp_endpoint endpoint;
    struct hp_addr addrs[2];
    size_t count = 0;
    assert_ok(hp_endpoint_parse(text, 1, &endpoint, NULL));
    assert_ok(hp_endpoint_resolve(&endpoint, false, addrs, 2, &count, NULL));
    return addrs[0];
}

static void test_text_and_loopback(void **state)
{
    char text[HP_ADDR_TEXT_BYTES];
    struct hp_addr v4 = addr_of("127.0.0.1:80");
    struct hp_addr v6 = addr_of("[::1]:81");
    struct hp_addr mapped = addr_of("[::ffff:127.0.0.1]:82");
    struct hp_addr far = addr_of("192.0.2.1:83");
    (void)state;
    assert_string_equal(hp_addr_text(&v4, text, sizeof(text)), "127.0.0.1:80");
    assert_string_equal(hp_addr_text(&v6, text, sizeof(text)), "[::1]:81");
    assert_string_equal(hp_addr_text(&mapped, text, sizeof(text)), "127.0.0.1:82");
    assert_true(hp_addr_is_loopback(&v4));
    assert_true(hp_addr_is_loopback(&v6));
    assert_true(hp_addr_is_loopback(&mapped));
    assert_false(hp_addr_is_loopback(&far));
    assert_true(hp_addr_same_host(&v4, &mapped));
    assert_false(hp_addr_same_host(&v4, &v6));
    assert_false(hp_addr_same_host(&v4, &far));
    assert_int_equal(hp_addr_port(&far), 83);
}

static void test_unknown_host(void **state)
{
    struct hp_endpoint endpoint = {.host = "no-such-host.invalid", .port = 1};
    struct hp_addr addrs[2];
    size_t count = 0;
    struct hp_error error = {0};
    (void)state;
    assert_err(hp_endpoint_resolve(&endpoint, false, addrs, 2, &count, &error), HP_ERR_NOT_FOUND);
    assert_non_null(strstr(error.text, "no-such-host.invalid"));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_endpoints),
    cmocka_unit_test(test_bad_endpoints),
    cmocka_unit_test(test_text_and_loopback),
    cmocka_unit_test(test_unknown_host),
};

HP_TEST_MAIN(tests)
