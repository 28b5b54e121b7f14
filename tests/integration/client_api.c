/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Uses libhostpool as a program of a user would, against a live broker with one worker of two slots
 * and the example module: `client_api TEST`, status 0 if all is well. test_client_install.py builds
 * it against the installed library and runs the tests.
 */
#include <hostpool.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __func__, __LINE__, #condition);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define OK(call) check_ok(client, (call), #call, __LINE__)

static void check_ok(const struct hp_client *client, enum hp_status status, const char *call,
                     int line)
{
    if (status != HP_STATUS_OK) {
        fprintf(stderr, "line %d: %s: %s: %s\n", line, call, hp_status_word(status),
                hp_client_error(client));
        exit(1);
    }
}

static struct hp_client *connect_client(void)
{
    struct hp_client *client;

    OK(hp_connect(NULL, 20000, &client));
    return client;
}

static struct hp_options function(const char *name)
{
    struct hp_options options;

    hp_options_init(&options);
    options.fn = name;
    return options;
}

static struct hp_options command(const char *const *argv, size_t count)
{
    struct hp_options options;

    hp_options_init(&options);
    options.kind = HP_KIND_COMMAND;
    options.argv = argv;
    options.argv_count = count;
    return options;
}

/* ---------------------------------------------------------------- tests */

static void test_tasks(struct hp_client *client)
{
    const char *const argv[] = {"sh", "-c", "cat; echo err >&2; exit 3"};
    struct hp_options options = command(argv, 3);
    struct hp_bytes payload = {.data = "input", .size = 5};
    struct hp_result *result;
    struct hp_lines *lines;
    struct hp_task_list *list;
    struct hp_filter filter;
    enum hp_outcome outcome;
    uint64_t id;

    options.name = "api";
    OK(hp_submit(client, &options, &payload, HP_TIMEOUT_DEFAULT, &id, &outcome));
    CHECK(outcome == HP_OUTCOME_CREATED);
    OK(hp_result(client, id, 30000, &result));
    CHECK(result->task.state == HP_STATE_FAILED && result->task.reason == HP_END_EXIT);
    CHECK(result->task.end->has_exit_code && result->task.end->exit_code == 3);
    CHECK(result->value.size == 5 && memcmp(result->value.data, "input", 5) == 0);
    CHECK(result->err.size == 4 && memcmp(result->err.data, "err\n", 4) == 0);
    CHECK(result->task.node != NULL && result->task.attempt == 1);
    hp_result_free(result);
    OK(hp_why(client, id, HP_TIMEOUT_DEFAULT, &lines));
    CHECK(lines->count > 0 && lines->state == HP_STATE_FAILED);
    hp_lines_free(lines);
    hp_filter_init(&filter);
    filter.name = "api";
    filter.states = 1u << HP_STATE_FAILED;
    OK(hp_list(client, &filter, HP_TIMEOUT_DEFAULT, &list));
    CHECK(list->count >= 1 && list->tasks[0].id == id);
    CHECK(strcmp(list->tasks[0].options->argv[2], argv[2]) == 0);
    hp_task_list_free(list);
    CHECK(hp_result(client, id + 1000000, 1000, &result) == HP_STATUS_NOT_FOUND);
    options.priority = 1000;
    CHECK(hp_submit(client, &options, NULL, 1000, &id, NULL) == HP_STATUS_BAD_ARGUMENT);
    CHECK(strstr(hp_client_error(client), "priority") != NULL);
}

static void test_many(struct hp_client *client)
{
    enum { COUNT = 10000 };
    static struct hp_bytes payloads[COUNT];
    static char texts[COUNT][16];
    struct hp_options options = function("echo");
    struct hp_id_list ids;
    struct hp_task_list *list;
    size_t seen = 0;

    for (int i = 0; i < COUNT; i++) {
        int size = snprintf(texts[i], sizeof(texts[i]), "payload %d", i);

        payloads[i] = (struct hp_bytes){.data = texts[i], .size = (size_t)size};
    }
    OK(hp_submit_many(client, &options, payloads, COUNT, 30000, &ids));
    CHECK(ids.total == COUNT);
    OK(hp_wait(client, ids.ranges, ids.count, HP_WAIT_ALL, HP_DETAIL_END, 60000, &list));
    CHECK(list->count == COUNT && !list->timed_out);
    for (size_t r = 0; r < ids.count; r++) {
        for (uint32_t i = 0; i < ids.ranges[r].count; i++, seen++) {
            const struct hp_task *task = &list->tasks[seen];

            CHECK(task->id == ids.ranges[r].first + i && task->state == HP_STATE_DONE);
            CHECK(task->end->result.size == payloads[seen].size);
            CHECK(memcmp(task->end->result.data, texts[seen], task->end->result.size) == 0);
        }
    }
    hp_task_list_free(list);
    hp_id_list_clear(&ids);
}

