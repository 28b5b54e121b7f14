/* SPDX-License-Identifier: BSD-2-Clause */
/* Random bytes by getrandom(2), which blocks only before the kernel's pool is first filled. */
#include "common/sys/random.h"

#include <errno.h>
#include <sys/random.h>
#include <sys/types.h>

enum hp_err hp_random_fill(void *data, size_t size)
{
    uint8_t *at = data;
    while (size > 0) {
        ssize_t got = getrandom(at, size, 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return HP_ERR_IO;
        }
        at += got;
        size -= (size_t)got;
    }
    return HP_OK;
}

enum hp_err hp_random_id16(uint8_t ret_id[16])
{
    return hp_random_fill(ret_id, 16);
}

enum hp_err hp_random_u64(uint64_t *ret)
{
    uint64_t bits = 0;
    enum hp_err err = hp_random_fill(&bits, sizeof(bits));
    if (err == HP_OK) {
        *ret = bits;
    }
    return err;
}
