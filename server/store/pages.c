/* SPDX-License-Identifier: BSD-2-Clause */
/* The format is SQLite's, as its documents "Database File Format" and "WAL-mode File Format" say.
 */
#include "server/store/pages.h"
#include "server/store/page_sum.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/idmap.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/file.h"
#include "server/store/sqlite.h"
#include "server/store/wal.h"

#define PATH_BYTES 4096
#define HEADER_BYTES 100u
#define ROW_BYTES_MAX ((uint64_t)64 << 20)
#define DEPTH_MAX 24 /* a tree of 2^31 pages of 512 bytes is not higher */

enum page_type { INDEX_INNER = 2, TABLE_INNER = 5, INDEX_LEAF = 10, TABLE_LEAF = 13 };
enum { SEEN = 1 };

struct hp_pages {
    int db_fd;
    int wal_fd;
    uint64_t db_bytes;
    uint64_t wal_bytes;
    uint32_t page_bytes;
    uint32_t used_bytes; /* of each: without what is reserved at its end (page_sum.h) */
    uint32_t page_count;
    struct hp_idmap frames; /* page -> offset of its bytes in the log: what is committed */
    uint64_t frames_end;    /* offset behind the last committed frame */
    uint8_t salt[8];
    uint8_t *seen; /* a byte for each page */
    uint8_t *body; /* a row being put together */
    uint64_t body_capacity;
    struct hp_pages_figures figures;
    hp_pages_fn *fn;
    void *context;
    struct hp_error *reterr;
};

static uint32_t be16(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

static uint32_t be32(const uint8_t *at)
{
    return be16(at) << 16 | be16(at + 2);
}

static bool read_at(int fd, uint64_t offset, void *out, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = pread(fd, (uint8_t *)out + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false; /* the end of the file, or a sector that the disk cannot read */
        }
        done += (size_t)n;
    }
    return true;
}

static bool read_page(const struct hp_pages *p, uint32_t page, uint8_t *out)
{
    uint64_t offset = 0;
    if (page == 0 || page > p->page_count) {
        return false;
    }
    if (p->wal_fd >= 0 && hp_idmap_find(&p->frames, page, &offset)) {
        return read_at(p->wal_fd, offset, out, p->page_bytes);
    }
    return read_at(p->db_fd, (uint64_t)(page - 1) * p->page_bytes, out, p->page_bytes);
}

/* ------------------------------------------------------------------ the log */
/* The mark of the frames that belong together, where the log's header does not tell: that which
 * most of the first frames carry. */
static void guess_salt(struct hp_pages *p)
{
    enum { LOOK = 16 };
    uint8_t found[LOOK][sizeof(p->salt)];
    int count = 0;
    int most = 0;
    for (; count < LOOK; count++) {
        uint64_t at =
            HP_WAL_HEADER_BYTES + (uint64_t)count * (HP_WAL_FRAME_BYTES + (uint64_t)p->page_bytes);
        if (!read_at(p->wal_fd, at + 8, found[count], sizeof(found[count]))) {
            break;
        }
    }
    for (int i = 0; i < count; i++) {
        int same = 0;
        for (int k = 0; k < count; k++) {
            same += memcmp(found[i], found[k], sizeof(found[i])) == 0;
        }
        if (same > most) {
            most = same;
            memcpy(p->salt, found[i], sizeof(p->salt));
        }
    }
}

