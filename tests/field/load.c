/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A client under load for tests/kill: submits groups of mixed tasks with libhostpool and writes
 * what it was told to a journal, line by line, so that nothing it learnt is lost when it is killed.
 *
 *   load HOST SESSION_HEX JOURNAL SEED POOL_ID FOLDER OUTSTANDING
 *
 * Journal: "A first count kind base" acknowledged, "E id state reason attempt fnv1a" ended,
 * "F status text" a submit failed. SIGTERM: no further submits; exit 0 when all outstanding ended.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <hostpool.h>

#define PAYLOADS_MAX 32u
#define PAYLOAD_BYTES_MAX 160000u

static const char *const kinds[] = {"square", "bare", "echo", "flaky", "fail",
                                    "cmd",    "once", "key",  "exit3", "big"};
/* Out of 100; the slow ones are rare. */
static const unsigned weights[] = {30, 15, 15, 8, 6, 10, 6, 4, 4, 2};
enum { KIND_COUNT = sizeof(kinds) / sizeof(kinds[0]) };

/* What one submit is; it travels as the user pointer of its events. */
struct batch {
    unsigned kind;
    uint64_t base;
};

static void *to_user(const struct batch *batch)
{
    return (void *)(uintptr_t)(batch->base << 8 | batch->kind);
}

static struct batch from_user(const void *user)
{
    uintptr_t bits = (uintptr_t)user;
    return (struct batch){.kind = (unsigned)(bits & 0xff), .base = bits >> 8};
}

struct load {
    struct hp_client *client;
    int journal;
    uint64_t state; /* of the random numbers */
    uint64_t next_base;
    uint64_t outstanding_max;
    const char *pool_env;
    char starts_env[512];
    char locks_env[512];
};

static volatile sig_atomic_t is_stopping;

static void on_term(int number)
{
    (void)number;
    is_stopping = 1;
}

