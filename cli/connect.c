/* SPDX-License-Identifier: BSD-2-Clause */
/* The connection to the broker, and what its errors mean for people and for the exit code. */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* How long a first connection may take. A refused one fails at once, */
#define CONNECT_MS 5000
/* but for those who bring work or wait for it: a broker that is started again is back by then. */
#define RESTART_MS 3000
#define AGAIN_MS 100

int hp_cli_exit_of(enum hp_status status)
{
    switch (status) {
    case HP_STATUS_OK:
        return HP_CLI_OK;
    case HP_STATUS_BAD_REQUEST:
    case HP_STATUS_BAD_ARGUMENT:
    case HP_STATUS_UNKNOWN_METHOD:
        return HP_CLI_USAGE;
    case HP_STATUS_DENIED:
        return HP_CLI_DENIED;
    case HP_STATUS_NOT_FOUND:
        return HP_CLI_NOT_FOUND;
    case HP_STATUS_BUSY:
    case HP_STATUS_DRAINING:
    case HP_STATUS_CONFLICT:
    case HP_STATUS_TOO_BIG:
    case HP_STATUS_STALE:
    case HP_STATUS_ILLEGAL_STATE:
    case HP_STATUS_UNSUPPORTED:
    case HP_STATUS_OUT_OF_ORDER:
        return HP_CLI_REFUSED;
    case HP_STATUS_VERSION:
    case HP_STATUS_DAMAGED:
    case HP_STATUS_INTERNAL:
    case HP_STATUS_TIMEOUT:
    case HP_STATUS_UNREACHABLE:
    case HP_STATUS_PROTOCOL:
    case HP_STATUS_SESSION_LOST:
    case HP_STATUS_BROKER_LOST:
        return HP_CLI_UNREACHABLE;
    case HP_STATUS_AGAIN:
    case HP_STATUS_NO_MEMORY:
    case HP_STATUS_STOPPED:
    case HP_STATUS_SYSTEM:
        return HP_CLI_FAILED;
    }
    return HP_CLI_FAILED;
}

/* What to do about it; NULL if there is nothing to say. */
static const char *advice(enum hp_status status)
{
    switch (status) {
    case HP_STATUS_DENIED:
        return "Give the token with --token-file or HOSTPOOL_TOKEN_FILE; the operator has it.";
    case HP_STATUS_VERSION:
        return "Update hostpool here or the broker there.";
    case HP_STATUS_BUSY:
        return "Nothing was stored. Try again later; see: hostpool stats";
    case HP_STATUS_DRAINING:
        return "The broker is stopping. Try again later: hostpool broker wait";
    case HP_STATUS_CONFLICT:
        return "To take the id of the task that holds the key: --on-conflict join";
    case HP_STATUS_PROTOCOL:
        return "Is that a hostpool broker?  Other address?  --host or HOSTPOOL_HOST";
    case HP_STATUS_TIMEOUT:
        return "The broker is there but slow; see: hostpool broker ping";
    case HP_STATUS_INTERNAL:
    case HP_STATUS_DAMAGED:
        return "The broker's log says more; see also: hostpool broker check";
    case HP_STATUS_UNSUPPORTED:
    case HP_STATUS_UNKNOWN_METHOD:
        return "The broker may be older; see: hostpool broker status";
    case HP_STATUS_BROKER_LOST:
        return "The broker has restarted; what was kept in memory only is gone.";
    case HP_STATUS_SESSION_LOST:
        return "Whether it took effect is not known; see: hostpool ls";
    case HP_STATUS_OK:
    case HP_STATUS_BAD_REQUEST:
    case HP_STATUS_BAD_ARGUMENT:
    case HP_STATUS_NOT_FOUND:
    case HP_STATUS_OUT_OF_ORDER:
    case HP_STATUS_TOO_BIG:
    case HP_STATUS_STALE:
    case HP_STATUS_ILLEGAL_STATE:
    case HP_STATUS_AGAIN:
    case HP_STATUS_UNREACHABLE:
    case HP_STATUS_NO_MEMORY:
    case HP_STATUS_STOPPED:
    case HP_STATUS_SYSTEM:
        return NULL;
    }
    return NULL;
}

/* The text without a full stop at its end: one is added. */
static int text_size(const char *text)
{
    size_t size = strlen(text);
    while (size > 0 && (text[size - 1] == '.' || text[size - 1] == '\n')) {
        size--;
    }
    return (int)size;
}

/* "cannot reach the broker at HOST: WHY": the library's text begins with the host itself. */
static void say_unreachable(const char *host, const char *text)
{
    size_t size = strlen(host);
    if (strncmp(text, host, size) == 0 && text[size] == ':') {
        text += size + 1;
        text += *text == ' ';
    }
    char first = (char)tolower((unsigned char)text[0]);
    hp_cli_error("cannot reach the broker at %s: %c%.*s.", host, first, text_size(text + 1),
                 text + 1);
    hp_cli_hint("Is it running?  systemctl status hostpoold      Other address?  --host or "
                "HOSTPOOL_HOST");
}

