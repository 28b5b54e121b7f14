/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the generated messages. The first half walks every field of every message by its table,
 * so that a new field is tested the day it is defined; the second half uses the typed functions.
 */
#include "tests/lib/msg_sample.h"

#include "common/base/arena.h"
#include "proto/hp_msg.h"
#include "proto/hp_states.h"

struct fixture {
    struct hp_wire *wire;
    struct hp_arena arena;
    struct hp_buf buf;
    struct hp_buf again;
    struct hp_error error;
    void *msg; /* room for any C struct of the protocol */
};

#define MSG_BYTES 16384u

static int setup(void **state)
{
    struct fixture *f = hp_calloc(1, sizeof(*f));

    hp_buf_init(&f->buf, 1u << 20);
    hp_buf_init(&f->again, 1u << 20);
    hp_arena_init(&f->arena, 4096, 1u << 24);
    f->wire = hp_wire_new();
    f->msg = hp_calloc(1, MSG_BYTES);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    hp_buf_deinit(&f->buf);
    hp_buf_deinit(&f->again);
    hp_arena_deinit(&f->arena);
    hp_wire_free(f->wire);
    hp_free(f->msg);
    hp_free(f);
    return 0;
}

static const struct hp_wire_obj *unpack(struct fixture *f)
{
    const struct hp_wire_obj *root = NULL;
    struct hp_error error = {0};

    if (hp_wire_unpack_checked(f->wire, &hp_tok_limits_open, hp_buf_bin(&f->buf), &root, &error) !=
        HP_OK) {
        fail_msg("%s", error.text);
    }
    return root;
}

/* Decode what is in f->buf. */
static enum hp_err decode(struct fixture *f, const struct hp_codec_desc *desc)
{
    assert_true(desc->size <= MSG_BYTES);
    hp_arena_reset(&f->arena);
    f->error = (struct hp_error){0};
    return hp_codec_decode(desc, unpack(f), &f->arena, f->msg, &f->error);
}

static void expect_ok(struct fixture *f, const struct hp_codec_desc *desc)
{
    if (decode(f, desc) != HP_OK) {
        fail_msg("%s", f->error.text);
    }
}

/* The message is refused, and the text begins with the name of the message. */
static void expect_refused(struct fixture *f, const struct hp_codec_desc *desc, const char *part)
{
    assert_err(decode(f, desc), HP_ERR_PROTOCOL);
    assert_int_equal(strncmp(f->error.text, desc->name, strlen(desc->name)), 0);
    if (strstr(f->error.text, part) == NULL) {
        fail_msg("'%s' is not in '%s'", part, f->error.text);
    }
}

typedef void (*desc_test)(struct fixture *f, const struct hp_codec_desc *desc);

/* Run `test` for the params and the reply of every method. */
static void for_each_desc(struct fixture *f, desc_test test)
{
    for (uint32_t i = 1; i < HP_METHOD_COUNT; i++) {
        const struct hp_method_info *info = hp_method_info((enum hp_method)i);

        test(f, info->params);
        if (info->reply != NULL) {
            test(f, info->reply);
        }
    }
}

/* What was decoded encodes to the bytes it was decoded from. */
static void check_round_trip(struct fixture *f, const struct hp_codec_desc *desc)
{
    for (int edge = SAMPLE_LOW; edge <= SAMPLE_HIGH; edge++) {
        hp_buf_clear(&f->buf);
        hp_buf_clear(&f->again);
        sample_map(&f->buf, desc, (enum sample_edge)edge, sample_all(desc));
        expect_ok(f, desc);
        assert_int_equal(*(uint64_t *)f->msg, sample_all(desc));
        assert_ok(hp_codec_encode(desc, &f->again, f->msg, &f->error));
        assert_int_equal(f->again.size, f->buf.size);
        assert_memory_equal(f->again.data, f->buf.data, f->buf.size);
    }
}

static void test_round_trip_of_all(void **state)
{
    for_each_desc(*state, check_round_trip);
}

