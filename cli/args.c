/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Parsing of the words, driven by the table: [flags] [noun] verb [flags and operands] [--
 * operands]. Long flags are written in full (a cut one might mean another in a later version):
 * "--flag=value", "--flag value", "-f value", "-fvalue" and bundles of letters ("-kq") are taken.
 */
#include "cli/cli.h"

#include "common/base/assert.h"
#include "common/base/str.h"

#include <stdarg.h>
#include <string.h>

struct parser {
    int argc;
    char **argv;
    int next;
    struct hp_cli_args *args;
};

int hp_cli_usage(const struct hp_cli_verb *verb, const char *format, ...)
{
    char text[2048];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    hp_cli_error("%s", text);
    char name[HP_CLI_VERB_BYTES] = "";
    hp_cli_hint("See: hostpool help%s%s", verb != NULL ? " " : "",
                verb != NULL ? hp_cli_verb_name(verb, ' ', name) : name);
    return HP_CLI_USAGE;
}

const char *hp_cli_text(const struct hp_cli *cli, enum hp_cli_flag_id id, const char *otherwise)
{
    const struct hp_cli_value *value = hp_cli_get(cli, id);
    return value->is_set ? value->text : otherwise;
}

uint64_t hp_cli_number(const struct hp_cli *cli, enum hp_cli_flag_id id, uint64_t otherwise)
{
    const struct hp_cli_value *value = hp_cli_get(cli, id);
    return value->is_set ? value->number : otherwise;
}

/* ---------------------------------------------------------------- values */

static int check_range(const struct hp_cli_verb *verb, const struct hp_cli_flag *flag,
                       const struct hp_cli_value *value)
{
    if (flag->max == 0 || (value->number >= flag->min && value->number <= flag->max)) {
        return 0;
    }
    char low[HP_FORMAT_BYTES];
    char high[HP_FORMAT_BYTES];
    if (flag->type == HP_CLI_TYPE_DURATION) {
        return hp_cli_usage(verb, "--%s: \"%s\" is more than %s.", flag->name, value->text,
                            hp_format_duration(high, sizeof(high), flag->max));
    }
    if (flag->type == HP_CLI_TYPE_SIZE) {
        return hp_cli_usage(verb, "--%s: \"%s\" is more than %s.", flag->name, value->text,
                            hp_format_size(high, sizeof(high), flag->max));
    }
    (void)snprintf(low, sizeof(low), "%llu", (unsigned long long)flag->min);
    return hp_cli_usage(verb, "--%s: %s is not in the range %s to %llu.", flag->name, value->text,
                        low, (unsigned long long)flag->max);
}

static int parse_choice(const struct hp_cli_verb *verb, const struct hp_cli_flag *flag,
                        struct hp_cli_value *value)
{
    size_t count = 0;
    char all[128] = "";
    for (; flag->choices[count] != NULL; count++) {
        if (strcmp(flag->choices[count], value->text) == 0) {
            value->number = count;
            return 0;
        }
        size_t used = strlen(all);
        (void)snprintf(all + used, sizeof(all) - used, "%s%s", count > 0 ? ", " : "",
                       flag->choices[count]);
    }
    const char *near = hp_suggest(hp_str_of(value->text), flag->choices, count);
    if (near != NULL) {
        return hp_cli_usage(verb, "--%s: no \"%s\". Did you mean \"%s\"?", flag->name, value->text,
                            near);
    }
    return hp_cli_usage(verb, "--%s: \"%s\" is none of: %s.", flag->name, value->text, all);
}

