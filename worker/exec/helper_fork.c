/* SPDX-License-Identifier: BSD-2-Clause */
/* Forking in zygotes: what a fresh child keeps, and what it becomes. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "worker/exec/child.h"
#include "worker/exec/helper.h"
#include "worker/exec/language.h"
#include "worker/exec/spawn.h"

#define CHILD_FD 3

/* Standard streams and the socket (at CHILD_FD) in place, all else of the helper's closed. What a
 * module's load hook or an interpreter opened is kept, so the rest is closed by name. */
static void keep_descriptors(struct hp_helper *helper, const int fds[3])
{
    int high = fcntl(fds[0], F_DUPFD_CLOEXEC, 10);
    if (dup2(helper->null_fd, 0) < 0 || dup2(fds[1], 1) < 0 || dup2(fds[2], 2) < 0 || high < 0 ||
        dup3(high, CHILD_FD, O_CLOEXEC) < 0) {
        _exit(127);
    }
    const int mine[] = {
        high, fds[0], fds[1], fds[2], helper->null_fd, helper->signal_fd, helper->timer_fd};
    for (size_t i = 0; i < HP_COUNT_OF(mine); i++) {
        if (mine[i] != CHILD_FD) { /* the control socket was there: dup3 has closed it */
            (void)close(mine[i]);
        }
    }
}

/* Gives up the parts of the shared memory that are others'. */
static struct hp_child_shared *keep_slot(struct hp_helper *helper, uint32_t slot)
{
    struct hp_child_shared *all = helper->config->children;
    size_t slots = helper->config->slots;
    if (slot > 0) {
        (void)munmap(all, slot * sizeof *all);
    }
    if (slot + 1 < slots) {
        (void)munmap(all + slot + 1, (slots - slot - 1) * sizeof *all);
    }
    (void)mprotect(helper->config->shared, sizeof *helper->config->shared, PROT_READ);
    return all + slot;
}

/* In a fresh child of a zygote: leaves it only what it needs, and makes it a child. */
static void become_child(struct hp_helper *helper, struct hp_control_in *in)
{
    const struct hp_helper_config *config = helper->config;
    bool is_language = config->role == HP_HELPER_LANGUAGE;
    hp_spawn_clean_process(hp_spawn_tag(config->instance, in->msg.id));
    char marker[HP_RUN_MARKER_BYTES];
    hp_run_marker(marker, config->instance, in->msg.id);
    (void)setenv("HOSTPOOL_RUN", marker + strlen(HP_RUN_MARKER), 1);
    (void)prctl(PR_SET_NAME, is_language ? "hp-child" : "hp-function");
    keep_descriptors(helper, in->fds);
    for (uint32_t i = 0; i < in->fd_count; i++) {
        in->fds[i] = -1;
    }
    struct hp_child_shared *shared = keep_slot(helper, in->msg.slot);
    if (!is_language) {
        struct hp_child_config child = {.socket_fd = CHILD_FD,
                                        .shared = shared,
                                        .modules = &helper->modules,
                                        .result_cap_bytes = config->result_cap_bytes};
        hp_child_main(&child);
    }
    helper->port = hp_port_new(CHILD_FD, shared, config->result_cap_bytes);
    if (helper->port == NULL) {
        _exit(71);
    }
}

static void call_hook(void (*hook)(void))
{
    if (hook != NULL) {
        hook();
    }
}

void hp_helper_on_fork(struct hp_helper *helper, struct hp_control_in *in)
{
    static const struct hp_language_hooks none;
    const struct hp_language_hooks *hooks =
        helper->config->hooks != NULL ? helper->config->hooks : &none;
    if (in->fd_count != 3 || in->msg.slot >= helper->config->slots ||
        helper->proc_count > helper->config->slots) {
        hp_helper_tell_failed(helper, in->msg.id, EMFILE, "zygote: no descriptors or slots");
        return;
    }
    pid_t zygote = getpid();
    call_hook(hooks->before_fork);
    pid_t pid = fork();
    int error_number = errno;
    if (pid == 0) {
        call_hook(hooks->after_fork_child);
        become_child(helper, in);
        if (getppid() != zygote) {
            _exit(127); /* it died before its death was a signal to this process */
        }
        return;
    }
    call_hook(hooks->after_fork_parent);
    if (pid < 0) {
        hp_helper_tell_failed(helper, in->msg.id, error_number, "zygote: fork failed");
        return;
    }
    hp_helper_add_proc(helper, &in->msg, pid);
}
