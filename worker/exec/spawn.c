/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Starts one program. The child shares the spawner's memory until it execs (CLONE_VM | CLONE_VFORK:
 * the spawner stands still meanwhile), so the cost does not depend on anyone's size, and a failure
 * is simply written to memory. Between clone and exec only system calls are made.
 */
#include "worker/exec/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/sys/crash.h"
#include "common/sys/proc.h"

#define STACK_BYTES (64u * 1024u)
#define PATH_BYTES_MAX 4096u

struct job {
    const char *cwd;
    char **argv;
    char **env;
    char *paths; /* candidates, each NUL-terminated; an empty one ends */
    int fds[3];
    uint64_t tag;
    pid_t parent;
    volatile int error_number;
    const char *volatile step;
};

void hp_spawn_block_signals(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++) {
        (void)sigaction(number, &action, NULL); /* KILL, STOP and libc's own two refuse: fine */
    }
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigset_t blocked;
    (void)sigfillset(&blocked);
    for (size_t i = 0; i < HP_COUNT_OF(faults); i++) {
        (void)sigdelset(&blocked,
                        faults[i]); /* a module that crashes while it is loaded shall die */
    }
    (void)sigprocmask(SIG_SETMASK, &blocked, NULL);
}

#define TAG_BIT (1ull << 62)

uint64_t hp_spawn_tag(uint64_t instance, uint64_t id)
{
    return TAG_BIT | (instance & 0x3fffffff) << 32 | (id & UINT32_MAX);
}

uint64_t hp_spawn_tag_of(pid_t pid)
{
    struct rlimit limit = {.rlim_max = RLIM_INFINITY};
    bool is_tagged = prlimit(pid, RLIMIT_RTTIME, NULL, &limit) == 0 &&
                     limit.rlim_max != RLIM_INFINITY && (limit.rlim_max & TAG_BIT) != 0;
    return is_tagged ? limit.rlim_max : 0;
}

void hp_spawn_clean_process(uint64_t tag)
{
    struct rlimit limit = {.rlim_cur = tag, .rlim_max = tag};
    /* Refused below a lower limit: its environment has a marker as well. */
    (void)setrlimit(RLIMIT_RTTIME, &limit);
    (void)setsid();
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!write(fd, "500", 3); /* if it is refused the score stays as it is */
        (void)close(fd);
    }
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Puts three descriptors at 0, 1, 2 whatever their numbers are, and closes all others. */
static int place_fds(const int fds[3])
{
    int high[3];
    for (int i = 0; i < 3; i++) {
        high[i] = fcntl(fds[i], F_DUPFD, 10);
        if (high[i] < 0) {
            return -1;
        }
    }
    for (int i = 0; i < 3; i++) {
        if (dup2(high[i], i) < 0) {
            return -1;
        }
    }
    hp_proc_close_from(3);
    return 0;
}

static int fail(struct job *job, const char *step)
{
    job->error_number = errno;
    job->step = step;
    return 127;
}

/* Runs in the child, on the spawner's memory. */
__attribute__((no_sanitize_address)) static int child_main(void *context)
{
    struct job *job = context;
    hp_spawn_clean_process(job->tag);
    if (getppid() != job->parent) {
        return 127; /* the spawner was killed before it could be known: this dies with it */
    }
    HP_CRASH_POINT("exec.before");
    if (place_fds(job->fds) != 0) {
        return fail(job, "dup");
    }
    if (chdir(job->cwd) != 0) {
        return fail(job, "chdir");
    }
    int error = ENOENT;
    for (const char *path = job->paths; *path != '\0'; path += strlen(path) + 1) {
        (void)execve(path, job->argv, job->env);
        if (errno == EACCES) {
            error = EACCES; /* as execvp: remember it, look further */
        } else if (errno != ENOENT && errno != ENOTDIR) {
            return fail(job, "exec");
        }
    }
    errno = error;
    return fail(job, "exec");
}

/* The value of PATH in the environment, or of its absence. */
static const char *path_of(char *const *env)
{
    for (; *env != NULL; env++) {
        if (strncmp(*env, "PATH=", 5) == 0) {
            return *env + 5;
        }
    }
    return "/usr/local/bin:/usr/bin:/bin";
}

