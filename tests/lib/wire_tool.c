/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lets test_wire_ref.py talk to the C protocol code. Lines in, one line out each:
 *
 *   params METHOD HEX   decode as the params map of the method, encode again: "ok HEX"
 *   reply METHOD HEX    the same for its result map
 *   frame HEX           parse as a frame: "ok request ID METHOD", "ok response ID", "ok notify
 * METHOD", "ok failure ID CODE TEXT" fixed NAME          a message built with the typed functions:
 * "ok HEX"
 *
 * What is refused gives "error TEXT".
 */
#include "common/base/arena.h"
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "proto/hp_msg.h"
#include "proto/rpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tool {
    struct hp_wire *wire;
    struct hp_arena arena;
    struct hp_buf in;
    struct hp_buf out;
    void *room;
};

static void print_hex(const struct hp_buf *buf)
{
    printf("ok ");
    for (size_t i = 0; i < buf->size; i++) {
        printf("%02x", buf->data[i]);
    }
    printf("\n");
}

static void read_hex(const char *text, struct hp_buf *buf)
{
    char digits[3] = "";

    hp_buf_clear(buf);
    for (; text[0] != '\0' && text[1] != '\0'; text += 2) {
        memcpy(digits, text, 2);
        HP_ASSERT(hp_buf_append_byte(buf, (uint8_t)strtoul(digits, NULL, 16)) == HP_OK);
    }
}

static void run_decode(struct tool *tool, const char *method, bool reply, const char *hex)
{
    const struct hp_method_info *info = hp_method_info(hp_method_find(hp_str_of(method)));
    const struct hp_codec_desc *desc = reply ? info->reply : info->params;
    const struct hp_wire_obj *root;
    struct hp_error error = {0};

    HP_ASSERT(desc != NULL);
    read_hex(hex, &tool->in);
    hp_arena_reset(&tool->arena);
    hp_buf_clear(&tool->out);
    if (hp_wire_unpack_checked(tool->wire, &hp_tok_limits_open, hp_buf_bin(&tool->in), &root,
                               &error) != HP_OK ||
        hp_codec_decode(desc, root, &tool->arena, tool->room, &error) != HP_OK ||
        hp_codec_encode(desc, &tool->out, tool->room, &error) != HP_OK) {
        printf("error %s\n", error.text);
        return;
    }
    print_hex(&tool->out);
}

/* Text from a frame, in one printable line. */
static void print_text(struct hp_str text)
{
    putchar(' ');
    for (uint32_t i = 0; i < text.size; i++) {
        putchar(text.data[i] >= ' ' && text.data[i] <= '~' ? text.data[i] : '?');
    }
}

static void run_frame(struct tool *tool, const char *hex)
{
    const struct hp_wire_obj *root;
    struct hp_error error = {0};
    struct hp_rpc rpc;

    read_hex(hex, &tool->in);
    if (hp_wire_unpack_checked(tool->wire, &hp_tok_limits_open, hp_buf_bin(&tool->in), &root,
                               &error) != HP_OK ||
        hp_rpc_parse(root, &rpc, &error) != HP_OK) {
        printf("error %s", error.text);
    } else if (rpc.type == HP_RPC_REQUEST) {
        printf("ok request %u", rpc.msgid);
        print_text(rpc.method_name);
    } else if (rpc.type == HP_RPC_NOTIFY) {
        printf("ok notify");
        print_text(rpc.method_name);
    } else if (rpc.failed) {
        printf("ok failure %u", rpc.msgid);
        print_text(rpc.failure.word);
        print_text(rpc.failure.text);
    } else {
        printf("ok response %u", rpc.msgid);
    }
    printf("\n");
}

static enum hp_err fixed_submit(struct hp_buf *buf)
{
    struct hp_str argv[] = {HP_STR("echo"), HP_STR("\xc3\xa4")};
    struct hp_bin payloads[] = {hp_bin_make("", 0), hp_bin_make("\0\xff", 2)};
    uint64_t blobs[] = {0, UINT64_MAX};
    struct hp_msg_task_submit msg;
    enum hp_err err = hp_rpc_put_request(buf, 300, HP_METHOD_TASK_SUBMIT);

    hp_msg_task_submit_init(&msg);
    msg.has = HP_HAS_TASK_SUBMIT_NUMBER | HP_HAS_TASK_SUBMIT_PAYLOADS | HP_HAS_TASK_SUBMIT_BLOBS;
    msg.number = UINT64_C(1) << 32;
    msg.payloads = (struct hp_list_bin){.items = payloads, .count = 2};
    msg.blobs = (struct hp_list_u64){.items = blobs, .count = 2};
    msg.options.has = HP_HAS_ST_TASK_OPTIONS_ARGV | HP_HAS_ST_TASK_OPTIONS_QUEUE |
                      HP_HAS_ST_TASK_OPTIONS_AT_MOST_ONCE | HP_HAS_ST_TASK_OPTIONS_ON_CONFLICT;
    msg.options.kind = HP_TASK_KIND_COMMAND;
    msg.options.argv = (struct hp_list_str){.items = argv, .count = 2};
    msg.options.queue = HP_STR("night");
    msg.options.at_most_once = true;
    msg.options.on_conflict = HP_ON_CONFLICT_REPLACE;
    return err != HP_OK ? err : hp_msg_task_submit_encode(buf, &msg);
}

