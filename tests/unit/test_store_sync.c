/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The database and the disk: what is synced before a commit is told as one, and what becomes of a
 * sync that fails. The library's own calls are counted and refused here.
 */
#include "tests/unit/store_fixture.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define WALL INT64_C(1700000000000)

static atomic_uint wal_syncs, db_syncs, dir_syncs, other_syncs;
static atomic_int sync_error; /* of the next sync of the log; the one after it works again */

/* Counts by what the descriptor is; -1 if this one is to fail. */
static int look(int fd)
{
    char link[64];
    char path[500];
    struct stat facts;
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof(path) - 1);
    path[size > 0 ? size : 0] = '\0';
    const char *dash = strstr(path, ".db-wal");
    if (fstat(fd, &facts) == 0 && S_ISDIR(facts.st_mode)) {
        atomic_fetch_add(&dir_syncs, 1);
    } else if (dash != NULL) {
        atomic_fetch_add(&wal_syncs, 1);
        errno = atomic_exchange(&sync_error, 0);
        return errno != 0 ? -1 : 0;
    } else if (strstr(path, ".db") != NULL) {
        atomic_fetch_add(&db_syncs, 1);
    } else {
        atomic_fetch_add(&other_syncs, 1);
    }
    return 0;
}

int fsync(int fd)
{
    return look(fd) == 0 ? (int)syscall(SYS_fsync, fd) : -1;
}

int fdatasync(int fd)
{
    return look(fd) == 0 ? (int)syscall(SYS_fdatasync, fd) : -1;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    atomic_store(&dir_syncs, 0);
    fixture_open(f, true);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    atomic_store(&sync_error, 0);
    fixture_close(*state);
    free(*state);
    return 0;
}

static void test_a_new_database_has_a_name(void **state)
{
    (void)state;
    assert_true(atomic_load(&dir_syncs) >= 1);
}

static void test_each_commit_is_synced(void **state)
{
    struct fixture *f = *state;
    for (uint64_t id = 1; id <= 20; id++) {
        uint32_t before = atomic_load(&wal_syncs);
        struct hp_batch *batch = begin_batch(f);
        add_group(batch, id, 1, 1, WALL, "o", "p");
        apply(f, batch);
        assert_true(atomic_load(&wal_syncs) > before);
    }
}

static void test_a_start_is_synced(void **state)
{
    struct fixture *f = *state;
    struct hp_error error = {0};
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 1, 1, 1, WALL, "o", "p");
    apply(f, batch);
    fixture_reopen(f);
    uint32_t before = atomic_load(&wal_syncs);
    free(TEXT_OF(print_recovery(out, f->store))); /* the new epoch */
    assert_true(atomic_load(&wal_syncs) > before);
    (void)error;
}

static void test_a_failed_sync_is_no_commit(void **state)
{
    struct fixture *f = *state;
    struct hp_error error = {0};
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 1, 1, 1, WALL, "o", "p");
    apply(f, batch);
    batch = begin_batch(f);
    add_group(batch, 2, 1, 1, WALL, "o", "p");
    atomic_store(&sync_error, EIO);
    assert_int_equal(hp_store_apply(f->store, &batch, 1, &error), HP_ERR_IO);
    assert_int_equal(atomic_load(&sync_error), 0); /* it was asked for, and failed */
    hp_batch_free(batch);
}

/* Even if the library calls it a full disk: what a sync loses can not be written again. */
static void test_a_sync_without_space_is_no_full_disk(void **state)
{
    struct fixture *f = *state;
    struct hp_error error = {0};
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 1, 1, 1, WALL, "o", "p");
    apply(f, batch);
    batch = begin_batch(f);
    add_group(batch, 2, 1, 1, WALL, "o", "p");
    atomic_store(&sync_error, ENOSPC);
    assert_int_equal(hp_store_apply(f->store, &batch, 1, &error), HP_ERR_IO);
    hp_batch_free(batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_new_database_has_a_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_each_commit_is_synced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_start_is_synced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failed_sync_is_no_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_sync_without_space_is_no_full_disk, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
