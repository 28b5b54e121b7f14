/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The blob thread. It takes all that waits as one round, does the requests in order, and before it
 * posts the round's answers syncs each folder in which a blob was finished once: an answer
 * "durable" is never posted before its name is. Gifts that become files go to the crew, which posts
 * by itself: nothing else knows their ids before they are answered.
 */
#include "server/store/blob.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"
#include "common/sys/file.h"
#include "server/store/blob_crew.h"
#include "server/store/blob_file.h"
#include "server/store/blob_near.h"

#define QUEUE_BYTES_DEFAULT ((uint64_t)64 << 20)
#define UPLOADS_MAX 256u /* open files of unfinished uploads */
#define UPLOAD_IDLE_MS ((uint64_t)600 * 1000)

struct request {
    struct request *next;
    enum hp_blob_verb verb;
    uint64_t conn;
    uint32_t msgid;
    uint64_t blob;
    uint64_t offset;
    uint64_t size;
    bool has_digest;
    uint64_t digest;
    struct hp_blob_gift gift; /* GIVE, to be kept */
    bool is_file;             /* GIVE: a file was made of it; memory_fd is to be remembered */
    int memory_fd;
    uint32_t data_size;
    uint8_t data[];
};

struct upload {
    struct upload *next;
    uint64_t blob;
    uint64_t used_ms; /* monotonic */
    struct hp_blob_writer *writer;
};

struct hp_blobs {
    void (*wake)(void *context);
    void *context;
    uint64_t queue_bytes_max;
    char *dir;                 /* blobs/ */
    struct hp_blob_crew *crew; /* NULL: there are no gifts */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool has_locks, has_thread;

    /* under the mutex */
    struct request *requests;
    struct request **requests_tail;
    uint64_t queue_bytes;
    struct hp_blob_answer *answers;
    struct hp_blob_answer **answers_tail;
    bool stop;
    bool woken;

    /* of the thread */
    struct upload *uploads;
    uint32_t upload_count;
    struct hp_blob_near *near;
    struct hp_blob_answer *round;
    struct hp_blob_answer **round_tail;
    uint8_t unsynced[HP_BLOB_FOLDERS]; /* folders with a new name */
};

/* ------------------------------------------------------------------ uploads */
static void remove_upload(struct hp_blobs *b, struct upload **link)
{
    struct upload *upload = *link;
    *link = upload->next;
    hp_blob_writer_free(upload->writer);
    hp_free(upload);
    b->upload_count--;
}

static struct upload **find_upload(struct hp_blobs *b, uint64_t blob)
{
    for (struct upload **link = &b->uploads; *link != NULL; link = &(*link)->next) {
        if ((*link)->blob == blob) {
            return link;
        }
    }
    return NULL;
}

/* Makes room for one more: idle ones go, and if there is no other way the one idle for longest. */
static void expire_uploads(struct hp_blobs *b, uint64_t now_ms)
{
    struct upload **oldest = NULL;
    for (struct upload **link = &b->uploads; *link != NULL;) {
        if (now_ms - (*link)->used_ms >= UPLOAD_IDLE_MS) {
            remove_upload(b, link);
            continue;
        }
        if (oldest == NULL || (*link)->used_ms < (*oldest)->used_ms) {
            oldest = link;
        }
        link = &(*link)->next;
    }
    if (b->upload_count >= UPLOADS_MAX && oldest != NULL) {
        remove_upload(b, oldest);
    }
}

/* ------------------------------------------------------------------ answers */
static struct hp_blob_answer *new_answer(const struct request *request, size_t data_room)
{
    struct hp_blob_answer *answer = hp_calloc(1, sizeof(*answer) + data_room);
    HP_ASSERT(answer != NULL); /* a request must be answered, or its peer waits for ever */
    answer->verb = request->verb;
    answer->conn = request->conn;
    answer->msgid = request->msgid;
    answer->blob = request->blob;
    return answer;
}

static void set_error(struct hp_blob_answer *answer, enum hp_err err, const char *text)
{
    answer->err = err;
    (void)snprintf(answer->text, sizeof(answer->text), "%s", text); /* may be cut */
}

void hp_blob_answer_free(struct hp_blob_answer *answer)
{
    hp_free(answer); /* its data is behind it */
}

