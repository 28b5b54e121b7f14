/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker host: the agent in a shell, an executor whose tasks take virtual time, fail and die, a
 * helper that keeps the dead-man's switch while the daemon is stopped, and a spool whose records
 * are durable only after their fsync.
 *
 * Payload of the workload: 8 bytes that name the task (wid). Result: task id and attempt.
 */
#include "tests/sim/node_state.h"

static void drain_effects(struct sim_node *node);

/* ------------------------------------------------ spool */
static void synced(struct sim *sim, void *context, uint64_t generation, uint64_t id)
{
    struct sim_node *node = context;
    (void)sim;
    if (generation != node->generation) {
        return;
    }
    for (struct record *record = node->spool; record != NULL; record = record->next) {
        record->durable = record->durable || record->id <= id;
    }
    node->spooled_up_to = id > node->spooled_up_to ? id : node->spooled_up_to;
    sim_node_wake(node);
    sim_node_strikes(node, SIM_FAULT_NODE_SPOOLED);
}

static void spool_append(struct sim_node *node, uint64_t id, struct hp_bin bytes)
{
    struct record *record = sim_alloc(sizeof(*record) + bytes.size);
    memcpy(record + 1, bytes.data, bytes.size);
    record->id = id;
    record->bytes = hp_bin_make((uint8_t *)(record + 1), bytes.size);
    struct record **at = &node->spool;
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = record;
    sim_after(node->sim, sim_pick(node->sim, 500, 30000), synced, node, node->generation, id);
    sim_node_strikes(node, SIM_FAULT_NODE_SPOOLING);
}

static void spool_ack(struct sim_node *node, uint64_t id)
{
    for (struct record *record = node->spool; record != NULL; record = record->next) {
        record->acked = record->acked || record->id == id;
    }
    sim_node_strikes(node, SIM_FAULT_NODE_ACKED);
}

/* After a crash: what was not synced is lost; what was acknowledged may come back. */
static void spool_crash(struct sim_node *node)
{
    struct record **at = &node->spool;
    while (*at != NULL) {
        struct record *record = *at;
        bool gone = !record->durable || (record->acked && sim_percent(node->sim, 80));
        if (gone) {
            *at = record->next;
            hp_free(record);
        } else {
            record->acked = false;
            at = &record->next;
        }
    }
}

/* ------------------------------------------------ the net's side */
static void on_opened(void *context, uint64_t conn)
{
    struct sim_node *node = context;
    if (conn == node->conn && node->up) {
        node->connected = true;
        hp_agent_connected(node->agent, sim_ms(node->sim));
        drain_effects(node);
    }
}

static void on_gone(void *context, uint64_t conn)
{
    struct sim_node *node = context;
    if (conn == node->conn && node->up) {
        node->conn = 0;
        node->connected = false;
        hp_agent_disconnected(node->agent, "lost", sim_ms(node->sim));
        drain_effects(node);
    }
}

static void on_received(void *context, uint64_t conn, const uint8_t *data, size_t size)
{
    struct sim_node *node = context;
    if (conn == node->conn && node->up) {
        hp_agent_received(node->agent, data, size, sim_ms(node->sim));
        drain_effects(node);
    }
}

static const struct sim_end node_end = {
    .opened = on_opened, .failed = on_gone, .received = on_received, .closed = on_gone};

/* ------------------------------------------------ effects */
static void do_call(struct sim_node *node, const struct hp_agent_effect *effect)
{
    for (uint32_t i = 0; i < effect->call_count; i++) {
        const struct hp_agent_call *call = &effect->calls[i];
        SIM_RULE(node->sim, effect->child < node->slots + POOL_CHILDREN,
                 "a call for a child that is not there");
        (void)sim_node_add_run(node, call->key, call->id, call->attempt, call->epoch, call->payload,
                               call->fence, effect->child);
    }
    if (node->child_up[effect->child]) {
        sim_node_begin_child(node, effect->child);
    } else {
        sim_node_recall(node, effect->child); /* it died before they came */
    }
}

