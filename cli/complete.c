/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Completion: what the last of the given words could become, from the table. The scripts of the
 * shells only pass words on and show what comes back, one candidate a line: WORD<tab>TEXT. A line
 * ":file", ":dir" or ":command" asks the shell for its own kind of candidates.
 */
#include "cli/help.h"

#include <string.h>

/* How long a question to the broker may take while somebody waits for a tab key. */
#define ASK_MS 1000

static void offer(const char *word, const char *text, const char *start)
{
    if (strncmp(word, start, strlen(start)) == 0) {
        (void)printf("%s\t%s\n", word, text);
    }
}

static struct hp_client *connect_silently(struct hp_cli *cli)
{
    struct hp_client_options options;
    hp_cli_client_options(cli, &options);
    options.connect_timeout_ms = ASK_MS;
    return hp_connect(&options, ASK_MS, &cli->client) == HP_STATUS_OK ? cli->client : NULL;
}

static void offer_queues(struct hp_cli *cli, const char *start)
{
    struct hp_queue_list *list = NULL;
    if (connect_silently(cli) == NULL ||
        hp_queue_get(cli->client, NULL, ASK_MS, &list) != HP_STATUS_OK) {
        return;
    }
    for (size_t i = 0; i < list->count; i++) {
        offer(HP_CLI_SAFE(list->queues[i].name), list->queues[i].paused ? "paused" : "queue",
              start);
    }
    hp_queue_list_free(list);
}

static void offer_workers(struct hp_cli *cli, const char *start)
{
    struct hp_worker_list *list = NULL;
    if (connect_silently(cli) == NULL ||
        hp_worker_get(cli->client, NULL, ASK_MS, &list) != HP_STATUS_OK) {
        return;
    }
    for (size_t i = 0; i < list->count; i++) {
        offer(HP_CLI_SAFE(list->workers[i].node), hp_worker_state_word(list->workers[i].state),
              start);
    }
    hp_worker_list_free(list);
}

static void offer_tasks(struct hp_cli *cli, const char *start)
{
    offer("last", "what you submitted last", start);
    offer("all", "all your tasks", start);
    struct hp_filter filter;
    struct hp_task_list *list = NULL;
    hp_filter_init(&filter);
    filter.user = cli->user;
    filter.limit = 30;
    if (connect_silently(cli) == NULL ||
        hp_list(cli->client, &filter, ASK_MS, &list) != HP_STATUS_OK) {
        return;
    }
    for (size_t i = 0; i < list->count; i++) {
        const struct hp_task *task = &list->tasks[i];
        const char *name = task->options != NULL ? task->options->name : NULL;
        char id[24];
        (void)snprintf(id, sizeof(id), "%llu", (unsigned long long)task->id);
        offer(id,
              hp_cli_printf("%s %s", hp_state_word(task->state),
                            name != NULL ? HP_CLI_SAFE(name) : ""),
              start);
    }
    hp_task_list_free(list);
}

static void offer_filters(struct hp_cli *cli, const char *start)
{
    static const char *const filters[] = {
        "state=", "queue=", "user=", "host=", "name~", "batch=", "since="};
    static const char *const states[] = {
        "blocked",    "delayed", "queued",     "starting", "running",   "waiting",
        "cancelling", "buried",  "done",       "failed",   "cancelled", "expired",
        "pending",    "active",  "unfinished", "finished", "any"};
    if (strncmp(start, "state=", 6) == 0) {
        for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
            offer(hp_cli_printf("state=%s", states[i]), "state", start);
        }
        return;
    }
    for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++) {
        offer(filters[i], "filter", start);
    }
    offer_tasks(cli, start);
}

static void offer_topics(const char *start, const char *noun)
{
    for (size_t i = 0; i < hp_cli_verb_count; i++) {
        const struct hp_cli_verb *verb = &hp_cli_verbs[i];
        if (noun == NULL ? verb->noun == NULL
                         : verb->noun != NULL && strcmp(verb->noun, noun) == 0) {
            offer(verb->name, verb->summary, start);
        }
    }
    for (size_t i = 0; noun == NULL && i < hp_cli_noun_count; i++) {
        offer(hp_cli_nouns[i].name, hp_cli_nouns[i].summary, start);
    }
}

