/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Heap wrappers with a countdown to failure. The countdown is atomic because the store runs in a
 * thread of its own; it costs one relaxed load per allocation while off.
 */
#include "common/base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_bool fail_is_on;
static atomic_bool fail_is_lasting;
static _Atomic uint64_t fail_left;
static _Atomic uint64_t fail_done;

void hp_mem_fail_at(uint64_t n, bool lasting)
{
    atomic_store(&fail_left, n);
    atomic_store(&fail_done, 0);
    atomic_store(&fail_is_lasting, lasting);
    atomic_store(&fail_is_on, n > 0);
}

uint64_t hp_mem_fail_count(void)
{
    return atomic_load(&fail_done);
}

uint64_t hp_mem_fail_left(void)
{
    return atomic_load(&fail_left);
}

static bool must_fail(void)
{
    if (!atomic_load_explicit(&fail_is_on, memory_order_relaxed)) {
        return false;
    }
    uint64_t left = atomic_load(&fail_left);
    do {
        if (left == 0) {
            break;
        }
    } while (!atomic_compare_exchange_weak(&fail_left, &left, left - 1));
    /* `left` is the count before this call: 1 hits, 0 is past the hit. */
    if (left > 1 || (left == 0 && !atomic_load(&fail_is_lasting))) {
        return false;
    }
    atomic_fetch_add(&fail_done, 1);
    return true;
}

void *hp_alloc(size_t size)
{
    return must_fail() ? NULL : malloc(size > 0 ? size : 1);
}

void *hp_calloc(size_t count, size_t size)
{
    size_t bytes = 0;
    if (__builtin_mul_overflow(count, size, &bytes) || must_fail()) {
        return NULL;
    }
    return calloc(1, bytes > 0 ? bytes : 1);
}

void *hp_alloc_array(size_t count, size_t size)
{
    size_t bytes = 0;
    return __builtin_mul_overflow(count, size, &bytes) ? NULL : hp_alloc(bytes);
}

void *hp_realloc(void *ptr, size_t size)
{
    return must_fail() ? NULL : realloc(ptr, size > 0 ? size : 1);
}

void *hp_realloc_array(void *ptr, size_t count, size_t size)
{
    size_t bytes = 0;
    return __builtin_mul_overflow(count, size, &bytes) ? NULL : hp_realloc(ptr, bytes);
}

void *hp_memdup(const void *data, size_t size)
{
    if (size == SIZE_MAX) {
        return NULL;
    }
    uint8_t *copy = hp_alloc(size + 1);
    if (copy == NULL) {
        return NULL;
    }
    if (size > 0) {
        memcpy(copy, data, size);
    }
    copy[size] = 0;
    return copy;
}

char *hp_strdup(const char *text)
{
    return hp_memdup(text, strlen(text));
}

void hp_free(void *ptr)
{
    free(ptr);
}

void hp_free_ptr(void *ptr_to_ptr)
{
    void *ptr = NULL;
    memcpy(&ptr, ptr_to_ptr, sizeof(ptr)); /* the caller's pointer has some other type */
    free(ptr);
}
