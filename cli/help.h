/* SPDX-License-Identifier: BSD-2-Clause */
/* Texts made from the table: --help, manual pages, docs/cli.md, completion. */
#ifndef HP_CLI_HELP_H
#define HP_CLI_HELP_H

#include "cli/cli.h"

/* Prints the help of everything, of a noun, a verb or a topic. */
void hp_cli_help_overview(void);
void hp_cli_help_noun(const struct hp_cli_noun *noun);
void hp_cli_help_verb(const struct hp_cli_verb *verb);
void hp_cli_help_topic(const struct hp_cli_topic *topic);

/* "-Q, --queue QUEUE", with `open` and `close` around each part; out has 96 bytes. */
char *hp_cli_flag_words(const struct hp_cli_flag *flag, const char *open, const char *close,
                        char out[96]);

/* man.c: prints scdoc source of a page ("hostpool", "hostpool-run"); false: no such page. */
bool hp_cli_man(const char *page);
/* man.c: prints docs/cli.md. */
void hp_cli_markdown(void);

/* complete.c: prints what the last of the words could become, one a line. */
int hp_cli_complete(struct hp_cli *cli, const char *const *words, size_t word_count);

#endif
