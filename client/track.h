/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tasks whose end somebody waits for, as runs of consecutive ids with one bit per task, so that
 * a million of them cost kilobytes.
 *
 * I1: runs are sorted by first id. I2: left = ids of the run that have not ended; a run with left 0
 * is dead: it owns no memory and stays until the table is compacted. I3: without `overlap` no two
 * runs share an id.
 */
#ifndef HP_CLIENT_TRACK_H
#define HP_CLIENT_TRACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/engine.h"
#include "common/base/err.h"

/* Tasks of one call, or single-task calls in a row, that share a submit message. */
struct hp_piece {
    uint64_t request; /* of the first task */
    void *user;
    struct hp_sink *sink;
    uint64_t index;  /* of the first task in its call */
    uint32_t count;  /* tasks */
    uint32_t offset; /* of the first task in its message or run; kept by whoever holds the pieces */
    bool single;     /* each task is a call of its own: request, request + 1, ... */
    bool untracked;
};

/* Check marks: whether the broker must be asked about a run's tasks. */
enum hp_check {
    HP_CHECK_NONE,
    HP_CHECK_WANTED,
    HP_CHECK_RUNNING, /* in the pass that is under way */
};

struct hp_run {
    uint64_t first;
    uint32_t count;
    uint32_t left;
    uint64_t *ended;       /* bitmap; NULL: none has ended */
    struct hp_piece one;   /* if piece_count is 1 */
    struct hp_piece *many; /* else these */
    uint32_t piece_count;
    bool has_sink;
    enum hp_check check;
};

struct hp_track {
    struct hp_run *runs;
    size_t count;
    size_t capacity;
    size_t dead_count;
    size_t recent;      /* index of the run found last */
    uint32_t count_max; /* longest run, ever */
    bool overlap;
    bool check_wanted;  /* some run may be WANTED */
    uint64_t left;      /* ids that have not ended, all runs */
    uint64_t sink_left; /* those whose piece has a sink; counts whole runs with any sink piece */
};

/* Whose task an id is. */
struct hp_owner {
    uint64_t request;
    uint64_t index;
    void *user;
    struct hp_sink *sink;
};

void hp_track_init(struct hp_track *track);
void hp_track_deinit(struct hp_track *track);
/* Pieces (copied) must cover the ids; untracked ones count as ended. */
enum hp_err hp_track_add(struct hp_track *track, struct hp_ids ids, const struct hp_piece *pieces,
                         uint32_t piece_count, enum hp_check check) HP_MUST_CHECK;
/* The owner of an id that has not ended. */
bool hp_track_find(struct hp_track *track, uint64_t id, struct hp_owner *ret_owner);
/* The same, and it has ended now. With overlapping runs, call until it gives false. */
bool hp_track_end(struct hp_track *track, uint64_t id, struct hp_owner *ret_owner);
/* Drops all tasks of a request, or, if sink is not NULL, of that sink. */
void hp_track_forget(struct hp_track *track, uint64_t request, const struct hp_sink *sink);
/* Mark all runs WANTED. */
void hp_track_want_check(struct hp_track *track);
bool hp_track_check_wanted(const struct hp_track *track);
/* WANTED becomes RUNNING; RUNNING becomes NONE. */
void hp_track_check_begin(struct hp_track *track);
void hp_track_check_end(struct hp_track *track);
/* The first outstanding id that goes to this sink, and those behind it; false: none. */
bool hp_track_sink_next(const struct hp_track *track, const struct hp_sink *sink, uint64_t from,
                        struct hp_ids *ret_ids);
/* Next ids in RUNNING runs, from `from` on, at most count_max of them; false: no more. */
bool hp_track_check_next(const struct hp_track *track, uint64_t from, uint32_t count_max,
                         struct hp_ids *ret_ids);

#endif
