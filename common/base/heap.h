/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Intrusive indexed binary min-heap: elements embed a node which knows its place, so removing or
 * re-keying any element is O(log n). The heap owns only its array of pointers; elements must not
 * move while they are in it.
 *
 * Order must be total to be deterministic: break ties by id in the callback.
 */
#ifndef HP_BASE_HEAP_H
#define HP_BASE_HEAP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

/* Embedded in an element. All-zero means "in no heap". */
struct hp_heap_node {
    uint32_t index; /* place in the heap plus 1; 0: in no heap */
};

struct hp_heap {
    struct hp_heap_node **items;
    uint32_t count;
    uint32_t capacity;
    bool (*before)(const struct hp_heap_node *a, const struct hp_heap_node *b);
};

/* Makes an empty heap. `before(a, b)` is true if a must come out before b. Allocates nothing. */
void hp_heap_init(struct hp_heap *heap,
                  bool (*before)(const struct hp_heap_node *a, const struct hp_heap_node *b));

/* Frees the array. Elements still inside keep a stale index; they are the caller's. */
void hp_heap_deinit(struct hp_heap *heap);

/* Makes room for `more` further elements, so that as many pushes can not fail. HP_ERR_NOMEM. */
enum hp_err hp_heap_reserve(struct hp_heap *heap, uint32_t more) HP_MUST_CHECK;

/* Adds an element which is in no heap. HP_ERR_NOMEM leaves all as it was. */
enum hp_err hp_heap_push(struct hp_heap *heap, struct hp_heap_node *node) HP_MUST_CHECK;

/* The first element, or NULL. */
struct hp_heap_node *hp_heap_peek(const struct hp_heap *heap);

/* Removes and returns the first element, or NULL. */
struct hp_heap_node *hp_heap_pop(struct hp_heap *heap);

/* Removes an element of this heap; one which is in no heap is left alone. */
void hp_heap_remove(struct hp_heap *heap, struct hp_heap_node *node);

/* Restores the order after the key of `node` (in this heap) has changed either way. */
void hp_heap_update(struct hp_heap *heap, struct hp_heap_node *node);

/* True if the node is in a heap. */
static inline bool hp_heap_contains(const struct hp_heap_node *node)
{
    return node->index != 0;
}

#endif
