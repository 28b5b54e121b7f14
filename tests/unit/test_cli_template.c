/* SPDX-License-Identifier: BSD-2-Clause */
/* Replacement strings of map, quoting, values of functions, text for terminals. */
#include "tests/lib/hp_test.h"

#include "cli/cli.h"
#include "cli/template.h"
#include "cli/value.h"

#include <string.h>

#define WORDS(...)                                                                                 \
    (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)

static const char *text_of(const char *const *words, size_t count, const char *input)
{
    struct hp_cli_template made;
    struct hp_buf buf;
    hp_buf_init(&buf, 1 << 20);
    hp_cli_template_init(&made, words, count);
    hp_cli_template_text(&made, input, 7, &buf);
    const char *text = hp_cli_copy((const char *)buf.data, buf.size);
    hp_buf_deinit(&buf);
    return text;
}

static void test_replacements(void **state)
{
    (void)state;
    assert_string_equal(text_of(WORDS("c", "{}", "{.}", "{/}", "{//}", "{/.}", "{#}"), "a/b.c.txt"),
                        "c a/b.c.txt a/b.c b.c.txt a b.c 7");
    assert_string_equal(text_of(WORDS("c", "{.}", "{/}", "{//}"), "plain"), "c plain plain .");
    assert_string_equal(text_of(WORDS("c", "{.}", "{//}"), "/x"), "c /x /");
    assert_string_equal(text_of(WORDS("c", "{.}"), "a.b/c"), "c a.b/c");
    assert_string_equal(text_of(WORDS("c", "{.}"), "d/.rc"), "c d/.rc");
    assert_string_equal(text_of(WORDS("c", "o/{/}.gz", "{x}{"), "a/b"), "c o/b.gz '{x}{'");
    assert_string_equal(text_of(WORDS("c", "{}{}"), "a b"), "c 'a ba b'");
}

static void test_added_at_the_end(void **state)
{
    (void)state;
    assert_string_equal(text_of(WORDS("gzip", "-k"), "it's"), "gzip -k 'it'\\''s'");
    assert_string_equal(text_of(WORDS("echo"), ""), "echo ''");
}

static void test_program_from_input(void **state)
{
    struct hp_cli_template made;
    (void)state;
    hp_cli_template_init(&made, WORDS("{}", "-v"));
    assert_int_equal(made.fixed_count, 2);
    assert_string_equal(made.words[0], "env");
    assert_string_equal(text_of(WORDS("{}", "-v"), "./x"), "env -- ./x -v");
}

static void test_payload(void **state)
{
    struct hp_cli_template made;
    struct hp_buf buf;
    (void)state;
    hp_buf_init(&buf, 1 << 20);
    hp_cli_template_init(&made, WORDS("convert", "-resize", "200", "{}", "out/{/}", "-q"));
    assert_int_equal(made.fixed_count, 3);
    hp_cli_template_payload(&made, "p/a b.jpg", 1, &buf);
    static const char wanted[] = "p/a b.jpg\0out/a b.jpg\0-q";
    assert_int_equal(buf.size, sizeof(wanted));
    assert_memory_equal(buf.data, wanted, sizeof(wanted));
    hp_buf_deinit(&buf);
}

/* JSON -> MessagePack -> JSON. */
static void round_trip(const char *json)
{
    struct hp_buf buf;
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    hp_buf_init(&buf, 1 << 20);
    hp_cli_value_put(&buf, value, NULL);
    assert_string_equal(hp_cli_value_text(buf.data, buf.size), json);
    json_decref(value);
    hp_buf_deinit(&buf);
}

static void test_values(void **state)
{
    (void)state;
    round_trip("[1,-1,127,128,255,256,65535,65536,4294967296,-32,-33,-128,-129,-65537]");
    round_trip("[9223372036854775807,-9223372036854775808,0.5,-1.25]");
    round_trip("[true,false,null,\"\",\"text\",{\"a\":[{\"b\":{}}],\"c\":[]}]");
    round_trip("\"0123456789012345678901234567890123456789\"");
    round_trip("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]");
}

