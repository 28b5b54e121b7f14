/* SPDX-License-Identifier: BSD-2-Clause */
/* The child's end of the rings: claim, hand out, publish; sleep when there is nothing to claim. */
#include "worker/exec/port.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"
#include "common/sys/file.h"

#define PENDING_FDS_MAX 64u
#define RSS_LOOK_US 10000u
#define SOCKET_FD_MIN 900

enum { AWAKE = 0, SLEEPS_FOR_CALLS = 1, SLEEPS_FOR_ROOM = 2 };

/* What a message on the socket meant. */
enum heard { HEARD_BELL, HEARD_NOTHING, HEARD_QUIT, HEARD_GONE };

struct pending_fd {
    uint64_t id;
    int fd; /* -1: this process had no number free for it, and it is lost */
};

struct hp_port {
    struct hp_child_shared *shared;
    struct hp_child_page *page;
    uint64_t result_cap_bytes;
    uint64_t pool;
    int socket_fd;
    int statm_fd;
    uint64_t call_tail;
    uint64_t result_head;
    uint64_t result_fd_id; /* last id used */
    uint64_t now_us;       /* end of the last call, if nothing was waited for since; else 0 */
    uint64_t rss_at_us;
    bool captures;
    uint64_t read_bytes; /* of page->read_bytes, when the last call ended */
    uint64_t printed_at; /* result_head to be reached by the daemon before a call may print */
    bool has_unbelled;   /* results were published since the last bell */
    bool quits;
    /* the current call */
    bool has_call;
    uint64_t start_us;
    uint32_t record_bytes;
    struct pending_fd pending[PENDING_FDS_MAX];
    uint32_t pending_count;
};

/* A task may fork, and let the copy go on. The copy is no child of the daemon: for it, the daemon
 * is gone, and it touches nothing that the child shares. */
static bool is_copy;

static void on_fork(void)
{
    is_copy = true;
}

/*
 * Moves the socket out of the reach of tasks that close what they have not opened, as those do that
 * become daemons: what is opened later could have its number. With a low limit it stays.
 */
static int move_up(int socket_fd)
{
    int fd = fcntl(socket_fd, F_DUPFD_CLOEXEC, SOCKET_FD_MIN);
    if (fd < 0) {
        return socket_fd;
    }
    (void)close(socket_fd);
    return fd;
}

struct hp_port *hp_port_new(int socket_fd, struct hp_child_shared *shared,
                            uint64_t result_cap_bytes)
{
    struct hp_port *port = hp_calloc(1, sizeof *port);
    if (port == NULL) {
        return NULL;
    }
    port->socket_fd = move_up(socket_fd);
    port->shared = shared;
    port->page = &shared->page;
    port->result_cap_bytes = result_cap_bytes;
    port->pool = atomic_load(&shared->page.pool);
    port->captures = atomic_load(&shared->page.captures) != 0;
    port->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    (void)pthread_atfork(NULL, NULL, on_fork); /* without memory for it: as it would be without */
    return port;
}

int hp_port_fd(const struct hp_port *port)
{
    return port->socket_fd;
}

uint64_t hp_port_result_cap(const struct hp_port *port)
{
    return port->result_cap_bytes;
}

/* ---------------------------------------------------------------- the socket */

static enum heard receive(struct hp_port *port)
{
    struct hp_bell bell;
    int fd = -1;
    int got = hp_bell_receive(port->socket_fd, &bell, &fd, true);
    if (got == 0) {
        return HEARD_NOTHING; /* a signal came */
    }
    if (got < 0) {
        return HEARD_GONE;
    }
    port->now_us = 0;
    if (bell.type == HP_BELL_QUIT) {
        port->quits = true;
        return HEARD_QUIT;
    }
    if (bell.type == HP_BELL_FD) {
        if (port->pending_count == PENDING_FDS_MAX) { /* the oldest are of calls taken back */
            hp_fd_close(&port->pending[0].fd);
            memmove(port->pending, port->pending + 1,
                    sizeof port->pending - sizeof port->pending[0]);
            port->pending_count--;
        }
        port->pending[port->pending_count++] = (struct pending_fd){.id = bell.fd_id, .fd = fd};
    } else if (fd >= 0) {
        (void)close(fd);
    }
    return HEARD_BELL;
}

static bool ring_bell(struct hp_port *port)
{
    struct hp_bell bell = {.type = HP_BELL_RING};
    port->has_unbelled = false;
    (void)atomic_exchange(&port->page->daemon_armed, 0);
    return hp_bell_send(port->socket_fd, &bell, -1, true) == 0;
}

/* The descriptor with this id; -1 if it was lost on its way. False: the daemon is gone. Those with
 * lower ids belong to calls that were taken back. */
