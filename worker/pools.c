/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Children of pools, and the interpreters they are forked from: one warmed process for each
 * interpreter, started when it is needed first (the configured one at the start), ended when no
 * pool has needed it for a while.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/sys/clock.h"
#include "common/sys/file.h"
#include "common/sys/log.h"
#include "worker/daemon.h"

#define PROBE_MS 20000u
#define IDLE_MS 60000u
#define ENV_MAX 24u

extern char **environ;

/* -------------------------------------------------------------------------------- environment */

/* A child's end that never began: the agent hears of it as of any other. */
static void refuse(struct hp_worker *worker, uint32_t child, const char *text)
{
    struct hp_agent_event *event = hp_worker_feed_add(worker, HP_AGENT_EXEC_CHILD_DOWN);
    event->child = child;
    event->gone = true;
    event->init_failed = text != NULL;
    event->recycled = text == NULL;
    if (text != NULL) {
        size_t size = strlen(text);
        event->error = hp_str_make(hp_arena_copy(&worker->feed_arena, text, size), size);
    }
}

/* Folder of this program, without the slash; false: unknown. */
static bool program_folder(char *out, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", out, size - 1);
    if (length <= 0) {
        return false;
    }
    out[length] = '\0';
    char *slash = strrchr(out, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    return slash != NULL;
}

static bool add(char **env, size_t *count, const char *name, const char *value)
{
    size_t size = strlen(name) + strlen(value) + 2;
    char *entry = hp_alloc(size);
    if (entry == NULL || *count >= ENV_MAX) {
        hp_free(entry);
        return entry != NULL;
    }
    (void)snprintf(entry, size, "%s=%s", name, value);
    env[(*count)++] = entry;
    return true;
}

static const char *or_else(const char *value, const char *otherwise)
{
    return value != NULL && *value != '\0' ? value : otherwise;
}

/* What children know of their surroundings; the same for all interpreters. */
static bool own_entries(const struct hp_worker *worker, char **env, size_t *count)
{
    const struct hp_worker_config *config = worker->config;
    char folder[4096];
    char path[4400];
    bool is_ok = add(env, count, "HOSTPOOL_HOST", config->broker_text) &&
                 add(env, count, "HOSTPOOL_NODE", config->node) &&
                 add(env, count, "TMPDIR", config->scratch_dir);
    if (config->token_file != NULL) {
        is_ok = is_ok && add(env, count, "HOSTPOOL_TOKEN_FILE", config->token_file);
    }
    (void)snprintf(path, sizeof path, "%s/contents", config->state_dir);
    is_ok = is_ok && add(env, count, "HOSTPOOL_CACHE_DIR", path);
    const char *python_path = config->python_path;
    if (program_folder(folder, sizeof folder)) {
        is_ok = is_ok && add(env, count, "HOSTPOOL_BIN_DIR", folder);
        (void)snprintf(path, sizeof path, "%s/../python/hostpool/__init__.py", folder);
        if (python_path == NULL && access(path, R_OK) == 0) { /* a build folder */
            (void)snprintf(path, sizeof path, "%s/../python", folder);
            python_path = path;
        }
    }
    if (python_path != NULL) {
        is_ok = is_ok && add(env, count, "PYTHONPATH", python_path);
    }
    return is_ok;
}

static bool is_own_name(char *const *env, size_t count, const char *entry)
{
    const char *equals = strchr(entry, '=');
    size_t size = equals == NULL ? strlen(entry) : (size_t)(equals - entry) + 1;
    for (size_t i = 0; i < count; i++) {
        if (strncmp(env[i], entry, size) == 0) {
            return true;
        }
    }
    /* A token in the environment is this daemon's affair: to its children it would be stronger than
     * the file that they are told of. */
    return strncmp(entry, "HOSTPOOL_RUN=", 13) == 0 || strncmp(entry, "HOSTPOOL_TOKEN=", 15) == 0;
}

static bool make_env(struct hp_worker *worker)
{
    size_t inherited = 0;
    while (worker->config->inherit_env && environ[inherited] != NULL) {
        inherited++;
    }
    char **env = hp_calloc(ENV_MAX + inherited + 1, sizeof *env);
    size_t count = 0;
    worker->python_env = env;
    if (env == NULL || !own_entries(worker, env, &count)) {
        return false;
    }
    if (inherited == 0) {
        return add(env, &count, "PATH",
                   "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") &&
               add(env, &count, "HOME", or_else(getenv("HOME"), "/")) &&
               add(env, &count, "LANG", or_else(getenv("LANG"), "C.UTF-8"));
    }
    size_t own_count = count;
    for (size_t i = 0; i < inherited; i++) {
        bool keeps_path = strncmp(environ[i], "TMPDIR=", 7) == 0;
        if (!keeps_path && is_own_name(env, own_count, environ[i])) {
            continue;
        }
        env[count] = hp_strdup(environ[i]);
        if (env[count++] == NULL) {
            return false;
        }
    }
    return true;
}

/* ------------------------------------------------------------------------------- interpreters */

static uint32_t index_of_zygote(const struct hp_worker *worker, uint32_t zygote)
{
    for (uint32_t i = 0; i < HP_WORKER_PYTHONS_MAX; i++) {
        if (worker->pythons[i].zygote == zygote) {
            return i;
        }
    }
    return HP_WORKER_PYTHONS_MAX;
}

static enum hp_err start_python(struct hp_worker *worker, struct hp_worker_python *python,
                                struct hp_error *reterr)
{
    const char *argv[] = {python->path, "-m", "hostpool._zygote", NULL};
    struct hp_exec_zygote zygote = {.argv = argv,
                                    .env = (const char *const *)(uintptr_t)worker->python_env};
    uint32_t number = 0;
    enum hp_err err = hp_exec_zygote_start(worker->exec, &zygote, &number, reterr);
    if (err == HP_OK) {
        python->zygote = number;
        python->is_ready = false;
        python->idle_ms = hp_clock_boot_ms();
        hp_log(HP_LOG_DEBUG, "python_starts", HP_KV_STR("path", python->path));
    }
    return err;
}

/* Ends the interpreter that has been idle for longest. NULL: all are in use. */
static struct hp_worker_python *evict_idle(struct hp_worker *worker)
{
    struct hp_worker_python *oldest = NULL;
    for (uint32_t i = 0; i < HP_WORKER_PYTHONS_MAX; i++) {
        struct hp_worker_python *python = &worker->pythons[i];
        bool is_idle = !python->is_own && python->child_count == 0;
        if (is_idle && (oldest == NULL || python->idle_ms < oldest->idle_ms)) {
            oldest = python;
        }
    }
    if (oldest != NULL) {
        hp_exec_zygote_stop(worker->exec, oldest->zygote);
    }
    return oldest;
}

/* The entry of an interpreter: the one there is, or a free one. NULL: too many. */
static struct hp_worker_python *python_of(struct hp_worker *worker, struct hp_str path)
{
    struct hp_worker_python *free_one = NULL;
    for (uint32_t i = 0; i < HP_WORKER_PYTHONS_MAX; i++) {
        struct hp_worker_python *python = &worker->pythons[i];
        if (python->path[0] != '\0' && hp_str_eq_c(path, python->path)) {
            return python;
        }
        bool is_free = python->path[0] == '\0' || (python->zygote == 0 && !python->is_own);
        free_one = free_one == NULL && is_free ? python : free_one;
    }
    free_one = free_one == NULL ? evict_idle(worker) : free_one;
    if (free_one != NULL) {
        *free_one = (struct hp_worker_python){0};
        memcpy(free_one->path, path.data, path.size);
        return free_one;
    }
    return NULL;
}

/* The first word of what a zygote says: its language. */
static void take_language(struct hp_worker_python *python, const char *text)
{
    size_t size = strcspn(text, " ");
    size = HP_MIN(size, sizeof python->language - 1);
    memcpy(python->language, text, size);
    python->language[size] = '\0';
    python->is_ready = true;
}

/* ------------------------------------------------------------------------------------- children */

static struct hp_worker_pool_child *pool_child(struct hp_worker *worker, uint32_t child)
{
    uint32_t first = hp_exec_pool_child_first(worker->exec);
    HP_ASSERT(child >= first && child - first < worker->config->children_max);
    return &worker->pool_children[child - first];
}

static void start_now(struct hp_worker *worker, uint32_t child,
                      const struct hp_agent_pool_child *from, uint32_t zygote)
{
    struct hp_exec_child_spec spec = {.zygote = zygote,
                                      .pool = from->pool,
                                      .init_function = from->fn,
                                      .init = from->payload,
                                      .init_fd = -1,
                                      .calls_max = from->calls_max,
                                      .kill_on_partition = from->fence};
    if (from->payload_file != NULL) {
        spec.init_fd = hp_worker_file_fd(from->payload_file);
        spec.init_bytes = from->payload_bytes;
    }
    struct hp_error error = {0};
    enum hp_err err = hp_exec_child_start(worker->exec, child, &spec, &error);
    if (err != HP_OK) {
        hp_worker_child_gone(worker, child);
        refuse(worker, child, error.text);
    }
}

void hp_worker_child_gone(struct hp_worker *worker, uint32_t child)
{
    struct hp_worker_pool_child *entry = pool_child(worker, child);
    if (entry->python != 0) {
        struct hp_worker_python *python = &worker->pythons[entry->python - 1];
        HP_ASSERT(python->child_count > 0);
        if (--python->child_count == 0) {
            python->idle_ms = hp_clock_boot_ms();
        }
    }
    *entry = (struct hp_worker_pool_child){0};
}

/* Starts what has waited for this interpreter, or says why it can not be. */
static void settle_pending(struct hp_worker *worker, uint32_t index, const char *failure)
{
    uint32_t first = hp_exec_pool_child_first(worker->exec);
    const struct hp_worker_python *python = &worker->pythons[index];
    char text[HP_EXEC_STDERR_TAIL_BYTES + 256];
    for (uint32_t i = 0; i < worker->config->children_max; i++) {
        struct hp_worker_pool_child *entry = &worker->pool_children[i];
        if (!entry->is_pending || entry->python != index + 1) {
            continue;
        }
        entry->is_pending = false;
        struct hp_agent_pool_child spec = entry->spec;
        const char *why = failure;
        if (failure == NULL && !hp_str_eq_c(spec.language, python->language)) {
            (void)snprintf(text, sizeof text, "%s is %s here, the pool wants %.*s", python->path,
                           python->language, HP_STR_ARG(spec.language));
            why = text;
        }
        if (why != NULL) {
            hp_worker_child_gone(worker, first + i);
            refuse(worker, first + i, why);
        } else {
            start_now(worker, first + i, &spec, python->zygote);
        }
    }
}

/* Whether this worker's own interpreter will do, because the one asked for is not here. */
static bool is_own_instead(const struct hp_worker *worker, const struct hp_agent_pool_child *spec)
{
    char path[sizeof worker->pythons[0].path];
    if (spec->interpreter.size < sizeof path) {
        (void)snprintf(path, sizeof path, "%.*s", HP_STR_ARG(spec->interpreter));
        if (access(path, X_OK) == 0) {
            return false;
        }
    }
    for (uint32_t i = 0; i < HP_WORKER_PYTHONS_MAX; i++) {
        const struct hp_worker_python *python = &worker->pythons[i];
        if (python->is_own && hp_str_eq_c(spec->language, python->language)) {
            return true;
        }
    }
    return false;
}

/* Which interpreter the pool is to have here; NULL with a sentence: none. */
static struct hp_worker_python *
choose(struct hp_worker *worker, const struct hp_agent_pool_child *spec, char *text, size_t size)
{
    const char *own = worker->config->python;
    bool by_path = worker->config->any_interpreter && spec->interpreter.size > 0 &&
                   !is_own_instead(worker, spec);
    struct hp_str path = by_path ? spec->interpreter : hp_str_of(own == NULL ? "" : own);
    if (path.size == 0) {
        (void)snprintf(text, size, "this worker runs no %.*s", HP_STR_ARG(spec->language));
        return NULL;
    }
    struct hp_worker_python *python = NULL;
    if (path.data[0] != '/' || memchr(path.data, '\0', path.size) != NULL ||
        path.size >= sizeof python->path) {
        (void)snprintf(text, size, "interpreter \"%.*s\" is no absolute path", HP_STR_ARG(path));
        return NULL;
    }
    python = python_of(worker, path);
    if (python == NULL) {
        (void)snprintf(text, size, "interpreter %.*s: %u others are in use here", HP_STR_ARG(path),
                       HP_WORKER_PYTHONS_MAX);
    } else if (access(python->path, X_OK) != 0) {
        (void)snprintf(text, size, "interpreter %s: %s", python->path, strerror(errno));
        python = NULL;
    }
    return python;
}

void hp_worker_child_start(struct hp_worker *worker, uint32_t child,
                           const struct hp_agent_pool_child *spec)
{
    struct hp_worker_pool_child *entry = pool_child(worker, child);
    char text[5000];
    entry->spec = *spec;
    if (hp_str_eq(spec->language, HP_STR("c"))) {
        start_now(worker, child, spec, 0);
        return;
    }
    struct hp_worker_python *python = choose(worker, spec, text, sizeof text);
    struct hp_error error = {0};
    if (python == NULL) {
        refuse(worker, child, text);
        return;
    }
    if (python->zygote == 0 && start_python(worker, python, &error) != HP_OK) {
        refuse(worker, child, error.text);
        return;
    }
    entry->python = (uint32_t)(python - worker->pythons) + 1;
    entry->is_pending = true;
    python->child_count++;
    python->idle_ms = 0;
    if (python->is_ready) {
        settle_pending(worker, entry->python - 1, NULL);
    }
}

void hp_worker_child_stop(struct hp_worker *worker, uint32_t child, int signal)
{
    struct hp_worker_pool_child *entry = pool_child(worker, child);
    if (entry->is_pending) {
        hp_worker_child_gone(worker, child);
        refuse(worker, child, NULL);
    } else if (signal != 0) {
        (void)hp_exec_child_kill(worker->exec, child, signal); /* or it has just ended */
    } else {
        hp_exec_child_stop(worker->exec, child);
    }
}

/* ----------------------------------------------------------------------- what interpreters say */

void hp_worker_zygote_ready(void *context, uint32_t zygote, const char *text)
{
    struct hp_worker *worker = context;
    uint32_t index = index_of_zygote(worker, zygote);
    if (index == HP_WORKER_PYTHONS_MAX) {
        return;
    }
    struct hp_worker_python *python = &worker->pythons[index];
    take_language(python, text);
    worker->python_probed = worker->python_probed || python->is_own;
    hp_log(HP_LOG_INFO, "python_ready", HP_KV_STR("path", python->path), HP_KV_STR("is", text));
    settle_pending(worker, index, NULL);
}

void hp_worker_zygote_failed(void *context, uint32_t zygote, const char *text)
{
    struct hp_worker *worker = context;
    uint32_t index = index_of_zygote(worker, zygote);
    if (index == HP_WORKER_PYTHONS_MAX) {
        return;
    }
    struct hp_worker_python *python = &worker->pythons[index];
    python->zygote = 0;
    python->is_ready = false;
    worker->python_probed = worker->python_probed || python->is_own;
    hp_log(HP_LOG_WARN, "python_failed", HP_KV_STR("path", python->path), HP_KV_STR("text", text));
    settle_pending(worker, index, text);
}

/* ---------------------------------------------------------------------------------- start, end */

/* Waits until the configured interpreter has spoken; there is no loop yet. */
static void wait_for_python(struct hp_worker *worker)
{
    uint64_t end_ms = hp_clock_mono_ms() + PROBE_MS;
    while (!worker->python_probed && !worker->helper_died) {
        uint64_t now_ms = hp_clock_mono_ms();
        if (now_ms >= end_ms) {
            hp_log(HP_LOG_WARN, "python_slow", HP_KV_STR("path", worker->config->python));
            return;
        }
        struct pollfd poll_fd = {.fd = hp_exec_fd(worker->exec), .events = POLLIN};
        (void)poll(&poll_fd, 1, (int)(end_ms - now_ms)); /* any end of it leads to a new look */
        while (hp_exec_process(worker->exec)) {
            /* more is ready */
        }
    }
}

enum hp_err hp_worker_pools_start(struct hp_worker *worker, struct hp_error *reterr)
{
    const struct hp_worker_config *config = worker->config;
    worker->pool_children =
        hp_calloc((size_t)config->children_max + 1, sizeof *worker->pool_children);
    if (worker->pool_children == NULL || !make_env(worker)) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    if (config->children_max == 0) {
        return HP_OK;
    }
    if (worker->function_count > 0) {
        worker->languages[worker->language_count++] = HP_STR("c");
    }
    struct hp_error error = {0};
    struct hp_worker_python *own = &worker->pythons[0];
    if (config->python == NULL) {
        return HP_OK;
    }
    if (strlen(config->python) >= sizeof own->path) {
        return hp_error_set(reterr, HP_ERR_INVALID, "python: the path is too long");
    }
    memcpy(own->path, config->python, strlen(config->python) + 1);
    own->is_own = true;
    if (start_python(worker, own, &error) != HP_OK) {
        hp_log(HP_LOG_WARN, "python_failed", HP_KV_STR("path", own->path),
               HP_KV_STR("text", error.text));
        return HP_OK;
    }
    wait_for_python(worker);
    if (own->is_ready) {
        worker->languages[worker->language_count++] = hp_str_of(own->language);
    }
    return HP_OK;
}

void hp_worker_pools_tick(struct hp_worker *worker)
{
    uint64_t now_ms = 0;
    for (uint32_t i = 0; i < HP_WORKER_PYTHONS_MAX; i++) {
        struct hp_worker_python *python = &worker->pythons[i];
        if (python->zygote == 0 || python->is_own || python->child_count > 0) {
            continue;
        }
        now_ms = now_ms == 0 ? hp_clock_boot_ms() : now_ms;
        if (now_ms - python->idle_ms >= IDLE_MS) {
            hp_exec_zygote_stop(worker->exec, python->zygote);
            *python = (struct hp_worker_python){0};
        }
    }
}

void hp_worker_pools_deinit(struct hp_worker *worker)
{
    for (size_t i = 0; worker->python_env != NULL && worker->python_env[i] != NULL; i++) {
        hp_free(worker->python_env[i]);
    }
    hp_free(worker->python_env);
    hp_free(worker->pool_children);
}
