/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Damage: files of a folder after a crash, or after an orderly stop, with a bit flipped, sectors
 * that are zero, garbage or another's, or an end cut off. Whatever is read then is right, or there
 * is an error that names the file.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fault/campaign.h"
#include "tests/fault/clock.h"
#include "tests/fault/crash.h"
#include "tests/fault/script.h"

#define STEPS 60u
#define CASES 4000u /* without a count or a time */
#define CASES_OF_A_SEED 5000u
#define SECTOR 512u
#define FILES_MAX 64

enum harm { HARM_BIT, HARM_ZEROS, HARM_GARBAGE, HARM_OTHER, HARM_CUT, HARM_COUNT };
static const char *const harm_names[HARM_COUNT] = {"a bit flipped", "a sector of zeros",
                                                   "a sector of garbage", "a sector of elsewhere",
                                                   "cut off"};

struct damage {
    struct campaign *campaign;
    struct tally *tally;
    const struct subject *subject;
    void *script;
    struct crash *crash;
    uint64_t mark;
    uint64_t seed;
    uint32_t steps;
    bool is_orderly; /* the script's end: stopped in order, or crashed */
    char image[400];
    char files[FILES_MAX][64];
    uint32_t file_count;
    uint64_t counts[HARM_COUNT];
};

/* ------------------------------------------------------------------ doing harm */
static void list_files(struct damage *damage, const char *below)
{
    char path[800];
    (void)snprintf(path, sizeof(path), "%s/%s", damage->image, below);
    DIR *dir = opendir(path);
    for (const struct dirent *entry = dir != NULL ? readdir(dir) : NULL; entry != NULL;
         entry = readdir(dir)) {
        char name[300];
        struct stat st;
        if (entry->d_name[0] == '.') {
            continue;
        }
        (void)snprintf(name, sizeof(name), "%s%s%s", below, below[0] != '\0' ? "/" : "",
                       entry->d_name);
        (void)snprintf(path, sizeof(path), "%s/%s", damage->image, name);
        if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
            list_files(damage, name);
        } else if (st.st_size > 0 && damage->file_count < FILES_MAX &&
                   strcmp(name, "ballast") != 0 && strcmp(name, "lock") != 0) {
            (void)snprintf(damage->files[damage->file_count++], 64, "%.63s", name);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
}

/* The database most often, then any. */
static const char *choose_file(struct damage *damage, struct hp_rand *rand)
{
    damage->file_count = 0;
    list_files(damage, "");
    for (uint32_t i = 0; i < damage->file_count; i++) {
        bool is_main = strcmp(damage->files[i], "hostpool.db") == 0;
        if (is_main && hp_rand_uniform(rand, 2) == 0) {
            return damage->files[i];
        }
    }
    return damage->files[hp_rand_uniform(rand, damage->file_count)];
}

static void change(int fd, uint64_t size, enum harm harm, struct hp_rand *rand)
{
    uint8_t sector[SECTOR] = {0};
    uint64_t at = hp_rand_uniform(rand, size);
    uint64_t from = at / SECTOR * SECTOR;
    size_t length = size - from < SECTOR ? (size_t)(size - from) : SECTOR;
    if (harm == HARM_CUT) {
        (void)!ftruncate(fd, (off_t)at);
        return;
    }
    if (harm == HARM_BIT) {
        (void)!pread(fd, sector, 1, (off_t)at);
        sector[0] ^= (uint8_t)(1u << hp_rand_uniform(rand, 8));
        (void)!pwrite(fd, sector, 1, (off_t)at);
        return;
    }
    if (harm == HARM_GARBAGE) {
        hp_rand_fill(rand, sector, SECTOR);
    } else if (harm == HARM_OTHER) {
        (void)!pread(fd, sector, length, (off_t)(hp_rand_uniform(rand, size) / SECTOR * SECTOR));
    }
    (void)!pwrite(fd, sector, length, (off_t)from);
}

/* Describes what it did; false: nothing has changed. */
static bool do_harm(struct damage *damage, struct hp_rand *rand, char what[200])
{
    char path[800];
    struct stat st;
    enum harm harm =
        hp_rand_uniform(rand, 2) == 0 ? HARM_BIT : (enum harm)hp_rand_uniform(rand, HARM_COUNT);
    const char *name = choose_file(damage, rand);
    (void)snprintf(path, sizeof(path), "%s/%s", damage->image, name);
    (void)snprintf(what, 200, "%s: %s", name, harm_names[harm]);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    bool is_there = fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0;
    if (is_there) {
        change(fd, (uint64_t)st.st_size, harm, rand);
        damage->counts[harm]++;
    }
    (void)close(fd);
    return is_there;
}

/* ------------------------------------------------------------------ cases */
static void one_case(struct damage *damage, uint64_t number)
{
    char spec[SPEC_BYTES];
    char what[200] = "";
    char why[800];
    bool noticed = false;
    struct hp_rand rand;
    (void)snprintf(spec, sizeof(spec), "damage:%s:%" PRIu64 ":%u:%d:%" PRIu64,
                   damage->subject->name, damage->seed, damage->steps, damage->is_orderly ? 1 : 0,
                   number);
    campaign_at(damage->campaign, spec);
    fault_clock_set(UINT64_C(1) << 40);
    hp_rand_init(&rand, damage->seed * 7919 + number);
    crash_image(damage->crash, CRASH_ALL, &rand, damage->image);
    if (do_harm(damage, &rand, what) &&
        !damage->subject->verify_damaged(damage->script, damage->image, damage->mark, what,
                                         &noticed, why)) {
        char text[1100];
        (void)snprintf(text, sizeof(text), "%s: %s", what, why);
        campaign_failed(damage->campaign, text);
    }
    damage->tally->cases++;
    damage->tally->noticed += noticed ? 1 : 0;
}

/* The journal of a script, up to its last step or to its orderly end. */
static struct disk_journal *run_whole(struct damage *damage, uint32_t *ret_until)
{
    struct script_result result;
    char dir[400];
    (void)snprintf(dir, sizeof(dir), "%s/script", damage->campaign->dir);
    (void)mkdir(dir, 0700);
    crash_clear_folder(dir);
    fault_clock_set(1000000);
    disk_watch(dir);
    damage->subject->run(damage->script, dir, NULL, NULL, &result);
    struct disk_journal *journal = disk_unwatch();
    damage->mark = result.mark;
    *ret_until = journal->count;
    while (!damage->is_orderly && *ret_until > 0 &&
           journal->entries[*ret_until - 1].event != DISK_DID_MARK) {
        --*ret_until;
    }
    return journal;
}

static void run_seed(struct damage *damage, const struct subject *subject, uint64_t first,
                     uint64_t stride, uint64_t most)
{
    uint32_t until = 0;
    damage->subject = subject;
    damage->script = subject->make(damage->seed, damage->steps);
    struct disk_journal *journal = run_whole(damage, &until);
    damage->crash = crash_new(journal);
    (void)crash_to(damage->crash, until);
    for (uint64_t n = 0; n < most && damage->tally->failures <= 20 &&
                         !campaign_is_over(damage->campaign, damage->tally);
         n++) {
        one_case(damage, first + n * stride);
    }
    crash_free(damage->crash);
    disk_journal_free(journal);
    subject->free(damage->script);
}

static void run_damage(struct campaign *campaign, struct tally *tally)
{
    struct damage damage = {.campaign = campaign, .tally = tally, .seed = campaign->seed};
    char name[16] = "";
    int orderly = 0;
    uint64_t number = 0;
    damage.steps = campaign->steps > 0 ? campaign->steps : STEPS;
    (void)snprintf(damage.image, sizeof(damage.image), "%s/image", campaign->dir);
    (void)mkdir(damage.image, 0700);
    if (campaign->one != NULL &&
        sscanf(campaign->one, "damage:%15[a-z]:%" SCNu64 ":%u:%d:%" SCNu64, name, &damage.seed,
               &damage.steps, &orderly, &number) == 5) {
        damage.is_orderly = orderly != 0;
        run_seed(&damage, strcmp(name, "spool") == 0 ? &subject_spool : &subject_store, number, 1,
                 1);
        return;
    }
    bool is_bounded = campaign->count > 0 || campaign->end_s > 0;
    uint64_t most = (is_bounded ? CASES_OF_A_SEED : CASES / 4) / campaign->jobs;
    do {
        for (int i = 0; i < 2; i++) {
            damage.is_orderly = i == 1;
            run_seed(&damage, &subject_store, campaign->share, campaign->jobs, most);
            run_seed(&damage, &subject_spool, campaign->share, campaign->jobs, most / 4);
        }
        damage.seed++;
    } while (tally->failures == 0 && is_bounded && !campaign_is_over(campaign, tally));
}

const struct campaign_kind campaign_damage = {.name = "damage", .run = run_damage};