static bool take_fd(struct hp_port *port, uint64_t id, int *ret_fd)
{
    for (;;) {
        uint32_t kept = 0;
        bool is_found = false;
        for (uint32_t i = 0; i < port->pending_count; i++) {
            struct pending_fd *entry = &port->pending[i];
            if (entry->id == id) {
                is_found = true;
                *ret_fd = entry->fd;
            } else if (entry->id < id) {
                hp_fd_close(&entry->fd);
            } else {
                port->pending[kept++] = *entry;
            }
        }
        port->pending_count = kept;
        if (is_found || receive(port) == HEARD_GONE) {
            return is_found;
        }
    }
}

/* ---------------------------------------------------------------- results */

/* Where the next record goes; waits for room. False: the daemon is gone. */
static bool result_place(struct hp_port *port, uint32_t record_bytes, uint64_t *ret_at)
{
    struct hp_child_page *page = port->page;
    bool is_there = true;
    while (is_there && !hp_ring_place(port->result_head, atomic_load(&page->result_tail),
                                      record_bytes, ret_at)) {
        atomic_store(&page->child_sleeps, SLEEPS_FOR_ROOM);
        if (!hp_ring_place(port->result_head, atomic_load(&page->result_tail), record_bytes,
                           ret_at)) {
            is_there = ring_bell(port) && receive(port) != HEARD_GONE;
        }
        atomic_store(&page->child_sleeps, AWAKE);
    }
    return is_there;
}

/*
 * Has this process printed something since the last call ended? What the daemon has read is counted
 * by it; when nothing lies unread and it is not just reading, the count is right.
 */
static bool has_printed(struct hp_port *port)
{
    int out = 0;
    int err = 0;
    (void)ioctl(1, FIONREAD, &out);
    (void)ioctl(2, FIONREAD, &err);
    return out > 0 || err > 0 || atomic_load(&port->page->is_reading) != 0 ||
           atomic_load(&port->page->read_bytes) != port->read_bytes;
}

/* Waits until the daemon has told the last call's output: what comes now belongs to the next.
 * False: the daemon is gone. */
static bool wait_until_read(struct hp_port *port)
{
    struct hp_child_page *page = port->page;
    bool is_there = true;
    while (is_there && (int64_t)(port->printed_at - atomic_load(&page->result_tail)) > 0) {
        atomic_store(&page->child_sleeps, SLEEPS_FOR_ROOM);
        if ((int64_t)(port->printed_at - atomic_load(&page->result_tail)) > 0) {
            is_there = ring_bell(port) && receive(port) != HEARD_GONE;
        }
        atomic_store(&page->child_sleeps, AWAKE);
    }
    port->printed_at = 0;
    port->read_bytes = atomic_load(&page->read_bytes);
    port->now_us = 0;
    return is_there;
}

/* Writes the record with text and pieces behind it. 0, or an errno. */
static int publish(struct hp_port *port, struct hp_result_record *record, const char *text,
                   const struct hp_bin *data, size_t data_count)
{
    uint8_t *ring = port->shared->results;
    uint64_t at = 0;
    record->kind = HP_RING_ITEM;
    bool has_output = port->captures && has_printed(port);
    record->flags = has_output ? HP_RESULT_FLAG_PRINTED : 0;
    record->record_bytes = hp_ring_round(sizeof *record + record->data_bytes);
    if (!result_place(port, record->record_bytes, &at)) {
        return EPIPE;
    }
    hp_ring_pad(ring, port->result_head, at);
    uint8_t *to = ring + at % HP_RING_BYTES;
    memcpy(to, record, sizeof *record);
    to += sizeof *record;
    if (record->text_bytes > 0) {
        memcpy(to, text, record->text_bytes);
        to += record->text_bytes;
    }
    for (size_t i = 0; i < data_count; i++) {
        if (data[i].size > 0) {
            memcpy(to, data[i].data, data[i].size);
            to += data[i].size;
        }
    }
    port->result_head = at + record->record_bytes;
    port->has_unbelled = true;
    port->printed_at = has_output ? port->result_head : 0;
    atomic_store(&port->page->result_head, port->result_head);
    if (atomic_load(&port->page->daemon_armed) != 0) {
        return ring_bell(port) ? 0 : EPIPE;
    }
    return 0;
}

static void look_at_memory(struct hp_port *port)
{
    char text[64];
    port->rss_at_us = port->now_us;
    ssize_t size = pread(port->statm_fd, text, sizeof text - 1, 0);
    text[size > 0 ? size : 0] = '\0';
    char *end = text;
    (void)strtoull(text, &end, 10);
    uint64_t pages = strtoull(end, NULL, 10);
    atomic_store(&port->page->rss_kb, pages * (uint64_t)sysconf(_SC_PAGESIZE) / 1024u);
}

