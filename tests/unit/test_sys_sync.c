/* SPDX-License-Identifier: BSD-2-Clause */
/* Durable writes of small files: bytes, then the name; a sync that fails is told. */
#include "tests/lib/hp_test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/sys/file.h"

static char order[16]; /* f: a file, d: a folder, in the order they were synced */
static char fails;     /* the kind that is to fail */

int fsync(int fd)
{
    struct stat facts;
    char kind = fstat(fd, &facts) == 0 && S_ISDIR(facts.st_mode) ? 'd' : 'f';
    order[strlen(order)] = kind;
    if (kind == fails) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

static void a_file_and_its_name_are_synced(void **state)
{
    (void)state;
    char dir[] = "/tmp/hp-test-sync-XXXXXX";
    char path[64];
    struct hp_error error = {0};
    static const char failing[] = {0, 'f', 'd'};
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/token", dir);
    for (size_t i = 0; i < 3; i++) {
        memset(order, 0, sizeof(order));
        fails = failing[i];
        enum hp_err err = hp_file_write_atomic(path, "secret", 6, 0600, &error);
        assert_int_equal(err, i == 0 ? HP_OK : HP_ERR_IO);
        assert_string_equal(order, i == 1 ? "f" : "fd");
        assert_int_equal(access(path, F_OK) == 0, i != 1);
        (void)unlink(path);
    }
    memset(order, 0, sizeof(order));
    fails = 0;
    assert_ok(hp_dir_fsync(dir, &error));
    assert_string_equal(order, "d");
    fails = 'd';
    assert_err(hp_dir_fsync(dir, &error), HP_ERR_IO);
    assert_int_equal(rmdir(dir), 0); /* no temporary file was left */
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_file_and_its_name_are_synced),
};

HP_TEST_MAIN(tests)
