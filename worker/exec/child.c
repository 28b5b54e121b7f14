/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The main loop of a function child: claim, run, publish; sleep when there is nothing to claim. No
 * system call per call while there is work, but for the clock where that is one. A result is in
 * shared memory before the next call is claimed, so whatever the next one does to the process, it
 * stands.
 */
#include "worker/exec/child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/sys/clock.h"
#define HP_WORKER_INTERNAL
#include "worker/sdk/hostpool_worker.h"

#define PENDING_FDS_MAX 64u
#define RSS_LOOK_US 10000u

enum { AWAKE = 0, SLEEPS_FOR_CALLS = 1, SLEEPS_FOR_ROOM = 2 };

struct pending_fd {
    uint64_t id;
    int fd;
};

struct child {
    const struct hp_child_config *config;
    struct hp_child_page *page;
    uint64_t call_tail;
    uint64_t result_head;
    uint64_t result_fd_id; /* last id used */
    uint64_t now_us;       /* end of the last call, if nothing was waited for since; else 0 */
    uint64_t rss_at_us;
    int statm_fd;
    bool has_unbelled; /* results were published since the last bell */
    struct pending_fd pending[PENDING_FDS_MAX];
    uint32_t pending_count;
    /* the call that runs */
    uint32_t status;
    uint64_t retry_ms;
    bool is_too_big;
    uint8_t *result; /* scratch or map */
    size_t result_bytes;
    int result_fd;
    uint8_t *map;
    size_t text_bytes;
    char text[HP_CHILD_TEXT_BYTES_MAX];
    uint8_t scratch[HP_EXEC_INLINE_BYTES_MAX];
};

/* ---------------------------------------------------------------- the socket */

__attribute__((noreturn)) static void quit(struct child *child)
{
    hp_modules_fini_child(child->config->modules);
    (void)fflush(NULL);
    _exit(0);
}

/* Takes one message; ends the process when the daemon says so or is gone. */
static void receive(struct child *child)
{
    struct hp_bell bell;
    int fd;
    int got = hp_bell_receive(child->config->socket_fd, &bell, &fd, true);
    if (got < 0) {
        _exit(0); /* the daemon is gone: nobody wants the results */
    }
    if (bell.type == HP_BELL_QUIT) {
        quit(child);
    }
    if (bell.type == HP_BELL_FD && fd >= 0 && child->pending_count < PENDING_FDS_MAX) {
        child->pending[child->pending_count++] = (struct pending_fd){.id = bell.fd_id, .fd = fd};
    } else if (fd >= 0) {
        (void)close(fd);
    }
    child->now_us = 0;
}

static void ring_bell(struct child *child)
{
    struct hp_bell bell = {.type = HP_BELL_RING};
    child->has_unbelled = false;
    (void)atomic_exchange(&child->page->daemon_armed, 0);
    if (hp_bell_send(child->config->socket_fd, &bell, -1, true) != 0) {
        _exit(0);
    }
}

/* The descriptor with this id; those with lower ids belong to calls that were taken back. */
static int take_fd(struct child *child, uint64_t id)
{
    for (;;) {
        uint32_t kept = 0;
        int found = -1;
        for (uint32_t i = 0; i < child->pending_count; i++) {
            struct pending_fd *entry = &child->pending[i];
            if (entry->id == id) {
                found = entry->fd;
            } else if (entry->id < id) {
                (void)close(entry->fd);
            } else {
                child->pending[kept++] = *entry;
            }
        }
        child->pending_count = kept;
        if (found >= 0) {
            return found;
        }
        receive(child);
    }
}

/* ---------------------------------------------------------------- what the function calls */

static void drop_result(struct child *child)
{
    if (child->map != NULL) {
        (void)munmap(child->map, child->result_bytes);
        child->map = NULL;
    }
    if (child->result_fd >= 0) {
        (void)close(child->result_fd);
        child->result_fd = -1;
    }
    child->result_bytes = 0;
    child->is_too_big = false;
}

static void *host_result_room(struct hp_call *call, size_t size)
{
    struct child *child = call->opaque;
    drop_result(child);
    if (size > child->config->result_cap_bytes) {
        child->is_too_big = true;
        return NULL;
    }
    if (size <= sizeof child->scratch) {
        child->result_bytes = size;
        child->result = child->scratch;
        return child->result;
    }
    int fd = memfd_create("hp-result", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)size) != 0) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return NULL;
    }
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        (void)close(fd);
        return NULL;
    }
    child->result_fd = fd;
    child->map = map;
    child->result = map;
    child->result_bytes = size;
    return map;
}

