/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Blocking calls: hostpool.h's own, run on the hub's client without the GIL. Those which may be
 * repeated without harm wait in slices, so that Ctrl-C is not kept waiting by a broker that is
 * away.
 */
#include <stdlib.h>
#include <string.h>

#include "python/ext/ext.h"

#define SLICE_MS 500
#define DEFAULT_TIMEOUT_MS 30000

/* What a call needs and gives; each uses what it wants of it. */
struct job {
    int64_t timeout_ms; /* of this slice */
    uint64_t id;
    uint64_t number; /* wait_ms, how, grace_ms */
    bool on;
    struct hp_bytes digest;
    struct hp_bytes data;
    struct hp_ids *ids;
    size_t id_count;
    const char *reason;
    struct hp_pool_info *info;
    enum hp_pool_phase phase;
    bool known;
    struct hp_buffer buffer;
    struct hp_task_list *list;
    struct hp_result *result;
    struct hp_cancel_report report;
    struct hp_worker_list *workers;
    char text[1024]; /* of an error */
};

typedef enum hp_status (*job_fn)(struct hp_client *client, struct job *job);

struct run {
    job_fn function;
    struct job *job;
};

/* With the hub's lock: the error's text is the client's and must be copied here. */
static enum hp_status run_job(struct hp_client *client, void *argument)
{
    struct run *run = argument;
    enum hp_status status = run->function(client, run->job);
    if (status != HP_STATUS_OK) {
        const char *text = hp_client_error(client);
        size_t size = strnlen(text, sizeof run->job->text - 1);
        memcpy(run->job->text, text, size);
        run->job->text[size] = '\0';
    }
    return status;
}

/*
 * Runs it; true: it is done. False: an exception is set. Repeatable ones go on in slices until the
 * time of the caller is over.
 */
static bool call(struct hp_ext_hub *self, job_fn function, struct job *job, PyObject *timeout,
                 bool is_repeatable)
{
    int64_t timeout_ms = DEFAULT_TIMEOUT_MS;
    if ((timeout != NULL && !hp_ext_timeout(timeout, &timeout_ms)) || !hp_ext_enter(self)) {
        return false;
    }
    uint64_t end_ms = timeout_ms < 0 ? UINT64_MAX : hp_ext_now_ms() + (uint64_t)timeout_ms;
    struct run run = {.function = function, .job = job};
    enum hp_status status;
    bool is_last = false;
    do {
        uint64_t now_ms = hp_ext_now_ms();
        uint64_t left_ms = end_ms > now_ms ? end_ms - now_ms : 0;
        is_last = !is_repeatable || left_ms <= SLICE_MS;
        job->timeout_ms = !is_last              ? SLICE_MS
                          : left_ms > INT64_MAX ? (int64_t)HP_TIMEOUT_NONE
                                                : (int64_t)left_ms;
        Py_BEGIN_ALLOW_THREADS status = hp_hub_call(self->core->hub, run_job, &run);
        Py_END_ALLOW_THREADS if (PyErr_CheckSignals() != 0 ||
                                 self->interrupted == PyThread_get_thread_ident())
        {
            break;
        }
    } while (!is_last && (status == HP_STATUS_TIMEOUT || status == HP_STATUS_UNREACHABLE) &&
             !atomic_load(&self->core->is_closing));
    if (status != HP_STATUS_OK && PyErr_Occurred() == NULL) {
        (void)hp_ext_raise(status,
                           job->text[0] != '\0' ? job->text : hp_hub_error(self->core->hub));
    }
    bool is_good = hp_ext_leave(self);
    return is_good && status == HP_STATUS_OK && PyErr_Occurred() == NULL;
}

static struct hp_ext_hub *hub_of(PyObject *object)
{
    return (struct hp_ext_hub *)object;
}

/* [(first, count) or id, ...] into job->ids, to be freed. */
static bool take_ids(PyObject *object, struct job *job)
{
    PyObject *tuple = PySequence_Tuple(object);
    if (tuple == NULL) {
        return false;
    }
    size_t count = (size_t)PyTuple_Size(tuple);
    job->ids = calloc(count + 1, sizeof *job->ids);
    if (job->ids == NULL) {
        Py_DECREF(tuple);
        (void)PyErr_NoMemory();
        return false;
    }
    bool is_good = true;
    for (size_t i = 0; is_good && i < count; i++) {
        PyObject *item = PyTuple_GetItem(tuple, (Py_ssize_t)i);
        unsigned long long first = 0;
        unsigned int number = 1;
        if (PyTuple_Check(item)) {
            is_good = PyArg_ParseTuple(item, "KI", &first, &number) != 0;
        } else {
            first = PyLong_AsUnsignedLongLong(item);
            is_good = PyErr_Occurred() == NULL;
        }
        job->ids[i] = (struct hp_ids){.first = first, .count = number};
    }
    job->id_count = count;
    Py_DECREF(tuple);
    return is_good;
}

