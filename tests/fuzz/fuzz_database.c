/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a damaged database, opened by the real store. The first byte of the input chooses:
 * bit 0, the header says that pages have no checksums, as those made before there were any; bit 1,
 * they get right ones after the damage, as if the disk had kept what a bug wrote; bit 2, the broker
 * was killed, and there is a log. Then come edits: page, place in it, count, bytes. It opens or is
 * refused with a text; what it says of tasks is right, marked as damaged, or an error.
 */
#include "tests/unit/store_fixture.h"

#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <xxhash.h>

#include "common/base/assert.h"
#include "common/sys/file.h"
#include "server/store/offline.h"
#include "server/store/page_sum.h"

#define PAGE_BYTES 16384u
#define FILE_BYTES_MAX (1u << 20)
#define IN_LOG 0x80u    /* of an edit's page */
#define FROM_END 0x80u  /* of an edit's place: where rows are */
#define RESERVED_AT 20u /* of the header: bytes at the end of each page */

enum { NO_SUMS = 1, NEW_SUMS = 2, WITH_LOG = 4, WITH_CHECK = 8, WITH_SALVAGE = 16 };

static const char pack[] = "payloads of the group";
static const char end_bytes[] = "result bytes";

struct image {
    uint8_t *db, *log;
    size_t db_bytes, log_bytes;
};

struct world {
    char dir[200];
    char db[220], log[224], salvaged[224];
    struct image stopped, killed; /* the files of a broker that was */
    uint8_t *scratch, *scratch_log;
};

static struct world world;

static void remove_world(void)
{
    fixture_remove_dir(world.dir);
    fixture_remove_dir(world.salvaged);
}

/* ------------------------------------------------------------------ the original */
static uint8_t *read_file(const char *path, size_t *ret_size)
{
    struct hp_buf buf;
    HP_ASSERT(hp_file_read(path, FILE_BYTES_MAX, &buf, NULL) == HP_OK);
    uint8_t *bytes = hp_alloc(FILE_BYTES_MAX);
    HP_ASSERT(bytes != NULL);
    memcpy(bytes, buf.data, buf.size);
    *ret_size = buf.size;
    hp_buf_deinit(&buf);
    return bytes;
}

static void write_file(const char *path, const uint8_t *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    HP_ASSERT(fd >= 0 && hp_fd_write_all(fd, bytes, size) == HP_OK);
    (void)close(fd);
}

static enum hp_err open_store(bool create, struct hp_store **ret_store, struct hp_error *error)
{
    struct hp_store_options options = {
        .dir = world.dir, .create = create, .wal_bytes = 4096, .ballast_bytes = 4096};
    return hp_store_sqlite_open(&options, ret_store, error);
}

static void on_record(void *context, const struct hp_record *record)
{
    uint64_t *count = context;
    HP_ASSERT(record->kind >= HP_RECORD_META && record->kind <= HP_RECORD_UKEY);
    HP_ASSERT((*count == 0) == (record->kind == HP_RECORD_META));
    ++*count;
}

/* Two groups of ten, some with results, a lease, a side row, a lane. */
static void fill(struct fixture *f)
{
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 1, 10, 1, 1000, "options", pack);
    add_segment(batch, 1, 0, 1, 10, 1000);
    add_lane(batch, 1, "lane", 0, 1, 10);
    add_group(batch, 11, 10, 1, 1000, "options", pack);
    apply(f, batch);
    batch = begin_batch(f);
    for (uint64_t id = 1; id <= 5; id++) {
        add_result(batch, id, 1, 1, INT64_C(1) << 60, end_bytes);
    }
    add_lease(batch, 6, 1, 1);
    add_side(batch, HP_SIDE_BURIED, 7, 1, 0);
    add_side(batch, HP_SIDE_DELAYED, 8, 2, 5000);
    apply(f, batch);
}

