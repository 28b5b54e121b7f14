/* SPDX-License-Identifier: BSD-2-Clause */
/* See common.h. */
#include "bench/programs/common.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

uint64_t bench_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void bench_die(const char *what)
{
    bench_fail(what, strerror(errno));
}

void bench_fail(const char *what, const char *why)
{
    (void)fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, why);
    exit(1);
}

void bench_limit_time(unsigned seconds)
{
    (void)alarm(seconds);
}

uint64_t bench_number(const char *text)
{
    char *end = NULL;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-') {
        bench_fail("not a number", text);
    }
    return number;
}

void *bench_room(size_t count, size_t size)
{
    void *room = calloc(count, size);
    if (room == NULL) {
        bench_die("memory");
    }
    return room;
}

void bench_print_rate(const char *name, double count, double seconds)
{
    (void)printf("{\"name\": \"%s\", \"count\": %.0f, \"seconds\": %.6f, \"rate\": %.2f}\n", name,
                 count, seconds, count / seconds);
    (void)fflush(stdout);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

void bench_print_times(const char *name, uint64_t *times_ns, size_t count)
{
    qsort(times_ns, count, sizeof(*times_ns), compare);
    (void)printf("{\"name\": \"%s\", \"count\": %zu, \"p50_us\": %.3f, \"p99_us\": %.3f, "
                 "\"max_us\": %.3f}\n",
                 name, count, (double)times_ns[count / 2] / 1e3,
                 (double)times_ns[count * 99 / 100] / 1e3, (double)times_ns[count - 1] / 1e3);
    (void)fflush(stdout);
}

static void set_nodelay(int fd)
{
    int one = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0) {
        bench_die("TCP_NODELAY");
    }
}

int bench_connect(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        bench_die("connect");
    }
    set_nodelay(fd);
    return fd;
}

int bench_listen(uint16_t *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, size) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        bench_die("listen");
    }
    *ret_port = ntohs(address.sin_port);
    return fd;
}

int bench_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        bench_die("accept");
    }
    set_nodelay(fd);
    return fd;
}

void bench_write_all(int fd, const void *data, size_t size)
{
    const char *at = data;
    while (size > 0) {
        ssize_t written = write(fd, at, size);
        if (written < 0 && errno != EINTR) {
            bench_die("write");
        }
        if (written > 0) {
            at += written;
            size -= (size_t)written;
        }
    }
}

bool bench_read_all(int fd, void *data, size_t size)
{
    char *at = data;
    while (size > 0) {
        ssize_t found = read(fd, at, size);
        if (found == 0) {
            return false;
        }
        if (found < 0 && errno != EINTR) {
            bench_die("read");
        }
        if (found > 0) {
            at += found;
            size -= (size_t)found;
        }
    }
    return true;
}

pid_t bench_fork(void)
{
    (void)fflush(stdout);
    pid_t child = fork();
    if (child < 0) {
        bench_die("fork");
    }
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* cannot fail with a valid signal */
    }
    return child;
}

void bench_end_child(pid_t child)
{
    (void)kill(child, SIGKILL); /* it may have ended */
    (void)waitpid(child, NULL, 0);
}
