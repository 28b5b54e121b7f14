/* SPDX-License-Identifier: BSD-2-Clause */
/* Large content by descriptor: the client's engine with the system's functions, a broker played. */
#include "tests/unit/client_fake.h"

#include <fcntl.h>
#include <unistd.h>

#include "client/fetch.h"
#include "client/near.h"
#include "common/sys/file.h"
#include "common/sys/near.h"

enum { CONTENT_BYTES = 3000001 };

static const uint8_t key[HP_NEAR_KEY_BYTES] = "key of the conn.";
static const uint8_t proof[HP_NEAR_KEY_BYTES] = "proof of broker.";

/* The broker's side. */
struct near {
    int proof_fd;
    bool lies;              /* the proof is not what it says */
    const char *give_error; /* answers blob.give with it */
    bool mute;              /* answers no blob.give */
    uint32_t give_count;
    uint32_t lend_count;
    uint32_t get_count;
    bool durable; /* of the last one given */
    uint8_t taken[CONTENT_BYTES];
    uint8_t content[CONTENT_BYTES]; /* to be lent */
    int lent_fd;                    /* -1: blob.lend is refused */
    uint64_t inode_error;           /* added to the inode that is told */
    bool has_digest;
    uint64_t digest;
    uint64_t damage; /* of what comes in chunks: its digest is off by that */
};

static void on_hello(struct fake *fake, struct hp_msg_hello_reply *reply)
{
    struct near *near = fake->context;
    reply->has |= HP_HAS_HELLO_REPLY_NEAR_KEY | HP_HAS_HELLO_REPLY_NEAR_PID |
                  HP_HAS_HELLO_REPLY_NEAR_FD | HP_HAS_HELLO_REPLY_NEAR_PROOF;
    reply->near_key = hp_bin_make(key, sizeof(key));
    reply->near_pid = (uint32_t)getpid();
    reply->near_fd = (uint32_t)near->proof_fd;
    reply->near_proof = hp_bin_make(near->lies ? key : proof, sizeof(proof));
}

static void on_give(struct fake *fake, struct near *near, const struct hp_rpc *rpc)
{
    HP_CLEANUP(hp_fd_close) int fd = -1;
    struct hp_msg_blob_give give;
    struct hp_msg_blob_give_reply reply = {.blob = 90};
    assert_ok(hp_msg_blob_give_decode(rpc->params, &fake->arena, &give, NULL));
    near->give_count++;
    near->durable = give.durable;
    if (near->mute) {
        return;
    }
    if (near->give_error != NULL) {
        fake_error(fake, rpc->msgid, near->give_error);
        return;
    }
    struct hp_near_place place = {
        .pid = give.pid, .fd = give.fd, .device = give.device, .inode = give.inode};
    assert_ok(hp_near_open(&place, &fd));
    assert_ok(hp_near_check(fd, give.size, key));
    assert_in_range(give.size, 1, CONTENT_BYTES);
    assert_int_equal(pread(fd, near->taken, give.size, 0), give.size);
    assert_ok(hp_rpc_put_reply(&fake->out, rpc->msgid));
    assert_ok(hp_msg_blob_give_reply_encode(&fake->out, &reply));
}

static void on_lend(struct fake *fake, struct near *near, const struct hp_rpc *rpc)
{
    struct hp_near_place place;
    near->lend_count++;
    if (near->lent_fd < 0) {
        fake_error(fake, rpc->msgid, "unsupported");
        return;
    }
    assert_ok(hp_near_place_of(near->lent_fd, &place));
    struct hp_msg_blob_lend_reply reply = {.has =
                                               near->has_digest ? HP_HAS_BLOB_LEND_REPLY_DIGEST : 0,
                                           .size = CONTENT_BYTES,
                                           .pid = place.pid,
                                           .fd = place.fd,
                                           .device = place.device,
                                           .inode = place.inode + near->inode_error,
                                           .digest = near->digest};
    assert_ok(hp_rpc_put_reply(&fake->out, rpc->msgid));
    assert_ok(hp_msg_blob_lend_reply_encode(&fake->out, &reply));
}

