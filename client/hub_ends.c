/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ends and other news for the callbacks. A round takes what is there under the lock, gives the lock
 * up, calls back, and frees. Frames with ends are taken whole out of the client's queue, so that
 * results are lent from the frame they came in.
 */
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "client/hub_state.h"
#include "common/base/assert.h"
#include "common/base/mem.h"

/* Ends of one round, about. */
#define ROUND_ENDS 2048u

/* One call back for tasks that have become known. */
struct known {
    struct hp_hub_block *block;
    uint32_t index;
    uint32_t count;
    uint64_t first;
};

struct round {
    struct hp_arena arena;
    struct hp_list items; /* taken out of the client */
    struct hp_list fetched;
    struct hp_list failed;
    struct hp_hub_end *ends;
    size_t end_count;
    size_t end_capacity;
    struct known *known;
    size_t known_count;
    struct hp_list released;
    const struct hp_event *state;
};

static void hub_broken(struct hp_hub *hub)
{
    hp_engine_fail(hub->client->engine, HP_STATUS_NO_MEMORY, "out of memory");
}

static struct hp_item *first_item(const struct hp_engine *engine)
{
    return HP_LIST_ENTRY(hp_list_first(&engine->items), struct hp_item, link);
}

/* Nobody wants to know: an acknowledgement without a callback for it. */
static bool is_dull(const struct hp_hub *hub, const struct hp_item *item)
{
    return (item->kind == HP_ITEM_SUBMITTED && item->event.kind == HP_EVENT_SUBMITTED &&
            hub->callbacks.submitted == NULL) ||
           (item->kind == HP_ITEM_EVENT && hub->callbacks.state == NULL);
}

bool hp_hub_has_ends(const struct hp_hub *hub)
{
    return !hp_list_is_empty(&hub->client->engine->items) || !hp_list_is_empty(&hub->failed) ||
           !hp_list_is_empty(&hub->fetched) || !hp_list_is_empty(&hub->released);
}

/* ---------------------------------------------------------------- blocks */

static void unpin(struct hp_hub_block *block, uint32_t count)
{
    HP_ASSERT(block->left >= count);
    block->left -= count; /* I4 */
    if (block->left == 0 && block->unknown == 0) {
        if (hp_list_is_linked(&block->link)) {
            hp_list_remove(&block->link);
        }
        hp_hub_block_free(block);
    }
}

/* Remembers what has ended, for `dropped`. Without memory a block is not told of at all. */
static void mark_ended(const struct hp_hub *hub, struct hp_hub_block *block, uint64_t index,
                       uint32_t count)
{
    if (hub->callbacks.dropped == NULL) {
        return;
    }
    if (block->ended == NULL) {
        block->ended = hp_calloc((block->count + 63) / 64, sizeof(*block->ended));
    }
    for (uint64_t i = index; block->ended != NULL && i < index + count; i++) {
        block->ended[i / 64] |= UINT64_C(1) << i % 64;
    }
}

static struct hp_hub_end *add_end(struct round *round)
{
    if (round->end_count == round->end_capacity) {
        size_t capacity = round->end_capacity == 0 ? 16 : round->end_capacity * 2;
        struct hp_hub_end *ends = hp_realloc_array(round->ends, capacity, sizeof(*ends));

        if (ends == NULL) {
            return NULL;
        }
        round->ends = ends;
        round->end_capacity = capacity;
    }
    round->ends[round->end_count] = (struct hp_hub_end){.text = ""};
    return &round->ends[round->end_count++];
}

/* ---------------------------------------------------------------- large results */

static void fetch_free(struct hp_hub_fetch *fetch)
{
    hp_result_free(fetch->result);
    hp_buffer_clear(&fetch->buffer);
    hp_list_remove(&fetch->link);
    hp_free(fetch);
}

static void fetch_done(void *context, enum hp_status status, const char *text,
                       struct hp_buffer *buffer)
{
    struct hp_hub_fetch *fetch = context;
    const struct hp_task *task = &fetch->result->task;

    fetch->fetch = NULL;
    fetch->status = status;
    (void)snprintf(fetch->text, sizeof(fetch->text), "%s",
                   text[0] != '\0' || status == HP_STATUS_OK ? text : hp_strerror(status));
    fetch->buffer = *buffer;
    if (status == HP_STATUS_OK && task->end->has_digest && task->state == HP_STATE_DONE &&
        XXH3_64bits(buffer->data, buffer->size) != task->end->digest) {
        fetch->status = HP_STATUS_DAMAGED;
        (void)snprintf(fetch->text, sizeof(fetch->text), "the result of task %llu is damaged",
                       (unsigned long long)task->id);
        hp_buffer_clear(&fetch->buffer);
    }
    hp_list_remove(&fetch->link);
    hp_list_push_back(&fetch->hub->fetched, &fetch->link);
}

