/* SPDX-License-Identifier: BSD-2-Clause */
#include "common/sys/crash.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_ulong passes;

static void append_line(const char *path, const char *name)
{
    char line[128];
    int size = snprintf(line, sizeof(line), "%s\n", name);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0 && size > 0 && write(fd, line, (size_t)size) != size) {
        (void)fprintf(stderr, "crash point %s: not written down\n", name);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
}

/* Is `name` the one of "name:n", and this its n-th pass? */
static bool is_due(const char *wanted, const char *name)
{
    size_t size = strlen(name);
    if (strncmp(wanted, name, size) != 0 || wanted[size] != ':') {
        return false;
    }
    return atomic_fetch_add(&passes, 1) + 1 == strtoul(wanted + size + 1, NULL, 10);
}

void hp_crash_point(const char *name, atomic_flag *seen)
{
    int saved = errno;
    const char *wanted = getenv("HP_CRASH");
    const char *hits = getenv("HP_CRASH_HITS");
    if (hits != NULL && !atomic_flag_test_and_set(seen)) {
        append_line(hits, name);
    }
    if (wanted != NULL && is_due(wanted, name)) {
        const char *fired = getenv("HP_CRASH_FIRED");
        if (fired != NULL) {
            append_line(fired, wanted);
        }
        (void)kill(getpid(), SIGKILL);
    }
    errno = saved;
}
