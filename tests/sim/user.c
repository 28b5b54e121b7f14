/* SPDX-License-Identifier: BSD-2-Clause */
/* A client: the engine in a shell, and a workload that mixes all options. */
#include <stdio.h>
#include <string.h>

#include "client/fetch.h"
#include "tests/sim/user_state.h"

/* ------------------------------------------------ events */
static uint64_t little(const uint8_t *data, uint32_t size)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < size; i++) {
        value |= (uint64_t)data[i] << (8 * i);
    }
    return value;
}

/* A large result on its way. */
struct reading {
    struct reading *next;
    struct sim_user *user;
    uint64_t task;
    uint32_t state, attempt;
    bool in_memory; /* a restart of the broker may have lost it */
};

static void read_result(void *context, enum hp_status status, const char *text,
                        struct hp_buffer *buffer)
{
    struct reading *reading = context;
    struct sim_user *user = reading->user;
    struct sim *sim = user->sim;
    const uint8_t *data = (const uint8_t *)buffer->data;
    sim_note(sim, "read", user->index, reading->task, (uint64_t)status, buffer->size);
    SIM_RULE(sim, status == HP_STATUS_OK || (status == HP_STATUS_NOT_FOUND && reading->in_memory),
             "task %llu: its result cannot be read: %s (%s)", (unsigned long long)reading->task,
             hp_strerror(status), text);
    SIM_RULE(
        sim,
        status != HP_STATUS_OK ||
            (buffer->size > 12 && sim_content_is(data + 12, buffer->size - 12, little(data, 8))),
        "task %llu: its result has other bytes", (unsigned long long)reading->task);
    bool has = status == HP_STATUS_OK;
    audit_told(sim, reading->task, reading->state, has ? little(data, 8) : 0,
               has ? (uint32_t)little(data + 8, 4) : reading->attempt, has);
    hp_free(buffer->data);
    struct reading **at = &user->readings;
    while (*at != reading) {
        at = &(*at)->next;
    }
    *at = reading->next;
    hp_free(reading);
}

static void read_large(struct sim_user *user, const struct hp_task *task, uint64_t blob)
{
    struct reading *reading = sim_alloc(sizeof(*reading));
    *reading = (struct reading){.next = user->readings,
                                .user = user,
                                .task = task->id,
                                .state = (uint32_t)task->state,
                                .attempt = task->attempt,
                                .in_memory = audit_is_task_in_memory(user->sim, task->id)};
    user->readings = reading;
    HP_ASSERT(hp_fetch_begin(user->engine, blob, read_result, reading) != NULL);
}

static void drop_readings(struct sim_user *user)
{
    while (user->readings != NULL) {
        struct reading *next = user->readings->next;
        hp_free(user->readings);
        user->readings = next;
    }
}

static void told(struct sim_user *user, const struct hp_task *task)
{
    struct sim *sim = user->sim;
    const struct hp_end *end = task->end;
    struct hp_bytes bytes = {0};
    if (end != NULL) {
        bytes = end->result.size > 0 ? end->result : end->out;
        uint64_t blob = end->result_blob != 0 ? end->result_blob : end->out_blob;
        if (blob != 0) {
            read_large(user, task, blob);
            return;
        }
    }
    bool has = bytes.size == 12;
    SIM_RULE(sim, task->state != HP_STATE_DONE || has || audit_is_pool(sim, task->id),
             "task %llu is done without its result", (unsigned long long)task->id);
    audit_told(sim, task->id, (uint32_t)task->state, has ? little(bytes.data, 8) : 0,
               has ? (uint32_t)little((const uint8_t *)bytes.data + 8, 4) : 0, has);
}