/* ---------------------------------------------------------------- pools */

static enum hp_status do_info(struct hp_client *client, struct job *job)
{
    uint64_t wait_ms = job->number;
    if (wait_ms > (uint64_t)job->timeout_ms) {
        wait_ms = (uint64_t)job->timeout_ms;
    }
    return hp_pool_query(client, job->id, wait_ms, job->timeout_ms, &job->info);
}

static PyObject *info_dict(const struct hp_pool_info *info)
{
    PyObject *children = PyList_New((Py_ssize_t)info->child_count);
    for (size_t i = 0; children != NULL && i < info->child_count; i++) {
        PyObject *child =
            Py_BuildValue("NI", hp_ext_text(info->children[i].node), info->children[i].pid);
        if (child == NULL || PyList_SetItem(children, (Py_ssize_t)i, child) != 0) {
            Py_CLEAR(children);
        }
    }
    if (children == NULL) {
        return NULL;
    }
    return Py_BuildValue("{s:K,s:i,s:I,s:K,s:N,s:N,s:N}", "id", (unsigned long long)info->id,
                         "phase", (int)info->phase, "processes", info->processes, "live",
                         (unsigned long long)info->live, "detached",
                         PyBool_FromLong(info->detached), "error", hp_ext_text(info->error),
                         "children", children);
}

/* wait_s is waited for in slices, too: the broker answers early when there is something to tell. */
PyObject *hp_ext_pool_info(PyObject *object, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"id", "wait_s", "timeout", NULL};
    unsigned long long id;
    double wait_s = 0.0;
    PyObject *timeout = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "K|dO:pool_info", names, &id, &wait_s, &timeout)) {
        return NULL;
    }
    struct job job = {.id = id};
    uint64_t end_ms = hp_ext_now_ms() + (wait_s > 0.0 ? (uint64_t)(wait_s * 1000.0) : 0u);
    for (;;) {
        uint64_t now_ms = hp_ext_now_ms();
        uint64_t left_ms = end_ms > now_ms ? end_ms - now_ms : 0;
        job.number = left_ms < SLICE_MS - 100 ? left_ms : SLICE_MS - 100;
        if (!call(hub_of(object), do_info, &job, timeout, true)) {
            return NULL;
        }
        if (job.info->phase == HP_POOL_ENDED || job.info->child_count > 0 ||
            job.info->error != NULL || hp_ext_now_ms() >= end_ms) {
            break;
        }
        hp_pool_info_free(job.info);
        job.info = NULL;
    }
    PyObject *dict = info_dict(job.info);
    hp_pool_info_free(job.info);
    return dict;
}

static enum hp_status do_end(struct hp_client *client, struct job *job)
{
    return hp_pool_end(client, job->id, job->on ? HP_POOL_TERMINATE : HP_POOL_CLOSE,
                       job->timeout_ms, &job->phase);
}

PyObject *hp_ext_pool_end(PyObject *object, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"id", "terminate", "timeout", NULL};
    unsigned long long id;
    int terminate = 0;
    PyObject *timeout = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "K|pO:pool_end", names, &id, &terminate,
                                     &timeout)) {
        return NULL;
    }
    struct job job = {.id = id, .on = terminate != 0};
    return call(hub_of(object), do_end, &job, timeout, true) ? PyLong_FromLong((long)job.phase)
                                                             : NULL;
}

static enum hp_status do_detach(struct hp_client *client, struct job *job)
{
    return hp_pool_set_detached(client, job->id, job->on, job->timeout_ms);
}

