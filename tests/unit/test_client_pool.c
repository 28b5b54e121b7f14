/* SPDX-License-Identifier: BSD-2-Clause */
/* The pool object against a broker on a socket: what its functions say, in which order, and when.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "client/include/hostpool.h"
#include "tests/unit/hub_fake.h"

#define WAIT_MS 60000

struct rig {
    struct hub_fake *fake;
    struct hp_client_options client;
    struct hp_pool_options options;
    struct hp_pool *pool;
};

static struct rig *rig_new(void)
{
    struct rig *rig = hp_calloc(1, sizeof(*rig));

    assert_non_null(rig);
    rig->fake = hub_fake_new();
    hp_client_options_init(&rig->client);
    rig->client.host = rig->fake->host;
    hp_pool_options_init(&rig->options);
    rig->options.client = &rig->client;
    assert_int_equal(hp_pool_create(&rig->options, WAIT_MS, &rig->pool), HP_STATUS_OK);
    assert_int_equal(hp_pool_id(rig->pool), 1);
    return rig;
}

static void rig_free(struct rig *rig)
{
    hp_pool_release(rig->pool);
    hub_fake_free(rig->fake);
    hp_free(rig);
}

static struct hp_bytes bytes_of(const char *text)
{
    return (struct hp_bytes){.data = text, .size = strlen(text)};
}

static void test_apply(void **state)
{
    struct rig *rig = rig_new();
    struct hp_bytes payload = bytes_of("e1");
    struct hp_pool_info *info;
    struct hp_result *result;

    (void)state;
    assert_int_equal(hp_pool_apply(rig->pool, "f", &payload, WAIT_MS, &result), HP_STATUS_OK);
    assert_int_equal(result->task.state, HP_STATE_DONE);
    assert_int_equal(result->value.size, 2);
    assert_memory_equal(result->value.data, "e1", 2);
    hp_result_free(result);
    assert_int_equal(hp_pool_info(rig->pool, WAIT_MS, &info), HP_STATUS_OK);
    assert_int_equal(info->phase, HP_POOL_OPEN);
    assert_int_equal(info->processes, 3);
    assert_int_equal(info->id, 1);
    hp_pool_info_free(info);
    /* A large result is taken over, not copied. */
    payload = bytes_of("b");
    assert_int_equal(hp_pool_apply(rig->pool, "f", &payload, WAIT_MS, &result), HP_STATUS_OK);
    assert_int_equal(result->value.size, FAKE_BLOB_BYTES);
    assert_memory_equal(result->value.data, rig->fake->blob, FAKE_BLOB_BYTES);
    hp_result_free(result);
    rig_free(rig);
}

static void test_end(void **state)
{
    struct rig *rig = rig_new();
    struct hp_bytes payload = bytes_of("e");
    struct hp_result *result;

    (void)state;
    assert_int_equal(hp_pool_join(rig->pool, WAIT_MS), HP_STATUS_ILLEGAL_STATE);
    assert_string_equal(hp_pool_error(rig->pool), "the pool is still running");
    assert_int_equal(hp_pool_close(rig->pool, WAIT_MS), HP_STATUS_OK);
    assert_int_equal(hp_pool_close(rig->pool, WAIT_MS), HP_STATUS_OK);
    assert_int_equal(hp_pool_apply(rig->pool, "f", &payload, WAIT_MS, &result),
                     HP_STATUS_ILLEGAL_STATE);
    assert_string_equal(hp_pool_error(rig->pool), "the pool is not running");
    assert_int_equal(hp_pool_join(rig->pool, WAIT_MS), HP_STATUS_OK);
    assert_int_equal(atomic_load(&rig->fake->end_count), 2);
    rig_free(rig);
    /* Left running it is terminated, detached it is not. */
    rig = rig_new();
    hp_pool_release(rig->pool);
    assert_int_equal(atomic_load(&rig->fake->end_count), 1);
    rig->pool = NULL;
    rig_free(rig);
    rig = rig_new();
    assert_int_equal(hp_pool_detach(rig->pool, WAIT_MS), HP_STATUS_OK);
    hp_pool_release(rig->pool);
    assert_int_equal(atomic_load(&rig->fake->end_count), 1);
    rig->pool = NULL;
    rig_free(rig);
}

/* ---------------------------------------------------------------- results */

struct seen {
    atomic_uint success;
    atomic_uint error;
    atomic_uint wrong;
};