/* Times the current call and gives its record's place back. */
static struct hp_result_record end_call(struct hp_port *port, enum hp_exec_call_status status,
                                        size_t text_bytes, uint64_t retry_ms)
{
    HP_ASSERT(port->has_call);
    port->has_call = false;
    port->now_us = hp_clock_mono_us();
    port->call_tail += port->record_bytes;
    atomic_store_explicit(&port->page->call_tail, port->call_tail, memory_order_release);
    if (atomic_load_explicit(&port->page->waits, memory_order_relaxed) != 0) {
        hp_port_waits(port, false);
    }
    if (port->now_us - port->rss_at_us >= RSS_LOOK_US) {
        look_at_memory(port);
    }
    return (struct hp_result_record){
        .status = status,
        .retry_ms = retry_ms,
        .start_us = port->start_us,
        .run_us = port->now_us - port->start_us,
        .text_bytes = (uint32_t)HP_MIN(text_bytes, (size_t)HP_CHILD_TEXT_BYTES_MAX),
    };
}

static int publish_too_big(struct hp_port *port, struct hp_result_record *record)
{
    char text[80];
    int size = snprintf(text, sizeof text, "the result is larger than %llu bytes",
                        (unsigned long long)port->result_cap_bytes);
    record->status = HP_EXEC_CALL_TOO_BIG;
    record->text_bytes = record->data_bytes = (uint32_t)size;
    record->result_bytes = 0;
    return publish(port, record, text, NULL, 0);
}

static int publish_fd(struct hp_port *port, struct hp_result_record *record, const char *text,
                      int fd, uint64_t bytes)
{
    struct hp_bell bell = {.type = HP_BELL_FD, .fd_id = ++port->result_fd_id};
    record->fd_id = bell.fd_id;
    record->result_bytes = bytes;
    record->data_bytes = record->text_bytes;
    if (hp_bell_send(port->socket_fd, &bell, fd, true) != 0) {
        return EPIPE;
    }
    return publish(port, record, text, NULL, 0);
}

