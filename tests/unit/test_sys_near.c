/* SPDX-License-Identifier: BSD-2-Clause */
/* Content handed over by descriptor: what is taken, and what is not. */
#include "tests/lib/hp_test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/sys/file.h"
#include "common/sys/near.h"

enum { CONTENT_BYTES = 100000 };

static const uint8_t key[HP_NEAR_KEY_BYTES] = "0123456789abcdef";
static const uint8_t other_key[HP_NEAR_KEY_BYTES] = "0123456789abcdeF";

static int content_new(void)
{
    int fd = -1;
    uint8_t *bytes = malloc(CONTENT_BYTES);
    assert_non_null(bytes);
    memset(bytes, 0x5a, CONTENT_BYTES);
    assert_int_equal(hp_near_create(&fd), HP_OK);
    assert_int_equal(hp_fd_write_all(fd, bytes, CONTENT_BYTES), HP_OK);
    free(bytes);
    return fd;
}

static void what_is_sealed_is_taken_whole(void **state)
{
    (void)state;
    HP_CLEANUP(hp_fd_close) int given = content_new();
    HP_CLEANUP(hp_fd_close) int taken = -1;
    struct hp_near_place place;
    const uint8_t *data = NULL;
    assert_int_equal(hp_near_seal(given, CONTENT_BYTES, key), HP_OK);
    assert_int_equal(hp_near_place_of(given, &place), HP_OK);
    assert_int_equal(hp_near_open(&place, &taken), HP_OK);
    assert_int_equal(hp_near_check(taken, CONTENT_BYTES, key), HP_OK);
    hp_fd_close(&given); /* the giver may go */
    assert_int_equal(hp_near_map(taken, CONTENT_BYTES, &data), HP_OK);
    assert_int_equal(data[0], 0x5a);
    assert_int_equal(data[CONTENT_BYTES - 1], 0x5a);
    hp_near_unmap(data, CONTENT_BYTES);
}

static void what_is_sealed_does_not_change(void **state)
{
    (void)state;
    HP_CLEANUP(hp_fd_close) int fd = content_new();
    assert_int_equal(hp_near_seal(fd, CONTENT_BYTES, key), HP_OK);
    assert_int_equal(pwrite(fd, "x", 1, 0), -1);
    assert_int_equal(ftruncate(fd, 10), -1);
    assert_int_equal(ftruncate(fd, 1000000), -1);
}

static void other_keys_sizes_and_unsealed_files_are_refused(void **state)
{
    (void)state;
    HP_CLEANUP(hp_fd_close) int fd = content_new();
    assert_int_equal(hp_near_seal(fd, CONTENT_BYTES - 1, key), HP_ERR_INVALID);
    assert_int_equal(hp_near_check(fd, CONTENT_BYTES, key), HP_ERR_INVALID);
    assert_int_equal(pwrite(fd, key, sizeof(key), CONTENT_BYTES), (int)sizeof(key));
    assert_int_equal(hp_near_check(fd, CONTENT_BYTES, key), HP_ERR_INVALID); /* not sealed */
    assert_int_equal(ftruncate(fd, CONTENT_BYTES), 0);
    assert_int_equal(hp_near_seal(fd, CONTENT_BYTES, key), HP_OK);
    assert_int_equal(hp_near_check(fd, CONTENT_BYTES, key), HP_OK);
    assert_int_equal(hp_near_check(fd, CONTENT_BYTES, other_key), HP_ERR_INVALID);
    assert_int_equal(hp_near_check(fd, CONTENT_BYTES - 1, key), HP_ERR_INVALID);
}

/* A giver who maps the file for writing could change it after the check. */
static void a_file_mapped_for_writing_can_not_be_sealed(void **state)
{
    (void)state;
    HP_CLEANUP(hp_fd_close) int fd = content_new();
    void *map = mmap(NULL, CONTENT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    assert_int_equal(hp_near_seal(fd, CONTENT_BYTES, key), HP_ERR_BUSY);
    assert_int_equal(munmap(map, CONTENT_BYTES), 0);
}

static void files_of_a_disk_are_refused_even_with_the_key(void **state)
{
    (void)state;
    char path[] = "/tmp/hp-test-XXXXXX";
    HP_CLEANUP(hp_fd_close) int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)unlink(path);
    assert_int_equal(hp_fd_write_all(fd, key, sizeof(key)), HP_OK);
    assert_int_equal(hp_near_check(fd, 0, key), HP_ERR_INVALID);
}

static void only_the_file_that_is_meant_is_opened(void **state)
{
    (void)state;
    HP_CLEANUP(hp_fd_close) int fd = content_new();
    HP_CLEANUP(hp_fd_close) int taken = -1;
    struct hp_near_place place;
    assert_int_equal(hp_near_place_of(fd, &place), HP_OK);
    struct hp_near_place wrong = place;
    wrong.inode++;
    assert_int_equal(hp_near_open(&wrong, &taken), HP_ERR_NOT_FOUND);
    wrong = place;
    wrong.device++;
    assert_int_equal(hp_near_open(&wrong, &taken), HP_ERR_NOT_FOUND);
    wrong = place;
    wrong.fd = 1000000;
    assert_int_equal(hp_near_open(&wrong, &taken), HP_ERR_NOT_FOUND);
    wrong = place;
    wrong.pid = UINT32_MAX;
    assert_int_equal(hp_near_open(&wrong, &taken), HP_ERR_NOT_FOUND);
    assert_int_equal(taken, -1);
}

/* A fifo would block, a device could do anything: neither is even opened. */
static void only_regular_files_are_opened(void **state)
{
    (void)state;
    int ends[2];
    HP_CLEANUP(hp_fd_close) int taken = -1;
    HP_CLEANUP(hp_fd_close) int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct hp_near_place place;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(hp_near_place_of(ends[0], &place), HP_OK);
    assert_int_equal(hp_near_open(&place, &taken), HP_ERR_INVALID);
    assert_int_equal(hp_near_place_of(null, &place), HP_OK);
    assert_int_equal(hp_near_open(&place, &taken), HP_ERR_INVALID);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void a_proof_is_read_by_whoever_is_near(void **state)
{
    (void)state;
    HP_CLEANUP(hp_fd_close) int proof = -1;
    HP_CLEANUP(hp_fd_close) int fd = content_new();
    uint32_t pid = (uint32_t)getpid();
    assert_int_equal(hp_near_proof_new(key, &proof), HP_OK);
    assert_int_equal(hp_near_proof_check(pid, (uint32_t)proof, key), HP_OK);
    assert_int_equal(hp_near_proof_check(pid, (uint32_t)proof, other_key), HP_ERR_INVALID);
    assert_int_equal(hp_near_proof_check(pid, (uint32_t)fd, key), HP_ERR_INVALID);
    assert_int_not_equal(hp_near_proof_check(pid, 1000000, key), HP_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_sealed_is_taken_whole),
        cmocka_unit_test(what_is_sealed_does_not_change),
        cmocka_unit_test(other_keys_sizes_and_unsealed_files_are_refused),
        cmocka_unit_test(a_file_mapped_for_writing_can_not_be_sealed),
        cmocka_unit_test(files_of_a_disk_are_refused_even_with_the_key),
        cmocka_unit_test(only_the_file_that_is_meant_is_opened),
        cmocka_unit_test(only_regular_files_are_opened),
        cmocka_unit_test(a_proof_is_read_by_whoever_is_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
