/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the frame scanner: limits, hostile headers, arrival in pieces. */
#include "tests/lib/hp_test.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "proto/tokenizer.h"
#include "proto/wire.h"

static const struct hp_tok_limits limits = {
    .frame_bytes_max = 1u << 20, .depth_max = 16, .elements_max = 65536, .map_keys_max = 64};

struct verdict {
    enum hp_tok_status status;
    size_t frame_size;
    const char *why;
};

static struct verdict scan(const struct hp_tok_limits *with, const void *data, size_t size)
{
    struct verdict ret = {.why = ""};
    struct hp_tok tok;

    hp_tok_init(&tok, with);
    ret.status = hp_tok_scan(&tok, data, size, &ret.frame_size, &ret.why);
    return ret;
}

#define SCAN(literal) scan(&limits, literal, sizeof(literal) - 1)

static void assert_bad(struct verdict got, const char *why)
{
    assert_int_equal(got.status, HP_TOK_BAD);
    assert_string_equal(got.why, why);
}

/* Every type once, in one array. */
static const char every_type[] =
    "\xdc\x00\x1e"
    "\xc0\xc2\xc3\x00\x7f\xff\xe0"
    "\xcc\xff\xcd\xff\xff\xce\xff\xff\xff\xff\xcf\xff\xff\xff\xff\xff\xff\xff\xff"
    "\xd0\x80\xd1\x80\x00\xd2\x80\x00\x00\x00\xd3\x80\x00\x00\x00\x00\x00\x00\x00"
    "\xca\x3f\x80\x00\x00\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00"
    "\xa3zab\xd9\x02zz\xda\x00\x01z\xdb\x00\x00\x00\x01z"
    "\xc4\x01\xc1\xc5\x00\x01\xc1\xc6\x00\x00\x00\x01\xc1"
    "\x90\x80\x82\x01\x91\x02\xa1k\xc0"
    "\xdd\x00\x00\x00\x01\x01\xde\x00\x01\x01\x02\xdf\x00\x00\x00\x01\x01\x02";

static void test_every_type(void **state)
{
    (void)state;
    struct verdict got = SCAN(every_type);

    assert_int_equal(got.status, HP_TOK_DONE);
    assert_int_equal(got.frame_size, sizeof(every_type) - 1);
}

static void test_every_split_point(void **state)
{
    (void)state;
    const size_t size = sizeof(every_type) - 1;

    for (size_t split = 0; split < size; split++) {
        struct hp_tok tok;
        size_t frame_size = 0;
        const char *why = "";
        uint8_t *part = hp_memdup(every_type, split); /* exact size: ASan sees a read beyond */

        hp_tok_init(&tok, &limits);
        assert_int_equal(hp_tok_scan(&tok, part, split, &frame_size, &why), HP_TOK_NEED_MORE);
        assert_int_equal(frame_size, 0);
        assert_int_equal(hp_tok_scan(&tok, (const uint8_t *)every_type, size, &frame_size, &why),
                         HP_TOK_DONE);
        assert_int_equal(frame_size, size);
        hp_free(part);
    }
}

static void test_byte_by_byte_and_next_frame(void **state)
{
    (void)state;
    const size_t size = sizeof(every_type) - 1;
    struct hp_tok tok;
    size_t frame_size = 0;
    const char *why = "";

    hp_tok_init(&tok, &limits);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < size; i++) {
            assert_int_equal(hp_tok_scan(&tok, (const uint8_t *)every_type, i, &frame_size, &why),
                             HP_TOK_NEED_MORE);
        }
        assert_int_equal(hp_tok_scan(&tok, (const uint8_t *)every_type, size, &frame_size, &why),
                         HP_TOK_DONE);
        assert_int_equal(hp_tok_scan(&tok, (const uint8_t *)every_type, size, &frame_size, &why),
                         HP_TOK_DONE);
        hp_tok_reset(&tok);
    }
}

static void test_two_frames_in_one_piece(void **state)
{
    (void)state;
    struct verdict got = SCAN("\x91\x01\x92\x02\x03");

    assert_int_equal(got.status, HP_TOK_DONE);
    assert_int_equal(got.frame_size, 2);
}

