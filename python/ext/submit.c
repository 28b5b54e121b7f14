/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Submits. A submit that fits in the hub's window keeps the GIL: giving it up for so short a time
 * only makes two threads fight for it. If the window is full it is given up while waiting.
 */
#include <stdlib.h>
#include <string.h>

#include "python/ext/ext.h"

#define WAIT_SLICE_MS 100

/* One payload: its pieces, and what holds them. */
struct payload {
    struct hp_bytes *pieces;
    Py_buffer *views; /* NULL: `object` is bytes and holds it */
    PyObject *object;
    uint32_t piece_count;
    uint32_t view_count;
    size_t bytes;
    struct hp_bytes one;
};

static void payload_clear(struct payload *payload)
{
    for (uint32_t i = 0; i < payload->view_count; i++) {
        PyBuffer_Release(&payload->views[i]);
    }
    free(payload->views);
    if (payload->pieces != &payload->one) {
        free(payload->pieces);
    }
}

static bool add_view(struct payload *payload, PyObject *object)
{
    Py_buffer *view = &payload->views[payload->view_count];
    if (PyObject_GetBuffer(object, view, PyBUF_SIMPLE) != 0) {
        return false;
    }
    payload->view_count++;
    payload->pieces[payload->piece_count++] =
        (struct hp_bytes){.data = view->buf, .size = (size_t)view->len};
    payload->bytes += (size_t)view->len;
    return true;
}

/* The bytes of an object, or of a tuple or list of them. False: an exception is set, and nothing is
 * held. */
static bool payload_take(struct payload *payload, PyObject *object)
{
    memset(payload, 0, sizeof *payload);
    payload->object = object;
    if (PyBytes_CheckExact(object)) {
        char *data = NULL;
        Py_ssize_t size = 0;
        (void)PyBytes_AsStringAndSize(object, &data, &size);
        payload->one = (struct hp_bytes){.data = data, .size = (size_t)size};
        payload->pieces = &payload->one;
        payload->piece_count = 1;
        payload->bytes = (size_t)size;
        return true;
    }
    bool is_many = PyTuple_Check(object) || PyList_Check(object);
    PyObject *parts = is_many ? PySequence_Tuple(object) : PyTuple_Pack(1, object);
    if (parts == NULL) {
        return false;
    }
    Py_ssize_t count = PyTuple_Size(parts);
    payload->pieces = calloc((size_t)count + 1, sizeof *payload->pieces);
    payload->views = calloc((size_t)count + 1, sizeof *payload->views);
    bool is_good = payload->pieces != NULL && payload->views != NULL;
    if (!is_good) {
        (void)PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; is_good && i < count; i++) {
        is_good = add_view(payload, PyTuple_GetItem(parts, i));
    }
    Py_DECREF(parts);
    if (!is_good) {
        payload_clear(payload);
    }
    return is_good;
}

/* The hub may read the payload after the submit: the item holds it until it is released. */
static bool payload_lend(struct payload *payload, struct hp_ext_item *item)
{
    if (payload->views == NULL) {
        payload->views = calloc(1, sizeof *payload->views);
        if (payload->views == NULL) {
            (void)PyErr_NoMemory();
            return false;
        }
        if (PyObject_GetBuffer(payload->object, payload->views, PyBUF_SIMPLE) != 0) {
            return false;
        }
        payload->view_count = 1;
    }
    item->views = payload->views;
    item->view_count = payload->view_count;
    item->is_lent = true;
    payload->views = NULL;
    payload->view_count = 0;
    return true;
}

/* ---------------------------------------------------------------- one */

struct one {
    struct hp_hub *hub;
    const struct hp_options *options;
    const struct payload *payload;
    struct hp_ext_item *item;
};

static enum hp_status submit_one(const struct one *one, int64_t timeout_ms)
{
    const struct payload *payload = one->payload;
    void *user = one->item;
    if (payload->piece_count == 1) {
        return hp_hub_submit(one->hub, one->options, payload->pieces, 1, &user, timeout_ms);
    }
    return hp_hub_submit_pieces(one->hub, one->options, payload->pieces, payload->piece_count, user,
                                timeout_ms);
}