static void test_waiting(struct hp_client *client)
{
    const char *const argv[] = {"sh", "-c", "sleep 60"};
    const char *const quick[] = {"true"};
    struct hp_options options = command(argv, 3);
    struct hp_options quick_options = command(quick, 1);
    struct hp_ids slow;
    struct hp_ids ids[2];
    struct hp_task_list *list;
    struct hp_cancel_report report;
    uint64_t id;

    options.array_base = 5;
    OK(hp_submit_array(client, &options, 1, HP_TIMEOUT_DEFAULT, &slow));
    OK(hp_submit(client, &quick_options, NULL, HP_TIMEOUT_DEFAULT, &id, NULL));
    ids[0] = slow;
    ids[1] = (struct hp_ids){.first = id, .count = 1};
    OK(hp_wait(client, ids, 2, HP_WAIT_ANY, 0, 30000, &list));
    CHECK(list->count == 2 && !list->timed_out);
    CHECK(!hp_state_is_final(list->tasks[0].state) && list->tasks[1].state == HP_STATE_DONE);
    hp_task_list_free(list);
    OK(hp_wait(client, ids, 2, HP_WAIT_ALL, 0, 50, &list));
    CHECK(list->timed_out && list->count == 2);
    hp_task_list_free(list);
    CHECK(hp_wait(client, &slow, 1, HP_WAIT_ALL, 0, 50, NULL) == HP_STATUS_TIMEOUT);
    OK(hp_cancel(client, ids, 2, HP_CANCEL_FORCE, 100, "test", HP_TIMEOUT_DEFAULT, &report));
    CHECK(report.cancelling + report.cancelled == 1 && report.too_late == 1);
    CHECK(report.result_count == 2);
    hp_cancel_report_clear(&report);
    OK(hp_wait(client, ids, 2, HP_WAIT_ALL, 0, 30000, &list));
    CHECK(list->tasks[0].state == HP_STATE_CANCELLED);
    hp_task_list_free(list);
}

static void test_blobs(struct hp_client *client)
{
    const size_t size = 3000001;
    unsigned char *data = malloc(size);
    struct hp_options options = function("echo");
    struct hp_bytes payloads[3];
    struct hp_map_results *results;
    struct hp_result *result;
    uint64_t id;

    CHECK(data != NULL);
    for (size_t i = 0; i < size; i++) {
        data[i] = (unsigned char)(i * 2654435761u >> 13);
    }
    payloads[0] = (struct hp_bytes){.data = data, .size = size};
    payloads[1] = (struct hp_bytes){.data = data, .size = 10};
    payloads[2] = (struct hp_bytes){.data = data, .size = 70000};
    OK(hp_submit(client, &options, &payloads[0], 30000, &id, NULL));
    OK(hp_result(client, id, 30000, &result));
    CHECK(result->task.state == HP_STATE_DONE && result->value.size == size);
    CHECK(memcmp(result->value.data, data, size) == 0);
    hp_result_free(result);
    OK(hp_map(client, &options, payloads, 3, 60000, &results));
    CHECK(results->count == 3 && results->failed == 0);
    for (size_t i = 0; i < 3; i++) {
        CHECK(results->results[i]->value.size == payloads[i].size);
        CHECK(memcmp(results->results[i]->value.data, data, payloads[i].size) == 0);
    }
    hp_map_results_free(results);
    free(data);
}

/* Inputs of many sizes, made in the same room. */
struct sized {
    size_t next;
    size_t count;
    size_t seen;
    unsigned char room[400000];
};

static size_t make_sized(unsigned char *room, size_t index)
{
    size_t size = index % 3 == 0 ? 50 + index : 60000 + index * 9000;

    memset(room, (int)index, size);
    return size;
}