static void test_bare_values(void **state)
{
    (void)state;
    assert_int_equal(SCAN("\x05").status, HP_TOK_DONE);
    assert_int_equal(SCAN("\x90").status, HP_TOK_DONE);
    assert_int_equal(SCAN("").status, HP_TOK_NEED_MORE);
    assert_int_equal(SCAN("\xcd\x01").status, HP_TOK_NEED_MORE);
}

static void test_depth(void **state)
{
    (void)state;
    for (uint32_t depth = 0; depth <= 40; depth++) {
        uint8_t bytes[41];

        memset(bytes, 0x91, sizeof(bytes));
        bytes[depth] = 0xc0;
        struct verdict got = scan(&limits, bytes, depth + 1);
        if (depth <= limits.depth_max) {
            assert_int_equal(got.status, HP_TOK_DONE);
        } else {
            assert_bad(got, "The frame is nested too deeply.");
        }
    }
}

static void test_depth_of_a_million(void **state)
{
    (void)state;
    const size_t size = 1000000;
    uint8_t *bytes = hp_alloc(size);

    memset(bytes, 0x91, size);
    assert_bad(scan(&limits, bytes, size), "The frame is nested too deeply.");
    memset(bytes, 0x81, size);
    assert_bad(scan(&limits, bytes, size), "The frame is nested too deeply.");
    hp_free(bytes);
}

static void test_empty_containers_count_as_depth(void **state)
{
    (void)state;
    const struct hp_tok_limits flat = {
        .frame_bytes_max = 100, .depth_max = 1, .elements_max = 100, .map_keys_max = 4};

    assert_int_equal(scan(&flat, "\x92\x01\x02", 3).status, HP_TOK_DONE);
    assert_bad(scan(&flat, "\x91\x90", 2), "The frame is nested too deeply.");
    assert_bad(scan(&flat, "\x91\x80", 2), "The frame is nested too deeply.");
}

/* Refused from the header alone: nothing of what it declares has come. */
static void test_hostile_headers(void **state)
{
    (void)state;
    assert_bad(SCAN("\xdd\x20\x00\x00\x00"), "The frame has too many elements.");
    assert_bad(SCAN("\xdd\xff\xff\xff\xff"), "The frame has too many elements.");
    assert_bad(SCAN("\xdf\xff\xff\xff\xff"), "A map has too many keys.");
    assert_bad(SCAN("\xdf\x80\x00\x00\x00"), "A map has too many keys.");
    assert_bad(SCAN("\xde\x00\x41"), "A map has too many keys.");
    assert_bad(SCAN("\xc6\xff\xff\xff\xff"), "The frame is too big.");
    assert_bad(SCAN("\xdb\xff\xff\xff\xff"), "The frame is too big.");
    assert_bad(SCAN("\x91\xc6\xff\xff\xff\xff"), "The frame is too big.");
    assert_bad(SCAN("\xc6\x00\x10\x00\x00"), "The frame is too big.");
    assert_int_equal(SCAN("\xc6\x00\x0f\xff\xfb").status, HP_TOK_NEED_MORE);
}

static void test_refused_types(void **state)
{
    (void)state;
    static const uint8_t ext[] = {0xc7, 0xc8, 0xc9, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8};

    for (size_t i = 0; i < sizeof(ext); i++) {
        assert_bad(scan(&limits, &ext[i], 1), "The frame holds an extension type.");
    }
    assert_bad(SCAN("\xc1"), "The frame holds the byte 0xc1, which is no MessagePack.");
    assert_bad(SCAN("\xca\x7f\xc0\x00\x00"), "The frame holds a NaN.");
    assert_bad(SCAN("\xca\xff\x80\x00\x01"), "The frame holds a NaN.");
    assert_bad(SCAN("\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"), "The frame holds a NaN.");
    assert_bad(SCAN("\xcb\xff\xf0\x00\x00\x00\x00\x00\x01"), "The frame holds a NaN.");
    assert_int_equal(SCAN("\xca\x7f\x80\x00\x00").status, HP_TOK_DONE); /* infinity */
    assert_int_equal(SCAN("\xcb\xff\xf0\x00\x00\x00\x00\x00\x00").status, HP_TOK_DONE);
}

