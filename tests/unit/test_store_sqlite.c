/* SPDX-License-Identifier: BSD-2-Clause */
/* What only the SQLite store has: files, damage, crashes, a full disk, backups, bounded work. */
#include "tests/unit/store_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "common/base/rand.h"
#include "server/store/blob_file.h"
#include "server/store/page_sum.h"

#define WALL INT64_C(1700000000000)

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    fixture_open(f, true);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    fixture_close(f);
    free(f);
    return 0;
}

static void path_of(const struct fixture *f, const char *name, char path[300])
{
    (void)snprintf(path, 300, "%s/%s", f->dir, name);
}

static void close_store(struct fixture *f)
{
    hp_store_close(f->store);
    f->store = NULL;
}

static void expect_open(struct fixture *f, bool create, enum hp_err expected, const char *text)
{
    struct hp_error error = {0};
    enum hp_err err = fixture_open_dir(f->dir, create, &f->store, &error);
    if (err != expected) {
        print_error("%d: %s\n", (int)err, error.text);
    }
    assert_int_equal(err, expected);
    if (text != NULL) {
        assert_non_null(strstr(error.text, text));
    }
}

/* Runs SQL on a closed database. */
static void run_sql(const struct fixture *f, const char *sql)
{
    char path[300];
    sqlite3 *db = NULL;
    path_of(f, "hostpool.db", path);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, hp_page_sum_vfs()),
                     SQLITE_OK);
    (void)sqlite3_exec(db, "PRAGMA locking_mode=EXCLUSIVE", NULL, NULL, NULL); /* the VFS's way */
    int code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    if (code != SQLITE_OK) {
        print_error("%s\n", sqlite3_errmsg(db));
    }
    assert_int_equal(code, SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void fill(struct fixture *f)
{
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 1, 10, 1, WALL, "options", "payloads of the group");
    add_segment(batch, 1, 0, 1, 10, WALL);
    add_lane(batch, 1, "lane", 0, 1, 10);
    add_group(batch, 11, 10, 1, WALL, "options", "payloads of another");
    apply(f, batch);
    batch = begin_batch(f);
    for (uint64_t id = 1; id <= 5; id++) {
        add_result(batch, id, 1, 1, WALL, "result bytes");
    }
    add_lease(batch, 6, 1, 1);
    add_side(batch, HP_SIDE_BURIED, 7, 1, 0);
    apply(f, batch);
}

/* ------------------------------------------------------------------ opening */
static void test_files(void **state)
{
    struct fixture *f = *state;
    char path[300];
    struct stat st;
    path_of(f, "hostpool.db", path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    path_of(f, "blobs", path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    path_of(f, "ballast", path);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_blocks * 512 >= 256 << 10);
    path_of(f, "hostpool.db-wal", path);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size >= 256 << 10); /* grown ahead */
    path_of(f, "hostpool.db-shm", path);
    assert_int_not_equal(stat(path, &st), 0); /* exclusive: no shared memory */

    struct hp_store *second = NULL;
    struct hp_error error = {0};
    assert_int_equal(fixture_open_dir(f->dir, false, &second, &error), HP_ERR_BUSY);
    assert_non_null(strstr(error.text, "in use"));
    fill(f); /* and the first one goes on */

    close_store(f);
    expect_open(f, true, HP_ERR_EXISTS, "exists");
    expect_open(f, false, HP_OK, NULL);
}

static void test_missing(void **state)
{
    struct fixture *f = *state;
    char path[300];
    close_store(f);
    path_of(f, "hostpool.db", path);
    assert_int_equal(truncate(path, 0), 0);
    expect_open(f, false, HP_ERR_CORRUPT, "empty");
    assert_int_equal(unlink(path), 0);
    expect_open(f, false, HP_ERR_NOT_FOUND, "hostpool.db: missing");
    path_of(f, "hostpool.db-wal", path);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    expect_open(f, false, HP_ERR_NOT_FOUND, "its log is there");
    expect_open(f, true, HP_ERR_EXISTS, "hostpool.db-wal");
    assert_int_equal(unlink(path), 0);
    expect_open(f, true, HP_OK, NULL); /* blobs and ballast alone are no database */
}

