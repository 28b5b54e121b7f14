/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Example of a module, and the one that tests, demos and benchmarks run. Build one of your own with
 *     cc -shared -fPIC -O2 -o mine.so mine.c
 */
#include <hostpool_worker.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Nothing: what a call costs. */
HP_FUNCTION(noop)
{
    return 0;
}

/* The payload, byte by byte. */
HP_FUNCTION(echo)
{
    return hp_result_bytes(call, call->arg, call->arg_size);
}

/* (n) -> n * n */
HP_FUNCTION(square)
{
    int64_t n = 0;
    int64_t result = 0;
    if (hp_arg_i64(call, 0, &n) != 0) {
        return hp_fail_permanent(call, "square wants an integer");
    }
    if (__builtin_mul_overflow(n, n, &result)) {
        return hp_fail_permanent(call, "square: the result does not fit");
    }
    return hp_result_i64(call, result);
}

/* (a, b, ...) -> their sum; a float if one of them is no integer. */
HP_FUNCTION(sum)
{
    int64_t whole = 0;
    double real = 0;
    int is_whole = 1;
    for (uint32_t i = 0; i < hp_arg_count(call); i++) {
        int64_t n = 0;
        double x = 0;
        if (hp_arg_f64(call, i, &x) != 0) {
            return hp_fail_permanent(call, "sum wants numbers");
        }
        real += x;
        is_whole =
            is_whole && hp_arg_i64(call, i, &n) == 0 && !__builtin_add_overflow(whole, n, &whole);
    }
    return is_whole ? hp_result_i64(call, whole) : hp_result_f64(call, real);
}

/* (ms): sleeps that long. */
HP_FUNCTION(sleep_ms)
{
    int64_t ms = 0;
    if (hp_arg_i64(call, 0, &ms) != 0 || ms < 0) {
        return hp_fail_permanent(call, "sleep_ms wants milliseconds");
    }
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
    return 0;
}

/* (text): fails with it. */
HP_FUNCTION(fail)
{
    char text[256] = "fail was called";
    const char *given = NULL;
    size_t size = 0;
    if (hp_arg_str(call, 0, &given, &size) == 0) {
        (void)snprintf(text, sizeof text, "%.*s", size < 255 ? (int)size : 255, given);
    }
    return hp_fail(call, text);
}

/* Fails at the first attempts, (n) of them: succeeds at attempt n + 1. */
HP_FUNCTION(flaky)
{
    int64_t failures = 1;
    (void)hp_arg_i64(call, 0, &failures);
    if (call->attempt <= failures) {
        return hp_fail(call, "flaky: not yet");
    }
    return hp_result_i64(call, call->attempt);
}

/* (ms): asks to be run again then, once. */
HP_FUNCTION(retry_once)
{
    int64_t ms = 10;
    (void)hp_arg_i64(call, 0, &ms);
    return call->attempt == 1 ? hp_retry(call, (uint64_t)ms) : hp_result_i64(call, call->attempt);
}

/* Dies of SIGSEGV. */
HP_FUNCTION(crash)
{
    (void)fprintf(stderr, "crash: about to touch what is not there\n");
    (void)raise(SIGSEGV);
    return 0;
}

/* (code): ends the process in the middle of the call. */
HP_FUNCTION(exit_now)
{
    int64_t code = 3;
    (void)hp_arg_i64(call, 0, &code);
    exit((int)code);
}

/* (n) -> n bytes, byte i is i modulo 251. */
HP_FUNCTION(big)
{
    int64_t size = 0;
    if (hp_arg_i64(call, 0, &size) != 0 || size < 0) {
        return hp_fail_permanent(call, "big wants a size");
    }
    uint8_t *out = hp_result_room(call, (size_t)size);
    if (out == NULL) {
        return hp_fail(call, "big: no memory");
    }
    for (size_t i = 0; i < (size_t)size; i++) {
        out[i] = (uint8_t)(i % 251);
    }
    return 0;
}

