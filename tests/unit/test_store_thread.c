/* SPDX-License-Identifier: BSD-2-Clause */
/* The store thread: order, merging, answers, a full disk, stop. Waits on conditions, never sleeps.
 */
#include "tests/unit/store_fixture.h"

#include <pthread.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include "server/store/thread.h"

#define WALL INT64_C(1700000000000)

/* Of the disk that is looked at: a share, and MiB. */
static uint32_t free_percent, free_mib;

int statvfs(const char *path, struct statvfs *ret)
{
    (void)path;
    *ret = (struct statvfs){.f_frsize = 1 << 20,
                            .f_blocks = (fsblkcnt_t)free_mib * 100 / free_percent,
                            .f_bfree = free_mib,
                            .f_bavail = free_mib};
    return 0;
}

/* A store whose applies can be held up or failed; else the one in memory. */
struct gate {
    struct hp_store base;
    struct hp_store *inner;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool closed;          /* applies wait */
    uint32_t fail_count;  /* applies that meet a full disk */
    enum hp_err fail_err; /* or fail otherwise */
    uint32_t apply_count;
    uint32_t waiting;
    uint32_t batch_max;   /* most batches in one transaction */
    uint32_t check_steps; /* a CHECK takes this many */
    enum hp_err load_err; /* of every other load */
};

struct scene {
    struct gate gate;
    struct hp_store_thread *thread;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    uint32_t wakes;
    uint64_t durable;
    bool disk_low;
    bool was_low;
    struct hp_loaded *loaded[64];
    uint32_t loaded_count;
};

static struct gate *gate_of(struct hp_store *store)
{
    return (struct gate *)(void *)store;
}

static enum hp_err gate_apply(struct hp_store *store, struct hp_batch *const *batches,
                              uint32_t count, struct hp_error *reterr)
{
    struct gate *gate = gate_of(store);
    pthread_mutex_lock(&gate->mutex);
    gate->waiting++;
    pthread_cond_broadcast(&gate->cond);
    while (gate->closed) {
        pthread_cond_wait(&gate->cond, &gate->mutex);
    }
    gate->waiting--;
    gate->apply_count++;
    gate->batch_max = count > gate->batch_max ? count : gate->batch_max;
    bool fail = gate->fail_count > 0;
    gate->fail_count -= fail ? 1 : 0;
    pthread_mutex_unlock(&gate->mutex);
    return fail ? hp_error_set(reterr, gate->fail_err != HP_OK ? gate->fail_err : HP_ERR_NOSPACE,
                               "told so")
                : hp_store_apply(gate->inner, batches, count, reterr);
}

static bool gate_load(struct hp_store *store, struct hp_loaded *loaded)
{
    struct gate *gate = gate_of(store);
    if (loaded->load->kind == HP_LOAD_CHECK && gate->check_steps > 0) {
        gate->check_steps--;
        return false;
    }
    bool done = hp_store_load(gate->inner, loaded);
    loaded->err = gate->load_err != HP_OK ? gate->load_err : loaded->err;
    return done;
}

static enum hp_err gate_idle(struct hp_store *store, bool *ret_more, struct hp_error *reterr)
{
    return hp_store_idle(gate_of(store)->inner, ret_more, reterr);
}

static void gate_figures(struct hp_store *store, struct hp_store_figures *ret_figures)
{
    hp_store_figures(gate_of(store)->inner, ret_figures);
}

static void gate_close(struct hp_store *store)
{
    hp_store_close(gate_of(store)->inner);
}

static const struct hp_store_ops gate_ops = {
    .name = "gate",
    .apply = gate_apply,
    .load = gate_load,
    .idle = gate_idle,
    .figures = gate_figures,
    .close = gate_close,
};

static void on_wake(void *context)
{
    struct scene *scene = context;
    pthread_mutex_lock(&scene->mutex);
    scene->wakes++;
    pthread_cond_signal(&scene->cond);
    pthread_mutex_unlock(&scene->mutex);
}

