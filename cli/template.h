/* SPDX-License-Identifier: BSD-2-Clause */
/* The command of map with its {} {.} {/} {//} {/.} {#}. Pure. */
#ifndef HP_CLI_TEMPLATE_H
#define HP_CLI_TEMPLATE_H

#include "common/base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hp_cli_template {
    const char **words; /* from hp_cli_alloc; without a replacement "{}" was added at the end */
    size_t count;
    size_t fixed_count; /* words in front that are the same for all inputs: the argv of the tasks */
};

/* Takes the words of a command (count >= 1). If the program itself depends on the input, env(1) is
 * put in front of it, because a task's argv must not be empty. */
void hp_cli_template_init(struct hp_cli_template *made, const char *const *words, size_t count);

/* Appends the words that depend on the input, each ended by a NUL byte: a task's payload. */
void hp_cli_template_payload(const struct hp_cli_template *made, const char *input, uint64_t number,
                             struct hp_buf *buf);

/* Appends the whole command as a shell would take it. */
void hp_cli_template_text(const struct hp_cli_template *made, const char *input, uint64_t number,
                          struct hp_buf *buf);

#endif
