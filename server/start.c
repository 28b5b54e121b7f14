/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Starting. The order matters: the lock before anything of the data folder is touched; the ports
 * before the database is made, so that a start that fails leaves nothing; the database recovered
 * before the first peer is heard.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/sys/clock.h"
#include "common/sys/file.h"
#include "common/sys/log.h"
#include "common/sys/near.h"
#include "common/sys/proc.h"
#include "common/sys/random.h"
#include "server/server_impl.h"

#define FILES_BESIDE_CONNECTIONS 128u
#define NEAR_FILES_MAX 1250u /* content kept for peers, and lent to them */
#define NEAR_SHARE 4u        /* where files are few: one of so many */
#define BATCH_OPS_MAX 5000u
#define BATCH_BYTES_MAX (4u << 20)
#define EXIT_STORE_FAILED 70 /* EX_SOFTWARE: restart me, the disk has the truth */

const char *hp_server_warning_(const struct hp_config *config)
{
    return config->listens_beyond_loopback
               ? "traffic is not encrypted: the token, payloads and results cross the network in "
                 "the clear"
               : NULL;
}

static void on_conn(struct hp_listener *listener, struct hp_conn *conn, void *context)
{
    struct hp_server *server = context;
    (void)listener;
    hp_peers_add(server->peers, conn);
}

static void on_refused(struct hp_listener *listener, const char *peer, const char *reason,
                       void *context)
{
    (void)listener;
    (void)context;
    hp_log(HP_LOG_WARN, "conn_refused", HP_KV_STR("peer", peer), HP_KV_STR("reason", reason));
}

static enum hp_err listen_on(struct hp_server *server, const struct hp_endpoint *endpoint,
                             struct hp_error *reterr)
{
    struct hp_addr addrs[8];
    size_t count = 0;
    enum hp_err err =
        hp_endpoint_resolve(endpoint, true, addrs, HP_COUNT_OF(addrs), &count, reterr);
    for (size_t i = 0; i < count && err == HP_OK; i++) {
        err = hp_listener_add(server->listener, &addrs[i], reterr);
    }
    return err;
}

/* Connections must leave descriptors for the database, its files, blobs and what is handed over. */
static void bound_connections(struct hp_server *server, struct hp_listener_options *options)
{
    uint64_t near_files = hp_config_near(&server->config) ? NEAR_FILES_MAX : 0;
    uint64_t beside = FILES_BESIDE_CONNECTIONS + near_files;
    uint64_t wanted = (uint64_t)options->conn_count_max + beside;
    uint64_t files = 0;
    if (hp_proc_raise_nofile(wanted, &files) == HP_OK && files < wanted) {
        near_files = HP_MIN(near_files, files / NEAR_SHARE);
        beside = FILES_BESIDE_CONNECTIONS + near_files;
        uint64_t left = files > 2 * beside ? files - beside : (files - near_files) / 2;
        options->conn_count_max = (uint32_t)HP_MIN(left, (uint64_t)options->conn_count_max);
        hp_log(HP_LOG_WARN, "few_files", HP_KV_U64("open_files", files),
               HP_KV_U64("connections", options->conn_count_max));
    }
    server->near_files_max = (uint32_t)near_files;
}

/* The proof that a peer is on this host. Without it the bytes go over the connections. */
static void start_near(struct hp_server *server)
{
    if (server->near_files_max == 0) {
        return;
    }
    enum hp_err err = hp_random_fill(server->near_proof, sizeof(server->near_proof));
    if (err == HP_OK) {
        err = hp_near_proof_new(server->near_proof, &server->near_fd);
    }
    if (err != HP_OK) {
        server->near_files_max = 0;
        hp_log(HP_LOG_WARN, "near_off", HP_KV_ERR("error", err));
    }
}

