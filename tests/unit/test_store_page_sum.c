/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages of the database that are damaged as a whole: rows must not vanish without a word. */
#include "server/store/offline.h"
#include "tests/unit/store_fixture.h"

#include <fcntl.h>
#include <sqlite3.h>

#include "server/store/page_sum.h"

#define PAGE 16384
#define GROUPS 300u

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    fixture_open(f, true);
    char pack[1001];
    memset(pack, 'p', 1000);
    pack[1000] = '\0';
    for (uint64_t i = 0; i < GROUPS; i++) {
        struct hp_batch *batch = begin_batch(f);
        add_group(batch, 1 + i, 1, 1, 0, "options", pack);
        apply(f, batch);
    }
    hp_store_close(f->store);
    f->store = NULL;
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

static int open_file(const struct fixture *f, uint32_t *ret_pages)
{
    char path[300];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/hostpool.db", f->dir);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    *ret_pages = (uint32_t)(st.st_size / PAGE);
    assert_true(*ret_pages > 20);
    return fd;
}

static void ignore_record(void *context, const struct hp_record *record)
{
    (void)context;
    (void)record;
}

/* Every id is answered as it was, or there is an error. Returns the error's text, or NULL. */
static char *read_all(struct fixture *f)
{
    struct hp_error error = {0};
    char *text = NULL;
    if (fixture_open_dir(f->dir, false, &f->store, &error) != HP_OK ||
        hp_store_recover(f->store, ignore_record, NULL, &error) != HP_OK) {
        text = strdup(error.text);
    }
    for (uint64_t id = 1; id <= GROUPS && text == NULL; id++) {
        struct hp_load *load = hp_load_new(HP_LOAD_TASKS);
        load->spans = calloc(1, sizeof(*load->spans));
        load->spans[0] = (struct hp_id_span){.first = id, .count = 1};
        load->span_count = 1;
        struct hp_loaded *loaded = run_load(f->store, load);
        if (loaded->err != HP_OK || loaded->tasks[0].damaged) {
            text = strdup("damaged");
        } else {
            assert_true(loaded->tasks[0].exists); /* never: not found */
        }
        hp_loaded_free(loaded);
    }
    hp_store_close(f->store);
    f->store = NULL;
    return text;
}

/* One page after the other becomes another page, or one without cells. */
static void a_page_that_hides_rows_is_noticed(void **state)
{
    struct fixture *f = *state;
    uint32_t pages = 0;
    uint8_t saved[PAGE];
    uint8_t other[PAGE];
    uint32_t noticed = 0;
    int fd = open_file(f, &pages);
    assert_int_equal(pread(fd, other, PAGE, (off_t)PAGE * (pages - 2)), PAGE);
    for (uint32_t page = 1; page < pages - 2; page++) {
        off_t at = (off_t)PAGE * page;
        assert_int_equal(pread(fd, saved, PAGE, at), PAGE);
        for (int way = 0; way < 2; way++) {
            uint8_t harmed[PAGE];
            memcpy(harmed, way == 0 ? saved : other, PAGE);
            if (way == 0) {
                memset(harmed + 3, 0, 2); /* the number of its cells */
            }
            assert_int_equal(pwrite(fd, harmed, PAGE, at), PAGE);
            char *text = read_all(f);
            noticed += text != NULL ? 1 : 0;
            free(text);
            assert_int_equal(pwrite(fd, saved, PAGE, at), PAGE);
        }
    }
    close(fd);
    assert_true(noticed > pages); /* but for free pages */
    assert_null(read_all(f));
}

static void the_error_names_page_and_command(void **state)
{
    struct fixture *f = *state;
    uint32_t pages = 0;
    uint8_t garbage[512];
    memset(garbage, 0x5a, sizeof(garbage));
    int fd = open_file(f, &pages);
    assert_int_equal(pwrite(fd, garbage, sizeof(garbage), 1024), sizeof(garbage));
    close(fd);
    char *text = read_all(f);
    assert_non_null(text);
    assert_non_null(strstr(text, "page 1 fails its checksum"));
    assert_non_null(strstr(text, "hostpool broker recover"));
    free(text);
}

