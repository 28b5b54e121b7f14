/* SPDX-License-Identifier: BSD-2-Clause */
/* The transport without encryption: the socket's own read and write. */
#include <sys/socket.h>
#include <unistd.h>

#include "common/net/conn_impl.h"

static ssize_t plain_read(void *state, int fd, void *data, size_t size,
                          enum hp_transport_want *ret_want)
{
    (void)state;
    (void)ret_want;
    return read(fd, data, size);
}

static ssize_t plain_write(void *state, int fd, const void *data, size_t size,
                           enum hp_transport_want *ret_want)
{
    (void)state;
    (void)ret_want;
    return send(fd, data, size, MSG_NOSIGNAL);
}

static int plain_handshake(void *state, int fd, enum hp_transport_want *ret_want)
{
    (void)state;
    (void)fd;
    (void)ret_want;
    return 0;
}

const struct hp_transport hp_transport_plain_ = {
    .name = "plain", .read = plain_read, .write = plain_write, .handshake = plain_handshake};
