/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the data folder's rules: a lost database is never taken for a new one. */
#include "tests/lib/hp_test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/datadir.h"
#include "server/store/store.h"

static char dir[64];

static const char *path_of(const char *name)
{
    static char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void put(const char *name, const char *text)
{
    int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(close(fd), 0);
}

/* A file that is large enough to be a database. */
static void put_db(void)
{
    char text[HP_STORE_DB_BYTES_MIN + 1];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    put(HP_DATADIR_DB, text);
}

static void drop(const char *name)
{
    (void)unlink(path_of(name));
}

static bool has(const char *name)
{
    return access(path_of(name), F_OK) == 0;
}

static int make_dir(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof(dir), "/tmp/hp-datadir-XXXXXX");
    assert_non_null(mkdtemp(dir));
    return 0;
}

static int remove_dir(void **state)
{
    static const char *const names[] = {HP_DATADIR_DB,   HP_DATADIR_DB "-wal", HP_DATADIR_LOCK,
                                        HP_DATADIR_MARK, HP_DATADIR_PORT,      HP_DATADIR_RUNNING,
                                        "ballast",       "notes.txt"};
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        drop(names[i]);
    }
    (void)rmdir(path_of("blobs"));
    (void)rmdir(path_of("lost+found"));
    return rmdir(dir);
}

/* Opens and closes; the folder must be judged fine. Returns whether it counts as new. */
static bool open_fine(void)
{
    struct hp_datadir opened;
    struct hp_error error = {0};
    assert_ok(hp_datadir_open(dir, &opened, &error));
    bool is_new = opened.is_new;
    hp_datadir_close(&opened);
    assert_int_equal(opened.lock_fd, -1);
    return is_new;
}

static void open_refused(const char *why)
{
    struct hp_datadir opened = {.lock_fd = -7};
    struct hp_error error = {0};
    assert_err(hp_datadir_open(dir, &opened, &error), HP_ERR_CORRUPT);
    assert_non_null(strstr(error.text, why));
    assert_int_equal(opened.lock_fd, -7); /* untouched, and the lock is free again: */
    assert_err(hp_datadir_open(dir, &opened, &error), HP_ERR_CORRUPT);
}

static void test_new_folder(void **state)
{
    struct hp_datadir opened;
    (void)state;
    assert_true(open_fine());
    assert_int_equal(mkdir(path_of("lost+found"), 0700), 0);
    assert_int_equal(mkdir(path_of("worker"), 0700), 0);
    assert_true(open_fine()); /* an empty disk, a worker's state */
    assert_int_equal(rmdir(path_of("worker")), 0);
    char deeper[128];
    (void)snprintf(deeper, sizeof(deeper), "%s/a", dir);
    assert_ok(hp_datadir_open(deeper, &opened, NULL)); /* made */
    struct stat st;
    assert_int_equal(stat(deeper, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    hp_datadir_close(&opened);
    (void)snprintf(deeper, sizeof(deeper), "%s/a/lock", dir);
    assert_int_equal(unlink(deeper), 0);
    assert_int_equal(rmdir(path_of("a")), 0);
}

static void test_lock(void **state)
{
    struct hp_datadir first;
    struct hp_datadir second;
    struct hp_error error = {0};
    char pid[32];
    (void)state;
    assert_ok(hp_datadir_open(dir, &first, NULL));
    assert_err(hp_datadir_open(dir, &second, &error), HP_ERR_BUSY);
    (void)snprintf(pid, sizeof(pid), "process %ld", (long)getpid());
    assert_non_null(strstr(error.text, pid));
    hp_datadir_close(&first);
    (void)open_fine();
}

static void test_marks(void **state)
{
    struct hp_datadir opened;
    (void)state;
    assert_ok(hp_datadir_open(dir, &opened, NULL));
    put_db();
    put(HP_DATADIR_DB "-wal", "log");
    assert_ok(hp_datadir_mark(&opened, true, NULL));
    assert_true(has(HP_DATADIR_MARK) && has(HP_DATADIR_RUNNING));
    assert_ok(hp_datadir_put_port(&opened, 4711, NULL));
    assert_true(has(HP_DATADIR_PORT));
    hp_datadir_close(&opened);
    assert_false(open_fine());          /* after a crash: database and log are there */
    assert_false(has(HP_DATADIR_PORT)); /* a stale port is removed */
    drop(HP_DATADIR_DB "-wal");
    open_refused("hostpool.db-wal is missing");
    drop(HP_DATADIR_RUNNING); /* the person decided */
    assert_false(open_fine());
    assert_ok(hp_datadir_open(dir, &opened, NULL));
    assert_ok(hp_datadir_mark(&opened, true, NULL));
    assert_ok(hp_datadir_mark(&opened, false, NULL)); /* stopped in order */
    assert_false(has(HP_DATADIR_RUNNING));
    hp_datadir_close(&opened);
    assert_false(open_fine());
}

static void test_lost_database(void **state)
{
    static const char *const leftovers[] = {HP_DATADIR_DB "-wal", "ballast", HP_DATADIR_MARK,
                                            HP_DATADIR_PORT, HP_DATADIR_RUNNING};
    (void)state;
    for (size_t i = 0; i < sizeof(leftovers) / sizeof(leftovers[0]); i++) {
        put(leftovers[i], "x");
        open_refused("hostpool.db is missing");
        open_refused(leftovers[i]);
        assert_true(has(leftovers[i])); /* nothing is cleaned away */
        drop(leftovers[i]);
    }
    assert_int_equal(mkdir(path_of("blobs"), 0700), 0);
    open_refused("blobs");
    put(HP_DATADIR_MARK, "x");
    put(HP_DATADIR_DB, "");
    open_refused("hostpool.db is empty");
    put(HP_DATADIR_DB, "x"); /* SQLite would begin anew, and wipe the log */
    open_refused("hostpool.db is empty or cut off");
    drop(HP_DATADIR_MARK);
    open_refused("hostpool.db is empty or cut off");
    assert_true(has(HP_DATADIR_DB));
    assert_true(has(HP_DATADIR_DB));
}

static void test_interrupted_first_start(void **state)
{
    (void)state;
    put(HP_DATADIR_DB, ""); /* without a mark: nothing was ever accepted */
    assert_true(open_fine());
    assert_false(has(HP_DATADIR_DB));
}

static void test_foreign_files(void **state)
{
    (void)state;
    put("notes.txt", "x");
    open_refused("notes.txt");
    put_db(); /* beside a database they do no harm */
    assert_false(open_fine());
}

#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)

static const struct CMUnitTest tests[] = {
    WITH_DIR(test_new_folder),
    WITH_DIR(test_lock),
    WITH_DIR(test_marks),
    WITH_DIR(test_lost_database),
    WITH_DIR(test_interrupted_first_start),
    WITH_DIR(test_foreign_files),
};

HP_TEST_MAIN(tests)
