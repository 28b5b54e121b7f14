/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Start, turns and end of the worker daemon.
 *
 * Order of the start: the executor's helpers are forked before anything is opened that their
 * children must not share (the lock, the spool, the loop, the connection).
 */
#include "worker/daemon.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/sys/clock.h"
#include "common/sys/file.h"
#include "common/sys/log.h"
#include "common/sys/random.h"

#define MODULES_LOAD_MS 60000u
#define TURN_MS_MAX 60000u
#define EXEC_ROUNDS_MAX 8u

/* ----------------------------------------------------------------------------------- connection */

static void on_open(struct hp_conn *conn, void *context)
{
    struct hp_worker *worker = context;
    hp_log(HP_LOG_INFO, "connected", HP_KV_STR("broker", hp_conn_peer(conn)));
    hp_agent_connected(worker->agent, hp_clock_boot_ms());
}

static void on_bytes(struct hp_conn *conn, void *context)
{
    struct hp_worker *worker = context;
    struct hp_buf *input = hp_conn_input(conn);
    size_t size = input->size;
    hp_agent_received(worker->agent, input->data, size, hp_clock_boot_ms());
    hp_buf_consume(input, size);
    hp_conn_input_done(conn);
}

static void on_level(struct hp_conn *conn, bool over, void *context)
{
    (void)conn; /* the turn that this ends sends more */
    (void)over;
    (void)context;
}

static void on_closed(struct hp_conn *conn, const char *reason, void *context)
{
    struct hp_worker *worker = context;
    hp_agent_disconnected(worker->agent, reason, hp_clock_boot_ms());
    hp_conn_free(conn);
    worker->conn = NULL;
}

enum hp_err hp_worker_connect(struct hp_worker *worker, struct hp_error *reterr)
{
    static const struct hp_conn_handlers handlers = {
        .on_open = on_open, .on_bytes = on_bytes, .on_level = on_level, .on_closed = on_closed};
    struct hp_conn_options options;
    hp_conn_options_init(&options);
    options.output_high_bytes = 512 * 1024;
    HP_ASSERT(worker->conn == NULL);
    return hp_conn_new_connect(worker->loop, &worker->config->broker, &options, &handlers, worker,
                               &worker->conn, reterr);
}

/* ---------------------------------------------------------------------------------------- start */

static void on_signal(struct hp_signal *signal_object, int number, void *context)
{
    struct hp_worker *worker = context;
    (void)signal_object; /* lasts as long as the worker */
    hp_log(HP_LOG_INFO, "signal", HP_KV_I64("number", number));
    worker->term_count++;
}

static void on_exec(struct hp_watch *watch, bool readable, bool writable, void *context)
{
    struct hp_worker *worker = context;
    (void)watch; /* lasts as long as the worker */
    (void)writable;
    worker->exec_ready = worker->exec_ready || readable;
}

/* Waits until the modules are loaded; there is no loop yet, as nothing else can happen. */
static enum hp_err wait_for_modules(struct hp_worker *worker, struct hp_error *reterr)
{
    uint64_t end_ms = hp_clock_mono_ms() + MODULES_LOAD_MS;
    while (!worker->functions_known && !worker->helper_died) {
        uint64_t now_ms = hp_clock_mono_ms();
        if (now_ms >= end_ms) {
            return hp_error_set(reterr, HP_ERR_TIMEOUT, "the modules did not load within %u s",
                                MODULES_LOAD_MS / 1000);
        }
        struct pollfd poll_fd = {.fd = hp_exec_fd(worker->exec), .events = POLLIN};
        (void)poll(&poll_fd, 1, (int)(end_ms - now_ms)); /* any end of it leads to a new look */
        while (hp_exec_process(worker->exec)) {
            /* more is ready */
        }
    }
    if (worker->helper_died) {
        return hp_error_set(reterr, HP_ERR_CLOSED, "a module ended the process that loaded it");
    }
    if (worker->functions_error.code != HP_OK) {
        *reterr = worker->functions_error;
        return worker->functions_error.code;
    }
    return HP_OK;
}

