/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Interned options, and what they stand for: queue, class of needs, concurrency key, lane.
 * A submit with options seen before costs one encode, one hash and one lookup.
 */
#include <stdio.h>

#include "server/core/offer.h"
#include "server/core/state.h"

enum { KEY_BYTES_MAX = 64 << 10, TAGS_MAX = 16, SPEC_IDLE_MAX = 1024 };
/* Options travel with tasks and listings: they must leave room in a frame. */
enum { OPTIONS_BYTES_MAX = 256 << 10 };

/* ------------------------------------------------ queues */
struct hp_queue *hp_queue_get(struct hp_core *core, struct hp_str name)
{
    struct hp_queue *queue = hp_strmap_find_ptr(&core->queues, name);
    if (queue == NULL) {
        queue = hp_must_calloc(sizeof(*queue));
        hp_list_init(&queue->lanes);
        hp_list_init(&queue->dirty_link);
        hp_must(hp_strmap_put(&core->queues, name, (uint64_t)(uintptr_t)queue, &queue->name));
    }
    return queue;
}

void hp_queue_dirty(struct hp_core *core, struct hp_queue *queue)
{
    if (!queue->dirty) {
        queue->dirty = true;
        hp_list_push_back(&core->queue_dirty, &queue->dirty_link);
    }
}

void hp_queue_store(struct hp_core *core, struct hp_queue *queue)
{
    uint8_t state[HP_QUEUE_STATE_BYTES];
    hp_queue_state_put(state, queue->paused, queue->delayed);
    struct hp_op *op = hp_batch_add(core->batch, HP_OP_QUEUE);
    op->queue.name = hp_batch_copy(core->batch, queue->name.data, queue->name.size);
    op->queue.state = hp_batch_copy(core->batch, state, sizeof(state));
    queue->dirty = false;
}

void hp_queue_recover(struct hp_core *core, struct hp_str name, struct hp_bin state)
{
    struct hp_queue *queue = hp_queue_get(core, name);
    if (state.size >= HP_QUEUE_STATE_BYTES) {
        queue->paused = state.data[0] != 0;
        queue->delayed = 0;
        for (int i = 0; i < 8; i++) {
            queue->delayed |= (uint64_t)state.data[1 + i] << (8 * i);
        }
    }
}

/* ------------------------------------------------ keys */
static int sorted_tags(const struct hp_list_str *tags, struct hp_str *out)
{
    int count = 0;
    HP_ASSERT(tags->count <= TAGS_MAX); /* by the protocol's limit */
    for (uint32_t i = 0; i < tags->count; i++) {
        int at = count;
        bool twice = false;
        for (int k = 0; k < count; k++) {
            int order = hp_str_compare(tags->items[i], out[k]);
            twice = twice || order == 0;
            if (order < 0) {
                at = k;
                break;
            }
        }
        if (twice) {
            continue;
        }
        for (int k = count; k > at; k--) {
            out[k] = out[k - 1];
        }
        out[at] = tags->items[i];
        count++;
    }
    return count;
}

/* [kind, fn, [tags], cpus, mem] */
static void put_class_key(struct hp_buf *buf, const struct hp_st_task_options *options)
{
    struct hp_str tags[TAGS_MAX];
    int count = sorted_tags(&options->tags, tags);
    hp_must(hp_wire_put_array(buf, 5));
    hp_must(hp_wire_put_u64(buf, options->kind));
    char pool[24];
    (void)snprintf(pool, sizeof(pool), "%llu", (unsigned long long)options->pool);
    struct hp_str name = options->kind == HP_TASK_KIND_FUNCTION ? options->fn
                         : options->kind == HP_TASK_KIND_CALL   ? hp_str_of(pool)
                                                                : HP_STR("");
    hp_must(hp_wire_put_str(buf, name));
    hp_must(hp_wire_put_array(buf, (uint32_t)count));
    for (int i = 0; i < count; i++) {
        hp_must(hp_wire_put_str(buf, tags[i]));
    }
    hp_must(hp_wire_put_u64(buf, options->cpus));
    hp_must(hp_wire_put_u64(buf, options->mem_bytes));
}

