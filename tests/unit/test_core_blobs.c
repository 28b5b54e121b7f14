/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Blobs as the core sees them: files by the blob thread, content by descriptor for peers of the
 * same host, and what is kept in memory only.
 */
#include "tests/lib/hp_test.h"

#include "tests/lib/core_rig.h"
#include "tests/unit/core_ask.h"

enum { NEAR_PID = 4711, NEAR_FD = 9, IDLE_MS = 600000 };

static const uint8_t key_of_1[HP_CONN_KEY_BYTES] = "the key of conn";

/* The answer of the blob thread to the request noted as `index`. */
static struct hp_event answer_to(const struct rig *rig, uint32_t index, enum hp_event_kind kind)
{
    assert_true(index < rig->blob_count);
    const struct rig_blob *asked = &rig->blobs[index];
    struct hp_event event = {.kind = kind, .conn = asked->conn};
    event.blob.msgid = asked->msgid;
    event.blob.blob = asked->blob;
    event.blob.size = asked->size;
    return event;
}

static void thread_says(struct rig *rig, const struct hp_event *event)
{
    rig_begin(rig);
    hp_core_step(rig->core, event);
    rig_end(rig);
}

static uint32_t call(struct rig *rig, uint64_t conn, enum hp_method method, const void *msg)
{
    rig_begin(rig);
    uint32_t msgid = rig_call(rig, conn, method, hp_method_info(method)->params, msg);
    rig_end(rig);
    return msgid;
}

/* A peer of this host, if `near`: it has a key, and asked for it with its hello. */
static void greet(struct rig *rig, uint64_t conn, bool has_key, bool near,
                  struct hp_msg_hello_reply *reply)
{
    struct hp_msg_hello msg = {
        .has = HP_HAS_HELLO_NEAR, .client = HP_STR("test"), .version = 1, .near = near};
    struct hp_event event = {.kind = HP_EVENT_CONN_OPENED, .conn = conn};
    event.opened.peer = "test";
    event.opened.loopback = true;
    event.opened.key = has_key ? key_of_1 : NULL;
    rig_begin(rig);
    hp_core_step(rig->core, &event);
    rig_end(rig);
    uint32_t msgid = call(rig, conn, HP_METHOD_HELLO, &msg);
    assert_true(rig_answer(rig, conn, msgid, &hp_desc_msg_hello_reply, reply));
}

static struct rig *rig_near(uint64_t volatile_bytes_max)
{
    struct hp_core_config config;
    struct hp_msg_hello_reply reply;
    hp_core_config_init(&config);
    config.near_pid = NEAR_PID;
    config.near_fd = NEAR_FD;
    memset(config.near_proof, 'p', sizeof(config.near_proof));
    config.volatile_bytes_max = volatile_bytes_max;
    struct rig *rig = rig_new(&config);
    greet(rig, 1, true, true, &reply);
    assert_int_equal(reply.near_key.size, HP_CONN_KEY_BYTES);
    assert_memory_equal(reply.near_key.data, key_of_1, HP_CONN_KEY_BYTES);
    assert_true(reply.near_pid == NEAR_PID && reply.near_fd == NEAR_FD);
    assert_memory_equal(reply.near_proof.data, config.near_proof, HP_CONN_KEY_BYTES);
    return rig;
}

static struct hp_msg_blob_give gift_of(uint64_t size, bool durable)
{
    return (struct hp_msg_blob_give){.has = HP_HAS_BLOB_GIVE_DURABLE,
                                     .size = size,
                                     .durable = durable,
                                     .pid = 12,
                                     .fd = 34,
                                     .device = 56,
                                     .inode = 78};
}

