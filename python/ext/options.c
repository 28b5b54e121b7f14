/* SPDX-License-Identifier: BSD-2-Clause */
/* Options: the options of tasks, checked and laid out once and used for many submits. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "python/ext/ext.h"

enum field_type {
    FIELD_TEXT,
    FIELD_TEXTS,
    FIELD_U32,
    FIELD_U64,
    FIELD_I64,
    FIELD_BOOL,
    FIELD_WORD,
};

struct field {
    const char *name;
    enum field_type type;
    size_t offset;
    size_t count_offset;      /* TEXTS */
    const char *const *words; /* WORD */
    int first;                /* WORD: value of words[0] */
};

#define AT(member) offsetof(struct hp_options, member)

static const char *const kind_words[] = {"command", "function", "call", "pool", NULL};
static const char *const payload_words[] = {"stdin", "argv", "items", NULL};
static const char *const partition_words[] = {"kill", "continue", NULL};
static const char *const conflict_words[] = {"join", "reject", "replace", NULL};

static const struct field fields[] = {
    {"kind", FIELD_WORD, AT(kind), 0, kind_words, HP_KIND_COMMAND},
    {"fn", FIELD_TEXT, AT(fn)},
    {"argv", FIELD_TEXTS, AT(argv), AT(argv_count)},
    {"env", FIELD_TEXTS, AT(env), AT(env_count)},
    {"cwd", FIELD_TEXT, AT(cwd)},
    {"payload_kind", FIELD_WORD, AT(payload_kind), 0, payload_words, HP_PAYLOAD_STDIN},
    {"queue", FIELD_TEXT, AT(queue)},
    {"priority", FIELD_U32, AT(priority)},
    {"name", FIELD_TEXT, AT(name)},
    {"batch", FIELD_TEXT, AT(batch)},
    {"user", FIELD_TEXT, AT(user)},
    {"tenant", FIELD_TEXT, AT(tenant)},
    {"tags", FIELD_TEXTS, AT(tags), AT(tag_count)},
    {"cpus", FIELD_U32, AT(cpus)},
    {"mem_bytes", FIELD_U64, AT(mem_bytes)},
    {"delay_ms", FIELD_U64, AT(delay_ms)},
    {"run_at_ms", FIELD_I64, AT(run_at_ms)},
    {"expire_ms", FIELD_U64, AT(expire_ms)},
    {"deadline_ms", FIELD_U64, AT(deadline_ms)},
    {"soft_timeout_ms", FIELD_U64, AT(soft_timeout_ms)},
    {"hard_timeout_ms", FIELD_U64, AT(hard_timeout_ms)},
    {"kill_grace_ms", FIELD_U64, AT(kill_grace_ms)},
    {"max_retries", FIELD_U32, AT(max_retries)},
    {"retry_base_ms", FIELD_U64, AT(retry_base_ms)},
    {"retry_cap_ms", FIELD_U64, AT(retry_cap_ms)},
    {"max_losses", FIELD_U32, AT(max_losses)},
    {"child_losses", FIELD_U32, AT(child_losses)},
    {"at_most_once", FIELD_BOOL, AT(at_most_once)},
    {"on_partition", FIELD_WORD, AT(on_partition), 0, partition_words, HP_PARTITION_KILL},
    {"ukey", FIELD_TEXT, AT(ukey)},
    {"on_conflict", FIELD_WORD, AT(on_conflict), 0, conflict_words, HP_CONFLICT_JOIN},
    {"ckey", FIELD_TEXT, AT(ckey)},
    {"ckey_max", FIELD_U32, AT(ckey_max)},
    {"result_ttl_ms", FIELD_U64, AT(result_ttl_ms)},
    {"output_cap_bytes", FIELD_U64, AT(output_cap_bytes)},
    {"array_base", FIELD_U64, AT(array_base)},
    {"array_step", FIELD_U64, AT(array_step)},
    {"durable", FIELD_BOOL, AT(durable)},
    {"pool", FIELD_U64, AT(pool)},
    {"processes", FIELD_U32, AT(processes)},
    {"calls_per_child", FIELD_U64, AT(calls_per_child)},
    {"language", FIELD_TEXT, AT(language)},
    {"interpreter", FIELD_TEXT, AT(interpreter)},
    {"orphan_ms", FIELD_U64, AT(orphan_ms)},
};

