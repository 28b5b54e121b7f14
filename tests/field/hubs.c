/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many short function tasks through a hub (client/hub.h), from several threads; every result is
 * checked. What tests/field/noops is for the client itself.
 *
 *   hubs HOST MODE COUNT THREADS [BYTES]
 *
 * MODE pipelined: one hp_hub_submit for each task, as fast as the window allows, noop;
 *      square:    the same, and the result of task i must be i * i;
 *      single:    each thread waits for each task before the next one; prints p50 and p99;
 *      submit:    acknowledgements only;
 *      echo:      payloads of BYTES, which must come back; borrowed.
 * Prints one line: "tasks N seconds S per_second R wrong W ..." and exits 0 if nothing was wrong.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/hub.h"

#define THREADS_MAX 64u

enum mode { MODE_PIPELINED, MODE_SQUARE, MODE_SINGLE, MODE_SUBMIT, MODE_ECHO };
static const char *const modes[] = {"pipelined", "square", "single", "submit", "echo"};

struct test;

struct task {
    struct test *test;
    uint64_t index;
    atomic_bool ended;
};

struct test {
    struct hp_hub *hub;
    enum mode mode;
    uint64_t count;
    unsigned thread_count;
    size_t bytes;
    unsigned char *payload;
    struct task *tasks;
    uint64_t *latency_ns;
    atomic_uint_fast64_t known;
    atomic_uint_fast64_t ended;
    atomic_uint_fast64_t released;
    atomic_uint_fast64_t wrong;
};

