/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What workers offer: tags, functions, languages. Workers of a farm mostly offer the same, so equal
 * offers are kept once: a thousand workers with a hundred functions each cost one list.
 *
 * Two offers are equal if their keys are: for each list its length, for each name its size and the
 * name, all sizes as 4 bytes. The names of an offer point into its key, which core->offers owns.
 */
#include <stdlib.h>

#include "server/core/offer.h"
#include "server/core/state.h"

enum { LISTS = 3 };

struct hp_offer {
    uint32_t refs; /* nodes */
    struct hp_str key;
    struct hp_list_str lists[LISTS]; /* in the order of `lists_of`; functions are sorted */
    struct hp_str names[];
};

static int compare_names(const void *a, const void *b)
{
    return hp_str_compare(*(const struct hp_str *)a, *(const struct hp_str *)b);
}

static void put_u32(struct hp_buf *buf, uint32_t value)
{
    hp_must(hp_buf_append(buf, &value, sizeof(value)));
}

static void make_key(struct hp_buf *buf, const struct hp_list_str *const lists[LISTS])
{
    for (int k = 0; k < LISTS; k++) {
        put_u32(buf, lists[k]->count);
        for (uint32_t i = 0; i < lists[k]->count; i++) {
            put_u32(buf, (uint32_t)lists[k]->items[i].size);
            hp_must(hp_buf_append(buf, lists[k]->items[i].data, lists[k]->items[i].size));
        }
    }
}

static uint32_t take_u32(const char **at)
{
    uint32_t value;
    memcpy(&value, *at, sizeof(value));
    *at += sizeof(value);
    return value;
}

/* Points the lists into the key. */
static void read_key(struct hp_offer *offer)
{
    const char *at = offer->key.data;
    struct hp_str *name = offer->names;
    for (int k = 0; k < LISTS; k++) {
        offer->lists[k] = (struct hp_list_str){.items = name, .count = take_u32(&at)};
        for (uint32_t i = 0; i < offer->lists[k].count; i++, name++) {
            uint32_t size = take_u32(&at);
            *name = (struct hp_str){.data = at, .size = size};
            at += size;
        }
    }
    if (offer->lists[1].count > 0) {
        qsort(offer->lists[1].items, offer->lists[1].count, sizeof(struct hp_str), compare_names);
    }
}

static struct hp_offer *offer_new(struct hp_core *core, struct hp_str key, uint32_t name_count)
{
    struct hp_offer *offer =
        hp_must_calloc(sizeof(*offer) + (name_count + 1U) * sizeof(struct hp_str));
    hp_must(hp_strmap_put(&core->offers, key, (uint64_t)(uintptr_t)offer, &offer->key));
    read_key(offer);
    return offer;
}

void hp_offer_drop(struct hp_core *core, struct hp_node *node)
{
    struct hp_offer *offer = node->offer;
    node->offer = NULL;
    node->tags = node->functions = node->languages = (struct hp_list_str){0};
    if (offer != NULL && --offer->refs == 0) {
        (void)hp_strmap_remove(&core->offers, offer->key, NULL);
        hp_free(offer);
    }
}

void hp_offer_set(struct hp_core *core, struct hp_node *node,
                  const struct hp_msg_worker_register *msg)
{
    const struct hp_list_str *const lists[LISTS] = {&msg->tags, &msg->functions, &msg->languages};
    struct hp_buf key;
    hp_buf_init(&key, 64U << 20); /* more than a frame */
    make_key(&key, lists);
    struct hp_str text = hp_bin_as_str(hp_buf_bin(&key));
    struct hp_offer *offer = hp_strmap_find_ptr(&core->offers, text);
    if (offer == NULL) {
        offer = offer_new(core, text, lists[0]->count + lists[1]->count + lists[2]->count);
    }
    hp_buf_deinit(&key);
    offer->refs++;
    hp_offer_drop(core, node); /* after: it may be the same */
    node->offer = offer;
    node->tags = offer->lists[0];
    node->functions = offer->lists[1];
    node->languages = offer->lists[2];
}

bool hp_node_has_function(const struct hp_node *node, struct hp_str name)
{
    return node->functions.count > 0 && bsearch(&name, node->functions.items, node->functions.count,
                                                sizeof(name), compare_names) != NULL;
}
