/* SPDX-License-Identifier: BSD-2-Clause */
/* Manual pages (scdoc source) and docs/cli.md, from the table. */
#include "cli/help.h"

#include <ctype.h>
#include <string.h>

/* How text is written: as scdoc or as Markdown. */
enum style { SCDOC, MARKDOWN };

static void put_escaped(enum style style, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        const char *special = style == SCDOC ? "\\*_#[]|" : "\\*_<>|";
        if (strchr(special, text[i]) != NULL && text[i] != '\0') {
            (void)putchar('\\');
        }
        (void)putchar(text[i]);
    }
}

static void put(enum style style, const char *text)
{
    put_escaped(style, text, strlen(text));
}

/* Paragraphs; runs of indented lines become literal blocks. */
static void put_text(enum style style, const char *text)
{
    bool is_literal = false;
    while (*text != '\0') {
        size_t size = strcspn(text, "\n");
        bool is_wanted = *text == ' ';
        if (is_wanted != is_literal) {
            (void)printf("```\n");
            is_literal = is_wanted;
        }
        if (is_literal) {
            (void)printf("%.*s\n", (int)size, text);
        } else {
            (void)printf("%s", *text == '-' ? "\\" : ""); /* else it were a list */
            put_escaped(style, text, size);
            (void)putchar('\n');
        }
        text += size;
        text += *text == '\n';
    }
    (void)printf("%s\n", is_literal ? "```\n" : "");
}

static void put_group(enum style style, const struct hp_cli_group *group)
{
    bool is_titled = false;
    for (const enum hp_cli_flag_id *id = group->ids; *id != HP_CLI_FLAG_COUNT; id++) {
        const struct hp_cli_flag *flag = &hp_cli_flags[*id];
        char words[96];
        if (flag->is_hidden) {
            continue;
        }
        if (!is_titled) {
            (void)printf(style == SCDOC ? "## %s\n\n" : "**%s**\n\n", group->title);
            is_titled = true;
        }
        if (style == SCDOC) {
            (void)printf("%s\n\t", hp_cli_flag_words(flag, "*", "*", words));
            put(style, flag->text);
            (void)printf("\n\n");
        } else {
            (void)printf("- `%s`: ", hp_cli_flag_words(flag, "", "", words));
            put(style, flag->text);
            (void)printf("\n");
        }
    }
    if (is_titled && style == MARKDOWN) {
        (void)printf("\n");
    }
}

static void put_flags(enum style style, const struct hp_cli_verb *verb)
{
    for (size_t i = 0; i < HP_CLI_GROUPS_MAX && verb->groups[i] != NULL; i++) {
        put_group(style, verb->groups[i]);
    }
}

static void put_examples(const struct hp_cli_verb *verb)
{
    (void)printf("```\n");
    for (size_t i = 0; i < HP_CLI_EXAMPLES_MAX && verb->examples[i] != NULL; i++) {
        (void)printf("%s\n", verb->examples[i]);
    }
    (void)printf("```\n\n");
}

static const struct hp_cli_topic *topic(const char *name)
{
    for (size_t i = 0; i < hp_cli_topic_count; i++) {
        if (strcmp(hp_cli_topics[i].name, name) == 0) {
            return &hp_cli_topics[i];
        }
    }
    return NULL;
}

static void put_tail(void)
{
    (void)printf("# EXIT STATUS\n\n");
    put_text(SCDOC, topic("exit-codes")->text);
    (void)printf("# ENVIRONMENT\n\n");
    put_text(SCDOC, topic("environment")->text);
}

static void put_head(const char *page, const char *summary)
{
    (void)printf("%s(1)\n\n# NAME\n\n%s - ", page, page);
    put(SCDOC, summary);
    (void)printf("\n\n# SYNOPSIS\n\n");
}

static void man_verb(const struct hp_cli_verb *verb)
{
    char name[HP_CLI_VERB_BYTES];
    put_head(hp_cli_printf("hostpool-%s", hp_cli_verb_name(verb, '-', name)), verb->summary);
    (void)printf("*hostpool %s* \\[OPTION\\]... ", hp_cli_verb_name(verb, ' ', name));
    put(SCDOC, verb->operands);
    (void)printf("\n\n# DESCRIPTION\n\n");
    put_text(SCDOC, verb->text);
    (void)printf("# OPTIONS\n\n");
    put_flags(SCDOC, verb);
    put_group(SCDOC, &hp_cli_group_global);
    if (verb->examples[0] != NULL) {
        (void)printf("# EXAMPLES\n\n");
        put_examples(verb);
    }
    put_tail();
    (void)printf("# SEE ALSO\n\n*hostpool*(1), *hostpoold*(8), *hostpool-worker*(8)\n");
}

