/* SPDX-License-Identifier: BSD-2-Clause */
/* Blob files and the blob thread. */
#include "tests/unit/store_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <xxhash.h>

#include "server/store/blob.h"
#include "server/store/blob_file.h"

/* Counts the syncs, and does them. */
static atomic_uint sync_count;

static atomic_bool folder_sync_fails;

int fsync(int fd)
{
    struct stat facts;
    atomic_fetch_add(&sync_count, 1);
    if (fstat(fd, &facts) == 0 && S_ISDIR(facts.st_mode) && atomic_load(&folder_sync_fails)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

struct scene {
    char dir[200];
    struct hp_blobs *blobs;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    uint32_t wakes;
    struct hp_blob_answer *answers;
};

static void on_wake(void *context)
{
    struct scene *scene = context;
    pthread_mutex_lock(&scene->mutex);
    scene->wakes++;
    pthread_cond_signal(&scene->cond);
    pthread_mutex_unlock(&scene->mutex);
}

static void open_blobs(struct scene *scene)
{
    struct hp_error error = {0};
    struct hp_blobs_options options = {.dir = scene->dir, .wake = on_wake, .context = scene};
    assert_int_equal(hp_blobs_new(&options, &scene->blobs, &error), HP_OK);
}

static int setup(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    fixture_make_dir(scene->dir);
    pthread_mutex_init(&scene->mutex, NULL);
    pthread_cond_init(&scene->cond, NULL);
    open_blobs(scene);
    *state = scene;
    return 0;
}

static int teardown(void **state)
{
    struct scene *scene = *state;
    hp_blobs_free(scene->blobs);
    fixture_remove_dir(scene->dir);
    pthread_cond_destroy(&scene->cond);
    pthread_mutex_destroy(&scene->mutex);
    free(scene);
    return 0;
}

static struct hp_blob_answer *next_answer(struct scene *scene)
{
    while (scene->answers == NULL) {
        pthread_mutex_lock(&scene->mutex);
        while (scene->wakes == 0) {
            pthread_cond_wait(&scene->cond, &scene->mutex);
        }
        scene->wakes = 0;
        pthread_mutex_unlock(&scene->mutex);
        scene->answers = hp_blobs_take(scene->blobs);
    }
    struct hp_blob_answer *answer = scene->answers;
    scene->answers = answer->next;
    return answer;
}

static void send_open(struct scene *scene, uint64_t blob, uint64_t size)
{
    struct hp_effect effect = {.kind = HP_EFFECT_BLOB, .conn = 5};
    effect.blob.verb = HP_BLOB_OPEN;
    effect.blob.msgid = 1;
    effect.blob.blob = blob;
    effect.blob.size = size;
    hp_blobs_submit(scene->blobs, &effect);
}

static void send_put(struct scene *scene, uint64_t blob, uint64_t offset, const uint8_t *data,
                     uint32_t size, const uint64_t *digest)
{
    struct hp_effect effect = {.kind = HP_EFFECT_BLOB, .conn = 5};
    effect.blob.verb = HP_BLOB_PUT;
    effect.blob.msgid = 2;
    effect.blob.blob = blob;
    effect.blob.offset = offset;
    effect.blob.data = (struct hp_bin){.data = data, .size = size};
    effect.blob.has_digest = digest != NULL;
    effect.blob.digest = digest != NULL ? *digest : 0;
    hp_blobs_submit(scene->blobs, &effect);
}

static void send_get(struct scene *scene, uint64_t blob, uint64_t offset, uint64_t size)
{
    struct hp_effect effect = {.kind = HP_EFFECT_BLOB, .conn = 5};
    effect.blob.verb = HP_BLOB_GET;
    effect.blob.msgid = 3;
    effect.blob.blob = blob;
    effect.blob.offset = offset;
    effect.blob.size = size;
    hp_blobs_submit(scene->blobs, &effect);
}

/* The next answer is of this blob with this error. */
static void expect(struct scene *scene, uint64_t blob, enum hp_err err, uint64_t size, bool last)
{
    struct hp_blob_answer *answer = next_answer(scene);
    if (answer->err != err) {
        print_error("%s\n", answer->text);
    }
    assert_int_equal(answer->err, err);
    assert_int_equal(answer->conn, 5);
    assert_int_equal(answer->blob, blob);
    assert_int_equal(answer->size, size);
    assert_int_equal(answer->last, last);
    hp_blob_answer_free(answer);
}

static uint8_t *make_bytes(uint32_t size)
{
    uint8_t *data = malloc(size + 1);
    for (uint32_t i = 0; i < size; i++) {
        data[i] = (uint8_t)(i * 7 + i / 251);
    }
    return data;
}

static void upload(struct scene *scene, uint64_t blob, const uint8_t *data, uint32_t size)
{
    uint64_t digest = XXH3_64bits(data, size);
    send_open(scene, blob, size);
    expect(scene, blob, HP_OK, 0, false);
    for (uint32_t at = 0; at < size || at == 0;) {
        uint32_t part = size - at < 100000 ? size - at : 100000;
        bool last = at + part == size;
        send_put(scene, blob, at, data + at, part, last ? &digest : NULL);
        at += part;
        expect(scene, blob, HP_OK, at, last);
        if (last) {
            break;
        }
    }
}

static void test_round_trip(void **state)
{
    struct scene *scene = *state;
    const uint32_t sizes[] = {0, 1, 65535, 65536, 65537, 300000};
    for (uint64_t i = 0; i < 6; i++) {
        uint8_t *data = make_bytes(sizes[i]);
        uint64_t blob = 1000 + i * 256; /* one folder */
        upload(scene, blob, data, sizes[i]);
        for (uint64_t at = 0; at <= sizes[i]; at += 70000) {
            send_get(scene, blob, at, 70000);
            struct hp_blob_answer *answer = next_answer(scene);
            assert_int_equal(answer->err, HP_OK);
            assert_int_equal(answer->size, sizes[i]);
            assert_int_equal(answer->digest, XXH3_64bits(data, sizes[i]));
            uint64_t left = sizes[i] - at;
            assert_int_equal(answer->data.size, left < 70000 ? left : 70000);
            if (answer->data.size > 0) {
                assert_memory_equal(answer->data.data, data + at, answer->data.size);
            }
            hp_blob_answer_free(answer);
        }
        free(data);
    }
}

static void test_order_and_repeats(void **state)
{
    struct scene *scene = *state;
    uint8_t *data = make_bytes(200);
    uint64_t digest = XXH3_64bits(data, 200);
    send_put(scene, 7, 0, data, 100, NULL);
    expect(scene, 7, HP_ERR_NOT_FOUND, 0, false);
    send_open(scene, 7, 200);
    expect(scene, 7, HP_OK, 0, false);
    send_put(scene, 7, 100, data + 100, 100, NULL);
    expect(scene, 7, HP_ERR_STALE, 0, false);
    send_put(scene, 7, 0, data, 100, NULL);
    expect(scene, 7, HP_OK, 100, false);
    send_put(scene, 7, 0, data, 100, NULL); /* its reply was lost */
    expect(scene, 7, HP_OK, 100, false);
    send_put(scene, 7, 50, data + 50, 100, NULL); /* half of it would be missing */
    expect(scene, 7, HP_ERR_STALE, 100, false);
    send_put(scene, 7, 100, data + 100, 100, &digest);
    expect(scene, 7, HP_OK, 200, true);
    send_put(scene, 7, 100, data + 100, 100, &digest); /* that one, too */
    expect(scene, 7, HP_OK, 200, true);
    digest++; /* of something else */
    send_put(scene, 7, 100, data + 100, 100, &digest);
    expect(scene, 7, HP_ERR_CORRUPT, 0, false);
    send_get(scene, 8, 0, 100);
    expect(scene, 8, HP_ERR_NOT_FOUND, 0, false);
    free(data);
}

static void test_refused(void **state)
{
    struct scene *scene = *state;
    uint8_t *data = make_bytes(100);
    uint64_t wrong = 1;
    send_open(scene, 9, HP_BLOB_SIZE_MAX + 1);
    expect(scene, 9, HP_ERR_TOO_BIG, 0, false);
    send_open(scene, 9, 100);
    expect(scene, 9, HP_OK, 0, false);
    send_put(scene, 9, 0, data, 100, &wrong);
    expect(scene, 9, HP_ERR_CORRUPT, 100, false);
    send_put(scene, 9, 0, data, 100, NULL);
    expect(scene, 9, HP_ERR_NOT_FOUND, 0, false);
    send_open(scene, 9, 50);
    expect(scene, 9, HP_OK, 0, false);
    send_put(scene, 9, 0, data, 100, NULL);
    expect(scene, 9, HP_ERR_RANGE, 0, false);
    free(data);
}

/* Uploads that nobody goes on with hold an open file each: the oldest gives way to a new one. */
static void test_many_uploads(void **state)
{
    enum { COUNT = 300 };
    struct scene *scene = *state;
    uint8_t byte = 1;
    for (uint64_t blob = 1; blob <= COUNT; blob++) {
        send_open(scene, blob, 2);
        expect(scene, blob, HP_OK, 0, false);
    }
    uint32_t open_count = 0;
    for (uint64_t blob = 1; blob <= COUNT; blob++) {
        send_put(scene, blob, 0, &byte, 1, NULL);
        struct hp_blob_answer *answer = next_answer(scene);
        assert_true(answer->err == HP_OK || answer->err == HP_ERR_NOT_FOUND);
        assert_true(answer->err == HP_OK || blob < COUNT);
        open_count += answer->err == HP_OK;
        hp_blob_answer_free(answer);
    }
    assert_int_equal(open_count, 256);
}

/* Any flipped byte gives an error where it matters, never other bytes. */
static void test_flips(void **state)
{
    struct scene *scene = *state;
    const uint32_t size = 150000;
    uint8_t *data = make_bytes(size);
    char path[HP_BLOB_PATH_BYTES];
    char blob_dir[256];
    upload(scene, 77, data, size);
    (void)snprintf(blob_dir, sizeof(blob_dir), "%s/blobs", scene->dir);
    assert_int_equal(hp_blob_path(blob_dir, 77, false, path, NULL), HP_OK);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    int fd = open(path, O_RDWR);
    for (off_t at = 0; at<st.st_size; at += at> size - 100 ? 1 : 997) {
        uint8_t byte = 0;
        uint8_t out[1000];
        uint32_t got = 0;
        uint64_t blob_size = 0;
        uint64_t digest = 0;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        uint8_t flipped = byte ^ 0x10;
        assert_int_equal(pwrite(fd, &flipped, 1, at), 1);
        uint64_t from = at < size - 1000 ? (uint64_t)at : 0;
        enum hp_err err =
            hp_blob_read(blob_dir, 77, from, sizeof(out), out, &got, &blob_size, &digest, NULL);
        if (err == HP_OK) { /* only if it hit another block */
            assert_true(at < size && at / 65536 != (off_t)from / 65536);
            assert_memory_equal(out, data + from, got);
        } else {
            assert_int_equal(err, HP_ERR_CORRUPT);
        }
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    assert_int_equal(ftruncate(fd, st.st_size - 1), 0);
    close(fd);
    send_get(scene, 77, 0, 10);
    expect(scene, 77, HP_ERR_CORRUPT, 0, false);
    free(data);
}

static void test_restart(void **state)
{
    struct scene *scene = *state;
    uint8_t *data = make_bytes(1000);
    upload(scene, 1, data, 1000);
    send_open(scene, 2, 1000);
    expect(scene, 2, HP_OK, 0, false);
    send_put(scene, 2, 0, data, 500, NULL);
    expect(scene, 2, HP_OK, 500, false);
    hp_blobs_free(scene->blobs);
    open_blobs(scene);
    send_get(scene, 1, 0, 1000);
    struct hp_blob_answer *answer = next_answer(scene);
    assert_int_equal(answer->data.size, 1000);
    assert_memory_equal(answer->data.data, data, 1000);
    hp_blob_answer_free(answer);
    send_put(scene, 2, 500, data + 500, 500, NULL);
    expect(scene, 2, HP_ERR_NOT_FOUND, 0, false);
    free(data);
}

/* A broker that was killed between the rename and the sync of the folder: the name may not last, so
 * a repeated chunk is not answered before another sync. */
static void test_repeat_syncs_again(void **state)
{
    struct scene *scene = *state;
    uint8_t *data = make_bytes(100);
    upload(scene, 3, data, 100);
    hp_blobs_free(scene->blobs);
    open_blobs(scene);
    uint32_t before = atomic_load(&sync_count);
    uint64_t digest = XXH3_64bits(data, 100);
    send_put(scene, 3, 0, data, 100, &digest);
    expect(scene, 3, HP_OK, 100, true);
    assert_int_equal(atomic_load(&sync_count), before + 1);
    free(data);
}

static bool has_file(const char *dir, uint64_t blob)
{
    char blob_dir[256];
    char path[HP_BLOB_PATH_BYTES];
    (void)snprintf(blob_dir, sizeof(blob_dir), "%s/blobs", dir);
    assert_int_equal(hp_blob_path(blob_dir, blob, false, path, NULL), HP_OK);
    return access(path, F_OK) == 0;
}

/* As if it had been written an hour ago and longer. */
/* A blob is on the disk, and so is its name, before its last chunk is answered. */
static void test_what_is_synced(void **state)
{
    struct scene *scene = *state;
    static uint8_t data[1000];
    uint32_t before = atomic_load(&sync_count);
    upload(scene, 3, data, sizeof(data));
    assert_int_equal(atomic_load(&sync_count), before + 2);
}

/* A name that may not last is not told as durable, and no sync is tried twice. */
static void test_a_folder_that_can_not_be_synced(void **state)
{
    struct scene *scene = *state;
    static uint8_t data[1000];
    send_open(scene, 7, sizeof(data));
    expect(scene, 7, HP_OK, 0, false);
    atomic_store(&folder_sync_fails, true);
    send_put(scene, 7, 0, data, sizeof(data), NULL);
    struct hp_blob_answer *answer = next_answer(scene);
    atomic_store(&folder_sync_fails, false);
    assert_int_equal(answer->err, HP_ERR_IO);
    assert_false(answer->last);
    hp_blob_answer_free(answer);
}

/* What waits to be written is bounded, and counts no more when it is written. */
static void test_bytes_that_wait(void **state)
{
    struct scene *scene = *state;
    struct hp_error error = {0};
    static uint8_t data[200000];
    struct hp_blobs_options options = {
        .dir = scene->dir, .wake = on_wake, .context = scene, .queue_bytes_max = 100000};
    hp_blobs_free(scene->blobs);
    assert_int_equal(hp_blobs_new(&options, &scene->blobs, &error), HP_OK);
    for (uint64_t blob = 1; blob <= 20; blob++) {
        upload(scene, blob, data, 60000);
    }
    send_open(scene, 30, sizeof(data));
    expect(scene, 30, HP_OK, 0, false);
    send_put(scene, 30, 0, data, sizeof(data), NULL);
    expect(scene, 30, HP_ERR_BUSY, 0, false);
}

static void make_old(const char *dir, uint64_t blob)
{
    char blob_dir[256];
    char path[HP_BLOB_PATH_BYTES];
    (void)snprintf(blob_dir, sizeof(blob_dir), "%s/blobs", dir);
    assert_int_equal(hp_blob_path(blob_dir, blob, false, path, NULL), HP_OK);
    const struct timespec times[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

/* A blob lives as long as a row refers to it; or for an hour, as its upload may be named after a
 * restart. */
static void test_references(void **state)
{
    struct scene *scene = *state;
    struct fixture f = {0};
    struct hp_error error = {0};
    uint8_t *data = make_bytes(1000);
    (void)snprintf(f.dir, sizeof(f.dir), "%s", scene->dir);
    assert_int_equal(fixture_open_dir(f.dir, true, &f.store, &error), HP_OK);
    upload(scene, 1, data, 1000);
    upload(scene, 2, data, 1000);
    upload(scene, 3, data, 1000);
    make_old(f.dir, 1);
    make_old(f.dir, 3);
    struct hp_batch *batch = begin_batch(&f);
    add_group(batch, 10, 1, 1, 1000, "o", "p");
    struct hp_op *op = hp_batch_add(batch, HP_OP_BLOB);
    op->blob.blob = 1;
    op->blob.owner = 10;
    apply(&f, batch);
    fixture_reopen(&f); /* sweeps at start */
    assert_true(has_file(f.dir, 1));
    assert_true(has_file(f.dir, 2));
    assert_false(has_file(f.dir, 3));
    batch = begin_batch(&f);
    add_result(batch, 10, 1, 1, 5000, "e");
    apply(&f, batch);
    reap(&f, 4999);
    assert_true(has_file(f.dir, 1));
    reap(&f, 5000);
    assert_false(has_file(f.dir, 1));
    hp_store_close(f.store);
    free(data);
}

/* Past the page cache or not, whatever the pieces: the same file. */
static void test_direct(void **state)
{
    enum { SIZE = (1 << 20) + 8192 + 5000 + 4096 };
    static _Alignas(4096) uint8_t bytes[SIZE];
    static uint8_t got[SIZE];
    const uint32_t pieces[] = {1 << 20, 8192, 5000, 4096};
    struct scene *scene = *state;
    char blob_dir[220];
    struct hp_error error = {0};
    struct hp_blob_writer *writer = NULL;
    uint32_t at = 0;
    for (uint32_t i = 0; i < SIZE; i++) {
        bytes[i] = (uint8_t)(i * 7 + i / 4096);
    }
    (void)snprintf(blob_dir, sizeof(blob_dir), "%s/blobs", scene->dir);
    assert_int_equal(hp_blob_writer_new(blob_dir, 77, SIZE, &writer, &error), HP_OK);
    hp_blob_writer_direct(writer);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(hp_blob_writer_append(writer, bytes + at, pieces[i], &error), HP_OK);
        at += pieces[i];
    }
    assert_int_equal(hp_blob_writer_digest(writer), XXH3_64bits(bytes, SIZE));
    assert_int_equal(hp_blob_writer_finish(writer, &error), HP_OK);
    hp_blob_writer_free(writer);
    uint32_t size = 0;
    uint64_t whole = 0;
    uint64_t digest = 0;
    assert_int_equal(hp_blob_read(blob_dir, 77, 0, SIZE, got, &size, &whole, &digest, &error),
                     HP_OK);
    assert_int_equal(size, SIZE);
    assert_int_equal(whole, SIZE);
    assert_int_equal(digest, XXH3_64bits(bytes, SIZE));
    assert_memory_equal(got, bytes, SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order_and_repeats, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_uploads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flips, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_repeat_syncs_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_synced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bytes_that_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_folder_that_can_not_be_synced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_references, setup, teardown),
        cmocka_unit_test_setup_teardown(test_direct, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
