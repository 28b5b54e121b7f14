/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Squares the numbers 1..N (default 1000) with the function `square` of the example module, one
 * task each, submitted without waiting for one another, and prints the sum:
 *
 *     cc squares.c $(pkg-config --cflags --libs hostpool) -o squares
 *     ./squares 1000
 *     333833500
 *
 * `square` takes and gives one MessagePack integer; this program writes it as a uint64 by hand. The
 * broker is that of HOSTPOOL_HOST, else 127.0.0.1:7741. Ends with status 1 if any task failed.
 */
#include <hostpool.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define INTEGER_BYTES 9

struct squares {
    uint64_t next;
    uint64_t last;
    uint64_t sum;
    uint64_t failed;
    unsigned char input[INTEGER_BYTES];
};

/* MessagePack: 0xcf and eight bytes, the most significant first. */
static void put_integer(unsigned char out[INTEGER_BYTES], uint64_t value)
{
    out[0] = 0xcf;
    for (int i = 0; i < 8; i++) {
        out[1 + i] = (unsigned char)(value >> (56 - 8 * i));
    }
}

/* Any MessagePack integer >= 0. */
static int get_integer(const struct hp_bytes *bytes, uint64_t *ret)
{
    const unsigned char *in = bytes->data;
    size_t size;

    if (bytes->size == 0) {
        return -1;
    }
    if (in[0] < 0x80 && bytes->size == 1) {
        *ret = in[0];
        return 0;
    }
    /* An integer that is not negative may come as an unsigned one or as a signed one. */
    size = in[0] >= 0xcc && in[0] <= 0xcf ? (size_t)1 << (in[0] - 0xcc)
           : in[0] >= 0xd0 && in[0] <= 0xd3 ? (size_t)1 << (in[0] - 0xd0)
                                            : 0;
    if (size == 0 || bytes->size != size + 1) {
        return -1;
    }
    *ret = 0;
    for (size_t i = 1; i <= size; i++) {
        *ret = *ret << 8 | in[i];
    }
    return 0;
}

static int next_input(void *context, struct hp_bytes *ret_payload)
{
    struct squares *squares = context;

    if (squares->next > squares->last) {
        return 0;
    }
    put_integer(squares->input, squares->next++);
    *ret_payload = (struct hp_bytes){.data = squares->input, .size = INTEGER_BYTES};
    return 1;
}

static int take_result(void *context, uint64_t index, const struct hp_result *result)
{
    struct squares *squares = context;
    uint64_t value;

    if (result->task.state != HP_STATE_DONE || get_integer(&result->value, &value) != 0) {
        fprintf(stderr, "input %" PRIu64 ", task %" PRIu64 ": %s (%s)%s%s\n", index + 1,
                result->task.id, hp_state_word(result->task.state),
                hp_end_reason_text(result->task.reason),
                result->task.end != NULL && result->task.end->error != NULL ? ": " : "",
                result->task.end != NULL && result->task.end->error != NULL
                    ? result->task.end->error
                    : "");
        squares->failed++;
        return 0;
    }
    squares->sum += value;
    return 0;
}

int main(int argc, char **argv)
{
    struct squares squares = {.next = 1, .last = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000};
    struct hp_options options;
    struct hp_client *client;
    enum hp_status status = hp_connect(NULL, 10000, &client);

    if (status != HP_STATUS_OK) {
        fprintf(stderr, "squares: %s\n",
                client != NULL ? hp_client_error(client) : hp_strerror(status));
        hp_close(client);
        return 1;
    }
    hp_options_init(&options);
    options.fn = "square";
    status = hp_map_stream(client, &options, NULL, next_input, take_result, &squares, 60000);
    if (status != HP_STATUS_OK) {
        fprintf(stderr, "squares: %s\n", hp_client_error(client));
    } else {
        printf("%" PRIu64 "\n", squares.sum);
    }
    hp_close(client);
    return status == HP_STATUS_OK && squares.failed == 0 ? 0 : 1;
}
