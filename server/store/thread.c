/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store thread, see thread.h.
 *
 * T1 The queue of what was put is one FIFO of batches and loads; a load is answered after all
 *    batches before it were applied, and batches behind a load are not applied before it.
 * T2 `durable` is set only after hp_store_apply has returned HP_OK for the batch.
 * T3 The store is used by this thread only; the mutex guards nothing but the lists and figures.
 */
#include "server/store/thread.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/sys/clock.h"
#include "common/sys/file.h"

enum { RETRY_MS = 250, SPACE_EVERY_MS = 1000, MERGE_BATCHES_MAX = 512 };

/* What waits: either a batch or a load. */
struct item {
    struct hp_batch *batch;
    struct hp_load *load;
    struct item *next;
};

struct hp_store_thread {
    struct hp_store_thread_options options;
    char *dir;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool started, stopping, woken;
    uint64_t stop_at_ms; /* on a full disk: give up then */
    enum hp_err stop_err;
    struct item *first, *last; /* guarded, as all below */
    uint64_t durable, taken_durable, last_put;
    struct hp_batch *done_first, *done_last;
    struct hp_loaded *loaded_first, *loaded_last;
    bool disk_low, taken_disk_low, full;
    struct hp_store_thread_figures figures;
    struct hp_loaded *long_load; /* a CHECK or BACKUP under way; the thread's own */
    uint64_t space_at_ms;
};

/* ------------------------------------------------ telling the loop */
static void wake(struct hp_store_thread *thread)
{
    if (!thread->woken) {
        thread->woken = true;
        thread->options.wake(thread->options.context);
    }
}

static void report_loaded(struct hp_store_thread *thread, struct hp_loaded *loaded)
{
    pthread_mutex_lock(&thread->lock);
    loaded->next_loaded = NULL;
    if (thread->loaded_last != NULL) {
        thread->loaded_last->next_loaded = loaded;
    } else {
        thread->loaded_first = loaded;
    }
    thread->loaded_last = loaded;
    wake(thread);
    pthread_mutex_unlock(&thread->lock);
}

static void report_batches(struct hp_store_thread *thread, struct hp_batch **batches,
                           uint32_t count, uint64_t commit_us)
{
    struct hp_store_figures store;
    hp_store_figures(thread->options.store, &store);
    pthread_mutex_lock(&thread->lock);
    for (uint32_t i = 0; i < count; i++) {
        batches[i]->next = NULL;
        if (thread->done_last != NULL) {
            thread->done_last->next = batches[i];
        } else {
            thread->done_first = batches[i];
        }
        thread->done_last = batches[i];
        thread->figures.ops += batches[i]->op_count;
        thread->figures.queued_ops -= batches[i]->op_count;
    }
    thread->durable = batches[count - 1]->number;
    thread->figures.store = store;
    thread->figures.commits++;
    thread->figures.batches += count;
    thread->figures.commit_us_last = commit_us;
    if (commit_us > thread->figures.commit_us_max) {
        thread->figures.commit_us_max = commit_us;
    }
    wake(thread);
    pthread_mutex_unlock(&thread->lock);
}

static void set_low(struct hp_store_thread *thread, bool full, uint32_t percent, bool known)
{
    pthread_mutex_lock(&thread->lock);
    thread->full = full;
    if (known) {
        thread->figures.disk_free_percent = percent;
    }
    bool low = full || thread->figures.store.pressure ||
               (thread->dir != NULL &&
                thread->figures.disk_free_percent < thread->options.disk_low_percent);
    if (low != thread->disk_low) {
        thread->disk_low = low;
        wake(thread);
    }
    pthread_mutex_unlock(&thread->lock);
}

static void look_at_space(struct hp_store_thread *thread)
{
    uint64_t now_ms = hp_clock_mono_ms();
    if (thread->dir == NULL || now_ms < thread->space_at_ms) {
        return;
    }
    thread->space_at_ms = now_ms + SPACE_EVERY_MS;
    unsigned percent = 100;
    uint64_t bytes = 0;
    struct hp_error error;
    struct hp_store_figures store;
    hp_store_figures(thread->options.store, &store);
    bool known = hp_path_free_space(thread->dir, &percent, &bytes, &error) == HP_OK;
    pthread_mutex_lock(&thread->lock);
    thread->figures.store = store;
    thread->figures.disk_free_bytes = known ? bytes : thread->figures.disk_free_bytes;
    pthread_mutex_unlock(&thread->lock);
    set_low(thread, thread->full, percent, known);
}

