/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Life of function children, seen from the daemon: start, results, recycling, death. When one dies,
 * exactly the call that ran fails; what it had not claimed is handed back.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"
#include "common/sys/file.h"
#include "worker/exec/exec_priv.h"

#define RESULTS_PER_TURN 2048u
#define POLL_US 500u      /* how often results are looked for while bells are off */
#define POLL_RESULTS 32u  /* bells go off when one look finds as many */
#define QUICK_US 1000000u /* a child that dies sooner, idle, is started again later and later */
#define RESTART_US 100000u
#define RESTART_US_MAX 30000000u

enum hp_err hp_kids_init(struct hp_exec *exec)
{
    if (exec->kid_count == 0) {
        return HP_OK;
    }
    exec->kids = hp_calloc(exec->kid_count, sizeof *exec->kids);
    for (uint32_t i = 0; exec->kids != NULL && i < exec->kid_count; i++) {
        struct hp_kid *kid = &exec->kids[i];
        kid->index = i;
        kid->socket_fd = kid->pipe_fds[0] = kid->pipe_fds[1] = -1;
        kid->shared = &exec->children[i];
        kid->restart_at_us = HP_EXEC_NEVER;
        kid->quit_by_us = HP_EXEC_NEVER;
        hp_list_init(&kid->dirty);
        hp_tail_init(&kid->errors, HP_EXEC_STDERR_TAIL_BYTES);
        hp_tail_init(&kid->printed[0], HP_EXEC_CALL_OUTPUT_BYTES);
        hp_tail_init(&kid->printed[1], HP_EXEC_CALL_OUTPUT_BYTES);
        kid->is_pool = i >= exec->config.function_children;
    }
    return exec->kids == NULL ? HP_ERR_NOMEM : HP_OK;
}

void hp_kid_close(struct hp_kid *kid)
{
    hp_fd_close(&kid->socket_fd);
    hp_fd_close(&kid->pipe_fds[0]);
    hp_fd_close(&kid->pipe_fds[1]);
    for (uint32_t i = 0; i < kid->result_fd_count; i++) {
        hp_fd_close(&kid->results[i].fd);
    }
    kid->result_fd_count = 0;
    kid->generation++;
}

void hp_kids_deinit(struct hp_exec *exec)
{
    for (uint32_t i = 0; exec->kids != NULL && i < exec->kid_count; i++) {
        hp_kid_close(&exec->kids[i]);
        hp_tail_deinit(&exec->kids[i].errors);
        hp_tail_deinit(&exec->kids[i].printed[0]);
        hp_tail_deinit(&exec->kids[i].printed[1]);
        hp_free(exec->kids[i].init_error);
        hp_free(exec->kids[i].calls);
    }
    hp_free(exec->kids);
    exec->kids = NULL;
    hp_free(exec->name_bytes);
    hp_free(exec->names);
}

/* ---------------------------------------------------------------- starting a child */

/* A clean page and queue for a new child. */
static void reset_kid(struct hp_kid *kid)
{
    struct hp_child_page *page = &kid->shared->page;
    HP_ASSERT(kid->call_count == 0);
    atomic_store(&page->claim, 0);
    atomic_store(&page->start_us, 0);
    atomic_store(&page->call_tail, 0);
    atomic_store(&page->result_head, 0);
    atomic_store(&page->rss_kb, 0);
    atomic_store(&page->child_sleeps, 0);
    atomic_store(&page->result_tail, 0);
    atomic_store(&page->daemon_armed, 1);
    atomic_store(&page->kill_on_partition, 0);
    atomic_store(&page->waits, 0);
    atomic_store(&page->is_reading, 0);
    atomic_store(&page->read_bytes, 0);
    atomic_store(&page->pool, kid->pool);
    atomic_store(&page->captures, kid->is_pool ? 1 : 0);
    kid->call_head = kid->result_tail = 0;
    kid->done = kid->unpublished = kid->call_first = 0;
    kid->next_fd_id = kid->assigned_count = kid->ended_count = 0;
    kid->wants_recycle = kid->is_doomed = kid->is_polled = kid->is_pending = false;
    kid->is_damaged = false;
    kid->needs_ready = kid->is_set_up = kid->is_waiting = false;
    kid->restart_at_us = kid->quit_by_us = HP_EXEC_NEVER;
    hp_free(kid->init_error);
    kid->init_error = NULL;
    for (int i = 0; i < 2; i++) {
        hp_tail_deinit(&kid->printed[i]);
        hp_tail_init(&kid->printed[i], HP_EXEC_CALL_OUTPUT_BYTES);
    }
    hp_tail_deinit(&kid->errors);
    hp_tail_init(&kid->errors, HP_EXEC_STDERR_TAIL_BYTES);
}

