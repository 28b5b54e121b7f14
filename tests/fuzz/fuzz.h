/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The entry point that libFuzzer calls; replay.c calls it too, so that every build runs the corpus.
 */
#ifndef HP_FUZZ_H
#define HP_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Take one input; aborts when a property does not hold. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