/* ------------------------------------------------------------------ requests */
static void do_open(struct hp_blobs *b, const struct request *request,
                    struct hp_blob_answer *answer)
{
    struct hp_error error = {0};
    uint64_t now_ms = hp_clock_mono_ms();
    if (request->size > HP_BLOB_SIZE_MAX) {
        set_error(answer, HP_ERR_TOO_BIG, "a blob has at most 1 GiB");
        return;
    }
    struct upload **old = find_upload(b, request->blob);
    if (old != NULL) {
        remove_upload(b, old);
    }
    expire_uploads(b, now_ms);
    struct upload *upload = hp_calloc(1, sizeof(*upload));
    if (upload == NULL) {
        set_error(answer, HP_ERR_NOMEM, "out of memory");
        return;
    }
    enum hp_err err =
        hp_blob_writer_new(b->dir, request->blob, request->size, &upload->writer, &error);
    if (err != HP_OK) {
        hp_free(upload);
        set_error(answer, err, error.text);
        return;
    }
    upload->blob = request->blob;
    upload->used_ms = now_ms;
    upload->next = b->uploads;
    b->uploads = upload;
    b->upload_count++;
}

/* A PUT without an upload: repeated after the last one was answered, or lost with a restart. */
static void put_again(struct hp_blobs *b, const struct request *request,
                      struct hp_blob_answer *answer)
{
    uint64_t size = 0;
    uint64_t digest = 0;
    struct hp_error error = {0};
    enum hp_err err = hp_blob_stat(b->dir, request->blob, &size, &digest, &error);
    if (err != HP_OK || request->offset > size || request->data_size > size - request->offset) {
        set_error(answer, HP_ERR_NOT_FOUND, "no such upload; open the blob anew");
        return;
    }
    if (request->has_digest && request->digest != digest) {
        set_error(answer, HP_ERR_CORRUPT, "the digest is not that of the blob");
        return;
    }
    answer->size = size;
    answer->digest = digest;
    answer->last = true;
    b->unsynced[request->blob % HP_BLOB_FOLDERS] = 1; /* the earlier sync may not have been */
}

static void finish_upload(struct hp_blobs *b, struct upload **link, const struct request *request,
                          struct hp_blob_answer *answer)
{
    struct hp_blob_writer *writer = (*link)->writer;
    struct hp_error error = {0};
    answer->digest = hp_blob_writer_digest(writer);
    if (request->has_digest && request->digest != answer->digest) {
        set_error(answer, HP_ERR_CORRUPT, "the digest is not that of the bytes received");
    } else if (hp_blob_writer_finish(writer, &error) != HP_OK) {
        set_error(answer, error.code, error.text);
    } else {
        answer->last = true;
        b->unsynced[request->blob % HP_BLOB_FOLDERS] = 1;
    }
    remove_upload(b, link);
}

static void do_put(struct hp_blobs *b, const struct request *request, struct hp_blob_answer *answer)
{
    struct hp_error error = {0};
    struct upload **link = find_upload(b, request->blob);
    if (link == NULL) {
        put_again(b, request, answer);
        return;
    }
    struct hp_blob_writer *writer = (*link)->writer;
    uint64_t written = hp_blob_writer_written(writer);
    (*link)->used_ms = hp_clock_mono_ms();
    answer->size = written;
    if (request->offset > written) {
        set_error(answer, HP_ERR_STALE, "a chunk before this one is missing");
        return;
    }
    if (request->offset < written) {
        if (request->data_size > written - request->offset) {
            set_error(answer, HP_ERR_STALE, "the chunk overlaps what was written");
        }
        return; /* repeated: it is here */
    }
    enum hp_err err = hp_blob_writer_append(writer, request->data, request->data_size, &error);
    if (err != HP_OK) {
        set_error(answer, err, error.text);
        remove_upload(b, link);
        return;
    }
    answer->size = hp_blob_writer_written(writer);
    if (answer->size == hp_blob_writer_size(writer)) {
        finish_upload(b, link, request, answer);
    }
}

static void do_get(struct hp_blobs *b, const struct request *request, uint32_t room,
                   struct hp_blob_answer *answer)
{
    struct hp_error error = {0};
    uint8_t *data = (uint8_t *)(answer + 1);
    uint32_t size = 0;
    enum hp_err err = hp_blob_near_read(b->near, request->blob, request->offset, room, data, &size,
                                        &answer->size, &answer->digest, &error);
    if (err == HP_ERR_NOT_FOUND) {
        err = hp_blob_read(b->dir, request->blob, request->offset, room, data, &size, &answer->size,
                           &answer->digest, &error);
    }
    if (err != HP_OK) {
        set_error(answer, err, error.text);
        return;
    }
    answer->data = (struct hp_bin){.data = size > 0 ? data : NULL, .size = size};
}

