/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loads for servers of other projects:
 *
 *   peer SERVER MODE PORT COUNT BYTES [FETCH [WINDOW]]
 *
 * SERVER beanstalkd, gearmand or redis. MODE pipelined: up to WINDOW tasks outstanding, two workers
 * of one process each echo them, and all results are back; single: one task at a time; submit:
 * acknowledgements only, pipelined; sync: acknowledgements, one at a time. FETCH: tasks that a
 * worker takes at a time.
 */
#include "bench/programs/peer.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/programs/common.h"

#define WORKERS 2u
#define SECONDS_MAX 290u

struct load {
    const struct peer_protocol *protocol;
    uint16_t port;
    uint64_t count;
    size_t size;
    unsigned fetch;
    uint64_t window;
    char *payload;
    struct peer_conn *submitter;
    struct peer_conn *collector; /* the submitter, where results come by themselves */
    uint64_t sent;
    uint64_t acked;
    uint64_t asked;
    uint64_t got;
};

static void work_for_ever(const struct load *load)
{
    struct peer_conn *conn = peer_open(load->protocol, load->port, PEER_WORKER, load->fetch);
    struct peer_message message;
    for (;;) {
        while (load->protocol->parse(conn, &message)) {
            load->protocol->work(conn, &message);
        }
        peer_flush(conn);
        peer_fill(conn);
    }
}

static void submit(struct load *load)
{
    load->protocol->submit(load->submitter, load->payload, load->size);
    load->sent++;
}

/* As many as the window holds, but not in dribs and drabs. */
static void submit_more(struct load *load, uint64_t done)
{
    uint64_t room = load->window - (load->sent - done);
    if (room <= load->window / 4 && room < load->window) {
        return;
    }
    for (; room > 0 && load->sent < load->count; room--) {
        submit(load);
    }
}

static void take(struct load *load, struct peer_conn *conn, const struct peer_message *message)
{
    if (message->kind == PEER_ACK && conn == load->submitter) {
        load->acked++;
    } else if (message->kind == PEER_JOB) {
        if (message->size != load->size) {
            bench_fail(load->protocol->name, "a result of another size");
        }
        load->got++;
        if (load->protocol->settle != NULL) {
            load->protocol->settle(conn, message);
        }
    }
}

static void take_all(struct load *load, struct peer_conn *conn)
{
    struct peer_message message;
    peer_fill(conn);
    while (load->protocol->parse(conn, &message)) {
        take(load, conn, &message);
    }
}

/* One question for each result; of those who fetch many, one question at a time. */
static void ask_more(struct load *load)
{
    if (load->protocol->has_results) {
        return;
    }
    if (load->fetch > 1) {
        if (load->collector->left == 0 && load->got >= load->asked) {
            load->protocol->ask(load->collector);
            load->asked = load->got + 1;
        }
        return;
    }
    for (; load->asked < load->sent; load->asked++) {
        load->protocol->ask(load->collector);
    }
}

static void run_pipelined(struct load *load)
{
    struct pollfd fds[2] = {{.fd = load->submitter->fd, .events = POLLIN},
                            {.fd = load->collector->fd, .events = POLLIN}};
    nfds_t fd_count = load->collector == load->submitter ? 1 : 2;
    while (load->got < load->count || load->acked < load->count) {
        submit_more(load, load->got < load->acked ? load->got : load->acked);
        ask_more(load);
        peer_flush(load->submitter);
        peer_flush(load->collector);
        if (poll(fds, fd_count, -1) < 0) {
            bench_die("poll");
        }
        if (fds[0].revents != 0) {
            take_all(load, load->submitter);
        }
        if (fd_count == 2 && fds[1].revents != 0) {
            take_all(load, load->collector);
        }
    }
}

static void run_submit(struct load *load)
{
    while (load->acked < load->count) {
        submit_more(load, load->acked);
        peer_flush(load->submitter);
        take_all(load, load->submitter);
    }
}

