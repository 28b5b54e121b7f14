/* SPDX-License-Identifier: BSD-2-Clause */
/* Clock, agenda, random numbers and the course of one run. */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

#define WALL_START_MS INT64_C(1700000000000)

static struct sim *running; /* for failed assertions */
static void (*tell_failure)(const struct sim *sim, const char *rule);
static bool is_brief;

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

enum sim_stream sim_enter(struct sim *sim, enum sim_stream stream)
{
    enum sim_stream before_it = sim->stream;
    sim->stream = stream;
    return before_it;
}

enum sim_stream sim_enter_fresh(struct sim *sim, enum sim_stream stream, uint64_t a, uint64_t b)
{
    uint64_t seed = (sim->seed + 1) * UINT64_C(0x9e3779b97f4a7c15) + a;
    seed = (seed ^ seed >> 31) * UINT64_C(0xbf58476d1ce4e5b9) + b;
    hp_rand_init(&sim->rands[stream], seed ^ seed >> 29);
    return sim_enter(sim, stream);
}

uint64_t sim_pick(struct sim *sim, uint64_t low, uint64_t high)
{
    return hp_rand_between(&sim->rands[sim->stream], low, high);
}

bool sim_percent(struct sim *sim, uint32_t percent)
{
    return hp_rand_chance(&sim->rands[sim->stream], percent, 100);
}

void sim_set_wall(struct sim *sim, int64_t offset_ms)
{
    int64_t by = offset_ms - sim->wall_offset_ms;
    sim->wall_most_ms = HP_MAX(sim->wall_most_ms, sim_wall_ms(sim));
    sim->wall_ahead_ms += by > 0 ? (uint64_t)by : 0;
    sim->wall_offset_ms = offset_ms;
    sim_note(sim, "clock_jump", (uint64_t)(by < 0), (uint64_t)(by < 0 ? -by : by), 0, 0);
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
        sim->agenda = hp_realloc_array(sim->agenda, sim->agenda_capacity, sizeof(*sim->agenda));
        HP_ASSERT(sim->agenda != NULL);
    }
    struct sim_event event = {.at_us = at_us < sim->now_us ? sim->now_us : at_us,
                              .seq = sim->next_seq++,
                              .fn = fn,
                              .context = context,
                              .a = a,
                              .b = b,
                              .stream = sim->stream};
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
        sim->stream = event.stream;
        event.fn(sim, event.context, event.a, event.b);
    }
    sim->now_us = until_us;
}

/* ------------------------------------------------ trace */
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
        sim_words_note(note, stdout);
    }
}

void sim_say(struct sim *sim, const char *format, ...)
{
    if (sim->trace) {
        va_list args;
        va_start(args, format);
        (void)printf("%10llu.%03llu   ", (unsigned long long)(sim->now_us / SIM_MS),
                     (unsigned long long)(sim->now_us % SIM_MS));
        (void)vprintf(format, args);
        (void)printf("\n");
        va_end(args);
    }
}

static void print_tail(struct sim *sim)
{
    uint64_t from = sim->note_count > SIM_TAIL ? sim->note_count - SIM_TAIL : 0;
    for (uint64_t i = from; i < sim->note_count && !sim->trace && !is_brief; i++) {
        sim_words_note(&sim->tail[i % SIM_TAIL], stderr);
    }
}

void sim_on_failure(void (*tell)(const struct sim *sim, const char *rule))
{
    tell_failure = tell;
}

void sim_be_brief(void)
{
    is_brief = true;
}

