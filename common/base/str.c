/* SPDX-License-Identifier: BSD-2-Clause */
/* Copies, words alike, names. */
#include "common/base/str.h"

#include <string.h>

#include "common/base/assert.h"

#define EDIT_WORD_BYTES_MAX 63u

size_t hp_strlcpy(char *out, const char *from, size_t out_size)
{
    HP_ASSERT(out_size > 0);
    size_t size = strlen(from);
    size_t copied = size < out_size ? size : out_size - 1;
    memcpy(out, from, copied);
    out[copied] = '\0';
    return size;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* True if the last two letters of a[0..i) and b[0..j) are swapped neighbours. */
static bool is_swap(struct hp_str a, uint32_t i, struct hp_str b, uint32_t j)
{
    return i > 1 && j > 1 && lower(a.data[i - 1]) == lower(b.data[j - 2]) &&
           lower(a.data[i - 2]) == lower(b.data[j - 1]);
}

uint32_t hp_edit_distance(struct hp_str a, struct hp_str b, uint32_t limit)
{
    HP_ASSERT(limit < UINT32_MAX);
    if (a.size > EDIT_WORD_BYTES_MAX || b.size > EDIT_WORD_BYTES_MAX) {
        return limit + 1;
    }
    /* Three rows of the table of distances between starts of a and starts of b. */
    uint32_t rows[3][EDIT_WORD_BYTES_MAX + 1];
    for (uint32_t j = 0; j <= b.size; j++) {
        rows[0][j] = j;
    }
    for (uint32_t i = 1; i <= a.size; i++) {
        uint32_t *row = rows[i % 3];
        const uint32_t *above = rows[(i + 2) % 3];
        const uint32_t *above_2 = rows[(i + 1) % 3];
        row[0] = i;
        for (uint32_t j = 1; j <= b.size; j++) {
            uint32_t replaced = above[j - 1] + (lower(a.data[i - 1]) != lower(b.data[j - 1]));
            row[j] = HP_MIN(replaced, HP_MIN(above[j], row[j - 1]) + 1);
            if (is_swap(a, i, b, j)) {
                row[j] = HP_MIN(row[j], above_2[j - 2] + 1);
            }
        }
    }
    uint32_t distance = rows[a.size % 3][b.size];
    return HP_MIN(distance, limit + 1);
}

const char *hp_suggest(struct hp_str word, const char *const *words, size_t word_count)
{
    const char *best = NULL;
    uint32_t best_distance = UINT32_MAX;
    for (size_t i = 0; i < word_count; i++) {
        struct hp_str candidate = hp_str_of(words[i]);
        uint32_t longer = HP_MAX(word.size, candidate.size);
        uint32_t limit = longer < 3 ? 0 : HP_MAX(longer / 3, 1);
        uint32_t distance = hp_edit_distance(word, candidate, limit);
        if (distance <= limit && distance < best_distance) {
            best = words[i];
            best_distance = distance;
        }
    }
    return best;
}

/* Bytes and smallest code point of the sequence that `lead` opens; false if it opens none. */
static bool utf8_lead(uint8_t lead, uint32_t *ret_size, uint32_t *ret_bits, uint32_t *ret_least)
{
    if (lead < 0x80) {
        *ret_size = 1;
        *ret_bits = lead;
        *ret_least = 0;
    } else if (lead >= 0xc2 && lead <= 0xdf) {
        *ret_size = 2;
        *ret_bits = lead & 0x1fu;
        *ret_least = 0x80;
    } else if ((lead & 0xf0) == 0xe0) {
        *ret_size = 3;
        *ret_bits = lead & 0x0fu;
        *ret_least = 0x800;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        *ret_size = 4;
        *ret_bits = lead & 0x07u;
        *ret_least = 0x10000;
    } else {
        return false;
    }
    return true;
}

/* Decodes one code point; 0 bytes if it is malformed. */
static uint32_t utf8_take(const uint8_t *at, uint32_t left, uint32_t *ret_point)
{
    uint32_t size = 0;
    uint32_t point = 0;
    uint32_t least = 0;
    if (!utf8_lead(at[0], &size, &point, &least) || size > left) {
        return 0;
    }
    for (uint32_t i = 1; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
        point = point << 6 | (at[i] & 0x3fu);
    }
    bool is_surrogate = point >= 0xd800 && point <= 0xdfff;
    if (point < least || point > 0x10ffff || is_surrogate) {
        return 0;
    }
    *ret_point = point;
    return size;
}

static bool check_text(struct hp_str text, bool allow_control)
{
    const uint8_t *at = (const uint8_t *)text.data;
    uint32_t left = text.size;
    while (left > 0) {
        uint32_t point = 0;
        uint32_t size = utf8_take(at, left, &point);
        bool is_control = point < 0x20 || (point >= 0x7f && point < 0xa0);
        if (size == 0 || (is_control && !allow_control)) {
            return false;
        }
        at += size;
        left -= size;
    }
    return true;
}

bool hp_utf8_valid(struct hp_str text)
{
    return check_text(text, true);
}

bool hp_name_valid(struct hp_str name)
{
    return name.size > 0 && name.size <= HP_NAME_BYTES_MAX && check_text(name, false);
}

char *hp_hex(char *out, const void *data, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *at = data;
    for (size_t i = 0; i < size; i++) {
        out[2 * i] = digits[at[i] >> 4];
        out[2 * i + 1] = digits[at[i] & 15];
    }
    out[2 * size] = '\0';
    return out;
}
