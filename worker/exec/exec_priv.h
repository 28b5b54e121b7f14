/* SPDX-License-Identifier: BSD-2-Clause */
/* What the parts of the daemon's side share: exec.c (life, dispatch), command.c and function.c. */
#ifndef HP_EXEC_PRIV_H
#define HP_EXEC_PRIV_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/idmap.h"
#include "common/base/list.h"
#include "worker/exec/control.h"
#include "worker/exec/exec.h"
#include "worker/exec/helper.h"
#include "worker/exec/oom.h"
#include "worker/exec/output.h"
#include "worker/exec/ring.h"

#define HP_EXEC_READ_BYTES 65536u
#define HP_EXEC_NEVER UINT64_MAX

/* What an epoll event is about: kind << 56 | index << 32 | generation. */
enum hp_exec_source {
    HP_SOURCE_SPAWNER,
    HP_SOURCE_ZYGOTE,
    HP_SOURCE_TIMER,
    HP_SOURCE_WAKE,
    HP_SOURCE_COMMAND_OUT,
    HP_SOURCE_COMMAND_ERR,
    HP_SOURCE_KID_SOCKET,
    HP_SOURCE_KID_OUT,
    HP_SOURCE_KID_ERR,
    HP_SOURCE_LANGUAGE,    /* index: number of the zygote */
    HP_SOURCE_LANGUAGE_ERR /* what it writes to stderr */
};

/* The daemon's end of a helper. */
struct hp_link {
    struct hp_control control;
    uint64_t source;       /* of its epoll events */
    pid_t pid;             /* 0: there is none */
    bool is_writing;       /* epoll waits for room */
    bool is_dead;          /* it has been seen to be gone */
    uint32_t silent_beats; /* since its last message (pulse.c) */
};

/* A language zygote. */
struct hp_exec_language {
    struct hp_link link;
    uint32_t generation;
    bool is_ready;
    uint64_t ready_by_us;  /* when it has to be */
    int error_fd;          /* its stderr */
    struct hp_tail errors; /* the last of it */
    char name[256];        /* of its program */
};

/* One stream of a command. */
struct hp_exec_pipe {
    int fd;
    struct hp_tail tail;
    uint64_t sent; /* stream offset up to which a follower has it */
};

enum hp_command_state {
    HP_COMMAND_FREE,
    HP_COMMAND_STARTING,
    HP_COMMAND_RUNNING,
    HP_COMMAND_ENDED
};

struct hp_exec_cmd {
    enum hp_command_state state;
    uint32_t index;
    uint32_t generation;
    uint64_t key;
    uint64_t id; /* towards the spawner; never reused */
    struct hp_exec_pipe pipes[2];
    bool follow;
    bool wants_replay;
    bool is_watched; /* epoll tells of its pipes */
    uint64_t drain_until_us;
    struct hp_exec_end end; /* filled at the end of the process */
    char text[512];
};

/* A call that a child holds. */
struct hp_kid_call {
    uint64_t key;
    uint64_t at;    /* where the call ring's head was before its record */
    uint64_t place; /* where its record is */
    bool is_fenced; /* kill_on_partition */
    bool has_fd;
    bool is_void; /* taken back from the middle */
    bool is_init; /* the set-up of a pool child, not a call */
};

enum hp_kid_state { HP_KID_NONE, HP_KID_STARTING, HP_KID_RUNNING, HP_KID_QUITTING, HP_KID_ENDED };

struct hp_kid_fd {
    uint64_t id;
    int fd; /* -1: this process had no number free for it, and it is lost */
};

#define HP_KID_FDS_MAX 16u

/* A function child, as the daemon sees it. */
struct hp_kid {
    enum hp_kid_state state;
    uint32_t index;
    uint32_t generation;
    uint64_t id; /* towards the zygote; never reused */
    pid_t pid;
    int socket_fd;
    int pipe_fds[2];
    struct hp_tail errors;
    struct hp_child_shared *shared;
    uint64_t call_head;        /* own position in the call ring */
    uint64_t result_tail;      /* own position in the result ring */
    uint32_t done;             /* results taken, as counted by the claim word */
    uint32_t unpublished;      /* calls at the end of the queue that the child may not claim yet */
    struct hp_kid_call *calls; /* ring of call_capacity; oldest at call_first */
    uint32_t call_capacity;
    uint32_t call_first;
    uint32_t call_count;
    uint32_t fence_count;
    uint32_t fd_count; /* calls with a descriptor */
    uint32_t void_count;
    uint64_t next_fd_id;
    struct hp_kid_fd results[HP_KID_FDS_MAX]; /* descriptors received, not yet asked for */
    uint32_t result_fd_count;
    uint64_t assigned_count; /* calls ever given to this child */
    uint64_t ended_count;
    bool wants_recycle;
    bool is_doomed;   /* SIGKILL was sent: it claims nothing any more */
    bool is_damaged;  /* its results can not be told apart any more: none is read */
    bool needs_ready; /* HP_ERR_AGAIN was given: child_ready is owed */
    bool is_polled;   /* results come so fast that bells are off and a timer looks */
    bool is_pending;  /* results were left in the ring for fairness */
    uint32_t quick_deaths;
    uint64_t restart_at_us; /* HP_EXEC_NEVER: not waiting */
    uint64_t quit_by_us;    /* it is killed then; HP_EXEC_NEVER: not told to end, or runs a call */
    struct hp_list dirty;   /* in exec->dirty: calls to publish */
    /* children of pools */
    bool is_pool;
    bool is_set_up;
    bool is_waiting; /* as it said last */
    uint32_t zygote; /* who forked it; 0: the native one */
    uint64_t pool;
    uint64_t calls_max;        /* 0: no limit */
    char *init_error;          /* why it was not set up; NULL: nothing said so far */
    struct hp_tail printed[2]; /* stdout and stderr since the last call ended */
};

