/* SPDX-License-Identifier: BSD-2-Clause */
/* Inputs become groups of tasks. */
#include "cli/map.h"

#include "cli/value.h"
#include "common/base/mem.h"

#include <inttypes.h>
#include <string.h>

/* A group is submitted when it has this many tasks or bytes, or when no input is at hand. */
#define GROUP_TASKS 512u
#define GROUP_BYTES ((size_t)256 << 10)
#define PAYLOAD_BYTES_MAX ((size_t)64 << 20)
#define CANCEL_RANGES 1000u

/* A group being gathered. */
struct gather {
    struct hp_buf payloads; /* one after the other */
    size_t ends[GROUP_TASKS];
    char *inputs[GROUP_TASKS];
    uint64_t numbers[GROUP_TASKS];
    uint32_t count;
};

static void put_payload(const struct hp_map *map, const char *input, uint64_t number,
                        struct hp_buf *buf)
{
    if (map->args != NULL) {
        hp_cli_value_put(buf, map->args, input);
    } else {
        hp_cli_template_payload(&map->template, input, number, buf);
    }
}

static struct hp_map_group *make_group(struct hp_map *map, struct gather *gather)
{
    struct hp_map_group *group = hp_cli_heap(sizeof(*group));
    group->first_order = map->submitted;
    group->count = gather->count;
    group->left = gather->count;
    group->ids = hp_cli_heap(gather->count * sizeof(*group->ids));
    group->numbers = hp_cli_heap(gather->count * sizeof(*group->numbers));
    group->inputs = hp_cli_heap(gather->count * sizeof(*group->inputs));
    memcpy(group->numbers, gather->numbers, gather->count * sizeof(*group->numbers));
    memcpy(group->inputs, gather->inputs, gather->count * sizeof(*group->inputs));
    return group;
}

void hp_map_group_free(struct hp_map_group *group)
{
    hp_list_remove(&group->link);
    for (uint32_t i = 0; i < group->count; i++) {
        hp_free(group->inputs[i]);
    }
    hp_free(group->ids);
    hp_free(group->numbers);
    hp_free(group->inputs);
    hp_free(group);
}

/* False: the client's window is full; the group stays gathered. */
static bool submit(struct hp_map *map, struct gather *gather)
{
    struct hp_bytes payloads[GROUP_TASKS];
    size_t start = 0;
    for (uint32_t i = 0; i < gather->count; i++) {
        payloads[i] = (struct hp_bytes){.data = gather->payloads.data + start,
                                        .size = gather->ends[i] - start};
        start = gather->ends[i];
    }
    struct hp_map_group *group = make_group(map, gather);
    hp_list_push_back(&map->groups, &group->link);
    enum hp_status status =
        hp_submit_async(map->cli->client, &map->options, payloads, gather->count, group, NULL);
    if (status == HP_STATUS_OK) {
        map->submitted += gather->count;
        gather->count = 0;
        hp_buf_clear(&gather->payloads);
        return true;
    }
    hp_free(group->inputs); /* the texts are still the gatherer's */
    group->inputs = NULL;
    group->count = 0;
    hp_map_group_free(group);
    if (status != HP_STATUS_AGAIN) {
        map->code = hp_cli_fail(map->cli, status, "cannot submit");
        map->is_stopped = true;
    }
    return false;
}

/* Takes an input into the gathered group, unless the joblog says that it is not to be run. */
static bool take_input(struct hp_map *map, struct gather *gather, const char *text)
{
    uint64_t number = map->input.number;
    if (map->log.seen != NULL) {
        struct hp_buf command;
        hp_buf_init(&command, PAYLOAD_BYTES_MAX);
        if (map->args == NULL) {
            hp_cli_template_text(&map->template, text, number, &command);
        } else {
            hp_cli_put(&command, text, strlen(text));
        }
        hp_cli_put(&command, "", 1);
        int wants = hp_map_log_wants(map->cli, &map->log, number, (const char *)command.data);
        hp_buf_deinit(&command);
        if (wants < 0) {
            map->code = HP_CLI_USAGE;
        }
        if (wants != 1) {
            map->skipped += wants == 0;
            return wants == 0;
        }
    }
    put_payload(map, text, number, &gather->payloads);
    gather->ends[gather->count] = gather->payloads.size;
    gather->numbers[gather->count] = number;
    gather->inputs[gather->count] = hp_cli_heap(strlen(text) + 1);
    memcpy(gather->inputs[gather->count], text, strlen(text) + 1);
    gather->count++;
    return true;
}

/* Tasks that may still be submitted. */
static uint64_t room(const struct hp_map *map)
{
    uint64_t flying = map->submitted - map->ended;
    uint64_t room = flying < map->window ? map->window - flying : 0;
    if (map->ring != NULL) {
        uint64_t held = map->submitted - map->print_order;
        uint64_t ring_room = held < map->ring_size ? map->ring_size - held : 0;
        room = ring_room < room ? ring_room : room;
    }
    return room;
}

