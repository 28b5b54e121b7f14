/* SPDX-License-Identifier: BSD-2-Clause */
/* Values of functions (MessagePack) as people write and read them (JSON), and commands as text.
 * Pure. */
#ifndef HP_CLI_VALUE_H
#define HP_CLI_VALUE_H

#include "common/base/buf.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * Appends the MessagePack of a JSON value. Strings that are exactly "{}" become `input` (if it is
 * not NULL): a JSON value where it is one, else a string.
 */
void hp_cli_value_put(struct hp_buf *buf, const json_t *value, const char *input);

/* The JSON value of MessagePack bytes, or NULL if they are not exactly one value. New reference. */
json_t *hp_cli_value_json(const void *data, size_t size);

/* The same as compact text; bytes that are no MessagePack are escaped. From hp_cli_alloc. */
const char *hp_cli_value_text(const void *data, size_t size);

/* Words as a shell would take them: quoted where needed. From hp_cli_alloc. */
const char *hp_cli_command_text(const char *const *words, size_t count);
/* Appends one such word. */
void hp_cli_quote(struct hp_buf *buf, const char *word);

/* Appends; out of memory ends the program. */
void hp_cli_put(struct hp_buf *buf, const void *data, size_t size);

#endif