/* Between two slices of a wait for room: what ends it, but for its time. True: an exception is set.
 */
static bool is_given_up(const struct hp_options *options)
{
    if (PyErr_CheckSignals() != 0) {
        return true;
    }
    if (hp_ext_options_ended(options)) {
        (void)hp_ext_raise(HP_STATUS_STOPPED, "ended while it waited to be submitted");
        return true;
    }
    return false;
}

/* Waits for room without the GIL, looking for signals. */
static enum hp_status submit_waiting(struct hp_ext_hub *self, const struct one *one,
                                     int64_t timeout_ms)
{
    uint64_t end_ms = timeout_ms < 0 ? UINT64_MAX : hp_ext_now_ms() + (uint64_t)timeout_ms;
    enum hp_status status = HP_STATUS_TIMEOUT;
    bool is_last = false;
    while (status == HP_STATUS_TIMEOUT && !is_last) {
        uint64_t now_ms = hp_ext_now_ms();
        uint64_t left_ms = end_ms > now_ms ? end_ms - now_ms : 0;
        is_last = left_ms <= WAIT_SLICE_MS;
        hp_ext_reap(self);
        Py_BEGIN_ALLOW_THREADS status = submit_one(one, is_last ? (int64_t)left_ms : WAIT_SLICE_MS);
        Py_END_ALLOW_THREADS if (status == HP_STATUS_TIMEOUT && is_given_up(one->options))
        {
            break;
        }
    }
    return status;
}

/* The whole of a submit of one; false: an exception is set and nothing was taken. */
static bool submit_payload(struct hp_ext_hub *self, const struct hp_options *options,
                           PyObject *object, struct hp_ext_item *item, int64_t timeout_ms)
{
    struct payload payload;
    if (!payload_take(&payload, object)) {
        hp_ext_item_drop(item);
        return false;
    }
    struct one one = {
        .hub = self->core->hub, .options = options, .payload = &payload, .item = item};
    enum hp_status status = HP_STATUS_NO_MEMORY;
    if (payload.bytes <= HP_PAYLOAD_INLINE_BYTES || payload_lend(&payload, item)) {
        status = submit_one(&one, 0);
        if (status == HP_STATUS_TIMEOUT && timeout_ms != 0) {
            status = submit_waiting(self, &one, timeout_ms);
        }
    }
    payload_clear(&payload);
    if (status == HP_STATUS_OK) {
        return true; /* the item may be gone already */
    }
    hp_ext_item_drop(item);
    if (PyErr_Occurred() == NULL) {
        (void)hp_ext_raise(status, hp_hub_error(self->core->hub));
    }
    return false;
}

PyObject *hp_ext_submit(PyObject *object, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"options", "payload", "user", "timeout", NULL};
    struct hp_ext_hub *self = (struct hp_ext_hub *)object;
    PyObject *options_object = NULL;
    PyObject *payload = NULL;
    PyObject *user = Py_None;
    PyObject *timeout = NULL;
    int64_t timeout_ms;
    bool is_parsed =
        kwds == NULL ? PyArg_UnpackTuple(args, "submit", 2, 4, &options_object, &payload, &user,
                                         &timeout) != 0
                     : PyArg_ParseTupleAndKeywords(args, kwds, "OO|OO:submit", names,
                                                   &options_object, &payload, &user, &timeout) != 0;
    if (!is_parsed || !hp_ext_timeout(timeout, &timeout_ms)) {
        return NULL;
    }
    const struct hp_options *options = hp_ext_options(options_object);
    if (options == NULL || !hp_ext_enter(self)) {
        return NULL;
    }
    struct hp_ext_item *item = hp_ext_item_new(self, user, 0);
    bool is_good = item != NULL && submit_payload(self, options, payload, item, timeout_ms);
    if (!hp_ext_leave(self) || !is_good) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- many */