/* Keeps a gift of `size` bytes in memory; its id, 0: refused. */
static uint64_t give_kept(struct rig *rig, uint64_t conn, uint64_t size)
{
    struct hp_msg_blob_give msg = gift_of(size, false);
    struct hp_msg_blob_give_reply reply;
    rig->blob_count = 0;
    uint32_t msgid = call(rig, conn, HP_METHOD_BLOB_GIVE, &msg);
    if (rig->blob_count > 0) {
        struct hp_event event = answer_to(rig, 0, HP_EVENT_BLOB_GIVEN);
        thread_says(rig, &event);
    }
    return rig_answer(rig, conn, msgid, &hp_desc_msg_blob_give_reply, &reply) ? reply.blob : 0;
}

/* ------------------------------------------------ who may */
static void only_peers_with_a_key_hand_over_descriptors(void **state)
{
    (void)state;
    struct rig *rig = rig_near(1 << 20);
    struct hp_msg_hello_reply reply;
    struct hp_msg_blob_give give = gift_of(10, true);
    struct hp_msg_blob_lend lend = {.blob = 1};
    greet(rig, 2, true, false, &reply); /* did not ask */
    assert_int_equal(reply.near_key.size, 0);
    greet(rig, 3, false, true, &reply); /* is on another host */
    assert_int_equal(reply.near_key.size, 0);
    for (uint64_t conn = 2; conn <= 3; conn++) {
        assert_refused(rig_ask(rig, conn, HP_METHOD_BLOB_GIVE, &give, NULL), UNSUPPORTED);
        assert_refused(rig_ask(rig, conn, HP_METHOD_BLOB_LEND, &lend, NULL), UNSUPPORTED);
    }
    assert_int_equal(rig->blob_count, 0);
    rig_free(rig);
    rig = rig_new(NULL); /* a broker that does not do it */
    greet(rig, 1, true, true, &reply);
    assert_int_equal(reply.near_key.size, 0);
    assert_refused(rig_ask(rig, 1, HP_METHOD_BLOB_GIVE, &give, NULL), UNSUPPORTED);
    rig_free(rig);
}

/* ------------------------------------------------ files */
static void a_gift_becomes_a_file_whose_id_is_reserved(void **state)
{
    (void)state;
    struct rig *rig = rig_near(1 << 20);
    struct hp_msg_blob_give msg = gift_of(1000, true);
    struct hp_msg_blob_give_reply reply;
    uint32_t msgid = call(rig, 1, HP_METHOD_BLOB_GIVE, &msg);
    assert_int_equal(rig->blob_count, 1);
    const struct rig_blob *asked = &rig->blobs[0];
    assert_true(asked->verb == HP_BLOB_GIVE && asked->size == 1000 && !asked->gift.is_kept);
    assert_true(asked->gift.place.pid == 12 && asked->gift.place.fd == 34);
    assert_true(asked->gift.place.device == 56 && asked->gift.place.inode == 78);
    assert_memory_equal(asked->gift.key, key_of_1, HP_CONN_KEY_BYTES);
    struct hp_event event = answer_to(rig, 0, HP_EVENT_BLOB_GIVEN);
    thread_says(rig, &event);
    assert_int_equal(rig->out[0].size, 0); /* not before the reservation of its id is durable */
    assert_true(rig_answer(rig, 1, msgid, &hp_desc_msg_blob_give_reply, &reply));
    assert_int_equal(reply.blob, asked->blob);
    uint64_t blob = reply.blob;
    rig_crash(rig);
    assert_true(rig->core->next_blob > blob);
    rig_free(rig);
}

