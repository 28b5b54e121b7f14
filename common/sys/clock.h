/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The clocks. Shells read one once per turn and pass the value on; pure modules never call these.
 * All never fail. Safe in any thread.
 */
#ifndef HP_SYS_CLOCK_H
#define HP_SYS_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC in ms / us: never goes back, stands still while the host is suspended. */
uint64_t hp_clock_mono_ms(void);
uint64_t hp_clock_mono_us(void);

/* CLOCK_BOOTTIME in ms: as monotonic, but counts suspension: for leases and heartbeats. */
uint64_t hp_clock_boot_ms(void);

/* CLOCK_REALTIME in ms since 1970 (UTC): data for people, may jump; never for deadlines. */
uint64_t hp_clock_wall_ms(void);

/* Bytes of a formatted time, NUL included. */
#define HP_CLOCK_TEXT_BYTES 25

/* "2026-01-01T00:00:00.000Z" of wall ms since 1970, years up to 9999. Returns `out`. */
char *hp_clock_format(char out[HP_CLOCK_TEXT_BYTES], uint64_t wall_ms);

#endif
