/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Flag: what Hub.wait waits for. It is set from Python (the handler of ends), read without the GIL
 * by the thread that pumps, and learns the ids of the tasks submitted for it.
 */
#include <stdlib.h>
#include <string.h>

#include "python/ext/ext.h"

PyTypeObject *hp_ext_flag_type;
pthread_mutex_t hp_ext_ids_lock = PTHREAD_MUTEX_INITIALIZER;

void hp_ext_flag_accepted(struct hp_ext_flag *flag, uint32_t index, uint64_t id)
{
    struct hp_ext_range *last = flag->ranges + flag->range_count;
    if (flag->range_count > 0 && last[-1].index + last[-1].count == index &&
        last[-1].first + last[-1].count == id) {
        last[-1].count++;
        return;
    }
    if (flag->range_count == flag->range_room) {
        uint32_t room = flag->range_room == 0 ? 1 : flag->range_room * 2;
        void *ranges = realloc(flag->ranges, room * sizeof *flag->ranges);
        if (ranges == NULL) {
            return; /* the id stays unknown; the end tells it again */
        }
        flag->ranges = ranges;
        flag->range_room = room;
    }
    flag->ranges[flag->range_count++] =
        (struct hp_ext_range){.index = index, .count = 1, .first = id};
    if (index == 0 || atomic_load(&flag->id) == 0) {
        atomic_store(&flag->id, id);
    }
}

void hp_ext_flag_refused(struct hp_ext_flag *flag, enum hp_status status, const char *text)
{
    free(flag->failed_text);
    flag->failed_text = strdup(text);
    flag->failed = status;
}

static struct hp_ext_flag *flag_of(PyObject *object)
{
    return (struct hp_ext_flag *)object;
}

static int flag_init(PyObject *object, PyObject *args, PyObject *kwds)
{
    (void)object;
    (void)args;
    (void)kwds; /* those of a subclass are its own business */
    return 0;
}

static void flag_dealloc(PyObject *object)
{
    struct hp_ext_flag *flag = flag_of(object);
    free(flag->ranges);
    free(flag->failed_text);
    hp_ext_free(object);
}

static PyObject *flag_set(PyObject *object, PyObject *unused)
{
    struct hp_ext_flag *flag = flag_of(object);
    (void)unused;
    atomic_store(&flag->is_set, true);
    /* While ends are delivered, all who wait look again when that is over. */
    if (flag->waiter_count > 0 && flag->waited_at->deliverer == 0) {
        hp_hub_wake(flag->waited_at->core->hub);
    }
    Py_RETURN_NONE;
}

static PyObject *flag_clear(PyObject *object, PyObject *unused)
{
    (void)unused;
    atomic_store(&flag_of(object)->is_set, false);
    Py_RETURN_NONE;
}

static int flag_bool(PyObject *object)
{
    return atomic_load(&flag_of(object)->is_set);
}

static PyObject *flag_is_set(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(flag_bool(object));
}

static PyObject *flag_id(PyObject *object, void *unused)
{
    uint64_t id = atomic_load(&flag_of(object)->id);
    (void)unused;
    if (id == 0) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLongLong(id);
}

static PyObject *flag_ids(PyObject *object, PyObject *unused)
{
    struct hp_ext_flag *flag = flag_of(object);
    (void)unused;
    (void)pthread_mutex_lock(&hp_ext_ids_lock);
    uint32_t count = flag->range_count;
    size_t size = count * sizeof *flag->ranges;
    struct hp_ext_range *ranges = malloc(size + 1);
    if (ranges != NULL && size > 0) {
        memcpy(ranges, flag->ranges, size);
    }
    (void)pthread_mutex_unlock(&hp_ext_ids_lock);
    if (ranges == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *list = PyList_New(count);
    for (uint32_t i = 0; list != NULL && i < count; i++) {
        PyObject *range = Py_BuildValue("IKI", ranges[i].index, (unsigned long long)ranges[i].first,
                                        ranges[i].count);
        if (range == NULL || PyList_SetItem(list, i, range) != 0) {
            Py_CLEAR(list);
        }
    }
    free(ranges);
    return list;
}

static PyMethodDef flag_methods[] = {
    {"set", flag_set, METH_NOARGS, "Sets it and wakes who waits for it."},
    {"clear", flag_clear, METH_NOARGS, "Unsets it."},
    {"is_set", flag_is_set, METH_NOARGS, "Is it set?"},
    {"ids", flag_ids, METH_NOARGS, "[(index, first id, count), ...] of the tasks accepted so far."},
    {0},
};
static PyGetSetDef flag_fields[] = {
    {"id", flag_id, NULL, "Id of its first task; None before the broker has accepted it.", NULL},
    {0},
};
static PyType_Slot flag_slots[] = {
    {Py_tp_doc, (void *)"A flag that Hub.wait waits for, and that learns ids of tasks."},
    {Py_tp_init, HP_EXT_SLOT(flag_init)},
    {Py_tp_new, HP_EXT_SLOT(PyType_GenericNew)},
    {Py_tp_dealloc, HP_EXT_SLOT(flag_dealloc)},
    {Py_tp_methods, flag_methods},
    {Py_tp_getset, flag_fields},
    {Py_nb_bool, HP_EXT_SLOT(flag_bool)},
    {0, NULL},
};
static PyType_Spec flag_spec = {.name = "hostpool._hostpool.Flag",
                                .basicsize = sizeof(struct hp_ext_flag),
                                .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                                .slots = flag_slots};

bool hp_ext_add_flag(PyObject *module)
{
    return hp_ext_add_type(module, &flag_spec, "Flag", &hp_ext_flag_type);
}
