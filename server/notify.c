/* SPDX-License-Identifier: BSD-2-Clause */
/* The protocol is a few lines of text in a datagram; a library for it would be the larger part. */
#include "server/notify.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/str.h"
#include "common/sys/clock.h"

void hp_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (path == NULL || (path[0] != '/' && path[0] != '@') ||
        strlen(path) >= sizeof(addr.sun_path)) {
        return;
    }
    (void)hp_strlcpy(addr.sun_path, path, sizeof(addr.sun_path)); /* it fits */
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (path[0] == '@') {
        addr.sun_path[0] = '\0'; /* abstract */
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return;
    }
    /* A manager that does not listen must not stop the broker. */
    (void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&addr, size);
    (void)close(fd);
}

void hp_notify_reloading(void)
{
    char text[64];
    (void)snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%llu",
                   (unsigned long long)hp_clock_mono_us());
    hp_notify(text);
}

uint64_t hp_notify_watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC");
    const char *pid = getenv("WATCHDOG_PID");
    uint64_t value = 0;
    uint64_t wanted_pid = (uint64_t)getpid();
    if (usec == NULL || hp_parse_u64(hp_str_of(usec), &value, NULL) != HP_OK) {
        return 0;
    }
    if (pid != NULL && (hp_parse_u64(hp_str_of(pid), &wanted_pid, NULL) != HP_OK ||
                        wanted_pid != (uint64_t)getpid())) {
        return 0;
    }
    return value / 1000;
}
