/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many short function tasks through libhostpool; every result is checked. For tests; the loads that
 * are measured are those of bench/programs/drive.c.
 *
 *   noops HOST MODE COUNT [FUNCTION [QUEUE]]
 *
 * MODE pipelined: one hp_submit_async for each task, as many outstanding as the window holds;
 *      single:    the next task when the result of the last one is here (prints p50 and p99 as
 * well); submit:    acknowledgements only, one task for each submit, pipelined; groups:
 * acknowledgements only, hp_submit_many of 250. FUNCTION noop (default), or square: the result of
 * task i must be i * i. Prints one line: "tasks N seconds S per_second R ..." and exits 0 if every
 * answer was right.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <hostpool.h>

#define GROUP 250u
#define OUTSTANDING_MAX 20000u

struct noops {
    struct hp_client *client;
    struct hp_options options;
    bool is_square;
    bool is_alone; /* what is submitted is sent before more of it can share its message */
    uint64_t count;
    uint64_t submitted;
    uint64_t acked;
    uint64_t ended;
    uint64_t wrong;
    unsigned char *seen; /* one byte for each task: ends that came */
};

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void die(const struct noops *noops, const char *what)
{
    (void)fprintf(stderr, "noops: %s: %s\n", what,
                  noops->client != NULL ? hp_client_error(noops->client) : "");
    exit(1);
}

/* A MessagePack array of one unsigned integer, in its longest form. */
static struct hp_bytes make_payload(const struct noops *noops, unsigned char room[10],
                                    uint64_t value)
{
    if (!noops->is_square) {
        return (struct hp_bytes){.data = NULL, .size = 0};
    }
    room[0] = 0x91;
    room[1] = 0xcf;
    for (unsigned i = 0; i < 8; i++) {
        room[2 + i] = (unsigned char)(value >> (56 - 8 * i));
    }
    return (struct hp_bytes){.data = room, .size = 10};
}

/* The unsigned integer that a MessagePack value is, of any size; UINT64_MAX if it is none. */
static uint64_t read_uint(struct hp_bytes bytes)
{
    const unsigned char *data = bytes.data;
    if (bytes.size == 1 && data[0] < 0x80) {
        return data[0];
    }
    if (bytes.size < 2 || data[0] < 0xcc || data[0] > 0xd3) {
        return UINT64_MAX;
    }
    uint64_t value = 0;
    for (size_t i = 1; i < bytes.size; i++) {
        value = value << 8 | data[i];
    }
    return value;
}

static bool is_right(const struct noops *noops, uint64_t index, const struct hp_task *task)
{
    if (task->state != HP_STATE_DONE || task->end == NULL) {
        return false;
    }
    struct hp_bytes result = task->end->result;
    return noops->is_square ? read_uint(result) == index * index : result.size == 0;
}

static void take(struct noops *noops, const struct hp_event *event)
{
    uint64_t index = (uint64_t)(uintptr_t)event->user + event->index;
    if (event->kind == HP_EVENT_SUBMITTED) {
        noops->acked += event->ids.count;
    } else if (event->kind == HP_EVENT_SUBMIT_FAILED) {
        die(noops, event->text != NULL ? event->text : "a submit failed");
    } else if (event->kind == HP_EVENT_ENDED) {
        noops->ended++;
        if (index >= noops->count || noops->seen[index]++ != 0 ||
            !is_right(noops, index, event->task)) {
            noops->wrong++;
        }
    }
}

static void wait_io(struct noops *noops)
{
    struct pollfd poll_fd = {.fd = hp_client_fd(noops->client)};
    unsigned wants = hp_client_wants(noops->client);
    poll_fd.events =
        (short)((wants & HP_IO_READ ? POLLIN : 0) | (wants & HP_IO_WRITE ? POLLOUT : 0));
    int found = poll(&poll_fd, 1, hp_client_timeout_ms(noops->client));
    unsigned ready = found <= 0 ? 0
                                : (poll_fd.revents & ~POLLOUT ? HP_IO_READ : 0u) |
                                      (poll_fd.revents & POLLOUT ? HP_IO_WRITE : 0u);
    if (hp_client_process(noops->client, ready) != HP_STATUS_OK) {
        die(noops, "process");
    }
}