struct hp_exec {
    struct hp_exec_config config; /* strings owned */
    int epoll_fd;
    int timer_fd;
    int wake_fd;
    uint64_t timer_at_us; /* HP_EXEC_NEVER: off */
    uint64_t beat_at_us;  /* the next one */
    uint64_t next_id;
    uint64_t instance;
    struct hp_link spawner;
    struct hp_link zygote;
    struct hp_exec_language languages[HP_EXEC_ZYGOTES_MAX]; /* zygote numbers from 1 on */
    int shared_fd;
    struct hp_exec_shared *shared;    /* front of the mapping */
    struct hp_child_shared *children; /* kid_count parts behind it, or NULL */
    struct hp_oom oom;
    /* commands */
    struct hp_exec_cmd
        *cmds;          /* config.slots + 1: one is being ended while its slot is used again */
    uint32_t cmd_count; /* in use, those being ended not counted */
    struct hp_idmap cmd_by_key;
    struct hp_idmap cmd_by_id;
    /* functions */
    struct hp_kid *kids;
    uint32_t kid_count;
    uint32_t kid_top; /* slots from here on were never used */
    char *name_bytes;
    const char **names; /* sorted */
    uint32_t name_count;
    uint32_t last_function; /* cache: index of the last name asked for */
    bool was_ready;
    struct hp_list dirty;
    uint8_t buffer[HP_EXEC_READ_BYTES];
    struct hp_exec_call_end call_end; /* of results; what they never set stays zero */
    uint8_t printed[2][HP_EXEC_CALL_OUTPUT_BYTES];
};

/* The link of the zygote that forked a child. */
static inline struct hp_link *hp_kid_link(struct hp_exec *exec, const struct hp_kid *kid)
{
    return kid->zygote == 0 ? &exec->zygote : &exec->languages[kid->zygote - 1].link;
}

/* exec.c */
enum hp_err hp_exec_watch(struct hp_exec *exec, int fd, enum hp_exec_source source, uint32_t index,
                          uint32_t generation) HP_MUST_CHECK;
enum hp_err hp_exec_link_send(struct hp_exec *exec, struct hp_link *link,
                              const struct hp_control_msg *msg, const void *text, const int *fds,
                              uint32_t fd_count);
void hp_exec_timer_by(struct hp_exec *exec, uint64_t at_us); /* fires then, or earlier */
void hp_exec_wake(struct hp_exec *exec);                     /* process is called again at once */
/* Kills and reaps what a helper that died has left behind, but no living helper. */
void hp_exec_end_orphans(struct hp_exec *exec);
/* Text of a wait status: "was killed by signal 9 (Killed)". */
void hp_exec_status_text(int status, char *out, size_t size);
/* Makes epoll wait for room exactly while something is queued. */
void hp_exec_link_update(struct hp_exec *exec, struct hp_link *link);
/* A socket pair for a new helper. */
enum hp_err hp_exec_link_pair(int ret_pair[2]) HP_MUST_CHECK;
/* A pipe whose read end is the caller's and does not block; both close-on-exec. */
enum hp_err hp_exec_pipe_open(int ret_fds[2]) HP_MUST_CHECK;
/* A memfd which holds these bytes, at offset 0; -1 if there is no memory or descriptor. */
int hp_exec_memfd(const char *name, const void *data, size_t size);

/* command.c */
enum hp_err hp_commands_init(struct hp_exec *exec) HP_MUST_CHECK;
void hp_commands_deinit(struct hp_exec *exec);
void hp_commands_on_message(struct hp_exec *exec, const struct hp_control_in *in);
void hp_commands_on_readable(struct hp_exec *exec, int stream, uint32_t index, uint32_t generation);
void hp_commands_on_wake(struct hp_exec *exec);
void hp_commands_on_timer(struct hp_exec *exec, uint64_t now_us);
void hp_commands_on_lost(struct hp_exec *exec);

/* pulse.c: looks whether helpers live */
void hp_pulse_on_timer(struct hp_exec *exec, uint64_t now_us);
bool hp_pulse_is_lost(const struct hp_link *link); /* it is silent and has to end */

/* zygote.c: language zygotes */
void hp_languages_init(struct hp_exec *exec);
void hp_languages_deinit(struct hp_exec *exec);
void hp_languages_on_link(struct hp_exec *exec, uint32_t zygote, uint32_t generation);
void hp_languages_on_timer(struct hp_exec *exec, uint64_t now_us);
void hp_languages_silent(struct hp_exec *exec, uint32_t zygote); /* ends one that is stuck */
void hp_languages_on_errors(struct hp_exec *exec, uint32_t zygote, uint32_t generation);