static void restart_later(struct hp_exec *exec, struct hp_kid *kid, uint64_t delay_us)
{
    kid->restart_at_us = hp_clock_mono_us() + delay_us;
    hp_exec_timer_by(exec, kid->restart_at_us);
}

/* Opens a child's descriptors and asks the zygote for it; on failure all is closed again. */
static enum hp_err fork_kid(struct hp_exec *exec, struct hp_kid *kid)
{
    int fds[3] = {-1, -1, -1};
    int pair[2];
    enum hp_err err =
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0 ? HP_OK : HP_ERR_IO;
    if (err == HP_OK) {
        kid->socket_fd = pair[0];
        fds[0] = pair[1];
        err =
            hp_exec_watch(exec, kid->socket_fd, HP_SOURCE_KID_SOCKET, kid->index, kid->generation);
    }
    const enum hp_exec_source sources[2] = {HP_SOURCE_KID_OUT, HP_SOURCE_KID_ERR};
    for (int i = 0; err == HP_OK && i < 2; i++) {
        int pipe_fds[2];
        err = hp_exec_pipe_open(pipe_fds);
        if (err == HP_OK) {
            kid->pipe_fds[i] = pipe_fds[0];
            fds[i + 1] = pipe_fds[1];
            err = hp_exec_watch(exec, pipe_fds[0], sources[i], kid->index, kid->generation);
        }
    }
    if (err == HP_OK) {
        struct hp_control_msg msg = {.type = HP_CONTROL_FORK, .id = kid->id, .slot = kid->index};
        err = hp_exec_link_send(exec, hp_kid_link(exec, kid), &msg, NULL, fds, 3);
    }
    for (int i = 0; i < 3; i++) {
        hp_fd_close(&fds[i]);
    }
    if (err != HP_OK) {
        hp_kid_close(kid);
    }
    return err;
}

enum hp_err hp_kid_start(struct hp_exec *exec, struct hp_kid *kid)
{
    reset_kid(kid);
    kid->id = ++exec->next_id;
    kid->state = HP_KID_STARTING;
    exec->kid_top = HP_MAX(exec->kid_top, kid->index + 1);
    enum hp_err err = fork_kid(exec, kid);
    if (err != HP_OK) {
        kid->state = HP_KID_NONE;
    }
    return err;
}

/* A function child, for the first time or again. */
static void start_kid(struct hp_exec *exec, struct hp_kid *kid)
{
    if (exec->zygote.is_dead) {
        kid->state = HP_KID_NONE;
    } else if (hp_kid_start(exec, kid) != HP_OK) { /* no descriptors: perhaps later */
        restart_later(exec, kid, RESTART_US);
    }
}

/* ---------------------------------------------------------------- the end of a child */

/* Ends or hands back what the child held. */
static void settle_calls(struct hp_exec *exec, struct hp_kid *kid, struct hp_exec_call_end *end)
{
    const struct hp_exec_callbacks *callbacks = &exec->config.callbacks;
    /* I2 of ring.h: one, or none; more only where shared memory is damaged. */
    for (uint32_t claimed = hp_kid_claimed(kid); claimed > 0; claimed--) {
        struct hp_kid_call call = hp_kid_pop_front(kid);
        if (call.is_init) {
            continue; /* told with the end of the child */
        }
        kid->ended_count++;
        if (!call.is_void && callbacks->call_done != NULL) {
            callbacks->call_done(exec->config.context, kid->index, call.key, end);
        }
    }
    while (kid->call_count > 0) {
        struct hp_kid_call call = hp_kid_pop_front(kid);
        if (!call.is_void && !call.is_init && callbacks->recalled != NULL) {
            callbacks->recalled(exec->config.context, kid->index, call.key);
        }
    }
    kid->unpublished = 0;
}

