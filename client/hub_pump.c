/* SPDX-License-Identifier: BSD-2-Clause */
/* Who pumps, and how it waits: leaders, followers, the hub's own thread. See hub_state.h. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client/hub_state.h"
#include "client/socket.h"
#include "common/base/assert.h"
#include "common/sys/clock.h"

int hp_hub_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    int error = pthread_condattr_init(&attributes);

    if (error != 0) {
        return error;
    }
    error = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    error = error == 0 ? pthread_cond_init(cond, &attributes) : error;
    (void)pthread_condattr_destroy(&attributes);
    return error;
}

static void lock(pthread_mutex_t *mutex)
{
    int error = pthread_mutex_lock(mutex);

    HP_ASSERT(error == 0);
}

static void unlock(pthread_mutex_t *mutex)
{
    int error = pthread_mutex_unlock(mutex);

    HP_ASSERT(error == 0);
}

static void set_busy(struct hp_hub *hub)
{
    lock(&hub->queue_lock);
    hub->busy = true;
    unlock(&hub->queue_lock);
}

static void kick_fd(int fd)
{
    uint64_t one = 1;

    (void)!write(fd, &one, sizeof(one)); /* full means that it is readable already */
}

void hp_hub_kick(struct hp_hub *hub)
{
    if (hub->polling) {
        kick_fd(hub->wake_fds[hub->leader_is_thread ? 0 : 1]);
    }
}

/* What a forked child has to close, and threads without the lock want to know. */
static void publish(struct hp_hub *hub)
{
    struct hp_client *client = hub->client;
    struct stat info;

    atomic_store(&hub->connected, hp_engine_is_open(client->engine));
    if (client->fd != atomic_load(&hub->socket_fd)) {
        atomic_store(&hub->socket_inode,
                     client->fd >= 0 && fstat(client->fd, &info) == 0 ? info.st_ino : 0);
        atomic_store(&hub->socket_fd, client->fd);
    }
}

/*
 * Takes what is in the queue and sends it, until there is nothing more to do. Ends being busy: who
 * comes later must look after its submit itself (I1). Only leaders connect: that may take long.
 */
static void settle(struct hp_hub *hub, bool always)
{
    struct hp_client *client = hub->client;
    bool moved = always;
    bool done = false;

    while (!done) {
        moved = hp_hub_drain(hub) || hub->dirty || moved;
        hub->dirty = false;
        if (moved && (always || hp_engine_is_open(client->engine))) {
            (void)hp_client_process(client, 0); /* troubles are told as events, and by waits */
        }
        moved = false;
        lock(&hub->queue_lock);
        done = hp_list_is_empty(&hub->queue) || !hp_engine_has_room(client->engine);
        if (done) {
            hub->busy = false;
            hub->unacknowledged = hp_engine_unacknowledged(client->engine);
        }
        unlock(&hub->queue_lock);
    }
    publish(hub);
}

/* Does the polling leader wait for less than what is to be waited for now? */
static bool leader_is_wrong(struct hp_hub *hub)
{
    int timeout_ms;

    if (!hub->polling) {
        return false;
    }
    if (hp_hub_has_ends(hub) || hub->client->fd != hub->poll_fd ||
        (hp_client_wants(hub->client) & ~hub->poll_wants) != 0) {
        return true;
    }
    timeout_ms = hp_client_timeout_ms(hub->client);
    return timeout_ms >= 0 && hp_clock_mono_ms() + (uint64_t)timeout_ms < hub->poll_until_ms;
}

void hp_hub_enter(struct hp_hub *hub)
{
    lock(&hub->lock);
    set_busy(hub);
}

void hp_hub_leave(struct hp_hub *hub)
{
    settle(hub, false);
    if (leader_is_wrong(hub)) {
        hp_hub_kick(hub);
    }
    unlock(&hub->lock);
}