/* All paths under which the program may be found; NULL: out of memory. */
static char *candidates(const char *name, const char *path)
{
    size_t name_bytes = strlen(name);
    if (strchr(name, '/') != NULL || name_bytes == 0) {
        char *only = hp_alloc(name_bytes + 2);
        if (only != NULL) {
            memcpy(only, name, name_bytes + 1);
            only[name_bytes + 1] = '\0';
        }
        return only;
    }
    size_t parts = 1;
    for (const char *at = path; *at != '\0'; at++) {
        parts += *at == ':';
    }
    char *out = hp_alloc(strlen(path) + parts * (name_bytes + 3) + 1);
    char *to = out;
    while (out != NULL) {
        const char *end = strchrnul(path, ':');
        size_t bytes = (size_t)(end - path);
        if (bytes > 0 && bytes < PATH_BYTES_MAX) { /* an empty part would mean the cwd: left out */
            memcpy(to, path, bytes);
            to += bytes;
            *to++ = '/';
            memcpy(to, name, name_bytes + 1);
            to += name_bytes + 1;
        }
        if (*end == '\0') {
            *to = '\0';
            return out;
        }
        path = end + 1;
    }
    return NULL;
}

/* Points at the `count` strings that begin at *at; false if the spec ends before. */
static bool point_at(const char **at, const char *end, uint32_t count, char **ret)
{
    for (uint32_t i = 0; i < count; i++) {
        size_t left = (size_t)(end - *at);
        const char *nul = left > 0 ? memchr(*at, '\0', left) : NULL;
        if (nul == NULL) {
            return false;
        }
        ret[i] = (char *)(uintptr_t)*at;
        *at = nul + 1;
    }
    ret[count] = NULL;
    return true;
}

static void run(struct job *job, pid_t *ret_pid)
{
    static _Alignas(16) char stack[STACK_BYTES]; /* one child at a time: CLONE_VFORK */
    /* The spawner has no signal handlers, so none can run in the child on shared memory. */
    HP_CRASH_POINT("fork.before");
    pid_t pid = clone(child_main, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, job);
    if (pid < 0) {
        (void)fail(job, "clone");
    } else if (job->error_number != 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
        pid = -1;
    }
    HP_CRASH_POINT("fork.after");
    *ret_pid = pid;
}

struct hp_spawn_result hp_spawn(const char *spec, size_t bytes, const int fds[3], int null_fd,
                                uint64_t tag)
{
    struct hp_spawn_result result = {.pid = -1, .error_number = EINVAL, .step = "spec", .what = ""};
    struct hp_spawn_spec head;
    if (bytes < sizeof head || bytes > UINT32_MAX) {
        return result;
    }
    memcpy(&head, spec, sizeof head);
    if (head.argv_count == 0 || head.argv_count > bytes || head.env_count > bytes) {
        return result;
    }
    const char *at = spec + sizeof head;
    char *cwd[2];
    HP_CLEANUP(hp_free_ptr) char **argv = hp_alloc_array((size_t)head.argv_count + 1, sizeof *argv);
    HP_CLEANUP(hp_free_ptr) char **env = hp_alloc_array((size_t)head.env_count + 1, sizeof *env);
    if (argv == NULL || env == NULL) {
        result.error_number = ENOMEM;
        return result;
    }
    if (!point_at(&at, spec + bytes, 1, cwd) ||
        !point_at(&at, spec + bytes, head.argv_count, argv) ||
        !point_at(&at, spec + bytes, head.env_count, env)) {
        return result;
    }
    HP_CLEANUP(hp_free_ptr) char *paths = candidates(argv[0], path_of(env));
    struct job job = {
        .cwd = cwd[0], .argv = argv, .env = env, .paths = paths, .tag = tag, .parent = getpid()};
    if (paths == NULL) {
        result.error_number = ENOMEM;
        return result;
    }
    for (int i = 0; i < 3; i++) {
        job.fds[i] = fds[i] >= 0 ? fds[i] : null_fd;
    }
    run(&job, &result.pid);
    result.error_number = job.error_number;
    result.step = job.step;
    result.what = job.step != NULL && strcmp(job.step, "chdir") == 0 ? cwd[0] : argv[0];
    return result;
}
