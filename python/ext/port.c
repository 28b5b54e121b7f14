/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The child's end of a worker: zygote() forks children for the daemon and returns in each with its
 * Port, which gives calls and takes their ends.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "python/ext/ext.h"
#include "worker/exec/language.h"
#include "worker/exec/port.h"

#define TEXT_BYTES_MAX 4096

struct port {
    PyObject_HEAD struct hp_port *port;
};

PyTypeObject *hp_ext_port_type;

/* The payload of a call: bytes, or the mapped file if it is large. The mapping is private and
 * writable, so that arrays in it are arrays like others. */
static PyObject *payload_of(const struct hp_port_call *call)
{
    if (call->payload_fd < 0) {
        return PyBytes_FromStringAndSize((const char *)call->payload.data,
                                         (Py_ssize_t)call->payload.size);
    }
    size_t size = (size_t)call->payload_bytes;
    void *map = size == 0
                    ? MAP_FAILED
                    : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, call->payload_fd, 0);
    int error_number = errno;
    (void)close(call->payload_fd);
    if (size == 0) {
        return PyBytes_FromStringAndSize("", 0);
    }
    if (map == MAP_FAILED) {
        errno = error_number;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return hp_ext_buffer_map(map, size);
}

static PyObject *port_next(PyObject *object, PyObject *unused)
{
    struct port *self = (struct port *)object;
    struct hp_port_call call;
    (void)unused;
    int got = hp_port_next(self->port, &call, false);
    while (got == 0) {
        Py_BEGIN_ALLOW_THREADS got = hp_port_next(self->port, &call, true);
        Py_END_ALLOW_THREADS if (got == 0 && PyErr_CheckSignals() != 0)
        {
            return NULL;
        }
    }
    if (got < 0) {
        Py_RETURN_NONE;
    }
    PyObject *payload = payload_of(&call);
    if (payload == NULL) {
        /* The call runs and must end: its payload is told to be the exception. */
        PyObject *type;
        PyObject *value;
        PyObject *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyErr_NormalizeException(&type, &value, &trace);
        Py_XDECREF(type);
        Py_XDECREF(trace);
        payload = value;
    }
    return Py_BuildValue("NNKIKKK", PyBool_FromLong(call.is_init), payload,
                         (unsigned long long)call.task_id, call.attempt,
                         (unsigned long long)call.epoch, (unsigned long long)call.array_index,
                         (unsigned long long)call.pool);
}