/* Reads what the child wrote to a stream; false when there is nothing more for now. */
static bool read_pipe(struct hp_exec *exec, struct hp_kid *kid, int stream)
{
    if (kid->pipe_fds[stream] < 0) {
        return false;
    }
    struct hp_child_page *page = &kid->shared->page;
    atomic_store(&page->is_reading, 1);
    ssize_t size = read(kid->pipe_fds[stream], exec->buffer, sizeof exec->buffer);
    if (size > 0) {
        atomic_fetch_add(&page->read_bytes, (uint64_t)size);
    }
    atomic_store(&page->is_reading, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    if (size <= 0) {
        hp_fd_close(&kid->pipe_fds[stream]);
        return false;
    }
    if (kid->is_pool) {
        hp_tail_append(&kid->printed[stream], exec->buffer, (size_t)size);
    }
    if (stream == 1) {
        hp_tail_append(&kid->errors, exec->buffer, (size_t)size);
    }
    if (exec->config.callbacks.child_output != NULL) {
        exec->config.callbacks.child_output(exec->config.context, kid->index,
                                            stream == 0 ? HP_EXEC_STDOUT : HP_EXEC_STDERR,
                                            hp_bin_make(exec->buffer, (size_t)size));
    }
    return true;
}

struct hp_str hp_kid_tail_text(const struct hp_tail *tail, char *out)
{
    struct hp_bin part[2];
    (void)hp_tail_view(tail, 0, part);
    for (uint32_t i = 0; i < part[0].size; i++) {
        out[i] = (char)part[0].data[i];
    }
    for (uint32_t i = 0; i < part[1].size; i++) {
        out[part[0].size + i] = (char)part[1].data[i];
    }
    return hp_str_make(out, part[0].size + part[1].size);
}

void hp_kid_drain(struct hp_exec *exec, struct hp_kid *kid)
{
    for (int stream = 0; stream < 2; stream++) {
        for (int i = 0; i < 32 && read_pipe(exec, kid, stream); i++) {
        }
    }
}

/* How long to wait before the next one is forked. */
static uint64_t restart_delay_us(struct hp_kid *kid, const struct hp_exec_child_end *end)
{
    bool is_quick =
        !end->recycled && !end->killed && kid->ended_count == 0 && end->usage.run_us < QUICK_US;
    if (!is_quick) {
        kid->quick_deaths = 0;
        return 0;
    }
    uint32_t shift = HP_MIN(kid->quick_deaths, 10u);
    kid->quick_deaths++;
    return HP_MIN((uint64_t)RESTART_US << shift, (uint64_t)RESTART_US_MAX);
}

void hp_kid_ended(struct hp_exec *exec, struct hp_kid *kid, const struct hp_control_msg *msg)
{
    bool was_quitting = kid->state == HP_KID_QUITTING;
    bool is_signaled = (msg->flags & HP_CONTROL_FLAG_SIGNALED) != 0;
    char errors[HP_EXEC_STDERR_TAIL_BYTES];
    kid->state = HP_KID_ENDED; /* callbacks can not give it calls any more */
    hp_kid_drain(exec, kid);
    (void)hp_kid_take_results(exec, kid,
                              UINT32_MAX - 1); /* damaged ones: the calls are handed back */
    kid->is_pending = false;
    struct hp_exec_child_end end = {
        .pid = kid->pid,
        .exit_code = is_signaled ? 0 : msg->value,
        .signal = is_signaled ? msg->value : 0,
        .killed = is_signaled && (msg->flags & HP_CONTROL_FLAG_KILLED) != 0,
        .recycled = was_quitting && !is_signaled && msg->value == 0,
        .stderr_tail = hp_kid_tail_text(&kid->errors, errors),
        .usage = {.run_us = msg->run_us,
                  .utime_us = msg->utime_us,
                  .stime_us = msg->stime_us,
                  .maxrss_kb = msg->maxrss_kb},
    };
    bool is_fenced = (msg->flags & HP_CONTROL_FLAG_FENCED) != 0;
    end.oom = end.signal == SIGKILL && !end.killed && !is_fenced && hp_oom_look(&exec->oom);
    uint64_t start_us = atomic_load(&kid->shared->page.start_us);
    uint64_t now_us = hp_clock_mono_us();
    struct hp_exec_call_end call_end = {
        .status = is_signaled ? HP_EXEC_CALL_SIGNALED : HP_EXEC_CALL_EXITED,
        .result_fd = -1,
        .text = end.stderr_tail,
        .signal = end.signal,
        .exit_code = end.exit_code,
        .oom = end.oom,
        .killed = end.killed,
        .fenced = is_fenced,
        .start_us = start_us,
        .usage = end.usage,
    };
    struct hp_bin printed[2];
    if (kid->is_pool) {
        hp_kid_take_printed(exec, kid, printed);
        call_end.out = printed[0];
        call_end.err = printed[1];
        end.init_failed = !kid->is_set_up;
    }
    call_end.usage.run_us = start_us > 0 && start_us <= now_us ? now_us - start_us : 0;
    settle_calls(exec, kid, &call_end);
    hp_list_remove(&kid->dirty);
    kid->quit_by_us = HP_EXEC_NEVER;
    hp_kid_close(kid);
    end.call_count = kid->ended_count;
    if (kid->is_pool) {
        hp_kid_pool_ended(exec, kid, &end);
        return;
    }
    uint64_t delay_us = restart_delay_us(kid, &end);
    end.restart_ms = delay_us / 1000;
    kid->state = HP_KID_NONE;
    if (exec->config.callbacks.child_ended != NULL) {
        exec->config.callbacks.child_ended(exec->config.context, kid->index, &end);
    }
    if (delay_us == 0) {
        start_kid(exec, kid);
    } else {
        restart_later(exec, kid, delay_us);
    }
}

/* ---------------------------------------------------------------- events of a running child */

void hp_kid_tell_ready(struct hp_exec *exec, struct hp_kid *kid)
{
    kid->needs_ready = false;
    if (exec->config.callbacks.child_ready != NULL) {
        exec->config.callbacks.child_ready(exec->config.context, kid->index, kid->pid);
    }
}

void hp_kid_limit_end(struct hp_exec *exec, struct hp_kid *kid)
{
    kid->quit_by_us = hp_clock_mono_us() + exec->config.quit_ms * 1000ull;
    hp_exec_timer_by(exec, kid->quit_by_us);
}

void hp_kid_quit(struct hp_exec *exec, struct hp_kid *kid)
{
    struct hp_bell bell = {.type = HP_BELL_QUIT};
    kid->state = HP_KID_QUITTING;
    hp_kid_limit_end(exec, kid);
    if (hp_bell_send(kid->socket_fd, &bell, -1, false) != 0) {
        hp_kid_signal(exec, kid, SIGKILL);
    }
}

/* Ends a child in order, once it holds nothing, if it is old or fat enough. */
static void consider_recycling(struct hp_exec *exec, struct hp_kid *kid)
{
    const struct hp_exec_config *config = &exec->config;
    bool is_old = config->recycle_calls != 0 && kid->assigned_count >= config->recycle_calls;
    bool is_fat = config->recycle_rss_kb != 0 &&
                  atomic_load_explicit(&kid->shared->page.rss_kb, memory_order_relaxed) >
                      config->recycle_rss_kb;
    if (kid->is_pool) { /* what its memory holds is its user's */
        is_fat = false;
        is_old = kid->calls_max != 0 && kid->assigned_count >= kid->calls_max;
    }
    kid->wants_recycle = kid->wants_recycle || is_fat;
    if ((!kid->wants_recycle && !is_old) || kid->call_count > 0 || kid->is_doomed) {
        return;
    }
    hp_kid_quit(exec, kid);
}

/* Takes results and decides how to learn of the next ones: by bell, or by looking. */
static void take_results(struct hp_exec *exec, struct hp_kid *kid)
{
    struct hp_child_page *page = &kid->shared->page;
    uint32_t count = hp_kid_take_results(exec, kid, RESULTS_PER_TURN);
    if (count == UINT32_MAX) {
        (void)hp_exec_child_kill(exec, kid->index, SIGKILL); /* its end is told by the zygote */
        return;
    }
    kid->is_polled = count >= POLL_RESULTS && !kid->is_pending;
    if (kid->is_polled) {
        hp_exec_timer_by(exec, hp_clock_mono_us() + POLL_US);
    } else if (!kid->is_pending) {
        atomic_store(&page->daemon_armed, 1);
        if (atomic_load(&page->result_head) != kid->result_tail) {
            kid->is_pending = true; /* it was published before the bell was on */
            hp_exec_wake(exec);
        }
    }
    if (kid->state == HP_KID_RUNNING && kid->needs_ready && hp_kid_is_accepting(exec, kid)) {
        hp_kid_tell_ready(exec, kid);
    }
    if (kid->state == HP_KID_RUNNING) {
        consider_recycling(exec, kid);
    }
}

static struct hp_kid *live_kid(struct hp_exec *exec, uint32_t index, uint32_t generation)
{
    struct hp_kid *kid = &exec->kids[index];
    return kid->generation == generation && kid->socket_fd >= 0 ? kid : NULL;
}

void hp_kids_on_socket(struct hp_exec *exec, uint32_t index, uint32_t generation)
{
    struct hp_kid *kid = live_kid(exec, index, generation);
    if (kid == NULL) {
        return;
    }
    if (!hp_kid_take_bells(kid)) {
        /* Its end is told by the zygote; until then the socket would be readable all the time. */
        (void)epoll_ctl(exec->epoll_fd, EPOLL_CTL_DEL, kid->socket_fd, NULL);
    }
    if (kid->is_pool) {
        hp_kid_look_waits(exec, kid);
    }
    if (kid->state == HP_KID_RUNNING) {
        take_results(exec, kid);
    }
}

void hp_kids_on_pipe(struct hp_exec *exec, int stream, uint32_t index, uint32_t generation)
{
    struct hp_kid *kid = live_kid(exec, index, generation);
    if (kid != NULL) {
        (void)read_pipe(exec, kid, stream);
    }
}

void hp_kids_on_wake(struct hp_exec *exec)
{
    for (uint32_t i = 0; i < exec->kid_top; i++) {
        if (exec->kids[i].is_pending && exec->kids[i].state == HP_KID_RUNNING) {
            take_results(exec, &exec->kids[i]);
        }
    }
}

/* Kills a child that was told to end and does not. */
static void check_end(struct hp_exec *exec, struct hp_kid *kid, uint64_t now_us)
{
    if (kid->quit_by_us > now_us) {
        hp_exec_timer_by(exec, kid->quit_by_us);
        return;
    }
    kid->quit_by_us = HP_EXEC_NEVER;
    (void)hp_exec_child_kill(exec, kid->index, SIGKILL); /* or it has just ended */
}

void hp_kids_on_timer(struct hp_exec *exec, uint64_t now_us)
{
    for (uint32_t i = 0; i < exec->kid_top; i++) {
        struct hp_kid *kid = &exec->kids[i];
        if (kid->is_polled && kid->state == HP_KID_RUNNING) {
            take_results(exec, kid);
        }
        if (kid->quit_by_us != HP_EXEC_NEVER) {
            check_end(exec, kid, now_us);
        }
        if (kid->state == HP_KID_NONE && kid->restart_at_us <= now_us) {
            start_kid(exec, kid);
        } else if (kid->state == HP_KID_NONE && kid->restart_at_us != HP_EXEC_NEVER) {
            hp_exec_timer_by(exec, kid->restart_at_us);
        }
    }
}

void hp_exec_child_recycle(struct hp_exec *exec, uint32_t child)
{
    HP_ASSERT(child < exec->kid_count);
    struct hp_kid *kid = &exec->kids[child];
    if (kid->state == HP_KID_RUNNING) {
        kid->wants_recycle = true;
        consider_recycling(exec, kid);
    }
}

/* ---------------------------------------------------------------- what the zygote says */

/* Reads the names that the zygote packed into a memfd. */
static enum hp_err read_names(struct hp_exec *exec, int fd, uint64_t bytes)
{
    if (bytes == 0 || bytes > UINT32_MAX) {
        return HP_ERR_PROTOCOL;
    }
    void *map = mmap(NULL, (size_t)bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) {
        return HP_ERR_NOMEM;
    }
    exec->name_bytes = hp_memdup(map, (size_t)bytes);
    (void)munmap(map, (size_t)bytes);
    uint32_t count = 0;
    for (uint64_t i = 0; exec->name_bytes != NULL && i < bytes; i++) {
        count += exec->name_bytes[i] == '\0';
    }
    exec->names = hp_calloc((size_t)count + 1, sizeof *exec->names);
    if (exec->name_bytes == NULL || exec->names == NULL) {
        return HP_ERR_NOMEM;
    }
    const char *at = exec->name_bytes;
    for (uint32_t i = 0; i < count; i++) {
        exec->names[i] = at;
        at += strlen(at) + 1;
    }
    exec->name_count = count;
    return HP_OK;
}

static void tell_functions(struct hp_exec *exec, const char *error)
{
    struct hp_exec_functions functions = {
        .names = exec->names, .count = error == NULL ? exec->name_count : 0, .error = error};
    exec->was_ready = true;
    if (exec->config.callbacks.ready != NULL) {
        exec->config.callbacks.ready(exec->config.context, &functions);
    }
}

static void on_ready(struct hp_exec *exec, struct hp_control_in *in)
{
    if (in->msg.value != 0) {
        tell_functions(exec, in->text);
        return;
    }
    enum hp_err err =
        in->fd_count == 1 ? read_names(exec, in->fds[0], in->msg.spec_bytes) : HP_ERR_PROTOCOL;
    if (err != HP_OK) {
        tell_functions(exec,
                       "the names of the functions can not be read: no memory or descriptors");
        return;
    }
    for (uint32_t i = 0; i < exec->config.function_children; i++) {
        start_kid(exec, &exec->kids[i]);
    }
    tell_functions(exec, NULL);
}

void hp_kids_on_message(struct hp_exec *exec, uint32_t zygote, struct hp_control_in *in)
{
    if (in->msg.type == HP_CONTROL_READY) {
        if (zygote == 0) {
            on_ready(exec, in);
        }
        return;
    }
    for (uint32_t i = 0; i < exec->kid_top; i++) {
        struct hp_kid *kid = &exec->kids[i];
        if (kid->id != in->msg.id || kid->state == HP_KID_NONE || kid->zygote != zygote) {
            continue; /* a zygote speaks for its own children */
        }
        if (in->msg.type == HP_CONTROL_STARTED && kid->state == HP_KID_STARTING) {
            kid->pid = in->msg.pid;
            kid->state = HP_KID_RUNNING;
            if (kid->is_pool && kid->wants_recycle) {
                hp_kid_quit(exec, kid); /* it was stopped meanwhile, or can not be set up */
            } else if (kid->is_pool) {
                hp_kid_publish(kid); /* its set-up */
            } else {
                hp_kid_tell_ready(exec, kid);
            }
        } else if (in->msg.type == HP_CONTROL_FAILED && kid->is_pool) {
            hp_kid_not_started(exec, kid, in->text);
        } else if (in->msg.type == HP_CONTROL_FAILED) {
            hp_kid_close(kid);
            kid->state = HP_KID_NONE;
            restart_later(exec, kid, RESTART_US);
        } else if (in->msg.type == HP_CONTROL_ENDED) {
            hp_kid_ended(exec, kid, &in->msg);
        }
        return;
    }
}

void hp_kids_on_lost(struct hp_exec *exec, const char *text)
{
    for (uint32_t i = 0; i < exec->kid_count; i++) {
        struct hp_kid *kid = &exec->kids[i];
        if (kid->zygote != 0) {
            continue;
        }
        if (kid->state != HP_KID_NONE) {
            struct hp_control_msg msg = {
                .type = HP_CONTROL_ENDED, .flags = HP_CONTROL_FLAG_SIGNALED, .value = SIGKILL};
            hp_kid_ended(exec, kid, &msg);
        }
        kid->restart_at_us = HP_EXEC_NEVER;
    }
    if (!exec->was_ready && exec->config.module_count > 0) {
        struct hp_error error;
        (void)hp_error_set(&error, HP_ERR_CLOSED, "while loading %s%s: %s", exec->config.modules[0],
                           exec->config.module_count > 1 ? " and others" : "", text);
        tell_functions(exec, error.text);
    }
}
