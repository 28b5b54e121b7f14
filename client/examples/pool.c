/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Counts the primes below N (default 100,000,000) with a pool, in the way of Python's
 * multiprocessing: each child is set up once by an initializer, then a range is one call.
 *
 *     cc pool.c $(pkg-config --cflags --libs hostpool) -o pool
 *     ./pool 1000000
 *     78498 primes below 1000000, in 64 ranges
 *
 * The functions are `primes_setup` and `primes_between` of the example module: they take a
 * MessagePack array of integers and give an integer, written here by hand. The broker is that of
 * HOSTPOOL_HOST, else 127.0.0.1:7741. Ends with status 1 if anything failed.
 *
 * It does the same work twice: with starmap, which hands over all results at the end, and with
 * imap, which takes its inputs from a function and hands over results one by one, so that there
 * could be any number of ranges.
 */
#include <hostpool.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define RANGES 64
#define TIMEOUT_MS 600000

/* A payload: [a] or [a, b]. */
struct payload {
    unsigned char bytes[1 + 2 * 9];
    size_t size;
};

static void put_integer(struct payload *payload, uint64_t value)
{
    /* MessagePack: 0xcf and eight bytes, the most significant first. */
    payload->bytes[payload->size++] = 0xcf;
    for (int shift = 56; shift >= 0; shift -= 8) {
        payload->bytes[payload->size++] = (unsigned char)(value >> shift);
    }
}

static struct hp_bytes one_argument(struct payload *payload, uint64_t a)
{
    payload->bytes[0] = 0x91; /* an array of one */
    payload->size = 1;
    put_integer(payload, a);
    return (struct hp_bytes){.data = payload->bytes, .size = payload->size};
}

static struct hp_bytes two_arguments(struct payload *payload, uint64_t a, uint64_t b)
{
    payload->bytes[0] = 0x92; /* an array of two */
    payload->size = 1;
    put_integer(payload, a);
    put_integer(payload, b);
    return (struct hp_bytes){.data = payload->bytes, .size = payload->size};
}

/* A result: one MessagePack integer that is not negative; of any width, signed or not. */
static int get_integer(const struct hp_bytes *bytes, uint64_t *ret)
{
    const unsigned char *in = bytes->data;

    *ret = 0;
    if (bytes->size == 1 && in[0] < 0x80) {
        *ret = in[0];
        return 0;
    }
    if (bytes->size < 2 || in[0] < 0xcc || in[0] > 0xd3) {
        return -1;
    }
    for (size_t i = 1; i < bytes->size; i++) {
        *ret = *ret << 8 | in[i];
    }
    return 0;
}

/* Adds what a call counted; complains if it failed. A failed call is a result like others. */
static int add(const struct hp_result *result, uint64_t *sum)
{
    const struct hp_end *end;
    uint64_t count = 0;

    if (result == NULL) {
        return -1; /* the caller has the status */
    }
    end = result->task.end;
    if (result->task.state != HP_STATE_DONE || get_integer(&result->value, &count) != 0) {
        fprintf(stderr, "task %" PRIu64 ": %s (%s): %s\n", result->task.id,
                hp_state_word(result->task.state), hp_end_reason_word(result->task.reason),
                end != NULL && end->error != NULL ? end->error : "");
        return -1;
    }
    *sum += count;
    return 0;
}

/* ------------------------------------------------------------------ starmap */

static int with_starmap(struct hp_pool *pool, uint64_t n, uint64_t *sum)
{
    struct payload payloads[RANGES];
    struct hp_bytes inputs[RANGES];
    struct hp_map_results *results;
    enum hp_status status;
    int failed = 0;

    for (uint64_t i = 0; i < RANGES; i++) {
        inputs[i] = two_arguments(&payloads[i], n * i / RANGES, n * (i + 1) / RANGES);
    }
    status = hp_pool_starmap(pool, "primes_between", inputs, RANGES, TIMEOUT_MS, &results);
    if (status != HP_STATUS_OK) {
        fprintf(stderr, "starmap: %s\n", hp_pool_error(pool));
    }
    for (size_t i = 0; results != NULL && i < results->count; i++) {
        failed |= add(results->results[i], sum);
    }
    hp_map_results_free(results);
    return status == HP_STATUS_OK ? failed : -1;
}

/* ------------------------------------------------------------------ imap */

struct ranges {
    uint64_t n;
    uint64_t next;
    struct payload payload;
};

/* The next range; called when there is room for it. */
static int next_range(void *context, struct hp_bytes *ret_payload)
{
    struct ranges *ranges = context;
    uint64_t i = ranges->next++;

    if (i >= RANGES) {
        return 0;
    }
    *ret_payload =
        two_arguments(&ranges->payload, ranges->n * i / RANGES, ranges->n * (i + 1) / RANGES);
    return 1;
}

static int with_imap(struct hp_pool *pool, uint64_t n, uint64_t *sum)
{
    struct ranges ranges = {.n = n};
    const struct hp_result *result;
    struct hp_imap *imap;
    enum hp_status status;
    int failed = 0;

    status = hp_pool_imap_unordered(pool, "primes_between", next_range, &ranges, &imap);
    if (status != HP_STATUS_OK) {
        fprintf(stderr, "imap: %s\n", hp_pool_error(pool));
        return -1;
    }
    do {
        status = hp_imap_next(imap, TIMEOUT_MS, NULL, &result);
        if (status != HP_STATUS_OK) {
            fprintf(stderr, "imap: %s\n", hp_pool_error(pool));
            failed = -1;
        } else if (result != NULL) { /* NULL is the end */
            failed |= add(result, sum);
        }
    } while (status == HP_STATUS_OK && result != NULL);
    hp_imap_release(imap);
    return failed;
}

/* ------------------------------------------------------------------ main */

static int run(struct hp_pool *pool, uint64_t n)
{
    uint64_t by_starmap = 0;
    uint64_t by_imap = 0;

    if (with_starmap(pool, n, &by_starmap) != 0 || with_imap(pool, n, &by_imap) != 0) {
        return -1;
    }
    if (by_starmap != by_imap) {
        fprintf(stderr, "%" PRIu64 " or %" PRIu64 "?\n", by_starmap, by_imap);
        return -1;
    }
    printf("%" PRIu64 " primes below %" PRIu64 ", in %d ranges\n", by_starmap, n, RANGES);
    /* All is done: an orderly end. Without it hp_pool_release would terminate the pool. */
    if (hp_pool_close(pool, TIMEOUT_MS) != HP_STATUS_OK ||
        hp_pool_join(pool, TIMEOUT_MS) != HP_STATUS_OK) {
        fprintf(stderr, "%s\n", hp_pool_error(pool));
        return -1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t n = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000000;
    struct hp_pool_options options;
    struct payload payload;
    struct hp_pool *pool;
    uint64_t limit = 2;
    int failed = -1;

    if (n > UINT64_C(1000000000000)) {
        fprintf(stderr, "usage: pool [N up to 10^12]\n");
        return 2;
    }
    while (limit * limit < n) {
        limit++; /* the children need the primes up to the root of n */
    }
    hp_pool_options_init(&options);
    options.name = "primes";
    options.initializer = "primes_setup";
    options.initargs = one_argument(&payload, limit);
    if (hp_pool_create(&options, TIMEOUT_MS, &pool) == HP_STATUS_OK) {
        failed = run(pool, n);
    } else {
        fprintf(stderr, "%s\n", pool != NULL ? hp_pool_error(pool) : "out of memory");
    }
    hp_pool_release(pool);
    return failed == 0 ? 0 : 1;
}
