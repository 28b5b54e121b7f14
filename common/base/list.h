/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Intrusive doubly linked list: one struct is both head and node, an empty head points to itself.
 * An unlinked node points to itself too (hp_list_init), so removing twice does no harm. Owns
 * nothing.
 */
#ifndef HP_BASE_LIST_H
#define HP_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/macro.h"

struct hp_list {
    struct hp_list *prev;
    struct hp_list *next;
};

/* The element of type `type` which embeds `node` as `field`. */
#define HP_LIST_ENTRY(node, type, field) HP_CONTAINER_OF(node, type, field)

/* Walks nodes; the body must not remove `node` (use the _SAFE form, which allows just that). */
#define HP_LIST_FOR_EACH(node, head)                                                               \
    for (struct hp_list *node = (head)->next; node != (head); node = node->next)
#define HP_LIST_FOR_EACH_SAFE(node, head)                                                          \
    for (struct hp_list *node = (head)->next, *node##_next = node->next; node != (head);           \
         node = node##_next, node##_next = node->next)

/* Makes an empty head or an unlinked node. Needed once before any other call. */
static inline void hp_list_init(struct hp_list *list)
{
    list->prev = list;
    list->next = list;
}

static inline bool hp_list_is_empty(const struct hp_list *head)
{
    return head->next == head;
}

/* True if the node is in some list. */
static inline bool hp_list_is_linked(const struct hp_list *node)
{
    return node->next != node;
}

/* Links an unlinked `node` behind / before `at`, which is a node or a head. */
static inline void hp_list_insert_after(struct hp_list *at, struct hp_list *node)
{
    node->prev = at;
    node->next = at->next;
    at->next->prev = node;
    at->next = node;
}

static inline void hp_list_insert_before(struct hp_list *at, struct hp_list *node)
{
    hp_list_insert_after(at->prev, node);
}

static inline void hp_list_push_front(struct hp_list *head, struct hp_list *node)
{
    hp_list_insert_after(head, node);
}

static inline void hp_list_push_back(struct hp_list *head, struct hp_list *node)
{
    hp_list_insert_after(head->prev, node);
}

/* Unlinks; a node which is not linked stays so. */
static inline void hp_list_remove(struct hp_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    hp_list_init(node);
}

/* First / last node, or NULL of an empty list. */
static inline struct hp_list *hp_list_first(const struct hp_list *head)
{
    return hp_list_is_empty(head) ? NULL : head->next;
}

static inline struct hp_list *hp_list_last(const struct hp_list *head)
{
    return hp_list_is_empty(head) ? NULL : head->prev;
}

/* Unlinks and returns the first node, or NULL. */
static inline struct hp_list *hp_list_pop_front(struct hp_list *head)
{
    struct hp_list *node = hp_list_first(head);
    if (node != NULL) {
        hp_list_remove(node);
    }
    return node;
}

/* Moves all nodes of `from` to the end of `head`; `from` is empty then. */
static inline void hp_list_append_all(struct hp_list *head, struct hp_list *from)
{
    if (hp_list_is_empty(from)) {
        return;
    }
    from->next->prev = head->prev;
    head->prev->next = from->next;
    from->prev->next = head;
    head->prev = from->prev;
    hp_list_init(from);
}

#endif