static int sized_input(void *context, struct hp_bytes *ret_payload)
{
    struct sized *sized = context;

    if (sized->next == sized->count) {
        return 0;
    }
    ret_payload->size = make_sized(sized->room, sized->next++);
    ret_payload->data = sized->room;
    return 1;
}

static int sized_output(void *context, uint64_t index, const struct hp_result *result)
{
    static unsigned char wanted[400000];
    struct sized *sized = context;
    size_t size = make_sized(wanted, index);

    CHECK(result->value.size == size && memcmp(result->value.data, wanted, size) == 0);
    sized->seen++;
    return 0;
}

/* On this host, results come as what they are: memory, unless that is turned off. */
static void test_large(struct hp_client *client)
{
    static struct sized sized = {.count = 30};
    static unsigned char data[300000];
    const char *near = getenv("HOSTPOOL_NEAR");
    struct hp_options options = function("echo");
    struct hp_bytes payload = {.data = data, .size = sizeof(data)};
    struct hp_map_options map_options;
    struct hp_buffer buffer;
    struct hp_result *result;
    uint64_t id;

    hp_map_options_init(&map_options);
    map_options.window_tasks = 7;
    OK(hp_map_stream(client, &options, &map_options, sized_input, sized_output, &sized, 60000));
    CHECK(sized.seen == sized.count);
    memset(data, 'd', sizeof(data));
    options.durable = false;
    OK(hp_submit(client, &options, &payload, 30000, &id, NULL));
    OK(hp_result(client, id, 30000, &result));
    CHECK(result->value.size == sizeof(data) &&
          memcmp(result->value.data, data, sizeof(data)) == 0);
    OK(hp_fetch_blob(client, result->task.end->result_blob, 30000, &buffer));
    CHECK((buffer.mapped > 0) == (near == NULL || strcmp(near, "0") != 0));
    CHECK(buffer.size == sizeof(data) && memcmp(buffer.data, data, sizeof(data)) == 0);
    hp_buffer_clear(&buffer);
    hp_result_free(result);
    CHECK(hp_fetch_blob(client, 1u << 30, 30000, &buffer) == HP_STATUS_NOT_FOUND);
}

struct counting {
    uint64_t next;
    uint64_t last;
    uint64_t seen;
    uint64_t stop_at;
    uint64_t pause_at; /* an input that takes a while to come */
    bool ordered;
    char text[24];
};

static int count_input(void *context, struct hp_bytes *ret_payload)
{
    struct counting *counting = context;

    if (counting->next == counting->last) {
        return 0;
    }
    if (counting->pause_at != 0 && counting->next % counting->pause_at == 0) {
        (void)poll(NULL, 0, 3);
    }
    ret_payload->size =
        (size_t)snprintf(counting->text, sizeof(counting->text), "%" PRIu64, counting->next++);
    ret_payload->data = counting->text;
    return 1;
}

static int count_output(void *context, uint64_t index, const struct hp_result *result)
{
    struct counting *counting = context;
    char text[24];
    size_t size = (size_t)snprintf(text, sizeof(text), "%" PRIu64, index);

    CHECK(!counting->ordered || index == counting->seen);
    CHECK(result->task.state == HP_STATE_DONE);
    CHECK(result->value.size == size && memcmp(result->value.data, text, size) == 0);
    counting->seen++;
    return counting->stop_at != 0 && counting->seen == counting->stop_at;
}

static void test_map(struct hp_client *client)
{
    struct hp_options options = function("echo");
    struct hp_map_options map_options;
    struct counting counting = {.last = 30000, .ordered = true};

    hp_map_options_init(&map_options);
    map_options.window_tasks = 5000;
    OK(hp_map_stream(client, &options, &map_options, count_input, count_output, &counting, 60000));
    CHECK(counting.seen == 30000);
    counting = (struct counting){.last = 30000};
    map_options.unordered = true;
    OK(hp_map_stream(client, &options, &map_options, count_input, count_output, &counting, 60000));
    CHECK(counting.seen == 30000);
    counting = (struct counting){.last = 30000, .stop_at = 100};
    CHECK(hp_map_stream(client, &options, &map_options, count_input, count_output, &counting,
                        60000) == HP_STATUS_STOPPED);
    CHECK(counting.seen == 100 && hp_client_outstanding(client) == 0);
    counting = (struct counting){.last = 0};
    OK(hp_map_stream(client, &options, NULL, count_input, count_output, &counting, 60000));
    CHECK(counting.seen == 0);
}

