/* SPDX-License-Identifier: BSD-2-Clause */
/* Pools as objects: made, found again after a restart, looked after, freed. */
#include "common/base/endian.h"
#include "server/core/state.h"

enum { STATE_MASK = 0xff, FLAG_DETACHED = 0x100, FLAG_BROKEN = 0x200, FLAG_CANCELLED = 0x400 };

struct hp_pool *hp_pool_find(const struct hp_core *core, uint64_t id)
{
    return hp_idmap_find_ptr(&core->pools, id);
}

/* Lanes of its calls that were there before it was known. */
static void adopt_lanes(struct hp_core *core, struct hp_pool *pool)
{
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_idmap_next(&core->lanes, &iter, NULL, &value)) {
        struct hp_lane *lane = (struct hp_lane *)(uintptr_t)value;
        if (lane->class_->pool == pool->id && !hp_list_is_linked(&lane->pool_link)) {
            hp_list_push_back(&pool->lanes, &lane->pool_link);
        }
    }
}

static struct hp_pool *pool_new(struct hp_core *core, uint64_t id)
{
    struct hp_pool *pool = hp_must_calloc(sizeof(*pool));
    pool->id = id;
    pool->state = HP_SM_POOL_OPEN;
    pool->orphan_at_ms = UINT64_MAX;
    hp_list_init(&pool->link);
    hp_list_init(&pool->nodes);
    hp_list_init(&pool->waits);
    hp_list_init(&pool->lanes);
    struct hp_list *before = &core->pool_list;
    while (before->prev != &core->pool_list &&
           HP_CONTAINER_OF(before->prev, struct hp_pool, link)->id > id) {
        before = before->prev; /* ids rise, so this is short */
    }
    hp_list_push_back(before, &pool->link);
    hp_must(hp_idmap_put_ptr(&core->pools, id, pool));
    if (!core->in_turn) {
        adopt_lanes(core, pool);
    }
    hp_pools_dirty(core);
    return pool;
}

struct hp_pool *hp_pool_found(struct hp_core *core, uint64_t id)
{
    struct hp_pool *pool = hp_pool_find(core, id);
    return pool != NULL ? pool : pool_new(core, id);
}

void hp_pool_own(struct hp_core *core, struct hp_pool *pool, struct hp_session *session)
{
    struct hp_session *old = pool->session;
    pool->session = session != NULL ? hp_session_ref(session) : NULL;
    if (session != NULL) {
        session->pools++;
    }
    if (old != NULL) {
        old->pools--;
        hp_session_unref(core, old);
    }
}

void hp_pool_set_text(char *out, size_t size, struct hp_str text)
{
    uint32_t used = hp_wire_str_clean(text, out, (uint32_t)size - 1);
    out[used] = '\0';
}

static void set_loaded(struct hp_core *core, struct hp_pool *pool, struct hp_spec *spec,
                       struct hp_session *maker, struct hp_bin payload, uint64_t blob)
{
    pool->loaded = true;
    pool->spec = hp_spec_ref(core, spec);
    pool->maker = maker != NULL ? hp_session_ref(maker) : NULL;
    if (!pool->has_owner) {
        hp_pool_own(core, pool, maker);
    }
    pool->blob = blob;
    if (payload.size > 0) {
        pool->payload.data = hp_memdup(payload.data, payload.size);
        HP_ASSERT(pool->payload.data != NULL);
        pool->payload.size = payload.size;
    }
    hp_pools_dirty(core);
}

void hp_pool_open(struct hp_core *core, uint64_t id, struct hp_spec *spec,
                  struct hp_session *session, struct hp_bin payload, uint64_t blob)
{
    struct hp_pool *pool = pool_new(core, id);
    pool->created_at_ms = core->wall_ms;
    pool->detached = session == NULL; /* nobody can be missed */
    set_loaded(core, pool, spec, session, payload, blob);
    hp_pool_store(core, pool);
    hp_trace(core, HP_TRACE_INFO, "pool_open", "pool=%llu language=%.*s processes=%u",
             (unsigned long long)id, HP_STR_ARG(spec->options.language), spec->options.processes);
}