static void on_get(struct fake *fake, struct near *near, const struct hp_rpc *rpc)
{
    struct hp_msg_blob_get get;
    assert_ok(hp_msg_blob_get_decode(rpc->params, &fake->arena, &get, NULL));
    near->get_count++;
    uint64_t size = HP_MIN((uint64_t)get.size, CONTENT_BYTES - get.offset);
    struct hp_msg_blob_get_reply reply = {.data = hp_bin_make(near->content + get.offset, size),
                                          .size = CONTENT_BYTES,
                                          .digest = XXH3_64bits(near->content, CONTENT_BYTES) +
                                                    near->damage};
    assert_ok(hp_rpc_put_reply(&fake->out, rpc->msgid));
    assert_ok(hp_msg_blob_get_reply_encode(&fake->out, &reply));
}

static bool on_call(struct fake *fake, const struct hp_rpc *rpc)
{
    struct near *near = fake->context;
    if (rpc->method == HP_METHOD_BLOB_GIVE) {
        on_give(fake, near, rpc);
    } else if (rpc->method == HP_METHOD_BLOB_LEND) {
        on_lend(fake, near, rpc);
    } else if (rpc->method == HP_METHOD_BLOB_GET) {
        on_get(fake, near, rpc);
    } else {
        return false;
    }
    return true;
}

static void fill(uint8_t *data, uint8_t step)
{
    for (size_t i = 0; i < CONTENT_BYTES; i++) {
        data[i] = (uint8_t)(i * step >> 3);
    }
}

static struct fake *near_new(void)
{
    struct fake *fake = fake_new_near(64, 8u << 20, &hp_near_system);
    struct near *near = hp_calloc(1, sizeof(*near));
    assert_non_null(near);
    assert_ok(hp_near_proof_new(proof, &near->proof_fd));
    near->lent_fd = -1;
    fill(near->content, 31);
    fake->context = near;
    fake->on_hello = on_hello;
    fake->on_call = on_call;
    return fake;
}

static void near_free(struct fake *fake)
{
    struct near *near = fake->context;
    hp_fd_close(&near->proof_fd);
    hp_fd_close(&near->lent_fd);
    hp_free(near);
    fake_free(fake);
}