static void on_event(struct sim_user *user, const struct hp_event *event)
{
    struct sim *sim = user->sim;
    uint64_t wid = (uint64_t)(uintptr_t)event->user;
    switch (event->kind) {
    case HP_EVENT_SUBMITTED:
        sim_note(sim, "submitted", user->index, event->ids.first, event->ids.count, wid);
        audit_acked(sim, wid + event->index, event->ids.count, event->ids.first,
                    event->outcome == HP_OUTCOME_JOINED);
        break;
    case HP_EVENT_SUBMIT_FAILED:
        sim_note(sim, "submit_failed", user->index, (uint64_t)event->status, event->ids.count, wid);
        SIM_RULE(sim, event->status == HP_STATUS_CONFLICT || sim_user_may_refuse(sim, event),
                 "a sound submit failed: %s (%s)", hp_strerror(event->status),
                 event->text != NULL ? event->text : "");
        break;
    case HP_EVENT_ENDED:
        sim_note(sim, "ended", user->index, event->task->id, (uint64_t)event->task->state,
                 event->task->attempt);
        told(user, event->task);
        break;
    case HP_EVENT_CONNECTED:
    case HP_EVENT_DISCONNECTED:
    case HP_EVENT_OUTPUT:
        break;
    case HP_EVENT_REPLY:
        sim_note(sim, "reply", user->index, event->request, (uint64_t)event->status, 0);
        break;
    }
}

/* ------------------------------------------------ the shell */
static void on_opened(void *context, uint64_t conn)
{
    struct sim_user *user = context;
    if (conn == user->conn) {
        user->connected = true;
        hp_engine_opened(user->engine, sim_ms(user->sim));
        sim_user_pump(user);
    }
}

static void gone(struct sim_user *user)
{
    user->conn = 0;
    user->connected = false;
    hp_engine_closed(user->engine, HP_STATUS_UNREACHABLE, "lost", sim_ms(user->sim));
}

static void on_gone(void *context, uint64_t conn)
{
    struct sim_user *user = context;
    if (conn == user->conn) {
        gone(user);
        sim_user_pump(user);
    }
}

static void on_received(void *context, uint64_t conn, const uint8_t *data, size_t size)
{
    struct sim_user *user = context;
    if (conn == user->conn) {
        (void)hp_engine_feed(user->engine, data, size, sim_ms(user->sim));
        sim_user_pump(user);
    }
}

static const struct sim_end user_end = {
    .opened = on_opened, .failed = on_gone, .received = on_received, .closed = on_gone};

static void at_deadline(struct sim *sim, void *context, uint64_t generation, uint64_t at_us)
{
    struct sim_user *user = context;
    (void)sim;
    if (generation == user->generation && at_us == user->deadline_us && !user->paused) {
        user->deadline_us = SIM_NEVER;
        sim_user_pump(user);
    }
}

static void arm(struct sim_user *user)
{
    struct sim *sim = user->sim;
    uint64_t deadline_ms = hp_engine_deadline_ms(user->engine);
    if (deadline_ms == HP_ENGINE_NEVER) {
        return;
    }
    uint64_t at_us = deadline_ms * SIM_MS;
    at_us = at_us <= sim->now_us ? sim->now_us + SIM_MS : at_us;
    if (user->deadline_us == SIM_NEVER || at_us < user->deadline_us) {
        user->deadline_us = at_us;
        sim_at(sim, at_us, at_deadline, user, user->generation, at_us);
    }
}

void sim_user_pump(struct sim_user *user)
{
    struct sim *sim = user->sim;
    struct hp_engine *engine = user->engine;
    struct hp_event event;
    enum hp_status status = HP_STATUS_OK;
    const char *text = NULL;
    hp_engine_step(engine, sim_ms(sim));
    if (hp_engine_wants_close(engine, &status, &text)) {
        SIM_RULE(sim, status != HP_STATUS_PROTOCOL, "the broker breaks the protocol: %s", text);
        sim_note(sim, "user_close", user->index, (uint64_t)status, 0, 0);
        if (user->conn != 0) {
            sim_net_close(sim, user->conn, false);
        }
        gone(user);
    }
    if (hp_engine_wants_connect(engine)) {
        hp_engine_connecting(engine, sim_ms(sim));
        user->conn = sim_net_connect(sim, SIM_NODES_MAX + user->index, &user_end, user);
    }
    while (hp_engine_next_event(engine, &event)) {
        on_event(user, &event);
    }
    for (;;) {
        struct hp_bytes out = hp_engine_output(engine);
        if (out.size == 0 || !user->connected) {
            break;
        }
        sim_net_send(sim, user->conn, false, out.data, out.size);
        hp_engine_sent(engine, out.size);
    }
    arm(user);
}