PyObject *hp_ext_pool_detach(PyObject *object, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"id", "on", "timeout", NULL};
    unsigned long long id;
    int on = 1;
    PyObject *timeout = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "K|pO:pool_detach", names, &id, &on, &timeout)) {
        return NULL;
    }
    struct job job = {.id = id, .on = on != 0};
    if (!call(hub_of(object), do_detach, &job, timeout, true)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static enum hp_status do_put(struct hp_client *client, struct job *job)
{
    return hp_pool_put(client, job->id, job->digest, job->data, job->timeout_ms, &job->known);
}

PyObject *hp_ext_pool_put(PyObject *object, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"id", "digest", "data", "timeout", NULL};
    unsigned long long id;
    PyObject *digest = NULL;
    PyObject *data = NULL;
    PyObject *timeout = NULL;
    Py_buffer view;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "KSO|O:pool_put", names, &id, &digest, &data,
                                     &timeout) ||
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) != 0) {
        return NULL;
    }
    struct job job = {
        .id = id,
        .digest = {.data = PyBytes_AsString(digest), .size = (size_t)PyBytes_Size(digest)},
        .data = {.data = view.buf, .size = (size_t)view.len}};
    bool is_good = call(hub_of(object), do_put, &job, timeout, false);
    PyBuffer_Release(&view);
    return is_good ? PyBool_FromLong(job.known) : NULL;
}

static enum hp_status do_content(struct hp_client *client, struct job *job)
{
    return hp_pool_content(client, job->id, job->digest, job->timeout_ms, &job->buffer);
}

PyObject *hp_ext_pool_get(PyObject *object, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"id", "digest", "timeout", NULL};
    unsigned long long id;
    PyObject *digest = NULL;
    PyObject *timeout = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "KS|O:pool_get", names, &id, &digest, &timeout)) {
        return NULL;
    }
    struct job job = {
        .id = id,
        .digest = {.data = PyBytes_AsString(digest), .size = (size_t)PyBytes_Size(digest)}};
    return call(hub_of(object), do_content, &job, timeout, false) ? hp_ext_buffer_own(&job.buffer)
                                                                  : NULL;
}

/* ---------------------------------------------------------------- tasks */

static enum hp_status do_result(struct hp_client *client, struct job *job)
{
    return hp_result(client, job->id, job->timeout_ms, &job->result);
}

PyObject *hp_ext_get(PyObject *object, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"id", "timeout", NULL};
    unsigned long long id;
    PyObject *timeout = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "K|O:get", names, &id, &timeout)) {
        return NULL;
    }
    struct job job = {.id = id};
    if (!call(hub_of(object), do_result, &job, timeout, true)) {
        return NULL;
    }
    const struct hp_task *task = &job.result->task;
    struct hp_hub_end end = {.id = task->id,
                             .state = task->state,
                             .reason = task->reason,
                             .attempt = task->attempt,
                             .node = task->node,
                             .end = task->end,
                             .result = job.result->value,
                             .status = HP_STATUS_OK,
                             .text = ""};
    PyObject *tuple = hp_ext_end_tuple(hub_of(object), NULL, 0, &end);
    hp_result_free(job.result);
    return tuple;
}

static enum hp_status do_state(struct hp_client *client, struct job *job)
{
    return hp_get(client, job->ids, job->id_count, 0, job->timeout_ms, &job->list);
}

PyObject *hp_ext_task_state(PyObject *object, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"id", "timeout", NULL};
    unsigned long long id;
    PyObject *timeout = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "K|O:task_state", names, &id, &timeout)) {
        return NULL;
    }
    struct hp_ids ids = {.first = id, .count = 1};
    struct job job = {.ids = &ids, .id_count = 1};
    if (!call(hub_of(object), do_state, &job, timeout, true)) {
        return NULL;
    }
    PyObject *tuple = NULL;
    if (job.list->count == 1) {
        const struct hp_task *task = &job.list->tasks[0];
        tuple = Py_BuildValue("iiIN", (int)task->state, (int)task->reason, task->attempt,
                              hp_ext_text(task->node));
    } else {
        (void)hp_ext_raise(HP_STATUS_NOT_FOUND, NULL);
    }
    hp_task_list_free(job.list);
    return tuple;
}

static enum hp_status do_wait(struct hp_client *client, struct job *job)
{
    return hp_wait(client, job->ids, job->id_count, HP_WAIT_ALL, 0, job->timeout_ms, NULL);
}

PyObject *hp_ext_task_wait(PyObject *object, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"ids", "timeout", NULL};
    PyObject *ids = NULL;
    PyObject *timeout = Py_None;
    struct job job = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "O|O:task_wait", names, &ids, &timeout)) {
        return NULL;
    }
    bool is_over = take_ids(ids, &job) && call(hub_of(object), do_wait, &job, timeout, true);
    free(job.ids);
    if (!is_over && PyErr_ExceptionMatches(hp_ext_error) != 0) {
        PyObject *type;
        PyObject *value;
        PyObject *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyObject *word = value != NULL ? PyObject_GetAttrString(value, "status") : NULL;
        bool is_late = word != NULL && PyUnicode_CompareWithASCIIString(
                                           word, hp_status_word(HP_STATUS_TIMEOUT)) == 0;
        Py_XDECREF(word);
        PyErr_Restore(type, value, trace);
        if (is_late) {
            PyErr_Clear();
            Py_RETURN_FALSE;
        }
    }
    return is_over ? PyBool_FromLong(1) : NULL;
}

