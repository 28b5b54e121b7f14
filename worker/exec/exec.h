/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs commands and function calls in child processes, for a single-threaded daemon.
 *
 * Two small helper processes are forked at the start, before the daemon opens libevent or any
 * socket: the spawner starts commands, the zygote loads the modules and forks the children that run
 * functions. They alone start, signal and reap. Everything the daemon sees comes through one
 * pollable descriptor and the callbacks below.
 *
 * Thread rules: one thread calls everything. Callbacks run inside hp_exec_process (and nowhere
 * else, except `recalled` inside hp_exec_recall) and may call any function but hp_exec_process and
 * hp_exec_free. What a callback is given is borrowed until it returns.
 * SIGPIPE must be ignored by the process; hp_exec_start sees to it.
 */
#ifndef HP_EXEC_EXEC_H
#define HP_EXEC_EXEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/bin.h"
#include "common/base/err.h"

struct hp_exec;

/* Largest payload or result that is passed as bytes; larger ones travel as descriptors. */
#define HP_EXEC_INLINE_BYTES_MAX 65536

/* Last bytes of a child's stderr that are kept for its death notice. */
#define HP_EXEC_STDERR_TAIL_BYTES 4096

/* Last bytes of each stream that are kept of what was printed during a call. */
#define HP_EXEC_CALL_OUTPUT_BYTES 16384

/* Language zygotes at once. */
#define HP_EXEC_ZYGOTES_MAX 16

/* Calls that one function child can hold at once (running and prefetched). */
#define HP_EXEC_CHILD_CALLS_MAX 4096

enum hp_exec_stream { HP_EXEC_STDOUT = 1, HP_EXEC_STDERR = 2 };

/* How a command ended. */
enum hp_exec_cause {
    HP_EXEC_EXITED,      /* by itself: exit_code */
    HP_EXEC_SIGNALED,    /* by a signal: signal, oom */
    HP_EXEC_NOT_STARTED, /* never ran: error_number (errno) and text */
    HP_EXEC_LOST,        /* the spawner died; everything it ran is killed */
    HP_EXEC_CAUSE_COUNT
};

/* CPU and memory of a process that was reaped. */
struct hp_exec_usage {
    uint64_t run_us; /* from start to end */
    uint64_t utime_us;
    uint64_t stime_us;
    uint64_t maxrss_kb;
};

/* Captured output of one stream: the last kept bytes, in up to two parts (the ring's halves). */
struct hp_exec_output {
    struct hp_bin part[2]; /* part[0] then part[1]; either may be empty */
    uint64_t total_bytes;  /* all bytes the command wrote (and that were read) */
    bool truncated;        /* the front was dropped: total_bytes > kept */
};

/* The end of a command. */
struct hp_exec_end {
    enum hp_exec_cause cause;
    int exit_code;    /* EXITED */
    int signal;       /* SIGNALED */
    int error_number; /* NOT_STARTED: errno */
    bool oom;         /* SIGNALED: by the kernel for memory, as far as can be known */
    bool fenced;      /* the dead-man's switch killed it */
    struct hp_exec_usage usage;
    struct hp_exec_output out;
    struct hp_exec_output err;
    const char *text; /* NOT_STARTED: for people ("chdir /x: No such file or directory"), else "" */
};

/* How a function call ended. */
enum hp_exec_call_status {
    HP_EXEC_CALL_OK,          /* result */
    HP_EXEC_CALL_ERROR,       /* the function failed: text */
    HP_EXEC_CALL_PERMANENT,   /* it failed and says that a retry is pointless: text */
    HP_EXEC_CALL_RETRY,       /* it asks for a retry: retry_ms, text */
    HP_EXEC_CALL_NO_FUNCTION, /* no module exports the name */
    HP_EXEC_CALL_TOO_BIG,     /* the result is over result_cap_bytes */
    HP_EXEC_CALL_SIGNALED,    /* the child died of a signal while it ran this call */
    HP_EXEC_CALL_EXITED,      /* the child exited while it ran this call */
    HP_EXEC_CALL_STATUS_COUNT
};