/* One submit: until its acknowledgement (sync), or its result and its acknowledgement. */
static uint64_t time_one(struct load *load, bool with_result)
{
    struct peer_message message;
    uint64_t goal = load->got + 1;
    uint64_t begin_ns = bench_now_ns();
    submit(load);
    if (with_result && !load->protocol->has_results) {
        load->protocol->ask(load->collector);
        peer_flush(load->collector);
    }
    peer_flush(load->submitter);
    while (with_result && load->got < goal) {
        peer_next(load->protocol, load->collector, &message);
        take(load, load->collector, &message);
    }
    uint64_t spent_ns = bench_now_ns() - begin_ns;
    while (load->acked < load->sent) {
        peer_next(load->protocol, load->submitter, &message);
        take(load, load->submitter, &message);
    }
    return with_result ? spent_ns : bench_now_ns() - begin_ns;
}

static void run_one_by_one(struct load *load, const char *mode, bool with_result)
{
    enum { WARM_UP = 100 };
    uint64_t *times_ns = bench_room(load->count, sizeof(*times_ns));
    for (int i = 0; i < WARM_UP; i++) {
        (void)time_one(load, with_result);
    }
    for (uint64_t i = 0; i < load->count; i++) {
        times_ns[i] = time_one(load, with_result);
    }
    bench_print_times(mode, times_ns, load->count);
    free(times_ns);
}

static void open_all(struct load *load, bool with_workers, pid_t *workers)
{
    for (unsigned i = 0; with_workers && i < WORKERS; i++) {
        workers[i] = bench_fork();
        if (workers[i] == 0) {
            work_for_ever(load);
        }
    }
    (void)usleep(with_workers ? 200000 : 0); /* until they have said what they do */
    load->submitter = peer_open(load->protocol, load->port, PEER_SUBMITTER, load->fetch);
    load->collector = with_workers && !load->protocol->has_results
                          ? peer_open(load->protocol, load->port, PEER_COLLECTOR, load->fetch)
                          : load->submitter;
}

static bool parse_arguments(struct load *load, int argc, char **argv)
{
    static const struct peer_protocol *const protocols[] = {&peer_beanstalkd, &peer_gearmand,
                                                            &peer_redis};
    if (argc < 6 || argc > 8) {
        return false;
    }
    for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++) {
        if (strcmp(argv[1], protocols[i]->name) == 0) {
            load->protocol = protocols[i];
        }
    }
    load->port = (uint16_t)bench_number(argv[3]);
    load->count = bench_number(argv[4]);
    load->size = bench_number(argv[5]);
    load->fetch = argc > 6 ? (unsigned)bench_number(argv[6]) : 1;
    load->window = argc > 7 ? bench_number(argv[7]) : 2000;
    load->payload = bench_room(1, load->size + 1);
    memset(load->payload, 'x', load->size);
    return load->protocol != NULL && load->count > 0;
}

int main(int argc, char **argv)
{
    struct load load = {0};
    pid_t workers[WORKERS];
    if (!parse_arguments(&load, argc, argv)) {
        (void)fprintf(stderr, "usage: peer SERVER MODE PORT COUNT BYTES [FETCH [WINDOW]]\n");
        return 2;
    }
    const char *mode = argv[2];
    bool is_single = strcmp(mode, "single") == 0;
    bool is_pipelined = strcmp(mode, "pipelined") == 0;
    bench_limit_time(SECONDS_MAX);
    open_all(&load, is_single || is_pipelined, workers);
    uint64_t begin_ns = bench_now_ns();
    if (is_single || strcmp(mode, "sync") == 0) {
        run_one_by_one(&load, mode, is_single);
    } else {
        (is_pipelined ? run_pipelined : run_submit)(&load);
        bench_print_rate(mode, (double)load.count, (double)(bench_now_ns() - begin_ns) / 1e9);
    }
    for (unsigned i = 0; (is_single || is_pipelined) && i < WORKERS; i++) {
        bench_end_child(workers[i]);
    }
    return 0;
}
