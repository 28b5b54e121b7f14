/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clients of other queue servers, each spoken by hand and pipelined, so that a server is measured
 * and not a library. peer.c has the loads; a protocol is a table of functions.
 *
 * gearmand returns results by itself. beanstalkd and redis lists have none: a worker puts the
 * result in a second queue and the submitter takes it from there, the usual pattern.
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a connection is for. */
enum peer_role { PEER_SUBMITTER, PEER_COLLECTOR, PEER_WORKER };

/* A connection with what was read and not parsed (in[in_at..in_size)), and what is to be written.
 */
struct peer_conn {
    int fd;
    enum peer_role role;
    char *in;
    size_t in_at;
    size_t in_size;
    size_t in_room;
    char *out;
    size_t out_size;
    size_t out_room;
    unsigned fetch; /* jobs that a worker or collector asks for at a time */
    unsigned asked; /* gearmand: grabs without an answer */
    unsigned left;  /* redis: elements of this answer still to come */
    unsigned batch; /* redis: elements of this answer */
};

enum peer_kind {
    PEER_ACK,   /* a submit is acknowledged */
    PEER_JOB,   /* a job for a worker; a result for a submitter or collector */
    PEER_NONE,  /* gearmand: no job now */
    PEER_WAKE,  /* gearmand: there may be jobs */
    PEER_OTHER, /* of no meaning here */
};

/* Parsed; pointers are into the connection's buffer, until more is read. */
struct peer_message {
    enum peer_kind kind;
    const char *id;
    size_t id_size;
    const char *data;
    size_t size;
};

struct peer_protocol {
    const char *name;
    bool has_results; /* results come to the submitter unasked */
    void (*start)(struct peer_conn *conn);
    /* Takes one message off the input; false: it is not whole yet. */
    bool (*parse)(struct peer_conn *conn, struct peer_message *ret_message);
    void (*submit)(struct peer_conn *conn, const char *data, size_t size);
    /* A worker: does what the message asks for: echoes a job, asks for the next one. */
    void (*work)(struct peer_conn *conn, const struct peer_message *message);
    /* A collector (NULL if has_results): asks for results, and is done with one. */
    void (*ask)(struct peer_conn *conn);
    void (*settle)(struct peer_conn *conn, const struct peer_message *message);
};

extern const struct peer_protocol peer_beanstalkd;
extern const struct peer_protocol peer_gearmand;
extern const struct peer_protocol peer_redis;

/* Of peer_conn.c. */
struct peer_conn *peer_open(const struct peer_protocol *protocol, uint16_t port,
                            enum peer_role role, unsigned fetch);
void peer_put(struct peer_conn *conn, const void *data, size_t size);
void peer_puts(struct peer_conn *conn, const char *text);
__attribute__((format(printf, 2, 3))) void peer_printf(struct peer_conn *conn, const char *format,
                                                       ...);
void peer_flush(struct peer_conn *conn);
/* Reads once; ends the program at the end of the stream. */
void peer_fill(struct peer_conn *conn);
/* The next message, waited for. */
void peer_next(const struct peer_protocol *protocol, struct peer_conn *conn,
               struct peer_message *ret_message);
/* Past the next "\r\n" from `at` on, or NULL. */
const char *peer_line(const char *at, const char *end);

#endif