static void test_schema(void **state)
{
    struct fixture *f = *state;
    close_store(f);
    run_sql(f, "PRAGMA user_version = 99");
    expect_open(f, false, HP_ERR_UNSUPPORTED, "schema 99 is newer");
    run_sql(f, "PRAGMA user_version = 0");
    expect_open(f, false, HP_ERR_CORRUPT, "never finished");
    run_sql(f, "PRAGMA user_version = 1; PRAGMA application_id = 5");
    expect_open(f, false, HP_ERR_CORRUPT, "not a hostpool database");
    char path[300];
    path_of(f, "hostpool.db", path);
    int fd = open(path, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(write(fd, "garbage", 7), 7);
    }
    close(fd);
    expect_open(f, false, HP_ERR_CORRUPT, "broker check");
}

/* ------------------------------------------------------------------ crash */
/* A child applies and dies without closing anything; what it said was applied is there. */
static void test_abandoned(void **state)
{
    struct fixture *f = *state;
    close_store(f);
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    for (int round = 0; round < 5; round++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct hp_error error = {0};
            if (fixture_open_dir(f->dir, false, &f->store, &error) != HP_OK) {
                _exit(1);
            }
            struct hp_batch *batch = begin_batch(f);
            f->batch = (uint64_t)round + 1;
            hp_batch_clear(batch, f->batch);
            add_group(batch, 100 + (uint64_t)round * 10, 10, 1, WALL, "o", "p");
            if (hp_store_apply(f->store, &batch, 1, &error) != HP_OK) {
                _exit(2);
            }
            _exit(0); /* no close: the log stays as it is */
        }
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    close(pipes[0]);
    close(pipes[1]);
    expect_open(f, false, HP_OK, NULL);
    struct hp_store_figures figures;
    hp_store_figures(f->store, &figures);
    assert_int_equal(figures.task_count, 50);
    char *text = TEXT_OF(print_recovery(out, f->store));
    assert_non_null(strstr(text, "meta epoch=1 "));
    free(text);
}

/* ------------------------------------------------------------------ damage */
static struct hp_loaded *load_tasks(struct fixture *f, enum hp_load_kind kind, uint64_t first,
                                    uint32_t count)
{
    struct hp_load *load = hp_load_new(kind);
    load->with_end = true;
    load->spans = hp_calloc(1, sizeof(*load->spans));
    load->spans[0] = (struct hp_id_span){.first = first, .count = count};
    load->span_count = 1;
    return run_load(f->store, load);
}

static void test_digests(void **state)
{
    struct fixture *f = *state;
    fill(f);
    close_store(f);
    run_sql(f, "UPDATE group_0 SET pack = replace(pack, 'another', 'AnothEr') WHERE first = 11;"
               "UPDATE result_0 SET row = replace(row, 'result', 'rEsult')");
    expect_open(f, false, HP_OK, NULL);
    struct hp_loaded *loaded = load_tasks(f, HP_LOAD_GROUPS, 1, 20);
    assert_int_equal(loaded->group_count, 2);
    assert_false(loaded->groups[0].damaged);
    assert_true(loaded->groups[1].damaged);
    assert_int_equal(loaded->groups[1].pack.size, 0);
    hp_loaded_free(loaded);
    loaded = load_tasks(f, HP_LOAD_TASKS, 1, 10);
    assert_int_equal(loaded->task_count, 10);
    for (uint32_t i = 0; i < 10; i++) {
        assert_true(loaded->tasks[i].exists);
        assert_int_equal(loaded->tasks[i].ended, false);
        assert_int_equal(loaded->tasks[i].result.end.size, 0);
    }
    assert_true(loaded->tasks[0].damaged);
    hp_loaded_free(loaded);
    struct hp_load *load = hp_load_new(HP_LOAD_LANE);
    load->lane = 1;
    loaded = run_load(f->store, load);
    assert_int_equal(loaded->err, HP_ERR_CORRUPT); /* what waits is not known: nothing is guessed */
    assert_non_null(memmem(loaded->text.data, loaded->text.size, "hostpool.db", 11));
    hp_loaded_free(loaded);
    loaded = run_load(f->store, hp_load_new(HP_LOAD_CHECK));
    assert_int_equal(loaded->err, HP_ERR_CORRUPT);
    assert_int_equal(loaded->figures[1], 2);
    hp_loaded_free(loaded);
}

