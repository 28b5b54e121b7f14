/* SPDX-License-Identifier: BSD-2-Clause */
/* Selectors and filters: the words that name tasks. Parsing is pure; resolving asks the broker. */
#ifndef HP_CLI_SEL_H
#define HP_CLI_SEL_H

#include "cli/cli.h"

enum hp_cli_sel_kind {
    HP_CLI_SEL_RANGE,   /* ids first..last by step */
    HP_CLI_SEL_MEMBERS, /* members first..last by step of the array that begins with id `array` */
    HP_CLI_SEL_BATCH,
    HP_CLI_SEL_LAST,
    HP_CLI_SEL_ALL,
};

struct hp_cli_sel {
    enum hp_cli_sel_kind kind;
    uint64_t array;
    uint64_t first;
    uint64_t last;
    uint64_t step;
    const char *batch;
};

#define HP_CLI_SELS_MAX 4096

struct hp_cli_sels {
    struct hp_cli_sel *items; /* from hp_cli_alloc */
    size_t count;
};

/* Appends the parts of one word ("1,4,8-9"). False: *ret_error says why. */
bool hp_cli_sel_parse(const char *word, struct hp_cli_sels *sels, const char **ret_error);
/* Parses "1-100" or "0-10:2" for --array: count of numbers into *ret_count. */
bool hp_cli_array_parse(const char *word, uint64_t *ret_first, uint64_t *ret_step,
                        uint64_t *ret_count, const char **ret_error);

/* Ids as ranges, in the order they were named. */
struct hp_cli_ids {
    struct hp_ids *ranges;
    size_t count;
    size_t capacity;
    uint64_t total;
};
void hp_cli_ids_add(struct hp_cli_ids *ids, uint64_t first, uint64_t count);
void hp_cli_ids_free(struct hp_cli_ids *ids);

/* What `all' and `@batch' mean to a verb. */
enum hp_cli_scope { HP_CLI_SCOPE_ANY, HP_CLI_SCOPE_UNFINISHED };

/*
 * The ids of all selectors among the operands, connecting first if that was not done. 0, or the
 * exit code and the error has been printed (no such task is HP_CLI_NOT_FOUND). An empty batch is
 * not found; `all' may be empty.
 */
int hp_cli_resolve(struct hp_cli *cli, enum hp_cli_scope scope, struct hp_cli_ids *ret_ids);

/* State bits (1 << enum hp_state). */
#define HP_CLI_STATES_UNFINISHED 0x1feu
#define HP_CLI_STATES_FINISHED 0x1e00u

/* ---------------------------------------------------------------- tasks.c */

/* The word shown for a state ("queued" for ready, "starting" for leased). Static. */
const char *hp_cli_state_word(enum hp_state state);
/* State bits of a word of a filter, groups included; 0: no such word. */
uint32_t hp_cli_state_bits(const char *word, size_t size);

struct hp_cli_listing_spec;
/* The columns of tasks; rows are const struct hp_task *. */
extern const struct hp_cli_listing_spec hp_cli_task_listing;
/* More columns, for show. */
extern const struct hp_cli_listing_spec hp_cli_task_page;

/* ---------------------------------------------------------------- filter.c */

struct hp_cli_filter {
    struct hp_filter base;
    bool has_states;
    bool is_user_any;
};
/* Takes "key=value" or "name~text" into the filter. 0 or an exit code, the error printed. */
int hp_cli_filter_take(struct hp_cli *cli, struct hp_cli_filter *filter, const char *word);
/* True if the word has the form of a filter. */
bool hp_cli_filter_is(const char *word);
/* True if a task passes (for tasks that were named by id). */
bool hp_cli_filter_passes(const struct hp_cli_filter *filter, const struct hp_task *task);

/* Called for each task of a list; false ends the list. */
typedef bool (*hp_cli_task_fn)(void *context, const struct hp_task *task);
/* Pages through the tasks of a filter, newest first. 0 or an exit code, the error printed. */
int hp_cli_each_listed(struct hp_cli *cli, const struct hp_filter *filter, hp_cli_task_fn take,
                       void *context);
/* Gets tasks by id in the order of `ids`, in pages. 0 or an exit code, the error printed. */
int hp_cli_each_id(struct hp_cli *cli, const struct hp_cli_ids *ids, unsigned detail,
                   hp_cli_task_fn take, void *context);
/* Prints "no such task" for a state of unknown or gone; true if it was one of them. */
bool hp_cli_is_missing(const struct hp_task *task, int *code);

#endif
