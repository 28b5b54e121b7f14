/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hub: a connection to the broker that all threads of a program share (client/hub.h), its life and
 * the waiting. Submits are in submit.c, blocking calls in calls.c, what comes back in ends.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "python/ext/ext.h"

#define WAIT_SLICE_MS 100 /* how late a signal is seen at worst */
#define CLOSE_WAIT_MS 5000

PyTypeObject *hp_ext_hub_type;

static struct hp_ext_hub *all_hubs;
static unsigned long exiting; /* the thread that ends the program; 0: none yet */

static struct hp_ext_hub *hub_of(PyObject *object)
{
    return (struct hp_ext_hub *)object;
}

/* ---------------------------------------------------------------- in and out */

/* At the end of the program only daemon threads are left beside the one that ends it. They stop
 * where they are, as Python's own do, instead of failing for all to see. */
static void stop_if_exiting(void)
{
    if (exiting != 0 && exiting != PyThread_get_thread_ident()) {
        Py_BEGIN_ALLOW_THREADS for (;;)
        {
            (void)pause();
        }
        Py_END_ALLOW_THREADS
    }
}

bool hp_ext_enter(struct hp_ext_hub *self)
{
    stop_if_exiting();
    if (self->core == NULL || atomic_load(&self->core->is_closing)) {
        (void)hp_ext_raise(HP_STATUS_STOPPED, "the connection is closed");
        return false;
    }
    atomic_fetch_add(&self->inside, 1);
    hp_ext_reap(self);
    return true;
}

bool hp_ext_leave(struct hp_ext_hub *self)
{
    atomic_fetch_sub(&self->inside, 1);
    stop_if_exiting();
    if (self->interrupted == 0 || self->interrupted != PyThread_get_thread_ident()) {
        return true;
    }
    self->interrupted = 0;
    if (PyErr_Occurred() == NULL) {
        PyErr_SetNone(PyExc_KeyboardInterrupt);
    }
    return false;
}

/* ---------------------------------------------------------------- birth and end */

static bool text_argument(PyObject *value, const char *name, const char **ret_text,
                          PyObject **ret_bytes)
{
    *ret_text = NULL;
    if (value == NULL || value == Py_None) {
        return true;
    }
    if (PyUnicode_Check(value)) {
        *ret_bytes = PyUnicode_AsUTF8String(value);
    } else {
        PyErr_Format(PyExc_TypeError, "%s must be a str", name);
    }
    char *text = NULL;
    if (*ret_bytes == NULL || PyBytes_AsStringAndSize(*ret_bytes, &text, NULL) != 0) {
        return false;
    }
    *ret_text = text;
    return true;
}

/* Opens the hub of the object; false: an exception is set. */
static bool open_hub(struct hp_ext_hub *self, PyObject *const texts[4])
{
    static const char *const names[4] = {"host", "token", "token_file", "name"};
    PyObject *bytes[4] = {NULL, NULL, NULL, NULL};
    struct hp_client_options options;
    hp_client_options_init(&options);
    options.name = "hostpool (Python)";
    const char **places[4] = {&options.host, &options.token, &options.token_file, &options.name};
    bool is_good = true;
    for (int i = 0; is_good && i < 4; i++) {
        if (i < 3 || (texts[i] != NULL && texts[i] != Py_None)) {
            is_good = text_argument(texts[i], names[i], places[i], &bytes[i]);
        }
    }
    struct hp_ext_core *core = is_good ? calloc(1, sizeof *core) : NULL;
    if (is_good && core == NULL) {
        (void)PyErr_NoMemory();
    } else if (core != NULL) {
        core->self = self;
        enum hp_status status = hp_hub_new(&options, &hp_ext_callbacks, core, &core->hub);
        if (status == HP_STATUS_OK) {
            self->core = core;
        } else {
            (void)hp_ext_raise(status, core->hub != NULL ? hp_hub_error(core->hub) : NULL);
            hp_hub_free(core->hub);
            free(core);
        }
    }
    for (int i = 0; i < 4; i++) {
        Py_XDECREF(bytes[i]);
    }
    return self->core != NULL;
}