struct options {
    PyObject_HEAD struct hp_options options;
    void **owned; /* strings and arrays */
    size_t owned_count;
    atomic_bool is_ended;
};

PyTypeObject *hp_ext_options_type;

const struct hp_options *hp_ext_options(PyObject *object)
{
    if (PyObject_TypeCheck(object, hp_ext_options_type) == 0) {
        PyErr_SetString(PyExc_TypeError, "hostpool._hostpool.Options expected");
        return NULL;
    }
    return &((struct options *)object)->options;
}

bool hp_ext_options_ended(const struct hp_options *options)
{
    const char *base = (const char *)options - offsetof(struct options, options);
    return atomic_load(&((const struct options *)base)->is_ended);
}

/* Notes memory that goes with the object; frees it and sets MemoryError if that fails. */
static void *own(struct options *self, void *memory)
{
    void **owned =
        memory == NULL ? NULL : realloc(self->owned, (self->owned_count + 1) * sizeof *self->owned);
    if (owned == NULL) {
        free(memory);
        (void)PyErr_NoMemory();
        return NULL;
    }
    self->owned = owned;
    owned[self->owned_count++] = memory;
    return memory;
}

/* A copy of a str (or of bytes) without NUL; NULL: an exception is set. */
static const char *copy_text(struct options *self, PyObject *value)
{
    PyObject *bytes = NULL;
    char *text = NULL;
    if (PyBytes_Check(value)) {
        Py_INCREF(value);
        bytes = value;
    } else {
        bytes = PyUnicode_AsUTF8String(value);
    }
    if (bytes != NULL && PyBytes_AsStringAndSize(bytes, &text, NULL) == 0) {
        text = own(self, strdup(text));
    } else {
        text = NULL;
    }
    Py_XDECREF(bytes);
    return text;
}

static bool set_texts(struct options *self, const struct field *field, PyObject *value)
{
    PyObject *texts = PySequence_Tuple(value);
    if (texts == NULL) {
        return false;
    }
    size_t count = (size_t)PyTuple_Size(texts);
    const char **copies = own(self, calloc(count + 1, sizeof *copies));
    bool is_good = copies != NULL;
    for (size_t i = 0; is_good && i < count; i++) {
        copies[i] = copy_text(self, PyTuple_GetItem(texts, (Py_ssize_t)i));
        is_good = copies[i] != NULL;
    }
    Py_DECREF(texts);
    if (is_good) {
        char *base = (char *)&self->options;
        memcpy(base + field->offset, &copies, sizeof copies);
        memcpy(base + field->count_offset, &count, sizeof count);
    }
    return is_good;
}

static bool set_word(struct options *self, const struct field *field, PyObject *value)
{
    PyObject *bytes = PyUnicode_AsUTF8String(value);
    const char *word = bytes != NULL ? PyBytes_AsString(bytes) : NULL;
    if (word == NULL) {
        Py_XDECREF(bytes);
        return false;
    }
    for (int i = 0; field->words[i] != NULL; i++) {
        if (strcmp(word, field->words[i]) == 0) {
            int number = field->first + i;
            memcpy((char *)&self->options + field->offset, &number, sizeof number);
            Py_DECREF(bytes);
            return true;
        }
    }
    PyErr_Format(PyExc_ValueError, "%s: there is no '%s'", field->name, word);
    Py_DECREF(bytes);
    return false;
}

