/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * redis: list t has the jobs, list r the results. BLMPOP takes up to `fetch` elements at a time and
 * removes them: what a worker holds when it dies is lost. The results of one answer are one RPUSH.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/programs/common.h"
#include "bench/programs/peer.h"

static const char *list_of(const struct peer_conn *conn)
{
    return conn->role == PEER_WORKER ? "t" : "r";
}

/* The head of an answer to BLMPOP, "*2 $1 name *count"; NULL if it is not whole. */
static const char *parse_head(struct peer_conn *conn, const char *line, const char *end)
{
    for (int i = 0; i < 3; i++) {
        line = peer_line(line, end);
        if (line == NULL) {
            return NULL;
        }
    }
    const char *after = peer_line(line, end);
    if (after != NULL) {
        conn->batch = (unsigned)strtoul(line + 1, NULL, 10);
        conn->left = conn->batch;
    }
    return after;
}

static bool parse(struct peer_conn *conn, struct peer_message *ret_message)
{
    const char *line = conn->in + conn->in_at;
    const char *end = conn->in + conn->in_size;
    const char *after = peer_line(line, end);
    *ret_message = (struct peer_message){.kind = PEER_OTHER};
    if (after == NULL) {
        return false;
    }
    if (*line == '*') {
        after = parse_head(conn, line, end);
        if (after == NULL) {
            return false;
        }
    } else if (*line == '$') {
        ret_message->kind = PEER_JOB;
        ret_message->data = after;
        ret_message->size = strtoull(line + 1, NULL, 10);
        if ((size_t)(end - after) < ret_message->size + 2) {
            return false;
        }
        after += ret_message->size + 2;
        conn->left--;
    } else if (*line == ':') {
        ret_message->kind = PEER_ACK;
    } else {
        bench_fail("redis", line);
    }
    conn->in_at = (size_t)(after - conn->in);
    return true;
}

static void ask(struct peer_conn *conn)
{
    char count[16];
    int size = snprintf(count, sizeof(count), "%u", conn->fetch);
    peer_printf(conn,
                "*7\r\n$6\r\nBLMPOP\r\n$1\r\n0\r\n$1\r\n1\r\n$1\r\n%s\r\n$4\r\nLEFT\r\n"
                "$5\r\nCOUNT\r\n$%d\r\n%s\r\n",
                list_of(conn), size, count);
}

static void start(struct peer_conn *conn)
{
    if (conn->role == PEER_WORKER) {
        ask(conn);
        peer_flush(conn);
    }
}

static void put_text(struct peer_conn *conn, const char *data, size_t size)
{
    peer_printf(conn, "$%zu\r\n", size);
    peer_put(conn, data, size);
    peer_puts(conn, "\r\n");
}

static void submit(struct peer_conn *conn, const char *data, size_t size)
{
    peer_puts(conn, "*3\r\n$5\r\nRPUSH\r\n$1\r\nt\r\n");
    put_text(conn, data, size);
}

static void work(struct peer_conn *conn, const struct peer_message *message)
{
    if (message->kind != PEER_JOB) {
        return;
    }
    if (conn->left + 1 == conn->batch) { /* the first one */
        peer_printf(conn, "*%u\r\n$5\r\nRPUSH\r\n$1\r\nr\r\n", conn->batch + 2);
    }
    put_text(conn, message->data, message->size);
    if (conn->left == 0) {
        ask(conn);
    }
}

static void settle(struct peer_conn *conn, const struct peer_message *message)
{
    (void)conn; /* it is gone already */
    (void)message;
}

const struct peer_protocol peer_redis = {
    .name = "redis",
    .start = start,
    .parse = parse,
    .submit = submit,
    .work = work,
    .ask = ask,
    .settle = settle,
};