static void sleep_on(struct hp_hub *hub, pthread_cond_t *cond, uint64_t until_ms)
{
    struct timespec until;

    settle(hub, false);
    if (leader_is_wrong(hub)) {
        hp_hub_kick(hub);
    }
    if (until_ms == HP_ENGINE_NEVER) {
        (void)pthread_cond_wait(cond, &hub->lock);
    } else {
        until = (struct timespec){.tv_sec = (time_t)(until_ms / 1000),
                                  .tv_nsec = (long)(until_ms % 1000) * 1000000};
        (void)pthread_cond_timedwait(cond, &hub->lock, &until); /* callers look at the time */
    }
    set_busy(hub);
}

/* ---------------------------------------------------------------- leading */

static unsigned events_of(const struct pollfd *poll_fd)
{
    unsigned ready = 0;

    ready |= (poll_fd->revents & (POLLIN | POLLERR | POLLHUP)) != 0 ? HP_IO_READ : 0;
    ready |= (poll_fd->revents & POLLOUT) != 0 ? HP_IO_WRITE : 0;
    return ready;
}

/* Polls without the lock. *ret_ready: what the socket is ready for. */
static bool poll_unlocked(struct hp_hub *hub, uint64_t until_ms, unsigned *ret_ready)
{
    int wake_fd = hub->wake_fds[hub->leader_is_thread ? 0 : 1];
    struct hp_client *client = hub->client;
    uint64_t now_ms = hp_clock_mono_ms();
    int timeout_ms = hp_client_timeout_ms(client);
    struct pollfd fds[2] = {{.fd = wake_fd, .events = POLLIN}, {.fd = client->fd}};
    bool interrupted = false;
    uint64_t count;

    /* It reads even if events wait: somebody may need an answer. */
    hub->poll_wants = hp_client_wants(client) | HP_IO_READ;
    fds[1].events = client->connecting ? POLLOUT : POLLIN;
    if ((hub->poll_wants & HP_IO_WRITE) != 0) {
        fds[1].events |= POLLOUT;
    }
    until_ms = HP_MIN(until_ms, now_ms + HP_HUB_POLL_MS);
    if (timeout_ms < 0 || now_ms + (uint64_t)timeout_ms > until_ms) {
        timeout_ms = until_ms <= now_ms ? 0 : (int)(until_ms - now_ms);
    }
    hub->poll_fd = client->fd;
    hub->poll_until_ms = now_ms + (uint64_t)timeout_ms;
    hub->polling = true;
    unlock(&hub->lock);
    if (poll(fds, client->fd < 0 ? 1 : 2, timeout_ms) < 0) {
        interrupted = errno == EINTR;
        fds[0].revents = 0;
        fds[1].revents = 0;
    }
    if (fds[0].revents != 0) {
        (void)!read(wake_fd, &count, sizeof(count));
    }
    hp_hub_enter(hub);
    *ret_ready = fds[1].fd == client->fd ? events_of(&fds[1]) : 0;
    return !interrupted;
}

static bool lead(struct hp_hub *hub, uint64_t until_ms, bool is_thread)
{
    void *self = hp_hub_self();
    unsigned ready = 0;
    bool whole = true;

    hub->leader = self;
    hub->leader_is_thread = is_thread;
    settle(hub, true);
    if (hp_hub_has_ends(hub)) {
        set_busy(hub);
    } else {
        whole = poll_unlocked(hub, until_ms, &ready);
        if (hub->leader != self) {
            return whole; /* I2: another thread waits, and pumps itself */
        }
        hub->polling = false;
        (void)hp_client_process(hub->client, ready);
    }
    hub->turns++;
    hp_hub_deliver(hub);
    if (hub->followers > 0) {
        (void)pthread_cond_broadcast(&hub->turned);
    }
    return whole;
}

