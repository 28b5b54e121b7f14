/* SPDX-License-Identifier: BSD-2-Clause */
/* The broker as a whole: starting it in the right order, running it, stopping it. */
#ifndef HP_SERVER_SERVER_H
#define HP_SERVER_SERVER_H

#include "common/base/err.h"
#include "server/config.h"

/* The command line, for reading the configuration again. Borrowed for the whole run. */
struct hp_command_line {
    int argc;
    const char *const *argv;
};

/*
 * Serves until a signal stops it. `config` is taken over and freed. Returns HP_OK after a stop in
 * order; else why it could not start, or could not go on, in reterr.
 */
enum hp_err hp_server_run(struct hp_config *config, const struct hp_command_line *line,
                          struct hp_error *reterr) HP_MUST_CHECK;

/* Makes the data folder of `config` and ends. HP_ERR_EXISTS: it holds a database. */
enum hp_err hp_server_init(const struct hp_config *config, struct hp_error *reterr) HP_MUST_CHECK;

#endif
