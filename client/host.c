/* SPDX-License-Identifier: BSD-2-Clause */
/* Where the broker is and what opens it: options first, then the environment, then the defaults. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/shell.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/sys/file.h"

#define DEFAULT_HOST "127.0.0.1"
#define DEFAULT_PORT "7741"
#define SCHEME "hostpool://"
#define TOKEN_BYTES_MAX 512u

static enum hp_status set_host(struct hp_client *client, struct hp_str host, struct hp_str port)
{
    uint64_t number = 0;
    size_t size = (size_t)host.size + port.size + 4;
    bool bracket = host.size > 0 && memchr(host.data, ':', host.size) != NULL;

    if (host.size == 0 || hp_parse_u64(port, &number, NULL) != HP_OK || number == 0 ||
        number > 65535) {
        return hp_client_fail(client, HP_STATUS_BAD_ARGUMENT,
                              "the broker's address must be HOST:PORT, HOST or [IPV6]:PORT");
    }
    client->host = hp_memdup(host.data, host.size);
    client->port = hp_memdup(port.data, port.size);
    client->display = hp_alloc(size);
    if (client->host == NULL || client->port == NULL || client->display == NULL) {
        return HP_STATUS_NO_MEMORY;
    }
    (void)snprintf(client->display, size, "%s%s%s:%s", bracket ? "[" : "", client->host,
                   bracket ? "]" : "", client->port);
    return HP_STATUS_OK;
}

enum hp_status hp_host_parse(struct hp_client *client, const char *text)
{
    struct hp_str port = HP_STR(DEFAULT_PORT);
    const char *colon;
    const char *end;

    if (text == NULL || text[0] == '\0') {
        text = getenv("HOSTPOOL_HOST");
    }
    if (text == NULL || text[0] == '\0') {
        text = DEFAULT_HOST;
    }
    if (strncmp(text, SCHEME, strlen(SCHEME)) == 0) {
        text += strlen(SCHEME);
    }
    colon = strrchr(text, ':');
    end = text + strlen(text);
    if (text[0] == '[') {
        const char *close = strchr(text, ']');

        if (close == NULL || (close[1] != ':' && close[1] != '\0')) {
            return set_host(client, HP_STR(""), port);
        }
        if (close[1] == ':') {
            port = hp_str_of(close + 2);
        }
        return set_host(client, hp_str_make(text + 1, (size_t)(close - text) - 1), port);
    }
    if (colon != NULL && strchr(text, ':') == colon) {
        end = colon;
        port = hp_str_of(colon + 1);
    } /* more than one colon without brackets: an IPv6 address */
    return set_host(client, hp_str_make(text, (size_t)(end - text)), port);
}

static enum hp_status read_token_file(struct hp_client *client, const char *path, char **ret_token)
{
    struct hp_error error = {0};
    struct hp_buf buf;
    enum hp_err err = hp_file_read(path, 64u << 10, &buf, &error);
    size_t size = 0;

    if (err != HP_OK) {
        return hp_client_fail(client, HP_STATUS_BAD_ARGUMENT, "token file: %s", error.text);
    }
    while (size < buf.size && buf.data[size] != '\n' && buf.data[size] != '\r') {
        size++;
    }
    if (size == 0 || size > TOKEN_BYTES_MAX) {
        hp_buf_deinit(&buf);
        return hp_client_fail(client, HP_STATUS_BAD_ARGUMENT,
                              "token file %s: the first line must be a token (1..512 bytes)", path);
    }
    *ret_token = hp_memdup(buf.data, size);
    hp_buf_deinit(&buf);
    return *ret_token == NULL ? HP_STATUS_NO_MEMORY : HP_STATUS_OK;
}

enum hp_status hp_client_token_read(struct hp_client *client,
                                    const struct hp_client_options *options, char **ret_token)
{
    const char *token = options->token;
    const char *path = options->token_file;

    *ret_token = NULL;
    if (token == NULL && path == NULL) {
        token = getenv("HOSTPOOL_TOKEN");
        path = getenv("HOSTPOOL_TOKEN_FILE");
    }
    if (token != NULL && token[0] != '\0') {
        if (strlen(token) > TOKEN_BYTES_MAX) {
            return hp_client_fail(client, HP_STATUS_BAD_ARGUMENT, "the token is over 512 bytes");
        }
        *ret_token = hp_strdup(token);
        return *ret_token == NULL ? HP_STATUS_NO_MEMORY : HP_STATUS_OK;
    }
    return path == NULL || path[0] == '\0' ? HP_STATUS_OK
                                           : read_token_file(client, path, ret_token);
}