/* ------------------------------------------------ work */
static void fatal(struct hp_store_thread *thread, const struct hp_error *error)
{
    thread->options.fatal(thread->options.context, error);
    HP_UNREACHABLE();
}

static bool gave_up(struct hp_store_thread *thread)
{
    pthread_mutex_lock(&thread->lock);
    bool over = thread->stopping && hp_clock_mono_ms() >= thread->stop_at_ms;
    pthread_mutex_unlock(&thread->lock);
    return over;
}

static void wait_ms(struct hp_store_thread *thread, uint64_t ms)
{
    uint64_t until_us = hp_clock_mono_us() + ms * 1000;
    struct timespec until = {.tv_sec = (time_t)(until_us / 1000000),
                             .tv_nsec = (long)(until_us % 1000000) * 1000};
    pthread_mutex_lock(&thread->lock);
    (void)pthread_cond_timedwait(&thread->cond, &thread->lock, &until);
    pthread_mutex_unlock(&thread->lock);
}

/* One transaction of all the batches; on a full disk again and again, the same ones. */
static bool apply(struct hp_store_thread *thread, struct hp_batch **batches, uint32_t count)
{
    struct hp_error error = {0};
    for (;;) {
        uint64_t begin_us = hp_clock_mono_us();
        enum hp_err err = hp_store_apply(thread->options.store, batches, count, &error);
        if (err == HP_OK) {
            report_batches(thread, batches, count, hp_clock_mono_us() - begin_us);
            if (thread->full) {
                set_low(thread, false, 0, false);
            }
            return true;
        }
        if (err != HP_ERR_NOSPACE) {
            fatal(thread, &error);
        }
        pthread_mutex_lock(&thread->lock);
        thread->figures.nospace_count++;
        pthread_mutex_unlock(&thread->lock);
        set_low(thread, true, 0, false);
        if (gave_up(thread)) {
            thread->stop_err = HP_ERR_NOSPACE;
            return false;
        }
        wait_ms(thread, RETRY_MS);
        look_at_space(thread);
    }
}

static void run_load(struct hp_store_thread *thread, struct hp_loaded *loaded)
{
    uint64_t begin_us = hp_clock_mono_us();
    bool is_through = hp_store_load(thread->options.store, loaded);
    uint64_t took_us = hp_clock_mono_us() - begin_us;
    pthread_mutex_lock(&thread->lock);
    if (took_us > thread->figures.load_us_max) {
        thread->figures.load_us_max = took_us;
    }
    pthread_mutex_unlock(&thread->lock);
    if (is_through) {
        report_loaded(thread, loaded);
        thread->long_load = thread->long_load == loaded ? NULL : thread->long_load;
    } else {
        thread->long_load = loaded;
    }
}

static void start_load(struct hp_store_thread *thread, struct hp_load *load)
{
    struct hp_loaded *loaded = hp_loaded_new(load);
    HP_ASSERT(loaded != NULL); /* an answer cannot be dropped: who asked would wait for ever */
    bool is_long = load->kind == HP_LOAD_CHECK || load->kind == HP_LOAD_BACKUP;
    if (is_long && thread->long_load != NULL) {
        loaded->err = HP_ERR_BUSY;
        static const char text[] = "another check or backup is under way";
        loaded->text = hp_bin_make(text, sizeof(text) - 1);
        report_loaded(thread, loaded);
        return;
    }
    run_load(thread, loaded);
}

