/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The broker: the core in its shell, as server/turn.c is, with the store's thread as a queue of
 * batches and loads. The store outlives a crash; of what was under way, what was applied counts.
 */
#include "tests/sim/broker_state.h"

/* ------------------------------------------------ batches and sends, as in server/turn.c */
static void put_held(struct sim_broker *broker)
{
    while (broker->held_first != NULL) {
        struct hp_batch *batch = broker->held_first;
        broker->held_first = batch->next;
        batch->next = NULL;
        HP_ASSERT(batch->number > broker->last_put);
        broker->last_put = batch->number;
        sim_broker_put_job(broker, batch, NULL);
    }
    broker->held_last = NULL;
    broker->hold_until_us = 0;
}

static void finish_batch(struct sim_broker *broker, struct hp_batch *batch)
{
    struct sim *sim = broker->sim;
    bool empty = batch->op_count == 0;
    bool may_hold = hp_core_may_hold(broker->core);
    if (empty) {
        hp_batch_free(batch);
    } else {
        if (broker->held_last != NULL) {
            broker->held_last->next = batch;
        } else {
            broker->held_first = batch;
        }
        broker->held_last = batch;
        broker->last_number = batch->number;
    }
    if (broker->held_first == NULL) {
        return;
    }
    if (broker->hold_until_us == 0 && may_hold && broker->durable >= broker->last_put) {
        broker->hold_until_us = sim->now_us + HOLD_US;
        sim_broker_wake(broker);
        return;
    }
    if (broker->hold_until_us == 0 || sim->now_us >= broker->hold_until_us ||
        !(empty || may_hold)) {
        put_held(broker);
    } else {
        sim_broker_wake(broker);
    }
}

static void send_now(struct sim_broker *broker, uint64_t conn, struct hp_buf *bytes)
{
    sim_net_send(broker->sim, conn, true, bytes->data, bytes->size);
    hp_buf_deinit(bytes);
}

static void release_sends(struct sim_broker *broker)
{
    while (broker->waiting_first != NULL && broker->waiting_first->after <= broker->durable) {
        struct waiting *send = broker->waiting_first;
        broker->waiting_first = send->next;
        if (broker->waiting_first == NULL) {
            broker->waiting_last = NULL;
        }
        send_now(broker, send->conn, &send->bytes);
        hp_free(send);
        broker->has_sent = true;
    }
}

static void do_send(struct sim_broker *broker, struct hp_effect *effect)
{
    uint64_t after = effect->send.after_commit;
    after = after < broker->last_number ? after : broker->last_number;
    struct hp_buf bytes = effect->send.bytes;
    effect->send.bytes = (struct hp_buf){0};
    if (after <= broker->durable || broker->sim->options->trap == SIM_TRAP_EARLY_ACK) {
        send_now(broker, effect->conn, &bytes);
        return;
    }
    struct waiting *send = sim_alloc(sizeof(*send));
    *send = (struct waiting){.conn = effect->conn, .after = after, .bytes = bytes};
    if (broker->waiting_last != NULL) {
        HP_ASSERT(broker->waiting_last->after <= after);
        broker->waiting_last->next = send;
    } else {
        broker->waiting_first = send;
    }
    broker->waiting_last = send;
}

static void do_effects(struct sim_broker *broker)
{
    for (uint32_t i = 0; i < broker->effects.count; i++) {
        struct hp_effect *effect = &broker->effects.items[i];
        switch (effect->kind) {
        case HP_EFFECT_SEND:
            do_send(broker, effect);
            break;
        case HP_EFFECT_CLOSE:
            sim_note(broker->sim, "broker_close", effect->conn, 0, 0, 0);
            sim_net_close(broker->sim, effect->conn, true);
            for (struct peer *peer = broker->peers; peer != NULL; peer = peer->next) {
                peer->ended = peer->ended || peer->conn == effect->conn;
            }
            sim_broker_wake(broker);
            break;
        case HP_EFFECT_LOAD:
            put_held(broker);
            sim_broker_put_job(broker, NULL, effect->load);
            effect->load = NULL;
            break;
        case HP_EFFECT_BLOB:
            sim_blobs_ask(broker, effect);
            break;
        case HP_EFFECT_TRACE:
            sim_say(broker->sim, "broker's log: %s %s", effect->trace.event,
                    effect->trace.text != NULL ? effect->trace.text : "");
            sim_note(broker->sim, "broker_says", 0, 0, 0, 0);
            break;
        }
    }
    hp_effects_clear(&broker->effects);
}

