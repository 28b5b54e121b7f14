/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Is this still the process that made an object? Asked at each call of a library, so without a
 * system call: a page of memory that the kernel gives to a forked child as zeroes.
 */
#ifndef HP_COMMON_SYS_FORK_H
#define HP_COMMON_SYS_FORK_H

#include <stdint.h>

/* Never 0. The same for all calls within a process, and in a forked child not that of its parent,
 * nor that of any process the parent descends from. Any thread. */
uint64_t hp_fork_mark(void);

#endif