/* The end of a function call. */
struct hp_exec_call_end {
    enum hp_exec_call_status status;
    struct hp_bin result; /* OK: the result, if it is at most HP_EXEC_INLINE_BYTES_MAX. ERROR and
                             PERMANENT: what a language has to say besides the text */
    int result_fd; /* the same: memfd with the result otherwise, else -1. The callback takes it
                      over by setting it to -1; if it does not, it is closed afterwards. As a rule
                      it can be sealed; the child may have kept it, and may write to it */
    uint64_t result_bytes; /* size of the result, either way */
    struct hp_str text; /* error text, at most 4096 bytes; for a death: the child's last stderr */
    uint64_t retry_ms;  /* RETRY */
    int signal;         /* SIGNALED */
    int exit_code;      /* EXITED */
    struct hp_bin out;  /* what the child printed during the call: the last bytes, at most */
    struct hp_bin err;  /* HP_EXEC_CALL_OUTPUT_BYTES of each stream; of a death: stdout only */
    bool oom;           /* SIGNALED: for memory, as far as can be known */
    bool killed;        /* SIGNALED: hp_exec_child_kill asked for it */
    bool fenced;        /* SIGNALED: by the dead-man's switch */
    uint64_t start_us;  /* CLOCK_MONOTONIC when the child claimed it */
    struct hp_exec_usage usage; /* run_us; the rest only of a death, for the whole child */
};

/* A function child has died or was recycled; its calls were ended or handed back before. */
struct hp_exec_child_end {
    pid_t pid;
    int exit_code; /* if signal is 0 */
    int signal;    /* 0: it exited */
    bool oom;
    bool killed;         /* hp_exec_child_kill asked for it */
    bool recycled;       /* orderly end: item count, memory, _child_recycle or _child_stop */
    bool init_failed;    /* pool child: it could not be set up; `error` says why */
    struct hp_str error; /* init_failed; else empty */
    uint64_t call_count; /* calls it ended */
    uint64_t restart_ms; /* a new one is forked after this time (0: at once) */
    struct hp_str stderr_tail;
    struct hp_exec_usage usage;
};

/* What the zygote found in the modules. */
struct hp_exec_functions {
    const char *const *names; /* sorted, NUL-terminated strings */
    uint32_t count;
    const char *error; /* NULL: fine; else which file and why, and there are no functions */
};

/*
 * Callbacks; each may be NULL. `key` is the caller's. `child` is an index below function_children.
 */
struct hp_exec_callbacks {
    /* The modules are loaded, or could not be (functions->error). Once; not without modules. */
    void (*ready)(void *context, const struct hp_exec_functions *functions);
    /* A command has run for ran_us (told some ms late, or right before its end, to wake less). Its
     * first output may come before this. */
    void (*started)(void *context, uint64_t key, pid_t pid, uint64_t ran_us);
    /* Output of a followed command; `offset` counts from the first byte of the stream, a jump is a
     * gap. At most 64 KiB at a time. */
    void (*output)(void *context, uint64_t key, enum hp_exec_stream stream, uint64_t offset,
                   struct hp_bin data);
    /* A command has ended (also if it never started). The key is free afterwards. */
    void (*ended)(void *context, uint64_t key, const struct hp_exec_end *end);
    /* A function call has ended. `end` is writable only for taking result_fd over. */
    void (*call_done)(void *context, uint32_t child, uint64_t key, struct hp_exec_call_end *end);
    /* A call is handed back, never started: by hp_exec_recall, or because its child died. */
    void (*recalled)(void *context, uint32_t child, uint64_t key);
    /* The child can take calls: after its start, or room again after HP_ERR_AGAIN. */
    void (*child_ready)(void *context, uint32_t child, pid_t pid);
    /* The child is gone; its calls were reported before. child_ready tells of a new one. */
    void (*child_ended)(void *context, uint32_t child, const struct hp_exec_child_end *end);
    /* Output of a function child, for logs. */
    void (*child_output)(void *context, uint32_t child, enum hp_exec_stream stream,
                         struct hp_bin data);
    /* A language zygote takes hp_exec_child_start: what it said of itself ("python3.11 ..."). */
    void (*zygote_ready)(void *context, uint32_t zygote, const char *text);
    /* It could not start, or has died; its children were reported as ended. The number is free. */
    void (*zygote_failed)(void *context, uint32_t zygote, const char *text);
    /* A pool child waits for something that other children may do (hp_port_waits), or no more. */
    void (*child_waits)(void *context, uint32_t child, bool waits);
    /* A helper process is gone. `ended` (cause LOST) and `recalled`/`call_done` were called for all
     * that it ran. Nothing can be started any more: the daemon should report and restart itself. */
    void (*helper_died)(void *context, const char *text);
};

