/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the disk takes: limit_disk DIR [COUNT [MIB]]
 *
 * COUNT small durable writes, one after the other, in the three ways a log can be laid out, and MIB
 * mebibytes in files of 16 MiB, each written and synced before the next one.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/programs/common.h"

#define LARGE_BYTES ((size_t)16 << 20)

enum layout { LAYOUT_APPEND, LAYOUT_OVERWRITE, LAYOUT_ALLOCATED };

static char path[4096];
static char block[65536];

static int open_file(const char *dir)
{
    (void)snprintf(path, sizeof(path), "%s/limit-disk-%d", dir, (int)getpid());
    int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        bench_die(path);
    }
    return fd;
}

static void write_block(int fd, size_t size, size_t number)
{
    block[0] = (char)number;
    if (pwrite(fd, block, size, (off_t)(number * size)) != (ssize_t)size) {
        bench_die("pwrite");
    }
}

static void prepare(int fd, enum layout layout, size_t count, size_t size)
{
    if (layout == LAYOUT_OVERWRITE) {
        for (size_t i = 0; i < count; i++) {
            write_block(fd, size, i);
        }
    } else if (layout == LAYOUT_ALLOCATED && posix_fallocate(fd, 0, (off_t)(count * size)) != 0) {
        bench_fail("posix_fallocate", "no room, or not supported here");
    }
    if (fsync(fd) != 0) {
        bench_die("fsync");
    }
}

static void measure_small(const char *dir, const char *name, enum layout layout, size_t count,
                          size_t size)
{
    uint64_t *times_ns = bench_room(count, sizeof(*times_ns));
    int fd = open_file(dir);
    prepare(fd, layout, count, size);
    for (size_t i = 0; i < count; i++) {
        uint64_t begin_ns = bench_now_ns();
        write_block(fd, size, i);
        if (fdatasync(fd) != 0) {
            bench_die("fdatasync");
        }
        times_ns[i] = bench_now_ns() - begin_ns;
    }
    bench_print_times(name, times_ns, count);
    free(times_ns);
    (void)close(fd);
    (void)unlink(path);
}

/* Megabytes (10^6) a second: what large payloads and results are held against. */
static void measure_large(const char *dir, size_t mebibytes)
{
    size_t files = mebibytes * 1048576 / LARGE_BYTES;
    char *data = bench_room(1, LARGE_BYTES);
    uint64_t spent_ns = 0;
    for (size_t i = 0; i < files; i++) {
        memset(data, (int)i + 1, LARGE_BYTES); /* not zeros: some disks notice */
        uint64_t begin_ns = bench_now_ns();
        int fd = open_file(dir);
        bench_write_all(fd, data, LARGE_BYTES);
        if (fdatasync(fd) != 0) {
            bench_die("fdatasync");
        }
        (void)close(fd);
        spent_ns += bench_now_ns() - begin_ns;
        (void)unlink(path);
    }
    bench_print_rate("write_16m_mb", (double)(files * LARGE_BYTES) / 1e6, (double)spent_ns / 1e9);
    free(data);
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 4) {
        (void)fprintf(stderr, "usage: limit_disk DIR [COUNT [MIB]]\n");
        return 2;
    }
    size_t count = argc > 2 ? bench_number(argv[2]) : 1000;
    size_t mebibytes = argc > 3 ? bench_number(argv[3]) : 1024;
    bench_limit_time(300);
    memset(block, 7, sizeof(block));
    if (count > 0) {
        measure_small(argv[1], "fdatasync_4k_append", LAYOUT_APPEND, count, 4096);
        measure_small(argv[1], "fdatasync_4k_overwrite", LAYOUT_OVERWRITE, count, 4096);
        measure_small(argv[1], "fdatasync_4k_allocated", LAYOUT_ALLOCATED, count, 4096);
        measure_small(argv[1], "fdatasync_64k_append", LAYOUT_APPEND, count, 65536);
    }
    if (mebibytes > 0) {
        measure_large(argv[1], mebibytes);
    }
    return 0;
}
