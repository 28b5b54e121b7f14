/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small broker on a socket, on a thread of its own, for tests of the hub. The first byte of a
 * payload says what becomes of a task: 'e' ends at once, its result is its payload; 'b' the same
 * with a result in a blob; 'h' is held until the broker restarts, then it ends if it is durable and
 * is unknown if not; 'r' is refused with its message.
 */
#ifndef HP_TEST_HUB_FAKE_H
#define HP_TEST_HUB_FAKE_H

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/base/arena.h"
#include "common/base/assert.h"
#include "common/base/buf.h"
#include "common/base/mem.h"
#include "proto/hp_msg.h"
#include "proto/rpc.h"
#include "proto/tokenizer.h"
#include "proto/wire.h"

#define FAKE_TASKS 400000u
#define FAKE_BLOB_BYTES 1000003u

enum fake_fate { FAKE_ENDED = 1, FAKE_HELD = 2, FAKE_HELD_VOLATILE = 3, FAKE_UNKNOWN = 4 };

struct hub_fake {
    int listen_fd;
    int fd;
    char host[64];
    pthread_t thread;
    atomic_bool stop;
    atomic_bool restart;    /* drop the line and forget what is not durable, once */
    atomic_bool deny;       /* each hello */
    atomic_bool ends_first; /* ends leave before the answer to the submit, as after a reconnect */
    atomic_uint denied_count;
    atomic_uint hello_count;
    atomic_uint message_count; /* of task.submit */
    atomic_uint put_count;     /* blob.put */
    atomic_uint end_count;     /* pool.end and pool.detach */
    uint64_t next_id;
    uint64_t last_number;
    uint8_t session[16];
    uint8_t *fates;
    uint8_t *blob;
    size_t blob_size;
    uint64_t blob_id;
    struct hp_buf in;
    struct hp_buf out;
    struct hp_buf events;
    struct hp_arena arena;
    struct hp_wire *wire;
};

#define FAKE_OK(expression) HP_ASSERT((expression) == HP_OK)

static inline void hub_fake_end(struct hub_fake *fake, uint64_t id, struct hp_bin payload)
{
    struct hp_msg_task_event event;
    struct hp_st_task_status status;

    hp_msg_task_event_init(&event);
    hp_st_task_status_init(&status);
    event.events.items = &status;
    event.events.count = 1;
    event.has = HP_HAS_TASK_EVENT_EVENTS;
    status.id = id;
    status.state = HP_TASK_STATE_DONE;
    status.has = HP_HAS_ST_TASK_STATUS_END;
    hp_st_task_end_init(&status.end);
    if (payload.size > 0 && payload.data[0] == 'b') {
        status.end.result_blob = 77;
        status.end.has = HP_HAS_ST_TASK_END_RESULT_BLOB;
    } else {
        status.end.result = payload;
        status.end.has = HP_HAS_ST_TASK_END_RESULT;
    }
    FAKE_OK(hp_rpc_put_notify(&fake->events, HP_METHOD_TASK_EVENT));
    FAKE_OK(hp_msg_task_event_encode(&fake->events, &event));
}

static inline void hub_fake_submit(struct hub_fake *fake, const struct hp_rpc *rpc)
{
    struct hp_msg_task_submit submit;
    struct hp_msg_task_submit_reply reply;

    FAKE_OK(hp_msg_task_submit_decode(rpc->params, &fake->arena, &submit, NULL));
    HP_ASSERT(submit.number == fake->last_number + 1);
    HP_ASSERT(fake->next_id + submit.payloads.count < FAKE_TASKS);
    fake->last_number = submit.number;
    (void)atomic_fetch_add(&fake->message_count, 1);
    if (submit.payloads.items[0].size > 0 && submit.payloads.items[0].data[0] == 'r') {
        FAKE_OK(hp_rpc_put_error(&fake->out, rpc->msgid, HP_RPC_ERROR_UNSUPPORTED,
                                 HP_STR("not here"), false, 0));
        return;
    }
    hp_msg_task_submit_reply_init(&reply);
    reply.first = fake->next_id;
    reply.count = submit.payloads.count;
    for (uint32_t i = 0; i < submit.payloads.count; i++) {
        struct hp_bin payload = submit.payloads.items[i];
        bool held = payload.size > 0 && payload.data[0] == 'h';

        fake->fates[fake->next_id + i] = !held                    ? FAKE_ENDED
                                         : submit.options.durable ? FAKE_HELD
                                                                  : FAKE_HELD_VOLATILE;
        if (!held) {
            hub_fake_end(fake, fake->next_id + i, payload);
        }
    }
    fake->next_id += submit.payloads.count;
    if (atomic_load(&fake->ends_first)) {
        FAKE_OK(hp_buf_append_buf(&fake->out, &fake->events));
        hp_buf_clear(&fake->events);
    }
    FAKE_OK(hp_rpc_put_reply(&fake->out, rpc->msgid));
    FAKE_OK(hp_msg_task_submit_reply_encode(&fake->out, &reply));
}