/* ------------------------------------------------ workload */
void sim_user_draw_times(struct sim *sim, struct draw *draw)
{
    struct hp_options *options = &draw->options;
    int64_t now_ms = sim_wall_ms(sim);
    if (sim_percent(sim, 15)) {
        options->delay_ms = sim_pick(sim, 1, 8000);
    }
    if (sim_percent(sim, 10)) {
        options->run_at_ms = now_ms + (int64_t)sim_pick(sim, 1, 8000);
    }
    if (options->pool == 0 && sim_percent(sim, 3)) { /* from two days to a year */
        draw->spec.far = true;
        options->delay_ms = sim_pick(sim, 2, 365) * 24 * 3600 * 1000;
    }
    draw->spec.run_at_ms = options->run_at_ms;
    draw->spec.delay_ms = options->delay_ms;
    draw->spec.asked_ms = sim_ms(sim);
    draw->spec.asked_ahead_ms = sim->wall_ahead_ms;
    if (sim_percent(sim, 12)) {
        options->expire_ms = sim_pick(sim, 1, 15000);
        draw->spec.may_expire = true;
    }
    if (sim_percent(sim, 5)) {
        options->deadline_ms = sim_pick(sim, 500, 30000);
        draw->spec.may_expire = true;
    }
    if (sim_percent(sim, 10)) {
        options->hard_timeout_ms = sim_pick(sim, 50, 5000);
    }
    if (sim_percent(sim, 5)) {
        options->soft_timeout_ms = sim_pick(sim, 50, 3000);
    }
    options->kill_grace_ms = sim_pick(sim, 10, 3000);
}

void sim_user_draw_budgets(struct sim *sim, struct draw *draw)
{
    struct hp_options *options = &draw->options;
    if (sim_percent(sim, 50)) {
        options->max_retries = (uint32_t)sim_pick(sim, 1, 4);
        options->retry_base_ms = sim_pick(sim, 1, 2000);
        options->retry_cap_ms = sim_pick(sim, 100, 4000);
    }
    if (sim_percent(sim, 30)) {
        options->child_losses = (uint32_t)sim_pick(sim, 1, 3);
    }
    if (sim_percent(sim, 20)) {
        options->max_losses = (uint32_t)sim_pick(sim, 0, 2);
    }
    options->at_most_once = sim_percent(sim, 15);
    options->on_partition = sim_percent(sim, 25) ? HP_PARTITION_CONTINUE : HP_PARTITION_KILL;
}

static void draw_keys(struct sim *sim, struct draw *draw)
{
    struct hp_options *options = &draw->options;
    if (sim_percent(sim, 25)) {
        uint32_t key = (uint32_t)sim_pick(sim, 0, SIM_KEYS - 1);
        (void)snprintf(draw->ckey, sizeof(draw->ckey), "ckey%u", key);
        options->ckey = draw->ckey;
        options->ckey_max = sim->plan.ckey_max[key];
        draw->spec.ckey = key + 1;
    }
    if (sim_percent(sim, 12)) {
        uint32_t key = (uint32_t)sim_pick(sim, 0, SIM_KEYS - 1);
        (void)snprintf(draw->ukey, sizeof(draw->ukey), "ukey%u", key);
        options->ukey = draw->ukey;
        options->on_conflict = (enum hp_conflict)sim_pick(sim, 0, 2);
        options->queue = NULL;
        draw->spec.ukey = key + 1;
        draw->count = 1;
    }
    if (sim_percent(sim, 10)) {
        draw->tags[0] = sim_percent(sim, 50) ? "even" : "odd";
        options->tags = draw->tags;
        options->tag_count = sim->plan.nodes > 1 && options->cpus == 1 ? 1 : 0;
    }
}

