/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the daemon and one function child share: a page with the claim word and the positions, and
 * two rings of records, calls to the child and results back. All of it is mapped before the helpers
 * are forked, from a memfd that language zygotes get, too; a child keeps nothing but its own part.
 *
 * I1: a call belongs to the child once the child has claimed it, by raising `claimed` of the claim
 * word from below `limit`; until then the daemon may take it back, by lowering `limit`, and write
 * others in its place. So the child reads no record before its claim. I2: at most one claimed call
 * has no result record: after a death it is the one that ran. I3: a record never wraps: one that
 * does not fit behind the last one is put at the ring's start, after a record of kind HP_RING_PAD.
 * Positions count bytes for ever, modulo 2^64. I4: the daemon trusts nothing that is in shared
 * memory: its own positions are copies of its own, and every size and index is checked (a crashing
 * child may have written anywhere).
 */
#ifndef HP_EXEC_RING_H
#define HP_EXEC_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/exec/exec.h"

#define HP_RING_BYTES (256u * 1024u)
#define HP_RING_ALIGN 16u
#define HP_RING_PAD 0u
#define HP_RING_ITEM 1u
#define HP_CALL_UNKNOWN UINT32_MAX     /* nobody exports the function */
#define HP_CALL_VOID (UINT32_MAX - 1u) /* taken back from the middle of the queue: runs nothing */
#define HP_CHILD_TEXT_BYTES_MAX 4096u

/* Each group is written by one side only and has a cache line of its own. */
struct hp_child_page {
    _Alignas(64) _Atomic uint64_t claim; /* both: claimed << 32 | limit, both counted modulo 2^32 */
    _Alignas(64) _Atomic uint64_t start_us; /* child: start of the last claimed call */
    _Atomic uint64_t call_tail;             /* child: it has done with the call ring up to here */
    _Atomic uint64_t result_head;           /* child: results are written up to here */
    _Atomic uint64_t rss_kb;                /* child: its memory, when last looked at */
    _Atomic uint32_t child_sleeps;          /* both: the child waits for a bell */
    _Atomic uint32_t waits;                 /* child: its call waits for other tasks */
    _Alignas(64) _Atomic uint64_t result_tail; /* daemon: results are read up to here */
    _Atomic uint32_t daemon_armed;      /* both: the daemon wants a bell at the next result */
    _Atomic uint32_t kill_on_partition; /* daemon: the dead-man's switch kills the child */
    _Atomic uint32_t captures;          /* daemon: output is to be told by the call */
    _Atomic uint32_t is_reading;        /* daemon: it reads output now, read_bytes is old */
    _Atomic uint64_t pool;              /* daemon: of a pool child, before it is forked */
    _Atomic uint64_t read_bytes;        /* daemon: output read so far, both streams */
};

/* Head of a call record; function and payload follow. One cache line, as that of a result. */
struct hp_call_record {
    uint32_t kind;
    uint32_t record_bytes; /* with this head, rounded up */
    uint32_t function;     /* index of the name, or HP_CALL_X */
    uint32_t payload_bytes;
    uint64_t fd_id;    /* not 0: the payload is in the descriptor sent with this id */
    uint64_t fd_bytes; /* its size */
    uint64_t task_id;
    uint64_t epoch;
    uint64_t array_index;
    uint32_t attempt;
    uint32_t flags; /* HP_CALL_FLAG_X */
};

#define HP_CALL_FLAG_INIT 1u  /* not a call: what a pool child is set up with */
#define HP_CALL_FLAG_ITEMS 2u /* the payload is an array of payloads: see hp_exec_call.is_items */

/* Head of a result record; text and then the result follow. */
struct hp_result_record {
    uint32_t kind;
    uint32_t record_bytes;
    uint32_t status;     /* enum hp_exec_call_status */
    uint32_t data_bytes; /* text and result */
    uint32_t text_bytes; /* at the front of them */
    uint32_t flags;      /* HP_RESULT_FLAG_X */
    uint64_t fd_id;      /* not 0: the result is in the descriptor sent with this id */
    uint64_t result_bytes;
    uint64_t retry_ms;
    uint64_t start_us;
    uint64_t run_us;
};

#define HP_RESULT_FLAG_PRINTED 1u /* there is output; the child waits until it has been read */

/* One child's part of the shared mapping. */
struct hp_child_shared {
    struct hp_child_page page;
    _Alignas(4096) uint8_t calls[HP_RING_BYTES];
    _Alignas(4096) uint8_t results[HP_RING_BYTES];
};

/* What helpers and the daemon share besides: a page at the front of the mapping. */
struct hp_exec_shared {
    _Alignas(4096) _Atomic uint64_t deadline_ms; /* CLOCK_BOOTTIME; 0: off */
};

/* Datagrams on the socket between daemon and child. */
enum hp_bell_type { HP_BELL_RING = 1, HP_BELL_FD = 2, HP_BELL_QUIT = 3 };

struct hp_bell {
    uint32_t type;
    uint32_t reserved;
    uint64_t fd_id; /* FD: the id by which a record names the descriptor; they grow */
};

static inline uint32_t hp_claim_claimed(uint64_t claim)
{
    return (uint32_t)(claim >> 32);
}

static inline uint32_t hp_claim_limit(uint64_t claim)
{
    return (uint32_t)claim;
}

static inline uint64_t hp_claim_make(uint32_t claimed, uint32_t limit)
{
    return (uint64_t)claimed << 32 | limit;
}

/*
 * Where a record of `bytes` (a multiple of HP_RING_ALIGN) goes in a ring: the position behind which
 * it is to be written, after the pad it needs. False: no room up to `tail`. The pad is not yet
 * written.
 */
bool hp_ring_place(uint64_t head, uint64_t tail, uint32_t bytes, uint64_t *ret_at);

/* Writes the pad between `head` and `at` of hp_ring_place, if there is one. */
void hp_ring_pad(uint8_t *ring, uint64_t head, uint64_t at);

static inline uint32_t hp_ring_round(size_t bytes)
{
    return (uint32_t)((bytes + HP_RING_ALIGN - 1) / HP_RING_ALIGN * HP_RING_ALIGN);
}

/* Sends a bell with a descriptor (-1: none). Does not block if asked. 0 or an errno. */
int hp_bell_send(int socket_fd, const struct hp_bell *bell, int fd, bool is_blocking);

/* Receives one: 1 and *ret_fd (-1: none); 0: nothing there, or, if it blocks, a signal came; -1:
 * peer gone. */
int hp_bell_receive(int socket_fd, struct hp_bell *ret_bell, int *ret_fd, bool is_blocking);

#endif
