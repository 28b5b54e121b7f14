/* SPDX-License-Identifier: BSD-2-Clause */
/* Between disk.c and disk_calls.c. */
#ifndef HP_TESTS_FAULT_DISK_INSIDE_H
#define HP_TESTS_FAULT_DISK_INSIDE_H

#include "tests/fault/disk.h"

#define DISK_FDS 1024

struct disk_name {
    uint32_t folder, node;
    bool is_dir;
    char name[64];
};

struct disk {
    char root[512];
    struct disk_journal *journal; /* NULL: nothing is watched */
    struct disk_name *names;
    uint32_t name_count;
    int32_t of_fd[DISK_FDS]; /* node of a descriptor; -1: none of ours */
    bool is_busy;            /* calls are our own */
    uint64_t calls[DISK_CALL_COUNT];
    enum disk_call fail_call;
    uint64_t fail_at;
    int fail_errno;
    bool fail_lasting;
    uint64_t failures;
};
extern struct disk disk_;

struct disk_path {
    uint32_t folder, node;
    bool exists, is_dir;
    char name[64];
};

enum disk_verdict { DISK_DO, DISK_DO_IN_PART, DISK_FAIL /* errno is set */ };

_Noreturn void disk_die(const char *what, const char *about);
struct disk_entry *disk_add(enum disk_event event, uint32_t node);
void disk_note_write(uint32_t node, uint64_t offset, const void *data, uint64_t size);
struct disk_name *disk_find(uint32_t folder, const char *name);
/* False: not below the watched folder. */
bool disk_resolve(const char *path, struct disk_path *ret);
/* A new name; of a new node unless `node` is given. Returns the node. */
uint32_t disk_note_name(uint32_t folder, const char *name, bool is_dir, const uint32_t *node);
void disk_note_remove(uint32_t folder, const char *name);
void disk_note_move(uint32_t folder, const char *from, const char *to);
enum disk_verdict disk_judge(enum disk_call call);

#endif