/* A memfd with the pieces, or -1 and errno. */
static int gather(const struct hp_bin *data, size_t data_count)
{
    int fd = memfd_create("hp-result", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    for (size_t i = 0; fd >= 0 && i < data_count; i++) {
        if (data[i].size > 0 && hp_fd_write_all(fd, data[i].data, data[i].size) != HP_OK) {
            int error_number = errno;
            (void)close(fd);
            errno = error_number;
            return -1;
        }
    }
    return fd;
}

int hp_port_done(struct hp_port *port, enum hp_exec_call_status status, const char *text,
                 size_t text_bytes, const struct hp_bin *data, size_t data_count, uint64_t retry_ms)
{
    uint64_t bytes = 0;
    if (is_copy || !port->has_call) { /* has none: it was ended, and the daemon was gone */
        return EPIPE;
    }
    for (size_t i = 0; i < data_count; i++) {
        bytes += data[i].size;
    }
    int fd = -1;
    if (bytes > HP_EXEC_INLINE_BYTES_MAX && bytes <= port->result_cap_bytes) {
        fd = gather(data, data_count);
        if (fd < 0) {
            return errno; /* the call is still the current one: it can end with an error */
        }
    }
    struct hp_result_record record = end_call(port, status, text_bytes, retry_ms);
    if (bytes > port->result_cap_bytes) {
        return publish_too_big(port, &record);
    }
    if (fd >= 0) {
        int error_number = publish_fd(port, &record, text, fd, bytes);
        (void)close(fd);
        return error_number;
    }
    record.result_bytes = bytes;
    record.data_bytes = record.text_bytes + (uint32_t)bytes;
    return publish(port, &record, text, data, data_count);
}

int hp_port_done_fd(struct hp_port *port, enum hp_exec_call_status status, const char *text,
                    size_t text_bytes, int fd, uint64_t bytes, uint64_t retry_ms)
{
    if (is_copy || !port->has_call) { /* has none: it was ended, and the daemon was gone */
        return EPIPE;
    }
    struct hp_result_record record = end_call(port, status, text_bytes, retry_ms);
    if (bytes > port->result_cap_bytes) {
        return publish_too_big(port, &record);
    }
    return publish_fd(port, &record, text, fd, bytes);
}

void hp_port_waits(struct hp_port *port, bool waits)
{
    if (!is_copy && atomic_exchange(&port->page->waits, waits ? 1 : 0) != (waits ? 1u : 0u)) {
        struct hp_bell bell = {.type = HP_BELL_RING};
        (void)hp_bell_send(port->socket_fd, &bell, -1,
                           true); /* a daemon that is gone is seen later */
    }
}

/* ---------------------------------------------------------------- calls */

/* Claims the next call (I1 of ring.h): false if there is none. */
static bool claim(struct hp_port *port)
{
    struct hp_child_page *page = port->page;
    uint64_t word = atomic_load(&page->claim);
    if (hp_claim_claimed(word) == hp_claim_limit(word)) {
        return false;
    }
    if (port->now_us == 0) {
        port->now_us = hp_clock_mono_us();
    }
    port->start_us = port->now_us;
    atomic_store_explicit(&page->start_us, port->now_us, memory_order_relaxed);
    do {
        if (hp_claim_claimed(word) == hp_claim_limit(word)) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(
        &page->claim, &word, hp_claim_make(hp_claim_claimed(word) + 1, hp_claim_limit(word))));
    return true;
}

/* The task's own descriptors have used up all numbers. As with read_claimed: 0, or -2. */
static int refuse_payload(struct hp_port *port)
{
    static const char text[] = "the task's process had no file descriptor free for its arguments: "
                               "earlier calls left too many open, or its limit is too low";
    int error = hp_port_done(port, HP_EXEC_CALL_ERROR, text, sizeof(text) - 1, NULL, 0, 0);
    return error == 0 ? 0 : -2;
}

/* Reads the claimed record at the ring's tail. 1; 0: it was taken back, there is nothing to run;
 * -2: the daemon is gone. */
static int read_claimed(struct hp_port *port, struct hp_port_call *ret)
{
    const uint8_t *ring = port->shared->calls;
    struct hp_call_record record;
    memcpy(&record, ring + port->call_tail % HP_RING_BYTES, sizeof record.kind * 2);
    if (record.kind == HP_RING_PAD) {
        port->call_tail += record.record_bytes;
    }
    const uint8_t *at = ring + port->call_tail % HP_RING_BYTES;
    memcpy(&record, at, sizeof record);
    port->record_bytes = record.record_bytes;
    port->has_call = true;
    *ret =
        (struct hp_port_call){.is_init = (record.flags & HP_CALL_FLAG_INIT) != 0,
                              .is_items = (record.flags & HP_CALL_FLAG_ITEMS) != 0,
                              .payload = {.data = at + sizeof record, .size = record.payload_bytes},
                              .payload_fd = -1,
                              .payload_bytes = record.payload_bytes,
                              .task_id = record.task_id,
                              .epoch = record.epoch,
                              .array_index = record.array_index,
                              .pool = port->pool,
                              .attempt = record.attempt,
                              .function = record.function};
    if (record.fd_id != 0 && !take_fd(port, record.fd_id, &ret->payload_fd)) {
        return -2;
    }
    if (record.function == HP_CALL_VOID) {
        hp_fd_close(&ret->payload_fd);
        return hp_port_done(port, HP_EXEC_CALL_OK, NULL, 0, NULL, 0, 0) == 0 ? 0 : -2;
    }
    if (record.fd_id != 0) {
        ret->payload = hp_bin_make(NULL, 0);
        ret->payload_bytes = record.fd_bytes;
        if (ret->payload_fd < 0) {
            return refuse_payload(port);
        }
    }
    return 1;
}

static bool has_calls(struct hp_port *port)
{
    uint64_t word = atomic_load(&port->page->claim);
    return hp_claim_claimed(word) != hp_claim_limit(word);
}

static enum heard sleep_for_calls(struct hp_port *port)
{
    enum heard heard = HEARD_BELL;
    atomic_store(&port->page->child_sleeps, SLEEPS_FOR_CALLS);
    if (!has_calls(port)) {
        bool is_there = !port->has_unbelled || ring_bell(port);
        heard = is_there ? receive(port) : HEARD_GONE;
    }
    atomic_store(&port->page->child_sleeps, AWAKE);
    port->now_us = 0;
    return heard;
}

int hp_port_next(struct hp_port *port, struct hp_port_call *ret_call, bool may_block)
{
    if (is_copy) {
        return -2;
    }
    HP_ASSERT(!port->has_call);
    if (port->printed_at != 0 && !wait_until_read(port)) {
        return -2;
    }
    for (;;) {
        if (claim(port)) {
            int got = read_claimed(port, ret_call);
            if (got != 0) {
                return got;
            }
            continue;
        }
        if (port->quits) {
            return -1;
        }
        if (!may_block) {
            return 0;
        }
        enum heard heard = sleep_for_calls(port);
        if (heard == HEARD_GONE) {
            return -2;
        }
        if (heard == HEARD_NOTHING) {
            return 0;
        }
    }
}
