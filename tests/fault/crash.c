/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/fault/crash.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fault/disk_inside.h"

#define SECTOR 512u

const char *const crash_kind_names[CRASH_KIND_COUNT] = {"synced", "all",  "first",
                                                        "some",   "torn", "shreds"};

struct bytes {
    uint8_t *data;
    uint64_t size, capacity;
};

struct pending {
    uint32_t entry;
    bool is_lost; /* a sync after it has failed: no later one makes it durable */
    bool is_done; /* synced, but behind one that is lost */
};

struct name {
    char text[64];
    uint32_t node;
    bool is_dir;
};

struct node {
    struct bytes synced; /* of a file */
    struct name *names;  /* of a folder, as synced */
    uint32_t name_count;
    struct pending *pending; /* since then: writes and truncations, or names */
    uint32_t pending_count, pending_capacity;
};

struct crash {
    const struct disk_journal *journal;
    struct node *nodes;
    uint32_t at;
    uint64_t mark;
    uint64_t loose;
};

static void *must(void *memory)
{
    if (memory == NULL) {
        disk_die("image", "out of memory");
    }
    return memory;
}

/* ------------------------------------------------------------------ bytes */
static void bytes_resize(struct bytes *bytes, uint64_t size)
{
    if (size > bytes->capacity) {
        bytes->capacity = size + size / 2;
        bytes->data = must(realloc(bytes->data, bytes->capacity + 1));
    }
    if (size > bytes->size) {
        memset(bytes->data + bytes->size, 0, size - bytes->size);
    }
    bytes->size = size;
}

static void bytes_put(struct bytes *bytes, uint64_t offset, const uint8_t *data, uint64_t size)
{
    if (offset + size > bytes->size) {
        bytes_resize(bytes, offset + size);
    }
    if (size > 0) {
        memcpy(bytes->data + offset, data, size);
    }
}

static void bytes_do(struct bytes *bytes, const struct disk_entry *entry)
{
    if (entry->event == DISK_DID_TRUNCATE) {
        bytes_resize(bytes, entry->size);
    } else {
        bytes_put(bytes, entry->offset, entry->data, entry->size);
    }
}

/* Any of the sectors of a write. Its size counts, too: the file may have grown without its bytes.
 */
static void bytes_do_shreds(struct bytes *bytes, const struct disk_entry *entry,
                            struct hp_rand *rand)
{
    if (entry->event == DISK_DID_TRUNCATE) {
        bytes_do(bytes, entry);
        return;
    }
    if (entry->offset + entry->size > bytes->size && hp_rand_uniform(rand, 2) == 0) {
        bytes_resize(bytes, entry->offset + entry->size);
    }
    uint64_t at = 0;
    while (at < entry->size) {
        uint64_t part = SECTOR - (entry->offset + at) % SECTOR;
        part = part < entry->size - at ? part : entry->size - at;
        if (hp_rand_uniform(rand, 2) == 0) {
            bytes_put(bytes, entry->offset + at, entry->data + at, part);
        }
        at += part;
    }
}

/* The first sectors of a write. */
static void bytes_do_torn(struct bytes *bytes, const struct disk_entry *entry, struct hp_rand *rand)
{
    uint64_t sectors = (entry->offset % SECTOR + entry->size + SECTOR - 1) / SECTOR;
    uint64_t keep = hp_rand_uniform(rand, sectors + 1);
    if (entry->event == DISK_DID_TRUNCATE || keep == 0) {
        return;
    }
    uint64_t size = keep * SECTOR - entry->offset % SECTOR;
    bytes_put(bytes, entry->offset, entry->data, size < entry->size ? size : entry->size);
}

/* ------------------------------------------------------------------ names */
static void names_remove(struct node *node, const char *text)
{
    for (uint32_t i = 0; i < node->name_count; i++) {
        if (strcmp(node->names[i].text, text) == 0) {
            node->names[i] = node->names[--node->name_count];
            return;
        }
    }
}

static void names_add(struct node *node, const char *text, uint32_t child, bool is_dir)
{
    names_remove(node, text);
    node->names = must(realloc(node->names, (node->name_count + 1) * sizeof(node->names[0])));
    struct name *name = &node->names[node->name_count++];
    *name = (struct name){.node = child, .is_dir = is_dir};
    memcpy(name->text, text, sizeof(name->text));
}