static bool set_number(struct options *self, const struct field *field, PyObject *value)
{
    char *at = (char *)&self->options + field->offset;
    if (field->type == FIELD_I64) {
        int64_t number = PyLong_AsLongLong(value);
        memcpy(at, &number, sizeof number);
        return PyErr_Occurred() == NULL;
    }
    uint64_t number = PyLong_AsUnsignedLongLong(value);
    if (PyErr_Occurred() != NULL) {
        return false;
    }
    if (field->type == FIELD_U64) {
        memcpy(at, &number, sizeof number);
        return true;
    }
    uint32_t small = (uint32_t)number;
    if (small != number) {
        PyErr_Format(PyExc_ValueError, "%s: too large", field->name);
        return false;
    }
    memcpy(at, &small, sizeof small);
    return true;
}

static bool set_field(struct options *self, const struct field *field, PyObject *value)
{
    char *at = (char *)&self->options + field->offset;
    switch (field->type) {
    case FIELD_TEXT: {
        const char *text = copy_text(self, value);
        memcpy(at, &text, sizeof text);
        return text != NULL;
    }
    case FIELD_TEXTS:
        return set_texts(self, field, value);
    case FIELD_WORD:
        return set_word(self, field, value);
    case FIELD_BOOL: {
        int truth = PyObject_IsTrue(value);
        bool flag = truth > 0;
        memcpy(at, &flag, sizeof flag);
        return truth >= 0;
    }
    case FIELD_U32:
    case FIELD_U64:
    case FIELD_I64:
        return set_number(self, field, value);
    }
    return false;
}

static bool set_named(struct options *self, PyObject *name, PyObject *value)
{
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (PyUnicode_CompareWithASCIIString(name, fields[i].name) == 0) {
            return value == Py_None || set_field(self, &fields[i], value);
        }
    }
    PyErr_Format(PyExc_TypeError, "Options: there is no option %R", name);
    return false;
}

static PyObject *options_new(PyTypeObject *type, PyObject *args, PyObject *kwds)
{
    struct options *self = hp_ext_alloc(type);
    PyObject *name;
    PyObject *value;
    Py_ssize_t at = 0;
    if (self == NULL) {
        return NULL;
    }
    hp_options_init(&self->options);
    if (PyTuple_Size(args) != 0) {
        PyErr_SetString(PyExc_TypeError, "Options takes keyword arguments only");
        Py_DECREF(self);
        return NULL;
    }
    while (kwds != NULL && PyDict_Next(kwds, &at, &name, &value)) {
        if (!set_named(self, name, value)) {
            Py_DECREF(self);
            return NULL;
        }
    }
    return (PyObject *)self;
}

static void options_dealloc(PyObject *object)
{
    struct options *self = (struct options *)object;
    for (size_t i = 0; i < self->owned_count; i++) {
        free(self->owned[i]);
    }
    free(self->owned);
    hp_ext_free(object);
}

static PyObject *options_end(PyObject *object, PyObject *unused)
{
    (void)unused;
    atomic_store(&((struct options *)object)->is_ended, true);
    Py_RETURN_NONE;
}

static PyMethodDef options_methods[] = {
    {"end", options_end, METH_NOARGS,
     "end(): submits with these options do not wait for room any more, on any thread: those that "
     "do raise error 'stopped' within a moment."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot options_slots[] = {
    {Py_tp_doc, (void *)"Options(**options): options of tasks, by the names of docs/protocol.md; "
                        "None means the default. Immutable."},
    {Py_tp_methods, options_methods},
    {Py_tp_new, HP_EXT_SLOT(options_new)},
    {Py_tp_dealloc, HP_EXT_SLOT(options_dealloc)},
    {0, NULL},
};
static PyType_Spec options_spec = {.name = "hostpool._hostpool.Options",
                                   .basicsize = sizeof(struct options),
                                   .flags = Py_TPFLAGS_DEFAULT,
                                   .slots = options_slots};

bool hp_ext_add_options(PyObject *module)
{
    return hp_ext_add_type(module, &options_spec, "Options", &hp_ext_options_type);
}
