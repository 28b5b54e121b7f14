/* SPDX-License-Identifier: BSD-2-Clause */
/* The hub with threads, callbacks, reconnects and forks, against a broker on a socket. */
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "client/hub.h"
#include "tests/unit/hub_fake.h"

#define WAIT_MS 60000

struct rig {
    struct hub_fake *fake;
    struct hp_hub *hub;
    struct hp_options options;
    atomic_uint ended;
    atomic_uint known;
    atomic_uint released;
    atomic_uint wrong;
    atomic_uint lost;
    atomic_bool connected;
    struct hp_buffer kept;
    void (*on_end)(struct rig *rig, const struct hp_hub_end *end);
};

/* A task; the rig is that of all tests. */
struct task {
    struct rig *rig;
    atomic_bool ended;
    enum hp_status status;
    uint64_t id;
    enum hp_state state;
    char text[64];
};

static void on_ended(void *context, const struct hp_hub_end *ends, size_t count)
{
    struct rig *rig = context;

    for (size_t i = 0; i < count; i++) {
        struct task *task = ends[i].user;

        if (rig->on_end != NULL) {
            rig->on_end(rig, &ends[i]);
        }
        if (task != NULL) {
            task->status = ends[i].status;
            task->id = ends[i].id;
            task->state = ends[i].state;
            (void)snprintf(task->text, sizeof(task->text), "%s", ends[i].text);
            (void)atomic_fetch_add(&rig->wrong, atomic_load(&task->ended) ? 1 : 0);
            atomic_store(&task->ended, true);
        }
        (void)atomic_fetch_add(&rig->lost, ends[i].status == HP_STATUS_BROKER_LOST ? 1 : 0);
        (void)atomic_fetch_add(&rig->ended, 1);
    }
}

static void on_submitted(void *context, void *const *users, uint64_t first, uint32_t count)
{
    struct rig *rig = context;

    (void)users;
    (void)atomic_fetch_add(&rig->wrong, first == 0 ? 1 : 0);
    (void)atomic_fetch_add(&rig->known, count);
}

static void on_state(void *context, bool connected, enum hp_status status, const char *text)
{
    struct rig *rig = context;

    (void)status;
    (void)text;
    atomic_store(&rig->connected, connected);
}

static void on_released(void *context, void *user)
{
    struct rig *rig = context;

    (void)user;
    (void)atomic_fetch_add(&rig->released, 1);
}

static struct rig *rig_new(void)
{
    static const struct hp_hub_callbacks callbacks = {
        .ended = on_ended, .submitted = on_submitted, .state = on_state, .released = on_released};
    struct hp_client_options options;
    struct rig *rig = hp_calloc(1, sizeof(*rig));

    assert_non_null(rig);
    rig->fake = hub_fake_new();
    hp_client_options_init(&options);
    options.host = rig->fake->host;
    options.retry_base_ms = 1;
    options.retry_cap_ms = 10;
    assert_int_equal(hp_hub_new(&options, &callbacks, rig, &rig->hub), HP_STATUS_OK);
    hp_options_init(&rig->options);
    rig->options.fn = "f";
    return rig;
}

static void rig_free(struct rig *rig)
{
    assert_int_equal(atomic_load(&rig->wrong), 0);
    hp_hub_free(rig->hub);
    hub_fake_free(rig->fake);
    hp_buffer_clear(&rig->kept);
    hp_free(rig);
}

static bool task_ended(void *arg)
{
    return atomic_load(&((struct task *)arg)->ended);
}

static enum hp_status submit(struct rig *rig, const char *text, struct task *task)
{
    struct hp_bytes payload = {.data = text, .size = strlen(text)};
    void *user = task;

    task->rig = rig;
    return hp_hub_submit(rig->hub, &rig->options, &payload, 1, &user, WAIT_MS);
}

static void submit_and_wait(struct rig *rig, const char *text, struct task *task)
{
    assert_int_equal(submit(rig, text, task), HP_STATUS_OK);
    assert_true(hp_hub_wait(rig->hub, task_ended, task, WAIT_MS));
}

static void test_one(void **state)
{
    struct rig *rig = rig_new();
    struct task tasks[50] = {{.rig = rig}};

    (void)state;
    for (size_t i = 0; i < 50; i++) {
        submit_and_wait(rig, "e", &tasks[i]);
        assert_int_equal(tasks[i].status, HP_STATUS_OK);
        assert_int_equal(tasks[i].state, HP_STATE_DONE);
        assert_int_equal(tasks[i].id, i + 1);
    }
    assert_int_equal(atomic_load(&rig->known), 50);
    assert_true(hp_hub_connected(rig->hub));
    assert_int_equal(hp_hub_outstanding(rig->hub), 0);
    rig_free(rig);
}

/* ---------------------------------------------------------------- threads */

#define THREADS 6u
#define EACH 3000u

