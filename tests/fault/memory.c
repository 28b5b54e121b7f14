/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/fault/memory.h"

#include <sqlite3.h>

#include "common/base/mem.h"
#include "tests/fault/disk_inside.h"

static sqlite3_mem_methods real;

static struct {
    uint64_t sqlite_count, sqlite_at;
    uint64_t call_count, call_at, own_at;
    bool lasting;
    bool in_call;
    uint64_t failures;
} memory;

static bool fails(void)
{
    uint64_t n = ++memory.sqlite_count;
    bool now =
        memory.sqlite_at > 0 && (n == memory.sqlite_at || (memory.lasting && n > memory.sqlite_at));
    memory.failures += now ? 1 : 0;
    return now;
}

static void *allocate(int size)
{
    return fails() ? NULL : real.xMalloc(size);
}

static void *resize(void *block, int size)
{
    return fails() ? NULL : real.xRealloc(block, size);
}

void memory_init(void)
{
    if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real) != SQLITE_OK) {
        disk_die("SQLite", "does not tell its allocator");
    }
    sqlite3_mem_methods ours = real;
    ours.xMalloc = allocate;
    ours.xRealloc = resize;
    if (sqlite3_config(SQLITE_CONFIG_MALLOC, &ours) != SQLITE_OK) {
        disk_die("SQLite", "does not take an allocator");
    }
}

void memory_fail_sqlite(uint64_t n, bool lasting)
{
    memory.sqlite_count = 0;
    memory.sqlite_at = n;
    memory.lasting = lasting;
    memory.failures = 0;
}

void memory_fail_own(uint64_t call, uint64_t n, bool lasting)
{
    memory.call_count = 0;
    memory.call_at = call;
    memory.own_at = n;
    memory.lasting = lasting;
    memory.failures = 0;
}

uint64_t memory_failures(void)
{
    return memory.failures;
}

uint64_t memory_calls(void)
{
    return memory.call_count;
}

void memory_call_begins(void)
{
    memory.in_call = ++memory.call_count == memory.call_at;
    if (memory.in_call) {
        hp_mem_fail_at(memory.own_at, memory.lasting);
    }
}

void memory_call_ends(void)
{
    if (memory.in_call) {
        memory.failures += hp_mem_fail_count();
        hp_mem_fail_at(0, false);
        memory.in_call = false;
    }
}