static uint64_t next_random(struct load *load)
{
    load->state += 0x9e3779b97f4a7c15u;
    uint64_t z = load->state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void die(const char *what, const struct hp_client *client)
{
    (void)fprintf(stderr, "load: %s: %s\n", what, client != NULL ? hp_client_error(client) : "");
    exit(1);
}

/* One write for each line: a kill leaves whole lines only. */
static void note(const struct load *load, const char *line, int size)
{
    if (size <= 0 || write(load->journal, line, (size_t)size) != size) {
        die("journal", NULL);
    }
}

/* Of the first bytes and the size. */
static uint64_t fnv1a(struct hp_bytes bytes)
{
    uint64_t hash = 0xcbf29ce484222325u ^ bytes.size;
    const unsigned char *data = bytes.data;
    for (size_t i = 0; i < bytes.size && i < 64; i++) {
        hash = (hash ^ data[i]) * 0x100000001b3u;
    }
    return hash;
}

/* ------------------------------------------------------------------------------------- tasks */

/* A MessagePack array of one integer. */
static size_t pack_int(unsigned char *out, uint64_t value)
{
    out[0] = 0x91;
    out[1] = 0xcf;
    for (unsigned i = 0; i < 8; i++) {
        out[2 + i] = (unsigned char)(value >> (56 - 8 * i));
    }
    return 10;
}

static size_t make_payload(unsigned char *out, const char *kind, uint64_t base)
{
    if (strcmp(kind, "square") == 0 || strcmp(kind, "bare") == 0) {
        return pack_int(out, base);
    }
    if (strcmp(kind, "flaky") == 0) {
        return pack_int(out, 2);
    }
    if (strcmp(kind, "echo") == 0 || strcmp(kind, "big") == 0) {
        size_t size = kind[0] == 'b' ? 70000 + (size_t)(base % 5) * 20000 : (size_t)(base % 2000);
        for (size_t i = 0; i < size; i++) {
            out[i] = (unsigned char)((base + i) % 251);
        }
        return size;
    }
    if (strcmp(kind, "fail") == 0) {
        return 0;
    }
    return (size_t)snprintf((char *)out, 64, "in-%llu\n", (unsigned long long)base);
}

static const char *const script = "printf '%s %s %s\\n' \"$HOSTPOOL_TASK_ID\" "
                                  "\"$HOSTPOOL_ATTEMPT\" \"$HOSTPOOL_EPOCH\" >>\"$STARTS\"\n"
                                  "if [ \"$0\" = key ]; then exec 9>>\"$LOCKS.lock\"\n"
                                  "flock -n 9\n"
                                  "[ $? = 1 ] && printf '%s %s\\n' \"$HOSTPOOL_TASK_ID\" "
                                  "\"$HOSTPOOL_ATTEMPT\" >>\"$LOCKS.overlap\"\n"
                                  "fi\n"
                                  "read -r line\n"
                                  "sleep 0.0$(($HOSTPOOL_TASK_ID % 4))\n"
                                  "[ \"$0\" = exit3 ] && exit 3\n"
                                  "printf 'out %s %s' \"$HOSTPOOL_TASK_ID\" \"$line\"\n";

static void set_options(const struct load *load, unsigned kind, struct hp_options *options,
                        const char **argv, const char **env)
{
    const char *name = kinds[kind];
    hp_options_init(options);
    options->max_losses = 1000;
    options->retry_base_ms = 30;
    options->retry_cap_ms = 300;
    options->name = name;
    if (kind <= 4 || kind == 9) {
        options->fn = kind <= 1 ? "square" : kind == 9 ? "echo" : name;
        options->child_losses = kind == 1 ? 0 : 1000;
        options->max_retries = kind == 3 ? 5 : 0;
        return;
    }
    options->kind = HP_KIND_COMMAND;
    argv[0] = "/bin/sh";
    argv[1] = "-c";
    argv[2] = script;
    argv[3] = name;
    options->argv = argv;
    options->argv_count = 4;
    env[0] = load->pool_env;
    env[1] = load->starts_env;
    env[2] = load->locks_env;
    options->env = env;
    options->env_count = 3;
    options->at_most_once = strcmp(name, "once") == 0;
    options->max_retries = options->at_most_once ? 0 : strcmp(name, "exit3") == 0 ? 1 : 1000;
    options->ckey = strcmp(name, "key") == 0 ? "one-at-a-time" : NULL;
}

static unsigned choose_kind(struct load *load)
{
    unsigned at = (unsigned)(next_random(load) % 100);
    unsigned kind = 0;
    while (at >= weights[kind]) {
        at -= weights[kind++];
    }
    return kind;
}

/* False if the window is full. */
static bool submit(struct load *load)
{
    static unsigned char room[PAYLOADS_MAX][PAYLOAD_BYTES_MAX];
    struct hp_bytes payloads[PAYLOADS_MAX];
    struct hp_options options;
    const char *argv[4];
    const char *env[3];
    struct batch batch = {.kind = choose_kind(load), .base = load->next_base};
    uint32_t most = batch.kind < 3 ? PAYLOADS_MAX : 3;
    uint32_t count = 1 + (uint32_t)(next_random(load) % most);
    for (uint32_t i = 0; i < count; i++) {
        payloads[i].data = room[i];
        payloads[i].size = make_payload(room[i], kinds[batch.kind], batch.base + i);
    }
    set_options(load, batch.kind, &options, argv, env);
    enum hp_status status =
        hp_submit_async(load->client, &options, payloads, count, to_user(&batch), NULL);
    if (status == HP_STATUS_AGAIN) {
        return false;
    }
    if (status != HP_STATUS_OK) {
        die("submit", load->client);
    }
    load->next_base += count;
    return true;
}

/* ------------------------------------------------------------------------------------ events */

static void take(struct load *load, const struct hp_event *event)
{
    char line[512];
    int size = 0;
    const struct batch batch = from_user(event->user);
    if (event->kind == HP_EVENT_SUBMITTED) {
        size = snprintf(line, sizeof(line), "A %llu %u %s %llu\n",
                        (unsigned long long)event->ids.first, event->ids.count, kinds[batch.kind],
                        (unsigned long long)(batch.base + event->index));
    } else if (event->kind == HP_EVENT_ENDED) {
        const struct hp_task *task = event->task;
        struct hp_bytes bytes = {0};
        if (task->end != NULL) {
            bytes = task->end->result.size > 0 ? task->end->result : task->end->out;
        }
        size = snprintf(line, sizeof(line), "E %llu %d %d %u %llu\n", (unsigned long long)task->id,
                        (int)task->state, (int)task->reason, task->attempt,
                        (unsigned long long)fnv1a(bytes));
    } else if (event->kind == HP_EVENT_SUBMIT_FAILED) {
        size = snprintf(line, sizeof(line), "F %s %s\n", hp_status_word(event->status),
                        event->text != NULL ? event->text : "");
    } else {
        return;
    }
    note(load, line, size);
}

static void turn(struct load *load)
{
    struct hp_event event;
    while (hp_client_next_event(load->client, &event)) {
        take(load, &event);
    }
    uint64_t room = load->outstanding_max;
    while (!is_stopping && hp_client_outstanding(load->client) < room && submit(load)) {
        /* until the window is full */
    }
    enum hp_status status = hp_client_process(load->client, 0);
    struct pollfd poll_fd = {.fd = hp_client_fd(load->client)};
    unsigned wants = hp_client_wants(load->client);
    poll_fd.events =
        (short)((wants & HP_IO_READ ? POLLIN : 0) | (wants & HP_IO_WRITE ? POLLOUT : 0));
    int wait_ms = hp_client_timeout_ms(load->client);
    if (wait_ms < 0 || wait_ms > 200) {
        wait_ms = 200; /* looks at is_stopping now and then */
    }
    if (poll(&poll_fd, 1, wait_ms) > 0) {
        unsigned ready = (poll_fd.revents & ~POLLOUT ? HP_IO_READ : 0u) |
                         (poll_fd.revents & POLLOUT ? HP_IO_WRITE : 0u);
        status = hp_client_process(load->client, ready);
    } else {
        status = hp_client_process(load->client, 0);
    }
    if (status != HP_STATUS_OK) {
        die("process", load->client);
    }
}

static void open_client(struct load *load, const char *host, const char *session_hex)
{
    uint8_t session[16];
    struct hp_client_options options;
    for (unsigned i = 0; i < sizeof(session); i++) {
        char digits[3] = {session_hex[2 * i], session_hex[2 * i + 1], '\0'};
        session[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    hp_client_options_init(&options);
    options.host = host;
    options.session = session;
    options.name = "load";
    options.retry_base_ms = 20;
    options.retry_cap_ms = 300;
    if (hp_client_new(&options, &load->client) != HP_STATUS_OK) {
        die("client", load->client);
    }
}

int main(int argc, char **argv)
{
    if (argc != 8 || strlen(argv[2]) != 32) {
        (void)fprintf(stderr, "usage: load HOST SESSION JOURNAL SEED POOL FOLDER OUTSTANDING\n");
        return 2;
    }
    struct load load = {.state = strtoull(argv[4], NULL, 10),
                        .outstanding_max = strtoull(argv[7], NULL, 10)};
    static char pool_env[128];
    (void)snprintf(pool_env, sizeof(pool_env), "HP_TEST_POOL=%s", argv[5]);
    (void)snprintf(load.starts_env, sizeof(load.starts_env), "STARTS=%s/starts", argv[6]);
    (void)snprintf(load.locks_env, sizeof(load.locks_env), "LOCKS=%s/key", argv[6]);
    load.pool_env = pool_env;
    load.next_base = load.state % 100000;
    load.journal = open(argv[3], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (load.journal < 0) {
        die("journal", NULL);
    }
    (void)signal(SIGTERM, on_term);
    open_client(&load, argv[1], argv[2]);
    while (!is_stopping || hp_client_outstanding(load.client) > 0) {
        turn(&load);
    }
    hp_close(load.client);
    (void)close(load.journal);
    return 0;
}
