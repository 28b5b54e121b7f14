/* SPDX-License-Identifier: BSD-2-Clause */
#include "server/store/blob_near.h"

#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/base/assert.h"
#include "common/base/idmap.h"
#include "common/base/list.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/sys/file.h"
#include "common/sys/near.h"
#include "server/store/blob_file.h"

#define LENT_MS ((uint64_t)10 * 1000)
#define FRESH_MS ((uint64_t)60 * 1000) /* then whoever wants it reads it from the disk */
#define LENT_SHARE 5u                  /* one of so many descriptors at most is a lent file */
/* Memory of what is on the disk as well. */
#define REMEMBERED_BYTES_MAX ((uint64_t)128 << 20)

_Static_assert(HP_CONN_KEY_BYTES == HP_NEAR_KEY_BYTES, "one key");

/* An open descriptor: kept, or a file that is lent, or the memory that the file was made of. */
struct held {
    uint64_t id;
    int fd;
    uint64_t size;
    uint64_t digest;
    bool has_digest; /* files: always; kept: once somebody asked */
    uint64_t device, inode;
    bool is_memory;      /* in files: remembered */
    bool is_fresh;       /* remembered, and not lent yet */
    uint64_t lent_ms;    /* files */
    struct hp_list link; /* files: hp_blob_near.lent or .fresh, oldest first */
};

struct hp_blob_near {
    char *blob_dir;
    uint64_t device; /* of memory */
    uint32_t kept_max, lent_max;
    struct hp_idmap kept, files; /* id -> struct held */
    struct hp_list lent;
    struct hp_list fresh;
    uint64_t remembered_bytes;
    _Atomic uint64_t fresh_bytes; /* and reserved ones; from any thread */
};

/* ------------------------------------------------------------------ gifts */
enum hp_err hp_blob_gift_device(uint64_t *ret_device)
{
    HP_CLEANUP(hp_fd_close) int fd = -1;
    struct stat facts;
    enum hp_err err = hp_near_create(&fd);
    if (err == HP_OK && fstat(fd, &facts) != 0) {
        err = HP_ERR_UNSUPPORTED;
    }
    if (err == HP_OK) {
        *ret_device = (uint64_t)facts.st_dev;
    }
    return err;
}

enum hp_err hp_blob_gift_open(const struct hp_blob_gift *gift, uint64_t size, uint64_t device,
                              int *ret_fd, struct hp_error *reterr)
{
    HP_CLEANUP(hp_fd_close) int fd = -1;
    const struct hp_near_place place = {.pid = gift->place.pid,
                                        .fd = gift->place.fd,
                                        .device = gift->place.device,
                                        .inode = gift->place.inode};
    if (place.device != device) {
        return hp_error_set(reterr, HP_ERR_UNSUPPORTED, "what is given is no memory file");
    }
    enum hp_err err = hp_near_open(&place, &fd);
    if (err != HP_OK) {
        return hp_error_set(reterr, HP_ERR_UNSUPPORTED, "what is given can not be opened: %s",
                            hp_err_text(err));
    }
    if (hp_near_check(fd, size, gift->key) != HP_OK) {
        return hp_error_set(reterr, HP_ERR_UNSUPPORTED,
                            "what is given is not sealed, or has not this size and key");
    }
    *ret_fd = fd;
    fd = -1; /* the caller's */
    return HP_OK;
}

/* ------------------------------------------------------------------ the tables */
struct hp_blob_near *hp_blob_near_new(const char *blob_dir, uint32_t file_count_max)
{
    struct hp_blob_near *near = hp_calloc(1, sizeof(*near));
    if (near == NULL) {
        return NULL;
    }
    near->lent_max = file_count_max / LENT_SHARE;
    near->kept_max = file_count_max - near->lent_max;
    hp_idmap_init(&near->kept, 0); /* the broker chooses the ids */
    hp_idmap_init(&near->files, 0);
    hp_list_init(&near->lent);
    hp_list_init(&near->fresh);
    near->blob_dir = hp_strdup(blob_dir);
    if (near->blob_dir == NULL) {
        hp_blob_near_free(near);
        return NULL;
    }
    if (hp_blob_gift_device(&near->device) != HP_OK) {
        near->kept_max = 0;
    }
    return near;
}

static void held_free(struct hp_idmap *map, struct held *held)
{
    (void)hp_idmap_remove(map, held->id, NULL);
    hp_list_remove(&held->link);
    hp_fd_close(&held->fd);
    hp_free(held);
}

/* Of near->files. */
static void file_free(struct hp_blob_near *near, struct held *held)
{
    if (held->is_memory) {
        near->remembered_bytes -= held->size;
    }
    if (held->is_fresh) {
        hp_blob_near_unreserve(near, held->size);
    }
    held_free(&near->files, held);
}

