/* SPDX-License-Identifier: BSD-2-Clause */
/* Life of the executor and dispatch of its events; see exec.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"
#include "common/sys/file.h"
#include "common/sys/proc.h"
#include "common/sys/random.h"
#include "worker/exec/exec_priv.h"

#define SLOTS_MAX 4096u
#define POOL_CHILDREN_MAX 65536u
#define MODULES_MAX 64u
#define DRAIN_MS_DEFAULT 500u
#define QUIT_MS_DEFAULT 10000u
#define BEAT_MS_DEFAULT 10000u
#define RESULT_CAP_DEFAULT (1024ull * 1024 * 1024)
#define EVENTS_PER_TURN 64
#define MESSAGES_PER_TURN 128
#define CONTROL_BUFFER_BYTES (1024 * 1024)
#define ORPHANS_END_MS 2000u

/* ---------------------------------------------------------------- small services for the parts */

enum hp_err hp_exec_watch(struct hp_exec *exec, int fd, enum hp_exec_source source, uint32_t index,
                          uint32_t generation)
{
    struct epoll_event event = {
        .events = EPOLLIN, .data.u64 = (uint64_t)source << 56 | (uint64_t)index << 32 | generation};
    return epoll_ctl(exec->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? HP_OK : HP_ERR_IO;
}

/* Makes epoll wait for room exactly while something is queued. */
void hp_exec_link_update(struct hp_exec *exec, struct hp_link *link)
{
    bool wants = !link->is_dead && !hp_list_is_empty(&link->control.queue);
    if (wants == link->is_writing || link->is_dead) {
        return;
    }
    struct epoll_event event = {.events = wants ? EPOLLIN | EPOLLOUT : EPOLLIN,
                                .data.u64 = link->source};
    if (epoll_ctl(exec->epoll_fd, EPOLL_CTL_MOD, link->control.fd, &event) == 0) {
        link->is_writing = wants;
    }
}

enum hp_err hp_exec_link_send(struct hp_exec *exec, struct hp_link *link,
                              const struct hp_control_msg *msg, const void *text, const int *fds,
                              uint32_t fd_count)
{
    if (link->is_dead || link->pid == 0) {
        return HP_ERR_CLOSED;
    }
    enum hp_err err = hp_control_send(&link->control, msg, text, fds, fd_count);
    hp_exec_link_update(exec, link);
    return err;
}

void hp_exec_timer_by(struct hp_exec *exec, uint64_t at_us)
{
    if (at_us >= exec->timer_at_us) {
        return;
    }
    exec->timer_at_us = at_us;
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(at_us / 1000000),
                                           .tv_nsec = (long)(at_us % 1000000 * 1000)}};
    if (at_us == 0) {
        when.it_value.tv_nsec = 1;
    }
    (void)timerfd_settime(exec->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

void hp_exec_wake(struct hp_exec *exec)
{
    uint64_t one = 1;
    (void)!write(exec->wake_fd, &one, sizeof one); /* it can only fail when it is set already */
}

enum hp_err hp_exec_pipe_open(int ret_fds[2])
{
    if (pipe2(ret_fds, O_CLOEXEC | O_NONBLOCK) != 0) {
        return HP_ERR_IO;
    }
    if (fcntl(ret_fds[1], F_SETFL, O_WRONLY) != 0) { /* a program expects writes to block */
        hp_fd_close(&ret_fds[0]);
        hp_fd_close(&ret_fds[1]);
        return HP_ERR_IO;
    }
    return HP_OK;
}

int hp_exec_memfd(const char *name, const void *data, size_t size)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd >= 0 && (hp_fd_write_all(fd, data, size) != HP_OK || lseek(fd, 0, SEEK_SET) != 0)) {
        hp_fd_close(&fd);
    }
    return fd;
}

/* ---------------------------------------------------------------- start */

static void free_config(struct hp_exec_config *config)
{
    for (uint32_t i = 0; i < config->module_count && config->modules != NULL; i++) {
        hp_free((char *)(uintptr_t)config->modules[i]);
    }
    hp_free((void *)(uintptr_t)config->modules);
    hp_free((char *)(uintptr_t)config->scratch_dir);
    hp_free((char *)(uintptr_t)config->path);
    hp_free((char *)(uintptr_t)config->home);
    hp_free((char *)(uintptr_t)config->lang);
}

