/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connecting: resolve the name anew, try all its addresses in turn. getaddrinfo() blocks for as
 * long as DNS likes, so names are resolved in a short-lived thread, which shares nothing with the
 * connection but a counted job.
 *
 * I1: the job's eventfd lives as long as the job, so the thread never writes to a stranger's fd.
 */
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/net/conn_impl.h"

struct conn_resolve {
    atomic_uint refs;
    int fd; /* eventfd: written when the rest is filled in */
    struct hp_endpoint endpoint;
    struct hp_addr addrs[CONN_ADDR_COUNT_MAX];
    size_t addr_count;
    struct hp_error error; /* code HP_OK: addrs are valid */
};

static void resolve_unref(struct conn_resolve *job)
{
    if (atomic_fetch_sub(&job->refs, 1) == 1) {
        (void)close(job->fd); /* an eventfd has nothing to lose */
        hp_free(job);
    }
}

static void *resolve_thread(void *context)
{
    struct conn_resolve *job = context;
    enum hp_err err = hp_endpoint_resolve(&job->endpoint, false, job->addrs, CONN_ADDR_COUNT_MAX,
                                          &job->addr_count, &job->error);
    HP_ASSERT(err == job->error.code); /* all-zero is HP_OK */
    uint64_t one = 1;
    ssize_t rc = write(job->fd, &one, sizeof(one));
    (void)rc; /* the first write to an eventfd cannot fail */
    resolve_unref(job);
    return NULL;
}

static struct conn_resolve *resolve_start(const struct hp_endpoint *endpoint)
{
    struct conn_resolve *job = hp_calloc(1, sizeof(*job));
    if (job == NULL) {
        return NULL;
    }
    job->endpoint = *endpoint;
    atomic_init(&job->refs, 2);
    job->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (job->fd < 0) {
        hp_free(job);
        return NULL;
    }
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);                            /* cannot fail */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* signals belong to the main thread */
    pthread_t thread;
    int rc = pthread_create(&thread, NULL, resolve_thread, job);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        resolve_unref(job);
        resolve_unref(job);
        return NULL;
    }
    (void)pthread_detach(thread); /* the job is all that is wanted of it */
    return job;
}

void hp_conn_connect_free_(struct hp_conn *conn)
{
    struct conn_connect *connect = conn->connect;
    if (connect == NULL) {
        return;
    }
    conn->connect = NULL;
    hp_watch_free(connect->resolve_watch);
    if (connect->resolve != NULL) {
        resolve_unref(connect->resolve);
    }
    hp_free(connect);
}

/* Ends the connect later from the loop, as no callback may run inside hp_conn_new_connect. */
static void fail_soon(struct hp_conn *conn, const char *failure)
{
    (void)hp_strlcpy(conn->reason, failure, sizeof(conn->reason)); /* cut is fine for a log */
    conn->fatal = true;
    hp_timer_set(conn->timer, 0);
}

/* Begins with one address. Returns NULL or the reason why that failed at once. */
static const char *try_addr(struct hp_conn *conn, const struct hp_addr *addr)
{
    int fd = socket(addr->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return strerror(errno);
    }
    enum hp_err err = hp_conn_attach_(conn, fd);
    if (err == HP_OK) {
        const struct sockaddr *sa = (const struct sockaddr *)(const void *)&addr->storage;
        int rc = connect(fd, sa, addr->size);
        if (rc != 0 && errno != EINPROGRESS) {
            const char *text = strerror(errno);
            hp_conn_detach_(conn);
            return text;
        }
        err = hp_watch_set(conn->watch, false, true);
    }
    if (err != HP_OK) {
        hp_conn_detach_(conn);
        return hp_err_text(err);
    }
    conn->state = CONN_CONNECTING;
    conn->peer_addr = *addr;
    hp_timer_set(conn->timer, conn->options.connect_ms);
    return NULL;
}

void hp_conn_connect_next_(struct hp_conn *conn, const char *failure)
{
    struct conn_connect *connect = conn->connect;
    char reason[CONN_REASON_BYTES];
    (void)snprintf(reason, sizeof(reason), "%s", failure);
    while (connect->addr_index < connect->addr_count) {
        const struct hp_addr *addr = &connect->addrs[connect->addr_index++];
        const char *text = try_addr(conn, addr);
        if (text == NULL) {
            return;
        }
        char addr_text[HP_ADDR_TEXT_BYTES];
        (void)hp_addr_text(addr, addr_text, sizeof(addr_text));
        (void)snprintf(reason, sizeof(reason), "%s: %s", addr_text, text);
    }
    conn->peer_addr.size = 0;
    fail_soon(conn, reason);
}

static void addr_failed(struct hp_conn *conn, const char *text)
{
    char addr_text[HP_ADDR_TEXT_BYTES];
    char reason[CONN_REASON_BYTES];
    (void)hp_addr_text(&conn->peer_addr, addr_text, sizeof(addr_text));
    (void)snprintf(reason, sizeof(reason), "%s: %.150s", addr_text, text);
    hp_conn_detach_(conn);
    hp_conn_connect_next_(conn, reason);
}

