/* SPDX-License-Identifier: BSD-2-Clause */
/* A VFS on top of SQLite's: see page_sum.h. Files other than databases go through unchanged. */
#include "server/store/page_sum.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <xxhash.h>

#include "common/base/endian.h"
#include "common/base/macro.h"
#include "common/base/mem.h"

#define SUM_BYTES 8u
#define SEED UINT64_C(0x686f7374706f6f6c)
#define PAGE_BYTES_MIN 512
#define PAGE_BYTES_MAX 65536
#define AT_PAGE_SIZE 16 /* in the header of a database */
#define AT_RESERVED 20
#define HEADER_BYTES 100
#define LOG_BYTES ((128u << 10) - 1) /* SQLite's own VFS takes no more at once */
#define CONTROL_GET 0x68700001 /* the size of checked pages, or 0 */
#define CONTROL_SET 0x68700002

struct page_file {
    sqlite3_file base; /* first: it is what SQLite sees */
    sqlite3_file *real;
    bool is_database;
    bool is_summed;      /* as far as its header is known */
    uint32_t page_bytes; /* 0: not known */
    uint8_t *room;       /* for a page that is written; of the log: LOG_BYTES that gather */
    bool is_log;
    sqlite3_int64 gather_at; /* log: room[0 .. gather_bytes) belongs there, and is not written */
    uint32_t gather_bytes;
};

static sqlite3_vfs *real_vfs;
static _Atomic uint64_t bad_page;

static struct page_file *file_of(sqlite3_file *base)
{
    return (struct page_file *)(void *)base;
}

/* ------------------------------------------------------------------ sums */
/* The first page without the counters of its header, which other programs may set (PRAGMA
 * user_version), and which SQLite itself compares or we do. */
static uint64_t sum_of_first(const uint8_t *page, uint32_t size)
{
    static const uint32_t counters[][2] = {{24, 28}, {60, 64}, {92, 100}};
    uint64_t sum = SEED + 1;
    uint32_t from = 0;
    for (size_t i = 0; i < HP_COUNT_OF(counters); i++) {
        sum = XXH3_64bits_withSeed(page + from, counters[i][0] - from, sum);
        from = counters[i][1];
    }
    return XXH3_64bits_withSeed(page + from, size - SUM_BYTES - from, sum);
}

static uint64_t sum_of(const uint8_t *page, uint32_t size, uint64_t number)
{
    return number == 1 ? sum_of_first(page, size)
                       : XXH3_64bits_withSeed(page, size - SUM_BYTES, SEED + number);
}

bool hp_page_sum_is_good(const uint8_t *page, uint32_t size, uint64_t number)
{
    return hp_get_be64(page + size - SUM_BYTES) == sum_of(page, size, number);
}

uint64_t hp_page_sum_bad_page(void)
{
    return atomic_load(&bad_page);
}

/* The first page, or its header alone. */
static void note_header(struct page_file *file, const uint8_t *header)
{
    uint32_t size = hp_get_be16(header + AT_PAGE_SIZE);
    size = size == 1 ? PAGE_BYTES_MAX : size;
    if (memcmp(header, "SQLite format 3", 16) != 0 || size < PAGE_BYTES_MIN ||
        (size & (size - 1)) != 0) {
        return; /* SQLite will say what it thinks of it */
    }
    file->page_bytes = size;
    file->is_summed = header[AT_RESERVED] != 0;
}

static bool is_page(const struct page_file *file, int size, sqlite3_int64 offset)
{
    return file->is_database && file->is_summed && size == (int)file->page_bytes &&
           offset % size == 0;
}

/* ------------------------------------------------------------------ the log */
/*
 * SQLite writes the log in two calls for each frame, one behind the other, and syncs when the
 * transaction is whole. Gathered they are one call, or a few. What was not synced was promised to
 * nobody; whoever reads, syncs, or asks for the size gets what was gathered written first.
 */
static int write_gathered(struct page_file *file)
{
    uint32_t size = file->gather_bytes;
    file->gather_bytes = 0; /* after an error, too: SQLite then knows that its write failed */
    return size == 0
               ? SQLITE_OK
               : file->real->pMethods->xWrite(file->real, file->room, (int)size, file->gather_at);
}

