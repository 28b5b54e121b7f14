/* SPDX-License-Identifier: BSD-2-Clause */
/* What server.c, start.c and admin.c share. Not for others. */
#ifndef HP_SERVER_SERVER_IMPL_H
#define HP_SERVER_SERVER_IMPL_H

#include "common/net/listener.h"
#include "common/net/loop.h"
#include "server/config.h"
#include "server/core/core.h"
#include "server/datadir.h"
#include "server/peers.h"
#include "server/server.h"
#include "server/store/blob.h"
#include "server/store/store.h"
#include "server/store/thread.h"
#include "server/turn.h"

struct hp_server {
    struct hp_config config;
    const struct hp_command_line *line;
    struct hp_datadir dir;
    struct hp_loop *loop;
    struct hp_listener *listener;
    struct hp_store *store; /* until the store thread owns it */
    struct hp_core *core;
    struct hp_turn *turn;
    struct hp_store_thread *thread;
    struct hp_blobs *blobs;
    struct hp_peers *peers;
    struct hp_signal *signals[3];
    struct hp_timer *watchdog;
    uint64_t watchdog_ms;
    uint32_t near_files_max; /* descriptors of content; 0: none is handed over by descriptor */
    int near_fd;             /* its proof, or -1 */
    uint8_t near_proof[HP_CONN_KEY_BYTES];
    uint64_t started_ms;
    uint64_t epoch;
    uint64_t last_batch;
    uint64_t recovered;   /* records */
    bool is_marked;       /* the data folder says that we run */
    atomic_bool keep_log; /* it may say so, of us or of one that crashed: the log must be there */
    bool is_thread_stopped;
    bool is_stop_asked;
    bool is_reload_asked;
};

/* start.c: all parts in order; on an error what was made is left for hp_server_deinit_. */
enum hp_err hp_server_start_(struct hp_server *server, struct hp_error *reterr) HP_MUST_CHECK;
/* Frees all parts, in the reverse order; half-made ones are fine. */
void hp_server_deinit_(struct hp_server *server);
/* The warning about traffic in the clear, or NULL. */
const char *hp_server_warning_(const struct hp_config *config);

/* Takes the mark that we run away, so that the log may go, too, when the store is closed. */
enum hp_err hp_server_unmark_(struct hp_server *server, struct hp_error *reterr) HP_MUST_CHECK;

/* admin.c: answers a line of text admin; `context` is the server. */
bool hp_server_on_text_(void *context, struct hp_str line, struct hp_buf *out);

#endif
