/* SPDX-License-Identifier: BSD-2-Clause */
/* The table, and the checks which need more than one row of it. */
#include "server/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/mem.h"
#include "common/base/str.h"

#define CONFIG_PATH "/etc/hostpool/hostpoold.conf"
#define YEAR_MS (UINT64_C(366) * 24 * 3600 * 1000)
#define GIB (UINT64_C(1) << 30)

enum {
    OPT_CONFIG,
    OPT_CHECK_CONFIG,
    OPT_EXAMPLE_CONFIG,
    OPT_HELP,
    OPT_VERSION,
    OPT_DATA_DIR,
    OPT_LISTEN,
    OPT_TOKEN_FILE,
    OPT_LEASE,
    OPT_HEARTBEAT,
    OPT_AGE_STEP,
    OPT_HELLO_TIME,
    OPT_STOP_TIME,
    OPT_STOP_LEASE,
    OPT_CONNECTIONS,
    OPT_CONNECTIONS_PER_HOST,
    OPT_OUTPUT_BYTES,
    OPT_PAYLOAD_CACHE,
    OPT_VOLATILE_BYTES,
    OPT_LANE_WINDOW,
    OPT_BACKLOG_OPS,
    OPT_WAL_SIZE,
    OPT_BALLAST,
    OPT_DISK_LOW,
    OPT_HOLD,
    OPT_EAGER,
    OPT_NEAR,
    OPT_LOG_LEVEL,
    OPT_COUNT
};