/* How many descriptors of this process are open: none may leak. */
static uint32_t open_count(void)
{
    uint32_t count = 0;
    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static uint8_t *submit_bytes(struct fake *fake, size_t size)
{
    struct hp_options options;
    uint8_t *data = hp_alloc(CONTENT_BYTES);
    struct hp_bytes parts[2] = {{.data = data, .size = 1000},
                                {.data = data + 1000, .size = size - 1000}};
    struct hp_engine_submit submit = {
        .options = &options, .payloads = parts, .count = 1, .part_count = 2};
    assert_non_null(data);
    fill(data, 17);
    hp_options_init(&options);
    options.fn = "f";
    assert_int_equal(hp_engine_submit(fake->engine, &submit, NULL), HP_STATUS_OK);
    return data;
}

static uint8_t *submit_content(struct fake *fake)
{
    return submit_bytes(fake, CONTENT_BYTES);
}

static void test_given_whole(void **state)
{
    struct fake *fake = near_new();
    struct near *near = fake->context;
    (void)state;
    uint32_t count = open_count();
    fake_settle(fake);
    uint8_t *data = submit_content(fake);
    fake_settle(fake);
    assert_int_equal(near->give_count, 1);
    assert_true(near->durable);
    assert_memory_equal(near->taken, data, CONTENT_BYTES);
    assert_int_equal(fake->blob_written, 0); /* no chunk */
    assert_int_equal(fake->last_blob, 90);
    assert_int_equal(fake->tasks_created, 1);
    assert_int_equal(fake_events(fake).submitted, 1);
    assert_int_equal(open_count(), count);
    hp_free(data);
    near_free(fake);
}

/* The engine has its own copy, whichever way that goes then. */
static void test_payload_may_change_meanwhile(void **state)
{
    (void)state;
    for (int given = 0; given < 2; given++) {
        struct fake *fake = near_new();
        struct near *near = fake->context;
        uint8_t *wanted = hp_alloc(CONTENT_BYTES);
        assert_non_null(wanted);
        near->give_error = given == 0 ? "unsupported" : NULL;
        fake_settle(fake);
        uint8_t *data = submit_content(fake);
        memcpy(wanted, data, CONTENT_BYTES);
        fill(data, 5);
        fake_pass(fake, 10);
        assert_int_equal(near->give_count, 1);
        assert_int_equal(fake->tasks_created, 1);
        assert_memory_equal(given == 0 ? fake->blob : near->taken, wanted, CONTENT_BYTES);
        hp_free(wanted);
        hp_free(data);
        near_free(fake);
    }
}

/* However many payloads wait, few have a descriptor. */
static void test_few_descriptors_for_many(void **state)
{
    enum { COUNT = 20, OPEN_MAX_OF_STAGES = 8 };
    struct fake *fake = near_new();
    struct near *near = fake->context;
    (void)state;
    fake_settle(fake);
    uint32_t count = open_count();
    for (uint32_t i = 0; i < COUNT; i++) {
        hp_free(submit_bytes(fake, 200000 + i));
        assert_true(open_count() <= count + OPEN_MAX_OF_STAGES);
    }
    fake_pass(fake, 100);
    assert_int_equal(near->give_count, COUNT);
    assert_int_equal(fake->tasks_created, COUNT);
    assert_int_equal(open_count(), count);
    near_free(fake);
}

/* Whatever is wrong with the way, the payload arrives. */
static void test_refused_goes_in_chunks(void **state)
{
    static const char *const words[] = {"unsupported", "bad_request"};
    (void)state;
    for (size_t i = 0; i < HP_COUNT_OF(words); i++) {
        struct fake *fake = near_new();
        struct near *near = fake->context;
        near->give_error = words[i];
        fake_settle(fake);
        uint8_t *first = submit_content(fake);
        fake_pass(fake, 10);
        for (uint32_t more = 1; more < 6; more++) {
            hp_free(submit_content(fake));
            fake_pass(fake, 10);
        }
        assert_int_equal(near->give_count, 4); /* not tried again on this connection */
        uint8_t *second = submit_content(fake);
        fake_pass(fake, 10);
        assert_int_equal(near->give_count, 4);
        assert_int_equal(fake->blob_written, CONTENT_BYTES);
        assert_memory_equal(fake->blob, second, CONTENT_BYTES);
        assert_int_equal(fake->tasks_created, 7);
        hp_free(first);
        hp_free(second);
        near_free(fake);
    }
}

static void test_busy_is_tried_again(void **state)
{
    struct fake *fake = near_new();
    struct near *near = fake->context;
    (void)state;
    near->give_error = "busy";
    fake_settle(fake);
    uint8_t *data = submit_content(fake);
    fake_settle(fake);
    assert_int_equal(near->give_count, 1);
    assert_int_equal(fake->tasks_created, 0);
    near->give_error = NULL;
    fake_pass(fake, 1000);
    assert_int_equal(near->give_count, 2);
    assert_int_equal(fake->blob_written, 0);
    assert_int_equal(fake->tasks_created, 1);
    hp_free(data);
    near_free(fake);
}

/* Who does not prove to be here is sent bytes, as any broker is. */
static void test_no_proof_no_descriptor(void **state)
{
    struct fake *fake = near_new();
    struct near *near = fake->context;
    (void)state;
    near->lies = true;
    fake_settle(fake);
    uint8_t *data = submit_content(fake);
    fake_pass(fake, 10);
    assert_int_equal(near->give_count, 0);
    assert_int_equal(fake->blob_written, CONTENT_BYTES);
    assert_int_equal(fake->tasks_created, 1);
    hp_free(data);
    near_free(fake);
}

static void test_given_again_on_the_next_connection(void **state)
{
    struct fake *fake = near_new();
    struct near *near = fake->context;
    (void)state;
    uint32_t count = open_count();
    near->mute = true;
    fake_settle(fake);
    uint8_t *data = submit_content(fake);
    fake_settle(fake);
    assert_int_equal(near->give_count, 1);
    fake_drop(fake);
    assert_int_equal(open_count(), count);
    near->mute = false;
    fake_pass(fake, 1000);
    assert_int_equal(near->give_count, 2);
    assert_int_equal(fake->tasks_created, 1);
    assert_memory_equal(near->taken, data, CONTENT_BYTES);
    hp_free(data);
    near_free(fake);
}

/* ---------------------------------------------------------------- what is lent */

struct fetched {
    uint32_t count;
    enum hp_status status;
    struct hp_buffer buffer;
};

static void on_fetched(void *context, enum hp_status status, const char *text,
                       struct hp_buffer *buffer)
{
    struct fetched *fetched = context;
    (void)text;
    fetched->count++;
    fetched->status = status;
    fetched->buffer = *buffer;
}

static void fetch(struct fake *fake, struct fetched *ret)
{
    fake_settle(fake);
    assert_non_null(hp_fetch_begin(fake->engine, 5, on_fetched, ret));
    fake_pass(fake, 10);
    assert_int_equal(ret->count, 1);
}

static void expect_content(const struct near *near, struct fetched *fetched)
{
    assert_int_equal(fetched->status, HP_STATUS_OK);
    assert_int_equal(fetched->buffer.size, CONTENT_BYTES);
    assert_memory_equal(fetched->buffer.data, near->content, CONTENT_BYTES);
    assert_int_equal(((const char *)fetched->buffer.data)[CONTENT_BYTES], 0);
    hp_buffer_clear(&fetched->buffer);
}

static void lend_memory(struct near *near)
{
    assert_ok(hp_near_create(&near->lent_fd));
    assert_ok(hp_fd_write_all(near->lent_fd, near->content, CONTENT_BYTES));
    assert_ok(hp_near_seal(near->lent_fd, CONTENT_BYTES, key));
}

static void test_lent_memory(void **state)
{
    struct fake *fake = near_new();
    struct near *near = fake->context;
    struct fetched fetched = {0};
    (void)state;
    lend_memory(near);
    uint32_t count = open_count();
    fetch(fake, &fetched);
    assert_int_equal(near->lend_count, 1);
    assert_int_equal(near->get_count, 0);
    assert_int_equal(open_count(), count);
    ((uint8_t *)fetched.buffer.data)[0] ^= 0xff; /* the owner's, and nobody else's */
    uint8_t byte = 0;
    assert_int_equal(pread(near->lent_fd, &byte, 1, 0), 1);
    assert_int_equal(byte, near->content[0]);
    ((uint8_t *)fetched.buffer.data)[0] ^= 0xff;
    expect_content(near, &fetched);
    near_free(fake);
}

static void test_lent_file_is_checked(void **state)
{
    (void)state;
    for (uint32_t damaged = 0; damaged < 2; damaged++) {
        struct fake *fake = near_new();
        struct near *near = fake->context;
        struct fetched fetched = {0};
        lend_memory(near);
        near->has_digest = true;
        near->digest = XXH3_64bits(near->content, CONTENT_BYTES) + damaged;
        fetch(fake, &fetched);
        assert_int_equal(near->lend_count, 1);
        assert_true(damaged != 0 ? near->get_count > 0 : near->get_count == 0); /* asked anew */
        expect_content(near, &fetched);
        near_free(fake);
    }
}

/* A blob that can not be lent comes in chunks; the next one is asked for again. */
static void test_not_lent_comes_in_chunks(void **state)
{
    struct fake *fake = near_new();
    struct near *near = fake->context;
    struct fetched first = {0};
    struct fetched second = {0};
    (void)state;
    fetch(fake, &first);
    assert_int_equal(near->lend_count, 1);
    assert_true(near->get_count > 1);
    expect_content(near, &first);
    uint32_t gets = near->get_count;
    lend_memory(near);
    fetch(fake, &second);
    assert_int_equal(near->lend_count, 2);
    assert_int_equal(near->get_count, gets);
    expect_content(near, &second);
    near_free(fake);
}

/* What arrives is what was given, or an error. */
static void test_chunks_are_checked(void **state)
{
    struct fake *fake = near_new();
    struct near *near = fake->context;
    struct fetched fetched = {0};
    (void)state;
    near->damage = 1;
    fetch(fake, &fetched);
    assert_true(near->get_count > 1);
    assert_int_equal(fetched.status, HP_STATUS_DAMAGED);
    assert_null(fetched.buffer.data);
    near_free(fake);
}

/* The descriptor's number may be another file's by the time it is opened. */
static void test_another_file_is_not_taken(void **state)
{
    struct fake *fake = near_new();
    struct near *near = fake->context;
    struct fetched fetched = {0};
    (void)state;
    lend_memory(near);
    near->inode_error = 1;
    fetch(fake, &fetched);
    assert_int_equal(near->lend_count, 1);
    assert_true(near->get_count > 1);
    expect_content(near, &fetched);
    near_free(fake);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_given_whole),
    cmocka_unit_test(test_payload_may_change_meanwhile),
    cmocka_unit_test(test_few_descriptors_for_many),
    cmocka_unit_test(test_refused_goes_in_chunks),
    cmocka_unit_test(test_busy_is_tried_again),
    cmocka_unit_test(test_no_proof_no_descriptor),
    cmocka_unit_test(test_given_again_on_the_next_connection),
    cmocka_unit_test(test_lent_memory),
    cmocka_unit_test(test_lent_file_is_checked),
    cmocka_unit_test(test_not_lent_comes_in_chunks),
    cmocka_unit_test(test_chunks_are_checked),
    cmocka_unit_test(test_another_file_is_not_taken),
};

HP_TEST_MAIN(tests)
