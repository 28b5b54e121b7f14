/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of MessagePack-RPC frames: what is accepted, what is refused, errors both ways. */
#include "tests/lib/hp_test.h"

#include <stdio.h>

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "proto/rpc.h"

struct fixture {
    struct hp_wire *wire;
    struct hp_buf buf;
    struct hp_rpc rpc;
    struct hp_error error;
};

static int setup(void **state)
{
    struct fixture *f = hp_calloc(1, sizeof(*f));

    hp_buf_init(&f->buf, 1u << 20);
    f->wire = hp_wire_new();
    *state = f;
    return f->wire == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    hp_buf_deinit(&f->buf);
    hp_wire_free(f->wire);
    hp_free(f);
    return 0;
}

static enum hp_err read_bytes(struct fixture *f, const char *bytes, size_t size)
{
    return hp_rpc_read(f->wire, (const uint8_t *)bytes, size, &f->rpc, &f->error);
}

#define READ(f, literal) read_bytes(f, literal, sizeof(literal) - 1)

static enum hp_err read_buf(struct fixture *f)
{
    return hp_rpc_read(f->wire, f->buf.data, f->buf.size, &f->rpc, &f->error);
}

static void test_request(void **state)
{
    struct fixture *f = *state;

    assert_ok(hp_rpc_put_request(&f->buf, UINT32_MAX, HP_METHOD_TASK_SUBMIT));
    assert_ok(hp_wire_put_map(&f->buf, 0));
    assert_ok(read_buf(f));
    assert_int_equal(f->rpc.type, HP_RPC_REQUEST);
    assert_true(f->rpc.msgid_known);
    assert_int_equal(f->rpc.msgid, UINT32_MAX);
    assert_int_equal(f->rpc.method, HP_METHOD_TASK_SUBMIT);
    assert_true(hp_str_eq_c(f->rpc.method_name, "task.submit"));
    assert_int_equal(hp_wire_count(f->rpc.params), 0);
}

static void test_notify(void **state)
{
    struct fixture *f = *state;

    assert_ok(hp_rpc_put_notify(&f->buf, HP_METHOD_TASK_EVENT));
    assert_ok(hp_wire_put_map(&f->buf, 0));
    assert_ok(read_buf(f));
    assert_int_equal(f->rpc.type, HP_RPC_NOTIFY);
    assert_int_equal(f->rpc.method, HP_METHOD_TASK_EVENT);
    assert_false(f->rpc.msgid_known);
}

static void test_reply(void **state)
{
    struct fixture *f = *state;

    assert_ok(hp_rpc_put_reply(&f->buf, 9));
    assert_ok(hp_wire_put_map(&f->buf, 1));
    assert_ok(hp_wire_put_cstr(&f->buf, "a"));
    assert_ok(hp_wire_put_u64(&f->buf, 1));
    assert_ok(read_buf(f));
    assert_int_equal(f->rpc.type, HP_RPC_RESPONSE);
    assert_int_equal(f->rpc.msgid, 9);
    assert_false(f->rpc.failed);
    assert_int_equal(hp_wire_count(f->rpc.result), 1);
    assert_ok(READ(f, "\x94\x01\x05\xc0\xc0")); /* nil stands for an empty map */
    assert_int_equal(hp_wire_count(f->rpc.result), 0);
}

static void check_error(struct fixture *f, bool as_map, uint64_t retry_after_ms)
{
    hp_buf_clear(&f->buf);
    assert_ok(hp_rpc_put_error(&f->buf, 3, HP_RPC_ERROR_NOT_FOUND, HP_STR("no task: 7\xff"), as_map,
                               retry_after_ms));
    assert_ok(read_buf(f));
    assert_true(f->rpc.failed);
    assert_int_equal(f->rpc.msgid, 3);
    assert_int_equal(f->rpc.failure.code, HP_RPC_ERROR_NOT_FOUND);
    assert_true(hp_str_eq_c(f->rpc.failure.word, "not_found"));
    assert_true(hp_str_eq_c(f->rpc.failure.text, "no task: 7?"));
    assert_int_equal(f->rpc.failure.retry_after_ms, retry_after_ms);
}