bool hp_hub_turn(struct hp_hub *hub, uint64_t until_ms, bool is_thread)
{
    void *self = hp_hub_self();

    if (hub->leader != NULL && hub->leader != self) {
        if (!is_thread && hub->leader_is_thread && hub->polling) {
            hp_hub_kick(hub); /* I2 */
            hub->polling = false;
            hub->leader = NULL;
        } else {
            hub->followers++;
            sleep_on(hub, &hub->turned, until_ms);
            hub->followers--;
            return true;
        }
    }
    return lead(hub, until_ms, is_thread);
}

/* ---------------------------------------------------------------- waiting */

/* Between these two the thread counts as waiting. */
static bool wait_begin(struct hp_hub *hub)
{
    hp_hub_enter(hub);
    hub->waiters++;
    return hub->leader == hp_hub_self();
}

static void wait_end(struct hp_hub *hub, bool was_leader)
{
    hub->waiters--;
    hub->last_wait_ms = hp_clock_mono_ms();
    if (hub->leader == hp_hub_self() && !was_leader) {
        hub->leader = NULL;
        if (hub->followers > 0) {
            (void)pthread_cond_broadcast(&hub->turned);
        }
    }
    if (hub->deep && hub->waiters == 0) {
        (void)pthread_cond_signal(&hub->standby);
    }
    hp_hub_leave(hub);
}

/* The broker refused this client from the start, and will each time: who waits would do so in
 * vain. Once a session was open its tasks exist, so it is worth waiting for the broker to change
 * its mind. */
static bool is_refused(const struct hp_hub *hub)
{
    const struct hp_client *client = hub->client;
    const char *text;

    return hp_engine_server(client->engine) == NULL &&
           hp_socket_lasting_trouble(client, &text) != HP_STATUS_OK;
}

enum hp_status hp_hub_trouble(struct hp_hub *hub)
{
    enum hp_status status = hp_hub_check(hub);
    const char *text;

    if (status != HP_STATUS_OK) {
        return status;
    }
    hp_hub_enter(hub);
    status = hp_engine_trouble(hub->client->engine, &text);
    if (status != HP_STATUS_OK) {
        (void)hp_hub_fail(status, text);
    }
    hp_hub_leave(hub);
    return status;
}

enum hp_status hp_hub_late(struct hp_hub *hub)
{
    enum hp_status status = hp_hub_trouble(hub);
    const char *busy;

    if (status != HP_STATUS_OK) {
        return status;
    }
    hp_hub_enter(hub);
    busy = hp_engine_busy(hub->client->engine);
    status = busy != NULL ? hp_hub_fail(HP_STATUS_BUSY, busy)
                          : hp_hub_fail(HP_STATUS_TIMEOUT, "no answer in time");
    hp_hub_leave(hub);
    return status;
}

bool hp_hub_wait(struct hp_hub *hub, bool (*done)(void *arg), void *arg, int64_t timeout_ms)
{
    bool good = done(arg);
    int error = ETIMEDOUT;
    bool looked = false;
    bool was_leader;
    uint64_t until_ms;

    if (good) {
        return true;
    }
    if (hp_hub_check(hub) != HP_STATUS_OK) {
        errno = ECANCELED;
        return false;
    }
    until_ms = hp_hub_until_ms(hub, timeout_ms);
    was_leader = wait_begin(hub);
    for (;;) {
        uint64_t turns = hub->turns;
        bool whole;

        hp_hub_leave(hub);
        good = done(arg);
        hp_hub_enter(hub);
        if (good || (looked && hp_clock_mono_ms() >= until_ms)) {
            break;
        }
        if (atomic_load(&hub->stop)) {
            error = ECANCELED;
            break;
        }
        if (is_refused(hub) && looked) {
            error = EACCES;
            break;
        }
        if (hub->turns != turns) {
            continue; /* something happened meanwhile */
        }
        looked = true;
        /* Who is refused waits for nothing, but each wait pumps once: a program that waits in a
         * loop keeps the hub's own thread asleep, which would connect anew. */
        whole = hp_hub_turn(hub, is_refused(hub) ? 0 : until_ms, false);
        if (!whole) {
            error = EINTR;
            break;
        }
    }
    wait_end(hub, was_leader);
    if (!good && error == EINTR) {
        good = done(arg);
    }
    errno = good ? errno : error;
    return good;
}