static void on_fatal(void *context, const struct hp_error *error)
{
    (void)context;
    fprintf(stderr, "store: %s\n", error->text);
}

static void on_fatal_exit(void *context, const struct hp_error *error)
{
    (void)context;
    _exit(error->code == HP_ERR_IO ? 70 : 1);
}

static struct scene *scene_on(struct hp_store *inner, const char *dir)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    struct hp_error error = {0};
    scene->gate.base.ops = &gate_ops;
    scene->gate.inner = inner;
    pthread_mutex_init(&scene->gate.mutex, NULL);
    pthread_cond_init(&scene->gate.cond, NULL);
    pthread_mutex_init(&scene->mutex, NULL);
    pthread_cond_init(&scene->cond, NULL);
    struct hp_store_thread_options options = {.store = &scene->gate.base,
                                              .wake = on_wake,
                                              .fatal = on_fatal,
                                              .context = scene,
                                              .dir = dir};
    assert_int_equal(hp_store_thread_new(&options, &scene->thread, &error), HP_OK);
    return scene;
}

static struct scene *scene_new(struct hp_store *inner)
{
    return scene_on(inner, NULL);
}

static void take(struct scene *scene)
{
    struct hp_store_done done;
    (void)hp_store_thread_take(scene->thread, &done);
    assert_true(done.durable >= scene->durable);
    scene->durable = done.durable;
    scene->disk_low = done.disk_low;
    scene->was_low = scene->was_low || done.disk_low;
    while (done.batches != NULL) {
        struct hp_batch *next = done.batches->next;
        assert_true(done.batches->number <= done.durable);
        hp_batch_free(done.batches);
        done.batches = next;
    }
    while (done.loaded != NULL) {
        struct hp_loaded *next = done.loaded->next_loaded;
        assert_true(scene->loaded_count < 64);
        scene->loaded[scene->loaded_count++] = done.loaded;
        done.loaded = next;
    }
}

static void wait_wake(struct scene *scene)
{
    pthread_mutex_lock(&scene->mutex);
    while (scene->wakes == 0) {
        pthread_cond_wait(&scene->cond, &scene->mutex);
    }
    scene->wakes = 0;
    pthread_mutex_unlock(&scene->mutex);
    take(scene);
}

static void scene_free(struct scene *scene)
{
    take(scene);
    hp_store_thread_free(scene->thread);
    for (uint32_t i = 0; i < scene->loaded_count; i++) {
        hp_loaded_free(scene->loaded[i]);
    }
    pthread_cond_destroy(&scene->cond);
    pthread_mutex_destroy(&scene->mutex);
    pthread_cond_destroy(&scene->gate.cond);
    pthread_mutex_destroy(&scene->gate.mutex);
    free(scene);
}

static void put_group(struct scene *scene, uint64_t number)
{
    struct hp_batch *batch = hp_batch_new();
    hp_batch_clear(batch, number);
    add_group(batch, number * 10, 10, 1, WALL, "o", "p");
    hp_store_thread_put(scene->thread, batch);
}

static void load_tasks(struct scene *scene, uint64_t cookie, uint64_t id)
{
    struct hp_load *load = hp_load_new(HP_LOAD_TASKS);
    load->cookie = cookie;
    load->spans = hp_calloc(1, sizeof(*load->spans));
    load->spans[0] = (struct hp_id_span){.first = id, .count = 1};
    load->span_count = 1;
    hp_store_thread_load(scene->thread, load);
}

static const char *const sessions[] = {"session-00000001", "session-00000002", "session-00000003"};

static void load_session(struct scene *scene, uint64_t cookie)
{
    struct hp_load *load = hp_load_new(HP_LOAD_SESSION);
    load->cookie = cookie;
    hp_load_set_text(load, sessions[cookie], 16);
    hp_store_thread_load(scene->thread, load);
}

static void gate_set(struct scene *scene, bool closed)
{
    pthread_mutex_lock(&scene->gate.mutex);
    scene->gate.closed = closed;
    pthread_cond_broadcast(&scene->gate.cond);
    pthread_mutex_unlock(&scene->gate.mutex);
}