/* Several inputs in one task: the same results, whatever the sizes and the pace. */
static void test_chunks(struct hp_client *client)
{
    static const struct {
        uint64_t count;
        uint32_t chunk;
        bool unordered;
        uint64_t pause_at;
    } cases[] = {{30000, 64, false, 0},   {30000, 64, true, 0},    {64, 64, false, 0},
                 {65, 64, true, 0},       {1, 64, false, 0},       {0, 64, false, 0},
                 {9999, 10000, false, 0}, {60000, 20000, true, 0}, {2000, 700, false, 100},
                 {5, 1, false, 0}};
    struct hp_options options = function("echo");

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct hp_map_options map_options;
        struct counting counting = {
            .last = cases[i].count, .ordered = !cases[i].unordered, .pause_at = cases[i].pause_at};
        hp_map_options_init(&map_options);
        map_options.window_tasks = 3;
        map_options.chunk_items = cases[i].chunk;
        map_options.unordered = cases[i].unordered;
        OK(hp_map_stream(client, &options, &map_options, count_input, count_output, &counting,
                         60000));
        CHECK(counting.seen == cases[i].count);
    }
}

/* Every hundredth input is none that the function takes. */
static int bad_input(void *context, struct hp_bytes *ret_payload)
{
    struct counting *counting = context;

    if (counting->next == counting->last) {
        return 0;
    }
    ret_payload->data = counting->next++ % 100 == 99 ? "\xa1x" : "\x02";
    ret_payload->size = counting->next % 100 == 0 ? 2 : 1;
    return 1;
}

/* A chunk that failed is told for each of its inputs, those around it are what they are. */
static int bad_output(void *context, uint64_t index, const struct hp_result *result)
{
    struct counting *counting = context;
    bool failed = index / 10 % 10 == 9;

    CHECK(index == counting->seen);
    CHECK(result->task.state == (failed ? HP_STATE_FAILED : HP_STATE_DONE));
    CHECK(failed ? strcmp(result->task.end->error, "item 9: square wants an integer") == 0
                 : result->value.size == 1 && memcmp(result->value.data, "\x04", 1) == 0);
    CHECK(!failed || result->value.size == 0);
    counting->seen++;
    return 0;
}

static void test_chunks_that_fail(struct hp_client *client)
{
    struct hp_options options = function("square");
    struct hp_map_options map_options;
    struct counting counting = {.last = 1000};

    hp_map_options_init(&map_options);
    map_options.chunk_items = 10;
    OK(hp_map_stream(client, &options, &map_options, bad_input, bad_output, &counting, 60000));
    CHECK(counting.seen == 1000);

    options = function("echo");
    counting = (struct counting){.last = 30000, .stop_at = 100};
    CHECK(hp_map_stream(client, &options, &map_options, count_input, count_output, &counting,
                        60000) == HP_STATUS_STOPPED);
    CHECK(counting.seen == 100 && hp_client_outstanding(client) == 0);

    options.payload_kind = HP_PAYLOAD_ITEMS;
    CHECK(hp_map_stream(client, &options, &map_options, count_input, count_output, &counting,
                        60000) == HP_STATUS_BAD_ARGUMENT);
    CHECK(strstr(hp_client_error(client), "chunk_items") != NULL);
    hp_options_init(&options);
    options.kind = HP_KIND_COMMAND;
    CHECK(hp_map_stream(client, &options, &map_options, count_input, count_output, &counting,
                        60000) == HP_STATUS_BAD_ARGUMENT);
}

static void poll_once(struct hp_client *client)
{
    struct pollfd fd;
    unsigned wants;

    OK(hp_client_process(client, 0));
    fd = (struct pollfd){.fd = hp_client_fd(client)};
    wants = hp_client_wants(client);
    fd.events = (short)(((wants & HP_IO_READ) != 0 ? POLLIN : 0) |
                        ((wants & HP_IO_WRITE) != 0 ? POLLOUT : 0));
    CHECK(poll(&fd, fd.fd < 0 ? 0 : 1, hp_client_timeout_ms(client)) >= 0);
    OK(hp_client_process(client,
                         ((fd.revents & (POLLIN | POLLHUP | POLLERR)) != 0 ? HP_IO_READ : 0) |
                             ((fd.revents & POLLOUT) != 0 ? HP_IO_WRITE : 0)));
}

