/* SPDX-License-Identifier: BSD-2-Clause */
/* The only place that reads the clock. */
#include "common/sys/clock.h"

#include <stdio.h>
#include <time.h>

#include "common/base/assert.h"

static uint64_t read_us(clockid_t clock)
{
    struct timespec now = {0};
    int failed = clock_gettime(clock, &now);
    HP_ASSERT(failed == 0); /* all three clocks exist on every kernel we run on */
    HP_ASSERT(now.tv_sec >= 0);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t hp_clock_mono_ms(void)
{
    return read_us(CLOCK_MONOTONIC) / 1000;
}

uint64_t hp_clock_mono_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

uint64_t hp_clock_boot_ms(void)
{
    return read_us(CLOCK_BOOTTIME) / 1000;
}

uint64_t hp_clock_wall_ms(void)
{
    return read_us(CLOCK_REALTIME) / 1000;
}

char *hp_clock_format(char out[HP_CLOCK_TEXT_BYTES], uint64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm = {0};
    if (gmtime_r(&seconds, &tm) == NULL || tm.tm_year > 9999 - 1900) {
        (void)snprintf(out, HP_CLOCK_TEXT_BYTES, "9999-12-31T23:59:59.999Z");
        return out;
    }
    size_t size = strftime(out, HP_CLOCK_TEXT_BYTES, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(out + size, HP_CLOCK_TEXT_BYTES - size, ".%03uZ", (unsigned)(wall_ms % 1000));
    return out;
}