static void draw_all(struct sim *sim, struct draw *draw)
{
    struct hp_options *options = &draw->options;
    hp_options_init(options);
    draw->argv[0] = "true";
    draw->count = sim_percent(sim, 60) ? 1 : (uint32_t)sim_pick(sim, 2, MAX_PER_SUBMIT);
    bool function = sim_percent(sim, 60);
    options->kind = function ? HP_KIND_FUNCTION : HP_KIND_COMMAND;
    if (function) {
        options->fn = sim_percent(sim, 50) ? "f0" : "f1";
    } else {
        options->argv = draw->argv;
        options->argv_count = 1;
    }
    (void)snprintf(draw->queue, sizeof(draw->queue), "queue%u", (unsigned)sim_pick(sim, 0, 2));
    options->queue = draw->queue;
    if (sim_percent(sim, 40)) {
        options->priority = (uint32_t)sim_pick(sim, 98, 103);
    }
    if (sim_percent(sim, 8)) {
        options->cpus = sim_percent(sim, 50) ? 2 : 1;
        options->mem_bytes = sim_pick(sim, 0, 400) << 20;
    }
    sim_user_draw_times(sim, draw);
    sim_user_draw_budgets(sim, draw);
    draw_keys(sim, draw);
    draw->payloads = sim_percent(sim, 85);
    if (draw->spec.far && !draw->payloads) { /* it could not be told from others by its payload */
        draw->spec.far = false;
        options->delay_ms = 0;
        draw->spec.delay_ms = 0;
    }
    if (sim_percent(sim, 15) && draw->payloads && !draw->spec.far && options->ukey == NULL) {
        options->durable = false; /* without a payload it could not be told from others */
        draw->spec.in_memory = true;
    }
    draw->spec.function = function;
    draw->spec.at_most_once = options->at_most_once;
    draw->spec.kill_on_partition = options->on_partition == HP_PARTITION_KILL;
    draw->spec.max_retries = options->max_retries;
    draw->spec.max_losses = options->max_losses;
    draw->spec.child_losses = options->child_losses;
}

/* Its number, and content behind it in every fourth submit of histories with blobs. */
static uint8_t *make_payload(struct sim *sim, const struct draw *draw, uint64_t wid, bool is_large,
                             size_t *ret_size)
{
    *ret_size = is_large ? (size_t)sim_pick(sim, SIM_LARGE_LEAST, SIM_LARGE_MOST) : 8;
    uint8_t *bytes = sim_alloc(*ret_size);
    for (uint32_t k = 0; k < 8; k++) {
        bytes[k] = (uint8_t)(wid >> (8 * k));
    }
    sim_content_fill(bytes + 8, *ret_size - 8, wid);
    HP_ASSERT(draw->count <= MAX_PER_SUBMIT);
    return bytes;
}

void sim_user_submit(struct sim_user *user, struct draw *draw_ptr)
{
    struct sim *sim = user->sim;
    struct draw draw = *draw_ptr;
    uint64_t wid = sim_wid(user->index, sim->wids[user->index] + 1);
    uint8_t *bytes[MAX_PER_SUBMIT];
    struct hp_bytes payloads[MAX_PER_SUBMIT];
    bool is_large = sim->plan.blobs && draw.payloads && !draw.spec.pool && sim_percent(sim, 25);
    draw.count = is_large ? HP_MIN(draw.count, 2U) : draw.count;
    for (uint32_t i = 0; i < draw.count; i++) {
        size_t size = 0;
        bytes[i] = make_payload(sim, &draw, wid + i, is_large, &size);
        payloads[i] = (struct hp_bytes){.data = bytes[i], .size = size};
    }
    struct hp_engine_submit call = {.options = &draw.options,
                                    .payloads = draw.payloads ? payloads : NULL,
                                    .count = draw.count,
                                    .array = !draw.payloads,
                                    .user = (void *)(uintptr_t)wid};
    enum hp_status status = hp_engine_submit(user->engine, &call, NULL);
    for (uint32_t i = 0; i < draw.count; i++) {
        hp_free(bytes[i]);
    }
    if (status == HP_STATUS_AGAIN) {
        return;
    }
    SIM_RULE(sim, status == HP_STATUS_OK, "submit: %s (%s)", hp_strerror(status),
             hp_engine_error(user->engine));
    sim->wids[user->index] += draw.count;
    sim->figures.tasks += draw.count;
    sim_note(sim, "submit", user->index, wid, draw.count, draw.options.delay_ms);
    audit_asked(sim, wid, draw.count, &draw.spec);
    sim_user_pump(user);
}