void hp_hub_wake(struct hp_hub *hub)
{
    if (hp_hub_check(hub) != HP_STATUS_OK) {
        return;
    }
    hp_hub_enter(hub);
    hub->turns++;
    if (hub->followers > 0) {
        (void)pthread_cond_broadcast(&hub->turned);
    }
    hp_hub_kick(hub);
    hp_hub_leave(hub);
}

/* ---------------------------------------------------------------- blocking calls */

/* How the client waits in a blocking call; it holds the lock. */
static enum hp_status pump(struct hp_client *client, uint64_t deadline_ms)
{
    struct hp_hub *hub = client->hub;
    enum hp_status status = hp_client_process(client, 0);

    if (status != HP_STATUS_OK) {
        return status;
    }
    if (hp_clock_mono_ms() >= deadline_ms) {
        return hp_client_late(client);
    }
    if (atomic_load(&hub->stop)) {
        return hp_client_fail(client, HP_STATUS_STOPPED, "the hub is stopped");
    }
    (void)hp_hub_turn(hub, deadline_ms, false);
    return hp_client_process(client, 0);
}

enum hp_status hp_hub_call(struct hp_hub *hub, enum hp_status (*call)(struct hp_client *, void *),
                           void *arg)
{
    enum hp_status status = hp_hub_check(hub);
    bool was_leader;

    if (status != HP_STATUS_OK) {
        return status;
    }
    was_leader = wait_begin(hub);
    hub->client->hub = hub;
    hub->client->pump = pump;
    hub->client->error_text[0] = '\0';
    status = call(hub->client, arg);
    if (status != HP_STATUS_OK) {
        (void)hp_hub_fail(status, hp_client_error(hub->client));
    }
    wait_end(hub, was_leader);
    return status;
}

struct flush {
    struct hp_hub *hub;
};

static bool is_flushed(void *arg)
{
    struct hp_hub *hub = ((struct flush *)arg)->hub;
    bool flushed;

    lock(&hub->queue_lock);
    flushed = hp_list_is_empty(&hub->queue) && hub->unacknowledged == 0 && !hub->busy;
    unlock(&hub->queue_lock);
    return flushed;
}

bool hp_hub_flush(struct hp_hub *hub, int64_t timeout_ms)
{
    struct flush flush = {.hub = hub};

    return hp_hub_wait(hub, is_flushed, &flush, timeout_ms);
}

/* ---------------------------------------------------------------- the hub's own thread */

void *hp_hub_main(void *context)
{
    struct hp_hub *hub = context;

    hp_hub_enter(hub);
    while (!atomic_load(&hub->stop)) {
        uint64_t now_ms = hp_clock_mono_ms();

        if (hub->leader == hp_hub_self() && hub->waiters > 0) {
            hub->leader = NULL;
            if (hub->followers > 0) {
                (void)pthread_cond_broadcast(&hub->turned);
            }
        }
        if (now_ms < hub->last_wait_ms + HP_HUB_STANDBY_MS) {
            /* Not deep while one short wait follows another, lest each wakes this thread. */
            sleep_on(hub, &hub->standby, hub->last_wait_ms + HP_HUB_STANDBY_MS);
        } else if (hub->waiters > 0) {
            hub->deep = true;
            sleep_on(hub, &hub->standby, HP_ENGINE_NEVER);
            hub->deep = false;
        } else {
            (void)hp_hub_turn(hub, now_ms + HP_HUB_POLL_MS, true);
        }
    }
    if (hub->leader == hp_hub_self()) {
        hub->leader = NULL;
    }
    hp_hub_leave(hub);
    return NULL;
}