/* Required fields alone do; the rest takes its defaults, just as _init and an encode of them. */
static void check_required(struct fixture *f, const struct hp_codec_desc *desc)
{
    hp_buf_clear(&f->buf);
    sample_map(&f->buf, desc, SAMPLE_HIGH, desc->required);
    expect_ok(f, desc);
    assert_int_equal(*(uint64_t *)f->msg, desc->required);
    for (uint32_t i = 0; i < desc->count; i++) {
        if (!desc->fields[i].required) {
            continue;
        }
        hp_buf_clear(&f->buf);
        sample_map(&f->buf, desc, SAMPLE_HIGH, sample_all(desc) & ~(UINT64_C(1) << i));
        expect_refused(f, desc, "is missing");
        assert_non_null(strstr(f->error.text, desc->fields[i].name));
    }
}

static void test_required(void **state)
{
    for_each_desc(*state, check_required);
}

/* A map with all required fields but `skip`, with room for one more pair. */
static void begin_map(struct fixture *f, const struct hp_codec_desc *desc, uint32_t skip,
                      uint32_t more)
{
    uint64_t fields = desc->required & ~(UINT64_C(1) << skip);

    hp_buf_clear(&f->buf);
    assert_ok(hp_wire_put_map(&f->buf, (uint32_t)__builtin_popcountll(fields) + more));
    for (uint32_t i = 0; i < desc->count; i++) {
        if ((fields >> i & 1u) != 0) {
            assert_ok(hp_wire_put_cstr(&f->buf, desc->fields[i].name));
            sample_field(&f->buf, &desc->fields[i], SAMPLE_HIGH);
        }
    }
}

/* Nil stands for absent, also where it may not be. */
static void check_nil(struct fixture *f, const struct hp_codec_desc *desc)
{
    for (uint32_t i = 0; i < desc->count; i++) {
        if (desc->fields[i].required) {
            begin_map(f, desc, i, 1);
            assert_ok(hp_wire_put_cstr(&f->buf, desc->fields[i].name));
            assert_ok(hp_wire_put_nil(&f->buf));
            expect_refused(f, desc, "is missing");
        }
    }
}

static void test_nil_where_required(void **state)
{
    for_each_desc(*state, check_nil);
}

static void check_duplicates(struct fixture *f, const struct hp_codec_desc *desc)
{
    for (uint32_t i = 0; i < desc->count; i++) {
        for (int as_nil = 0; as_nil < 2; as_nil++) {
            begin_map(f, desc, i, 2);
            assert_ok(hp_wire_put_cstr(&f->buf, desc->fields[i].name));
            sample_field(&f->buf, &desc->fields[i], SAMPLE_HIGH);
            assert_ok(hp_wire_put_cstr(&f->buf, desc->fields[i].name));
            if (as_nil != 0) {
                assert_ok(hp_wire_put_nil(&f->buf));
            } else {
                sample_field(&f->buf, &desc->fields[i], SAMPLE_LOW);
            }
            expect_refused(f, desc, "is given twice");
        }
    }
}

static void test_duplicate_keys(void **state)
{
    for_each_desc(*state, check_duplicates);
}

enum wrong {
    WRONG_BOOL,
    WRONG_INT,
    WRONG_STR,
    WRONG_BIN,
    WRONG_ARRAY,
    WRONG_MAP,
    WRONG_FLOAT,
    WRONG_COUNT,
};

static void put_wrong(struct hp_buf *buf, enum wrong wrong)
{
    switch (wrong) {
    case WRONG_BOOL:
        assert_ok(hp_wire_put_bool(buf, true));
        break;
    case WRONG_INT:
        assert_ok(hp_wire_put_u64(buf, 1));
        break;
    case WRONG_STR:
        assert_ok(hp_wire_put_cstr(buf, ""));
        break;
    case WRONG_BIN:
        assert_ok(hp_wire_put_bin(buf, (struct hp_bin){0}));
        break;
    case WRONG_ARRAY:
        assert_ok(hp_wire_put_array(buf, 1));
        assert_ok(hp_wire_put_array(buf, 0));
        break;
    case WRONG_MAP:
        assert_ok(hp_wire_put_map(buf, 0));
        break;
    case WRONG_FLOAT:
        assert_ok(hp_buf_append(buf, "\xca\x3f\x80\x00\x00", 5)); /* 1.0 */
        break;
    case WRONG_COUNT:
        break;
    }
}