static void a_file_is_lent_by_its_place(void **state)
{
    (void)state;
    struct rig *rig = rig_near(1 << 20);
    struct hp_msg_blob_lend msg = {.blob = 77};
    struct hp_msg_blob_lend_reply reply;
    for (int with_digest = 0; with_digest < 2; with_digest++) {
        rig->blob_count = 0;
        uint32_t msgid = call(rig, 1, HP_METHOD_BLOB_LEND, &msg);
        assert_true(rig->blob_count == 1 && rig->blobs[0].verb == HP_BLOB_LEND);
        struct hp_event event = answer_to(rig, 0, HP_EVENT_BLOB_LENT);
        event.blob.size = 5000;
        event.blob.place = (struct hp_blob_place){.pid = 1, .fd = 2, .device = 3, .inode = 4};
        event.blob.has_digest = with_digest != 0;
        event.blob.digest = 99;
        thread_says(rig, &event);
        assert_true(rig_answer(rig, 1, msgid, &hp_desc_msg_blob_lend_reply, &reply));
        assert_true(reply.size == 5000 && reply.pid == 1 && reply.fd == 2);
        assert_true(reply.device == 3 && reply.inode == 4);
        assert_int_equal((reply.has & HP_HAS_BLOB_LEND_REPLY_DIGEST) != 0, with_digest);
    }
    rig_free(rig);
}

static void errors_of_files_have_their_codes(void **state)
{
    (void)state;
    static const struct {
        enum hp_err err;
        enum hp_rpc_error_code code;
    } cases[] = {{HP_ERR_NOT_FOUND, HP_RPC_ERROR_NOT_FOUND},
                 {HP_ERR_CORRUPT, HP_RPC_ERROR_DAMAGED},
                 {HP_ERR_NOSPACE, HP_RPC_ERROR_BUSY},
                 {HP_ERR_BUSY, HP_RPC_ERROR_BUSY},
                 {HP_ERR_FULL, HP_RPC_ERROR_BUSY},
                 {HP_ERR_TOO_BIG, HP_RPC_ERROR_TOO_BIG},
                 {HP_ERR_UNSUPPORTED, HP_RPC_ERROR_UNSUPPORTED},
                 {HP_ERR_INVALID, HP_RPC_ERROR_BAD_REQUEST},
                 {HP_ERR_RANGE, HP_RPC_ERROR_BAD_REQUEST},
                 {HP_ERR_IO, HP_RPC_ERROR_INTERNAL}};
    struct rig *rig = rig_near(1 << 20);
    struct hp_msg_blob_get msg = {.blob = 3};
    for (size_t i = 0; i < HP_COUNT_OF(cases); i++) {
        rig->blob_count = 0;
        uint32_t msgid = call(rig, 1, HP_METHOD_BLOB_GET, &msg);
        struct hp_event event = answer_to(rig, 0, HP_EVENT_BLOB_GOT);
        event.blob.err = cases[i].err;
        event.blob.text = i % 2 == 0 ? "its own words" : NULL;
        thread_says(rig, &event);
        assert_false(rig_answer(rig, 1, msgid, NULL, NULL));
        assert_int_equal(refused.code, cases[i].code);
        assert_non_null(strstr(refused.text, "blob 3: "));
        assert_non_null(
            strstr(refused.text, i % 2 == 0 ? "its own words" : hp_err_text(cases[i].err)));
    }
    /* An answer for who is gone is for nobody. */
    rig->blob_count = 0;
    (void)call(rig, 1, HP_METHOD_BLOB_GET, &msg);
    rig_begin(rig);
    rig_disconnect(rig, 1);
    rig_end(rig);
    struct hp_event event = answer_to(rig, 0, HP_EVENT_BLOB_GOT);
    thread_says(rig, &event);
    assert_int_equal(rig->out[0].size, 0);
    rig_free(rig);
}

/* Clients are told to wait, and workers' results still land. */
static void a_disk_that_is_nearly_full_takes_only_results(void **state)
{
    (void)state;
    struct rig *rig = rig_near(1 << 20);
    struct hp_msg_blob_open open = {.has = HP_HAS_BLOB_OPEN_DURABLE, .size = 10, .durable = true};
    struct hp_msg_blob_give give = gift_of(10, true);
    rig_worker(rig, 2, "w", 1);
    struct hp_event event = {.kind = HP_EVENT_PRESSURE};
    event.pressure.disk_low = true;
    thread_says(rig, &event);
    assert_refused(rig_ask(rig, 1, HP_METHOD_BLOB_OPEN, &open, NULL), BUSY);
    assert_refused(rig_ask(rig, 1, HP_METHOD_BLOB_GIVE, &give, NULL), BUSY);
    assert_int_equal(rig->blob_count, 0);
    (void)call(rig, 2, HP_METHOD_BLOB_OPEN, &open);
    assert_int_equal(rig->blob_count, 1);
    event.pressure.disk_low = false;
    thread_says(rig, &event);
    (void)call(rig, 1, HP_METHOD_BLOB_OPEN, &open);
    assert_int_equal(rig->blob_count, 2);
    rig_free(rig);
}

