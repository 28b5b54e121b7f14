/* SPDX-License-Identifier: BSD-2-Clause */
/* Parsers and formatters of numbers, durations and sizes. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/base/assert.h"
#include "common/base/str.h"

/* How much of a wrong text an error repeats. */
#define SHOWN_BYTES_MAX 60u

struct unit {
    const char *name;
    uint64_t factor;
};

/* From large to small: parts of a duration must come in this order. */
static const struct unit duration_units[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1},
};

static const struct unit size_units[] = {
    {"T", UINT64_C(1) << 40},
    {"G", UINT64_C(1) << 30},
    {"M", UINT64_C(1) << 20},
    {"K", 1024},
    {"", 1},
};

static struct hp_str shown(struct hp_str text)
{
    return (struct hp_str){.data = text.data, .size = HP_MIN(text.size, SHOWN_BYTES_MAX)};
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Takes leading digits off `text`. HP_ERR_INVALID: there are none. */
static enum hp_err take_digits(struct hp_str *text, uint64_t *ret)
{
    uint64_t value = 0;
    uint32_t i = 0;
    while (i < text->size && is_digit(text->data[i])) {
        if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, (uint64_t)(text->data[i] - '0'), &value)) {
            return HP_ERR_RANGE;
        }
        i++;
    }
    if (i == 0) {
        return HP_ERR_INVALID;
    }
    text->data += i;
    text->size -= i;
    *ret = value;
    return HP_OK;
}

enum hp_err hp_parse_u64(struct hp_str text, uint64_t *ret, struct hp_error *reterr)
{
    struct hp_str rest = text;
    uint64_t value = 0;
    enum hp_err err = take_digits(&rest, &value);
    if (err == HP_ERR_RANGE) {
        return hp_error_set(reterr, err, "number '%" HP_STR_FMT "' is too large",
                            HP_STR_ARG(shown(text)));
    }
    if (err != HP_OK || rest.size > 0) {
        return hp_error_set(reterr, HP_ERR_INVALID,
                            "'%" HP_STR_FMT "' is not a number (digits only)",
                            HP_STR_ARG(shown(text)));
    }
    *ret = value;
    return HP_OK;
}

enum hp_err hp_parse_i64(struct hp_str text, int64_t *ret, struct hp_error *reterr)
{
    struct hp_str digits = text;
    bool is_negative = text.size > 0 && text.data[0] == '-';
    if (is_negative || (text.size > 0 && text.data[0] == '+')) {
        digits.data++;
        digits.size--;
    }
    uint64_t value = 0;
    enum hp_err err = hp_parse_u64(digits, &value, NULL);
    if (err == HP_ERR_INVALID) {
        return hp_error_set(reterr, err, "'%" HP_STR_FMT "' is not a number",
                            HP_STR_ARG(shown(text)));
    }
    if (err == HP_ERR_RANGE || value > (uint64_t)INT64_MAX + (is_negative ? 1 : 0)) {
        return hp_error_set(reterr, HP_ERR_RANGE, "number '%" HP_STR_FMT "' is out of range",
                            HP_STR_ARG(shown(text)));
    }
    *ret = is_negative ? (int64_t)(0 - value) : (int64_t)value;
    return HP_OK;
}

enum hp_err hp_parse_bool(struct hp_str text, bool *ret, struct hp_error *reterr)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    for (size_t i = 0; i < HP_COUNT_OF(words); i++) {
        if (strlen(words[i]) == text.size && strncasecmp(words[i], text.data, text.size) == 0) {
            *ret = i % 2 == 1;
            return HP_OK;
        }
    }
    return hp_error_set(reterr, HP_ERR_INVALID, "'%" HP_STR_FMT "' is neither yes nor no",
                        HP_STR_ARG(shown(text)));
}

/*
 * Takes ".5" off `text` and gives it in units of `scale` (a fraction of 1, rounded down); at most
 * nine digits count.
 */