/* Until an apply stands before the gate. */
static void wait_at_gate(struct scene *scene)
{
    pthread_mutex_lock(&scene->gate.mutex);
    while (scene->gate.waiting == 0) {
        pthread_cond_wait(&scene->gate.cond, &scene->gate.mutex);
    }
    pthread_mutex_unlock(&scene->gate.mutex);
}

static void test_order(void **state)
{
    (void)state;
    struct scene *scene = scene_new(hp_store_mem_new());
    gate_set(scene, true);
    put_group(scene, 1);
    wait_at_gate(scene);
    put_group(scene, 2);
    put_group(scene, 3);
    load_tasks(scene, 1, 40); /* before batch 4: not there */
    put_group(scene, 4);
    load_tasks(scene, 2, 40);
    load_tasks(scene, 3, 30);
    take(scene);
    assert_int_equal(scene->durable, 0);
    gate_set(scene, false);
    while (scene->durable < 4 || scene->loaded_count < 3) {
        wait_wake(scene);
    }
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(scene->loaded[i]->load->cookie, i + 1);
        assert_int_equal(scene->loaded[i]->task_count, 1);
    }
    assert_false(scene->loaded[0]->tasks[0].exists);
    assert_true(scene->loaded[1]->tasks[0].exists);
    assert_true(scene->loaded[2]->tasks[0].exists);
    assert_int_equal(scene->gate.batch_max, 2); /* 2 and 3 in one transaction */
    assert_int_equal(hp_store_thread_stop(scene->thread, 1000), HP_OK);
    struct hp_store_thread_figures figures;
    hp_store_thread_figures(scene->thread, &figures);
    assert_int_equal(figures.commits, 3);
    assert_int_equal(figures.batches, 4);
    assert_int_equal(figures.queued_ops, 0);
    scene_free(scene);
}

static void test_empty_batches(void **state)
{
    (void)state;
    struct scene *scene = scene_new(hp_store_mem_new());
    for (uint64_t number = 1; number <= 3; number++) {
        struct hp_batch *batch = hp_batch_new();
        hp_batch_clear(batch, number);
        hp_store_thread_put(scene->thread, batch);
    }
    while (scene->durable < 3) {
        wait_wake(scene);
    }
    assert_int_equal(scene->gate.apply_count, 0);
    assert_int_equal(hp_store_thread_stop(scene->thread, 1000), HP_OK);
    scene_free(scene);
}

static void test_full_disk(void **state)
{
    (void)state;
    struct scene *scene = scene_new(hp_store_mem_new());
    pthread_mutex_lock(&scene->gate.mutex);
    scene->gate.fail_count = 3;
    pthread_mutex_unlock(&scene->gate.mutex);
    put_group(scene, 1);
    while (scene->durable < 1 || scene->disk_low) {
        wait_wake(scene);
    }
    assert_int_equal(scene->gate.apply_count, 4);
    assert_int_equal(hp_store_thread_stop(scene->thread, 1000), HP_OK);
    struct hp_store_thread_figures figures;
    hp_store_thread_figures(scene->thread, &figures);
    assert_int_equal(figures.nospace_count, 1);
    scene_free(scene);
}

/* A small share of a large disk is room enough; so is a small disk of which much is free. */
static void test_when_the_disk_is_low(void **state)
{
    static const struct {
        uint32_t percent, mib;
        bool low;
    } cases[] = {{2, 4000, false}, {2, 900, true}, {50, 900, false}, {4, 1000, true}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        free_percent = cases[i].percent;
        free_mib = cases[i].mib;
        struct scene *scene = scene_on(hp_store_mem_new(), "/some/where");
        take(scene);
        assert_int_equal(scene->disk_low, cases[i].low);
        assert_int_equal(hp_store_thread_stop(scene->thread, 1000), HP_OK);
        scene_free(scene);
    }
}

/* While the disk is full new clients are greeted, but not one whose numbers wait to be written: it
 * would be told that they never came. */
