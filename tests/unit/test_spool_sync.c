/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The spool and the disk: what is synced and when, and what becomes of a call that fails. The
 * system calls it makes are counted and refused here; a crash is a second look at the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/mem.h"
#include "worker/spool.h"

static const uint8_t boot[HP_SPOOL_BOOT_BYTES] = {5};

static int file_syncs, dir_syncs; /* that were asked for */
static int data_sync_error, write_room = -1;

static int count_sync(int fd)
{
    struct stat facts;
    bool is_dir = fstat(fd, &facts) == 0 && S_ISDIR(facts.st_mode);
    *(is_dir ? &dir_syncs : &file_syncs) += 1;
    return 0;
}

int fsync(int fd)
{
    return count_sync(fd);
}

int fdatasync(int fd)
{
    (void)count_sync(fd);
    if (data_sync_error != 0) {
        errno = data_sync_error;
        data_sync_error = 0; /* the next one works, and means nothing */
        return -1;
    }
    return 0;
}

/* Writes as much as there is room, then fails for good. */
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    if (write_room >= 0) {
        if (write_room == 0) {
            errno = ENOSPC;
            return -1;
        }
        size = size < (size_t)write_room ? size : (size_t)write_room;
        write_room -= (int)size;
    }
    return (ssize_t)syscall(SYS_pwrite64, fd, data, size, offset);
}

struct scene {
    char dir[64];
    char file[80];
    struct hp_spool *spool;
    uint64_t ids[64];
    uint32_t count;
};

static void on_found(void *context, uint64_t id, const uint8_t record_boot[HP_SPOOL_BOOT_BYTES],
                     struct hp_bin record)
{
    struct scene *scene = context;
    (void)record_boot;
    (void)record;
    scene->ids[scene->count++] = id;
}

static void open_spool(struct scene *scene)
{
    struct hp_error error = {0};
    scene->count = 0;
    assert_int_equal(hp_spool_open(scene->dir, boot, on_found, scene, &scene->spool, &error),
                     HP_OK);
}

/* kill -9, and a new start: what is in the file is found. */
static void start_again(struct scene *scene)
{
    hp_spool_close(scene->spool);
    open_spool(scene);
}

static int setup(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    (void)snprintf(scene->dir, sizeof(scene->dir), "/tmp/hp-test-spool-XXXXXX");
    assert_non_null(mkdtemp(scene->dir));
    (void)snprintf(scene->file, sizeof(scene->file), "%s/spool", scene->dir);
    file_syncs = dir_syncs = data_sync_error = 0;
    write_room = -1;
    *state = scene;
    return 0;
}

static int teardown(void **state)
{
    struct scene *scene = *state;
    hp_spool_close(scene->spool);
    (void)unlink(scene->file);
    (void)rmdir(scene->dir);
    free(scene);
    return 0;
}

static void append(struct scene *scene, uint64_t id, uint32_t size)
{
    uint8_t *bytes = hp_calloc(1, size);
    assert_int_equal(hp_spool_append(scene->spool, id, hp_bin_make(bytes, size)), HP_OK);
    hp_free(bytes);
}

static void test_what_is_synced(void **state)
{
    struct scene *scene = *state;
    struct hp_error error = {0};
    open_spool(scene);
    assert_int_equal(file_syncs, 1);
    assert_int_equal(dir_syncs, 1); /* the new file's name */
    append(scene, 1, 10);
    append(scene, 2, 10);
    assert_int_equal(file_syncs, 1);
    assert_int_equal(hp_spool_sync(scene->spool, &error), HP_OK);
    assert_int_equal(file_syncs, 2); /* both with one */
    hp_spool_ack(scene->spool, 1);
    hp_spool_flush(scene->spool);
    assert_int_equal(file_syncs, 2); /* an acknowledgement may be lost */
    start_again(scene);
    assert_int_equal(scene->count, 1); /* but was not */
    assert_int_equal(scene->ids[0], 2);
}