/* [queue, priority, tenant, ckey, ckey_max, class], and true if it is not durable */
struct hp_str hp_lane_key(struct hp_core *core, const struct hp_st_task_options *options)
{
    struct hp_buf buf;
    hp_buf_init(&buf, KEY_BYTES_MAX);
    bool in_memory = !options->durable && options->kind != HP_TASK_KIND_POOL;
    hp_must(hp_wire_put_array(&buf, in_memory ? 7 : 6));
    hp_must(hp_wire_put_str(&buf, options->queue));
    hp_must(hp_wire_put_u64(&buf, options->priority));
    hp_must(hp_wire_put_str(&buf, options->tenant));
    hp_must(hp_wire_put_str(&buf, options->ckey));
    hp_must(hp_wire_put_u64(&buf, options->ckey.size > 0 ? options->ckey_max : 0));
    put_class_key(&buf, options);
    if (in_memory) {
        hp_must(hp_wire_put_bool(&buf, true));
    }
    struct hp_str key = {0};
    hp_must(hp_arena_copy_str(&core->arena, hp_bin_as_str(hp_buf_bin(&buf)), &key));
    hp_buf_deinit(&buf);
    return key;
}

/* ------------------------------------------------ classes */
static bool lane_before(const struct hp_heap_node *a, const struct hp_heap_node *b)
{
    const struct hp_lane *x = HP_CONTAINER_OF(a, struct hp_lane, heap_node);
    const struct hp_lane *y = HP_CONTAINER_OF(b, struct hp_lane, heap_node);
    if (x->rank != y->rank) {
        return x->rank > y->rank;
    }
    return x->rank_id != y->rank_id ? x->rank_id < y->rank_id : x->id < y->id;
}

static struct hp_class *class_get(struct hp_core *core, const struct hp_wire_obj *parts,
                                  struct hp_str key)
{
    struct hp_class *class_ = hp_strmap_find_ptr(&core->classes, key);
    if (class_ != NULL) {
        return class_;
    }
    class_ = hp_must_calloc(sizeof(*class_));
    hp_must(hp_strmap_put(&core->classes, key, (uint64_t)(uintptr_t)class_, &class_->key));
    /* Names are read again from the copy that the map keeps. */
    struct hp_error error;
    hp_must(hp_wire_unpack_checked(core->spec_wire, &hp_tok_limits_open, hp_str_as_bin(class_->key),
                                   &parts, &error));
    class_->id = core->next_class++;
    class_->kind = (uint32_t)hp_wire_u64(hp_wire_item(parts, 0));
    class_->fn = hp_wire_str(hp_wire_item(parts, 1));
    if (class_->kind == HP_TASK_KIND_CALL) {
        hp_must(hp_parse_u64(class_->fn, &class_->pool, NULL));
    }
    const struct hp_wire_obj *tags = hp_wire_item(parts, 2);
    class_->tags.count = hp_wire_count(tags);
    class_->tags.items = hp_must_calloc((class_->tags.count + 1) * sizeof(struct hp_str));
    for (uint32_t i = 0; i < class_->tags.count; i++) {
        class_->tags.items[i] = hp_wire_str(hp_wire_item(tags, i));
    }
    class_->cpus = (uint32_t)hp_wire_u64(hp_wire_item(parts, 3));
    class_->mem_bytes = hp_wire_u64(hp_wire_item(parts, 4));
    hp_heap_init(&class_->lanes, lane_before);
    hp_list_init(&class_->link);
    hp_list_push_back(&core->class_list, &class_->link);
    return class_;
}

static void class_unref(struct hp_core *core, struct hp_class *class_)
{
    if (--class_->refs > 0) {
        return;
    }
    HP_LIST_FOR_EACH (link, &core->node_list) {
        struct hp_node *node = HP_CONTAINER_OF(link, struct hp_node, link);
        (void)hp_idmap_remove(&node->fits, class_->id, NULL);
    }
    hp_list_remove(&class_->link);
    hp_heap_deinit(&class_->lanes);
    hp_free(class_->tags.items);
    (void)hp_strmap_remove(&core->classes, class_->key, NULL);
    hp_free(class_);
}

static bool node_has_tag(const struct hp_node *node, struct hp_str tag)
{
    for (uint32_t i = 0; i < node->tags.count; i++) {
        if (hp_str_eq(node->tags.items[i], tag)) {
            return true;
        }
    }
    return false;
}