static int log_write(struct page_file *file, const void *data, int size, sqlite3_int64 offset)
{
    uint32_t bytes = (uint32_t)size;
    if (file->gather_bytes > 0 && (offset != file->gather_at + file->gather_bytes ||
                                   bytes > LOG_BYTES - file->gather_bytes)) {
        int code = write_gathered(file);
        if (code != SQLITE_OK) {
            return code;
        }
    }
    file->room = file->room == NULL ? hp_alloc(LOG_BYTES) : file->room;
    if (file->room == NULL || bytes > LOG_BYTES) {
        return file->real->pMethods->xWrite(file->real, data, size, offset);
    }
    file->gather_at = file->gather_bytes == 0 ? offset : file->gather_at;
    memcpy(file->room + file->gather_bytes, data, bytes);
    file->gather_bytes += bytes;
    return SQLITE_OK;
}

/* ------------------------------------------------------------------ methods that matter */
static int file_read(sqlite3_file *base, void *out, int size, sqlite3_int64 offset)
{
    struct page_file *file = file_of(base);
    int code = write_gathered(file);
    code = code == SQLITE_OK ? file->real->pMethods->xRead(file->real, out, size, offset) : code;
    if (code != SQLITE_OK || !file->is_database) {
        return code;
    }
    if (offset == 0 && size >= HEADER_BYTES) {
        note_header(file, out);
    }
    if (is_page(file, size, offset)) {
        uint64_t number = (uint64_t)(offset / size) + 1;
        if (!hp_page_sum_is_good(out, (uint32_t)size, number)) {
            atomic_store(&bad_page, number);
            return SQLITE_IOERR_DATA;
        }
    }
    return SQLITE_OK;
}

static int file_write(sqlite3_file *base, const void *data, int size, sqlite3_int64 offset)
{
    struct page_file *file = file_of(base);
    if (file->is_log) {
        return log_write(file, data, size, offset);
    }
    if (file->is_database && offset == 0 && size >= HEADER_BYTES) {
        note_header(file, data);
    }
    if (!is_page(file, size, offset)) {
        return file->real->pMethods->xWrite(file->real, data, size, offset);
    }
    if (file->room == NULL) {
        file->room = hp_alloc(PAGE_BYTES_MAX);
        if (file->room == NULL) {
            return SQLITE_IOERR_NOMEM;
        }
    }
    memcpy(file->room, data, (size_t)size);
    memset(file->room + size - HP_PAGE_SUM_BYTES, 0, HP_PAGE_SUM_BYTES);
    hp_put_be64(file->room + size - SUM_BYTES,
                sum_of(file->room, (uint32_t)size, (uint64_t)(offset / size) + 1));
    return file->real->pMethods->xWrite(file->real, file->room, size, offset);
}

static int file_close(sqlite3_file *base)
{
    struct page_file *file = file_of(base);
    int written = write_gathered(file);
    hp_free(file->room);
    file->room = NULL;
    int closed = file->real->pMethods->xClose(file->real);
    return written == SQLITE_OK ? closed : written;
}

/* ------------------------------------------------------------------ methods that pass on */
static int file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    struct page_file *file = file_of(base);
    int code = write_gathered(file);
    return code == SQLITE_OK ? file->real->pMethods->xTruncate(file->real, size) : code;
}

static int file_sync(sqlite3_file *base, int flags)
{
    struct page_file *file = file_of(base);
    int code = write_gathered(file);
    return code == SQLITE_OK ? file->real->pMethods->xSync(file->real, flags) : code;
}

static int file_size(sqlite3_file *base, sqlite3_int64 *ret_size)
{
    struct page_file *file = file_of(base);
    int code = write_gathered(file);
    return code == SQLITE_OK ? file->real->pMethods->xFileSize(file->real, ret_size) : code;
}

static int file_lock(sqlite3_file *base, int level)
{
    return file_of(base)->real->pMethods->xLock(file_of(base)->real, level);
}

static int file_unlock(sqlite3_file *base, int level)
{
    return file_of(base)->real->pMethods->xUnlock(file_of(base)->real, level);
}

static int file_is_reserved(sqlite3_file *base, int *ret_is)
{
    return file_of(base)->real->pMethods->xCheckReservedLock(file_of(base)->real, ret_is);
}