static enum hp_err start_exec(struct hp_worker *worker, struct hp_error *reterr)
{
    const struct hp_worker_config *config = worker->config;
    enum hp_err err = hp_mkdir_p(config->state_dir, 0700, reterr);
    if (err == HP_OK) {
        err = hp_mkdir_p(config->scratch_dir, 0700, reterr);
    }
    if (err != HP_OK) {
        return err;
    }
    struct hp_exec_config exec_config = {
        .slots = config->slots,
        .modules = config->modules,
        .module_count = config->module_count,
        .function_children = config->slots,
        .pool_children_max = config->children_max,
        .recycle_calls = config->recycle_calls,
        .recycle_rss_kb = config->recycle_mem_bytes / 1024,
        .result_cap_bytes = config->result_max_bytes,
        .scratch_dir = config->scratch_dir,
        .callbacks = hp_worker_exec_callbacks,
        .context = worker,
    };
    err = hp_exec_start(&exec_config, &worker->exec, reterr);
    if (err == HP_OK && config->module_count > 0) {
        err = wait_for_modules(worker, reterr);
    }
    return err == HP_OK ? hp_worker_pools_start(worker, reterr) : err;
}

static enum hp_err lock_state(struct hp_worker *worker, struct hp_error *reterr)
{
    struct hp_buf path;
    hp_buf_init(&path, 8192);
    enum hp_err err = hp_buf_append_format(&path, "%s/lock%c", worker->config->state_dir, '\0');
    if (err == HP_OK) {
        err = hp_lock_acquire((const char *)path.data, &worker->lock_fd, reterr);
    }
    hp_buf_deinit(&path);
    return err;
}

static enum hp_err make_agent(struct hp_worker *worker, struct hp_error *reterr)
{
    const struct hp_worker_config *config = worker->config;
    struct hp_agent_config agent_config = {
        .client = HP_STR("hostpool-worker " HP_VERSION),
        .node = hp_str_of(config->node),
        .host = hp_str_of(config->host),
        .token = config->token,
        .pid = (uint32_t)getpid(),
        .slots = config->slots,
        .prefetch_max = config->prefetch,
        .mem_bytes = config->mem_bytes,
        .tags = config->tags,
        .tag_count = config->tag_count,
        .functions = worker->functions,
        .function_count = worker->function_count,
        .commands = config->commands,
        .languages = worker->languages,
        .language_count = worker->language_count,
        .any_interpreter = config->any_interpreter,
        .children_max = config->children_max,
        .near = config->near,
    };
    enum hp_err err = hp_random_id16(worker->boot);
    if (err == HP_OK) {
        err = hp_random_u64(&agent_config.seed);
    }
    if (err != HP_OK) {
        return hp_error_set(reterr, err, "the kernel gives no random numbers");
    }
    memcpy(agent_config.boot, worker->boot, sizeof(agent_config.boot));
    return hp_agent_new(&agent_config, hp_clock_boot_ms(), &worker->agent, reterr);
}

static void on_found(void *context, uint64_t id, const uint8_t boot[HP_SPOOL_BOOT_BYTES],
                     struct hp_bin record)
{
    struct hp_worker *worker = context;
    (void)boot; /* always an earlier one's: this start has written nothing yet */
    hp_agent_spool_loaded(worker->agent, id, record);
}

static enum hp_err open_spool(struct hp_worker *worker, struct hp_error *reterr)
{
    enum hp_err err = hp_spool_open(worker->config->state_dir, worker->boot, on_found, worker,
                                    &worker->spool, reterr);
    if (err != HP_OK) {
        return err;
    }
    struct hp_spool_stats stats;
    hp_spool_get_stats(worker->spool, &stats);
    if (stats.live_count > 0 || stats.cut_bytes > 0) {
        hp_log(stats.cut_bytes > 0 ? HP_LOG_WARN : HP_LOG_INFO, "spool_loaded",
               HP_KV_U64("results", stats.live_count), HP_KV_U64("cut_bytes", stats.cut_bytes));
    }
    return HP_OK;
}

static enum hp_err start_loop(struct hp_worker *worker, struct hp_error *reterr)
{
    enum hp_err err = hp_loop_new(&worker->loop, reterr);
    if (err != HP_OK) {
        return err;
    }
    worker->exec_watch = hp_watch_new(worker->loop, hp_exec_fd(worker->exec), on_exec, worker);
    if (worker->exec_watch == NULL || hp_watch_set(worker->exec_watch, true, false) != HP_OK) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    static const int numbers[HP_WORKER_SIGNALS] = {SIGTERM, SIGINT, SIGHUP};
    for (size_t i = 0; i < HP_WORKER_SIGNALS; i++) {
        worker->signals[i] = hp_signal_new(worker->loop, numbers[i], on_signal, worker);
        if (worker->signals[i] == NULL) {
            return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
        }
    }
    return HP_OK;
}