static const char *first_of(const char *given, const char *variable, const char *fallback)
{
    const char *from_env = given == NULL && variable != NULL ? getenv(variable) : NULL;
    return given != NULL ? given : from_env != NULL && *from_env != '\0' ? from_env : fallback;
}

static enum hp_err copy_config(struct hp_exec_config *to, const struct hp_exec_config *from)
{
    *to = *from;
    to->function_children = from->function_children == 0 ? from->slots : from->function_children;
    to->drain_ms = from->drain_ms == 0 ? DRAIN_MS_DEFAULT : from->drain_ms;
    to->quit_ms = from->quit_ms == 0 ? QUIT_MS_DEFAULT : from->quit_ms;
    to->beat_ms = from->beat_ms == 0 ? BEAT_MS_DEFAULT : from->beat_ms;
    to->result_cap_bytes =
        from->result_cap_bytes == 0 ? RESULT_CAP_DEFAULT : from->result_cap_bytes;
    to->scratch_dir = hp_strdup(first_of(from->scratch_dir, NULL, "/tmp"));
    to->path = hp_strdup(
        first_of(from->path, NULL, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
    to->home = hp_strdup(first_of(from->home, "HOME", "/"));
    to->lang = hp_strdup(first_of(from->lang, "LANG", "C.UTF-8"));
    const char **modules = hp_calloc((size_t)from->module_count + 1, sizeof *modules);
    to->modules = modules;
    bool is_whole = to->scratch_dir != NULL && to->path != NULL && to->home != NULL &&
                    to->lang != NULL && modules != NULL;
    for (uint32_t i = 0; modules != NULL && i < from->module_count; i++) {
        modules[i] = hp_strdup(from->modules[i]);
        is_whole = is_whole && modules[i] != NULL;
    }
    return is_whole ? HP_OK : HP_ERR_NOMEM;
}

static enum hp_err check_config(const struct hp_exec_config *config, struct hp_error *reterr)
{
    if (config->slots == 0 || config->slots > SLOTS_MAX || config->function_children > SLOTS_MAX) {
        return hp_error_set(reterr, HP_ERR_INVALID, "slots must be 1 to %u", SLOTS_MAX);
    }
    if (config->pool_children_max > POOL_CHILDREN_MAX) {
        return hp_error_set(reterr, HP_ERR_INVALID, "at most %u children of pools",
                            POOL_CHILDREN_MAX);
    }
    if (config->module_count > MODULES_MAX) {
        return hp_error_set(reterr, HP_ERR_INVALID, "at most %u modules", MODULES_MAX);
    }
    return HP_OK;
}

/* One mapping for all: a page of its own, then the parts of the children. It is a memfd, so that
 * interpreters can map it, too; pages come into being as they are used. */
static enum hp_err map_shared(struct hp_exec *exec)
{
    size_t bytes = sizeof *exec->shared + exec->kid_count * sizeof *exec->children;
    exec->shared_fd = memfd_create("hp-exec", MFD_CLOEXEC);
    if (exec->shared_fd < 0 || ftruncate(exec->shared_fd, (off_t)bytes) != 0) {
        return HP_ERR_NOMEM;
    }
    void *map =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, exec->shared_fd, 0);
    if (map == MAP_FAILED) {
        return HP_ERR_NOMEM;
    }
    exec->shared = map;
    exec->children =
        exec->kid_count == 0 ? NULL : (struct hp_child_shared *)(void *)(exec->shared + 1);
    return HP_OK;
}

enum hp_err hp_exec_link_pair(int ret_pair[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_pair) != 0) {
        return HP_ERR_IO;
    }
    int bytes = CONTROL_BUFFER_BYTES;
    for (int i = 0; i < 2; i++) {
        if (setsockopt(ret_pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) != 0) {
            (void)setsockopt(ret_pair[i], SOL_SOCKET, SO_SNDBUF, &bytes,
                             sizeof bytes); /* less will do */
        }
    }
    return HP_OK;
}