static void gone_now(struct sim *sim, void *context, uint64_t generation, uint64_t b)
{
    struct sim_node *node = context;
    (void)b;
    if (generation == node->generation) {
        sim_node_crash(sim, node->index, false);
        sim_node_start(sim, node->index);
    }
}

static void set_deadline(struct sim_node *node, uint64_t deadline_ms)
{
    node->fence_ms = deadline_ms;
    if (deadline_ms != HP_AGENT_NEVER) {
        sim_at(node->sim, deadline_ms * SIM_MS, sim_node_fence, node, node->generation,
               deadline_ms);
    }
}

static void do_effect(struct sim_node *node, const struct hp_agent_effect *effect)
{
    switch (effect->kind) {
    case HP_AGENT_CONNECT:
        node->conn = sim_net_connect(node->sim, node->index, &node_end, node);
        node->connected = false;
        break;
    case HP_AGENT_CLOSE:
        sim_note(node->sim, "node_close", node->index, node->conn, 0, 0);
        sim_net_close(node->sim, node->conn, false);
        node->conn = 0;
        node->connected = false;
        break;
    case HP_AGENT_RUN:
        sim_node_do_run(node, effect->command);
        break;
    case HP_AGENT_CALL:
        do_call(node, effect);
        break;
    case HP_AGENT_KILL:
        sim_node_do_kill(node, effect->key, effect->signal);
        break;
    case HP_AGENT_RECALL:
        sim_node_recall(node, effect->child);
        break;
    case HP_AGENT_FOLLOW:
        break;
    case HP_AGENT_SET_DEADLINE:
        set_deadline(node, effect->deadline_ms);
        break;
    case HP_AGENT_SPOOL_APPEND:
        spool_append(node, effect->spool_id, effect->record);
        break;
    case HP_AGENT_SPOOL_ACK:
        spool_ack(node, effect->spool_id);
        break;
    case HP_AGENT_LOG:
        if (effect->level < HP_AGENT_LOG_DEBUG) {
            sim_say(node->sim, "worker %u's log: %s", node->index, effect->text);
        }
        break;
    case HP_AGENT_CHILD_START:
        sim_node_pool_start(node, effect);
        break;
    case HP_AGENT_CHILD_STOP:
        sim_node_pool_stop(node, effect);
        break;
    case HP_AGENT_POOL_GONE:
        sim_note(node->sim, "pool_gone", node->index, effect->pool, 0, 0);
        for (uint32_t i = 0; i < CHILDREN_MAX; i++) {
            SIM_RULE(node->sim, node->pool_children[i].pool != effect->pool,
                     "pool %llu is gone on node %u, but not its child %u",
                     (unsigned long long)effect->pool, node->index, i);
        }
        break;
    case HP_AGENT_NEAR_PROVE:
    case HP_AGENT_NEAR_OPEN:
    case HP_AGENT_NEAR_SEAL:
        break; /* nobody is on the broker's host */
    case HP_AGENT_EXIT:
        sim_note(node->sim, "node_exit", node->index, 0, 0, 0);
        sim_after(node->sim, 200 * SIM_MS, gone_now, node, node->generation, 0);
        break;
    }
}

static void at_deadline(struct sim *sim, void *context, uint64_t generation, uint64_t at_us)
{
    struct sim_node *node = context;
    if (generation == node->generation && at_us == node->deadline_us && !node->paused) {
        node->deadline_us = SIM_NEVER;
        hp_agent_tick(node->agent, sim_ms(sim));
        drain_effects(node);
    }
}

