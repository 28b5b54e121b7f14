/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs in processes of their own: one seed, many seeds, a failing seed made smaller. */
#ifndef HP_TESTS_SIM_CAMPAIGN_H
#define HP_TESTS_SIM_CAMPAIGN_H

#include "tests/sim/sim.h"

enum { RULE_MAX = 160 };

/* How a run in a process of its own ended. */
struct sim_outcome {
    bool failed;
    char rule[RULE_MAX]; /* which one was broken, without its numbers */
    uint64_t at_ms, faults, tasks;
};

struct campaign {
    uint64_t from, to;
    uint64_t seconds; /* 0: all of from..to */
    unsigned jobs, failures_max;
    bool check;
    enum sim_trap trap;
};

/* Runs it in a child, silently. */
struct sim_outcome sim_try(const struct sim_options *options);
/* Leaves out of a failing run what is not needed to break the same rule, and prints the command
 * that shows it. False: it does not fail. */
bool sim_minimise(const struct sim_options *options);
/* The arguments which give this run. */
void sim_print_command(const struct sim_options *options, FILE *out);
/* Runs all; prints failures, smaller ones of the first few, and the figures. True: all held. */
bool sim_campaign(const struct campaign *campaign);
/* NULL: there is none of that name. */
const struct sim_scene *sim_scene_find(const char *name);
/* Each scene over so many seeds. True: none cost what it must not. */
bool sim_scenes(uint64_t seeds);
const char *sim_trap_name(enum sim_trap trap);

#endif
