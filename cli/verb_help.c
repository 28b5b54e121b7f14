/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool help, and the generators that hide behind it. */
#include "cli/help.h"

#include "common/base/str.h"

#include <string.h>

static int unknown_topic(const char *word)
{
    const char *names[96];
    size_t count = 0;
    for (size_t i = 0; i < hp_cli_verb_count; i++) {
        if (hp_cli_verbs[i].noun == NULL) {
            names[count++] = hp_cli_verbs[i].name;
        }
    }
    for (size_t i = 0; i < hp_cli_noun_count; i++) {
        names[count++] = hp_cli_nouns[i].name;
    }
    for (size_t i = 0; i < hp_cli_topic_count; i++) {
        names[count++] = hp_cli_topics[i].name;
    }
    const char *near = hp_suggest(hp_str_of(word), names, count);
    if (near != NULL) {
        hp_cli_error("no help on \"%s\". Did you mean \"%s\"?   (hostpool help)", word, near);
    } else {
        hp_cli_error("no help on \"%s\".   (hostpool help)", word);
    }
    return HP_CLI_USAGE;
}

static int help_on(const char *word, const char *second)
{
    for (size_t i = 0; i < hp_cli_noun_count; i++) {
        if (strcmp(hp_cli_nouns[i].name, word) == 0 && second == NULL) {
            hp_cli_help_noun(&hp_cli_nouns[i]);
            return HP_CLI_OK;
        }
    }
    for (size_t i = 0; i < hp_cli_topic_count; i++) {
        if (strcmp(hp_cli_topics[i].name, word) == 0 && second == NULL) {
            hp_cli_help_topic(&hp_cli_topics[i]);
            return HP_CLI_OK;
        }
    }
    const struct hp_cli_verb *verb =
        second != NULL ? hp_cli_verb_find(word, second) : hp_cli_verb_find(NULL, word);
    if (verb == NULL) {
        return unknown_topic(second != NULL ? hp_cli_printf("%s %s", word, second) : word);
    }
    hp_cli_help_verb(verb);
    return HP_CLI_OK;
}

int hp_cli_help(struct hp_cli *cli)
{
    const struct hp_cli_args *args = &cli->args;
    if (hp_cli_has(cli, HP_CLI_F_COMPLETE)) {
        return hp_cli_complete(cli, args->operands, args->operand_count);
    }
    if (hp_cli_has(cli, HP_CLI_F_MARKDOWN)) {
        hp_cli_markdown();
        return HP_CLI_OK;
    }
    if (hp_cli_has(cli, HP_CLI_F_MAN)) {
        const char *page = hp_cli_text(cli, HP_CLI_F_MAN, "");
        return hp_cli_man(page) ? HP_CLI_OK : unknown_topic(page);
    }
    if (args->operand_count == 0) {
        hp_cli_help_overview();
        return HP_CLI_OK;
    }
    /* "queue ls" may come as one word, from `hostpool queue ls --help`. */
    const char *first = args->operands[0];
    const char *second = args->operand_count > 1 ? args->operands[1] : NULL;
    const char *gap = second == NULL ? strchr(first, ' ') : NULL;
    if (gap != NULL) {
        second = gap + 1;
        first = hp_cli_copy(first, (size_t)(gap - first));
    }
    return help_on(first, second);
}