/* Takes in what was committed; stops where it cannot be verified. */
static enum hp_err read_log(struct hp_pages *p, uint8_t *page, struct hp_error *reterr)
{
    uint8_t header[HP_WAL_HEADER_BYTES];
    uint8_t frame[HP_WAL_FRAME_BYTES];
    uint32_t sum[2] = {0, 0};
    struct hp_idmap pending; /* of the transaction that is being read */
    if (!read_at(p->wal_fd, 0, header, sizeof(header))) {
        return HP_OK; /* empty: closed in order */
    }
    bool big = false;
    bool good = hp_wal_header_is_good(header, &big, sum) && be32(header + 8) == p->page_bytes;
    p->frames_end = HP_WAL_HEADER_BYTES;
    memcpy(p->salt, header + 16, sizeof(p->salt));
    if (!good) {
        p->figures.log_damaged = !hp_wal_is_blank(header); /* then see look */
        guess_salt(p);
        return HP_OK;
    }
    hp_idmap_init(&pending, 0);
    enum hp_err err = HP_OK;
    uint64_t frame_bytes = HP_WAL_FRAME_BYTES + (uint64_t)p->page_bytes;
    for (uint64_t at = HP_WAL_HEADER_BYTES; err == HP_OK; at += frame_bytes) {
        if (!read_at(p->wal_fd, at, frame, sizeof(frame)) ||
            memcmp(frame + 8, p->salt, sizeof(p->salt)) != 0 ||
            !read_at(p->wal_fd, at + sizeof(frame), page, p->page_bytes)) {
            break;
        }
        if (!hp_wal_frame_is_good(frame, big, p->salt, page, p->page_bytes, sum)) {
            p->figures.log_damaged = true;
            break;
        }
        err = hp_idmap_put(&pending, be32(frame), at + sizeof(frame));
        if (be32(frame + 4) != 0) { /* a commit */
            struct hp_idmap_iter iter = {0};
            uint64_t number = 0;
            uint64_t offset = 0;
            while (err == HP_OK && hp_idmap_next(&pending, &iter, &number, &offset)) {
                err = hp_idmap_put(&p->frames, number, offset);
            }
            p->page_count = be32(frame + 4);
            p->frames_end = at + frame_bytes;
            hp_idmap_deinit(&pending);
            hp_idmap_init(&pending, 0);
        }
    }
    hp_idmap_deinit(&pending);
    return err == HP_OK ? HP_OK : hp_error_set(reterr, err, NULL);
}

/* ------------------------------------------------------------------ opening */
static bool page_size_of(const uint8_t *header, uint32_t *ret_bytes)
{
    uint32_t size = be16(header + 16);
    size = size == 1 ? 65536 : size;
    *ret_bytes = size;
    return memcmp(header, "SQLite format 3", 16) == 0 && size >= 512 && (size & (size - 1)) == 0;
}

static enum hp_err open_files(struct hp_pages *p, const char *dir, struct hp_error *reterr)
{
    char path[PATH_BYTES];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/hostpool.db", dir);
    p->db_fd = open(path, O_RDONLY | O_CLOEXEC);
    struct hp_error error = {0};
    enum hp_err err = HP_OK;
    if (p->db_fd < 0 || fstat(p->db_fd, &st) != 0) {
        err = hp_error_set(&error, hp_err_of_errno(errno), "%.200s: %s", path, strerror(errno));
    } else {
        p->db_bytes = (uint64_t)st.st_size;
    }
    (void)snprintf(path, sizeof(path), "%s/hostpool.db-wal", dir);
    p->wal_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (p->wal_fd < 0 && errno != ENOENT) {
        return hp_error_set(reterr, hp_err_of_errno(errno), "%.200s: %s", path, strerror(errno));
    }
    if (err != HP_OK && (err != HP_ERR_NOT_FOUND || p->wal_fd < 0)) {
        *reterr = error; /* a log without its database still holds something */
        return err;
    }
    if (p->wal_fd >= 0 && fstat(p->wal_fd, &st) == 0) {
        p->wal_bytes = (uint64_t)st.st_size;
        p->figures.has_log = st.st_size > 0;
    }
    return HP_OK;
}

/* Is any of the first pages as page_sum.c writes them? The header may be damaged. */
static bool has_sums(const struct hp_pages *p)
{
    uint8_t *page = hp_alloc(p->page_bytes);
    bool found = false;
    for (uint64_t i = 0; page != NULL && i < 16 && !found; i++) {
        found = read_at(p->db_fd, i * p->page_bytes, page, p->page_bytes) &&
                hp_page_sum_is_good(page, p->page_bytes, i + 1);
    }
    hp_free(page);
    return found;
}

