/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The queue of events. A frame with many ended tasks is kept as it came and read entry by entry
 * when the events are taken, so that a task costs no allocation between the socket and the caller.
 */
#include <stdio.h>
#include <string.h>

#include "client/engine_state.h"
#include "client/view.h"
#include "common/base/assert.h"
#include "common/base/mem.h"

struct hp_item *hp_item_new(struct hp_engine *engine, enum hp_event_kind kind)
{
    struct hp_item *item = engine->spare;

    if (item != NULL) {
        engine->spare = NULL;
    } else {
        item = hp_calloc(1, sizeof(*item));
        if (item == NULL) {
            return NULL;
        }
        hp_arena_init(&item->arena, 512, SIZE_MAX / 8);
        hp_buf_init(&item->frame, HP_LIMIT_FRAME_BYTES);
        hp_list_init(&item->link);
    }
    item->kind = HP_ITEM_EVENT;
    item->event = (struct hp_event){.kind = kind};
    item->pieces = NULL;
    item->piece_count = 0;
    item->index = 0;
    item->call_index = 0;
    item->size = 0;
    item->tasks = NULL;
    return item;
}

static void item_destroy(struct hp_item *item)
{
    if (item != NULL) {
        hp_arena_deinit(&item->arena);
        hp_buf_deinit(&item->frame);
        hp_wire_free(item->wire);
        hp_free(item);
    }
}

void hp_item_free(struct hp_engine *engine, struct hp_item *item)
{
    if (item == NULL) {
        return;
    }
    engine->item_bytes -= item->size;
    if (hp_list_is_linked(&item->link)) {
        hp_list_remove(&item->link);
    }
    if (engine->spare != NULL) {
        item_destroy(item);
        return;
    }
    hp_arena_reset(&item->arena);
    hp_buf_clear(&item->frame);
    engine->spare = item;
}

void hp_item_clear(struct hp_engine *engine)
{
    while (!hp_list_is_empty(&engine->items)) {
        hp_item_free(engine, HP_LIST_ENTRY(hp_list_first(&engine->items), struct hp_item, link));
    }
    item_destroy(engine->spare);
    engine->spare = NULL;
}

void hp_item_queue(struct hp_engine *engine, struct hp_item *item, size_t size)
{
    item->size = size + sizeof(*item);
    engine->item_bytes += item->size;
    hp_list_push_back(&engine->items, &item->link);
}

enum hp_err hp_item_simple(struct hp_engine *engine, enum hp_event_kind kind, enum hp_status status,
                           const char *text)
{
    struct hp_item *item = hp_item_new(engine, kind);

    if (item == NULL) {
        return HP_ERR_NOMEM;
    }
    item->event.status = status;
    item->event.text = hp_arena_copy(&item->arena, text, strlen(text));
    hp_item_queue(engine, item, 0);
    return HP_OK;
}

/* ---------------------------------------------------------------- frames with tasks */

/* The array under a key of a map; NULL if it is absent, or is no array. */
static const struct hp_wire_obj *find_array(const struct hp_wire_obj *map, const char *name)
{
    for (uint32_t i = 0; i < hp_wire_count(map); i++) {
        const struct hp_wire_obj *key = hp_wire_key(map, i);
        const struct hp_wire_obj *value = hp_wire_value(map, i);

        if (hp_wire_type(key) == HP_WIRE_STR && hp_str_eq_c(hp_wire_str(key), name)) {
            return hp_wire_type(value) == HP_WIRE_ARRAY ? value : NULL;
        }
    }
    return NULL;
}

static bool find_true(const struct hp_wire_obj *map, const char *name)
{
    for (uint32_t i = 0; i < hp_wire_count(map); i++) {
        const struct hp_wire_obj *key = hp_wire_key(map, i);
        const struct hp_wire_obj *value = hp_wire_value(map, i);

        if (hp_wire_type(key) == HP_WIRE_STR && hp_str_eq_c(hp_wire_str(key), name)) {
            return hp_wire_type(value) == HP_WIRE_BOOL && hp_wire_bool(value);
        }
    }
    return false;
}

