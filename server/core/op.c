/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory of batches, loads and answers. Running out of memory here aborts: a core that can not say
 * what is to be kept must not go on, and the restart reloads what was durable.
 */
#include "server/core/op.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

#define BATCH_CHUNK_BYTES ((size_t)64 << 10)
#define LOADED_CHUNK_BYTES ((size_t)4 << 10)
#define ARENA_BYTES_MAX ((size_t)1 << 30)
#define OPS_MIN 64u
#define OPS_KEEP_MAX 16384u /* a cleared batch gives a larger array back */

struct hp_batch *hp_batch_new(void)
{
    struct hp_batch *batch = hp_calloc(1, sizeof(*batch));
    HP_ASSERT(batch != NULL);
    hp_arena_init(&batch->arena, BATCH_CHUNK_BYTES, ARENA_BYTES_MAX);
    return batch;
}

void hp_batch_free(struct hp_batch *batch)
{
    if (batch == NULL) {
        return;
    }
    hp_arena_deinit(&batch->arena);
    hp_free(batch->ops);
    hp_free(batch);
}

void hp_batch_clear(struct hp_batch *batch, uint64_t number)
{
    hp_arena_reset(&batch->arena);
    if (batch->op_capacity > OPS_KEEP_MAX) {
        hp_free(batch->ops);
        batch->ops = NULL;
        batch->op_capacity = 0;
    }
    batch->op_count = 0;
    batch->number = number;
    batch->next = NULL;
}

struct hp_op *hp_batch_add(struct hp_batch *batch, enum hp_op_kind kind)
{
    if (batch->op_count == batch->op_capacity) {
        HP_ASSERT(batch->op_capacity <= UINT32_MAX / 2);
        uint32_t capacity = batch->op_capacity < OPS_MIN ? OPS_MIN : batch->op_capacity * 2;
        struct hp_op *ops = hp_realloc_array(batch->ops, capacity, sizeof(*ops));
        HP_ASSERT(ops != NULL);
        batch->ops = ops;
        batch->op_capacity = capacity;
    }
    struct hp_op *op = &batch->ops[batch->op_count++];
    memset(op, 0, sizeof(*op));
    op->kind = kind;
    return op;
}

struct hp_bin hp_batch_copy(struct hp_batch *batch, const void *data, size_t size)
{
    HP_ASSERT(size <= UINT32_MAX);
    if (size == 0) {
        return (struct hp_bin){0};
    }
    void *copy = hp_arena_copy(&batch->arena, data, size);
    HP_ASSERT(copy != NULL);
    return (struct hp_bin){.data = copy, .size = (uint32_t)size};
}

struct hp_load *hp_load_new(enum hp_load_kind kind)
{
    struct hp_load *load = hp_calloc(1, sizeof(*load));
    HP_ASSERT(load != NULL);
    load->kind = kind;
    return load;
}

void hp_load_set_text(struct hp_load *load, const void *data, size_t size)
{
    HP_ASSERT(size <= UINT32_MAX);
    uint8_t *copy = hp_memdup(data, size);
    HP_ASSERT(copy != NULL);
    hp_free((void *)(uintptr_t)load->text.data);
    load->text = (struct hp_bin){.data = copy, .size = (uint32_t)size};
}

void hp_load_free(struct hp_load *load)
{
    if (load == NULL) {
        return;
    }
    hp_free((void *)(uintptr_t)load->text.data);
    hp_free(load->spans);
    hp_free(load);
}

struct hp_loaded *hp_loaded_new(struct hp_load *load)
{
    HP_ASSERT(load != NULL);
    struct hp_loaded *loaded = hp_calloc(1, sizeof(*loaded));
    HP_ASSERT(loaded != NULL);
    loaded->load = load;
    hp_arena_init(&loaded->arena, LOADED_CHUNK_BYTES, ARENA_BYTES_MAX);
    return loaded;
}

void hp_loaded_free(struct hp_loaded *loaded)
{
    if (loaded == NULL) {
        return;
    }
    hp_arena_deinit(&loaded->arena);
    hp_load_free(loaded->load);
    hp_free(loaded);
}

void hp_queue_state_put(uint8_t state[HP_QUEUE_STATE_BYTES], bool paused, uint64_t delayed)
{
    state[0] = paused;
    for (int i = 0; i < 8; i++) {
        state[1 + i] = (uint8_t)(delayed >> (8 * i));
    }
}