static bool is_right(const struct hp_codec_field *field, enum wrong wrong)
{
    switch ((enum hp_codec_type)field->type) {
    case HP_CODEC_BOOL:
        return wrong == WRONG_BOOL;
    case HP_CODEC_U32:
    case HP_CODEC_U64:
    case HP_CODEC_I64:
    case HP_CODEC_ENUM:
        return wrong == WRONG_INT;
    case HP_CODEC_STR:
        return wrong == WRONG_STR;
    case HP_CODEC_BIN:
        return wrong == WRONG_BIN || wrong == WRONG_STR;
    case HP_CODEC_STRUCT:
        return wrong == WRONG_MAP;
    case HP_CODEC_LIST:
        return false; /* the item, an array, is wrong for every list */
    }
    return false;
}

static void check_wrong_types(struct fixture *f, const struct hp_codec_desc *desc)
{
    for (uint32_t i = 0; i < desc->count; i++) {
        for (int wrong = 0; wrong < WRONG_COUNT; wrong++) {
            if (is_right(&desc->fields[i], (enum wrong)wrong)) {
                continue;
            }
            begin_map(f, desc, i, 1);
            assert_ok(hp_wire_put_cstr(&f->buf, desc->fields[i].name));
            put_wrong(&f->buf, (enum wrong)wrong);
            expect_refused(f, desc, "must be");
            assert_non_null(strstr(f->error.text, desc->fields[i].name));
        }
    }
}

static void test_wrong_types(void **state)
{
    for_each_desc(*state, check_wrong_types);
}

/* One field with this integer: accepted or refused? */
static void check_integer(struct fixture *f, const struct hp_codec_desc *desc, uint32_t index,
                          bool is_negative, uint64_t bits, bool good)
{
    begin_map(f, desc, index, 1);
    assert_ok(hp_wire_put_cstr(&f->buf, desc->fields[index].name));
    if (is_negative) {
        assert_ok(hp_wire_put_i64(&f->buf, (int64_t)bits));
    } else {
        assert_ok(hp_wire_put_u64(&f->buf, bits));
    }
    if (good) {
        expect_ok(f, desc);
        return;
    }
    expect_refused(f, desc, "must be");
}

static void check_integers(struct fixture *f, const struct hp_codec_desc *desc)
{
    for (uint32_t i = 0; i < desc->count; i++) {
        const struct hp_codec_field *field = &desc->fields[i];

        if (field->type == HP_CODEC_U32 || field->type == HP_CODEC_U64) {
            check_integer(f, desc, i, false, field->min, true);
            check_integer(f, desc, i, false, field->max, true);
            check_integer(f, desc, i, true, (uint64_t)INT64_C(-1), false);
            if (field->min > 0) {
                check_integer(f, desc, i, false, field->min - 1, false);
            }
            if (field->max < UINT64_MAX) {
                check_integer(f, desc, i, false, field->max + 1, false);
            }
        } else if (field->type == HP_CODEC_I64) {
            int64_t min = (int64_t)field->min;
            int64_t max = (int64_t)field->max;

            check_integer(f, desc, i, min < 0, field->min, true);
            check_integer(f, desc, i, max < 0, field->max, true);
            check_integer(f, desc, i, false, UINT64_MAX, false);
            check_integer(f, desc, i, false, (uint64_t)max + 1, false);
            if (min > INT64_MIN) {
                check_integer(f, desc, i, min <= 0, field->min - 1, false);
            }
        }
    }
}

static void test_integer_boundaries(void **state)
{
    for_each_desc(*state, check_integers);
}

