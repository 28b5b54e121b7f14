/* SPDX-License-Identifier: BSD-2-Clause */
/* What map says about itself: a line that is redrawn, one at the start, one at the end. */
#include "cli/map.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define DRAW_MS 100
#define BAR_COLUMNS_MAX 30u

static void put(const char *text)
{
    (void)hp_cli_write_all(STDERR_FILENO, text, strlen(text)); /* a bar that fails harms nobody */
}

/* "0:00:44" */
static void clock_text(uint64_t seconds, char out[32])
{
    (void)snprintf(out, 32, "%" PRIu64 ":%02u:%02u", seconds / 3600, (unsigned)(seconds / 60 % 60),
                   (unsigned)(seconds % 60));
}

static void bar_text(unsigned columns, double part, char *out, size_t size)
{
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    unsigned steps = (unsigned)(part * columns * 8);
    size_t used = 0;
    out[0] = '\0';
    for (unsigned i = 0; i < columns; i++) {
        const char *cell = i < steps / 8                     ? "█"
                           : i == steps / 8 && steps % 8 > 0 ? eighths[steps % 8]
                                                             : " ";
        size_t cell_size = strlen(cell);
        if (used + cell_size + 1 > size) {
            return;
        }
        memcpy(out + used, cell, cell_size + 1);
        used += cell_size;
    }
}

static uint64_t known_total(const struct hp_map *map)
{
    uint64_t total = map->is_input_end ? map->submitted : map->input.total;
    return map->is_input_end || total <= map->skipped ? total : total - map->skipped;
}

static void compose(const struct hp_map *map, char *line, size_t size)
{
    char done[32];
    char all[32];
    char bar[BAR_COLUMNS_MAX * 3 + 1];
    char left[32] = "";
    uint64_t total = known_total(map);
    double seconds = (double)(hp_cli_mono_ms() - map->began_ms) / 1e3;
    double rate = seconds > 0 ? (double)map->ended / seconds : 0;
    (void)hp_cli_thousands(map->ended, done);
    if (total == 0) {
        (void)snprintf(line, size, "%s done  %" PRIu64 " in flight  %" PRIu64 " failed  %.1f/s",
                       done, map->submitted - map->ended, map->failed, rate);
        return;
    }
    double part = (double)map->ended / (double)total;
    unsigned columns = map->cli->width > 100 ? BAR_COLUMNS_MAX : map->cli->width > 90 ? 20 : 10;
    bar_text(columns, part < 1 ? part : 1, bar, sizeof(bar));
    if (rate > 0 && total >= map->ended) {
        clock_text((uint64_t)((double)(total - map->ended) / rate + 0.5), left);
    }
    (void)snprintf(
        line, size, "%3u%% %s %s/%s  %" PRIu64 " in flight  %" PRIu64 " failed  %.1f/s  %s%s",
        (unsigned)(part * 100), bar, done, hp_cli_thousands(total, all),
        map->submitted - map->ended, map->failed, rate, left, *left != '\0' ? " left" : "");
}

void hp_map_draw(struct hp_map *map, bool now)
{
    char line[512];
    char text[600];
    int64_t now_ms = hp_cli_mono_ms();
    if (!map->is_bar || (!now && now_ms - map->drawn_ms < DRAW_MS)) {
        return;
    }
    compose(map, line, sizeof(line));
    (void)snprintf(text, sizeof(text), "\r\033[K%s", line);
    put(text);
    map->drawn_ms = now_ms;
    map->is_drawn = true;
}

void hp_map_undraw(struct hp_map *map)
{
    if (map->is_drawn) {
        put("\r\033[K");
        map->is_drawn = false;
    }
}

/* ---------------------------------------------------------------- the start */

static bool has_tags(const struct hp_worker *worker, const struct hp_options *options)
{
    for (size_t i = 0; i < options->tag_count; i++) {
        bool is_there = false;
        for (size_t n = 0; n < worker->tag_count; n++) {
            is_there |= strcmp(options->tags[i], worker->tags[n]) == 0;
        }
        if (!is_there) {
            return false;
        }
    }
    return true;
}

static bool has_function(const struct hp_worker *worker, const struct hp_options *options)
{
    for (size_t i = 0; options->fn != NULL && i < worker->function_count; i++) {
        if (strcmp(worker->functions[i], options->fn) == 0) {
            return true;
        }
    }
    return options->fn == NULL;
}