/* Takes batches off the front up to the bounds, or one load. 0: nothing. */
static uint32_t take_work(struct hp_store_thread *thread, struct hp_batch **batches,
                          struct hp_load **ret_load)
{
    uint32_t count = 0;
    uint64_t ops = 0;
    *ret_load = NULL;
    pthread_mutex_lock(&thread->lock);
    while (thread->first != NULL && count < MERGE_BATCHES_MAX) {
        struct item *item = thread->first;
        if (item->load != NULL && count > 0) {
            break; /* T1 */
        }
        if (item->batch != NULL && count > 0 &&
            ops + item->batch->op_count > thread->options.merge_ops_max) {
            break;
        }
        thread->first = item->next;
        thread->last = thread->first == NULL ? NULL : thread->last;
        bool is_load = item->load != NULL;
        if (is_load) {
            *ret_load = item->load;
        } else {
            ops += item->batch->op_count;
            batches[count++] = item->batch;
        }
        hp_free(item);
        if (is_load) {
            break;
        }
    }
    pthread_mutex_unlock(&thread->lock);
    return count;
}

static bool has_work(struct hp_store_thread *thread)
{
    pthread_mutex_lock(&thread->lock);
    bool any = thread->first != NULL;
    pthread_mutex_unlock(&thread->lock);
    return any;
}

static void cancel_long_load(struct hp_store_thread *thread)
{
    if (thread->long_load != NULL) {
        thread->long_load->err = HP_ERR_CANCELLED;
        report_loaded(thread, thread->long_load);
        thread->long_load = NULL;
    }
}

static bool is_stopping(struct hp_store_thread *thread)
{
    pthread_mutex_lock(&thread->lock);
    bool stopping = thread->stopping;
    pthread_mutex_unlock(&thread->lock);
    return stopping;
}

/* Waits until something is put, doing background work in slices meanwhile. False: stop. */
static bool idle(struct hp_store_thread *thread)
{
    bool more = true;
    while (!has_work(thread)) {
        if (thread->long_load != NULL && is_stopping(thread)) {
            cancel_long_load(thread);
        } else if (thread->long_load != NULL) {
            run_load(thread, thread->long_load);
            continue;
        }
        struct hp_error error = {0};
        if (more && hp_store_idle(thread->options.store, &more, &error) != HP_OK) {
            fatal(thread, &error);
        }
        look_at_space(thread);
        if (more) {
            continue;
        }
        pthread_mutex_lock(&thread->lock);
        bool stop = thread->stopping && thread->first == NULL;
        bool wait = !stop && thread->first == NULL;
        pthread_mutex_unlock(&thread->lock);
        if (stop) {
            return false;
        }
        if (wait) {
            wait_ms(thread, SPACE_EVERY_MS);
        }
    }
    return true;
}

static void *run(void *argument)
{
    struct hp_store_thread *thread = argument;
    struct hp_batch *batches[MERGE_BATCHES_MAX];
    struct hp_load *load = NULL;
    for (;;) {
        if (is_stopping(thread)) {
            cancel_long_load(thread);
        }
        uint32_t count = take_work(thread, batches, &load);
        if (count > 0) {
            if (!apply(thread, batches, count)) {
                for (uint32_t i = 0; i < count; i++) {
                    hp_batch_free(batches[i]);
                }
                break;
            }
            if (thread->long_load != NULL) {
                run_load(thread, thread->long_load); /* a slice between commits */
            }
        } else if (load != NULL) {
            start_load(thread, load);
        } else if (!idle(thread)) {
            break;
        }
    }
    hp_store_close(thread->options.store);
    return NULL;
}

/* ------------------------------------------------ the loop's side */
static void free_thread(struct hp_store_thread *thread)
{
    pthread_cond_destroy(&thread->cond);
    pthread_mutex_destroy(&thread->lock);
    hp_free(thread->dir);
    hp_free(thread);
}

