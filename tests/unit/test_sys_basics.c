/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of clock, random, file, lock and proc, on a temporary folder of their own. */
#include "tests/lib/hp_test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/sys/clock.h"
#include "common/sys/file.h"
#include "common/sys/proc.h"
#include "common/sys/random.h"

static char folder[64];

static const char *in_folder(char out[128], const char *name)
{
    (void)snprintf(out, 128, "%s/%s", folder, name);
    return out;
}

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/hp-test-XXXXXX");
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"a/b/c", "a/b", "a", "file", "lock", "big", "full"};
    char path[128];
    for (size_t i = 0; i < HP_COUNT_OF(names); i++) {
        (void)remove(in_folder(path, names[i])); /* not every test makes all of them */
    }
    return rmdir(folder); /* fails if a temporary file was left */
}

static void test_clock(void **state)
{
    (void)state;
    char text[HP_CLOCK_TEXT_BYTES];
    uint64_t before_us = hp_clock_mono_us();
    assert_true(hp_clock_mono_us() >= before_us);
    assert_true(hp_clock_mono_ms() >= before_us / 1000);
    assert_true(hp_clock_boot_ms() >= before_us / 1000);
    assert_true(hp_clock_wall_ms() > UINT64_C(1600000000000));
    assert_string_equal(hp_clock_format(text, 1767225600007), "2026-01-01T00:00:00.007Z");
    assert_string_equal(hp_clock_format(text, 0), "1970-01-01T00:00:00.000Z");
    assert_string_equal(hp_clock_format(text, UINT64_MAX), "9999-12-31T23:59:59.999Z");
}

static void test_random(void **state)
{
    (void)state;
    uint8_t a[16] = {0};
    uint8_t b[16] = {0};
    uint64_t number = 0;
    assert_ok(hp_random_id16(a));
    assert_ok(hp_random_id16(b));
    assert_memory_not_equal(a, b, 16);
    assert_ok(hp_random_u64(&number));
}

static void test_read_write(void **state)
{
    (void)state;
    char path[128];
    struct hp_buf buf;
    struct hp_error error = {0};
    in_folder(path, "file");
    assert_err(hp_file_read(path, 100, &buf, &error), HP_ERR_NOT_FOUND);
    assert_non_null(strstr(error.text, path));
    assert_ok(hp_file_write_atomic(path, "hello", 5, 0640, &error));
    assert_ok(hp_file_write_atomic(path, "world!", 6, 0640, &error));
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
    assert_ok(hp_file_read(path, 6, &buf, &error));
    assert_true(hp_bin_eq(hp_buf_bin(&buf), hp_bin_make("world!", 6)));
    hp_buf_deinit(&buf);
    assert_err(hp_file_read(path, 5, &buf, &error), HP_ERR_TOO_BIG);
    assert_err(hp_file_write_atomic("/nonexistent/x", "a", 1, 0600, &error), HP_ERR_NOT_FOUND);
    assert_err(hp_file_write_atomic(folder, "a", 1, 0600, &error), HP_ERR_INVALID);
}

static void test_mkdir(void **state)
{
    (void)state;
    char path[128];
    struct hp_error error = {0};
    assert_ok(hp_mkdir_p(in_folder(path, "a/b/c"), 0700, &error));
    assert_ok(hp_mkdir_p(path, 0700, &error));
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    assert_ok(hp_file_write_atomic(in_folder(path, "file"), "x", 1, 0600, &error));
    assert_err(hp_mkdir_p(in_folder(path, "file/sub"), 0700, &error), HP_ERR_INVALID);
    assert_err(hp_mkdir_p("", 0700, &error), HP_ERR_NOT_FOUND);
    assert_ok(hp_dir_fsync(folder, &error));
}