/* ------------------------------------------------ in memory */
static void a_kept_gift_is_lent_until_it_is_dropped(void **state)
{
    (void)state;
    struct rig *rig = rig_near(1 << 20);
    uint64_t blob = give_kept(rig, 1, 1000);
    assert_true(hp_vblob_is_id(blob));
    assert_true(rig->blobs[0].gift.is_kept);
    assert_int_equal(rig->op_counts[HP_OP_BLOB], 0);
    struct hp_msg_blob_get get = {.blob = blob};
    struct hp_msg_blob_lend lend = {.blob = blob};
    struct hp_msg_blob_put put = {.blob = blob, .offset = 1000, .data = hp_bin_make("x", 1)};
    rig->blob_count = 0;
    (void)call(rig, 1, HP_METHOD_BLOB_LEND, &lend);
    (void)call(rig, 1, HP_METHOD_BLOB_GET, &get); /* the thread has the bytes */
    assert_int_equal(rig->blob_count, 2);
    assert_true(rig->blobs[0].verb == HP_BLOB_LEND && rig->blobs[1].verb == HP_BLOB_GET);
    assert_refused(rig_ask(rig, 1, HP_METHOD_BLOB_PUT, &put, NULL), BAD_REQUEST);
    /* Nobody uses it: it goes, and the thread is told. */
    rig->blob_count = 0;
    rig_pass(rig, IDLE_MS + 1);
    assert_int_equal(rig->blob_count, 1);
    assert_true(rig->blobs[0].verb == HP_BLOB_DROP && rig->blobs[0].blob == blob);
    assert_refused(rig_ask(rig, 1, HP_METHOD_BLOB_LEND, &lend, NULL), NOT_FOUND);
    assert_refused(rig_ask(rig, 1, HP_METHOD_BLOB_GET, &get, NULL), NOT_FOUND);
    assert_refused(rig_ask(rig, 1, HP_METHOD_BLOB_PUT, &put, NULL), NOT_FOUND);
    rig_free(rig);
}

