/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store thread. One queue in, one set of lists out, one mutex over both; the store itself is
 * used without it, by this thread only.
 *
 *  I1 The queue is worked off in order. Batches that lie side by side become one transaction, up to
 *     a bound; a load ends such a row of batches, since it must see just what was put before it.
 *     But while a full disk keeps batches back, loads of sessions that are in none of them are
 *     answered: a new client must be greeted, to be told.
 *  I2 What is posted as durable was applied with HP_OK.
 *  I3 `wake` is called once for all that is posted between two takes.
 */
#include "server/store/thread.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"
#include "common/sys/crash.h"
#include "common/sys/file.h"

#define MERGE_OPS_DEFAULT 5000u
#define DISK_LOW_PERCENT_DEFAULT 5u
#define DISK_LOW_BYTES ((uint64_t)1 << 30)
#define NOSPACE_RETRY_MS 250u
#define FREE_WATCHED ((uint64_t)256 << 20) /* less is looked at every commit */
#define TICK_MS 1000u                      /* free space, figures */
#define QUIET_MS 2u      /* nothing to do for this long: background work, checks, backups go on */
#define LOOK_OUT_US 150u
#define BUSY_IDLE_MS 20u /* under load, background work gets a slice this often */

/* One of the two is set. */
struct item {
    struct hp_batch *batch;
    struct hp_loaded *loaded;
};

struct queue {
    struct item *items;
    uint32_t count;
    uint32_t capacity;
};

struct loaded_list {
    struct hp_loaded *first;
    struct hp_loaded **tail;
};

struct hp_store_thread {
    struct hp_store_thread_options options;
    char *dir; /* NULL: not watched */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t cond; /* there is something in the queue, or stop */

    /* under the mutex */
    struct queue queue;
    bool stop;
    uint64_t stop_by_ms;
    bool woken; /* I3 */
    _Atomic bool has_more; /* a hint, read without the mutex: the queue is not empty */
    bool disk_low;
    uint64_t durable;
    struct hp_batch *done_batches;
    struct loaded_list done_loaded;
    struct hp_store_thread_figures figures;

    /* of the loop */
    uint64_t last_put;
    bool disk_low_taken;
    bool joined;

    /* of the thread */
    struct queue work;
    struct hp_loaded *job;    /* CHECK or BACKUP under way */
    struct loaded_list jobs;  /* those that wait for it */
    struct hp_batch **merged; /* scratch */
    uint32_t merged_capacity;
    uint64_t next_tick_ms;
    uint64_t last_idle_ms;
    bool idle_more;
    bool looks_out; /* the next work is expected soon */
    uint64_t idle_after_ms; /* not before: the disk was full */
    bool nospace;
    enum hp_err result;
};

/* ------------------------------------------------------------------ lists */
static void list_init(struct loaded_list *list)
{
    list->first = NULL;
    list->tail = &list->first;
}

static void list_add(struct loaded_list *list, struct hp_loaded *loaded)
{
    loaded->next_loaded = NULL;
    *list->tail = loaded;
    list->tail = &loaded->next_loaded;
}

static struct hp_loaded *list_pop(struct loaded_list *list)
{
    struct hp_loaded *first = list->first;
    if (first != NULL) {
        list->first = first->next_loaded;
        first->next_loaded = NULL;
        if (list->first == NULL) {
            list->tail = &list->first;
        }
    }
    return first;
}

static void queue_add(struct queue *queue, struct item item)
{
    if (queue->count == queue->capacity) {
        uint32_t capacity = queue->capacity == 0 ? 64 : queue->capacity * 2;
        struct item *items = hp_realloc_array(queue->items, capacity, sizeof(*items));
        HP_ASSERT(items != NULL); /* a batch can not be refused: the core is ahead already */
        queue->items = items;
        queue->capacity = capacity;
    }
    queue->items[queue->count++] = item;
}

/* ------------------------------------------------------------------ posting (thread) */
static void lock(struct hp_store_thread *t)
{
    int error = pthread_mutex_lock(&t->mutex);
    HP_ASSERT(error == 0);
}