/* function.c */
/* Lets the child claim what was written, and wakes it if it sleeps. */
void hp_kid_publish(struct hp_kid *kid);
/* Writes a record behind the others and enters it in the queue, unpublished. */
enum hp_err hp_kid_push(struct hp_kid *kid, const struct hp_exec_call *call, uint32_t function,
                        uint32_t flags) HP_MUST_CHECK;
/* Index of a function's name, or HP_CALL_UNKNOWN. */
uint32_t hp_kid_function(struct hp_exec *exec, struct hp_str name);
bool hp_kid_is_accepting(const struct hp_exec *exec, const struct hp_kid *kid);
void hp_kid_signal(struct hp_exec *exec, const struct hp_kid *kid, int number);

/* kid.c */
enum hp_err hp_kids_init(struct hp_exec *exec) HP_MUST_CHECK;
void hp_kids_deinit(struct hp_exec *exec);
/* What zygote `zygote` says; 0: the native one. */
void hp_kids_on_message(struct hp_exec *exec, uint32_t zygote, struct hp_control_in *in);
void hp_kids_on_socket(struct hp_exec *exec, uint32_t index, uint32_t generation);
void hp_kids_on_pipe(struct hp_exec *exec, int stream, uint32_t index, uint32_t generation);
void hp_kids_on_wake(struct hp_exec *exec);
void hp_kids_on_timer(struct hp_exec *exec, uint64_t now_us);
void hp_kids_on_lost(struct hp_exec *exec, const char *text);
/* The zygote of these pool children is gone. */
void hp_kids_on_zygote_lost(struct hp_exec *exec, uint32_t zygote, const char *text);
/* A clean page and queue, descriptors, and the word to its zygote. */
enum hp_err hp_kid_start(struct hp_exec *exec, struct hp_kid *kid) HP_MUST_CHECK;
/* It runs no call and is to end: it has config.quit_ms for it. */
void hp_kid_limit_end(struct hp_exec *exec, struct hp_kid *kid);
/* Ends a child in order once it has ended what it holds. */
void hp_kid_quit(struct hp_exec *exec, struct hp_kid *kid);
/* Reads all that the child has printed so far. */
void hp_kid_drain(struct hp_exec *exec, struct hp_kid *kid);
/* What a pool child has printed since the last call of this, in one piece each. */
void hp_kid_take_printed(struct hp_exec *exec, struct hp_kid *kid, struct hp_bin ret[2]);
/* All that a child's end brings about; `msg` is what the zygote said. */
void hp_kid_ended(struct hp_exec *exec, struct hp_kid *kid, const struct hp_control_msg *msg);
/* Tells that the child can take calls. */
void hp_kid_tell_ready(struct hp_exec *exec, struct hp_kid *kid);
void hp_kid_close(struct hp_kid *kid);
/* The last bytes of a stream in one piece; `out` has room for its cap. */
struct hp_str hp_kid_tail_text(const struct hp_tail *tail, char *out);

/* pool_kid.c */
/* Its end, told to the daemon; the slot is free afterwards. */
void hp_kid_pool_ended(struct hp_exec *exec, struct hp_kid *kid, struct hp_exec_child_end *end);
/* It could not be forked. */
void hp_kid_not_started(struct hp_exec *exec, struct hp_kid *kid, const char *text);
/* Looks whether it says that it waits. */
void hp_kid_look_waits(struct hp_exec *exec, struct hp_kid *kid);
/* A pool child's set-up has ended. */
void hp_kid_set_up(struct hp_exec *exec, struct hp_kid *kid, bool is_ok, struct hp_str text);

/* results.c: the daemon's end of a child's rings */
struct hp_kid_call *hp_kid_call_at(struct hp_kid *kid, uint32_t offset);
struct hp_kid_call hp_kid_pop_front(struct hp_kid *kid);
struct hp_kid_call hp_kid_pop_back(struct hp_kid *kid);
enum hp_err hp_kid_grow(struct hp_kid *kid) HP_MUST_CHECK;
/* Calls claimed and not yet reported: 0 or more; what shared memory says is checked. */
uint32_t hp_kid_claimed(const struct hp_kid *kid);
/* Lowers the limit so that the child may claim at most `keep` of the calls it has not claimed;
 * the rest counts as unpublished. */
void hp_kid_freeze(struct hp_kid *kid, uint32_t keep);
/* Reads results, at most `budget`, and calls call_done. Sets is_pending if some are left. Returns
 * how many; UINT32_MAX: shared memory is damaged. */
uint32_t hp_kid_take_results(struct hp_exec *exec, struct hp_kid *kid, uint32_t budget);
/* Receives what is on the socket. False: the child is gone. */
bool hp_kid_take_bells(struct hp_kid *kid);
/* Wakes the child if it sleeps for `reason` (0: any). */
void hp_kid_wake(struct hp_kid *kid, uint32_t reason);

#endif