static bool submit_next(struct noops *noops)
{
    unsigned char room[10];
    struct hp_bytes payload = make_payload(noops, room, noops->submitted);
    enum hp_status status = hp_submit_async(noops->client, &noops->options, &payload, 1,
                                            (void *)(uintptr_t)noops->submitted, NULL);
    if (status == HP_STATUS_AGAIN) {
        return false;
    }
    if (status != HP_STATUS_OK) {
        die(noops, "submit");
    }
    noops->submitted++;
    if (noops->is_alone && hp_client_process(noops->client, 0) != HP_STATUS_OK) {
        die(noops, "process");
    }
    return true;
}

/* At most `window` tasks outstanding, until `count` have ended (or are acknowledged). */
static void run_async(struct noops *noops, uint64_t window, bool only_acked)
{
    while ((only_acked ? noops->acked : noops->ended) < noops->count) {
        struct hp_event event;
        while (hp_client_next_event(noops->client, &event)) {
            take(noops, &event);
        }
        uint64_t done = only_acked ? noops->acked : noops->ended;
        while (noops->submitted < noops->count && noops->submitted - done < window &&
               submit_next(noops)) {
            /* until the window is full */
        }
        if (done < noops->count) {
            wait_io(noops);
        }
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void run_single(struct noops *noops)
{
    uint64_t *times_ns = calloc(noops->count, sizeof(*times_ns));
    if (times_ns == NULL) {
        die(noops, "memory");
    }
    uint64_t total = noops->count;
    for (uint64_t i = 0; i < total; i++) {
        uint64_t start_ns = now_ns();
        noops->count = i + 1;
        run_async(noops, 1, false);
        times_ns[i] = now_ns() - start_ns;
    }
    noops->count = total;
    qsort(times_ns, total, sizeof(*times_ns), compare);
    (void)printf("p50_us %llu p99_us %llu ", (unsigned long long)times_ns[total / 2] / 1000,
                 (unsigned long long)times_ns[total * 99 / 100] / 1000);
    free(times_ns);
}

static void run_groups(struct noops *noops)
{
    struct hp_bytes payloads[GROUP];
    unsigned char room[GROUP][10];
    while (noops->acked < noops->count) {
        uint64_t left = noops->count - noops->acked;
        uint32_t count = left < GROUP ? (uint32_t)left : GROUP;
        struct hp_id_list ids = {0};
        for (uint32_t i = 0; i < count; i++) {
            payloads[i] = make_payload(noops, room[i], noops->acked + i);
        }
        if (hp_submit_many(noops->client, &noops->options, payloads, count, HP_TIMEOUT_DEFAULT,
                           &ids) != HP_STATUS_OK ||
            ids.total != count) {
            die(noops, "submit_many");
        }
        noops->acked += count;
        hp_id_list_clear(&ids);
    }
}

static bool wants_ends(const char *mode)
{
    return strcmp(mode, "pipelined") == 0 || strcmp(mode, "single") == 0;
}

static void run(struct noops *noops, const char *mode)
{
    uint64_t start_ns = now_ns();
    if (strcmp(mode, "single") == 0) {
        run_single(noops);
    } else if (strcmp(mode, "groups") == 0) {
        run_groups(noops);
    } else {
        run_async(noops, OUTSTANDING_MAX, !wants_ends(mode));
    }
    double seconds = (double)(now_ns() - start_ns) / 1e9;
    (void)printf("tasks %llu seconds %.3f per_second %.0f wrong %llu\n",
                 (unsigned long long)noops->count, seconds, (double)noops->count / seconds,
                 (unsigned long long)noops->wrong);
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc > 6) {
        (void)fprintf(stderr, "usage: noops HOST MODE COUNT [FUNCTION [QUEUE]]\n");
        return 2;
    }
    struct noops noops = {.count = strtoull(argv[3], NULL, 10)};
    struct hp_client_options client_options;
    hp_client_options_init(&client_options);
    client_options.host = argv[1];
    client_options.name = "noops";
    client_options.events = wants_ends(argv[2]);
    client_options.window_submits = 256;
    noops.is_alone = strcmp(argv[2], "alone") == 0;
    hp_options_init(&noops.options);
    noops.options.fn = argc > 4 ? argv[4] : "noop";
    noops.options.queue = argc > 5 ? argv[5] : NULL;
    noops.is_square = strcmp(noops.options.fn, "square") == 0;
    noops.seen = calloc(noops.count + 1, 1);
    if (noops.seen == NULL || noops.count == 0) {
        die(&noops, "count");
    }
    if (hp_connect(&client_options, HP_TIMEOUT_DEFAULT, &noops.client) != HP_STATUS_OK) {
        die(&noops, "connect");
    }
    run(&noops, argv[2]);
    hp_close(noops.client);
    free(noops.seen);
    return noops.wrong == 0 ? 0 : 1;
}