/* ------------------------------------------------ the turn */
static void free_news(struct news *news)
{
    hp_loaded_free(news->loaded);
    hp_free(news->blob);
    hp_free(news);
}

static void feed_store(struct sim_broker *broker)
{
    while (broker->news_first != NULL) {
        struct news *news = broker->news_first;
        broker->news_first = news->next;
        struct hp_event event = {.kind = HP_EVENT_COMMITTED, .number = news->durable};
        if (news->loaded != NULL) {
            event = (struct hp_event){.kind = HP_EVENT_LOADED, .loaded = news->loaded};
        } else if (news->blob != NULL) {
            event = *news->blob;
        } else if (news->pressure) {
            event = (struct hp_event){.kind = HP_EVENT_PRESSURE};
            event.pressure.disk_low = news->disk_low;
        } else {
            broker->durable = news->durable;
        }
        hp_core_step(broker->core, &event);
        free_news(news);
    }
    broker->news_last = NULL;
}

static bool feed_frame(struct sim_broker *broker, struct peer *peer)
{
    size_t size = 0;
    const char *why = NULL;
    if (!peer->greeted && hp_core_is_greeted(broker->core, peer->conn)) {
        peer->greeted = true;
        hp_tok_init(&peer->tok, &hp_tok_limits_open);
    }
    if (peer->in.size == 0 || !hp_core_wants_input(broker->core, peer->conn)) {
        return false;
    }
    enum hp_tok_status status = hp_tok_scan(&peer->tok, peer->in.data, peer->in.size, &size, &why);
    if (status == HP_TOK_NEED_MORE) {
        return false;
    }
    SIM_RULE(broker->sim, status == HP_TOK_DONE, "a frame of a production peer is refused: %s",
             why);
    struct hp_event event = {
        .kind = HP_EVENT_FRAME, .conn = peer->conn, .frame = hp_bin_make(peer->in.data, size)};
    hp_core_step(broker->core, &event);
    hp_buf_consume(&peer->in, size);
    hp_tok_reset(&peer->tok);
    return true;
}

static void feed_peer(struct sim_broker *broker, struct peer *peer)
{
    struct sim *sim = broker->sim;
    if (!peer->told) {
        peer->told = true;
        struct hp_event event = {.kind = HP_EVENT_CONN_OPENED, .conn = peer->conn};
        event.opened.peer = "sim";
        event.opened.loopback = true;
        hp_core_step(broker->core, &event);
    }
    uint32_t level = sim->plan.level_bytes;
    bool over = sim_net_backlog(sim, peer->conn) > (peer->over ? level / 2 : level);
    if (over != peer->over) {
        peer->over = over;
        struct hp_event event = {.kind = HP_EVENT_CONN_LEVEL, .conn = peer->conn};
        event.level.over = over;
        hp_core_step(broker->core, &event);
    }
    uint32_t frames = 0;
    while (frames < FRAMES_PER_TURN && feed_frame(broker, peer)) {
        frames++;
    }
    if (frames == FRAMES_PER_TURN) {
        sim_broker_wake(broker);
    }
}

static void feed_peers(struct sim_broker *broker)
{
    struct peer **at = &broker->peers;
    while (*at != NULL) {
        struct peer *peer = *at;
        feed_peer(broker, peer);
        if (!peer->ended) {
            at = &peer->next;
            continue;
        }
        struct hp_event event = {.kind = HP_EVENT_CONN_CLOSED, .conn = peer->conn};
        hp_core_step(broker->core, &event);
        *at = peer->next;
        hp_buf_deinit(&peer->in);
        hp_free(peer);
    }
}

