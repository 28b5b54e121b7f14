/* SPDX-License-Identifier: BSD-2-Clause */
/* beanstalkd: tube t has the jobs, tube r the results. */
#include <stdlib.h>
#include <string.h>

#include "bench/programs/common.h"
#include "bench/programs/peer.h"

static bool starts_with(const char *line, const char *word)
{
    return strncmp(line, word, strlen(word)) == 0;
}

static bool parse(struct peer_conn *conn, struct peer_message *ret_message)
{
    const char *line = conn->in + conn->in_at;
    const char *end = conn->in + conn->in_size;
    const char *body = peer_line(line, end);
    *ret_message = (struct peer_message){.kind = PEER_OTHER};
    if (body == NULL) {
        return false;
    }
    if (starts_with(line, "RESERVED ")) {
        char *after = NULL;
        ret_message->id = line + strlen("RESERVED ");
        (void)strtoull(ret_message->id, &after, 10); /* only where it ends is wanted */
        ret_message->id_size = (size_t)(after - ret_message->id);
        ret_message->size = strtoull(after, NULL, 10);
        ret_message->kind = PEER_JOB;
        ret_message->data = body;
        if ((size_t)(end - body) < ret_message->size + 2) {
            return false;
        }
        body += ret_message->size + 2;
    } else if (starts_with(line, "INSERTED ")) {
        ret_message->kind = PEER_ACK;
    } else if (!starts_with(line, "DELETED") && !starts_with(line, "USING") &&
               !starts_with(line, "WATCHING")) {
        bench_fail("beanstalkd", line);
    }
    conn->in_at = (size_t)(body - conn->in);
    return true;
}

static void start(struct peer_conn *conn)
{
    static const char *const tubes[][2] = {[PEER_SUBMITTER] = {"t", "none"},
                                           [PEER_COLLECTOR] = {"none", "r"},
                                           [PEER_WORKER] = {"r", "t"}};
    struct peer_message message;
    peer_printf(conn, "use %s\r\nwatch %s\r\nignore default\r\n", tubes[conn->role][0],
                tubes[conn->role][1]);
    if (conn->role == PEER_WORKER) {
        peer_puts(conn, "reserve\r\n");
    }
    peer_flush(conn);
    for (int i = 0; i < 3; i++) {
        peer_next(&peer_beanstalkd, conn, &message);
    }
}

static void submit(struct peer_conn *conn, const char *data, size_t size)
{
    peer_printf(conn, "put 0 0 120 %zu\r\n", size);
    peer_put(conn, data, size);
    peer_puts(conn, "\r\n");
}

static void settle(struct peer_conn *conn, const struct peer_message *message)
{
    peer_puts(conn, "delete ");
    peer_put(conn, message->id, message->id_size);
    peer_puts(conn, "\r\n");
}

static void ask(struct peer_conn *conn)
{
    peer_puts(conn, "reserve\r\n");
}

static void work(struct peer_conn *conn, const struct peer_message *message)
{
    if (message->kind == PEER_JOB) {
        submit(conn, message->data, message->size);
        settle(conn, message);
        ask(conn);
    }
}

const struct peer_protocol peer_beanstalkd = {
    .name = "beanstalkd",
    .start = start,
    .parse = parse,
    .submit = submit,
    .work = work,
    .ask = ask,
    .settle = settle,
};
