/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a disk may hold when the power goes: a journal is played up to a point, and an image of the
 * folder is made there. What was synced is in every image. Of the rest:
 *  - of the writes of a file since its sync any may be there, each whole or with some of its
 *    512-byte sectors; what is missing reads as before, or as zeros where the file has grown;
 *  - of the names of a folder since its sync the first few are as they became, the rest as before;
 *  - what was written to a file before a sync that failed may be missing for ever: the kernel takes
 *    its pages for clean then. (Names are in the file system's journal, which fails for good.)
 */
#ifndef HP_TESTS_FAULT_CRASH_H
#define HP_TESTS_FAULT_CRASH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/rand.h"
#include "tests/fault/disk.h"

enum crash_kind {
    CRASH_SYNCED, /* nothing that was not synced */
    CRASH_ALL,    /* everything: the process died, not the machine */
    CRASH_FIRST,  /* the first few unsynced writes of all */
    CRASH_SOME,   /* any of them */
    CRASH_TORN,   /* all, but the last one in part */
    CRASH_SHREDS, /* any, each with any of its sectors */
    CRASH_KIND_COUNT
};
extern const char *const crash_kind_names[CRASH_KIND_COUNT];

struct crash;

/* Begins before the first entry. The journal must stay, and not grow while crash_to is called. */
struct crash *crash_new(const struct disk_journal *journal);
void crash_free(struct crash *crash);
/* Plays entries up to and without number `to`, which must not go back. Returns the last mark. */
uint64_t crash_to(struct crash *crash, uint32_t to);
/* Bytes and names that are not synced at this point; 0: all images are the same. */
uint64_t crash_loose(const struct crash *crash);
/* Writes an image into `dir`, which is emptied before. */
void crash_image(const struct crash *crash, enum crash_kind kind, struct hp_rand *rand,
                 const char *dir);
/* Removes all that is in `dir`. */
void crash_clear_folder(const char *dir);

#endif
