/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a spool's file of any bytes. It opens or is refused with a text; what is found of it
 * is found again, and it takes new records.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/sys/file.h"
#include "tests/fuzz/fuzz.h"
#include "worker/spool.h"

static const uint8_t boot[HP_SPOOL_BOOT_BYTES] = {1};
static char dir[] = "/dev/shm/hp-fuzz-spool-XXXXXX";

struct found {
    uint64_t count, sum, last;
};

static void on_found(void *context, uint64_t id, const uint8_t record_boot[HP_SPOOL_BOOT_BYTES],
                     struct hp_bin record)
{
    struct found *found = context;
    found->count++;
    found->sum = found->sum * 31 + id + record_boot[0] + record.size;
    found->last = id > found->last ? id : found->last;
}

static void put_file(const char *path, const uint8_t *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    HP_ASSERT(fd >= 0 && hp_fd_write_all(fd, data, size) == HP_OK);
    (void)close(fd);
}

static void reopen(const struct found *before)
{
    struct found found = {0};
    struct hp_spool *spool = NULL;
    HP_ASSERT(hp_spool_open(dir, boot, on_found, &found, &spool, NULL) == HP_OK);
    HP_ASSERT(found.count == before->count && found.sum == before->sum);
    if (found.last < UINT64_MAX) {
        struct hp_bin record = {.data = boot, .size = sizeof(boot)};
        HP_ASSERT(hp_spool_append(spool, found.last + 1, record) == HP_OK);
        HP_ASSERT(hp_spool_sync(spool, NULL) == HP_OK);
    }
    hp_spool_close(spool);
}

static void remove_dir(void)
{
    (void)rmdir(dir); /* best effort: it is empty unless an input broke something */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[sizeof(dir) + 8];
    struct found found = {0};
    struct hp_spool *spool = NULL;
    struct hp_error error = {0};
    if (path[0] == '\0') {
        HP_ASSERT(mkdtemp(dir) != NULL && atexit(remove_dir) == 0);
        (void)snprintf(path, sizeof(path), "%s/spool", dir);
    }
    put_file(path, data, size);
    if (hp_spool_open(dir, boot, on_found, &found, &spool, &error) == HP_OK) {
        hp_spool_close(spool);
        reopen(&found);
    } else {
        HP_ASSERT(error.text[0] != '\0');
    }
    (void)unlink(path);
    return 0;
}
