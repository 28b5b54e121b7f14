/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The blob thread, see blob.h.
 *
 * B1 Requests are worked off in order; what finished in one sweep over the queue shares the syncs
 * of its folders, and no last PUT is answered before the sync of its folder. B2 The lists are
 * guarded by the mutex; uploads and files belong to the thread alone.
 */
#include "server/store/blob.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/idmap.h"
#include "common/base/list.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/sys/clock.h"
#include "common/sys/file.h"
#include "server/store/blob_file.h"

enum { UPLOADS_MAX = 256, UPLOAD_IDLE_MS = 3600 * 1000, QUEUE_BYTES = 64 << 20 };

struct request {
    enum hp_blob_verb verb;
    uint64_t conn;
    uint32_t msgid;
    uint64_t blob, offset, size, digest;
    bool has_digest;
    uint32_t data_size;
    struct request *next;
    uint8_t data[];
};

struct upload {
    uint64_t blob;
    struct hp_blob_writer *writer;
    uint64_t seen_ms;
    struct hp_list link; /* least recently used first */
};

struct hp_blobs {
    struct hp_blobs_options options;
    char dir[HP_BLOB_PATH_BYTES]; /* blobs/ in the data directory */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool stopping, woken; /* guarded, as all up to queue_bytes */
    struct request *first, *last;
    struct hp_blob_answer *done_first, *done_last;
    uint64_t queue_bytes;
    struct hp_idmap uploads; /* id -> struct upload */
    struct hp_list recent;
    struct hp_blob_answer *held_first, *held_last; /* wait for the syncs of their folders */
    uint64_t dirty[4];                             /* folders with names to sync: a bit each */
    bool any_dirty;
};

/* ------------------------------------------------ uploads */
static void upload_free(struct hp_blobs *blobs, struct upload *upload)
{
    (void)hp_idmap_remove(&blobs->uploads, upload->blob, NULL);
    hp_list_remove(&upload->link);
    hp_blob_writer_free(upload->writer);
    hp_free(upload);
}

static void drop_idle(struct hp_blobs *blobs)
{
    uint64_t now_ms = hp_clock_mono_ms();
    struct hp_list *link = hp_list_first(&blobs->recent);
    while (link != NULL) {
        struct upload *upload = HP_CONTAINER_OF(link, struct upload, link);
        if (upload->seen_ms + UPLOAD_IDLE_MS > now_ms &&
            hp_idmap_count(&blobs->uploads) <= UPLOADS_MAX) {
            return;
        }
        upload_free(blobs, upload);
        link = hp_list_first(&blobs->recent);
    }
}

static enum hp_err open_upload(struct hp_blobs *blobs, const struct request *request,
                               struct hp_error *error)
{
    if (request->size > HP_BLOB_SIZE_MAX) {
        return hp_error_set(error, HP_ERR_TOO_BIG, "larger than %llu bytes",
                            (unsigned long long)HP_BLOB_SIZE_MAX);
    }
    struct upload *upload = hp_calloc(1, sizeof(*upload));
    if (upload == NULL) {
        return hp_error_set(error, HP_ERR_NOMEM, "out of memory");
    }
    upload->blob = request->blob;
    upload->seen_ms = hp_clock_mono_ms();
    hp_list_init(&upload->link);
    enum hp_err err =
        hp_blob_writer_new(blobs->dir, request->blob, request->size, &upload->writer, error);
    if (err == HP_OK) {
        err = hp_idmap_put_ptr(&blobs->uploads, upload->blob, upload);
        if (err != HP_OK) {
            hp_blob_writer_free(upload->writer);
            (void)hp_error_set(error, err, "out of memory");
        }
    }
    if (err != HP_OK) {
        hp_free(upload);
        return err;
    }
    hp_list_push_back(&blobs->recent, &upload->link);
    drop_idle(blobs);
    return HP_OK;
}