static void make_descriptor_free(struct hp_blob_near *near)
{
    if (hp_idmap_count(&near->files) >= near->lent_max) {
        struct hp_list *oldest = hp_list_first(&near->lent);
        oldest = oldest != NULL ? oldest : hp_list_first(&near->fresh);
        file_free(near, HP_LIST_ENTRY(oldest, struct held, link));
    }
}

static void free_all(struct hp_idmap *map)
{
    while (hp_idmap_count(map) > 0) {
        struct hp_idmap_iter it = {0};
        uint64_t value = 0;
        (void)hp_idmap_next(map, &it, NULL, &value); /* there is one */
        held_free(map, (struct held *)(uintptr_t)value);
    }
    hp_idmap_deinit(map);
}

void hp_blob_near_free(struct hp_blob_near *near)
{
    if (near != NULL) {
        free_all(&near->kept);
        free_all(&near->files);
        hp_free(near->blob_dir);
        hp_free(near);
    }
}

/* Takes the descriptor over, also if it fails. */
static struct held *held_new(struct hp_idmap *map, uint64_t id, int fd)
{
    struct stat facts;
    struct held *held = hp_calloc(1, sizeof(*held));
    if (held == NULL || fstat(fd, &facts) != 0 || hp_idmap_put_ptr(map, id, held) != HP_OK) {
        hp_free(held);
        hp_fd_close(&fd);
        return NULL;
    }
    held->id = id;
    held->fd = fd;
    held->device = (uint64_t)facts.st_dev;
    held->inode = (uint64_t)facts.st_ino;
    hp_list_init(&held->link);
    return held;
}

/* ------------------------------------------------------------------ kept */
enum hp_err hp_blob_near_keep(struct hp_blob_near *near, uint64_t id, uint64_t size,
                              const struct hp_blob_gift *gift, struct hp_error *reterr)
{
    int fd = -1;
    if (hp_idmap_count(&near->kept) >= near->kept_max) {
        return hp_error_set(reterr, HP_ERR_UNSUPPORTED, "too many descriptors are kept");
    }
    HP_ASSERT(!hp_idmap_find(&near->kept, id, NULL)); /* ids are given out once */
    enum hp_err err = hp_blob_gift_open(gift, size, near->device, &fd, reterr);
    if (err != HP_OK) {
        return err;
    }
    struct held *held = held_new(&near->kept, id, fd);
    if (held == NULL) {
        return hp_error_set(reterr, HP_ERR_UNSUPPORTED, "out of memory");
    }
    held->size = size;
    return HP_OK;
}

void hp_blob_near_drop(struct hp_blob_near *near, uint64_t id)
{
    struct held *held = hp_idmap_find_ptr(&near->kept, id);
    if (held != NULL) {
        held_free(&near->kept, held);
    }
}

/* ------------------------------------------------------------------ remembered */
bool hp_blob_near_reserve(struct hp_blob_near *near, uint64_t size)
{
    uint64_t before = atomic_fetch_add(&near->fresh_bytes, size);
    bool fits = near->lent_max > 0 && before + size <= REMEMBERED_BYTES_MAX;
    if (!fits) {
        hp_blob_near_unreserve(near, size);
    }
    return fits;
}

void hp_blob_near_unreserve(struct hp_blob_near *near, uint64_t size)
{
    (void)atomic_fetch_sub(&near->fresh_bytes, size);
}

/* What was reserved is room among those not lent yet: only loans have to go for it. */
static void make_room(struct hp_blob_near *near)
{
    struct hp_list *link = near->lent.next;
    while (near->remembered_bytes > REMEMBERED_BYTES_MAX && link != &near->lent) {
        struct held *held = HP_LIST_ENTRY(link, struct held, link);
        link = link->next;
        if (held->is_memory) {
            file_free(near, held);
        }
    }
}

void hp_blob_near_remember(struct hp_blob_near *near, uint64_t id, uint64_t size, uint64_t digest,
                           int fd, uint64_t now_ms)
{
    make_descriptor_free(near);
    struct held *held = held_new(&near->files, id, fd);
    if (held == NULL) {
        hp_blob_near_unreserve(near, size); /* without memory it is lent as the file that it is */
        return;
    }
    held->size = size;
    held->digest = digest;
    held->has_digest = true;
    held->is_memory = held->is_fresh = true;
    held->lent_ms = now_ms;
    hp_list_push_back(&near->fresh, &held->link);
    near->remembered_bytes += size;
    make_room(near);
}

/* Who reads chunk by chunk is on another host: what memory holds has a digest only for him. */
static enum hp_err need_digest(struct held *held, struct hp_error *reterr)
{
    const uint8_t *data = NULL;
    if (held->has_digest) {
        return HP_OK;
    }
    if (hp_near_map(held->fd, held->size, &data) != HP_OK) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    held->digest = XXH3_64bits(data, held->size);
    held->has_digest = true;
    hp_near_unmap(data, held->size);
    return HP_OK;
}

