/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The disk under test. This program defines open, write, fsync and their like itself, so the calls
 * of the code under test, and those of libsqlite3, come through here on their way to the kernel.
 * Calls on files below one folder are written into a journal, and the n-th of a kind can be made to
 * fail. crash.h makes of the journal what a disk may hold after a power cut.
 *
 * One thread. Descriptors below 1024. A rename stays within its folder.
 */
#ifndef HP_TESTS_FAULT_DISK_H
#define HP_TESTS_FAULT_DISK_H

#include <stdbool.h>
#include <stdint.h>

enum disk_call {
    DISK_OPEN,
    DISK_READ,
    DISK_WRITE,
    DISK_SYNC, /* of files and folders */
    DISK_TRUNCATE,
    DISK_RENAME,
    DISK_UNLINK,
    DISK_MKDIR,
    DISK_LINK,
    DISK_ALLOCATE,
    DISK_CALL_COUNT
};
extern const char *const disk_call_names[DISK_CALL_COUNT];

enum disk_event {
    DISK_DID_WRITE,
    DISK_DID_TRUNCATE,
    DISK_DID_SYNC,
    DISK_DID_FAIL_SYNC, /* what was written before may or may not get to the disk, ever */
    DISK_DID_ADD,       /* a name in a folder: create, mkdir, link */
    DISK_DID_REMOVE,
    DISK_DID_MOVE,
    DISK_DID_MARK, /* by disk_mark */
};

struct disk_entry {
    enum disk_event event;
    uint32_t node;  /* the file or, for names, the folder */
    uint32_t child; /* ADD: what the name stands for */
    bool is_dir;    /* ADD */
    uint64_t offset, size;
    uint8_t *data; /* WRITE */
    char name[64]; /* ADD, REMOVE, MOVE */
    char name2[64];
    uint64_t mark;
};

struct disk_journal {
    struct disk_entry *entries;
    uint32_t count, capacity;
    uint32_t node_count; /* node 0 is the watched folder */
};

/*
 * Begins to watch the folder `root` (absolute). What is in it already becomes entries of the
 * journal, followed by syncs. The journal is the caller's after disk_unwatch (disk_journal_free).
 */
void disk_watch(const char *root);
struct disk_journal *disk_unwatch(void);
void disk_journal_free(struct disk_journal *journal);
/* The journal so far; NULL: nothing is watched. */
const struct disk_journal *disk_journal(void);
void disk_mark(uint64_t mark);

/* The n-th call of the kind from now on fails with `number`, an errno; 0: it is done in part only
 * (reads, writes). `lasting`: all later ones as well. n = 0: none. */
void disk_fail(enum disk_call call, uint64_t n, int number, bool lasting);
/* Calls of the kind since disk_fail, and how many of them failed. */
uint64_t disk_calls(enum disk_call call);
uint64_t disk_failures(void);

#endif