/* The budget is one for the whole frame: many small arrays do not get round it. */
static void test_element_budget(void **state)
{
    (void)state;
    const struct hp_tok_limits few = {
        .frame_bytes_max = 1000, .depth_max = 16, .elements_max = 9, .map_keys_max = 64};

    assert_int_equal(scan(&few, "\x93\x92\x01\x02\x92\x01\x02\x91\x01", 9).status, HP_TOK_DONE);
    assert_int_equal(scan(&few, "\x93\x92\x01\x02\x92\x01\x02\x92\x01\x02", 10).status, HP_TOK_BAD);
    assert_int_equal(scan(&few, "\x84\x01\x02\x01\x02\x01\x02\x01\x02", 9).status, HP_TOK_DONE);
    assert_bad(scan(&few, "\x85", 1), "The frame has too many elements.");
}

/* What is still owed by all open containers counts against the frame's size. */
static void test_owed_bytes(void **state)
{
    (void)state;
    const struct hp_tok_limits small = {
        .frame_bytes_max = 20, .depth_max = 4, .elements_max = 1000, .map_keys_max = 64};

    assert_int_equal(scan(&small, "\xdc\x00\x11", 3).status, HP_TOK_NEED_MORE);
    assert_bad(scan(&small, "\xdc\x00\x12", 3), "The frame is too big.");
    assert_bad(scan(&small, "\x9f\x95", 2), "The frame is too big.");
    assert_int_equal(scan(&small, "\x9f\x94", 2).status, HP_TOK_NEED_MORE);
    assert_bad(scan(&small, "\x9f\xa5", 2), "The frame is too big.");
    assert_int_equal(scan(&small, "\x9f\xa4", 2).status, HP_TOK_NEED_MORE);
}

static void test_size_limit_is_exact(void **state)
{
    (void)state;
    struct hp_tok_limits exact = limits;

    exact.frame_bytes_max = sizeof(every_type) - 1;
    assert_int_equal(scan(&exact, every_type, sizeof(every_type) - 1).status, HP_TOK_DONE);
    exact.frame_bytes_max--;
    assert_int_equal(scan(&exact, every_type, sizeof(every_type) - 1).status, HP_TOK_BAD);
}

static void test_bad_stays_bad(void **state)
{
    (void)state;
    struct hp_tok tok;
    size_t frame_size = 0;
    const char *why = "";

    hp_tok_init(&tok, &limits);
    for (int i = 0; i < 3; i++) {
        why = "";
        assert_int_equal(hp_tok_scan(&tok, (const uint8_t *)"\x91\xc1", 2, &frame_size, &why),
                         HP_TOK_BAD);
        assert_true(why[0] != '\0');
    }
    assert_int_equal(frame_size, 0);
}

static void test_own_limits(void **state)
{
    (void)state;
    assert_bad(scan(&hp_tok_limits_prehello, "\xc6\x00\x00\x10\x00", 5), "The frame is too big.");
    assert_int_equal(scan(&hp_tok_limits_open, "\xc6\x00\x00\x10\x00", 5).status, HP_TOK_NEED_MORE);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_every_type),
    cmocka_unit_test(test_every_split_point),
    cmocka_unit_test(test_byte_by_byte_and_next_frame),
    cmocka_unit_test(test_two_frames_in_one_piece),
    cmocka_unit_test(test_bare_values),
    cmocka_unit_test(test_depth),
    cmocka_unit_test(test_depth_of_a_million),
    cmocka_unit_test(test_empty_containers_count_as_depth),
    cmocka_unit_test(test_hostile_headers),
    cmocka_unit_test(test_refused_types),
    cmocka_unit_test(test_element_budget),
    cmocka_unit_test(test_owed_bytes),
    cmocka_unit_test(test_size_limit_is_exact),
    cmocka_unit_test(test_bad_stays_bad),
    cmocka_unit_test(test_own_limits),
};

HP_TEST_MAIN(tests)
