/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finds what left its process group (setsid, daemonise). Helpers are subreapers, so it becomes
 * their child once its parent ends. To whom it belonged is told by its session, by the tag that it
 * inherited (spawn.h), or by the marker in its environment; what can not be told (it was privileged
 * and took care to lose all three) is left alone while anyone runs whose it may be.
 */
#include "worker/exec/helper.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/macro.h"
#include "common/sys/clock.h"
#include "common/sys/file.h"
#include "worker/exec/spawn.h"

#define ENVIRON_BYTES_MAX 65536
#define DEPTH_MAX 64

void hp_run_marker(char out[HP_RUN_MARKER_BYTES], uint64_t instance, uint64_t id)
{
    (void)snprintf(out, HP_RUN_MARKER_BYTES, "%s%016" PRIx64 ".%" PRIu64, HP_RUN_MARKER, instance,
                   id);
}

static const struct hp_proc *leader(const struct hp_helper *helper, pid_t pid)
{
    for (uint32_t i = 0; i < helper->proc_count; i++) {
        if (helper->procs[i].pid == pid) {
            return &helper->procs[i];
        }
    }
    return NULL;
}

static bool id_is_live(const struct hp_helper *helper, uint64_t id)
{
    for (uint32_t i = 0; i < helper->proc_count; i++) {
        if (helper->procs[i].id == id) {
            return true;
        }
    }
    return false;
}

/* Reads a file of /proc; the bytes read, NUL behind them. Zombies and strangers give 0. */
static size_t read_proc(pid_t pid, const char *name, char *out, size_t out_bytes)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    HP_CLEANUP(hp_fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t used = 0;
    while (fd >= 0 && used < out_bytes - 1) {
        ssize_t size = read(fd, out + used, out_bytes - 1 - used);
        if (size <= 0) {
            break;
        }
        used += (size_t)size;
    }
    out[used] = '\0';
    return used;
}

/* True if a run that has this tag is alive. */
static bool tag_is_live(const struct hp_helper *helper, uint64_t tag)
{
    for (uint32_t i = 0; i < helper->proc_count; i++) {
        if (hp_spawn_tag(helper->config->instance, helper->procs[i].id) == tag) {
            return true;
        }
    }
    return false;
}

/* True if the tag is of this executor's making: workers may run below others. */
static bool is_own_tag(const struct hp_helper *helper, uint64_t tag)
{
    return tag != 0 && tag >> 32 == hp_spawn_tag(helper->config->instance, 0) >> 32;
}

/* The run which the environment of a process names: true and its id. */
static bool marked_run(const struct hp_helper *helper, pid_t pid, uint64_t *ret_id)
{
    static char env[ENVIRON_BYTES_MAX];
    char marker[HP_RUN_MARKER_BYTES];
    (void)snprintf(marker, sizeof marker, "%s%016" PRIx64 ".", HP_RUN_MARKER,
                   helper->config->instance);
    size_t marker_bytes = strlen(marker);
    size_t size = read_proc(pid, "environ", env, sizeof env);
    for (size_t at = 0; at < size; at += strlen(env + at) + 1) {
        if (strncmp(env + at, marker, marker_bytes) == 0) {
            *ret_id = strtoull(env + at + marker_bytes, NULL, 10);
            return true;
        }
    }
    return false;
}

enum owner { OWNER_LIVE, OWNER_ENDED, OWNER_UNKNOWN };

static enum owner find_owner(const struct hp_helper *helper, pid_t pid)
{
    uint64_t id = 0;
    pid_t session = getsid(pid);
    if (session > 0 && leader(helper, session) != NULL) {
        return OWNER_LIVE;
    }
    uint64_t tag = hp_spawn_tag_of(pid);
    if (is_own_tag(helper, tag)) {
        return tag_is_live(helper, tag) ? OWNER_LIVE : OWNER_ENDED;
    }
    if (marked_run(helper, pid, &id)) {
        return id_is_live(helper, id) ? OWNER_LIVE : OWNER_ENDED;
    }
    /* In the middle of an exec the environment is empty: the caller looks again. */
    return helper->proc_count == 0 ? OWNER_ENDED : OWNER_UNKNOWN;
}

/* Next number of a list in text; 0 at its end. */
static pid_t next_pid(char **at)
{
    char *end = *at;
    long value = strtol(*at, &end, 10);
    *at = end;
    return (pid_t)value;
}

/* Kills a process that is a child of ours, with its group if it leads one, and what hangs below it.
 */
static void kill_tree(pid_t pid, int depth)
{
    char children[4096];
    char name[64];
    (void)snprintf(name, sizeof name, "task/%d/children", (int)pid);
    (void)kill(pid, SIGSTOP); /* it forks no more while we look */
    (void)read_proc(pid, name, children, sizeof children);
    char *at = children;
    for (pid_t child; depth < DEPTH_MAX && (child = next_pid(&at)) > 0;) {
        kill_tree(child, depth + 1);
    }
    if (getpgid(pid) == pid) {
        (void)kill(-pid, SIGKILL);
    }
    (void)kill(pid, SIGKILL);
}

uint32_t hp_orphans_kill(const struct hp_helper *helper, bool all)
{
    static char children[65536]; /* more than that are found in the next round */
    char name[64];
    pid_t self = getpid();
    (void)snprintf(name, sizeof name, "task/%d/children", (int)self);
    (void)read_proc(self, name, children, sizeof children);
    uint32_t unknown_count = 0;
    char *at = children;
    for (pid_t child; (child = next_pid(&at)) > 0;) {
        if (leader(helper, child) != NULL && !all) {
            continue;
        }
        enum owner owner = all ? OWNER_ENDED : find_owner(helper, child);
        unknown_count += owner == OWNER_UNKNOWN;
        if (owner == OWNER_ENDED) {
            kill_tree(child, 0);
        }
    }
    return unknown_count;
}

static bool is_one_of(pid_t pid, const pid_t *pids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (pids[i] == pid) {
            return true;
        }
    }
    return false;
}

bool hp_orphans_end(const pid_t *helpers, size_t helper_count, uint64_t timeout_ms)
{
    static char children[65536];
    char name[64];
    pid_t self = getpid();
    uint64_t end_ms = hp_clock_mono_ms() + timeout_ms;
    (void)snprintf(name, sizeof name, "task/%d/children", (int)self);
    for (;;) {
        uint32_t left_count = 0;
        (void)read_proc(self, name, children, sizeof children);
        char *at = children;
        for (pid_t child; (child = next_pid(&at)) > 0;) {
            if (!is_one_of(child, helpers, helper_count)) {
                kill_tree(child, 0);
                (void)waitpid(child, NULL, WNOHANG); /* what is not gone yet is found again */
                left_count++;
            }
        }
        if (left_count == 0 || hp_clock_mono_ms() >= end_ms) {
            return left_count == 0;
        }
        (void)poll(NULL, 0, 1); /* for killed ones to end, and for what hung below them to appear */
    }
}