static void drain_effects(struct sim_node *node)
{
    struct sim *sim = node->sim;
    for (size_t i = 0; i < hp_agent_effect_count(node->agent); i++) {
        struct hp_agent_effect effect = *hp_agent_effect(node->agent, i);
        do_effect(node, &effect);
    }
    hp_agent_effects_clear(node->agent);
    struct hp_bin out = hp_agent_output(node->agent);
    if (out.size > 0 && node->connected) {
        sim_net_send(sim, node->conn, false, out.data, out.size);
        hp_agent_output_consume(node->agent, out.size);
    }
    if (sim->plan.check_each_turn) {
        hp_agent_check(node->agent);
    }
    uint64_t deadline_ms = hp_agent_next_deadline_ms(node->agent);
    if (deadline_ms == HP_AGENT_NEVER) {
        return;
    }
    uint64_t at_us = deadline_ms * SIM_MS;
    at_us = at_us <= sim->now_us ? sim->now_us + SIM_MS : at_us;
    if (node->deadline_us == SIM_NEVER || at_us < node->deadline_us) {
        node->deadline_us = at_us;
        sim_at(sim, at_us, at_deadline, node, node->generation, at_us);
    }
}

/* A large result: what tells whose it is, and content behind it. */
static uint8_t *make_large(const uint8_t result[12], uint32_t large)
{
    uint8_t *bytes = sim_alloc(12 + (size_t)large);
    memcpy(bytes, result, 12);
    sim_content_fill(bytes + 12, large, sim_content_number(bytes, 12));
    return bytes;
}

/* What the executor and the spool have to tell. */
static void listen(struct sim *sim, void *context, uint64_t generation, uint64_t b)
{
    struct sim_node *node = context;
    (void)b;
    if (generation != node->generation || node->paused) {
        return;
    }
    node->woken = false;
    static struct hp_agent_event events[EVENTS_MAX];
    static uint8_t results[EVENTS_MAX][12];
    static uint8_t *larges[EVENTS_MAX];
    uint32_t count = node->event_count;
    memcpy(events, node->events, count * sizeof(events[0]));
    memcpy(results, node->results, count * sizeof(results[0]));
    bool down[SLOTS_MAX] = {0};
    for (uint32_t i = 0; i < count; i++) {
        larges[i] = NULL;
        if (node->larges[i] > 0) {
            larges[i] = make_large(results[i], node->larges[i]);
            events[i].out = hp_bin_make(larges[i], 12 + (size_t)node->larges[i]);
        } else if (events[i].out.size > 0) {
            events[i].out.data = results[i];
        }
        if (events[i].kind == HP_AGENT_EXEC_CHILD_DOWN && events[i].child < node->slots) {
            down[events[i].child] = true;
        }
    }
    node->event_count = 0;
    if (count > 0) {
        hp_agent_exec(node->agent, events, count, sim_ms(sim));
    }
    for (uint32_t i = 0; i < count; i++) {
        hp_free(larges[i]);
    }
    if (node->spooled_up_to > 0) {
        uint64_t id = node->spooled_up_to;
        node->spooled_up_to = 0;
        hp_agent_spooled(node->agent, id, true, sim_ms(sim));
    }
    for (uint32_t i = 0; i < node->slots; i++) {
        if (down[i]) {
            sim_after(sim, CHILD_UP_MS * SIM_MS, sim_node_child_up, node, node->generation, i);
        }
    }
    drain_effects(node);
}

void sim_node_wake(struct sim_node *node)
{
    if (node->up && !node->woken && !node->paused) {
        enum sim_stream before = sim_enter(node->sim, SIM_NODE_0 + node->index);
        node->woken = true;
        sim_after(node->sim, sim_pick(node->sim, 5, 100), listen, node, node->generation, 0);
        sim_enter(node->sim, before);
    }
}

/* ------------------------------------------------ life and death */
void sim_node_new(struct sim *sim, uint32_t index)
{
    struct sim_node *node = sim_alloc(sizeof(*node));
    node->sim = sim;
    node->index = index;
    node->slots = (uint32_t)sim_pick(sim, index == 0 ? 2 : 1, SLOTS_MAX); /* one fits big tasks */
    node->next_serial = 1;
    (void)snprintf(node->name, sizeof(node->name), "node%u", index);
    sim->nodes[index] = node;
}

