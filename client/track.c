/* SPDX-License-Identifier: BSD-2-Clause */
/* The runs of outstanding ids: see track.h for the invariants. */
#include "client/track.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

/* Below this many dead runs compacting is not worth it. */
#define DEAD_COUNT_MIN 32u

void hp_track_init(struct hp_track *track)
{
    memset(track, 0, sizeof(*track));
}

static void run_release(struct hp_run *run)
{
    hp_free(run->ended);
    hp_free(run->many);
    run->ended = NULL;
    run->many = NULL;
    run->piece_count = 0;
    run->check = HP_CHECK_NONE;
}

void hp_track_deinit(struct hp_track *track)
{
    for (size_t i = 0; i < track->count; i++) {
        run_release(&track->runs[i]);
    }
    hp_free(track->runs);
    hp_track_init(track);
}

static const struct hp_piece *run_pieces(const struct hp_run *run)
{
    return run->many != NULL ? run->many : &run->one;
}

static bool any_sink(const struct hp_piece *pieces, uint32_t piece_count)
{
    for (uint32_t i = 0; i < piece_count; i++) {
        if (pieces[i].sink != NULL) {
            return true;
        }
    }
    return false;
}

static bool run_is_ended(const struct hp_run *run, uint32_t index)
{
    return run->ended != NULL && (run->ended[index / 64] >> (index % 64) & 1) != 0;
}