/* Forks one helper and connects it. */
static enum hp_err start_helper(struct hp_exec *exec, struct hp_link *link,
                                enum hp_helper_role role, struct hp_error *reterr)
{
    int pair[2];
    if (hp_exec_link_pair(pair) != HP_OK) {
        return hp_error_set(reterr, HP_ERR_IO, "socketpair: %s", strerror(errno));
    }
    struct hp_helper_config config = {
        .role = role,
        .control_fd = pair[1],
        .slots = role == HP_HELPER_SPAWNER ? exec->config.slots : exec->kid_count,
        .shared = exec->shared,
        .children = exec->children,
        .modules = exec->config.modules,
        .module_count = exec->config.module_count,
        .result_cap_bytes = exec->config.result_cap_bytes,
        .instance = exec->instance,
    };
    pid_t pid = fork();
    if (pid == 0) {
        hp_helper_main(&config);
    }
    int error = errno;
    (void)close(pair[1]);
    if (pid < 0) {
        (void)close(pair[0]);
        return hp_error_set(reterr, HP_ERR_IO, "fork: %s", strerror(error));
    }
    hp_control_init(&link->control, pair[0]);
    link->pid = pid;
    link->source = (uint64_t)(role == HP_HELPER_SPAWNER ? HP_SOURCE_SPAWNER : HP_SOURCE_ZYGOTE)
                   << 56;
    return HP_OK;
}

static enum hp_err open_loop(struct hp_exec *exec)
{
    exec->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    exec->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    exec->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (exec->epoll_fd < 0 || exec->timer_fd < 0 || exec->wake_fd < 0 ||
        hp_exec_watch(exec, exec->timer_fd, HP_SOURCE_TIMER, 0, 0) != HP_OK ||
        hp_exec_watch(exec, exec->wake_fd, HP_SOURCE_WAKE, 0, 0) != HP_OK ||
        hp_exec_watch(exec, exec->spawner.control.fd, HP_SOURCE_SPAWNER, 0, 0) != HP_OK) {
        return HP_ERR_IO;
    }
    return exec->zygote.pid == 0
               ? HP_OK
               : hp_exec_watch(exec, exec->zygote.control.fd, HP_SOURCE_ZYGOTE, 0, 0);
}

static enum hp_err start(struct hp_exec *exec, const struct hp_exec_config *config,
                         struct hp_error *reterr)
{
    bool has_modules = config->module_count > 0;
    bool has_pools = config->pool_children_max > 0;
    exec->epoll_fd = exec->timer_fd = exec->wake_fd = exec->shared_fd = -1;
    hp_languages_init(exec);
    exec->spawner.control.fd = exec->zygote.control.fd = -1;
    exec->timer_at_us = HP_EXEC_NEVER;
    hp_list_init(&exec->dirty);
    hp_list_init(&exec->spawner.control.queue);
    hp_list_init(&exec->zygote.control.queue);
    if (copy_config(&exec->config, config) != HP_OK) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    if (hp_random_u64(&exec->instance) != HP_OK) {
        return hp_error_set(reterr, HP_ERR_IO, "no random bytes");
    }
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1); /* inherits what a helper that dies has left */
    hp_oom_init(&exec->oom);
    exec->kid_count = has_modules || has_pools
                          ? exec->config.function_children + exec->config.pool_children_max
                          : 0;
    if (map_shared(exec) != HP_OK) {
        return hp_error_set(reterr, HP_ERR_NOMEM, "no shared memory");
    }
    enum hp_err err = start_helper(exec, &exec->spawner, HP_HELPER_SPAWNER, reterr);
    if (err == HP_OK && has_modules) {
        err = start_helper(exec, &exec->zygote, HP_HELPER_ZYGOTE, reterr);
    }
    if (err != HP_OK) {
        return err;
    }
    if (hp_commands_init(exec) != HP_OK || hp_kids_init(exec) != HP_OK) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    hp_proc_ignore_sigpipe();
    err = open_loop(exec);
    if (err != HP_OK) {
        return hp_error_set(reterr, err, "epoll: %s", strerror(errno));
    }
    hp_pulse_on_timer(exec, hp_clock_mono_us());
    return HP_OK;
}

