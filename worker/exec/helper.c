/* SPDX-License-Identifier: BSD-2-Clause */
/* The helper processes; see helper.h for the invariants. */
#include "worker/exec/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"
#include "common/sys/file.h"
#include "common/sys/proc.h"
#include "worker/exec/spawn.h"

#define NAMES_BYTES_MAX (2u * 1024u * 1024u)
#define END_ROUNDS_MAX 5000
#define SWEEP_MS 20
#define SWEEPS_MAX 50u
/* A command that ends sooner is told of once, by its end: a wake-up of the daemon less for each. */
#define TELL_AFTER_US 3000u

void hp_helper_tell(struct hp_helper *helper, const struct hp_control_msg *msg, const void *text,
                    const int *fds, uint32_t fd_count)
{
    if (hp_control_send(&helper->control, msg, text, fds, fd_count) != HP_OK) {
        helper->control.is_closed = true;
    }
}

void hp_helper_tell_failed(struct hp_helper *helper, uint64_t id, int error_number,
                           const char *text)
{
    struct hp_control_msg msg = {.type = HP_CONTROL_FAILED,
                                 .id = id,
                                 .value = error_number,
                                 .text_bytes = (uint32_t)strlen(text)};
    hp_helper_tell(helper, &msg, text, NULL, 0);
}

static void tell_started(struct hp_helper *helper, struct hp_proc *proc, uint64_t now_us)
{
    struct hp_control_msg started = {.type = HP_CONTROL_STARTED,
                                     .id = proc->id,
                                     .pid = proc->pid,
                                     .run_us = now_us - proc->start_us};
    proc->is_told = true;
    hp_helper_tell(helper, &started, NULL, NULL, 0);
}

/* Tells of the commands that have run for a while. */
static void tell_due(struct hp_helper *helper, uint64_t now_us)
{
    helper->tell_at_us = UINT64_MAX;
    for (uint32_t i = 0; i < helper->proc_count; i++) {
        struct hp_proc *proc = &helper->procs[i];
        if (!proc->is_told && proc->start_us + TELL_AFTER_US <= now_us) {
            tell_started(helper, proc, now_us);
        } else if (!proc->is_told) {
            helper->tell_at_us = HP_MIN(helper->tell_at_us, proc->start_us + TELL_AFTER_US);
        }
    }
}

void hp_helper_add_proc(struct hp_helper *helper, const struct hp_control_msg *msg, pid_t pid)
{
    HP_ASSERT(helper->proc_count <= helper->config->slots);
    uint64_t now_us = hp_clock_mono_us();
    helper->procs[helper->proc_count++] = (struct hp_proc){
        .id = msg->id,
        .pid = pid,
        .slot = msg->slot,
        .kill_on_partition = (msg->flags & HP_CONTROL_FLAG_KILL_ON_PARTITION) != 0,
        .start_us = now_us,
    };
    if (helper->config->role == HP_HELPER_SPAWNER) {
        helper->tell_at_us = HP_MIN(helper->tell_at_us, now_us + TELL_AFTER_US);
    } else { /* a child takes calls from then on */
        tell_started(helper, &helper->procs[helper->proc_count - 1], now_us);
    }
}

/* Starts a command: the descriptors are stdin (or none), stdout, stderr and perhaps the spec. */
static void on_spawn(struct hp_helper *helper, struct hp_control_in *in)
{
    bool has_spec_fd = (in->msg.flags & HP_CONTROL_FLAG_SPEC_FD) != 0;
    uint32_t count = in->fd_count - (has_spec_fd && in->fd_count > 0 ? 1 : 0);
    int fds[3] = {-1, -1, -1};
    const char *spec = in->text;
    size_t bytes = in->msg.text_bytes;
    char text[512];
    if (count < 2 || count > 3 || in->fd_count != in->msg.slot ||
        helper->proc_count > helper->config->slots) {
        hp_helper_tell_failed(helper, in->msg.id, EMFILE, "spawner: no descriptors or slots left");
        return;
    }
    memcpy(fds + (3 - count), in->fds, sizeof(int) * count);
    if (has_spec_fd) {
        bytes = (size_t)in->msg.spec_bytes;
        spec = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, in->fds[count], 0);
        if (spec == MAP_FAILED) {
            hp_helper_tell_failed(helper, in->msg.id, errno, "spawner: can not map the command");
            return;
        }
    }
    uint64_t tag = hp_spawn_tag(helper->config->instance, in->msg.id);
    struct hp_spawn_result result = hp_spawn(spec, bytes, fds, helper->null_fd, tag);
    if (result.pid < 0) {
        (void)snprintf(text, sizeof text, "%s %.400s: %s", result.step, result.what,
                       strerror(result.error_number));
        hp_helper_tell_failed(helper, in->msg.id, result.error_number, text);
    } else {
        hp_helper_add_proc(helper, &in->msg, result.pid);
    }
    if (has_spec_fd) {
        (void)munmap((void *)(uintptr_t)spec, bytes);
    }
}