void sim_fail(struct sim *sim, const char *format, ...)
{
    va_list args;
    running = NULL;
    if (tell_failure != NULL) {
        tell_failure(sim, format);
    }
    print_tail(sim);
    (void)fflush(stdout);
    (void)fprintf(stderr, "FAILED seed %llu at %llu ms: ", (unsigned long long)sim->seed,
                  (unsigned long long)sim_ms(sim));
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fprintf(stderr, "\n");
    if (!is_brief) {
        (void)fprintf(stderr,
                      "Again: sim --seed %llu --trace; smaller: sim --seed %llu --minimise\n",
                      (unsigned long long)sim->seed, (unsigned long long)sim->seed);
    }
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

/*
 * What was given a time while the wall clock was ahead comes due when the clock gets there: times
 * are kept on the wall clock. So it gets there.
 */
static void reach_all_times(struct sim *sim)
{
    int64_t behind_ms = sim->wall_most_ms + 60000 - sim_wall_ms(sim);
    if (sim->wall_most_ms > 0 && behind_ms > 0) {
        sim_set_wall(sim, sim->wall_offset_ms + behind_ms);
    }
}

/* All that is durable has ended; while there is progress it may take its time. */
/* Tasks in memory are not among those that the audit counts: their clients know of them. */
static bool all_told(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->plan.users; i++) {
        if (sim_user_waits(sim, i)) {
            return false;
        }
    }
    return audit_is_over(sim);
}

static void wait_for_ends(struct sim *sim)
{
    uint64_t quiet_ms = 2 * sim->plan.lease_ms + 2 * sim->plan.long_run_ms + 15000;
    uint64_t last_ms = sim_ms(sim);
    uint64_t progress = sim->progress;
    while (!all_told(sim) && sim_ms(sim) - last_ms < quiet_ms) {
        run_until(sim, sim->now_us + 500 * SIM_MS);
        if (progress != sim->progress) {
            progress = sim->progress;
            last_ms = sim_ms(sim);
        }
    }
}

static void settle(struct sim *sim)
{
    run_until(sim, sim->plan.heal_ms * SIM_MS);
    sim_note(sim, "healed", sim->figures.faults, 0, 0, 0);
    sim->healed = true;
    sim->working = false;
    sim_fault_heal_all(sim);
    for (int i = 0; i < 4; i++) { /* what others had asked for may come late */
        sim_user_settle(sim, 0);
        sim_user_end_pools(sim, 0);
        sim_user_cancel_far(sim, 0);
        run_until(sim, sim->now_us + 25000 * SIM_MS);
    }
    reach_all_times(sim);
    wait_for_ends(sim);
    run_until(sim, sim->now_us + (2 * sim->plan.lease_ms + 20000) * SIM_MS);
    audit_final(sim);
    for (uint32_t i = 0; i < sim->plan.users; i++) {
        sim_user_final(sim, i);
    }
    for (uint32_t i = 0; i < sim->plan.nodes; i++) {
        sim_node_final(sim, i);
    }
    sim_broker_final(sim);
    SIM_RULE(sim, sim->options->is_cut || sim->figures.faults >= SIM_FAULTS_LEAST,
             "only %llu faults happened", (unsigned long long)sim->figures.faults);
}

static void start_all(struct sim *sim)
{
    sim_net_new(sim);
    audit_new(sim);
    sim_enter(sim, SIM_BROKER);
    sim_broker_new(sim);
    sim_broker_start(sim);
    for (uint32_t i = 0; i < sim->plan.nodes; i++) {
        sim_enter(sim, SIM_NODE_0 + i);
        sim_node_new(sim, i);
        sim_node_start(sim, i);
    }
    for (uint32_t i = 0; i < sim->plan.users; i++) {
        sim_enter(sim, SIM_USER_0 + i);
        sim_user_new(sim, i);
    }
    sim_enter(sim, SIM_FAULTS);
    sim_fault_start(sim);
}

void sim_run(const struct sim_options *options, struct sim *ret_sim)
{
    struct sim *sim = ret_sim;
    *sim = (struct sim){.seed = options->seed,
                        .options = options,
                        .trace = options->trace,
                        .hash = options->seed,
                        .working = true};
    sim->tail = sim_alloc(SIM_TAIL * sizeof(*sim->tail));
    for (uint32_t i = 0; i < SIM_STREAMS; i++) {
        (void)sim_enter_fresh(sim, (enum sim_stream)i, 0, i);
    }
    running = sim;
    hp_assert_set_handler(on_assert);
    sim_enter(sim, SIM_PLAN);
    sim_plan(sim);
    sim->plan.check_each_turn = sim->plan.check_each_turn || options->check; /* draws nothing */
    if (sim->trace) {
        sim_words_head(sim, stdout);
    }
    start_all(sim);
    settle(sim);
    end_all(sim);
    running = NULL;
    hp_assert_set_handler(NULL);
}