struct crowd {
    struct rig *rig;
    struct task tasks[EACH];
    pthread_t thread;
};

static enum hp_status ping(struct hp_client *client, void *arg)
{
    (void)arg;
    return hp_broker_ping(client, WAIT_MS, NULL);
}

static void *crowd_main(void *context)
{
    struct crowd *crowd = context;
    struct rig *rig = crowd->rig;

    for (size_t i = 0; i < EACH; i++) {
        struct task *task = &crowd->tasks[i];
        bool good = submit(rig, "e", task) == HP_STATUS_OK;

        if (i % 64 == 0) {
            good = good && hp_hub_wait(rig->hub, task_ended, task, WAIT_MS);
        }
        if (i % 256 == 0) {
            good = good && hp_hub_call(rig->hub, ping, NULL) == HP_STATUS_OK;
        }
        (void)atomic_fetch_add(&rig->wrong, good ? 0 : 1);
    }
    return NULL;
}

static bool crowd_ended(void *arg)
{
    return atomic_load(&((struct rig *)arg)->ended) == THREADS * EACH;
}

static void test_threads(void **state)
{
    struct rig *rig = rig_new();
    struct crowd *crowds = hp_calloc(THREADS, sizeof(*crowds));

    (void)state;
    assert_non_null(crowds);
    for (size_t i = 0; i < THREADS; i++) {
        crowds[i].rig = rig;
        assert_int_equal(pthread_create(&crowds[i].thread, NULL, crowd_main, &crowds[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(crowds[i].thread, NULL), 0);
    }
    assert_true(hp_hub_wait(rig->hub, crowd_ended, rig, WAIT_MS));
    assert_int_equal(atomic_load(&rig->known), THREADS * EACH);
    assert_int_equal(rig->fake->next_id, THREADS * EACH + 1);
    rig_free(rig);
    hp_free(crowds);
}

/* Many at once share messages. */
static void test_many(void **state)
{
    struct rig *rig = rig_new();
    struct hp_bytes *payloads = hp_calloc(THREADS * EACH, sizeof(*payloads));

    (void)state;
    assert_non_null(payloads);
    for (size_t i = 0; i < THREADS * EACH; i++) {
        payloads[i] = (struct hp_bytes){.data = "ex", .size = 1 + i % 2};
    }
    assert_int_equal(
        hp_hub_submit(rig->hub, &rig->options, payloads, THREADS * EACH, NULL, WAIT_MS),
        HP_STATUS_OK);
    assert_true(hp_hub_wait(rig->hub, crowd_ended, rig, WAIT_MS));
    assert_true(atomic_load(&rig->fake->message_count) <= 6);
    assert_true(hp_hub_flush(rig->hub, WAIT_MS));
    rig_free(rig);
    hp_free(payloads);
}

#define EARLY 2000u

static bool early_ended(void *arg)
{
    return atomic_load(&((struct rig *)arg)->ended) == EARLY;
}

/* What is submitted anew after a reconnect may have ended before its answer comes. */
static void test_ends_before_the_answer(void **state)
{
    struct rig *rig = rig_new();
    struct hp_bytes payloads[20];

    (void)state;
    /* One that does not end: so ends of tasks that are not known are kept for a moment. */
    payloads[0] = (struct hp_bytes){.data = "h", .size = 1};
    assert_int_equal(hp_hub_submit(rig->hub, &rig->options, payloads, 1, NULL, WAIT_MS),
                     HP_STATUS_OK);
    assert_true(hp_hub_flush(rig->hub, WAIT_MS));
    atomic_store(&rig->fake->ends_first, true);
    for (size_t i = 0; i < HP_COUNT_OF(payloads); i++) {
        payloads[i] = (struct hp_bytes){.data = "ex", .size = 1 + i % 2};
    }
    for (uint32_t i = 0; i < EARLY; i += HP_COUNT_OF(payloads)) {
        assert_int_equal(
            hp_hub_submit(rig->hub, &rig->options, payloads, HP_COUNT_OF(payloads), NULL, WAIT_MS),
            HP_STATUS_OK);
    }
    assert_true(hp_hub_wait(rig->hub, early_ended, rig, WAIT_MS));
    assert_true(hp_hub_flush(rig->hub, WAIT_MS));
    assert_int_equal(atomic_load(&rig->known), EARLY + 1);
    rig_free(rig);
}

static bool flood_ended(void *arg)
{
    return atomic_load(&((struct rig *)arg)->ended) == 5 * 40000;
}

/* More than the queue holds: who waits for room is woken when there is some. */
static void test_waiting_for_room(void **state)
{
    struct rig *rig = rig_new();
    struct hp_bytes *payloads = hp_calloc(40000, sizeof(*payloads));

    (void)state;
    assert_non_null(payloads);
    for (size_t i = 0; i < 40000; i++) {
        payloads[i] = (struct hp_bytes){.data = "e", .size = 1};
    }
    for (int i = 0; i < 5; i++) {
        assert_int_equal(hp_hub_submit(rig->hub, &rig->options, payloads, 40000, NULL, -1),
                         HP_STATUS_OK);
    }
    assert_true(hp_hub_wait(rig->hub, flood_ended, rig, WAIT_MS));
    rig_free(rig);
    hp_free(payloads);
}

/* ---------------------------------------------------------------- callbacks */

static struct task inner;
static atomic_bool inner_tried;

/* Submits, waits and calls from inside a callback. */
static void end_nested(struct rig *rig, const struct hp_hub_end *end)
{
    (void)end;
    if (!atomic_exchange(&inner_tried, true)) {
        submit_and_wait(rig, "e", &inner);
        assert_int_equal(hp_hub_call(rig->hub, ping, NULL), HP_STATUS_OK);
    }
}

static void test_nested(void **state)
{
    struct rig *rig = rig_new();
    struct task outer = {.rig = rig};

    (void)state;
    rig->on_end = end_nested;
    submit_and_wait(rig, "e", &outer);
    assert_true(atomic_load(&inner.ended));
    rig_free(rig);
}

static void test_refused(void **state)
{
    struct rig *rig = rig_new();
    struct task task = {.rig = rig};

    (void)state;
    submit_and_wait(rig, "r", &task);
    assert_int_equal(task.status, HP_STATUS_UNSUPPORTED);
    assert_int_equal(task.id, 0);
    assert_string_equal(task.text, "not here");
    rig->options.fn = NULL;
    assert_int_equal(submit(rig, "e", &task), HP_STATUS_BAD_ARGUMENT);
    assert_string_equal(hp_hub_error(rig->hub), "options: fn is not set");
    rig_free(rig);
}

/* ---------------------------------------------------------------- large ones */

static void end_large(struct rig *rig, const struct hp_hub_end *end)
{
    bool good = end->status == HP_STATUS_OK && end->result.size == FAKE_BLOB_BYTES &&
                end->owned != NULL && end->owned->data == end->result.data;

    (void)atomic_fetch_add(&rig->wrong, good ? 0 : 1);
    if (end->owned != NULL) {
        hp_buffer_clear(&rig->kept);
        rig->kept = *end->owned;
        *end->owned = (struct hp_buffer){0};
    }
}

static void test_large(void **state)
{
    struct rig *rig = rig_new();
    struct task task = {.rig = rig};
    size_t size = 900001;
    uint8_t *bytes = hp_calloc(size, 1);
    struct hp_bytes pieces[] = {{.data = "b", .size = 1},
                                {.data = bytes, .size = 300000},
                                {0},
                                {.data = bytes + 300000, .size = size - 300001}};

    (void)state;
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(i * 13 >> 1);
    }
    rig->on_end = end_large;
    submit_and_wait(rig, "b", &task);
    assert_memory_equal(rig->kept.data, rig->fake->blob, FAKE_BLOB_BYTES);
    /* The broker sees an empty payload and a blob: it ends with an empty result. */
    rig->on_end = NULL;
    atomic_store(&task.ended, false);
    assert_int_equal(hp_hub_submit_pieces(rig->hub, &rig->options, pieces, 4, &task, WAIT_MS),
                     HP_STATUS_OK);
    assert_true(hp_hub_wait(rig->hub, task_ended, &task, WAIT_MS));
    assert_int_equal(atomic_load(&rig->released), 1);
    assert_int_equal(rig->fake->blob_size, size);
    assert_int_equal(rig->fake->blob[0], 'b');
    assert_memory_equal(rig->fake->blob + 1, bytes, size - 1);
    assert_int_equal(atomic_load(&rig->fake->put_count), 4);
    rig_free(rig);
    hp_free(bytes);
}

/* ---------------------------------------------------------------- restarts */

static bool all_known(void *arg)
{
    return atomic_load(&((struct rig *)arg)->known) == 20;
}

/* A broker that restarts is not seen, but for what it does not keep. */
static void test_restart(void **state)
{
    struct rig *rig = rig_new();
    struct task tasks[20] = {{.rig = rig}};

    (void)state;
    for (size_t i = 0; i < 20; i++) {
        rig->options.durable = i % 2 == 0;
        assert_int_equal(submit(rig, "h", &tasks[i]), HP_STATUS_OK);
    }
    assert_true(hp_hub_wait(rig->hub, all_known, rig, WAIT_MS));
    atomic_store(&rig->fake->restart, true);
    for (size_t i = 0; i < 20; i++) {
        assert_true(hp_hub_wait(rig->hub, task_ended, &tasks[i], WAIT_MS));
        assert_int_equal(tasks[i].status, i % 2 == 0 ? HP_STATUS_OK : HP_STATUS_BROKER_LOST);
    }
    assert_int_equal(atomic_load(&rig->lost), 10);
    assert_int_equal(hp_hub_outstanding(rig->hub), 0);
    rig_free(rig);
}

/* Without a broker the window fills, and says so; a wait ends in time, by a wake, or a signal. */
static void test_no_broker(void **state)
{
    struct rig *rig = rig_new();
    struct hp_bytes *payloads = hp_calloc(70000, sizeof(*payloads));
    struct task task = {.rig = rig};
    enum hp_status status = HP_STATUS_OK;
    unsigned count = 0;

    (void)state;
    assert_non_null(payloads);
    hub_fake_free(rig->fake);
    while (status == HP_STATUS_OK) {
        status = hp_hub_submit(rig->hub, &rig->options, payloads, 70000, NULL, 0);
        assert_true(++count < 100);
    }
    assert_int_equal(status, HP_STATUS_TIMEOUT);
    errno = 0;
    assert_false(hp_hub_wait(rig->hub, task_ended, &task, 1));
    assert_int_equal(errno, ETIMEDOUT);
    hp_hub_wake(rig->hub);
    hp_hub_free(rig->hub);
    hp_free(payloads);
    hp_free(rig);
}

static bool was_denied(void *arg)
{
    return atomic_load(&((struct rig *)arg)->fake->denied_count) > 0;
}

/* Waiting ends if the broker refuses the client from the start, not if it does so later. */
static void test_denied(void **state)
{
    struct rig *rig = rig_new();
    struct task held = {.rig = rig};
    struct task task = {.rig = rig};

    (void)state;
    atomic_store(&rig->fake->deny, true);
    assert_int_equal(submit(rig, "h", &held), HP_STATUS_OK);
    errno = 0;
    assert_false(hp_hub_wait(rig->hub, task_ended, &held, WAIT_MS));
    assert_int_equal(errno, EACCES);
    assert_int_equal(hp_hub_trouble(rig->hub), HP_STATUS_DENIED);
    assert_string_equal(hp_hub_error(rig->hub), "not you");
    atomic_store(&rig->fake->deny, false);
    while (!atomic_load(&rig->connected)) {
        (void)hp_hub_wait(rig->hub, task_ended, &held, 1);
    }
    submit_and_wait(rig, "e", &task);
    assert_int_equal(hp_hub_trouble(rig->hub), HP_STATUS_OK);

    atomic_store(&rig->fake->denied_count, 0);
    atomic_store(&rig->fake->deny, true);
    atomic_store(&rig->fake->restart, true);
    assert_true(hp_hub_wait(rig->hub, was_denied, rig, WAIT_MS));
    atomic_store(&rig->fake->deny, false);
    assert_true(hp_hub_wait(rig->hub, task_ended, &held, WAIT_MS));
    assert_int_equal(held.status, HP_STATUS_OK);
    rig_free(rig);
}

/* ---------------------------------------------------------------- fork */

static _Atomic unsigned interface_looks; /* by getaddrinfo, which has a lock for it */

/* In place of libc's: the test's hosts are addresses. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **ret)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = NULL;

    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    interface_looks += hints != NULL && (hints->ai_flags & AI_ADDRCONFIG) != 0;
    return real(name, service, hints, ret);
}

static void child_main(struct rig *rig, const char *host)
{
    struct task task = {.rig = rig};

    (void)host;
    if (submit(rig, "e", &task) != HP_STATUS_STOPPED ||
        hp_hub_wait(rig->hub, task_ended, &task, WAIT_MS) || errno != ECANCELED) {
        _exit(1);
    }
    if (hp_hub_after_fork(rig->hub) != HP_STATUS_OK || submit(rig, "e", &task) != HP_STATUS_OK ||
        !hp_hub_wait(rig->hub, task_ended, &task, WAIT_MS) || task.status != HP_STATUS_OK) {
        _exit(2);
    }
    _exit(0);
}

#if defined(__SANITIZE_THREAD__)
#define HAS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HAS_TSAN 1
#endif
#endif

static void test_fork(void **state)
{
#ifdef HAS_TSAN
    skip(); /* it allows no threads after a fork */
#endif
    struct rig *rig = rig_new();
    struct task task = {.rig = rig};
    struct task after = {.rig = rig};
    int status = 0;
    pid_t pid;

    (void)state;
    submit_and_wait(rig, "e", &task);
    pid = fork();
    if (pid == 0) {
        child_main(rig, rig->fake->host);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    submit_and_wait(rig, "e", &after);
    assert_int_equal(interface_looks, 0); /* the child could wait for that lock for ever */
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_ends_before_the_answer),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_waiting_for_room),
        cmocka_unit_test(test_nested),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_no_broker),
        cmocka_unit_test(test_denied),
        cmocka_unit_test(test_fork),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
