/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ends of map's tasks: counted, logged, printed. What one task wrote stays together; with
 * --keep-order ends wait in a ring for those before them. Held output is bounded: beyond the limit
 * only its id is kept, and the broker is asked again when its turn comes.
 */
#include "cli/map.h"
#include "cli/sel.h"
#include "cli/task_options.h"
#include "cli/value.h"

#include "common/base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HELD_BYTES_MAX (UINT64_C(64) << 20)
#define COMMAND_BYTES_MAX ((size_t)64 << 20)
/* Failures whose text is kept for people. */
#define TEXTS_MAX 1u

void hp_map_end_free(struct hp_map_end *end)
{
    if (end != NULL) {
        hp_free(end->input);
        hp_free(end->node);
        hp_free(end->bytes[0]);
        hp_free(end->bytes[1]);
        hp_free(end);
    }
}

static char *copy_bytes(struct hp_bytes bytes)
{
    char *copy = NULL;
    if (bytes.size > 0) {
        copy = hp_cli_heap(bytes.size);
        memcpy(copy, bytes.data, bytes.size);
    }
    return copy;
}

static void set_bytes(struct hp_map_end *end, unsigned index, struct hp_bytes bytes, uint64_t blob)
{
    end->bytes[index] = copy_bytes(bytes);
    end->sizes[index] = bytes.size;
    end->blobs[index] = blob;
}

/* Takes over the output of an end record. */
static void take_record(struct hp_map_end *end, const struct hp_end *record)
{
    end->run_us = record->run_us;
    end->signal = record->signal;
    end->received = record->out_size;
    if (end->is_function) {
        set_bytes(end, 0, record->result, record->result_blob);
        end->received = record->result.size;
        return;
    }
    set_bytes(end, 0, record->out, record->out_blob);
    set_bytes(end, 1, record->err, record->err_blob);
    uint64_t kept = record->out_blob != 0 ? record->out_size : record->out.size;
    end->lost_bytes =
        record->out_truncated && record->out_size > kept ? record->out_size - kept : 0;
}

static struct hp_map_end *make_end(const struct hp_map *map, struct hp_map_group *group,
                                   const struct hp_event *event)
{
    const struct hp_task *task = event->task;
    struct hp_map_end *end = hp_cli_heap(sizeof(*end));
    end->id = task->id;
    end->number = group->numbers[event->index];
    end->input = HP_TAKE(group->inputs[event->index]);
    end->state = task->state;
    end->code = hp_cli_end_code(task);
    end->exit_value = end->code;
    end->started_at_ms = task->started_at_ms;
    end->is_function = map->args != NULL;
    if (task->node != NULL) {
        end->node = hp_cli_heap(strlen(task->node) + 1);
        memcpy(end->node, task->node, strlen(task->node) + 1);
    }
    if (task->end != NULL) {
        take_record(end, task->end);
        if (task->end->has_exit_code && end->signal == 0) {
            end->exit_value = (int)task->end->exit_code;
        }
    }
    if (task->state != HP_STATE_DONE && map->failed < TEXTS_MAX) {
        end->text = hp_cli_end_text(task);
    }
    return end;
}

/* ---------------------------------------------------------------- printing */

static void put(struct hp_map *map, int fd, const char *data, size_t size)
{
    if (size == 0 || map->is_output_closed || hp_cli_write_all(fd, data, size)) {
        return;
    }
    map->is_output_closed = true;
    if (errno != EPIPE) {
        hp_cli_error("cannot write the output: %s.", strerror(errno));
    }
}

/* Each line with its input in front. */
static void put_tagged(struct hp_map *map, int fd, const char *tag, const char *data, size_t size)
{
    struct hp_buf buf;
    hp_buf_init(&buf, (size_t)4 << 30);
    while (size > 0) {
        const char *end = memchr(data, '\n', size);
        size_t line = end != NULL ? (size_t)(end - data) + 1 : size;
        hp_cli_put(&buf, tag, strlen(tag));
        hp_cli_put(&buf, "\t", 1);
        hp_cli_put(&buf, data, line);
        data += line;
        size -= line;
    }
    put(map, fd, (const char *)buf.data, buf.size);
    hp_buf_deinit(&buf);
}

