/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Content in descriptors: results that children leave in memory files, and payloads that a broker
 * on this host lends. The daemon holds them for as long as the agent wants and touches none of the
 * bytes, but for the digest of what comes from the broker's disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <xxhash.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/sys/file.h"
#include "common/sys/log.h"
#include "common/sys/near.h"
#include "common/sys/proc.h"
#include "worker/daemon.h"

#define FDS_DEFAULT 1024u
#define CHUNK_BYTES ((size_t)256 << 10)

HP_STATIC_ASSERT(HP_AGENT_NEAR_KEY_BYTES == HP_NEAR_KEY_BYTES, "the agent has the same keys");

/* --------------------------------------------------------------------------------------- files */

void hp_worker_near_init(struct hp_worker *worker)
{
    uint64_t limit = 0;
    if (hp_proc_raise_nofile(0, &limit) != HP_OK) { /* only asks: children inherit it */
        limit = FDS_DEFAULT;
    }
    worker->fd_max =
        (uint32_t)(HP_MIN(limit, (uint64_t)UINT32_MAX) / 4); /* others need some, too */
}

static void close_fd(struct hp_worker_file *file)
{
    if (file->fd >= 0) {
        hp_fd_close(&file->fd);
        file->worker->fd_count--;
    }
}

static void free_file(struct hp_agent_file *base)
{
    struct hp_worker_file *file = HP_CONTAINER_OF(base, struct hp_worker_file, base);
    hp_near_unmap(file->data, file->size);
    close_fd(file);
    hp_free(file);
}

/* Takes the descriptor over. */
static struct hp_worker_file *new_file(struct hp_worker *worker, int fd, uint64_t size)
{
    struct hp_worker_file *file = hp_alloc(sizeof *file);
    HP_ASSERT(file != NULL); /* as for the event that it goes with */
    *file = (struct hp_worker_file){
        .base = {.free = free_file}, .worker = worker, .fd = fd, .size = (size_t)size};
    worker->fd_count++;
    return file;
}

int hp_worker_file_fd(const struct hp_agent_file *base)
{
    const struct hp_worker_file *file = (const struct hp_worker_file *)base; /* its first */
    return file->fd;
}

/* Reads on in a file and says how far it came; 0: its end, -1: an errno. */
typedef ssize_t reader(int fd, struct iovec *part, off_t at);

static ssize_t read_any(int fd, struct iovec *part, off_t at)
{
    return preadv(fd, part, 1, at);
}

/* Only what is in memory: a turn of the daemon must not wait for a disk. */
static ssize_t read_cached(int fd, struct iovec *part, off_t at)
{
    ssize_t got = preadv2(fd, part, 1, at, RWF_NOWAIT);
    return got < 0 && errno == EOPNOTSUPP ? read_any(fd, part, at) : got;
}

/* Passes the first `size` bytes on piece by piece. HP_ERR_CORRUPT: there are fewer. */
static enum hp_err read_through(int fd, uint64_t size, reader *read_some,
                                enum hp_err (*take)(void *context, const void *data, size_t size),
                                void *context)
{
    HP_CLEANUP(hp_free_ptr) uint8_t *room = hp_alloc(CHUNK_BYTES);
    enum hp_err err = room == NULL ? HP_ERR_NOMEM : HP_OK;
    for (uint64_t at = 0; at < size && err == HP_OK;) {
        struct iovec part = {.iov_base = room,
                             .iov_len = (size_t)HP_MIN(size - at, (uint64_t)CHUNK_BYTES)};
        ssize_t got = read_some(fd, &part, (off_t)at);
        if (got <= 0) {
            return got == 0 ? HP_ERR_CORRUPT : hp_err_of_errno(errno);
        }
        err = take(context, room, (size_t)got);
        at += (uint64_t)got;
    }
    return err;
}

/* ------------------------------------------------------------------------------------- results */

static enum hp_err write_on(void *context, const void *data, size_t size)
{
    return hp_fd_write_all(*(const int *)context, data, size);
}

/* From now on it can not become shorter under a mapping. False: it can, or is too short. */
static bool hold_size(int fd, uint64_t size)
{
    struct stat facts;
    (void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK); /* looked at below */
    int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK) != 0 && fstat(fd, &facts) == 0 &&
           (uint64_t)facts.st_size >= size;
}

/* Private: a shared mapping would be one more reason why it can not be sealed. */
static bool map_file(struct hp_worker_file *file)
{
    void *wanted =
        (void *)(uintptr_t)file->data; /* NULL: anywhere; else in place of what is there */
    int flags = MAP_PRIVATE | (wanted != NULL ? MAP_FIXED : 0);
    void *data = mmap(wanted, file->size, PROT_READ, flags, file->fd, 0);
    if (data == MAP_FAILED) {
        return false;
    }
    file->data = data;
    return true;
}

struct hp_worker_file *hp_worker_file_of_result(struct hp_worker *worker, int fd, uint64_t size)
{
    struct hp_worker_file *file = new_file(worker, fd, size);
    if (!hold_size(fd, size)) { /* the child's own file, or one that it was given */
        HP_CLEANUP(hp_fd_close) int copy = -1;
        enum hp_err err = hp_near_create(&copy);
        err = err == HP_OK ? read_through(fd, size, read_any, write_on, &copy) : err;
        if (err != HP_OK || !hold_size(copy, size)) {
            free_file(&file->base);
            return NULL;
        }
        hp_fd_close(&file->fd);
        file->fd = copy;
        copy = -1; /* the file's */
    }
    if (!map_file(file)) {
        free_file(&file->base);
        return NULL;
    }
    if (worker->fd_count > worker->fd_max) {
        close_fd(file); /* the mapping does, for the other way */
    }
    return file;
}

