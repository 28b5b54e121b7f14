/* SPDX-License-Identifier: BSD-2-Clause */
/* Blobs by descriptor: what of a peer is taken, what is kept, what is lent and for how long. */
#include "tests/unit/store_fixture.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/sys/file.h"
#include "common/sys/near.h"
#include "server/store/blob_file.h"
#include "server/store/blob_near.h"

enum { SIZE = 100000 };

static const uint8_t key[HP_CONN_KEY_BYTES] = "a secret of two";

struct scene {
    char dir[200];
    char blob_dir[220];
    struct hp_blob_near *near;
    uint64_t device;
    uint8_t bytes[SIZE];
};

static int setup(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    struct hp_error error = {0};
    fixture_make_dir(scene->dir);
    (void)snprintf(scene->blob_dir, sizeof(scene->blob_dir), "%s/blobs", scene->dir);
    assert_int_equal(hp_mkdir_p(scene->blob_dir, 0700, &error), HP_OK);
    assert_int_equal(hp_blob_make_folders(scene->blob_dir, &error), HP_OK);
    assert_int_equal(hp_blob_gift_device(&scene->device), HP_OK);
    scene->near = hp_blob_near_new(scene->blob_dir, 8);
    assert_non_null(scene->near);
    for (uint32_t i = 0; i < SIZE; i++) {
        scene->bytes[i] = (uint8_t)(i * 31 + i / 256);
    }
    *state = scene;
    return 0;
}

static int teardown(void **state)
{
    struct scene *scene = *state;
    hp_blob_near_free(scene->near);
    fixture_remove_dir(scene->dir);
    free(scene);
    return 0;
}

/* A memory file with the bytes; sealed with `with` unless that is NULL. */
static int make_gift(const struct scene *scene, const uint8_t *with, struct hp_blob_gift *ret_gift)
{
    struct hp_near_place place = {0};
    int fd = -1;
    assert_int_equal(hp_near_create(&fd), HP_OK);
    assert_int_equal(hp_fd_write_all(fd, scene->bytes, SIZE), HP_OK);
    if (with != NULL) {
        assert_int_equal(hp_near_seal(fd, SIZE, with), HP_OK);
    } else {
        assert_int_equal(hp_fd_write_all(fd, key, sizeof(key)), HP_OK); /* but not sealed */
    }
    assert_int_equal(hp_near_place_of(fd, &place), HP_OK);
    *ret_gift = (struct hp_blob_gift){
        .place = {.pid = place.pid, .fd = place.fd, .device = place.device, .inode = place.inode},
        .is_kept = true};
    memcpy(ret_gift->key, key, sizeof(key));
    return fd;
}

static void expect_refused(struct scene *scene, const struct hp_blob_gift *gift, uint64_t size)
{
    struct hp_error error = {0};
    int fd = -1;
    assert_int_equal(hp_blob_gift_open(gift, size, scene->device, &fd, &error), HP_ERR_UNSUPPORTED);
    assert_int_equal(fd, -1);
}

static void test_what_is_taken(void **state)
{
    struct scene *scene = *state;
    static const uint8_t wrong[HP_CONN_KEY_BYTES] = "another secret.";
    struct hp_blob_gift gift;
    struct hp_error error = {0};
    int given = make_gift(scene, key, &gift);
    int fd = -1;
    assert_int_equal(hp_blob_gift_open(&gift, SIZE, scene->device, &fd, &error), HP_OK);
    assert_true(fd >= 0 && fd != given);
    (void)close(fd);
    expect_refused(scene, &gift, SIZE - 1);
    expect_refused(scene, &gift, SIZE + 1);
    struct hp_blob_gift other = gift;
    other.place.inode++;
    expect_refused(scene, &other, SIZE);
    other = gift;
    other.place.device++;
    expect_refused(scene, &other, SIZE);
    (void)close(given);
    expect_refused(scene, &gift, SIZE); /* it is gone */
    given = make_gift(scene, wrong, &gift);
    expect_refused(scene, &gift, SIZE);
    (void)close(given);
    given = make_gift(scene, NULL, &gift);
    expect_refused(scene, &gift, SIZE);
    (void)close(given);
}