struct hp_exec_config {
    uint32_t slots;             /* commands at once, 1 .. 4096 (a start beyond is HP_ERR_FULL) */
    const char *const *modules; /* paths of function modules; module_count 0: no zygote */
    uint32_t module_count;
    uint32_t function_children; /* children that run functions; 0: as slots */
    uint32_t pool_children_max; /* child slots behind those, for hp_exec_child_start; 0: none */
    uint64_t recycle_calls;     /* a child ends after this many calls; 0: never */
    uint64_t recycle_rss_kb;    /* ... or when its memory is above this; 0: never */
    uint64_t result_cap_bytes;  /* largest result of a function; 0: 1 GiB */
    const char *scratch_dir;    /* default working directory and TMPDIR; NULL: /tmp */
    const char *path;           /* PATH of commands; NULL: /usr/local/bin:/usr/bin:/bin etc. */
    const char *home;           /* HOME of commands; NULL: the daemon's, else "/" */
    const char *lang;           /* LANG of commands; NULL: the daemon's, else C.UTF-8 */
    uint32_t drain_ms;          /* after the exit, output is read for at most this; 0: 500 */
    uint32_t beat_ms; /* helpers are asked for a sign of life so often; one that gives none
                         for 30 times that is ended; 0: 10000 */
    uint32_t quit_ms; /* a child that was told to end, and runs no call, is killed after
                         this; 0: 10000 */
    struct hp_exec_callbacks callbacks;
    void *context; /* first argument of all callbacks */
};

/*
 * Forks the helpers. Must be called before the daemon opens anything that children must not share
 * and while it has one thread. The config is copied. HP_ERR_INVALID, HP_ERR_NOMEM, HP_ERR_IO (fork
 * or socketpair failed) with the text in reterr; nothing is left behind then. A module that can not
 * be loaded is not an error here: `ready` reports it.
 */
enum hp_err hp_exec_start(const struct hp_exec_config *config, struct hp_exec **ret_exec,
                          struct hp_error *reterr) HP_MUST_CHECK;

/* Ends the helpers, and by that kills everything that runs, without callbacks. NULL is fine. */
void hp_exec_free(struct hp_exec *exec);

/* Readable (level-triggered) when hp_exec_process has something to do, timers included. */
int hp_exec_fd(const struct hp_exec *exec);

/*
 * Handles what is ready, a bounded share of it, and calls the callbacks. Returns true if more may
 * be ready at once (the descriptor is then still readable).
 */
bool hp_exec_process(struct hp_exec *exec);

/*
 * Lease stamp of the dead-man's switch: when CLOCK_BOOTTIME (in ms) passes it, the helpers kill all
 * commands and function calls marked kill_on_partition by themselves, even if the daemon is
 * stopped. 0: off (the state after the start). Cheap: one store in shared memory when it moves
 * forward.
 */
void hp_exec_set_deadline(struct hp_exec *exec, uint64_t boottime_ms);

/* ------------------------------------------------------------------ commands */

/* A command to start. All of it is copied or passed on before hp_exec_command returns. */
struct hp_exec_command {
    uint64_t key; /* unique among running commands */
    const struct hp_str
        *argv; /* argv_count >= 1; argv[0] is searched in PATH unless it has a '/' */
    uint32_t argv_count;
    struct hp_bin argv_more;  /* further arguments, each ended by a NUL byte (payload_use argv) */
    const struct hp_str *env; /* "KEY=VALUE" added to the clean base; the last of a key counts */
    uint32_t env_count;
    struct hp_str cwd;         /* empty: scratch_dir */
    struct hp_bin stdin_data;  /* bytes for stdin */
    int stdin_fd;              /* instead: a descriptor that becomes stdin (duplicated; stays the
                                  caller's); -1: none. Zeroing the struct is NOT -1 */
    uint64_t output_cap_bytes; /* kept of stdout, and of stderr; 0 keeps nothing */
    bool follow;               /* `output` from the first byte on */
    bool kill_on_partition;    /* the dead-man's switch kills it */
    uint64_t task_id;          /* HOSTPOOL_TASK_ID, _ATTEMPT, _EPOCH, _ARRAY_INDEX */
    uint32_t attempt;
    uint64_t epoch;
    uint64_t array_index;
};

