/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fault points: a script is done again and again, each time with another call failing, until one is
 * done in which nothing failed. Whatever happens, the store must say so by an error or go on, and
 * the disk must hold all that was acknowledged: as it is, and after a power cut at that moment.
 * Each run is a process of its own, since a store that has failed is not to be used again.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/macro.h"
#include "tests/fault/campaign.h"
#include "tests/fault/clock.h"
#include "tests/fault/crash.h"
#include "tests/fault/memory.h"
#include "tests/fault/script.h"

#define STEPS 40u
#define OF_SQLITE DISK_CALL_COUNT
#define OF_OWN ((uint32_t)DISK_CALL_COUNT + 1)

enum { RUN_GOOD = 0, RUN_BAD = 1, RUN_CLEAN = 3 };

/* What fails, how; own memory fails by (call, n), everything else by n. */
static const struct fault {
    uint32_t call;
    int number;
    bool lasting;
} faults[] = {
    {DISK_WRITE, EIO, false},   {DISK_WRITE, EIO, true},    {DISK_WRITE, ENOSPC, false},
    {DISK_WRITE, ENOSPC, true}, {DISK_WRITE, 0, false},     {DISK_WRITE, 0, true},
    {DISK_READ, EIO, false},    {DISK_READ, EIO, true},     {DISK_READ, 0, false},
    {DISK_SYNC, EIO, false},    {DISK_SYNC, EIO, true},     {DISK_SYNC, ENOSPC, false},
    {DISK_OPEN, EIO, false},    {DISK_OPEN, EMFILE, false}, {DISK_OPEN, EMFILE, true},
    {DISK_OPEN, ENOSPC, true},  {DISK_OPEN, ENFILE, false}, {DISK_TRUNCATE, EIO, false},
    {DISK_TRUNCATE, EIO, true}, {DISK_RENAME, EIO, false},  {DISK_RENAME, ENOSPC, true},
    {DISK_UNLINK, EIO, false},  {DISK_UNLINK, EIO, true},   {DISK_MKDIR, ENOSPC, false},
    {DISK_MKDIR, EIO, true},    {DISK_LINK, EIO, false},    {DISK_ALLOCATE, ENOSPC, false},
    {DISK_ALLOCATE, EIO, true}, {OF_SQLITE, ENOMEM, false}, {OF_SQLITE, ENOMEM, true},
    {OF_OWN, ENOMEM, false},    {OF_OWN, ENOMEM, true},
};

struct points {
    struct campaign *campaign;
    struct tally *tally;
    const struct subject *subject;
    void *script;
    uint64_t seed;
    uint32_t steps;
    char dir[400];
    char image[400];
};

struct point {
    uint32_t fault;
    uint64_t call; /* OF_OWN */
    uint64_t n;
};

static const char *name_of(const struct fault *fault)
{
    return fault->call == OF_SQLITE ? "memory of SQLite"
           : fault->call == OF_OWN  ? "memory"
                                    : disk_call_names[fault->call];
}

static void arm(const struct point *point)
{
    const struct fault *fault = &faults[point->fault];
    bool is_on = point->n > 0;
    disk_fail(fault->call < DISK_CALL_COUNT ? (enum disk_call)fault->call : DISK_OPEN,
              is_on && fault->call < DISK_CALL_COUNT ? point->n : 0, fault->number, fault->lasting);
    memory_fail_sqlite(is_on && fault->call == OF_SQLITE ? point->n : 0, fault->lasting);
    memory_fail_own(is_on && fault->call == OF_OWN ? point->call : 0, point->n, fault->lasting);
}

/* ------------------------------------------------------------------ one run, in its own process */
struct run_check {
    const struct points *points;
    bool is_bad;
    bool is_clean;
    bool was_refused;
    char why[900];
};

static void check_image(struct run_check *check, const struct crash *crash, enum crash_kind kind,
                        const struct script_result *result)
{
    char why[800];
    struct hp_rand rand;
    hp_rand_init(&rand, check->points->seed);
    crash_image(crash, kind, &rand, check->points->image);
    if (!check->is_bad &&
        !check->points->subject->verify(check->points->script, check->points->image, result->mark,
                                        true, why)) {
        check->is_bad = true;
        (void)snprintf(check->why, sizeof(check->why), "%s image: %s (the run: %.60s)",
                       crash_kind_names[kind], why, result->text);
    }
}

static void before_close(void *context, const struct script_result *result)
{
    struct run_check *check = context;
    check->is_clean = disk_failures() + memory_failures() == 0;
    check->was_refused = result->end == SCRIPT_FATAL || result->end == SCRIPT_STUCK;
    arm(&(struct point){0});
    if (result->end == SCRIPT_WRONG || (check->was_refused && result->text[0] == '\0')) {
        check->is_bad = true;
        (void)snprintf(check->why, sizeof(check->why), "no right answer: %s", result->text);
        return;
    }
    struct crash *crash = crash_new(disk_journal());
    (void)crash_to(crash, disk_journal()->count);
    check_image(check, crash, CRASH_ALL, result);
    check_image(check, crash, CRASH_SYNCED, result);
    check_image(check, crash, CRASH_SHREDS, result);
    crash_free(crash);
}