static enum hp_err finish_upload(struct hp_blobs *blobs, struct upload *upload,
                                 const struct request *request, struct hp_error *error)
{
    enum hp_err err = HP_OK;
    if (request->has_digest && request->digest != hp_blob_writer_digest(upload->writer)) {
        err = hp_error_set(error, HP_ERR_CORRUPT, "the digest differs: the bytes were damaged");
    } else {
        err = hp_blob_writer_finish(upload->writer, error);
    }
    if (err == HP_OK) {
        unsigned folder = (unsigned)(upload->blob & 0xff);
        blobs->dirty[folder / 64] |= (uint64_t)1 << (folder % 64);
        blobs->any_dirty = true;
    }
    upload_free(blobs, upload);
    return err;
}

/* A PUT for a blob that is whole already: its last reply was lost. */
static enum hp_err put_again(struct hp_blobs *blobs, const struct request *request,
                             struct hp_blob_answer *answer, struct hp_error *error)
{
    uint64_t size = 0;
    uint64_t digest = 0;
    struct hp_error ignored;
    if (hp_blob_stat(blobs->dir, request->blob, &size, &digest, &ignored) == HP_OK &&
        request->offset + request->data_size <= size) {
        answer->size = size;
        answer->digest = digest;
        answer->last = true;
        return HP_OK;
    }
    return hp_error_set(error, HP_ERR_NOT_FOUND, "no such upload: open a new one");
}

static enum hp_err put(struct hp_blobs *blobs, const struct request *request,
                       struct hp_blob_answer *answer, struct hp_error *error)
{
    struct upload *upload = hp_idmap_find_ptr(&blobs->uploads, request->blob);
    if (upload == NULL) {
        return put_again(blobs, request, answer, error);
    }
    uint64_t written = hp_blob_writer_written(upload->writer);
    uint64_t end = request->offset + request->data_size;
    answer->size = written;
    if (request->offset > written) {
        return hp_error_set(error, HP_ERR_STALE, "a gap: %llu bytes are written",
                            (unsigned long long)written);
    }
    upload->seen_ms = hp_clock_mono_ms();
    hp_list_remove(&upload->link);
    hp_list_push_back(&blobs->recent, &upload->link);
    if (end < written || (end == written && request->data_size > 0)) {
        return HP_OK; /* repeated after a lost reply */
    }
    uint32_t skip = (uint32_t)(written - request->offset);
    enum hp_err err = hp_blob_writer_append(upload->writer, request->data + skip,
                                            request->data_size - skip, error);
    if (err != HP_OK) {
        upload_free(blobs, upload);
        return err;
    }
    answer->size = end;
    if (end == hp_blob_writer_size(upload->writer)) {
        answer->digest = hp_blob_writer_digest(upload->writer);
        answer->last = true;
        err = finish_upload(blobs, upload, request, error);
    }
    return err;
}

static enum hp_err get(struct hp_blobs *blobs, const struct request *request,
                       struct hp_blob_answer *answer, struct hp_error *error)
{
    uint32_t size = request->size < HP_BLOB_CHUNK_MAX ? (uint32_t)request->size : HP_BLOB_CHUNK_MAX;
    uint8_t *data = hp_alloc(size);
    if (data == NULL) {
        return hp_error_set(error, HP_ERR_NOMEM, "out of memory");
    }
    uint32_t got = 0;
    enum hp_err err = hp_blob_read(blobs->dir, request->blob, request->offset, size, data, &got,
                                   &answer->size, &answer->digest, error);
    if (err != HP_OK) {
        hp_free(data);
        return err;
    }
    answer->data = hp_bin_make(data, got);
    return HP_OK;
}

/* ------------------------------------------------ the thread */
static void append(struct hp_blob_answer **first, struct hp_blob_answer **last,
                   struct hp_blob_answer *answer)
{
    answer->next = NULL;
    if (*last != NULL) {
        (*last)->next = answer;
    } else {
        *first = answer;
    }
    *last = answer;
}

static void work(struct hp_blobs *blobs, const struct request *request)
{
    struct hp_error error = {0};
    struct hp_blob_answer *answer = hp_calloc(1, sizeof(*answer));
    HP_ASSERT(answer != NULL); /* who asked would wait for ever */
    answer->verb = request->verb;
    answer->conn = request->conn;
    answer->msgid = request->msgid;
    answer->blob = request->blob;
    switch (request->verb) {
    case HP_BLOB_OPEN:
        answer->err = open_upload(blobs, request, &error);
        break;
    case HP_BLOB_PUT:
        answer->err = put(blobs, request, answer, &error);
        break;
    case HP_BLOB_GET:
        answer->err = get(blobs, request, answer, &error);
        break;
    }
    if (answer->err != HP_OK) {
        (void)hp_strlcpy(answer->text, error.text, sizeof(answer->text));
    }
    append(&blobs->held_first, &blobs->held_last, answer);
}