void hp_pool_store(struct hp_core *core, struct hp_pool *pool)
{
    pool->row_dirty = true;
    core->pool_rows_dirty = true;
}

static void put_row(struct hp_core *core, const struct hp_pool *pool)
{
    struct hp_op *op = hp_batch_add(core->batch, HP_OP_SIDE);
    op->side = (struct hp_side){.first = pool->id,
                                .count = 1,
                                .kind = HP_SIDE_POOL,
                                .lane = pool->spec != NULL ? pool->spec->lane->id : 0,
                                .mode = pool->state | (pool->detached ? FLAG_DETACHED : 0U) |
                                        (pool->broken ? FLAG_BROKEN : 0U) |
                                        (pool->cancelled ? FLAG_CANCELLED : 0U),
                                .grace_ms = pool->delayed};
}

void hp_pools_flush(struct hp_core *core)
{
    if (!core->pool_rows_dirty) {
        return;
    }
    core->pool_rows_dirty = false;
    HP_LIST_FOR_EACH (link, &core->pool_list) {
        struct hp_pool *pool = HP_CONTAINER_OF(link, struct hp_pool, link);
        if (pool->row_dirty) {
            pool->row_dirty = false;
            put_row(core, pool);
        }
    }
}

uint64_t hp_pool_live(const struct hp_pool *pool)
{
    uint64_t live = pool->memory_live + pool->delayed;
    HP_LIST_FOR_EACH (link, &pool->lanes) {
        const struct hp_lane *lane = HP_CONTAINER_OF(link, struct hp_lane, pool_link);
        live += lane->in_memory ? 0 : lane->ready_count + lane->running;
    }
    return live;
}

/* ------------------------------------------------ rows of delayed tasks */
void hp_lane_delayed(struct hp_core *core, struct hp_lane *lane, uint32_t count)
{
    struct hp_pool *pool = hp_pool_find(core, lane->class_->pool);
    lane->queue->delayed += count;
    hp_queue_dirty(core, lane->queue);
    if (pool != NULL) {
        pool->delayed += count;
        hp_pool_store(core, pool);
    }
}

void hp_lane_undelayed(struct hp_core *core, struct hp_lane *lane, uint32_t count)
{
    struct hp_pool *pool = hp_pool_find(core, lane->class_->pool);
    uint64_t *sum = &lane->queue->delayed;
    *sum -= *sum < count ? *sum : count;
    hp_queue_dirty(core, lane->queue);
    if (pool != NULL) {
        pool->delayed -= pool->delayed < count ? pool->delayed : count;
        hp_pool_store(core, pool);
        if (pool->state != HP_SM_POOL_OPEN) {
            hp_pools_touch(core);
        }
    }
}

/* ------------------------------------------------ after a restart */
void hp_pool_recover(struct hp_core *core, const struct hp_side *side)
{
    struct hp_pool *pool = hp_pool_found(core, side->first);
    uint32_t state = side->mode & STATE_MASK;
    if (state == HP_SM_POOL_OPEN || state == HP_SM_POOL_CLOSING || state == HP_SM_POOL_ENDING) {
        pool->state = (uint8_t)state;
    }
    pool->detached = (side->mode & FLAG_DETACHED) != 0;
    pool->broken = (side->mode & FLAG_BROKEN) != 0;
    pool->cancelled = (side->mode & FLAG_CANCELLED) != 0;
    pool->delayed = side->grace_ms;
}

static void load(struct hp_core *core, struct hp_pool *pool)
{
    struct hp_pending *pending = hp_pending_new(core, HP_PENDING_POOL, NULL, 0);
    pending->id = pool->id;
    struct hp_load *asked = hp_out_load(core, HP_LOAD_GROUPS, pending);
    asked->spans = hp_must_alloc(sizeof(*asked->spans));
    asked->spans[0] = (struct hp_id_span){pool->id, 1};
    asked->span_count = 1;
    asked->bytes_max = 1U << 20;
    pool->loading = true;
}