static void make_world(void)
{
    struct fixture f = {0};
    struct hp_error error = {0};
    uint64_t records = 0;
    (void)snprintf(world.dir, sizeof(world.dir), "/dev/shm/hp-fuzz-db-XXXXXX");
    HP_ASSERT(mkdtemp(world.dir) != NULL);
    (void)snprintf(world.db, sizeof(world.db), "%s/hostpool.db", world.dir);
    (void)snprintf(world.log, sizeof(world.log), "%s-wal", world.db);
    (void)snprintf(world.salvaged, sizeof(world.salvaged), "%s.new", world.dir);
    HP_ASSERT(atexit(remove_world) == 0);
    HP_ASSERT(open_store(true, &f.store, &error) == HP_OK);
    HP_ASSERT(hp_store_recover(f.store, on_record, &records, &error) == HP_OK);
    fill(&f);
    world.killed.db = read_file(world.db, &world.killed.db_bytes);
    world.killed.log = read_file(world.log, &world.killed.log_bytes);
    hp_store_close(f.store);
    world.stopped.db = read_file(world.db, &world.stopped.db_bytes);
    world.scratch = hp_alloc(FILE_BYTES_MAX);
    world.scratch_log = hp_alloc(FILE_BYTES_MAX);
    HP_ASSERT(world.scratch != NULL && world.scratch_log != NULL);
}

/* ------------------------------------------------------------------ damage */
static void change(uint8_t *file, size_t size, const uint8_t edit[4], const uint8_t *bytes)
{
    size_t pages = (size + PAGE_BYTES - 1) / PAGE_BYTES;
    size_t from = pages > 0 ? (size_t)(edit[0] & ~IN_LOG) % pages * PAGE_BYTES : 0;
    size_t place = (size_t)(edit[1] & ~FROM_END) << 8 | edit[2];
    size_t at = (edit[1] & FROM_END) != 0 ? from + PAGE_BYTES - 1 - place % PAGE_BYTES
                                          : from + place % PAGE_BYTES;
    for (size_t i = 0; i < edit[3] && at + i < size; i++) {
        file[at + i] = bytes[i];
    }
}

static void sum_pages(uint8_t *file, size_t size)
{
    for (size_t at = 0; at + PAGE_BYTES <= size; at += PAGE_BYTES) {
        uint64_t sum = XXH3_64bits_withSeed(file + at, PAGE_BYTES - 8, at);
        memcpy(file + at + PAGE_BYTES - 8, &sum, sizeof(sum));
    }
}

/* Writes the damaged files; true if anything is not as it was. */
static bool put_damaged(const struct image *image, uint8_t how, const uint8_t *data, size_t size)
{
    memcpy(world.scratch, image->db, image->db_bytes);
    if (image->log_bytes > 0) {
        memcpy(world.scratch_log, image->log, image->log_bytes);
    }
    for (size_t at = 0; at + 4 <= size; at += 4) {
        uint8_t edit[4];
        memcpy(edit, data + at, sizeof(edit));
        edit[3] = (uint8_t)HP_MIN((size_t)edit[3] % 16 + 1, size - at - 4);
        bool in_log = (edit[0] & IN_LOG) != 0 && image->log_bytes > 0;
        change(in_log ? world.scratch_log : world.scratch,
               in_log ? image->log_bytes : image->db_bytes, edit, data + at + 4);
        at += edit[3];
    }
    if ((how & NO_SUMS) != 0) {
        world.scratch[RESERVED_AT] = 0;
    } else if ((how & NEW_SUMS) != 0) {
        sum_pages(world.scratch, image->db_bytes);
    }
    write_file(world.db, world.scratch, image->db_bytes);
    (void)unlink(world.log);
    if (image->log_bytes > 0) {
        write_file(world.log, world.scratch_log, image->log_bytes);
    }
    return memcmp(world.scratch, image->db, image->db_bytes) != 0 ||
           (image->log_bytes > 0 && memcmp(world.scratch_log, image->log, image->log_bytes) != 0);
}

/* ------------------------------------------------------------------ what it says */
static bool is_same(struct hp_bin bin, const char *text)
{
    return bin.size == strlen(text) && memcmp(bin.data, text, bin.size) == 0;
}

