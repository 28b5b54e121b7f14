/* SPDX-License-Identifier: BSD-2-Clause */
/* The worker's spool: what is synced is found again, a file cut at any byte keeps what is whole. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/sys/file.h"
#include "worker/spool.h"

static const uint8_t boot[HP_SPOOL_BOOT_BYTES] = {9, 8, 7};

struct found {
    uint64_t ids[64];
    uint32_t count;
    bool wrong;
};

struct place {
    char dir[64];
    char file[80];
};

static struct hp_bin record_of(uint64_t id, uint8_t room[300])
{
    uint32_t size = (uint32_t)(id * 37 % 300);
    for (uint32_t i = 0; i < size; i++) {
        room[i] = (uint8_t)(id + i);
    }
    return (struct hp_bin){.data = room, .size = size};
}

static void on_found(void *context, uint64_t id, const uint8_t record_boot[HP_SPOOL_BOOT_BYTES],
                     struct hp_bin record)
{
    struct found *found = context;
    uint8_t room[300];
    struct hp_bin wanted = record_of(id, room);
    found->wrong =
        found->wrong || memcmp(record_boot, boot, sizeof(boot)) != 0 || !hp_bin_eq(wanted, record);
    found->ids[found->count++] = id;
}

static void make_place(struct place *place)
{
    (void)snprintf(place->dir, sizeof(place->dir), "/tmp/hp-test-spool-XXXXXX");
    assert_non_null(mkdtemp(place->dir));
    (void)snprintf(place->file, sizeof(place->file), "%s/spool", place->dir);
}

static void remove_place(const struct place *place)
{
    (void)unlink(place->file);
    assert_int_equal(rmdir(place->dir), 0);
}

static struct hp_spool *open_spool(const struct place *place, struct found *found)
{
    struct hp_spool *spool = NULL;
    struct hp_error error = {0};
    *found = (struct found){0};
    assert_int_equal(hp_spool_open(place->dir, boot, on_found, found, &spool, &error), HP_OK);
    assert_false(found->wrong);
    return spool;
}

static void append(struct hp_spool *spool, uint64_t first, uint64_t last)
{
    uint8_t room[300];
    for (uint64_t id = first; id <= last; id++) {
        assert_int_equal(hp_spool_append(spool, id, record_of(id, room)), HP_OK);
    }
    assert_int_equal(hp_spool_sync(spool, NULL), HP_OK);
}

static void finds_what_was_synced(void **state)
{
    (void)state;
    struct place place;
    struct found found;
    make_place(&place);
    struct hp_spool *spool = open_spool(&place, &found);
    assert_int_equal(found.count, 0);
    append(spool, 1, 10);
    hp_spool_ack(spool, 3);
    hp_spool_ack(spool, 10);
    hp_spool_ack(spool, 99);
    hp_spool_flush(spool);
    hp_spool_close(spool);
    spool = open_spool(&place, &found);
    assert_int_equal(found.count, 8);
    assert_int_equal(found.ids[2], 4);
    append(spool, 10, 11); /* 10 was acknowledged: its id is free again */
    hp_spool_close(spool);
    spool = open_spool(&place, &found);
    assert_int_equal(found.count, 10);
    hp_spool_close(spool);
    remove_place(&place);
}

static void empties_when_all_is_acknowledged(void **state)
{
    (void)state;
    struct place place;
    struct found found;
    make_place(&place);
    struct hp_spool *spool = open_spool(&place, &found);
    append(spool, 1, 20);
    for (uint64_t id = 1; id <= 20; id++) {
        hp_spool_ack(spool, id);
    }
    hp_spool_flush(spool);
    struct hp_spool_stats stats;
    hp_spool_get_stats(spool, &stats);
    assert_int_equal(stats.live_count, 0);
    assert_int_equal(stats.file_bytes, 8);
    append(spool, 21, 22);
    hp_spool_close(spool);
    spool = open_spool(&place, &found);
    assert_int_equal(found.count, 2);
    hp_spool_close(spool);
    remove_place(&place);
}

