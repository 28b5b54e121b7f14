/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory of a program that runs once: most of it lives until the end and is freed in one sweep.
 * Long streams (map) use hp_cli_heap and free what they are done with.
 */
#include "cli/cli.h"

#include "common/base/mem.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct block {
    struct block *next;
    max_align_t data[];
};

static struct block *blocks;

void hp_cli_no_memory(void)
{
    static const char text[] = "hostpool: out of memory.\n";
    (void)!write(STDERR_FILENO, text, sizeof(text) - 1); /* nothing is left to do about an error */
    _exit(HP_CLI_RUN_FAILED);
}

void *hp_cli_alloc(size_t size)
{
    struct block *block = NULL;
    if (size > SIZE_MAX / 2 || (block = hp_calloc(1, sizeof(*block) + size)) == NULL) {
        hp_cli_no_memory();
    }
    block->next = blocks;
    blocks = block;
    return block->data;
}

void *hp_cli_alloc_array(size_t count, size_t size)
{
    size_t all;
    if (__builtin_mul_overflow(count, size, &all)) {
        hp_cli_no_memory();
    }
    return hp_cli_alloc(all);
}

char *hp_cli_copy(const char *text, size_t size)
{
    char *copy = hp_cli_alloc(size + 1);
    if (size > 0) {
        memcpy(copy, text, size);
    }
    return copy;
}

char *hp_cli_printf(const char *format, ...)
{
    va_list args;
    char small[256];
    va_start(args, format);
    int size = vsnprintf(small, sizeof(small), format, args);
    va_end(args);
    if (size < 0) {
        hp_cli_no_memory();
    }
    if ((size_t)size < sizeof(small)) {
        return hp_cli_copy(small, (size_t)size);
    }
    char *text = hp_cli_alloc((size_t)size + 1);
    va_start(args, format);
    (void)vsnprintf(text, (size_t)size + 1, format, args);
    va_end(args);
    return text;
}

void hp_cli_free_all(void)
{
    while (blocks != NULL) {
        struct block *next = blocks->next;
        hp_free(blocks);
        blocks = next;
    }
}

void *hp_cli_heap(size_t size)
{
    void *data = hp_calloc(1, size > 0 ? size : 1);
    if (data == NULL) {
        hp_cli_no_memory();
    }
    return data;
}

void *hp_cli_heap_grow(void *old, size_t count, size_t size)
{
    void *data = hp_realloc_array(old, count, size);
    if (data == NULL) {
        hp_cli_no_memory();
    }
    return data;
}