static void test_greeting_on_full_disk(void **state)
{
    (void)state;
    struct scene *scene = scene_new(hp_store_mem_new());
    pthread_mutex_lock(&scene->gate.mutex);
    scene->gate.fail_count = UINT32_MAX;
    pthread_mutex_unlock(&scene->gate.mutex);
    put_group(scene, 1);
    while (!scene->disk_low) {
        wait_wake(scene);
    }
    struct hp_batch *batch = hp_batch_new();
    hp_batch_clear(batch, 2);
    struct hp_op *op = hp_batch_add(batch, HP_OP_SESSION);
    op->session.id = hp_batch_copy(batch, sessions[1], 16);
    op->session.state = hp_batch_copy(batch, "state", 5);
    hp_store_thread_put(scene->thread, batch);
    load_session(scene, 1);
    load_session(scene, 2); /* behind it, and before it */
    while (scene->loaded_count < 1) {
        wait_wake(scene);
    }
    assert_int_equal(scene->loaded_count, 1);
    assert_int_equal(scene->loaded[0]->load->cookie, 2);
    assert_int_equal(scene->durable, 0);
    pthread_mutex_lock(&scene->gate.mutex);
    scene->gate.fail_count = 0;
    pthread_mutex_unlock(&scene->gate.mutex);
    while (scene->durable < 2 || scene->loaded_count < 2) {
        wait_wake(scene);
    }
    assert_true(scene->loaded[1]->load->cookie == 1 && scene->loaded[1]->found);
    assert_int_equal(hp_store_thread_stop(scene->thread, 1000), HP_OK);
    scene_free(scene);
}

static void test_stop_on_full_disk(void **state)
{
    (void)state;
    struct scene *scene = scene_new(hp_store_mem_new());
    pthread_mutex_lock(&scene->gate.mutex);
    scene->gate.fail_count = UINT32_MAX;
    pthread_mutex_unlock(&scene->gate.mutex);
    put_group(scene, 1);
    while (!scene->disk_low) {
        wait_wake(scene);
    }
    assert_int_equal(hp_store_thread_stop(scene->thread, 0), HP_ERR_NOSPACE);
    take(scene);
    assert_int_equal(scene->durable, 0);
    scene_free(scene);
}

static void test_stop_flushes(void **state)
{
    (void)state;
    struct scene *scene = scene_new(hp_store_mem_new());
    scene->gate.check_steps = UINT32_MAX; /* never through; nothing loads yet */
    gate_set(scene, true);
    put_group(scene, 1);
    wait_at_gate(scene);
    hp_store_thread_load(scene->thread, hp_load_new(HP_LOAD_CHECK));
    hp_store_thread_load(scene->thread, hp_load_new(HP_LOAD_CHECK));
    put_group(scene, 2);
    load_tasks(scene, 9, 20);
    gate_set(scene, false);
    assert_int_equal(hp_store_thread_stop(scene->thread, 1000), HP_OK);
    take(scene);
    assert_int_equal(scene->durable, 2);
    assert_int_equal(scene->loaded_count, 3);
    uint32_t cancelled = 0;
    for (uint32_t i = 0; i < 3; i++) {
        cancelled += scene->loaded[i]->err == HP_ERR_CANCELLED ? 1 : 0;
        if (scene->loaded[i]->load->cookie == 9) {
            assert_true(scene->loaded[i]->tasks[0].exists);
        }
    }
    assert_int_equal(cancelled, 2);
    scene_free(scene);
}

static void test_check_between_commits(void **state)
{
    (void)state;
    struct scene *scene = scene_new(hp_store_mem_new());
    scene->gate.check_steps = 100;
    hp_store_thread_load(scene->thread, hp_load_new(HP_LOAD_CHECK));
    put_group(scene, 1);
    while (scene->durable < 1 || scene->loaded_count < 1) {
        wait_wake(scene);
    }
    assert_int_equal(scene->loaded[0]->err, HP_OK);
    assert_int_equal(hp_store_thread_stop(scene->thread, 1000), HP_OK);
    scene_free(scene);
}

