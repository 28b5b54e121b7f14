/* SPDX-License-Identifier: BSD-2-Clause */
/* A module for pools: an initializer, and functions that tell what it left. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/sdk/hostpool_worker.h"

static char data[64];
static size_t data_size;
static int has_init_run;

static int on_init(void)
{
    has_init_run = 1;
    return 0;
}

HP_MODULE_HOOKS(NULL, on_init, NULL);

static int is_payload(const struct hp_call *call, const char *text)
{
    return call->arg_size == strlen(text) && memcmp(call->arg, text, call->arg_size) == 0;
}

/* Keeps the payload; "fail", "die" and "hang" do as they say. */
HP_FUNCTION_AS(set_up, "pool.set_up")
{
    if (is_payload(call, "fail") || !has_init_run) {
        return hp_fail(call, "there is no such data");
    }
    if (is_payload(call, "die")) {
        (void)fprintf(stderr, "the data are damaged\n");
        exit(9);
    }
    while (is_payload(call, "hang")) {
        (void)pause();
    }
    data_size = call->arg_size < sizeof data ? call->arg_size : sizeof data;
    memcpy(data, call->arg, data_size);
    return hp_result_str(call, "nobody reads this");
}

/* What was kept. */
HP_FUNCTION_AS(get_data, "pool.data")
{
    return hp_result_bytes(call, data, data_size);
}

/* Prints the payload to both streams. */
HP_FUNCTION_AS(say, "pool.say")
{
    (void)printf("out: %.*s\n", (int)call->arg_size, (const char *)call->arg);
    (void)fprintf(stderr, "err: %.*s\n", (int)call->arg_size, (const char *)call->arg);
    return 0;
}

/* Never ends. */
HP_FUNCTION_AS(hang, "pool.hang")
{
    while (pause() != 0) {
    }
    return hp_result_nil(call);
}