static void check_enums(struct fixture *f, const struct hp_codec_desc *desc)
{
    for (uint32_t i = 0; i < desc->count; i++) {
        const struct hp_codec_field *field = &desc->fields[i];

        if (field->type != HP_CODEC_ENUM) {
            continue;
        }
        for (uint32_t value = 0; value < 40; value++) {
            bool known = hp_codec_enum_index(field->values, value) >= 0;

            begin_map(f, desc, i, 1);
            assert_ok(hp_wire_put_cstr(&f->buf, field->name));
            assert_ok(hp_wire_put_u64(&f->buf, value));
            if (known || field->open) {
                expect_ok(f, desc);
            } else {
                expect_refused(f, desc, "is no value of");
            }
        }
    }
}

static void test_enum_values(void **state)
{
    for_each_desc(*state, check_enums);
}

/* One field whose str, bin or list is at the limit or one over it. */
static void check_length(struct fixture *f, const struct hp_codec_desc *desc, uint32_t index,
                         bool over)
{
    const struct hp_codec_field *field = &desc->fields[index];

    begin_map(f, desc, index, 1);
    assert_ok(hp_wire_put_cstr(&f->buf, field->name));
    if (field->type == HP_CODEC_LIST) {
        uint32_t count = field->max_items + (over ? 1 : 0);

        assert_ok(hp_wire_put_array(&f->buf, count));
        for (uint32_t i = 0; i < count; i++) {
            if (field->item_type == HP_CODEC_STRUCT) {
                sample_value(&f->buf, field, field->item_type, SAMPLE_LOW);
            } else if (field->item_type == HP_CODEC_STR || field->item_type == HP_CODEC_BIN) {
                sample_bytes(&f->buf, field->item_type == HP_CODEC_STR, 0);
            } else {
                assert_ok(hp_wire_put_u64(&f->buf, field->max));
            }
        }
    } else {
        sample_bytes(&f->buf, field->type == HP_CODEC_STR, field->max_len + (over ? 1 : 0));
    }
    if (over) {
        expect_refused(f, desc, "is too long");
    } else {
        expect_ok(f, desc);
    }
}

static void check_lengths(struct fixture *f, const struct hp_codec_desc *desc)
{
    for (uint32_t i = 0; i < desc->count; i++) {
        const struct hp_codec_field *field = &desc->fields[i];
        bool is_list = field->type == HP_CODEC_LIST;

        if (is_list || field->type == HP_CODEC_STR || field->type == HP_CODEC_BIN) {
            if (is_list && field->max_items > 4096 && field->item_type == HP_CODEC_STRUCT) {
                continue; /* such a list is over the element limit of a frame first */
            }
            check_length(f, desc, i, false);
            check_length(f, desc, i, true);
        }
    }
}

static void test_length_boundaries(void **state)
{
    for_each_desc(*state, check_lengths);
}

static void check_text_rules(struct fixture *f, const struct hp_codec_desc *desc)
{
    static const struct hp_str texts[] = {HP_STR_INIT("\xff"), HP_STR_INIT("a\0"),
                                          HP_STR_INIT("\xed\xa0\x80")};

    for (uint32_t i = 0; i < desc->count; i++) {
        for (size_t k = 0; k < HP_COUNT_OF(texts); k++) {
            if (desc->fields[i].type != HP_CODEC_STR) {
                continue;
            }
            begin_map(f, desc, i, 1);
            assert_ok(hp_wire_put_cstr(&f->buf, desc->fields[i].name));
            assert_ok(hp_wire_put_str(&f->buf, texts[k]));
            expect_refused(f, desc, "must be UTF-8 without NUL bytes");
        }
    }
}

static void test_text_rules(void **state)
{
    for_each_desc(*state, check_text_rules);
}

