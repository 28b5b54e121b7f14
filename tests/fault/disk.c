/* SPDX-License-Identifier: BSD-2-Clause */
/* The journal and the injector behind the calls; the calls themselves are in disk_calls.c. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/fault/disk_inside.h"

const char *const disk_call_names[DISK_CALL_COUNT] = {
    "open", "read", "write", "sync", "truncate", "rename", "unlink", "mkdir", "link", "allocate"};

struct disk disk_;

_Noreturn void disk_die(const char *what, const char *about)
{
    (void)fprintf(stderr, "tests/fault: %s: %s\n", what, about);
    abort();
}

struct disk_entry *disk_add(enum disk_event event, uint32_t node)
{
    struct disk_journal *journal = disk_.journal;
    if (journal->count == journal->capacity) {
        journal->capacity = journal->capacity * 2 + 1024;
        journal->entries =
            realloc(journal->entries, journal->capacity * sizeof(journal->entries[0]));
        if (journal->entries == NULL) {
            disk_die("journal", "out of memory");
        }
    }
    struct disk_entry *entry = &journal->entries[journal->count++];
    *entry = (struct disk_entry){.event = event, .node = node};
    return entry;
}

void disk_note_write(uint32_t node, uint64_t offset, const void *data, uint64_t size)
{
    struct disk_entry *entry = disk_add(DISK_DID_WRITE, node);
    entry->offset = offset;
    entry->size = size;
    entry->data = malloc(size + 1);
    if (entry->data == NULL) {
        disk_die("journal", "out of memory");
    }
    memcpy(entry->data, data, size);
}

/* ------------------------------------------------------------------ names */
static void copy_name(char out[64], const char *name, size_t size)
{
    if (size >= 64) {
        disk_die("name too long", name);
    }
    memcpy(out, name, size);
    out[size] = '\0';
}

struct disk_name *disk_find(uint32_t folder, const char *name)
{
    for (uint32_t i = 0; i < disk_.name_count; i++) {
        struct disk_name *at = &disk_.names[i];
        if (at->folder == folder && strcmp(at->name, name) == 0) {
            return at;
        }
    }
    return NULL;
}

bool disk_resolve(const char *path, struct disk_path *ret)
{
    size_t length = strlen(disk_.root);
    if (disk_.journal == NULL || strncmp(path, disk_.root, length) != 0 ||
        (path[length] != '/' && path[length] != '\0')) {
        return false;
    }
    *ret = (struct disk_path){.node = 0, .is_dir = true, .exists = true};
    const char *at = path + length;
    while (*at == '/') {
        at++;
    }
    while (*at != '\0') {
        size_t size = strcspn(at, "/");
        const struct disk_name *found = NULL;
        if (!ret->exists) {
            return false; /* a folder on the way is missing */
        }
        ret->folder = ret->node;
        copy_name(ret->name, at, size);
        found = disk_find(ret->folder, ret->name);
        ret->exists = found != NULL;
        ret->node = found != NULL ? found->node : 0;
        ret->is_dir = found != NULL && found->is_dir;
        at += size;
        while (*at == '/') {
            at++;
        }
    }
    return true;
}

uint32_t disk_note_name(uint32_t folder, const char *name, bool is_dir, const uint32_t *node)
{
    uint32_t number = node != NULL ? *node : disk_.journal->node_count++;
    struct disk_name *names = realloc(disk_.names, (disk_.name_count + 1) * sizeof(disk_.names[0]));
    if (names == NULL) {
        disk_die("names", "out of memory");
    }
    disk_.names = names;
    struct disk_name *at = &names[disk_.name_count++];
    *at = (struct disk_name){.folder = folder, .node = number, .is_dir = is_dir};
    copy_name(at->name, name, strlen(name));
    struct disk_entry *entry = disk_add(DISK_DID_ADD, folder);
    entry->child = number;
    entry->is_dir = is_dir;
    copy_name(entry->name, name, strlen(name));
    return number;
}

void disk_note_remove(uint32_t folder, const char *name)
{
    struct disk_name *at = disk_find(folder, name);
    if (at != NULL) {
        *at = disk_.names[--disk_.name_count];
        copy_name(disk_add(DISK_DID_REMOVE, folder)->name, name, strlen(name));
    }
}