static bool class_fits(const struct hp_class *class_, const struct hp_node *node)
{
    if (class_->kind == HP_TASK_KIND_FUNCTION ? !hp_node_has_function(node, class_->fn)
                                              : !node->commands) {
        return false;
    }
    for (uint32_t i = 0; i < class_->tags.count; i++) {
        if (!node_has_tag(node, class_->tags.items[i])) {
            return false;
        }
    }
    return class_->cpus <= node->slots && class_->mem_bytes <= node->mem_bytes;
}

bool hp_class_fits(const struct hp_core *core, const struct hp_class *class_, struct hp_node *node)
{
    if (class_->kind == HP_TASK_KIND_CALL) {
        return hp_pool_is_granted(core, class_, node); /* changes all the time */
    }
    uint64_t known = 0;
    if (!hp_idmap_find(&node->fits, class_->id, &known)) {
        known = class_fits(class_, node) ? 2 : 1;
        hp_must(hp_idmap_put(&node->fits, class_->id, known));
    }
    return known == 2;
}

/* ------------------------------------------------ lanes */
static struct hp_ckey *ckey_get(struct hp_core *core, struct hp_str name, uint32_t max)
{
    struct hp_ckey *ckey = hp_strmap_find_ptr(&core->ckeys, name);
    if (ckey == NULL) {
        ckey = hp_must_calloc(sizeof(*ckey));
        hp_list_init(&ckey->lanes);
        hp_must(hp_strmap_put(&core->ckeys, name, (uint64_t)(uintptr_t)ckey, &ckey->name));
    }
    hp_ckey_limit(core, ckey, max);
    return ckey;
}

void hp_ckey_limit(struct hp_core *core, struct hp_ckey *ckey, uint32_t max)
{
    if (ckey->max != max) {
        ckey->max = max;
        HP_LIST_FOR_EACH (link, &ckey->lanes) {
            hp_lane_update(core, HP_CONTAINER_OF(link, struct hp_lane, ckey_link));
        }
    }
}

static void ckey_unref(struct hp_core *core, struct hp_ckey *ckey)
{
    if (--ckey->refs == 0) {
        (void)hp_strmap_remove(&core->ckeys, ckey->name, NULL);
        hp_free(ckey);
    }
}

static void lane_fill(struct hp_core *core, struct hp_lane *lane, const struct hp_wire_obj *parts)
{
    struct hp_str queue = hp_wire_str(hp_wire_item(parts, 0));
    lane->queue = hp_queue_get(core, queue);
    lane->priority = (uint32_t)hp_wire_u64(hp_wire_item(parts, 1));
    lane->in_memory = hp_wire_count(parts) > 6;
    struct hp_str ckey = hp_wire_str(hp_wire_item(parts, 3));
    if (ckey.size > 0) {
        uint32_t max = (uint32_t)hp_wire_u64(hp_wire_item(parts, 4));
        lane->ckey = ckey_get(core, ckey, max);
        lane->ckey->refs++;
        hp_list_push_back(&lane->ckey->lanes, &lane->ckey_link);
    }
    /* The class key is the last part of the lane key, byte for byte. */
    const struct hp_wire_obj *needs = hp_wire_item(parts, 5);
    struct hp_buf buf;
    hp_buf_init(&buf, KEY_BYTES_MAX);
    hp_must(hp_wire_put_array(&buf, 5));
    hp_must(hp_wire_put_u64(&buf, hp_wire_u64(hp_wire_item(needs, 0))));
    hp_must(hp_wire_put_str(&buf, hp_wire_str(hp_wire_item(needs, 1))));
    const struct hp_wire_obj *tags = hp_wire_item(needs, 2);
    hp_must(hp_wire_put_array(&buf, hp_wire_count(tags)));
    for (uint32_t i = 0; i < hp_wire_count(tags); i++) {
        hp_must(hp_wire_put_str(&buf, hp_wire_str(hp_wire_item(tags, i))));
    }
    hp_must(hp_wire_put_u64(&buf, hp_wire_u64(hp_wire_item(needs, 3))));
    hp_must(hp_wire_put_u64(&buf, hp_wire_u64(hp_wire_item(needs, 4))));
    lane->class_ = class_get(core, NULL, hp_bin_as_str(hp_buf_bin(&buf)));
    lane->class_->refs++;
    hp_buf_deinit(&buf);
    struct hp_pool *pool = hp_pool_find(core, lane->class_->pool);
    if (pool != NULL) {
        hp_list_push_back(&pool->lanes, &lane->pool_link);
    }
}