/* Syncs the folders with new names (B1). A failed sync makes the last PUTs of all of them fail. */
static void sync_folders(struct hp_blobs *blobs)
{
    struct hp_error error = {0};
    enum hp_err err = HP_OK;
    for (unsigned folder = 0; blobs->any_dirty && folder < HP_BLOB_FOLDERS; folder++) {
        if ((blobs->dirty[folder / 64] >> (folder % 64) & 1) != 0 && err == HP_OK) {
            err = hp_blob_dir_sync(blobs->dir, folder, &error);
        }
    }
    memset(blobs->dirty, 0, sizeof(blobs->dirty));
    blobs->any_dirty = false;
    for (struct hp_blob_answer *answer = blobs->held_first; err != HP_OK && answer != NULL;
         answer = answer->next) {
        if (answer->last && answer->err == HP_OK) {
            answer->err = err;
            (void)hp_strlcpy(answer->text, error.text, sizeof(answer->text));
        }
    }
}

static void report(struct hp_blobs *blobs)
{
    if (blobs->held_first == NULL) {
        return;
    }
    sync_folders(blobs);
    pthread_mutex_lock(&blobs->lock);
    if (blobs->done_last != NULL) {
        blobs->done_last->next = blobs->held_first;
    } else {
        blobs->done_first = blobs->held_first;
    }
    blobs->done_last = blobs->held_last;
    blobs->held_first = blobs->held_last = NULL;
    if (!blobs->woken) {
        blobs->woken = true;
        blobs->options.wake(blobs->options.context);
    }
    pthread_mutex_unlock(&blobs->lock);
}

/* Takes all that waits, or waits for something. NULL: stop. */
static struct request *take_all(struct hp_blobs *blobs)
{
    pthread_mutex_lock(&blobs->lock);
    while (blobs->first == NULL && !blobs->stopping) {
        pthread_cond_wait(&blobs->cond, &blobs->lock);
    }
    struct request *request = blobs->first;
    blobs->first = blobs->last = NULL;
    pthread_mutex_unlock(&blobs->lock);
    return request;
}

static void *run(void *argument)
{
    struct hp_blobs *blobs = argument;
    struct request *request = NULL;
    while ((request = take_all(blobs)) != NULL) {
        uint64_t bytes = 0;
        while (request != NULL) {
            struct request *next = request->next;
            work(blobs, request);
            bytes += request->data_size;
            hp_free(request);
            request = next;
        }
        pthread_mutex_lock(&blobs->lock);
        blobs->queue_bytes -= bytes;
        pthread_mutex_unlock(&blobs->lock);
        report(blobs);
    }
    return NULL;
}

/* ------------------------------------------------ the loop's side */
enum hp_err hp_blobs_new(const struct hp_blobs_options *options, struct hp_blobs **ret_blobs,
                         struct hp_error *reterr)
{
    struct hp_blobs *blobs = hp_calloc(1, sizeof(*blobs));
    if (blobs == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, "blob thread: out of memory");
    }
    blobs->options = *options;
    blobs->options.queue_bytes_max =
        options->queue_bytes_max > 0 ? options->queue_bytes_max : QUEUE_BYTES;
    hp_idmap_init(&blobs->uploads, 0);
    hp_list_init(&blobs->recent);
    int length = snprintf(blobs->dir, sizeof(blobs->dir), "%s/blobs", options->dir);
    enum hp_err err = HP_OK;
    if (length < 0 || (size_t)length >= sizeof(blobs->dir)) {
        err = hp_error_set(reterr, HP_ERR_TOO_BIG, "path of the data directory: too long");
    } else {
        err = hp_mkdir_p(blobs->dir, 0700, reterr);
    }
    pthread_mutex_init(&blobs->lock, NULL);
    pthread_cond_init(&blobs->cond, NULL);
    if (err == HP_OK) {
        sigset_t all;
        sigset_t before;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &before);
        int error = pthread_create(&blobs->thread, NULL, run, blobs);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        err = error == 0 ? HP_OK : hp_error_set(reterr, HP_ERR_NOMEM, "blob thread: %d", error);
    }
    if (err != HP_OK) {
        pthread_cond_destroy(&blobs->cond);
        pthread_mutex_destroy(&blobs->lock);
        hp_free(blobs);
        return err;
    }
    *ret_blobs = blobs;
    return HP_OK;
}