static void a_gift_that_is_under_way_is_not_there_yet(void **state)
{
    (void)state;
    struct rig *rig = rig_near(1 << 20);
    struct hp_msg_blob_give msg = gift_of(1000, false);
    uint64_t bytes = rig->core->vol.bytes;
    uint32_t msgid = call(rig, 1, HP_METHOD_BLOB_GIVE, &msg);
    uint64_t blob = rig->blobs[0].blob;
    struct hp_msg_blob_get get = {.blob = blob};
    struct hp_msg_blob_lend lend = {.blob = blob};
    struct hp_msg_blob_put put = {.blob = blob, .data = hp_bin_make("x", 1)};
    assert_refused(rig_ask(rig, 1, HP_METHOD_BLOB_GET, &get, NULL), NOT_FOUND);
    assert_refused(rig_ask(rig, 1, HP_METHOD_BLOB_LEND, &lend, NULL), NOT_FOUND);
    assert_refused(rig_ask(rig, 1, HP_METHOD_BLOB_PUT, &put, NULL), NOT_FOUND);
    /* It cannot be taken: gone, its memory too. */
    struct hp_event event = answer_to(rig, 0, HP_EVENT_BLOB_GIVEN);
    event.blob.err = HP_ERR_INVALID;
    thread_says(rig, &event);
    assert_refused(rig_answer(rig, 1, msgid, NULL, NULL), BAD_REQUEST);
    assert_int_equal(rig->core->vol.bytes, bytes);
    assert_int_equal(hp_idmap_count(&rig->core->vol.blobs), 0);
    /* So slow that it expired meanwhile: that is said, whatever the thread says. */
    static const enum hp_err errs[] = {HP_OK, HP_ERR_IO};
    static const enum hp_rpc_error_code codes[] = {HP_RPC_ERROR_NOT_FOUND, HP_RPC_ERROR_INTERNAL};
    for (int i = 0; i < 2; i++) {
        rig->blob_count = 0;
        msgid = call(rig, 1, HP_METHOD_BLOB_GIVE, &msg);
        event = answer_to(rig, 0, HP_EVENT_BLOB_GIVEN);
        rig_pass(rig, IDLE_MS + 1);
        event.blob.err = errs[i];
        thread_says(rig, &event);
        assert_false(rig_answer(rig, 1, msgid, NULL, NULL));
        assert_int_equal(refused.code, codes[i]);
    }
    /* Who gave it left before it was taken: nobody knows its id. */
    rig->blob_count = 0;
    (void)call(rig, 1, HP_METHOD_BLOB_GIVE, &msg);
    event = answer_to(rig, 0, HP_EVENT_BLOB_GIVEN);
    rig_begin(rig);
    rig_disconnect(rig, 1);
    rig_end(rig);
    thread_says(rig, &event);
    assert_int_equal(rig->blob_count, 2);
    assert_int_equal(rig->blobs[1].verb, HP_BLOB_DROP);
    assert_int_equal(rig->core->vol.bytes, bytes);
    rig_free(rig);
}

/* One that fits is made room for by waiting, one that never could becomes a file. */
static void kept_gifts_are_bounded(void **state)
{
    (void)state;
    struct rig *rig = rig_near(10000);
    assert_int_not_equal(give_kept(rig, 1, 6000), 0);
    assert_int_equal(give_kept(rig, 1, 6000), 0);
    assert_int_equal(refused.code, HP_RPC_ERROR_BUSY);
    struct hp_msg_blob_give msg = gift_of(60000, false);
    rig->blob_count = 0;
    (void)call(rig, 1, HP_METHOD_BLOB_GIVE, &msg);
    assert_int_equal(rig->blob_count, 1);
    assert_false(rig->blobs[0].gift.is_kept);
    assert_false(hp_vblob_is_id(rig->blobs[0].blob));
    rig_free(rig);
}

static void what_is_written_in_memory_is_read_but_not_lent(void **state)
{
    (void)state;
    struct rig *rig = rig_near(1 << 20);
    struct hp_msg_blob_open open = {.has = HP_HAS_BLOB_OPEN_DURABLE, .size = 0};
    struct hp_msg_blob_open_reply opened;
    struct hp_msg_blob_get_reply got;
    assert_true(rig_ask(rig, 1, HP_METHOD_BLOB_OPEN, &open, &opened)); /* an empty one is whole */
    struct hp_msg_blob_get get = {.blob = opened.blob};
    struct hp_msg_blob_lend lend = {.blob = opened.blob};
    assert_true(rig_ask(rig, 1, HP_METHOD_BLOB_GET, &get, &got));
    assert_true(got.size == 0 && got.data.size == 0);
    assert_refused(rig_ask(rig, 1, HP_METHOD_BLOB_LEND, &lend, NULL), UNSUPPORTED);
    open.size = 4;
    assert_true(rig_ask(rig, 1, HP_METHOD_BLOB_OPEN, &open, &opened));
    struct hp_msg_blob_put put = {.blob = opened.blob, .data = hp_bin_make("12345", 5)};
    assert_refused(rig_ask(rig, 1, HP_METHOD_BLOB_PUT, &put, NULL), BAD_REQUEST);
    put.data = hp_bin_make("", 0); /* nothing, in the right place, is no harm */
    assert_true(rig_ask(rig, 1, HP_METHOD_BLOB_PUT, &put, NULL));
    put.data = hp_bin_make("1234", 4);
    assert_true(rig_ask(rig, 1, HP_METHOD_BLOB_PUT, &put, NULL));
    put.offset = 4; /* and behind its end */
    put.data = hp_bin_make("", 0);
    assert_true(rig_ask(rig, 1, HP_METHOD_BLOB_PUT, &put, NULL));
    put.offset = 2;
    put.data = hp_bin_make("345", 3); /* partly known, partly too much */
    assert_refused(rig_ask(rig, 1, HP_METHOD_BLOB_PUT, &put, NULL), BAD_REQUEST);
    get.blob = opened.blob;
    get.offset = 4;
    assert_true(rig_ask(rig, 1, HP_METHOD_BLOB_GET, &get, &got));
    assert_true(got.size == 4 && got.data.size == 0);
    assert_int_equal(rig->blob_count, 0); /* the thread was asked nothing of this */
    rig_free(rig);
}

