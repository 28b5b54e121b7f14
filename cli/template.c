/* SPDX-License-Identifier: BSD-2-Clause */
/* Replacement strings, as GNU parallel has them. */
#include "cli/template.h"

#include "cli/cli.h"
#include "cli/value.h"

#include <inttypes.h>
#include <string.h>

#define WORD_BYTES_MAX ((size_t)1 << 24)

enum part { INPUT, STEM, BASE, DIR, BASE_STEM, NUMBER, PART_COUNT };

static const char *const marks[PART_COUNT] = {
    [INPUT] = "{}", [STEM] = "{.}",       [BASE] = "{/}",
    [DIR] = "{//}", [BASE_STEM] = "{/.}", [NUMBER] = "{#}"};

/* The mark at the start of text, or PART_COUNT. */
static enum part mark_at(const char *text)
{
    for (int i = 0; i < PART_COUNT; i++) {
        if (strncmp(text, marks[i], strlen(marks[i])) == 0) {
            return (enum part)i;
        }
    }
    return PART_COUNT;
}

static bool has_mark(const char *word)
{
    for (const char *at = strchr(word, '{'); at != NULL; at = strchr(at + 1, '{')) {
        if (mark_at(at) != PART_COUNT) {
            return true;
        }
    }
    return false;
}

void hp_cli_template_init(struct hp_cli_template *made, const char *const *words, size_t count)
{
    bool has_any = false;
    for (size_t i = 0; i < count; i++) {
        has_any |= has_mark(words[i]);
    }
    made->words = hp_cli_alloc_array(count + 4, sizeof(*made->words));
    made->count = 0;
    if (has_mark(words[0])) {
        made->words[made->count++] = "env";
        made->words[made->count++] = "--";
    }
    for (size_t i = 0; i < count; i++) {
        made->words[made->count++] = words[i];
    }
    if (!has_any) {
        made->words[made->count++] = marks[INPUT];
    }
    made->fixed_count = 0;
    while (!has_mark(made->words[made->fixed_count])) {
        made->fixed_count++;
    }
}

/* Where the last component begins. */
static const char *base_of(const char *input)
{
    const char *slash = strrchr(input, '/');
    return slash != NULL ? slash + 1 : input;
}

/* Length of the text up to its extension; a name that begins with its only dot has none. */
static size_t stem_size(const char *text)
{
    const char *base = base_of(text);
    const char *dot = strrchr(base, '.');
    return dot != NULL && dot != base ? (size_t)(dot - text) : strlen(text);
}

static void put_dir(struct hp_buf *buf, const char *input)
{
    const char *base = base_of(input);
    if (base == input) {
        hp_cli_put(buf, ".", 1);
        return;
    }
    size_t size = (size_t)(base - input) - 1;
    hp_cli_put(buf, size > 0 ? input : "/", size > 0 ? size : 1);
}

static void put_part(struct hp_buf *buf, enum part part, const char *input, uint64_t number)
{
    char digits[24];
    const char *base = base_of(input);
    switch (part) {
    case INPUT:
        hp_cli_put(buf, input, strlen(input));
        break;
    case STEM:
        hp_cli_put(buf, input, stem_size(input));
        break;
    case BASE:
        hp_cli_put(buf, base, strlen(base));
        break;
    case DIR:
        put_dir(buf, input);
        break;
    case BASE_STEM:
        hp_cli_put(buf, base, stem_size(base));
        break;
    case NUMBER:
        (void)snprintf(digits, sizeof(digits), "%" PRIu64, number);
        hp_cli_put(buf, digits, strlen(digits));
        break;
    case PART_COUNT:
        break;
    }
}

static void put_word(struct hp_buf *buf, const char *word, const char *input, uint64_t number)
{
    while (*word != '\0') {
        size_t plain = strcspn(word, "{");
        hp_cli_put(buf, word, plain);
        word += plain;
        if (*word == '\0') {
            return;
        }
        enum part part = mark_at(word);
        if (part == PART_COUNT) {
            hp_cli_put(buf, word, 1);
            word++;
        } else {
            put_part(buf, part, input, number);
            word += strlen(marks[part]);
        }
    }
}

void hp_cli_template_payload(const struct hp_cli_template *made, const char *input, uint64_t number,
                             struct hp_buf *buf)
{
    for (size_t i = made->fixed_count; i < made->count; i++) {
        put_word(buf, made->words[i], input, number);
        hp_cli_put(buf, "", 1);
    }
}

void hp_cli_template_text(const struct hp_cli_template *made, const char *input, uint64_t number,
                          struct hp_buf *buf)
{
    struct hp_buf word;
    hp_buf_init(&word, WORD_BYTES_MAX);
    for (size_t i = 0; i < made->count; i++) {
        hp_buf_clear(&word);
        put_word(&word, made->words[i], input, number);
        hp_cli_put(&word, "", 1);
        if (i > 0) {
            hp_cli_put(buf, " ", 1);
        }
        hp_cli_quote(buf, (const char *)word.data);
    }
    hp_buf_deinit(&word);
}