/*
 * Starts a command; `started` or `ended` (NOT_STARTED) follow. HP_ERR_FULL: `slots` commands run.
 * HP_ERR_EXISTS: the key runs. HP_ERR_INVALID: a NUL byte in a string, "=" missing, no argv.
 * HP_ERR_NOMEM, HP_ERR_IO (no descriptors left), HP_ERR_CLOSED (spawner died): nothing was started.
 */
enum hp_err hp_exec_command(struct hp_exec *exec, const struct hp_exec_command *command,
                            struct hp_error *reterr) HP_MUST_CHECK;

/*
 * Sends a signal, then CONT, to the process group of a command. May be called before `started`: it
 * is delivered once the command runs. HP_ERR_NOT_FOUND: no such key.
 */
enum hp_err hp_exec_kill(struct hp_exec *exec, uint64_t key, int signal);

/*
 * Follow on: `output` is called for what is kept, soon, and then live. Off: no more calls.
 * HP_ERR_NOT_FOUND.
 */
enum hp_err hp_exec_follow(struct hp_exec *exec, uint64_t key, bool on);

/* Commands that run or are being started. */
uint32_t hp_exec_command_count(const struct hp_exec *exec);

/* ------------------------------------------------------------------ functions */

/* A call. All of it is copied or passed on before hp_exec_call returns. */
struct hp_exec_call {
    uint64_t key;           /* handed back by call_done or recalled */
    struct hp_str function; /* name, at most 255 bytes */
    struct hp_bin payload; /* over HP_EXEC_INLINE_BYTES_MAX it is passed on in a memfd, at the price
                              of a copy */
    int payload_fd;        /* instead: a regular file or memfd with the payload from offset 0, which
                              may be longer, and read-only
                              (duplicated; stays the caller's); -1: none. Zeroing is NOT -1 */
    uint64_t payload_bytes; /* size of the payload in payload_fd */
    bool kill_on_partition; /* the dead-man's switch kills the child while it has such calls */
    bool is_items; /* C functions: the payload is a MessagePack array of byte strings; the function
                      runs for each, in order, and the result is an array of the results */
    uint64_t task_id;
    uint32_t attempt;
    uint64_t epoch;
    uint64_t array_index;
};

/* All child slots: those of functions, and behind them those of pools. */
uint32_t hp_exec_child_count(const struct hp_exec *exec);
/* Index of the first slot of pools. */
uint32_t hp_exec_pool_child_first(const struct hp_exec *exec);

/* ------------------------------------------------------------------ pools */

/* A program that forks children which run a language; see language.h for what it must do. */
struct hp_exec_zygote {
    const char *const *argv; /* argv[0]: absolute path; ends with NULL */
    const char *const *env;  /* complete; ends with NULL. HOSTPOOL_ZYGOTE is added */
};

/*
 * Starts a language zygote; zygote_ready or zygote_failed follows. *ret_zygote is 1 or more (0 is
 * the native one, which has the modules). HP_ERR_FULL: HP_EXEC_ZYGOTES_MAX run. HP_ERR_NOMEM,
 * HP_ERR_IO with the text in reterr.
 */
enum hp_err hp_exec_zygote_start(struct hp_exec *exec, const struct hp_exec_zygote *zygote,
                                 uint32_t *ret_zygote, struct hp_error *reterr) HP_MUST_CHECK;
/* Ends a language zygote and all its children, which are reported; zygote_failed is not called. */
void hp_exec_zygote_stop(struct hp_exec *exec, uint32_t zygote);

