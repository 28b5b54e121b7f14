/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the shell share: the client object (engine plus socket) and the one way in
 * which blocking calls wait.
 */
#ifndef HP_CLIENT_SHELL_H
#define HP_CLIENT_SHELL_H

#include <sys/types.h>

#include "client/call.h"
#include "client/engine.h"
#include "common/base/arena.h"
#include "common/base/err.h"

struct addrinfo;
struct hp_hub;

#define HP_CLIENT_TEXT_BYTES 1024
#define HP_CLIENT_READ_BYTES (256u << 10)

struct hp_client {
    struct hp_engine *engine; /* NULL: the options were bad */
    uint64_t process;         /* hp_fork_mark of the one that made it */
    int fd;
    bool connecting;
    char *host; /* name or address */
    char *port;
    char *display;                  /* HOST:PORT */
    struct addrinfo *addresses;     /* of the attempt under way */
    const struct addrinfo *address; /* the one being tried */
    uint32_t timeout_ms;
    uint8_t *read_buffer; /* HP_CLIENT_READ_BYTES, made at the first read */
    char error_text[HP_CLIENT_TEXT_BYTES];
    char server_text[HP_CLIENT_TEXT_BYTES];
    /* Set by a hub: what hp_client_pump does instead. */
    enum hp_status (*pump)(struct hp_client *client, uint64_t deadline_ms);
    struct hp_hub *hub;
};

/* Where the broker is: from the options or the environment. */
enum hp_status hp_host_parse(struct hp_client *client, const char *text);
/* The token of the options or the environment; *ret_token is owned, or NULL. */
enum hp_status hp_client_token_read(struct hp_client *client,
                                    const struct hp_client_options *options, char **ret_token);

/* Keeps the text for hp_client_error and returns the status. */
enum hp_status hp_client_fail(struct hp_client *client, enum hp_status status, const char *format,
                              ...) HP_PRINTF(3, 4);
/* The same with the engine's text. */
enum hp_status hp_client_fail_engine(struct hp_client *client, enum hp_status status);
/* In a child after fork: start afresh. Errors: SYSTEM. Every public function begins with it. */
enum hp_status hp_client_check(struct hp_client *client);

/* Absolute time of a timeout argument; HP_ENGINE_NEVER: none. */
uint64_t hp_client_deadline_ms(const struct hp_client *client, int64_t timeout_ms);
/*
 * Waits for the socket, or a deadline of the engine, or `deadline_ms`; then processes once. TIMEOUT
 * or UNREACHABLE: the deadline was over before. Lasting troubles (DENIED ...) are returned as well.
 */
enum hp_status hp_client_pump(struct hp_client *client, uint64_t deadline_ms);
/* What a call says whose deadline is over. */
enum hp_status hp_client_late(struct hp_client *client);

/* Decodes an answer; it may fail with NO_MEMORY, PROTOCOL or a status of its own. */
typedef enum hp_status (*hp_decode_fn)(void *context, const struct hp_reply *reply);
/*
 * A whole blocking call: sends, waits, repeats while the broker is busy. `err` is that of encoding
 * params, which are freed in any case.
 */
enum hp_status hp_client_call(struct hp_client *client, enum hp_method method, enum hp_err err,
                              struct hp_buf *params, uint64_t deadline_ms, hp_decode_fn decode,
                              void *context);

/* A result that owns its memory; hp_result_free. */
struct hp_owned_result {
    struct hp_arena arena;
    struct hp_end end;
    struct hp_buffer buffer;     /* fetched bytes that result.value points to, or none */
    struct hp_buffer err_buffer; /* the same of result.err */
    struct hp_result result;
};
struct hp_result *hp_result_copy(const struct hp_task *task);
/* Fetches what is in blobs, checks digests, sets value and err. */
enum hp_status hp_result_complete(struct hp_client *client, struct hp_result *result,
                                  uint64_t deadline_ms);
/* A whole blob, its digest checked; hp_buffer_clear. */
enum hp_status hp_blob_fetch(struct hp_client *client, uint64_t blob, uint64_t deadline_ms,
                             struct hp_buffer *ret_buffer);

/* Ids in chunks of what one request may ask about. */
struct hp_id_cursor {
    const struct hp_ids *ids;
    size_t count;
    size_t index;    /* of the range */
    uint32_t offset; /* in the range */
};
/* Up to range_max ranges with at most id_max ids into `ranges`; returns how many, 0 at the end. */
size_t hp_id_cursor_next(struct hp_id_cursor *cursor, struct hp_ids *ranges, size_t range_max,
                         uint64_t id_max);

#endif