static int file_control(sqlite3_file *base, int what, void *argument)
{
    struct page_file *file = file_of(base);
    uint32_t *page_bytes = argument;
    if (what == CONTROL_GET) {
        *page_bytes = file->is_summed ? file->page_bytes : 0;
        return SQLITE_OK;
    }
    if (what == CONTROL_SET) {
        file->is_summed = *page_bytes > 0;
        file->page_bytes = *page_bytes;
        return SQLITE_OK;
    }
    return file_of(base)->real->pMethods->xFileControl(file_of(base)->real, what, argument);
}

static int file_sector_size(sqlite3_file *base)
{
    return file_of(base)->real->pMethods->xSectorSize(file_of(base)->real);
}

static int file_device(sqlite3_file *base)
{
    return file_of(base)->real->pMethods->xDeviceCharacteristics(file_of(base)->real);
}

/* Version 1: without shared memory and mapped pages, which we never use (locking_mode=EXCLUSIVE,
 * mmap_size=0), and which would pass by the sums. */
static const sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_is_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_device,
};

/* ------------------------------------------------------------------ the VFS */
static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags,
                     int *ret_flags)
{
    struct page_file *file = file_of(base);
    (void)vfs;
    *file = (struct page_file){.is_database = (flags & SQLITE_OPEN_MAIN_DB) != 0,
                               .is_log = (flags & SQLITE_OPEN_WAL) != 0};
    file->real = (sqlite3_file *)(void *)(file + 1);
    int code = real_vfs->xOpen(real_vfs, name, file->real, flags, ret_flags);
    if (file->real->pMethods != NULL) {
        file->base.pMethods = &methods;
    }
    return code;
}

/* Everything else takes the real VFS's own data: hence calls with it, not copied pointers. */
static int delete_file(sqlite3_vfs *vfs, const char *name, int sync_folder)
{
    (void)vfs;
    return real_vfs->xDelete(real_vfs, name, sync_folder);
}

static int access_file(sqlite3_vfs *vfs, const char *name, int flags, int *ret_is)
{
    (void)vfs;
    return real_vfs->xAccess(real_vfs, name, flags, ret_is);
}

static int full_path(sqlite3_vfs *vfs, const char *name, int size, char *out)
{
    (void)vfs;
    return real_vfs->xFullPathname(real_vfs, name, size, out);
}

static int randomness(sqlite3_vfs *vfs, int size, char *out)
{
    (void)vfs;
    return real_vfs->xRandomness(real_vfs, size, out);
}

static int pause_us(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    return real_vfs->xSleep(real_vfs, us);
}

static int current_time(sqlite3_vfs *vfs, double *ret_days)
{
    (void)vfs;
    return real_vfs->xCurrentTime(real_vfs, ret_days);
}

static int last_error(sqlite3_vfs *vfs, int size, char *out)
{
    (void)vfs;
    return real_vfs->xGetLastError(real_vfs, size, out);
}

static sqlite3_vfs vfs_ = {
    .iVersion = 1,
    .zName = "hostpool",
    .xOpen = open_file,
    .xDelete = delete_file,
    .xAccess = access_file,
    .xFullPathname = full_path,
    .xRandomness = randomness,
    .xSleep = pause_us,
    .xCurrentTime = current_time,
    .xGetLastError = last_error,
};
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void register_once(void)
{
    real_vfs = sqlite3_vfs_find(NULL);
    if (real_vfs == NULL) {
        return;
    }
    vfs_.szOsFile = (int)sizeof(struct page_file) + real_vfs->szOsFile;
    vfs_.mxPathname = real_vfs->mxPathname;
    if (sqlite3_vfs_register(&vfs_, 0) != SQLITE_OK) {
        real_vfs = NULL;
    }
}

const char *hp_page_sum_vfs(void)
{
    (void)pthread_once(&once, register_once); /* fails only on an invalid argument */
    return real_vfs != NULL ? vfs_.zName : NULL;
}

int hp_page_sum_reserve(sqlite3 *db)
{
    int bytes = HP_PAGE_SUM_BYTES;
    return sqlite3_file_control(db, "main", SQLITE_FCNTL_RESERVE_BYTES, &bytes);
}

int hp_page_sum_as(sqlite3 *db, sqlite3 *from)
{
    uint32_t page_bytes = 0;
    int code = sqlite3_file_control(from, "main", CONTROL_GET, &page_bytes);
    return code == SQLITE_OK ? sqlite3_file_control(db, "main", CONTROL_SET, &page_bytes) : code;
}
