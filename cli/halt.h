/* SPDX-License-Identifier: BSD-2-Clause */
/* --halt WHEN,WHY of map. Pure. */
#ifndef HP_CLI_HALT_H
#define HP_CLI_HALT_H

#include <stdbool.h>
#include <stdint.h>

enum hp_cli_halt_when { HP_CLI_HALT_NEVER, HP_CLI_HALT_SOON, HP_CLI_HALT_NOW };
enum hp_cli_halt_why { HP_CLI_HALT_FAIL, HP_CLI_HALT_SUCCESS, HP_CLI_HALT_DONE };

struct hp_cli_halt {
    enum hp_cli_halt_when when;
    enum hp_cli_halt_why why;
    uint64_t limit;
    bool is_percent;
};

/* Parses "never", "now,fail=1", "soon,fail=10%". False: not of that form. */
bool hp_cli_halt_parse(const char *text, struct hp_cli_halt *ret_halt);

/* True if it is reached. total 0: not known, then percents are of those that have ended; percents
 * need at least three. */
bool hp_cli_halt_reached(const struct hp_cli_halt *halt, uint64_t ended, uint64_t failed,
                         uint64_t total);

#endif