static void unlock(struct hp_store_thread *t)
{
    int error = pthread_mutex_unlock(&t->mutex);
    HP_ASSERT(error == 0);
}

/* To be called with the mutex; true: call wake after unlocking. */
static bool note_wake(struct hp_store_thread *t)
{
    bool first = !t->woken;
    t->woken = true;
    return first;
}

static void unlock_and_wake(struct hp_store_thread *t, bool wake)
{
    unlock(t);
    if (wake) {
        t->options.wake(t->options.context);
    }
}

static void post_loaded(struct hp_store_thread *t, struct hp_loaded *loaded)
{
    lock(t);
    list_add(&t->done_loaded, loaded);
    unlock_and_wake(t, note_wake(t));
}

static void fatal(struct hp_store_thread *t, const struct hp_error *error)
{
    t->options.fatal(t->options.context, error);
    abort(); /* it must not return: what was acknowledged could not be trusted any more */
}

/* Looks at the disk and the store's figures. */
static void refresh(struct hp_store_thread *t)
{
    unsigned percent = 100;
    uint64_t bytes = UINT64_MAX;
    struct hp_store_figures figures;
    hp_store_figures(t->options.store, &figures);
    if (t->dir != NULL && hp_path_free_space(t->dir, &percent, &bytes, NULL) != HP_OK) {
        percent = 100; /* not known: commits will tell */
        bytes = UINT64_MAX;
    }
    bool low = t->nospace || figures.pressure || bytes < figures.reserve_bytes ||
               (percent < t->options.disk_low_percent && bytes < DISK_LOW_BYTES);
    lock(t);
    t->figures.store = figures;
    t->figures.disk_free_percent = percent;
    t->figures.disk_free_bytes = bytes;
    bool changed = low != t->disk_low;
    t->disk_low = low;
    unlock_and_wake(t, changed && note_wake(t));
}

/* The time `wait_ms` from now, on the clock of `cond`. */
static struct timespec time_in(uint64_t wait_ms)
{
    uint64_t us = hp_clock_mono_us() + wait_ms * 1000;
    return (struct timespec){.tv_sec = (time_t)(us / 1000000),
                             .tv_nsec = (long)(us % 1000000) * 1000};
}

/* ------------------------------------------------------------------ commits (thread) */
/* Waits up to `wait_ms` unless the time to stop has come; false then. */
static bool wait_for_space(struct hp_store_thread *t, uint64_t wait_ms)
{
    struct timespec until = time_in(wait_ms);
    bool go_on = true;
    lock(t);
    for (int error = 0; error != ETIMEDOUT && go_on;) {
        go_on = !t->stop || hp_clock_mono_ms() < t->stop_by_ms;
        if (go_on) {
            error = pthread_cond_timedwait(&t->cond, &t->mutex, &until);
        }
    }
    unlock(t);
    return go_on;
}

static bool holds_session(const struct queue *queue, struct hp_bin id)
{
    for (uint32_t i = 0; i < queue->count; i++) {
        const struct hp_batch *batch = queue->items[i].batch;
        for (uint32_t k = 0; batch != NULL && k < batch->op_count; k++) {
            if (batch->ops[k].kind == HP_OP_SESSION && hp_bin_eq(batch->ops[k].session.id, id)) {
                return true;
            }
        }
    }
    return false;
}

static void run_load(struct hp_store_thread *t, struct hp_loaded *loaded);

/* While batches cannot be applied: answers loads of sessions that none of them changes (I1). */
static void greet(struct hp_store_thread *t)
{
    struct queue found = {0};
    struct queue *const queues[] = {&t->work, &t->queue};
    lock(t);
    for (size_t q = 0; q < HP_COUNT_OF(queues); q++) {
        for (uint32_t i = 0; i < queues[q]->count; i++) {
            struct hp_loaded *loaded = queues[q]->items[i].loaded;
            if (loaded != NULL && loaded->load->kind == HP_LOAD_SESSION &&
                !holds_session(&t->work, loaded->load->text) &&
                !holds_session(&t->queue, loaded->load->text)) {
                queue_add(&found, queues[q]->items[i]);
                queues[q]->items[i] = (struct item){0};
            }
        }
    }
    unlock(t);
    for (uint32_t i = 0; i < found.count; i++) {
        run_load(t, found.items[i].loaded);
    }
    hp_free(found.items);
}