/* Keys in the wrong order, unknown keys between them, nil for what is absent. */
static void check_liberal(struct fixture *f, const struct hp_codec_desc *desc)
{
    hp_buf_clear(&f->buf);
    assert_ok(hp_wire_put_map(&f->buf, 2 * desc->count + 1));
    for (uint32_t i = desc->count; i-- > 0;) {
        assert_ok(hp_buf_append_format(&f->buf, "%c%c%c", 0xa2, '?', (char)('0' + i)));
        sample_field(&f->buf, &desc->fields[i], SAMPLE_HIGH);
        assert_ok(hp_wire_put_cstr(&f->buf, desc->fields[i].name));
        if (desc->fields[i].required) {
            sample_field(&f->buf, &desc->fields[i], SAMPLE_HIGH);
        } else {
            assert_ok(hp_wire_put_nil(&f->buf));
        }
    }
    assert_ok(hp_wire_put_cstr(&f->buf, ""));
    assert_ok(hp_wire_put_nil(&f->buf));
    if (2 * desc->count + 1 > HP_LIMIT_MAP_KEYS) {
        return;
    }
    expect_ok(f, desc);
    assert_int_equal(*(uint64_t *)f->msg, desc->required);
}

static void test_liberal(void **state)
{
    for_each_desc(*state, check_liberal);
}

static void check_not_a_map(struct fixture *f, const struct hp_codec_desc *desc)
{
    for (int wrong = 0; wrong < WRONG_COUNT; wrong++) {
        if (wrong == WRONG_MAP) {
            continue;
        }
        hp_buf_clear(&f->buf);
        put_wrong(&f->buf, (enum wrong)wrong);
        expect_refused(f, desc, "must be a map");
    }
    hp_buf_clear(&f->buf);
    assert_ok(hp_buf_append(&f->buf, "\x81\x01\x01", 3));
    expect_refused(f, desc, "must be a map whose keys are strings");
}

static void test_not_a_map(void **state)
{
    for_each_desc(*state, check_not_a_map);
}

/* The encoder refuses what the decoder would, and leaves nothing behind. */
static void check_encoder_limits(struct fixture *f, const struct hp_codec_desc *desc)
{
    for (uint32_t i = 0; i < desc->count; i++) {
        const struct hp_codec_field *field = &desc->fields[i];
        uint8_t *at = (uint8_t *)f->msg + field->offset;

        hp_buf_clear(&f->buf);
        hp_buf_clear(&f->again);
        sample_map(&f->buf, desc, SAMPLE_HIGH, sample_all(desc));
        expect_ok(f, desc);
        if (field->type == HP_CODEC_STR || field->type == HP_CODEC_BIN) {
            ((struct hp_bin *)(void *)at)->size = field->max_len + 1;
        } else if (field->type == HP_CODEC_LIST) {
            ((struct hp_list_u64 *)(void *)at)->count = field->max_items + 1;
        } else if (field->type == HP_CODEC_ENUM) {
            *(uint32_t *)(void *)at = 999999;
        } else if (field->type == HP_CODEC_U32 && field->max < UINT32_MAX) {
            *(uint32_t *)(void *)at = (uint32_t)field->max + 1;
        } else if (field->type == HP_CODEC_U64 && field->max < UINT64_MAX) {
            *(uint64_t *)(void *)at = field->max + 1;
        } else {
            continue;
        }
        assert_err(hp_codec_encode(desc, &f->again, f->msg, &f->error), HP_ERR_INVALID);
        assert_non_null(strstr(f->error.text, field->name));
        assert_int_equal(f->again.size, 0);
    }
}

static void test_encoder_limits(void **state)
{
    for_each_desc(*state, check_encoder_limits);
}

/* A message cut anywhere is never accepted by the scanner, so it never reaches the decoder. */
static void check_truncation(struct fixture *f, const struct hp_codec_desc *desc)
{
    hp_buf_clear(&f->buf);
    sample_map(&f->buf, desc, SAMPLE_HIGH, desc->required);
    for (size_t size = 0; size < f->buf.size; size++) {
        const struct hp_wire_obj *root;

        assert_err(hp_wire_unpack_checked(f->wire, &hp_tok_limits_open,
                                          hp_bin_make(f->buf.data, size), &root, &f->error),
                   HP_ERR_PROTOCOL);
    }
}

static void test_truncation(void **state)
{
    for_each_desc(*state, check_truncation);
}