enum hp_err hp_store_thread_new(const struct hp_store_thread_options *options,
                                struct hp_store_thread **ret_thread, struct hp_error *reterr)
{
    struct hp_store_thread *thread = hp_calloc(1, sizeof(*thread));
    if (thread == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, "store thread: out of memory");
    }
    thread->options = *options;
    thread->options.merge_ops_max = options->merge_ops_max > 0 ? options->merge_ops_max : 5000;
    thread->options.disk_low_percent =
        options->disk_low_percent > 0 ? options->disk_low_percent : 5;
    thread->figures.disk_free_percent = 100;
    thread->dir = options->dir != NULL ? hp_strdup(options->dir) : NULL;
    pthread_mutex_init(&thread->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&thread->cond, &attributes);
    pthread_condattr_destroy(&attributes);
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int error = pthread_create(&thread->thread, NULL, run, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        free_thread(thread);
        return hp_error_set(reterr, HP_ERR_NOMEM, "store thread: error %d", error);
    }
    thread->started = true;
    *ret_thread = thread;
    return HP_OK;
}

static void put_item(struct hp_store_thread *thread, struct hp_batch *batch, struct hp_load *load)
{
    struct item *item = hp_calloc(1, sizeof(*item));
    HP_ASSERT(item != NULL); /* neither may be dropped */
    item->batch = batch;
    item->load = load;
    pthread_mutex_lock(&thread->lock);
    HP_ASSERT(!thread->stopping);
    if (thread->last != NULL) {
        thread->last->next = item;
    } else {
        thread->first = item;
    }
    thread->last = item;
    if (batch != NULL) {
        HP_ASSERT(batch->number > thread->last_put);
        thread->last_put = batch->number;
        thread->figures.queued_ops += batch->op_count;
    }
    pthread_cond_signal(&thread->cond);
    pthread_mutex_unlock(&thread->lock);
}

void hp_store_thread_put(struct hp_store_thread *thread, struct hp_batch *batch)
{
    put_item(thread, batch, NULL);
}

void hp_store_thread_load(struct hp_store_thread *thread, struct hp_load *load)
{
    put_item(thread, NULL, load);
}

bool hp_store_thread_take(struct hp_store_thread *thread, struct hp_store_done *ret_done)
{
    pthread_mutex_lock(&thread->lock);
    bool any = thread->durable != thread->taken_durable || thread->loaded_first != NULL ||
               thread->done_first != NULL || thread->disk_low != thread->taken_disk_low;
    *ret_done = (struct hp_store_done){.durable = thread->durable,
                                       .batches = thread->done_first,
                                       .loaded = thread->loaded_first,
                                       .disk_low = thread->disk_low};
    thread->done_first = thread->done_last = NULL;
    thread->loaded_first = thread->loaded_last = NULL;
    thread->taken_durable = thread->durable;
    thread->taken_disk_low = thread->disk_low;
    thread->woken = false;
    pthread_mutex_unlock(&thread->lock);
    return any;
}

void hp_store_thread_figures(struct hp_store_thread *thread,
                             struct hp_store_thread_figures *ret_figures)
{
    pthread_mutex_lock(&thread->lock);
    *ret_figures = thread->figures;
    pthread_mutex_unlock(&thread->lock);
}

enum hp_err hp_store_thread_stop(struct hp_store_thread *thread, uint64_t timeout_ms)
{
    pthread_mutex_lock(&thread->lock);
    thread->stopping = true;
    thread->stop_at_ms = hp_clock_mono_ms() + timeout_ms;
    pthread_cond_signal(&thread->cond);
    pthread_mutex_unlock(&thread->lock);
    if (thread->started) {
        pthread_join(thread->thread, NULL);
        thread->started = false;
    }
    return thread->stop_err;
}

void hp_store_thread_free(struct hp_store_thread *thread)
{
    if (thread == NULL) {
        return;
    }
    HP_ASSERT(!thread->started);
    while (thread->first != NULL) {
        struct item *item = thread->first;
        thread->first = item->next;
        if (item->batch != NULL) {
            hp_batch_free(item->batch);
        }
        hp_load_free(item->load);
        hp_free(item);
    }
    struct hp_store_done done;
    (void)hp_store_thread_take(thread, &done);
    while (done.batches != NULL) {
        struct hp_batch *next = done.batches->next;
        hp_batch_free(done.batches);
        done.batches = next;
    }
    while (done.loaded != NULL) {
        struct hp_loaded *next = done.loaded->next_loaded;
        hp_loaded_free(done.loaded);
        done.loaded = next;
    }
    free_thread(thread);
}