static void test_lock(void **state)
{
    (void)state;
    char path[128];
    char expected[64];
    int fd = -1;
    int second_fd = -1;
    struct hp_error error = {0};
    in_folder(path, "lock");
    assert_ok(hp_lock_acquire(path, &fd, &error));
    assert_err(hp_lock_acquire(path, &second_fd, &error), HP_ERR_BUSY);
    (void)snprintf(expected, sizeof(expected), "is locked by process %ld", (long)getpid());
    assert_non_null(strstr(error.text, expected));
    assert_int_equal(second_fd, -1);
    hp_lock_release(&fd);
    assert_int_equal(fd, -1);
    assert_ok(hp_lock_acquire(path, &fd, &error));
    hp_lock_release(&fd);
    hp_lock_release(&fd);
}

static void test_space(void **state)
{
    (void)state;
    char path[128];
    unsigned percent = 101;
    uint64_t bytes = 0;
    struct hp_error error = {0};
    assert_ok(hp_path_free_space(folder, &percent, &bytes, &error));
    assert_in_range(percent, 0, 100);
    assert_err(hp_path_free_space("/nonexistent", &percent, NULL, &error), HP_ERR_NOT_FOUND);
    int fd = open(in_folder(path, "big"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    enum hp_err err = hp_fd_preallocate(fd, 0, 65536);
    assert_true(err == HP_OK || err == HP_ERR_UNSUPPORTED); /* depends on the file system */
    assert_err(hp_fd_preallocate(fd, UINT64_MAX, 1), HP_ERR_RANGE);
    assert_int_equal(lseek(fd, 0, SEEK_END), 0);
    hp_fd_close(&fd);
}

static void test_proc(void **state)
{
    (void)state;
    char name[HP_HOSTNAME_BYTES];
    char boot_id[HP_BOOT_ID_BYTES];
    uint64_t limit = 0;
    assert_ok(hp_proc_keep_std_fds());
    assert_true(strlen(hp_proc_hostname(name)) > 0);
    assert_ok(hp_proc_boot_id(boot_id));
    assert_int_equal(strlen(boot_id), 36);
    assert_ok(hp_proc_raise_nofile(64, &limit));
    assert_true(limit >= 64);
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    assert_ok(hp_fd_set_cloexec(fds[0]));
    assert_true((fcntl(fds[0], F_GETFD) & FD_CLOEXEC) != 0);
    assert_ok(hp_fd_set_nonblock(fds[0]));
    char byte = 0;
    assert_int_equal(read(fds[0], &byte, 1), -1);
    hp_fd_close(&fds[0]);
    hp_proc_ignore_sigpipe();
    assert_int_equal(write(fds[1], "x", 1), -1);
    hp_fd_close(&fds[1]);
    assert_err(hp_fd_set_cloexec(-1), HP_ERR_IO);
}

/* A child without descriptors gets 0 .. 2 back, and close_from leaves only what it is told to. */
static void test_child_descriptors(void **state)
{
    (void)state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        hp_proc_close_from(0);
        bool good = hp_proc_keep_std_fds() == HP_OK;
        good = good && fcntl(2, F_GETFD) == 0 && fcntl(3, F_GETFD) == -1;
        _exit(good ? 0 : 1);
    }
    int pidfd = -1;
    assert_ok(hp_pidfd_open(pid, &pidfd));
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_err(hp_pidfd_send_signal(pidfd, SIGTERM), HP_ERR_NOT_FOUND);
    hp_fd_close(&pidfd);
    assert_err(hp_pidfd_open(-1, &pidfd), HP_ERR_INVALID);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_clock),
    cmocka_unit_test(test_random),
    cmocka_unit_test_setup_teardown(test_read_write, make_folder, remove_folder),
    cmocka_unit_test_setup_teardown(test_mkdir, make_folder, remove_folder),
    cmocka_unit_test_setup_teardown(test_lock, make_folder, remove_folder),
    cmocka_unit_test_setup_teardown(test_space, make_folder, remove_folder),
    cmocka_unit_test(test_proc),
    cmocka_unit_test(test_child_descriptors),
};

HP_TEST_MAIN(tests)