static void set_file(const struct place *place, const uint8_t *data, size_t size)
{
    int fd = open(place->file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(hp_fd_write_all(fd, data, size), HP_OK);
    assert_int_equal(close(fd), 0);
}

static void survives_a_cut_at_every_byte(void **state)
{
    (void)state;
    struct place place;
    struct found found;
    make_place(&place);
    struct hp_spool *spool = open_spool(&place, &found);
    size_t whole[7] = {8};
    struct hp_spool_stats stats;
    for (uint64_t id = 1; id <= 6; id++) {
        append(spool, id, id);
        hp_spool_get_stats(spool, &stats);
        whole[id] = stats.file_bytes;
    }
    hp_spool_close(spool);
    struct hp_buf bytes;
    assert_int_equal(hp_file_read(place.file, 1 << 20, &bytes, NULL), HP_OK);
    for (size_t size = 0; size <= bytes.size; size++) {
        set_file(&place, bytes.data, size);
        uint32_t wanted = 0;
        while (wanted < 6 && whole[wanted + 1] <= size) {
            wanted++;
        }
        spool = open_spool(&place, &found);
        assert_int_equal(found.count, wanted);
        append(spool, 50, 50); /* and it can be written behind the cut */
        hp_spool_close(spool);
        spool = open_spool(&place, &found);
        assert_int_equal(found.count, wanted + 1);
        hp_spool_close(spool);
    }
    hp_buf_deinit(&bytes);
    remove_place(&place);
}

static void damage_is_never_data(void **state)
{
    (void)state;
    struct place place;
    struct found found;
    make_place(&place);
    struct hp_spool *spool = open_spool(&place, &found);
    append(spool, 1, 4);
    hp_spool_close(spool);
    struct hp_buf bytes;
    assert_int_equal(hp_file_read(place.file, 1 << 20, &bytes, NULL), HP_OK);
    for (size_t at = 8; at < bytes.size; at++) {
        bytes.data[at] ^= 0x10;
        set_file(&place, bytes.data, bytes.size);
        bytes.data[at] ^= 0x10;
        spool = open_spool(&place, &found); /* asserts that all it finds is right */
        assert_true(found.count < 4);
        hp_spool_close(spool);
    }
    hp_buf_deinit(&bytes);
    remove_place(&place);
}

static void foreign_file_is_left_alone(void **state)
{
    (void)state;
    struct place place;
    make_place(&place);
    set_file(&place, (const uint8_t *)"a letter, no spool", 18);
    struct hp_spool *spool = NULL;
    struct hp_error error = {0};
    assert_int_equal(hp_spool_open(place.dir, boot, NULL, NULL, &spool, &error), HP_ERR_CORRUPT);
    assert_non_null(strstr(error.text, "spool"));
    struct hp_buf bytes;
    assert_int_equal(hp_file_read(place.file, 1 << 20, &bytes, NULL), HP_OK);
    assert_int_equal(bytes.size, 18);
    hp_buf_deinit(&bytes);
    remove_place(&place);
}

/* What a crash leaves of a head: its first bytes, or zeros where the file has grown. */
static void half_a_head_is_a_new_spool(void **state)
{
    (void)state;
    static const char *const heads[] = {"\0\0\0\0\0\0\0\0", "hpsp", "hps\0\0\0\0\0", "\0"};
    static const size_t sizes[] = {8, 4, 8, 1};
    for (size_t i = 0; i < 4; i++) {
        struct place place;
        struct found found;
        make_place(&place);
        set_file(&place, (const uint8_t *)heads[i], sizes[i]);
        struct hp_spool *spool = open_spool(&place, &found);
        append(spool, 1, 2);
        hp_spool_close(spool);
        spool = open_spool(&place, &found);
        assert_int_equal(found.count, 2);
        hp_spool_close(spool);
        remove_place(&place);
    }
}

static void compacts_when_most_is_acknowledged(void **state)
{
    (void)state;
    struct place place;
    struct found found;
    make_place(&place);
    struct hp_spool *spool = open_spool(&place, &found);
    append(spool, 1, 2);
    size_t large_size = 20u << 20;
    uint8_t *large = hp_calloc(1, large_size);
    for (uint64_t id = 3; id <= 6; id++) {
        struct hp_bin record = {.data = large, .size = (uint32_t)large_size};
        assert_int_equal(hp_spool_append(spool, id, record), HP_OK);
        assert_int_equal(hp_spool_sync(spool, NULL), HP_OK);
    }
    for (uint64_t id = 3; id <= 6; id++) {
        hp_spool_ack(spool, id);
    }
    hp_spool_flush(spool);
    struct hp_spool_stats stats;
    hp_spool_get_stats(spool, &stats);
    assert_int_equal(stats.compact_count, 1);
    assert_true(stats.file_bytes < 4096);
    append(spool, 7, 8);
    hp_spool_ack(spool, 1);
    hp_spool_flush(spool);
    hp_spool_close(spool);
    spool = open_spool(&place, &found);
    assert_int_equal(found.count, 3);
    hp_spool_close(spool);
    hp_free(large);
    remove_place(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_was_synced),
        cmocka_unit_test(empties_when_all_is_acknowledged),
        cmocka_unit_test(survives_a_cut_at_every_byte),
        cmocka_unit_test(damage_is_never_data),
        cmocka_unit_test(foreign_file_is_left_alone),
        cmocka_unit_test(half_a_head_is_a_new_spool),
        cmocka_unit_test(compacts_when_most_is_acknowledged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