enum hp_err hp_event_read_task(struct hp_engine *engine, const struct hp_wire_obj *obj,
                               struct hp_arena *arena, struct hp_task *ret, struct hp_end *ret_end)
{
    struct hp_st_task_status status;
    struct hp_error error = {0};
    enum hp_err err = HP_ERR_PROTOCOL;

    (void)snprintf(error.text, sizeof(error.text), "a task is no map");
    if (hp_wire_type(obj) == HP_WIRE_MAP) {
        err = hp_st_task_status_decode(obj, arena, &status, &error);
    }
    err = err == HP_OK ? hp_view_task(&status, arena, false, ret, ret_end) : err;
    if (err != HP_OK) {
        (void)hp_engine_error_set(engine, hp_status_of_err(err), "%s", error.text);
    }
    return err;
}

static bool has_ended(const struct hp_task *task)
{
    return task->state >= HP_STATE_DONE;
}

/* An id above all acknowledged ones may belong to a submit whose answer is still under way: then
 * its run is checked once it is known. */
void hp_event_note_early(struct hp_engine *engine, uint64_t id)
{
    if (id > engine->id_max && engine->submits.next != engine->unsent) {
        engine->early_number = engine->next_number - 1;
    }
}

static struct hp_event ended_event(const struct hp_owner *owner, const struct hp_task *task)
{
    return (struct hp_event){.kind = HP_EVENT_ENDED,
                             .request = owner->request,
                             .user = owner->user,
                             .index = owner->index,
                             .ids = {.first = task->id, .count = 1},
                             .task = task};
}

/* Tasks that go to a sink are handed over when they come; ids not known yet are noted. */
static enum hp_err give_to_sinks(struct hp_engine *engine, const struct hp_item *item)
{
    for (uint32_t i = 0; item->tasks != NULL && i < hp_wire_count(item->tasks); i++) {
        struct hp_task task;
        struct hp_end end;
        struct hp_owner owner;

        hp_arena_reset(&engine->arena);
        if (hp_event_read_task(engine, hp_wire_item(item->tasks, i), &engine->arena, &task, &end) !=
            HP_OK) {
            return HP_ERR_PROTOCOL;
        }
        if (has_ended(&task) && !hp_track_find(&engine->track, task.id, &owner)) {
            hp_event_note_early(engine, task.id);
        }
        while (has_ended(&task) && hp_track_find(&engine->track, task.id, &owner) &&
               owner.sink != NULL) {
            struct hp_event event;

            (void)hp_track_end(&engine->track, task.id, &owner);
            event = ended_event(&owner, &task);
            owner.sink->take(owner.sink, &event);
        }
    }
    return HP_OK;
}

enum hp_status hp_item_queue_tasks(struct hp_engine *engine, struct hp_bin frame)
{
    struct hp_item *item = hp_item_new(engine, HP_EVENT_ENDED);
    struct hp_rpc rpc;
    struct hp_error error = {0};
    const struct hp_wire_obj *map;
    bool scan;

    if (item != NULL && item->wire == NULL) {
        item->wire = hp_wire_new();
    }
    if (item == NULL || item->wire == NULL ||
        hp_buf_append(&item->frame, frame.data, frame.size) != HP_OK) {
        hp_item_free(engine, item);
        return hp_engine_error_set(engine, HP_STATUS_NO_MEMORY, "out of memory");
    }
    item->kind = HP_ITEM_TASKS;
    if (hp_rpc_read(item->wire, item->frame.data, item->frame.size, &rpc, &error) != HP_OK) {
        hp_item_free(engine, item);
        return hp_engine_error_set(engine, HP_STATUS_PROTOCOL, "%s", error.text);
    }
    map = rpc.type == HP_RPC_NOTIFY ? rpc.params : rpc.result;
    item->tasks = find_array(map, rpc.type == HP_RPC_NOTIFY ? "events" : "tasks");
    if (rpc.type == HP_RPC_NOTIFY && find_true(map, "lost")) {
        hp_track_want_check(&engine->track);
        engine->early_number = engine->next_number - 1;
    }
    scan = engine->track.sink_left > 0 ||
           (engine->track.left == 0 && engine->submits.next != engine->unsent);
    if (scan && give_to_sinks(engine, item) != HP_OK) {
        hp_item_free(engine, item);
        return HP_STATUS_PROTOCOL;
    }
    if (item->tasks == NULL || engine->track.left == 0) {
        hp_item_free(engine, item); /* nobody waits for any of them */
        return HP_STATUS_OK;
    }
    hp_item_queue(engine, item, frame.size);
    return HP_STATUS_OK;
}