struct hp_lane *hp_lane_of_key(struct hp_core *core, struct hp_str key, uint32_t id)
{
    struct hp_lane *lane = hp_strmap_find_ptr(&core->lane_keys, key);
    if (lane != NULL) {
        return lane;
    }
    const struct hp_wire_obj *parts = NULL;
    hp_must(hp_wire_unpack_checked(core->spec_wire, &hp_tok_limits_open, hp_str_as_bin(key), &parts,
                                   NULL)); /* made here; the store checks what it keeps */
    lane = hp_must_calloc(sizeof(*lane));
    lane->id = id != 0 ? id : core->next_lane;
    core->next_lane = lane->id >= core->next_lane ? lane->id + 1 : core->next_lane;
    hp_list_init(&lane->parked);
    hp_list_init(&lane->queue_link);
    hp_list_init(&lane->ckey_link);
    hp_list_init(&lane->pool_link);
    hp_list_init(&lane->dirty_link);
    lane_fill(core, lane, parts);
    hp_list_push_back(&lane->queue->lanes, &lane->queue_link);
    hp_must(hp_strmap_put(&core->lane_keys, key, (uint64_t)(uintptr_t)lane, &lane->key));
    hp_must(hp_idmap_put_ptr(&core->lanes, lane->id, lane));
    return lane;
}

/* Frees a lane that nothing needs any more, with its row. */
void hp_lane_release(struct hp_core *core, struct hp_lane *lane)
{
    if (lane->refs > 0 || lane->ready_count > 0 || lane->parked_count > 0 || lane->running > 0 ||
        lane->load_pending || lane->load_failed || lane->dirty) {
        return;
    }
    if (core->batch == NULL) {
        return; /* recovery: it goes with the next change */
    }
    if (lane->key_stored) {
        hp_batch_add(core->batch, HP_OP_LANE_DEL)->lane.lane = lane->id;
    }
    hp_lane_clear(core, lane);
    hp_heap_remove(&lane->class_->lanes, &lane->heap_node);
    hp_list_remove(&lane->queue_link);
    hp_list_remove(&lane->ckey_link);
    hp_list_remove(&lane->pool_link);
    (void)hp_idmap_remove(&core->lanes, lane->id, NULL);
    (void)hp_strmap_remove(&core->lane_keys, lane->key, NULL);
    class_unref(core, lane->class_);
    if (lane->ckey != NULL) {
        ckey_unref(core, lane->ckey);
    }
    hp_free(lane->runs);
    hp_free(lane);
}

/* ------------------------------------------------ specs */
static enum hp_err check_names(const struct hp_st_task_options *options, struct hp_error *reterr)
{
    if (!hp_name_valid(options->queue)) {
        return hp_error_set(reterr, HP_ERR_INVALID,
                            "options.queue: a name of 1 to 255 printable bytes");
    }
    for (uint32_t i = 0; i < options->tags.count; i++) {
        if (!hp_name_valid(options->tags.items[i])) {
            return hp_error_set(reterr, HP_ERR_INVALID, "options.tags: item %u is no valid name",
                                i);
        }
    }
    for (uint32_t i = 0; i < options->env.count; i++) {
        struct hp_str item = options->env.items[i];
        const char *equals = item.size > 0 ? memchr(item.data, '=', item.size) : NULL;
        if (equals == NULL || equals == item.data) {
            return hp_error_set(reterr, HP_ERR_INVALID, "options.env: item %u is not KEY=VALUE", i);
        }
    }
    return HP_OK;
}

static enum hp_err check_options(const struct hp_st_task_options *options, struct hp_error *reterr)
{
    if (options->kind == HP_TASK_KIND_FUNCTION && !hp_name_valid(options->fn)) {
        return hp_error_set(reterr, HP_ERR_INVALID,
                            "options.fn: a function task needs a function name");
    }
    if (options->kind == HP_TASK_KIND_COMMAND && options->payload_use != HP_PAYLOAD_USE_ARGV &&
        (options->argv.count == 0 || options->argv.items[0].size == 0)) {
        return hp_error_set(reterr, HP_ERR_INVALID, "options.argv: a command task needs a program");
    }
    if (options->payload_use == HP_PAYLOAD_USE_ITEMS && options->kind != HP_TASK_KIND_FUNCTION &&
        options->kind != HP_TASK_KIND_CALL) {
        return hp_error_set(reterr, HP_ERR_INVALID,
                            "options.payload_use: items are of functions and calls");
    }
    if (options->kind == HP_TASK_KIND_CALL && options->pool == 0) {
        return hp_error_set(reterr, HP_ERR_INVALID, "options.pool: a call names its pool");
    }
    return check_names(options, reterr);
}