static void offer_kind(struct hp_cli *cli, enum hp_cli_complete kind, const char *start)
{
    switch (kind) {
    case HP_CLI_COMPLETE_NOTHING:
        break;
    case HP_CLI_COMPLETE_FILE:
        (void)printf(":file\n");
        break;
    case HP_CLI_COMPLETE_DIR:
        (void)printf(":dir\n");
        break;
    case HP_CLI_COMPLETE_COMMAND:
        (void)printf(":command\n");
        break;
    case HP_CLI_COMPLETE_QUEUE:
        offer_queues(cli, start);
        break;
    case HP_CLI_COMPLETE_WORKER:
        offer_workers(cli, start);
        break;
    case HP_CLI_COMPLETE_TASK:
        offer_tasks(cli, start);
        break;
    case HP_CLI_COMPLETE_FILTER:
        offer_filters(cli, start);
        break;
    case HP_CLI_COMPLETE_SHELL:
        offer("bash", "", start);
        offer("fish", "", start);
        offer("zsh", "", start);
        break;
    case HP_CLI_COMPLETE_TOPIC:
        offer_topics(start, NULL);
        for (size_t i = 0; i < hp_cli_topic_count; i++) {
            offer(hp_cli_topics[i].name, hp_cli_topics[i].summary, start);
        }
        break;
    }
}

static void offer_group(const struct hp_cli_group *group, const char *start)
{
    for (const enum hp_cli_flag_id *id = group->ids; *id != HP_CLI_FLAG_COUNT; id++) {
        if (!hp_cli_flags[*id].is_hidden) {
            offer(hp_cli_printf("--%s", hp_cli_flags[*id].name), hp_cli_flags[*id].text, start);
        }
    }
}

static void offer_flags(const struct hp_cli_verb *verb, const char *start)
{
    for (size_t i = 0; verb != NULL && i < HP_CLI_GROUPS_MAX && verb->groups[i] != NULL; i++) {
        offer_group(verb->groups[i], start);
    }
    offer_group(&hp_cli_group_global, start);
}

/* The value of a flag: choices, or what the table says. */
static void offer_value(struct hp_cli *cli, enum hp_cli_flag_id id, const char *start)
{
    const struct hp_cli_flag *flag = &hp_cli_flags[id];
    for (size_t i = 0; flag->choices != NULL && flag->choices[i] != NULL; i++) {
        offer(flag->choices[i], "", start);
    }
    if (flag->type == HP_CLI_TYPE_SIGNAL) {
        static const char *const names[] = {"TERM", "INT",  "HUP",  "KILL",
                                            "STOP", "CONT", "USR1", "USR2"};
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
            offer(names[i], "", start);
        }
    }
    offer_kind(cli, flag->complete, start);
}

/* The flag whose value is expected behind this word, or HP_CLI_FLAG_COUNT. */
static enum hp_cli_flag_id awaits_value(const struct hp_cli_verb *verb, const char *word)
{
    enum hp_cli_flag_id id = HP_CLI_FLAG_COUNT;
    if (strncmp(word, "--", 2) == 0) {
        id = hp_cli_flag_find(verb, word + 2, strlen(word + 2), 0);
    } else if (word[0] == '-' && word[1] != '\0' && word[2] == '\0') {
        id = hp_cli_flag_find(verb, NULL, 0, word[1]);
    }
    return id != HP_CLI_FLAG_COUNT && hp_cli_flags[id].type != HP_CLI_TYPE_NONE ? id
                                                                                : HP_CLI_FLAG_COUNT;
}

struct place {
    const char *noun;
    const struct hp_cli_verb *verb;
    enum hp_cli_flag_id flag; /* whose value is next */
    bool is_rest;             /* behind "--", or in a command */
};

static void place_step(struct place *place, const char *word)
{
    if (place->is_rest) {
        return;
    }
    if (place->flag != HP_CLI_FLAG_COUNT) {
        place->flag = HP_CLI_FLAG_COUNT;
    } else if (strcmp(word, "--") == 0) {
        place->is_rest = true;
    } else if (word[0] == '-') {
        place->flag = awaits_value(place->verb, word);
    } else if (place->verb != NULL) {
        place->is_rest = place->verb->is_command;
    } else if (place->noun == NULL && hp_cli_verb_find(NULL, word) == NULL) {
        place->noun = word;
    } else {
        place->verb = hp_cli_verb_find(place->noun, word);
    }
}

int hp_cli_complete(struct hp_cli *cli, const char *const *words, size_t word_count)
{
    struct place place = {.flag = HP_CLI_FLAG_COUNT};
    size_t first = word_count > 0 && strcmp(words[0], "--") == 0 ? 1 : 0;
    if (word_count <= first) {
        return HP_CLI_OK;
    }
    for (size_t i = first; i + 1 < word_count; i++) {
        place_step(&place, words[i]);
    }
    const char *start = words[word_count - 1];
    const char *equals = strchr(start, '=');
    if (place.flag != HP_CLI_FLAG_COUNT) {
        offer_value(cli, place.flag, start);
    } else if (place.is_rest) {
        (void)printf(place.verb != NULL && place.verb->is_command ? ":command\n" : ":file\n");
    } else if (start[0] == '-' && equals == NULL) {
        offer_flags(place.verb, start);
    } else if (place.verb == NULL) {
        offer_topics(start, place.noun);
    } else {
        offer_kind(cli, place.verb->complete, start);
    }
    return HP_CLI_OK;
}
