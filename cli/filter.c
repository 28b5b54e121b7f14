/* SPDX-License-Identifier: BSD-2-Clause */
/* Filters of ls: key=value words. */
#include "cli/sel.h"

#include "common/base/str.h"

#include <string.h>

static const char *const keys[] = {"state", "queue", "user", "host", "name", "batch", "since"};

bool hp_cli_filter_is(const char *word)
{
    size_t size = strspn(word, "abcdefghijklmnopqrstuvwxyz_-");
    return word[0] != '@' && (word[size] == '=' || word[size] == '~');
}

static int take_states(struct hp_cli *cli, struct hp_cli_filter *filter, const char *value)
{
    for (const char *at = value; *at != '\0';) {
        size_t size = strcspn(at, ",");
        uint32_t bits = hp_cli_state_bits(at, size);
        if (bits == 0) {
            return hp_cli_usage(cli->args.verb,
                                "state=%s: no state \"%.*s\".   (hostpool help filters)", value,
                                (int)size, at);
        }
        filter->base.states |= bits;
        at += size;
        at += *at == ',';
    }
    filter->has_states = true;
    return 0;
}

static int take_since(struct hp_cli *cli, struct hp_cli_filter *filter, const char *value)
{
    uint64_t duration_ms = 0;
    if (hp_parse_duration_ms(hp_str_of(value), &duration_ms, NULL) == HP_OK) {
        filter->base.since_ms = cli->now_ms - (int64_t)duration_ms;
        return 0;
    }
    if (*value != '+' && hp_cli_time_parse(value, cli->now_ms, &filter->base.since_ms)) {
        return 0;
    }
    return hp_cli_usage(cli->args.verb,
                        "since=%s: neither a duration (2h) nor a time (2026-01-31T18:00).", value);
}

static int unknown_key(struct hp_cli *cli, const char *word, size_t size)
{
    const char *near = hp_suggest(hp_str_make(word, size), keys, HP_COUNT_OF(keys));
    if (near != NULL) {
        return hp_cli_usage(cli->args.verb, "no filter \"%.*s\". Did you mean \"%s\"?", (int)size,
                            word, near);
    }
    return hp_cli_usage(cli->args.verb, "no filter \"%.*s\".   (hostpool help filters)", (int)size,
                        word);
}

int hp_cli_filter_take(struct hp_cli *cli, struct hp_cli_filter *filter, const char *word)
{
    size_t size = strcspn(word, "=~");
    const char *value = word + size + 1;
    size_t key = 0;
    while (key < HP_COUNT_OF(keys) &&
           (strlen(keys[key]) != size || memcmp(keys[key], word, size) != 0)) {
        key++;
    }
    if (key == HP_COUNT_OF(keys)) {
        return unknown_key(cli, word, size);
    }
    if (*value == '\0') {
        return hp_cli_usage(cli->args.verb, "\"%s\" needs a value.", word);
    }
    switch (key) {
    case 0:
        return take_states(cli, filter, value);
    case 1:
        filter->base.queue = value;
        break;
    case 2:
        filter->is_user_any = strcmp(value, "any") == 0;
        filter->base.user = filter->is_user_any        ? NULL
                            : strcmp(value, "me") == 0 ? cli->user
                                                       : value;
        break;
    case 3:
        filter->base.node = value;
        break;
    case 4:
        filter->base.name = value;
        break;
    case 5:
        filter->base.batch = value;
        break;
    default:
        return take_since(cli, filter, value);
    }
    return 0;
}

static bool is_same(const char *wanted, const char *value)
{
    return wanted == NULL || (value != NULL && strcmp(wanted, value) == 0);
}

bool hp_cli_filter_passes(const struct hp_cli_filter *filter, const struct hp_task *task)
{
    const struct hp_filter *base = &filter->base;
    const struct hp_options *options = task->options;
    if (base->states != 0 && (base->states & 1u << task->state) == 0) {
        return false;
    }
    if (!is_same(base->node, task->node) || task->created_at_ms < base->since_ms) {
        return false;
    }
    const char *queue = options != NULL && options->queue != NULL ? options->queue : "default";
    const char *name = options != NULL && options->name != NULL ? options->name : "";
    return is_same(base->queue, queue) &&
           is_same(base->batch, options != NULL ? options->batch : NULL) &&
           is_same(base->user, options != NULL ? options->user : NULL) &&
           (base->name == NULL || strstr(name, base->name) != NULL);
}