struct many {
    uint32_t first; /* of the tuples */
    uint32_t count;
    struct payload *payloads;
    struct hp_bytes *bytes;
    void **items;
    uint32_t payload_count; /* taken so far */
    uint32_t item_count;
};

static void many_clear(struct many *many)
{
    for (uint32_t i = 0; i < many->payload_count; i++) {
        payload_clear(&many->payloads[i]);
    }
    free(many->payloads);
    free(many->bytes);
    free(many->items);
}

/* Takes a range of payloads and users, which are tuples (users may be one object for all). */
static bool many_fill(struct hp_ext_hub *self, struct many *many, PyObject *payloads,
                      PyObject *users, bool is_one_user)
{
    size_t room = (size_t)many->count + 1;
    many->payloads = calloc(room, sizeof *many->payloads);
    many->bytes = calloc(room, sizeof *many->bytes);
    many->items = calloc(room, sizeof *many->items);
    if (many->payloads == NULL || many->bytes == NULL || many->items == NULL) {
        (void)PyErr_NoMemory();
        return false;
    }
    for (uint32_t i = 0; i < many->count; i++) {
        struct payload *payload = &many->payloads[i];
        uint32_t index = many->first + i;
        if (!payload_take(payload, PyTuple_GetItem(payloads, index))) {
            return false;
        }
        many->payload_count++;
        many->bytes[i] = payload->pieces[0];
        struct hp_ext_item *item =
            hp_ext_item_new(self, is_one_user ? users : PyTuple_GetItem(users, index), index);
        if (item == NULL) {
            return false;
        }
        many->items[many->item_count++] = item;
        if (payload->bytes > HP_PAYLOAD_INLINE_BYTES && !payload_lend(payload, item)) {
            return false;
        }
    }
    return true;
}

static enum hp_status many_send(struct hp_ext_hub *self, const struct hp_options *options,
                                struct many *many, int64_t timeout_ms)
{
    uint64_t end_ms = timeout_ms < 0 ? UINT64_MAX : hp_ext_now_ms() + (uint64_t)timeout_ms;
    enum hp_status status = HP_STATUS_TIMEOUT;
    bool is_last = false;
    while (status == HP_STATUS_TIMEOUT && !is_last) {
        uint64_t now_ms = hp_ext_now_ms();
        uint64_t left_ms = end_ms > now_ms ? end_ms - now_ms : 0;
        is_last = left_ms <= WAIT_SLICE_MS;
        hp_ext_reap(self);
        Py_BEGIN_ALLOW_THREADS status =
            hp_hub_submit(self->core->hub, options, many->bytes, many->count, many->items,
                          is_last ? (int64_t)left_ms : WAIT_SLICE_MS);
        Py_END_ALLOW_THREADS if (status == HP_STATUS_TIMEOUT && is_given_up(options))
        {
            break;
        }
    }
    return status;
}

static bool submit_range(struct hp_ext_hub *self, const struct hp_options *options,
                         PyObject *payloads, PyObject *users, bool is_one_user, int64_t timeout_ms,
                         uint32_t first, uint32_t count)
{
    struct many many = {.first = first, .count = count};
    enum hp_status status = HP_STATUS_NO_MEMORY;
    if (many_fill(self, &many, payloads, users, is_one_user)) {
        status = many_send(self, options, &many, timeout_ms);
    }
    if (status != HP_STATUS_OK) {
        for (uint32_t i = 0; i < many.item_count; i++) {
            hp_ext_item_drop(many.items[i]);
        }
        if (PyErr_Occurred() == NULL) {
            (void)hp_ext_raise(status, hp_hub_error(self->core->hub));
        }
    }
    many_clear(&many);
    return status == HP_STATUS_OK;
}

static bool is_pieces(PyObject *payload)
{
    return PyTuple_Check(payload) || PyList_Check(payload);
}

