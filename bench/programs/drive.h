/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The load that bench/ puts on a hostpool broker through libhostpool. drive.c reads the arguments,
 * drive_task.c makes the tasks and checks their results, drive_async.c and drive_block.c have the
 * modes.
 */
#ifndef BENCH_DRIVE_H
#define BENCH_DRIVE_H

#include <hostpool.h>

/* What a task is, and so what its right result is. */
enum drive_work {
    DRIVE_ECHO,    /* the payload comes back */
    DRIVE_NOOP,    /* an empty result */
    DRIVE_SQUARE,  /* the square of the task's index */
    DRIVE_SLEEP,   /* sleeps one millisecond; an empty result */
    DRIVE_COMMAND, /* the program `true`: exit code 0 */
    DRIVE_MIXED,   /* queues, priorities, delays, retries and failures, see drive_task.c */
};

struct drive {
    struct hp_client *client;
    struct hp_client_options client_options;
    struct hp_options options;
    enum drive_work work;
    uint64_t count;
    size_t bytes;    /* of a payload */
    uint64_t window; /* tasks outstanding at most */
    uint32_t chunk;  /* stream: inputs in one task */
    double seconds;  /* sustained: how long */
    bool forgets;    /* gives each result back when it has read it */
    unsigned char *payload;
    unsigned char *seen; /* one byte for each task: ends that came */
    uint64_t submitted;
    uint64_t acked;
    uint64_t ended;
    uint64_t wrong;
};

/* Ends the program with what the client says. */
_Noreturn void drive_die(const struct drive *drive, const char *what);

/* Sets drive->options for the task, and its payload: lent until the next call. */
struct hp_bytes drive_make(struct drive *drive, uint64_t index);
/* Is this the right end of the task? */
bool drive_is_right(struct drive *drive, uint64_t index, const struct hp_task *task,
                    struct hp_bytes result);

/* Modes: each prints its figures. */
void drive_pipelined(struct drive *drive);
void drive_single(struct drive *drive);
void drive_sustained(struct drive *drive);
void drive_submit(struct drive *drive);
void drive_sync(struct drive *drive);
void drive_map(struct drive *drive);
void drive_pool_map(struct drive *drive);
void drive_stream(struct drive *drive);

#endif