static enum hp_err start_listener(struct hp_server *server, struct hp_error *reterr)
{
    static const struct hp_listener_handlers handlers = {.on_conn = on_conn,
                                                         .on_refused = on_refused};
    struct hp_listener_options options;
    hp_listener_options_init(&options);
    options.conn_count_max = hp_config_connections(&server->config);
    options.conn_count_max_per_host = hp_config_connections_per_host(&server->config);
    options.conn.output_high_bytes = (size_t)hp_config_output_bytes(&server->config);
    options.conn.output_bytes_max =
        HP_MAX(options.conn.output_bytes_max, 16 * options.conn.output_high_bytes);
    bound_connections(server, &options);
    server->listener = hp_listener_new(server->loop, &options, &handlers, server);
    if (server->listener == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, "cannot make the listener");
    }
    hp_listener_pause(server->listener, true);
    for (uint32_t i = 0; i < server->config.listen_count; i++) {
        enum hp_err err = listen_on(server, &server->config.listen[i], reterr);
        if (err != HP_OK) {
            return err;
        }
    }
    return HP_OK;
}

static enum hp_err start_core(struct hp_server *server, struct hp_error *reterr)
{
    const struct hp_config *config = &server->config;
    struct hp_core_config core_config;
    hp_core_config_init(&core_config);
    core_config.server = "hostpoold " HP_VERSION;
    core_config.token = config->token[0] != '\0' ? config->token : NULL;
    core_config.warning = hp_server_warning_(config);
    core_config.lease_ms = hp_config_lease_ms(config);
    core_config.heartbeat_ms = hp_config_heartbeat_ms(config);
    core_config.age_step_ms = hp_config_age_step_ms(config);
    core_config.prehello_ms = hp_config_hello_ms(config);
    core_config.window_runs = hp_config_lane_window(config);
    core_config.window_bytes = hp_config_payload_cache_bytes(config);
    core_config.volatile_bytes_max = hp_config_volatile_bytes(config);
    core_config.backlog_ops_max = hp_config_backlog_ops(config);
    core_config.eager = hp_config_eager(config);
    if (server->near_fd >= 0) {
        core_config.near_pid = (uint32_t)getpid();
        core_config.near_fd = (uint32_t)server->near_fd;
        memcpy(core_config.near_proof, server->near_proof, sizeof(core_config.near_proof));
    }
    if (hp_random_u64(&core_config.seed) != HP_OK) {
        return hp_error_set(reterr, HP_ERR_IO, "the kernel gives no random numbers");
    }
    server->core = hp_core_new(&core_config);
    return HP_OK;
}

static void on_record(void *context, const struct hp_record *record)
{
    struct hp_server *server = context;
    if (record->kind == HP_RECORD_META) {
        server->epoch = record->meta.epoch;
        server->last_batch = record->meta.last_batch;
    }
    server->recovered++;
    hp_core_recover(server->core, record, server->started_ms, (int64_t)hp_clock_wall_ms());
}

static enum hp_err start_store(struct hp_server *server, struct hp_error *reterr)
{
    struct hp_store_options options = {.dir = server->dir.path, .create = server->dir.is_new};
    options.restored = server->dir.is_restored;
    options.wal_bytes = hp_config_wal_bytes(&server->config);
    options.ballast_bytes = hp_config_ballast_bytes(&server->config);
    options.keep_log = &server->keep_log;
    atomic_store(&server->keep_log, true);
    enum hp_err err = hp_store_sqlite_open(&options, &server->store, reterr);
    if (err == HP_OK) {
        err = hp_store_recover(server->store, on_record, server, reterr);
    }
    if (err == HP_OK && server->dir.is_restored) {
        hp_log(HP_LOG_WARN, "restored", HP_KV_U64("epoch", server->epoch),
               HP_KV_U64("queues_paused", hp_core_hold(server->core)),
               HP_KV_STR("text",
                         "this database is a copy: what waits in it may have run since. See "
                         "hostpool ls, cancel what has, then: hostpool queue resume QUEUE"));
    }
    if (err == HP_OK) {
        server->is_marked = true;
        err = hp_datadir_mark(&server->dir, true, reterr);
    }
    return err;
}

enum hp_err hp_server_unmark_(struct hp_server *server, struct hp_error *reterr)
{
    enum hp_err err = hp_datadir_mark(&server->dir, false, reterr);
    if (err == HP_OK) {
        server->is_marked = false;
        atomic_store(&server->keep_log, false);
    }
    return err;
}

/* In the store thread. What was acknowledged is on disk; what is in memory is ahead of it. */
static void on_store_fatal(void *context, const struct hp_error *error)
{
    (void)context;
    hp_log(HP_LOG_ERROR, "store_failed", HP_KV_ERR("error", error->code),
           HP_KV_STR("reason", error->text),
           HP_KV_STR("now", "ends; a restart loads what is durable"));
    _exit(EXIT_STORE_FAILED);
}

