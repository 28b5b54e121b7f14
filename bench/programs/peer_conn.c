/* SPDX-License-Identifier: BSD-2-Clause */
/* Connections to servers of other projects: buffers that grow, see peer.h. */
#include "bench/programs/peer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/programs/common.h"

#define ROOM_FIRST ((size_t)1 << 18)

struct peer_conn *peer_open(const struct peer_protocol *protocol, uint16_t port,
                            enum peer_role role, unsigned fetch)
{
    struct peer_conn *conn = bench_room(1, sizeof(*conn));
    conn->fd = bench_connect(port);
    conn->role = role;
    conn->fetch = fetch;
    conn->in_room = ROOM_FIRST;
    conn->out_room = ROOM_FIRST;
    conn->in = bench_room(1, conn->in_room);
    conn->out = bench_room(1, conn->out_room);
    protocol->start(conn);
    return conn;
}

static void grow(char **data, size_t *room, size_t wanted)
{
    if (wanted <= *room) {
        return;
    }
    while (*room < wanted) {
        *room *= 2;
    }
    *data = realloc(*data, *room);
    if (*data == NULL) {
        bench_die("memory");
    }
}

void peer_put(struct peer_conn *conn, const void *data, size_t size)
{
    grow(&conn->out, &conn->out_room, conn->out_size + size);
    memcpy(conn->out + conn->out_size, data, size);
    conn->out_size += size;
}

void peer_puts(struct peer_conn *conn, const char *text)
{
    peer_put(conn, text, strlen(text));
}

void peer_printf(struct peer_conn *conn, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (size < 0 || (size_t)size >= sizeof(text)) {
        bench_fail("too long", format);
    }
    peer_put(conn, text, (size_t)size);
}

void peer_flush(struct peer_conn *conn)
{
    bench_write_all(conn->fd, conn->out, conn->out_size);
    conn->out_size = 0;
}

void peer_fill(struct peer_conn *conn)
{
    if (conn->in_at > 0) {
        memmove(conn->in, conn->in + conn->in_at, conn->in_size - conn->in_at);
        conn->in_size -= conn->in_at;
        conn->in_at = 0;
    }
    grow(&conn->in, &conn->in_room, conn->in_size + 1);
    ssize_t size = read(conn->fd, conn->in + conn->in_size, conn->in_room - conn->in_size);
    if (size == 0) {
        bench_fail("server", "closed the connection");
    }
    if (size < 0 && errno != EINTR) {
        bench_die("read");
    }
    conn->in_size += size > 0 ? (size_t)size : 0;
}

void peer_next(const struct peer_protocol *protocol, struct peer_conn *conn,
               struct peer_message *ret_message)
{
    while (!protocol->parse(conn, ret_message)) {
        peer_fill(conn);
    }
}

const char *peer_line(const char *at, const char *end)
{
    const char *found = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;
    return found != NULL ? found + 1 : NULL;
}
