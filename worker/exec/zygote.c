/* SPDX-License-Identifier: BSD-2-Clause */
/* Language zygotes, seen from the daemon: start, what they say, their end. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"
#include "common/sys/file.h"
#include "common/sys/proc.h"
#include "worker/exec/exec_priv.h"
#include "worker/exec/language.h"

#define ERROR_TAIL_BYTES 2000u
#define READS_MAX 16
#define READY_US 60000000u /* a program that has not become a zygote by then never will */
#define HIGH_FD 10         /* above all that the interpreter is given */
#define STACK_BYTES (64 * 1024)

void hp_languages_init(struct hp_exec *exec)
{
    for (uint32_t i = 0; i < HP_EXEC_ZYGOTES_MAX; i++) {
        struct hp_exec_language *language = &exec->languages[i];
        language->error_fd = -1;
        language->link.control.fd = -1;
        hp_list_init(&language->link.control.queue);
        hp_tail_init(&language->errors, ERROR_TAIL_BYTES);
    }
}

static void close_language(struct hp_exec_language *language)
{
    hp_fd_close(&language->error_fd);
    hp_tail_deinit(&language->errors);
    hp_tail_init(&language->errors, ERROR_TAIL_BYTES);
    language->link.pid = 0;
    language->link.is_dead = false;
    language->link.is_writing = false;
    language->link.silent_beats = 0;
    language->is_ready = false;
    language->generation++;
}

/* Ends it without asking, as it may run anything, and reaps it. Its children die of its death; what
 * they left behind is hp_exec_end_orphans' to find. */
static int end_language(struct hp_exec_language *language)
{
    int status = 0;
    (void)kill(language->link.pid, SIGKILL);
    hp_control_deinit(&language->link.control);
    while (language->link.pid > 0 && waitpid(language->link.pid, &status, 0) < 0 &&
           errno == EINTR) {
    }
    return status;
}

void hp_languages_deinit(struct hp_exec *exec)
{
    bool has_ended = false;
    for (uint32_t i = 0; i < HP_EXEC_ZYGOTES_MAX; i++) {
        struct hp_exec_language *language = &exec->languages[i];
        if (language->link.pid > 0) {
            (void)end_language(language);
            language->link.is_dead = true;
            has_ended = true;
        }
        hp_fd_close(&language->error_fd);
        hp_tail_deinit(&language->errors);
    }
    if (has_ended) {
        hp_exec_end_orphans(exec);
    }
}

/* ---------------------------------------------------------------- start */

/* The environment with the variable that makes it a zygote; from one block on the heap. */
static char **make_environment(const struct hp_exec *exec, const char *const *env, char *variable,
                               size_t size)
{
    size_t count = 0;
    while (env[count] != NULL) {
        count++;
    }
    char **out = hp_alloc_array(count + 2, sizeof *out);
    if (out == NULL) {
        return NULL;
    }
    (void)snprintf(variable, size, "%s=%" PRIu64 ":%" PRIu32 ":%" PRIu64, HP_LANGUAGE_VARIABLE,
                   exec->instance, exec->kid_count, exec->config.result_cap_bytes);
    for (size_t i = 0; i < count; i++) {
        out[i] = (char *)(uintptr_t)env[i];
    }
    out[count] = variable;
    out[count + 1] = NULL;
    return out;
}

/* What an interpreter is started with, and what became of it. */
struct start {
    const char *const *argv;
    char **env;
    pid_t parent;
    int high[3]; /* above all numbers below; to be control socket, shared memory, stderr */
    int error_number;
};

/* Runs in the child, on the daemon's memory, with all signals blocked. */
__attribute__((no_sanitize_address)) static int child_main(void *context)
{
    struct start *start = context;
    const int to[] = {HP_LANGUAGE_CONTROL_FD, HP_LANGUAGE_SHARED_FD, 2};
    sigset_t none;
    for (int number = 1; number < NSIG; number++) { /* no handler of the daemon's may run here */
        (void)signal(number, SIG_DFL);
    }
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setsid();
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* until it is a helper, which knows by EOF */
    if (getppid() != start->parent) {
        return 127; /* the daemon was killed before that: nobody would be told */
    }
    int null_fd = open("/dev/null", O_RDONLY);
    bool is_good = null_fd == 0 || dup2(null_fd, 0) == 0;
    for (int i = 0; i < 3 && is_good; i++) {
        is_good = dup2(start->high[i], to[i]) == to[i];
    }
    if (is_good && dup2(2, 1) == 1) {
        hp_proc_close_from(HP_LANGUAGE_SHARED_FD + 1);
        (void)execve(start->argv[0], (char *const *)(uintptr_t)start->argv, start->env);
    }
    start->error_number = errno;
    return 127;
}

