/* SPDX-License-Identifier: BSD-2-Clause */
/* The hub: making, ending, fork, and what needs no file of its own. */
#include "client/hub.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/hub_state.h"
#include "client/socket.h"
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"

/* Staged payloads count against the client's window, and those of a hub may be large. */
#define WINDOW_BYTES (64u << 20)

/* So often this process was forked, as its generation: a hub of an earlier one is dead here. */
static atomic_uint fork_count;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static int fork_error;
static _Thread_local char error_text[HP_CLIENT_TEXT_BYTES];
static _Thread_local char self_marker;

static void count_fork(void)
{
    (void)atomic_fetch_add(&fork_count, 1);
}

static void watch_forks(void)
{
    fork_error = pthread_atfork(NULL, NULL, count_fork);
}

void *hp_hub_self(void)
{
    return &self_marker;
}

enum hp_status hp_hub_fail(enum hp_status status, const char *text)
{
    (void)snprintf(error_text, sizeof(error_text), "%s",
                   text != NULL && text[0] != '\0' ? text : hp_strerror(status));
    return status;
}

const char *hp_hub_error(const struct hp_hub *hub)
{
    (void)hub;
    return error_text;
}

uint64_t hp_hub_until_ms(const struct hp_hub *hub, int64_t timeout_ms)
{
    return hp_client_deadline_ms(hub->client, timeout_ms);
}

/* ---------------------------------------------------------------- the thread */

static enum hp_status start_thread(struct hp_hub *hub)
{
    sigset_t all;
    sigset_t old;
    int error = 0;

    (void)pthread_mutex_lock(&hub->queue_lock); /* fails only if it is held by this thread */
    if (!atomic_load(&hub->started)) {
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &old);
        error = pthread_create(&hub->thread, NULL, hp_hub_main, hub);
        (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
        atomic_store(&hub->started, error == 0);
    }
    (void)pthread_mutex_unlock(&hub->queue_lock);
    return error == 0 ? HP_STATUS_OK : hp_hub_fail(HP_STATUS_SYSTEM, strerror(error));
}

enum hp_status hp_hub_check(struct hp_hub *hub)
{
    if (hub->client == NULL || hub->client->engine == NULL) {
        return hp_hub_fail(HP_STATUS_BAD_ARGUMENT, "the hub's options were bad");
    }
    if (hub->fork_count != atomic_load_explicit(&fork_count, memory_order_relaxed)) {
        return hp_hub_fail(HP_STATUS_STOPPED, "the hub is the parent's: hp_hub_after_fork");
    }
    if (!atomic_load_explicit(&hub->started, memory_order_acquire)) {
        return start_thread(hub);
    }
    return HP_STATUS_OK;
}

/* ---------------------------------------------------------------- life */

/* A payload that the engine does not need any more. */
static void on_release(struct hp_release *release, void *user)
{
    struct hp_hub *hub = HP_CONTAINER_OF(release, struct hp_hub, release);
    struct hp_hub_block *block = user;

    if (hub->callbacks.released != NULL) {
        block->left++; /* pinned */
        hp_list_push_back(&hub->released, &block->release_link);
    }
    hp_buf_deinit(&block->bytes);
}

static enum hp_status copy_string(const char **string)
{
    if (*string == NULL) {
        return HP_STATUS_OK;
    }
    *string = hp_strdup(*string);
    return *string == NULL ? HP_STATUS_NO_MEMORY : HP_STATUS_OK;
}

static enum hp_status copy_options(struct hp_hub *hub, const struct hp_client_options *options)
{
    struct hp_client_options *copy = &hub->client_options;
    enum hp_status status;

    hp_client_options_init(copy);
    if (options != NULL) {
        *copy = *options;
    }
    copy->window_bytes = HP_MAX(copy->window_bytes, WINDOW_BYTES);
    status = copy_string(&copy->host);
    status |= copy_string(&copy->token);
    status |= copy_string(&copy->token_file);
    status |= copy_string(&copy->name);
    return status == HP_STATUS_OK ? status : HP_STATUS_NO_MEMORY;
}

/* All that a fork leaves in an unknown state. */
static enum hp_status init_state(struct hp_hub *hub)
{
    hub->leader = NULL;
    atomic_store(&hub->deliverer, NULL);
    atomic_store(&hub->started, false);
    atomic_store(&hub->stop, false);
    atomic_store(&hub->outstanding, 0);
    atomic_store(&hub->connected, false);
    atomic_store(&hub->socket_fd, -1);
    hub->polling = false;
    hub->waiters = 0;
    hub->followers = 0;
    hub->deep = false;
    hub->dirty = false;
    hub->last_wait_ms = 0;
    hub->room_waiters = 0;
    hub->busy = false;
    hub->unacknowledged = 0;
    hub->queue_tasks = 0;
    hub->queue_bytes = 0;
    hub->last_options = NULL;
    hp_list_init(&hub->blocks);
    hp_list_init(&hub->failed);
    hp_list_init(&hub->fetches);
    hp_list_init(&hub->fetched);
    hp_list_init(&hub->released);
    hp_list_init(&hub->queue);
    hub->release.release = on_release;
    hub->fork_count = atomic_load(&fork_count);
    if (pthread_mutex_init(&hub->lock, NULL) != 0 ||
        pthread_mutex_init(&hub->queue_lock, NULL) != 0 || hp_hub_cond_init(&hub->turned) != 0 ||
        hp_hub_cond_init(&hub->standby) != 0 || hp_hub_cond_init(&hub->room) != 0) {
        return HP_STATUS_SYSTEM;
    }
    for (int i = 0; i < 2; i++) {
        hub->wake_fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (hub->wake_fds[i] < 0) {
            return hp_hub_fail(HP_STATUS_SYSTEM, "eventfd: no file descriptor");
        }
    }
    return HP_STATUS_OK;
}