static enum hp_err fixed_done(struct hp_buf *buf)
{
    struct hp_st_task_end end = {.has = HP_HAS_ST_TASK_END_EXIT_CODE | HP_HAS_ST_TASK_END_ERRNO |
                                        HP_HAS_ST_TASK_END_OUT_TRUNCATED,
                                 .exit_code = -129,
                                 .start_errno = 13,
                                 .out_truncated = true};
    struct hp_st_done_item item = {
        .has = HP_HAS_ST_DONE_ITEM_REASON, .id = 70000, .attempt = 2, .epoch = 5};
    struct hp_msg_worker_done msg = {.items = {.items = &item, .count = 1}};
    struct hp_buf encoded;
    enum hp_err err;

    hp_buf_init(&encoded, 4096);
    err = hp_st_task_end_encode(&encoded, &end);
    item.reason = HP_REASON_NOT_STARTED;
    item.end = hp_buf_bin(&encoded);
    if (err == HP_OK) {
        err = hp_rpc_put_request(buf, 0, HP_METHOD_WORKER_DONE);
    }
    if (err == HP_OK) {
        err = hp_msg_worker_done_encode(buf, &msg);
    }
    hp_buf_deinit(&encoded);
    return err;
}

static enum hp_err fixed_ping_reply(struct hp_buf *buf)
{
    struct hp_msg_broker_ping_reply msg = {.now_ms = INT64_MIN};
    enum hp_err err = hp_rpc_put_reply(buf, UINT32_MAX);

    return err != HP_OK ? err : hp_msg_broker_ping_reply_encode(buf, &msg);
}

static enum hp_err fixed_output(struct hp_buf *buf)
{
    struct hp_msg_task_output msg = {.id = 1, .attempt = 1, .offset = 128};
    enum hp_err err = hp_rpc_put_notify(buf, HP_METHOD_TASK_OUTPUT);

    msg.stream = HP_STREAM_STDERR;
    msg.data = hp_bin_make("oops\n", 5);
    return err != HP_OK ? err : hp_msg_task_output_encode(buf, &msg);
}

static void run_fixed(struct tool *tool, const char *name)
{
    enum hp_err err = HP_ERR_NOT_FOUND;

    hp_buf_clear(&tool->out);
    if (strcmp(name, "submit") == 0) {
        err = fixed_submit(&tool->out);
    } else if (strcmp(name, "done") == 0) {
        err = fixed_done(&tool->out);
    } else if (strcmp(name, "ping_reply") == 0) {
        err = fixed_ping_reply(&tool->out);
    } else if (strcmp(name, "output") == 0) {
        err = fixed_output(&tool->out);
    } else if (strcmp(name, "error_text") == 0) {
        err = hp_rpc_put_error(&tool->out, 7, HP_RPC_ERROR_BUSY, HP_STR("the queue is full"), false,
                               250);
    } else if (strcmp(name, "error_map") == 0) {
        err = hp_rpc_put_error(&tool->out, 7, HP_RPC_ERROR_BUSY, HP_STR("the queue is full"), true,
                               250);
    }
    if (err != HP_OK) {
        printf("error %s\n", hp_err_text(err));
        return;
    }
    print_hex(&tool->out);
}

static void run_line(struct tool *tool, char *line)
{
    char *rest = NULL;
    const char *verb = strtok_r(line, " \n", &rest);
    const char *first = strtok_r(NULL, " \n", &rest);
    const char *second = strtok_r(NULL, " \n", &rest);

    HP_ASSERT(verb != NULL && first != NULL);
    if (strcmp(verb, "frame") == 0) {
        run_frame(tool, first);
    } else if (strcmp(verb, "fixed") == 0) {
        run_fixed(tool, first);
    } else {
        run_decode(tool, first, strcmp(verb, "reply") == 0, second != NULL ? second : "");
    }
}

int main(void)
{
    struct tool tool = {.wire = hp_wire_new(), .room = hp_alloc(65536)};
    char *line = NULL;
    size_t capacity = 0;

    HP_ASSERT(tool.wire != NULL && tool.room != NULL);
    hp_arena_init(&tool.arena, 65536, 64u << 20);
    hp_buf_init(&tool.in, 4u << 20);
    hp_buf_init(&tool.out, 4u << 20);
    while (getline(&line, &capacity, stdin) > 0) {
        run_line(&tool, line);
        (void)fflush(stdout);
    }
    free(line);
    hp_free(tool.room);
    hp_wire_free(tool.wire);
    hp_arena_deinit(&tool.arena);
    hp_buf_deinit(&tool.in);
    hp_buf_deinit(&tool.out);
    return 0;
}