static pid_t run(struct start *start)
{
    static _Alignas(16) char stack[STACK_BYTES]; /* one at a time: CLONE_VFORK */
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_BLOCK, &all, &before);
    pid_t pid = clone(child_main, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, start);
    if (pid < 0) {
        start->error_number = errno;
    } else if (start->error_number != 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    return pid;
}

/* Starts the program with its descriptors in place. 0 or an errno. */
static int spawn(const struct hp_exec *exec, const struct hp_exec_zygote *zygote, int control_fd,
                 int error_fd, pid_t *ret_pid)
{
    char variable[96];
    char **env = make_environment(exec, zygote->env, variable, sizeof variable);
    const int from[] = {control_fd, exec->shared_fd, error_fd};
    struct start start = {.argv = zygote->argv,
                          .parent = getpid(),
                          .env = env,
                          .high = {-1, -1, -1},
                          .error_number = env == NULL ? ENOMEM : 0};
    for (int i = 0; i < 3 && start.error_number == 0; i++) {
        start.high[i] = fcntl(from[i], F_DUPFD_CLOEXEC, HIGH_FD);
        start.error_number = start.high[i] < 0 ? errno : 0;
    }
    if (start.error_number == 0) {
        *ret_pid = run(&start);
    }
    for (int i = 0; i < 3; i++) {
        hp_fd_close(&start.high[i]);
    }
    hp_free(env);
    return start.error_number;
}

/* Opens the ends, starts it, watches it. */
static enum hp_err start(struct hp_exec *exec, struct hp_exec_language *language, uint32_t number,
                         const struct hp_exec_zygote *zygote, struct hp_error *reterr)
{
    int pair[2] = {-1, -1};
    int pipe_fds[2] = {-1, -1};
    enum hp_err err = hp_exec_link_pair(pair);
    err = err == HP_OK ? hp_exec_pipe_open(pipe_fds) : err;
    if (err != HP_OK) {
        hp_fd_close(&pair[0]);
        hp_fd_close(&pair[1]);
        return hp_error_set(reterr, err, "no descriptors for an interpreter");
    }
    pid_t pid = 0;
    int error_number = spawn(exec, zygote, pair[1], pipe_fds[1], &pid);
    hp_fd_close(&pair[1]);
    hp_fd_close(&pipe_fds[1]);
    if (error_number != 0) {
        hp_fd_close(&pair[0]);
        hp_fd_close(&pipe_fds[0]);
        return hp_error_set(reterr, HP_ERR_IO, "%s: %s", zygote->argv[0], strerror(error_number));
    }
    hp_control_init(&language->link.control, pair[0]);
    language->link.pid = pid;
    language->link.is_dead = false;
    language->link.source =
        (uint64_t)HP_SOURCE_LANGUAGE << 56 | (uint64_t)number << 32 | language->generation;
    language->error_fd = pipe_fds[0];
    language->ready_by_us = hp_clock_mono_us() + READY_US;
    hp_exec_timer_by(exec, language->ready_by_us);
    (void)snprintf(language->name, sizeof language->name, "%s", zygote->argv[0]);
    err = hp_exec_watch(exec, pair[0], HP_SOURCE_LANGUAGE, number, language->generation);
    err = err == HP_OK ? hp_exec_watch(exec, language->error_fd, HP_SOURCE_LANGUAGE_ERR, number,
                                       language->generation)
                       : err;
    if (err != HP_OK) {
        (void)end_language(language);
        close_language(language);
        return hp_error_set(reterr, err, "no memory to watch an interpreter");
    }
    return HP_OK;
}

enum hp_err hp_exec_zygote_start(struct hp_exec *exec, const struct hp_exec_zygote *zygote,
                                 uint32_t *ret_zygote, struct hp_error *reterr)
{
    if (exec->children == NULL || exec->config.pool_children_max == 0) {
        return hp_error_set(reterr, HP_ERR_INVALID, "this worker has no room for pools");
    }
    for (uint32_t i = 0; i < HP_EXEC_ZYGOTES_MAX; i++) {
        if (exec->languages[i].link.pid == 0) {
            enum hp_err err = start(exec, &exec->languages[i], i + 1, zygote, reterr);
            *ret_zygote = i + 1;
            return err;
        }
    }
    return hp_error_set(reterr, HP_ERR_FULL, "%d interpreters run", HP_EXEC_ZYGOTES_MAX);
}

/* ---------------------------------------------------------------- what it says */

static struct hp_exec_language *live(struct hp_exec *exec, uint32_t zygote, uint32_t generation)
{
    HP_ASSERT(zygote >= 1 && zygote <= HP_EXEC_ZYGOTES_MAX);
    struct hp_exec_language *language = &exec->languages[zygote - 1];
    return language->generation == generation && language->link.pid != 0 ? language : NULL;
}