/* Nothing that fits may wait while a worker idles: what the scheduler left must have a reason. */
static void check_idle(struct sim_broker *broker)
{
    struct hp_core *core = broker->core;
    if (core->draining || core->dispatch_wanted ||
        core->backlog_ops > core->config.backlog_ops_max / 2) {
        return;
    }
    HP_LIST_FOR_EACH (link, &core->node_list) {
        struct hp_node *node = HP_CONTAINER_OF(link, struct hp_node, link);
        if (node->conn == NULL || !node->registered || node->draining || node->leaving ||
            node->conn->blocked || node->used_cpus + node->light_count >= node->slots ||
            node->state != HP_SM_NODE_ONLINE) {
            continue;
        }
        bool reserved = false;
        HP_LIST_FOR_EACH (at, &core->class_list) {
            struct hp_class *class_ = HP_CONTAINER_OF(at, struct hp_class, link);
            bool big = class_->cpus > 1 || class_->mem_bytes > 0;
            reserved = reserved || (big && hp_heap_peek(&class_->lanes) != NULL);
        }
        HP_LIST_FOR_EACH (at, &core->class_list) {
            struct hp_class *class_ = HP_CONTAINER_OF(at, struct hp_class, link);
            bool has_room =
                class_->kind != HP_TASK_KIND_CALL || hp_pool_room(core, class_, node, 1) > 0;
            bool idle = !reserved && class_->cpus == 1 && hp_heap_peek(&class_->lanes) != NULL &&
                        hp_class_fits(core, class_, node) && has_room;
            if (idle) {
                sim_broker_dump(broker->sim);
            }
            SIM_RULE(broker->sim, !idle, "a slot of %.*s idles while a task of class %u waits",
                     HP_STR_ARG(node->name), class_->id);
        }
    }
}

static void turn(struct sim *sim, void *context, uint64_t generation, uint64_t b);

static void at_deadline(struct sim *sim, void *context, uint64_t generation, uint64_t at_us)
{
    struct sim_broker *broker = context;
    if (generation == broker->generation && at_us == broker->deadline_us) {
        broker->deadline_us = SIM_NEVER;
        turn(sim, broker, generation, 0);
    }
}

/* Does a peer read too slowly? The net does not tell when it has caught up. */
static bool is_any_over(const struct sim_broker *broker)
{
    for (const struct peer *peer = broker->peers; peer != NULL; peer = peer->next) {
        if (peer->over) {
            return true;
        }
    }
    return false;
}

static void arm(struct sim_broker *broker)
{
    uint64_t deadline_ms = hp_core_next_deadline_ms(broker->core);
    uint64_t soonest = broker->sim->now_us + SIM_MS;
    uint64_t at_us = deadline_ms == UINT64_MAX ? SIM_NEVER : deadline_ms * SIM_MS;
    if (is_any_over(broker)) {
        uint64_t look_us = broker->sim->now_us + LOOK_US;
        at_us = at_us < look_us ? at_us : look_us;
    }
    if (at_us == SIM_NEVER) {
        return;
    }
    at_us = at_us < soonest ? soonest : at_us;
    if (broker->deadline_us == SIM_NEVER || at_us < broker->deadline_us ||
        broker->deadline_us < broker->sim->now_us) {
        broker->deadline_us = at_us;
        sim_at(broker->sim, at_us, at_deadline, broker, broker->generation, at_us);
    }
}

static void turn(struct sim *sim, void *context, uint64_t generation, uint64_t b)
{
    struct sim_broker *broker = context;
    (void)b;
    if (generation != broker->generation || broker->paused) {
        return;
    }
    broker->woken = false;
    broker->has_sent = false;
    sim->figures.turns++;
    struct hp_batch *batch = hp_batch_new();
    hp_core_begin(broker->core, sim_ms(sim), sim_wall_ms(sim), batch, &broker->effects);
    feed_store(broker);
    if (broker->draining) {
        broker->draining = false;
        struct hp_event event = {.kind = HP_EVENT_DRAIN};
        event.drain.grace_ms = 10000;
        hp_core_step(broker->core, &event);
    }
    feed_peers(broker);
    hp_core_end(broker->core);
    finish_batch(broker, batch);
    release_sends(broker);
    do_effects(broker);
    if (sim->plan.check_each_turn || sim->figures.turns % 256 == 0) {
        hp_core_check(broker->core);
    }
    check_idle(broker);
    if (!broker->has_sent || !sim_broker_strikes(broker, SIM_FAULT_BROKER_SENT)) {
        arm(broker);
    }
}