static int parse_other(const struct hp_cli_verb *verb, const struct hp_cli_flag *flag,
                       struct hp_cli_value *value)
{
    unsigned number = 0;
    int64_t at_ms = 0;
    if (flag->type == HP_CLI_TYPE_CHOICE) {
        return parse_choice(verb, flag, value);
    }
    if (flag->type == HP_CLI_TYPE_SIGNAL) {
        if (!hp_cli_signal_parse(value->text, &number)) {
            return hp_cli_usage(verb, "--%s: \"%s\" is no signal (TERM, SIGTERM or 15).",
                                flag->name, value->text);
        }
        value->number = number;
    } else if (flag->type == HP_CLI_TYPE_TIME) {
        if (!hp_cli_time_parse(value->text, hp_cli_now_ms(), &at_ms)) {
            return hp_cli_usage(
                verb, "--%s: \"%s\" is no time (2026-01-31T18:00:00Z, 2026-01-31T18:00 or +2h).",
                flag->name, value->text);
        }
        value->number = (uint64_t)at_ms;
    }
    return 0;
}

static int set_value(struct parser *parser, enum hp_cli_flag_id id, const char *text)
{
    const struct hp_cli_flag *flag = &hp_cli_flags[id];
    const struct hp_cli_verb *verb = parser->args->verb;
    struct hp_cli_value *value = &parser->args->values[id];
    struct hp_error error = {0};
    enum hp_err err = HP_OK;
    value->is_set = true;
    value->text = text;
    if (flag->type == HP_CLI_TYPE_LIST) {
        if (value->list == NULL) {
            value->list = hp_cli_alloc_array((size_t)parser->argc + 1, sizeof(*value->list));
        }
        value->list[value->count++] = text;
        return 0;
    }
    if (flag->type == HP_CLI_TYPE_NUMBER) {
        err = hp_parse_u64(hp_str_of(text), &value->number, &error);
    } else if (flag->type == HP_CLI_TYPE_DURATION) {
        err = hp_parse_duration_ms(hp_str_of(text), &value->number, &error);
    } else if (flag->type == HP_CLI_TYPE_SIZE) {
        err = hp_parse_size_bytes(hp_str_of(text), &value->number, &error);
    } else {
        return parse_other(verb, flag, value);
    }
    if (err != HP_OK && flag->type == HP_CLI_TYPE_DURATION && text[0] != '\0' &&
        text[strspn(text, "0123456789")] == '\0') {
        return hp_cli_usage(verb, "--%s: \"%s\" needs a unit. Did you mean \"%ss\"?", flag->name,
                            text, text);
    }
    if (err != HP_OK) {
        return hp_cli_usage(verb, "--%s: %s.", flag->name, error.text);
    }
    return check_range(verb, flag, value);
}

/* ---------------------------------------------------------------- flags */

static int unknown_flag(const struct hp_cli_verb *verb, const char *name, size_t size)
{
    const char *names[HP_CLI_FLAG_COUNT];
    size_t count = 0;
    bool is_elsewhere = false;
    for (size_t id = 0; id < HP_CLI_FLAG_COUNT; id++) {
        const struct hp_cli_flag *flag = &hp_cli_flags[id];
        if (!flag->is_hidden && hp_cli_verb_takes(verb, (enum hp_cli_flag_id)id)) {
            names[count++] = flag->name;
        }
        is_elsewhere |= strlen(flag->name) == size && memcmp(flag->name, name, size) == 0;
    }
    char word[HP_CLI_VERB_BYTES] = "";
    if (verb != NULL) {
        (void)hp_cli_verb_name(verb, ' ', word);
    }
    const char *near = hp_suggest(hp_str_make(name, size), names, count);
    if (near != NULL) {
        return hp_cli_usage(verb, "no flag \"--%.*s\"%s%s. Did you mean \"--%s\"?", (int)size, name,
                            verb != NULL ? " of " : "", word, near);
    }
    if (is_elsewhere && verb == NULL) {
        return hp_cli_usage(verb, "\"--%.*s\" belongs behind the verb.", (int)size, name);
    }
    return hp_cli_usage(verb, "no flag \"--%.*s\"%s%s.", (int)size, name,
                        verb != NULL ? " of " : "", word);
}