static enum hp_err take_fraction(struct hp_str *text, uint64_t *ret_numer, uint64_t *ret_denom)
{
    *ret_numer = 0;
    *ret_denom = 1;
    if (text->size == 0 || text->data[0] != '.') {
        return HP_OK;
    }
    text->data++;
    text->size--;
    uint32_t digit_count = 0;
    while (text->size > 0 && is_digit(text->data[0])) {
        if (digit_count < 9) {
            *ret_numer = *ret_numer * 10 + (uint64_t)(text->data[0] - '0');
            *ret_denom *= 10;
        }
        digit_count++;
        text->data++;
        text->size--;
    }
    return digit_count > 0 ? HP_OK : HP_ERR_INVALID;
}

/* Takes the letters that follow off `text`; may be none. */
static struct hp_str take_letters(struct hp_str *text)
{
    uint32_t i = 0;
    while (i < text->size && !is_digit(text->data[i])) {
        i++;
    }
    struct hp_str letters = {.data = text->data, .size = i};
    text->data += i;
    text->size -= i;
    return letters;
}

/* value * factor + fraction, or HP_ERR_RANGE. */
static enum hp_err scale(uint64_t value, uint64_t numer, uint64_t denom, uint64_t factor,
                         uint64_t *ret)
{
    __extension__ unsigned __int128 part = (unsigned __int128)numer * factor / denom;
    if (__builtin_mul_overflow(value, factor, &value) ||
        __builtin_add_overflow(value, (uint64_t)part, &value)) {
        return HP_ERR_RANGE;
    }
    *ret = value;
    return HP_OK;
}

/* One "<number><unit>" of a duration; *unit_index rises from part to part. */
static enum hp_err take_duration_part(struct hp_str *rest, size_t *unit_index, uint64_t *ret_ms)
{
    uint64_t value = 0;
    uint64_t numer = 0;
    uint64_t denom = 1;
    enum hp_err err = take_digits(rest, &value);
    if (err == HP_OK) {
        err = take_fraction(rest, &numer, &denom);
    }
    if (err != HP_OK) {
        return err;
    }
    struct hp_str name = take_letters(rest);
    for (size_t i = *unit_index; i < HP_COUNT_OF(duration_units); i++) {
        if (hp_str_eq_c(name, duration_units[i].name)) {
            *unit_index = i + 1;
            return scale(value, numer, denom, duration_units[i].factor, ret_ms);
        }
    }
    return HP_ERR_INVALID;
}

enum hp_err hp_parse_duration_ms(struct hp_str text, uint64_t *ret_ms, struct hp_error *reterr)
{
    if (hp_str_eq_c(text, "0")) {
        *ret_ms = 0;
        return HP_OK;
    }
    struct hp_str rest = text;
    size_t unit_index = 0;
    uint64_t total_ms = 0;
    enum hp_err err = text.size > 0 ? HP_OK : HP_ERR_INVALID;
    while (err == HP_OK && rest.size > 0) {
        uint64_t part_ms = 0;
        err = take_duration_part(&rest, &unit_index, &part_ms);
        if (err == HP_OK && __builtin_add_overflow(total_ms, part_ms, &total_ms)) {
            err = HP_ERR_RANGE;
        }
    }
    if (err == HP_ERR_RANGE) {
        return hp_error_set(reterr, err, "duration '%" HP_STR_FMT "' is too large",
                            HP_STR_ARG(shown(text)));
    }
    if (err != HP_OK) {
        return hp_error_set(reterr, err,
                            "'%" HP_STR_FMT "' is not a duration (a number with ms, s, m, h or d)",
                            HP_STR_ARG(shown(text)));
    }
    *ret_ms = total_ms;
    return HP_OK;
}

