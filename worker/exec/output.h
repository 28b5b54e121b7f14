/* SPDX-License-Identifier: BSD-2-Clause */
/* The last bytes of a stream, up to a cap: a ring that grows only as far as there are bytes. */
#ifndef HP_EXEC_OUTPUT_H
#define HP_EXEC_OUTPUT_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/bin.h"

struct hp_tail {
    uint8_t *data;
    size_t capacity; /* bytes allocated */
    size_t cap;      /* most that are kept */
    size_t start;    /* index of the oldest kept byte */
    size_t size;     /* kept bytes */
    uint64_t total;  /* all bytes that were appended */
};

/* Keeps nothing yet, allocates nothing. */
void hp_tail_init(struct hp_tail *tail, size_t cap);
void hp_tail_deinit(struct hp_tail *tail);

/* Appends; the oldest bytes give way beyond the cap (or when memory is out). Never fails. */
void hp_tail_append(struct hp_tail *tail, const uint8_t *data, size_t size);

/* The kept bytes from stream offset `from` on (or the oldest kept one, if that is later), in two
 * parts; returns the stream offset of the first. Valid until the next append. */
uint64_t hp_tail_view(const struct hp_tail *tail, uint64_t from, struct hp_bin ret_part[2]);

#endif
