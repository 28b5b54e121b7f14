/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: the path of a frame from a peer. Scan, unpack, parse as MessagePack-RPC, decode.
 * What decodes must encode, and decode again to the same bytes. A frame that is no call or reply is
 * decoded as every message there is.
 */
#include "tests/fuzz/fuzz.h"

#include "common/base/arena.h"
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "proto/hp_msg.h"
#include "proto/rpc.h"

#include <string.h>

#define ROOM_BYTES 65536u

struct world {
    struct hp_wire *wire;
    struct hp_wire *second;
    struct hp_arena arena;
    struct hp_buf buf;
    struct hp_buf again;
    void *room;
};

static struct world *world_get(void)
{
    static struct world world;

    if (world.wire == NULL) {
        world.wire = hp_wire_new();
        world.second = hp_wire_new();
        world.room = hp_alloc(ROOM_BYTES);
        hp_arena_init(&world.arena, 65536, 64u << 20);
        hp_buf_init(&world.buf, 4u << 20);
        hp_buf_init(&world.again, 4u << 20);
        HP_ASSERT(world.wire != NULL && world.second != NULL && world.room != NULL);
    }
    return &world;
}

static void check_desc(struct world *world, const struct hp_codec_desc *desc,
                       const struct hp_wire_obj *map)
{
    const struct hp_wire_obj *root = NULL;
    struct hp_error error;

    HP_ASSERT(desc->size <= ROOM_BYTES);
    hp_arena_reset(&world->arena);
    hp_buf_clear(&world->buf);
    hp_buf_clear(&world->again);
    if (hp_codec_decode(desc, map, &world->arena, world->room, &error) != HP_OK) {
        HP_ASSERT(strncmp(error.text, desc->name, strlen(desc->name)) == 0);
        return;
    }
    HP_ASSERT(hp_codec_encode(desc, &world->buf, world->room, &error) == HP_OK);
    HP_ASSERT(hp_wire_unpack_checked(world->second, &hp_tok_limits_open, hp_buf_bin(&world->buf),
                                     &root, &error) == HP_OK);
    hp_arena_reset(&world->arena);
    HP_ASSERT(hp_codec_decode(desc, root, &world->arena, world->room, &error) == HP_OK);
    HP_ASSERT(hp_codec_encode(desc, &world->again, world->room, &error) == HP_OK);
    HP_ASSERT(world->buf.size == world->again.size &&
              memcmp(world->buf.data, world->again.data, world->buf.size) == 0);
}

static void check_all(struct world *world, const struct hp_wire_obj *map)
{
    for (uint32_t i = 1; i < HP_METHOD_COUNT; i++) {
        const struct hp_method_info *info = hp_method_info((enum hp_method)i);

        check_desc(world, info->params, map);
        if (info->reply != NULL) {
            check_desc(world, info->reply, map);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world *world = world_get();
    const struct hp_wire_obj *root;
    const char *why = NULL;
    size_t frame_size = 0;
    struct hp_error error;
    struct hp_tok tok;
    struct hp_rpc rpc;

    hp_tok_init(&tok, &hp_tok_limits_open);
    if (hp_tok_scan(&tok, data, size, &frame_size, &why) != HP_TOK_DONE) {
        return 0;
    }
    HP_ASSERT(hp_wire_unpack(world->wire, data, frame_size, &root, &error) == HP_OK);
    if (hp_rpc_parse(root, &rpc, &error) != HP_OK) {
        HP_ASSERT(error.text[0] != '\0');
        check_all(world, root);
    } else if (rpc.type == HP_RPC_RESPONSE) {
        check_all(world, rpc.result);
    } else if (rpc.method != HP_METHOD_NONE) {
        check_desc(world, hp_method_info(rpc.method)->params, rpc.params);
    }
    return 0;
}