static int host_result(struct hp_call *call, const void *data, size_t size)
{
    struct child *child = call->opaque;
    if (data == NULL && size > 0) {
        return -1;
    }
    uint8_t *room = host_result_room(call, size);
    if (room == NULL) {
        /* An over-large result has its own status; the return value still says that it failed. */
        return child->is_too_big ? 1 : -1;
    }
    if (size > 0) {
        memcpy(room, data, size);
    }
    return 0;
}

static int host_fail(struct hp_call *call, uint32_t kind, uint64_t retry_ms, const char *text)
{
    struct child *child = call->opaque;
    child->status = kind == HP_FAIL_RETRY       ? HP_EXEC_CALL_RETRY
                    : kind == HP_FAIL_PERMANENT ? HP_EXEC_CALL_PERMANENT
                                                : HP_EXEC_CALL_ERROR;
    child->retry_ms = retry_ms;
    child->text_bytes = text == NULL ? 0 : HP_MIN(strlen(text), sizeof child->text);
    if (child->text_bytes > 0) {
        memcpy(child->text, text, child->text_bytes);
    }
    return 1;
}

static const struct hp_host host = {.abi = HP_MODULE_ABI,
                                    .size = sizeof(struct hp_host),
                                    .result = host_result,
                                    .result_room = host_result_room,
                                    .fail = host_fail};

/* ---------------------------------------------------------------- results */

/* Where the next record goes; waits for room. */
static uint64_t result_place(struct child *child, uint32_t record_bytes)
{
    struct hp_child_page *page = child->page;
    uint64_t at = 0;
    while (!hp_ring_place(child->result_head, atomic_load(&page->result_tail), record_bytes, &at)) {
        atomic_store(&page->child_sleeps, SLEEPS_FOR_ROOM);
        if (!hp_ring_place(child->result_head, atomic_load(&page->result_tail), record_bytes,
                           &at)) {
            ring_bell(child);
            receive(child);
        }
        atomic_store(&page->child_sleeps, AWAKE);
    }
    return at;
}

static void publish(struct child *child, struct hp_result_record *record, const void *data)
{
    uint8_t *ring = child->config->shared->results;
    record->kind = HP_RING_ITEM;
    record->record_bytes = hp_ring_round(sizeof *record + record->data_bytes);
    uint64_t at = result_place(child, record->record_bytes);
    hp_ring_pad(ring, child->result_head, at);
    memcpy(ring + at % HP_RING_BYTES, record, sizeof *record);
    if (record->data_bytes > 0) {
        memcpy(ring + at % HP_RING_BYTES + sizeof *record, data, record->data_bytes);
    }
    child->result_head = at + record->record_bytes;
    child->has_unbelled = true;
    atomic_store(&child->page->result_head, child->result_head);
    if (atomic_load(&child->page->daemon_armed) != 0) {
        ring_bell(child);
    }
}

static void publish_outcome(struct child *child, uint64_t start_us)
{
    struct hp_result_record record = {.status = child->status,
                                      .retry_ms = child->retry_ms,
                                      .start_us = start_us,
                                      .run_us = child->now_us - start_us};
    const void *data = child->text;
    if (child->is_too_big) {
        record.status = HP_EXEC_CALL_TOO_BIG;
        child->text_bytes = (size_t)snprintf(child->text, sizeof child->text,
                                             "the result is larger than %llu bytes",
                                             (unsigned long long)child->config->result_cap_bytes);
    }
    record.data_bytes = (uint32_t)child->text_bytes;
    if (record.status == HP_EXEC_CALL_OK) {
        record.result_bytes = child->result_bytes;
        record.data_bytes = child->result_fd >= 0 ? 0 : (uint32_t)child->result_bytes;
        data = child->result;
        if (child->result_fd >= 0) {
            record.fd_id = ++child->result_fd_id;
            struct hp_bell bell = {.type = HP_BELL_FD, .fd_id = record.fd_id};
            if (hp_bell_send(child->config->socket_fd, &bell, child->result_fd, true) != 0) {
                _exit(0);
            }
        }
    }
    publish(child, &record, data);
}

/* ---------------------------------------------------------------- running */

static void look_at_memory(struct child *child)
{
    char text[64];
    child->rss_at_us = child->now_us;
    ssize_t size = pread(child->statm_fd, text, sizeof text - 1, 0);
    text[size > 0 ? size : 0] = '\0';
    char *end = text;
    (void)strtoull(text, &end, 10);
    uint64_t pages = strtoull(end, NULL, 10);
    atomic_store(&child->page->rss_kb, pages * (uint64_t)sysconf(_SC_PAGESIZE) / 1024u);
}

