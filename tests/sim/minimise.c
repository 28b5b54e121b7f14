/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A failing seed with less of everything: fewer faults (by delta debugging), fewer workers and
 * clients, fewer acts of the clients, a shorter time. What is left must break the same rule. Each
 * part of the simulation draws from a stream of its own (sim.h), so that what is left goes on much
 * as before.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "tests/sim/campaign.h"

enum { TRIES_MAX = 600, TRY_SECONDS = 60 };

struct search {
    struct sim_options best;
    uint32_t fault_count, tries;
    uint64_t heal_ms; /* as planned */
    struct sim_outcome failure;
};

static struct sim_outcome *shared; /* with the child */

/* ------------------------------------------------ one run in a child */
static void tell(const struct sim *sim, const char *rule)
{
    shared->failed = true;
    shared->at_ms = sim_ms(sim);
    shared->faults = sim->figures.faults;
    shared->tasks = sim->figures.tasks;
    (void)snprintf(shared->rule, sizeof(shared->rule), "%s", rule);
}

static void run_in_child(const struct sim_options *options)
{
    static struct sim sim;
    if (freopen("/dev/null", "w", stderr) == NULL) {
        _Exit(3);
    }
    (void)alarm(TRY_SECONDS);
    sim_be_brief();
    sim_on_failure(tell);
    sim_run(options, &sim);
    shared->faults = sim.figures.faults;
    shared->tasks = sim.figures.tasks;
    _Exit(0);
}

struct sim_outcome sim_try(const struct sim_options *options)
{
    if (shared == NULL) {
        shared =
            mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        HP_ASSERT(shared != MAP_FAILED);
    }
    memset(shared, 0, sizeof(*shared));
    (void)fflush(NULL);
    pid_t pid = fork();
    HP_ASSERT(pid >= 0);
    if (pid == 0) {
        run_in_child(options);
    }
    int status = 0;
    HP_ASSERT(waitpid(pid, &status, 0) == pid);
    struct sim_outcome outcome = *shared;
    if (status != 0 && !outcome.failed) {
        outcome.failed = true;
        (void)snprintf(outcome.rule, sizeof(outcome.rule), "died with status %d", status);
    }
    return outcome;
}

/* ------------------------------------------------ the search */
/* Keeps it if it breaks the same rule. */
static bool fails(struct search *search, const struct sim_options *options)
{
    if (search->tries >= TRIES_MAX) {
        return false;
    }
    search->tries++;
    struct sim_outcome outcome = sim_try(options);
    if (!outcome.failed || strcmp(outcome.rule, search->failure.rule) != 0) {
        return false;
    }
    search->best = *options;
    search->failure = outcome;
    return true;
}

static uint32_t left(const struct search *search, uint32_t *ret_numbers)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < search->fault_count; i++) {
        if (!search->best.without[i]) {
            ret_numbers[count++] = i;
        }
    }
    return count;
}

/* Leaves out all but, or nothing but, the numbers [from, to). */
static bool try_part(struct search *search, const uint32_t *numbers, uint32_t count, uint32_t from,
                     uint32_t to, bool keep)
{
    struct sim_options options = search->best;
    for (uint32_t i = 0; i < count; i++) {
        bool in = i >= from && i < to;
        options.without[numbers[i]] = keep ? !in : in;
    }
    return fails(search, &options);
}

/* Delta debugging: parts of the list, then the list without a part, then smaller parts. */
static void fewer_faults(struct search *search)
{
    uint32_t numbers[SIM_FAULTS_MAX];
    uint32_t count = left(search, numbers);
    if (count > 0 && try_part(search, numbers, count, 0, count, false)) {
        return; /* it needs none */
    }
    uint32_t parts = 2;
    while (count > 1 && search->tries < TRIES_MAX) {
        bool found = false;
        for (uint32_t i = 0; i < parts && !found; i++) {
            uint32_t from = count * i / parts;
            uint32_t to = count * (i + 1) / parts;
            if (try_part(search, numbers, count, from, to, true)) {
                found = true;
                parts = 2;
            } else if (parts > 2 && try_part(search, numbers, count, from, to, false)) {
                found = true;
                parts = parts - 1;
            }
        }
        if (!found && parts >= count) {
            return;
        }
        parts = found ? parts : parts * 2;
        count = left(search, numbers);
        parts = parts > count ? count : parts;
    }
}

static void fewer_actors(struct search *search)
{
    for (uint32_t nodes = 1; nodes < SIM_NODES_MAX; nodes++) {
        struct sim_options options = search->best;
        options.nodes = nodes;
        if (search->best.nodes == nodes || fails(search, &options)) {
            break;
        }
    }
    for (uint32_t users = 1; users < SIM_USERS_MAX; users++) {
        struct sim_options options = search->best;
        options.users = users;
        if (search->best.users == users || fails(search, &options)) {
            break;
        }
    }
}

