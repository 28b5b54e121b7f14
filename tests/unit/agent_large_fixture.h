/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of large payloads and results share. */
#ifndef HP_TESTS_AGENT_LARGE_FIXTURE_H
#define HP_TESTS_AGENT_LARGE_FIXTURE_H

#include "tests/unit/agent_pool_fixture.h"

#define LARGE_BYTES 300000u

static uint8_t large[LARGE_BYTES];

/* With children 0 and 1 of functions. offer: first byte of the broker's key; 0: it offers nothing.
 */
static inline void fx_large_init(struct fx *fx, uint32_t slots, bool is_near, uint8_t offer)
{
    for (uint32_t i = 0; i < LARGE_BYTES; i++) {
        large[i] = (uint8_t)(i * 7 + i / 251);
    }
    fx_init(fx, slots);
    hp_agent_free(fx->agent);
    fx->config.near = is_near;
    fx_make_agent(fx);
    fx->near_offer = offer;
    fx_up(fx);
    fx_child(fx, 0, true);
    fx_child(fx, 1, true);
}

/* Nothing is held, and every file was freed. */
static inline void fx_large_deinit(struct fx *fx)
{
    assert_int_equal(fx_stats(fx).held, 0);
    assert_int_equal(fx->files_live, 0);
    fx_deinit(fx);
}

static inline void fx_reconnect(struct fx *fx)
{
    hp_agent_disconnected(fx->agent, "reset", fx->now);
    fx_connect(fx);
    fx_answer_hello(fx, 1);
}

#endif