enum hp_err hp_worker_start(struct hp_worker *worker, const struct hp_worker_config *config,
                            struct hp_error *reterr)
{
    *worker = (struct hp_worker){.config = config, .lock_fd = -1};
    hp_arena_init(&worker->arena, 4096, (size_t)16 << 20);
    hp_arena_init(&worker->feed_arena, 1024 * 1024, (size_t)1 << 40);
    hp_worker_near_init(worker);
    enum hp_err (*const steps[])(struct hp_worker *, struct hp_error *) = {
        start_exec, lock_state, make_agent, open_spool, start_loop};
    enum hp_err err = HP_OK;
    for (size_t i = 0; i < HP_COUNT_OF(steps) && err == HP_OK; i++) {
        err = steps[i](worker, reterr);
    }
    return err;
}

/* ------------------------------------------------------------------------------------------ run */

static void act_on_signals(struct hp_worker *worker)
{
    if (worker->helper_died && worker->exit_code == 0) {
        worker->exit_code = 1;
        hp_agent_stop(worker->agent, hp_clock_boot_ms());
    }
    for (; worker->term_done < worker->term_count; worker->term_done++) {
        if (worker->term_done == 0) {
            hp_agent_drain(worker->agent, worker->config->drain_timeout_ms, hp_clock_boot_ms());
        } else {
            hp_agent_stop(worker->agent, hp_clock_boot_ms());
        }
    }
}

/* How long the loop may wait. */
static uint64_t wait_ms(const struct hp_worker *worker)
{
    uint64_t at_ms = hp_agent_next_deadline_ms(worker->agent);
    uint64_t now_ms = hp_clock_boot_ms();
    return at_ms <= now_ms ? 0 : HP_MIN(at_ms - now_ms, (uint64_t)TURN_MS_MAX);
}

static void turn(struct hp_worker *worker)
{
    if (hp_loop_turn(worker->loop, wait_ms(worker)) != HP_OK) {
        hp_log(HP_LOG_ERROR, "loop_failed");
        worker->exit_code = 1;
        worker->exiting = true;
        return;
    }
    if (worker->exec_ready) {
        worker->exec_ready = false;
        for (uint32_t i = 0; i < EXEC_ROUNDS_MAX && hp_exec_process(worker->exec); i++) {
            /* a bounded share: the rest in the next turn */
        }
    }
    act_on_signals(worker);
    hp_worker_pools_tick(worker);
    if (worker->feed_count == 0) {
        hp_agent_tick(worker->agent, hp_clock_boot_ms());
    }
    hp_worker_settle(worker);
    hp_loop_flush(worker->loop);
}

static void log_start(const struct hp_worker *worker)
{
    const struct hp_worker_config *config = worker->config;
    hp_log(HP_LOG_INFO, "started", HP_KV_STR("version", HP_VERSION),
           HP_KV_STR("node", config->node), HP_KV_STR("broker", config->broker_text),
           HP_KV_U64("slots", config->slots), HP_KV_U64("functions", worker->function_count),
           HP_KV_STR("state_dir", config->state_dir), HP_KV_I64("pid", getpid()));
}

static void log_end(const struct hp_worker *worker)
{
    struct hp_agent_stats stats;
    hp_agent_get_stats(worker->agent, &stats);
    hp_log(HP_LOG_INFO, "stopped", HP_KV_U64("ended", stats.ended_total),
           HP_KV_U64("acknowledged", stats.acked_total), HP_KV_U64("unacknowledged", stats.unacked),
           HP_KV_U64("handed_back", stats.released_total));
}

int hp_worker_run(struct hp_worker *worker)
{
    log_start(worker);
    hp_agent_tick(worker->agent, hp_clock_boot_ms());
    hp_worker_settle(worker);
    while (!worker->exiting) {
        turn(worker);
    }
    log_end(worker);
    return worker->exit_code;
}

void hp_worker_deinit(struct hp_worker *worker)
{
    hp_conn_free(worker->conn);
    hp_watch_free(worker->exec_watch);
    for (size_t i = 0; i < HP_WORKER_SIGNALS; i++) {
        hp_signal_free(worker->signals[i]);
    }
    hp_exec_free(worker->exec);
    hp_agent_free(worker->agent);
    hp_spool_close(worker->spool);
    if (worker->loop != NULL) {
        hp_loop_free(worker->loop);
    }
    hp_worker_feed_deinit(worker);
    hp_worker_pools_deinit(worker);
    hp_arena_deinit(&worker->arena);
    hp_lock_release(&worker->lock_fd);
}
