/* SPDX-License-Identifier: BSD-2-Clause */
/* A function child: runs C functions of modules, upon a port. */
#include "worker/exec/child.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/items.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/file.h"
#include "worker/exec/port.h"
#define HP_WORKER_INTERNAL
#include "worker/sdk/hostpool_worker.h"

/* Room for items that is kept from one call to the next. */
enum { ITEMS_KEPT_BYTES = 1 << 20 };

struct child {
    struct hp_port *port;
    const struct hp_modules *modules;
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
    /* of a call of several items */
    bool has_items;
    struct hp_buf items;            /* the results so far */
    size_t items_before;            /* bytes of those before the item that runs */
    struct hp_buf aligned;          /* payload of the item that runs, if it must be moved */
    _Alignas(8) uint8_t small[256]; /* the same of most */
    uint8_t scratch[HP_EXEC_INLINE_BYTES_MAX];
};

/* ---------------------------------------------------------------- what the function calls */

static void unmap_result(struct child *child)
{
    if (child->map != NULL) {
        (void)munmap(child->map, child->result_bytes);
        child->map = NULL;
    }
}

static void drop_result(struct child *child)
{
    unmap_result(child);
    if (child->result_fd >= 0) {
        (void)close(child->result_fd);
        child->result_fd = -1;
    }
    child->result_bytes = 0;
    child->is_too_big = false;
}

/* The result of the item that runs, in the place of what it had set before. */
static void *item_result_room(struct child *child, size_t size)
{
    uint8_t *room = NULL;
    if (child->items.size != child->items_before) {
        hp_buf_truncate(&child->items, child->items_before);
    }
    enum hp_err err = hp_items_room(&child->items, size, &room);
    child->is_too_big = err == HP_ERR_FULL;
    return err == HP_OK ? room : NULL;
}

/* May the bytes lie in the room that this item asked for before? Then they are moved away first. */
static int item_result(struct child *child, const void *data, size_t size)
{
    void *moved = NULL;
    uintptr_t from = (uintptr_t)child->items.data;
    if ((uintptr_t)data >= from && (uintptr_t)data < from + child->items.size) {
        moved = hp_alloc(size > 0 ? size : 1);
        if (moved == NULL) {
            return -1;
        }
        data = memcpy(moved, data, size);
    }
    uint8_t *room = item_result_room(child, size);
    if (room != NULL && size > 0) {
        memcpy(room, data, size);
    }
    if (moved != NULL) {
        hp_free(moved);
    }
    return room != NULL ? 0 : child->is_too_big ? 1 : -1;
}

