/* SPDX-License-Identifier: BSD-2-Clause */
/* Running and stopping: signals, the main loop, reloading, the drain. */
#include "server/server.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/sys/clock.h"
#include "common/sys/log.h"
#include "server/notify.h"
#include "server/server_impl.h"

#define TURN_WAIT_MS 60000u /* longest sleep of the loop; nothing depends on it */
#define CLOSE_WAIT_MS 250u  /* for peers to close at the end */

static void on_stop_signal(struct hp_signal *sig, int number, void *context)
{
    struct hp_server *server = context;
    (void)sig;
    if (server->is_stop_asked) {
        hp_log(HP_LOG_WARN, "stopped_at_once", HP_KV_STR("signal", strsignal(number)));
        _exit(1); /* asked twice: what is durable is safe, the rest was never acknowledged */
    }
    hp_log(HP_LOG_INFO, "stopping", HP_KV_STR("signal", strsignal(number)));
    server->is_stop_asked = true;
}

static void on_reload_signal(struct hp_signal *sig, int number, void *context)
{
    struct hp_server *server = context;
    (void)sig;
    (void)number;
    server->is_reload_asked = true;
}

static void on_watchdog(struct hp_timer *timer, void *context)
{
    const struct hp_server *server = context;
    hp_notify("WATCHDOG=1");
    hp_timer_set(timer, server->watchdog_ms);
}

static enum hp_err watch_signals(struct hp_server *server, struct hp_error *reterr)
{
    server->signals[0] = hp_signal_new(server->loop, SIGTERM, on_stop_signal, server);
    server->signals[1] = hp_signal_new(server->loop, SIGINT, on_stop_signal, server);
    server->signals[2] = hp_signal_new(server->loop, SIGHUP, on_reload_signal, server);
    for (size_t i = 0; i < HP_COUNT_OF(server->signals); i++) {
        if (server->signals[i] == NULL) {
            return hp_error_set(reterr, HP_ERR_NOMEM, "cannot watch signals");
        }
    }
    server->watchdog_ms = hp_notify_watchdog_ms() / 2;
    if (server->watchdog_ms > 0) {
        server->watchdog = hp_timer_new(server->loop, on_watchdog, server);
        if (server->watchdog == NULL) {
            return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
        }
        hp_timer_set(server->watchdog, server->watchdog_ms);
    }
    return HP_OK;
}

/* Takes over what may change while it runs. A configuration that is wrong changes nothing. */
static void reload(struct hp_server *server)
{
    struct hp_config next;
    struct hp_error error = {0};
    hp_notify_reloading();
    if (hp_config_read(server->line->argc, server->line->argv, &next, &error) != HP_OK) {
        hp_log(HP_LOG_ERROR, "config_refused", HP_KV_STR("reason", error.text),
               HP_KV_STR("now", "the old one stays"));
        hp_notify("READY=1");
        return;
    }
    char restart[256];
    hp_config_diff(&server->config, &next, restart, sizeof(restart));
    const char *token = next.token[0] != '\0' ? next.token : NULL;
    if (server->config.listens_beyond_loopback && token == NULL) {
        hp_log(HP_LOG_ERROR, "config_refused",
               HP_KV_STR("reason", "a token is needed while others can reach this broker"),
               HP_KV_STR("now", "the old one stays"));
        hp_config_deinit(&next);
        hp_notify("READY=1");
        return;
    }
    if (hp_peers_set_token(server->peers, token) == HP_OK) {
        hp_core_set_token(server->core, token);
        memcpy(server->config.token, next.token, sizeof(next.token));
    }
    hp_log_set_level(next.log_level);
    hp_log(HP_LOG_INFO, "config_reloaded", HP_KV_STR("needs_restart", restart));
    hp_config_deinit(&next);
    hp_notify("READY=1");
}

static void log_started(const struct hp_server *server)
{
    char addr[HP_ADDR_TEXT_BYTES];
    for (uint32_t i = 0; hp_listener_addr(server->listener, i) != NULL; i++) {
        hp_log(HP_LOG_INFO, "listening",
               HP_KV_STR("addr",
                         hp_addr_text(hp_listener_addr(server->listener, i), addr, sizeof(addr))));
    }
    const char *warning = hp_server_warning_(&server->config);
    if (warning != NULL) {
        hp_log(HP_LOG_WARN, "not_encrypted", HP_KV_STR("text", warning));
    }
    hp_log(HP_LOG_INFO, "started", HP_KV_STR("version", HP_VERSION),
           HP_KV_I64("pid", (int64_t)getpid()), HP_KV_STR("data_dir", server->config.data_dir),
           HP_KV_U64("epoch", server->epoch), HP_KV_U64("records", server->recovered),
           HP_KV_U64("start_ms", hp_clock_boot_ms() - server->started_ms));
}

