/* SPDX-License-Identifier: BSD-2-Clause */
/* The client's stage: tasks handed in one by one, and their ends taken out. */
#include <string.h>

#include "client/engine.h"
#include "tests/cost/cost.h"

static struct hp_options options;

void client_open(struct cost *cost)
{
    struct hp_engine_config config = {.name = "cost",
                                      .seed = 7,
                                      .connect_timeout_ms = 5000,
                                      .retry_base_ms = 100,
                                      .retry_cap_ms = 5000,
                                      .window_submits = 256,
                                      .window_bytes = 8u << 20,
                                      .event_bytes = 8u << 20,
                                      .events = true};

    memset(config.session, 's', sizeof(config.session));
    hp_options_init(&options);
    options.fn = "echo";
    cost->engine = hp_engine_new(&config, cost->now_ms);
    if (cost->engine == NULL) {
        cost_fail("no client");
    }
    hp_engine_connecting(cost->engine, cost->now_ms);
    hp_engine_opened(cost->engine, cost->now_ms);
}

void client_close(struct cost *cost)
{
    hp_engine_free(cost->engine);
}

static void send_output(struct cost *cost)
{
    struct hp_bytes out = hp_engine_output(cost->engine);
    struct hp_buf *to = &cost->to_broker[COST_CLIENT - 1];

    cost_must(hp_buf_append(to, out.data, out.size), "append");
    hp_engine_sent(cost->engine, out.size);
}

__attribute__((noinline)) void cost_client_submit(struct cost *cost,
                                                  const void *payloads[COST_ROUND_TASKS])
{
    for (uint32_t i = 0; i < COST_ROUND_TASKS; i++) {
        struct hp_bytes payload = {.data = payloads[i], .size = COST_BYTES};
        struct hp_engine_submit submit = {.options = &options, .payloads = &payload, .count = 1};

        if (hp_engine_submit(cost->engine, &submit, NULL) != HP_STATUS_OK) {
            cost_fail("a submit was refused");
        }
        cost->submitted++;
    }
    hp_engine_step(cost->engine, cost->now_ms);
    send_output(cost);
}

__attribute__((noinline)) void cost_client_take(struct cost *cost)
{
    struct hp_buf *from = &cost->from_broker[COST_CLIENT - 1];
    struct hp_event event;

    if (hp_engine_feed(cost->engine, from->data, from->size, cost->now_ms) != HP_STATUS_OK) {
        cost_fail("the client does not understand the broker");
    }
    hp_buf_clear(from);
    hp_engine_step(cost->engine, cost->now_ms);
    while (hp_engine_next_event(cost->engine, &event)) {
        if (event.kind == HP_EVENT_ENDED) {
            const struct hp_end *end = event.task->end;
            bool right =
                event.task->state == HP_STATE_DONE && end != NULL && end->result.size == COST_BYTES;
            cost->wrong += right ? 0 : 1;
            cost->ended++;
        }
    }
    send_output(cost);
}