void hp_pools_loaded(struct hp_core *core, struct hp_pending *pending,
                     const struct hp_loaded *loaded)
{
    struct hp_pool *pool = hp_pool_find(core, pending->id);
    if (pool == NULL || pool->loaded) {
        return;
    }
    pool->loading = false;
    const struct hp_loaded_group *group = loaded->group_count > 0 ? &loaded->groups[0] : NULL;
    struct hp_error error;
    struct hp_spec *spec =
        group != NULL && !group->damaged ? hp_spec_get(core, group->options, &error) : NULL;
    if (spec == NULL) { /* its row is damaged: nothing can be set up from it */
        (void)hp_strlcpy(pool->error, "the pool's row in the database is damaged",
                         sizeof(pool->error));
        pool->broken = true;
        pool->loaded = true;
        pool->state = HP_SM_POOL_ENDING;
        hp_pools_dirty(core);
        return;
    }
    pool->created_at_ms = group->created_at_ms;
    bool has_pack = group->pack.size > 0;
    if (pool->has_owner) {
        struct hp_bin owner = hp_bin_make(pool->owner, sizeof(pool->owner));
        hp_pool_own(core, pool, hp_session_get(core, owner));
    }
    struct hp_session *maker = hp_session_get(core, group->session);
    pool->settle_until_ms = core->now_ms + 2 * core->config.heartbeat_ms;
    set_loaded(core, pool, spec, maker,
               has_pack ? hp_pack_payload(group->pack, 0) : (struct hp_bin){0},
               has_pack && hp_pack_has_blobs(group->pack) ? hp_pack_blob(group->pack, 0) : 0);
    hp_spec_unref(core, spec);
}

/* ------------------------------------------------ keys: contents, owner */
enum { KEY_HEAD = 10 };

struct hp_bin hp_pool_key(struct hp_core *core, uint8_t what, uint64_t pool, struct hp_bin more)
{
    uint8_t *key = hp_arena_alloc(&core->arena, KEY_HEAD + more.size);
    HP_ASSERT(key != NULL);
    key[0] = 0;
    key[1] = what;
    hp_put_be64(key + 2, pool);
    if (more.size > 0) {
        memcpy(key + KEY_HEAD, more.data, more.size);
    }
    return hp_bin_make(key, KEY_HEAD + more.size);
}

bool hp_pool_recover_key(struct hp_core *core, struct hp_bin key, uint64_t id)
{
    if (key.size < KEY_HEAD || key.data[0] != 0) {
        return false;
    }
    struct hp_pool *pool = hp_pool_find(core, hp_get_be64(key.data + 2));
    if (pool != NULL && key.data[1] == HP_POOL_KEY_CONTENT) {
        hp_must(hp_idmap_put(&core->contents, hp_hash(key.data, key.size, core->hash_seed), id));
        hp_pool_content(pool, key);
    } else if (pool != NULL && key.data[1] == HP_POOL_KEY_OWNER &&
               key.size == KEY_HEAD + sizeof(pool->owner)) {
        memcpy(pool->owner, key.data + KEY_HEAD, sizeof(pool->owner));
        pool->has_owner = true;
    }
    return true;
}

static void put_key_del(struct hp_core *core, struct hp_bin key)
{
    hp_batch_add(core->batch, HP_OP_UKEY_DEL)->ukey.key =
        hp_batch_copy(core->batch, key.data, key.size);
}

static void drop_owner(struct hp_core *core, struct hp_pool *pool)
{
    if (pool->has_owner) {
        put_key_del(core, hp_pool_key(core, HP_POOL_KEY_OWNER, pool->id,
                                      hp_bin_make(pool->owner, sizeof(pool->owner))));
        pool->has_owner = false;
    }
}