/* Turns until `is_done` or the time is up. */
static enum hp_err turns_until(struct hp_server *server, uint64_t limit_ms,
                               bool (*is_done)(const struct hp_server *))
{
    uint64_t end_ms = hp_clock_boot_ms() + limit_ms;
    while (!is_done(server)) {
        uint64_t now_ms = hp_clock_boot_ms();
        if (now_ms >= end_ms) {
            return HP_ERR_TIMEOUT;
        }
        enum hp_err err = hp_turn_run(server->turn, end_ms - now_ms);
        if (err != HP_OK) {
            return err;
        }
    }
    return HP_OK;
}

static bool is_drained(const struct hp_server *server)
{
    return hp_turn_is_drained(server->turn);
}

static bool has_no_peers(const struct hp_server *server)
{
    return hp_peers_count(server->peers) == 0;
}

/*
 * Stops in order: no new peers and no new work, a longer lease announced and stored, everything
 * that was promised durable and sent, then the end.
 */
static enum hp_err stop(struct hp_server *server, struct hp_error *reterr)
{
    uint64_t stop_ms = hp_config_stop_ms(&server->config);
    hp_notify("STOPPING=1");
    hp_listener_shut(server->listener);
    hp_turn_drain(server->turn, hp_config_stop_lease_ms(&server->config));
    enum hp_err drained = turns_until(server, stop_ms, is_drained);
    hp_peers_close_all(server->peers, "the broker stops");
    (void)!turns_until(server, CLOSE_WAIT_MS, has_no_peers); /* who stays is cut off */
    if (drained == HP_OK) {
        drained = turns_until(server, stop_ms, is_drained);
    }
    enum hp_err err = hp_server_unmark_(server, reterr);
    enum hp_err stopped = hp_store_thread_stop(server->thread, stop_ms);
    server->is_thread_stopped = true;
    if (err != HP_OK) {
        return err;
    }
    if (stopped != HP_OK) {
        return hp_error_set(reterr, stopped, "the store did not stop in order: %s",
                            hp_err_text(stopped));
    }
    hp_log(drained == HP_OK ? HP_LOG_INFO : HP_LOG_WARN, "stopped",
           HP_KV_BOOL("drained", drained == HP_OK));
    return HP_OK;
}

static enum hp_err serve(struct hp_server *server, struct hp_error *reterr)
{
    enum hp_err err = watch_signals(server, reterr);
    if (err != HP_OK) {
        return err;
    }
    log_started(server);
    hp_notify("READY=1");
    while (!server->is_stop_asked) {
        err = hp_turn_run(server->turn, TURN_WAIT_MS);
        if (err != HP_OK) {
            return hp_error_set(reterr, err, "the event loop failed: %s", hp_err_text(err));
        }
        if (server->dir.is_restored && hp_core_is_held(server->core) &&
            hp_datadir_unmark_restored(&server->dir, reterr) != HP_OK) {
            return HP_ERR_IO; /* at the next start it would be held again: better now */
        }
        if (server->is_reload_asked) {
            server->is_reload_asked = false;
            reload(server);
        }
    }
    return stop(server, reterr);
}

enum hp_err hp_server_run(struct hp_config *config, const struct hp_command_line *line,
                          struct hp_error *reterr)
{
    struct hp_server server = {
        .config = *config, .line = line, .dir = {.lock_fd = -1}, .near_fd = -1};
    *config = (struct hp_config){0};
    hp_log_set_level(server.config.log_level);
    enum hp_err err = hp_server_start_(&server, reterr);
    if (err == HP_OK) {
        err = serve(&server, reterr);
    }
    hp_server_deinit_(&server);
    return err;
}

static void ignore_record(void *context, const struct hp_record *record)
{
    (void)context;
    (void)record;
}

enum hp_err hp_server_init(const struct hp_config *config, struct hp_error *reterr)
{
    struct hp_datadir dir = {.lock_fd = -1};
    enum hp_err err = hp_datadir_open(config->data_dir, &dir, reterr);
    if (err != HP_OK) {
        return err;
    }
    if (!dir.is_new) {
        err = hp_error_set(reterr, HP_ERR_EXISTS, "%.180s holds a database already",
                           config->data_dir);
    } else {
        struct hp_store *store = NULL;
        struct hp_store_options options = {.dir = dir.path, .create = true};
        options.wal_bytes = hp_config_wal_bytes(config);
        options.ballast_bytes = hp_config_ballast_bytes(config);
        err = hp_store_sqlite_open(&options, &store, reterr);
        if (err == HP_OK) {
            err = hp_store_recover(store, ignore_record, NULL,
                                   reterr); /* proves that it can be read */
        }
        if (err == HP_OK) {
            err = hp_datadir_mark(&dir, false, reterr);
        }
        hp_store_close(store);
    }
    hp_datadir_close(&dir);
    return err;
}