void sim_broker_wake(struct sim_broker *broker)
{
    if (broker->up && !broker->woken) {
        enum sim_stream before = sim_enter(broker->sim, SIM_BROKER);
        broker->woken = true;
        sim_after(broker->sim, sim_pick(broker->sim, 10, 200), turn, broker, broker->generation, 0);
        sim_enter(broker->sim, before);
    }
}

/* ------------------------------------------------ the net's side */
static struct peer *peer_of(struct sim_broker *broker, uint64_t conn)
{
    struct peer *peer = broker->peers;
    while (peer != NULL && peer->conn != conn) {
        peer = peer->next;
    }
    return peer;
}

static void on_opened(void *context, uint64_t conn)
{
    struct sim_broker *broker = context;
    struct peer *peer = sim_alloc(sizeof(*peer));
    peer->conn = conn;
    hp_buf_init(&peer->in, 64U << 20);
    hp_tok_init(&peer->tok, &hp_tok_limits_prehello);
    struct peer **at = &broker->peers;
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = peer;
    sim_broker_wake(broker);
}

static void on_received(void *context, uint64_t conn, const uint8_t *data, size_t size)
{
    struct sim_broker *broker = context;
    struct peer *peer = peer_of(broker, conn);
    if (peer != NULL && !peer->ended) {
        HP_ASSERT(hp_buf_append(&peer->in, data, size) == HP_OK);
        sim_broker_wake(broker);
    }
}

static void on_closed(void *context, uint64_t conn)
{
    struct sim_broker *broker = context;
    struct peer *peer = peer_of(broker, conn);
    if (peer != NULL) {
        peer->ended = true;
        sim_broker_wake(broker);
    }
}

static const struct sim_end broker_end = {
    .opened = on_opened, .received = on_received, .closed = on_closed};

/* ------------------------------------------------ life and death */
void sim_broker_new(struct sim *sim)
{
    struct sim_broker *broker = sim_alloc(sizeof(*broker));
    broker->sim = sim;
    broker->store = hp_store_mem_new();
    broker->blobs = sim_blobs_new();
    hp_effects_init(&broker->effects);
    sim->broker = broker;
}

static void recover_one(void *context, const struct hp_record *record)
{
    struct sim_broker *broker = context;
    if (record->kind == HP_RECORD_META) {
        broker->durable = broker->last_number = broker->last_put = record->meta.last_batch;
    }
    hp_core_recover(broker->core, record, sim_ms(broker->sim), sim_wall_ms(broker->sim));
}

void sim_broker_start(struct sim *sim)
{
    struct sim_broker *broker = sim->broker;
    struct hp_core_config config;
    enum sim_stream before = sim_enter(sim, SIM_BROKER);
    hp_core_config_init(&config);
    config.seed = sim_pick(sim, 1, UINT64_MAX - 1);
    config.lease_ms = sim->plan.lease_ms;
    config.heartbeat_ms = sim->plan.heartbeat_ms;
    config.window_runs = sim->plan.window_runs;
    config.window_bytes = sim->plan.window_bytes;
    config.window_timers = sim->plan.window_timers;
    config.backlog_ops_max = sim->plan.backlog_ops_max;
    config.eager = sim->plan.eager;
    broker->core = hp_core_new(&config);
    struct hp_error error;
    HP_ASSERT(hp_store_recover(broker->store, recover_one, broker, &error) == HP_OK);
    broker->up = true;
    broker->paused = false;
    broker->woken = false;
    broker->deadline_us = SIM_NEVER;
    sim_note(sim, "broker_start", broker->durable, 0, 0, 0);
    hp_core_check(broker->core);
    sim->broker_started_ms = sim_ms(sim);
    sim_net_serve(sim, &broker_end, broker);
    sim_net_gone(sim, 0, true, false);
    sim_broker_wake(broker);
    sim_enter(sim, before);
}

