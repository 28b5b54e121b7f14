/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Output of followed commands. A connection is what the broker follows for, so after a reconnect
 * the engine asks again, and cuts off what the caller has seen: the broker then sends from the kept
 * output on. Offsets are per attempt and stream.
 */
#include "client/engine_state.h"
#include "common/base/assert.h"

static struct hp_followed *find(struct hp_engine *engine, uint64_t id)
{
    for (uint32_t i = 0; i < engine->followed_count; i++) {
        if (engine->followed[i].id == id) {
            return &engine->followed[i];
        }
    }
    return NULL;
}

void hp_engine_follow(struct hp_engine *engine, uint64_t id, bool on)
{
    struct hp_followed *followed = find(engine, id);

    if (!on && followed != NULL) {
        *followed = engine->followed[--engine->followed_count];
    } else if (on && followed == NULL && engine->followed_count < HP_FOLLOWED_MAX) {
        /* Beyond the limit output still comes; only a reconnect ends it. */
        engine->followed[engine->followed_count++] = (struct hp_followed){.id = id};
    }
}

static void ask(struct hp_engine *engine, uint64_t id)
{
    struct hp_msg_task_follow follow;
    struct hp_buf params;

    hp_msg_task_follow_init(&follow);
    follow.id = id;
    hp_buf_init(&params, 256);
    if (hp_msg_task_follow_encode(&params, &follow) != HP_OK) {
        hp_buf_deinit(&params);
        hp_engine_fail(engine, HP_STATUS_NO_MEMORY, "out of memory");
        return;
    }
    if (hp_call_begin(engine, HP_METHOD_TASK_FOLLOW, &params, NULL, NULL, true, NULL) !=
        HP_STATUS_OK) {
        hp_engine_fail(engine, HP_STATUS_NO_MEMORY, "out of memory");
    }
}

void hp_follow_resume(struct hp_engine *engine)
{
    for (uint32_t i = 0; i < engine->followed_count; i++) {
        ask(engine, engine->followed[i].id);
    }
}

/* Drops the bytes that were delivered before; false: all of them were. */
static bool cut_seen(struct hp_engine *engine, struct hp_msg_task_output *output)
{
    struct hp_followed *followed = find(engine, output->id);
    uint64_t *next;
    uint64_t end = output->offset + output->data.size;

    if (followed == NULL) {
        return true;
    }
    if (followed->attempt != output->attempt) {
        *followed = (struct hp_followed){.id = output->id, .attempt = output->attempt};
    }
    next = &followed->next_offset[output->stream == HP_STREAM_STDERR];
    if (end <= *next && output->data.size > 0) {
        return false;
    }
    if (output->offset < *next) {
        uint64_t seen = *next - output->offset;

        output->data.data += seen;
        output->data.size -= (uint32_t)seen;
        output->offset = *next;
    }
    *next = HP_MAX(*next, end);
    return true;
}

void hp_follow_output(struct hp_engine *engine, const struct hp_wire_obj *params)
{
    struct hp_msg_task_output output;
    struct hp_error error = {0};
    struct hp_item *item;
    void *copy;

    if (hp_msg_task_output_decode(params, &engine->arena, &output, &error) != HP_OK ||
        output.offset > UINT64_MAX - output.data.size) {
        hp_engine_fail(engine, HP_STATUS_PROTOCOL, "task.output: %s", error.text);
        return;
    }
    if (!cut_seen(engine, &output)) {
        return;
    }
    item = hp_item_new(engine, HP_EVENT_OUTPUT);
    copy = item == NULL ? NULL : hp_arena_copy(&item->arena, output.data.data, output.data.size);
    if (copy == NULL) {
        hp_item_free(engine, item);
        hp_engine_fail(engine, HP_STATUS_NO_MEMORY, "out of memory");
        return;
    }
    item->event.output_id = output.id;
    item->event.output_attempt = output.attempt;
    item->event.output_stream = (enum hp_output)output.stream;
    item->event.output_offset = output.offset;
    item->event.output_data = (struct hp_bytes){.data = copy, .size = output.data.size};
    hp_item_queue(engine, item, output.data.size);
}