/* Index of the last run with first <= id; count if there is none. */
static size_t find_floor(const struct hp_track *track, uint64_t id)
{
    size_t low = 0;
    size_t high = track->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (track->runs[middle].first <= id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == 0 ? track->count : low - 1;
}

static bool run_holds(const struct hp_run *run, uint64_t id)
{
    return run->left > 0 && id >= run->first && id - run->first < run->count &&
           !run_is_ended(run, (uint32_t)(id - run->first));
}

/* The run in which `id` has not ended, or NULL. */
static struct hp_run *find_run(struct hp_track *track, uint64_t id)
{
    size_t index;

    if (track->recent < track->count && run_holds(&track->runs[track->recent], id)) {
        return &track->runs[track->recent];
    }
    index = find_floor(track, id);
    while (index < track->count && track->runs[index].first + track->count_max > id) {
        if (run_holds(&track->runs[index], id)) {
            track->recent = index;
            return &track->runs[index];
        }
        if (!track->overlap || index == 0) {
            return NULL;
        }
        index--;
    }
    return NULL;
}

static void owner_of(const struct hp_run *run, uint32_t index, struct hp_owner *ret_owner)
{
    const struct hp_piece *pieces = run_pieces(run);
    uint32_t low = 0;
    uint32_t high = run->piece_count - 1;

    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;

        if (pieces[middle].offset <= index) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    index -= pieces[low].offset;
    HP_ASSERT(index < pieces[low].count);
    ret_owner->request = pieces[low].request + (pieces[low].single ? index : 0);
    ret_owner->index = pieces[low].single ? 0 : pieces[low].index + index;
    ret_owner->user = pieces[low].user;
    ret_owner->sink = pieces[low].sink;
}

/* Only the bitmap can fail; made here and not at the first end, so that ending never fails. */
static enum hp_err run_make(struct hp_run *run, struct hp_ids ids, const struct hp_piece *pieces,
                            uint32_t piece_count, enum hp_check check)
{
    memset(run, 0, sizeof(*run));
    run->first = ids.first;
    run->count = ids.count;
    run->left = ids.count;
    run->check = check;
    run->piece_count = piece_count;
    run->has_sink = any_sink(pieces, piece_count);
    run->one = pieces[0];
    if (piece_count > 1) {
        run->many = hp_memdup(pieces, piece_count * sizeof(*pieces));
        if (run->many == NULL) {
            return HP_ERR_NOMEM;
        }
    }
    if (ids.count > 1) {
        run->ended = hp_calloc((ids.count + 63) / 64, sizeof(*run->ended));
        if (run->ended == NULL) {
            hp_free(run->many);
            return HP_ERR_NOMEM;
        }
    }
    return HP_OK;
}

static enum hp_err make_room(struct hp_track *track)
{
    struct hp_run *runs;
    size_t capacity;

    if (track->count < track->capacity) {
        return HP_OK;
    }
    capacity = track->capacity == 0 ? 64 : track->capacity * 2;
    runs = hp_realloc_array(track->runs, capacity, sizeof(*runs));
    if (runs == NULL) {
        return HP_ERR_NOMEM;
    }
    track->runs = runs;
    track->capacity = capacity;
    return HP_OK;
}

static void compact(struct hp_track *track)
{
    size_t kept = 0;

    for (size_t i = 0; i < track->count; i++) {
        if (track->runs[i].left > 0) {
            track->runs[kept++] = track->runs[i];
        }
    }
    track->count = kept;
    track->dead_count = 0;
    track->recent = 0;
    if (kept == 0) {
        track->overlap = false;
        track->count_max = 0;
    }
}

static void mark_ended(struct hp_track *track, struct hp_run *run, uint32_t index)
{
    HP_ASSERT(run->left > 0); /* I2 */
    if (run->ended != NULL) {
        run->ended[index / 64] |= UINT64_C(1) << (index % 64);
    }
    run->left--;
    track->left--;
    if (run->has_sink) {
        track->sink_left--;
    }
    if (run->left == 0) {
        run_release(run);
        track->dead_count++;
    }
}

/* Called where no pointer to a run is held. */
static void compact_if_worth(struct hp_track *track)
{
    if (track->dead_count == track->count ||
        (track->dead_count >= DEAD_COUNT_MIN && track->dead_count * 2 > track->count)) {
        compact(track);
    }
}

enum hp_err hp_track_add(struct hp_track *track, struct hp_ids ids, const struct hp_piece *pieces,
                         uint32_t piece_count, enum hp_check check)
{
    struct hp_run run;
    size_t at;

    HP_ASSERT(ids.count > 0 && piece_count > 0);
    if (make_room(track) != HP_OK || run_make(&run, ids, pieces, piece_count, check) != HP_OK) {
        return HP_ERR_NOMEM;
    }
    at = find_floor(track, ids.first);
    at = at == track->count ? 0 : at + 1;
    /* As long as runs are disjoint only the neighbours can share ids with the new one. */
    if ((at > 0 && track->runs[at - 1].first + track->runs[at - 1].count > ids.first) ||
        (at < track->count && ids.first + ids.count > track->runs[at].first)) {
        track->overlap = true;
    }
    memmove(&track->runs[at + 1], &track->runs[at], (track->count - at) * sizeof(run));
    track->runs[at] = run;
    track->count++;
    track->count_max = ids.count > track->count_max ? ids.count : track->count_max;
    track->left += ids.count;
    track->sink_left += run.has_sink ? ids.count : 0;
    track->recent = at;
    track->check_wanted = track->check_wanted || check == HP_CHECK_WANTED;
    for (uint32_t i = 0; i < piece_count; i++) {
        for (uint32_t j = 0; pieces[i].untracked && j < pieces[i].count; j++) {
            mark_ended(track, &track->runs[at], pieces[i].offset + j);
        }
    }
    compact_if_worth(track);
    return HP_OK;
}

bool hp_track_find(struct hp_track *track, uint64_t id, struct hp_owner *ret_owner)
{
    struct hp_run *run = find_run(track, id);

    if (run == NULL) {
        return false;
    }
    owner_of(run, (uint32_t)(id - run->first), ret_owner);
    return true;
}

bool hp_track_end(struct hp_track *track, uint64_t id, struct hp_owner *ret_owner)
{
    struct hp_run *run = find_run(track, id);

    if (run == NULL) {
        return false;
    }
    owner_of(run, (uint32_t)(id - run->first), ret_owner);
    mark_ended(track, run, (uint32_t)(id - run->first));
    compact_if_worth(track);
    return true;
}

static bool piece_matches(const struct hp_piece *piece, uint64_t request,
                          const struct hp_sink *sink)
{
    if (sink != NULL) {
        return piece->sink == sink;
    }
    return piece->single ? request >= piece->request && request - piece->request < piece->count
                         : request == piece->request;
}

static void run_forget(struct hp_track *track, struct hp_run *run, uint64_t request,
                       const struct hp_sink *sink)
{
    for (uint32_t i = 0; run->left > 0 && i < run->piece_count; i++) {
        struct hp_piece piece = run_pieces(run)[i]; /* a copy: the run may die below */
        bool part = piece.single && sink == NULL;
        uint32_t from = part ? (uint32_t)(request - piece.request) : 0;
        uint32_t until = part ? from + 1 : piece.count;

        if (!piece_matches(&piece, request, sink)) {
            continue;
        }
        for (uint32_t j = from; run->left > 0 && j < until; j++) {
            if (!run_is_ended(run, piece.offset + j)) {
                mark_ended(track, run, piece.offset + j);
            }
        }
    }
}

void hp_track_forget(struct hp_track *track, uint64_t request, const struct hp_sink *sink)
{
    for (size_t i = 0; i < track->count; i++) {
        if (track->runs[i].left > 0) {
            run_forget(track, &track->runs[i], request, sink);
        }
    }
    compact_if_worth(track);
}

void hp_track_want_check(struct hp_track *track)
{
    track->check_wanted = track->left > 0;
    for (size_t i = 0; i < track->count; i++) {
        if (track->runs[i].left > 0) {
            track->runs[i].check = HP_CHECK_WANTED;
        }
    }
}

bool hp_track_check_wanted(const struct hp_track *track)
{
    return track->check_wanted;
}

void hp_track_check_begin(struct hp_track *track)
{
    for (size_t i = 0; i < track->count; i++) {
        if (track->runs[i].check == HP_CHECK_WANTED) {
            track->runs[i].check = HP_CHECK_RUNNING;
        }
    }
    track->check_wanted = false;
}

void hp_track_check_end(struct hp_track *track)
{
    for (size_t i = 0; i < track->count; i++) {
        if (track->runs[i].check == HP_CHECK_RUNNING) {
            track->runs[i].check = HP_CHECK_NONE;
        }
    }
}

/* First consecutive ids that have not ended, from index on. */
static bool run_next(const struct hp_run *run, uint32_t index, uint32_t count_max,
                     struct hp_ids *ret_ids)
{
    uint32_t end;

    while (index < run->count && run_is_ended(run, index)) {
        index++;
    }
    end = index;
    while (end < run->count && end - index < count_max && !run_is_ended(run, end)) {
        end++;
    }
    if (end == index) {
        return false;
    }
    *ret_ids = (struct hp_ids){.first = run->first + index, .count = end - index};
    return true;
}

bool hp_track_check_next(const struct hp_track *track, uint64_t from, uint32_t count_max,
                         struct hp_ids *ret_ids)
{
    size_t i = find_floor(track, from);
    bool found = false;

    /* Runs that begin before `from` may reach beyond it; with overlap any of those may. */
    while (track->overlap && i < track->count && i > 0 &&
           track->runs[i - 1].first + track->count_max > from) {
        i--;
    }
    for (i = i == track->count ? 0 : i; i < track->count; i++) {
        const struct hp_run *run = &track->runs[i];
        uint64_t skip = from > run->first ? from - run->first : 0;
        struct hp_ids ids;

        if (found && (!track->overlap || run->first > ret_ids->first)) {
            break;
        }
        if (run->left > 0 && run->check == HP_CHECK_RUNNING && skip < run->count &&
            run_next(run, (uint32_t)skip, count_max, &ids) &&
            (!found || ids.first < ret_ids->first)) {
            *ret_ids = ids;
            found = true;
        }
    }
    return found;
}

bool hp_track_sink_next(const struct hp_track *track, const struct hp_sink *sink, uint64_t from,
                        struct hp_ids *ret_ids)
{
    for (size_t i = 0; i < track->count; i++) {
        const struct hp_run *run = &track->runs[i];
        uint64_t skip = from > run->first ? from - run->first : 0;

        for (uint32_t j = 0; run->left > 0 && skip < run->count && j < run->piece_count; j++) {
            const struct hp_piece *piece = &run_pieces(run)[j];
            uint32_t index = piece->offset > skip ? piece->offset : (uint32_t)skip;

            if (piece->sink == sink && index < piece->offset + piece->count &&
                run_next(run, index, piece->offset + piece->count - index, ret_ids) &&
                ret_ids->first - run->first < piece->offset + piece->count) {
                return true;
            }
        }
    }
    return false;
}
