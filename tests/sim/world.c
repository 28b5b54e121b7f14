/* SPDX-License-Identifier: BSD-2-Clause */
/* Clock, agenda, trace and the course of one run. */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

#define WALL_START_MS INT64_C(1700000000000)

static struct sim *running; /* for failed assertions */

void *sim_alloc(size_t size)
{
    void *memory = hp_calloc(1, size);
    HP_ASSERT(memory != NULL);
    return memory;
}

uint64_t sim_ms(const struct sim *sim)
{
    return sim->now_us / SIM_MS;
}

int64_t sim_wall_ms(const struct sim *sim)
{
    return WALL_START_MS + (int64_t)sim_ms(sim) + sim->wall_offset_ms;
}

uint64_t sim_pick(struct sim *sim, uint64_t low, uint64_t high)
{
    return hp_rand_between(&sim->rand, low, high);
}

bool sim_percent(struct sim *sim, uint32_t percent)
{
    return hp_rand_chance(&sim->rand, percent, 100);
}

/* ------------------------------------------------ agenda */
static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->seq < b->seq;
}

void sim_at(struct sim *sim, uint64_t at_us, sim_fn *fn, void *context, uint64_t a, uint64_t b)
{
    if (sim->agenda_count == sim->agenda_capacity) {
        sim->agenda_capacity = sim->agenda_capacity == 0 ? 1024 : sim->agenda_capacity * 2;
        sim->agenda =
            hp_realloc_array(sim->agenda, sim->agenda_capacity, sizeof(*sim->agenda));
        HP_ASSERT(sim->agenda != NULL);
    }
    struct sim_event event = {.at_us = at_us < sim->now_us ? sim->now_us : at_us,
                              .seq = sim->next_seq++,
                              .fn = fn,
                              .context = context,
                              .a = a,
                              .b = b};
    uint32_t i = sim->agenda_count++;
    while (i > 0 && before(&event, &sim->agenda[(i - 1) / 2])) {
        sim->agenda[i] = sim->agenda[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    sim->agenda[i] = event;
}

void sim_after(struct sim *sim, uint64_t delay_us, sim_fn *fn, void *context, uint64_t a,
               uint64_t b)
{
    sim_at(sim, sim->now_us + delay_us, fn, context, a, b);
}

static struct sim_event pop(struct sim *sim)
{
    struct sim_event first = sim->agenda[0];
    struct sim_event last = sim->agenda[--sim->agenda_count];
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= sim->agenda_count) {
            break;
        }
        if (child + 1 < sim->agenda_count && before(&sim->agenda[child + 1], &sim->agenda[child])) {
            child++;
        }
        if (!before(&sim->agenda[child], &last)) {
            break;
        }
        sim->agenda[i] = sim->agenda[child];
        i = child;
    }
    if (sim->agenda_count > 0) {
        sim->agenda[i] = last;
    }
    return first;
}

static void run_until(struct sim *sim, uint64_t until_us)
{
    while (sim->agenda_count > 0 && sim->agenda[0].at_us <= until_us) {
        struct sim_event event = pop(sim);
        sim->now_us = event.at_us;
        event.fn(sim, event.context, event.a, event.b);
    }
    sim->now_us = until_us;
}

/* ------------------------------------------------ trace */
static void print_note(FILE *out, const struct sim_note *note)
{
    (void)fprintf(out, "%10llu.%03llu %-16s %llu %llu %llu %llu\n",
                  (unsigned long long)(note->at_us / SIM_MS),
                  (unsigned long long)(note->at_us % SIM_MS), note->what,
                  (unsigned long long)note->values[0], (unsigned long long)note->values[1],
                  (unsigned long long)note->values[2], (unsigned long long)note->values[3]);
}

