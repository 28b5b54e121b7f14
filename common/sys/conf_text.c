/* SPDX-License-Identifier: BSD-2-Clause */
/* Texts made from the option table: the example file and the flags of --help. */
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/str.h"
#include "common/sys/conf.h"

#define COLUMN_MAX 80u

/* Appends `text` wrapped to COLUMN_MAX columns, each line behind `prefix`. */
static enum hp_err append_wrapped(struct hp_buf *buf, const char *prefix, const char *text)
{
    size_t column = 0;
    enum hp_err err = HP_OK;
    while (*text != '\0' && err == HP_OK) {
        size_t word = strcspn(text, " ");
        if (column > 0 && column + 1 + word > COLUMN_MAX) {
            err = hp_buf_append_byte(buf, '\n');
            column = 0;
        }
        if (err == HP_OK) {
            err = hp_buf_append_text(buf, column == 0 ? prefix : " ");
        }
        if (err == HP_OK) {
            err = hp_buf_append(buf, text, word);
        }
        column += (column == 0 ? strlen(prefix) : 1) + word;
        text += word;
        text += strspn(text, " ");
    }
    return err == HP_OK ? hp_buf_append_byte(buf, '\n') : err;
}

static const char *type_word(const struct hp_conf_option *option)
{
    if (option->value_name != NULL) {
        return option->value_name;
    }
    switch (option->type) {
    case HP_CONF_STR:
        return "TEXT";
    case HP_CONF_INT:
        return "NUMBER";
    case HP_CONF_BOOL:
        return "yes|no";
    case HP_CONF_DURATION:
        return "DURATION";
    case HP_CONF_SIZE:
        return "SIZE";
    default:
        HP_UNREACHABLE();
    }
}

static const char *number_text(const struct hp_conf_option *option, uint64_t number,
                               char out[HP_FORMAT_BYTES])
{
    if (option->type == HP_CONF_DURATION) {
        return hp_format_duration(out, HP_FORMAT_BYTES, number);
    }
    if (option->type == HP_CONF_SIZE) {
        return hp_format_size(out, HP_FORMAT_BYTES, number);
    }
    (void)snprintf(out, HP_FORMAT_BYTES, "%llu", (unsigned long long)number); /* fits */
    return out;
}

/* "From 1s to 1h." or nothing for text and yes/no. */
static enum hp_err append_bounds(struct hp_buf *buf, const char *prefix,
                                 const struct hp_conf_option *option)
{
    char low[HP_FORMAT_BYTES];
    char high[HP_FORMAT_BYTES];
    if (option->type == HP_CONF_STR || option->type == HP_CONF_BOOL ||
        (option->min == 0 && option->max == 0)) {
        return HP_OK;
    }
    if (option->max == 0) {
        return hp_buf_append_format(buf, "%sAt least %s.\n", prefix,
                                    number_text(option, option->min, low));
    }
    return hp_buf_append_format(buf, "%sFrom %s to %s.\n", prefix,
                                number_text(option, option->min, low),
                                number_text(option, option->max, high));
}

static enum hp_err append_example_row(struct hp_buf *buf, const struct hp_conf_option *option)
{
    const char *value = option->default_text != NULL ? option->default_text : "";
    enum hp_err err = append_wrapped(buf, "# ", option->text);
    if (err == HP_OK) {
        err = append_bounds(buf, "# ", option);
    }
    if (err != HP_OK) {
        return err;
    }
    return hp_buf_append_format(buf,
                                option->type == HP_CONF_STR ? "#%s = \"%s\"\n\n" : "#%s = %s\n\n",
                                option->name, value);
}

enum hp_err hp_conf_example(const struct hp_conf_option *options, size_t option_count,
                            struct hp_buf *buf)
{
    for (size_t i = 0; i < option_count; i++) {
        if (options[i].is_flag_only) {
            continue;
        }
        enum hp_err err = append_example_row(buf, &options[i]);
        if (err != HP_OK) {
            return err;
        }
    }
    return HP_OK;
}

static enum hp_err append_flag_name(struct hp_buf *buf, const struct hp_conf_option *option)
{
    enum hp_err err = hp_buf_append_text(buf, "  --");
    for (const char *at = option->name; *at != '\0' && err == HP_OK; at++) {
        err = hp_buf_append_byte(buf, *at == '_' ? '-' : (uint8_t)*at);
    }
    if (err != HP_OK || option->type == HP_CONF_BOOL) {
        return err;
    }
    return hp_buf_append_format(buf, " %s", type_word(option));
}

static enum hp_err append_help_row(struct hp_buf *buf, const struct hp_conf_option *option)
{
    enum hp_err err = append_flag_name(buf, option);
    bool has_default = option->default_text != NULL && option->default_text[0] != '\0' &&
                       !(option->is_flag_only && option->type == HP_CONF_BOOL);
    if (err == HP_OK && has_default) {
        err = hp_buf_append_format(buf, " (default %s)", option->default_text);
    }
    if (err == HP_OK) {
        err = hp_buf_append_byte(buf, '\n');
    }
    if (err == HP_OK) {
        err = append_wrapped(buf, "        ", option->text);
    }
    return err;
}

enum hp_err hp_conf_help(const struct hp_conf_option *options, size_t option_count,
                         struct hp_buf *buf)
{
    for (size_t i = 0; i < option_count; i++) {
        enum hp_err err = append_help_row(buf, &options[i]);
        if (err != HP_OK) {
            return err;
        }
    }
    return HP_OK;
}