static inline void hub_fake_get(struct hub_fake *fake, const struct hp_rpc *rpc)
{
    struct hp_msg_task_get get;
    struct hp_msg_task_get_reply reply;

    FAKE_OK(hp_msg_task_get_decode(rpc->params, &fake->arena, &get, NULL));
    hp_msg_task_get_reply_init(&reply);
    reply.tasks.items = HP_ARENA_NEW_ARRAY(&fake->arena, struct hp_st_task_status, 50000);
    HP_ASSERT(reply.tasks.items != NULL);
    for (uint32_t i = 0; i < get.ranges.count; i++) {
        for (uint32_t j = 0; j < get.ranges.items[i].count; j++) {
            struct hp_st_task_status *status = &reply.tasks.items[reply.tasks.count++];
            uint64_t id = get.ranges.items[i].first + j;

            hp_st_task_status_init(status);
            status->id = id;
            status->state = fake->fates[id] == FAKE_UNKNOWN ? HP_TASK_STATE_UNKNOWN
                            : fake->fates[id] == FAKE_ENDED ? HP_TASK_STATE_DONE
                                                            : HP_TASK_STATE_READY;
        }
    }
    FAKE_OK(hp_rpc_put_reply(&fake->out, rpc->msgid));
    FAKE_OK(hp_msg_task_get_reply_encode(&fake->out, &reply));
}

static inline void hub_fake_hello(struct hub_fake *fake, const struct hp_rpc *rpc)
{
    struct hp_msg_hello hello;
    struct hp_msg_hello_reply reply;

    FAKE_OK(hp_msg_hello_decode(rpc->params, &fake->arena, &hello, NULL));
    if (atomic_load(&fake->deny)) {
        (void)atomic_fetch_add(&fake->denied_count, 1);
        FAKE_OK(hp_rpc_put_error(&fake->out, rpc->msgid, HP_RPC_ERROR_DENIED, HP_STR("not you"),
                                 false, 0));
        return;
    }
    if (memcmp(fake->session, hello.session.data, sizeof(fake->session)) != 0) {
        memcpy(fake->session, hello.session.data, sizeof(fake->session));
        fake->last_number = 0;
    }
    (void)atomic_fetch_add(&fake->hello_count, 1);
    hp_msg_hello_reply_init(&reply);
    reply.server = HP_STR("fake 1");
    reply.version = 1;
    reply.epoch = 1;
    reply.last_number = fake->last_number;
    reply.has = HP_HAS_HELLO_REPLY_LAST_NUMBER;
    FAKE_OK(hp_rpc_put_reply(&fake->out, rpc->msgid));
    FAKE_OK(hp_msg_hello_reply_encode(&fake->out, &reply));
}

static inline void hub_fake_blob(struct hub_fake *fake, const struct hp_rpc *rpc)
{
    struct hp_msg_blob_open open;
    struct hp_msg_blob_open_reply opened;
    struct hp_msg_blob_put put;
    struct hp_msg_blob_put_reply was_put;
    struct hp_msg_blob_get get;
    struct hp_msg_blob_get_reply got;

    FAKE_OK(hp_rpc_put_reply(&fake->out, rpc->msgid));
    if (rpc->method == HP_METHOD_BLOB_OPEN) {
        FAKE_OK(hp_msg_blob_open_decode(rpc->params, &fake->arena, &open, NULL));
        HP_ASSERT(open.size <= FAKE_BLOB_BYTES);
        fake->blob_size = 0;
        hp_msg_blob_open_reply_init(&opened);
        opened.blob = ++fake->blob_id;
        FAKE_OK(hp_msg_blob_open_reply_encode(&fake->out, &opened));
    } else if (rpc->method == HP_METHOD_BLOB_PUT) {
        FAKE_OK(hp_msg_blob_put_decode(rpc->params, &fake->arena, &put, NULL));
        HP_ASSERT(put.blob == fake->blob_id && put.offset == fake->blob_size);
        (void)atomic_fetch_add(&fake->put_count, 1);
        memcpy(fake->blob + put.offset, put.data.data, put.data.size);
        fake->blob_size += put.data.size;
        HP_ASSERT((put.has & HP_HAS_BLOB_PUT_DIGEST) == 0 ||
                  put.digest == XXH3_64bits(fake->blob, fake->blob_size));
        hp_msg_blob_put_reply_init(&was_put);
        was_put.size = fake->blob_size;
        FAKE_OK(hp_msg_blob_put_reply_encode(&fake->out, &was_put));
    } else {
        FAKE_OK(hp_msg_blob_get_decode(rpc->params, &fake->arena, &get, NULL));
        HP_ASSERT(get.offset <= FAKE_BLOB_BYTES);
        hp_msg_blob_get_reply_init(&got);
        got.data =
            hp_bin_make(fake->blob + get.offset, HP_MIN(get.size, FAKE_BLOB_BYTES - get.offset));
        got.size = FAKE_BLOB_BYTES;
        got.digest = XXH3_64bits(fake->blob, FAKE_BLOB_BYTES);
        FAKE_OK(hp_msg_blob_get_reply_encode(&fake->out, &got));
    }
}

