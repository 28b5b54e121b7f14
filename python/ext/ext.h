/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of hostpool._hostpool share. The module uses CPython's limited API of 3.9, so that
 * one file serves every interpreter from there on.
 *
 * Threads: all Python objects are touched with the GIL only. What the hub's callbacks do without it
 * (noting ids, noting that a payload is free) is in atomics or under hp_ext_ids_lock.
 */
#ifndef HP_PYTHON_EXT_H
#define HP_PYTHON_EXT_H

#include <Python.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/hub.h"
#include "client/include/hostpool.h"

/*
 * The buffer protocol joined the limited API in 3.11, unchanged: layout, functions and slots are
 * the same in 3.9 and 3.10 and are promised from then on.
 */
#if defined(Py_LIMITED_API) && Py_LIMITED_API + 0 < 0x030b0000
typedef struct {
    void *buf;
    PyObject *obj;
    Py_ssize_t len;
    Py_ssize_t itemsize;
    int readonly;
    int ndim;
    char *format;
    Py_ssize_t *shape;
    Py_ssize_t *strides;
    Py_ssize_t *suboffsets;
    void *internal;
} Py_buffer;
#define PyBUF_SIMPLE 0
#define Py_bf_getbuffer 1
PyAPI_FUNC(int) PyObject_GetBuffer(PyObject *obj, Py_buffer *view, int flags);
PyAPI_FUNC(int) PyBuffer_FillInfo(Py_buffer *view, PyObject *obj, void *buf, Py_ssize_t len,
                                  int readonly, int flags);
PyAPI_FUNC(void) PyBuffer_Release(Py_buffer *view);
#endif

/* Types; made by hp_ext_*_type at import. */
extern PyTypeObject *hp_ext_buffer_type;
extern PyTypeObject *hp_ext_flag_type;
extern PyTypeObject *hp_ext_options_type;
extern PyTypeObject *hp_ext_hub_type;
extern PyTypeObject *hp_ext_port_type;
extern PyObject *hp_ext_error; /* hostpool._hostpool.error */

/* Each makes a type and adds it to the module; false: an exception is set. */
bool hp_ext_add_buffer(PyObject *module);
bool hp_ext_add_flag(PyObject *module);
bool hp_ext_add_options(PyObject *module);
bool hp_ext_add_hub(PyObject *module);
bool hp_ext_add_port(PyObject *module);
/* PyType_FromSpec and PyModule_AddObject. */
bool hp_ext_add_type(PyObject *module, PyType_Spec *spec, const char *name, PyTypeObject **ret);
/* A new, zeroed object of the type. */
void *hp_ext_alloc(PyTypeObject *type);
/* The end of every tp_dealloc. */
void hp_ext_free(PyObject *self);
/* The slot's function pointer as what it is; the cast through void * is what CPython asks for. */
#define HP_EXT_SLOT(function) (__extension__(void *)(function))
#define HP_EXT_KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))

/* Raises hostpool._hostpool.error with `status` as its word; always returns NULL. text NULL or "":
 * the sentence of the status. */
PyObject *hp_ext_raise(enum hp_status status, const char *text);
/* Seconds (number) or None into ms; false: an exception is set. None and negative: no limit. */
bool hp_ext_timeout(PyObject *seconds, int64_t *ret_ms);
uint64_t hp_ext_now_ms(void);
/* A str of UTF-8 that may be damaged; NULL: None. */
PyObject *hp_ext_text(const char *text);

/* ---------------------------------------------------------------- Buffer */

/* Bytes that the object owns: from malloc (a fetched result) or mmapped (a payload). */
PyObject *hp_ext_buffer_own(struct hp_buffer *buffer); /* takes it over, also on errors */
PyObject *hp_ext_buffer_map(void *map, size_t size);   /* the same: munmap */

/* ---------------------------------------------------------------- Flag */

struct hp_ext_hub;

struct hp_ext_range {
    uint32_t index;
    uint32_t count;
    uint64_t first;
};

struct hp_ext_flag {
    PyObject_HEAD atomic_bool is_set;
    _Atomic uint64_t id;          /* of its first task; 0: not known yet */
    struct hp_ext_hub *waited_at; /* while waiter_count > 0: the hub, borrowed */
    uint32_t waiter_count;
    struct hp_ext_range *ranges; /* under hp_ext_ids_lock */
    uint32_t range_count;
    uint32_t range_room;
    enum hp_status failed; /* its submit failed: why */
    char *failed_text;
};

extern pthread_mutex_t hp_ext_ids_lock;
/* Notes that task `index` of the flag's submit has this id; hp_ext_ids_lock is held, not the GIL.
 */
void hp_ext_flag_accepted(struct hp_ext_flag *flag, uint32_t index, uint64_t id);
/* The submit failed: keeps the reason, for those who wait for the acceptance. */
void hp_ext_flag_refused(struct hp_ext_flag *flag, enum hp_status status, const char *text);

/* ---------------------------------------------------------------- Options */

/* The options inside the object (lives as long as it does), or NULL and an exception. */
const struct hp_options *hp_ext_options(PyObject *object);
/* For the options inside such an object: was its end() called? Needs no GIL. */
bool hp_ext_options_ended(const struct hp_options *options);

/* ---------------------------------------------------------------- Hub */

