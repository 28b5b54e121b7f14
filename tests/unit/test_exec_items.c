/* SPDX-License-Identifier: BSD-2-Clause */
/* Calls of several items: the function runs for each, one result holds theirs. */
#include "tests/lib/hp_test.h"

#include "tests/unit/exec_fixture.h"

#include "common/base/items.h"
#include "worker/exec/ring.h"

static void change(struct hp_exec_config *config)
{
    static const char *const modules[] = {HP_TEST_MODULES "/hp_test_items.so", HP_EXAMPLE_MODULE};
    config->modules = modules;
    config->module_count = 2;
    config->result_cap_bytes = 1000000;
}

static int set_up(void **state)
{
    struct fixture *f = fixture_new();
    struct hp_exec_config config = fixture_config(f, 1);
    change(&config);
    *state = fixture_start(&config, f);
    WAIT_UNTIL(f, f->child_is_ready[0]);
    return 0;
}

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

/* Calls the function with these bytes as they are, and waits for its end. */
static const struct seen_call *call_raw(struct fixture *f, const char *function, const void *data,
                                        size_t size)
{
    static uint64_t key;
    struct hp_exec_call call = {.key = ++key,
                                .function = hp_str_of(function),
                                .payload = hp_bin_make(data, size),
                                .payload_fd = -1,
                                .is_items = true,
                                .task_id = 1,
                                .attempt = 1,
                                .epoch = 7};
    enum hp_err err = HP_ERR_AGAIN;
    uint32_t before = f->call_count;
    WAIT_UNTIL(f, (err = hp_exec_call(f->exec, 0, &call)) != HP_ERR_AGAIN);
    assert_ok(err);
    WAIT_UNTIL(f, f->call_count == before + 1);
    assert_int_equal(f->calls[f->kept_count - 1].key, key);
    return &f->calls[f->kept_count - 1];
}

static const struct seen_call *call_items(struct fixture *f, const char *function,
                                          const char *const *words, uint32_t count)
{
    struct hp_buf buf;
    hp_buf_init(&buf, 1U << 24);
    assert_ok(hp_items_open(&buf));
    for (uint32_t i = 0; i < count; i++) {
        assert_ok(hp_items_append(&buf, words[i], strlen(words[i])));
    }
    hp_items_close(&buf, count);
    const struct seen_call *seen = call_raw(f, function, buf.data, buf.size);
    hp_buf_deinit(&buf);
    return seen;
}

static void assert_results(const struct seen_call *seen, const char *const *words, uint32_t count)
{
    struct hp_items items;
    assert_int_equal(seen->end.status, HP_EXEC_CALL_OK);
    const void *from = seen->large != NULL ? (const void *)seen->large : (const void *)seen->data;
    assert_true(hp_items_begin(&items, from, seen->end.result_bytes));
    assert_int_equal(items.count, count);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *data = NULL;
        size_t size = 0;
        assert_true(hp_items_next(&items, &data, &size));
        assert_int_equal(size, strlen(words[i]));
        assert_memory_equal(data, words[i], size);
    }
    assert_true(hp_items_ended(&items));
}

static void each_item_has_its_result(void **state)
{
    struct fixture *f = *state;
    static const char *const words[] = {"one", "", "three", "of four"};
    static const char *const wanted[] = {"0 ok:one", "1 ok:", "2 ok:three", "3 ok:of four"};
    static const char *const nothing[] = {"", "", "", ""};
    assert_results(call_items(f, "items.where", words, 4), wanted, 4);
    assert_results(call_items(f, "echo", words, 4), words, 4);
    assert_results(call_items(f, "noop", words, 4), nothing, 4);
    assert_results(call_items(f, "items.where", words, 0), wanted, 0);
    /* A call of one payload after them is what it was. */
    struct hp_exec_call call = {.key = 900,
                                .function = HP_STR("echo"),
                                .payload = hp_bin_make("alone", 5),
                                .payload_fd = -1};
    assert_ok(hp_exec_call(f->exec, 0, &call));
    WAIT_UNTIL(f, f->calls[f->kept_count - 1].key == 900);
    assert_string_equal(f->calls[f->kept_count - 1].data, "alone");
}

/* What is set as a result may lie in the room that was asked for before. */
static void the_last_result_counts(void **state)
{
    struct fixture *f = *state;
    static const char *const words[] = {"first", "second", "third"};
    assert_results(call_items(f, "items.again", words, 3), words, 3);
}