static void print_stream(struct hp_map *map, const struct hp_map_end *end, unsigned index)
{
    int fd = index == 0 ? STDOUT_FILENO : STDERR_FILENO;
    if (hp_cli_has(map->cli, HP_CLI_F_TAG)) {
        put_tagged(map, fd, end->input, end->bytes[index], end->sizes[index]);
    } else {
        put(map, fd, end->bytes[index], end->sizes[index]);
    }
}

static bool fetch_blob(struct hp_map *map, struct hp_map_end *end, unsigned index)
{
    struct hp_buffer buffer = {0};
    enum hp_status status =
        hp_fetch_blob(map->cli->client, end->blobs[index], HP_TIMEOUT_DEFAULT, &buffer);
    if (status != HP_STATUS_OK) {
        hp_map_undraw(map);
        (void)hp_cli_fail(map->cli, status,
                          hp_cli_printf("task %" PRIu64 ": cannot fetch the output", end->id));
        return false;
    }
    hp_free(end->bytes[index]);
    end->bytes[index] = copy_bytes((struct hp_bytes){.data = buffer.data, .size = buffer.size});
    end->sizes[index] = buffer.size;
    end->blobs[index] = 0;
    end->received = index == 0 && end->is_function ? buffer.size : end->received;
    hp_buffer_clear(&buffer);
    return true;
}

static bool fetch_again(struct hp_map *map, struct hp_map_end *end)
{
    struct hp_ids ids = {.first = end->id, .count = 1};
    struct hp_task_list *list = NULL;
    enum hp_status status =
        hp_get(map->cli->client, &ids, 1, HP_DETAIL_END, HP_TIMEOUT_DEFAULT, &list);
    if (status != HP_STATUS_OK) {
        (void)hp_cli_fail(map->cli, status,
                          hp_cli_printf("task %" PRIu64 ": cannot get the output", end->id));
        return false;
    }
    if (list->count == 1 && list->tasks[0].end != NULL) {
        take_record(end, list->tasks[0].end);
    }
    end->is_dropped = false;
    hp_task_list_free(list);
    return true;
}

/* A function's result as a line of JSON. */
static void use_value_text(struct hp_map_end *end)
{
    if (!end->is_function || end->sizes[0] == 0) {
        return;
    }
    json_t *value = hp_cli_value_json(end->bytes[0], end->sizes[0]);
    char *text = value != NULL
                     ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(17))
                     : NULL;
    json_decref(value);
    if (text == NULL) {
        return; /* bytes of another kind are printed as they are */
    }
    size_t size = strlen(text);
    hp_free(end->bytes[0]);
    end->bytes[0] = hp_cli_heap(size + 1);
    memcpy(end->bytes[0], text, size);
    end->bytes[0][size] = '\n';
    end->sizes[0] = size + 1;
    free(text);
}

/* Writes the results folder and prints; the end is gone then. */
static void print_end(struct hp_map *map, struct hp_map_end *end)
{
    bool is_there = !end->is_dropped || fetch_again(map, end);
    for (unsigned i = 0; i < 2 && is_there; i++) {
        is_there = end->blobs[i] == 0 || fetch_blob(map, end, i);
    }
    if (!is_there && map->code == 0) {
        map->code = HP_CLI_UNREACHABLE;
    }
    use_value_text(end);
    if (map->results_dir != NULL && end->state != HP_STATE_CANCELLED &&
        !hp_map_results_write(map->results_dir, end) && map->code == 0) {
        hp_cli_error("cannot write to %s: %s.", map->results_dir, strerror(errno));
        map->code = HP_CLI_FAILED;
        map->is_stopped = true;
        hp_map_cancel(map, false);
    }
    if (end->sizes[0] > 0 || end->sizes[1] > 0) {
        hp_map_undraw(map);
    }
    print_stream(map, end, 0);
    print_stream(map, end, 1);
    if (end->lost_bytes > 0) {
        hp_map_undraw(map);
        hp_cli_error("task %" PRIu64 ": %" PRIu64
                     " bytes of output were not kept (see --output-cap).",
                     end->id, end->lost_bytes);
    }
    hp_map_end_free(end);
}

