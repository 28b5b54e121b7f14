/* SPDX-License-Identifier: BSD-2-Clause */
/* gearmand: foreground jobs of function t; a worker has up to `fetch` grabs under way. */
#include <string.h>

#include "bench/programs/common.h"
#include "bench/programs/peer.h"

enum packet {
    CAN_DO = 1,
    PRE_SLEEP = 4,
    NOOP = 6,
    SUBMIT_JOB = 7,
    JOB_CREATED = 8,
    GRAB_JOB = 9,
    NO_JOB = 10,
    JOB_ASSIGN = 11,
    WORK_COMPLETE = 13,
    ERROR = 19,
};

#define HEADER_BYTES 12u

static void put_header(struct peer_conn *conn, enum packet type, size_t size)
{
    unsigned char header[HEADER_BYTES] = {0, 'R', 'E', 'Q'};
    for (unsigned i = 0; i < 4; i++) {
        header[4 + i] = (unsigned char)((unsigned)type >> (24 - 8 * i));
        header[8 + i] = (unsigned char)(size >> (24 - 8 * i));
    }
    peer_put(conn, header, sizeof(header));
}

static size_t read_number(const char *at)
{
    size_t value = 0;
    for (unsigned i = 0; i < 4; i++) {
        value = value << 8 | (unsigned char)at[i];
    }
    return value;
}

static enum peer_kind kind_of(size_t type)
{
    return type == JOB_CREATED                           ? PEER_ACK
           : type == NO_JOB                              ? PEER_NONE
           : type == NOOP                                ? PEER_WAKE
           : type == JOB_ASSIGN || type == WORK_COMPLETE ? PEER_JOB
                                                         : PEER_OTHER;
}

static bool parse(struct peer_conn *conn, struct peer_message *ret_message)
{
    const char *at = conn->in + conn->in_at;
    size_t there = conn->in_size - conn->in_at;
    if (there < HEADER_BYTES) {
        return false;
    }
    size_t type = read_number(at + 4);
    size_t size = read_number(at + 8);
    if (there < HEADER_BYTES + size) {
        return false;
    }
    const char *body = at + HEADER_BYTES;
    *ret_message = (struct peer_message){.kind = kind_of(type)};
    conn->in_at += HEADER_BYTES + size;
    if (type == ERROR) {
        bench_fail("gearmand", "answered with an error");
    }
    if (ret_message->kind == PEER_JOB) { /* handle, [function,] data */
        ret_message->id = body;
        ret_message->id_size = strlen(body);
        ret_message->data = body + ret_message->id_size + 1;
        if (type == JOB_ASSIGN) {
            ret_message->data += strlen(ret_message->data) + 1;
        }
        ret_message->size = (size_t)(body + size - ret_message->data);
    }
    return true;
}

static void grab(struct peer_conn *conn)
{
    put_header(conn, GRAB_JOB, 0);
    conn->asked++;
}

static void start(struct peer_conn *conn)
{
    if (conn->role == PEER_WORKER) {
        put_header(conn, CAN_DO, 1);
        peer_puts(conn, "t");
        put_header(conn, PRE_SLEEP, 0);
        grab(conn);
        peer_flush(conn);
    }
}

static void submit(struct peer_conn *conn, const char *data, size_t size)
{
    put_header(conn, SUBMIT_JOB, 3 + size);
    peer_put(conn, "t\0", 3); /* function, no unique id */
    peer_put(conn, data, size);
}

static void work(struct peer_conn *conn, const struct peer_message *message)
{
    if (message->kind == PEER_JOB) {
        conn->asked--;
        put_header(conn, WORK_COMPLETE, message->id_size + 1 + message->size);
        peer_put(conn, message->id, message->id_size + 1);
        peer_put(conn, message->data, message->size);
        grab(conn);
    } else if (message->kind == PEER_NONE && --conn->asked == 0) {
        put_header(conn, PRE_SLEEP, 0);
    } else if (message->kind == PEER_WAKE) {
        while (conn->asked < conn->fetch) {
            grab(conn);
        }
    }
}

const struct peer_protocol peer_gearmand = {
    .name = "gearmand",
    .has_results = true,
    .start = start,
    .parse = parse,
    .submit = submit,
    .work = work,
};