static enum hp_map_next gather_some(struct hp_map *map, struct gather *gather)
{
    uint64_t limit = room(map);
    limit = limit < GROUP_TASKS ? limit : GROUP_TASKS;
    while (gather->count < limit && gather->payloads.size < GROUP_BYTES) {
        const char *text = NULL;
        enum hp_map_next next = hp_map_input_next(&map->input, &text);
        if (next != HP_MAP_GOT) {
            return next;
        }
        if (!take_input(map, gather, text)) {
            return HP_MAP_ERROR;
        }
    }
    return HP_MAP_GOT;
}

/* What could not be submitted is kept here for the next time: the client's window was full. */
static struct gather waiting = {.payloads = {.max = PAYLOAD_BYTES_MAX}};

enum hp_map_next hp_map_fill(struct hp_map *map)
{
    struct gather *gather = &waiting;
    enum hp_map_next next = HP_MAP_GOT;
    while (!map->is_stopped && next == HP_MAP_GOT && room(map) > gather->count) {
        next = map->is_input_end ? HP_MAP_END : gather_some(map, gather);
        if (gather->count > 0 && next != HP_MAP_ERROR && !submit(map, gather)) {
            next = next == HP_MAP_END ? HP_MAP_GOT : next;
            break;
        }
    }
    if (next == HP_MAP_ERROR) {
        map->code = map->code != 0 ? map->code : HP_CLI_FAILED;
        map->is_stopped = true;
    }
    map->is_input_end |= next == HP_MAP_END;
    if (map->is_stopped || map->is_input_end) {
        for (uint32_t i = 0; i < gather->count; i++) {
            hp_free(gather->inputs[i]);
        }
        gather->count = 0;
        hp_buf_deinit(&gather->payloads);
    }
    return next;
}

/* ---------------------------------------------------------------- answers */

static void take_submitted(struct hp_map *map, const struct hp_event *event)
{
    struct hp_map_group *group = event->user;
    for (uint32_t i = 0; i < event->ids.count && event->index + i < group->count; i++) {
        group->ids[event->index + i] = event->ids.first + i;
    }
    if (map->is_stopped) { /* it was on its way when all was cancelled */
        hp_map_cancel(map, !map->is_interrupted && map->halt.when == HP_CLI_HALT_SOON);
    }
}

static void take_submit_failed(struct hp_map *map, const struct hp_event *event)
{
    struct hp_map_group *group = event->user;
    uint32_t count = event->ids.count > 0 ? event->ids.count : group->left;
    if (map->code == 0) {
        hp_map_undraw(map);
        hp_cli_error("cannot submit: %s",
                     event->text != NULL ? event->text : hp_strerror(event->status));
        map->code = hp_cli_exit_of(event->status);
        map->is_stopped = true;
        hp_map_cancel(map, false);
    }
    map->submitted -= count < map->submitted ? count : map->submitted;
    group->left -= count < group->left ? count : group->left;
    if (group->left == 0) {
        hp_map_group_free(group);
    }
}

void hp_map_take_answer(struct hp_map *map, const struct hp_event *event)
{
    if (event->kind == HP_EVENT_SUBMITTED) {
        take_submitted(map, event);
    } else if (event->kind == HP_EVENT_SUBMIT_FAILED) {
        take_submit_failed(map, event);
    } else if (event->kind == HP_EVENT_REPLY && map->cancel_pending > 0) {
        map->cancel_pending--;
        if (event->status != HP_STATUS_OK && map->code == 0) {
            hp_cli_error("cannot cancel: %s",
                         event->text != NULL ? event->text : hp_strerror(event->status));
        }
    }
}

/* ---------------------------------------------------------------- cancel */

static void send_cancel(struct hp_map *map, const struct hp_ids *ranges, size_t count,
                        bool queued_only)
{
    enum hp_cancel_how how = queued_only ? HP_CANCEL_QUEUED : HP_CANCEL_FORCE;
    if (count > 0 &&
        hp_cancel_async(map->cli->client, ranges, count, how, map->options.kill_grace_ms,
                        "hostpool map stopped", NULL, NULL) == HP_STATUS_OK) {
        map->cancel_pending++;
    }
}

void hp_map_cancel(struct hp_map *map, bool queued_only)
{
    struct hp_ids ranges[CANCEL_RANGES];
    size_t count = 0;
    for (struct hp_list *at = map->groups.next; at != &map->groups; at = at->next) {
        const struct hp_map_group *group = HP_CONTAINER_OF(at, struct hp_map_group, link);
        for (uint32_t i = 0; i < group->count; i++) {
            if (group->ids[i] == 0 || group->inputs[i] == NULL) { /* on its way, or ended */
                continue;
            }
            struct hp_ids *tail = count > 0 ? &ranges[count - 1] : NULL;
            if (tail != NULL && tail->first + tail->count == group->ids[i]) {
                tail->count++;
                continue;
            }
            if (count == CANCEL_RANGES) {
                send_cancel(map, ranges, count, queued_only);
                count = 0;
            }
            ranges[count++] = (struct hp_ids){.first = group->ids[i], .count = 1};
        }
    }
    send_cancel(map, ranges, count, queued_only);
}
