/* SPDX-License-Identifier: BSD-2-Clause */
/* The process: descriptors, limits, signals, identity. */
#include "common/sys/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/str.h"
#include "common/sys/file.h"

enum hp_err hp_proc_keep_std_fds(void)
{
    for (;;) {
        int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (fd < 0) {
            return HP_ERR_IO;
        }
        if (fd > 2) {
            (void)close(fd); /* 0 .. 2 are all open */
            return HP_OK;
        }
        if (fcntl(fd, F_SETFD, 0) != 0) { /* standard descriptors are inherited */
            return HP_ERR_IO;
        }
    }
}

enum hp_err hp_fd_set_cloexec(int fd)
{
    int flags = fcntl(fd, F_GETFD);
    return flags >= 0 && fcntl(fd, F_SETFD, flags | FD_CLOEXEC) == 0 ? HP_OK : HP_ERR_IO;
}

enum hp_err hp_fd_set_nonblock(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 ? HP_OK : HP_ERR_IO;
}

void hp_proc_close_from(int first)
{
    if (syscall(SYS_close_range, (unsigned)first, UINT_MAX, 0u) == 0) {
        return;
    }
    /* Kernels before 5.9, and sandboxes that do not know the call. */
    long limit = sysconf(_SC_OPEN_MAX);
    for (int fd = first; fd < (limit > 0 && limit < INT_MAX ? (int)limit : 65536); fd++) {
        (void)close(fd); /* most are not open */
    }
}

enum hp_err hp_proc_raise_nofile(uint64_t want, uint64_t *ret_limit)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return HP_ERR_IO;
    }
    if (limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < want) {
        limit.rlim_cur = limit.rlim_max == RLIM_INFINITY ? want : HP_MIN(want, limit.rlim_max);
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
            return HP_ERR_IO;
        }
    }
    if (ret_limit != NULL) {
        *ret_limit = limit.rlim_cur;
    }
    return HP_OK;
}

void hp_proc_keep_memory(void)
{
    enum { KEPT_BYTES = 128 << 20, LARGE_BYTES = 32 << 20 };
    (void)mallopt(M_MMAP_THRESHOLD, LARGE_BYTES); /* larger ones are rare, and given back */
    (void)mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
}

enum hp_err hp_pidfd_open(pid_t pid, int *ret_fd)
{
    long fd = syscall(SYS_pidfd_open, pid, 0u); /* always close-on-exec */
    if (fd < 0) {
        return hp_err_of_errno(errno);
    }
    *ret_fd = (int)fd;
    return HP_OK;
}

enum hp_err hp_pidfd_send_signal(int pidfd, int signal_number)
{
    long failed = syscall(SYS_pidfd_send_signal, pidfd, signal_number, NULL, 0u);
    return failed == 0 ? HP_OK : hp_err_of_errno(errno);
}

void hp_proc_ignore_sigpipe(void)
{
    struct sigaction action = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGPIPE, &action, NULL); /* fails only for signals that do not exist */
}

char *hp_proc_hostname(char out[HP_HOSTNAME_BYTES])
{
    if (gethostname(out, HP_HOSTNAME_BYTES) != 0) {
        out[0] = '\0';
    }
    out[HP_HOSTNAME_BYTES - 1] = '\0'; /* a cut name may lack it */
    if (out[0] == '\0') {
        (void)hp_strlcpy(out, "localhost", HP_HOSTNAME_BYTES); /* fits */
    }
    return out;
}

enum hp_err hp_proc_boot_id(char out[HP_BOOT_ID_BYTES])
{
    HP_CLEANUP(hp_buf_deinit) struct hp_buf text = {0};
    enum hp_err err = hp_file_read("/proc/sys/kernel/random/boot_id", 256, &text, NULL);
    if (err != HP_OK || text.size < HP_BOOT_ID_BYTES - 1) {
        return HP_ERR_IO;
    }
    memcpy(out, text.data, HP_BOOT_ID_BYTES - 1);
    out[HP_BOOT_ID_BYTES - 1] = '\0';
    return HP_OK;
}
