/* SPDX-License-Identifier: BSD-2-Clause */
/* Allocations that fail: the n-th of SQLite, or the n-th of one call into the store. */
#ifndef HP_TESTS_FAULT_MEMORY_H
#define HP_TESTS_FAULT_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

/* Before the first use of SQLite in this process. */
void memory_init(void);
/* The n-th allocation of SQLite from now on, and all later ones if `lasting`; 0: none. */
void memory_fail_sqlite(uint64_t n, bool lasting);
/* The n-th allocation in the call-th call from now on; 0: none. */
void memory_fail_own(uint64_t call, uint64_t n, bool lasting);
uint64_t memory_failures(void);
/* Calls begun since memory_fail_own. */
uint64_t memory_calls(void);

/* Around each call. */
void memory_call_begins(void);
void memory_call_ends(void);

#endif