static void test_damaged_meta(void **state)
{
    struct fixture *f = *state;
    fill(f);
    close_store(f);
    run_sql(f, "UPDATE meta SET row = x'00112233445566778899'");
    expect_open(f, false, HP_ERR_CORRUPT, "fails its digest");
    run_sql(f, "DELETE FROM meta"); /* ids would begin anew */
    expect_open(f, false, HP_ERR_CORRUPT, "fails its digest");
}

static void copy_file(const char *from, const char *to)
{
    char buffer[65536];
    int in = open(from, O_RDONLY);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(in >= 0 && out >= 0);
    for (ssize_t n = read(in, buffer, sizeof(buffer)); n > 0;
         n = read(in, buffer, sizeof(buffer))) {
        assert_int_equal(write(out, buffer, (size_t)n), n);
    }
    close(in);
    close(out);
}

/* Ids 1..20: each fact is right, or missing with an error. Never other bytes. */
static void check_facts(struct fixture *f, bool *ret_damaged)
{
    struct hp_loaded *loaded = load_tasks(f, HP_LOAD_TASKS, 1, 20);
    *ret_damaged = loaded->err != HP_OK;
    for (uint32_t i = 0; i < loaded->task_count; i++) {
        const struct hp_loaded_task *task = &loaded->tasks[i];
        *ret_damaged = *ret_damaged || task->damaged || !task->exists;
        if (task->ended) {
            assert_true(task->id <= 5);
            assert_int_equal(task->result.end.size, 12);
            assert_memory_equal(task->result.end.data, "result bytes", 12);
            assert_int_equal(task->result.state, 1);
        }
        if (task->has_side) {
            assert_int_equal(task->id, 7);
        }
    }
    hp_loaded_free(loaded);
    loaded = load_tasks(f, HP_LOAD_GROUPS, 1, 20);
    for (uint32_t i = 0; i < loaded->group_count; i++) {
        const struct hp_loaded_group *group = &loaded->groups[i];
        if (!group->damaged) {
            const char *pack = group->first == 1 ? "payloads of the group" : "payloads of another";
            assert_int_equal(group->pack.size, strlen(pack));
            assert_memory_equal(group->pack.data, pack, group->pack.size);
        }
        *ret_damaged = *ret_damaged || group->damaged;
    }
    hp_loaded_free(loaded);
}

static void ignore_record(void *context, const struct hp_record *record)
{
    (void)context;
    (void)record;
}

/* Random bytes of the file are changed: an answer is right or an error. */
static void test_flips(void **state)
{
    struct fixture *f = *state;
    char path[300];
    char saved[300];
    struct hp_rand rand;
    uint32_t noticed = 0;
    const char *rounds = getenv("HP_ROUNDS");
    uint32_t count = rounds != NULL ? (uint32_t)strtoul(rounds, NULL, 10) : 150;
    fill(f);
    close_store(f);
    path_of(f, "hostpool.db", path);
    path_of(f, "saved", saved);
    copy_file(path, saved);
    struct stat st;
    assert_int_equal(stat(saved, &st), 0);
    hp_rand_init(&rand, 7);
    for (uint32_t round = 0; round < count; round++) {
        copy_file(saved, path);
        int fd = open(path, O_RDWR);
        assert_true(fd >= 0);
        for (uint64_t n = 1 + hp_rand_uniform(&rand, 40); n > 0; n--) {
            off_t at = (off_t)hp_rand_uniform(&rand, (uint64_t)st.st_size);
            uint8_t byte = (uint8_t)hp_rand_next(&rand);
            assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        }
        close(fd);
        struct hp_error error = {0};
        bool damaged = true;
        if (fixture_open_dir(f->dir, false, &f->store, &error) == HP_OK) {
            (void)hp_store_recover(f->store, ignore_record, NULL, &error);
            check_facts(f, &damaged);
            close_store(f);
        } else {
            assert_non_null(strstr(error.text, "hostpool.db"));
        }
        noticed += damaged ? 1 : 0;
        path_of(f, "hostpool.db-wal", path);
        (void)unlink(path);
        path_of(f, "hostpool.db", path);
    }
    assert_true(noticed > 0);
    copy_file(saved, path);
    expect_open(f, false, HP_OK, NULL);
}

/* ------------------------------------------------------------------ full disk */
static bool mount_small(const char *dir)
{
    return mount("tmpfs", dir, "tmpfs", 0, "size=3m") == 0;
}

static void write_fill(const char *path)
{
    static char block[4096];
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    memset(block, 'x', sizeof(block));
    while (write(fd, block, sizeof(block)) > 0) {
    }
    close(fd);
}

