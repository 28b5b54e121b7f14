/* SPDX-License-Identifier: BSD-2-Clause */
/* --halt WHEN,WHY of map. */
#include "cli/halt.h"

#include "common/base/macro.h"
#include "common/base/str.h"

#include <string.h>

#define PERCENT_COUNT_MIN 3u

bool hp_cli_halt_parse(const char *text, struct hp_cli_halt *halt)
{
    static const char *const whens[] = {"soon,", "now,"};
    static const char *const whys[] = {"fail=", "success=", "done="};
    *halt = (struct hp_cli_halt){0};
    if (strcmp(text, "never") == 0) {
        return true;
    }
    for (size_t i = 0; i < HP_COUNT_OF(whens); i++) {
        if (halt->when == HP_CLI_HALT_NEVER && strncmp(text, whens[i], strlen(whens[i])) == 0) {
            halt->when = i == 0 ? HP_CLI_HALT_SOON : HP_CLI_HALT_NOW;
            text += strlen(whens[i]);
        }
    }
    if (halt->when == HP_CLI_HALT_NEVER) {
        return false;
    }
    for (size_t i = 0; i < HP_COUNT_OF(whys); i++) {
        size_t size = strlen(whys[i]);
        if (strncmp(text, whys[i], size) == 0) {
            size_t digits = strlen(text + size);
            halt->why = (enum hp_cli_halt_why)i;
            halt->is_percent = digits > 0 && text[size + digits - 1] == '%';
            digits -= halt->is_percent;
            return hp_parse_u64(hp_str_make(text + size, digits), &halt->limit, NULL) == HP_OK &&
                   halt->limit > 0 && (!halt->is_percent || halt->limit <= 100);
        }
    }
    return false;
}

bool hp_cli_halt_reached(const struct hp_cli_halt *halt, uint64_t ended, uint64_t failed,
                         uint64_t total)
{
    uint64_t count = halt->why == HP_CLI_HALT_FAIL      ? failed
                     : halt->why == HP_CLI_HALT_SUCCESS ? ended - failed
                                                        : ended;
    if (halt->when == HP_CLI_HALT_NEVER) {
        return false;
    }
    if (!halt->is_percent) {
        return count >= halt->limit;
    }
    uint64_t of = total > 0 ? total : ended;
    return count >= PERCENT_COUNT_MIN && of > 0 && count * 100 >= halt->limit * of;
}
