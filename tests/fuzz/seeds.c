/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writes the inputs which the definition gives, into folders below the one named: for each message
 * its smallest and its largest form, as a frame (decode, tokenizer) and as a step of the targets
 * that take steps (core, agent, client); and steps that grow each method. So no message can be
 * forgotten.
 */
#include "tests/fuzz/grow.h"
#include "tests/lib/msg_sample.h"

#include <stdio.h>
#include <sys/stat.h>

static const char *root;

static void write_seed(const char *target, const char *name, const char *more,
                       const struct hp_buf *head, const struct hp_buf *body)
{
    char path[4096];
    (void)snprintf(path, sizeof(path), "%s/%s", root, target);
    (void)mkdir(path, 0755); /* it may be there */
    (void)snprintf(path, sizeof(path), "%s/%s/%s%s", root, target, name, more);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(head->size == 0 || fwrite(head->data, head->size, 1, file) == 1);
    assert_true(fwrite(body->data, body->size, 1, file) == 1);
    assert_int_equal(fclose(file), 0);
}

/* A step: its number, the size of the frame in two bytes, the frame. */
static void write_step(const char *target, uint8_t op, const char *name, const char *more,
                       const struct hp_buf *frame)
{
    struct hp_buf head;
    const uint8_t bytes[] = {op, (uint8_t)(frame->size >> 8), (uint8_t)frame->size};
    hp_buf_init(&head, 16);
    assert_ok(hp_buf_append(&head, bytes, sizeof(bytes)));
    if (frame->size <= UINT16_MAX) {
        write_seed(target, name, more, &head, frame);
    }
    hp_buf_deinit(&head);
}

static void write_frame(const char *name, const char *more, const struct hp_buf *frame)
{
    static const struct hp_buf nothing = {0};
    write_seed("decode", name, more, &nothing, frame);
    write_seed("tokenizer", name, more, &nothing, frame);
    write_step("core", 7, name, more, frame);      /* from the client */
    write_step("core", 16 + 7, name, more, frame); /* and from the worker */
    write_step("agent", 4, name, more, frame);
    write_step("client", 7, name, more, frame);
}

static void write_method(enum hp_method method)
{
    const struct hp_method_info *info = hp_method_info(method);
    static const char *const names[] = {"-low", "-high"};
    struct hp_buf frame;
    hp_buf_init(&frame, 4U << 20);
    for (int edge = 0; edge < 2; edge++) {
        hp_buf_clear(&frame);
        assert_ok(info->is_notify ? hp_rpc_put_notify(&frame, method)
                                  : hp_rpc_put_request(&frame, 3, method));
        sample_map(&frame, info->params, (enum sample_edge)edge, sample_all(info->params));
        write_frame(info->name, names[edge], &frame);
        if (info->reply != NULL) {
            hp_buf_clear(&frame);
            assert_ok(hp_rpc_put_reply(&frame, 3));
            sample_map(&frame, info->reply, (enum sample_edge)edge, sample_all(info->reply));
            write_frame(info->name, edge == 0 ? "-reply-low" : "-reply-high", &frame);
        }
    }
    /* Grown: the method, then bytes that choose its fields. */
    static const struct hp_buf nothing = {0};
    for (uint8_t byte = 0; byte < 4; byte++) {
        const uint8_t more[] = {'-', (uint8_t)('0' + byte), '\0'};
        hp_buf_clear(&frame);
        for (uint8_t conn = 0; conn < 2; conn++) {
            const uint8_t step[] = {(uint8_t)(conn * 16 + 9), (uint8_t)(method - 1)};
            assert_ok(hp_buf_append(&frame, step, sizeof(step)));
            for (uint8_t i = 0; i < 48; i++) {
                assert_ok(hp_buf_append_byte(&frame, (uint8_t)(i * byte % 7)));
            }
            assert_ok(hp_buf_append_byte(&frame, 2)); /* the store does what it has */
        }
        write_seed("core", info->name, (const char *)more, &nothing, &frame);
    }
    hp_buf_deinit(&frame);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fprintf(stderr, "usage: seeds FOLDER\n");
        return 2;
    }
    root = argv[1];
    (void)mkdir(root, 0755); /* it may be there */
    for (uint32_t i = 1; i < HP_METHOD_COUNT; i++) {
        write_method((enum hp_method)i);
    }
    return 0;
}