/* 100,000 single submits; each task must end once, with its own user pointer. */
static void test_async(struct hp_client *client)
{
    enum { COUNT = 100000 };
    static unsigned char ended[COUNT];
    static char texts[COUNT][8];
    struct hp_options options = function("echo");
    uint32_t given = 0;
    uint32_t submitted = 0;
    uint32_t done = 0;

    while (done < COUNT) {
        struct hp_event event;

        while (hp_client_next_event(client, &event)) {
            CHECK(event.kind != HP_EVENT_SUBMIT_FAILED);
            submitted += event.kind == HP_EVENT_SUBMITTED ? event.ids.count : 0;
            if (event.kind == HP_EVENT_ENDED) {
                size_t i = (size_t)((char(*)[8])event.user - texts);

                CHECK(event.task->state == HP_STATE_DONE && ended[i] == 0);
                CHECK(event.task->end->result.size == strlen(texts[i]));
                CHECK(memcmp(event.task->end->result.data, texts[i], strlen(texts[i])) == 0);
                ended[i] = 1;
                done++;
            }
        }
        while (given < COUNT) {
            struct hp_bytes payload = {.data = texts[given]};
            enum hp_status status;

            payload.size = (size_t)snprintf(texts[given], sizeof(texts[given]), "%u", given);
            status = hp_submit_async(client, &options, &payload, 1, texts[given], NULL);
            if (status == HP_STATUS_AGAIN) {
                break;
            }
            OK(status);
            given++;
        }
        if (done < COUNT) {
            poll_once(client);
        }
    }
    CHECK(submitted == COUNT && hp_client_outstanding(client) == 0);
}

static void test_output(struct hp_client *client)
{
    const char *const argv[] = {"sh", "-c", "echo one; echo two; read line; echo three"};
    struct hp_options options = command(argv, 3);
    struct hp_bytes payload = {.data = "go\n", .size = 3};
    char text[256] = "";
    size_t size = 0;
    uint64_t request;
    bool ended = false;

    options.follow = true;
    OK(hp_submit_async(client, &options, &payload, 1, NULL, &request));
    while (!ended) {
        struct hp_event event;

        OK(hp_client_wait_event(client, 30000, &event));
        if (event.kind == HP_EVENT_OUTPUT) {
            CHECK(event.output_offset == size);
            CHECK(size + event.output_data.size < sizeof(text));
            memcpy(text + size, event.output_data.data, event.output_data.size);
            size += event.output_data.size;
        }
        ended = event.kind == HP_EVENT_ENDED;
        CHECK(!ended || (event.request == request && event.task->state == HP_STATE_DONE &&
                         event.task->end->out.size == 14));
    }
    CHECK(strncmp("one\ntwo\nthree\n", text, size) == 0);
}