static void test_a_failed_sync_is_the_last(void **state)
{
    struct scene *scene = *state;
    struct hp_error error = {0};
    open_spool(scene);
    append(scene, 1, 10);
    data_sync_error = EIO;
    assert_int_not_equal(hp_spool_sync(scene->spool, &error), HP_OK);
    append(scene, 2, 10);
    assert_int_not_equal(hp_spool_sync(scene->spool, &error), HP_OK); /* nothing is tried again */
    start_again(scene);
    append(scene, 9, 10);
    assert_int_equal(hp_spool_sync(scene->spool, &error), HP_OK);
}

static void test_a_torn_write_hides_nothing(void **state)
{
    struct scene *scene = *state;
    struct hp_error error = {0};
    for (int room = 0; room < 150; room += 7) {
        (void)unlink(scene->file);
        open_spool(scene);
        append(scene, 1, 50);
        assert_int_equal(hp_spool_sync(scene->spool, &error), HP_OK);
        append(scene, 2, 100);
        write_room = room; /* the record has 148 bytes */
        bool fits = room >= 148;
        assert_int_equal(hp_spool_sync(scene->spool, &error) == HP_OK, fits);
        write_room = -1;
        struct hp_spool_stats stats;
        hp_spool_get_stats(scene->spool, &stats);
        assert_int_equal(stats.live_count, fits ? 2 : 1); /* what is not there keeps no file */
        append(scene, 3, 20);
        assert_int_equal(hp_spool_sync(scene->spool, &error), HP_OK);
        start_again(scene);
        assert_int_equal(scene->count, fits ? 3 : 2);
        assert_int_equal(scene->ids[0], 1);
        assert_int_equal(scene->ids[scene->count - 1], 3); /* behind what was torn */
        hp_spool_close(scene->spool);
        scene->spool = NULL;
    }
}

static void test_emptied_only_without_live_records(void **state)
{
    struct scene *scene = *state;
    struct hp_error error = {0};
    open_spool(scene);
    append(scene, 1, 10);
    append(scene, 2, 10);
    assert_int_equal(hp_spool_sync(scene->spool, &error), HP_OK);
    hp_spool_ack(scene->spool, 1);
    hp_spool_flush(scene->spool);
    start_again(scene);
    assert_int_equal(scene->count, 1);
    hp_spool_ack(scene->spool, 2);
    hp_spool_flush(scene->spool);
    struct stat facts;
    assert_int_equal(stat(scene->file, &facts), 0);
    assert_int_equal(facts.st_size, 8); /* its head */
    start_again(scene);
    assert_int_equal(scene->count, 0);
}

static void test_compaction_keeps_all_that_lives(void **state)
{
    struct scene *scene = *state;
    struct hp_error error = {0};
    enum { LARGE = 10 << 20 };
    open_spool(scene);
    append(scene, 1, 100);
    for (uint64_t id = 2; id <= 8; id++) {
        append(scene, id, LARGE);
    }
    append(scene, 9, 100);
    assert_int_equal(hp_spool_sync(scene->spool, &error), HP_OK);
    for (uint64_t id = 2; id <= 8; id++) {
        hp_spool_ack(scene->spool, id);
    }
    file_syncs = dir_syncs = 0;
    append(scene, 10, 100);
    assert_int_equal(hp_spool_sync(scene->spool, &error), HP_OK); /* the last frame is a record */
    hp_spool_flush(scene->spool);
    struct hp_spool_stats stats;
    hp_spool_get_stats(scene->spool, &stats);
    assert_int_equal(stats.compact_count, 1);
    assert_true(stats.file_bytes < 2000);
    assert_int_equal(file_syncs, 2); /* of the records, and of the new file */
    assert_int_equal(dir_syncs, 1);  /* its name */
    append(scene, 11, 100);
    assert_int_equal(hp_spool_sync(scene->spool, &error), HP_OK);
    hp_spool_ack(scene->spool, 9);
    hp_spool_flush(scene->spool);
    start_again(scene);
    assert_int_equal(scene->count, 3);
    assert_int_equal(scene->ids[0], 1);
    assert_int_equal(scene->ids[1], 10);
    assert_int_equal(scene->ids[2], 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_synced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failed_sync_is_the_last, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_torn_write_hides_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_emptied_only_without_live_records, setup, teardown),
        cmocka_unit_test_setup_teardown(test_compaction_keeps_all_that_lives, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