/* Databases of before have no checksums; other programs' PRAGMA user_version is no damage. */
static void what_is_no_damage(void **state)
{
    struct fixture *f = *state;
    uint32_t pages = 0;
    char path[300];
    sqlite3 *db = NULL;
    (void)snprintf(path, sizeof(path), "%s/hostpool.db", f->dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=1", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_null(read_all(f));
    uint8_t none = 0;
    int fd = open_file(f, &pages);
    assert_int_equal(pwrite(fd, &none, 1, 20), 1);
    close(fd);
    assert_null(read_all(f));
}

static void copy_to(const struct fixture *f, const char *to)
{
    char command[600];
    (void)snprintf(command, sizeof(command), "cp -r %s/. %s", f->dir, to);
    assert_int_equal(system(command), 0);
}

/* A folder as a killed broker leaves it, with four commits in its log. */
static void crash(struct fixture *f, struct fixture *ret_crashed)
{
    struct hp_error error = {0};
    *ret_crashed = (struct fixture){0};
    fixture_make_dir(ret_crashed->dir);
    assert_int_equal(fixture_open_dir(f->dir, false, &f->store, &error), HP_OK);
    (void)hp_store_recover(f->store, ignore_record, NULL, &error);
    for (uint64_t i = 0; i < 4; i++) {
        struct hp_batch *batch = begin_batch(f);
        add_group(batch, 1000 + i, 1, 1, 0, "options", "pack");
        apply(f, batch);
    }
    copy_to(f, ret_crashed->dir);
    hp_store_close(f->store);
    f->store = NULL;
}

/* What the offline check finds, and what the salvage says is lost. */
static void look_offline(const struct fixture *f, uint64_t *ret_problems, uint64_t *ret_lost)
{
    char to[300];
    struct hp_error error = {0};
    struct hp_offline_check check;
    struct hp_offline_salvage salvage;
    assert_int_equal(hp_offline_check(f->dir, &check, &error), HP_OK);
    *ret_problems = check.problem_count;
    hp_buf_deinit(&check.lines);
    (void)snprintf(to, sizeof(to), "%s.new", f->dir);
    assert_int_equal(hp_offline_salvage(f->dir, to, &salvage, &error), HP_OK);
    *ret_lost = salvage.lost_count;
    hp_buf_deinit(&salvage.lines);
    fixture_remove_dir(to);
}

/* The first sector of a log: start, check and salvage all see it, whatever byte it is. */
static void damage_to_the_front_of_the_log_is_noticed(void **state)
{
    static const struct {
        off_t at;
        size_t size;
    } harms[] = {{0, 512}, {2, 1},  {9, 1},  {17, 1}, {25, 1},
                 {33, 1},  {37, 1}, {41, 1}, {49, 1}, {57, 1}};
    struct fixture *f = *state;
    struct fixture crashed;
    struct hp_error error = {0};
    char path[300];
    uint8_t front[512];
    uint64_t problems = 0;
    uint64_t lost = 0;
    uint64_t lost_anyway = 0; /* the fixture's options are no options */
    crash(f, &crashed);
    look_offline(&crashed, &problems, &lost_anyway);
    assert_int_equal(problems, 0);
    (void)snprintf(path, sizeof(path), "%s/hostpool.db-wal", crashed.dir);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, front, sizeof(front), 0), sizeof(front));
    for (size_t i = 0; i < HP_COUNT_OF(harms); i++) {
        uint8_t harmed[512] = {0};
        harmed[0] = front[harms[i].at] ^ 0x10;
        harmed[0] = harms[i].size > 1 ? 0 : harmed[0];
        assert_int_equal(pwrite(fd, harmed, harms[i].size, harms[i].at), harms[i].size);
        look_offline(&crashed, &problems, &lost);
        assert_true(problems > 0 && lost > lost_anyway);
        assert_int_equal(fixture_open_dir(crashed.dir, false, &crashed.store, &error),
                         HP_ERR_CORRUPT);
        assert_int_equal(pwrite(fd, front, sizeof(front), 0), sizeof(front));
    }
    close(fd);
    look_offline(&crashed, &problems, &lost);
    assert_true(problems == 0 && lost == lost_anyway);
    fixture_remove_dir(crashed.dir);
}

/* A bit of the log, as a killed broker leaves it: commits behind it are not dropped in silence. */
static void damage_within_the_log_is_noticed(void **state)
{
    struct fixture *f = *state;
    struct fixture crashed;
    struct hp_error error = {0};
    crash(f, &crashed);
    char path[300];
    uint8_t byte = 0;
    (void)snprintf(path, sizeof(path), "%s/hostpool.db-wal", crashed.dir);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, 1000), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, 1000), 1);
    assert_int_equal(fixture_open_dir(crashed.dir, false, &crashed.store, &error), HP_ERR_CORRUPT);
    assert_non_null(strstr(error.text, "frame 1 fails its checksum"));
    assert_non_null(strstr(error.text, "hostpool broker recover"));
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, 1000), 1);
    close(fd);
    assert_int_equal(fixture_open_dir(crashed.dir, false, &crashed.store, &error), HP_OK);
    fixture_close(&crashed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_page_that_hides_rows_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(the_error_names_page_and_command, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_no_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_within_the_log_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_to_the_front_of_the_log_is_noticed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