/* I1: it is in the table, so it is unreaped. A function child just forked has no group of its own
 * yet. */
static void signal_group(const struct hp_proc *proc, int number)
{
    if (kill(-proc->pid, number) != 0) {
        (void)kill(proc->pid, number);
    }
}

static void on_kill(struct hp_helper *helper, const struct hp_control_msg *msg)
{
    for (uint32_t i = 0; i < helper->proc_count; i++) {
        struct hp_proc *proc = &helper->procs[i];
        if (proc->id == msg->id) {
            proc->is_killed = true;
            signal_group(proc, msg->value);
            (void)kill(-proc->pid, SIGCONT);
            return;
        }
    }
}

/* ---------------------------------------------------------------- the dead-man's switch */

static bool must_die(const struct hp_helper *helper, const struct hp_proc *proc)
{
    if (proc->is_fenced) {
        return false;
    }
    return helper->config->role != HP_HELPER_SPAWNER
               ? atomic_load(&helper->config->children[proc->slot].page.kill_on_partition) != 0
               : proc->kill_on_partition;
}

/* Kills what the deadline is for, if it has passed; else sets the timer to it. */
static void check_deadline(struct hp_helper *helper)
{
    uint64_t deadline_ms = atomic_load(&helper->config->shared->deadline_ms);
    if (deadline_ms != 0 && hp_clock_boot_ms() > deadline_ms) {
        for (uint32_t i = 0; i < helper->proc_count; i++) {
            if (must_die(helper, &helper->procs[i])) {
                helper->procs[i].is_fenced = true;
                signal_group(&helper->procs[i], SIGKILL);
            }
        }
        /* The zygote's marks live in shared memory: look again in a second, as long as it has
         * passed. */
        deadline_ms = hp_clock_boot_ms() + 1000;
    }
    if (deadline_ms == helper->armed_ms) {
        return;
    }
    uint64_t at_ms = deadline_ms == 0 ? 0 : deadline_ms + 1;
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(at_ms / 1000), .tv_nsec = (long)(at_ms % 1000 * 1000000)}};
    (void)timerfd_settime(helper->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
    helper->armed_ms = deadline_ms;
}

/* ---------------------------------------------------------------- the end of children */

static uint64_t timeval_us(struct timeval value)
{
    return (uint64_t)value.tv_sec * 1000000u + (uint64_t)value.tv_usec;
}

/* Kills what ended leaders left behind; what can not be told apart now is looked at again soon. */
static void sweep(struct hp_helper *helper, uint32_t looks)
{
    helper->sweeps_left = hp_orphans_kill(helper, false) > 0 ? looks : 0;
}

static void end_proc(struct hp_helper *helper, uint32_t index)
{
    struct hp_proc proc = helper->procs[index];
    (void)kill(-proc.pid,
               SIGKILL); /* I2: the leader is dead but unreaped, so the id is still its */
    helper->procs[index] = helper->procs[--helper->proc_count];
    int status = 0;
    struct rusage usage = {0};
    while (wait4(proc.pid, &status, 0, &usage) < 0 && errno == EINTR) {
    }
    sweep(helper, SWEEPS_MAX); /* now, so that the leader itself is not looked at */
    bool is_signaled = WIFSIGNALED(status);
    struct hp_control_msg msg = {
        .type = HP_CONTROL_ENDED,
        .id = proc.id,
        .pid = proc.pid,
        .slot = proc.slot,
        .value = is_signaled ? WTERMSIG(status) : WEXITSTATUS(status),
        .flags = (is_signaled ? (uint32_t)HP_CONTROL_FLAG_SIGNALED : 0) |
                 (proc.is_fenced ? (uint32_t)HP_CONTROL_FLAG_FENCED : 0) |
                 (proc.is_killed ? (uint32_t)HP_CONTROL_FLAG_KILLED : 0),
        .run_us = hp_clock_mono_us() - proc.start_us,
        .utime_us = timeval_us(usage.ru_utime),
        .stime_us = timeval_us(usage.ru_stime),
        .maxrss_kb = (uint64_t)usage.ru_maxrss,
    };
    hp_helper_tell(helper, &msg, NULL, NULL, 0);
}

