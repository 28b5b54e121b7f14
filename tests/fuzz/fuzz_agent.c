/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: the worker's agent with a hostile broker. The input is a list of steps, one byte
 * each: some let time pass, lose or make the connection; the others are followed by a length and so
 * many bytes from the broker. All of the agent's own checks hold after each step.
 */
#include "tests/unit/agent_fixture.h"

#include "tests/fuzz/fuzz.h"

static size_t take(const uint8_t *data, size_t size, size_t at, size_t *ret_length)
{
    size_t length = at + 1 < size ? (size_t)data[at] << 8 | data[at + 1] : 0;
    at += 2;
    *ret_length = at >= size ? 0 : length < size - at ? length : size - at;
    return at;
}

static size_t step(struct fx *fx, const uint8_t *data, size_t size, size_t at)
{
    size_t length = 0;
    switch (data[at++] % 8) {
    case 0:
        fx_tick(fx, 1);
        break;
    case 1:
        fx_tick(fx, 3000);
        break;
    case 2:
        hp_agent_disconnected(fx->agent, "fuzzed", fx->now);
        fx_drain(fx);
        break;
    case 3:
        hp_agent_connected(fx->agent, fx->now);
        fx_drain(fx);
        break;
    default:
        at = take(data, size, at, &length);
        if (length > 0) {
            hp_agent_received(fx->agent, data + at, length, fx->now);
            fx_drain(fx);
        }
        at += length;
        break;
    }
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fx fx;
    fx_init(&fx, 2);
    fx_up(&fx);
    for (size_t at = 0; at < size && fx.seen_count < FX_SEEN_MAX / 2;) {
        at = step(&fx, data, size, at);
    }
    fx_deinit(&fx);
    return 0;
}