void hp_map_print_held(struct hp_map *map, bool all)
{
    while (map->ring != NULL && map->print_order < map->submitted) {
        struct hp_map_end **slot = &map->ring[map->print_order % map->ring_size];
        if (*slot == NULL && !all) {
            return;
        }
        if (*slot != NULL) {
            struct hp_map_end *end = HP_TAKE(*slot);
            uint64_t size = end->sizes[0] + end->sizes[1];
            map->held_bytes -= end->is_dropped ? 0 : size;
            print_end(map, end);
        }
        map->print_order++;
    }
}

static void hold(struct hp_map *map, struct hp_map_end *end, uint64_t order)
{
    uint64_t size = end->sizes[0] + end->sizes[1];
    if (map->held_bytes + size > HELD_BYTES_MAX && order != map->print_order) {
        for (unsigned i = 0; i < 2; i++) {
            hp_free(HP_TAKE(end->bytes[i]));
            end->sizes[i] = 0;
        }
        end->is_dropped = true;
    } else {
        map->held_bytes += size;
    }
    map->ring[order % map->ring_size] = end;
    hp_map_print_held(map, false);
}

/* ---------------------------------------------------------------- ends */

static void write_log(struct hp_map *map, const struct hp_map_end *end)
{
    struct hp_buf command;
    if (map->log.file == NULL || end->state == HP_STATE_CANCELLED) {
        return; /* cancelled ones are to be run by --resume */
    }
    hp_buf_init(&command, COMMAND_BYTES_MAX);
    if (map->args == NULL) {
        hp_cli_template_text(&map->template, end->input, end->number, &command);
    } else {
        hp_cli_put(&command, end->input, strlen(end->input));
    }
    hp_cli_put(&command, "", 1);
    if (!hp_map_log_add(&map->log, end, (const char *)command.data, strlen(end->input)) &&
        map->code == 0) {
        hp_cli_error("cannot write %s: %s.", map->log.path, strerror(errno));
        map->code = HP_CLI_FAILED;
    }
    hp_buf_deinit(&command);
}

static void count_end(struct hp_map *map, const struct hp_map_end *end)
{
    map->ended++;
    if (end->state == HP_STATE_DONE) {
        return;
    }
    if (end->state == HP_STATE_CANCELLED && map->is_stopped) {
        map->cancelled++;
        return;
    }
    map->failed++;
    if (map->first_failed_text == NULL) {
        map->first_failed_id = end->id;
        map->first_failed_text =
            hp_cli_printf("%" PRIu64 "%s%s, %s", end->id, end->node != NULL ? " on " : "",
                          end->node != NULL ? HP_CLI_SAFE(end->node) : "",
                          end->text != NULL ? end->text : "failed");
    }
}

void hp_map_take_end(struct hp_map *map, const struct hp_event *event)
{
    struct hp_map_group *group = event->user;
    if (event->index >= group->count || group->inputs[event->index] == NULL) {
        return;
    }
    struct hp_map_end *end = make_end(map, group, event);
    uint64_t order = group->first_order + event->index;
    group->left--;
    if (group->left == 0) {
        hp_map_group_free(group);
    }
    count_end(map, end);
    write_log(map, end);
    if (map->ring != NULL) {
        hold(map, end, order);
    } else {
        print_end(map, end);
    }
}
