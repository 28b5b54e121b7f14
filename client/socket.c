/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The socket under the engine. hp_client_process is one turn: finish connecting, read, step,
 * connect, send; it never waits (except for name resolution, which the system does not offer
 * otherwise). hp_client_pump is the only place where the library waits.
 */
#include "client/socket.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"

/* Reads of one turn: enough to keep up, few enough to get to sending. */
#define READ_COUNT_MAX 8u

void hp_socket_drop(struct hp_client *client)
{
    if (client->fd >= 0) {
        (void)close(client->fd); /* nothing can be done about an error */
    }
    client->fd = -1;
    client->connecting = false;
    if (client->addresses != NULL) {
        freeaddrinfo(client->addresses);
    }
    client->addresses = NULL;
    client->address = NULL;
}

static void lost(struct hp_client *client, enum hp_status status, const char *text)
{
    char full[HP_CLIENT_TEXT_BYTES];

    hp_socket_drop(client);
    (void)snprintf(full, sizeof(full), "%s: %s", client->display, text);
    hp_engine_closed(client->engine, status, full, hp_clock_mono_ms());
}

/* ---------------------------------------------------------------- connecting */

static void set_socket_options(int fd)
{
    int on = 1;

    /* Both are wishes: a connection works without them. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

/* Begins with client->address and those behind it; false: none works, errno is of the last. */
static bool try_addresses(struct hp_client *client)
{
    int error = ECONNREFUSED;

    for (; client->address != NULL; client->address = client->address->ai_next) {
        const struct addrinfo *to = client->address;

        client->fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (client->fd < 0) {
            error = errno;
            continue;
        }
        set_socket_options(client->fd);
        client->connecting = true;
        if (connect(client->fd, to->ai_addr, to->ai_addrlen) == 0 || errno == EINPROGRESS ||
            errno == EINTR) {
            return true;
        }
        error = errno;
        (void)close(client->fd);
        client->fd = -1;
        client->connecting = false;
    }
    errno = error;
    return false;
}

/*
 * An address is read without a look at the host's interfaces: libc does that under a lock which a
 * forked child inherits locked, for good, if another thread has it just then.
 */
static int resolve(struct hp_client *client)
{
    static const int flags[] = {AI_NUMERICHOST, AI_ADDRCONFIG,
                                0 /* on a host with nothing but loopback */};
    int error = EAI_NONAME;

    for (size_t i = 0; i < HP_COUNT_OF(flags) && (error == EAI_NONAME || error == EAI_ADDRFAMILY);
         i++) {
        struct addrinfo hints = {
            .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags[i]};
        error = getaddrinfo(client->host, client->port, &hints, &client->addresses);
    }
    return error;
}

static void begin_connect(struct hp_client *client)
{
    int error;

    hp_engine_connecting(client->engine, hp_clock_mono_ms());
    hp_socket_drop(client);
    error = resolve(client);
    if (error != 0) {
        client->addresses = NULL;
        lost(client, HP_STATUS_UNREACHABLE,
             error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
        return;
    }
    client->address = client->addresses;
    if (!try_addresses(client)) {
        lost(client, HP_STATUS_UNREACHABLE, strerror(errno));
    }
}

/* True if the connection stands now. */
static void finish_connect(struct hp_client *client)
{
    struct pollfd poll_fd = {.fd = client->fd, .events = POLLOUT};
    int error = 0;
    socklen_t size = sizeof(error);

    if (poll(&poll_fd, 1, 0) <= 0) {
        return;
    }
    if (getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
        error = errno;
    }
    if (error == 0) {
        client->connecting = false;
        hp_engine_opened(client->engine, hp_clock_mono_ms());
        return;
    }
    (void)close(client->fd);
    client->fd = -1;
    client->connecting = false;
    client->address = client->address->ai_next;
    if (!try_addresses(client)) {
        lost(client, HP_STATUS_UNREACHABLE, strerror(client->address == NULL ? error : errno));
    }
}

/* ---------------------------------------------------------------- bytes */

static enum hp_status read_some(struct hp_client *client)
{
    if (client->read_buffer == NULL) {
        client->read_buffer = hp_alloc(HP_CLIENT_READ_BYTES);
        if (client->read_buffer == NULL) {
            return hp_client_fail(client, HP_STATUS_NO_MEMORY, "out of memory");
        }
    }
    for (uint32_t i = 0; i < READ_COUNT_MAX && client->fd >= 0; i++) {
        ssize_t size = recv(client->fd, client->read_buffer, HP_CLIENT_READ_BYTES, 0);

        if (size < 0 && errno == EINTR) {
            continue;
        }
        if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            break;
        }
        if (size <= 0) {
            lost(client, HP_STATUS_UNREACHABLE,
                 size == 0 ? "the broker closed the connection" : strerror(errno));
            break;
        }
        if (hp_engine_feed(client->engine, client->read_buffer, (size_t)size, hp_clock_mono_ms()) !=
                HP_STATUS_OK ||
            (size_t)size < HP_CLIENT_READ_BYTES || !hp_engine_wants_input(client->engine)) {
            break;
        }
    }
    return HP_STATUS_OK;
}

static void send_some(struct hp_client *client)
{
    struct hp_bytes out = hp_engine_output(client->engine);
    ssize_t size;

    if (out.size == 0) {
        return;
    }
    size = send(client->fd, out.data, out.size, MSG_NOSIGNAL);
    if (size >= 0) {
        hp_engine_sent(client->engine, (size_t)size);
    } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        lost(client, HP_STATUS_UNREACHABLE, strerror(errno));
    }
}

static void close_if_wanted(struct hp_client *client)
{
    enum hp_status status;
    const char *text;

    if (hp_engine_wants_close(client->engine, &status, &text)) {
        lost(client, status, text);
    }
}