static void do_keep(struct hp_blobs *b, const struct request *request,
                    struct hp_blob_answer *answer)
{
    struct hp_error error = {0};
    enum hp_err err =
        hp_blob_near_keep(b->near, request->blob, request->size, &request->gift, &error);
    if (err != HP_OK) {
        set_error(answer, err, error.text);
    }
}

static void do_lend(struct hp_blobs *b, const struct request *request,
                    struct hp_blob_answer *answer)
{
    struct hp_error error = {0};
    struct hp_blob_loan loan;
    enum hp_err err = hp_blob_near_lend(b->near, request->blob, hp_clock_mono_ms(), &loan, &error);
    if (err != HP_OK) {
        set_error(answer, err, error.text);
        return;
    }
    answer->place = loan.place;
    answer->size = loan.size;
    answer->digest = loan.digest;
    answer->has_digest = loan.has_digest;
}

static void do_request(struct hp_blobs *b, const struct request *request)
{
    if (request->verb == HP_BLOB_DROP) {
        hp_blob_near_drop(b->near, request->blob);
        return;
    }
    if (request->is_file) {
        hp_blob_near_remember(b->near, request->blob, request->size, request->digest,
                              request->memory_fd, hp_clock_mono_ms());
        return;
    }
    uint64_t wanted = HP_MIN(request->size, (uint64_t)HP_BLOB_CHUNK_MAX);
    uint32_t room = request->verb == HP_BLOB_GET ? (uint32_t)wanted : 0;
    struct hp_blob_answer *answer = new_answer(request, room);
    switch (request->verb) {
    case HP_BLOB_OPEN:
        do_open(b, request, answer);
        break;
    case HP_BLOB_PUT:
        do_put(b, request, answer);
        break;
    case HP_BLOB_GET:
        do_get(b, request, room, answer);
        break;
    case HP_BLOB_GIVE:
        do_keep(b, request, answer);
        break;
    case HP_BLOB_LEND:
        do_lend(b, request, answer);
        break;
    case HP_BLOB_DROP:
        break; /* above */
    }
    *b->round_tail = answer;
    b->round_tail = &answer->next;
}

/* Makes the names of the round durable; where that fails, its blobs are not. */
static void sync_folders(struct hp_blobs *b)
{
    for (uint32_t folder = 0; folder < HP_BLOB_FOLDERS; folder++) {
        struct hp_error error = {0};
        if (b->unsynced[folder] == 0) {
            continue;
        }
        b->unsynced[folder] = 0;
        if (hp_blob_dir_sync(b->dir, folder, &error) == HP_OK) {
            continue;
        }
        for (struct hp_blob_answer *a = b->round; a != NULL; a = a->next) {
            if (a->last && a->blob % HP_BLOB_FOLDERS == folder) {
                a->last = false;
                set_error(a, HP_ERR_IO, error.text);
            }
        }
    }
}

/* ------------------------------------------------------------------ thread */
static void lock(struct hp_blobs *b)
{
    int error = pthread_mutex_lock(&b->mutex);
    HP_ASSERT(error == 0);
}

static void unlock(struct hp_blobs *b)
{
    int error = pthread_mutex_unlock(&b->mutex);
    HP_ASSERT(error == 0);
}

static void wait_until(struct hp_blobs *b, uint64_t until_ms)
{
    const struct timespec until = {.tv_sec = (time_t)(until_ms / 1000),
                                   .tv_nsec = (long)(until_ms % 1000 * 1000000)};
    if (until_ms == UINT64_MAX) {
        (void)pthread_cond_wait(&b->cond, &b->mutex); /* cannot fail */
    } else {
        (void)pthread_cond_timedwait(&b->cond, &b->mutex, &until); /* in time, or not */
    }
}

/* All that waits; NULL: until_ms has come, or it is to stop. */
static struct request *take_requests(struct hp_blobs *b, uint64_t until_ms, bool *ret_stop)
{
    lock(b);
    if (b->requests == NULL && !b->stop) {
        wait_until(b, until_ms);
    }
    struct request *requests = HP_TAKE(b->requests);
    b->requests_tail = &b->requests;
    *ret_stop = b->stop;
    unlock(b);
    return requests;
}

/* Any thread. first .. *last_next, in order; `bytes` of them wait no more. */
static void post(struct hp_blobs *b, struct hp_blob_answer *first,
                 struct hp_blob_answer **last_next, uint64_t bytes)
{
    lock(b);
    b->queue_bytes -= bytes;
    bool wake = first != NULL && !b->woken;
    if (first != NULL) {
        *b->answers_tail = first;
        b->answers_tail = last_next;
        b->woken = true;
    }
    unlock(b);
    if (wake) {
        b->wake(b->context);
    }
}

