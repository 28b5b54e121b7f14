/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The list of effects and the small growing lists of references. Running out of memory for these
 * few bytes stops the process: a daemon that drops an effect has lost track of what runs, while one
 * that restarts reports what its spool holds and the broker repeats the rest.
 */
#include <stdarg.h>
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "worker/core/state.h"

#define LOG_TEXT_BYTES 512u

struct hp_agent_effect *hp_agent_effect_add(struct hp_agent *agent, enum hp_agent_effect_kind kind)
{
    if (agent->effect_count == agent->effect_capacity) {
        size_t capacity = agent->effect_capacity == 0 ? 64 : agent->effect_capacity * 2;
        struct hp_agent_effect *effects =
            hp_realloc_array(agent->effects, capacity, sizeof(*effects));
        HP_ASSERT(effects != NULL);
        agent->effects = effects;
        agent->effect_capacity = capacity;
    }
    struct hp_agent_effect *effect = &agent->effects[agent->effect_count++];
    *effect = (struct hp_agent_effect){.kind = kind, .child = HP_AGENT_NO_CHILD};
    return effect;
}

void *hp_agent_fx_alloc(struct hp_agent *agent, size_t size)
{
    void *memory = hp_arena_alloc(&agent->fx, size);
    HP_ASSERT(memory != NULL);
    return memory;
}

void hp_agent_log(struct hp_agent *agent, enum hp_agent_log_level level, const char *format, ...)
{
    char *text = hp_agent_fx_alloc(agent, LOG_TEXT_BYTES);
    va_list args;
    va_start(args, format);
    if (vsnprintf(text, LOG_TEXT_BYTES, format, args) < 0) {
        text[0] = '\0';
    }
    va_end(args);
    struct hp_agent_effect *effect = hp_agent_effect_add(agent, HP_AGENT_LOG);
    effect->level = level;
    effect->text = text;
}

void hp_agent_refs_add_raw(struct hp_agent_refs *refs, uint64_t id, uint32_t attempt,
                           uint64_t epoch)
{
    if (refs->count == refs->capacity) {
        uint32_t capacity = refs->capacity == 0 ? 64 : refs->capacity * 2;
        struct hp_st_run_ref *items = hp_realloc_array(refs->items, capacity, sizeof(*items));
        HP_ASSERT(items != NULL);
        refs->items = items;
        refs->capacity = capacity;
    }
    refs->items[refs->count++] =
        (struct hp_st_run_ref){.id = id, .attempt = attempt, .epoch = epoch};
}

void hp_agent_refs_add(struct hp_agent_refs *refs, const struct hp_agent_run *run)
{
    hp_agent_refs_add_raw(refs, run->id, run->attempt, run->epoch);
}

size_t hp_agent_effect_count(const struct hp_agent *agent)
{
    return agent->effect_count;
}

const struct hp_agent_effect *hp_agent_effect(const struct hp_agent *agent, size_t index)
{
    HP_ASSERT(index < agent->effect_count);
    return &agent->effects[index];
}

void hp_agent_effects_clear(struct hp_agent *agent)
{
    agent->effect_count = 0;
    hp_arena_reset(&agent->fx);
    hp_agent_files_sweep(agent);
}