static void names_do(struct node *node, const struct disk_entry *entry)
{
    if (entry->event == DISK_DID_ADD) {
        names_add(node, entry->name, entry->child, entry->is_dir);
        return;
    }
    for (uint32_t i = 0; i < node->name_count && entry->event == DISK_DID_MOVE; i++) {
        if (strcmp(node->names[i].text, entry->name) == 0) {
            struct name moved = node->names[i];
            names_remove(node, entry->name);
            names_add(node, entry->name2, moved.node, moved.is_dir);
            return;
        }
    }
    names_remove(node, entry->name);
}

static bool is_name(const struct disk_entry *entry)
{
    return entry->event == DISK_DID_ADD || entry->event == DISK_DID_REMOVE ||
           entry->event == DISK_DID_MOVE;
}

/* ------------------------------------------------------------------ playing */
struct crash *crash_new(const struct disk_journal *journal)
{
    struct crash *crash = must(calloc(1, sizeof(*crash)));
    crash->journal = journal;
    crash->mark = UINT64_MAX;
    crash->nodes = must(calloc(journal->node_count + 1, sizeof(crash->nodes[0])));
    return crash;
}

void crash_free(struct crash *crash)
{
    for (uint32_t i = 0; crash != NULL && i < crash->journal->node_count; i++) {
        free(crash->nodes[i].synced.data);
        free(crash->nodes[i].names);
        free(crash->nodes[i].pending);
    }
    if (crash != NULL) {
        free(crash->nodes);
    }
    free(crash);
}

static void add_pending(struct crash *crash, struct node *node, uint32_t entry)
{
    if (node->pending_count == node->pending_capacity) {
        node->pending_capacity = node->pending_capacity * 2 + 8;
        node->pending =
            must(realloc(node->pending, node->pending_capacity * sizeof(node->pending[0])));
    }
    node->pending[node->pending_count++] = (struct pending){.entry = entry};
    crash->loose++;
}

static void sync_node(struct crash *crash, struct node *node)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < node->pending_count; i++) {
        struct pending *pending = &node->pending[i];
        const struct disk_entry *entry = &crash->journal->entries[pending->entry];
        if (!pending->is_lost && !pending->is_done) {
            crash->loose--;
        }
        pending->is_done = pending->is_done || !pending->is_lost;
        if (pending->is_lost || kept > 0) {
            node->pending[kept++] = *pending;
        } else if (is_name(entry)) {
            names_do(node, entry);
        } else {
            bytes_do(&node->synced, entry);
        }
    }
    node->pending_count = kept;
}

uint64_t crash_to(struct crash *crash, uint32_t to)
{
    const struct disk_journal *journal = crash->journal;
    for (; crash->at < to; crash->at++) {
        const struct disk_entry *entry = &journal->entries[crash->at];
        struct node *node = &crash->nodes[entry->node];
        switch (entry->event) {
        case DISK_DID_SYNC:
            sync_node(crash, node);
            break;
        case DISK_DID_FAIL_SYNC:
            for (uint32_t i = 0; i < node->pending_count; i++) {
                node->pending[i].is_lost = !node->pending[i].is_done &&
                                           !is_name(&journal->entries[node->pending[i].entry]);
            }
            break;
        case DISK_DID_MARK:
            crash->mark = entry->mark;
            break;
        case DISK_DID_WRITE:
        case DISK_DID_TRUNCATE:
        case DISK_DID_ADD:
        case DISK_DID_REMOVE:
        case DISK_DID_MOVE:
            add_pending(crash, node, crash->at);
            break;
        }
    }
    return crash->mark;
}

uint64_t crash_loose(const struct crash *crash)
{
    return crash->loose;
}

/* ------------------------------------------------------------------ images */
struct image {
    const struct crash *crash;
    enum crash_kind kind;
    struct hp_rand *rand;
    uint32_t last; /* FIRST: the first entry that is missing; TORN: the one that is cut */
};

static void remove_at(int folder, const char *name)
{
    if (unlinkat(folder, name, 0) == 0) {
        return;
    }
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    for (const struct dirent *entry = dir != NULL ? readdir(dir) : NULL; entry != NULL;
         entry = readdir(dir)) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            remove_at(fd, entry->d_name);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    (void)unlinkat(folder, name, AT_REMOVEDIR);
}

void crash_clear_folder(const char *path)
{
    DIR *dir = opendir(path);
    for (const struct dirent *entry = dir != NULL ? readdir(dir) : NULL; entry != NULL;
         entry = readdir(dir)) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            remove_at(dirfd(dir), entry->d_name);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
}

