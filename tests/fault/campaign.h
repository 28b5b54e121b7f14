/* SPDX-License-Identifier: BSD-2-Clause */
/* A campaign: many cases of one kind, shared out over processes. */
#ifndef HP_TESTS_FAULT_CAMPAIGN_H
#define HP_TESTS_FAULT_CAMPAIGN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CAMPAIGN_JOBS_MAX 16
#define SPEC_BYTES 120

struct tally {
    uint64_t cases;
    uint64_t places;  /* images: boundaries; points: calls */
    uint64_t noticed; /* cases in which something was refused with an error */
    uint64_t failures;
};

/* In memory that all processes of it see. */
struct campaign_shared {
    pid_t pids[CAMPAIGN_JOBS_MAX];
    struct tally tallies[CAMPAIGN_JOBS_MAX];
    char at[CAMPAIGN_JOBS_MAX][SPEC_BYTES]; /* the case under way */
};

struct campaign;
struct campaign_kind {
    const char *name;
    /* Does every jobs-th case, from number `share` on. */
    void (*run)(struct campaign *campaign, struct tally *tally);
};
extern const struct campaign_kind campaign_images, campaign_points, campaign_damage;

struct campaign {
    const struct campaign_kind *kind;
    uint64_t seed;
    uint32_t steps; /* 0: the kind's own */
    uint32_t every; /* images, points: only every so many places */
    uint64_t count; /* 0: all that there are, or until the time is over */
    double end_s;   /* 0: no end */
    uint32_t jobs, share;
    const char *one; /* the one case to do, as it was reported: KIND:SEED:STEPS:... */
    struct campaign_shared *shared;
    char dir[300]; /* of this process, empty */
};

bool campaign_is_over(const struct campaign *campaign, const struct tally *tally);
/* Notes the case that is done now. */
void campaign_at(struct campaign *campaign, const char *spec);
void campaign_failed(struct campaign *campaign, const char *why);

#endif
