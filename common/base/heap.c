/* SPDX-License-Identifier: BSD-2-Clause */
/* Indexed binary heap. I1: items[i]->index == i + 1. I2: no item is before its parent. */
#include "common/base/heap.h"

#include <stddef.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

#define HEAP_CAPACITY_MIN 16u

void hp_heap_init(struct hp_heap *heap,
                  bool (*before)(const struct hp_heap_node *a, const struct hp_heap_node *b))
{
    HP_ASSERT(before != NULL);
    *heap = (struct hp_heap){.before = before};
}

void hp_heap_deinit(struct hp_heap *heap)
{
    hp_free(heap->items);
    heap->items = NULL;
    heap->count = 0;
    heap->capacity = 0;
}

static enum hp_err set_capacity(struct hp_heap *heap, uint32_t capacity)
{
    struct hp_heap_node **items =
        hp_realloc_array(heap->items, capacity, sizeof(struct hp_heap_node *));
    if (items == NULL) {
        return HP_ERR_NOMEM;
    }
    heap->items = items;
    heap->capacity = capacity;
    return HP_OK;
}

enum hp_err hp_heap_reserve(struct hp_heap *heap, uint32_t more)
{
    if (more <= heap->capacity - heap->count) {
        return HP_OK;
    }
    if (more > UINT32_MAX / 2 - heap->count) {
        return HP_ERR_NOMEM;
    }
    uint32_t capacity = HP_MAX(heap->capacity * 2, HEAP_CAPACITY_MIN);
    return set_capacity(heap, HP_MAX(capacity, heap->count + more));
}

static void put_at(struct hp_heap *heap, uint32_t i, struct hp_heap_node *node)
{
    heap->items[i] = node;
    node->index = i + 1;
}

static uint32_t sift_up(struct hp_heap *heap, uint32_t i, struct hp_heap_node *node)
{
    while (i > 0) {
        uint32_t parent = (i - 1) / 2;
        if (!heap->before(node, heap->items[parent])) {
            break;
        }
        put_at(heap, i, heap->items[parent]);
        i = parent;
    }
    put_at(heap, i, node);
    return i;
}

static void sift_down(struct hp_heap *heap, uint32_t i, struct hp_heap_node *node)
{
    while (2 * i + 1 < heap->count) {
        uint32_t child = 2 * i + 1;
        if (child + 1 < heap->count && heap->before(heap->items[child + 1], heap->items[child])) {
            child++;
        }
        if (!heap->before(heap->items[child], node)) {
            break;
        }
        put_at(heap, i, heap->items[child]);
        i = child;
    }
    put_at(heap, i, node);
}

/* Places `node`, whose right place may be above or below `i`. */
static void settle(struct hp_heap *heap, uint32_t i, struct hp_heap_node *node)
{
    if (sift_up(heap, i, node) == i) {
        sift_down(heap, i, node);
    }
}

enum hp_err hp_heap_push(struct hp_heap *heap, struct hp_heap_node *node)
{
    HP_ASSERT(heap->before != NULL);
    HP_ASSERT(node->index == 0);
    enum hp_err err = hp_heap_reserve(heap, 1);
    if (err != HP_OK) {
        return err;
    }
    heap->count++;
    (void)sift_up(heap, heap->count - 1, node); /* its new place does not matter here */
    return HP_OK;
}

struct hp_heap_node *hp_heap_peek(const struct hp_heap *heap)
{
    return heap->count > 0 ? heap->items[0] : NULL;
}

struct hp_heap_node *hp_heap_pop(struct hp_heap *heap)
{
    struct hp_heap_node *node = hp_heap_peek(heap);
    if (node != NULL) {
        hp_heap_remove(heap, node);
    }
    return node;
}

void hp_heap_remove(struct hp_heap *heap, struct hp_heap_node *node)
{
    if (node->index == 0) {
        return;
    }
    uint32_t i = node->index - 1;
    HP_ASSERT(i < heap->count && heap->items[i] == node); /* I1 */
    heap->count--;
    node->index = 0;
    if (i < heap->count) {
        settle(heap, i, heap->items[heap->count]);
    }
    if (heap->capacity > HEAP_CAPACITY_MIN * 4 && heap->count < heap->capacity / 8) {
        (void)set_capacity(heap, heap->capacity / 4); /* keeping the larger array is fine */
    }
}

void hp_heap_update(struct hp_heap *heap, struct hp_heap_node *node)
{
    HP_ASSERT(node->index != 0);
    HP_ASSERT(node->index <= heap->count && heap->items[node->index - 1] == node); /* I1 */
    settle(heap, node->index - 1, node);
}
