/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Named places at which a test can kill the process, as kill -9 just there would. Only in a build
 * with -Dcrash_points=true; in any other the macro is nothing. HP_CRASH=name:n kills at the n-th
 * pass of a name. HP_CRASH_HITS=file appends each name which is passed for the first time.
 * tests/kill/run --points visits every name that is used in the sources.
 */
#ifndef HP_COMMON_SYS_CRASH_H
#define HP_COMMON_SYS_CRASH_H

#include "common/sys/crash_config.h"

#if HP_CRASH_POINTS
#include <stdatomic.h>

/* `seen` belongs to the place. Safe in any thread, and in a child that shares our memory. */
void hp_crash_point(const char *name, atomic_flag *seen);

#define HP_CRASH_POINT(name)                                                                       \
    do {                                                                                           \
        static atomic_flag crash_seen_ = ATOMIC_FLAG_INIT;                                         \
        hp_crash_point((name), &crash_seen_);                                                      \
    } while (0)
#else
#define HP_CRASH_POINT(name) ((void)0)
#endif

#endif
