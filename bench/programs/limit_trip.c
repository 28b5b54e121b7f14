/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages of 100 bytes between processes of this host, and nothing else: limit_trip [COUNT]
 *
 * Round trips over loopback TCP, a socket pair and pipes; then what a central broker could be at
 * most: client - relay - two workers over loopback TCP, the relay keeping nothing, reads and writes
 * coalesced, one at a time and pipelined. Run it below `taskset -c 0` for figures without the
 * wake-up of another CPU.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/programs/common.h"

#define MESSAGE_BYTES 100u
#define BUFFER_BYTES 65536u
#define WORKERS 2u
#define WINDOW 512u

static void echo_for_ever(int in, int out)
{
    static char data[BUFFER_BYTES];
    for (;;) {
        ssize_t size = read(in, data, sizeof(data));
        if (size <= 0) {
            _exit(0);
        }
        bench_write_all(out, data, (size_t)size);
    }
}

static void measure_trips(const char *name, int in, int out, size_t count)
{
    char message[MESSAGE_BYTES] = {0};
    uint64_t *times_ns = bench_room(count, sizeof(*times_ns));
    for (size_t i = 0; i < count; i++) {
        uint64_t begin_ns = bench_now_ns();
        bench_write_all(out, message, sizeof(message));
        if (!bench_read_all(in, message, sizeof(message))) {
            bench_fail(name, "the other side ended");
        }
        times_ns[i] = bench_now_ns() - begin_ns;
    }
    bench_print_times(name, times_ns, count);
    free(times_ns);
}

static void measure_pair(const char *name, const int ours[2], const int theirs[2], size_t count)
{
    pid_t child = bench_fork();
    if (child == 0) {
        echo_for_ever(theirs[0], theirs[1]);
    }
    measure_trips(name, ours[0], ours[1], count);
    bench_end_child(child);
    (void)close(ours[0]);
    (void)close(theirs[0]);
}

static void measure_direct(size_t count)
{
    int pair[2];
    int there[2];
    int back[2];
    uint16_t port = 0;
    int listener = bench_listen(&port);
    int near_fd = bench_connect(port);
    int far_fd = bench_accept(listener);
    (void)close(listener);
    measure_pair("trip_tcp", (int[]){near_fd, near_fd}, (int[]){far_fd, far_fd}, count);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0 || pipe(there) != 0 || pipe(back) != 0) {
        bench_die("pipe");
    }
    measure_pair("trip_socketpair", (int[]){pair[0], pair[0]}, (int[]){pair[1], pair[1]}, count);
    measure_pair("trip_pipe", (int[]){back[0], there[1]}, (int[]){there[0], back[1]}, count);
}

/* One peer of the relay: what it sent and is not a whole message yet, and what it is to get. */
struct peer {
    char in[BUFFER_BYTES];
    size_t in_size;
    char out[4 * BUFFER_BYTES];
    size_t out_size;
};

static void relay_messages(struct peer *peers, unsigned from)
{
    static unsigned turn;
    struct peer *peer = &peers[from];
    size_t at = 0;
    for (; at + MESSAGE_BYTES <= peer->in_size; at += MESSAGE_BYTES) {
        struct peer *to = from == WORKERS ? &peers[turn++ % WORKERS] : &peers[WORKERS];
        memcpy(to->out + to->out_size, peer->in + at, MESSAGE_BYTES);
        to->out_size += MESSAGE_BYTES;
    }
    memmove(peer->in, peer->in + at, peer->in_size - at);
    peer->in_size -= at;
}

/* The first connections are the workers', the last one is the client's. */
static void relay(int listener)
{
    static struct peer peers[WORKERS + 1];
    struct pollfd fds[WORKERS + 1];
    for (unsigned i = 0; i <= WORKERS; i++) {
        fds[i] = (struct pollfd){.fd = bench_accept(listener), .events = POLLIN};
    }
    while (poll(fds, WORKERS + 1, -1) > 0) {
        for (unsigned i = 0; i <= WORKERS; i++) {
            struct peer *peer = &peers[i];
            if (fds[i].revents == 0) {
                continue;
            }
            ssize_t size =
                read(fds[i].fd, peer->in + peer->in_size, sizeof(peer->in) - peer->in_size);
            if (size <= 0) {
                _exit(0);
            }
            peer->in_size += (size_t)size;
            relay_messages(peers, i);
        }
        for (unsigned i = 0; i <= WORKERS; i++) {
            bench_write_all(fds[i].fd, peers[i].out, peers[i].out_size);
            peers[i].out_size = 0;
        }
    }
    _exit(1);
}

static void measure_pipelined(int fd, size_t count)
{
    static char data[BUFFER_BYTES];
    size_t sent = 0;
    size_t bytes = 0;
    uint64_t begin_ns = bench_now_ns();
    while (bytes < count * MESSAGE_BYTES) {
        size_t room = WINDOW - (sent - bytes / MESSAGE_BYTES);
        size_t next = room < count - sent ? room : count - sent;
        if (next > 0 && room >= WINDOW / 2) {
            bench_write_all(fd, data, next * MESSAGE_BYTES);
            sent += next;
        }
        ssize_t size = read(fd, data, sizeof(data));
        if (size <= 0) {
            bench_die("relay");
        }
        bytes += (size_t)size;
    }
    bench_print_rate("relay_pipelined", (double)count, (double)(bench_now_ns() - begin_ns) / 1e9);
}

static void measure_relay(size_t count)
{
    uint16_t port = 0;
    pid_t children[WORKERS + 1];
    int listener = bench_listen(&port);
    children[WORKERS] = bench_fork();
    if (children[WORKERS] == 0) {
        relay(listener);
    }
    (void)close(listener);
    for (unsigned i = 0; i < WORKERS; i++) {
        int fd = bench_connect(port); /* in order: the client's is the last */
        children[i] = bench_fork();
        if (children[i] == 0) {
            echo_for_ever(fd, fd);
        }
        (void)close(fd);
    }
    int client = bench_connect(port);
    measure_trips("relay_single", client, client, count);
    measure_pipelined(client, count * 50);
    for (unsigned i = 0; i <= WORKERS; i++) {
        bench_end_child(children[i]);
    }
}

int main(int argc, char **argv)
{
    size_t count = argc > 1 ? bench_number(argv[1]) : 20000;
    if (argc > 2 || count == 0) {
        (void)fprintf(stderr, "usage: limit_trip [COUNT]\n");
        return 2;
    }
    bench_limit_time(300);
    measure_direct(count);
    measure_relay(count);
    return 0;
}