static bool begin_fetch(struct hp_hub *hub, const struct hp_task *task, void *user)
{
    struct hp_hub_fetch *fetch = hp_calloc(1, sizeof(*fetch));

    if (fetch == NULL) {
        return false;
    }
    fetch->hub = hub;
    fetch->user = user;
    fetch->result = hp_result_copy(task);
    hp_list_push_back(&hub->fetches, &fetch->link);
    if (fetch->result != NULL) {
        fetch->fetch =
            hp_fetch_begin(hub->client->engine, task->end->result_blob, fetch_done, fetch);
    }
    if (fetch->fetch == NULL) {
        fetch_free(fetch);
        return false;
    }
    hub->dirty = true;
    return true;
}

static void fill_end(struct hp_hub_end *end, const struct hp_task *task, void *user)
{
    end->user = user;
    end->id = task->id;
    end->state = task->state;
    end->reason = task->reason;
    end->attempt = task->attempt;
    end->node = task->node;
    end->end = task->end;
    if (task->end != NULL) {
        end->result = task->end->result;
    }
}

/* ---------------------------------------------------------------- collecting */

static void note_lost(struct hp_hub_end *end, bool is_volatile)
{
    end->status = is_volatile ? HP_STATUS_BROKER_LOST : HP_STATUS_NOT_FOUND;
    end->text = is_volatile ? hp_strerror(HP_STATUS_BROKER_LOST)
                            : "the broker does not know the task, or not any more";
}

/* One task of a frame, for each call that waits for it (more than one only if ids overlap). */
static bool take_task(struct hp_hub *hub, struct round *round, const struct hp_task *task)
{
    struct hp_engine *engine = hub->client->engine;
    struct hp_owner owner;

    if (task->state < HP_STATE_DONE) {
        return true;
    }
    if (!hp_track_find(&engine->track, task->id, &owner)) {
        hp_event_note_early(engine, task->id);
        return true;
    }
    while (hp_track_end(&engine->track, task->id, &owner)) {
        struct hp_hub_block *block = owner.user;
        void *user = block->users[owner.index];
        bool is_volatile = block->is_volatile;

        hp_engine_follow(engine, task->id, false);
        mark_ended(hub, block, owner.index, 1);
        unpin(block, 1);
        if (task->end != NULL && task->end->result_blob != 0 && begin_fetch(hub, task, user)) {
            continue;
        }
        struct hp_hub_end *end = add_end(round);

        if (end == NULL) {
            hub_broken(hub);
            return false;
        }
        fill_end(end, task, user);
        if (task->state == HP_STATE_GONE || task->state == HP_STATE_UNKNOWN) {
            note_lost(end, is_volatile);
        } else if (task->end != NULL && task->end->result_blob != 0) {
            end->status = HP_STATUS_NO_MEMORY;
            end->text = "out of memory";
        }
    }
    return true;
}

static void take_tasks(struct hp_hub *hub, struct round *round, const struct hp_item *item)
{
    struct hp_engine *engine = hub->client->engine;

    for (uint32_t i = 0; i < hp_wire_count(item->tasks); i++) {
        struct hp_task task;
        struct hp_end *end = HP_ARENA_NEW(&round->arena, struct hp_end);

        if (end == NULL) {
            hub_broken(hub);
            return;
        }
        if (hp_event_read_task(engine, hp_wire_item(item->tasks, i), &round->arena, &task, end) !=
            HP_OK) {
            hp_engine_fail(engine, HP_STATUS_PROTOCOL, "%s", engine->error_text);
            return;
        }
        if (!take_task(hub, round, &task)) {
            return;
        }
    }
}

/* A refused submit: each of its tasks ends. */
static void take_failure(struct hp_hub *hub, struct round *round, const struct hp_item *item)
{
    for (uint32_t i = 0; i < item->piece_count; i++) {
        const struct hp_piece *piece = &item->pieces[i];
        struct hp_hub_block *block = piece->user;

        for (uint32_t j = 0; j < piece->count; j++) {
            struct hp_hub_end *end = add_end(round);

            if (end == NULL) {
                hub_broken(hub);
                return;
            }
            end->user = block->users[piece->index + j];
            end->status = item->event.status;
            end->text = item->event.text != NULL ? item->event.text : "";
        }
        mark_ended(hub, block, piece->index, piece->count);
        block->unknown -= piece->count;
        unpin(block, piece->count);
    }
}