/* Sends the end. The GIL is kept for what is small: then it is a copy into shared memory. */
static PyObject *send_done(struct port *self, enum hp_exec_call_status status, PyObject *text,
                           const struct hp_bin *pieces, size_t piece_count, size_t bytes)
{
    char *words = NULL;
    Py_ssize_t word_bytes = 0;
    int error_number;
    if (PyBytes_AsStringAndSize(text, &words, &word_bytes) != 0) {
        return NULL;
    }
    if (word_bytes > TEXT_BYTES_MAX) {
        word_bytes = TEXT_BYTES_MAX;
    }
    if (bytes <= HP_EXEC_INLINE_BYTES_MAX) {
        error_number =
            hp_port_done(self->port, status, words, (size_t)word_bytes, pieces, piece_count, 0);
    } else {
        Py_BEGIN_ALLOW_THREADS error_number =
            hp_port_done(self->port, status, words, (size_t)word_bytes, pieces, piece_count, 0);
        Py_END_ALLOW_THREADS
    }
    if (error_number != 0) {
        errno = error_number;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

/* False: OverflowError is set. */
static bool piece_of(const void *data, Py_ssize_t size, struct hp_bin *ret_piece)
{
    if ((uint64_t)size > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "the result is larger than a result may be");
        return false;
    }
    *ret_piece = (struct hp_bin){.data = data, .size = (uint32_t)size};
    return true;
}

static PyObject *done_pieces(struct port *self, enum hp_exec_call_status status, PyObject *text,
                             PyObject *data)
{
    size_t count = (size_t)PyTuple_Size(data);
    Py_buffer *views = calloc(count + 1, sizeof *views);
    struct hp_bin *pieces = calloc(count + 1, sizeof *pieces);
    size_t taken = 0;
    size_t bytes = 0;
    PyObject *value = NULL;
    bool is_good = views != NULL && pieces != NULL;
    if (!is_good) {
        (void)PyErr_NoMemory();
    }
    while (is_good && taken < count) {
        PyObject *piece = PyTuple_GetItem(data, (Py_ssize_t)taken);
        if (PyObject_GetBuffer(piece, &views[taken], PyBUF_SIMPLE) != 0) {
            is_good = false;
            break;
        }
        bytes += (size_t)views[taken].len;
        is_good = piece_of(views[taken].buf, views[taken].len, &pieces[taken]);
        taken++; /* the view is held either way */
    }
    if (is_good) {
        value = send_done(self, status, text, pieces, count, bytes);
    }
    for (size_t i = 0; i < taken; i++) {
        PyBuffer_Release(&views[i]);
    }
    free(views);
    free(pieces);
    return value;
}

static PyObject *port_done(PyObject *object, PyObject *args)
{
    struct port *self = (struct port *)object;
    int is_ok;
    PyObject *text = NULL;
    PyObject *data = NULL;
    if (!PyArg_ParseTuple(args, "pSO:done", &is_ok, &text, &data)) {
        return NULL;
    }
    enum hp_exec_call_status status = is_ok != 0 ? HP_EXEC_CALL_OK : HP_EXEC_CALL_ERROR;
    if (PyBytes_CheckExact(data)) {
        char *bytes = NULL;
        Py_ssize_t size = 0;
        (void)PyBytes_AsStringAndSize(data, &bytes, &size);
        struct hp_bin piece;
        if (!piece_of(bytes, size, &piece)) {
            return NULL;
        }
        return send_done(self, status, text, &piece, 1, (size_t)size);
    }
    PyObject *pieces =
        PyTuple_Check(data) || PyList_Check(data) ? PySequence_Tuple(data) : PyTuple_Pack(1, data);
    if (pieces == NULL) {
        return NULL;
    }
    PyObject *value = done_pieces(self, status, text, pieces);
    Py_DECREF(pieces);
    return value;
}

static PyObject *port_waits(PyObject *object, PyObject *on)
{
    int truth = PyObject_IsTrue(on);
    if (truth < 0) {
        return NULL;
    }
    hp_port_waits(((struct port *)object)->port, truth != 0);
    Py_RETURN_NONE;
}

static PyObject *port_fd(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(hp_port_fd(((struct port *)object)->port));
}

/* The port itself stays open as long as the process: its daemon counts on it. */
static void port_dealloc(PyObject *object)
{
    hp_ext_free(object);
}

static PyMethodDef port_methods[] = {
    {"next", port_next, METH_NOARGS,
     "next() -> (is_init, payload, task_id, attempt, epoch, index, pool), or None at the end. The "
     "payload is bytes, a Buffer, or the OSError that came instead."},
    {"done", port_done, METH_VARARGS,
     "done(ok, text, data): the end of the call; text is bytes, data bytes-like or a tuple of it."},
    {"waits", port_waits, METH_O, "waits(on): the call waits for other tasks of hostpool."},
    {"fileno", port_fd, METH_NOARGS, "Its socket, which must not be closed."},
    {0},
};
static PyType_Slot port_slots[] = {
    {Py_tp_doc, (void *)"The child's end of its worker; made by zygote()."},
    {Py_tp_dealloc, HP_EXT_SLOT(port_dealloc)},
    {Py_tp_methods, port_methods},
    {0, NULL},
};
static PyType_Spec port_spec = {.name = "hostpool._hostpool.Port",
                                .basicsize = sizeof(struct port),
                                .flags = Py_TPFLAGS_DEFAULT,
                                .slots = port_slots};

bool hp_ext_add_port(PyObject *module)
{
    return hp_ext_add_type(module, &port_spec, "Port", &hp_ext_port_type);
}

PyObject *hp_ext_zygote(PyObject *module, PyObject *args)
{
    static const struct hp_language_hooks hooks = {.before_fork = PyOS_BeforeFork,
                                                   .after_fork_parent = PyOS_AfterFork_Parent,
                                                   .after_fork_child = PyOS_AfterFork_Child};
    const char *ready_text = NULL;
    struct hp_port *port = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "s:zygote", &ready_text)) {
        return NULL;
    }
    /* The GIL is kept: the zygote has one thread, and its children are forked under it. */
    if (hp_language_zygote(ready_text, &hooks, &port) != 0) {
        return hp_ext_raise(HP_STATUS_SYSTEM, "this is not a process that hostpool-worker started");
    }
    struct port *self = hp_ext_alloc(hp_ext_port_type);
    if (self != NULL) {
        self->port = port;
    }
    return (PyObject *)self;
}