static void test_what_is_kept(void **state)
{
    struct scene *scene = *state;
    struct hp_blob_gift gift;
    struct hp_error error = {0};
    static uint8_t out[SIZE];
    uint32_t size = 0;
    uint64_t whole = 0;
    uint64_t digest = 0;
    int given = make_gift(scene, key, &gift);
    assert_int_equal(hp_blob_near_keep(scene->near, 9, SIZE, &gift, &error), HP_OK);
    (void)close(given); /* the broker has its own */
    assert_int_equal(
        hp_blob_near_read(scene->near, 9, 1000, SIZE, out, &size, &whole, &digest, &error), HP_OK);
    assert_int_equal(size, SIZE - 1000);
    assert_int_equal(whole, SIZE);
    assert_int_equal(digest, XXH3_64bits(scene->bytes, SIZE));
    assert_memory_equal(out, scene->bytes + 1000, SIZE - 1000);
    assert_int_equal(
        hp_blob_near_read(scene->near, 9, SIZE, 10, out, &size, &whole, &digest, &error), HP_OK);
    assert_int_equal(size, 0); /* not the key behind it */
    struct hp_blob_loan loan;
    assert_int_equal(hp_blob_near_lend(scene->near, 9, 0, &loan, &error), HP_OK);
    assert_int_equal(loan.size, SIZE);
    assert_false(loan.has_digest);
    hp_blob_near_drop(scene->near, 9);
    hp_blob_near_drop(scene->near, 9); /* not there: fine */
    assert_int_equal(hp_blob_near_read(scene->near, 9, 0, 10, out, &size, &whole, &digest, &error),
                     HP_ERR_NOT_FOUND);
}

static void test_how_many_are_kept(void **state)
{
    struct scene *scene = *state;
    struct hp_blob_gift gift;
    struct hp_error error = {0};
    uint64_t id = 1;
    for (;; id++) {
        int given = make_gift(scene, key, &gift);
        enum hp_err err = hp_blob_near_keep(scene->near, id, SIZE, &gift, &error);
        (void)close(given);
        if (err != HP_OK) {
            assert_int_equal(err, HP_ERR_UNSUPPORTED);
            break;
        }
        assert_true(id < 8);
    }
    assert_true(id > 2);
    hp_blob_near_drop(scene->near, 1);
    int given = make_gift(scene, key, &gift);
    assert_int_equal(hp_blob_near_keep(scene->near, id, SIZE, &gift, &error), HP_OK);
    (void)close(given);
}

static void write_blob(struct scene *scene, uint64_t id)
{
    struct hp_blob_writer *writer = NULL;
    struct hp_error error = {0};
    assert_int_equal(hp_blob_writer_new(scene->blob_dir, id, SIZE, &writer, &error), HP_OK);
    assert_int_equal(hp_blob_writer_append(writer, scene->bytes, SIZE, &error), HP_OK);
    assert_int_equal(hp_blob_writer_finish(writer, &error), HP_OK);
    hp_blob_writer_free(writer);
}

static void test_what_is_lent(void **state)
{
    struct scene *scene = *state;
    struct hp_blob_loan loan;
    struct hp_blob_loan again;
    struct hp_error error = {0};
    uint8_t byte = 0;
    write_blob(scene, 5);
    assert_int_equal(hp_blob_near_lend(scene->near, 6, 0, &loan, &error), HP_ERR_NOT_FOUND);
    assert_int_equal(hp_blob_near_expire(scene->near, 0), UINT64_MAX);
    assert_int_equal(hp_blob_near_lend(scene->near, 5, 1000, &loan, &error), HP_OK);
    assert_int_equal(loan.size, SIZE);
    assert_true(loan.has_digest);
    assert_int_equal(loan.digest, XXH3_64bits(scene->bytes, SIZE));
    assert_int_equal(loan.place.pid, (uint32_t)getpid());
    assert_int_equal(pread((int)loan.place.fd, &byte, 1, 77), 1);
    assert_int_equal(byte, scene->bytes[77]);
    assert_int_equal(hp_blob_near_lend(scene->near, 5, 9000, &again, &error), HP_OK);
    assert_int_equal(again.place.fd, loan.place.fd);
    uint64_t until = hp_blob_near_expire(scene->near, 11500); /* 10 s after the first loan */
    assert_int_equal(until, 19000);
    assert_int_equal(pread((int)loan.place.fd, &byte, 1, 0), 1);
    assert_int_equal(hp_blob_near_expire(scene->near, until), UINT64_MAX);
    assert_int_equal(fcntl((int)loan.place.fd, F_GETFD), -1);
}

static void test_how_many_are_lent(void **state)
{
    struct scene *scene = *state;
    struct hp_blob_loan loan;
    struct hp_error error = {0};
    int first_fd = -1;
    int fd_max = -1;
    for (uint64_t id = 1; id <= 20; id++) {
        write_blob(scene, id);
        assert_int_equal(hp_blob_near_lend(scene->near, id, id, &loan, &error), HP_OK);
        first_fd = id == 1 ? (int)loan.place.fd : first_fd;
        fd_max = (int)loan.place.fd > fd_max ? (int)loan.place.fd : fd_max;
    }
    assert_true(fd_max - first_fd < 8); /* those lent longest ago give way */
    struct hp_blob_near *none = hp_blob_near_new(scene->blob_dir, 0);
    assert_int_equal(hp_blob_near_lend(none, 1, 0, &loan, &error), HP_ERR_UNSUPPORTED);
    hp_blob_near_free(none);
}

/* ------------------------------------------------------------------ remembered */