static void test_full_arena(void **state)
{
    struct fixture *f = *state;
    struct hp_arena small;

    sample_map(&f->buf, &hp_desc_msg_task_submit, SAMPLE_HIGH,
               sample_all(&hp_desc_msg_task_submit));
    hp_arena_init(&small, 64, 64);
    assert_err(hp_codec_decode(&hp_desc_msg_task_submit, unpack(f), &small, f->msg, &f->error),
               HP_ERR_NOMEM);
    hp_arena_deinit(&small);
}

/* ------------------------------------------------------------------------------- typed functions
 */

static void test_submit(void **state)
{
    struct fixture *f = *state;
    struct hp_bin payloads[] = {{.data = (const uint8_t *)"one", .size = 3}, {.size = 0}};
    struct hp_msg_task_submit msg;
    struct hp_msg_task_submit got;

    hp_msg_task_submit_init(&msg);
    assert_int_equal(msg.options.priority, 100); /* defaults of a struct inside */
    msg.has = HP_HAS_TASK_SUBMIT_NUMBER | HP_HAS_TASK_SUBMIT_PAYLOADS;
    msg.number = 12;
    msg.payloads = (struct hp_list_bin){.items = payloads, .count = 2};
    msg.options.has = HP_HAS_ST_TASK_OPTIONS_FN;
    msg.options.kind = HP_TASK_KIND_FUNCTION;
    msg.options.fn = HP_STR("work");
    assert_ok(hp_msg_task_submit_encode(&f->buf, &msg));
    assert_ok(hp_msg_task_submit_decode(unpack(f), &f->arena, &got, &f->error));
    assert_int_equal(got.has, HP_HAS_TASK_SUBMIT_NUMBER | HP_HAS_TASK_SUBMIT_OPTIONS |
                                  HP_HAS_TASK_SUBMIT_PAYLOADS);
    assert_int_equal(got.number, 12);
    assert_int_equal(got.payloads.count, 2);
    assert_int_equal(got.payloads.items[0].size, 3);
    assert_memory_equal(got.payloads.items[0].data, "one", 3);
    assert_int_equal(got.payloads.items[1].size, 0);
    assert_int_equal(got.options.kind, HP_TASK_KIND_FUNCTION);
    assert_true(hp_str_eq_c(got.options.fn, "work"));
    assert_true(hp_str_eq_c(got.options.queue, "default")); /* a default, without its has bit */
    assert_int_equal(got.options.has & HP_HAS_ST_TASK_OPTIONS_QUEUE, 0);
    assert_int_equal(got.options.max_losses, 10);
}

/* Bytes stored encoded are spliced into a message as they are. */
static void test_raw_struct(void **state)
{
    struct fixture *f = *state;
    struct hp_st_task_end end = {.has = HP_HAS_ST_TASK_END_EXIT_CODE, .exit_code = -3};
    struct hp_st_task_status status = {.has = HP_HAS_ST_TASK_STATUS_END, .id = 7};
    struct hp_msg_task_event event = {.has = HP_HAS_TASK_EVENT_EVENTS};
    struct hp_msg_task_event got;

    assert_ok(hp_st_task_end_encode(&f->again, &end));
    status.state = HP_TASK_STATE_FAILED;
    status.end.raw = hp_buf_bin(&f->again);
    event.events = (struct hp_list_task_status){.items = &status, .count = 1};
    assert_ok(hp_msg_task_event_encode(&f->buf, &event));
    assert_ok(hp_msg_task_event_decode(unpack(f), &f->arena, &got, &f->error));
    assert_int_equal(got.events.count, 1);
    assert_int_equal(got.events.items[0].state, HP_TASK_STATE_FAILED);
    assert_int_equal(got.events.items[0].end.exit_code, -3);
    assert_null(got.events.items[0].end.raw.data);
}