static void test_operators(struct hp_client *client)
{
    struct hp_queue_list *queues;
    struct hp_worker_list *workers;
    struct hp_broker_info *info;
    struct hp_lines *lines;
    struct hp_options options = function("noop");
    int64_t now_ms = 0;
    bool changed = false;
    uint64_t id;
    struct hp_ids ids;
    struct hp_result *result;

    options.queue = "apiq";
    OK(hp_broker_ping(client, HP_TIMEOUT_DEFAULT, &now_ms));
    CHECK(now_ms > 1000000000000);
    OK(hp_queue_pause(client, "apiq", true, HP_TIMEOUT_DEFAULT, &changed));
    OK(hp_submit(client, &options, NULL, HP_TIMEOUT_DEFAULT, &id, NULL));
    ids = (struct hp_ids){.first = id, .count = 1};
    CHECK(hp_wait(client, &ids, 1, HP_WAIT_ALL, 0, 100, NULL) == HP_STATUS_TIMEOUT);
    OK(hp_queue_get(client, "apiq", HP_TIMEOUT_DEFAULT, &queues));
    CHECK(queues->count == 1 && queues->queues[0].paused && queues->queues[0].ready == 1);
    hp_queue_list_free(queues);
    OK(hp_queue_pause(client, "apiq", false, HP_TIMEOUT_DEFAULT, &changed));
    CHECK(changed);
    OK(hp_result(client, id, 30000, &result));
    CHECK(result->task.state == HP_STATE_DONE);
    hp_result_free(result);
    CHECK(hp_queue_get(client, "no such", 5000, &queues) == HP_STATUS_NOT_FOUND);
    OK(hp_worker_get(client, NULL, HP_TIMEOUT_DEFAULT, &workers));
    CHECK(workers->count == 1 && workers->workers[0].slots == 2);
    CHECK(workers->workers[0].function_count > 3);
    OK(hp_worker_drain(client, workers->workers[0].node, true, "test", 5000, &changed));
    CHECK(changed);
    OK(hp_worker_drain(client, workers->workers[0].node, false, NULL, 5000, &changed));
    hp_worker_list_free(workers);
    CHECK(hp_worker_get(client, "nobody", 5000, &workers) == HP_STATUS_NOT_FOUND);
    OK(hp_broker_status(client, HP_TIMEOUT_DEFAULT, &info));
    CHECK(info->epoch >= 1 && info->figure_count > 0);
    hp_broker_info_free(info);
    OK(hp_broker_check(client, 30000, &lines));
    CHECK(lines->ok);
    hp_lines_free(lines);
}

static void test_fork(struct hp_client *client)
{
    struct hp_options options = function("noop");
    struct hp_result *result;
    uint64_t id;
    uint64_t child_id;
    int status = 0;
    pid_t pid;

    OK(hp_submit(client, &options, NULL, HP_TIMEOUT_DEFAULT, &id, NULL));
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        OK(hp_submit(client, &options, NULL, HP_TIMEOUT_DEFAULT, &child_id, NULL));
        OK(hp_result(client, child_id, 30000, &result));
        hp_result_free(result);
        hp_close(client);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    OK(hp_result(client, id, 30000, &result));
    CHECK(result->task.state == HP_STATE_DONE);
    hp_result_free(result);
}

/* Prints "ready" when tasks are outstanding, and goes on while the test kills the broker. */
static void test_restart(struct hp_client *client)
{
    struct hp_options options = function("echo");
    struct hp_map_options map_options;
    struct counting counting = {.last = 20000, .ordered = true};

    hp_map_options_init(&map_options);
    printf("ready\n");
    fflush(stdout);
    OK(hp_map_stream(client, &options, &map_options, count_input, count_output, &counting, 100000));
    CHECK(counting.seen == 20000);
}

static void test_unreachable(struct hp_client *client)
{
    struct hp_client_options options;
    struct hp_client *other;

    hp_client_options_init(&options);
    options.host = "127.0.0.1:1";
    CHECK(hp_connect(&options, 5000, &other) == HP_STATUS_UNREACHABLE);
    CHECK(strstr(hp_client_error(other), "127.0.0.1:1") != NULL);
    CHECK(hp_broker_ping(other, 300, NULL) == HP_STATUS_UNREACHABLE);
    hp_close(other);
    options.host = "nonsense:port:x:";
    CHECK(hp_connect(&options, 5000, &other) != HP_STATUS_OK);
    hp_close(other);
    OK(hp_broker_ping(client, 5000, NULL));
}

static const struct {
    const char *name;
    void (*run)(struct hp_client *client);
} tests[] = {
    {"tasks", test_tasks},     {"many", test_many},
    {"waiting", test_waiting}, {"blobs", test_blobs},
    {"large", test_large},     {"map", test_map},
    {"chunks", test_chunks},   {"chunks_that_fail", test_chunks_that_fail},
    {"async", test_async},     {"output", test_output},
    {"fork", test_fork},       {"operators", test_operators},
    {"restart", test_restart}, {"unreachable", test_unreachable},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc == 2 && i < sizeof(tests) / sizeof(tests[0]); i++) {
        if (strcmp(tests[i].name, argv[1]) == 0) {
            struct hp_client *client = connect_client();

            tests[i].run(client);
            hp_close(client);
            return 0;
        }
    }
    fprintf(stderr, "usage: client_api TEST\n");
    return 2;
}