static void put_verb_list(const char *noun)
{
    for (size_t i = 0; i < hp_cli_verb_count; i++) {
        const struct hp_cli_verb *verb = &hp_cli_verbs[i];
        char name[HP_CLI_VERB_BYTES];
        bool is_wanted =
            noun == NULL ? verb->noun == NULL : verb->noun != NULL && strcmp(verb->noun, noun) == 0;
        if (is_wanted && !verb->is_hidden) {
            (void)printf("*%s*\n\t", hp_cli_verb_name(verb, ' ', name));
            put(SCDOC, verb->summary);
            (void)printf(", see *hostpool-%s*(1).\n\n", hp_cli_verb_name(verb, '-', name));
        }
    }
}

static void man_overview(void)
{
    put_head("hostpool", "a durable process pool over many hosts");
    (void)printf("*hostpool* VERB \\[OPTION\\]... \\[OPERAND\\]...\n\n# DESCRIPTION\n\n");
    put(SCDOC, "hostpool submits tasks (commands, or C functions of a module) to a broker, "
               "hostpoold(8), which keeps them on disk and gives them to workers, "
               "hostpool-worker(8), on many hosts. To try it out: hostpool dev.");
    (void)printf("\n\n# VERBS\n\n");
    put_verb_list(NULL);
    for (size_t i = 0; i < hp_cli_noun_count; i++) {
        put_verb_list(hp_cli_nouns[i].name);
    }
    (void)printf("# OPTIONS\n\n");
    put_group(SCDOC, &hp_cli_group_global);
    for (size_t i = 0; i < hp_cli_topic_count; i++) {
        const struct hp_cli_topic *at = &hp_cli_topics[i];
        if (at != topic("exit-codes") && at != topic("environment")) {
            (void)printf("# ");
            for (const char *letter = at->name; *letter != '\0'; letter++) {
                (void)putchar(toupper((unsigned char)*letter));
            }
            (void)printf("\n\n");
            put_text(SCDOC, at->text);
        }
    }
    put_tail();
    (void)printf("# SEE ALSO\n\n*hostpoold*(8), *hostpool-worker*(8)\n");
}

bool hp_cli_man(const char *page)
{
    if (strcmp(page, "hostpool") == 0) {
        man_overview();
        return true;
    }
    for (size_t i = 0; i < hp_cli_verb_count; i++) {
        char name[HP_CLI_VERB_BYTES];
        const char *wanted = strncmp(page, "hostpool-", 9) == 0 ? page + 9 : page;
        if (strcmp(hp_cli_verb_name(&hp_cli_verbs[i], '-', name), wanted) == 0) {
            man_verb(&hp_cli_verbs[i]);
            return true;
        }
    }
    return false;
}

static void markdown_verb(const struct hp_cli_verb *verb)
{
    char name[HP_CLI_VERB_BYTES];
    (void)printf("## hostpool %s\n\n", hp_cli_verb_name(verb, ' ', name));
    put(MARKDOWN, verb->summary);
    (void)printf(".\n\n```\nhostpool %s [OPTION]...%s%s\n```\n\n", name,
                 verb->operands[0] != '\0' ? " " : "", verb->operands);
    put_text(MARKDOWN, verb->text);
    put_flags(MARKDOWN, verb);
    if (verb->examples[0] != NULL) {
        (void)printf("**Examples**\n\n");
        put_examples(verb);
    }
}

void hp_cli_markdown(void)
{
    (void)printf(
        "<!-- Made by `hostpool help --markdown` from cli/table.c: change that, not this. -->\n"
        "# The command line\n\n");
    for (size_t i = 0; i < hp_cli_verb_count; i++) {
        if (!hp_cli_verbs[i].is_hidden) {
            markdown_verb(&hp_cli_verbs[i]);
        }
    }
    (void)printf("## Every verb\n\n");
    put_group(MARKDOWN, &hp_cli_group_global);
    for (size_t i = 0; i < hp_cli_topic_count; i++) {
        (void)printf("## %s\n\n", hp_cli_topics[i].summary);
        put_text(MARKDOWN, hp_cli_topics[i].text);
    }
}
