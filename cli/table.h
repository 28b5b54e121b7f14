/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The one table of the command line: every flag, verb and help topic. Parsing, --help, completion,
 * the manual pages and docs/cli.md are all made from it, so that they can not drift apart.
 */
#ifndef HP_CLI_TABLE_H
#define HP_CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hp_cli;

/* What a flag's value is. */
enum hp_cli_type {
    HP_CLI_TYPE_NONE, /* no value: present or not */
    HP_CLI_TYPE_TEXT,
    HP_CLI_TYPE_LIST,     /* text, may be given again */
    HP_CLI_TYPE_NUMBER,   /* min..max */
    HP_CLI_TYPE_DURATION, /* ms, min..max */
    HP_CLI_TYPE_SIZE,     /* bytes, min..max */
    HP_CLI_TYPE_TIME,     /* wall-clock ms: RFC 3339 or +DURATION */
    HP_CLI_TYPE_CHOICE,   /* one of `choices`; number is its index */
    HP_CLI_TYPE_SIGNAL,   /* TERM, SIGTERM or 15 */
};

/* What completion offers for a value or an operand. */
enum hp_cli_complete {
    HP_CLI_COMPLETE_NOTHING,
    HP_CLI_COMPLETE_FILE,
    HP_CLI_COMPLETE_DIR,
    HP_CLI_COMPLETE_COMMAND,
    HP_CLI_COMPLETE_QUEUE,
    HP_CLI_COMPLETE_WORKER,
    HP_CLI_COMPLETE_TASK,
    HP_CLI_COMPLETE_FILTER,
    HP_CLI_COMPLETE_SHELL,
    HP_CLI_COMPLETE_TOPIC,
};

/* One per row of hp_cli_flags; flags with one name and different meanings are different rows. */
enum hp_cli_flag_id {
    /* everywhere */
    HP_CLI_F_HOST,
    HP_CLI_F_TOKEN_FILE,
    HP_CLI_F_COLOR,
    HP_CLI_F_NO_INPUT,
    HP_CLI_F_VERBOSE,
    HP_CLI_F_HELP,
    HP_CLI_F_VERSION,
    /* verbs that print */
    HP_CLI_F_JSON,
    HP_CLI_F_JSONL,
    HP_CLI_F_OUTPUT,
    HP_CLI_F_NO_HEADER,
    HP_CLI_F_QUIET,
    HP_CLI_F_UTC,
    HP_CLI_F_LIMIT,
    /* options of a task */
    HP_CLI_F_QUEUE,
    HP_CLI_F_NAME,
    HP_CLI_F_BATCH,
    HP_CLI_F_CPUS,
    HP_CLI_F_MEM,
    HP_CLI_F_NEED,
    HP_CLI_F_PRIORITY,
    HP_CLI_F_DELAY,
    HP_CLI_F_AT,
    HP_CLI_F_EXPIRE,
    HP_CLI_F_DEADLINE,
    HP_CLI_F_TIMEOUT,
    HP_CLI_F_SOFT_TIMEOUT,
    HP_CLI_F_KILL_GRACE,
    HP_CLI_F_RETRIES,
    HP_CLI_F_RETRY_DELAY,
    HP_CLI_F_MAX_LOSSES,
    HP_CLI_F_KEY,
    HP_CLI_F_ON_CONFLICT,
    HP_CLI_F_CKEY,
    HP_CLI_F_CKEY_MAX,
    HP_CLI_F_AT_MOST_ONCE,
    HP_CLI_F_ON_PARTITION,
    HP_CLI_F_TTL,
    HP_CLI_F_ENV,
    HP_CLI_F_CWD,
    HP_CLI_F_STDIN,
    HP_CLI_F_OUTPUT_CAP,
    HP_CLI_F_FUNCTION,
    HP_CLI_F_ARGS,
    /* submit */
    HP_CLI_F_ARRAY,
    HP_CLI_F_WAIT,
    /* map */
    HP_CLI_F_MAP_NAME,
    HP_CLI_F_JOBS,
    HP_CLI_F_BAR,
    HP_CLI_F_JOBLOG,
    HP_CLI_F_RESULTS,
    HP_CLI_F_RESUME,
    HP_CLI_F_RETRY_FAILED,
    HP_CLI_F_HALT,
    HP_CLI_F_KEEP_ORDER,
    HP_CLI_F_TAG,
    HP_CLI_F_DRY_RUN,
    HP_CLI_F_NULL,
    HP_CLI_F_ARG_FILE,
    /* logs, wait, cancel */
    HP_CLI_F_FOLLOW,
    HP_CLI_F_STDERR,
    HP_CLI_F_ANY,
    HP_CLI_F_ALL,
    HP_CLI_F_WAIT_TIMEOUT,
    HP_CLI_F_SIGNAL,
    HP_CLI_F_MODE,
    HP_CLI_F_GRACE,
    HP_CLI_F_REASON,
    /* dev */
    HP_CLI_F_WORKERS,
    HP_CLI_F_SLOTS,
    HP_CLI_F_MODULE,
    /* hidden flags of help */
    HP_CLI_F_MAN,
    HP_CLI_F_MARKDOWN,
    HP_CLI_F_COMPLETE,
    HP_CLI_FLAG_COUNT
};