static const struct hp_conf_option options[OPT_COUNT] = {
    [OPT_CONFIG] = {"config", HP_CONF_STR, NULL, 1, 4096, "FILE",
                    "Configuration file; flags go before what it says. Default: "
                    "/etc/hostpool/hostpoold.conf if there is one.",
                    true},
    [OPT_CHECK_CONFIG] = {"check_config", HP_CONF_BOOL, "no", 0, 0, NULL,
                          "Check flags and file, say so, and end.", true},
    [OPT_EXAMPLE_CONFIG] = {"example_config", HP_CONF_BOOL, "no", 0, 0, NULL,
                            "Print a configuration file with all options, and end.", true},
    [OPT_HELP] = {"help", HP_CONF_BOOL, "no", 0, 0, NULL, "Print this, and end.", true},
    [OPT_VERSION] = {"version", HP_CONF_BOOL, "no", 0, 0, NULL, "Print the version, and end.",
                     true},
    [OPT_DATA_DIR] = {"data_dir", HP_CONF_STR, NULL, 1, 3800, "DIR",
                      "Folder of the database. Default: /var/lib/hostpool for root, else "
                      "$XDG_STATE_HOME/hostpool or ~/.local/state/hostpool. A folder that is "
                      "empty or missing is initialised.",
                      false},
    [OPT_LISTEN] = {"listen", HP_CONF_STR, "127.0.0.1:7741", 1, 1024, "ADDR:PORT",
                    "Addresses to listen on, separated by commas. Port 0 lets the system choose; "
                    "the port is written to hostpoold.port in the data folder. Addresses beyond "
                    "this host need token_file.",
                    false},
    [OPT_TOKEN_FILE] = {"token_file", HP_CONF_STR, NULL, 1, 4096, "FILE",
                        "File with a secret of 8 to 512 bytes, mode 0600. Every peer must give it "
                        "in its hello.",
                        false},
    [OPT_LEASE] = {"lease", HP_CONF_DURATION, "30s", 1000, 3600000, NULL,
                   "A worker that was not heard of for this long has lost its tasks.", false},
    [OPT_HEARTBEAT] = {"heartbeat", HP_CONF_DURATION, "5s", 100, 600000, NULL,
                       "Workers report this often; at most a third of the lease.", false},
    [OPT_AGE_STEP] = {"age_step", HP_CONF_DURATION, "60s", 1000, YEAR_MS, NULL,
                      "A waiting task gains one level of priority in this time.", false},
    [OPT_HELLO_TIME] = {"hello_time", HP_CONF_DURATION, "5s", 100, 60000, NULL,
                        "Time a peer has to complete its hello.", false},
    [OPT_STOP_TIME] = {"stop_time", HP_CONF_DURATION, "10s", 100, 600000, NULL,
                       "A stop waits at most this long for what is under way.", false},
    [OPT_STOP_LEASE] = {"stop_lease", HP_CONF_DURATION, "2m", 1000, 86400000, NULL,
                        "Lease that a planned stop announces, so that an upgrade loses no attempt.",
                        false},
    [OPT_CONNECTIONS] = {"connections", HP_CONF_INT, "10000", 4, 1000000, NULL,
                         "Most connections at a time.", false},
    [OPT_CONNECTIONS_PER_HOST] = {"connections_per_host", HP_CONF_INT, "64", 1, 1000000, NULL,
                                  "Most connections from one address; this host is exempt.", false},
    [OPT_OUTPUT_BYTES] = {"output_bytes", HP_CONF_SIZE, "4M", 65536, GIB, NULL,
                          "Bytes waiting for a slow reader above which it gets no more events.",
                          false},
    [OPT_PAYLOAD_CACHE] = {"payload_cache", HP_CONF_SIZE, "2M", 1 << 18, 64 * GIB, NULL,
                           "Payloads of waiting tasks kept in memory, over all queues.", false},
    [OPT_VOLATILE_BYTES] = {"volatile_bytes", HP_CONF_SIZE, "256M", 1 << 20, 1024 * GIB, NULL,
                            "Payloads and results of tasks that are not durable kept in memory.",
                            false},
    [OPT_LANE_WINDOW] = {"lane_window", HP_CONF_INT, "1024", 16, 1000000, NULL,
                         "Runs of waiting tasks kept in memory, for each kind of task and queue.",
                         false},
    [OPT_BACKLOG_OPS] = {"backlog_ops", HP_CONF_INT, "8000", 100, 1000000, NULL,
                         "Changes waiting for the disk above which clients are not read.", false},
    [OPT_WAL_SIZE] = {"wal_size", HP_CONF_SIZE, "16M", 1 << 20, 4 * GIB, NULL,
                      "Size the write-ahead log is grown to at start; overwriting is faster. At "
                      "most a quarter of a small disk.",
                      false},
    [OPT_BALLAST] = {"ballast", HP_CONF_SIZE, "4M", 1 << 16, 64 * GIB, NULL,
                     "Disk space set aside so that results can be stored when the disk is full. At "
                     "most an eighth of a small disk. With less than this free, submits are "
                     "refused as busy.",
                     false},
    [OPT_DISK_LOW] = {"disk_low_percent", HP_CONF_INT, "5", 1, 90, NULL,
                      "Free space below which submits are refused as busy.", false},
    [OPT_HOLD] = {"hold_us", HP_CONF_INT, "300", 0, 10000, NULL,
                  "Microseconds a commit is held while all it has is out at idle workers, so that "
                  "the results may share it. 0: never.",
                  false},
    [OPT_EAGER] = {"eager", HP_CONF_BOOL, "yes", 0, 0, NULL,
                   "First attempts of functions may start before their submit is on disk.", false},
    [OPT_NEAR] =
        {"near", HP_CONF_BOOL, "yes", 0, 0, NULL,
         "Peers on this host, of this user, hand large payloads and results over as sealed "
         "memory files instead of through their connections.",
         false},
    [OPT_LOG_LEVEL] = {"log_level", HP_CONF_STR, "info", 1, 10, "LEVEL",
                       "error, warn, info, debug or trace.", false},
};

static const char *const verbs[] = {"run", "init", "help", "version"};

uint64_t hp_config_lease_ms(const struct hp_config *config)
{
    return hp_conf_u64(&config->conf, OPT_LEASE);
}

uint64_t hp_config_heartbeat_ms(const struct hp_config *config)
{
    return hp_conf_u64(&config->conf, OPT_HEARTBEAT);
}

uint64_t hp_config_age_step_ms(const struct hp_config *config)
{
    return hp_conf_u64(&config->conf, OPT_AGE_STEP);
}

uint64_t hp_config_hello_ms(const struct hp_config *config)
{
    return hp_conf_u64(&config->conf, OPT_HELLO_TIME);
}

uint64_t hp_config_stop_ms(const struct hp_config *config)
{
    return hp_conf_u64(&config->conf, OPT_STOP_TIME);
}

uint64_t hp_config_stop_lease_ms(const struct hp_config *config)
{
    return hp_conf_u64(&config->conf, OPT_STOP_LEASE);
}

