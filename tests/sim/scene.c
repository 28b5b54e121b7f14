/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Scenes: seeds in which only certain things go wrong, and what these must not cost. A lease of 15
 * s or more outlasts each of the faults unless the scene says otherwise.
 */
#include <string.h>

#include "tests/sim/campaign.h"

#define KIND(name) (UINT64_C(1) << SIM_FAULT_##name)

enum { SCENE_FAULTS_LEAST = 15 };

static const struct sim_scene scenes[] = {
    {.name = "disk",
     .text = "a disk that stalls for 30 s, is slow or full takes no task from its worker",
     .kinds = KIND(DISK_STALL) | KIND(DISK_SLOW) | KIND(DISK_FULL),
     .span_ms = 30000},
    {.name = "clock",
     .text = "a wall clock that is set by seconds or by a day takes no task from its worker",
     .kinds = KIND(CLOCK_STEP) | KIND(CLOCK_DAY),
     .span_ms = 30000},
    {.name = "restarts",
     .text = "a broker that dies anywhere and is back soon takes no task from its worker",
     .kinds = KIND(BROKER_CRASH) | KIND(BROKER_DRAIN) | KIND(BROKER_SENT) | KIND(COMMIT_LOST) |
              KIND(COMMIT_THERE) | KIND(BROKER_PAUSE),
     .span_ms = 1500},
    {.name = "links",
     .text = "links that are reset, cut for a moment, flap or are slow take no task either",
     .kinds = KIND(LINK_RESET) | KIND(LINK_CUT) | KIND(LINK_CUT_UP) | KIND(LINK_CUT_DOWN) |
              KIND(LINK_FLAPS) | KIND(LINK_SLOW),
     .span_ms = 1500},
    {.name = "clients",
     .text = "clients that die, stop or read slowly take no task from its worker",
     .kinds = KIND(USER_CRASH) | KIND(USER_PAUSE) | KIND(SLOW_READER),
     .of_users = true,
     .span_ms = 30000},
    {.name = "pauses",
     .text = "workers that are stopped for longer than their lease lose what they run, once",
     .kinds = KIND(NODE_PAUSE),
     .span_ms = 60000,
     .takes = true},
    {.name = "hosts",
     .text = "hosts that are off for long lose what they run, once",
     .kinds = KIND(NODE_GONE) | KIND(BROKER_GONE) | KIND(LINK_CUT) | KIND(LINK_CUT_UP) |
              KIND(LINK_CUT_DOWN),
     .span_ms = 60000,
     .takes = true},
};

enum { SCENES = sizeof(scenes) / sizeof(scenes[0]) };

const struct sim_scene *sim_scene_find(const char *name)
{
    for (uint32_t i = 0; i < SCENES; i++) {
        if (strcmp(scenes[i].name, name) == 0) {
            return &scenes[i];
        }
    }
    return NULL;
}

bool sim_scenes(uint64_t seeds)
{
    static struct sim sim;
    bool all = true;
    for (uint32_t i = 0; i < SCENES; i++) {
        uint64_t taken = 0;
        uint64_t faults = 0;
        uint64_t least = UINT64_MAX;
        for (uint64_t seed = 1; seed <= seeds; seed++) {
            /* Every other one with pools. */
            struct sim_options options = {.seed = seed % 2 == 0 ? SIM_POOL_SEEDS + seed : seed,
                                          .scene = &scenes[i],
                                          .is_cut = true};
            sim_run(&options, &sim);
            taken += sim.figures.taken;
            faults += sim.figures.faults;
            least = sim.figures.faults < least ? sim.figures.faults : least;
            if (!scenes[i].takes && sim.figures.taken > 0) {
                (void)printf("sim --seed %llu --scene %s: %llu attempts were taken away\n",
                             (unsigned long long)options.seed, scenes[i].name,
                             (unsigned long long)sim.figures.taken);
                all = false;
            }
        }
        bool shown = least >= SCENE_FAULTS_LEAST && (!scenes[i].takes || taken > 0);
        (void)printf("%-9s %s: %llu seeds, %llu faults, %llu attempts taken away%s\n",
                     scenes[i].name, scenes[i].text, (unsigned long long)seeds,
                     (unsigned long long)faults, (unsigned long long)taken,
                     shown ? "" : "; THAT SHOWS NOTHING");
        all = all && shown;
    }
    return all;
}