/* Applies until it works. False: the disk is full and the time to stop has come. */
static bool apply_merged(struct hp_store_thread *t, uint32_t count)
{
    for (uint32_t attempt = 0;; attempt++) {
        struct hp_error error = {0};
        enum hp_err err = hp_store_apply(t->options.store, t->merged, count, &error);
        if (err == HP_OK) {
            if (t->nospace) {
                t->nospace = false;
                refresh(t);
            }
            return true;
        }
        if (err != HP_ERR_NOSPACE) {
            fatal(t, &error);
        }
        if (attempt == 0) {
            t->nospace = true;
            lock(t);
            t->figures.nospace_count++;
            unlock(t);
            refresh(t);
            continue; /* the ballast is free now: at once */
        }
        greet(t);
        if (!wait_for_space(t, NOSPACE_RETRY_MS)) {
            t->result = err;
            return false;
        }
    }
}

/* Posts batches [from, to) of the work as durable. */
static void post_durable(struct hp_store_thread *t, uint32_t from, uint32_t to, uint64_t ops,
                         uint64_t us)
{
    lock(t);
    for (uint32_t i = from; i < to; i++) {
        struct hp_batch *batch = t->work.items[i].batch;
        t->work.items[i].batch = NULL;
        t->durable = batch->number;
        batch->next = t->done_batches;
        t->done_batches = batch;
    }
    t->figures.batches += to - from;
    if (ops > 0) {
        t->figures.commits++;
        t->figures.ops += ops;
        t->figures.queued_ops -= ops;
        t->figures.commit_us_last = us;
        t->figures.commit_us_max = HP_MAX(t->figures.commit_us_max, us);
    }
    unlock_and_wake(t, note_wake(t));
}

/* Takes batches from `from` on, up to the bound; those with ops go to `merged`. */
static uint32_t merge(struct hp_store_thread *t, uint32_t from, uint32_t *ret_merged,
                      uint64_t *ret_ops)
{
    uint32_t to = from;
    *ret_merged = 0;
    *ret_ops = 0;
    for (; to < t->work.count && t->work.items[to].batch != NULL; to++) {
        struct hp_batch *batch = t->work.items[to].batch;
        if (*ret_merged > 0 && *ret_ops + batch->op_count > t->options.merge_ops_max) {
            break;
        }
        if (batch->op_count == 0) {
            continue;
        }
        if (*ret_merged == t->merged_capacity) {
            uint32_t capacity = t->merged_capacity == 0 ? 64 : t->merged_capacity * 2;
            struct hp_batch **merged = hp_realloc_array(t->merged, capacity, sizeof(*merged));
            HP_ASSERT(merged != NULL);
            t->merged = merged;
            t->merged_capacity = capacity;
        }
        t->merged[(*ret_merged)++] = batch;
        *ret_ops += batch->op_count;
    }
    return to;
}

/* ------------------------------------------------------------------ loads (thread) */
static void step_job(struct hp_store_thread *t)
{
    if (t->job == NULL) {
        t->job = list_pop(&t->jobs);
    }
    if (t->job != NULL && hp_store_load(t->options.store, t->job)) {
        post_loaded(t, HP_TAKE(t->job));
    }
}

static void cancel_job(struct hp_store_thread *t)
{
    struct hp_loaded *loaded = t->job != NULL ? HP_TAKE(t->job) : list_pop(&t->jobs);
    while (loaded != NULL) {
        loaded->err = HP_ERR_CANCELLED;
        loaded->text = (struct hp_bin){0};
        post_loaded(t, loaded);
        loaded = list_pop(&t->jobs);
    }
}