static uint32_t count_descriptors(void)
{
    uint32_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    for (const struct dirent *entry = dir != NULL ? readdir(dir) : NULL; entry != NULL;
         entry = readdir(dir)) {
        count++;
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return count;
}

static int run_point(const struct points *points, const struct point *point)
{
    struct run_check check = {.points = points};
    struct script_result result;
    uint32_t descriptors = count_descriptors();
    crash_clear_folder(points->dir);
    fault_clock_set(1000000);
    disk_watch(points->dir);
    arm(point);
    points->subject->run(points->script, points->dir, before_close, &check, &result);
    disk_journal_free(disk_unwatch());
    if (!check.is_bad && count_descriptors() != descriptors) {
        check.is_bad = true;
        (void)snprintf(check.why, sizeof(check.why), "%u descriptors before, %u after", descriptors,
                       count_descriptors());
    }
    if (check.is_bad) {
        campaign_failed(points->campaign, check.why);
        return RUN_BAD;
    }
    points->tally->noticed += check.was_refused ? 1 : 0;
    return check.is_clean ? RUN_CLEAN : RUN_GOOD;
}

/* ------------------------------------------------------------------ all of them */
/* False: nothing failed in it. */
static bool try_point(const struct points *points, const struct point *point)
{
    char spec[SPEC_BYTES];
    (void)snprintf(spec, sizeof(spec), "points:%s:%" PRIu64 ":%u:%u:%" PRIu64 ":%" PRIu64,
                   points->subject->name, points->seed, points->steps, point->fault, point->call,
                   point->n);
    campaign_at(points->campaign, spec);
    (void)fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        exit(run_point(points, point)); /* exit looks for leaks, where there is who looks */
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) < 0) {
        perror("fork");
        exit(2);
    }
    points->tally->cases++;
    if (WIFEXITED(status) && WEXITSTATUS(status) == RUN_CLEAN) {
        return false;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) > RUN_BAD) {
        char why[80];
        (void)snprintf(why, sizeof(why), "it died (status %d)", status);
        campaign_failed(points->campaign, why);
    }
    return true;
}

/* Every jobs-th n until nothing fails. Returns how many did. */
static uint64_t sweep(struct points *points, struct point *point)
{
    uint64_t count = 0;
    point->n = 1 + (faults[point->fault].call == OF_OWN ? 0 : points->campaign->share);
    uint64_t stride = faults[point->fault].call == OF_OWN
                          ? 1
                          : (uint64_t)points->campaign->jobs * points->campaign->every;
    while (points->tally->failures <= 20 && !campaign_is_over(points->campaign, points->tally) &&
           try_point(points, point)) {
        point->n += stride;
        count++;
    }
    points->tally->places += count;
    return count;
}

/* The n-th allocation of each call; calls without any are few in a row. */
static void sweep_calls(struct points *points, struct point *point)
{
    uint32_t empty = 0;
    for (point->call = 1 + points->campaign->share;
         empty < 50 && points->tally->failures <= 20 &&
         !campaign_is_over(points->campaign, points->tally);
         point->call += (uint64_t)points->campaign->jobs * points->campaign->every) {
        empty = sweep(points, point) > 0 ? 0 : empty + 1;
    }
}

static void run_all_points(struct points *points)
{
    for (uint32_t i = 0; i < HP_COUNT_OF(faults); i++) {
        struct point point = {.fault = i};
        uint64_t before = points->tally->places;
        if (campaign_is_over(points->campaign, points->tally)) {
            return;
        }
        if (faults[i].call == OF_OWN) {
            sweep_calls(points, &point);
        } else {
            (void)sweep(points, &point);
        }
        if (points->campaign->share == 0) {
            (void)printf("%s, %s %s%s: %" PRIu64 " points of this process\n", points->subject->name,
                         name_of(&faults[i]),
                         faults[i].number == 0 ? "in part" : strerrorname_np(faults[i].number),
                         faults[i].lasting ? ", lasting" : "", points->tally->places - before);
        }
    }
}

static void run_subject(struct points *points, const struct subject *subject,
                        const struct point *one)
{
    points->subject = subject;
    points->script = subject->make(points->seed, points->steps);
    if (one != NULL) {
        (void)try_point(points, one);
    } else {
        run_all_points(points);
    }
    subject->free(points->script);
}

static void run_points(struct campaign *campaign, struct tally *tally)
{
    struct points points = {.campaign = campaign, .tally = tally, .seed = campaign->seed};
    struct point one = {0};
    char name[16] = "";
    points.steps = campaign->steps > 0 ? campaign->steps : STEPS;
    bool is_one = campaign->one != NULL &&
                  sscanf(campaign->one, "points:%15[a-z]:%" SCNu64 ":%u:%u:%" SCNu64 ":%" SCNu64,
                         name, &points.seed, &points.steps, &one.fault, &one.call, &one.n) == 6;
    (void)snprintf(points.dir, sizeof(points.dir), "%s/script", campaign->dir);
    (void)snprintf(points.image, sizeof(points.image), "%s/image", campaign->dir);
    (void)mkdir(points.dir, 0700);
    (void)mkdir(points.image, 0700);
    memory_init();
    if (is_one) {
        run_subject(&points, strcmp(name, "spool") == 0 ? &subject_spool : &subject_store, &one);
        return;
    }
    do {
        run_subject(&points, &subject_store, NULL);
        run_subject(&points, &subject_spool, NULL);
        points.seed++;
    } while (tally->failures == 0 && (campaign->count > 0 || campaign->end_s > 0) &&
             !campaign_is_over(campaign, tally));
}

const struct campaign_kind campaign_points = {.name = "points", .run = run_points};