enum hp_status hp_hub_new(const struct hp_client_options *options,
                          const struct hp_hub_callbacks *callbacks, void *context,
                          struct hp_hub **ret_hub)
{
    struct hp_hub *hub = hp_calloc(1, sizeof(*hub));
    enum hp_status status;

    *ret_hub = NULL;
    if (hub == NULL) {
        return hp_hub_fail(HP_STATUS_NO_MEMORY, "out of memory");
    }
    HP_ASSERT(callbacks->ended != NULL);
    (void)pthread_once(&fork_once, watch_forks); /* fails only for a bad argument */
    hub->callbacks = *callbacks;
    hub->context = context;
    hub->wake_fds[0] = -1;
    hub->wake_fds[1] = -1;
    status = copy_options(hub, options);
    status = status == HP_STATUS_OK && fork_error != 0 ? HP_STATUS_NO_MEMORY : status;
    status = status == HP_STATUS_OK ? init_state(hub) : status;
    if (status != HP_STATUS_OK) {
        hp_hub_free(hub);
        return hp_hub_fail(status, NULL);
    }
    *ret_hub = hub;
    status = hp_client_new(&hub->client_options, &hub->client);
    hub->client_options.session = NULL; /* only for the first */
    return status == HP_STATUS_OK
               ? status
               : hp_hub_fail(status, hub->client != NULL ? hp_client_error(hub->client) : NULL);
}

static void close_fds(struct hp_hub *hub)
{
    for (int i = 0; i < 2; i++) {
        if (hub->wake_fds[i] >= 0) {
            (void)close(hub->wake_fds[i]); /* nothing can be done about an error */
        }
        hub->wake_fds[i] = -1;
    }
}

/*
 * In a child: the parent's client may be in the middle of anything, so it is left alone (and its
 * memory lost); only its socket is closed, lest the broker never sees the parent go.
 */
static void drop_parents(struct hp_hub *hub)
{
    int fd = atomic_load(&hub->socket_fd);
    struct stat info;

    if (fd >= 0 && fstat(fd, &info) == 0 && info.st_ino == atomic_load(&hub->socket_inode)) {
        (void)close(fd);
    }
    close_fds(hub);
    hub->client = NULL;
}

static void stop_thread(struct hp_hub *hub)
{
    atomic_store(&hub->stop, true);
    if (atomic_load(&hub->started)) {
        hp_hub_enter(hub);
        (void)pthread_cond_broadcast(&hub->standby);
        (void)pthread_cond_broadcast(&hub->turned);
        hp_hub_kick(hub);
        hp_hub_leave(hub);
        (void)pthread_join(hub->thread, NULL); /* fails only for a thread that is none */
    }
}

void hp_hub_free(struct hp_hub *hub)
{
    if (hub == NULL) {
        return;
    }
    if (hub->fork_count != atomic_load(&fork_count)) {
        drop_parents(hub);
    } else if (hub->client != NULL && hub->client->engine != NULL) {
        stop_thread(hub);
        hp_client_free(hub->client);
        hp_hub_ends_clear(hub);
        hp_hub_options_unref(hub->last_options);
    } else {
        hp_client_free(hub->client);
    }
    close_fds(hub);
    /* Copies; the type has them const for those who fill it in. */
    hp_free((void *)(uintptr_t)hub->client_options.host);
    hp_free((void *)(uintptr_t)hub->client_options.token);
    hp_free((void *)(uintptr_t)hub->client_options.token_file);
    hp_free((void *)(uintptr_t)hub->client_options.name);
    hp_free(hub);
}

enum hp_status hp_hub_after_fork(struct hp_hub *hub)
{
    enum hp_status status;

    if (hub->fork_count == atomic_load(&fork_count)) {
        return HP_STATUS_OK;
    }
    drop_parents(hub);
    status = init_state(hub);
    if (status == HP_STATUS_OK) {
        status = hp_client_new(&hub->client_options, &hub->client);
    }
    return status == HP_STATUS_OK ? status : hp_hub_fail(status, NULL);
}

/* ---------------------------------------------------------------- small things */

void hp_hub_forget(struct hp_hub *hub, const struct hp_ids *ids, size_t id_count)
{
    if (id_count == 0 || hp_hub_check(hub) != HP_STATUS_OK) {
        return;
    }
    hp_hub_enter(hub);
    (void)hp_forget(hub->client, ids, id_count); /* a hint */
    hub->dirty = true;
    hp_hub_leave(hub);
}

uint64_t hp_hub_outstanding(const struct hp_hub *hub)
{
    return atomic_load(&hub->outstanding);
}

bool hp_hub_connected(const struct hp_hub *hub)
{
    return atomic_load(&hub->connected);
}

const char *hp_hub_host(const struct hp_hub *hub)
{
    return hub->client == NULL ? "?" : hp_client_host(hub->client);
}