enum hp_err hp_exec_start(const struct hp_exec_config *config, struct hp_exec **ret_exec,
                          struct hp_error *reterr)
{
    enum hp_err err = check_config(config, reterr);
    if (err != HP_OK) {
        return err;
    }
    struct hp_exec *exec = hp_calloc(1, sizeof *exec);
    if (exec == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    err = start(exec, config, reterr);
    if (err != HP_OK) {
        hp_exec_free(exec);
        return err;
    }
    *ret_exec = exec;
    return HP_OK;
}

/* Closes a helper's link, which makes it kill all it runs, and waits for its end. */
static void end_link(struct hp_link *link)
{
    hp_control_deinit(&link->control);
    while (link->pid > 0 && !link->is_dead && waitpid(link->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    link->pid = 0;
}

void hp_exec_free(struct hp_exec *exec)
{
    if (exec == NULL) {
        return;
    }
    hp_languages_deinit(exec);
    end_link(&exec->zygote);
    end_link(&exec->spawner);
    hp_commands_deinit(exec);
    hp_kids_deinit(exec);
    hp_fd_close(&exec->epoll_fd);
    hp_fd_close(&exec->timer_fd);
    hp_fd_close(&exec->wake_fd);
    if (exec->shared != NULL) {
        (void)munmap(exec->shared, sizeof *exec->shared + exec->kid_count * sizeof *exec->children);
    }
    hp_fd_close(&exec->shared_fd);
    free_config(&exec->config);
    hp_free(exec);
}

/* ---------------------------------------------------------------- process */

int hp_exec_fd(const struct hp_exec *exec)
{
    return exec->epoll_fd;
}

void hp_exec_set_deadline(struct hp_exec *exec, uint64_t boottime_ms)
{
    uint64_t before = atomic_exchange(&exec->shared->deadline_ms, boottime_ms);
    bool is_later = before != 0 && (boottime_ms == 0 || boottime_ms >= before);
    if (is_later || before == boottime_ms) {
        return; /* the helpers look when the old one passes */
    }
    struct hp_control_msg msg = {.type = HP_CONTROL_WAKE};
    (void)hp_exec_link_send(exec, &exec->spawner, &msg, NULL, NULL,
                            0); /* a dead one needs no word */
    (void)hp_exec_link_send(exec, &exec->zygote, &msg, NULL, NULL, 0);
    for (uint32_t i = 0; i < HP_EXEC_ZYGOTES_MAX; i++) {
        (void)hp_exec_link_send(exec, &exec->languages[i].link, &msg, NULL, NULL, 0);
    }
}

void hp_exec_status_text(int status, char *out, size_t size)
{
    if (WIFSIGNALED(status)) {
        (void)snprintf(out, size, "was killed by signal %d (%s)", WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    } else {
        (void)snprintf(out, size, "ended with exit code %d", WEXITSTATUS(status));
    }
}

void hp_exec_end_orphans(struct hp_exec *exec)
{
    pid_t living[2 + HP_EXEC_ZYGOTES_MAX] = {exec->spawner.is_dead ? 0 : exec->spawner.pid,
                                             exec->zygote.is_dead ? 0 : exec->zygote.pid};
    for (uint32_t i = 0; i < HP_EXEC_ZYGOTES_MAX; i++) {
        const struct hp_link *link = &exec->languages[i].link;
        living[2 + i] = link->is_dead ? 0 : link->pid;
    }
    (void)hp_orphans_end(living, HP_COUNT_OF(living), ORPHANS_END_MS);
}

/* Says how a helper ended, after the end of its link was seen. */
static void on_helper_end(struct hp_exec *exec, struct hp_link *link)
{
    int status = 0;
    bool is_spawner = link == &exec->spawner;
    struct hp_error text;
    link->is_dead = true;
    hp_control_deinit(&link->control);
    while (waitpid(link->pid, &status, 0) < 0 && errno == EINTR) {
    }
    char how[128];
    hp_exec_status_text(status, how, sizeof how);
    if (hp_pulse_is_lost(link)) {
        (void)snprintf(how, sizeof how, "gave no sign of life");
    }
    (void)hp_error_set(&text, HP_ERR_CLOSED, "the %s %s", is_spawner ? "spawner" : "zygote", how);
    /* Before anyone is told that its tasks have ended: they might be started anew elsewhere. */
    hp_exec_end_orphans(exec);
    if (is_spawner) {
        hp_commands_on_lost(exec);
    } else {
        hp_kids_on_lost(exec, text.text);
    }
    if (exec->config.callbacks.helper_died != NULL) {
        exec->config.callbacks.helper_died(exec->config.context, text.text);
    }
}

static void on_link(struct hp_exec *exec, struct hp_link *link)
{
    if (link->is_dead) {
        return;
    }
    (void)hp_control_flush(&link->control);
    hp_exec_link_update(exec, link);
    for (int i = 0; i < MESSAGES_PER_TURN; i++) {
        struct hp_control_in in;
        enum hp_err err = hp_control_receive(&link->control, &in);
        if (err == HP_ERR_CLOSED) {
            on_helper_end(exec, link);
        }
        if (err != HP_OK) {
            return;
        }
        link->silent_beats = 0;
        if (link == &exec->spawner) {
            hp_commands_on_message(exec, &in);
        } else {
            hp_kids_on_message(exec, 0, &in);
        }
        hp_control_in_close(&in);
    }
}

static void on_timer(struct hp_exec *exec)
{
    uint64_t count;
    (void)!read(exec->timer_fd, &count, sizeof count);
    exec->timer_at_us = HP_EXEC_NEVER;
    uint64_t now_us = hp_clock_mono_us();
    hp_commands_on_timer(exec, now_us);
    hp_kids_on_timer(exec, now_us);
    hp_languages_on_timer(exec, now_us);
    hp_pulse_on_timer(exec, now_us);
}

static void on_wake(struct hp_exec *exec)
{
    uint64_t count;
    (void)!read(exec->wake_fd, &count, sizeof count);
    hp_commands_on_wake(exec);
    hp_kids_on_wake(exec);
}

static void dispatch(struct hp_exec *exec, uint64_t data)
{
    uint32_t index = (uint32_t)(data >> 32) & 0xffffffu;
    uint32_t generation = (uint32_t)data;
    switch ((enum hp_exec_source)(data >> 56)) {
    case HP_SOURCE_SPAWNER:
        on_link(exec, &exec->spawner);
        break;
    case HP_SOURCE_ZYGOTE:
        on_link(exec, &exec->zygote);
        break;
    case HP_SOURCE_TIMER:
        on_timer(exec);
        break;
    case HP_SOURCE_WAKE:
        on_wake(exec);
        break;
    case HP_SOURCE_COMMAND_OUT:
        hp_commands_on_readable(exec, 0, index, generation);
        break;
    case HP_SOURCE_COMMAND_ERR:
        hp_commands_on_readable(exec, 1, index, generation);
        break;
    case HP_SOURCE_KID_SOCKET:
        hp_kids_on_socket(exec, index, generation);
        break;
    case HP_SOURCE_KID_OUT:
        hp_kids_on_pipe(exec, 0, index, generation);
        break;
    case HP_SOURCE_KID_ERR:
        hp_kids_on_pipe(exec, 1, index, generation);
        break;
    case HP_SOURCE_LANGUAGE:
        hp_languages_on_link(exec, index, generation);
        break;
    case HP_SOURCE_LANGUAGE_ERR:
        hp_languages_on_errors(exec, index, generation);
        break;
    default:
        HP_UNREACHABLE();
    }
}

bool hp_exec_process(struct hp_exec *exec)
{
    struct epoll_event events[EVENTS_PER_TURN];
    int count = epoll_wait(exec->epoll_fd, events, EVENTS_PER_TURN, 0);
    for (int i = 0; i < count; i++) {
        dispatch(exec, events[i].data.u64);
    }
    hp_exec_flush(exec);
    return count == EVENTS_PER_TURN;
}