static struct hp_spec *spec_new(struct hp_core *core, struct hp_bin raw, struct hp_error *reterr)
{
    struct hp_spec *spec = hp_must_calloc(sizeof(*spec));
    hp_list_init(&spec->idle_link);
    hp_arena_init(&spec->arena, 1024, 4U << 20);
    hp_must(hp_arena_copy_bin(&spec->arena, raw, &spec->raw));
    const struct hp_wire_obj *map = NULL;
    enum hp_err err =
        hp_wire_unpack_checked(core->spec_wire, &hp_tok_limits_open, spec->raw, &map, reterr);
    if (err == HP_OK) {
        err = hp_st_task_options_decode(map, &spec->arena, &spec->options, reterr);
    }
    if (err == HP_OK) {
        err = check_options(&spec->options, reterr);
    }
    HP_ASSERT(err != HP_ERR_NOMEM); /* or tasks would be refused, or fail as damaged, for it */
    if (err != HP_OK) {
        hp_arena_deinit(&spec->arena);
        hp_free(spec);
        return NULL;
    }
    spec->options.raw = spec->raw;
    spec->lane = hp_lane_of_key(core, hp_lane_key(core, &spec->options), 0);
    spec->lane->refs++;
    return spec;
}

struct hp_spec *hp_spec_get(struct hp_core *core, struct hp_bin raw, struct hp_error *reterr)
{
    struct hp_spec *spec = hp_strmap_find_ptr(&core->specs, hp_bin_as_str(raw));
    if (spec == NULL) {
        spec = spec_new(core, raw, reterr);
        if (spec == NULL) {
            return NULL;
        }
        hp_must(hp_strmap_put_ptr(&core->specs, hp_bin_as_str(spec->raw), spec));
    }
    return hp_spec_ref(core, spec);
}

struct hp_spec *hp_spec_of(struct hp_core *core, const struct hp_st_task_options *options,
                           struct hp_error *reterr)
{
    struct hp_buf buf;
    hp_buf_init(&buf, OPTIONS_BYTES_MAX);
    struct hp_spec *spec = NULL;
    enum hp_err err = hp_st_task_options_encode(&buf, options);
    HP_ASSERT(err != HP_ERR_NOMEM);
    if (err == HP_OK) {
        spec = hp_spec_get(core, hp_buf_bin(&buf), reterr);
    } else {
        (void)hp_error_set(reterr, HP_ERR_INVALID,
                           "options: larger than %d bytes; send large data as the payload",
                           OPTIONS_BYTES_MAX);
    }
    hp_buf_deinit(&buf);
    return spec;
}

struct hp_spec *hp_spec_ref(struct hp_core *core, struct hp_spec *spec)
{
    if (spec->refs++ == 0 && hp_list_is_linked(&spec->idle_link)) {
        hp_list_remove(&spec->idle_link);
        core->spec_idle_count--;
    }
    return spec;
}

static void spec_free(struct hp_core *core, struct hp_spec *spec)
{
    (void)hp_strmap_remove(&core->specs, hp_bin_as_str(spec->raw), NULL);
    struct hp_lane *lane = spec->lane;
    lane->refs--;
    hp_arena_deinit(&spec->arena);
    hp_free(spec);
    hp_lane_release(core, lane);
}

/* Unused specs stay for a while: the next submit mostly has the same options. */
void hp_spec_unref(struct hp_core *core, struct hp_spec *spec)
{
    HP_ASSERT(spec->refs > 0);
    if (--spec->refs > 0) {
        return;
    }
    hp_list_push_back(&core->spec_idle, &spec->idle_link);
    if (++core->spec_idle_count > SPEC_IDLE_MAX) {
        core->spec_idle_count--;
        struct hp_list *oldest = hp_list_pop_front(&core->spec_idle);
        spec_free(core, HP_CONTAINER_OF(oldest, struct hp_spec, idle_link));
    }
}
