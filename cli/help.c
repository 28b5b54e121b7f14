/* SPDX-License-Identifier: BSD-2-Clause */
/* --help and `hostpool help`, from the table. */
#include "cli/help.h"

#include <string.h>

#define LINE_COLUMNS 79
#define FLAG_COLUMNS 26

/* Prints words of text wrapped; the first line begins at column `at`, the others at `indent`. */
static void print_wrapped(const char *text, size_t size, size_t at, size_t indent)
{
    size_t column = at;
    bool is_first = true;
    for (size_t i = 0; i < size;) {
        size_t word = strcspn(text + i, " ");
        word = word > size - i ? size - i : word;
        if (!is_first && column + 1 + word > LINE_COLUMNS) {
            (void)printf("\n%*s", (int)indent, "");
            column = indent;
        } else if (!is_first) {
            (void)putchar(' ');
            column++;
        }
        (void)fwrite(text + i, 1, word, stdout);
        column += word;
        is_first = false;
        i += word;
        i += i < size; /* the space */
    }
    (void)putchar('\n');
}

/* Paragraphs are divided by empty lines; a line that begins with a space stays as it is. */
static void print_text(const char *text)
{
    while (*text != '\0') {
        size_t size = strcspn(text, "\n");
        if (size == 0) {
            (void)putchar('\n');
        } else if (*text == ' ') {
            (void)fwrite(text, 1, size, stdout);
            (void)putchar('\n');
        } else {
            print_wrapped(text, size, 0, 0);
        }
        text += size;
        text += *text == '\n';
    }
}

char *hp_cli_flag_words(const struct hp_cli_flag *flag, const char *open, const char *close,
                        char out[96])
{
    char letter[24] = "";
    if (flag->letter != 0) {
        (void)snprintf(letter, sizeof(letter), "%s-%c%s, ", open, flag->letter, close);
    }
    (void)snprintf(out, 96, "%s%s--%s%s%s%s", letter, open, flag->name, close,
                   flag->value_name != NULL ? " " : "",
                   flag->value_name != NULL ? flag->value_name : "");
    return out;
}

static void print_group(const struct hp_cli_group *group)
{
    bool is_titled = false;
    for (const enum hp_cli_flag_id *id = group->ids; *id != HP_CLI_FLAG_COUNT; id++) {
        const struct hp_cli_flag *flag = &hp_cli_flags[*id];
        char words[96];
        if (flag->is_hidden) {
            continue;
        }
        if (!is_titled) {
            (void)printf("\n%s:\n", group->title);
            is_titled = true;
        }
        int width = printf("  %s%s", flag->letter == 0 ? "    " : "",
                           hp_cli_flag_words(flag, "", "", words));
        if (width > FLAG_COLUMNS - 2) {
            (void)printf("\n%*s", FLAG_COLUMNS, "");
        } else {
            (void)printf("%*s", FLAG_COLUMNS - width, "");
        }
        print_wrapped(flag->text, strlen(flag->text), FLAG_COLUMNS, FLAG_COLUMNS);
    }
}

void hp_cli_help_verb(const struct hp_cli_verb *verb)
{
    char name[HP_CLI_VERB_BYTES];
    (void)printf("Usage: hostpool %s [OPTION]...%s%s\n\n%s.\n\n", hp_cli_verb_name(verb, ' ', name),
                 verb->operands[0] != '\0' ? " " : "", verb->operands, verb->summary);
    print_text(verb->text);
    for (size_t i = 0; i < HP_CLI_GROUPS_MAX && verb->groups[i] != NULL; i++) {
        print_group(verb->groups[i]);
    }
    print_group(&hp_cli_group_global);
    if (verb->examples[0] != NULL) {
        (void)printf("\nExamples:\n");
    }
    for (size_t i = 0; i < HP_CLI_EXAMPLES_MAX && verb->examples[i] != NULL; i++) {
        (void)printf("  %s\n", verb->examples[i]);
    }
}

static void print_verbs(const char *noun)
{
    for (size_t i = 0; i < hp_cli_verb_count; i++) {
        const struct hp_cli_verb *verb = &hp_cli_verbs[i];
        char name[HP_CLI_VERB_BYTES];
        bool is_wanted =
            noun == NULL ? verb->noun == NULL : verb->noun != NULL && strcmp(verb->noun, noun) == 0;
        if (is_wanted && !verb->is_hidden) {
            (void)printf("  %-16s %s\n", hp_cli_verb_name(verb, ' ', name), verb->summary);
        }
    }
}

void hp_cli_help_noun(const struct hp_cli_noun *noun)
{
    (void)printf("Usage: hostpool %s VERB [OPTION]...\n\n%s.\n\n", noun->name, noun->summary);
    print_verbs(noun->name);
    (void)printf("\nMore: hostpool help %s VERB\n", noun->name);
}

void hp_cli_help_topic(const struct hp_cli_topic *topic)
{
    (void)printf("%s.\n\n", topic->summary);
    print_text(topic->text);
}

void hp_cli_help_overview(void)
{
    (void)printf("Usage: hostpool VERB [OPTION]... [OPERAND]...\n\n"
                 "A durable process pool over many hosts.\n\nTasks and helpers:\n");
    print_verbs(NULL);
    for (size_t i = 0; i < hp_cli_noun_count; i++) {
        (void)printf("\n%s:\n", hp_cli_nouns[i].summary);
        print_verbs(hp_cli_nouns[i].name);
    }
    print_group(&hp_cli_group_global);
    (void)printf("\nTopics:\n");
    for (size_t i = 0; i < hp_cli_topic_count; i++) {
        (void)printf("  %-16s %s\n", hp_cli_topics[i].name, hp_cli_topics[i].summary);
    }
    (void)printf("\nMore: hostpool help VERB, hostpool help TOPIC. Try it out: hostpool dev\n");
}
