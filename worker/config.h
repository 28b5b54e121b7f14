/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Settings of hostpool-worker: one table for the file, the flags and --help, and the checked
 * result.
 */
#ifndef HP_WORKER_CONFIG_H
#define HP_WORKER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/net/addr.h"
#include "common/sys/conf.h"
#include "common/sys/log.h"
#include "common/sys/proc.h"

/* What the user asked for instead of a run. */
enum hp_worker_action {
    HP_WORKER_RUN,
    HP_WORKER_HELP,
    HP_WORKER_VERSION,
    HP_WORKER_CHECK,
    HP_WORKER_EXAMPLE,
};

struct hp_worker_config {
    struct hp_conf conf;
    struct hp_arena arena; /* owns the lists */
    enum hp_worker_action action;
    struct hp_endpoint broker;
    const char *broker_text;
    const char *node;
    char host[HP_HOSTNAME_BYTES];
    const char *state_dir;
    const char *scratch_dir;
    const char *const *modules;
    uint32_t module_count;
    const struct hp_str *tags;
    uint32_t tag_count;
    struct hp_str token; /* empty: none */
    uint32_t slots;
    uint32_t prefetch;
    uint64_t mem_bytes;
    uint64_t drain_timeout_ms;
    uint64_t recycle_calls;
    uint64_t recycle_mem_bytes;
    uint64_t result_max_bytes;
    bool commands;
    const char *python;      /* interpreter of Python pools; NULL: none */
    const char *python_path; /* NULL: found by itself */
    const char *token_file;  /* NULL: none */
    uint32_t children_max;
    bool any_interpreter;
    bool inherit_env;
    bool near; /* content by descriptor, with a broker on this host */
    enum hp_log_level log_level;
};

/*
 * Reads flags and the config file and checks everything. On an error `config` is still to be
 * deinited. HP_ERR_INVALID, HP_ERR_RANGE and others with a sentence for the user.
 */
enum hp_err hp_worker_config_read(struct hp_worker_config *config, int argc,
                                  const char *const *argv, struct hp_error *reterr) HP_MUST_CHECK;
void hp_worker_config_deinit(struct hp_worker_config *config);

/* Writes --help, or the example file, to stdout. */
enum hp_err hp_worker_config_print_help(void);
enum hp_err hp_worker_config_print_example(void);

#endif