static PyObject *hub_new(PyTypeObject *type, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"host", "token", "token_file", "name", "handler", NULL};
    PyObject *texts[4] = {NULL, NULL, NULL, NULL};
    PyObject *handler = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "|OOOOO:Hub", names, &texts[0], &texts[1],
                                     &texts[2], &texts[3], &handler)) {
        return NULL;
    }
    struct hp_ext_hub *self = hp_ext_alloc(type);
    if (self == NULL) {
        return NULL;
    }
    self->items.next = self->items.previous = &self->items;
    if (handler != NULL && handler != Py_None) {
        Py_INCREF(handler);
        self->handler = handler;
    }
    self->next_hub = all_hubs;
    if (all_hubs != NULL) {
        all_hubs->previous_hub = self;
    }
    all_hubs = self;
    if (!open_hub(self, texts)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void *free_elsewhere(void *argument)
{
    struct hp_ext_core *core = argument;
    hp_hub_free(core->hub);
    free(core);
    return NULL;
}

/* Frees the hub on a thread of its own: this one is inside of it, or somebody does not come out. */
static void free_later(struct hp_ext_core *core)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, free_elsewhere, core) == 0) {
        (void)pthread_detach(thread);
    } /* else it is leaked: better than a crash */
}

/* Waits, without the GIL, until nobody else is in a function of the hub. */
static bool wait_alone(struct hp_ext_hub *self)
{
    uint64_t end_ms = hp_ext_now_ms() + CLOSE_WAIT_MS;
    struct timespec pause = {.tv_nsec = 500000};
    while (atomic_load(&self->inside) > 0) {
        if (hp_ext_now_ms() > end_ms) {
            return false;
        }
        (void)nanosleep(&pause, NULL);
    }
    return true;
}

static void close_hub(struct hp_ext_hub *self)
{
    struct hp_ext_core *core = self->core;
    if (core == NULL || atomic_load(&core->is_closing)) {
        return;
    }
    (void)pthread_mutex_lock(&hp_ext_ids_lock);
    atomic_store(&core->is_closing, true);
    (void)pthread_mutex_unlock(&hp_ext_ids_lock);
    hp_hub_wake(core->hub);
    if (self->deliverer == PyThread_get_thread_ident()) {
        return; /* from inside the handler: hub_dealloc does the rest */
    }
    bool is_alone;
    Py_BEGIN_ALLOW_THREADS is_alone = wait_alone(self);
    if (is_alone) {
        hp_hub_free(core->hub);
    }
    Py_END_ALLOW_THREADS if (is_alone)
    {
        self->core = NULL;
        free(core);
        hp_ext_items_drop_all(self, false);
    }
}

static void hub_dealloc(PyObject *object)
{
    struct hp_ext_hub *self = hub_of(object);
    PyObject_GC_UnTrack(object);
    close_hub(self);
    struct hp_ext_core *core = self->core;
    self->core = NULL;
    hp_ext_items_drop_all(self, core != NULL);
    if (core != NULL) {
        free_later(core);
    }
    if (self->next_hub != NULL) {
        self->next_hub->previous_hub = self->previous_hub;
    }
    if (self->previous_hub != NULL) {
        self->previous_hub->next_hub = self->next_hub;
    } else {
        all_hubs = self->next_hub;
    }
    Py_CLEAR(self->handler);
    Py_CLEAR(self->node);
    hp_ext_free(object);
}

static int hub_traverse(PyObject *object, visitproc visit, void *arg)
{
    struct hp_ext_hub *self = hub_of(object);
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->handler);
    for (struct hp_ext_item *item = self->items.next; item != NULL && item != &self->items;
         item = item->next) {
        Py_VISIT(item->user);
    }
    return 0;
}

static int hub_clear(PyObject *object)
{
    /* The users go with hub_dealloc, after the hub that still knows the items. */
    Py_CLEAR(hub_of(object)->handler);
    return 0;
}

static PyObject *hub_close(PyObject *object, PyObject *unused)
{
    (void)unused;
    close_hub(hub_of(object));
    Py_RETURN_NONE;
}

/* At the end of the process: no thread may ask for the GIL of an interpreter that is gone. */
static PyObject *close_all(PyObject *unused, PyObject *unused_too)
{
    (void)unused;
    (void)unused_too;
    exiting = PyThread_get_thread_ident();
    for (struct hp_ext_hub *self = all_hubs; self != NULL;) {
        Py_INCREF(self);
        close_hub(self);
        struct hp_ext_hub *next = self->next_hub;
        Py_DECREF(self);
        self = next;
    }
    Py_RETURN_NONE;
}