static void answer_busy(struct hp_blobs *blobs, const struct hp_effect *effect)
{
    struct hp_blob_answer *answer = hp_calloc(1, sizeof(*answer));
    HP_ASSERT(answer != NULL);
    answer->verb = effect->blob.verb;
    answer->conn = effect->conn;
    answer->msgid = effect->blob.msgid;
    answer->blob = effect->blob.blob;
    answer->err = HP_ERR_BUSY;
    (void)hp_strlcpy(answer->text, "too many bytes wait to be written: try again",
                     sizeof(answer->text));
    pthread_mutex_lock(&blobs->lock);
    append(&blobs->done_first, &blobs->done_last, answer);
    if (!blobs->woken) {
        blobs->woken = true;
        blobs->options.wake(blobs->options.context);
    }
    pthread_mutex_unlock(&blobs->lock);
}

void hp_blobs_submit(struct hp_blobs *blobs, const struct hp_effect *effect)
{
    uint32_t size = effect->blob.verb == HP_BLOB_PUT ? effect->blob.data.size : 0;
    pthread_mutex_lock(&blobs->lock);
    bool busy = size > 0 && blobs->queue_bytes + size > blobs->options.queue_bytes_max;
    pthread_mutex_unlock(&blobs->lock);
    if (busy) {
        answer_busy(blobs, effect);
        return;
    }
    struct request *request = hp_alloc(sizeof(*request) + size);
    HP_ASSERT(request != NULL);
    *request = (struct request){.verb = effect->blob.verb,
                                .conn = effect->conn,
                                .msgid = effect->blob.msgid,
                                .blob = effect->blob.blob,
                                .offset = effect->blob.offset,
                                .size = effect->blob.size,
                                .digest = effect->blob.digest,
                                .has_digest = effect->blob.has_digest,
                                .data_size = size};
    if (size > 0) {
        memcpy(request->data, effect->blob.data.data, size);
    }
    pthread_mutex_lock(&blobs->lock);
    blobs->queue_bytes += size;
    if (blobs->last != NULL) {
        blobs->last->next = request;
    } else {
        blobs->first = request;
    }
    blobs->last = request;
    pthread_cond_signal(&blobs->cond);
    pthread_mutex_unlock(&blobs->lock);
}

struct hp_blob_answer *hp_blobs_take(struct hp_blobs *blobs)
{
    pthread_mutex_lock(&blobs->lock);
    struct hp_blob_answer *first = blobs->done_first;
    blobs->done_first = blobs->done_last = NULL;
    blobs->woken = false;
    pthread_mutex_unlock(&blobs->lock);
    return first;
}

void hp_blob_answer_free(struct hp_blob_answer *answer)
{
    if (answer != NULL) {
        hp_free((void *)(uintptr_t)answer->data.data);
        hp_free(answer);
    }
}

void hp_blobs_free(struct hp_blobs *blobs)
{
    if (blobs == NULL) {
        return;
    }
    pthread_mutex_lock(&blobs->lock);
    blobs->stopping = true;
    pthread_cond_signal(&blobs->cond);
    pthread_mutex_unlock(&blobs->lock);
    pthread_join(blobs->thread, NULL);
    while (!hp_list_is_empty(&blobs->recent)) {
        upload_free(blobs, HP_CONTAINER_OF(hp_list_first(&blobs->recent), struct upload, link));
    }
    hp_idmap_deinit(&blobs->uploads);
    struct hp_blob_answer *answer = blobs->done_first;
    while (answer != NULL) {
        struct hp_blob_answer *next = answer->next;
        hp_blob_answer_free(answer);
        answer = next;
    }
    pthread_cond_destroy(&blobs->cond);
    pthread_mutex_destroy(&blobs->lock);
    hp_free(blobs);
}
