/* SPDX-License-Identifier: BSD-2-Clause */
/* A module with hooks: its function tells which have run. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker/sdk/hostpool_worker.h"

static int load_pid;
static int init_pid;

static int on_load(void)
{
    load_pid = getpid();
    return getenv("HP_TEST_LOAD_FAILS") != NULL ? 5 : 0;
}

static int on_init(void)
{
    init_pid = getpid();
    return getenv("HP_TEST_INIT_FAILS") != NULL;
}

static void on_fini(void)
{
    (void)fprintf(stderr, "fini ran\n");
}

HP_MODULE_HOOKS(on_load, on_init, on_fini);

HP_FUNCTION(hooks)
{
    int is_right = load_pid != 0 && load_pid != getpid() && init_pid == getpid();
    return hp_result_str(call, is_right ? "right" : "wrong");
}

HP_FUNCTION_AS(dotted_name, "hooks.dotted")
{
    return hp_result_nil(call);
}

/* Returns a number without saying why. */
HP_FUNCTION(mute)
{
    return -7;
}