static PyObject *hub_after_fork(PyObject *object, PyObject *unused)
{
    struct hp_ext_hub *self = hub_of(object);
    (void)unused;
    if (self->core == NULL || atomic_load(&self->core->is_closing)) {
        Py_RETURN_NONE;
    }
    (void)pthread_mutex_init(&hp_ext_ids_lock, NULL); /* a thread of the parent may have had it */
    atomic_store(&self->inside, 0);
    self->deliverer = 0;
    self->interrupted = 0;
    atomic_store(&self->core->queue, NULL);
    enum hp_status status = hp_hub_after_fork(self->core->hub);
    hp_ext_items_drop_all(self, false);
    if (status != HP_STATUS_OK) {
        return hp_ext_raise(status, hp_hub_error(self->core->hub));
    }
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- waiting */

struct waiting {
    const struct hp_ext_flag *flag;
    const struct hp_ext_core *core;
    bool accepted;
};

static bool is_done(void *argument)
{
    const struct waiting *waiting = argument;
    const struct hp_ext_flag *flag = waiting->flag;
    return atomic_load(&flag->is_set) || atomic_load(&waiting->core->is_closing) ||
           (waiting->accepted && (atomic_load(&flag->id) != 0 || flag->failed != HP_STATUS_OK));
}

/* Why the broker refuses this client; false: it does not any more. */
static bool raise_trouble(struct hp_ext_hub *self)
{
    enum hp_status status;
    Py_BEGIN_ALLOW_THREADS status = hp_hub_trouble(self->core->hub);
    Py_END_ALLOW_THREADS if (status != HP_STATUS_OK)
    {
        (void)hp_ext_raise(status, hp_hub_error(self->core->hub));
    }
    return status != HP_STATUS_OK;
}

/* One bounded wait without the GIL. 1, 0, -1 (an exception is set). */
static int wait_slice(struct hp_ext_hub *self, struct waiting *waiting, int64_t slice_ms)
{
    bool is_over;
    int error_number;
    Py_BEGIN_ALLOW_THREADS is_over = hp_hub_wait(self->core->hub, is_done, waiting, slice_ms);
    error_number = errno;
    Py_END_ALLOW_THREADS if (is_over)
    {
        return 1;
    }
    if (PyErr_CheckSignals() != 0 || self->interrupted == PyThread_get_thread_ident()) {
        return -1; /* hp_ext_leave raises the interrupt */
    }
    if (error_number == ECANCELED) {
        (void)hp_ext_raise(HP_STATUS_STOPPED, hp_hub_error(self->core->hub));
        return -1;
    }
    return error_number == EACCES && raise_trouble(self) ? -1 : 0;
}

int hp_ext_wait_flag(struct hp_ext_hub *self, struct hp_ext_flag *flag, bool accepted,
                     int64_t timeout_ms)
{
    struct waiting waiting = {.flag = flag, .core = self->core, .accepted = accepted};
    if (is_done(&waiting)) {
        return 1;
    }
    uint64_t end_ms = timeout_ms < 0 ? UINT64_MAX : hp_ext_now_ms() + (uint64_t)timeout_ms;
    int over = 0;
    flag->waited_at = self;
    flag->waiter_count++;
    for (bool is_last = false; over == 0 && !is_last;) {
        uint64_t now_ms = hp_ext_now_ms();
        uint64_t left_ms = end_ms > now_ms ? end_ms - now_ms : 0;
        is_last = left_ms <= WAIT_SLICE_MS;
        over = wait_slice(self, &waiting, is_last ? (int64_t)left_ms : WAIT_SLICE_MS);
        /* A signal ends a wait early: the time is over when the clock says so. */
        is_last = is_last && hp_ext_now_ms() >= end_ms;
    }
    flag->waiter_count--;
    if (over > 0 && atomic_load(&self->core->is_closing) && !atomic_load(&flag->is_set)) {
        (void)hp_ext_raise(HP_STATUS_STOPPED, "the connection is closed");
        over = -1;
    }
    return over;
}

static PyObject *wait_for(PyObject *object, PyObject *args, PyObject *kwds, bool accepted)
{
    static char *names[] = {"flag", "timeout", NULL};
    struct hp_ext_hub *self = hub_of(object);
    PyObject *flag = NULL;
    PyObject *timeout = NULL;
    int64_t timeout_ms;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "O|O:wait", names, &flag, &timeout) ||
        !hp_ext_timeout(timeout, &timeout_ms)) {
        return NULL;
    }
    if (PyObject_TypeCheck(flag, hp_ext_flag_type) == 0) {
        PyErr_SetString(PyExc_TypeError, "wait: hostpool._hostpool.Flag expected");
        return NULL;
    }
    struct hp_ext_flag *waited = (struct hp_ext_flag *)flag;
    if (atomic_load(&waited->is_set)) {
        Py_RETURN_TRUE;
    }
    if (!hp_ext_enter(self)) {
        return NULL;
    }
    Py_INCREF(self);
    int over = hp_ext_wait_flag(self, waited, accepted, timeout_ms);
    bool is_good = hp_ext_leave(self);
    Py_DECREF(self);
    if (over < 0 || !is_good) {
        return NULL;
    }
    return PyBool_FromLong(over > 0 && (accepted || atomic_load(&waited->is_set)));
}

