/* SPDX-License-Identifier: BSD-2-Clause */
/* Words for people: errors, hints, times, text that is safe on a terminal. */
#include "cli/cli.h"

#include "common/base/mem.h"
#include "common/sys/clock.h"

#include <stdarg.h>
#include <string.h>
#include <time.h>

/* Length of the UTF-8 sequence at `at` (at least one byte), 0 if it is not valid. */
static unsigned sequence_size(const unsigned char *at, size_t size, uint32_t *ret_char)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char first = at[0];
    unsigned count = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (count > size || (first >= 0x80 && first < 0xc2) || first > 0xf4) {
        return 0;
    }
    uint32_t character = count == 1 ? first : first & (0x7fu >> count);
    for (unsigned i = 1; i < count; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
        character = character << 6 | (at[i] & 0x3f);
    }
    if (character < least[count] || character > 0x10ffff ||
        (character >= 0xd800 && character < 0xe000)) {
        return 0;
    }
    *ret_char = character;
    return count;
}

static bool is_harmless(uint32_t character, bool with_newlines)
{
    if (character == '\n' || character == '\t') {
        return with_newlines;
    }
    bool is_control = character < 0x20 || (character >= 0x7f && character < 0xa0);
    /* Line separators, and marks that turn the direction of the text that follows. */
    bool is_mark = (character >= 0x2028 && character <= 0x202e) || character == 0x200e ||
                   character == 0x200f || (character >= 0x2066 && character <= 0x2069);
    return !is_control && !is_mark;
}

char *hp_cli_escape(const char *text, size_t size, bool with_newlines)
{
    static const char hex[] = "0123456789abcdef";
    char *out = hp_cli_alloc(size * 4 + 1);
    size_t used = 0;
    for (size_t i = 0; i < size;) {
        const unsigned char *at = (const unsigned char *)text + i;
        uint32_t character = 0;
        unsigned count = sequence_size(at, size - i, &character);
        if (count > 0 && is_harmless(character, with_newlines)) {
            memcpy(out + used, at, count);
            used += count;
            i += count;
            continue;
        }
        count = count > 0 ? count : 1;
        for (unsigned n = 0; n < count; n++) {
            out[used++] = '\\';
            out[used++] = 'x';
            out[used++] = hex[at[n] >> 4];
            out[used++] = hex[at[n] & 15];
        }
        i += count;
    }
    out[used] = '\0';
    return out;
}

static void say(const char *before, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
static void say(const char *before, const char *format, va_list args)
{
    char text[4096];
    int size = vsnprintf(text, sizeof(text), format, args);
    size_t kept = size < 0 ? 0 : (size_t)size < sizeof(text) ? (size_t)size : sizeof(text) - 1;
    (void)fflush(stdout);
    (void)fprintf(stderr, "%s%s\n", before, hp_cli_escape(text, kept, true));
}

void hp_cli_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("hostpool: ", format, args);
    va_end(args);
}

void hp_cli_hint(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("  ", format, args);
    va_end(args);
}

char *hp_cli_age(char out[32], uint64_t duration_ms)
{
    uint64_t seconds = duration_ms / 1000;
    if (seconds < 60) {
        (void)snprintf(out, 32, "%us", (unsigned)seconds);
    } else if (seconds < 3600) {
        (void)snprintf(out, 32, "%um", (unsigned)(seconds / 60));
    } else if (seconds < 86400) {
        (void)snprintf(out, 32, "%uh%02um", (unsigned)(seconds / 3600),
                       (unsigned)(seconds / 60 % 60));
    } else {
        (void)snprintf(out, 32, "%ud%02uh", (unsigned)(seconds / 86400),
                       (unsigned)(seconds / 3600 % 24));
    }
    return out;
}

char *hp_cli_time_utc(int64_t at_ms, char out[40])
{
    time_t seconds = (time_t)(at_ms / 1000);
    struct tm parts;
    char text[32];
    if (gmtime_r(&seconds, &parts) == NULL ||
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts) == 0) {
        text[0] = '\0';
    }
    (void)snprintf(out, 40, "%s.%03dZ", text, (int)(at_ms % 1000));
    return out;
}

char *hp_cli_time_text(const struct hp_cli *cli, int64_t at_ms, char out[40])
{
    time_t seconds = (time_t)(at_ms / 1000);
    struct tm parts;
    if (cli->is_utc && gmtime_r(&seconds, &parts) != NULL) {
        (void)strftime(out, 40, "%Y-%m-%dT%H:%M:%SZ", &parts);
        return out;
    }
    char zone[8];
    char text[32];
    if (localtime_r(&seconds, &parts) == NULL ||
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts) == 0 ||
        strftime(zone, sizeof(zone), "%z", &parts) != 5) {
        return hp_cli_time_utc(at_ms, out);
    }
    (void)snprintf(out, 40, "%s%.3s:%s", text, zone, zone + 3);
    return out;
}

char *hp_cli_thousands(uint64_t number, char out[32])
{
    char digits[24];
    int count = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)number);
    size_t used = 0;
    for (int i = 0; i < count; i++) {
        if (i > 0 && (count - i) % 3 == 0) {
            out[used++] = ',';
        }
        out[used++] = digits[i];
    }
    out[used] = '\0';
    return out;
}

int64_t hp_cli_now_ms(void)
{
    return (int64_t)hp_clock_wall_ms();
}

int64_t hp_cli_mono_ms(void)
{
    return (int64_t)hp_clock_mono_ms();
}
