/* SPDX-License-Identifier: BSD-2-Clause */
/* The process itself: descriptors, limits, signals, identity of the host. Call at start. */
#ifndef HP_SYS_PROC_H
#define HP_SYS_PROC_H

#include <stdint.h>
#include <sys/types.h>

#include "common/base/err.h"

/* Bytes of a host name / of the boot id, NUL included. */
#define HP_HOSTNAME_BYTES 256
#define HP_BOOT_ID_BYTES 37

/*
 * Opens /dev/null at 0, 1 and 2 where they are closed, so that a later open can not become stdout.
 * Call first of all.
 */
enum hp_err hp_proc_keep_std_fds(void) HP_MUST_CHECK;

/* Sets close-on-exec / non-blocking. HP_ERR_IO. */
enum hp_err hp_fd_set_cloexec(int fd) HP_MUST_CHECK;
enum hp_err hp_fd_set_nonblock(int fd) HP_MUST_CHECK;

/* Closes all descriptors >= `first` (close_range; async-signal-safe, for use after fork). */
void hp_proc_close_from(int first);

/*
 * Raises the soft limit of open files to `want`, or as near as the hard limit allows; *ret_limit
 * (may be NULL) is what holds then. HP_ERR_IO.
 */
enum hp_err hp_proc_raise_nofile(uint64_t want, uint64_t *ret_limit) HP_MUST_CHECK;

/*
 * Keeps the memory of large buffers that were freed, up to 128 MiB, for the next ones: a daemon
 * that passes payloads of megabytes on otherwise spends most of its time in having pages zeroed.
 */
void hp_proc_keep_memory(void);

/* A descriptor of a child process, close-on-exec, readable when it ends. NOT_FOUND, UNSUPPORTED. */
enum hp_err hp_pidfd_open(pid_t pid, int *ret_fd) HP_MUST_CHECK;

/* Sends a signal through a pidfd: can not hit a reused pid. NOT_FOUND: it has ended. */
enum hp_err hp_pidfd_send_signal(int pidfd, int signal_number) HP_MUST_CHECK;

/* Makes writes to closed peers return EPIPE. Children must restore the default. */
void hp_proc_ignore_sigpipe(void);

/* Name of this host ("localhost" if it has none). Returns `out`. */
char *hp_proc_hostname(char out[HP_HOSTNAME_BYTES]);

/* The kernel's id of this boot: tells a reboot from a restart. HP_ERR_IO, `out` untouched. */
enum hp_err hp_proc_boot_id(char out[HP_BOOT_ID_BYTES]) HP_MUST_CHECK;

#endif
