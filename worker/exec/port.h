/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The child's end of the rings (ring.h): calls come in, their ends go out. child.c runs C functions
 * upon it, a language's extension its own interpreter. One thread uses a port.
 *
 * No system call per call while there is work, but for the clock where that is one. A result is in
 * shared memory before the next call is claimed, so whatever the next one does to the process, it
 * stands.
 */
#ifndef HP_EXEC_PORT_H
#define HP_EXEC_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bin.h"
#include "worker/exec/exec.h"
#include "worker/exec/ring.h"

struct hp_port;

struct hp_port_call {
    bool is_init;           /* not a call: the payload is what the child is to be set up with */
    bool is_items;          /* the payload is an array of payloads: see hp_exec_call.is_items */
    struct hp_bin payload;  /* lent until hp_port_done */
    int payload_fd;         /* not -1: the payload is in this file instead; the taker closes it */
    uint64_t payload_bytes; /* its size, either way */
    uint64_t task_id;
    uint64_t epoch;
    uint64_t array_index;
    uint64_t pool;
    uint32_t attempt;
    uint32_t function; /* zygote 0: index of the function, or HP_CALL_UNKNOWN */
};

/* Takes the descriptor over. NULL: no memory. */
struct hp_port *hp_port_new(int socket_fd, struct hp_child_shared *shared,
                            uint64_t result_cap_bytes);

/*
 * The next call: 1. 0: none (only without may_block, or when a signal came). -1: the child is to
 * end in order (the daemon said so). -2: the daemon is gone, nobody wants the results.
 * After a call it must be ended by hp_port_done before the next is asked for. In a process that a
 * call has forked, the daemon is gone from the start.
 */
int hp_port_next(struct hp_port *port, struct hp_port_call *ret_call, bool may_block);

/*
 * Ends the current call with what the pieces are together: the result, or with ERROR and PERMANENT
 * bytes that go along with the text (which is cut at 4096). What is over the inline limit goes by a
 * memfd. TOO_BIG is said by itself when the cap is passed. 0, or an errno; EPIPE: the daemon is
 * gone.
 */
int hp_port_done(struct hp_port *port, enum hp_exec_call_status status, const char *text,
                 size_t text_bytes, const struct hp_bin *data, size_t data_count,
                 uint64_t retry_ms);
/* The same with a memfd that the caller filled, of `bytes`; it stays the caller's. */
int hp_port_done_fd(struct hp_port *port, enum hp_exec_call_status status, const char *text,
                    size_t text_bytes, int fd, uint64_t bytes, uint64_t retry_ms);

/* The running call waits for other tasks (or not any more): others may run in its place. */
void hp_port_waits(struct hp_port *port, bool waits);

/* Its socket, which the runtime must not close. */
int hp_port_fd(const struct hp_port *port);
/* Bytes above which a result is HP_EXEC_CALL_TOO_BIG. */
uint64_t hp_port_result_cap(const struct hp_port *port);

#endif
