/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the hub calls back: ends become tuples, many at a time, for one call of the Python handler.
 *
 * Who waits for the GIL here keeps the socket waiting, too; so the callbacks that come often and
 * mean little (ids, released payloads) do without it.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "python/ext/ext.h"

#define HANDLER_TRIES_MAX 8

/* ---------------------------------------------------------------- items */

struct hp_ext_item *hp_ext_item_new(struct hp_ext_hub *self, PyObject *user, uint32_t index)
{
    struct hp_ext_item *item = calloc(1, sizeof *item);
    if (item == NULL) {
        (void)PyErr_NoMemory();
        return NULL;
    }
    Py_XINCREF(user);
    item->user = user;
    item->index = index;
    if (user != NULL && PyObject_TypeCheck(user, hp_ext_flag_type) != 0) {
        item->flag = (struct hp_ext_flag *)user;
    }
    item->previous = &self->items;
    item->next = self->items.next;
    item->next->previous = item;
    self->items.next = item;
    return item;
}

static void release_views(struct hp_ext_item *item)
{
    for (uint32_t i = 0; i < item->view_count; i++) {
        PyBuffer_Release(&item->views[i]);
    }
    free(item->views);
    item->views = NULL;
    item->view_count = 0;
}

void hp_ext_item_drop(struct hp_ext_item *item)
{
    PyObject *user = item->user;
    item->next->previous = item->previous;
    item->previous->next = item->next;
    release_views(item);
    free(item);
    Py_XDECREF(user); /* last: it may run any code */
}

void hp_ext_items_drop_all(struct hp_ext_hub *self, bool keep_lent)
{
    struct hp_ext_item *item = self->items.next;
    while (item != &self->items) {
        if (item->is_lent && keep_lent) {
            item = item->next;
        } else {
            hp_ext_item_drop(item);
            item = self->items.next; /* any code may have run */
        }
    }
}

/* With the lock: nothing will be said of it any more. */
static bool is_over(const struct hp_ext_item *item)
{
    return item->is_ended && item->is_accepted && !item->is_lent;
}

/* With the lock: for the next hp_ext_reap. */
static void enqueue(struct hp_ext_core *core, struct hp_ext_item *item)
{
    if (!item->is_queued) {
        item->is_queued = true;
        item->queue_next = atomic_load(&core->queue);
        atomic_store(&core->queue, item);
    }
}

void hp_ext_reap(struct hp_ext_hub *self)
{
    while (atomic_load_explicit(&self->core->queue, memory_order_relaxed) != NULL) {
        struct hp_ext_item freed = {0};
        (void)pthread_mutex_lock(&hp_ext_ids_lock);
        struct hp_ext_item *item = atomic_load(&self->core->queue);
        bool is_done = false;
        if (item != NULL) {
            atomic_store(&self->core->queue, item->queue_next);
            item->is_queued = false;
            is_done = is_over(item);
            if (!item->is_lent) {
                freed.views = item->views;
                freed.view_count = item->view_count;
                item->views = NULL;
                item->view_count = 0;
            }
        }
        (void)pthread_mutex_unlock(&hp_ext_ids_lock);
        if (is_done) {
            hp_ext_item_drop(item);
        }
        release_views(&freed); /* this may run any code */
    }
}

/* ---------------------------------------------------------------- tuples */

/* The name of a node; mostly that of the end before. */
static PyObject *node_name(struct hp_ext_hub *self, const char *node)
{
    if (self == NULL || node == NULL || strlen(node) >= sizeof self->node_text) {
        return hp_ext_text(node);
    }
    if (self->node == NULL || strcmp(node, self->node_text) != 0) {
        Py_CLEAR(self->node);
        self->node = hp_ext_text(node);
        (void)hp_strlcpy(self->node_text, node, sizeof self->node_text);
    }
    Py_XINCREF(self->node);
    return self->node;
}

static PyObject *result_of(const struct hp_hub_end *end)
{
    if (end->owned != NULL && end->owned->data != NULL) {
        return hp_ext_buffer_own(end->owned);
    }
    if (end->result.size == 0 && end->state != HP_STATE_DONE) {
        Py_RETURN_NONE;
    }
    return PyBytes_FromStringAndSize(end->result.data, (Py_ssize_t)end->result.size);
}

static PyObject *none(void)
{
    Py_RETURN_NONE;
}

static PyObject *bytes_of(struct hp_bytes bytes)
{
    return PyBytes_FromStringAndSize(bytes.data, (Py_ssize_t)bytes.size);
}

PyObject *hp_ext_end_tuple(struct hp_ext_hub *self, PyObject *user, uint32_t index,
                           const struct hp_hub_end *end)
{
    static const struct hp_end no_end;
    const struct hp_end *last = end->end != NULL ? end->end : &no_end;
    PyObject *tuple = PyTuple_New(16);
    if (tuple == NULL) {
        return NULL;
    }
    if (user == NULL) {
        user = Py_None;
    }
    Py_INCREF(user);
    PyObject *items[16] = {
        user,
        PyLong_FromUnsignedLongLong(end->id),
        PyLong_FromLong((long)end->state),
        PyLong_FromLong((long)end->reason),
        PyLong_FromUnsignedLong(end->attempt),
        node_name(self, end->node),
        result_of(end),
        hp_ext_text(last->error),
        last->has_exit_code ? PyLong_FromLongLong(last->exit_code) : none(),
        PyLong_FromUnsignedLong(last->signal),
        PyLong_FromUnsignedLongLong(last->maxrss_kb),
        bytes_of(last->out),
        bytes_of(last->err),
        PyUnicode_InternFromString(hp_status_word(end->status)),
        hp_ext_text(end->text != NULL ? end->text : ""),
        PyLong_FromUnsignedLong(index),
    };
    bool is_good = true;
    for (Py_ssize_t i = 0; i < 16; i++) {
        is_good = items[i] != NULL && is_good;
        (void)PyTuple_SetItem(tuple, i, items[i]);
    }
    if (!is_good) {
        Py_CLEAR(tuple);
    }
    return tuple;
}