struct hp_cli_flag {
    const char *name; /* without "--" */
    char letter;      /* or 0 */
    enum hp_cli_type type;
    const char *value_name; /* in --help; NULL for TYPE_NONE */
    uint64_t min;
    uint64_t max;
    const char *const *choices; /* TYPE_CHOICE: NULL-terminated */
    enum hp_cli_complete complete;
    bool is_hidden;
    const char *text; /* sentence for --help and manuals */
};
extern const struct hp_cli_flag hp_cli_flags[HP_CLI_FLAG_COUNT];

/* Flags that are shown under one heading. `ids` ends with HP_CLI_FLAG_COUNT. */
struct hp_cli_group {
    const char *title;
    const enum hp_cli_flag_id *ids;
};

#define HP_CLI_GROUPS_MAX 5
#define HP_CLI_EXAMPLES_MAX 6

struct hp_cli_verb {
    const char *noun; /* "queue"; NULL for a verb of one word */
    const char *name;
    const char *operands; /* in the usage line, after the flags */
    const char *summary;  /* one line */
    const char *text;     /* paragraphs, divided by "\n\n"; indented lines stay as they are */
    const struct hp_cli_group
        *groups[HP_CLI_GROUPS_MAX]; /* own flags; the general ones are added */
    const char *examples[HP_CLI_EXAMPLES_MAX];
    unsigned operand_min;
    unsigned operand_max; /* UINT_MAX: any number */
    bool is_command;      /* the first operand ends the flags: it begins a command */
    enum hp_cli_complete complete;
    bool is_hidden;
    int (*run)(struct hp_cli *cli);
};
extern const struct hp_cli_verb hp_cli_verbs[];
extern const size_t hp_cli_verb_count;

/* The flags every verb has. */
extern const struct hp_cli_group hp_cli_group_global;

struct hp_cli_noun {
    const char *name;
    const char *summary;
};
extern const struct hp_cli_noun hp_cli_nouns[];
extern const size_t hp_cli_noun_count;

/* A page of `hostpool help TOPIC` that is no verb. */
struct hp_cli_topic {
    const char *name;
    const char *summary;
    const char *text;
};
extern const struct hp_cli_topic hp_cli_topics[];
extern const size_t hp_cli_topic_count;

/* Bytes of a verb's full name ("queue pause"), NUL included. */
#define HP_CLI_VERB_BYTES 32
/* Writes the full name with `gap` between the words; returns `out`. */
char *hp_cli_verb_name(const struct hp_cli_verb *verb, char gap, char out[HP_CLI_VERB_BYTES]);
/* Finds a verb; noun may be NULL. NULL if there is none. */
const struct hp_cli_verb *hp_cli_verb_find(const char *noun, const char *name);
/* Finds a flag of a verb (NULL: the general and output flags, before a verb) by its long name or,
 * when name is NULL, by its letter. HP_CLI_FLAG_COUNT if there is none. */
enum hp_cli_flag_id hp_cli_flag_find(const struct hp_cli_verb *verb, const char *name,
                                     size_t name_size, char letter);
/* True if the verb takes the flag. */
bool hp_cli_verb_takes(const struct hp_cli_verb *verb, enum hp_cli_flag_id id);

/* The verbs: each is one file verb_NAME.c and returns the exit code. */
int hp_cli_submit(struct hp_cli *cli);
int hp_cli_run(struct hp_cli *cli);
int hp_cli_map(struct hp_cli *cli);
int hp_cli_ls(struct hp_cli *cli);
int hp_cli_show(struct hp_cli *cli);
int hp_cli_logs(struct hp_cli *cli);
int hp_cli_wait(struct hp_cli *cli);
int hp_cli_cancel(struct hp_cli *cli);
int hp_cli_why(struct hp_cli *cli);
int hp_cli_stats(struct hp_cli *cli);
int hp_cli_queue_ls(struct hp_cli *cli);
int hp_cli_queue_show(struct hp_cli *cli);
int hp_cli_queue_pause(struct hp_cli *cli);
int hp_cli_queue_resume(struct hp_cli *cli);
int hp_cli_pool_ls(struct hp_cli *cli);
int hp_cli_pool_show(struct hp_cli *cli);
int hp_cli_pool_close(struct hp_cli *cli);
int hp_cli_pool_terminate(struct hp_cli *cli);
int hp_cli_worker_ls(struct hp_cli *cli);
int hp_cli_worker_show(struct hp_cli *cli);
int hp_cli_worker_drain(struct hp_cli *cli);
int hp_cli_worker_resume(struct hp_cli *cli);
int hp_cli_broker_ping(struct hp_cli *cli);
int hp_cli_broker_wait(struct hp_cli *cli);
int hp_cli_broker_status(struct hp_cli *cli);
int hp_cli_broker_backup(struct hp_cli *cli);
int hp_cli_broker_check(struct hp_cli *cli);
int hp_cli_broker_recover(struct hp_cli *cli);
int hp_cli_dev(struct hp_cli *cli);
int hp_cli_help(struct hp_cli *cli);
int hp_cli_completion(struct hp_cli *cli);

#endif
