/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool._hostpool: the module itself and what all of its files use. */
#include <math.h>
#include <string.h>

#include "common/sys/clock.h"
#include "python/ext/ext.h"

PyObject *hp_ext_error;

bool hp_ext_add_type(PyObject *module, PyType_Spec *spec, const char *name, PyTypeObject **ret)
{
    PyObject *type = PyType_FromSpec(spec);
    if (type == NULL) {
        return false;
    }
    Py_INCREF(type); /* ours; the module's is given away */
    *ret = (PyTypeObject *)type;
    if (PyModule_AddObject(module, name, type) != 0) {
        Py_DECREF(type);
        return false;
    }
    return true;
}

void *hp_ext_alloc(PyTypeObject *type)
{
    return PyType_GenericAlloc(type, 0);
}

void hp_ext_free(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = __extension__(freefunc) PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

PyObject *hp_ext_raise(enum hp_status status, const char *text)
{
    if (status == HP_STATUS_NO_MEMORY) {
        return PyErr_NoMemory();
    }
    PyObject *words = hp_ext_text(text != NULL && text[0] != '\0' ? text : hp_strerror(status));
    PyObject *word = PyUnicode_FromString(hp_status_word(status));
    PyObject *error =
        words == NULL ? NULL : PyObject_CallFunctionObjArgs(hp_ext_error, words, NULL);
    if (error != NULL && word != NULL && PyObject_SetAttrString(error, "status", word) == 0) {
        PyErr_SetObject(hp_ext_error, error);
    }
    Py_XDECREF(error);
    Py_XDECREF(word);
    Py_XDECREF(words);
    return NULL;
}

uint64_t hp_ext_now_ms(void)
{
    return hp_clock_mono_ms();
}

bool hp_ext_timeout(PyObject *seconds, int64_t *ret_ms)
{
    *ret_ms = HP_TIMEOUT_NONE;
    if (seconds == NULL || seconds == Py_None) {
        return true;
    }
    double value = PyFloat_AsDouble(seconds);
    if (value == -1.0 && PyErr_Occurred() != NULL) {
        return false;
    }
    if (isnan(value)) {
        PyErr_SetString(PyExc_ValueError, "the timeout is not a number");
        return false;
    }
    /* As in multiprocessing, a negative time is over at once. */
    *ret_ms = value <= 0.0  ? 0
              : value > 4e9 ? (int64_t)HP_TIMEOUT_NONE
                            : (int64_t)ceil(value * 1000.0);
    return true;
}

PyObject *hp_ext_text(const char *text)
{
    if (text == NULL) {
        Py_RETURN_NONE;
    }
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
}

static PyMethodDef module_methods[] = {
    {"zygote", hp_ext_zygote, METH_VARARGS,
     "zygote(ready_text) -> Port\n\nForks children for the worker's daemon for as long as that "
     "lives; returns only in a child."},
    {0},
};
static struct PyModuleDef module_def = {PyModuleDef_HEAD_INIT, .m_name = "hostpool._hostpool",
                                        .m_doc = "The client library of hostpool, and the child's "
                                                 "end of a worker.",
                                        .m_size = -1, .m_methods = module_methods};

static bool add_error(PyObject *module)
{
    hp_ext_error = PyErr_NewExceptionWithDoc(
        "hostpool._hostpool.error",
        "An operation failed; status is the stable word for why (docs/protocol.md).", NULL, NULL);
    if (hp_ext_error == NULL) {
        return false;
    }
    Py_INCREF(hp_ext_error);
    if (PyModule_AddObject(module, "error", hp_ext_error) != 0) {
        Py_DECREF(hp_ext_error);
        return false;
    }
    return true;
}

PyMODINIT_FUNC PyInit__hostpool(void);
PyMODINIT_FUNC PyInit__hostpool(void)
{
    PyObject *module = PyModule_Create(&module_def);
    if (module == NULL) {
        return NULL;
    }
    if (add_error(module) && hp_ext_add_buffer(module) && hp_ext_add_flag(module) &&
        hp_ext_add_options(module) && hp_ext_add_hub(module) && hp_ext_add_port(module) &&
        PyModule_AddStringConstant(module, "version", hp_version()) == 0) {
        return module;
    }
    Py_DECREF(module);
    return NULL;
}