static enum hp_status do_cancel(struct hp_client *client, struct job *job)
{
    hp_cancel_report_clear(&job->report);
    return hp_cancel(client, job->ids, job->id_count, (enum hp_cancel_how)job->phase, job->number,
                     job->reason, job->timeout_ms, &job->report);
}

PyObject *hp_ext_cancel(PyObject *object, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"ids", "how", "grace_s", "reason", "timeout", NULL};
    PyObject *ids = NULL;
    int how = HP_CANCEL_FORCE;
    double grace_s = 10.0;
    const char *reason = NULL;
    PyObject *timeout = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "O|idzO:cancel", names, &ids, &how, &grace_s,
                                     &reason, &timeout)) {
        return NULL;
    }
    struct job job = {.number = grace_s > 0.0 ? (uint64_t)(grace_s * 1000.0) : 0u,
                      .phase = (enum hp_pool_phase)how,
                      .reason = reason};
    bool is_good = take_ids(ids, &job) && call(hub_of(object), do_cancel, &job, timeout, true);
    free(job.ids);
    PyObject *dict = NULL;
    if (is_good) {
        dict = Py_BuildValue("{s:K,s:K,s:K,s:K}", "cancelled",
                             (unsigned long long)job.report.cancelled, "cancelling",
                             (unsigned long long)job.report.cancelling, "too_late",
                             (unsigned long long)job.report.too_late, "unknown",
                             (unsigned long long)job.report.unknown);
    }
    hp_cancel_report_clear(&job.report);
    return dict;
}

PyObject *hp_ext_forget(PyObject *object, PyObject *args)
{
    struct hp_ext_hub *self = hub_of(object);
    PyObject *ids = NULL;
    struct job job = {0};
    bool is_good = PyArg_UnpackTuple(args, "forget", 1, 1, &ids) != 0 && take_ids(ids, &job) &&
                   hp_ext_enter(self);
    if (is_good) {
        hp_hub_forget(self->core->hub, job.ids, job.id_count);
        is_good = hp_ext_leave(self);
    }
    free(job.ids);
    if (!is_good) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- workers */

static enum hp_status do_workers(struct hp_client *client, struct job *job)
{
    return hp_worker_get(client, NULL, job->timeout_ms, &job->workers);
}

static PyObject *worker_dict(const struct hp_worker *worker)
{
    PyObject *tags = PyList_New(0);
    for (size_t i = 0; tags != NULL && i < worker->tag_count; i++) {
        PyObject *tag = hp_ext_text(worker->tags[i]);
        if (tag == NULL || PyList_Append(tags, tag) != 0) {
            Py_CLEAR(tags);
        }
        Py_XDECREF(tag);
    }
    if (tags == NULL) {
        return NULL;
    }
    return Py_BuildValue(
        "{s:N,s:i,s:N,s:N,s:I,s:I,s:I,s:I,s:N,s:K}", "node", hp_ext_text(worker->node), "state",
        (int)worker->state, "draining", PyBool_FromLong(worker->draining), "host",
        hp_ext_text(worker->host), "pid", worker->pid, "slots", worker->slots, "used", worker->used,
        "assigned", worker->assigned, "tags", tags, "done", (unsigned long long)worker->done);
}

PyObject *hp_ext_workers(PyObject *object, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = NULL;
    struct job job = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "|O:workers", names, &timeout) ||
        !call(hub_of(object), do_workers, &job, timeout, true)) {
        return NULL;
    }
    PyObject *list = PyList_New((Py_ssize_t)job.workers->count);
    for (size_t i = 0; list != NULL && i < job.workers->count; i++) {
        PyObject *dict = worker_dict(&job.workers->workers[i]);
        if (dict == NULL || PyList_SetItem(list, (Py_ssize_t)i, dict) != 0) {
            Py_CLEAR(list);
        }
    }
    hp_worker_list_free(job.workers);
    return list;
}

static enum hp_status do_ping(struct hp_client *client, struct job *job)
{
    return hp_broker_ping(client, job->timeout_ms, NULL);
}

PyObject *hp_ext_ping(PyObject *object, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = NULL;
    struct job job = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "|O:ping", names, &timeout) ||
        !call(hub_of(object), do_ping, &job, timeout, true)) {
        return NULL;
    }
    Py_RETURN_NONE;
}