/* (n) -> how many primes are below n. */
HP_FUNCTION(primes)
{
    int64_t n = 0;
    if (hp_arg_i64(call, 0, &n) != 0 || n < 0 || n > 100000000) {
        return hp_fail_permanent(call, "primes wants a number up to 100000000");
    }
    uint8_t *is_composite = calloc((size_t)n + 1, 1);
    if (is_composite == NULL) {
        return hp_fail(call, "primes: no memory");
    }
    int64_t count = 0;
    for (int64_t i = 2; i < n; i++) {
        if (is_composite[i]) {
            continue;
        }
        count++;
        for (int64_t j = i * i; j < n; j += i) {
            is_composite[j] = 1;
        }
    }
    free(is_composite);
    return hp_result_i64(call, count);
}

/* The primes up to `limit`, made once in each child of a pool by its initializer. */
static struct {
    int64_t limit;
    int64_t *primes;
    size_t count;
} table;

/* (limit) -> nothing. An initializer: the children of a pool can then do primes_between. */
HP_FUNCTION(primes_setup)
{
    int64_t limit = 0;
    if (hp_arg_i64(call, 0, &limit) != 0 || limit < 2 || limit > 1000000) {
        return hp_fail_permanent(call, "primes_setup wants a number from 2 to 1000000");
    }
    free(table.primes);
    table.count = 0;
    table.limit = limit;
    table.primes = calloc((size_t)limit + 1, sizeof(*table.primes));
    if (table.primes == NULL) {
        return hp_fail(call, "primes_setup: no memory");
    }
    for (int64_t n = 2; n <= limit; n++) {
        int is_prime = 1;
        for (size_t i = 0; is_prime && i < table.count && table.primes[i] * table.primes[i] <= n;
             i++) {
            is_prime = n % table.primes[i] != 0;
        }
        if (is_prime) {
            table.primes[table.count++] = n;
        }
    }
    return 0;
}

/* (from, to) -> how many primes are in [from, to); in a child that primes_setup has set up. */
HP_FUNCTION(primes_between)
{
    int64_t from = 0;
    int64_t to = 0;
    if (hp_arg_i64(call, 0, &from) != 0 || hp_arg_i64(call, 1, &to) != 0 || from < 0 || to < from ||
        to - from > 100000000) {
        return hp_fail_permanent(call, "primes_between wants (from, to)");
    }
    if (table.primes == NULL || table.limit * table.limit < to) {
        return hp_fail_permanent(call, "primes_between: not set up for so large a number");
    }
    uint8_t *is_composite = calloc((size_t)(to - from) + 1, 1);
    if (is_composite == NULL) {
        return hp_fail(call, "primes_between: no memory");
    }
    for (size_t i = 0; i < table.count; i++) {
        int64_t prime = table.primes[i];
        int64_t first = (from + prime - 1) / prime * prime;
        for (int64_t n = first < prime * prime ? prime * prime : first; n < to; n += prime) {
            is_composite[n - from] = 1;
        }
    }
    int64_t count = 0;
    for (int64_t n = from < 2 ? 2 : from; n < to; n++) {
        count += !is_composite[n - from];
    }
    free(is_composite);
    return hp_result_i64(call, count);
}

/* The CRC-32 (IEEE 802.3) of the payload. */
HP_FUNCTION(crc32)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < call->arg_size; i++) {
        crc ^= call->arg[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1u)));
        }
    }
    return hp_result_i64(call, ~crc);
}

/* -> the process that ran it. */
HP_FUNCTION(pid)
{
    return hp_result_i64(call, getpid());
}

/* -> [task id, attempt, epoch, array index] as text. */
HP_FUNCTION(whoami)
{
    char text[128];
    (void)snprintf(text, sizeof text, "%llu %u %llu %llu", (unsigned long long)call->task_id,
                   (unsigned)call->attempt, (unsigned long long)call->epoch,
                   (unsigned long long)call->array_index);
    return hp_result_str(call, text);
}

static char *volatile last_leak;

/* (n): keeps n MiB and returns: a leak, to be seen by the worker's recycling. */
HP_FUNCTION(leak)
{
    int64_t mib = 1;
    (void)hp_arg_i64(call, 0, &mib);
    size_t size = (size_t)mib << 20;
    char *kept = malloc(size);
    if (kept == NULL) {
        return hp_fail(call, "leak: no memory");
    }
    memset(kept, 1, size);
    last_leak = kept; /* else the compiler sees that nobody looks */
    return 0;
}