void sim_user_call(struct sim_user *user, enum hp_method method, struct hp_buf *params)
{
    sim_note(user->sim, "call", user->index, (uint64_t)method, 0, 0);
    bool async = method == HP_METHOD_TASK_CANCEL || method == HP_METHOD_TASK_GET;
    enum hp_status status =
        async ? hp_call_begin_async(user->engine, method, params, NULL, NULL)
              : hp_call_begin(user->engine, method, params, NULL, NULL, false, NULL);
    SIM_RULE(user->sim, status == HP_STATUS_OK, "call: %s", hp_strerror(status));
    sim_user_pump(user);
}

static void must(enum hp_err err)
{
    HP_ASSERT(err == HP_OK);
}

static void cancel_range(struct sim_user *user, uint64_t first, uint32_t count,
                         enum hp_cancel_mode mode, uint64_t grace_ms)
{
    struct hp_buf params;
    hp_buf_init(&params, 1U << 20);
    struct hp_st_id_range range = {.has = HP_HAS_ST_ID_RANGE_COUNT, .first = first, .count = count};
    struct hp_msg_task_cancel msg = {.has = HP_HAS_TASK_CANCEL_MODE | HP_HAS_TASK_CANCEL_RANGES |
                                            HP_HAS_TASK_CANCEL_GRACE_MS,
                                     .ranges = {.items = &range, .count = 1},
                                     .mode = mode,
                                     .grace_ms = grace_ms};
    must(hp_msg_task_cancel_encode(&params, &msg));
    sim_note(user->sim, "cancel", user->index, first, count, (uint64_t)mode);
    sim_user_call(user, HP_METHOD_TASK_CANCEL, &params);
}

static void cancel(struct sim_user *user)
{
    struct sim *sim = user->sim;
    uint64_t id = audit_some_id(sim);
    uint32_t count = sim_percent(sim, 70) ? 1 : (uint32_t)sim_pick(sim, 2, 12);
    enum hp_cancel_mode mode = (enum hp_cancel_mode)sim_pick(sim, 0, 2);
    uint64_t grace_ms = sim_pick(sim, 1, 3000);
    if (id != 0) {
        cancel_range(user, id, count, mode, grace_ms);
    }
}

void sim_user_cancel_far(struct sim *sim, uint32_t index)
{
    struct sim_user *user = sim->users[index];
    uint64_t id = 0;
    while ((id = audit_next_far(sim, id)) != 0) {
        cancel_range(user, id, 1, HP_CANCEL_MODE_QUEUED, 0);
    }
}

static void pause_queue(struct sim_user *user, uint32_t index, bool paused)
{
    char name[16];
    struct hp_buf params;
    hp_buf_init(&params, 1U << 20);
    (void)snprintf(name, sizeof(name), "queue%u", index);
    struct hp_msg_queue_pause msg = {.name = hp_str_of(name), .paused = paused};
    must(hp_msg_queue_pause_encode(&params, &msg));
    sim_user_call(user, HP_METHOD_QUEUE_PAUSE, &params);
}

static void drain_node(struct sim_user *user, uint32_t index, bool on)
{
    char name[16];
    struct hp_buf params;
    hp_buf_init(&params, 1U << 20);
    (void)snprintf(name, sizeof(name), "node%u", index);
    struct hp_msg_worker_drain msg = {.node = hp_str_of(name), .on = on};
    must(hp_msg_worker_drain_encode(&params, &msg));
    sim_user_call(user, HP_METHOD_WORKER_DRAIN, &params);
}