/* All tasks have ended, all pools are open until they end. */
static inline void hub_fake_pool(struct hub_fake *fake, const struct hp_rpc *rpc)
{
    struct hp_msg_task_wait wait;
    struct hp_msg_task_wait_reply waited;
    struct hp_st_task_status status;
    struct hp_msg_pool_info_reply info;
    struct hp_msg_pool_end_reply end;

    FAKE_OK(hp_rpc_put_reply(&fake->out, rpc->msgid));
    if (rpc->method == HP_METHOD_TASK_WAIT) {
        FAKE_OK(hp_msg_task_wait_decode(rpc->params, &fake->arena, &wait, NULL));
        hp_msg_task_wait_reply_init(&waited);
        hp_st_task_status_init(&status);
        status.id = wait.ids.items[0];
        status.state = status.id < fake->next_id ? HP_TASK_STATE_DONE : HP_TASK_STATE_UNKNOWN;
        waited.tasks.items = &status;
        waited.tasks.count = 1;
        FAKE_OK(hp_msg_task_wait_reply_encode(&fake->out, &waited));
    } else if (rpc->method == HP_METHOD_POOL_INFO) {
        hp_msg_pool_info_reply_init(&info);
        info.state = HP_POOL_STATE_OPEN;
        info.processes = 3;
        FAKE_OK(hp_msg_pool_info_reply_encode(&fake->out, &info));
    } else {
        hp_msg_pool_end_reply_init(&end);
        end.state = HP_POOL_STATE_CLOSING;
        (void)atomic_fetch_add(&fake->end_count, 1);
        FAKE_OK(hp_msg_pool_end_reply_encode(&fake->out, &end));
    }
}

static inline void hub_fake_frame(struct hub_fake *fake, size_t size)
{
    struct hp_msg_broker_ping_reply ping;
    struct hp_rpc rpc;

    hp_arena_reset(&fake->arena);
    FAKE_OK(hp_rpc_read(fake->wire, fake->in.data, size, &rpc, NULL));
    if (rpc.type != HP_RPC_REQUEST) {
        return;
    }
    switch ((int)rpc.method) {
    case HP_METHOD_HELLO:
        hub_fake_hello(fake, &rpc);
        break;
    case HP_METHOD_TASK_SUBMIT:
        hub_fake_submit(fake, &rpc);
        break;
    case HP_METHOD_TASK_GET:
        hub_fake_get(fake, &rpc);
        break;
    case HP_METHOD_BLOB_OPEN:
    case HP_METHOD_BLOB_PUT:
    case HP_METHOD_BLOB_GET:
        hub_fake_blob(fake, &rpc);
        break;
    case HP_METHOD_TASK_WAIT:
    case HP_METHOD_POOL_INFO:
    case HP_METHOD_POOL_END:
    case HP_METHOD_POOL_DETACH:
        hub_fake_pool(fake, &rpc);
        break;
    default:
        HP_ASSERT(rpc.method == HP_METHOD_BROKER_PING);
        hp_msg_broker_ping_reply_init(&ping);
        ping.now_ms = 1;
        FAKE_OK(hp_rpc_put_reply(&fake->out, rpc.msgid));
        FAKE_OK(hp_msg_broker_ping_reply_encode(&fake->out, &ping));
        break;
    }
}

static inline void hub_fake_drop(struct hub_fake *fake)
{
    if (fake->fd >= 0) {
        (void)close(fake->fd);
    }
    fake->fd = -1;
    hp_buf_clear(&fake->in);
    hp_buf_clear(&fake->out);
    hp_buf_clear(&fake->events);
}