static void drop_all(struct sim_broker *broker)
{
    while (broker->peers != NULL) {
        struct peer *next = broker->peers->next;
        hp_buf_deinit(&broker->peers->in);
        hp_free(broker->peers);
        broker->peers = next;
    }
    while (broker->waiting_first != NULL) {
        struct waiting *next = broker->waiting_first->next;
        hp_buf_deinit(&broker->waiting_first->bytes);
        hp_free(broker->waiting_first);
        broker->waiting_first = next;
    }
    broker->waiting_last = NULL;
    while (broker->jobs_first != NULL) {
        struct job *job = sim_broker_take_job(broker);
        hp_batch_free(job->batch);
        hp_load_free(job->load);
        hp_free(job);
    }
    while (broker->news_first != NULL) {
        struct news *next = broker->news_first->next;
        free_news(broker->news_first);
        broker->news_first = next;
    }
    broker->news_last = NULL;
    while (broker->held_first != NULL) {
        struct hp_batch *next = broker->held_first->next;
        hp_batch_free(broker->held_first);
        broker->held_first = next;
    }
    broker->held_last = NULL;
    broker->hold_until_us = 0;
    broker->store_busy = false;
    broker->draining = false;
    broker->told_full = false;
    broker->in_commit = 0;
    broker->stall_us = 0;
}

void sim_broker_crash(struct sim *sim, bool gone)
{
    struct sim_broker *broker = sim->broker;
    if (!broker->up) {
        return;
    }
    /* The commit under way may have come through, and nobody heard of it. */
    enum sim_stream before = sim_enter(sim, SIM_BROKER);
    if (broker->in_commit > 0 && !broker->disk_full && sim_percent(sim, 50)) {
        sim_broker_apply(broker, broker->in_commit);
    }
    sim_note(sim, "broker_crash", broker->durable, gone, 0, 0);
    sim->figures.crashes++;
    sim_broker_pause(sim, false);
    broker->up = false;
    broker->generation++;
    drop_all(broker);
    hp_effects_clear(&broker->effects);
    hp_core_free(broker->core);
    broker->core = NULL;
    sim_blobs_crash(broker);
    hp_store_mem_crash(broker->store);
    audit_restarted(sim);
    sim_net_died(sim, 0, true, gone);
    sim_enter(sim, before);
}

bool sim_broker_strikes(struct sim_broker *broker, enum sim_fault_kind kind)
{
    const struct sim_fault *fault = broker->armed;
    if (fault == NULL || fault->kind != kind || !broker->up) {
        return false;
    }
    broker->armed = NULL;
    sim_fault_struck(broker->sim, fault);
    if (kind == SIM_FAULT_COMMIT_LOST || kind == SIM_FAULT_COMMIT_THERE) {
        sim_note(broker->sim, "disk_error", kind == SIM_FAULT_COMMIT_THERE, 0, 0, 0);
        broker->in_commit = 0; /* what is in the store is decided */
    }
    sim_broker_crash(broker->sim, false);
    return true;
}

void sim_broker_arm(struct sim *sim, struct sim_fault *fault)
{
    sim->broker->armed = fault;
}

bool sim_broker_is_armed(const struct sim *sim)
{
    return sim->broker->armed != NULL;
}

void sim_broker_pause(struct sim *sim, bool paused)
{
    struct sim_broker *broker = sim->broker;
    if (!broker->up || broker->paused == paused) {
        return;
    }
    sim_note(sim, "broker_pause", paused, 0, 0, 0);
    broker->paused = paused;
    broker->woken = false;
    sim_net_pause(sim, 0, true, paused);
    if (!paused) {
        broker->deadline_us = SIM_NEVER;
        sim_broker_wake(broker);
    }
}

static void drained(struct sim *sim, void *context, uint64_t generation, uint64_t tries)
{
    struct sim_broker *broker = context;
    if (generation != broker->generation) {
        return;
    }
    if (tries > 0 && !hp_core_is_drained(broker->core)) {
        sim_broker_wake(broker);
        sim_after(sim, 20 * SIM_MS, drained, broker, generation, tries - 1);
        return;
    }
    sim_broker_crash(sim, false);
}