/* Why a worker can not run them, or NULL. */
static const char *obstacle(const struct hp_worker *worker, const struct hp_options *options)
{
    if (worker->state != HP_WORKER_ONLINE) {
        return hp_worker_state_word(worker->state);
    }
    if (worker->draining) {
        return worker->drain_reason != NULL
                   ? hp_cli_printf("drained \"%s\"", HP_CLI_SAFE(worker->drain_reason))
                   : "drained";
    }
    if (worker->slots < options->cpus) {
        return "too few slots";
    }
    if (!has_function(worker, options)) {
        return "does not have the function";
    }
    return has_tags(worker, options) ? NULL : "lacks a tag";
}

void hp_map_say_start(struct hp_map *map)
{
    struct hp_worker_list *list = NULL;
    uint64_t able_count = 0;
    const char *why = NULL;
    const char *who = NULL;
    char total[32];
    bool is_wanted = map->cli->is_err_terminal || hp_cli_has(map->cli, HP_CLI_F_VERBOSE);
    if (!is_wanted ||
        hp_worker_get(map->cli->client, NULL, HP_TIMEOUT_DEFAULT, &list) != HP_STATUS_OK) {
        return;
    }
    for (size_t i = 0; i < list->count; i++) {
        const char *reason = obstacle(&list->workers[i], &map->options);
        able_count += reason == NULL;
        if (reason != NULL && why == NULL) {
            why = reason;
            who = HP_CLI_SAFE(list->workers[i].node);
        }
    }
    (void)hp_cli_thousands(map->input.total, total);
    (void)fprintf(
        stderr, "batch @%s: %s%s on queue %s, %" PRIu64 " of %zu workers can run them%s%s%s%s%s\n",
        map->options.batch, map->input.total > 0 ? total : "",
        map->input.total > 0 ? " tasks" : "tasks",
        map->options.queue != NULL ? map->options.queue : "default", able_count, list->count,
        why != NULL ? " (" : "", why != NULL ? who : "", why != NULL ? ": " : "",
        why != NULL ? why : "", why != NULL ? "; see: hostpool worker ls)" : "");
    hp_worker_list_free(list);
}

/* ---------------------------------------------------------------- the end */

static void say_failed(const struct hp_map *map)
{
    char count[32];
    (void)fprintf(stderr, "%s task%s failed. First: %s\n", hp_cli_thousands(map->failed, count),
                  map->failed == 1 ? "" : "s", map->first_failed_text);
    (void)fprintf(stderr,
                  "  see:   hostpool logs %" PRIu64 "          all: hostpool ls state=failed @%s\n",
                  map->first_failed_id, map->options.batch);
    if (map->log.path != NULL) {
        (void)fprintf(stderr, "  again: the same command with --retry-failed%s\n",
                      map->is_stopped ? " --resume" : "");
    }
}

static void say_stopped(const struct hp_map *map)
{
    char done[32];
    char failed[32];
    char cancelled[32];
    char left[32];
    uint64_t flying = map->submitted - map->ended;
    (void)fprintf(stderr, "stopped: %s done, %s failed, %s cancelled",
                  hp_cli_thousands(map->ended - map->failed - map->cancelled, done),
                  hp_cli_thousands(map->failed, failed),
                  hp_cli_thousands(map->cancelled, cancelled));
    if (flying > 0) {
        (void)fprintf(stderr, ", %s told to end", hp_cli_thousands(flying, left));
    }
    (void)fprintf(stderr, " of %s submitted (batch @%s)\n", hp_cli_thousands(map->submitted, left),
                  map->options.batch);
    if (map->log.path != NULL) {
        (void)fprintf(stderr, "  go on: the same command with --resume\n");
    }
}

void hp_map_say_end(struct hp_map *map)
{
    hp_map_undraw(map);
    if (map->is_interrupted || map->is_stopped) {
        say_stopped(map);
    }
    if (map->failed > 0) {
        say_failed(map);
    } else if (map->is_bar && !map->is_stopped) {
        char count[32];
        char took[32];
        (void)fprintf(
            stderr, "%s tasks done in %s (batch @%s)\n", hp_cli_thousands(map->ended, count),
            hp_cli_age(took, (uint64_t)(hp_cli_mono_ms() - map->began_ms)), map->options.batch);
    }
}