static void take_known(struct hp_hub *hub, struct round *round, const struct hp_item *item)
{
    round->known = HP_ARENA_NEW_ARRAY(&round->arena, struct known, item->piece_count);
    if (round->known == NULL) {
        hub_broken(hub);
        return;
    }
    for (uint32_t i = 0; i < item->piece_count; i++) {
        const struct hp_piece *piece = &item->pieces[i];

        round->known[round->known_count++] =
            (struct known){.block = piece->user,
                           .index = (uint32_t)piece->index,
                           .count = piece->count,
                           .first = item->event.ids.first + piece->offset};
        round->known[i].block->left++; /* pinned */
        round->known[i].block->unknown -= piece->count;
    }
}

/* Blocks that the engine did not take. */
static void take_failed(struct hp_hub *hub, struct round *round)
{
    while (!hp_list_is_empty(&hub->failed)) {
        struct hp_hub_block *block =
            HP_LIST_ENTRY(hp_list_first(&hub->failed), struct hp_hub_block, link);

        hp_list_remove(&block->link);
        hp_list_push_back(&round->failed, &block->link);
        block->unknown = 0;
        if (block->is_large) {
            hub->release.release(&hub->release, block);
        }
        for (uint32_t i = 0; i < block->count; i++) {
            struct hp_hub_end *end = add_end(round);

            if (end == NULL) {
                return; /* without memory nothing better can be done */
            }
            end->user = block->users[i];
            end->status = (enum hp_status)block->first;
            end->text = hp_strerror(end->status);
        }
    }
}

static void take_fetched(struct hp_hub *hub, struct round *round)
{
    while (!hp_list_is_empty(&hub->fetched)) {
        struct hp_hub_fetch *fetch =
            HP_LIST_ENTRY(hp_list_first(&hub->fetched), struct hp_hub_fetch, link);
        struct hp_hub_end *end = add_end(round);

        if (end == NULL) {
            return; /* it stays for the next round */
        }
        hp_list_remove(&fetch->link);
        hp_list_push_back(&round->fetched, &fetch->link);
        fill_end(end, &fetch->result->task, fetch->user);
        end->status = fetch->status;
        end->text = fetch->text;
        if (fetch->status == HP_STATUS_OK) {
            end->result = (struct hp_bytes){.data = fetch->buffer.data, .size = fetch->buffer.size};
            end->owned = &fetch->buffer;
        }
    }
}

static void take_item(struct hp_hub *hub, struct round *round, struct hp_item *item)
{
    hp_list_remove(&item->link);
    hp_list_push_back(&round->items, &item->link);
    if (is_dull(hub, item)) {
        return;
    }
    switch (item->kind) {
    case HP_ITEM_TASKS:
        take_tasks(hub, round, item);
        break;
    case HP_ITEM_SUBMITTED:
        if (item->event.kind == HP_EVENT_SUBMITTED) {
            take_known(hub, round, item);
        } else {
            take_failure(hub, round, item);
        }
        break;
    case HP_ITEM_EVENT:
        if (item->event.kind == HP_EVENT_CONNECTED || item->event.kind == HP_EVENT_DISCONNECTED) {
            round->state = &item->event;
        }
        break;
    }
}

/* In the order in which things came: a round ends behind news other than ends. */
static void collect(struct hp_hub *hub, struct round *round)
{
    struct hp_engine *engine = hub->client->engine;

    take_failed(hub, round);
    take_fetched(hub, round);
    while (!hp_list_is_empty(&engine->items) && round->end_count < ROUND_ENDS &&
           round->known == NULL && round->state == NULL) {
        take_item(hub, round, first_item(engine));
    }
    while (!hp_list_is_empty(&hub->released)) {
        struct hp_list *link = hp_list_first(&hub->released);

        hp_list_remove(link);
        hp_list_push_back(&round->released, link);
    }
}

/* ---------------------------------------------------------------- calling back */

static struct hp_hub_block *released_block(struct hp_list *link)
{
    return HP_LIST_ENTRY(link, struct hp_hub_block, release_link);
}