static struct hp_blob_near *table_of(struct scene *scene, uint32_t file_count)
{
    hp_blob_near_free(scene->near);
    scene->near = hp_blob_near_new(scene->blob_dir, file_count);
    assert_non_null(scene->near);
    return scene->near;
}

/* As a thread of the crew and the blob thread do it. */
static void remember(struct scene *scene, uint64_t id, uint64_t size, uint64_t now_ms)
{
    struct hp_blob_gift gift;
    assert_true(hp_blob_near_reserve(scene->near, size));
    hp_blob_near_remember(scene->near, id, size, XXH3_64bits(scene->bytes, SIZE),
                          make_gift(scene, key, &gift), now_ms);
}

static enum hp_err lend(struct scene *scene, uint64_t id, uint64_t now_ms, bool *ret_has_digest)
{
    struct hp_error error = {0};
    struct hp_blob_loan loan = {0};
    enum hp_err err = hp_blob_near_lend(scene->near, id, now_ms, &loan, &error);
    *ret_has_digest = loan.has_digest;
    return err;
}

static void test_what_is_remembered(void **state)
{
    struct scene *scene = *state;
    struct hp_blob_near *near = table_of(scene, 50);
    struct hp_error error = {0};
    static uint8_t out[SIZE];
    uint32_t size = 0;
    uint64_t whole = 0;
    uint64_t digest = 0;
    bool has_digest = true;
    write_blob(scene, 5);
    remember(scene, 5, SIZE, 1000);
    assert_int_equal(hp_blob_near_expire(near, 1000), 61000);
    assert_int_equal(hp_blob_near_read(near, 5, 1000, SIZE, out, &size, &whole, &digest, &error),
                     HP_OK);
    assert_int_equal(size, SIZE - 1000);
    assert_int_equal(whole, SIZE);
    assert_int_equal(digest, XXH3_64bits(scene->bytes, SIZE));
    assert_memory_equal(out, scene->bytes + 1000, SIZE - 1000);
    assert_int_equal(lend(scene, 5, 4000, &has_digest), HP_OK);
    assert_false(has_digest); /* memory */
    assert_int_equal(hp_blob_near_expire(near, 11000), 14000);
    assert_int_equal(hp_blob_near_expire(near, 14000), UINT64_MAX);
    assert_int_equal(lend(scene, 5, 14000, &has_digest), HP_OK);
    assert_true(has_digest); /* the file */
    write_blob(scene, 6);
    remember(scene, 6, SIZE, 20000);
    assert_int_equal(hp_blob_near_expire(near, 79999), 80000);
    assert_int_equal(hp_blob_near_expire(near, 80000), UINT64_MAX);
    assert_int_equal(lend(scene, 6, 80000, &has_digest), HP_OK);
    assert_true(has_digest);
}

/* What waits for its first loan stays; what had it goes when there is no room. */
static void test_room_for_what_is_remembered(void **state)
{
    struct scene *scene = *state;
    const uint64_t quarter = (uint64_t)32 << 20;
    struct hp_blob_near *near = table_of(scene, 500);
    bool has_digest = true;
    for (uint64_t id = 1; id <= 4; id++) {
        remember(scene, id, quarter, 1000);
    }
    assert_false(hp_blob_near_reserve(near, 1));
    assert_int_equal(lend(scene, 2, 2000, &has_digest), HP_OK);
    assert_int_equal(lend(scene, 2, 2000, &has_digest), HP_OK); /* counted once */
    assert_true(hp_blob_near_reserve(near, quarter));
    assert_false(hp_blob_near_reserve(near, 1));
    hp_blob_near_unreserve(near, quarter);
    remember(scene, 5, quarter, 2000);
    assert_int_equal(lend(scene, 2, 2000, &has_digest), HP_ERR_NOT_FOUND);
    for (uint64_t id = 1; id <= 5; id++) {
        assert_int_equal(lend(scene, id, 2000, &has_digest), id == 2 ? HP_ERR_NOT_FOUND : HP_OK);
    }
    assert_int_equal(hp_blob_near_expire(near, 12000), UINT64_MAX);
    assert_true(hp_blob_near_reserve(near, 4 * quarter));
}

static void test_few_are_remembered(void **state)
{
    struct scene *scene = *state;
    const uint64_t half = (uint64_t)64 << 20;
    bool has_digest = true;
    for (uint64_t id = 1; id <= 3; id++) { /* the scene's table lends one at a time */
        remember(scene, id, half, 1000);
    }
    assert_int_equal(lend(scene, 2, 1000, &has_digest), HP_ERR_NOT_FOUND);
    assert_int_equal(lend(scene, 3, 1000, &has_digest), HP_OK);
    assert_true(hp_blob_near_reserve(scene->near, 2 * half));
    assert_false(hp_blob_near_reserve(table_of(scene, 0), 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_how_many_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_lent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_how_many_are_lent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_remembered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_room_for_what_is_remembered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_few_are_remembered, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