/* Halves what is tried to be left out until nothing more goes. */
static void fewer_acts(struct search *search)
{
    uint64_t most = search->best.acts_to > 0 ? search->best.acts_to : 4096;
    for (uint64_t step = most / 2; step > 0; step /= 2) {
        struct sim_options options = search->best;
        uint64_t to = options.acts_to > 0 ? options.acts_to : most;
        if (to > step) {
            options.acts_to = to - step;
            (void)fails(search, &options);
        }
    }
    uint64_t to = search->best.acts_to > 0 ? search->best.acts_to : most;
    for (uint64_t step = to / 2; step > 0; step /= 2) {
        struct sim_options options = search->best;
        if (options.acts_from + step <= to) {
            options.acts_from += step;
            (void)fails(search, &options);
        }
    }
}

static void shorter(struct search *search)
{
    struct sim_options options = search->best;
    if (search->failure.at_ms + 2000 < search->heal_ms) {
        options.until_ms = search->failure.at_ms + 2000;
        if (fails(search, &options)) {
            return;
        }
    }
    uint64_t now = options.until_ms =
        search->best.until_ms > 0 ? search->best.until_ms : search->heal_ms;
    for (uint64_t step = now / 2; step >= 1000; step /= 2) {
        options = search->best;
        uint64_t until = options.until_ms > 0 ? options.until_ms : search->heal_ms;
        if (until > step + 1000) {
            options.until_ms = until - step;
            (void)fails(search, &options);
        }
    }
}

const char *sim_trap_name(enum sim_trap trap)
{
    static const char *const names[SIM_TRAPS] = {"none", "early-ack", "no-fence", "pair"};
    return names[trap];
}

void sim_print_command(const struct sim_options *options, FILE *out)
{
    static struct sim sim;
    sim = (struct sim){.seed = options->seed, .options = options};
    (void)sim_enter_fresh(&sim, SIM_PLAN, 0, SIM_PLAN);
    sim_plan(&sim);
    (void)fprintf(out, "sim --seed %llu", (unsigned long long)options->seed);
    if (options->scene != NULL) {
        (void)fprintf(out, " --scene %s", options->scene->name);
    }
    if (options->trap != SIM_TRAP_NONE) {
        (void)fprintf(out, " --trap %s", sim_trap_name(options->trap));
    }
    const char *separator = " --faults ";
    for (uint32_t i = 0; i < sim.plan.fault_count; i++) {
        if (sim.plan.faults[i].is_on) {
            (void)fprintf(out, "%s%u", separator, i);
            separator = ",";
        }
    }
    (void)fprintf(out, "%s", *separator == ',' ? "" : " --faults none");
    if (options->nodes > 0) {
        (void)fprintf(out, " --workers %u", options->nodes);
    }
    if (options->users > 0) {
        (void)fprintf(out, " --clients %u", options->users);
    }
    if (options->acts_from > 0 || options->acts_to > 0) {
        (void)fprintf(out, " --acts %llu..%llu", (unsigned long long)options->acts_from,
                      (unsigned long long)options->acts_to);
    }
    if (options->until_ms > 0) {
        (void)fprintf(out, " --until %llu", (unsigned long long)options->until_ms);
    }
    (void)fprintf(out, "\n");
}

bool sim_minimise(const struct sim_options *options)
{
    static struct sim sim;
    struct search search = {.best = *options, .tries = 1};
    sim = (struct sim){.seed = options->seed, .options = options};
    (void)sim_enter_fresh(&sim, SIM_PLAN, 0, SIM_PLAN);
    sim_plan(&sim);
    search.fault_count = sim.plan.fault_count;
    search.heal_ms = sim.plan.heal_ms;
    search.failure = sim_try(options);
    if (!search.failure.failed) {
        (void)printf("seed %llu holds\n", (unsigned long long)options->seed);
        return false;
    }
    search.best.is_cut = true;
    uint32_t before = 0;
    do {
        before = search.tries;
        struct sim_options was = search.best;
        shorter(&search);
        fewer_faults(&search);
        fewer_actors(&search);
        fewer_acts(&search);
        if (memcmp(&was, &search.best, sizeof(was)) == 0) {
            break;
        }
    } while (search.tries > before && search.tries < TRIES_MAX);
    uint32_t numbers[SIM_FAULTS_MAX];
    (void)printf("minimised: %llu faults happen, %llu tasks, fails at %llu ms; %u runs\n"
                 "  rule: %s\n  ",
                 (unsigned long long)search.failure.faults,
                 (unsigned long long)search.failure.tasks, (unsigned long long)search.failure.at_ms,
                 search.tries, search.failure.rule);
    (void)left(&search, numbers);
    sim_print_command(&search.best, stdout);
    (void)fflush(stdout);
    return true;
}