/* Without the lock. */
static void call_back(struct hp_hub *hub, struct round *round)
{
    const struct hp_hub_callbacks *callbacks = &hub->callbacks;

    HP_LIST_FOR_EACH (link, &round->released) {
        callbacks->released(hub->context, released_block(link)->users[0]);
    }
    if (round->end_count > 0) {
        (void)atomic_fetch_sub(&hub->outstanding, round->end_count);
        callbacks->ended(hub->context, round->ends, round->end_count);
    }
    for (size_t i = 0; i < round->known_count; i++) {
        const struct known *known = &round->known[i];

        callbacks->submitted(hub->context, known->block->users + known->index, known->first,
                             known->count);
    }
    if (round->state != NULL) {
        callbacks->state(hub->context, round->state->kind == HP_EVENT_CONNECTED,
                         round->state->status, round->state->text);
    }
}

static void round_free(struct hp_hub *hub, struct round *round)
{
    for (size_t i = 0; i < round->known_count; i++) {
        unpin(round->known[i].block, 1);
    }
    while (!hp_list_is_empty(&round->fetched)) {
        fetch_free(HP_LIST_ENTRY(hp_list_first(&round->fetched), struct hp_hub_fetch, link));
    }
    while (!hp_list_is_empty(&round->failed)) {
        struct hp_hub_block *block =
            HP_LIST_ENTRY(hp_list_first(&round->failed), struct hp_hub_block, link);

        hp_list_remove(&block->link);
        unpin(block, block->count); /* its release may pin it still */
    }
    while (!hp_list_is_empty(&round->released)) {
        struct hp_list *link = hp_list_first(&round->released);

        hp_list_remove(link);
        unpin(released_block(link), 1);
    }
    while (!hp_list_is_empty(&round->items)) {
        hp_item_free(hub->client->engine,
                     HP_LIST_ENTRY(hp_list_first(&round->items), struct hp_item, link));
    }
    hp_arena_deinit(&round->arena);
    hp_free(round->ends);
}

static bool has_news(const struct round *round)
{
    return round->end_count > 0 || round->known_count > 0 || round->state != NULL ||
           !hp_list_is_empty(&round->released);
}

void hp_hub_deliver(struct hp_hub *hub)
{
    void *outer = atomic_load(&hub->deliverer);

    if (outer != NULL && outer != hp_hub_self()) {
        return; /* I3 */
    }
    while (hp_hub_has_ends(hub)) {
        struct round round = {.end_count = 0};

        hp_arena_init(&round.arena, 16u << 10, SIZE_MAX / 8);
        hp_list_init(&round.items);
        hp_list_init(&round.fetched);
        hp_list_init(&round.failed);
        hp_list_init(&round.released);
        collect(hub, &round);
        if (has_news(&round)) {
            atomic_store(&hub->deliverer, hp_hub_self());
            hp_hub_leave(hub);
            call_back(hub, &round);
            hp_hub_enter(hub);
            atomic_store(&hub->deliverer, outer);
            hub->turns++;
        }
        round_free(hub, &round);
    }
}

static void drop(const struct hp_hub *hub, void *user)
{
    if (hub->callbacks.dropped != NULL) {
        hub->callbacks.dropped(hub->context, user);
    }
}

static void drop_block(const struct hp_hub *hub, struct hp_hub_block *block)
{
    bool unknown = block->ended == NULL && block->left < block->count;

    for (uint32_t i = 0; !unknown && i < block->count; i++) {
        if (block->ended == NULL || (block->ended[i / 64] >> i % 64 & 1) == 0) {
            drop(hub, block->users[i]);
        }
    }
    hp_list_remove(&block->link);
    hp_hub_block_free(block);
}

void hp_hub_ends_clear(struct hp_hub *hub)
{
    struct hp_list *fetches[] = {&hub->fetches, &hub->fetched};
    struct hp_list *blocks[] = {&hub->queue, &hub->blocks, &hub->failed};

    for (size_t i = 0; i < HP_COUNT_OF(fetches); i++) {
        while (!hp_list_is_empty(fetches[i])) {
            struct hp_hub_fetch *fetch =
                HP_LIST_ENTRY(hp_list_first(fetches[i]), struct hp_hub_fetch, link);

            drop(hub, fetch->user);
            fetch_free(fetch);
        }
    }
    for (size_t i = 0; i < HP_COUNT_OF(blocks); i++) {
        while (!hp_list_is_empty(blocks[i])) {
            drop_block(hub, HP_LIST_ENTRY(hp_list_first(blocks[i]), struct hp_hub_block, link));
        }
    }
}