static void run_function(struct child *child, const struct hp_call_record *record,
                         struct hp_call *call)
{
    const struct hp_modules *modules = child->config->modules;
    child->status = HP_EXEC_CALL_OK;
    child->retry_ms = 0;
    child->text_bytes = 0;
    child->result = child->scratch;
    drop_result(child);
    if (record->function == HP_CALL_VOID) {
        return;
    }
    if (record->function >= modules->function_count) {
        child->status = HP_EXEC_CALL_NO_FUNCTION;
        return;
    }
    const struct hp_function *function = modules->functions[record->function];
    call->function = function->name;
    int value = function->fn(call);
    if (value != 0 && child->status == HP_EXEC_CALL_OK && !child->is_too_big) {
        char text[64];
        (void)snprintf(text, sizeof text, "the function returned %d", value);
        (void)host_fail(call, HP_FAIL_ERROR, 0, text);
    }
}

/* The payload of a call that has one in a descriptor. Exits on failure: the call dies with a cause.
 */
static void *map_payload(struct child *child, const struct hp_call_record *record)
{
    int fd = take_fd(child, record->fd_id);
    void *map = mmap(NULL, (size_t)record->fd_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    (void)close(fd);
    if (map == MAP_FAILED) {
        (void)fprintf(stderr, "can not map a payload of %llu bytes: %s\n",
                      (unsigned long long)record->fd_bytes, strerror(errno));
        _exit(71);
    }
    return map;
}

/* Runs the claimed call at the ring's tail. */
static void run_claimed(struct child *child, uint64_t start_us)
{
    const uint8_t *ring = child->config->shared->calls;
    struct hp_call_record record;
    memcpy(&record, ring + child->call_tail % HP_RING_BYTES, sizeof record.kind * 2);
    if (record.kind == HP_RING_PAD) {
        child->call_tail += record.record_bytes;
    }
    const uint8_t *at = ring + child->call_tail % HP_RING_BYTES;
    memcpy(&record, at, sizeof record);
    struct hp_call call = {.host = &host,
                           .arg = at + sizeof record,
                           .arg_size = record.payload_bytes,
                           .task_id = record.task_id,
                           .epoch = record.epoch,
                           .array_index = record.array_index,
                           .attempt = record.attempt,
                           .function = "",
                           .opaque = child};
    void *map = NULL;
    if (record.fd_id != 0) {
        map = map_payload(child, &record);
        call.arg = map;
        call.arg_size = (size_t)record.fd_bytes;
    }
    run_function(child, &record, &call);
    if (map != NULL) {
        (void)munmap(map, (size_t)record.fd_bytes);
    }
    child->now_us = hp_clock_mono_us();
    child->call_tail += record.record_bytes;
    atomic_store_explicit(&child->page->call_tail, child->call_tail, memory_order_release);
    if (child->now_us - child->rss_at_us >= RSS_LOOK_US) {
        look_at_memory(child);
    }
    publish_outcome(child, start_us);
    drop_result(child);
}

/* Claims the next call (I1 of ring.h): false if there is none. */
static bool claim(struct child *child, uint64_t *ret_start_us)
{
    struct hp_child_page *page = child->page;
    uint64_t word = atomic_load(&page->claim);
    if (hp_claim_claimed(word) == hp_claim_limit(word)) {
        return false;
    }
    if (child->now_us == 0) {
        child->now_us = hp_clock_mono_us();
    }
    *ret_start_us = child->now_us;
    atomic_store_explicit(&page->start_us, child->now_us, memory_order_relaxed);
    do {
        if (hp_claim_claimed(word) == hp_claim_limit(word)) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(
        &page->claim, &word, hp_claim_make(hp_claim_claimed(word) + 1, hp_claim_limit(word))));
    return true;
}

static bool has_calls(struct child *child)
{
    uint64_t word = atomic_load(&child->page->claim);
    return hp_claim_claimed(word) != hp_claim_limit(word);
}

static void sleep_for_calls(struct child *child)
{
    atomic_store(&child->page->child_sleeps, SLEEPS_FOR_CALLS);
    if (!has_calls(child)) {
        if (child->has_unbelled) {
            ring_bell(child);
        }
        receive(child);
    }
    atomic_store(&child->page->child_sleeps, AWAKE);
    child->now_us = 0;
}

void hp_child_main(const struct hp_child_config *config)
{
    static struct child child;
    child.config = config;
    child.page = &config->shared->page;
    child.result_fd = -1;
    child.statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    if (!hp_modules_init_child(config->modules)) {
        (void)fprintf(stderr, "the init hook of a module failed\n");
        _exit(70);
    }
    for (;;) {
        uint64_t start_us = 0;
        if (claim(&child, &start_us)) {
            run_claimed(&child, start_us);
        } else {
            sleep_for_calls(&child);
        }
    }
}