static inline void hub_fake_restart(struct hub_fake *fake)
{
    hub_fake_drop(fake);
    for (uint64_t id = 1; id < fake->next_id; id++) {
        if (fake->fates[id] == FAKE_HELD) {
            fake->fates[id] = FAKE_ENDED;
        } else if (fake->fates[id] == FAKE_HELD_VOLATILE) {
            fake->fates[id] = FAKE_UNKNOWN;
        }
    }
}

static inline void hub_fake_read(struct hub_fake *fake)
{
    struct hp_tok tok;
    uint8_t *at;
    size_t size = 0;
    const char *why;
    ssize_t got;

    FAKE_OK(hp_buf_reserve(&fake->in, 1u << 16, &at));
    got = recv(fake->fd, at, 1u << 16, 0);
    if (got <= 0) {
        hub_fake_drop(fake);
        return;
    }
    hp_buf_commit(&fake->in, (size_t)got);
    hp_tok_init(&tok, &hp_tok_limits_open);
    while (fake->in.size > 0 &&
           hp_tok_scan(&tok, fake->in.data, fake->in.size, &size, &why) == HP_TOK_DONE) {
        hub_fake_frame(fake, size);
        hp_buf_consume(&fake->in, size);
        hp_tok_reset(&tok);
    }
    FAKE_OK(hp_buf_append_buf(&fake->out, &fake->events));
    hp_buf_clear(&fake->events);
}

static inline void hub_fake_write(struct hub_fake *fake)
{
    while (fake->fd >= 0 && fake->out.size > 0) {
        ssize_t sent = send(fake->fd, fake->out.data, fake->out.size, MSG_NOSIGNAL);

        if (sent <= 0) {
            hub_fake_drop(fake);
            return;
        }
        hp_buf_consume(&fake->out, (size_t)sent);
    }
}

static inline void *hub_fake_main(void *context)
{
    struct hub_fake *fake = context;

    while (!atomic_load(&fake->stop)) {
        struct pollfd fds[2] = {{.fd = fake->listen_fd, .events = POLLIN},
                                {.fd = fake->fd, .events = POLLIN}};

        (void)poll(fds, fake->fd >= 0 ? 2 : 1, 5);
        if (atomic_exchange(&fake->restart, false)) {
            hub_fake_restart(fake);
            continue;
        }
        if (fake->fd >= 0 && fds[1].revents != 0) {
            hub_fake_read(fake);
            hub_fake_write(fake);
        }
        if (fds[0].revents != 0) {
            hub_fake_drop(fake); /* one client at a time: the new one counts */
            fake->fd = accept(fake->listen_fd, NULL, NULL);
        }
    }
    hub_fake_drop(fake);
    return NULL;
}

static inline struct hub_fake *hub_fake_new(void)
{
    struct hub_fake *fake = hp_calloc(1, sizeof(*fake));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);

    HP_ASSERT(fake != NULL);
    fake->fd = -1;
    fake->next_id = 1;
    fake->fates = hp_calloc(FAKE_TASKS, 1);
    fake->blob = hp_calloc(FAKE_BLOB_BYTES, 1);
    fake->wire = hp_wire_new();
    HP_ASSERT(fake->fates != NULL && fake->blob != NULL && fake->wire != NULL);
    for (size_t i = 0; i < FAKE_BLOB_BYTES; i++) {
        fake->blob[i] = (uint8_t)(i * 7 >> 2);
    }
    hp_buf_init(&fake->in, 64u << 20);
    hp_buf_init(&fake->out, 64u << 20);
    hp_buf_init(&fake->events, 64u << 20);
    hp_arena_init(&fake->arena, 1u << 16, SIZE_MAX / 8);
    fake->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    HP_ASSERT(bind(fake->listen_fd, (struct sockaddr *)&address, size) == 0 &&
              listen(fake->listen_fd, 8) == 0 &&
              getsockname(fake->listen_fd, (struct sockaddr *)&address, &size) == 0);
    (void)snprintf(fake->host, sizeof(fake->host), "127.0.0.1:%u", ntohs(address.sin_port));
    HP_ASSERT(pthread_create(&fake->thread, NULL, hub_fake_main, fake) == 0);
    return fake;
}

static inline void hub_fake_free(struct hub_fake *fake)
{
    atomic_store(&fake->stop, true);
    (void)pthread_join(fake->thread, NULL);
    (void)close(fake->listen_fd);
    hp_buf_deinit(&fake->in);
    hp_buf_deinit(&fake->out);
    hp_buf_deinit(&fake->events);
    hp_arena_deinit(&fake->arena);
    hp_wire_free(fake->wire);
    hp_free(fake->fates);
    hp_free(fake->blob);
    hp_free(fake);
}

#endif