static void test_values_from_elsewhere(void **state)
{
    (void)state;
    assert_string_equal(hp_cli_value_text("\xc4\x03"
                                          "abc",
                                          5),
                        "\"abc\"");                                           /* bin 8 */
    assert_string_equal(hp_cli_value_text("\xca\x3f\x80\x00\x00", 5), "1.0"); /* float 32 */
    assert_string_equal(hp_cli_value_text("\xd1\xff\x00", 3), "-256");        /* int 16 */
    assert_string_equal(hp_cli_value_text("\x81\x01\xa1z", 4),
                        "{\"1\":\"z\"}");                      /* number as a key */
    assert_null(hp_cli_value_json("\x01\x02", 2));             /* two values */
    assert_null(hp_cli_value_json("\xdd\xff\xff\xff\xff", 5)); /* a list of 4 billion */
    assert_null(hp_cli_value_json("\xdf\xff\xff\xff\xff\x01", 6));
    assert_null(hp_cli_value_json("\xdb\xff\xff\xff\xff"
                                  "ab",
                                  7));
    assert_null(hp_cli_value_json("\xc1", 1));
    assert_null(hp_cli_value_json("", 0));
    char deep[100];
    memset(deep, 0x91, sizeof(deep));
    assert_null(hp_cli_value_json(deep, sizeof(deep)));
}

static void input_becomes(const char *input, const char *wanted)
{
    struct hp_buf buf;
    json_t *value = json_loads("[\"{}\",\"x{}\",2]", 0, NULL);
    hp_buf_init(&buf, 1 << 20);
    hp_cli_value_put(&buf, value, input);
    assert_string_equal(hp_cli_value_text(buf.data, buf.size), wanted);
    json_decref(value);
    hp_buf_deinit(&buf);
}

static void test_inputs_in_values(void **state)
{
    (void)state;
    input_becomes("7", "[7,\"x{}\",2]");
    input_becomes("seven", "[\"seven\",\"x{}\",2]");
    input_becomes("[1,\"{}\"]", "[[1,\"{}\"],\"x{}\",2]");
    input_becomes("{}", "[{},\"x{}\",2]");
}

static void test_escape(void **state)
{
    (void)state;
    assert_string_equal(HP_CLI_SAFE("plain é 漢"), "plain é 漢");
    assert_string_equal(HP_CLI_SAFE("\033[31mred\r\n\t"), "\\x1b[31mred\\x0d\\x0a\\x09");
    assert_string_equal(HP_CLI_SAFE("\xff\xc3("), "\\xff\\xc3(");
    assert_string_equal(HP_CLI_SAFE("\xc2\x9b"
                                    "31m"),
                        "\\xc2\\x9b31m"); /* C1: CSI */
    assert_string_equal(HP_CLI_SAFE("\xe2\x80\xae"
                                    "abc"),
                        "\\xe2\\x80\\xaeabc");                           /* right to left */
    assert_string_equal(HP_CLI_SAFE("\xed\xa0\x80"), "\\xed\\xa0\\x80"); /* surrogate */
    assert_string_equal(hp_cli_escape("a\n\tb", 4, true), "a\n\tb");
}

static void test_numbers_for_people(void **state)
{
    char out[40];
    (void)state;
    assert_string_equal(hp_cli_thousands(0, out), "0");
    assert_string_equal(hp_cli_thousands(999, out), "999");
    assert_string_equal(hp_cli_thousands(1000, out), "1,000");
    assert_string_equal(hp_cli_thousands(UINT64_MAX, out), "18,446,744,073,709,551,615");
    assert_string_equal(hp_cli_age(out, 59999), "59s");
    assert_string_equal(hp_cli_age(out, 7500000), "2h05m");
    assert_string_equal(hp_cli_age(out, 90000000), "1d01h");
    assert_string_equal(hp_cli_time_utc(1769882400250, out), "2026-01-31T18:00:00.250Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replacements),
        cmocka_unit_test(test_added_at_the_end),
        cmocka_unit_test(test_program_from_input),
        cmocka_unit_test(test_payload),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_values_from_elsewhere),
        cmocka_unit_test(test_inputs_in_values),
        cmocka_unit_test(test_escape),
        cmocka_unit_test(test_numbers_for_people),
    };
    int result = cmocka_run_group_tests(tests, NULL, NULL);
    hp_cli_free_all();
    return result;
}