void hp_languages_on_errors(struct hp_exec *exec, uint32_t zygote, uint32_t generation)
{
    struct hp_exec_language *language = live(exec, zygote, generation);
    for (int i = 0; i < READS_MAX && language != NULL && language->error_fd >= 0; i++) {
        ssize_t size = read(language->error_fd, exec->buffer, sizeof exec->buffer);
        if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (size <= 0) {
            hp_fd_close(&language->error_fd);
            return;
        }
        hp_tail_append(&language->errors, exec->buffer, (size_t)size);
    }
}

/* Why one ends. */
enum end { END_ITSELF, END_ASKED, END_LATE, END_SILENT };

/* What is to be told of its end: how, and the last it wrote. */
static void end_text(struct hp_exec_language *language, int status, enum end end, char *out,
                     size_t size)
{
    char how[128];
    char last[ERROR_TAIL_BYTES];
    struct hp_str text = hp_kid_tail_text(&language->errors, last);
    while (text.size > 0 && (text.data[text.size - 1] == '\n' || text.data[text.size - 1] == ' ')) {
        text.size--;
    }
    hp_exec_status_text(status, how, sizeof how);
    if (end == END_LATE) {
        (void)snprintf(how, sizeof how, "was not ready after %u s", READY_US / 1000000u);
    } else if (end == END_SILENT) {
        (void)snprintf(how, sizeof how, "gave no sign of life");
    }
    (void)snprintf(out, size, "%s %s%s%.*s", language->name, how, text.size > 0 ? ": " : "",
                   (int)text.size, text.data);
}

static void on_end(struct hp_exec *exec, struct hp_exec_language *language, uint32_t zygote,
                   enum end end)
{
    char text[HP_CHILD_TEXT_BYTES_MAX];
    int status = end_language(language);
    hp_languages_on_errors(exec, zygote, language->generation);
    end_text(language, status, end, text, sizeof text);
    language->link.is_dead = true;
    hp_exec_end_orphans(exec);
    hp_kids_on_zygote_lost(exec, zygote, text);
    close_language(language);
    if (end != END_ASKED && exec->config.callbacks.zygote_failed != NULL) {
        exec->config.callbacks.zygote_failed(exec->config.context, zygote, text);
    }
}

void hp_exec_zygote_stop(struct hp_exec *exec, uint32_t zygote)
{
    HP_ASSERT(zygote >= 1 && zygote <= HP_EXEC_ZYGOTES_MAX);
    struct hp_exec_language *language = &exec->languages[zygote - 1];
    if (language->link.pid > 0 && !language->link.is_dead) {
        on_end(exec, language, zygote, END_ASKED);
    }
}

void hp_languages_silent(struct hp_exec *exec, uint32_t zygote)
{
    on_end(exec, &exec->languages[zygote - 1], zygote, END_SILENT);
}

void hp_languages_on_link(struct hp_exec *exec, uint32_t zygote, uint32_t generation)
{
    struct hp_exec_language *language = live(exec, zygote, generation);
    if (language == NULL || language->link.is_dead) {
        return;
    }
    (void)hp_control_flush(&language->link.control);
    hp_exec_link_update(exec, &language->link);
    for (int i = 0; i < 128; i++) {
        struct hp_control_in in;
        enum hp_err err = hp_control_receive(&language->link.control, &in);
        if (err == HP_ERR_CLOSED) {
            on_end(exec, language, zygote, END_ITSELF);
        }
        if (err != HP_OK) {
            return;
        }
        language->link.silent_beats = 0;
        if (in.msg.type == HP_CONTROL_READY && !language->is_ready) {
            language->is_ready = true;
            if (exec->config.callbacks.zygote_ready != NULL) {
                exec->config.callbacks.zygote_ready(exec->config.context, zygote, in.text);
            }
        } else {
            hp_kids_on_message(exec, zygote, &in);
        }
        hp_control_in_close(&in);
        if (language->generation != generation) {
            return; /* a callback has stopped it */
        }
    }
}

void hp_languages_on_timer(struct hp_exec *exec, uint64_t now_us)
{
    for (uint32_t i = 0; i < HP_EXEC_ZYGOTES_MAX; i++) {
        struct hp_exec_language *language = &exec->languages[i];
        if (language->link.pid == 0 || language->is_ready) {
            continue;
        }
        if (language->ready_by_us <= now_us) {
            on_end(exec, language, i + 1, END_LATE);
        } else {
            hp_exec_timer_by(exec, language->ready_by_us);
        }
    }
}
