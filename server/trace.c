/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The core prints "key=value" text without thinking of quotes, as it knows nothing of logs. Here it
 * is cut into pairs again, so that names with odd characters cannot break a line.
 */
#include "server/trace.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/sys/log.h"

#define PAIR_COUNT_MAX 12
#define KEY_BYTES 32

static size_t key_size(const char *text)
{
    return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_");
}

static bool is_pair(const char *text)
{
    size_t size = key_size(text);
    return size > 0 && size < KEY_BYTES && text[size] == '=';
}

/* End of a value: the blank before the next pair, or the end of the text. */
static const char *value_end(const char *text)
{
    const char *end = text;
    while (*end != '\0' && !(*end == ' ' && is_pair(end + 1))) {
        end++;
    }
    return end;
}

static enum hp_log_level level_of(enum hp_trace_level level)
{
    switch (level) {
    case HP_TRACE_DEBUG:
        return HP_LOG_DEBUG;
    case HP_TRACE_INFO:
        return HP_LOG_INFO;
    case HP_TRACE_WARN:
        return HP_LOG_WARN;
    case HP_TRACE_ERROR:
        return HP_LOG_ERROR;
    }
    HP_UNREACHABLE();
}

void hp_trace_log(enum hp_trace_level level, const char *event, const char *text)
{
    if (!hp_log_is_on(level_of(level))) {
        return;
    }
    char keys[PAIR_COUNT_MAX][KEY_BYTES];
    struct hp_log_kv pairs[PAIR_COUNT_MAX + 2];
    size_t count = 0;
    while (count < PAIR_COUNT_MAX && is_pair(text)) {
        size_t size = key_size(text);
        memcpy(keys[count], text, size);
        keys[count][size] = '\0';
        const char *value = text + size + 1;
        const char *end = value_end(value);
        pairs[count] = HP_KV_STRN(keys[count], hp_str_make(value, (size_t)(end - value)));
        count++;
        text = *end == ' ' ? end + 1 : end;
    }
    if (*text != '\0') {
        pairs[count++] = HP_KV_STR("text", text);
    }
    pairs[count] = HP_KV_END;
    hp_log_write(level_of(level), event, pairs);
}
