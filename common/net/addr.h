/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Network addresses as people write them: "127.0.0.1:7741", "[::1]:7741", "broker.example:7741".
 */
#ifndef HP_NET_ADDR_H
#define HP_NET_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/base/err.h"

/* Bytes that hold any address text, NUL included. */
#define HP_ADDR_TEXT_BYTES 80

/* Longest host name, NUL included. */
#define HP_HOST_BYTES 256

/* The broker's port where none is written. */
#define HP_PORT_DEFAULT 7741

struct hp_addr {
    struct sockaddr_storage storage;
    socklen_t size;
};

/* A place to connect to or listen on, as written. */
struct hp_endpoint {
    char host[HP_HOST_BYTES]; /* name or number, without brackets; "" or "*": any address */
    uint16_t port;
};

/*
 * "HOST:PORT", "HOST", "[V6]:PORT", "V6" (two or more colons without brackets: no port), "*:PORT".
 * A missing port is `port_default`. HP_ERR_INVALID or HP_ERR_RANGE with a sentence.
 */
enum hp_err hp_endpoint_parse(const char *text, uint16_t port_default,
                              struct hp_endpoint *ret_endpoint,
                              struct hp_error *reterr) HP_MUST_CHECK;

/* "127.0.0.1:7741", "[::1]:7741"; returns `out`. */
char *hp_addr_text(const struct hp_addr *addr, char *out, size_t out_size);

/* The same without the port; IPv4 inside IPv6 is written as IPv4. */
char *hp_addr_host_text(const struct hp_addr *addr, char *out, size_t out_size);

/* 127.0.0.0/8, ::1, ::ffff:127.0.0.0/8 and Unix sockets. */
bool hp_addr_is_loopback(const struct hp_addr *addr);

/* Same host, ports aside (IPv4 inside IPv6 equals the IPv4 address). */
bool hp_addr_same_host(const struct hp_addr *a, const struct hp_addr *b);

uint16_t hp_addr_port(const struct hp_addr *addr);

/*
 * All stream addresses of an endpoint, at most `max`, in the resolver's order. Blocks on DNS: for
 * start-up only (connections resolve on their own). `passive`: for listening, "" means any address.
 * HP_ERR_NOT_FOUND with the resolver's text.
 */
enum hp_err hp_endpoint_resolve(const struct hp_endpoint *endpoint, bool passive,
                                struct hp_addr *ret_addrs, size_t max, size_t *ret_count,
                                struct hp_error *reterr) HP_MUST_CHECK;

#endif