/* Handles all that has ended: leaders are reported, adopted processes just reaped. */
static void reap(struct hp_helper *helper)
{
    bool has_orphans = false;
    for (;;) {
        siginfo_t info = {0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) {
            break;
        }
        uint32_t index = 0;
        while (index < helper->proc_count && helper->procs[index].pid != info.si_pid) {
            index++;
        }
        if (index < helper->proc_count) {
            end_proc(helper, index);
        } else {
            (void)waitpid(info.si_pid, NULL, WNOHANG);
            has_orphans = true;
        }
    }
    if (has_orphans) {
        sweep(helper, SWEEPS_MAX); /* the children of what was reaped are ours now */
    }
}

/* The daemon is gone: kills everything, waits until it is dead, ends. */
__attribute__((noreturn)) static void end_helper(struct hp_helper *helper)
{
    for (uint32_t i = 0; i < helper->proc_count; i++) {
        signal_group(&helper->procs[i], SIGKILL);
    }
    for (int round = 0; round < END_ROUNDS_MAX; round++) {
        (void)hp_orphans_kill(helper, true);
        pid_t pid;
        while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
        }
        if (pid < 0) {
            break; /* no children left */
        }
        (void)poll(NULL, 0, 1);
    }
    _exit(0);
}

/* ---------------------------------------------------------------- life */

static void on_message(struct hp_helper *helper, struct hp_control_in *in)
{
    switch (in->msg.type) {
    case HP_CONTROL_SPAWN:
        on_spawn(helper, in);
        check_deadline(helper);
        break;
    case HP_CONTROL_FORK:
        hp_helper_on_fork(helper, in);
        break;
    case HP_CONTROL_KILL:
        on_kill(helper, &in->msg);
        break;
    case HP_CONTROL_WAKE:
        check_deadline(helper);
        break;
    case HP_CONTROL_ASK:
        hp_helper_tell(helper, &(struct hp_control_msg){.type = HP_CONTROL_ALIVE}, NULL, NULL, 0);
        break;
    default:
        break;
    }
    hp_control_in_close(in);
}

/* Loads the modules and tells the daemon what they export, or what is wrong. */
static void load_modules(struct hp_helper *helper)
{
    struct hp_error error = {0};
    struct hp_control_msg msg = {.type = HP_CONTROL_READY};
    struct hp_buf names;
    hp_buf_init(&names, NAMES_BYTES_MAX);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a load hook may never return */
    enum hp_err err = hp_modules_load(&helper->modules, helper->config->modules,
                                      helper->config->module_count, &error);
    (void)prctl(PR_SET_PDEATHSIG, 0);
    HP_CLEANUP(hp_fd_close) int fd = memfd_create("hp-names", MFD_CLOEXEC);
    if (err == HP_OK && (fd < 0 || hp_modules_pack(&helper->modules, &names) != HP_OK ||
                         hp_fd_write_all(fd, names.data, names.size) != HP_OK)) {
        err = hp_error_set(&error, HP_ERR_NOMEM, "no memory for the names of the functions");
    }
    msg.spec_bytes = names.size;
    if (err != HP_OK) {
        msg.value = 1;
        msg.text_bytes = (uint32_t)strlen(error.text);
    }
    hp_helper_tell(helper, &msg, error.text, &fd, err == HP_OK ? 1 : 0);
    hp_buf_deinit(&names);
}