enum hp_status hp_socket_lasting_trouble(const struct hp_client *client, const char **ret_text)
{
    enum hp_status status = hp_engine_trouble(client->engine, ret_text);

    return status == HP_STATUS_DENIED || status == HP_STATUS_VERSION ||
                   status == HP_STATUS_PROTOCOL || status == HP_STATUS_BAD_ARGUMENT ||
                   status == HP_STATUS_NO_MEMORY
               ? status
               : HP_STATUS_OK;
}

static enum hp_status fail_of_trouble(struct hp_client *client)
{
    const char *text;
    enum hp_status status = hp_socket_lasting_trouble(client, &text);

    return status == HP_STATUS_OK ? status : hp_client_fail(client, status, "%s", text);
}

enum hp_status hp_client_process(struct hp_client *client, unsigned ready)
{
    enum hp_status status = hp_client_check(client);

    if (status != HP_STATUS_OK) {
        return status;
    }
    if (client->connecting) {
        finish_connect(client);
    } else if (client->fd >= 0 && (ready & HP_IO_READ) != 0) {
        status = read_some(client);
    }
    close_if_wanted(client);
    hp_engine_step(client->engine, hp_clock_mono_ms());
    close_if_wanted(client);
    if (hp_engine_wants_connect(client->engine)) {
        begin_connect(client);
        if (client->connecting) {
            finish_connect(client); /* on loopback it stands at once */
        }
    }
    if (client->fd >= 0 && !client->connecting) {
        send_some(client);
    }
    return status == HP_STATUS_OK ? fail_of_trouble(client) : status;
}

int hp_client_fd(struct hp_client *client)
{
    return hp_client_check(client) == HP_STATUS_OK ? client->fd : -1;
}

unsigned hp_client_wants(struct hp_client *client)
{
    unsigned wants = 0;

    if (hp_client_check(client) != HP_STATUS_OK || client->fd < 0) {
        return 0;
    }
    if (client->connecting) {
        return HP_IO_WRITE;
    }
    if (hp_engine_wants_input(client->engine)) {
        wants |= HP_IO_READ;
    }
    if (hp_engine_output(client->engine).size > 0) {
        wants |= HP_IO_WRITE;
    }
    return wants;
}

int hp_client_timeout_ms(struct hp_client *client)
{
    uint64_t now_ms = hp_clock_mono_ms();
    uint64_t deadline_ms;

    if (hp_client_check(client) != HP_STATUS_OK) {
        return -1;
    }
    deadline_ms = hp_engine_deadline_ms(client->engine);
    if (deadline_ms == HP_ENGINE_NEVER) {
        return -1;
    }
    if (deadline_ms <= now_ms) {
        return 0;
    }
    return deadline_ms - now_ms > INT_MAX ? INT_MAX : (int)(deadline_ms - now_ms);
}

/* ---------------------------------------------------------------- waiting */

uint64_t hp_client_deadline_ms(const struct hp_client *client, int64_t timeout_ms)
{
    uint64_t now_ms = hp_clock_mono_ms();

    if (timeout_ms == HP_TIMEOUT_DEFAULT) {
        return now_ms + client->timeout_ms;
    }
    if (timeout_ms < 0) {
        return HP_ENGINE_NEVER;
    }
    return now_ms + (uint64_t)timeout_ms;
}

enum hp_status hp_client_late(struct hp_client *client)
{
    const char *text;
    enum hp_status status = hp_engine_trouble(client->engine, &text);

    if (hp_engine_is_open(client->engine)) {
        return hp_client_fail(client, HP_STATUS_TIMEOUT, "%s: no answer in time", client->display);
    }
    if (status == HP_STATUS_OK) {
        return hp_client_fail(client, HP_STATUS_UNREACHABLE, "%s: no connection in time",
                              client->display);
    }
    return hp_client_fail(client, HP_STATUS_UNREACHABLE, "%s", text);
}

enum hp_status hp_client_pump(struct hp_client *client, uint64_t deadline_ms)
{
    struct pollfd poll_fd;
    unsigned ready = 0;
    uint64_t now_ms = hp_clock_mono_ms();
    int timeout_ms;
    enum hp_status status;

    if (client->pump != NULL) {
        return client->pump(client, deadline_ms);
    }
    /* What is queued goes out first, and deadlines which have come are kept: only then wait. */
    status = hp_client_process(client, 0);
    if (status != HP_STATUS_OK) {
        return status;
    }
    if (now_ms >= deadline_ms) {
        return hp_client_late(client);
    }
    timeout_ms = hp_client_timeout_ms(client);
    if (deadline_ms != HP_ENGINE_NEVER &&
        (timeout_ms < 0 || (uint64_t)timeout_ms > deadline_ms - now_ms)) {
        timeout_ms = deadline_ms - now_ms > INT_MAX ? INT_MAX : (int)(deadline_ms - now_ms);
    }
    poll_fd.fd = client->fd;
    poll_fd.events = POLLIN; /* a blocking caller reads even if events wait: it needs its answer */
    if (client->connecting || (hp_client_wants(client) & HP_IO_WRITE) != 0) {
        poll_fd.events |= POLLOUT;
    }
    poll_fd.revents = 0;
    if (poll(&poll_fd, client->fd < 0 ? 0 : 1, timeout_ms) < 0 && errno != EINTR) {
        return hp_client_fail(client, HP_STATUS_SYSTEM, "poll: %s", strerror(errno));
    }
    ready |= (poll_fd.revents & (POLLIN | POLLERR | POLLHUP)) != 0 ? HP_IO_READ : 0;
    ready |= (poll_fd.revents & POLLOUT) != 0 ? HP_IO_WRITE : 0;
    return hp_client_process(client, ready);
}
