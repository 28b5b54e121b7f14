/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemons of `hostpool dev'. */
#include "cli/daemons.h"
#include "cli/signals.h"

#include "common/base/buf.h"
#include "common/sys/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_MS 20000
#define STOP_MS 5000
#define LOG_TAIL_BYTES 2000u

int hp_cli_daemons_sleep(int signal_fd, int timeout_ms)
{
    struct pollfd wait = {.fd = signal_fd, .events = POLLIN};
    int number = hp_cli_signals_next(signal_fd);
    if (number == 0 && poll(&wait, 1, timeout_ms) > 0) {
        number = hp_cli_signals_next(signal_fd);
    }
    return number;
}

/* ---------------------------------------------------------------- finding */

static const char *own_dir(void)
{
    char path[PATH_MAX];
    ssize_t size = readlink("/proc/self/exe", path, sizeof(path) - 1);
    if (size <= 0) {
        return NULL;
    }
    path[size] = '\0';
    char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return NULL;
    }
    *slash = '\0';
    return hp_cli_printf("%s", path);
}

static const char *in_path(const char *name)
{
    const char *at = getenv("PATH");
    while (at != NULL && *at != '\0') {
        size_t size = strcspn(at, ":");
        const char *path = hp_cli_printf("%.*s/%s", (int)size, at, name);
        if (access(path, X_OK) == 0) {
            return path;
        }
        at += size;
        at += *at == ':';
    }
    return NULL;
}

/* Beside this program; in a build folder; else in PATH. NULL: error printed. */
static const char *find_program(const char *bin_dir, const char *folder, const char *name)
{
    if (bin_dir != NULL) {
        const char *candidates[] = {hp_cli_printf("%s/%s", bin_dir, name),
                                    hp_cli_printf("%s/../%s/%s", bin_dir, folder, name),
                                    hp_cli_printf("%s/../sbin/%s", bin_dir, name)};
        for (size_t i = 0; i < HP_COUNT_OF(candidates); i++) {
            if (access(candidates[i], X_OK) == 0) {
                return candidates[i];
            }
        }
    }
    const char *path = in_path(name);
    if (path == NULL) {
        hp_cli_error("cannot find %s beside this program or in PATH.", name);
        hp_cli_hint("Install it, or add its folder to PATH.");
    }
    return path;
}

/* ---------------------------------------------------------------- starting */

static int start_program(struct hp_cli_daemons *daemons, const char *const *words, const char *log)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0) {
        hp_cli_error("cannot start a process: %s.", strerror(errno));
        return HP_CLI_FAILED;
    }
    if (pid == 0) {
        hp_cli_signals_reset();
        (void)setpgid(0, 0);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (getppid() == parent && fd >= 0 && null_fd >= 0 && dup2(fd, STDOUT_FILENO) >= 0 &&
            dup2(fd, STDERR_FILENO) >= 0 && dup2(null_fd, STDIN_FILENO) >= 0) {
            (void)execv(words[0], (char *const *)(uintptr_t)words);
        }
        _exit(HP_CLI_RUN_NO_EXEC);
    }
    daemons->pids[daemons->count] = pid;
    daemons->logs[daemons->count] = log;
    daemons->count++;
    return 0;
}

static int make_dir(struct hp_cli_daemons *daemons)
{
    const char *base = getenv("TMPDIR");
    int size = snprintf(daemons->dir, sizeof(daemons->dir), "%s/hostpool-dev-XXXXXX",
                        base != NULL && *base == '/' ? base : "/tmp");
    if (size < 0 || (size_t)size >= sizeof(daemons->dir) || mkdtemp(daemons->dir) == NULL) {
        hp_cli_error("cannot make a directory in %s: %s.", base != NULL ? base : "/tmp",
                     strerror(errno));
        daemons->dir[0] = '\0';
        return HP_CLI_FAILED;
    }
    return 0;
}

static int start_broker(struct hp_cli_daemons *daemons)
{
    const char *program = find_program(daemons->bin_dir, "server", "hostpoold");
    if (program == NULL) {
        return HP_CLI_NOT_FOUND;
    }
    const char *words[] = {program,    "--data-dir",  hp_cli_printf("%s/broker", daemons->dir),
                           "--listen", "127.0.0.1:0", NULL};
    return start_program(daemons, words, hp_cli_printf("%s/broker.log", daemons->dir));
}

static int start_worker(struct hp_cli *cli, struct hp_cli_daemons *daemons, unsigned slots)
{
    const char *program = find_program(daemons->bin_dir, "worker", "hostpool-worker");
    const struct hp_cli_value *modules = hp_cli_get(cli, HP_CLI_F_MODULE);
    const char **words = hp_cli_alloc_array(16 + 2 * modules->count, sizeof(*words));
    size_t count = 0;
    if (program == NULL) {
        return HP_CLI_NOT_FOUND;
    }
    size_t number = daemons->count;
    words[count++] = program;
    words[count++] = "--broker";
    words[count++] = daemons->host;
    words[count++] = "--node";
    words[count++] = hp_cli_printf("dev%zu", number);
    words[count++] = "--slots";
    words[count++] = hp_cli_printf("%u", slots);
    words[count++] = "--state-dir";
    words[count++] = hp_cli_printf("%s/worker%zu", daemons->dir, number);
    words[count++] = "--drain-timeout";
    words[count++] = "1s";
    for (size_t i = 0; i < modules->count; i++) {
        words[count++] = "--module";
        words[count++] = modules->list[i];
    }
    daemons->slot_count += slots;
    return start_program(daemons, words, hp_cli_printf("%s/worker%zu.log", daemons->dir, number));
}

/* ---------------------------------------------------------------- watching */

static void print_log(const char *path)
{
    struct hp_buf log = {0};
    if (hp_file_read(path, 1u << 24, &log, NULL) != HP_OK) {
        return;
    }
    size_t skip = log.size > LOG_TAIL_BYTES ? log.size - LOG_TAIL_BYTES : 0;
    (void)fputs(hp_cli_escape((const char *)log.data + skip, log.size - skip, true), stderr);
    hp_buf_deinit(&log);
}

int hp_cli_daemons_check(struct hp_cli_daemons *daemons)
{
    for (size_t i = 0; i < daemons->count; i++) {
        int status = 0;
        if (daemons->pids[i] == 0 ||
            waitpid(daemons->pids[i], &status, WNOHANG) != daemons->pids[i]) {
            continue;
        }
        daemons->pids[i] = 0;
        hp_cli_error("the %s has ended by itself (%s %d). Its log ends so:",
                     i == 0 ? "broker" : "worker", WIFEXITED(status) ? "exit" : "signal",
                     WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
        print_log(daemons->logs[i]);
        return HP_CLI_FAILED;
    }
    return 0;
}

/* A signal that ends the start, or a daemon that ended; 0: go on. */
static int watch(struct hp_cli_daemons *daemons, int signal_fd, int64_t until_ms)
{
    int number = hp_cli_daemons_sleep(signal_fd, 20);
    if (number != 0 && number != SIGCHLD) {
        return 128 + number;
    }
    int code = hp_cli_daemons_check(daemons);
    if (code == 0 && hp_cli_mono_ms() > until_ms) {
        hp_cli_error("broker and workers were not ready within %d seconds. The log ends so:",
                     START_MS / 1000);
        print_log(daemons->logs[daemons->count - 1]);
        code = HP_CLI_FAILED;
    }
    return code;
}

static int wait_port(struct hp_cli_daemons *daemons, int signal_fd, int64_t until_ms)
{
    const char *path = hp_cli_printf("%s/broker/hostpoold.port", daemons->dir);
    for (;;) {
        struct hp_buf text = {0};
        unsigned port = 0;
        if (hp_file_read(path, 64, &text, NULL) == HP_OK) {
            for (size_t i = 0; i < text.size && text.data[i] >= '0' && text.data[i] <= '9'; i++) {
                port = port * 10 + (unsigned)(text.data[i] - '0');
            }
            bool is_whole = text.size > 0 && text.data[text.size - 1] == '\n';
            hp_buf_deinit(&text);
            if (is_whole && port > 0 && port <= UINT16_MAX) {
                (void)snprintf(daemons->host, sizeof(daemons->host), "127.0.0.1:%u", port);
                return 0;
            }
        }
        int code = watch(daemons, signal_fd, until_ms);
        if (code != 0) {
            return code;
        }
    }
}

static int wait_workers(struct hp_cli_daemons *daemons, int signal_fd, int64_t until_ms,
                        size_t wanted)
{
    struct hp_client_options options;
    struct hp_client *client = NULL;
    int code = 0;
    size_t online = 0;
    hp_client_options_init(&options);
    options.host = daemons->host;
    options.events = false;
    if (hp_client_new(&options, &client) != HP_STATUS_OK ||
        hp_broker_ping(client, START_MS, NULL) != HP_STATUS_OK) {
        hp_cli_error("the broker does not answer: %s",
                     client != NULL ? hp_client_error(client) : "");
        code = HP_CLI_UNREACHABLE;
    }
    while (code == 0 && online < wanted) {
        struct hp_worker_list *list = NULL;
        online = 0;
        if (hp_worker_get(client, NULL, 1000, &list) == HP_STATUS_OK) {
            for (size_t i = 0; i < list->count; i++) {
                online += list->workers[i].state == HP_WORKER_ONLINE;
            }
            hp_worker_list_free(list);
        }
        code = online < wanted ? watch(daemons, signal_fd, until_ms) : 0;
    }
    hp_client_free(client);
    return code;
}

static unsigned default_slots(size_t workers)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    size_t slots = (cpus > 0 ? (size_t)cpus : 1) / workers;
    return slots > 0 ? (unsigned)slots : 1;
}

int hp_cli_daemons_start(struct hp_cli *cli, struct hp_cli_daemons *daemons, int signal_fd)
{
    size_t workers = hp_cli_number(cli, HP_CLI_F_WORKERS, 1);
    unsigned slots = (unsigned)hp_cli_number(cli, HP_CLI_F_SLOTS, default_slots(workers));
    int64_t until_ms = hp_cli_mono_ms() + START_MS;
    daemons->bin_dir = own_dir();
    int code = make_dir(daemons);
    code = code == 0 ? start_broker(daemons) : code;
    code = code == 0 ? wait_port(daemons, signal_fd, until_ms) : code;
    for (size_t i = 0; code == 0 && i < workers; i++) {
        code = start_worker(cli, daemons, slots);
    }
    return code == 0 ? wait_workers(daemons, signal_fd, until_ms, workers) : code;
}

/* ---------------------------------------------------------------- ending */

static int remove_entry(const char *path, const struct stat *about, int kind, struct FTW *place)
{
    (void)about;
    (void)kind;
    (void)place;
    (void)remove(path); /* what can not be removed stays: nobody else is hurt */
    return 0;
}

static bool signal_left(struct hp_cli_daemons *daemons, size_t first, size_t end, int number)
{
    bool is_left = false;
    for (size_t i = first; i < end; i++) {
        if (daemons->pids[i] != 0 && waitpid(daemons->pids[i], NULL, WNOHANG) == daemons->pids[i]) {
            daemons->pids[i] = 0;
        }
        if (daemons->pids[i] != 0) {
            is_left = true;
            if (number != 0) {
                (void)kill(daemons->pids[i], number);
            }
        }
    }
    return is_left;
}

/* TERM, and KILL for what is left after a while. */
static void end_range(struct hp_cli_daemons *daemons, size_t first, size_t end, int signal_fd)
{
    int64_t until_ms = hp_cli_mono_ms() + STOP_MS;
    bool is_left = signal_left(daemons, first, end, SIGTERM);
    while (is_left && hp_cli_mono_ms() < until_ms) {
        int number = hp_cli_daemons_sleep(signal_fd, 50);
        if (number == SIGINT) { /* impatient */
            until_ms = 0;
        }
        is_left = signal_left(daemons, first, end, 0);
    }
    while (is_left) {
        is_left = signal_left(daemons, first, end, SIGKILL);
        (void)hp_cli_daemons_sleep(signal_fd, is_left ? 20 : 0);
    }
}

void hp_cli_daemons_stop(struct hp_cli_daemons *daemons, int signal_fd)
{
    if (daemons->count > 0) {
        end_range(daemons, 1, daemons->count, signal_fd);
        end_range(daemons, 0, 1, signal_fd);
    }
    if (daemons->dir[0] != '\0') {
        (void)nftw(daemons->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
}
