/* SPDX-License-Identifier: BSD-2-Clause */
#include "server/store/blob_crew.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/sys/file.h"
#include "common/sys/near.h"
#include "server/store/blob_file.h"
#include "server/store/blob_near.h"

#define THREADS 4u
#define PIECE_BYTES ((uint32_t)256 << 10)      /* digested while the cache has it */
#define DIRECT_PIECE_BYTES ((uint32_t)4 << 20) /* so much is on its way to the disk at once */
#define DIRECT_BYTES_MIN ((uint64_t)1 << 20)

struct hp_blob_crew {
    struct hp_blob_crew_options options;
    char *blob_dir;
    uint64_t device;
    bool has_device;
    pthread_t threads[THREADS];
    uint32_t thread_count;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool has_locks;

    /* under the mutex */
    struct hp_blob_job *jobs;
    struct hp_blob_job **jobs_tail;
    bool stop;
};

/* ------------------------------------------------------------------ a job */
struct copy {
    int fd;
    uint64_t size;
    const uint8_t *data;
    struct hp_blob_writer *writer;
    struct hp_blob_near *near; /* the size is reserved there; else NULL */
};

static void copy_deinit(struct copy *copy)
{
    if (copy->near != NULL) {
        hp_blob_near_unreserve(copy->near, copy->size);
    }
    hp_blob_writer_free(copy->writer);
    hp_near_unmap(copy->data, copy->size);
    hp_fd_close(&copy->fd);
}

static enum hp_err write_all(const struct copy *copy, struct hp_error *reterr)
{
    enum hp_err err = HP_OK;
    uint32_t piece = copy->near != NULL ? DIRECT_PIECE_BYTES : PIECE_BYTES;
    for (uint64_t at = 0; at < copy->size && err == HP_OK; at += piece) {
        uint32_t part = (uint32_t)HP_MIN((uint64_t)piece, copy->size - at);
        err = hp_blob_writer_append(copy->writer, copy->data + at, part, reterr);
    }
    return err;
}

/* Large content goes to the disk from where it is, as it stays there for who reads it next. */
static void go_direct(const struct hp_blob_crew *crew, struct copy *copy)
{
    struct hp_blob_near *near = crew->options.near;
    if (near != NULL && copy->size >= DIRECT_BYTES_MIN && hp_blob_near_reserve(near, copy->size)) {
        copy->near = near;
        hp_blob_writer_direct(copy->writer);
    }
}

/* The owner may lend it on from memory. */
static void hand_over(struct copy *copy, struct hp_blob_job *job)
{
    if (copy->near != NULL) {
        job->memory_fd = copy->fd;
        job->digest = hp_blob_writer_digest(copy->writer);
        copy->near = NULL;
        copy->fd = -1;
    }
}

/* As the last blob.put: the file is synced and named, then its name is. */
static enum hp_err make_file(const struct hp_blob_crew *crew, struct hp_blob_job *job,
                             struct hp_error *reterr)
{
    struct copy copy HP_CLEANUP(copy_deinit) = {.fd = -1, .size = job->size};
    if (!crew->has_device) {
        return hp_error_set(reterr, HP_ERR_UNSUPPORTED, "memory files are not to be had");
    }
    enum hp_err err = hp_blob_gift_open(&job->gift, job->size, crew->device, &copy.fd, reterr);
    if (err == HP_OK && hp_near_map(copy.fd, job->size, &copy.data) != HP_OK) {
        err = hp_error_set(reterr, HP_ERR_UNSUPPORTED, "what is given can not be mapped");
    }
    if (err == HP_OK) {
        err = hp_blob_writer_new(crew->blob_dir, job->blob, job->size, &copy.writer, reterr);
    }
    if (err == HP_OK) {
        go_direct(crew, &copy);
        err = write_all(&copy, reterr);
    }
    err = err == HP_OK ? hp_blob_writer_finish(copy.writer, reterr) : err;
    err = err == HP_OK ? hp_blob_dir_sync(crew->blob_dir, job->blob, reterr) : err;
    if (err == HP_OK) {
        hand_over(&copy, job);
    }
    return err;
}