static void do_round(struct hp_blobs *b, struct request *requests)
{
    uint64_t bytes = 0;
    b->round = NULL;
    b->round_tail = &b->round;
    while (requests != NULL) {
        struct request *next = requests->next;
        bytes += requests->data_size;
        do_request(b, requests);
        hp_free(requests);
        requests = next;
    }
    sync_folders(b);
    post(b, b->round, b->round_tail, bytes);
}

static void *run(void *context)
{
    struct hp_blobs *b = context;
    bool stop = false;
    (void)pthread_setname_np(pthread_self(), "hp-blob"); /* for people only */
    while (!stop) {
        /* Not under the mutex: the last close of a file that was removed takes its time. */
        uint64_t until_ms = hp_blob_near_expire(b->near, hp_clock_mono_ms());
        struct request *requests = take_requests(b, until_ms, &stop);
        if (requests != NULL) {
            do_round(b, requests);
            stop = false; /* there may be more */
        }
    }
    while (b->uploads != NULL) {
        remove_upload(b, &b->uploads);
    }
    return NULL;
}

/* The blob thread hears of it before anybody can ask for it: that is after the answer. */
static void remember(struct hp_blobs *b, const struct hp_blob_job *job)
{
    struct request *request = hp_calloc(1, sizeof(*request));
    HP_ASSERT(request != NULL); /* as for those of peers */
    request->verb = HP_BLOB_GIVE;
    request->blob = job->blob;
    request->size = job->size;
    request->digest = job->digest;
    request->is_file = true;
    request->memory_fd = job->memory_fd;
    lock(b);
    *b->requests_tail = request;
    b->requests_tail = &request->next;
    (void)pthread_cond_signal(&b->cond); /* cannot fail */
    unlock(b);
}

/* A thread of the crew has made a file of a gift, or not. */
static void on_given(void *context, struct hp_blob_job *job)
{
    struct hp_blobs *b = context;
    struct hp_blob_answer *answer = job->context;
    if (job->error.code != HP_OK) {
        set_error(answer, job->error.code, job->error.text);
    }
    answer->last = job->error.code == HP_OK;
    if (job->memory_fd >= 0) {
        remember(b, job);
    }
    hp_free(job);
    post(b, answer, &answer->next, 0);
}

/* ------------------------------------------------------------------ loop side */
static bool init_cond(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    if (pthread_condattr_init(&attr) != 0) {
        return false;
    }
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* it is one */
    int error = pthread_cond_init(cond, &attr);
    (void)pthread_condattr_destroy(&attr); /* cannot fail */
    return error == 0;
}

