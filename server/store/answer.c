/* SPDX-License-Identifier: BSD-2-Clause */
/* Builder of answers, see answer.h. */
#include "server/store/answer.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/sys/clock.h"

#define CLOCK_STEPS 4u

void hp_answer_init(struct hp_answer *answer, struct hp_loaded *loaded)
{
    *answer = (struct hp_answer){.loaded = loaded, .load = loaded->load};
    answer->bytes_max =
        loaded->load->bytes_max > 0 ? loaded->load->bytes_max : HP_ANSWER_BYTES_DEFAULT;
}

void hp_answer_finish(struct hp_answer *answer)
{
    answer->load = NULL;
}

bool hp_answer_is_late(struct hp_answer *answer)
{
    if (answer->deadline_us == 0 || ++answer->step % CLOCK_STEPS != 0) {
        return false;
    }
    return hp_clock_mono_us() >= answer->deadline_us;
}

bool hp_answer_is_full(struct hp_answer *answer)
{
    const struct hp_loaded *loaded = answer->loaded;
    uint32_t limit = answer->load->limit;
    uint32_t count = 0;
    if (answer->load->kind == HP_LOAD_LANE) {
        count = loaded->run_count;
    } else if (answer->load->kind == HP_LOAD_SIDES) {
        count = loaded->side_count;
    } else if (answer->load->kind == HP_LOAD_GROUPS) {
        count = loaded->group_count;
        limit = 0;
    } else {
        count = loaded->task_count;
        limit = answer->load->kind == HP_LOAD_LIST ? limit : 0;
    }
    if (count == 0) {
        return false;
    }
    return (limit > 0 && count >= limit) || answer->bytes >= answer->bytes_max ||
           hp_answer_is_late(answer);
}

struct hp_bin hp_answer_copy(struct hp_answer *answer, struct hp_bin bin)
{
    struct hp_bin copy = {0};
    if (bin.size > 0) {
        enum hp_err err = hp_arena_copy_bin(&answer->loaded->arena, bin, &copy);
        HP_ASSERT(err == HP_OK);
        answer->bytes += bin.size;
    }
    return copy;
}

void hp_answer_text(struct hp_answer *answer, const char *text)
{
    answer->loaded->text = hp_answer_copy(
        answer, (struct hp_bin){.data = (const uint8_t *)text, .size = (uint32_t)strlen(text)});
}

void hp_answer_fail(struct hp_answer *answer, enum hp_err err, const char *text)
{
    answer->loaded->err = err;
    hp_answer_text(answer, text);
}

/* Room for one more of `count` items of `size` bytes. */
static void *grow(struct hp_answer *answer, void *items, uint32_t count, uint32_t *capacity,
                  size_t size)
{
    if (count < *capacity) {
        return items;
    }
    uint32_t more = *capacity == 0 ? 16 : *capacity * 2;
    void *grown = hp_arena_calloc(&answer->loaded->arena, more, size);
    HP_ASSERT(grown != NULL);
    if (count > 0) {
        memcpy(grown, items, count * size);
    }
    *capacity = more;
    return grown;
}

void hp_answer_begin_run(struct hp_answer *answer)
{
    answer->run_open = false;
}

void hp_answer_add_ids(struct hp_answer *answer, uint64_t segment, uint64_t first, uint32_t count,
                       int64_t since_ms)
{
    struct hp_loaded *loaded = answer->loaded;
    if (answer->run_open && loaded->run_count > 0) {
        struct hp_id_run *last = &loaded->runs[loaded->run_count - 1];
        if (last->first + last->count == first) {
            last->count += count;
            return;
        }
    }
    uint32_t capacity = answer->run_capacity; /* both arrays grow in step */
    loaded->runs =
        grow(answer, loaded->runs, loaded->run_count, &answer->run_capacity, sizeof(*loaded->runs));
    loaded->run_segments = grow(answer, loaded->run_segments, loaded->run_count, &capacity,
                                sizeof(*loaded->run_segments));
    loaded->runs[loaded->run_count] =
        (struct hp_id_run){.first = first, .count = count, .since_ms = since_ms};
    loaded->run_segments[loaded->run_count] = segment;
    loaded->run_count++;
    answer->bytes += sizeof(*loaded->runs);
    answer->run_open = true;
}

bool hp_answer_has_group(const struct hp_answer *answer, uint64_t first)
{
    const struct hp_loaded *loaded = answer->loaded;
    return loaded->group_count > 0 && loaded->groups[loaded->group_count - 1].first == first;
}

void hp_answer_add_group(struct hp_answer *answer, const struct hp_loaded_group *group)
{
    struct hp_loaded *loaded = answer->loaded;
    loaded->groups = grow(answer, loaded->groups, loaded->group_count, &answer->group_capacity,
                          sizeof(*loaded->groups));
    struct hp_loaded_group *copy = &loaded->groups[loaded->group_count++];
    *copy = *group;
    copy->session = hp_answer_copy(answer, group->session);
    copy->options = hp_answer_copy(answer, group->options);
    copy->pack = hp_answer_copy(answer, group->pack);
    answer->bytes += sizeof(*copy);
}

void hp_answer_add_task(struct hp_answer *answer, const struct hp_loaded_task *task)
{
    struct hp_loaded *loaded = answer->loaded;
    loaded->tasks = grow(answer, loaded->tasks, loaded->task_count, &answer->task_capacity,
                         sizeof(*loaded->tasks));
    struct hp_loaded_task *copy = &loaded->tasks[loaded->task_count++];
    *copy = *task;
    copy->result.end =
        answer->load->with_end ? hp_answer_copy(answer, task->result.end) : (struct hp_bin){0};
    answer->bytes += sizeof(*copy);
}

void hp_answer_add_side(struct hp_answer *answer, const struct hp_side *side)
{
    struct hp_loaded *loaded = answer->loaded;
    loaded->sides = grow(answer, loaded->sides, loaded->side_count, &answer->side_capacity,
                         sizeof(*loaded->sides));
    loaded->sides[loaded->side_count++] = *side;
    answer->bytes += sizeof(*side);
}

int hp_answer_side_order(const struct hp_side *a, const struct hp_side *b)
{
    if (a == NULL || b == NULL) {
        return (a == NULL) - (b == NULL);
    }
    if (a->run_at_ms != b->run_at_ms) {
        return a->run_at_ms < b->run_at_ms ? -1 : 1;
    }
    return (a->first > b->first) - (a->first < b->first);
}