void sim_broker_drain(struct sim *sim)
{
    struct sim_broker *broker = sim->broker;
    if (broker->up && !broker->paused) {
        sim_note(sim, "broker_drain", 0, 0, 0, 0);
        broker->draining = true;
        sim_broker_wake(broker);
        sim_after(sim, 20 * SIM_MS, drained, broker, broker->generation, 50);
    }
}

bool sim_broker_is_up(const struct sim *sim)
{
    return sim->broker->up;
}

bool sim_broker_is_paused(const struct sim *sim)
{
    return sim->broker->paused;
}

void sim_broker_slow_store(struct sim *sim, bool slow)
{
    sim->broker->store_slow = slow;
}

void sim_broker_fill_disk(struct sim *sim, bool full)
{
    sim->broker->disk_full = full;
}

bool sim_broker_is_disk_full(const struct sim *sim)
{
    return sim->broker->disk_full;
}

void sim_broker_stall_store(struct sim *sim, uint64_t us)
{
    sim->broker->stall_us += us;
    sim->broker->blob_stall_us += us;
}

void sim_broker_dump(struct sim *sim)
{
    struct hp_buf out;
    hp_buf_init(&out, 64U << 20);
    if (sim->broker->core != NULL) {
        hp_core_dump(sim->broker->core, &out);
        (void)fwrite(out.data, 1, out.size, stderr);
    }
    hp_buf_deinit(&out);
}

/* What the auditor saw committed is what the store holds. */
static void check_store(struct sim_broker *broker)
{
    struct sim *sim = broker->sim;
    uint64_t ids[512];
    uint32_t count = 0;
    while ((count = audit_ids(sim, ids, 512)) > 0) {
        struct hp_load *load = hp_load_new(HP_LOAD_TASKS);
        load->spans = hp_calloc(count, sizeof(*load->spans));
        HP_ASSERT(load->spans != NULL);
        load->span_count = count;
        load->bytes_max = UINT32_MAX;
        for (uint32_t i = 0; i < count; i++) {
            load->spans[i] = (struct hp_id_span){ids[i], 1};
        }
        struct hp_loaded *loaded = hp_loaded_new(load);
        while (!hp_store_load(broker->store, loaded)) {
        }
        SIM_RULE(sim, loaded->task_count == count && !loaded->more,
                 "the store answers for %u of %u tasks", loaded->task_count, count);
        for (uint32_t i = 0; i < count; i++) {
            const struct hp_loaded_task *task = &loaded->tasks[i];
            audit_stored(sim, task->id, task->exists && task->ended, (uint32_t)task->result.state,
                         task->result.attempt);
        }
        hp_loaded_free(loaded);
    }
}

/* All has ended: what is left in memory is what the store would give a new core. */
void sim_broker_final(struct sim *sim)
{
    struct sim_broker *broker = sim->broker;
    struct hp_core *core = broker->core;
    SIM_RULE(sim, core != NULL, "the broker is not up at the end");
    hp_core_check(core);
    bool empty = hp_idmap_count(&core->attempts) == 0 && hp_idmap_count(&core->parked) == 0 &&
                 hp_idmap_count(&core->timers) == 0 && hp_idmap_count(&core->lease_batches) == 0 &&
                 hp_idmap_count(&core->pools) == 0 && core->payload_bytes == 0;
    struct hp_strmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_strmap_next(&core->queues, &iter, NULL, &value)) {
        empty = empty && ((const struct hp_queue *)(uintptr_t)value)->delayed == 0;
    }
    if (!empty) {
        sim_broker_dump(sim);
    }
    SIM_RULE(sim, empty, "something is left in the core at the end");
    hp_core_free(core);
    broker->generation++;
    broker->up = false;
    drop_all(broker);
    sim_blobs_crash(broker);
    sim_broker_start(sim);
    SIM_RULE(sim, hp_idmap_count(&broker->core->attempts) == 0, "leases are left in the store");
    check_store(broker);
}

void sim_broker_free(struct sim *sim)
{
    struct sim_broker *broker = sim->broker;
    drop_all(broker);
    hp_core_free(broker->core);
    hp_effects_deinit(&broker->effects);
    sim_blobs_free(broker);
    hp_store_close(broker->store);
    hp_free(broker);
}