static void check_answer(const struct hp_loaded *loaded)
{
    HP_ASSERT(loaded->err == HP_OK || loaded->text.size > 0);
    for (uint32_t i = 0; loaded->err == HP_OK && i < loaded->group_count; i++) {
        const struct hp_loaded_group *group = &loaded->groups[i];
        HP_ASSERT(group->damaged || group->pack.size == 0 || is_same(group->pack, pack));
        HP_ASSERT(group->damaged || is_same(group->options, "options"));
    }
    for (uint32_t i = 0; loaded->err == HP_OK && i < loaded->task_count; i++) {
        const struct hp_loaded_task *task = &loaded->tasks[i];
        HP_ASSERT(task->damaged || !task->ended || task->result.end.size == 0 ||
                  is_same(task->result.end, end_bytes));
    }
}

/* All that one kind of load has to say, in slices. */
static void ask(struct hp_store *store, enum hp_load_kind kind)
{
    struct hp_load *load = hp_load_new(kind);
    load->lane = 1;
    load->limit = 100;
    load->with_end = true;
    if (kind == HP_LOAD_TASKS || kind == HP_LOAD_GROUPS) {
        load->spans = calloc(1, sizeof(*load->spans));
        HP_ASSERT(load->spans != NULL);
        load->spans[0] = (struct hp_id_span){.first = 1, .count = 22};
        load->span_count = 1;
    } else if (kind == HP_LOAD_SESSION) {
        hp_load_set_text(load, "0123456789abcdef", 16);
    }
    struct hp_loaded *loaded = run_load(store, load);
    check_answer(loaded);
    hp_loaded_free(loaded);
}

static void use(struct hp_store *store)
{
    struct hp_error error = {0};
    uint64_t records = 0;
    bool more = false;
    if (hp_store_recover(store, on_record, &records, &error) != HP_OK) {
        HP_ASSERT(error.text[0] != '\0');
        return;
    }
    for (int kind = HP_LOAD_LANE; kind <= HP_LOAD_CHECK; kind++) {
        ask(store, (enum hp_load_kind)kind);
    }
    struct hp_batch *batch = hp_batch_new();
    HP_ASSERT(batch != NULL);
    hp_batch_clear(batch, 1000);
    add_result(batch, 11, 2, 1, INT64_C(1) << 60, end_bytes);
    hp_batch_add(batch, HP_OP_REAP)->reap.wall_ms = INT64_C(1) << 61;
    enum hp_err err = hp_store_apply(store, &batch, 1, &error);
    for (int i = 0; err == HP_OK && (i == 0 || more) && i < 100; i++) {
        err = hp_store_idle(store, &more, &error);
    }
    HP_ASSERT(err == HP_OK || error.text[0] != '\0');
    hp_batch_free(batch);
}

/* As the commands for a directory that no broker has open. */
static void look(uint8_t how)
{
    struct hp_error error = {0};
    if ((how & WITH_CHECK) != 0) {
        struct hp_offline_check check = {0};
        enum hp_err err = hp_offline_check(world.dir, &check, &error);
        HP_ASSERT(err == HP_OK || error.text[0] != '\0');
        hp_buf_deinit(&check.lines);
    }
    if ((how & WITH_SALVAGE) != 0) {
        struct hp_offline_salvage salvage = {0};
        enum hp_err err = hp_offline_salvage(world.dir, world.salvaged, &salvage, &error);
        HP_ASSERT(err == HP_OK || error.text[0] != '\0');
        HP_ASSERT(err != HP_OK || salvage.task_count <= 20);
        hp_buf_deinit(&salvage.lines);
        fixture_remove_dir(world.salvaged);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hp_store *store = NULL;
    struct hp_error error = {0};
    if (world.dir[0] == '\0') {
        make_world();
    }
    if (size == 0) {
        return 0;
    }
    uint8_t how = data[0];
    bool is_damaged = put_damaged((how & WITH_LOG) != 0 ? &world.killed : &world.stopped, how,
                                  data + 1, size - 1);
    look(how);
    enum hp_err err = open_store(false, &store, &error);
    if (err == HP_OK) {
        use(store);
        hp_store_close(store);
    } else {
        HP_ASSERT(is_damaged && error.text[0] != '\0');
    }
    return 0;
}