static void test_errors_both_ways(void **state)
{
    struct fixture *f = *state;

    check_error(f, false, 0);
    check_error(f, false, 1500);
    check_error(f, true, 0);
    check_error(f, true, 1500);
}

static void test_error_is_cut_not_lost(void **state)
{
    struct fixture *f = *state;
    static char text[5000];

    memset(text, 'x', sizeof(text));
    assert_ok(hp_rpc_put_error(&f->buf, 3, HP_RPC_ERROR_INTERNAL, hp_str_make(text, sizeof(text)),
                               false, UINT32_MAX));
    assert_ok(read_buf(f));
    assert_int_equal(f->rpc.failure.text.size, HP_RPC_ERROR_TEXT_BYTES);
    assert_int_equal(f->rpc.failure.retry_after_ms, UINT32_MAX);
}

static void test_error_leaves_no_part(void **state)
{
    (void)state;
    struct hp_buf buf;

    hp_buf_init(&buf, 20);
    assert_err(
        hp_rpc_put_error(&buf, 1, HP_RPC_ERROR_BUSY, HP_STR("a long sentence here"), false, 0),
        HP_ERR_FULL);
    assert_int_equal(buf.size, 0);
    hp_buf_deinit(&buf);
}

/* Into a buffer of any size: all of it, or FULL. A peer is never sent a part. */
static void test_buffers_of_every_size(void **state)
{
    (void)state;
    const struct hp_str text = HP_STR("free space");
    struct hp_buf buf;
    for (int what = 0; what < 7; what++) {
        size_t full = 0;
        for (size_t max = 200; max > 0; max--) {
            enum hp_err err = HP_OK;
            hp_buf_init(&buf, max);
            switch (what) {
            case 0:
                err = hp_rpc_put_request(&buf, 7, HP_METHOD_TASK_SUBMIT);
                break;
            case 1:
                err = hp_rpc_put_notify(&buf, HP_METHOD_TASK_EVENT);
                break;
            case 2:
                err = hp_rpc_put_reply(&buf, 7);
                break;
            default:
                err = hp_rpc_put_error(&buf, 7, HP_RPC_ERROR_BUSY, text, what < 5,
                                       what % 2 == 0 ? 0 : 5000);
                break;
            }
            full = full == 0 ? buf.size : full;
            assert_err(err, max >= full ? HP_OK : HP_ERR_FULL);
            assert_true(err == HP_OK ? buf.size == full : what < 3 || buf.size == 0);
            hp_buf_deinit(&buf);
        }
        assert_true(full > 3);
    }
}

static void check_split(const char *error, enum hp_rpc_error_code code, const char *word,
                        const char *text)
{
    struct hp_rpc_failure got;

    hp_rpc_split_error(hp_str_of(error), &got);
    assert_int_equal(got.code, code);
    assert_true(hp_str_eq_c(got.word, word));
    assert_true(hp_str_eq_c(got.text, text));
}

static void test_split(void **state)
{
    (void)state;
    check_split("busy: wait", HP_RPC_ERROR_BUSY, "busy", "wait");
    check_split("busy:wait", HP_RPC_ERROR_BUSY, "busy", "wait");
    check_split("busy: ", HP_RPC_ERROR_BUSY, "busy", "");
    check_split("busy:", HP_RPC_ERROR_BUSY, "busy", "");
    check_split("new_word: x", HP_RPC_ERROR_NONE, "new_word", "x");
    check_split("none: x", HP_RPC_ERROR_NONE, "none", "x");
    check_split("no code here", HP_RPC_ERROR_NONE, "", "no code here");
    check_split("Two words: x", HP_RPC_ERROR_NONE, "", "Two words: x");
    check_split(": x", HP_RPC_ERROR_NONE, "", ": x");
    check_split("", HP_RPC_ERROR_NONE, "", "");
    check_split("busy: (retry after  ms)", HP_RPC_ERROR_BUSY, "busy", "(retry after  ms)");
    static const char *const plain[] = {
        "x (retry after 9999999999999999999999 ms)",
        "a number that comes late, retry after  ms)",
        "some other words with the number 12 ms)",
        "1234567890123456 ms)",
        "12345678901234 ms)",
        "(retry after 5 s)",
        "(retry after 5: ms)",
        "(retry after 5/ ms)",
    };
    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
        char line[80];
        (void)snprintf(line, sizeof(line), "busy: %s", plain[i]);
        check_split(line, HP_RPC_ERROR_BUSY, "busy", plain[i]);
    }
    check_split("busy: x (retry after 70 ms)", HP_RPC_ERROR_BUSY, "busy", "x");
    check_split("busy: (retry after 1 ms) ms)", HP_RPC_ERROR_BUSY, "busy",
                "(retry after 1 ms) ms)");
    check_split("{busy}: x", HP_RPC_ERROR_NONE, "", "{busy}: x");
}