/* Runs of payloads of one piece go together, those of several one by one. After an error the first
 * ones may have been submitted: their ends come nevertheless. */
static bool submit_tuples(struct hp_ext_hub *self, const struct hp_options *options,
                          PyObject *payloads, PyObject *users, bool is_one_user, int64_t timeout_ms)
{
    uint32_t count = (uint32_t)PyTuple_Size(payloads);
    bool is_good = true;
    for (uint32_t at = 0; is_good && at < count;) {
        uint32_t end = at;
        while (end < count && !is_pieces(PyTuple_GetItem(payloads, end))) {
            end++;
        }
        if (end > at) {
            is_good =
                submit_range(self, options, payloads, users, is_one_user, timeout_ms, at, end - at);
            at = end;
            continue;
        }
        struct hp_ext_item *item =
            hp_ext_item_new(self, is_one_user ? users : PyTuple_GetItem(users, at), at);
        is_good = item != NULL &&
                  submit_payload(self, options, PyTuple_GetItem(payloads, at), item, timeout_ms);
        at++;
    }
    return is_good;
}

PyObject *hp_ext_submit_many(PyObject *object, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"options", "payloads", "users", "timeout", NULL};
    struct hp_ext_hub *self = (struct hp_ext_hub *)object;
    PyObject *options_object = NULL;
    PyObject *payloads = NULL;
    PyObject *users = Py_None;
    PyObject *timeout = NULL;
    int64_t timeout_ms;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "OO|OO:submit_many", names, &options_object,
                                     &payloads, &users, &timeout) ||
        !hp_ext_timeout(timeout, &timeout_ms)) {
        return NULL;
    }
    const struct hp_options *options = hp_ext_options(options_object);
    bool is_one_user = PyList_Check(users) == 0 && PyTuple_Check(users) == 0;
    PyObject *payload_tuple = options != NULL ? PySequence_Tuple(payloads) : NULL;
    PyObject *user_tuple = NULL;
    bool is_good = payload_tuple != NULL;
    if (is_good && !is_one_user) {
        user_tuple = PySequence_Tuple(users);
        is_good = user_tuple != NULL;
        if (is_good && PyTuple_Size(user_tuple) != PyTuple_Size(payload_tuple)) {
            PyErr_SetString(PyExc_ValueError, "submit_many: as many users as payloads");
            is_good = false;
        }
    }
    if (is_good && PyTuple_Size(payload_tuple) > 0) {
        is_good = hp_ext_enter(self);
        if (is_good) {
            is_good = submit_tuples(self, options, payload_tuple, is_one_user ? users : user_tuple,
                                    is_one_user, timeout_ms);
            is_good = hp_ext_leave(self) && is_good;
        }
    }
    Py_XDECREF(payload_tuple);
    Py_XDECREF(user_tuple);
    if (!is_good) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- others' tasks */

static void known(struct hp_ext_item *item, uint64_t id)
{
    (void)pthread_mutex_lock(&hp_ext_ids_lock);
    item->is_accepted = true;
    if (item->flag != NULL) {
        hp_ext_flag_accepted(item->flag, item->index, id);
    }
    (void)pthread_mutex_unlock(&hp_ext_ids_lock);
}