void sim_node_start(struct sim *sim, uint32_t index)
{
    static const struct hp_str functions[] = {HP_STR_INIT("f0"), HP_STR_INIT("f1")};
    static const struct hp_str tags[] = {HP_STR_INIT("even"), HP_STR_INIT("odd")};
    struct sim_node *node = sim->nodes[index];
    struct hp_agent_config config = {.client = HP_STR("sim"),
                                     .node = hp_str_of(node->name),
                                     .host = HP_STR("host"),
                                     .pid = 1,
                                     .slots = node->slots,
                                     .prefetch_max = (uint32_t)(index * 8),
                                     .mem_bytes = 1U << 30,
                                     .tags = &tags[index % 2],
                                     .tag_count = 1,
                                     .functions = functions,
                                     .function_count = 2,
                                     .commands = true};
    if (sim->plan.pools) {
        static const struct hp_str languages[] = {HP_STR_INIT("c"), HP_STR_INIT("python3.11")};
        config.languages = languages;
        config.language_count = index == 2 ? 1 : 2;
        config.children_max = POOL_CHILDREN;
    }
    enum sim_stream before = sim_enter(sim, SIM_NODE_0 + index);
    config.seed = sim_pick(sim, 1, UINT64_MAX - 1);
    hp_rand_fill(&sim->rands[sim->stream], config.boot, sizeof(config.boot));
    struct hp_error error;
    HP_ASSERT(!node->up);
    SIM_RULE(sim,
             sim->options->trap != SIM_TRAP_PAIR || sim_ms(sim) < 1000 ||
                 sim_ms(sim) - sim->broker_started_ms > 3000,
             "worker %u and the broker start together, which the trap forbids", index);
    sim_net_gone(sim, index, false, false);
    HP_ASSERT(hp_agent_new(&config, sim_ms(sim), &node->agent, &error) == HP_OK);
    node->up = true;
    node->paused = false;
    node->woken = false;
    node->deadline_us = SIM_NEVER;
    node->fence_ms = HP_AGENT_NEVER;
    sim_note(sim, "node_start", index, node->slots, 0, 0);
    for (struct record *record = node->spool; record != NULL; record = record->next) {
        hp_agent_spool_loaded(node->agent, record->id, record->bytes);
    }
    hp_agent_tick(node->agent, sim_ms(sim));
    for (uint32_t i = 0; i < node->slots; i++) {
        sim_after(sim, CHILD_UP_MS * SIM_MS, sim_node_child_up, node, node->generation, i);
    }
    drain_effects(node);
    sim_enter(sim, before);
}

static void end_runs(struct sim_node *node)
{
    while (node->runs != NULL) {
        struct run *run = node->runs;
        node->runs = run->next;
        if (run->began) {
            audit_end(node->sim, node->index, run->id, run->attempt, run->epoch, false);
        }
        hp_free(run);
    }
}

void sim_node_crash(struct sim *sim, uint32_t index, bool gone)
{
    struct sim_node *node = sim->nodes[index];
    if (!node->up) {
        return;
    }
    enum sim_stream before = sim_enter(sim, SIM_NODE_0 + index);
    sim_note(sim, "node_crash", index, gone, 0, 0);
    sim->figures.crashes++;
    node->up = false;
    node->generation++;
    node->event_count = 0;
    node->spooled_up_to = 0;
    node->conn = 0;
    node->connected = false;
    memset(node->child_up, 0, sizeof(node->child_up));
    memset(node->pool_children, 0, sizeof(node->pool_children));
    end_runs(node); /* the helper ends them with the daemon */
    spool_crash(node);
    hp_agent_free(node->agent);
    node->agent = NULL;
    if (node->paused) {
        node->paused = false;
        sim_net_pause(sim, index, false, false);
    }
    sim_net_died(sim, index, false, gone);
    sim_enter(sim, before);
}

/* At the next moment of the agenda: the call that is under way ends first, and tells nobody. */
static void struck(struct sim *sim, void *context, uint64_t generation, uint64_t number)
{
    struct sim_node *node = context;
    if (generation == node->generation && node->up) {
        sim_fault_struck(sim, &sim->plan.faults[number]);
        sim_node_crash(sim, node->index, false);
    }
}

