/* SPDX-License-Identifier: BSD-2-Clause */
/* Random bytes of the kernel: for ids, seeds and secrets. Safe in any thread. */
#ifndef HP_SYS_RANDOM_H
#define HP_SYS_RANDOM_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

/* Fills `size` bytes. HP_ERR_IO if the kernel gives none: `data` is undefined then. */
enum hp_err hp_random_fill(void *data, size_t size) HP_MUST_CHECK;

/* 16 random bytes: a session or epoch id. HP_ERR_IO as above. */
enum hp_err hp_random_id16(uint8_t ret_id[16]) HP_MUST_CHECK;

/* 64 random bits, for seeds. HP_ERR_IO as above, *ret untouched. */
enum hp_err hp_random_u64(uint64_t *ret) HP_MUST_CHECK;

#endif