static void run_load(struct hp_store_thread *t, struct hp_loaded *loaded)
{
    if (loaded->load->kind == HP_LOAD_CHECK || loaded->load->kind == HP_LOAD_BACKUP) {
        list_add(&t->jobs, loaded);
        return;
    }
    uint64_t start_us = hp_clock_mono_us();
    bool done = hp_store_load(t->options.store, loaded);
    HP_ASSERT(done);
    uint64_t us = hp_clock_mono_us() - start_us;
    lock(t);
    t->figures.load_us_max = HP_MAX(t->figures.load_us_max, us);
    unlock(t);
    if (loaded->err != HP_OK && loaded->err != HP_ERR_CORRUPT) {
        /* Not damage, but a disk that cannot be read or no memory: what is missing from the answer
         * would be taken for lost. */
        struct hp_error error;
        (void)hp_error_set(&error, loaded->err, "%.*s", (int)loaded->text.size,
                           (const char *)loaded->text.data);
        fatal(t, &error);
    }
    post_loaded(t, loaded);
}

/* ------------------------------------------------------------------ loop (thread) */
/* Works off `work`. False: gave up on a full disk at stop. */
static bool work_off(struct hp_store_thread *t)
{
    for (uint32_t i = 0; i < t->work.count;) {
        if (t->work.items[i].loaded != NULL) {
            run_load(t, HP_TAKE(t->work.items[i].loaded));
            i++;
            continue;
        }
        if (t->work.items[i].batch == NULL) { /* was answered out of turn */
            i++;
            continue;
        }
        uint32_t merged = 0;
        uint64_t ops = 0;
        uint32_t to = merge(t, i, &merged, &ops);
        uint64_t start_us = hp_clock_mono_us();
        if (merged > 0 && !apply_merged(t, merged)) {
            return false;
        }
        HP_CRASH_POINT("durable.post");
        post_durable(t, i, to, ops, hp_clock_mono_us() - start_us);
        i = to;
        if (merged > 0 && t->figures.disk_free_bytes < FREE_WATCHED) {
            refresh(t); /* a burst fills a small disk before the next tick */
        }
    }
    t->work.count = 0;
    return true;
}

static void run_idle(struct hp_store_thread *t, uint64_t now_ms)
{
    struct hp_error error = {0};
    t->last_idle_ms = now_ms;
    enum hp_err err = hp_store_idle(t->options.store, &t->idle_more, &error);
    if (err == HP_ERR_NOSPACE) { /* it makes room itself: so again, but not in a circle */
        t->idle_more = false;
        t->idle_after_ms = now_ms + NOSPACE_RETRY_MS;
    } else if (err != HP_OK) {
        fatal(t, &error);
    }
}

/* How long the queue may stay empty before there is something else to do. */
static uint64_t quiet_ms(const struct hp_store_thread *t, uint64_t now_ms, bool idle_done)
{
    if (!idle_done || t->idle_more || t->job != NULL || t->jobs.first != NULL) {
        return QUIET_MS;
    }
    return t->next_tick_ms > now_ms ? t->next_tick_ms - now_ms : 0;
}

/*
 * A client that submits one task at a time comes back a moment after the commit. While the last one
 * came that soon, the thread looks for the next one for so long before it sleeps: waking it takes
 * longer than that. It yields at each look, so it takes no CPU from anyone who has work.
 */
static void look_out(struct hp_store_thread *t)
{
    uint64_t end_us = hp_clock_mono_us() + LOOK_OUT_US;
    while (t->looks_out && !atomic_load_explicit(&t->has_more, memory_order_relaxed)) {
        (void)sched_yield();
        t->looks_out = hp_clock_mono_us() < end_us;
    }
}