/* ------------------------------------------------ owners */
static uint64_t submit_with(struct rig *rig, const uint64_t *blobs, uint32_t count)
{
    struct hp_bin none[4] = {{0}};
    uint64_t list[4];
    struct hp_msg_task_submit_reply reply;
    memcpy(list, blobs, count * sizeof(*blobs));
    struct hp_msg_task_submit msg = {.has = HP_HAS_TASK_SUBMIT_PAYLOADS | HP_HAS_TASK_SUBMIT_BLOBS,
                                     .options = rig_command(),
                                     .payloads = {.items = none, .count = count},
                                     .blobs = {.items = list, .count = count}};
    msg.options.has |= HP_HAS_ST_TASK_OPTIONS_DURABLE;
    msg.options.durable = false;
    return rig_ask(rig, 1, HP_METHOD_TASK_SUBMIT, &msg, &reply) ? reply.first : 0;
}

static void end_with_blobs(struct rig *rig, uint64_t id, uint64_t result, uint64_t out)
{
    struct hp_st_task_end end = {.has =
                                     HP_HAS_ST_TASK_END_RESULT_BLOB | HP_HAS_ST_TASK_END_OUT_BLOB,
                                 .result_blob = result,
                                 .out_blob = out};
    struct hp_buf buf;
    hp_buf_init(&buf, 4096);
    assert_ok(hp_st_task_end_encode(&buf, &end));
    struct hp_st_done_item item = {.id = id, .attempt = 1, .epoch = 1, .end = hp_buf_bin(&buf)};
    struct hp_msg_worker_done msg = {.items = {.items = &item, .count = 1}};
    assert_true(rig_ask(rig, 2, HP_METHOD_WORKER_DONE, &msg, NULL));
    hp_buf_deinit(&buf);
}