/* What cannot be read is not told as missing: the process ends, in a child of this one. */
static void test_read_error(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct scene scene = {.gate = {.load_err = HP_ERR_IO}};
        struct hp_error error = {0};
        scene.gate.base.ops = &gate_ops;
        scene.gate.inner = hp_store_mem_new();
        struct hp_store_thread_options options = {
            .store = &scene.gate.base, .wake = on_wake, .fatal = on_fatal_exit, .context = &scene};
        if (hp_store_thread_new(&options, &scene.thread, &error) != HP_OK) {
            _exit(2);
        }
        load_tasks(&scene, 1, 10);
        (void)hp_store_thread_stop(scene.thread, 1000);
        _exit(0); /* it went on */
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 70);
}

/* A commit that failed once is not tried again, even if that would work: I2. */
static void test_write_error(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct scene *scene = calloc(1, sizeof(*scene));
        struct hp_error error = {0};
        scene->gate.base.ops = &gate_ops;
        scene->gate.inner = hp_store_mem_new();
        scene->gate.fail_count = 1;
        scene->gate.fail_err = HP_ERR_IO;
        struct hp_store_thread_options options = {
            .store = &scene->gate.base, .wake = on_wake, .fatal = on_fatal_exit, .context = scene};
        if (hp_store_thread_new(&options, &scene->thread, &error) != HP_OK) {
            _exit(2);
        }
        put_group(scene, 1);
        (void)hp_store_thread_stop(scene->thread, 1000);
        _exit(0); /* it went on */
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 70);
}

/* While a commit is under way nothing of it is durable. */
static void test_durable_after_the_commit(void **state)
{
    (void)state;
    struct scene *scene = scene_new(hp_store_mem_new());
    struct hp_store_done done = {0};
    pthread_mutex_lock(&scene->gate.mutex);
    scene->gate.closed = true;
    pthread_mutex_unlock(&scene->gate.mutex);
    put_group(scene, 1);
    pthread_mutex_lock(&scene->gate.mutex);
    while (scene->gate.waiting == 0) {
        pthread_cond_wait(&scene->gate.cond, &scene->gate.mutex);
    }
    pthread_mutex_unlock(&scene->gate.mutex);
    assert_false(hp_store_thread_take(scene->thread, &done));
    assert_int_equal(done.durable, 0);
    pthread_mutex_lock(&scene->gate.mutex);
    scene->gate.closed = false;
    pthread_cond_broadcast(&scene->gate.cond);
    pthread_mutex_unlock(&scene->gate.mutex);
    while (scene->durable < 1) {
        wait_wake(scene);
    }
    assert_int_equal(hp_store_thread_stop(scene->thread, 1000), HP_OK);
    scene_free(scene);
}

static void test_sqlite(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, true);
    struct scene *scene = scene_new(f.store);
    for (uint64_t number = 1; number <= 200; number++) {
        put_group(scene, number);
        if (number % 20 == 0) {
            load_tasks(scene, number, number * 10);
        }
    }
    while (scene->durable < 200 || scene->loaded_count < 10) {
        wait_wake(scene);
    }
    for (uint32_t i = 0; i < scene->loaded_count; i++) {
        assert_true(scene->loaded[i]->tasks[0].exists);
    }
    assert_int_equal(hp_store_thread_stop(scene->thread, 1000), HP_OK);
    scene_free(scene);
    struct hp_error error = {0};
    assert_int_equal(fixture_open_dir(f.dir, false, &f.store, &error), HP_OK);
    struct hp_store_figures figures;
    hp_store_figures(f.store, &figures);
    assert_int_equal(figures.task_count, 2000);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_empty_batches),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_when_the_disk_is_low),
        cmocka_unit_test(test_greeting_on_full_disk),
        cmocka_unit_test(test_stop_on_full_disk),
        cmocka_unit_test(test_stop_flushes),
        cmocka_unit_test(test_check_between_commits),
        cmocka_unit_test(test_sqlite),
        cmocka_unit_test(test_read_error),
        cmocka_unit_test(test_write_error),
        cmocka_unit_test(test_durable_after_the_commit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
