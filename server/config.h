/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The broker's configuration: one table gives the file's options, the flags, --help and the example
 * file. Reading checks all of it: a configuration that loads is one the broker can start with, as
 * far as that can be known without touching the network and the data directory.
 */
#ifndef HP_SERVER_CONFIG_H
#define HP_SERVER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/net/addr.h"
#include "common/sys/conf.h"
#include "common/sys/log.h"

#define HP_LISTEN_COUNT_MAX 16
#define HP_TOKEN_BYTES_MIN 8
#define HP_TOKEN_BYTES_MAX 512

enum hp_config_verb {
    HP_VERB_RUN,
    HP_VERB_INIT, /* make the data directory and end */
    HP_VERB_CHECK_CONFIG,
    HP_VERB_HELP,
    HP_VERB_VERSION,
    HP_VERB_EXAMPLE_CONFIG,
};

struct hp_config {
    struct hp_conf conf; /* the values, and where they came from */
    enum hp_config_verb verb;
    char *data_dir; /* owned; absolute if HOME or the flag was */
    struct hp_endpoint listen[HP_LISTEN_COUNT_MAX];
    uint32_t listen_count;
    bool listens_beyond_loopback;       /* needs a token */
    char token[HP_TOKEN_BYTES_MAX + 1]; /* "" if none is asked */
    enum hp_log_level log_level;
};

/*
 * Reads the command line and the file it names. On an error reterr has the sentence for the user
 * and *ret_config holds nothing. For the verbs HELP, VERSION and EXAMPLE_CONFIG only `verb` is set.
 */
enum hp_err hp_config_read(int argc, const char *const *argv, struct hp_config *ret_config,
                           struct hp_error *reterr) HP_MUST_CHECK;
/* Wipes the token and frees; an all-zero object is fine. */
void hp_config_deinit(struct hp_config *config);

/* Values of the table, by name of the row. */
uint64_t hp_config_lease_ms(const struct hp_config *config);
uint64_t hp_config_heartbeat_ms(const struct hp_config *config);
uint64_t hp_config_age_step_ms(const struct hp_config *config);
uint64_t hp_config_hello_ms(const struct hp_config *config);
uint64_t hp_config_stop_ms(const struct hp_config *config);
uint64_t hp_config_stop_lease_ms(const struct hp_config *config);
uint32_t hp_config_connections(const struct hp_config *config);
uint32_t hp_config_connections_per_host(const struct hp_config *config);
uint64_t hp_config_output_bytes(const struct hp_config *config);
uint64_t hp_config_payload_cache_bytes(const struct hp_config *config);
uint64_t hp_config_volatile_bytes(const struct hp_config *config);
uint32_t hp_config_lane_window(const struct hp_config *config);
uint32_t hp_config_backlog_ops(const struct hp_config *config);
uint64_t hp_config_wal_bytes(const struct hp_config *config);
uint64_t hp_config_ballast_bytes(const struct hp_config *config);
uint32_t hp_config_disk_low_percent(const struct hp_config *config);
uint32_t hp_config_hold_us(const struct hp_config *config);
bool hp_config_eager(const struct hp_config *config);
bool hp_config_near(const struct hp_config *config);

/* Names of the options whose change takes a restart, separated by blanks; "" if nothing changed. */
void hp_config_diff(const struct hp_config *now, const struct hp_config *next, char *out,
                    size_t out_size);

/* Appends the text of --help, the example file. */
enum hp_err hp_config_help(struct hp_buf *out) HP_MUST_CHECK;
enum hp_err hp_config_example(struct hp_buf *out) HP_MUST_CHECK;

/*
 * Reads a token: one line in a regular file, readable by its owner only (0600 or less), who is this
 * user or root. `ret_token` has room for HP_TOKEN_BYTES_MAX + 1 bytes.
 */
enum hp_err hp_token_read(const char *path, char *ret_token, struct hp_error *reterr) HP_MUST_CHECK;

#endif