void sim_node_strikes(struct sim_node *node, enum sim_fault_kind kind)
{
    struct sim *sim = node->sim;
    if (node->armed != NULL && node->armed->kind == kind) {
        uint64_t number = (uint64_t)(node->armed - sim->plan.faults);
        node->armed = NULL;
        sim_after(sim, 0, struck, node, node->generation, number);
    }
}

void sim_node_arm(struct sim *sim, uint32_t index, struct sim_fault *fault)
{
    sim->nodes[index]->armed = fault;
}

bool sim_node_is_armed(const struct sim *sim, uint32_t index)
{
    return sim->nodes[index]->armed != NULL;
}

bool sim_node_is_paused(const struct sim *sim, uint32_t index)
{
    return sim->nodes[index]->paused;
}

void sim_node_pause(struct sim *sim, uint32_t index, bool paused)
{
    struct sim_node *node = sim->nodes[index];
    if (!node->up || node->paused == paused) {
        return;
    }
    sim_note(sim, "node_pause", index, paused, 0, 0);
    node->paused = paused;
    sim_net_pause(sim, index, false, paused);
    if (!paused) {
        node->woken = false;
        node->deadline_us = SIM_NEVER;
        hp_agent_tick(node->agent, sim_ms(sim));
        drain_effects(node);
        sim_node_wake(node);
    }
}

void sim_node_drain(struct sim *sim, uint32_t index)
{
    struct sim_node *node = sim->nodes[index];
    if (node->up && !node->paused) {
        sim_note(sim, "node_drain", index, 0, 0, 0);
        hp_agent_drain(node->agent, sim_pick(sim, 100, 8000), sim_ms(sim));
        drain_effects(node);
    }
}

uint32_t sim_node_slots(const struct sim *sim, uint32_t index)
{
    return sim->nodes[index]->slots;
}

bool sim_node_is_up(const struct sim *sim, uint32_t index)
{
    return sim->nodes[index]->up;
}

void sim_node_dump(struct sim *sim, uint32_t index)
{
    struct hp_buf out;
    hp_buf_init(&out, 16U << 20);
    if (sim->nodes[index]->agent != NULL &&
        hp_agent_dump(sim->nodes[index]->agent, &out) == HP_OK) {
        (void)fwrite(out.data, 1, out.size, stderr);
    }
    hp_buf_deinit(&out);
}

void sim_node_final(struct sim *sim, uint32_t index)
{
    struct sim_node *node = sim->nodes[index];
    struct hp_agent_stats stats;
    SIM_RULE(sim, node->up, "node %u is not up at the end", index);
    hp_agent_check(node->agent);
    hp_agent_get_stats(node->agent, &stats);
    if (stats.held != 0) {
        sim_node_dump(sim, index);
    }
    SIM_RULE(sim, stats.registered, "node %u is not registered at the end", index);
    SIM_RULE(sim, stats.held == 0, "node %u holds %u attempts at the end", index, stats.held);
    SIM_RULE(sim, node->runs == NULL, "node %u has a child at the end", index);
    for (uint32_t i = 0; i < CHILDREN_MAX; i++) {
        SIM_RULE(sim, node->pool_children[i].pool == 0,
                 "node %u has a child of pool %llu at the end", index,
                 (unsigned long long)node->pool_children[i].pool);
    }
    for (const struct record *record = node->spool; record != NULL; record = record->next) {
        SIM_RULE(sim, record->acked, "node %u has an unacknowledged record at the end", index);
    }
}

void sim_node_free(struct sim *sim, uint32_t index)
{
    struct sim_node *node = sim->nodes[index];
    while (node->runs != NULL) {
        struct run *next = node->runs->next;
        hp_free(node->runs);
        node->runs = next;
    }
    while (node->spool != NULL) {
        struct record *next = node->spool->next;
        hp_free(node->spool);
        node->spool = next;
    }
    hp_agent_free(node->agent);
    hp_free(node);
}