static enum hp_err start_threads(struct hp_server *server, struct hp_error *reterr)
{
    struct hp_store_thread_options thread_options = {
        .store = server->store,
        .dir = server->dir.path,
        .wake = hp_turn_wake_store,
        .fatal = on_store_fatal,
        .context = server->turn,
        .disk_low_percent = hp_config_disk_low_percent(&server->config),
    };
    enum hp_err err = hp_store_thread_new(&thread_options, &server->thread, reterr);
    if (err != HP_OK) {
        return err;
    }
    server->store = NULL; /* the thread's now */
    struct hp_blobs_options blob_options = {
        .dir = server->dir.path,
        .wake = hp_turn_wake_blobs,
        .context = server->turn,
        .near_files_max = server->near_files_max,
    };
    return hp_blobs_new(&blob_options, &server->blobs, reterr);
}

static enum hp_err start_turn(struct hp_server *server, struct hp_error *reterr)
{
    struct hp_turn_options options = {
        .loop = server->loop,
        .core = server->core,
        .hold_us = hp_config_hold_us(&server->config),
        .last_batch = server->last_batch,
    };
    struct hp_peers_options peers_options = {
        .core = server->core,
        .on_text = hp_server_on_text_,
        .context = server,
        .batch_ops_max = BATCH_OPS_MAX,
        .batch_bytes_max = BATCH_BYTES_MAX,
        .output_bytes_high = (size_t)hp_config_output_bytes(&server->config),
        .is_near = server->near_fd >= 0,
    };
    const char *token = server->config.token[0] != '\0' ? server->config.token : NULL;
    server->turn = hp_turn_new(&options);
    server->peers = hp_peers_new(server->loop, &peers_options);
    if (server->turn == NULL || server->peers == NULL ||
        hp_peers_set_token(server->peers, token) != HP_OK) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    return HP_OK;
}

enum hp_err hp_server_start_(struct hp_server *server, struct hp_error *reterr)
{
    server->started_ms = hp_clock_boot_ms();
    enum hp_err err = hp_loop_new(&server->loop, reterr);
    if (err == HP_OK) {
        err = hp_datadir_open(server->config.data_dir, &server->dir, reterr);
    }
    if (err == HP_OK) {
        err = start_listener(server, reterr);
    }
    if (err == HP_OK) {
        start_near(server);
        err = start_core(server, reterr);
    }
    if (err == HP_OK) {
        err = start_store(server, reterr);
    }
    if (err == HP_OK) {
        err = start_turn(server, reterr);
    }
    if (err == HP_OK) {
        err = start_threads(server, reterr);
    }
    if (err == HP_OK) {
        hp_turn_attach(server->turn, server->thread, server->blobs, server->peers);
        uint16_t port = hp_addr_port(hp_listener_addr(server->listener, 0));
        hp_listener_pause(server->listener, false);
        err = hp_datadir_put_port(&server->dir, port, reterr);
    }
    return err;
}

void hp_server_deinit_(struct hp_server *server)
{
    for (size_t i = 0; i < HP_COUNT_OF(server->signals); i++) {
        hp_signal_free(server->signals[i]);
    }
    hp_timer_free(server->watchdog);
    hp_peers_free(server->peers);
    hp_listener_free(server->listener);
    hp_blobs_free(server->blobs);
    if (server->is_marked) {
        (void)!hp_server_unmark_(server, NULL); /* if it fails the log stays, as in a crash */
    }
    if (server->thread != NULL && !server->is_thread_stopped) {
        (void)!hp_store_thread_stop(server->thread, 0); /* the start failed: nothing was promised */
    }
    hp_store_thread_free(server->thread);
    hp_store_close(server->store);
    hp_turn_free(server->turn);
    if (server->core != NULL) {
        hp_core_free(server->core);
    }
    if (server->dir.lock_fd >= 0) {
        (void)!hp_datadir_put_port(&server->dir, 0, NULL); /* a stale port only misleads a person */
        hp_datadir_close(&server->dir);
    }
    hp_fd_close(&server->near_fd);
    hp_loop_free(server->loop);
    hp_config_deinit(&server->config);
}
