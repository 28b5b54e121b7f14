/* SPDX-License-Identifier: BSD-2-Clause */
/* The clock that the code under test reads (disk_calls.c): the same run, the same times. */
#ifndef HP_TESTS_FAULT_CLOCK_H
#define HP_TESTS_FAULT_CLOCK_H

#include <stdint.h>

void fault_clock_set(uint64_t us);
void fault_clock_advance(uint64_t ms);
/* The machine's. */
double fault_clock_real_s(void);

#endif