static PyObject *hub_wait(PyObject *object, PyObject *args, PyObject *kwds)
{
    return wait_for(object, args, kwds, false);
}

static PyObject *hub_wait_accepted(PyObject *object, PyObject *args, PyObject *kwds)
{
    return wait_for(object, args, kwds, true);
}

static PyObject *hub_flush(PyObject *object, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"timeout", NULL};
    struct hp_ext_hub *self = hub_of(object);
    PyObject *timeout = NULL;
    int64_t timeout_ms;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "|O:flush", names, &timeout) ||
        !hp_ext_timeout(timeout, &timeout_ms) || !hp_ext_enter(self)) {
        return NULL;
    }
    uint64_t end_ms = timeout_ms < 0 ? UINT64_MAX : hp_ext_now_ms() + (uint64_t)timeout_ms;
    bool is_flushed = false;
    int error_number = 0;
    while (!is_flushed && PyErr_CheckSignals() == 0 &&
           !(error_number == EACCES && raise_trouble(self))) {
        uint64_t now_ms = hp_ext_now_ms();
        uint64_t left_ms = end_ms > now_ms ? end_ms - now_ms : 0;
        Py_BEGIN_ALLOW_THREADS is_flushed = hp_hub_flush(
            self->core->hub, left_ms < WAIT_SLICE_MS ? (int64_t)left_ms : WAIT_SLICE_MS);
        error_number = is_flushed ? 0 : errno;
        Py_END_ALLOW_THREADS if (hp_ext_now_ms() >= end_ms || atomic_load(&self->core->is_closing))
        {
            break;
        }
    }
    hp_ext_reap(self);
    return hp_ext_leave(self) && PyErr_Occurred() == NULL ? PyBool_FromLong(is_flushed) : NULL;
}