static struct hp_batch *big_batch(struct fixture *f, uint64_t first, char *pack)
{
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, first, 10, 1, WALL, "o", pack);
    return batch;
}

static void test_full_disk(void **state)
{
    (void)state;
    struct fixture f = {0};
    struct hp_error error = {0};
    fixture_make_dir(f.dir);
    if (!mount_small(f.dir)) {
        (void)rmdir(f.dir);
        skip();
    }
    expect_open(&f, true, HP_OK, NULL);
    struct hp_store_figures figures;
    hp_store_figures(f.store, &figures);
    assert_false(figures.pressure);
    char filler[300];
    path_of(&f, "filler", filler);
    write_fill(filler);
    char *pack = malloc(100001);
    memset(pack, 'p', 100000);
    pack[100000] = '\0';
    uint64_t first = 1;
    enum hp_err err = HP_OK;
    struct hp_batch *batch = NULL;
    while (err == HP_OK) { /* the log was grown ahead: some fit */
        batch = big_batch(&f, first, pack);
        err = hp_store_apply(f.store, &batch, 1, &error);
        if (err == HP_OK) {
            hp_batch_free(batch);
            first += 10;
        }
        assert_true(first < 1000);
    }
    assert_int_equal(err, HP_ERR_NOSPACE);
    hp_store_figures(f.store, &figures);
    assert_true(figures.pressure);
    assert_int_equal(figures.task_count, first - 1);  /* nothing of it */
    err = hp_store_apply(f.store, &batch, 1, &error); /* the ballast was freed */
    assert_int_equal(err, HP_OK);
    hp_batch_free(batch);
    while (err == HP_OK) { /* until that is used up as well */
        first += 10;
        batch = big_batch(&f, first, pack);
        err = hp_store_apply(f.store, &batch, 1, &error);
        if (err == HP_OK) {
            hp_batch_free(batch);
        }
    }
    assert_int_equal(err, HP_ERR_NOSPACE);
    assert_int_equal(hp_store_apply(f.store, &batch, 1, &error), HP_ERR_NOSPACE);
    char *text = TEXT_OF(print_tasks(out, f.store, 1, 1)); /* it still answers */
    assert_non_null(strstr(text, "task 1 in 1+10"));
    free(text);
    assert_int_equal(unlink(filler), 0); /* space again: the same batch goes in */
    assert_int_equal(hp_store_apply(f.store, &batch, 1, &error), HP_OK);
    hp_batch_free(batch);
    hp_store_figures(f.store, &figures);
    assert_int_equal(figures.task_count, first + 9);
    while (figures.pressure) { /* the ballast comes back by itself */
        bool more = false;
        assert_int_equal(hp_store_idle(f.store, &more, &error), HP_OK);
        hp_store_figures(f.store, &figures);
    }
    fixture_reopen(&f);
    struct hp_loaded *loaded = run_load(f.store, hp_load_new(HP_LOAD_CHECK));
    assert_int_equal(loaded->err, HP_OK);
    hp_loaded_free(loaded);
    close_store(&f);
    free(pack);
    assert_int_equal(umount(f.dir), 0);
    (void)rmdir(f.dir);
}

/* ------------------------------------------------------------------ backup */
static struct hp_load *backup_load(const char *path)
{
    struct hp_load *load = hp_load_new(HP_LOAD_BACKUP);
    hp_load_set_text(load, path, strlen(path));
    return load;
}

static void put_blob_file(const struct fixture *f, uint64_t blob)
{
    char blob_dir[300];
    struct hp_blob_writer *writer = NULL;
    path_of(f, "blobs", blob_dir);
    assert_int_equal(hp_blob_writer_new(blob_dir, blob, 5, &writer, NULL), HP_OK);
    assert_int_equal(hp_blob_writer_append(writer, "12345", 5, NULL), HP_OK);
    assert_int_equal(hp_blob_writer_finish(writer, NULL), HP_OK);
    hp_blob_writer_free(writer);
}

