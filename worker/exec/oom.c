/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads /proc/vmstat's oom_kill, which counts the kills of the host and of all memory cgroups.
 * Another process killed at the same moment makes the guess wrong; a SIGKILL that nobody here sent
 * is then called an OOM kill, which is the likelier reading.
 */
#include "worker/exec/oom.h"

#include <stdlib.h>
#include <string.h>

#include "common/sys/file.h"

static uint64_t read_count(void)
{
    struct hp_buf buf;
    uint64_t count = 0;
    if (hp_file_read("/proc/vmstat", 256 * 1024, &buf, NULL) != HP_OK) {
        return 0;
    }
    if (hp_buf_append_byte(&buf, '\0') == HP_OK) {
        const char *at = strstr((const char *)buf.data, "\noom_kill ");
        count = at == NULL ? 0 : strtoull(at + strlen("\noom_kill "), NULL, 10);
    }
    hp_buf_deinit(&buf);
    return count;
}

void hp_oom_init(struct hp_oom *oom)
{
    oom->seen = read_count();
}

bool hp_oom_look(struct hp_oom *oom)
{
    uint64_t before = oom->seen;
    oom->seen = read_count();
    return oom->seen > before;
}
