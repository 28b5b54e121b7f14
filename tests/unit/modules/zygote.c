/* SPDX-License-Identifier: BSD-2-Clause */
/* A zygote of a language that has a few words: each payload is one, perhaps with a colon and more
 * behind it. Its argument says how it starts. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/exec/control.h"
#include "worker/exec/language.h"

#define MUCH_BYTES (3ull << 20) /* more than the tests let a result have */

static int hook_calls;
static bool lingers; /* does not end when it is told to */

/* The second fork never comes about: as with a lock that a warmed library holds for ever. */
static void get_stuck(void)
{
    static bool is_second;
    while (is_second) {
        (void)pause();
    }
    is_second = true;
}

static void count_hook(void)
{
    hook_calls++;
}

/* Numbers of the open descriptors, but for the one that looks. */
static void list_fds(char *out, size_t size)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    size_t used = 0;
    bool is_open[1024] = {false};
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        int fd = (int)strtol(entry->d_name, NULL, 10);
        bool is_number = entry->d_name[0] != '.';
        if (is_number && fd != dirfd(dir) && fd < 1024) {
            is_open[fd] = true;
        }
    }
    (void)closedir(dir);
    out[0] = '\0';
    for (int fd = 0; fd < 1024; fd++) {
        if (is_open[fd]) {
            used += (size_t)snprintf(out + used, size - used, "%d ", fd);
        }
    }
}

static bool starts_with(const struct hp_port_call *call, const char *word)
{
    size_t size = strlen(word);
    return call->payload.size >= size && memcmp(call->payload.data, word, size) == 0;
}

static void end_text(struct hp_port *port, enum hp_exec_call_status status, const char *text)
{
    struct hp_bin none = {.size = 0};
    if (hp_port_done(port, status, text, strlen(text), &none, 1, 0) != 0) {
        _exit(3);
    }
}

static void end_ok(struct hp_port *port, const char *result)
{
    /* In two pieces, as there may be any number. */
    size_t half = strlen(result) / 2;
    struct hp_bin pieces[2] = {hp_bin_make(result, half),
                               hp_bin_make(result + half, strlen(result) - half)};
    if (hp_port_done(port, HP_EXEC_CALL_OK, NULL, 0, pieces, 2, 0) != 0) {
        _exit(3);
    }
}

static void on_init(struct hp_port *port, const struct hp_port_call *call)
{
    lingers = starts_with(call, "fail and linger");
    if (starts_with(call, "hang")) {
        for (;;) {
            (void)pause();
        }
    } else if (starts_with(call, "fail")) {
        end_text(port, HP_EXEC_CALL_ERROR, "ValueError: bad");
    } else if (starts_with(call, "die")) {
        (void)fprintf(stderr, "dying\n");
        _exit(9);
    } else {
        end_ok(port, "");
    }
}

/* A process that leaves session and group, as daemons do; its number is the result. */
static void leave_orphan(struct hp_port *port)
{
    char text[32];
    pid_t pid = fork();
    if (pid == 0) {
        (void)setsid();
        for (;;) {
            (void)pause();
        }
    }
    (void)snprintf(text, sizeof text, "%d", (int)pid);
    end_ok(port, text);
}

/* Waits for the other end of the pipe that is named. */
static void wait_for(struct hp_port *port, const struct hp_port_call *call)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%.*s", (int)(call->payload.size - 6),
                   (const char *)call->payload.data + 6);
    hp_port_waits(port, true);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    hp_port_waits(port, false);
    (void)close(fd);
    end_ok(port, "waited");
}

/* Given back as it came, without a copy; or, "pieces", in two pieces. */
static void on_large_call(struct hp_port *port, const struct hp_port_call *call)
{
    size_t bytes = (size_t)call->payload_bytes;
    const uint8_t *data = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, call->payload_fd, 0);
    if (data != MAP_FAILED && memcmp(data, "pieces", 6) == 0) {
        struct hp_bin pieces[] = {hp_bin_make(data, 10), hp_bin_make(data + 10, bytes - 10)};
        (void)hp_port_done(port, HP_EXEC_CALL_OK, NULL, 0, pieces, 2, 0);
    } else {
        (void)hp_port_done_fd(port, HP_EXEC_CALL_OK, NULL, 0, call->payload_fd, bytes, 0);
    }
    if (data != MAP_FAILED) {
        (void)munmap((void *)(uintptr_t)data, bytes);
    }
    (void)close(call->payload_fd);
}