/* Takes what is in the queue, waiting for it at most `wait_ms`. False: stop, and it is empty. */
static bool take_work(struct hp_store_thread *t, uint64_t wait_ms)
{
    struct timespec until = time_in(wait_ms);
    uint64_t begin_us = hp_clock_mono_us();
    look_out(t);
    lock(t);
    for (int error = 0; wait_ms > 0 && t->queue.count == 0 && !t->stop && error != ETIMEDOUT;) {
        error = pthread_cond_timedwait(&t->cond, &t->mutex, &until);
    }
    struct queue empty = t->work;
    t->work = t->queue;
    t->queue = empty;
    atomic_store_explicit(&t->has_more, false, memory_order_relaxed);
    bool go_on = !t->stop || t->work.count > 0;
    unlock(t);
    t->looks_out = t->work.count > 0 && hp_clock_mono_us() - begin_us < 2 * LOOK_OUT_US;
    return go_on;
}

static void *run(void *context)
{
    struct hp_store_thread *t = context;
    bool idle_done = false;
    (void)pthread_setname_np(pthread_self(), "hp-store"); /* for people only */
    while (take_work(t, quiet_ms(t, hp_clock_mono_ms(), idle_done))) {
        bool had_work = t->work.count > 0;
        if (!work_off(t)) {
            break;
        }
        step_job(t);
        uint64_t now_ms = hp_clock_mono_ms();
        if (now_ms >= t->next_tick_ms) {
            t->next_tick_ms = now_ms + TICK_MS;
            idle_done = false;
            refresh(t);
        }
        if (now_ms >= t->idle_after_ms && (!had_work || now_ms - t->last_idle_ms >= BUSY_IDLE_MS)) {
            run_idle(t, now_ms);
        }
        idle_done = !had_work;
    }
    cancel_job(t);
    hp_store_close(HP_TAKE(t->options.store));
    return NULL;
}

/* ------------------------------------------------------------------ life (loop) */
static enum hp_err make_locks(struct hp_store_thread *t)
{
    pthread_condattr_t attr;
    if (pthread_mutex_init(&t->mutex, NULL) != 0) {
        return HP_ERR_NOMEM;
    }
    int error = pthread_condattr_init(&attr);
    if (error == 0) {
        error = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        if (error == 0) {
            error = pthread_cond_init(&t->cond, &attr);
        }
        (void)pthread_condattr_destroy(&attr); /* cannot fail */
    }
    if (error != 0) {
        (void)pthread_mutex_destroy(&t->mutex); /* nobody has it */
        return HP_ERR_NOMEM;
    }
    return HP_OK;
}

static enum hp_err start(struct hp_store_thread *t)
{
    sigset_t all;
    sigset_t old;
    (void)sigfillset(&all); /* cannot fail */
    if (pthread_sigmask(SIG_SETMASK, &all, &old) != 0) {
        return HP_ERR_IO;
    }
    int error = pthread_create(&t->thread, NULL, run, t);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL); /* as before */
    return error == 0 ? HP_OK : HP_ERR_NOMEM;
}