/* The factor of "", "K", "k", "KB", "KiB" and so on; 0 if there is no such unit. */
static uint64_t size_factor(struct hp_str name)
{
    struct hp_str letter = name;
    if (name.size > 0 && (name.data[name.size - 1] == 'B' || name.data[name.size - 1] == 'b')) {
        letter.size--;
        if (letter.size == 2 && letter.data[1] == 'i') {
            letter.size--;
        }
    }
    for (size_t i = 0; i < HP_COUNT_OF(size_units); i++) {
        if (strlen(size_units[i].name) == letter.size &&
            (letter.size == 0 || strncasecmp(size_units[i].name, letter.data, letter.size) == 0)) {
            return size_units[i].factor;
        }
    }
    return 0;
}

enum hp_err hp_parse_size_bytes(struct hp_str text, uint64_t *ret_bytes, struct hp_error *reterr)
{
    struct hp_str rest = text;
    uint64_t value = 0;
    uint64_t numer = 0;
    uint64_t denom = 1;
    enum hp_err err = take_digits(&rest, &value);
    if (err == HP_OK) {
        err = take_fraction(&rest, &numer, &denom);
    }
    if (err == HP_OK) {
        uint64_t factor = size_factor(take_letters(&rest));
        bool is_whole = factor > 1 || denom == 1; /* there is no half byte */
        err = factor > 0 && is_whole && rest.size == 0 ? scale(value, numer, denom, factor, &value)
                                                       : HP_ERR_INVALID;
    }
    if (err == HP_ERR_RANGE) {
        return hp_error_set(reterr, err, "size '%" HP_STR_FMT "' is too large",
                            HP_STR_ARG(shown(text)));
    }
    if (err != HP_OK) {
        return hp_error_set(
            reterr, err, "'%" HP_STR_FMT "' is not a size (bytes, or a number with K, M, G or T)",
            HP_STR_ARG(shown(text)));
    }
    *ret_bytes = value;
    return HP_OK;
}

char *hp_format_duration(char *out, size_t out_size, uint64_t duration_ms)
{
    HP_ASSERT(out_size > 0);
    out[0] = '\0';
    if (duration_ms == 0) {
        (void)hp_strlcpy(out, "0s",
                         out_size); /* cut if the caller gave less than HP_FORMAT_BYTES */
        return out;
    }
    size_t used = 0;
    for (size_t i = 0; i < HP_COUNT_OF(duration_units) && used < out_size; i++) {
        uint64_t part = duration_ms / duration_units[i].factor;
        duration_ms %= duration_units[i].factor;
        if (part > 0) {
            int size = snprintf(out + used, out_size - used, "%llu%s", (unsigned long long)part,
                                duration_units[i].name);
            used += size > 0 ? (size_t)size : 0;
        }
    }
    return out;
}

char *hp_format_size(char *out, size_t out_size, uint64_t size_bytes)
{
    size_t i = HP_COUNT_OF(size_units) - 1;
    if (size_bytes > 0) {
        i = 0;
        while (size_bytes % size_units[i].factor != 0) {
            i++;
        }
    }
    (void)snprintf(out, out_size, "%llu%s", (unsigned long long)(size_bytes / size_units[i].factor),
                   size_units[i].name); /* cut if the caller gave less than HP_FORMAT_BYTES */
    return out;
}

char *hp_format_size_human(char *out, size_t out_size, uint64_t size_bytes)
{
    for (size_t i = 0; i + 1 < HP_COUNT_OF(size_units); i++) {
        uint64_t factor = size_units[i].factor;
        if (size_bytes >= factor) {
            uint64_t rest = size_bytes % factor;
            uint64_t tenths = size_bytes / factor * 10 + (rest * 10 + factor / 2) / factor;
            (void)snprintf(out, out_size, "%llu.%llu %siB", (unsigned long long)(tenths / 10),
                           (unsigned long long)(tenths % 10), size_units[i].name);
            return out;
        }
    }
    (void)snprintf(out, out_size, "%llu B", (unsigned long long)size_bytes);
    return out;
}
