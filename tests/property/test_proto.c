/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Properties of the protocol code over random input: what msgpack-c wrote is scanned and read back
 * the same; no bytes whatever make scanner or decoder read beyond them (the frames are allocated to
 * size, so the sanitizers see it); the scanner's answer does not depend on how the bytes arrive.
 */
#include "tests/lib/msg_sample.h"

#include "common/base/arena.h"
#include "common/base/rand.h"
#include "proto/hp_msg.h"
#include "proto/rpc.h"

/* A random tree, written as it is made; the same seed reads it back. */
static void put_tree(struct hp_rand *rand, struct hp_buf *buf, uint32_t depth)
{
    uint8_t bytes[40];
    uint32_t count = (uint32_t)hp_rand_uniform(rand, 5);
    uint64_t number = hp_rand_next(rand) >> hp_rand_uniform(rand, 64);

    hp_rand_fill(rand, bytes, sizeof(bytes));
    switch (hp_rand_uniform(rand, depth == 0 ? 6 : 8)) {
    case 0:
        assert_ok(hp_wire_put_nil(buf));
        break;
    case 1:
        assert_ok(hp_wire_put_bool(buf, (number & 1u) != 0));
        break;
    case 2:
        assert_ok(hp_wire_put_u64(buf, number));
        break;
    case 3:
        assert_ok(hp_wire_put_i64(buf, -(int64_t)(number >> 1) - 1));
        break;
    case 4:
        assert_ok(hp_wire_put_str(buf, hp_str_make((const char *)bytes, number % 40)));
        break;
    case 5:
        assert_ok(hp_wire_put_bin(buf, hp_bin_make(bytes, number % 40)));
        break;
    case 6:
        assert_ok(hp_wire_put_array(buf, count));
        for (uint32_t i = 0; i < count; i++) {
            put_tree(rand, buf, depth - 1);
        }
        break;
    default:
        assert_ok(hp_wire_put_map(buf, count));
        for (uint32_t i = 0; i < 2 * count; i++) {
            put_tree(rand, buf, depth - 1);
        }
        break;
    }
}

/* Write again what was read. */
static void put_object(struct hp_buf *buf, const struct hp_wire_obj *obj)
{
    switch (hp_wire_type(obj)) {
    case HP_WIRE_NIL:
        assert_ok(hp_wire_put_nil(buf));
        return;
    case HP_WIRE_BOOL:
        assert_ok(hp_wire_put_bool(buf, hp_wire_bool(obj)));
        return;
    case HP_WIRE_U64:
        assert_ok(hp_wire_put_u64(buf, hp_wire_u64(obj)));
        return;
    case HP_WIRE_I64:
        assert_ok(hp_wire_put_i64(buf, hp_wire_i64(obj)));
        return;
    case HP_WIRE_STR:
        assert_ok(hp_wire_put_str(buf, hp_wire_str(obj)));
        return;
    case HP_WIRE_BIN:
        assert_ok(hp_wire_put_bin(buf, hp_wire_bin(obj)));
        return;
    case HP_WIRE_ARRAY:
        assert_ok(hp_wire_put_array(buf, hp_wire_count(obj)));
        for (uint32_t i = 0; i < hp_wire_count(obj); i++) {
            put_object(buf, hp_wire_item(obj, i));
        }
        return;
    case HP_WIRE_MAP:
        assert_ok(hp_wire_put_map(buf, hp_wire_count(obj)));
        for (uint32_t i = 0; i < hp_wire_count(obj); i++) {
            put_object(buf, hp_wire_key(obj, i));
            put_object(buf, hp_wire_value(obj, i));
        }
        return;
    case HP_WIRE_F32:
    case HP_WIRE_F64:
    case HP_WIRE_EXT:
        break;
    }
    fail_msg("a %s was never written", hp_wire_type_name(hp_wire_type(obj)));
}

static void test_random_trees(void **state)
{
    (void)state;
    struct hp_wire *wire = hp_wire_new();
    struct hp_buf buf;
    struct hp_buf again;

    hp_buf_init(&buf, 1u << 20);
    hp_buf_init(&again, 1u << 20);
    for (uint64_t seed = 0; seed < 3000; seed++) {
        struct hp_error error = {0};
        const struct hp_wire_obj *root;
        struct hp_rand rand;

        hp_rand_init(&rand, seed);
        hp_buf_clear(&buf);
        hp_buf_clear(&again);
        put_tree(&rand, &buf, 5);
        if (hp_wire_unpack_checked(wire, &hp_tok_limits_open, hp_buf_bin(&buf), &root, &error) !=
            HP_OK) {
            fail_msg("seed %u: %s", (unsigned)seed, error.text);
        }
        put_object(&again, root);
        assert_int_equal(again.size, buf.size);
        assert_memory_equal(again.data, buf.data, buf.size);
    }
    hp_buf_deinit(&buf);
    hp_buf_deinit(&again);
    hp_wire_free(wire);
}