enum hp_err hp_blob_near_read(struct hp_blob_near *near, uint64_t id, uint64_t offset,
                              uint32_t size, void *out, uint32_t *ret_size, uint64_t *ret_blob_size,
                              uint64_t *ret_digest, struct hp_error *reterr)
{
    struct held *held = hp_idmap_find_ptr(&near->kept, id);
    if (held == NULL) {
        held = hp_idmap_find_ptr(&near->files, id);
        held = held != NULL && held->is_memory ? held : NULL;
    }
    if (held == NULL) {
        return hp_error_set(reterr, HP_ERR_NOT_FOUND, "there is no such blob");
    }
    enum hp_err err = need_digest(held, reterr);
    if (err != HP_OK) {
        return err;
    }
    uint64_t left = offset < held->size ? held->size - offset : 0;
    uint32_t part = (uint32_t)HP_MIN((uint64_t)size, left);
    if (part > 0 && pread(held->fd, out, part, (off_t)offset) != (ssize_t)part) {
        return hp_error_set(reterr, HP_ERR_IO, "memory of a blob can not be read");
    }
    *ret_size = part;
    *ret_blob_size = held->size;
    *ret_digest = held->digest;
    return HP_OK;
}

/* ------------------------------------------------------------------ lent */
static void fill_loan(const struct held *held, bool is_file, struct hp_blob_loan *ret_loan)
{
    *ret_loan = (struct hp_blob_loan){.place = {.pid = (uint32_t)getpid(),
                                                .fd = (uint32_t)held->fd,
                                                .device = held->device,
                                                .inode = held->inode},
                                      .size = held->size,
                                      .digest = is_file ? held->digest : 0,
                                      .has_digest = is_file};
}

static enum hp_err open_file(struct hp_blob_near *near, uint64_t id, struct held **ret_held,
                             struct hp_error *reterr)
{
    int fd = -1;
    uint64_t size = 0;
    uint64_t digest = 0;
    enum hp_err err = hp_blob_open(near->blob_dir, id, &fd, &size, &digest, reterr);
    if (err != HP_OK) {
        return err == HP_ERR_NOT_FOUND || err == HP_ERR_CORRUPT ? err : HP_ERR_UNSUPPORTED;
    }
    make_descriptor_free(near);
    struct held *held = held_new(&near->files, id, fd);
    if (held == NULL) {
        return hp_error_set(reterr, HP_ERR_UNSUPPORTED, "out of memory");
    }
    held->size = size;
    held->digest = digest;
    held->has_digest = true;
    *ret_held = held;
    return HP_OK;
}

enum hp_err hp_blob_near_lend(struct hp_blob_near *near, uint64_t id, uint64_t now_ms,
                              struct hp_blob_loan *ret_loan, struct hp_error *reterr)
{
    struct held *held = hp_idmap_find_ptr(&near->kept, id);
    if (held != NULL) {
        fill_loan(held, false, ret_loan);
        return HP_OK;
    }
    if (near->lent_max == 0) {
        return hp_error_set(reterr, HP_ERR_UNSUPPORTED, "there are no descriptors to lend");
    }
    held = hp_idmap_find_ptr(&near->files, id);
    if (held == NULL) {
        enum hp_err err = open_file(near, id, &held, reterr);
        if (err != HP_OK) {
            return err;
        }
    }
    hp_list_remove(&held->link);
    hp_list_push_back(&near->lent, &held->link);
    held->lent_ms = now_ms;
    if (held->is_fresh) {
        held->is_fresh = false;
        hp_blob_near_unreserve(near, held->size);
    }
    fill_loan(held, !held->is_memory, ret_loan);
    return HP_OK;
}

static uint64_t expire_list(struct hp_blob_near *near, struct hp_list *list, uint64_t life_ms,
                            uint64_t now_ms)
{
    struct hp_list *first = NULL;
    while ((first = hp_list_first(list)) != NULL) {
        struct held *held = HP_LIST_ENTRY(first, struct held, link);
        if (now_ms < held->lent_ms + life_ms) {
            return held->lent_ms + life_ms;
        }
        file_free(near, held);
    }
    return UINT64_MAX;
}

uint64_t hp_blob_near_expire(struct hp_blob_near *near, uint64_t now_ms)
{
    uint64_t lent_ms = expire_list(near, &near->lent, LENT_MS, now_ms);
    uint64_t fresh_ms = expire_list(near, &near->fresh, FRESH_MS, now_ms);
    return HP_MIN(lent_ms, fresh_ms);
}