static void on_success(void *context, struct hp_async *async)
{
    struct seen *seen = context;
    const struct hp_result *result;

    /* Before ready, and yet the result can be had. */
    (void)atomic_fetch_add(&seen->wrong, hp_result_ready(async) ? 1 : 0);
    if (hp_result_get(async, 0, &result) != HP_STATUS_OK || result->task.state != HP_STATE_DONE) {
        (void)atomic_fetch_add(&seen->wrong, 1);
    }
    (void)atomic_fetch_add(&seen->success, 1);
}

static void on_error(void *context, struct hp_async *async)
{
    struct seen *seen = context;

    (void)async;
    (void)atomic_fetch_add(&seen->error, 1);
}

static void test_async(void **state)
{
    struct rig *rig = rig_new();
    struct seen seen = {0};
    struct hp_result_callbacks callbacks = {on_success, on_error, &seen};
    struct hp_bytes payload = bytes_of("e1");
    const struct hp_result *result;
    const struct hp_result *again;
    struct hp_async *async;
    bool successful;

    (void)state;
    assert_int_equal(hp_pool_apply_async(rig->pool, "f", &payload, &callbacks, &async),
                     HP_STATUS_OK);
    assert_true(hp_result_wait(async, WAIT_MS));
    assert_true(hp_result_ready(async));
    assert_int_equal(hp_result_get(async, WAIT_MS, &result), HP_STATUS_OK);
    assert_int_equal(hp_result_get(async, 0, &again), HP_STATUS_OK);
    assert_ptr_equal(result, again);
    assert_int_equal(hp_result_successful(async, &successful), HP_STATUS_OK);
    assert_true(successful);
    assert_int_equal(hp_result_id(async, 0), 2);
    assert_int_equal(atomic_load(&seen.success), 1);
    hp_result_release(async);
    /* Refused: an error, told by get as well. */
    payload = bytes_of("r");
    assert_int_equal(hp_pool_apply_async(rig->pool, "f", &payload, &callbacks, &async),
                     HP_STATUS_OK);
    assert_int_equal(hp_result_get(async, WAIT_MS, &result), HP_STATUS_UNSUPPORTED);
    assert_string_equal(hp_pool_error(rig->pool), "not here");
    assert_int_equal(hp_result_successful(async, &successful), HP_STATUS_OK);
    assert_false(successful);
    assert_int_equal(hp_result_first_failed(async), 0);
    assert_int_equal(atomic_load(&seen.error), 1);
    hp_result_release(async);
    /* Held: not ready, and released while it is on its way. */
    payload = bytes_of("h");
    assert_int_equal(hp_pool_apply_async(rig->pool, "f", &payload, &callbacks, &async),
                     HP_STATUS_OK);
    assert_true(hp_result_wait_accepted(async, WAIT_MS));
    assert_int_equal(hp_result_get(async, 0, &result), HP_STATUS_TIMEOUT);
    assert_int_equal(hp_result_successful(async, &successful), HP_STATUS_ILLEGAL_STATE);
    hp_result_release(async);
    /* Only callbacks; and one that is taken up by its id. */
    payload = bytes_of("e");
    assert_int_equal(hp_pool_apply_async(rig->pool, "f", &payload, &callbacks, NULL), HP_STATUS_OK);
    assert_int_equal(hp_result_attach(rig->pool, 2, NULL, &async), HP_STATUS_OK);
    assert_int_equal(hp_result_get(async, WAIT_MS, &result), HP_STATUS_OK);
    assert_int_equal(result->task.id, 2);
    hp_result_release(async);
    assert_int_equal(hp_result_attach(rig->pool, 5000, NULL, &async), HP_STATUS_OK);
    assert_int_equal(hp_result_get(async, WAIT_MS, &result), HP_STATUS_NOT_FOUND);
    hp_result_release(async);
    assert_int_equal(atomic_load(&seen.wrong), 0);
    rig_free(rig);
}

#define COUNT 10000u

static void test_map(void **state)
{
    struct rig *rig = rig_new();
    struct hp_bytes *inputs = hp_calloc(COUNT, sizeof(*inputs));
    char(*texts)[16] = hp_calloc(COUNT, sizeof(*texts));
    struct hp_map_results *results;

    (void)state;
    assert_true(inputs != NULL && texts != NULL);
    for (size_t i = 0; i < COUNT; i++) {
        (void)snprintf(texts[i], sizeof(texts[i]), "e%zu", i);
        inputs[i] = bytes_of(texts[i]);
    }
    assert_int_equal(hp_pool_map(rig->pool, "f", inputs, COUNT, WAIT_MS, &results), HP_STATUS_OK);
    assert_int_equal(results->count, COUNT);
    assert_int_equal(results->failed, 0);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(results->results[i]->value.size, inputs[i].size);
        assert_memory_equal(results->results[i]->value.data, texts[i], inputs[i].size);
    }
    hp_map_results_free(results);
    assert_true(atomic_load(&rig->fake->message_count) < 10);
    assert_int_equal(hp_pool_starmap(rig->pool, "f", inputs, 0, WAIT_MS, &results), HP_STATUS_OK);
    assert_int_equal(results->count, 0);
    hp_map_results_free(results);
    rig_free(rig);
    hp_free(inputs);
    hp_free(texts);
}