static void look(struct sim_user *user)
{
    struct sim *sim = user->sim;
    uint64_t id = audit_some_id(sim);
    struct hp_buf params;
    hp_buf_init(&params, 1U << 20);
    uint64_t ids[3] = {id, id + 1, id + 7};
    uint32_t kind = (uint32_t)sim_pick(sim, 0, 3);
    if (kind == 0) {
        struct hp_msg_task_wait msg = {.has = HP_HAS_TASK_WAIT_TIMEOUT_MS | HP_HAS_TASK_WAIT_MODE,
                                       .ids = {.items = ids, .count = 3}};
        msg.timeout_ms = sim_pick(sim, 0, 20000);
        msg.mode = sim_percent(sim, 50) ? HP_WAIT_MODE_ANY : HP_WAIT_MODE_ALL;
        must(hp_msg_task_wait_encode(&params, &msg));
        sim_user_call(user, HP_METHOD_TASK_WAIT, &params);
    } else if (kind == 1) {
        struct hp_msg_task_list msg = {.has = HP_HAS_TASK_LIST_LIMIT};
        msg.limit = (uint32_t)sim_pick(sim, 1, 50);
        must(hp_msg_task_list_encode(&params, &msg));
        sim_user_call(user, HP_METHOD_TASK_LIST, &params);
    } else if (kind == 2) {
        struct hp_msg_task_why msg = {.id = id};
        must(hp_msg_task_why_encode(&params, &msg));
        sim_user_call(user, HP_METHOD_TASK_WHY, &params);
    } else {
        struct hp_msg_task_get msg = {.has = HP_HAS_TASK_GET_IDS,
                                      .ids = {.items = ids, .count = 3}};
        must(hp_msg_task_get_encode(&params, &msg));
        sim_user_call(user, HP_METHOD_TASK_GET, &params);
    }
}

static void act(struct sim_user *user)
{
    struct sim *sim = user->sim;
    if (sim->plan.pools && sim_percent(sim, 60)) {
        sim_user_work_pools(user);
        return;
    }
    uint32_t kind = (uint32_t)sim_pick(sim, 0, 99);
    if (kind < 78) {
        struct draw draw = {0};
        draw_all(sim, &draw);
        sim_user_submit(user, &draw);
    } else if (kind < 88) {
        cancel(user);
    } else if (kind < 91) {
        uint32_t queue = (uint32_t)sim_pick(sim, 0, 2);
        pause_queue(user, queue, sim_percent(sim, 50));
    } else if (kind < 93) {
        uint32_t node = (uint32_t)sim_pick(sim, 0, sim->plan.nodes - 1);
        drain_node(user, node, sim_percent(sim, 50));
    } else {
        look(user);
    }
}

static void work(struct sim *sim, void *context, uint64_t generation, uint64_t b)
{
    struct sim_user *user = context;
    (void)b;
    if (generation != user->generation || sim_ms(sim) >= sim->plan.work_ms || !sim->working) {
        return;
    }
    uint64_t number = user->acts++;
    enum sim_stream before =
        sim_enter_fresh(sim, SIM_WORK_0 + user->index, user->index, number + 1);
    uint64_t gap_ms = sim->plan.work_ms * sim->plan.users * 4 / (sim->plan.task_goal + 1);
    if (sim->plan.bursts) { /* 30 in a row, then a long time of nothing */
        gap_ms = number % 30 == 29 ? gap_ms * 24 : gap_ms / 5;
    }
    uint64_t delay_us = sim_pick(sim, 1, 2 * gap_ms + 1) * SIM_MS;
    sim_after(sim, delay_us, work, user, generation, 0);
    const struct sim_options *options = sim->options;
    bool left_out =
        number < options->acts_from || (options->acts_to > 0 && number > options->acts_to);
    if (!user->paused && !left_out) {
        act(user);
    }
    sim_enter(sim, before);
}