/* A flag's value: what is attached, or the next word. */
static int take_value(struct parser *parser, enum hp_cli_flag_id id, const char *attached)
{
    const struct hp_cli_flag *flag = &hp_cli_flags[id];
    if (attached == NULL) {
        if (parser->next >= parser->argc) {
            return hp_cli_usage(parser->args->verb, "--%s needs a value: --%s %s.", flag->name,
                                flag->name, flag->value_name);
        }
        attached = parser->argv[parser->next++];
    }
    return set_value(parser, id, attached);
}

static int parse_long(struct parser *parser, const char *word)
{
    const char *name = word + 2;
    const char *equals = strchr(name, '=');
    size_t size = equals != NULL ? (size_t)(equals - name) : strlen(name);
    enum hp_cli_flag_id id = hp_cli_flag_find(parser->args->verb, name, size, 0);
    if (id == HP_CLI_FLAG_COUNT) {
        return unknown_flag(parser->args->verb, name, size);
    }
    if (hp_cli_flags[id].type != HP_CLI_TYPE_NONE) {
        return take_value(parser, id, equals != NULL ? equals + 1 : NULL);
    }
    if (equals != NULL) {
        return hp_cli_usage(parser->args->verb, "--%s takes no value.", hp_cli_flags[id].name);
    }
    parser->args->values[id].is_set = true;
    return 0;
}

static int parse_letters(struct parser *parser, const char *word)
{
    for (const char *at = word + 1; *at != '\0'; at++) {
        enum hp_cli_flag_id id = hp_cli_flag_find(parser->args->verb, NULL, 0, *at);
        if (id == HP_CLI_FLAG_COUNT) {
            char name[HP_CLI_VERB_BYTES] = "";
            const struct hp_cli_verb *verb = parser->args->verb;
            return hp_cli_usage(verb, "no flag \"-%c\"%s%s.", *at, verb != NULL ? " of " : "",
                                verb != NULL ? hp_cli_verb_name(verb, ' ', name) : name);
        }
        if (hp_cli_flags[id].type != HP_CLI_TYPE_NONE) {
            return take_value(parser, id, at[1] != '\0' ? at + 1 : NULL);
        }
        parser->args->values[id].is_set = true;
    }
    return 0;
}

/* ---------------------------------------------------------------- verbs */

static int unknown_verb(const char *noun, const char *word)
{
    const char *names[64];
    size_t count = 0;
    for (size_t i = 0; i < hp_cli_verb_count && count < HP_COUNT_OF(names); i++) {
        const struct hp_cli_verb *verb = &hp_cli_verbs[i];
        if (noun == NULL ? verb->noun == NULL
                         : verb->noun != NULL && strcmp(verb->noun, noun) == 0) {
            names[count++] = verb->name;
        }
    }
    for (size_t i = 0; noun == NULL && i < hp_cli_noun_count; i++) {
        names[count++] = hp_cli_nouns[i].name;
    }
    const char *near = hp_suggest(hp_str_of(word), names, count);
    const char *gap = noun != NULL ? " " : "";
    const char *before = noun != NULL ? noun : "";
    const char *help = noun != NULL ? noun : "";
    if (near != NULL) {
        hp_cli_error("no command \"%s%s%s\". Did you mean \"%s%s%s\"?   (hostpool help%s%s)",
                     before, gap, word, before, gap, near, gap, help);
    } else {
        hp_cli_error("no command \"%s%s%s\".   (hostpool help%s%s)", before, gap, word, gap, help);
    }
    return HP_CLI_USAGE;
}

static bool is_noun(const char *word)
{
    for (size_t i = 0; i < hp_cli_noun_count; i++) {
        if (strcmp(hp_cli_nouns[i].name, word) == 0) {
            return true;
        }
    }
    return false;
}

/* `hostpool`, `hostpool --help`, `hostpool queue`, `hostpool queue --help`: the help of that. */
static void become_help(struct hp_cli_args *args, const char *noun)
{
    args->verb = hp_cli_verb_find(NULL, "help");
    args->operands[0] = noun;
    args->operand_count = noun != NULL ? 1 : 0;
}