static void fill_for_backup(struct fixture *f)
{
    char *pack = malloc(50001);
    memset(pack, 'p', 50000);
    pack[50000] = '\0';
    fill(f);
    for (uint64_t i = 0; i < 200; i++) {
        struct hp_batch *batch = begin_batch(f);
        add_group(batch, 1000 + i * 10, 10, 1, WALL, "o", pack);
        apply(f, batch);
    }
    put_blob_file(f, 5);
    struct hp_batch *batch = begin_batch(f);
    struct hp_op *op = hp_batch_add(batch, HP_OP_BLOB);
    op->blob.blob = 5;
    op->blob.owner = 1;
    apply(f, batch);
    free(pack);
}

/* Backs up while commits go on between the slices. Returns the tasks in the copy. */
static uint64_t back_up(struct fixture *f, const char *path)
{
    struct hp_loaded *loaded = hp_loaded_new(backup_load(path));
    uint64_t slices = 0;
    while (!hp_store_load(f->store, loaded)) {
        struct hp_batch *batch = begin_batch(f);
        add_group(batch, 100000 + slices * 10, 10, 1, WALL, "during", "p");
        apply(f, batch);
        slices++;
        if (slices == 2) {
            struct hp_loaded *other = hp_loaded_new(hp_load_new(HP_LOAD_CHECK));
            assert_true(hp_store_load(f->store, other));
            assert_int_equal(other->err, HP_ERR_BUSY);
            hp_loaded_free(other);
        }
    }
    if (loaded->err != HP_OK) {
        print_error("%.*s\n", (int)loaded->text.size, (const char *)loaded->text.data);
    }
    assert_int_equal(loaded->err, HP_OK);
    assert_true(slices >= 2);
    uint64_t tasks = loaded->figures[0];
    hp_loaded_free(loaded);
    return tasks;
}