/* ---------------------------------------------------------------- callbacks */

/*
 * Calls the handler. It may run on the main thread, where Ctrl-C can hit it at any point: then it
 * is called again with the same list (it leaves out what it has done), and the interrupt is raised
 * once the waiting function returns. Other exceptions are shown and end nothing.
 */
static void call_handler(struct hp_ext_hub *self, PyObject *list)
{
    PyObject *handler = self->handler;
    if (handler == NULL) {
        return;
    }
    Py_INCREF(handler);
    for (int i = 0; i < HANDLER_TRIES_MAX; i++) {
        PyObject *value = PyObject_CallFunctionObjArgs(handler, list, NULL);
        if (value != NULL) {
            Py_DECREF(value);
            break;
        }
        if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) == 0) {
            PyErr_WriteUnraisable(handler);
            break;
        }
        PyErr_Clear();
        self->interrupted = PyThread_get_thread_ident();
    }
    Py_DECREF(handler);
}

/* Its tuple into the list, and the item's end. */
static void take_end(struct hp_ext_hub *self, const struct hp_hub_end *end, PyObject *list)
{
    struct hp_ext_item *item = end->user;
    PyObject *user = item->user;
    (void)pthread_mutex_lock(&hp_ext_ids_lock);
    if (item->flag != NULL && !item->is_accepted && end->id != 0) {
        hp_ext_flag_accepted(item->flag, item->index, end->id);
    } else if (item->flag != NULL && end->id == 0) {
        hp_ext_flag_refused(item->flag, end->status, end->text);
    }
    item->is_accepted = item->is_accepted || end->id == 0;
    item->is_ended = true;
    item->flag = NULL;
    item->user = NULL;
    bool is_done = is_over(item) && !item->is_queued;
    bool is_quiet = item->is_quiet;
    uint32_t index = item->index;
    (void)pthread_mutex_unlock(&hp_ext_ids_lock);
    if (is_done) {
        hp_ext_item_drop(item);
    }
    if (!is_quiet && self->handler != NULL) {
        PyObject *tuple = hp_ext_end_tuple(self, user, index, end);
        if (tuple == NULL || PyList_Append(list, tuple) != 0) {
            PyErr_WriteUnraisable((PyObject *)self);
        }
        Py_XDECREF(tuple);
    }
    Py_XDECREF(user);
}

static void on_ended(void *context, const struct hp_hub_end *ends, size_t count)
{
    struct hp_ext_core *core = context;
    if (atomic_load(&core->is_closing)) {
        return;
    }
    PyGILState_STATE gil = PyGILState_Ensure();
    if (!atomic_load(&core->is_closing)) {
        struct hp_ext_hub *self = core->self;
        unsigned long before = self->deliverer;
        Py_INCREF(self);
        self->deliverer = PyThread_get_thread_ident();
        hp_ext_reap(self);
        PyObject *list = PyList_New(0);
        for (size_t i = 0; list != NULL && i < count; i++) {
            take_end(self, &ends[i], list);
        }
        if (list == NULL) {
            PyErr_WriteUnraisable((PyObject *)self);
        } else if (PyList_Size(list) > 0) {
            call_handler(self, list);
        }
        Py_XDECREF(list);
        /* The last one may have been this: then hub_dealloc must still see the deliverer. */
        if (Py_REFCNT(self) > 1) {
            self->deliverer = before;
        }
        Py_DECREF(self);
    }
    PyGILState_Release(gil);
}

/* It may come after the ends of some of these tasks. */
static void on_submitted(void *context, void *const *users, uint64_t first, uint32_t count)
{
    struct hp_ext_core *core = context;
    (void)pthread_mutex_lock(&hp_ext_ids_lock);
    for (uint32_t i = 0; i < count && !atomic_load(&core->is_closing); i++) {
        struct hp_ext_item *item = users[i];
        item->is_accepted = true;
        if (item->flag != NULL) {
            hp_ext_flag_accepted(item->flag, item->index, first + i);
        }
        if (is_over(item)) {
            enqueue(core, item);
        }
    }
    (void)pthread_mutex_unlock(&hp_ext_ids_lock);
}

static void on_released(void *context, void *user)
{
    struct hp_ext_core *core = context;
    struct hp_ext_item *item = user;
    (void)pthread_mutex_lock(&hp_ext_ids_lock);
    if (!atomic_load(&core->is_closing)) {
        item->is_lent = false;
        enqueue(core, item);
    }
    (void)pthread_mutex_unlock(&hp_ext_ids_lock);
}

const struct hp_hub_callbacks hp_ext_callbacks = {
    .ended = on_ended, .submitted = on_submitted, .released = on_released};
