/* SPDX-License-Identifier: BSD-2-Clause */
/* Names and texts of error codes, generated from the one list. */
#include "common/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct err_row {
    const char *name;
    const char *text;
};

static const struct err_row err_rows[HP_ERR_COUNT] = {
#define ERR_ROW(enumerator, row_name, row_text) [enumerator] = {.name = row_name, .text = row_text},
    HP_ERR_LIST(ERR_ROW)
#undef ERR_ROW
};

const char *hp_err_name(enum hp_err err)
{
    return (unsigned)err < HP_ERR_COUNT ? err_rows[err].name : "UNKNOWN";
}

const char *hp_err_text(enum hp_err err)
{
    return (unsigned)err < HP_ERR_COUNT ? err_rows[err].text : "unknown error";
}

enum hp_err hp_error_set(struct hp_error *error, enum hp_err code, const char *format, ...)
{
    if (error == NULL) {
        return code;
    }
    char text[HP_ERROR_TEXT_BYTES]; /* apart, because an argument may be error->text */
    if (format == NULL) {
        (void)snprintf(text, sizeof(text), "%s", hp_err_text(code)); /* cut is fine */
    } else {
        va_list args;
        va_start(args, format);
        if (vsnprintf(text, sizeof(text), format, args) < 0) {
            text[0] = '\0';
        }
        va_end(args);
    }
    error->code = code;
    memcpy(error->text, text, sizeof(text));
    return code;
}