/* A child of a pool. All of it is copied or passed on before hp_exec_child_start returns. */
struct hp_exec_child_spec {
    uint32_t zygote;             /* 0: functions of modules */
    uint64_t pool;               /* handed to the child with each call */
    struct hp_str init_function; /* zygote 0: called once before anything; empty: none */
    struct hp_bin init;          /* payload of the set-up, as hp_exec_call.payload */
    int init_fd;                 /* instead; -1: none. Zeroing is NOT -1 */
    uint64_t init_bytes;         /* size of the payload in init_fd */
    uint64_t calls_max;          /* it ends in order after this many calls; 0: no limit */
    bool kill_on_partition;      /* the dead-man's switch kills it also while it sets up */
};

/*
 * Starts a child in a free slot at or behind hp_exec_pool_child_first. child_ready follows when it
 * is set up (its initializer has ended well), or child_ended (init_failed) when it is not. Such a
 * child is not started again by itself: its slot is free in child_ended. HP_ERR_EXISTS: the slot is
 * in use. HP_ERR_INVALID: no such slot or zygote. HP_ERR_NOT_FOUND: zygote 0, and there are no
 * modules. HP_ERR_CLOSED: the zygote is dead. HP_ERR_IO, HP_ERR_NOMEM.
 */
enum hp_err hp_exec_child_start(struct hp_exec *exec, uint32_t child,
                                const struct hp_exec_child_spec *spec,
                                struct hp_error *reterr) HP_MUST_CHECK;

/* Orderly end of a pool child: it takes no more calls, runs what it has, and ends (within quit_ms,
 * which count also while it is set up; else it is killed). */
void hp_exec_child_stop(struct hp_exec *exec, uint32_t child);

/*
 * Appends a call to a child's queue; it runs them in order. The child may be running while it is
 * filled: no system call unless it sleeps, and then one for many (sent by hp_exec_flush, which
 * hp_exec_process also does at its end).
 * HP_ERR_AGAIN: no room, or the child is starting or ending; `child_ready` or a `call_done` follow.
 * HP_ERR_INVALID, HP_ERR_IO (descriptor could not be passed), HP_ERR_CLOSED (zygote died).
 */
enum hp_err hp_exec_call(struct hp_exec *exec, uint32_t child,
                         const struct hp_exec_call *call) HP_MUST_CHECK;

/* Wakes the children that sleep and have new calls. Call after a batch of hp_exec_call. */
void hp_exec_flush(struct hp_exec *exec);

/*
 * Takes back up to count_max calls that the child has not begun, the last ones first; `recalled` is
 * called for each before this returns. Returns how many.
 */
uint32_t hp_exec_recall(struct hp_exec *exec, uint32_t child, uint32_t count_max);

/*
 * Takes one call back, if it has not begun; `recalled` is NOT called. HP_ERR_NOT_FOUND: not in this
 * child (it has ended); HP_ERR_BUSY: it runs, or has ended unread.
 */
enum hp_err hp_exec_recall_one(struct hp_exec *exec, uint32_t child, uint64_t key);

/* Calls the child holds: running one and queued ones. */
uint32_t hp_exec_child_load(const struct hp_exec *exec, uint32_t child);

/*
 * The call which the child runs now: true, its key and start (CLOCK_MONOTONIC us); false: it is
 * idle (or between two calls).
 */
bool hp_exec_child_running(const struct hp_exec *exec, uint32_t child, uint64_t *ret_key,
                           uint64_t *ret_start_us);

/*
 * Ends one call by a signal to its child and all of the child's group (SIGKILL as a rule: hard
 * timeout, forced cancel), without harm to the calls around it: with SIGKILL the child claims no
 * other one from here on. The call ends with SIGNALED and killed (or, if it was quicker, as it
 * ended); those behind it are handed back; a new child is forked. A child may survive another
 * signal than SIGKILL; after TERM, INT, HUP or QUIT it ends in order then, with its call.
 * HP_ERR_BUSY: the call has not begun (hp_exec_recall_one). HP_ERR_NOT_FOUND: not in this child.
 */
enum hp_err hp_exec_call_kill(struct hp_exec *exec, uint32_t child, uint64_t key, int signal);

/* The same for whatever the child runs now, if anything. HP_ERR_NOT_FOUND: no child there now. */
enum hp_err hp_exec_child_kill(struct hp_exec *exec, uint32_t child, int signal);

/* Orderly restart of a child once it has ended the calls it holds. */
void hp_exec_child_recycle(struct hp_exec *exec, uint32_t child);

#endif