/* Puts a copy in its place, sealed: the child maps it still, or it was sealed for another
 * connection. The agent's view of it stays. */
static enum hp_err replace(struct hp_worker_file *file, const uint8_t *key)
{
    struct hp_worker *worker = file->worker;
    if (file->fd < 0 && worker->fd_count >= worker->fd_max) {
        return HP_ERR_BUSY;
    }
    HP_CLEANUP(hp_fd_close) int copy = -1;
    enum hp_err err = hp_near_create(&copy);
    err = err == HP_OK ? hp_fd_write_all(copy, file->data, file->size) : err;
    err = err == HP_OK ? hp_near_seal(copy, file->size, key) : err;
    if (err != HP_OK) {
        return err;
    }
    close_fd(file);
    file->fd = copy;
    worker->fd_count++;
    copy = -1;                    /* the file's */
    bool mapped = map_file(file); /* an address that is mapped, and no larger */
    HP_ASSERT(mapped);
    return HP_OK;
}

void hp_worker_near_seal(struct hp_worker *worker, const struct hp_agent_effect *effect)
{
    struct hp_worker_file *file = HP_CONTAINER_OF(effect->file, struct hp_worker_file, base);
    enum hp_err err = HP_ERR_CLOSED;
    if (file->fd >= 0) {
        err = hp_near_check(file->fd, effect->size, effect->near_key); /* given again */
        err = err == HP_OK ? err : hp_near_seal(file->fd, effect->size, effect->near_key);
    }
    err = err == HP_OK ? err : replace(file, effect->near_key);
    struct hp_near_place place = {0};
    err = err == HP_OK ? hp_near_place_of(file->fd, &place) : err;
    if (err != HP_OK) {
        hp_log(HP_LOG_DEBUG, "not_sealed", HP_KV_U64("bytes", effect->size),
               HP_KV_ERR("error", err));
    }
    struct hp_agent_event *event = hp_worker_feed_add(worker, HP_AGENT_NEAR_SEALED);
    event->key = effect->key;
    event->ticket = effect->ticket;
    event->on = err == HP_OK;
    event->place = (struct hp_agent_place){
        .pid = place.pid, .fd = place.fd, .device = place.device, .inode = place.inode};
}

/* ------------------------------------------------------------------------------------ payloads */

static enum hp_err hash_on(void *context, const void *data, size_t size)
{
    (void)XXH3_64bits_update(context, data, size); /* fails only without a state */
    return HP_OK;
}

/* HP_ERR_AGAIN: not all of it is in memory. */
static enum hp_err check_digest(int fd, const struct hp_agent_effect *effect)
{
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) {
        return HP_ERR_AGAIN;
    }
    (void)XXH3_64bits_reset(state); /* fails only without a state */
    enum hp_err err = read_through(fd, effect->size, read_cached, hash_on, state);
    if (err == HP_OK && XXH3_64bits_digest(state) != effect->digest) {
        err = HP_ERR_CORRUPT;
    }
    (void)XXH3_freeState(state);
    return err;
}

static enum hp_err open_payload(const struct hp_agent_effect *effect, int *ret_fd)
{
    struct hp_near_place place = {.pid = effect->place.pid,
                                  .fd = effect->place.fd,
                                  .device = effect->place.device,
                                  .inode = effect->place.inode};
    HP_CLEANUP(hp_fd_close) int fd = -1;
    struct stat facts;
    enum hp_err err = hp_near_open(&place, &fd);
    if (err == HP_OK && (fstat(fd, &facts) != 0 || (uint64_t)facts.st_size < effect->size)) {
        err = HP_ERR_CORRUPT;
    }
    if (err == HP_OK && effect->has_digest) {
        err = check_digest(fd, effect);
    }
    if (err == HP_OK) {
        *ret_fd = fd;
        fd = -1; /* the caller's */
    }
    return err;
}

void hp_worker_near_open(struct hp_worker *worker, const struct hp_agent_effect *effect)
{
    int fd = -1;
    enum hp_err err = worker->fd_count < worker->fd_max ? open_payload(effect, &fd) : HP_ERR_AGAIN;
    if (err != HP_OK) {
        hp_log(HP_LOG_DEBUG, "not_opened", HP_KV_U64("bytes", effect->size),
               HP_KV_ERR("error", err));
    }
    struct hp_agent_event *event = hp_worker_feed_add(worker, HP_AGENT_NEAR_OPENED);
    event->key = effect->key;
    event->pool = effect->pool;
    event->ticket = effect->ticket;
    event->on = err == HP_OK || err == HP_ERR_AGAIN;
    event->file = err == HP_OK ? &new_file(worker, fd, effect->size)->base : NULL;
}

void hp_worker_near_prove(struct hp_worker *worker, const struct hp_agent_effect *effect)
{
    enum hp_err err = hp_near_proof_check(effect->place.pid, effect->place.fd, effect->near_key);
    struct hp_agent_event *event = hp_worker_feed_add(worker, HP_AGENT_NEAR_PROVED);
    event->ticket = effect->ticket;
    event->on = err == HP_OK;
}