/* ---------------------------------------------------------------- imap */

struct source {
    size_t next;
    size_t count;
    size_t taken; /* results */
    size_t ahead; /* inputs given and not taken back as results, at most */
    bool stop;
    char text[16];
};

static int next_input(void *context, struct hp_bytes *ret_payload)
{
    struct source *source = context;

    if (source->next == source->count) {
        return source->stop ? -1 : 0;
    }
    (void)snprintf(source->text, sizeof(source->text), "e%zu", source->next++);
    source->ahead = HP_MAX(source->ahead, source->next - source->taken);
    *ret_payload = bytes_of(source->text);
    return 1;
}

static void check_result(struct source *source, uint64_t index, const struct hp_result *result)
{
    char text[16];

    (void)snprintf(text, sizeof(text), "e%llu", (unsigned long long)index);
    assert_int_equal(result->value.size, strlen(text));
    assert_memory_equal(result->value.data, text, strlen(text));
    source->taken++;
}

static void test_imap(void **state)
{
    struct rig *rig = rig_new();

    (void)state;
    for (int unordered = 0; unordered < 2; unordered++) {
        struct source source = {.count = COUNT};
        struct hp_imap_options options;
        const struct hp_result *result;
        struct hp_imap *imap;
        uint64_t index = 0;
        uint64_t sum = 0;

        hp_imap_options_init(&options);
        options.window = 100;
        options.unordered = unordered != 0;
        assert_int_equal(hp_pool_imap(rig->pool, "f", next_input, &source, &options, &imap),
                         HP_STATUS_OK);
        assert_int_equal(hp_imap_next(imap, WAIT_MS, &index, &result), HP_STATUS_OK);
        while (result != NULL) {
            assert_true(unordered != 0 || index == source.taken);
            check_result(&source, index, result);
            sum += index;
            assert_int_equal(hp_imap_next(imap, WAIT_MS, &index, &result), HP_STATUS_OK);
        }
        assert_int_equal(source.taken, COUNT);
        assert_int_equal(sum, (uint64_t)COUNT * (COUNT - 1) / 2);
        assert_true(source.ahead <= 101);
        hp_imap_release(imap);
    }
    rig_free(rig);
}

static void test_imap_ids(void **state)
{
    struct rig *rig = rig_new();
    struct source source = {.count = 20, .stop = true};
    const struct hp_result *result;
    struct hp_imap *imap;
    struct hp_id_list ids;
    uint64_t index;

    (void)state;
    assert_int_equal(hp_pool_imap(rig->pool, "f", next_input, &source, NULL, &imap), HP_STATUS_OK);
    /* All 20 are on their way; that the input stopped is said once, what was given still comes. */
    assert_int_equal(hp_imap_next(imap, WAIT_MS, &index, &result), HP_STATUS_STOPPED);
    assert_int_equal(hp_imap_next(imap, WAIT_MS, &index, &result), HP_STATUS_OK);
    assert_int_equal(index, 0);
    assert_int_equal(hp_imap_ids(imap, WAIT_MS, &ids), HP_STATUS_OK);
    assert_int_equal(ids.total, 19);
    assert_int_equal(ids.ranges[0].first, 3);
    hp_imap_release(imap);
    assert_int_equal(hp_pool_imap_resume(rig->pool, ids.ranges, ids.count, NULL, &imap),
                     HP_STATUS_OK);
    for (uint64_t i = 0; i < 19; i++) {
        assert_int_equal(hp_imap_next(imap, WAIT_MS, &index, &result), HP_STATUS_OK);
        assert_non_null(result);
        assert_int_equal(result->task.id, i + 3);
    }
    assert_int_equal(hp_imap_next(imap, WAIT_MS, &index, &result), HP_STATUS_OK);
    assert_null(result);
    hp_imap_release(imap);
    hp_id_list_clear(&ids);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_apply), cmocka_unit_test(test_end),  cmocka_unit_test(test_async),
        cmocka_unit_test(test_map),   cmocka_unit_test(test_imap), cmocka_unit_test(test_imap_ids),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
