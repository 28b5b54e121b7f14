/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For LD_PRELOAD: syncs take as long as the file $SLOW_SYNC says, in milliseconds, while it is
 * there. A disk that stalls.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void stall(void)
{
    const char *path = getenv("SLOW_SYNC");
    char text[16] = "";
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) {
        return;
    }
    ssize_t size = read(fd, text, sizeof(text) - 1);
    (void)close(fd);
    if (size > 0) {
        (void)poll(NULL, 0, (int)strtol(text, NULL, 10)); /* the stall itself */
    }
}

int fsync(int fd)
{
    stall();
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    stall();
    return (int)syscall(SYS_fdatasync, fd);
}
