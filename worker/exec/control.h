/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The link between the daemon and a helper process: datagrams (SOCK_SEQPACKET) of one fixed struct,
 * optional text behind it, and descriptors. Both ends are the same program, so the struct is sent
 * as it is. Neither end ever blocks on it: what can not be sent waits in a queue (a stopped daemon
 * must not keep the helper from killing).
 */
#ifndef HP_EXEC_CONTROL_H
#define HP_EXEC_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/list.h"

#define HP_CONTROL_FDS_MAX 4
#define HP_CONTROL_TEXT_BYTES_MAX 16384

enum hp_control_type {
    /* daemon to helper */
    HP_CONTROL_SPAWN =
        1,           /* fds: stdin if any, stdout, stderr, the spec if it is not the text; slot:
                        how many descriptors (the kernel drops those it has no room for) */
    HP_CONTROL_FORK, /* fds: socket, stdout, stderr; slot */
    HP_CONTROL_KILL, /* id, value: the signal */
    HP_CONTROL_WAKE, /* look at the deadline again */
    HP_CONTROL_ASK,  /* give a sign of life */
    /* helper to daemon */
    HP_CONTROL_READY,   /* fds: memfd of hp_modules_pack; value: 0, or 1: text says what is wrong */
    HP_CONTROL_STARTED, /* id, pid */
    HP_CONTROL_FAILED,  /* id, value: errno, text: for people */
    HP_CONTROL_ENDED,   /* id, pid, value: exit code or signal, flags, usage */
    HP_CONTROL_ALIVE    /* the answer to ASK */
};

enum {
    HP_CONTROL_FLAG_SIGNALED = 1,          /* ENDED: value is a signal */
    HP_CONTROL_FLAG_FENCED = 2,            /* ENDED: the dead-man's switch killed it */
    HP_CONTROL_FLAG_KILLED = 4,            /* ENDED: a KILL message named it */
    HP_CONTROL_FLAG_KILL_ON_PARTITION = 8, /* SPAWN */
    HP_CONTROL_FLAG_SPEC_FD = 16           /* SPAWN: the spec is in a descriptor */
};

struct hp_control_msg {
    uint32_t type;
    uint32_t flags;
    uint64_t id;
    int32_t pid;
    int32_t value;
    uint32_t slot;
    uint32_t text_bytes; /* bytes behind the struct */
    uint64_t spec_bytes;
    uint64_t run_us;
    uint64_t utime_us;
    uint64_t stime_us;
    uint64_t maxrss_kb;
};

struct hp_control {
    int fd;
    struct hp_list queue; /* messages which did not fit */
    bool is_closed;       /* the peer is gone */
};

/* A received message; the descriptors are the receiver's to close (or to set to -1). */
struct hp_control_in {
    struct hp_control_msg msg;
    const char *text; /* msg.text_bytes bytes and a NUL; valid until the next receive */
    int fds[HP_CONTROL_FDS_MAX];
    uint32_t fd_count;
};

/* Takes the descriptor over. */
void hp_control_init(struct hp_control *control, int fd);
void hp_control_deinit(struct hp_control *control);

/*
 * Sends, or queues with duplicates of the descriptors, which stay the caller's. msg->text_bytes
 * bytes of text. HP_ERR_CLOSED: the peer is gone. HP_ERR_NOMEM, HP_ERR_IO (no descriptor for a
 * duplicate).
 */
enum hp_err hp_control_send(struct hp_control *control, const struct hp_control_msg *msg,
                            const void *text, const int *fds, uint32_t fd_count) HP_MUST_CHECK;

/* Sends what is queued, as far as it goes. True if something is left (wait for writable). */
bool hp_control_flush(struct hp_control *control);

/* The next message: HP_OK; HP_ERR_AGAIN: none; HP_ERR_CLOSED: the peer is gone or sent rubbish. */
enum hp_err hp_control_receive(struct hp_control *control, struct hp_control_in *ret) HP_MUST_CHECK;

/* Closes the descriptors of a message that were not taken. */
void hp_control_in_close(struct hp_control_in *in);

#endif