static int parse_verb(struct parser *parser, const char *word)
{
    struct hp_cli_args *args = parser->args;
    if (!is_noun(word)) {
        args->verb = hp_cli_verb_find(NULL, word);
        return args->verb != NULL ? 0 : unknown_verb(NULL, word);
    }
    const char *name = parser->next < parser->argc ? parser->argv[parser->next] : NULL;
    if (name == NULL || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        become_help(args, word);
        parser->next = parser->argc;
        if (name == NULL) { /* a noun alone is no command */
            hp_cli_error("\"%s\" needs a verb.   (hostpool help %s)", word, word);
            return HP_CLI_USAGE;
        }
        return 0;
    }
    parser->next++;
    args->verb = hp_cli_verb_find(word, name);
    return args->verb != NULL ? 0 : unknown_verb(word, name);
}

/* Flags set before the verb was known must be some of its own. */
static int check_early(const struct hp_cli_args *args)
{
    for (size_t id = 0; id < HP_CLI_FLAG_COUNT; id++) {
        const char *name = hp_cli_flags[id].name;
        if (args->values[id].is_set && !hp_cli_verb_takes(args->verb, (enum hp_cli_flag_id)id)) {
            return unknown_flag(args->verb, name, strlen(name));
        }
    }
    return 0;
}

static int parse_word(struct parser *parser, const char *word, bool *ret_is_rest)
{
    struct hp_cli_args *args = parser->args;
    if (strcmp(word, "--") == 0) {
        args->has_dashes = true;
        *ret_is_rest = true;
        return 0;
    }
    if (word[0] == '-' && word[1] == '-') {
        return parse_long(parser, word);
    }
    if (word[0] == '-' && word[1] != '\0') {
        return parse_letters(parser, word);
    }
    if (args->verb == NULL) {
        int code = parse_verb(parser, word);
        return code != 0 ? code : check_early(args);
    }
    args->operands[args->operand_count++] = word;
    *ret_is_rest = args->verb->is_command;
    return 0;
}

static int check_operands(const struct hp_cli_args *args)
{
    const struct hp_cli_verb *verb = args->verb;
    char name[HP_CLI_VERB_BYTES];
    (void)hp_cli_verb_name(verb, ' ', name);
    if (args->values[HP_CLI_F_HELP].is_set) {
        return 0;
    }
    if (args->operand_count < verb->operand_min) {
        return hp_cli_usage(verb, "%s needs an operand: %s", name, verb->operands);
    }
    if (args->operand_count > verb->operand_max) {
        return hp_cli_usage(verb, "%s does not take \"%s\".", name,
                            args->operands[verb->operand_max]);
    }
    return 0;
}

int hp_cli_args_parse(int argc, char **argv, struct hp_cli_args *args)
{
    memset(args, 0, sizeof(*args));
    args->operands = hp_cli_alloc_array((size_t)argc + 2, sizeof(*args->operands));
    struct parser parser = {.argc = argc, .argv = argv, .next = 1, .args = args};
    bool is_rest = false;
    bool is_hidden_rest = false;
    while (parser.next < argc) {
        const char *word = argv[parser.next++];
        if (is_rest || is_hidden_rest) {
            args->operands[args->operand_count++] = word;
            continue;
        }
        int code = parse_word(&parser, word, &is_rest);
        if (code != 0) {
            return code;
        }
        /* Words to be completed are no flags of ours. */
        is_hidden_rest = args->values[HP_CLI_F_COMPLETE].is_set;
    }
    if (args->verb == NULL) {
        if (!args->values[HP_CLI_F_HELP].is_set && !args->values[HP_CLI_F_VERSION].is_set) {
            hp_cli_error("no command.   (hostpool help)");
            return HP_CLI_USAGE;
        }
        become_help(args, NULL);
    }
    return check_operands(args);
}
