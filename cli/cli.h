/* SPDX-License-Identifier: BSD-2-Clause */
/* What a verb works with: its parsed words, the streams, the client. */
#ifndef HP_CLI_CLI_H
#define HP_CLI_CLI_H

#include "cli/table.h"
#include "client/include/hostpool.h"

#include <stdio.h>

/* Exit codes; `hostpool help exit-codes`. */
enum hp_cli_exit {
    HP_CLI_OK = 0,
    HP_CLI_FAILED = 1, /* a task failed; or a file could not be written here */
    HP_CLI_USAGE = 2,
    HP_CLI_NOT_FOUND = 3,
    HP_CLI_DENIED = 4,
    HP_CLI_UNREACHABLE = 5,
    HP_CLI_REFUSED = 6,
    HP_CLI_TIMEOUT = 124,
    HP_CLI_RUN_FAILED = 125,
    HP_CLI_RUN_NO_EXEC = 126,
    HP_CLI_RUN_NOT_FOUND = 127,
    HP_CLI_INTERRUPTED = 130,
};

struct hp_cli_value {
    bool is_set;
    uint64_t number;   /* NUMBER, DURATION, SIZE, CHOICE, SIGNAL; TIME: wall-clock ms */
    const char *text;  /* as given */
    const char **list; /* LIST: count entries */
    size_t count;
};

/* Parsed words. Strings point into argv. */
struct hp_cli_args {
    const struct hp_cli_verb *verb;
    struct hp_cli_value values[HP_CLI_FLAG_COUNT];
    const char **operands; /* NULL-terminated */
    size_t operand_count;
    bool has_dashes; /* "--" was given */
};

struct hp_cli {
    struct hp_cli_args args;
    struct hp_client *client;
    bool is_out_terminal;
    bool is_err_terminal;
    bool is_color; /* of standard output */
    bool is_utc;
    unsigned width;   /* of the terminal */
    const char *user; /* login name, never NULL */
    int64_t now_ms;   /* wall clock when it started */
};

/* Value of a flag, of a verb that takes it. */
static inline const struct hp_cli_value *hp_cli_get(const struct hp_cli *cli,
                                                    enum hp_cli_flag_id id)
{
    return &cli->args.values[id];
}
static inline bool hp_cli_has(const struct hp_cli *cli, enum hp_cli_flag_id id)
{
    return cli->args.values[id].is_set;
}
/* Text of a flag, or `otherwise`. */
const char *hp_cli_text(const struct hp_cli *cli, enum hp_cli_flag_id id, const char *otherwise);
/* Number of a flag, or `otherwise`. */
uint64_t hp_cli_number(const struct hp_cli *cli, enum hp_cli_flag_id id, uint64_t otherwise);

/* ---------------------------------------------------------------- args.c */

/* Parses argv[1..]. 0: *ret_args is filled; else the exit code, and the error has been printed. */
int hp_cli_args_parse(int argc, char **argv, struct hp_cli_args *ret_args);
/* Parses a time (see HP_CLI_TYPE_TIME). False: not of that form. */
bool hp_cli_time_parse(const char *text, int64_t now_ms, int64_t *ret_ms);
/* Parses "TERM", "SIGTERM", "15". False: no such signal. */
bool hp_cli_signal_parse(const char *text, unsigned *ret_signal);
/* "SIGTERM", or "signal 70". */
const char *hp_cli_signal_name(unsigned signal_number, char out[32]);

/* ---------------------------------------------------------------- say.c: words for people */

/* Prints "hostpool: WHAT\n" to standard error. Control characters in the text are escaped. */
void hp_cli_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints a line to standard error that says what to do, indented by two. */
void hp_cli_hint(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* hp_cli_error, for wrong usage, and the line that points to the help; returns HP_CLI_USAGE. */
int hp_cli_usage(const struct hp_cli_verb *verb, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/*
 * Text that is safe on a terminal: control characters (C0, C1, DEL), bytes that are not UTF-8 and
 * marks that turn the direction of text become \xNN. Newlines stay if `with_newlines`. From
 * hp_cli_alloc.
 */
char *hp_cli_escape(const char *text, size_t size, bool with_newlines);
#define HP_CLI_SAFE(text) hp_cli_escape((text), strlen(text), false)

/* "12m", "3s", "2h05m", "3d04h": for tables on terminals. */
char *hp_cli_age(char out[32], uint64_t duration_ms);
/* A time: RFC 3339 in the zone that was asked for; out has 40 bytes. */
char *hp_cli_time_text(const struct hp_cli *cli, int64_t at_ms, char out[40]);
/* RFC 3339 with milliseconds, UTC; out has 40 bytes. */
char *hp_cli_time_utc(int64_t at_ms, char out[40]);
/* "1,234,567"; out has 32 bytes. */
char *hp_cli_thousands(uint64_t number, char out[32]);
/* Wall clock now, ms since 1970. */
int64_t hp_cli_now_ms(void);
/* Monotonic clock, ms. */
int64_t hp_cli_mono_ms(void);

/* ---------------------------------------------------------------- alloc.c */

/* Memory that lives until the program ends. Out of memory ends the program with a message. */
void *hp_cli_alloc(size_t size) __attribute__((malloc));
void *hp_cli_alloc_array(size_t count, size_t size);
char *hp_cli_copy(const char *text, size_t size);
char *hp_cli_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
void hp_cli_free_all(void);
/* Memory to be freed by hp_free. Same rule when there is none. */
void *hp_cli_heap(size_t size) __attribute__((malloc));
void *hp_cli_heap_grow(void *old, size_t count, size_t size);
/* Ends the program: out of memory. */
__attribute__((noreturn)) void hp_cli_no_memory(void);

/* ---------------------------------------------------------------- connect.c */

/* Connects to the broker. 0, or the exit code and the error has been printed. */
int hp_cli_connect(struct hp_cli *cli);
/* The same with options of the caller (from hp_cli_client_options). */
void hp_cli_client_options(const struct hp_cli *cli, struct hp_client_options *ret_options);
int hp_cli_connect_with(struct hp_cli *cli, const struct hp_client_options *options);
/* Prints the error of a call that answered `status` and gives the exit code for it. `doing`: what
 * was tried, for example "cancel tasks"; may be NULL. */
int hp_cli_fail(struct hp_cli *cli, enum hp_status status, const char *doing);
/* Exit code of a status. */
int hp_cli_exit_of(enum hp_status status);

/* Writes all bytes to a descriptor. False: errno says why. */
bool hp_cli_write_all(int fd, const void *data, size_t size);
/* Flushes standard output; exit code 1 and a message if that fails (except EPIPE: then silent). */
int hp_cli_flush(int code);

#endif