static void test_what_stands_for_empty_params(void **state)
{
    struct fixture *f = *state;

    assert_ok(READ(f, "\x94\x00\x01\xa1x\x90"));
    assert_int_equal(hp_wire_count(f->rpc.params), 0);
    assert_ok(READ(f, "\x94\x00\x01\xa1x\x91\xc0"));
    assert_ok(READ(f, "\x94\x00\x01\xa1x\x91\x90"));
    assert_ok(READ(f, "\x94\x00\x01\xa1x\x91\x80"));
    assert_int_equal(hp_wire_type(f->rpc.params), HP_WIRE_MAP);
    assert_int_equal(f->rpc.method, HP_METHOD_NONE); /* unknown, but well formed */
    assert_true(hp_str_eq_c(f->rpc.method_name, "x"));
}

/* Fields of an error that are not what they should be are passed over; the others count. */
static void test_error_maps_of_others(void **state)
{
    struct fixture *f = *state;

    assert_ok(READ(f, "\x94\x01\x05\x84\xa4"
                      "code\x07\xa4"
                      "text\xa2hi"
                      "\xaeretry_after_ms\xa1"
                      "9\xa5other\x01\xc0"));
    assert_true(f->rpc.failed);
    assert_int_equal(f->rpc.failure.code, HP_RPC_ERROR_NONE);
    assert_true(hp_str_eq_c(f->rpc.failure.text, "hi"));
    assert_int_equal(f->rpc.failure.retry_after_ms, 0);
    assert_ok(READ(f, "\x94\x01\x05\x83\xa4"
                      "code\xa4"
                      "busy\xa4"
                      "text\x07"
                      "\xaeretry_after_ms\x09\xc0"));
    assert_int_equal(f->rpc.failure.code, HP_RPC_ERROR_BUSY);
    assert_int_equal(f->rpc.failure.text.size, 0);
    assert_int_equal(f->rpc.failure.retry_after_ms, 9);
    assert_ok(READ(f, "\x94\x00\x01\xc4\x0b"
                      "task.submit\x91\x80")); /* a name as bin */
    assert_int_equal(f->rpc.method, HP_METHOD_TASK_SUBMIT);
}

static void expect_bad(struct fixture *f, const char *bytes, size_t size, bool msgid_known)
{
    f->error = (struct hp_error){0};
    assert_int_equal(read_bytes(f, bytes, size), HP_ERR_PROTOCOL);
    assert_true(f->error.text[0] != '\0');
    assert_int_equal(f->rpc.msgid_known, msgid_known);
}

#define BAD(literal, known) expect_bad(f, literal, sizeof(literal) - 1, known)

/* A notification that nobody knows may have any params: it is skipped, the peer is borne with. */
static void test_unknown_notification(void **state)
{
    struct fixture *f = *state;

    assert_ok(READ(f, "\x93\x02\xa1x\x92\x01\xa1y"));
    assert_int_equal(f->rpc.method, HP_METHOD_NONE);
    assert_int_equal(hp_wire_count(f->rpc.params), 0);
    BAD("\x93\x02\xa1x\x80", false);                    /* no array */
    BAD("\x93\x02\xabtask.submit\x92\x01\xa1y", false); /* a known one */
}