uint32_t hp_config_connections(const struct hp_config *config)
{
    return (uint32_t)hp_conf_u64(&config->conf, OPT_CONNECTIONS);
}

uint32_t hp_config_connections_per_host(const struct hp_config *config)
{
    return (uint32_t)hp_conf_u64(&config->conf, OPT_CONNECTIONS_PER_HOST);
}

uint64_t hp_config_output_bytes(const struct hp_config *config)
{
    return hp_conf_u64(&config->conf, OPT_OUTPUT_BYTES);
}

uint64_t hp_config_payload_cache_bytes(const struct hp_config *config)
{
    return hp_conf_u64(&config->conf, OPT_PAYLOAD_CACHE);
}

uint64_t hp_config_volatile_bytes(const struct hp_config *config)
{
    return hp_conf_u64(&config->conf, OPT_VOLATILE_BYTES);
}

uint32_t hp_config_lane_window(const struct hp_config *config)
{
    return (uint32_t)hp_conf_u64(&config->conf, OPT_LANE_WINDOW);
}

uint32_t hp_config_backlog_ops(const struct hp_config *config)
{
    return (uint32_t)hp_conf_u64(&config->conf, OPT_BACKLOG_OPS);
}

uint64_t hp_config_wal_bytes(const struct hp_config *config)
{
    return hp_conf_u64(&config->conf, OPT_WAL_SIZE);
}

uint64_t hp_config_ballast_bytes(const struct hp_config *config)
{
    return hp_conf_u64(&config->conf, OPT_BALLAST);
}

uint32_t hp_config_disk_low_percent(const struct hp_config *config)
{
    return (uint32_t)hp_conf_u64(&config->conf, OPT_DISK_LOW);
}

uint32_t hp_config_hold_us(const struct hp_config *config)
{
    return (uint32_t)hp_conf_u64(&config->conf, OPT_HOLD);
}

bool hp_config_eager(const struct hp_config *config)
{
    return hp_conf_bool(&config->conf, OPT_EAGER);
}

bool hp_config_near(const struct hp_config *config)
{
    return hp_conf_bool(&config->conf, OPT_NEAR);
}

/* ---------------------------------------------------------------------------------------- checks
 */

static enum hp_err choose_data_dir(struct hp_config *config, struct hp_error *reterr)
{
    char path[4096];
    int size = 0;
    const char *given = hp_conf_str(&config->conf, OPT_DATA_DIR);
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    if (given[0] != '\0') {
        size = snprintf(path, sizeof(path), "%s", given);
    } else if (geteuid() == 0) {
        size = snprintf(path, sizeof(path), "/var/lib/hostpool");
    } else if (state != NULL && state[0] == '/') {
        size = snprintf(path, sizeof(path), "%s/hostpool", state);
    } else if (home != NULL && home[0] == '/') {
        size = snprintf(path, sizeof(path), "%s/.local/state/hostpool", home);
    } else {
        return hp_error_set(reterr, HP_ERR_INVALID,
                            "no data folder: HOME is not set; give --data-dir");
    }
    if (size >= (int)sizeof(path)) {
        return hp_error_set(reterr, HP_ERR_RANGE, "the path of the data folder is too long");
    }
    while (size > 1 && path[size - 1] == '/') {
        path[--size] = '\0';
    }
    config->data_dir = hp_strdup(path);
    return config->data_dir != NULL ? HP_OK : hp_error_set(reterr, HP_ERR_NOMEM, NULL);
}

static bool is_loopback_name(const struct hp_endpoint *endpoint)
{
    struct hp_addr addrs[8];
    size_t count = 0;
    if (hp_endpoint_resolve(endpoint, true, addrs, HP_COUNT_OF(addrs), &count, NULL) != HP_OK) {
        return false; /* unknown names are treated as the dangerous case */
    }
    for (size_t i = 0; i < count; i++) {
        if (!hp_addr_is_loopback(&addrs[i])) {
            return false;
        }
    }
    return true;
}