/*
 * A task under way: from its submit until all three have come that the hub may still say of it: its
 * end, its id (which may come last) and, if its payload is lent, the payload's release. The list is
 * guarded by the GIL; what is marked (L) by hp_ext_ids_lock.
 */
struct hp_ext_item {
    PyObject *user;           /* NULL: it has ended */
    struct hp_ext_flag *flag; /* (L) user, if it is a Flag; NULL: none, or it has ended */
    struct hp_ext_item *next;
    struct hp_ext_item *previous;
    struct hp_ext_item *queue_next; /* (L) */
    Py_buffer *views;               /* what is borrowed until the hub releases it */
    uint32_t view_count;
    uint32_t index;
    bool is_quiet;    /* its end is not handed to the handler */
    bool is_ended;    /* (L) */
    bool is_accepted; /* (L) its id has come, or never will */
    bool is_lent;     /* (L) the hub uses its payload */
    bool is_queued;   /* (L) in the queue of hp_ext_reap */
};

/* What the callbacks of the hub get: it outlives the Python object, should that go away on the
 * hub's own thread (which cannot join itself). */
struct hp_ext_core {
    struct hp_hub *hub;
    struct hp_ext_hub *self; /* valid while !is_closing */
    atomic_bool is_closing;  /* set under hp_ext_ids_lock: no item is touched from then on */
    _Atomic(struct hp_ext_item *) queue; /* written under hp_ext_ids_lock, without the GIL: items
                                            for hp_ext_reap, the last one first */
};

struct hp_ext_hub {
    PyObject_HEAD struct hp_ext_core *core; /* NULL: closed */
    PyObject *handler;                      /* NULL: none */
    struct hp_ext_item items;               /* head of the list */
    unsigned long interrupted; /* the thread whose handler a KeyboardInterrupt hit; 0: none */
    unsigned long deliverer;   /* the thread that runs the handler; 0: none */
    atomic_uint inside;        /* threads in functions of the hub */
    PyObject *node;            /* last node's name, to make few of them */
    char node_text[64];
    struct hp_ext_hub *next_hub; /* all hubs, for the end of the process */
    struct hp_ext_hub *previous_hub;
};

/* The hub is open: counts this thread in. False: error("stopped") is raised. */
bool hp_ext_enter(struct hp_ext_hub *self);
/* Counts it out; raises the KeyboardInterrupt that came while a handler ran: false. */
bool hp_ext_leave(struct hp_ext_hub *self);

/* ends.c; with the GIL. NULL: MemoryError is set. */
struct hp_ext_item *hp_ext_item_new(struct hp_ext_hub *self, PyObject *user, uint32_t index);
void hp_ext_item_drop(struct hp_ext_item *item);
/* keep_lent: not those whose payload the hub may still read. */
void hp_ext_items_drop_all(struct hp_ext_hub *self, bool keep_lent);
/* Lets go of payloads and items that the hub does not need any more. */
void hp_ext_reap(struct hp_ext_hub *self);

/* The callbacks of the hub (ends.c); context is the struct hp_ext_core. */
extern const struct hp_hub_callbacks hp_ext_callbacks;
/* One end as the tuple the handler gets. NULL: an exception is set. */
PyObject *hp_ext_end_tuple(struct hp_ext_hub *self, PyObject *user, uint32_t index,
                           const struct hp_hub_end *end);

/* Methods of Hub in the files submit.c and calls.c. */
PyObject *hp_ext_submit(PyObject *self, PyObject *args, PyObject *kwds);
PyObject *hp_ext_submit_many(PyObject *self, PyObject *args, PyObject *kwds);
PyObject *hp_ext_attach(PyObject *self, PyObject *args, PyObject *kwds);
PyObject *hp_ext_pool_open(PyObject *self, PyObject *args, PyObject *kwds);
PyObject *hp_ext_pool_info(PyObject *self, PyObject *args, PyObject *kwds);
PyObject *hp_ext_pool_end(PyObject *self, PyObject *args, PyObject *kwds);
PyObject *hp_ext_pool_detach(PyObject *self, PyObject *args, PyObject *kwds);
PyObject *hp_ext_pool_put(PyObject *self, PyObject *args, PyObject *kwds);
PyObject *hp_ext_pool_get(PyObject *self, PyObject *args, PyObject *kwds);
PyObject *hp_ext_get(PyObject *self, PyObject *args, PyObject *kwds);
PyObject *hp_ext_task_state(PyObject *self, PyObject *args, PyObject *kwds);
PyObject *hp_ext_task_wait(PyObject *self, PyObject *args, PyObject *kwds);
PyObject *hp_ext_cancel(PyObject *self, PyObject *args, PyObject *kwds);
PyObject *hp_ext_workers(PyObject *self, PyObject *args, PyObject *kwds);
PyObject *hp_ext_ping(PyObject *self, PyObject *args, PyObject *kwds);
PyObject *hp_ext_forget(PyObject *self, PyObject *args);

/* Waits until the flag is set (or, if `accepted`, its id known or its submit refused), the time is
 * over or the hub closes. 1, 0, or -1 and an exception. */
int hp_ext_wait_flag(struct hp_ext_hub *self, struct hp_ext_flag *flag, bool accepted,
                     int64_t timeout_ms);

/* hostpool._hostpool.zygote(ready_text) */
PyObject *hp_ext_zygote(PyObject *module, PyObject *args);

#endif