static enum hp_err start(struct hp_blobs *b, struct hp_error *reterr)
{
    sigset_t all;
    sigset_t old;
    if (pthread_mutex_init(&b->mutex, NULL) != 0) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    if (!init_cond(&b->cond)) {
        (void)pthread_mutex_destroy(&b->mutex); /* nobody has it */
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    b->has_locks = true;
    (void)sigfillset(&all);                         /* cannot fail */
    (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* arguments are valid */
    int error = pthread_create(&b->thread, NULL, run, b);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL); /* as before */
    b->has_thread = error == 0;
    return error == 0 ? HP_OK
                      : hp_error_set(reterr, HP_ERR_NOMEM, "the blob thread can not be started");
}

enum hp_err hp_blobs_new(const struct hp_blobs_options *options, struct hp_blobs **ret_blobs,
                         struct hp_error *reterr)
{
    struct hp_blobs *b = hp_calloc(1, sizeof(*b));
    if (b == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    size_t size = strlen(options->dir) + sizeof("/blobs");
    b->wake = options->wake;
    b->context = options->context;
    b->queue_bytes_max =
        options->queue_bytes_max > 0 ? options->queue_bytes_max : QUEUE_BYTES_DEFAULT;
    b->requests_tail = &b->requests;
    b->answers_tail = &b->answers;
    b->dir = hp_alloc(size);
    enum hp_err err = b->dir != NULL ? HP_OK : hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    if (err == HP_OK) {
        (void)snprintf(b->dir, size, "%s/blobs", options->dir); /* sized for it */
        err = hp_mkdir_p(b->dir, 0700, reterr);
    }
    if (err == HP_OK) {
        err = hp_blob_make_folders(b->dir, reterr);
    }
    if (err == HP_OK) {
        b->near = hp_blob_near_new(b->dir, options->near_files_max);
        err = b->near != NULL ? HP_OK : hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    if (err == HP_OK) {
        err = start(b, reterr);
    }
    if (err == HP_OK && options->near_files_max > 0) {
        struct hp_blob_crew_options crew = {
            .blob_dir = b->dir, .near = b->near, .done = on_given, .context = b};
        err = hp_blob_crew_new(&crew, &b->crew, reterr);
    }
    if (err != HP_OK) {
        hp_blobs_free(b);
        return err;
    }
    *ret_blobs = b;
    return HP_OK;
}

/* Answers without the thread. */
static void refuse(struct hp_blobs *b, const struct request *request, enum hp_err err,
                   const char *text)
{
    struct hp_blob_answer *answer = new_answer(request, 0);
    set_error(answer, err, text);
    post(b, answer, &answer->next, 0);
}

/* To the crew: a gift that is to be a file. */
static void submit_gift(struct hp_blobs *b, const struct hp_effect *effect)
{
    const struct request request = {.verb = HP_BLOB_GIVE,
                                    .conn = effect->conn,
                                    .msgid = effect->blob.msgid,
                                    .blob = effect->blob.blob};
    if (b->crew == NULL) {
        refuse(b, &request, HP_ERR_UNSUPPORTED, "the broker takes no descriptors");
        return;
    }
    struct hp_blob_job *job = hp_calloc(1, sizeof(*job));
    HP_ASSERT(job != NULL); /* it must be answered */
    job->blob = effect->blob.blob;
    job->size = effect->blob.size;
    job->gift = *effect->blob.gift;
    job->context = new_answer(&request, 0);
    hp_blob_crew_put(b->crew, job);
}

void hp_blobs_submit(struct hp_blobs *blobs, const struct hp_effect *effect)
{
    HP_ASSERT(effect->kind == HP_EFFECT_BLOB);
    bool is_gift = effect->blob.verb == HP_BLOB_GIVE;
    if (is_gift && !effect->blob.gift->is_kept) {
        submit_gift(blobs, effect);
        return;
    }
    uint32_t size = effect->blob.verb == HP_BLOB_PUT ? effect->blob.data.size : 0;
    struct request *request = hp_calloc(1, sizeof(*request) + size);
    HP_ASSERT(request != NULL); /* a request must be answered, or its peer waits for ever */
    request->verb = effect->blob.verb;
    request->conn = effect->conn;
    request->msgid = effect->blob.msgid;
    request->blob = effect->blob.blob;
    request->offset = effect->blob.offset;
    request->size = effect->blob.size;
    request->has_digest = effect->blob.has_digest;
    request->digest = effect->blob.digest;
    request->data_size = size;
    if (is_gift) {
        request->gift = *effect->blob.gift;
    }
    if (size > 0) {
        memcpy(request->data, effect->blob.data.data, size);
    }
    lock(blobs);
    bool full = size > 0 && blobs->queue_bytes + size > blobs->queue_bytes_max;
    if (!full) {
        blobs->queue_bytes += size;
        *blobs->requests_tail = request;
        blobs->requests_tail = &request->next;
        (void)pthread_cond_signal(&blobs->cond); /* cannot fail */
    }
    unlock(blobs);
    if (full) {
        refuse(blobs, request, HP_ERR_BUSY, "too many bytes wait to be written; try again");
        hp_free(request);
    }
}

struct hp_blob_answer *hp_blobs_take(struct hp_blobs *blobs)
{
    lock(blobs);
    struct hp_blob_answer *answers = HP_TAKE(blobs->answers);
    blobs->answers_tail = &blobs->answers;
    blobs->woken = false;
    unlock(blobs);
    return answers;
}

void hp_blobs_free(struct hp_blobs *blobs)
{
    if (blobs == NULL) {
        return;
    }
    hp_blob_crew_free(blobs->crew);
    if (blobs->has_thread) {
        lock(blobs);
        blobs->stop = true;
        (void)pthread_cond_signal(&blobs->cond); /* cannot fail */
        unlock(blobs);
        int error = pthread_join(blobs->thread, NULL);
        HP_ASSERT(error == 0);
    }
    if (blobs->has_locks) {
        (void)pthread_cond_destroy(&blobs->cond);   /* nobody waits */
        (void)pthread_mutex_destroy(&blobs->mutex); /* nobody has it */
    }
    hp_blob_near_free(blobs->near);
    while (blobs->answers != NULL) {
        struct hp_blob_answer *next = blobs->answers->next;
        hp_blob_answer_free(blobs->answers);
        blobs->answers = next;
    }
    hp_free(blobs->dir);
    hp_free(blobs);
}