static enum hp_err add_listen(struct hp_config *config, const char *text, size_t size,
                              struct hp_error *reterr)
{
    char one[HP_HOST_BYTES + 16];
    if (size >= sizeof(one)) {
        return hp_error_set(reterr, HP_ERR_RANGE, "listen: '%.40s...' is too long", text);
    }
    if (config->listen_count == HP_LISTEN_COUNT_MAX) {
        return hp_error_set(reterr, HP_ERR_RANGE, "listen: more than %d addresses",
                            HP_LISTEN_COUNT_MAX);
    }
    memcpy(one, text, size);
    one[size] = '\0';
    struct hp_error error = {0};
    struct hp_endpoint *endpoint = &config->listen[config->listen_count];
    if (hp_endpoint_parse(one, HP_PORT_DEFAULT, endpoint, &error) != HP_OK) {
        return hp_error_set(reterr, error.code, "listen: %s", error.text);
    }
    config->listen_count++;
    if (!is_loopback_name(endpoint)) {
        config->listens_beyond_loopback = true;
    }
    return HP_OK;
}

static enum hp_err parse_listen(struct hp_config *config, struct hp_error *reterr)
{
    const char *text = hp_conf_str(&config->conf, OPT_LISTEN);
    while (true) {
        text += strspn(text, ", \t");
        size_t size = strcspn(text, ", \t");
        if (size == 0) {
            break;
        }
        enum hp_err err = add_listen(config, text, size, reterr);
        if (err != HP_OK) {
            return err;
        }
        text += size;
    }
    if (config->listen_count == 0) {
        return hp_error_set(reterr, HP_ERR_INVALID, "listen: an address is missing");
    }
    return HP_OK;
}

static enum hp_err check_access(struct hp_config *config, struct hp_error *reterr)
{
    const char *path = hp_conf_str(&config->conf, OPT_TOKEN_FILE);
    if (path[0] != '\0') {
        return hp_token_read(path, config->token, reterr);
    }
    if (config->listens_beyond_loopback) {
        return hp_error_set(
            reterr, HP_ERR_DENIED,
            "refusing to listen on %s without a token: whoever reaches it could run "
            "programs on the workers. Set token_file (a secret in a file of mode "
            "0600), or listen on 127.0.0.1",
            hp_conf_str(&config->conf, OPT_LISTEN));
    }
    return HP_OK;
}

static enum hp_err check_all(struct hp_config *config, struct hp_error *reterr)
{
    if (hp_log_level_parse(hp_str_of(hp_conf_str(&config->conf, OPT_LOG_LEVEL)),
                           &config->log_level) != HP_OK) {
        return hp_error_set(reterr, HP_ERR_INVALID,
                            "log_level: '%s' is none of error, warn, info, debug, trace",
                            hp_conf_str(&config->conf, OPT_LOG_LEVEL));
    }
    if (hp_config_heartbeat_ms(config) > hp_config_lease_ms(config) / 3) {
        return hp_error_set(reterr, HP_ERR_RANGE,
                            "heartbeat must be at most a third of lease, else one lost message "
                            "costs a lease");
    }
    enum hp_err err = choose_data_dir(config, reterr);
    if (err == HP_OK) {
        err = parse_listen(config, reterr);
    }
    if (err == HP_OK) {
        err = check_access(config, reterr);
    }
    return err;
}

/* --------------------------------------------------------------------------------------- reading
 */

/* Takes the verb off the front, if there is one. */
static enum hp_err read_verb(int argc, const char *const *argv, struct hp_config *config,
                             int *ret_skip, struct hp_error *reterr)
{
    *ret_skip = 0;
    config->verb = HP_VERB_RUN;
    if (argc < 2 || argv[1][0] == '-') {
        return HP_OK;
    }
    *ret_skip = 1;
    if (strcmp(argv[1], "run") == 0) {
        return HP_OK;
    }
    if (strcmp(argv[1], "init") == 0) {
        config->verb = HP_VERB_INIT;
    } else if (strcmp(argv[1], "help") == 0) {
        config->verb = HP_VERB_HELP;
    } else if (strcmp(argv[1], "version") == 0) {
        config->verb = HP_VERB_VERSION;
    } else {
        const char *near = hp_suggest(hp_str_of(argv[1]), verbs, HP_COUNT_OF(verbs));
        return hp_error_set(reterr, HP_ERR_INVALID,
                            "no command \"%.60s\".%s%s%s (hostpoold --help)", argv[1],
                            near != NULL ? " Did you mean \"" : "", near != NULL ? near : "",
                            near != NULL ? "\"?" : "");
    }
    return HP_OK;
}

