/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The only door to the heap, so that tests can fail the n-th allocation and so that no size is
 * computed without an overflow check. Running out of memory is an operating error: NULL comes back.
 */
#ifndef HP_BASE_MEM_H
#define HP_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/macro.h"

/* `size` uninitialised bytes (0 counts as 1). NULL when out of memory. Free with hp_free. */
void *hp_alloc(size_t size) HP_MUST_CHECK;

/* `count` * `size` zeroed bytes; NULL when out of memory or when the product overflows. */
void *hp_calloc(size_t count, size_t size) HP_MUST_CHECK;

/* As hp_alloc for `count` * `size` bytes; NULL also when the product overflows. */
void *hp_alloc_array(size_t count, size_t size) HP_MUST_CHECK;

/* Resizes (NULL: allocates). On NULL the old block is untouched and still the caller's. */
void *hp_realloc(void *ptr, size_t size) HP_MUST_CHECK;

/* As hp_realloc for `count` * `size` bytes; NULL also when the product overflows. */
void *hp_realloc_array(void *ptr, size_t count, size_t size) HP_MUST_CHECK;

/* Copies `size` bytes into a new block which has one more byte, a NUL. NULL when out of memory. */
void *hp_memdup(const void *data, size_t size) HP_MUST_CHECK;

/* Copies a C string. NULL when out of memory. */
char *hp_strdup(const char *text) HP_MUST_CHECK;

/* Frees a block of these functions; NULL is fine. */
void hp_free(void *ptr);

/* For HP_CLEANUP: `HP_CLEANUP(hp_free_ptr) char *text = ...;` frees *(void **)ptr_to_ptr. */
void hp_free_ptr(void *ptr_to_ptr);

/*
 * Test hook: the n-th allocation from now on (1 = the next) fails; with `lasting` all later ones
 * too. 0 switches the hook off. Process-wide; safe with threads, but then n counts all of them.
 */
void hp_mem_fail_at(uint64_t n, bool lasting);

/* How many allocations the hook has failed since the last hp_mem_fail_at. */
uint64_t hp_mem_fail_count(void);

/* How far off the one that fails is, as hp_mem_fail_at takes it; 0: it is past, or none is to. */
uint64_t hp_mem_fail_left(void);

#endif