static void do_pending(const struct image *image, const struct pending *pending,
                       struct bytes *bytes)
{
    const struct disk_entry *entry = &image->crash->journal->entries[pending->entry];
    if (pending->is_done) {
        bytes_do(bytes, entry);
        return;
    }
    switch (image->kind) {
    case CRASH_SYNCED:
        break;
    case CRASH_ALL:
        bytes_do(bytes, entry);
        break;
    case CRASH_FIRST:
        if (pending->entry < image->last) {
            bytes_do(bytes, entry);
        }
        break;
    case CRASH_TORN:
        if (pending->entry == image->last) {
            bytes_do_torn(bytes, entry, image->rand);
        } else {
            bytes_do(bytes, entry);
        }
        break;
    case CRASH_SHREDS:
        if (hp_rand_uniform(image->rand, 4) != 0) {
            bytes_do_shreds(bytes, entry, image->rand);
        }
        break;
    case CRASH_SOME:
    case CRASH_KIND_COUNT:
        if (hp_rand_uniform(image->rand, 2) == 0) {
            bytes_do(bytes, entry);
        }
        break;
    }
}

static void write_file(const struct image *image, const struct node *node, const char *path)
{
    struct bytes copy = {0};
    const struct bytes *bytes = &node->synced;
    if (node->pending_count > 0) {
        bytes_resize(&copy, node->synced.size);
        if (copy.size > 0) {
            memcpy(copy.data, node->synced.data, copy.size);
        }
        for (uint32_t i = 0; i < node->pending_count; i++) {
            do_pending(image, &node->pending[i], &copy);
        }
        bytes = &copy;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, bytes->data, bytes->size) != (ssize_t)bytes->size) {
        disk_die("cannot write the image", path);
    }
    (void)close(fd);
    free(copy.data);
}

static uint32_t names_kept(const struct image *image, const struct node *node)
{
    switch (image->kind) {
    case CRASH_SYNCED:
        return 0;
    case CRASH_ALL:
    case CRASH_TORN:
        return node->pending_count;
    case CRASH_FIRST: {
        uint32_t count = 0;
        while (count < node->pending_count && node->pending[count].entry < image->last) {
            count++;
        }
        return count;
    }
    case CRASH_SOME:
    case CRASH_SHREDS:
    case CRASH_KIND_COUNT:
        break;
    }
    return (uint32_t)hp_rand_uniform(image->rand, node->pending_count + 1);
}

static void write_folder(const struct image *image, uint32_t number, const char *path)
{
    const struct node *node = &image->crash->nodes[number];
    struct node now = {.name_count = node->name_count};
    now.names = must(malloc((node->name_count + 1) * sizeof(now.names[0])));
    if (node->name_count > 0) {
        memcpy(now.names, node->names, node->name_count * sizeof(now.names[0]));
    }
    uint32_t kept = names_kept(image, node);
    for (uint32_t i = 0; i < node->pending_count; i++) {
        if (i < kept || node->pending[i].is_done) {
            names_do(&now, &image->crash->journal->entries[node->pending[i].entry]);
        }
    }
    for (uint32_t i = 0; i < now.name_count; i++) {
        char full[4096];
        (void)snprintf(full, sizeof(full), "%s/%s", path, now.names[i].text);
        if (!now.names[i].is_dir) {
            write_file(image, &image->crash->nodes[now.names[i].node], full);
        } else if (mkdir(full, 0700) == 0) {
            write_folder(image, now.names[i].node, full);
        } else {
            disk_die("cannot make", full);
        }
    }
    free(now.names);
}

/* The unsynced entry to stop before, or to cut: any, or the very last. */
static uint32_t choose(const struct crash *crash, enum crash_kind kind, struct hp_rand *rand)
{
    uint32_t first = UINT32_MAX;
    uint32_t last = 0;
    for (uint32_t i = 0; i < crash->journal->node_count; i++) {
        const struct node *node = &crash->nodes[i];
        if (node->pending_count > 0) {
            uint32_t from = node->pending[0].entry;
            uint32_t to = node->pending[node->pending_count - 1].entry;
            first = from < first ? from : first;
            last = to > last ? to : last;
        }
    }
    return first == UINT32_MAX || kind != CRASH_FIRST
               ? last
               : first + (uint32_t)hp_rand_uniform(rand, last - first + 1);
}

void crash_image(const struct crash *crash, enum crash_kind kind, struct hp_rand *rand,
                 const char *dir)
{
    struct image image = {.crash = crash, .kind = kind, .rand = rand};
    image.last = choose(crash, kind, rand);
    crash_clear_folder(dir);
    write_folder(&image, 0, dir);
}
