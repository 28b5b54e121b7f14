/* SPDX-License-Identifier: BSD-2-Clause */
/* What clients do with pools: open, call, ask, end, let go of and take over. */
#include <stdio.h>

#include "tests/sim/user_state.h"

bool sim_user_may_refuse(struct sim *sim, const struct hp_event *event)
{
    uint64_t wid = (uint64_t)(uintptr_t)event->user + event->index;
    return (event->status == HP_STATUS_BROKER_LOST && audit_is_in_memory(sim, wid)) ||
           (sim->plan.pools &&
            (event->status == HP_STATUS_ILLEGAL_STATE || event->status == HP_STATUS_UNSUPPORTED));
}

static void open_pool(struct sim_user *user)
{
    struct sim *sim = user->sim;
    struct draw draw = {.count = 1, .payloads = true};
    struct hp_options *options = &draw.options;
    hp_options_init(options);
    options->kind = HP_KIND_POOL;
    options->language = sim_percent(sim, 50) ? "python3.11" : "c";
    options->processes = sim_percent(sim, 50) ? (uint32_t)sim_pick(sim, 1, 8) : 0;
    options->calls_per_child = sim_percent(sim, 30) ? sim_pick(sim, 1, 5) : 0;
    options->orphan_ms = sim_pick(sim, 500, 20000);
    options->durable = sim_percent(sim, 60);
    options->kill_grace_ms = sim_pick(sim, 10, 3000);
    options->on_partition = sim_percent(sim, 25) ? HP_PARTITION_CONTINUE : HP_PARTITION_KILL;
    draw.spec.pool = true;
    sim_user_submit(user, &draw);
}

static void call_some(struct sim_user *user, uint64_t pool)
{
    struct sim *sim = user->sim;
    struct draw draw = {.payloads = true};
    struct hp_options *options = &draw.options;
    hp_options_init(options);
    options->kind = HP_KIND_CALL;
    options->pool = pool;
    draw.count = sim_percent(sim, 50) ? 1 : (uint32_t)sim_pick(sim, 2, MAX_PER_SUBMIT);
    options->durable = sim_percent(sim, 60);
    if (sim_percent(sim, 30)) {
        options->priority = (uint32_t)sim_pick(sim, 98, 103);
    }
    (void)snprintf(draw.queue, sizeof(draw.queue), "queue%u", (unsigned)sim_pick(sim, 0, 2));
    options->queue = draw.queue;
    if (sim_percent(sim, 50)) {
        sim_user_draw_times(sim, &draw);
    }
    sim_user_draw_budgets(sim, &draw);
    draw.spec.function = true;
    draw.spec.call = true;
    draw.spec.at_most_once = options->at_most_once;
    draw.spec.kill_on_partition = options->on_partition == HP_PARTITION_KILL;
    draw.spec.max_retries = options->max_retries;
    draw.spec.max_losses = options->max_losses;
    draw.spec.child_losses = options->child_losses;
    draw.spec.in_memory = !options->durable;
    sim_user_submit(user, &draw);
}

static void must(enum hp_err err)
{
    HP_ASSERT(err == HP_OK);
}

static void end_pool(struct sim_user *user, uint64_t pool, enum hp_pool_end how)
{
    struct hp_buf params;
    struct hp_msg_pool_end msg = {.has = HP_HAS_POOL_END_HOW, .pool = pool, .how = how};
    hp_buf_init(&params, 4096);
    must(hp_msg_pool_end_encode(&params, &msg));
    sim_note(user->sim, "pool_end", user->index, pool, (uint64_t)how, 0);
    sim_user_call(user, HP_METHOD_POOL_END, &params);
}

static void detach(struct sim_user *user, uint64_t pool)
{
    struct hp_buf params;
    struct hp_msg_pool_detach msg = {.has = HP_HAS_POOL_DETACH_ON, .pool = pool};
    msg.on = sim_percent(user->sim, 50);
    hp_buf_init(&params, 4096);
    must(hp_msg_pool_detach_encode(&params, &msg));
    sim_user_call(user, HP_METHOD_POOL_DETACH, &params);
}

static void ask(struct sim_user *user, uint64_t pool)
{
    struct sim *sim = user->sim;
    struct hp_buf params;
    hp_buf_init(&params, 4096);
    if (sim_percent(sim, 60)) {
        struct hp_msg_pool_info msg = {.has = HP_HAS_POOL_INFO_WAIT_MS, .pool = pool};
        msg.wait_ms = sim_pick(sim, 0, 5000);
        must(hp_msg_pool_info_encode(&params, &msg));
        sim_user_call(user, HP_METHOD_POOL_INFO, &params);
    } else {
        struct hp_msg_pool_list msg = {.has = HP_HAS_POOL_LIST_LIMIT, .limit = 5};
        must(hp_msg_pool_list_encode(&params, &msg));
        sim_user_call(user, HP_METHOD_POOL_LIST, &params);
    }
}

void sim_user_work_pools(struct sim_user *user)
{
    struct sim *sim = user->sim;
    uint64_t pool = audit_some_pool(sim);
    uint32_t kind = (uint32_t)sim_pick(sim, 0, 99);
    if (pool == 0 || kind < 10) {
        open_pool(user);
    } else if (kind < 85) {
        call_some(user, pool);
    } else if (kind < 91) {
        end_pool(user, pool, sim_percent(sim, 50) ? HP_POOL_END_CLOSE : HP_POOL_END_TERMINATE);
    } else if (kind < 94) {
        detach(user, pool);
    } else {
        ask(user, pool);
    }
}

void sim_user_end_pools(struct sim *sim, uint32_t index)
{
    uint64_t pool = 0;
    while ((pool = audit_next_pool(sim, pool)) != 0) {
        end_pool(sim->users[index], pool,
                 pool % 3 == 0 ? HP_POOL_END_TERMINATE : HP_POOL_END_CLOSE);
    }
}