static PyObject *hub_wake(PyObject *object, PyObject *unused)
{
    struct hp_ext_hub *self = hub_of(object);
    (void)unused;
    if (self->core != NULL) {
        hp_hub_wake(self->core->hub);
    }
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- fields and the type */

static PyObject *hub_outstanding(PyObject *object, void *unused)
{
    struct hp_ext_core *core = hub_of(object)->core;
    (void)unused;
    return PyLong_FromUnsignedLongLong(core != NULL ? hp_hub_outstanding(core->hub) : 0);
}

static PyObject *hub_connected(PyObject *object, void *unused)
{
    struct hp_ext_core *core = hub_of(object)->core;
    (void)unused;
    return PyBool_FromLong(core != NULL && hp_hub_connected(core->hub));
}

static PyObject *hub_host(PyObject *object, void *unused)
{
    struct hp_ext_core *core = hub_of(object)->core;
    (void)unused;
    return hp_ext_text(core != NULL ? hp_hub_host(core->hub) : NULL);
}

static PyObject *hub_closed(PyObject *object, void *unused)
{
    struct hp_ext_core *core = hub_of(object)->core;
    (void)unused;
    return PyBool_FromLong(core == NULL || atomic_load(&core->is_closing));
}

#define KEYWORDS (METH_VARARGS | METH_KEYWORDS)

static PyMethodDef hub_methods[] = {
    {"submit", HP_EXT_KEYWORDS(hp_ext_submit), KEYWORDS, "submit(options, payload, user, timeout)"},
    {"submit_many", HP_EXT_KEYWORDS(hp_ext_submit_many), KEYWORDS,
     "submit_many(options, payloads, users, timeout)"},
    {"attach", HP_EXT_KEYWORDS(hp_ext_attach), KEYWORDS, "attach(first, count, users)"},
    {"wait", HP_EXT_KEYWORDS(hub_wait), KEYWORDS, "wait(flag, timeout) -> bool"},
    {"wait_accepted", HP_EXT_KEYWORDS(hub_wait_accepted), KEYWORDS,
     "wait_accepted(flag, timeout) -> bool"},
    {"flush", HP_EXT_KEYWORDS(hub_flush), KEYWORDS, "flush(timeout) -> bool"},
    {"wake", hub_wake, METH_NOARGS, "Makes all waiting threads look at their flags."},
    {"forget", hp_ext_forget, METH_VARARGS, "forget([(first, count), ...])"},
    {"pool_open", HP_EXT_KEYWORDS(hp_ext_pool_open), KEYWORDS,
     "pool_open(options, payload, user, timeout) -> id"},
    {"pool_info", HP_EXT_KEYWORDS(hp_ext_pool_info), KEYWORDS,
     "pool_info(id, wait_s, timeout) -> dict"},
    {"pool_end", HP_EXT_KEYWORDS(hp_ext_pool_end), KEYWORDS,
     "pool_end(id, terminate, timeout) -> phase"},
    {"pool_detach", HP_EXT_KEYWORDS(hp_ext_pool_detach), KEYWORDS, "pool_detach(id, on, timeout)"},
    {"pool_put", HP_EXT_KEYWORDS(hp_ext_pool_put), KEYWORDS,
     "pool_put(id, digest, data, timeout) -> known"},
    {"pool_get", HP_EXT_KEYWORDS(hp_ext_pool_get), KEYWORDS,
     "pool_get(id, digest, timeout) -> Buffer"},
    {"get", HP_EXT_KEYWORDS(hp_ext_get), KEYWORDS, "get(id, timeout) -> end"},
    {"task_state", HP_EXT_KEYWORDS(hp_ext_task_state), KEYWORDS,
     "task_state(id, timeout) -> (state, reason, attempt, node)"},
    {"task_wait", HP_EXT_KEYWORDS(hp_ext_task_wait), KEYWORDS, "task_wait(ids, timeout) -> bool"},
    {"cancel", HP_EXT_KEYWORDS(hp_ext_cancel), KEYWORDS,
     "cancel(ids, how, grace_s, reason, timeout) -> dict"},
    {"workers", HP_EXT_KEYWORDS(hp_ext_workers), KEYWORDS, "workers(timeout) -> list"},
    {"ping", HP_EXT_KEYWORDS(hp_ext_ping), KEYWORDS, "ping(timeout): is the broker there?"},
    {"close", hub_close, METH_NOARGS, "Ends the connection; nothing is delivered any more."},
    {"after_fork", hub_after_fork, METH_NOARGS, "In a forked child: a connection of its own."},
    {0},
};
static PyGetSetDef hub_fields[] = {
    {"outstanding", hub_outstanding, NULL, "Tasks whose end was not delivered.", NULL},
    {"connected", hub_connected, NULL, "Is there a connection?", NULL},
    {"host", hub_host, NULL, "The broker's HOST:PORT.", NULL},
    {"closed", hub_closed, NULL, "Was close() called?", NULL},
    {0},
};
static PyType_Slot hub_slots[] = {
    {Py_tp_doc, (void *)"Hub(host, token, token_file, name, handler): a connection to a broker."},
    {Py_tp_new, HP_EXT_SLOT(hub_new)},
    {Py_tp_dealloc, HP_EXT_SLOT(hub_dealloc)},
    {Py_tp_traverse, HP_EXT_SLOT(hub_traverse)},
    {Py_tp_clear, HP_EXT_SLOT(hub_clear)},
    {Py_tp_methods, hub_methods},
    {Py_tp_getset, hub_fields},
    {0, NULL},
};
static PyType_Spec hub_spec = {.name = "hostpool._hostpool.Hub",
                               .basicsize = sizeof(struct hp_ext_hub),
                               .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
                               .slots = hub_slots};

static PyMethodDef close_all_def = {"_close_all", close_all, METH_NOARGS, "Closes all hubs."};

bool hp_ext_add_hub(PyObject *module)
{
    PyObject *function = PyCFunction_New(&close_all_def, NULL);
    PyObject *atexit = PyImport_ImportModule("atexit");
    PyObject *value = NULL;
    if (function != NULL && atexit != NULL) {
        value = PyObject_CallMethod(atexit, "register", "O", function);
    }
    Py_XDECREF(function);
    Py_XDECREF(atexit);
    if (value == NULL) {
        return false;
    }
    Py_DECREF(value);
    return hp_ext_add_type(module, &hub_spec, "Hub", &hp_ext_hub_type);
}