static void the_first_failure_ends_it(void **state)
{
    struct fixture *f = *state;
    static const char *const words[] = {"\x91\x02", "\x91\xa1x", "\x91\x03"};
    const struct seen_call *seen = call_items(f, "square", words, 3);
    assert_int_equal(seen->end.status, HP_EXEC_CALL_PERMANENT);
    assert_string_equal(seen->data, "item 1: square wants an integer");
    assert_int_equal(seen->end.result_bytes, 0);
    seen = call_items(f, "items.grow", &words[1], 1);
    assert_int_equal(seen->end.status, HP_EXEC_CALL_RETRY);
    assert_int_equal(seen->end.retry_ms, 40);
    seen = call_items(f, "no_such_function", words, 3);
    assert_int_equal(seen->end.status, HP_EXEC_CALL_NO_FUNCTION);
    seen = call_items(f, "fail", (const char *const[]){"\x91\xa4oops"}, 1);
    assert_int_equal(seen->end.status, HP_EXEC_CALL_ERROR);
    assert_string_equal(seen->data, "item 0: oops");
}

/* A text that fills its room is cut at the end, not at the front. */
static void long_texts_keep_their_item(void **state)
{
    struct fixture *f = *state;
    const struct seen_call *seen = call_items(f, "items.words", (const char *const[]){""}, 1);
    assert_int_equal(seen->end.status, HP_EXEC_CALL_ERROR);
    assert_int_equal(seen->end.text.size, HP_CHILD_TEXT_BYTES_MAX);
    assert_memory_equal(seen->data, "item 0: ttt", 11);
}

static void results_over_the_cap(void **state)
{
    struct fixture *f = *state;
    /* Of 500,000 bytes each, and of 498,688. */
    static const uint8_t two[] = {0x92, 0xc4, 5,    0xce, 0, 7,    0xa1, 0x20,
                                  0xc4, 5,    0xce, 0,    7, 0x9c, 0};
    static const uint8_t three[] = {0x92, 0xc4, 5,    0xce, 0, 7,    0xa1, 0x20,
                                    0xc4, 5,    0xce, 0,    7, 0xa1, 0x20};
    const struct seen_call *seen = call_raw(f, "items.grow", two, sizeof(two));
    assert_int_equal(seen->end.status, HP_EXEC_CALL_OK);
    assert_int_equal(seen->end.result_bytes, 5 + 5 + 500000 + 5 + 498688);
    seen = call_raw(f, "items.grow", three, sizeof(three));
    assert_int_equal(seen->end.status, HP_EXEC_CALL_TOO_BIG);
    assert_string_equal(seen->data, "the result is larger than 1000000 bytes");
}

static void what_is_no_array_of_items(void **state)
{
    struct fixture *f = *state;
    const struct seen_call *seen = call_raw(f, "echo", "hello", 5);
    assert_int_equal(seen->end.status, HP_EXEC_CALL_PERMANENT);
    assert_string_equal(seen->data, "the payload is no MessagePack array of items");
    seen = call_raw(f, "echo", "", 0);
    assert_int_equal(seen->end.status, HP_EXEC_CALL_PERMANENT);
    seen = call_raw(f, "echo", "\x92\xa1x\x05", 4);
    assert_int_equal(seen->end.status, HP_EXEC_CALL_PERMANENT);
    assert_string_equal(seen->data, "item 1: cut, or no byte string");
    seen = call_raw(f, "echo", "\x91\xa1xy", 4);
    assert_int_equal(seen->end.status, HP_EXEC_CALL_PERMANENT);
    assert_string_equal(seen->data, "the payload goes on behind its last item");
    seen = call_raw(f, "echo", "\xdd\xff\xff\xff\xff\xa1x", 7);
    assert_string_equal(seen->data, "item 1: cut, or no byte string");
}

/* Many items, of sizes at which they lie anywhere, in a payload that comes by descriptor. */
static void many_items(void **state)
{
    enum { COUNT = 3000 };
    struct fixture *f = *state;
    static char words[COUNT][310];
    static const char *list[COUNT];
    static char wanted[COUNT][330];
    static const char *wanted_list[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        memset(words[i], 'a' + (int)(i % 26), i % 300);
        list[i] = words[i];
        (void)snprintf(wanted[i], sizeof(wanted[i]), "%u ok:%.310s", i % 10, words[i]);
        wanted_list[i] = wanted[i];
    }
    const struct seen_call *seen = call_items(f, "items.where", list, COUNT);
    assert_non_null(seen->large);
    assert_results(seen, wanted_list, COUNT);
}

#define WITH_CHILD(name_) cmocka_unit_test_setup_teardown(name_, set_up, tear_down)

static const struct CMUnitTest tests[] = {
    WITH_CHILD(each_item_has_its_result),
    WITH_CHILD(the_last_result_counts),
    WITH_CHILD(the_first_failure_ends_it),
    WITH_CHILD(long_texts_keep_their_item),
    WITH_CHILD(results_over_the_cap),
    WITH_CHILD(what_is_no_array_of_items),
    WITH_CHILD(many_items),
};

HP_TEST_MAIN(tests)