struct worker {
    struct test *test;
    unsigned number;
    pthread_t thread;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A MessagePack integer. */
static size_t pack_int(unsigned char *out, uint64_t value)
{
    out[0] = 0xcf;
    for (unsigned i = 0; i < 8; i++) {
        out[1 + i] = (unsigned char)(value >> (56 - 8 * i));
    }
    return 9;
}

static uint64_t unpack_int(struct hp_bytes bytes)
{
    const unsigned char *data = bytes.data;
    uint64_t value = 0;
    if (bytes.size == 0) {
        return UINT64_MAX;
    }
    for (size_t i = 1; i < bytes.size; i++) {
        value = value << 8 | data[i];
    }
    return bytes.size == 1 ? data[0] : value;
}

static bool is_right(const struct test *test, const struct hp_hub_end *end)
{
    const struct task *task = end->user;
    if (end->status != HP_STATUS_OK || end->state != HP_STATE_DONE) {
        (void)fprintf(stderr, "task %llu: %s %s %s %s\n", (unsigned long long)end->id,
                      hp_status_word(end->status), end->text, hp_state_word(end->state),
                      end->end != NULL && end->end->error != NULL ? end->end->error : "");
        return false;
    }
    if (test->mode == MODE_SQUARE) {
        return unpack_int(end->result) == task->index * task->index;
    }
    return test->mode != MODE_ECHO || (end->result.size == test->bytes &&
                                       memcmp(end->result.data, test->payload, test->bytes) == 0);
}

static void on_ended(void *context, const struct hp_hub_end *ends, size_t count)
{
    struct test *test = context;
    for (size_t i = 0; i < count; i++) {
        struct task *task = ends[i].user;
        if (!is_right(test, &ends[i]) || atomic_exchange(&task->ended, true)) {
            (void)atomic_fetch_add(&test->wrong, 1);
        }
    }
    (void)atomic_fetch_add(&test->ended, count);
}

static void on_submitted(void *context, void *const *users, uint64_t first, uint32_t count)
{
    struct test *test = context;
    (void)users;
    (void)first;
    (void)atomic_fetch_add(&test->known, count);
}

static void on_released(void *context, void *user)
{
    struct test *test = context;
    (void)user;
    (void)atomic_fetch_add(&test->released, 1);
}

static bool task_ended(void *arg)
{
    return atomic_load(&((struct task *)arg)->ended);
}

static bool all_ended(void *arg)
{
    struct test *test = arg;
    return (test->mode == MODE_SUBMIT ? atomic_load(&test->known) : atomic_load(&test->ended)) ==
           test->count;
}

static void *run(void *context)
{
    struct worker *worker = context;
    struct test *test = worker->test;
    struct hp_options options;
    unsigned char number[16];
    hp_options_init(&options);
    options.fn = test->mode == MODE_SQUARE ? "square" : test->mode == MODE_ECHO ? "echo" : "noop";
    for (uint64_t i = worker->number; i < test->count; i += test->thread_count) {
        struct task *task = &test->tasks[i];
        struct hp_bytes payload = {.data = number, .size = pack_int(number, i)};
        void *user = task;
        uint64_t begin_ns = now_ns();
        if (test->mode == MODE_ECHO) {
            payload = (struct hp_bytes){.data = test->payload, .size = test->bytes};
        }
        task->test = test;
        task->index = i;
        if (hp_hub_submit(test->hub, &options, &payload, 1, &user, 60000) != HP_STATUS_OK) {
            (void)fprintf(stderr, "submit: %s\n", hp_hub_error(test->hub));
            exit(1);
        }
        if (test->mode == MODE_SINGLE) {
            if (!hp_hub_wait(test->hub, task_ended, task, 60000)) {
                (void)fprintf(stderr, "task %llu: no end\n", (unsigned long long)i);
                exit(1);
            }
            test->latency_ns[i] = now_ns() - begin_ns;
        }
    }
    return NULL;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool parse(struct test *test, int argc, char **argv)
{
    if (argc < 5 || argc > 6) {
        return false;
    }
    while (test->mode <= MODE_ECHO && strcmp(argv[2], modes[test->mode]) != 0) {
        test->mode++;
    }
    test->count = strtoull(argv[3], NULL, 10);
    test->thread_count = (unsigned)strtoul(argv[4], NULL, 10);
    test->bytes = argc == 6 ? strtoull(argv[5], NULL, 10) : 0;
    return test->mode <= MODE_ECHO && test->count > 0 && test->thread_count > 0 &&
           test->thread_count <= THREADS_MAX;
}

static void print(struct test *test, double seconds)
{
    bool released = test->mode != MODE_ECHO || test->bytes <= HP_PAYLOAD_INLINE_BYTES ||
                    atomic_load(&test->released) == test->count;
    if (!released) {
        (void)atomic_fetch_add(&test->wrong, 1);
    }
    (void)printf("tasks %llu seconds %.3f per_second %.0f wrong %llu",
                 (unsigned long long)test->count, seconds, (double)test->count / seconds,
                 (unsigned long long)atomic_load(&test->wrong));
    if (test->mode == MODE_SINGLE) {
        qsort(test->latency_ns, test->count, sizeof(*test->latency_ns), compare);
        (void)printf(" p50_us %.1f p99_us %.1f", (double)test->latency_ns[test->count / 2] / 1e3,
                     (double)test->latency_ns[test->count * 99 / 100] / 1e3);
    }
    if (test->mode == MODE_ECHO) {
        (void)printf(" mib_per_second %.0f",
                     (double)test->count * (double)test->bytes / seconds / 1048576.0);
    }
    (void)printf("\n");
}

int main(int argc, char **argv)
{
    struct test test = {.mode = MODE_PIPELINED};
    struct hp_hub_callbacks callbacks = {.ended = on_ended, .released = on_released};
    struct hp_client_options options;
    struct worker workers[THREADS_MAX];
    if (!parse(&test, argc, argv)) {
        (void)fprintf(stderr, "usage: hubs HOST MODE COUNT THREADS [BYTES]\n");
        return 2;
    }
    callbacks.submitted = test.mode == MODE_SUBMIT ? on_submitted : NULL;
    test.tasks = calloc(test.count, sizeof(*test.tasks));
    test.latency_ns = calloc(test.count, sizeof(*test.latency_ns));
    test.payload = malloc(test.bytes + 1);
    if (test.tasks == NULL || test.latency_ns == NULL || test.payload == NULL) {
        return 1;
    }
    for (size_t i = 0; i < test.bytes; i++) {
        test.payload[i] = (unsigned char)(i * 31 >> 3);
    }
    hp_client_options_init(&options);
    options.host = argv[1];
    options.name = "hubs";
    if (hp_hub_new(&options, &callbacks, &test, &test.hub) != HP_STATUS_OK) {
        (void)fprintf(stderr, "%s\n", hp_hub_error(test.hub));
        return 1;
    }
    uint64_t begin_ns = now_ns();
    for (unsigned i = 0; i < test.thread_count; i++) {
        workers[i] = (struct worker){.test = &test, .number = i};
        if (pthread_create(&workers[i].thread, NULL, run, &workers[i]) != 0) {
            return 1;
        }
    }
    for (unsigned i = 0; i < test.thread_count; i++) {
        (void)pthread_join(workers[i].thread, NULL);
    }
    if (!hp_hub_wait(test.hub, all_ended, &test, 600000)) {
        (void)fprintf(stderr, "not all have ended: %llu outstanding\n",
                      (unsigned long long)hp_hub_outstanding(test.hub));
        return 1;
    }
    print(&test, (double)(now_ns() - begin_ns) / 1e9);
    hp_hub_free(test.hub);
    free(test.tasks);
    free(test.latency_ns);
    free(test.payload);
    return atomic_load(&test.wrong) == 0 ? 0 : 1;
}