/* ---------------------------------------------------------------- taking events */

static bool next_submitted(struct hp_item *item, struct hp_event *ret_event)
{
    while (item->index < item->piece_count) {
        const struct hp_piece *piece = &item->pieces[item->index];
        uint32_t call = item->call_index;

        if (call < (piece->single ? piece->count : 1)) {
            *ret_event = item->event;
            ret_event->request = piece->request + call;
            ret_event->user = piece->user;
            ret_event->index = piece->index;
            ret_event->ids.count = piece->single ? 1 : piece->count;
            ret_event->ids.first =
                item->event.ids.first == 0 ? 0 : item->event.ids.first + piece->offset + call;
            item->call_index++;
            return true;
        }
        item->index++;
        item->call_index = 0;
    }
    return false;
}

static bool next_ended(struct hp_engine *engine, struct hp_item *item, struct hp_event *ret_event)
{
    while (item->index < hp_wire_count(item->tasks)) {
        struct hp_owner owner;

        hp_arena_reset(&engine->scratch);
        if (hp_event_read_task(engine, hp_wire_item(item->tasks, item->index), &engine->scratch,
                               &engine->task, &engine->end) != HP_OK) {
            if (engine->phase == HP_PHASE_OPEN) {
                hp_engine_fail(engine, HP_STATUS_PROTOCOL, "%s", engine->error_text);
            }
            return false;
        }
        if (has_ended(&engine->task) && hp_track_end(&engine->track, engine->task.id, &owner)) {
            hp_engine_follow(engine, engine->task.id, false);
            *ret_event = ended_event(&owner, &engine->task);
            /* With overlapping runs the id may be somebody else's too: look at it again. */
            item->index += engine->track.overlap ? 0 : 1;
            return true;
        }
        if (has_ended(&engine->task)) {
            hp_event_note_early(engine, engine->task.id);
        }
        item->index++;
    }
    return false;
}

static bool next_of(struct hp_engine *engine, struct hp_item *item, struct hp_event *ret_event)
{
    switch (item->kind) {
    case HP_ITEM_EVENT:
        *ret_event = item->event;
        return item->index++ == 0;
    case HP_ITEM_SUBMITTED:
        return next_submitted(item, ret_event);
    case HP_ITEM_TASKS:
        return next_ended(engine, item, ret_event);
    }
    return false;
}

/* An item is freed only when it gives nothing more, that is in a later call: what its last event
 * points to lives until then. */
bool hp_engine_next_event(struct hp_engine *engine, struct hp_event *ret_event)
{
    while (!hp_list_is_empty(&engine->items)) {
        struct hp_item *item = HP_LIST_ENTRY(hp_list_first(&engine->items), struct hp_item, link);

        if (next_of(engine, item, ret_event)) {
            return true;
        }
        hp_item_free(engine, item);
    }
    return false;
}

bool hp_engine_has_events(const struct hp_engine *engine)
{
    return !hp_list_is_empty(&engine->items);
}

enum hp_status hp_engine_track(struct hp_engine *engine, struct hp_ids ids, void *user,
                               uint64_t *ret_request)
{
    struct hp_piece piece = {.request = engine->next_request, .user = user, .count = ids.count};

    if (ids.count == 0 || ids.first == 0 || ids.first > UINT64_MAX - ids.count) {
        return hp_engine_error_set(engine, HP_STATUS_BAD_ARGUMENT, "no ids to track");
    }
    if (hp_track_add(&engine->track, ids, &piece, 1, HP_CHECK_WANTED) != HP_OK) {
        return hp_engine_error_set(engine, HP_STATUS_NO_MEMORY, "out of memory");
    }
    if (ret_request != NULL) {
        *ret_request = engine->next_request;
    }
    engine->next_request++;
    return HP_STATUS_OK;
}