void hp_pool_set_owner(struct hp_core *core, struct hp_pool *pool)
{
    drop_owner(core, pool);
    memcpy(pool->owner, pool->session->id, sizeof(pool->owner));
    pool->has_owner = true;
    struct hp_bin key = hp_pool_key(core, HP_POOL_KEY_OWNER, pool->id,
                                    hp_bin_make(pool->owner, sizeof(pool->owner)));
    struct hp_op *op = hp_batch_add(core->batch, HP_OP_UKEY);
    op->ukey.key = hp_batch_copy(core->batch, key.data, key.size);
    op->ukey.id = pool->id;
}

void hp_pool_drop_keys(struct hp_core *core, struct hp_pool *pool)
{
    drop_owner(core, pool);
    for (uint32_t i = 0; i < pool->content_count; i++) {
        struct hp_bin key = pool->contents[i];
        uint64_t hash = hp_hash(key.data, key.size, core->hash_seed);
        (void)hp_idmap_remove(&core->contents, hash, NULL);
        put_key_del(core, key);
    }
}

void hp_pool_content(struct hp_pool *pool, struct hp_bin key)
{
    if (pool->content_count == pool->content_capacity) {
        uint32_t capacity = pool->content_capacity == 0 ? 8 : pool->content_capacity * 2;
        struct hp_bin *grown = hp_must_alloc(capacity * sizeof(*grown));
        if (pool->content_count > 0) {
            memcpy(grown, pool->contents, pool->content_count * sizeof(*grown));
        }
        hp_free(pool->contents);
        pool->contents = grown;
        pool->content_capacity = capacity;
    }
    struct hp_bin copy = {.data = hp_memdup(key.data, key.size), .size = key.size};
    HP_ASSERT(copy.data != NULL);
    pool->contents[pool->content_count++] = copy;
}

/* ------------------------------------------------ the pass */
void hp_pools_touch(struct hp_core *core)
{
    core->pools_due_ms = 0;
}

void hp_pools_dirty(struct hp_core *core)
{
    core->pools_due_ms = 0;
    core->grants_wanted = true;
}

/* Is its client there? Sets when it is ended for want of one. */
static void look_for_owner(struct hp_core *core, struct hp_pool *pool)
{
    bool is_alone = pool->loaded && pool->state == HP_SM_POOL_OPEN && !pool->detached &&
                    (pool->session == NULL || pool->session->conn == NULL);
    if (!is_alone) {
        pool->orphan_at_ms = UINT64_MAX;
        return;
    }
    HP_ASSERT(pool->spec != NULL); /* a pool whose row is damaged is not open */
    uint64_t wait_ms = pool->spec->options.orphan_ms;
    if (pool->orphan_at_ms == UINT64_MAX) {
        pool->orphan_at_ms = core->now_ms + wait_ms;
    }
    if (pool->orphan_at_ms > core->now_ms) {
        return;
    }
    pool->orphan_at_ms = UINT64_MAX;
    bool is_durable = pool->spec->options.durable;
    hp_trace(core, HP_TRACE_WARN, "pool_orphaned", "pool=%llu %s", (unsigned long long)pool->id,
             is_durable ? "closed" : "terminated");
    if (is_durable) {
        hp_pool_close(core, pool);
    } else {
        hp_pool_terminate(core, pool);
    }
}

static bool is_hopeless(struct hp_core *core, const struct hp_pool *pool)
{
    bool any_failed = false;
    if (pool->up > 0 || pool->spec == NULL || core->now_ms < pool->settle_until_ms) {
        return false;
    }
    HP_LIST_FOR_EACH (link, &core->node_list) {
        const struct hp_node *node = HP_CONTAINER_OF(link, struct hp_node, link);
        if (node->state == HP_SM_NODE_OFFLINE || !hp_pool_suits(pool, node)) {
            continue;
        }
        const struct hp_pool_node *entry = hp_pool_node_find(pool, node);
        if (entry == NULL || !entry->quarantined) {
            return false;
        }
        any_failed = true;
    }
    return any_failed;
}