/* The state of a helper that its children inherit or rely on. False: it can not run. */
static bool set_up(struct hp_helper *helper)
{
    const struct hp_helper_config *config = helper->config;
    const char *const names[] = {"hp-spawner", "hp-zygote", "hp-language"};
    hp_spawn_block_signals();
    (void)prctl(PR_SET_PDEATHSIG, 0); /* EOF tells a helper; it ends its children first */
    (void)setsid(); /* a Ctrl-C at the terminal is for the daemon, which then decides */
    (void)prctl(PR_SET_NAME, names[config->role]);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    (void)umask(022);
    int control_fd = dup3(config->control_fd, 3, O_CLOEXEC);
    if (control_fd < 0 && errno == EINVAL) {
        control_fd = fcntl(3, F_SETFD, FD_CLOEXEC) == 0 ? 3 : -1; /* it was there already */
    }
    if (control_fd != 3) {
        return false;
    }
    hp_proc_close_from(4);
    helper->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    (void)dup2(helper->null_fd, 0);
    for (int fd = 1; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0) {
            (void)dup2(helper->null_fd, fd);
        }
    }
    int score_fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (score_fd >= 0) {
        (void)!write(score_fd, "-900", 4); /* without the right to it the score stays as it is */
        (void)close(score_fd);
    }
    struct rlimit no_core = {0};
    (void)setrlimit(RLIMIT_CORE, &no_core);
    sigset_t mask;
    (void)sigemptyset(&mask);
    (void)sigaddset(&mask, SIGCHLD);
    helper->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    helper->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    helper->tell_at_us = UINT64_MAX;
    helper->procs = hp_calloc((size_t)config->slots + 1, sizeof *helper->procs);
    hp_control_init(&helper->control, control_fd);
    return helper->null_fd >= 0 && helper->signal_fd >= 0 && helper->timer_fd >= 0 &&
           helper->procs != NULL;
}

/* How long poll may wait: until orphans are looked at, or the daemon hears of a start. */
static int wait_ms(const struct hp_helper *helper)
{
    int sweep_ms = helper->sweeps_left > 0 ? SWEEP_MS : -1;
    if (helper->tell_at_us == UINT64_MAX) {
        return sweep_ms;
    }
    uint64_t now_us = hp_clock_mono_us();
    uint64_t left_us = helper->tell_at_us > now_us ? helper->tell_at_us - now_us : 0;
    int tell_ms = (int)((left_us + 999) / 1000);
    return sweep_ms < 0 ? tell_ms : HP_MIN(sweep_ms, tell_ms);
}

static bool is_tell_due(const struct hp_helper *helper)
{
    return helper->tell_at_us != UINT64_MAX && helper->tell_at_us <= hp_clock_mono_us();
}

static void turn(struct hp_helper *helper)
{
    if (is_tell_due(helper)) {
        tell_due(helper, hp_clock_mono_us());
    }
    bool is_sending = hp_control_flush(&helper->control);
    struct pollfd fds[3] = {
        {.fd = helper->control.fd, .events = (short)(POLLIN | (is_sending ? POLLOUT : 0))},
        {.fd = helper->signal_fd, .events = POLLIN},
        {.fd = helper->timer_fd, .events = POLLIN},
    };
    int ready_count = poll(fds, 3, wait_ms(helper));
    if (ready_count < 0) {
        return;
    }
    if (ready_count == 0) {
        if (helper->sweeps_left > 0 && !is_tell_due(helper)) {
            sweep(helper, helper->sweeps_left - 1);
        }
        return;
    }
    if (fds[2].revents != 0) {
        uint64_t count;
        (void)!read(helper->timer_fd, &count, sizeof count);
        check_deadline(helper);
    }
    if (fds[1].revents != 0) {
        struct signalfd_siginfo info[8];
        while (read(helper->signal_fd, info, sizeof info) > 0) {
        }
        reap(helper);
    }
    /* A few at a time, so that ends and the deadline are not kept waiting by a flood of starts. */
    for (int i = 0; i < 16 && fds[0].revents != 0 && helper->port == NULL; i++) {
        struct hp_control_in in;
        enum hp_err err = hp_control_receive(&helper->control, &in);
        if (err != HP_OK) {
            break; /* none, or closed: seen by the caller */
        }
        on_message(helper, &in);
    }
}

void hp_helper_main(const struct hp_helper_config *config)
{
    static struct hp_helper helper;
    helper.config = config;
    if (!set_up(&helper)) {
        _exit(71);
    }
    if (config->role == HP_HELPER_ZYGOTE) {
        load_modules(&helper);
    }
    while (!helper.control.is_closed) {
        turn(&helper);
    }
    end_helper(&helper);
}

struct hp_port *hp_helper_language(const struct hp_helper_config *config)
{
    static struct hp_helper helper;
    helper.config = config;
    if (!set_up(&helper)) {
        return NULL;
    }
    struct hp_control_msg ready = {.type = HP_CONTROL_READY,
                                   .text_bytes = (uint32_t)strlen(config->ready_text)};
    hp_helper_tell(&helper, &ready, config->ready_text, NULL, 0);
    check_deadline(&helper); /* the daemon tells of it only when it is set anew */
    while (!helper.control.is_closed && helper.port == NULL) {
        turn(&helper);
    }
    if (helper.port == NULL) {
        end_helper(&helper);
    }
    return helper.port;
}