enum hp_err hp_store_thread_new(const struct hp_store_thread_options *options,
                                struct hp_store_thread **ret_thread, struct hp_error *reterr)
{
    HP_ASSERT(options->store != NULL && options->wake != NULL && options->fatal != NULL);
    struct hp_store_thread *t = hp_calloc(1, sizeof(*t));
    if (t == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    t->options = *options;
    t->options.dir = NULL;
    t->options.merge_ops_max =
        options->merge_ops_max > 0 ? options->merge_ops_max : MERGE_OPS_DEFAULT;
    t->options.disk_low_percent =
        options->disk_low_percent > 0 ? options->disk_low_percent : DISK_LOW_PERCENT_DEFAULT;
    list_init(&t->done_loaded);
    list_init(&t->jobs);
    t->dir = options->dir != NULL ? hp_strdup(options->dir) : NULL;
    enum hp_err err = options->dir != NULL && t->dir == NULL ? HP_ERR_NOMEM : make_locks(t);
    if (err != HP_OK) {
        hp_free(t->dir);
        hp_free(t);
        return hp_error_set(reterr, err, NULL);
    }
    refresh(t); /* the first state is known before the first turn */
    t->woken = false;
    err = start(t);
    if (err != HP_OK) {
        t->joined = true;
        hp_store_thread_free(t);
        return hp_error_set(reterr, err, "the store thread can not be started");
    }
    *ret_thread = t;
    return HP_OK;
}

void hp_store_thread_put(struct hp_store_thread *thread, struct hp_batch *batches)
{
    HP_ASSERT(!thread->joined);
    lock(thread);
    while (batches != NULL) {
        struct hp_batch *batch = batches;
        batches = batch->next;
        batch->next = NULL;
        HP_ASSERT(batch->number > thread->last_put);
        thread->last_put = batch->number;
        queue_add(&thread->queue, (struct item){.batch = batch});
        thread->figures.queued_ops += batch->op_count;
    }
    atomic_store_explicit(&thread->has_more, true, memory_order_relaxed);
    (void)pthread_cond_signal(&thread->cond); /* cannot fail */
    unlock(thread);
}

void hp_store_thread_load(struct hp_store_thread *thread, struct hp_load *load)
{
    HP_ASSERT(!thread->joined);
    struct hp_loaded *loaded = hp_loaded_new(load);
    lock(thread);
    queue_add(&thread->queue, (struct item){.loaded = loaded});
    atomic_store_explicit(&thread->has_more, true, memory_order_relaxed);
    (void)pthread_cond_signal(&thread->cond); /* cannot fail */
    unlock(thread);
}

bool hp_store_thread_take(struct hp_store_thread *thread, struct hp_store_done *ret_done)
{
    lock(thread);
    *ret_done = (struct hp_store_done){
        .durable = thread->durable,
        .batches = thread->done_batches,
        .loaded = thread->done_loaded.first,
        .disk_low = thread->disk_low,
    };
    thread->done_batches = NULL;
    list_init(&thread->done_loaded);
    thread->woken = false;
    unlock(thread);
    bool changed = ret_done->disk_low != thread->disk_low_taken;
    thread->disk_low_taken = ret_done->disk_low;
    return ret_done->batches != NULL || ret_done->loaded != NULL || changed;
}

void hp_store_thread_figures(struct hp_store_thread *thread,
                             struct hp_store_thread_figures *ret_figures)
{
    lock(thread);
    *ret_figures = thread->figures;
    unlock(thread);
}

enum hp_err hp_store_thread_stop(struct hp_store_thread *thread, uint64_t timeout_ms)
{
    HP_ASSERT(!thread->joined);
    lock(thread);
    thread->stop = true;
    thread->stop_by_ms = hp_clock_mono_ms() + timeout_ms;
    atomic_store_explicit(&thread->has_more, true, memory_order_relaxed);
    (void)pthread_cond_signal(&thread->cond); /* cannot fail */
    unlock(thread);
    int error = pthread_join(thread->thread, NULL);
    HP_ASSERT(error == 0);
    thread->joined = true;
    return thread->result;
}

static void free_queue(struct queue *queue)
{
    for (uint32_t i = 0; i < queue->count; i++) {
        hp_batch_free(queue->items[i].batch);
        hp_loaded_free(queue->items[i].loaded);
    }
    hp_free(queue->items);
}

void hp_store_thread_free(struct hp_store_thread *thread)
{
    if (thread == NULL) {
        return;
    }
    HP_ASSERT(thread->joined);
    free_queue(&thread->queue);
    free_queue(&thread->work);
    while (thread->done_batches != NULL) {
        struct hp_batch *next = thread->done_batches->next;
        hp_batch_free(thread->done_batches);
        thread->done_batches = next;
    }
    for (struct hp_loaded *loaded = list_pop(&thread->done_loaded); loaded != NULL;
         loaded = list_pop(&thread->done_loaded)) {
        hp_loaded_free(loaded);
    }
    (void)pthread_cond_destroy(&thread->cond);   /* nobody waits */
    (void)pthread_mutex_destroy(&thread->mutex); /* nobody has it */
    hp_free(thread->merged);
    hp_free(thread->dir);
    hp_free(thread);
}
