/* SPDX-License-Identifier: BSD-2-Clause */
/* A module whose constructor dies: the zygote goes with it, the daemon must say why. */
#include <signal.h>

#include "worker/sdk/hostpool_worker.h"

__attribute__((constructor)) static void die(void)
{
    (void)raise(SIGSEGV);
}

HP_FUNCTION(never)
{
    return 0;
}