/* When the pass must come again even if nothing happens. */
static uint64_t next_of(const struct hp_pool *pool)
{
    uint64_t at = pool->orphan_at_ms;
    at = pool->settle_until_ms > 0 && pool->settle_until_ms < at ? pool->settle_until_ms : at;
    HP_LIST_FOR_EACH (link, &pool->waits) {
        const struct hp_pool_wait *wait = HP_CONTAINER_OF(link, struct hp_pool_wait, link);
        at = wait->deadline_ms < at ? wait->deadline_ms : at;
    }
    return at;
}

/* True: it has ended and is freed. */
static bool look_after(struct hp_core *core, struct hp_pool *pool, bool grants)
{
    if (!pool->loaded) {
        if (!pool->loading) {
            load(core, pool);
        }
        hp_pool_answer_waits(core, pool);
        return false;
    }
    look_for_owner(core, pool);
    if (pool->settle_until_ms > 0 && pool->settle_until_ms <= core->now_ms) {
        pool->settle_until_ms = 0;
        grants = true;
    }
    if (grants && pool->state != HP_SM_POOL_ENDING && is_hopeless(core, pool)) {
        hp_pool_break(core, pool);
    }
    if (grants || pool->state == HP_SM_POOL_ENDING) {
        hp_pool_regrant(core, pool);
    }
    if (pool->state != HP_SM_POOL_OPEN && hp_pool_end_step(core, pool)) {
        return true;
    }
    hp_pool_send_orders(core, pool);
    hp_pool_answer_waits(core, pool);
    return false;
}

void hp_pools_run(struct hp_core *core)
{
    if (core->pools_due_ms > core->now_ms) {
        return;
    }
    bool grants = core->grants_wanted;
    bool all_loaded = true;
    uint64_t next = UINT64_MAX;
    core->pools_due_ms = UINT64_MAX;
    core->grants_wanted = false;
    HP_LIST_FOR_EACH_SAFE (link, &core->pool_list) {
        struct hp_pool *pool = HP_CONTAINER_OF(link, struct hp_pool, link);
        if (!look_after(core, pool, grants)) {
            all_loaded = all_loaded && pool->loaded;
            uint64_t at = next_of(pool);
            next = at < next ? at : next;
        }
        hp_arena_reset(&core->arena);
    }
    if (all_loaded) {
        hp_pools_complete(core);
    }
    if (next < core->pools_due_ms) {
        core->pools_due_ms = next;
    }
}

uint64_t hp_pools_deadline_ms(const struct hp_core *core)
{
    return core->pools_due_ms;
}

/* ------------------------------------------------ freeing */
void hp_pool_free(struct hp_core *core, struct hp_pool *pool)
{
    HP_LIST_FOR_EACH_SAFE (link, &pool->nodes) {
        hp_pool_node_free(HP_CONTAINER_OF(link, struct hp_pool_node, link));
    }
    HP_LIST_FOR_EACH_SAFE (link, &pool->waits) {
        hp_list_remove(link);
        hp_free(HP_CONTAINER_OF(link, struct hp_pool_wait, link));
    }
    HP_LIST_FOR_EACH_SAFE (link, &pool->lanes) {
        hp_list_remove(link);
    }
    for (uint32_t i = 0; i < pool->content_count; i++) {
        hp_free((void *)(uintptr_t)pool->contents[i].data);
    }
    hp_free(pool->contents);
    hp_free((void *)(uintptr_t)pool->payload.data);
    hp_list_remove(&pool->link);
    (void)hp_idmap_remove(&core->pools, pool->id, NULL);
    hp_free(pool);
}

/* At the end of the core: no counts matter any more. */
void hp_pools_free_all(struct hp_core *core)
{
    HP_LIST_FOR_EACH_SAFE (link, &core->pool_list) {
        hp_pool_free(core, HP_CONTAINER_OF(link, struct hp_pool, link));
    }
    hp_idmap_deinit(&core->pools);
}
