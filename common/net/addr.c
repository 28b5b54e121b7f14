/* SPDX-License-Identifier: BSD-2-Clause */
/* Addresses: parsing, printing, comparing. IPv4 mapped into IPv6 counts as the IPv4 address. */
#include "common/net/addr.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/str.h"

static enum hp_err set_host(struct hp_endpoint *endpoint, const char *host, size_t size,
                            const char *text, struct hp_error *reterr)
{
    if (size >= sizeof(endpoint->host)) {
        return hp_error_set(reterr, HP_ERR_RANGE, "the host name in '%.40s...' is too long", text);
    }
    if (size == 1 && host[0] == '*') {
        size = 0;
    }
    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)host[i] <= ' ' || host[i] == '/' || host[i] == '@' || host[i] == 127) {
            return hp_error_set(reterr, HP_ERR_INVALID, "'%.200s' is no HOST:PORT", text);
        }
    }
    memcpy(endpoint->host, host, size);
    endpoint->host[size] = '\0';
    return HP_OK;
}

static enum hp_err set_port(struct hp_endpoint *endpoint, const char *port, const char *text,
                            struct hp_error *reterr)
{
    uint64_t value = 0;
    if (hp_parse_u64(hp_str_of(port), &value, NULL) != HP_OK || value > UINT16_MAX) {
        return hp_error_set(reterr, HP_ERR_RANGE, "the port in '%.200s' is no number up to 65535",
                            text);
    }
    endpoint->port = (uint16_t)value;
    return HP_OK;
}

enum hp_err hp_endpoint_parse(const char *text, uint16_t port_default,
                              struct hp_endpoint *ret_endpoint, struct hp_error *reterr)
{
    struct hp_endpoint endpoint = {.port = port_default};
    const char *host = text;
    const char *host_end = text + strlen(text);
    const char *port = NULL;
    if (text[0] == '[') {
        host = text + 1;
        host_end = strchr(host, ']');
        if (host_end == NULL || (host_end[1] != '\0' && host_end[1] != ':')) {
            return hp_error_set(reterr, HP_ERR_INVALID, "'%.200s' is no [ADDRESS]:PORT", text);
        }
        port = host_end[1] == ':' ? host_end + 2 : NULL;
    } else {
        const char *colon = strchr(text, ':');
        if (colon != NULL && strchr(colon + 1, ':') == NULL) { /* else: an IPv6 address alone */
            host_end = colon;
            port = colon + 1;
        }
    }
    if (host == host_end && port == NULL) {
        return hp_error_set(reterr, HP_ERR_INVALID, "an address is missing");
    }
    enum hp_err err = set_host(&endpoint, host, (size_t)(host_end - host), text, reterr);
    if (err == HP_OK && port != NULL) {
        err = set_port(&endpoint, port, text, reterr);
    }
    if (err == HP_OK) {
        *ret_endpoint = endpoint;
    }
    return err;
}

/* The IPv4 address in network order, also when it is mapped into IPv6; false for others. */
static bool ipv4_of(const struct hp_addr *addr, uint32_t *ret)
{
    if (addr->storage.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&addr->storage;
        *ret = in->sin_addr.s_addr;
        return true;
    }
    if (addr->storage.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)&addr->storage;
        if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
            memcpy(ret, &in6->sin6_addr.s6_addr[12], sizeof(*ret));
            return true;
        }
    }
    return false;
}

uint16_t hp_addr_port(const struct hp_addr *addr)
{
    if (addr->storage.ss_family == AF_INET) {
        return ntohs(((const struct sockaddr_in *)(const void *)&addr->storage)->sin_port);
    }
    if (addr->storage.ss_family == AF_INET6) {
        return ntohs(((const struct sockaddr_in6 *)(const void *)&addr->storage)->sin6_port);
    }
    return 0;
}

char *hp_addr_host_text(const struct hp_addr *addr, char *out, size_t out_size)
{
    HP_ASSERT(out_size >= HP_ADDR_TEXT_BYTES);
    uint32_t v4 = 0;
    if (ipv4_of(addr, &v4)) {
        struct in_addr in = {.s_addr = v4};
        (void)inet_ntop(AF_INET, &in, out, (socklen_t)out_size); /* out_size is enough */
    } else if (addr->storage.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)&addr->storage;
        (void)inet_ntop(AF_INET6, &in6->sin6_addr, out, (socklen_t)out_size);
    } else {
        (void)hp_strlcpy(out, addr->storage.ss_family == AF_UNIX ? "unix" : "unknown", out_size);
    }
    return out;
}

char *hp_addr_text(const struct hp_addr *addr, char *out, size_t out_size)
{
    char host[HP_ADDR_TEXT_BYTES];
    (void)hp_addr_host_text(addr, host, sizeof(host));
    sa_family_t family = addr->storage.ss_family;
    if (family != AF_INET && family != AF_INET6) {
        (void)hp_strlcpy(out, host, out_size);
    } else {
        bool v6 = strchr(host, ':') != NULL;
        (void)snprintf(out, out_size, v6 ? "[%.60s]:%u" : "%.60s:%u", host, hp_addr_port(addr));
    }
    return out;
}

bool hp_addr_is_loopback(const struct hp_addr *addr)
{
    uint32_t v4 = 0;
    if (ipv4_of(addr, &v4)) {
        return (ntohl(v4) >> 24) == 127;
    }
    if (addr->storage.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)&addr->storage;
        return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
    }
    return addr->storage.ss_family == AF_UNIX;
}

bool hp_addr_same_host(const struct hp_addr *a, const struct hp_addr *b)
{
    uint32_t a4 = 0;
    uint32_t b4 = 0;
    bool a_is_v4 = ipv4_of(a, &a4);
    if (a_is_v4 != ipv4_of(b, &b4)) {
        return false;
    }
    if (a_is_v4) {
        return a4 == b4;
    }
    if (a->storage.ss_family != b->storage.ss_family) {
        return false;
    }
    if (a->storage.ss_family != AF_INET6) {
        return true;
    }
    const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)(const void *)&a->storage;
    const struct sockaddr_in6 *b6 = (const struct sockaddr_in6 *)(const void *)&b->storage;
    return memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr)) == 0;
}

enum hp_err hp_endpoint_resolve(const struct hp_endpoint *endpoint, bool passive,
                                struct hp_addr *ret_addrs, size_t max, size_t *ret_count,
                                struct hp_error *reterr)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0)};
    char port[8];
    (void)snprintf(port, sizeof(port), "%u", endpoint->port);
    struct addrinfo *list = NULL;
    const char *host = endpoint->host[0] == '\0' ? NULL : endpoint->host;
    int rc = getaddrinfo(host, port, &hints, &list);
    if (rc != 0) {
        return hp_error_set(reterr, HP_ERR_NOT_FOUND, "cannot find the address of '%.120s': %s",
                            endpoint->host, gai_strerror(rc));
    }
    size_t count = 0;
    for (const struct addrinfo *ai = list; ai != NULL && count < max; ai = ai->ai_next) {
        if (ai->ai_addrlen <= sizeof(ret_addrs[count].storage)) {
            ret_addrs[count] = (struct hp_addr){.size = ai->ai_addrlen};
            memcpy(&ret_addrs[count].storage, ai->ai_addr, ai->ai_addrlen);
            count++;
        }
    }
    freeaddrinfo(list);
    if (count == 0) {
        return hp_error_set(reterr, HP_ERR_NOT_FOUND, "'%.120s' has no address", endpoint->host);
    }
    *ret_count = count;
    return HP_OK;
}