/* A task's payload goes when it ends, its results when it is forgotten; nothing is left then. */
static void blobs_go_with_their_tasks(void **state)
{
    (void)state;
    struct rig *rig = rig_near(1 << 20);
    rig_worker(rig, 2, "w", 4);
    uint64_t warm = submit_with(rig, &(uint64_t){0}, 1); /* ids are reserved from here on */
    end_with_blobs(rig, warm, 0, 0);
    uint64_t kept[] = {give_kept(rig, 1, 100), give_kept(rig, 1, 100)};
    uint64_t id = submit_with(rig, kept, 2);
    assert_int_not_equal(id, 0);
    rig_pass(rig, IDLE_MS / 1000); /* owned ones do not expire */
    uint64_t result = give_kept(rig, 1, 50);
    uint64_t out = give_kept(rig, 1, 60);
    rig->blob_count = 0;
    end_with_blobs(rig, id, result, out);
    assert_int_equal(rig->blob_count, 1); /* its payload; the other task's stays */
    assert_true(rig->blobs[0].verb == HP_BLOB_DROP && rig->blobs[0].blob == kept[0]);
    struct hp_msg_blob_lend lend = {.blob = result};
    rig->blob_count = 0;
    (void)call(rig, 1, HP_METHOD_BLOB_LEND, &lend);
    assert_int_equal(rig->blobs[0].verb, HP_BLOB_LEND);
    rig->blob_count = 0;
    end_with_blobs(rig, id + 1, 0, 0);
    assert_int_equal(rig->blob_count, 1);
    assert_int_equal(rig->blobs[0].blob, kept[1]);
    rig->blob_count = 0;
    struct hp_st_id_range range = {.has = HP_HAS_ST_ID_RANGE_COUNT, .first = id, .count = 2};
    struct hp_msg_task_forget forget = {.ranges = {.items = &range, .count = 1}};
    (void)call(rig, 1, HP_METHOD_TASK_FORGET, &forget);
    assert_int_equal(rig->blob_count, 2);
    assert_int_equal(hp_idmap_count(&rig->core->vol.blobs), 0);
    assert_refused(rig_ask(rig, 1, HP_METHOD_BLOB_LEND, &lend, NULL), NOT_FOUND);
    rig_free(rig);
}

/* A result too large for memory is a file: kept by a row until the task is forgotten. */
static void a_file_may_be_the_result_of_a_task_in_memory(void **state)
{
    (void)state;
    struct rig *rig = rig_near(1 << 20);
    rig_worker(rig, 2, "w", 4);
    uint64_t id = submit_with(rig, &(uint64_t){0}, 1);
    rig_settle(rig);
    memset(rig->op_counts, 0, sizeof(rig->op_counts));
    end_with_blobs(rig, id, 12345, 0);
    assert_int_equal(rig->op_counts[HP_OP_BLOB], 1);
    assert_int_equal(rig->op_counts[HP_OP_RESULT], 0);
    struct hp_st_id_range range = {.has = HP_HAS_ST_ID_RANGE_COUNT, .first = id, .count = 1};
    struct hp_msg_task_forget forget = {.ranges = {.items = &range, .count = 1}};
    (void)call(rig, 1, HP_METHOD_TASK_FORGET, &forget);
    rig_pass(rig, 10000);
    assert_true(rig->op_counts[HP_OP_FORGET] > 0); /* and with it the file's row */
    rig_free(rig);
}

static void a_blob_that_is_gone_is_no_payload(void **state)
{
    (void)state;
    struct rig *rig = rig_near(1 << 20);
    uint64_t kept = give_kept(rig, 1, 100);
    rig_pass(rig, IDLE_MS + 1);
    assert_int_equal(submit_with(rig, &kept, 1), 0);
    assert_int_equal(refused.code, HP_RPC_ERROR_BAD_REQUEST);
    assert_non_null(strstr(refused.text, "no such blob any more"));
    rig_free(rig);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(only_peers_with_a_key_hand_over_descriptors),
    cmocka_unit_test(a_gift_becomes_a_file_whose_id_is_reserved),
    cmocka_unit_test(a_file_is_lent_by_its_place),
    cmocka_unit_test(errors_of_files_have_their_codes),
    cmocka_unit_test(a_disk_that_is_nearly_full_takes_only_results),
    cmocka_unit_test(a_kept_gift_is_lent_until_it_is_dropped),
    cmocka_unit_test(a_gift_that_is_under_way_is_not_there_yet),
    cmocka_unit_test(kept_gifts_are_bounded),
    cmocka_unit_test(what_is_written_in_memory_is_read_but_not_lent),
    cmocka_unit_test(blobs_go_with_their_tasks),
    cmocka_unit_test(a_file_may_be_the_result_of_a_task_in_memory),
    cmocka_unit_test(a_blob_that_is_gone_is_no_payload),
};

HP_TEST_MAIN(tests)