int hp_cli_fail(struct hp_cli *cli, enum hp_status status, const char *doing)
{
    const char *text = cli->client != NULL ? hp_client_error(cli->client) : "";
    if (text == NULL || text[0] == '\0') {
        text = hp_strerror(status);
    }
    if (status == HP_STATUS_UNREACHABLE) {
        say_unreachable(cli->client != NULL ? hp_client_host(cli->client) : "?", text);
        return HP_CLI_UNREACHABLE;
    }
    hp_cli_error("%s%s%.*s.", doing != NULL ? doing : "", doing != NULL ? ": " : "",
                 text_size(text), text);
    if (advice(status) != NULL) {
        hp_cli_hint("%s", advice(status));
    }
    return hp_cli_exit_of(status);
}

void hp_cli_client_options(const struct hp_cli *cli, struct hp_client_options *options)
{
    hp_client_options_init(options);
    options->host = hp_cli_text(cli, HP_CLI_F_HOST, NULL);
    options->token_file = hp_cli_text(cli, HP_CLI_F_TOKEN_FILE, NULL);
    options->name = "hostpool " HP_VERSION;
    options->connect_timeout_ms = CONNECT_MS;
    options->events = false;
}

/*
 * One attempt: a person wants to hear at once that nobody listens, where the library would try
 * until the time is over.
 */
static enum hp_status connect_once(struct hp_client *client)
{
    int64_t until_ms = hp_cli_mono_ms() + CONNECT_MS;
    enum hp_status status = hp_client_process(client, 0);
    while (status == HP_STATUS_OK && !hp_client_connected(client)) {
        int64_t left_ms = until_ms - hp_cli_mono_ms();
        if (hp_client_fd(client) < 0 || left_ms <= 0) {
            /* Has the library put the reason into words. */
            status = hp_broker_ping(client, 0, NULL);
            return status == HP_STATUS_OK ? status : HP_STATUS_UNREACHABLE;
        }
        unsigned wants = hp_client_wants(client);
        struct pollfd wait = {.fd = hp_client_fd(client), .events = POLLIN};
        wait.events = (short)(wait.events | (wants & HP_IO_WRITE ? POLLOUT : 0));
        (void)poll(&wait, 1, (int)left_ms);
        unsigned ready = (wait.revents & (POLLIN | POLLHUP | POLLERR) ? HP_IO_READ : 0u) |
                         (wait.revents & (POLLOUT | POLLERR) ? HP_IO_WRITE : 0u);
        status = hp_client_process(client, ready);
    }
    return status;
}

static bool is_patient(const struct hp_cli_verb *verb)
{
    return verb->run == hp_cli_run || verb->run == hp_cli_submit || verb->run == hp_cli_map ||
           verb->run == hp_cli_wait;
}

int hp_cli_connect_with(struct hp_cli *cli, const struct hp_client_options *options)
{
    int64_t until_ms = hp_cli_mono_ms() + (is_patient(cli->args.verb) ? RESTART_MS : 0);
    enum hp_status status = HP_STATUS_OK;
    for (;;) {
        status = hp_client_new(options, &cli->client);
        if (status != HP_STATUS_OK) {
            return hp_cli_fail(cli, status, NULL);
        }
        status = connect_once(cli->client);
        bool is_away = status == HP_STATUS_UNREACHABLE || status == HP_STATUS_DRAINING;
        if (!is_away || hp_cli_mono_ms() >= until_ms) {
            break;
        }
        hp_client_free(cli->client);
        cli->client = NULL;
        (void)poll(NULL, 0, AGAIN_MS);
    }
    if (status != HP_STATUS_OK) {
        return hp_cli_fail(cli, status, "cannot connect to the broker");
    }
    if (hp_cli_has(cli, HP_CLI_F_VERBOSE)) {
        const char *server = hp_client_server(cli->client);
        hp_cli_error("connected to %s at %s.", server != NULL ? server : "a broker",
                     hp_client_host(cli->client));
    }
    return 0;
}

int hp_cli_connect(struct hp_cli *cli)
{
    struct hp_client_options options;
    hp_cli_client_options(cli, &options);
    return hp_cli_connect_with(cli, &options);
}

bool hp_cli_write_all(int fd, const void *data, size_t size)
{
    const char *at = data;
    while (size > 0) {
        ssize_t count = write(fd, at, size);
        if (count < 0 && errno == EAGAIN) { /* somebody we share it with made it non-blocking */
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            (void)poll(&wait, 1, -1);
            continue;
        }
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            return false;
        }
        at += count;
        size -= (size_t)count;
    }
    return true;
}

int hp_cli_flush(int code)
{
    if (fflush(stdout) == 0 && ferror(stdout) == 0) {
        return code;
    }
    if (errno != EPIPE) {
        hp_cli_error("cannot write to standard output: %s.", strerror(errno));
    }
    return code != 0 ? code : HP_CLI_FAILED;
}
