/* SPDX-License-Identifier: BSD-2-Clause */
/* The entry of a language's extension into the loop of helpers. */
#include "worker/exec/language.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/exec/helper.h"

#define SLOTS_MAX 131072u

/* The shared memory of all child slots, or NULL. */
static struct hp_exec_shared *map_slots(uint32_t slots)
{
    struct stat about;
    size_t bytes = sizeof(struct hp_exec_shared) + slots * sizeof(struct hp_child_shared);
    if (fstat(HP_LANGUAGE_SHARED_FD, &about) != 0 || (uint64_t)about.st_size < bytes) {
        return NULL;
    }
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, HP_LANGUAGE_SHARED_FD, 0);
    return map == MAP_FAILED ? NULL : map;
}

/* A helper takes no signals; a child shall have those its interpreter knows of. */
static void get_signals(struct sigaction *actions)
{
    for (int number = 1; number < NSIG; number++) {
        (void)sigaction(number, NULL, &actions[number]);
    }
}

static void set_signals(const struct sigaction *actions)
{
    for (int number = 1; number < NSIG; number++) {
        (void)sigaction(number, &actions[number],
                        NULL); /* KILL, STOP and libc's two refuse: fine */
    }
}

int hp_language_zygote(const char *ready_text, const struct hp_language_hooks *hooks,
                       struct hp_port **ret_port)
{
    static struct hp_helper_config config; /* the helper keeps a pointer to it */
    const char *given = getenv(HP_LANGUAGE_VARIABLE);
    uint64_t instance = 0;
    uint32_t slots = 0;
    uint64_t cap = 0;
    if (given == NULL ||
        sscanf(given, "%" SCNu64 ":%" SCNu32 ":%" SCNu64, &instance, &slots, &cap) != 3 ||
        slots == 0 || slots > SLOTS_MAX) {
        errno = EINVAL;
        return -1;
    }
    (void)unsetenv(HP_LANGUAGE_VARIABLE);
    struct hp_exec_shared *shared = map_slots(slots);
    if (shared == NULL) {
        errno = EBADF;
        return -1;
    }
    config = (struct hp_helper_config){
        .role = HP_HELPER_LANGUAGE,
        .control_fd = HP_LANGUAGE_CONTROL_FD,
        .slots = slots,
        .shared = shared,
        .children = (struct hp_child_shared *)(void *)(shared + 1),
        .result_cap_bytes = cap,
        .instance = instance,
        .hooks = hooks,
        .ready_text = ready_text,
    };
    struct sigaction actions[NSIG] = {0};
    get_signals(actions);
    *ret_port = hp_helper_language(&config);
    set_signals(actions);
    if (*ret_port == NULL) {
        errno = EBADF;
        return -1;
    }
    return 0;
}
