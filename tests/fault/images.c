/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Power cuts: a script is done once, with its journal; then, at every boundary of a write or a
 * sync, images of what the disk may hold are made, started from and compared. Of some the start
 * itself is watched and cut again.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fault/campaign.h"
#include "tests/fault/clock.h"
#include "tests/fault/crash.h"
#include "tests/fault/script.h"

#define STEPS 100u /* about 2,000 operations */
#define SECOND_EVERY 61u /* a prime: of every kind some */

/* Images made at each boundary. */
static const enum crash_kind plan[] = {CRASH_SYNCED, CRASH_ALL,  CRASH_FIRST,  CRASH_FIRST,
                                       CRASH_SOME,   CRASH_SOME, CRASH_SOME,   CRASH_TORN,
                                       CRASH_TORN,   CRASH_TORN, CRASH_SHREDS, CRASH_SHREDS};
#define PLANNED (sizeof(plan) / sizeof(plan[0]))

struct images {
    struct campaign *campaign;
    struct tally *tally;
    const struct subject *subject;
    void *script;
    char image[400];
    char again[400];
    uint64_t seed;
    uint32_t steps;
    uint32_t only_at, only_which; /* --one */
    bool is_one;
};

static bool is_boundary(const struct disk_entry *entry)
{
    return entry->event != DISK_DID_MARK;
}

/* The start from an image is watched, and cut at a random boundary of its own. */
static void cut_again(struct images *images, const struct crash *crash, enum crash_kind kind,
                      struct hp_rand *rand, uint64_t mark)
{
    char why[800];
    crash_image(crash, kind, rand, images->image);
    disk_watch(images->image);
    bool works = images->subject->verify(images->script, images->image, mark, false, why);
    struct disk_journal *journal = disk_unwatch();
    struct crash *second = crash_new(journal);
    uint32_t from = 0;
    /* What was there at the start comes first in the journal, and is whole. */
    while (from < journal->count &&
           !(journal->entries[from].event == DISK_DID_SYNC && journal->entries[from].node == 0)) {
        from++;
    }
    uint32_t to = from + 1 + (uint32_t)hp_rand_uniform(rand, (journal->count - from) / 2 + 1);
    (void)crash_to(second, to < journal->count ? to : journal->count);
    crash_image(second, hp_rand_uniform(rand, 2) == 0 ? CRASH_SYNCED : CRASH_SHREDS, rand,
                images->again);
    works = works && images->subject->verify(images->script, images->again, mark, true, why);
    if (!works) {
        campaign_failed(images->campaign, why);
    }
    images->tally->cases++;
    crash_free(second);
    disk_journal_free(journal);
}

static void one_image(struct images *images, const struct crash *crash, uint32_t at, uint32_t which,
                      uint64_t mark)
{
    char spec[SPEC_BYTES];
    char why[800];
    struct hp_rand rand;
    (void)snprintf(spec, sizeof(spec), "images:%s:%" PRIu64 ":%u:%u:%u", images->subject->name,
                   images->seed, images->steps, at, which);
    campaign_at(images->campaign, spec);
    hp_rand_init(&rand, images->seed * 1000003 + (uint64_t)at * 64 + which);
    fault_clock_set(UINT64_C(1) << 40);
    if ((at * PLANNED + which) % SECOND_EVERY == 0) {
        cut_again(images, crash, plan[which], &rand, mark);
        hp_rand_init(&rand, images->seed * 1000003 + (uint64_t)at * 64 + which);
    }
    crash_image(crash, plan[which], &rand, images->image);
    if (!images->subject->verify(images->script, images->image, mark, true, why)) {
        char text[900];
        (void)snprintf(text, sizeof(text), "%s image: %s", crash_kind_names[plan[which]], why);
        campaign_failed(images->campaign, text);
    }
    images->tally->cases++;
}

static void at_boundary(struct images *images, const struct crash *crash, uint32_t at,
                        uint64_t mark)
{
    images->tally->places++;
    for (uint32_t which = 0; which < PLANNED; which++) {
        if (images->is_one ? which == images->only_which : which == 0 || crash_loose(crash) > 0) {
            one_image(images, crash, at, which, mark);
        }
        if (images->tally->failures > 20) {
            return;
        }
    }
}

static void walk(struct images *images, const struct disk_journal *journal)
{
    struct crash *crash = crash_new(journal);
    uint32_t stride = images->campaign->jobs * images->campaign->every;
    for (uint32_t at = 0; at < journal->count && images->tally->failures <= 20; at++) {
        uint64_t mark = crash_to(crash, at + 1);
        bool is_mine =
            images->is_one ? at == images->only_at : at % stride == images->campaign->share;
        if (is_mine && is_boundary(&journal->entries[at])) {
            at_boundary(images, crash, at, mark);
        }
        if (campaign_is_over(images->campaign, images->tally)) {
            break;
        }
    }
    crash_free(crash);
}

static void run_script(struct images *images)
{
    struct script_result result;
    char dir[400];
    (void)snprintf(dir, sizeof(dir), "%s/script", images->campaign->dir);
    (void)mkdir(dir, 0700);
    crash_clear_folder(dir);
    images->script = images->subject->make(images->seed, images->steps);
    fault_clock_set(1000000);
    disk_watch(dir);
    images->subject->run(images->script, dir, NULL, NULL, &result);
    struct disk_journal *journal = disk_unwatch();
    if (result.end != SCRIPT_THROUGH) {
        campaign_failed(images->campaign, result.text);
    } else {
        if (images->campaign->share == 0) {
            (void)printf("%s, seed %" PRIu64 ": %u steps, %" PRIu64 " operations, %u boundaries\n",
                         images->subject->name, images->seed, images->steps,
                         images->subject->ops(images->script), journal->count);
        }
        walk(images, journal);
    }
    disk_journal_free(journal);
    images->subject->free(images->script);
}

static void parse_one(struct images *images)
{
    char name[16] = "";
    images->is_one =
        images->campaign->one != NULL &&
        sscanf(images->campaign->one, "images:%15[a-z]:%" SCNu64 ":%u:%u:%u", name, &images->seed,
               &images->steps, &images->only_at, &images->only_which) == 5;
    images->subject = strcmp(name, "spool") == 0 ? &subject_spool : &subject_store;
}

static void run_images(struct campaign *campaign, struct tally *tally)
{
    struct images images = {.campaign = campaign,
                            .tally = tally,
                            .seed = campaign->seed,
                            .steps = campaign->steps > 0 ? campaign->steps : STEPS};
    (void)snprintf(images.image, sizeof(images.image), "%s/image", campaign->dir);
    (void)snprintf(images.again, sizeof(images.again), "%s/again", campaign->dir);
    (void)mkdir(images.image, 0700);
    (void)mkdir(images.again, 0700);
    parse_one(&images);
    do {
        run_script(&images);
        if (!images.is_one) {
            images.subject = &subject_spool;
            run_script(&images);
            images.subject = &subject_store;
        }
        images.seed++;
    } while (!images.is_one && tally->failures == 0 &&
             (campaign->count > 0 || campaign->end_s > 0) && !campaign_is_over(campaign, tally));
}

const struct campaign_kind campaign_images = {.name = "images", .run = run_images};