/* ------------------------------------------------------------------ threads */
static void lock(struct hp_blob_crew *crew)
{
    int error = pthread_mutex_lock(&crew->mutex);
    HP_ASSERT(error == 0);
}

static void unlock(struct hp_blob_crew *crew)
{
    int error = pthread_mutex_unlock(&crew->mutex);
    HP_ASSERT(error == 0);
}

/* The next one, or NULL: stop. */
static struct hp_blob_job *take(struct hp_blob_crew *crew)
{
    lock(crew);
    while (crew->jobs == NULL && !crew->stop) {
        (void)pthread_cond_wait(&crew->cond, &crew->mutex); /* cannot fail */
    }
    struct hp_blob_job *job = crew->jobs;
    if (job != NULL) {
        crew->jobs = job->next;
        crew->jobs_tail = crew->jobs == NULL ? &crew->jobs : crew->jobs_tail;
        job->next = NULL;
    }
    unlock(crew);
    return job;
}

static void *run(void *context)
{
    struct hp_blob_crew *crew = context;
    (void)pthread_setname_np(pthread_self(), "hp-blob-copy"); /* for people only */
    for (struct hp_blob_job *job = take(crew); job != NULL; job = take(crew)) {
        job->error = (struct hp_error){0};
        job->memory_fd = -1;
        enum hp_err err = make_file(crew, job, &job->error);
        job->error.code = err;
        crew->options.done(crew->options.context, job);
    }
    return NULL;
}

static enum hp_err start(struct hp_blob_crew *crew)
{
    sigset_t all;
    sigset_t old;
    if (pthread_mutex_init(&crew->mutex, NULL) != 0) {
        return HP_ERR_NOMEM;
    }
    if (pthread_cond_init(&crew->cond, NULL) != 0) {
        (void)pthread_mutex_destroy(&crew->mutex); /* nobody has it */
        return HP_ERR_NOMEM;
    }
    crew->has_locks = true;
    int error = 0;
    (void)sigfillset(&all);                         /* cannot fail */
    (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* arguments are valid */
    while (error == 0 && crew->thread_count < THREADS) {
        error = pthread_create(&crew->threads[crew->thread_count], NULL, run, crew);
        crew->thread_count += error == 0;
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL); /* as before */
    return crew->thread_count > 0 ? HP_OK : HP_ERR_NOMEM;
}

/* ------------------------------------------------------------------ the owner's side */
enum hp_err hp_blob_crew_new(const struct hp_blob_crew_options *options,
                             struct hp_blob_crew **ret_crew, struct hp_error *reterr)
{
    struct hp_blob_crew *crew = hp_calloc(1, sizeof(*crew));
    if (crew == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    crew->options = *options;
    crew->jobs_tail = &crew->jobs;
    crew->has_device = hp_blob_gift_device(&crew->device) == HP_OK;
    crew->blob_dir = hp_strdup(options->blob_dir);
    if (crew->blob_dir == NULL || start(crew) != HP_OK) {
        hp_blob_crew_free(crew);
        return hp_error_set(reterr, HP_ERR_NOMEM, "the blob threads can not be started");
    }
    *ret_crew = crew;
    return HP_OK;
}

void hp_blob_crew_put(struct hp_blob_crew *crew, struct hp_blob_job *job)
{
    job->next = NULL;
    lock(crew);
    *crew->jobs_tail = job;
    crew->jobs_tail = &job->next;
    (void)pthread_cond_signal(&crew->cond); /* cannot fail */
    unlock(crew);
}

void hp_blob_crew_free(struct hp_blob_crew *crew)
{
    if (crew == NULL) {
        return;
    }
    if (crew->has_locks) {
        lock(crew);
        crew->stop = true;
        (void)pthread_cond_broadcast(&crew->cond); /* cannot fail */
        unlock(crew);
        for (uint32_t i = 0; i < crew->thread_count; i++) {
            int error = pthread_join(crew->threads[i], NULL);
            HP_ASSERT(error == 0);
        }
        (void)pthread_cond_destroy(&crew->cond);   /* nobody waits */
        (void)pthread_mutex_destroy(&crew->mutex); /* nobody has it */
    }
    hp_free(crew->blob_dir);
    hp_free(crew);
}