PyObject *hp_ext_attach(PyObject *object, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"first", "count", "users", NULL};
    struct hp_ext_hub *self = (struct hp_ext_hub *)object;
    unsigned long long first;
    unsigned int count;
    PyObject *users = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "KI|O:attach", names, &first, &count, &users)) {
        return NULL;
    }
    bool is_list = PyList_Check(users) || PyTuple_Check(users);
    PyObject *tuple = is_list ? PySequence_Tuple(users) : NULL;
    if (is_list && tuple != NULL && PyTuple_Size(tuple) != (Py_ssize_t)count) {
        PyErr_SetString(PyExc_ValueError, "attach: as many users as tasks");
    }
    void **items = calloc((size_t)count + 1, sizeof *items);
    if (items == NULL) {
        (void)PyErr_NoMemory();
    }
    bool is_inside = PyErr_Occurred() == NULL && hp_ext_enter(self);
    bool is_good = is_inside;
    for (uint32_t i = 0; is_good && i < count; i++) {
        items[i] = hp_ext_item_new(self, is_list ? PyTuple_GetItem(tuple, i) : users, i);
        is_good = items[i] != NULL;
        if (is_good) {
            known(items[i], first + i);
        }
    }
    if (is_good) {
        enum hp_status status;
        Py_BEGIN_ALLOW_THREADS status = hp_hub_attach(self->core->hub, first, count, items);
        Py_END_ALLOW_THREADS is_good = status == HP_STATUS_OK;
        if (!is_good) {
            (void)hp_ext_raise(status, hp_hub_error(self->core->hub));
        }
    }
    for (uint32_t i = 0; is_inside && !is_good && i < count && items[i] != NULL; i++) {
        hp_ext_item_drop(items[i]);
    }
    free(items);
    Py_XDECREF(tuple);
    if ((is_inside && !hp_ext_leave(self)) || !is_good) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- pools */

/* Submits the pool and waits until it has an id. */
static PyObject *open_pool(struct hp_ext_hub *self, const struct hp_options *options,
                           PyObject *payload, PyObject *user, int64_t timeout_ms)
{
    bool is_mine = user == NULL || user == Py_None;
    PyObject *flag_object =
        is_mine ? PyObject_CallFunctionObjArgs((PyObject *)hp_ext_flag_type, NULL) : user;
    if (flag_object == NULL) {
        return NULL;
    }
    struct hp_ext_flag *flag = (struct hp_ext_flag *)flag_object;
    if (!is_mine) {
        Py_INCREF(flag_object);
    }
    struct hp_ext_item *item = hp_ext_item_new(self, flag_object, 0);
    bool is_good = item != NULL;
    if (is_good) {
        item->is_quiet = is_mine;
        is_good = submit_payload(self, options, payload, item, timeout_ms);
    }
    int over = is_good ? hp_ext_wait_flag(self, flag, true, timeout_ms) : -1;
    PyObject *id = NULL;
    if (over == 0) {
        enum hp_status status;
        Py_BEGIN_ALLOW_THREADS status = hp_hub_late(self->core->hub);
        Py_END_ALLOW_THREADS(void) hp_ext_raise(status, hp_hub_error(self->core->hub));
    } else if (over > 0 && atomic_load(&flag->id) == 0) {
        (void)hp_ext_raise(flag->failed, flag->failed_text);
    } else if (over > 0) {
        id = PyLong_FromUnsignedLongLong(atomic_load(&flag->id));
    }
    Py_DECREF(flag_object);
    return id;
}

PyObject *hp_ext_pool_open(PyObject *object, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"options", "payload", "user", "timeout", NULL};
    struct hp_ext_hub *self = (struct hp_ext_hub *)object;
    PyObject *options_object = NULL;
    PyObject *payload = NULL;
    PyObject *user = NULL;
    PyObject *timeout = NULL;
    int64_t timeout_ms;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "OO|OO:pool_open", names, &options_object,
                                     &payload, &user, &timeout) ||
        !hp_ext_timeout(timeout, &timeout_ms)) {
        return NULL;
    }
    const struct hp_options *options = hp_ext_options(options_object);
    if (options == NULL) {
        return NULL;
    }
    if (user != NULL && user != Py_None && PyObject_TypeCheck(user, hp_ext_flag_type) == 0) {
        PyErr_SetString(PyExc_TypeError, "pool_open: the user must be a Flag");
        return NULL;
    }
    if (!hp_ext_enter(self)) {
        return NULL;
    }
    PyObject *id = open_pool(self, options, payload, user, timeout_ms);
    if (!hp_ext_leave(self)) {
        Py_CLEAR(id);
    }
    return id;
}