static void test_error_path(void **state)
{
    struct fixture *f = *state;
    struct hp_st_run_ref runs[] = {{.id = 1, .attempt = 1, .epoch = 1}, {.id = 2}};
    struct hp_msg_worker_started started = {.runs = {.items = runs, .count = 2}};

    assert_ok(hp_msg_worker_started_encode(&f->buf, &started));
    assert_ok(decode(f, &hp_desc_msg_worker_started));
    /* The same with the epoch of the second run gone. */
    hp_buf_clear(&f->buf);
    assert_ok(hp_wire_put_map(&f->buf, 1));
    assert_ok(hp_wire_put_cstr(&f->buf, "runs"));
    assert_ok(hp_wire_put_array(&f->buf, 2));
    assert_ok(hp_st_run_ref_encode(&f->buf, &runs[0]));
    sample_map(&f->buf, &hp_desc_st_run_ref, SAMPLE_LOW, 3);
    assert_err(decode(f, &hp_desc_msg_worker_started), HP_ERR_PROTOCOL);
    assert_string_equal(f->error.text, "worker.started.runs[1].epoch: is missing");
}

static void test_names(void **state)
{
    (void)state;
    enum hp_task_state value = HP_TASK_STATE_READY;

    assert_string_equal(hp_task_state_name(HP_TASK_STATE_DONE), "done");
    assert_string_equal(hp_task_state_name((enum hp_task_state)99), "unknown");
    assert_true(hp_task_state_find(HP_STR("expired"), &value));
    assert_int_equal(value, HP_TASK_STATE_EXPIRED);
    assert_false(hp_task_state_find(HP_STR("expire"), &value));
}

static void test_states(void **state)
{
    (void)state;
    assert_true(hp_task_may_move(HP_SM_TASK_READY, HP_SM_TASK_LEASED));
    assert_false(hp_task_may_move(HP_SM_TASK_DONE, HP_SM_TASK_READY));
    assert_false(hp_task_may_move((enum hp_sm_task)77, HP_SM_TASK_READY));
    assert_false(hp_task_may_move(HP_SM_TASK_READY, (enum hp_sm_task)77));
    assert_true(hp_sm_task_is_terminal(HP_SM_TASK_FAILED));
    assert_false(hp_sm_task_is_terminal(HP_SM_TASK_RUNNING));
    assert_string_equal(hp_sm_conn_name(HP_SM_CONN_OPEN), "open");
    assert_string_equal(hp_sm_conn_name((enum hp_sm_conn)9), "unknown");
    for (uint32_t from = 0; from < HP_SM_TASK_COUNT; from++) {
        bool leaves = false;

        for (uint32_t to = 0; to < HP_SM_TASK_COUNT; to++) {
            leaves |= hp_task_may_move((enum hp_sm_task)from, (enum hp_sm_task)to);
        }
        assert_int_equal(leaves, !hp_sm_task_is_terminal((enum hp_sm_task)from));
    }
    /* The states of the wire and of the machine are the same numbers; both sides rely on it. */
    for (uint32_t value = HP_SM_TASK_BLOCKED; value <= HP_SM_TASK_EXPIRED; value++) {
        assert_string_equal(hp_task_state_name((enum hp_task_state)value),
                            hp_sm_task_name((enum hp_sm_task)value));
    }
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

static const struct CMUnitTest tests[] = {
    WITH_FIXTURE(test_round_trip_of_all),
    WITH_FIXTURE(test_required),
    WITH_FIXTURE(test_nil_where_required),
    WITH_FIXTURE(test_duplicate_keys),
    WITH_FIXTURE(test_wrong_types),
    WITH_FIXTURE(test_integer_boundaries),
    WITH_FIXTURE(test_enum_values),
    WITH_FIXTURE(test_length_boundaries),
    WITH_FIXTURE(test_text_rules),
    WITH_FIXTURE(test_liberal),
    WITH_FIXTURE(test_not_a_map),
    WITH_FIXTURE(test_encoder_limits),
    WITH_FIXTURE(test_truncation),
    WITH_FIXTURE(test_full_arena),
    WITH_FIXTURE(test_submit),
    WITH_FIXTURE(test_raw_struct),
    WITH_FIXTURE(test_error_path),
    cmocka_unit_test(test_names),
    cmocka_unit_test(test_states),
};

HP_TEST_MAIN(tests)