static void mix(struct sim *sim, uint64_t value)
{
    sim->hash = (sim->hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    sim->hash ^= sim->hash >> 29;
}

void sim_note(struct sim *sim, const char *what, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    struct sim_note *note = &sim->tail[sim->note_count++ % SIM_TAIL];
    *note = (struct sim_note){.at_us = sim->now_us, .what = what, .values = {a, b, c, d}};
    mix(sim, sim->now_us);
    for (const char *at = what; *at != '\0'; at++) {
        mix(sim, (uint64_t)*at);
    }
    for (int i = 0; i < 4; i++) {
        mix(sim, note->values[i]);
    }
    if (sim->trace) {
        print_note(stdout, note);
    }
}

static void print_tail(struct sim *sim)
{
    uint64_t from = sim->note_count > SIM_TAIL ? sim->note_count - SIM_TAIL : 0;
    for (uint64_t i = from; i < sim->note_count && !sim->trace; i++) {
        print_note(stderr, &sim->tail[i % SIM_TAIL]);
    }
}

void sim_fail(struct sim *sim, const char *format, ...)
{
    va_list args;
    running = NULL;
    print_tail(sim);
    (void)fflush(stdout);
    (void)fprintf(stderr, "FAILED seed %llu at %llu ms: ", (unsigned long long)sim->seed,
                  (unsigned long long)sim_ms(sim));
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fprintf(stderr, "\nAgain: sim --seed %llu --trace\n", (unsigned long long)sim->seed);
    (void)fflush(stderr);
    _Exit(1);
}

static void on_assert(const struct hp_assert_site *site)
{
    if (running != NULL) {
        struct sim *sim = running;
        sim_fail(sim, "assertion %s, %s:%d (%s)", site->condition, site->file, site->line,
                 site->function);
    }
}

/* ------------------------------------------------ one run */
static void end_all(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->plan.users; i++) {
        sim_user_free(sim, i);
    }
    for (uint32_t i = 0; i < sim->plan.nodes; i++) {
        sim_node_free(sim, i);
    }
    sim_broker_free(sim);
    sim_net_free(sim);
    audit_free(sim);
    hp_free(sim->agenda);
    hp_free(sim->tail);
    sim->agenda = NULL;
    sim->tail = NULL;
}

static void settle(struct sim *sim)
{
    run_until(sim, sim->plan.heal_ms * SIM_MS);
    sim->healed = true;
    sim->working = false;
    for (int i = 0; i < 4; i++) { /* what others had asked for may come late */
        sim_user_settle(sim, 0);
        sim_user_end_pools(sim, 0);
        run_until(sim, sim->now_us + 25000 * SIM_MS);
    }
    /* While there is progress it may take its time; without any, two leases and the longest run. */
    uint64_t quiet_ms = 2 * sim->plan.lease_ms + 2 * sim->plan.long_run_ms + 15000;
    uint64_t last_ms = sim_ms(sim);
    uint64_t progress = sim->progress;
    while (!audit_is_over(sim) && sim_ms(sim) - last_ms < quiet_ms) {
        run_until(sim, sim->now_us + 500 * SIM_MS);
        if (progress != sim->progress) {
            progress = sim->progress;
            last_ms = sim_ms(sim);
        }
    }
    run_until(sim, sim->now_us + (2 * sim->plan.lease_ms + 20000) * SIM_MS);
    audit_final(sim);
    for (uint32_t i = 0; i < sim->plan.users; i++) {
        sim_user_final(sim, i);
    }
    for (uint32_t i = 0; i < sim->plan.nodes; i++) {
        sim_node_final(sim, i);
    }
    sim_broker_final(sim);
}

void sim_run(uint64_t seed, bool trace, bool check, struct sim *ret_sim)
{
    struct sim *sim = ret_sim;
    *sim = (struct sim){.seed = seed, .trace = trace, .hash = seed, .working = true,
                        .next_wid = 1};
    sim->tail = sim_alloc(SIM_TAIL * sizeof(*sim->tail));
    hp_rand_init(&sim->rand, seed);
    running = sim;
    hp_assert_set_handler(on_assert);
    sim_fault_plan(sim);
    sim->plan.check_each_turn = sim->plan.check_each_turn || check; /* draws nothing */
    sim_net_new(sim);
    audit_new(sim);
    sim_broker_new(sim);
    sim_broker_start(sim);
    for (uint32_t i = 0; i < sim->plan.nodes; i++) {
        sim_node_new(sim, i);
        sim_node_start(sim, i);
    }
    for (uint32_t i = 0; i < sim->plan.users; i++) {
        sim_user_new(sim, i);
    }
    sim_fault_start(sim);
    settle(sim);
    end_all(sim);
    running = NULL;
    hp_assert_set_handler(NULL);
}