static void on_call(struct hp_port *port, const struct hp_port_call *call)
{
    char text[512];
    if (call->payload_fd >= 0) {
        on_large_call(port, call);
    } else if (starts_with(call, "error")) {
        struct hp_bin bytes = hp_bin_make("\0pickle", 7);
        (void)hp_port_done(port, HP_EXEC_CALL_ERROR, "ValueError: 7", 13, &bytes, 1, 0);
    } else if (starts_with(call, "print")) {
        for (int i = 0; i < 2000; i++) {
            (void)printf("line %d of many\n", i);
        }
        (void)fflush(stdout);
        end_ok(port, "");
    } else if (starts_with(call, "last words")) {
        (void)printf("on stdout\n");
        (void)fflush(stdout);
        (void)fprintf(stderr, "on stderr\n");
        abort();
    } else if (starts_with(call, "wait: ")) {
        wait_for(port, call);
    } else if (starts_with(call, "orphan")) {
        leave_orphan(port);
    } else if (starts_with(call, "linger")) {
        lingers = true;
        end_ok(port, "yes");
    } else if (starts_with(call, "deaf")) {
        (void)signal(SIGTERM, SIG_IGN);
        end_ok(port, "yes");
    } else if (starts_with(call, "boast")) {
        int fd = memfd_create("boast", MFD_CLOEXEC);
        (void)hp_port_done_fd(port, HP_EXEC_CALL_OK, NULL, 0, fd, 1u << 20, 0);
    } else if (starts_with(call, "much")) { /* it is there, and more than is taken */
        int fd = memfd_create("much", MFD_CLOEXEC);
        bool is_there = ftruncate(fd, MUCH_BYTES) == 0;
        (void)hp_port_done_fd(port, HP_EXEC_CALL_OK, NULL, 0, fd, is_there ? MUCH_BYTES : 0, 0);
    } else if (starts_with(call, "fork")) {
        (void)fork(); /* and both go on */
        hp_port_waits(port, true);
        end_ok(port, "forked");
    } else if (starts_with(call, "about")) {
        struct sigaction action;
        char fds[256];
        list_fds(fds, sizeof fds);
        (void)sigaction(SIGPIPE, NULL, &action);
        (void)snprintf(text, sizeof text, "pool %d, sigpipe %s, hooks %d, fds %s", (int)call->pool,
                       action.sa_handler == SIG_IGN ? "ignored" : "deadly", hook_calls, fds);
        end_ok(port, text);
    } else {
        (void)snprintf(text, sizeof text, "%.*s", (int)call->payload.size,
                       (const char *)call->payload.data);
        end_ok(port, text);
    }
}

/* Says that it is ready, twice, and that a child has ended which is not its own: the first of all.
 */
static void lie(void)
{
    struct hp_control_msg msg = {.type = HP_CONTROL_READY};
    (void)send(HP_LANGUAGE_CONTROL_FD, &msg, sizeof msg, 0);
    (void)send(HP_LANGUAGE_CONTROL_FD, &msg, sizeof msg, 0);
    msg.type = HP_CONTROL_ENDED;
    msg.id = 1;
    (void)send(HP_LANGUAGE_CONTROL_FD, &msg, sizeof msg, 0);
}

/* Takes more for a result than it was told. */
static void be_greedy(void)
{
    char words[64];
    const char *given = getenv(HP_LANGUAGE_VARIABLE);
    const char *cap = given == NULL ? NULL : strrchr(given, ':');
    if (cap != NULL) {
        (void)snprintf(words, sizeof words, "%.*s:%llu", (int)(cap - given), given, 2 * MUCH_BYTES);
        (void)setenv(HP_LANGUAGE_VARIABLE, words, 1);
    }
}

int main(int argc, char **argv)
{
    struct hp_language_hooks hooks = {count_hook, count_hook, count_hook};
    const char *how = argc > 1 ? argv[1] : "";
    char fds[256];
    char text[320];
    struct hp_port *port = NULL;
    if (strcmp(how, "exit") == 0) {
        (void)fprintf(stderr, "Traceback\nModuleNotFoundError: No module named 'hostpool'\n");
        return 1;
    }
    if (strcmp(how, "garbage") == 0) {
        (void)printf("what is this?\n");
        (void)fflush(stdout);
        (void)send(HP_LANGUAGE_CONTROL_FD, "rubbish", 7, 0);
    }
    while (strcmp(how, "garbage") == 0 || strcmp(how, "hang") == 0) {
        (void)pause();
    }
    if (strcmp(how, "stuck") == 0) {
        hooks.before_fork = get_stuck;
    }
    if (strcmp(how, "greedy") == 0) {
        be_greedy();
    }
    if (strcmp(how, "lie") == 0) {
        lie();
    }
    (void)signal(SIGPIPE, SIG_IGN);
    list_fds(fds, sizeof fds);
    (void)snprintf(text, sizeof text, "words1 %s fds %s", getenv("WORDS"), fds);
    if (hp_language_zygote(text, &hooks, &port) != 0) {
        (void)fprintf(stderr, "no zygote\n");
        return 2;
    }
    for (;;) {
        struct hp_port_call call;
        int got = hp_port_next(port, &call, true);
        while (got == -1 && lingers) {
            (void)pause();
        }
        if (got < 0) {
            return 0;
        }
        if (got == 1 && call.is_init) {
            on_init(port, &call);
        } else if (got == 1) {
            on_call(port, &call);
        }
    }
}
