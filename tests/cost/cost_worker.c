/* SPDX-License-Identifier: BSD-2-Clause */
/* The worker's stage: the agent. Its calls "run" at once and give their payload back. */
#include <stdlib.h>
#include <string.h>

#include "common/base/mem.h"
#include "tests/cost/cost.h"
#include "worker/core/agent.h"

enum { SLOTS = 2, EVENTS_MAX = 8192, RUN_US = 5 };

struct cost_events {
    struct hp_agent_event items[EVENTS_MAX];
    size_t count;
};

static void add_event(struct cost *cost, struct hp_agent_event event)
{
    if (cost->events->count == EVENTS_MAX) {
        cost_fail("too many calls at once");
    }
    cost->events->items[cost->events->count++] = event;
}

void worker_open(struct cost *cost)
{
    static const struct hp_str functions[] = {HP_STR_INIT("echo")};
    struct hp_agent_config config = {.client = HP_STR("cost"),
                                     .node = HP_STR("w0"),
                                     .host = HP_STR("host"),
                                     .boot = {1, 2, 3},
                                     .pid = 42,
                                     .slots = SLOTS,
                                     .prefetch_max = 4000,
                                     .functions = functions,
                                     .function_count = 1,
                                     .seed = 7};
    struct hp_error error;
    cost_must(hp_agent_new(&config, cost->now_ms, &cost->agent, &error), "make the agent");
    cost->events = hp_calloc(1, sizeof(*cost->events));
    if (cost->events == NULL) {
        cost_fail("no memory");
    }
    hp_agent_tick(cost->agent, cost->now_ms);
    hp_agent_effects_clear(cost->agent);
    hp_agent_connected(cost->agent, cost->now_ms);
    for (uint32_t i = 0; i < SLOTS; i++) {
        add_event(cost, (struct hp_agent_event){.kind = HP_AGENT_EXEC_CHILD_UP, .child = i});
    }
}

void worker_close(struct cost *cost)
{
    hp_agent_free(cost->agent);
    hp_free(cost->events);
}

__attribute__((noinline)) static void cost_agent_receive(struct cost *cost)
{
    struct hp_buf *from = &cost->from_broker[COST_WORKER - 1];
    hp_agent_received(cost->agent, from->data, from->size, cost->now_ms);
    hp_buf_clear(from);
}

__attribute__((noinline)) static void cost_agent_ends(struct cost *cost)
{
    hp_agent_exec(cost->agent, cost->events->items, cost->events->count, cost->now_ms);
    cost->events->count = 0;
}

__attribute__((noinline)) static void cost_agent_tick(struct cost *cost)
{
    struct hp_bin out = hp_agent_output(cost->agent);
    cost_must(hp_buf_append(&cost->to_broker[COST_WORKER - 1], out.data, out.size), "append");
    hp_agent_output_consume(cost->agent, out.size);
    hp_agent_tick(cost->agent, cost->now_ms);
}

static void run_calls(struct cost *cost, const struct hp_agent_effect *effect)
{
    for (uint32_t i = 0; i < effect->call_count; i++) {
        const struct hp_agent_call *call = &effect->calls[i];
        add_event(cost, (struct hp_agent_event){.kind = HP_AGENT_EXEC_RESULT,
                                                .key = call->key,
                                                .out = call->payload,
                                                .outcome = HP_AGENT_OUTCOME_OK,
                                                .run_us = RUN_US});
    }
}

void worker_run(struct cost *cost)
{
    cost_agent_receive(cost);
    do {
        for (size_t i = 0; i < hp_agent_effect_count(cost->agent); i++) {
            const struct hp_agent_effect *effect = hp_agent_effect(cost->agent, i);
            if (effect->kind == HP_AGENT_CALL) {
                run_calls(cost, effect);
            } else if (effect->kind == HP_AGENT_CLOSE) {
                cost_fail(effect->text);
            }
        }
        hp_agent_effects_clear(cost->agent);
        if (cost->events->count > 0) {
            cost_agent_ends(cost);
        }
        cost_agent_tick(cost);
    } while (hp_agent_effect_count(cost->agent) > 0 || cost->events->count > 0);
}