static enum hp_err look(struct hp_pages *p, struct hp_error *reterr)
{
    uint8_t header[HEADER_BYTES] = {0};
    bool has_header = read_at(p->db_fd, 0, header, sizeof(header));
    if (!has_header || !page_size_of(header, &p->page_bytes)) {
        p->figures.no_header = true;
        p->page_bytes = HP_SQLITE_PAGE_BYTES;
    }
    bool is_summed = header[20] != 0 || has_sums(p);
    p->figures.no_file = p->db_bytes < HP_STORE_DB_BYTES_MIN;
    p->used_bytes = p->page_bytes - (is_summed ? HP_PAGE_SUM_BYTES : 0);
    uint64_t in_file = (p->db_bytes + p->page_bytes - 1) / p->page_bytes;
    uint64_t said = p->figures.no_header ? 0 : be32(header + 28);
    /* A number that damage made huge would only cost time: no more than four times the file. */
    p->page_count = (uint32_t)HP_MIN(HP_MAX(in_file, HP_MIN(said, 4 * in_file + 4096)), INT32_MAX);
    uint8_t *page = hp_alloc(p->page_bytes);
    if (page == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    enum hp_err err = p->wal_fd >= 0 ? read_log(p, page, reterr) : HP_OK;
    hp_free(page);
    if (err == HP_OK && p->wal_fd >= 0 &&
        hp_wal_check_fd(p->wal_fd, "", NULL) == HP_ERR_CORRUPT) {
        p->figures.log_damaged = true; /* also where a frame's mark is what is damaged */
    }
    if (err == HP_OK) {
        p->page_count = (uint32_t)HP_MAX(in_file, p->page_count);
        p->seen = hp_calloc((size_t)p->page_count + 1, 1);
        err = p->seen != NULL ? HP_OK : hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    p->figures.page_count = p->page_count;
    return err;
}

enum hp_err hp_pages_open(const char *dir, struct hp_pages **ret_pages, struct hp_error *reterr)
{
    struct hp_pages *p = hp_calloc(1, sizeof(*p));
    if (p == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    p->db_fd = -1;
    p->wal_fd = -1;
    hp_idmap_init(&p->frames, 0);
    enum hp_err err = open_files(p, dir, reterr);
    if (err == HP_OK) {
        err = look(p, reterr);
    }
    if (err != HP_OK) {
        hp_pages_close(p);
        return err;
    }
    *ret_pages = p;
    return HP_OK;
}

void hp_pages_close(struct hp_pages *pages)
{
    if (pages != NULL) {
        hp_fd_close(&pages->db_fd);
        hp_fd_close(&pages->wal_fd);
        hp_idmap_deinit(&pages->frames);
        hp_free(pages->seen);
        hp_free(pages->body);
        hp_free(pages);
    }
}

void hp_pages_figures(const struct hp_pages *pages, struct hp_pages_figures *ret_figures)
{
    *ret_figures = pages->figures;
}

/* ------------------------------------------------------------------ rows */
/* A varint of SQLite: 1 to 9 bytes, high bits first. False: it does not end before `end`. */
static bool get_varint(const uint8_t **at, const uint8_t *end, uint64_t *ret_value)
{
    uint64_t value = 0;
    for (int i = 0; i < 9; i++) {
        if (*at >= end) {
            return false;
        }
        uint8_t byte = *(*at)++;
        if (i == 8) {
            *ret_value = value << 8 | byte;
            return true;
        }
        value = value << 7 | (byte & 0x7f);
        if (byte < 0x80) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

static bool get_column(uint64_t type, const uint8_t **at, const uint8_t *end,
                       struct hp_pages_column *ret)
{
    static const uint8_t sizes[] = {0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0};
    uint64_t size = type < 12 ? sizes[type] : (type - 12) / 2;
    if (size > (uint64_t)(end - *at)) {
        return false;
    }
    *ret = (struct hp_pages_column){.type = HP_PAGES_NULL};
    if (type >= 12) {
        ret->type = HP_PAGES_BYTES;
        ret->bytes = (struct hp_bin){.data = *at, .size = (uint32_t)size};
    } else if (type != 0) {
        uint64_t value = size > 0 && ((*at)[0] & 0x80) != 0 ? UINT64_MAX : 0;
        for (uint64_t i = 0; i < size; i++) {
            value = value << 8 | (*at)[i];
        }
        ret->type = HP_PAGES_INT;
        ret->number = type >= 8 ? (int64_t)type - 8 : (int64_t)value;
    }
    *at += size;
    return true;
}

/* Splits p->body into columns; false: it is no record, or not one of ours. */
static bool get_record(const struct hp_pages *p, uint64_t size, struct hp_pages_row *row)
{
    const uint8_t *at = p->body;
    const uint8_t *end = p->body + size;
    uint64_t header = 0;
    if (!get_varint(&at, end, &header) || header > size || header < 2) {
        return false;
    }
    const uint8_t *types_end = p->body + header;
    const uint8_t *value = types_end;
    row->column_count = 0;
    while (at < types_end) {
        uint64_t type = 0;
        if (row->column_count == HP_PAGES_COLUMNS_MAX || !get_varint(&at, types_end, &type) ||
            !get_column(type, &value, end, &row->columns[row->column_count++])) {
            return false;
        }
    }
    return true;
}

/* Reads the chain of overflow pages that holds what the cell has no room for. */
static void get_overflow(struct hp_pages *p, uint32_t page, uint64_t from, uint64_t size,
                         struct hp_pages_row *row)
{
    uint8_t *buffer = hp_alloc(p->page_bytes);
    uint32_t steps = 0;
    while (buffer != NULL && from < size && page != 0 && steps++ <= p->page_count) {
        if (!read_page(p, page, buffer)) {
            break;
        }
        p->seen[page] |= SEEN;
        uint64_t n = HP_MIN(size - from, (uint64_t)p->used_bytes - 4);
        memcpy(p->body + from, buffer + 4, n);
        from += n;
        page = be32(buffer);
    }
    hp_free(buffer);
    if (from < size) {
        memset(p->body + from, 0, size - from);
        row->is_whole = false;
    }
}

static bool reserve_body(struct hp_pages *p, uint64_t size)
{
    if (size > p->body_capacity) {
        uint8_t *body = hp_realloc_array(p->body, size, 1);
        if (body == NULL) {
            return false;
        }
        p->body = body;
        p->body_capacity = size;
    }
    return true;
}

/* Tells the row of one cell. What is no row at all is passed over: nothing proves it. */
static enum hp_err tell_cell(struct hp_pages *p, const uint8_t *page, uint32_t offset,
                             struct hp_pages_row *row)
{
    const uint8_t *end = page + p->used_bytes;
    const uint8_t *at = page + offset;
    uint64_t size = 0;
    bool is_inner = page[row->page == 1 ? HEADER_BYTES : 0] == INDEX_INNER;
    at += is_inner && end - at > 4 ? 4 : 0;
    if (!get_varint(&at, end, &size) || size > ROW_BYTES_MAX || size < 2 ||
        (row->has_rowid && !get_varint(&at, end, &row->rowid))) {
        return HP_OK;
    }
    uint64_t most = row->has_rowid ? p->used_bytes - 35 : (p->used_bytes - 12) * 64 / 255 - 23;
    uint64_t least = (uint64_t)(p->used_bytes - 12) * 32 / 255 - 23;
    uint64_t local = size;
    if (size > most) {
        local = least + (size - least) % (p->used_bytes - 4);
        local = local <= most ? local : least;
    }
    uint64_t needed = local + (size > most ? 4 : 0);
    if (needed > (uint64_t)(end - at)) {
        return HP_OK;
    }
    if (!reserve_body(p, size)) {
        return hp_error_set(p->reterr, HP_ERR_NOMEM, NULL);
    }
    memcpy(p->body, at, local);
    row->is_whole = true;
    if (local < size) {
        get_overflow(p, be32(at + local), local, size, row);
    }
    return get_record(p, size, row) ? p->fn(p->context, row, p->reterr) : HP_OK;
}

static enum hp_err tell_page(struct hp_pages *p, const uint8_t *page, struct hp_pages_row *row)
{
    uint32_t head = row->page == 1 ? HEADER_BYTES : 0;
    uint8_t type = page[head];
    uint32_t cells = be16(page + head + 3);
    uint32_t index = head + (type == INDEX_INNER || type == TABLE_INNER ? 12 : 8);
    row->has_rowid = type == TABLE_LEAF;
    enum hp_err err = HP_OK;
    for (uint32_t i = 0; err == HP_OK && i < cells && index + 2 * i + 2 <= p->used_bytes; i++) {
        uint32_t offset = be16(page + index + 2 * i);
        if (offset >= index && offset < p->used_bytes - 4) {
            err = tell_cell(p, page, offset, row);
        }
    }
    return err;
}

/* ------------------------------------------------------------------ trees */
struct tree {
    const char *table;
    bool is_list; /* the list of tables: its rows are followed, not told */
    int depth;
};

static enum hp_err walk(struct hp_pages *p, uint32_t number, struct tree tree);

static enum hp_err walk_children(struct hp_pages *p, const uint8_t *page, uint32_t number,
                                 struct tree tree)
{
    uint32_t head = number == 1 ? HEADER_BYTES : 0;
    uint32_t cells = be16(page + head + 3);
    tree.depth++;
    enum hp_err err = HP_OK;
    for (uint32_t i = 0; err == HP_OK && i < cells; i++) {
        uint32_t slot = head + 12 + 2 * i;
        uint32_t offset = slot + 2 <= p->used_bytes ? be16(page + slot) : 0;
        if (offset >= head + 12 && offset <= p->used_bytes - 4) {
            err = walk(p, be32(page + offset), tree);
        }
    }
    return err == HP_OK ? walk(p, be32(page + head + 8), tree) : err;
}

/* A row of the list of tables: type, name, table, root page, SQL. */
static enum hp_err walk_table(struct hp_pages *p, const struct hp_pages_row *row)
{
    char name[HP_PAGES_NAME_BYTES];
    if (row->column_count < 5 || row->columns[2].type != HP_PAGES_BYTES ||
        row->columns[3].type != HP_PAGES_INT || row->columns[3].number <= 0 ||
        row->columns[3].number > p->page_count) {
        return HP_OK;
    }
    struct hp_bin text = row->columns[2].bytes;
    (void)snprintf(name, sizeof(name), "%.*s", (int)text.size, (const char *)text.data);
    uint32_t root = (uint32_t)row->columns[3].number;
    bool is_table = row->columns[0].bytes.size == 5; /* else "index": told, and not recognised */
    return walk(p, root, (struct tree){.table = is_table ? name : ""});
}

/* A leaf of the list of tables. Its rows are short: none has overflow pages. */
static enum hp_err walk_list_page(struct hp_pages *p, const uint8_t *page, uint32_t number)
{
    enum hp_err err = HP_OK;
    uint32_t head = number == 1 ? HEADER_BYTES : 0;
    uint32_t cells = be16(page + head + 3);
    const uint8_t *end = page + p->used_bytes;
    for (uint32_t i = 0; err == HP_OK && i < cells; i++) {
        uint32_t slot = head + 8 + 2 * i;
        uint32_t offset = slot + 2 <= p->used_bytes ? be16(page + slot) : 0;
        if (offset < head + 8 || offset >= p->used_bytes) {
            continue;
        }
        struct hp_pages_row row = {.page = number};
        const uint8_t *at = page + offset;
        uint64_t size = 0;
        if (get_varint(&at, end, &size) && get_varint(&at, end, &row.rowid) &&
            size <= (uint64_t)(end - at) && reserve_body(p, size)) {
            memcpy(p->body, at, size);
            err = get_record(p, size, &row) ? walk_table(p, &row) : HP_OK;
        }
    }
    return err;
}

static enum hp_err walk(struct hp_pages *p, uint32_t number, struct tree tree)
{
    if (number == 0 || number > p->page_count || (p->seen[number] & SEEN) != 0 ||
        tree.depth > DEPTH_MAX) {
        return HP_OK;
    }
    uint8_t *page = hp_alloc(p->page_bytes);
    if (page == NULL) {
        return hp_error_set(p->reterr, HP_ERR_NOMEM, NULL);
    }
    enum hp_err err = HP_OK;
    uint32_t head = number == 1 ? HEADER_BYTES : 0;
    struct hp_pages_row row = {.origin = HP_PAGES_LIVE, .table = tree.table, .page = number};
    if (!read_page(p, number, page)) {
        p->figures.missing_count++;
        hp_free(page);
        return HP_OK;
    }
    switch (page[head]) {
    case TABLE_LEAF:
        p->seen[number] |= SEEN;
        err = tree.is_list ? walk_list_page(p, page, number) : tell_page(p, page, &row);
        break;
    case INDEX_LEAF:
        p->seen[number] |= SEEN;
        err = tell_page(p, page, &row);
        break;
    case INDEX_INNER: /* its cells are rows, too */
        p->seen[number] |= SEEN;
        err = tell_page(p, page, &row);
        err = err == HP_OK ? walk_children(p, page, number, tree) : err;
        break;
    case TABLE_INNER:
        p->seen[number] |= SEEN;
        err = walk_children(p, page, number, tree);
        break;
    default:
        p->figures.damaged_count++;
        p->figures.no_tables = p->figures.no_tables || tree.is_list;
    }
    hp_free(page);
    return err;
}

/* Marks free pages: what stands there was deleted. */
static void walk_free(struct hp_pages *p, uint8_t *page)
{
    uint32_t trunk = read_page(p, 1, page) ? be32(page + 32) : 0;
    while (trunk != 0 && trunk <= p->page_count && (p->seen[trunk] & SEEN) == 0 &&
           read_page(p, trunk, page)) {
        uint32_t count = be32(page + 4);
        p->seen[trunk] |= SEEN;
        for (uint32_t i = 0; i < count && 8 + 4 * i + 4 <= p->used_bytes; i++) {
            uint32_t leaf = be32(page + 8 + 4 * (size_t)i);
            if (leaf > 0 && leaf <= p->page_count) {
                p->seen[leaf] |= SEEN;
            }
        }
        trunk = be32(page);
    }
}

/* ------------------------------------------------------------------ what nothing leads to */
static enum hp_err tell_loose(struct hp_pages *p, uint8_t *page)
{
    enum hp_err err = HP_OK;
    for (uint32_t number = 2; err == HP_OK && number <= p->page_count; number++) {
        struct hp_pages_row row = {.origin = HP_PAGES_LOOSE, .table = "", .page = number};
        if ((p->seen[number] & SEEN) == 0 && read_page(p, number, page) &&
            (page[0] == TABLE_LEAF || page[0] == INDEX_LEAF || page[0] == INDEX_INNER)) {
            p->figures.loose_count++;
            err = tell_page(p, page, &row);
        }
    }
    return err;
}

static enum hp_err tell_frames(struct hp_pages *p, uint8_t *page)
{
    uint8_t frame[HP_WAL_FRAME_BYTES];
    enum hp_err err = HP_OK;
    if (p->wal_fd < 0 || !p->figures.log_damaged) {
        return HP_OK; /* frames of a transaction that was never committed, or of an older log */
    }
    for (uint64_t at = p->frames_end; err == HP_OK; at += sizeof(frame) + p->page_bytes) {
        if (!read_at(p->wal_fd, at, frame, sizeof(frame)) ||
            !read_at(p->wal_fd, at + sizeof(frame), page, p->page_bytes)) {
            break;
        }
        struct hp_pages_row row = {.origin = HP_PAGES_FRAME, .table = "", .page = be32(frame)};
        if (memcmp(frame + 8, p->salt, sizeof(p->salt)) != 0 || row.page < 2) {
            continue;
        }
        p->figures.frame_count++;
        if (page[0] == TABLE_LEAF || page[0] == INDEX_LEAF || page[0] == INDEX_INNER) {
            err = tell_page(p, page, &row);
        }
    }
    return err;
}

enum hp_err hp_pages_each(struct hp_pages *pages, hp_pages_fn *fn, void *context,
                          struct hp_error *reterr)
{
    struct hp_pages *p = pages;
    p->fn = fn;
    p->context = context;
    p->reterr = reterr;
    uint8_t *page = hp_alloc(p->page_bytes);
    if (page == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    enum hp_err err = walk(p, 1, (struct tree){.table = "", .is_list = true});
    if (err == HP_OK) {
        walk_free(p, page);
        err = tell_loose(p, page);
    }
    if (err == HP_OK) {
        err = tell_frames(p, page);
    }
    hp_free(page);
    return err;
}