static void test_refused(void **state)
{
    struct fixture *f = *state;

    BAD("\x01", false);
    BAD("\x80", false);
    BAD("\x90", false);
    BAD("\x92\x02\xa1x", false);
    BAD("\x93\x00\x01\xa1x", false);             /* request of three */
    BAD("\x94\x02\xa1x\x91\x80\xc0", false);     /* notification of four */
    BAD("\x94\x03\x01\xa1x\x91\x80", false);     /* type 3 */
    BAD("\x94\xff\x01\xa1x\x91\x80", false);     /* type -1 */
    BAD("\x94\xa1\x30\x01\xa1x\x91\x80", false); /* type "0" */
    BAD("\x94\x00\xff\xa1x\x91\x80", false);     /* id -1 */
    BAD("\x94\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xa1x\x91\x80", false); /* id 2^32 */
    BAD("\x94\x00\x01\x05\x91\x80", true);                                   /* method 5 */
    BAD("\x94\x00\x01\xa1x\x80", true);                                      /* params a map */
    BAD("\x94\x00\x01\xa1x\xc0", true);                                      /* params nil */
    BAD("\x94\x00\x01\xa1x\x92\x80\x80", true);                              /* two maps */
    BAD("\x94\x00\x01\xa1x\x91\x01", true);                                  /* a number */
    BAD("\x94\x00\x01\xa1x\x91\x91\x01", true);  /* an array that is not empty */
    BAD("\x94\x01\x01\xc0\x01", true);           /* result 1 */
    BAD("\x94\x01\x01\x01\xc0", true);           /* error 1 */
    BAD("\x94\x01\x01\x81\x01\x01\xc0", true);   /* error map with key 1 */
    BAD("\x94\x00\x01\xa1x\x91\x80\x00", false); /* a byte more */
}

static void test_methods(void **state)
{
    (void)state;
    for (uint32_t i = 1; i < HP_METHOD_COUNT; i++) {
        const struct hp_method_info *info = hp_method_info((enum hp_method)i);

        assert_int_equal(hp_method_find(hp_str_of(info->name)), i);
        assert_int_equal(info->reply == NULL, info->is_notify);
        assert_true(info->from != 0);
        assert_int_equal(info->before_hello, i == HP_METHOD_HELLO);
        assert_int_equal(hp_method_find((struct hp_str){.data = info->name,
                                                        .size = (uint32_t)strlen(info->name) - 1}),
                         HP_METHOD_NONE);
    }
    assert_int_equal(hp_method_find(HP_STR("")), HP_METHOD_NONE);
    assert_int_equal(hp_method_info((enum hp_method)9999)->from, 0);
    for (uint32_t i = 1; i < HP_RPC_ERROR_COUNT; i++) {
        const char *name = hp_rpc_error_name((enum hp_rpc_error_code)i);

        assert_int_equal(hp_rpc_error_find(hp_str_of(name)), i);
    }
    assert_string_equal(hp_rpc_error_name((enum hp_rpc_error_code)9999), "none");
    for (int err = HP_OK; err < HP_ERR_COUNT; err++) {
        assert_int_equal(hp_rpc_error_of((enum hp_err)err) == HP_RPC_ERROR_NONE, err == HP_OK);
    }
    assert_int_equal(hp_rpc_error_of((enum hp_err)9999), HP_RPC_ERROR_INTERNAL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(test_request, setup, teardown),
    cmocka_unit_test_setup_teardown(test_notify, setup, teardown),
    cmocka_unit_test_setup_teardown(test_reply, setup, teardown),
    cmocka_unit_test_setup_teardown(test_errors_both_ways, setup, teardown),
    cmocka_unit_test_setup_teardown(test_error_is_cut_not_lost, setup, teardown),
    cmocka_unit_test(test_error_leaves_no_part),
    cmocka_unit_test(test_buffers_of_every_size),
    cmocka_unit_test(test_split),
    cmocka_unit_test_setup_teardown(test_error_maps_of_others, setup, teardown),
    cmocka_unit_test_setup_teardown(test_what_stands_for_empty_params, setup, teardown),
    cmocka_unit_test_setup_teardown(test_unknown_notification, setup, teardown),
    cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
    cmocka_unit_test(test_methods),
};

HP_TEST_MAIN(tests)
