/* SPDX-License-Identifier: BSD-2-Clause */
/* Modes on the asynchronous layer of libhostpool: nothing blocks but poll. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/programs/common.h"
#include "bench/programs/drive.h"

#define FORGET_RUNS 512u

/* Ids whose results were read, in runs, until they are given back. */
static struct {
    struct hp_ids runs[FORGET_RUNS];
    size_t count;
} read_ids;

static void forget_read(struct drive *drive)
{
    if (read_ids.count > 0 &&
        hp_forget(drive->client, read_ids.runs, read_ids.count) != HP_STATUS_OK) {
        drive_die(drive, "forget");
    }
    read_ids.count = 0;
}

static void note_read(struct drive *drive, uint64_t id)
{
    struct hp_ids *last = read_ids.count > 0 ? &read_ids.runs[read_ids.count - 1] : NULL;
    if (last != NULL && last->first + last->count == id) {
        last->count++;
        return;
    }
    if (read_ids.count == FORGET_RUNS) {
        forget_read(drive);
    }
    read_ids.runs[read_ids.count++] = (struct hp_ids){.first = id, .count = 1};
}

static void take(struct drive *drive, const struct hp_event *event)
{
    uint64_t index = (uint64_t)(uintptr_t)event->user + event->index;
    if (event->kind == HP_EVENT_SUBMITTED) {
        drive->acked += event->ids.count;
    } else if (event->kind == HP_EVENT_SUBMIT_FAILED) {
        bench_fail("a submit failed", event->text != NULL ? event->text : "");
    } else if (event->kind == HP_EVENT_DISCONNECTED) {
        bench_fail("disconnected", event->text != NULL ? event->text : "");
    } else if (event->kind == HP_EVENT_ENDED) {
        const struct hp_task *task = event->task;
        struct hp_bytes result = {0};
        if (task->end != NULL) {
            result = task->end->result;
        }
        drive->ended++;
        if (index >= drive->count || drive->seen[index]++ != 0 ||
            !drive_is_right(drive, index, task, result)) {
            drive->wrong++;
        }
        if (drive->forgets) {
            note_read(drive, task->id);
        }
    }
}

static void take_all(struct drive *drive)
{
    struct hp_event event;
    while (hp_client_next_event(drive->client, &event)) {
        take(drive, &event);
    }
    forget_read(drive);
}

static void wait_io(struct drive *drive)
{
    struct pollfd fd = {.fd = hp_client_fd(drive->client)};
    unsigned wants = hp_client_wants(drive->client);
    fd.events = (short)((wants & HP_IO_READ ? POLLIN : 0) | (wants & HP_IO_WRITE ? POLLOUT : 0));
    unsigned ready = 0;
    if (poll(&fd, 1, hp_client_timeout_ms(drive->client)) > 0) {
        ready =
            (fd.revents & ~POLLOUT ? HP_IO_READ : 0u) | (fd.revents & POLLOUT ? HP_IO_WRITE : 0u);
    }
    if (hp_client_process(drive->client, ready) != HP_STATUS_OK) {
        drive_die(drive, "process");
    }
}

static bool submit_next(struct drive *drive)
{
    struct hp_bytes payload = drive_make(drive, drive->submitted);
    enum hp_status status = hp_submit_async(drive->client, &drive->options, &payload, 1,
                                            (void *)(uintptr_t)drive->submitted, NULL);
    if (status == HP_STATUS_AGAIN) {
        return false;
    }
    if (status != HP_STATUS_OK) {
        drive_die(drive, "submit");
    }
    drive->submitted++;
    return true;
}

/* Submits as far as the window and `last` allow, then waits for what comes. */
static void turn(struct drive *drive, const uint64_t *done, uint64_t last)
{
    take_all(drive);
    while (drive->submitted < last && drive->submitted - *done < drive->window &&
           submit_next(drive)) {
        /* until the window is full */
    }
    if (*done < last) {
        wait_io(drive);
    }
}

static double seconds_since(uint64_t begin_ns)
{
    return (double)(bench_now_ns() - begin_ns) / 1e9;
}

void drive_pipelined(struct drive *drive)
{
    uint64_t begin_ns = bench_now_ns();
    while (drive->ended < drive->count) {
        turn(drive, &drive->ended, drive->count);
    }
    bench_print_rate("pipelined", (double)drive->count, seconds_since(begin_ns));
}

void drive_single(struct drive *drive)
{
    const uint64_t warm_up = drive->count / 10 < 100 ? drive->count / 10 : 100;
    uint64_t *times_ns = bench_room(drive->count, sizeof(*times_ns));
    for (uint64_t i = 0; i < drive->count; i++) {
        uint64_t begin_ns = bench_now_ns();
        while (drive->ended <= i) {
            turn(drive, &drive->ended, i + 1);
        }
        times_ns[i] = bench_now_ns() - begin_ns;
    }
    bench_print_times("single", times_ns + warm_up, drive->count - warm_up);
    free(times_ns);
}

/* For some seconds, then until all is back. */
void drive_sustained(struct drive *drive)
{
    uint64_t begin_ns = bench_now_ns();
    while (seconds_since(begin_ns) < drive->seconds && drive->submitted < drive->count) {
        turn(drive, &drive->ended, drive->count);
    }
    uint64_t last = drive->submitted;
    while (drive->ended < last) {
        turn(drive, &drive->ended, last);
    }
    bench_print_rate("sustained", (double)last, seconds_since(begin_ns));
    while (hp_client_wants(drive->client) & HP_IO_WRITE) {
        wait_io(drive); /* the last hints */
    }
}

/* Acknowledgements only. The first and the last tenth tell whether depth costs anything. */
void drive_submit(struct drive *drive)
{
    uint64_t tenth = drive->count < 10 ? 1 : drive->count / 10;
    double first = 0;
    double last = 0;
    uint64_t begin_ns = bench_now_ns();
    while (drive->acked < drive->count) {
        uint64_t before = drive->acked;
        turn(drive, &drive->acked, drive->count);
        if (before < tenth && drive->acked >= tenth) {
            first = seconds_since(begin_ns) / (double)drive->acked * (double)tenth;
        }
        if (drive->acked < drive->count - tenth) {
            last = seconds_since(begin_ns);
        }
    }
    double all = seconds_since(begin_ns);
    bench_print_rate("submit", (double)drive->count, all);
    bench_print_rate("submit_first_tenth", (double)tenth, first);
    bench_print_rate("submit_last_tenth", (double)tenth, all - last);
}