uint64_t sim_wid(uint32_t user, uint64_t n)
{
    return (uint64_t)(user + 1) << 24 | n;
}

/* ------------------------------------------------ life and death */
static void start(struct sim_user *user)
{
    struct sim *sim = user->sim;
    enum sim_stream before = sim_enter(sim, SIM_USER_0 + user->index);
    struct hp_engine_config config = {.name = "sim",
                                      .connect_timeout_ms = 5000,
                                      .retry_base_ms = 100,
                                      .retry_cap_ms = 2000,
                                      .window_submits = 64,
                                      .window_bytes = 1U << 20,
                                      .event_bytes = 1U << 20,
                                      .events = true};
    config.window_submits = (uint32_t)sim_pick(sim, 1, 64);
    config.seed = sim_pick(sim, 1, UINT64_MAX - 1);
    hp_rand_fill(&sim->rands[sim->stream], config.session, sizeof(config.session));
    user->engine = hp_engine_new(&config, sim_ms(sim));
    HP_ASSERT(user->engine != NULL);
    user->deadline_us = SIM_NEVER;
    sim_note(sim, "user_start", user->index, 0, 0, 0);
    sim_user_pump(user);
    work(sim, user, user->generation, 0);
    sim_enter(sim, before);
}

bool sim_user_is_paused(const struct sim *sim, uint32_t index)
{
    return sim->users[index]->paused;
}

void sim_user_new(struct sim *sim, uint32_t index)
{
    struct sim_user *user = sim_alloc(sizeof(*user));
    user->sim = sim;
    user->index = index;
    sim->users[index] = user;
    start(user);
}

void sim_user_free(struct sim *sim, uint32_t index)
{
    hp_engine_free(sim->users[index]->engine);
    drop_readings(sim->users[index]);
    hp_free(sim->users[index]);
}

void sim_user_crash(struct sim *sim, uint32_t index)
{
    struct sim_user *user = sim->users[index];
    sim_note(sim, "user_crash", index, 0, 0, 0);
    sim->figures.crashes++;
    user->generation++;
    sim_user_pause(sim, index, false);
    sim_net_died(sim, SIM_NODES_MAX + index, false, false);
    hp_engine_free(user->engine);
    drop_readings(user);
    user->conn = 0;
    user->connected = false;
    start(user);
}

void sim_user_pause(struct sim *sim, uint32_t index, bool paused)
{
    struct sim_user *user = sim->users[index];
    if (user->paused == paused) {
        return;
    }
    sim_note(sim, "user_pause", index, paused, 0, 0);
    user->paused = paused;
    sim_net_pause(sim, SIM_NODES_MAX + index, false, paused);
    if (!paused) {
        user->deadline_us = SIM_NEVER;
        sim_user_pump(user);
    }
}

void sim_user_settle(struct sim *sim, uint32_t index)
{
    struct sim_user *user = sim->users[index];
    for (uint32_t i = 0; i < 3; i++) {
        pause_queue(user, i, false);
    }
    for (uint32_t i = 0; i < sim->plan.nodes; i++) {
        drain_node(user, i, false);
    }
}

bool sim_user_waits(struct sim *sim, uint32_t index)
{
    const struct hp_engine *engine = sim->users[index]->engine;
    return hp_engine_outstanding(engine) > 0 || hp_engine_unacknowledged(engine) > 0 ||
           sim->users[index]->readings != NULL;
}

void sim_user_final(struct sim *sim, uint32_t index)
{
    struct sim_user *user = sim->users[index];
    uint64_t unacknowledged = hp_engine_unacknowledged(user->engine);
    uint64_t outstanding = hp_engine_outstanding(user->engine);
    SIM_RULE(sim, unacknowledged == 0, "user %u: %llu submits without an answer", index,
             (unsigned long long)unacknowledged);
    SIM_RULE(sim, user->readings == NULL, "user %u: a result is not read to its end", index);
    SIM_RULE(sim, outstanding == 0, "user %u: was not told of the end of %llu tasks", index,
             (unsigned long long)outstanding);
}