/*
 * A connect to a free port of this host can meet itself, when the kernel picks that very port as
 * the local one. It would then talk to itself and hold the port that the broker wants.
 */
static bool is_self_connect(int fd)
{
    struct hp_addr local = {.size = sizeof(local.storage)};
    struct hp_addr remote = {.size = sizeof(remote.storage)};
    if (getsockname(fd, (struct sockaddr *)(void *)&local.storage, &local.size) != 0 ||
        getpeername(fd, (struct sockaddr *)(void *)&remote.storage, &remote.size) != 0) {
        return false;
    }
    return hp_addr_port(&local) == hp_addr_port(&remote) && hp_addr_same_host(&local, &remote);
}

void hp_conn_connect_event_(struct hp_conn *conn)
{
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
        error = errno;
    }
    if (error == 0 && is_self_connect(conn->fd)) {
        error = ECONNREFUSED;
    }
    if (error != 0) {
        addr_failed(conn, strerror(error));
        return;
    }
    (void)hp_addr_text(&conn->peer_addr, conn->peer, sizeof(conn->peer));
    hp_conn_established_(conn);
}

void hp_conn_connect_timeout_(struct hp_conn *conn)
{
    if (conn->state == CONN_HANDSHAKE || conn->connect == NULL) {
        hp_conn_finish_(conn, "the handshake took too long");
    } else {
        addr_failed(conn, "no answer");
    }
}

static void on_resolved(struct hp_watch *watch, bool readable, bool writable, void *context)
{
    struct hp_conn *conn = context;
    (void)watch;
    (void)readable;
    (void)writable;
    hp_conn_enter_(conn);
    struct conn_connect *connect = conn->connect;
    struct conn_resolve *job = connect->resolve;
    uint64_t count = 0;
    if (conn->state == CONN_RESOLVING && read(job->fd, &count, sizeof(count)) == sizeof(count)) {
        /* The read of the eventfd orders the thread's writes before what follows. */
        connect->addr_count = job->error.code == HP_OK ? job->addr_count : 0;
        memcpy(connect->addrs, job->addrs, sizeof(connect->addrs));
        struct hp_error error = job->error;
        hp_watch_free(connect->resolve_watch);
        connect->resolve_watch = NULL;
        connect->resolve = NULL;
        resolve_unref(job);
        conn->state = CONN_CONNECTING;
        hp_conn_connect_next_(conn, error.text);
    }
    hp_conn_leave_(conn);
}

/* Addresses of a host written as a number; those need no resolver. */
static bool resolve_number(struct conn_connect *connect)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    char port[8];
    (void)snprintf(port, sizeof(port), "%u", connect->endpoint.port);
    const char *host = connect->endpoint.host[0] == '\0' ? NULL : connect->endpoint.host;
    struct addrinfo *list = NULL;
    if (getaddrinfo(host, port, &hints, &list) != 0) {
        return false;
    }
    for (const struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next) {
        if (connect->addr_count < CONN_ADDR_COUNT_MAX) {
            struct hp_addr *addr = &connect->addrs[connect->addr_count++];
            addr->size = ai->ai_addrlen;
            memcpy(&addr->storage, ai->ai_addr, ai->ai_addrlen);
        }
    }
    freeaddrinfo(list);
    return connect->addr_count > 0;
}

static enum hp_err connect_begin(struct hp_conn *conn, const struct hp_endpoint *endpoint)
{
    struct conn_connect *connect = hp_calloc(1, sizeof(*connect));
    if (connect == NULL) {
        return HP_ERR_NOMEM;
    }
    conn->connect = connect;
    connect->endpoint = *endpoint;
    if (resolve_number(connect)) {
        conn->state = CONN_CONNECTING;
        hp_conn_connect_next_(conn, "no address");
        return HP_OK;
    }
    connect->resolve = resolve_start(endpoint);
    if (connect->resolve == NULL) {
        return HP_ERR_NOMEM;
    }
    connect->resolve_watch = hp_watch_new(conn->loop, connect->resolve->fd, on_resolved, conn);
    if (connect->resolve_watch == NULL) {
        return HP_ERR_NOMEM;
    }
    return hp_watch_set(connect->resolve_watch, true, false);
}

enum hp_err hp_conn_new_connect(struct hp_loop *loop, const struct hp_endpoint *endpoint,
                                const struct hp_conn_options *options,
                                const struct hp_conn_handlers *handlers, void *context,
                                struct hp_conn **ret_conn, struct hp_error *reterr)
{
    struct hp_conn *conn = NULL;
    enum hp_err err = hp_conn_alloc_(loop, options, handlers, context, &conn, reterr);
    if (err != HP_OK) {
        return err;
    }
    conn->state = CONN_RESOLVING;
    bool v6 = strchr(endpoint->host, ':') != NULL;
    (void)snprintf(conn->peer, sizeof(conn->peer), v6 ? "[%.255s]:%u" : "%.255s:%u", endpoint->host,
                   endpoint->port);
    err = connect_begin(conn, endpoint);
    if (err != HP_OK) {
        hp_conn_free(conn);
        return hp_error_set(reterr, err, "cannot start to connect: %s", hp_err_text(err));
    }
    *ret_conn = conn;
    return HP_OK;
}
