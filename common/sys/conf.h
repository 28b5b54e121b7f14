/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Configuration from one table: a row gives name, type, default, bounds and text, and from it come
 * the file reader (libconfuse syntax), the flags, --help and the example file. Order: default <
 * file < flag; a later setting of equal or higher rank wins. Unknown names are errors which say
 * where and what was perhaps meant. Not for threads.
 *
 * Names are written with underscores in the table and the file ("lease_time"); as a flag either
 * "--lease-time" or "--lease_time".
 */
#ifndef HP_SYS_CONF_H
#define HP_SYS_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"

enum hp_conf_type {
    HP_CONF_STR,      /* min, max: size in bytes */
    HP_CONF_INT,      /* min, max: value; unsigned */
    HP_CONF_BOOL,     /* as a flag also without value: --name, --no-name */
    HP_CONF_DURATION, /* "90s"; min, max and value in ms */
    HP_CONF_SIZE      /* "512M"; min, max and value in bytes */
};

/* One row of the table. Static: a hp_conf keeps pointers to it. */
struct hp_conf_option {
    const char *name; /* [a-z0-9_]+ */
    enum hp_conf_type type;
    const char *default_text; /* as in the file; NULL: not set ("" / 0 / no), min is not asked */
    uint64_t min;
    uint64_t max;           /* 0: no upper bound */
    const char *value_name; /* in --help: "PATH"; NULL: by type */
    const char *text;       /* one sentence or more, for help, example and manual */
    bool is_flag_only;      /* not in the file (--config itself, --check-config) */
};

/* Where a value came from; the order is the rank. */
enum hp_conf_source { HP_CONF_FROM_DEFAULT, HP_CONF_FROM_FILE, HP_CONF_FROM_FLAG };

struct hp_conf_value {
    char *str;       /* owned; HP_CONF_STR only, else NULL */
    uint64_t number; /* the other types; bool is 0 or 1 */
    enum hp_conf_source source;
    bool is_set; /* false: no default and never given */
};

struct hp_conf {
    const struct hp_conf_option *options; /* borrowed */
    size_t option_count;
    struct hp_conf_value *values; /* owned, one per option */
};

/*
 * Takes the table and sets the defaults (a wrong default is asserted). HP_ERR_NOMEM: nothing is
 * held.
 */
enum hp_err hp_conf_init(struct hp_conf *conf, const struct hp_conf_option *options,
                         size_t option_count) HP_MUST_CHECK;

/* Frees all values; an all-zero object is fine. */
void hp_conf_deinit(struct hp_conf *conf);

/*
 * Reads a file: `name = value` lines, # comments, strings in quotes where needed. HP_ERR_NOT_FOUND
 * and others of opening; HP_ERR_INVALID / HP_ERR_RANGE with "path:line: ..." in reterr. On error
 * the values are undefined but valid: deinit or throw away.
 */
enum hp_err hp_conf_load_file(struct hp_conf *conf, const char *path,
                              struct hp_error *reterr) HP_MUST_CHECK;

/*
 * Reads flags from argv[1] on: --name value, --name=value, --bool, --no-bool. Stops at the first
 * word that is no flag, or behind "--"; *ret_rest_index is the index of the first word left (may be
 * argc). HP_ERR_INVALID / HP_ERR_RANGE with a sentence for the user.
 */
enum hp_err hp_conf_parse_flags(struct hp_conf *conf, int argc, const char *const *argv,
                                int *ret_rest_index, struct hp_error *reterr) HP_MUST_CHECK;

/* Sets one value from text, checked. A value of higher rank stays (HP_OK). */
enum hp_err hp_conf_set(struct hp_conf *conf, size_t index, const char *text,
                        enum hp_conf_source source, struct hp_error *reterr) HP_MUST_CHECK;

/* Index of an option by name (either spelling); option_count if there is none. */
size_t hp_conf_find(const struct hp_conf *conf, struct hp_str name);

/* Values by index; the type must match (asserted). The string lives as long as the value. */
const char *hp_conf_str(const struct hp_conf *conf, size_t index); /* "" when not set */
uint64_t hp_conf_u64(const struct hp_conf *conf, size_t index);    /* INT, DURATION, SIZE */
bool hp_conf_bool(const struct hp_conf *conf, size_t index);
bool hp_conf_is_set(const struct hp_conf *conf, size_t index); /* by default, file or flag */

/* Appends an example file: each option with its text, bounds and default, commented out. */
enum hp_err hp_conf_example(const struct hp_conf_option *options, size_t option_count,
                            struct hp_buf *buf) HP_MUST_CHECK;

/* Appends the flags for --help, wrapped to 80 columns. */
enum hp_err hp_conf_help(const struct hp_conf_option *options, size_t option_count,
                         struct hp_buf *buf) HP_MUST_CHECK;

#endif