static void *host_result_room(struct hp_call *call, size_t size)
{
    struct child *child = call->opaque;
    if (child->has_items) {
        return item_result_room(child, size);
    }
    drop_result(child);
    if (size > hp_port_result_cap(child->port)) {
        child->is_too_big = true;
        return NULL;
    }
    if (size <= sizeof child->scratch) {
        child->result_bytes = size;
        child->result = child->scratch;
        return child->result;
    }
    int fd = memfd_create("hp-result", MFD_CLOEXEC | MFD_ALLOW_SEALING);
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

/* A result that the function has whole is written: pages that are mapped first are zeroed first,
 * and taken one fault at a time. */
static int write_result(struct child *child, const void *data, size_t size)
{
    HP_CLEANUP(hp_fd_close) int fd = memfd_create("hp-result", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || hp_fd_write_all(fd, data, size) != HP_OK) {
        return -1;
    }
    drop_result(child); /* only now: the data may lie in it */
    child->result_fd = fd;
    child->result_bytes = size;
    fd = -1; /* the child's */
    return 0;
}

static int host_result(struct hp_call *call, const void *data, size_t size)
{
    struct child *child = call->opaque;
    if (data == NULL && size > 0) {
        return -1;
    }
    if (child->has_items) {
        return item_result(child, data, size);
    }
    if (size > sizeof child->scratch && size <= hp_port_result_cap(child->port)) {
        return write_result(child, data, size);
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

/* ---------------------------------------------------------------- running */

/* Calls it once. False: it failed. */
static inline bool call_function(struct child *child, const struct hp_function *function,
                                 struct hp_call *call)
{
    int value = function->fn(call);
    if (value != 0 && child->status == HP_EXEC_CALL_OK && !child->is_too_big) {
        char text[64];
        (void)snprintf(text, sizeof text, "the function returned %d", value);
        (void)host_fail(call, HP_FAIL_ERROR, 0, text);
    }
    return child->status == HP_EXEC_CALL_OK && !child->is_too_big;
}

/* Functions are promised payloads at multiples of 8; between others an item lies anywhere. */
static const uint8_t *align_item(struct child *child, const uint8_t *data, size_t size)
{
    if ((uintptr_t)data % 8 == 0) {
        return data;
    }
    if (size <= sizeof child->small) {
        return memcpy(child->small, data, size);
    }
    uint8_t *at = NULL;
    hp_buf_clear(&child->aligned);
    if (hp_buf_reserve(&child->aligned, size + 8, &at) != HP_OK) {
        return NULL;
    }
    at += -(uintptr_t)at % 8;
    return memcpy(at, data, size);
}

static void fail_item(struct child *child, struct hp_call *call, const char *text)
{
    if (text != NULL) {
        (void)host_fail(call, HP_FAIL_PERMANENT, 0, text);
    }
    char told[HP_CHILD_TEXT_BYTES_MAX];
    int head = snprintf(told, sizeof told, "item %u: ", call->item);
    size_t more = HP_MIN(child->text_bytes, sizeof told - (size_t)head);
    memcpy(told + head, child->text, more);
    child->text_bytes = (size_t)head + more;
    memcpy(child->text, told, child->text_bytes);
}

/* The function for each item, in their order, until one fails: then the call has failed. */
static void run_items(struct child *child, const struct hp_function *function, struct hp_call *call)
{
    struct hp_items items;
    const uint8_t *data = NULL;
    size_t size = 0;
    hp_buf_clear(&child->items);
    if (!hp_items_begin(&items, call->arg, call->arg_size)) {
        (void)host_fail(call, HP_FAIL_PERMANENT, 0, "the payload is no MessagePack array of items");
        return;
    }
    if (hp_items_open(&child->items) != HP_OK) {
        (void)host_fail(call, HP_FAIL_ERROR, 0, "out of memory");
        return;
    }
    for (call->item = 0; call->item < items.count; call->item++) {
        child->items_before = child->items.size;
        if (!hp_items_next(&items, &data, &size)) {
            fail_item(child, call, "cut, or no byte string");
            return;
        }
        call->arg = align_item(child, data, size);
        call->arg_size = size;
        if (call->arg == NULL) {
            (void)host_fail(call, HP_FAIL_ERROR, 0, "out of memory");
        }
        if (call->arg == NULL || !call_function(child, function, call)) {
            fail_item(child, call, NULL);
            return;
        }
        if (child->items.size == child->items_before && item_result_room(child, 0) == NULL) {
            (void)host_fail(call, HP_FAIL_ERROR, 0, "out of memory for the results");
            return;
        }
    }
    if (!hp_items_ended(&items)) {
        (void)host_fail(call, HP_FAIL_PERMANENT, 0, "the payload goes on behind its last item");
        return;
    }
    hp_items_close(&child->items, items.count);
    child->result = child->items.data;
    child->result_bytes = child->items.size;
}

static void run_function(struct child *child, const struct hp_port_call *from, struct hp_call *call)
{
    child->status = HP_EXEC_CALL_OK;
    child->has_items = from->is_items;
    child->retry_ms = 0;
    child->text_bytes = 0;
    child->result = child->scratch;
    drop_result(child);
    if (from->function >= child->modules->function_count) {
        child->status = HP_EXEC_CALL_NO_FUNCTION;
        return;
    }
    const struct hp_function *function = child->modules->functions[from->function];
    call->function = function->name;
    if (from->is_items) {
        run_items(child, function, call);
    } else {
        (void)call_function(child, function, call);
    }
}

/* Memory that a large call took is not kept for small ones. */
static void rest_items(struct child *child)
{
    child->has_items = false;
    if (child->items.capacity > ITEMS_KEPT_BYTES) {
        hp_buf_deinit(&child->items);
    }
    if (child->aligned.capacity > ITEMS_KEPT_BYTES) {
        hp_buf_deinit(&child->aligned);
    }
}

/* The payload of a call that has one in a descriptor. Exits on failure: the call dies with a cause.
 */
static void *map_payload(const struct hp_port_call *from)
{
    void *map = mmap(NULL, (size_t)from->payload_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE,
                     from->payload_fd, 0);
    (void)close(from->payload_fd);
    if (map == MAP_FAILED) {
        (void)fprintf(stderr, "can not map a payload of %llu bytes: %s\n",
                      (unsigned long long)from->payload_bytes, strerror(errno));
        _exit(71);
    }
    return map;
}

static int tell_outcome(struct child *child)
{
    if (child->is_too_big) {
        char text[80];
        child->text_bytes =
            (size_t)snprintf(text, sizeof text, "the result is larger than %llu bytes",
                             (unsigned long long)hp_port_result_cap(child->port));
        return hp_port_done(child->port, HP_EXEC_CALL_TOO_BIG, text, child->text_bytes, NULL, 0, 0);
    }
    if (child->status == HP_EXEC_CALL_OK && child->result_fd >= 0) {
        unmap_result(child); /* what is mapped for writing can not be sealed */
        return hp_port_done_fd(child->port, HP_EXEC_CALL_OK, NULL, 0, child->result_fd,
                               child->result_bytes, 0);
    }
    bool has_result = child->status == HP_EXEC_CALL_OK;
    struct hp_bin data = {.data = child->result,
                          .size = has_result ? (uint32_t)child->result_bytes : 0};
    return hp_port_done(child->port, (enum hp_exec_call_status)child->status, child->text,
                        child->text_bytes, &data, 1, child->retry_ms);
}

static void run(struct child *child, const struct hp_port_call *from)
{
    struct hp_call call = {.host = &host,
                           .arg = from->payload.data,
                           .arg_size = from->payload.size,
                           .task_id = from->task_id,
                           .epoch = from->epoch,
                           .array_index = from->array_index,
                           .attempt = from->attempt,
                           .function = "",
                           .opaque = child};
    void *map = NULL;
    if (from->payload_fd >= 0) {
        map = map_payload(from);
        call.arg = map;
        call.arg_size = (size_t)from->payload_bytes;
    }
    run_function(child, from, &call);
    if (map != NULL) {
        (void)munmap(map, (size_t)from->payload_bytes);
    }
    if (tell_outcome(child) != 0) {
        _exit(0); /* the daemon is gone: nobody wants the results */
    }
    drop_result(child);
    if (from->is_items) {
        rest_items(child);
    }
}

void hp_child_main(const struct hp_child_config *config)
{
    static struct child child;
    child.port = hp_port_new(config->socket_fd, config->shared, config->result_cap_bytes);
    child.modules = config->modules;
    child.result_fd = -1;
    hp_buf_init(&child.items, (size_t)config->result_cap_bytes + 1);
    hp_buf_init(&child.aligned, (size_t)UINT32_MAX + 16);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    if (child.port == NULL || !hp_modules_init_child(config->modules)) {
        (void)fprintf(stderr, "the init hook of a module failed\n");
        _exit(70);
    }
    for (;;) {
        struct hp_port_call call;
        int got = hp_port_next(child.port, &call, true);
        if (got == 1) {
            run(&child, &call);
        } else if (got == -1) {
            hp_modules_fini_child(config->modules);
            (void)fflush(NULL);
            _exit(0);
        } else if (got == -2) {
            _exit(0);
        }
    }
}
