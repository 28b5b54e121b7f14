/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hostpool map: inputs stream in, groups of tasks go out, ends come back and are printed. Memory is
 * bounded by what is in flight, not by the number of inputs.
 *
 * I1: `order` counts submitted tasks from 0 without gaps; `number` counts inputs from 1, also those
 *     left out by --resume.
 * I2: a group lives until each of its tasks has ended or was given up.
 */
#ifndef HP_CLI_MAP_H
#define HP_CLI_MAP_H

#include "cli/cli.h"
#include "cli/halt.h"
#include "cli/template.h"
#include "common/base/buf.h"
#include "common/base/list.h"

#include <jansson.h>

/* ---------------------------------------------------------------- map_input.c */

enum hp_map_next { HP_MAP_GOT, HP_MAP_WAIT, HP_MAP_END, HP_MAP_ERROR };

/* Inputs from words, files or standard input. Never blocks on a pipe. */
struct hp_map_input {
    const char *const *words; /* ::: */
    size_t word_count;
    size_t word_index;
    const char *const *paths; /* :::: and -a; "-" is standard input */
    size_t path_count;
    size_t path_index;
    int fd;       /* of the file being read; -1: none */
    bool is_pipe; /* fd may make us wait */
    char delimiter;
    struct hp_buf buf; /* read and not handed out */
    size_t scanned;    /* of buf: known to have no delimiter */
    bool is_file_end;
    uint64_t number; /* inputs handed out */
    uint64_t total;  /* 0: not known */
};
/* Divides the operands at ::: and ::::; *ret_count is the number of words of the command. 0 or an
 * exit code, the error printed. */
int hp_map_input_init(struct hp_cli *cli, struct hp_map_input *input, size_t *ret_count);
void hp_map_input_deinit(struct hp_map_input *input);
/* The next input, lent until the next call. ERROR: printed. */
enum hp_map_next hp_map_input_next(struct hp_map_input *input, const char **ret_text);
/* Counts the inputs of plain files and words into `total`, where that is cheap. */
void hp_map_input_count(struct hp_map_input *input);

/* ---------------------------------------------------------------- ends */

/* The end of one task, copied from the event. */
struct hp_map_end {
    uint64_t id;
    uint64_t number;
    char *input; /* own copy */
    char *node;  /* or NULL */
    enum hp_state state;
    int code;       /* as of run; 0: success */
    int exit_value; /* for the joblog */
    unsigned signal;
    int64_t started_at_ms;
    uint64_t run_us;
    uint64_t received; /* bytes of standard output */
    bool is_function;
    char *bytes[2]; /* stdout or result, stderr; NULL: none */
    size_t sizes[2];
    uint64_t blobs[2];
    uint64_t lost_bytes; /* not kept by the worker */
    bool is_dropped;     /* bytes were given up to save memory: get them again */
    const char *text;    /* of a failure; from hp_cli_alloc, only for the first ones */
};
void hp_map_end_free(struct hp_map_end *end);

/* ---------------------------------------------------------------- map_log.c */

struct hp_map_log {
    FILE *file; /* NULL: none */
    const char *path;
    uint64_t *seen; /* by number: hash of the command << 2 | 1 done, 2 failed; 0: not there */
    uint64_t seen_count;
};
int hp_map_log_open(struct hp_cli *cli, struct hp_map_log *log);
/* Says whether an input is to be run; `command` is its text. -1: an error was printed. */
int hp_map_log_wants(const struct hp_cli *cli, const struct hp_map_log *log, uint64_t number,
                     const char *command);
/* Writes a line. False: errno. */
bool hp_map_log_add(struct hp_map_log *log, const struct hp_map_end *end, const char *command,
                    uint64_t sent);
/* Writes DIR/NUMBER/... False: errno. */
bool hp_map_results_write(const char *dir, const struct hp_map_end *end);

/* ---------------------------------------------------------------- the whole */

struct hp_map_group {
    struct hp_list link; /* in hp_map.groups */
    uint64_t first_order;
    uint32_t count;
    uint32_t left; /* tasks that have not ended */
    uint64_t *ids; /* 0: not known yet */
    uint64_t *numbers;
    char **inputs; /* NULL: has ended */
};

struct hp_map {
    struct hp_cli *cli;
    struct hp_map_input input;
    struct hp_cli_template template;
    struct hp_options options;
    json_t *args; /* of a function; NULL for commands */
    struct hp_map_log log;
    const char *results_dir;
    struct hp_cli_halt halt;
    uint64_t window; /* tasks in flight */
    bool is_bar;
    bool is_input_end;
    bool is_stopped; /* no more submits */
    bool is_interrupted;
    uint64_t submitted;
    uint64_t skipped; /* left out by --resume */
    uint64_t ended;
    uint64_t failed;
    uint64_t cancelled;
    struct hp_list groups;
    uint64_t first_failed_id;
    char *first_failed_text;
    int code; /* of hostpool's own failure */
    bool is_output_closed;
    /* --keep-order: ends that wait for earlier ones; index order % ring_size */
    struct hp_map_end **ring;
    size_t ring_size;
    uint64_t print_order;
    uint64_t held_bytes;
    int64_t began_ms; /* monotonic */
    int64_t drawn_ms;
    bool is_drawn;
    uint64_t cancel_pending; /* cancels without an answer */
};

/* map_submit.c: takes inputs and submits groups as far as the window allows. Returns what the input
 * said last. */
enum hp_map_next hp_map_fill(struct hp_map *map);
/* Cancels everything in flight; queued_only: not what runs. */
void hp_map_cancel(struct hp_map *map, bool queued_only);
/* Takes SUBMITTED, SUBMIT_FAILED and REPLY events. */
void hp_map_take_answer(struct hp_map *map, const struct hp_event *event);
void hp_map_group_free(struct hp_map_group *group);

/* map_output.c: takes an ENDED event: logs, counts, prints or holds. */
void hp_map_take_end(struct hp_map *map, const struct hp_event *event);
/* Prints what --keep-order held, as far as it goes; all: also behind gaps. */
void hp_map_print_held(struct hp_map *map, bool all);

/* map_progress.c */
void hp_map_draw(struct hp_map *map, bool now);
void hp_map_undraw(struct hp_map *map);
void hp_map_say_start(struct hp_map *map);
void hp_map_say_end(struct hp_map *map);

#endif