static void test_backup(void **state)
{
    struct fixture *f = *state;
    struct fixture copy = {0};
    fill_for_backup(f);
    (void)snprintf(copy.dir, sizeof(copy.dir), "%.150s/backup", f->dir);
    uint64_t tasks = back_up(f, copy.dir);
    assert_true(tasks >= 2020);
    char path[300];
    struct stat st;
    path_of(&copy, "hostpool.db", path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(copy.dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);

    struct hp_loaded *loaded = run_load(f->store, backup_load(copy.dir)); /* never over another */
    assert_int_equal(loaded->err, HP_ERR_EXISTS);
    hp_loaded_free(loaded);
    loaded = run_load(f->store, backup_load("relative/path"));
    assert_int_equal(loaded->err, HP_ERR_INVALID);
    hp_loaded_free(loaded);

    expect_open(&copy, false, HP_OK, NULL); /* it is a whole data directory */
    struct hp_store_figures figures;
    hp_store_figures(copy.store, &figures);
    assert_int_equal(figures.task_count, tasks);
    char *text = TEXT_OF(print_tasks(out, copy.store, 1, 1));
    assert_non_null(strstr(text, "end=result bytes"));
    free(text);
    uint64_t size = 0;
    uint64_t digest = 0;
    path_of(&copy, "blobs", path);
    assert_int_equal(hp_blob_stat(path, 5, &size, &digest, NULL), HP_OK);
    loaded = run_load(copy.store, hp_load_new(HP_LOAD_CHECK));
    assert_int_equal(loaded->err, HP_OK);
    hp_loaded_free(loaded);
    hp_store_close(copy.store);
}

static void test_backup_given_up(void **state)
{
    struct fixture *f = *state;
    char path[300];
    fill(f);
    path_of(f, "backup", path);
    struct hp_loaded *loaded = hp_loaded_new(backup_load(path));
    assert_false(hp_store_load(f->store, loaded));
    close_store(f); /* in the middle of it */
    hp_loaded_free(loaded);
    assert_int_not_equal(access(path, F_OK), 0);
    expect_open(f, false, HP_OK, NULL);
}

static void test_missing_blob(void **state)
{
    struct fixture *f = *state;
    struct hp_batch *batch = begin_batch(f);
    struct hp_op *op = hp_batch_add(batch, HP_OP_BLOB);
    op->blob.blob = 5;
    op->blob.owner = 1;
    apply(f, batch);
    struct hp_loaded *loaded = run_load(f->store, hp_load_new(HP_LOAD_CHECK));
    assert_int_equal(loaded->err, HP_ERR_CORRUPT);
    assert_non_null(memmem(loaded->text.data, loaded->text.size, "blob 5", 6));
    hp_loaded_free(loaded);
}

/* ------------------------------------------------------------------ bounded work */
/* A whole bucket that has expired is emptied and dropped, with what was in it. */
static void test_bucket_dropped(void **state)
{
    struct fixture *f = *state;
    const uint64_t per_batch = 2000;
    for (uint64_t first = 1 << 20; first < 2 << 20; first += per_batch * 32) {
        struct hp_batch *batch = begin_batch(f);
        for (uint64_t i = 0; i < per_batch && first + i * 32 < 2 << 20; i++) {
            add_group(batch, first + i * 32, 32, 1, WALL, "o", "p");
            add_result(batch, first + i * 32, 32, 1, WALL, "");
        }
        apply(f, batch);
    }
    struct hp_batch *batch = begin_batch(f);
    add_group(batch, 2 << 20, 1, 1, WALL, "o", "p"); /* the next bucket: that one is closed */
    apply(f, batch);
    struct hp_store_figures before;
    struct hp_store_figures after;
    hp_store_figures(f->store, &before);
    reap(f, WALL + 1);
    hp_store_figures(f->store, &after);
    assert_int_equal(after.task_count, 1);
    assert_int_equal(after.reaped, before.task_count - 1);
    char *text = TEXT_OF(print_tasks(out, f->store, (1 << 20) + 77777, 1));
    assert_non_null(strstr(text, "gone ended"));
    free(text);
    fixture_reopen(f);
    close_store(f);
    run_sql(f, "SELECT 1 / (count(*) = 2) FROM sqlite_schema WHERE name GLOB 'group_*' OR name "
               "GLOB 'result_*'");
    expect_open(f, false, HP_OK, NULL);
}

/* A cut in the middle of retention leaves nothing behind but what the next pass removes. */
static void test_reap_cut(void **state)
{
    struct fixture *f = *state;
    struct hp_batch *batch = begin_batch(f);
    for (uint64_t i = 0; i < 5000; i++) {
        add_group(batch, 1 + i * 2, 2, 1, WALL, "o", "p");
        add_result(batch, 1 + i * 2, 1, 1, WALL, "one");
        add_result(batch, 2 + i * 2, 1, 2, WALL, "two");
    }
    apply(f, batch);
    for (int cut = 0; cut < 4; cut++) {
        bool more = false;
        struct hp_error error = {0};
        batch = begin_batch(f);
        hp_batch_add(batch, HP_OP_REAP)->reap.wall_ms = WALL + 1;
        apply(f, batch);
        assert_int_equal(hp_store_idle(f->store, &more, &error), HP_OK);
        fixture_reopen(f);
    }
    reap(f, WALL + 1);
    struct hp_store_figures figures;
    hp_store_figures(f->store, &figures);
    assert_int_equal(figures.task_count, 0);
    assert_int_equal(figures.ended_count, 0);
    close_store(f);
    run_sql(f, "CREATE TEMP TABLE t AS SELECT count(*) AS n FROM result_0;"
               "CREATE TEMP TABLE u(n CHECK(n = 0)); INSERT INTO u SELECT n FROM t;"
               "INSERT INTO u SELECT count(*) FROM group_0");
    expect_open(f, false, HP_OK, NULL);
    char *text = TEXT_OF(print_tasks(out, f->store, 1, 2));
    assert_non_null(strstr(text, "task 1 gone ended 1+1 s=1"));
    assert_non_null(strstr(text, "task 2 gone ended 2+1 s=2"));
    free(text);
}

static void test_wal_bounded(void **state)
{
    struct fixture *f = *state;
    char *pack = malloc(200001);
    memset(pack, 'p', 200000);
    pack[200000] = '\0';
    struct hp_store_figures figures;
    for (uint64_t i = 0; i < 400; i++) { /* 80 MB */
        struct hp_batch *batch = begin_batch(f);
        add_group(batch, 1 + i * 10, 10, 1, WALL, "o", pack);
        apply(f, batch);
    }
    hp_store_figures(f->store, &figures);
    assert_true(figures.wal_bytes < 64 << 20);
    assert_true(figures.checkpoints > 2);
    free(pack);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_schema, setup, teardown),
        cmocka_unit_test_setup_teardown(test_abandoned, setup, teardown),
        cmocka_unit_test_setup_teardown(test_digests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_meta, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flips, setup, teardown),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test_setup_teardown(test_backup, setup, teardown),
        cmocka_unit_test_setup_teardown(test_backup_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing_blob, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bucket_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reap_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wal_bounded, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
