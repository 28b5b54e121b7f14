/* SPDX-License-Identifier: BSD-2-Clause */
/* Times and signals as people write them: pure, but for the local time zone. */
#include "cli/cli.h"

#include "common/base/str.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* "+02:00", "Z" or nothing (local) behind a time. */
static bool zone_parse(const char *text, struct tm *parts, int64_t *ret_seconds)
{
    if (*text == '\0') {
        parts->tm_isdst = -1;
        *ret_seconds = (int64_t)mktime(parts);
        return true;
    }
    *ret_seconds = (int64_t)timegm(parts);
    if ((*text == 'Z' || *text == 'z') && text[1] == '\0') {
        return true;
    }
    if ((*text != '+' && *text != '-') || strlen(text) != 6 || text[3] != ':' ||
        !isdigit((unsigned char)text[1]) || !isdigit((unsigned char)text[2]) ||
        !isdigit((unsigned char)text[4]) || !isdigit((unsigned char)text[5])) {
        return false;
    }
    int offset =
        ((text[1] - '0') * 10 + text[2] - '0') * 3600 + ((text[4] - '0') * 10 + text[5] - '0') * 60;
    *ret_seconds += *text == '+' ? -offset : offset;
    return true;
}

bool hp_cli_time_parse(const char *text, int64_t now_ms, int64_t *ret_ms)
{
    uint64_t duration_ms = 0;
    if (*text == '+') {
        if (hp_parse_duration_ms(hp_str_of(text + 1), &duration_ms, NULL) != HP_OK ||
            duration_ms > INT64_MAX / 4) {
            return false;
        }
        *ret_ms = now_ms + (int64_t)duration_ms;
        return true;
    }
    struct tm parts = {0};
    const char *rest = strptime(text, "%Y-%m-%d", &parts);
    if (rest == NULL || (*rest != 'T' && *rest != ' ' && *rest != '\0')) {
        return false;
    }
    if (*rest != '\0') {
        const char *time = rest + 1;
        rest = strptime(time, "%H:%M:%S", &parts);
        if (rest == NULL && (rest = strptime(time, "%H:%M", &parts)) == NULL) {
            return false;
        }
        if (*rest == '.') { /* fractions of a second */
            for (rest++; isdigit((unsigned char)*rest); rest++) {
            }
        }
    }
    int64_t seconds = 0;
    if (!zone_parse(rest, &parts, &seconds) || seconds < 0) {
        return false;
    }
    *ret_ms = seconds * 1000;
    return true;
}

bool hp_cli_signal_parse(const char *text, unsigned *ret_signal)
{
    uint64_t number = 0;
    if (hp_parse_u64(hp_str_of(text), &number, NULL) == HP_OK) {
        *ret_signal = (unsigned)number;
        return number >= 1 && number <= 64;
    }
    const char *name = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;
    for (int i = 1; i < 32; i++) {
        const char *known = sigabbrev_np(i);
        if (known != NULL && strcasecmp(known, name) == 0) {
            *ret_signal = (unsigned)i;
            return true;
        }
    }
    return false;
}

const char *hp_cli_signal_name(unsigned signal_number, char out[32])
{
    const char *known = signal_number < 32 ? sigabbrev_np((int)signal_number) : NULL;
    if (known != NULL) {
        (void)snprintf(out, 32, "SIG%s", known);
    } else {
        (void)snprintf(out, 32, "signal %u", signal_number);
    }
    return out;
}
