/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Buffer: bytes which Python code reads and writes in place (memoryview, numpy) and which are freed
 * with the last view. So a result of many megabytes is never copied.
 */
#include "python/ext/ext.h"

struct buffer {
    PyObject_HEAD struct hp_buffer bytes;
};

PyTypeObject *hp_ext_buffer_type;

PyObject *hp_ext_buffer_own(struct hp_buffer *buffer)
{
    struct buffer *self = hp_ext_alloc(hp_ext_buffer_type);
    if (self == NULL) {
        hp_buffer_clear(buffer);
        return NULL;
    }
    self->bytes = *buffer;
    *buffer = (struct hp_buffer){0};
    return (PyObject *)self;
}

PyObject *hp_ext_buffer_map(void *map, size_t size)
{
    struct hp_buffer bytes = {.data = map, .size = size, .mapped = size};
    return hp_ext_buffer_own(&bytes);
}

static void buffer_dealloc(PyObject *object)
{
    struct buffer *self = (struct buffer *)object;
    hp_buffer_clear(&self->bytes);
    hp_ext_free(object);
}

static int buffer_get(PyObject *object, Py_buffer *view, int flags)
{
    static char nothing[1];
    struct buffer *self = (struct buffer *)object;
    void *data = self->bytes.data != NULL ? self->bytes.data : nothing;
    return PyBuffer_FillInfo(view, object, data, (Py_ssize_t)self->bytes.size, 0, flags);
}

static Py_ssize_t buffer_length(PyObject *object)
{
    return (Py_ssize_t)((struct buffer *)object)->bytes.size;
}

static PyType_Slot buffer_slots[] = {
    {Py_tp_doc, (void *)"Bytes owned by this object: memoryview(buffer) is writable, no copy."},
    {Py_tp_dealloc, HP_EXT_SLOT(buffer_dealloc)},
    {Py_bf_getbuffer, HP_EXT_SLOT(buffer_get)},
    {Py_sq_length, HP_EXT_SLOT(buffer_length)},
    {0, NULL},
};
static PyType_Spec buffer_spec = {.name = "hostpool._hostpool.Buffer",
                                  .basicsize = sizeof(struct buffer),
                                  .flags = Py_TPFLAGS_DEFAULT,
                                  .slots = buffer_slots};

bool hp_ext_add_buffer(PyObject *module)
{
    return hp_ext_add_type(module, &buffer_spec, "Buffer", &hp_ext_buffer_type);
}