void disk_note_move(uint32_t folder, const char *from, const char *to)
{
    struct disk_name *target = disk_find(folder, to);
    if (target != NULL) {
        *target = disk_.names[--disk_.name_count];
    }
    struct disk_name *at = disk_find(folder, from);
    if (at == NULL) {
        disk_die("renamed, but never made", from);
    }
    copy_name(at->name, to, strlen(to));
    struct disk_entry *entry = disk_add(DISK_DID_MOVE, folder);
    copy_name(entry->name, from, strlen(from));
    copy_name(entry->name2, to, strlen(to));
}

/* ------------------------------------------------------------------ what is there at the start */
static void load_file(const char *path, uint32_t node)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        disk_die("cannot read", path);
    }
    uint8_t *data = malloc((size_t)st.st_size + 1);
    if (data == NULL || read(fd, data, (size_t)st.st_size) != st.st_size) {
        disk_die("cannot read", path);
    }
    disk_note_write(node, 0, data, (uint64_t)st.st_size);
    free(data);
    (void)close(fd);
}

static void load_folder(const char *path, uint32_t folder)
{
    DIR *dir = opendir(path);
    if (dir == NULL) {
        disk_die("cannot read", path);
    }
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        char full[4096];
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        (void)snprintf(full, sizeof(full), "%s/%s", path, entry->d_name);
        if (lstat(full, &st) != 0) {
            disk_die("cannot read", full);
        }
        uint32_t node = disk_note_name(folder, entry->d_name, S_ISDIR(st.st_mode), NULL);
        if (S_ISDIR(st.st_mode)) {
            load_folder(full, node);
        } else {
            load_file(full, node);
            (void)disk_add(DISK_DID_SYNC, node);
        }
    }
    (void)closedir(dir);
    (void)disk_add(DISK_DID_SYNC, folder);
}

void disk_watch(const char *root)
{
    if (disk_.journal != NULL) {
        disk_die("watched already", disk_.root);
    }
    struct disk_journal *journal = calloc(1, sizeof(*journal));
    if (journal == NULL || snprintf(disk_.root, sizeof(disk_.root), "%s", root) < 0) {
        disk_die("watch", root);
    }
    journal->node_count = 1;
    memset(disk_.of_fd, 0xff, sizeof(disk_.of_fd));
    disk_.is_busy = true; /* what is read now is no call of the code under test */
    disk_.journal = journal;
    load_folder(root, 0);
    disk_.is_busy = false;
}

struct disk_journal *disk_unwatch(void)
{
    struct disk_journal *journal = disk_.journal;
    disk_.journal = NULL;
    free(disk_.names);
    disk_.names = NULL;
    disk_.name_count = 0;
    return journal;
}

void disk_journal_free(struct disk_journal *journal)
{
    for (uint32_t i = 0; journal != NULL && i < journal->count; i++) {
        free(journal->entries[i].data);
    }
    if (journal != NULL) {
        free(journal->entries);
    }
    free(journal);
}

const struct disk_journal *disk_journal(void)
{
    return disk_.journal;
}

void disk_mark(uint64_t mark)
{
    disk_add(DISK_DID_MARK, 0)->mark = mark;
}

/* ------------------------------------------------------------------ failing */
void disk_fail(enum disk_call call, uint64_t n, int number, bool lasting)
{
    memset(disk_.calls, 0, sizeof(disk_.calls));
    disk_.fail_call = call;
    disk_.fail_at = n;
    disk_.fail_errno = number;
    disk_.fail_lasting = lasting;
    disk_.failures = 0;
}

uint64_t disk_calls(enum disk_call call)
{
    return disk_.calls[call];
}

uint64_t disk_failures(void)
{
    return disk_.failures;
}

enum disk_verdict disk_judge(enum disk_call call)
{
    uint64_t n = ++disk_.calls[call];
    if (disk_.fail_at == 0 || call != disk_.fail_call || n < disk_.fail_at ||
        (n > disk_.fail_at && !disk_.fail_lasting)) {
        return DISK_DO;
    }
    disk_.failures++;
    if (disk_.fail_errno == 0 && n == disk_.fail_at) {
        return DISK_DO_IN_PART;
    }
    errno = disk_.fail_errno != 0 ? disk_.fail_errno : ENOSPC;
    return DISK_FAIL;
}