static enum hp_err read_flags(int argc, const char *const *argv, struct hp_config *config,
                              struct hp_error *reterr)
{
    int skip = 0;
    enum hp_err err = read_verb(argc, argv, config, &skip, reterr);
    if (err != HP_OK) {
        return err;
    }
    int rest = 0;
    err = hp_conf_parse_flags(&config->conf, argc - skip, argv + skip, &rest, reterr);
    if (err != HP_OK) {
        return err;
    }
    if (rest < argc - skip) {
        return hp_error_set(reterr, HP_ERR_INVALID,
                            "unexpected argument \"%.60s\" (hostpoold --help)", argv[skip + rest]);
    }
    if (hp_conf_bool(&config->conf, OPT_HELP)) {
        config->verb = HP_VERB_HELP;
    } else if (hp_conf_bool(&config->conf, OPT_VERSION)) {
        config->verb = HP_VERB_VERSION;
    } else if (hp_conf_bool(&config->conf, OPT_EXAMPLE_CONFIG)) {
        config->verb = HP_VERB_EXAMPLE_CONFIG;
    } else if (hp_conf_bool(&config->conf, OPT_CHECK_CONFIG)) {
        config->verb = HP_VERB_CHECK_CONFIG;
    }
    return HP_OK;
}

static enum hp_err load_file(struct hp_config *config, struct hp_error *reterr)
{
    const char *path = hp_conf_str(&config->conf, OPT_CONFIG);
    if (path[0] != '\0') {
        return hp_conf_load_file(&config->conf, path, reterr);
    }
    if (access(CONFIG_PATH, F_OK) == 0) {
        return hp_conf_load_file(&config->conf, CONFIG_PATH, reterr);
    }
    return HP_OK;
}

static bool needs_values(enum hp_config_verb verb)
{
    return verb == HP_VERB_RUN || verb == HP_VERB_INIT || verb == HP_VERB_CHECK_CONFIG;
}

enum hp_err hp_config_read(int argc, const char *const *argv, struct hp_config *ret_config,
                           struct hp_error *reterr)
{
    struct hp_config config = {0};
    if (hp_conf_init(&config.conf, options, OPT_COUNT) != HP_OK) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    enum hp_err err = read_flags(argc, argv, &config, reterr);
    if (err == HP_OK && needs_values(config.verb)) {
        err = load_file(&config, reterr);
        if (err == HP_OK) {
            err = check_all(&config, reterr);
        }
    }
    if (err != HP_OK) {
        hp_config_deinit(&config);
        return err;
    }
    *ret_config = config;
    return HP_OK;
}

void hp_config_deinit(struct hp_config *config)
{
    explicit_bzero(config->token, sizeof(config->token));
    hp_free(config->data_dir);
    config->data_dir = NULL;
    hp_conf_deinit(&config->conf);
}

static bool same_value(const struct hp_config *a, const struct hp_config *b, size_t index)
{
    if (options[index].type == HP_CONF_STR) {
        return strcmp(hp_conf_str(&a->conf, index), hp_conf_str(&b->conf, index)) == 0;
    }
    return a->conf.values[index].number == b->conf.values[index].number;
}

void hp_config_diff(const struct hp_config *now, const struct hp_config *next, char *out,
                    size_t out_size)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = OPT_DATA_DIR; i < OPT_COUNT; i++) {
        if (i == OPT_TOKEN_FILE || i == OPT_LOG_LEVEL || same_value(now, next, i)) {
            continue;
        }
        int size =
            snprintf(out + used, out_size - used, "%s%s", used > 0 ? " " : "", options[i].name);
        if (size < 0 || (size_t)size >= out_size - used) {
            out[used] = '\0'; /* a cut list still says that a restart is needed */
            return;
        }
        used += (size_t)size;
    }
}

enum hp_err hp_config_help(struct hp_buf *out)
{
    enum hp_err err = hp_buf_append_text(
        out,
        "Usage: hostpoold [run] [FLAG...]     serve, in the foreground\n"
        "       hostpoold init [FLAG...]      make the data folder and end\n\n"
        "The broker of hostpool. It logs to stderr, one line per event; SIGTERM stops it in\n"
        "order, SIGHUP reads the configuration again (token and log level change at once).\n\n");
    return err != HP_OK ? err : hp_conf_help(options, OPT_COUNT, out);
}

enum hp_err hp_config_example(struct hp_buf *out)
{
    return hp_conf_example(options, OPT_COUNT, out);
}