/* Scan in random pieces, each in memory of its own size. */
static enum hp_tok_status scan_in_pieces(struct hp_rand *rand, const uint8_t *data, size_t size,
                                         size_t *ret_frame_size)
{
    enum hp_tok_status status = HP_TOK_NEED_MORE;
    const char *why = "";
    struct hp_tok tok;
    size_t have = 0;

    hp_tok_init(&tok, &hp_tok_limits_open);
    while (status == HP_TOK_NEED_MORE) {
        uint8_t *part = hp_memdup(data, have); /* one byte more than `have`: a NUL */

        part = hp_realloc(part, have);
        status = hp_tok_scan(&tok, part, have, ret_frame_size, &why);
        hp_free(part);
        if (have == size) {
            break;
        }
        size_t step = 1 + hp_rand_uniform(rand, 8);

        have += HP_MIN(size - have, step);
    }
    return status;
}

/* Decode `map` as every message there is; only that nothing breaks matters. */
static void decode_as_all(const struct hp_wire_obj *map, struct hp_arena *arena, void *room)
{
    for (uint32_t i = 1; i < HP_METHOD_COUNT; i++) {
        const struct hp_method_info *info = hp_method_info((enum hp_method)i);

        hp_arena_reset(arena);
        (void)!hp_codec_decode(info->params, map, arena, room, NULL);
        if (info->reply != NULL) {
            hp_arena_reset(arena);
            (void)!hp_codec_decode(info->reply, map, arena, room, NULL);
        }
    }
}

struct world {
    struct hp_wire *wire;
    struct hp_arena arena;
    void *room;
    uint64_t done;
};

/* Scan, unpack, parse and decode bytes from nowhere. */
static void take_bytes(struct world *world, struct hp_rand *rand, const uint8_t *bytes, size_t size)
{
    uint8_t *exact = hp_memdup(bytes, size);
    struct hp_tok tok;
    size_t frame_size = 0;
    size_t other_size = 0;
    const char *why = "";
    struct hp_error error = {0};
    enum hp_tok_status status;
    struct hp_rpc rpc;

    exact = hp_realloc(exact, size);
    hp_tok_init(&tok, &hp_tok_limits_open);
    status = hp_tok_scan(&tok, exact, size, &frame_size, &why);
    assert_int_equal(scan_in_pieces(rand, bytes, size, &other_size), status);
    assert_int_equal(other_size, frame_size);
    if (status == HP_TOK_DONE) {
        const struct hp_wire_obj *root;

        world->done++;
        assert_true(frame_size <= size);
        /* What the scanner passes, msgpack-c takes, and finds the same end. */
        assert_ok(hp_wire_unpack(world->wire, exact, frame_size, &root, &error));
        decode_as_all(root, &world->arena, world->room);
        if (hp_rpc_parse(root, &rpc, &error) == HP_OK && rpc.params != NULL) {
            decode_as_all(rpc.params, &world->arena, world->room);
        }
    }
    hp_free(exact);
}

static void world_init(struct world *world)
{
    world->wire = hp_wire_new();
    world->room = hp_alloc(65536);
    world->done = 0;
    hp_arena_init(&world->arena, 4096, 1u << 24);
}

static void world_deinit(struct world *world)
{
    hp_wire_free(world->wire);
    hp_free(world->room);
    hp_arena_deinit(&world->arena);
}

static void test_random_bytes(void **state)
{
    (void)state;
    struct world world;

    world_init(&world);
    for (uint64_t seed = 0; seed < 6000; seed++) {
        struct hp_rand rand;
        uint8_t bytes[64];

        hp_rand_init(&rand, seed);
        size_t size = 1 + hp_rand_uniform(&rand, sizeof(bytes));
        hp_rand_fill(&rand, bytes, size);
        take_bytes(&world, &rand, bytes, size);
    }
    assert_true(world.done > 500); /* else the test shows nothing */
    world_deinit(&world);
}

/* Real messages with a few bytes changed go deeper than noise does. */
static void test_damaged_messages(void **state)
{
    (void)state;
    struct world world;
    struct hp_buf buf;

    world_init(&world);
    hp_buf_init(&buf, 1u << 20);
    for (uint64_t seed = 0; seed < 600; seed++) {
        struct hp_rand rand;

        hp_rand_init(&rand, seed);
        enum hp_method method = (enum hp_method)hp_rand_between(&rand, 1, HP_METHOD_COUNT - 1);
        const struct hp_codec_desc *desc = hp_method_info(method)->params;
        enum sample_edge edge = hp_rand_chance(&rand, 1, 2) ? SAMPLE_LOW : SAMPLE_HIGH;

        hp_buf_clear(&buf);
        assert_ok(hp_rpc_put_request(&buf, 1, method));
        sample_map(&buf, desc, edge, hp_rand_next(&rand) & sample_all(desc));
        for (uint64_t i = hp_rand_uniform(&rand, 4); i > 0; i--) {
            buf.data[hp_rand_uniform(&rand, buf.size)] = (uint8_t)hp_rand_next(&rand);
        }
        take_bytes(&world, &rand, buf.data, buf.size);
    }
    assert_true(world.done > 100);
    hp_buf_deinit(&buf);
    world_deinit(&world);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_random_trees),
    cmocka_unit_test(test_random_bytes),
    cmocka_unit_test(test_damaged_messages),
};

HP_TEST_MAIN(tests)
